//! Wire protocols: rules only, no sockets, no async, no reading of clocks.

pub mod amqp;
