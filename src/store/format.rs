//! Bytes on the disk: segment header, batch header, record header. [`super`] has the drawings.
//!
//! Everything is little-endian. Decoding never trusts a length: it is compared with the bytes at hand.

use std::fmt;

/// Place of a byte in the log. Places begin at 0, have no gaps and are never used twice, so that two
/// logs with the same records are the same bytes. A place with the highest bit set is in a cold file
/// instead (see [`super::cold`]); it is a name for the record only, and has no order with the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    const COLD: u64 = 1 << 63;

    /// The record was relocated to a cold file.
    pub fn is_cold(self) -> bool {
        self.0 & Self::COLD != 0
    }

    /// The number of the cold file that has the record, if one has.
    pub fn cold_file(self) -> Option<u32> {
        self.is_cold().then(|| self.cold_parts().0)
    }

    /// The positions in a cold file.
    pub fn in_cold_file(file: u32) -> std::ops::Range<u64> {
        Self::cold(file, 0).0..Self::cold(file, u32::MAX).0.saturating_add(1)
    }

    pub(super) fn cold(file: u32, at: u32) -> Self {
        debug_assert!(file < 1 << 31);
        Self(Self::COLD | u64::from(file) << 32 | u64::from(at))
    }

    /// File and place of a cold record.
    pub(super) fn cold_parts(self) -> (u32, u32) {
        (((self.0 & !Self::COLD) >> 32) as u32, self.0 as u32)
    }

    pub(super) fn plus(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_cold() {
            let (file, at) = self.cold_parts();
            write!(f, "cold {file}:{at}")
        } else {
            self.0.fmt(f)
        }
    }
}

/// The format that this version writes, and the latest that it reads.
pub const FORMAT_VERSION: u32 = 1;
/// Room for a segment's header at the beginning of its file: one block, so that data is aligned.
pub(super) const SEGMENT_HEADER_BYTES: usize = 4096;
/// Length of a batch's header.
pub(super) const BATCH_HEADER_BYTES: usize = 64;
/// Length of a record's header.
pub(super) const RECORD_HEADER_BYTES: usize = 12;
/// A batch is padded to a multiple of this, so that a search for batches looks at few places.
pub(super) const BATCH_ALIGN: usize = 8;
/// No batch is ever longer, whatever the options say: the bound of what a reader allocates.
pub(super) const BATCH_BYTES_LIMIT: usize = 16 << 20;
/// What a record alone in a batch takes beside its body, padding included.
pub(super) const RECORD_OVERHEAD_BYTES: usize = BATCH_HEADER_BYTES + RECORD_HEADER_BYTES + BATCH_ALIGN;

const SEGMENT_MAGIC: [u8; 8] = *b"TERNLOG\0";
const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"TrnB");
const SEGMENT_CHECKED_BYTES: usize = 128;

/// CRC-32C (Castagnoli).
pub(super) fn crc(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// Identity of a store, made once with its directory.
pub type StoreId = [u8; 16];

/// What a batch carries of its store's identity. It is inside the batch's checksum, and nobody who
/// only publishes knows it: a body that imitates a batch does not pass for one.
pub(super) fn tag_of(store: &StoreId) -> u32 {
    crc(store)
}

/// What a segment is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Log,
    /// Relocated records of an owner.
    Cold {
        owner: u64,
    },
}

/// The beginning of a segment's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) purpose: Purpose,
    pub(super) store: StoreId,
    pub(super) number: u64,
    /// Position of its first batch.
    pub(super) first: Position,
    /// Everything before this had been synced when the segment was begun.
    pub(super) watermark: Position,
    /// Checksum of the batch before its first.
    pub(super) chain: u32,
    /// Number of its first batch.
    pub(super) batch: u64,
    pub(super) epoch: u64,
    pub(super) time_ms: u64,
    /// The file is at least this long, or has lost its end.
    pub(super) file_bytes: u64,
    /// In the identity alone: no cold file has had a higher number.
    pub(super) cold_reserved: u32,
}

/// Why a segment's header was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderFault {
    Damaged(&'static str),
    Newer(u32),
}

impl SegmentHeader {
    /// What the file `identity` has.
    pub(super) fn identity(store: StoreId, cold_reserved: u32) -> Self {
        Self {
            purpose: Purpose::Log,
            store,
            number: 0,
            first: Position(0),
            watermark: Position(0),
            chain: 0,
            batch: 0,
            epoch: 0,
            time_ms: 0,
            file_bytes: SEGMENT_HEADER_BYTES as u64,
            cold_reserved,
        }
    }

