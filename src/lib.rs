//! Tern: a message broker.
pub mod cli;
