//! Typed values of arguments and message headers, and the byte layout in which headers are kept.
//!
//! A [`Table`] is the decoded form, for arguments of queues, exchanges, bindings and consumers.
//! Message headers stay encoded; [`Headers`] reads them in place and [`HeadersBuilder`] writes
//! them. The encoding is a sequence of `name value` pairs without an outer length:
//!
//! ```text
//! name  = length (1 byte) + bytes
//! value = kind (1 byte, as in Kind) + payload, integers big-endian,
//!         text/bytes/table/array with a 4-byte length in front
//! ```
//!
//! Protocols hand over headers only after [`check`] has walked them, so readers here treat a
//! malformed tail as the end of the table and never panic.

use std::fmt;

use bytes::BufMut;

/// Deepest nesting of tables and arrays that is accepted.
pub const TABLE_DEPTH_MAX: usize = 32;
/// Most entries (in all nested tables and arrays together) that are accepted.
pub const TABLE_ENTRIES_MAX: usize = 4096;

/// A value of an argument or header. Integers keep their declared width.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `t`
    Bool(bool),
    /// `b`
    I8(i8),
    /// `B`
    U8(u8),
    /// `s` (also accepted: `U`)
    I16(i16),
    /// `u`
    U16(u16),
    /// `I`
    I32(i32),
    /// `i`
    U32(u32),
    /// `l` (also accepted: `L`)
    I64(i64),
    /// `f`
    F32(f32),
    /// `d`
    F64(f64),
    /// `D`: value / 10^scale
    Decimal {
        /// Number of decimal digits after the point.
        scale: u8,
        /// The unscaled value.
        value: i32,
    },
    /// `S`: text by convention, but any bytes.
    Text(Vec<u8>),
    /// `A`
    Array(Vec<Value>),
    /// `T`: seconds since the epoch.
    Timestamp(u64),
    /// `F`
    Table(Table),
    /// `V`
    Void,
    /// `x`
    Bytes(Vec<u8>),
}

impl Value {
    /// A text value.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into().into_bytes())
    }

    /// The integer that any integer kind holds.
    pub fn as_integer(&self) -> Option<i64> {
        Some(match *self {
            Self::I8(n) => n.into(),
            Self::U8(n) => n.into(),
            Self::I16(n) => n.into(),
            Self::U16(n) => n.into(),
            Self::I32(n) => n.into(),
            Self::U32(n) => n.into(),
            Self::I64(n) => n,
            _ => return None,
        })
    }

    /// The text, when this is text in UTF-8.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The flag, when this is a boolean.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    /// The name of the kind as RabbitMQ prints it in error texts and listings.
    pub fn kind_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::I8(_) => "byte",
            Self::U8(_) => "unsignedbyte",
            Self::I16(_) => "short",
            Self::U16(_) => "unsignedshort",
            Self::I32(_) => "signedint",
            Self::U32(_) => "unsignedint",
            Self::I64(_) => "long",
            Self::F32(_) => "float",
            Self::F64(_) => "double",
            Self::Decimal { .. } => "decimal",
            Self::Text(_) => "longstr",
            Self::Array(_) => "array",
            Self::Timestamp(_) => "timestamp",
            Self::Table(_) => "table",
            Self::Void => "void",
            Self::Bytes(_) => "binary",
        }
    }

    /// Equality as redeclaration sees it: integers compare by number whatever their width.
    pub fn is_equivalent(&self, other: &Self) -> bool {
        match (self.as_integer(), other.as_integer()) {
            (Some(a), Some(b)) => a == b,
            _ => self == other,
        }
    }

    /// Appends kind and payload in the header encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bool(flag) => out.extend([b't', u8::from(*flag)]),
            Self::I8(n) => {
                out.put_u8(b'b');
                out.put_i8(*n);
            }
            Self::U8(n) => out.extend([b'B', *n]),
            Self::I16(n) => {
                out.put_u8(b's');
                out.put_i16(*n);
            }
            Self::U16(n) => {
                out.put_u8(b'u');
                out.put_u16(*n);
            }
            Self::I32(n) => {
                out.put_u8(b'I');
                out.put_i32(*n);
            }
            Self::U32(n) => {
                out.put_u8(b'i');
                out.put_u32(*n);
            }
            Self::I64(n) => {
                out.put_u8(b'l');
                out.put_i64(*n);
            }
            Self::F32(n) => {
                out.put_u8(b'f');
                out.put_f32(*n);
            }
            Self::F64(n) => {
                out.put_u8(b'd');
                out.put_f64(*n);
            }
            Self::Decimal { scale, value } => {
                out.extend([b'D', *scale]);
                out.put_i32(*value);
            }
            Self::Text(bytes) => {
                out.push(b'S');
                encode_long(bytes, out);
            }
            Self::Bytes(bytes) => {
                out.push(b'x');
                encode_long(bytes, out);
            }
            Self::Timestamp(secs) => {
                out.put_u8(b'T');
                out.put_u64(*secs);
            }
            Self::Void => out.push(b'V'),
            Self::Array(items) => {
                out.push(b'A');
                let at = begin_length(out);
                for item in items {
                    item.encode(out);
                }
                end_length(out, at);
            }
            Self::Table(table) => {
                out.push(b'F');
                let at = begin_length(out);
                table.encode(out);
                end_length(out, at);
            }
        }
    }
}

