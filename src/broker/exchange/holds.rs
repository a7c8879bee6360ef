//! Which messages delaying exchanges hold, as far as an index has not been told.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::broker::{
    record::{HoldId, Position},
    time::Time,
};

/// Changes of what all delaying exchanges of a broker hold, since the last look.
#[derive(Debug, Default)]
pub struct Holds(Mutex<Changes>);

/// What is held that was not, and what is held no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New ones, with the time each is due and its place in the log.
    pub puts: BTreeMap<HoldId, (Time, Position)>,
    /// Those that have gone, with the time each was due.
    pub deletes: Vec<(Time, HoldId)>,
}

impl Holds {
    /// A recorded message is held.
    pub(in crate::broker) fn hold(&self, hold: HoldId, due: Time, place: Position) {
        self.0.lock().puts.insert(hold, (due, place));
    }

    /// A recorded message is held no more.
    pub(in crate::broker) fn forget(&self, hold: HoldId, due: Time) {
        let mut changes = self.0.lock();
        if changes.puts.remove(&hold).is_none() {
            changes.deletes.push((due, hold));
        }
    }

    /// Takes what has changed since the last look.
    pub fn look(&self) -> Changes {
        std::mem::take(&mut self.0.lock())
    }

    /// Those changes could not be told; the next look has them again.
    pub fn give_back(&self, earlier: Changes) {
        let mut changes = self.0.lock();
        let later = std::mem::replace(&mut *changes, earlier);
        for (due, hold) in later.deletes {
            if changes.puts.remove(&hold).is_none() {
                changes.deletes.push((due, hold));
            }
        }
        changes.puts.extend(later.puts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_and_went_between_two_looks_is_not_told() {
        let holds = Holds::default();
        holds.hold(HoldId(1), Time(10), Position(5));
        holds.hold(HoldId(2), Time(11), Position(6));
        holds.forget(HoldId(1), Time(10));
        let changes = holds.look();
        assert_eq!(changes.puts, BTreeMap::from([(HoldId(2), (Time(11), Position(6)))]));
        assert_eq!(changes.deletes, []);
        holds.forget(HoldId(2), Time(11));
        assert_eq!(holds.look().deletes, [(Time(11), HoldId(2))]);
    }

    #[test]
    fn what_could_not_be_told_is_told_again_as_it_is_now() {
        let holds = Holds::default();
        holds.hold(HoldId(1), Time(10), Position(5));
        let changes = holds.look();
        holds.forget(HoldId(1), Time(10));
        holds.give_back(changes);
        assert_eq!(holds.look(), Changes::default());
    }
}
