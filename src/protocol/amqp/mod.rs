//! AMQP 0-9-1 as RabbitMQ speaks it.
//!
//! [`codec`] is the wire format, [`session`] the connection as a state machine; the other modules
//! are its parts, one for each group of methods.

mod channel;
pub mod codec;
mod consume;
mod delivery_timeout;
mod handshake;
mod methods;
pub mod options;
pub mod output;
pub mod properties;
mod publish;
pub mod reply;
pub mod session;
mod settle;

pub use options::Options;
pub use output::{Link, Shared};
pub use session::{Progress, Session, Stage};