impl fmt::Display for Value {
    /// The form that RabbitMQ prints in `received '..' but current is '..'`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(flag) => write!(f, "{flag}"),
            Self::Text(bytes) | Self::Bytes(bytes) => write!(f, "{}", String::from_utf8_lossy(bytes)),
            Self::Timestamp(secs) => write!(f, "{secs}"),
            Self::F32(n) => write!(f, "{n}"),
            Self::F64(n) => write!(f, "{n}"),
            Self::Decimal { scale, value } => write!(f, "{{{scale},{value}}}"),
            Self::Void => write!(f, "undefined"),
            Self::Array(items) => {
                f.write_str("[")?;
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if i > 0 { "," } else { "" })?;
                }
                f.write_str("]")
            }
            Self::Table(table) => {
                f.write_str("[")?;
                for (i, (name, value)) in table.iter().enumerate() {
                    write!(f, "{}{{{name},{value}}}", if i > 0 { "," } else { "" })?;
                }
                f.write_str("]")
            }
            other => write!(f, "{}", other.as_integer().unwrap_or_default()),
        }
    }
}

/// An ordered list of named values; the first of a repeated name counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table(Vec<(String, Value)>);

impl Table {
    /// An empty table.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Appends an entry, or replaces the value of an entry of that name.
    pub fn set(&mut self, name: impl Into<String>, value: Value) {
        let name = name.into();
        match self.0.iter_mut().find(|(key, _)| *key == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    /// Appends an entry without looking for an earlier one of that name.
    pub fn push(&mut self, name: impl Into<String>, value: Value) {
        self.0.push((name.into(), value));
    }

    /// Orders the entries by name.
    pub fn sort(&mut self) {
        self.0.sort_by(|(a, _), (b, _)| a.cmp(b));
    }

    /// Removes an entry.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let at = self.0.iter().position(|(key, _)| key == name)?;
        Some(self.0.remove(at).1)
    }

    /// The entries in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True without entries.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends all entries in the header encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for (name, value) in self.iter() {
            encode_name(name.as_bytes(), out);
            value.encode(out);
        }
    }

    /// Decodes a whole encoded table; `None` when it is malformed, too deep or too long.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        check(bytes)?;
        Some(Headers::new(bytes).to_table())
    }
}

impl<N: Into<String>> FromIterator<(N, Value)> for Table {
    fn from_iter<I: IntoIterator<Item = (N, Value)>>(entries: I) -> Self {
        Self(entries.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }
}

/// Encoded headers, read in place.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<'a>(&'a [u8]);

impl<'a> Headers<'a> {
    /// Headers over bytes that [`check`] has accepted.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The encoded bytes.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// True without entries.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The first value of that name.
    pub fn get(self, name: &str) -> Option<ValueRef<'a>> {
        self.iter().find(|(key, _)| *key == name.as_bytes()).map(|(_, value)| value)
    }

    /// All entries in their order.
    pub fn iter(self) -> Entries<'a> {
        Entries(self.0)
    }

    /// The decoded form; names that are not UTF-8 are replaced character by character.
    pub fn to_table(self) -> Table {
        Table(self.iter().map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), value.to_value())).collect())
    }
}

/// Iterator over encoded headers.
#[derive(Clone, Debug)]
pub struct Entries<'a>(&'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a [u8], ValueRef<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (&len, rest) = self.0.split_first()?;
        let (name, rest) = rest.split_at_checked(len as usize)?;
        let (value, rest) = ValueRef::split(rest)?;
        self.0 = rest;
        Some((name, value))
    }
}

/// One encoded value: its kind byte and payload (without the length of text, tables and arrays).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValueRef<'a> {
    /// The kind byte.
    pub kind: u8,
    /// The payload.
    pub payload: &'a [u8],
}

