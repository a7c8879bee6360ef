//! Users: who may connect, and how often.

use serde_json::json;

use super::super::parse::Kind;
use super::super::verb::{Ask, Invalid, Invocation, Plan, Section, Show, Verb};
use super::{at_least, between, exactly};
use crate::admin::{columns, wire};

pub(super) const VERBS: &[Verb] = &[
    Verb {
        name: "add_user",
        usage: "add_user <username> <password>",
        section: Section::Users,
        about: "Creates a user, who has no permissions yet",
        switches: &[],
        arity: between(1, 2),
        plan: |call| {
            check_name(call)?;
            let name = call.owned(0);
            let ask = with_password(call, move |password| wire::Verb::AddUser { name, password });
            let show = Show::Object(|_, call| {
                let text = if call.is_quiet() { "" } else { ADDED };
                Ok((text.to_owned(), json!({"message": ADDED, "node": call.node(), "status": "ok"})))
            });
            Ok(Plan::new(format!("Adding user \"{}\" ...", call.word(0)), ask, show))
        },
    },
    Verb {
        name: "delete_user",
        usage: "delete_user <username>",
        section: Section::Users,
        about: "Removes a user",
        switches: &[],
        arity: exactly(1),
        plan: |call| {
            let banner = format!("Deleting user \"{}\" ...", call.word(0));
            Plan::silent(banner, wire::Verb::DeleteUser { name: call.owned(0) })
        },
    },
    Verb {
        name: "change_password",
        usage: "change_password <username> <password>",
        section: Section::Users,
        about: "Changes a user's password",
        switches: &[],
        arity: between(1, 2),
        plan: |call| {
            let name = call.owned(0);
            let ask = with_password(call, move |password| wire::Verb::ChangePassword { name, password });
            let banner = format!("Changing password for user \"{}\" ...", call.word(0));
            Ok(Plan::new(banner, ask, Show::Nothing))
        },
    },
    Verb {
        name: "clear_password",
        usage: "clear_password <username>",
        section: Section::Users,
        about: "Removes a user's password, so that nobody can log in with one",
        switches: &[],
        arity: exactly(1),
        plan: |call| {
            let banner = format!("Clearing password for user \"{}\" ...", call.word(0));
            Plan::silent(banner, wire::Verb::ClearPassword { name: call.owned(0) })
        },
    },
    Verb {
        name: "authenticate_user",
        usage: "authenticate_user <username> <password>",
        section: Section::Users,
        about: "Checks a user's password",
        switches: &[],
        arity: between(1, 2),
        plan: |call| {
            let name = call.owned(0);
            let ask = with_password(call, move |password| wire::Verb::AuthenticateUser { name, password });
            let banner = format!("Authenticating user \"{}\" ...", call.word(0));
            Ok(Plan::new(banner, ask, Show::Sentence(|_, _| Ok("Success".to_owned()))))
        },
    },
    Verb {
        name: "set_user_tags",
        usage: "set_user_tags <username> <tag> [...]",
        section: Section::Users,
        about: "Replaces a user's tags",
        switches: &[],
        arity: at_least(1),
        plan: |call| {
            let tags = call.words[1..].to_vec();
            let banner = format!("Setting tags for user \"{}\" to [{}] ...", call.word(0), tags.join(", "));
            Plan::silent(banner, wire::Verb::SetUserTags { name: call.owned(0), tags })
        },
    },
    Verb {
        name: "list_users",
        usage: "list_users [--no-table-headers] [--timeout <timeout>]",
        section: Section::Users,
        about: "Lists users and their tags",
        switches: &[],
        arity: exactly(0),
        plan: |_| Plan::gathered("Listing users ...".to_owned(), wire::Verb::ListUsers {}, columns::USERS),
    },
    Verb {
        name: "set_user_limits",
        usage: "set_user_limits <username> <definition>",
        section: Section::Users,
        about: "Limits a user's connections and channels",
        switches: &[],
        arity: exactly(2),
        plan: |call| {
            let banner = format!("Setting user limits to \"{}\" for user \"{}\" ...", call.word(1), call.word(0));
            Plan::silent(banner, wire::Verb::SetUserLimits { user: call.owned(0), definition: call.owned(1) })
        },
    },
    Verb {
        name: "clear_user_limits",
        usage: "clear_user_limits <username> <limit_type> | all",
        section: Section::Users,
        about: "Removes one or all of a user's limits",
        switches: &[],
        arity: exactly(2),
        plan: |call| {
            let user = call.word(0);
            let banner = match call.word(1) {
                "all" => format!("Clearing all limits for user \"{user}\" ..."),
                limit => format!("Clearing \"{limit}\" limit for user \"{user}\" ..."),
            };
            Plan::silent(banner, wire::Verb::ClearUserLimits { user: call.owned(0), limit: call.owned(1) })
        },
    },
    Verb {
        name: "list_user_limits",
        usage: "list_user_limits [--user <username>] [--global]",
        section: Section::Users,
        about: "Shows the limits of one user or of all",
        switches: &[("user", Kind::Text), ("global", Kind::Flag)],
        arity: exactly(0),
        plan: |call| {
            if call.flag("global") {
                let request = wire::Verb::ListUserLimits { user: None };
                return Plan::gathered("Listing limits for all users ...".to_owned(), request, columns::USER_LIMITS);
            }
            let user = call.options.text("user").unwrap_or("guest").to_owned();
            Ok(Plan::new(
                format!("Listing limits for user \"{user}\" ..."),
                Ask::Request(wire::Verb::ListUserLimits { user: Some(user) }),
                Show::Sentence(|limits, _| Ok(limits.to_string())),
            ))
        },
    },
];

const ADDED: &str = "Done. Don't forget to grant the user permissions to some virtual hosts! \
                     See 'rabbitmqctl help set_permissions' to learn more.";

fn check_name(call: &Invocation) -> Result<(), Invalid> {
    match call.word(0) {
        "" => Err(Invalid::argument("Bad argument: user cannot be an empty string")),
        _ => Ok(()),
    }
}

/// The second argument is the password; without it, standard input's first line is.
fn with_password(call: &Invocation, request: impl FnOnce(String) -> wire::Verb + 'static) -> Ask {
    match call.words.get(1) {
        Some(password) => Ask::Request(request(password.clone())),
        None => Ask::WithPassword(Box::new(request)),
    }
}
