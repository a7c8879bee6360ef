//! MESSAGE: what a client is told of a message, in the names of JMS.

use std::collections::HashMap;

use super::super::super::{
    codec::{self, Escapes},
    output::Subscribed,
};
use crate::{
    broker::{
        consumer::Delivery,
        value::{Headers, ValueRef},
    },
    protocol::{amqp::properties::Fields, outbox::Chunk},
};

/// When it was sent, in milliseconds since 1970. AMQP's timestamp has seconds.
pub(super) const TIMESTAMP_IN_MS: &[u8] = b"timestamp_in_ms";
/// When it expires, in milliseconds since 1970.
pub(super) const EXPIRES: &[u8] = b"expires";
/// It was sent with one: it is bytes, and no text.
pub(super) const CONTENT_LENGTH: &[u8] = b"content-length";
/// Where answers go as the sender wrote it, where that is not what it means.
pub(super) const REPLY_TO: &[u8] = b"reply-to";
/// The composite destination that it was sent to.
pub(super) const ORIGINAL_DESTINATION: &[u8] = b"original-destination";

/// Bodies up to this size are copied into the contiguous output.
const COPIED_BODY_MAX: u64 = 4096;
/// JMS's priority of a message that says none.
const PRIORITY_DEFAULT: u8 = 4;

/// What a connection's messages have in common.
#[derive(Default)]
pub(in crate::protocol::stomp) struct Style {
    pub(in crate::protocol::stomp) session: Vec<u8>,
    pub(in crate::protocol::stomp) escapes: Option<Escapes>,
    pub(in crate::protocol::stomp) topic_exchange: Vec<u8>,
    /// What the client calls its temporary destinations, by their real names.
    pub(in crate::protocol::stomp) temporary: HashMap<Box<[u8]>, Box<[u8]>, foldhash::fast::RandomState>,
}

/// What headers say that is not told as it is.
#[derive(Default)]
struct Known<'a> {
    timestamp_ms: Option<u64>,
    expires: Option<u64>,
    is_bytes: bool,
    original_destination: Option<&'a [u8]>,
    reply_to: Option<&'a [u8]>,
    death: Option<Headers<'a>>,
}

