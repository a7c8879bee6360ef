//! The attributes of queues, as properties of the broker's queues.
//!
//! What has a meaning for the broker is a property of its own; what only SQS knows stands in the properties' notes.
//! Numbers of SQS are in seconds, those of the broker in milliseconds.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value as Json;

use super::queue::{Target, arn_of};
use crate::{
    aws::{call::Call, error::Error},
    broker::{
        queue::{
            behaviour::DedupScope,
            properties::{Dedup, Properties},
            selective::GroupMode,
        },
        time::Time,
        turn::Turn,
        value::{Table, Value},
    },
};

/// Names of what stands in the notes of a queue's properties.
pub mod note {
    /// When it was created, in milliseconds.
    pub const CREATED: &str = "created-ms";
    /// When an attribute was last changed, in milliseconds.
    pub const MODIFIED: &str = "modified-ms";
    /// Tags by name.
    pub const TAGS: &str = "tags";
    /// The access policy, as text.
    pub const POLICY: &str = "policy";
    /// How often a message may be received before it goes to the dead queue.
    pub const MAX_RECEIVES: &str = "max-receives";
    /// Which queues may name this one as their dead queue, as text.
    pub const REDRIVE_ALLOW: &str = "redrive-allow";
    /// A message's body names it for deduplication.
    pub const CONTENT_DEDUP: &str = "content-dedup";
    /// The limit of throughput that was asked for.
    pub const THROUGHPUT: &str = "throughput-limit";
    /// The key that it would be encrypted with.
    pub const KMS_KEY: &str = "kms-key";
    /// For how long that key would be used again, in seconds.
    pub const KMS_REUSE: &str = "kms-reuse-secs";
    /// Whether the service would encrypt it.
    pub const MANAGED_SSE: &str = "managed-sse";
}

/// Attributes as a call gives them, by name.
pub(super) type Given = BTreeMap<String, String>;

pub(super) const MESSAGE_BYTES_MAX: u64 = 1_048_576;
const MESSAGE_BYTES_MIN: u64 = 1_024;
const RETENTION_SECS: std::ops::RangeInclusive<u64> = 60..=1_209_600;
const RETENTION_SECS_DEFAULT: u64 = 345_600;
pub(super) const VISIBILITY_SECS_MAX: u64 = 43_200;
pub(super) const VISIBILITY_SECS_DEFAULT: u64 = 30;
pub(super) const DELAY_SECS_MAX: u64 = 900;
pub(super) const WAIT_SECS_MAX: u64 = 20;
const KMS_REUSE_SECS: std::ops::RangeInclusive<u64> = 60..=86_400;
const KMS_REUSE_SECS_DEFAULT: u64 = 300;
const MAX_RECEIVES: std::ops::RangeInclusive<u64> = 1..=1_000;
const MAX_RECEIVES_DEFAULT: u64 = 10;
const REDRIVE_SOURCES_MAX: usize = 10;
const POLICY_BYTES_MAX: usize = 8_192;

/// Every attribute that can be asked for.
pub(super) const NAMES: &[&str] = &[
    "Policy",
    "VisibilityTimeout",
    "MaximumMessageSize",
    "MessageRetentionPeriod",
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "CreatedTimestamp",
    "LastModifiedTimestamp",
    "QueueArn",
    "ApproximateNumberOfMessagesDelayed",
    "DelaySeconds",
    "ReceiveMessageWaitTimeSeconds",
    "RedrivePolicy",
    "FifoQueue",
    "ContentBasedDeduplication",
    "KmsMasterKeyId",
    "KmsDataKeyReusePeriodSeconds",
    "DeduplicationScope",
    "FifoThroughputLimit",
    "RedriveAllowPolicy",
    "SqsManagedSseEnabled",
];