    /// The header's block.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        bytes.extend(SEGMENT_MAGIC);
        bytes.extend(FORMAT_VERSION.to_le_bytes());
        bytes.extend([0; 4]); // checksum
        bytes.extend(self.store);
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(self.first.0.to_le_bytes());
        bytes.extend(self.watermark.0.to_le_bytes());
        bytes.extend(self.batch.to_le_bytes());
        bytes.extend(self.epoch.to_le_bytes());
        bytes.extend(self.time_ms.to_le_bytes());
        bytes.extend(self.chain.to_le_bytes());
        bytes.extend(0_u16.to_le_bytes()); // cipher: none
        bytes.extend(0_u16.to_le_bytes()); // compression: none
        let (purpose, owner) = match self.purpose {
            Purpose::Log => (0_u32, 0),
            Purpose::Cold { owner } => (1, owner),
        };
        bytes.extend(purpose.to_le_bytes());
        bytes.extend(owner.to_le_bytes());
        bytes.extend(self.file_bytes.to_le_bytes());
        bytes.extend(self.cold_reserved.to_le_bytes());
        bytes.resize(SEGMENT_CHECKED_BYTES, 0);
        let sum = crc(&bytes);
        bytes[12..16].copy_from_slice(&sum.to_le_bytes());
        bytes.resize(SEGMENT_HEADER_BYTES, 0);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        if bytes.len() < SEGMENT_CHECKED_BYTES {
            return Err(HeaderFault::Damaged("the segment's header is cut short"));
        }
        if bytes[..8] != SEGMENT_MAGIC {
            return Err(HeaderFault::Damaged("the segment's header is not one"));
        }
        // Before the checksum: a later format may place that elsewhere.
        let version = u32_at(bytes, 8);
        if version > FORMAT_VERSION {
            return Err(HeaderFault::Newer(version));
        }
        let mut checked = [0; SEGMENT_CHECKED_BYTES];
        checked.copy_from_slice(&bytes[..SEGMENT_CHECKED_BYTES]);
        checked[12..16].fill(0);
        if crc(&checked) != u32_at(bytes, 12) {
            return Err(HeaderFault::Damaged("checksum of the segment's header"));
        }
        if version == 0 || u32_at(bytes, 84) != 0 {
            return Err(HeaderFault::Damaged("cipher or compression that nobody knows"));
        }
        let mut store = StoreId::default();
        store.copy_from_slice(&bytes[16..32]);
        Ok(Self {
            purpose: match u32_at(bytes, 88) {
                0 => Purpose::Log,
                1 => Purpose::Cold { owner: u64_at(bytes, 92) },
                _ => return Err(HeaderFault::Damaged("a purpose of the segment that nobody knows")),
            },
            store,
            number: u64_at(bytes, 32),
            first: Position(u64_at(bytes, 40)),
            watermark: Position(u64_at(bytes, 48)),
            batch: u64_at(bytes, 56),
            epoch: u64_at(bytes, 64),
            time_ms: u64_at(bytes, 72),
            chain: u32_at(bytes, 80),
            file_bytes: u64_at(bytes, 100),
            cold_reserved: u32_at(bytes, 108),
        })
    }

    /// Where a position of this segment is in its file.
    ///
    /// A position has the same place in a block of the file as in a block of the log, so that a batch
    /// is gathered in an aligned buffer before it is known whether it begins a segment.
    pub(super) fn place(&self, position: Position) -> u64 {
        place_in(self.first, position)
    }
}

pub(super) fn place_in(first: Position, position: Position) -> u64 {
    SEGMENT_HEADER_BYTES as u64 + first.0 % SEGMENT_HEADER_BYTES as u64 + (position.0 - first.0)
}

/// The beginning of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Length of the batch with this header and its padding.
    pub bytes: u32,
    /// How many records it has; one without any only carries the watermark.
    pub records: u32,
    /// Batches are numbered without gaps.
    pub number: u64,
    /// Position of this header.
    pub first: Position,
    /// The reign of the primary that wrote it.
    pub epoch: u64,
    /// Time of the broker, in milliseconds since 1970.
    pub time_ms: u64,
    /// Everything before this was on stable storage when the batch was written.
    pub watermark: Position,
    /// Checksum of the batch before it.
    pub chain: u32,
}

