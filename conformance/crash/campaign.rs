//! Cycles of load, crash, restart and drain, their verdicts, and the table of them.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::runtime::Runtime;

use crate::{
    aim::{Aim, Phase},
    checker::{self, Verdict},
    client::{Client, connect},
    drain,
    history::Event,
    load::{Load, Style},
    node::{Broken, Node},
    power::Disk,
    queues,
    record::Record,
    rng::Rng,
    sqs,
};

/// Settings of the broker that make frequent what is rare otherwise: new segments, checkpoints, and
/// messages that leave memory.
pub(crate) const SETTINGS: &[&str] = &[
    "store.batch_bytes_max=512KiB",
    "store.segment_bytes=3MiB",
    "store.unwritten_bytes_max=4MiB",
    "store.checkpoint_bytes=256KiB",
    "store.checkpoint_ms=50",
    "store.queue_window_bytes=64KiB",
    "store.reclaim_slack_bytes=1MiB",
];

/// One directory in so many has the default settings.
const ORDINARY_ONE_IN: u64 = 4;

/// Of the others, one in so many has the load under which messages are moved.
const SPARSE_ONE_IN: u64 = 3;

/// Cycles with fewer confirms do not count.
pub(crate) const PROMISED_MIN: usize = 1_000;

/// Confirms after which a crash may be a cycle's last: what a transaction had confirmed is counted apart.
const PROMISED_ENOUGH: usize = PROMISED_MIN + 50;

/// Cycles on one data directory: a log gets some length, and a failure a short way to it.
const CYCLES_A_DIRECTORY: u32 = 8;

/// Attempts at a cycle with enough confirms.
const ATTEMPTS_MAX: u32 = 20;

/// How long a cycle may take before it counts as stuck. Generous: machines are shared.
const CYCLE_MAX: Duration = Duration::from_secs(120);

/// Starts in a row that are cut short.
const EARLY_MAX: u32 = 3;

/// How long load goes on while there are too few confirms for a crash.
const LOAD_MAX: Duration = Duration::from_secs(8);

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) cycles: u32,
    /// Of the first directory; each further one has the next.
    pub(crate) seed: u64,
    /// Beside [`SETTINGS`], and overriding them.
    pub(crate) settings: Vec<String>,
    /// Directories at a time, each with a broker of its own.
    pub(crate) jobs: usize,
    /// Crashes are power cuts.
    pub(crate) is_power: bool,
}

/// A cycle that came to its end.
pub(crate) struct Cycle {
    pub(crate) history: Vec<Event>,
    pub(crate) verdict: Verdict,
    /// What each kill has hit.
    pub(crate) phases: Vec<Phase>,
    pub(crate) times: Times,
    pub(crate) slowest_start: Duration,
}

/// Where the time went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    pub(crate) start: Duration,
    pub(crate) load: Duration,
    /// Until the clients had noticed the crash.
    pub(crate) notice: Duration,
    pub(crate) drain: Duration,
    pub(crate) judge: Duration,
}

#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) cycles: u32,
    pub(crate) repeated: u32,
    pub(crate) crashes: usize,
    pub(crate) phases: BTreeMap<Phase, usize>,
    pub(crate) times: Times,
    pub(crate) promised: usize,
    pub(crate) unsettled: usize,
    pub(crate) delivered: usize,
    pub(crate) redelivered: usize,
    pub(crate) transient: usize,
    pub(crate) transient_vanished: usize,
    pub(crate) recovered: usize,
    pub(crate) ahead: usize,
    pub(crate) durable_settles: usize,
    pub(crate) leased: usize,
    pub(crate) leased_at_crash: usize,
    pub(crate) tx_kept: usize,
    pub(crate) tx_vanished: usize,
    pub(crate) slowest_start: Duration,
    /// One text a cycle that went wrong, which ends its directory.
    pub(crate) failures: Vec<String>,
}

