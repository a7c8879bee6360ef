//! The methods that messages pass through, read in place and written without allocation.
//!
//! Readers give `None` for a payload that is cut short or has octets to spare; `method::decode`
//! then has the error. Names and keys may be any bytes. Writers append whole frames.
//!
//! ```text
//! content = method frame, header frame, body frames (none for an empty body)
//! header  = class 60 (2), weight 0 (2), body size (8), properties
//! route   = exchange length (1), exchange, key length (1), key: copied as it came
//! ```

use super::frame::{FRAME_END, FRAME_OVERHEAD, Frame, FrameKind, HEAD_BYTES};

/// The class of all methods here.
pub const BASIC: u16 = 60;

const METHOD: u8 = FrameKind::Method.octet();
const HEADER: u8 = FrameKind::Header.octet();
const BODY: u8 = FrameKind::Body.octet();
const HEARTBEAT: u8 = FrameKind::Heartbeat.octet();

/// Octets of a header frame's payload before the properties.
const CONTENT_HEAD_BYTES: usize = 12;

/// basic.publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Where the exchange's length octet is in the input; exchange, key length and key follow.
    pub route_at: usize,
    /// Octets of the exchange's name.
    pub exchange_len: u8,
    /// Octets of the routing key.
    pub key_len: u8,
    /// To be returned when no queue takes it.
    pub mandatory: bool,
    /// To be refused when no consumer takes it at once.
    pub immediate: bool,
}

impl Publish {
    /// Exchange and key in the input that it was read from, each with its length octet in front.
    #[inline]
    pub fn route_bytes<'a>(&self, input: &'a [u8]) -> &'a [u8] {
        &input[self.route_at..][..2 + self.exchange_len as usize + self.key_len as usize]
    }

    /// The exchange's name in the input that it was read from.
    pub fn exchange<'a>(&self, input: &'a [u8]) -> &'a [u8] {
        &input[self.route_at + 1..][..self.exchange_len as usize]
    }

    /// The routing key in the input that it was read from.
    pub fn key<'a>(&self, input: &'a [u8]) -> &'a [u8] {
        &input[self.route_at + 2 + self.exchange_len as usize..][..self.key_len as usize]
    }
}

/// basic.ack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The delivery, 0 for all.
    pub delivery_tag: u64,
    /// With all earlier ones.
    pub multiple: bool,
}

/// basic.nack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nack {
    /// The delivery, 0 for all.
    pub delivery_tag: u64,
    /// With all earlier ones.
    pub multiple: bool,
    /// Back into the queue.
    pub requeue: bool,
}

/// basic.reject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The delivery.
    pub delivery_tag: u64,
    /// Back into the queue.
    pub requeue: bool,
}

/// basic.get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Get<'a> {
    /// The queue's name, any bytes.
    pub queue: &'a [u8],
    /// Settled by being sent.
    pub no_ack: bool,
}

/// basic.qos; `amq-protocol` drops the size, which has to be refused when it is not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Qos {
    /// Octets that may be unsettled.
    pub prefetch_size: u32,
    /// Messages that may be unsettled.
    pub prefetch_count: u16,
    /// For the whole channel.
    pub global: bool,
}

/// The header of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentHeader {
    /// Must be that of the method before it.
    pub class_id: u16,
    /// Octets of body that will follow.
    pub body_size: u64,
    /// Where the properties (flags and list) start in the input.
    pub properties_at: usize,
    /// Octets of properties.
    pub properties_len: usize,
}

/// Class and method of a method frame's payload.
#[inline]
pub fn method_id(payload: &[u8]) -> Option<(u16, u16)> {
    let &[c0, c1, m0, m1] = payload.first_chunk::<4>()?;
    Some((u16::from_be_bytes([c0, c1]), u16::from_be_bytes([m0, m1])))
}

/// Reads a basic.publish.
#[inline]
pub fn publish(input: &[u8], frame: &Frame) -> Option<Publish> {
    // class, method, ticket; exchange; key; flags
    let (_, rest) = frame.payload(input).split_at_checked(6)?;
    let (&exchange_len, rest) = rest.split_first()?;
    let (_, rest) = rest.split_at_checked(exchange_len as usize)?;
    let (&key_len, rest) = rest.split_first()?;
    let (_, rest) = rest.split_at_checked(key_len as usize)?;
    let &[flags] = rest else { return None };
    Some(Publish {
        route_at: frame.payload_at + 6,
        exchange_len,
        key_len,
        mandatory: flags & 1 != 0,
        immediate: flags & 2 != 0,
    })
}

