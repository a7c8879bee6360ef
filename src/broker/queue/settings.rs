//! What the arguments and the policies of a queue come to: numbers take the smaller of the two,
//! everything else the argument if there is one.

use std::sync::Arc;

use super::{
    arguments::{Overflow, QueueArguments},
    handle::DeadLetterTarget,
    machine::Limits,
};
use crate::broker::policy::{Overflow as PolicyOverflow, QueuePolicy};

/// What bounds a queue of these arguments under that policy. `delivery_limit` is the broker's.
pub fn limits(arguments: &QueueArguments, policy: &QueuePolicy, delivery_limit: Option<u64>) -> Limits {
    fn smaller(argument: Option<u64>, policy: Option<u64>) -> Option<u64> {
        match (argument, policy) {
            (Some(argument), Some(policy)) => Some(argument.min(policy)),
            (argument, policy) => argument.or(policy),
        }
    }
    Limits {
        message_ttl_ms: smaller(arguments.message_ttl_ms, policy.message_ttl_ms),
        expires_ms: smaller(arguments.expires_ms, policy.expires_ms),
        max_length: smaller(arguments.max_length, policy.max_length),
        max_length_bytes: smaller(arguments.max_length_bytes, policy.max_length_bytes),
        overflow: arguments.overflow.or_else(|| policy.overflow.map(overflow)).unwrap_or(Overflow::DropHead),
        delivery_limit: smaller(
            arguments.delivery_limit,
            policy.delivery_limit.and_then(|limit| u64::try_from(limit).ok()),
        )
        .or(delivery_limit),
        deduplication: arguments.deduplication.clone(),
    }
}

/// Where a queue of these arguments sends what it gives up, under that policy.
pub fn dead_letter(arguments: &QueueArguments, policy: &QueuePolicy) -> DeadLetterTarget {
    let exchange = arguments.dead_letter_exchange.as_deref().or(policy.dead_letter_exchange.as_deref());
    let key = arguments.dead_letter_key.as_deref().or(policy.dead_letter_routing_key.as_deref().map(str::as_bytes));
    DeadLetterTarget { exchange: exchange.map(Arc::from), key: key.map(Arc::from) }
}

fn overflow(policy: PolicyOverflow) -> Overflow {
    match policy {
        PolicyOverflow::DropHead => Overflow::DropHead,
        PolicyOverflow::RejectPublish => Overflow::RejectPublish,
        PolicyOverflow::RejectPublishDlx => Overflow::RejectPublishDlx,
    }
}
