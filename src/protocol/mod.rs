//! The wire protocols: each translates its clients' verbs into calls on the broker, without
//! sockets, without async and without reading a clock.

pub mod amqp;
pub mod jms;
pub mod outbox;
pub mod session;
mod settles;
pub mod shared;
pub mod stomp;
