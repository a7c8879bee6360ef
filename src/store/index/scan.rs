//! Reading: one key, or the entries of an owner in ascending order, merged over all runs.
//!
//! A snapshot is what was committed when it was taken; commits and merges do not disturb it.

use std::sync::Arc;

use super::{
    Checkpoint,
    error::Error,
    heads::{Floor, Heads},
    key::{Entry, Key, Rank, Value},
    run::{Run, RunCursor},
};

/// What one commit left, for reading.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// Newest first; a run holds entries of later commits than the groups behind it.
    pub(super) runs: Vec<Run>,
    pub(super) heads: Heads,
    pub(super) checkpoint: Option<Arc<Checkpoint>>,
}

impl Snapshot {
    /// The checkpoint that this is; `None` before the first.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_deref()
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// If a block that may hold it cannot be read or is damaged.
    pub fn get(&self, key: Key) -> Result<Option<Value>, Error> {
        for run in &self.runs {
            let Some(section) = run.file.section(key.tree, key.owner) else { continue };
            let rank = key.rank();
            let is_possible = section.first <= rank && rank <= section.last;
            if !is_possible || self.heads.floor(key.tree, key.owner, run.meta.last_commit).kills(rank) {
                continue;
            }
            let mut cursor = RunCursor::new(run.file.clone());
            cursor.seek(key)?;
            if cursor.key() == Some(key) {
                return Ok(cursor.value().map(Value::new));
            }
        }
        Ok(None)
    }

    /// The entries of (`tree`, `owner`) from `from` on, in ascending order.
    ///
    /// It begins without reading anything, and holds one block (4 KiB) of each run that it is
    /// within.
    pub fn scan(&self, tree: u8, owner: u64, from: Rank) -> Scan {
        let mut lanes = Lanes::new(tree, owner);
        for run in &self.runs {
            let Some(section) = run.file.section(tree, owner) else { continue };
            let floor = match self.heads.floor(tree, owner, run.meta.last_commit) {
                Floor::All => continue,
                Floor::Below(floor) => floor.max(from),
            };
            if section.last >= floor {
                lanes.add(Lane {
                    cursor: RunCursor::new(run.file.clone()),
                    commit: run.meta.last_commit,
                    start: section.first.max(floor),
                    index: 0,
                });
            }
        }
        lanes.begin();
        Scan { lanes }
    }

    /// Up to `limit` entries of (`tree`, `owner`) from `from` on.
    ///
    /// # Errors
    /// If a block cannot be read or is damaged; then nothing is returned.
    pub fn page(&self, tree: u8, owner: u64, from: Rank, limit: usize) -> Result<Vec<Entry>, Error> {
        self.scan(tree, owner, from).take(limit).collect()
    }

    /// The first entry of each order of (`tree`, `owner`), for up to `limit` orders from `order` on:
    /// the earliest of each group, for example. Costs a lookup each, however many entries an order has.
    ///
    /// # Errors
    /// If a block cannot be read or is damaged; then nothing is returned.
    pub fn first_by_order(&self, tree: u8, owner: u64, order: u64, limit: usize) -> Result<Vec<Entry>, Error> {
        let mut scan = self.scan(tree, owner, Rank { order, seq: 0 });
        let mut firsts = Vec::new();
        while firsts.len() < limit {
            let Some(first) = scan.next().transpose()? else { break };
            firsts.push(first);
            let Some(order) = first.rank.order.checked_add(1) else { break };
            scan.seek(Rank { order, seq: 0 });
        }
        Ok(firsts)
    }

    /// Reads every block of every run, dead entries included, and returns how many entries there are.
    ///
    /// # Errors
    /// At the first block that cannot be read or is damaged.
    pub fn verify(&self) -> Result<u64, Error> {
        let mut entries = 0;
        for run in &self.runs {
            let mut cursor = RunCursor::new(run.file.clone());
            cursor.seek(Key::default())?;
            while cursor.key().is_some() {
                entries += 1;
                cursor.step()?;
            }
        }
        Ok(entries)
    }

    /// The owners that may have entries in `tree`, ascending, each with an upper bound of their
    /// number. An owner that is not named has none.
    pub fn owners(&self, tree: u8) -> Vec<(u64, u64)> {
        let mut owners: Vec<(u64, u64)> = Vec::new();
        for run in &self.runs {
            let sections = &run.file.sections;
            let start = sections.partition_point(|section| section.tree < tree);
            let of_tree = sections[start..].iter().take_while(|section| section.tree == tree);
            let alive = of_tree.filter(|section| !self.heads.is_dead(section, run.meta.last_commit));
            owners.extend(alive.map(|section| (section.owner, u64::from(section.entries - section.deleted))));
        }
        owners.sort_unstable();
        owners.dedup_by(|next, kept| {
            let is_same = next.0 == kept.0;
            kept.1 += if is_same { next.1 } else { 0 };
            is_same
        });
        owners
    }
}

/// The entries of one tree and owner in ascending order.
///
/// After an error it is over: nothing behind the damage is served.
pub struct Scan {
    lanes: Lanes,
}

