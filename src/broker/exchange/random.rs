//! Routing to one binding at random: a target with two bindings gets twice the share.

use std::hash::Hash;

use super::BindError;
use super::bindings::Bindings;

/// The target that a random number picks, unless there are no bindings.
pub(super) fn route<T: Clone + Eq + Hash>(bindings: &Bindings<T>, random: u64) -> Option<&T> {
    let place = random.checked_rem(bindings.len() as u64)?;
    bindings.get(place as usize).map(|binding| &binding.target)
}

/// Refuses a key, which `x-local-random` does not take.
pub(super) fn check_local(key: &[u8]) -> Result<(), BindError> {
    match key {
        [] => Ok(()),
        key => Err(BindError(format!("Non empty binding '{}' key not permitted", String::from_utf8_lossy(key)))),
    }
}
