//! The keys that a policy may have: checks, merging of two values, and which queues know them.

use serde_json::Value as Json;

use super::rule::{Layer, ObjectKind};
use crate::broker::queue::behaviour::parse_age_ms;
use crate::broker::term::{Pairs, Term};

/// Checks a definition. The text names the first fault, as RabbitMQ's does.
pub(super) fn check_definition(layer: Layer, value: &Json) -> Result<(), String> {
    let Json::Object(entries) = value else {
        return Err(format!("definition must be a dictionary: {}", Term(value)));
    };
    if entries.is_empty() {
        return Err("no policy provided".into());
    }
    let mut sorted: Vec<(&str, &Json)> = entries.iter().map(|(key, value)| (key.as_str(), value)).collect();
    sorted.sort_by_key(|(key, _)| *key);
    let (known, unknown): (Vec<_>, Vec<_>) = sorted.into_iter().partition(|(key, _)| is_key(layer, key));
    for (key, value) in &known {
        check(key, value)?;
    }
    check_together(|key| known.iter().find(|(known, _)| *known == key).map(|(_, value)| *value))?;
    if unknown.is_empty() { Ok(()) } else { Err(format!("{} are not recognised policy settings", Pairs(&unknown))) }
}

/// The value that holds where both a policy and an operator policy set `key`.
pub(super) fn merge(key: &str, user: &Json, operator: &Json) -> Json {
    let pick = |order: fn(f64, f64) -> bool| match (user.as_f64(), operator.as_f64()) {
        (Some(a), Some(b)) => if order(a, b) { user } else { operator }.clone(),
        _ => operator.clone(),
    };
    match key {
        "expires"
        | "message-ttl"
        | "max-length"
        | "max-length-bytes"
        | "max-in-memory-length"
        | "max-in-memory-bytes"
        | "delayed-retry-max" => pick(|a, b| a < b),
        "delayed-retry-min" | "target-group-size" => pick(|a, b| a > b),
        // Negative is unlimited, so then the larger is the limit.
        "delivery-limit" if [user, operator].iter().any(|limit| limit.as_i64().is_some_and(|n| n < 0)) => {
            pick(|a, b| a > b)
        }
        "delivery-limit" => pick(|a, b| a < b),
        _ => operator.clone(),
    }
}

/// Whether an object of that kind can have a policy with that key.
pub(super) fn is_known_to(kind: ObjectKind, key: &str) -> bool {
    match kind {
        ObjectKind::Exchange => true,
        ObjectKind::ClassicQueue => !STREAM_ONLY.contains(&key),
        ObjectKind::QuorumQueue => !STREAM_ONLY.contains(&key) && !CLASSIC_ONLY.contains(&key),
        ObjectKind::Stream => !CLASSIC_ONLY.contains(&key) && !NOT_FOR_STREAMS.contains(&key),
    }
}

const STREAM_ONLY: &[&str] = &["max-age", "stream-max-segment-size-bytes", "initial-cluster-size"];

const CLASSIC_ONLY: &[&str] = &[
    "queue-mode",
    "ha-mode",
    "ha-params",
    "ha-sync-mode",
    "ha-promote-on-shutdown",
    "ha-promote-on-failure",
    "queue-master-locator",
];

const NOT_FOR_STREAMS: &[&str] = &[
    "expires",
    "message-ttl",
    "dead-letter-exchange",
    "dead-letter-routing-key",
    "dead-letter-strategy",
    "max-length",
    "max-in-memory-length",
    "max-in-memory-bytes",
    "overflow",
    "delivery-limit",
    "target-group-size",
];

fn is_key(layer: Layer, key: &str) -> bool {
    OPERATOR_KEYS.contains(&key) || (layer == Layer::User && USER_KEYS.contains(&key))
}

