//! The task of a connection over WebSocket: as [`super::connection`], with messages instead of octets.
//!
//! Nobody but this task writes: whoever has output for the connection wakes it. Output is taken from the
//! outbox when the socket has taken all that went before, so its bound is the outbox's.

use std::{
    collections::VecDeque, future::poll_fn, io, net::SocketAddr, pin::pin, sync::Arc, task::Poll, time::Duration,
};

use bytes::Bytes;
use futures_util::{Sink as _, Stream as _, StreamExt as _};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
    time::Instant,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use super::{
    clock,
    connection::{FAR, Handshake, LAST_WRITE, LINGER, note_end, set_timer},
};
use crate::{
    broker::time::Time,
    protocol::{
        session::{Phase, Session},
        shared::{Outbox, Shared, Wire},
    },
};

/// What a session talks by.
pub(super) struct Talk<'a, W, S, L> {
    pub(super) outbox: Arc<Shared<W>>,
    /// Woken when there is output, and when something has happened.
    pub(super) notify: &'a Notify,
    /// Cuts output into messages.
    pub(super) split: S,
    /// Called once somebody has logged in.
    pub(super) logged_in: L,
}

/// Messages on their way to the socket.
struct Writer<T> {
    socket: WebSocketStream<T>,
    queue: VecDeque<Message>,
    needs_flush: bool,
    /// Of the output that the messages were made of.
    taken_bytes: u64,
}

/// What a look at the socket came to.
enum Looked {
    /// All that was to be written is.
    Written,
    /// A message, or the end.
    Read(Option<Result<Message, Error>>),
}

impl<T: AsyncRead + AsyncWrite + Unpin> Writer<T> {
    fn has_work(&self) -> bool {
        !self.queue.is_empty() || self.needs_flush
    }

    /// Writes what waits, and reads if that is wanted.
    async fn look(&mut self, wants_input: bool) -> Result<Looked, Error> {
        poll_fn(|cx| {
            while self.has_work() {
                let mut socket = pin!(&mut self.socket);
                let is_done = if self.queue.is_empty() {
                    socket.as_mut().poll_flush(cx)?.is_ready()
                } else {
                    socket.as_mut().poll_ready(cx)?.is_ready()
                };
                if !is_done {
                    break;
                }
                match self.queue.pop_front() {
                    Some(message) => {
                        socket.start_send(message)?;
                        self.needs_flush = true;
                    }
                    None => {
                        self.needs_flush = false;
                        return Poll::Ready(Ok(Looked::Written));
                    }
                }
            }
            if wants_input && let Poll::Ready(read) = pin!(&mut self.socket).poll_next(cx) {
                return Poll::Ready(Ok(Looked::Read(read)));
            }
            Poll::Pending
        })
        .await
    }
}

/// Serves a session until it is over, and closes it.
pub(super) async fn run<W, T, S, L>(
    session: &mut impl Session,
    socket: WebSocketStream<T>,
    talk: Talk<'_, W, S, L>,
    mut handshake: Handshake,
    peer: SocketAddr,
) where
    W: Wire + 'static,
    T: AsyncRead + AsyncWrite + Unpin,
    S: Fn(Bytes) -> Vec<Message>,
    L: Fn(),
{
    let mut writer = Writer { socket, queue: VecDeque::new(), needs_flush: false, taken_bytes: 0 };
    let end = drive(session, &mut writer, &talk, &mut handshake).await;
    let lost = end.as_ref().err().map(|error| io::Error::other(error.to_string()));
    note_end(session, peer, lost.as_ref());
    let is_refused = session.ended_by() == Some("login refused");
    let reason = session.ended_by().map(str::to_owned);
    session.close(clock::now());
    let failure_delay_ms = handshake.context.server.login_failure_delay_ms;
    drop(handshake);
    if is_refused {
        tokio::time::sleep(Duration::from_millis(failure_delay_ms)).await;
    }
    let code = match &end {
        Ok(()) => CloseCode::Normal,
        Err(Error::Capacity(_)) => CloseCode::Size,
        Err(Error::Utf8(_)) => CloseCode::Invalid,
        Err(Error::Protocol(_)) => CloseCode::Protocol,
        Err(_) => return,
    };
    let goodbye = CloseFrame { code, reason: shortened(reason.as_deref().unwrap_or_default()).into() };
    let said = async {
        if end.is_ok() {
            while take_output(&mut writer, &talk) || writer.has_work() {
                writer.look(false).await?;
            }
        }
        writer.socket.close(Some(goodbye)).await
    };
    if matches!(tokio::time::timeout(LAST_WRITE, said).await, Ok(Ok(()))) {
        // The peer answers, and closes its side.
        let answered = async { while let Some(Ok(_)) = writer.socket.next().await {} };
        let _ = tokio::time::timeout(LINGER, answered).await;
    }
}

