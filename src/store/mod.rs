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

pub mod disk;

mod cold;
mod error;
mod format;
mod gather;
mod housekeeper;
mod log;
mod options;
mod reader;
mod recovery;
mod scan;
mod scrub;
mod segments;
mod shared;
mod writer;

#[cfg(test)]
mod tests;

pub use cold::{ColdFile, ColdWriter};
pub use error::{Corruption, Failure, OpenError, ReadError, Refused};
pub use format::{BatchHeader, FORMAT_VERSION, Head, Position, Record, StoreId};
pub use log::{Admission, Appended, Log, Owner, Space};
pub use options::{Options, Sync};
pub use recovery::{Recovered, Store, Torn};
pub use segments::SegmentInfo;