/// Keys of both layers.
const OPERATOR_KEYS: &[&str] = &[
    "delayed-retry-max",
    "delayed-retry-min",
    "delayed-retry-type",
    "delivery-limit",
    "expires",
    "max-in-memory-bytes",
    "max-in-memory-length",
    "max-length",
    "max-length-bytes",
    "member-placement-tag",
    "message-ttl",
    "overflow",
    "queue-master-locator",
    "queue-version",
    "target-group-size",
];

/// Keys of policies only. Mirroring and federation are accepted, so that definitions load, and
/// have no effect.
const USER_KEYS: &[&str] = &[
    "alternate-exchange",
    "consumer-disconnected-timeout",
    "consumer-timeout",
    "dead-letter-exchange",
    "dead-letter-routing-key",
    "dead-letter-strategy",
    "federation-upstream",
    "federation-upstream-pattern",
    "federation-upstream-set",
    "ha-mode",
    "ha-params",
    "ha-promote-on-failure",
    "ha-promote-on-shutdown",
    "ha-sync-batch-size",
    "ha-sync-mode",
    "initial-cluster-size",
    "max-age",
    "queue-leader-locator",
    "queue-mode",
    "stream-filter-size-bytes",
    "stream-max-segment-size-bytes",
];

/// Largest `stream-max-segment-size-bytes`.
const STREAM_SEGMENT_BYTES_MAX: u64 = 3_000_000_000;

fn check(key: &str, value: &Json) -> Result<(), String> {
    let text = value.as_str();
    // JSON integers only: 1.0 is none.
    let at_least = |min: u64| value.as_u64().is_some_and(|n| n >= min);
    let is_integer = value.is_i64() || value.is_u64();
    let one_of = |names: &[&str]| text.is_some_and(|text| names.contains(&text));
    let (is_valid, what) = match key {
        "alternate-exchange" => (text.is_some(), "is not a valid alternate exchange name"),
        "consumer-disconnected-timeout" => (at_least(0), "is not a valid consumer disconnected timeout"),
        "consumer-timeout" => (at_least(0), "is not a valid consumer timeout"),
        "dead-letter-exchange" => (text.is_some(), "is not a valid dead letter exchange name"),
        "dead-letter-routing-key" => (text.is_some(), "is not a valid dead letter routing key"),
        "dead-letter-strategy" => (one_of(&["at-most-once", "at-least-once"]), "is not a valid dead letter strategy"),
        "message-ttl" => (at_least(0), "is not a valid message TTL"),
        "expires" => (at_least(1), "is not a valid queue expiry"),
        "max-length" => (at_least(0), "is not a valid maximum length"),
        "max-length-bytes" => (at_least(0), "is not a valid maximum length in bytes"),
        "max-in-memory-length" | "max-in-memory-bytes" => (at_least(0), "is not a valid maximum memory in bytes"),
        "queue-mode" => (one_of(&["default", "lazy"]), "is not a valid queue-mode value"),
        "queue-version" => (matches!(value.as_u64(), Some(1 | 2)), "is not a valid queue-version value"),
        "overflow" => (one_of(&["drop-head", "reject-publish", "reject-publish-dlx"]), "is not a valid overflow value"),
        "delivery-limit" => (is_integer, "is not a valid delivery limit"),
        "max-age" => (text.and_then(parse_age_ms).is_some(), "is not a valid max age"),
        "queue-leader-locator" => (
            one_of(&["client-local", "balanced", "random", "least-leaders"]),
            "is not a valid queue leader locator value",
        ),
        "queue-master-locator" => {
            (one_of(&["client-local", "min-masters", "random"]), "invalid queue-master-locator value")
        }
        "initial-cluster-size" => (at_least(0), "is not a valid cluster size"),
        "stream-max-segment-size-bytes" => {
            (value.as_u64().is_some_and(|n| n <= STREAM_SEGMENT_BYTES_MAX), "is not a valid segment size")
        }
        "stream-filter-size-bytes" => {
            (matches!(value.as_u64(), Some(16..=255)), "is not a valid filter size. Valid range is 16-255")
        }
        "target-group-size" => (at_least(1), "is not a valid qq target count value"),
        "member-placement-tag" => (
            text.is_some_and(|text| !text.is_empty()),
            "is not a valid member-placement-tag value. Must be a non-empty string",
        ),
        "delayed-retry-type" => (
            one_of(&["all", "failed", "returned", "disabled"]),
            "is not a valid delayed retry type. Must be one of: all, failed, returned, disabled",
        ),
        "delayed-retry-min" => (at_least(1), "is not a valid delayed retry minimum delay. Must be a positive integer"),
        "delayed-retry-max" => (at_least(1), "is not a valid delayed retry maximum delay. Must be a positive integer"),
        "federation-upstream" => (text.is_some(), "is not a valid federation upstream name"),
        "federation-upstream-pattern" => (text.is_some(), "is not a valid federation upstream pattern name"),
        "federation-upstream-set" => (text.is_some(), "is not a valid federation upstream set name"),
        "ha-mode" => (one_of(&["all", "exactly", "nodes"]), "is not a valid ha-mode value"),
        "ha-sync-mode" if !one_of(&["manual", "automatic"]) => {
            return Err(format!("ha-sync-mode must be \"manual\" or \"automatic\", got {}", Term(value)));
        }
        "ha-sync-batch-size" if !at_least(1) => {
            return Err(format!("ha-sync-batch-size takes an integer greater than 0, {} given", Term(value)));
        }
        "ha-promote-on-shutdown" | "ha-promote-on-failure" if !one_of(&["always", "when-synced"]) => {
            return Err(format!("{key} must be \"always\" or \"when-synced\", got {}", Term(value)));
        }
        _ => return Ok(()),
    };
    if is_valid { Ok(()) } else { Err(format!("{} {what}", Term(value))) }
}

