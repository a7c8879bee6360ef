//! Receiving, settling leases and publishing with a delay, on a queue that is shared.

use std::{
    borrow::Cow,
    sync::{Arc, Weak},
};

use super::{
    LeaseError, LeaseSettle, Leased, Receive, ReceiveError, Received, Waiter,
    machine::{Looked, Take, Withhold},
    waiters::tell,
};
use crate::broker::{
    connections::ConnectionHandle,
    message::Message,
    queue::{
        Queue,
        handle::CHUNK,
        machine::{Effects, Machine, Pushed},
        ready::Entry,
    },
    record::{Enqueued, LeasedTo, Position, Record},
    redrive::Taken,
    time::Time,
    turn::Turn,
    verb::{Ticket, Verb},
};

/// Times that one call lets go of the lock and looks further, before it says that there is nothing.
const LOOKS_MAX: usize = 64;

impl Queue {
    /// Leases ready messages, in order. What comes back may be less than there is. Where nothing is found
    /// and somebody waits, that one is told when it is worth asking again; no message comes unnoticed
    /// in between.
    pub fn receive(
        self: &Arc<Self>,
        wanted: &Receive<'_>,
        turn: &mut Turn<'_>,
    ) -> Verb<Result<Received, ReceiveError>> {
        let take = Take { max: wanted.max, nonce: turn.random(), until: turn.now.after_ms(wanted.lease_ms) };
        let mut messages = Vec::new();
        for _ in 0..LOOKS_MAX {
            let mut effects = self.effects(turn);
            let mut machine = self.lock();
            if let Err(error) = self.check_receiver(&machine) {
                return Verb::Done(Err(error));
            }
            // What has lapsed comes first: it is ready now, whether or not its timer has rung.
            machine.come_due(turn.now, CHUNK, &mut effects);
            if let Some(again) = wanted.attempt.and_then(|name| machine.lease_again(name, take.until, turn.now)) {
                let again_to: Vec<u64> = again.iter().map(|one| one.seq).collect();
                self.record_settled(&mut effects, turn);
                self.record_changed(again_to, take.until, turn);
                self.appoint_next(&machine, turn);
                self.finish(machine, effects, turn);
                return Verb::Done(Ok(Received { messages: self.presented(again, turn), waiter: None }));
            }
            let room = match wanted.in_flight_max {
                0 => wanted.max,
                in_flight_max => in_flight_max.saturating_sub(machine.unsettled_count() as usize),
            };
            if room == 0 && wanted.max > 0 {
                self.appoint_next(&machine, turn);
                self.finish(machine, effects, turn);
                return Verb::Done(Err(ReceiveError::Full));
            }
            // A message that waits in a group is not found before it is known that there are groups.
            machine.select_if_needed(|| turn.broker.fields());
            machine.begin_look();
            let take = Take { max: wanted.max.min(room), ..take };
            machine.used_at = turn.now;
            let mut looked = machine.lease(take, turn.now, &mut effects, &mut messages);
            if looked == Looked::Cold && !machine.want_front() {
                looked = Looked::Through;
            }
            if !messages.is_empty() {
                self.record_settled(&mut effects, turn);
                self.record_leased(&machine, &messages, take, turn);
                if let Some(name) = wanted.attempt {
                    machine.note_attempt(name, take, &messages, turn.now);
                }
            }
            let waiter = match &wanted.waiter {
                Some(handle) if messages.is_empty() && looked == Looked::Through => {
                    Some(self.wait(&mut machine, handle))
                }
                _ => None,
            };
            self.appoint_next(&machine, turn);
            self.finish(machine, effects, turn);
            match looked {
                Looked::Cut if messages.is_empty() => {}
                Looked::Cold if messages.is_empty() => return Verb::Pending(Ticket(self.id.0)),
                _ => return Verb::Done(Ok(Received { messages: self.presented(messages, turn), waiter })),
            }
        }
        // Much is in the way. Whoever waits is not left alone with it.
        let waiter = wanted.waiter.clone().map(|handle| self.await_ready(handle));
        Verb::Done(Ok(Received { messages, waiter }))
    }

    /// The messages in the form in which the queue takes them.
    fn presented(&self, mut messages: Vec<Leased>, turn: &Turn<'_>) -> Vec<Leased> {
        for leased in &mut messages {
            let presented = turn.broker.presented(self.id, &leased.message);
            if let Cow::Owned(message) = presented {
                leased.message = message;
            }
        }
        messages
    }

    /// Has somebody told once when something may be received; at once if it may be so now.
    #[must_use = "nobody waits when it is dropped"]
    pub fn await_ready(self: &Arc<Self>, handle: Weak<dyn ConnectionHandle>) -> Waiter {
        let mut machine = self.lock();
        let waiter = self.wait(&mut machine, &handle);
        let told = machine.take_told();
        drop(machine);
        tell(told);
        waiter
    }

    fn wait(self: &Arc<Self>, machine: &mut Machine, handle: &Weak<dyn ConnectionHandle>) -> Waiter {
        machine.leases_mut().waiters.wait(Arc::downgrade(self), handle.clone())
    }

    /// Number of those who wait for something to receive.
    pub fn waiters_count(&self) -> usize {
        self.lock().leases.as_deref().map_or(0, |leases| leases.waiters.len())
    }

    fn check_receiver(&self, machine: &Machine) -> Result<(), ReceiveError> {
        if self.is_deleted() {
            Err(ReceiveError::Deleted)
        } else if machine.stream.is_some() {
            Err(ReceiveError::Stream)
        } else if machine.consumers.has_exclusive() {
            Err(ReceiveError::Exclusive)
        } else {
            Ok(())
        }
    }

