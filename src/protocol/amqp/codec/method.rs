//! All methods but those of the message path, through `amq-protocol`.
//!
//! That crate recurses as deep as tables are nested, allocates for every value, and has one error
//! for everything. So a payload is first walked by the signature of its method: every length must
//! fit, short strings must be UTF-8 and tables within limits. What passes decodes into at most a
//! few hundred kilobytes, however it was made.

pub use amq_protocol::{
    protocol::{AMQPClass, access, basic, channel, confirm, connection, exchange, queue, tx},
    types::{AMQPValue, FieldArray, FieldTable, LongString, ShortString as ShortText},
};
use amq_protocol::{
    protocol::{gen_class, parse_class},
    types::ShortString,
};
use nom::IResult;

use super::{
    frame::{FRAME_END, FrameKind},
    hot::{frame_head, method_id},
    octets, table,
};

/// Decodes the payload of a method frame.
pub fn decode(payload: &[u8]) -> Result<AMQPClass, MethodError> {
    let id = method_id(payload).ok_or_else(|| MethodError::truncated((0, 0), payload))?;
    let (class, method) = id;
    let fields = &payload[4..];
    let (_, signature) = lookup(class, method).ok_or(MethodError::Unknown { class, method })?;
    let walk = walk(signature, fields).map_err(|_| MethodError::truncated(id, fields))?;
    if let Some(fault) = walk.fault {
        return Err(MethodError::Malformed { class, method, fault });
    }
    match parse_class(payload) {
        Ok(([], decoded)) => Ok(decoded),
        _ => Err(MethodError::Malformed { class, method, fault: Fault::Fields }),
    }
}

/// The argument table of a method, still encoded and without its length, in the order in which
/// the client wrote it (a decoded [`FieldTable`] is sorted). Empty for a method without table, and
/// for a payload that [`decode`] refuses.
pub fn table(payload: &[u8]) -> &[u8] {
    let walked = method_id(payload)
        .and_then(|(class, method)| lookup(class, method))
        .and_then(|(_, signature)| walk(signature, &payload[4..]).ok());
    match walked {
        Some(Walk { table: Some(table), fault: None }) => table,
        _ => &[],
    }
}

/// Appends a whole method frame.
pub fn encode(channel: u16, method: &AMQPClass, out: &mut Vec<u8>) {
    let payload = gen_class(method)(Vec::with_capacity(64).into())
        .map(|context| context.into_inner().0)
        .expect("writing to a vector cannot fail, and strings and tables carry checked lengths");
    out.reserve(payload.len() + super::frame::FRAME_OVERHEAD);
    out.extend_from_slice(&frame_head(FrameKind::Method.octet(), channel, payload.len() as u32));
    out.extend_from_slice(&payload);
    out.push(FRAME_END);
}

/// The name of a method as RabbitMQ prints it: `queue.declare`, `queue.declare_ok`.
pub fn name(class: u16, method: u16) -> Option<&'static str> {
    lookup(class, method).map(|(name, _)| name)
}

/// Whether a content follows the method.
pub fn has_content(class: u16, method: u16) -> bool {
    class == 60 && matches!(method, 40 | 50 | 60 | 71)
}

/// A reply text: `NAME - explanation`, shortened as RabbitMQ does when it is longer than 255
/// octets.
pub fn reply_text(name: &str, explanation: &str) -> ShortString {
    let mut text = format!("{name} - {explanation}");
    if text.len() > REPLY_TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(REPLY_TEXT_BYTES_MAX - 3));
        text.push_str("...");
    }
    short_text(&text)
}

/// As much of `text` as a short string can hold.
pub fn short_text(text: &str) -> ShortString {
    ShortString::from(&text[..text.floor_char_boundary(REPLY_TEXT_BYTES_MAX)])
}

const REPLY_TEXT_BYTES_MAX: usize = 255;

