//! Subscribing, confirming, unsubscribing, and the attributes of subscriptions.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::{
    arn::{self, invalid},
    confirmation, delivery_policy, page, platform,
    replay::{self, Active},
    sms,
    subscription::{Subscription, dead_letter_arn},
    topic::{Topic, is_fifo},
    topics::with_next,
};
use crate::{
    aws::{
        call::{Arn, Call, Step},
        error::Error,
        sqs::note,
    },
    broker::{
        access::Access,
        exchange::filter::{Policy, Scope, json_error},
        queue::Queue,
        turn::Turn,
        vhost::Vhost,
    },
};

type Text<'a> = Option<Cow<'a, str>>;

/// Octets of an endpoint at most.
const ENDPOINT_BYTES_MAX: usize = 2_048;
/// What may be subscribed with.
const PROTOCOLS: [&str; 9] =
    ["http", "https", "email", "email-json", "sms", "sqs", "application", "lambda", "firehose"];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Subscribe<'a> {
    #[serde(borrow)]
    topic_arn: Text<'a>,
    #[serde(borrow)]
    protocol: Text<'a>,
    #[serde(borrow)]
    endpoint: Text<'a>,
    attributes: Option<BTreeMap<String, Option<String>>>,
    return_subscription_arn: Option<bool>,
}

pub(super) fn subscribe(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: Subscribe<'_> = input.parse()?;
    let protocol = request.protocol.as_deref().unwrap_or_default();
    let topic_arn = request.topic_arn.as_deref();
    // Malformed before anything else is looked at.
    arn::topic(call, topic_arn, "TopicArn")?;
    if !PROTOCOLS.contains(&protocol) {
        return Err(invalid(format_args!("Amazon SNS does not support this protocol string: {protocol}")));
    }
    let endpoint = request.endpoint.as_deref().unwrap_or_default();
    if endpoint.len() > ENDPOINT_BYTES_MAX {
        return Err(invalid("Endpoint"));
    }
    check_endpoint(call, turn, protocol, endpoint)?;
    let topic = Topic::find(call, turn, (topic_arn, "TopicArn"), Access::Read)?;
    if protocol == "sqs" && is_fifo(endpoint) && !topic.is_fifo() {
        let reason = "FIFO SQS Queues can not be subscribed to standard SNS topics";
        return Err(invalid(format_args!("Invalid parameter: Endpoint Reason: {reason}")));
    }
    if protocol != "sqs" && topic.is_fifo() {
        let reason = "Please use SQS queues as endpoints of FIFO topics";
        return Err(invalid(format_args!("Invalid parameter: Endpoint Reason: {reason}")));
    }
    let mut attributes = BTreeMap::new();
    for (name, value) in request.attributes.into_iter().flatten() {
        let value = value.unwrap_or_default();
        check_name(&name, topic.is_fifo()).map_err(|()| invalid("AttributeName"))?;
        attributes.insert(name, value);
    }
    let reason = |reason: String| invalid(format_args!("Attributes Reason: {reason}"));
    check_attributes(&mut attributes, is_fifo(endpoint)).map_err(reason)?;
    let vhost = topic.vhost.name.clone();
    let known = Subscription::list_to(turn.broker, &vhost, Some(topic.name()), (protocol, endpoint));
    if let Some(existing) = known.into_iter().find(|of| !of.is_gone && of.endpoint == endpoint) {
        if !attributes.iter().all(|(name, value)| told_attribute(&existing, name).as_deref() == Some(value)) {
            return Err(invalid("Attributes Reason: Subscription already exists with different attributes"));
        }
        turn.wait_for(turn.broker.defined_at());
        return answer(call, &existing, request.return_subscription_arn);
    }
    let needs_confirmation = matches!(protocol, "http" | "https" | "email" | "email-json");
    let subscription = Subscription {
        topic: topic.name().to_owned(),
        id: arn::new_uuid(),
        protocol: protocol.to_owned(),
        endpoint: endpoint.to_owned(),
        owner: topic.account.to_string(),
        principal: call.caller.arn(),
        region: call.caller.region.to_string(),
        base_url: call.base_url.to_string(),
        is_pending: needs_confirmation,
        token: confirmation::new_token(),
        created_ms: turn.now.0,
        is_authenticated: !needs_confirmation,
        is_gone: false,
        is_replayed_to: false,
        attributes,
    };
    check_queues(call, turn, &topic.vhost, &subscription)?;
    let aws = call.aws.clone();
    let mut active = aws.sns.replays.lock();
    let subscription = replayed_to(subscription, &topic, &mut active, turn)?;
    let generation = topic.exchange.generation();
    subscription.bind(None, &topic, turn)?;
    call.aws.sns.bindings.bound(&topic, generation);
    subscription.keep(&vhost, turn)?;
    drop(active);
    if needs_confirmation {
        confirmation::ask(call, &subscription, &topic.vhost, turn);
    }
    answer(call, &subscription, request.return_subscription_arn)
}

