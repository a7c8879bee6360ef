//! What a measured message carries, so that loss, reordering and damage show.
//!
//! ```text
//! 0           8           16          24                 size-8      size
//! | publisher | check     | sent at   | filler ...       | check,   |
//! | and seq   | word      | (ns)      |                  | rotated  |
//! ```
//! All words are little-endian. Bodies under 16 bytes carry filler alone and are only counted; the
//! time is there from 32 bytes on, the last word from 24.

/// The smallest body that can be followed one by one.
pub(super) const TRACED_BYTES_MIN: usize = 16;
/// The smallest body that can carry the time of its sending.
pub(super) const STAMPED_BYTES_MIN: usize = 32;

const SEQ_BITS: u32 = 48;
const FILLER: u64 = 0x7a39_c5b1_4e8d_2f66;
const STAMP_AT: usize = 16;

/// Writes and checks the bodies of one run. Another run's messages do not pass its check.
#[derive(Debug, Clone, Copy)]
pub(super) struct Payload {
    seed: u64,
    size: usize,
}

/// What a body said about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checked {
    /// Whole; from this publisher, with this number. `hash` differs for each message.
    Traced { publisher: u16, seq: u64, hash: u64 },
    /// Whole, but too small to say more.
    Counted,
    /// Not what was sent in this run.
    Damaged,
}

impl Payload {
    pub(super) fn new(seed: u64, size: usize) -> Self {
        Self { seed, size }
    }

    pub(super) fn is_traced(&self) -> bool {
        self.size >= TRACED_BYTES_MIN
    }

    /// A body of filler, to be numbered before each sending.
    pub(super) fn blank(&self) -> Vec<u8> {
        FILLER.to_le_bytes().iter().copied().cycle().take(self.size).collect()
    }

    /// The hash of a traced body.
    pub(super) fn hash_of(&self, publisher: u16, seq: u64) -> u64 {
        self.hash(word_of(publisher, seq))
    }

    /// Writes `seq` into a traced body and returns its hash.
    #[inline]
    pub(super) fn number(&self, body: &mut [u8], publisher: u16, seq: u64) -> u64 {
        let word = word_of(publisher, seq);
        let hash = self.hash(word);
        body[..8].copy_from_slice(&word.to_le_bytes());
        body[8..16].copy_from_slice(&hash.to_le_bytes());
        if self.size >= 24 {
            body[self.size - 8..self.size].copy_from_slice(&hash.rotate_left(23).to_le_bytes());
        }
        hash
    }

    /// Writes the time of sending; for bodies of at least `STAMPED_BYTES_MIN`.
    pub(super) fn stamp(body: &mut [u8], sent_ns: u64) {
        body[STAMP_AT..STAMP_AT + 8].copy_from_slice(&sent_ns.to_le_bytes());
    }

    pub(super) fn sent_ns(body: &[u8]) -> u64 {
        word_at(body, STAMP_AT)
    }

    /// Checks the first words, the last, and one in between that the hash chooses.
    #[inline]
    pub(super) fn check(&self, body: &[u8]) -> Checked {
        if body.len() != self.size {
            return Checked::Damaged;
        }
        if self.size < TRACED_BYTES_MIN {
            let whole = body.iter().zip(FILLER.to_le_bytes().iter().cycle()).all(|(a, b)| a == b);
            return if whole { Checked::Counted } else { Checked::Damaged };
        }
        let word = word_at(body, 0);
        let hash = self.hash(word);
        let mut wrong = word_at(body, 8) ^ hash;
        if self.size >= 24 {
            wrong |= word_at(body, self.size - 8) ^ hash.rotate_left(23);
        }
        let filler_words = (self.size.saturating_sub(8) / 8).saturating_sub(3);
        if filler_words > 0 {
            let chosen = 3 + (((hash >> 32) as usize * filler_words) >> 32);
            wrong |= word_at(body, chosen * 8) ^ FILLER;
        }
        if wrong != 0 {
            return Checked::Damaged;
        }
        Checked::Traced { publisher: (word >> SEQ_BITS) as u16, seq: word & ((1 << SEQ_BITS) - 1), hash }
    }

    /// A finalizer in the manner of splitmix64.
    #[inline]
    fn hash(&self, word: u64) -> u64 {
        let mut hash = (word ^ self.seed).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash ^= hash >> 31;
        hash.wrapping_mul(0x94d0_49bb_1331_11eb)
    }
}

#[inline]
fn word_of(publisher: u16, seq: u64) -> u64 {
    u64::from(publisher) << SEQ_BITS | seq
}

#[inline]
fn word_at(body: &[u8], at: usize) -> u64 {
    body.get(at..).and_then(<[u8]>::first_chunk::<8>).map_or(0, |word| u64::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_numbered_body_of_any_size_passes() {
        for size in [16, 17, 23, 24, 31, 32, 33, 40, 1024, 20_000] {
            let payload = Payload::new(99, size);
            let mut body = payload.blank();
            for seq in [0, 1, 1 << 40] {
                let hash = payload.number(&mut body, 3, seq);
                assert_eq!(payload.hash_of(3, seq), hash);
                assert_eq!(payload.check(&body), Checked::Traced { publisher: 3, seq, hash }, "{size}");
            }
        }
    }

    #[test]
    fn a_stamp_does_not_break_the_check() {
        let payload = Payload::new(1, STAMPED_BYTES_MIN);
        let mut body = payload.blank();
        payload.number(&mut body, 0, 5);
        Payload::stamp(&mut body, 777);
        assert!(matches!(payload.check(&body), Checked::Traced { seq: 5, .. }));
        assert_eq!(Payload::sent_ns(&body), 777);
    }

    #[test]
    fn small_bodies_are_counted_and_compared() {
        let payload = Payload::new(1, 5);
        let mut body = payload.blank();
        assert_eq!(payload.check(&body), Checked::Counted);
        body[4] ^= 1;
        assert_eq!(payload.check(&body), Checked::Damaged);
    }

    #[test]
    fn damage_and_other_runs_do_not_pass() {
        let payload = Payload::new(1, 64);
        let mut body = payload.blank();
        payload.number(&mut body, 0, 5);
        assert_eq!(Payload::new(2, 64).check(&body), Checked::Damaged);
        assert_eq!(payload.check(&body[..63]), Checked::Damaged);
        for at in [0, 9, 63] {
            let mut damaged = body.clone();
            damaged[at] ^= 1;
            assert_eq!(payload.check(&damaged), Checked::Damaged);
        }
    }
}