    /// Settles leases, each by the seq of its message and its own nonce. What comes back is in the order
    /// given.
    pub fn settle_leases(
        self: &Arc<Self>,
        leases: &[(u64, u64)],
        how: LeaseSettle,
        turn: &mut Turn<'_>,
    ) -> Verb<Vec<Result<(), LeaseError>>> {
        let mut effects = self.effects(turn);
        let mut machine = self.lock();
        if self.is_deleted() {
            return Verb::Done(leases.iter().map(|_| Err(LeaseError::Gone)).collect());
        }
        // All of them, so that they are looked for together.
        let sought = leases.iter().filter(|(seq, _)| machine.seek(*seq)).count();
        if sought > 0 {
            self.finish(machine, effects, turn);
            return Verb::Pending(Ticket(self.id.0));
        }
        let settled: Vec<_> =
            leases.iter().map(|&one| machine.settle_lease(one, how, turn.now, &mut effects)).collect();
        let changed = std::mem::take(&mut effects.leases_changed);
        self.record_settled(&mut effects, turn);
        if let LeaseSettle::Change { lease_ms } = how {
            self.record_changed(changed, turn.now.after_ms(lease_ms), turn);
        }
        // What it was gone by may not be on the disk yet, and must be before anybody is told.
        if settled.contains(&Err(LeaseError::Gone))
            && let Some(journal) = turn.broker.journal().filter(|_| self.is_logged(turn))
        {
            turn.wait_for(journal.end());
        }
        self.run(&mut machine, turn, &mut effects);
        machine.enforce_limits(CHUNK, &mut effects);
        self.appoint_next(&machine, turn);
        self.finish(machine, effects, turn);
        Verb::Done(settled)
    }

    /// Takes messages in, in order, and says what became of each. With each may come how many milliseconds
    /// it is withheld, instead of what its queue says. `None`: the queue was deleted.
    pub fn publish_each(
        self: &Arc<Self>,
        messages: impl Iterator<Item = (Message, Option<u64>)>,
        turn: &mut Turn<'_>,
    ) -> Option<Vec<Pushed>> {
        let mut effects = self.effects(turn);
        let mut machine = self.lock();
        if self.is_deleted() {
            return None;
        }
        let mut pushed = Vec::with_capacity(messages.size_hint().0);
        for (message, withhold_ms) in messages {
            let how = withhold_ms.map_or(Withhold::Queue, Withhold::Own);
            pushed.push(self.push_one(&mut machine, message, how, turn, &mut effects));
        }
        self.after_push(machine, effects, turn);
        Some(pushed)
    }

    fn push_one(
        &self,
        machine: &mut Machine,
        message: Message,
        how: Withhold,
        turn: &mut Turn<'_>,
        effects: &mut Effects,
    ) -> Pushed {
        if !self.takes(&message, turn) {
            return Pushed::Refused;
        }
        if message.traits.has_group {
            machine.select_groups(|| turn.broker.fields());
        }
        let (seq, message) = match machine.admit(message, turn.now, effects) {
            Ok(admitted) => admitted,
            Err(pushed) => return pushed,
        };
        let due = machine.withheld_until(&message, how, turn.now);
        let mut place = Position::NONE;
        if self.is_recorded(&message, turn) {
            let (deadline, at) = (machine.deadline_of(&message, turn.now), turn.now);
            let enqueued = Enqueued { queue: self.id, seq, message: &message, deadline, at };
            place = turn.record_entering(enqueued, None, due);
        }
        machine.enter_or_withhold((seq, message, place), due, turn.now, effects);
        Pushed::Accepted(seq)
    }

    /// Number of ready messages, and the seq of the next one that comes.
    pub(in crate::broker) fn left_to_move(&self) -> (u64, u64) {
        let machine = self.lock();
        (machine.ready_count(), machine.next_seq())
    }

    /// Takes the first message out that came before that seq, to be moved elsewhere under
    /// [`Machine::leave`], or to come back by [`Self::take_back`].
    pub(in crate::broker) fn take_to_move(self: &Arc<Self>, below: u64, turn: &mut Turn<'_>) -> Taken {
        let mut effects = self.effects(turn);
        let mut machine = self.lock();
        let taken = machine.take_to_move(below, turn.now, &mut effects);
        self.appoint_next(&machine, turn);
        self.finish(machine, effects, turn);
        taken
    }

    /// Puts a message back that was to be moved.
    pub(in crate::broker) fn take_back(self: &Arc<Self>, entry: Entry, turn: &mut Turn<'_>) {
        let mut effects = self.effects(turn);
        let mut machine = self.lock();
        machine.take_back(entry);
        self.run(&mut machine, turn, &mut effects);
        self.appoint_next(&machine, turn);
        self.finish(machine, effects, turn);
    }

    fn record_leased(&self, machine: &Machine, messages: &[Leased], take: Take, turn: &mut Turn<'_>) {
        if !self.is_logged(turn) {
            return;
        }
        let seqs: Vec<u64> = messages.iter().map(|one| one.seq).collect();
        let groups = machine.groups_of(&seqs);
        let leased = LeasedTo { seqs, groups, nonce: take.nonce, at: turn.now, until: take.until };
        turn.record(Record::Leased { queue: self.id, leased });
    }

    fn record_changed(&self, seqs: Vec<u64>, until: Time, turn: &mut Turn<'_>) {
        if !seqs.is_empty() && self.is_logged(turn) {
            turn.record(Record::LeaseChanged { queue: self.id, seqs, until });
        }
    }
}

/// Tells those who wait that something has come. No lock is held.
pub(in crate::broker::queue) fn tell_waiters(told: Vec<Weak<dyn ConnectionHandle>>) {
    if !told.is_empty() {
        tell(told);
    }
}
