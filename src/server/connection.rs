//! The task of one connection: started by a listener, owns the session and the socket, ends when the
//! session is over or the socket is gone.

use std::{
    io,
    net::{Shutdown, SocketAddr},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::TcpStream,
    time::{Instant, Sleep},
};

use super::{
    aws, clock,
    options::Protocol,
    proxy_protocol::{self, Parsed},
    read_buffer::{self, Read},
    socket::Socket,
    web_stomp,
};
use crate::{
    broker::{Broker, time::Time},
    protocol::{
        amqp,
        session::{Phase, Session},
        shared::{Link, Shared, Wire},
        stomp,
    },
};

/// What all connections have in common.
pub struct Context {
    /// The broker.
    pub broker: Arc<Broker>,
    /// Settings of AMQP.
    pub amqp: Arc<amqp::Options>,
    /// Settings of STOMP, and what it tells clients of us, by dialect.
    pub stomp: [Arc<stomp::Surroundings>; 2],
    /// SQS and SNS.
    pub aws: Arc<aws::Web>,
    /// Settings of the process.
    pub server: Arc<super::Options>,
    /// Connections that have not opened a vhost yet.
    pub handshakes: AtomicUsize,
}

/// Reads of one turn before other connections of the thread get theirs.
const READS_MAX: usize = 8;
/// How long the last output may take to be written.
pub(super) const LAST_WRITE: Duration = Duration::from_secs(5);
/// How long the peer may take to close its side, too. RabbitMQ: 30 s.
pub(super) const LINGER: Duration = Duration::from_secs(3);

/// Serves a connection until it is over.
pub async fn serve(context: Arc<Context>, protocol: Protocol, stream: TcpStream, mut peer: SocketAddr) {
    let pending = context.handshakes.fetch_add(1, Ordering::Relaxed);
    let handshake = Handshake { context: context.clone(), is_pending: true };
    if pending >= context.amqp.pending_handshakes_max {
        tracing::warn!(%peer, pending, "connection refused: too many connections have not logged in yet");
        return;
    }
    let _ = stream.set_nodelay(true);
    keep_alive(&stream, context.server.tcp_keepalive_secs);
    let Ok(mut local) = stream.local_addr() else { return };
    let mut left = Vec::new();
    if context.server.is_trusted_proxy(peer.ip().to_canonical()) {
        let deadline = Duration::from_millis(context.amqp.handshake_timeout_ms);
        match tokio::time::timeout(deadline, read_proxy_header(&stream, &mut left)).await {
            Ok(Ok(Some((source, destination)))) => (peer, local) = (source, destination),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => return tracing::warn!(%peer, %error, "PROXY header refused"),
            Err(_) => return tracing::warn!(%peer, "no PROXY header in time"),
        }
    }
    let now = clock::now();
    let broker = context.broker.clone();
    match protocol {
        Protocol::Amqp => {
            let shared = Arc::new(Shared::new(context.amqp.outbox_bytes_max));
            let session = amqp::Session::new(broker, context.amqp.clone(), shared.clone(), peer, local, now);
            run(session, &shared, stream, peer, left, handshake).await;
        }
        Protocol::Stomp(dialect) => {
            let surroundings = context.stomp[dialect as usize].clone();
            let shared = Arc::new(Shared::new(surroundings.options.outbox_bytes_max));
            let session = stomp::Session::new(broker, surroundings, shared.clone(), peer, local, now);
            run(session, &shared, stream, peer, left, handshake).await;
        }
        Protocol::Aws => aws::serve(stream, left, (peer, local), handshake).await,
        Protocol::WebStomp => web_stomp::serve(stream, left, (peer, local), handshake).await,
    }
}

