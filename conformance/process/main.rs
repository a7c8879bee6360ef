//! The real binary on real sockets: how it starts and stops, and what hostile or unlucky peers can
//! do to it.
//!
//! Every test starts its own broker on a free port with its own data directory. Tests wait for
//! frames, for the end of a socket or for the end of the process.

mod alarm;
mod broker;
mod client;
mod floods;
mod handshake;
mod loss;
mod slow;
mod start;
