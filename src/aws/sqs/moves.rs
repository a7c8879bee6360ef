//! Message move tasks: from a dead queue back to where its messages came from, or elsewhere.
//!
//! A task's handle is base64 of `{"taskId": UUID, "sourceArn": ARN}`; the UUID ends with the number that the broker
//! knows the task by.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::{
    queue::{Target, Text, arn_of},
    queues::is_source_of,
};
use crate::{
    aws::{
        call::{Call, Step},
        error::Error,
    },
    broker::{
        access::Access,
        redrive::{RedriveError, RedriveState, RedriveStatus, RedriveTo},
        turn::Turn,
    },
};

/// Messages of a second at most.
const RATE_MAX: i64 = 500;
/// Tasks that one list has at most.
const LISTED_MAX: i64 = 10;
/// What the UUID of a task begins with.
const TASK_PREFIX: &str = "00000000-0000-4000-8000-";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StartMessageMoveTask<'a> {
    #[serde(borrow)]
    source_arn: Option<Text<'a>>,
    #[serde(borrow)]
    destination_arn: Option<Text<'a>>,
    max_number_of_messages_per_second: Option<i64>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Started {
    task_handle: String,
}

/// StartMessageMoveTask
pub(super) fn start_message_move_task(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: StartMessageMoveTask<'_> = input.parse()?;
    let arn = call.required(request.source_arn, "SourceArn")?;
    let source = find(call, turn, &arn, "SourceArn", Access::Read)?;
    let is_dead = source.vhost.queues().iter().any(|queue| is_source_of(queue, &source.queue.name));
    if !is_dead {
        return Err(refused("Source queue must be configured as a Dead Letter Queue."));
    }
    let rate = match request.max_number_of_messages_per_second {
        Some(rate) if !(1..=RATE_MAX).contains(&rate) => {
            let reason = format!("You must enter a value between 1 and {RATE_MAX}.");
            return Err(Error::invalid_value(rate, "MaxNumberOfMessagesPerSecond", &reason));
        }
        rate => rate.and_then(|rate| u32::try_from(rate).ok()),
    };
    let to = match request.destination_arn.as_deref().filter(|arn| !arn.is_empty()) {
        None => RedriveTo::Origin,
        Some(arn) => {
            let found = find(call, turn, arn, "DestinationArn", Access::Write)?;
            if found.vhost.name != source.vhost.name {
                return Err(missing("DestinationArn"));
            }
            RedriveTo::Queue(found.queue.name.to_string())
        }
    };
    let started = source.vhost.start_redrive(&source.queue, to, rate, turn).map_err(declined)?;
    call.reply(&Started { task_handle: handle(&started, &source.arn(call)) })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CancelMessageMoveTask<'a> {
    #[serde(borrow)]
    task_handle: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Handle {
    task_id: String,
    source_arn: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Cancelled {
    approximate_number_of_messages_moved: u64,
}

/// CancelMessageMoveTask
pub(super) fn cancel_message_move_task(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: CancelMessageMoveTask<'_> = input.parse()?;
    let text = call.required(request.task_handle, "TaskHandle")?;
    let decoded = STANDARD.decode(&*text).ok().and_then(|bytes| serde_json::from_slice::<Handle>(&bytes).ok());
    let decoded = decoded.ok_or_else(|| refused("Value for parameter TaskHandle is invalid."))?;
    let source = find(call, turn, &decoded.source_arn, "SourceArn", Access::Read)?;
    let unknown = || Error::sqs("ResourceNotFoundException", "Task does not exist.");
    let number = decoded.task_id.strip_prefix(TASK_PREFIX).and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let is_running = |task: &RedriveStatus| {
        Some(task.id) == number && *task.source == *source.queue.name && task.state == RedriveState::Running
    };
    let running = turn.broker.redrives(&source.vhost.name).into_iter().find(is_running).ok_or_else(unknown)?;
    let cancelled = turn.broker.cancel_redrive(running.id, turn).ok_or_else(unknown)?;
    call.reply(&Cancelled { approximate_number_of_messages_moved: cancelled.moved })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListMessageMoveTasks<'a> {
    #[serde(borrow)]
    source_arn: Option<Text<'a>>,
    max_results: Option<i64>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    results: Vec<Task>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Task {
    #[serde(skip_serializing_if = "Option::is_none")]
    task_handle: Option<String>,
    status: &'static str,
    source_arn: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_number_of_messages_per_second: Option<u32>,
    approximate_number_of_messages_moved: u64,
    approximate_number_of_messages_to_move: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_reason: Option<&'static str>,
    started_timestamp: u64,
}

/// ListMessageMoveTasks
pub(super) fn list_message_move_tasks(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: ListMessageMoveTasks<'_> = input.parse()?;
    let arn = call.required(request.source_arn, "SourceArn")?;
    let source = find(call, turn, &arn, "SourceArn", Access::Read)?;
    let count = match request.max_results {
        Some(count) if !(1..=LISTED_MAX).contains(&count) => {
            let reason = format!("You must enter a value between 1 and {LISTED_MAX}.");
            return Err(Error::invalid_value(count, "MaxResults", &reason));
        }
        count => usize::try_from(count.unwrap_or(1)).unwrap_or(1),
    };
    let mut tasks = turn.broker.redrives(&source.vhost.name);
    tasks.retain(|task| *task.source == *source.queue.name);
    tasks.sort_by_key(|task| std::cmp::Reverse(task.id));
    tasks.truncate(count);
    let results = tasks.iter().map(|task| shown(call, &source, task)).collect();
    call.reply(&Listed { results })
}

fn shown(call: &Call, source: &Target, task: &RedriveStatus) -> Task {
    let arn = source.arn(call);
    let (status, failure_reason) = match &task.state {
        RedriveState::Running => ("RUNNING", None),
        RedriveState::Completed => ("COMPLETED", None),
        RedriveState::Cancelled => ("CANCELLED", None),
        // What makes a task fail is that there is nowhere to move messages to.
        RedriveState::Failed(_) => ("FAILED", Some("AWS.SimpleQueueService.NonExistentQueue")),
    };
    Task {
        // Only what runs can be cancelled.
        task_handle: (task.state == RedriveState::Running).then(|| handle(task, &arn)),
        status,
        source_arn: arn,
        destination_arn: match &task.to {
            RedriveTo::Queue(name) => Some(arn_of(call, &source.vhost, name)),
            RedriveTo::Origin => None,
        },
        max_number_of_messages_per_second: task.per_second,
        approximate_number_of_messages_moved: task.moved,
        approximate_number_of_messages_to_move: task.to_move,
        failure_reason,
        started_timestamp: task.started_at_ms,
    }
}

fn handle(task: &RedriveStatus, arn: &str) -> String {
    STANDARD.encode(format!(r#"{{"taskId":"{TASK_PREFIX}{:012x}","sourceArn":"{arn}"}}"#, task.id))
}

/// The queue that a parameter names by its ARN.
fn find(call: &Call, turn: &Turn<'_>, arn: &str, parameter: &str, access: Access) -> Result<Target, Error> {
    let found = Target::of_arn(call, turn, arn).ok_or_else(|| missing(parameter))?;
    call.check(turn, &found.vhost.name, &found.queue.name, access)?;
    Ok(found)
}

fn missing(parameter: &str) -> Error {
    let message = format!("The resource that you specified for the {parameter} parameter doesn't exist.");
    Error::sqs("ResourceNotFoundException", message)
}

fn refused(message: &str) -> Error {
    Error::sqs("InvalidParameterValueException", message)
}

fn declined(error: RedriveError) -> Error {
    match error {
        RedriveError::Running => refused(
            "There is already a task running. Only one active task is allowed for a source queue arn at a given time.",
        ),
        RedriveError::NoTarget(_) => missing("DestinationArn"),
        RedriveError::TooMany => Error::sqs("OverLimit", error.to_string()),
        RedriveError::SameQueue => refused("Source queue arn and destination queue arn cannot be the same."),
        RedriveError::Stream => Error::sqs("UnsupportedOperation", error.to_string()),
    }
}
