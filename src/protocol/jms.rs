//! The names of the Java Message Service for what a message brings along, for selectors and message groups.
//!
//! Messages of every protocol have AMQP's properties. Names that begin with `JMS` are read from them as
//! the table says; every other name, and `JMSXGroupID` and `JMSXGroupSeq`, is that of a header.
//!
//! | name | is |
//! |---|---|
//! | JMSMessageID, JMSCorrelationID, JMSReplyTo, JMSType, JMSXUserID | message-id, correlation-id, reply-to, type, user-id |
//! | JMSPriority | priority, 4 without one |
//! | JMSDeliveryMode | 'PERSISTENT' or 'NON_PERSISTENT' |
//! | JMSTimestamp | the header timestamp_in_ms; timestamp, in milliseconds |
//! | JMSExpiration | 0 without expiration; the header expires; timestamp and expiration; nothing without the one |
//! | JMSDestination | `queue://` and the name of the queue, or `topic://` and the routing key |
//! | JMSRedelivered | it was delivered before |

use super::amqp::properties::Fields as Properties;
use crate::broker::{
    message::Message,
    selection::{Fields, Group, Subject},
    selector::Value,
    value::{Headers, ValueRef},
};

/// The header that names the group of a message.
pub const GROUP_ID: &str = "JMSXGroupID";
/// The header that counts the messages of a group; a negative number ends it.
pub const GROUP_SEQ: &str = "JMSXGroupSeq";

/// The header that has the timestamp in milliseconds.
pub const TIMESTAMP_IN_MS: &str = "timestamp_in_ms";
/// The header that has the time of expiry, in milliseconds since 1970.
pub const EXPIRES: &str = "expires";

/// See the module's text.
#[derive(Clone, Copy, Debug, Default)]
pub struct JmsFields;

/// JMS's priority of a message that says none.
const PRIORITY_DEFAULT: u8 = 4;

/// Whether a message with these headers belongs to a group.
pub fn has_group(headers: Headers<'_>) -> bool {
    headers.get(GROUP_ID).and_then(ValueRef::as_text_bytes).is_some_and(|name| !name.is_empty())
}

impl Fields for JmsFields {
    fn field<'m>(&self, subject: Subject<'m>, name: &str) -> Value<'m> {
        let message = subject.message;
        if !name.starts_with("JMS") || matches!(name, GROUP_ID | GROUP_SEQ) {
            return message.headers().get(name).map_or(Value::Null, value);
        }
        let of = |read: fn(&Properties<'m>) -> Option<&'m [u8]>| {
            let text = Properties::read(message.properties()).as_ref().and_then(read);
            text.map_or(Value::Null, Value::Text)
        };
        match name {
            "JMSMessageID" => of(|properties| properties.message_id),
            "JMSCorrelationID" => of(|properties| properties.correlation_id),
            "JMSReplyTo" => of(|properties| properties.reply_to),
            "JMSType" => of(|properties| properties.message_type),
            "JMSXUserID" => of(|properties| properties.user_id),
            "JMSPriority" => {
                let said = Properties::read(message.properties()).and_then(|properties| properties.priority);
                Value::Long(said.unwrap_or(PRIORITY_DEFAULT).into())
            }
            "JMSDeliveryMode" if message.traits.persistent => Value::Text(b"PERSISTENT"),
            "JMSDeliveryMode" => Value::Text(b"NON_PERSISTENT"),
            "JMSTimestamp" => timestamp_ms(message).map_or(Value::Null, Value::Long),
            "JMSExpiration" => match message.traits.ttl.ms() {
                None => Value::Long(0),
                Some(_) if said_ms(message, EXPIRES).is_some() => {
                    said_ms(message, EXPIRES).map_or(Value::Null, Value::Long)
                }
                Some(ms) => timestamp_ms(message)
                    .and_then(|at| at.checked_add(i64::try_from(ms).ok()?))
                    .map_or(Value::Null, Value::Long),
            },
            "JMSDestination" => Value::Joined(destination_kind(message), message.key()),
            "JMSRedelivered" => Value::Bool(subject.redelivered),
            _ => message.headers().get(name).map_or(Value::Null, value),
        }
    }

    fn group<'m>(&self, message: &'m Message) -> Option<Group<'m>> {
        let headers = message.headers();
        let name = headers.get(GROUP_ID)?.as_text_bytes().filter(|name| !name.is_empty())?;
        let number = headers.get(GROUP_SEQ).and_then(|value| {
            let text = || value.as_text()?.trim().parse().ok();
            value.as_integer().or_else(text)
        });
        Some(Group { name, is_last: number.is_some_and(|number| number < 0) })
    }
}

/// What the destination of a message begins with. Temporary ones have the names that STOMP gives them.
pub fn destination_kind(message: &Message) -> &'static str {
    match (message.exchange().is_empty(), message.key().starts_with(b"ID:")) {
        (true, false) => "queue://",
        (true, true) => "temp-queue://",
        (false, false) => "topic://",
        (false, true) => "temp-topic://",
    }
}

fn timestamp_ms(message: &Message) -> Option<i64> {
    if let Some(ms) = said_ms(message, TIMESTAMP_IN_MS) {
        return Some(ms);
    }
    let secs = Properties::read(message.properties())?.timestamp?;
    i64::try_from(secs).ok()?.checked_mul(1_000)
}

/// A time that a header has in milliseconds, for AMQP has seconds only.
fn said_ms(message: &Message, name: &str) -> Option<i64> {
    message.headers().get(name)?.as_integer()
}

