//! Cycles of load, crash, restart and drain, their verdicts, and the table of them.

use std::{
    fmt::Write as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::runtime::Runtime;

use crate::{
    checker::{self, Verdict},
    client::{Client, connect},
    drain,
    history::Event,
    load::Load,
    node::{Broken, Node},
    power::Disk,
    queues,
    record::Record,
    rng::Rng,
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
];

/// One directory in so many has the default settings.
const ORDINARY_ONE_IN: u64 = 4;

/// Cycles with fewer confirms do not count.
pub(crate) const PROMISED_MIN: usize = 1_000;

/// Cycles on one data directory: a log gets some length, and a failure a short way to it.
const CYCLES_A_DIRECTORY: u32 = 8;

/// Attempts at a cycle with enough confirms.
const ATTEMPTS_MAX: u32 = 20;

/// How long a cycle may take before it counts as stuck. Generous: machines are shared.
const CYCLE_MAX: Duration = Duration::from_secs(120);

/// How long load goes on while there are too few confirms for a crash.
const LOAD_MAX: Duration = Duration::from_secs(8);

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) cycles: u32,
    /// Of the first directory; each further one has the next.
    pub(crate) seed: u64,
    /// Beside [`SETTINGS`], and overriding them.
    pub(crate) settings: Vec<String>,
    /// Crashes are power cuts.
    pub(crate) is_power: bool,
}

/// A cycle that came to its end.
pub(crate) struct Cycle {
    pub(crate) history: Vec<Event>,
    pub(crate) verdict: Verdict,
    /// Kills of a broker that had not finished to start.
    pub(crate) early_crashes: usize,
    pub(crate) slowest_start: Duration,
}

#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) cycles: u32,
    pub(crate) repeated: u32,
    pub(crate) crashes: usize,
    pub(crate) early_crashes: usize,
    pub(crate) promised: usize,
    pub(crate) unsettled: usize,
    pub(crate) delivered: usize,
    pub(crate) redelivered: usize,
    pub(crate) recovered: usize,
    pub(crate) ahead: usize,
    pub(crate) durable_settles: usize,
    pub(crate) tx_kept: usize,
    pub(crate) tx_vanished: usize,
    pub(crate) slowest_start: Duration,
    /// One text a cycle that went wrong, which ends its directory.
    pub(crate) failures: Vec<String>,
}

/// Runs so many cycles, tells of each, and goes on with a fresh directory after a failure.
pub(crate) fn run(plan: &Plan) -> Summary {
    let mut summary = Summary::default();
    let mut seed = plan.seed;
    while summary.cycles < plan.cycles {
        let count = CYCLES_A_DIRECTORY.min(plan.cycles - summary.cycles);
        run_directory(plan, seed, count, &mut summary);
        seed += 1;
        if summary.failures.len() >= FAILURES_MAX {
            println!("given up after {FAILURES_MAX} failures");
            break;
        }
    }
    summary
}

/// A broker that fails so often needs no more cycles.
const FAILURES_MAX: usize = 5;