/// Why a method frame could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MethodError {
    /// There is no such method. RabbitMQ drops the connection without a word.
    Unknown {
        /// Class id.
        class: u16,
        /// Method id.
        method: u16,
    },
    /// The payload ends too early or goes on too long. RabbitMQ: 501 FRAME_ERROR that names the
    /// method.
    Truncated {
        /// Class id.
        class: u16,
        /// Method id.
        method: u16,
        /// The octets after the method id, as RabbitMQ prints them.
        fields: String,
    },
    /// The fields are all there but one of them cannot be accepted.
    Malformed {
        /// Class id.
        class: u16,
        /// Method id.
        method: u16,
        /// What is wrong.
        fault: Fault,
    },
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A short string is not UTF-8. RabbitMQ: 501 FRAME_ERROR, on a channel with class and method
    /// 0/0.
    ShortString,
    /// A table is malformed, nested too deeply or has too many values. RabbitMQ drops the
    /// connection without a word when it is malformed, and knows no limits.
    Table,
    /// Anything else.
    Fields,
}

impl MethodError {
    fn truncated((class, method): (u16, u16), fields: &[u8]) -> Self {
        Self::Truncated { class, method, fields: octets::list(fields) }
    }

    /// Class and method that the error is about.
    pub fn id(&self) -> (u16, u16) {
        match *self {
            Self::Unknown { class, method }
            | Self::Truncated { class, method, .. }
            | Self::Malformed { class, method, .. } => (class, method),
        }
    }

    /// The explanation, RabbitMQ's where it has one, which follows the error's name in the reply
    /// text.
    pub fn text(&self) -> String {
        match self {
            Self::Unknown { class, method } => format!("unknown method {class}/{method}"),
            Self::Truncated { fields, .. } => format!("cannot decode {fields}"),
            Self::Malformed { class, method, fault } => {
                let name = name(*class, *method).unwrap_or_default();
                match fault {
                    Fault::ShortString => "Malformed UTF-8 in shortstr".into(),
                    Fault::Table => format!("malformed table in {name}"),
                    Fault::Fields => format!("malformed fields in {name}"),
                }
            }
        }
    }
}

/// What a walk over a method's fields found.
struct Walk<'a> {
    table: Option<&'a [u8]>,
    fault: Option<Fault>,
}

/// Walks fields that should be laid out as `signature` says: `1248` numbers of so many octets,
/// `f` flags, `s` and `S` short and long strings, `T` a table.
fn walk<'a>(signature: &str, mut fields: &'a [u8]) -> Result<Walk<'a>, ()> {
    fn next<'a, T>(parsed: IResult<&'a [u8], T>, fields: &mut &'a [u8]) -> Result<T, ()> {
        let (rest, found) = parsed.map_err(|_| ())?;
        *fields = rest;
        Ok(found)
    }
    let mut walk = Walk { table: None, fault: None };
    for field in signature.bytes() {
        let fault = match field {
            b's' => {
                let text = next(table::short_string(fields), &mut fields)?;
                str::from_utf8(text).is_err().then_some(Fault::ShortString)
            }
            b'S' => {
                next(table::long_string(fields), &mut fields)?;
                None
            }
            b'T' => {
                let table = next(table::long_string(fields), &mut fields)?;
                walk.table = Some(table);
                (!table::is_sound(table)).then_some(Fault::Table)
            }
            b'f' => {
                next(table::number(1)(fields), &mut fields)?;
                None
            }
            digit => {
                next(table::number((digit - b'0') as usize)(fields), &mut fields)?;
                None
            }
        };
        walk.fault = walk.fault.or(fault);
    }
    fields.is_empty().then_some(walk).ok_or(())
}

