//! SQS and SNS over HTTP: the listener's connections, and what each request becomes.
//!
//! - `connection`: one task a connection, HTTP/1.1 or HTTP/2 as the client begins it;
//! - `body`: a request's body, cut off at a bound;
//! - `origin`: which pages of browsers may call;
//! - `request`: route, identity, call;
//! - `running`: a call until it is done: waiting for messages, and for the log.
//!
//! What is kept between requests is bounded by `aws.connections_count_max`, `aws.body_bytes_max` and
//! [`BODIES_KIB_MAX`].

mod body;
mod connection;
mod origin;
mod request;
mod running;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{Semaphore, watch};

pub(super) use connection::serve;

use crate::{aws::Aws, broker::Broker};

/// KiB of bodies longer than [`body::SMALL_BYTES`] that are being read at once. Full: further ones wait, unread.
const BODIES_KIB_MAX: usize = 128 << 10;

/// What all connections of this listener have in common.
pub struct Web {
    broker: Arc<Broker>,
    aws: Arc<Aws>,
    /// Calls from this machine are taken with any credentials.
    is_development: bool,
    /// Open ones.
    connections: AtomicUsize,
    /// KiB of long bodies that may still be read.
    bodies: Arc<Semaphore>,
    /// Moves when everybody is asked to end.
    closing: watch::Sender<u64>,
}

impl Web {
    /// For the calls of one process.
    pub fn new(broker: Arc<Broker>, aws: Arc<Aws>, is_development: bool) -> Self {
        let (connections, bodies) = (AtomicUsize::new(0), Arc::new(Semaphore::new(BODIES_KIB_MAX)));
        Self { broker, aws, is_development, connections, bodies, closing: watch::Sender::new(0) }
    }

    /// Asks all connections to end after the requests that they serve.
    pub fn close(&self) {
        self.closing.send_modify(|times| *times += 1);
    }

    /// Number of open connections.
    pub fn connections_count(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}
