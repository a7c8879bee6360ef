//! The calls of SQS and SNS on the broker's queues and exchanges: pure request, verbs, answer.
//!
//! - `call`: one call, what an operation is and what it may say;
//! - `dispatch`: which service and operation a request means, and the function that does it;
//! - `query`, `xml` and `query_json`: the Query protocol in and out, by the shapes of `model`; JSON goes straight through
//!   serde;
//! - `error`: refusals with their codes in each protocol;
//! - `identity`: who calls, by `sigv4`;
//! - `policy`: access policies of queues and topics;
//! - `declared`: queues, topics and subscriptions of the settings;
//! - `pages`: what is served beside the services;
//! - `message`: messages of AWS as messages of the broker, and back;
//! - `options`: settings; `checkers`: permissions of callers, remembered;
//! - `sqs` and `sns`: the operations, each module with a table of those it has.
//!
//! No sockets, no async and no clock: `server` has those.

pub mod call;
pub mod checkers;
pub mod declared;
pub mod dispatch;
pub mod error;
pub mod identity;
pub mod message;
pub mod model;
pub mod options;
pub mod pages;
pub mod policy;
pub mod query;
pub mod query_json;
pub mod sigv4;
pub mod sns;
pub mod sqs;
pub mod xml;

pub use call::{Call, Caller, Handler, Reply, Service, Step, Wire};
pub use error::Error;
pub use options::Options;

use crate::broker::access::keys::SettledKeys;

/// What both services keep between calls. One a process.
#[derive(Default)]
pub struct Aws {
    /// Settings.
    pub options: Options,
    /// Access keys of the settings.
    pub keys: SettledKeys,
    /// Keys that signatures are made with, remembered.
    pub signing_keys: sigv4::SigningKeys,
    /// Permissions of those who called before.
    pub checkers: checkers::Checkers,
    /// What the operations of SQS keep.
    pub sqs: sqs::State,
    /// What the operations of SNS keep.
    pub sns: sns::State,
}

impl Aws {
    /// With these settings, and nothing else yet.
    pub fn new(options: Options) -> Self {
        Self { keys: SettledKeys::new(&options.access_keys), options, ..Self::default() }
    }
}
