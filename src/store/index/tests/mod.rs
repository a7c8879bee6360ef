//! Tests of the whole index against a model: random operations, crashes and damage.

mod crash;
mod damage;
mod model;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Changes, Index, Key, NewCheckpoint, Options, Rank, folder::Folder};
use crate::store::disk::{
    Disk,
    memory::{MemoryDisk, Plan, Random},
};

const DIR: &str = "/index";

/// A disk with nothing but the index; clones are the same one.
#[derive(Clone)]
struct TestDisk(MemoryDisk);

impl TestDisk {
    fn new() -> TestDisk {
        TestDisk(MemoryDisk::new(Plan::default()))
    }

    fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.0.clone())
    }

    fn folder(&self) -> Folder {
        Folder::open(self.disk(), Path::new(DIR)).expect("a folder")
    }

    /// From now on there is room for `bytes` more; `None` is no bound.
    fn leave_room(&self, bytes: Option<u64>) {
        let capacity = bytes.map(|bytes| self.0.used() + bytes);
        self.0.set_plan(|plan| plan.capacity = capacity);
    }

    /// The sync that is `later` from now fails: 1 is the next.
    fn fail_sync_in(&self, later: u64) {
        let syncs = self.0.syncs();
        self.0.set_plan(|plan| plan.fail_sync_at = Some(syncs + later));
    }

    /// The disk as it is found after a crash at this moment.
    fn crash(&self, seed: u64) -> TestDisk {
        TestDisk(self.0.power_cut(&mut Random(seed), Plan::default()))
    }

    /// Another disk with the same contents.
    fn copy(&self) -> TestDisk {
        TestDisk(self.0.copy(Plan::default()))
    }

    fn names(&self) -> Vec<String> {
        self.0.list(Path::new(DIR)).expect("it has power").into_iter().map(|file| file.name).collect()
    }

    /// Sets the contents of a file, as rot or another program would.
    fn set_contents(&self, name: &str, bytes: Vec<u8>) {
        self.0.put(&path(name), bytes);
    }

    fn contents(&self, name: &str) -> Vec<u8> {
        self.0.contents(&path(name))
    }
}

fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

/// Small sizes, so that few entries make many runs, levels and manifests.
fn options() -> Options {
    Options {
        fan_out: 3,
        run_bytes_max: 16 << 10,
        files_count_max: 12,
        manifest_bytes_max: 600,
        scrub_bytes_per_sec: 0,
        is_merging_in_background: false,
        ..Options::default()
    }
}

fn open(disk: &TestDisk) -> Result<Index, super::Error> {
    open_with(disk, options())
}

fn open_with(disk: &TestDisk, options: Options) -> Result<Index, super::Error> {
    Index::open(disk.disk(), Path::new(DIR), options)
}

#[derive(Clone, Debug)]
enum Change {
    Put(Key, Vec<u8>),
    Delete(Key),
    Head(u8, u64, Rank),
    Drop(u64),
}

/// What the index should hold.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    entries: BTreeMap<Key, Vec<u8>>,
    commit: u64,
    attachment: Option<Vec<u8>>,
}

const TREES: u8 = 2;
const OWNERS: u64 = 4;

