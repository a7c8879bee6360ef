//! Settings of the AMQP 0-9-1 sessions: what is negotiated, and what one peer may make us hold.
//!
//! `config::table` has one row for each field, with its key, bounds and reason.

/// Settings of AMQP sessions, shared by all connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Largest frame offered in connection.tune, in bytes. Default 131072 as RabbitMQ; at least
    /// [`FRAME_MAX_MIN`], which old clients still ask for.
    pub frame_max: u32,
    /// Channels per connection offered in connection.tune. Default 2047 as RabbitMQ. Full: the
    /// connection is closed with 530.
    pub channel_max: u16,
    /// Heartbeat offered in connection.tune, in seconds; zero proposes none. Default 60 as RabbitMQ.
    pub heartbeat_secs: u16,
    /// Milliseconds from accept to connection.open; then the socket is closed. Default 10,000.
    pub handshake_timeout_ms: u64,
    /// Largest frame before the login is done, in bytes. Default 4096: nobody has said yet who
    /// they are, and tables nested as deep as a frame allows must stay harmless.
    pub pre_login_frame_max: u32,
    /// Largest connection.start-ok frame, in bytes, the one exception: some clients describe
    /// themselves at length. Default 16384.
    pub start_ok_max: u32,
    /// Connections that may be between accept and connection.open at once. Default 1024: enough
    /// for a fleet that reconnects, little for a flood. Full: a further socket is closed at once.
    pub pending_handshakes_max: usize,
    /// Product told to clients. Default `RabbitMQ`: kombu and others choose behaviour by it.
    pub product: String,
    /// Product version told to clients. Default `3.13.7`: the last with `qos(global)` on all queues.
    pub product_version: String,
    /// Login mechanisms offered, in this order. Default PLAIN, AMQPLAIN.
    pub mechanisms: Vec<String>,
    /// User that the ANONYMOUS mechanism logs in as. Default off, and the mechanism not offered.
    pub anonymous_login_user: Option<String>,
    /// Consumers on one channel. Default 65,536. Full: the connection is closed with 530.
    pub consumers_per_channel_max: usize,
    /// Unsettled deliveries of one channel. Default 1,000,000 (about 100 MB of ledger). Full:
    /// credit is withheld, so its consumers get nothing more until they settle, and a single get
    /// that has to be settled closes the channel with 406.
    pub unsettled_per_channel_max: usize,
    /// Publishes of one channel that wait for their confirm. Default 100,000: more than any client
    /// has on its way by intention. Full: the connection is not read from until confirms flow.
    pub unconfirmed_per_channel_max: u64,
    /// Messages published in one transaction. Default 100,000. Full: the channel is closed with 406.
    pub transaction_messages_max: usize,
    /// Bytes of the messages published in one transaction, each counted with what it costs in
    /// memory. Default 256 MiB: the largest message twice. Full: the channel is closed with 406.
    pub transaction_bytes_max: u64,
    /// Bytes encoded and waiting for one connection's socket. Default 2 MiB: one round trip of a
    /// fast link. Full: its consumers are parked and messages stay in their queues.
    pub outbox_bytes_max: usize,
}

/// The least `frame_max` that the specification lets a peer ask for.
pub const FRAME_MAX_MIN: u32 = 4096;

impl Default for Options {
    fn default() -> Self {
        Self {
            frame_max: 131_072,
            channel_max: 2047,
            heartbeat_secs: 60,
            handshake_timeout_ms: 10_000,
            pre_login_frame_max: 4096,
            start_ok_max: 16_384,
            pending_handshakes_max: 1024,
            product: "RabbitMQ".into(),
            product_version: "3.13.7".into(),
            mechanisms: vec!["PLAIN".into(), "AMQPLAIN".into()],
            anonymous_login_user: None,
            consumers_per_channel_max: 65_536,
            unsettled_per_channel_max: 1_000_000,
            unconfirmed_per_channel_max: 100_000,
            transaction_messages_max: 100_000,
            transaction_bytes_max: 256 << 20,
            outbox_bytes_max: 2 << 20,
        }
    }
}
