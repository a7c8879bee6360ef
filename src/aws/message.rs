//! Messages of SQS and SNS as messages of the broker, and back.
//!
//! | of AWS | is |
//! |---|---|
//! | body | body |
//! | MessageId | message-id; of a message without one a UUID made of its queue and place |
//! | SentTimestamp | header timestamp_in_ms, and in seconds timestamp |
//! | SenderId | user-id |
//! | MessageGroupId | header JMSXGroupID: groups of JMS clients are the same |
//! | MessageDeduplicationId | header x-deduplication-header |
//! | AWSTraceHeader | header x-aws-trace-header |
//! | attribute of type String | header, text |
//! | attribute of type Number | header, integer where that has the same digits |
//! | attribute of type Binary | header, bytes |
//!
//! What a header's kind does not say of an attribute's type stands in the header x-attribute-types. The
//! other way round every header whose name an attribute may have is one, but those that begin with `x-` and
//! what is in the table above; lists and tables are none.
//!
//! A body that is no text of SQS is given out in base64, with the attribute `tern.encoding`.

use std::{
    borrow::Cow,
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use md5::{Digest as _, Md5};

use crate::{
    broker::{
        message::{Layout, Message, Traits},
        queue::arguments::DEDUP_HEADER_DEFAULT,
        time::Time,
        value::{Headers, HeadersBuilder, Table, Value, ValueRef},
    },
    protocol::{
        amqp::properties::Fields,
        jms::{EXPIRES, GROUP_ID, GROUP_SEQ, TIMESTAMP_IN_MS},
    },
};

/// The header with the types of attributes that their headers' kinds do not say.
pub const TYPES_HEADER: &str = "x-attribute-types";
/// The header with the trace header of AWS.
pub const TRACE_HEADER: &str = "x-aws-trace-header";
/// The header that names a message for deduplication.
pub const DEDUP_HEADER: &str = DEDUP_HEADER_DEFAULT;
/// The attribute that says how a body is encoded that is no text.
pub const ENCODING_ATTRIBUTE: &str = "tern.encoding";

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data<'a> {
    /// Text, and numbers as they were written.
    Text(Cow<'a, str>),
    /// Octets.
    Binary(Cow<'a, [u8]>),
}

impl Data<'_> {
    /// Octets that it has.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }
}

/// An attribute of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// `String`, `Number` or `Binary`, and what may follow behind a dot.
    pub data_type: Cow<'a, str>,
    /// Its value.
    pub data: Data<'a>,
}

impl<'a> Attribute<'a> {
    /// One of type String.
    pub fn text(name: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, str>>) -> Self {
        Self { name: name.into(), data_type: "String".into(), data: Data::Text(value.into()) }
    }

    /// Octets that count as part of the message.
    pub fn size(&self) -> usize {
        self.name.len() + self.data_type.len() + self.data.bytes().len()
    }
}

/// A message to be made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Draft<'a> {
    /// The exchange that it is published to.
    pub exchange: &'a str,
    /// Its routing key.
    pub key: &'a str,
    /// Its body.
    pub body: &'a [u8],
    /// A UUID.
    pub message_id: &'a str,
    /// When it was sent.
    pub sent: Time,
    /// Who sent it, if anybody is to know.
    pub sender: Option<&'a str>,
    /// Its attributes.
    pub attributes: &'a [Attribute<'a>],
    /// Its group.
    pub group: Option<&'a str>,
    /// Its name for deduplication.
    pub dedup: Option<&'a str>,
    /// The trace header.
    pub trace: Option<&'a str>,
    /// Further headers.
    pub more: &'a [(&'a str, Value)],
}

