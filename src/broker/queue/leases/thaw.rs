//! Messages that are set aside and not in memory, and those that somebody names though they are not: read
//! when something is to become of them. One page is asked for at a time.

use super::{Body, Leases};
use crate::broker::{
    queue::{
        cold::{Page, Wanted},
        machine::Machine,
    },
    record::Position,
};

/// What a page for messages that are set aside is asked for with, beside the generation.
pub(in crate::broker::queue) const THAWING: u64 = 1 << 62;
/// Messages of one page.
const PAGE_MESSAGES_MAX: usize = 256;
/// Bytes of bodies of one page, if it has more than one message.
const PAGE_BYTES_MAX: u64 = 8 << 20;

/// A page that is to be asked for now.
pub(in crate::broker::queue) struct Thaw {
    pub(in crate::broker::queue) wanted: Wanted,
    pub(in crate::broker::queue) is_in_log: bool,
    pub(in crate::broker::queue) is_in_spill: bool,
}

impl Leases {
    fn place_of(&self, seq: u64) -> Option<Position> {
        match &self.aside.get(&seq)?.body {
            Body::Cold(entry) => Some(entry.place),
            Body::Here(_) => None,
        }
    }
}

impl Machine {
    /// The page that is to be asked for now; it is told once.
    #[inline]
    pub(in crate::broker::queue) fn wanted_thaw(&mut self) -> Option<Thaw> {
        let leases = self.leases.as_deref_mut().filter(|leases| !leases.is_thaw_asked)?;
        if leases.thawing.is_empty() && leases.sought.is_empty() {
            return None;
        }
        let cold = self.cold.as_deref().filter(|cold| !cold.is_damaged())?;
        let (messages_max, bytes_max) = (PAGE_MESSAGES_MAX, PAGE_BYTES_MAX);
        let thaw = match leases.thawing.first() {
            Some(&(level, from)) => {
                let is_in_spill = leases.place_of(from).is_some_and(Position::is_in_spill);
                let near = leases.thawing.iter().take(PAGE_MESSAGES_MAX).take_while(|(of, seq)| {
                    *of == level && leases.place_of(*seq).is_some_and(|place| place.is_in_spill() == is_in_spill)
                });
                let to = near.last().map_or(from, |(_, seq)| *seq) + 1;
                let wanted = Wanted::Front { level, from, to, messages_max, bytes_max };
                Thaw { wanted, is_in_log: !is_in_spill, is_in_spill }
            }
            None => {
                let (&from, &level) = leases.sought.iter().find(|(_, level)| level.is_some())?;
                let wanted = Wanted::Front { level: level?, from, to: from + 1, messages_max, bytes_max };
                Thaw { wanted, is_in_log: cold.is_logged(), is_in_spill: cold.has_spilled() }
            }
        };
        leases.is_thaw_asked = true;
        Some(thaw)
    }

    /// Takes such a page. Returns what is wrong with the messages on disk, once.
    pub(in crate::broker::queue) fn thaw(&mut self, page: Page) -> Option<String> {
        let (leases, cold) = (self.leases.as_deref_mut()?, self.cold.as_deref_mut()?);
        leases.is_thaw_asked = false;
        if page.generation & !THAWING != cold.generation() || cold.is_damaged() {
            return None;
        }
        let Wanted::Front { level, from: first, .. } = page.wanted else { return None };
        let entries = match page.result {
            Ok(entries) => entries,
            Err(error) => {
                cold.set_damaged();
                return Some(error);
            }
        };
        let mut found = Vec::new();
        for (entry, message) in entries {
            let seq = entry.seq;
            let is_wanted = leases.thawing.contains(&(entry.level, seq));
            match leases.aside.get_mut(&seq) {
                Some(aside) if is_wanted => {
                    let Body::Cold(kept) = &aside.body else { continue };
                    let bytes = kept.body_bytes;
                    let mut entry = kept.clone().with(message);
                    entry.redelivered |= cold.was_maybe_handed(seq);
                    aside.body = Body::Here(entry);
                    leases.here = (leases.here.0 + 1, leases.here.1 + bytes);
                    leases.thawing.remove(&(level, seq));
                    leases.due.push(std::cmp::Reverse((aside.until, seq)));
                }
                None if leases.sought.contains_key(&seq) && !cold.has_lost(&entry) => {
                    found.push(cold.overlay(entry).with(message));
                }
                _ => {}
            }
        }
        if leases.thawing.contains(&(level, first)) {
            cold.set_damaged();
            return Some(format!("the index misses message {first} of priority {level}"));
        }
        for entry in found {
            let (seq, bytes, is_persistent) = (entry.seq, entry.message.body_bytes(), entry.message.traits.persistent);
            if self.ready.take_cold(level, seq, bytes, is_persistent) {
                self.put_back(entry);
            }
        }
        let is_sought = self.leases.as_deref().is_some_and(|leases| leases.sought.contains_key(&first));
        if is_sought && self.ready.get(level, first).is_none() {
            let next = level.checked_add(1).and_then(|level| self.next_sought(first, level));
            self.leases_mut().sought.insert(first, next);
        } else if is_sought {
            self.leases_mut().sought.remove(&first);
        }
        None
    }
}
