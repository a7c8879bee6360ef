//! A queue's cold messages while records are replayed: the index had them at the last checkpoint,
//! and the records say what became of them since, and a little of what the index knows already.

use std::collections::{BTreeMap, BTreeSet};

use super::{Cold, ColdEntry, Header};
use crate::broker::queue::{
    machine::Machine,
    ready::{Entry, Gap},
};

/// Finds a message in the index by level and seq.
pub(in crate::broker) type Find<'a> = &'a dyn Fn(u8, u64) -> Option<ColdEntry>;

impl Machine {
    /// Has an index keep what is too much for memory.
    pub(in crate::broker) fn keep_cold(&mut self) {
        match &mut self.stream {
            Some(stream) => stream.keep_cold(),
            None => self.cold = Some(Box::new(Cold { is_logged: true, ..Cold::default() })),
        }
    }

    /// Everything that the header says is cold.
    pub(in crate::broker) fn restore_header(&mut self, header: Header) {
        let Some(cold) = self.cold.as_deref_mut() else { return };
        (cold.log.indexed_below, cold.log.committed_below) = (header.indexed_below, header.indexed_below);
        (cold.log.deadline, cold.own_deadline) = (header.next_deadline, header.next_deadline);
        self.next_seq = self.next_seq.max(header.next_seq).max(header.indexed_below);
        let priority_max = self.ready.priority_max();
        for level in &header.levels {
            debug_assert!(level.level <= priority_max, "a queue keeps its priorities");
            cold.log.levels.insert(level.level, (level.len, level.bytes));
            self.ready.restore_gap(Gap {
                level: level.level,
                from: 0,
                to: header.indexed_below,
                len: level.len,
                bytes: level.bytes,
                // No others outlive the process.
                persistent: (level.len, level.bytes),
                deadline: Gap::UNKNOWN,
                out: BTreeSet::new(),
            });
        }
        self.restore_handed(header.handed);
        if let Some(cold) = self.cold.as_deref_mut() {
            cold.log.header = Some(header);
        }
    }

    /// Whether a message of that seq is the index's affair: records do not bring it back.
    pub(in crate::broker) fn is_indexed(&self, seq: u64) -> bool {
        self.cold.as_deref().is_some_and(|cold| seq < cold.log.indexed_below)
    }

    pub(in crate::broker::queue) fn find_cold(&self, seq: u64, find: Find<'_>) -> Option<ColdEntry> {
        let cold = self.cold.as_deref().filter(|cold| seq < cold.log.indexed_below && !cold.log.is_purged(seq))?;
        let mut gaps = self.ready.gaps().iter().filter(|gap| gap.has(seq));
        gaps.find_map(|gap| find(gap.level, seq)).map(|entry| cold.overlay(entry))
    }

    /// Forgets a message that a log says has left the queue.
    pub(in crate::broker) fn restore_gone(&mut self, seq: u64, find: Find<'_>) -> Option<Entry> {
        if self.restore_aside_gone(seq) {
            return None;
        }
        if let Some(entry) = self.take_resident(seq) {
            return Some(entry);
        }
        let entry = self.find_cold(seq, find)?;
        self.ready.take_cold(entry.level, seq, entry.body_bytes, true);
        if let Some(cold) = self.cold.as_deref_mut() {
            cold.log.count_out(&entry);
        }
        None
    }

    pub(in crate::broker::queue) fn take_resident(&mut self, seq: u64) -> Option<Entry> {
        (0..=self.ready.priority_max()).find_map(|level| self.ready.take(level, seq))
    }

    /// Repeats a failed delivery that a log tells of.
    pub(in crate::broker) fn restore_requeued(&mut self, seq: u64, delivery_count: u32, find: Find<'_>) {
        if self.restore_back(seq, Some(delivery_count)) {
            return;
        }
        if let Some(mut entry) = self.take_resident(seq) {
            entry.redelivered = true;
            entry.delivery_count = delivery_count;
            self.ready.push(entry);
        } else if let Some(entry) = self.find_cold(seq, find)
            && let Some(cold) = self.cold.as_deref_mut()
        {
            cold.log.changed.insert(seq, ColdEntry { redelivered: true, delivery_count, ..entry });
        }
    }

    /// Repeats that everything before a seq went, but for some.
    pub(in crate::broker) fn restore_purged(&mut self, below: u64, kept: &[u64], find: Find<'_>) {
        let kept: BTreeSet<u64> = kept.iter().copied().collect();
        self.restore_aside_purged(below, |seq| kept.contains(&seq));
        for level in 0..=self.ready.priority_max() {
            let gone = self.ready.range(level, 0, below).map(|entry| entry.seq).filter(|seq| !kept.contains(seq));
            for seq in gone.collect::<Vec<_>>() {
                self.ready.take(level, seq);
            }
        }
        // An index that has later messages was written after the purge.
        if self.cold.as_deref().is_none_or(|cold| cold.log.indexed_below > below) {
            return;
        }
        let found: BTreeMap<u64, ColdEntry> =
            kept.iter().filter_map(|&seq| Some((seq, self.find_cold(seq, find)?))).collect();
        for level in 0..=self.ready.priority_max() {
            let Some(mut gap) = self.ready.remove_gap(level) else { continue };
            let left = found.values().filter(|entry| entry.level == level);
            (gap.len, gap.bytes) = left.fold((0, 0), |(len, bytes), entry| (len + 1, bytes + entry.body_bytes));
            gap.persistent = (gap.len, gap.bytes);
            self.ready.restore_gap(gap);
        }
        if let Some(cold) = self.cold.as_deref_mut() {
            cold.log.purge(below, found);
        }
    }
}
