//! The language of the control socket: one request line, then one or more answer lines, all JSON.
//!
//! The socket is `control.sock` in the data directory, mode 0660: whoever may open it is an
//! administrator. A client connects, writes one [`Request`] as one line, reads [`Answer`]s until
//! the last one and closes. A server closes a connection whose line passes [`REQUEST_BYTES_MAX`].
//!
//! ```text
//! {"verb":"list_queues","args":{"columns":["name","messages"]},"vhost":"/"}
//!
//!     {"columns":["name","messages"]}        a listing: its columns,
//!     ["orders",3]                           one array a row, in the order of the columns,
//!     {"end":true}                           and its end
//!
//! {"verb":"delete_queue","args":{"name":"orders"},"vhost":"/"}
//!
//!     {"ok":{"messages":3}}                  what the verb's documentation says, null if nothing
//!     {"error":{"kind":"no_such_queue","message":"...","exit":69}}   or why not
//! ```
//!
//! A listing streams, so that neither side holds 100,000 queues. An error may stand in place of
//! any line; it is the last one.
//!
//! # Cells
//!
//! A cell is `""` where RabbitMQ has nothing to show, whatever the column's type. Otherwise:
//!
//! | type    | JSON                              | shown in a table as          |
//! |---------|-----------------------------------|------------------------------|
//! | text    | string                            | as it is                     |
//! | word    | string: one of a fixed set        | as it is                     |
//! | bool    | true, false                       | `true`                       |
//! | number  | number                            | `3`, `0.5`                   |
//! | pid     | string, as [`pid`] makes it       | `<rabbit@host.1.250.0>`      |
//! | address | string: `127.0.0.1`, `::1`        | as it is                     |
//! | words   | array of strings                  | `[management, monitoring]`   |
//! | table   | as [`table`] makes it             | `[{"x-max-length",5}]`       |
//! | json    | string that holds JSON            | `{"max-length":5}`           |
//!
//! The columns of each listing and their types are the tables of [`Listing`].

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use crate::broker::value::{Table, Value};

/// Longest request line. Definitions are the only large ones; a longer line ends the connection.
pub const REQUEST_BYTES_MAX: usize = 256 * 1024 * 1024;

/// One line from client to server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// What is asked, with its arguments.
    #[serde(flatten)]
    pub verb: Verb,
    /// The vhost that verbs of one vhost act on; the others ignore it.
    pub vhost: String,
}

