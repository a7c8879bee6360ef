//! Settings of the STOMP sessions: who a client is that does not say, and what one peer may make us
//! hold.
//!
//! `config::table` has one row for each field, with its key, bounds and reason.

/// Settings of STOMP sessions, shared by all connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// User that a client is who sends no login. Default `guest` as RabbitMQ; without one such a
    /// client is refused.
    pub default_user: Option<String>,
    /// Password of that user, and of clients that send a login alone. Default `guest`.
    pub default_pass: String,
    /// Vhost of clients that name none. Default `/`.
    pub default_vhost: String,
    /// Whether a host that no vhost bears means the default vhost. Default true: most libraries send
    /// the name of the machine, as the specification tells them.
    pub host_fallback: bool,
    /// Whether clients of ActiveMQ's dialect on this machine are the default user if they send no login, or one
    /// that nobody has. Default true as ActiveMQ, which asks nobody; clients of other machines always log in.
    pub login_optional: bool,
    /// Whether messages sent in ActiveMQ's dialect say who has sent them. Default false as ActiveMQ.
    pub populate_user_id: bool,
    /// Whether a first frame other than CONNECT logs the default user in. Default false as RabbitMQ.
    pub implicit_connect: bool,
    /// Exchange behind `/topic`. Default `amq.topic`.
    pub default_topic_exchange: String,
    /// Whether NACK puts a message back where it does not say. Default true as RabbitMQ.
    pub default_nack_requeue: bool,
    /// Whether CONNECTED says what we are. Default false: it does.
    pub hide_server_info: bool,
    /// Whether a line end follows each frame. Default true as RabbitMQ.
    pub trailing_lf: bool,
    /// Milliseconds from accept to login; then the socket is closed. Default 10,000.
    pub login_timeout_ms: u64,
    /// Percent of its heart-beat after which a silent client is gone. Default 200 as RabbitMQ: a busy
    /// client may be late.
    pub heartbeat_grace_percent: u64,
    /// Largest frame before the login, in bytes. Default 65,536: nobody has said yet who they are.
    pub pre_login_frame_max: usize,
    /// Largest command with its headers, in bytes. Default 65,536. More: ERROR, and the connection is
    /// closed. Bodies have `broker.max_message_bytes`.
    pub head_bytes_max: usize,
    /// Headers of one frame. Default 2048. More: ERROR, and the connection is closed.
    pub headers_count_max: usize,
    /// Subscriptions of one connection. Default 65,536. Full: ERROR, and the connection is closed.
    pub subscriptions_max: usize,
    /// Unsettled deliveries of one connection. Default 1,000,000 (about 100 MB of ledger). Full:
    /// credit is withheld, so its subscriptions get nothing more until they settle.
    pub unsettled_max: usize,
    /// Answers of one connection that wait for the log. Default 100,000. Full: the connection is not
    /// read from until they flow.
    pub unanswered_max: usize,
    /// Open transactions of one connection. Default 1024. Full: ERROR, and the connection is closed.
    pub transactions_max: usize,
    /// Frames in all open transactions of one connection. Default 100,000. Full: ERROR, and the
    /// connection is closed.
    pub transaction_frames_max: usize,
    /// Bytes of the messages in them, each counted with what it costs in memory. Default 256 MiB. Full:
    /// ERROR, and the connection is closed.
    pub transaction_bytes_max: u64,
    /// Bytes encoded and waiting for one connection's socket. Default 2 MiB: one round trip of a
    /// fast link. Full: its subscriptions are parked and messages stay in their queues.
    pub outbox_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            default_user: Some("guest".into()),
            default_pass: "guest".into(),
            default_vhost: "/".into(),
            host_fallback: true,
            login_optional: true,
            populate_user_id: false,
            implicit_connect: false,
            default_topic_exchange: "amq.topic".into(),
            default_nack_requeue: true,
            hide_server_info: false,
            trailing_lf: true,
            login_timeout_ms: 10_000,
            heartbeat_grace_percent: 200,
            pre_login_frame_max: 64 << 10,
            head_bytes_max: 64 << 10,
            headers_count_max: 2048,
            subscriptions_max: 65_536,
            unsettled_max: 1_000_000,
            unanswered_max: 100_000,
            transactions_max: 1024,
            transaction_frames_max: 100_000,
            transaction_bytes_max: 256 << 20,
            outbox_bytes_max: 2 << 20,
        }
    }
}

/// Whose STOMP is spoken: brokers disagree on destinations, errors and more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// RabbitMQ's plugin, 3.10.
    #[default]
    Rabbitmq,
    /// ActiveMQ, 5.17.
    Activemq,
}

impl Dialect {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Rabbitmq, Self::Activemq];

    /// Its name in the settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rabbitmq => "rabbitmq",
            Self::Activemq => "activemq",
        }
    }

    /// The one of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dialect| dialect.name() == name)
    }
}
