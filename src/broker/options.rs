//! Settings of the broker core: the first user, limits and alarms, whatever protocol is spoken.
//!
//! `config::table` has one row for each field, with its key, bounds and reason.

pub use super::access::HashAlgorithm;

/// Settings of the broker core, given to it once at its start.
///
/// A count that is `usize::MAX` is unlimited.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Name of this node, `name@host`; listings and the control tool show it.
    /// Default `tern@` and the host's name (`tern@localhost` where no host name can be read).
    pub node_name: String,
    /// Name of the installation, told to clients. Default: the node's name.
    pub cluster_name: String,
    /// Virtual host made at the first start. Default `/`.
    pub default_vhost: String,
    /// User made at the first start. Default `guest`, as every client library presumes.
    pub default_user: String,
    /// Password of the first user. Default `guest`; harmless only because of `loopback_users`.
    pub default_pass: String,
    /// Tags of the first user. Default `administrator`.
    pub default_user_tags: Vec<String>,
    /// Pattern of the names that the first user may configure. Default `.*`.
    pub default_permissions_configure: String,
    /// Pattern of the names that the first user may write to. Default `.*`.
    pub default_permissions_write: String,
    /// Pattern of the names that the first user may read from. Default `.*`.
    pub default_permissions_read: String,
    /// Users who may log in from loopback addresses only. Default `guest`: a well-known password
    /// must not be usable from another machine.
    pub loopback_users: Vec<String>,
    /// How new passwords are digested, and at their next login those that were digested less well.
    /// Default argon2id; RabbitMQ's own where exported definitions are to be imported there.
    pub password_hashing: HashAlgorithm,
    /// Queue type of a declaration that names none. Default classic.
    pub default_queue_type: DefaultQueueType,
    /// Largest message body in bytes; a larger one is refused. Default 128 MiB, at most 512 MiB.
    pub max_message_bytes: u64,
    /// Resident memory at which publishers stop being read. Default 0.4 of the memory that this
    /// process may use: room for one copy of everything while queues are moved or replayed.
    pub memory_high_watermark: MemoryShare,
    /// Free disk space below which publishers stop being read. Default 50 MB, as RabbitMQ.
    pub disk_free_limit: MemoryShare,
    /// Milliseconds that a delivery may stay unsettled before its channel is closed.
    /// Default off: long tasks are ordinary, and closing their channel loses their work.
    pub consumer_timeout_ms: Option<u64>,
    /// Deliveries of one message before it is dead-lettered or dropped, where the queue sets none.
    /// Default off: no message disappears unless somebody asked for it.
    pub delivery_limit: Option<u64>,
    /// Virtual hosts in all. Default 10,000; full: a further one is refused.
    pub vhosts_count_max: usize,
    /// Queues in all virtual hosts. Default 1,000,000 (about 6 GB at the most); full: a further
    /// declaration is refused.
    pub queues_count_max: usize,
    /// Exchanges in all virtual hosts. Default 1,000,000; full: a further declaration is refused.
    pub exchanges_count_max: usize,
    /// Open connections in all. Default unlimited: the open-files limit bounds them. Full: a
    /// further one is refused when it opens.
    pub connections_count_max: usize,
    /// Open channels of all connections. Default unlimited: each connection has its own bound.
    /// Full: a further one closes its connection.
    pub channels_count_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            node_name: "tern@localhost".into(),
            cluster_name: "tern@localhost".into(),
            default_vhost: "/".into(),
            default_user: "guest".into(),
            default_pass: "guest".into(),
            default_user_tags: vec!["administrator".into()],
            default_permissions_configure: ".*".into(),
            default_permissions_write: ".*".into(),
            default_permissions_read: ".*".into(),
            loopback_users: vec!["guest".into()],
            password_hashing: HashAlgorithm::Argon2id,
            default_queue_type: DefaultQueueType::Classic,
            max_message_bytes: 128 << 20,
            memory_high_watermark: MemoryShare::Relative(0.4),
            disk_free_limit: MemoryShare::Bytes(50_000_000),
            consumer_timeout_ms: None,
            delivery_limit: None,
            vhosts_count_max: 10_000,
            queues_count_max: 1_000_000,
            exchanges_count_max: 1_000_000,
            connections_count_max: usize::MAX,
            channels_count_max: usize::MAX,
        }
    }
}

/// The type of a queue whose declaration names none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DefaultQueueType {
    /// A queue with every feature but those of streams.
    #[default]
    Classic,
    /// The same with its own rules for declaring it.
    Quorum,
    /// A log that consumers read without taking from it.
    Stream,
}

impl DefaultQueueType {
    /// The name that declarations and listings use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
            Self::Stream => "stream",
        }
    }
}

/// A number of bytes, or a share of the memory that this process may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MemoryShare {
    /// A factor of the memory, 0.4 for two fifths.
    Relative(f64),
    /// A fixed number.
    Bytes(u64),
}

impl MemoryShare {
    /// The bytes that this means where the process may use `total_bytes` of memory.
    pub fn bytes(self, total_bytes: u64) -> u64 {
        match self {
            // Float to integer casts saturate: a negative factor is zero, a huge one the maximum.
            Self::Relative(factor) => (total_bytes as f64 * factor) as u64,
            Self::Bytes(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_share_follows_the_memory_and_a_fixed_one_does_not() {
        assert_eq!(MemoryShare::Relative(0.5).bytes(1000), 500);
        assert_eq!(MemoryShare::Bytes(7).bytes(1000), 7);
        assert_eq!(MemoryShare::Relative(-1.0).bytes(1000), 0);
    }
}
