//! Exchanges as pure routing: bindings in, the targets of a message out.
//!
//! A [`Router`] holds the bindings of one exchange and finds the targets of a message. It knows no
//! queue, no lock and no other exchange: targets are opaque, walking from exchange to exchange and
//! alternate exchanges belong to whoever owns it. What some kinds keep besides bindings is here
//! too: the messages that [`RecentHistory`] replays and those that wait in [`Holds`].

mod bindings;
mod consistent_hash;
pub mod delayed;
mod direct;
pub mod envelopes;
mod fanout;
pub mod filter;
pub mod filtered;
mod handle;
mod headers;
pub mod holds;
mod modulus_hash;
mod random;
pub mod recent_history;
mod stable_hash;
mod target_set;
mod topic;

use std::fmt;
use std::hash::Hash;

pub use bindings::Binding;
use bindings::{Bindings, dedup_from, sorted};
pub use consistent_hash::WEIGHT_MAX;
pub use delayed::{delay_ms, released_headers};
use envelopes::Label;
pub(in crate::broker) use handle::Passage;
pub use handle::{Declaration, Exchange, Replaced, Target};
pub use holds::Holds;
pub use recent_history::RecentHistory;

use crate::broker::{
    message::Message,
    value::{Headers, Table, Value},
};

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
    /// To bindings whose filter the message passes.
    Filtered,
    /// To nobody: it holds the scheduled messages of its vhost. Clients cannot declare one.
    Schedule,
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
/// What the kind is called whose bindings have filters.
pub const FILTERED: &str = "x-sns";
/// What the kind is called that clients cannot declare.
const SCHEDULE: &str = "x-tern-schedule";

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
                if inner == name || inner == SCHEDULE {
                    return Err(KindError::delayed_type());
                }
                Self::Delayed(Box::new(Self::parse(&inner, arguments)?))
            }
            FILTERED => Self::Filtered,
            SCHEDULE => Self::Schedule,
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
            Self::Filtered => FILTERED,
            Self::Schedule => SCHEDULE,
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

/// Looks up a property of a message by name.
pub type Property<'a> = dyn Fn(&str) -> Option<Vec<u8>> + 'a;

/// What a message offers to routing.
#[derive(Clone, Copy)]
pub struct Routing<'a> {
    /// The routing key.
    pub key: &'a [u8],
    /// The headers.
    pub headers: Headers<'a>,
    /// The message's `message_id`, `correlation_id` or `timestamp` (in decimal digits) by name.
    pub property: Option<&'a Property<'a>>,
    /// A random number, new for each message.
    pub random: u64,
    /// The message itself, for bindings that look into its body.
    pub message: Option<&'a Message>,
    /// Who knows what of a message filters see.
    pub renderer: Option<&'a dyn envelopes::Renderer>,
}

impl<'a> Routing<'a> {
    /// A message with a key and nothing else.
    pub fn by_key(key: &'a [u8]) -> Self {
        Self { key, headers: Headers::default(), property: None, random: 0, message: None, renderer: None }
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
    ConsistentHash(Box<consistent_hash::ConsistentHash<T>>),
    ModulusHash,
    Random { is_local: bool },
    Filtered(Box<filtered::Filtered<T>>),
}

impl<T: Clone + Eq + Hash> Router<T> {
    /// A router without bindings. `arguments` are those of the exchange.
    pub fn new(kind: &Kind, arguments: &Table) -> Result<Self, KindError> {
        let shape = match kind {
            Kind::Direct | Kind::Schedule => Shape::Direct(direct::Direct::default()),
            Kind::Fanout => Shape::Fanout(fanout::Fanout::default()),
            Kind::RecentHistory => {
                recent_history::length(arguments)?;
                Shape::Fanout(fanout::Fanout::default())
            }
            Kind::Topic => Shape::Topic(Box::default()),
            Kind::Headers => Shape::Headers(Box::default()),
            Kind::Delayed(inner) => return Self::new(inner, arguments),
            Kind::ConsistentHash => Shape::ConsistentHash(Box::new(consistent_hash::ConsistentHash::new(arguments)?)),
            Kind::ModulusHash => Shape::ModulusHash,
            Kind::Random => Shape::Random { is_local: false },
            Kind::LocalRandom => Shape::Random { is_local: true },
            Kind::Filtered => Shape::Filtered(Box::default()),
        };
        Ok(Self { bindings: Bindings::default(), shape })
    }