/// The tag and the flags of basic.ack, nack and reject, which are laid out alike.
#[inline]
fn settlement(input: &[u8], frame: &Frame) -> Option<(u64, u8)> {
    let &[_, _, _, _, ref tag @ .., flags] = <&[u8; 13]>::try_from(frame.payload(input)).ok()?;
    Some((u64::from_be_bytes(*tag), flags))
}

/// Reads a basic.ack.
#[inline]
pub fn ack(input: &[u8], frame: &Frame) -> Option<Ack> {
    let (delivery_tag, flags) = settlement(input, frame)?;
    Some(Ack { delivery_tag, multiple: flags & 1 != 0 })
}

/// Reads a basic.nack.
#[inline]
pub fn nack(input: &[u8], frame: &Frame) -> Option<Nack> {
    let (delivery_tag, flags) = settlement(input, frame)?;
    Some(Nack { delivery_tag, multiple: flags & 1 != 0, requeue: flags & 2 != 0 })
}

/// Reads a basic.reject.
#[inline]
pub fn reject(input: &[u8], frame: &Frame) -> Option<Reject> {
    let (delivery_tag, flags) = settlement(input, frame)?;
    Some(Reject { delivery_tag, requeue: flags & 1 != 0 })
}

/// Reads a basic.get.
#[inline]
pub fn get<'a>(input: &'a [u8], frame: &Frame) -> Option<Get<'a>> {
    let (_, rest) = frame.payload(input).split_at_checked(6)?;
    let (&queue_len, rest) = rest.split_first()?;
    let (queue, rest) = rest.split_at_checked(queue_len as usize)?;
    let &[flags] = rest else { return None };
    Some(Get { queue, no_ack: flags & 1 != 0 })
}

/// Reads a basic.qos.
pub fn qos(input: &[u8], frame: &Frame) -> Option<Qos> {
    let &[_, _, _, _, s0, s1, s2, s3, c0, c1, flags] = frame.payload(input) else { return None };
    Some(Qos {
        prefetch_size: u32::from_be_bytes([s0, s1, s2, s3]),
        prefetch_count: u16::from_be_bytes([c0, c1]),
        global: flags & 1 != 0,
    })
}

/// Reads a content header. The weight, which the specification wants to be 0, is not looked at.
#[inline]
pub fn content_header(input: &[u8], frame: &Frame) -> Option<ContentHeader> {
    let payload = frame.payload(input);
    let &[c0, c1, _, _, ref size @ ..] = payload.first_chunk::<CONTENT_HEAD_BYTES>()?;
    Some(ContentHeader {
        class_id: u16::from_be_bytes([c0, c1]),
        body_size: u64::from_be_bytes(*size),
        properties_at: frame.payload_at + CONTENT_HEAD_BYTES,
        properties_len: frame.payload_len - CONTENT_HEAD_BYTES,
    })
}

/// Header and body of a content.
#[derive(Clone, Copy, Debug)]
pub struct ContentOut<'a> {
    /// The channel.
    pub channel: u16,
    /// The negotiated size of a whole frame, 0 for no limit.
    pub frame_max: u32,
    /// Flags and list.
    pub properties: &'a [u8],
    /// Octets of the whole body.
    pub body_size: u64,
}

impl ContentOut<'_> {
    /// Appends the header; the body, or its frames one by one, follow.
    pub fn put_header(&self, out: &mut Vec<u8>) {
        put_content_header(out, self.channel, self.body_size, self.properties);
    }

    /// Appends the header and a body that lies in one piece.
    pub fn put(&self, out: &mut Vec<u8>, body: &[u8]) {
        debug_assert_eq!(self.body_size, body.len() as u64);
        self.put_header(out);
        put_body_contiguous(out, self.channel, self.frame_max, body);
    }
}

