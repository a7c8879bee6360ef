//! Consumers of a connection: how they start and how they end.

use std::sync::Arc;

use super::{
    codec::Head,
    output::{CHANNEL, Subscribed},
    reply::Refusal,
    session::Session,
};
use crate::{
    broker::{
        consumer::{ConsumerId, ConsumerOptions},
        queue::Queue,
        selector::Selector,
        turn::Turn,
        value::Table,
    },
    protocol::shared::outlet_key,
};

/// A consumer of this connection.
pub(super) struct Subscription {
    pub(super) consumer: ConsumerId,
    pub(super) queue: Arc<Queue>,
    /// Its source in the ledger.
    pub(super) source: u32,
    /// One acknowledgement stands for all before it.
    pub(super) is_cumulative: bool,
    /// How the client named it, for errors.
    pub(super) description: Vec<u8>,
    /// The topic that it is about.
    pub(super) topic: Option<Vec<u8>>,
}

/// How messages of a subscription are acknowledged.
#[derive(Clone, Copy)]
pub(super) struct AckMode {
    pub(super) is_auto: bool,
    pub(super) is_cumulative: bool,
}

/// A consumer that is to be started.
pub(super) struct Wanted {
    pub(super) queue: Arc<Queue>,
    /// Its name on this connection.
    pub(super) tag: Vec<u8>,
    pub(super) description: Vec<u8>,
    pub(super) mode: AckMode,
    pub(super) topic: Option<Vec<u8>>,
    /// Unsettled deliveries that it may hold; zero for no bound but that of the connection.
    pub(super) prefetch: u32,
    pub(super) priority: i32,
    pub(super) arguments: Table,
    /// What it takes of its queue.
    pub(super) selector: Option<Arc<Selector>>,
    /// Others are not served while it is there.
    pub(super) is_sole: bool,
    /// How its messages begin.
    pub(super) subscribed: Subscribed,
}

impl Session {
    /// Starts a consumer; the receipt of `head` goes out before its first message.
    pub(super) fn start_consumer(
        &mut self,
        wanted: Wanted,
        head: Option<&Head<'_>>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        let Wanted {
            queue,
            tag,
            description,
            mode,
            topic,
            prefetch,
            priority,
            arguments,
            selector,
            is_sole,
            subscribed,
        } = wanted;
        let bound = self.options().unsettled_max.min(u32::MAX as usize) as u32;
        let consumer = self.broker.next_consumer_id();
        let source = {
            let mut output = self.shared.output();
            let source = output.wire.ledger.open_source(queue.clone(), Some(consumer));
            output.wire.set_subscription(source, Some(subscribed));
            source
        };
        let options = ConsumerOptions {
            tag: String::from_utf8_lossy(&tag).into(),
            no_ack: mode.is_auto,
            exclusive: false,
            priority,
            prefetch: if prefetch == 0 { bound } else { prefetch.min(bound) },
            declared_prefetch: prefetch,
            shared_credit: (!mode.is_auto).then(|| self.credit.clone()),
            selector,
            is_sole,
            arguments,
            outlet: self.shared.clone(),
            key: outlet_key(CHANNEL, source),
            connection: self.id,
            channel: CHANNEL,
        };
        if let Err(error) = queue.check_consumer(&options) {
            self.forget_source(source);
            return Err(error.into());
        }
        let subscription = Subscription {
            consumer,
            queue: queue.clone(),
            source,
            is_cumulative: mode.is_cumulative,
            description,
            topic,
        };
        self.subscriptions.insert(tag.clone().into(), subscription);
        self.tags.insert(source, tag.clone().into());
        if let Some(head) = head {
            self.receipt(head, turn);
        }
        if let Err(error) = queue.consume(consumer, options, turn) {
            self.subscriptions.remove(&*tag);
            self.forget_source(source);
            return Err(error.into());
        }
        if !mode.is_auto {
            self.watch_deliveries(&queue, turn.now);
        }
        let mut output = self.shared.output();
        output.wire.status.consumers = self.subscriptions.len() as u64;
        output.wire.status.prefetch = prefetch;
        Ok(())
    }

    pub(super) fn forget_source(&mut self, source: u32) {
        self.tags.remove(&source);
        let mut output = self.shared.output();
        output.wire.set_subscription(source, None);
        output.wire.ledger.close_source(source);
        output.wire.status.consumers = self.subscriptions.len() as u64;
    }

    /// Takes a subscription out whose queue is gone; returns its tag, too.
    pub(super) fn take_cancelled(&mut self, source: u32) -> Option<(Box<[u8]>, Subscription)> {
        let tag = self.tags.get(&source)?;
        let is_gone = self.subscriptions.get(tag).is_some_and(|one| one.queue.is_deleted());
        let taken = if is_gone { self.subscriptions.remove_entry(&tag.clone()) } else { None };
        taken.inspect(|_| self.forget_source(source))
    }

    /// Takes a consumer out of its queue; what it holds stays unsettled.
    pub(super) fn end_subscription(&mut self, subscription: Subscription, turn: &mut Turn<'_>) {
        let is_over = subscription.queue.cancel(subscription.consumer, turn);
        self.forget_source(subscription.source);
        if is_over && let Some(vhost) = &self.vhost {
            vhost.remove_queue(&subscription.queue, turn);
            self.exclusive_queues.remove(&subscription.queue.id);
        }
    }
}
