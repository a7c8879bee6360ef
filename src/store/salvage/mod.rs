//! Salvage: a new data directory with everything of a damaged one that can still be read.
//!
//! The damaged directory is only read. Whatever refers to a record does so by its position, so every
//! record keeps its position: the new log has the same segments, with the same batches at the same
//! places, and where something is damaged a *filler* stands, as long as what it replaces.
//!
//! # The log
//!
//! A damaged batch becomes a batch of the same length in which every record that its own checksum
//! proves whole stands where it stood, and between them records of the kind [`LOST`](super::LOST) fill
//! the gaps. A replay passes over those; reading one is an error that says that it was lost. Where even
//! the length of a batch is damaged, one filler reaches to the next place where a batch claims to stand.
//! Missing segments that the checkpoint does not cover are made anew, full of filler. A segment's header
//! that is damaged is made anew from its first batch.
//!
//! A batch carries number and checksum of the one before it, so batches behind a filler are sealed again:
//! their headers differ from the damaged directory's, and their records do not. The identity of the store
//! stays. A torn end is left out, as a start would. Spare and unfinished files are not copied.
//!
//! In cold files damaged records are replaced in the same way.
//!
//! # The index
//!
//! What the index says cannot be found elsewhere, so nothing of it is guessed. In this order:
//!
//! 1. every byte that the latest checkpoint needs is whole: its files are copied as they are;
//! 2. a run is damaged, and the checkpoint before the latest is whole, and so is the log from there on:
//!    the new index begins with that checkpoint, and nothing is lost: a start replays the difference;
//! 3. otherwise, damaged runs are written anew without their damaged blocks. The entries of these are
//!    lost: messages that had left memory long ago are missing from their queues. Where such an entry
//!    said that an earlier one is deleted, that one comes back: a message is delivered again;
//! 4. no checkpoint can be read: the files are copied as they are, for whoever knows more, and a broker
//!    will refuse to start on them. Definitions are in the checkpoint, so there is no useful start
//!    without: restore a backup.

mod cold;
mod log;
mod region;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::Disk;
use super::error::OpenError;
use super::format::Position;
use super::index::{self, IndexOutcome};
use super::segments::LOCK_FILE;
use super::survey::{Held, INDEX_FOLDER, LOG_FOLDER, Layout, Survey, SurveyError};

/// What a salvage did.
#[derive(Debug)]
pub struct Salvaged {
    /// What was found in the damaged directory.
    pub survey: Survey,
    /// What was lost, in the order of positions.
    pub losses: Vec<Loss>,
    /// Records of damaged batches that were whole by themselves, and are kept.
    pub records_rescued: u64,
    /// Records that were copied, those included.
    pub records_kept: u64,
    /// What became of the index; `None` where there was none.
    pub index: Option<IndexOutcome>,
}

impl Salvaged {
    /// Everything that was ever flushed is in the new directory.
    pub fn is_lossless(&self) -> bool {
        let is_index_whole = self.index.as_ref().is_none_or(|outcome| match outcome {
            IndexOutcome::Copied | IndexOutcome::FellBack { .. } => true,
            IndexOutcome::Rewritten { .. } | IndexOutcome::Unusable => false,
        });
        self.losses.is_empty() && is_index_whole
    }
}

/// Bytes of the log that are lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The file that had them; for a missing segment, the one that has the filler.
    pub file: PathBuf,
    /// Where they begin.
    pub position: Position,
    /// How many, headers and all.
    pub bytes: u64,
}

/// Why nothing was salvaged.
#[derive(Debug, thiserror::Error)]
pub enum SalvageError {
    /// A broker is running on the directory.
    #[error(transparent)]
    InUse(OpenError),
    /// The target is not empty, or is in the damaged directory.
    #[error("{} is not an empty directory outside of the damaged one; name one that does not exist yet", dir.display())]
    Target {
        /// The target.
        dir: PathBuf,
    },
    /// The directory cannot be judged.
    #[error(transparent)]
    Survey(#[from] SurveyError),
    /// Segments claim the same positions.
    #[error(
        "{}: this segment and the one before it claim the same positions, so one of them is from elsewhere; \
         move the wrong one away and try again",
        file.display()
    )]
    Overlap {
        /// The later segment.
        file: PathBuf,
    },
    /// The file system failed. What is in the target is not complete.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// How.
        error: io::Error,
    },
}

impl SalvageError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |error| Self::Io { path: path.into(), error }
    }
}

impl From<OpenError> for SalvageError {
    fn from(error: OpenError) -> Self {
        Self::Survey(error.into())
    }
}

impl From<index::Error> for SalvageError {
    fn from(error: index::Error) -> Self {
        Self::Survey(error.into())
    }
}

/// Copies what can be read of the directory `from` to the new directory `to`.
///
/// # Errors
/// What is in `to` after an error must not be used. The last file that is written is the log's
/// identity, without which a broker does not start on it.
pub fn salvage(shared: &Arc<dyn Disk>, from: &Layout, to: &Path) -> Result<Salvaged, SalvageError> {
    let disk = &**shared;
    let held = from.hold(disk);
    if matches!(held, Held::InUse) {
        return Err(SalvageError::InUse(OpenError::Locked { dir: from.dir.clone() }));
    }
    let is_free = match disk.list(to) {
        Ok(files) => files.is_empty() && matches!(Layout::find(disk, to), Ok(None)),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    if !is_free || to.starts_with(&from.dir) {
        return Err(SalvageError::Target { dir: to.into() });
    }
    let survey = Survey::take(shared, from, false)?;
    let log_dir = if from.index.is_some() { to.join(LOG_FOLDER) } else { to.to_owned() };
    disk.create_dir(&log_dir).map_err(SalvageError::io(&log_dir))?;
    let lock_path = log_dir.join(LOCK_FILE);
    let _lock = disk.lock(&lock_path).map_err(SalvageError::io(&lock_path))?;

    let (index, covered) = match &survey.index {
        Some(found) if found.is_there => {
            let dir = to.join(INDEX_FOLDER);
            disk.create_dir(&dir).map_err(SalvageError::io(&dir))?;
            let (outcome, covered) = index::salvage(shared, found, &dir, |covered| survey.log.is_whole_from(covered))?;
            (Some(outcome), covered)
        }
        _ => (None, None),
    };
    let covered = covered.map(Position);
    let copied = log::copy(disk, &survey.log, &log_dir, covered)?;
    let mut losses = copied.losses;
    let mut records_kept = copied.records_kept;
    for cold in &survey.log.cold {
        let copied = cold::copy(disk, cold, survey.log.id.unwrap_or_default(), &log_dir)?;
        losses.extend(copied.losses);
        records_kept += copied.records_kept;
    }
    log::write_identity(disk, &survey.log, &log_dir)?;
    Ok(Salvaged { survey, losses, records_rescued: copied.records_rescued, records_kept, index })
}
