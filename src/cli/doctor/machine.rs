//! The machine around the broker: open files, memory, the clock, and the ports.

use std::io;
use std::net::TcpListener;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};

use super::Finding;
use crate::config::Settings;
use crate::server::{limits, options::Listener};
use crate::store::disk::RealDisk;
use crate::store::survey::{LOG_FOLDER, last_time_ms};

/// Fewer open files than this do not even do for a small broker.
const FILES_MIN: u64 = 1024;
/// Each connection is one.
const FILES_FEW: u64 = 65_536;
/// Less memory than this leaves little beside the broker itself.
const MEMORY_FEW_BYTES: u64 = 512 << 20;
/// 2024-01-01: no clock is right that is before it.
const EARLIEST_MS: u64 = 1_704_067_200_000;
/// The broker's clock never runs backwards, so it may be a little ahead of a clock that was set back.
const AHEAD_MS: u64 = 5_000;

/// Looks at the machine.
#[allow(clippy::disallowed_methods, reason = "the clock itself is looked at")]
pub(super) fn examine(settings: &Settings, is_running: bool) -> Vec<Finding> {
    let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let written = last_time_ms(&RealDisk, &settings.server.data_dir.join(LOG_FOLDER));
    let mut findings = vec![open_files(hard), memory(limits::memory_total_bytes()), clock(now, written)];
    let listeners = settings.server.listeners();
    if listeners.is_empty() {
        findings.push(Finding::warn(
            "ports",
            "nothing listens: every protocol's listeners are empty",
            "set one of them",
        ));
    }
    for listener in listeners {
        let bound = TcpListener::bind(listener.addr).map(|_| ());
        findings.extend(port(listener, is_running, bound));
    }
    findings
}

fn open_files(hard: u64) -> Finding {
    let check = "open files";
    let found = if hard == u64::MAX { "no limit".into() } else { format!("at most {hard}") };
    let advice = "raise it: LimitNOFILE= of the service, or `ulimit -Hn`; each connection is an open file";
    match hard {
        0..FILES_MIN => Finding::bad(check, found, advice),
        FILES_MIN..FILES_FEW => Finding::warn(check, found, advice),
        _ => Finding::ok(check, found),
    }
}

fn memory(total: Option<u64>) -> Finding {
    let check = "memory";
    match total {
        None => Finding::warn(check, "neither /proc nor the control group says how much there is", "mount /proc"),
        Some(total) if total < MEMORY_FEW_BYTES => {
            let found = format!("{} MiB (of the machine, or its control group)", total >> 20);
            Finding::warn(check, found, "give it more, or expect publishers to be stopped early")
        }
        Some(total) => Finding::ok(check, format!("{} MiB (of the machine, or its control group)", total >> 20)),
    }
}

fn clock(now_ms: u64, written_ms: Option<u64>) -> Finding {
    let check = "clock";
    let advice = "set it (chrony, systemd-timesyncd): deadlines of messages are times";
    if now_ms < EARLIEST_MS {
        return Finding::bad(check, "it is before 2024, so it was never set", advice);
    }
    match written_ms {
        Some(written) if written > now_ms + AHEAD_MS => {
            let secs = (written - now_ms) / 1000;
            Finding::warn(check, format!("{secs} s behind what the log was written at"), advice)
        }
        _ => Finding::ok(check, "plausible, and not behind the log"),
    }
}

/// `None`: a second loopback address that this machine does not have, which the broker does without.
fn port(listener: Listener, is_running: bool, bound: io::Result<()>) -> Option<Finding> {
    let check = "ports";
    let Listener { protocol, addr, is_required, is_default } = listener;
    let name = protocol.section();
    Some(match bound {
        Ok(()) => Finding::ok(check, format!("{addr} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_running => {
            Finding::ok(check, format!("{addr} is taken, as by the broker that is running on the data directory"))
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let advice = format!("`ss -tlnp` shows by whom; stop it, or set {name}.port or {name}.listeners");
            match is_default {
                true => Finding::warn(check, format!("{addr} is taken by another process: {name} will be off"), advice),
                false => Finding::bad(check, format!("{addr} is taken by another process"), advice),
            }
        }
        Err(_) if !is_required => return None,
        Err(error) => {
            let advice = format!("set server.bind, {name}.port or {name}.listeners");
            Finding::bad(check, format!("{addr}: {error}"), advice)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::Health;
    use super::*;
    use crate::protocol::stomp::options::Dialect;
    use crate::server::Protocol;

    #[test]
    fn few_open_files_are_a_warning_and_fewer_are_bad() {
        assert_eq!([1023, 4096, 1 << 20].map(|hard| open_files(hard).health), [Health::Bad, Health::Warn, Health::Ok]);
    }

    #[test]
    fn a_clock_behind_the_log_is_noticed() {
        let now = EARLIEST_MS + 1_000_000;
        assert_eq!(clock(0, None).health, Health::Bad);
        assert_eq!(clock(now, Some(now + 60_000)).health, Health::Warn);
        assert_eq!(clock(now, Some(now + 1_000)).health, Health::Ok);
    }

    #[test]
    fn a_taken_port_is_bad_unless_our_own_broker_has_it() {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = holder.local_addr().unwrap();
        let listener =
            Listener { protocol: Protocol::Stomp(Dialect::Rabbitmq), addr, is_required: true, is_default: false };
        let health = |listener, is_running| {
            port(listener, is_running, TcpListener::bind(addr).map(|_| ())).map(|finding| finding.health)
        };
        assert_eq!((health(listener, false), health(listener, true)), (Some(Health::Bad), Some(Health::Ok)));
        let by_default = Listener { is_default: true, ..listener };
        assert_eq!(health(by_default, false), Some(Health::Warn));
        let second = Listener { is_required: false, ..listener };
        let none = port(second, false, Err(io::ErrorKind::AddrNotAvailable.into()));
        assert_eq!(none, None);
    }
}
