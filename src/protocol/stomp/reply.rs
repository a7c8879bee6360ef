//! What a client is told: receipts and errors. The words of errors, and what they do to the connection, are the
//! dialect's.

use std::borrow::Cow;

use super::{codec, dialect::Dialect, session::Version};
use crate::{
    broker::error::Error,
    protocol::amqp::reply::{Code, Failure},
};

/// An ERROR frame.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    /// The header `message`.
    pub(super) message: Cow<'static, str>,
    /// The body.
    pub(super) detail: String,
    /// The subscription that it is about.
    pub(super) subscription: Option<Vec<u8>>,
    /// The receipt that the refused frame has asked for.
    pub(super) receipt: Option<Vec<u8>>,
    /// It is the broker that refuses, not the protocol.
    pub(super) is_brokers: bool,
    /// The connection is closed after it.
    pub(super) is_fatal: bool,
    /// It is said already, or will be.
    pub(super) is_said: bool,
}

impl Refusal {
    /// Leaves the connection open.
    pub(super) fn new(message: &'static str, detail: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            detail: detail.into(),
            subscription: None,
            receipt: None,
            is_brokers: false,
            is_fatal: false,
            is_said: false,
        }
    }

    /// Closes the connection.
    pub(super) fn fatal(message: &'static str, detail: impl Into<String>) -> Self {
        Self { is_fatal: true, ..Self::new(message, detail) }
    }

    /// What RabbitMQ says where a header cannot be used, and gives no reason for.
    pub(super) fn processing() -> Self {
        Self::new("Processing error", "Processing error")
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let name = failure.code.name();
        Self {
            message: name.to_lowercase().into(),
            detail: format!("{name} - {}", failure.text),
            subscription: None,
            receipt: None,
            is_brokers: true,
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
pub(super) fn receipt(id: &[u8], version: Version, dialect: Dialect, trailing_lf: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(id.len() + 24);
    out.extend_from_slice(b"RECEIPT\nreceipt-id:");
    codec::put_escaped(id, dialect.escapes(version), &mut out);
    out.extend_from_slice(b"\n\n");
    codec::put_end(trailing_lf, &mut out);
    out
}

/// Of a message that a full queue has refused.
pub(super) fn message_refused(receipt: &[u8]) -> Refusal {
    Refusal {
        receipt: Some(receipt.to_vec()),
        ..Refusal::new("Message refused", "A queue is full and takes no more messages\n")
    }
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
