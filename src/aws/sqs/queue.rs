//! Which queue a call means, and what that queue is to SQS.

use std::{borrow::Cow, collections::HashMap, fmt, sync::Arc};

use parking_lot::Mutex;
use serde::{Deserialize, Deserializer, de};

use super::attributes::{self, note};
use crate::{
    aws::{
        call::{Arn, Call, parse_queue_url},
        error::Error,
        policy::Policy,
    },
    broker::{
        access::Access,
        queue::{Queue, properties::Properties},
        record::QueueId,
        turn::Turn,
        vhost::Vhost,
    },
};

/// A queue that a call means.
pub(super) struct Target {
    pub(super) vhost: Arc<Vhost>,
    pub(super) queue: Arc<Queue>,
    pub(super) properties: Arc<Properties>,
    /// Its messages have an order and groups, as its name says.
    pub(super) is_fifo: bool,
}

/// Access policies of queues, compiled.
#[derive(Default)]
pub(super) struct Policies(Mutex<HashMap<QueueId, Compiled>>);

/// A policy, and the properties that have its text.
type Compiled = (Arc<Properties>, Arc<Policy>);

/// Policies that are kept compiled. Full: all are compiled anew.
const POLICIES_MAX: usize = 4_096;

impl Policies {
    /// The policy of a queue that has one. One that cannot be understood, as it may come out of a file, says nothing.
    fn of(&self, target: &Target) -> Option<Arc<Policy>> {
        let properties = &target.properties;
        let text = attributes::text(&properties.notes, note::POLICY)?;
        let mut policies = self.0.lock();
        if let Some((of, policy)) = policies.get(&target.queue.id)
            && Arc::ptr_eq(of, properties)
        {
            return Some(policy.clone());
        }
        let policy = Arc::new(Policy::parse(text).unwrap_or_default());
        if policies.len() >= POLICIES_MAX {
            policies.clear();
        }
        policies.insert(target.queue.id, (properties.clone(), policy.clone()));
        Some(policy)
    }
}

/// The end of the names of queues that keep an order.
pub(super) const FIFO_SUFFIX: &str = ".fifo";

/// The beginning of the names of queues that are no queues of SQS.
const HIDDEN_PREFIX: &str = "tern.";

impl Target {
    /// The queue with that address, for a caller that may use it so.
    pub(super) fn find(call: &Call, turn: &Turn<'_>, url: Option<&str>, access: Access) -> Result<Self, Error> {
        let url = call.required(url.filter(|url| !url.is_empty()), "QueueUrl")?;
        let found = Self::find_unchecked(call, turn, url)?;
        let is_permitted = call.may(turn, &found.vhost.name, &found.queue.name, access);
        if found.is_allowed(call, turn, is_permitted) { Ok(found) } else { Err(call.denied()) }
    }

    /// The queue with that address, for a caller that may use it in any way.
    pub(super) fn find_any(call: &Call, turn: &Turn<'_>, url: Option<&str>) -> Result<Self, Error> {
        let url = call.required(url.filter(|url| !url.is_empty()), "QueueUrl")?;
        let found = Self::find_unchecked(call, turn, url)?;
        found.check_any(call, turn)?;
        Ok(found)
    }

    fn find_unchecked(call: &Call, turn: &Turn<'_>, url: &str) -> Result<Self, Error> {
        let missing = || match call.caller.is_anonymous() {
            // Whoever says nothing of himself is not told which queues there are.
            true => call.denied(),
            false => Error::queue_does_not_exist(call.wire),
        };
        // A name alone is taken for one of the caller's queues, as AWS does.
        let (account, name) = parse_queue_url(url).unwrap_or((&call.caller.account, url.into()));
        Self::named(call, turn, account, &name).ok_or_else(missing)
    }