/// Appends a whole basic.deliver content whose body lies in one piece. Returns its head, unless the
/// body is empty or takes several frames.
#[inline]
pub fn put_delivery(
    out: &mut Vec<u8>,
    content: &ContentOut<'_>,
    consumer_tag: &[u8],
    delivery_tag: u64,
    redelivered: bool,
    route_bytes: &[u8],
    body: &[u8],
) -> Option<DeliveryHead> {
    let head_bytes = 3 * FRAME_OVERHEAD + 4 + 1 + consumer_tag.len() + 9 + route_bytes.len() + CONTENT_HEAD_BYTES;
    out.reserve(head_bytes + content.properties.len() + body.len());
    let start = out.len();
    put_deliver(out, content.channel, consumer_tag, delivery_tag, redelivered, route_bytes);
    let header_at = out.len();
    content.put(out, body);
    let is_one_frame = !body.is_empty() && body.len() <= body_part_max(content.frame_max);
    is_one_frame.then(|| DeliveryHead {
        start,
        len: out.len() - body.len() - 1 - start,
        tag_at: header_at - 1 - route_bytes.len() - 9 - start,
        body_size_at: header_at + HEAD_BYTES + 4 - start,
        body_len_max: body_part_max(content.frame_max),
    })
}

/// Where the octets before a delivery's body lie in an output, to be repeated in it.
#[derive(Clone, Copy, Debug)]
pub struct DeliveryHead {
    start: usize,
    len: usize,
    /// Relative to `start`, as is the next.
    tag_at: usize,
    body_size_at: usize,
    body_len_max: usize,
}

impl DeliveryHead {
    /// Appends the same delivery with another tag and body to the output that it is in. `false`:
    /// the body does not fit one frame, and nothing was appended.
    #[inline(always)]
    pub fn put_again(&self, out: &mut Vec<u8>, delivery_tag: u64, body: &[u8]) -> bool {
        if body.is_empty() || body.len() > self.body_len_max {
            return false;
        }
        let start = out.len();
        out.reserve(self.len + body.len() + 1);
        out.extend_from_within(self.start..self.start + self.len);
        let head = &mut out[start..];
        head[self.tag_at..][..8].copy_from_slice(&delivery_tag.to_be_bytes());
        head[self.body_size_at..][..8].copy_from_slice(&(body.len() as u64).to_be_bytes());
        head[self.len - 4..].copy_from_slice(&(body.len() as u32).to_be_bytes());
        out.extend_from_slice(body);
        out.push(FRAME_END);
        true
    }
}

/// Appends a basic.deliver method. `route_bytes` are exchange and key with their length octets.
#[inline]
pub fn put_deliver(
    out: &mut Vec<u8>,
    channel: u16,
    consumer_tag: &[u8],
    delivery_tag: u64,
    redelivered: bool,
    route_bytes: &[u8],
) {
    let consumer_tag = short(consumer_tag);
    put_method_head(out, channel, 60, 1 + consumer_tag.len() + 9 + route_bytes.len());
    out.push(consumer_tag.len() as u8);
    out.extend_from_slice(consumer_tag);
    put_tag_and_flags(out, delivery_tag, u8::from(redelivered));
    out.extend_from_slice(route_bytes);
    out.push(FRAME_END);
}

/// Appends a basic.get-ok method.
pub fn put_get_ok(
    out: &mut Vec<u8>,
    channel: u16,
    delivery_tag: u64,
    redelivered: bool,
    route_bytes: &[u8],
    message_count: u32,
) {
    put_method_head(out, channel, 71, 9 + route_bytes.len() + 4);
    put_tag_and_flags(out, delivery_tag, u8::from(redelivered));
    out.extend_from_slice(route_bytes);
    out.extend_from_slice(&message_count.to_be_bytes());
    out.push(FRAME_END);
}

/// Appends a basic.get-empty method.
pub fn put_get_empty(out: &mut Vec<u8>, channel: u16) {
    put_method_head(out, channel, 72, 1);
    out.extend_from_slice(&[0, FRAME_END]);
}

/// Appends a basic.return method. A text of more than 255 octets is cut.
pub fn put_return(out: &mut Vec<u8>, channel: u16, code: u16, text: &str, route_bytes: &[u8]) {
    let text = short(text.as_bytes());
    put_method_head(out, channel, 50, 3 + text.len() + route_bytes.len());
    out.extend_from_slice(&code.to_be_bytes());
    out.push(text.len() as u8);
    out.extend_from_slice(text);
    out.extend_from_slice(route_bytes);
    out.push(FRAME_END);
}