/// The properties of a new queue before any attribute.
pub(super) fn initial(is_fifo: bool, now: Time) -> Properties {
    let mut properties = Properties {
        lease_ms: Some(VISIBILITY_SECS_DEFAULT * 1_000),
        message_ttl_ms: Some(RETENTION_SECS_DEFAULT * 1_000),
        message_bytes_max: Some(MESSAGE_BYTES_MAX),
        ..Properties::default()
    };
    if is_fifo {
        properties.group_mode = Some(GroupMode::Unsettled);
        properties.dedup = Some(Dedup::default());
    } else {
        properties.group_mode = Some(GroupMode::Fair);
    }
    properties.notes.set(note::CREATED, milliseconds(now));
    properties.notes.set(note::MODIFIED, milliseconds(now));
    properties
}

pub(super) fn milliseconds(time: Time) -> Value {
    Value::I64(i64::try_from(time.0).unwrap_or(i64::MAX))
}

/// Changes properties as attributes say, or refuses the first of them that cannot be. `name` is the queue's.
pub(super) fn apply(
    given: &Given,
    properties: &mut Properties,
    target: &Place<'_>,
    turn: &Turn<'_>,
) -> Result<(), Error> {
    for (name, value) in given {
        apply_one(name, value, properties, target, turn)?;
    }
    let is_given = |name: &str| given.get(name).is_some_and(|value| !value.is_empty());
    let wants_managed = given.get("SqsManagedSseEnabled").is_some_and(|value| value == "true");
    if wants_managed && is_given("KmsMasterKeyId") {
        let message = "You can use one type of server-side encryption (SSE) at one time. You can either enable KMS SSE \
                       or SQS SSE.";
        return Err(Error::sqs("InvalidAttributeName", message));
    }
    let is_by_group = properties.dedup.as_ref().is_some_and(|dedup| dedup.scope == DedupScope::Group);
    if text(&properties.notes, note::THROUGHPUT) == Some("perMessageGroupId") && !is_by_group {
        let message = "The perMessageGroupId value for FifoThroughputLimit is allowed only when the value for \
                       DeduplicationScope is messageGroup.";
        return Err(Error::sqs("InvalidAttributeValue", message));
    }
    Ok(())
}

/// Where the queue is, or is going to be, whose attributes are changed.
pub(super) struct Place<'a> {
    pub(super) call: &'a Call,
    pub(super) vhost: &'a std::sync::Arc<crate::broker::vhost::Vhost>,
    pub(super) name: &'a str,
    pub(super) is_fifo: bool,
    /// It is being created.
    pub(super) is_new: bool,
}

