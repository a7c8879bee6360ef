//! Sending messages, one or ten.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    attributes::{DELAY_SECS_MAX, MESSAGE_BYTES_MAX, is_set, note},
    batch::{self, Failed, Outcome},
    queue::{Target, Text, check_id},
    sent::{self, Attributes, LEGAL},
};
use crate::{
    aws::{
        call::{Call, Step},
        error::Error,
        message::{Attribute, Draft, attributes_md5, derived_id, hex, illegal_character, md5_hex, new_id},
    },
    broker::{access::Access, message::Message, queue::machine::Pushed, record::QueueId, turn::Turn},
};

/// Ids of messages that were sent of late to queues that know repetitions: who sends one again is told the first id.
#[derive(Default)]
pub(super) struct Sent(Mutex<Recent>);

#[derive(Default)]
struct Recent {
    ids: HashMap<(QueueId, u64), Box<str>, foldhash::fast::RandomState>,
    order: VecDeque<(QueueId, u64)>,
}

/// Ids that are remembered. Full: of a message that was sent before these, whoever repeats it is told an id that is
/// made of the message's place.
const IDS_MAX: usize = 1 << 16;

impl Sent {
    /// Forgets all.
    pub(super) fn clear(&self) {
        *self.0.lock() = Recent::default();
    }

    fn note(&self, queue: QueueId, seq: u64, id: &str) {
        let mut recent = self.0.lock();
        if recent.order.len() >= IDS_MAX
            && let Some(oldest) = recent.order.pop_front()
        {
            recent.ids.remove(&oldest);
        }
        recent.ids.insert((queue, seq), id.into());
        recent.order.push_back((queue, seq));
    }

    fn id(&self, queue: QueueId, seq: u64) -> String {
        let known = self.0.lock().ids.get(&(queue, seq)).map(|id| id.to_string());
        known.unwrap_or_else(|| derived_id(queue.0, seq))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SendMessage<'a> {
    #[serde(borrow)]
    queue_url: Option<Text<'a>>,
    #[serde(borrow)]
    message_body: Option<Text<'a>>,
    delay_seconds: Option<i64>,
    message_attributes: Option<Attributes>,
    message_system_attributes: Option<Attributes>,
    #[serde(borrow)]
    message_deduplication_id: Option<Text<'a>>,
    #[serde(borrow)]
    message_group_id: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SendMessageBatch<'a> {
    #[serde(borrow)]
    queue_url: Option<Text<'a>>,
    #[serde(borrow)]
    entries: Option<Vec<Entry<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    message_body: Option<Text<'a>>,
    delay_seconds: Option<i64>,
    message_attributes: Option<Attributes>,
    message_system_attributes: Option<Attributes>,
    #[serde(borrow)]
    message_deduplication_id: Option<Text<'a>>,
    #[serde(borrow)]
    message_group_id: Option<Text<'a>>,
}

/// What is asked for one message.
#[derive(Clone, Copy)]
struct Wanted<'r> {
    body: Option<&'r str>,
    delay_secs: Option<i64>,
    attributes: Option<&'r Attributes>,
    system: Option<&'r Attributes>,
    dedup: Option<&'r str>,
    group: Option<&'r str>,
}

/// A message that may be sent.
struct Checked<'r> {
    body: &'r str,
    attributes: Vec<Attribute<'r>>,
    system: Vec<Attribute<'r>>,
    withhold_ms: Option<u64>,
    dedup: Option<std::borrow::Cow<'r, str>>,
    group: Option<&'r str>,
}

/// What is answered of one message.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(rename = "Id", skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(rename = "MD5OfMessageBody")]
    body_md5: String,
    #[serde(rename = "MD5OfMessageAttributes", skip_serializing_if = "Option::is_none")]
    attributes_md5: Option<String>,
    #[serde(rename = "MD5OfMessageSystemAttributes", skip_serializing_if = "Option::is_none")]
    system_md5: Option<String>,
    #[serde(rename = "MessageId")]
    message_id: String,
    #[serde(rename = "SequenceNumber", skip_serializing_if = "Option::is_none")]
    sequence_number: Option<String>,
}

