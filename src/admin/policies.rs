//! Policies and operator policies.

use serde_json::{Value as Json, json};

use super::{
    columns,
    control::{Call, Reply, all_columns, invalid},
    failure::Failure,
    wire,
};
use crate::broker::policy::{Layer, Policy};

pub(super) fn set(call: &Call<'_>, layer: Layer, given: &wire::Policy) -> Result<Reply, Failure> {
    call.vhost()?;
    let wire::Policy { name, pattern, definition, priority, apply_to } = given;
    let policy = Policy::parse(layer, call.vhost_name, name, pattern, definition, *priority, apply_to);
    put(call, layer, policy.map_err(|error| invalid(&error))?);
    Ok(Reply::DONE)
}

pub(super) fn clear(call: &Call<'_>, layer: Layer, name: &str) -> Result<Reply, Failure> {
    if call.broker.policies.clear(layer, call.vhost_name, name).is_err() {
        return Err(Failure::no_such_parameter());
    }
    apply(call);
    Ok(Reply::DONE)
}

pub(super) fn list(call: &Call<'_>, layer: Layer) -> Result<Reply, Failure> {
    call.vhost()?;
    let policies = call.broker.policies.list(layer, Some(call.vhost_name)).into_iter();
    Ok(all_columns(
        columns::POLICIES,
        policies.map(|policy| {
            let definition = Json::Object(policy.definition_json()).to_string();
            let priority = Json::Number(policy.priority.clone());
            let (pattern, apply_to) = (policy.pattern.as_str(), policy.apply_to.as_str());
            vec![json!(policy.vhost), json!(policy.name), json!(pattern), json!(apply_to), json!(definition), priority]
        }),
    ))
}

/// Puts a checked policy in force.
pub(super) fn put(call: &Call<'_>, layer: Layer, policy: Policy) {
    call.broker.policies.set(layer, policy);
    apply(call);
}

fn apply(call: &Call<'_>) {
    let Some(vhost) = call.broker.vhost(call.vhost_name) else { return };
    let mut turn = call.turn();
    call.broker.apply_policies(&vhost, &mut turn);
    turn.end();
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::{
        admin::{
            tests::{Desk, columns},
            wire::{Policy, Verb},
        },
        broker::value::Table,
    };

    fn policy(name: &str, definition: &str) -> Policy {
        let (name, definition) = (name.to_owned(), definition.to_owned());
        Policy { name, pattern: "^q".into(), definition, priority: 3, apply_to: "queues".into() }
    }

    #[test]
    fn policy_is_in_force_as_soon_as_it_is_set() {
        let desk = Desk::new();
        desk.queue("q", Table::new());
        (0..5).for_each(|_| desk.publish("q", b"x", false));
        desk.done(Verb::SetPolicy(policy("p", r#"{"max-length":2}"#)));
        let queue = desk.vhost().queue("q").unwrap();
        queue.tick(&mut desk.turn());
        assert_eq!(desk.rows(Verb::ListQueues(columns(&["policy", "messages"]))), [json!(["p", 2])]);
        assert_eq!(desk.rows(Verb::ListPolicies {}), [json!(["/", "p", "^q", "queues", r#"{"max-length":2}"#, 3])]);
        desk.done(Verb::ClearPolicy { name: "p".into() });
        assert_eq!(desk.rows(Verb::ListQueues(columns(&["policy"]))), [json!([""])]);
        assert_eq!(desk.refusal(Verb::ClearPolicy { name: "p".into() }), ("Parameter does not exist".into(), 69));
    }

    #[test]
    fn layers_are_apart_and_operator_policies_are_parameters_too() {
        let desk = Desk::new();
        desk.done(Verb::SetOperatorPolicy(policy("op", r#"{"max-length":2}"#)));
        assert!(desk.rows(Verb::ListPolicies {}).is_empty());
        assert_eq!(desk.rows(Verb::ListOperatorPolicies {}).len(), 1);
        let value = r#"{"pattern":"^q","definition":{"max-length":2},"priority":3,"apply-to":"queues"}"#;
        assert_eq!(desk.rows(Verb::ListParameters {}), [json!(["operator_policy", "op", value])]);
        desk.done(Verb::ClearParameter { component: "operator_policy".into(), name: "op".into() });
        assert!(desk.rows(Verb::ListOperatorPolicies {}).is_empty());
    }

    #[test]
    fn faults_are_told_with_a_heading() {
        let desk = Desk::new();
        let refusal = desk.refusal(Verb::SetPolicy(policy("p", "{}")));
        assert_eq!(refusal, ("Validation failed\n\nno policy provided\n".into(), 69));
        let refusal = desk.refusal_in("missing", Verb::SetPolicy(policy("p", "{bad")));
        assert_eq!(refusal, ("Virtual host 'missing' does not exist".into(), 65));
    }
}
