//! Reply codes, and how the broker's refusals become closed channels and connections.

use crate::broker::error::Error;

/// Reply codes with their names (AMQP 0-9-1, section 1.2 "constants").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// 312
    NoRoute,
    /// 320
    ConnectionForced,
    /// 403
    AccessRefused,
    /// 404
    NotFound,
    /// 405
    ResourceLocked,
    /// 406
    PreconditionFailed,
    /// 501
    FrameError,
    /// 502
    SyntaxError,
    /// 503
    CommandInvalid,
    /// 504
    ChannelError,
    /// 505
    UnexpectedFrame,
    /// 506
    ResourceError,
    /// 530
    NotAllowed,
    /// 540
    NotImplemented,
    /// 541
    InternalError,
}

impl Code {
    /// The number on the wire.
    pub fn number(self) -> u16 {
        match self {
            Self::NoRoute => 312,
            Self::ConnectionForced => 320,
            Self::AccessRefused => 403,
            Self::NotFound => 404,
            Self::ResourceLocked => 405,
            Self::PreconditionFailed => 406,
            Self::FrameError => 501,
            Self::SyntaxError => 502,
            Self::CommandInvalid => 503,
            Self::ChannelError => 504,
            Self::UnexpectedFrame => 505,
            Self::ResourceError => 506,
            Self::NotAllowed => 530,
            Self::NotImplemented => 540,
            Self::InternalError => 541,
        }
    }

    /// The name in front of a reply text.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoRoute => "NO_ROUTE",
            Self::ConnectionForced => "CONNECTION_FORCED",
            Self::AccessRefused => "ACCESS_REFUSED",
            Self::NotFound => "NOT_FOUND",
            Self::ResourceLocked => "RESOURCE_LOCKED",
            Self::PreconditionFailed => "PRECONDITION_FAILED",
            Self::FrameError => "FRAME_ERROR",
            Self::SyntaxError => "SYNTAX_ERROR",
            Self::CommandInvalid => "COMMAND_INVALID",
            Self::ChannelError => "CHANNEL_ERROR",
            Self::UnexpectedFrame => "UNEXPECTED_FRAME",
            Self::ResourceError => "RESOURCE_ERROR",
            Self::NotAllowed => "NOT_ALLOWED",
            Self::NotImplemented => "NOT_IMPLEMENTED",
            Self::InternalError => "INTERNAL_ERROR",
        }
    }
}

/// Why a channel or the whole connection has to be closed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The whole connection, not only the channel.
    pub is_connection: bool,
    /// Reply code.
    pub code: Code,
    /// Reply text, without the code's name in front.
    pub text: String,
    /// Class and method of the offending frame, if they are known yet; zeros tell the client that
    /// it is none in particular.
    pub method: Option<(u16, u16)>,
}

impl Failure {
    /// Closes the channel.
    pub fn channel(code: Code, text: impl Into<String>) -> Self {
        Self { is_connection: false, code, text: text.into(), method: None }
    }

    /// Closes the connection.
    pub fn connection(code: Code, text: impl Into<String>) -> Self {
        Self { is_connection: true, code, text: text.into(), method: None }
    }

    /// Names the offending method, unless one is named.
    #[must_use]
    pub fn at(mut self, method: (u16, u16)) -> Self {
        self.method = self.method.or(Some(method));
        self
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::NotFound { .. } => Self::channel(Code::NotFound, text),
            Error::Locked { .. } => Self::channel(Code::ResourceLocked, text),
            // The method's name stands in the text, which the core does not know.
            Error::SingleActiveGet { .. } => {
                Self::channel(Code::ResourceLocked, text.replace("Single gets are", "basic.get operations are"))
            }
            Error::Inequivalent(_)
            | Error::Argument(_)
            | Error::InUse { .. }
            | Error::NotEmpty { .. }
            | Error::LimitReached(_) => Self::channel(Code::PreconditionFailed, text),
            Error::Reserved { .. }
            | Error::DefaultExchange
            | Error::SystemExchange { .. }
            | Error::ExclusiveUse { .. } => Self::channel(Code::AccessRefused, text),
            Error::UnknownExchangeType(_) | Error::InvalidExchangeType(_) => {
                Self::connection(Code::CommandInvalid, text)
            }
            Error::NotImplemented(_) => Self::connection(Code::NotImplemented, text),
        }
    }
}