/// Name and signature of a method.
fn lookup(class: u16, method: u16) -> Option<(&'static str, &'static str)> {
    Some(match (class, method) {
        (10, 10) => ("connection.start", "11TSS"),
        (10, 11) => ("connection.start_ok", "TsSs"),
        (10, 20) => ("connection.secure", "S"),
        (10, 21) => ("connection.secure_ok", "S"),
        (10, 30) => ("connection.tune", "242"),
        (10, 31) => ("connection.tune_ok", "242"),
        (10, 40) => ("connection.open", "ssf"),
        (10, 41) => ("connection.open_ok", "s"),
        (10, 50) => ("connection.close", "2s22"),
        (10, 51) => ("connection.close_ok", ""),
        (10, 60) => ("connection.blocked", "s"),
        (10, 61) => ("connection.unblocked", ""),
        (10, 70) => ("connection.update_secret", "Ss"),
        (10, 71) => ("connection.update_secret_ok", ""),
        (20, 10) => ("channel.open", "s"),
        (20, 11) => ("channel.open_ok", "S"),
        (20, 20) => ("channel.flow", "f"),
        (20, 21) => ("channel.flow_ok", "f"),
        (20, 40) => ("channel.close", "2s22"),
        (20, 41) => ("channel.close_ok", ""),
        (30, 10) => ("access.request", "sf"),
        (30, 11) => ("access.request_ok", "2"),
        (40, 10) => ("exchange.declare", "2ssfT"),
        (40, 11) => ("exchange.declare_ok", ""),
        (40, 20) => ("exchange.delete", "2sf"),
        (40, 21) => ("exchange.delete_ok", ""),
        (40, 30) => ("exchange.bind", "2sssfT"),
        (40, 31) => ("exchange.bind_ok", ""),
        (40, 40) => ("exchange.unbind", "2sssfT"),
        (40, 51) => ("exchange.unbind_ok", ""),
        (50, 10) => ("queue.declare", "2sfT"),
        (50, 11) => ("queue.declare_ok", "s44"),
        (50, 20) => ("queue.bind", "2sssfT"),
        (50, 21) => ("queue.bind_ok", ""),
        (50, 30) => ("queue.purge", "2sf"),
        (50, 31) => ("queue.purge_ok", "4"),
        (50, 40) => ("queue.delete", "2sf"),
        (50, 41) => ("queue.delete_ok", "4"),
        (50, 50) => ("queue.unbind", "2sssT"),
        (50, 51) => ("queue.unbind_ok", ""),
        (60, 10) => ("basic.qos", "42f"),
        (60, 11) => ("basic.qos_ok", ""),
        (60, 20) => ("basic.consume", "2ssfT"),
        (60, 21) => ("basic.consume_ok", "s"),
        (60, 30) => ("basic.cancel", "sf"),
        (60, 31) => ("basic.cancel_ok", "s"),
        (60, 40) => ("basic.publish", "2ssf"),
        (60, 50) => ("basic.return", "2sss"),
        (60, 60) => ("basic.deliver", "s8fss"),
        (60, 70) => ("basic.get", "2sf"),
        (60, 71) => ("basic.get_ok", "8fss4"),
        (60, 72) => ("basic.get_empty", "s"),
        (60, 80) => ("basic.ack", "8f"),
        (60, 90) => ("basic.reject", "8f"),
        (60, 100) => ("basic.recover_async", "f"),
        (60, 110) => ("basic.recover", "f"),
        (60, 111) => ("basic.recover_ok", ""),
        (60, 120) => ("basic.nack", "8f"),
        (85, 10) => ("confirm.select", "f"),
        (85, 11) => ("confirm.select_ok", ""),
        (90, 10) => ("tx.select", ""),
        (90, 11) => ("tx.select_ok", ""),
        (90, 20) => ("tx.commit", ""),
        (90, 21) => ("tx.commit_ok", ""),
        (90, 30) => ("tx.rollback", ""),
        (90, 31) => ("tx.rollback_ok", ""),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{super::frame::split, *};

    fn declare(name: &[u8], table: &[u8]) -> Vec<u8> {
        let mut payload = vec![0, 50, 0, 10, 0, 0, name.len() as u8];
        payload.extend(name);
        payload.push(0b10);
        payload.extend((table.len() as u32).to_be_bytes());
        payload.extend(table);
        payload
    }

    fn refused(payload: &[u8]) -> MethodError {
        decode(payload).expect_err("refused")
    }

    #[test]
    fn a_method_decodes_to_what_was_encoded() {
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), AMQPValue::LongInt(10));
        let method = AMQPClass::Queue(queue::AMQPMethod::Declare(queue::Declare {
            queue: "orders".into(),
            durable: true,
            arguments,
            ..queue::Declare::default()
        }));
        let mut out = Vec::new();
        encode(3, &method, &mut out);
        let frame = split(&out, 0, 4096).expect("well formed").expect("complete");
        assert_eq!((frame.kind, frame.channel, frame.next_at()), (FrameKind::Method, 3, out.len()));
        assert_eq!(decode(frame.payload(&out)), Ok(method));
    }

    #[test]
    fn a_method_cut_short_or_too_long_is_told_with_its_octets() {
        assert_eq!(refused(&[0, 50, 0, 10]).text(), "cannot decode <<>>");
        assert_eq!(refused(&[0, 50, 0, 10]).id(), (50, 10));
        let whole = declare(b"ab", &[]);
        for len in 4..whole.len() {
            assert!(matches!(refused(&whole[..len]), MethodError::Truncated { .. }));
        }
        let long = [&whole[..], &[7]].concat();
        assert_eq!(refused(&long).text(), "cannot decode <<0,0,2,97,98,2,0,0,0,0,7>>");
    }

    #[test]
    fn a_short_string_that_is_not_utf8_is_told_as_such() {
        assert_eq!(refused(&declare(&[0xFF], &[])).text(), "Malformed UTF-8 in shortstr");
    }

    #[test]
    fn a_malformed_table_is_refused() {
        let error = refused(&declare(b"q", &[1, b'k', b'Z']));
        assert_eq!(error, MethodError::Malformed { class: 50, method: 10, fault: Fault::Table });
    }

    #[test]
    fn a_deeply_nested_table_is_refused_before_it_is_decoded() {
        let mut table = Vec::new();
        while table.len() < 20_000 {
            table = [&[1, b'k', b'F'], &(table.len() as u32).to_be_bytes()[..], &table].concat();
        }
        assert!(matches!(refused(&declare(b"q", &table)), MethodError::Malformed { fault: Fault::Table, .. }));
    }

    #[test]
    fn an_unknown_method_is_told_apart() {
        assert_eq!(refused(&[0, 99, 0, 1]), MethodError::Unknown { class: 99, method: 1 });
        assert_eq!(refused(&[0, 50, 0, 99, 1]), MethodError::Unknown { class: 50, method: 99 });
    }

    #[test]
    fn arguments_keep_their_order_in_the_encoded_table() {
        let encoded = b"\x01zt\x01\x01at\x00\x01zV";
        assert_eq!(table(&declare(b"q", encoded)), encoded);
        assert_eq!(table(&declare(b"q", &[1])), b"");
        assert_eq!(table(&[0, 90, 0, 10]), b"");
        assert_eq!(table(&[0]), b"");
    }

    #[test]
    fn names_and_contents_are_those_of_the_protocol() {
        assert_eq!(name(50, 10), Some("queue.declare"));
        assert_eq!(name(40, 51), Some("exchange.unbind_ok"));
        assert_eq!(name(40, 41), None);
        assert!(has_content(60, 40) && has_content(60, 71) && !has_content(60, 70) && !has_content(20, 40));
    }

    #[test]
    fn a_long_reply_text_is_shortened_as_rabbitmq_does() {
        let text = reply_text("FRAME_ERROR", &"x".repeat(300));
        assert_eq!(text.as_str().len(), 255);
        assert!(text.as_str().starts_with("FRAME_ERROR - xx") && text.as_str().ends_with("x..."));
        assert_eq!(reply_text("NOT_FOUND", "no").as_str(), "NOT_FOUND - no");
        assert_eq!(short_text(&"\u{e9}".repeat(200)).as_str().len(), 254);
    }
}
