//! Exchanges and bindings: listing.

use serde_json::{Value as Json, json};

use super::{
    columns,
    control::{Call, Reply, chosen, nothing, rows_of, text},
    failure::Failure,
    wire,
    wire::Listing,
};
use crate::broker::{
    exchange::{Exchange, Target},
    topology::BindingStatus,
    value::Table,
};

pub(super) fn list(call: &Call<'_>, listing: &Listing) -> Result<Reply, Failure> {
    let columns = chosen(listing, columns::EXCHANGES)?;
    let mut exchanges = call.broker.vhost(call.vhost_name).map(|vhost| vhost.exchanges()).unwrap_or_default();
    exchanges.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(rows_of(columns, exchanges, |exchange, columns| columns.iter().map(|column| cell(exchange, column)).collect()))
}

fn cell(exchange: &Exchange, column: &str) -> Json {
    let declaration = &exchange.declaration;
    match column {
        "name" => json!(&*exchange.name),
        "type" => json!(declaration.kind.name()),
        "durable" => json!(declaration.is_durable),
        "auto_delete" => json!(declaration.is_auto_delete),
        "internal" => json!(declaration.is_internal),
        "arguments" => wire::table(&declaration.arguments),
        "policy" => json!(exchange.policy.lock().as_deref().unwrap_or_default()),
        _ => nothing(),
    }
}

pub(super) fn list_bindings(call: &Call<'_>, listing: &Listing) -> Result<Reply, Failure> {
    let columns = chosen(listing, columns::BINDINGS)?;
    let mut bindings = call.broker.vhost(call.vhost_name).map(|vhost| vhost.bindings()).unwrap_or_default();
    sort(&mut bindings);
    Ok(rows_of(columns, bindings, |binding, columns| {
        columns.iter().map(|column| binding_cell(binding, column)).collect()
    }))
}

/// By source, key and destination.
pub(super) fn sort(bindings: &mut [BindingStatus]) {
    bindings.sort_by(|a, b| {
        let order = |of: &BindingStatus| (of.source.clone(), of.key.clone(), of.destination.name().clone());
        order(a).cmp(&order(b))
    });
}

fn binding_cell(binding: &BindingStatus, column: &str) -> Json {
    match column {
        "source_name" => json!(&*binding.source),
        "source_kind" => json!("exchange"),
        "destination_name" => json!(&**binding.destination.name()),
        "destination_kind" => json!(match binding.destination {
            Target::Queue(_) => "queue",
            Target::Exchange(_) => "exchange",
        }),
        "routing_key" => text(&binding.key),
        "arguments" => wire::table(&sorted(&binding.arguments)),
        _ => nothing(),
    }
}

/// Arguments of bindings are kept by name, as RabbitMQ keeps them.
fn sorted(arguments: &Table) -> Table {
    let mut entries: Vec<_> = arguments.iter().collect();
    entries.sort_by_key(|(name, _)| *name);
    entries.into_iter().map(|(name, value)| (name, value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::{
        admin::{
            tests::{Desk, columns},
            wire::Verb,
        },
        broker::{
            exchange::Target,
            value::{Table, Value},
        },
    };

    #[test]
    fn exchanges_are_listed_with_the_predeclared_ones() {
        let desk = Desk::new();
        desk.exchange("x", "topic");
        let listed = desk.rows(Verb::ListExchanges(columns(&["name", "type", "durable", "internal", "arguments"])));
        assert_eq!(listed.len(), 8);
        assert_eq!(listed[0], json!(["", "direct", true, false, []]));
        assert_eq!(listed[7], json!(["x", "topic", true, false, []]));
    }

    #[test]
    fn bindings_are_listed_with_those_of_the_default_exchange() {
        let desk = Desk::new();
        desk.queue("q", Table::new());
        desk.exchange("x", "headers");
        let target = Target::Queue(desk.vhost().queue("q").unwrap());
        let arguments = Table::from_iter([("x-match", Value::text("all")), ("a", Value::I32(1))]);
        desk.vhost().bind("x", &target, b"k", &arguments, &mut desk.turn()).unwrap();
        let wanted = columns(&["source_name", "destination_name", "destination_kind", "routing_key", "arguments"]);
        assert_eq!(
            desk.rows(Verb::ListBindings(wanted)),
            [
                json!(["", "q", "queue", "q", []]),
                json!(["x", "q", "queue", "k", [["a", "signedint", 1], ["x-match", "longstr", "all"]]])
            ]
        );
    }
}
