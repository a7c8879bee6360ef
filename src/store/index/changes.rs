//! What one commit changes: puts, deletes, advanced heads and dropped owners, in the order of calls.
//!
//! Invariant: a later call wins over an earlier one, within one set of changes as between two.

use std::collections::HashMap;

use smallvec::SmallVec;

use super::key::{Key, Rank, VALUE_BYTES_MAX};

/// Changes that a commit makes at once.
///
/// They act as if done one after the other in the order of the calls: `drop_owner` after a `put`
/// takes back that put, a `put` after `drop_owner` stays.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    writes: Vec<Write>,
    values: Vec<u8>,
    /// By tree and owner, how far each head went; in the order of the calls, as a frontier: no head
    /// is below one that came after it.
    heads: HashMap<(u8, u64), SmallVec<[Until; 1]>, foldhash::fast::FixedState>,
    /// By owner, the number of writes before the last drop.
    drops: HashMap<u64, usize, foldhash::fast::FixedState>,
}

/// A put or, without a value, a delete.
#[derive(Clone, Copy, Debug)]
struct Write {
    key: Key,
    value_offset: u32,
    /// `DELETED` stands for no value.
    value_bytes: u8,
}

const DELETED: u8 = u8::MAX;
const _: () = assert!(VALUE_BYTES_MAX < DELETED as usize);

/// A head: what is below `rank` and was written before `writes_count` is dead.
#[derive(Clone, Copy, Debug)]
struct Until {
    rank: Rank,
    writes_count: usize,
}

impl Changes {
    /// No changes yet.
    pub fn new() -> Changes {
        Changes::default()
    }

    /// Sets the value of `key`.
    ///
    /// # Panics
    /// If `value` has more than [`VALUE_BYTES_MAX`] bytes, or all values together more than 4 GiB.
    pub fn put(&mut self, key: Key, value: &[u8]) {
        assert!(value.len() <= VALUE_BYTES_MAX, "a value has at most {VALUE_BYTES_MAX} bytes");
        let value_offset = u32::try_from(self.values.len()).expect("a commit holds less than 4 GiB of values");
        self.values.extend_from_slice(value);
        self.writes.push(Write { key, value_offset, value_bytes: value.len() as u8 });
    }

    /// Removes `key`, whether or not it is there. Costs an entry until a merge meets both: what
    /// goes in order is cheaper with [`advance_head`](Self::advance_head).
    pub fn delete(&mut self, key: Key) {
        self.writes.push(Write { key, value_offset: 0, value_bytes: DELETED });
    }

    /// Removes everything of (`tree`, `owner`) below `head`. Costs a few bytes however many
    /// entries that are. What is put below it later lives.
    pub fn advance_head(&mut self, tree: u8, owner: u64, head: Rank) {
        let until = Until { rank: head, writes_count: self.writes.len() };
        let heads = self.heads.entry((tree, owner)).or_default();
        while heads.last().is_some_and(|last| last.rank <= head) {
            heads.pop();
        }
        heads.push(until);
    }

    /// Removes everything of `owner`, in all trees. Costs a few bytes. What is put later lives.
    pub fn drop_owner(&mut self, owner: u64) {
        self.drops.insert(owner, self.writes.len());
    }

    /// Puts and deletes so far.
    pub fn writes_count(&self) -> usize {
        self.writes.len()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.heads.is_empty() && self.drops.is_empty()
    }

    /// Forgets all changes and keeps the memory for the next ones.
    pub fn clear(&mut self) {
        self.writes.clear();
        self.values.clear();
        self.heads.clear();
        self.drops.clear();
    }

