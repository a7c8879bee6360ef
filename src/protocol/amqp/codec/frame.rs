//! Frames: finding where one ends in a buffer, without looking into it.
//!
//! ```text
//! 0      1         3             7                   7 + size
//! +------+---------+-------------+------- ... -------+-------+
//! | kind | channel | size        | payload           | 0xCE  |
//! +------+---------+-------------+------- ... -------+-------+
//! ```

use super::octets::{self, Snippet};

/// The octet after every payload.
pub const FRAME_END: u8 = 0xCE;
/// Octets of a frame that are not payload.
pub const FRAME_OVERHEAD: usize = 8;

/// Octets before the payload.
pub(super) const HEAD_BYTES: usize = 7;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A method with its arguments.
    Method,
    /// The header of a content: body size and properties.
    Header,
    /// A part of a content's body.
    Body,
    /// Nothing: the peer lives.
    Heartbeat,
}

impl FrameKind {
    /// The kind's octet on the wire.
    pub const fn octet(self) -> u8 {
        match self {
            Self::Method => 1,
            Self::Header => 2,
            Self::Body => 3,
            Self::Heartbeat => 8,
        }
    }

    /// The kind of an octet.
    pub const fn from_octet(octet: u8) -> Option<Self> {
        Some(match octet {
            1 => Self::Method,
            2 => Self::Header,
            3 => Self::Body,
            8 => Self::Heartbeat,
            _ => return None,
        })
    }

    /// Whether a payload of `len` octets is long enough to be of this kind at all.
    const fn fits(self, len: usize) -> bool {
        match self {
            Self::Method => len >= 4,
            Self::Header => len >= 12,
            Self::Body => true,
            Self::Heartbeat => len == 0,
        }
    }
}

/// A whole frame found in the input; the payload is given by its place in the input.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// What it carries.
    pub kind: FrameKind,
    /// The channel it belongs to.
    pub channel: u16,
    /// Where the payload starts in the input.
    pub payload_at: usize,
    /// Octets of payload.
    pub payload_len: usize,
}

impl Frame {
    /// The payload in the input in which the frame was found.
    pub fn payload<'a>(&self, input: &'a [u8]) -> &'a [u8] {
        &input[self.payload_at..self.payload_at + self.payload_len]
    }

    /// Where the next frame starts in the input.
    pub fn next_at(&self) -> usize {
        self.payload_at + self.payload_len + 1
    }
}

/// Splits off the frame at `at`. `Ok(None)` asks for more input.
///
/// `frame_max` is the negotiated size of a whole frame, 0 for no limit. As RabbitMQ does, a
/// payload of up to `frame_max` octets is let through, because some clients forget the other 8.
/// A frame that is too large is refused as soon as its size is known. A kind that does not exist,
/// or a payload too short for its kind, is refused when the frame is complete, because the error's
/// text shows the payload.
#[inline]
pub fn split(input: &[u8], at: usize, frame_max: u32) -> Result<Option<Frame>, FrameError> {
    let Some(head) = input.get(at..).and_then(|rest| rest.first_chunk::<HEAD_BYTES>()) else {
        return Ok(None);
    };
    let &[octet, c0, c1, s0, s1, s2, s3] = head;
    let channel = u16::from_be_bytes([c0, c1]);
    let size = u32::from_be_bytes([s0, s1, s2, s3]);
    if frame_max != 0 && size > frame_max {
        return Err(FrameError::TooLarge { kind: octet, channel, payload_bytes: size, frame_max });
    }
    let (payload_at, payload_len) = (at + HEAD_BYTES, size as usize);
    let Some(&end) = payload_at.checked_add(payload_len).and_then(|end_at| input.get(end_at)) else {
        return Ok(None);
    };
    match FrameKind::from_octet(octet) {
        Some(kind) if end == FRAME_END && kind.fits(payload_len) => {
            Ok(Some(Frame { kind, channel, payload_at, payload_len }))
        }
        _ => Err(malformed(octet, channel, &input[payload_at..payload_at + payload_len], end)),
    }
}

/// Octets that the frame at `at` has in total, as soon as its head is there.
pub fn wanted(input: &[u8], at: usize) -> Option<usize> {
    let &[.., s0, s1, s2, s3] = input.get(at..)?.first_chunk::<HEAD_BYTES>()?;
    Some((u32::from_be_bytes([s0, s1, s2, s3]) as usize).saturating_add(FRAME_OVERHEAD))
}

#[cold]
fn malformed(kind: u8, channel: u16, payload: &[u8], end: u8) -> FrameError {
    let payload = Snippet::new(payload);
    if end == FRAME_END {
        FrameError::UnknownKind { kind, channel, payload }
    } else {
        FrameError::BadEnd { kind, channel, payload, end }
    }
}

