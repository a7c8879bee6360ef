//! The registry of open connections, which administration lists and closes.
//!
//! A protocol registers each connection with what is known of it and with a handle by which it can
//! be asked to close. Channels are listed through the handle, when somebody asks.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use dashmap::DashMap;

use super::{time::Time, value::Table};

/// Identity of a connection, unique in the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// What is known of an open connection.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// Its identity.
    pub id: ConnectionId,
    /// `peer:port -> local:port`.
    pub name: Arc<str>,
    /// The client's address.
    pub peer: SocketAddr,
    /// The address it connected to.
    pub local: SocketAddr,
    /// Who logged in.
    pub user: Arc<str>,
    /// The vhost that it opened.
    pub vhost: Arc<str>,
    /// Name of the protocol and its version, for listings.
    pub protocol: String,
    /// Name of the login mechanism.
    pub auth_mechanism: String,
    /// Bytes of the largest frame.
    pub frame_max: u32,
    /// Channels it may open.
    pub channel_max: u16,
    /// Seconds between heartbeats; 0 is off.
    pub heartbeat_secs: u16,
    /// What the client says of itself.
    pub client_properties: Table,
    /// When it was opened.
    pub connected_at: Time,
}

impl ConnectionInfo {
    /// The name that the client gave.
    pub fn user_provided_name(&self) -> Option<&str> {
        self.client_properties.get("connection_name").and_then(|value| value.as_text())
    }
}

/// A channel for listings.
#[derive(Clone, Debug, Default)]
pub struct ChannelStatus {
    /// Its number on its connection.
    pub number: u16,
    /// Publishes are confirmed.
    pub is_confirming: bool,
    /// Publishes and settles take effect at commit.
    pub is_transactional: bool,
    /// Consumers on it.
    pub consumers: u64,
    /// Deliveries not settled.
    pub unsettled: u64,
    /// Publishes not confirmed.
    pub unconfirmed: u64,
    /// Publishes not committed.
    pub uncommitted: u64,
    /// Settles not committed.
    pub uncommitted_settles: u64,
    /// Deliveries that a new consumer may hold.
    pub prefetch: u32,
    /// Deliveries that all its consumers together may hold.
    pub shared_prefetch: u32,
}

/// What went over a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Bytes received.
    pub received_bytes: u64,
    /// Reads that brought them.
    pub reads_count: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Writes that took them.
    pub writes_count: u64,
    /// Bytes waiting to be sent.
    pub waiting_bytes: u64,
    /// It is not read from, because an alarm is on.
    pub is_blocked: bool,
}

/// How administration reaches a connection.
pub trait ConnectionHandle: Send + Sync {
    /// Asks it to close; the reason goes to the client.
    fn close(&self, reason: &str);

    /// Its channels.
    fn channels(&self) -> Vec<ChannelStatus>;

    /// What went over it.
    fn traffic(&self) -> Traffic;

    /// The memory alarm (and friends) went on or off.
    fn alarm_changed(&self);

    /// Something has come that it may be waiting for: see [`Waiting`](super::verb::Waiting).
    fn proceed(&self) {}
}

/// An open connection.
#[derive(Clone)]
pub struct Connection {
    /// What is known of it.
    pub info: Arc<ConnectionInfo>,
    /// How to reach it.
    pub handle: Arc<dyn ConnectionHandle>,
}

/// All open connections.
#[derive(Default)]
pub struct Connections {
    open: DashMap<ConnectionId, Connection, foldhash::fast::RandomState>,
    next: AtomicU64,
}

impl Connections {
    /// A new identity.
    pub fn next_id(&self) -> ConnectionId {
        ConnectionId(self.next.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Adds a connection that has opened its vhost.
    pub fn add(&self, connection: Connection) {
        self.open.insert(connection.info.id, connection);
    }

    /// Removes a closed connection.
    pub fn remove(&self, id: ConnectionId) {
        self.open.remove(&id);
    }

    /// The connection of that identity.
    pub fn get(&self, id: ConnectionId) -> Option<Connection> {
        self.open.get(&id).map(|entry| entry.value().clone())
    }

    /// All of them, oldest first.
    pub fn list(&self) -> Vec<Connection> {
        let mut all: Vec<_> = self.open.iter().map(|entry| entry.value().clone()).collect();
        all.sort_by_key(|connection| connection.info.id);
        all
    }

    /// Number of open connections.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// True without open connections.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}
