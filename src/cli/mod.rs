//! The command line: `tern` and its subcommands, one module each.
//!
//! Only this folder prints to standard output, and nothing below it reads arguments.

pub mod bench;
pub mod config;
pub mod ctl;
pub mod doctor;
pub mod env;
pub mod serve;
pub mod store;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Sources;
use ctl::Program;

/// Tern: a message broker for RabbitMQ clients.
#[derive(Debug, Parser)]
#[command(name = "tern", version, args_conflicts_with_subcommands = true)]
struct Tern {
    #[command(subcommand)]
    command: Option<Command>,
    /// `tern` alone is `tern serve`.
    #[command(flatten)]
    serve: serve::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker (the default).
    Serve(serve::Args),
    /// Look at settings.
    #[command(subcommand)]
    Config(config::Command),
    /// Look into a data directory, check it, or save what can be read of a damaged one.
    #[command(subcommand)]
    Store(store::Command),
    /// Check disk, limits, settings and ports of this machine, and say what to do.
    Doctor(Box<doctor::Doctor>),
    /// Print the variables by which AWS's tools find this broker: `eval "$(tern env)"`.
    Env(Box<env::Args>),
    /// Measure a broker: any that speaks AMQP 0-9-1.
    Bench(Box<bench::Bench>),
    /// Administer the running broker, as rabbitmqctl does; `tern ctl help` lists its verbs.
    #[command(disable_help_flag = true)]
    Ctl(Words),
    /// Look at the running broker, as rabbitmq-diagnostics does.
    #[command(disable_help_flag = true)]
    Diagnostics(Words),
}

/// A command line of its own, which RabbitMQ's rules read.
#[derive(Debug, clap::Args)]
struct Words {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// Runs the command line `args`, the program's own name first.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<_> = args.into_iter().collect();
    if let Some(program) = args.first().and_then(|name| ctl::program_from_argv0(name)) {
        return administer(program, args.into_iter().skip(1));
    }
    let tern = match Tern::try_parse_from(args) {
        Ok(tern) => tern,
        Err(error) => {
            // Help goes to standard output and mistakes to standard error; neither may be closed
            // for us to fail on.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1));
        }
    };
    match tern.command.unwrap_or(Command::Serve(tern.serve)) {
        Command::Serve(args) => serve::run(args),
        Command::Config(command) => config::run(command),
        Command::Store(command) => store::run(command),
        Command::Doctor(args) => doctor::run(*args),
        Command::Env(args) => env::run(&args),
        Command::Bench(args) => bench::run(*args),
        Command::Ctl(args) => administer(Program::Ctl, args.words.into_iter()),
        Command::Diagnostics(args) => administer(Program::Diagnostics, args.words.into_iter()),
    }
}

/// Administers the broker whose data directory the settings of this process name.
fn administer(program: Program, words: impl Iterator<Item = OsString>) -> ExitCode {
    // Whatever else is wrong with the settings is for the broker to complain about.
    let reading =
        crate::config::read(&Sources::of_process(std::env::var_os("TERN_CONFIG").map(Into::into), Vec::new()));
    let socket = reading.settings().server.data_dir.join("control.sock");
    ctl::run(words.map(|word| word.to_string_lossy().into_owned()).collect(), program, &socket)
}

/// Exit status for a command that was asked for wrongly, settings included.
const EXIT_USAGE: u8 = 2;

/// Prints to standard output. A reader that has gone (`| head`) is not an error.
fn print(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Prints a line to standard error.
fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn command_line_is_sound() {
        Tern::command().debug_assert();
    }

    #[test]
    fn no_subcommand_is_serve_with_its_flags() {
        let tern = Tern::try_parse_from(["tern", "--amqp-port", "0"]).unwrap();
        assert!(tern.command.is_none());
        assert_eq!(tern.serve.settings.flags()[0].key, "amqp.port");
        assert!(matches!(Tern::try_parse_from(["tern", "serve"]).unwrap().command, Some(Command::Serve(_))));
    }
}
