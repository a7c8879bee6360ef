//! An exchange whose bindings say themselves what they take: each has a filter over the message, or takes
//! everything.
//!
//! The arguments of a binding: `x-filter-policy` (the filter, as text), `x-filter-policy-scope` (what it
//! looks at), `x-envelope` (text: the queue takes messages wrapped, and this is the binding's label) and
//! `x-paused` (it takes nothing for now).

use std::{borrow::Cow, hash::Hash, sync::Arc};

use super::{
    BindError, Routing,
    envelopes::{Label, Renderer},
    filter::{Policies, Policy, Scope, Subject},
};
use crate::broker::{
    message::Message,
    value::{Table, Value},
};

/// The argument of a binding that holds its filter.
pub const POLICY: &str = "x-filter-policy";
/// The argument that says what the filter looks at.
pub const SCOPE: &str = "x-filter-policy-scope";
/// The argument that asks for the message in an envelope.
pub const ENVELOPE: &str = "x-envelope";
/// The argument that has a binding take nothing for now.
pub const PAUSED: &str = "x-paused";

/// The bindings of one exchange, found by their filters.
#[derive(Debug)]
pub(super) struct Filtered<T> {
    /// Those that take something.
    policies: Policies<(T, Option<Label>)>,
}

impl<T: Clone + Eq + Hash> Default for Filtered<T> {
    fn default() -> Self {
        Self { policies: Policies::default() }
    }
}

/// The arguments of a binding, understood.
struct Parsed {
    policy: Option<Policy>,
    label: Option<Label>,
    is_paused: bool,
}

/// Whether a binding may have these arguments.
pub(super) fn check(arguments: &Table) -> Result<(), BindError> {
    parse(arguments).map(drop)
}

fn parse(arguments: &Table) -> Result<Parsed, BindError> {
    let wrong_type = |name: &str, value: &Value| {
        BindError(format!("invalid type '{}' for arg '{name}' of a binding", value.kind_name()))
    };
    let text = |name: &str| match arguments.get(name) {
        None => Ok(None),
        Some(value) => value.as_text().map(Some).ok_or_else(|| wrong_type(name, value)),
    };
    let scope = match text(SCOPE)? {
        None => Scope::Attributes,
        Some(name) => {
            let unknown = || BindError(format!("invalid arg '{SCOPE}' of a binding: unknown scope '{name}'"));
            Scope::parse(name).ok_or_else(unknown)?
        }
    };
    let label = text(ENVELOPE)?.map(|label| Arc::from(label.as_bytes()));
    let is_paused = match arguments.get(PAUSED) {
        None => false,
        Some(Value::Bool(is_paused)) => *is_paused,
        Some(value) => return Err(wrong_type(PAUSED, value)),
    };
    let policy = match text(POLICY)? {
        None => None,
        Some(policy) => Some(Policy::parse(policy, scope).map_err(|error| BindError(error.to_string()))?),
    };
    Ok(Parsed { policy, label, is_paused })
}

/// What one binding takes, for those who deliver messages that did not come through it.
#[derive(Debug)]
pub struct Intake(Filtered<()>);

impl Intake {
    /// Of a binding with these arguments, whether it is paused or not.
    pub fn new(arguments: &Table) -> Result<Self, BindError> {
        let Parsed { policy, .. } = parse(arguments)?;
        let mut filtered = Filtered::default();
        filtered.policies.add(&((), None), policy.as_ref());
        Ok(Self(filtered))
    }

    /// Whether it takes a message.
    pub fn takes(&self, message: &Message, renderer: Option<&dyn Renderer>) -> bool {
        let (key, headers) = (message.key(), message.headers());
        let routing = Routing { headers, message: Some(message), renderer, ..Routing::by_key(key) };
        let mut found = Vec::new();
        self.0.route(&routing, &mut found, &mut Vec::new());
        !found.is_empty()
    }
}

impl<T: Clone + Eq + Hash> Filtered<T> {
    /// Adds a binding whose arguments were checked.
    pub(super) fn add(&mut self, target: &T, arguments: &Table) {
        if let Ok(Parsed { policy, label, is_paused: false }) = parse(arguments) {
            self.policies.add(&(target.clone(), label), policy.as_ref());
        }
    }

    /// Removes a binding.
    pub(super) fn remove(&mut self, target: &T, arguments: &Table) {
        if let Ok(Parsed { policy, label, is_paused: false }) = parse(arguments) {
            self.policies.remove(&(target.clone(), label), policy.as_ref());
        }
    }

    /// Appends the targets of a message, and those of them that want it wrapped with their labels.
    pub(super) fn route(&self, routing: &Routing<'_>, out: &mut Vec<T>, wrapped: &mut Vec<(T, Label)>) {
        let body = routing.message.map(|message| match message.body_contiguous() {
            Some(body) => Cow::Borrowed(body),
            None => Cow::Owned(message.body_to_vec()),
        });
        let body = body.as_deref().unwrap_or_default();
        let subject = match (routing.renderer, routing.message) {
            (Some(renderer), Some(message)) => renderer.subject(message, body),
            _ => Subject::from_headers(routing.headers, body, |_| true),
        };
        let mut found = Vec::new();
        self.policies.route(&subject, &mut found);
        for (target, label) in found {
            out.push(target.clone());
            wrapped.extend(label.map(|label| (target, label)));
        }
    }
}
