//! The distinct targets of one key, pattern or exchange, each with the number of bindings that lead to it.
//!
//! Small sets are searched in place; from [`INDEXED_FROM`] members on a map remembers where each
//! one stands, so that adding and removing stay cheap with a hundred thousand of them.

use std::hash::Hash;

use foldhash::{HashMap, HashMapExt};
use smallvec::SmallVec;

/// Members from which a set keeps a map of places beside the list.
const INDEXED_FROM: usize = 17;

/// Distinct targets, counted. The order means nothing: removal moves the last member.
#[derive(Debug)]
pub(super) struct TargetSet<T> {
    members: SmallVec<[(T, u32); 1]>,
    places: Option<Box<HashMap<T, u32>>>,
}

impl<T> Default for TargetSet<T> {
    fn default() -> Self {
        Self { members: SmallVec::new(), places: None }
    }
}

impl<T: Clone + Eq + Hash> TargetSet<T> {
    /// Counts one more binding to `target`.
    pub(super) fn add(&mut self, target: &T) {
        if let Some(place) = self.place(target) {
            self.members[place].1 += 1;
            return;
        }
        if let Some(places) = &mut self.places {
            places.insert(target.clone(), self.members.len() as u32);
        }
        self.members.push((target.clone(), 1));
        if self.places.is_none() && self.members.len() >= INDEXED_FROM {
            let mut places = HashMap::with_capacity(self.members.len() * 2);
            places.extend(self.members.iter().enumerate().map(|(place, (member, _))| (member.clone(), place as u32)));
            self.places = Some(Box::new(places));
        }
    }

    /// Counts one binding to `target` less; without any left it is no longer a member.
    pub(super) fn remove(&mut self, target: &T) {
        let Some(place) = self.place(target) else { return };
        let count = &mut self.members[place].1;
        *count -= 1;
        if *count > 0 {
            return;
        }
        self.members.swap_remove(place);
        if let Some(places) = &mut self.places {
            places.remove(target);
            if let Some((moved, _)) = self.members.get(place) {
                places.insert(moved.clone(), place as u32);
            }
            if self.members.len() < INDEXED_FROM / 2 {
                self.places = None;
                self.members.shrink_to_fit();
            }
        }
    }

    /// Appends every member to `out`.
    pub(super) fn append_to(&self, out: &mut Vec<T>) {
        out.extend(self.members.iter().map(|(target, _)| target.clone()));
    }

    /// True without members.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn place(&self, target: &T) -> Option<usize> {
        match &self.places {
            Some(places) => places.get(target).map(|&place| place as usize),
            None => self.members.iter().position(|(member, _)| member == target),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(set: &TargetSet<u32>) -> Vec<u32> {
        let mut out = Vec::new();
        set.append_to(&mut out);
        out.sort_unstable();
        out
    }

    #[test]
    fn a_target_stays_until_its_last_binding_goes() {
        let mut set = TargetSet::default();
        set.add(&1);
        set.add(&1);
        set.remove(&1);
        assert_eq!(members(&set), [1]);
        set.remove(&1);
        assert!(set.is_empty());
    }

    #[test]
    fn growing_and_shrinking_across_the_index_keeps_every_member() {
        let mut set = TargetSet::default();
        (0..100).for_each(|n| set.add(&n));
        for n in (0..100).filter(|n| n % 7 != 0) {
            set.remove(&n);
        }
        assert_eq!(members(&set), (0..100).filter(|n| n % 7 == 0).collect::<Vec<_>>());
        (0..100).step_by(7).for_each(|n| set.remove(&n));
        assert!(set.is_empty());
    }
}