/// Appends a content header frame.
#[inline]
pub fn put_content_header(out: &mut Vec<u8>, channel: u16, body_size: u64, properties: &[u8]) {
    let [c0, c1] = channel.to_be_bytes();
    let [n0, n1, n2, n3] = ((CONTENT_HEAD_BYTES + properties.len()) as u32).to_be_bytes();
    let [b0, b1, b2, b3, b4, b5, b6, b7] = body_size.to_be_bytes();
    let class = BASIC as u8;
    out.extend_from_slice(&[HEADER, c0, c1, n0, n1, n2, n3, 0, class, 0, 0, b0, b1, b2, b3, b4, b5, b6, b7]);
    out.extend_from_slice(properties);
    out.push(FRAME_END);
}

/// Appends a body as frames of at most `frame_max` octets each, 0 for no limit.
#[inline]
pub fn put_body_contiguous(out: &mut Vec<u8>, channel: u16, frame_max: u32, body: &[u8]) {
    let part_max = body_part_max(frame_max);
    if !body.is_empty() && body.len() <= part_max {
        put_body_frame(out, channel, body);
    } else {
        body.chunks(part_max).for_each(|part| put_body_frame(out, channel, part));
    }
}

/// Octets of body that one frame can carry.
#[inline]
pub fn body_part_max(frame_max: u32) -> usize {
    match frame_max {
        0 => u32::MAX as usize,
        _ => (frame_max as usize).saturating_sub(FRAME_OVERHEAD).max(1),
    }
}

#[inline]
fn put_body_frame(out: &mut Vec<u8>, channel: u16, part: &[u8]) {
    put_body_frame_head(out, channel, part.len() as u32);
    out.extend_from_slice(part);
    out.push(FRAME_END);
}

/// Appends what stands before `len` octets of body, for a body that is written from where it
/// lies. The caller writes [`FRAME_END`] after it.
#[inline]
pub fn put_body_frame_head(out: &mut Vec<u8>, channel: u16, len: u32) {
    out.extend_from_slice(&frame_head(BODY, channel, len));
}

/// Appends a basic.ack, which from a broker is a confirm.
#[inline]
pub fn put_ack(out: &mut Vec<u8>, channel: u16, delivery_tag: u64, multiple: bool) {
    put_method_head(out, channel, 80, 9);
    put_tag_and_flags(out, delivery_tag, u8::from(multiple));
    out.push(FRAME_END);
}

/// Appends a basic.nack.
pub fn put_nack(out: &mut Vec<u8>, channel: u16, delivery_tag: u64, multiple: bool, requeue: bool) {
    put_method_head(out, channel, 120, 9);
    put_tag_and_flags(out, delivery_tag, u8::from(multiple) | u8::from(requeue) << 1);
    out.push(FRAME_END);
}

/// Appends a basic.cancel that expects no answer: the broker ended the consumer.
pub fn put_cancel(out: &mut Vec<u8>, channel: u16, consumer_tag: &[u8]) {
    let consumer_tag = short(consumer_tag);
    put_method_head(out, channel, 30, 2 + consumer_tag.len());
    out.push(consumer_tag.len() as u8);
    out.extend_from_slice(consumer_tag);
    out.extend_from_slice(&[1, FRAME_END]);
}

/// Appends a heartbeat.
pub fn put_heartbeat(out: &mut Vec<u8>) {
    out.extend_from_slice(&frame_head(HEARTBEAT, 0, 0));
    out.push(FRAME_END);
}

/// What stands before a payload of `len` octets.
#[inline]
pub(super) fn frame_head(kind: u8, channel: u16, len: u32) -> [u8; HEAD_BYTES] {
    let [c0, c1] = channel.to_be_bytes();
    let [n0, n1, n2, n3] = len.to_be_bytes();
    [kind, c0, c1, n0, n1, n2, n3]
}

/// Appends the head of a method frame of class basic with `len` octets of arguments.
#[inline]
fn put_method_head(out: &mut Vec<u8>, channel: u16, method: u8, len: usize) {
    let [kind, c0, c1, n0, n1, n2, n3] = frame_head(METHOD, channel, (4 + len) as u32);
    out.extend_from_slice(&[kind, c0, c1, n0, n1, n2, n3, 0, BASIC as u8, 0, method]);
}

#[inline]
fn put_tag_and_flags(out: &mut Vec<u8>, tag: u64, flags: u8) {
    let [t0, t1, t2, t3, t4, t5, t6, t7] = tag.to_be_bytes();
    out.extend_from_slice(&[t0, t1, t2, t3, t4, t5, t6, t7, flags]);
}

/// The start of `bytes` that a length octet can count.
#[inline]
fn short(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(u8::MAX as usize)]
}

