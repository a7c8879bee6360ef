//! Settings of the process: where it listens, where its data lies, how it logs and stops.
//!
//! `config::table` has one row for each field, with its key, bounds and reason.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

pub use super::sns::{is_mail_address, is_mail_relay};
use crate::{protocol::stomp::options::Dialect, store};

/// Settings of the process around the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Addresses that every listener without addresses of its own binds. Default the two loopback
    /// addresses: nothing is reachable from outside before somebody asks for it.
    pub bind: Vec<IpAddr>,
    /// Port of AMQP on each address of `bind`; zero takes a free one. Default 5672.
    pub amqp_port: u16,
    /// Addresses of AMQP that replace `bind` and `amqp_port`; an empty list switches AMQP off.
    /// Default: not set.
    pub amqp_listeners: Option<Vec<SocketAddr>>,
    /// Port of STOMP on each address of `bind`; zero takes a free one. By default [`STOMP_PORT`], or a free
    /// one where AMQP has a free one; where others have that port, STOMP is off, and the log says so: the
    /// broker that a team moves away from may have it.
    pub stomp_port: Option<u16>,
    /// Addresses of STOMP that replace `bind` and `stomp_port`, each with its dialect where it is not
    /// `stomp_dialect`; an empty list switches STOMP off. Default: not set.
    pub stomp_listeners: Option<Vec<StompListener>>,
    /// Whose STOMP is spoken where a listener says nothing else. Default RabbitMQ's.
    pub stomp_dialect: Dialect,
    /// Port on each address of `bind` where ActiveMQ's STOMP is spoken beside the other; zero takes a free one.
    /// Default: none.
    pub stomp_activemq_port: Option<u16>,
    /// Port of STOMP over WebSocket on each address of `bind`; zero takes a free one. By default
    /// [`WEB_STOMP_PORT`], with exceptions as for `stomp_port`.
    pub web_stomp_port: Option<u16>,
    /// Addresses of STOMP over WebSocket that replace `bind` and `web_stomp_port`; an empty list switches it
    /// off. Default: not set.
    pub web_stomp_listeners: Option<Vec<SocketAddr>>,
    /// Path of the requests that ask for it. Default `/ws` as RabbitMQ.
    pub web_stomp_path: String,
    /// Origins of pages that may connect; `*` is any. Default none listed: over loopback pages of this machine,
    /// over the network any, as with RabbitMQ. What is no page says no origin and may always.
    pub web_stomp_origins: Vec<String>,
    /// What frames are sent as. Default text as RabbitMQ.
    pub web_stomp_frame: WebFrame,
    /// Largest message of a WebSocket that is taken, in bytes. Default 16 MiB; a frame may have several.
    pub web_stomp_message_bytes_max: usize,
    /// Port of SQS and SNS on each address of `bind`; zero takes a free one. By default [`AWS_PORT`], with exceptions
    /// as for `stomp_port`.
    pub aws_port: Option<u16>,
    /// A second port of SQS and SNS on each address of `bind`; 4566 is where LocalStack was. Default: none.
    pub aws_second_port: Option<u16>,
    /// Addresses of SQS and SNS that replace `bind` and `aws_port`; an empty list switches them off. Default: not set.
    pub aws_listeners: Option<Vec<SocketAddr>>,
    /// Peers whose connections begin with a PROXY protocol header. Default none: whoever may send
    /// one chooses the address that we believe, loopback included.
    pub proxy_protocol_trusted: Vec<Cidr>,
    /// Directory of the data and of the control socket. Default `./tern-data`.
    pub data_dir: PathBuf,
    /// Permission bits of the control socket. Default 0660: its group administers the broker.
    pub control_socket_mode: u32,
    /// File that gets the ports really bound, as JSON, once all listen. Default: none is written.
    pub ports_file: Option<PathBuf>,
    /// Definitions (JSON in RabbitMQ's format) imported at each start. Default: none.
    pub definitions_file: Option<PathBuf>,
    /// What is logged: a level, or directives such as `info,ternmq::protocol=debug`. Default `info`.
    pub log_level: String,
    /// How log lines look. Default text.
    pub log_format: LogFormat,
    /// Threads that run connections. Default: one a core.
    pub worker_threads: Option<usize>,
    /// Milliseconds before a failed login is answered. Default 1000: guessing stays slow, a typing
    /// error stays bearable.
    pub login_failure_delay_ms: u64,
    /// Seconds of silence after which the kernel asks a peer whether it is still there; zero asks
    /// nobody. Default 120: a peer without heartbeats that lost its network is gone in four minutes.
    pub tcp_keepalive_secs: u16,
    /// Milliseconds that connections get to finish after SIGTERM. Default 10,000: container
    /// runtimes kill after 10 to 30 s.
    pub shutdown_drain_ms: u64,
}

