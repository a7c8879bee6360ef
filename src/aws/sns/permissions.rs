//! Access policies of topics: statements added and removed by their labels.

use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::{arn::invalid, topic::Topic};
use crate::{
    aws::{
        call::{Call, Step},
        error::Error,
        policy::STATEMENTS_COUNT_MAX,
    },
    broker::{access::Access, turn::Turn},
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    topic_arn: Option<String>,
    label: Option<String>,
    #[serde(rename = "AWSAccountId")]
    accounts: Option<Vec<String>>,
    action_name: Option<Vec<String>>,
}

/// What a policy of a topic may be about.
const ACTIONS: [&str; 9] = [
    "AddPermission",
    "DeleteTopic",
    "GetTopicAttributes",
    "ListSubscriptionsByTopic",
    "Publish",
    "RemovePermission",
    "SetTopicAttributes",
    "Subscribe",
    "Receive",
];

pub(super) fn add(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: Request = input.parse()?;
    let topic = Topic::find(call, turn, (request.topic_arn.as_deref(), "TopicArn"), Access::Configure)?;
    let label = call.required(request.label.filter(|label| !label.is_empty()), "Label")?;
    let accounts = call.required(request.accounts.filter(|accounts| !accounts.is_empty()), "AWSAccountId")?;
    let mut actions = call.required(request.action_name.filter(|actions| !actions.is_empty()), "ActionName")?;
    if actions.iter().any(|action| action != "*" && !ACTIONS.contains(&action.as_str())) {
        return Err(invalid("Policy statement action out of service scope!"));
    }
    actions.iter_mut().for_each(|action| action.insert_str(0, "SNS:"));
    let mut policy = policy(&topic, call);
    let Some(Json::Array(statements)) = policy.get_mut("Statement") else { return Err(invalid("Policy")) };
    if statements.iter().any(|statement| statement["Sid"] == *label) {
        return Err(invalid("Statement already exists"));
    }
    let principals = accounts.iter().map(|account| format!("arn:aws:iam::{account}:root")).collect();
    if statements.len() >= STATEMENTS_COUNT_MAX {
        return Err(invalid("Policy Reason: Policy has too many statements."));
    }
    statements.push(json!({
        "Sid": label,
        "Effect": "Allow",
        "Principal": {"AWS": one_or_all(principals)},
        "Action": one_or_all(actions),
        "Resource": topic.arn(&call.caller.region),
    }));
    topic.set_attribute("Policy", Some(&policy.to_string()), turn);
    call.reply_done()
}

pub(super) fn remove(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: Request = input.parse()?;
    let topic = Topic::find(call, turn, (request.topic_arn.as_deref(), "TopicArn"), Access::Configure)?;
    let label = call.required(request.label, "Label")?;
    let mut policy = policy(&topic, call);
    if let Some(Json::Array(statements)) = policy.get_mut("Statement") {
        statements.retain(|statement| statement["Sid"] != *label);
    }
    topic.set_attribute("Policy", Some(&policy.to_string()), turn);
    call.reply_done()
}

/// The policy in force, its statements in a list.
fn policy(topic: &Topic, call: &Call) -> Json {
    let mut policy: Json = serde_json::from_str(&topic.policy(&call.caller.region)).unwrap_or_default();
    if let Some(statement) = policy.get_mut("Statement")
        && statement.is_object()
    {
        *statement = Json::Array(vec![statement.take()]);
    }
    policy
}

fn one_or_all(mut all: Vec<String>) -> Json {
    if all.len() == 1 { all.remove(0).into() } else { all.into() }
}
