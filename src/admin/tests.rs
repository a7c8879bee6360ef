//! A broker with its administration, without a process and without sockets.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use serde_json::{Value as Json, json};

use super::{
    control::{Reply, handle},
    failure::Failure,
    node::{Change, Disk, Environment, Files, Memory, Node, Store},
    wire::{Listener, Listing, Request, Verb},
};
use crate::broker::{
    Broker,
    connections::{ChannelStatus, Connection, ConnectionHandle, ConnectionId, ConnectionInfo, Traffic},
    consumer::{Batch, ConsumerOptions, Handed, Outlet},
    message::Message,
    options::{MemoryShare, Options},
    record::Position,
    time::Time,
    topology::{DeclareExchange, DeclareQueue},
    turn::Turn,
    value::Table,
    vhost::Vhost,
};

/// A process that only remembers what it was told.
pub(crate) struct FakeNode {
    pub(crate) is_running: AtomicBool,
    pub(crate) is_stopping: AtomicBool,
    pub(crate) watermark: Mutex<MemoryShare>,
    pub(crate) disk_limit: Mutex<MemoryShare>,
    this: std::sync::Weak<Self>,
}

impl FakeNode {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            is_running: AtomicBool::new(true),
            is_stopping: AtomicBool::new(false),
            watermark: Mutex::new(MemoryShare::Relative(0.4)),
            disk_limit: Mutex::new(MemoryShare::Bytes(50_000_000)),
            this: this.clone(),
        })
    }

    fn run(&self, is_running: bool) -> Change {
        let this = self.this.upgrade().unwrap();
        Box::pin(async move {
            this.is_running.store(is_running, Ordering::Relaxed);
            Ok(())
        })
    }
}

impl Node for FakeNode {
    fn wait_until_safe(&self, _: Position) {}

    fn now(&self) -> Time {
        Time(10_000)
    }

    fn is_running(&self) -> bool {
        self.is_running.load(Ordering::Relaxed)
    }

    fn environment(&self) -> Environment {
        Environment {
            pid: 77,
            started_at: Time(4_000),
            product_version: "3.13.7".into(),
            data_dir: "/data".into(),
            config_files: vec!["/etc/tern.toml".into()],
            log_files: vec!["<stderr>".into()],
            listeners: vec![Listener {
                interface: "127.0.0.1".into(),
                node: "tern@localhost".into(),
                port: 5672,
                protocol: "amqp".into(),
                purpose: "AMQP 0-9-1".into(),
            }],
            memory: Memory { resident_bytes: 1000, total_bytes: 100_000, watermark: *self.watermark.lock() },
            disk: Disk { free_bytes: 5000, limit: *self.disk_limit.lock() },
            store: Store { log_bytes: 9_000, segments_count: 3, ..Store::default() },
            files: Files { open: 5, limit: 1024 },
            settings: json!({"amqp": {"port": "5672"}}),
        }
    }

    fn timestamp_secs(&self, message: &Message) -> Option<u64> {
        std::str::from_utf8(message.properties()).ok()?.parse().ok()
    }

    fn stop_app(&self) -> Change {
        self.run(false)
    }

    fn backup(&self, _: &std::path::Path) -> Change {
        Box::pin(async { Err("there is nothing on a disk".into()) })
    }

    fn start_app(&self) -> Change {
        self.run(true)
    }

    fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    fn set_memory_watermark(&self, share: MemoryShare) {
        *self.watermark.lock() = share;
    }

    fn set_disk_free_limit(&self, share: MemoryShare) {
        *self.disk_limit.lock() = share;
    }
}

/// A broker and its node.
pub(crate) struct Desk {
    pub(crate) broker: Arc<Broker>,
    pub(crate) node: Arc<FakeNode>,
}

impl Desk {
    pub(crate) fn new() -> Self {
        let broker = Broker::new(Options::default(), Time(4_000)).unwrap();
        Self { broker: Arc::new(broker), node: FakeNode::new() }
    }

    /// Carries out a verb in a vhost.
    pub(crate) fn ask_in(&self, vhost: &str, verb: Verb) -> Result<Reply, Failure> {
        let node: Arc<dyn Node> = self.node.clone();
        handle(&self.broker, &node, &Request { verb, vhost: vhost.to_owned() })
    }

    pub(crate) fn ask(&self, verb: Verb) -> Result<Reply, Failure> {
        self.ask_in("/", verb)
    }

    /// Carries out a verb that must be done, and returns what it says.
    pub(crate) fn done(&self, verb: Verb) -> Json {
        match self.ask(verb).unwrap() {
            Reply::Done(value) => value,
            other => panic!("not done: {other:?}"),
        }
    }

    /// What a verb that must fail says, and its exit code.
    pub(crate) fn refusal(&self, verb: Verb) -> (String, u8) {
        self.refusal_in("/", verb)
    }

