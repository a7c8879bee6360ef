//! The declared arguments of a queue: their validation, their typed form, and redeclaration.
//!
//! Knows no policy and no existing queue but the one that a redeclaration names. Error texts are
//! RabbitMQ's, because clients parse them; the order of checks is RabbitMQ's too, so that of two
//! mistakes the same one is reported.
//!
//! Two deliberate differences: an argument that RabbitMQ keeps to classic or to quorum queues is
//! honoured on both, and where RabbitMQ 3.10 crashes on a value, the value is refused by name.

use std::{borrow::Cow, fmt, sync::Arc};

use super::behaviour::{DeadLetterStrategy, DedupScope, DelayedRetry, DelayedRetryType, Overflow, parse_age_ms};
use crate::broker::{
    selector::{Conversion, Selector},
    term::{Bare, Characters},
    value::{Table, Value},
};

/// How a queue keeps its messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum QueueType {
    /// Any durability, any owner.
    #[default]
    Classic,
    /// Always durable and shared.
    Quorum,
    /// Always durable and shared; consuming does not remove.
    Stream,
}

impl QueueType {
    /// The type that a declaration calls `name`.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "classic" => Some(Self::Classic),
            "quorum" => Some(Self::Quorum),
            "stream" => Some(Self::Stream),
            _ => None,
        }
    }

    /// The name in declarations and listings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
            Self::Stream => "stream",
        }
    }

    /// The name that RabbitMQ's error texts use.
    pub fn module_name(self) -> &'static str {
        match self {
            Self::Classic => "rabbit_classic_queue",
            Self::Quorum => "rabbit_quorum_queue",
            Self::Stream => "rabbit_stream_queue",
        }
    }

    /// Whether a vhost's default type may be given to a queue with these properties.
    fn suits(self, declaration: &Declaration<'_>) -> bool {
        self == Self::Classic || (declaration.durable && !declaration.exclusive && !declaration.auto_delete)
    }
}

/// Message deduplication as LavinMQ's arguments ask for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DedupArguments {
    /// Most keys remembered.
    pub cache_size: Option<u64>,
    /// How long a key is remembered, unless its message says otherwise.
    pub cache_ttl_ms: Option<u64>,
    /// The header that holds the key.
    pub header: String,
    /// Among which messages a key is looked for. No argument says so.
    pub scope: DedupScope,
}

/// The header that holds a message's deduplication key unless the declaration names another.
pub const DEDUP_HEADER_DEFAULT: &str = "x-deduplication-header";

/// What a queue's arguments ask for. Absent is not asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueArguments {
    /// `x-queue-type`, or the vhost's default.
    pub queue_type: QueueType,
    /// `x-message-ttl`
    pub message_ttl_ms: Option<u64>,
    /// `x-expires`
    pub expires_ms: Option<u64>,
    /// `x-max-length`
    pub max_length: Option<u64>,
    /// `x-max-length-bytes`
    pub max_length_bytes: Option<u64>,
    /// `x-overflow`
    pub overflow: Option<Overflow>,
    /// `x-dead-letter-exchange`
    pub dead_letter_exchange: Option<String>,
    /// `x-dead-letter-routing-key`
    pub dead_letter_key: Option<Vec<u8>>,
    /// `x-dead-letter-strategy`
    pub dead_letter_strategy: Option<DeadLetterStrategy>,
    /// `x-max-priority`
    pub max_priority: Option<u8>,
    /// `x-single-active-consumer`
    pub single_active_consumer: bool,
    /// `x-delivery-limit`; what is negative or no number means no limit and reads as absent.
    pub delivery_limit: Option<u64>,
    /// `x-delayed-retry-type`, `-min`, `-max`
    pub delayed_retry: Option<DelayedRetry>,
    /// `x-consumer-timeout`
    pub consumer_timeout_ms: Option<u64>,
    /// `x-message-deduplication` and its companions
    pub deduplication: Option<DedupArguments>,
    /// `x-max-age` (streams)
    pub max_age_ms: Option<u64>,
    /// `x-stream-max-segment-size-bytes` (streams)
    pub stream_segment_bytes_max: Option<u64>,
    /// `x-stream-filter-size-bytes` (streams)
    pub stream_filter_bytes: Option<u64>,
    /// `x-selector`: what the queue takes in.
    pub selector: Option<Intake>,
    /// `x-queue-mode`: kept for listings.
    pub mode_lazy: bool,
    /// `x-queue-version`: kept for listings.
    pub version: Option<u8>,
    /// `x-queue-leader-locator`: kept for listings.
    pub leader_locator: Option<String>,
}

