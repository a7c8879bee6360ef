//! BEGIN, COMMIT and ABORT: frames of a transaction wait here, and take effect together.
//!
//! What they say is looked at when they come, as far as that is possible; which deliveries an
//! acknowledgement stands for is decided by COMMIT, as with RabbitMQ.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{reply::Refusal, session::Session, settle::Verdict};
use crate::broker::{
    consumer::{ConsumerId, Settle},
    message::Message,
    publish::{self, Batch},
    queue::Queue,
    schedule::Schedule,
    turn::Turn,
};

/// The open transactions of a connection.
#[derive(Default)]
pub(super) struct Transactions {
    open: HashMap<Box<[u8]>, Transaction, foldhash::fast::RandomState>,
    /// Frames in all of them.
    frames: usize,
    /// Bytes of their messages.
    bytes: u64,
    /// Deliveries that they acknowledge and for which more credit was lent.
    lent: HashSet<u64, foldhash::fast::RandomState>,
}

#[derive(Default)]
struct Transaction {
    actions: Vec<Action>,
    bytes: u64,
    lent: Vec<Lent>,
}

/// Credit of a consumer for a delivery, until the transaction is over that acknowledges it.
struct Lent {
    tag: u64,
    queue: Arc<Queue>,
    consumer: ConsumerId,
}

enum Action {
    Send(Message, Option<Vec<u8>>),
    Schedule(Box<(Message, Schedule)>),
    Settle(Verdict),
}

impl Transactions {
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn take(&mut self, name: &[u8]) -> Option<Transaction> {
        let transaction = self.open.remove(name)?;
        self.frames -= transaction.actions.len();
        self.bytes -= transaction.bytes;
        Some(transaction)
    }
}

impl Session {
    /// Opens a transaction. One of that name that is open is forgotten.
    pub(super) fn begin_transaction(&mut self, name: &[u8]) -> Result<(), Refusal> {
        self.transactions.take(name);
        let max = self.options().transactions_max;
        if self.transactions.open.len() >= max {
            let detail = format!("A connection has at most {max} open transactions.\n");
            return Err(Refusal::fatal("Too many transactions", detail));
        }
        self.transactions.open.insert(name.into(), Transaction::default());
        self.note_transactions();
        Ok(())
    }

    /// Forgets a transaction; false if there is none of that name.
    pub(super) fn abort_transaction(&mut self, name: &[u8], turn: &mut Turn<'_>) -> bool {
        let Some(transaction) = self.transactions.take(name) else { return false };
        self.note_transactions();
        self.end_loans(transaction.lent, turn);
        true
    }

    /// Has a consumer get a further message for a delivery that a transaction acknowledges: a client that holds
    /// no more than it is told could else never come to its COMMIT.
    pub(super) fn lend(&mut self, name: &[u8], tag: u64, turn: &mut Turn<'_>) {
        let source = {
            let output = self.shared.output();
            let ledger = &output.wire.ledger;
            let source = ledger.source_of(tag).and_then(|source| ledger.source(source));
            source.and_then(|source| Some((source.queue.clone(), source.consumer?)))
        };
        let (Some((queue, consumer)), Some(transaction)) = (source, self.transactions.open.get_mut(name)) else {
            return;
        };
        if self.transactions.lent.insert(tag) {
            queue.lend(consumer, 1, turn);
            transaction.lent.push(Lent { tag, queue, consumer });
        }
    }

    fn end_loans(&mut self, lent: Vec<Lent>, turn: &mut Turn<'_>) {
        for Lent { tag, queue, consumer } in lent {
            self.transactions.lent.remove(&tag);
            queue.lend(consumer, -1, turn);
        }
    }

    /// Has a transaction take effect; false if there is none of that name.
    pub(super) fn commit_transaction(&mut self, name: &[u8], turn: &mut Turn<'_>) -> Result<bool, Refusal> {
        let Some(transaction) = self.transactions.take(name) else { return Ok(false) };
        self.note_transactions();
        debug_assert!(self.batch.is_empty() && self.settles.is_empty(), "all before COMMIT has taken effect");
        for action in transaction.actions {
            let result = match action {
                Action::Send(message, receipt) => self.publish(message, receipt, turn),
                Action::Schedule(scheduled) => self.schedule(&scheduled.0, &scheduled.1, turn),
                Action::Settle(verdict) => self.settle(verdict),
            };
            if let Err(refusal) = result {
                // The connection ends: what was settled goes back with everything else it holds.
                self.batch = Batch::default();
                self.batch_receipts.clear();
                let settles = self.settles.take();
                for (queue, _, held) in &settles {
                    queue.settle_quietly(held, Settle::Requeued, turn);
                }
                // Nobody of this connection is to be served any more.
                self.drop_everything(turn);
                settles.iter().for_each(|(queue, ..)| queue.serve(turn));
                return Err(Refusal { is_fatal: true, is_brokers: false, ..refusal });
            }
        }
        let settles = self.settles.take();
        // First, or what is settled would count twice.
        self.end_loans(transaction.lent, turn);
        let mut refused = Vec::new();
        publish::commit(&mut self.batch, &settles, turn, &mut refused);
        self.settles.give_back(settles);
        turn.drain();
        if !self.batch_receipts.is_empty() {
            // The answer to COMMIT says no less.
            self.answer_batch(&refused, turn);
        }
        Ok(true)
    }

    /// Keeps a message for COMMIT; false if there is no transaction of that name.
    pub(super) fn send_at_commit(
        &mut self,
        name: &[u8],
        message: Message,
        receipt: Option<Vec<u8>>,
    ) -> Result<bool, Refusal> {
        let bytes = message.held_bytes() + receipt.as_ref().map_or(0, |receipt| receipt.len() as u64);
        self.extend(name, Action::Send(message, receipt), bytes)
    }

    /// Keeps a message for COMMIT that is to be published later; false if there is no transaction of that name.
    pub(super) fn schedule_at_commit(
        &mut self,
        name: &[u8],
        message: Message,
        schedule: Schedule,
    ) -> Result<bool, Refusal> {
        let bytes = message.held_bytes();
        self.extend(name, Action::Schedule(Box::new((message, schedule))), bytes)
    }

    /// Keeps an acknowledgement for COMMIT; false if there is no transaction of that name.
    pub(super) fn settle_at_commit(&mut self, name: &[u8], verdict: Verdict) -> Result<bool, Refusal> {
        self.extend(name, Action::Settle(verdict), 0)
    }

    /// Whether a transaction of that name is open.
    pub(super) fn has_transaction(&self, name: &[u8]) -> bool {
        self.transactions.open.contains_key(name)
    }

    fn extend(&mut self, name: &[u8], action: Action, bytes: u64) -> Result<bool, Refusal> {
        let (frames_max, bytes_max) = (self.options().transaction_frames_max, self.options().transaction_bytes_max);
        let transactions = &mut self.transactions;
        let Some(transaction) = transactions.open.get_mut(name) else { return Ok(false) };
        if transactions.frames >= frames_max || transactions.bytes + bytes > bytes_max {
            let detail =
                format!("Transactions of a connection hold at most {frames_max} frames and {bytes_max} bytes.\n");
            return Err(Refusal::fatal("Transaction too large", detail));
        }
        transaction.actions.push(action);
        transaction.bytes += bytes;
        transactions.frames += 1;
        transactions.bytes += bytes;
        self.note_transactions();
        Ok(true)
    }

    fn note_transactions(&self) {
        self.shared.output().wire.status.uncommitted = self.transactions.frames as u64;
    }
}
