//! Publishing: to topics, to endpoints of platform applications, and to phone numbers.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};

use super::{
    arn::{self, invalid, new_uuid},
    envelope, outbox, platform, sms, subscription,
    topic::{self, Topic},
};
use crate::{
    aws::{
        call::{Call, Step},
        error::Error,
        message::{Attribute, Data, Draft, hex},
    },
    broker::{
        access::Access,
        message::Message,
        publish::Batch,
        queue::Queue,
        time::Time,
        turn::Turn,
        value::{Table, Value},
        vhost::{QueueWatcher, Vhost},
    },
};

type Text<'a> = Option<Cow<'a, str>>;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AttributeInput<'a> {
    #[serde(borrow)]
    data_type: Text<'a>,
    #[serde(borrow)]
    string_value: Text<'a>,
    #[serde(borrow)]
    binary_value: Text<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    message: Text<'a>,
    #[serde(borrow)]
    subject: Text<'a>,
    #[serde(borrow)]
    message_structure: Text<'a>,
    #[serde(borrow)]
    message_attributes: Option<BTreeMap<Cow<'a, str>, AttributeInput<'a>>>,
    #[serde(borrow)]
    message_deduplication_id: Text<'a>,
    #[serde(borrow)]
    message_group_id: Text<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Publish<'a> {
    #[serde(borrow)]
    topic_arn: Text<'a>,
    #[serde(borrow)]
    target_arn: Text<'a>,
    #[serde(borrow)]
    phone_number: Text<'a>,
    #[serde(borrow, flatten)]
    entry: Entry<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PublishBatch<'a> {
    #[serde(borrow)]
    topic_arn: Text<'a>,
    #[serde(borrow)]
    publish_batch_request_entries: Option<Vec<Entry<'a>>>,
}

/// A message that was looked at and may be published.
struct Checked<'a> {
    text: Cow<'a, str>,
    /// Texts for single protocols.
    texts: Table,
    subject: Option<&'a str>,
    attributes: Vec<Attribute<'a>>,
    group: Option<&'a str>,
    dedup: Option<String>,
    /// Octets that count.
    size: usize,
}

/// Characters of a subject.
const SUBJECT_LEN_MAX: usize = 100;
/// Entries of a batch.
const BATCH_ENTRIES_MAX: usize = 10;
/// Milliseconds for which a FIFO topic knows a message by its name.
pub(super) const DEDUP_MS: u64 = 5 * 60 * 1_000;
/// Octets of an attribute's name.
const NAME_BYTES_MAX: usize = 256;

pub(super) fn publish(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: Publish<'_> = input.parse()?;
    if request.entry.message.as_deref().is_none_or(str::is_empty) {
        return Err(invalid("Empty message"));
    }
    if let Some(number) = request.phone_number.as_deref() {
        if !sms::is_number(number) {
            return Err(invalid(format_args!("PhoneNumber Reason: {number} is not valid to publish to")));
        }
        let checked = check(&request.entry, None, "messageAttributes")?;
        let vhost = call.vhost(turn)?;
        return direct(call, turn, &vhost, ("sms", number), &checked);
    }
    let (arn, parameter) = match (request.topic_arn.as_deref(), request.target_arn.as_deref()) {
        (Some(arn), _) => (arn, "TopicArn"),
        (None, Some(arn)) => (arn, "TargetArn"),
        (None, None) => return Err(invalid("TopicArn or TargetArn Reason: no value for required parameter")),
    };
    if parameter == "TargetArn" && arn::parse(Some(arn), parameter)?.name.starts_with("endpoint/") {
        let vhost = call.vhost(turn)?;
        platform::check_target(call, turn, arn)?;
        let checked = check(&request.entry, None, "messageAttributes")?;
        return direct(call, turn, &vhost, ("application", arn), &checked);
    }
    let topic = Topic::find(call, turn, (Some(arn), parameter), Access::Write)?;
    let checked = check(&request.entry, Some(&topic), "messageAttributes")?;
    if checked.size > topic.message_bytes_max() {
        return Err(invalid("Message too long"));
    }
    let published = place(call, turn, &topic, std::slice::from_ref(&checked))?;
    let (message_id, sequence) = published.into_iter().next().unwrap_or_default();
    let mut answer = json!({ "MessageId": message_id });
    if let Some(sequence) = sequence {
        answer["SequenceNumber"] = sequence.into();
    }
    call.reply(&answer)
}

