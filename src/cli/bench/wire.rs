//! The few AMQP 0-9-1 frames that a load needs: encode, decode, and nothing else.
//!
//! Deliberately apart from the broker's own codec: a mistake shared by both sides of a measurement
//! would verify itself.
//!
//! ```text
//! frame = kind (1) | channel (2) | payload size (4) | payload | 0xCE
//! ```

use super::failure::Failure;
use bytes::BufMut;

/// Kinds of frames; any other (a heartbeat) is passed over.
pub(super) const METHOD: u8 = 1;
pub(super) const HEADER: u8 = 2;
pub(super) const BODY: u8 = 3;

/// Bytes of a frame before its payload, and in all around it.
pub(super) const FRAME_HEAD_BYTES: usize = 7;
pub(super) const FRAME_OVERHEAD_BYTES: usize = 8;
pub(super) const FRAME_END: u8 = 0xCE;
pub(super) const PROTOCOL_HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";
pub(super) const FRAME_MAX: u32 = 131_072;

/// A payload size beyond which a peer is not speaking AMQP with us.
const PAYLOAD_BYTES_MAX: usize = 16 << 20;

/// Class in the high half, method in the low half.
pub(super) mod id {
    pub(in super::super) const CONNECTION_START: u32 = 0x000a_000a;
    pub(in super::super) const CONNECTION_START_OK: u32 = 0x000a_000b;
    pub(in super::super) const CONNECTION_TUNE: u32 = 0x000a_001e;
    pub(in super::super) const CONNECTION_TUNE_OK: u32 = 0x000a_001f;
    pub(in super::super) const CONNECTION_OPEN: u32 = 0x000a_0028;
    pub(in super::super) const CONNECTION_OPEN_OK: u32 = 0x000a_0029;
    pub(in super::super) const CONNECTION_CLOSE: u32 = 0x000a_0032;
    pub(in super::super) const CONNECTION_CLOSE_OK: u32 = 0x000a_0033;
    pub(in super::super) const CONNECTION_BLOCKED: u32 = 0x000a_003c;
    pub(in super::super) const CONNECTION_UNBLOCKED: u32 = 0x000a_003d;
    pub(in super::super) const CHANNEL_OPEN: u32 = 0x0014_000a;
    pub(in super::super) const CHANNEL_OPEN_OK: u32 = 0x0014_000b;
    pub(in super::super) const CHANNEL_FLOW: u32 = 0x0014_0014;
    pub(in super::super) const CHANNEL_FLOW_OK: u32 = 0x0014_0015;
    pub(in super::super) const CHANNEL_CLOSE: u32 = 0x0014_0028;
    pub(in super::super) const CHANNEL_CLOSE_OK: u32 = 0x0014_0029;
    pub(in super::super) const EXCHANGE_DECLARE: u32 = 0x0028_000a;
    pub(in super::super) const EXCHANGE_DECLARE_OK: u32 = 0x0028_000b;
    pub(in super::super) const EXCHANGE_DELETE: u32 = 0x0028_0014;
    pub(in super::super) const EXCHANGE_DELETE_OK: u32 = 0x0028_0015;
    pub(in super::super) const QUEUE_DECLARE: u32 = 0x0032_000a;
    pub(in super::super) const QUEUE_DECLARE_OK: u32 = 0x0032_000b;
    pub(in super::super) const QUEUE_BIND: u32 = 0x0032_0014;
    pub(in super::super) const QUEUE_BIND_OK: u32 = 0x0032_0015;
    pub(in super::super) const QUEUE_DELETE: u32 = 0x0032_0028;
    pub(in super::super) const QUEUE_DELETE_OK: u32 = 0x0032_0029;
    pub(in super::super) const BASIC_QOS: u32 = 0x003c_000a;
    pub(in super::super) const BASIC_QOS_OK: u32 = 0x003c_000b;
    pub(in super::super) const BASIC_CONSUME: u32 = 0x003c_0014;
    pub(in super::super) const BASIC_CONSUME_OK: u32 = 0x003c_0015;
    pub(in super::super) const BASIC_CANCEL: u32 = 0x003c_001e;
    pub(in super::super) const BASIC_PUBLISH: u32 = 0x003c_0028;
    pub(in super::super) const BASIC_RETURN: u32 = 0x003c_0032;
    pub(in super::super) const BASIC_DELIVER: u32 = 0x003c_003c;
    pub(in super::super) const BASIC_GET: u32 = 0x003c_0046;
    pub(in super::super) const BASIC_GET_OK: u32 = 0x003c_0047;
    pub(in super::super) const BASIC_GET_EMPTY: u32 = 0x003c_0048;
    pub(in super::super) const BASIC_ACK: u32 = 0x003c_0050;
    pub(in super::super) const BASIC_REJECT: u32 = 0x003c_005a;
    pub(in super::super) const BASIC_NACK: u32 = 0x003c_0078;
    pub(in super::super) const CONFIRM_SELECT: u32 = 0x0055_000a;
    pub(in super::super) const CONFIRM_SELECT_OK: u32 = 0x0055_000b;
}

