//! `tern bench fanout`: one publisher, a fanout exchange, many queues with a consumer each.

use super::{
    driver::{Compared, Scenario, Target, Timing},
    failure::Failure,
    plan::{Binding, Lane, Plan},
    report::Sample,
    throughput::{MessageOptions, RateOption, merge, per_million, put_load, put_rates, steady},
};
use serde_json::{Value, json};
use std::process::ExitCode;

/// One message to many queues through a fanout exchange.
#[derive(Debug, clap::Args)]
pub(super) struct Fanout {
    #[command(flatten)]
    compared: Compared,
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    messages: MessageOptions,
    /// Queues that each message reaches, with one consumer each
    #[arg(long, short, default_value_t = 10)]
    queues: usize,
    #[command(flatten)]
    rate: RateOption,
}

impl Fanout {
    pub(super) fn run(&self) -> ExitCode {
        self.compared.drive(self)
    }
}

impl Scenario for Fanout {
    const NAME: &'static str = "fanout";

    fn settings(&self) -> Value {
        let mut settings = json!({ "queues": self.queues, "rate": self.rate.rate, "seconds": self.timing.seconds });
        merge(&mut settings, self.messages.settings());
        settings
    }

    fn is_durable(&self) -> bool {
        self.messages.durable
    }

    fn run_once(&self, target: &Target) -> Result<Sample, Failure> {
        let mut publishing = self.messages.publishing();
        publishing.rate = self.rate.per_publisher(1)?;
        let (queues, consuming) = (self.queues, self.messages.consuming()?);
        let mut plan = Plan::spread(&target.url, queues, queues, queues, publishing, consuming)?;
        self.messages.shape(&mut plan);
        let exchange = Plan::exchange_name();
        let binding = |queue| Binding { queue, exchange: exchange.clone(), key: String::new() };
        plan.bindings = (0..queues).map(binding).collect();
        plan.exchanges = vec![(exchange.clone(), "fanout")];
        plan.lanes = vec![Lane { exchange, keys: vec![String::new()], queues: (0..queues).collect() }];
        let (window, outcome) = steady(plan, target, &self.timing)?;
        let mut sample = Sample { problems: outcome.problems, ..Sample::default() };
        put_rates(&mut sample, &window);
        let per_delivery = per_million(window.broker_cpu_secs, window.received);
        sample.put_some("cpu_secs_per_million_deliveries", per_delivery);
        let per_publish = per_million(window.broker_cpu_secs, window.sent);
        sample.put_some("cpu_secs_per_million_published", per_publish);
        put_load(&mut sample, &window);
        Ok(sample)
    }
}
