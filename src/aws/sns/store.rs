//! What SNS keeps beside topics: JSON values in parameters of the vhost, by component and name.

use std::sync::Arc;

use serde_json::Value as Json;

use crate::{
    aws::error::Error,
    broker::{parameters::Parameter, turn::Turn},
};

/// Keeps a value. The answer waits for that.
pub(super) fn put(turn: &mut Turn<'_>, vhost: &str, component: &str, name: &str, value: Json) -> Result<(), Error> {
    let (vhost, component, name) = (vhost.to_owned(), component.to_owned(), name.to_owned());
    let kept = turn.broker.parameters.set(Parameter { value, vhost, component, name });
    kept.map_err(|error| Error::internal(error.to_string()))?;
    turn.wait_for(turn.broker.defined_at());
    Ok(())
}

/// A value.
pub(super) fn get(turn: &Turn<'_>, vhost: &str, component: &str, name: &str) -> Option<Json> {
    turn.broker.parameters.get(vhost, component, name).map(|value| Json::clone(&value))
}

/// Forgets a value. The answer waits for that.
pub(super) fn remove(turn: &mut Turn<'_>, vhost: &str, component: &str, name: &str) {
    // There may be none.
    let _ = turn.broker.parameters.clear(vhost, component, name);
    turn.wait_for(turn.broker.defined_at());
}

/// Values whose names begin with `prefix` and are not before `from`, by name.
pub(super) fn list(
    turn: &Turn<'_>,
    vhost: &str,
    component: &str,
    prefix: &str,
    from: &str,
    max: usize,
) -> Vec<(String, Arc<Json>)> {
    turn.broker.parameters.list_from(vhost, component, prefix, from, max)
}
