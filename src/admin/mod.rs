//! Administration: what an operator asks of a running broker, over whatever door.
//!
//! [`wire`] is the language of the control socket, shared with `tern ctl`.

pub mod wire;
