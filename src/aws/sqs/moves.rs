//! Message move tasks: from a dead queue back to where its messages came from, or elsewhere.

use crate::{
    aws::{
        call::{Call, Step},
        error::Error,
    },
    broker::turn::Turn,
};

/// StartMessageMoveTask
pub(super) fn start_message_move_task(_: &mut Call, _: &mut Turn<'_>) -> Result<Step, Error> {
    Err(Error::sqs("UnsupportedOperation", "Not supported."))
}

/// CancelMessageMoveTask
pub(super) fn cancel_message_move_task(_: &mut Call, _: &mut Turn<'_>) -> Result<Step, Error> {
    Err(Error::sqs("UnsupportedOperation", "Not supported."))
}

/// ListMessageMoveTasks
pub(super) fn list_message_move_tasks(_: &mut Call, _: &mut Turn<'_>) -> Result<Step, Error> {
    Err(Error::sqs("UnsupportedOperation", "Not supported."))
}
