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
    /// When each publish after `floor` was sent, where that is followed; otherwise nothing.
    sent_ns: VecDeque<u64>,
    /// Publishes that the broker refused.
    pub(super) nacked: u64,
}

impl Confirms {
    /// `at_ns` is given for all publishes, or for none.
    pub(super) fn sent(&mut self, count: u64, at_ns: Option<u64>) {
        self.sent += count;
        if let Some(at_ns) = at_ns {
            self.sent_ns.extend(std::iter::repeat_n(at_ns, count as usize));
        }
    }

    pub(super) fn unconfirmed(&self) -> u64 {
        self.sent - self.floor - self.above_count
    }

    /// Takes a confirm; `record` gets the time of sending of each publish that it settles, where
    /// that is followed.
    pub(super) fn confirm(
        &mut self,
        tag: u64,
        multiple: bool,
        accepted: bool,
        mut record: impl FnMut(u64),
    ) -> Result<(), Failure> {
        // Tag 0 with multiple stands for all so far.
        let tag = if tag == 0 && multiple { self.sent } else { tag };
        if tag > self.sent || tag == 0 {
            return Err(Failure::protocol(format!("a confirm of {tag}, but only {} were sent", self.sent)));
        }
        let before = self.unconfirmed();
        if tag > self.floor {
            let ahead = (tag - self.floor) as usize;
            if multiple || ahead == 1 {
                let known = self.above.iter().copied().chain(std::iter::repeat(false));
                let gone_ns = self.sent_ns.drain(..ahead.min(self.sent_ns.len()));
                gone_ns.zip(known).filter(|(_, known)| !known).for_each(|(sent_ns, _)| record(sent_ns));
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
                    self.sent_ns.get(ahead - 1).copied().into_iter().for_each(&mut record);
                }
            }
            while self.above.front() == Some(&true) {
                self.above.pop_front();
                self.sent_ns.pop_front();
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
        confirms.sent(5, None);
        confirms.confirm(3, false, true, |_| {}).unwrap();
        confirms.confirm(2, false, false, |_| {}).unwrap();
        assert_eq!((confirms.unconfirmed(), confirms.nacked), (3, 1));
        confirms.confirm(1, false, true, |_| {}).unwrap();
        assert_eq!((confirms.unconfirmed(), confirms.floor), (2, 3));
        confirms.confirm(5, false, true, |_| {}).unwrap();
        confirms.confirm(5, true, true, |_| {}).unwrap();
        assert_eq!((confirms.unconfirmed(), confirms.floor), (0, 5));
    }

    #[test]
    fn a_confirm_of_what_was_not_sent_is_an_error() {
        let mut confirms = Confirms::default();
        confirms.sent(1, None);
        assert!(confirms.confirm(2, true, true, |_| {}).is_err());
        confirms.confirm(1, false, true, |_| {}).unwrap();
        assert!(confirms.confirm(1, false, true, |_| {}).is_err());
    }

    #[test]
    fn zero_with_multiple_confirms_all() {
        let mut confirms = Confirms::default();
        confirms.sent(7, None);
        confirms.confirm(0, true, true, |_| {}).unwrap();
        assert_eq!(confirms.unconfirmed(), 0);
    }

    #[test]
    fn each_time_of_sending_is_recorded_once() {
        let mut confirms = Confirms::default();
        let mut recorded = Vec::new();
        for at_ns in 1..=6 {
            confirms.sent(1, Some(at_ns));
        }
        for (tag, multiple) in [(3, false), (1, false), (5, false), (4, true), (6, true)] {
            confirms.confirm(tag, multiple, true, |sent_ns| recorded.push(sent_ns)).unwrap();
        }
        assert_eq!(recorded, [3, 1, 5, 2, 4, 6]);
        assert!(confirms.sent_ns.is_empty());
    }
}
