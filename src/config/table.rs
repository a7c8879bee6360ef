//! Every setting: its key, what it may be, why its default is what it is, and the field it fills.
//!
//! This table is the one list of settings. The loader, `tern config check` and the suggestions for
//! misspelt names all read it; a test of the source tree holds every field of an `Options` to a row.

use std::net::IpAddr;
use std::path::PathBuf;

use super::Settings;
use super::fields::{
    RABBITMQ_HASHING, access_keys, account, accounts, bind, bytes_or, cert_url, declared, dialect, hashing, heartbeat,
    is_on, limit, list, listeners, log_level, mail_address, mechanisms, mode, node_name, on_or_off, optional, or_off,
    path_or_off, pattern, queue_type, ranges, read_with, relay_url, share, show_declared, show_listeners,
    show_stomp_listeners, show_with, stomp_listeners, webhook_url,
};
use super::value::{Off, Parsed, Rule, Unit};
use crate::protocol::amqp::options::FRAME_MAX_MIN;
use crate::server::options::{AWS_PORT, Cidr, LogFormat, STOMP_PORT, WEB_STOMP_PORT, WebFrame};
use crate::store::options::Sync;

/// One setting.
pub(super) struct Setting {
    /// `section.name`, as in the file; `TERN_SECTION_NAME` in the environment.
    pub(super) key: &'static str,
    pub(super) rule: Rule,
    /// One line: what it does and why the default is good.
    pub(super) reason: &'static str,
    /// Puts a parsed value into its field; an error says what else would have been allowed.
    pub(super) write: fn(&mut Settings, Parsed) -> Result<(), String>,
    /// The field as a person would write it.
    pub(super) show: fn(&Settings) -> String,
}

impl Setting {
    /// Whether the value must not be printed.
    pub(super) fn is_secret(&self) -> bool {
        // Addresses may have a password in them.
        const SECRETS: [&str; 3] = ["aws.access_keys", "aws.delivery_webhook", "aws.smtp_relay"];
        self.key.ends_with("_pass") || SECRETS.contains(&self.key)
    }

    /// Whether the environment may name a file that holds the value.
    pub(super) fn may_come_from_a_file(&self) -> bool {
        self.is_secret() || self.key == "broker.default_user"
    }
}

/// The row of a key.
pub(super) fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// A row whose field takes the parsed value by one expression.
macro_rules! row {
    ($key:literal, $rule:expr, $reason:literal, $($field:ident).+ = $read:expr, $show:expr) => {
        Setting {
            key: $key,
            rule: $rule,
            reason: $reason,
            write: |settings, parsed| {
                settings.$($field).+ = read_with(parsed, $read);
                Ok(())
            },
            show: |settings| show_with(&settings.$($field).+, $show),
        }
    };
    ($key:literal, $rule:expr, $reason:literal, $($field:ident).+ ? $read:expr, $show:expr) => {
        Setting {
            key: $key,
            rule: $rule,
            reason: $reason,
            write: |settings, parsed| {
                settings.$($field).+ = read_with(parsed, $read)?;
                Ok(())
            },
            show: |settings| show_with(&settings.$($field).+, $show),
        }
    };
}

const fn bytes(min: u64, max: u64) -> Rule {
    Rule::Number { min, max, unit: Unit::Bytes, off: Off::Never }
}

const fn millis(min: u64, max: u64) -> Rule {
    Rule::Number { min, max, unit: Unit::Millis, off: Off::Never }
}

const fn count(min: u64, max: u64) -> Rule {
    Rule::Number { min, max, unit: Unit::Count, off: Off::Never }
}

const fn count_or(off: Off) -> Rule {
    Rule::Number { min: 1, max: u64::MAX, unit: Unit::Count, off }
}

/// A port that may be none.
const fn port_or_off() -> Rule {
    Rule::Number { min: 0, max: 65535, unit: Unit::Count, off: Off::Word }
}

/// Something that is or is not.
const SWITCH: Rule = Rule::OneOf(&["on", "off", "true", "false"]);

const HOUR_MS: u64 = 3_600_000;
const PATTERN: Rule = Rule::Checked("a regular expression");

