//! Statements of a queue's access policy by their labels. The policy itself is evaluated elsewhere.

use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::{
    attributes::{self, note},
    queue::{Target, Text},
};
use crate::{
    aws::{
        call::{Call, Step},
        error::Error,
        sns::policy_changed,
    },
    broker::{access::Access, queue::properties::Properties, turn::Turn, value::Value},
};

/// Actions that others may be allowed.
const ACTIONS: &[&str] = &[
    "*",
    "SendMessage",
    "ReceiveMessage",
    "DeleteMessage",
    "ChangeMessageVisibility",
    "GetQueueAttributes",
    "GetQueueUrl",
    "PurgeQueue",
    "ListDeadLetterSourceQueues",
];
const LABEL_BYTES_MAX: usize = 80;
const ACTIONS_COUNT_MAX: usize = 7;
/// Statements of a policy that are added so, and accounts of all of them.
const STATEMENTS_COUNT_MAX: usize = 20;
const ACCOUNTS_COUNT_MAX: usize = 50;

#[derive(Deserialize)]
struct AddPermission<'a> {
    #[serde(borrow, rename = "QueueUrl")]
    queue_url: Option<Text<'a>>,
    #[serde(borrow, rename = "Label")]
    label: Option<Text<'a>>,
    #[serde(rename = "AWSAccountIds")]
    accounts: Option<Vec<String>>,
    #[serde(rename = "Actions")]
    actions: Option<Vec<String>>,
}

/// AddPermission
pub(super) fn add_permission(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: AddPermission<'_> = input.parse()?;
    let target = Target::find(call, turn, request.queue_url.as_deref(), Access::Configure)?;
    let label = call.required(request.label, "Label")?;
    let accounts = call.required(request.accounts.filter(|accounts| !accounts.is_empty()), "AWSAccountIds")?;
    let actions = call.required(request.actions.filter(|actions| !actions.is_empty()), "Actions")?;
    let is_label = (1..=LABEL_BYTES_MAX).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if !is_label {
        let reason = "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length.";
        return Err(Error::invalid_value(&*label, "Label", reason));
    }
    if let Some(unknown) = actions.iter().find(|action| !ACTIONS.contains(&action.as_str())) {
        let message = format!(
            "Value SQS:{unknown} for parameter ActionName is invalid. Reason: Only the queue owner is allowed to \
             invoke this action."
        );
        return Err(Error::sqs("InvalidParameterValueException", message));
    }
    if actions.len() > ACTIONS_COUNT_MAX {
        let message = format!("{} Actions were found, maximum allowed is {ACTIONS_COUNT_MAX}.", actions.len());
        return Err(Error::sqs("OverLimit", message));
    }
    let arn = target.arn(call);
    let principals = accounts.iter().map(|account| format!("arn:aws:iam::{account}:root")).collect();
    let actions = actions.iter().map(|action| format!("SQS:{action}")).collect();
    let statement = json!({
        "Sid": &*label,
        "Effect": "Allow",
        "Principal": {"AWS": one_or_many(principals)},
        "Action": one_or_many(actions),
        "Resource": arn,
    });
    let change = |properties: &mut Properties| {
        let mut policy = policy(properties).unwrap_or_else(
            || json!({"Version": "2008-10-17", "Id": format!("{arn}/SQSDefaultPolicy"), "Statement": []}),
        );
        let statements = statements(&mut policy);
        if statements.iter().any(|statement| is_called(statement, &label)) {
            return Err(Error::invalid_value(&*label, "Label", "Already exists."));
        }
        if statements.len() >= STATEMENTS_COUNT_MAX {
            let message = format!("A policy has {STATEMENTS_COUNT_MAX} statements at most.");
            return Err(Error::sqs("OverLimit", message));
        }
        if principals_count(statements) + accounts.len() > ACCOUNTS_COUNT_MAX {
            let message = format!("A policy has {ACCOUNTS_COUNT_MAX} principals at most.");
            return Err(Error::sqs("OverLimit", message));
        }
        statements.push(statement);
        properties.notes.set(note::POLICY, Value::text(policy.to_string()));
        Ok(())
    };
    target.vhost.alter_queue(&target.queue, change, turn)?;
    policy_changed(&target.vhost, &target.arn(call), turn)?;
    call.reply_done()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RemovePermission<'a> {
    #[serde(borrow)]
    queue_url: Option<Text<'a>>,
    #[serde(borrow)]
    label: Option<Text<'a>>,
}

/// RemovePermission
pub(super) fn remove_permission(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: RemovePermission<'_> = input.parse()?;
    let target = Target::find(call, turn, request.queue_url.as_deref(), Access::Configure)?;
    let label = call.required(request.label, "Label")?;
    let change = |properties: &mut Properties| {
        let unknown = || Error::invalid_value(&*label, "Label", "can't find label.");
        let mut policy = policy(properties).ok_or_else(unknown)?;
        let statements = statements(&mut policy);
        let before = statements.len();
        statements.retain(|statement| !is_called(statement, &label));
        match statements.len() {
            after if after == before => return Err(unknown()),
            0 => _ = properties.notes.remove(note::POLICY),
            _ => properties.notes.set(note::POLICY, Value::text(policy.to_string())),
        }
        Ok(())
    };
    target.vhost.alter_queue(&target.queue, change, turn)?;
    policy_changed(&target.vhost, &target.arn(call), turn)?;
    call.reply_done()
}

fn policy(properties: &Properties) -> Option<Json> {
    let policy: Json = serde_json::from_str(attributes::text(&properties.notes, note::POLICY)?).ok()?;
    policy.is_object().then_some(policy)
}

/// The statements of a policy, which may be one that is in no list.
fn statements(policy: &mut Json) -> &mut Vec<Json> {
    let statements = &mut policy["Statement"];
    if !statements.is_array() {
        let one = statements.take();
        *statements = Json::Array(if one.is_null() { Vec::new() } else { vec![one] });
    }
    match statements {
        Json::Array(statements) => statements,
        _ => unreachable!("it has just been made a list"),
    }
}

fn principals_count(statements: &[Json]) -> usize {
    let of = |statement: &Json| match &statement["Principal"]["AWS"] {
        Json::Array(all) => all.len(),
        Json::Null => 0,
        _ => 1,
    };
    statements.iter().map(of).sum()
}

fn is_called(statement: &Json, label: &str) -> bool {
    statement.get("Sid").and_then(Json::as_str) == Some(label)
}

fn one_or_many(mut texts: Vec<String>) -> Json {
    if texts.len() == 1 { texts.pop().into() } else { texts.into() }
}