/// Begins or ends a replay to a subscription as its policy says; the binding that it comes to is to be made.
fn replayed_to(
    mut of: Subscription,
    topic: &Topic,
    active: &mut Active,
    turn: &mut Turn<'_>,
) -> Result<Subscription, Error> {
    let policy = of.attributes.get("ReplayPolicy").map(String::as_str).unwrap_or_default();
    match replay::wanted(policy).map_err(invalid)? {
        Some(wanted) => {
            active.begin(&of, topic, wanted, turn)?;
            of.is_replayed_to = true;
        }
        None => {
            of.attributes.remove("ReplayPolicy");
            // What was published meanwhile follows before the binding takes again.
            if !active.stop(&topic.vhost.name, &of.name(), turn) {
                of.is_replayed_to = false;
            }
        }
    }
    Ok(of)
}

/// Refuses a subscription that fills a queue which the caller may not send to, unless the queue says itself what it
/// takes.
fn check_queues(call: &Call, turn: &Turn<'_>, vhost: &Vhost, of: &Subscription) -> Result<(), Error> {
    let has_policy = |queue: &Queue| queue.properties().notes.get(note::POLICY).is_some();
    let check = |name: &str| match vhost.queue(name).is_some_and(|queue| has_policy(&queue)) {
        true => Ok(()),
        false => call.check(turn, &vhost.name, name, Access::Write),
    };
    let to_queue = Arn::parse(&of.endpoint).filter(|_| of.is_to_queue());
    to_queue.map_or(Ok(()), |arn| check(&arn.name))?;
    of.dead_letter_queue().map_or(Ok(()), |name| check(&name))
}

fn answer(call: &Call, subscription: &Subscription, wants_arn: Option<bool>) -> Result<Step, Error> {
    let arn = if subscription.is_pending && wants_arn != Some(true) {
        "pending confirmation".to_owned()
    } else {
        subscription.arn(&call.caller.region)
    };
    call.reply(&json!({ "SubscriptionArn": arn }))
}

fn check_endpoint(call: &Call, turn: &Turn<'_>, protocol: &str, endpoint: &str) -> Result<(), Error> {
    let is_arn_of = |service: &str| Arn::parse(endpoint).is_some_and(|arn| arn.service == service);
    let is_valid = match protocol {
        "sqs" if !is_arn_of("sqs") => return Err(invalid("SQS endpoint ARN")),
        "lambda" if !is_arn_of("lambda") => return Err(invalid("Lambda endpoint ARN")),
        "firehose" if !is_arn_of("firehose") => return Err(invalid("Firehose endpoint ARN")),
        "sms" if !sms::is_number(endpoint) => {
            let message = format!("Invalid SMS endpoint: {endpoint}");
            return Err(Error::sns("InvalidParameterException", message));
        }
        "application" => return platform::check_endpoint(call, turn, endpoint),
        "http" | "https" => endpoint.strip_prefix(protocol).is_some_and(|rest| rest.starts_with("://")),
        "email" | "email-json" if !endpoint.contains('@') => return Err(invalid("Email address")),
        _ => true,
    };
    if is_valid { Ok(()) } else { Err(invalid("Endpoint must match the specified protocol")) }
}

/// Attributes that may be set.
const SETTABLE: [&str; 7] = [
    "DeliveryPolicy",
    "FilterPolicy",
    "FilterPolicyScope",
    "RawMessageDelivery",
    "RedrivePolicy",
    "SubscriptionRoleArn",
    "ReplayPolicy",
];