/// Where STOMP listens, and its dialect there if it is another than elsewhere.
pub type StompListener = (SocketAddr, Option<Dialect>);

/// Settings of what the broker keeps on the disk: the log, the index of cold messages, and when a
/// checkpoint brings one to the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// For the log.
    pub log: store::Options,
    /// For the index.
    pub index: store::index::Options,
    /// Bytes of log after which a checkpoint is made. More writes less; less is replayed sooner at
    /// start, and frees disk sooner. Default 32 MiB.
    pub checkpoint_bytes: u64,
    /// Longest time in milliseconds between checkpoints while there is something to do. Default
    /// 10,000.
    pub checkpoint_ms: u64,
    /// Bytes of bodies that one long queue, or exchange that delays, keeps in memory beside what has not been
    /// checkpointed.
    /// Default 8 MiB.
    pub queue_window_bytes: u64,
    /// Bytes that the log may have beyond twice what is alive in it; then sparse segments are emptied.
    /// Less copies messages more often: beside a stream with 40 % of the traffic, 22 % of what was written
    /// was moved at 128 MiB, and 9 % at 448 MiB. Default 448 MiB. What is written while messages are being
    /// moved, and spare segments, come on top.
    pub reclaim_slack_bytes: u64,
    /// Whether messages of long queues that are in no log leave memory for files that are removed at
    /// start. Without it the memory alarm is all there is. Default true.
    pub spill: bool,
}

impl Default for Persistence {
    fn default() -> Self {
        Self {
            log: store::Options::default(),
            index: store::index::Options::default(),
            checkpoint_bytes: 32 << 20,
            checkpoint_ms: 10_000,
            queue_window_bytes: 8 << 20,
            reclaim_slack_bytes: 448 << 20,
            spill: true,
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            bind: vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)],
            amqp_port: 5672,
            amqp_listeners: None,
            stomp_port: None,
            stomp_listeners: None,
            stomp_dialect: Dialect::default(),
            stomp_activemq_port: None,
            web_stomp_port: None,
            web_stomp_listeners: None,
            web_stomp_path: "/ws".into(),
            web_stomp_origins: Vec::new(),
            web_stomp_frame: WebFrame::default(),
            web_stomp_message_bytes_max: 16 << 20,
            aws_port: None,
            aws_second_port: None,
            aws_listeners: None,
            proxy_protocol_trusted: Vec::new(),
            data_dir: PathBuf::from("./tern-data"),
            control_socket_mode: 0o660,
            ports_file: None,
            definitions_file: None,
            log_level: "info".into(),
            log_format: LogFormat::Text,
            worker_threads: None,
            login_failure_delay_ms: 1000,
            tcp_keepalive_secs: 120,
            shutdown_drain_ms: 10_000,
        }
    }
}

impl Options {
    /// Where AMQP listens.
    pub fn amqp(&self) -> Vec<Listener> {
        self.listeners_of(Protocol::Amqp, self.amqp_listeners.clone(), self.amqp_port)
    }

    /// Where STOMP listens.
    pub fn stomp(&self) -> Vec<Listener> {
        let protocol = Protocol::Stomp(self.stomp_dialect);
        let listed = |listeners: &Vec<StompListener>| listeners.iter().map(|(addr, _)| *addr).collect();
        let addresses = self.stomp_listeners.as_ref().map(listed);
        let mut listeners = self.listeners_beside(protocol, addresses, self.stomp_port, STOMP_PORT);
        for (listener, (_, dialect)) in listeners.iter_mut().zip(self.stomp_listeners.iter().flatten()) {
            listener.protocol = Protocol::Stomp(dialect.unwrap_or(self.stomp_dialect));
        }
        if let Some(port) = self.stomp_activemq_port {
            listeners.extend(self.listeners_of(Protocol::Stomp(Dialect::Activemq), None, port));
        }
        listeners
    }

