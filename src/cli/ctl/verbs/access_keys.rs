//! Access keys: what requests of SQS and SNS are signed with.

use super::super::{
    parse::Kind,
    verb::{Ask, Plan, Section, Show, Verb},
};
use super::exactly;
use crate::admin::{columns, wire};

pub(super) const VERBS: &[Verb] = &[
    Verb {
        name: "add_access_key",
        usage: "add_access_key <username> [--id <access_key>] [--secret <secret_key>]",
        section: Section::Users,
        about: "Makes an access key of a user, for SQS and SNS, and shows its secret this once",
        switches: &[("id", Kind::Text), ("secret", Kind::Text)],
        arity: exactly(1),
        plan: |call| {
            let owned = |name| call.options.text(name).map(str::to_owned);
            let (user, id, secret) = (call.owned(0), owned("id"), owned("secret"));
            let show = Show::Object(|key, _| {
                let of = |name: &str| key.get(name).and_then(|value| value.as_str()).unwrap_or_default();
                let text =
                    format!("AWS_ACCESS_KEY_ID={}\nAWS_SECRET_ACCESS_KEY={}", of("access_key"), of("secret_key"));
                Ok((text, key.clone()))
            });
            let ask = Ask::Request(wire::Verb::AddAccessKey { user, id, secret });
            Ok(Plan::new(format!("Adding an access key of user \"{}\" ...", call.word(0)), ask, show))
        },
    },
    Verb {
        name: "delete_access_key",
        usage: "delete_access_key <access_key>",
        section: Section::Users,
        about: "Deletes an access key",
        switches: &[],
        arity: exactly(1),
        plan: |call| {
            let banner = format!("Deleting access key \"{}\" ...", call.word(0));
            Plan::silent(banner, wire::Verb::DeleteAccessKey { id: call.owned(0) })
        },
    },
    Verb {
        name: "list_access_keys",
        usage: "list_access_keys [--no-table-headers] [--timeout <timeout>]",
        section: Section::Users,
        about: "Lists access keys and whose they are, without their secrets",
        switches: &[],
        arity: exactly(0),
        plan: |_| {
            let banner = "Listing access keys ...".to_owned();
            Plan::gathered(banner, wire::Verb::ListAccessKeys {}, columns::ACCESS_KEYS)
        },
    },
];