async fn run<W: Wire + 'static>(
    mut session: impl Session,
    shared: &Arc<Shared<W>>,
    stream: TcpStream,
    peer: SocketAddr,
    left: Vec<u8>,
    mut handshake: Handshake,
) {
    let socket = Arc::new(Socket::new(stream, shared.clone()));
    let link: Arc<dyn Link> = socket.clone();
    shared.set_link(Arc::downgrade(&link));
    drop(link);
    let context = handshake.context.clone();
    let end = drive(&mut session, &socket, left, &mut handshake).await;
    let now = clock::now();
    let was_open = session.vhost_name().is_some();
    note_end(&session, peer, end.as_ref().err());
    session.close(now);
    drop(handshake);
    let refused = session.ended_by() == Some("login refused");
    if refused {
        // Guessing passwords takes time.
        tokio::time::sleep(Duration::from_millis(context.server.login_failure_delay_ms)).await;
    }
    let _ = tokio::time::timeout(LAST_WRITE, write_rest(&socket)).await;
    if end.is_ok() {
        // Whoever closed its connection in good order closes the socket, too, as with RabbitMQ.
        let is_peers_turn = was_open && session.ended_by().is_none() && session.is_closed_by_peer();
        let _ = tokio::time::timeout(LINGER, let_peer_finish(&socket, is_peers_turn)).await;
    }
}

/// Tells the log how a connection has ended.
pub(super) fn note_end(session: &impl Session, peer: SocketAddr, lost: Option<&io::Error>) {
    let was_open = session.vhost_name().is_some();
    if let Some(reason) = session.ended_by() {
        tracing::warn!(%peer, user = session.user_name(), vhost = session.vhost_name(), reason, "connection closed");
    } else if let (Some(error), true) = (lost, was_open) {
        tracing::warn!(%peer, user = session.user_name(), %error, "connection lost");
    } else {
        tracing::debug!(%peer, user = session.user_name(), "connection closed");
    }
}

/// Has the kernel find out when the peer is gone and nothing is sent: heartbeats may be off.
fn keep_alive(stream: &TcpStream, secs: u16) {
    if secs == 0 {
        return;
    }
    let interval = (secs / PROBES as u16).max(1);
    let probes = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(secs.into()))
        .with_interval(Duration::from_secs(interval.into()))
        .with_retries(PROBES);
    let _ = socket2::SockRef::from(stream).set_tcp_keepalive(&probes);
}

/// Questions without an answer after which a peer is gone.
const PROBES: u32 = 4;

/// Counts a connection as pending until it has logged in, or is gone.
pub(super) struct Handshake {
    pub(super) context: Arc<Context>,
    is_pending: bool,
}