    /// Where STOMP over WebSocket listens.
    pub fn web_stomp(&self) -> Vec<Listener> {
        let listed = self.web_stomp_listeners.clone();
        self.listeners_beside(Protocol::WebStomp, listed, self.web_stomp_port, WEB_STOMP_PORT)
    }

    /// Where SQS and SNS listen.
    pub fn aws(&self) -> Vec<Listener> {
        let mut listeners = self.listeners_beside(Protocol::Aws, self.aws_listeners.clone(), self.aws_port, AWS_PORT);
        if let Some(port) = self.aws_second_port {
            listeners.extend(self.listeners_of(Protocol::Aws, None, port));
        }
        listeners
    }

    /// Listeners of a protocol that has to be asked for, or find its port free.
    fn listeners_beside(
        &self,
        protocol: Protocol,
        listed: Option<Vec<SocketAddr>>,
        asked: Option<u16>,
        default: u16,
    ) -> Vec<Listener> {
        let port = match asked {
            Some(port) => port,
            // Whoever wants any port wants to run beside others.
            None if self.amqp_port == 0 && self.amqp_listeners.is_none() => 0,
            None => default,
        };
        let is_default = asked.is_none() && listed.is_none();
        let mut listeners = self.listeners_of(protocol, listed, port);
        listeners.iter_mut().for_each(|listener| listener.is_default = is_default);
        listeners
    }

    /// Where anything listens.
    pub fn listeners(&self) -> Vec<Listener> {
        let mut all = self.amqp();
        all.extend(self.stomp());
        all.extend(self.web_stomp());
        all.extend(self.aws());
        all
    }

    fn listeners_of(&self, protocol: Protocol, listed: Option<Vec<SocketAddr>>, port: u16) -> Vec<Listener> {
        let addresses =
            listed.unwrap_or_else(|| self.bind.iter().map(|ip| SocketAddr::new(*ip, port)).collect::<Vec<_>>());
        let has_v4_twin = |addr: &SocketAddr| {
            let twin = if addr.ip().is_loopback() { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
            addresses.contains(&SocketAddr::new(twin.into(), addr.port()))
        };
        let is_general = |ip: IpAddr| ip == Ipv6Addr::LOCALHOST || ip == Ipv6Addr::UNSPECIFIED;
        addresses
            .iter()
            .map(|addr| Listener {
                protocol,
                addr: *addr,
                is_required: !(is_general(addr.ip()) && has_v4_twin(addr)),
                is_default: false,
            })
            .collect()
    }

    /// The socket by which `tern ctl` reaches this broker.
    pub fn control_socket(&self) -> PathBuf {
        self.data_dir.join("control.sock")
    }

    /// Whether a connection from `peer` must begin with a PROXY protocol header.
    pub fn is_trusted_proxy(&self, peer: IpAddr) -> bool {
        self.proxy_protocol_trusted.iter().any(|range| range.contains(peer))
    }
}

/// What is spoken at a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// AMQP 0-9-1.
    Amqp,
    /// STOMP of that dialect.
    Stomp(Dialect),
    /// STOMP over WebSocket.
    WebStomp,
    /// SQS and SNS over HTTP.
    Aws,
}

impl Protocol {
    /// Its name in listings, as RabbitMQ has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amqp => "amqp",
            Self::Stomp(Dialect::Rabbitmq) => "stomp",
            Self::Stomp(Dialect::Activemq) => "stomp/activemq",
            Self::WebStomp => "http/web-stomp",
            Self::Aws => "http/aws",
        }
    }

    /// The section of its settings, and its name in the ports file.
    pub fn section(self) -> &'static str {
        match self {
            Self::WebStomp => "web_stomp",
            Self::Aws => "aws",
            Self::Amqp | Self::Stomp(_) => self.name(),
        }
    }

    /// Its name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Amqp => "AMQP 0-9-1",
            Self::Stomp(Dialect::Rabbitmq) => "STOMP",
            Self::Stomp(Dialect::Activemq) => "STOMP as of ActiveMQ",
            Self::WebStomp => "STOMP over WebSockets",
            Self::Aws => "SQS and SNS over HTTP",
        }
    }
}

