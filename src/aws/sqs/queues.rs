//! Creating, deleting, finding and listing queues.

use std::{collections::HashMap, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{
    attributes::{self, Given, Place as NewPlace},
    queue::{FIFO_SUFFIX, Target, Text, is_listed, is_usable},
    tags::{self, Tags},
};
use crate::{
    aws::{
        call::{Call, Step},
        error::Error,
        sns::policy_changed,
    },
    broker::{access::Access, error::Error as Declined, time::Time, topology::DeclareQueue, turn::Turn, vhost::Vhost},
};

/// Queues that were deleted in the last minute, where their names may not be used again so soon.
#[derive(Default)]
pub(super) struct Deleted(Mutex<HashMap<Place, Time>>);

/// A vhost and a name.
type Place = (Arc<str>, Arc<str>);

const DELETED_MS: u64 = 60_000;

impl Deleted {
    /// Forgets all.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }

    fn note(&self, vhost: &Arc<str>, name: &Arc<str>, now: Time) {
        let mut deleted = self.0.lock();
        deleted.retain(|_, at| now.ms_since(*at) < DELETED_MS);
        deleted.insert((vhost.clone(), name.clone()), now);
    }

    fn is_recent(&self, vhost: &Arc<str>, name: &str, now: Time) -> bool {
        let key = (vhost.clone(), Arc::from(name));
        self.0.lock().get(&key).is_some_and(|at| now.ms_since(*at) < DELETED_MS)
    }
}

/// Queues that one list has at most.
const LISTED_MAX: usize = 1_000;
const NAME_BYTES_MAX: usize = 80;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CreateQueue<'a> {
    #[serde(borrow)]
    queue_name: Option<Text<'a>>,
    attributes: Option<Given>,
    #[serde(rename = "tags", alias = "Tags")]
    tags: Option<Tags>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Address {
    queue_url: String,
}

/// CreateQueue
pub(super) fn create_queue(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: CreateQueue<'_> = input.parse()?;
    let name = call.required(request.queue_name, "QueueName")?;
    let given = request.attributes.unwrap_or_default();
    let vhost = call.vhost(turn)?;
    call.check(turn, &vhost.name, &name, Access::Configure)?;
    let wants_fifo = given.get("FifoQueue").map(|value| value.eq_ignore_ascii_case("true"));
    let is_fifo = check_name(&name, wants_fifo)?;
    if let Some(found) = Target::named(call, turn, &call.caller.account, &name) {
        check_same(call, &found, &given)?;
        turn.wait_for(found.queue.declared_at());
        return call.reply(&Address { queue_url: call.queue_url(&name) });
    }
    let place = NewPlace { call, vhost: &vhost, name: &name, is_fifo, is_new: true };
    let mut properties = attributes::initial(is_fifo, turn.now);
    attributes::apply(&given, &mut properties, &place, turn)?;
    tags::add(request.tags.unwrap_or_default(), &mut properties, &name)?;
    if call.aws.options.queue_deleted_recently && call.aws.sqs.deleted.is_recent(&vhost.name, &name, turn.now) {
        let message =
            "You must wait 60 seconds after deleting a queue before you can create another with the same name.";
        return Err(Error::sqs("QueueDeletedRecently", message));
    }
    let wanted = DeclareQueue { name: &name, durable: true, properties, ..DeclareQueue::default() };
    vhost.declare_queue(&wanted, None, turn).map_err(declined)?;
    if given.contains_key("Policy") {
        policy_changed(&vhost, &call.caller.arn_of(crate::aws::Service::Sqs, &name), turn)?;
    }
    call.reply(&Address { queue_url: call.queue_url(&name) })
}

/// Whether a queue of that name keeps an order; refuses names that cannot be.
fn check_name(name: &str, wants_fifo: Option<bool>) -> Result<bool, Error> {
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let refuse = |message: &str| Err(Error::sqs("InvalidParameterValueException", message));
    let stem = name.strip_suffix(FIFO_SUFFIX);
    let is_short = name.len() <= NAME_BYTES_MAX;
    match (wants_fifo, stem) {
        (Some(true), Some(stem)) if is_short && is_word(stem) => Ok(true),
        (Some(true), _) => refuse(
            "The name of a FIFO queue can only include alphanumeric characters, hyphens, or underscores, must end \
             with .fifo suffix and be 1 to 80 in length",
        ),
        (_, None) if is_short && is_word(name) => Ok(false),
        _ => refuse("Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length"),
    }
}

/// Refuses to create a queue that exists otherwise.
fn check_same(call: &Call, found: &Target, given: &Given) -> Result<(), Error> {
    let differs = given.iter().find(|(name, value)| {
        let current = attributes::value(name, call, found);
        !attributes::is_same(name, value, current.as_deref())
    });
    match differs {
        None => Ok(()),
        Some((name, _)) if !attributes::NAMES.contains(&name.as_str()) => Err(attributes::unknown(name)),
        Some((name, _)) => {
            let message =
                format!("A queue already exists with the same name and a different value for attribute {name}");
            Err(Error::sqs("QueueNameExists", message))
        }
    }
}

/// Why the broker has declined, in words of SQS.
pub(super) fn declined(error: Declined) -> Error {
    match error {
        Declined::LimitReached(message) => Error::sqs("OverLimit", message),
        other => Error::sqs("InvalidParameterValueException", other.to_string()),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ByAddress<'a> {
    #[serde(borrow)]
    queue_url: Option<Text<'a>>,
}

/// DeleteQueue
pub(super) fn delete_queue(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: ByAddress<'_> = input.parse()?;
    let target = Target::find(call, turn, request.queue_url.as_deref(), Access::Configure)?;
    target.vhost.remove_queue(&target.queue, turn);
    call.aws.sqs.deleted.note(&target.vhost.name, &target.queue.name, turn.now);
    call.reply_done()
}

#[derive(Deserialize)]
struct GetQueueUrl<'a> {
    #[serde(borrow, rename = "QueueName")]
    name: Option<Text<'a>>,
    #[serde(borrow, rename = "QueueOwnerAWSAccountId")]
    account: Option<Text<'a>>,
}

/// GetQueueUrl
pub(super) fn get_queue_url(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: GetQueueUrl<'_> = input.parse()?;
    let name = call.required(request.name, "QueueName")?;
    let account = request.account.as_deref().unwrap_or(&call.caller.account);
    let found = Target::named(call, turn, account, &name).ok_or_else(|| match call.caller.is_anonymous() {
        true => call.denied(),
        false => Error::queue_does_not_exist(call.wire),
    })?;
    found.check_any(call, turn)?;
    turn.wait_for(found.queue.declared_at());
    call.reply(&Address { queue_url: call.queue_url_of(account, &name) })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListQueues<'a> {
    #[serde(borrow)]
    queue_name_prefix: Option<Text<'a>>,
    #[serde(borrow)]
    next_token: Option<Text<'a>>,
    max_results: Option<i64>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    queue_urls: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

/// ListQueues
pub(super) fn list_queues(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: ListQueues<'_> = input.parse()?;
    let vhost = call.vhost(turn)?;
    let prefix = request.queue_name_prefix.unwrap_or_default();
    let names = names(call, turn, &vhost, |queue| queue.name.starts_with(&*prefix));
    let (names, next_token) = page(names, request.max_results, request.next_token.as_deref())?;
    let queue_urls = names.iter().map(|name| call.queue_url(name)).collect();
    call.reply(&Listed { queue_urls, next_token })
}

/// Names of those queues of a vhost that the caller may know of, in order.
fn names(
    call: &Call,
    turn: &Turn<'_>,
    vhost: &Vhost,
    is_wanted: impl Fn(&crate::broker::queue::Queue) -> bool,
) -> Vec<Arc<str>> {
    let any = [Access::Read, Access::Write, Access::Configure];
    let is_known =
        |name: &str| call.caller.is_trusted || any.into_iter().any(|access| call.may(turn, &vhost.name, name, access));
    let all = vhost.queues().into_iter().filter(|queue| is_listed(queue) && is_wanted(queue) && is_known(&queue.name));
    let mut names: Vec<_> = all.map(|queue| queue.name.clone()).collect();
    names.sort();
    names
}

/// A page of names, and the token of the next.
fn page(
    mut names: Vec<Arc<str>>,
    max: Option<i64>,
    token: Option<&str>,
) -> Result<(Vec<Arc<str>>, Option<String>), Error> {
    let count = match max {
        None => LISTED_MAX,
        Some(max) => usize::try_from(max).ok().filter(|max| (1..=LISTED_MAX).contains(max)).ok_or_else(|| {
            let reason = format!("MaxResults must be an integer between 1 and {LISTED_MAX}.");
            Error::invalid_value(max, "MaxResults", &reason)
        })?,
    };
    if let Some(token) = token.filter(|token| !token.is_empty()) {
        let after = STANDARD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let after = after.ok_or_else(|| Error::invalid_value(token, "NextToken", "Invalid or expired token."))?;
        names.drain(..names.partition_point(|name| **name <= *after));
    }
    let has_more = names.len() > count;
    names.truncate(count);
    // Whoever does not ask for pages gets no token, as with AWS.
    let last = names.last().filter(|_| has_more && max.is_some());
    let next = last.map(|name| STANDARD.encode(name.as_bytes()));
    Ok((names, next))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListSources<'a> {
    #[serde(borrow)]
    queue_url: Option<Text<'a>>,
    #[serde(borrow)]
    next_token: Option<Text<'a>>,
    max_results: Option<i64>,
}

#[derive(Serialize)]
struct Sources {
    #[serde(rename = "queueUrls")]
    queue_urls: Vec<String>,
    #[serde(rename = "NextToken", skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

/// ListDeadLetterSourceQueues
pub(super) fn list_dead_letter_source_queues(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: ListSources<'_> = input.parse()?;
    let target = Target::find_any(call, turn, request.queue_url.as_deref())?;
    let dead = &target.queue.name;
    let names = names(call, turn, &target.vhost, |queue| is_source_of(queue, dead));
    let (names, next_token) = page(names, request.max_results, request.next_token.as_deref())?;
    let account = call.aws.options.account_of(&target.vhost.name).unwrap_or(&call.caller.account);
    let queue_urls = names.iter().map(|name| call.queue_url_of(account, name)).collect();
    call.reply(&Sources { queue_urls, next_token })
}

/// Whether what fails in a queue goes to the one called `dead`.
pub(super) fn is_source_of(queue: &crate::broker::queue::Queue, dead: &str) -> bool {
    is_usable(queue) && queue.properties().dead_queue.as_deref() == Some(dead)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_queues_are_words_of_80_and_fifo_by_their_end() {
        assert!(!check_name("a-Z_9", None).unwrap());
        assert!(!check_name(&"x".repeat(80), Some(false)).unwrap());
        assert!(check_name("a.fifo", Some(true)).unwrap());
        for (name, wants_fifo) in [
            ("", None),
            ("a.b", None),
            ("a.fifo", None),
            ("a", Some(true)),
            (".fifo", Some(true)),
            (&*"x".repeat(81), None),
        ] {
            assert!(check_name(name, wants_fifo).is_err(), "{name}");
        }
    }

    #[test]
    fn pages_follow_one_another() {
        let names: Vec<Arc<str>> = ["a", "b", "c"].into_iter().map(Arc::from).collect();
        let (first, token) = page(names.clone(), Some(2), None).unwrap();
        assert_eq!(first, names[..2]);
        let (second, end) = page(names.clone(), Some(2), token.as_deref()).unwrap();
        assert_eq!((second.as_slice(), end), (&names[2..], None));
        assert_eq!(page(names.clone(), None, None).unwrap(), (names.clone(), None));
        assert!(page(names.clone(), Some(0), None).is_err());
        assert!(page(names, Some(1), Some("?")).is_err());
    }

    #[test]
    fn a_name_is_free_again_after_a_minute() {
        let deleted = Deleted::default();
        let (vhost, name): (Arc<str>, Arc<str>) = ("/".into(), "q".into());
        deleted.note(&vhost, &name, Time(0));
        assert!(deleted.is_recent(&vhost, "q", Time(59_999)));
        assert!(!deleted.is_recent(&vhost, "q", Time(60_000)));
        assert!(!deleted.is_recent(&vhost, "other", Time(1)));
    }
}
