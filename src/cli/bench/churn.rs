//! `tern bench churn`: connections and queues that come and go, one call after the other.

use super::{
    client::{Client, QueueOptions},
    driver::{Compared, Scenario, Target, Timing},
    failure::Failure,
    process::Usage,
    report::Sample,
    url::Url,
};
use serde_json::{Value, json};
use std::{
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

/// Connect + channel + close, then declare + delete, over and over.
#[derive(Debug, clap::Args)]
pub(super) struct Churn {
    #[command(flatten)]
    compared: Compared,
    #[command(flatten)]
    timing: Timing,
    /// What comes and goes
    #[arg(long, value_enum, default_value = "both")]
    what: What,
    /// Clients at once
    #[arg(long, default_value_t = 1)]
    clients: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    Connections,
    Queues,
    Both,
}

impl Churn {
    pub(super) fn run(&self) -> ExitCode {
        self.compared.drive(self)
    }

    /// Repeats `work` in every client, warm-up first; returns rounds a second and the broker's CPU
    /// milliseconds a round.
    fn rounds<W: Send>(
        &self,
        target: &Target,
        start: impl Fn(usize) -> Result<W, Failure> + Sync,
        work: impl Fn(&mut W) -> Result<(), Failure> + Sync,
    ) -> Result<(f64, Option<f64>), Failure> {
        let (warmup, period) = (self.timing.warmup()?, self.timing.period()?);
        let repeat = |state: &mut W, period: Duration| -> Result<u64, Failure> {
            let (start, mut rounds) = (Instant::now(), 0);
            while start.elapsed() < period {
                work(state)?;
                rounds += 1;
            }
            Ok(rounds)
        };
        let mut states = (0..self.clients.max(1)).map(start).collect::<Result<Vec<W>, _>>()?;
        repeat(&mut states[0], warmup)?;
        let usage = || target.pid.map(Usage::of).transpose();
        let (before, begun) = (usage()?, Instant::now());
        let rounds = if let [state] = states.as_mut_slice() {
            repeat(state, period)?
        } else {
            let repeat = &repeat;
            thread::scope(|scope| {
                let clients: Vec<_> =
                    states.drain(..).map(|mut state| scope.spawn(move || repeat(&mut state, period))).collect();
                clients
                    .into_iter()
                    .map(|client| client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                    .sum::<Result<u64, Failure>>()
            })?
        };
        let (after, secs) = (usage()?, begun.elapsed().as_secs_f64());
        let cpu_ms =
            before.zip(after).map(|(before, after)| (after.cpu_secs - before.cpu_secs) * 1e3 / rounds.max(1) as f64);
        Ok((rounds as f64 / secs, cpu_ms))
    }
}

impl Scenario for Churn {
    const NAME: &'static str = "churn";

    fn settings(&self) -> Value {
        json!({ "clients": self.clients, "seconds": self.timing.seconds })
    }

    fn run_once(&self, target: &Target) -> Result<Sample, Failure> {
        let mut sample = Sample::default();
        if self.what != What::Queues {
            let connect = |url: &mut Url| Client::connect(url, "tern bench churn")?.close();
            let (per_sec, cpu_ms) = self.rounds(target, |_| Ok(target.url.clone()), connect)?;
            sample.put("connections_per_sec", per_sec);
            sample.put_some("connection_cpu_ms", cpu_ms);
        }
        if self.what != What::Connections {
            let process = std::process::id();
            let start = |client: usize| {
                let name = format!("tb{process}.churn{client}");
                Ok((Client::connect(&target.url, "tern bench churn")?, name))
            };
            let options = QueueOptions::default();
            let work = |(client, name): &mut (Client, String)| {
                client.declare_queue(name, &options)?;
                client.delete_queue(name)
            };
            let (per_sec, cpu_ms) = self.rounds(target, start, work)?;
            sample.put("declare_delete_per_sec", per_sec);
            sample.put_some("declare_delete_cpu_ms", cpu_ms);
        }
        Ok(sample)
    }
}
