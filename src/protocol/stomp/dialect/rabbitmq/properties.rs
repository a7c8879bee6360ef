//! Headers of frames and properties of messages: which is which, both ways.
//!
//! Twelve headers are properties, `persistent:true` being delivery mode 2 and `amqp-message-id` the
//! message's own id. `destination` is the route. All others, `receipt` and `content-length` among them,
//! are headers of the message, as text. Back to a client go texts and whole numbers; other types of
//! headers have no form in STOMP and are left out.

use std::borrow::Cow;

use super::{
    super::super::{
        codec::{self, Head},
        reply::Refusal,
    },
    destination,
};
use crate::{broker::value::Headers, protocol::amqp::properties::Fields};

/// The headers of a frame that are properties, in the order of [`NAMES`].
pub(super) type Known<'a> = [Option<Cow<'a, [u8]>>; NAMES.len()];

/// Names of headers that are properties.
const NAMES: [&str; 12] = [
    "content-type",
    "content-encoding",
    "persistent",
    "priority",
    "correlation-id",
    "reply-to",
    "expiration",
    "amqp-message-id",
    "timestamp",
    "type",
    "user-id",
    "app-id",
];

const REPLY_TO: usize = 5;
const EXPIRATION: usize = 6;
const USER_ID: usize = 10;

/// What a frame says of its message.
#[derive(Debug, Default)]
pub(super) struct Said<'a> {
    pub(super) known: Known<'a>,
    /// The headers of the message, encoded.
    pub(super) headers: Vec<u8>,
    /// There is one with further keys, which is a list in AMQP and cannot be one here.
    pub(super) copies: Option<&'static str>,
}

impl<'a> Said<'a> {
    /// Reads the headers of a SEND.
    pub(super) fn read(head: &Head<'a>) -> Result<Self, Refusal> {
        let mut said = Self::default();
        for (name, value) in head.iter() {
            if let Some(at) = NAMES.iter().position(|known| known.as_bytes() == &*name) {
                if value.len() > u8::MAX.into() {
                    return Err(too_long(NAMES[at].as_bytes()));
                }
                said.known[at] = Some(value);
            } else if &*name != b"destination" {
                if name.len() > u8::MAX.into() {
                    return Err(too_long(&name));
                }
                match &*name {
                    b"CC" => said.copies = said.copies.or(Some("CC")),
                    b"BCC" => said.copies = said.copies.or(Some("BCC")),
                    _ => {}
                }
                said.headers.push(name.len() as u8);
                said.headers.extend_from_slice(&name);
                said.headers.push(b'S');
                said.headers.extend_from_slice(&(value.len() as u32).to_be_bytes());
                said.headers.extend_from_slice(&value);
            }
        }
        Ok(said)
    }

    /// Where answers go, as it was written.
    pub(super) fn reply_to(&self) -> Option<&[u8]> {
        self.known[REPLY_TO].as_deref()
    }

    /// Answers go elsewhere.
    pub(super) fn set_reply_to(&mut self, queue: &[u8]) {
        self.known[REPLY_TO] = Some(queue.to_vec().into());
    }

    /// How long the message may live.
    pub(super) fn expiration(&self) -> Option<&[u8]> {
        self.known[EXPIRATION].as_deref()
    }

    /// Who the publisher says it is.
    pub(super) fn user_id(&self) -> Option<&[u8]> {
        self.known[USER_ID].as_deref()
    }

    /// The properties, with numbers read.
    pub(super) fn fields(&self) -> Result<Fields<'_>, Refusal> {
        let [
            content_type,
            content_encoding,
            persistent,
            priority,
            correlation_id,
            reply_to,
            expiration,
            message_id,
            timestamp,
            message_type,
            user_id,
            app_id,
        ] = &self.known;
        let number = |text: &Option<Cow<'_, [u8]>>, max: i64| match text {
            None => Ok(None),
            Some(text) => codec::integer(text).map(|number| Some(number.clamp(0, max))).ok_or_else(Refusal::processing),
        };
        let is_persistent = persistent.as_deref().and_then(boolean) == Some(true);
        Ok(Fields {
            content_type: content_type.as_deref(),
            content_encoding: content_encoding.as_deref(),
            delivery_mode: is_persistent.then_some(2),
            priority: number(priority, u8::MAX.into())?.map(|priority| priority as u8),
            correlation_id: correlation_id.as_deref(),
            reply_to: reply_to.as_deref(),
            expiration: expiration.as_deref(),
            message_id: message_id.as_deref(),
            timestamp: number(timestamp, i64::MAX)?.map(|secs| secs as u64),
            message_type: message_type.as_deref(),
            user_id: user_id.as_deref(),
            app_id: app_id.as_deref(),
            headers: (0, 0),
        })
    }
}

/// AMQP cannot hold it.
fn too_long(name: &[u8]) -> Refusal {
    let name = String::from_utf8_lossy(&name[..name.len().min(255)]).into_owned();
    Refusal::new("Invalid header", format!("'{name}' is longer than 255 bytes\n"))
}

/// What Python and everybody else take for a truth value.
pub(in crate::protocol::stomp) fn boolean(text: &[u8]) -> Option<bool> {
    match text {
        b"true" | b"True" => Some(true),
        b"false" | b"False" => Some(false),
        _ => None,
    }
}

