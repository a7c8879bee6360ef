//! The operations of SQS on queues of the broker.
//!
//! - `queue`: which queue a call means, and what it is to SQS;
//! - `attributes`: the attributes of queues, as properties of the broker's queues;
//! - `queues`: creating, deleting, finding and listing; `settings`: reading and changing attributes; `tags`;
//!   `permissions`; `purge`;
//! - `send`, `receive`, `settle`: messages, each alone and in batches (`batch`); `receipt`: what a receiver is given to
//!   settle a message with; `sent`: attributes of messages that are sent;
//! - `moves`: message move tasks.
//!
//! A queue that was declared over another protocol is as usable as one made here. Texts of refusals are AWS's, and so
//! is the order in which a call is looked at.

mod attributes;
mod batch;
mod moves;
mod permissions;
mod purge;
mod queue;
mod queues;
mod receipt;
mod receive;
mod send;
mod sent;
mod settings;
mod settle;
mod tags;

use super::call::Handler;

pub use attributes::note;

/// What is kept between calls.
#[derive(Default)]
pub struct State {
    receipts: receipt::Key,
    purges: purge::Purges,
    deleted: queues::Deleted,
    policies: queue::Policies,
    sent: send::Sent,

    oversized: receive::Oversized,
}

impl State {
    /// Forgets what calls have left: the key of receipts stays, as they name queues that are gone.
    pub fn reset(&self) {
        self.purges.clear();
        self.deleted.clear();
        self.sent.clear();
        self.oversized.clear();
    }

    /// Messages that receivers were not given because they are too long for SQS.
    pub fn oversized(&self) -> u64 {
        self.oversized.count()
    }
}

/// Operations by name, and who does them.
pub const OPERATIONS: &[(&str, Handler)] = &[
    ("ReceiveMessage", receive::receive_message),
    ("SendMessage", send::send_message),
    ("DeleteMessage", settle::delete_message),
    ("SendMessageBatch", send::send_message_batch),
    ("DeleteMessageBatch", settle::delete_message_batch),
    ("ChangeMessageVisibility", settle::change_message_visibility),
    ("ChangeMessageVisibilityBatch", settle::change_message_visibility_batch),
    ("CreateQueue", queues::create_queue),
    ("DeleteQueue", queues::delete_queue),
    ("GetQueueUrl", queues::get_queue_url),
    ("ListQueues", queues::list_queues),
    ("ListDeadLetterSourceQueues", queues::list_dead_letter_source_queues),
    ("GetQueueAttributes", settings::get_queue_attributes),
    ("SetQueueAttributes", settings::set_queue_attributes),
    ("PurgeQueue", purge::purge_queue),
    ("TagQueue", tags::tag_queue),
    ("UntagQueue", tags::untag_queue),
    ("ListQueueTags", tags::list_queue_tags),
    ("AddPermission", permissions::add_permission),
    ("RemovePermission", permissions::remove_permission),
    ("StartMessageMoveTask", moves::start_message_move_task),
    ("CancelMessageMoveTask", moves::cancel_message_move_task),
    ("ListMessageMoveTasks", moves::list_message_move_tasks),
];

#[cfg(test)]
mod tests;
