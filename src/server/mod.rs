//! Sockets, tasks, the clock and the end of the process.

pub mod control;
pub mod options;

pub use options::Options;
