//! A topic: a durable exchange of the filtered kind, with what SNS knows of it in the exchange's notes.
//!
//! Notes: `attributes` (table, as they were set), `tags` (table), `region` (where it was made),
//! `data-protection` (text), and `archive` (table). An exchange that was declared over another protocol has none, and is a topic with
//! every default.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::{archive, arn, delivery_policy};
use crate::{
    aws::{call::Call, error::Error, policy::Policy},
    broker::{
        access::Access,
        exchange::{Exchange, Kind},
        time::Time,
        turn::Turn,
        value::{Table, Value},
        vhost::Vhost,
    },
};

const ATTRIBUTES: &str = "attributes";
const TAGS: &str = "tags";
const REGION: &str = "region";
const DATA_PROTECTION: &str = "data-protection";

/// The header that an exchange of a FIFO topic knows repeated messages by.
pub(super) const DEDUP_HEADER: &str = "x-sns-deduplication";
/// What FIFO topics, and nothing else, are called like.
pub(super) const FIFO_SUFFIX: &str = ".fifo";
/// Bytes of a message of which its topic says nothing.
pub(super) const MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// A topic that was looked up.
pub(super) struct Topic {
    pub(super) vhost: Arc<Vhost>,
    pub(super) exchange: Arc<Exchange>,
    /// The account in its ARN.
    pub(super) account: Arc<str>,
    notes: Arc<Table>,
}

impl Topic {
    /// The topic that a parameter names, if the caller may use it so.
    pub(super) fn find(
        call: &Call,
        turn: &Turn<'_>,
        (text, parameter): (Option<&str>, &str),
        access: Access,
    ) -> Result<Self, Error> {
        let named = arn::topic(call, text, parameter)?;
        let vhost = call.vhost_of(named.account, turn)?;
        let found = Self::of(&vhost, &named.name, named.account).ok_or_else(|| arn::not_found("Topic"));
        let is_permitted = call.may(turn, &vhost.name, &named.name, access);
        let is_allowed = match found.as_ref().ok().and_then(|topic| topic.attribute("Policy")) {
            None => is_permitted,
            Some(text) => {
                let policy = call.aws.sns.policy(text);
                call.is_allowed(&policy, &text_of_arn(&named, call), is_permitted, turn.now)
            }
        };
        match found {
            Ok(_) if !is_allowed => Err(call.denied()),
            // Whoever says nothing of himself is not told which topics there are.
            Err(_) if call.caller.is_anonymous() => Err(call.denied()),
            found => found,
        }
    }

    /// The topic of that name.
    pub(super) fn of(vhost: &Arc<Vhost>, name: &str, account: &str) -> Option<Self> {
        let exchange = vhost.exchange(name)?;
        (exchange.declaration.kind == Kind::Filtered).then(|| Self {
            vhost: vhost.clone(),
            notes: exchange.notes(),
            account: account.into(),
            exchange,
        })
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.exchange.name
    }

    /// Messages have groups and are delivered once.
    pub(super) fn is_fifo(&self) -> bool {
        is_fifo(self.name())
    }

    /// Its ARN.
    pub(super) fn arn(&self, region: &str) -> String {
        arn::of_topic(region, &self.account, self.name())
    }

