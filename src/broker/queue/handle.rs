//! A queue as the broker shares it: its declaration, and its state behind a lock.
//!
//! Every verb locks the [`Machine`], lets it decide, hands assigned deliveries to their outlets
//! while the lock is held (so that their order is the queue's order), and leaves all other effects
//! to the [`Turn`], which drains them after unlocking.
//!
//! Lock order: topology, then queues (by id where there are several), then an outlet's lock.

use std::{
    borrow::Cow,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, MutexGuard, RwLock};

use super::{
    arguments::{QueueArguments, QueueType},
    consumers::{self, Consumer, Cursor},
    leases::{Withhold, tell_waiters},
    machine::{Counters, Dead, Effects, Got, Limits, Machine, Pushed, Reason},
    properties::Properties,
    stream::{Filter, OffsetSpec, Stream},
};
use crate::broker::{
    connections::ConnectionId,
    consumer::{Batch, ConsumerId, ConsumerOptions, Held, Outlet, Settle, SharedCredit},
    error::{Error, Kind},
    exchange::Exchange,
    message::Message,
    publish::Bodies,
    record::{Enqueued, Keeper, Position, QueueId, Record},
    selector::Selector,
    time::Time,
    timers::Owner,
    trace::Party,
    turn::Turn,
    value::Table,
    verb::{Ticket, Verb},
    vhost::Vhost,
};

/// What a queue was declared as.
#[derive(Clone, Debug)]
pub struct QueueDeclaration {
    /// It survives a restart.
    pub is_durable: bool,
    /// It goes when its last consumer has gone.
    pub is_auto_delete: bool,
    /// The connection that alone may use it.
    pub owner: Option<ConnectionId>,
    /// Its arguments as they were given.
    pub arguments: Table,
    /// Its arguments, understood.
    pub parsed: QueueArguments,
    /// The queue that takes persistent messages which this one gives up because they are too old or were refused,
    /// where neither an argument nor a policy says what becomes of them. It is no argument: whoever declares
    /// the queue again need not know of it.
    pub dead_queue: Option<Arc<str>>,
}

/// Where messages go that a queue gives up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeadLetterTarget {
    /// The exchange; without one they are dropped.
    pub exchange: Option<Arc<str>>,
    /// The routing key, instead of the message's own.
    pub key: Option<Arc<[u8]>>,
    /// What goes there; the rest is dropped.
    pub takes: Takes,
}

/// Which of the messages that a queue gives up go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Takes {
    /// All of them.
    #[default]
    All,
    /// Persistent ones that did not have to make room: see [`QueueDeclaration::dead_queue`].
    Persistent,
    /// Those that could not be delivered: see [`Properties::dead_queue`].
    Failed,
}

impl DeadLetterTarget {
    /// Whether a message that is given up for that reason goes there.
    pub fn takes(&self, message: &Message, reason: Reason) -> bool {
        match self.takes {
            Takes::All => true,
            Takes::Persistent => message.traits.persistent && reason != Reason::MaxLen,
            Takes::Failed => matches!(reason, Reason::Rejected | Reason::DeliveryLimit),
        }
    }
}

/// Names of a policy and of an operator policy.
pub type PolicyNames = (Option<Arc<str>>, Option<Arc<str>>);

/// A queue.
pub struct Queue {
    /// Its identity; never reused.
    pub id: QueueId,
    /// Its name.
    pub name: Arc<str>,
    /// It survives a restart.
    pub is_durable: bool,
    /// What it was declared as.
    pub declaration: QueueDeclaration,
    /// Where it lives.
    pub vhost: Weak<Vhost>,
    machine: Mutex<Machine>,
    /// Of its vhost: every delivery is copied to the trace exchange.
    is_traced: Arc<AtomicBool>,
    is_deleted: AtomicBool,
    /// What it takes in, of what is routed to it; `None`: everything.
    intake: Option<Arc<Selector>>,
    /// Position of its declaration in the log, zero without one.
    declared_at: AtomicU64,
    dead_letter: RwLock<DeadLetterTarget>,
    properties: RwLock<Arc<Properties>>,
    /// Milliseconds that a delivery may stay unsettled; [`NO_TIMEOUT`] for none.
    consumer_timeout_ms: AtomicU64,
    /// The appointment that its timer has; [`Time::NEVER`] for none.
    appointment: AtomicU64,
    /// Exchanges that have, or had, bindings to it.
    pub(in crate::broker) inbound: Mutex<Vec<Arc<Exchange>>>,
    /// Names of the policy and the operator policy that apply.
    pub policies: Mutex<PolicyNames>,
}

/// Numbers for listings.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueueStatus {
    /// Messages waiting.
    pub ready: u64,
    /// Messages delivered or leased and not settled.
    pub unsettled: u64,
    /// Those of them that are leased.
    pub leased: u64,
    /// Messages withheld, which are neither ready nor unsettled.
    pub withheld: u64,
    /// Bytes of the bodies of waiting messages.
    pub ready_bytes: u64,
    /// Bytes of the bodies of unsettled messages.
    pub unsettled_bytes: u64,
    /// Consumers.
    pub consumers: u64,
    /// Totals since it was declared.
    pub counters: Counters,
    /// When it was last used.
    pub used_at: Time,
}

