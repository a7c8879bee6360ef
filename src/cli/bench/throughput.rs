//! `tern bench throughput`: as many messages as go through, or a given rate, in a steady state.

use super::{
    driver::{Compared, ProtocolOption, Scenario, Target, Timing},
    failure::Failure,
    load::{Load, Outcome, Window},
    plan::{Binding, Consuming, Plan, Publishing, in_flight_max},
    report::Sample,
    sqs,
    url::Protocol,
    wire::Properties,
};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Messages through queues: publishers, queues and consumers in turn.
#[derive(Debug, clap::Args)]
pub(super) struct Throughput {
    #[command(flatten)]
    compared: Compared,
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    load: LoadOptions,
    #[command(flatten)]
    protocol: ProtocolOption,
    /// Publish to an exchange of this type instead of the default one
    #[arg(long, value_enum)]
    exchange: Option<ExchangeKind>,
    #[command(flatten)]
    rate: RateOption,
}

/// What scenarios with publishers and consumers take.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct LoadOptions {
    /// Publishers, spread over the queues
    #[arg(long, short, default_value_t = 1)]
    pub(super) publishers: usize,
    /// Queues
    #[arg(long, short, default_value_t = 1)]
    pub(super) queues: usize,
    /// Consumers, spread over the queues
    #[arg(long, short, default_value_t = 1)]
    pub(super) consumers: usize,
    #[command(flatten)]
    pub(super) messages: MessageOptions,
}

/// What scenarios take that may publish as fast as they can.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct RateOption {
    /// Messages a second, over all publishers [default: as many as possible]
    #[arg(long)]
    pub(super) rate: Option<f64>,
}

impl RateOption {
    /// The share of one publisher.
    pub(super) fn per_publisher(&self, publishers: usize) -> Result<Option<f64>, Failure> {
        self.rate.map(|rate| per_publisher(rate, publishers)).transpose()
    }
}

/// What scenarios with messages take.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct MessageOptions {
    /// Bytes of a body; from 16 on each message is followed, from 24 on to its last byte
    #[arg(long, short, default_value_t = 1024)]
    pub(super) size: usize,
    /// Acknowledge by hand, one ack for so many messages [default: auto-ack]
    #[arg(long, value_name = "MESSAGES", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) ack_every: Option<u32>,
    /// With --ack-every: messages that a consumer may hold unacknowledged, 0 for any
    #[arg(long, default_value_t = 1000)]
    pub(super) prefetch: u16,
    /// Publish with confirms, at most so many outstanding at each publisher [default: none]
    #[arg(long, value_name = "MESSAGES", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) confirms: Option<u64>,
    /// STOMP: with --confirms, ask for a receipt with one of so many messages, which stands for those
    /// before it, too [default: a tenth of --confirms]
    #[arg(long, value_name = "MESSAGES", requires = "confirms", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) receipt_every: Option<u64>,
    /// Persistent messages on durable queues; a null broker syncs them before it confirms
    #[arg(long, visible_alias = "persistent")]
    pub(super) durable: bool,
    /// The type of the queues (x-queue-type)
    #[arg(long)]
    pub(super) queue_type: Option<String>,
    /// An argument of the queues that is a number, like x-max-length-bytes=1000000; may be repeated
    #[arg(long = "queue-argument", value_name = "NAME=NUMBER", value_parser = named_number)]
    pub(super) queue_arguments: Vec<(String, i64)>,
    /// Priorities of messages in turn, from 0 to one less than this (the queues need x-max-priority)
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..))]
    pub(super) priorities: Option<u8>,
    /// Milliseconds after which messages expire, in turn; 0 for never
    #[arg(long, value_name = "MS,...", value_delimiter = ',')]
    pub(super) ttl_ms: Vec<u64>,
    /// Groups of messages in turn, by the header JMSXGroupID
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) groups: Option<u32>,
    /// Messages in flight in each queue, 0 for any [default: 20000, fewer when large]
    #[arg(long, value_name = "MESSAGES")]
    pub(super) max_in_flight: Option<u64>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ExchangeKind {
    Direct,
    Fanout,
    Topic,
    Headers,
}

