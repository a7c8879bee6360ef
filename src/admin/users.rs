//! Users: adding, deleting, passwords, tags.

use serde_json::json;

use super::{
    columns,
    control::{Call, Reply, all_columns, invalid},
    failure::{EXIT_DATA, Failure, Kind},
};
use crate::broker::access::{AccessError, keys};

pub(super) fn add(call: &Call<'_>, name: &str, password: &str) -> Result<Reply, Failure> {
    call.broker.access.add(name, password).map_err(|error| refused(call, error))?;
    tracing::info!(user = name, "added a user");
    Ok(Reply::DONE)
}

pub(super) fn delete(call: &Call<'_>, name: &str) -> Result<Reply, Failure> {
    call.broker.access.delete(name).map_err(|error| refused(call, error))?;
    keys::delete_of_user(call.broker, name);
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::admin::{tests::Desk, wire::Verb};

    fn add(name: &str) -> Verb {
        Verb::AddUser { name: name.into(), password: "secret".into() }
    }

    #[test]
    fn users_are_added_listed_and_deleted() {
        let desk = Desk::new();
        desk.done(add("bob"));
        assert_eq!(desk.refusal(add("bob")), ("User \"bob\" already exists".into(), 70));
        desk.done(Verb::SetUserTags { name: "bob".into(), tags: vec!["monitoring".into()] });
        assert_eq!(
            desk.rows(Verb::ListUsers {}),
            [json!(["bob", ["monitoring"]]), json!(["guest", ["administrator"]])]
        );
        desk.done(Verb::DeleteUser { name: "bob".into() });
        let refusal = desk.refusal(Verb::DeleteUser { name: "bob".into() });
        assert_eq!(refusal, ("User \"bob\" does not exist".into(), 67));
    }

    #[test]
    fn connections_do_not_outlive_their_user() {
        let desk = Desk::new();
        desk.done(add("bob"));
        let (bob, guest) = (desk.connect("bob", "/"), desk.connect("guest", "/"));
        desk.done(Verb::DeleteUser { name: "bob".into() });
        assert_eq!(bob.reason().as_deref(), Some("user 'bob' is deleted"));
        assert_eq!(guest.reason(), None);
    }

    #[test]
    fn password_is_changed_cleared_and_checked() {
        let desk = Desk::new();
        let check = |password: &str| {
            desk.ask(Verb::AuthenticateUser { name: "guest".into(), password: password.into() }).map(drop)
        };
        check("guest").unwrap();
        desk.done(Verb::ChangePassword { name: "guest".into(), password: "new".into() });
        check("new").unwrap();
        let failure = check("guest").unwrap_err();
        assert_eq!(
            (failure.message.as_str(), failure.exit),
            ("Error: failed to authenticate user \"guest\"\nuser 'guest' - invalid credentials", 65)
        );
        desk.done(Verb::ClearPassword { name: "guest".into() });
        assert!(check("new").is_err());
        let refusal = desk.refusal(Verb::ClearPassword { name: "nobody".into() });
        assert_eq!(refusal, ("{:no_such_user, \"nobody\"}".into(), 69));
    }
}