    /// An attribute, as it was set.
    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        attribute(&self.notes, name)
    }

    /// All attributes that were set.
    pub(super) fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        texts(&self.notes, ATTRIBUTES)
    }

    /// Its tags.
    pub(super) fn tags(&self) -> impl Iterator<Item = (&str, &str)> {
        texts(&self.notes, TAGS)
    }

    /// Its data protection policy.
    pub(super) fn data_protection(&self) -> Option<&str> {
        self.notes.get(DATA_PROTECTION)?.as_text()
    }

    /// What else is kept with it under a name.
    pub(super) fn note(&self, name: &str) -> Option<&Table> {
        match self.notes.get(name)? {
            Value::Table(note) => Some(note),
            _ => None,
        }
    }

    /// Keeps something else with it, or nothing any more.
    pub(super) fn set_note(&self, name: &str, note: Option<Table>, turn: &mut Turn<'_>) {
        self.vhost.alter_exchange(&self.exchange, turn, |notes| match note {
            Some(note) => notes.set(name, Value::Table(note)),
            None => _ = notes.remove(name),
        });
    }

    /// Bytes that a message may have.
    pub(super) fn message_bytes_max(&self) -> usize {
        self.attribute("MaximumMessageSize").and_then(|text| text.parse().ok()).unwrap_or(MESSAGE_BYTES_MAX)
    }

    /// The access policy in force.
    pub(super) fn policy(&self, region: &str) -> String {
        self.attribute("Policy").map_or_else(|| default_policy(&self.arn(region), &self.account), ToOwned::to_owned)
    }

    /// Changes an attribute; without a value it is as if it had never been set.
    pub(super) fn set_attribute(&self, name: &str, value: Option<&str>, turn: &mut Turn<'_>) {
        self.alter(ATTRIBUTES, turn, |attributes| match value {
            Some(value) => attributes.set(name, Value::text(value)),
            None => _ = attributes.remove(name),
        });
    }

    /// Changes the tags.
    pub(super) fn alter_tags(&self, turn: &mut Turn<'_>, change: impl FnOnce(&mut Table)) {
        self.alter(TAGS, turn, change);
    }

    /// Keeps a data protection policy.
    pub(super) fn set_data_protection(&self, policy: &str, turn: &mut Turn<'_>) {
        self.vhost.alter_exchange(&self.exchange, turn, |notes| notes.set(DATA_PROTECTION, Value::text(policy)));
    }

    fn alter(&self, section: &str, turn: &mut Turn<'_>, change: impl FnOnce(&mut Table)) {
        self.vhost.alter_exchange(&self.exchange, turn, |notes| {
            let mut table = match notes.remove(section) {
                Some(Value::Table(table)) => table,
                _ => Table::new(),
            };
            change(&mut table);
            if !table.is_empty() {
                notes.set(section, Value::Table(table));
            }
        });
    }
}

fn text_of_arn(named: &arn::TopicName<'_>, call: &Call) -> String {
    arn::of_topic(&call.caller.region, named.account, &named.name)
}

/// Notes of a topic that is made.
pub(super) fn new_notes(attributes: Table, tags: Table, region: &str) -> Table {
    let mut notes = Table::new();
    if !attributes.is_empty() {
        notes.set(ATTRIBUTES, Value::Table(attributes));
    }
    if !tags.is_empty() {
        notes.set(TAGS, Value::Table(tags));
    }
    notes.set(REGION, Value::text(region));
    notes
}

/// The region that a topic was made in.
pub(super) fn region(exchange: &Exchange) -> Option<String> {
    exchange.notes().get(REGION)?.as_text().map(ToOwned::to_owned)
}

/// An attribute in an exchange's notes.
pub(super) fn attribute<'n>(notes: &'n Table, name: &str) -> Option<&'n str> {
    match notes.get(ATTRIBUTES)? {
        Value::Table(attributes) => attributes.get(name)?.as_text(),
        _ => None,
    }
}

fn texts<'n>(notes: &'n Table, section: &str) -> impl Iterator<Item = (&'n str, &'n str)> {
    let table = match notes.get(section) {
        Some(Value::Table(table)) => Some(table),
        _ => None,
    };
    table.into_iter().flat_map(Table::iter).filter_map(|(name, value)| Some((name, value.as_text()?)))
}

/// Whether a topic or queue of that name is FIFO.
pub(super) fn is_fifo(name: &str) -> bool {
    name.ends_with(FIFO_SUFFIX)
}

/// The policy of a topic that was given none: its account may do everything.
fn default_policy(arn: &str, account: &str) -> String {
    const ACTIONS: [&str; 8] = [
        "SNS:GetTopicAttributes",
        "SNS:SetTopicAttributes",
        "SNS:AddPermission",
        "SNS:RemovePermission",
        "SNS:DeleteTopic",
        "SNS:Subscribe",
        "SNS:ListSubscriptionsByTopic",
        "SNS:Publish",
    ];
    let policy = json!({
        "Version": "2008-10-17",
        "Id": "__default_policy_ID",
        "Statement": [{
            "Sid": DEFAULT_STATEMENT,
            "Effect": "Allow",
            "Principal": {"AWS": "*"},
            "Action": ACTIONS,
            "Resource": arn,
            "Condition": {"StringEquals": {"AWS:SourceOwner": account}},
        }],
    });
    policy.to_string()
}

/// What a topic's policy says beyond the statement that every topic has: that one means whom permissions let in. One
/// that makes no sense says nothing.
pub(super) fn own_policy(text: &str) -> Policy {
    let Ok(mut document) = serde_json::from_str::<Json>(text) else { return Policy::default() };
    if let Some(Json::Array(statements)) = document.get_mut("Statement") {
        statements.retain(|statement| statement["Sid"] != DEFAULT_STATEMENT || statement["Effect"] != "Allow");
    }
    // What is left may be nothing.
    Policy::parse(&document.to_string()).unwrap_or_default()
}

