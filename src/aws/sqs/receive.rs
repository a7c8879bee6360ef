//! Receiving messages, at once or when some have come.

use std::{
    borrow::Cow,
    sync::atomic::{AtomicU64, Ordering},
};

use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap as _};

use super::{
    attributes::{self, MESSAGE_BYTES_MAX, VISIBILITY_SECS_DEFAULT, VISIBILITY_SECS_MAX, WAIT_SECS_MAX, note},
    queue::{Target, Text, arn_of, check_id},
    receipt::Receipt,
    send::sequence_number,
};
use crate::{
    aws::{
        call::{Call, Step, Wire},
        error::Error,
        message::{Attribute, Contents, Data, ENCODING_ATTRIBUTE, attributes_md5, body_text, derived_id, md5_hex},
    },
    broker::{
        access::Access,
        queue::leases::{Leased, Receive, ReceiveError, Waiter},
        time::Time,
        turn::Turn,
        value::Value,
        verb::Verb,
    },
};

/// Counts messages that are too long for SQS.
#[derive(Default)]
pub(super) struct Oversized(AtomicU64);

impl Oversized {
    /// Counts from nothing again.
    pub(super) fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Messages of a queue that may be received and not deleted. Full: an ordered queue gives out none, another refuses.
const IN_FLIGHT_MAX: usize = 120_000;
const RECEIVED_MAX: i64 = 10;
/// Milliseconds after which a message that is being read from the disk is looked for again, if nobody was told.
const PENDING_MS: u64 = 1_000;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ReceiveMessage<'a> {
    #[serde(borrow)]
    queue_url: Option<Text<'a>>,
    #[serde(borrow)]
    attribute_names: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    message_system_attribute_names: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    message_attribute_names: Option<Vec<Text<'a>>>,
    max_number_of_messages: Option<i64>,
    visibility_timeout: Option<i64>,
    wait_time_seconds: Option<i64>,
    #[serde(borrow)]
    receive_request_attempt_id: Option<Text<'a>>,
}

/// A call that waits.
struct Waiting {
    until: Time,
    /// Waits as long as it is kept.
    _waiter: Option<Waiter>,
}

/// ReceiveMessage
pub(super) fn receive_message(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: ReceiveMessage<'_> = input.parse()?;
    let target = Target::find(call, turn, request.queue_url.as_deref(), Access::Read)?;
    let wanted = Wanted::check(&request, &target, call.wire)?;
    let waited = call.state.take().and_then(|state| state.downcast::<Waiting>().ok());
    let until = waited.as_ref().map_or_else(|| turn.now.after_ms(wanted.wait_ms), |waiting| waiting.until);
    let may_wait = turn.now < until;
    let receive = Receive {
        max: wanted.max,
        lease_ms: wanted.lease_ms,
        attempt: request.receive_request_attempt_id.as_deref().map(str::as_bytes),
        in_flight_max: IN_FLIGHT_MAX,
        waiter: may_wait.then(|| call.waiter.clone()),
    };
    let mut received = target.queue.receive(&receive, turn);
    if matches!(received, Verb::Pending(_)) {
        // It looks once more, or what has come from the disk meanwhile would be told to nobody.
        turn.broker.waiting.register(call.waiter.clone());
        received = target.queue.receive(&receive, turn);
    }
    let received = match received {
        Verb::Done(Ok(received)) => received,
        Verb::Done(Err(ReceiveError::Full)) if !target.is_fifo => {
            let message = format!("Too many messages in flight. The maximum is {IN_FLIGHT_MAX}.");
            return Err(Error::sqs("OverLimit", message));
        }
        Verb::Done(Err(ReceiveError::Full)) => crate::broker::queue::leases::Received::default(),
        Verb::Done(Err(ReceiveError::Deleted)) => return Err(Error::queue_does_not_exist(call.wire)),
        Verb::Done(Err(error @ (ReceiveError::Stream | ReceiveError::Exclusive))) => {
            return Err(Error::sqs("UnsupportedOperation", error.to_string()));
        }
        Verb::Pending(_) => {
            call.state = Some(Box::new(Waiting { until, _waiter: None }));
            return Ok(Step::Wait { until: turn.now.after_ms(PENDING_MS) });
        }
    };
    if received.messages.is_empty() && may_wait {
        call.state = Some(Box::new(Waiting { until, _waiter: received.waiter }));
        return Ok(Step::Wait { until });
    }
    let mut messages = Vec::with_capacity(received.messages.len());
    for leased in &received.messages {
        if leased.message.body_bytes() > MESSAGE_BYTES_MAX {
            // It stays leased, so that others come first, and is left for consumers of other protocols.
            let (queue, seq, bytes) = (&*target.queue.name, leased.seq, leased.message.body_bytes());
            tracing::warn!(queue, seq, bytes, "a message is too long for a receiver of SQS");
            call.aws.sqs.oversized.0.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        messages.push(shown(call, turn, &target, leased, &wanted));
    }
    call.reply(&Answer { messages })
}

/// What is asked for, looked at.
struct Wanted<'r> {
    max: usize,
    lease_ms: u64,
    wait_ms: u64,
    system: System,
    attributes: &'r [Text<'r>],
}

