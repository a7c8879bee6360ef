//! The form in which subscribers take messages: Amazon's JSON envelope around the text, signed once per message.
//!
//! ```text
//! {
//!   "Type" : "Notification",
//!   "MessageId" : "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
//!   "TopicArn" : "arn:aws:sns:us-east-1:000000000000:topic",
//!   "Subject" : "Greetings",
//!   "Message" : "Hello",
//!   "Timestamp" : "2012-05-02T00:54:06.655Z",
//!   "SignatureVersion" : "1",
//!   "Signature" : "...",
//!   "SigningCertURL" : "...",
//!   "UnsubscribeURL" : "...",
//!   "MessageAttributes" : { ... }
//! }
//! ```
//!
//! The label of a binding says what its subscriber takes: `PROTOCOL:raw:ID` or `PROTOCOL:json:ID`, with `:ungrouped`
//! behind it where it is told nothing of groups.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::{
    arn::{self, is_uuid, new_uuid, uuid_of},
    signing::{Signer, Version},
    topic,
};
use crate::{
    aws::message::{Attribute, Contents, Data, Draft, TRACE_HEADER, body_text},
    broker::{
        exchange::{
            envelopes::{Passing, Renderer, Wrapped},
            filter::{self, Subject},
        },
        message::Message,
        record::QueueId,
        time::Time,
        value::ValueRef,
        vhost::Vhost,
    },
};

/// The header that says what else than a notification a message is.
pub const KIND_HEADER: &str = "x-sns-type";
/// The header with the ARN of the topic, in what is no notification.
pub const TOPIC_HEADER: &str = "x-sns-topic-arn";
/// The header with the subject.
pub const SUBJECT_HEADER: &str = "x-sns-subject";
/// The header with the number of a message in its FIFO topic.
pub const SEQUENCE_HEADER: &str = "x-sns-sequence-number";
/// The header with the texts for single protocols: a table.
pub const TEXTS_HEADER: &str = "x-sns-messages";

/// What is kept with a message so that it can be rendered.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Seal {
    id: String,
    arn: String,
    at: u64,
    base: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    sequence: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    version: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    certificate: String,
    /// By protocol, where it has a text of its own; the others' under no name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    signatures: BTreeMap<String, String>,
    /// It comes from an archive, and is called this in a FIFO queue. Never kept.
    #[serde(skip)]
    replayed_as: Option<String>,
}

/// Who gets the text of a message has no use for a signature of what is around it.
const UNSIGNED: [&str; 3] = ["application", "email", "sms"];

/// Renders messages for subscribers.
pub struct Envelope {
    signer: Arc<dyn Signer>,
    /// How clients reach this broker: a setting, or how the last of them did.
    base_url: RwLock<Arc<str>>,
    /// Accounts of vhosts.
    account: Box<dyn Fn(&str) -> String + Send + Sync>,
    region: String,
}

impl Envelope {
    /// Addresses in messages begin with `base_url` until a client shows another.
    pub fn new(
        signer: Arc<dyn Signer>,
        base_url: &str,
        region: &str,
        account: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Self {
        let base_url = RwLock::new(base_url.into());
        Self { signer, base_url, account: Box::new(account), region: region.to_owned() }
    }

    /// A client reaches this broker like this.
    pub fn reached_by(&self, base_url: &Arc<str>) {
        if **self.base_url.read() != **base_url {
            *self.base_url.write() = base_url.clone();
        }
    }
}

/// A label taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label<'a> {
    /// The protocol.
    pub protocol: &'a str,
    /// As published.
    pub is_raw: bool,
    /// The subscription's identity.
    pub id: &'a str,
    /// It is told nothing of groups.
    pub is_ungrouped: bool,
}

impl<'a> Label<'a> {
    /// Reads a label.
    pub fn parse(label: &'a [u8]) -> Self {
        let mut parts = std::str::from_utf8(label).unwrap_or_default().split(':');
        let mut next = || parts.next().unwrap_or_default();
        Self { protocol: next(), is_raw: next() == "raw", id: next(), is_ungrouped: next() == "ungrouped" }
    }
}

/// The text that a protocol gets, and whether it is one for that protocol only.
fn text_for<'m>(contents: &Contents<'m>, protocol: &str) -> Option<&'m str> {
    contents.headers.get(TEXTS_HEADER)?.as_headers()?.get(protocol)?.as_text()
}

