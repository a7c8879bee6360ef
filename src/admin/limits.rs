//! Limits of vhosts and users.

use serde_json::{Map, Value as Json, json};

use super::{
    columns,
    control::{Call, Reply, all_columns, invalid},
    failure::Failure,
    users::{check, refused},
};
use crate::broker::limits::{UserLimits, VhostLimits};

pub(super) fn set_of_vhost(call: &Call<'_>, definition: &str) -> Result<Reply, Failure> {
    call.vhost()?;
    let limits = VhostLimits::parse(definition).map_err(|error| invalid(&error))?;
    call.broker.vhost_limits.set(call.vhost_name, limits);
    Ok(Reply::DONE)
}

pub(super) fn clear_of_vhost(call: &Call<'_>) -> Result<Reply, Failure> {
    match call.broker.vhost_limits.clear(call.vhost_name) {
        Ok(()) => Ok(Reply::DONE),
        Err(_) => Err(Failure::no_such_parameter()),
    }
}

pub(super) fn of_vhost(call: &Call<'_>) -> Result<Reply, Failure> {
    call.vhost()?;
    let all = call.broker.vhost_limits.list();
    let own = all.into_iter().find(|(vhost, _)| vhost == call.vhost_name);
    Ok(Reply::Done(own.map_or(Json::Null, |(_, limits)| Json::Object(limits.to_json()))))
}

pub(super) fn list_of_vhosts(call: &Call<'_>) -> Result<Reply, Failure> {
    let all = call.broker.vhost_limits.list().into_iter();
    Ok(all_columns(columns::VHOST_LIMITS, all.map(|(vhost, limits)| vec![json!(vhost), as_text(limits.to_json())])))
}

pub(super) fn set_of_user(call: &Call<'_>, user: &str, definition: &str) -> Result<Reply, Failure> {
    let limits = UserLimits::parse(definition).map_err(|error| invalid(&error))?;
    call.broker.access.set_limits(user, limits).map_err(|error| refused(call, error))?;
    Ok(Reply::DONE)
}

pub(super) fn clear_of_user(call: &Call<'_>, user: &str, limit: &str) -> Result<Reply, Failure> {
    call.broker.access.clear_limit(user, limit).map_err(|error| refused(call, error))?;
    Ok(Reply::DONE)
}

pub(super) fn of_user(call: &Call<'_>, user: &str) -> Result<Reply, Failure> {
    check(call, user)?;
    let limits = call.broker.access.get(user).map(|user| user.limits.to_json()).unwrap_or_default();
    Ok(Reply::Done(Json::Object(sorted(limits))))
}

pub(super) fn list_of_users(call: &Call<'_>) -> Result<Reply, Failure> {
    let users = call.broker.access.list().into_iter().filter(|user| !user.limits.is_empty());
    let row = |limits, name: &str| vec![json!(name), as_text(sorted(limits))];
    Ok(all_columns(columns::USER_LIMITS, users.map(move |user| row(user.limits.to_json(), &user.name))))
}

/// RabbitMQ keeps limits of users by name.
fn sorted(limits: Map<String, Json>) -> Map<String, Json> {
    let mut entries: Vec<_> = limits.into_iter().collect();
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    entries.into_iter().collect()
}

fn as_text(limits: Map<String, Json>) -> Json {
    Json::String(Json::Object(limits).to_string())
}
