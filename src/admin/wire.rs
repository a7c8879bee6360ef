//! The language of the control socket: one request line, then one or more answer lines, all JSON.
//!
//! The socket is `control.sock` in the data directory, mode 0660: whoever may open it is an
//! administrator. A client connects, writes a [`Request`] as one line, reads [`Answer`]s until the
//! last one, and may then write the next request, or close. A server closes a connection whose line
//! passes [`REQUEST_BYTES_MAX`].
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
//! What the cells of a row look like is in [`columns`](super::columns).

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::failure::Failure;
use crate::broker::value::{Table, Value};

/// Longest request line. Definitions are the only large ones, and 64 MiB of them are some 300,000
/// queues; a longer line ends the connection.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024 * 1024;

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
    AddUser {
        name: String,
        password: String,
    },
    DeleteUser {
        name: String,
    },
    ChangePassword {
        name: String,
        password: String,
    },
    ClearPassword {
        name: String,
    },
    SetUserTags {
        name: String,
        tags: Vec<String>,
    },
    /// Fails with [`Failure::not_authenticated`].
    AuthenticateUser {
        name: String,
        password: String,
    },
    ListUsers {},
    /// `ok` is an object: `access_key` and `secret_key`, made here where they are null.
    AddAccessKey {
        user: String,
        id: Option<String>,
        secret: Option<String>,
    },
    DeleteAccessKey {
        id: String,
    },
    ListAccessKeys {},
    /// `definition` is the text as typed: the server parses it (see [`Failure::not_json`]).
    SetUserLimits {
        user: String,
        definition: String,
    },
    /// `limit` is `all` or one limit's name.
    ClearUserLimits {
        user: String,
        limit: String,
    },
    /// Of one user: `ok` is the object of its limits, empty if none. Of all (`user` null): a listing.
    ListUserLimits {
        user: Option<String>,
    },

    // Vhosts. Where a vhost does not exist: [`Failure::no_such_vhost`].
    AddVhost {
        name: String,
        description: Option<String>,
        tags: Vec<String>,
        default_queue_type: Option<String>,
    },
    DeleteVhost {
        name: String,
    },
    SetVhostTags {
        name: String,
        tags: Vec<String>,
    },
    ListVhosts(Listing),
    SetVhostLimits {
        definition: String,
    },
    ClearVhostLimits {},
    /// Of the request's vhost: `ok` is the object of its limits, null if none were set. Of all
    /// (`global`): a listing.
    ListVhostLimits {
        global: bool,
    },
    TraceOn {},
    TraceOff {},

    // Permissions, in the request's vhost unless they say otherwise.
    SetPermissions {
        user: String,
        configure: String,
        write: String,
        read: String,
    },
    ClearPermissions {
        user: String,
    },
    ListPermissions {},
    /// Over all vhosts.
    ListUserPermissions {
        user: String,
    },
    SetTopicPermissions {
        user: String,
        exchange: String,
        write: String,
        read: String,
    },
    /// `exchange` null: of all exchanges.
    ClearTopicPermissions {
        user: String,
        exchange: Option<String>,
    },
    ListTopicPermissions {},
    /// Over all vhosts.
    ListUserTopicPermissions {
        user: String,
    },

    // Policies and parameters, in the request's vhost unless they are global.
    SetPolicy(Policy),
    ClearPolicy {
        name: String,
    },
    ListPolicies {},
    SetOperatorPolicy(Policy),
    ClearOperatorPolicy {
        name: String,
    },
    ListOperatorPolicies {},
    /// `value` is the text as typed.
    SetParameter {
        component: String,
        name: String,
        value: String,
    },
    ClearParameter {
        component: String,
        name: String,
    },
    /// Also operator policies (component `operator_policy`, value
    /// `{"pattern":..,"definition":{..},"priority":..,"apply-to":..}`) and vhost limits (component
    /// `vhost-limits`, name `limits`), but not policies.
    ListParameters {},
    SetGlobalParameter {
        name: String,
        value: String,
    },
    ClearGlobalParameter {
        name: String,
    },
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
    PurgeQueue {
        name: String,
    },
    /// `ok` is `{"messages": <ready messages that went with it>}`.
    DeleteQueue {
        name: String,
        if_empty: bool,
        if_unused: bool,
    },
    /// Closes with 320 and the reason. `pid` is a connection's, as listed.
    CloseConnection {
        pid: String,
        reason: String,
    },
    /// `global`: of all vhosts. At most `limit` of them unless 0, `delay_ms` apart. `ok` is
    /// `{"closed": <count>}`.
    CloseAllConnections {
        reason: String,
        global: bool,
        limit: u64,
        delay_ms: u64,
    },
    CloseAllUserConnections {
        user: String,
        reason: String,
    },

    // The process.
    SetVmMemoryHighWatermark(MemoryLimit),
    SetDiskFreeLimit(DiskLimit),
    /// `ok` is the definitions, as RabbitMQ writes them.
    ExportDefinitions {},
    ImportDefinitions {
        definitions: Json,
    },
    /// `ok` is an object with the members that `rabbitmqctl status --formatter json` prints;
    /// the client shows those that are there.
    Status {},
    /// `ok` is an object of objects: component, setting, value.
    Environment {},
    /// `ok` is an object with the members of `rabbitmqctl cluster_status --formatter json`.
    ClusterStatus {},
    /// A listing: name, state (`enabled`), both text.
    ListFeatureFlags {},
    /// `ok` is a [`Pong`]. The client asks this first, on the same connection. Answered at any
    /// time, like `stop_app`, `start_app`, `reset` and `stop`; the other verbs fail with
    /// [`Failure::app_stopped`] while the broker is stopped.
    Ping {},
    /// `ok` is an array of [`Listener`].
    Listeners {},
    /// `ok` is an array of strings: the vhosts that are not up.
    VhostsDown {},
    /// `ok` is an array of [`Alarm`].
    Alarms {},
    StopApp {},
    /// Copies the data directory to an empty one, by an absolute path.
    Backup {
        to: std::path::PathBuf,
    },
    StartApp {},
    /// Only after `stop_app`, else [`Failure::app_running`].
    Reset {},
    /// Answered before the process ends; the socket goes with it.
    Stop {},
}

