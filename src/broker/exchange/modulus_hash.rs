//! Routing to one binding by the hash of the key modulo the number of bindings.
//!
//! Simpler than a consistent hash, and every change of the bindings moves most keys.

use std::hash::Hash;

use super::bindings::Bindings;
use super::stable_hash::stable_hash;

/// The target of a key, unless there are no bindings.
pub(super) fn route<'a, T: Clone + Eq + Hash>(bindings: &'a Bindings<T>, key: &[u8]) -> Option<&'a T> {
    let place = stable_hash(key).checked_rem(bindings.len() as u64)?;
    bindings.get(place as usize).map(|binding| &binding.target)
}