/// Appends a MESSAGE; returns what the client calls it.
pub(in crate::protocol::stomp) fn put(
    style: &Style,
    subscribed: &Subscribed,
    delivery: &Delivery<'_>,
    properties: &[u8],
    tag: u64,
    chunk: &mut Chunk,
) -> Vec<u8> {
    let message = delivery.message;
    let escapes = style.escapes.unwrap_or(Escapes::Nothing);
    let fields = Fields::read(properties).unwrap_or_default();
    let (at, len) = fields.headers;
    let headers = Headers::new(&properties[at..at + len]);
    let known = know(&headers);
    let out = chunk.bytes_mut();
    let text = |name: &[u8], value: Option<&[u8]>, out: &mut Vec<u8>| {
        if let Some(value) = value {
            codec::put_header_escaped(name, value, escapes, out);
        }
    };
    let number = |name: &[u8], value: u64, out: &mut Vec<u8>| {
        out.extend_from_slice(name);
        out.push(b':');
        codec::put_number(value, out);
        out.push(b'\n');
    };
    out.extend_from_slice(&subscribed.head);
    let topic = match &subscribed.destination {
        Some(_) => None,
        None => Some(match style.temporary.get(message.key()) {
            Some(name) => name.to_vec(),
            None => [b"/topic/", message.key()].concat(),
        }),
    };
    text(b"destination", subscribed.destination.as_deref().or(topic.as_deref()), out);
    let id = match fields.message_id {
        Some(id) if !id.is_empty() => id.to_vec(),
        _ => [&style.session[..], b":-1:0:", tag.to_string().as_bytes()].concat(),
    };
    text(b"message-id", Some(&id), out);
    let timestamp_ms = known.timestamp_ms.or_else(|| fields.timestamp.map(|secs| secs.saturating_mul(1000)));
    let lives_ms = fields.expiration.and_then(codec::integer).and_then(|ms| u64::try_from(ms).ok());
    let expires = lives_ms.and_then(|ms| known.expires.or_else(|| Some(timestamp_ms?.saturating_add(ms))));
    number(EXPIRES, expires.unwrap_or(0), out);
    if expires.is_none() {
        text(b"expiration", fields.expiration, out);
    }
    number(b"priority", fields.priority.map_or(PRIORITY_DEFAULT, |priority| priority.min(9)).into(), out);
    number(b"timestamp", timestamp_ms.unwrap_or(0), out);
    if message.traits.persistent {
        out.extend_from_slice(b"persistent:true\n");
    }
    if delivery.redelivered {
        out.extend_from_slice(b"redelivered:true\n");
    }
    text(b"correlation-id", fields.correlation_id, out);
    if known.reply_to.is_some() {
        text(REPLY_TO, known.reply_to, out);
    } else if let Some(to) = fields.reply_to {
        text(REPLY_TO, Some(&reply_to(style, to)), out);
    }
    text(b"type", fields.message_type, out);
    text(b"JMSXUserID", fields.user_id, out);
    text(b"app-id", fields.app_id, out);
    text(b"content-type", fields.content_type, out);
    text(b"content-encoding", fields.content_encoding, out);
    if let Some(death) = &known.death {
        put_death(death, &known, &style.topic_exchange, escapes, out);
    } else if known.original_destination.is_some() {
        text(ORIGINAL_DESTINATION, known.original_destination, out);
    } else if subscribed.destination.is_some() && message.exchange() == style.topic_exchange {
        let topic = [b"/topic/", message.key()].concat();
        text(ORIGINAL_DESTINATION, Some(&topic), out);
    }
    put_headers(&headers, escapes, out);
    if delivery.opens_group {
        out.extend_from_slice(b"JMSXGroupFirstForConsumer:true\n");
    }
    if subscribed.has_ack {
        let ack = [&style.session[..], b":", tag.to_string().as_bytes()].concat();
        text(b"ack", Some(&ack), out);
    }
    let size = message.body_bytes();
    let contiguous = message.body_contiguous();
    if is_bytes(&known, &fields) || !is_text(contiguous, message.body_slices()) {
        number(CONTENT_LENGTH, size, out);
    }
    out.push(b'\n');
    match contiguous {
        Some(body) if size <= COPIED_BODY_MAX => out.extend_from_slice(body),
        _ => message.body_slices().for_each(|slice| chunk.push_slice(slice)),
    }
    id
}

fn know<'a>(headers: &Headers<'a>) -> Known<'a> {
    let mut known = Known::default();
    for (name, value) in headers.iter() {
        let number = || value.as_integer().and_then(|number| u64::try_from(number).ok());
        match name {
            TIMESTAMP_IN_MS => known.timestamp_ms = number(),
            EXPIRES => known.expires = number(),
            CONTENT_LENGTH => known.is_bytes = true,
            ORIGINAL_DESTINATION => known.original_destination = value.as_text_bytes(),
            REPLY_TO => known.reply_to = value.as_text_bytes(),
            b"x-death" => known.death = value.as_array().and_then(|mut deaths| deaths.next()?.as_headers()),
            _ => {}
        }
    }
    known
}

/// Whether it is no text to its sender. Senders that say nothing of it mean text if they say so.
fn is_bytes(known: &Known<'_>, fields: &Fields<'_>) -> bool {
    let is_text = |kind: &[u8]| {
        kind.starts_with(b"text/") || kind.starts_with(b"application/json") || kind.starts_with(b"application/xml")
    };
    known.is_bytes || known.timestamp_ms.is_none() && !fields.content_type.is_some_and(is_text)
}

/// Whether a body can do without its length. A NUL would end it.
fn is_text(contiguous: Option<&[u8]>, mut slices: impl Iterator<Item = crate::broker::block::Slice>) -> bool {
    match contiguous {
        Some(body) => !body.contains(&0),
        None => slices.all(|slice| !slice.contains(&0)),
    }
}