/// What can be asked. The doc of each says what `ok` holds; where it says nothing, null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", content = "args", rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Verb {
    // Users. Where a user does not exist: [`Failure::no_such_user`].
    AddUser { name: String, password: String },
    DeleteUser { name: String },
    ChangePassword { name: String, password: String },
    ClearPassword { name: String },
    SetUserTags { name: String, tags: Vec<String> },
    /// Fails with [`Failure::not_authenticated`].
    AuthenticateUser { name: String, password: String },
    /// A listing: user text, tags words.
    ListUsers {},
    /// `definition` is the text as typed: the server parses it (see [`Failure::not_json`]).
    SetUserLimits { user: String, definition: String },
    /// `limit` is `all` or one limit's name.
    ClearUserLimits { user: String, limit: String },
    /// Of one user: a listing of limits json. Of all (`user` null): user text, limits json.
    ListUserLimits { user: Option<String> },

    // Vhosts. Where a vhost does not exist: [`Failure::no_such_vhost`].
    AddVhost { name: String, description: Option<String>, tags: Vec<String>, default_queue_type: Option<String> },
    DeleteVhost { name: String },
    SetVhostTags { name: String, tags: Vec<String> },
    ListVhosts(Listing),
    SetVhostLimits { definition: String },
    ClearVhostLimits {},
    /// Of the request's vhost: a listing of limits json. Of all (`global`): vhost text, limits json.
    ListVhostLimits { global: bool },
    TraceOn {},
    TraceOff {},

    // Permissions, in the request's vhost unless they say otherwise.
    SetPermissions { user: String, configure: String, write: String, read: String },
    ClearPermissions { user: String },
    /// A listing: user, configure, write, read, all text.
    ListPermissions {},
    /// A listing over all vhosts: vhost, configure, write, read, all text.
    ListUserPermissions { user: String },
    SetTopicPermissions { user: String, exchange: String, write: String, read: String },
    /// `exchange` null: of all exchanges.
    ClearTopicPermissions { user: String, exchange: Option<String> },
    /// A listing: user, exchange, write, read, all text.
    ListTopicPermissions {},
    /// A listing over all vhosts: vhost, exchange, write, read, all text.
    ListUserTopicPermissions { user: String },

    // Policies and parameters, in the request's vhost unless they are global.
    SetPolicy(Policy),
    ClearPolicy { name: String },
    /// A listing: vhost, name, pattern, apply-to text, definition json, priority number.
    ListPolicies {},
    SetOperatorPolicy(Policy),
    ClearOperatorPolicy { name: String },
    /// A listing with the columns of `ListPolicies`.
    ListOperatorPolicies {},
    /// `value` is the text as typed.
    SetParameter { component: String, name: String, value: String },
    ClearParameter { component: String, name: String },
    /// A listing: component, name text, value json. Operator policies are among them, as
    /// component `operator_policy` with value
    /// `{"pattern":..,"definition":{..},"priority":..,"apply-to":..}`; vhost limits and policies
    /// are not.
    ListParameters {},
    SetGlobalParameter { name: String, value: String },
    ClearGlobalParameter { name: String },
    /// A listing: name text, value json.
    ListGlobalParameters {},

    // Topology and clients.
    ListQueues(Listing),
    ListExchanges(Listing),
    ListBindings(Listing),
    /// Of all vhosts.
    ListConnections(Listing),
    /// Of all vhosts.
    ListChannels(Listing),
    ListConsumers(Listing),
    PurgeQueue { name: String },
    /// `ok` is `{"messages": <ready messages that went with it>}`. Fails with
    /// [`Failure::no_such_queue`], [`Failure::queue_in_use`], [`Failure::queue_not_empty`].
    DeleteQueue { name: String, if_empty: bool, if_unused: bool },
    /// Closes with 320 and the reason. `pid` is a connection's, as listed.
    CloseConnection { pid: String, reason: String },
    /// `global`: of all vhosts. At most `limit` of them unless 0, `delay_ms` apart. `ok` is
    /// `{"closed": <count>}`.
    CloseAllConnections { reason: String, global: bool, limit: u64, delay_ms: u64 },
    CloseAllUserConnections { user: String, reason: String },

    // The process.
    SetVmMemoryHighWatermark(MemoryLimit),
    SetDiskFreeLimit(DiskLimit),
    /// `ok` is the definitions, as RabbitMQ writes them.
    ExportDefinitions {},
    ImportDefinitions { definitions: Json },
    /// `ok` is a [`Status`].
    Status {},
    /// `ok` is an object of objects: component, setting, value.
    Environment {},
    /// `ok` is `{"running": bool}`: false after `stop_app`.
    Ping {},
    /// `ok` is an array of [`Listener`].
    Listeners {},
    /// `ok` is an array of strings: the vhosts that are not up.
    VhostsDown {},
    /// `ok` is an array of [`Alarm`].
    Alarms {},
    StopApp {},
    StartApp {},
    /// Only after `stop_app`, else [`Failure::app_running`].
    Reset {},
    /// Answered before the process ends; the socket goes with it.
    Stop {},
}

