//! What a client is told: receipts, and errors in RabbitMQ's words.
//!
//! Most errors leave the connection open, as with RabbitMQ and against the specification: clients
//! have come to rely on it. What closes a channel of AMQP closes the connection, with the name and the
//! text that an AMQP client gets.

use std::borrow::Cow;

use super::codec;
use crate::{
    broker::error::Error,
    protocol::amqp::reply::{Code, Failure},
};

/// The versions that are spoken, as they are told.
pub(super) const VERSIONS: &str = "1.0,1.1,1.2";

/// An ERROR frame.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    /// The header `message`.
    pub(super) message: Cow<'static, str>,
    /// The body.
    pub(super) detail: String,
    /// The subscription that it is about.
    pub(super) subscription: Option<Vec<u8>>,
    /// The connection is closed after it.
    pub(super) is_fatal: bool,
    /// It is said already, or will be.
    pub(super) is_said: bool,
}

impl Refusal {
    /// Leaves the connection open.
    pub(super) fn new(message: &'static str, detail: impl Into<String>) -> Self {
        Self { message: message.into(), detail: detail.into(), subscription: None, is_fatal: false, is_said: false }
    }

    /// Closes the connection.
    pub(super) fn fatal(message: &'static str, detail: impl Into<String>) -> Self {
        Self { is_fatal: true, ..Self::new(message, detail) }
    }

    /// What RabbitMQ says where a header cannot be used, and gives no reason for.
    pub(super) fn processing() -> Self {
        Self::new("Processing error", "Processing error")
    }

    pub(super) fn encode(&self, trailing_lf: bool) -> Vec<u8> {
        let mut headers: Vec<(&str, &[u8])> = vec![
            ("message", self.message.as_bytes()),
            ("content-type", b"text/plain"),
            ("version", VERSIONS.as_bytes()),
        ];
        if let Some(id) = &self.subscription {
            headers.push(("subscription", id));
        }
        let mut out = Vec::new();
        codec::encode("ERROR", &headers, self.detail.as_bytes(), trailing_lf, &mut out);
        out
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let name = failure.code.name();
        Self {
            message: name.to_lowercase().into(),
            detail: format!("{name} - {}", failure.text),
            subscription: None,
            is_fatal: true,
            is_said: false,
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Failure::from(error).into()
    }
}

/// A refusal for want of permission.
pub(super) fn access_refused(text: String) -> Refusal {
    Failure::channel(Code::AccessRefused, text).into()
}

/// A refusal of something that AMQP's rules forbid.
pub(super) fn precondition_failed(text: impl Into<String>) -> Refusal {
    Failure::channel(Code::PreconditionFailed, text).into()
}

/// A RECEIPT frame.
pub(super) fn receipt(id: &[u8], trailing_lf: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(id.len() + 24);
    codec::encode("RECEIPT", &[("receipt-id", id)], b"", trailing_lf, &mut out);
    out
}

/// The ERROR frame for a message that a full queue has refused. It says which: nobody asked else.
pub(super) fn message_refused(receipt: &[u8], trailing_lf: bool) -> Vec<u8> {
    let headers: [(&str, &[u8]); 4] = [
        ("message", b"Message refused"),
        ("content-type", b"text/plain"),
        ("version", VERSIONS.as_bytes()),
        ("receipt-id", receipt),
    ];
    let mut out = Vec::new();
    codec::encode("ERROR", &headers, b"A queue is full and takes no more messages\n", trailing_lf, &mut out);
    out
}

/// Text in quotes, as Erlang prints a string.
pub(super) fn quoted(text: &[u8]) -> String {
    let mut out = String::from("\"");
    for c in String::from_utf8_lossy(text).chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
