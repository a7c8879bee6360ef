//! Taking messages: consumers, single gets and their credit.

use std::sync::Arc;

use super::{
    channel::{Consumer, PendingGet},
    codec::{
        hot,
        method::{self, AMQPClass, basic},
    },
    methods::not_for_stream,
    output::{Extra, outlet_key},
    publish::REPLY_TO,
    reply::{Code, Failure},
    session::Session,
};
use crate::broker::{
    access::Access,
    consumer::{ConsumerOptions, SharedCredit},
    queue::Queue,
    selector::{Conversion, Selector},
    topology::random_name,
    trace::Party,
    turn::Turn,
    value::Table,
    verb::Verb,
};

impl Session {
    pub(super) fn qos(&mut self, number: u16, qos: hot::Qos, turn: &mut Turn<'_>) -> Result<(), Failure> {
        if qos.prefetch_size != 0 {
            return Err(Failure::connection(Code::NotImplemented, format!("prefetch_size!=0 ({})", qos.prefetch_size)));
        }
        let count = u32::from(qos.prefetch_count);
        let Some(channel) = self.channels.get_mut(&number) else { return Ok(()) };
        if qos.global {
            self.share_credit(number, count);
        } else {
            channel.prefetch = count;
        }
        self.with_status(number, |status| {
            if qos.global {
                status.shared_prefetch = count;
            } else {
                status.prefetch = count;
            }
        });
        self.reply(number, AMQPClass::Basic(basic::AMQPMethod::QosOk(basic::QosOk {})), turn);
        if qos.global {
            self.resume_sharers(number, turn);
        }
        Ok(())
    }

    /// Has the consumers of a channel share credit for `count` deliveries, or as many as a channel
    /// may hold.
    fn share_credit(&mut self, number: u16, count: u32) {
        let bound = self.options.unsettled_per_channel_max.min(u32::MAX as usize) as u32;
        let Some(channel) = self.channels.get_mut(&number) else { return };
        let credit = channel.shared_credit.get_or_insert_with(|| Arc::new(SharedCredit::default()));
        credit.set_limit(if count == 0 { bound } else { count.min(bound) });
        for consumer in &channel.consumers {
            consumer.queue.share_credit(consumer.id, credit);
        }
    }

    /// Credit that all consumers of a channel share has come back at one queue: the others may have
    /// been waiting for it. Each time another one is asked first, so that none starves.
    pub(super) fn resume_sharers(&mut self, number: u16, turn: &mut Turn<'_>) {
        let Some(channel) = self.channels.get_mut(&number) else { return };
        let mut sharers: Vec<_> = channel.consumers.iter().map(|one| (one.queue.clone(), one.id)).collect();
        let count = sharers.len();
        if count > 0 {
            sharers.rotate_left(channel.first_sharer % count);
            channel.first_sharer = (channel.first_sharer + 1) % count;
        }
        for (queue, consumer) in sharers {
            queue.resume(consumer, turn);
        }
    }

