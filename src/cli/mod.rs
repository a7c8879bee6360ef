//! The subcommands of the binary, one module each.

pub mod ctl;
