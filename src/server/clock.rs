//! The only place that reads a clock for the broker.
//!
//! Broker time starts at the later of wall time and the last time in the log, and then follows the monotonic clock, so a stepped wall clock
//! moves no deadline.

#![expect(clippy::disallowed_methods, reason = "this is the clock")]

use std::{
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::broker::time::Time;

struct Base {
    /// Broker time at `instant`.
    ms: u64,
    instant: Instant,
}

static BASE: OnceLock<Base> = OnceLock::new();

fn base() -> &'static Base {
    BASE.get_or_init(|| base_at_least(Time::default()))
}

fn base_at_least(last: Time) -> Base {
    Base { ms: last.max(wall()).0, instant: Instant::now() }
}

/// What the machine's clock says, for whoever cannot know yet when broker time begins.
pub fn wall() -> Time {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(wall.as_millis() as u64)
}

/// Has broker time begin no earlier than the last time in the log. Called before anybody asks for the
/// time; later it does nothing.
pub fn start_after(last: Time) {
    let base = BASE.get_or_init(|| base_at_least(last));
    if base.ms < last.0 {
        tracing::warn!("the clock is behind the log: what was to happen at a certain time happens later");
    }
}

/// The time now.
pub fn now() -> Time {
    let base = base();
    Time(base.ms + base.instant.elapsed().as_millis() as u64)
}

/// The runtime's instant at which broker time is at least `time`; `None` for one that never comes.
pub fn instant_at(time: Time) -> Option<tokio::time::Instant> {
    let base = base();
    // Rounded up: a timer that fires early would find nothing due.
    let since = Duration::from_millis(time.0.saturating_sub(base.ms)) + Duration::from_millis(1);
    base.instant.checked_add(since.min(FAR)).filter(|_| time != Time::NEVER).map(tokio::time::Instant::from_std)
}

/// Farther than anybody waits.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
