//! What selectors and message groups look at: the fields of a message by name, and the group that it
//! belongs to.
//!
//! The broker knows no names. Whoever encodes properties registers one [`Fields`] with it, before
//! anybody publishes.

use std::sync::Arc;

use super::{
    Broker,
    message::Message,
    selector::{Selector, Value},
};

/// A message that a selector looks at.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'m> {
    /// The message.
    pub message: &'m Message,
    /// It was delivered before.
    pub redelivered: bool,
}

impl<'m> Subject<'m> {
    /// A message that was not delivered yet.
    pub fn new(message: &'m Message) -> Self {
        Self { message, redelivered: false }
    }
}

/// The group that a message belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group<'m> {
    /// Its name.
    pub name: &'m [u8],
    /// This message is the last one of it: the next one begins it anew.
    pub is_last: bool,
}

/// Reads the fields of messages.
pub trait Fields: Send + Sync {
    /// What that name stands for.
    fn field<'m>(&self, subject: Subject<'m>, name: &str) -> Value<'m>;

    /// The group of a message. Asked only of those that [`Traits`](super::message::Traits) says have one.
    fn group<'m>(&self, message: &'m Message) -> Option<Group<'m>>;
}

/// Messages without fields and groups, until somebody says otherwise.
struct NoFields;

impl Fields for NoFields {
    fn field<'m>(&self, _: Subject<'m>, _: &str) -> Value<'m> {
        Value::Null
    }

    fn group<'m>(&self, _: &'m Message) -> Option<Group<'m>> {
        None
    }
}

/// Whether a message is what a selector asks for.
pub fn selects(selector: &Selector, fields: &dyn Fields, subject: Subject<'_>) -> bool {
    selector.matches(&|name| fields.field(subject, name))
}

impl Broker {
    /// Has the fields of messages read by that; the first call counts.
    pub fn attach_fields(&self, fields: Arc<dyn Fields>) {
        self.fields.get_or_init(|| fields);
    }

    /// Who reads the fields of messages.
    pub fn fields(&self) -> Arc<dyn Fields> {
        self.fields.get().cloned().unwrap_or_else(|| Arc::new(NoFields))
    }

    /// Whether a message that is published is what a selector asks for.
    pub fn selects(&self, selector: &Selector, message: &Message) -> bool {
        self.fields.get().is_some_and(|fields| selects(selector, &**fields, Subject::new(message)))
    }
}
