//! Policies: settings that apply to queues and exchanges by the pattern of their name.
//!
//! At most one policy and one operator policy hold for an object: those of the highest priority
//! that match it. Where both set a key, the operator's word limits or replaces the user's.
//!
//! - `rule`: one policy, and what it may apply to;
//! - `keys`: which keys exist, their checks, how two values of one key merge;
//! - `registry`: the policies of all vhosts, and which hold for an object;
//! - `settings`: the typed form that queues and exchanges use.

mod keys;
mod registry;
mod rule;
mod settings;

pub use registry::{Effective, Policies};
pub use rule::{ApplyTo, Definition, Layer, ObjectKind, Policy, PolicyError, PolicyParts};
pub use settings::{ExchangePolicy, QueuePolicy};