fn apply_one(
    name: &str,
    value: &str,
    properties: &mut Properties,
    place: &Place<'_>,
    turn: &Turn<'_>,
) -> Result<(), Error> {
    let number = |range: std::ops::RangeInclusive<u64>| {
        let number = value.parse::<u64>().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| invalid(name))
    };
    let flag = || match value {
        "true" | "True" | "TRUE" => Ok(true),
        "false" | "False" | "FALSE" => Ok(false),
        _ => Err(invalid(name)),
    };
    let notes = &mut properties.notes;
    match name {
        "VisibilityTimeout" => properties.lease_ms = Some(number(0..=VISIBILITY_SECS_MAX)? * 1_000),
        "DelaySeconds" => properties.withhold_ms = Some(number(0..=DELAY_SECS_MAX)? * 1_000),
        "ReceiveMessageWaitTimeSeconds" => properties.wait_ms = Some(number(0..=WAIT_SECS_MAX)? * 1_000),
        "MessageRetentionPeriod" => properties.message_ttl_ms = Some(number(RETENTION_SECS)? * 1_000),
        "MaximumMessageSize" => {
            properties.message_bytes_max = Some(number(MESSAGE_BYTES_MIN..=MESSAGE_BYTES_MAX)?);
        }
        "Policy" => {
            let is_policy = value.len() <= POLICY_BYTES_MAX && crate::aws::policy::Policy::parse(value).is_ok();
            if !value.is_empty() && !is_policy {
                return Err(invalid(name));
            }
            set_text(notes, note::POLICY, value);
        }
        "RedrivePolicy" => redrive(value, properties, place, turn)?,
        "RedriveAllowPolicy" => {
            if !value.is_empty() && RedriveAllow::parse(value).is_none() {
                let message = format!("Value {value} for parameter RedriveAllowPolicy is invalid.");
                return Err(Error::sqs("InvalidParameterValueException", message));
            }
            set_text(notes, note::REDRIVE_ALLOW, value);
        }
        "KmsMasterKeyId" => {
            set_text(notes, note::KMS_KEY, value);
            // One kind of encryption at a time, and none when the key is taken away.
            notes.set(note::MANAGED_SSE, Value::Bool(false));
        }
        "KmsDataKeyReusePeriodSeconds" => {
            let secs = number(KMS_REUSE_SECS)?;
            notes.set(note::KMS_REUSE, Value::I64(secs.cast_signed()));
        }
        "SqsManagedSseEnabled" => {
            let is_managed = flag()?;
            notes.set(note::MANAGED_SSE, Value::Bool(is_managed));
            if is_managed {
                notes.remove(note::KMS_KEY);
                notes.remove(note::KMS_REUSE);
            }
        }
        "FifoQueue" if place.is_fifo && place.is_new => _ = flag()?,
        "FifoQueue" if place.is_fifo => match flag()? {
            true => {}
            false => {
                let message =
                    "Invalid value for the parameter FifoQueue. Reason: Modifying queue type is not supported.";
                return Err(Error::sqs("InvalidAttributeValue", message));
            }
        },
        "ContentBasedDeduplication" if place.is_fifo => notes.set(note::CONTENT_DEDUP, Value::Bool(flag()?)),
        "DeduplicationScope" | "FifoThroughputLimit" if !place.is_fifo => {
            let message = format!("You can specify the {name} only when FifoQueue is set to true.");
            return Err(Error::sqs("InvalidAttributeName", message));
        }
        "DeduplicationScope" => {
            let scope = match value {
                "queue" => DedupScope::Queue,
                "messageGroup" => DedupScope::Group,
                _ => return Err(invalid(name)),
            };
            properties.dedup.get_or_insert_default().scope = scope;
        }
        "FifoThroughputLimit" => match value {
            "perQueue" | "perMessageGroupId" => set_text(notes, note::THROUGHPUT, value),
            _ => return Err(invalid(name)),
        },
        _ => return Err(unknown(name)),
    }
    Ok(())
}

/// The redrive policy as it is given.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Redrive {
    dead_letter_target_arn: Option<String>,
    max_receive_count: Option<Json>,
}

fn redrive(value: &str, properties: &mut Properties, place: &Place<'_>, turn: &Turn<'_>) -> Result<(), Error> {
    if value.is_empty() {
        properties.dead_queue = None;
        properties.delivery_limit = None;
        properties.notes.remove(note::MAX_RECEIVES);
        return Ok(());
    }
    let refuse = |reason: &str| Err(Error::invalid_value(value, "RedrivePolicy", reason));
    let Ok(Json::Object(given)) = serde_json::from_str::<Json>(value) else {
        return refuse("Redrive policy is not a valid JSON map.");
    };
    let Ok(policy) = serde_json::from_value::<Redrive>(Json::Object(given)) else {
        return refuse("Invalid value for deadLetterTargetArn.");
    };
    let Some(arn) = policy.dead_letter_target_arn else {
        return refuse("Redrive policy does not contain mandatory attribute: deadLetterTargetArn.");
    };
    let receives = match &policy.max_receive_count {
        None => Some(MAX_RECEIVES_DEFAULT),
        Some(Json::String(text)) => text.parse().ok(),
        Some(number) => number.as_u64(),
    };
    let Some(receives) = receives.filter(|receives| MAX_RECEIVES.contains(receives)) else {
        let given = policy.max_receive_count.map_or_else(String::new, |count| match count {
            Json::String(text) => text,
            other => other.to_string(),
        });
        let reason = format!(
            "Invalid value for maxReceiveCount: {given}, valid values are from {} to {} both inclusive.",
            MAX_RECEIVES.start(),
            MAX_RECEIVES.end()
        );
        return refuse(&reason);
    };
    let parsed = crate::aws::call::Arn::parse(&arn).filter(|arn| arn.service == "sqs");
    if parsed.is_none() {
        return refuse("Invalid value for deadLetterTargetArn.");
    }
    let found = Target::of_arn(place.call, turn, &arn).filter(|dead| dead.vhost.name == place.vhost.name);
    let Some(dead) = found else {
        return refuse("Dead letter target does not exist.");
    };
    if dead.is_fifo != place.is_fifo {
        return refuse("Dead-letter queue must be same type of queue as the source.");
    }
    let allow = text(&dead.properties.notes, note::REDRIVE_ALLOW).and_then(RedriveAllow::parse);
    if !allow.is_none_or(|allow| allow.allows(&arn_of(place.call, place.vhost, place.name))) {
        return refuse("Queue does not have permission to use the specified dead-letter queue.");
    }
    properties.dead_queue = Some(dead.queue.name.clone());
    // The broker counts what failed after the first delivery.
    properties.delivery_limit = Some(receives - 1);
    properties.notes.set(note::MAX_RECEIVES, Value::I64(receives.cast_signed()));
    Ok(())
}

