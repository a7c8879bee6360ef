//! STOMP as ActiveMQ 5.17 speaks it.
//!
//! Its queues are queues, and its topics keys of the topic exchange: what is sent here arrives where AMQP and
//! the other dialect read, and the other way round. What JMS knows of a message and AMQP does not is in
//! headers: `timestamp_in_ms` and `expires`, milliseconds since 1970, `content-length` of what was sent as
//! bytes, and `original-destination`.
//!
//! Few errors close the connection: a login that is refused, an unknown command, and what cannot be read.

mod acknowledge;
mod advisory;
mod browse;
mod connect;
mod destination;
pub(in crate::protocol::stomp) mod message;
mod queues;
mod send;
mod subscribe;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

pub use connect::Clients;

use super::super::{
    codec::{self, Escapes, Head, Limits},
    reply::Refusal,
    session::{Body, Flow, Session, Stage},
};
use crate::{
    broker::{access::Access, message::Message, record::QueueId, time::Time, turn::Turn},
    protocol::jms,
};

/// What a session of this dialect remembers.
pub(in crate::protocol::stomp) struct State {
    /// The name that the client goes by, if it has one, as [`Clients`] has it.
    client: Option<connect::ClientKey>,
    /// When it first asked to come in.
    connects_since: Option<Time>,
    /// Messages that it has sent.
    sent_count: u64,
    destined: send::Destined,
    /// By number, which ascends.
    subscriptions: BTreeMap<u64, subscribe::Subscribed>,
    /// The newest subscription of an id.
    by_id: HashMap<Box<[u8]>, u64, foldhash::fast::RandomState>,
    subscribed_count: u64,
    /// Clients that look through queues, and when they are to look on by themselves.
    browsers: Vec<browse::Browser>,
    pub(in crate::protocol::stomp) browse_at: Time,
    /// Queues of durable subscriptions that take in nothing of this connection.
    pub(in crate::protocol::stomp) not_local: Vec<QueueId>,
    /// Temporary queues and topics by what the client calls them: their real names.
    temporary: HashMap<Box<[u8]>, Arc<str>, foldhash::fast::RandomState>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            client: None,
            connects_since: None,
            sent_count: 0,
            destined: send::Destined::default(),
            subscriptions: BTreeMap::new(),
            by_id: HashMap::default(),
            subscribed_count: 0,
            browsers: Vec::new(),
            browse_at: Time::NEVER,
            not_local: Vec::new(),
            temporary: HashMap::default(),
        }
    }
}

/// A session that speaks this dialect.
struct Speaker<'s>(&'s mut Session);

impl std::ops::Deref for Speaker<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        self.0
    }
}

impl std::ops::DerefMut for Speaker<'_> {
    fn deref_mut(&mut self) -> &mut Session {
        self.0
    }
}

/// Where queues of this dialect send what they give up.
const DEAD_QUEUE: &str = "ActiveMQ.DLQ";

/// What ActiveMQ reads of a command and of a header.
const COMMAND_BYTES_MAX: usize = 1024;
const LINE_BYTES_MAX: usize = 10 * 1024;
const HEADERS_COUNT_MAX: usize = 1000;

/// ActiveMQ's own bounds, and those of the settings where they are tighter.
pub(super) fn limits(limits: Limits) -> Limits {
    Limits {
        headers_count_max: limits.headers_count_max.min(HEADERS_COUNT_MAX),
        command_bytes_max: COMMAND_BYTES_MAX,
        line_bytes_max: LINE_BYTES_MAX,
        ..limits
    }
}

/// Everything that cannot be read is told.
pub(super) fn malformed(error: codec::Error) -> Refusal {
    let message = match error {
        codec::Error::CommandTooLong => "The maximum command length was exceeded",
        codec::Error::HeaderTooLong | codec::Error::HeadTooLarge => "The maximum header length was exceeded",
        codec::Error::TooManyHeaders => "The maximum number of headers was exceeded",
        codec::Error::BodyTooLarge => "The maximum data length was exceeded",
        codec::Error::NoNul => "content-length bytes were read and there was no trailing null byte",
        codec::Error::ContentLength => "Specified content-length is not a valid integer",
        codec::Error::LineEnd | codec::Error::NoColon | codec::Error::Escape => "Unable to parser header line",
    };
    Refusal::fatal(message, "")
}

/// An ERROR frame. What others of Tern refuse tells its reason where ActiveMQ's clients look for it.
pub(super) fn encode_refusal(refusal: &Refusal, escapes: Escapes, trailing_lf: bool) -> Vec<u8> {
    let detail = refusal.detail.trim_end();
    let message = if refusal.is_brokers && !detail.is_empty() { detail } else { &refusal.message };
    let mut out = b"ERROR\n".to_vec();
    codec::put_header_escaped(b"content-type", b"text/plain", escapes, &mut out);
    codec::put_header_escaped(b"message", message.as_bytes(), escapes, &mut out);
    if let Some(receipt) = &refusal.receipt {
        codec::put_header_escaped(b"receipt-id", receipt, escapes, &mut out);
    }
    out.push(b'\n');
    let body = if detail.is_empty() { message } else { detail };
    // There is no content-length, as with ActiveMQ.
    out.extend(body.bytes().filter(|octet| *octet != 0));
    out.push(b'\n');
    codec::put_end(trailing_lf, &mut out);
    out
}

