//! Octets on the wire as lines of text and back: one line an event, written as the recording of
//! RabbitMQ writes it, with what differs from run to run replaced by a placeholder.
//!
//! Knows the wire and nothing of the code under test, so that neither hides the other's mistakes.

use std::fmt::Write as _;

/// Name, class, method, and fields as `name:type`. Types: o octet, h short, l long, q longlong,
/// s short string, S long string, F table, b bit.
const METHODS: &[(&str, u16, u16, &str)] = &[
    ("connection.start", 10, 10, "major:o minor:o properties:F mechanisms:S locales:S"),
    ("connection.start-ok", 10, 11, "properties:F mechanism:s response:S locale:s"),
    ("connection.tune", 10, 30, "channel_max:h frame_max:l heartbeat:h"),
    ("connection.tune-ok", 10, 31, "channel_max:h frame_max:l heartbeat:h"),
    ("connection.open", 10, 40, "vhost:s reserved1:s reserved2:b"),
    ("connection.open-ok", 10, 41, "reserved1:s"),
    ("connection.close", 10, 50, "code:h text:s class:h method:h"),
    ("connection.close-ok", 10, 51, ""),
    ("connection.blocked", 10, 60, "reason:s"),
    ("connection.unblocked", 10, 61, ""),
    ("connection.update-secret", 10, 70, "secret:S reason:s"),
    ("connection.update-secret-ok", 10, 71, ""),
    ("channel.open", 20, 10, "reserved1:s"),
    ("channel.open-ok", 20, 11, "reserved1:S"),
    ("channel.flow", 20, 20, "active:b"),
    ("channel.flow-ok", 20, 21, "active:b"),
    ("channel.close", 20, 40, "code:h text:s class:h method:h"),
    ("channel.close-ok", 20, 41, ""),
    ("access.request", 30, 10, "realm:s exclusive:b passive:b active:b write:b read:b"),
    ("access.request-ok", 30, 11, "ticket:h"),
    (
        "exchange.declare",
        40,
        10,
        "ticket:h exchange:s type:s passive:b durable:b auto_delete:b internal:b nowait:b arguments:F",
    ),
    ("exchange.declare-ok", 40, 11, ""),
    ("exchange.delete", 40, 20, "ticket:h exchange:s if_unused:b nowait:b"),
    ("exchange.delete-ok", 40, 21, ""),
    ("exchange.bind", 40, 30, "ticket:h destination:s source:s key:s nowait:b arguments:F"),
    ("exchange.bind-ok", 40, 31, ""),
    ("exchange.unbind", 40, 40, "ticket:h destination:s source:s key:s nowait:b arguments:F"),
    ("exchange.unbind-ok", 40, 51, ""),
    ("queue.declare", 50, 10, "ticket:h queue:s passive:b durable:b exclusive:b auto_delete:b nowait:b arguments:F"),
    ("queue.declare-ok", 50, 11, "queue:s messages:l consumers:l"),
    ("queue.bind", 50, 20, "ticket:h queue:s exchange:s key:s nowait:b arguments:F"),
    ("queue.bind-ok", 50, 21, ""),
    ("queue.purge", 50, 30, "ticket:h queue:s nowait:b"),
    ("queue.purge-ok", 50, 31, "messages:l"),
    ("queue.delete", 50, 40, "ticket:h queue:s if_unused:b if_empty:b nowait:b"),
    ("queue.delete-ok", 50, 41, "messages:l"),
    ("queue.unbind", 50, 50, "ticket:h queue:s exchange:s key:s arguments:F"),
    ("queue.unbind-ok", 50, 51, ""),
    ("basic.qos", 60, 10, "size:l count:h global:b"),
    ("basic.qos-ok", 60, 11, ""),
    ("basic.consume", 60, 20, "ticket:h queue:s tag:s no_local:b no_ack:b exclusive:b nowait:b arguments:F"),
    ("basic.consume-ok", 60, 21, "tag:s"),
    ("basic.cancel", 60, 30, "tag:s nowait:b"),
    ("basic.cancel-ok", 60, 31, "tag:s"),
    ("basic.publish", 60, 40, "ticket:h exchange:s key:s mandatory:b immediate:b"),
    ("basic.return", 60, 50, "code:h text:s exchange:s key:s"),
    ("basic.deliver", 60, 60, "tag:s delivery:q redelivered:b exchange:s key:s"),
    ("basic.get", 60, 70, "ticket:h queue:s no_ack:b"),
    ("basic.get-ok", 60, 71, "delivery:q redelivered:b exchange:s key:s messages:l"),
    ("basic.get-empty", 60, 72, "reserved1:s"),
    ("basic.ack", 60, 80, "delivery:q multiple:b"),
    ("basic.reject", 60, 90, "delivery:q requeue:b"),
    ("basic.recover-async", 60, 100, "requeue:b"),
    ("basic.recover", 60, 110, "requeue:b"),
    ("basic.recover-ok", 60, 111, ""),
    ("basic.nack", 60, 120, "delivery:q multiple:b requeue:b"),
    ("confirm.select", 85, 10, "nowait:b"),
    ("confirm.select-ok", 85, 11, ""),
    ("tx.select", 90, 10, ""),
    ("tx.select-ok", 90, 11, ""),
    ("tx.commit", 90, 20, ""),
    ("tx.commit-ok", 90, 21, ""),
    ("tx.rollback", 90, 30, ""),
    ("tx.rollback-ok", 90, 31, ""),
];

