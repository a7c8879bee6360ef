//! Why the index declined: each variant says what must happen next.

use std::io;

/// Why an operation of the index failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk refused. After a failed write nothing of the operation is visible and it may be
    /// tried again, for example when there is space once more.
    #[error("index: cannot {action} {file}: {source}")]
    Io {
        /// What was being done, as a verb.
        action: &'static str,
        /// The file, without its folder.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// What was read is not what was written. Nothing of it is served.
    #[error("index file {file} is damaged at byte {offset}: {what}; {ADVICE}")]
    Corrupt {
        /// The file, without its folder.
        file: String,
        /// Where the damaged part begins.
        offset: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The file was written by a later version of Tern. Nothing was changed.
    #[error(
        "index file {file} has format {found}, this version of Tern knows formats up to {known}; start a later version"
    )]
    NewerFormat {
        /// The file, without its folder.
        file: String,
        /// The format that the file names.
        found: u32,
        /// The newest format that this build can read.
        known: u32,
    },
    /// An earlier sync failed, so what is on disk is unknown: this index takes no more commits.
    /// Reading goes on. The process must be started again.
    #[error("the index takes no more commits since a sync failed: {reason}")]
    Failed {
        /// The failure that came first.
        reason: String,
    },
}

impl Error {
    pub(super) fn io(action: &'static str, file: &str, source: io::Error) -> Error {
        Error::Io { action, file: file.to_owned(), source }
    }

    pub(super) fn corrupt(file: &str, offset: u64, what: &'static str) -> Error {
        Error::Corrupt { file: file.to_owned(), offset, what }
    }
}

/// What an operator can do about damage; the index is rebuilt from nothing else than itself.
const ADVICE: &str = "restore the data directory from a backup or from the standby, or run `tern store salvage`";
