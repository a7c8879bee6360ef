//! How much of the time the consumers of a queue could take a message at once.
//!
//! An average that forgets half of what it knew in a second, as RabbitMQ's `consumer_capacity`.

use crate::broker::time::Time;

/// See the module's text.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Messages wait and nobody can take one.
    is_blocked: bool,
    /// When that began, or ended.
    since: Time,
    /// Milliseconds before that in which consumers could take messages; counts while blocked.
    open_ms: u64,
    average: Option<f64>,
}

impl Usage {
    /// Of a queue that is made now.
    pub fn new(now: Time) -> Self {
        Self { is_blocked: false, since: now, open_ms: 0, average: None }
    }

    /// Notes whether messages wait that nobody can take.
    #[inline]
    pub fn observe(&mut self, is_blocked: bool, now: Time) {
        if is_blocked != self.is_blocked {
            self.turn(now);
        }
    }

    #[cold]
    fn turn(&mut self, now: Time) {
        let passed_ms = now.ms_since(self.since);
        if self.is_blocked {
            self.average = averaged(self.open_ms, passed_ms, self.average);
        } else {
            self.open_ms = passed_ms;
        }
        self.is_blocked = !self.is_blocked;
        self.since = now;
    }

    /// The share of the time until now, from 0 to 1.
    pub fn share(&self, now: Time) -> f64 {
        let passed_ms = now.ms_since(self.since);
        let (open_ms, blocked_ms) = if self.is_blocked { (self.open_ms, passed_ms) } else { (passed_ms, 0) };
        averaged(open_ms, blocked_ms, self.average).unwrap_or(if self.is_blocked { 0.0 } else { 1.0 })
    }
}

fn averaged(open_ms: u64, blocked_ms: u64, before: Option<f64>) -> Option<f64> {
    let total_ms = open_ms + blocked_ms;
    if total_ms == 0 {
        return before;
    }
    let share = open_ms as f64 / total_ms as f64;
    let Some(before) = before else { return Some(share) };
    let kept = 0.5_f64.powf(total_ms as f64 / HALF_LIFE_MS);
    Some(share * (1.0 - kept) + before * kept)
}

const HALF_LIFE_MS: f64 = 1000.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consumers_that_are_never_blocked_have_all_of_it() {
        let usage = Usage::new(Time(0));
        assert!((usage.share(Time(0)) - 1.0).abs() < 1e-9 && (usage.share(Time(5_000)) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn the_share_is_that_of_the_last_time() {
        let mut usage = Usage::new(Time(0));
        usage.observe(true, Time(300));
        assert!((usage.share(Time(1_000)) - 0.3).abs() < 1e-9);
        usage.observe(false, Time(1_000));
        // A second later half of the average is the last second.
        assert!((usage.share(Time(2_000)) - 0.65).abs() < 1e-9);
        assert!(usage.share(Time(20_000)) > 0.99);
    }

    #[test]
    fn consumers_that_stay_blocked_end_at_nothing() {
        let mut usage = Usage::new(Time(0));
        usage.observe(true, Time(0));
        assert!(usage.share(Time(0)) < 1e-9 && usage.share(Time(60_000)) < 1e-9);
    }
}
