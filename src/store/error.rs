//! Why the store declined something, one type for each thing that the caller must do next.

use std::io;
use std::path::{Path, PathBuf};

use super::format::Position;
use super::options::OutOfBounds;

/// Why a log was not opened. Nothing was changed on the disk by an attempt that ended so.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has this directory open.
    #[error("{} is in use by another process; a data directory belongs to one broker at a time", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// Written by a later version.
    #[error(
        "{} has format version {found}, and this version of Tern knows formats up to {known}: \
         it was written by a newer Tern, which must be used to open it",
        file.display()
    )]
    NewerFormat {
        /// The segment's file.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// The latest that we know.
        known: u32,
    },
    /// What was on stable storage is not what was written. Expected never, not even after a power cut.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// A segment between two others, or the one to begin with, is not there.
    #[error(
        "{}: the segment that holds position {position} is missing; put the file back, or restore \
         the directory from a backup (`tern store salvage` keeps what can be read)",
        dir.display()
    )]
    SegmentMissing {
        /// The directory.
        dir: PathBuf,
        /// A position that it held.
        position: Position,
    },
    /// An option is out of its bounds.
    #[error(transparent)]
    Options(#[from] OutOfBounds),
    /// The file system failed.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// How.
        error: io::Error,
    },
}

impl OpenError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |error| Self::Io { path: path.into(), error }
    }
}

/// Bytes that had been synced and are not what was written.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "corruption in {} (segment {segment}) at position {position}: {what}. These bytes had been on stable \
     storage. Check the disk; restore the directory from a backup, or run `tern store verify` to see the \
     extent and `tern store salvage` to keep what can be read",
    file.display()
)]
pub struct Corruption {
    /// The segment's file.
    pub file: PathBuf,
    /// The segment.
    pub segment: u64,
    /// Where the bad batch or record begins.
    pub position: Position,
    /// What is wrong with it.
    pub what: &'static str,
}

/// Why a record was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not flushed yet: the caller has it in memory still.
    #[error("position {0} is not flushed yet")]
    NotFlushed(Position),
    /// Its segment was released.
    #[error("position {0} is in no segment; it was released")]
    Released(Position),
    /// It is not what was written: deliver nothing, stop whoever owns it, raise an alarm.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// The file system failed; another attempt may succeed.
    #[error("{}: {error}", path.display())]
    Io {
        /// The segment's file.
        path: PathBuf,
        /// How.
        error: io::Error,
    },
}

/// Why a record was not appended. Whoever asks [`Log::admission`](super::Log::admission) before it
/// promises anything sees none of these but [`Refused::TooLarge`], and `Failed` at the end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Longer than one batch; write it in parts.
    #[error("a record of {bytes} bytes is over the bound of {bytes_max}")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// What fits.
        bytes_max: usize,
    },
    /// So much waits for the disk that memory would not stay bounded: the caller did not heed
    /// admission.
    #[error("{bytes} bytes wait for the disk already")]
    Busy {
        /// What waits.
        bytes: u64,
    },
    /// The disk is full, and what is left is for essential records.
    #[error("the disk is full")]
    DiskFull,
    /// The log has failed or was closed; nothing more becomes durable.
    #[error("the log has failed")]
    Failed,
}

/// Why the log failed. Nothing is flushed after it: stop confirming, and end the process.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {what}: {error}", path.display())]
pub struct Failure {
    /// The file.
    pub path: PathBuf,
    /// What was tried.
    pub what: &'static str,
    /// What came back.
    pub error: String,
}

impl Failure {
    pub(super) fn new(path: &Path, what: &'static str, error: &io::Error) -> Self {
        Self { path: path.into(), what, error: error.to_string() }
    }
}