/// In the order of their flag bits, from bit 15 down.
const PROPERTIES: &str = "content_type:s content_encoding:s headers:F delivery_mode:o priority:o correlation_id:s \
                          reply_to:s expiration:s message_id:s timestamp:q type:s user_id:s app_id:s cluster_id:s";

fn fields_of(text: &'static str) -> impl Iterator<Item = (&'static str, char)> {
    text.split_whitespace().filter_map(|pair| {
        let (name, kind) = pair.split_once(':')?;
        Some((name, kind.chars().next()?))
    })
}

/// A frame.
pub fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend(channel.to_be_bytes());
    out.extend((payload.len() as u32).to_be_bytes());
    out.extend(payload);
    out.push(0xCE);
    out
}

/// A method frame. `values` are `name=value`, or a bit's name alone; what is missing is zero.
/// `arguments` is the method's table, encoded.
pub fn method(channel: u16, name: &str, values: &str, arguments: &[u8]) -> Vec<u8> {
    let (_, class, id, fields) = METHODS.iter().find(|row| row.0 == name).unwrap_or_else(|| panic!("no method {name}"));
    let mut out = Vec::new();
    out.extend(class.to_be_bytes());
    out.extend(id.to_be_bytes());
    for word in values.split_whitespace() {
        let field = word.split('=').next().unwrap();
        assert!(fields_of(fields).any(|(known, _)| known == field), "{name} has no {field}");
    }
    encode(fields, values, arguments, &mut out);
    frame(1, channel, &out)
}

fn encode(fields: &'static str, values: &str, table: &[u8], out: &mut Vec<u8>) {
    let value = |name: &str| values.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let mut bits: Option<(usize, u8)> = None;
    for (name, kind) in fields_of(fields) {
        if kind == 'b' {
            let (at, bit) = match bits {
                Some((at, bit)) if bit < 8 => (at, bit),
                _ => {
                    out.push(0);
                    (out.len() - 1, 0)
                }
            };
            out[at] |= u8::from(values.split_whitespace().any(|word| word == name)) << bit;
            bits = Some((at, bit + 1));
            continue;
        }
        bits = None;
        let number = || value(name).map_or(0, |text| text.parse::<u64>().unwrap());
        let text = value(name).unwrap_or("").as_bytes();
        match kind {
            'o' => out.push(number() as u8),
            'h' => out.extend((number() as u16).to_be_bytes()),
            'l' => out.extend((number() as u32).to_be_bytes()),
            'q' => out.extend(number().to_be_bytes()),
            's' => {
                out.push(text.len() as u8);
                out.extend(text);
            }
            'S' => {
                out.extend((text.len() as u32).to_be_bytes());
                out.extend(text);
            }
            _ => {
                out.extend((table.len() as u32).to_be_bytes());
                out.extend(table);
            }
        }
    }
}

