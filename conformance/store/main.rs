//! The data directory: one of an earlier version that every later one must open, and the commands that
//! look into one.
//!
//! `v1` is a data directory of format version 1, of the store alone: its log with two cold records, and
//! its index. It was written by the ignored test `write_the_fixture`:
//!
//! ```text
//! cargo test --test store -- --ignored write_the_fixture
//! ```
//!
//! A released fixture is never written again. A new format gets a new one beside it.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may fail, take its time and say what it saw"
)]

mod commands;
mod fixture;
