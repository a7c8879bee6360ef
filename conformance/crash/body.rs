//! The content of a message, from which its name and its integrity can be read.
//!
//! ```text
//! cycle u32 | publisher u32 | seq u64 | length u32 | bytes that follow from the name
//! ```
//!
//! Where it has to be text it is that in base64, perhaps in the envelope of a notification.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{history::MessageId, rng::Rng};

const HEADER_BYTES: usize = 20;

pub(crate) fn encode(message: MessageId, filler_bytes: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(HEADER_BYTES + filler_bytes);
    body.extend(message.cycle.to_be_bytes());
    body.extend(message.publisher.to_be_bytes());
    body.extend(message.seq.to_be_bytes());
    body.extend(u32::try_from(filler_bytes).expect("messages are small").to_be_bytes());
    body.extend(filler(message, filler_bytes));
    body
}

/// As text.
pub(crate) fn encode_text(message: MessageId, filler_bytes: usize) -> String {
    STANDARD.encode(encode(message, filler_bytes))
}

/// `None`: damaged.
pub(crate) fn decode(body: &[u8]) -> Option<MessageId> {
    match body.first()? {
        b'{' => {
            let envelope: serde_json::Value = serde_json::from_slice(body).ok()?;
            decode_octets(&STANDARD.decode(envelope["Message"].as_str()?).ok()?)
        }
        // No campaign has so many cycles that this is the first octet of their number.
        0 => decode_octets(body),
        _ => decode_octets(&STANDARD.decode(body).ok()?),
    }
}

fn decode_octets(body: &[u8]) -> Option<MessageId> {
    let (cycle, rest) = body.split_first_chunk()?;
    let (publisher, rest) = rest.split_first_chunk()?;
    let (seq, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let message = MessageId {
        cycle: u32::from_be_bytes(*cycle),
        publisher: u32::from_be_bytes(*publisher),
        seq: u64::from_be_bytes(*seq),
    };
    let is_whole = u32::from_be_bytes(*length) as usize == rest.len();
    (is_whole && rest == filler(message, rest.len())).then_some(message)
}

fn filler(message: MessageId, bytes: usize) -> Vec<u8> {
    let name = (u64::from(message.cycle) << 32) | u64::from(message.publisher);
    let mut rng = Rng::new(Rng::new(name).next() ^ message.seq);
    let mut filler = vec![0; bytes];
    for chunk in filler.chunks_mut(8) {
        chunk.copy_from_slice(&rng.next().to_le_bytes()[..chunk.len()]);
    }
    filler
}

/// Of messages that fill segments of the log.
pub(crate) const BULK_BYTES: usize = 40_000;

/// Mostly small ones, and a few that a log treats differently.
pub(crate) fn filler_bytes(rng: &mut Rng) -> usize {
    match rng.within(0..1000) {
        0 => rng.count(256 << 10..600 << 10),
        1..10 => rng.count(4 << 10..32 << 10),
        10..200 => rng.count(200..2000),
        _ => rng.count(0..100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_to_a_body_is_seen() {
        let message = MessageId { cycle: 1, publisher: 2, seq: 3 };
        let body = encode(message, 50);
        assert_eq!(decode(&body), Some(message));
        assert_eq!(decode(&body[..body.len() - 1]), None);
        for n in 0..body.len() {
            let mut damaged = body.clone();
            damaged[n] ^= 4;
            assert_eq!(decode(&damaged), None, "byte {n}");
        }
    }

    #[test]
    fn text_and_envelopes_are_read() {
        let message = MessageId { cycle: 1, publisher: 2, seq: 3 };
        let text = encode_text(message, 50);
        assert_eq!(decode(text.as_bytes()), Some(message));
        assert_eq!(decode(&text.as_bytes()[..text.len() - 4]), None);
        let envelope = serde_json::json!({ "Type": "Notification", "Message": text });
        assert_eq!(decode(envelope.to_string().as_bytes()), Some(message));
    }
}
