//! Effective policies as types: what a queue or an exchange reads from them.
//!
//! Values were checked when the policy was set, so a value of the wrong kind reads as missing.

use serde_json::Value as Json;

use super::registry::Effective;
use crate::broker::queue::behaviour::{DeadLetterStrategy, DelayedRetry, DelayedRetryType, Overflow, parse_age_ms};

/// What policies say about a queue; `None` where they say nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueuePolicy {
    /// How long a message may wait.
    pub message_ttl_ms: Option<u64>,
    /// How long a queue may be unused.
    pub expires_ms: Option<u64>,
    /// Most ready messages.
    pub max_length: Option<u64>,
    /// Most bytes of ready messages.
    pub max_length_bytes: Option<u64>,
    /// What happens at those limits.
    pub overflow: Option<Overflow>,
    /// Where dead messages go; the empty name is the default exchange.
    pub dead_letter_exchange: Option<String>,
    /// The key under which they go there.
    pub dead_letter_routing_key: Option<String>,
    /// How surely they go there.
    pub dead_letter_strategy: Option<DeadLetterStrategy>,
    /// Deliveries before a message is dead; negative is any number.
    pub delivery_limit: Option<i64>,
    /// When a settled failure is tried again.
    pub delayed_retry: Option<DelayedRetry>,
    /// How long a delivery may stay unsettled.
    pub consumer_timeout_ms: Option<u64>,
    /// How long deliveries of a consumer that lost its connection stay with it.
    pub consumer_disconnected_timeout_ms: Option<u64>,
    /// Oldest message that a stream keeps.
    pub max_age_ms: Option<u64>,
    /// Size of a stream's segment.
    pub stream_max_segment_size_bytes: Option<u64>,
    /// Size of a stream's filter in a chunk.
    pub stream_filter_size_bytes: Option<u64>,
}

/// What policies say about an exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExchangePolicy {
    /// Where messages go that no binding takes.
    pub alternate_exchange: Option<String>,
}

impl Effective {
    /// The settings of a queue.
    pub fn queue(&self) -> QueuePolicy {
        let number = |key| self.get(key).and_then(Json::as_u64);
        let text = |key| self.get(key).and_then(Json::as_str);
        if self.is_empty() {
            return QueuePolicy::default();
        }
        QueuePolicy {
            message_ttl_ms: number("message-ttl"),
            expires_ms: number("expires"),
            max_length: number("max-length"),
            max_length_bytes: number("max-length-bytes"),
            overflow: text("overflow").and_then(Overflow::parse),
            dead_letter_exchange: text("dead-letter-exchange").map(ToOwned::to_owned),
            dead_letter_routing_key: text("dead-letter-routing-key").map(ToOwned::to_owned),
            dead_letter_strategy: text("dead-letter-strategy").and_then(DeadLetterStrategy::parse),
            // Beyond i64 is as good as no limit.
            delivery_limit: self.get("delivery-limit").map(|limit| limit.as_i64().unwrap_or(-1)),
            // Without a shortest delay a policy delays nothing.
            delayed_retry: text("delayed-retry-type").and_then(DelayedRetryType::parse).flatten().and_then(
                |retry_type| {
                    let min_ms = Some(number("delayed-retry-min")?);
                    Some(DelayedRetry { retry_type, min_ms, max_ms: number("delayed-retry-max") })
                },
            ),
            consumer_timeout_ms: number("consumer-timeout"),
            consumer_disconnected_timeout_ms: number("consumer-disconnected-timeout"),
            max_age_ms: text("max-age").and_then(parse_age_ms),
            stream_max_segment_size_bytes: number("stream-max-segment-size-bytes"),
            stream_filter_size_bytes: number("stream-filter-size-bytes"),
        }
    }

    /// The settings of an exchange.
    pub fn exchange(&self) -> ExchangePolicy {
        ExchangePolicy {
            alternate_exchange: self.get("alternate-exchange").and_then(Json::as_str).map(ToOwned::to_owned),
        }
    }
}
