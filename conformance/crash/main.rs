//! Kills the real binary at random moments under load, starts it again, and judges what its clients
//! saw: nothing confirmed is lost, nothing settled comes back.
//!
//! `conformance/crash/run` and `conformance/crash/power` run it for longer.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may fail, take its time and say what it saw"
)]

mod aim;
mod body;
mod campaign;
mod checker;
mod client;
mod drain;
mod history;
mod http;
mod load;
mod node;
mod power;
mod queues;
mod record;
mod rng;
#[cfg(test)]
mod sabotage;
mod sqs;
mod stomp;

use campaign::Plan;

/// The short run of every test command; `CRASH_CYCLES`, `CRASH_SEED`, `CRASH_JOBS`,
/// `CRASH_SETTINGS` (one a word), `CRASH_POWER=1` and `CRASH_EXPECTS_LOSS=1` make another one of it.
#[test]
fn nothing_confirmed_is_lost_and_nothing_settled_comes_back() {
    let number = |name, default| std::env::var(name).map_or(default, |text| text.parse::<u64>().unwrap());
    let settings = std::env::var("CRASH_SETTINGS").unwrap_or_default();
    let plan = Plan {
        cycles: u32::try_from(number("CRASH_CYCLES", 3)).unwrap(),
        seed: number("CRASH_SEED", 1),
        settings: settings.split_whitespace().map(String::from).collect(),
        jobs: usize::try_from(number("CRASH_JOBS", 1)).unwrap(),
        is_power: std::env::var_os("CRASH_POWER").is_some(),
    };
    let summary = campaign::run(&plan);
    println!("{}", summary.table());
    if std::env::var_os("CRASH_EXPECTS_LOSS").is_some() {
        assert!(
            summary.failures.iter().any(|failure| failure.contains("Lost")),
            "nothing was lost, so this proves nothing"
        );
        return;
    }
    assert!(summary.failures.is_empty(), "{} of {} cycles failed", summary.failures.len(), summary.cycles);
}
