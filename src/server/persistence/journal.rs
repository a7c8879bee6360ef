//! The broker's journal: its records in the log.
//!
//! A record's kind and version are those of the log's record; its fields are the body. A record that is
//! longer than the log takes is written in parts:
//!
//! ```text
//! PART      a piece of the record
//! CHAINED   kind and version of the record, then the positions of its parts (u64, little-endian)
//! ```
//!
//! Nothing is ever refused here: sessions ask [`Journal::has_room`] before they read, and what they
//! read then fits. When the log has failed, everything waits for a position that never comes.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use smallvec::SmallVec;

use crate::{
    broker::message::Message,
    broker::record::{Appended, Enqueued, Haste, Journal, Pins, Position, Record, encode, encode_enqueued},
    store::{self, Admission, Head, Log},
};

/// A piece of a record that is too long for one.
pub(super) const PART: u8 = 200;
/// A record whose pieces are elsewhere.
pub(super) const CHAINED: u8 = 201;
/// The only version of both.
pub(super) const CHAIN_VERSION: u8 = 1;

/// See the module's text.
pub struct LogJournal {
    log: Arc<Log>,
    pins: Arc<Pins>,
    /// After the last record that a snapshot of the definitions has to have.
    defined_at: AtomicU64,
    chain_bytes_max: AtomicU64,
    /// The smallest body of a message whose record has parts.
    long_body_min: AtomicU64,
}

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Scratch memory that a thread keeps.
const SCRATCH_BYTES_MAX: usize = 64 << 10;

impl LogJournal {
    /// A journal that writes to `log`.
    /// `chain_bytes_max` and `long_body_min` are what its records so far need.
    pub fn new(log: Arc<Log>, chain_bytes_max: u64, long_body_min: u64) -> Self {
        let (chain_bytes_max, long_body_min) = (AtomicU64::new(chain_bytes_max), AtomicU64::new(long_body_min));
        Self { log, pins: Arc::default(), defined_at: AtomicU64::new(0), chain_bytes_max, long_body_min }
    }

    /// After the last record that a snapshot of the definitions has to have.
    pub fn defined_at(&self) -> Position {
        Position(self.defined_at.load(Ordering::Acquire))
    }

    /// Bytes of the log from the first part of a long record to its end, at most.
    pub fn chain_bytes_max(&self) -> u64 {
        self.chain_bytes_max.load(Ordering::Relaxed)
    }

    /// The smallest body of a message whose record has parts.
    pub fn long_body_min(&self) -> u64 {
        self.long_body_min.load(Ordering::Relaxed)
    }

    fn append_pieces(&self, head: Head, pieces: &[&[u8]], haste: Haste) -> Appended {
        appended(match haste {
            Haste::Due => self.log.append_essential(head, pieces),
            Haste::Patient => self.log.append_patient(head, pieces),
        })
    }

    /// Writes a record of which `bytes` begin with kind and version, and that may have a message in it.
    fn append_whole(&self, bytes: &[u8], message: Option<&Message>, haste: Haste) -> Appended {
        let head = Head::new(bytes[0], bytes[1]);
        let body = &bytes[2..];
        let bytes_max = self.log.body_bytes_max();
        if body.len() <= bytes_max {
            return self.append_pieces(head, &[body], haste);
        }
        let _pin = self.pins.pin(|| self.end());
        // Before anybody can find the message.
        if let Some(message) = message {
            self.long_body_min.fetch_min(message.body_bytes(), Ordering::Relaxed);
        }
        let mut chain = vec![head.kind, head.version];
        for part in body.chunks(bytes_max) {
            let appended = self.append_pieces(Head::new(PART, CHAIN_VERSION), &[part], haste);
            chain.extend(appended.at.0.to_le_bytes());
        }
        let first = chain.get(2..10).and_then(|first| first.try_into().ok()).map_or(0, u64::from_le_bytes);
        let appended = self.append_pieces(Head::new(CHAINED, CHAIN_VERSION), &[&chain], haste);
        self.chain_bytes_max.fetch_max(appended.at.0.saturating_sub(first), Ordering::Relaxed);
        appended
    }
}

fn appended(result: Result<store::Appended, store::Refused>) -> Appended {
    // It fits, and nobody is refused for what was admitted: else the log has failed.
    result.map_or(FAILED, placed)
}

const FAILED: Appended = Appended { at: Position::NONE, end: Position(u64::MAX) };

fn placed(appended: store::Appended) -> Appended {
    Appended { at: Position(appended.position.0), end: Position(appended.end.0) }
}

fn with_scratch<T>(take: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.clear();
        let taken = take(scratch);
        if scratch.capacity() > SCRATCH_BYTES_MAX {
            *scratch = Vec::new();
        }
        taken
    })
}

impl Journal for LogJournal {
    fn append(&self, record: &Record, haste: Haste) -> Appended {
        let is_of_snapshot = record.is_of_snapshot();
        // No checkpoint begins between such a record and its being noted.
        let _pin = is_of_snapshot.then(|| self.pins.pin(|| self.end()));
        let appended = with_scratch(|scratch| {
            encode(record, scratch);
            // Who waits for a settle says so.
            let haste = if matches!(record, Record::Settle { .. }) { Haste::Patient } else { haste };
            self.append_whole(scratch, record.message(), haste)
        });
        if is_of_snapshot {
            self.defined_at.fetch_max(appended.end.0, Ordering::AcqRel);
        }
        appended
    }

    fn append_enqueued(&self, enqueued: Enqueued<'_>, haste: Haste) -> Appended {
        let fits = enqueued.message.record_bytes_max() <= self.log.body_bytes_max() as u64;
        with_scratch(|scratch| {
            encode_enqueued(&enqueued, scratch, |parts, scratch| {
                if fits {
                    let head = Head::new(scratch[0], scratch[1]);
                    let mut pieces: SmallVec<[&[u8]; 8]> = SmallVec::new();
                    pieces.push(&scratch[2..]);
                    for part in parts {
                        pieces.push(part);
                    }
                    return self.append_pieces(head, &pieces, haste);
                }
                parts.for_each(|part| scratch.extend_from_slice(part));
                self.append_whole(scratch, Some(enqueued.message), haste)
            })
        })
    }

    fn flushed(&self) -> Position {
        Position(self.log.flushed().0)
    }

    fn end(&self) -> Position {
        Position(self.log.end().0)
    }

    fn hasten(&self) {
        self.log.hasten();
    }

    fn pins(&self) -> &Arc<Pins> {
        &self.pins
    }

    fn has_room(&self) -> bool {
        match self.log.admission() {
            Admission::Open | Admission::DiskLow => true,
            Admission::Busy | Admission::Failed => false,
        }
    }
}

/// The positions of a chained record's parts, with its kind and version; `None` if these bytes are no
/// such chain.
pub(super) fn chain_of(body: &[u8]) -> Option<(u8, u8, impl Iterator<Item = store::Position>)> {
    let (head, positions) = body.split_first_chunk::<2>()?;
    let (positions, rest) = positions.as_chunks::<8>();
    let positions = positions.iter().map(|bytes| store::Position(u64::from_le_bytes(*bytes)));
    rest.is_empty().then_some((head[0], head[1], positions))
}