/// A consumer for listings.
#[derive(Clone)]
pub struct ConsumerStatus {
    /// Its identity.
    pub id: ConsumerId,
    /// What it asked for.
    pub options: ConsumerOptions,
    /// Deliveries it has not settled.
    pub unsettled: u32,
    /// It is the one that is served, or all are.
    pub is_active: bool,
}

const NO_TIMEOUT: u64 = u64::MAX;
/// Milliseconds after which a dead message that nobody took is tried again.
const DEAD_RETRY_MS: u64 = 30_000;
/// Messages that one lock hold expires, purges or compacts.
pub(super) const CHUNK: usize = 256;
/// Messages that pass through an empty queue before they are handed over.
const PASSED_MAX: usize = 128;
/// Bytes of bodies that pass through an empty queue before they are handed over.
const PASSED_BYTES_MAX: u64 = 256 * 1024;
/// Messages that one lock hold counts: cheaper each than what [`CHUNK`] is about.
const SCAN: usize = 4_096;
/// Segments that a stream gives up in one lock hold.
const RETAINED_SEGMENTS_MAX: usize = 16;
/// Milliseconds after which a held message may be copied out of the buffer it arrived in.
const COMPACT_AFTER_MS: u64 = 2_000;

impl Queue {
    /// An empty queue.
    pub fn new(
        id: QueueId,
        name: Arc<str>,
        declaration: QueueDeclaration,
        vhost: &Arc<Vhost>,
        limits: Limits,
        now: Time,
    ) -> Self {
        let consumer_timeout_ms = AtomicU64::new(limits.consumer_timeout_ms.unwrap_or(NO_TIMEOUT));
        let mut machine = Machine::new(declaration.parsed.max_priority.unwrap_or(0), limits, now);
        let intake = declaration.parsed.selector.clone().map(|selector| selector.0);
        machine.has_single_active_consumer = declaration.parsed.single_active_consumer;
        if declaration.parsed.queue_type == QueueType::Stream {
            machine.stream = Some(Box::new(Stream::new(machine.limits.stream)));
        }
        Self {
            id,
            name,
            is_durable: declaration.is_durable,
            declaration,
            vhost: Arc::downgrade(vhost),
            machine: Mutex::new(machine),
            is_traced: vhost.is_traced.clone(),
            is_deleted: AtomicBool::new(false),
            intake,
            declared_at: AtomicU64::new(0),
            dead_letter: RwLock::default(),
            properties: RwLock::default(),
            consumer_timeout_ms,
            appointment: AtomicU64::new(Time::NEVER.0),
            inbound: Mutex::default(),
            policies: Mutex::default(),
        }
    }

    /// It was deleted; who still holds it must look it up again.
    pub fn is_deleted(&self) -> bool {
        self.is_deleted.load(Ordering::Acquire)
    }

    /// Where the log has its declaration: whoever is told that it exists waits for that.
    pub fn declared_at(&self) -> Position {
        Position(self.declared_at.load(Ordering::Relaxed))
    }

    pub(in crate::broker) fn set_declared_at(&self, position: Position) {
        self.declared_at.store(position.0, Ordering::Relaxed);
    }

    /// It is a stream: consuming does not remove.
    pub fn is_stream(&self) -> bool {
        self.declaration.parsed.queue_type == QueueType::Stream
    }

    /// Whether deliveries say how often they failed before.
    pub fn reports_count(&self) -> bool {
        self.declaration.parsed.queue_type == QueueType::Quorum
    }

    /// A quorum queue with a single active consumer has no single gets, as with RabbitMQ.
    pub fn refuses_get(&self) -> bool {
        let parsed = &self.declaration.parsed;
        parsed.queue_type == QueueType::Quorum && parsed.single_active_consumer
    }

    /// Milliseconds that a delivery may stay unsettled, where the queue or a policy says so. Takes
    /// no lock: whoever asks may hold an outlet's.
    pub fn consumer_timeout_ms(&self) -> Option<u64> {
        Some(self.consumer_timeout_ms.load(Ordering::Relaxed)).filter(|ms| *ms != NO_TIMEOUT)
    }

    /// Where messages go that it gives up.
    pub fn dead_letter(&self) -> DeadLetterTarget {
        self.dead_letter.read().clone()
    }

    pub(in crate::broker) fn set_dead_letter(&self, target: DeadLetterTarget) {
        *self.dead_letter.write() = target;
    }

    /// What is known of it beside its declaration.
    pub fn properties(&self) -> Arc<Properties> {
        self.properties.read().clone()
    }

    pub(in crate::broker) fn set_properties(&self, properties: Properties) {
        *self.properties.write() = Arc::new(properties);
    }

    /// The vhost's name, empty once the vhost is gone.
    pub fn vhost_name(&self) -> Arc<str> {
        self.vhost.upgrade().map_or_else(|| Arc::from(""), |vhost| vhost.name.clone())
    }

