//! Filter policies: which messages of a topic a subscription wants, in the JSON grammar that cloud notification
//! services use.
//!
//! ```text
//! {"kind": ["order"], "price": [{"numeric": [">=", 100]}], "$or": [{"store": [{"prefix": "eu-"}]}, {"vip": [true]}]}
//! ```
//!
//! A [`Policy`] is compiled once ([`compile`], with positions from [`scan`]). [`Policies`] keeps the policies of a
//! topic as an index over what they compare, so that a message costs a lookup for each of its attributes and a
//! comparison for each different operator on them, however many policies share them. A message is shown to it as a
//! [`Subject`]; policies over bodies cost one pass over the body ([`body`]), in which only what some policy names is
//! kept.

mod body;
mod compile;
mod consistency;
mod index;
mod matcher;
mod number;
mod policies;
mod policy;
mod scan;
mod subject;
#[cfg(test)]
mod tests;

pub use number::Number;
pub use policies::Policies;
pub use policy::{Policy, PolicyError, Scope, json_error};
pub use subject::{Attribute, Subject};