fn run_directory(plan: &Plan, seed: u64, count: u32, summary: &mut Summary) {
    let mut rng = Rng::new(seed);
    let disk = if plan.is_power { Disk::cuttable() } else { Disk::folder() };
    let special = if seed.is_multiple_of(ORDINARY_ONE_IN) { &[] } else { SETTINGS };
    let settings = special.iter().copied().map(String::from).chain(plan.settings.iter().cloned());
    let mut node = Node::new(disk, settings.collect(), &mut rng);
    for cycle in 0..count {
        summary.cycles += 1;
        let begun = Instant::now();
        let result = (0..ATTEMPTS_MAX).find_map(|attempt| {
            let attempted = run_cycle(&mut node, cycle * ATTEMPTS_MAX + attempt, &mut rng);
            let is_short = attempted.as_ref().is_ok_and(|cycle| cycle.is_short());
            summary.repeated += u32::from(is_short);
            (!is_short).then_some(attempted)
        });
        let name = format!("seed {seed} cycle {cycle}");
        let mut history = String::new();
        let failure = match result {
            None => Some(format!("{name}: {ATTEMPTS_MAX} attempts with fewer than {PROMISED_MIN} confirms")),
            Some(Err(Broken(what))) => Some(format!("{name}: {what}")),
            Some(Ok(cycle)) => {
                println!("{name}: {} ({:.1} s)", cycle.line(), begun.elapsed().as_secs_f64());
                summary.add(&cycle);
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
            summary.failures.push(failure);
            return;
        }
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

/// One cycle, on a broker that runs or not.
pub(crate) fn run_cycle(node: &mut Node, number: u32, rng: &mut Rng) -> Result<Cycle, Broken> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let record = Arc::new(Record::new(number));
    let mut early_crashes = 0;
    let mut slowest_start = Duration::ZERO;
    let deadline = Instant::now() + CYCLE_MAX;
    if !node.is_running() {
        slowest_start = node.start()?;
    }
    for _ in 0..rng.within(1..4) {
        crash_under_load(&runtime, node, &record, rng)?;
        while rng.is_one_in(2) && early_crashes < 4 {
            // Up to a little longer than a start takes.
            let typical = slowest_start.max(Duration::from_millis(30));
            node.start_and_crash(typical.mul_f64(rng.within(0..1_200) as f64 / 1_000.0))?;
            early_crashes += 1;
        }
        slowest_start = slowest_start.max(node.start()?);
        if Instant::now() > deadline {
            return Err(Broken("the cycle takes too long".into()));
        }
    }
    let drained = runtime.block_on(async { tokio::time::timeout(CYCLE_MAX, drain::drain(node.port, &record)).await });
    match drained {
        Err(_) => {
            return Err(Broken(format!("the queues do not run empty; the broker's last words:\n{}", node.log_tail())));
        }
        Ok(Err(error)) => return Err(Broken(format!("the drain was refused: {error}\n{}", node.log_tail()))),
        Ok(Ok(())) => {}
    }
    runtime.shutdown_timeout(Duration::from_secs(1));
    // What is settled now must not be back in the next cycle, whether the broker went on or not.
    if rng.is_one_in(2) {
        node.crash()?;
    }
    let history = record.events();
    let verdict = checker::check(&queues::topology(), &history);
    Ok(Cycle { history, verdict, early_crashes, slowest_start })
}

fn crash_under_load(runtime: &Runtime, node: &mut Node, record: &Arc<Record>, rng: &mut Rng) -> Result<(), Broken> {
    let port = node.port;
    let enough = record.promised() + rng.count(350..2_500);
    let lull = rng.micros(0..60_000);
    let load = runtime
        .block_on(async {
            Client::open(&connect(port).await?, record).await?.declare().await?;
            let load = Load::start(port, record, rng).await?;
            let begun = Instant::now();
            // The moment of the crash is a count of confirms and some chance after it.
            while record.promised() < enough && begun.elapsed() < LOAD_MAX {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::sleep(lull).await;
            load.expect_crash();
            Ok::<_, lapin::Error>(load)
        })
        .map_err(|error| Broken(format!("the load was refused: {error}\n{}", node.log_tail())))?;
    node.crash()?;
    let complaints = runtime.block_on(load.end());
    record.note(Event::Crashed);
    if complaints.is_empty() {
        Ok(())
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
            ", {} early, {} delivered, {} again, {} unconfirmed, {} violations",
            self.early_crashes,
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
        self.early_crashes += cycle.early_crashes;
        self.promised += counts.promised;
        self.unsettled += cycle.verdict.crashes.iter().map(|crash| crash.unsettled).sum::<usize>();
        self.delivered += counts.delivered;
        self.redelivered += counts.redelivered;
        self.recovered += counts.recovered;
        self.ahead += counts.ahead;
        self.durable_settles += counts.durable_settles;
        self.tx_kept += counts.tx_kept;
        self.tx_vanished += counts.tx_vanished;
        self.slowest_start = self.slowest_start.max(cycle.slowest_start);
    }

    pub(crate) fn table(&self) -> String {
        let rows = [
            ("cycles", self.cycles as usize),
            ("repeated for want of confirms", self.repeated as usize),
            ("crashes under load", self.crashes),
            ("crashes while starting", self.early_crashes),
            ("messages confirmed or committed", self.promised),
            ("unsettled at the crashes", self.unsettled),
            ("deliveries", self.delivered),
            ("of them redelivered", self.redelivered),
            ("said to be redelivered, never seen before", self.ahead),
            ("unconfirmed, and there", self.recovered),
            ("settles known to be durable", self.durable_settles),
            ("unanswered transactions, whole", self.tx_kept),
            ("unanswered transactions, gone", self.tx_vanished),
            ("slowest start, ms", self.slowest_start.as_millis() as usize),
            ("failed cycles", self.failures.len()),
        ];
        rows.iter().map(|(name, value)| format!("{name:45}{value:>12}\n")).collect()
    }
}
