//! Exchanges as pure routing: bindings in, the targets of a message out.
//!
//! A [`Router`] holds the bindings of one exchange and finds the targets of a message. It knows no
//! queue, no lock and no other exchange: targets are opaque, walking from exchange to exchange and
//! alternate exchanges belong to whoever owns it. What some kinds keep besides bindings is here
//! too: the messages that [`RecentHistory`] replays and those that [`Delayed`] holds back.

mod bindings;
mod direct;
mod fanout;
mod headers;
mod target_set;
mod term;
mod topic;

use std::fmt;
use std::hash::Hash;

pub use bindings::Binding;
use bindings::{Bindings, dedup_from, sorted};

use crate::broker::value::{Headers, Table, Value};

/// How an exchange routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To bindings whose key is the routing key.
    Direct,
    /// To all bindings.
    Fanout,
    /// To bindings whose pattern fits the routing key.
    Topic,
    /// To bindings whose arguments match the message's headers.
    Headers,
    /// To one binding by the hash of the routing key, a header or a property, in shares by weight.
    ConsistentHash,
    /// To one binding by the hash of the routing key modulo their number.
    ModulusHash,
    /// To one binding at random.
    Random,
    /// To one binding at random; bindings must have an empty key.
    LocalRandom,
    /// To all bindings, and the latest messages to each new binding.
    RecentHistory,
    /// Like the inner kind, after the delay that the message asks for.
    Delayed(Box<Kind>),
}

/// Why an exchange cannot be declared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KindError {
    /// There is no such kind.
    #[error("unknown exchange type '{0}'")]
    Unknown(String),
    /// The kind does not take these arguments; the text says why.
    #[error("{0}")]
    InvalidArgument(String),
}

/// Why a binding is refused; the text is for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BindError(pub String);

/// The argument that names the inner kind of a delayed exchange.
const DELAYED_TYPE: &str = "x-delayed-type";

impl Kind {
    /// The kind of that name. `arguments` are those of the exchange.
    pub fn parse(name: &str, arguments: &Table) -> Result<Self, KindError> {
        Ok(match name {
            "direct" => Self::Direct,
            "fanout" => Self::Fanout,
            "topic" => Self::Topic,
            "headers" => Self::Headers,
            "x-consistent-hash" => Self::ConsistentHash,
            "x-modulus-hash" => Self::ModulusHash,
            "x-random" => Self::Random,
            "x-local-random" => Self::LocalRandom,
            "x-recent-history" => Self::RecentHistory,
            "x-delayed-message" => {
                let inner = match arguments.get(DELAYED_TYPE) {
                    Some(Value::Text(inner) | Value::Bytes(inner)) => String::from_utf8_lossy(inner),
                    _ => return Err(KindError::delayed_type()),
                };
                // A delayed exchange inside itself would never come to a kind that routes.
                if inner == name {
                    return Err(KindError::delayed_type());
                }
                Self::Delayed(Box::new(Self::parse(&inner, arguments)?))
            }
            _ => return Err(KindError::Unknown(name.to_owned())),
        })
    }

