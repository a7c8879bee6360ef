//! What a checkpoint and a purge do to a queue.

use std::collections::BTreeMap;

use super::{
    Cold, ColdEntry, Header, Look, Window,
    side::{Given, Home, Side},
};
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
    /// See [`Queue::look`](crate::broker::queue::Queue::look), which comes with the lock, for one of the
    /// indexes. Messages that were left to it meanwhile are added to `evicted`.
    pub(in crate::broker::queue) fn look(
        &mut self,
        home: Home,
        below: Position,
        window: &Window,
        evicted: &mut Vec<Entry>,
    ) -> Option<Look> {
        let window = &self.stretched(window);
        if self.cold.as_deref_mut()?.side_mut(home)?.given.is_some() {
            // Whoever was to say what became of it has not.
            self.looked(home, false, window, evicted);
        }
        let priority_max = self.ready.priority_max();
        let (resident, resident_bytes) = self.ready.resident();
        let is_whole = resident > window.messages || resident_bytes > window.bytes;
        let cold = self.cold.as_deref_mut()?;
        cold.window = *window;
        let Cold { log, spill, dying, dying_max, own_deadline, .. } = cold;
        let (side, is_spill) = match home {
            Home::Log => (log, false),
            Home::Spill => (spill.as_deref_mut()?, true),
        };
        let (known, is_purged) = (side.indexed_below, side.purged.is_some());
        let since = if is_purged { 0 } else { side.committed_below };
        // The others were indexed when they were ready, and nothing of them has to be told.
        let largest_out = self.handed.delivered().max(*dying_max);
        let mut out = Vec::new();
        let aside = self.leases.as_deref();
        if is_purged || is_spill || largest_out >= since || !side.moved.is_empty() || aside.is_some() {
            let entries = self.unsettled.slots(0, usize::MAX).chain(self.retries.iter());
            let recorded = entries.filter(|entry| home.has(entry.place));
            out.extend(recorded.map(|entry| ColdEntry::of(entry, priority_max)));
            let aside = aside.into_iter().flat_map(|aside| aside.cold_entries(priority_max));
            out.extend(aside.filter(|entry| home.has(entry.place)));
            if !is_spill {
                out.extend(dying.values().cloned());
            }
        }
        let mut indexed_below = known;
        if is_spill {
            indexed_below = indexed_below.max(cold.spilled_below);
        } else if is_whole {
            indexed_below = self.next_seq;
        } else {
            for level in 0..=priority_max {
                let old = |entry: &&Entry| home.has(entry.place) && entry.place < below;
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
            let recorded = entries.filter(|entry| home.has(entry.place));
            look.puts.extend(recorded.map(|entry| ColdEntry::of(entry, priority_max)));
        }
        look.puts.extend(out.iter().filter(|entry| (since..indexed_below).contains(&entry.seq)).cloned());
        if let Some(purged) = &side.purged {
            let is_cold = |entry: &&ColdEntry| self.ready.gap(entry.level).is_some_and(|gap| gap.has(entry.seq));
            look.puts.extend(purged.kept.values().filter(is_cold).map(|entry| side.overlay(entry.clone())));
        } else {
            look.puts.extend(side.changed.values().filter(|entry| entry.seq < since).cloned());
        }
        for put in &look.puts {
            if put.seq >= known {
                let (len, bytes) = side.levels.entry(put.level).or_default();
                (*len, *bytes) = (*len + 1, *bytes + put.body_bytes);
            }
            if put.has_own_ttl {
                side.deadline = side.deadline.min(put.deadline);
                *own_deadline = (*own_deadline).min(put.deadline);
            }
        }
        side.indexed_below = indexed_below;
        let heads = side.moved_heads(&self.ready, &out);
        look.heads = heads.iter().map(|(&level, &head)| (level, head)).collect();
        look.heads.retain(|(level, head)| side.heads.get(level).is_none_or(|told| told < head));
        look.deletes = side.take_gone(&heads);
        let header = Header {
            indexed_below,
            next_seq: self.next_seq,
            handed: self.handed.reserved(),
            next_deadline: side.deadline,
            levels: side.level_headers(),
        };
        look.header = (side.header.as_ref() != Some(&header)).then_some(header);
        if let Some(leases) = self.leases.as_deref_mut().filter(|_| !is_spill) {
            look.notes = leases.look(indexed_below, priority_max);
        }
        if look.is_empty() {
            side.moved.clear();
            if is_whole {
                self.evict(evicted);
            }
            return None;
        }
        side.given = Some(Given {
            below: indexed_below,
            deletes: look.deletes.clone(),
            heads: look.heads.clone(),
            moved: std::mem::take(&mut side.moved),
            changed: std::mem::take(&mut side.changed),
            purged: side.purged.take(),
            header: look.header.clone(),
        });
        Some(look)
    }

    /// See [`Queue::looked`](crate::broker::queue::Queue::looked).
    pub(in crate::broker::queue) fn looked(
        &mut self,
        home: Home,
        is_committed: bool,
        window: &Window,
        evicted: &mut Vec<Entry>,
    ) {
        let window = self.stretched(window);
        let Some(cold) = self.cold.as_deref_mut() else { return };
        let Some(side) = cold.side_mut(home) else { return };
        let Some(given) = side.given.take() else { return };
        if let Some(leases) = self.leases.as_deref_mut().filter(|_| home == Home::Log) {
            leases.looked(is_committed);
        }
        if is_committed {
            side.committed_below = given.below;
            side.heads.extend(given.heads);
            if given.header.is_some() {
                side.header = given.header;
            }
            for gone in &given.deletes {
                self.ready.forget_out(gone.level, gone.seq);
            }
            cold.generation += 1;
        } else {
            side.take_back(given);
        }
        cold.window = window;
        if is_committed {
            self.evict(evicted);
            self.evict_aside(&window, evicted);
        }
    }

    fn evict(&mut self, evicted: &mut Vec<Entry>) {
        let priority_max = self.ready.priority_max();
        let kept = self.kept_in_memory();
        let Some(cold) = self.cold.as_deref_mut() else { return };
        let (resident, resident_bytes) = self.ready.resident();
        // What a purge took is still in the index, and nobody could tell it from what is left to it.
        let has_purged = cold.sides().any(Side::has_purged);
        if has_purged || resident <= cold.window.messages && resident_bytes <= cold.window.bytes {
            return;
        }
        let entries = self.ready.evict(&cold.window, |entry| {
            cold.is_committed(entry) && kept.as_ref().is_none_or(|kept| !kept.contains(&entry.seq))
        });
        if entries.is_empty() {
            return;
        }
        for entry in &entries {
            if entry.message.traits.ttl.ms().is_some() && entry.deadline != Time::NEVER {
                cold.own_deadline = cold.own_deadline.min(entry.deadline);
                if entry.deadline <= cold.expired.0 {
                    // A page that is on its way was asked for from behind this one, and would take the search
                    // past it again.
                    cold.generation += 1;
                    cold.expired = (Time(entry.deadline.0.saturating_sub(1)), u64::MAX);
                }
            }
        }
        self.note_evicted(&entries);
        evicted.extend(entries);
        let Some(cold) = self.cold.as_deref_mut() else { return };
        // What is not ready, or has gone and the index does not know, may be in the new gaps.
        for entry in self.unsettled.slots(0, usize::MAX).chain(self.retries.iter()) {
            self.ready.note_out(entry.message.traits.priority.min(priority_max), entry.seq);
        }
        for entry in self.leases.as_deref().into_iter().flat_map(|aside| aside.cold_entries(priority_max)) {
            self.ready.note_out(entry.level, entry.seq);
        }
        for entry in cold.dying.values() {
            self.ready.note_out(entry.level, entry.seq);
        }
        for gone in cold.sides().flat_map(Side::all_gone) {
            self.ready.note_out(gone.level, gone.seq);
        }
    }

    /// Drops pending deletes below the heads when they have piled up: in-order consumption costs the
    /// index one head, and memory nothing.
    pub(in crate::broker::queue) fn prune_gone(&mut self) {
        let priority_max = self.ready.priority_max();
        let Some(cold) = self.cold.as_deref_mut().filter(|cold| cold.sides().any(Side::is_prunable)) else { return };
        let entries = self.unsettled.slots(0, usize::MAX).chain(self.retries.iter());
        let mut out: Vec<_> = entries.map(|entry| ColdEntry::of(entry, priority_max)).collect();
        out.extend(self.leases.as_deref().into_iter().flat_map(|aside| aside.cold_entries(priority_max)));
        out.extend(cold.dying.values().cloned());
        for side in cold.sides_mut().filter(|side| side.is_prunable()) {
            side.prune(&self.ready, &out);
        }
    }

    /// Removes all ready messages, wherever they are. `None` without an index: they go one by one.
    pub(in crate::broker::queue) fn purge_all(&mut self) -> Option<Purge> {
        let priority_max = self.ready.priority_max();
        let cold = self.cold.as_deref_mut()?;
        let count = self.ready.len() as u64 + self.leases.as_deref().map_or(0, |aside| aside.len() as u64);
        let ready = std::mem::replace(&mut self.ready, Ready::new(priority_max));
        let entries = self.unsettled.slots(0, usize::MAX).chain(self.retries.iter());
        let mut kept: Vec<_> = entries.map(|entry| ColdEntry::of(entry, priority_max)).collect();
        kept.extend(cold.dying.values().cloned());
        let kept_in = |home: Home| -> BTreeMap<u64, ColdEntry> {
            let kept = kept.iter().filter(|entry| home.has(entry.place));
            kept.map(|entry| (entry.seq, entry.clone())).collect()
        };
        if let Some(spill) = cold.spill.as_deref_mut() {
            spill.purge(self.next_seq, kept_in(Home::Spill));
        }
        let kept = kept_in(Home::Log);
        let seqs = kept.keys().copied().collect();
        if cold.is_logged {
            cold.log.purge(self.next_seq, kept);
        }
        self.clear_aside();
        Some(Purge { count, kept: seqs, ready })
    }
}
