//! `tern config check`: every setting with its value and source, or everything that is wrong.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{EXIT_USAGE, complain, print, serve};
use crate::config;

/// What can be done with settings.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Check the settings and print each with its value, default, unit, source and reason.
    Check(Check),
}

/// Arguments of `tern config check`.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// Settings file to check instead of the one that `tern serve` would read.
    file: Option<PathBuf>,
    #[command(flatten)]
    settings: serve::SettingsArgs,
}

/// Runs `tern config ...`.
pub fn run(command: Command) -> ExitCode {
    let Command::Check(check) = command;
    let mut sources = check.settings.sources();
    if check.file.is_some() {
        sources.file = check.file;
    }
    let reading = config::read(&sources);
    print(&reading.table());
    let problems = reading.problems();
    for warning in reading.settings().warnings() {
        complain(&format!("warning: {warning}"));
    }
    for problem in problems {
        complain(&format!("error: {problem}"));
    }
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_USAGE) }
}