/// Appends the headers that tell of properties. Malformed ones tell nothing.
pub(in crate::protocol::stomp) fn put_headers(properties: &[u8], out: &mut Vec<u8>) {
    let Some(fields) = Fields::read(properties) else { return };
    let (at, len) = fields.headers;
    for (name, value) in Headers::new(&properties[at..at + len]).iter() {
        // It tells of the body that follows, not of one that was.
        if name == b"content-length" {
            continue;
        }
        match value.kind {
            b'S' => codec::put_header(name, value.payload, out),
            b'I' | b'l' | b'L' => {
                if let Some(number) = value.as_integer() {
                    codec::put_header(name, number.to_string().as_bytes(), out);
                }
            }
            _ => {}
        }
    }
    let text = |name: &str, value: Option<&[u8]>, out: &mut Vec<u8>| {
        if let Some(value) = value {
            codec::put_header(name.as_bytes(), value, out);
        }
    };
    let number = |name: &str, value: Option<u64>, out: &mut Vec<u8>| {
        if let Some(value) = value {
            out.extend_from_slice(name.as_bytes());
            out.push(b':');
            codec::put_number(value, out);
            out.push(b'\n');
        }
    };
    text("app-id", fields.app_id, out);
    text("user-id", fields.user_id, out);
    text("type", fields.message_type, out);
    number("timestamp", fields.timestamp, out);
    text("amqp-message-id", fields.message_id, out);
    text("expiration", fields.expiration, out);
    if let Some(reply_to) = fields.reply_to {
        out.extend_from_slice(b"reply-to:");
        if !destination::is_destination(reply_to) {
            out.extend_from_slice(b"/reply-queue/");
        }
        codec::put_text(reply_to, out);
        out.push(b'\n');
    }
    text("correlation-id", fields.correlation_id, out);
    number("priority", fields.priority.map(u64::from), out);
    if fields.delivery_mode == Some(2) {
        out.extend_from_slice(b"persistent:true\n");
    }
    text("content-encoding", fields.content_encoding, out);
    text("content-type", fields.content_type, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        broker::value::{Table, Value},
        protocol::amqp::properties::Properties,
        protocol::stomp::codec::{Limits, Syntax, Trim},
    };

    fn properties_of(head: &str) -> Properties {
        let limits = Limits {
            head_bytes_max: 1 << 20,
            headers_count_max: 1000,
            command_bytes_max: 1000,
            line_bytes_max: 1 << 20,
            syntax: Syntax::Strict,
        };
        let mut headers = Vec::new();
        let command_len = codec::decode_head(head.as_bytes(), &limits, &mut headers).unwrap();
        let head = Head::new(head.as_bytes(), command_len, &headers, Trim::Nothing);
        let said = Said::read(&head).unwrap();
        let mut out = Vec::new();
        said.fields().unwrap().encode(&said.headers, &mut out);
        Properties::decode(&out).unwrap()
    }

    fn headers_of(properties: &Properties) -> String {
        let mut out = Vec::new();
        put_headers(&properties.encode(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn headers_become_properties_and_come_back() {
        let head = "SEND\ndestination:/queue/a\nx:y\ncontent-length:3\napp-id:app\nuser-id:guest\ntype:order\ntimestamp:1700000000\namqp-message-id:m\nexpiration:60000\nreply-to:/queue/r\ncorrelation-id:c\npriority:5\npersistent:True\ncontent-encoding:gzip\ncontent-type:text/plain\n\n";
        let properties = properties_of(head);
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            properties,
            Properties {
                content_type: text("text/plain"),
                content_encoding: text("gzip"),
                headers: Some(Table::from_iter([("x", Value::text("y")), ("content-length", Value::text("3"))])),
                delivery_mode: Some(2),
                priority: Some(5),
                correlation_id: text("c"),
                reply_to: text("/queue/r"),
                expiration: text("60000"),
                message_id: text("m"),
                timestamp: Some(1_700_000_000),
                message_type: text("order"),
                user_id: text("guest"),
                app_id: text("app"),
                cluster_id: None,
            }
        );
        assert_eq!(
            headers_of(&properties),
            "x:y\napp-id:app\nuser-id:guest\ntype:order\ntimestamp:1700000000\namqp-message-id:m\nexpiration:60000\nreply-to:/queue/r\ncorrelation-id:c\npriority:5\npersistent:true\ncontent-encoding:gzip\ncontent-type:text/plain\n"
        );
    }

    #[test]
    fn texts_and_whole_numbers_are_all_that_goes_to_a_client() {
        let headers = Table::from_iter([
            ("text", Value::text("a:b")),
            ("int", Value::I32(-5)),
            ("long", Value::I64(6)),
            ("bool", Value::Bool(true)),
            ("list", Value::Array(vec![])),
            ("short", Value::I16(1)),
        ]);
        let properties = Properties { headers: Some(headers), ..Properties::default() };
        assert_eq!(headers_of(&properties), "text:a\\cb\nint:-5\nlong:6\n");
    }

    #[test]
    fn names_of_queues_in_reply_to_become_destinations() {
        let reply = |to: &str| headers_of(&Properties { reply_to: Some(to.to_owned()), ..Properties::default() });
        assert_eq!(reply("amq.gen-1"), "reply-to:/reply-queue/amq.gen-1\n");
        assert_eq!(reply("/temp-queue/x"), "reply-to:/reply-queue//temp-queue/x\n");
        assert_eq!(reply("/topic/x"), "reply-to:/topic/x\n");
    }

    #[test]
    fn a_message_without_persistent_has_no_delivery_mode() {
        for head in ["SEND\npersistent:false\n\n", "SEND\npersistent:yes\n\n", "SEND\n\n"] {
            assert_eq!(properties_of(head), Properties::default(), "{head}");
        }
    }
}
