//! What is demanded where messages are leased, withheld, or belong to groups.
//!
//! Times are those of one machine's clock. A promise counts from before it was asked for, and a delivery is noted after
//! it was made: a delivery that is noted before a promise ends has broken it.

use super::{Checker, Delivery, Life, LifeId, Settle, Violation};
use crate::history::{MessageId, Outcome, Place};

/// A promise that nobody else is given a message.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) at: usize,
    pub(super) place: Place,
    pub(super) until_ms: u64,
}

/// By how much two readings of the clock may differ: what is rounded down may come that much earlier.
const CLOCK_MS: u64 = 5;

impl Life {
    /// The last promise to whom a delivery went, of those before an event.
    fn lease_of(&self, delivery: &Delivery, before: usize) -> Option<&Lease> {
        let next = self.deliveries.iter().find(|next| next.place == delivery.place && next.at > delivery.at);
        let before = next.map_or(before, |next| next.at.min(before));
        let is_of = |lease: &&Lease| lease.place == delivery.place && (delivery.at..before).contains(&lease.at);
        self.leases.iter().rev().find(is_of)
    }

    /// Whether a delivery was to a receiver.
    pub(super) fn is_leased(&self, delivery: &Delivery) -> bool {
        self.lease_of(delivery, usize::MAX).is_some()
    }

    /// Whether somebody had the message for a while that was over at that time.
    fn has_lapsed(&self, held: &Delivery, before: &Delivery) -> bool {
        self.lease_of(held, before.at).is_some_and(|lease| lease.until_ms <= before.at_ms)
    }

    /// Whether somebody gave the message back, or was done with it, in between.
    fn is_settled_between(&self, held: &Delivery, before: &Delivery, is_meant: impl Fn(Outcome) -> bool) -> bool {
        let is_between = |settle: &Settle| (held.at..before.at).contains(&settle.at);
        self.settles.iter().any(|settle| settle.place == held.place && is_between(settle) && is_meant(settle.outcome))
    }

    /// Whether a delivery breaks what somebody was promised, perhaps before a crash.
    ///
    /// A deletion that nobody answered changes nothing: it was done, and the message is gone, or it was not.
    pub(super) fn is_leased_at(&self, delivery: &Delivery) -> bool {
        let earlier = |held: &&Delivery| held.at < delivery.at && held.place == delivery.place;
        let Some(held) = self.deliveries.iter().rev().find(earlier) else { return false };
        let Some(lease) = self.lease_of(held, delivery.at) else { return false };
        lease.until_ms > delivery.at_ms + CLOCK_MS
            && !self.is_settled_between(held, delivery, |outcome| outcome == Outcome::Requeued)
    }

    /// Deliveries that had come back by themselves.
    pub(super) fn lapsed_count<'d>(&self, held: impl Iterator<Item = &'d Delivery>, before: &Delivery) -> usize {
        held.filter(|held| held.place == before.place && self.has_lapsed(held, before)).count()
    }

    /// Whether a settle may have come too late for a delivery, and was not answered before it.
    pub(super) fn is_late(&self, settle: &Settle, delivery: &Delivery) -> bool {
        let held = self.deliveries.iter().rev().find(|held| held.place == settle.place && held.at < settle.at);
        let is_answered = settle.durable_at.is_some_and(|at| at < delivery.at);
        !is_answered && held.is_some_and(|held| self.has_lapsed(held, delivery))
    }
}

impl Checker<'_> {
    /// Groups are in one hand and in order, whoever has them and whatever happens to the broker.
    pub(super) fn judge_groups(&self, found: &mut Vec<Violation>) {
        let mut groups = std::collections::BTreeMap::<_, Vec<(LifeId, &Delivery)>>::new();
        for (id, life) in &self.lives {
            if self.topology.queues[id.1.0].is_grouped {
                let MessageId { cycle, publisher, .. } = id.0;
                let group = groups.entry((id.1, cycle, publisher)).or_default();
                group.extend(life.deliveries.iter().map(|delivery| (*id, delivery)));
            }
        }
        for deliveries in groups.values_mut() {
            deliveries.sort_by_key(|(_, delivery)| delivery.at);
            for (n, (id, delivery)) in deliveries.iter().enumerate() {
                let others = deliveries[..n].iter().filter(|(_, earlier)| earlier.stream != delivery.stream);
                let mut shared = None;
                let mut reordered = None;
                for (other, earlier) in others {
                    if other.0.seq < id.0.seq && self.has_still(&self.lives[other], earlier, delivery) {
                        shared = Some(other.0.seq);
                    }
                    if other.0.seq > id.0.seq && !self.may_precede(earlier, delivery, &self.lives[id]) {
                        reordered = Some(other.0.seq);
                    }
                }
                found.extend(shared.map(|seq| Violation::Shared(delivery.place, seq)));
                found.extend(reordered.map(|seq| Violation::Reordered(delivery.place, seq)));
            }
        }
    }

    /// Whether somebody is not finished with what he was given when another delivery is made.
    fn has_still(&self, life: &Life, held: &Delivery, delivery: &Delivery) -> bool {
        let has_come_again = life
            .deliveries
            .iter()
            .any(|again| again.place == held.place && (held.at + 1..delivery.at).contains(&again.at));
        let is_over = match life.lease_of(held, delivery.at) {
            Some(lease) => lease.until_ms <= delivery.at_ms,
            // Who has no promise loses it with the broker.
            None => held.run != delivery.run,
        };
        !has_come_again && !is_over && !life.is_settled_between(held, delivery, |_| true)
    }

    /// Whether a later message of the group may have been given out before: to somebody who had this one, too, or by
    /// a broker whose log never had that.
    fn may_precede(&self, later: &Delivery, delivery: &Delivery, life: &Life) -> bool {
        let has_this = life.deliveries.iter().any(|had| had.stream == later.stream && had.at < delivery.at);
        let is_leased = self.lives.get(&self.life_id(&later.place)).is_some_and(|of| of.is_leased(later));
        has_this || !is_leased && later.run != delivery.run
    }
}
