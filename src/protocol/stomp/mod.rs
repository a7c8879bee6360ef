//! STOMP 1.0, 1.1 and 1.2, as RabbitMQ's plugin speaks it.
//!
//! [`codec`] is the wire format, [`session`] the connection as a state machine; the other modules are
//! its parts. A connection is to the broker what a channel of AMQP is, with the number 1, and its
//! messages carry the properties of AMQP: that is how the two meet.

pub mod codec;
mod destination;
mod login;
pub mod options;
pub mod output;
mod properties;
mod publish;
mod repeated;
mod reply;
pub mod session;
mod settle;
mod subscribe;
mod transaction;

pub use options::Options;
pub use output::Shared;
pub use session::{Session, Stage, Surroundings};