/// A listing with chosen columns, never empty; the client checked that they are known.
///
/// `list_vhosts`:
///
/// | column | type | |
/// |---|---|---|
/// | name, description | text | |
/// | tracing | bool | |
/// | tags | words | |
/// | default_queue_type | word | `undefined` if unset |
/// | cluster_state | words | `[{rabbit@host, running}]`: see [`cluster_state`] |
///
/// `list_exchanges`:
///
/// | column | type | |
/// |---|---|---|
/// | name | text | the default exchange's is empty |
/// | type | word | |
/// | durable, auto_delete, internal | bool | |
/// | arguments | table | |
/// | policy | text | |
///
/// `list_bindings`, those of the default exchange among them (source_name empty, one a queue):
///
/// | column | type | |
/// |---|---|---|
/// | source_name, destination_name, routing_key | text | |
/// | source_kind | word | always `exchange` |
/// | destination_kind | word | `queue`, `exchange` |
/// | arguments | table | |
///
/// `list_queues`, `online` and `offline` (both false: all), `local` is all:
///
/// | column | type | |
/// |---|---|---|
/// | name, policy, exclusive_consumer_tag | text | |
/// | durable, auto_delete | bool | |
/// | exclusive | bool | nothing for quorum and stream |
/// | arguments | table | without `x-queue-type` unless it was declared |
/// | pid | pid | nothing for stream |
/// | owner_pid | pid | the connection's, of an exclusive queue |
/// | exclusive_consumer_pid | pid | the channel's |
/// | messages, messages_ready, messages_unacknowledged | number | |
/// | messages_ram, messages_ready_ram, messages_unacknowledged_ram | number | nothing for stream |
/// | messages_persistent | number | |
/// | message_bytes, and `_ready`, `_unacknowledged`, `_ram`, `_persistent` | number | |
/// | head_message_timestamp | number | its `timestamp` property, nothing if it has none |
/// | disk_reads, disk_writes | number | |
/// | consumers, memory | number | |
/// | consumer_utilisation, consumer_capacity | number | a fraction, 0 without consumers |
/// | slave_pids, synchronised_slave_pids | words | nothing unless mirrored, so always |
/// | state | word | `running`, `idle`, `flow` |
/// | type | word | `classic`, `quorum`, `stream` |
/// | leader | word | the node, of quorum and stream |
/// | members, online | words | nodes, of quorum and stream |
///
/// `list_connections`:
///
/// | column | type | |
/// |---|---|---|
/// | pid | pid | |
/// | name | text | `127.0.0.1:50000 -> 127.0.0.1:5672` |
/// | port, peer_port | number | |
/// | host, peer_host | address | |
/// | ssl | bool | |
/// | ssl_protocol, ssl_key_exchange, ssl_cipher, ssl_hash | word | nothing without TLS |
/// | peer_cert_subject, peer_cert_issuer, peer_cert_validity | text | nothing without one |
/// | state | word | `running`, `blocked`, `blocking`, `flow`, `closing` |
/// | channels | number | |
/// | protocol | words | `{0,9,1}`: the string, as shown |
/// | auth_mechanism, user, vhost | text | |
/// | timeout | number | heartbeat in seconds |
/// | frame_max, channel_max | number | |
/// | client_properties | table | |
/// | recv_oct, recv_cnt, send_oct, send_cnt, send_pend | number | |
/// | connected_at | number | milliseconds since the epoch |
///
/// `list_channels`:
///
/// | column | type | |
/// |---|---|---|
/// | pid, connection | pid | |
/// | name | text | `127.0.0.1:50000 -> 127.0.0.1:5672 (1)` |
/// | number | number | |
/// | user, vhost | text | |
/// | transactional, confirm | bool | |
/// | consumer_count, messages_unacknowledged, messages_uncommitted | number | |
/// | acks_uncommitted, messages_unconfirmed | number | |
/// | prefetch_count, global_prefetch_count | number | |
///
/// `list_consumers`:
///
/// | column | type | |
/// |---|---|---|
/// | queue_name, consumer_tag | text | |
/// | channel_pid | pid | |
/// | ack_required, active | bool | |
/// | prefetch_count | number | |
/// | activity_status | word | `up`, `single_active`, `waiting`, `suspected_down` |
/// | arguments | table | |
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Listing {
    /// The columns wanted, in the order wanted.
    pub columns: Vec<String>,
    /// Only of queues: those whose node is up.
    #[serde(default)]
    pub online: bool,
    /// Only of queues: those whose node is down, which are none.
    #[serde(default)]
    pub offline: bool,
}

/// The arguments of a policy, as typed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// The regular expression that names must match.
    pub pattern: String,
    /// JSON text: the server parses it.
    pub definition: String,
    /// The highest priority that matches wins.
    pub priority: i64,
    /// `queues`, `exchanges` or `all`: the server checks it.
    pub apply_to: String,
}
