//! Deliveries over HTTP as far as they need no socket: what is sent, what an answer means, what becomes of what cannot
//! be delivered, and how deliveries have gone.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use parking_lot::Mutex;
use serde_json::{Value as Json, json};

use super::{
    arn::new_uuid,
    delivery_policy,
    envelope::{KIND_HEADER, TOPIC_HEADER},
    handover,
    retries::Retries,
    subscription::Subscription,
    topic,
};
use crate::{
    aws::{
        Aws,
        message::{Contents, Draft},
        pages::Page,
    },
    broker::{
        Broker, message::Message, publish::Batch, queue::Queue, time::Time, turn::Turn, value::ValueRef, vhost::Vhost,
    },
};

/// How messages of a subscription are delivered.
#[derive(Clone, Debug)]
pub struct Plan {
    /// When it is tried again.
    pub retries: Retries,
    /// Messages in a second, at most.
    pub per_second_max: Option<f64>,
    /// The content type that is sent.
    pub content_type: String,
}

impl Plan {
    /// For what somebody else delivers; the first retry comes after so many milliseconds.
    pub fn handed_over(retry_min_ms: u64) -> Self {
        Self { retries: handover::retries(retry_min_ms), per_second_max: None, content_type: JSON.to_owned() }
    }

    /// What the policies of a subscription and its topic come to.
    pub fn new(vhost: &Vhost, of: &Subscription) -> Self {
        let notes = vhost.exchange(&of.topic).map(|exchange| exchange.notes());
        let of_topic = notes.as_deref().and_then(|notes| topic::attribute(notes, "DeliveryPolicy"));
        let own = of.attributes.get("DeliveryPolicy").map(String::as_str);
        let policy = delivery_policy::effective_of_subscription(own, of_topic);
        let per_second_max = policy.pointer("/throttlePolicy/maxReceivesPerSecond").and_then(Json::as_f64);
        let content_type = policy.pointer("/requestPolicy/headerContentType").and_then(Json::as_str);
        Self {
            retries: Retries::new(&policy["healthyRetryPolicy"]),
            per_second_max: per_second_max.filter(|limit| *limit > 0.0),
            content_type: content_type.unwrap_or("text/plain; charset=UTF-8").to_owned(),
        }
    }
}

const JSON: &str = "application/json";

/// What is posted to an endpoint.
#[derive(Clone, Debug)]
pub struct Post {
    /// The endpoint without what stands for a user in it.
    pub url: String,
    /// Headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// It says that the subscription is over: nothing follows it.
    pub is_farewell: bool,
}

impl Post {
    /// Makes what is posted of a message to a webhook, at that address.
    pub fn to_webhook(url: &str, of: &Subscription, message: &Message, attempt: u32) -> Self {
        let told = handover::for_webhook(of, message, attempt);
        let (url, user) = split_user(url);
        let mut headers = vec![("user-agent", AGENT.to_owned()), ("content-type", JSON.to_owned())];
        if let Some(user) = user {
            headers.push(("authorization", format!("Basic {}", STANDARD.encode(user))));
        }
        Self { url, headers, body: told.to_string().into_bytes(), is_farewell: is_farewell(message) }
    }

    /// Makes what is posted of a message.
    pub fn new(of: &Subscription, plan: &Plan, message: &Message) -> Self {
        let contents = Contents::read(message);
        let header = |name: &str| contents.headers.get(name).and_then(ValueRef::as_text);
        let kind = header(KIND_HEADER);
        let is_raw = kind.is_none() && of.is_raw();
        // In its envelope it has the same.
        let message_id = contents.message_id.unwrap_or_default().to_owned();
        let mut headers = vec![
            ("user-agent", AGENT.to_owned()),
            ("content-type", plan.content_type.clone()),
            ("x-amz-sns-message-type", kind.unwrap_or("Notification").to_owned()),
            ("x-amz-sns-message-id", message_id),
            ("x-amz-sns-topic-arn", header(TOPIC_HEADER).map_or_else(|| of.topic_arn(&of.region), ToOwned::to_owned)),
        ];
        // An endpoint that has not confirmed knows no subscription.
        if kind != Some("SubscriptionConfirmation") {
            headers.push(("x-amz-sns-subscription-arn", of.arn(&of.region)));
        }
        if is_raw {
            headers.push(("x-amz-sns-rawdelivery", "true".to_owned()));
        }
        let (url, user) = split_user(&of.endpoint);
        if let Some(user) = user {
            headers.push(("authorization", format!("Basic {}", STANDARD.encode(user))));
        }
        Self { url, headers, body: message.body_to_vec(), is_farewell: kind == Some("UnsubscribeConfirmation") }
    }
}

