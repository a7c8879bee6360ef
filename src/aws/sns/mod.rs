//! The operations of SNS on exchanges and bindings of the broker.

use super::{
    Aws,
    call::Handler,
    pages::{Page, Request},
};
use crate::broker::Broker;

/// What is kept between calls.
#[derive(Default)]
pub struct State {}

/// Operations by name, and who does them.
pub const OPERATIONS: &[(&str, Handler)] = &[];

/// A page under `/_tern/sns/`.
pub fn page(_aws: &Aws, _broker: &Broker, _request: &Request<'_>) -> Option<Page> {
    None
}