    pub(super) fn consume(
        &mut self,
        number: u16,
        consume: &basic::Consume,
        arguments: Table,
        turn: &mut Turn<'_>,
    ) -> Result<(), Failure> {
        let vhost = self.vhost()?;
        let tag: Arc<str> = match consume.consumer_tag.as_str() {
            "" => random_name("amq.ctag-").into(),
            tag => tag.into(),
        };
        let is_reply = consume.queue.as_str() == REPLY_TO;
        self.forget_cancelled(number, turn);
        let Some(channel) = self.channels.get(&number) else { return Ok(()) };
        if channel.consumers.len() >= self.options.consumers_per_channel_max {
            return Err(Failure::connection(
                Code::NotAllowed,
                format!("reached maximum ({}) of consumers per channel", self.options.consumers_per_channel_max),
            ));
        }
        let name = if is_reply { String::new() } else { self.queue_name(number, consume.queue.as_str())? };
        if !is_reply {
            self.require(&name, Access::Read, "queue")?;
        }
        let Some(channel) = self.channels.get(&number) else { return Ok(()) };
        let is_known_tag = channel.consumer_at(&tag).is_some();
        let queue = if is_reply {
            if channel.reply_queue.is_some() {
                return Err(Failure::channel(Code::PreconditionFailed, "reply consumer already set"));
            }
            if !consume.no_ack {
                return Err(Failure::channel(Code::PreconditionFailed, "reply consumer cannot acknowledge"));
            }
            if is_known_tag {
                return Err(reused_tag(&tag));
            }
            vhost.add_hidden(&random_name("amq.rabbitmq.reply-to."), turn)
        } else {
            if is_known_tag {
                return Err(reused_tag(&tag));
            }
            vhost.find_queue(&name, Some(self.id))?
        };
        let priority = match arguments.get("x-priority") {
            None => 0,
            Some(value) => match value.as_integer() {
                Some(priority) => priority.clamp(i32::MIN.into(), i32::MAX.into()) as i32,
                None => {
                    return Err(Failure::channel(
                        Code::PreconditionFailed,
                        format!(
                            "invalid arg 'x-priority' for queue '{name}' in vhost '{}': \"expected integer, got {}\"",
                            vhost.name,
                            value.kind_name()
                        ),
                    ));
                }
            },
        };
        let selector = selector(&arguments, &name, &vhost.name)?;
        let prefetch = channel.prefetch;
        if queue.is_stream() {
            if consume.no_ack {
                return Err(not_for_stream(&queue, "automatic acknowledgement"));
            }
            if prefetch == 0 {
                return Err(Failure::channel(
                    Code::PreconditionFailed,
                    format!("consumer prefetch count is not set for 'queue '{name}' in vhost '{}''", vhost.name),
                ));
            }
        }
        // Credit is withheld beyond the channel's bound on unsettled deliveries.
        let bound = self.options.unsettled_per_channel_max.min(u32::MAX as usize) as u32;
        let prefetch = if prefetch == 0 { bound } else { prefetch.min(bound) };
        let declared_prefetch = channel.prefetch;
        let needs_sharing = !consume.no_ack && channel.shared_credit.is_none() && !channel.consumers.is_empty();
        let id = self.broker.next_consumer_id();
        let source = {
            let mut output = self.shared.output();
            let Some(open) = output.channel(number) else { return Ok(()) };
            let source = open.ledger.open_source(queue.clone(), Some(id));
            open.set_consumer_tag(source, Some(tag.clone()));
            source
        };
        // One consumer is held to the bound by its own credit; several share it.
        if needs_sharing {
            self.share_credit(number, 0);
        }
        let shared_credit = self.channels.get(&number).and_then(|channel| channel.shared_credit.clone());
        let shared_credit = shared_credit.filter(|_| !consume.no_ack);
        let timeout_ms = arguments.get("x-consumer-timeout").and_then(|value| u64::try_from(value.as_integer()?).ok());
        let options = ConsumerOptions {
            tag: tag.clone(),
            no_ack: consume.no_ack,
            exclusive: consume.exclusive,
            priority,
            prefetch,
            declared_prefetch,
            shared_credit,
            selector,
            is_sole: false,
            arguments,
            outlet: self.shared.clone(),
            key: outlet_key(number, source),
            connection: self.id,
            channel: number,
        };
        let consumer = Consumer { tag: tag.clone(), id, queue: queue.clone(), source, timeout_ms, is_reply };
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.consumers.push(consumer);
            if is_reply {
                channel.reply_queue = Some(queue.clone());
            }
        }
        // The answer goes out before the first delivery, so a refusal must be known before it.
        if let Err(error) = queue.check_consumer(&options) {
            self.forget_consumer(number, source);
            return Err(error.into());
        }
        if !consume.nowait {
            let ok = basic::ConsumeOk { consumer_tag: method::short_text(&tag) };
            self.reply(number, AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(ok)), turn);
        }
        let started = queue.consume(id, options, turn);
        if let Err(error) = started {
            self.forget_consumer(number, source);
            return Err(error.into());
        }
        if !consume.no_ack {
            self.watch_deliveries(&queue, timeout_ms, turn.now);
        }
        self.with_status(number, |status| status.consumers += 1);
        Ok(())
    }

    pub(super) fn forget_consumer(&mut self, number: u16, source: u32) {
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.consumers.retain(|consumer| consumer.source != source);
        }
        if let Some(open) = self.shared.output().channel(number) {
            open.set_consumer_tag(source, None);
            open.ledger.close_source(source);
        }
    }

    pub(super) fn cancel(&mut self, number: u16, tag: &str, nowait: bool, turn: &mut Turn<'_>) -> Result<(), Failure> {
        let found = self.channels.get_mut(&number).and_then(|channel| {
            let at = channel.consumer_at(tag)?;
            Some(channel.consumers.remove(at))
        });
        if let Some(consumer) = found {
            self.end_consumer(number, consumer, turn);
        }
        if !nowait {
            let ok = basic::CancelOk { consumer_tag: method::short_text(tag) };
            self.reply(number, AMQPClass::Basic(basic::AMQPMethod::CancelOk(ok)), turn);
        }
        Ok(())
    }

    /// Takes a consumer out of its queue; what it holds stays unsettled on the channel.
    pub(super) fn end_consumer(&mut self, number: u16, consumer: Consumer, turn: &mut Turn<'_>) {
        let is_over = consumer.queue.cancel(consumer.id, turn);
        self.forget_consumer(number, consumer.source);
        self.with_status(number, |status| status.consumers = status.consumers.saturating_sub(1));
        let Some(vhost) = &self.vhost else { return };
        if consumer.is_reply {
            if let Some(channel) = self.channels.get_mut(&number) {
                channel.reply_queue = None;
            }
            vhost.remove_hidden(&consumer.queue, turn);
        } else if is_over {
            vhost.remove_queue(&consumer.queue, turn);
        }
    }

    /// Forgets consumers of deleted queues, whose events may not have been looked at yet: their
    /// tags are free.
    fn forget_cancelled(&mut self, number: u16, turn: &mut Turn<'_>) {
        let Some(channel) = self.channels.get(&number) else { return };
        let cancelled: Vec<_> =
            channel.consumers.iter().filter(|one| one.queue.is_deleted()).map(|one| one.source).collect();
        for source in cancelled {
            self.consumer_cancelled(number, source, turn);
        }
    }

    /// The queue has cancelled a consumer: the client is told, if it wants to know.
    pub(super) fn consumer_cancelled(&mut self, number: u16, source: u32, turn: &mut Turn<'_>) {
        let is_it = |consumer: &&Consumer| consumer.source == source && consumer.queue.is_deleted();
        let found = self.channels.get(&number).and_then(|channel| channel.consumers.iter().find(is_it));
        let Some(tag) = found.map(|consumer| consumer.tag.clone()) else { return };
        self.forget_consumer(number, source);
        self.with_status(number, |status| status.consumers = status.consumers.saturating_sub(1));
        if self.shared.output().wire.notifies_cancel {
            let cancel = basic::Cancel { consumer_tag: method::short_text(&tag), nowait: true };
            self.reply(number, AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel)), turn);
        }
    }

    pub(super) fn get(&mut self, number: u16, name: &str, no_ack: bool, turn: &mut Turn<'_>) -> Result<(), Failure> {
        let name = self.queue_name(number, name)?;
        self.require(&name, Access::Read, "queue")?;
        let queue = self.vhost()?.find_queue(&name, Some(self.id))?;
        if queue.is_stream() {
            return Err(not_for_stream(&queue, "basic.get"));
        }
        if queue.refuses_get() {
            let vhost = queue.vhost_name();
            return Err(crate::broker::error::Error::SingleActiveGet { name, vhost }.into());
        }
        if queue.is_exclusively_consumed() {
            let vhost = queue.vhost_name();
            return Err(crate::broker::error::Error::ExclusiveUse { name, vhost }.into());
        }
        let max = self.options.unsettled_per_channel_max;
        if !no_ack && self.shared.output().channel(number).is_some_and(|open| open.ledger.len() >= max) {
            let text = format!("channel {number} has {max} unacknowledged deliveries, which is the maximum");
            return Err(Failure::channel(Code::PreconditionFailed, text));
        }
        self.get_from(number, &queue, no_ack, turn)
    }

    pub(super) fn get_from(
        &mut self,
        number: u16,
        queue: &Arc<Queue>,
        no_ack: bool,
        turn: &mut Turn<'_>,
    ) -> Result<(), Failure> {
        let got = match queue.get(no_ack, turn) {
            Verb::Done(got) => got,
            Verb::Pending(_) => {
                if let Some(channel) = self.channels.get_mut(&number) {
                    channel.start_parking();
                    channel.pending = Some(PendingGet { queue: queue.clone(), no_ack });
                }
                return Ok(());
            }
        };
        let Some(got) = got else {
            self.shared.output().encode(|out| hot::put_get_empty(out, number));
            return Ok(());
        };
        if self.is_traced
            && let Some(vhost) = &self.vhost
        {
            let to = Party { connection: self.id, channel: number };
            turn.trace_delivered(vhost, &got.message, &queue.name, got.redelivered, to);
        }
        let mut output = self.shared.output();
        let Some(open) = output.channel(number) else { return Ok(()) };
        let tag = open.next_tag();
        let source = open.ledger.get_source(queue);
        let message = &got.message;
        let method = |out: &mut Vec<u8>| {
            hot::put_get_ok(out, number, tag, got.redelivered, message.route_bytes(), got.remaining);
        };
        let extra = Extra { delivery_count: got.reported_count(queue), stream_offset: None };
        output.put_content(number, message, method, extra);
        let sent_at = output.encoded_bytes();
        if let Some(held) = got.held
            && let Some(open) = output.channel(number)
        {
            open.ledger.add(tag, source, held, sent_at);
            drop(output);
            self.watch_deliveries(queue, None, turn.now);
        }
        Ok(())
    }
}

fn reused_tag(tag: &str) -> Failure {
    Failure::connection(Code::NotAllowed, format!("attempt to reuse consumer tag '{tag}'"))
}

/// What a consumer wants of its queue, as its arguments say.
fn selector(arguments: &Table, queue: &str, vhost: &str) -> Result<Option<Arc<Selector>>, Failure> {
    let Some(value) = arguments.get("x-selector") else { return Ok(None) };
    let refused = |reason: String| {
        let text = format!("invalid arg 'x-selector' for queue '{queue}' in vhost '{vhost}': {reason}");
        Failure::channel(Code::PreconditionFailed, text)
    };
    let text = value.as_text().ok_or_else(|| refused(format!("\"expected text, got {}\"", value.kind_name())))?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    match Selector::parse(text, Conversion::None) {
        Ok(selector) => Ok(Some(Arc::new(selector))),
        Err(error) => Err(refused(error.to_string())),
    }
}
