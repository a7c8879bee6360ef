//! Routing to every target, whatever the key.

use std::hash::Hash;

use super::target_set::TargetSet;

/// All targets.
#[derive(Debug)]
pub(super) struct Fanout<T> {
    targets: TargetSet<T>,
}

impl<T> Default for Fanout<T> {
    fn default() -> Self {
        Self { targets: TargetSet::default() }
    }
}

impl<T: Clone + Eq + Hash> Fanout<T> {
    pub(super) fn add(&mut self, target: &T) {
        self.targets.add(target);
    }

    pub(super) fn remove(&mut self, target: &T) {
        self.targets.remove(target);
    }

    pub(super) fn route(&self, out: &mut Vec<T>) {
        self.targets.append_to(out);
    }
}
