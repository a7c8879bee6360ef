//! Deliveries that somebody else makes: what a webhook is handed of a message, and what a mail says.
//!
//! A webhook gets a JSON object by POST for each message:
//!
//! ```text
//! {
//!   "Protocol": "sms", "Endpoint": "+15551234567", "SubscriptionArn": "...", "TopicArn": "...",
//!   "Type": "Notification", "MessageId": "...", "Subject": "...", "Message": "...", "MessageAttributes": {...},
//!   "Timestamp": "...", "Attempt": 1, "Notification": "the envelope, or the raw message"
//! }
//! ```
//!
//! What is for one phone number or one mobile endpoint has no topic and no subscription.

use serde_json::{Map, Value as Json, json};

use super::{
    envelope::{KIND_HEADER, SUBJECT_HEADER, TEXTS_HEADER, shown_attributes, timestamp},
    outbox::{ENDPOINT_HEADER, PROTOCOL_HEADER},
    retries::Retries,
    subscription::Subscription,
    topic,
};
use crate::{
    aws::message::{Contents, body_text},
    broker::{message::Message, value::ValueRef, vhost::Vhost},
};

/// Seconds between the first attempts in the longest case, in terms of the shortest.
const DELAY_GROWTH: u64 = 60;

/// When a delivery to a webhook or a mail relay is tried again: fifty times, at ever longer intervals, as the service
/// does with mail, text messages and mobile push. With the least delay of ten seconds that is over six hours.
pub fn retries(min_ms: u64) -> Retries {
    let policy = json!({
        "numRetries": 50, "numNoDelayRetries": 0, "numMinDelayRetries": 2, "numMaxDelayRetries": 38,
        "backoffFunction": "exponential",
    });
    Retries::new(&policy).between(min_ms, min_ms * DELAY_GROWTH)
}

/// Who is to get a message that has no subscription.
pub fn recipient(message: &Message, account: &str, region: &str) -> Subscription {
    let contents = Contents::read(message);
    let header = |name: &str| contents.headers.get(name).and_then(ValueRef::as_text).unwrap_or_default().to_owned();
    Subscription {
        protocol: header(PROTOCOL_HEADER),
        endpoint: header(ENDPOINT_HEADER),
        owner: account.to_owned(),
        region: region.to_owned(),
        ..Subscription::default()
    }
}

/// What deliveries to it are counted under.
pub fn account_of(of: &Subscription) -> String {
    if of.id.is_empty() { format!("{} without subscription", of.protocol) } else { of.arn(&of.region) }
}

/// A message as a webhook gets it.
pub fn for_webhook(of: &Subscription, message: &Message, attempt: u32) -> Json {
    let given = Given::new(of, message);
    let mut told = Map::new();
    let mut put = |name: &str, value: Json| _ = told.insert(name.to_owned(), value);
    put("Protocol", of.protocol.as_str().into());
    put("Endpoint", of.endpoint.as_str().into());
    if !of.id.is_empty() {
        put("SubscriptionArn", of.arn(&of.region).into());
        put("TopicArn", of.topic_arn(&of.region).into());
    }
    put("Type", given.kind.clone().into());
    put("MessageId", given.message_id.into());
    if let Some(subject) = given.subject {
        put("Subject", subject.into());
    }
    put("Message", given.text.into());
    for name in ["Token", "SubscribeURL", "UnsubscribeURL"] {
        if let Some(value) = given.envelope.as_ref().and_then(|envelope| envelope.get(name)) {
            put(name, value.clone());
        }
    }
    if !given.attributes.is_empty() {
        put("MessageAttributes", given.attributes.into());
    }
    put("Timestamp", given.timestamp.into());
    put("Attempt", attempt.into());
    put("Notification", body_text(message).text.into());
    told.into()
}

/// What the publisher was told that a message is called, as far as that is known.
pub fn message_id(of: &Subscription, message: &Message) -> String {
    Given::new(of, message).message_id
}

/// A mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// Who gets it.
    pub to: String,
    /// The name of whom it is from: the topic's, if it has one.
    pub from_name: Option<String>,
    /// Its subject.
    pub subject: String,
    /// Its text.
    pub text: String,
}