impl BatchHeader {
    /// Position after the batch.
    pub fn end(&self) -> Position {
        self.first.plus(self.bytes as usize)
    }

    /// Writes the header and the checksum of a batch whose records stand in `batch` already; returns
    /// the checksum.
    pub(super) fn seal(&self, batch: &mut [u8], tag: u32) -> u32 {
        assert_eq!(batch.len(), self.bytes as usize);
        assert!(self.watermark <= self.first, "what is being written is not synced");
        batch[0..4].copy_from_slice(&BATCH_MAGIC.to_le_bytes());
        batch[8..12].copy_from_slice(&self.bytes.to_le_bytes());
        batch[12..16].copy_from_slice(&self.records.to_le_bytes());
        batch[16..24].copy_from_slice(&self.number.to_le_bytes());
        batch[24..32].copy_from_slice(&self.first.0.to_le_bytes());
        batch[32..40].copy_from_slice(&self.epoch.to_le_bytes());
        batch[40..48].copy_from_slice(&self.time_ms.to_le_bytes());
        batch[48..56].copy_from_slice(&self.watermark.0.to_le_bytes());
        batch[56..60].copy_from_slice(&self.chain.to_le_bytes());
        batch[60..64].copy_from_slice(&tag.to_le_bytes());
        let sum = crc(&batch[8..]);
        batch[4..8].copy_from_slice(&sum.to_le_bytes());
        sum
    }

    /// Whether these bytes could be the first of a batch.
    #[inline]
    pub(super) fn may_begin(bytes: &[u8]) -> bool {
        u32_at(bytes, 0) == BATCH_MAGIC
    }

    /// Length that a header at `expected` claims; `Err` says why it is none.
    pub(super) fn claim(header: &[u8], expected: Position, tag: u32) -> Result<usize, &'static str> {
        if header.len() < BATCH_HEADER_BYTES || u32_at(header, 0) != BATCH_MAGIC {
            return Err("no batch begins here");
        }
        if u64_at(header, 24) != expected.0 || u32_at(header, 60) != tag {
            return Err("a batch of another place stands here");
        }
        let bytes = u32_at(header, 8) as usize;
        if !(BATCH_HEADER_BYTES..=BATCH_BYTES_LIMIT).contains(&bytes) || !bytes.is_multiple_of(BATCH_ALIGN) {
            return Err("length of the batch");
        }
        Ok(bytes)
    }

    /// What a batch's header at the beginning of `bytes` says, whatever its place, if it is of the store
    /// with this tag. Nothing of it is verified.
    pub(super) fn claimed(bytes: &[u8], tag: u32) -> Option<Self> {
        let header = bytes.get(..BATCH_HEADER_BYTES)?;
        (Self::may_begin(header) && u32_at(header, 60) == tag).then(|| Self::fields(header))
    }

    fn fields(header: &[u8]) -> Self {
        Self {
            bytes: u32_at(header, 8),
            records: u32_at(header, 12),
            number: u64_at(header, 16),
            first: Position(u64_at(header, 24)),
            epoch: u64_at(header, 32),
            time_ms: u64_at(header, 40),
            watermark: Position(u64_at(header, 48)),
            chain: u32_at(header, 56),
        }
    }

    /// Number, and checksum of the batch before it, as a header says whose batch need not be whole.
    pub(super) fn numbers(header: &[u8]) -> (u64, u32) {
        if header.len() < BATCH_HEADER_BYTES { (0, 0) } else { (u64_at(header, 16), u32_at(header, 56)) }
    }

    /// Header and checksum of a whole batch, whose claim was accepted.
    pub(super) fn verify(batch: &[u8]) -> Result<(Self, u32), &'static str> {
        let sum = crc(&batch[8..]);
        if sum != u32_at(batch, 4) {
            return Err("checksum of the batch");
        }
        Ok((Self::fields(batch), sum))
    }
}

/// What a record is, for the layer above. The log itself looks at none of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Which record.
    pub kind: u8,
    /// Which layout of that kind.
    pub version: u8,
    /// [`Head::MUST_UNDERSTAND`]; the other bits are 0.
    pub flags: u16,
}

impl Head {
    /// A reader that does not know the kind and version must refuse to start, by name.
    pub const MUST_UNDERSTAND: u16 = 1;

