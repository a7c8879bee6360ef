//! `tern bench latency`: from just before the write to just after the read, of the message and with
//! confirms of its confirm, at a fixed rate.

use super::{
    driver::{Compared, ProtocolOption, Scenario, Target, Timing},
    failure::Failure,
    payload::STAMPED_BYTES_MIN,
    report::Sample,
    throughput::{LoadOptions, merge, per_million, per_publisher, put_load, put_rates, steady},
    url::Protocol,
};
use serde_json::{Value, json};
use std::process::ExitCode;

/// End-to-end latency at a fixed rate, and with --confirms that of the confirm.
#[derive(Debug, clap::Args)]
pub(super) struct Latency {
    #[command(flatten)]
    compared: Compared,
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    load: LoadOptions,
    #[command(flatten)]
    protocol: ProtocolOption,
    /// Messages a second, over all publishers
    #[arg(long, default_value_t = 2000.0)]
    rate: f64,
}

impl Latency {
    pub(super) fn run(&self) -> ExitCode {
        self.compared.drive(self)
    }
}

impl Scenario for Latency {
    const NAME: &'static str = "latency";

    fn settings(&self) -> Value {
        let mut settings = json!({
            "rate": self.rate,
            "publishers": self.load.publishers,
            "queues": self.load.queues,
            "consumers": self.load.consumers,
            "seconds": self.timing.seconds,
        });
        merge(&mut settings, self.load.messages.settings());
        settings
    }

    fn is_durable(&self) -> bool {
        self.load.messages.durable
    }

    fn protocol(&self) -> Option<Protocol> {
        self.protocol.protocol
    }

    fn run_once(&self, target: &Target) -> Result<Sample, Failure> {
        if self.load.messages.size < STAMPED_BYTES_MIN {
            let text = format!("--size must be at least {STAMPED_BYTES_MIN}: the body carries the time");
            return Err(Failure::usage(text));
        }
        let mut publishing = self.load.messages.publishing();
        publishing.rate = Some(per_publisher(self.rate, self.load.publishers)?);
        publishing.stamped = true;
        let (window, outcome) = steady(self.load.plan(target, publishing)?, target, &self.timing)?;
        let mut sample = Sample { problems: outcome.problems, ..Sample::default() };
        let us = |ns: u64| ns as f64 / 1e3;
        if let Some(latencies) = outcome.latencies {
            sample.put("p50_us", us(latencies.value_at_quantile(0.5)));
            sample.put("p99_us", us(latencies.value_at_quantile(0.99)));
            sample.put("p999_us", us(latencies.value_at_quantile(0.999)));
            sample.put("max_us", us(latencies.max()));
        }
        if let Some(latencies) = outcome.confirm_latencies {
            sample.put("confirm_p50_us", us(latencies.value_at_quantile(0.5)));
            sample.put("confirm_p99_us", us(latencies.value_at_quantile(0.99)));
            sample.put("confirm_p999_us", us(latencies.value_at_quantile(0.999)));
            sample.put("confirm_max_us", us(latencies.max()));
        }
        put_rates(&mut sample, &window);
        sample.put_some("cpu_secs_per_million", per_million(window.broker_cpu_secs, window.received));
        put_load(&mut sample, &window);
        Ok(sample)
    }
}