/// What a selector sees of a header. Lists, tables and bytes are nothing to it.
fn value(value: ValueRef<'_>) -> Value<'_> {
    fn array<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
        bytes.try_into().ok()
    }
    let payload = value.payload;
    let read = match value.kind {
        b'S' => Some(Value::Text(payload)),
        b't' => payload.first().map(|byte| Value::Bool(*byte != 0)),
        b'f' => array(payload).map(|bytes| Value::Double(f32::from_be_bytes(bytes).into())),
        b'd' => array(payload).map(|bytes| Value::Double(f64::from_be_bytes(bytes))),
        b'D' => payload.split_first().and_then(|(scale, unscaled)| {
            let unscaled = i32::from_be_bytes(array(unscaled)?);
            Some(Value::Double(f64::from(unscaled) / 10_f64.powi((*scale).into())))
        }),
        b'T' => array(payload).and_then(|bytes| i64::try_from(u64::from_be_bytes(bytes)).ok()).map(Value::Long),
        _ => value.as_integer().map(Value::Long),
    };
    read.unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        broker::{
            message::Ttl,
            value::{Table, Value as Header},
        },
        protocol::amqp::properties::{self, Properties},
    };

    fn message(properties: &Properties) -> Message {
        let raw = properties.encode();
        let headers = properties::scan(&raw).unwrap().headers;
        Message::build("", b"orders", &raw, headers, b"body")
    }

    fn field<'m>(message: &'m Message, name: &str) -> Value<'m> {
        JmsFields.field(Subject::new(message), name)
    }

    #[test]
    fn properties_have_their_names_of_jms() {
        let text = |text: &str| Some(text.to_owned());
        let mut message = message(&Properties {
            message_id: text("m"),
            correlation_id: text("c"),
            reply_to: text("r"),
            message_type: text("t"),
            user_id: text("guest"),
            priority: Some(7),
            timestamp: Some(1_700_000_000),
            ..Properties::default()
        });
        (message.traits.persistent, message.traits.ttl) = (true, Ttl::of_ms(500));
        for (name, expected) in [
            ("JMSMessageID", Value::Text(b"m")),
            ("JMSCorrelationID", Value::Text(b"c")),
            ("JMSReplyTo", Value::Text(b"r")),
            ("JMSType", Value::Text(b"t")),
            ("JMSXUserID", Value::Text(b"guest")),
            ("JMSPriority", Value::Long(7)),
            ("JMSDeliveryMode", Value::Text(b"PERSISTENT")),
            ("JMSTimestamp", Value::Long(1_700_000_000_000)),
            ("JMSExpiration", Value::Long(1_700_000_000_500)),
            ("JMSDestination", Value::Joined("queue://", b"orders")),
            ("JMSRedelivered", Value::Bool(false)),
            ("JMSXGroupID", Value::Null),
        ] {
            assert_eq!(field(&message, name), expected, "{name}");
        }
        let redelivered = Subject { message: &message, redelivered: true };
        assert_eq!(JmsFields.field(redelivered, "JMSRedelivered"), Value::Bool(true));
    }

    #[test]
    fn a_message_that_says_nothing_has_the_values_of_jms() {
        let message = message(&Properties::default());
        for (name, expected) in [
            ("JMSPriority", Value::Long(4)),
            ("JMSDeliveryMode", Value::Text(b"NON_PERSISTENT")),
            ("JMSExpiration", Value::Long(0)),
            ("JMSTimestamp", Value::Null),
            ("JMSMessageID", Value::Null),
            ("colour", Value::Null),
        ] {
            assert_eq!(field(&message, name), expected, "{name}");
        }
    }

    #[test]
    fn headers_keep_their_types() {
        let message = message(&Properties {
            headers: Some(Table::from_iter([
                ("text", Header::text("red")),
                ("byte", Header::I8(-1)),
                ("long", Header::I64(1 << 40)),
                ("float", Header::F32(0.5)),
                ("double", Header::F64(2.5)),
                ("decimal", Header::Decimal { scale: 2, value: 125 }),
                ("flag", Header::Bool(true)),
                ("list", Header::Array(vec![])),
            ])),
            ..Properties::default()
        });
        for (name, expected) in [
            ("text", Value::Text(b"red")),
            ("byte", Value::Long(-1)),
            ("long", Value::Long(1 << 40)),
            ("float", Value::Double(0.5)),
            ("double", Value::Double(2.5)),
            ("decimal", Value::Double(1.25)),
            ("flag", Value::Bool(true)),
            ("list", Value::Null),
        ] {
            assert_eq!(field(&message, name), expected, "{name}");
        }
    }

    #[test]
    fn a_negative_number_ends_a_group_whether_it_is_text_or_not() {
        for (number, is_last) in [
            (None, false),
            (Some(Header::I32(2)), false),
            (Some(Header::I32(-1)), true),
            (Some(Header::text("-1")), true),
            (Some(Header::text("x")), false),
        ] {
            let mut headers = Table::from_iter([("JMSXGroupID", Header::text("g"))]);
            number.into_iter().for_each(|number| headers.push("JMSXGroupSeq", number));
            let message = message(&Properties { headers: Some(headers), ..Properties::default() });
            assert!(has_group(message.headers()));
            assert_eq!(JmsFields.group(&message), Some(Group { name: b"g", is_last }));
        }
    }

    #[test]
    fn an_empty_name_is_no_group() {
        let headers = Some(Table::from_iter([("JMSXGroupID", Header::text(""))]));
        let message = message(&Properties { headers, ..Properties::default() });
        assert!(!has_group(message.headers()));
        assert_eq!(JmsFields.group(&message), None);
    }
}
