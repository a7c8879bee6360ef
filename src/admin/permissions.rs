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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::admin::{tests::Desk, wire::Verb};

    fn set(user: &str, configure: &str) -> Verb {
        Verb::SetPermissions { user: user.into(), configure: configure.into(), write: "w".into(), read: "r".into() }
    }

    fn set_topic(user: &str, write: &str) -> Verb {
        Verb::SetTopicPermissions { user: user.into(), exchange: "e".into(), write: write.into(), read: "r".into() }
    }

    #[test]
    fn permissions_are_set_listed_and_cleared() {
        let desk = Desk::new();
        desk.done(set("guest", "^q"));
        assert_eq!(desk.rows(Verb::ListPermissions {}), [json!(["guest", "^q", "w", "r"])]);
        let of_guest = || desk.rows(Verb::ListUserPermissions { user: "guest".into() });
        assert_eq!(of_guest(), [json!(["/", "^q", "w", "r"])]);
        desk.done(Verb::ClearPermissions { user: "guest".into() });
        desk.done(Verb::ClearPermissions { user: "guest".into() });
        assert!(of_guest().is_empty());
    }

    #[test]
    fn missing_user_is_said_before_a_missing_vhost() {
        let desk = Desk::new();
        assert_eq!(desk.refusal_in("missing", set("nobody", "")), ("User nobody does not exist".into(), 67));
        assert_eq!(desk.refusal_in("missing", set("guest", "")), ("Virtual host missing does not exist".into(), 69));
        let listing = desk.refusal_in("missing", Verb::ListPermissions {});
        assert_eq!(listing, ("Virtual host 'missing' does not exist".into(), 65));
    }

    #[test]
    fn faulty_patterns_are_refused() {
        let desk = Desk::new();
        let (message, exit) = desk.refusal(set("guest", "*"));
        assert!(message.starts_with("{:invalid_regexp, '*', "), "{message}");
        assert_eq!(exit, 69);
        let (message, _) = desk.refusal(set_topic("guest", "*"));
        assert!(message.starts_with("{:invalid_regexp, \"*\", "), "{message}");
    }

    #[test]
    fn topic_permissions_are_set_listed_and_cleared() {
        let desk = Desk::new();
        desk.done(set_topic("guest", "^{username}"));
        assert_eq!(desk.rows(Verb::ListTopicPermissions {}), [json!(["guest", "e", "^{username}", "r"])]);
        let of_guest = || desk.rows(Verb::ListUserTopicPermissions { user: "guest".into() });
        assert_eq!(of_guest(), [json!(["/", "e", "^{username}", "r"])]);
        desk.done(Verb::ClearTopicPermissions { user: "guest".into(), exchange: Some("other".into()) });
        assert_eq!(of_guest().len(), 1);
        desk.done(Verb::ClearTopicPermissions { user: "guest".into(), exchange: None });
        assert!(of_guest().is_empty());
    }
}
