//! `tern bench topics`: a topic exchange with many wildcard bindings, of which each message
//! matches one.

use super::{
    driver::{Common, Scenario, Target, Timing},
    failure::Failure,
    plan::{Binding, Lane, Plan},
    report::Sample,
    throughput::{MessageOptions, RateOption, merge, per_million, put_load, put_rates, steady},
};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Routing by many wildcard bindings on a topic exchange.
#[derive(Debug, clap::Args)]
pub(super) struct Topics {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    messages: MessageOptions,
    /// Bindings with wildcards: `k1.*.end`, `*.k2.#` and `#.k3` in turn
    #[arg(long, short, default_value_t = 1000)]
    bindings: usize,
    /// Queues that share the bindings, with a publisher and a consumer each
    #[arg(long, short, default_value_t = 1)]
    queues: usize,
    #[command(flatten)]
    rate: RateOption,
}

impl Topics {
    pub(super) fn run(&self) -> ExitCode {
        self.common.drive(self)
    }
}

impl Scenario for Topics {
    const NAME: &'static str = "topics";

    fn settings(&self) -> Value {
        let mut settings = json!({
            "bindings": self.bindings,
            "queues": self.queues,
            "rate": self.rate.rate,
            "seconds": self.timing.seconds,
        });
        merge(&mut settings, self.messages.settings());
        settings
    }

    fn run_once(&self, target: &Target) -> Result<Sample, Failure> {
        if self.bindings < self.queues {
            return Err(Failure::usage("every queue needs a binding"));
        }
        let mut publishing = self.messages.publishing();
        publishing.rate = self.rate.per_publisher(self.queues)?;
        let (queues, consuming) = (self.queues, self.messages.consuming()?);
        let mut plan = Plan::spread(&target.url, queues, queues, queues, publishing, consuming)?;
        self.messages.shape(&mut plan);
        let exchange = Plan::exchange_name();
        plan.exchanges = vec![(exchange.clone(), "topic")];
        let binding = |index: usize| {
            let (pattern, _) = pattern_and_key(index);
            Binding { queue: index % queues, exchange: exchange.clone(), key: pattern }
        };
        plan.bindings = (0..self.bindings).map(binding).collect();
        let keys =
            |queue: usize| (queue..self.bindings).step_by(queues).map(|index| pattern_and_key(index).1).collect();
        let lane = |queue: usize| Lane { exchange: exchange.clone(), keys: keys(queue), queues: vec![queue] };
        plan.lanes = (0..queues).map(lane).collect();
        let (window, outcome) = steady(plan, target, &self.timing)?;
        let mut sample = Sample { problems: outcome.problems, ..Sample::default() };
        put_rates(&mut sample, &window);
        let per_publish = per_million(window.broker_cpu_secs, window.sent);
        sample.put_some("cpu_secs_per_million_published", per_publish);
        put_load(&mut sample, &window);
        Ok(sample)
    }
}

/// A binding and a key that matches this binding alone.
fn pattern_and_key(index: usize) -> (String, String) {
    match index % 3 {
        0 => (format!("k{index}.*.end"), format!("k{index}.a.end")),
        1 => (format!("*.k{index}.#"), format!("a.k{index}.b.c")),
        _ => (format!("#.k{index}"), format!("a.b.k{index}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule of the specification, by recursion.
    fn matches(pattern: &[&str], key: &[&str]) -> bool {
        match (pattern.split_first(), key.split_first()) {
            (None, None) => true,
            (Some((&"#", rest)), _) => {
                matches(rest, key) || key.split_first().is_some_and(|(_, key)| matches(pattern, key))
            }
            (Some((&word, pattern)), Some((&first, key))) => (word == "*" || word == first) && matches(pattern, key),
            _ => false,
        }
    }

    #[test]
    fn each_key_matches_its_own_binding_alone() {
        let all: Vec<(String, String)> = (0..60).map(pattern_and_key).collect();
        for (own, (_, key)) in all.iter().enumerate() {
            for (other, (pattern, _)) in all.iter().enumerate() {
                let pattern: Vec<&str> = pattern.split('.').collect();
                let key: Vec<&str> = key.split('.').collect();
                assert_eq!(matches(&pattern, &key), own == other, "{pattern:?} {key:?}");
            }
        }
    }
}