impl Draft<'_> {
    /// The message, in one block of memory.
    pub fn build(&self) -> Message {
        let headers = self.headers();
        let route = 2 + self.exchange.len() + self.key.len();
        // The message keeps what is not used.
        let around = self.message_id.len() + self.sender.map_or(0, str::len) + 32;
        let mut block = Vec::with_capacity(route + headers.len() + around + self.body.len());
        for name in [self.exchange.as_bytes(), self.key.as_bytes()] {
            let name = &name[..name.len().min(u8::MAX as usize)];
            block.push(name.len() as u8);
            block.extend_from_slice(name);
        }
        let properties_at = block.len();
        let properties = Fields {
            delivery_mode: Some(2),
            message_id: Some(self.message_id.as_bytes()),
            timestamp: Some(self.sent.secs()),
            user_id: self.sender.map(str::as_bytes),
            ..Fields::default()
        };
        let headers = properties.encode(&headers, &mut block);
        let properties = (properties_at, block.len() - properties_at);
        let headers = if headers.1 == 0 { (0, 0) } else { (properties_at + headers.0, headers.1) };
        let body_at = block.len();
        block.extend_from_slice(self.body);
        let traits = Traits { persistent: true, has_group: self.group.is_some(), ..Traits::default() };
        let layout = Layout { route_at: 0, properties, headers };
        Message::inline(Arc::new(block), layout, traits, (body_at, self.body.len()))
    }

    fn headers(&self) -> Vec<u8> {
        let mut headers = HeadersBuilder::with_capacity(HEADERS_BYTES);
        let mut types = Table::new();
        for attribute in self.attributes {
            let value = header(attribute, &mut types);
            headers.push(&attribute.name, &value);
        }
        if !types.is_empty() {
            headers.push(TYPES_HEADER, &Value::Table(types));
        }
        for (name, text) in [(GROUP_ID, self.group), (DEDUP_HEADER, self.dedup), (TRACE_HEADER, self.trace)] {
            if let Some(text) = text {
                headers.push_ref(name.as_bytes(), ValueRef { kind: b'S', payload: text.as_bytes() });
            }
        }
        self.more.iter().for_each(|(name, value)| headers.push(name, value));
        headers.push(TIMESTAMP_IN_MS, &Value::I64(i64::try_from(self.sent.0).unwrap_or(i64::MAX)));
        headers.finish()
    }
}

/// Octets of headers that most messages do with.
const HEADERS_BYTES: usize = 256;

/// The header that an attribute becomes. What that does not say of its type goes to `types`.
fn header(attribute: &Attribute<'_>, types: &mut Table) -> Value {
    let (value, said) = match &attribute.data {
        Data::Binary(bytes) => (Value::Bytes(bytes.to_vec()), "Binary"),
        Data::Text(text) if attribute.data_type == "Number" => match number(text) {
            Some(number) => (number, "Number"),
            None => (Value::text(&**text), "String"),
        },
        Data::Text(text) => (Value::text(&**text), "String"),
    };
    if attribute.data_type != said {
        types.set(&*attribute.name, Value::text(&*attribute.data_type));
    }
    value
}

/// A number that reads back with the same digits.
fn number(text: &str) -> Option<Value> {
    let integer = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
    let float = || text.parse::<f64>().ok().filter(|number| number.is_finite() && number.to_string() == text);
    integer.map(Value::I64).or_else(|| float().map(Value::F64))
}

/// What a message is to a receiver, as far as the message itself says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Contents<'m> {
    /// Its id, if it brought one that can be one.
    pub message_id: Option<&'m str>,
    /// When it was sent, if it says so.
    pub sent_ms: Option<u64>,
    /// Who sent it, if it says so.
    pub sender: Option<&'m str>,
    /// Its group.
    pub group: Option<&'m str>,
    /// Its name for deduplication.
    pub dedup: Option<&'m str>,
    /// The trace header.
    pub trace: Option<&'m str>,
    /// The queue that gave it up last, and for which reason.
    pub died_in: Option<&'m str>,
    /// The headers.
    pub headers: Headers<'m>,
}

/// Octets of an id at most.
const MESSAGE_ID_BYTES_MAX: usize = 100;

impl<'m> Contents<'m> {
    /// Reads a message.
    pub fn read(message: &'m Message) -> Self {
        let properties = Fields::read(message.properties()).unwrap_or_default();
        let text = |bytes: Option<&'m [u8]>| std::str::from_utf8(bytes?).ok().filter(|text| !text.is_empty());
        let is_id = |id: &&str| id.len() <= MESSAGE_ID_BYTES_MAX && id.bytes().all(|byte| byte.is_ascii_graphic());
        let headers = message.headers();
        let mut contents = Self {
            message_id: text(properties.message_id).filter(is_id),
            sent_ms: properties.timestamp.and_then(|secs| secs.checked_mul(1_000)),
            sender: text(properties.user_id),
            headers,
            ..Self::default()
        };
        for (name, value) in headers.iter() {
            match name {
                name if name == GROUP_ID.as_bytes() => contents.group = value.as_text(),
                name if name == DEDUP_HEADER.as_bytes() => contents.dedup = value.as_text(),
                name if name == TRACE_HEADER.as_bytes() => contents.trace = value.as_text(),
                name if name == TIMESTAMP_IN_MS.as_bytes() => {
                    let ms = value.as_integer().and_then(|ms| u64::try_from(ms).ok());
                    contents.sent_ms = ms.or(contents.sent_ms);
                }
                b"x-death" => {
                    let newest = value.as_array().and_then(|mut deaths| deaths.next()?.as_headers());
                    contents.died_in = newest.and_then(|death| death.get("queue")?.as_text());
                }
                _ => {}
            }
        }
        contents
    }

