//! What is durable: opaque records and the index of what is not in memory. Knows nothing of queues.

pub mod index;
