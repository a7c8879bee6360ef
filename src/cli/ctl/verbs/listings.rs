//! The listings whose columns are chosen on the command line.

use super::super::parse::Kind;
use super::super::verb::{Ask, Invalid, Invocation, Plan, Section, Show, Verb};
use super::at_least;
use crate::admin::columns::{self, Column};
use crate::admin::wire::{self, Listing};

pub(super) const VERBS: &[Verb] = &[
    Verb {
        name: "list_queues",
        usage: "list_queues [--vhost <vhost>] [--online] [--offline] [--local] [--no-table-headers] \
                [<column>, ...] [--timeout <timeout>]",
        section: Section::Observability,
        about: "Lists queues and their properties",
        switches: &[("online", Kind::Flag), ("offline", Kind::Flag), ("local", Kind::Flag)],
        arity: at_least(0),
        plan: |call| {
            let (listing, columns) = chosen(call, columns::QUEUES, &["name", "messages"])?;
            let local = call.flag("local");
            let listing =
                Listing { online: !local && call.flag("online"), offline: !local && call.flag("offline"), ..listing };
            let seconds = call.timeout_ms().unwrap_or(60_000) / 1000;
            let banner = format!("Timeout: {seconds}.0 seconds ...\nListing queues for vhost {} ...", call.vhost());
            streaming(banner, wire::Verb::ListQueues(listing), columns)
        },
    },
    Verb {
        name: "list_exchanges",
        usage: "list_exchanges [--vhost <vhost>] [--no-table-headers] [<column> ...] [--timeout <timeout>]",
        section: Section::Observability,
        about: "Lists exchanges",
        switches: &[],
        arity: at_least(0),
        plan: |call| {
            let (listing, columns) = chosen(call, columns::EXCHANGES, &["name", "type"])?;
            let banner = format!("Listing exchanges for vhost {} ...", call.vhost());
            streaming(banner, wire::Verb::ListExchanges(listing), columns)
        },
    },
    Verb {
        name: "list_bindings",
        usage: "list_bindings [--vhost <vhost>] [--no-table-headers] [<column> ...] [--timeout <timeout>]",
        section: Section::Observability,
        about: "Lists bindings",
        switches: &[],
        arity: at_least(0),
        plan: |call| {
            let (listing, columns) = chosen(call, columns::BINDINGS, &[])?;
            let banner = format!("Listing bindings for vhost {}...", call.vhost());
            streaming(banner, wire::Verb::ListBindings(listing), columns)
        },
    },
    Verb {
        name: "list_connections",
        usage: "list_connections [--no-table-headers] [<column> ...] [--timeout <timeout>]",
        section: Section::Observability,
        about: "Lists connections",
        switches: &[],
        arity: at_least(0),
        plan: |call| {
            let (listing, columns) = chosen(call, columns::CONNECTIONS, &["user", "peer_host", "peer_port", "state"])?;
            streaming("Listing connections ...".to_owned(), wire::Verb::ListConnections(listing), columns)
        },
    },
    Verb {
        name: "list_channels",
        usage: "list_channels [--no-table-headers] [<column> ...]",
        section: Section::Observability,
        about: "Lists channels",
        switches: &[],
        arity: at_least(0),
        plan: |call| {
            let default = &["pid", "user", "consumer_count", "messages_unacknowledged"];
            let (listing, columns) = chosen(call, columns::CHANNELS, default)?;
            streaming("Listing channels ...".to_owned(), wire::Verb::ListChannels(listing), columns)
        },
    },
    Verb {
        name: "list_consumers",
        usage: "list_consumers [--vhost <vhost>] [--no-table-headers] [<column> ...] [--timeout <timeout>]",
        section: Section::Observability,
        about: "Lists consumers",
        switches: &[],
        arity: at_least(0),
        plan: |call| {
            let default =
                &["queue_name", "channel_pid", "consumer_tag", "ack_required", "prefetch_count", "active", "arguments"];
            let (mut listing, mut columns) = chosen(call, columns::CONSUMERS, default)?;
            // RabbitMQ shows the columns of this one listing in its own order.
            columns.sort_by_key(|column| columns::CONSUMERS.iter().position(|known| known == column));
            listing.columns = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
            let banner = format!("Listing consumers in vhost {} ...", call.vhost());
            streaming(banner, wire::Verb::ListConsumers(listing), columns)
        },
    },
];

/// The columns that the command line names, with or without commas between, else those of
/// `default`, else all.
pub(super) fn chosen(call: &Invocation, known: &[Column], default: &[&str]) -> Result<(Listing, Vec<Column>), Invalid> {
    let mut names: Vec<&str> = Vec::new();
    for name in call.words.iter().flat_map(|word| word.split(',')).map(str::trim) {
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    if names.is_empty() {
        names.extend(default);
    }
    let find = |name: &&str| known.iter().find(|(column, _)| column == name);
    let mut unknown: Vec<_> = names.iter().filter(|name| find(name).is_none()).copied().collect();
    if !unknown.is_empty() {
        unknown.sort_unstable();
        return Err(Invalid::usage(format!("Info key(s) {} are not supported", unknown.join(","))));
    }
    let columns: Vec<Column> =
        if names.is_empty() { known.to_vec() } else { names.iter().filter_map(find).copied().collect() };
    let names = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
    Ok((Listing { columns: names, ..Listing::default() }, columns))
}

fn streaming(banner: String, request: wire::Verb, columns: Vec<Column>) -> Result<Plan, Invalid> {
    let show = Show::Listing { columns, streams: true, headers: true };
    Ok(Plan::new(banner, Ask::Request(request), show))
}