    /// Its attributes, in the order of their names.
    pub fn attributes(&self) -> Vec<Attribute<'m>> {
        self.attributes_where(|_| true)
    }

    /// Those whose names are wanted.
    pub fn attributes_where(&self, mut is_wanted: impl FnMut(&str) -> bool) -> Vec<Attribute<'m>> {
        let types = self.headers.get(TYPES_HEADER).and_then(ValueRef::as_headers).unwrap_or_default();
        let mut found = Vec::new();
        for (name, value) in self.headers.iter() {
            let Ok(name) = std::str::from_utf8(name) else { continue };
            let said = || types.get(name).and_then(ValueRef::as_text);
            if is_attribute(name)
                && is_wanted(name)
                && let Some((data_type, data)) = data(value, said)
            {
                found.push(Attribute { name: name.into(), data_type, data });
            }
        }
        // The first header of a name is the one that counts.
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found.dedup_by(|a, b| a.name == b.name);
        found
    }
}

/// Whether a header of that name is an attribute.
pub fn is_attribute(name: &str) -> bool {
    let is_ours = matches!(name, GROUP_ID | GROUP_SEQ | TIMESTAMP_IN_MS | EXPIRES | "CC" | "BCC");
    !is_ours && !name.starts_with("x-") && is_attribute_name(name)
}

/// Whether an attribute may have that name, but for the prefixes that are AWS's own.
pub fn is_attribute_name(name: &str) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (1..=ATTRIBUTE_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(is_legal)
        && !name.starts_with('.')
        && !name.ends_with('.')
        && !name.contains("..")
}

/// Octets of an attribute's name at most.
pub const ATTRIBUTE_NAME_BYTES_MAX: usize = 256;

/// Type and value of the attribute that a header is.
fn data<'m>(value: ValueRef<'m>, said: impl Fn() -> Option<&'m str>) -> Option<(Cow<'m, str>, Data<'m>)> {
    let number = |text: String| ("Number", Data::Text(text.into()));
    let (derived, data) = match value.kind {
        b'S' => match value.as_text() {
            Some(text) => ("String", Data::Text(text.into())),
            None => ("Binary", Data::Binary(value.payload.into())),
        },
        b'x' => ("Binary", Data::Binary(value.payload.into())),
        b't' => ("String", Data::Text(if value.payload == [0] { "false" } else { "true" }.into())),
        b'A' | b'F' | b'V' => return None,
        _ => match value.to_value() {
            Value::F32(float) => number(float.to_string()),
            Value::F64(float) => number(float.to_string()),
            Value::Decimal { scale, value } => number((f64::from(value) / 10_f64.powi(scale.into())).to_string()),
            Value::Timestamp(secs) => number(secs.to_string()),
            integer => number(integer.as_integer()?.to_string()),
        },
    };
    Some((said().unwrap_or(derived).into(), data))
}

/// A body as text.
#[derive(Debug, PartialEq, Eq)]
pub struct Text<'m> {
    /// The text.
    pub text: Cow<'m, str>,
    /// It is base64 of what no text can carry.
    pub is_encoded: bool,
}

/// The body of a message as a text of SQS.
pub fn body_text(message: &Message) -> Text<'_> {
    let bytes: Cow<'_, [u8]> = match message.body_contiguous() {
        Some(bytes) => bytes.into(),
        None => message.body_to_vec().into(),
    };
    let text = match bytes {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| Cow::Borrowed(bytes)),
        Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).map_err(|error| Cow::Owned(error.into_bytes())),
    };
    match text {
        Ok(text) if illegal_character(&text).is_none() => Text { text, is_encoded: false },
        Ok(text) => Text { text: STANDARD.encode(text.as_bytes()).into(), is_encoded: true },
        Err(bytes) => Text { text: STANDARD.encode(bytes).into(), is_encoded: true },
    }
}

/// The first character that no text of SQS may have.
pub fn illegal_character(text: &str) -> Option<char> {
    // Most texts have none, and most of what they have are single octets.
    let is_suspect = |byte: u8| (byte < 0x20 && !matches!(byte, 0x9 | 0xA | 0xD)) || byte == 0xEF;
    if !text.bytes().any(is_suspect) {
        return None;
    }
    text.chars().find(|&character| match character {
        '\t' | '\n' | '\r' => false,
        '\0'..'\u{20}' | '\u{FFFE}' | '\u{FFFF}' => true,
        _ => false,
    })
}