/// What a queue takes in, of what is routed to it.
#[derive(Clone, Debug)]
pub struct Intake(pub Arc<Selector>);

impl PartialEq for Intake {
    fn eq(&self, other: &Self) -> bool {
        self.0.text() == other.0.text()
    }
}

impl Eq for Intake {}

/// A declaration as a protocol received it.
#[derive(Clone, Copy, Debug)]
pub struct Declaration<'a> {
    /// The queue's name, the generated one for a server-named queue.
    pub name: &'a str,
    /// The name of its vhost.
    pub vhost: &'a str,
    /// Asked to survive a restart.
    pub durable: bool,
    /// Asked to belong to one connection.
    pub exclusive: bool,
    /// Asked to go with its last consumer.
    pub auto_delete: bool,
    /// The client left the name to the broker.
    pub server_named: bool,
    /// The arguments as received.
    pub arguments: &'a Table,
    /// The vhost's default type, for a declaration that names none.
    pub default_queue_type: Option<QueueType>,
}

impl<'a> Declaration<'a> {
    /// Whether the declared queue survives a restart: an exclusive one never does.
    pub fn is_durable(&self) -> bool {
        self.durable && !self.exclusive
    }

    /// The arguments to keep and to compare: the received ones, plus the vhost's default queue
    /// type where the declaration names none and its properties allow it.
    pub fn effective_arguments(&self) -> Cow<'a, Table> {
        match self.default_queue_type {
            Some(queue_type) if self.arguments.get(QUEUE_TYPE).is_none() && queue_type.suits(self) => {
                let mut arguments = self.arguments.clone();
                arguments.push(QUEUE_TYPE, Value::text(queue_type.name()));
                Cow::Owned(arguments)
            }
            _ => Cow::Borrowed(self.arguments),
        }
    }
}

/// Why a declaration was refused. Its text is RabbitMQ's, without the reply-code name in front.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ArgumentError {
    text: String,
}

/// The typed form of a new queue's arguments.
///
/// For a queue that exists, [`inequivalence`] answers instead: RabbitMQ compares without
/// validating.
pub fn parse(declaration: &Declaration<'_>) -> Result<QueueArguments, ArgumentError> {
    let arguments = declaration.effective_arguments();
    let reader = Reader { declaration, arguments: &arguments };
    if declaration.server_named
        && let queue_type @ (QueueType::Quorum | QueueType::Stream) = reader.queue_type()?
    {
        let text = format!("Cannot declare a server-named queue for type {}", queue_type.module_name());
        return Err(ArgumentError { text });
    }
    reader.check_dead_letter_exchange_kind()?;
    let queue_type = reader.queue_type()?;
    let parsed = match queue_type {
        QueueType::Classic | QueueType::Quorum => reader.queue_arguments(queue_type)?,
        QueueType::Stream => reader.stream_arguments()?,
    };
    reader.check_foreign_arguments(queue_type)?;
    reader.check_properties(&parsed)?;
    Ok(parsed)
}

const QUEUE_TYPE: &str = "x-queue-type";
const SELECTOR: &str = "x-selector";
const DEAD_LETTER_EXCHANGE: &str = "x-dead-letter-exchange";
const SEGMENT_BYTES: &str = "x-stream-max-segment-size-bytes";
const FILTER_BYTES: &str = "x-stream-filter-size-bytes";

