//! Watches the memory of this process and the free disk space, puts the alarms on and off, and gives
//! memory back that a burst has left behind.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::{
    clock,
    limits::{self, MemoryMeter},
};
use crate::{
    broker::{Broker, options::MemoryShare},
    store::Log,
};

/// How often memory is measured.
const MEMORY_INTERVAL: Duration = Duration::from_millis(250);
/// Rounds between two looks at the disk.
const DISK_ROUNDS: u32 = 20;

/// Watches until it is aborted.
pub async fn run(broker: Arc<Broker>, log: Arc<Log>, data_dir: PathBuf) {
    let total = limits::memory_total_bytes();
    let meter = match MemoryMeter::open() {
        Ok(meter) => meter,
        Err(error) => return tracing::warn!(%error, "memory cannot be measured: there will be no memory alarm"),
    };
    let mut interval = tokio::time::interval(MEMORY_INTERVAL);
    let mut round = 0_u32;
    let (mut is_disk_short, mut was_disk_short) = (false, false);
    let mut left_over = LeftOver::default();
    loop {
        interval.tick().await;
        log.set_time(clock::now().0);
        if round.is_multiple_of(DISK_ROUNDS) {
            let limit = bytes_of(broker.disk_free_limit(), total);
            match limits::disk_free_bytes(&data_dir) {
                Ok(free) => is_disk_short = free < limit,
                Err(error) => tracing::warn!(%error, "free disk space cannot be measured"),
            }
        }
        round = round.wrapping_add(1);
        let limit = bytes_of(broker.memory_high_watermark(), total);
        let resident = meter.resident_bytes().unwrap_or(0);
        let was_memory_short = broker.alarms().0;
        // Off only somewhat below the limit: publishers are not to be stopped and let go with every
        // other measurement.
        let limit = if was_memory_short { limit - limit / RELEASE_SHARE } else { limit };
        let mut is_memory_short = resident > limit;
        if was_memory_short && is_memory_short && round.is_multiple_of(TRIM_ROUNDS) {
            // Freed messages leave holes that the allocator keeps; without this the alarm would
            // outlast the backlog that raised it.
            trim();
            is_memory_short = meter.resident_bytes().unwrap_or(0) > limit;
        }
        if left_over.is_due(limits::cpu_time()) {
            trim();
        }
        if is_memory_short != was_memory_short {
            tracing::warn!(resident, limit, "memory alarm {}", if is_memory_short { "on" } else { "off" });
        }
        if is_disk_short != std::mem::replace(&mut was_disk_short, is_disk_short) {
            tracing::warn!("disk alarm {}", if is_disk_short { "on" } else { "off" });
        }
        broker.set_alarms(is_memory_short, is_disk_short);
    }
}

/// The part of the limit by which memory must fall below it before the alarm ends.
const RELEASE_SHARE: u64 = 50;
/// Rounds between two requests to give freed memory back.
const TRIM_ROUNDS: u32 = 2;

/// When to give back memory that was freed after a burst: once there is little to do. A busy broker
/// is about to need it again, and faulting it in costs more than it saves.
#[derive(Default)]
struct LeftOver {
    /// CPU time used up to the last round.
    cpu: Duration,
    /// CPU time used up to the last trim.
    cpu_at_trim: Duration,
    /// Rounds in a row with little to do.
    quiet_rounds: u32,
}

impl LeftOver {
    /// Whether to trim now. Asked once a round with the CPU time of the whole process.
    fn is_due(&mut self, cpu: Duration) -> bool {
        let is_quiet = cpu.saturating_sub(std::mem::replace(&mut self.cpu, cpu)) < MEMORY_INTERVAL / QUIET_SHARE;
        self.quiet_rounds = if is_quiet { self.quiet_rounds.saturating_add(1) } else { 0 };
        let is_due = self.quiet_rounds == QUIET_ROUNDS && cpu.saturating_sub(self.cpu_at_trim) > WORTH_A_TRIM;
        if is_due {
            self.cpu_at_trim = cpu;
        }
        is_due
    }
}

/// The part of one core below which a round counts as quiet.
const QUIET_SHARE: u32 = 10;
/// Quiet rounds in a row before memory is given back.
const QUIET_ROUNDS: u32 = 8;
/// CPU time since the last trim from which another may find something.
const WORTH_A_TRIM: Duration = Duration::from_millis(50);

/// Gives freed memory back to the system.
fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim may be called at any time from any thread; it takes the allocator's own
    // locks. Measured: after a backlog of 1 GiB was consumed, the resident size stayed above
    // 0.9 GiB without it and fell below 50 MiB with it.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn bytes_of(share: MemoryShare, total: Option<u64>) -> u64 {
    match share {
        MemoryShare::Bytes(bytes) => bytes,
        MemoryShare::Relative(factor) => total.map_or(u64::MAX, |total| (total as f64 * factor) as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_after_every_burst() {
        let mut left_over = LeftOver::default();
        let mut cpu = Duration::ZERO;
        for _ in 0..3 {
            for _ in 0..20 {
                cpu += MEMORY_INTERVAL / 2;
                assert!(!left_over.is_due(cpu), "busy");
            }
            let trims = (0..100).filter(|_| left_over.is_due(cpu)).count();
            assert_eq!(trims, 1);
        }
    }

    #[test]
    fn an_idle_broker_is_left_alone() {
        let mut left_over = LeftOver::default();
        assert_eq!((0..50_000_u32).filter(|round| left_over.is_due(Duration::from_nanos(100) * *round)).count(), 0);
    }
}