pub(super) fn publish_batch(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: PublishBatch<'_> = input.parse()?;
    let entries = request.publish_batch_request_entries.unwrap_or_default();
    let topic = Topic::find(call, turn, (request.topic_arn.as_deref(), "TopicArn"), Access::Write)?;
    if entries.is_empty() {
        return Err(Error::sns("EmptyBatchRequestException", "The batch request doesn't contain any entries."));
    }
    if entries.len() > BATCH_ENTRIES_MAX {
        let message = "The batch request contains more entries than permissible.";
        return Err(Error::sns("TooManyEntriesInBatchRequestException", message));
    }
    let mut ids = BTreeSet::new();
    for entry in &entries {
        let id = entry.id.as_deref().unwrap_or_default();
        check_id(id)?;
        if !ids.insert(id) {
            let message = "Two or more batch entries in the request have the same Id.";
            return Err(Error::sns("BatchEntryIdsNotDistinctException", message));
        }
    }
    let mut checked = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        if entry.message.as_deref().is_none_or(str::is_empty) {
            return Err(invalid("Empty message"));
        }
        let path = format!("publishBatchRequestEntries.{}.member.messageAttributes", index + 1);
        checked.push(check(entry, Some(&topic), &path)?);
    }
    if checked.iter().map(|of| of.size).sum::<usize>() > topic.message_bytes_max() {
        let message = "The length of all the messages put together is more than the limit.";
        return Err(Error::sns("BatchRequestTooLongException", message));
    }
    let published = place(call, turn, &topic, &checked)?;
    let successful: Vec<_> = entries
        .iter()
        .zip(published)
        .map(|(entry, (message_id, sequence))| {
            let mut shown = json!({"Id": entry.id, "MessageId": message_id});
            if let Some(sequence) = sequence {
                shown["SequenceNumber"] = sequence.into();
            }
            shown
        })
        .collect();
    call.reply(&json!({"Successful": successful, "Failed": []}))
}

fn check_id(id: &str) -> Result<(), Error> {
    let refused = |reason: &str| {
        let message = format!("The Id of a batch entry in the batch request {reason}: {id}");
        Err(Error::sns("InvalidBatchEntryIdException", message))
    };
    if id.len() > 80 {
        return refused("is too long");
    }
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if id.is_empty() || !id.bytes().all(is_letter) {
        return refused("contains an impermissible character");
    }
    Ok(())
}

fn check<'a>(entry: &'a Entry<'_>, topic: Option<&Topic>, path: &str) -> Result<Checked<'a>, Error> {
    let subject = entry.subject.as_deref();
    if let Some(subject) = subject {
        let is_long = subject.chars().count() > SUBJECT_LEN_MAX;
        if subject.is_empty() || is_long || subject.chars().any(char::is_control) {
            return Err(invalid("Subject"));
        }
    }
    let message = entry.message.as_deref().unwrap_or_default();
    let mut texts = Table::new();
    let text = match entry.message_structure.as_deref() {
        None | Some("") => Cow::Borrowed(message),
        Some("json") => Cow::Owned(structured(message, &mut texts)?),
        Some(_) => return Err(invalid("MessageStructure")),
    };
    let attributes = check_attributes(entry, path)?;
    let (mut group, mut dedup) = (None, None);
    if let Some(topic) = topic {
        group = entry.message_group_id.as_deref().filter(|group| !group.is_empty());
        let given = entry.message_deduplication_id.as_deref().filter(|id| !id.is_empty());
        if topic.is_fifo() {
            if group.is_none() {
                return Err(invalid("The MessageGroupId parameter is required for FIFO topics"));
            }
            let by_content = topic.attribute("ContentBasedDeduplication") == Some("true");
            dedup = match given {
                Some(given) => Some(given.to_owned()),
                None if by_content => Some(hex(&Sha256::digest(message))),
                None => {
                    let reason = "The topic should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly";
                    return Err(invalid(reason));
                }
            };
        } else if given.is_some() {
            let reason = "The request includes MessageDeduplicationId parameter that is not valid for this topic type";
            return Err(invalid(format_args!("MessageDeduplicationId Reason: {reason}")));
        }
        for (name, id) in [("MessageGroupId", group), ("MessageDeduplicationId", given)] {
            let is_valid = |id: &str| id.len() <= 128 && id.bytes().all(|byte| byte.is_ascii_graphic());
            if !id.is_none_or(is_valid) {
                return Err(invalid(format_args!(
                    "{name} Reason: {name} can only include alphanumeric and punctuation characters. 1 to 128 in length"
                )));
            }
        }
    }
    let size = message.len() + attributes.iter().map(Attribute::size).sum::<usize>();
    Ok(Checked { text, texts, subject, attributes, group, dedup, size })
}

