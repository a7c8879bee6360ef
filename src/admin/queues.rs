//! Queues and their consumers: listing, purging, deleting.

use std::{cell::OnceCell, sync::Arc};

use serde_json::{Value as Json, json};

use super::{
    columns,
    control::{Call, Reply, chosen, nothing, rows_of},
    failure::Failure,
    node::Node,
    pids, wire,
    wire::Listing,
};
use crate::broker::{
    queue::{ConsumerStatus, Queue, arguments::QueueType},
    vhost::Vhost,
};

/// Bytes that a message takes in a queue beside its body: an estimate for `memory`.
const MESSAGE_OVERHEAD_BYTES: u64 = 200;

pub(super) fn list(call: &Call<'_>, listing: &Listing) -> Result<Reply, Failure> {
    let columns = chosen(listing, columns::QUEUES)?;
    let queues = if listing.offline { Vec::new() } else { by_name(call.broker.vhost(call.vhost_name)) };
    let (name, node) = (call.node_name().to_owned(), call.node.clone());
    Ok(rows_of(columns, queues, move |queue, columns| {
        let row = Row { queue, process: &*node, node: &name, consumers: OnceCell::new(), persistent: OnceCell::new() };
        row.cells(columns)
    }))
}

pub(super) fn purge(call: &Call<'_>, name: &str) -> Result<Reply, Failure> {
    let (_, queue) = find(call, name)?;
    let mut turn = call.turn();
    queue.purge(&mut turn);
    turn.end();
    Ok(Reply::DONE)
}

pub(super) fn delete(call: &Call<'_>, name: &str, if_empty: bool, if_unused: bool) -> Result<Reply, Failure> {
    let (vhost, queue) = find(call, name)?;
    let status = queue.status();
    if if_unused && status.consumers > 0 {
        return Err(Failure::queue_in_use());
    }
    if if_empty && status.ready > 0 {
        return Err(Failure::queue_not_empty());
    }
    let mut turn = call.turn();
    let messages = vhost.remove_queue(&queue, &mut turn);
    turn.end();
    Ok(Reply::Done(json!({ "messages": messages })))
}

pub(super) fn list_consumers(call: &Call<'_>, listing: &Listing) -> Result<Reply, Failure> {
    let columns = chosen(listing, columns::CONSUMERS)?;
    let node = call.node_name().to_owned();
    let queues = by_name(call.broker.vhost(call.vhost_name));
    let names = columns.iter().map(|name| (*name).to_owned()).collect();
    let rows = queues.into_iter().flat_map(move |queue| {
        let consumers = queue.consumers();
        let row = |consumer: &ConsumerStatus| {
            columns.iter().map(|column| consumer_cell(&queue, consumer, column, &node)).collect()
        };
        consumers.iter().map(row).collect::<Vec<Vec<Json>>>()
    });
    Ok(Reply::Rows { columns: names, rows: Box::new(rows) })
}

fn consumer_cell(queue: &Queue, consumer: &ConsumerStatus, column: &str, node: &str) -> Json {
    let options = &consumer.options;
    match column {
        "queue_name" => json!(&*queue.name),
        "channel_pid" => json!(pids::of_channel(node, options.connection, options.channel)),
        "consumer_tag" => json!(&*options.tag),
        "ack_required" => json!(!options.no_ack),
        "prefetch_count" => json!(options.declared_prefetch),
        "active" => json!(consumer.is_active),
        "activity_status" => json!(match (queue.declaration.parsed.single_active_consumer, consumer.is_active) {
            (false, _) => "up",
            (true, true) => "single_active",
            (true, false) => "waiting",
        }),
        "arguments" => wire::table(&options.arguments),
        _ => nothing(),
    }
}

/// The queues of a vhost in the order of their names; none if there is no such vhost.
pub(super) fn by_name(vhost: Option<Arc<Vhost>>) -> Vec<Arc<Queue>> {
    let mut queues = vhost.map(|vhost| vhost.queues()).unwrap_or_default();
    queues.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    queues
}

fn find(call: &Call<'_>, name: &str) -> Result<(Arc<Vhost>, Arc<Queue>), Failure> {
    let vhost = call.broker.vhost(call.vhost_name);
    let found = vhost.and_then(|vhost| vhost.queue(name).map(|queue| (vhost, queue)));
    found.ok_or_else(|| Failure::no_such_queue(call.verb))
}

