//! All bindings of one exchange: which exist, and which lead to a given target.
//!
//! What a binding matches is the business of the routers; this is the list behind them. A binding
//! is identified by target, key and arguments (in any order of their names).
//!
//! Invariants:
//! - `entries` has no gaps; `by_identity` names each entry once, under its hash;
//! - the entries of one target form a doubly linked chain that starts at its `Chain::head`;
//! - `shared_targets` is the number of chains longer than one.

use std::collections::hash_map::Entry as MapEntry;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};

use foldhash::fast::RandomState;
use foldhash::{HashMap, HashSet};
use smallvec::SmallVec;

use crate::broker::value::Table;

/// One binding of an exchange.
#[derive(Clone, Debug, PartialEq)]
pub struct Binding<T> {
    /// Where messages go.
    pub target: T,
    /// The routing key, pattern or weight.
    pub key: Box<[u8]>,
    /// The arguments, ordered by name.
    pub arguments: Table,
}

const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Entry<T> {
    binding: Binding<T>,
    hash: u64,
    previous: u32,
    next: u32,
}

#[derive(Debug)]
struct Chain {
    head: u32,
    len: u32,
}

/// The bindings of one exchange, dense and indexed.
#[derive(Debug)]
pub(super) struct Bindings<T> {
    entries: Vec<Entry<T>>,
    by_identity: std::collections::HashMap<u64, SmallVec<[u32; 2]>, BuildHasherDefault<AlreadyHashed>>,
    by_target: HashMap<T, Chain>,
    shared_targets: usize,
    hasher: RandomState,
}

impl<T> Default for Bindings<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            by_identity: std::collections::HashMap::default(),
            by_target: HashMap::default(),
            shared_targets: 0,
            hasher: RandomState::default(),
        }
    }
}

impl<T: Clone + Eq + Hash> Bindings<T> {
    /// Adds a binding; false when it was there already. `arguments` are ordered by name.
    pub(super) fn insert(&mut self, target: &T, key: &[u8], arguments: &Table) -> bool {
        let hash = self.hash(target, key, arguments);
        if self.find(hash, target, key, arguments).is_some() {
            return false;
        }
        let index = self.entries.len() as u32;
        self.by_identity.entry(hash).or_default().push(index);
        let next = match self.by_target.entry(target.clone()) {
            MapEntry::Occupied(mut chain) => {
                let chain = chain.get_mut();
                chain.len += 1;
                self.shared_targets += usize::from(chain.len == 2);
                std::mem::replace(&mut chain.head, index)
            }
            MapEntry::Vacant(place) => {
                place.insert(Chain { head: index, len: 1 });
                NONE
            }
        };
        if next != NONE {
            self.entries[next as usize].previous = index;
        }
        let binding = Binding { target: target.clone(), key: key.into(), arguments: arguments.clone() };
        self.entries.push(Entry { binding, hash, previous: NONE, next });
        true
    }

    /// Removes a binding and returns it. `arguments` are ordered by name.
    pub(super) fn remove(&mut self, target: &T, key: &[u8], arguments: &Table) -> Option<Binding<T>> {
        let hash = self.hash(target, key, arguments);
        let index = self.find(hash, target, key, arguments)?;
        Some(self.take(index))
    }

    /// A binding to `target`, when there is any.
    pub(super) fn first_of(&self, target: &T) -> Option<&Binding<T>> {
        let chain = self.by_target.get(target)?;
        Some(&self.entries[chain.head as usize].binding)
    }

    /// Removes some binding to `target` and returns it.
    pub(super) fn remove_first_of(&mut self, target: &T) -> Option<Binding<T>> {
        let index = self.by_target.get(target)?.head;
        Some(self.take(index))
    }

