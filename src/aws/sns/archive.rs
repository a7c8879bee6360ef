//! The archive of a FIFO topic: a durable stream that everything which is published to the topic goes to, whoever
//! publishes it, for as long as the topic's `ArchivePolicy` says.
//!
//! The stream is bound to the topic's exchange under a label of its own, so that a message has with it there what its
//! envelope is made of: a replayed message has the identity, time and number that it had. The topic's notes say which
//! stream it is (`archive`: `queue` and `since-ms`).

use std::sync::Arc;

use serde_json::Value as Json;

use super::{arn::new_uuid, envelope, topic::Topic};
use crate::{
    aws::error::Error,
    broker::{
        exchange::{Target, filtered},
        queue::Queue,
        time::Time,
        topology::DeclareQueue,
        turn::Turn,
        value::{Table, Value},
    },
};

/// What archives are called like.
const QUEUE_PREFIX: &str = "tern.sns.archive.";
/// The label of its binding.
const LABEL: &str = "archive:raw:";
/// Days that a policy may name.
const DAYS: std::ops::RangeInclusive<u64> = 1..=365;
const DAY_MS: u64 = 86_400_000;

const NOTE: &str = "archive";
const QUEUE: &str = "queue";
const SINCE: &str = "since-ms";

/// An archive.
pub(super) struct Archive {
    /// The stream, while it is there.
    pub(super) stream: Option<Arc<Queue>>,
    since: Time,
    kept_ms: u64,
}

/// What a policy asks for; `None`: it ends the archive. `Err` says what is wrong with it.
pub(super) fn days(policy: &str) -> Result<Option<u64>, String> {
    if policy.is_empty() {
        return Ok(None);
    }
    let Ok(Json::Object(policy)) = serde_json::from_str(policy) else {
        return Err("ArchivePolicy: Invalid JSON".to_owned());
    };
    if let Some(other) = policy.keys().find(|name| *name != "MessageRetentionPeriod") {
        return Err(format!("ArchivePolicy: Attribute {other} is unknown"));
    }
    let Some(period) = policy.get("MessageRetentionPeriod") else { return Ok(None) };
    let days = period.as_u64().or_else(|| period.as_str()?.parse().ok());
    match days.filter(|days| DAYS.contains(days)) {
        Some(days) => Ok(Some(days)),
        None => Err(format!(
            "ArchivePolicy: Invalid value {period} for MessageRetentionPeriod. Must be between {} and {} days.",
            DAYS.start(),
            DAYS.end()
        )),
    }
}

impl Archive {
    /// The archive of a topic, if it has one.
    pub(super) fn of(topic: &Topic) -> Option<Self> {
        let kept_ms = days(topic.attribute("ArchivePolicy")?).ok()?? * DAY_MS;
        let note = topic.note(NOTE)?;
        let since = note.get(SINCE).and_then(Value::as_integer).and_then(|ms| u64::try_from(ms).ok());
        let stream = note.get(QUEUE).and_then(Value::as_text).and_then(|name| topic.vhost.queue(name));
        let stream = stream.filter(|queue| queue.is_stream());
        Some(Self { stream, since: Time(since.unwrap_or_default()), kept_ms })
    }

    /// From when on messages can be replayed.
    pub(super) fn begins(&self, now: Time) -> Time {
        self.since.max(Time(now.0.saturating_sub(self.kept_ms)))
    }
}

/// As it is told.
pub(super) fn beginning(topic: &Topic, now: Time) -> Option<String> {
    Some(envelope::timestamp(Archive::of(topic)?.begins(now).0))
}

/// Makes the archive what the topic's policy says. An archive that ends is gone with all that is in it.
pub(super) fn follow_policy(topic: &Topic, turn: &mut Turn<'_>) -> Result<(), Error> {
    let Some(topic) = Topic::of(&topic.vhost, topic.name(), &topic.account) else { return Ok(()) };
    let days = topic.attribute("ArchivePolicy").and_then(|policy| days(policy).ok().flatten());
    match days {
        Some(days) => keep(&topic, days, turn),
        None => {
            forget(&topic, turn);
            Ok(())
        }
    }
}

fn keep(topic: &Topic, days: u64, turn: &mut Turn<'_>) -> Result<(), Error> {
    let known = Archive::of(topic).and_then(|archive| archive.stream);
    let internal = |error: crate::broker::error::Error| Error::internal(error.to_string());
    let stream = match known {
        Some(stream) => stream,
        None => {
            let name = format!("{QUEUE_PREFIX}{}", new_uuid());
            let arguments = Table::from_iter([("x-queue-type", Value::text("stream"))]);
            let wanted = DeclareQueue { name: &name, durable: true, arguments, ..DeclareQueue::default() };
            let stream = topic.vhost.declare_queue(&wanted, None, turn).map_err(internal)?;
            let arguments = Table::from_iter([(filtered::ENVELOPE, Value::text(LABEL))]);
            let target = Target::Queue(stream.clone());
            topic.vhost.bind(topic.name(), &target, b"", &arguments, turn).map_err(internal)?;
            let since = Value::I64(i64::try_from(turn.now.0).unwrap_or(i64::MAX));
            let note = Table::from_iter([(QUEUE, Value::text(name.as_str())), (SINCE, since)]);
            topic.set_note(NOTE, Some(note), turn);
            stream
        }
    };
    topic.vhost.alter_queue(&stream, |properties| properties.message_ttl_ms = Some(days * DAY_MS), turn);
    Ok(())
}

/// Deletes the archive of a topic.
pub(super) fn forget(topic: &Topic, turn: &mut Turn<'_>) {
    let Some(note) = topic.note(NOTE) else { return };
    if let Some(queue) = note.get(QUEUE).and_then(Value::as_text).and_then(|name| topic.vhost.queue(name)) {
        topic.vhost.remove_queue(&queue, turn);
    }
    topic.set_note(NOTE, None, turn);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_names_from_one_to_365_days() {
        assert_eq!(days(r#"{"MessageRetentionPeriod":"30"}"#), Ok(Some(30)));
        assert_eq!(days(r#"{"MessageRetentionPeriod":365}"#), Ok(Some(365)));
        assert_eq!((days("{}"), days("")), (Ok(None), Ok(None)));
        for wrong in [
            "[]",
            "{",
            r#"{"MessageRetentionPeriod":"0"}"#,
            r#"{"MessageRetentionPeriod":"366"}"#,
            r#"{"MessageRetentionPeriod":"a"}"#,
            r#"{"Retention":"1"}"#,
        ] {
            assert!(days(wrong).is_err(), "{wrong}");
        }
    }
}