/// One complete frame inside a larger buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) channel: u16,
    pub(super) payload: &'a [u8],
}

impl Frame<'_> {
    /// Bytes of the whole frame.
    pub(super) fn bytes(&self) -> usize {
        self.payload.len() + FRAME_OVERHEAD_BYTES
    }

    /// Class and method, of a method frame.
    pub(super) fn method(&self) -> Result<u32, Failure> {
        match self.payload.first_chunk::<4>() {
            Some(head) => Ok(u32::from_be_bytes(*head)),
            None => Err(Failure::protocol("a method frame shorter than its method")),
        }
    }

    /// The arguments of a method frame.
    pub(super) fn arguments(&self) -> Arguments<'_> {
        Arguments { rest: self.payload.get(4..).unwrap_or_default() }
    }

    /// The body size that a header frame announces.
    pub(super) fn body_bytes(&self) -> Result<u64, Failure> {
        match self.payload.get(4..12).and_then(<[u8]>::first_chunk::<8>) {
            Some(size) => Ok(u64::from_be_bytes(*size)),
            None => Err(Failure::protocol("a header frame shorter than its fixed part")),
        }
    }
}

/// The first frame of `input`, or `None` while it is incomplete.
#[inline]
pub(super) fn decode(input: &[u8]) -> Result<Option<Frame<'_>>, Failure> {
    let Some((head, rest)) = input.split_first_chunk::<FRAME_HEAD_BYTES>() else {
        return Ok(None);
    };
    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
    if head[0] == b'A' || size > PAYLOAD_BYTES_MAX {
        return Err(Failure::protocol(format!(
            "the peer does not speak AMQP 0-9-1: it sent {:?}",
            String::from_utf8_lossy(&input[..input.len().min(64)])
        )));
    }
    match rest.get(size) {
        None => Ok(None),
        Some(&FRAME_END) => {
            Ok(Some(Frame { kind: head[0], channel: u16::from_be_bytes([head[1], head[2]]), payload: &rest[..size] }))
        }
        Some(other) => Err(Failure::protocol(format!("a frame ends with {other:#04x}, not 0xce"))),
    }
}

/// Reads the fields of a method in order.
pub(super) struct Arguments<'a> {
    rest: &'a [u8],
}

impl<'a> Arguments<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Failure> {
        match self.rest.split_at_checked(bytes) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(Failure::protocol("a method ends before its last argument")),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Failure> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, Failure> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Failure> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Failure> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(super) fn short(&mut self) -> Result<&'a [u8], Failure> {
        let bytes = self.u8()?;
        self.take(usize::from(bytes))
    }

    pub(super) fn text(&mut self) -> Result<String, Failure> {
        Ok(String::from_utf8_lossy(self.short()?).into_owned())
    }
}