#[cfg(test)]
mod tests {
    use super::{super::frame::split, *};

    fn method(arguments: &[u8], id: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_method_head(&mut bytes, 1, id, arguments.len());
        bytes.extend_from_slice(arguments);
        bytes.push(FRAME_END);
        bytes
    }

    fn only_frame(input: &[u8]) -> Frame {
        let frame = split(input, 0, 0).expect("well formed").expect("complete");
        assert_eq!(frame.next_at(), input.len());
        frame
    }

    #[test]
    fn publish_is_read_in_place() {
        let input = method(b"\0\0\x02ex\x03k\xFFy\x01", 40);
        let frame = only_frame(&input);
        let publish = publish(&input, &frame).expect("well formed");
        assert_eq!(publish.exchange(&input), b"ex");
        assert_eq!(publish.key(&input), b"k\xFFy");
        assert!(publish.mandatory && !publish.immediate);
        assert_eq!(input[publish.route_at], 2);
    }

    #[test]
    fn arguments_cut_short_or_too_long_are_refused() {
        let arguments = b"\0\0\x02ex\x03key\x01";
        for len in 0..arguments.len() {
            let input = method(&arguments[..len], 40);
            assert_eq!(publish(&input, &only_frame(&input)), None);
        }
        let input = method(b"\0\0\x02ex\x03key\x01\0", 40);
        assert_eq!(publish(&input, &only_frame(&input)), None);
        let input = method(&[0; 10], 80);
        assert_eq!(ack(&input, &only_frame(&input)), None);
        let input = method(&[0, 0, 1, b'q'], 70);
        assert_eq!(get(&input, &only_frame(&input)), None);
    }

    #[test]
    fn settlements_are_read_as_they_are_written() {
        let mut input = Vec::new();
        put_ack(&mut input, 1, 7, true);
        assert_eq!(ack(&input, &only_frame(&input)), Some(Ack { delivery_tag: 7, multiple: true }));
        input.clear();
        put_nack(&mut input, 1, u64::MAX, false, true);
        let nack = nack(&input, &only_frame(&input));
        assert_eq!(nack, Some(Nack { delivery_tag: u64::MAX, multiple: false, requeue: true }));
        let input = method(&[0, 0, 0, 0, 0, 0, 0, 9, 1], 90);
        assert_eq!(reject(&input, &only_frame(&input)), Some(Reject { delivery_tag: 9, requeue: true }));
    }

    #[test]
    fn qos_keeps_its_size() {
        let input = method(&[0, 0, 1, 0, 0, 5, 1], 10);
        let qos = qos(&input, &only_frame(&input));
        assert_eq!(qos, Some(Qos { prefetch_size: 256, prefetch_count: 5, global: true }));
    }

    #[test]
    fn a_body_is_split_into_frames_no_larger_than_negotiated() {
        let body: Vec<u8> = (0..250u8).collect();
        let mut out = Vec::new();
        let content = ContentOut { channel: 3, frame_max: 108, properties: &[0, 0], body_size: 250 };
        put_delivery(&mut out, &content, b"tag", 1, false, b"\x02ex\x03key", &body);
        let (mut at, mut read, mut sizes) = (0, Vec::new(), Vec::new());
        while let Some(frame) = split(&out, at, 0).expect("well formed") {
            if frame.kind == FrameKind::Body {
                read.extend_from_slice(frame.payload(&out));
                sizes.push(frame.payload_len);
            }
            at = frame.next_at();
        }
        assert_eq!((at, read, sizes), (out.len(), body, vec![100, 100, 50]));
    }

    #[test]
    fn an_empty_body_has_no_frame() {
        let mut out = Vec::new();
        put_content_header(&mut out, 3, 0, &[0, 0]);
        let header_len = out.len();
        put_body_contiguous(&mut out, 3, 4096, &[]);
        assert_eq!(out.len(), header_len);
        let header = content_header(&out, &only_frame(&out)).expect("well formed");
        assert_eq!((header.class_id, header.body_size, header.properties_len), (60, 0, 2));
        assert_eq!(out[header.properties_at..][..2], [0, 0]);
    }

    #[test]
    fn long_names_are_cut_to_what_their_length_octet_counts() {
        let mut out = Vec::new();
        put_cancel(&mut out, 1, &[b'c'; 300]);
        assert_eq!(only_frame(&out).payload_len, 4 + 1 + 255 + 1);
    }
}