fn check_name(name: &str, is_fifo: bool) -> Result<(), ()> {
    let is_known = SETTABLE.contains(&name) && (is_fifo || name != "ReplayPolicy");
    is_known.then_some(()).ok_or(())
}

/// Puts attributes into their normal form; `Err` says what is wrong with one.
fn check_attributes(attributes: &mut BTreeMap<String, String>, is_to_fifo: bool) -> Result<(), String> {
    if let Some(raw) = attributes.get_mut("RawMessageDelivery") {
        if !raw.eq_ignore_ascii_case("true") && !raw.eq_ignore_ascii_case("false") {
            return Err(format!("RawMessageDelivery: Invalid value [{raw}]. Must be true or false."));
        }
        raw.make_ascii_lowercase();
    }
    let scope = match attributes.get("FilterPolicyScope") {
        None => Scope::Attributes,
        Some(name) => Scope::parse(name).ok_or_else(|| {
            format!("FilterPolicyScope: Invalid value [{name}]. Please use either MessageBody or MessageAttributes")
        })?,
    };
    if let Some(policy) = attributes.get("FilterPolicy").filter(|policy| !policy.is_empty()) {
        Policy::parse(policy, scope).map_err(|error| error.to_string())?;
    }
    if let Some(policy) = attributes.get("RedrivePolicy").filter(|policy| !policy.is_empty()) {
        let parsed: Json = serde_json::from_str(policy).map_err(|_| not_json("RedrivePolicy", policy))?;
        let arn = parsed.get("deadLetterTargetArn").and_then(Json::as_str);
        if arn.is_none() || dead_letter_arn(policy).is_none() {
            return Err("RedrivePolicy: deadLetterTargetArn is an invalid arn".to_owned());
        }
        if is_to_fifo && !arn.is_some_and(is_fifo) {
            return Err(
                "RedrivePolicy: must use a FIFO queue as DLQ for a FIFO Subscription to a FIFO Topic.".to_owned()
            );
        }
    }
    if let Some(policy) = attributes.get("DeliveryPolicy").filter(|policy| !policy.is_empty())
        && !matches!(serde_json::from_str(policy), Ok(Json::Object(_)))
    {
        return Err(not_json("DeliveryPolicy", policy));
    }
    if let Some(policy) = attributes.get("ReplayPolicy") {
        replay::wanted(policy)?;
    }
    Ok(())
}

/// As the service's parser says it.
fn not_json(name: &str, text: &str) -> String {
    let error = json_error(text).unwrap_or_else(|| "failed to parse JSON.".to_owned());
    format!("{name}: {error}")
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Confirm<'a> {
    #[serde(borrow)]
    topic_arn: Text<'a>,
    #[serde(borrow)]
    token: Text<'a>,
    #[serde(borrow)]
    authenticate_on_unsubscribe: Text<'a>,
}

pub(super) fn confirm(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: Confirm<'_> = input.parse()?;
    let token = request.token.as_deref().unwrap_or_default();
    let named = arn::topic(call, request.topic_arn.as_deref(), "Topic").map_err(|_| invalid("Topic"))?;
    if !confirmation::is_token(token) {
        return Err(Error::sns("InvalidParameterException", "Invalid token"));
    }
    let vhost = call.vhost_of(named.account, turn)?;
    let topic = Topic::of(&vhost, &named.name, named.account).ok_or_else(|| invalid("Token"))?;
    let known = Subscription::list(turn.broker, &vhost.name, Some(topic.name()), "", usize::MAX);
    let found = known.into_iter().map(|(_, of)| of).find(|of| !of.is_gone && of.token == token);
    let old = found.ok_or_else(|| invalid("Token"))?;
    if !old.is_pending {
        return call.reply(&json!({"SubscriptionArn": old.arn(&call.caller.region)}));
    }
    if old.created_ms.saturating_add(confirmation::TOKEN_MS) < turn.now.0 {
        return Err(invalid("Token"));
    }
    let is_authenticated = request.authenticate_on_unsubscribe.is_some_and(|flag| flag.eq_ignore_ascii_case("true"));
    let confirmed = Subscription { is_pending: false, is_authenticated, ..old.clone() };
    confirmed.bind(Some(&old), &topic, turn)?;
    confirmed.keep(&vhost.name, turn)?;
    call.reply(&json!({"SubscriptionArn": confirmed.arn(&call.caller.region)}))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OfSubscription<'a> {
    #[serde(borrow)]
    subscription_arn: Text<'a>,
    #[serde(borrow)]
    attribute_name: Text<'a>,
    attribute_value: Option<String>,
}

