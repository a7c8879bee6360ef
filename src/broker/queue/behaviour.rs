//! What a queue can be asked to do, by its arguments or by a policy: the same words mean the same
//! in both. Which of the two holds is decided in `settings`.

/// What happens to a message that finds its queue full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// The oldest message makes room; it is dropped or dead-lettered.
    DropHead,
    /// The message is refused.
    RejectPublish,
    /// The message is refused and dead-lettered.
    RejectPublishDlx,
}

impl Overflow {
    /// The behaviour that arguments and policies call `name`.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "drop-head" => Some(Self::DropHead),
            "reject-publish" => Some(Self::RejectPublish),
            "reject-publish-dlx" => Some(Self::RejectPublishDlx),
            _ => None,
        }
    }
}

/// Among which messages deduplication looks for a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DedupScope {
    /// All of the queue.
    #[default]
    Queue,
    /// Those of the same group.
    Group,
}

impl DedupScope {
    /// The scope that properties call `name`.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "queue" => Some(Self::Queue),
            "group" => Some(Self::Group),
            _ => None,
        }
    }

    /// The name in properties.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Group => "group",
        }
    }
}

/// How safely a message moves to the dead-letter exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadLetterStrategy {
    /// It may be lost on the way.
    AtMostOnce,
    /// It stays until its target has it.
    AtLeastOnce,
}

impl DeadLetterStrategy {
    /// The strategy that arguments and policies call `name`.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "at-most-once" => Some(Self::AtMostOnce),
            "at-least-once" => Some(Self::AtLeastOnce),
            _ => None,
        }
    }
}

/// Which returned messages wait before they are ready again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DelayedRetryType {
    /// Every message that comes back.
    All,
    /// Those that count as failed.
    Failed,
    /// Those that were returned unfailed.
    Returned,
}

impl DelayedRetryType {
    /// The kind that arguments and policies call `name`; `Some(None)` is `disabled`.
    pub fn parse(name: &str) -> Option<Option<Self>> {
        match name {
            "disabled" => Some(None),
            "all" => Some(Some(Self::All)),
            "failed" => Some(Some(Self::Failed)),
            "returned" => Some(Some(Self::Returned)),
            _ => None,
        }
    }
}

/// The delay of returned messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DelayedRetry {
    /// Which returned messages wait.
    pub retry_type: DelayedRetryType,
    /// The delay after the first delivery; it grows with each further one.
    pub min_ms: Option<u64>,
    /// The delay that later ones do not exceed.
    pub max_ms: Option<u64>,
}

/// The milliseconds of an age such as `7D`, `12h` or `30s` (units Y, M, D, h, m, s); `None` for
/// anything else, zero included.
pub fn parse_age_ms(text: &str) -> Option<u64> {
    const SECOND_MS: u64 = 1000;
    const DAY_MS: u64 = 24 * 3600 * SECOND_MS;
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit_ms = match &text[digits..] {
        "Y" => 365 * DAY_MS,
        "M" => 30 * DAY_MS,
        "D" => DAY_MS,
        "h" => 3600 * SECOND_MS,
        "m" => 60 * SECOND_MS,
        "s" => SECOND_MS,
        _ => return None,
    };
    // An age beyond the end of time is the end of time.
    let digits = text[..digits].bytes().map(|digit| u64::from(digit - b'0'));
    let number = digits.fold(0_u64, |number, digit| number.saturating_mul(10).saturating_add(digit));
    (number > 0).then(|| number.saturating_mul(unit_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_a_positive_number_and_a_unit() {
        assert_eq!(parse_age_ms("7D"), Some(7 * 86_400_000));
        assert_eq!(parse_age_ms("1h"), Some(3_600_000));
        assert_eq!(parse_age_ms("2m"), Some(120_000));
        assert_eq!(parse_age_ms("1M"), Some(30 * 86_400_000));
        assert_eq!(parse_age_ms("1Y"), Some(365 * 86_400_000));
        for nonsense in ["", "s", "0s", "7", "7x", "-1s", "1.5h", "7 D", "7D ", "1ss", "٣s"] {
            assert_eq!(parse_age_ms(nonsense), None, "{nonsense}");
        }
        assert_eq!(parse_age_ms("999999999999999Y"), Some(u64::MAX));
        assert_eq!(parse_age_ms("99999999999999999999999s"), Some(u64::MAX));
    }
}