impl<'r> Wanted<'r> {
    fn check(request: &'r ReceiveMessage<'_>, target: &Target, wire: Wire) -> Result<Self, Error> {
        let max = request.max_number_of_messages.unwrap_or(1);
        if !(1..=RECEIVED_MAX).contains(&max) {
            let reason = format!("Must be between 1 and {RECEIVED_MAX}, if provided.");
            return Err(Error::invalid_value(max, "MaxNumberOfMessages", &reason));
        }
        let secs = |secs: Option<i64>, parameter, limit: u64| match secs {
            None => Ok(None),
            Some(secs) => match u64::try_from(secs).ok().filter(|secs| *secs <= limit) {
                Some(secs) => Ok(Some(secs * 1_000)),
                None => {
                    let reason = format!("Must be >= 0 and <= {limit}, if provided.");
                    Err(Error::invalid_value(secs, parameter, &reason))
                }
            },
        };
        let properties = &target.properties;
        let lease_ms = secs(request.visibility_timeout, "VisibilityTimeout", VISIBILITY_SECS_MAX)?;
        let wait_ms = secs(request.wait_time_seconds, "WaitTimeSeconds", WAIT_SECS_MAX)?;
        let attempt = request.receive_request_attempt_id.as_deref();
        if let Some(attempt) = attempt.filter(|_| !target.is_fifo) {
            let reason = "The request include parameter that is not valid for this queue type.";
            return Err(Error::invalid_value(attempt, "ReceiveRequestAttemptId", reason));
        }
        check_id(attempt, "ReceiveRequestAttemptId")?;
        let mut system = System::default();
        // In Query the older parameter outweighs the newer one, as recorded; in JSON they add up.
        let newer = &request.message_system_attribute_names;
        let newer = newer.as_ref().filter(|_| wire == Wire::Json || request.attribute_names.is_none());
        for names in request.attribute_names.iter().chain(newer) {
            names.iter().try_for_each(|name| system.add(name))?;
        }
        Ok(Self {
            max: max as usize,
            lease_ms: lease_ms.or(properties.lease_ms).unwrap_or(VISIBILITY_SECS_DEFAULT * 1_000),
            wait_ms: wait_ms.or(properties.wait_ms).unwrap_or_default(),
            system,
            attributes: request.message_attribute_names.as_deref().unwrap_or_default(),
        })
    }

    fn wants(&self, name: &str) -> bool {
        self.attributes.iter().any(|wanted| match &**wanted {
            "All" | "*" | ".*" => true,
            wanted => match wanted.strip_suffix(".*") {
                Some(prefix) => name.starts_with(prefix),
                None => wanted == name,
            },
        })
    }
}

/// Which system attributes are asked for, a bit each.
#[derive(Clone, Copy, Default)]
struct System(u16);

const SYSTEM_NAMES: [&str; 9] = [
    "SenderId",
    "SentTimestamp",
    "ApproximateReceiveCount",
    "ApproximateFirstReceiveTimestamp",
    "SequenceNumber",
    "MessageDeduplicationId",
    "MessageGroupId",
    "AWSTraceHeader",
    "DeadLetterQueueSourceArn",
];

impl System {
    fn add(&mut self, name: &str) -> Result<(), Error> {
        // Names of queues' attributes have always been taken here, and mean nothing.
        match SYSTEM_NAMES.iter().position(|known| *known == name) {
            Some(at) => self.0 |= 1 << at,
            None if name == "All" => self.0 = u16::MAX,
            None if attributes::NAMES.contains(&name) => {}
            None => return Err(attributes::unknown(name)),
        }
        Ok(())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer<'m> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    messages: Vec<Shown<'m>>,
}

/// A message as a receiver sees it.
#[derive(Serialize)]
struct Shown<'m> {
    #[serde(rename = "MessageId")]
    message_id: Cow<'m, str>,
    #[serde(rename = "ReceiptHandle")]
    receipt: String,
    #[serde(rename = "MD5OfBody")]
    body_md5: String,
    #[serde(rename = "Body")]
    body: Cow<'m, str>,
    #[serde(rename = "Attributes", skip_serializing_if = "Vec::is_empty", serialize_with = "as_map")]
    system: Vec<(&'static str, Cow<'m, str>)>,
    #[serde(rename = "MD5OfMessageAttributes", skip_serializing_if = "Option::is_none")]
    attributes_md5: Option<String>,
    #[serde(rename = "MessageAttributes", skip_serializing_if = "Vec::is_empty", serialize_with = "as_attributes")]
    attributes: Vec<Attribute<'m>>,
}

fn as_map<S: Serializer>(pairs: &[(&'static str, Cow<'_, str>)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, value)| (name, value)))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ShownAttribute<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    string_value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    binary_value: Option<String>,
    data_type: &'a str,
}