impl ExchangeKind {
    fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
        }
    }
}

/// `NAME=NUMBER`.
fn named_number(text: &str) -> Result<(String, i64), String> {
    let (name, number) = text.split_once('=').ok_or("NAME=NUMBER is wanted")?;
    Ok((name.to_owned(), number.parse().map_err(|_| format!("{number} is no number"))?))
}

impl MessageOptions {
    pub(super) fn publishing(&self) -> Publishing {
        Publishing {
            body_bytes: self.size,
            confirm_window: self.confirms,
            receipt_every: self.receipt_every.unwrap_or(self.confirms.unwrap_or(0) / 10).max(1),
            rate: None,
            in_flight_max: self.max_in_flight.unwrap_or_else(|| in_flight_max(self.size)),
            limit: None,
            stamped: false,
        }
    }

    pub(super) fn consuming(&self) -> Result<Consuming, Failure> {
        match self.ack_every {
            None => Ok(Consuming::AutoAck),
            Some(ack_every) if self.prefetch > 0 && ack_every > u32::from(self.prefetch) => {
                Err(Failure::usage("--ack-every may not exceed --prefetch"))
            }
            Some(ack_every) => Ok(Consuming::Manual { prefetch: self.prefetch, ack_every }),
        }
    }

    /// Gives the queues and messages of `plan` their options.
    pub(super) fn shape(&self, plan: &mut Plan) {
        let is_replicated = self.queue_type.as_deref().is_some_and(|kind| kind != "classic");
        plan.queue_options.durable = self.durable || is_replicated;
        plan.queue_options.auto_delete = !is_replicated;
        plan.queue_options.kind.clone_from(&self.queue_type);
        plan.queue_options.numbers.clone_from(&self.queue_arguments);
        plan.properties = self.properties();
    }

    /// Every combination of priority and expiration, mixed, at least once, and every group.
    fn properties(&self) -> Vec<Properties> {
        let (priorities, ttls) = (self.priorities.unwrap_or(1).max(1), self.ttl_ms.len().max(1));
        let of = |turn: usize| Properties {
            persistent: self.durable,
            priority: self.priorities.map(|_| (turn % priorities as usize) as u8),
            expiration: self.ttl_ms.get(turn / priorities as usize % ttls).copied().filter(|ttl| *ttl > 0),
            group: self.groups.map(|groups| turn as u32 % groups),
        };
        let combinations = priorities as usize * ttls;
        let groups = self.groups.map_or(1, |groups| groups as usize);
        (0..groups.max(combinations).next_multiple_of(combinations)).map(of).collect()
    }

    pub(super) fn settings(&self) -> Value {
        json!({
            "size": self.size,
            "ack": match self.ack_every {
                None => "auto".to_owned(),
                Some(every) => format!("every {every}, prefetch {}", self.prefetch),
            },
            "confirms": self.confirms,
            "receipt_every": self.receipt_every,
            "durable": self.durable,
            "queue_type": self.queue_type,
            "priorities": self.priorities,
            "ttl": (!self.ttl_ms.is_empty()).then(|| {
                let count = self.ttl_ms.iter().filter(|ttl| **ttl > 0).count();
                format!("{count} of {}", self.ttl_ms.len())
            }),
            "groups": self.groups,
            "in_flight_max": self.publishing().in_flight_max,
        })
    }
}

impl LoadOptions {
    pub(super) fn plan(&self, target: &Target, publishing: Publishing) -> Result<Plan, Failure> {
        let consuming = self.messages.consuming()?;
        let (publishers, queues, consumers) = (self.publishers, self.queues, self.consumers);
        let mut plan = Plan::spread(&target.url, publishers, queues, consumers, publishing, consuming)?;
        self.messages.shape(&mut plan);
        Ok(plan)
    }
}

impl Throughput {
    pub(super) fn run(&self) -> ExitCode {
        if self.protocol.protocol == Some(Protocol::Sqs) {
            return sqs::Sqs::beside(self.timing.clone()).run();
        }
        self.compared.drive(self)
    }
}