impl Handshake {
    /// It is pending no more.
    pub(super) fn is_over(&mut self) {
        if std::mem::take(&mut self.is_pending) {
            self.context.handshakes.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.is_over();
    }
}

async fn drive(
    session: &mut impl Session,
    socket: &Arc<Socket>,
    mut left: Vec<u8>,
    handshake: &mut Handshake,
) -> io::Result<()> {
    let mut wanted = 0;
    let mut pace = read_buffer::Pace::default();
    let mut timer = pin!(tokio::time::sleep_until(Instant::now() + FAR));
    let mut timer_at = Time::NEVER;
    if !left.is_empty() {
        wanted = feed(session, Arc::new(std::mem::take(&mut left)), &mut left);
    }
    loop {
        socket.flush();
        if socket.is_dead() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        match session.phase() {
            Phase::Over => return Ok(()),
            Phase::Running => handshake.is_over(),
            Phase::Other => {}
        }
        set_timer(timer.as_mut(), &mut timer_at, session.poll_timeout());
        let wants_input = session.wants_input();
        socket.set_reader_waiting(!wants_input);
        if !wants_input {
            session.wait_for_room();
        }
        // Checked again after the flag is up: the last drain may have come in between.
        let wants_input = wants_input || session.wants_input();
        tokio::select! {
            ready = socket.stream().readable(), if wants_input => {
                ready?;
                for _ in 0..READS_MAX {
                    match read_buffer::read(socket.stream(), &mut left, wanted, &mut pace)? {
                        Read::Nothing => break,
                        Read::Part => {
                            session.note_trickle(clock::now());
                            break;
                        }
                        Read::End => return Err(io::ErrorKind::ConnectionReset.into()),
                        Read::Bytes(block, was_full) => {
                            wanted = feed(session, block, &mut left);
                            socket.flush();
                            if !was_full || session.phase() == Phase::Over || !session.wants_input() {
                                break;
                            }
                        }
                    }
                }
                // A connection that always has something to read must not starve the others.
                tokio::task::consume_budget().await;
            }
            ready = socket.stream().writable(), if socket.is_blocked() => {
                ready?;
                socket.unblock();
            }
            () = socket.notify().notified() => {
                let had_unread = session.has_unread();
                session.handle_events(clock::now());
                if had_unread && !session.has_unread() && !left.is_empty() {
                    wanted = feed(session, Arc::new(std::mem::take(&mut left)), &mut left);
                }
                // A notification does not count as work by itself.
                tokio::task::consume_budget().await;
            }
            () = timer.as_mut() => {
                timer_at = Time::NEVER;
                timer.as_mut().reset(Instant::now() + FAR);
                let had_unread = session.has_unread();
                session.handle_timeout(clock::now());
                if had_unread && !session.has_unread() && !left.is_empty() {
                    wanted = feed(session, Arc::new(std::mem::take(&mut left)), &mut left);
                }
            }
        }
    }
}

/// Far enough for a timer that is not needed.
pub(super) const FAR: Duration = Duration::from_secs(30 * 24 * 3600);

/// Sets the timer forward only when it would fire too late: one that fires early asks again.
pub(super) fn set_timer(timer: std::pin::Pin<&mut Sleep>, set: &mut Time, wanted: Time) {
    if wanted < *set
        && let Some(at) = clock::instant_at(wanted)
    {
        timer.reset(at);
        *set = wanted;
    }
}

fn feed(session: &mut impl Session, block: crate::broker::block::Block, left: &mut Vec<u8>) -> usize {
    let progress = session.handle_input(&block, clock::now());
    left.clear();
    left.extend_from_slice(&block[progress.consumed..]);
    if left.is_empty() && left.capacity() > LEFT_KEPT_BYTES {
        *left = Vec::new();
    }
    read_buffer::give_back(block);
    progress.wanted
}

/// Bytes that a connection keeps for beginnings of frames.
const LEFT_KEPT_BYTES: usize = 256;

/// Reads what the peer still sends until it has closed; unless that is its turn, it is told that
/// nothing more comes. Closing at once would answer that with a reset, which takes our last frames
/// from a slow reader and makes a client fail that writes a last ack behind `connection.close`.
async fn let_peer_finish(socket: &Socket, is_peers_turn: bool) {
    let is_told = is_peers_turn || socket2::SockRef::from(socket.stream()).shutdown(Shutdown::Write).is_ok();
    if socket.is_dead() || !is_told {
        return;
    }
    let mut ignored = [0; 4096];
    while socket.stream().readable().await.is_ok() {
        match socket.stream().try_read(&mut ignored) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

async fn write_rest(socket: &Socket) {
    loop {
        socket.flush();
        if socket.is_dead() || socket.is_drained() {
            return;
        }
        if socket.stream().writable().await.is_err() {
            return;
        }
        socket.unblock();
    }
}

async fn read_proxy_header(
    stream: &TcpStream,
    left: &mut Vec<u8>,
) -> Result<Option<(SocketAddr, SocketAddr)>, Box<dyn std::error::Error + Send + Sync>> {
    loop {
        stream.readable().await?;
        match stream.try_read_buf(left) {
            Ok(0) => return Err("the connection was closed".into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error.into()),
        }
        match proxy_protocol::parse(left)? {
            Parsed::Incomplete => {}
            Parsed::Header { source, destination, consumed } => {
                left.drain(..consumed);
                return Ok(source.zip(destination));
            }
        }
    }
}
