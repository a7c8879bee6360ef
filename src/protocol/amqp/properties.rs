//! The properties of a message: read in place, rewritten in parts, or built as a whole.
//!
//! ```text
//! properties = flags (2), list of the properties whose flag is set, in the order of the flags
//! ```
//!
//! The flags' lowest bit announces another word of flags. No property has a flag there, so a
//! further word with anything but its own lowest bit set is malformed. Properties that the broker
//! does not act on are forwarded as they came, text that is not UTF-8 and odd header types included.

use std::ops::Range;

use crate::broker::{
    message::Message,
    value::{self, Table, Value},
};

const CONTENT_TYPE: u16 = 1 << 15;
const CONTENT_ENCODING: u16 = 1 << 14;
const HEADERS: u16 = 1 << 13;
const DELIVERY_MODE: u16 = 1 << 12;
const PRIORITY: u16 = 1 << 11;
const CORRELATION_ID: u16 = 1 << 10;
const REPLY_TO: u16 = 1 << 9;
const EXPIRATION: u16 = 1 << 8;
const MESSAGE_ID: u16 = 1 << 7;
const TIMESTAMP: u16 = 1 << 6;
const MESSAGE_TYPE: u16 = 1 << 5;
const USER_ID: u16 = 1 << 4;
const APP_ID: u16 = 1 << 3;
const CLUSTER_ID: u16 = 1 << 2;
/// Another word of flags follows.
const MORE: u16 = 1;

/// The flags of all properties. The bit between them and `MORE` has none and is ignored, as
/// RabbitMQ does.
const ALL_FLAGS: u16 = 0xFFFC;

/// The properties that the broker acts on, where they lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scan<'a> {
    /// 2 is persistent.
    pub delivery_mode: Option<u8>,
    /// Larger is more urgent.
    pub priority: Option<u8>,
    /// Where answers go.
    pub reply_to: Option<&'a [u8]>,
    /// Milliseconds to live, as text.
    pub expiration: Option<&'a [u8]>,
    /// The publisher's name for the message.
    pub message_id: Option<&'a [u8]>,
    /// Seconds since the epoch.
    pub timestamp: Option<u64>,
    /// Who the publisher says it is.
    pub user_id: Option<&'a [u8]>,
    /// Offset and length of the encoded header table (without its length), zeros without one.
    pub headers: (usize, usize),
}

/// Whether properties that consist of a delivery mode and a content type at most, which most have,
/// are persistent. `None` for all others: [`scan`] knows them.
#[inline]
pub fn peek(raw: &[u8]) -> Option<bool> {
    match *raw {
        [0, 0] => Some(false),
        [0x10, 0, mode @ (1 | 2)] => Some(mode == 2),
        [0x80, 0, len, ref rest @ ..] if rest.len() == len as usize => Some(false),
        [0x90, 0, len, ref rest @ .., mode @ (1 | 2)] if rest.len() == len as usize => Some(mode == 2),
        _ => None,
    }
}

/// Scans properties. `None` when they are malformed, or their header table is, or passes the
/// limits of [`value::check`].
pub fn scan(raw: &[u8]) -> Option<Scan<'_>> {
    let mut scan = Scan::default();
    let mut list = List::new(raw)?;
    while let Some(flag) = list.next_flag() {
        match flag {
            HEADERS => {
                let table = list.table()?;
                value::check(&raw[table.clone()])?;
                scan.headers = (table.start, table.len());
            }
            DELIVERY_MODE => scan.delivery_mode = Some(list.octet()?),
            PRIORITY => scan.priority = Some(list.octet()?),
            REPLY_TO => scan.reply_to = Some(list.short()?),
            EXPIRATION => scan.expiration = Some(list.short()?),
            MESSAGE_ID => scan.message_id = Some(list.short()?),
            TIMESTAMP => scan.timestamp = Some(list.timestamp()?),
            USER_ID => scan.user_id = Some(list.short()?),
            _ => _ = list.short()?,
        }
    }
    list.is_at_end().then_some(scan)
}

/// A place in a list of properties. Readers give `None` when the list ends too early.
struct List<'a> {
    raw: &'a [u8],
    /// Flags of the properties that have not been read.
    flags: u16,
    rest: &'a [u8],
}