impl Renderer for Envelope {
    fn seal(&self, passing: Passing<'_>) -> Vec<u8> {
        let Passing { vhost, exchange, message, labels, now } = passing;
        let contents = Contents::read(message);
        let account = (self.account)(&vhost.name);
        let notes = exchange.notes();
        let region = topic::region(exchange).unwrap_or_else(|| self.region.clone());
        let base: Arc<str> = self.base_url.read().clone();
        let at = contents.sent_ms.filter(|ms| *ms > 0).unwrap_or(now.0);
        let sequence = match contents.headers.get(SEQUENCE_HEADER).and_then(ValueRef::as_text) {
            Some(sequence) => sequence.to_owned(),
            None if topic::is_fifo(&exchange.name) => super::publish::next_sequence(now),
            None => String::new(),
        };
        let id = contents.message_id.filter(|id| is_uuid(id)).map_or_else(new_uuid, ToOwned::to_owned);
        let mut seal = Seal {
            id,
            arn: arn::of_topic(&region, &account, &exchange.name),
            at,
            base: base.to_string(),
            sequence,
            ..Seal::default()
        };
        // FIFO topics sign nothing for queues, and have no other subscribers.
        if !topic::is_fifo(&exchange.name) {
            let version = version_of(topic::attribute(&notes, "SignatureVersion"));
            let whole = body_text(message);
            let is_signed = |label: &Label<'_>| !label.is_raw && !UNSIGNED.contains(&label.protocol);
            for label in labels.iter().map(|label| Label::parse(label)).filter(is_signed) {
                let own = text_for(&contents, label.protocol);
                let name = if own.is_some() { label.protocol } else { "" };
                if !seal.signatures.contains_key(name) {
                    let text = to_sign(&[
                        ("Message", Some(own.unwrap_or(&whole.text))),
                        ("MessageId", Some(&seal.id)),
                        ("Subject", subject(&contents)),
                        ("Timestamp", Some(&timestamp(seal.at))),
                        ("TopicArn", Some(&seal.arn)),
                        ("Type", Some("Notification")),
                    ]);
                    seal.signatures.insert(name.to_owned(), self.signer.sign(version, text.as_bytes()));
                }
            }
            if !seal.signatures.is_empty() {
                version.name().clone_into(&mut seal.version);
                seal.certificate = self.signer.certificate_url(&base);
            }
        }
        // Texts and numbers always serialise.
        serde_json::to_vec(&seal).unwrap_or_default()
    }

    fn subject<'m>(&self, message: &'m Message, body: &'m [u8]) -> Subject<'m> {
        let headers = message.headers();
        let types = headers.get(crate::aws::message::TYPES_HEADER).and_then(ValueRef::as_headers).unwrap_or_default();
        let mut subject = Subject::new(body);
        for (name, value) in headers.iter() {
            let Ok(name) = std::str::from_utf8(name) else { continue };
            if value.kind == b'x' || !crate::aws::message::is_attribute(name) {
                continue;
            }
            let said = types.get(name).and_then(ValueRef::as_text).unwrap_or_default();
            let attribute = match value.as_text() {
                Some(text) if said == "String.Array" => filter::Attribute::List(text),
                Some(text) if said.starts_with("Number") => filter::Attribute::Number(text),
                Some(text) => filter::Attribute::Text(text),
                None => filter::Attribute::Header(value),
            };
            subject.push(name, attribute);
        }
        subject
    }

    fn render(&self, wrapped: Wrapped<'_>) -> Message {
        self.render_replayed(wrapped, None)
    }
}