/// A message says that its subscription is over: nothing follows it.
pub fn is_farewell(message: &Message) -> bool {
    Contents::read(message).headers.get(KIND_HEADER).and_then(ValueRef::as_text) == Some("UnsubscribeConfirmation")
}

/// What endpoints are told that we are. Some look at it.
const AGENT: &str = "Amazon Simple Notification Service Agent";

/// Splits `user:password` off an address.
fn split_user(endpoint: &str) -> (String, Option<Vec<u8>>) {
    let Some((scheme, rest)) = endpoint.split_once("://") else { return (endpoint.to_owned(), None) };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((user, host)) => {
            let user = percent_encoding::percent_decode_str(user).collect();
            (format!("{scheme}://{host}{path}"), Some(user))
        }
        None => (endpoint.to_owned(), None),
    }
}

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The endpoint has it.
    Delivered,
    /// It may have it another time.
    Again,
    /// It will not have it.
    Refused,
}

impl Verdict {
    /// By the status of the answer: an endpoint that is overloaded or broken is asked again, one that refuses is not.
    pub fn of_status(status: u16) -> Self {
        match status {
            200..=299 => Self::Delivered,
            408 | 425 | 429 | 500..=599 => Self::Again,
            _ => Self::Refused,
        }
    }
}

/// Moves what cannot be delivered to the subscription's dead-letter queue; false when it has none.
pub fn give_up(of: &Subscription, vhost: &Arc<Vhost>, message: &Message, turn: &mut Turn<'_>) -> bool {
    let Some(name) = of.dead_letter_queue() else { return false };
    let Some(_queue): Option<Arc<Queue>> = vhost.queue(&name) else { return false };
    let contents = Contents::read(message);
    // What an envelope holds is not said a second time.
    let attributes = if of.is_raw() { contents.attributes() } else { Vec::new() };
    let body = message.body_to_vec();
    let draft = Draft {
        key: &name,
        body: &body,
        message_id: &new_uuid(),
        sent: turn.now,
        attributes: &attributes,
        ..Draft::default()
    };
    let message = draft.build();
    let exchange = vhost.default_exchange().clone();
    let route = Arc::new(vhost.route(&exchange, &message, &[], None, turn));
    let mut batch = Batch::default();
    batch.push(message, &route);
    batch.place(turn, &mut Vec::new());
    true
}

/// The page of how deliveries have gone. A subscription whose queue refuses it delivers nothing there, and is told of.
pub(super) fn page(aws: &Aws, broker: &Broker) -> Page {
    let mut told = aws.sns.outcomes.to_json();
    let mut refused = Vec::new();
    for vhost in broker.vhosts() {
        for (_, of) in Subscription::list(broker, &vhost.name, None, "", usize::MAX) {
            if !of.is_gone && of.is_refused(&vhost) {
                let dead = of.dead_letter_queue().filter(|name| vhost.queue(name).is_some());
                refused.push(json!({
                    "SubscriptionArn": of.arn(&of.region),
                    "LastOutcome": REFUSED,
                    "DeadLetterQueue": dead,
                }));
            }
        }
    }
    if let Some(all) = told["Deliveries"].as_array_mut() {
        all.extend(refused);
    }
    Page::json(&told)
}

/// What is told of a subscription whose queue does not let its topic send.
const REFUSED: &str = "refused: the access policy of the queue does not let sns.amazonaws.com send for this topic";

/// How deliveries have gone since the start, by subscription, and the last of them one by one.
#[derive(Debug, Default)]
pub struct Outcomes(Mutex<HashMap<String, Outcome>>, Mutex<VecDeque<Attempt>>);

/// Attempts that are remembered. Full: the oldest is forgotten; it stays counted.
const ATTEMPTS_MAX: usize = 1_000;

/// One attempt to deliver a message.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The subscription, or what stands in its place.
    pub subscription: String,
    /// Its protocol.
    pub protocol: String,
    /// Where to.
    pub endpoint: String,
    /// The message.
    pub message_id: String,
    /// Which attempt it was, from one.
    pub number: u32,
    /// What became of the message.
    pub outcome: &'static str,
    /// What was answered.
    pub answer: String,
    /// When that was.
    pub at: Time,
}