/// All settings, by section, each section in the order of its `Options`.
pub(super) const SETTINGS: &[Setting] = &[
    row!("broker.node_name", Rule::Checked("a name, or name@host"),
        "Name of this node in listings and for the control tool; default tern@ and the host's name.",
        broker.node_name ? node_name, String::clone),
    row!(
        "broker.cluster_name",
        Rule::Text,
        "Name of the installation, told to clients; default the node's name.",
        broker.cluster_name = Parsed::text,
        String::clone
    ),
    row!(
        "broker.default_vhost",
        Rule::Text,
        "Virtual host made at the first start.",
        broker.default_vhost = Parsed::text,
        String::clone
    ),
    row!(
        "broker.default_user",
        Rule::Text,
        "User made at the first start; every client library presumes guest.",
        broker.default_user = Parsed::text,
        String::clone
    ),
    row!(
        "broker.default_pass",
        Rule::Text,
        "Password of the first user; guest is harmless only while guest is a loopback user.",
        broker.default_pass = Parsed::text,
        String::clone
    ),
    row!(
        "broker.default_user_tags",
        Rule::List("tags"),
        "Tags of the first user; somebody must be able to administer.",
        broker.default_user_tags = Parsed::list,
        |items| list(items)
    ),
    row!("broker.default_permissions_configure", PATTERN,
        "Names that the first user may configure.",
        broker.default_permissions_configure ? pattern, String::clone),
    row!("broker.default_permissions_write", PATTERN,
        "Names that the first user may write to.",
        broker.default_permissions_write ? pattern, String::clone),
    row!("broker.default_permissions_read", PATTERN,
        "Names that the first user may read from.",
        broker.default_permissions_read ? pattern, String::clone),
    row!(
        "broker.loopback_users",
        Rule::List("user names"),
        "Users that may log in from loopback only; a well-known password must not work from elsewhere.",
        broker.loopback_users = Parsed::list,
        |items| list(items)
    ),
    row!(
        "broker.password_hashing",
        Rule::OneOf(&["argon2id", "sha256", "sha512"]),
        "How passwords are stored, old ones from their next login; sha256 where RabbitMQ is to import them.",
        broker.password_hashing = hashing,
        |algorithm| algorithm.as_str().trim_start_matches(RABBITMQ_HASHING).into()
    ),
    row!(
        "broker.default_queue_type",
        Rule::OneOf(&["classic", "quorum", "stream"]),
        "Queue type of a declaration that names none.",
        broker.default_queue_type = queue_type,
        |kind| kind.as_str().into()
    ),
    row!(
        "broker.max_message_bytes",
        bytes(1, 512 << 20),
        "Largest message body; a larger one is refused.",
        broker.max_message_bytes = Parsed::number,
        |bytes| Unit::Bytes.show(*bytes)
    ),
    row!(
        "broker.memory_high_watermark",
        Rule::Share { relative_max: 1.0 },
        "Resident memory at which publishers stop being read; leaves room for a copy of everything.",
        broker.memory_high_watermark = Parsed::share,
        share
    ),
    row!(
        "broker.disk_free_limit",
        Rule::Share { relative_max: 100.0 },
        "Free disk space below which publishers stop being read.",
        broker.disk_free_limit = Parsed::share,
        share
    ),
    row!(
        "broker.consumer_timeout_ms",
        Rule::Number { min: 1000, max: 365 * 24 * HOUR_MS, unit: Unit::Millis, off: Off::Word },
        "How long a delivery may stay unsettled before its channel is closed; long tasks are ordinary, so off.",
        broker.consumer_timeout_ms = Parsed::optional,
        |ms| optional(ms, Off::Word)
    ),
    row!(
        "broker.delivery_limit",
        count_or(Off::Word),
        "Deliveries of one message where the queue sets no limit; no message vanishes unasked, so off.",
        broker.delivery_limit = Parsed::optional,
        |limit| optional(limit, Off::Word)
    ),
    row!(
        "broker.vhosts_count_max",
        count_or(Off::Unlimited),
        "Virtual hosts in all; full: a further one is refused.",
        broker.vhosts_count_max = Parsed::count,
        limit
    ),
    row!(
        "broker.queues_count_max",
        count_or(Off::Unlimited),
        "Queues in all virtual hosts; full: a further declaration is refused.",
        broker.queues_count_max = Parsed::count,
        limit
    ),
    row!(
        "broker.exchanges_count_max",
        count_or(Off::Unlimited),
        "Exchanges in all virtual hosts; full: a further declaration is refused.",
        broker.exchanges_count_max = Parsed::count,
        limit
    ),
    row!(
        "broker.connections_count_max",
        count_or(Off::Unlimited),
        "Open connections in all; the open-files limit bounds them anyway.",
        broker.connections_count_max = Parsed::count,
        limit
    ),
    row!(
        "broker.channels_count_max",
        count_or(Off::Unlimited),
        "Open channels of all connections; each connection has its own bound, amqp.channel_max.",
        broker.channels_count_max = Parsed::count,
        limit
    ),
    row!(
        "amqp.port",
        count(0, 65535),
        "Port of AMQP on each address of server.bind; 0 takes a free one.",
        server.amqp_port = Parsed::number,
        u16::to_string
    ),
    row!("amqp.listeners", Rule::List("addresses such as 127.0.0.1:5672"),
        "Addresses of AMQP instead of server.bind and amqp.port; \"none\" switches AMQP off.",
        server.amqp_listeners ? listeners, |addresses| show_listeners(addresses, "amqp")),
    row!(
        "amqp.frame_max",
        bytes(FRAME_MAX_MIN as u64, 16 << 20),
        "Largest frame offered to clients; RabbitMQ's, which they are tuned for.",
        amqp.frame_max = Parsed::number,
        |bytes| Unit::Bytes.show(u64::from(*bytes))
    ),
    row!(
        "amqp.channel_max",
        count(1, 65535),
        "Channels per connection offered to clients, as RabbitMQ; full: the connection is closed.",
        amqp.channel_max = Parsed::number,
        u16::to_string
    ),
    row!(
        "amqp.heartbeat_secs",
        Rule::Number { min: 0, max: 65535, unit: Unit::Secs, off: Off::Word },
        "Heartbeat offered to clients, as RabbitMQ; 0 or off proposes none.",
        amqp.heartbeat_secs = heartbeat,
        u16::to_string
    ),
    row!(
        "amqp.handshake_timeout_ms",
        millis(100, HOUR_MS),
        "From accept to the opened connection; then the socket is closed.",
        amqp.handshake_timeout_ms = Parsed::number,
        u64::to_string
    ),
    row!(
        "amqp.pre_login_frame_max",
        bytes(1024, 128 << 10),
        "Largest frame before the login; nobody has said yet who they are.",
        amqp.pre_login_frame_max = Parsed::number,
        |bytes| Unit::Bytes.show(u64::from(*bytes))
    ),
    row!(
        "amqp.start_ok_max",
        bytes(1024, 128 << 10),
        "Largest frame in which a client describes itself; some do so at length.",
        amqp.start_ok_max = Parsed::number,
        |bytes| Unit::Bytes.show(u64::from(*bytes))
    ),
    row!(
        "amqp.pending_handshakes_max",
        count(1, 1 << 20),
        "Connections not yet opened; enough for a fleet, little for a flood. Full: a further one is closed.",
        amqp.pending_handshakes_max = Parsed::number,
        usize::to_string
    ),
    row!(
        "amqp.product",
        Rule::Text,
        "Product told to clients; kombu and others choose behaviour by it.",
        amqp.product = Parsed::text,
        String::clone
    ),
    row!(
        "amqp.product_version",
        Rule::Text,
        "Product version told to clients; the last RabbitMQ with qos(global) on all queues.",
        amqp.product_version = Parsed::text,
        String::clone
    ),
    row!("amqp.mechanisms", Rule::List("PLAIN, AMQPLAIN, ANONYMOUS"),
        "Login mechanisms offered, in this order.",
        amqp.mechanisms ? mechanisms, |items| list(items)),
    row!(
        "amqp.anonymous_login_user",
        Rule::CheckedOrOff("a user name"),
        "User that an ANONYMOUS login becomes; off, because it asks for no password.",
        amqp.anonymous_login_user = Parsed::text_or_off,
        or_off
    ),
    row!(
        "amqp.consumers_per_channel_max",
        count_or(Off::Unlimited),
        "Consumers on one channel; full: the connection is closed.",
        amqp.consumers_per_channel_max = Parsed::count,
        limit
    ),
    row!(
        "amqp.unsettled_per_channel_max",
        count(1, u32::MAX as u64),
        "Unsettled deliveries of one channel, about 100 bytes each; full: credit is withheld.",
        amqp.unsettled_per_channel_max = Parsed::number,
        usize::to_string
    ),
    row!(
        "amqp.unconfirmed_per_channel_max",
        count(1, u32::MAX as u64),
        "Publishes of one channel that wait for their confirm; full: its connection is not read from.",
        amqp.unconfirmed_per_channel_max = Parsed::number,
        u64::to_string
    ),
    row!(
        "amqp.transaction_messages_max",
        count(1, u32::MAX as u64),
        "Messages published in one transaction; one more closes the channel with 406.",
        amqp.transaction_messages_max = Parsed::number,
        usize::to_string
    ),
    row!(
        "amqp.transaction_bytes_max",
        bytes(1 << 20, 1 << 40),
        "Bytes of the messages published in one transaction; more closes the channel with 406.",
        amqp.transaction_bytes_max = Parsed::number,
        |bytes| Unit::Bytes.show(*bytes)
    ),
    row!(
        "amqp.outbox_bytes_max",
        bytes(64 << 10, 1 << 30),
        "Bytes waiting for one connection's socket; full: its consumers pause, messages stay queued.",
        amqp.outbox_bytes_max = Parsed::number,
        |bytes| Unit::Bytes.show(*bytes as u64)
    ),
    row!(
        "stomp.port",
        count(0, 65535),
        "Port of STOMP on each address of server.bind; 0 takes a free one, as does no word of it where amqp.port = 0.",
        server.stomp_port = |parsed| Some(parsed.number()),
        |port| port.unwrap_or(STOMP_PORT).to_string()
    ),
    row!("stomp.listeners", Rule::List("addresses such as 127.0.0.1:61613 or 127.0.0.1:61614/activemq"),
        "Addresses of STOMP, with a dialect or that of stomp.dialect, instead of stomp.port; \"none\" is no STOMP.",
        server.stomp_listeners ? stomp_listeners, show_stomp_listeners),
    row!("stomp.dialect", Rule::OneOf(&["rabbitmq", "activemq"]),
        "Whose STOMP is spoken: destinations, errors and headers as its clients know them.",
        server.stomp_dialect ? dialect, |dialect| dialect.name().into()),
    row!(
        "stomp.activemq_port",
        port_or_off(),
        "Port on each address of server.bind where ActiveMQ's STOMP is spoken beside stomp.dialect; 0 takes a free one.",
        server.stomp_activemq_port = |parsed| match parsed {
            Parsed::Off => None,
            parsed => Some(parsed.number()),
        },
        |port| port.map_or("off".into(), |port| port.to_string())
    ),
    row!(
        "stomp.default_user",
        Rule::CheckedOrOff("a user name"),
        "User that a client is who sends no login, as RabbitMQ; off refuses such clients.",
        stomp.default_user = Parsed::text_or_off,
        or_off
    ),
    row!(
        "stomp.default_pass",
        Rule::Text,
        "Password of stomp.default_user.",
        stomp.default_pass = Parsed::text,
        String::clone
    ),
    row!(
        "stomp.default_vhost",
        Rule::Text,
        "Virtual host of clients that name none.",
        stomp.default_vhost = Parsed::text,
        String::clone
    ),
    row!(
        "stomp.host_fallback",
        SWITCH,
        "Whether a host header that names no virtual host means stomp.default_vhost; libraries send machine names.",
        stomp.host_fallback = is_on,
        on_or_off
    ),
    row!(
        "stomp.login_optional",
        SWITCH,
        "Whether clients of ActiveMQ's dialect on this machine are stomp.default_user without a login; others log in.",
        stomp.login_optional = is_on,
        on_or_off
    ),
    row!(
        "stomp.populate_user_id",
        SWITCH,
        "Whether messages sent in ActiveMQ's dialect say who has sent them, as JMSXUserID.",
        stomp.populate_user_id = is_on,
        on_or_off
    ),
    row!(
        "stomp.implicit_connect",
        SWITCH,
        "Whether a first frame other than CONNECT logs stomp.default_user in.",
        stomp.implicit_connect = is_on,
        on_or_off
    ),
    row!(
        "stomp.default_topic_exchange",
        Rule::Text,
        "Exchange behind /topic destinations.",
        stomp.default_topic_exchange = Parsed::text,
        String::clone
    ),
    row!(
        "stomp.default_nack_requeue",
        SWITCH,
        "Whether NACK puts a message back where it does not say; off drops or dead-letters it.",
        stomp.default_nack_requeue = is_on,
        on_or_off
    ),
    row!(
        "stomp.hide_server_info",
        SWITCH,
        "Whether CONNECTED keeps silent about product and version.",
        stomp.hide_server_info = is_on,
        on_or_off
    ),
    row!(
        "stomp.trailing_lf",
        SWITCH,
        "Whether a line end follows each frame, as clients of RabbitMQ know it.",
        stomp.trailing_lf = is_on,
        on_or_off
    ),
    row!(
        "stomp.login_timeout_ms",
        millis(100, HOUR_MS),
        "From accept to login; then the socket is closed.",
        stomp.login_timeout_ms = Parsed::number,
        u64::to_string
    ),
    row!(
        "stomp.heartbeat_grace_percent",
        count(100, 1000),
        "Share of its heart-beat after which a silent client is gone; a busy client may be late.",
        stomp.heartbeat_grace_percent = Parsed::number,
        u64::to_string
    ),
    row!(
        "stomp.pre_login_frame_max",
        bytes(1024, 1 << 20),
        "Largest frame before the login; nobody has said yet who they are.",
        stomp.pre_login_frame_max = Parsed::number,
        |bytes| Unit::Bytes.show(*bytes as u64)
    ),
    row!(
        "stomp.head_bytes_max",
        bytes(1024, 16 << 20),
        "Largest command with its headers; more is an error and closes the connection.",
        stomp.head_bytes_max = Parsed::number,
        |bytes| Unit::Bytes.show(*bytes as u64)
    ),
    row!(
        "stomp.headers_count_max",
        count(16, 4096),
        "Headers of one frame; more is an error and closes the connection.",
        stomp.headers_count_max = Parsed::number,
        usize::to_string
    ),
    row!(
        "stomp.subscriptions_max",
        count(1, 1 << 20),
        "Subscriptions of one connection; one more is an error and closes it.",
        stomp.subscriptions_max = Parsed::number,
        usize::to_string
    ),
    row!(
        "stomp.unsettled_max",
        count(1, u32::MAX as u64),
        "Unsettled deliveries of one connection, about 100 bytes each; full: credit is withheld.",
        stomp.unsettled_max = Parsed::number,
        usize::to_string
    ),
    row!(
        "stomp.unanswered_max",
        count(1, u32::MAX as u64),
        "Receipts of one connection that wait for the log; full: it is not read from.",
        stomp.unanswered_max = Parsed::number,
        usize::to_string
    ),
    row!(
        "stomp.transactions_max",
        count(1, 1 << 20),
        "Open transactions of one connection; one more is an error and closes it.",
        stomp.transactions_max = Parsed::number,
        usize::to_string
    ),
    row!(
        "stomp.transaction_frames_max",
        count(1, u32::MAX as u64),
        "Frames in the open transactions of one connection; one more is an error and closes it.",
        stomp.transaction_frames_max = Parsed::number,
        usize::to_string
    ),
    row!(
        "stomp.transaction_bytes_max",
        bytes(1 << 20, 1 << 40),
        "Bytes of the messages in them; more is an error and closes the connection.",
        stomp.transaction_bytes_max = Parsed::number,
        |bytes| Unit::Bytes.show(*bytes)
    ),
    row!(
        "stomp.outbox_bytes_max",
        bytes(64 << 10, 1 << 30),
        "Bytes waiting for one connection's socket; full: its subscriptions pause, messages stay queued.",
        stomp.outbox_bytes_max = Parsed::number,
        |bytes| Unit::Bytes.show(*bytes as u64)
    ),
    row!(
        "web_stomp.port",
        count(0, 65535),
        "Port of STOMP over WebSocket on each address of server.bind; 0 takes a free one, as where amqp.port = 0.",
        server.web_stomp_port = |parsed| Some(parsed.number()),
        |port| port.unwrap_or(WEB_STOMP_PORT).to_string()
    ),
    row!("web_stomp.listeners", Rule::List("addresses such as 127.0.0.1:15674"),
        "Addresses of STOMP over WebSocket instead of server.bind and web_stomp.port; \"none\" switches it off.",
        server.web_stomp_listeners ? listeners, |addresses| show_listeners(addresses, "web_stomp")),
    row!(
        "web_stomp.ws_path",
        Rule::Text,
        "Path of the requests that ask for STOMP over WebSocket.",
        server.web_stomp_path = Parsed::text,
        String::clone
    ),
    row!(
        "web_stomp.origins",
        Rule::List("origins such as https://app.example.com, or *"),
        "Pages that may connect; without a list those of this machine over loopback, and any over the network.",
        server.web_stomp_origins = Parsed::list,
        |items| list(items)
    ),
    row!(
        "web_stomp.ws_frame",
        Rule::OneOf(&["text", "binary"]),
        "What STOMP's frames are sent as over a WebSocket; clients may send either.",
        server.web_stomp_frame = |parsed| if parsed.text() == "binary" { WebFrame::Binary } else { WebFrame::Text },
        |frame| frame.name().into()
    ),
    row!(
        "web_stomp.message_bytes_max",
        bytes(64 << 10, 1 << 30),
        "Largest message of a WebSocket; a frame of STOMP that is larger comes in several.",
        server.web_stomp_message_bytes_max = Parsed::number,
        |bytes| Unit::Bytes.show(*bytes as u64)
    ),
    row!(
        "aws.port",
        count(0, 65535),
        "Port of SQS and SNS on each address of server.bind; 0 takes a free one, as where amqp.port = 0.",
        server.aws_port = |parsed| Some(parsed.number()),
        |port| port.unwrap_or(AWS_PORT).to_string()
    ),
    row!(
        "aws.second_port",
        port_or_off(),
        "A second port of SQS and SNS on each address of server.bind; 4566 is where many test setups look.",
        server.aws_second_port = |parsed| match parsed {
            Parsed::Off => None,
            parsed => Some(parsed.number()),
        },
        |port| port.map_or("off".into(), |port| port.to_string())
    ),
    row!("aws.listeners", Rule::List("addresses such as 127.0.0.1:9324"),
        "Addresses of SQS and SNS instead of server.bind and aws.port; \"none\" switches them off.",
        server.aws_listeners ? listeners, |addresses| show_listeners(addresses, "aws")),
    row!(
        "aws.development",
        Rule::OneOf(&["auto", "on", "off"]),
        "Whether calls from this machine need no known key; auto: while nothing but loopback is listened on.",
        aws.development = |parsed| match parsed.text().as_str() {
            "on" => Some(true),
            "off" => Some(false),
            _ => None,
        },
        |mode| mode.map_or("auto", |is_on| if is_on { "on" } else { "off" }).into()
    ),
    row!("aws.account", Rule::Checked("twelve digits"),
        "Account in ARNs and addresses of queues of aws.vhost; emulators have this one.",
        aws.account ? account, String::clone),
    row!("aws.vhost", Rule::Text, "Virtual host of aws.account.", aws.vhost = Parsed::text, String::clone),
    row!("aws.accounts", Rule::List("accounts such as 111111111111=vhost"),
    "Further accounts and their virtual hosts.",
    aws.accounts ? accounts, |all| {
        list(&all.iter().map(|(account, vhost)| format!("{account}={vhost}")).collect::<Vec<_>>())
    }),
    row!(
        "aws.region",
        Rule::Text,
        "Region in ARNs where a request names none; answers are in the region that was signed for.",
        aws.region = Parsed::text,
        String::clone
    ),
    row!("aws.access_keys", Rule::List("keys such as ID:SECRET:USER"),
    "Access keys of users; tern ctl add_access_key makes others.",
    aws.access_keys ? access_keys, |keys| {
        list(&keys.iter().map(|key| format!("{}:{}:{}", key.id, key.secret, key.user)).collect::<Vec<_>>())
    }),
    row!(
        "aws.clock_skew_secs",
        Rule::Number { min: 1, max: 86_400, unit: Unit::Secs, off: Off::Never },
        "How far the time of a signature may be from ours, as AWS.",
        aws.clock_skew_secs = Parsed::number,
        u64::to_string
    ),
    row!(
        "aws.origins",
        Rule::List("origins such as https://app.example.com, or *"),
        "Pages that may call; without a list those of this machine over loopback, and any over the network.",
        aws.origins = Parsed::list,
        |items| list(items)
    ),
    row!(
        "aws.queues",
        Rule::List("queues such as \"orders VisibilityTimeout=60\""),
        "Queues that are made at the start where they are not there, with attributes as CreateQueue has them.",
        aws.queues? | parsed | declared(parsed, 1),
        |items| show_declared(items)
    ),
    row!(
        "aws.topics",
        Rule::List("topics such as \"events DisplayName=x\""),
        "Topics that are made at the start where they are not there, with attributes as CreateTopic has them.",
        aws.topics? | parsed | declared(parsed, 1),
        |items| show_declared(items)
    ),
    row!(
        "aws.subscriptions",
        Rule::List("subscriptions such as \"events sqs orders RawMessageDelivery=true\""),
        "Subscriptions that are made at the start: topic, protocol and endpoint, with attributes as Subscribe has them.",
        aws.subscriptions? | parsed | declared(parsed, 3),
        |items| show_declared(items)
    ),
    row!(
        "aws.connections_count_max",
        count(1, 1 << 20),
        "Open connections of SQS and SNS; full: a further one is closed at once.",
        aws.connections_count_max = Parsed::number,
        usize::to_string
    ),
    row!(
        "aws.idle_timeout_ms",
        millis(1000, HOUR_MS),
        "How long a connection may stay without a request, how long the head of one and, up to 30 s, its body may take, \
         and how long answers may stay unread.",
        aws.idle_timeout_ms = Parsed::number,
        u64::to_string
    ),
    row!(
        "aws.body_bytes_max",
        bytes(2 << 20, 64 << 20),
        "Largest body of a request; 1 MiB of message is up to three times as long when it is escaped.",
        aws.body_bytes_max = Parsed::number,
        |bytes| Unit::Bytes.show(*bytes as u64)
    ),
    row!(
        "aws.signing_cert_url",
        Rule::Checked("an address such as https://sns.example.com, or none"),
        "What addresses of the certificate for notifications begin with; none: how clients reach this broker.",
        aws.signing_cert_url? cert_url,
        |url| if url.is_empty() { "none".into() } else { url.clone() }
    ),
    row!(
        "aws.delivery_webhook",
        Rule::Checked("an address such as https://push.example.com/sns, or none"),
        "Where what is for sms, email, lambda, firehose and mobile push is posted as JSON; none: it waits in the outbox.",
        aws.delivery_webhook? webhook_url,
        |url| if url.is_empty() { "none".into() } else { url.clone() }
    ),
    row!(
        "aws.smtp_relay",
        Rule::Checked("an address such as smtp://user:password@relay:587?tls=required, or none"),
        "The relay that takes mails for email and email-json; none: they go to the webhook, or wait in the outbox.",
        aws.smtp_relay? relay_url,
        |url| if url.is_empty() { "none".into() } else { url.clone() }
    ),
    row!(
        "aws.smtp_from",
        Rule::Checked("a mail address"),
        "Whom mails are from; relays refuse an address that is not theirs.",
        aws.smtp_from? mail_address,
        |address| address.clone()
    ),
    row!(
        "aws.delivery_retry_min_ms",
        millis(1, HOUR_MS),
        "Time before the first retry of what webhook or relay did not take, and up to sixty times that later; as AWS.",
        aws.delivery_retry_min_ms = Parsed::number,
        u64::to_string
    ),
    row!(
        "aws.trusted_ca_file",
        Rule::CheckedOrOff("a path"),
        "Certificates in PEM by which HTTPS endpoints of topics are trusted beside those that the machine trusts.",
        aws.trusted_ca_file = |parsed| parsed.text_or_off().map(PathBuf::from),
        path_or_off
    ),
    row!(
        "aws.reset",
        SWITCH,
        "Whether POST /_tern/reset deletes every queue, topic and user, for test suites; never in production.",
        aws.reset = is_on,
        on_or_off
    ),
    row!(
        "aws.queue_deleted_recently",
        SWITCH,
        "Whether a name stays taken for a minute after its queue was deleted over SQS, as with AWS; off, for test suites.",
        aws.queue_deleted_recently = is_on,
        on_or_off
    ),
    row!("server.bind", Rule::List("IP addresses, \"localhost\" or \"*\""),
        "Addresses that listeners bind; loopback, so nothing is reachable before somebody asks for it.",
        server.bind ? bind, |ips| ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",")),
    row!("server.proxy_protocol_trusted", Rule::List("address ranges such as 10.0.0.0/8"),
    "Peers whose connections begin with a PROXY header; such a peer chooses the address we believe.",
    server.proxy_protocol_trusted ? ranges, |ranges| {
        if ranges.is_empty() { "none".into() } else { ranges.iter().map(Cidr::to_string).collect::<Vec<_>>().join(",") }
    }),
    row!(
        "server.data_dir",
        Rule::Checked("a path"),
        "Directory of the data and of the control socket.",
        server.data_dir = |parsed| PathBuf::from(parsed.text()),
        |path| path.display().to_string()
    ),
    row!("server.control_socket_mode", Rule::Number { min: 0o600, max: 0o777, unit: Unit::Mode, off: Off::Never },
        "Permissions of the control socket; its group administers the broker.",
        server.control_socket_mode ? mode, |mode| Unit::Mode.show(u64::from(*mode))),
    row!(
        "server.ports_file",
        Rule::CheckedOrOff("a path"),
        "File that gets the ports really bound, as JSON; for tests with port 0.",
        server.ports_file = |parsed| parsed.text_or_off().map(PathBuf::from),
        path_or_off
    ),
    row!(
        "server.definitions_file",
        Rule::CheckedOrOff("a path"),
        "Definitions in RabbitMQ's JSON format, imported at each start.",
        server.definitions_file = |parsed| parsed.text_or_off().map(PathBuf::from),
        path_or_off
    ),
    row!(
        "server.worker_threads",
        Rule::Number { min: 1, max: 1024, unit: Unit::Count, off: Off::Auto },
        "Threads that run connections; auto is one a core.",
        server.worker_threads = |parsed| parsed.optional().map(|count| count as usize),
        |threads| optional(&threads.map(|count| count as u64), Off::Auto)
    ),
    row!(
        "server.login_failure_delay_ms",
        millis(0, 60_000),
        "Wait before a failed login is answered; guessing stays slow, a typing error bearable.",
        server.login_failure_delay_ms = Parsed::number,
        u64::to_string
    ),
    row!(
        "server.tcp_keepalive_secs",
        Rule::Number { min: 0, max: 32_767, unit: Unit::Secs, off: Off::Word },
        "Silence after which the kernel asks a peer whether it is there; half-open peers without heartbeats go.",
        server.tcp_keepalive_secs = heartbeat,
        u16::to_string
    ),
    row!(
        "server.shutdown_drain_ms",
        millis(0, HOUR_MS),
        "What connections get to finish after SIGTERM; container runtimes kill after 10 to 30 s.",
        server.shutdown_drain_ms = Parsed::number,
        u64::to_string
    ),
    row!(
        "store.sync",
        Rule::OneOf(&["always", "os"]),
        "When a confirm may be sent: once the disk has synced; os loses confirmed messages in a power cut.",
        persistence.log.sync = |parsed| if parsed.text() == "os" { Sync::Os } else { Sync::Always },
        |sync| if *sync == Sync::Os { "os".into() } else { "always".into() }
    ),
    row!(
        "store.segment_bytes",
        bytes(1 << 20, 2 << 30),
        "Size of a file of the log; larger is fewer files, smaller frees disk sooner.",
        persistence.log.segment_bytes = Parsed::number,
        |bytes| Unit::Bytes.show(*bytes)
    ),
    row!(
        "store.batch_bytes_max",
        bytes(512 << 10, 16 << 20),
        "Longest write to the log; longer ones sync more rarely and need more memory.",
        persistence.log.batch_bytes_max = Parsed::number,
        |bytes| Unit::Bytes.show(*bytes as u64)
    ),
    row!(
        "store.unwritten_bytes_max",
        bytes(64 << 10, 1 << 30),
        "Bytes waiting for the disk; full: publishers are not read from until it has caught up.",
        persistence.log.unwritten_bytes_max = Parsed::number,
        |bytes| Unit::Bytes.show(*bytes)
    ),
    row!(
        "store.spare_segments_max",
        count(1, 1024),
        "Empty files kept for the log, with the reserve; full: a further one is removed.",
        persistence.log.spare_segments_max = Parsed::number,
        usize::to_string
    ),
    row!(
        "store.reserve_segments",
        count(1, 256),
        "Empty files kept for settles and definitions on a full disk, on which consumers go on.",
        persistence.log.reserve_segments = Parsed::number,
        usize::to_string
    ),
    row!(
        "store.free_bytes_min",
        bytes(0, 1 << 50),
        "Free disk space that publishes leave alone; for the index and for the rest of the system.",
        persistence.log.free_bytes_min = Parsed::number,
        |bytes| Unit::Bytes.show(*bytes)
    ),
    row!(
        "store.zero_bytes_per_sec",
        bytes(64 << 10, 1 << 40),
        "How fast files are made ready ahead of the log; unthrottled, it takes the disk from the log.",
        persistence.log.zero_bytes_per_sec = Parsed::number,
        |bytes| Unit::Bytes.show(*bytes)
    ),
    Setting {
        key: "store.scrub_bytes_per_sec",
        rule: Rule::Number { min: 1 << 10, max: 1 << 40, unit: Unit::Bytes, off: Off::Word },
        reason: "How fast the log, and as fast the index, are verified; finds damage while there still is a backup.",
        write: |settings, parsed| {
            let rate = parsed.optional().unwrap_or(0);
            settings.persistence.log.scrub_bytes_per_sec = rate;
            settings.persistence.index.scrub_bytes_per_sec = rate;
            Ok(())
        },
        show: |settings| bytes_or(settings.persistence.log.scrub_bytes_per_sec, Off::Word),
    },
    row!(
        "store.merge_bytes_per_sec",
        Rule::Number { min: 1 << 20, max: 1 << 40, unit: Unit::Bytes, off: Off::Unlimited },
        "How fast the index of cold messages merges its files; the rest of the disk is the log's.",
        persistence.index.merge_bytes_per_sec = |parsed| parsed.optional().unwrap_or(0),
        |bytes| bytes_or(*bytes, Off::Unlimited)
    ),
    row!(
        "store.checkpoint_bytes",
        bytes(64 << 10, 16 << 30),
        "Bytes of log after which a checkpoint is made; what follows the last one is replayed at start.",
        persistence.checkpoint_bytes = Parsed::number,
        |bytes| Unit::Bytes.show(*bytes)
    ),
    row!(
        "store.checkpoint_ms",
        millis(10, HOUR_MS),
        "Longest time between checkpoints while there is something to do; then the log can be freed.",
        persistence.checkpoint_ms = Parsed::number,
        u64::to_string
    ),
    row!(
        "store.queue_window_bytes",
        bytes(64 << 10, 1 << 40),
        "Bytes of bodies that one long queue or delaying exchange keeps in memory; the others are read when due.",
        persistence.queue_window_bytes = Parsed::number,
        |bytes| Unit::Bytes.show(*bytes)
    ),
    row!(
        "store.reclaim_slack_bytes",
        bytes(1 << 20, 1 << 40),
        "Bytes that the log may have beyond twice what is alive in it before sparse segments are emptied.",
        persistence.reclaim_slack_bytes = Parsed::number,
        |bytes| Unit::Bytes.show(*bytes)
    ),
    row!(
        "store.spill",
        Rule::OneOf(&["on", "off"]),
        "Whether messages of long queues that are in no log leave memory for files, which are removed at start.",
        persistence.spill = |parsed| parsed.text() == "on",
        |spill| if *spill { "on".into() } else { "off".into() }
    ),
    row!("log.level", Rule::Checked("off, error, warn, info, debug, trace, or directives such as info,ternmq::protocol=debug"),
        "What is logged.",
        server.log_level ? log_level, String::clone),
    row!(
        "log.format",
        Rule::OneOf(&["text", "json"]),
        "One line for people, or one JSON object a line.",
        server.log_format = |parsed| if parsed.text() == "json" { LogFormat::Json } else { LogFormat::Text },
        |format| if *format == LogFormat::Json { "json".into() } else { "text".into() }
    ),
];
