//! What a broker is: vhosts, exchanges, queues, consumers, users and policies.
//!
//! Knows no wire protocol, no async runtime, no file and no clock: protocols translate their verbs
//! into calls on [`Broker`], and time is an argument.

pub mod access;
pub mod block;
pub mod definitions;
pub mod limits;
pub mod exchange;
pub mod message;
pub mod parameters;
pub mod pattern;
pub mod policy;
pub mod term;
pub mod queue;
pub mod options;
pub mod time;
pub mod validation;
pub mod value;

pub use options::Options;
