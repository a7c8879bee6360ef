//! Emptying a queue, once a minute at most.

use std::collections::HashMap;

use parking_lot::Mutex;
use serde::Deserialize;

use super::queue::{Target, Text};
use crate::{
    aws::{
        call::{Call, Step},
        error::Error,
    },
    broker::{access::Access, record::QueueId, time::Time, turn::Turn},
};

/// When queues were last emptied, of the last minute.
#[derive(Default)]
pub(super) struct Purges(Mutex<HashMap<QueueId, Time>>);

/// Milliseconds between two purges of a queue.
const PURGE_INTERVAL_MS: u64 = 60_000;

impl Purges {
    /// Forgets all.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }

    /// Whether the queue may be emptied now; if so, it has been.
    fn note(&self, queue: QueueId, now: Time) -> bool {
        let mut purges = self.0.lock();
        purges.retain(|_, at| now.ms_since(*at) < PURGE_INTERVAL_MS);
        if purges.contains_key(&queue) {
            return false;
        }
        purges.insert(queue, now);
        true
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PurgeQueue<'a> {
    #[serde(borrow)]
    queue_url: Option<Text<'a>>,
}

/// PurgeQueue
pub(super) fn purge_queue(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: PurgeQueue<'_> = input.parse()?;
    // As with purges over other protocols, whoever may take all messages may take them away.
    let target = Target::find(call, turn, request.queue_url.as_deref(), Access::Read)?;
    if !call.aws.sqs.purges.note(target.queue.id, turn.now) {
        let message = format!("Only one PurgeQueue operation on {} is allowed every 60 seconds.", target.queue.name);
        return Err(Error::sqs("PurgeQueueInProgress", message));
    }
    target.queue.purge(turn);
    call.reply_done()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_purged_once_a_minute() {
        let purges = Purges::default();
        assert!(purges.note(QueueId(1), Time(0)));
        assert!(!purges.note(QueueId(1), Time(59_999)));
        assert!(purges.note(QueueId(2), Time(59_999)));
        assert!(purges.note(QueueId(1), Time(60_000)));
    }
}
