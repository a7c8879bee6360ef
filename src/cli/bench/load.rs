//! Puts a plan on a broker: connects everybody, starts and stops them, judges what arrived.

use super::{
    client::Client,
    consumer::{Consumed, Consumer},
    failure::Failure,
    payload::Payload,
    plan::Plan,
    process::Usage,
    publisher::{Published, Publisher},
    shared::Shared,
    url::Protocol,
};
use hdrhistogram::Histogram;
use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How long nothing may arrive before what is missing counts as lost.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the measuring thread looks for a failure.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

type Thread<T> = JoinHandle<Result<T, Failure>>;

/// A load on a broker.
pub(super) struct Load {
    plan: Plan,
    payload: Payload,
    shared: Arc<Shared>,
    /// What declares and removes; over STOMP nobody does.
    control: Option<Client>,
    publishers: Vec<Thread<Published>>,
    consumers: Vec<Thread<Consumed>>,
    published: Vec<Published>,
    is_finished: bool,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) at: Instant,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) broker: Option<Usage>,
    pub(super) own: Usage,
}

/// What happened between two moments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) secs: f64,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) broker_cpu_secs: Option<f64>,
    pub(super) own_cpu_secs: f64,
    pub(super) broker_rss_bytes: Option<u64>,
}

/// What the consumers saw in all.
pub(super) struct Outcome {
    /// What is wrong with it, for people; nothing when all came once, whole and in order.
    pub(super) problems: Vec<String>,
    pub(super) latencies: Option<Histogram<u64>>,
    pub(super) confirm_latencies: Option<Histogram<u64>>,
}

