//! From what a client says of deliveries to settles at their queues; and what happens to deliveries that nobody
//! settles.

use std::sync::Arc;

use super::{
    reply::{self, Refusal},
    session::Session,
};
use crate::{
    broker::{
        consumer::{Held, Settle, Taken},
        queue::Queue,
        time::Time,
        turn::Turn,
    },
    protocol::{
        amqp::{
            delivery_timeout::check_interval_ms,
            reply::{Code, Failure},
            settle::refuse_streams,
        },
        settles::Leaving,
    },
};

/// What a client has said of deliveries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    /// The delivery's tag.
    pub(super) tag: u64,
    /// All before it, too.
    pub(super) is_cumulative: bool,
    pub(super) how: Settle,
    /// Somebody may have settled it before, which is no mistake.
    pub(super) is_lenient: bool,
}

impl Session {
    /// Gathers what is to be settled.
    pub(super) fn settle(&mut self, verdict: Verdict) -> Result<(), Refusal> {
        let Verdict { tag, is_cumulative, how, is_lenient } = verdict;
        let unknown = || reply::precondition_failed(format!("unknown delivery tag {tag}"));
        let shared = self.shared.clone();
        let mut output = shared.output();
        let ledger = &mut output.wire.ledger;
        if how != Settle::Accepted {
            refuse_streams(ledger, tag, is_cumulative)?;
        }
        let mut taken: smallvec::SmallVec<[Taken; 1]> = smallvec::SmallVec::new();
        if !is_cumulative {
            match ledger.take(tag) {
                Some(one) => taken.push(one),
                None if is_lenient => return Ok(()),
                None => return Err(unknown()),
            }
        } else {
            if tag != 0 && !ledger.contains(tag) {
                return Err(unknown());
            }
            let mut all = Vec::new();
            ledger.take_up_to(tag, &mut all);
            taken.extend(all);
        }
        for one in &taken {
            if let Some(source) = ledger.source(one.source) {
                self.settles.add(&source.queue, how, one.held);
            }
        }
        ledger.sweep();
        Ok(())
    }

    /// Ends all subscriptions, gives back what they hold, and removes the queues that go with the
    /// connection.
    pub(super) fn drop_everything(&mut self, turn: &mut Turn<'_>) {
        self.transactions.clear();
        let subscriptions = std::mem::take(&mut self.subscriptions);
        self.tags = Default::default();
        // Each queue loses the consumers and gets the deliveries back in one step.
        let consumers = subscriptions.values().map(|one| (&one.queue, one.consumer));
        for leaving in Leaving::gather(self.take_deliveries(), consumers) {
            if leaving.apply(turn)
                && let Some(vhost) = &self.vhost
            {
                vhost.remove_queue(&leaving.queue, turn);
            }
        }
        {
            let mut output = self.shared.output();
            for subscription in subscriptions.values() {
                output.wire.set_subscription(subscription.source, None);
            }
            output.wire.ledger = Default::default();
            output.wire.status = Default::default();
        }
        if let Some(vhost) = self.vhost.clone() {
            for queue in std::mem::take(&mut self.exclusive_queues).into_values() {
                vhost.remove_queue(&queue, turn);
            }
        }
    }

    /// Takes everything out of the ledger, by queue: what was transmitted, and what never was and goes
    /// back as if it had not left.
    fn take_deliveries(&mut self) -> Vec<(Arc<Queue>, Vec<Held>, Vec<Held>)> {
        let shared = self.shared.clone();
        let mut output = shared.output();
        let sent_bytes = output.sent_bytes();
        let ledger = &mut output.wire.ledger;
        let mut taken = Vec::new();
        ledger.take_up_to(0, &mut taken);
        ledger.leave(taken, sent_bytes)
    }

    /// Deliveries of that queue may stay unsettled from now on: has them checked in time.
    pub(super) fn watch_deliveries(&mut self, queue: &Queue, now: Time) {
        let timeout_ms = queue.consumer_timeout_ms().or(self.broker.options.consumer_timeout_ms);
        self.next_timeout_check = self.next_timeout_check.min(now.after_ms(check_interval_ms(timeout_ms)));
    }

    /// Closes the connection if it holds a delivery for longer than its queue allows.
    pub(super) fn check_delivery_timeouts(&mut self, turn: &mut Turn<'_>) {
        let shared = self.shared.clone();
        let mut interval_ms = None;
        let mut late = None;
        {
            let output = shared.output();
            let ledger = &output.wire.ledger;
            self.delivery_marks.forget(ledger.oldest());
            if ledger.oldest().is_some() {
                self.delivery_marks.note(output.wire.last_tag() + 1, turn.now);
            }
            for (number, source) in ledger.sources() {
                let timeout_ms = source.queue.consumer_timeout_ms().or(self.broker.options.consumer_timeout_ms);
                let interval = check_interval_ms(timeout_ms);
                interval_ms = Some(interval_ms.map_or(interval, |least: u64| least.min(interval)));
                if let Some(timeout_ms) = timeout_ms {
                    let below = self.delivery_marks.older_than(timeout_ms, turn.now);
                    if ledger.first_below(below, |of| if of == number { below } else { 0 }).is_some() {
                        late = Some(timeout_ms);
                    }
                }
            }
        }
        self.next_timeout_check = interval_ms.map_or(Time::NEVER, |ms| turn.now.after_ms(ms));
        if let Some(timeout_ms) = late {
            let text = format!(
                "delivery acknowledgement on channel 1 timed out. Timeout value used: {timeout_ms} ms. This timeout value can be configured, see consumers doc guide to learn more"
            );
            self.refuse(Failure::channel(Code::PreconditionFailed, text).into(), turn);
        }
    }
}
