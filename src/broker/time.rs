//! Broker time: milliseconds since the Unix epoch that never run backwards.
//!
//! The core never reads a clock; whoever calls it passes the time in.

/// A moment on the broker's clock, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// Later than every real moment: a deadline that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// This moment plus `ms`; beyond the end of time it stays [`Time::NEVER`].
    #[must_use]
    pub fn after_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this moment, zero when it is not earlier.
    pub fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whole seconds since the Unix epoch.
    pub fn secs(self) -> u64 {
        self.0 / 1000
    }
}
