//! Administration: what an operator asks of a running broker, over whatever door.
//!
//! [`wire`] is the language of the control socket, shared with `tern ctl`; [`columns`] are those of
//! its listings, [`failure`] RabbitMQ's words for what went wrong. [`control`] carries requests out,
//! with one file for each group of verbs; what concerns the process and not the broker it asks of a
//! [`node`]. [`definitions`] moves whole definitions files in and out, also at the start.

mod access_keys;
pub mod columns;
mod connections;
pub mod control;
pub mod definitions;
mod exchanges;
pub mod failure;
mod limits;
pub mod node;
mod parameters;
mod permissions;
mod pids;
mod policies;
mod queues;
mod status;
mod users;
mod vhosts;
pub mod wire;

#[cfg(test)]
pub(crate) mod tests;