    /// Puts what a changed policy or property comes to in force.
    pub fn configure(self: &Arc<Self>, limits: Limits, dead_letter: DeadLetterTarget, turn: &mut Turn<'_>) {
        *self.dead_letter.write() = dead_letter;
        self.consumer_timeout_ms.store(limits.consumer_timeout_ms.unwrap_or(NO_TIMEOUT), Ordering::Relaxed);
        let mut machine = self.machine.lock();
        if machine.limits == limits {
            return;
        }
        machine.set_limits(limits);
        self.appoint(turn.now, turn);
    }

    /// Takes messages in, in order. Appends to `refused` the indices of those that it is too full
    /// for. Messages published to a deleted queue are dropped.
    pub fn publish(
        self: &Arc<Self>,
        messages: impl Iterator<Item = Message>,
        turn: &mut Turn<'_>,
        refused: &mut Vec<usize>,
    ) {
        self.publish_shared(messages, &mut Bodies::default(), turn, refused);
    }

    /// As [`Self::publish`], where other queues take the messages, too.
    pub(in crate::broker) fn publish_shared(
        self: &Arc<Self>,
        messages: impl Iterator<Item = Message>,
        bodies: &mut Bodies,
        turn: &mut Turn<'_>,
        refused: &mut Vec<usize>,
    ) {
        let mut effects = self.effects(turn);
        let mut machine = self.machine.lock();
        if self.is_deleted() {
            return;
        }
        self.push(&mut machine, messages, bodies, turn, &mut effects, refused);
        self.after_push(machine, effects, turn);
    }

    /// Takes the lock, for verbs that need the locks of several queues.
    pub(in crate::broker) fn lock(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock()
    }

    /// Room for what a verb leaves to be done after unlocking.
    pub(in crate::broker) fn effects(&self, turn: &Turn<'_>) -> Effects {
        Effects { wants_settled: self.is_logged(turn), ..Effects::default() }
    }