/// Which queues may name a queue as their dead queue.
struct RedriveAllow {
    permission: Permission,
    sources: Vec<String>,
}

#[derive(PartialEq)]
enum Permission {
    AllowAll,
    DenyAll,
    ByQueue,
}

impl RedriveAllow {
    fn parse(value: &str) -> Option<Self> {
        let policy: Json = serde_json::from_str(value).ok()?;
        let permission = match policy.get("redrivePermission")?.as_str()? {
            "allowAll" => Permission::AllowAll,
            "denyAll" => Permission::DenyAll,
            "byQueue" => Permission::ByQueue,
            _ => return None,
        };
        let sources = policy.get("sourceQueueArns");
        let sources = match sources.map(|sources| sources.as_array()) {
            None => Vec::new(),
            Some(arns) => arns?.iter().map(|arn| arn.as_str().map(ToOwned::to_owned)).collect::<Option<Vec<_>>>()?,
        };
        let is_whole = (permission == Permission::ByQueue) != sources.is_empty();
        (is_whole && sources.len() <= REDRIVE_SOURCES_MAX).then_some(Self { permission, sources })
    }

    /// Regions are all one here, so they are not compared.
    fn allows(&self, source: &str) -> bool {
        fn place(arn: &str) -> Option<(&str, String)> {
            let arn = crate::aws::call::Arn::parse(arn)?;
            Some((arn.account, arn.name.into_owned()))
        }
        match self.permission {
            Permission::AllowAll => true,
            Permission::DenyAll => false,
            Permission::ByQueue => self.sources.iter().any(|allowed| place(allowed) == place(source)),
        }
    }
}

pub(super) fn invalid(name: &str) -> Error {
    Error::sqs("InvalidAttributeValue", format!("Invalid value for the parameter {name}."))
}

pub(super) fn unknown(name: &str) -> Error {
    Error::sqs("InvalidAttributeName", format!("Unknown Attribute {name}."))
}

fn set_text(notes: &mut Table, name: &str, value: &str) {
    if value.is_empty() {
        notes.remove(name);
    } else {
        notes.set(name, Value::text(value));
    }
}

/// A note that is text.
pub(super) fn text<'n>(notes: &'n Table, name: &str) -> Option<&'n str> {
    notes.get(name).and_then(Value::as_text)
}

pub(super) fn is_set(notes: &Table, name: &str) -> bool {
    notes.get(name).and_then(Value::as_bool).unwrap_or(false)
}

