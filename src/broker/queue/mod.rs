//! Queues: the declaration and its rules, the state machine, and the handle that is shared.

pub mod arguments;
pub mod behaviour;
pub mod cold;
pub mod consumers;
pub mod dedup;
mod handed;
mod handle;
pub mod leases;
pub mod machine;
pub mod properties;
pub mod ready;
pub mod retries;
pub mod selective;
pub mod settings;
pub mod stream;
pub mod unsettled;
pub mod usage;

pub use handle::{ConsumerStatus, DeadLetterTarget, PolicyNames, Queue, QueueDeclaration, QueueStatus, Takes};
