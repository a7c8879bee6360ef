//! The subcommands of `tern`, one module each.

pub mod bench;

/// Runs the command line.
pub fn main(_args: impl IntoIterator<Item = std::ffi::OsString>) -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