impl<'a> ValueRef<'a> {
    /// Splits the first encoded value off `bytes`.
    pub fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (&kind, rest) = bytes.split_first()?;
        let (len, rest) = match kind {
            b't' | b'b' | b'B' => (1, rest),
            b's' | b'U' | b'u' => (2, rest),
            b'I' | b'i' | b'f' => (4, rest),
            b'D' => (5, rest),
            b'l' | b'L' | b'd' | b'T' => (8, rest),
            b'V' => (0, rest),
            b'S' | b'x' | b'A' | b'F' => {
                let (len, rest) = rest.split_first_chunk::<4>()?;
                (u32::from_be_bytes(*len) as usize, rest)
            }
            _ => return None,
        };
        let (payload, rest) = rest.split_at_checked(len)?;
        Some((Self { kind, payload }, rest))
    }

    /// The integer that any integer kind holds.
    pub fn as_integer(self) -> Option<i64> {
        let payload = self.payload;
        Some(match self.kind {
            b'b' => i8::from_be_bytes(payload.try_into().ok()?).into(),
            b'B' => u8::from_be_bytes(payload.try_into().ok()?).into(),
            b's' | b'U' => i16::from_be_bytes(payload.try_into().ok()?).into(),
            b'u' => u16::from_be_bytes(payload.try_into().ok()?).into(),
            b'I' => i32::from_be_bytes(payload.try_into().ok()?).into(),
            b'i' => u32::from_be_bytes(payload.try_into().ok()?).into(),
            b'l' | b'L' => i64::from_be_bytes(payload.try_into().ok()?),
            _ => return None,
        })
    }

    /// The bytes of text.
    pub fn as_text_bytes(self) -> Option<&'a [u8]> {
        (self.kind == b'S').then_some(self.payload)
    }

    /// The text, when this is text in UTF-8.
    pub fn as_text(self) -> Option<&'a str> {
        self.as_text_bytes().and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// The entries of a nested table.
    pub fn as_headers(self) -> Option<Headers<'a>> {
        (self.kind == b'F').then_some(Headers(self.payload))
    }

    /// The items of an array.
    pub fn as_array(self) -> Option<Items<'a>> {
        (self.kind == b'A').then_some(Items(self.payload))
    }

    /// The decoded form.
    pub fn to_value(self) -> Value {
        self.decode_at(0)
    }

    fn decode_at(self, depth: usize) -> Value {
        fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
            bytes.try_into().unwrap_or([0; N])
        }
        let payload = self.payload;
        match self.kind {
            b't' => Value::Bool(payload.first().is_some_and(|&b| b != 0)),
            b'b' => Value::I8(i8::from_be_bytes(array(payload))),
            b'B' => Value::U8(u8::from_be_bytes(array(payload))),
            b's' | b'U' => Value::I16(i16::from_be_bytes(array(payload))),
            b'u' => Value::U16(u16::from_be_bytes(array(payload))),
            b'I' => Value::I32(i32::from_be_bytes(array(payload))),
            b'i' => Value::U32(u32::from_be_bytes(array(payload))),
            b'l' | b'L' => Value::I64(i64::from_be_bytes(array(payload))),
            b'f' => Value::F32(f32::from_be_bytes(array(payload))),
            b'd' => Value::F64(f64::from_be_bytes(array(payload))),
            b'D' => Value::Decimal {
                scale: payload.first().copied().unwrap_or_default(),
                value: i32::from_be_bytes(array(payload.get(1..).unwrap_or_default())),
            },
            b'S' => Value::Text(payload.to_vec()),
            b'x' => Value::Bytes(payload.to_vec()),
            b'T' => Value::Timestamp(u64::from_be_bytes(array(payload))),
            b'A' if depth < TABLE_DEPTH_MAX => {
                Value::Array(Items(payload).map(|item| item.decode_at(depth + 1)).collect())
            }
            b'F' if depth < TABLE_DEPTH_MAX => Value::Table(Table(
                Entries(payload)
                    .map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), value.decode_at(depth + 1)))
                    .collect(),
            )),
            _ => Value::Void,
        }
    }
}

/// Iterator over the items of an encoded array.
#[derive(Clone, Debug)]
pub struct Items<'a>(&'a [u8]);

impl<'a> Iterator for Items<'a> {
    type Item = ValueRef<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let (value, rest) = ValueRef::split(self.0)?;
        self.0 = rest;
        Some(value)
    }
}

/// Walks an encoded table and says whether it is well formed, at most [`TABLE_DEPTH_MAX`] deep and
/// [`TABLE_ENTRIES_MAX`] entries long. `None` when it is not.
pub fn check(bytes: &[u8]) -> Option<()> {
    let mut entries_left = TABLE_ENTRIES_MAX;
    check_table(bytes, TABLE_DEPTH_MAX, &mut entries_left)
}