/// Checks of keys that depend on each other.
fn check_together<'a>(get: impl Fn(&str) -> Option<&'a Json>) -> Result<(), String> {
    let depends_on_ha_mode =
        ["ha-params", "ha-sync-mode", "ha-sync-batch-size", "ha-promote-on-shutdown", "ha-promote-on-failure"];
    if get("ha-mode").is_none() && depends_on_ha_mode.iter().any(|key| get(key).is_some()) {
        return Err("ha-mode must be specified to specify ha-params, ha-sync-mode or ha-promote-on-shutdown".into());
    }
    let upstreams = ["federation-upstream", "federation-upstream-pattern", "federation-upstream-set"];
    if upstreams.iter().filter(|key| get(key).is_some()).count() > 1 {
        return Err("cannot specify federation-upstream, federation-upstream-set or federation-upstream-pattern \
                    together"
            .into());
    }
    let min = get("delayed-retry-min").and_then(Json::as_u64);
    let max = get("delayed-retry-max").and_then(Json::as_u64);
    match (get("delayed-retry-type").and_then(Json::as_str), min, max) {
        (Some(kind), None, _) if kind != "disabled" => {
            Err(format!("delayed-retry-min is required when delayed-retry-type is {kind}"))
        }
        (_, Some(min), Some(max)) if max < min => {
            Err(format!("delayed-retry-max ({max}) must not be smaller than delayed-retry-min ({min})"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fault(definition: Json) -> String {
        check_definition(Layer::User, &definition).expect_err("faulty")
    }

    #[test]
    fn faults_read_as_in_rabbitmq() {
        for (definition, text) in [
            (json!({}), "no policy provided"),
            (json!([]), "definition must be a dictionary: []"),
            (json!({"max-length": -1}), "-1 is not a valid maximum length"),
            (json!({"max-length": "x", "message-ttl": 1.5}), "<<\"x\">> is not a valid maximum length"),
            (json!({"message-ttl": 1.5}), "1.5 is not a valid message TTL"),
            (json!({"expires": 0}), "0 is not a valid queue expiry"),
            (json!({"nope": 1}), "[{<<\"nope\">>,1}] are not recognised policy settings"),
            (json!({"max-priority": 1}), "[{<<\"max-priority\">>,1}] are not recognised policy settings"),
            (json!({"queue-mode": "zzz"}), "<<\"zzz\">> is not a valid queue-mode value"),
            (json!({"overflow": true}), "true is not a valid overflow value"),
            (json!({"overflow": null}), "null is not a valid overflow value"),
            (json!({"max-age": "1x"}), "<<\"1x\">> is not a valid max age"),
            (json!({"dead-letter-exchange": 1}), "1 is not a valid dead letter exchange name"),
            (json!({"ha-mode": "foo"}), "<<\"foo\">> is not a valid ha-mode value"),
            (json!({"queue-leader-locator": "zz"}), "<<\"zz\">> is not a valid queue leader locator value"),
            (json!({"queue-master-locator": "zz"}), "<<\"zz\">> invalid queue-master-locator value"),
            (json!({"queue-version": "1"}), "<<\"1\">> is not a valid queue-version value"),
            (
                json!({"ha-sync-mode": "automatic"}),
                "ha-mode must be specified to specify ha-params, ha-sync-mode or ha-promote-on-shutdown",
            ),
            (json!({"delayed-retry-type": "all"}), "delayed-retry-min is required when delayed-retry-type is all"),
            (
                json!({"delayed-retry-min": 5, "delayed-retry-max": 4}),
                "delayed-retry-max (4) must not be smaller than delayed-retry-min (5)",
            ),
        ] {
            assert_eq!(fault(definition.clone()), text, "{definition}");
        }
    }

    #[test]
    fn valid_definitions_are_accepted() {
        for definition in [
            json!({"ha-mode": "exactly", "ha-params": 2, "ha-sync-mode": "automatic"}),
            json!({"federation-upstream-set": "all"}),
            json!({"max-age": "7D", "stream-max-segment-size-bytes": 500, "stream-filter-size-bytes": 16}),
            json!({"delivery-limit": -1, "overflow": "reject-publish-dlx", "queue-version": 2}),
            json!({"delayed-retry-type": "all", "delayed-retry-min": 1, "delayed-retry-max": 1}),
            json!({"message-ttl": 0, "expires": 1, "max-length": 0, "consumer-timeout": 0}),
        ] {
            assert_eq!(check_definition(Layer::User, &definition), Ok(()), "{definition}");
        }
    }

    #[test]
    fn an_operator_has_fewer_keys() {
        let fault = check_definition(Layer::Operator, &json!({"dead-letter-exchange": "x"})).unwrap_err();
        assert_eq!(fault, "[{<<\"dead-letter-exchange\">>,<<\"x\">>}] are not recognised policy settings");
        assert_eq!(check_definition(Layer::Operator, &json!({"max-length": 1, "overflow": "drop-head"})), Ok(()));
    }

    #[test]
    fn every_key_has_a_check() {
        for key in USER_KEYS.iter().chain(OPERATOR_KEYS).filter(|key| **key != "ha-params") {
            assert!(check(key, &Json::Null).is_err(), "{key}");
        }
    }

    #[test]
    fn the_smaller_limit_holds() {
        for key in ["expires", "message-ttl", "max-length", "max-length-bytes", "delivery-limit"] {
            assert_eq!(merge(key, &json!(5), &json!(7)), json!(5), "{key}");
            assert_eq!(merge(key, &json!(9), &json!(7)), json!(7), "{key}");
        }
        assert_eq!(merge("delivery-limit", &json!(-1), &json!(7)), json!(7));
        assert_eq!(merge("delivery-limit", &json!(5), &json!(-1)), json!(5));
        assert_eq!(merge("overflow", &json!("drop-head"), &json!("reject-publish")), json!("reject-publish"));
        assert_eq!(merge("delayed-retry-min", &json!(5), &json!(7)), json!(7));
    }
}
