//! What of a queue is in no log leaves memory: it is written to files that last as long as the process,
//! and then the index of these has it as the other index has what is in the log. Of a durable queue
//! these are its transient messages.
//!
//! ```text
//! Queue::overflow      what is behind the window, under the lock; whoever asks writes it without
//! Queue::look_spilled  where it was written, and what changed: what a look is to a checkpoint
//! Queue::spilled       the index has it: it leaves memory
//! ```
//!
//! What is written has the seqs of messages that came after all that were written before, so that per
//! priority later seqs have later places. Hence a message that was taken out of the queue in its turn,
//! or waited at its head, before the queue got long, and is put back, stays in memory, as it was there
//! before.

use std::sync::Arc;

use super::{Home, Look, Window};
use crate::broker::{
    message::Message,
    queue::{Queue, machine::Machine, ready::Entry},
    record::Position,
    turn::Turn,
};

/// What is to be written of a queue.
#[derive(Debug)]
pub struct Overflow {
    /// Nothing with a smaller seq than this will be written later.
    pub below: u64,
    /// Messages by priority, in the order of their seqs.
    pub levels: Vec<(u8, Vec<(u64, Message)>)>,
}

/// Where messages of one priority were written, by their seqs and in order of them.
pub type LevelPlaces = (u8, Vec<(u64, Position)>);

/// Messages of one priority that are written at once.
const OVERFLOW_MAX: usize = 65_536;
/// How often a queue is not written because a page of it is being read, which would be in vain.
const DEFERRED_MAX: u8 = 10;

impl Queue {
    /// Tells, if that is so, that it is too long for memory.
    #[inline]
    pub(in crate::broker::queue) fn tell_overflow(self: &Arc<Self>, machine: &mut Machine, turn: &Turn<'_>) {
        if let Some(spill) = turn.broker.spill()
            && !machine.is_overflowing
            && machine.outgrows(&spill.window())
            && !self.is_stream()
        {
            machine.is_overflowing = true;
            spill.overflows(self);
        }
    }

    /// What of it is behind the window and has to be written before it can leave memory; `None` when it
    /// has become short, or this is not the moment. From now on
    /// [`Spill::overflows`](crate::broker::verb::Spill::overflows) tells of it again.
    pub fn overflow(&self, window: &Window) -> Option<Overflow> {
        let mut machine = self.lock();
        machine.is_overflowing = false;
        if self.is_deleted() { None } else { machine.overflow(window) }
    }

    /// Whether [`Spill::overflows`](crate::broker::verb::Spill::overflows) would tell of it.
    pub fn outgrows(&self, window: &Window) -> bool {
        self.lock().outgrows(window)
    }

    /// As [`Self::look`], for what was spilled. `written` is what [`Self::overflow`] told and was written
    /// since: `below`, and by priority where.
    pub fn look_spilled(&self, written: Option<(u64, &[LevelPlaces])>, window: &Window) -> Option<Look> {
        let mut evicted = Vec::new();
        let mut machine = self.lock();
        if self.is_deleted() {
            return None;
        }
        if let Some((below, places)) = written {
            machine.note_spilled(below, places, window);
        }
        let look = machine.look(Home::Spill, Position::NONE, window, &mut evicted);
        // Dropped after the lock is let go, as many messages may be.
        drop(machine);
        look
    }

    /// As [`Self::looked`], for what was spilled.
    pub fn spilled(&self, is_committed: bool, window: &Window) {
        let mut evicted = Vec::new();
        let mut machine = self.lock();
        machine.looked(Home::Spill, is_committed, window, &mut evicted);
        drop(machine);
    }
}

impl Machine {
    /// Whether it has indexes though it is in no log.
    pub(in crate::broker::queue) fn is_spilling(&self) -> bool {
        self.cold.as_deref().is_some_and(|cold| !cold.is_logged)
    }

    #[inline]
    fn outgrows(&self, window: &Window) -> bool {
        let window = &self.stretched(window);
        let (loose, loose_bytes) = self.ready.loose();
        let (resident, resident_bytes) = self.ready.resident();
        // What is in the log leaves memory without being written again.
        (loose > window.messages / 2 || loose_bytes > window.bytes / 2)
            && (resident > window.messages + window.messages / 2 || resident_bytes > window.bytes + window.bytes / 2)
    }

    fn exceeds(&self, window: &Window) -> bool {
        let (resident, resident_bytes) = self.ready.resident();
        resident > window.messages || resident_bytes > window.bytes
    }

    fn overflow(&mut self, window: &Window) -> Option<Overflow> {
        let window = &self.stretched(window);
        if !self.exceeds(window) {
            return None;
        }
        if let Some(cold) = self.cold.as_deref_mut() {
            if cold.is_reading() && cold.deferred < DEFERRED_MAX {
                cold.deferred += 1;
                return None;
            }
            cold.deferred = 0;
        }
        let known = self.cold.as_deref().map_or(0, |cold| cold.spilled_below);
        let is_logged = self.cold.as_deref().is_some_and(|cold| cold.is_logged);
        let is_loose =
            |entry: &&Entry| entry.place == Position::NONE && !(is_logged && entry.message.traits.persistent);
        let (mut messages, mut bytes) = (window.messages, window.bytes);
        let mut below = self.next_seq;
        let mut levels = Vec::new();
        for level in (0..=self.ready.priority_max()).rev() {
            let head_end = self.ready.gap(level).map_or(u64::MAX, |gap| gap.from);
            // As the window is filled when the rest leaves.
            let mut over_from = head_end;
            for entry in self.ready.range(level, 0, head_end) {
                let body_bytes = entry.message.body_bytes();
                if messages == 0 || body_bytes > bytes {
                    messages = 0;
                    over_from = entry.seq;
                    break;
                }
                (messages, bytes) = (messages - 1, bytes - body_bytes);
            }
            let over = self.ready.range(level, over_from.max(known), below);
            let mut over = over.filter(is_loose);
            let found: Vec<_> =
                over.by_ref().take(OVERFLOW_MAX).map(|entry| (entry.seq, entry.message.clone())).collect();
            if let Some(next) = over.next() {
                below = next.seq;
            }
            levels.push((level, found));
        }
        for (_, found) in &mut levels {
            found.truncate(found.partition_point(|(seq, _)| *seq < below));
        }
        Some(Overflow { below, levels })
    }

    fn note_spilled(&mut self, below: u64, places: &[LevelPlaces], window: &Window) {
        let window = &self.stretched(window);
        // What has become short meanwhile stays here, and nobody knows of those places.
        if !self.exceeds(window) || self.cold.as_deref().is_some_and(|cold| below <= cold.spilled_below) {
            return;
        }
        let cold = self.cold.get_or_insert_default();
        cold.spill.get_or_insert_default();
        cold.spilled_below = below;
        for (level, places) in places {
            debug_assert!(places.iter().all(|(_, place)| place.is_in_spill()));
            self.ready.place(*level, places);
        }
    }
}