/// SendMessage
pub(super) fn send_message(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: SendMessage<'_> = input.parse()?;
    let target = Target::find(call, turn, request.queue_url.as_deref(), Access::Write)?;
    let wanted = Wanted {
        body: request.message_body.as_deref(),
        delay_secs: request.delay_seconds,
        attributes: request.message_attributes.as_ref(),
        system: request.message_system_attributes.as_ref(),
        dedup: request.message_deduplication_id.as_deref(),
        group: request.message_group_id.as_deref(),
    };
    let max = target.properties.message_bytes_max.unwrap_or(MESSAGE_BYTES_MAX);
    let too_long = || {
        let message = format!("One or more parameters are invalid. Reason: Message must be shorter than {max} bytes.");
        Error::sqs("InvalidParameterValueException", message)
    };
    let checked = check(wanted, &target)?;
    if checked.bytes() > max {
        return Err(too_long());
    }
    if target.is_fifo && checked.group.is_none() {
        return Err(Error::missing("MessageGroupId"));
    }
    let checked = name(checked, &target)?;
    let (mut told, message) = tell(call, turn, &target, &checked);
    let pushed = target.queue.publish_each(std::iter::once((message, checked.withhold_ms)), turn);
    let pushed = pushed.ok_or_else(|| Error::queue_does_not_exist(call.wire))?;
    become_known(call, &target, &mut told, pushed.into_iter().next())?;
    call.reply(&told)
}

/// SendMessageBatch
pub(super) fn send_message_batch(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: SendMessageBatch<'_> = input.parse()?;
    let target = Target::find(call, turn, request.queue_url.as_deref(), Access::Write)?;
    let entries = request.entries.unwrap_or_default();
    let ids = entries.iter().map(Entry::id);
    batch::check(ids.clone(), "SendMessageBatchRequestEntry")?;
    let mut bytes = 0;
    let mut wanted = Vec::with_capacity(entries.len());
    for entry in &entries {
        let one = Wanted {
            body: entry.message_body.as_deref(),
            delay_secs: entry.delay_seconds,
            attributes: entry.message_attributes.as_ref(),
            system: entry.message_system_attributes.as_ref(),
            dedup: entry.message_deduplication_id.as_deref(),
            group: entry.message_group_id.as_deref(),
        };
        let checked = check(one, &target);
        bytes += checked.as_ref().map_or_else(|_| one.body.unwrap_or_default().len() as u64, Checked::bytes);
        wanted.push(checked);
    }
    if bytes > MESSAGE_BYTES_MAX {
        let message =
            format!("Batch requests cannot be longer than {MESSAGE_BYTES_MAX} bytes. You have sent {bytes} bytes.");
        return Err(Error::sqs("BatchRequestTooLong", message));
    }
    let max = target.properties.message_bytes_max.unwrap_or(MESSAGE_BYTES_MAX);
    let mut failed = Vec::new();
    let mut accepted = Vec::with_capacity(entries.len());
    for (id, checked) in ids.zip(wanted) {
        let checked = match checked {
            Ok(checked) if checked.bytes() > max => {
                let message = format!(
                    "One or more parameters cannot be validated. Reason: Message must be shorter than {max} bytes."
                );
                failed.push(Failed::new(id, Error::sqs("InvalidParameterValueException", message)));
                continue;
            }
            Ok(checked) => checked,
            Err(error) => {
                failed.push(Failed::new(id, error));
                continue;
            }
        };
        // Of one that belongs nowhere in the order, all are refused.
        if target.is_fifo && checked.group.is_none() {
            let message = Error::missing("MessageGroupId").message;
            return Err(Error::sqs("InvalidParameterValueException", message));
        }
        accepted.push((id, name(checked, &target)?));
    }
    let (mut told, mut messages) = (Vec::with_capacity(accepted.len()), Vec::with_capacity(accepted.len()));
    for (id, checked) in &accepted {
        let (mut one, message) = tell(call, turn, &target, checked);
        one.id = Some(id);
        told.push(one);
        messages.push((message, checked.withhold_ms));
    }
    let pushed = target.queue.publish_each(messages.into_iter(), turn);
    let pushed = pushed.ok_or_else(|| Error::queue_does_not_exist(call.wire))?;
    let mut successful = Vec::with_capacity(told.len());
    for ((mut one, (id, _)), pushed) in told.into_iter().zip(&accepted).zip(pushed) {
        match become_known(call, &target, &mut one, Some(pushed)) {
            Ok(()) => successful.push(one),
            Err(error) => failed.push(Failed::new(id, error)),
        }
    }
    call.reply(&Outcome { successful, failed })
}

impl Entry<'_> {
    fn id(&self) -> &str {
        self.id.as_deref().unwrap_or_default()
    }
}

impl Checked<'_> {
    /// Octets that count.
    fn bytes(&self) -> u64 {
        (self.body.len() + self.attributes.iter().map(Attribute::size).sum::<usize>()) as u64
    }
}

