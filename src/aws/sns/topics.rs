//! Topics and their attributes, tags and data protection policies.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Deserialize;
use serde_json::json;

use super::{
    archive,
    arn::{self, invalid, null_member},
    delivery_policy, page, publish,
    subscription::{self, Subscription},
    topic::{self, Topic},
};
use crate::{
    aws::{
        call::{Call, Step},
        error::Error,
    },
    broker::{
        access::Access,
        exchange,
        queue::dedup::KEYS_MAX,
        topology::DeclareExchange,
        turn::Turn,
        value::{Table, Value},
    },
};

type Text<'a> = Option<Cow<'a, str>>;
type Texts = Option<BTreeMap<String, Option<String>>>;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Tag {
    key: Option<String>,
    value: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CreateTopic<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    attributes: Texts,
    tags: Option<Vec<Tag>>,
    #[serde(borrow)]
    data_protection_policy: Text<'a>,
}

pub(super) fn create(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: CreateTopic<'_> = input.parse()?;
    let name = request.name.as_deref().unwrap_or_default();
    let mut attributes = request.attributes.unwrap_or_default();
    attributes.retain(|_, value| value.is_some());
    let is_fifo = match attributes.remove("FifoTopic").flatten() {
        None => false,
        Some(flag) => flag.eq_ignore_ascii_case("true"),
    };
    let stem = if is_fifo { name.strip_suffix(topic::FIFO_SUFFIX) } else { Some(name) };
    let is_letter = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    // An exchange's name has one octet for its length.
    let is_name = |stem: &str| !stem.is_empty() && name.len() <= 255 && stem.bytes().all(is_letter);
    if !stem.is_some_and(is_name) {
        return Err(invalid("Topic Name"));
    }
    let tags = read_tags(request.tags)?;
    let mut wanted = Table::new();
    for (attribute, value) in &attributes {
        let value = value.as_deref().unwrap_or_default();
        if !topic::is_known(attribute, is_fifo) {
            return Err(invalid(format_args!("Attributes Reason: Unknown attribute {attribute}")));
        }
        topic::check(attribute, value).map_err(|reason| invalid(format_args!("Attributes Reason: {reason}")))?;
        let value = normal(attribute, value);
        if !value.is_empty() {
            wanted.set(attribute.as_str(), Value::text(value));
        }
    }
    let vhost = call.vhost(turn)?;
    call.check(turn, &vhost.name, name, Access::Configure)?;
    // FIFO topics sign nothing.
    if !is_fifo {
        call.aws.sns.signer().prepare();
    }
    let account = call.caller.account.clone();
    if let Some(existing) = Topic::of(&vhost, name, &account) {
        check_same(&existing, &wanted, &tags)?;
        turn.wait_for(existing.exchange.identity());
        return call.reply(&json!({"TopicArn": existing.arn(&call.caller.region)}));
    }
    let mut arguments = Table::new();
    if is_fifo {
        arguments.push("x-message-deduplication", Value::Bool(true));
        arguments.push("x-cache-size", Value::I64(KEYS_MAX as i64));
        arguments.push("x-cache-ttl", Value::I64(publish::DEDUP_MS as i64));
        arguments.push("x-deduplication-header", Value::text(topic::DEDUP_HEADER));
    }
    let declare =
        DeclareExchange { name, kind: exchange::FILTERED, durable: true, arguments, ..DeclareExchange::default() };
    let made =
        vhost.declare_exchange(&declare, turn).map_err(|error| invalid(format_args!("Topic Name Reason: {error}")))?;
    let notes = topic::new_notes(wanted, tags, &call.caller.region);
    vhost.alter_exchange(&made, turn, |kept| *kept = notes);
    subscription::forget_gone(turn.broker, &vhost.name, name);
    let made = Topic::of(&vhost, name, &account).ok_or_else(|| arn::not_found("Topic"))?;
    archive::follow_policy(&made, turn)?;
    if let Some(policy) = request.data_protection_policy.filter(|policy| !policy.is_empty()) {
        made.set_data_protection(&policy, turn);
    }
    call.reply(&json!({"TopicArn": made.arn(&call.caller.region)}))
}

/// How a value is kept.
fn normal(attribute: &str, value: &str) -> String {
    match attribute {
        "DeliveryPolicy" if !value.is_empty() => delivery_policy::stored(value),
        // One that asks for nothing is none.
        "ArchivePolicy" if archive::days(value) == Ok(None) => String::new(),
        "ContentBasedDeduplication" => value.to_ascii_lowercase(),
        _ => value.to_owned(),
    }
}

