//! What a broker is: vhosts, exchanges, queues, consumers, users and policies.
//!
//! Knows no wire protocol, no async runtime, no file and no clock: protocols translate their verbs
//! into calls on [`Broker`], and time is an argument.

pub mod block;
pub mod message;
pub mod options;
pub mod time;
pub mod value;

pub use options::Options;