    pub(crate) fn refusal_in(&self, vhost: &str, verb: Verb) -> (String, u8) {
        let failure = self.ask_in(vhost, verb).unwrap_err();
        (failure.message, failure.exit)
    }

    /// The rows of a listing.
    pub(crate) fn rows(&self, verb: Verb) -> Vec<Json> {
        self.rows_in("/", verb)
    }

    pub(crate) fn rows_in(&self, vhost: &str, verb: Verb) -> Vec<Json> {
        match self.ask_in(vhost, verb).unwrap() {
            Reply::Rows { columns, rows } => rows
                .map(|row| {
                    assert_eq!(row.len(), columns.len());
                    Json::Array(row)
                })
                .collect(),
            other => panic!("no listing: {other:?}"),
        }
    }

    pub(crate) fn vhost(&self) -> Arc<Vhost> {
        self.broker.vhost("/").unwrap()
    }

    pub(crate) fn turn(&self) -> Turn<'_> {
        Turn::new(&self.broker, Time(10_000))
    }

    /// Declares a durable queue.
    pub(crate) fn queue(&self, name: &str, arguments: Table) {
        let wanted = DeclareQueue { name, durable: true, arguments, ..DeclareQueue::default() };
        self.vhost().declare_queue(&wanted, None, &mut self.turn()).unwrap();
    }

    pub(crate) fn exchange(&self, name: &str, kind: &str) {
        let wanted = DeclareExchange { name, kind, durable: true, ..DeclareExchange::default() };
        self.vhost().declare_exchange(&wanted, &mut self.turn()).unwrap();
    }

    /// Puts a message into a queue.
    pub(crate) fn publish(&self, queue: &str, body: &[u8], persistent: bool) {
        // The properties of a protocol that has a timestamp only.
        let mut message = Message::build("", queue.as_bytes(), b"1700000000", (0, 0), body);
        message.traits.persistent = persistent;
        let queue = self.vhost().queue(queue).unwrap();
        queue.publish([message].into_iter(), &mut self.turn(), &mut Vec::new());
    }

    /// Opens a connection of a user, which remembers why it was closed.
    pub(crate) fn connect(&self, user: &str, vhost: &str) -> Arc<FakeConnection> {
        let id = self.broker.connections.next_id();
        let handle = Arc::new(FakeConnection { id, closed: Mutex::default() });
        let info = ConnectionInfo {
            id,
            name: format!("127.0.0.1:{} -> 127.0.0.1:5672", 50_000 + id.0).into(),
            peer: ([127, 0, 0, 1], 50_000 + id.0 as u16).into(),
            local: ([127, 0, 0, 1], 5672).into(),
            user: user.into(),
            vhost: vhost.into(),
            protocol: "{0,9,1}".into(),
            auth_mechanism: "PLAIN".into(),
            frame_max: 131_072,
            channel_max: 2047,
            heartbeat_secs: 60,
            client_properties: Table::new(),
            connected_at: Time(5_000),
        };
        self.broker.connections.add(Connection { info: Arc::new(info), handle: handle.clone() });
        handle
    }
}

/// A listing of columns.
pub(crate) fn columns(names: &[&str]) -> Listing {
    Listing { columns: names.iter().map(|name| (*name).to_owned()).collect(), ..Listing::default() }
}

/// A connection without a client.
pub(crate) struct FakeConnection {
    pub(crate) id: ConnectionId,
    pub(crate) closed: Mutex<Option<String>>,
}

impl FakeConnection {
    pub(crate) fn reason(&self) -> Option<String> {
        self.closed.lock().clone()
    }

    /// What a consumer on its first channel asks for.
    pub(crate) fn consumer(&self, tag: &str) -> ConsumerOptions {
        ConsumerOptions {
            tag: tag.into(),
            no_ack: false,
            exclusive: false,
            priority: 0,
            prefetch: 1,
            declared_prefetch: 1,
            shared_credit: None,
            selector: None,
            is_sole: false,
            arguments: Table::new(),
            outlet: Arc::new(Sink),
            key: 1,
            connection: self.id,
            channel: 1,
        }
    }
}

impl ConnectionHandle for FakeConnection {
    fn close(&self, reason: &str) {
        *self.closed.lock() = Some(reason.to_owned());
    }

    fn channels(&self) -> Vec<ChannelStatus> {
        vec![ChannelStatus { number: 1, prefetch: 7, ..ChannelStatus::default() }]
    }

    fn traffic(&self) -> Traffic {
        Traffic { received_bytes: 10, reads_count: 1, sent_bytes: 20, writes_count: 2, ..Traffic::default() }
    }

    fn alarm_changed(&self) {}
}

/// Takes every delivery.
struct Sink;

impl Outlet for Sink {
    fn deliver(&self, _key: u64, _batch: &Batch<'_>) -> Handed {
        Handed::default()
    }

    fn cancelled(&self, _key: u64) {}

    fn flush(&self) {}
}
