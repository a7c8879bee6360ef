//! SUBSCRIBE and UNSUBSCRIBE: the queues behind destinations, and their consumers.

use std::sync::Arc;

use md5::{Digest as _, Md5};

use base64::Engine as _;

use super::{
    super::super::{
        codec::{self, Head},
        output::Subscribed,
        reply::{self, Refusal},
        session::{Flow, Session, Version},
        subscription::{AckMode, Wanted},
    },
    destination::Destination,
    properties::boolean,
};
use crate::{
    broker::{
        access::Access,
        exchange::{Kind, Target},
        queue::{Queue, properties::Properties as QueueProperties},
        topology::{DeclareQueue, random_name},
        turn::Turn,
        value::{Table, Value},
    },
    protocol::amqp::{
        methods::not_for_stream,
        publish::DEFAULT_EXCHANGE,
        reply::{Code, Failure},
    },
};

/// A consumer tag that a client has chosen: by its id, or else by its destination.
struct Tag {
    bytes: Vec<u8>,
    description: Vec<u8>,
}

const TEMP_QUEUE: &[u8] = b"/temp-queue/";

/// Names of queues that a connection remembers to have declared. Full: it forgets them, and a queue is
/// declared again, which changes nothing.
const DECLARED_MAX: usize = 4096;

/// Headers that are arguments of the queue: texts, and whole numbers.
const TEXT_ARGUMENTS: [&str; 3] = ["x-dead-letter-exchange", "x-dead-letter-routing-key", "x-queue-type"];
const NUMBER_ARGUMENTS: [&str; 5] =
    ["x-expires", "x-max-length", "x-max-length-bytes", "x-max-priority", "x-message-ttl"];

impl Session {
    pub(super) fn subscribe(&mut self, head: &Head<'_>, turn: &mut Turn<'_>) -> Result<Flow, Refusal> {
        check_durable(head)?;
        let Some(text) = head.get("destination") else {
            return Err(Refusal::new("Missing destination", "\"SUBSCRIBE\" must include a 'destination' header\n"));
        };
        let destination = Destination::parse(&text)?;
        if let Destination::Topic(key) = &destination {
            self.check_topic(key)?;
        }
        let prefetch = match head.get("prefetch-count") {
            None => self.prefetch,
            Some(count) => {
                codec::integer(&count).and_then(|count| u32::try_from(count).ok()).ok_or_else(Refusal::processing)?
            }
        };
        let mode = match head.get("ack").as_deref() {
            None | Some(b"auto") => AckMode { is_auto: true, is_cumulative: false },
            Some(b"client") => AckMode { is_auto: false, is_cumulative: true },
            Some(b"client-individual") => AckMode { is_auto: false, is_cumulative: false },
            Some(_) => return Err(Refusal::processing()),
        };
        if head.get("receipt").is_some() && !self.is_safe(None) {
            return Ok(Flow::Waits);
        }
        let name = self.ensure(&destination, "SUBSCRIBE", &text, head, turn)?;
        let tag = consumer_tag(head).map_err(|_| Refusal::processing())?;
        if tag.bytes.len() > u8::MAX.into() {
            return Err(Refusal::processing());
        }
        if self.subscriptions.contains_key(&*tag.bytes) {
            let tag = String::from_utf8_lossy(&tag.bytes).into_owned();
            let detail = format!("A subscription identified by '{tag}' already exists.");
            return Err(Refusal::fatal("Duplicated subscription identifier", detail));
        }
        if self.subscriptions.len() >= self.options().subscriptions_max {
            let max = self.options().subscriptions_max;
            return Err(Refusal::fatal("Too many subscriptions", format!("A connection has at most {max}.\n")));
        }
        let queue = self.find_queue(&name)?;
        let made = matches!(destination, Destination::Topic(_) | Destination::Exchange(..));
        if made {
            let bound = self.bind(&queue, &destination, turn);
            if let Err(refusal) = bound {
                self.abandon(&queue, turn);
                return Err(refusal);
            }
        }
        // The answer comes before the first message, and says that all of this is safe.
        let gate = turn.take_gate();
        // A queue with a name of its own would be another one the next time; it is not on the disk.
        let comes_again = !made || is_durable(head) || head.get("x-queue-name").is_some();
        if head.get("receipt").is_some() && comes_again && !self.is_safe(gate) {
            return Ok(Flow::Waits);
        }
        self.prefetch = prefetch;
        let started = self.consume(queue.clone(), tag, mode, &destination, head, turn);
        if started.is_err() && made {
            self.abandon(&queue, turn);
        }
        started.map(|()| Flow::Done)
    }

