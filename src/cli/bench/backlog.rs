//! `tern bench backlog`: queues filled while nobody consumes, then drained.

use super::{
    driver::{Common, Scenario, Target},
    failure::Failure,
    load::Load,
    process::Usage,
    report::Sample,
    throughput::{LoadOptions, merge, mib, per_million},
};
use serde_json::{Value, json};
use std::process::ExitCode;

/// A backlog, filled and then drained.
#[derive(Debug, clap::Args)]
pub(super) struct Backlog {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    load: LoadOptions,
    /// Messages to fill in, over all publishers
    #[arg(long, short = 'n', default_value_t = 1_000_000)]
    count: u64,
}

/// The confirm window where none is asked for: only a confirm tells that a message is in the queue.
const CONFIRMS: u64 = 2000;

impl Backlog {
    pub(super) fn run(&self) -> ExitCode {
        self.common.drive(self)
    }
}

impl Scenario for Backlog {
    const NAME: &'static str = "backlog";

    fn settings(&self) -> Value {
        let mut settings = json!({
            "count": self.count,
            "publishers": self.load.publishers,
            "queues": self.load.queues,
            "consumers": self.load.consumers,
        });
        merge(&mut settings, self.load.messages.settings());
        settings["confirms"] = json!(self.load.messages.confirms.unwrap_or(CONFIRMS));
        if let Some(settings) = settings.as_object_mut() {
            settings.remove("in_flight_max");
        }
        settings
    }

    fn run_once(&self, target: &Target) -> Result<Sample, Failure> {
        let mut publishing = self.load.messages.publishing();
        publishing.confirm_window = Some(publishing.confirm_window.unwrap_or(CONFIRMS));
        publishing.in_flight_max = 0;
        publishing.limit = Some(self.count / self.load.publishers.max(1) as u64);
        let mut load = Load::declare(self.load.plan(target, publishing)?)?;
        let before = load.moment(target.pid)?;
        load.start_publishers()?;
        load.join_publishers()?;
        let filled = load.moment(target.pid)?;
        load.start_consumers()?;
        load.drain();
        let drained = load.moment(target.pid)?;
        let outcome = load.finish()?;

        let (filling, draining) = (before.until(&filled), filled.until(&drained));
        let mut sample = Sample { problems: outcome.problems, ..Sample::default() };
        sample.put("filled_per_sec", filling.sent as f64 / filling.secs);
        sample.put_some("fill_cpu_secs_per_million", per_million(filling.broker_cpu_secs, filling.sent));
        sample.put("drained_per_sec", draining.received as f64 / draining.secs);
        let drain_cpu = per_million(draining.broker_cpu_secs, draining.received);
        sample.put_some("drain_cpu_secs_per_million", drain_cpu);
        let rss = |usage: Option<Usage>| usage.map(|usage| mib(usage.rss_bytes));
        sample.put_some("rss_mib_before", rss(before.broker));
        sample.put_some("rss_mib_filled", rss(filled.broker));
        sample.put_some("rss_mib_drained", rss(drained.broker));
        let per_message = before
            .broker
            .zip(filled.broker)
            .map(|(before, filled)| (filled.rss_bytes as f64 - before.rss_bytes as f64) / filling.sent.max(1) as f64);
        sample.put_some("rss_bytes_per_message", per_message);
        Ok(sample)
    }
}
