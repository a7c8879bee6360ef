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
