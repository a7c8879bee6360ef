//! Looking at a data directory from outside: what is in it, and what of it is damaged.
//!
//! Reads only. It repairs nothing, cuts nothing, creates nothing, and needs no lock: of a directory that
//! a broker has open it sees a state of the recent past, and takes what vanishes meanwhile for released.
//!
//! It judges as a start does (see [`super::recovery`]): a bad batch is damage where a watermark or the
//! checkpoint says that it had been synced, and the torn end of the log otherwise. But it does not stop
//! at the first: behind damage it goes on with the next place where a batch claims to stand.

mod cold;
mod find;
mod segments;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use cold::ColdSurvey;
pub use segments::{Gap, LogEnd, LogSurvey, SegmentSurvey, Tally, last_time_ms};

pub(super) use cold::cold_header;
pub(super) use find::next_record;

use super::disk::Disk;
use super::error::OpenError;
use super::format::Position;
use super::index::IndexSurvey;
use super::segments::{IDENTITY_FILE, LOCK_FILE, file_kind};

/// Where the parts of a data directory are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// What the operator named.
    pub dir: PathBuf,
    /// The folder of the log.
    pub log: PathBuf,
    /// The folder of the index; `None` where the operator named the folder of a log alone.
    pub index: Option<PathBuf>,
}

/// Folder of the log in a data directory.
pub const LOG_FOLDER: &str = "log";
/// Folder of the index in a data directory.
pub const INDEX_FOLDER: &str = "index";

impl Layout {
    /// Looks for a log in `dir`, or for `dir` being one. `None`: there is no trace of a store.
    pub fn find(disk: &dyn Disk, dir: &Path) -> io::Result<Option<Self>> {
        let log = dir.join(LOG_FOLDER);
        let index = dir.join(INDEX_FOLDER);
        let has_files = |dir: &Path| disk.list(dir).is_ok_and(|files| !files.is_empty());
        if has_files(&log) || has_files(&index) {
            return Ok(Some(Self { dir: dir.into(), log, index: Some(index) }));
        }
        let is_ours = |name: &str| name == IDENTITY_FILE || file_kind(name) != super::segments::FileKind::Other;
        let is_log = disk.list(dir)?.iter().any(|file| is_ours(&file.name));
        Ok(is_log.then(|| Self { dir: dir.into(), log: dir.into(), index: None }))
    }

    /// Whether somebody has the directory open. What is returned keeps others out while it lives; a
    /// directory that was never opened has no lock to take, and gets none.
    pub fn hold(&self, disk: &dyn Disk) -> Held {
        let has_lock = disk.list(&self.log).is_ok_and(|files| files.iter().any(|file| file.name == LOCK_FILE));
        if !has_lock {
            return Held::Free(None);
        }
        match disk.lock(&self.log.join(LOCK_FILE)) {
            Ok(lock) => Held::Free(Some(lock)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Held::InUse,
            // A directory that may only be read, for one.
            Err(_) => Held::Unknown,
        }
    }
}

/// Who has a directory.
pub enum Held {
    /// Nobody else, as long as this lives.
    Free(Option<Box<dyn Send + Sync>>),
    /// A broker is running on it.
    InUse,
    /// The lock cannot be asked.
    Unknown,
}

impl Held {
    /// Others may be writing.
    pub fn is_live(&self) -> bool {
        !matches!(self, Self::Free(_))
    }
}

/// Bytes that are not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// Number of the segment or cold file; `None` in the index.
    pub segment: Option<u64>,
    /// Position of what is damaged; `None` outside of the log's records.
    pub position: Option<Position>,
    /// Byte of the file.
    pub at: u64,
    /// How many bytes; 0 where nobody can say.
    pub bytes: u64,
    /// What is wrong.
    pub what: String,
}

/// All that was found.
#[derive(Debug)]
pub struct Survey {
    /// Of the log.
    pub log: LogSurvey,
    /// Of the index; `None` where only the folder of a log was named.
    pub index: Option<IndexSurvey>,
}

impl Survey {
    /// Reads everything.
    ///
    /// # Errors
    /// A newer format, or the file system: then there is no judgement. Damage is none of these.
    pub fn take(disk: &Arc<dyn Disk>, layout: &Layout, is_live: bool) -> Result<Self, SurveyError> {
        let index = layout.index.as_deref().map(|dir| IndexSurvey::take(disk, dir, is_live)).transpose()?;
        let covered =
            index.as_ref().map(|index| Position(index.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.covered)));
        let log = LogSurvey::take(&**disk, &layout.log, covered, is_live)?;
        Ok(Self { log, index })
    }

    /// All damage, in the order of the files.
    pub fn damage(&self) -> impl Iterator<Item = &Damage> {
        self.log.damage.iter().chain(self.index.iter().flat_map(|index| &index.damage))
    }
}

/// Why nothing can be said of a directory.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// Of the log.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// Of the index.
    #[error(transparent)]
    Index(#[from] super::index::Error),
}
