//! What the listener serves beside the services, under `/_tern/`: pages for people and tests.

use super::{Aws, sns};
use crate::broker::{Broker, time::Time, turn::Turn};

/// A request for a page.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `GET`, `POST`.
    pub method: &'a str,
    /// What follows `/_tern/`, encoded.
    pub path: &'a str,
    /// What follows the question mark, encoded.
    pub query: &'a str,
    /// It comes from this machine, and development mode is on.
    pub is_trusted: bool,
    /// Scheme and host as the client said them.
    pub base_url: &'a str,
    /// The time.
    pub now: Time,
}

/// A page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Status of the answer.
    pub status: u16,
    /// What it is.
    pub content_type: &'static str,
    /// It.
    pub body: Vec<u8>,
}

impl Page {
    /// A page in JSON.
    pub fn json(value: &serde_json::Value) -> Self {
        Self { status: 200, content_type: "application/json", body: format!("{value}\n").into_bytes() }
    }
}

/// The page that a request asks for; `None`: there is none.
pub fn page(aws: &Aws, broker: &Broker, request: &Request<'_>) -> Option<Page> {
    match (request.method, request.path) {
        ("POST", "reset") if aws.options.reset => Some(reset(aws, broker, request.now)),
        ("GET", "health") => Some(Page::json(&serde_json::json!({ "status": "ok" }))),
        (_, path) if path.starts_with("sns/") => sns::page(aws, broker, request),
        _ => None,
    }
}

/// Deletes everything, as administration does. Test suites of others begin so.
fn reset(aws: &Aws, broker: &Broker, now: Time) -> Page {
    let mut turn = Turn::new(broker, now);
    let made = broker.reset(&mut turn);
    turn.end();
    // What is kept of calls is of queues and topics that are gone.
    aws.sqs.reset();
    aws.sns.reset();
    match made {
        Ok(()) => {
            tracing::warn!("everything was deleted: aws.reset is on");
            Page::json(&serde_json::json!({ "status": "ok" }))
        }
        Err(reason) => Page { status: 500, ..Page::json(&serde_json::json!({ "status": reason })) },
    }
}
