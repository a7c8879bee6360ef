//! Opening the listeners, and telling others which ports they got.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use socket2::{Domain, Socket, Type};
use thiserror::Error;

#[cfg(test)]
use super::options::STOMP_PORT;
use super::options::{Listener, Options, Protocol};

/// One open listener.
#[derive(Debug)]
pub struct Bound {
    /// The protocol spoken here.
    pub protocol: Protocol,
    /// The address with its real port.
    pub addr: SocketAddr,
    /// The socket, listening and non-blocking.
    pub socket: TcpListener,
}

/// Why the process cannot start.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the fields are what each message says")]
pub enum StartError {
    /// Somebody listens there already.
    #[error("{addr} is in use by another process: stop that one, or choose another port with {flag}")]
    InUse { addr: SocketAddr, flag: &'static str },
    /// The address is not one of this machine.
    #[error("{addr} is no address of this machine: choose another with --bind")]
    NotOurs { addr: SocketAddr },
    /// The port needs more rights.
    #[error(
        "no permission to listen on {addr}: ports below 1024 need CAP_NET_BIND_SERVICE; choose another with {flag}"
    )]
    Forbidden { addr: SocketAddr, flag: &'static str },
    /// Anything else about a listener.
    #[error("cannot listen on {addr}: {error}")]
    Listen { addr: SocketAddr, error: io::Error },
    /// A file or directory that the process needs.
    #[error("cannot {what} {path}: {error}", path = path.display())]
    File { what: &'static str, path: PathBuf, error: io::Error },
    /// Whatever has no better name.
    #[error("{0}")]
    Other(String),
}

/// Connections that wait to be accepted; the kernel caps it at net.core.somaxconn. Full: the peer's
/// kernel tries again.
const BACKLOG: i32 = 4096;

/// Opens every listener of `options`. One that is not required and cannot be had is left out.
pub fn open_all(options: &Options) -> Result<Vec<Bound>, StartError> {
    let mut bound: Vec<Bound> = Vec::new();
    let mut off = None;
    for listener in options.listeners() {
        let protocol = listener.protocol;
        if off == Some(protocol) {
            continue;
        }
        let mut addr = listener.addr;
        // Port 0 on two addresses: the second takes the first's port, so that `localhost` works
        // whichever of them it means.
        if addr.port() == 0
            && !listener.is_required
            && let Some(first) = bound.iter().rfind(|first| first.protocol == protocol)
        {
            addr.set_port(first.addr.port());
        }
        match open(addr) {
            Ok(socket) => {
                let addr = socket.local_addr().map_err(|error| StartError::Listen { addr, error })?;
                bound.push(Bound { protocol, addr, socket });
            }
            Err(error) if is_tolerable(listener, &error) => {
                tracing::debug!(%addr, %error, "not listening on an optional address");
            }
            Err(error) if listener.is_default && error.kind() == io::ErrorKind::AddrInUse => {
                // All or none of its addresses: half of the clients would talk to somebody else.
                bound.retain(|bound| bound.protocol != protocol);
                off = Some(protocol);
                let (protocol, flag) = (protocol.name(), flag(protocol));
                tracing::error!(%addr, "{protocol} is off: another process has its port; choose another with {flag}");
            }
            Err(error) => return Err(start_error(protocol, addr, error)),
        }
    }
    Ok(bound)
}

/// Opens a listener again that was closed.
pub(super) fn reopen(protocol: Protocol, addr: SocketAddr) -> Result<TcpListener, StartError> {
    open(addr).map_err(|error| start_error(protocol, addr, error))
}

/// An address that nobody asked for by itself, and that this machine does not have.
fn is_tolerable(listener: Listener, error: &io::Error) -> bool {
    // A port that is in use is never tolerated: half of the clients would talk to somebody else.
    // The port of a first listener that was free by chance is nobody's promise.
    let is_used = error.kind() == io::ErrorKind::AddrInUse && listener.addr.port() != 0;
    !listener.is_required && !is_used
}

/// What chooses a protocol's port.
fn flag(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Amqp => "--amqp-port",
        Protocol::Stomp(_) => "--stomp-port",
        Protocol::WebStomp => "--set web_stomp.port",
        Protocol::Aws => "--set aws.port",
    }
}

fn start_error(protocol: Protocol, addr: SocketAddr, error: io::Error) -> StartError {
    let flag = flag(protocol);
    match error.kind() {
        io::ErrorKind::AddrInUse => StartError::InUse { addr, flag },
        io::ErrorKind::AddrNotAvailable => StartError::NotOurs { addr },
        io::ErrorKind::PermissionDenied => StartError::Forbidden { addr, flag },
        _ => StartError::Listen { addr, error },
    }
}

