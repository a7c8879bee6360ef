//! AWS's SDK for Rust against a real broker, with nothing changed but the endpoint: what it sends, what it makes of the
//! answers, and which of its modelled errors it finds in refusals. It checks the MD5s of what it receives by itself.
//!
//! Every test has its own broker on a free port. Which binary: `TERN`, or the one that cargo has built beside the tests.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may fail, and take its time")]

mod broker;
mod sns;
mod sqs;
