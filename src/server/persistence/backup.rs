//! Backups of a data directory on which a broker is running.

use std::{io, path::Path, sync::Arc};

use super::{INDEX_FOLDER, LOG_FOLDER, checkpoint::Checkpointer};
use crate::store::{
    disk::{Disk, RealDisk},
    survey::{Layout, Survey},
};

/// Makes backups of one data directory.
#[derive(Clone)]
pub struct Backups {
    checkpointer: Arc<Checkpointer>,
}

impl Backups {
    pub(super) fn new(checkpointer: Arc<Checkpointer>) -> Self {
        Self { checkpointer }
    }

    /// Copies the data directory to `to`, which must be empty or not exist, and reads the copy again. May
    /// block for long.
    ///
    /// # Errors
    /// Why there is no backup, for the operator. What was copied until then stays.
    pub fn make(&self, to: &Path) -> Result<(), String> {
        prepare(to)?;
        let copied = self.checkpointer.copy_to(&to.join(LOG_FOLDER), &to.join(INDEX_FOLDER));
        copied.map_err(|error| error.to_string())?;
        verify(to)
    }
}

/// Makes the directory of a backup, which must be empty.
///
/// # Errors
/// Why it cannot be used, for the operator.
pub fn prepare(to: &Path) -> Result<(), String> {
    let made = RealDisk.create_dir(to).and_then(|()| std::fs::read_dir(to)?.next().transpose());
    match made {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err(format!("{} is not empty", to.display())),
        Err(error) => Err(format!("{}: {error}", to.display())),
    }
}

/// Reads every byte of a backup.
///
/// # Errors
/// What is wrong with it, for the operator.
pub fn verify(to: &Path) -> Result<(), String> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let failed = |error: io::Error| format!("{}: {error}", to.display());
    disk.sync_dir(to).map_err(failed)?;
    let layout = Layout::find(&*disk, to).map_err(failed)?.ok_or("nothing was copied")?;
    let survey = Survey::take(&disk, &layout, false).map_err(|error| error.to_string())?;
    match survey.damage().next() {
        None => Ok(()),
        Some(damage) => {
            Err(format!("the copy {} is damaged at byte {}: {}", damage.file.display(), damage.at, damage.what))
        }
    }
}
