//! Tests of definitions files.

use serde_json::json;

use super::*;
use crate::broker::access::{Access, Users};
use crate::broker::policy::ObjectKind;
use crate::broker::value::Value;

/// An export of RabbitMQ 3.10.8, as it came.
const EXPORT: &str = include_str!("testdata/rabbitmq-3.10.8.json");

fn refusal(json: Json) -> String {
    Definitions::from_json(json).expect_err("faulty").to_string()
}

#[test]
fn an_export_is_written_as_it_was_read() {
    let definitions = Definitions::parse(EXPORT.as_bytes()).unwrap();
    assert_eq!(serde_json::to_string(&definitions).unwrap(), EXPORT.trim_end());
    assert_eq!(definitions.version(), Some("3.10.8"));
    assert_eq!(definitions.check_vhosts(), Ok(()));
    assert_eq!(definitions.queues[0].arguments.get("x-max-length"), Some(&Value::I64(5000)));
}

#[test]
fn the_guest_of_an_export_logs_in_as_guest() {
    let definitions = Definitions::parse(EXPORT.as_bytes()).unwrap();
    let users = Users::default();
    for user in &definitions.users {
        users.put(user.to_user(definitions.version()).unwrap()).unwrap();
    }
    for permission in &definitions.permissions {
        users.set_permissions(&permission.user, &permission.vhost, permission.permissions()).unwrap();
    }
    assert_eq!(UserDefinition::from(&*users.get("guest").unwrap()), definitions.users[0]);
    let guest = users.authenticate("guest", b"guest").unwrap();
    assert!(guest.is_administrator());
    assert!(users.grants("guest", "/").unwrap().check("orders", Access::Configure));
    // The login gave the password another hash, which goes out and comes back as well.
    let exported = serde_json::to_value(UserDefinition::from(&*guest)).unwrap();
    assert_eq!(exported["hashing_algorithm"], "argon2id");
    let again: UserDefinition = serde_json::from_value(exported).unwrap();
    assert_eq!(again.to_user(None).unwrap(), *guest);
    assert!(again.to_user(None).unwrap().password.verify(b"guest"));
}

#[test]
fn tags_are_read_as_list_and_as_text() {
    let user = |tags: Json| {
        let json = json!({"users": [{"name": "u", "password_hash": "", "tags": tags}]});
        Definitions::from_json(json).unwrap().users.remove(0).tags
    };
    assert_eq!(user(json!("a, administrator")), ["a", "administrator"]);
    assert_eq!(user(json!(["a", " b "])), ["a", "b"]);
    assert_eq!(user(json!("")), Vec::<String>::new());
    assert_eq!(
        refusal(json!({"users": [{"name": "u", "tags": 1}]})),
        "users[0] \"u\": tags must be a list of text, or text with commas"
    );
}

#[test]
fn an_old_hash_without_algorithm_is_md5() {
    let user: UserDefinition = serde_json::from_value(json!({"name": "u", "password_hash": "AAAA"})).unwrap();
    assert_eq!(user.to_user(Some("3.5.7")).unwrap().password.algorithm(), HashAlgorithm::Md5);
    assert_eq!(user.to_user(Some("3.10.8")).unwrap().password.algorithm(), HashAlgorithm::Sha256);
    assert_eq!(user.to_user(None).unwrap().password.algorithm(), HashAlgorithm::Sha256);
}

#[test]
fn a_user_may_come_with_a_password_in_clear() {
    let user: UserDefinition = serde_json::from_value(json!({"name": "u", "password": "secret"})).unwrap();
    assert!(user.to_user(None).unwrap().password.verify(b"secret"));
    assert!(!serde_json::to_string(&user).unwrap().contains("secret"));
    let both: UserDefinition =
        serde_json::from_value(json!({"name": "u", "password": "x", "password_hash": "AAAA"})).unwrap();
    assert_eq!(both.to_user(None).unwrap_err(), "both password and password_hash are provided");
    let foo: UserDefinition = serde_json::from_value(json!({"name": "u", "hashing_algorithm": "foo"})).unwrap();
    assert_eq!(foo.to_user(None).unwrap_err(), "unknown hashing algorithm foo");
}