/// The value of an attribute; `None` when the queue has none.
pub(super) fn value(name: &str, call: &Call, target: &Target) -> Option<String> {
    let Target { vhost, queue, properties, is_fifo } = target;
    let notes = &properties.notes;
    let secs = |ms: Option<u64>, default: u64| Some(ms.map_or(default, |ms| ms / 1_000).to_string());
    let note_secs = |name: &str| {
        let ms = notes.get(name).and_then(Value::as_integer).unwrap_or_default();
        Some((ms / 1_000).to_string())
    };
    let boolean = |flag: bool| Some(flag.to_string());
    match name {
        "VisibilityTimeout" => secs(properties.lease_ms, VISIBILITY_SECS_DEFAULT),
        "DelaySeconds" => secs(properties.withhold_ms, 0),
        "ReceiveMessageWaitTimeSeconds" => secs(properties.wait_ms, 0),
        // A queue without a limit keeps messages for longer than SQS can say.
        "MessageRetentionPeriod" => {
            let ttls = properties.message_ttl_ms.into_iter().chain(queue.declaration.parsed.message_ttl_ms);
            secs(ttls.min(), *RETENTION_SECS.end())
        }
        "MaximumMessageSize" => Some(properties.message_bytes_max.unwrap_or(MESSAGE_BYTES_MAX).to_string()),
        "ApproximateNumberOfMessages" => Some(queue.status().ready.to_string()),
        "ApproximateNumberOfMessagesNotVisible" => Some(queue.status().unsettled.to_string()),
        "ApproximateNumberOfMessagesDelayed" => Some(queue.status().withheld.to_string()),
        "CreatedTimestamp" => note_secs(note::CREATED),
        "LastModifiedTimestamp" => note_secs(note::MODIFIED),
        "QueueArn" => Some(target.arn(call)),
        "Policy" => text(notes, note::POLICY).map(ToOwned::to_owned),
        "RedrivePolicy" => {
            let arn = arn_of(call, vhost, properties.dead_queue.as_deref()?);
            let receives = notes.get(note::MAX_RECEIVES).and_then(Value::as_integer);
            let receives = receives.or_else(|| Some(properties.delivery_limit?.cast_signed() + 1)).unwrap_or_default();
            Some(format!(r#"{{"deadLetterTargetArn":"{arn}","maxReceiveCount":{receives}}}"#))
        }
        "RedriveAllowPolicy" => text(notes, note::REDRIVE_ALLOW).map(ToOwned::to_owned),
        "KmsMasterKeyId" => text(notes, note::KMS_KEY).map(ToOwned::to_owned),
        "KmsDataKeyReusePeriodSeconds" => {
            let secs = notes.get(note::KMS_REUSE).and_then(Value::as_integer)?;
            (secs != KMS_REUSE_SECS_DEFAULT.cast_signed()).then(|| secs.to_string())
        }
        "SqsManagedSseEnabled" => boolean(notes.get(note::MANAGED_SSE).and_then(Value::as_bool).unwrap_or(true)),
        "FifoQueue" => is_fifo.then(|| "true".to_owned()),
        "ContentBasedDeduplication" if *is_fifo => boolean(is_set(notes, note::CONTENT_DEDUP)),
        "DeduplicationScope" if *is_fifo => {
            let scope = properties.dedup.as_ref().map(|dedup| dedup.scope).unwrap_or_default();
            Some(if scope == DedupScope::Group { "messageGroup" } else { "queue" }.to_owned())
        }
        "FifoThroughputLimit" if *is_fifo => Some(text(notes, note::THROUGHPUT).unwrap_or("perQueue").to_owned()),
        _ => None,
    }
}

/// Whether two values of an attribute mean the same.
pub(super) fn is_same(name: &str, given: &str, current: Option<&str>) -> bool {
    let current = current.unwrap_or_default();
    let json = |text: &str| serde_json::from_str::<Json>(text).ok();
    match name {
        "RedrivePolicy" => {
            // Regions are all one here, and numbers may be texts.
            let parts = |text: &str| {
                let policy: Redrive = serde_json::from_str(text).ok()?;
                let arn = policy.dead_letter_target_arn?;
                let arn = crate::aws::call::Arn::parse(&arn)?;
                let count = policy.max_receive_count.map(|count| match count {
                    Json::String(text) => text,
                    other => other.to_string(),
                });
                Some((arn.account.to_owned(), arn.name.into_owned(), count))
            };
            given == current || parts(given).is_some() && parts(given) == parts(current)
        }
        "Policy" | "RedriveAllowPolicy" => given == current || json(given).is_some() && json(given) == json(current),
        _ => given.eq_ignore_ascii_case(current),
    }
}
