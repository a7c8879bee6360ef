//! Why a measurement could not be taken.

use std::io;

/// Ends a run; its text is what the user reads.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The socket or a file failed while doing `doing`.
    #[error("{doing}: {source}")]
    Io { doing: String, source: io::Error },
    /// The broker closed the connection or channel and said why.
    #[error("the broker closed the {what}: {code} {text}")]
    Closed { what: &'static str, code: u16, text: String },
    /// The broker said ERROR.
    #[error("the broker refused: {0}")]
    Refused(String),
    /// The broker did something that no client expects.
    #[error("{0}")]
    Protocol(String),
    /// The options do not go together.
    #[error("{0}")]
    Usage(String),
    /// Nothing happened for too long.
    #[error("gave up waiting for {0}")]
    Timeout(String),
}

impl Failure {
    pub(super) fn protocol(text: impl Into<String>) -> Self {
        Self::Protocol(text.into())
    }

    pub(super) fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    /// The broker has said what is wrong.
    pub(super) fn is_a_reason(&self) -> bool {
        matches!(self, Self::Closed { .. } | Self::Refused(_))
    }

    /// For `map_err`: names what was being done.
    pub(super) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing: doing.into(), source }
    }
}
