//! STOMP as RabbitMQ's plugin speaks it.
//!
//! Most errors leave the connection open, as with RabbitMQ and against the specification: clients
//! have come to rely on it. What closes a channel of AMQP closes the connection, with the name and the
//! text that an AMQP client gets.

mod acknowledge;
mod connect;
pub(in crate::protocol::stomp) mod destination;
pub(in crate::protocol::stomp) mod properties;
mod send;
mod subscribe;
mod transaction;

use std::{collections::HashMap, sync::Arc};

use super::super::{
    codec::{self, Head},
    reply::{self, Refusal},
    session::{Body, Flow, Session, Stage},
};
use crate::broker::turn::Turn;
use send::Destined;

/// What a session of this dialect remembers.
#[derive(Default)]
pub(in crate::protocol::stomp) struct State {
    /// Queues of this connection that take replies, by the name that the client gave.
    reply_queues: HashMap<Box<[u8]>, Arc<str>, foldhash::fast::RandomState>,
    /// The destination of the last SEND.
    destined: Destined,
}

/// The versions that are spoken, as they are told.
const VERSIONS: &str = "1.0,1.1,1.2";

/// Does what a frame says.
pub(super) fn handle(
    session: &mut Session,
    head: &Head<'_>,
    body: Body<'_>,
    turn: &mut Turn<'_>,
) -> Result<Flow, Refusal> {
    match (session.stage(), head.command()) {
        (Stage::Login, b"CONNECT" | b"STOMP") => session.connect(head, turn),
        (Stage::Login, _) if session.options().implicit_connect => {
            session.connect_implicitly(turn)?;
            handle(session, head, body, turn)
        }
        (Stage::Login, _) => Err(Refusal::new("Illegal command", "You must log in using CONNECT first")),
        (_, b"CONNECT" | b"STOMP") => {
            // As RabbitMQ: not a word.
            session.end_in_silence("a second CONNECT");
            Ok(Flow::Done)
        }
        (_, b"SEND") => session.send(head, body, turn),
        (_, b"ACK") => session.acknowledge(head, true, turn),
        (_, b"NACK") => session.acknowledge(head, false, turn),
        _ => handle_rare(session, head, turn),
    }
}

/// Frames that are not of the message path.
fn handle_rare(session: &mut Session, head: &Head<'_>, turn: &mut Turn<'_>) -> Result<Flow, Refusal> {
    session.begin_rare(turn);
    match head.command() {
        b"SUBSCRIBE" => return session.subscribe(head, turn),
        b"UNSUBSCRIBE" => session.unsubscribe(head, turn)?,
        b"BEGIN" => session.begin(head)?,
        b"COMMIT" => session.commit(head, turn)?,
        b"ABORT" => session.abort(head, turn)?,
        b"DISCONNECT" => {
            session.disconnect(head, turn);
            return Ok(Flow::Done);
        }
        command => {
            let detail = format!("Could not interpret command {}\n", reply::quoted(command));
            return Err(Refusal::new("Bad command", detail));
        }
    }
    session.receipt(head, turn);
    Ok(Flow::Done)
}

/// Answers a frame that was refused.
pub(super) fn refuse(session: &mut Session, refusal: Refusal, head: &Head<'_>, turn: &mut Turn<'_>) {
    // RabbitMQ answers these although they have failed; clients wait for it.
    let is_answered = refusal.is_fatal && matches!(head.command(), b"SUBSCRIBE" | b"UNSUBSCRIBE");
    session.refuse_and_answer(refusal, if is_answered { head.get("receipt") } else { None }, turn);
}

/// RabbitMQ says nothing about what cannot be read; what is only too much is told.
pub(super) fn malformed(error: codec::Error) -> Option<Refusal> {
    error.is_limit().then(|| Refusal::fatal("Frame too large", format!("{}\n", error.text())))
}

/// An ERROR frame.
pub(super) fn encode_refusal(refusal: &Refusal, trailing_lf: bool) -> Vec<u8> {
    let mut headers: Vec<(&str, &[u8])> = vec![
        ("message", refusal.message.as_bytes()),
        ("content-type", b"text/plain"),
        ("version", VERSIONS.as_bytes()),
    ];
    if let Some(id) = &refusal.subscription {
        headers.push(("subscription", id));
    }
    if let Some(receipt) = &refusal.receipt {
        headers.push(("receipt-id", receipt));
    }
    let mut out = Vec::new();
    codec::encode("ERROR", &headers, refusal.detail.as_bytes(), trailing_lf, &mut out);
    out
}
