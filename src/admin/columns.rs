//! The columns of every listing, with their types: what the server fills in and the client shows.
//!
//! A cell is `""` where RabbitMQ has nothing to show, whatever the column's type.

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// JSON string. Shown as it is; anything that a client may name.
    Text,
    /// JSON string. Shown as it is; one of a fixed set, or a node's name.
    Word,
    /// `true`, `false`.
    Bool,
    /// JSON number. Shown as `3`, `0.5`.
    Number,
    /// JSON string, as [`super::wire::pid`] makes it: `<rabbit@host.1.250.0>`.
    Pid,
    /// JSON string: `127.0.0.1`, `::1`.
    Address,
    /// JSON array of strings. Shown as `[management, monitoring]`.
    Words,
    /// As [`super::wire::table`] makes it: `[["x-max-length","signedint",5]]`. Shown as
    /// `[{"x-max-length",5}]`.
    Table,
    /// JSON array of numbers: `[0,9,1]`. Shown as `{0,9,1}`.
    Version,
}

/// A column: its name and type.
pub type Column = (&'static str, Type);

/// `list_users`.
pub const USERS: &[Column] = &[("user", Type::Text), ("tags", Type::Words)];

/// `list_access_keys`.
pub const ACCESS_KEYS: &[Column] = &[("access_key", Type::Text), ("user", Type::Text)];

/// `list_vhosts`. `default_queue_type` is `undefined` if unset.
pub const VHOSTS: &[Column] = &[
    ("name", Type::Text),
    ("tracing", Type::Bool),
    ("description", Type::Text),
    ("tags", Type::Words),
    ("default_queue_type", Type::Text),
    ("cluster_state", Type::Words),
];

/// `list_permissions`.
pub const PERMISSIONS: &[Column] =
    &[("user", Type::Text), ("configure", Type::Text), ("write", Type::Text), ("read", Type::Text)];

/// `list_user_permissions`, over all vhosts.
pub const USER_PERMISSIONS: &[Column] =
    &[("vhost", Type::Text), ("configure", Type::Text), ("write", Type::Text), ("read", Type::Text)];

/// `list_topic_permissions`.
pub const TOPIC_PERMISSIONS: &[Column] =
    &[("user", Type::Text), ("exchange", Type::Text), ("write", Type::Text), ("read", Type::Text)];

/// `list_user_topic_permissions`, over all vhosts.
pub const USER_TOPIC_PERMISSIONS: &[Column] =
    &[("vhost", Type::Text), ("exchange", Type::Text), ("write", Type::Text), ("read", Type::Text)];

/// `list_policies`, `list_operator_policies`. `definition` is JSON text.
pub const POLICIES: &[Column] = &[
    ("vhost", Type::Text),
    ("name", Type::Text),
    ("pattern", Type::Text),
    ("apply-to", Type::Text),
    ("definition", Type::Text),
    ("priority", Type::Number),
];

/// `list_parameters`. `value` is JSON text.
pub const PARAMETERS: &[Column] = &[("component", Type::Text), ("name", Type::Text), ("value", Type::Text)];

/// `list_global_parameters`. `value` is JSON text.
pub const GLOBAL_PARAMETERS: &[Column] = &[("name", Type::Text), ("value", Type::Text)];

/// `list_vhost_limits` of all vhosts. `limits` is JSON text.
pub const VHOST_LIMITS: &[Column] = &[("vhost", Type::Text), ("limits", Type::Text)];

/// `list_user_limits` of all users. `limits` is JSON text.
pub const USER_LIMITS: &[Column] = &[("user", Type::Text), ("limits", Type::Text)];

/// `list_exchanges`. The default exchange's name is empty.
pub const EXCHANGES: &[Column] = &[
    ("name", Type::Text),
    ("type", Type::Word),
    ("durable", Type::Bool),
    ("auto_delete", Type::Bool),
    ("internal", Type::Bool),
    ("arguments", Type::Table),
    ("policy", Type::Text),
];

/// `list_bindings`. The default exchange's bindings are among them, one a queue, with an empty
/// `source_name`. `destination_kind` is `queue` or `exchange`.
pub const BINDINGS: &[Column] = &[
    ("source_name", Type::Text),
    ("source_kind", Type::Word),
    ("destination_name", Type::Text),
    ("destination_kind", Type::Word),
    ("routing_key", Type::Text),
    ("arguments", Type::Table),
];

/// `list_queues`.
///
/// - `exclusive` is nothing for quorum queues and streams; `pid` is nothing for streams;
/// - `owner_pid` is the pid of the connection that owns an exclusive queue, `exclusive_consumer_pid`
///   that of the exclusive consumer's channel;
/// - `head_message_timestamp` is the `timestamp` property of the first message, if it has one;
/// - `consumer_utilisation` and `consumer_capacity` are fractions, 0 without consumers;
/// - `leader`, `members` and `online` are nodes, and nothing for classic queues;
/// - `slave_pids` and `synchronised_slave_pids` concern mirroring: always nothing.
pub const QUEUES: &[Column] = &[
    ("name", Type::Text),
    ("durable", Type::Bool),
    ("auto_delete", Type::Bool),
    ("arguments", Type::Table),
    ("policy", Type::Text),
    ("pid", Type::Pid),
    ("owner_pid", Type::Pid),
    ("exclusive", Type::Bool),
    ("exclusive_consumer_pid", Type::Pid),
    ("exclusive_consumer_tag", Type::Text),
    ("messages_ready", Type::Number),
    ("messages_unacknowledged", Type::Number),
    ("messages", Type::Number),
    ("messages_ready_ram", Type::Number),
    ("messages_unacknowledged_ram", Type::Number),
    ("messages_ram", Type::Number),
    ("messages_persistent", Type::Number),
    ("message_bytes", Type::Number),
    ("message_bytes_ready", Type::Number),
    ("message_bytes_unacknowledged", Type::Number),
    ("message_bytes_ram", Type::Number),
    ("message_bytes_persistent", Type::Number),
    ("head_message_timestamp", Type::Number),
    ("disk_reads", Type::Number),
    ("disk_writes", Type::Number),
    ("consumers", Type::Number),
    ("consumer_utilisation", Type::Number),
    ("consumer_capacity", Type::Number),
    ("memory", Type::Number),
    ("slave_pids", Type::Words),
    ("synchronised_slave_pids", Type::Words),
    ("state", Type::Word),
    ("type", Type::Word),
    ("leader", Type::Word),
    ("members", Type::Words),
    ("online", Type::Words),
];

/// `list_connections`, of all vhosts.
///
/// - `name` is `127.0.0.1:50000 -> 127.0.0.1:5672`, the peer first;
/// - the `ssl_` columns and those of the peer's certificate are nothing without TLS;
/// - `state` is `running`, `blocked`, `blocking`, `flow`, `closing`;
/// - `timeout` is the heartbeat in seconds; `connected_at` is in milliseconds since the epoch.
pub const CONNECTIONS: &[Column] = &[
    ("pid", Type::Pid),
    ("name", Type::Text),
    ("port", Type::Number),
    ("host", Type::Address),
    ("peer_port", Type::Number),
    ("peer_host", Type::Address),
    ("ssl", Type::Bool),
    ("ssl_protocol", Type::Word),
    ("ssl_key_exchange", Type::Word),
    ("ssl_cipher", Type::Word),
    ("ssl_hash", Type::Word),
    ("peer_cert_subject", Type::Text),
    ("peer_cert_issuer", Type::Text),
    ("peer_cert_validity", Type::Text),
    ("state", Type::Word),
    ("channels", Type::Number),
    ("protocol", Type::Version),
    ("auth_mechanism", Type::Text),
    ("user", Type::Text),
    ("vhost", Type::Text),
    ("timeout", Type::Number),
    ("frame_max", Type::Number),
    ("channel_max", Type::Number),
    ("client_properties", Type::Table),
    ("recv_oct", Type::Number),
    ("recv_cnt", Type::Number),
    ("send_oct", Type::Number),
    ("send_cnt", Type::Number),
    ("send_pend", Type::Number),
    ("connected_at", Type::Number),
];

/// `list_channels`, of all vhosts. `name` is the connection's with ` (1)` behind it, `connection`
/// the connection's pid.
pub const CHANNELS: &[Column] = &[
    ("pid", Type::Pid),
    ("connection", Type::Pid),
    ("name", Type::Text),
    ("number", Type::Number),
    ("user", Type::Text),
    ("vhost", Type::Text),
    ("transactional", Type::Bool),
    ("confirm", Type::Bool),
    ("consumer_count", Type::Number),
    ("messages_unacknowledged", Type::Number),
    ("messages_uncommitted", Type::Number),
    ("acks_uncommitted", Type::Number),
    ("messages_unconfirmed", Type::Number),
    ("prefetch_count", Type::Number),
    ("global_prefetch_count", Type::Number),
];

/// `list_consumers`. `activity_status` is `up`, `single_active`, `waiting` or `suspected_down`.
pub const CONSUMERS: &[Column] = &[
    ("queue_name", Type::Text),
    ("channel_pid", Type::Pid),
    ("consumer_tag", Type::Text),
    ("ack_required", Type::Bool),
    ("prefetch_count", Type::Number),
    ("active", Type::Bool),
    ("activity_status", Type::Word),
    ("arguments", Type::Table),
];