impl Scan {
    /// The next entry, its value borrowed: cheaper than the iterator, which copies it.
    ///
    /// # Errors
    /// If a block cannot be read or is damaged.
    pub fn next_entry(&mut self) -> Result<Option<(Rank, &[u8])>, Error> {
        loop {
            if !self.lanes.advance()? {
                return Ok(None);
            }
            if self.lanes.value().is_some() {
                break;
            }
        }
        let rank = self.lanes.rank();
        Ok(self.lanes.value().map(|value| (rank, value)))
    }

    /// Goes on from `rank`, if that is further.
    pub fn seek(&mut self, rank: Rank) {
        self.lanes.seek(rank);
    }
}

impl Iterator for Scan {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Result<Entry, Error>> {
        match self.next_entry() {
            Ok(Some((rank, value))) => Some(Ok(Entry { rank, value: Value::new(value) })),
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

/// One run's part in a merged walk.
pub(super) struct Lane {
    pub(super) cursor: RunCursor,
    /// The run's last commit: of two lanes on one key the later one counts.
    pub(super) commit: u64,
    /// No entry before this one is wanted.
    pub(super) start: Rank,
    /// The caller's, to know the lane again.
    pub(super) index: usize,
}

/// A merged walk over the section of (`tree`, `owner`) in several runs, deletes included.
///
/// A lane is looked into only when the walk has come to its start, so that runs behind each other
/// cost as little as a single one.
pub(super) struct Lanes {
    tree: u8,
    owner: u64,
    /// Latest start first.
    waiting: Vec<Lane>,
    active: Vec<Lane>,
    /// Lanes that have left the section.
    done: Vec<Lane>,
    /// The active lane that the walk is on, and its key.
    on: Option<(usize, Key)>,
}

impl Lanes {
    pub(super) fn new(tree: u8, owner: u64) -> Lanes {
        Lanes { tree, owner, waiting: Vec::new(), active: Vec::new(), done: Vec::new(), on: None }
    }

    pub(super) fn add(&mut self, lane: Lane) {
        self.waiting.push(lane);
    }

    /// All lanes are added.
    pub(super) fn begin(&mut self) {
        self.waiting.sort_unstable_by_key(|lane| std::cmp::Reverse(lane.start));
    }

    /// Steps to the next key; false behind the last.
    pub(super) fn advance(&mut self) -> Result<bool, Error> {
        let result = self.try_advance();
        if result.is_err() {
            self.waiting.clear();
            self.active.clear();
            self.on = None;
        }
        result
    }

    fn try_advance(&mut self) -> Result<bool, Error> {
        if let Some((_, passed)) = self.on.take() {
            let mut index = 0;
            while let Some(lane) = self.active.get_mut(index) {
                if lane.cursor.key() == Some(passed) {
                    lane.cursor.step()?;
                    if !self.is_within(index) {
                        self.done.push(self.active.swap_remove(index));
                        continue;
                    }
                }
                index += 1;
            }
        }
        loop {
            self.on = self.least();
            let Some(next) = self.waiting.last() else { break };
            if self.on.is_some_and(|(_, key)| key.rank() < next.start) {
                break;
            }
            let Some(mut lane) = self.waiting.pop() else { break };
            lane.cursor.seek(Key::at(self.tree, self.owner, lane.start))?;
            self.active.push(lane);
            if !self.is_within(self.active.len() - 1) {
                self.done.extend(self.active.pop());
            }
        }
        Ok(self.on.is_some())
    }

    fn is_within(&self, index: usize) -> bool {
        self.active[index].cursor.key().is_some_and(|key| key.tree_owner() == (self.tree, self.owner))
    }

    fn least(&self) -> Option<(usize, Key)> {
        let mut least: Option<(usize, Key)> = None;
        for (index, lane) in self.active.iter().enumerate() {
            let Some(key) = lane.cursor.key() else { continue };
            let is_ahead = least
                .is_none_or(|(other, least)| key < least || key == least && lane.commit > self.active[other].commit);
            if is_ahead {
                least = Some((index, key));
            }
        }
        least
    }

    /// The rank of the entry that the walk is on.
    pub(super) fn rank(&self) -> Rank {
        self.on.map_or(Rank::MAX, |(_, key)| key.rank())
    }

    /// The value that the walk is on; `None` if the key was deleted.
    pub(super) fn value(&self) -> Option<&[u8]> {
        self.on.and_then(|(index, _)| self.active[index].cursor.value())
    }

    fn seek(&mut self, rank: Rank) {
        if self.on.is_some_and(|(_, key)| rank <= key.rank()) {
            return;
        }
        self.on = None;
        self.waiting.append(&mut self.active);
        self.waiting.iter_mut().for_each(|lane| lane.start = lane.start.max(rank));
        self.begin();
    }

    /// The cursors of the lanes that have left the section, on what follows it.
    pub(super) fn into_done(self) -> Vec<Lane> {
        self.done
    }
}
