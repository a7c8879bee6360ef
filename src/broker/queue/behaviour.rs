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
