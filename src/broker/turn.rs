//! One turn of a caller in the broker: the time it takes place at, and what is left to do when no
//! lock is held any more.
//!
//! Verbs push dead letters and outlets to flush here; [`Turn::drain`] works the dead letters off,
//! [`Turn::end`] flushes. Whoever opens a turn ends it, once per batch of verbs.

use std::{collections::VecDeque, sync::Arc};

use super::{
    Broker,
    consumer::Outlet,
    dead_letter,
    queue::{Queue, machine::Dead},
    record::{Enqueued, Haste, Position, Record},
    time::Time,
    trace::Trace,
};

/// See the module's text.
pub struct Turn<'a> {
    /// The broker.
    pub broker: &'a Broker,
    /// When it takes place.
    pub now: Time,
    outlets: Vec<Arc<dyn Outlet>>,
    dead: VecDeque<(Arc<Queue>, Dead)>,
    pub(super) traces: VecDeque<Trace>,
    gate: Option<Position>,
    /// Records that are to be appended as one.
    transaction: Option<Vec<Record>>,
    /// It repeats what a log says, and so decides nothing.
    is_replay: bool,
    haste: Haste,
}

/// Dead letters that one call of [`Turn::drain`] works off: a chain of queues that feed each other
/// ends by its own rules, this bounds what it may cost its caller until then.
const DRAIN_MAX: usize = 100_000;

impl<'a> Turn<'a> {
    /// Opens a turn.
    pub fn new(broker: &'a Broker, now: Time) -> Self {
        Self {
            broker,
            now,
            outlets: Vec::new(),
            dead: VecDeque::new(),
            traces: VecDeque::new(),
            gate: None,
            transaction: None,
            is_replay: false,
            haste: Haste::Due,
        }
    }

    /// Opens a turn whose records are written when somebody waits for them: whoever opens it hastens the journal
    /// before it waits for the turn's gate.
    pub fn patient(broker: &'a Broker, now: Time) -> Self {
        let mut turn = Self::new(broker, now);
        turn.haste = Haste::Patient;
        turn
    }

    /// Opens a turn that repeats what a log says.
    pub(in crate::broker) fn replay(broker: &'a Broker, now: Time) -> Self {
        let mut turn = Self::new(broker, now);
        turn.is_replay = true;
        turn
    }

    /// Whether it repeats what a log says: consequences are in the log, too, and not drawn again.
    pub(in crate::broker) fn is_replay(&self) -> bool {
        self.is_replay
    }

    /// Has `outlet` flushed when the turn ends.
    pub fn flush_later(&mut self, outlet: Arc<dyn Outlet>) {
        if !self.outlets.iter().any(|known| Arc::ptr_eq(known, &outlet)) {
            self.outlets.push(outlet);
        }
    }

    /// Has a message dead-lettered once no lock is held.
    pub fn dead_letter_later(&mut self, queue: Arc<Queue>, dead: Dead) {
        self.dead.push_back((queue, dead));
    }

    /// Works off what had to wait until no lock is held.
    pub fn drain(&mut self) {
        for _ in 0..DRAIN_MAX {
            if let Some((queue, dead)) = self.dead.pop_front() {
                dead_letter::republish(&queue, dead, self);
            } else if let Some(trace) = self.traces.pop_front() {
                self.publish_trace(trace);
            } else {
                return;
            }
        }
        tracing::error!(left = self.dead.len(), "gave up dead-lettering: the chain of queues has no end");
        self.dead.clear();
        self.traces.clear();
    }

    /// Appends a record; everything positive that is said in this turn waits for it.
    pub fn record(&mut self, record: Record) {
        if let Some(gathered) = &mut self.transaction {
            gathered.push(record);
        } else {
            self.record_now(&record);
        }
    }

    /// Appends a record that says nothing by itself, even inside of a transaction. Returns where it is.
    pub(in crate::broker) fn record_now(&mut self, record: &Record) -> Position {
        let Some(journal) = self.broker.journal() else { return Position::NONE };
        let appended = journal.append(record, self.haste);
        self.gate = Some(appended.end);
        if record.is_definition() {
            self.broker.note_defined(appended.end);
        }
        appended.at
    }

    /// Records that a message entered a queue, by its place if `body` says that the log has it already.
    /// Returns where the log has the message.
    pub(in crate::broker) fn record_enqueued(&mut self, enqueued: Enqueued<'_>, body: Option<Position>) -> Position {
        let Enqueued { queue, seq, message, deadline, at } = enqueued;
        let body = match body {
            // Beside the transaction, so that the message can be read by itself.
            None if self.transaction.is_some() => {
                self.record_now(&Record::Body { targets: 1, message: message.clone() })
            }
            None => {
                let Some(journal) = self.broker.journal() else { return Position::NONE };
                let appended = journal.append_enqueued(enqueued, self.haste);
                self.gate = Some(appended.end);
                return appended.at;
            }
            Some(body) => body,
        };
        self.record(Record::Enqueue { queue, seq, message: message.clone(), body: Some(body), deadline, at });
        body
    }

    /// As [`Self::record_enqueued`], of a message that is withheld until `due` if that is said: the log has both
    /// or none.
    #[inline]
    pub(in crate::broker) fn record_entering(
        &mut self,
        enqueued: Enqueued<'_>,
        body: Option<Position>,
        due: Option<Time>,
    ) -> Position {
        let Some(due) = due else { return self.record_enqueued(enqueued, body) };
        // The message comes before the record that names it.
        let _pin = self.broker.pin();
        let is_own = self.transaction.is_none();
        if is_own {
            self.begin_transaction();
        }
        let place = self.record_enqueued(enqueued, body);
        self.record(Record::Withheld { queue: enqueued.queue, seqs: vec![(enqueued.seq, due)] });
        if is_own {
            self.end_transaction();
        }
        place
    }

    /// Has what is said next in this turn wait for `position`, too.
    pub fn wait_for(&mut self, position: Position) {
        self.gate = self.gate.max(Some(position));
    }

    /// The position of the last record of this turn whose gate nobody has taken.
    pub(in crate::broker) fn gate(&self) -> Option<Position> {
        self.gate
    }

    /// What is recorded until [`Self::end_transaction`] becomes one record. The caller holds the
    /// locks of all queues concerned in between, so log order stays queue order.
    pub(in crate::broker) fn begin_transaction(&mut self) {
        debug_assert!(self.transaction.is_none(), "transactions do not nest");
        self.transaction = Some(Vec::new());
    }

    /// Whether records are being gathered.
    pub(in crate::broker) fn is_in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// Ends [`Self::begin_transaction`].
    pub(in crate::broker) fn end_transaction(&mut self) {
        let mut gathered = self.transaction.take().unwrap_or_default();
        match gathered.len() {
            0 => {}
            1 => gathered.drain(..).for_each(|record| self.record(record)),
            _ => self.record(Record::Transaction(gathered)),
        }
    }

    /// Takes the position that replies to verbs since the last call have to wait for.
    pub fn take_gate(&mut self) -> Option<Position> {
        self.gate.take()
    }

    /// A random number for exchanges that choose by chance.
    pub fn random(&mut self) -> u64 {
        self.broker.random()
    }

    /// Writes what outlets have gathered so far.
    pub fn flush(&mut self) {
        for outlet in self.outlets.drain(..) {
            outlet.flush();
        }
    }

    /// Ends the turn.
    pub fn end(mut self) {
        self.drain();
        self.flush();
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.drain();
        self.flush();
    }
}