    /// Adds a binding. `Ok(false)`: one with this target, key and arguments was there already.
    pub fn bind(&mut self, target: T, key: &[u8], arguments: &Table) -> Result<bool, BindError> {
        let mut weight = 0;
        match &self.shape {
            Shape::Headers(_) => headers::check(arguments)?,
            Shape::ConsistentHash(_) => weight = consistent_hash::weight(key)?,
            Shape::Random { is_local: true } => random::check_local(key)?,
            Shape::Filtered(_) => filtered::check(arguments)?,
            _ => {}
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
            Shape::ConsistentHash(hash) => hash.add(&target, weight),
            Shape::Filtered(filtered) => filtered.add(&target, &arguments),
            Shape::ModulusHash | Shape::Random { .. } => {}
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
            Shape::Filtered(filtered) => filtered.remove(target, arguments),
            Shape::ConsistentHash(hash) => {
                let other = self.bindings.first_of(target);
                hash.remove(target, other.and_then(|other| consistent_hash::weight(&other.key).ok()));
            }
            Shape::ModulusHash | Shape::Random { .. } => {}
        }
    }

    /// Appends the targets of a message to `out`, each at most once per call.
    pub fn route(&self, routing: &Routing<'_>, out: &mut Vec<T>) {
        self.route_wrapped(routing, out, &mut Vec::new());
    }

    /// The same, and appends those targets that want the message wrapped to `wrapped`.
    pub fn route_wrapped(&self, routing: &Routing<'_>, out: &mut Vec<T>, wrapped: &mut Vec<(T, Label)>) {
        let start = out.len();
        match &self.shape {
            Shape::Direct(direct) => return direct.route(routing.key, out),
            Shape::Fanout(fanout) => return fanout.route(out),
            Shape::Topic(topic) => topic.route(routing.key, out),
            Shape::Headers(headers) => headers.route(routing.headers, out),
            Shape::ConsistentHash(hash) => out.extend(hash.route(routing).cloned()),
            Shape::ModulusHash => out.extend(modulus_hash::route(&self.bindings, routing.key).cloned()),
            Shape::Random { .. } => out.extend(random::route(&self.bindings, routing.random).cloned()),
            Shape::Filtered(filtered) => filtered.route(routing, out, wrapped),
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
            Shape::Direct(_) | Shape::Fanout(_) | Shape::Topic(_) | Shape::ModulusHash => true,
            Shape::ConsistentHash(hash) => hash.hashes_key(),
            Shape::Headers(_) | Shape::Random { .. } | Shape::Filtered(_) => false,
        }
    }

