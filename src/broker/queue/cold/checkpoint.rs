//! What a checkpoint and a purge do to a queue.

use std::collections::BTreeMap;

use super::{Cold, ColdEntry, GONE_MIN, Given, Header, LevelHeader, Look, Purged, Window};
use crate::broker::{
    queue::{
        machine::Machine,
        ready::{Entry, Ready},
    },
    record::Position,
    time::Time,
};

/// What a purge came to.
pub(in crate::broker::queue) struct Purge {
    /// Messages that went.
    pub(in crate::broker::queue) count: u64,
    /// Messages that stayed, though they came before the purge.
    pub(in crate::broker::queue) kept: Vec<u64>,
    /// Those that went and were in memory, to be dropped without a lock.
    pub(in crate::broker::queue) ready: Ready,
}

impl Machine {
    /// See [`Queue::look`](crate::broker::queue::Queue::look), which comes with the lock. Messages
    /// that were left to the index meanwhile are added to `evicted`.
    pub(in crate::broker::queue) fn look(
        &mut self,
        below: Position,
        window: &Window,
        evicted: &mut Vec<Entry>,
    ) -> Option<Look> {
        if self.cold.as_ref()?.given.is_some() {
            // Whoever was to say what became of it has not.
            self.looked(false, window, evicted);
        }
        let priority_max = self.ready.priority_max();
        let (resident, resident_bytes) = self.ready.resident();
        let is_whole = resident > window.messages || resident_bytes > window.bytes;
        let cold = self.cold.as_deref_mut()?;
        cold.window = *window;
        let (known, is_purged) = (cold.indexed_below, cold.purged.is_some());
        let since = if is_purged { 0 } else { cold.committed_below };
        // The others were indexed when they were ready, and nothing of them has to be told.
        let largest_out = self.handed.delivered().max(cold.dying_max);
        let mut out = Vec::new();
        if is_purged || cold.is_spill || largest_out >= since || !cold.moved.is_empty() {
            let entries = self.unsettled.slots(0, usize::MAX).chain(self.retries.iter());
            let recorded = entries.filter(|entry| entry.place != Position::NONE);
            out.extend(recorded.map(|entry| ColdEntry::of(entry, priority_max)));
            out.extend(cold.dying.values().cloned());
        }
        let mut indexed_below = known;
        if cold.is_spill {
            indexed_below = indexed_below.max(cold.spilled_below);
        } else if is_whole {
            indexed_below = self.next_seq;
        } else {
            for level in 0..=priority_max {
                let old = |entry: &&Entry| entry.place != Position::NONE && entry.place < below;
                if let Some(entry) = self.ready.range(level, known, u64::MAX).rev().find(old) {
                    indexed_below = indexed_below.max(entry.seq + 1);
                }
            }
            let old = out.iter().filter(|entry| entry.place < below).map(|entry| entry.seq + 1);
            indexed_below = old.fold(indexed_below, u64::max);
        }
        let mut look = Look { is_purged, ..Look::default() };
        for level in 0..=priority_max {
            let entries = self.ready.range(level, since, indexed_below);
            let recorded = entries.filter(|entry| entry.place != Position::NONE);
            look.puts.extend(recorded.map(|entry| ColdEntry::of(entry, priority_max)));
        }
        look.puts.extend(out.iter().filter(|entry| (since..indexed_below).contains(&entry.seq)).cloned());
        if let Some(purged) = &cold.purged {
            let is_cold = |entry: &&ColdEntry| self.ready.gap(entry.level).is_some_and(|gap| gap.has(entry.seq));
            look.puts.extend(purged.kept.values().filter(is_cold).map(|entry| cold.overlay(entry.clone())));
        } else {
            look.puts.extend(cold.changed.values().filter(|entry| entry.seq < since).cloned());
        }
        for put in &look.puts {
            if put.seq >= known {
                let (len, bytes) = cold.levels.entry(put.level).or_default();
                (*len, *bytes) = (*len + 1, *bytes + put.body_bytes);
            }
            if put.has_own_ttl {
                cold.index_deadline = cold.index_deadline.min(put.deadline);
                cold.own_deadline = cold.own_deadline.min(put.deadline);
            }
        }
        cold.indexed_below = indexed_below;
        let heads = heads(&self.ready, &out, cold);
        look.heads = heads.iter().map(|(&level, &head)| (level, head)).collect();
        look.heads.retain(|(level, head)| cold.heads.get(level).is_none_or(|told| told < head));
        let mut deletes = std::mem::take(&mut cold.gone);
        cold.prune_at = GONE_MIN;
        deletes.retain(|gone| heads.get(&gone.level).is_none_or(|&head| gone.seq >= head));
        look.deletes = deletes;
        let levels = cold.levels.iter().filter(|(_, (len, _))| *len > 0);
        let header = Header {
            indexed_below,
            next_seq: self.next_seq,
            handed: self.handed.reserved(),
            next_deadline: cold.index_deadline,
            levels: levels.map(|(&level, &(len, bytes))| LevelHeader { level, len, bytes }).collect(),
        };
        look.header = (cold.header.as_ref() != Some(&header)).then_some(header);
        if look.is_empty() {
            cold.moved.clear();
            if is_whole {
                self.evict(evicted);
            }
            return None;
        }
        cold.given = Some(Given {
            below: indexed_below,
            deletes: look.deletes.clone(),
            heads: look.heads.clone(),
            moved: std::mem::take(&mut cold.moved),
            changed: std::mem::take(&mut cold.changed),
            purged: cold.purged.take(),
            header: look.header.clone(),
        });
        Some(look)
    }