/// The label of the statement that a topic has which was given none.
const DEFAULT_STATEMENT: &str = "__default_statement_ID";

/// Whether an attribute may have that value.
type Check = fn(&str) -> bool;

/// Attributes that can be set, and how their values are checked.
const SETTABLE: &[(&str, Check)] = &[
    ("DisplayName", |value| value.chars().count() <= 100),
    ("Policy", |value| Policy::parse(value).is_ok()),
    ("DeliveryPolicy", is_object),
    ("KmsMasterKeyId", |_| true),
    ("SignatureVersion", |value| matches!(value, "1" | "2")),
    ("TracingConfig", |value| matches!(value, "PassThrough" | "Active")),
    ("ContentBasedDeduplication", is_flag),
    ("FifoThroughputScope", |value| matches!(value, "Topic" | "MessageGroup")),
    ("ArchivePolicy", |value| archive::days(value).is_ok()),
    ("MaximumMessageSize", |value| value.parse().is_ok_and(|bytes: u64| (1_024..=1_048_576).contains(&bytes))),
];
/// Attributes of feedback: a role and a rate for each kind of subscription.
const FEEDBACK_OF: [&str; 5] = ["HTTP", "Lambda", "SQS", "Firehose", "Application"];
const FEEDBACK: [&str; 3] = ["SuccessFeedbackRoleArn", "FailureFeedbackRoleArn", "SuccessFeedbackSampleRate"];
/// Attributes that FIFO topics alone have.
const FIFO_ONLY: [&str; 3] = ["ContentBasedDeduplication", "FifoThroughputScope", "ArchivePolicy"];

fn is_flag(value: &str) -> bool {
    value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false")
}

fn is_object(value: &str) -> bool {
    value.is_empty() || matches!(serde_json::from_str(value), Ok(Json::Object(_)))
}

/// Whether there is an attribute of that name for such a topic.
pub(super) fn is_known(name: &str, is_fifo: bool) -> bool {
    let is_feedback =
        || FEEDBACK_OF.iter().any(|of| name.strip_prefix(of).is_some_and(|rest| FEEDBACK.contains(&rest)));
    (SETTABLE.iter().any(|(known, _)| *known == name) || is_feedback()) && (is_fifo || !FIFO_ONLY.contains(&name))
}

/// What is wrong with a value, in the service's words.
pub(super) fn check(name: &str, value: &str) -> Result<(), String> {
    match SETTABLE.iter().find(|(known, _)| *known == name) {
        Some((_, is_valid)) if !is_valid(value) => Err(match name {
            "Policy" => "Policy Error: null".to_owned(),
            "ArchivePolicy" => archive::days(value).err().unwrap_or_default(),
            "ContentBasedDeduplication" => {
                format!("{name} Reason: {name}: Invalid value [{value}]. Must be true or false.")
            }
            _ => format!("{name} Reason: Invalid value [{value}]"),
        }),
        _ => Ok(()),
    }
}

/// All attributes as they are told.
pub(super) fn told(topic: &Topic, region: &str, counts: [usize; 3], now: Time) -> serde_json::Map<String, Json> {
    let mut told = serde_json::Map::new();
    let mut put = |name: &str, value: String| _ = told.insert(name.to_owned(), value.into());
    let [pending, confirmed, deleted] = counts;
    put("TopicArn", topic.arn(region));
    put("Owner", topic.account.to_string());
    put("Policy", topic.policy(region));
    put("DisplayName", topic.attribute("DisplayName").unwrap_or_default().to_owned());
    put("SubscriptionsPending", pending.to_string());
    put("SubscriptionsConfirmed", confirmed.to_string());
    put("SubscriptionsDeleted", deleted.to_string());
    put("EffectiveDeliveryPolicy", delivery_policy::effective(topic.attribute("DeliveryPolicy")).to_string());
    if topic.is_fifo() {
        put("FifoTopic", "true".to_owned());
        put("ContentBasedDeduplication", "false".to_owned());
    }
    if let Some(beginning) = archive::beginning(topic, now) {
        put("BeginningArchiveTime", beginning);
    }
    for (name, value) in topic.attributes() {
        put(name, value.to_owned());
    }
    told
}