/// One queue on its way to a row: what takes a walk is looked up once, and only if asked for.
struct Row<'a> {
    queue: &'a Queue,
    process: &'a dyn Node,
    /// Name of the node.
    node: &'a str,
    consumers: OnceCell<Vec<ConsumerStatus>>,
    persistent: OnceCell<(u64, u64)>,
}

impl Row<'_> {
    fn cells(&self, columns: &[&'static str]) -> Vec<Json> {
        let queue = self.queue;
        let status = queue.status();
        let kind = queue.declaration.parsed.queue_type;
        // Which columns a type of queue has nothing to show for is as in RabbitMQ.
        let is_classic = kind == QueueType::Classic;
        let of_classic = |number: u64| if is_classic { json!(number) } else { nothing() };
        let not_of_streams = |number: u64| if kind == QueueType::Stream { nothing() } else { json!(number) };
        let bytes = status.ready_bytes + status.unsettled_bytes;
        let messages = status.ready + status.unsettled;
        let cell = |column: &&str| match *column {
            "name" => json!(&*queue.name),
            "durable" => json!(queue.is_durable),
            "auto_delete" => json!(queue.declaration.is_auto_delete),
            "arguments" => wire::table(&queue.declaration.arguments),
            "policy" => json!(queue.policies.lock().0.as_deref().unwrap_or_default()),
            "pid" if kind == QueueType::Stream => nothing(),
            "pid" => json!(pids::of_queue(self.node, queue.id)),
            "owner_pid" => match queue.declaration.owner {
                Some(owner) => json!(pids::of_connection(self.node, owner)),
                None => nothing(),
            },
            "exclusive" if is_classic => json!(queue.declaration.owner.is_some()),
            "exclusive_consumer_pid" => self.exclusive_consumer(|consumer| {
                json!(pids::of_channel(self.node, consumer.options.connection, consumer.options.channel))
            }),
            "exclusive_consumer_tag" => self.exclusive_consumer(|consumer| json!(&*consumer.options.tag)),
            "messages_ready" => json!(status.ready),
            "messages_unacknowledged" => json!(status.unsettled),
            "messages" => json!(messages),
            "messages_ready_ram" => of_classic(status.ready),
            "messages_unacknowledged_ram" => of_classic(status.unsettled),
            "messages_ram" => not_of_streams(messages),
            "messages_persistent" if is_classic => json!(self.persistent().0),
            "message_bytes" => of_classic(bytes),
            "message_bytes_ready" => of_classic(status.ready_bytes),
            "message_bytes_unacknowledged" => of_classic(status.unsettled_bytes),
            "message_bytes_ram" => not_of_streams(bytes),
            "message_bytes_persistent" if is_classic => json!(self.persistent().1),
            "head_message_timestamp" if is_classic => {
                let head = queue.head().and_then(|message| self.process.timestamp_secs(&message));
                head.map_or_else(nothing, |secs| json!(secs))
            }
            "disk_reads" | "disk_writes" => of_classic(0),
            "consumers" => json!(status.consumers),
            "consumer_utilisation" | "consumer_capacity" if is_classic => {
                queue.consumer_capacity(self.process.now()).map_or_else(|| json!(0), |share| json!(share))
            }
            "memory" => json!(size_of::<Queue>() as u64 + bytes + messages * MESSAGE_OVERHEAD_BYTES),
            "state" => json!("running"),
            "type" => json!(kind.name()),
            "leader" if !is_classic => json!(self.node),
            "members" | "online" if !is_classic => json!([self.node]),
            _ => nothing(),
        };
        columns.iter().map(cell).collect()
    }

    fn consumers(&self) -> &[ConsumerStatus] {
        self.consumers.get_or_init(|| self.queue.consumers())
    }

    fn exclusive_consumer(&self, cell: impl Fn(&ConsumerStatus) -> Json) -> Json {
        self.consumers().iter().find(|consumer| consumer.options.exclusive).map_or_else(nothing, cell)
    }

    fn persistent(&self) -> (u64, u64) {
        *self.persistent.get_or_init(|| self.queue.persistent())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::{
        admin::{
            tests::{Desk, columns},
            wire::{Listing, Verb},
        },
        broker::value::{Table, Value},
    };

    fn of_type(kind: &str) -> Table {
        Table::from_iter([("x-queue-type", Value::text(kind))])
    }

    #[test]
    fn queues_are_listed_by_name_with_the_columns_asked_for() {
        let desk = Desk::new();
        desk.queue("b", Table::new());
        desk.queue("a", Table::from_iter([("x-max-length", Value::I32(5))]));
        desk.publish("a", b"four", true);
        desk.publish("a", b"three", false);
        let wanted = columns(&["name", "messages", "message_bytes", "messages_persistent", "message_bytes_persistent"]);
        assert_eq!(desk.rows(Verb::ListQueues(wanted)), [json!(["a", 2, 9, 1, 4]), json!(["b", 0, 0, 0, 0])]);
        let heads = desk.rows(Verb::ListQueues(columns(&["head_message_timestamp"])));
        assert_eq!(heads, [json!([1_700_000_000]), json!([""])]);
        let wanted = columns(&["arguments", "state", "durable", "exclusive", "owner_pid", "type"]);
        assert_eq!(
            desk.rows(Verb::ListQueues(wanted))[0],
            json!([[["x-max-length", "signedint", 5]], "running", true, false, "", "classic"])
        );
    }

    #[test]
    fn types_have_nothing_to_show_where_rabbitmq_has_not() {
        let desk = Desk::new();
        desk.queue("quorum", of_type("quorum"));
        desk.queue("stream", of_type("stream"));
        let wanted =
            columns(&["exclusive", "messages_ram", "message_bytes", "leader", "members", "messages_persistent"]);
        assert_eq!(
            desk.rows(Verb::ListQueues(wanted)),
            [
                json!(["", 0, "", "tern@localhost", ["tern@localhost"], ""]),
                json!(["", "", "", "tern@localhost", ["tern@localhost"], ""])
            ]
        );
        assert_eq!(desk.rows(Verb::ListQueues(columns(&["pid"])))[1], json!([""]));
    }

    #[test]
    fn missing_vhost_and_a_node_that_is_down_have_no_queues() {
        let desk = Desk::new();
        desk.queue("a", Table::new());
        assert!(desk.rows_in("missing", Verb::ListQueues(columns(&["name"]))).is_empty());
        let offline = Listing { offline: true, ..columns(&["name"]) };
        assert!(desk.rows(Verb::ListQueues(offline)).is_empty());
    }

    #[test]
    fn unknown_column_is_refused() {
        let desk = Desk::new();
        assert_eq!(desk.refusal(Verb::ListQueues(columns(&["nonsense"]))).0, "no such column: nonsense");
    }

    #[test]
    fn consumers_are_listed_with_who_is_served() {
        let desk = Desk::new();
        desk.queue("single", Table::from_iter([("x-single-active-consumer", Value::Bool(true))]));
        let connection = desk.connect("guest", "/");
        let queue = desk.vhost().queue("single").unwrap();
        for tag in ["first", "second"] {
            let id = desk.broker.next_consumer_id();
            queue.consume(id, connection.consumer(tag), &mut desk.turn()).unwrap();
        }
        let wanted =
            columns(&["queue_name", "consumer_tag", "ack_required", "prefetch_count", "active", "activity_status"]);
        assert_eq!(
            desk.rows(Verb::ListConsumers(wanted)),
            [
                json!(["single", "first", true, 1, true, "single_active"]),
                json!(["single", "second", true, 1, false, "waiting"])
            ]
        );
        let pids = desk.rows(Verb::ListConsumers(columns(&["channel_pid"])));
        assert_eq!(pids[0], desk.rows(Verb::ListChannels(columns(&["pid"])))[0]);
        let capacity = desk.rows(Verb::ListQueues(columns(&["consumers", "consumer_capacity"])));
        assert_eq!(capacity, [json!([2, 1.0])]);
    }

    #[test]
    fn queue_is_deleted_only_under_its_conditions() {
        let desk = Desk::new();
        desk.queue("q", Table::new());
        desk.publish("q", b"x", false);
        let delete = |if_empty, if_unused| Verb::DeleteQueue { name: "q".into(), if_empty, if_unused };
        assert_eq!(desk.refusal(delete(true, false)), ("Queue is not empty".into(), 64));
        assert_eq!(desk.done(delete(false, true)), json!({"messages": 1}));
        assert_eq!(desk.refusal(delete(false, false)), ("Queue not found".into(), 64));
    }

    #[test]
    fn purge_leaves_an_empty_queue() {
        let desk = Desk::new();
        desk.queue("q", Table::new());
        desk.publish("q", b"x", false);
        desk.done(Verb::PurgeQueue { name: "q".into() });
        assert_eq!(desk.rows(Verb::ListQueues(columns(&["messages"]))), [json!([0])]);
        let missing = Verb::PurgeQueue { name: "missing".into() };
        assert_eq!(desk.refusal_in("missing", missing), ("not_found".into(), 69));
    }
}