fn as_attributes<S: Serializer>(attributes: &[Attribute<'_>], serializer: S) -> Result<S::Ok, S::Error> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let mut map = serializer.serialize_map(Some(attributes.len()))?;
    for attribute in attributes {
        let (string_value, binary_value) = match &attribute.data {
            Data::Text(text) => (Some(&**text), None),
            Data::Binary(bytes) => (None, Some(STANDARD.encode(bytes))),
        };
        map.serialize_entry(
            &*attribute.name,
            &ShownAttribute { string_value, binary_value, data_type: &attribute.data_type },
        )?;
    }
    map.end()
}

fn shown<'m>(call: &Call, turn: &Turn<'_>, target: &Target, leased: &'m Leased, wanted: &Wanted<'_>) -> Shown<'m> {
    let message = &leased.message;
    let contents = Contents::read(message);
    let body = body_text(message);
    let mut attributes =
        if wanted.attributes.is_empty() { Vec::new() } else { contents.attributes_where(|name| wanted.wants(name)) };
    if body.is_encoded {
        // Whoever does not ask for it has to know it all the same.
        attributes.retain(|attribute| attribute.name != ENCODING_ATTRIBUTE);
        let at = attributes.partition_point(|attribute| &*attribute.name < ENCODING_ATTRIBUTE);
        attributes.insert(at, Attribute::text(ENCODING_ATTRIBUTE, "base64"));
    }
    let receipt = Receipt { queue: target.queue.id, seq: leased.seq, nonce: leased.nonce };
    let message_id = match contents.message_id {
        Some(id) => id.into(),
        None => derived_id(target.queue.id.0, leased.seq).into(),
    };
    Shown {
        message_id,
        receipt: call.aws.sqs.receipts.write(receipt, turn.broker),
        body_md5: md5_hex(body.text.as_bytes()),
        body: body.text,
        system: system(call, target, leased, &contents, wanted.system),
        attributes_md5: attributes_md5(&attributes),
        attributes,
    }
}

fn system<'m>(
    call: &Call,
    target: &Target,
    leased: &'m Leased,
    contents: &Contents<'m>,
    asked: System,
) -> Vec<(&'static str, Cow<'m, str>)> {
    if asked.0 == 0 {
        return Vec::new();
    }
    let number = |number: u64| Some(Cow::Owned(number.to_string()));
    let value = |name: &str| match name {
        "SenderId" => Some(contents.sender.unwrap_or("anonymous").into()),
        "SentTimestamp" => number(contents.sent_ms.unwrap_or(leased.first_received_at.0)),
        "ApproximateReceiveCount" => number(u64::from(leased.receives) + receives_before(target, contents)),
        "ApproximateFirstReceiveTimestamp" => number(leased.first_received_at.0),
        "SequenceNumber" if target.is_fifo => Some(sequence_number(leased.seq).into()),
        "MessageDeduplicationId" if target.is_fifo => contents.dedup.map(Into::into),
        "MessageGroupId" => contents.group.map(Into::into),
        "AWSTraceHeader" => contents.trace.map(Into::into),
        "DeadLetterQueueSourceArn" => contents.died_in.map(|queue| arn_of(call, &target.vhost, queue).into()),
        _ => None,
    };
    let names = SYSTEM_NAMES.iter().enumerate().filter(|(at, _)| asked.0 & 1 << at != 0);
    names.filter_map(|(_, name)| Some((*name, value(name)?))).collect()
}

/// How often a message was received in the queue that gave it up: as often as that one allows.
fn receives_before(target: &Target, contents: &Contents<'_>) -> u64 {
    let source = contents.died_in.and_then(|queue| target.vhost.queue(queue));
    let Some(properties) = source.map(|source| source.properties()) else { return 0 };
    let is_source = properties.dead_queue.as_deref() == Some(&*target.queue.name);
    let receives = properties.notes.get(note::MAX_RECEIVES).and_then(Value::as_integer);
    receives.filter(|_| is_source).and_then(|receives| u64::try_from(receives).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(names: &[&str], name: &str) -> bool {
        let names: Vec<Text<'_>> = names.iter().map(|name| Text::from(*name)).collect();
        Wanted { max: 1, lease_ms: 0, wait_ms: 0, system: System::default(), attributes: &names }.wants(name)
    }

    #[test]
    fn attributes_are_selected_by_name_by_prefix_or_all() {
        assert!(wants(&["All"], "a") && wants(&[".*"], "a") && wants(&["*"], "a"));
        assert!(wants(&["Help.*"], "Help.Me") && !wants(&["Help.*"], "Other"));
        assert!(wants(&["b", "a"], "a") && !wants(&["b"], "a") && !wants(&[], "a"));
    }

    #[test]
    fn unknown_system_attributes_are_refused() {
        let mut system = System::default();
        system.add("SenderId").unwrap();
        system.add("QueueArn").unwrap();
        assert_eq!(system.0, 1);
        assert_eq!(system.add("Nope").unwrap_err().message, "Unknown Attribute Nope.");
    }
}
