//! `tern bench`: measures any AMQP 0-9-1 or STOMP broker by its URL, and any that speaks SQS.
//!
//! ```text
//! scenario (throughput, latency, ...) ──▶ plan ──▶ load ──▶ publishers, consumers ──▶ wire
//!      │                                            │
//!   driver: runs, null broker, report             shared: counters, flags
//! ```
//!
//! A self-contained client, apart from the broker's codec, light enough not to be the bottleneck:
//! publishers number messages that were encoded ahead and write them by the hundred kibibytes,
//! consumers check bodies where they were read. Every run verifies what arrived: counts, order and
//! content. `tern bench null` is a broker that does nothing but parse, rewrite and copy: the limit
//! of the machine. Where messages are durable it also writes and syncs them before it confirms.

// A measurement prints, and reads clocks.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods)]

mod backlog;
mod churn;
mod client;
mod confirms;
mod connection;
mod connections;
mod consumer;
mod driver;
mod failure;
mod fanout;
mod latency;
mod load;
mod null;
mod null_log;
mod null_process;
mod null_topology;
mod payload;
mod plan;
mod process;
mod publisher;
mod queues;
mod report;
mod ring;
mod shared;
mod slow;
mod sqs;
mod stomp;
mod throughput;
mod topics;
mod url;
mod wire;

use std::process::ExitCode;

/// Measures a broker. Without a scenario: throughput.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Bench {
    #[command(subcommand)]
    scenario: Option<Scenario>,
    #[command(flatten)]
    throughput: throughput::Throughput,
}

#[derive(Debug, clap::Subcommand)]
enum Scenario {
    Throughput(throughput::Throughput),
    Latency(latency::Latency),
    Fanout(fanout::Fanout),
    Topics(topics::Topics),
    Connections(connections::Connections),
    Queues(queues::Queues),
    Churn(churn::Churn),
    Backlog(backlog::Backlog),
    Slow(slow::Slow),
    Sqs(sqs::Sqs),
    Null(null::NullCommand),
}

/// Runs the chosen scenario. Exit code 1: a broker lost, repeated, reordered or damaged messages;
/// 2: nothing could be measured.
pub fn run(args: Bench) -> ExitCode {
    match args.scenario {
        None => args.throughput.run(),
        Some(Scenario::Throughput(scenario)) => scenario.run(),
        Some(Scenario::Latency(scenario)) => scenario.run(),
        Some(Scenario::Fanout(scenario)) => scenario.run(),
        Some(Scenario::Topics(scenario)) => scenario.run(),
        Some(Scenario::Connections(scenario)) => scenario.run(),
        Some(Scenario::Queues(scenario)) => scenario.run(),
        Some(Scenario::Churn(scenario)) => scenario.run(),
        Some(Scenario::Backlog(scenario)) => scenario.run(),
        Some(Scenario::Slow(scenario)) => scenario.run(),
        Some(Scenario::Sqs(scenario)) => scenario.run(),
        Some(Scenario::Null(command)) => command.run(),
    }
}
