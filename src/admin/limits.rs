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

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use crate::admin::{tests::Desk, wire::Verb};

    #[test]
    fn limits_of_a_vhost_are_set_shown_and_cleared() {
        let desk = Desk::new();
        let own = || desk.done(Verb::ListVhostLimits { global: false });
        assert_eq!(own(), Json::Null);
        desk.done(Verb::SetVhostLimits { definition: r#"{"max-queues":5}"#.into() });
        assert_eq!(own(), json!({"max-queues": 5}));
        assert_eq!(desk.rows(Verb::ListVhostLimits { global: true }), [json!(["/", r#"{"max-queues":5}"#])]);
        desk.done(Verb::ClearVhostLimits {});
        assert_eq!(desk.refusal(Verb::ClearVhostLimits {}), ("Parameter does not exist".into(), 69));
        let faulty = desk.refusal(Verb::SetVhostLimits { definition: "{bad".into() });
        assert_eq!(faulty, ("JSON decoding error. Reason: badarg".into(), 69));
    }

    #[test]
    fn limits_of_a_user_are_listed_by_name() {
        let desk = Desk::new();
        let definition = r#"{"max-connections":64,"max-channels":512}"#.into();
        desk.done(Verb::SetUserLimits { user: "guest".into(), definition });
        let text = r#"{"max-channels":512,"max-connections":64}"#;
        assert_eq!(desk.rows(Verb::ListUserLimits { user: None }), [json!(["guest", text])]);
        assert_eq!(desk.done(Verb::ListUserLimits { user: Some("guest".into()) }).to_string(), text);
        desk.done(Verb::ClearUserLimits { user: "guest".into(), limit: "all".into() });
        assert!(desk.rows(Verb::ListUserLimits { user: None }).is_empty());
        let refusal = desk.refusal(Verb::ListUserLimits { user: Some("nobody".into()) });
        assert_eq!(refusal, ("{:no_such_user, \"nobody\"}".into(), 69));
    }
}
