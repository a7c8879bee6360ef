//! `tern bench backlog`: queues filled while nobody consumes, then drained; both at once, or each by a
//! process of its own, so that the broker can be restarted in between.

use super::{
    driver::{Common, Scenario, Target},
    failure::Failure,
    load::{Load, Moment},
    null_log::zero_and_overwrite_bytes_per_sec,
    process::{Usage, directory_bytes},
    report::Sample,
    throughput::{LoadOptions, merge, mib, per_million},
};
use serde_json::{Value, json};
use std::{path::PathBuf, process::ExitCode};

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
    /// Only fill, and leave it; or only drain what was filled with the same options and seed
    #[arg(long, value_enum, requires = "seed")]
    only: Option<Half>,
    /// Names queues and bodies, so that another process knows them
    #[arg(long)]
    seed: Option<u64>,
    /// The broker's data directory, to report its size
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A directory on the broker's disk: report what that takes, written with zeros and then again,
    /// and which share of it the filling reached
    #[arg(long, value_name = "DIR")]
    disk: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Half {
    Fill,
    Drain,
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
        let limit = self.count / self.load.publishers.max(1) as u64;
        if limit < 2 {
            return Err(Failure::usage("--count must be at least 2 for each publisher"));
        }
        publishing.limit = Some(limit);
        let mut plan = self.load.plan(target, publishing)?;
        let mut load = match self.seed {
            None => Load::declare(plan)?,
            Some(seed) => {
                let rename = |queue: usize| format!("tb.{seed}.{queue}");
                plan.queues = (0..plan.queues.len()).map(rename).collect();
                for lane in &mut plan.lanes {
                    lane.keys = lane.queues.iter().map(|queue| rename(*queue)).collect();
                }
                plan.queue_options.auto_delete = false;
                Load::declare_with(plan, seed)?
            }
        };
        let mut sample = Sample::default();
        if self.only == Some(Half::Drain) {
            load.count_published();
        } else {
            self.fill(&mut load, target, &mut sample)?;
        }
        if self.only == Some(Half::Fill) {
            sample.problems = load.leave()?;
        } else {
            self.drain(&mut load, target, &mut sample)?;
            sample.problems = load.finish()?.problems;
        }
        Ok(sample)
    }
}

impl Backlog {
    fn fill(&self, load: &mut Load, target: &Target, sample: &mut Sample) -> Result<(), Failure> {
        let disk = self.disk.as_deref().map(zero_and_overwrite_bytes_per_sec).transpose()?;
        let before = load.moment(target.pid)?;
        load.start_publishers()?;
        load.await_sent(self.count / 2);
        let half = load.moment(target.pid)?;
        load.join_publishers()?;
        let filled = load.moment(target.pid)?;
        let filling = before.until(&filled);
        sample.put("filled_per_sec", filling.sent as f64 / filling.secs);
        sample.put_some("fill_cpu_secs_per_million", per_million(filling.broker_cpu_secs, filling.sent));
        sample.put_some("rss_mib_before", rss_mib(before.broker));
        sample.put_some("rss_mib_filled", rss_mib(filled.broker));
        sample.put_some("rss_bytes_per_message", rss_bytes_per_message(&before, &filled));
        // A broker that keeps a part of a queue in memory has filled that by now.
        sample.put_some("rss_bytes_per_further_message", rss_bytes_per_message(&half, &filled));
        let filled_bytes_per_sec = filling.sent as f64 * self.load.messages.size as f64 / filling.secs;
        sample.put_some("disk_mib_per_sec", disk.map(|bytes_per_sec| bytes_per_sec / f64::from(1 << 20)));
        sample.put_some("filled_share_of_disk", disk.map(|bytes_per_sec| filled_bytes_per_sec / bytes_per_sec));
        sample.put_some("data_mib_filled", self.data_mib()?);
        Ok(())
    }

    fn drain(&self, load: &mut Load, target: &Target, sample: &mut Sample) -> Result<(), Failure> {
        let full = load.moment(target.pid)?;
        load.start_consumers()?;
        load.drain();
        let drained = load.moment(target.pid)?;
        let draining = full.until(&drained);
        sample.put("drained_per_sec", draining.received as f64 / draining.secs);
        let cpu = per_million(draining.broker_cpu_secs, draining.received);
        sample.put_some("drain_cpu_secs_per_million", cpu);
        sample.put_some("rss_mib_drained", rss_mib(drained.broker));
        sample.put_some("data_mib_drained", self.data_mib()?);
        Ok(())
    }

    fn data_mib(&self) -> Result<Option<f64>, Failure> {
        Ok(self.data.as_deref().map(directory_bytes).transpose()?.map(mib))
    }
}

fn rss_mib(usage: Option<Usage>) -> Option<f64> {
    usage.map(|usage| mib(usage.rss_bytes))
}

/// What memory grew by between two moments, for each message sent between them; below 0 where it
/// shrank.
fn rss_bytes_per_message(start: &Moment, end: &Moment) -> Option<f64> {
    let sent = end.sent.checked_sub(start.sent).filter(|sent| *sent > 0)?;
    let (start, end) = start.broker.zip(end.broker)?;
    Some((end.rss_bytes as f64 - start.rss_bytes as f64) / sent as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn moment(sent: u64, rss_bytes: u64) -> Moment {
        let usage = Usage { cpu_secs: 0.0, rss_bytes };
        Moment { at: Instant::now(), sent, received: 0, broker: Some(usage), own: usage }
    }

    #[test]
    fn memory_is_shared_by_the_messages_sent_meanwhile() {
        let half = moment(50, 1000);
        assert_eq!(rss_bytes_per_message(&half, &moment(100, 1500)), Some(10.0));
        assert_eq!(rss_bytes_per_message(&half, &moment(100, 500)), Some(-10.0));
        assert_eq!(rss_bytes_per_message(&half, &moment(50, 1500)), None);
        let unknown = Moment { broker: None, ..half };
        assert_eq!(rss_bytes_per_message(&unknown, &moment(100, 1500)), None);
    }
}
