//! How often a failed delivery is tried again: the delivery policies of topics and subscriptions, merged with the
//! service's defaults.

use serde_json::{Map, Value as Json, json};

/// The policy that a topic's own comes to.
pub(super) fn effective(own: Option<&str>) -> Json {
    let own = own.and_then(|text| serde_json::from_str::<Json>(text).ok()).unwrap_or_default();
    let http = own.get("http").unwrap_or(&Json::Null);
    let mut effective = Map::new();
    effective.insert("defaultHealthyRetryPolicy".into(), retries(http.get("defaultHealthyRetryPolicy")));
    let is_fixed = http.get("disableSubscriptionOverrides").and_then(Json::as_bool).unwrap_or(false);
    effective.insert("disableSubscriptionOverrides".into(), is_fixed.into());
    if let Some(throttle) = http.get("defaultThrottlePolicy").filter(|throttle| throttle.is_object()) {
        effective.insert("defaultThrottlePolicy".into(), throttle.clone());
    }
    let content_type = http.pointer("/defaultRequestPolicy/headerContentType").and_then(Json::as_str);
    let request = json!({"headerContentType": content_type.unwrap_or("text/plain; charset=UTF-8")});
    effective.insert("defaultRequestPolicy".into(), request);
    json!({"http": effective})
}

/// The policy of a topic as it is told: what it says, and the flag that it always has.
pub(super) fn stored(own: &str) -> String {
    let Ok(mut policy) = serde_json::from_str::<Json>(own) else { return own.to_owned() };
    if let Some(Json::Object(http)) = policy.get_mut("http") {
        http.retain(|_, value| !value.is_null());
        http.entry("disableSubscriptionOverrides").or_insert(false.into());
    }
    policy.to_string()
}

/// The policy that a subscription's own and its topic's come to.
pub(super) fn effective_of_subscription(own: Option<&str>, of_topic: Option<&str>) -> Json {
    let topic = effective(of_topic);
    let is_fixed = topic.pointer("/http/disableSubscriptionOverrides").and_then(Json::as_bool).unwrap_or(false);
    let own = own.filter(|_| !is_fixed).and_then(|text| serde_json::from_str::<Json>(text).ok()).unwrap_or_default();
    let of_topic = |name: &str| topic.pointer(&format!("/http/{name}")).cloned().unwrap_or_default();
    let healthy = match own.get("healthyRetryPolicy") {
        Some(policy) if policy.is_object() => retries(Some(policy)),
        _ => of_topic("defaultHealthyRetryPolicy"),
    };
    let request = match own.get("requestPolicy") {
        Some(policy) if policy.is_object() => policy.clone(),
        _ => of_topic("defaultRequestPolicy"),
    };
    let mut effective = Map::new();
    effective.insert("healthyRetryPolicy".into(), healthy);
    effective.insert("sicklyRetryPolicy".into(), Json::Null);
    let throttle = own.get("throttlePolicy").filter(|policy| policy.is_object()).cloned();
    effective.insert("throttlePolicy".into(), throttle.unwrap_or_else(|| of_topic("defaultThrottlePolicy")));
    effective.insert("requestPolicy".into(), request);
    effective.insert("guaranteed".into(), false.into());
    Json::Object(effective)
}

fn retries(own: Option<&Json>) -> Json {
    let mut policy = json!({
        "minDelayTarget": 20,
        "maxDelayTarget": 20,
        "numRetries": 3,
        "numMaxDelayRetries": 0,
        "numNoDelayRetries": 0,
        "numMinDelayRetries": 0,
        "backoffFunction": "linear",
    });
    if let (Some(Json::Object(own)), Json::Object(all)) = (own, &mut policy) {
        own.iter().filter(|(_, value)| !value.is_null()).for_each(|(name, value)| {
            all.insert(name.clone(), value.clone());
        });
    }
    policy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_topic_does_not_say_is_the_services_default() {
        let own = r#"{"http":{"defaultHealthyRetryPolicy":{"minDelayTarget":5,"maxDelayTarget":6,"numRetries":1}}}"#;
        let effective = effective(Some(own));
        assert_eq!(effective.pointer("/http/defaultHealthyRetryPolicy/minDelayTarget"), Some(&json!(5)));
        assert_eq!(effective.pointer("/http/defaultHealthyRetryPolicy/backoffFunction"), Some(&json!("linear")));
        assert_eq!(
            effective.pointer("/http/defaultRequestPolicy/headerContentType"),
            Some(&json!("text/plain; charset=UTF-8"))
        );
        assert!(stored(own).contains(r#""disableSubscriptionOverrides":false"#));
    }

    #[test]
    fn a_subscription_is_throttled_as_its_topic_says_unless_it_says_otherwise() {
        let topic = r#"{"http":{"defaultThrottlePolicy":{"maxReceivesPerSecond":5}}}"#;
        let of =
            |own| effective_of_subscription(own, Some(topic)).pointer("/throttlePolicy/maxReceivesPerSecond").cloned();
        assert_eq!(of(None), Some(json!(5)));
        assert_eq!(of(Some(r#"{"throttlePolicy":{"maxReceivesPerSecond":9}}"#)), Some(json!(9)));
    }

    #[test]
    fn a_topic_may_forbid_what_its_subscriptions_say() {
        let fixed = r#"{"http":{"disableSubscriptionOverrides":true}}"#;
        let own = r#"{"healthyRetryPolicy":{"numRetries":9}}"#;
        let of = |topic| effective_of_subscription(Some(own), topic)["healthyRetryPolicy"]["numRetries"].clone();
        assert_eq!((of(None), of(Some(fixed))), (json!(9), json!(3)));
    }
}