impl Scenario for Throughput {
    const NAME: &'static str = "throughput";

    fn settings(&self) -> Value {
        let mut settings = json!({
            "publishers": self.load.publishers,
            "queues": self.load.queues,
            "consumers": self.load.consumers,
            "exchange": self.exchange.map(ExchangeKind::name),
            "rate": self.rate.rate,
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
        let mut publishing = self.load.messages.publishing();
        publishing.rate = self.rate.per_publisher(self.load.publishers)?;
        let mut plan = self.load.plan(target, publishing)?;
        if let Some(kind) = self.exchange {
            if target.url.protocol != Protocol::Amqp {
                return Err(Failure::usage("--exchange is for AMQP"));
            }
            through_exchange(&mut plan, kind);
        }
        let (window, outcome) = steady(plan, target, &self.timing)?;
        let mut sample = Sample { problems: outcome.problems, ..Sample::default() };
        put_rates(&mut sample, &window);
        sample.put_some("cpu_secs_per_million", per_million(window.broker_cpu_secs, window.received));
        put_load(&mut sample, &window);
        Ok(sample)
    }
}

/// Sends each lane through one exchange of `kind`; a fanout exchange for each queue, since it
/// knows no keys.
fn through_exchange(plan: &mut Plan, kind: ExchangeKind) {
    let base = Plan::exchange_name();
    let name = |queue: usize| match kind {
        ExchangeKind::Fanout | ExchangeKind::Headers => format!("{base}.{queue}"),
        ExchangeKind::Direct | ExchangeKind::Topic => base.clone(),
    };
    for (queue, key) in plan.queues.iter().enumerate() {
        let exchange = name(queue);
        if !plan.exchanges.iter().any(|(known, _)| *known == exchange) {
            plan.exchanges.push((exchange.clone(), kind.name()));
        }
        plan.bindings.push(Binding { queue, exchange, key: key.clone() });
    }
    for lane in &mut plan.lanes {
        lane.exchange = name(lane.queues[0]);
    }
}

/// The share of one publisher in `rate`.
pub(super) fn per_publisher(rate: f64, publishers: usize) -> Result<f64, Failure> {
    if rate.is_finite() && rate > 0.0 {
        Ok(rate / publishers.max(1) as f64)
    } else {
        Err(Failure::usage("--rate must be above 0"))
    }
}

/// One run of a plan: consumers first, then publishers, a measured window, and all drained.
pub(super) fn steady(plan: Plan, target: &Target, timing: &Timing) -> Result<(Window, Outcome), Failure> {
    let mut load = Load::declare(plan)?;
    load.start_consumers()?;
    load.start_publishers()?;
    let window = load.measure(target.pid, timing.warmup()?, timing.period()?)?;
    load.stop_publishers()?;
    load.drain();
    Ok((window, load.finish()?))
}

pub(super) fn put_rates(sample: &mut Sample, window: &Window) {
    sample.put("published_per_sec", window.sent as f64 / window.secs);
    sample.put("delivered_per_sec", window.received as f64 / window.secs);
}

/// How busy broker and load were, and the broker's memory.
pub(super) fn put_load(sample: &mut Sample, window: &Window) {
    sample.put_some("broker_cores", window.broker_cpu_secs.map(|cpu| cpu / window.secs));
    sample.put("client_cores", window.own_cpu_secs / window.secs);
    sample.put_some("broker_rss_mib", window.broker_rss_bytes.map(mib));
}

/// CPU seconds for a million; nothing where nothing was measured.
pub(super) fn per_million(cpu_secs: Option<f64>, count: u64) -> Option<f64> {
    cpu_secs.filter(|_| count > 0).map(|cpu_secs| cpu_secs * 1e6 / count as f64)
}

pub(super) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Adds the fields of `more`.
pub(super) fn merge(settings: &mut Value, more: Value) {
    if let (Some(settings), Value::Object(more)) = (settings.as_object_mut(), more) {
        settings.extend(more);
    }
}