impl Load {
    /// Declares the topology.
    pub(super) fn declare(plan: Plan) -> Result<Self, Failure> {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|error| Failure::protocol(format!("no random seed: {error}")))?;
        Self::declare_with(plan, u64::from_le_bytes(seed))
    }

    /// Declares the topology; bodies are those of every load with this seed.
    pub(super) fn declare_with(plan: Plan, seed: u64) -> Result<Self, Failure> {
        let payload = Payload::new(seed, plan.publishing.body_bytes);
        let control = match plan.url.protocol {
            Protocol::Stomp | Protocol::Sqs => None,
            Protocol::Amqp => {
                let mut control = Client::connect(&plan.url, "tern bench control")?;
                plan.declare(&mut control)?;
                Some(control)
            }
        };
        Ok(Self {
            payload,
            shared: Arc::new(Shared::new(&plan)),
            plan,
            control,
            publishers: Vec::new(),
            consumers: Vec::new(),
            published: Vec::new(),
            is_finished: false,
        })
    }

    pub(super) fn start_consumers(&mut self) -> Result<(), Failure> {
        let consumers = (0..self.plan.consumers.len())
            .map(|index| Consumer::connect(&self.plan, index, self.payload, &self.shared))
            .collect::<Result<Vec<_>, _>>()?;
        for consumer in consumers {
            self.consumers.push(spawn(&self.shared, "consumer", move || consumer.run())?);
        }
        Ok(())
    }

    pub(super) fn start_publishers(&mut self) -> Result<(), Failure> {
        let publishers = (0..self.plan.lanes.len())
            .map(|index| Publisher::connect(&self.plan, index, self.payload, &self.shared))
            .collect::<Result<Vec<_>, _>>()?;
        for publisher in publishers {
            self.publishers.push(spawn(&self.shared, "publisher", move || publisher.run())?);
        }
        Ok(())
    }

    /// Counts as published what an earlier load with the same plan and seed has published: the limit.
    pub(super) fn count_published(&mut self) {
        let limit = self.plan.publishing.limit.unwrap_or(0);
        for lane in 0..self.plan.lanes.len() {
            let hashes = (0..limit).map(|seq| self.payload.hash_of(lane as u16, seq));
            let hash_sum = hashes.fold(0_u64, u64::wrapping_add);
            self.shared.count_sent(lane, limit);
            self.published.push(Published { sent: limit, hash_sum, ..Published::default() });
        }
    }

    /// Goes and leaves what was published where it is. Returns what is wrong with the publishing.
    pub(super) fn leave(mut self) -> Result<Vec<String>, Failure> {
        self.is_finished = true;
        if let Some(control) = &mut self.control {
            control.close()?;
        }
        let refused: u64 = self.published.iter().map(|published| published.nacked).sum();
        Ok((refused > 0).then(|| format!("{refused} messages refused by the broker (nack)")).into_iter().collect())
    }

    /// Lets the load run for `period`, or until somebody fails.
    pub(super) fn run_for(&self, period: Duration) {
        let start = Instant::now();
        while start.elapsed() < period && !self.shared.has_failed() {
            thread::sleep(LOOK_INTERVAL.min(period.saturating_sub(start.elapsed())));
        }
    }

    pub(super) fn moment(&self, pid: Option<u32>) -> Result<Moment, Failure> {
        Ok(Moment {
            broker: pid.map(Usage::of).transpose()?,
            own: Usage::own()?,
            at: Instant::now(),
            sent: self.shared.sent(),
            received: self.shared.received(),
        })
    }

    /// Warms up, then measures a steady window.
    pub(super) fn measure(&self, pid: Option<u32>, warmup: Duration, period: Duration) -> Result<Window, Failure> {
        self.run_for(warmup);
        self.shared.measuring.store(true, SeqCst);
        let start = self.moment(pid)?;
        self.run_for(period);
        let end = self.moment(pid)?;
        self.shared.measuring.store(false, SeqCst);
        Ok(start.until(&end))
    }

    /// Waits until the publishers have sent `count` in all, or somebody has failed.
    pub(super) fn await_sent(&self, count: u64) {
        while self.shared.sent() < count && !self.shared.has_failed() {
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until the publishers have sent their limit.
    pub(super) fn join_publishers(&mut self) -> Result<(), Failure> {
        for publisher in std::mem::take(&mut self.publishers) {
            let published = join(publisher);
            match published {
                Ok(published) => self.published.push(published),
                Err(failure) => return Err(self.first_failure(failure)),
            }
        }
        Ok(())
    }

    pub(super) fn stop_publishers(&mut self) -> Result<(), Failure> {
        self.shared.stop.store(true, SeqCst);
        self.join_publishers()
    }

    /// Waits until all has arrived, or nothing more comes.
    pub(super) fn drain(&self) {
        let mut progress_at = Instant::now();
        let mut received = self.shared.received();
        while self.shared.outstanding() > 0 && progress_at.elapsed() < DRAIN_TIMEOUT && !self.shared.has_failed() {
            thread::sleep(Duration::from_millis(2));
            let now_received = self.shared.received();
            if now_received != received {
                received = now_received;
                progress_at = Instant::now();
            }
        }
    }

    /// Ends everybody, removes the topology and judges the whole run.
    pub(super) fn finish(mut self) -> Result<Outcome, Failure> {
        self.shared.finish.store(true, SeqCst);
        let mut consumed = Vec::new();
        for consumer in std::mem::take(&mut self.consumers) {
            match join(consumer) {
                Ok(one) => consumed.push(one),
                Err(failure) => return Err(self.first_failure(failure)),
            }
        }
        self.is_finished = true;
        if let Some(control) = &mut self.control {
            self.plan.delete(control)?;
            control.close()?;
        }
        let problems = judge(&self.plan, self.payload.is_traced(), &self.published, &consumed);
        let latencies = merged(consumed.into_iter().filter_map(|consumed| consumed.latencies))?;
        let published = std::mem::take(&mut self.published).into_iter();
        let confirm_latencies = merged(published.filter_map(|published| published.confirm_latencies))?;
        Ok(Outcome { problems, latencies, confirm_latencies })
    }

    /// Ends the others after a failure. What made one fail often makes all fail; the first to be
    /// joined speaks, unless another has the broker's own reason.
    fn first_failure(&mut self, failure: Failure) -> Failure {
        self.shared.failed.store(true, SeqCst);
        let publishers = std::mem::take(&mut self.publishers).into_iter();
        let consumers = std::mem::take(&mut self.consumers).into_iter();
        let others =
            publishers.filter_map(|thread| join(thread).err()).chain(consumers.filter_map(|thread| join(thread).err()));
        let mut reason = failure;
        for other in others {
            if other.is_a_reason() && !reason.is_a_reason() {
                reason = other;
            }
        }
        reason
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.failed.store(true, SeqCst);
        if !self.is_finished
            && let Some(control) = &mut self.control
        {
            // After a failure: leave nothing behind, as far as the broker still answers.
            let _ = self.plan.delete(control);
        }
    }
}

impl Moment {
    pub(super) fn until(&self, end: &Self) -> Window {
        let cpu = |start: Usage, end: Usage| end.cpu_secs - start.cpu_secs;
        Window {
            secs: end.at.duration_since(self.at).as_secs_f64(),
            sent: end.sent - self.sent,
            received: end.received - self.received,
            broker_cpu_secs: self.broker.zip(end.broker).map(|(start, end)| cpu(start, end)),
            own_cpu_secs: cpu(self.own, end.own),
            broker_rss_bytes: end.broker.map(|usage| usage.rss_bytes),
        }
    }
}

fn spawn<T: Send + 'static>(
    shared: &Arc<Shared>,
    name: &str,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<Thread<T>, Failure> {
    let shared = Arc::clone(shared);
    let work = move || {
        let result = work();
        if result.is_err() {
            shared.failed.store(true, SeqCst);
        }
        result
    };
    thread::Builder::new().name(format!("bench-{name}")).spawn(work).map_err(Failure::io("starting a thread"))
}

fn join<T>(thread: Thread<T>) -> Result<T, Failure> {
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// All in one; nothing of none.
fn merged(mut histograms: impl Iterator<Item = Histogram<u64>>) -> Result<Option<Histogram<u64>>, Failure> {
    let Some(mut all) = histograms.next() else {
        return Ok(None);
    };
    for one in histograms {
        all.add(one).map_err(|error| Failure::protocol(format!("a histogram: {error:?}")))?;
    }
    Ok(Some(all))
}

/// Compares what was sent with what came, by queue and publisher.
fn judge(plan: &Plan, is_traced: bool, published: &[Published], consumed: &[Consumed]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut note = |count: u64, what: String| {
        if count > 0 {
            problems.push(format!("{count} {what}"));
        }
    };
    for (publisher, sent) in published.iter().enumerate() {
        note(sent.nacked, format!("messages of publisher {publisher} refused by the broker (nack)"));
    }
    for (queue, name) in plan.queues.iter().enumerate() {
        let here = || consumed.iter().filter(|consumed| consumed.queue == queue);
        note(here().map(|consumed| consumed.damaged).sum(), format!("damaged messages from {name}"));
        let feeding = |lane: &usize| plan.lanes[*lane].queues.contains(&queue);
        if !is_traced {
            let sent = (0..published.len()).filter(feeding).map(|lane| published[lane].sent).sum::<u64>();
            let received = here().map(|consumed| consumed.counted).sum::<u64>();
            note(sent.saturating_sub(received), format!("messages lost in {name}"));
            note(received.saturating_sub(sent), format!("messages too many from {name}"));
            continue;
        }
        for (lane, sent) in published.iter().enumerate() {
            let tallies = || here().filter_map(|consumed| consumed.tallies.get(lane));
            let of = |what: &str| format!("messages of publisher {lane} {what} {name}");
            let received = tallies().map(|tally| tally.count).sum::<u64>();
            let due = if feeding(&lane) { sent.sent } else { 0 };
            note(due.saturating_sub(received), of("lost in"));
            note(received.saturating_sub(due), of("too many from"));
            if plan.is_ordered() {
                note(tallies().map(|tally| tally.out_of_order).sum(), of("out of order from"));
            }
            let hash_sum = tallies().fold(0u64, |sum, tally| sum.wrapping_add(tally.hash_sum));
            if received == due && due > 0 && hash_sum != sent.hash_sum {
                note(1, format!("or more {} (and as many repeated)", of("lost in")));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::super::{
        consumer::Tally,
        plan::{Consuming, Publishing},
    };
    use super::*;

    fn plan() -> Plan {
        let publishing = Publishing {
            body_bytes: 16,
            confirm_window: None,
            receipt_every: 1,
            rate: None,
            in_flight_max: 0,
            limit: None,
            stamped: false,
        };
        let url = "amqp://localhost".parse().unwrap();
        Plan::spread(&url, 1, 1, 1, publishing, Consuming::AutoAck).unwrap()
    }

    fn problems(sent: u64, sent_hash: u64, tally: Tally, damaged: u64) -> Vec<String> {
        let published = [Published { sent, hash_sum: sent_hash, ..Published::default() }];
        let consumed = [Consumed { tallies: vec![tally], damaged, ..Consumed::default() }];
        judge(&plan(), true, &published, &consumed)
    }

    #[test]
    fn all_once_in_order_is_no_problem() {
        let tally = Tally { count: 3, hash_sum: 9, ..Tally::default() };
        assert!(problems(3, 9, tally, 0).is_empty());
    }

    #[test]
    fn each_kind_of_damage_is_named() {
        let tally = |count, hash_sum, out_of_order| Tally { count, hash_sum, out_of_order, ..Tally::default() };
        assert!(problems(3, 9, tally(2, 8, 0), 0)[0].starts_with("1 messages of publisher 0 lost"));
        assert!(problems(3, 9, tally(4, 8, 0), 0)[0].contains("too many"));
        assert!(problems(3, 9, tally(3, 9, 2), 0)[0].contains("out of order"));
        assert!(problems(3, 9, tally(3, 8, 0), 0)[0].contains("repeated"));
        assert!(problems(3, 9, tally(3, 9, 0), 1)[0].contains("damaged"));
    }
}