/// The text for everybody of a message that has texts for single protocols, which go to `texts`.
fn structured(message: &str, texts: &mut Table) -> Result<String, Error> {
    let failed = || invalid("Message Structure - JSON message body failed to parse");
    let Json::Object(entries) = serde_json::from_str(message).map_err(|_| failed())? else { return Err(failed()) };
    let mut default = None;
    for (protocol, text) in entries {
        match text {
            Json::String(text) if protocol == "default" => default = Some(text),
            Json::String(text) => texts.set(protocol, Value::text(text)),
            // What is no text is for nobody.
            _ => {}
        }
    }
    default.ok_or_else(|| invalid("Message Structure - No default entry in JSON message body"))
}

fn check_attributes<'a>(entry: &'a Entry<'_>, path: &str) -> Result<Vec<Attribute<'a>>, Error> {
    let refused = |message: String| Err(Error::sns("InvalidParameterValueException", message));
    let mut attributes = Vec::new();
    for (name, value) in entry.message_attributes.iter().flatten() {
        let name: &str = name;
        let data_type = match value.data_type.as_deref() {
            Some(data_type) if !data_type.is_empty() => data_type,
            _ => return Err(arn::null_member(&format!("{path}.{name}.member.dataType"))),
        };
        if name.len() > NAME_BYTES_MAX || name.is_empty() {
            return refused("Length of message attribute name must be less than 256 bytes.".to_owned());
        }
        let is_letter = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if let Some(illegal) = name.chars().find(|c| !is_letter(c)) {
            let code = format!("{:X}", illegal as u32);
            return refused(format!(
                "Invalid non-alphanumeric character '#x{code}' was found in the message attribute name. Can only include alphanumeric characters, hyphens, underscores, or dots."
            ));
        }
        if name.starts_with('.') {
            return refused("Invalid message attribute name starting with character '.' was found.".to_owned());
        }
        if name.ends_with('.') {
            return refused("Invalid message attribute name ending with character '.' was found.".to_owned());
        }
        if name.contains("..") {
            return refused("Message attribute name can not have successive '.' character. ".trim_end().to_owned());
        }
        let (kind, custom) = data_type.split_once('.').unwrap_or((data_type, "custom"));
        if !matches!(kind, "String" | "Number" | "Binary") || custom.is_empty() {
            return refused(format!(
                "The message attribute '{name}' has an invalid message attribute type, the set of supported type prefixes is Binary, Number, and String."
            ));
        }
        let (text, binary) = (value.string_value.as_deref(), value.binary_value.as_deref());
        let data = match kind {
            "Binary" if text.is_some_and(|text| !text.is_empty()) => {
                return refused(format!("The message attribute '{name}' with type 'Binary' must use field 'Binary'."));
            }
            "Binary" => binary.and_then(|binary| STANDARD.decode(binary).ok()).map(|bytes| Data::Binary(bytes.into())),
            _ if binary.is_some_and(|binary| !binary.is_empty()) => {
                return refused(format!("The message attribute '{name}' with type '{kind}' must use field 'String'."));
            }
            _ => text.map(|text| Data::Text(text.into())),
        };
        let Some(data) = data.filter(|data| !data.bytes().is_empty()) else {
            return refused(format!(
                "The message attribute '{name}' must contain non-empty message attribute value for message attribute type '{data_type}'."
            ));
        };
        if data_type == "Number"
            && let Data::Text(text) = &data
            && !is_number(text)
        {
            return refused(format!("Could not cast message attribute '{name}' value to number."));
        }
        attributes.push(Attribute { name: name.into(), data_type: data_type.into(), data });
    }
    Ok(attributes)
}

/// Whether a text is a number in digits.
fn is_number(text: &str) -> bool {
    text.parse::<f64>().is_ok_and(f64::is_finite) && text.bytes().all(|byte| b"+-.eE0123456789".contains(&byte))
}