    /// The name of the kind, as clients write it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
            Self::ConsistentHash => "x-consistent-hash",
            Self::ModulusHash => "x-modulus-hash",
            Self::Random => "x-random",
            Self::LocalRandom => "x-local-random",
            Self::RecentHistory => "x-recent-history",
            Self::Delayed(_) => "x-delayed-message",
        }
    }

    /// The kind that routes: the inner kind of a delayed exchange, else the kind itself.
    pub fn routing(&self) -> &Self {
        match self {
            Self::Delayed(inner) => inner.routing(),
            kind => kind,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl KindError {
    /// Spelt as the plugin spells it: clients compare texts.
    fn delayed_type() -> Self {
        Self::InvalidArgument("Invalid argument, 'x-delayed-type' must bean existing exchnage type".to_owned())
    }
}

/// What a message offers to routing.
#[derive(Clone, Copy)]
pub struct Routing<'a> {
    /// The routing key.
    pub key: &'a [u8],
    /// The headers.
    pub headers: Headers<'a>,
    /// The message's `message_id`, `correlation_id` or `timestamp` (in decimal digits) by name.
    pub property: Option<&'a dyn Fn(&str) -> Option<Vec<u8>>>,
    /// A random number, new for each message.
    pub random: u64,
}

impl<'a> Routing<'a> {
    /// A message with a key and nothing else.
    pub fn by_key(key: &'a [u8]) -> Self {
        Self { key, headers: Headers::default(), property: None, random: 0 }
    }
}

/// The bindings of one exchange and the structure that finds them.
#[derive(Debug)]
pub struct Router<T> {
    bindings: Bindings<T>,
    shape: Shape<T>,
}

#[derive(Debug)]
enum Shape<T> {
    Direct(direct::Direct<T>),
    Fanout(fanout::Fanout<T>),
    Topic(Box<topic::Topic<T>>),
    Headers(Box<headers::ByHeaders<T>>),
}

impl<T: Clone + Eq + Hash> Router<T> {
    /// A router without bindings. `arguments` are those of the exchange.
    pub fn new(kind: &Kind, arguments: &Table) -> Result<Self, KindError> {
        let shape = match kind {
            Kind::Direct => Shape::Direct(direct::Direct::default()),
            Kind::Fanout | Kind::RecentHistory => Shape::Fanout(fanout::Fanout::default()),
            Kind::Topic => Shape::Topic(Box::default()),
            Kind::Headers => Shape::Headers(Box::default()),
            Kind::Delayed(inner) => return Self::new(inner, arguments),
            _ => return Err(KindError::Unknown(kind.name().to_owned())),
        };
        Ok(Self { bindings: Bindings::default(), shape })
    }

    /// Adds a binding. `Ok(false)`: one with this target, key and arguments was there already.
    pub fn bind(&mut self, target: T, key: &[u8], arguments: &Table) -> Result<bool, BindError> {
        if let Shape::Headers(_) = &self.shape {
            headers::check(arguments)?;
        }
        let arguments = sorted(arguments);
        if !self.bindings.insert(&target, key, &arguments) {
            return Ok(false);
        }
        match &mut self.shape {
            Shape::Direct(direct) => direct.add(&target, key),
            Shape::Fanout(fanout) => fanout.add(&target),
            Shape::Topic(topic) => topic.add(&target, key),
            Shape::Headers(headers) => headers.add(&target, &arguments),
        }
        Ok(true)
    }

    /// Removes the binding with this target, key and arguments; false when there is none.
    pub fn unbind(&mut self, target: &T, key: &[u8], arguments: &Table) -> bool {
        let Some(binding) = self.bindings.remove(target, key, &sorted(arguments)) else { return false };
        self.forget(&binding);
        true
    }

    /// Removes all bindings to a target, which costs nothing for the bindings to others.
    pub fn unbind_target(&mut self, target: &T) -> Vec<Binding<T>> {
        let mut removed = Vec::new();
        while let Some(binding) = self.bindings.remove_first_of(target) {
            self.forget(&binding);
            removed.push(binding);
        }
        removed
    }

    fn forget(&mut self, binding: &Binding<T>) {
        let Binding { target, key, arguments } = binding;
        match &mut self.shape {
            Shape::Direct(direct) => direct.remove(target, key),
            Shape::Fanout(fanout) => fanout.remove(target),
            Shape::Topic(topic) => topic.remove(target, key),
            Shape::Headers(headers) => headers.remove(target, arguments),
        }
    }

    /// Appends the targets of a message to `out`, each at most once per call.
    pub fn route(&self, routing: &Routing<'_>, out: &mut Vec<T>) {
        let start = out.len();
        match &self.shape {
            Shape::Direct(direct) => return direct.route(routing.key, out),
            Shape::Fanout(fanout) => return fanout.route(out),
            Shape::Topic(topic) => topic.route(routing.key, out),
            Shape::Headers(headers) => headers.route(routing.headers, out),
        }
        if self.bindings.has_shared_targets() && out.len() > start + 1 {
            dedup_from(out, start);
        }
    }

    /// All bindings, in no particular order.
    pub fn bindings(&self) -> impl Iterator<Item = &Binding<T>> {
        self.bindings.iter()
    }

    /// Number of bindings.
    pub fn len(&self) -> usize {
        self.bindings.len()
    }

    /// True without bindings.
    pub fn is_empty(&self) -> bool {
        self.bindings.len() == 0
    }

    /// The targets depend on the routing key alone, so that they may be remembered by key until
    /// the bindings change.
    pub fn routes_by_key_alone(&self) -> bool {
        match &self.shape {
            Shape::Direct(_) | Shape::Fanout(_) | Shape::Topic(_) => true,
            Shape::Headers(_) => false,
        }
    }
}
