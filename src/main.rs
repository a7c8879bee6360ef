fn main() {}
//! The `tern` binary while only `tern bench` exists.
use clap::Parser;
use std::process::ExitCode;
use ternmq::cli::bench::{self, Bench};

/// A message broker.
#[derive(Parser)]
#[command(name = "tern", version)]
struct Tern {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Measures a broker: any that speaks AMQP 0-9-1.
    Bench(Bench),
}

fn main() -> ExitCode {
    let Command::Bench(args) = Tern::parse().command;
    bench::run(args)
}
