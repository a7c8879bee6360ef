//! `tern bench connections`: many idle connections with a channel each, and what one costs.

use super::{
    client::Client,
    driver::{Compared, Holding, Scenario, Target},
    failure::Failure,
    process::{Usage, raise_open_files},
    report::Sample,
};
use serde_json::{Value, json};
use std::{process::ExitCode, time::Instant};

/// Many connections with a channel each, opened, held and closed.
#[derive(Debug, clap::Args)]
pub(super) struct Connections {
    #[command(flatten)]
    compared: Compared,
    /// Connections
    #[arg(long, short, default_value_t = 1000)]
    count: usize,
    #[command(flatten)]
    holding: Holding,
}

impl Connections {
    pub(super) fn run(&self) -> ExitCode {
        self.compared.drive(self)
    }
}

impl Scenario for Connections {
    const NAME: &'static str = "connections";

    fn settings(&self) -> Value {
        json!({ "count": self.count, "hold": self.holding.secs })
    }

    fn run_once(&self, target: &Target) -> Result<Sample, Failure> {
        raise_open_files(self.count as u64 + 100)?;
        let usage = || target.pid.map(Usage::of).transpose();
        let before = usage()?;
        let start = Instant::now();
        let mut clients = Vec::with_capacity(self.count);
        for index in 0..self.count {
            let client = Client::connect(&target.url, &format!("tern bench {index}"));
            clients.push(client.map_err(|failure| Failure::protocol(format!("connection {}: {failure}", index + 1)))?);
        }
        let opening_secs = start.elapsed().as_secs_f64();
        let opened = usage()?;
        self.holding.wait();
        let held = usage()?;
        let start = Instant::now();
        for mut client in clients {
            client.close()?;
        }
        let closing_secs = start.elapsed().as_secs_f64();
        let closed = usage()?;
        let count = self.count.max(1) as f64;
        let mut sample = Sample::default();
        sample.put("opened_per_sec", count / opening_secs);
        sample.put("closed_per_sec", count / closing_secs);
        let cpu_ms = |from: Option<Usage>, to: Option<Usage>| {
            from.zip(to).map(|(from, to)| (to.cpu_secs - from.cpu_secs) * 1e3 / count)
        };
        sample.put_some("open_cpu_ms", cpu_ms(before, opened));
        sample.put_some("close_cpu_ms", cpu_ms(held, closed));
        let kib = |bytes: f64| bytes / 1024.0;
        let per_connection =
            before.zip(held).map(|(before, held)| kib((held.rss_bytes as f64 - before.rss_bytes as f64) / count));
        sample.put_some("rss_kib_per_connection", per_connection);
        let rss = |usage: Option<Usage>| usage.map(|usage| super::throughput::mib(usage.rss_bytes));
        sample.put_some("rss_mib_before", rss(before));
        sample.put_some("rss_mib_held", rss(held));
        sample.put_some("rss_mib_after", rss(closed));
        Ok(sample)
    }
}