fn check_table(mut bytes: &[u8], depth_left: usize, entries_left: &mut usize) -> Option<()> {
    while let Some((&len, rest)) = bytes.split_first() {
        let (_, rest) = rest.split_at_checked(len as usize)?;
        bytes = check_value(rest, depth_left, entries_left)?;
    }
    Some(())
}

fn check_value<'a>(bytes: &'a [u8], depth_left: usize, entries_left: &mut usize) -> Option<&'a [u8]> {
    *entries_left = entries_left.checked_sub(1)?;
    let (value, rest) = ValueRef::split(bytes)?;
    match value.kind {
        b'F' => check_table(value.payload, depth_left.checked_sub(1)?, entries_left)?,
        b'A' => {
            let depth_left = depth_left.checked_sub(1)?;
            let mut items = value.payload;
            while !items.is_empty() {
                items = check_value(items, depth_left, entries_left)?;
            }
        }
        _ => {}
    }
    Some(rest)
}

/// Writes encoded headers.
#[derive(Debug, Default)]
pub struct HeadersBuilder(Vec<u8>);

impl HeadersBuilder {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty table with room for so many octets.
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Appends a decoded value.
    pub fn push(&mut self, name: &str, value: &Value) {
        encode_name(name.as_bytes(), &mut self.0);
        value.encode(&mut self.0);
    }

    /// Appends an encoded value unchanged.
    pub fn push_ref(&mut self, name: &[u8], value: ValueRef<'_>) {
        encode_name(name, &mut self.0);
        self.0.push(value.kind);
        if matches!(value.kind, b'S' | b'x' | b'A' | b'F') {
            encode_long(value.payload, &mut self.0);
        } else {
            self.0.extend_from_slice(value.payload);
        }
    }

    /// Appends the entries of `headers` for which `keep` holds, unchanged and in their order.
    pub fn extend(&mut self, headers: Headers<'_>, mut keep: impl FnMut(&[u8]) -> bool) {
        for (name, value) in headers.iter() {
            if keep(name) {
                self.push_ref(name, value);
            }
        }
    }

    /// The encoded table.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

fn encode_name(name: &[u8], out: &mut Vec<u8>) {
    let name = &name[..name.len().min(255)];
    out.push(name.len() as u8);
    out.extend_from_slice(name);
}

fn encode_long(bytes: &[u8], out: &mut Vec<u8>) {
    out.put_u32(bytes.len() as u32);
    out.put_slice(bytes);
}

fn begin_length(out: &mut Vec<u8>) -> usize {
    out.extend([0; 4]);
    out.len()
}

fn end_length(out: &mut [u8], at: usize) {
    let len = (out.len() - at) as u32;
    out[at - 4..at].copy_from_slice(&len.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut inner = Table::new();
        inner.push("n", Value::I64(-5));
        let mut table = Table::new();
        table.push("flag", Value::Bool(true));
        table.push("list", Value::Array(vec![Value::text("a"), Value::Void, Value::Table(inner)]));
        table.push("price", Value::Decimal { scale: 2, value: 1999 });
        table.push("at", Value::Timestamp(1_700_000_000));
        table
    }

    #[test]
    fn a_table_decodes_to_what_was_encoded() {
        let mut bytes = Vec::new();
        sample().encode(&mut bytes);
        assert_eq!(Table::decode(&bytes), Some(sample()));
    }

    #[test]
    fn a_truncated_table_is_refused() {
        let mut bytes = Vec::new();
        sample().encode(&mut bytes);
        for len in 1..bytes.len() {
            if let Some(table) = Table::decode(&bytes[..len]) {
                assert!(table.len() < sample().len());
            }
        }
    }

    #[test]
    fn nesting_beyond_the_limit_is_refused() {
        let mut value = Value::Void;
        for _ in 0..=TABLE_DEPTH_MAX {
            value = Value::Array(vec![value]);
        }
        let mut bytes = Vec::new();
        Table::from_iter([("deep", value)]).encode(&mut bytes);
        assert_eq!(check(&bytes), None);
    }

    #[test]
    fn integers_of_different_width_are_equivalent() {
        assert!(Value::I16(10).is_equivalent(&Value::I64(10)));
        assert!(!Value::I16(10).is_equivalent(&Value::text("10")));
    }

    #[test]
    fn entries_pass_through_the_builder_unchanged() {
        let mut bytes = Vec::new();
        sample().encode(&mut bytes);
        let mut builder = HeadersBuilder::new();
        builder.extend(Headers::new(&bytes), |_| true);
        assert_eq!(builder.finish(), bytes);
    }
}
