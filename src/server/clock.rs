//! The only place that reads a clock for the broker.
//!
//! Broker time starts at wall time and then follows the monotonic clock, so a stepped wall clock
//! moves no deadline.

#![expect(clippy::disallowed_methods, reason = "this is the clock")]

use std::{
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::broker::time::Time;

struct Base {
    wall_ms: u64,
    instant: Instant,
}

static BASE: OnceLock<Base> = OnceLock::new();

fn base() -> &'static Base {
    BASE.get_or_init(|| {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Base { wall_ms: wall.as_millis() as u64, instant: Instant::now() }
    })
}

/// The time now.
pub fn now() -> Time {
    let base = base();
    Time(base.wall_ms + base.instant.elapsed().as_millis() as u64)
}

/// The runtime's instant at which broker time is at least `time`; `None` for one that never comes.
pub fn instant_at(time: Time) -> Option<tokio::time::Instant> {
    let base = base();
    // Rounded up: a timer that fires early would find nothing due.
    let since = Duration::from_millis(time.0.saturating_sub(base.wall_ms)) + Duration::from_millis(1);
    base.instant.checked_add(since.min(FAR)).filter(|_| time != Time::NEVER).map(tokio::time::Instant::from_std)
}

/// Farther than anybody waits.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
