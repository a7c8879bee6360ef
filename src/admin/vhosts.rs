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
    if !call.broker.change_vhost(name, |metadata| metadata.tags = tags.to_vec()) {
        return Err(Failure::no_such_vhost(call.verb, name));
    }
    Ok(Reply::DONE)
}

pub(super) fn trace(call: &Call<'_>, is_on: bool) -> Result<Reply, Failure> {
    // Of a vhost that does not exist it is as good as done, as in RabbitMQ.
    if let Some(vhost) = call.broker.vhost(call.vhost_name) {
        vhost.is_traced.store(is_on, Ordering::Relaxed);
    }
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
    let metadata = vhost.metadata();
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use serde_json::json;

    use crate::admin::{
        tests::{Desk, columns},
        wire::Verb,
    };

    fn add(name: &str, default_queue_type: Option<&str>) -> Verb {
        let default_queue_type = default_queue_type.map(Into::into);
        Verb::AddVhost { name: name.into(), description: None, tags: vec![], default_queue_type }
    }

    #[test]
    fn vhosts_are_added_listed_and_deleted_with_their_connections() {
        let desk = Desk::new();
        desk.done(add("v", Some("quorum")));
        // Again is no failure, and changes nothing.
        desk.done(add("v", None));
        assert_eq!(desk.refusal(add("w", Some("odd"))), ("invalid_queue_type".into(), 69));
        let connection = desk.connect("guest", "v");
        let listing = || Verb::ListVhosts(columns(&["name", "description", "tags", "default_queue_type", "tracing"]));
        assert_eq!(
            desk.rows(listing()),
            [json!(["/", "Default virtual host", [], "undefined", false]), json!(["v", "", [], "quorum", false])]
        );
        desk.done(Verb::DeleteVhost { name: "v".into() });
        assert_eq!(connection.reason().as_deref(), Some("vhost 'v' is deleted"));
        assert_eq!(desk.rows(listing()).len(), 1);
        let refusal = desk.refusal(Verb::DeleteVhost { name: "v".into() });
        assert_eq!(refusal, ("Virtual host 'v' does not exist".into(), 65));
    }

    #[test]
    fn vhost_without_any_metadata_has_no_list_of_tags() {
        let desk = Desk::new();
        desk.done(add("v", None));
        let tags = || desk.rows(Verb::ListVhosts(columns(&["tags"])));
        assert_eq!(tags(), [json!([[]]), json!([""])]);
        desk.done(Verb::SetVhostTags { name: "v".into(), tags: vec!["x".into()] });
        assert_eq!(tags(), [json!([[]]), json!([["x"]])]);
    }

    #[test]
    fn tracing_is_switched_and_a_missing_vhost_is_no_failure() {
        let desk = Desk::new();
        desk.done(Verb::TraceOn {});
        assert!(desk.vhost().is_traced.load(Ordering::Relaxed));
        desk.done(Verb::TraceOff {});
        assert!(!desk.vhost().is_traced.load(Ordering::Relaxed));
        assert!(desk.ask_in("missing", Verb::TraceOn {}).is_ok());
    }
}