/// Does what a frame says. ActiveMQ knows a command by how it begins.
pub(super) fn handle(
    session: &mut Session,
    head: &Head<'_>,
    body: Body<'_>,
    turn: &mut Turn<'_>,
) -> Result<Flow, Refusal> {
    let mut session = Speaker(session);
    let command = head.command();
    let is = |name: &[u8]| command.starts_with(name);
    let is_connected = session.stage() == Stage::Running;
    if is(b"CONNECT") || is(b"STOMP") {
        return if is_connected { Err(Refusal::new("Already connected.", "")) } else { session.connect(head, turn) };
    }
    if is(b"DISCONNECT") {
        if is_connected {
            session.begin_rare(turn);
            // Whoever has the answer may come back by the same name.
            session.forget_client();
            session.disconnect(head, turn);
        }
        return Ok(Flow::Done);
    }
    let verbs: [&[u8]; 8] = [b"SEND", b"ACK", b"NACK", b"BEGIN", b"COMMIT", b"ABORT", b"SUB", b"UNSUB"];
    let Some(verb) = verbs.into_iter().find(|verb| is(verb)) else {
        let command = String::from_utf8_lossy(command);
        return Err(Refusal { message: format!("Unknown STOMP action: {command}").into(), ..Refusal::fatal("", "") });
    };
    if !is_connected {
        return Err(Refusal::new("Not connected.", ""));
    }
    match verb {
        b"SEND" => return session.send(head, body, turn),
        b"ACK" => return session.acknowledge(head, true, turn),
        b"NACK" => return session.acknowledge(head, false, turn),
        _ => session.begin_rare(turn),
    }
    match verb {
        b"SUB" => return session.subscribe(head, turn),
        b"UNSUB" => session.unsubscribe(head, turn)?,
        b"BEGIN" => {
            let name = transaction_of(head, "Must specify the transaction you are beginning")?;
            if session.has_transaction(&name) {
                let name = String::from_utf8_lossy(&name);
                return Err(refusal(format!("The transaction was already started: {name}")));
            }
            session.begin_transaction(&name)?;
        }
        b"COMMIT" => {
            let name = transaction_of(head, "Must specify the transaction you are committing")?;
            if !session.commit_transaction(&name, turn)? {
                return Err(unknown_transaction(&name));
            }
        }
        _ => {
            let name = transaction_of(head, "Must specify the transaction you are committing")?;
            if !session.abort_transaction(&name, turn) {
                return Err(unknown_transaction(&name));
            }
        }
    }
    session.receipt(head, turn);
    Ok(Flow::Done)
}

/// Answers a frame that was refused. What closes a channel of AMQP leaves the connection open here.
pub(super) fn refuse(session: &mut Session, refusal: Refusal, head: &Head<'_>, turn: &mut Turn<'_>) {
    let receipt = head.get("receipt").map(|receipt| receipt.into_owned());
    let is_fatal = refusal.is_fatal && !refusal.is_brokers;
    session.refuse(Refusal { is_fatal, receipt, ..refusal }, turn);
}

/// A queue has cancelled a consumer.
pub(super) fn cancelled(session: &mut Session, source: u32, turn: &mut Turn<'_>) {
    Speaker(session).queue_cancelled(source, turn);
}

/// A queue was declared that a subscription may be for.
pub(in crate::protocol::stomp) fn declared(
    session: &mut Session,
    queue: &Arc<crate::broker::queue::Queue>,
    watch: u64,
    turn: &mut Turn<'_>,
) {
    Speaker(session).queue_declared(queue, watch, turn);
}

/// Something has come, or the client has read on.
pub(super) fn proceed(session: &mut Session, turn: &mut Turn<'_>) {
    if !session.activemq.browsers.is_empty() {
        Speaker(session).browse(turn);
    }
}

/// The connection is over: its name is free at once.
pub(super) fn closed(session: &mut Session, turn: &mut Turn<'_>) {
    let mut session = Speaker(session);
    session.forget_client();
    session.advise_closed(turn);
}

/// What a user may not do to a destination.
pub(in crate::protocol::stomp) fn not_authorized(user: &str, access: Access, destination: &str) -> Refusal {
    let verb = match access {
        Access::Configure => "create",
        Access::Read => "read from",
        Access::Write => "write to",
    };
    refusal(format!("User {user} is not authorized to {verb}: {destination}"))
}

/// A message may not be sent.
pub(super) fn denied(session: &Session, message: &Message) -> Refusal {
    let user = session.login.as_ref().map_or("", |login| &*login.user.name);
    let destination = format!("{}{}", jms::destination_kind(message), String::from_utf8_lossy(message.key()));
    not_authorized(user, Access::Write, &destination)
}

/// A refusal that leaves the connection open.
fn refusal(message: String) -> Refusal {
    Refusal { message: message.into(), ..Refusal::new("", "") }
}

fn transaction_of(head: &Head<'_>, missing: &'static str) -> Result<Vec<u8>, Refusal> {
    head.get("transaction").map(|name| name.into_owned()).ok_or_else(|| Refusal::new(missing, ""))
}

fn unknown_transaction(name: &[u8]) -> Refusal {
    refusal(format!("Invalid transaction id: {}", String::from_utf8_lossy(name)))
}
