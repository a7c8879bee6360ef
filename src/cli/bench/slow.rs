//! `tern bench slow`: many queues in which messages stay for long.
//!
//! Each queue is published to in turn. Once it has its depth, each message that comes in has the oldest
//! one taken out. So what is alive is spread over all that was written meanwhile: beside a busy load,
//! what a log finds hard to give up.

use super::{
    client::{Client, QueueOptions},
    driver::{Common, Scenario, Target, Timing},
    failure::Failure,
    payload::{Checked, Payload, TRACED_BYTES_MIN},
    report::Sample,
    wire::{self, Properties},
};
use serde_json::{Value, json};
use std::{
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

/// Many queues in which messages stay for long.
#[derive(Debug, clap::Args)]
pub(super) struct Slow {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    timing: Timing,
    /// Queues
    #[arg(long, short, default_value_t = 1000)]
    queues: usize,
    /// Messages that stay in each
    #[arg(long, default_value_t = 20)]
    depth: u64,
    /// Messages a second, over all queues, at most
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// Bytes of a body
    #[arg(long, short, default_value_t = 1024)]
    size: usize,
    /// Persistent messages on durable queues
    #[arg(long)]
    durable: bool,
}

impl Slow {
    pub(super) fn run(&self) -> ExitCode {
        self.common.drive(self)
    }
}

/// A thousand of them at once would fill both sockets.
const DECLARED_AT_ONCE: usize = 100;

impl Scenario for Slow {
    const NAME: &'static str = "slow";

    fn settings(&self) -> Value {
        json!({
            "queues": self.queues,
            "depth": self.depth,
            "rate": self.rate,
            "size": self.size,
            "durable": self.durable,
            "seconds": self.timing.seconds,
        })
    }

    fn run_once(&self, target: &Target) -> Result<Sample, Failure> {
        if self.size < TRACED_BYTES_MIN || self.queues == 0 || self.rate.is_nan() || self.rate <= 0.0 {
            return Err(Failure::usage(format!("bodies of {TRACED_BYTES_MIN} bytes, a queue and a rate are needed")));
        }
        let mut client = Client::connect(&target.url, "tern bench slow")?;
        let process = std::process::id();
        let names: Vec<String> = (0..self.queues).map(|queue| format!("tb{process}.{queue}")).collect();
        let options = QueueOptions { durable: self.durable, ..QueueOptions::default() };
        for names in names.chunks(DECLARED_AT_ONCE) {
            names.iter().for_each(|name| client.push_declare_queue(name, &options));
            client.flush()?;
            for _ in names {
                client.await_reply(wire::id::QUEUE_DECLARE_OK)?;
            }
        }
        let run = Run { names: &names, payload: Payload::new(u64::from(process), self.size), durable: self.durable };
        let (start, period) = (Instant::now(), self.timing.period()?);
        let kept = self.depth * self.queues as u64;
        let (mut published, mut taken, mut wrong) = (0, 0, 0);
        while start.elapsed() < period {
            let due = Duration::from_secs_f64(published as f64 / self.rate);
            thread::sleep(due.saturating_sub(start.elapsed()));
            run.publish(&mut client, published)?;
            published += 1;
            if published > kept {
                wrong += u64::from(!run.take(&mut client, taken)?);
                taken += 1;
            }
        }
        let secs = start.elapsed().as_secs_f64();
        while taken < published {
            wrong += u64::from(!run.take(&mut client, taken)?);
            taken += 1;
        }
        names.iter().try_for_each(|name| client.delete_queue(name))?;
        client.close()?;
        let mut sample = Sample::default();
        sample.put("published_per_sec", published as f64 / secs);
        if wrong > 0 {
            sample.problems.push(format!("{wrong} messages were not the ones that were due"));
        }
        Ok(sample)
    }
}

struct Run<'a> {
    names: &'a [String],
    payload: Payload,
    durable: bool,
}

impl Run<'_> {
    fn name(&self, seq: u64) -> &str {
        &self.names[(seq % self.names.len() as u64) as usize]
    }

    fn publish(&self, client: &mut Client, seq: u64) -> Result<(), Failure> {
        let mut body = self.payload.blank();
        self.payload.number(&mut body, 0, seq);
        let properties = Properties { persistent: self.durable, ..Properties::default() };
        let mut encoded = Vec::new();
        wire::encode_publish(&mut encoded, "", self.name(seq), properties, &body, client.frame_max);
        client.push_encoded(&encoded);
        client.flush()
    }

    /// Takes the oldest message of the queue of `seq`, and says whether it is that.
    fn take(&self, client: &mut Client, seq: u64) -> Result<bool, Failure> {
        let body = client.take(self.name(seq))?;
        Ok(matches!(self.payload.check(&body), Checked::Traced { seq: found, .. } if found == seq))
    }
}
