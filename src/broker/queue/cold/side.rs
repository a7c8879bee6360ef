//! What a queue knows of one index that has messages of it: what the index has, and what it has not been
//! told yet. A durable queue may have two, as its persistent messages are in the log and the others are
//! spilled; no message is in both.

use std::collections::{BTreeMap, BTreeSet};

use super::{ColdEntry, Gone, Header, LevelHeader};
use crate::broker::{queue::ready::Ready, record::Position, time::Time};

/// Where messages are that an index names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker::queue) enum Home {
    /// In the log.
    Log,
    /// In files that last as long as the process.
    Spill,
}

impl Home {
    /// Whether a message at that place is one of them.
    #[inline]
    pub(super) fn has(self, place: Position) -> bool {
        place != Position::NONE && place.is_in_spill() == (self == Self::Spill)
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) indexed_below: u64,
    pub(super) committed_below: u64,
    /// Live messages in the index, as number and bytes.
    pub(super) levels: BTreeMap<u8, (u64, u64)>,
    pub(super) gone: Vec<Gone>,
    /// Length of `gone` at which those below the heads are dropped.
    prune_at: usize,
    /// Levels whose head may have moved.
    pub(super) moved: BTreeSet<u8>,
    /// Heads as the index has them.
    pub(super) heads: BTreeMap<u8, u64>,
    /// Messages whose value in the index is old.
    pub(super) changed: BTreeMap<u64, ColdEntry>,
    pub(super) purged: Option<Purged>,
    pub(super) given: Option<Given>,
    /// As the index has it.
    pub(super) header: Option<Header>,
    /// The earliest own deadline in the index.
    pub(super) deadline: Time,
}

/// What a look has told and nobody has confirmed.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) below: u64,
    pub(super) deletes: Vec<Gone>,
    pub(super) heads: Vec<(u8, u64)>,
    pub(super) moved: BTreeSet<u8>,
    pub(super) changed: BTreeMap<u64, ColdEntry>,
    pub(super) purged: Option<Purged>,
    pub(super) header: Option<Header>,
}

/// A purge that the index has not seen.
#[derive(Clone, Debug)]
pub(super) struct Purged {
    pub(super) below: u64,
    /// Messages that were not ready, and so stayed.
    pub(super) kept: BTreeMap<u64, ColdEntry>,
}

/// Pending deletes that are not worth looking at.
const GONE_MIN: usize = 4_096;

impl Default for Side {
    fn default() -> Self {
        Self {
            indexed_below: 0,
            committed_below: 0,
            levels: BTreeMap::new(),
            gone: Vec::new(),
            prune_at: GONE_MIN,
            moved: BTreeSet::new(),
            heads: BTreeMap::new(),
            changed: BTreeMap::new(),
            purged: None,
            given: None,
            header: None,
            deadline: Time::NEVER,
        }
    }
}

impl Side {
    /// Whether the index has any message that is alive.
    pub(super) fn has_any(&self) -> bool {
        self.levels.values().any(|(len, _)| *len > 0)
    }

    /// A message has left for good.
    pub(super) fn count_out(&mut self, entry: &ColdEntry) {
        if entry.seq >= self.indexed_below {
            return;
        }
        if let Some((len, bytes)) = self.levels.get_mut(&entry.level) {
            *len = len.saturating_sub(1);
            *bytes = bytes.saturating_sub(entry.body_bytes);
        }
        if !self.changed.is_empty() {
            self.changed.remove(&entry.seq);
        }
        if let Some(given) = &mut self.given {
            given.changed.remove(&entry.seq);
        }
        for purged in self.purged.iter_mut().chain(self.given.iter_mut().filter_map(|given| given.purged.as_mut())) {
            purged.kept.remove(&entry.seq);
        }
        self.moved.insert(entry.level);
        self.gone.push(Gone { level: entry.level, seq: entry.seq, deadline: entry.own_deadline() });
    }

    /// What a purge took is still in the index.
    pub(super) fn has_purged(&self) -> bool {
        self.purged.is_some() || self.given.as_ref().is_some_and(|given| given.purged.is_some())
    }

    pub(super) fn is_purged(&self, seq: u64) -> bool {
        let given = self.given.as_ref().and_then(|given| given.purged.as_ref());
        self.purged.iter().chain(given).any(|purged| seq < purged.below && !purged.kept.contains_key(&seq))
    }

    /// What the index has of a message with what it has not.
    pub(super) fn overlay(&self, entry: ColdEntry) -> ColdEntry {
        let given = self.given.as_ref().and_then(|given| given.changed.get(&entry.seq));
        self.changed.get(&entry.seq).or(given).cloned().unwrap_or(entry)
    }

    /// What has gone and the index may still have.
    pub(super) fn all_gone(&self) -> impl Iterator<Item = &Gone> {
        self.gone.iter().chain(self.given.iter().flat_map(|given| &given.deletes))
    }

    /// Takes what is to be told of those that have gone, without what the heads tell.
    pub(super) fn take_gone(&mut self, heads: &BTreeMap<u8, u64>) -> Vec<Gone> {
        self.prune_at = GONE_MIN;
        let mut gone = std::mem::take(&mut self.gone);
        gone.retain(|gone| heads.get(&gone.level).is_none_or(|&head| gone.seq >= head));
        gone
    }

    /// Whether so many pending deletes have piled up that [`Self::prune`] is worth it.
    #[inline]
    pub(super) fn is_prunable(&self) -> bool {
        self.gone.len() >= self.prune_at
    }

    /// Drops pending deletes below the heads. `out` are the messages that are alive and not ready.
    pub(super) fn prune(&mut self, ready: &Ready, out: &[ColdEntry]) {
        let heads = self.moved_heads(ready, out);
        self.gone.retain(|gone| heads.get(&gone.level).is_none_or(|&head| gone.seq >= head));
        self.prune_at = GONE_MIN.max(2 * self.gone.len()).max(out.len());
    }

    /// Per level whose head may have moved: the smallest seq that may be alive in the index.
    pub(super) fn moved_heads(&self, ready: &Ready, out: &[ColdEntry]) -> BTreeMap<u8, u64> {
        let first = |&level: &u8| (level, ready.first_seq(level).unwrap_or(u64::MAX).min(self.indexed_below));
        let mut heads: BTreeMap<u8, u64> = self.moved.iter().map(first).collect();
        for entry in out {
            if let Some(head) = heads.get_mut(&entry.level) {
                *head = (*head).min(entry.seq);
            }
        }
        heads
    }

    /// The levels that have messages.
    pub(super) fn level_headers(&self) -> Vec<LevelHeader> {
        let levels = self.levels.iter().filter(|(_, (len, _))| *len > 0);
        levels.map(|(&level, &(len, bytes))| LevelHeader { level, len, bytes }).collect()
    }

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

    /// What was told was not written: it is to be told again.
    pub(super) fn take_back(&mut self, given: Given) {
        let since = std::mem::replace(&mut self.gone, given.deletes);
        self.gone.extend(since);
        self.moved.extend(given.moved);
        for (seq, entry) in given.changed {
            self.changed.entry(seq).or_insert(entry);
        }
        if self.purged.is_none() {
            self.purged = given.purged;
        } else {
            // The later purge has taken what the earlier one kept, unless it kept it, too.
            let purged = self.purged.as_ref();
            self.changed
                .retain(|seq, _| purged.is_none_or(|purged| *seq >= purged.below || purged.kept.contains_key(seq)));
        }
    }
}