    /// A queue that was made for a subscription which failed.
    fn abandon(&mut self, queue: &Arc<Queue>, turn: &mut Turn<'_>) {
        if let Some(vhost) = &self.vhost
            && queue.status().consumers == 0
        {
            vhost.remove_queue(queue, turn);
        }
    }

    fn check_topic(&mut self, key: &[u8]) -> Result<(), Refusal> {
        let vhost = self.vhost()?;
        match vhost.exchange(&self.options().default_topic_exchange) {
            Some(exchange) => self.require_topic(&exchange, key, Access::Read),
            None => Ok(()),
        }
    }

    /// Declares what a destination needs, and names its queue.
    pub(super) fn ensure(
        &mut self,
        destination: &Destination,
        command: &str,
        text: &[u8],
        head: &Head<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<String, Refusal> {
        let invalid = |detail: String| Refusal::new("Invalid destination", detail);
        let utf8 = |name: &[u8]| String::from_utf8(name.to_vec()).map_err(|_| Refusal::processing());
        match destination {
            Destination::Queue(name) if name.is_empty() => Err(invalid("Destination cannot be blank".to_owned())),
            Destination::Queue(name) => {
                let queue = utf8(name)?;
                // One that is gone since, with its last consumer say, is declared anew.
                let is_there = self.declared.contains(&**name) && self.vhost()?.queue(&queue).is_some();
                if !is_there {
                    self.declare(&queue, Some(true), (None, None), head, turn)?;
                    if self.declared.len() >= DECLARED_MAX {
                        self.declared.clear();
                    }
                    self.declared.insert(name.as_slice().into());
                }
                Ok(queue)
            }
            Destination::AmqQueue(name) | Destination::ReplyQueue(name) => utf8(name),
            Destination::Topic(key) | Destination::Exchange(_, Some(key)) if command == "SUBSCRIBE" => {
                self.declare_subscription(key, head, turn)
            }
            Destination::Exchange(..) if command == "SUBSCRIBE" => self.declare_subscription(b"", head, turn),
            Destination::Topic(_) | Destination::Exchange(..) => Ok(String::new()),
            Destination::TempQueue(_) => {
                let text = String::from_utf8_lossy(text);
                Err(invalid(format!("'{text}' is not a valid destination for '{command}'\n")))
            }
        }
    }

    fn declare_subscription(&mut self, key: &[u8], head: &Head<'_>, turn: &mut Turn<'_>) -> Result<String, Refusal> {
        let name = subscription_queue_name(key, head)?;
        self.declare(&name, None, (Some(false), Some(true)), head, turn)?;
        Ok(name)
    }

    /// Declares a queue as the headers of a frame say. Given are what it is without them: durable, and
    /// exclusive and auto-delete, which else are the opposite of durable.
    fn declare(
        &mut self,
        name: &str,
        durable: Option<bool>,
        (exclusive, auto_delete): (Option<bool>, Option<bool>),
        head: &Head<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        let (mut durable, mut exclusive, mut auto_delete) = (durable, exclusive, auto_delete);
        let mut arguments = Table::new();
        for (header, value) in head.iter() {
            let Ok(header) = std::str::from_utf8(&header) else { continue };
            match header {
                "durable" | "persistent" => durable = Some(boolean(&value).ok_or_else(Refusal::processing)?),
                "exclusive" => exclusive = boolean(&value),
                "auto-delete" => auto_delete = boolean(&value),
                _ if TEXT_ARGUMENTS.contains(&header) => {
                    let text = String::from_utf8_lossy(&value);
                    arguments.push(header, Value::text(text.trim_matches(' ')));
                }
                _ if NUMBER_ARGUMENTS.contains(&header) => {
                    let number = codec::integer(&value).ok_or_else(Refusal::processing)?;
                    arguments.push(header, Value::I64(number));
                }
                _ => {}
            }
        }
        let is_durable = durable.unwrap_or(false);
        self.require(name, Access::Configure, "queue")?;
        if let Some(exchange) = arguments.get("x-dead-letter-exchange").and_then(|value| value.as_text()) {
            let exchange = if exchange.is_empty() { DEFAULT_EXCHANGE } else { exchange }.to_owned();
            self.require(name, Access::Read, "queue")?;
            self.require(&exchange, Access::Write, "exchange")?;
        }
        let wanted = DeclareQueue {
            name,
            durable: is_durable,
            exclusive: exclusive.unwrap_or(!is_durable),
            auto_delete: auto_delete.unwrap_or(!is_durable),
            arguments,
            dead_queue: None,
            properties: QueueProperties::default(),
        };
        let queue = self.vhost()?.declare_queue(&wanted, Some(self.id), turn)?;
        if queue.declaration.owner.is_some() {
            self.exclusive_queues.insert(queue.id, queue);
        }
        Ok(())
    }

    fn find_queue(&mut self, name: &str) -> Result<Arc<Queue>, Refusal> {
        self.require(name, Access::Read, "queue")?;
        Ok(self.vhost()?.find_queue(name, Some(self.id))?)
    }

    fn bind(&mut self, queue: &Arc<Queue>, destination: &Destination, turn: &mut Turn<'_>) -> Result<(), Refusal> {
        let topic_exchange = self.options().default_topic_exchange.clone();
        let (exchange, key) = destination.route(&topic_exchange);
        let exchange = String::from_utf8_lossy(exchange).into_owned();
        if key.len() > u8::MAX.into() {
            return Err(Refusal::processing());
        }
        self.require(&queue.name, Access::Write, "queue")?;
        self.require(&exchange, Access::Read, "exchange")?;
        let vhost = self.vhost()?;
        let source = vhost.find_exchange(&exchange)?;
        if matches!(source.declaration.kind.routing(), Kind::Topic) {
            self.require_topic(&source, key, Access::Read)?;
        }
        vhost.bind(&exchange, &Target::Queue(queue.clone()), key, &Table::new(), turn)?;
        Ok(())
    }

    fn consume(
        &mut self,
        queue: Arc<Queue>,
        tag: Tag,
        mode: AckMode,
        destination: &Destination,
        head: &Head<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        let mut arguments = Table::new();
        if let Some(offset) = head.get("x-stream-offset").and_then(|text| stream_offset(&text)) {
            arguments.push("x-stream-offset", offset.ok_or_else(Refusal::processing)?);
        }
        let mut priority = 0;
        if let Some(text) = head.get("x-priority") {
            priority =
                codec::integer(&text).and_then(|number| i32::try_from(number).ok()).ok_or_else(Refusal::processing)?;
            arguments.push("x-priority", Value::I32(priority));
        }
        if queue.is_stream() {
            if self.prefetch == 0 {
                let (name, vhost) = (&queue.name, queue.vhost_name());
                let text = format!("consumer prefetch count is not set for 'queue '{name}' in vhost '{vhost}''");
                return Err(Failure::channel(Code::PreconditionFailed, text).into());
            }
            if mode.is_auto {
                return Err(not_for_stream(&queue, "automatic acknowledgement").into());
            }
        }
        let topic = match destination {
            Destination::Topic(key) => Some(key.clone()),
            _ => None,
        };
        let id = tag.bytes.strip_prefix(b"T_").map(<[u8]>::to_vec);
        let subscribed = self.subscribed(&tag.bytes, id.as_deref(), mode);
        let Tag { bytes: tag, description } = tag;
        let prefetch = self.prefetch;
        let wanted = Wanted {
            queue,
            tag,
            description,
            mode,
            topic,
            prefetch,
            priority,
            arguments,
            selector: None,
            is_sole: false,
            subscribed,
        };
        self.start_consumer(wanted, Some(head), turn)
    }

    /// How messages of a subscription begin that says so of itself.
    fn subscribed(&self, tag: &[u8], id: Option<&[u8]>, mode: AckMode) -> Subscribed {
        let mut head = b"MESSAGE\n".to_vec();
        if let Some(id) = id {
            codec::put_header(b"subscription", id, &mut head);
        }
        let mut message_id = Vec::new();
        // A colon needs no escape in a value, and RabbitMQ writes none here.
        for part in tag.split_inclusive(|&octet| octet == b':') {
            let (text, colon) = part.split_at(part.len() - usize::from(part.ends_with(b":")));
            codec::put_text(text, &mut message_id);
            message_id.extend_from_slice(colon);
        }
        message_id.extend_from_slice(format!("@@{}@@", self.session_id).as_bytes());
        let has_ack = !mode.is_auto && self.version == Version::V1_2;
        Subscribed { head, message_id, has_ack, ..Subscribed::default() }
    }

    /// The queue that takes replies to a name of the client's own.
    pub(super) fn reply_queue(&mut self, name: &[u8], turn: &mut Turn<'_>) -> Result<Arc<str>, Refusal> {
        if let Some(queue) = self.rabbitmq.reply_queues.get(name) {
            return Ok(queue.clone());
        }
        let id = [TEMP_QUEUE, name].concat();
        if self.subscriptions.len() >= self.options().subscriptions_max || id.len() > 253 {
            return Err(Refusal::processing());
        }
        let wanted = DeclareQueue { exclusive: true, auto_delete: true, ..DeclareQueue::default() };
        let queue = self.vhost()?.declare_queue(&wanted, Some(self.id), turn)?;
        self.exclusive_queues.insert(queue.id, queue.clone());
        self.require(&queue.name, Access::Configure, "queue")?;
        self.require(&queue.name, Access::Read, "queue")?;
        let tag = [b"T_", &id[..]].concat();
        let mode = AckMode { is_auto: true, is_cumulative: false };
        let wanted = Wanted {
            queue: queue.clone(),
            subscribed: self.subscribed(&tag, Some(&id), mode),
            tag,
            description: id,
            mode,
            topic: None,
            prefetch: self.prefetch,
            priority: 0,
            arguments: Table::new(),
            selector: None,
            is_sole: false,
        };
        self.start_consumer(wanted, None, turn)?;
        self.rabbitmq.reply_queues.insert(name.into(), queue.name.clone());
        Ok(queue.name.clone())
    }

    pub(super) fn unsubscribe(&mut self, head: &Head<'_>, turn: &mut Turn<'_>) -> Result<(), Refusal> {
        check_durable(head)?;
        let tag = consumer_tag(head)?;
        let Some(subscription) = self.subscriptions.remove(&*tag.bytes) else {
            let description = reply::quoted(&tag.description);
            return Err(Refusal::new(
                "No subscription found",
                format!(
                    "UNSUBSCRIBE must refer to an existing subscription.\nSubscription to {description} not found.\n"
                ),
            ));
        };
        let topic = subscription.topic.clone();
        self.end_subscription(subscription, turn);
        if let Some(key) = topic
            && is_durable(head)
        {
            let name = subscription_queue_name(&key, head)?;
            self.require(&name, Access::Configure, "queue")?;
            let vhost = self.vhost()?;
            if vhost.queue(&name).is_some() {
                vhost.delete_queue(&name, false, false, Some(self.id), turn)?;
            }
        }
        Ok(())
    }

    /// The queue has cancelled a consumer, which the client is told.
    pub(in crate::protocol::stomp) fn consumer_cancelled(&mut self, source: u32) {
        let Some((tag, subscription)) = self.take_cancelled(source) else { return };
        let description = reply::quoted(&subscription.description);
        let refusal = Refusal {
            subscription: Some(tag[2..].to_vec()),
            ..Refusal::new(
                "Server cancelled subscription",
                format!(
                    "The server has canceled a subscription.\nNo more messages will be delivered for {description}.\n"
                ),
            )
        };
        self.reply(self.encode_refusal(&refusal), None);
    }
}

/// Whoever wants a queue that stays has to name the subscription.
fn check_durable(head: &Head<'_>) -> Result<(), Refusal> {
    let asks = |name| head.get(name).as_deref() == Some(b"true");
    if head.get("id").is_none() && (asks("durable") || asks("persistent")) {
        return Err(Refusal::new("Missing Header", "Header 'id' is required for durable subscriptions"));
    }
    Ok(())
}

fn is_durable(head: &Head<'_>) -> bool {
    let is = |name| head.get(name).as_deref().and_then(boolean) == Some(true);
    is("durable") || is("persistent")
}

fn consumer_tag(head: &Head<'_>) -> Result<Tag, Refusal> {
    let tag = |prefix: &[u8], name: &str, value: &[u8]| Tag {
        bytes: [prefix, value].concat(),
        description: [name.as_bytes(), b"='", value, b"'"].concat(),
    };
    match (head.get("id"), head.get("destination")) {
        (Some(id), _) if id.starts_with(TEMP_QUEUE) => {
            Err(Refusal::new("Invalid id", "UNSUBSCRIBE 'id' may not start with /temp-queue/\n"))
        }
        (Some(id), _) => Ok(tag(b"T_", "id", &id)),
        (None, Some(destination)) => Ok(tag(b"Q_", "destination", &destination)),
        (None, None) => {
            Err(Refusal::new("Missing destination or id", "UNSUBSCRIBE must include a 'destination' or 'id' header"))
        }
    }
}

/// The queue of a subscription to a topic or an exchange. A durable one finds its queue again by key and
/// id, also where RabbitMQ has made it.
fn subscription_queue_name(key: &[u8], head: &Head<'_>) -> Result<String, Refusal> {
    if let Some(name) = head.get("x-queue-name") {
        return String::from_utf8(name.into_owned()).map_err(|_| Refusal::processing());
    }
    if !is_durable(head) {
        return Ok(random_name("stomp-subscription-"));
    }
    let id = head.get("id").ok_or_else(Refusal::processing)?;
    // The tuple of both strings in Erlang's external term format.
    let mut term = vec![131, 104, 2];
    for text in [key, &id] {
        match u16::try_from(text.len()) {
            Ok(0) => term.push(106),
            Ok(len) => {
                term.push(107);
                term.extend_from_slice(&len.to_be_bytes());
                term.extend_from_slice(text);
            }
            Err(_) => return Err(Refusal::processing()),
        }
    }
    let digest = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(Md5::digest(&term));
    Ok(format!("stomp-subscription-{digest}"))
}

/// Where a subscription to a stream begins; `Some(None)` for a number that is none.
fn stream_offset(text: &[u8]) -> Option<Option<Value>> {
    if let b"first" | b"last" | b"next" = text {
        return Some(std::str::from_utf8(text).ok().map(Value::text));
    }
    if let Some(offset) = text.strip_prefix(b"offset=") {
        return Some(codec::integer(offset).map(Value::I64));
    }
    let secs = text.strip_prefix(b"timestamp=")?;
    Some(codec::integer(secs).and_then(|secs| u64::try_from(secs).ok()).map(Value::Timestamp))
}