/// Longest time to live or queue expiry: ten years.
const EXPIRY_MS_MAX: i64 = 315_360_000_000;
const STREAM_SEGMENT_BYTES_MAX: u64 = 3_000_000_000;
const STREAM_FILTER_BYTES: std::ops::RangeInclusive<u64> = 16..=255;

/// Arguments that belong to queues and mean nothing on a stream.
const QUEUE_ONLY: &[&str] = &[
    "x-expires",
    "x-message-ttl",
    DEAD_LETTER_EXCHANGE,
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-max-length",
    "x-max-in-memory-length",
    "x-max-in-memory-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-queue-version",
    "x-queue-master-locator",
    "x-single-active-consumer",
    "x-delivery-limit",
    "x-quorum-initial-group-size",
    "x-quorum-target-group-size",
    "x-consumer-timeout",
    "x-consumer-disconnected-timeout",
    "x-delayed-retry-type",
    "x-delayed-retry-min",
    "x-delayed-retry-max",
    SELECTOR,
];

/// Arguments that belong to streams and mean nothing elsewhere.
const STREAM_ONLY: &[&str] = &["x-max-age", SEGMENT_BYTES, FILTER_BYTES, "x-initial-cluster-size"];

/// The arguments that a redeclaration compares, in RabbitMQ's order for the type.
const COMPARED_CLASSIC: &[&str] = &[
    "x-expires",
    "x-message-ttl",
    DEAD_LETTER_EXCHANGE,
    "x-dead-letter-routing-key",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-queue-version",
    "x-single-active-consumer",
    QUEUE_TYPE,
    "x-queue-master-locator",
    "x-dead-letter-strategy",
    "x-max-in-memory-length",
    "x-max-in-memory-bytes",
    "x-quorum-initial-group-size",
    "x-delivery-limit",
    "x-queue-leader-locator",
];
const COMPARED_QUORUM: &[&str] = &[
    DEAD_LETTER_EXCHANGE,
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-expires",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-in-memory-length",
    "x-max-in-memory-bytes",
    "x-overflow",
    "x-single-active-consumer",
    QUEUE_TYPE,
    "x-quorum-initial-group-size",
    "x-delivery-limit",
    "x-message-ttl",
    "x-queue-leader-locator",
    "x-max-priority",
    "x-queue-mode",
    "x-queue-version",
    "x-queue-master-locator",
];
const COMPARED_STREAM: &[&str] = &[
    "x-max-length-bytes",
    QUEUE_TYPE,
    "x-max-age",
    SEGMENT_BYTES,
    "x-initial-cluster-size",
    "x-queue-leader-locator",
    FILTER_BYTES,
];
/// Compared after those of the type: what RabbitMQ 3.10 does not know.
const COMPARED_QUEUES: &[&str] = &[
    "x-quorum-target-group-size",
    "x-consumer-timeout",
    "x-consumer-disconnected-timeout",
    "x-delayed-retry-type",
    "x-delayed-retry-min",
    "x-delayed-retry-max",
    SELECTOR,
];
const COMPARED_ALL: &[&str] = &["x-message-deduplication", "x-cache-size", "x-cache-ttl", "x-deduplication-header"];

/// Reads one declaration's arguments one by one, refusing in RabbitMQ's words.
struct Reader<'a> {
    declaration: &'a Declaration<'a>,
    arguments: &'a Table,
}