impl<'a> List<'a> {
    #[inline]
    fn new(raw: &'a [u8]) -> Option<Self> {
        let (flags, mut rest) = raw.split_first_chunk::<2>()?;
        let flags = u16::from_be_bytes(*flags);
        let mut word = flags & MORE;
        while word != 0 {
            let (next, after) = rest.split_first_chunk::<2>()?;
            word = u16::from_be_bytes(*next);
            if word & !MORE != 0 {
                return None;
            }
            rest = after;
        }
        Some(Self { raw, flags: flags & ALL_FLAGS, rest })
    }

    /// The flag of the property that is next in the list.
    #[inline]
    fn next_flag(&mut self) -> Option<u16> {
        let flag = 0x8000u16.checked_shr(self.flags.leading_zeros())?;
        self.flags &= !flag;
        Some(flag)
    }

    #[inline]
    fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Where the rest of the list is in `raw`.
    #[inline]
    fn at(&self) -> usize {
        self.raw.len() - self.rest.len()
    }

    #[inline]
    fn octet(&mut self) -> Option<u8> {
        let (&octet, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(octet)
    }

    #[inline]
    fn timestamp(&mut self) -> Option<u64> {
        let (octets, rest) = self.rest.split_first_chunk::<8>()?;
        self.rest = rest;
        Some(u64::from_be_bytes(*octets))
    }

    #[inline]
    fn short(&mut self) -> Option<&'a [u8]> {
        let (&len, rest) = self.rest.split_first()?;
        let (text, rest) = rest.split_at_checked(len as usize)?;
        self.rest = rest;
        Some(text)
    }

    fn text(&mut self) -> Option<String> {
        self.short().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// The place in `raw` of the table that is next, without its length.
    #[inline]
    fn table(&mut self) -> Option<Range<usize>> {
        let (len, rest) = self.rest.split_first_chunk::<4>()?;
        let (table, rest) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        self.rest = rest;
        Some(self.at() - table.len()..self.at())
    }

    /// The encoded value of the property that is next, with its length if it has one.
    fn encoded(&mut self, flag: u16) -> Option<&'a [u8]> {
        let start = self.at();
        match flag {
            HEADERS => _ = self.table()?,
            DELIVERY_MODE | PRIORITY => _ = self.octet()?,
            TIMESTAMP => _ = self.timestamp()?,
            _ => _ = self.short()?,
        }
        Some(&self.raw[start..self.at()])
    }
}

/// All properties but the headers, where they lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields<'a> {
    /// MIME type of the body.
    pub content_type: Option<&'a [u8]>,
    /// MIME encoding of the body.
    pub content_encoding: Option<&'a [u8]>,
    /// 2 is persistent.
    pub delivery_mode: Option<u8>,
    /// Larger is more urgent.
    pub priority: Option<u8>,
    /// What the message answers.
    pub correlation_id: Option<&'a [u8]>,
    /// Where answers go.
    pub reply_to: Option<&'a [u8]>,
    /// Milliseconds to live, as text.
    pub expiration: Option<&'a [u8]>,
    /// The publisher's name for the message.
    pub message_id: Option<&'a [u8]>,
    /// Seconds since the epoch.
    pub timestamp: Option<u64>,
    /// The publisher's name for the kind of message.
    pub message_type: Option<&'a [u8]>,
    /// Who the publisher says it is.
    pub user_id: Option<&'a [u8]>,
    /// The publisher's name for its program.
    pub app_id: Option<&'a [u8]>,
    /// Offset and length of the encoded header table (without its length), zeros without one.
    pub headers: (usize, usize),
}

impl<'a> Fields<'a> {
    /// Reads properties; `None` when they are malformed. The header table is not looked at.
    pub fn read(raw: &'a [u8]) -> Option<Self> {
        let mut fields = Self::default();
        let mut list = List::new(raw)?;
        while let Some(flag) = list.next_flag() {
            match flag {
                CONTENT_TYPE => fields.content_type = Some(list.short()?),
                CONTENT_ENCODING => fields.content_encoding = Some(list.short()?),
                HEADERS => {
                    let table = list.table()?;
                    fields.headers = (table.start, table.len());
                }
                DELIVERY_MODE => fields.delivery_mode = Some(list.octet()?),
                PRIORITY => fields.priority = Some(list.octet()?),
                CORRELATION_ID => fields.correlation_id = Some(list.short()?),
                REPLY_TO => fields.reply_to = Some(list.short()?),
                EXPIRATION => fields.expiration = Some(list.short()?),
                MESSAGE_ID => fields.message_id = Some(list.short()?),
                TIMESTAMP => fields.timestamp = Some(list.timestamp()?),
                MESSAGE_TYPE => fields.message_type = Some(list.short()?),
                USER_ID => fields.user_id = Some(list.short()?),
                APP_ID => fields.app_id = Some(list.short()?),
                _ => _ = list.short()?,
            }
        }
        list.is_at_end().then_some(fields)
    }

