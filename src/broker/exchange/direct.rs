//! Routing by an exact key: one lookup, however many bindings there are.

use std::hash::Hash;

use foldhash::HashMap;

use super::target_set::TargetSet;

/// The targets of each key.
#[derive(Debug)]
pub(super) struct Direct<T> {
    by_key: HashMap<Box<[u8]>, TargetSet<T>>,
}

impl<T> Default for Direct<T> {
    fn default() -> Self {
        Self { by_key: HashMap::default() }
    }
}

impl<T: Clone + Eq + Hash> Direct<T> {
    pub(super) fn add(&mut self, target: &T, key: &[u8]) {
        if let Some(targets) = self.by_key.get_mut(key) {
            targets.add(target);
        } else {
            self.by_key.entry(key.into()).or_default().add(target);
        }
    }

    pub(super) fn remove(&mut self, target: &T, key: &[u8]) {
        if let Some(targets) = self.by_key.get_mut(key) {
            targets.remove(target);
            if targets.is_empty() {
                self.by_key.remove(key);
            }
        }
    }

    pub(super) fn route(&self, key: &[u8], out: &mut Vec<T>) {
        if let Some(targets) = self.by_key.get(key) {
            targets.append_to(out);
        }
    }
}
