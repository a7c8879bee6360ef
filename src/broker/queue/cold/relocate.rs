//! What a queue does when the log has some of its messages at another place than before.
//!
//! The new places reach the index like any other change of a message: with the next look, unless the
//! message leaves first.

use std::collections::HashMap;

use super::ColdEntry;
use crate::broker::{
    queue::{Queue, handle::CHUNK, machine::Machine},
    record::Position,
};

/// A message as the log's index has it, and where the log has it, too, from now on.
#[derive(Clone, Debug)]
pub struct Relocated {
    /// The message.
    pub entry: ColdEntry,
    /// The new place.
    pub place: Position,
}

impl Queue {
    /// Says where the log has messages of the index, too. The next look tells the new places of those that
    /// are still in the queue then. A message on its way out keeps its old place, so nothing may be
    /// given up because this was called: only because the index names it no more.
    pub fn relocated(&self, all: &[Relocated]) {
        for some in all.chunks(CHUNK) {
            let mut machine = self.lock();
            if self.is_deleted() {
                return;
            }
            machine.relocated(some);
        }
    }

    /// Number of messages that the log's index has, and the bytes of their bodies.
    pub fn indexed(&self) -> (u64, u64) {
        let machine = self.lock();
        if let Some(stream) = &machine.stream {
            return (stream.len(), stream.body_bytes());
        }
        let levels = machine.cold.as_deref().into_iter().flat_map(|cold| cold.log.levels.values());
        levels.fold((0, 0), |(len, bytes), of| (len + of.0, bytes + of.1))
    }
}

impl Machine {
    fn relocated(&mut self, all: &[Relocated]) {
        let priority_max = self.ready.priority_max();
        let Some(cold) = self.cold.as_deref_mut() else { return };
        // Of messages in memory the old place is not to come back with a later change.
        let mut others = HashMap::new();
        for Relocated { entry, place } in all {
            let seq = entry.seq;
            if let Some(here) = self.ready.get_mut(entry.level, seq) {
                if here.place == entry.place {
                    here.place = *place;
                    cold.log.changed.insert(seq, ColdEntry::of(here, priority_max));
                }
            } else if self.ready.gap(entry.level).is_some_and(|gap| gap.has(seq)) && !cold.log.is_purged(seq) {
                let known = cold.overlay(entry.clone());
                if known.place == entry.place {
                    cold.log.changed.insert(seq, ColdEntry { place: *place, ..known });
                }
            } else {
                others.insert(seq, (entry.place, *place));
            }
        }
        if others.is_empty() {
            return;
        }
        let mut relocate = |here: &mut crate::broker::queue::ready::Entry| {
            if let Some(&(_, place)) = others.get(&here.seq).filter(|(old, _)| *old == here.place) {
                here.place = place;
                cold.log.changed.insert(here.seq, ColdEntry::of(here, priority_max));
            }
        };
        self.unsettled.iter_mut().for_each(&mut relocate);
        self.retries.for_each_mut(relocate);
        self.relocate_aside(|seq, at| others.get(&seq).filter(|(old, _)| *old == at).map(|(_, new)| *new));
    }
}
