//! Conversations with sessions of AMQP and STOMP: octets in, octets out, no socket, and time as an argument.

// Tests may panic, and what they tell goes to the one who runs them.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr, unreachable_pub, missing_docs)]

mod consumers;
mod conversations;
mod frames;
mod fuzz;
mod gates;
mod hostile;
mod lines;
mod listings;
mod peer;
mod selective;
mod stomp;
mod timers;