    /// A record that every reader must understand.
    pub fn new(kind: u8, version: u8) -> Self {
        Self { kind, version, flags: Self::MUST_UNDERSTAND }
    }
}

/// Kind of a record that stands in the place of one that was lost: only [`salvage`](super::salvage)
/// writes it. A replay passes over it, and reading it is an error.
pub const LOST: u8 = 0xFF;

/// A record in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where it begins.
    pub position: Position,
    /// What it is.
    pub head: Head,
    /// What was appended.
    pub body: &'a [u8],
}

impl Record<'_> {
    /// Position after it.
    pub fn end(&self) -> Position {
        self.position.plus(RECORD_HEADER_BYTES + self.body.len())
    }
}

/// Writes a record's header but for its checksum.
pub(super) fn put_record_header(bytes: &mut [u8], head: Head, body_bytes: u32) {
    bytes[0..4].copy_from_slice(&body_bytes.to_le_bytes());
    bytes[4..8].fill(0);
    bytes[8] = head.kind;
    bytes[9] = head.version;
    bytes[10..12].copy_from_slice(&head.flags.to_le_bytes());
}

/// A record's checksum covers everything but itself, and its position: a record that was left behind
/// at another place does not pass. `bytes` are the record from its header on, as many as its length says.
fn record_crc(bytes: &[u8], position: Position) -> u32 {
    let place = position.0.wrapping_add(1).wrapping_add((bytes.len() as u64).rotate_right(16));
    let mixed = place.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    crc(&bytes[8..]) ^ (mixed >> 32) as u32
}

/// Computes the checksums of the records of a batch, in place.
pub(super) fn seal_records(batch: &mut [u8], first: Position, count: u32) {
    let mut at = BATCH_HEADER_BYTES;
    for _ in 0..count {
        let end = at + record_bytes(&batch[at..]);
        seal_record(&mut batch[at..end], first.plus(at));
        at = end;
    }
}

/// Computes the checksum of the record that fills `bytes`, in place.
#[inline]
pub(super) fn seal_record(bytes: &mut [u8], position: Position) {
    let sum = record_crc(bytes, position);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
}

/// Length of the record, with its header, that begins with these bytes. Nothing of it is verified yet.
pub(super) fn record_bytes(header: &[u8]) -> usize {
    RECORD_HEADER_BYTES + u32_at(header, 0) as usize
}

/// Verifies the record that fills `bytes`, alone, for whoever wants what was appended.
pub(super) fn check_record(bytes: &[u8], position: Position) -> Result<(), &'static str> {
    check_whole(bytes, position)?;
    if bytes[8] == LOST { Err("the record was lost when the directory was salvaged") } else { Ok(()) }
}

/// Verifies the checksum of what fills `bytes`, alone.
pub(super) fn check_whole(bytes: &[u8], position: Position) -> Result<(), &'static str> {
    if record_crc(bytes, position) == u32_at(bytes, 4) { Ok(()) } else { Err("checksum of the record") }
}

/// The record that fills `bytes`, which were verified.
pub(super) fn record(bytes: &[u8], position: Position) -> Record<'_> {
    let head = Head { kind: bytes[8], version: bytes[9], flags: u16::from_le_bytes([bytes[10], bytes[11]]) };
    Record { position, head, body: &bytes[RECORD_HEADER_BYTES..] }
}

/// The records of a verified batch.
pub(super) struct Records<'a> {
    batch: &'a [u8],
    first: Position,
    at: usize,
    left: u32,
}

impl<'a> Records<'a> {
    pub(super) fn new(batch: &'a [u8], header: &BatchHeader) -> Self {
        Self { batch, first: header.first, at: BATCH_HEADER_BYTES, left: header.records }
    }
}

impl<'a> Iterator for Records<'a> {
    /// `Err` when lengths do not add up, which a verified batch never shows unless we wrote it wrong.
    type Item = Result<Record<'a>, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let rest = &self.batch[self.at..];
        if rest.len() < RECORD_HEADER_BYTES || rest.len() < record_bytes(rest) {
            self.left = 0;
            return Some(Err("length of a record"));
        }
        let position = self.first.plus(self.at);
        let bytes = record_bytes(rest);
        self.at += bytes;
        Some(Ok(record(&rest[..bytes], position)))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were asked for"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes were asked for"))
}