/// Where answers go: names of queues become destinations.
fn reply_to(style: &Style, to: &[u8]) -> Vec<u8> {
    if let Some(name) = style.temporary.get(to) {
        return name.to_vec();
    }
    if let Some(topic) = to.strip_prefix(b"/remote-temp-topic/") {
        return style.temporary.get(topic).map_or_else(|| to.to_vec(), |name| name.to_vec());
    }
    // What RabbitMQ's dialect leaves as it was written.
    for prefix in [&b"/reply-queue/"[..], b"/amq/queue/"] {
        if let Some(name) = to.strip_prefix(prefix) {
            return [b"/queue/", name].concat();
        }
    }
    if to.starts_with(b"ID:") {
        return [b"/remote-temp-queue/", to].concat();
    }
    if to.is_empty() || to.starts_with(b"/") { to.to_vec() } else { [b"/queue/", to].concat() }
}

/// What the queue of the dead knows of a message: where it died, and of what.
fn put_death(death: &Headers<'_>, known: &Known<'_>, topics: &[u8], escapes: Escapes, out: &mut Vec<u8>) {
    let text = |name: &str| death.get(name).and_then(|value| value.as_text_bytes());
    let is_expired = text("reason") == Some(b"expired");
    let queue = text("queue").unwrap_or_default();
    let key = death.get("routing-keys").and_then(|keys| keys.as_array()?.next()?.as_text_bytes());
    let is_subscription = queue.starts_with(super::subscribe::DURABLE_PREFIX.as_bytes());
    let origin = match key {
        Some(key) if is_subscription && text("exchange") == Some(topics) => [b"/topic/", key].concat(),
        _ => [b"/queue/", queue].concat(),
    };
    codec::put_header_escaped(ORIGINAL_DESTINATION, &origin, escapes, out);
    let expired_at = known.expires.filter(|_| death.get("original-expiration").is_some()).unwrap_or(0);
    codec::put_header_escaped(b"originalExpiration", expired_at.to_string().as_bytes(), escapes, out);
    if is_expired {
        let cause = format!("java.lang.Throwable: Message Expired. Expiration:{expired_at}");
        codec::put_header_escaped(b"dlqDeliveryFailureCause", cause.as_bytes(), escapes, out);
    }
}

/// Appends the headers that the sender has made up.
fn put_headers(headers: &Headers<'_>, escapes: Escapes, out: &mut Vec<u8>) {
    for (name, value) in headers.iter() {
        if is_ours(name) {
            continue;
        }
        match value.kind {
            b'S' => codec::put_header_escaped(name, value.payload, escapes, out),
            _ => {
                if let Some(text) = shown(value) {
                    codec::put_header_escaped(name, text.as_bytes(), escapes, out);
                }
            }
        }
    }
}

/// Numbers and truth values as Java writes them; all else has no form here.
fn shown(value: ValueRef<'_>) -> Option<String> {
    let double = |number: f64| if number == number.trunc() { format!("{number:.1}") } else { number.to_string() };
    match value.kind {
        b't' => Some((value.payload.first() != Some(&0)).to_string()),
        b'f' => Some(double(f32::from_be_bytes(value.payload.try_into().ok()?).into())),
        b'd' => Some(double(f64::from_be_bytes(value.payload.try_into().ok()?))),
        _ => value.as_integer().map(|number| number.to_string()),
    }
}

/// Headers that are told in another way, or that nobody but us says.
fn is_ours(name: &[u8]) -> bool {
    matches!(
        name,
        b"timestamp_in_ms"
            | b"expires"
            | b"content-length"
            | b"original-destination"
            | b"reply-to"
            | b"destination"
            | b"message-id"
            | b"subscription"
            | b"redelivered"
            | b"priority"
            | b"timestamp"
            | b"persistent"
            | b"ack"
            | b"JMSXUserID"
            | b"JMSXGroupFirstForConsumer"
            | b"x-death"
            | b"x-first-death-exchange"
            | b"x-first-death-queue"
            | b"x-first-death-reason"
            | b"receipt"
    )
}