/// The subscription that a parameter names, its topic as far as that is there, and the name of their vhost.
fn find(call: &Call, turn: &Turn<'_>, text: Option<&str>) -> Result<(Subscription, Option<Topic>, String), Error> {
    let named = arn::subscription(text)?;
    let missing = || arn::not_found("Subscription");
    let vhost = call.vhost_of(named.account, turn).map_err(|_| missing())?;
    let found = Subscription::find(turn.broker, &vhost.name, &named.topic, named.id).ok_or_else(missing)?;
    // The link in a message is for whoever has the message, unless he who confirmed wanted it otherwise.
    let is_by_link = call.operation.name == "Unsubscribe" && call.caller.is_anonymous() && !found.is_authenticated;
    if !is_by_link {
        call.check(turn, &vhost.name, &named.topic, Access::Read)?;
    }
    let topic = Topic::of(&vhost, &named.topic, named.account);
    Ok((found, topic, vhost.name.to_string()))
}

pub(super) fn unsubscribe(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: OfSubscription<'_> = input.parse()?;
    let (old, topic, vhost) = match find(call, turn, request.subscription_arn.as_deref()) {
        Ok(found) => found,
        // As often as one likes.
        Err(error) if &*error.query_code == "NotFound" => return call.reply_done(),
        Err(error) => return Err(error),
    };
    let aws = call.aws.clone();
    let mut active = aws.sns.replays.lock();
    active.forget(&(vhost.clone(), old.name()), turn);
    let Some(topic) = topic.filter(|_| !old.is_gone) else {
        if let Some(vhost) = turn.broker.vhost(&vhost) {
            old.forget(&vhost, turn);
        }
        return call.reply_done();
    };
    let gone = Subscription { is_gone: true, ..old.clone() };
    gone.bind(Some(&old), &topic, turn)?;
    let is_to_be_told = !old.is_pending && matches!(&*old.protocol, "http" | "https" | "email" | "email-json");
    if is_to_be_told {
        gone.keep(&vhost, turn)?;
        confirmation::say_goodbye(call, &gone, &topic.vhost, turn);
    } else {
        gone.forget(&topic.vhost, turn);
    }
    call.reply_done()
}

/// An attribute as it is told, with the value that it has unless it was set.
fn told_attribute(subscription: &Subscription, name: &str) -> Option<String> {
    let set = subscription.attributes.get(name).cloned();
    match name {
        "RawMessageDelivery" => Some(subscription.is_raw().to_string()),
        "FilterPolicyScope" => Some(set.unwrap_or_else(|| "MessageAttributes".to_owned())),
        _ => set,
    }
}

pub(super) fn get_attributes(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: OfSubscription<'_> = input.parse()?;
    let (of, topic, _) = find(call, turn, request.subscription_arn.as_deref())?;
    if of.is_gone && topic.is_some() {
        return Err(arn::not_found("Subscription"));
    }
    let region = &call.caller.region;
    let mut told: BTreeMap<String, Json> = BTreeMap::new();
    for (name, value) in &of.attributes {
        if !value.is_empty() {
            told.insert(name.clone(), value.as_str().into());
        }
    }
    let has_filter = told.contains_key("FilterPolicy");
    if has_filter {
        told.insert("FilterPolicyScope".into(), told_attribute(&of, "FilterPolicyScope").into());
    } else {
        told.remove("FilterPolicyScope");
    }
    if told.contains_key("ReplayPolicy")
        && let Some(topic) = &topic
        && let Some(status) = call.aws.sns.replays.lock().status(&topic.vhost.name, &of.name(), turn.broker)
    {
        told.insert("ReplayStatus".into(), status.into());
    }
    if matches!(&*of.protocol, "http" | "https") {
        let topics = topic.as_ref().and_then(|topic| topic.attribute("DeliveryPolicy"));
        let own = of.attributes.get("DeliveryPolicy").map(String::as_str);
        let effective = delivery_policy::effective_of_subscription(own, topics).to_string();
        told.insert("EffectiveDeliveryPolicy".into(), effective.into());
    }
    let mut put = |name: &str, value: String| _ = told.insert(name.to_owned(), value.into());
    put("ConfirmationWasAuthenticated", of.is_authenticated.to_string());
    put("Endpoint", of.endpoint.clone());
    put("Owner", of.owner.clone());
    put("PendingConfirmation", of.is_pending.to_string());
    put("Protocol", of.protocol.clone());
    put("RawMessageDelivery", of.is_raw().to_string());
    put("SubscriptionArn", of.arn(region));
    put("SubscriptionPrincipal", of.principal.clone());
    put("TopicArn", of.topic_arn(region));
    call.reply(&json!({ "Attributes": told }))
}