/// A topic may be made again with what it has.
fn check_same(existing: &Topic, attributes: &Table, tags: &Table) -> Result<(), Error> {
    let texts = |table: &Table| -> Vec<(String, String)> {
        let text = |(name, value): (&str, &Value)| Some((name.to_owned(), value.as_text()?.to_owned()));
        table.iter().filter_map(text).collect()
    };
    let is_same = |(name, value): &(String, String)| match existing.attribute(name) {
        Some(has) => has == value,
        None => name == "ContentBasedDeduplication" && value == "false",
    };
    if !texts(attributes).iter().all(is_same) {
        return Err(invalid("Attributes Reason: Topic already exists with different attributes"));
    }
    let has_tag = |(key, value): &(String, String)| existing.tags().any(|(known, has)| known == key && has == value);
    if !texts(tags).iter().all(has_tag) {
        return Err(invalid("Tags Reason: Topic already exists with different tags"));
    }
    Ok(())
}

/// Tags of a topic at most, and characters of their names and values.
const TAGS_COUNT_MAX: usize = 50;
const TAG_KEY_CHARS_MAX: usize = 128;
const TAG_VALUE_CHARS_MAX: usize = 256;

fn too_many_tags() -> Error {
    let message = "Could not complete request: tag quota of per resource exceeded";
    Error::sns("TagLimitExceededException", message)
}

fn read_tags(tags: Option<Vec<Tag>>) -> Result<Table, Error> {
    let mut table = Table::new();
    for Tag { key, value } in tags.into_iter().flatten() {
        let key = key.filter(|key| !key.is_empty()).ok_or_else(|| null_member("tags.1.member.key"))?;
        if key.chars().count() > TAG_KEY_CHARS_MAX {
            return Err(invalid(format_args!("Tags Reason: a tag key has {TAG_KEY_CHARS_MAX} characters at most")));
        }
        if value.as_ref().is_some_and(|value| value.chars().count() > TAG_VALUE_CHARS_MAX) {
            return Err(invalid(format_args!("Tags Reason: a tag value has {TAG_VALUE_CHARS_MAX} characters at most")));
        }
        if key.to_ascii_lowercase().starts_with("aws:") {
            return Err(invalid("Tags Reason: aws: prefixed tag key names are not allowed for external use."));
        }
        if table.get(&key).is_some() {
            return Err(invalid("Duplicated keys are not allowed."));
        }
        table.push(key, Value::text(value.unwrap_or_default()));
    }
    if table.len() > TAGS_COUNT_MAX {
        return Err(too_many_tags());
    }
    Ok(table)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OfTopic<'a> {
    #[serde(borrow)]
    topic_arn: Text<'a>,
}

pub(super) fn delete(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: OfTopic<'_> = input.parse()?;
    match Topic::find(call, turn, (request.topic_arn.as_deref(), "TopicArn"), Access::Configure) {
        Ok(topic) if topic.attribute("ArchivePolicy").is_some() => {
            let message = "Invalid state: Cannot delete a topic with an ArchivePolicy";
            return Err(Error::sns("InvalidStateException", message));
        }
        Ok(topic) => {
            subscription::topic_deleted(&topic, turn);
            let deleted = topic.vhost.delete_exchange(topic.name(), false, turn);
            deleted.map_err(|error| Error::internal(error.to_string()))?;
        }
        // It may be deleted as often as one likes.
        Err(error) if &*error.query_code == "NotFound" => {}
        Err(error) => return Err(error),
    }
    call.reply_done()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct List<'a> {
    #[serde(borrow)]
    next_token: Text<'a>,
}

pub(super) fn list(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: List<'_> = input.parse()?;
    let from = page::behind(page::after(request.next_token.as_deref())?);
    let vhost = call.vhost(turn)?;
    let mut names: Vec<_> = vhost
        .exchanges()
        .into_iter()
        .filter(|of| of.declaration.kind == exchange::Kind::Filtered && *of.name >= *from)
        .map(|of| of.name.clone())
        .collect();
    names.sort_unstable();
    let (names, next) = page::cut(names, page::ITEMS_MAX, |name| name);
    let arn = |name: &str| json!({"TopicArn": arn::of_topic(&call.caller.region, &call.caller.account, name)});
    let topics: Vec<_> = names.iter().map(|name| arn(name)).collect();
    call.reply(&with_next(json!({ "Topics": topics }), next))
}

/// An answer with the token of the next page, if there is one.
pub(super) fn with_next(mut answer: serde_json::Value, next: Option<String>) -> serde_json::Value {
    if let Some(next) = next {
        answer["NextToken"] = next.into();
    }
    answer
}

