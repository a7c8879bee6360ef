//! Which publishes the broker has confirmed: single or cumulative, in any order.

use super::failure::Failure;
use std::collections::VecDeque;

/// Publishes are numbered from 1, as the broker numbers them.
///
/// Invariant: `above` describes the publishes after `floor` in order, and its front is not confirmed.
#[derive(Debug, Default)]
pub(super) struct Confirms {
    sent: u64,
    /// All up to here are confirmed.
    floor: u64,
    above: VecDeque<bool>,
    above_count: u64,
    /// Publishes that the broker refused.
    pub(super) nacked: u64,
}

impl Confirms {
    pub(super) fn sent(&mut self, count: u64) {
        self.sent += count;
    }

    pub(super) fn unconfirmed(&self) -> u64 {
        self.sent - self.floor - self.above_count
    }

    pub(super) fn confirm(&mut self, tag: u64, multiple: bool, accepted: bool) -> Result<(), Failure> {
        // Tag 0 with multiple stands for all so far.
        let tag = if tag == 0 && multiple { self.sent } else { tag };
        if tag > self.sent || tag == 0 {
            return Err(Failure::protocol(format!("a confirm of {tag}, but only {} were sent", self.sent)));
        }
        let before = self.unconfirmed();
        if tag > self.floor {
            let ahead = (tag - self.floor) as usize;
            if multiple || ahead == 1 {
                let gone = self.above.drain(..ahead.min(self.above.len()));
                self.above_count -= gone.filter(|confirmed| *confirmed).count() as u64;
                self.floor = tag;
            } else {
                if self.above.len() < ahead {
                    self.above.resize(ahead, false);
                }
                if !self.above[ahead - 1] {
                    self.above[ahead - 1] = true;
                    self.above_count += 1;
                }
            }
            while self.above.front() == Some(&true) {
                self.above.pop_front();
                self.above_count -= 1;
                self.floor += 1;
            }
        }
        let settled = before - self.unconfirmed();
        if settled == 0 {
            return Err(Failure::protocol(format!("a second confirm of {tag}")));
        }
        if !accepted {
            self.nacked += settled;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confirms_out_of_order_count_once() {
        let mut confirms = Confirms::default();
        confirms.sent(5);
        confirms.confirm(3, false, true).unwrap();
        confirms.confirm(2, false, false).unwrap();
        assert_eq!((confirms.unconfirmed(), confirms.nacked), (3, 1));
        confirms.confirm(1, false, true).unwrap();
        assert_eq!((confirms.unconfirmed(), confirms.floor), (2, 3));
        confirms.confirm(5, false, true).unwrap();
        confirms.confirm(5, true, true).unwrap();
        assert_eq!((confirms.unconfirmed(), confirms.floor), (0, 5));
    }

    #[test]
    fn a_confirm_of_what_was_not_sent_is_an_error() {
        let mut confirms = Confirms::default();
        confirms.sent(1);
        assert!(confirms.confirm(2, true, true).is_err());
        confirms.confirm(1, false, true).unwrap();
        assert!(confirms.confirm(1, false, true).is_err());
    }

    #[test]
    fn zero_with_multiple_confirms_all() {
        let mut confirms = Confirms::default();
        confirms.sent(7);
        confirms.confirm(0, true, true).unwrap();
        assert_eq!(confirms.unconfirmed(), 0);
    }
}
