//! AMQP 0-9-1 as RabbitMQ speaks it.
//!
//! [`codec`] is the wire format, [`session`] the connection as a state machine; the other modules
//! are its parts, one for each group of methods.

mod channel;
pub mod codec;
mod consume;
pub(in crate::protocol) mod delivery_timeout;
pub(in crate::protocol) mod handshake;
pub(in crate::protocol) mod methods;
pub mod options;
pub mod output;
pub mod properties;
pub(in crate::protocol) mod publish;
pub mod reply;
pub mod session;
pub(in crate::protocol) mod settle;

pub use options::Options;
pub use output::{Link, Shared};
pub use session::{Progress, Session, Stage};
