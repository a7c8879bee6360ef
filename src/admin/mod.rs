//! Administration: what an operator asks of a running broker, over whatever door.
//!
//! [`wire`] is the language of the control socket, shared with `tern ctl`; [`columns`] are those of
//! its listings, [`failure`] RabbitMQ's words for what went wrong.

pub mod columns;
pub mod failure;
pub mod wire;
