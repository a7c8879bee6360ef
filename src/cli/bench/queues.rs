//! `tern bench queues`: many empty queues, and what one costs.

use super::{
    client::{Client, QueueOptions},
    driver::{Compared, Holding, Scenario, Target},
    failure::Failure,
    process::Usage,
    report::Sample,
    wire::id,
};
use serde_json::{Value, json};
use std::{process::ExitCode, time::Instant};

/// Calls on their way at once.
const PIPELINE: usize = 200;

/// Many empty queues, declared, held and deleted.
#[derive(Debug, clap::Args)]
pub(super) struct Queues {
    #[command(flatten)]
    compared: Compared,
    /// Queues
    #[arg(long, short, default_value_t = 10_000)]
    count: usize,
    #[command(flatten)]
    holding: Holding,
    /// Durable queues
    #[arg(long)]
    durable: bool,
    /// The type of the queues (x-queue-type)
    #[arg(long)]
    queue_type: Option<String>,
}

impl Queues {
    pub(super) fn run(&self) -> ExitCode {
        self.compared.drive(self)
    }
}

impl Scenario for Queues {
    const NAME: &'static str = "queues";

    fn settings(&self) -> Value {
        json!({
            "count": self.count,
            "hold": self.holding.secs,
            "durable": self.durable,
            "queue_type": self.queue_type,
        })
    }

    fn run_once(&self, target: &Target) -> Result<Sample, Failure> {
        let mut client = Client::connect(&target.url, "tern bench queues")?;
        let usage = || target.pid.map(Usage::of).transpose();
        let options = QueueOptions {
            durable: self.durable,
            auto_delete: false,
            kind: self.queue_type.clone(),
            ..QueueOptions::default()
        };
        let process = std::process::id();
        let names: Vec<String> = (0..self.count).map(|index| format!("tb{process}.{index}")).collect();

        let before = usage()?;
        let start = Instant::now();
        let declare = |client: &mut Client, name: &str| client.push_declare_queue(name, &options);
        pipelined(&mut client, &names, id::QUEUE_DECLARE_OK, declare)?;
        let declaring_secs = start.elapsed().as_secs_f64();
        let declared = usage()?;
        self.holding.wait();
        let held = usage()?;
        let start = Instant::now();
        pipelined(&mut client, &names, id::QUEUE_DELETE_OK, Client::push_delete_queue)?;
        let deleting_secs = start.elapsed().as_secs_f64();
        let deleted = usage()?;
        client.close()?;

        let count = self.count.max(1) as f64;
        let mut sample = Sample::default();
        sample.put("declared_per_sec", count / declaring_secs);
        sample.put("deleted_per_sec", count / deleting_secs);
        let cpu_ms = |from: Option<Usage>, to: Option<Usage>| {
            from.zip(to).map(|(from, to)| (to.cpu_secs - from.cpu_secs) * 1e3 / count)
        };
        sample.put_some("declare_cpu_ms", cpu_ms(before, declared));
        sample.put_some("delete_cpu_ms", cpu_ms(held, deleted));
        let per_queue =
            before.zip(held).map(|(before, held)| (held.rss_bytes as f64 - before.rss_bytes as f64) / count / 1024.0);
        sample.put_some("rss_kib_per_queue", per_queue);
        let rss = |usage: Option<Usage>| usage.map(|usage| super::throughput::mib(usage.rss_bytes));
        sample.put_some("rss_mib_before", rss(before));
        sample.put_some("rss_mib_held", rss(held));
        sample.put_some("rss_mib_after", rss(deleted));
        Ok(sample)
    }
}

/// One call for each name, many on their way at once.
fn pipelined(
    client: &mut Client,
    names: &[String],
    reply: u32,
    push: impl Fn(&mut Client, &str),
) -> Result<(), Failure> {
    for names in names.chunks(PIPELINE) {
        for name in names {
            push(client, name);
        }
        client.flush()?;
        for _ in names {
            client.await_reply(reply)?;
        }
    }
    Ok(())
}
