//! The operations of SNS on exchanges and bindings of the broker.

use super::call::Handler;

/// What is kept between calls.
#[derive(Default)]
pub struct State {}

/// Operations by name, and who does them.
pub const OPERATIONS: &[(&str, Handler)] = &[];
