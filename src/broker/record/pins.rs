//! Records that belong together: a message and the queues that name it, the parts of a long one. While
//! some of them are written and others are not, no checkpoint may begin between them: whoever replays
//! from there would find the second half alone.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

use super::Position;

/// Where the groups of records begin that are being written.
#[derive(Debug, Default)]
pub struct Pins(Mutex<BTreeMap<Position, usize>>);

/// A group of records that is being written; it ends when this is dropped.
#[derive(Debug)]
pub struct Pin {
    pins: Arc<Pins>,
    at: Position,
}

impl Pins {
    /// A group begins. `end` says where the log ends.
    pub fn pin(self: &Arc<Self>, end: impl FnOnce() -> Position) -> Pin {
        // Asked under the lock: a boundary that is chosen meanwhile is before or after all of it.
        let mut pins = self.0.lock();
        // Its records and those of the groups that are open lie between each other: they are one group, or
        // the end of the older ones would leave a boundary in front of this one, and so in the midst of them.
        let end = end();
        let at = pins.first_key_value().map_or(end, |(&first, _)| first.min(end));
        *pins.entry(at).or_default() += 1;
        Pin { pins: self.clone(), at }
    }

    /// The latest place that divides no group. `end` says where the log ends.
    pub fn boundary(&self, end: impl FnOnce() -> Position) -> Position {
        let pins = self.0.lock();
        let end = end();
        pins.first_key_value().map_or(end, |(&first, _)| first.min(end))
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.pins.0.lock();
        if let Some(count) = pins.get_mut(&self.at) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boundary_is_in_front_of_the_oldest_open_group() {
        let pins = Arc::new(Pins::default());
        assert_eq!(pins.boundary(|| Position(10)), Position(10));
        let (first, same) = (pins.pin(|| Position(10)), pins.pin(|| Position(10)));
        let second = pins.pin(|| Position(20));
        assert_eq!(pins.boundary(|| Position(30)), Position(10));
        drop(first);
        assert_eq!(pins.boundary(|| Position(30)), Position(10));
        drop(same);
        assert_eq!(pins.boundary(|| Position(30)), Position(10), "what began meanwhile is between what has ended");
        let third = pins.pin(|| Position(30));
        drop(second);
        assert_eq!(pins.boundary(|| Position(40)), Position(10));
        drop(third);
        let next = pins.pin(|| Position(40));
        assert_eq!(pins.boundary(|| Position(50)), Position(40));
        drop(next);
        assert_eq!(pins.boundary(|| Position(30)), Position(30));
    }
}