    /// See [`Queue::looked`](crate::broker::queue::Queue::looked).
    pub(in crate::broker::queue) fn looked(&mut self, is_committed: bool, window: &Window, evicted: &mut Vec<Entry>) {
        let Some(cold) = self.cold.as_deref_mut() else { return };
        let Some(given) = cold.given.take() else { return };
        cold.window = *window;
        if !is_committed {
            let since = std::mem::replace(&mut cold.gone, given.deletes);
            cold.gone.extend(since);
            cold.moved.extend(given.moved);
            for (seq, entry) in given.changed {
                cold.changed.entry(seq).or_insert(entry);
            }
            if cold.purged.is_none() {
                cold.purged = given.purged;
            } else {
                // The later purge has taken what the earlier one kept, unless it kept it, too.
                let purged = cold.purged.as_ref();
                cold.changed
                    .retain(|seq, _| purged.is_none_or(|purged| *seq >= purged.below || purged.kept.contains_key(seq)));
            }
            return;
        }
        cold.generation += 1;
        cold.committed_below = given.below;
        cold.heads.extend(given.heads);
        if given.header.is_some() {
            cold.header = given.header;
        }
        for gone in &given.deletes {
            self.ready.forget_out(gone.level, gone.seq);
        }
        self.evict(evicted);
    }

    fn evict(&mut self, evicted: &mut Vec<Entry>) {
        let priority_max = self.ready.priority_max();
        let Some(cold) = self.cold.as_deref_mut() else { return };
        let (resident, resident_bytes) = self.ready.resident();
        // What a purge took is still in the index, and nobody could tell it from what is left to it.
        let is_purged = cold.purged.is_some() || cold.given.as_ref().is_some_and(|given| given.purged.is_some());
        if is_purged || resident <= cold.window.messages && resident_bytes <= cold.window.bytes {
            return;
        }
        let entries = self.ready.evict(&cold.window, cold.committed_below);
        if entries.is_empty() {
            return;
        }
        for entry in &entries {
            if entry.message.traits.ttl.ms().is_some() && entry.deadline != Time::NEVER {
                cold.own_deadline = cold.own_deadline.min(entry.deadline);
                if entry.deadline <= cold.expired.0 {
                    cold.expired = (Time(entry.deadline.0.saturating_sub(1)), u64::MAX);
                }
            }
        }
        evicted.extend(entries);
        // What is not ready, or has gone and the index does not know, may be in the new gaps.
        for entry in self.unsettled.slots(0, usize::MAX).chain(self.retries.iter()) {
            self.ready.note_out(entry.message.traits.priority.min(priority_max), entry.seq);
        }
        for entry in cold.dying.values() {
            self.ready.note_out(entry.level, entry.seq);
        }
        let given = cold.given.iter().flat_map(|given| &given.deletes);
        for gone in cold.gone.iter().chain(given) {
            self.ready.note_out(gone.level, gone.seq);
        }
    }

    /// Drops pending deletes below the heads when they have piled up: in-order consumption costs the
    /// index one head, and memory nothing.
    pub(in crate::broker::queue) fn prune_gone(&mut self) {
        let priority_max = self.ready.priority_max();
        let Some(cold) = self.cold.as_deref_mut().filter(|cold| cold.gone.len() >= cold.prune_at) else { return };
        let entries = self.unsettled.slots(0, usize::MAX).chain(self.retries.iter());
        let mut out: Vec<_> = entries.map(|entry| ColdEntry::of(entry, priority_max)).collect();
        out.extend(cold.dying.values().cloned());
        let heads = heads(&self.ready, &out, cold);
        cold.gone.retain(|gone| heads.get(&gone.level).is_none_or(|&head| gone.seq >= head));
        cold.prune_at = GONE_MIN.max(2 * cold.gone.len()).max(out.len());
    }

    /// Removes all ready messages, wherever they are. `None` without an index: they go one by one.
    pub(in crate::broker::queue) fn purge_all(&mut self) -> Option<Purge> {
        let priority_max = self.ready.priority_max();
        let cold = self.cold.as_deref_mut()?;
        let count = self.ready.len() as u64;
        let ready = std::mem::replace(&mut self.ready, Ready::new(priority_max));
        let entries = self.unsettled.slots(0, usize::MAX).chain(self.retries.iter());
        let recorded = entries.filter(|entry| entry.place != Position::NONE);
        let mut kept: BTreeMap<u64, ColdEntry> =
            recorded.map(|entry| (entry.seq, ColdEntry::of(entry, priority_max))).collect();
        kept.extend(cold.dying.iter().map(|(seq, entry)| (*seq, entry.clone())));
        let seqs = kept.keys().copied().collect();
        cold.purge(self.next_seq, kept);
        Some(Purge { count, kept: seqs, ready })
    }
}

impl Cold {
    /// Everything before that seq has gone, but for some.
    pub(super) fn purge(&mut self, below: u64, kept: BTreeMap<u64, ColdEntry>) {
        self.changed.retain(|seq, _| *seq >= below || kept.contains_key(seq));
        self.gone.clear();
        self.levels.clear();
        for entry in kept.values().filter(|entry| entry.seq < self.indexed_below) {
            let (len, bytes) = self.levels.entry(entry.level).or_default();
            (*len, *bytes) = (*len + 1, *bytes + entry.body_bytes);
        }
        self.purged = Some(Purged { below, kept });
    }
}

/// Per level whose head may have moved: the smallest seq that may be alive in the index.
fn heads(ready: &Ready, out: &[ColdEntry], cold: &Cold) -> BTreeMap<u8, u64> {
    let first = |&level: &u8| (level, ready.first_seq(level).unwrap_or(u64::MAX).min(cold.indexed_below));
    let mut heads: BTreeMap<u8, u64> = cold.moved.iter().map(first).collect();
    for entry in out {
        if let Some(head) = heads.get_mut(&entry.level) {
            *head = (*head).min(entry.seq);
        }
    }
    heads
}
