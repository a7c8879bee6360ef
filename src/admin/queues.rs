//! Queues and their consumers: listing, purging, deleting.

use std::{cell::OnceCell, sync::Arc};

use serde_json::{Value as Json, json};

use super::{
    columns,
    control::{Call, Reply, chosen, nothing, rows_of},
    failure::Failure,
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
    let node = call.node_name().to_owned();
    Ok(rows_of(columns, queues, move |queue, columns| {
        let row = Row { queue, node: &node, consumers: OnceCell::new(), persistent: OnceCell::new() };
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
            "disk_reads" | "disk_writes" => of_classic(0),
            "consumers" => json!(status.consumers),
            "consumer_utilisation" | "consumer_capacity" if is_classic => self.capacity(status.ready),
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

    /// Whether consumers could take a message at once: all of the time, or none of it. RabbitMQ
    /// shows the share of the last time.
    fn capacity(&self, ready: u64) -> Json {
        let has_credit = |consumer: &ConsumerStatus| {
            consumer.options.no_ack || consumer.options.prefetch == 0 || consumer.unsettled < consumer.options.prefetch
        };
        match self.consumers() {
            [] => json!(0),
            consumers if ready == 0 || consumers.iter().any(|one| one.is_active && has_credit(one)) => json!(1.0),
            _ => json!(0.0),
        }
    }
}
