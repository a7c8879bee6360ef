//! Which messages of a queue may have been delivered, told to the log well ahead: one record for
//! many deliveries, so that after a restart what had been delivered says so.
//!
//! Invariants:
//! - every delivered message is at or below `reserved`, and that is recorded before the delivery
//!   is handed over;
//! - `delivered <= reserved`.

/// See the module's text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Handed {
    /// The largest that was delivered.
    delivered: u64,
    /// The largest that the log says may have been.
    reserved: u64,
}

/// Messages that one record reserves. More is fewer records, and more messages that say after a
/// crash that they may have been delivered though they were not.
const RESERVED_AHEAD: u64 = 1_000;

impl Handed {
    /// As the log has it.
    pub(super) fn up_to(reserved: u64) -> Self {
        Self { delivered: reserved, reserved }
    }

    /// A message goes to a consumer; returns what is to be recorded first. That is told while half of what
    /// was told before is left, so that the log has it on the disk when it is needed.
    #[inline]
    pub(super) fn hand(&mut self, seq: u64) -> Option<u64> {
        self.delivered = self.delivered.max(seq);
        self.prepare(seq)
    }

    /// Messages from that one on may go to a consumer; returns what is to be recorded.
    #[inline]
    pub(super) fn prepare(&mut self, seq: u64) -> Option<u64> {
        if seq.saturating_add(RESERVED_AHEAD / 2) <= self.reserved {
            return None;
        }
        self.reserved = seq.saturating_add(RESERVED_AHEAD);
        Some(self.reserved)
    }

    /// As [`Self::hand`], where no more need follow.
    pub(super) fn hand_one(&mut self, seq: u64) -> Option<u64> {
        self.delivered = self.delivered.max(seq);
        if seq <= self.reserved {
            return None;
        }
        self.reserved = seq;
        Some(self.reserved)
    }

    /// Nobody is left to deliver to; returns what is to be recorded, if anything.
    pub(super) fn release(&mut self) -> Option<u64> {
        if self.delivered == self.reserved {
            return None;
        }
        self.reserved = self.delivered;
        Some(self.reserved)
    }

    /// The largest that was delivered, or may have been before a restart.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Messages up to this one may have been delivered.
    pub(super) fn reserved(&self) -> u64 {
        self.reserved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_record_reserves_many_deliveries() {
        let mut handed = Handed::default();
        assert_eq!(handed.hand(1), Some(1 + RESERVED_AHEAD));
        let half = 1 + RESERVED_AHEAD / 2;
        assert!((2..=half).all(|seq| handed.hand(seq).is_none()));
        assert_eq!(handed.hand(half + 1), Some(half + 1 + RESERVED_AHEAD));
    }

    #[test]
    fn what_was_reserved_in_vain_is_given_back() {
        let mut handed = Handed::default();
        handed.hand(5);
        assert_eq!(handed.release(), Some(5));
        assert_eq!(handed.release(), None);
        assert_eq!(handed.hand_one(6), Some(6));
    }
}