/// A publish with its content. `properties` are `name=value` as in [`method`].
pub fn publish(channel: u16, values: &str, properties: &str, headers: &[u8], body: &[u8]) -> Vec<u8> {
    let mut out = method(channel, "basic.publish", values, &[]);
    out.extend(content_header(channel, body.len() as u64, properties, headers));
    for part in body.chunks(4096 - 8) {
        out.extend(frame(3, channel, part));
    }
    out
}

/// A content header.
pub fn content_header(channel: u16, body_bytes: u64, properties: &str, headers: &[u8]) -> Vec<u8> {
    let mut payload = vec![0, 60, 0, 0];
    payload.extend(body_bytes.to_be_bytes());
    let (mut flags, mut list) = (0u16, Vec::new());
    for (bit, (name, kind)) in fields_of(PROPERTIES).enumerate() {
        let is_set = if kind == 'F' {
            !headers.is_empty()
        } else {
            properties.split_whitespace().any(|word| word.split('=').next() == Some(name))
        };
        if is_set {
            flags |= 1 << (15 - bit);
            // Each alone, because bits do not occur among properties.
            let pair = PROPERTIES.split_whitespace().nth(bit).unwrap();
            encode(pair, properties, headers, &mut list);
        }
    }
    payload.extend(flags.to_be_bytes());
    payload.extend(list);
    frame(2, channel, &payload)
}