    /// The writes that remain, one a key, in ascending order; the value of a delete is `None`.
    pub(super) fn sorted(&mut self) -> impl Iterator<Item = (Key, Option<&[u8]>)> {
        if !self.heads.is_empty() || !self.drops.is_empty() {
            let mut index = 0;
            let (heads, drops) = (&self.heads, &self.drops);
            self.writes.retain(|write| {
                let place = index;
                index += 1;
                !is_dead(heads, drops, write, place)
            });
            // The places that heads and drops name are gone: what is left was written after them.
            self.heads.values_mut().flatten().for_each(|until| until.writes_count = 0);
            self.drops.values_mut().for_each(|writes_count| *writes_count = 0);
        }
        // Stable, so that of equal keys the last one written is the last; and fast on what is
        // sorted already.
        if !self.writes.is_sorted_by_key(|write| write.key) {
            self.writes.sort_by_key(|write| write.key);
        }
        let values = &self.values;
        let writes = &self.writes;
        writes.iter().enumerate().filter_map(move |(index, write)| {
            if writes.get(index + 1).is_some_and(|next| next.key == write.key) {
                return None;
            }
            let start = write.value_offset as usize;
            let value = (write.value_bytes != DELETED).then(|| &values[start..start + usize::from(write.value_bytes)]);
            Some((write.key, value))
        })
    }

    /// The farthest head of each tree and owner, sorted.
    pub(super) fn heads(&self) -> Vec<(u8, u64, Rank)> {
        let farthest = |heads: &SmallVec<[Until; 1]>| heads.first().map(|until| until.rank);
        let mut heads: Vec<_> = self
            .heads
            .iter()
            .filter_map(|((tree, owner), heads)| farthest(heads).map(|rank| (*tree, *owner, rank)))
            .collect();
        heads.sort_unstable();
        heads
    }

    /// The dropped owners, sorted.
    pub(super) fn drops(&self) -> Vec<u64> {
        let mut drops: Vec<_> = self.drops.keys().copied().collect();
        drops.sort_unstable();
        drops
    }
}

fn is_dead(
    heads: &HashMap<(u8, u64), SmallVec<[Until; 1]>, foldhash::fast::FixedState>,
    drops: &HashMap<u64, usize, foldhash::fast::FixedState>,
    write: &Write,
    place: usize,
) -> bool {
    drops.get(&write.key.owner).is_some_and(|writes_count| place < *writes_count)
        || heads
            .get(&write.key.tree_owner())
            .is_some_and(|heads| heads.iter().any(|until| place < until.writes_count && write.key.rank() < until.rank))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(changes: &mut Changes) -> Vec<(u64, Option<Vec<u8>>)> {
        changes.sorted().map(|(key, value)| (key.seq, value.map(<[u8]>::to_vec))).collect()
    }

    fn key(seq: u64) -> Key {
        Key::new(0, 1, 0, seq)
    }

    #[test]
    fn the_last_write_of_a_key_remains() {
        let mut changes = Changes::new();
        changes.put(key(2), b"a");
        changes.put(key(1), b"b");
        changes.put(key(2), b"c");
        changes.delete(key(1));
        assert_eq!(sorted(&mut changes), [(1, None), (2, Some(b"c".to_vec()))]);
    }

    #[test]
    fn heads_and_drops_act_on_what_was_written_before_them() {
        let mut changes = Changes::new();
        changes.put(key(1), b"a");
        changes.put(key(5), b"a");
        changes.advance_head(0, 1, Rank::new(0, 3));
        changes.put(key(2), b"b");
        assert_eq!(sorted(&mut changes), [(2, Some(b"b".to_vec())), (5, Some(b"a".to_vec()))]);
        // Asked again, for a commit that is tried again, the answer is the same.
        assert_eq!(sorted(&mut changes), [(2, Some(b"b".to_vec())), (5, Some(b"a".to_vec()))]);
        changes.drop_owner(1);
        changes.put(key(9), b"c");
        assert_eq!(sorted(&mut changes), [(9, Some(b"c".to_vec()))]);
        assert_eq!(changes.heads(), [(0, 1, Rank::new(0, 3))]);
        assert_eq!(changes.drops(), [1]);
    }
}