impl Reader<'_> {
    fn queue_arguments(&self, queue_type: QueueType) -> Result<QueueArguments, ArgumentError> {
        // Fields are evaluated in the order in which RabbitMQ validates.
        Ok(QueueArguments {
            queue_type,
            expires_ms: self.expires_ms()?,
            message_ttl_ms: self.expiry_ms("x-message-ttl")?,
            dead_letter_exchange: self.text(DEAD_LETTER_EXCHANGE)?,
            dead_letter_key: self.dead_letter_key()?,
            dead_letter_strategy: self.word(
                "x-dead-letter-strategy",
                |_| "invalid_dlx_strategy".into(),
                DeadLetterStrategy::parse,
            )?,
            max_length: self.natural("x-max-length")?,
            max_length_bytes: self.natural("x-max-length-bytes")?,
            max_priority: {
                self.natural("x-max-in-memory-length")?;
                self.natural("x-max-in-memory-bytes")?;
                self.max_priority()?
            },
            overflow: self.word("x-overflow", |_| "invalid_overflow".into(), Overflow::parse)?,
            mode_lazy: self
                .word(
                    "x-queue-mode",
                    |mode| Characters(&[b"unsupported queue mode '", mode, b"'"].concat()).to_string(),
                    |mode| ["default", "lazy"].iter().position(|&known| known == mode),
                )?
                .is_some_and(|mode| mode == 1),
            version: self.version()?,
            single_active_consumer: self.flag("x-single-active-consumer")?,
            delivery_limit: {
                self.text_bytes("x-queue-master-locator")?;
                self.positive("x-quorum-initial-group-size")?;
                self.positive("x-quorum-target-group-size")?;
                // RabbitMQ 3.10 takes any value here, and what is no number never limits.
                let limit = self.arguments.get("x-delivery-limit").and_then(Value::as_integer);
                limit.and_then(|limit| u64::try_from(limit).ok())
            },
            leader_locator: self.leader_locator()?,
            consumer_timeout_ms: {
                self.expiry_ms("x-consumer-disconnected-timeout")?;
                self.expiry_ms("x-consumer-timeout")?
            },
            delayed_retry: self.delayed_retry()?,
            deduplication: self.deduplication()?,
            selector: self.selector()?,
            ..QueueArguments::default()
        })
    }

    fn stream_arguments(&self) -> Result<QueueArguments, ArgumentError> {
        Ok(QueueArguments {
            queue_type: QueueType::Stream,
            max_length_bytes: self.natural("x-max-length-bytes")?,
            max_age_ms: self.max_age_ms()?,
            stream_segment_bytes_max: self.natural(SEGMENT_BYTES)?,
            leader_locator: {
                self.positive("x-initial-cluster-size")?;
                self.leader_locator()?
            },
            stream_filter_bytes: self.natural(FILTER_BYTES)?,
            deduplication: self.deduplication()?,
            ..QueueArguments::default()
        })
    }

    fn check_dead_letter_exchange_kind(&self) -> Result<(), ArgumentError> {
        match self.arguments.get(DEAD_LETTER_EXCHANGE) {
            None | Some(Value::Text(_)) => Ok(()),
            Some(other) => Err(ArgumentError {
                text: format!(
                    "invalid type '{}' for arg '{DEAD_LETTER_EXCHANGE}' in {}",
                    other.kind_name(),
                    self.declaration.description()
                ),
            }),
        }
    }

    fn check_foreign_arguments(&self, queue_type: QueueType) -> Result<(), ArgumentError> {
        let foreign = if queue_type == QueueType::Stream { QUEUE_ONLY } else { STREAM_ONLY };
        match self.arguments.iter().find(|(name, _)| foreign.contains(name)) {
            None => Ok(()),
            Some((name, _)) => Err(ArgumentError {
                text: format!(
                    "invalid arg '{name}' for {} of queue type {}",
                    self.declaration.description(),
                    queue_type.module_name()
                ),
            }),
        }
    }

    fn check_properties(&self, parsed: &QueueArguments) -> Result<(), ArgumentError> {
        if parsed.queue_type == QueueType::Classic {
            return Ok(());
        }
        let property = if self.declaration.auto_delete {
            "auto-delete"
        } else if self.declaration.exclusive {
            "exclusive-owner"
        } else if !self.declaration.durable {
            "non-durable"
        } else {
            ""
        };
        if !property.is_empty() {
            let text = format!("invalid property '{property}' for {}", self.declaration.description());
            return Err(ArgumentError { text });
        }
        if parsed.stream_segment_bytes_max.is_some_and(|bytes| bytes > STREAM_SEGMENT_BYTES_MAX) {
            return Err(ArgumentError { text: format!("Exceeded max value for {SEGMENT_BYTES}") });
        }
        if parsed.stream_filter_bytes.is_some_and(|bytes| !STREAM_FILTER_BYTES.contains(&bytes)) {
            return Err(ArgumentError { text: format!("Invalid value for {FILTER_BYTES}") });
        }
        Ok(())
    }

    fn queue_type(&self) -> Result<QueueType, ArgumentError> {
        let refusal = |name: &[u8]| Characters(&[b"unsupported queue type '", name, b"'"].concat()).to_string();
        Ok(self.word(QUEUE_TYPE, refusal, QueueType::parse)?.unwrap_or_default())
    }

    fn expires_ms(&self) -> Result<Option<u64>, ArgumentError> {
        match self.integer("x-expires")? {
            Some(0) => self.refuse("x-expires", "{value_zero,0}"),
            _ => self.expiry_ms("x-expires"),
        }
    }

    fn expiry_ms(&self, name: &'static str) -> Result<Option<u64>, ArgumentError> {
        match self.integer(name)? {
            Some(ms) if ms > EXPIRY_MS_MAX => self.refuse(name, format_args!("{{value_too_large,{ms}}}")),
            _ => self.natural(name),
        }
    }

    fn dead_letter_key(&self) -> Result<Option<Vec<u8>>, ArgumentError> {
        const NAME: &str = "x-dead-letter-routing-key";
        match self.arguments.get(NAME) {
            Some(Value::Text(_)) if self.arguments.get(DEAD_LETTER_EXCHANGE).is_none() => {
                self.refuse(NAME, "routing_key_but_no_dlx_defined")
            }
            _ => Ok(self.text_bytes(NAME)?.map(<[u8]>::to_vec)),
        }
    }

    fn max_priority(&self) -> Result<Option<u8>, ArgumentError> {
        const NAME: &str = "x-max-priority";
        match self.natural(NAME)? {
            None => Ok(None),
            Some(highest) => match u8::try_from(highest) {
                Ok(highest) => Ok(Some(highest)),
                Err(_) => self.refuse(NAME, format_args!("{{max_value_exceeded,{highest}}}")),
            },
        }
    }

    fn version(&self) -> Result<Option<u8>, ArgumentError> {
        const NAME: &str = "x-queue-version";
        match self.natural(NAME)? {
            None => Ok(None),
            Some(1) => Ok(Some(1)),
            Some(2) => Ok(Some(2)),
            Some(other) => self.refuse(NAME, format_args!("\"unsupported queue version '{other}'\"")),
        }
    }

    fn leader_locator(&self) -> Result<Option<String>, ArgumentError> {
        self.word(
            "x-queue-leader-locator",
            |_| "invalid_queue_locator_arg".into(),
            |name| match name {
                "client-local" | "balanced" | "random" | "least-leaders" => Some(name.to_owned()),
                _ => None,
            },
        )
    }

    fn delayed_retry(&self) -> Result<Option<DelayedRetry>, ArgumentError> {
        let retry_type =
            self.word("x-delayed-retry-type", |_| "invalid_delayed_retry_type".into(), DelayedRetryType::parse)?;
        let min_ms = self.expiry_ms("x-delayed-retry-min")?;
        let max_ms = self.expiry_ms("x-delayed-retry-max")?;
        Ok(retry_type.flatten().map(|retry_type| DelayedRetry { retry_type, min_ms, max_ms }))
    }

    fn deduplication(&self) -> Result<Option<DedupArguments>, ArgumentError> {
        let wanted = self.flag("x-message-deduplication")?;
        let cache_size = self.natural("x-cache-size")?;
        let cache_ttl_ms = self.natural("x-cache-ttl")?;
        let header = self.text("x-deduplication-header")?;
        Ok(wanted.then(|| DedupArguments {
            cache_size,
            cache_ttl_ms,
            header: header.unwrap_or_else(|| DEDUP_HEADER_DEFAULT.to_owned()),
            scope: DedupScope::Queue,
        }))
    }

    fn selector(&self) -> Result<Option<Intake>, ArgumentError> {
        // Blank is none, as with consumers.
        let Some(text) = self.text(SELECTOR)?.filter(|text| !text.trim().is_empty()) else { return Ok(None) };
        match Selector::parse(&text, Conversion::None) {
            Ok(selector) => Ok(Some(Intake(Arc::new(selector)))),
            Err(error) => self.refuse(SELECTOR, error),
        }
    }

    fn max_age_ms(&self) -> Result<Option<u64>, ArgumentError> {
        self.word("x-max-age", |_| "invalid_max_age".into(), parse_age_ms)
    }

    fn integer(&self, name: &'static str) -> Result<Option<i64>, ArgumentError> {
        match self.arguments.get(name) {
            None => Ok(None),
            Some(value) => match value.as_integer() {
                Some(number) => Ok(Some(number)),
                None => self.refuse(name, format_args!("\"expected integer, got {}\"", value.kind_name())),
            },
        }
    }

    fn natural(&self, name: &'static str) -> Result<Option<u64>, ArgumentError> {
        match self.integer(name)? {
            None => Ok(None),
            Some(number) => match u64::try_from(number) {
                Ok(number) => Ok(Some(number)),
                Err(_) => self.refuse(name, format_args!("{{value_negative,{number}}}")),
            },
        }
    }

    fn positive(&self, name: &'static str) -> Result<Option<u64>, ArgumentError> {
        match self.natural(name)? {
            Some(0) => self.refuse(name, "{value_zero,0}"),
            number => Ok(number),
        }
    }

    fn flag(&self, name: &'static str) -> Result<bool, ArgumentError> {
        match self.arguments.get(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => self.refuse_kind(name, other),
        }
    }

    fn text_bytes(&self, name: &'static str) -> Result<Option<&[u8]>, ArgumentError> {
        match self.arguments.get(name) {
            None => Ok(None),
            Some(Value::Text(bytes)) => Ok(Some(bytes)),
            Some(other) => self.refuse_kind(name, other),
        }
    }

    fn text(&self, name: &'static str) -> Result<Option<String>, ArgumentError> {
        Ok(self.text_bytes(name)?.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
    }

    /// A text that must be one of a few words.
    fn word<T>(
        &self,
        name: &'static str,
        refusal: impl FnOnce(&[u8]) -> String,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ArgumentError> {
        match self.text_bytes(name)? {
            None => Ok(None),
            Some(bytes) => match std::str::from_utf8(bytes).ok().and_then(parse) {
                Some(parsed) => Ok(Some(parsed)),
                None => self.refuse(name, refusal(bytes)),
            },
        }
    }

    fn refuse_kind<T>(&self, name: &'static str, value: &Value) -> Result<T, ArgumentError> {
        self.refuse(name, format_args!("{{unacceptable_type,{}}}", value.kind_name()))
    }

    fn refuse<T>(&self, name: &'static str, reason: impl fmt::Display) -> Result<T, ArgumentError> {
        Err(ArgumentError { text: format!("invalid arg '{name}' for {}: {reason}", self.declaration.description()) })
    }
}

impl Declaration<'_> {
    fn description(&self) -> String {
        format!("queue '{}' in vhost '{}'", self.name, self.vhost)
    }
}

