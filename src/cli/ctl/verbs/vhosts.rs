//! Vhosts: their life, limits and tracing.

use serde_json::Value as Json;

use super::super::parse::Kind;
use super::super::verb::{Ask, Plan, Section, Show, Verb};
use super::{at_least, exactly, listings};
use crate::admin::{columns, wire};

pub(super) const VERBS: &[Verb] = &[
    Verb {
        name: "add_vhost",
        usage: "add_vhost <vhost> [--description <description> --tags \"<tag1>,<tag2>,<...>\" \
                --default-queue-type <quorum|classic|stream>]",
        section: Section::VirtualHosts,
        about: "Creates a virtual host",
        switches: &[("description", Kind::Text), ("tags", Kind::Text), ("default-queue-type", Kind::Text)],
        arity: exactly(1),
        plan: |call| {
            let text = |name| call.options.text(name).map(str::to_owned);
            let tags = call.options.text("tags").unwrap_or_default();
            let request = wire::Verb::AddVhost {
                name: call.owned(0),
                description: text("description"),
                tags: tags.split(',').map(|tag| tag.trim().to_owned()).filter(|tag| !tag.is_empty()).collect(),
                default_queue_type: text("default-queue-type"),
            };
            Plan::silent(format!("Adding vhost \"{}\" ...", call.word(0)), request)
        },
    },
    Verb {
        name: "delete_vhost",
        usage: "delete_vhost <vhost>",
        section: Section::VirtualHosts,
        about: "Deletes a virtual host with all that is in it",
        switches: &[],
        arity: exactly(1),
        plan: |call| {
            let banner = format!("Deleting vhost \"{}\" ...", call.word(0));
            Plan::silent(banner, wire::Verb::DeleteVhost { name: call.owned(0) })
        },
    },
    Verb {
        name: "set_vhost_tags",
        usage: "set_vhost_tags <vhost> <tag> [...]",
        section: Section::VirtualHosts,
        about: "Replaces a virtual host's tags",
        switches: &[],
        arity: at_least(1),
        plan: |call| {
            let tags = call.words[1..].to_vec();
            let banner = format!("Setting tags for virtual host \"{}\" to [{}] ...", call.word(0), tags.join(", "));
            Plan::silent(banner, wire::Verb::SetVhostTags { name: call.owned(0), tags })
        },
    },
    Verb {
        name: "list_vhosts",
        usage: "list_vhosts [--no-table-headers] [<column> ...] [--timeout <timeout>]",
        section: Section::AccessControl,
        about: "Lists virtual hosts",
        switches: &[],
        arity: at_least(0),
        plan: |call| {
            let (listing, columns) = listings::chosen(call, columns::VHOSTS, &["name"])?;
            Ok(Plan::new(
                "Listing vhosts ...".to_owned(),
                Ask::Request(wire::Verb::ListVhosts(listing)),
                Show::Listing { columns, streams: false, headers: true },
            ))
        },
    },
    Verb {
        name: "set_vhost_limits",
        usage: "set_vhost_limits [--vhost <vhost>] <definition>",
        section: Section::VirtualHosts,
        about: "Limits a virtual host's connections and queues",
        switches: &[],
        arity: exactly(1),
        plan: |call| {
            let banner = format!("Setting vhost limits to \"{}\" for vhost \"{}\" ...", call.word(0), call.vhost());
            Plan::silent(banner, wire::Verb::SetVhostLimits { definition: call.owned(0) })
        },
    },
    Verb {
        name: "clear_vhost_limits",
        usage: "clear_vhost_limits [--vhost <vhost>]",
        section: Section::VirtualHosts,
        about: "Removes a virtual host's limits",
        switches: &[],
        arity: exactly(0),
        plan: |call| {
            Plan::silent(format!("Clearing vhost \"{}\" limits ...", call.vhost()), wire::Verb::ClearVhostLimits {})
        },
    },
    Verb {
        name: "list_vhost_limits",
        usage: "list_vhost_limits [--vhost <vhost>] [--global] [--no-table-headers]",
        section: Section::VirtualHosts,
        about: "Shows the limits of one virtual host or of all",
        switches: &[("global", Kind::Flag)],
        arity: exactly(0),
        plan: |call| {
            let global = call.flag("global");
            let request = wire::Verb::ListVhostLimits { global };
            if global {
                return Plan::gathered("Listing limits for all vhosts ...".to_owned(), request, columns::VHOST_LIMITS);
            }
            Ok(Plan::new(
                format!("Listing limits for vhost \"{}\" ...", call.vhost()),
                Ask::Request(request),
                Show::OneOrNone(Json::to_string),
            ))
        },
    },
    Verb {
        name: "trace_on",
        usage: "trace_on [--vhost <vhost>]",
        section: Section::VirtualHosts,
        about: "Copies all messages of a virtual host to its tracing exchange",
        switches: &[],
        arity: at_least(0),
        plan: |call| {
            Ok(Plan::new(
                format!("Starting tracing for vhost \"{}\" ...", call.vhost()),
                Ask::Request(wire::Verb::TraceOn {}),
                Show::Sentence(|_, call| Ok(format!("Trace enabled for vhost {}", call.vhost()))),
            ))
        },
    },
    Verb {
        name: "trace_off",
        usage: "trace_off [--vhost <vhost>]",
        section: Section::VirtualHosts,
        about: "Ends what trace_on began",
        switches: &[],
        arity: at_least(0),
        plan: |call| {
            Ok(Plan::new(
                format!("Stopping tracing for vhost \"{}\" ...", call.vhost()),
                Ask::Request(wire::Verb::TraceOff {}),
                Show::Sentence(|_, call| Ok(format!("Trace disabled for vhost {}", call.vhost()))),
            ))
        },
    },
];
