//! When a delivery over HTTP that failed is tried again: the phases of a delivery policy.
//!
//! ```text
//! immediate            before backing off     backing off              after backing off
//! numNoDelayRetries    numMinDelayRetries     whatever is left         numMaxDelayRetries
//! at once              minDelayTarget         from min to max          maxDelayTarget
//! ```
//!
//! How the delay grows while backing off is said only by the name of a function; what is meant by each is here.

use serde_json::Value as Json;

/// Retries and their delays.
#[derive(Clone, Debug, PartialEq)]
pub struct Retries {
    count: u32,
    at_once: u32,
    at_min: u32,
    at_max: u32,
    min_ms: u64,
    max_ms: u64,
    backoff: Backoff,
}

/// How delays grow from the least to the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backoff {
    /// By the same step each time.
    Linear,
    /// By steps that grow by the same amount.
    Arithmetic,
    /// By the same factor each time.
    Geometric,
    /// By steps that double.
    Exponential,
}

/// Retries that a policy may ask for, and the seconds of a delay: what the service allows.
const COUNT_MAX: u64 = 100;
const DELAY_SECS_MAX: u64 = 3_600;

impl Retries {
    /// Reads a healthy retry policy in which nothing is missing; what is not sound is taken for the nearest that is.
    pub fn new(policy: &Json) -> Self {
        let number = |name: &str, otherwise: u64, max: u64| {
            policy
                .get(name)
                .and_then(|value| value.as_u64().or_else(|| value.as_f64().map(|value| value as u64)))
                .unwrap_or(otherwise)
                .min(max)
        };
        let count = number("numRetries", 3, COUNT_MAX) as u32;
        let mut left = count;
        let mut part = |name: &str| {
            let part = (number(name, 0, COUNT_MAX) as u32).min(left);
            left -= part;
            part
        };
        let (at_once, at_min, at_max) =
            (part("numNoDelayRetries"), part("numMinDelayRetries"), part("numMaxDelayRetries"));
        let min_ms = number("minDelayTarget", 20, DELAY_SECS_MAX) * 1000;
        let max_ms = (number("maxDelayTarget", 20, DELAY_SECS_MAX) * 1000).max(min_ms);
        let backoff = match policy.get("backoffFunction").and_then(Json::as_str) {
            Some("arithmetic") => Backoff::Arithmetic,
            Some("geometric") => Backoff::Geometric,
            Some("exponential") => Backoff::Exponential,
            _ => Backoff::Linear,
        };
        Self { count, at_once, at_min, at_max, min_ms, max_ms, backoff }
    }

    /// The same retries, with delays between these.
    pub fn between(self, min_ms: u64, max_ms: u64) -> Self {
        Self { min_ms, max_ms: max_ms.max(min_ms), ..self }
    }

    /// Milliseconds until the retry with this number, from one; `None` when there is no such retry.
    pub fn delay_ms(&self, retry: u32) -> Option<u64> {
        if retry == 0 || retry > self.count {
            return None;
        }
        if retry <= self.at_once {
            return Some(0);
        }
        if retry <= self.at_once + self.at_min {
            return Some(self.min_ms);
        }
        if retry > self.count - self.at_max {
            return Some(self.max_ms);
        }
        let steps = f64::from(self.count - self.at_once - self.at_min - self.at_max);
        let step = f64::from(retry - self.at_once - self.at_min);
        let (min, max) = (self.min_ms as f64, self.max_ms as f64);
        let delay = match self.backoff {
            // A factor leads nowhere from nothing.
            Backoff::Geometric if self.min_ms > 0 => min * (max / min).powf(step / steps),
            Backoff::Linear | Backoff::Geometric => min + (max - min) * step / steps,
            Backoff::Arithmetic => min + (max - min) * step * (step + 1.0) / (steps * (steps + 1.0)),
            Backoff::Exponential => min + (max - min) * (step.exp2() - 1.0) / (steps.exp2() - 1.0),
        };
        Some((delay.round() as u64).clamp(self.min_ms, self.max_ms))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn delays(policy: &Json) -> Vec<u64> {
        let retries = Retries::new(policy);
        (1..).map_while(|retry| retries.delay_ms(retry)).collect()
    }

    #[test]
    fn the_default_is_three_retries_of_twenty_seconds() {
        assert_eq!(delays(&json!({})), [20_000; 3]);
    }

    #[test]
    fn phases_follow_each_other() {
        let policy = json!({
            "numRetries": 9, "numNoDelayRetries": 2, "numMinDelayRetries": 2, "numMaxDelayRetries": 2,
            "minDelayTarget": 1, "maxDelayTarget": 4, "backoffFunction": "linear",
        });
        assert_eq!(delays(&policy), [0, 0, 1000, 1000, 2000, 3000, 4000, 4000, 4000]);
    }

    #[test]
    fn each_function_rises_from_the_least_to_the_greatest_delay() {
        let policy = |function: &str| {
            delays(&json!({"numRetries": 4, "minDelayTarget": 1, "maxDelayTarget": 16, "backoffFunction": function}))
        };
        assert_eq!(policy("linear"), [4750, 8500, 12_250, 16_000]);
        assert_eq!(policy("arithmetic"), [2500, 5500, 10_000, 16_000]);
        assert_eq!(policy("geometric"), [2000, 4000, 8000, 16_000]);
        assert_eq!(policy("exponential"), [2000, 4000, 8000, 16_000]);
    }

    #[test]
    fn what_is_not_sound_is_bounded() {
        let policy =
            json!({"numRetries": 1_000_000, "numNoDelayRetries": 500, "minDelayTarget": 9, "maxDelayTarget": 1});
        assert_eq!(delays(&policy), [0; 100]);
        let policy =
            json!({"numRetries": 1, "minDelayTarget": 0, "maxDelayTarget": 1e9, "backoffFunction": "geometric"});
        assert_eq!(delays(&policy), [3_600_000]);
        assert!(delays(&json!({"numRetries": 0})).is_empty());
    }
}