pub(super) fn set_attribute(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: OfSubscription<'_> = input.parse()?;
    let aws = call.aws.clone();
    // A replay that comes to its end changes the subscription, too.
    let mut active = aws.sns.replays.lock();
    let (old, topic, vhost) = find(call, turn, request.subscription_arn.as_deref())?;
    let topic = topic.filter(|_| !old.is_gone).ok_or_else(|| arn::not_found("Subscription"))?;
    let name = request.attribute_name.as_deref().unwrap_or_default();
    check_name(name, topic.is_fifo()).map_err(|()| invalid("AttributeName"))?;
    let mut changed = old.clone();
    changed.attributes.insert(name.to_owned(), request.attribute_value.unwrap_or_default());
    check_attributes(&mut changed.attributes, is_fifo(&old.endpoint)).map_err(invalid)?;
    if name != "RawMessageDelivery" {
        changed.attributes.retain(|_, value| !value.is_empty());
    }
    if name == "ReplayPolicy" {
        changed = replayed_to(changed, &topic, &mut active, turn)?;
    }
    if name == "RedrivePolicy" {
        check_queues(call, turn, &topic.vhost, &changed)?;
    }
    changed.bind(Some(&old), &topic, turn)?;
    changed.keep(&vhost, turn)?;
    call.reply_done()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct List<'a> {
    #[serde(borrow)]
    topic_arn: Text<'a>,
    #[serde(borrow)]
    next_token: Text<'a>,
}

pub(super) fn list(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: List<'_> = input.parse()?;
    let vhost = call.vhost(turn)?.name.clone();
    page_of(call, turn, &vhost, None, request.next_token.as_deref())
}

pub(super) fn list_by_topic(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: List<'_> = input.parse()?;
    let topic = Topic::find(call, turn, (request.topic_arn.as_deref(), "TopicArn"), Access::Read)?;
    let vhost = topic.vhost.name.clone();
    page_of(call, turn, &vhost, Some(topic.name()), request.next_token.as_deref())
}

fn page_of(call: &Call, turn: &Turn<'_>, vhost: &str, topic: Option<&str>, token: Option<&str>) -> Result<Step, Error> {
    let mut from = page::behind(page::after(token)?);
    let mut found = Vec::new();
    // Those that are gone fill no page.
    loop {
        let more = Subscription::list(turn.broker, vhost, topic, &from, page::ITEMS_MAX + 1);
        let is_last = more.len() <= page::ITEMS_MAX;
        from = page::behind(more.last().map(|(name, _)| name.clone()));
        found.extend(more.into_iter().filter(|(_, of)| !of.is_gone));
        if is_last || found.len() > page::ITEMS_MAX {
            break;
        }
    }
    let (found, next) = page::cut(found, page::ITEMS_MAX, |(name, _)| name);
    let region = &call.caller.region;
    let shown = |of: &Subscription| {
        let arn = if of.is_pending { "PendingConfirmation".to_owned() } else { of.arn(region) };
        json!({
            "SubscriptionArn": arn,
            "Owner": of.owner,
            "Protocol": of.protocol,
            "Endpoint": of.endpoint,
            "TopicArn": of.topic_arn(region),
        })
    };
    let shown: Vec<_> = found.iter().map(|(_, of)| shown(of)).collect();
    call.reply(&with_next(json!({ "Subscriptions": shown }), next))
}
