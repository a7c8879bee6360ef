//! The wire protocols: each translates its clients' verbs into calls on the broker, without
//! sockets, without async and without reading a clock.
//! Wire protocols: rules only, no sockets, no async, no reading of clocks.

pub mod amqp;