/// Lower-case hexadecimal digits of a digest of MD5.
pub fn md5_hex(bytes: &[u8]) -> String {
    hex(&Md5::digest(bytes))
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    digits.map(char::from).collect()
}

/// The digest of attributes that are in the order of their names; `None` without any.
///
/// ```text
/// each = length (4), name, length (4), type, 1 for text or 2 for octets, length (4), value
/// ```
pub fn attributes_md5(attributes: &[Attribute<'_>]) -> Option<String> {
    if attributes.is_empty() {
        return None;
    }
    let mut digest = Md5::new();
    let put = |bytes: &[u8], digest: &mut Md5| {
        digest.update((bytes.len() as u32).to_be_bytes());
        digest.update(bytes);
    };
    for attribute in attributes {
        put(attribute.name.as_bytes(), &mut digest);
        put(attribute.data_type.as_bytes(), &mut digest);
        digest.update([if matches!(attribute.data, Data::Text(_)) { 1 } else { 2 }]);
        put(attribute.data.bytes(), &mut digest);
    }
    Some(hex(&digest.finalize()))
}

/// A UUID of version 4 for a new message.
pub fn new_id() -> String {
    uuid(random(), 4)
}

/// Random octets that a thread asks the system for at once: a call costs as much as the digest of a message.
const POOL_BYTES: usize = 1024;

fn random() -> [u8; 16] {
    thread_local! {
        static POOL: RefCell<Vec<[u8; 16]>> = const { RefCell::new(Vec::new()) };
    }
    POOL.with_borrow_mut(|pool| {
        if let Some(bytes) = pool.pop() {
            return bytes;
        }
        let mut fresh = [0; POOL_BYTES];
        if getrandom::fill(&mut fresh).is_err() {
            // Without a source of randomness a counter still keeps messages apart in this process.
            static NEXT: AtomicU64 = AtomicU64::new(0);
            return u128::from(NEXT.fetch_add(1, Ordering::Relaxed)).to_be_bytes();
        }
        pool.extend_from_slice(fresh.as_chunks().0);
        pool.pop().unwrap_or_default()
    })
}

/// The id of a message that brought none: the same as long as it stays in its queue.
pub fn derived_id(queue: u64, seq: u64) -> String {
    let mut digest = Md5::new();
    digest.update(queue.to_be_bytes());
    digest.update(seq.to_be_bytes());
    uuid(digest.finalize().into(), 3)
}

fn uuid(mut bytes: [u8; 16], version: u8) -> String {
    bytes[6] = bytes[6] & 0x0F | version << 4;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    let digits = hex(&bytes);
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::selection::Fields as _;
    use crate::protocol::{amqp::properties, jms::JmsFields};

    fn attribute<'a>(name: &'a str, data_type: &'a str, text: &'a str) -> Attribute<'a> {
        Attribute { name: name.into(), data_type: data_type.into(), data: Data::Text(text.into()) }
    }

    fn bytes<'a>(name: &'a str, data_type: &'a str, bytes: &'a [u8]) -> Attribute<'a> {
        Attribute { name: name.into(), data_type: data_type.into(), data: Data::Binary(bytes.into()) }
    }

    /// A message of an AMQP publisher.
    fn foreign(table: Table, body: &[u8]) -> Message {
        let raw = properties::Properties { headers: Some(table), ..Default::default() }.encode();
        let headers = properties::scan(&raw).unwrap().headers;
        Message::build("", b"q", &raw, headers, body)
    }

    #[test]
    fn attributes_come_back_as_they_were_sent() {
        let sent = [
            bytes("binary", "Binary", b"\0\xff"),
            attribute("custom", "String.json", "{}"),
            attribute("float", "Number", "1.5"),
            attribute("integer", "Number", "-42"),
            attribute("padded", "Number", "0042"),
            bytes("png", "Binary.png", b"x"),
            attribute("scaled", "Number.scaled", "7"),
            attribute("text", "String", "a\u{e4}"),
        ];
        let message = Draft { attributes: &sent, message_id: "id", ..Draft::default() }.build();
        assert_eq!(Contents::read(&message).attributes(), sent);
        let header = |name| message.headers().get(name).map(ValueRef::to_value);
        assert_eq!(header("integer"), Some(Value::I64(-42)));
        assert_eq!(header("float"), Some(Value::F64(1.5)));
        assert_eq!(header("padded"), Some(Value::text("0042")));
        assert_eq!(header("binary"), Some(Value::Bytes(b"\0\xff".to_vec())));
    }

    #[test]
    fn a_message_says_who_sent_it_when_and_in_which_group() {
        let draft = Draft {
            key: "q",
            body: b"body",
            message_id: "00000000-0000-4000-8000-000000000000",
            sent: Time(1_234_567),
            sender: Some("guest"),
            group: Some("g"),
            dedup: Some("d"),
            trace: Some("Root=1"),
            ..Draft::default()
        };
        let message = draft.build();
        assert!(message.traits.persistent && message.traits.has_group);
        assert_eq!((message.key(), &*message.body_to_vec()), (&b"q"[..], &b"body"[..]));
        let contents = Contents::read(&message);
        assert_eq!(contents.message_id, Some(draft.message_id));
        assert_eq!((contents.sent_ms, contents.sender), (Some(1_234_567), Some("guest")));
        assert_eq!((contents.group, contents.dedup, contents.trace), (Some("g"), Some("d"), Some("Root=1")));
        assert!(contents.attributes().is_empty());
        assert_eq!(JmsFields.group(&message).map(|group| group.name), Some(&b"g"[..]));
        let properties = properties::scan(message.properties()).unwrap();
        assert_eq!((properties.delivery_mode, properties.timestamp), (Some(2), Some(1_234)));
    }

    #[test]
    fn headers_of_other_publishers_are_attributes() {
        let table = Table::from_iter([
            ("n", Value::U16(7)),
            ("b", Value::Bool(true)),
            ("s", Value::text("t")),
            ("raw", Value::Text(vec![0xff])),
            ("x-own", Value::text("hidden")),
            ("list", Value::Array(vec![])),
            ("with space", Value::text("no name")),
        ]);
        let message = foreign(table, b"");
        let expected = [
            attribute("b", "String", "true"),
            attribute("n", "Number", "7"),
            bytes("raw", "Binary", b"\xff"),
            attribute("s", "String", "t"),
        ];
        assert_eq!(Contents::read(&message).attributes(), expected);
    }

    #[test]
    fn digest_of_attributes_is_the_one_that_clients_compute() {
        let digest = |attributes: &[Attribute<'_>]| attributes_md5(attributes).unwrap_or_default();
        assert_eq!(digest(&[attribute("Foo", "String", "Bar")]), "ae7155c6026991b6d54b11589678bf9c");
        assert_eq!(digest(&[attribute("MyAttribute", "String", "foobar")]), "adb59cd4678ea5a855436b949cd07ab6");
        let binary = b"traceparent\x1e00-774062d6c37081a5a0b9b5b88e30627c-2d2482211f6489da-01";
        assert_eq!(digest(&[bytes("attr1", "Binary", binary)]), "8cbe4db156db8a94db8b801b7addb984");
        assert_eq!(digest(&[]), "");
        assert_eq!(md5_hex(b"test"), "098f6bcd4621d373cade4e832627b4f6");
    }

    #[test]
    fn body_that_is_no_text_is_encoded() {
        let of = |body: &[u8]| {
            let message = foreign(Table::new(), body);
            let text = body_text(&message);
            (text.text.into_owned(), text.is_encoded)
        };
        assert_eq!(of("a\t\u{10348}\u{fffd}\u{ef}".as_bytes()), ("a\t\u{10348}\u{fffd}\u{ef}".into(), false));
        assert_eq!(of(b"\xff"), ("/w==".into(), true));
        assert_eq!(of(b"\0"), ("AA==".into(), true));
        assert_eq!(of("\u{ffff}".as_bytes()), ("77+/".into(), true));
    }

    #[test]
    fn names_of_attributes_are_words_with_single_dots() {
        for name in ["a", "a.b", "A-_9", &"x".repeat(256)] {
            assert!(is_attribute_name(name), "{name}");
        }
        for name in ["", ".a", "a.", "a..b", "a b", "\u{e4}", &"x".repeat(257)] {
            assert!(!is_attribute_name(name), "{name}");
        }
    }

    #[test]
    fn ids_are_uuids() {
        let (a, b) = (new_id(), new_id());
        assert_ne!(a, b);
        assert_eq!((a.len(), &a[14..15]), (36, "4"));
        assert_eq!(derived_id(1, 2), derived_id(1, 2));
        assert_ne!(derived_id(1, 2), derived_id(2, 1));
    }
}