/// A table of integers, texts and booleans, without its length.
pub fn table(items: &[(&str, Value<'_>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in items {
        out.push(name.len() as u8);
        out.extend(name.as_bytes());
        match value {
            Value::Number(number) => {
                out.push(b'l');
                out.extend(number.to_be_bytes());
            }
            Value::Text(text) => {
                out.push(b'S');
                out.extend((text.len() as u32).to_be_bytes());
                out.extend(text.as_bytes());
            }
            Value::Bool(flag) => out.extend([b't', u8::from(*flag)]),
            Value::Table(inner) => {
                out.push(b'F');
                out.extend((inner.len() as u32).to_be_bytes());
                out.extend(*inner);
            }
        }
    }
    out
}

/// A value of [`table`].
#[derive(Clone, Copy)]
pub enum Value<'a> {
    /// A long.
    Number(i64),
    /// A long string.
    Text(&'a str),
    /// A boolean.
    Bool(bool),
    /// A table, encoded.
    Table(&'a [u8]),
}

/// One thing that the broker said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Name of the method, or what it was instead.
    pub name: String,
    /// Its channel.
    pub channel: u16,
    /// All of it.
    pub line: String,
    /// Names in it that the broker made up.
    pub names: Vec<String>,
}

/// Reads one event from the front of `input`; `None` when it is not there as a whole. Frames of a
/// content are expected to follow each other.
pub fn read(input: &[u8], now_secs: u64) -> Option<(Said, usize)> {
    let special = |name: String, channel: u16, used: usize| {
        Some((Said { line: name.clone(), name, channel, names: Vec::new() }, used))
    };
    if input.len() >= 8 && input.starts_with(b"AMQP") {
        let hex: Vec<String> = input[4..8].iter().map(|octet| format!("{octet:02x}")).collect();
        return special(format!("protocol header {}", hex.join(" ")), 0, 8);
    }
    let (kind, channel, payload, mut used) = split(input)?;
    if kind == 8 {
        return special("heartbeat".to_owned(), channel, used);
    }
    if kind != 1 {
        return special(format!("stray frame of type {kind} on channel {channel}"), channel, used);
    }
    let mut reader = Reader { data: payload, at: 0, now_secs, names: Vec::new() };
    let (class, id) = (reader.number(2)? as u16, reader.number(2)? as u16);
    let Some(&(name, _, _, fields)) = METHODS.iter().find(|row| (row.1, row.2) == (class, id)) else {
        return special(format!("unknown method {class}/{id}"), channel, used);
    };
    let shown = reader.fields(fields_of(fields).collect())?;
    let mut line = format!("{channel} {name}");
    if name.ends_with(".close") {
        let value = |field: &str| shown.iter().find(|(name, _)| *name == field).map_or("", |(_, value)| value);
        write!(line, " {} {} {}/{}", value("code"), value("text"), value("class"), value("method")).unwrap();
    } else {
        for (field, value) in shown.iter().filter(|(field, _)| !field.starts_with("reserved")) {
            write!(line, " {field}={value}").unwrap();
        }
    }
    if reader.at != payload.len() {
        write!(line, " trailing_bytes={}", payload.len() - reader.at).unwrap();
    }
    let mut names = reader.names;
    if ["basic.deliver", "basic.get-ok", "basic.return"].contains(&name) {
        let (kind, on, header, header_used) = split(&input[used..])?;
        assert_eq!((kind, on), (2, channel), "a header follows {name}");
        used += header_used;
        let mut reader = Reader { data: header, at: 4, now_secs, names: Vec::new() };
        let size = reader.number(8)? as usize;
        let flags = reader.number(2)?;
        let set = fields_of(PROPERTIES).enumerate().filter(|(bit, _)| flags >> (15 - bit) & 1 == 1);
        for (property, value) in reader.fields(set.map(|(_, field)| field).collect())? {
            write!(line, " {property}:{value}").unwrap();
        }
        names.append(&mut reader.names);
        let mut body = Vec::new();
        while body.len() < size {
            let (kind, on, part, part_used) = split(&input[used..])?;
            assert_eq!((kind, on), (3, channel), "a body follows {name}");
            used += part_used;
            body.extend(part);
        }
        write!(line, " body {}", quoted(&body, &mut names)).unwrap();
    }
    Some((Said { name: name.to_owned(), channel, line, names }, used))
}

fn split(input: &[u8]) -> Option<(u8, u16, &[u8], usize)> {
    let head = input.first_chunk::<7>()?;
    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
    let payload = input.get(7..7 + size)?;
    assert_eq!(*input.get(7 + size)?, 0xCE, "a frame ends with its mark");
    Some((head[0], u16::from_be_bytes([head[1], head[2]]), payload, size + 8))
}

struct Reader<'a> {
    data: &'a [u8],
    at: usize,
    now_secs: u64,
    names: Vec<String>,
}

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        let taken = self.data.get(self.at..self.at + count)?.to_vec();
        self.at += count;
        Some(taken)
    }

    fn number(&mut self, octets: usize) -> Option<u64> {
        Some(self.take(octets)?.iter().fold(0, |number, octet| number << 8 | u64::from(*octet)))
    }

    fn signed(&mut self, octets: usize) -> Option<i64> {
        let shift = 64 - 8 * octets as u32;
        Some((self.number(octets)? << shift) as i64 >> shift)
    }

    fn text(&mut self, length_octets: usize) -> Option<String> {
        let len = self.number(length_octets)? as usize;
        let text = self.take(len)?;
        Some(quoted(&text, &mut self.names))
    }

    fn fields(&mut self, fields: Vec<(&'static str, char)>) -> Option<Vec<(&'static str, String)>> {
        let mut shown = Vec::new();
        let mut bits: Option<(u64, u8)> = None;
        for (name, kind) in fields {
            if kind == 'b' {
                let (octet, bit) = match bits {
                    Some((octet, bit)) if bit < 8 => (octet, bit),
                    _ => (self.number(1)?, 0),
                };
                shown.push((name, (octet >> bit & 1 == 1).to_string()));
                bits = Some((octet, bit + 1));
                continue;
            }
            bits = None;
            let value = match kind {
                'o' => self.number(1)?.to_string(),
                'h' => self.number(2)?.to_string(),
                'l' => self.number(4)?.to_string(),
                'q' => self.number(8)?.to_string(),
                's' => self.text(1)?,
                'S' => self.text(4)?,
                _ => self.table()?,
            };
            shown.push((name, value));
        }
        Some(shown)
    }

    fn table(&mut self) -> Option<String> {
        let end = self.number(4)? as usize + self.at;
        let mut parts = Vec::new();
        while self.at < end {
            let len = self.number(1)? as usize;
            let name = String::from_utf8_lossy(&self.take(len)?).into_owned();
            parts.push(format!("{name}: {}", self.value()?));
        }
        Some(format!("{{{}}}", parts.join(", ")))
    }

    fn value(&mut self) -> Option<String> {
        let kind = self.number(1)? as u8 as char;
        Some(match kind {
            't' => format!("t{}", if self.number(1)? == 1 { "True" } else { "False" }),
            'b' => format!("b{}", self.signed(1)?),
            'B' => format!("B{}", self.number(1)?),
            's' => format!("s{}", self.signed(2)?),
            'u' => format!("u{}", self.number(2)?),
            'I' => format!("I{}", self.signed(4)?),
            'i' => format!("i{}", self.number(4)?),
            'l' | 'L' => format!("{kind}{}", self.signed(8)?),
            'f' => format!("f{:?}", f32::from_bits(self.number(4)? as u32)),
            'd' => format!("d{:?}", f64::from_bits(self.number(8)?)),
            'T' => match self.number(8)? {
                secs if secs.abs_diff(self.now_secs) < 86_400 => "T<now>".to_owned(),
                secs => format!("T{secs}"),
            },
            'S' | 'x' => format!("{kind}{}", self.text(4)?),
            'F' => format!("F{}", self.table()?),
            'A' => {
                let end = self.number(4)? as usize + self.at;
                let mut parts = Vec::new();
                while self.at < end {
                    parts.push(self.value()?);
                }
                format!("A[{}]", parts.join(", "))
            }
            'D' => format!("D({}, {})", self.number(1)?, self.signed(4)?),
            'V' => "VNone".to_owned(),
            other => panic!("table value of type {other:?}"),
        })
    }
}