    /// Appends these properties, with an encoded header table unless that is empty. Returns where the
    /// table is, zeros without one. A text is cut at 255 octets.
    pub fn encode(&self, headers: &[u8], out: &mut Vec<u8>) -> (usize, usize) {
        let at = out.len();
        out.extend_from_slice(&[0, 0]);
        let mut flags = 0;
        let mut table = (0, 0);
        let mut short = |flag: u16, text: Option<&[u8]>, out: &mut Vec<u8>| {
            if let Some(text) = text {
                flags |= flag;
                put_short(text, out);
            }
        };
        short(CONTENT_TYPE, self.content_type, out);
        short(CONTENT_ENCODING, self.content_encoding, out);
        let mut more = 0;
        if !headers.is_empty() {
            more |= HEADERS;
            put_table(headers, out);
            table = (out.len() - headers.len() - at, headers.len());
        }
        for (flag, octet) in [(DELIVERY_MODE, self.delivery_mode), (PRIORITY, self.priority)] {
            if let Some(octet) = octet {
                more |= flag;
                out.push(octet);
            }
        }
        short(CORRELATION_ID, self.correlation_id, out);
        short(REPLY_TO, self.reply_to, out);
        short(EXPIRATION, self.expiration, out);
        short(MESSAGE_ID, self.message_id, out);
        if let Some(secs) = self.timestamp {
            more |= TIMESTAMP;
            out.extend_from_slice(&secs.to_be_bytes());
        }
        short(MESSAGE_TYPE, self.message_type, out);
        short(USER_ID, self.user_id, out);
        short(APP_ID, self.app_id, out);
        out[at..at + 2].copy_from_slice(&(flags | more).to_be_bytes());
        table
    }
}

/// The parts of properties to replace.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rewrite<'a> {
    /// The header table that takes the place of the old one, encoded; `Some(None)` for none.
    pub headers: Option<Option<&'a [u8]>>,
    /// Take the time to live away.
    pub without_expiration: bool,
    /// Where answers go now.
    pub reply_to: Option<&'a [u8]>,
}

/// The properties of a traced message in the order in which RabbitMQ shows them, the last first.
pub fn show(message: &Message) -> Table {
    let mut table = Table::new();
    let Some(all) = Properties::decode(message.properties()) else { return table };
    let text = |text: Option<String>| text.map(Value::text);
    let octet = |octet: Option<u8>| octet.map(|octet| Value::I32(octet.into()));
    let headers = all.headers.map(|_| Value::Table(message.headers().to_table()));
    for (name, value) in [
        ("cluster_id", text(all.cluster_id)),
        ("app_id", text(all.app_id)),
        ("user_id", text(all.user_id)),
        ("type", text(all.message_type)),
        ("timestamp", all.timestamp.map(|secs| Value::I32(secs as i32))),
        ("message_id", text(all.message_id)),
        ("expiration", text(all.expiration)),
        ("reply_to", text(all.reply_to)),
        ("correlation_id", text(all.correlation_id)),
        ("priority", octet(all.priority)),
        ("delivery_mode", octet(all.delivery_mode)),
        ("headers", headers),
        ("content_encoding", text(all.content_encoding)),
        ("content_type", text(all.content_type)),
    ] {
        if let Some(value) = value {
            table.push(name, value);
        }
    }
    table
}

/// Appends `raw` with parts replaced; every other property is copied as it is. Properties that
/// [`scan`] refuses are copied as a whole.
pub fn rewrite(raw: &[u8], rewrite: &Rewrite<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    if rewrite_list(raw, rewrite, out).is_none() {
        out.truncate(start);
        out.extend_from_slice(raw);
    }
}