/// Looks at what is asked for, but for the length and what only an ordered queue needs.
fn check<'r>(wanted: Wanted<'r>, target: &Target) -> Result<Checked<'r>, Error> {
    let body = wanted.body.filter(|body| !body.is_empty()).ok_or_else(|| Error::missing("MessageBody"))?;
    if let Some(character) = illegal_character(body) {
        let message = format!(
            "Invalid binary character '#x{:X}' was found in the message body, the set of allowed characters is {LEGAL}",
            u32::from(character)
        );
        return Err(Error::sqs("InvalidMessageContents", message));
    }
    let attributes = wanted.attributes.map(sent::check).transpose()?.unwrap_or_default();
    let system = wanted.system.map(sent::check_system).transpose()?.unwrap_or_default();
    let foreign = "The request include parameter that is not valid for this queue type.";
    let withhold_ms = match wanted.delay_secs {
        // Nothing but the delay of the whole queue keeps an order.
        None | Some(0) if target.is_fifo => None,
        Some(secs) if target.is_fifo => return Err(Error::invalid_value(secs, "DelaySeconds", foreign)),
        None => None,
        Some(secs) => match u64::try_from(secs).ok().filter(|secs| *secs <= DELAY_SECS_MAX) {
            Some(secs) => Some(secs * 1_000),
            None => {
                let reason = format!("DelaySeconds must be >= 0 and <= {DELAY_SECS_MAX}.");
                return Err(Error::invalid_value(secs, "DelaySeconds", &reason));
            }
        },
    };
    if !target.is_fifo
        && let Some(dedup) = wanted.dedup
    {
        return Err(Error::invalid_value(dedup, "MessageDeduplicationId", foreign));
    }
    check_id(wanted.group, "MessageGroupId")?;
    check_id(wanted.dedup, "MessageDeduplicationId")?;
    let dedup = wanted.dedup.map(Into::into);
    Ok(Checked { body, attributes, system, withhold_ms, dedup, group: wanted.group })
}

/// Names a message for an ordered queue by its body, if the queue says so and nobody has named it.
fn name<'r>(mut checked: Checked<'r>, target: &Target) -> Result<Checked<'r>, Error> {
    if target.is_fifo && checked.dedup.is_none() {
        if is_set(&target.properties.notes, note::CONTENT_DEDUP) {
            checked.dedup = Some(hex(&Sha256::digest(checked.body)).into());
        } else if target.properties.dedup.is_some() {
            let message = "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId \
                           provided explicitly";
            return Err(Error::sqs("InvalidParameterValueException", message));
        }
    }
    Ok(checked)
}

/// The message, and what will be told of it.
fn tell<'a>(call: &Call, turn: &Turn<'_>, target: &Target, checked: &Checked<'_>) -> (Told<'a>, Message) {
    let message_id = new_id();
    let trace = checked.system.first().and_then(|trace| match &trace.data {
        crate::aws::message::Data::Text(text) => Some(&**text),
        crate::aws::message::Data::Binary(_) => None,
    });
    let draft = Draft {
        exchange: "",
        key: &target.queue.name,
        body: checked.body.as_bytes(),
        message_id: &message_id,
        sent: turn.now,
        sender: Some(&*call.caller.user).filter(|user| !user.is_empty()),
        attributes: &checked.attributes,
        group: checked.group,
        dedup: checked.dedup.as_deref(),
        trace: trace.or(call.trace.as_deref().filter(|trace| !trace.is_empty())),
        more: &[],
    };
    let message = draft.build();
    let told = Told {
        id: None,
        body_md5: md5_hex(checked.body.as_bytes()),
        attributes_md5: attributes_md5(&checked.attributes),
        system_md5: attributes_md5(&checked.system),
        message_id,
        sequence_number: None,
    };
    (told, message)
}

/// What became of the message in the queue.
fn become_known(call: &Call, target: &Target, told: &mut Told<'_>, pushed: Option<Pushed>) -> Result<(), Error> {
    let sent = &call.aws.sqs.sent;
    let seq = match pushed {
        Some(Pushed::Accepted(seq)) => {
            if target.is_fifo {
                sent.note(target.queue.id, seq, &told.message_id);
            }
            seq
        }
        Some(Pushed::Duplicate(seq)) => {
            told.message_id = sent.id(target.queue.id, seq);
            seq
        }
        Some(Pushed::Refused) | None => return Err(Error::sqs("OverLimit", "The queue takes no more messages.")),
    };
    told.sequence_number = target.is_fifo.then(|| sequence_number(seq));
    Ok(())
}

/// A place in an ordered queue, in twenty digits that compare as texts do.
pub(super) fn sequence_number(seq: u64) -> String {
    format!("1{seq:019}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repetition_is_told_the_first_id_as_long_as_it_is_known() {
        let sent = Sent::default();
        sent.note(QueueId(1), 1, "first");
        assert_eq!(sent.id(QueueId(1), 1), "first");
        assert_eq!(sent.id(QueueId(2), 1), derived_id(2, 1));
        (0..IDS_MAX as u64).for_each(|seq| sent.note(QueueId(3), seq, "x"));
        assert_eq!(sent.id(QueueId(1), 1), derived_id(1, 1));
    }

    #[test]
    fn sequence_numbers_grow_as_texts() {
        assert_eq!(sequence_number(7), "10000000000000000007");
        assert!(sequence_number(9) < sequence_number(10));
    }
}