/// Appends frames to a buffer.
pub(super) trait Encode {
    /// One frame whose payload `fill` appends.
    fn frame(&mut self, kind: u8, channel: u16, fill: impl FnOnce(&mut Vec<u8>));
    /// One method frame whose arguments `fill` appends.
    fn method(&mut self, channel: u16, method: u32, fill: impl FnOnce(&mut Vec<u8>));
    fn put_short(&mut self, text: &[u8]);
    fn put_long(&mut self, text: &[u8]);
    /// A table; a nested one is `Field::Table`.
    fn put_table(&mut self, fields: &[(&str, Field<'_>)]);
}

/// A value of a table that this client sends.
pub(super) enum Field<'a> {
    Text(&'a str),
    Flag(bool),
    Number(i64),
    Table(&'a [(&'a str, Field<'a>)]),
}

impl Encode for Vec<u8> {
    fn frame(&mut self, kind: u8, channel: u16, fill: impl FnOnce(&mut Vec<u8>)) {
        self.push(kind);
        self.put_u16(channel);
        let size_at = self.len();
        self.put_u32(0);
        fill(self);
        patch_size(self, size_at);
        self.push(FRAME_END);
    }

    fn method(&mut self, channel: u16, method: u32, fill: impl FnOnce(&mut Vec<u8>)) {
        self.frame(METHOD, channel, |out| {
            out.put_u32(method);
            fill(out);
        });
    }

    fn put_short(&mut self, text: &[u8]) {
        let text = &text[..text.len().min(255)];
        self.push(text.len() as u8);
        self.extend_from_slice(text);
    }

    fn put_long(&mut self, text: &[u8]) {
        self.put_u32(text.len() as u32);
        self.extend_from_slice(text);
    }

    fn put_table(&mut self, fields: &[(&str, Field<'_>)]) {
        let size_at = self.len();
        self.put_u32(0);
        for (name, value) in fields {
            self.put_short(name.as_bytes());
            match value {
                Field::Text(text) => {
                    self.push(b'S');
                    self.put_long(text.as_bytes());
                }
                Field::Flag(flag) => self.extend_from_slice(&[b't', u8::from(*flag)]),
                Field::Number(number) => {
                    self.push(b'l');
                    self.put_i64(*number);
                }
                Field::Table(inner) => {
                    self.push(b'F');
                    self.put_table(inner);
                }
            }
        }
        patch_size(self, size_at);
    }
}

/// Writes the number of bytes that follow the size field at `size_at` into it.
fn patch_size(out: &mut [u8], size_at: usize) {
    let size = (out.len() - size_at - 4) as u32;
    out[size_at..size_at + 4].copy_from_slice(&size.to_be_bytes());
}

/// The properties of a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Properties {
    pub(super) persistent: bool,
    pub(super) priority: Option<u8>,
    /// Milliseconds.
    pub(super) expiration: Option<u64>,
    /// Number of the group that the message belongs to.
    pub(super) group: Option<u32>,
}

/// The header that names a message's group, to every protocol.
pub(super) const GROUP_HEADER: &str = "JMSXGroupID";

impl Properties {
    /// The name of the message's group.
    pub(super) fn group_name(&self) -> Option<String> {
        self.group.map(|group| format!("group-{group}"))
    }
}

/// Appends publish, header and body frames, on channel 1.
pub(super) fn encode_publish(
    out: &mut Vec<u8>,
    exchange: &str,
    key: &str,
    properties: Properties,
    body: &[u8],
    frame_max: usize,
) {
    const HEADERS: u16 = 1 << 13;
    const DELIVERY_MODE: u16 = 1 << 12;
    const PRIORITY: u16 = 1 << 11;
    const EXPIRATION: u16 = 1 << 8;
    const CHANNEL: u16 = 1;
    out.method(CHANNEL, id::BASIC_PUBLISH, |out| {
        out.put_u16(0);
        out.put_short(exchange.as_bytes());
        out.put_short(key.as_bytes());
        out.push(0);
    });
    out.frame(HEADER, CHANNEL, |out| {
        out.put_u16(60);
        out.put_u16(0);
        out.put_u64(body.len() as u64);
        let Properties { persistent, priority, expiration, group: _ } = properties;
        let group = properties.group_name();
        let flag = |is_set: bool, flag: u16| if is_set { flag } else { 0 };
        let flags = flag(group.is_some(), HEADERS) | flag(persistent, DELIVERY_MODE);
        out.put_u16(flags | flag(priority.is_some(), PRIORITY) | flag(expiration.is_some(), EXPIRATION));
        if let Some(group) = &group {
            out.put_table(&[(GROUP_HEADER, Field::Text(group))]);
        }
        if persistent {
            out.push(2);
        }
        out.extend(priority);
        if let Some(expiration) = expiration {
            out.put_short(expiration.to_string().as_bytes());
        }
    });
    for piece in body.chunks(frame_max - FRAME_OVERHEAD_BYTES) {
        out.frame(BODY, CHANNEL, |out| out.extend_from_slice(piece));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_as_it_went() {
        let mut out = Vec::new();
        out.method(7, id::QUEUE_DECLARE, |out| {
            out.put_u16(0);
            out.put_short(b"orders");
            out.push(2);
            out.put_table(&[("a", Field::Text("b")), ("c", Field::Flag(true))]);
        });
        let frame = decode(&out).unwrap().unwrap();
        assert_eq!((frame.kind, frame.channel, frame.bytes()), (METHOD, 7, out.len()));
        assert_eq!(frame.method().unwrap(), id::QUEUE_DECLARE);
        let mut arguments = frame.arguments();
        assert_eq!(arguments.u16().unwrap(), 0);
        assert_eq!(arguments.short().unwrap(), b"orders");
        assert_eq!(arguments.u8().unwrap(), 2);
        assert_eq!(arguments.rest, b"\0\0\0\x0c\x01aS\0\0\0\x01b\x01ct\x01");
    }

    #[test]
    fn an_incomplete_frame_is_none_at_every_length() {
        let mut out = Vec::new();
        out.frame(BODY, 1, |out| out.extend_from_slice(b"hello"));
        for bytes in 0..out.len() {
            assert_eq!(decode(&out[..bytes]).unwrap(), None);
        }
        assert_eq!(decode(&out).unwrap().unwrap().payload, b"hello");
    }

    #[test]
    fn a_wrong_end_octet_is_an_error() {
        let mut out = Vec::new();
        out.frame(BODY, 1, |out| out.push(1));
        *out.last_mut().unwrap() = 0;
        assert!(decode(&out).is_err());
    }

    #[test]
    fn a_body_over_the_frame_limit_is_cut_into_frames() {
        let mut out = Vec::new();
        let body: Vec<u8> = (0..100).collect();
        encode_publish(&mut out, "e", "k", Properties::default(), &body, 48);
        let (mut at, mut sizes, mut joined) = (0, Vec::new(), Vec::new());
        while at < out.len() {
            let frame = decode(&out[at..]).unwrap().unwrap();
            at += frame.bytes();
            match frame.kind {
                HEADER => assert_eq!(frame.body_bytes().unwrap(), 100),
                BODY => {
                    sizes.push(frame.payload.len());
                    joined.extend_from_slice(frame.payload);
                }
                _ => assert_eq!(frame.method().unwrap(), id::BASIC_PUBLISH),
            }
        }
        assert_eq!((sizes, joined), (vec![40, 40, 20], body));
    }

    #[test]
    fn properties_stand_behind_their_flags_in_order() {
        let mut out = Vec::new();
        let properties = Properties { persistent: true, priority: Some(4), expiration: Some(60_000), group: Some(7) };
        encode_publish(&mut out, "e", "k", properties, b"", 4096);
        let publish = decode(&out).unwrap().unwrap().bytes();
        let header = decode(&out[publish..]).unwrap().unwrap();
        assert_eq!(header.payload[12..], *b"\x39\0\0\0\0\x18\x0bJMSXGroupIDS\0\0\0\x07group-7\x02\x04\x0560000");
    }

    #[test]
    fn arguments_never_read_past_the_frame() {
        let mut arguments = Arguments { rest: &[5, b'a'] };
        assert!(arguments.short().is_err());
        assert!(Arguments { rest: &[0, 0] }.u32().is_err());
    }
}
