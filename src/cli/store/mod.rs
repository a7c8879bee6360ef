//! `tern store`: what is in a data directory, whether it is whole, and what can be saved of it.
//!
//! Exit status: 0 all is well, 1 something is damaged or was lost, 2 nothing can be said (a wrong command
//! line, no data directory, a newer format, the file system).

mod backup;
mod inspect;
mod salvage;
mod show;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use super::{EXIT_USAGE, complain, print};
use crate::store::disk::{Disk, RealDisk};
use crate::store::survey::{Held, Layout, Survey};

/// What can be done with a data directory.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show what is in a data directory. Reads only, also while a broker is running on it.
    Inspect(Look),
    /// Read every byte of a data directory and check it. Reads only.
    ///
    /// Exits with 0 if nothing is damaged, 1 if something is, 2 if nothing can be said.
    Verify(Look),
    /// Copy a data directory to a new one, also while a broker is running on it, and verify the copy.
    ///
    /// The copy holds everything that was confirmed before the command began. To restore it, start a broker
    /// on it: `tern serve --data NEW`, or put it in the place of the old directory first.
    ///
    /// Exits with 0 if the backup is whole, 2 if there is none.
    Backup(Backup),
    /// Copy everything that can be read of a damaged data directory to a new one. Reads only of the old.
    ///
    /// Exits with 0 if nothing is lost, 1 if something is, 2 if nothing was salvaged.
    Salvage(Salvage),
}

/// Arguments of commands that look.
#[derive(Debug, clap::Args)]
pub struct Look {
    /// The data directory, or its folder `log`.
    dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `tern store salvage`.
#[derive(Debug, clap::Args)]
pub struct Salvage {
    /// The damaged data directory. No broker may be running on it.
    dir: PathBuf,
    /// The new data directory, which must be empty or not exist.
    #[arg(long, value_name = "NEW")]
    to: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `tern store backup`.
#[derive(Debug, clap::Args)]
pub struct Backup {
    /// The data directory.
    dir: PathBuf,
    /// The new data directory, which must be empty or not exist. A running broker writes it, so it must be
    /// able to.
    #[arg(long, value_name = "NEW")]
    to: PathBuf,
}

/// Something is damaged or lost.
const EXIT_DAMAGE: u8 = 1;

/// Runs `tern store ...`.
pub fn run(command: Command) -> ExitCode {
    let result = match command {
        Command::Inspect(look) => inspect::run(&look),
        Command::Verify(look) => verify::run(&look),
        Command::Backup(backup) => backup::run(&backup),
        Command::Salvage(salvage) => salvage::run(&salvage),
    };
    result.map_or_else(
        |error| {
            complain(&format!("tern: {error}"));
            ExitCode::from(EXIT_USAGE)
        },
        ExitCode::from,
    )
}

/// A directory that was looked at.
struct Seen {
    layout: Layout,
    held: Held,
    survey: Survey,
}

impl Seen {
    /// Why nothing can be said is for the operator to read.
    fn take(dir: &Path) -> Result<Self, String> {
        let layout = layout(dir)?;
        let held = layout.hold(&RealDisk);
        let survey = Survey::take(&real(), &layout, held.is_live()).map_err(|error| error.to_string())?;
        Ok(Self { layout, held, survey })
    }

    /// Who has it, as a sentence.
    fn use_of(&self) -> &'static str {
        match self.held {
            Held::Free(_) => "not in use",
            Held::InUse => "IN USE by a running broker: this is a moment of the recent past",
            Held::Unknown => "perhaps in use: its lock cannot be asked (you may only read here)",
        }
    }
}

/// The file system of the machine.
fn real() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}

fn layout(dir: &Path) -> Result<Layout, String> {
    let found = Layout::find(&RealDisk, dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    found.ok_or_else(|| {
        let dir = dir.display();
        format!("{dir} is no data directory: it has neither {dir}/log nor segments (*.seg); name the directory of server.data_dir")
    })
}
