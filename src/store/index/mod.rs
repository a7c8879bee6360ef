//! The cold index: an ordered index on disk of the messages that are not in memory.
//!
//! It knows nothing of messages: it maps keys (tree, owner, order, seq) to values of a few bytes.
//! A tree is one way to file entries: by number (order 0), by priority, by deadline, by the hash of
//! a group; an owner is a queue. It changes only at checkpoints, each one atomic step that also
//! stores the log position that it covers; between them the log is the truth.
//!
//! # How it works
//!
//! A [commit](Index::commit) writes its puts and deletes as one sorted, immutable file, a *run*
//! (`run`), then appends one record to the *manifest* (`manifest`) and syncs it: that record is
//! the commit. Reading merges the runs, newest first ([`Snapshot`]). A thread merges eight runs of
//! a level into one of the next (`merge`), never inside a commit. Runs that have no key in common
//! and hold enough of each owner are not rewritten, but only move to the next level together.
//!
//! Emptying is cheap: an advanced *head* or a dropped owner is a few bytes in the manifest
//! (`heads`) and kills everything of earlier commits below it. A run all of whose sections are
//! dead is dropped with its file.
//!
//! # Files
//!
//! | name | what | format |
//! |---|---|---|
//! | `run-N` | sorted entries | blocks in `block`, the file around them in `run` |
//! | `manifest-N` | the log of what exists | records in `manifest`, their payloads in `state` |
//! | `attachment-N` | the caller's snapshot of a checkpoint | `checkpoint` |
//! | `*.tmp` | a manifest that has not got its name yet | removed at the start |
//!
//! N are 16 hexadecimal digits. Numbers of runs and attachments are never used twice. Every byte of
//! every file is under a CRC-32C. Every file names its format; a newer one is refused by name.
//!
//! # What is durable when
//!
//! A commit syncs its run (and attachment), then the folder, then the manifest. After a crash at
//! any point the index is as before or as after the commit. A file that a record has made
//! superfluous is removed only when the checkpoint after the next is durable, so that the
//! checkpoint before the latest is always whole:
//!
//! - damage to the latest checkpoint (its record, its run's sections, its attachment) found when
//!   opening falls back to the one before, and [`Index::recovery`] says so; the caller replays
//!   its log from there, for which it keeps it from [`Checkpoint::previous_covered`] on;
//! - damage to both is [`Error::Corrupt`], naming file, byte and what to do;
//! - damage to a block is found when it is read: that read fails with [`Error::Corrupt`], and
//!   nothing of the block is served.

mod block;
mod changes;
mod checkpoint;
mod coding;
mod commit;
mod error;
mod folder;
mod heads;
mod key;
mod manifest;
mod merge;
mod open;
mod options;
mod run;
mod salvage;
mod scan;
mod scrub;
mod state;
mod survey;

#[cfg(test)]
mod tests;

pub use changes::Changes;
pub use checkpoint::{ATTACHMENT_BYTES_MAX, Checkpoint, NOTE_BYTES_MAX, NewCheckpoint};
pub(crate) use coding::{put_varint, varint_at};
pub use commit::{Index, Stats};
pub use error::Error;
pub use key::{Entry, Key, Rank, VALUE_BYTES_MAX, Value};
pub use open::Recovery;
pub use options::Options;
pub use salvage::IndexOutcome;
pub use scan::{Scan, Snapshot};
pub use survey::{IndexSurvey, RunSurvey};

use checkpoint::Attachment;
pub(super) use salvage::salvage;
