//! What the log and the index wrote and what they take, for `status`.

use std::sync::Arc;

use super::checkpoint::Checkpointer;
use crate::admin::node::Store;

/// Reads the figures of one data directory.
#[derive(Clone)]
pub struct StoreMeter {
    checkpointer: Arc<Checkpointer>,
}

impl StoreMeter {
    pub(super) fn new(checkpointer: Arc<Checkpointer>) -> Self {
        Self { checkpointer }
    }

    /// Since the start, and now. May wait for a checkpoint that is being written.
    pub fn read(&self) -> Store {
        self.checkpointer.figures()
    }
}
