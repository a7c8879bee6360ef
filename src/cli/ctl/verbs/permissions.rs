//! Permissions: what a user may do in a vhost.

use super::super::verb::{Ask, Plan, Section, Show, Verb};
use super::{between, exactly};
use crate::admin::{columns, wire};

pub(super) const VERBS: &[Verb] = &[
    Verb {
        name: "set_permissions",
        usage: "set_permissions [--vhost <vhost>] <username> <conf> <write> <read>",
        section: Section::AccessControl,
        about: "Sets what a user may configure, write to and read from in a vhost",
        switches: &[],
        arity: exactly(4),
        plan: |call| {
            let banner = format!("Setting permissions for user \"{}\" in vhost \"{}\" ...", call.word(0), call.vhost());
            let (user, configure, write, read) = (call.owned(0), call.owned(1), call.owned(2), call.owned(3));
            Plan::silent(banner, wire::Verb::SetPermissions { user, configure, write, read })
        },
    },
    Verb {
        name: "clear_permissions",
        usage: "clear_permissions [--vhost <vhost>] <username>",
        section: Section::AccessControl,
        about: "Revokes a user's permissions in a vhost",
        switches: &[],
        arity: exactly(1),
        plan: |call| {
            let banner =
                format!("Clearing permissions for user \"{}\" in vhost \"{}\" ...", call.word(0), call.vhost());
            Plan::silent(banner, wire::Verb::ClearPermissions { user: call.owned(0) })
        },
    },
    Verb {
        name: "list_permissions",
        usage: "list_permissions [--vhost <vhost>] [--no-table-headers] [--timeout <timeout>]",
        section: Section::AccessControl,
        about: "Lists the permissions of all users in a vhost",
        switches: &[],
        arity: exactly(0),
        plan: |call| {
            let banner = format!("Listing permissions for vhost \"{}\" ...", call.vhost());
            Plan::gathered(banner, wire::Verb::ListPermissions {}, columns::PERMISSIONS)
        },
    },
    Verb {
        name: "list_user_permissions",
        usage: "list_user_permissions [--no-table-headers] <username> [--timeout <timeout>]",
        section: Section::AccessControl,
        about: "Lists the permissions of one user in all vhosts",
        switches: &[],
        arity: exactly(1),
        plan: |call| {
            let banner = format!("Listing permissions for user \"{}\" ...", call.word(0));
            let request = wire::Verb::ListUserPermissions { user: call.owned(0) };
            Plan::gathered(banner, request, columns::USER_PERMISSIONS)
        },
    },
    Verb {
        name: "set_topic_permissions",
        usage: "set_topic_permissions [--vhost <vhost>] <username> <exchange> <write> <read>",
        section: Section::AccessControl,
        about: "Sets which routing keys of a topic exchange a user may write and read",
        switches: &[],
        arity: exactly(4),
        plan: |call| {
            let (user, exchange, write, read) = (call.owned(0), call.owned(1), call.owned(2), call.owned(3));
            let vhost = call.vhost();
            let banner =
                format!("Setting topic permissions on \"{exchange}\" for user \"{user}\" in vhost \"{vhost}\" ...");
            Plan::silent(banner, wire::Verb::SetTopicPermissions { user, exchange, write, read })
        },
    },
    Verb {
        name: "clear_topic_permissions",
        usage: "clear_topic_permissions [--vhost <vhost>] <username> [<exchange>]",
        section: Section::AccessControl,
        about: "Revokes a user's topic permissions in a vhost, of one exchange or of all",
        switches: &[],
        arity: between(1, 2),
        plan: |call| {
            let (user, vhost, exchange) = (call.owned(0), call.vhost(), call.words.get(1).cloned());
            let banner = match &exchange {
                None => format!("Clearing topic permissions for user \"{user}\" in vhost \"{vhost}\" ..."),
                Some(exchange) => {
                    format!("Clearing topic permissions on \"{exchange}\" for user \"{user}\" in vhost \"{vhost}\" ...")
                }
            };
            Plan::silent(banner, wire::Verb::ClearTopicPermissions { user, exchange })
        },
    },
    Verb {
        name: "list_topic_permissions",
        usage: "list_topic_permissions [--vhost <vhost>] [--no-table-headers] [--timeout <timeout>]",
        section: Section::AccessControl,
        about: "Lists the topic permissions of all users in a vhost",
        switches: &[],
        arity: exactly(0),
        plan: |call| {
            let banner = format!("Listing topic permissions for vhost \"{}\" ...", call.vhost());
            Plan::gathered(banner, wire::Verb::ListTopicPermissions {}, columns::TOPIC_PERMISSIONS)
        },
    },
    Verb {
        name: "list_user_topic_permissions",
        usage: "list_user_topic_permissions [--no-table-headers] <username> [--timeout <timeout>]",
        section: Section::AccessControl,
        about: "Lists the topic permissions of one user in all vhosts",
        switches: &[],
        arity: exactly(1),
        plan: |call| {
            // RabbitMQ shows this one listing without the names of its columns.
            let columns = columns::USER_TOPIC_PERMISSIONS.to_vec();
            Ok(Plan::new(
                format!("Listing topic permissions for user \"{}\" ...", call.word(0)),
                Ask::Request(wire::Verb::ListUserTopicPermissions { user: call.owned(0) }),
                Show::Listing { columns, streams: false, headers: false },
            ))
        },
    },
];