/// A message as a mail.
pub fn for_mail(of: &Subscription, vhost: &Vhost, message: &Message) -> Mail {
    let given = Given::new(of, message);
    let notes = vhost.exchange(&of.topic).map(|exchange| exchange.notes());
    let display = notes.as_deref().and_then(|notes| topic::attribute(notes, "DisplayName"));
    let link = |name: &str| given.envelope.as_ref().and_then(|all| all.get(name)?.as_str()).unwrap_or_default();
    let topic = of.topic_arn(&of.region);
    let subject = match &*given.kind {
        "SubscriptionConfirmation" => "AWS Notification - Subscription Confirmation".to_owned(),
        "UnsubscribeConfirmation" => "AWS Notification - Unsubscribe Confirmation".to_owned(),
        _ => given.subject.clone().unwrap_or_else(|| "AWS Notification Message".to_owned()),
    };
    let text = match &*given.kind {
        _ if of.protocol == "email-json" => body_text(message).text.into_owned(),
        "SubscriptionConfirmation" => format!(
            "You have chosen to subscribe to the topic:\n{topic}\n\nTo confirm this subscription, visit the link below \
             (if this was in error, no action is necessary):\n{}\n",
            link("SubscribeURL")
        ),
        "UnsubscribeConfirmation" => format!(
            "Your subscription to the topic below has been deleted:\n{topic}\n\nIf this was in error, visit the link \
             below to subscribe again:\n{}\n",
            link("SubscribeURL")
        ),
        _ => match link("UnsubscribeURL") {
            "" => given.text,
            link => format!(
                "{}\n\n--\nIf you wish to stop receiving notifications from this topic, visit the link below to \
                 unsubscribe:\n{link}\n",
                given.text
            ),
        },
    };
    let from_name = display.filter(|name| !name.is_empty()).map(ToOwned::to_owned);
    // A line break would begin a header.
    let subject = subject.replace(['\r', '\n'], " ");
    Mail { to: of.endpoint.clone(), from_name, subject, text }
}

/// What a message says, whatever form it is in.
struct Given {
    kind: String,
    message_id: String,
    subject: Option<String>,
    text: String,
    timestamp: String,
    attributes: Map<String, Json>,
    envelope: Option<Map<String, Json>>,
}

impl Given {
    fn new(of: &Subscription, message: &Message) -> Self {
        let contents = Contents::read(message);
        let header = |name: &str| contents.headers.get(name).and_then(ValueRef::as_text);
        let kind = header(KIND_HEADER);
        let is_enveloped = kind.is_some() || !of.id.is_empty() && !of.is_raw();
        let whole = body_text(message).text;
        let envelope = match serde_json::from_str(&whole) {
            Ok(Json::Object(envelope)) if is_enveloped => Some(envelope),
            _ => None,
        };
        let of_envelope = |name: &str| envelope.as_ref().and_then(|all| all.get(name)?.as_str()).map(ToOwned::to_owned);
        // What has no envelope may have a text for its protocol.
        let texts = contents.headers.get(TEXTS_HEADER).and_then(ValueRef::as_headers);
        let own = texts.and_then(|texts| texts.get(&of.protocol)?.as_text());
        let text = of_envelope("Message").or_else(|| own.map(ToOwned::to_owned)).unwrap_or_else(|| whole.into_owned());
        Self {
            kind: kind.unwrap_or("Notification").to_owned(),
            message_id: of_envelope("MessageId").unwrap_or_else(|| contents.message_id.unwrap_or_default().to_owned()),
            subject: of_envelope("Subject").or_else(|| header(SUBJECT_HEADER).map(ToOwned::to_owned)),
            text,
            timestamp: of_envelope("Timestamp").unwrap_or_else(|| timestamp(contents.sent_ms.unwrap_or_default())),
            attributes: match &envelope {
                Some(envelope) => {
                    envelope.get("MessageAttributes").and_then(Json::as_object).cloned().unwrap_or_default()
                }
                None => shown_attributes(&contents.attributes()),
            },
            envelope,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifty_retries_are_ever_longer_apart() {
        let retries = retries(10_000);
        let delays: Vec<_> = (1..).map_while(|retry| retries.delay_ms(retry)).collect();
        assert_eq!((delays.len(), delays[0], delays[1], delays[49]), (50, 10_000, 10_000, 600_000));
        assert!(delays.is_sorted());
        let hours = delays.iter().sum::<u64>() / 3_600_000;
        assert!((6..8).contains(&hours), "{hours} hours");
    }
}