/// How deliveries to one subscription have gone.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Messages that the endpoint has.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Messages that were given up and went to the dead-letter queue.
    pub dead_lettered: u64,
    /// Messages that were given up, and there was no dead-letter queue.
    pub dropped: u64,
    /// What came of the last attempt, and when.
    pub last: String,
    /// When that was.
    pub last_at: Time,
}

impl Outcomes {
    /// Notes something of a subscription.
    pub fn note(&self, subscription: &str, note: impl FnOnce(&mut Outcome)) {
        let mut outcomes = self.0.lock();
        match outcomes.get_mut(subscription) {
            Some(outcome) => note(outcome),
            None => note(outcomes.entry(subscription.to_owned()).or_default()),
        }
    }

    /// Remembers an attempt.
    pub fn remember(&self, attempt: Attempt) {
        let mut attempts = self.1.lock();
        if attempts.len() >= ATTEMPTS_MAX {
            attempts.pop_front();
        }
        attempts.push_back(attempt);
    }

    /// Forgets a subscription that is no more.
    pub fn forget(&self, subscription: &str) {
        self.0.lock().remove(subscription);
    }

    /// Forgets all subscriptions.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
        self.1.lock().clear();
    }

    /// How deliveries to a subscription have gone.
    pub fn of(&self, subscription: &str) -> Option<Outcome> {
        self.0.lock().get(subscription).cloned()
    }

    /// All of them, by subscription.
    pub fn to_json(&self) -> Json {
        let outcomes = self.0.lock();
        let mut all: Vec<_> = outcomes.iter().collect();
        all.sort_by_key(|(subscription, _)| *subscription);
        let entry = |(subscription, outcome): (&String, &Outcome)| {
            json!({
                "SubscriptionArn": subscription,
                "Delivered": outcome.delivered,
                "FailedAttempts": outcome.failed,
                "DeadLettered": outcome.dead_lettered,
                "Dropped": outcome.dropped,
                "LastOutcome": outcome.last,
                "LastTimestamp": outcome.last_at.0,
            })
        };
        let deliveries: Vec<_> = all.into_iter().map(entry).collect();
        let shown = |attempt: &Attempt| {
            json!({
                "SubscriptionArn": attempt.subscription,
                "Protocol": attempt.protocol,
                "Endpoint": attempt.endpoint,
                "MessageId": attempt.message_id,
                "Attempt": attempt.number,
                "Outcome": attempt.outcome,
                "Answer": attempt.answer,
                "Timestamp": attempt.at.0,
            })
        };
        let attempts: Vec<_> = self.1.lock().iter().rev().map(shown).collect();
        json!({ "Deliveries": deliveries, "Attempts": attempts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_in_an_address_becomes_a_header() {
        assert_eq!(
            split_user("https://me:p%40ss@host:8/a@b?c"),
            ("https://host:8/a@b?c".to_owned(), Some(b"me:p@ss".to_vec()))
        );
        assert_eq!(split_user("http://host/a@b"), ("http://host/a@b".to_owned(), None));
        assert_eq!(split_user("nonsense"), ("nonsense".to_owned(), None));
    }

    #[test]
    fn an_endpoint_that_refuses_is_not_asked_again() {
        for (status, verdict) in [
            (200, Verdict::Delivered),
            (204, Verdict::Delivered),
            (301, Verdict::Refused),
            (404, Verdict::Refused),
            (410, Verdict::Refused),
            (429, Verdict::Again),
            (503, Verdict::Again),
        ] {
            assert_eq!(Verdict::of_status(status), verdict, "{status}");
        }
    }

    #[test]
    fn outcomes_are_counted_by_subscription() {
        let outcomes = Outcomes::default();
        outcomes.note("b", |outcome| outcome.delivered += 1);
        outcomes.note("a", |outcome| outcome.failed += 2);
        outcomes.note("b", |outcome| outcome.delivered += 1);
        let shown = outcomes.to_json();
        assert_eq!(shown["Deliveries"][0]["FailedAttempts"], 2);
        assert_eq!(shown["Deliveries"][1]["Delivered"], 2);
        outcomes.forget("b");
        assert!(outcomes.of("b").is_none());
    }
}
