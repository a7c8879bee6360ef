//! STOMP 1.0, 1.1 and 1.2, as RabbitMQ's plugin or as ActiveMQ speaks it.
//!
//! [`codec`] is the wire format, [`session`] the connection as a state machine; `dialect` has what the two
//! brokers disagree on, and the other modules are parts of the session that both use. A connection is to the broker what a channel of AMQP is, with the number 1, and its
//! messages carry the properties of AMQP: that is how the two meet.

pub mod codec;
mod dialect;
mod login;
pub mod options;
pub mod output;
mod publish;
mod repeated;
mod reply;
pub mod session;
mod settle;
mod subscription;
mod transaction;

pub use dialect::activemq::Clients;
pub use options::Options;
pub use output::Shared;
pub use session::{Session, Stage, Surroundings};
