//! A subscription: a parameter of the vhost that says who subscribed what, and the binding that it comes to.
//!
//! The parameter is the truth; its name is `TOPIC:ID`, so that those of a topic stand together. The binding leads
//! from the topic's exchange to the subscribed queue, or, for every other protocol, to a durable queue of the
//! subscription's own from which a deliverer takes ([`Subscription::own_queue`]). Where the subscribed queue is
//! not there the binding leads to the subscription's dead-letter queue, if that is.
//!
//! Invariant: at most one binding of a topic has a subscription's label.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{
    arn,
    topic::{self, Topic},
};
use crate::{
    aws::{
        Error,
        call::Arn,
        policy::{self, Decision, Policy},
        sqs::note,
    },
    broker::{
        Broker,
        exchange::{Target, filtered},
        parameters::Parameter,
        queue::Queue,
        topology::DeclareQueue,
        turn::Turn,
        value::{Table, Value},
        vhost::Vhost,
    },
};

/// Who delivers, in access policies of queues.
const SERVICE: &str = "sns.amazonaws.com";
/// The component whose parameters subscriptions are.
pub const COMPONENT: &str = "sns-subscription";
/// What the queues that deliverers take from are called like.
pub const OWN_QUEUE_PREFIX: &str = "tern.sns.";
/// Messages that wait for a deliverer. Full: the oldest goes, and is counted as dropped.
const WAITING_MAX: i64 = 100_000;