/// An existing queue, as a redeclaration compares it.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// Survives a restart ([`Declaration::is_durable`] of its declaration).
    pub durable: bool,
    /// Goes with its last consumer.
    pub auto_delete: bool,
    /// Its type.
    pub queue_type: QueueType,
    /// [`Declaration::effective_arguments`] of its declaration.
    pub arguments: &'a Table,
}

/// The first difference between a queue and its redeclaration. Its text is RabbitMQ's, without the
/// reply-code name in front.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "inequivalent arg '{argument}' for queue '{name}' in vhost '{vhost}': received {received} but current is {current}"
)]
pub struct Inequivalence {
    /// The differing property or argument.
    pub argument: &'static str,
    name: String,
    vhost: String,
    received: String,
    current: String,
}

/// The first difference between a stored queue and a redeclaration of it, or `None`.
///
/// Who may redeclare an exclusive queue is decided before. Unknown arguments do not take part.
pub fn inequivalence(stored: &Stored<'_>, received: &Declaration<'_>) -> Option<Inequivalence> {
    let differs = |argument, received_text, current_text| {
        Some(Inequivalence {
            argument,
            name: received.name.to_owned(),
            vhost: received.vhost.to_owned(),
            received: received_text,
            current: current_text,
        })
    };
    let flag = |flag: bool| format!("'{flag}'");
    if stored.durable != received.is_durable() {
        return differs("durable", flag(received.is_durable()), flag(stored.durable));
    }
    if stored.auto_delete != received.auto_delete {
        return differs("auto_delete", flag(received.auto_delete), flag(stored.auto_delete));
    }
    let arguments = received.effective_arguments();
    for &name in compared(stored.queue_type) {
        let (current, new) = (stored.arguments.get(name), arguments.get(name));
        match (current, new) {
            (None, None) => {}
            (Some(current), Some(new)) => {
                if !is_same(current, new) {
                    return differs(name, value_alone(new), value_alone(current));
                }
            }
            (Some(only), None) | (None, Some(only)) => {
                if name == QUEUE_TYPE && only.as_text() == Some(QueueType::Classic.name()) {
                    continue;
                }
                return differs(name, value_and_kind(new), value_and_kind(current));
            }
        }
    }
    None
}

