//! Frames and methods of AMQP 0-9-1 as bytes, knowing nothing of the broker.
//!
//! What every message passes through ([`frame`], [`hot`]) is written by hand, borrows its input
//! and allocates nothing. All other methods ([`method`]) go through `amq-protocol`, after a walk
//! that has checked every length and the depth of every table, because that crate recurses and
//! allocates as its input tells it to.

pub mod frame;
pub mod header;
pub mod hot;
pub mod method;

mod octets;
mod table;