pub(super) fn get_attributes(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: OfTopic<'_> = input.parse()?;
    let topic = Topic::find(call, turn, (request.topic_arn.as_deref(), "TopicArn"), Access::Read)?;
    let (mut pending, mut confirmed) = (0, 0);
    for (_, value) in Subscription::list(turn.broker, &topic.vhost.name, Some(topic.name()), "", usize::MAX) {
        match value {
            of if of.is_gone => {}
            of if of.is_pending => pending += 1,
            _ => confirmed += 1,
        }
    }
    let told = topic::told(&topic, &call.caller.region, [pending, confirmed, 0], turn.now);
    call.reply(&json!({ "Attributes": told }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SetAttribute<'a> {
    #[serde(borrow)]
    topic_arn: Text<'a>,
    #[serde(borrow)]
    attribute_name: Text<'a>,
    #[serde(borrow)]
    attribute_value: Text<'a>,
}

pub(super) fn set_attribute(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: SetAttribute<'_> = input.parse()?;
    let topic = Topic::find(call, turn, (request.topic_arn.as_deref(), "TopicArn"), Access::Configure)?;
    let name = request.attribute_name.as_deref().unwrap_or_default();
    let value = request.attribute_value.as_deref().unwrap_or_default();
    if !topic::is_known(name, topic.is_fifo()) {
        return Err(invalid("AttributeName"));
    }
    topic::check(name, value).map_err(invalid)?;
    let value = normal(name, value);
    topic.set_attribute(name, Some(&*value).filter(|value| !value.is_empty()), turn);
    if name == "ArchivePolicy" {
        archive::follow_policy(&topic, turn)?;
    }
    call.reply_done()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OfResource<'a> {
    #[serde(borrow)]
    resource_arn: Text<'a>,
    tags: Option<Vec<Tag>>,
    tag_keys: Option<Vec<String>>,
    #[serde(borrow)]
    data_protection_policy: Text<'a>,
}

fn resource(call: &Call, turn: &Turn<'_>, arn: Option<&str>, access: Access) -> Result<Topic, Error> {
    Topic::find(call, turn, (arn, "ResourceArn"), access).map_err(|error| match &*error.query_code {
        "NotFound" => Error::sns("ResourceNotFoundException", "Resource does not exist"),
        _ => error,
    })
}

pub(super) fn tag(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: OfResource<'_> = input.parse()?;
    let topic = resource(call, turn, request.resource_arn.as_deref(), Access::Configure)?;
    let tags = read_tags(request.tags)?;
    let others_count = topic.tags().filter(|(key, _)| tags.get(key).is_none()).count();
    if others_count + tags.len() > TAGS_COUNT_MAX {
        return Err(too_many_tags());
    }
    topic.alter_tags(turn, |kept| tags.iter().for_each(|(key, value)| kept.set(key, value.clone())));
    call.reply_done()
}

pub(super) fn untag(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: OfResource<'_> = input.parse()?;
    let topic = resource(call, turn, request.resource_arn.as_deref(), Access::Configure)?;
    let keys = request.tag_keys.unwrap_or_default();
    topic.alter_tags(turn, |kept| keys.iter().for_each(|key| _ = kept.remove(key)));
    call.reply_done()
}

pub(super) fn list_tags(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: OfResource<'_> = input.parse()?;
    let topic = resource(call, turn, request.resource_arn.as_deref(), Access::Read)?;
    let tags: Vec<_> = topic.tags().map(|(key, value)| json!({"Key": key, "Value": value})).collect();
    call.reply(&json!({ "Tags": tags }))
}

pub(super) fn put_data_protection(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: OfResource<'_> = input.parse()?;
    let topic = Topic::find(call, turn, (request.resource_arn.as_deref(), "ResourceArn"), Access::Configure)?;
    let policy = call.required(request.data_protection_policy, "DataProtectionPolicy")?;
    if !policy.is_empty() && serde_json::from_str::<serde_json::Value>(&policy).is_err() {
        return Err(invalid("DataProtectionPolicy Reason: Policy is not valid JSON"));
    }
    topic.set_data_protection(&policy, turn);
    call.reply_done()
}

pub(super) fn get_data_protection(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: OfResource<'_> = input.parse()?;
    let topic = Topic::find(call, turn, (request.resource_arn.as_deref(), "ResourceArn"), Access::Read)?;
    match topic.data_protection() {
        Some(policy) => call.reply(&json!({ "DataProtectionPolicy": policy })),
        None => call.reply(&json!({})),
    }
}
