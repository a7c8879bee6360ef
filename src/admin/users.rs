//! Users: adding, deleting, passwords, tags.

use serde_json::json;

use super::{
    columns,
    control::{Call, Reply, all_columns, invalid},
    failure::{EXIT_DATA, Failure, Kind},
};
use crate::broker::access::AccessError;

pub(super) fn add(call: &Call<'_>, name: &str, password: &str) -> Result<Reply, Failure> {
    call.broker.access.add(name, password).map_err(|error| refused(call, error))?;
    tracing::info!(user = name, "added a user");
    Ok(Reply::DONE)
}

pub(super) fn delete(call: &Call<'_>, name: &str) -> Result<Reply, Failure> {
    call.broker.access.delete(name).map_err(|error| refused(call, error))?;
    tracing::info!(user = name, "deleted a user");
    // What has been opened under the name must not outlive it.
    for connection in call.broker.connections.list() {
        if &*connection.info.user == name {
            connection.handle.close(&format!("user '{name}' is deleted"));
        }
    }
    Ok(Reply::DONE)
}

pub(super) fn change_password(call: &Call<'_>, name: &str, password: &str) -> Result<Reply, Failure> {
    call.broker.access.change_password(name, password).map_err(|error| refused(call, error))?;
    Ok(Reply::DONE)
}

pub(super) fn clear_password(call: &Call<'_>, name: &str) -> Result<Reply, Failure> {
    call.broker.access.clear_password(name).map_err(|error| refused(call, error))?;
    Ok(Reply::DONE)
}

pub(super) fn set_tags(call: &Call<'_>, name: &str, tags: &[String]) -> Result<Reply, Failure> {
    call.broker.access.set_tags(name, tags.to_vec()).map_err(|error| refused(call, error))?;
    Ok(Reply::DONE)
}

pub(super) fn authenticate(call: &Call<'_>, name: &str, password: &str) -> Result<Reply, Failure> {
    match call.broker.access.authenticate(name, password.as_bytes()) {
        Ok(_) => Ok(Reply::DONE),
        Err(refused) => {
            let message = format!("Error: failed to authenticate user \"{name}\"\n{refused}");
            Err(Failure::new(Kind::NotAuthenticated, message, EXIT_DATA))
        }
    }
}

pub(super) fn list(call: &Call<'_>) -> Result<Reply, Failure> {
    let users = call.broker.access.list().into_iter();
    Ok(all_columns(columns::USERS, users.map(|user| vec![json!(user.name), json!(user.tags)])))
}

/// Why a change of users or permissions was refused.
pub(super) fn refused(call: &Call<'_>, error: AccessError) -> Failure {
    match error {
        AccessError::NoSuchUser { name } => Failure::no_such_user(call.verb, &name),
        AccessError::UserAlreadyExists { name } => Failure::user_exists(&name),
        other => invalid(&other),
    }
}

/// The user must exist.
pub(super) fn check(call: &Call<'_>, name: &str) -> Result<(), Failure> {
    match call.broker.access.get(name) {
        Some(_) => Ok(()),
        None => Err(Failure::no_such_user(call.verb, name)),
    }
}