fn rewrite_list(raw: &[u8], rewrite: &Rewrite<'_>, out: &mut Vec<u8>) -> Option<()> {
    // A message that the broker made has nothing but headers.
    let raw = if raw.is_empty() && rewrite.headers.is_some() { &[0, 0] } else { raw };
    let mut list = List::new(raw)?;
    let old_flags = u16::from_be_bytes(*raw.first_chunk::<2>()?);
    let mut flags = old_flags;
    let flags_at = out.len();
    out.extend_from_slice(&raw[..list.at()]);
    // Absent properties are visited too: one of them may have to be put in.
    for flag in (2..16).rev().map(|bit| 1 << bit) {
        let old = if old_flags & flag != 0 { Some(list.encoded(flag)?) } else { None };
        let is_kept = match (flag, *rewrite) {
            (HEADERS, Rewrite { headers: Some(new), .. }) => {
                if let Some(new) = new {
                    put_table(new, out);
                }
                new.is_some()
            }
            (EXPIRATION, Rewrite { without_expiration: true, .. }) => false,
            (REPLY_TO, Rewrite { reply_to: Some(new), .. }) => {
                put_short(new, out);
                true
            }
            _ => {
                out.extend_from_slice(old.unwrap_or_default());
                old.is_some()
            }
        };
        flags = if is_kept { flags | flag } else { flags & !flag };
    }
    out[flags_at..flags_at + 2].copy_from_slice(&flags.to_be_bytes());
    list.is_at_end().then_some(())
}

fn put_short(bytes: &[u8], out: &mut Vec<u8>) {
    let bytes = &bytes[..bytes.len().min(u8::MAX as usize)];
    out.push(bytes.len() as u8);
    out.extend_from_slice(bytes);
}

fn put_table(encoded: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(encoded.len() as u32).to_be_bytes());
    out.extend_from_slice(encoded);
}

/// All properties, decoded, for building and listing them. Text that is not UTF-8 is replaced
/// character by character in decoding.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties {
    /// MIME type of the body.
    pub content_type: Option<String>,
    /// MIME encoding of the body.
    pub content_encoding: Option<String>,
    /// The header table.
    pub headers: Option<Table>,
    /// 2 is persistent.
    pub delivery_mode: Option<u8>,
    /// Larger is more urgent.
    pub priority: Option<u8>,
    /// What the message answers.
    pub correlation_id: Option<String>,
    /// Where answers go.
    pub reply_to: Option<String>,
    /// Milliseconds to live, as text.
    pub expiration: Option<String>,
    /// The publisher's name for the message.
    pub message_id: Option<String>,
    /// Seconds since the epoch.
    pub timestamp: Option<u64>,
    /// The publisher's name for the kind of message.
    pub message_type: Option<String>,
    /// Who the publisher says it is.
    pub user_id: Option<String>,
    /// The publisher's name for its program.
    pub app_id: Option<String>,
    /// Not used by anybody.
    pub cluster_id: Option<String>,
}

impl Properties {
    /// Flags and list. A text is cut at 255 octets.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0, 0];
        let mut flags = 0;
        let short = |flag: u16, text: &Option<String>, flags: &mut u16, out: &mut Vec<u8>| {
            if let Some(text) = text {
                *flags |= flag;
                put_short(&text.as_bytes()[..text.floor_char_boundary(u8::MAX as usize)], out);
            }
        };
        short(CONTENT_TYPE, &self.content_type, &mut flags, &mut out);
        short(CONTENT_ENCODING, &self.content_encoding, &mut flags, &mut out);
        if let Some(headers) = &self.headers {
            flags |= HEADERS;
            let mut encoded = Vec::new();
            headers.encode(&mut encoded);
            put_table(&encoded, &mut out);
        }
        for (flag, octet) in [(DELIVERY_MODE, self.delivery_mode), (PRIORITY, self.priority)] {
            if let Some(octet) = octet {
                flags |= flag;
                out.push(octet);
            }
        }
        short(CORRELATION_ID, &self.correlation_id, &mut flags, &mut out);
        short(REPLY_TO, &self.reply_to, &mut flags, &mut out);
        short(EXPIRATION, &self.expiration, &mut flags, &mut out);
        short(MESSAGE_ID, &self.message_id, &mut flags, &mut out);
        if let Some(secs) = self.timestamp {
            flags |= TIMESTAMP;
            out.extend_from_slice(&secs.to_be_bytes());
        }
        short(MESSAGE_TYPE, &self.message_type, &mut flags, &mut out);
        short(USER_ID, &self.user_id, &mut flags, &mut out);
        short(APP_ID, &self.app_id, &mut flags, &mut out);
        short(CLUSTER_ID, &self.cluster_id, &mut flags, &mut out);
        out[..2].copy_from_slice(&flags.to_be_bytes());
        out
    }

    /// Decodes flags and list; `None` when [`scan`] refuses them.
    pub fn decode(raw: &[u8]) -> Option<Self> {
        let mut properties = Self::default();
        let mut list = List::new(raw)?;
        while let Some(flag) = list.next_flag() {
            match flag {
                CONTENT_TYPE => properties.content_type = Some(list.text()?),
                CONTENT_ENCODING => properties.content_encoding = Some(list.text()?),
                HEADERS => properties.headers = Some(Table::decode(&raw[list.table()?])?),
                DELIVERY_MODE => properties.delivery_mode = Some(list.octet()?),
                PRIORITY => properties.priority = Some(list.octet()?),
                CORRELATION_ID => properties.correlation_id = Some(list.text()?),
                REPLY_TO => properties.reply_to = Some(list.text()?),
                EXPIRATION => properties.expiration = Some(list.text()?),
                MESSAGE_ID => properties.message_id = Some(list.text()?),
                TIMESTAMP => properties.timestamp = Some(list.timestamp()?),
                MESSAGE_TYPE => properties.message_type = Some(list.text()?),
                USER_ID => properties.user_id = Some(list.text()?),
                APP_ID => properties.app_id = Some(list.text()?),
                _ => properties.cluster_id = Some(list.text()?),
            }
        }
        list.is_at_end().then_some(properties)
    }
}