/// Publishes to a topic. Returns what each message is called, and its number in a FIFO topic.
fn place(
    call: &Call,
    turn: &mut Turn<'_>,
    topic: &Topic,
    messages: &[Checked<'_>],
) -> Result<Vec<(String, Option<String>)>, Error> {
    call.aws.sns.reached_by(&call.base_url);
    call.aws.sns.bindings.look_after(topic, turn)?;
    let by_group = topic.attribute("FifoThroughputScope") == Some("MessageGroup");
    let sender = Some(&*call.caller.user).filter(|user| !user.is_empty());
    let mut batch = Batch::default();
    let mut published = Vec::with_capacity(messages.len());
    for of in messages {
        let message_id = new_uuid();
        let sequence = topic.is_fifo().then(|| next_sequence(turn.now));
        let dedup_name = of.dedup.as_deref().map(|dedup| match of.group.filter(|_| by_group) {
            Some(group) => format!("{group} {dedup}"),
            None => dedup.to_owned(),
        });
        let dedup_key = dedup_name.as_ref().map(|name| (topic.exchange.identity().0, name.clone()));
        let mut more = Vec::new();
        if let Some(subject) = of.subject {
            more.push((envelope::SUBJECT_HEADER, Value::text(subject)));
        }
        if let Some(sequence) = &sequence {
            more.push((envelope::SEQUENCE_HEADER, Value::text(sequence.as_str())));
        }
        if let Some(name) = dedup_name {
            more.push((topic::DEDUP_HEADER, Value::text(name)));
        }
        if !of.texts.is_empty() {
            more.push((envelope::TEXTS_HEADER, Value::Table(of.texts.clone())));
        }
        let draft = Draft {
            exchange: topic.name(),
            body: of.text.as_bytes(),
            message_id: &message_id,
            sent: turn.now,
            sender,
            attributes: &of.attributes,
            group: of.group,
            dedup: of.dedup.as_deref(),
            trace: call.trace.as_deref(),
            more: &more,
            ..Draft::default()
        };
        let message = draft.build();
        let route = topic.vhost.route(&topic.exchange, &message, &[], None, turn);
        let is_repeated = route.is_kept && route.queues.is_empty();
        batch.push(message, &Arc::new(route));
        published.push(match dedup_key {
            Some(key) => call.aws.sns.named.told(key, is_repeated, (message_id, sequence), turn.now),
            None => (message_id, sequence),
        });
    }
    // What a queue is too full for is counted there: the others have it.
    batch.place(turn, &mut Vec::new());
    Ok(published)
}

/// Leaves a message for one endpoint in the outbox.
fn direct(
    call: &Call,
    turn: &mut Turn<'_>,
    vhost: &Arc<Vhost>,
    (protocol, endpoint): (&str, &str),
    of: &Checked<'_>,
) -> Result<Step, Error> {
    let (message_id, queue) = (new_uuid(), outbox::direct_queue(vhost, turn)?);
    let mut more =
        vec![(outbox::PROTOCOL_HEADER, Value::text(protocol)), (outbox::ENDPOINT_HEADER, Value::text(endpoint))];
    if let Some(subject) = of.subject {
        more.push((envelope::SUBJECT_HEADER, Value::text(subject)));
    }
    if !of.texts.is_empty() {
        more.push((envelope::TEXTS_HEADER, Value::Table(of.texts.clone())));
    }
    let draft = Draft {
        key: &queue.name,
        body: of.text.as_bytes(),
        message_id: &message_id,
        sent: turn.now,
        sender: Some(&*call.caller.user).filter(|user| !user.is_empty()),
        attributes: &of.attributes,
        more: &more,
        ..Draft::default()
    };
    to_queue(draft.build(), vhost, turn);
    call.reply(&json!({ "MessageId": message_id }))
}

/// Publishes to the queue that the message's key names.
pub(super) fn to_queue(message: Message, vhost: &Arc<Vhost>, turn: &mut Turn<'_>) {
    let exchange = vhost.default_exchange().clone();
    let route = Arc::new(vhost.route(&exchange, &message, &[], None, turn));
    let mut batch = Batch::default();
    batch.push(message, &route);
    batch.place(turn, &mut Vec::new());
}

/// The next number of a message in a FIFO topic: larger than all before, also after a restart, since the clock runs on.
pub(super) fn next_sequence(now: Time) -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    const PER_MS: u64 = 1_000_000;
    let at_least = now.0.saturating_mul(PER_MS);
    let next = |last: u64| Some(at_least.max(last + 1));
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or_default();
    format!("{}", 10_000_000_000_000_000_000_u64.saturating_add(at_least.max(last + 1)))
}

/// What publishers of named messages were told, so that whoever publishes one again is told the same. Forgotten at
/// a restart: then the message is still not delivered again, and is called something else.
#[derive(Default)]
pub(super) struct Named(Mutex<HashMap<(u64, String), (Told, Time)>>);

/// What a message is called, and its number.
type Told = (String, Option<String>);

/// Names that are remembered. Full: all that are too old go, and if none is all of them.
const NAMED_MAX: usize = 200_000;