impl Model {
    fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put(key, value) => {
                    self.entries.insert(*key, value.clone());
                }
                Change::Delete(key) => {
                    self.entries.remove(key);
                }
                Change::Head(tree, owner, rank) => {
                    self.entries.retain(|key, _| (key.tree, key.owner) != (*tree, *owner) || key.rank() >= *rank);
                }
                Change::Drop(owner) => self.entries.retain(|key, _| key.owner != *owner),
            }
        }
    }

    /// Applies `changes` here and to `index`, as the next commit.
    fn commit(&mut self, index: &Index, changes: &[Change]) -> Result<(), super::Error> {
        self.apply(changes);
        self.commit += 1;
        if self.commit % 3 == 1 {
            self.attachment = Some(vec![self.commit as u8; 700]);
        }
        let mut all = Changes::new();
        for change in changes {
            match change {
                Change::Put(key, value) => all.put(*key, value),
                Change::Delete(key) => all.delete(*key),
                Change::Head(tree, owner, rank) => all.advance_head(*tree, *owner, *rank),
                Change::Drop(owner) => all.drop_owner(*owner),
            }
        }
        let note = self.commit.to_le_bytes();
        let attachment = self.attachment.as_deref().filter(|_| self.commit % 3 == 1);
        let new = NewCheckpoint { covered: self.commit * 1000, note: &note, attachment };
        index.commit(&mut all, new).map(|_| ())
    }

    /// Whether `index` holds exactly this, read in all ways.
    fn check(&self, index: &Index) -> Result<(), super::Error> {
        self.check_from(index, &[Rank::new(0, 20), Rank::new(1, 7)])
    }

    /// Whether `index` holds exactly this: every entry is read.
    fn check_quickly(&self, index: &Index) -> Result<(), super::Error> {
        self.check_from(index, &[])
    }

    fn check_from(&self, index: &Index, starts: &[Rank]) -> Result<(), super::Error> {
        let checkpoint = index.checkpoint();
        assert_eq!(checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.number), self.commit);
        if let Some(checkpoint) = checkpoint {
            assert_eq!(checkpoint.covered, self.commit * 1000);
            assert_eq!(checkpoint.note, self.commit.to_le_bytes());
            let previous = (self.commit > 1).then(|| (self.commit - 1) * 1000);
            assert_eq!(checkpoint.previous_covered, previous);
        }
        assert_eq!(index.attachment()?, self.attachment);
        for tree in 0..TREES {
            let named: Vec<u64> = index.snapshot().owners(tree).iter().map(|(owner, _)| *owner).collect();
            for owner in 0..OWNERS {
                let of_owner = |from: Rank| {
                    let range = Key::new(tree, owner, from.order, from.seq)..=Key::new(tree, owner, u64::MAX, u64::MAX);
                    self.entries.range(range)
                };
                for from in [Rank::MIN].into_iter().chain(starts.iter().copied()) {
                    let read = index.page(tree, owner, from, usize::MAX)?;
                    let read: Vec<_> = read.iter().map(|entry| (entry.rank, entry.value.as_bytes())).collect();
                    let right: Vec<_> = of_owner(from).map(|(key, value)| (key.rank(), value.as_slice())).collect();
                    assert_eq!(read, right, "tree {tree}, owner {owner} from {from:?}");
                    assert!(right.is_empty() || named.contains(&owner));
                }
                if starts.is_empty() {
                    continue;
                }
                let firsts = index.first_by_order(tree, owner, 0, usize::MAX)?;
                let mut right: Vec<Rank> = of_owner(Rank::MIN).map(|(key, _)| key.rank()).collect();
                right.dedup_by_key(|rank| rank.order);
                assert_eq!(firsts.iter().map(|entry| entry.rank).collect::<Vec<_>>(), right);
            }
        }
        for key in self.entries.keys().step_by(31) {
            let beside = Key { seq: key.seq + 1, ..*key };
            for key in [*key, beside] {
                let read = index.get(key)?;
                assert_eq!(read.as_ref().map(|value| value.as_bytes()), self.entries.get(&key).map(Vec::as_slice));
            }
        }
        Ok(())
    }
}

/// The changes of a commit like those of a broker: several queues that grow at the end, are
/// popped from the front and out of order, purged and dropped; values of any sizes.
fn broker_like(random: &mut Random, commit: u64, puts_max: u64) -> Vec<Change> {
    let mut changes = Vec::new();
    let owner = |random: &mut Random| random.below(OWNERS);
    for index in 0..random.below(puts_max) {
        let owner = owner(random);
        let value = vec![index as u8; 1 + random.below(63) as usize];
        changes.push(Change::Put(Key::new(0, owner, 0, commit * 10 + index), value.clone()));
        changes.push(Change::Put(Key::new(1, owner, random.below(3), commit * 10 + index), value));
    }
    for _ in 0..random.below(10) {
        let key = Key::new(random.below(2) as u8, owner(random), random.below(2), random.below(commit * 10 + 1));
        changes.push(Change::Delete(key));
    }
    for _ in 0..random.below(3) {
        let rank = Rank::new(0, random.below(commit * 8 + 1));
        changes.push(Change::Head(0, owner(random), rank));
    }
    if random.below(4) == 0 {
        let rank = Rank::new(random.below(3), random.below(commit * 8 + 1));
        changes.push(Change::Head(1, owner(random), rank));
    }
    if random.below(6) == 0 {
        changes.push(Change::Drop(owner(random)));
    }
    changes
}