#[cfg(test)]
mod tests {
    use crate::broker::value::{Headers, TABLE_DEPTH_MAX, Value};

    use super::*;

    fn full() -> Properties {
        let text = |text: &str| Some(text.to_owned());
        Properties {
            content_type: text("text/plain"),
            content_encoding: text("utf-8"),
            headers: Some(Table::from_iter([("z", Value::I32(1)), ("a", Value::text("b"))])),
            delivery_mode: Some(2),
            priority: Some(5),
            correlation_id: text("corr"),
            reply_to: text("replies"),
            expiration: text("60000"),
            message_id: text("m-1"),
            timestamp: Some(1_700_000_000),
            message_type: text("order"),
            user_id: text("guest"),
            app_id: text("app"),
            cluster_id: text("c"),
        }
    }

    #[test]
    fn properties_decode_to_what_was_encoded() {
        assert_eq!(Properties::decode(&full().encode()), Some(full()));
        assert_eq!(Properties::default().encode(), [0, 0]);
        assert_eq!(Properties::decode(&[0, 0]), Some(Properties::default()));
    }

    #[test]
    fn a_scan_finds_what_the_broker_acts_on() {
        let raw = full().encode();
        let scan = scan(&raw).expect("well formed");
        assert_eq!((scan.delivery_mode, scan.priority, scan.timestamp), (Some(2), Some(5), Some(1_700_000_000)));
        assert_eq!((scan.reply_to, scan.expiration), (Some(&b"replies"[..]), Some(&b"60000"[..])));
        assert_eq!((scan.message_id, scan.user_id), (Some(&b"m-1"[..]), Some(&b"guest"[..])));
        let (at, len) = scan.headers;
        assert_eq!(Headers::new(&raw[at..at + len]).get("z").and_then(|value| value.as_integer()), Some(1));
    }

    #[test]
    fn fields_are_read_and_written_as_they_are() {
        let properties = Properties { cluster_id: None, ..full() };
        let raw = properties.encode();
        let fields = Fields::read(&raw).expect("well formed");
        let mut out = b"before".to_vec();
        let table = fields.encode(&raw[fields.headers.0..][..fields.headers.1], &mut out);
        assert_eq!(&out[6..], raw);
        assert_eq!(table, fields.headers);
        out.clear();
        assert_eq!(Fields::default().encode(&[], &mut out), (0, 0));
        assert_eq!(out, [0, 0]);
    }

    #[test]
    fn properties_that_are_cut_short_or_too_long_are_malformed() {
        for properties in [
            Properties::default(),
            Properties { delivery_mode: Some(2), ..Properties::default() },
            Properties { content_type: Some("text/plain".into()), ..Properties::default() },
            Properties { content_type: Some(String::new()), delivery_mode: Some(1), ..Properties::default() },
        ] {
            let raw = properties.encode();
            assert_eq!(scan(&raw).map(|scan| scan.delivery_mode), Some(properties.delivery_mode));
            for len in 0..raw.len() {
                assert_eq!(scan(&raw[..len]), None);
            }
            assert_eq!(scan(&[&raw[..], &[0]].concat()), None);
        }
    }

