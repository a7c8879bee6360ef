//! The log: opaque records in, durable records out. It knows nothing of queues.
//!
//! # How it is used
//!
//! ```text
//! let opened = Store::open(disk, dir, options)?;            // takes the directory's lock
//! let recovered = opened.replay(checkpoint, |record, batch| ...)?; // every record from there on, verified
//! let log = recovered.start(epoch, owner)?;                 // cuts a torn tail, starts the threads
//!
//! let appended = log.append(Head::new(kind, version), &[header, body])?;  // never waits
//! owner.flushed(to)                                          // told when `to` has passed `appended.end`
//! log.read(appended.position, &mut buffer)?                  // later, from a thread that may wait
//! log.release_before(position)                               // after a durable checkpoint
//! ```
//!
//! [`Log::append`] copies a record once into the batch in the making, under one short lock, and wakes
//! the writer thread if it sleeps. The writer takes everything that gathered during its previous sync,
//! writes it as one batch, syncs, and moves [`Log::flushed`]. It waits for nothing else, so a single
//! record costs one sync, and many share one.
//!
//! Before a session reads it asks [`Log::admission`]; what it admitted then always fits. A record that
//! is longer than [`Log::body_bytes_max`] is refused: it is written in parts by the layer above.
//!
//! A failed write or sync is final: the log is `Failed`, [`Owner::failed`] is told, and `flushed` never
//! moves again. A full disk is not a failure: [`Space::Low`], then [`Space::Full`], until there is room.
//!
//! # Files of the directory
//!
//! | name | what |
//! |---|---|
//! | `0000000000000001.seg` | a segment of the log; the number, in hexadecimal, counts from 1 without gaps, but segments that were released are gone |
//! | `spare-0000001a` | a file that is ready to be a segment: zeroed, or a released one with its old bytes |
//! | `cold-00000001.seg` | relocated records of one owner |
//! | `new-...` | a file in the making; removed at start |
//! | `identity` | a segment's header alone: the store's identity, and which numbers cold files may have had. Without segments beside it, they were lost |
//! | `lock` | locked while a process has the directory open |
//!
//! A segment is begun so that a crash never shows it half made: the file is ready and synced, then its
//! header is written and synced, then it gets its name, then the directory is synced, then the first
//! batch is written. A segment with a bad header is therefore damage. A released one is renamed to a
//! spare, and the directory synced, before it is used again.
//!
//! # Format, version 1
//!
//! All numbers are little-endian. CRC is CRC-32C (Castagnoli).
//!
//! ```text
//! segment file (segment_bytes long, from its beginning on)
//!  0     header, 4096 bytes:
//!        0 magic "TERNLOG\0"  8 format version u32   12 CRC of bytes 0..128 with this field 0, u32
//!        16 store's identity [16]   32 number u64     40 first position u64
//!        48 watermark u64      56 number of its first batch u64
//!        64 epoch u64          72 broker time ms u64  80 CRC of the batch before its first u32
//!        84 cipher u16 = 0     86 compression u16 = 0
//!        88 purpose u32 (0 log, 1 cold)               92 owner u64 (cold)
//!        100 size of the file u64                     108 (identity) numbers of cold files up to
//!        this one may have been used u32             112.. zero
//!  4096  batches. Position p is at 4096 + first % 4096 + (p - first).
//!
//! batch (a multiple of 8 long, at most 16 MiB, never across segments)
//!  0 magic "TrnB"        4 CRC of all that follows u32    8 length, header and padding included, u32
//!  12 records u32       16 number u64                    24 first position u64: of this header
//!  32 epoch u64         40 broker time ms u64            48 synced watermark u64
//!  56 CRC of the batch before it u32                     60 tag u32: CRC of the store's identity
//!  64 records, one after another, then zeros to a multiple of 8
//!
//! record
//!  0 length of the body u32                              4 CRC u32: of bytes 8 to the end, mixed with
//!  8 kind u8   9 version u8   10 flags u16                 the record's position and length
//!  12 body
//! ```
//!
//! A position is the place of a byte in the log: batches with their headers and padding follow each
//! other without gaps, across segments, for as long as the store lives. A segment's positions begin
//! where the one before ends; what is left at the end of its file is no part of the log.
//!
//! A batch counts when its place, tag, CRC, number and the CRC of its predecessor are all right. So the
//! bytes of an earlier use of the file never do, nor does a batch from before an earlier cut of the tail,
//! nor a body that imitates a batch.
//!
//! The first batch that does not count ends the log, unless something says that it had been synced: a
//! watermark in a later whole batch or segment header, or the caller's checkpoint, beyond its place. Then
//! it is damage, and [`Store::replay`] refuses with the segment and the position. So that the last batch
//! is covered as well, a log that is idle or closed writes one more, without records: only a batch
//! damaged within [`Options::seal_after_ms`] of its sync, with a crash in between, passes for a torn one.
//! At start the end is cut there: whatever looks like a batch behind it is overwritten with zeros.
//!
//! A cold file has the same header and then records only; the position of one is `1 << 63 | file << 32 |
//! place in the file`.
//!
//! The kind 255 ([`LOST`]) is the store's own: [`salvage`] puts such records, without `MUST_UNDERSTAND`, in
//! the place of what it cannot save. A replay passes over them, and reading one is an error.
//!
//! # Adding to the format
//!
//! A new kind of record is no change of the format; its `MUST_UNDERSTAND` flag makes older versions of the
//! layer above refuse. Anything else raises [`FORMAT_VERSION`]; a reader refuses a later one by name and
//! reads every earlier one.

pub mod backup;
pub mod disk;
pub mod index;
pub mod options;

mod cold;
mod error;
mod format;
mod gather;
mod housekeeper;
mod log;
mod reader;
mod recovery;
pub mod salvage;
mod scan;
mod scrub;
mod segments;
mod shared;
pub mod survey;
mod writer;

#[cfg(test)]
mod tests;

pub use cold::{ColdFile, ColdWriter};
pub use error::{Corruption, Failure, OpenError, ReadError, Refused};
pub use format::{BatchHeader, FORMAT_VERSION, Head, LOST, Position, Record, StoreId};
pub use log::{Admission, Appended, Figures, Log, Owner, Space};
pub use options::{Options, OutOfBounds, Sync};
pub use reader::{Block, Found, Reading};
pub use recovery::{Recovered, Store, Torn};
pub use segments::SegmentInfo;