    /// A message with several routing keys is routed by each of them; otherwise once, by its first.
    pub fn routes_every_key(&self) -> bool {
        matches!(&self.shape, Shape::Direct(_) | Shape::Topic(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [&str; 11] = [
        "direct",
        "fanout",
        "topic",
        "headers",
        "x-consistent-hash",
        "x-modulus-hash",
        "x-random",
        "x-local-random",
        "x-recent-history",
        "x-delayed-message",
        "x-sns",
    ];

    fn delayed(inner: &str) -> Table {
        [(DELAYED_TYPE, Value::text(inner))].into_iter().collect()
    }

    fn router(kind: &str) -> Router<u32> {
        let arguments = delayed("topic");
        Router::new(&Kind::parse(kind, &arguments).unwrap(), &arguments).unwrap()
    }

    fn routed(router: &Router<u32>, key: &[u8]) -> Vec<u32> {
        let mut out = Vec::new();
        router.route(&Routing::by_key(key), &mut out);
        out.sort_unstable();
        out
    }

    /// A key that every kind takes.
    fn key(kind: &str, n: u32) -> Vec<u8> {
        if kind == "x-local-random" { Vec::new() } else { format!("{}", n + 1).into_bytes() }
    }

    #[test]
    fn every_kind_is_called_what_it_was_parsed_from() {
        for name in KINDS {
            assert_eq!(Kind::parse(name, &delayed("fanout")).unwrap().name(), name);
        }
    }

    #[test]
    fn an_unknown_kind_is_named() {
        let error = Kind::parse("zzz", &Table::new()).unwrap_err();
        assert_eq!(error, KindError::Unknown("zzz".to_owned()));
        assert_eq!(error.to_string(), "unknown exchange type 'zzz'");
        assert_eq!(Kind::parse("x-delayed-message", &delayed("zzz")).unwrap_err(), error);
    }

    #[test]
    fn a_delayed_exchange_needs_an_inner_kind_other_than_itself() {
        for arguments in [Table::new(), delayed("x-delayed-message")] {
            let error = Kind::parse("x-delayed-message", &arguments).unwrap_err();
            assert!(matches!(error, KindError::InvalidArgument(_)), "{error}");
        }
        let kind = Kind::parse("x-delayed-message", &delayed("topic")).unwrap();
        assert_eq!(kind.routing(), &Kind::Topic);
    }

    #[test]
    fn arguments_are_checked_for_the_inner_kind_too() {
        let mut arguments = delayed("x-consistent-hash");
        arguments.push("hash-property", Value::text("app_id"));
        let kind = Kind::parse("x-delayed-message", &arguments).unwrap();
        assert!(Router::<u32>::new(&kind, &arguments).is_err());
    }

    #[test]
    fn binding_twice_is_once_and_unbinding_what_is_not_there_does_nothing() {
        for kind in KINDS {
            let mut router = router(kind);
            assert_eq!(router.bind(1, b"", &Table::new()).is_ok(), kind != "x-consistent-hash", "{kind}");
            router.unbind(&1, b"", &Table::new());
            let key = key(kind, 1);
            assert_eq!(router.bind(1, &key, &Table::new()), Ok(true), "{kind}");
            assert_eq!(router.bind(1, &key, &Table::new()), Ok(false), "{kind}");
            assert!(!router.unbind(&2, &key, &Table::new()), "{kind}");
            assert!(router.unbind(&1, &key, &Table::new()), "{kind}");
            assert!(!router.unbind(&1, &key, &Table::new()), "{kind}");
            assert!(router.is_empty(), "{kind}");
            assert!(routed(&router, &key).is_empty(), "{kind}");
        }
    }

    #[test]
    fn the_order_of_argument_names_does_not_tell_bindings_apart() {
        let mut router = router("fanout");
        let entries = [("a", Value::I32(1)), ("b", Value::I32(2))];
        let forward: Table = entries.clone().into_iter().collect();
        let backward: Table = entries.into_iter().rev().collect();
        assert_eq!(router.bind(1, b"", &forward), Ok(true));
        assert_eq!(router.bind(1, b"", &backward), Ok(false));
        assert!(router.unbind(&1, b"", &backward));
    }

    #[test]
    fn a_target_of_several_matching_bindings_is_found_once() {
        for kind in KINDS {
            let mut router = router(kind);
            for n in 0..3 {
                let arguments = Table::from_iter([("x-n", Value::I32(n))]);
                let key = if kind == "topic" || kind == "x-delayed-message" { b"#".to_vec() } else { key(kind, 0) };
                assert_eq!(router.bind(7, &key, &arguments), Ok(true));
            }
            router.bind(7, &key(kind, 0), &Table::new()).unwrap();
            assert_eq!(routed(&router, b"1"), [7], "{kind}");
        }
    }

    #[test]
    fn targets_found_by_an_earlier_call_are_left_alone() {
        let mut router = router("topic");
        router.bind(1, b"#", &Table::new()).unwrap();
        router.bind(1, b"*", &Table::new()).unwrap();
        let mut out = vec![1];
        router.route(&Routing::by_key(b"k"), &mut out);
        assert_eq!(out, [1, 1]);
    }

    #[test]
    fn unbinding_a_target_leaves_the_others() {
        for kind in KINDS {
            let mut router = router(kind);
            for n in 0..20 {
                for target in [1, 2] {
                    let arguments = Table::from_iter([("n", Value::U32(n))]);
                    router.bind(target, &key(kind, n), &arguments).unwrap();
                }
            }
            assert_eq!(router.unbind_target(&1).len(), 20, "{kind}");
            assert_eq!(router.len(), 20, "{kind}");
            assert!(router.bindings().all(|binding| binding.target == 2), "{kind}");
            let mut out = Vec::new();
            let mut headers = Vec::new();
            Table::from_iter([("n", Value::U32(3))]).encode(&mut headers);
            router.route(&Routing { headers: Headers::new(&headers), ..Routing::by_key(b"3") }, &mut out);
            assert_eq!(out, [2], "{kind}");
        }
    }

    #[test]
    fn a_refused_binding_changes_nothing() {
        for (kind, key, arguments) in [
            ("headers", &b""[..], Table::from_iter([("x-match", Value::text("zzz"))])),
            ("x-consistent-hash", b"abc", Table::new()),
            ("x-local-random", b"k", Table::new()),
        ] {
            let mut router = router(kind);
            assert!(router.bind(1, key, &arguments).is_err(), "{kind}");
            assert!(router.is_empty(), "{kind}");
        }
    }

    #[test]
    fn one_of_many_gets_the_message_and_all_of_them_in_turn() {
        for kind in ["x-consistent-hash", "x-modulus-hash", "x-random", "x-local-random"] {
            let mut router = router(kind);
            (0..5).for_each(|n| drop(router.bind(n, if kind == "x-local-random" { b"" } else { b"1" }, &Table::new())));
            let mut seen = std::collections::BTreeSet::new();
            for n in 0..200_u64 {
                let mut out = Vec::new();
                router.route(&Routing { random: n, ..Routing::by_key(&n.to_be_bytes()) }, &mut out);
                assert_eq!(out.len(), 1, "{kind}");
                seen.extend(out);
            }
            assert_eq!(seen.len(), 5, "{kind}");
        }
    }

    #[test]
    fn targets_may_be_remembered_by_key_only_where_nothing_else_counts() {
        for kind in KINDS {
            let expected = !matches!(kind, "headers" | "x-random" | "x-local-random" | "x-sns");
            assert_eq!(router(kind).routes_by_key_alone(), expected, "{kind}");
        }
        let by_header = Table::from_iter([("hash-header", Value::text("h"))]);
        let router = Router::<u32>::new(&Kind::ConsistentHash, &by_header).unwrap();
        assert!(!router.routes_by_key_alone());
    }
}
