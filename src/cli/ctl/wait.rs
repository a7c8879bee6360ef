//! Waiting until a broker has started, with or without an eye on its process.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use super::call::{Connection, Error};
use super::verb::Process;
use crate::admin::failure::{EXIT_UNAVAILABLE, Failure, Kind};

/// What is waited for, and how long.
pub(super) struct Wait<'a> {
    pub(super) socket: &'a Path,
    pub(super) node: String,
    /// `None`: the default of the kind of waiting.
    pub(super) timeout_ms: Option<u64>,
    pub(super) is_quiet: bool,
}

impl Wait<'_> {
    /// Waits until the broker is started. Without a process, a broker that is stopped or not there
    /// at the end is the failure; with one, its death is.
    pub(super) fn started(self, process: Option<Process>, out: &mut dyn Write) -> Result<(), Error> {
        let mut left_ms = self.timeout_ms.unwrap_or(if process.is_some() { 10_000 } else { 300_000 });
        let pid = match process {
            None => None,
            Some(Process::Id(pid)) => Some(pid),
            Some(Process::File(file)) => {
                self.say(out, &format!("Waiting for pid file '{file}' to appear"))?;
                let pid = loop {
                    let pid = std::fs::read_to_string(&file).map(|text| text.trim().to_owned()).unwrap_or_default();
                    if !pid.is_empty() {
                        break pid;
                    }
                    pause(&mut left_ms)?;
                };
                self.say(out, &format!("pid is {pid}"))?;
                Some(pid)
            }
        };
        let node = &self.node;
        if let Some(pid) = &pid {
            self.say(
                out,
                &format!("Waiting for erlang distribution on node '{node}' while OS process '{pid}' is running"),
            )?;
        }
        let mut is_there = false;
        loop {
            let gone = || Error::Declined(Failure::new(Kind::Internal, "process_not_running", EXIT_UNAVAILABLE));
            // Another broker may be found in its place.
            if pid.as_ref().is_some_and(|pid| !is_alive(pid)) {
                return Err(gone());
            }
            let found = Connection::open(self.socket, Some(left_ms.max(1))).and_then(|mut broker| broker.ping());
            if found.is_ok() && !is_there && pid.is_some() {
                self.say(out, &format!("Waiting for applications 'rabbit_and_plugins' to start on node '{node}'"))?;
            }
            is_there |= found.is_ok();
            match (found, &pid) {
                (Ok(pong), _) if pong.running => break,
                (_, Some(pid)) if !is_alive(pid) => return Err(gone()),
                (Ok(_), None) if left_ms == 0 => {
                    let failure = Failure::new(Kind::AppStopped, "rabbit_is_not_running", EXIT_UNAVAILABLE);
                    return Err(Error::Declined(failure));
                }
                (Err(error), None) if left_ms == 0 => return Err(error),
                _ => {}
            }
            // Without a process, the last look tells which failure it is.
            if let (Err(error), Some(_)) = (pause(&mut left_ms), &pid) {
                return Err(error);
            }
        }
        if pid.is_some() {
            self.say(out, &format!("Applications 'rabbit_and_plugins' are running on node '{node}'"))?;
        }
        Ok(())
    }

    fn say(&self, out: &mut dyn Write, text: &str) -> Result<(), Error> {
        let mut said = || -> io::Result<()> {
            writeln!(out, "{text}")?;
            out.flush()
        };
        if self.is_quiet { Ok(()) } else { said().map_err(|_| Error::Output) }
    }
}

/// Waits until a process is gone: a minute, unless said otherwise.
pub(super) fn ended(pid: &str, timeout_ms: Option<u64>) -> Result<(), Error> {
    let mut left_ms = timeout_ms.unwrap_or(60_000);
    while is_alive(pid) {
        pause(&mut left_ms)?;
    }
    Ok(())
}

fn pause(left_ms: &mut u64) -> Result<(), Error> {
    if *left_ms == 0 {
        return Err(Error::Timeout);
    }
    // Time asleep is what is counted, so that no clock is read.
    let pause_ms = PAUSE_MS.min(*left_ms);
    std::thread::sleep(Duration::from_millis(pause_ms));
    *left_ms -= pause_ms;
    Ok(())
}

const PAUSE_MS: u64 = 50;

fn is_alive(pid: &str) -> bool {
    let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw);
    match pid.map(rustix::process::test_kill_process) {
        Some(Ok(())) => true,
        Some(Err(error)) => error == rustix::io::Errno::PERM,
        None => false,
    }
}
