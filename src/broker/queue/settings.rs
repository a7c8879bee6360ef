//! What the arguments and the policies of a queue come to: numbers take the smaller of the two,
//! everything else the argument if there is one.

use std::sync::Arc;

use super::{
    arguments::QueueArguments,
    behaviour::{DeadLetterStrategy, DelayedRetry, DelayedRetryType, Overflow},
    handle::{DeadLetterTarget, QueueDeclaration},
    machine::Limits,
    retries::RetryDelay,
    selective::GroupMode,
    stream::StreamOptions,
};
use crate::broker::policy::QueuePolicy;

/// What bounds a queue of these arguments under that policy. `delivery_limit` is the broker's.
pub fn limits(arguments: &QueueArguments, policy: &QueuePolicy, delivery_limit: Option<u64>) -> Limits {
    let overflow = arguments.overflow.or(policy.overflow).unwrap_or(Overflow::DropHead);
    let strategy = arguments.dead_letter_strategy.or(policy.dead_letter_strategy);
    Limits {
        // As with RabbitMQ: a queue that drops its head to make room cannot promise to keep it.
        keeps_dead: strategy == Some(DeadLetterStrategy::AtLeastOnce) && overflow == Overflow::RejectPublish,
        message_ttl_ms: smaller(arguments.message_ttl_ms, policy.message_ttl_ms),
        expires_ms: smaller(arguments.expires_ms, policy.expires_ms),
        max_length: smaller(arguments.max_length, policy.max_length),
        max_length_bytes: smaller(arguments.max_length_bytes, policy.max_length_bytes),
        overflow,
        delivery_limit: smaller(
            arguments.delivery_limit,
            policy.delivery_limit.and_then(|limit| u64::try_from(limit).ok()),
        )
        .or(delivery_limit),
        retry_delay: arguments
            .delayed_retry
            .and_then(retry_delay)
            .or_else(|| policy.delayed_retry.and_then(retry_delay)),
        consumer_timeout_ms: smaller(arguments.consumer_timeout_ms, policy.consumer_timeout_ms),
        stream: stream(arguments, policy),
        deduplication: arguments.deduplication.clone(),
        group_mode: GroupMode::default(),
        withhold_ms: None,
    }
}

/// Where a queue of these arguments sends what it gives up, under that policy.
pub fn dead_letter(declaration: &QueueDeclaration, policy: &QueuePolicy) -> DeadLetterTarget {
    let arguments = &declaration.parsed;
    let exchange = arguments.dead_letter_exchange.as_deref().or(policy.dead_letter_exchange.as_deref());
    let key = arguments.dead_letter_key.as_deref().or(policy.dead_letter_routing_key.as_deref().map(str::as_bytes));
    if exchange.is_none()
        && let Some(queue) = &declaration.dead_queue
    {
        // The default exchange knows every queue by its name.
        return DeadLetterTarget { exchange: Some("".into()), key: Some(queue.as_bytes().into()), is_default: true };
    }
    DeadLetterTarget { exchange: exchange.map(Arc::from), key: key.map(Arc::from), is_default: false }
}

/// What comes back through a client counts as failed here, so `returned` alone delays nothing.
fn retry_delay(wanted: DelayedRetry) -> Option<RetryDelay> {
    let is_meant = wanted.retry_type != DelayedRetryType::Returned;
    let min_ms = wanted.min_ms.or(wanted.max_ms)?;
    is_meant.then_some(RetryDelay { min_ms, max_ms: wanted.max_ms })
}

/// What limits a stream of these arguments under that policy.
fn stream(arguments: &QueueArguments, policy: &QueuePolicy) -> StreamOptions {
    let declared = StreamOptions::from(arguments);
    StreamOptions {
        max_length_bytes: smaller(declared.max_length_bytes, policy.max_length_bytes),
        max_age_ms: smaller(declared.max_age_ms, policy.max_age_ms),
        segment_bytes_max: declared.segment_bytes_max.or(policy.stream_max_segment_size_bytes),
    }
}

fn smaller(argument: Option<u64>, policy: Option<u64>) -> Option<u64> {
    argument.into_iter().chain(policy).min()
}
