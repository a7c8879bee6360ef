//! Deleting received messages, and changing for how long they stay invisible: one or ten.

use serde::Deserialize;

use super::{
    attributes::VISIBILITY_SECS_MAX,
    batch::{self, Done, Failed, Outcome},
    queue::{Target, Text},
};
use crate::{
    aws::{
        call::{Call, Step},
        error::Error,
    },
    broker::{
        access::Access,
        queue::leases::{LeaseError, LeaseSettle},
        turn::Turn,
        verb::Verb,
    },
};

/// Milliseconds after which a message that is looked for on the disk is looked for again, if nobody was told.
const PENDING_MS: u64 = 1_000;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DeleteMessage<'a> {
    #[serde(borrow)]
    queue_url: Option<Text<'a>>,
    #[serde(borrow)]
    receipt_handle: Option<Text<'a>>,
}

/// DeleteMessage
pub(super) fn delete_message(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: DeleteMessage<'_> = input.parse()?;
    let target = Target::find(call, turn, request.queue_url.as_deref(), Access::Read)?;
    let handle = call.required(request.receipt_handle, "ReceiptHandle")?;
    let lease = lease(call, turn, &target, &handle)?;
    match settle(call, turn, &target, &[lease], accept(&target)) {
        None => Ok(pending(turn)),
        Some(settled) => {
            settled.into_iter().try_for_each(|one| deleted(one, &handle))?;
            call.reply_done()
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DeleteMessageBatch<'a> {
    #[serde(borrow)]
    queue_url: Option<Text<'a>>,
    #[serde(borrow)]
    entries: Option<Vec<Entry<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    receipt_handle: Option<Text<'a>>,
    visibility_timeout: Option<i64>,
}

impl Entry<'_> {
    fn id(&self) -> &str {
        self.id.as_deref().unwrap_or_default()
    }
}

/// DeleteMessageBatch
pub(super) fn delete_message_batch(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: DeleteMessageBatch<'_> = input.parse()?;
    let target = Target::find(call, turn, request.queue_url.as_deref(), Access::Read)?;
    let entries = request.entries.unwrap_or_default();
    batch::check(entries.iter().map(Entry::id), "DeleteMessageBatchRequestEntry")?;
    let mut outcome = Outcome { successful: Vec::with_capacity(entries.len()), failed: Vec::new() };
    let (mut named, mut leases) = (Vec::with_capacity(entries.len()), Vec::with_capacity(entries.len()));
    for entry in &entries {
        let handle = entry.receipt_handle.as_deref().unwrap_or_default();
        match lease(call, turn, &target, handle) {
            Ok(lease) => {
                named.push((entry, handle));
                leases.push(lease);
            }
            Err(error) => outcome.failed.push(Failed::new(entry.id(), error)),
        }
    }
    let Some(settled) = settle(call, turn, &target, &leases, accept(&target)) else { return Ok(pending(turn)) };
    for ((entry, handle), settled) in named.into_iter().zip(settled) {
        match deleted(settled, handle) {
            Ok(()) => outcome.successful.push(Done { id: entry.id().to_owned() }),
            Err(error) => outcome.failed.push(Failed::new(entry.id(), error)),
        }
    }
    call.reply(&outcome)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ChangeMessageVisibility<'a> {
    #[serde(borrow)]
    queue_url: Option<Text<'a>>,
    #[serde(borrow)]
    receipt_handle: Option<Text<'a>>,
    visibility_timeout: Option<i64>,
}

/// ChangeMessageVisibility
pub(super) fn change_message_visibility(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: ChangeMessageVisibility<'_> = input.parse()?;
    let target = Target::find(call, turn, request.queue_url.as_deref(), Access::Read)?;
    let handle = call.required(request.receipt_handle, "ReceiptHandle")?;
    let secs = call.required(request.visibility_timeout, "VisibilityTimeout")?;
    let lease_ms = lease_ms(secs)?;
    let lease = lease(call, turn, &target, &handle)?;
    match settle(call, turn, &target, &[lease], LeaseSettle::Change { lease_ms }) {
        None => Ok(pending(turn)),
        Some(settled) => {
            settled.into_iter().try_for_each(|one| changed(one, &target, &handle))?;
            call.reply_done()
        }
    }
}

/// Entries of a batch with one time.
struct Changing<'r> {
    lease_ms: u64,
    leases: Vec<(u64, u64)>,
    named: Vec<(&'r Entry<'r>, &'r str)>,
}

/// ChangeMessageVisibilityBatch
pub(super) fn change_message_visibility_batch(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: DeleteMessageBatch<'_> = input.parse()?;
    let target = Target::find(call, turn, request.queue_url.as_deref(), Access::Read)?;
    let entries = request.entries.unwrap_or_default();
    batch::check(entries.iter().map(Entry::id), "ChangeMessageVisibilityBatchRequestEntry")?;
    let mut outcome = Outcome { successful: Vec::with_capacity(entries.len()), failed: Vec::new() };
    let mut by_time: Vec<Changing<'_>> = Vec::new();
    for entry in &entries {
        let handle = entry.receipt_handle.as_deref().unwrap_or_default();
        let looked = entry.visibility_timeout.ok_or_else(|| Error::missing("VisibilityTimeout")).and_then(lease_ms);
        match looked.and_then(|ms| Ok((ms, lease(call, turn, &target, handle)?))) {
            Ok((ms, lease)) => {
                let at = by_time.iter().position(|known| known.lease_ms == ms).unwrap_or(by_time.len());
                if at == by_time.len() {
                    by_time.push(Changing { lease_ms: ms, leases: Vec::new(), named: Vec::new() });
                }
                by_time[at].leases.push(lease);
                by_time[at].named.push((entry, handle));
            }
            Err(error) => outcome.failed.push(Failed::new(entry.id(), error)),
        }
    }
    for Changing { lease_ms, leases, named } in by_time {
        // What was changed before stays so when it is changed once more.
        let how = LeaseSettle::Change { lease_ms };
        let Some(settled) = settle(call, turn, &target, &leases, how) else { return Ok(pending(turn)) };
        for ((entry, handle), settled) in named.into_iter().zip(settled) {
            match changed(settled, &target, handle) {
                Ok(()) => outcome.successful.push(Done { id: entry.id().to_owned() }),
                Err(error) => outcome.failed.push(Failed::new(entry.id(), error)),
            }
        }
    }
    call.reply(&outcome)
}

fn accept(target: &Target) -> LeaseSettle {
    LeaseSettle::Accept { is_strict: target.is_fifo }
}

/// The lease that a receipt is of.
fn lease(call: &Call, turn: &Turn<'_>, target: &Target, handle: &str) -> Result<(u64, u64), Error> {
    let invalid = |why: &str| {
        Error::sqs("ReceiptHandleIsInvalid", format!("The input receipt handle \"{handle}\" is not {why}."))
    };
    let receipt = call.aws.sqs.receipts.read(handle, turn.broker);
    let receipt = receipt.ok_or_else(|| invalid("a valid receipt handle"))?;
    if receipt.queue != target.queue.id {
        return Err(invalid("valid for this queue"));
    }
    Ok((receipt.seq, receipt.nonce))
}

/// `None`: not yet, and whoever reads from the disk tells the call when.
fn settle(
    call: &Call,
    turn: &mut Turn<'_>,
    target: &Target,
    leases: &[(u64, u64)],
    how: LeaseSettle,
) -> Option<Vec<Result<(), LeaseError>>> {
    if leases.is_empty() {
        return Some(Vec::new());
    }
    let mut settled = target.queue.settle_leases(leases, how, turn);
    if matches!(settled, Verb::Pending(_)) {
        // It looks once more, or what has come from the disk meanwhile would be told to nobody.
        turn.broker.waiting.register(call.waiter.clone());
        settled = target.queue.settle_leases(leases, how, turn);
    }
    match settled {
        Verb::Done(settled) => Some(settled),
        Verb::Pending(_) => None,
    }
}

fn pending(turn: &Turn<'_>) -> Step {
    Step::Wait { until: turn.now.after_ms(PENDING_MS) }
}

/// A message that has gone already is as deleted as can be.
fn deleted(settled: Result<(), LeaseError>, handle: &str) -> Result<(), Error> {
    match settled {
        Ok(()) | Err(LeaseError::Gone) => Ok(()),
        Err(LeaseError::Lapsed | LeaseError::Replaced) => {
            Err(Error::invalid_value(handle, "ReceiptHandle", "The receipt handle has expired."))
        }
    }
}

fn changed(settled: Result<(), LeaseError>, target: &Target, handle: &str) -> Result<(), Error> {
    match settled {
        Ok(()) => Ok(()),
        // It is visible already: nothing is to be done, and nothing is to be said.
        Err(LeaseError::Lapsed | LeaseError::Replaced) if !target.is_fifo => Ok(()),
        Err(LeaseError::Lapsed | LeaseError::Replaced) => {
            Err(Error::invalid_value(handle, "ReceiptHandle", "The receipt handle has expired."))
        }
        Err(LeaseError::Gone) => {
            let reason = "Message does not exist or is not available for visibility timeout change.";
            Err(Error::invalid_value(handle, "ReceiptHandle", reason))
        }
    }
}

fn lease_ms(secs: i64) -> Result<u64, Error> {
    match u64::try_from(secs).ok().filter(|secs| *secs <= VISIBILITY_SECS_MAX) {
        Some(secs) => Ok(secs * 1_000),
        None => {
            let reason = format!("VisibilityTimeout must be an integer between 0 and {VISIBILITY_SECS_MAX}");
            Err(Error::invalid_value(secs, "VisibilityTimeout", &reason))
        }
    }
}
