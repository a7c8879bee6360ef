//! The outbox: what this broker cannot deliver itself, durable until somebody takes it.
//!
//! Messages of subscriptions other than `sqs`, `http` and `https` wait in the subscriptions' own queues; those for
//! one phone number or one endpoint wait in [`DIRECT_QUEUE`]. They are queues like others: a consumer of any protocol
//! that settles a message has delivered it.
//!
//! A queue that is full drops its oldest message, which is counted: the page says how many since the start.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::subscription::{OWN_QUEUE_PREFIX, Subscription};
use crate::{
    aws::{
        Aws,
        error::Error,
        message::{Contents, body_text},
        pages::{Page, Request},
        sns::envelope,
    },
    broker::{
        Broker,
        message::Message,
        queue::Queue,
        topology::DeclareQueue,
        turn::Turn,
        value::{Table, Value, ValueRef},
        verb::Verb,
        vhost::Vhost,
    },
};

/// The queue with messages for one phone number or one endpoint.
pub const DIRECT_QUEUE: &str = "tern.sns.direct";
/// The header with the protocol of such a message.
pub const PROTOCOL_HEADER: &str = "x-sns-protocol";
/// The header with its endpoint.
pub const ENDPOINT_HEADER: &str = "x-sns-endpoint";
/// Messages that it holds. Full: the oldest goes, and is counted as dropped.
const WAITING_MAX: i64 = 100_000;
/// Messages on a page, unless it says how many.
const SHOWN: usize = 100;
/// Messages on a page at most.
const SHOWN_MAX: usize = 1_000;

/// The queue with messages for one endpoint each; it is made if it is not there.
pub fn direct_queue(vhost: &Arc<Vhost>, turn: &mut Turn<'_>) -> Result<Arc<Queue>, Error> {
    let arguments = Table::from_iter([("x-max-length", Value::I64(WAITING_MAX))]);
    let wanted = DeclareQueue { name: DIRECT_QUEUE, durable: true, arguments, ..DeclareQueue::default() };
    vhost.declare_queue(&wanted, None, turn).map_err(|error| Error::internal(error.to_string()))
}

/// The page of what waits: `max` says how many of each queue, `protocol` of which protocol.
pub(super) fn page(aws: &Aws, broker: &Broker, request: &Request<'_>) -> Page {
    let mut max = SHOWN;
    let mut wanted = None;
    for (name, value) in form_urlencoded::parse(request.query.as_bytes()) {
        match &*name {
            "max" => max = value.parse().unwrap_or(SHOWN).clamp(1, SHOWN_MAX),
            "protocol" => wanted = Some(value.into_owned()),
            _ => {}
        }
    }
    let mut turn = Turn::new(broker, request.now);
    let (mut shown, mut waiting, mut dropped) = (Vec::new(), 0, 0);
    for vhost in broker.vhosts() {
        let account = aws.options.account_of(&vhost.name).unwrap_or_default().to_owned();
        for (_, of) in Subscription::list(broker, &vhost.name, None, "", usize::MAX) {
            if of.is_to_queue() || matches!(&*of.protocol, "http" | "https") {
                continue;
            }
            let Some(queue) = vhost.queue(&of.own_queue()) else { continue };
            let arn = of.arn(&of.region);
            let about =
                json!({"Account": account, "SubscriptionArn": arn, "Protocol": of.protocol, "Endpoint": of.endpoint});
            if wanted.as_deref().is_none_or(|wanted| wanted == of.protocol) {
                dropped += queue.status().counters.dropped;
                waiting += show(&queue, max, &about, &mut shown, &mut turn);
            }
        }
        if let Some(queue) = vhost.queue(DIRECT_QUEUE) {
            let before = shown.len();
            dropped += queue.status().counters.dropped;
            waiting += show(&queue, max, &json!({ "Account": account }), &mut shown, &mut turn);
            let is_wanted = |entry: &Json| wanted.as_deref().is_none_or(|wanted| entry["Protocol"] == wanted);
            let of_queue: Vec<_> = shown.drain(before..).filter(is_wanted).collect();
            shown.extend(of_queue);
        }
    }
    turn.end();
    Page::json(&json!({ "Waiting": waiting, "Dropped": dropped, "Messages": shown }))
}

/// Appends what waits in a queue, as far as it can be read at once; returns how many there are.
fn show(queue: &Arc<Queue>, max: usize, about: &Json, shown: &mut Vec<Json>, turn: &mut Turn<'_>) -> u64 {
    let (mut place, mut left) = (None, max);
    // What is on disk alone is shown once what is before it has been taken.
    while let Verb::Done(page) = queue.browse(place, left, turn) {
        left -= page.messages.len().min(left);
        shown.extend(page.messages.iter().map(|browsed| entry(about, &browsed.message)));
        place = page.next;
        if place.is_none() || left == 0 {
            break;
        }
    }
    queue.status().ready
}

fn entry(about: &Json, message: &Message) -> Json {
    let contents = Contents::read(message);
    let header = |name: &str| contents.headers.get(name).and_then(ValueRef::as_text);
    let mut entry = about.clone();
    for (name, header_name) in
        [("Protocol", PROTOCOL_HEADER), ("Endpoint", ENDPOINT_HEADER), ("Subject", envelope::SUBJECT_HEADER)]
    {
        if let Some(text) = header(header_name) {
            entry[name] = text.into();
        }
    }
    entry["MessageId"] = contents.message_id.into();
    entry["SentTimestamp"] = contents.sent_ms.into();
    entry["Message"] = body_text(message).text.into();
    let attributes = envelope::shown_attributes(&contents.attributes());
    if !attributes.is_empty() {
        entry["MessageAttributes"] = attributes.into();
    }
    entry
}

/// Whether a queue is one of those that deliverers take from.
pub fn is_own_queue(name: &str) -> bool {
    name.starts_with(OWN_QUEUE_PREFIX)
}
