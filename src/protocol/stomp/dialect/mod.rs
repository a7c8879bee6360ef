//! What brokers disagree on: destinations, words of errors and who closes then, logins, what a message looks
//! like, what an acknowledgement does.
//!
//! A dialect says what each frame does by means of the session, and how things are read and written. The
//! session itself knows of no dialect.

pub(super) mod activemq;
pub(super) mod rabbitmq;

pub(super) use super::options::Dialect;
use super::{
    codec::{self, Escapes, Head, Limits, Syntax, Trim},
    options::Options,
    reply::Refusal,
    session::{Body, Flow, Session, Version},
};
use crate::broker::{message::Message, turn::Turn};

impl Dialect {
    /// What is taken for a header.
    pub(super) fn syntax(self) -> Syntax {
        match self {
            Self::Rabbitmq => Syntax::Strict,
            Self::Activemq => Syntax::Lenient,
        }
    }

    /// Which blanks a client of version 1.0 does not mean.
    pub(super) fn trim(self) -> Trim {
        match self {
            Self::Rabbitmq => Trim::Front,
            Self::Activemq => Trim::Both,
        }
    }

    /// Whether a client of that version knows no escape for a carriage return.
    pub(super) fn lacks_return(self, version: Version) -> bool {
        self == Self::Activemq && version != Version::V1_2
    }

    /// What a head may cost.
    pub(super) fn limits(self, head_bytes_max: usize, options: &Options) -> Limits {
        let limits = Limits {
            head_bytes_max,
            headers_count_max: options.headers_count_max,
            command_bytes_max: usize::MAX,
            line_bytes_max: usize::MAX,
            syntax: self.syntax(),
        };
        match self {
            Self::Rabbitmq => limits,
            Self::Activemq => activemq::limits(limits),
        }
    }

    /// What is said of input that is no frame, before the connection is closed.
    pub(super) fn malformed(self, error: codec::Error) -> Option<Refusal> {
        match self {
            Self::Rabbitmq => rabbitmq::malformed(error),
            Self::Activemq => Some(activemq::malformed(error)),
        }
    }

    /// How text is written.
    pub(super) fn escapes(self, version: Version) -> Escapes {
        match (self, version) {
            (Self::Rabbitmq, _) | (Self::Activemq, Version::V1_2) => Escapes::All,
            (Self::Activemq, Version::V1_1) => Escapes::NoReturn,
            (Self::Activemq, Version::V1_0) => Escapes::Nothing,
        }
    }

    /// An ERROR frame.
    pub(super) fn encode_refusal(self, refusal: &Refusal, version: Version, trailing_lf: bool) -> Vec<u8> {
        match self {
            Self::Rabbitmq => rabbitmq::encode_refusal(refusal, trailing_lf),
            Self::Activemq => activemq::encode_refusal(refusal, self.escapes(version), trailing_lf),
        }
    }
}

/// Does what a frame says.
pub(super) fn handle(
    session: &mut Session,
    head: &Head<'_>,
    body: Body<'_>,
    turn: &mut Turn<'_>,
) -> Result<Flow, Refusal> {
    match session.dialect() {
        Dialect::Rabbitmq => rabbitmq::handle(session, head, body, turn),
        Dialect::Activemq => activemq::handle(session, head, body, turn),
    }
}

/// Answers a frame that was refused.
pub(super) fn refuse(session: &mut Session, refusal: Refusal, head: &Head<'_>, turn: &mut Turn<'_>) {
    match session.dialect() {
        Dialect::Rabbitmq => rabbitmq::refuse(session, refusal, head, turn),
        Dialect::Activemq => activemq::refuse(session, refusal, head, turn),
    }
}

/// A message may not be sent: whoever sent it is told where it was to go.
pub(super) fn denied(session: &Session, refusal: Refusal, message: &Message) -> Refusal {
    match session.dialect() {
        Dialect::Rabbitmq => refusal,
        Dialect::Activemq => activemq::denied(session, message),
    }
}

/// A queue has cancelled a consumer.
pub(super) fn cancelled(session: &mut Session, source: u32, turn: &mut Turn<'_>) {
    match session.dialect() {
        Dialect::Rabbitmq => session.consumer_cancelled(source),
        Dialect::Activemq => activemq::cancelled(session, source, turn),
    }
}

/// Something has come that the session may have waited for.
pub(super) fn proceed(session: &mut Session, turn: &mut Turn<'_>) {
    match session.dialect() {
        Dialect::Rabbitmq => {}
        Dialect::Activemq => activemq::proceed(session, turn),
    }
}

/// The connection is over.
pub(super) fn closed(session: &mut Session, turn: &mut Turn<'_>) {
    match session.dialect() {
        Dialect::Rabbitmq => {}
        Dialect::Activemq => activemq::closed(session, turn),
    }
}
