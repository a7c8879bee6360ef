//! Vhosts: adding, deleting, tags, tracing.

use std::sync::atomic::Ordering;

use serde_json::{Value as Json, json};

use super::{
    columns,
    control::{Call, Reply, chosen, invalid, nothing, rows_of},
    failure::Failure,
    wire::Listing,
};
use crate::broker::{
    queue::arguments::QueueType,
    vhost::{Metadata, Vhost},
};

pub(super) fn add(
    call: &Call<'_>,
    name: &str,
    description: Option<&str>,
    tags: &[String],
    default_queue_type: Option<&str>,
) -> Result<Reply, Failure> {
    if default_queue_type.is_some_and(|name| QueueType::parse(name).is_none()) {
        return Err(Failure::invalid_queue_type());
    }
    if call.broker.vhost(name).is_some() {
        return Ok(Reply::DONE);
    }
    check_count(call)?;
    let metadata = Metadata {
        description: description.unwrap_or_default().to_owned(),
        tags: tags.to_vec(),
        default_queue_type: default_queue_type.map(ToOwned::to_owned),
    };
    call.broker.add_vhost(name, metadata);
    tracing::info!(vhost = name, "added a vhost");
    Ok(Reply::DONE)
}

fn check_count(call: &Call<'_>) -> Result<(), Failure> {
    let limit = call.broker.options.vhosts_count_max;
    if call.broker.vhosts().len() >= limit {
        return Err(invalid(&format_args!("vhost limit of {limit} is reached")));
    }
    Ok(())
}

pub(super) fn delete(call: &Call<'_>, name: &str) -> Result<Reply, Failure> {
    let mut turn = call.turn();
    let was_there = call.broker.delete_vhost(name, &mut turn);
    turn.end();
    if !was_there {
        return Err(Failure::no_such_vhost(call.verb, name));
    }
    tracing::info!(vhost = name, "deleted a vhost");
    Ok(Reply::DONE)
}

pub(super) fn set_tags(call: &Call<'_>, name: &str, tags: &[String]) -> Result<Reply, Failure> {
    let vhost = call.broker.vhost(name).ok_or_else(|| Failure::no_such_vhost(call.verb, name))?;
    vhost.metadata.write().tags = tags.to_vec();
    Ok(Reply::DONE)
}

pub(super) fn trace(call: &Call<'_>, is_on: bool) -> Result<Reply, Failure> {
    call.vhost()?.is_traced.store(is_on, Ordering::Relaxed);
    Ok(Reply::DONE)
}

pub(super) fn list(call: &Call<'_>, listing: &Listing) -> Result<Reply, Failure> {
    let columns = chosen(listing, columns::VHOSTS)?;
    let node = call.node_name().to_owned();
    Ok(rows_of(columns, call.broker.vhosts(), move |vhost, columns| {
        columns.iter().map(|column| cell(vhost, column, &node)).collect()
    }))
}

fn cell(vhost: &Vhost, column: &str, node: &str) -> Json {
    let metadata = vhost.metadata.read();
    match column {
        "name" => json!(&*vhost.name),
        "tracing" => json!(vhost.is_traced.load(Ordering::Relaxed)),
        "description" => json!(metadata.description),
        // A vhost that nothing was said of has no list at all.
        "tags" if *metadata == Metadata::default() => nothing(),
        "tags" => json!(metadata.tags),
        "default_queue_type" => json!(metadata.default_queue_type.as_deref().unwrap_or("undefined")),
        "cluster_state" => json!({ node: "running" }),
        _ => nothing(),
    }
}