fn open(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(socket2::Protocol::TCP))?;
    if addr.is_ipv6() {
        // Each family has its own socket; otherwise `[::]` would take `0.0.0.0`'s port away.
        socket.set_only_v6(true)?;
    }
    // A restart must not wait for the last process's connections to time out.
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Writes the ports file: `{"amqp": 5672, "listeners": [{"protocol": "amqp", "address": "..."}]}`. The first
/// listener of STOMP is `stomp`, whatever its dialect.
///
/// It appears at once and whole, so whoever waits for it may read it as soon as it is there.
pub fn write_ports_file(path: &Path, bound: &[Bound]) -> Result<(), StartError> {
    let mut ports = serde_json::Map::new();
    for listener in bound {
        let port = listener.addr.port();
        let name = listener.protocol.section();
        let general = if matches!(listener.protocol, Protocol::Stomp(_)) { "stomp" } else { name };
        for name in [name, general] {
            ports.entry(name).or_insert_with(|| port.into());
        }
    }
    let listeners = bound
        .iter()
        .map(|listener| serde_json::json!({ "protocol": listener.protocol.section(), "address": listener.addr.to_string() }))
        .collect();
    ports.insert("listeners".into(), serde_json::Value::Array(listeners));
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    fs::write(&partial, serde_json::Value::Object(ports).to_string() + "\n")
        .and_then(|()| fs::rename(&partial, path))
        .map_err(|error| StartError::File { what: "write", path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::stomp::options::Dialect;

    fn listening_on(addresses: &[&str]) -> Options {
        let addresses = addresses.iter().map(|addr| addr.parse().unwrap()).collect();
        Options {
            amqp_listeners: Some(addresses),
            stomp_port: Some(0),
            web_stomp_port: Some(0),
            aws_port: Some(0),
            ..Options::default()
        }
    }

    #[test]
    fn port_zero_takes_a_free_port_and_the_second_loopback_the_same() {
        let bound = open_all(&Options { amqp_port: 0, ..Options::default() }).unwrap();
        for protocol in [Protocol::Amqp, Protocol::Stomp(Dialect::Rabbitmq), Protocol::WebStomp] {
            let mut ports = bound.iter().filter(|bound| bound.protocol == protocol).map(|bound| bound.addr.port());
            let first = ports.next().unwrap();
            assert_ne!(first, 0);
            assert!(ports.all(|port| port == first));
        }
    }

    #[test]
    fn port_in_use_is_said_with_its_address_and_the_flag_to_change_it() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = taken.local_addr().unwrap();
        let error = open_all(&listening_on(&[&addr.to_string()])).unwrap_err().to_string();
        let expected =
            format!("{addr} is in use by another process: stop that one, or choose another port with --amqp-port");
        assert_eq!(error, expected);
    }

    #[test]
    fn protocol_that_nobody_asked_for_is_off_where_its_port_is_in_use() {
        let taken = TcpListener::bind(("127.0.0.1", STOMP_PORT));
        let options = Options { amqp_listeners: Some(vec!["127.0.0.1:0".parse().unwrap()]), ..Options::default() };
        let bound = open_all(&options).unwrap();
        assert!(!bound.iter().any(|bound| matches!(bound.protocol, Protocol::Stomp(_))), "{bound:?}");
        drop(taken);
        let asked = Options { stomp_port: Some(bound[0].addr.port()), ..options };
        assert!(matches!(open_all(&asked), Err(StartError::InUse { .. })));
    }

    #[test]
    fn each_listener_of_stomp_has_its_dialect() {
        let activemq = Protocol::Stomp(Dialect::Activemq);
        let beside = Options { amqp_port: 0, stomp_activemq_port: Some(0), ..Options::default() };
        let bound = open_all(&beside).unwrap();
        let mut ports = bound.iter().filter(|bound| bound.protocol == activemq).map(|bound| bound.addr.port());
        let first = ports.next().unwrap();
        assert!(ports.all(|port| port == first));
        let other = bound.iter().find(|bound| bound.protocol == Protocol::Stomp(Dialect::Rabbitmq)).unwrap();
        assert_ne!(other.addr.port(), first);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ports.json");
        write_ports_file(&path, &bound).unwrap();
        let json: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(json["stomp"], other.addr.port());
        assert_eq!(json["stomp/activemq"], first);
        let any = "127.0.0.1:0".parse().unwrap();
        let listed = vec![(any, None), (any, Some(Dialect::Activemq)), (any, Some(Dialect::Rabbitmq))];
        let stomp_listeners = Some(listed);
        let (amqp_listeners, web_stomp_listeners, aws_listeners) = (Some(vec![]), Some(vec![]), Some(vec![]));
        let options =
            Options { amqp_listeners, stomp_listeners, web_stomp_listeners, aws_listeners, ..Options::default() };
        let dialects: Vec<_> = open_all(&options).unwrap().iter().map(|bound| bound.protocol.name()).collect();
        assert_eq!(dialects, ["stomp", "stomp/activemq", "stomp"]);
        let all = Options { stomp_dialect: Dialect::Activemq, amqp_port: 0, ..Options::default() };
        assert!(all.stomp().iter().all(|listener| listener.protocol == activemq));
    }

    #[test]
    fn foreign_address_is_refused() {
        let error = open_all(&listening_on(&["192.0.2.1:0"])).unwrap_err();
        assert!(matches!(error, StartError::NotOurs { .. }), "{error}");
    }

    #[test]
    fn ports_file_has_the_real_ports() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ports.json");
        let bound = open_all(&listening_on(&["127.0.0.1:0"])).unwrap();
        write_ports_file(&path, &bound).unwrap();
        let json: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(json["amqp"], bound[0].addr.port());
        assert_eq!(json["stomp"], bound[1].addr.port());
        assert_eq!(json["listeners"][0]["address"], bound[0].addr.to_string());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