/// As much of a reason as a close frame holds.
fn shortened(reason: &str) -> &str {
    const REASON_BYTES_MAX: usize = 123;
    &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)]
}

/// Takes output for writing if all before it was written; returns whether there was any.
fn take_output<W, T, S, L>(writer: &mut Writer<T>, talk: &Talk<'_, W, S, L>) -> bool
where
    W: Wire + 'static,
    T: AsyncRead + AsyncWrite + Unpin,
    S: Fn(Bytes) -> Vec<Message>,
{
    if writer.has_work() {
        return false;
    }
    let outbox: &dyn Outbox = &*talk.outbox;
    let Some(chunk) = outbox.take_output(std::mem::take(&mut writer.taken_bytes)) else { return false };
    writer.taken_bytes = chunk.len() as u64;
    writer.queue.extend((talk.split)(chunk.to_vec().into()));
    true
}

async fn drive<W, T, S, L>(
    session: &mut impl Session,
    writer: &mut Writer<T>,
    talk: &Talk<'_, W, S, L>,
    handshake: &mut Handshake,
) -> Result<(), Error>
where
    W: Wire + 'static,
    T: AsyncRead + AsyncWrite + Unpin,
    S: Fn(Bytes) -> Vec<Message>,
    L: Fn(),
{
    let mut left = Vec::new();
    let mut wanted = 0;
    let mut is_running = false;
    let mut timer = pin!(tokio::time::sleep_until(Instant::now() + FAR));
    let mut timer_at = Time::NEVER;
    loop {
        take_output(writer, talk);
        match session.phase() {
            Phase::Over => return Ok(()),
            Phase::Running if !is_running => {
                is_running = true;
                handshake.is_over();
                (talk.logged_in)();
            }
            _ => {}
        }
        set_timer(timer.as_mut(), &mut timer_at, session.poll_timeout());
        let wants_input = session.wants_input();
        if !wants_input {
            session.wait_for_room();
        }
        let wants_input = wants_input || session.wants_input();
        let had_unread = session.has_unread();
        tokio::select! {
            looked = writer.look(wants_input) => match looked? {
                Looked::Written => {
                    // The outbox has room again, whether or not there is more.
                    if !take_output(writer, talk) {
                        session.handle_events(clock::now());
                    }
                }
                Looked::Read(read) => {
                    let octets = match read.unwrap_or(Err(Error::ConnectionClosed))? {
                        Message::Text(text) => text.into(),
                        Message::Binary(octets) => octets,
                        Message::Close(_) => return Err(Error::ConnectionClosed),
                        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {
                            writer.needs_flush = true;
                            continue;
                        }
                    };
                    left.extend_from_slice(&octets);
                    if left.len() < wanted {
                        session.note_trickle(clock::now());
                    } else {
                        wanted = feed(session, &mut left);
                    }
                    tokio::task::consume_budget().await;
                }
            },
            () = talk.notify.notified() => {
                session.handle_events(clock::now());
                tokio::task::consume_budget().await;
            }
            () = timer.as_mut() => {
                timer_at = Time::NEVER;
                timer.as_mut().reset(Instant::now() + FAR);
                session.handle_timeout(clock::now());
            }
        }
        if had_unread && !session.has_unread() && !left.is_empty() {
            wanted = feed(session, &mut left);
        }
    }
}

/// Hands in what has come; what was not used stays.
fn feed(session: &mut impl Session, left: &mut Vec<u8>) -> usize {
    let block = Arc::new(std::mem::take(left));
    let progress = session.handle_input(&block, clock::now());
    *left = match Arc::try_unwrap(block) {
        Ok(whole) if progress.consumed == 0 => whole,
        Ok(whole) => whole[progress.consumed..].to_vec(),
        Err(block) => block[progress.consumed..].to_vec(),
    };
    progress.wanted
}
