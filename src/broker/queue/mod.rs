//! Queues: what waits in them, in which order, for how long, and where it goes afterwards.

pub mod arguments;
pub mod dedup;
pub mod stream;
pub(crate) mod term;
