//! The delivery acknowledgement timeout: a channel that holds a delivery for too long is closed.
//!
//! Nothing is noted per delivery. Every so often a channel remembers which delivery tag came next
//! at that time; tags below such a mark were delivered before it. What a queue allows is looked up
//! only then, so that a changed policy acts on the deliveries that are out already.
//!
//! The consumer's own argument counts first, then the smaller one of its queue's argument and policy,
//! then the broker's setting.

use std::{collections::VecDeque, sync::Arc};

use super::{
    channel::Consumer,
    reply::{Code, Failure},
    session::Session,
};
use crate::broker::{consumer::Source, queue::Queue, time::Time, turn::Turn};

/// When tags were delivered, roughly.
///
/// Invariant: tags and times ascend.
#[derive(Default)]
pub(in crate::protocol) struct DeliveryMarks {
    /// Tags below the first were assigned before the second.
    marks: VecDeque<(u64, Time)>,
}

impl DeliveryMarks {
    /// Notes that all tags below `next_tag` are assigned at `now`.
    pub(in crate::protocol) fn note(&mut self, next_tag: u64, now: Time) {
        if self.marks.back().is_some_and(|(tag, _)| *tag >= next_tag) {
            return;
        }
        self.marks.push_back((next_tag, now));
        if self.marks.len() > MARKS_MAX {
            // Without a mark its deliveries count as newer than they are, never as older.
            let mut at = 0;
            self.marks.retain(|_| {
                at += 1;
                at % 2 == 1
            });
        }
    }

    /// Forgets marks below which nothing is unsettled.
    pub(in crate::protocol) fn forget(&mut self, oldest: Option<u64>) {
        while self.marks.front().is_some_and(|(tag, _)| oldest.is_none_or(|oldest| *tag <= oldest)) {
            self.marks.pop_front();
        }
    }

    /// Tags below this one were assigned at least `timeout_ms` before `now`.
    pub(in crate::protocol) fn older_than(&self, timeout_ms: u64, now: Time) -> u64 {
        let count = self.marks.partition_point(|(_, at)| at.after_ms(timeout_ms) <= now);
        count.checked_sub(1).and_then(|last| self.marks.get(last)).map_or(0, |(tag, _)| *tag)
    }
}

impl Session {
    /// Deliveries of that queue may stay unsettled from now on: has them checked in time.
    pub(super) fn watch_deliveries(&mut self, queue: &Queue, consumer_timeout_ms: Option<u64>, now: Time) {
        let timeout_ms = consumer_timeout_ms.or_else(|| self.timeout_of(queue));
        self.next_timeout_check = self.next_timeout_check.min(now.after_ms(check_interval_ms(timeout_ms)));
    }

    fn timeout_of(&self, queue: &Queue) -> Option<u64> {
        queue.consumer_timeout_ms().or(self.broker.options.consumer_timeout_ms)
    }

    /// Closes the channels that hold a delivery for longer than its queue allows.
    pub(super) fn check_delivery_timeouts(&mut self, turn: &mut Turn<'_>) {
        let mut late = Vec::new();
        let mut interval_ms = None;
        {
            let shared = self.shared.clone();
            let mut output = shared.output();
            for (&number, channel) in &mut self.channels {
                let Some(open) = output.channel(number) else { continue };
                channel.delivery_marks.forget(open.ledger.oldest());
                if open.ledger.oldest().is_some() {
                    channel.delivery_marks.note(open.last_tag() + 1, turn.now);
                }
                // By source: the tag below which deliveries are late, and the timeout.
                let mut allowed = Vec::new();
                for (source, of) in open.ledger.sources() {
                    let timeout_ms = own_timeout(&channel.consumers, source, of)
                        .or_else(|| of.queue.consumer_timeout_ms())
                        .or(self.broker.options.consumer_timeout_ms);
                    let interval = check_interval_ms(timeout_ms);
                    interval_ms = Some(interval_ms.map_or(interval, |least: u64| least.min(interval)));
                    if let Some(timeout_ms) = timeout_ms {
                        let below = channel.delivery_marks.older_than(timeout_ms, turn.now);
                        allowed.resize(allowed.len().max(source as usize + 1), (0, 0));
                        allowed[source as usize] = (below, timeout_ms);
                    }
                }
                let below = |source: u32| allowed.get(source as usize).map_or(0, |(below, _)| *below);
                let end = allowed.iter().map(|(below, _)| *below).max().unwrap_or(0);
                if let Some(source) = open.ledger.first_below(end, below) {
                    late.push((number, allowed[source as usize].1));
                }
            }
        }
        self.next_timeout_check = interval_ms.map_or(Time::NEVER, |ms| turn.now.after_ms(ms));
        for (number, timeout_ms) in late {
            let text = format!(
                "delivery acknowledgement on channel {number} timed out. Timeout value used: {timeout_ms} ms. This timeout value can be configured, see consumers doc guide to learn more"
            );
            self.fail(number, Failure::channel(Code::PreconditionFailed, text), turn);
        }
    }
}

/// What the consumer asked for by its own argument, as long as it consumes.
fn own_timeout(consumers: &[Consumer], source: u32, of: &Source) -> Option<u64> {
    of.consumer?;
    consumers.iter().find(|one| one.source == source && Arc::ptr_eq(&one.queue, &of.queue))?.timeout_ms
}

/// How often deliveries are checked. Where no timeout holds, a policy may bring one.
pub(in crate::protocol) fn check_interval_ms(timeout_ms: Option<u64>) -> u64 {
    timeout_ms.map_or(CHECK_MS_MAX, |ms| (ms / 10).clamp(CHECK_MS_MIN, CHECK_MS_MAX))
}

const CHECK_MS_MIN: u64 = 100;
const CHECK_MS_MAX: u64 = 60_000;
/// Marks of one channel. Full: every second one goes.
const MARKS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deliveries_are_older_than_the_next_mark() {
        let mut marks = DeliveryMarks::default();
        marks.note(5, Time(1_000));
        marks.note(9, Time(2_000));
        assert_eq!(marks.older_than(1_000, Time(1_999)), 0);
        assert_eq!(marks.older_than(1_000, Time(2_000)), 5);
        assert_eq!(marks.older_than(1_000, Time(3_000)), 9);
    }

    #[test]
    fn a_mark_goes_once_everything_below_it_is_settled() {
        let mut marks = DeliveryMarks::default();
        marks.note(5, Time(1_000));
        marks.note(9, Time(2_000));
        marks.forget(Some(4));
        assert_eq!(marks.marks.len(), 2);
        marks.forget(Some(5));
        assert_eq!(marks.marks.len(), 1);
        marks.forget(None);
        assert!(marks.marks.is_empty());
    }

    #[test]
    fn many_marks_are_thinned_and_never_make_a_delivery_older() {
        let mut marks = DeliveryMarks::default();
        for at in 1..=10_000 {
            marks.note(at, Time(at));
            assert!(marks.marks.len() <= MARKS_MAX);
        }
        for timeout in [1, 100, 9_000] {
            assert!(marks.older_than(timeout, Time(10_000)) <= 10_000 - timeout);
        }
        assert_eq!(marks.older_than(0, Time(10_000)), 10_000);
    }
}