impl Named {
    /// Forgets all.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }

    fn told(&self, key: (u64, String), is_repeated: bool, told: Told, now: Time) -> Told {
        let mut all = self.0.lock();
        if is_repeated && let Some((first, _)) = all.get(&key) {
            return first.clone();
        }
        if all.len() >= NAMED_MAX {
            all.retain(|_, (_, at)| at.after_ms(DEDUP_MS) > now);
            if all.len() >= NAMED_MAX {
                all.clear();
            }
        }
        all.insert(key, (told.clone(), now));
        told
    }
}

/// Looks after the bindings of subscriptions whose queue has gone or come back, when something has changed.
#[derive(Default)]
pub(super) struct Bindings {
    /// By vhost: how often a queue was declared.
    declared: Mutex<HashMap<Arc<str>, Arc<Declared>>>,
    seen: Mutex<HashMap<Place, Seen>>,
}

/// A vhost and a topic.
type Place = (Arc<str>, Arc<str>);

/// How a topic was when its bindings were looked at.
struct Seen {
    exchange: Weak<crate::broker::exchange::Exchange>,
    generation: u64,
    /// Set while a subscription does not lead where it says: how often a queue had been declared.
    missing_at: Option<u64>,
}

/// Counts declarations of queues.
#[derive(Default)]
struct Declared(AtomicU64);

impl QueueWatcher for Declared {
    fn declared(&self, _: &Arc<Queue>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Bindings {
    /// Forgets all vhosts and topics.
    pub(super) fn clear(&self) {
        self.declared.lock().clear();
        self.seen.lock().clear();
    }

    /// A new subscription was bound to a topic that had that generation before: what is known of its others holds on.
    pub(super) fn bound(&self, topic: &Topic, before: u64) {
        let key = (topic.vhost.name.clone(), topic.exchange.name.clone());
        let mut all = self.seen.lock();
        match topic.exchange.generation() {
            // Nobody else has changed anything in between.
            after if after == before + 1 => {
                if let Some(seen) = all.get_mut(&key).filter(|seen| seen.generation == before) {
                    seen.generation = after;
                }
            }
            // It leads nowhere yet, or there was more.
            _ => _ = all.remove(&key),
        }
    }

    fn look_after(&self, topic: &Topic, turn: &mut Turn<'_>) -> Result<(), Error> {
        let vhost = topic.vhost.name.clone();
        let declared = self
            .declared
            .lock()
            .entry(vhost.clone())
            .or_insert_with(|| {
                let counter = Arc::new(Declared::default());
                let watcher: Arc<dyn QueueWatcher> = counter.clone();
                topic.vhost.watch_queues(Arc::downgrade(&watcher));
                counter
            })
            .0
            .load(Ordering::Relaxed);
        let key = (vhost, topic.exchange.name.clone());
        let generation = topic.exchange.generation();
        let is_current = self.seen.lock().get(&key).is_some_and(|seen| {
            seen.generation == generation
                && seen.missing_at.is_none_or(|at| at == declared)
                && std::ptr::eq(seen.exchange.as_ptr(), Arc::as_ptr(&topic.exchange))
        });
        if is_current {
            return Ok(());
        }
        let is_missing = subscription::bind_missing(topic, turn)?;
        let seen = Seen {
            exchange: Arc::downgrade(&topic.exchange),
            generation: topic.exchange.generation(),
            missing_at: is_missing.then_some(declared),
        };
        let mut all = self.seen.lock();
        all.retain(|_, seen| seen.exchange.strong_count() > 0);
        all.insert(key, seen);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_grow_whatever_the_clock_does() {
        let numbers = [Time(5), Time(5), Time(1), Time(7)].map(next_sequence);
        assert!(numbers.is_sorted() && numbers[0] < numbers[1] && numbers[1] < numbers[2], "{numbers:?}");
        assert_eq!(numbers[0].len(), 20);
    }

    #[test]
    fn a_structured_message_has_a_text_for_everybody() {
        let mut texts = Table::new();
        assert_eq!(structured(r#"{"default":"d","sqs":"s","n":1}"#, &mut texts).unwrap(), "d");
        assert_eq!(texts, Table::from_iter([("sqs", Value::text("s"))]));
        let refused = |text| structured(text, &mut Table::new()).unwrap_err().message;
        assert_eq!(refused("{"), "Invalid parameter: Message Structure - JSON message body failed to parse");
        assert_eq!(refused("{}"), "Invalid parameter: Message Structure - No default entry in JSON message body");
    }
}