/// The port of STOMP, by default.
pub const STOMP_PORT: u16 = 61613;

/// The port of STOMP over WebSocket, by default.
pub const WEB_STOMP_PORT: u16 = 15674;

/// The port of SQS and SNS, by default.
pub const AWS_PORT: u16 = 9324;

/// What frames of STOMP are sent as over a WebSocket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WebFrame {
    /// Text, unless they are not UTF-8.
    #[default]
    Text,
    /// Binary.
    Binary,
}

impl WebFrame {
    /// Its name in the settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Binary => "binary",
        }
    }
}

/// One address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// What is spoken there.
    pub protocol: Protocol,
    /// Address and port; port zero takes a free one.
    pub addr: SocketAddr,
    /// Whether the start fails when this address cannot be bound. `[::1]` beside `127.0.0.1`, and
    /// `[::]` beside `0.0.0.0`, are not: the machine may have no IPv6, or one socket may have both.
    pub is_required: bool,
    /// Nobody has asked for it: where another process has the port, this protocol is off.
    pub is_default: bool,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A range of IP addresses, `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    network: IpAddr,
    prefix_bits: u8,
}

impl Cidr {
    /// Whether `ip` lies in this range. An IPv4 address is recognised in its IPv6-mapped form.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.network, ip.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix_bits)).unwrap_or(0);
                network.to_bits() & mask == ip.to_bits() & mask
            }
            (IpAddr::V6(network), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix_bits)).unwrap_or(0);
                network.to_bits() & mask == ip.to_bits() & mask
            }
            _ => false,
        }
    }
}

impl FromStr for Cidr {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (ip, bits) = match text.split_once('/') {
            Some((ip, bits)) => (ip, Some(bits)),
            None => (text, None),
        };
        let network: IpAddr = ip.parse().map_err(drop)?;
        let bits_max = if network.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match bits {
            Some(bits) => bits.parse().map_err(drop)?,
            None => bits_max,
        };
        if prefix_bits > bits_max { Err(()) } else { Ok(Self { network, prefix_bits }) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn range_holds_what_shares_its_prefix() {
        let range: Cidr = "10.1.0.0/16".parse().unwrap();
        assert!(range.contains(ip("10.1.255.3")));
        assert!(range.contains(ip("::ffff:10.1.2.3")));
        assert!(!range.contains(ip("10.2.0.1")));
        assert!(!range.contains(ip("::1")));
        let all: Cidr = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains(ip("203.0.113.9")));
        let one: Cidr = "fd00::1".parse().unwrap();
        assert!(one.contains(ip("fd00::1")) && !one.contains(ip("fd00::2")));
    }

    #[test]
    fn range_with_too_many_bits_is_refused() {
        assert!("10.0.0.0/33".parse::<Cidr>().is_err());
        assert!("fd00::/129".parse::<Cidr>().is_err());
        assert!("10.0.0.0/-1".parse::<Cidr>().is_err());
        assert!("host/8".parse::<Cidr>().is_err());
    }

    #[test]
    fn v6_loopback_is_optional_only_beside_v4() {
        let options = Options::default();
        let required: Vec<_> = options.amqp().iter().map(|l| (l.addr.to_string(), l.is_required)).collect();
        assert_eq!(required, [("127.0.0.1:5672".to_owned(), true), ("[::1]:5672".to_owned(), false)]);
        let alone = Options { bind: vec![Ipv6Addr::LOCALHOST.into()], ..Options::default() };
        assert!(alone.amqp()[0].is_required);
    }

    #[test]
    fn listed_addresses_replace_bind_and_port() {
        let listed = vec!["192.0.2.1:5673".parse().unwrap()];
        let options = Options { amqp_listeners: Some(listed.clone()), ..Options::default() };
        assert_eq!(
            options.amqp(),
            [Listener { protocol: Protocol::Amqp, addr: listed[0], is_required: true, is_default: false }]
        );
        assert!(Options { amqp_listeners: Some(vec![]), ..Options::default() }.amqp().is_empty());
    }
}