/// How one argument of a redeclaration differs, as `received .. but current is ..`.
pub fn difference(current: Option<&Value>, new: Option<&Value>) -> Option<String> {
    let (received, current) = match (current, new) {
        (None, None) => return None,
        (Some(current), Some(new)) if is_same(current, new) => return None,
        (Some(current), Some(new)) => (value_alone(new), value_alone(current)),
        _ => (value_and_kind(new), value_and_kind(current)),
    };
    Some(format!("received {received} but current is {current}"))
}

fn compared(queue_type: QueueType) -> impl Iterator<Item = &'static &'static str> {
    let (own, newer): (&[_], &[_]) = match queue_type {
        QueueType::Classic => (COMPARED_CLASSIC, COMPARED_QUEUES),
        QueueType::Quorum => (COMPARED_QUORUM, COMPARED_QUEUES),
        QueueType::Stream => (COMPARED_STREAM, &[]),
    };
    own.iter().chain(newer).chain(COMPARED_ALL)
}

/// Equality across kinds that hold the same thing, as RabbitMQ compares.
fn is_same(a: &Value, b: &Value) -> bool {
    fn whole(value: &Value) -> Option<i128> {
        match value {
            Value::Timestamp(secs) => Some(i128::from(*secs)),
            other => other.as_integer().map(i128::from),
        }
    }
    fn real(value: &Value) -> Option<f64> {
        match *value {
            Value::F32(number) => Some(number.into()),
            Value::F64(number) => Some(number),
            _ => None,
        }
    }
    fn bytes(value: &Value) -> Option<&[u8]> {
        match value {
            Value::Text(bytes) | Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => return a == b,
        (None, None) => {}
        _ => return false,
    }
    match (real(a), real(b)) {
        (Some(a), Some(b)) => return a == b,
        (None, None) => {}
        _ => return false,
    }
    match (bytes(a), bytes(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

fn value_alone(value: &Value) -> String {
    match value {
        Value::Void => "none".into(),
        value => format!("'{}'", Bare(value)),
    }
}

fn value_and_kind(value: Option<&Value>) -> String {
    match value {
        None => "none".into(),
        Some(value) => format!("the value '{}' of type '{}'", Bare(value), value.kind_name()),
    }
}

#[cfg(test)]
mod tests;