impl Verb {
    /// The verb's name, as typed.
    pub fn name(&self) -> String {
        match serde_json::to_value(self) {
            Ok(Json::Object(members)) => members.get("verb").and_then(Json::as_str).unwrap_or_default().to_owned(),
            _ => String::new(),
        }
    }
}

/// A listing with chosen columns, never empty; the client checked that they are known.
/// [`columns`](super::columns) has the columns of each verb with their types.
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

/// When publishers are held back for memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryLimit {
    /// A fraction of the machine's memory, 0 to 1; 0 holds back everybody.
    Relative(f64),
    /// In bytes.
    Absolute(u64),
}

/// How much disk must stay free.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskLimit {
    /// A multiple of the machine's memory.
    MemRelative(f64),
    /// In bytes.
    Absolute(u64),
}

/// The answer to a ping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// Whether the broker is started: false between `stop_app` and `start_app`.
    pub running: bool,
}

/// A port that the broker listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// The address: `127.0.0.1`, `[::]`.
    pub interface: String,
    /// The node's name.
    pub node: String,
    /// The port.
    pub port: u16,
    /// `amqp`, `amqp/ssl`, `http`, `stomp`.
    pub protocol: String,
    /// For people: `AMQP 0-9-1 and AMQP 1.0`.
    pub purpose: String,
}

/// An alarm that is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alarm {
    /// The process uses more than its memory limit.
    Memory,
    /// Less disk is free than the limit.
    Disk,
    /// Too few file descriptors are left.
    FileDescriptorLimit,
    /// Something on the disk is damaged: what, and what to do.
    Damage(String),
}

/// One line from server to client. The variants are told apart by their shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// One row of a listing.
    Row(Vec<Json>),
    /// A listing begins.
    Columns {
        /// Their names, in the order of the cells.
        columns: Vec<String>,
    },
    /// A listing is complete.
    End {
        /// Always true.
        end: bool,
    },
    /// It was not done, or not to the end.
    Error {
        /// Why.
        error: Failure,
    },
    /// It was done.
    Ok {
        /// What the verb's documentation says.
        ok: Json,
    },
}

impl Answer {
    /// Done, with nothing to say.
    pub const DONE: Self = Self::Ok { ok: Json::Null };
    /// A listing is complete.
    pub const END: Self = Self::End { end: true };
}

