//! The content of a message, from which its name and its integrity can be read.
//!
//! ```text
//! cycle u32 | publisher u32 | seq u64 | length u32 | bytes that follow from the name
//! ```

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

/// `None`: damaged.
pub(crate) fn decode(body: &[u8]) -> Option<MessageId> {
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
}