/// Runs so many cycles, tells of each, and goes on with a fresh directory after a failure.
pub(crate) fn run(plan: &Plan) -> Summary {
    let (summary, seed) = (Mutex::<Summary>::default(), AtomicU64::new(plan.seed));
    let run_some = || {
        loop {
            {
                let summary = summary.lock().unwrap();
                if summary.cycles >= plan.cycles || summary.failures.len() >= FAILURES_MAX {
                    return;
                }
            }
            run_directory(plan, seed.fetch_add(1, Ordering::Relaxed), &summary);
        }
    };
    thread::scope(|scope| (0..plan.jobs.max(1)).for_each(|_| _ = scope.spawn(run_some)));
    let summary = summary.into_inner().unwrap();
    if summary.failures.len() >= FAILURES_MAX {
        println!("given up after {FAILURES_MAX} failures");
    }
    summary
}

/// A broker that fails so often needs no more cycles.
const FAILURES_MAX: usize = 5;

fn run_directory(plan: &Plan, seed: u64, summary: &Mutex<Summary>) {
    let mut rng = Rng::new(seed);
    let disk = if plan.is_power { Disk::cuttable() } else { Disk::folder() };
    let is_ordinary = seed.is_multiple_of(ORDINARY_ONE_IN);
    let special = if is_ordinary { &[] } else { SETTINGS };
    let style = match rng.is_one_in(SPARSE_ONE_IN) {
        _ if is_ordinary => Style::Plain,
        true => Style::Sparse,
        false => Style::Dense,
    };
    let settings = special.iter().copied().map(String::from).chain(plan.settings.iter().cloned());
    let mut node = Node::new(disk, settings.collect(), &mut rng);
    for cycle in 0..CYCLES_A_DIRECTORY {
        {
            let mut summary = summary.lock().unwrap();
            if summary.cycles >= plan.cycles {
                return;
            }
            summary.cycles += 1;
        }
        let begun = Instant::now();
        let result = (0..ATTEMPTS_MAX).find_map(|attempt| {
            let attempted = run_cycle(&mut node, cycle * ATTEMPTS_MAX + attempt, style, &mut rng);
            let is_short = attempted.as_ref().is_ok_and(|cycle| cycle.is_short());
            summary.lock().unwrap().repeated += u32::from(is_short);
            (!is_short).then_some(attempted)
        });
        let name = format!("seed {seed} cycle {cycle}");
        let mut history = String::new();
        let failure = match result {
            None => Some(format!("{name}: {ATTEMPTS_MAX} attempts with fewer than {PROMISED_MIN} confirms")),
            Some(Err(Broken(what))) => Some(format!("{name}: {what}")),
            Some(Ok(cycle)) => {
                println!("{name}: {} ({:.1} s)", cycle.line(), begun.elapsed().as_secs_f64());
                summary.lock().unwrap().add(&cycle);
                history = cycle.history.iter().map(|event| format!("{event:?}\n")).collect();
                cycle.failure().map(|failure| format!("{name}: {failure}"))
            }
        };
        if let Some(mut failure) = failure {
            let kept = node.keep();
            write(&kept.join("report.txt"), &failure);
            write(&kept.join("history.txt"), &history);
            let _ = write!(failure, "\nkept: {}", kept.display());
            println!("FAILED {failure}");
            summary.lock().unwrap().failures.push(failure);
            return;
        }
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

/// One cycle, on a broker that runs or not.
pub(crate) fn run_cycle(node: &mut Node, number: u32, style: Style, rng: &mut Rng) -> Result<Cycle, Broken> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let record = Arc::new(Record::new(number));
    let (mut phases, mut times) = (Vec::new(), Times::default());
    let mut slowest_start = Duration::ZERO;
    let deadline = Instant::now() + CYCLE_MAX;
    if !node.is_running() {
        slowest_start = node.start()?;
    }
    let crashes = rng.within(1..4);
    for crash in 1..=crashes {
        // The cycle is to count in the end.
        let least = if crash == crashes { PROMISED_ENOUGH.saturating_sub(record.promised()) } else { 0 };
        phases.push(crash_under_load(&runtime, node, &record, least, style, &mut times, rng)?);
        let begun = Instant::now();
        let mut early = 0;
        while rng.is_one_in(2) && early < EARLY_MAX {
            // Up to a little longer than a start takes.
            let typical = slowest_start.max(Duration::from_millis(30));
            let is_from_lock = rng.is_one_in(2);
            let share = rng.within(0..1_200) as f64 / 1_000.0;
            // Recovery comes soon after the lock.
            let share = if is_from_lock { share * share } else { share };
            phases.push(node.start_and_crash(is_from_lock, typical.mul_f64(share))?);
            early += 1;
        }
        slowest_start = slowest_start.max(node.start()?);
        times.start += begun.elapsed();
        if Instant::now() > deadline {
            return Err(Broken("the cycle takes too long".into()));
        }
    }
    let begun = Instant::now();
    let drained = runtime.block_on(async { tokio::time::timeout(CYCLE_MAX, drain::drain(node.ports, &record)).await });
    match drained {
        Err(_) => {
            return Err(Broken(format!("the queues do not run empty; the broker's last words:\n{}", node.log_tail())));
        }
        Ok(Err(error)) => return Err(Broken(format!("the drain was refused: {error}\n{}", node.log_tail()))),
        Ok(Ok(())) => {}
    }
    times.drain = begun.elapsed();
    runtime.shutdown_timeout(Duration::from_secs(1));
    // What is settled now must not be back in the next cycle, whether the broker went on or not.
    if rng.is_one_in(2) {
        node.crash()?;
    }
    let begun = Instant::now();
    let history = record.events();
    let verdict = checker::check(&queues::topology(), &history);
    times.judge = begun.elapsed();
    Ok(Cycle { history, verdict, phases, times, slowest_start })
}

fn crash_under_load(
    runtime: &Runtime,
    node: &mut Node,
    record: &Arc<Record>,
    least: usize,
    style: Style,
    times: &mut Times,
    rng: &mut Rng,
) -> Result<Phase, Broken> {
    let started = Instant::now();
    let aim = match (style, rng.within(0..6)) {
        (Style::Plain, _) => None,
        (_, 0) | (Style::Dense, 1) => Some(Aim::Commit),
        (Style::Sparse, 1 | 2) => Some(Aim::Move),
        (Style::Sparse, 3) => Some(Aim::Release),
        _ => None,
    };
    let ports = node.ports;
    let enough = record.promised() + rng.count(350..1_200).max(least);
    let lull = rng.micros(0..60_000);
    let load = runtime
        .block_on(async {
            sqs::set_up(ports.aws).await?;
            Client::open(&connect(ports.amqp).await?, record).await?.declare().await?;
            let load = Load::start(ports, record, style, rng).await?;
            let begun = Instant::now();
            // The moment of the crash is a count of confirms and some chance after it.
            while record.promised() < enough && begun.elapsed() < LOAD_MAX {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::sleep(lull).await;
            Ok::<_, lapin::Error>(load)
        })
        .map_err(|error| Broken(format!("the load was refused: {error}\n{}", node.log_tail())))?;
    let phase = node.crash_at(aim, || load.expect_crash())?;
    times.load += started.elapsed();
    let killed = Instant::now();
    let complaints = runtime.block_on(load.end());
    times.notice += killed.elapsed();
    record.note(Event::Crashed);
    if complaints.is_empty() {
        Ok(phase)
    } else {
        Err(Broken(format!("clients were refused before the crash: {complaints:?}\n{}", node.log_tail())))
    }
}

impl Cycle {
    pub(crate) fn is_short(&self) -> bool {
        self.verdict.counts.promised < PROMISED_MIN && self.verdict.violations.is_empty()
    }

    fn line(&self) -> String {
        let counts = &self.verdict.counts;
        let mut line =
            format!("{} of {} confirmed, crashes at (confirms/unsettled)", counts.promised, counts.published);
        for crash in &self.verdict.crashes {
            let _ = write!(line, " {}/{}", crash.promised, crash.unsettled);
        }
        let _ = write!(
            line,
            ", kills {}, {} delivered, {} again, {} unconfirmed, {} violations",
            self.phases.iter().map(|phase| format!("{phase:?}")).collect::<Vec<_>>().join(" "),
            counts.delivered,
            counts.redelivered,
            counts.recovered,
            self.verdict.violations.len()
        );
        line
    }

    /// The violations of each kind, and the first of them.
    fn failure(&self) -> Option<String> {
        let mut kinds = std::collections::BTreeMap::<String, Vec<String>>::new();
        for violation in &self.verdict.violations {
            let mut text = format!("{violation:?}");
            for queue in queues::all() {
                text = text.replace(&format!("{queue:?}"), queues::name(queue));
            }
            let kind = text.split(['(', ' ']).next().unwrap_or_default().to_owned();
            kinds.entry(kind).or_default().push(text);
        }
        let mut failure = String::new();
        for (kind, texts) in &kinds {
            let _ = write!(failure, "\n  {} x {kind}:", texts.len());
            texts.iter().take(5).for_each(|text| _ = write!(failure, "\n    {text}"));
        }
        (!failure.is_empty()).then_some(failure)
    }
}

impl Summary {
    fn add(&mut self, cycle: &Cycle) {
        let counts = &cycle.verdict.counts;
        self.crashes += cycle.verdict.crashes.len();
        for phase in &cycle.phases {
            *self.phases.entry(*phase).or_default() += 1;
        }
        self.times.start += cycle.times.start;
        self.times.load += cycle.times.load;
        self.times.notice += cycle.times.notice;
        self.times.drain += cycle.times.drain;
        self.times.judge += cycle.times.judge;
        self.transient += counts.transient;
        self.transient_vanished += counts.transient_vanished;
        self.promised += counts.promised;
        self.unsettled += cycle.verdict.crashes.iter().map(|crash| crash.unsettled).sum::<usize>();
        self.delivered += counts.delivered;
        self.redelivered += counts.redelivered;
        self.recovered += counts.recovered;
        self.ahead += counts.ahead;
        self.durable_settles += counts.durable_settles;
        self.leased += counts.leased;
        self.leased_at_crash += counts.leased_at_crash;
        self.tx_kept += counts.tx_kept;
        self.tx_vanished += counts.tx_vanished;
        self.slowest_start = self.slowest_start.max(cycle.slowest_start);
    }

    pub(crate) fn table(&self) -> String {
        let mut rows = vec![
            ("cycles", self.cycles as usize),
            ("repeated for want of confirms", self.repeated as usize),
            ("crashes under load", self.crashes),
            ("messages confirmed or committed", self.promised),
            ("unsettled at the crashes", self.unsettled),
            ("deliveries", self.delivered),
            ("of them redelivered", self.redelivered),
            ("said to be redelivered, never seen before", self.ahead),
            ("unconfirmed, and there", self.recovered),
            ("transient messages confirmed", self.transient),
            ("of them gone in a crash", self.transient_vanished),
            ("settles known to be durable", self.durable_settles),
            ("promises that nobody else has a message", self.leased),
            ("of them in force at a crash", self.leased_at_crash),
            ("unanswered transactions, whole", self.tx_kept),
            ("unanswered transactions, gone", self.tx_vanished),
        ];
        rows.extend(Phase::ALL.map(|(phase, name)| (name, self.phases.get(&phase).copied().unwrap_or(0))));
        let Times { start, load, notice, drain, judge } = self.times;
        rows.extend([
            ("slowest start, ms", self.slowest_start.as_millis() as usize),
            ("seconds of starts and kills in them", start.as_secs() as usize),
            ("seconds of load", load.as_secs() as usize),
            ("seconds until clients noticed a kill", notice.as_secs() as usize),
            ("seconds of draining", drain.as_secs() as usize),
            ("seconds of judging", judge.as_secs() as usize),
            ("failed cycles", self.failures.len()),
        ]);
        rows.iter().map(|(name, value)| format!("{name:45}{value:>12}\n")).collect()
    }
}
