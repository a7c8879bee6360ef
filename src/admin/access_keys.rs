//! Access keys: making, deleting and listing those of users.

use serde_json::json;

use super::{
    columns,
    control::{Call, Reply, all_columns, invalid},
    failure::Failure,
    users,
};
use crate::broker::access::keys::{self, AccessKey};

pub(super) fn add(call: &Call<'_>, user: &str, id: Option<&str>, secret: Option<&str>) -> Result<Reply, Failure> {
    users::check(call, user)?;
    let mut random = [0; 60];
    getrandom::fill(&mut random).map_err(|error| invalid(&error))?;
    let (new_id, new_secret) = keys::generate(&random);
    let key = AccessKey {
        id: id.map_or(new_id, str::to_owned),
        secret: secret.map_or(new_secret, str::to_owned),
        user: user.to_owned(),
    };
    keys::add(call.broker, &key).map_err(|error| invalid(&error))?;
    tracing::info!(user, access_key = key.id, "added an access key");
    Ok(Reply::Done(json!({ "access_key": key.id, "secret_key": key.secret })))
}

pub(super) fn delete(call: &Call<'_>, id: &str) -> Result<Reply, Failure> {
    keys::delete(call.broker, id).map_err(|error| invalid(&error))?;
    tracing::info!(access_key = id, "deleted an access key");
    Ok(Reply::DONE)
}

pub(super) fn list(call: &Call<'_>) -> Reply {
    let all = keys::list(call.broker).into_iter();
    all_columns(columns::ACCESS_KEYS, all.map(|key| vec![json!(key.id), json!(key.user)]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::admin::{tests::Desk, wire::Verb};

    fn add(user: &str, id: Option<&str>) -> Verb {
        Verb::AddAccessKey { user: user.into(), id: id.map(str::to_owned), secret: None }
    }

    #[test]
    fn key_of_a_user_goes_with_them_and_its_secret_is_in_no_listing() {
        let desk = Desk::new();
        desk.done(Verb::AddUser { name: "bob".into(), password: "x".into() });
        desk.refusal(add("nobody", None));
        desk.ask(add("bob", Some("AKID"))).unwrap();
        desk.refusal(add("bob", Some("AKID")));
        assert_eq!(desk.rows(Verb::ListAccessKeys {}), [json!(["AKID", "bob"])]);
        let parameters = desk.rows(Verb::ListGlobalParameters {});
        assert!(!parameters.iter().any(|row| row.to_string().contains("AKID")), "{parameters:?}");
        desk.done(Verb::DeleteUser { name: "bob".into() });
        assert!(desk.rows(Verb::ListAccessKeys {}).is_empty());
        desk.refusal(Verb::DeleteAccessKey { id: "AKID".into() });
    }
}
