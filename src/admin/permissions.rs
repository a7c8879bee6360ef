//! Permissions of users on vhosts and on the topics of exchanges.

use serde_json::json;

use super::{
    columns,
    control::{Call, Reply, all_columns},
    failure::Failure,
    users::{check, refused},
};
use crate::broker::access::{Permissions, TopicPermissions};

pub(super) fn set(call: &Call<'_>, user: &str, configure: &str, write: &str, read: &str) -> Result<Reply, Failure> {
    check_both(call, user)?;
    let permissions = Permissions { configure: configure.into(), write: write.into(), read: read.into() };
    let set = call.broker.access.set_permissions(user, call.vhost_name, permissions);
    set.map_err(|error| refused(call, error))?;
    Ok(Reply::DONE)
}

pub(super) fn clear(call: &Call<'_>, user: &str) -> Result<Reply, Failure> {
    check_both(call, user)?;
    let cleared = call.broker.access.clear_permissions(user, call.vhost_name);
    cleared.map_err(|error| refused(call, error))?;
    Ok(Reply::DONE)
}

pub(super) fn list(call: &Call<'_>) -> Result<Reply, Failure> {
    call.vhost()?;
    let entries = call.broker.access.list_permissions(None, Some(call.vhost_name)).into_iter();
    Ok(all_columns(
        columns::PERMISSIONS,
        entries.map(|entry| {
            let Permissions { configure, write, read } = entry.permissions;
            vec![json!(entry.user), json!(configure), json!(write), json!(read)]
        }),
    ))
}

pub(super) fn list_of_user(call: &Call<'_>, user: &str) -> Result<Reply, Failure> {
    check(call, user)?;
    let entries = call.broker.access.list_permissions(Some(user), None).into_iter();
    Ok(all_columns(
        columns::USER_PERMISSIONS,
        entries.map(|entry| {
            let Permissions { configure, write, read } = entry.permissions;
            vec![json!(entry.vhost), json!(configure), json!(write), json!(read)]
        }),
    ))
}

pub(super) fn set_topic(
    call: &Call<'_>,
    user: &str,
    exchange: &str,
    write: &str,
    read: &str,
) -> Result<Reply, Failure> {
    check_both(call, user)?;
    let permissions = TopicPermissions { write: write.into(), read: read.into() };
    let set = call.broker.access.set_topic_permissions(user, call.vhost_name, exchange, permissions);
    set.map_err(|error| refused(call, error))?;
    Ok(Reply::DONE)
}

pub(super) fn clear_topic(call: &Call<'_>, user: &str, exchange: Option<&str>) -> Result<Reply, Failure> {
    check_both(call, user)?;
    let cleared = call.broker.access.clear_topic_permissions(user, call.vhost_name, exchange);
    cleared.map_err(|error| refused(call, error))?;
    Ok(Reply::DONE)
}

pub(super) fn list_topic(call: &Call<'_>) -> Result<Reply, Failure> {
    call.vhost()?;
    let entries = call.broker.access.list_topic_permissions(None, Some(call.vhost_name)).into_iter();
    Ok(all_columns(
        columns::TOPIC_PERMISSIONS,
        entries.map(|entry| {
            let TopicPermissions { write, read } = entry.permissions;
            vec![json!(entry.user), json!(entry.exchange), json!(write), json!(read)]
        }),
    ))
}

pub(super) fn list_topic_of_user(call: &Call<'_>, user: &str) -> Result<Reply, Failure> {
    check(call, user)?;
    let entries = call.broker.access.list_topic_permissions(Some(user), None).into_iter();
    Ok(all_columns(
        columns::USER_TOPIC_PERMISSIONS,
        entries.map(|entry| {
            let TopicPermissions { write, read } = entry.permissions;
            vec![json!(entry.vhost), json!(entry.exchange), json!(write), json!(read)]
        }),
    ))
}

/// The user is looked for first, as in RabbitMQ.
fn check_both(call: &Call<'_>, user: &str) -> Result<(), Failure> {
    check(call, user)?;
    call.vhost().map(drop)
}
