//! Endpoints that are asked whether they want a subscription, and told that it is over.
//!
//! What they are sent waits in the subscription's own queue, like its messages, until a deliverer takes it.

use std::sync::Arc;

use super::{
    arn::new_uuid,
    envelope::{self, Notice},
    subscription::Subscription,
};
use crate::{
    aws::{
        call::Call,
        message::{Draft, hex},
    },
    broker::{publish::Batch, turn::Turn, value::Value, vhost::Vhost},
};

/// Milliseconds in which a subscription may be confirmed: two days.
pub(super) const TOKEN_MS: u64 = 2 * 24 * 3_600 * 1_000;
/// Characters of a token.
const TOKEN_LEN: usize = 288;

/// A token that nobody can guess.
pub(super) fn new_token() -> String {
    let mut bytes = [0; TOKEN_LEN / 2];
    // Without a source of randomness the broker does not start.
    let _ = getrandom::fill(&mut bytes);
    hex(&bytes)
}

/// Whether it looks like one.
pub(super) fn is_token(text: &str) -> bool {
    text.len() == TOKEN_LEN && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Asks an endpoint to confirm its subscription.
pub(super) fn ask(call: &Call, of: &Subscription, vhost: &Arc<Vhost>, turn: &mut Turn<'_>) {
    let topic = of.topic_arn(&of.region);
    let text = format!(
        "You have chosen to subscribe to the topic {topic}.\nTo confirm the subscription, visit the SubscribeURL included in this message."
    );
    send(call, of, vhost, "SubscriptionConfirmation", &text, turn);
}

/// Tells an endpoint that its subscription is over.
pub(super) fn say_goodbye(call: &Call, of: &Subscription, vhost: &Arc<Vhost>, turn: &mut Turn<'_>) {
    let arn = of.arn(&of.region);
    let text = format!(
        "You have chosen to deactivate subscription {arn}.\nTo cancel this operation and restore the subscription, visit the SubscribeURL included in this message."
    );
    send(call, of, vhost, "UnsubscribeConfirmation", &text, turn);
}

fn send(call: &Call, of: &Subscription, vhost: &Arc<Vhost>, kind: &str, text: &str, turn: &mut Turn<'_>) {
    let message_id = new_uuid();
    let topic = of.topic_arn(&of.region);
    let subscribe_url = format!("{}/?Action=ConfirmSubscription&TopicArn={topic}&Token={}", call.base_url, of.token);
    let notice = Notice {
        kind,
        message_id: &message_id,
        topic_arn: &topic,
        text,
        token: &of.token,
        subscribe_url: &subscribe_url,
        at: turn.now,
    };
    let version = envelope::signature_version(vhost, &of.topic);
    let body = envelope::notice(&notice, &*call.aws.sns.signer(), version, &call.base_url);
    let queue = of.own_queue();
    let draft = Draft {
        key: &queue,
        body: body.as_bytes(),
        message_id: &message_id,
        sent: turn.now,
        more: &[(envelope::KIND_HEADER, Value::text(kind)), (envelope::TOPIC_HEADER, Value::text(topic.as_str()))],
        ..Draft::default()
    };
    let message = draft.build();
    let exchange = vhost.default_exchange().clone();
    let route = Arc::new(vhost.route(&exchange, &message, &[], None, turn));
    let mut batch = Batch::default();
    batch.push(message, &route);
    batch.place(turn, &mut Vec::new());
}