    /// The queue of that name in an account.
    pub(super) fn named(call: &Call, turn: &Turn<'_>, account: &str, name: &str) -> Option<Self> {
        let vhost = call.vhost_of(account, turn).ok()?;
        let queue = vhost.queue(name).filter(|queue| is_usable(queue))?;
        let (properties, is_fifo) = (queue.properties(), name.ends_with(FIFO_SUFFIX));
        Some(Self { vhost, queue, properties, is_fifo })
    }

    /// The queue of that ARN.
    pub(super) fn of_arn(call: &Call, turn: &Turn<'_>, arn: &str) -> Option<Self> {
        let arn = Arn::parse(arn).filter(|arn| arn.service == "sqs")?;
        Self::named(call, turn, arn.account, &arn.name)
    }

    pub(super) fn check_any(&self, call: &Call, turn: &Turn<'_>) -> Result<(), Error> {
        let any = [Access::Read, Access::Write, Access::Configure];
        let is_permitted = any.into_iter().any(|access| call.may(turn, &self.vhost.name, &self.queue.name, access));
        if self.is_allowed(call, turn, is_permitted) { Ok(()) } else { Err(call.denied()) }
    }

    /// Whether the queue's access policy and the permissions of the caller's user come to that the call may be done.
    fn is_allowed(&self, call: &Call, turn: &Turn<'_>, is_permitted: bool) -> bool {
        let Some(policy) = call.aws.sqs.policies.of(self) else { return is_permitted };
        call.is_allowed(&policy, &self.arn(call), is_permitted, turn.now)
    }

    pub(super) fn arn(&self, call: &Call) -> String {
        arn_of(call, &self.vhost, &self.queue.name)
    }
}

/// The ARN of a queue of that vhost, in the region of the caller.
pub(super) fn arn_of(call: &Call, vhost: &Vhost, name: &str) -> String {
    let account = call.aws.options.account_of(&vhost.name).unwrap_or(&call.caller.account);
    format!("arn:aws:sqs:{}:{account}:{}", call.caller.region, crate::aws::call::encoded(name))
}

/// Whether a queue is one that SQS has: not of one connection, and one that is read by taking from it.
pub(super) fn is_usable(queue: &Queue) -> bool {
    queue.declaration.owner.is_none() && !queue.is_stream() && !queue.is_deleted()
}

/// Whether a queue is told of in lists.
pub(super) fn is_listed(queue: &Queue) -> bool {
    is_usable(queue) && !queue.name.starts_with(HIDDEN_PREFIX) && !queue.name.starts_with("amq.")
}

/// Whether a name is a legal id of a group or for deduplication, or of an attempt.
pub(super) fn is_id(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Refuses a parameter that no id of that kind can be.
pub(super) fn check_id(text: Option<&str>, parameter: &str) -> Result<(), Error> {
    match text {
        Some(text) if !is_id(text) => {
            let reason =
                format!("{parameter} can only include alphanumeric and punctuation characters. 1 to 128 in length.");
            Err(Error::invalid_value(text, parameter, &reason))
        }
        _ => Ok(()),
    }
}

/// A text of an input, which stays where it is if it can.
#[derive(Clone, Debug, Default)]
pub(super) struct Text<'a>(Cow<'a, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(text.into())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor).map(Text)
    }
}

struct TextVisitor;

impl<'de> de::Visitor<'de> for TextVisitor {
    type Value = Cow<'de, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_up_to_128_letters_digits_and_punctuation() {
        for id in ["a", "A-9_!~", &"x".repeat(128)] {
            assert!(is_id(id), "{id}");
        }
        for id in ["", "a b", "\u{e4}", "a\n", &"x".repeat(129)] {
            assert!(!is_id(id), "{id}");
        }
    }

    #[test]
    fn a_text_without_escapes_is_borrowed() {
        let plain: Text<'_> = serde_json::from_str("\"plain\"").unwrap();
        assert!(matches!(plain.0, Cow::Borrowed("plain")));
        let escaped: Text<'_> = serde_json::from_str("\"a\\n\"").unwrap();
        assert_eq!(&*escaped, "a\n");
    }
}
