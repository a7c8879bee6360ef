//! Runs a scenario several times, on the target and where asked on a null broker, and reports.

use super::{
    failure::Failure,
    null_log,
    null_process::NullProcess,
    report::{Report, Sample, Series},
    url::{Protocol, Url},
};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Duration,
};

/// What every scenario takes.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Common {
    /// The broker: amqp://user:password@host:port/vhost, or stomp://... [default: one on this machine]
    #[arg(long)]
    pub(super) url: Option<Url>,
    /// The broker's process, for CPU seconds and memory from /proc
    #[arg(long)]
    pub(super) pid: Option<u32>,
    /// Print JSON rather than a table
    #[arg(long)]
    pub(super) json: bool,
    /// How often to measure; the median is reported
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) runs: u32,
}

/// What scenarios with a steady window take.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Timing {
    /// Seconds to measure
    #[arg(long, default_value_t = 10.0)]
    pub(super) seconds: f64,
    /// Seconds before measuring
    #[arg(long, default_value_t = 3.0)]
    pub(super) warmup: f64,
}

impl Timing {
    pub(super) fn warmup(&self) -> Result<Duration, Failure> {
        duration(self.warmup)
    }

    pub(super) fn period(&self) -> Result<Duration, Failure> {
        duration(self.seconds)
    }
}

fn duration(secs: f64) -> Result<Duration, Failure> {
    Duration::try_from_secs_f64(secs).map_err(|_| Failure::usage(format!("{secs} is not a number of seconds")))
}

/// What scenarios take that can speak more than AMQP.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ProtocolOption {
    /// What publishers and consumers speak [default: what --url says, or AMQP]
    #[arg(long, value_enum)]
    pub(super) protocol: Option<Protocol>,
}

/// What scenarios that hold something idle take.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Holding {
    /// Seconds to hold them before memory is read
    #[arg(long = "hold", default_value_t = 2.0)]
    pub(super) secs: f64,
}

impl Holding {
    pub(super) fn wait(&self) {
        thread::sleep(Duration::try_from_secs_f64(self.secs).unwrap_or_default());
    }
}

/// What scenarios that a null broker can serve take.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Compared {
    #[command(flatten)]
    common: Common,
    /// Measure a null broker in turn with the target, or alone: the limit of this machine
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "with")]
    null: Option<WhichNull>,
    /// With --null and durable messages: where the null broker's file goes, which is removed at the
    /// end [default: a temporary directory on a disk]
    #[arg(long, requires = "null")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum WhichNull {
    /// The null broker and the target, run by run
    With,
    /// The null broker alone
    Only,
}

/// The broker of one run.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) url: Url,
    pub(super) pid: Option<u32>,
}

/// Something to measure.
pub(super) trait Scenario {
    const NAME: &'static str;

    /// The settings that a reader needs to compare figures.
    fn settings(&self) -> Value;

    /// Whether messages are to outlive the broker, so that a null broker has to sync them.
    fn is_durable(&self) -> bool {
        false
    }

    /// What it is to speak, where that was said; `None` for what the address says.
    fn protocol(&self) -> Option<Protocol> {
        Some(Protocol::Amqp)
    }

    /// One complete run, on fresh connections.
    fn run_once(&self, target: &Target) -> Result<Sample, Failure>;
}

impl Common {
    /// Measures the target alone.
    pub(super) fn drive(&self, scenario: &impl Scenario) -> ExitCode {
        drive(scenario, self, None, None)
    }
}

impl Compared {
    /// Measures the target, the null broker or both, as asked.
    pub(super) fn drive(&self, scenario: &impl Scenario) -> ExitCode {
        drive(scenario, &self.common, self.null, self.dir.as_deref())
    }
}

/// Measures, prints, and tells whether all was well: 0, or 1 when messages were lost, repeated,
/// reordered or damaged, or 2 when nothing could be measured.
fn drive<S: Scenario>(scenario: &S, common: &Common, null: Option<WhichNull>, dir: Option<&Path>) -> ExitCode {
    match measure(scenario, common, null, dir) {
        Ok(report) => {
            if common.json {
                println!("{:#}", report.json());
            } else {
                print!("{}", report.table());
            }
            ExitCode::from(u8::from(report.has_problems()))
        }
        Err(failure) => {
            eprintln!("tern bench {}: {failure}", S::NAME);
            ExitCode::from(2)
        }
    }
}

/// The broker's address: as given, if that goes with what is to be spoken.
fn address(wanted: Option<Protocol>, given: Option<&Url>) -> Result<Url, Failure> {
    match given {
        None => Ok(Url::local(wanted.unwrap_or(Protocol::Amqp))),
        Some(url) if wanted.is_none_or(|wanted| wanted == url.protocol) => Ok(url.clone()),
        Some(url) => Err(Failure::usage(format!("{url} is of another protocol than what is measured"))),
    }
}

fn measure<S: Scenario>(
    scenario: &S,
    common: &Common,
    null: Option<WhichNull>,
    dir: Option<&Path>,
) -> Result<Report, Failure> {
    let url = address(scenario.protocol(), common.url.as_ref())?;
    if null.is_some() && url.protocol != Protocol::Amqp {
        return Err(Failure::usage("the null broker speaks AMQP alone"));
    }
    let log_dir = scenario.is_durable().then(|| null_log::directory(dir)).transpose()?;
    let mut report = Report {
        scenario: S::NAME,
        settings: scenario.settings(),
        url: url.to_string(),
        target: Series::default(),
        null: Series::default(),
    };
    let target = Target { url, pid: common.pid };
    for _ in 0..common.runs {
        // In turn, so that a slow minute of the machine strikes both.
        if null.is_some() {
            let process = NullProcess::start(log_dir.as_deref())?;
            report.null.push(scenario.run_once(&process.target())?);
        }
        if null != Some(WhichNull::Only) {
            report.target.push(scenario.run_once(&target)?);
        }
    }
    Ok(report)
}
