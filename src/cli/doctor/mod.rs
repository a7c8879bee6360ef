//! `tern doctor`: whether this machine and these settings are fit for a broker, and what to do if not.
//!
//! It changes nothing but for one file of a megabyte, which it writes to measure the disk and removes.
//! Exit status: 0 if nothing is bad (there may be warnings), 1 if something is.

mod disk;
mod machine;

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::{print, serve};
use crate::config;

/// Arguments of `tern doctor`.
#[derive(Debug, clap::Args)]
pub struct Doctor {
    /// The data directory, instead of the one that the settings name.
    dir: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: serve::SettingsArgs,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Ok,
    Warn,
    Bad,
}

impl Health {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    health: Health,
    /// What was looked at.
    check: &'static str,
    /// What was found.
    found: String,
    /// What to do about it; empty where nothing is to be done.
    advice: String,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { health: Health::Ok, check, found: found.into(), advice: String::new() }
    }

    fn warn(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { health: Health::Warn, check, found: found.into(), advice: advice.into() }
    }

    fn bad(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { health: Health::Bad, check, found: found.into(), advice: advice.into() }
    }
}

/// Runs `tern doctor`.
pub fn run(args: Doctor) -> ExitCode {
    let reading = config::read(&args.settings.sources());
    let mut settings = reading.settings().clone();
    if let Some(dir) = args.dir {
        settings.server.data_dir = dir;
    }
    let mut findings = Vec::new();
    for problem in reading.problems() {
        findings.push(Finding::bad("settings", problem.to_string(), "`tern config check` shows what it may be"));
    }
    for warning in settings.warnings() {
        findings.push(Finding::warn("settings", warning, "`tern config check` shows where it is set"));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("settings", "nothing is wrong with them"));
    }
    let is_running = disk::is_in_use(&settings.server.data_dir);
    findings.extend(disk::examine(&settings, is_running));
    findings.extend(machine::examine(&settings, is_running));
    print(&if args.json { json(&findings) } else { text(&findings) });
    let is_bad = findings.iter().any(|finding| finding.health == Health::Bad);
    if is_bad { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or_default();
    let mut lines = Vec::new();
    for finding in findings {
        lines.push(format!("{:<5} {:width$}  {}", finding.health.word(), finding.check, finding.found));
        if !finding.advice.is_empty() {
            lines.push(format!("{:<5} {:width$}  -> {}", "", "", finding.advice));
        }
    }
    let count = |health| findings.iter().filter(|finding| finding.health == health).count();
    lines.push(format!("{} bad, {} warnings", count(Health::Bad), count(Health::Warn)));
    lines.join("\n") + "\n"
}

fn json(findings: &[Finding]) -> String {
    let list: serde_json::Value = findings
        .iter()
        .map(|finding| {
            json!({
                "health": finding.health.word(), "check": finding.check, "found": finding.found, "do": finding.advice,
            })
        })
        .collect();
    let is_healthy = findings.iter().all(|finding| finding.health != Health::Bad);
    format!("{:#}\n", json!({ "healthy": is_healthy, "findings": list }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_is_a_line_with_what_to_do_below() {
        let findings = [Finding::ok("clock", "right"), Finding::bad("free space", "none", "make room")];
        assert_eq!(
            text(&findings),
            "ok    clock       right\nbad   free space  none\n                  -> make room\n1 bad, 0 warnings\n"
        );
    }
}