    #[test]
    fn properties_cut_short_or_too_long_are_refused() {
        let mut raw = full().encode();
        for len in 0..raw.len() {
            assert_eq!(scan(&raw[..len]), None);
        }
        raw.push(0);
        assert_eq!(scan(&raw), None);
    }

    #[test]
    fn text_that_is_not_utf8_is_accepted() {
        let raw = [0x02, 0, 2, 0xFF, 0xFE];
        assert_eq!(scan(&raw).and_then(|scan| scan.reply_to), Some(&[0xFF, 0xFE][..]));
    }

    #[test]
    fn a_peek_agrees_with_a_scan() {
        let mode = |mode| Scan { delivery_mode: mode, ..Scan::default() };
        for (raw, peeked, scanned) in [
            (&[0, 0][..], Some(false), Some(mode(None))),
            (&[0x10, 0, 1], Some(false), Some(mode(Some(1)))),
            (&[0x10, 0, 2], Some(true), Some(mode(Some(2)))),
            (&[0x10, 0, 3], None, Some(mode(Some(3)))),
            (&[0x80, 0, 1, b'a'], Some(false), Some(mode(None))),
            (&[0x80, 0, 2, b'a'], None, None),
            (&[0x90, 0, 1, b'a', 2], Some(true), Some(mode(Some(2)))),
            (&[0x90, 0, 1, b'a', 0], None, Some(mode(Some(0)))),
            (&[0x90, 0, 2, b'a', 2], None, None),
            (&[0x18, 0, 2, 5], None, Some(Scan { priority: Some(5), ..mode(Some(2)) })),
            (&[0], None, None),
        ] {
            assert_eq!((peek(raw), scan(raw)), (peeked, scanned), "{raw:?}");
        }
    }

    #[test]
    fn further_words_of_flags_are_skipped_when_they_are_empty() {
        assert_eq!(scan(&[0x10, 1, 0, 0, 2]).and_then(|scan| scan.delivery_mode), Some(2));
        assert_eq!(scan(&[0x10, 1, 0, 1, 0, 0, 2]).and_then(|scan| scan.delivery_mode), Some(2));
        assert_eq!(scan(&[0x10, 1, 0x80, 0, 2]), None);
        assert_eq!(scan(&[0, 1]), None);
        assert_eq!(scan(&[0, 1].repeat(1000)), None);
    }

    #[test]
    fn headers_nested_too_deeply_are_refused() {
        let mut value = Value::Void;
        for _ in 0..=TABLE_DEPTH_MAX {
            value = Value::Array(vec![value]);
        }
        let properties = Properties { headers: Some(Table::from_iter([("deep", value)])), ..Properties::default() };
        assert_eq!(scan(&properties.encode()), None);
    }

    #[test]
    fn a_rewrite_replaces_only_its_parts() {
        let mut new = Vec::new();
        let headers = Table::from_iter([("x-death", Value::Bool(true))]);
        headers.encode(&mut new);
        let mut out = b"before".to_vec();
        let change = Rewrite { headers: Some(Some(&new)), without_expiration: true, reply_to: Some(b"elsewhere") };
        rewrite(&full().encode(), &change, &mut out);
        let expected = Properties {
            headers: Some(headers.clone()),
            expiration: None,
            reply_to: Some("elsewhere".into()),
            ..full()
        };
        assert_eq!(&out[..6], b"before");
        assert_eq!(&out[6..], expected.encode());

        out.clear();
        rewrite(&[0, 0], &change, &mut out);
        let expected =
            Properties { headers: Some(headers), reply_to: Some("elsewhere".into()), ..Properties::default() };
        assert_eq!(out, expected.encode());

        out.clear();
        rewrite(&full().encode(), &Rewrite { headers: Some(None), ..Rewrite::default() }, &mut out);
        assert_eq!(out, Properties { headers: None, ..full() }.encode());
    }

    #[test]
    fn a_rewrite_without_changes_copies_every_byte() {
        for raw in [full().encode(), vec![0, 0], vec![0x12, 3, 0, 0, 2, 1, 0xFF], vec![1, 2, 3]] {
            let mut out = Vec::new();
            rewrite(&raw, &Rewrite::default(), &mut out);
            assert_eq!(out, raw);
        }
    }
}
