//! The real binary on real sockets: how it starts and stops, and what hostile or unlucky peers can
//! do to it.
//!
//! Every test starts its own broker on a free port with its own data directory. Tests wait for
//! frames, for the end of a socket or for the end of the process.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may fail, take its time and say what it saw"
)]

mod alarm;
mod app;
mod aws;
mod backup;
mod bench;
mod broker;
mod client;
mod damage;
mod deliveries;
mod directory;
mod disk;
mod fanout;
mod floods;
mod handshake;
mod loss;
mod restart;
mod slow;
mod sns;
mod spill;
mod start;
mod stomp;
mod stream;
mod web_stomp;