impl Envelope {
    /// The wrapped form of a message out of an archive. With a name it is said to be replayed, and has that name in
    /// FIFO queues: they may know its own from when it was published.
    pub(super) fn render_replayed(&self, wrapped: Wrapped<'_>, replayed_as: Option<String>) -> Message {
        let Wrapped { message, exchange, seal, label, queue } = wrapped;
        let Ok(seal) = serde_json::from_slice::<Seal>(seal) else { return message.clone() };
        let seal = Seal { replayed_as, ..seal };
        let (contents, label) = (Contents::read(message), Label::parse(label));
        let whole = body_text(message);
        let own = text_for(&contents, label.protocol);
        let text = own.unwrap_or(&whole.text);
        let attributes = contents.attributes();
        // What is delivered from here keeps the identity that its publisher was told.
        let id = if label.protocol == "sqs" { id_in_queue(&seal.id, queue) } else { seal.id.clone() };
        let key = String::from_utf8_lossy(message.key());
        let draft = Draft {
            exchange,
            key: &key,
            message_id: &id,
            sent: Time(seal.at),
            sender: contents.sender,
            group: contents.group.filter(|_| !label.is_ungrouped),
            dedup: seal.replayed_as.as_deref().or(contents.dedup).filter(|_| !label.is_ungrouped),
            trace: contents.headers.get(TRACE_HEADER).and_then(ValueRef::as_text),
            ..Draft::default()
        };
        let mut rendered = if label.is_raw {
            let raw;
            let body = match own {
                Some(own) => own.as_bytes(),
                None => {
                    raw = message.body_to_vec();
                    &raw
                }
            };
            Draft { body, attributes: &attributes, ..draft }.build()
        } else {
            let body = notification(&seal, &contents, text, &attributes, label);
            Draft { body: body.as_bytes(), ..draft }.build()
        };
        rendered.traits = message.traits;
        rendered
    }
}

/// A message's identity in a queue of SQS differs from that which its publisher was told.
fn id_in_queue(id: &str, queue: QueueId) -> String {
    use sha2::{Digest as _, Sha256};
    let digest = Sha256::new().chain_update(id).chain_update(queue.0.to_be_bytes()).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid_of(bytes)
}

fn subject<'m>(contents: &Contents<'m>) -> Option<&'m str> {
    contents.headers.get(SUBJECT_HEADER)?.as_text()
}

fn notification(
    seal: &Seal,
    contents: &Contents<'_>,
    text: &str,
    attributes: &[Attribute<'_>],
    label: Label<'_>,
) -> String {
    let mut out = Object::new(text.len() + 1024);
    out.text("Type", "Notification");
    out.text("MessageId", &seal.id);
    if !seal.sequence.is_empty() {
        out.text("SequenceNumber", &seal.sequence);
    }
    out.text("TopicArn", &seal.arn);
    if let Some(subject) = subject(contents) {
        out.text("Subject", subject);
    }
    out.text("Message", text);
    out.text("Timestamp", &timestamp(seal.at));
    let own = seal.signatures.get(label.protocol).or_else(|| seal.signatures.get(""));
    if let Some(signature) = own {
        out.text("SignatureVersion", &seal.version);
        out.text("Signature", signature);
        out.text("SigningCertURL", &seal.certificate);
    }
    let unsubscribe = format!("{}/?Action=Unsubscribe&SubscriptionArn={}:{}", seal.base, seal.arn, label.id);
    out.text("UnsubscribeURL", &unsubscribe);
    if !attributes.is_empty() {
        let mut all = String::from("{");
        for (index, attribute) in attributes.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let value = match &attribute.data {
                Data::Text(text) => quoted(text),
                Data::Binary(bytes) => quoted(&STANDARD.encode(bytes)),
            };
            let (name, data_type) = (quoted(&attribute.name), quoted(&attribute.data_type));
            // Writing to a text cannot fail.
            let _ = write!(all, "{comma}\n    {name} : {{\"Type\":{data_type},\"Value\":{value}}}");
        }
        all.push_str("\n  }");
        out.raw("MessageAttributes", &all);
    }
    if seal.replayed_as.is_some() {
        out.raw("Replayed", "true");
    }
    out.end()
}

/// Attributes as they are shown in JSON.
pub(super) fn shown_attributes(attributes: &[Attribute<'_>]) -> serde_json::Map<String, serde_json::Value> {
    let shown = |attribute: &Attribute<'_>| {
        let value = match &attribute.data {
            Data::Text(text) => text.to_string(),
            Data::Binary(bytes) => STANDARD.encode(bytes),
        };
        (attribute.name.to_string(), serde_json::json!({"Type": attribute.data_type, "Value": value}))
    };
    attributes.iter().map(shown).collect()
}

/// What an endpoint is told about its subscription.
pub(super) struct Notice<'a> {
    pub(super) kind: &'a str,
    pub(super) message_id: &'a str,
    pub(super) topic_arn: &'a str,
    pub(super) text: &'a str,
    pub(super) token: &'a str,
    pub(super) subscribe_url: &'a str,
    pub(super) at: Time,
}