#[test]
fn missing_fields_have_defaults() {
    let definitions = Definitions::from_json(json!({
        "queues": [{"name": "q", "vhost": "/", "arguments": []}],
        "exchanges": [{"name": "x", "vhost": "/", "type": "fanout"}],
        "bindings": [{"source": "x", "vhost": "/", "destination": "q", "destination_type": "queue"}],
        "vhosts": [{"name": "/", "default_queue_type": "undefined", "cluster_state": {}, "tracing": true}],
    }))
    .unwrap();
    let queue = &definitions.queues[0];
    assert!(queue.durable && !queue.auto_delete && queue.arguments.is_empty());
    assert!(definitions.exchanges[0].durable && !definitions.exchanges[0].internal);
    assert_eq!(definitions.bindings[0].routing_key, "");
    assert_eq!(definitions.vhosts[0].default_queue_type(), None);
    assert!(definitions.vhosts[0].tracing);
}

#[test]
fn metadata_of_a_vhost_counts_where_its_fields_are_missing() {
    let vhost: VhostDefinition = serde_json::from_value(json!({
        "name": "v", "metadata": {"description": "d", "tags": ["t"], "default_queue_type": "quorum"}
    }))
    .unwrap();
    assert_eq!(
        (vhost.description(), vhost.tags(), vhost.default_queue_type()),
        (Some("d"), vec!["t".to_owned()], Some("quorum"))
    );
}

#[test]
fn nonsense_is_refused_with_its_place() {
    assert_eq!(refusal(json!([])), "definitions must be a JSON object");
    assert_eq!(refusal(json!({"queues": 1})), "queues must be a list");
    assert_eq!(refusal(json!({"queues": [{"name": "q"}, 1]})).split(':').next(), Some("queues[1]"));
    assert_eq!(refusal(json!({"queues": [{"vhost": "/"}]})), "queues[0]: missing field `name`");
    assert_eq!(
        refusal(json!({"queues": [{"name": "a"}, {"name": "q", "arguments": {"x": null}}]})),
        "queues[1] \"q\": null_not_allowed: argument x is null"
    );
    assert_eq!(
        refusal(json!({"queues": [{"name": "q", "durable": "yes"}]})),
        "queues[0] \"q\": invalid type: string \"yes\", expected a boolean"
    );
    let error = Definitions::parse(b"{\n \"queues\": [}").unwrap_err();
    assert_eq!(error.to_string(), "not JSON at line 2 column 13: expected value");
}

#[test]
fn an_export_of_one_vhost_is_imported_into_one() {
    let whole = Definitions::parse(EXPORT.as_bytes()).unwrap();
    let one = whole.to_vhost_json("/");
    let keys: Vec<_> = one.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["rabbit_version", "parameters", "policies", "queues", "exchanges", "bindings"]);
    let read = Definitions::from_json(one).unwrap();
    assert_eq!(
        read.check_vhosts().unwrap_err().to_string(),
        "queues[0] \"shipping\": has no vhost: exports of a single vhost must be imported into a vhost"
    );
    let moved = read.into_vhost("v2");
    assert_eq!(moved.check_vhosts(), Ok(()));
    assert_eq!(moved.queues[0].vhost.as_deref(), Some("v2"));
    assert!(moved.users.is_empty());
}

#[test]
fn a_policy_is_checked_when_it_is_applied() {
    let definitions = Definitions::from_json(json!({"policies": [
        {"vhost": "/", "name": "ok", "pattern": "^q", "definition": {"max-length": 1}},
        {"vhost": "/", "name": "bad", "pattern": "(", "definition": {}},
    ]}))
    .unwrap();
    let policy = definitions.policies[0].to_policy(Layer::User, "/").unwrap();
    assert!(policy.applies_to(ObjectKind::ClassicQueue, "q1"));
    assert_eq!(
        definitions.policies[1].to_policy(Layer::User, "/").unwrap_err().to_string(),
        "Validation failed\n\nno policy provided\n\
         pattern should be regular expression but is invalid: {\"missing )\",1}\n"
    );
}

#[test]
fn an_empty_file_and_a_byte_order_mark_are_fine() {
    assert_eq!(Definitions::parse(b" \n").unwrap(), Definitions::default());
    assert_eq!(Definitions::parse(b"\xef\xbb\xbf{}").unwrap(), Definitions::default());
}

proptest::proptest! {
    #[test]
    fn no_file_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64)) {
        let _ = Definitions::parse(&bytes);
    }
}