/// A text as Python writes it, made-up names replaced and noted.
fn quoted(bytes: &[u8], names: &mut Vec<String>) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return bytes.iter().fold("0x".to_owned(), |hex, octet| hex + &format!("{octet:02x}"));
    };
    if text.chars().count() > 300 {
        let start: String = text.chars().take(40).collect();
        return format!("{}... of {}", python_repr(&start), text.chars().count());
    }
    python_repr(&normal(text, names))
}

fn python_repr(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if (c as u32) < 32 || c as u32 == 127 || (128..161).contains(&(c as u32)) || c as u32 == 173 => {
                write!(out, "\\x{:02x}", c as u32).unwrap();
            }
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

/// Replaces the names that a broker makes up.
fn normal(text: &str, names: &mut Vec<String>) -> String {
    const MADE_UP: [(&str, Option<usize>, &str); 3] = [
        ("amq.gen-", Some(22), "amq.gen-<22>"),
        ("amq.ctag-", Some(22), "amq.ctag-<22>"),
        ("amq.rabbitmq.reply-to.", None, "amq.rabbitmq.reply-to.<opaque>"),
    ];
    let mut out = String::new();
    let mut rest = text;
    'outer: while let Some(c) = rest.chars().next() {
        for (prefix, len, placeholder) in MADE_UP {
            if let Some(tail) = rest.strip_prefix(prefix) {
                let is_part =
                    |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-' || len.is_none() && "./+=@".contains(c);
                let end = tail.find(|c| !is_part(c)).unwrap_or(tail.len());
                let end = len.unwrap_or(usize::MAX).min(end);
                if end > 0 && len.is_none_or(|len| len == end) {
                    names.push(format!("{prefix}{}", &tail[..end]));
                    out.push_str(placeholder);
                    rest = &tail[end..];
                    continue 'outer;
                }
            }
        }
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    out
}
