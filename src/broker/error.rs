//! Why the broker declined a verb. A protocol turns each into its own reply.

use std::{fmt, sync::Arc};

use super::{
    exchange::{BindError, KindError},
    queue::arguments::{ArgumentError, Inequivalence},
};

/// The kinds of named things in a vhost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A queue.
    Queue,
    /// An exchange.
    Exchange,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queue => "queue",
            Self::Exchange => "exchange",
        })
    }
}

/// A declined verb; nothing was changed. The texts are those that RabbitMQ's clients parse.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such queue or exchange.
    #[error("no {kind} '{name}' in vhost '{vhost}'")]
    NotFound {
        /// What was looked for.
        kind: Kind,
        /// Its name.
        name: String,
        /// Where it was looked for.
        vhost: Arc<str>,
    },
    /// Another connection owns the queue.
    #[error(
        "cannot obtain exclusive access to locked queue '{name}' in vhost '{vhost}'. It could be originally declared on another connection or the exclusive property value does not match that of the original declaration."
    )]
    Locked {
        /// Name of the queue.
        name: String,
        /// Its vhost.
        vhost: Arc<str>,
    },
    /// A single get from a quorum queue that serves one consumer at a time.
    #[error(
        "cannot obtain access to locked queue '{name}' in vhost '{vhost}'. Single gets are not supported by quorum queues with single active consumer"
    )]
    SingleActiveGet {
        /// Name of the queue.
        name: String,
        /// Its vhost.
        vhost: Arc<str>,
    },
    /// The declaration differs from what exists.
    #[error("{0}")]
    Inequivalent(String),
    /// An argument is not valid.
    #[error("{0}")]
    Argument(String),
    /// The exchange type is unknown.
    #[error("unknown exchange type '{0}'")]
    UnknownExchangeType(String),
    /// The exchange type is no name.
    #[error("invalid exchange type '{0}'")]
    InvalidExchangeType(String),
    /// The name is reserved.
    #[error("{kind} name '{name}' contains reserved prefix 'amq.*'")]
    Reserved {
        /// Kind of thing that was to be declared.
        kind: Kind,
        /// The reserved name.
        name: String,
    },
    /// The default exchange cannot be declared, deleted or bound.
    #[error("operation not permitted on the default exchange")]
    DefaultExchange,
    /// A predeclared exchange cannot be deleted.
    #[error("deletion of system exchange '{name}' in vhost '{vhost}' not allowed")]
    SystemExchange {
        /// Name of the exchange.
        name: String,
        /// Its vhost.
        vhost: Arc<str>,
    },
    /// Deletion was asked for only if unused.
    #[error("{kind} '{name}' in vhost '{vhost}' in use")]
    InUse {
        /// Kind of thing that was to be deleted.
        kind: Kind,
        /// Its name.
        name: String,
        /// Its vhost.
        vhost: Arc<str>,
    },
    /// Deletion was asked for only if empty.
    #[error("queue '{name}' in vhost '{vhost}' not empty")]
    NotEmpty {
        /// Name of the queue.
        name: String,
        /// Its vhost.
        vhost: Arc<str>,
    },
    /// Somebody consumes exclusively, or an exclusive consumer found others.
    #[error("queue '{name}' in vhost '{vhost}' in exclusive use")]
    ExclusiveUse {
        /// Name of the queue.
        name: String,
        /// Its vhost.
        vhost: Arc<str>,
    },
    /// Queues of that type cannot do this.
    #[error("{0}")]
    NotImplemented(String),
    /// The vhost or the broker has reached a limit of its own.
    #[error("{0}")]
    LimitReached(String),
}

impl From<ArgumentError> for Error {
    fn from(error: ArgumentError) -> Self {
        Self::Argument(error.to_string())
    }
}

impl From<BindError> for Error {
    fn from(error: BindError) -> Self {
        Self::Argument(error.to_string())
    }
}

impl From<Inequivalence> for Error {
    fn from(difference: Inequivalence) -> Self {
        Self::Inequivalent(difference.to_string())
    }
}

impl From<KindError> for Error {
    fn from(error: KindError) -> Self {
        match error {
            KindError::Unknown(name) if name.is_empty() => Self::InvalidExchangeType(name),
            KindError::Unknown(name) => Self::UnknownExchangeType(name),
            other => Self::Argument(other.to_string()),
        }
    }
}