    /// Takes messages in and records them; [`Self::after_push`] is the rest of it.
    pub(in crate::broker) fn push(
        &self,
        machine: &mut Machine,
        messages: impl Iterator<Item = Message>,
        bodies: &mut Bodies,
        turn: &mut Turn<'_>,
        effects: &mut Effects,
        refused: &mut Vec<usize>,
    ) {
        let is_logged = self.is_logged(turn);
        let (mut passed, mut passed_bytes) = (0, 0);
        for (index, message) in messages.enumerate() {
            if !self.takes(&message, turn) {
                continue;
            }
            let is_recorded = is_logged && (message.traits.persistent || self.is_stream());
            let mut record = |machine: &Machine, seq, message: &Message, due, turn: &mut Turn<'_>| {
                if !is_recorded {
                    return Position::NONE;
                }
                let (deadline, at) = (machine.deadline_of(message, turn.now), turn.now);
                turn.record_entering(Enqueued { queue: self.id, seq, message, deadline, at }, bodies.name(index), due)
            };
            // Who gets a message that has a group is not for `choose_consumer` to say.
            if machine.is_open()
                && !message.traits.has_group
                && !message.traits.ttl.is_expired()
                && let Some(slot) = machine.choose_consumer()
            {
                (passed, passed_bytes) = (passed + 1, passed_bytes + message.body_bytes());
                let place = record(machine, machine.next_seq(), &message, None, turn);
                machine.pass(message, slot, place, turn.now, effects);
                // In a transaction the others' records come first: nobody is to see a part of it.
                if (passed == PASSED_MAX || passed_bytes > PASSED_BYTES_MAX) && !turn.is_in_transaction() {
                    self.record_settled(effects, turn);
                    self.hand_over(machine, turn);
                    (passed, passed_bytes) = (0, 0);
                }
                continue;
            }
            if message.traits.has_group {
                machine.select_groups(|| turn.broker.fields());
            }
            match machine.admit(message, turn.now, effects) {
                Ok((seq, message)) => {
                    let due = machine.withheld_until(&message, Withhold::Queue, turn.now);
                    let place = record(machine, seq, &message, due, turn);
                    machine.enter_or_withhold((seq, message, place), due, turn.now, effects);
                }
                Err(Pushed::Refused) => refused.push(index),
                Err(Pushed::Duplicate(_) | Pushed::Accepted(_)) => {}
            }
        }
    }

    /// Whether the queue takes a message in that was routed to it.
    #[inline]
    pub(in crate::broker) fn takes(&self, message: &Message, turn: &Turn<'_>) -> bool {
        self.intake.as_ref().is_none_or(|selector| turn.broker.selects(selector, message))
    }

    /// Delivers and unlocks after messages were taken in.
    pub(in crate::broker) fn after_push(
        self: &Arc<Self>,
        mut machine: MutexGuard<'_, Machine>,
        mut effects: Effects,
        turn: &mut Turn<'_>,
    ) {
        self.mark(&mut machine, turn);
        self.retain(&mut machine, turn);
        self.run(&mut machine, turn, &mut effects);
        if machine.ready.next_deadline() <= turn.now {
            machine.expire(turn.now, CHUNK, &mut effects);
        }
        self.appoint_next(&machine, turn);
        self.finish(machine, effects, turn);
    }

    /// Notes how far the log has to be flushed before a stream's new messages may be read.
    fn mark(&self, machine: &mut Machine, turn: &Turn<'_>) {
        let Some(stream) = &mut machine.stream else { return };
        match turn.broker.journal().filter(|_| self.is_logged(turn)) {
            // What was recorded last may be of another queue: later is as good.
            Some(journal) => stream.mark(turn.gate().unwrap_or_else(|| journal.end())),
            None => stream.mark_safe(),
        }
    }

    /// The log was flushed: serves those who waited for that.
    pub(in crate::broker) fn serve_flushed(self: &Arc<Self>, turn: &mut Turn<'_>) {
        if let Some(stream) = &mut self.machine.lock().stream {
            stream.set_awaited(false);
        }
        self.serve(turn);
    }

    /// Has somebody come when more of a stream may be read.
    fn await_flush(self: &Arc<Self>, machine: &mut Machine, turn: &Turn<'_>) {
        if machine.consumers.is_empty() {
            return;
        }
        let Some(stream) = &mut machine.stream else { return };
        let Some((until, journal)) = stream.unflushed_until().zip(turn.broker.journal()) else { return };
        if !stream.set_awaited(true) {
            turn.broker.waiting.await_flush(Arc::downgrade(self));
        }
        // It may have been flushed before anybody was to come.
        if until <= journal.flushed() {
            self.appoint(turn.now, turn);
        }
    }

    /// Has a stream give up what its limits no longer allow, a bounded part of it.
    fn retain(&self, machine: &mut Machine, turn: &mut Turn<'_>) -> bool {
        let Some(stream) = &mut machine.stream else { return false };
        let before = stream.first_offset();
        let has_more = (0..RETAINED_SEGMENTS_MAX).all(|_| stream.retain(turn.now) > 0);
        let first = stream.first_offset();
        if first != before && self.is_logged(turn) {
            turn.record(Record::StreamTrimmed { queue: self.id, first });
        }
        has_more
    }

    /// Whether changes of this queue are recorded.
    pub(in crate::broker) fn is_logged(&self, turn: &Turn<'_>) -> bool {
        self.survives_restart() && turn.broker.is_logged()
    }

    /// Whether it is in the log: durable, and not to go with its connection.
    pub fn survives_restart(&self) -> bool {
        self.is_durable && self.declaration.owner.is_none()
    }

    /// Whether that message's way through this queue is recorded. A stream keeps all of its
    /// messages, so that no offset is missing.
    pub(in crate::broker) fn is_recorded(&self, message: &Message, turn: &Turn<'_>) -> bool {
        self.is_logged(turn) && (message.traits.persistent || self.is_stream())
    }

    /// Takes one message out; `None` when there is none.
    pub fn get(self: &Arc<Self>, no_ack: bool, turn: &mut Turn<'_>) -> Verb<Option<Got>> {
        let mut effects = self.effects(turn);
        let mut machine = self.machine.lock();
        let got = machine.get(no_ack, turn.now, &mut effects);
        let is_cold = got.is_none() && machine.wait_for_front();
        self.appoint_next(&machine, turn);
        self.finish(machine, effects, turn);
        // What expired on the way to it has changed nothing for whoever asks.
        if is_cold {
            return Verb::Pending(Ticket(self.id.0));
        }
        Verb::Done(got.map(|mut got| {
            let presented = turn.broker.presented(self.id, &got.message);
            if let Cow::Owned(message) = presented {
                got.message = message;
            }
            got
        }))
    }

    /// Settles deliveries, in the order given.
    pub fn settle(self: &Arc<Self>, held: &[Held], how: Settle, turn: &mut Turn<'_>) {
        let mut effects = self.effects(turn);
        let mut machine = self.machine.lock();
        self.settle_all(&mut machine, held, how, turn.now, &mut effects);
        self.record_settled(&mut effects, turn);
        self.run(&mut machine, turn, &mut effects);
        machine.enforce_limits(CHUNK, &mut effects);
        self.appoint_next(&machine, turn);
        self.finish(machine, effects, turn);
    }

    /// Settles deliveries and serves nobody: the caller chooses who gets the credit first, and
    /// calls [`Self::serve`] in the end.
    pub fn settle_quietly(self: &Arc<Self>, held: &[Held], how: Settle, turn: &mut Turn<'_>) {
        let mut effects = self.effects(turn);
        let mut machine = self.machine.lock();
        self.settle_all(&mut machine, held, how, turn.now, &mut effects);
        self.finish(machine, effects, turn);
    }

    /// Serves whoever can be served.
    pub fn serve(self: &Arc<Self>, turn: &mut Turn<'_>) {
        let mut effects = self.effects(turn);
        let mut machine = self.machine.lock();
        self.run(&mut machine, turn, &mut effects);
        machine.enforce_limits(CHUNK, &mut effects);
        self.appoint_next(&machine, turn);
        self.finish(machine, effects, turn);
    }

    /// Gives its consumers nothing more, or goes on with that. What one of them gives back stays in the queue
    /// meanwhile: it would count as a failed delivery once for each of them, were they all to go. Streams,
    /// which take nothing back, go on.
    pub(in crate::broker) fn halt(self: &Arc<Self>, is_halted: bool, turn: &mut Turn<'_>) {
        self.machine.lock().consumers.halt(is_halted);
        if !is_halted {
            self.serve(turn);
        }
    }

    /// Settles deliveries under the lock; nothing is recorded or delivered yet.
    pub(in crate::broker) fn settle_all(
        &self,
        machine: &mut Machine,
        held: &[Held],
        how: Settle,
        now: Time,
        effects: &mut Effects,
    ) {
        match how {
            Settle::Accepted => machine.accept(held, effects),
            // Newest first, so that each goes in front of what was requeued before it.
            Settle::Requeued | Settle::Returned => {
                held.iter().rev().for_each(|&held| _ = machine.settle(held, how, now, effects));
            }
            Settle::Rejected => held.iter().for_each(|&held| _ = machine.settle(held, how, now, effects)),
        }
        if self.is_deleted() {
            // Its messages went with it; only credit was to be given back.
            effects.dead.clear();
            machine.clear();
        }
    }

    /// Records what was settled, remembered and handed over under the lock so far.
    pub(in crate::broker) fn record_settled(&self, effects: &mut Effects, turn: &mut Turn<'_>) {
        if !effects.requeued.is_empty() {
            let seqs = std::mem::take(&mut effects.requeued);
            turn.record(Record::Requeue { queue: self.id, seqs });
        }
        if !effects.unheld.is_empty() {
            let seqs = std::mem::take(&mut effects.unheld);
            turn.record(Record::Unheld { queue: self.id, seqs });
        }
        if !effects.settled.is_empty() {
            let seqs = std::mem::take(&mut effects.settled);
            turn.record(Record::Settle { queue: self.id, seqs });
        }
        for seen in effects.seen.drain(..) {
            turn.record(Record::Seen { keeper: Keeper::Queue(self.id), seen });
        }
        if let Some(up_to) = effects.handed.take() {
            turn.record(Record::Handed { queue: self.id, up_to });
        }
    }

    /// Has the log know that nothing more was delivered, when the last consumer has gone.
    fn release_handed(&self, machine: &mut Machine, effects: &mut Effects, turn: &Turn<'_>) {
        if self.is_logged(turn) {
            effects.handed = machine.release_handed().or(effects.handed);
        }
    }

    /// Ends consumers and takes back what their channel held, in one step: whoever is served next
    /// gets the messages in their order. Returns whether the queue has to be deleted because these
    /// were the last consumers.
    pub fn leave(
        self: &Arc<Self>,
        consumers: &[ConsumerId],
        requeued: &[Held],
        returned: &[Held],
        turn: &mut Turn<'_>,
    ) -> bool {
        let mut effects = self.effects(turn);
        let mut machine = self.machine.lock();
        for &id in consumers {
            if let Some(slot) = machine.consumers.slot_of(id) {
                machine.close_consumer(slot);
                machine.used_at = turn.now;
            }
        }
        machine.elect();
        self.settle_all(&mut machine, requeued, Settle::Requeued, turn.now, &mut effects);
        self.settle_all(&mut machine, returned, Settle::Returned, turn.now, &mut effects);
        self.record_settled(&mut effects, turn);
        self.release_handed(&mut machine, &mut effects, turn);
        let is_over = !consumers.is_empty() && self.declaration.is_auto_delete && machine.consumers.is_empty();
        if !is_over {
            self.run(&mut machine, turn, &mut effects);
            machine.enforce_limits(CHUNK, &mut effects);
        }
        self.appoint_next(&machine, turn);
        self.finish(machine, effects, turn);
        is_over
    }

    /// Has a consumer share the credit of its channel from now on.
    pub fn share_credit(&self, id: ConsumerId, credit: &Arc<SharedCredit>) {
        let mut machine = self.machine.lock();
        if let Some(slot) = machine.consumers.slot_of(id)
            && let Some(consumer) = machine.consumers.get_mut(slot)
            && consumer.options.shared_credit.is_none()
            && !consumer.options.no_ack
        {
            credit.charge(consumer.unsettled);
            consumer.options.shared_credit = Some(credit.clone());
        }
    }

    /// Starts a consumer.
    pub fn consume(
        self: &Arc<Self>,
        id: ConsumerId,
        options: ConsumerOptions,
        turn: &mut Turn<'_>,
    ) -> Result<(), Error> {
        let mut effects = self.effects(turn);
        let mut machine = self.machine.lock();
        self.check(&machine, &options)?;
        let cursor = self.cursor(&machine, &options, turn.now)?;
        machine.had_consumer = true;
        machine.used_at = turn.now;
        let is_settling = !options.no_ack;
        machine.open_consumer(id, options, cursor, || turn.broker.fields());
        machine.elect();
        if is_settling && effects.wants_settled {
            effects.handed = machine.prepare_handed();
        }
        self.run(&mut machine, turn, &mut effects);
        self.finish(machine, effects, turn);
        Ok(())
    }

    /// Whether such a consumer would be accepted now.
    pub fn check_consumer(&self, options: &ConsumerOptions) -> Result<(), Error> {
        let machine = self.machine.lock();
        self.check(&machine, options)?;
        self.cursor(&machine, options, Time::default()).map(drop)
    }

    fn check(&self, machine: &Machine, options: &ConsumerOptions) -> Result<(), Error> {
        let vhost = self.vhost_name();
        if self.is_deleted() {
            return Err(Error::NotFound { kind: Kind::Queue, name: self.name.to_string(), vhost });
        }
        let is_taken = machine.consumers.has_exclusive()
            || options.exclusive && (!machine.consumers.is_empty() || machine.has_single_active_consumer);
        if is_taken {
            return Err(Error::ExclusiveUse { name: self.name.to_string(), vhost });
        }
        if options.selector.is_some() && machine.stream.is_some() {
            let text = format!("a consumer of stream '{}' in vhost '{vhost}' cannot have a selector", self.name);
            return Err(Error::Argument(text));
        }
        Ok(())
    }

    /// Where a consumer of a stream begins.
    fn cursor(&self, machine: &Machine, options: &ConsumerOptions, now: Time) -> Result<Option<Box<Cursor>>, Error> {
        let Some(stream) = &machine.stream else { return Ok(None) };
        let refuse = |argument: &str, reason: &dyn std::fmt::Display| {
            let vhost = self.vhost_name();
            Error::Argument(format!("invalid arg '{argument}' for queue '{}' in vhost '{vhost}': {reason}", self.name))
        };
        let spec = OffsetSpec::parse_argument(options.arguments.get("x-stream-offset"))
            .map_err(|error| refuse("x-stream-offset", &error))?;
        let filter = Filter::parse(&options.arguments);
        let start = stream.resolve(&spec, now);
        Ok(Some(Box::new(Cursor { next: start.offset, since: start.since, filter })))
    }

    /// Ends a consumer; what it holds stays unsettled. Returns whether the queue has to be deleted
    /// because this was the last one.
    pub fn cancel(self: &Arc<Self>, id: ConsumerId, turn: &mut Turn<'_>) -> bool {
        let mut effects = self.effects(turn);
        let mut machine = self.machine.lock();
        let Some(slot) = machine.consumers.slot_of(id) else { return false };
        machine.close_consumer(slot);
        machine.used_at = turn.now;
        machine.elect();
        self.release_handed(&mut machine, &mut effects, turn);
        let is_over = self.declaration.is_auto_delete && machine.consumers.is_empty();
        if machine.consumers.is_empty()
            && let Some(ms) = machine.limits.expires_ms
        {
            self.appoint(turn.now.after_ms(ms), turn);
        }
        self.run(&mut machine, turn, &mut effects);
        self.finish(machine, effects, turn);
        is_over
    }

    /// Lets a consumer hold so many more unsettled deliveries than it may, or so many less again. One without
    /// a bound has none.
    pub fn lend(self: &Arc<Self>, id: ConsumerId, credit: i32, turn: &mut Turn<'_>) {
        self.change_consumer(id, turn, |consumer| {
            if consumer.options.prefetch != 0 {
                consumer.options.prefetch = consumer.options.prefetch.saturating_add_signed(credit).max(1);
            }
        });
    }

    /// Changes what a consumer may take, and serves it.
    fn change_consumer(self: &Arc<Self>, id: ConsumerId, turn: &mut Turn<'_>, change: impl FnOnce(&mut Consumer)) {
        let mut effects = self.effects(turn);
        let mut machine = self.machine.lock();
        let Some(slot) = machine.consumers.slot_of(id) else { return };
        if let Some(consumer) = machine.consumers.get_mut(slot) {
            change(consumer);
        }
        machine.consumers.unblock(slot);
        self.run(&mut machine, turn, &mut effects);
        self.appoint_next(&machine, turn);
        self.finish(machine, effects, turn);
    }

    /// The consumer's outlet has room again, or its credit has grown.
    pub fn resume(self: &Arc<Self>, id: ConsumerId, turn: &mut Turn<'_>) {
        self.change_consumer(id, turn, |consumer| consumer.is_parked = false);
    }

    /// Removes all messages that are ready, leased or withheld; returns how many.
    pub fn purge(self: &Arc<Self>, turn: &mut Turn<'_>) -> u64 {
        if let Some(count) = self.purge_at_once(turn) {
            return count;
        }
        let mut total = 0;
        loop {
            let mut effects = self.effects(turn);
            let mut machine = self.machine.lock();
            let done = machine.purge(CHUNK, &mut effects);
            self.finish(machine, effects, turn);
            total += done as u64;
            if done < CHUNK {
                return total;
            }
        }
    }

    /// Takes the queue out of service. Its consumers are told, its messages are gone.
    /// Returns the number of ready messages.
    pub(in crate::broker) fn close(self: &Arc<Self>, turn: &mut Turn<'_>) -> u64 {
        let mut machine = self.machine.lock();
        if self.is_deleted.swap(true, Ordering::AcqRel) {
            return 0;
        }
        let told: Vec<(Arc<dyn Outlet>, u64)> =
            machine.consumers.iter().map(|consumer| (consumer.options.outlet.clone(), consumer.options.key)).collect();
        for slot in machine.consumers.slots().collect::<Vec<_>>() {
            machine.close_consumer(slot);
        }
        let ready = machine.ready_count();
        machine.clear();
        let waiters = machine.take_waiters();
        drop(machine);
        tell_waiters(waiters);
        for (outlet, key) in told {
            outlet.cancelled(key);
            turn.flush_later(outlet);
        }
        ready
    }

    /// Whether something that is set aside is on its way back: due, or being read.
    #[cfg(test)]
    pub(crate) fn brings_back(&self, now: Time) -> bool {
        self.machine.lock().brings_back(now)
    }

    /// Deletes nothing and answers how it stands.
    pub fn status(&self) -> QueueStatus {
        let machine = self.machine.lock();
        let (leased, withheld) = machine.aside_counts();
        QueueStatus {
            ready: machine.ready_count(),
            unsettled: machine.unsettled_count(),
            leased: leased as u64,
            withheld: withheld as u64,
            ready_bytes: machine.stream.as_ref().map_or(machine.ready.bytes(), |stream| stream.bytes()),
            unsettled_bytes: machine.unsettled.bytes() + machine.leased_bytes(),
            consumers: machine.consumers.len() as u64,
            counters: machine.counters,
            used_at: machine.used_at,
        }
    }

    /// The share of the last time in which its consumers could take messages at once; `None`
    /// without consumers.
    pub fn consumer_capacity(&self, now: Time) -> Option<f64> {
        let machine = self.machine.lock();
        (!machine.consumers.is_empty()).then(|| machine.usage.share(now))
    }

    /// Its consumers, in the order in which they are served.
    pub fn consumers(&self) -> Vec<ConsumerStatus> {
        let machine = self.machine.lock();
        let active = machine.consumers.active;
        let statuses = machine.consumers.slots().filter_map(|slot| {
            let consumer = machine.consumers.get(slot)?;
            Some(ConsumerStatus {
                id: consumer.id,
                options: consumer.options.clone(),
                unsettled: consumer.unsettled,
                is_active: active.is_none_or(|active| active == slot),
            })
        });
        statuses.collect()
    }

    /// Whether a consumer has asked to be the only one.
    pub fn is_exclusively_consumed(&self) -> bool {
        self.machine.lock().consumers.has_exclusive()
    }

    /// Notes that somebody declared it again or looked at it by name.
    pub fn touch(self: &Arc<Self>, turn: &Turn<'_>) {
        let mut machine = self.machine.lock();
        machine.used_at = turn.now;
        self.appoint_next(&machine, turn);
    }

    /// Does what is due. Returns true when the queue itself has expired and is to be deleted.
    pub fn tick(self: &Arc<Self>, turn: &mut Turn<'_>) -> bool {
        self.appointment.store(Time::NEVER.0, Ordering::Release);
        loop {
            let mut effects = self.effects(turn);
            let mut machine = self.machine.lock();
            if self.is_deleted() {
                return false;
            }
            if machine.consumers.is_empty()
                && machine.limits.expires_ms.is_some_and(|ms| machine.used_at.after_ms(ms) <= turn.now)
            {
                return true;
            }
            let mut has_more = machine.retry(turn.now, CHUNK, &mut effects);
            has_more |= machine.come_due(turn.now, CHUNK, &mut effects);
            has_more |= machine.expire(turn.now, CHUNK, &mut effects);
            has_more |= machine.enforce_limits(CHUNK, &mut effects);
            has_more |= machine.compact(CHUNK);
            has_more |= self.retain(&mut machine, turn);
            if !has_more {
                machine.forget_unread();
                self.run(&mut machine, turn, &mut effects);
                self.appoint_next(&machine, turn);
            }
            self.finish(machine, effects, turn);
            turn.drain();
            if !has_more {
                return false;
            }
        }
    }

    /// Those of its ready messages that are in memory, with their identity, in delivery order.
    pub fn snapshot(&self) -> Vec<(u64, Message, Time)> {
        let machine = self.machine.lock();
        machine.ready.iter().map(|entry| (entry.seq, entry.message.clone(), entry.deadline)).collect()
    }

    /// The message that is delivered next, if it is in memory.
    pub fn head(&self) -> Option<Message> {
        self.machine.lock().ready.front().entry().map(|entry| entry.message.clone())
    }

    /// Number of persistent messages that it holds, and the bytes of their bodies. Walks all messages
    /// and lets go of the lock in between, so that the answer is exact only while nothing changes.
    pub fn persistent(&self) -> (u64, u64) {
        let (mut count, mut bytes) = self.machine.lock().ready.cold_persistent();
        let mut add = |entry: &super::ready::Entry| {
            if entry.message.traits.persistent {
                count += 1;
                bytes += entry.message.body_bytes();
            }
        };
        for level in 0.. {
            let mut from = 0;
            loop {
                let machine = self.machine.lock();
                let Some(slots_count) = machine.ready.level_len(level) else { break };
                machine.ready.slots(level, from, SCAN).for_each(&mut add);
                from += SCAN;
                if from >= slots_count {
                    break;
                }
            }
            if self.machine.lock().ready.level_len(level).is_none() {
                break;
            }
        }
        let (aside, aside_bytes) = self.machine.lock().persistent_aside();
        (count, bytes) = (count + aside, bytes + aside_bytes);
        let mut add = |entry: &super::ready::Entry| {
            if entry.message.traits.persistent {
                count += 1;
                bytes += entry.message.body_bytes();
            }
        };
        let mut from = 0;
        loop {
            let machine = self.machine.lock();
            machine.unsettled.slots(from, SCAN).for_each(&mut add);
            from += SCAN;
            if from >= machine.unsettled.slots_count() {
                return (count, bytes);
            }
        }
    }

    /// Dispatches and hands over until nobody can take more.
    pub(super) fn run(&self, machine: &mut Machine, turn: &mut Turn<'_>, effects: &mut Effects) {
        if let Some((stream, journal)) = machine.stream.as_mut().zip(turn.broker.journal()) {
            stream.flushed(journal.flushed());
        }
        machine.select_if_needed(|| turn.broker.fields());
        machine.begin_look();
        loop {
            machine.dispatch(turn.now, effects);
            if !machine.has_assigned() {
                if machine.has_more() {
                    continue;
                }
                return;
            }
            // Before any outlet sees them.
            self.record_settled(effects, turn);
            self.hand_over(machine, turn);
            if !machine.has_more() {
                return;
            }
        }
    }

    /// Hands assigned deliveries to their outlets.
    fn hand_over(&self, machine: &mut Machine, turn: &mut Turn<'_>) {
        let assigned = machine.take_assigned();
        for &slot in &assigned {
            let Machine { consumers, unsettled, .. } = machine;
            let Some(consumer) = consumers.get_mut(slot) else { continue };
            let items = std::mem::take(&mut consumer.assigned);
            let batch = Batch::new(&items, unsettled, self.reports_count(), turn.broker.presenter(self.id));
            if self.is_traced.load(Ordering::Relaxed)
                && let Some(vhost) = self.vhost.upgrade()
            {
                let ConsumerOptions { connection, channel, .. } = consumer.options;
                let to = Party { connection, channel };
                batch.for_each(|one| turn.trace_delivered(&vhost, one.message, &self.name, one.redelivered, to));
            }
            let handed = consumer.options.outlet.deliver(consumer.options.key, &batch);
            consumer.is_parked |= handed.is_full;
            if handed.needs_flush {
                turn.flush_later(consumer.options.outlet.clone());
            }
            consumers::keep_list(items);
        }
        machine.reuse_assigned(assigned);
    }

    /// Keeps a dead message that no queue has taken, if this queue is to; it is tried again later.
    pub(in crate::broker) fn keep_dead(self: &Arc<Self>, dead: Dead, turn: &Turn<'_>) -> Result<(), Dead> {
        let mut machine = self.machine.lock();
        // One that was refused by a full queue never was in it, and its publisher has been told.
        if !machine.limits.keeps_dead || dead.entry.seq == 0 || self.is_deleted() {
            return Err(dead);
        }
        machine.keep_dead(turn.now.after_ms(DEAD_RETRY_MS), dead);
        self.appoint_next(&machine, turn);
        Ok(())
    }

    pub(super) fn finish(
        self: &Arc<Self>,
        mut machine: MutexGuard<'_, Machine>,
        mut effects: Effects,
        turn: &mut Turn<'_>,
    ) {
        self.record_settled(&mut effects, turn);
        let told = machine.take_told();
        if machine.cold.is_some() {
            machine.prune_gone();
            self.ask_for_pages(&mut machine, turn);
        } else if machine.stream.is_some() {
            self.ask_for_pages(&mut machine, turn);
            self.await_flush(&mut machine, turn);
        }
        self.tell_overflow(&mut machine, turn);
        if machine.is_looking() {
            self.appoint(turn.now, turn);
        }
        drop(machine);
        tell_waiters(told);
        for dead in effects.dead {
            turn.dead_letter_later(self.clone(), dead);
        }
    }

    pub(super) fn appoint_next(self: &Arc<Self>, machine: &Machine, turn: &Turn<'_>) {
        let mut at = machine.ready.next_deadline().min(machine.retries.next_due()).min(machine.cold_due());
        at = at.min(machine.aside_due());
        if machine.needs_compaction() || machine.stream.is_some() {
            at = at.min(turn.now.after_ms(COMPACT_AFTER_MS));
        }
        if let Some(ms) = machine.limits.expires_ms
            && machine.consumers.is_empty()
        {
            at = at.min(machine.used_at.after_ms(ms));
        }
        if at != Time::NEVER {
            self.appoint(at, turn);
        }
    }

    pub(super) fn appoint(self: &Arc<Self>, at: Time, turn: &Turn<'_>) {
        // Lost races only mean one appointment too many.
        if at.0 < self.appointment.load(Ordering::Acquire) {
            self.appointment.store(at.0, Ordering::Release);
            turn.broker.timers.schedule(at, Owner::Queue(Arc::downgrade(self)));
        }
    }
}