/// What is kept of a subscription.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Subscription {
    /// Its topic's name.
    pub topic: String,
    /// Its identity among those of the topic.
    pub id: String,
    /// How it is delivered: `sqs`, `https`, `lambda`...
    pub protocol: String,
    /// Where to.
    pub endpoint: String,
    /// The account that it belongs to.
    pub owner: String,
    /// Who made it.
    pub principal: String,
    /// The region that it was made in.
    pub region: String,
    /// How its maker reached this broker: addresses in its messages begin with this.
    pub base_url: String,
    /// It takes nothing until its endpoint has confirmed it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_pending: bool,
    /// What its endpoint confirms it with.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub token: String,
    /// Milliseconds since 1970 when it was made.
    pub created_ms: u64,
    /// Whoever confirmed it had to say who it is.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_authenticated: bool,
    /// It is no more, but for what its endpoint has yet to be told.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_gone: bool,
    /// Archived messages are being replayed to it: its binding takes nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_replayed_to: bool,
    /// Attributes as they were set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl Subscription {
    /// Subscriptions of a vhost, or of one topic there, whose names are not before `from`, by name.
    pub fn list(broker: &Broker, vhost: &str, topic: Option<&str>, from: &str, max: usize) -> Vec<(String, Self)> {
        let prefix = topic.map(|topic| format!("{topic}:")).unwrap_or_default();
        let found = broker.parameters.list_from(vhost, COMPONENT, &prefix, from, max);
        found.into_iter().filter_map(|(name, value)| Some((name, Self::from_json(&value)?))).collect()
    }

    /// Subscriptions of a vhost, or of one topic there, that are delivered to an endpoint by that protocol.
    pub(super) fn list_to(broker: &Broker, vhost: &str, topic: Option<&str>, to: (&str, &str)) -> Vec<Self> {
        let prefix = topic.map(|topic| format!("{topic}:")).unwrap_or_default();
        let found = broker.parameters.list_by(vhost, COMPONENT, &delivered_to(to.0, to.1), &prefix);
        found.into_iter().filter_map(|(_, value)| Self::from_json(&value)).collect()
    }

    /// Has subscriptions found by where they are delivered to.
    pub(super) fn index(broker: &Broker) {
        broker.parameters.index(COMPONENT, |value| {
            let text = |name: &str| value.get(name)?.as_str();
            Some(delivered_to(text("protocol")?, text("endpoint")?))
        });
    }

    /// The subscription of that identity.
    pub fn find(broker: &Broker, vhost: &str, topic: &str, id: &str) -> Option<Self> {
        Self::from_json(&*broker.parameters.get(vhost, COMPONENT, &format!("{topic}:{id}"))?)
    }

    fn from_json(value: &Json) -> Option<Self> {
        Self::deserialize(value).ok()
    }

    /// Keeps it. The answer waits for that.
    pub(super) fn keep(&self, vhost: &str, turn: &mut Turn<'_>) -> Result<(), Error> {
        let (component, name) = (COMPONENT.to_owned(), self.name());
        let value = serde_json::to_value(self).map_err(|error| Error::internal(error.to_string()))?;
        let kept = turn.broker.parameters.set(Parameter { value, vhost: vhost.to_owned(), component, name });
        kept.map_err(|error| Error::internal(error.to_string()))?;
        turn.wait_for(turn.broker.defined_at());
        Ok(())
    }

    /// Forgets it, and the queue that was its own.
    pub fn forget(&self, vhost: &Arc<Vhost>, turn: &mut Turn<'_>) {
        if !self.is_to_queue()
            && let Some(queue) = vhost.queue(&self.own_queue())
        {
            vhost.remove_queue(&queue, turn);
        }
        // Somebody else may have been faster.
        let _ = turn.broker.parameters.clear(&vhost.name, COMPONENT, &self.name());
        turn.wait_for(turn.broker.defined_at());
    }

    /// Its name among all subscriptions.
    pub fn name(&self) -> String {
        format!("{}:{}", self.topic, self.id)
    }

    /// Its ARN.
    pub fn arn(&self, region: &str) -> String {
        format!("{}:{}", arn::of_topic(region, &self.owner, &self.topic), self.id)
    }

    /// The ARN of its topic.
    pub fn topic_arn(&self, region: &str) -> String {
        arn::of_topic(region, &self.owner, &self.topic)
    }

    /// It leads to a queue.
    pub fn is_to_queue(&self) -> bool {
        self.protocol == "sqs"
    }

    /// Messages are delivered as they were published.
    pub fn is_raw(&self) -> bool {
        self.attributes.get("RawMessageDelivery").is_some_and(|flag| flag == "true")
    }

    /// The queue that a deliverer takes its messages from, where it does not lead to a queue.
    pub fn own_queue(&self) -> String {
        format!("{OWN_QUEUE_PREFIX}{}", self.id)
    }

    /// The queue that takes what cannot be delivered.
    pub fn dead_letter_queue(&self) -> Option<String> {
        dead_letter_arn(self.attributes.get("RedrivePolicy")?)
    }

    /// The label of its binding.
    pub(super) fn label(&self) -> String {
        // A standard queue is told nothing of the groups of a FIFO topic.
        let groups = if topic::is_fifo(&self.topic) && !topic::is_fifo(&self.endpoint) { ":ungrouped" } else { "" };
        format!("{}:{}:{}{groups}", self.protocol, if self.is_raw() { "raw" } else { "json" }, self.id)
    }

    /// The arguments of its binding.
    pub(super) fn arguments(&self) -> Table {
        let mut arguments = Table::new();
        arguments.push(filtered::ENVELOPE, Value::text(self.label()));
        if let Some(policy) = self.attributes.get("FilterPolicy").filter(|policy| !policy.is_empty()) {
            arguments.push(filtered::POLICY, Value::text(policy.as_str()));
            if let Some(scope) = self.attributes.get("FilterPolicyScope") {
                arguments.push(filtered::SCOPE, Value::text(scope.as_str()));
            }
        }
        if self.is_pending || self.is_replayed_to {
            arguments.push(filtered::PAUSED, Value::Bool(true));
        }
        arguments
    }

    /// Whether a queue takes what its topic sends: one without an access policy does, and another as AWS has it.
    pub fn is_taken_by(&self, queue: &Queue) -> bool {
        let properties = queue.properties();
        let text = properties.notes.get(note::POLICY).and_then(Value::as_text);
        // One that makes no sense, as it may come out of a file, says nothing to anybody else either.
        let Some(policy) = text.and_then(|text| Policy::parse(text).ok()) else { return true };
        if policy.is_empty() {
            return true;
        }
        let topic = self.topic_arn(&self.region);
        let request = policy::Request {
            principal: SERVICE,
            account: "",
            action: "sqs:SendMessage",
            resource: &self.endpoint,
            context: &[
                ("aws:sourcearn", topic.into()),
                ("aws:sourceaccount", (&*self.owner).into()),
                ("aws:sourceowner", (&*self.owner).into()),
                ("aws:principalisawsservice", "true".into()),
                ("aws:principalservicename", SERVICE.into()),
                ("aws:securetransport", "true".into()),
            ],
        };
        policy.decide(&request) == Decision::Allow
    }

    /// The queue that it is to be delivered to refuses what its topic sends.
    pub fn is_refused(&self, vhost: &Vhost) -> bool {
        self.is_to_queue() && self.endpoint_queue(vhost).is_some_and(|queue| !self.is_taken_by(&queue))
    }

    fn endpoint_queue(&self, vhost: &Vhost) -> Option<Arc<Queue>> {
        Arn::parse(&self.endpoint).and_then(|arn| vhost.queue(&arn.name))
    }

    /// Where its binding leads, if there is such a queue.
    pub(super) fn target(&self, vhost: &Arc<Vhost>, turn: &mut Turn<'_>) -> Result<Option<Target>, Error> {
        if !self.is_to_queue() {
            let arguments = Table::from_iter([("x-max-length", Value::I64(WAITING_MAX))]);
            let name = self.own_queue();
            let wanted = DeclareQueue { name: &name, durable: true, arguments, ..DeclareQueue::default() };
            let queue = vhost.declare_queue(&wanted, None, turn);
            return queue.map(|queue| Some(Target::Queue(queue))).map_err(|error| Error::internal(error.to_string()));
        }
        let endpoint = self.endpoint_queue(vhost).filter(|queue| self.is_taken_by(queue));
        let found = endpoint.or_else(|| vhost.queue(&self.dead_letter_queue()?));
        Ok(found.map(Target::Queue))
    }

    /// Makes the binding what the subscription says; `old` is what it said before, if it is not new.
    pub(super) fn bind(&self, old: Option<&Self>, topic: &Topic, turn: &mut Turn<'_>) -> Result<(), Error> {
        let target = if self.is_gone { None } else { self.target(&topic.vhost, turn)? };
        let (key, arguments) = (b"", self.arguments());
        let failed = |error: crate::broker::error::Error| arn::invalid(error);
        let bound = old.and_then(|old| Some((old.bound(topic)?, old.arguments())));
        match (bound, target) {
            (Some((was, old)), Some(target)) if was == target => {
                topic.vhost.rebind(topic.name(), &target, key, (&old, &arguments), turn).map_err(failed)?;
            }
            (was, target) => {
                if let Some(target) = target {
                    topic.vhost.bind(topic.name(), &target, key, &arguments, turn).map_err(failed)?;
                }
                if let Some((was, old)) = was {
                    topic.vhost.unbind(topic.name(), &was, key, &old, turn).map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    /// Where its binding leads now.
    pub(super) fn bound(&self, topic: &Topic) -> Option<Target> {
        let arguments = self.arguments();
        let label = arguments.get(filtered::ENVELOPE);
        let is_it = |of: &crate::broker::exchange::Binding<Target>| of.arguments.get(filtered::ENVELOPE) == label;
        topic.exchange.target_of(is_it)
    }
}

/// The name of the queue that a redrive policy names.
pub(super) fn dead_letter_arn(policy: &str) -> Option<String> {
    let policy: Json = serde_json::from_str(policy).ok()?;
    let arn = Arn::parse(policy.get("deadLetterTargetArn")?.as_str()?)?;
    (arn.service == "sqs").then(|| arn.name.into_owned())
}

/// A topic is about to be deleted: its subscriptions stay to be looked at, and take no more.
pub(super) fn topic_deleted(topic: &Topic, turn: &mut Turn<'_>) {
    for (_, mut subscription) in Subscription::list(turn.broker, &topic.vhost.name, Some(topic.name()), "", usize::MAX)
    {
        if !subscription.is_to_queue()
            && let Some(queue) = topic.vhost.queue(&subscription.own_queue())
        {
            topic.vhost.remove_queue(&queue, turn);
        }
        subscription.is_gone = true;
        // It was kept before: there is room for it.
        let _ = subscription.keep(&topic.vhost.name, turn);
    }
}

/// A topic was made: what is left of another of its name is forgotten.
pub(super) fn forget_gone(broker: &Broker, vhost: &str, topic: &str) {
    for (name, _) in Subscription::list(broker, vhost, Some(topic), "", usize::MAX) {
        let _ = broker.parameters.clear(vhost, COMPONENT, &name);
    }
}

/// A queue has another access policy, or a first one: binds the subscriptions that it takes now, and leads those that it
/// no longer takes to their dead-letter queues.
pub(in crate::aws) fn policy_changed(vhost: &Arc<Vhost>, arn: &str, turn: &mut Turn<'_>) -> Result<(), Error> {
    for of in Subscription::list_to(turn.broker, &vhost.name, None, ("sqs", arn)) {
        if of.is_gone {
            continue;
        }
        if let Some(topic) = Topic::of(vhost, &of.topic, &of.owner) {
            of.bind(Some(&of), &topic, turn)?;
        }
    }
    Ok(())
}

/// What subscriptions are found by.
fn delivered_to(protocol: &str, endpoint: &str) -> String {
    // The region is whatever the subscriber said, and names the same queue.
    match (protocol, Arn::parse(endpoint)) {
        ("sqs", Some(arn)) => format!("sqs {}:{}", arn.account, arn.name),
        _ => format!("{protocol} {endpoint}"),
    }
}

/// Binds subscriptions again whose queue has come back, or gone. Returns whether one does not lead to where it says.
pub(super) fn bind_missing(topic: &Topic, turn: &mut Turn<'_>) -> Result<bool, Error> {
    let bound: HashMap<String, Target> = topic
        .exchange
        .bindings()
        .into_iter()
        .filter_map(|of| Some((of.arguments.get(filtered::ENVELOPE)?.as_text()?.to_owned(), of.target)))
        .collect();
    let mut is_missing = false;
    for (_, subscription) in Subscription::list(turn.broker, &topic.vhost.name, Some(topic.name()), "", usize::MAX) {
        if subscription.is_gone || !subscription.is_to_queue() {
            continue;
        }
        let (is, wanted) = (bound.get(&subscription.label()), subscription.target(&topic.vhost, turn)?);
        if is != wanted.as_ref() {
            subscription.bind(is.is_some().then_some(&subscription), topic, turn)?;
        }
        is_missing |= subscription.endpoint_queue(&topic.vhost).is_none();
    }
    Ok(is_missing)
}
