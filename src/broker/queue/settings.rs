//! What the arguments, the policies and the properties of a queue come to: numbers take the smallest of
//! them. Everything else is the property if there is one, for it was said last, then the argument, then
//! the policy.

use std::sync::Arc;

use super::{
    arguments::{DedupArguments, QueueArguments, QueueType},
    behaviour::{DeadLetterStrategy, DelayedRetry, DelayedRetryType, Overflow},
    handle::{DeadLetterTarget, QueueDeclaration, Takes},
    machine::Limits,
    properties::{Dedup, Properties},
    retries::RetryDelay,
    stream::StreamOptions,
};
use crate::broker::policy::QueuePolicy;

/// What bounds a queue of these arguments and properties under that policy. `delivery_limit` is the broker's.
pub fn limits(
    arguments: &QueueArguments,
    policy: &QueuePolicy,
    properties: &Properties,
    delivery_limit: Option<u64>,
) -> Limits {
    let overflow = arguments.overflow.or(policy.overflow).unwrap_or(Overflow::DropHead);
    let strategy = arguments.dead_letter_strategy.or(policy.dead_letter_strategy);
    let max_length = smaller(arguments.max_length, policy.max_length);
    let max_length_bytes = smaller(arguments.max_length_bytes, policy.max_length_bytes);
    // As with RabbitMQ: a queue that drops its head to make room cannot promise to keep it.
    let drops_head = overflow != Overflow::RejectPublish;
    let asked_to_keep = strategy == Some(DeadLetterStrategy::AtLeastOnce) && !drops_head;
    let is_stream = arguments.queue_type == QueueType::Stream;
    let is_bounded = max_length.is_some() || max_length_bytes.is_some();
    let said_limit =
        smaller(arguments.delivery_limit, policy.delivery_limit.and_then(|limit| u64::try_from(limit).ok()));
    Limits {
        // Whoever names a dead queue may name one that goes later.
        keeps_dead: asked_to_keep || properties.dead_queue.is_some() && !(drops_head && is_bounded),
        withhold_ms: properties.withhold_ms.filter(|ms| *ms > 0),
        // Messages of a stream do not expire one by one: what they are too old for is the stream.
        message_ttl_ms: smaller(
            smaller(arguments.message_ttl_ms, policy.message_ttl_ms),
            properties.message_ttl_ms.filter(|_| !is_stream),
        ),
        expires_ms: smaller(arguments.expires_ms, policy.expires_ms),
        max_length,
        max_length_bytes,
        overflow,
        delivery_limit: smaller(said_limit, properties.delivery_limit).or(delivery_limit),
        retry_delay: arguments
            .delayed_retry
            .and_then(retry_delay)
            .or_else(|| policy.delayed_retry.and_then(retry_delay)),
        consumer_timeout_ms: smaller(arguments.consumer_timeout_ms, policy.consumer_timeout_ms),
        stream: stream(arguments, policy, properties),
        deduplication: properties.dedup.as_ref().map(dedup).or_else(|| arguments.deduplication.clone()),
        group_mode: properties.group_mode.unwrap_or_default(),
    }
}

/// Where a queue of these arguments and properties sends what it gives up, under that policy.
pub fn dead_letter(declaration: &QueueDeclaration, policy: &QueuePolicy, properties: &Properties) -> DeadLetterTarget {
    // The default exchange knows every queue by its name.
    let to_queue =
        |queue: &str, takes| DeadLetterTarget { exchange: Some("".into()), key: Some(queue.as_bytes().into()), takes };
    if let Some(queue) = &properties.dead_queue {
        return to_queue(queue, Takes::Failed);
    }
    let arguments = &declaration.parsed;
    let exchange = arguments.dead_letter_exchange.as_deref().or(policy.dead_letter_exchange.as_deref());
    let key = arguments.dead_letter_key.as_deref().or(policy.dead_letter_routing_key.as_deref().map(str::as_bytes));
    if exchange.is_none()
        && let Some(queue) = &declaration.dead_queue
    {
        return to_queue(queue, Takes::Persistent);
    }
    DeadLetterTarget { exchange: exchange.map(Arc::from), key: key.map(Arc::from), takes: Takes::All }
}