/// Why input is not a frame. The connection ends with 501 FRAME_ERROR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The octet after the payload is not [`FRAME_END`].
    BadEnd {
        /// The kind's octet.
        kind: u8,
        /// The frame's channel.
        channel: u16,
        /// How the payload starts.
        payload: Snippet,
        /// What stood in the place of [`FRAME_END`].
        end: u8,
    },
    /// There is no such kind, or the payload is not one of that kind: a method of fewer than 4
    /// octets, a header of fewer than 12, a heartbeat of any.
    UnknownKind {
        /// The kind's octet.
        kind: u8,
        /// The frame's channel.
        channel: u16,
        /// How the payload starts.
        payload: Snippet,
    },
    /// The payload would be larger than was negotiated. None of it needs to have arrived.
    TooLarge {
        /// The kind's octet.
        kind: u8,
        /// The frame's channel.
        channel: u16,
        /// Octets of payload announced.
        payload_bytes: u32,
        /// The limit in force.
        frame_max: u32,
    },
}

impl FrameError {
    /// RabbitMQ's explanation, which follows `FRAME_ERROR - ` in the reply text. Octets above 127
    /// that RabbitMQ prints as Latin-1 are the same characters here.
    pub fn text(&self) -> String {
        match self {
            Self::BadEnd { kind, payload, end, .. } => {
                let mut text = payload.describe(*kind) + ": ";
                octets::print_pair("invalid_frame_end_marker", end, &mut text);
                text
            }
            Self::UnknownKind { kind, payload, .. } => payload.describe(*kind) + ": unknown_frame",
            Self::TooLarge { kind, payload_bytes, frame_max, .. } => {
                let payload_max = i64::from(*frame_max) - FRAME_OVERHEAD as i64;
                format!("type {kind}, all octets = <<>>: {{frame_too_large,{payload_bytes},{payload_max}}}")
            }
        }
    }
}

/// RabbitMQ's explanation for a frame that is well formed but has no place where it came, such as
/// a heartbeat on channel 1; it follows `UNEXPECTED_FRAME - ` in the reply text.
pub fn unexpected_text(kind: FrameKind, payload: &[u8]) -> String {
    Snippet::new(payload).describe(kind.octet())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, channel: u16, payload: &[u8], end: u8) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend(channel.to_be_bytes());
        bytes.extend((payload.len() as u32).to_be_bytes());
        bytes.extend(payload);
        bytes.push(end);
        bytes
    }

    fn error_text(bytes: &[u8], frame_max: u32) -> String {
        split(bytes, 0, frame_max).expect_err("refused").text()
    }

    #[test]
    fn frames_are_split_one_after_the_other() {
        let mut input = frame(1, 7, &[0, 20, 0, 10, 0], FRAME_END);
        input.extend(frame(8, 0, &[], FRAME_END));
        let first = split(&input, 0, 4096).expect("well formed").expect("complete");
        assert_eq!((first.kind, first.channel, first.payload_at, first.payload_len), (FrameKind::Method, 7, 7, 5));
        assert_eq!(first.payload(&input), [0, 20, 0, 10, 0]);
        let second = split(&input, first.next_at(), 4096).expect("well formed").expect("complete");
        assert_eq!((second.kind, second.channel, second.payload_len), (FrameKind::Heartbeat, 0, 0));
        assert!(matches!(split(&input, second.next_at(), 4096), Ok(None)));
        assert!(matches!(split(&input, input.len() + 1, 4096), Ok(None)));
    }

    #[test]
    fn every_prefix_of_a_frame_asks_for_more() {
        let input = frame(3, 1, b"body", FRAME_END);
        for len in 0..input.len() {
            assert!(matches!(split(&input[..len], 0, 4096), Ok(None)));
            assert_eq!(wanted(&input[..len], 0), (len >= 7).then_some(input.len()));
        }
    }

    #[test]
    fn a_wrong_end_is_told_with_the_payload() {
        assert_eq!(
            error_text(&frame(1, 1, &[0, 20, 0, 10], 170), 4096),
            "type 1, all octets = <<0,20,0,10>>: {invalid_frame_end_marker,170}"
        );
    }

    #[test]
    fn an_unknown_kind_is_told_with_the_payload() {
        assert_eq!(
            error_text(&frame(9, 1, &[0, 20, 0, 10], FRAME_END), 4096),
            "type 9, all octets = <<0,20,0,10>>: unknown_frame"
        );
        assert_eq!(
            error_text(&frame(1, 1, b"abc", FRAME_END), 4096),
            "type 1, all octets = <<\"abc\">>: unknown_frame"
        );
        assert_eq!(error_text(&frame(8, 0, &[0], FRAME_END), 4096), "type 8, all octets = <<0>>: unknown_frame");
    }

    #[test]
    fn a_large_frame_is_refused_by_its_head() {
        let head = [3, 0, 1, 0, 0x10, 0, 0];
        assert_eq!(error_text(&head, 131_072), "type 3, all octets = <<>>: {frame_too_large,1048576,131064}");
        assert!(matches!(split(&head, 0, 0), Ok(None)));
    }

    #[test]
    fn a_payload_may_be_as_large_as_a_frame() {
        assert!(matches!(split(&frame(3, 1, &[0; 4096], FRAME_END), 0, 4096), Ok(Some(_))));
        assert!(split(&frame(3, 1, &[0; 4097], FRAME_END), 0, 4096).is_err());
    }

    #[test]
    fn a_frame_out_of_place_is_described() {
        assert_eq!(unexpected_text(FrameKind::Heartbeat, &[]), "type 8, all octets = <<>>");
    }
}