impl From<Failure> for Answer {
    fn from(error: Failure) -> Self {
        Self::Error { error }
    }
}

/// A pid as RabbitMQ writes one. `node` is the node's name, `number` whatever identifies the queue,
/// connection or channel.
pub fn pid(node: &str, number: u64) -> String {
    // Erlang's numbers have 28 bits; the rest goes to the last part.
    format!("<{node}.1.{}.{}>", number & 0xFFF_FFFF, number >> 28)
}

/// The number in a pid of [`pid`], also without the node: `<0.250.0>`.
pub fn pid_number(pid: &str) -> Option<u64> {
    let inner = pid.strip_prefix('<')?.strip_suffix('>')?;
    let mut parts = inner.rsplit('.');
    let serial: u64 = parts.next()?.parse().ok()?;
    let number: u64 = parts.next()?.parse().ok()?;
    parts.next()?;
    (number <= 0xFFF_FFFF && serial < 1 << 36).then_some(serial << 28 | number)
}

/// A cell of type table: `[[name, kind, value], ...]`, where nested tables are alike and the items
/// of an array are `[kind, value]`.
pub fn table(table: &Table) -> Json {
    Json::Array(table.iter().map(|(name, value)| json!([name, value.kind_name(), plain(value)])).collect())
}

fn plain(value: &Value) -> Json {
    match value {
        Value::Bool(set) => json!(set),
        Value::I8(n) => json!(n),
        Value::U8(n) => json!(n),
        Value::I16(n) => json!(n),
        Value::U16(n) => json!(n),
        Value::I32(n) => json!(n),
        Value::U32(n) => json!(n),
        Value::I64(n) => json!(n),
        Value::F32(n) => json!(n),
        Value::F64(n) => json!(n),
        Value::Decimal { scale, value } => json!([scale, value]),
        Value::Text(text) => json!(String::from_utf8_lossy(text)),
        Value::Array(items) => items.iter().map(|item| json!([item.kind_name(), plain(item)])).collect(),
        Value::Timestamp(seconds) => json!(seconds),
        Value::Table(nested) => table(nested),
        Value::Void => json!("undefined"),
        Value::Bytes(bytes) => json!(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pid_gives_back_its_number() {
        for number in [0, 250, 0xFFF_FFFF, 1 << 28, (1 << 40) + 7] {
            assert_eq!(pid_number(&pid("rabbit@my.host", number)), Some(number));
        }
        assert_eq!(pid_number("<0.250.0>"), Some(250));
        for text in ["nonsense", "<>", "<1>", "<0.1>", "<0.x.0>", "0.250.0"] {
            assert_eq!(pid_number(text), None, "{text}");
        }
    }

    #[test]
    fn request_is_one_flat_object() {
        let request = Request { verb: Verb::TraceOn {}, vhost: "/".into() };
        assert_eq!(json!(request), json!({"verb": "trace_on", "args": {}, "vhost": "/"}));
        let policy = json!({"name": "p", "pattern": ".*", "definition": "{}", "priority": 0, "apply_to": "all"});
        let line = json!({"verb": "set_policy", "args": policy, "vhost": "v1"}).to_string();
        let request: Request = serde_json::from_str(&line).expect("a request");
        assert_eq!((request.verb.name().as_str(), request.vhost.as_str()), ("set_policy", "v1"));
    }

    #[test]
    fn answers_are_told_apart_by_their_shape() {
        for answer in [
            Answer::DONE,
            Answer::END,
            Answer::Row(vec![json!("q"), json!(3)]),
            Answer::Columns { columns: vec!["name".into()] },
            Failure::not_json().into(),
        ] {
            let line = serde_json::to_string(&answer).expect("answers are JSON");
            assert_eq!(serde_json::from_str::<Answer>(&line).expect("an answer"), answer);
        }
    }

    #[test]
    fn table_keeps_order_and_kinds() {
        let mut arguments = Table::new();
        arguments.push("x-max-length", Value::I32(5));
        arguments.push("l", Value::Array(vec![Value::text("two"), Value::Bool(true)]));
        let expected = json!([["x-max-length", "signedint", 5], ["l", "array", [["longstr", "two"], ["bool", true]]]]);
        assert_eq!(table(&arguments), expected);
    }
}
