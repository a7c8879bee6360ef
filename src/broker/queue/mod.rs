//! Queues: what waits in them, in which order, for how long, and where it goes afterwards.

pub mod arguments;