/// Names stay known for as long as was asked for, not until so and so many have come.
fn dedup(asked: &Dedup) -> DedupArguments {
    DedupArguments {
        cache_size: Some(u64::MAX),
        cache_ttl_ms: Some(asked.window_ms),
        header: asked.header.clone(),
        scope: asked.scope,
    }
}

/// What comes back through a client counts as failed here, so `returned` alone delays nothing.
fn retry_delay(wanted: DelayedRetry) -> Option<RetryDelay> {
    let is_meant = wanted.retry_type != DelayedRetryType::Returned;
    let min_ms = wanted.min_ms.or(wanted.max_ms)?;
    is_meant.then_some(RetryDelay { min_ms, max_ms: wanted.max_ms })
}

/// What limits a stream of these arguments and properties under that policy.
fn stream(arguments: &QueueArguments, policy: &QueuePolicy, properties: &Properties) -> StreamOptions {
    let declared = StreamOptions::from(arguments);
    StreamOptions {
        max_length_bytes: smaller(declared.max_length_bytes, policy.max_length_bytes),
        max_age_ms: smaller(smaller(declared.max_age_ms, policy.max_age_ms), properties.message_ttl_ms),
        segment_bytes_max: declared.segment_bytes_max.or(policy.stream_max_segment_size_bytes),
    }
}

fn smaller(argument: Option<u64>, policy: Option<u64>) -> Option<u64> {
    argument.into_iter().chain(policy).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{queue::machine::Reason, value::Table};

    fn declaration(arguments: QueueArguments) -> QueueDeclaration {
        QueueDeclaration {
            is_durable: true,
            is_auto_delete: false,
            owner: None,
            arguments: Table::new(),
            parsed: arguments,
            dead_queue: None,
        }
    }

    fn of(arguments: &QueueArguments, properties: &Properties) -> Limits {
        limits(arguments, &QueuePolicy::default(), properties, Some(20))
    }

    #[test]
    fn the_smallest_number_holds() {
        let arguments = QueueArguments { message_ttl_ms: Some(10), delivery_limit: Some(7), ..Default::default() };
        let properties = Properties { message_ttl_ms: Some(20), delivery_limit: Some(3), ..Properties::default() };
        let limits = of(&arguments, &properties);
        assert_eq!((limits.message_ttl_ms, limits.delivery_limit), (Some(10), Some(3)));
        let limits = of(&QueueArguments::default(), &Properties::default());
        assert_eq!((limits.message_ttl_ms, limits.delivery_limit), (None, Some(20)));
    }

    #[test]
    fn a_stream_takes_how_long_messages_may_wait_for_its_age() {
        let arguments = QueueArguments { queue_type: QueueType::Stream, ..Default::default() };
        let limits = of(&arguments, &Properties { message_ttl_ms: Some(20), ..Properties::default() });
        assert_eq!((limits.message_ttl_ms, limits.stream.max_age_ms), (None, Some(20)));
    }

    #[test]
    fn a_dead_queue_comes_before_what_the_declaration_says_and_takes_only_what_failed() {
        let declared =
            declaration(QueueArguments { dead_letter_exchange: Some("amq.direct".into()), ..Default::default() });
        let properties = Properties { dead_queue: Some("dead".into()), ..Properties::default() };
        let target = dead_letter(&declared, &QueuePolicy::default(), &properties);
        assert_eq!((target.exchange.as_deref(), target.key.as_deref()), (Some(""), Some(&b"dead"[..])));
        let message = crate::broker::message::Message::build("", b"q", b"", (0, 0), b"");
        for (reason, is_taken) in
            [(Reason::DeliveryLimit, true), (Reason::Rejected, true), (Reason::Expired, false), (Reason::MaxLen, false)]
        {
            assert_eq!(target.takes(&message, reason), is_taken, "{reason:?}");
        }
        let target = dead_letter(&declared, &QueuePolicy::default(), &Properties::default());
        assert_eq!(target.exchange.as_deref(), Some("amq.direct"));
    }

    #[test]
    fn what_dies_is_kept_for_a_dead_queue_unless_the_queue_drops_its_head() {
        let properties = Properties { dead_queue: Some("dead".into()), ..Properties::default() };
        assert!(of(&QueueArguments::default(), &properties).keeps_dead);
        assert!(!of(&QueueArguments { max_length: Some(5), ..Default::default() }, &properties).keeps_dead);
        assert!(!of(&QueueArguments::default(), &Properties::default()).keeps_dead);
    }
}
