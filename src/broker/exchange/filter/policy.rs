//! One compiled filter policy, and why a text is none.

use std::fmt;

use super::compile;
use super::matcher::Matcher;
use super::policies::Policies;
use super::scan;
use super::subject::Subject;

/// What of a message a policy looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Its attributes.
    #[default]
    Attributes,
    /// Its body, which must be a JSON object.
    Body,
}

impl Scope {
    /// The scope of that name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "MessageAttributes" => Some(Self::Attributes),
            "MessageBody" => Some(Self::Body),
            _ => None,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Attributes => "MessageAttributes",
            Self::Body => "MessageBody",
        }
    }
}

/// A filter policy, compiled.
///
/// Two policies are equal when they accept the same for the same reasons, however they were written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    scope: Scope,
    branches: Box<[Branch]>,
}

/// Conditions that must all be satisfied, ordered by path.
pub(super) type Branch = Vec<Condition>;

/// The alternatives for one name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Condition {
    /// Names from the outermost, joined by points. A point in a name reads the same: `{"a.b": ..}` and
    /// `{"a": {"b": ..}}` are one path, in policies as in bodies.
    pub(super) path: Box<str>,
    pub(super) matchers: Box<[Matcher]>,
    /// How many alternatives were written.
    pub(super) alternatives_count: usize,
    /// How many objects deep they were written.
    pub(super) depth: usize,
}

/// Why a text is no filter policy. Reads as what its author is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyError {
    /// It is no JSON: the reason and where.
    Syntax(String),
    /// It is no policy: the reason and, mostly, where.
    Refused(String),
    /// Attributes have no attributes of their own.
    Nested,
    /// More than five names have alternatives.
    TooManyNames,
    /// More than 150 combinations of values.
    TooComplex,
    /// More than 256 KiB of text.
    TooLong,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(reason) | Self::Refused(reason) => write!(f, "FilterPolicy: {reason}"),
            Self::Nested => f.write_str("Filter policy scope MessageAttributes does not support nested filter policy"),
            Self::TooManyNames => {
                write!(f, "FilterPolicy: Filter policy can not have more than {} keys", compile::NAMES_MAX)
            }
            Self::TooComplex => f.write_str("FilterPolicy: Filter policy is too complex"),
            Self::TooLong => {
                write!(f, "FilterPolicy: Filter policy is longer than {} bytes", compile::POLICY_BYTES_MAX)
            }
        }
    }
}

impl std::error::Error for PolicyError {}

impl Policy {
    /// Compiles the text of a policy.
    pub fn parse(text: &str, scope: Scope) -> Result<Self, PolicyError> {
        Ok(Self { scope, branches: compile::compile(text, scope)?.into() })
    }

    /// What it looks at.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// Whether it accepts this message. For many policies use [`Policies`].
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        let mut one = Policies::default();
        one.add(&(), Some(self));
        let mut out = Vec::new();
        one.route(subject, &mut out);
        !out.is_empty()
    }

    pub(super) fn branches(&self) -> &[Branch] {
        &self.branches
    }
}

/// What the author of a JSON text is told when it is none: `failed to parse JSON. ...` and where.
pub fn json_error(text: &str) -> Option<String> {
    scan::tokens(text).err().map(|error| error.to_string())
}