/// The envelope of a notice.
pub(super) fn notice(notice: &Notice<'_>, signer: &dyn Signer, version: Version, base_url: &str) -> String {
    let at = timestamp(notice.at.0);
    let signed = to_sign(&[
        ("Message", Some(notice.text)),
        ("MessageId", Some(notice.message_id)),
        ("SubscribeURL", Some(notice.subscribe_url)),
        ("Timestamp", Some(&at)),
        ("Token", Some(notice.token)),
        ("TopicArn", Some(notice.topic_arn)),
        ("Type", Some(notice.kind)),
    ]);
    let mut out = Object::new(1024);
    out.text("Type", notice.kind);
    out.text("MessageId", notice.message_id);
    out.text("Token", notice.token);
    out.text("TopicArn", notice.topic_arn);
    out.text("Message", notice.text);
    out.text("SubscribeURL", notice.subscribe_url);
    out.text("Timestamp", &at);
    out.text("SignatureVersion", version.name());
    out.text("Signature", &signer.sign(version, signed.as_bytes()));
    out.text("SigningCertURL", &signer.certificate_url(base_url));
    out.end()
}

/// How messages of a topic are signed.
pub(super) fn signature_version(vhost: &Vhost, topic: &str) -> Version {
    let notes = vhost.exchange(topic).map(|exchange| exchange.notes());
    version_of(notes.as_deref().and_then(|notes| topic::attribute(notes, "SignatureVersion")))
}

fn version_of(text: Option<&str>) -> Version {
    if text == Some("2") { Version::Two } else { Version::One }
}

/// The text that is signed: names and values on lines of their own, in the order of the names.
fn to_sign(fields: &[(&str, Option<&str>)]) -> String {
    let mut out = String::new();
    for (name, value) in fields {
        if let Some(value) = value {
            out.extend([name, "\n", value, "\n"]);
        }
    }
    out
}

/// A time in messages.
pub(super) fn timestamp(ms: u64) -> String {
    let (days, rest) = (ms / 86_400_000, ms % 86_400_000);
    // Days since 1970 to a date of the Gregorian calendar, in eras of 400 years that begin in March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hours, minutes, seconds) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1_000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{:03}Z", rest % 1_000)
}

/// A JSON object in the layout of the service.
struct Object(String);

impl Object {
    fn new(capacity: usize) -> Self {
        let mut out = String::with_capacity(capacity);
        out.push('{');
        Self(out)
    }

    fn text(&mut self, name: &str, value: &str) {
        self.raw(name, &quoted(value));
    }

    fn raw(&mut self, name: &str, value: &str) {
        let comma = if self.0.len() > 1 { "," } else { "" };
        self.0.extend([comma, "\n  \"", name, "\" : ", value]);
    }

    fn end(mut self) -> String {
        self.0.push_str("\n}");
        self.0
    }
}

fn quoted(text: &str) -> String {
    // Texts always serialise.
    serde_json::to_string(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_to_the_millisecond() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(timestamp(1_335_920_046_655), "2012-05-02T00:54:06.655Z");
        assert_eq!(timestamp(951_782_400_001), "2000-02-29T00:00:00.001Z");
    }

    #[test]
    fn what_is_signed_has_no_field_that_is_not_there() {
        assert_eq!(to_sign(&[("Message", Some("m")), ("Subject", None), ("Type", Some("t"))]), "Message\nm\nType\nt\n");
    }

    #[test]
    fn an_object_is_laid_out_as_the_service_does() {
        let mut object = Object::new(0);
        object.text("Type", "Notification");
        object.text("Message", "a \"b\"");
        assert_eq!(object.end(), "{\n  \"Type\" : \"Notification\",\n  \"Message\" : \"a \\\"b\\\"\"\n}");
    }

    #[test]
    fn a_label_says_protocol_form_and_identity() {
        assert_eq!(
            Label::parse(b"sqs:raw:1-2"),
            Label { protocol: "sqs", is_raw: true, id: "1-2", is_ungrouped: false }
        );
        assert!(Label::parse(b"sqs:json:1:ungrouped").is_ungrouped);
        assert_eq!(Label::parse(b"x"), Label { protocol: "x", is_raw: false, id: "", is_ungrouped: false });
    }
}