    /// The binding at a place from 0 to `len() - 1`.
    pub(super) fn get(&self, place: usize) -> Option<&Binding<T>> {
        self.entries.get(place).map(|entry| &entry.binding)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Binding<T>> {
        self.entries.iter().map(|entry| &entry.binding)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when some target has more than one binding, so that a message could meet it twice.
    pub(super) fn has_shared_targets(&self) -> bool {
        self.shared_targets > 0
    }

    fn hash(&self, target: &T, key: &[u8], arguments: &Table) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        target.hash(&mut hasher);
        key.hash(&mut hasher);
        if !arguments.is_empty() {
            let mut encoded = Vec::new();
            arguments.encode(&mut encoded);
            encoded.hash(&mut hasher);
        }
        hasher.finish()
    }

    fn find(&self, hash: u64, target: &T, key: &[u8], arguments: &Table) -> Option<u32> {
        self.by_identity.get(&hash)?.iter().copied().find(|&index| {
            let binding = &self.entries[index as usize].binding;
            binding.target == *target && *binding.key == *key && same_arguments(&binding.arguments, arguments)
        })
    }

    fn take(&mut self, index: u32) -> Binding<T> {
        self.unlink(index);
        let removed = self.entries.swap_remove(index as usize);
        if let Some(indices) = self.by_identity.get_mut(&removed.hash) {
            indices.retain(|other| *other != index);
            if indices.is_empty() {
                self.by_identity.remove(&removed.hash);
            }
        }
        let moved_from = self.entries.len() as u32;
        if index < moved_from {
            self.rename(moved_from, index);
        }
        removed.binding
    }

    /// Takes an entry from the chain of its target.
    fn unlink(&mut self, index: u32) {
        let entry = &self.entries[index as usize];
        let (previous, next) = (entry.previous, entry.next);
        let chain = self.by_target.get_mut(&entry.binding.target).expect("every entry is in its target's chain");
        chain.len -= 1;
        self.shared_targets -= usize::from(chain.len == 1);
        if chain.len == 0 {
            self.by_target.remove(&self.entries[index as usize].binding.target);
        } else if previous == NONE {
            chain.head = next;
        }
        if previous != NONE {
            self.entries[previous as usize].next = next;
        }
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
    }

    /// Tells everybody who knew an entry as `from` that it stands at `to` now.
    fn rename(&mut self, from: u32, to: u32) {
        let entry = &self.entries[to as usize];
        let (hash, previous, next) = (entry.hash, entry.previous, entry.next);
        if previous == NONE {
            let chain = self.by_target.get_mut(&entry.binding.target).expect("every entry is in its target's chain");
            chain.head = to;
        } else {
            self.entries[previous as usize].next = to;
        }
        if next != NONE {
            self.entries[next as usize].previous = to;
        }
        let indices = self.by_identity.get_mut(&hash).into_iter().flatten();
        for index in indices.filter(|index| **index == from) {
            *index = to;
        }
    }
}

/// The arguments of a binding ordered by name, as they are kept, compared and listed.
pub(super) fn sorted(arguments: &Table) -> Table {
    let mut entries: Vec<_> = arguments.iter().collect();
    entries.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
    entries.into_iter().map(|(name, value)| (name, value.clone())).collect()
}

/// Removes repeated targets from `out[start..]`, keeping the first of each.
pub(super) fn dedup_from<T: Clone + Eq + Hash>(out: &mut Vec<T>, start: usize) {
    /// Below this a search through the list is cheaper than a set.
    const SEARCHED_MAX: usize = 32;
    let mut kept = start;
    let mut seen = HashSet::default();
    let is_long = out.len() - start > SEARCHED_MAX;
    for at in start..out.len() {
        let is_new = if is_long { seen.insert(out[at].clone()) } else { !out[start..kept].contains(&out[at]) };
        if is_new {
            out.swap(kept, at);
            kept += 1;
        }
    }
    out.truncate(kept);
}

fn same_arguments(a: &Table, b: &Table) -> bool {
    a == b || {
        // A float that is not a number differs from itself; its bytes do not.
        let (mut a_bytes, mut b_bytes) = (Vec::new(), Vec::new());
        a.encode(&mut a_bytes);
        b.encode(&mut b_bytes);
        a_bytes == b_bytes
    }
}

/// A hasher for keys that are hashes.
#[derive(Debug, Default)]
struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::value::Value;
    use proptest::prelude::*;

    fn plain() -> Table {
        Table::new()
    }

    #[test]
    fn arguments_are_part_of_the_identity() {
        let mut bindings = Bindings::default();
        let one: Table = [("n", Value::I32(1))].into_iter().collect();
        assert!(bindings.insert(&7, b"k", &plain()));
        assert!(bindings.insert(&7, b"k", &one));
        assert!(!bindings.insert(&7, b"k", &one));
        assert!(bindings.remove(&7, b"k", &one).is_some());
        assert!(bindings.remove(&7, b"k", &one).is_none());
        assert_eq!(bindings.len(), 1);
    }

    #[test]
    fn an_argument_that_is_not_a_number_can_be_unbound() {
        let mut bindings = Bindings::default();
        let nan: Table = [("n", Value::F64(f64::NAN))].into_iter().collect();
        assert!(bindings.insert(&7, b"k", &nan));
        assert!(!bindings.insert(&7, b"k", &nan));
        assert!(bindings.remove(&7, b"k", &nan).is_some());
    }

    #[test]
    fn repeated_targets_are_dropped_after_the_start_only() {
        for repeats in [1, 50] {
            let mut out = vec![1, 1];
            out.extend((0..repeats).flat_map(|_| [2, 1, 3, 2]));
            dedup_from(&mut out, 2);
            assert_eq!(out, [1, 1, 2, 1, 3]);
        }
    }

    proptest! {
        #[test]
        fn any_history_of_binds_and_unbinds_leaves_what_a_list_would(
            history in prop::collection::vec((0..3u8, 0..5u8, 0..5u8), 0..200)
        ) {
            let mut bindings = Bindings::default();
            let mut model: Vec<(u8, u8)> = Vec::new();
            for (verb, target, key) in history {
                let known = model.iter().position(|entry| *entry == (target, key));
                match verb {
                    0 | 1 => {
                        prop_assert_eq!(bindings.insert(&target, &[key], &plain()), known.is_none());
                        if known.is_none() {
                            model.push((target, key));
                        }
                    }
                    _ => {
                        prop_assert_eq!(bindings.remove(&target, &[key], &plain()).is_some(), known.is_some());
                        known.map(|at| model.remove(at));
                    }
                }
                let mut listed: Vec<_> = bindings.iter().map(|binding| (binding.target, binding.key[0])).collect();
                listed.sort_unstable();
                model.sort_unstable();
                prop_assert_eq!(&listed, &model);
                for target in 0..5 {
                    let count = model.iter().filter(|entry| entry.0 == target).count();
                    let chain = bindings.by_target.get(&target);
                    prop_assert_eq!(chain.map_or(0, |chain| chain.len as usize), count);
                    let mut at = chain.map_or(NONE, |chain| chain.head);
                    let mut previous = NONE;
                    for _ in 0..count {
                        let entry = &bindings.entries[at as usize];
                        prop_assert_eq!((entry.binding.target, entry.previous), (target, previous));
                        (previous, at) = (at, entry.next);
                    }
                    prop_assert_eq!(at, NONE);
                }
                let shared = (0..5).filter(|t| model.iter().filter(|entry| entry.0 == *t).count() > 1).count();
                prop_assert_eq!(bindings.shared_targets, shared);
            }
        }
    }
}
