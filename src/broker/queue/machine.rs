//! A queue as a plain state machine: every verb mutates it and returns effects; it calls nothing.
//!
//! Deliveries are assigned to consumers here and handed to their outlets by
//! [`Queue`](super::Queue), which also drains the other effects after it has unlocked.
//!
//! Invariants:
//! - a message is in exactly one of `ready`, `unsettled`, a consumer's assigned list (when it need
//!   not be settled) or the effects;
//! - `next_seq` is larger than every seq in the queue.

use super::{
    arguments::DedupArguments,
    behaviour::Overflow,
    cold::{Cold, Window as Reach},
    consumers::{self, Consumers},
    dedup::{Observed, Seen, SeenLook, Window},
    handed::Handed,
    leases::Leases,
    ready::{Entry, Front, Ready},
    retries::{Retries, Retry, RetryDelay},
    selective::{GroupMode, Selection},
    stream::{Next, Stream, StreamOptions},
    unsettled::Unsettled,
    usage::Usage,
};
use crate::broker::{
    consumer::{Assigned, Held, Settle},
    message::Message,
    record::Position,
    time::Time,
};

/// What the arguments and the policy of a queue come to.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Milliseconds that a message is withheld for which nobody says how long.
    pub withhold_ms: Option<u64>,
    /// Milliseconds that a message may wait.
    pub message_ttl_ms: Option<u64>,
    /// Milliseconds without use after which the queue is deleted.
    pub expires_ms: Option<u64>,
    /// Ready messages that it may hold.
    pub max_length: Option<u64>,
    /// Bytes of bodies of ready messages that it may hold.
    pub max_length_bytes: Option<u64>,
    /// What happens when it is full.
    pub overflow: Overflow,
    /// Failed deliveries after which a message is dead-lettered.
    pub delivery_limit: Option<u64>,
    /// How long a message whose delivery failed waits before it is ready again.
    pub retry_delay: Option<RetryDelay>,
    /// A dead message that has somewhere to go stays until a queue has taken it.
    pub keeps_dead: bool,
    /// Milliseconds that a delivery may stay unsettled.
    pub consumer_timeout_ms: Option<u64>,
    /// What limits a stream.
    pub stream: StreamOptions,
    /// Header that names a message for deduplication, and what is remembered.
    pub deduplication: Option<DedupArguments>,
    /// How long a consumer owns a group of messages.
    pub group_mode: GroupMode,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            withhold_ms: None,
            message_ttl_ms: None,
            expires_ms: None,
            max_length: None,
            max_length_bytes: None,
            overflow: Overflow::DropHead,
            delivery_limit: None,
            retry_delay: None,
            keeps_dead: false,
            consumer_timeout_ms: None,
            stream: StreamOptions::default(),
            deduplication: None,
            group_mode: GroupMode::default(),
        }
    }
}

/// Why a message left a queue without being accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A client refused it.
    Rejected,
    /// It waited too long.
    Expired,
    /// The queue was too long.
    MaxLen,
    /// Too many deliveries of it failed.
    DeliveryLimit,
}

impl Reason {
    /// The word in death records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::MaxLen => "maxlen",
            Self::DeliveryLimit => "delivery_limit",
        }
    }
}

/// A message that left the queue and may have to be dead-lettered.
#[derive(Debug)]
pub struct Dead {
    /// The message; its seq is zero when it never was in the queue.
    pub entry: Entry,
    /// Why it left.
    pub reason: Reason,
}

/// What is to be done after unlocking.
#[derive(Debug, Default)]
pub struct Effects {
    /// Messages to dead-letter or to drop.
    pub dead: Vec<Dead>,
    /// Whether `settled` and `requeued` are wanted.
    pub wants_settled: bool,
    /// Seqs of persistent messages that left the queue for good.
    pub settled: Vec<u64>,
    /// Seqs of persistent messages whose delivery failed, each with how often that happened.
    pub requeued: Vec<(u64, u32)>,
    /// Seqs of persistent messages that are no longer withheld.
    pub unheld: Vec<u64>,
    /// Seqs of messages whose leases end at another time.
    pub leases_changed: Vec<u64>,
    /// Names that are remembered from now on, to be recorded after the messages that had them.
    pub seen: Vec<Seen>,
    /// Persistent messages up to this one are to be recorded as possibly delivered.
    pub handed: Option<u64>,
}

impl Effects {
    fn settle(&mut self, entry: &Entry) {
        if self.wants_settled && entry.message.traits.persistent {
            self.settled.push(entry.seq);
        }
    }

    pub(super) fn requeue(&mut self, entry: &Entry) {
        if self.wants_settled && entry.message.traits.persistent {
            self.requeued.push((entry.seq, entry.delivery_count));
        }
    }
}

/// What became of a published message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It is in the queue under this seq.
    Accepted(u64),
    /// The queue is full and refuses it.
    Refused,
    /// The queue has seen it before, under that seq; it counts as taken.
    Duplicate(u64),
}

/// Totals since the queue was declared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Taken in.
    pub published: u64,
    /// Handed to consumers that settle.
    pub delivered: u64,
    /// Handed to consumers that need not settle.
    pub delivered_no_ack: u64,
    /// Taken by single gets.
    pub got: u64,
    /// Delivered again.
    pub redelivered: u64,
    /// Accepted by clients.
    pub acked: u64,
    /// Expired.
    pub expired: u64,
    /// Refused by clients or after too many deliveries.
    pub rejected: u64,
    /// Dropped because the queue was too long.
    pub dropped: u64,
}

/// A message taken by a single get.
#[derive(Debug)]
pub struct Got {
    /// The message.
    pub message: Message,
    /// Set when it must be settled.
    pub held: Option<Held>,
    /// It was delivered before.
    pub redelivered: bool,
    /// Earlier failed deliveries.
    pub delivery_count: u32,
    /// Ready messages that remain.
    pub remaining: u32,
}

impl Got {
    /// The count that the client is told, if its queue reports one.
    pub fn reported_count(&self, queue: &super::Queue) -> Option<u32> {
        queue.reports_count().then_some(self.delivery_count)
    }
}

/// A queue's state.
pub struct Machine {
    /// Waiting messages.
    pub ready: Ready,
    /// Delivered messages.
    pub unsettled: Unsettled,
    /// Messages that came back and are not ready yet.
    pub retries: Retries,
    /// Who takes messages.
    pub consumers: Consumers,
    /// What bounds it.
    pub limits: Limits,
    /// Totals.
    pub counters: Counters,
    /// How much of the time its consumers can take messages.
    pub usage: Usage,
    /// One consumer at a time.
    pub has_single_active_consumer: bool,
    /// The messages of a stream, which are not consumed.
    pub stream: Option<Box<Stream>>,
    /// When it was last declared, consumed from or asked for a message.
    pub used_at: Time,
    /// Somebody has consumed from it.
    pub had_consumer: bool,
    pub(super) next_seq: u64,
    pub(super) handed: Handed,
    /// What an index keeps of it, when one does.
    pub(super) cold: Option<Box<Cold>>,
    /// Somebody was told that it is too long for memory.
    pub(super) is_overflowing: bool,
    dedup: Option<Box<Window>>,
    /// Serials that windows have used before this one.
    seen_before: u64,
    /// What an index has of names, before anybody has said that they are to be remembered.
    unclaimed: Vec<Seen>,
    /// Who may take what, once that is not the same for everybody.
    pub(super) selection: Option<Box<Selection>>,
    /// What is set aside until a time, and who waits for messages, once there has been any.
    pub(super) leases: Option<Box<Leases>>,
    /// How far a selection looks.
    pub(super) reach: Reach,
    /// Consumers with assigned deliveries.
    assigned: Vec<u32>,
    /// `dispatch` stopped at its bound.
    has_more: bool,
    compaction: Compaction,
}

/// How far old messages have been compacted.
#[derive(Debug, Default)]
struct Compaction {
    /// Ready messages up to here are done.
    done: u64,
    /// Messages up to here are old enough.
    old: u64,
    /// Where the walk through unsettled slots goes on.
    slot: usize,
}

/// What a queue with selective consumers or groups keeps in memory of its head, so that they find what is
/// for them behind what is not. Full: nobody looks further, until somebody takes of what is there.
pub(super) const LOOK_AHEAD: Reach = Reach { messages: 20_000, bytes: 32 << 20 };
/// Messages that one call of `dispatch` assigns, so that a full outlet is noticed soon.
const DISPATCH_MAX: usize = 128;
/// Bytes of bodies that one call of `dispatch` assigns.
const DISPATCH_BYTES_MAX: u64 = 256 * 1024;
/// The consumer of messages that were taken by single gets.
const NO_CONSUMER: u32 = u32::MAX;

impl Machine {
    /// An empty queue.
    pub fn new(priority_max: u8, limits: Limits, now: Time) -> Self {
        let mut machine = Self {
            ready: Ready::new(priority_max),
            unsettled: Unsettled::new(),
            retries: Retries::default(),
            consumers: Consumers::default(),
            limits: Limits::default(),
            counters: Counters::default(),
            usage: Usage::new(now),
            has_single_active_consumer: false,
            stream: None,
            used_at: now,
            had_consumer: false,
            next_seq: 1,
            handed: Handed::default(),
            cold: None,
            is_overflowing: false,
            dedup: None,
            seen_before: 0,
            unclaimed: Vec::new(),
            selection: None,
            leases: None,
            reach: LOOK_AHEAD,
            assigned: Vec::new(),
            has_more: false,
            compaction: Compaction::default(),
        };
        machine.set_limits(limits);
        machine
    }

    /// Replaces what bounds the queue, as a changed policy does.
    pub fn set_limits(&mut self, limits: Limits) {
        if limits.deduplication != self.limits.deduplication {
            let before = self.dedup.take();
            self.seen_before = self.seen_before.max(before.as_ref().map_or(0, |window| window.next_serial()));
            let seen_before = self.seen_before;
            self.dedup = limits.deduplication.as_ref().map(|wanted| {
                let kept = before.and_then(|mut window| window.adopt(wanted).then_some(window));
                kept.unwrap_or_else(|| Box::new(Window::new(wanted).after(seen_before)))
            });
            if let Some(window) = &mut self.dedup {
                std::mem::take(&mut self.unclaimed).into_iter().for_each(|seen| window.restore_told(seen));
            }
        }
        if let Some(stream) = &mut self.stream {
            stream.set_options(limits.stream);
        }
        let is_kept = self.selection.as_mut().is_none_or(|selection| selection.set_mode(limits.group_mode));
        self.limits = limits;
        if !is_kept {
            self.select_anew();
        }
    }

    /// Ready messages (of a stream: kept ones).
    pub fn ready_count(&self) -> u64 {
        match &self.stream {
            Some(stream) => stream.len(),
            None => self.ready.len() as u64,
        }
    }

    /// Unsettled deliveries, leased messages, and those that wait to be tried again.
    pub fn unsettled_count(&self) -> u64 {
        if self.stream.is_some() {
            return self.consumers.iter().map(|consumer| u64::from(consumer.unsettled)).sum();
        }
        (self.unsettled.len() + self.retries.len() + self.aside_counts().0) as u64
    }

    /// Takes a message in that is in no log.
    pub fn push(&mut self, message: Message, now: Time, effects: &mut Effects) -> Pushed {
        let (seq, message) = match self.admit(message, now, effects) {
            Ok(admitted) => admitted,
            Err(pushed) => return pushed,
        };
        self.enter(seq, message, Position::NONE, now, effects);
        if let Some(stream) = &mut self.stream {
            stream.mark_safe();
        }
        Pushed::Accepted(seq)
    }

    /// Whether a message may come in, and under which seq: it then has to [`Self::enter`]. If it has a group,
    /// [`Self::select_groups`] was called.
    pub fn admit(&mut self, message: Message, now: Time, effects: &mut Effects) -> Result<(u64, Message), Pushed> {
        self.admit_as(message, false, now, effects)
    }

    /// As [`Self::admit`], for a message that comes back and that may be remembered from before.
    pub fn admit_known(
        &mut self,
        message: Message,
        now: Time,
        effects: &mut Effects,
    ) -> Result<(u64, Message), Pushed> {
        self.admit_as(message, true, now, effects)
    }

    fn admit_as(
        &mut self,
        message: Message,
        is_known: bool,
        now: Time,
        effects: &mut Effects,
    ) -> Result<(u64, Message), Pushed> {
        if let Some(stream) = &self.stream {
            let offset = stream.next_offset();
            if let Some(seq) = duplicate_of(&mut self.dedup, None, &message, offset, now, effects) {
                return Err(Pushed::Duplicate(seq));
            }
            return Ok((offset, message));
        }
        // Before the message is remembered: what was refused may come again.
        if self.limits.overflow != Overflow::DropHead && self.has_length_limit() && self.is_full(now, effects) {
            if self.limits.overflow == Overflow::RejectPublishDlx {
                let entry = Entry {
                    seq: 0,
                    message,
                    deadline: Time::NEVER,
                    delivery_count: 0,
                    redelivered: false,
                    place: Position::NONE,
                };
                effects.dead.push(Dead { entry, reason: Reason::MaxLen });
            }
            return Err(Pushed::Refused);
        }
        if is_known {
            return Ok((self.next_seq, message));
        }
        let selection = self.selection.as_deref();
        if let Some(seq) = duplicate_of(&mut self.dedup, selection, &message, self.next_seq, now, effects) {
            return Err(Pushed::Duplicate(seq));
        }
        Ok((self.next_seq, message))
    }

    /// Takes a message in that was admitted under that seq, and that the log has at `place`.
    pub fn enter(&mut self, seq: u64, message: Message, place: Position, now: Time, effects: &mut Effects) {
        self.counters.published += 1;
        if let Some(stream) = &mut self.stream {
            debug_assert_eq!(stream.next_offset(), seq, "what was admitted enters at once");
            stream.append(message, now, place);
            return;
        }
        debug_assert_eq!(self.next_seq, seq, "what was admitted enters at once");
        self.next_seq += 1;
        let deadline = self.deadline_of(&message, now);
        let entry = Entry { seq, message, deadline, delivery_count: 0, redelivered: false, place };
        if let Some(selection) = &mut self.selection {
            selection.entered(&entry, self.ready.priority_max());
        }
        self.ready.push(entry);
        self.announce(1);
        self.make_room(now, effects);
    }

    /// A message has come in: drops what has no room any more.
    #[inline]
    pub(super) fn make_room(&mut self, now: Time, effects: &mut Effects) {
        if self.limits.overflow == Overflow::DropHead && self.has_length_limit() {
            self.drop_head(now, effects);
        }
    }

    /// The seq of the next message that comes in.
    #[inline]
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Whether a message that comes now may go straight to a consumer: nothing waits before it,
    /// and nothing has to be looked at first.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.ready.is_empty()
            && self.stream.is_none()
            && self.dedup.is_none()
            && self.selection.is_none()
            && self.limits.withhold_ms.is_none()
    }

    /// The consumer that a message may be passed to by [`Self::pass`] without waiting in the queue,
    /// its credit taken. The caller has asked [`Self::is_open`].
    #[inline]
    pub fn choose_consumer(&mut self) -> Option<u32> {
        self.consumers.choose()
    }

    /// Takes a message in and assigns it at once to a consumer that was chosen for it.
    #[inline(always)]
    pub fn pass(&mut self, message: Message, slot: u32, place: Position, now: Time, effects: &mut Effects) {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.counters.published += 1;
        match self.consumers.get_mut(slot) {
            Some(consumer) if consumer.options.no_ack && place == Position::NONE => {
                if consumer.assigned.is_empty() {
                    consumer.assigned = consumers::spare_list();
                    self.assigned.push(slot);
                }
                self.counters.delivered_no_ack += 1;
                consumer.assigned.push(Assigned::Owned {
                    message,
                    redelivered: false,
                    delivery_count: 0,
                    opens_group: false,
                });
            }
            _ => {
                let deadline = self.deadline_of(&message, now);
                let entry = Entry { seq, message, deadline, delivery_count: 0, redelivered: false, place };
                self.assign(entry, slot, effects);
            }
        }
    }

    /// When a message expires that enters the queue now.
    pub fn deadline_of(&self, message: &Message, now: Time) -> Time {
        if message.traits.ttl.is_expired() {
            return Time(now.0.saturating_sub(1));
        }
        let ttl_ms = match (message.traits.ttl.ms(), self.limits.message_ttl_ms) {
            (Some(own), Some(of_queue)) => Some(own.min(of_queue)),
            (own, of_queue) => own.or(of_queue),
        };
        ttl_ms.map_or(Time::NEVER, |ms| now.after_ms(ms))
    }

    /// Puts a message back that a log says is in the queue. Limits are not looked at: what they
    /// led to is in the log, too.
    pub fn restore(&mut self, entry: Entry, at: Time) {
        if let Some(stream) = &mut self.stream {
            // The index has it already, or retention took it.
            if entry.seq < stream.next_offset() {
                return;
            }
            if stream.is_empty() {
                stream.start_at(entry.seq);
            }
            debug_assert_eq!(stream.next_offset(), entry.seq, "a stream's records have no gaps");
            stream.append(entry.message, at, entry.place);
            stream.mark_safe();
            return;
        }
        self.next_seq = self.next_seq.max(entry.seq + 1);
        if !self.is_indexed(entry.seq) {
            self.ready.push(entry);
        }
    }

    /// Repeats what a log says was remembered.
    pub fn restore_seen(&mut self, seen: Seen) {
        if let Some(window) = &mut self.dedup {
            window.restore(seen);
        }
    }

    /// Puts back what an index has of names.
    pub fn restore_told(&mut self, seen: Vec<Seen>) {
        match &mut self.dedup {
            Some(window) => seen.into_iter().for_each(|seen| window.restore_told(seen)),
            // What asks for it is repeated later.
            None => self.unclaimed = seen,
        }
    }

    /// What an index is to know of the names that are remembered.
    pub(in crate::broker::queue) fn look_seen(&mut self) -> Option<SeenLook> {
        self.dedup.as_mut()?.look()
    }

    /// An index knows that, or does not.
    pub(in crate::broker::queue) fn looked_seen(&mut self, is_committed: bool) {
        if let Some(window) = &mut self.dedup {
            window.looked(is_committed);
        }
    }

    /// Repeats that messages up to this one may have been delivered.
    pub fn restore_handed(&mut self, up_to: u64) {
        self.handed = Handed::up_to(up_to);
    }

    /// Marks what may have been delivered before a restart, once everything is back.
    pub fn mark_redelivered(&mut self) {
        self.unclaimed = Vec::new();
        let up_to = self.handed.reserved();
        // What comes now has not been delivered.
        self.next_seq = self.next_seq.max(up_to.saturating_add(1));
        self.ready.iter_mut().filter(|entry| entry.seq <= up_to).for_each(|entry| entry.redelivered = true);
        if let Some(leases) = &mut self.leases {
            leases.mark_redelivered(up_to);
        }
        if let Some(cold) = &mut self.cold {
            cold.was_handed(up_to);
        }
    }

    /// No consumer is left: what was reserved beyond the last delivery has not been delivered.
    /// Returns what is to be recorded then.
    pub fn release_handed(&mut self) -> Option<u64> {
        if self.consumers.is_empty() { self.handed.release() } else { None }
    }

    /// A consumer has come: what it may be given is reserved before it is. Returns what is to be recorded.
    pub fn prepare_handed(&mut self) -> Option<u64> {
        if self.stream.is_some() {
            return None;
        }
        let first = match self.ready.front() {
            Front::Entry(entry) => entry.seq,
            Front::Cold(level) => self.ready.gap(level).map_or(self.next_seq, |gap| gap.from),
            Front::Empty => self.next_seq,
        };
        self.handed.prepare(first)
    }

    /// Messages up to this one count as delivered after a restart.
    pub fn handed_up_to(&self) -> u64 {
        self.handed.reserved()
    }

    /// What it remembers for deduplication.
    pub fn dedup(&self) -> Option<&Window> {
        self.dedup.as_deref()
    }

    /// Repeats that a stream gave up everything before `first`.
    pub fn restore_trimmed(&mut self, first: u64) {
        if let Some(stream) = &mut self.stream {
            stream.trim_to(first);
        }
    }

    /// Has a stream give up what it fetched and nobody reads any more.
    pub(super) fn forget_unread(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        if self.consumers.is_empty() { stream.forget_fetched() } else { stream.forget_unread() }
    }

    /// Forgets all messages, as a deleted queue does.
    pub fn clear(&mut self) {
        self.retries.clear();
        self.clear_aside();
        self.cold = None;
        self.ready = Ready::new(self.ready.priority_max());
        if let Some(stream) = &mut self.stream {
            stream.clear();
        }
    }

    fn has_length_limit(&self) -> bool {
        self.limits.max_length.is_some() || self.limits.max_length_bytes.is_some()
    }

    pub(super) fn is_too_long(&self, more: u64) -> bool {
        let (withheld, withheld_bytes) = self.withheld();
        self.limits.max_length.is_some_and(|max| self.ready.len() as u64 + withheld + more > max)
            || self.limits.max_length_bytes.is_some_and(|max| self.ready.bytes() + withheld_bytes + more > max)
    }

    fn is_full(&mut self, now: Time, effects: &mut Effects) -> bool {
        if !self.is_too_long(1) {
            return false;
        }
        self.begin_look();
        self.dispatch(now, effects);
        self.is_too_long(1)
    }

    fn drop_head(&mut self, now: Time, effects: &mut Effects) {
        if !self.is_too_long(0) {
            return;
        }
        self.begin_look();
        self.dispatch(now, effects);
        while self.is_too_long(0) {
            // What is not here is dropped when it has been read.
            let Some(entry) = self.pop_oldest() else { break };
            self.counters.dropped += 1;
            self.die(entry, Reason::MaxLen, effects);
        }
    }

    /// Takes out what makes room for others: the message that is next, or that would be.
    fn pop_oldest(&mut self) -> Option<Entry> {
        match self.ready.is_empty() {
            false => self.ready.pop(),
            true => self.pop_withheld(),
        }
    }

    /// Drops what a lowered limit no longer allows, at most `max`; returns whether there is more.
    pub fn enforce_limits(&mut self, max: usize, effects: &mut Effects) -> bool {
        for _ in 0..max {
            if self.limits.overflow != Overflow::DropHead || !self.is_too_long(0) {
                return false;
            }
            let Some(entry) = self.pop_oldest() else { return false };
            self.counters.dropped += 1;
            self.die(entry, Reason::MaxLen, effects);
        }
        self.is_too_long(0)
    }

    /// Gives a message up.
    pub(super) fn die(&mut self, entry: Entry, reason: Reason, effects: &mut Effects) {
        if let Some(leases) = &mut self.leases {
            leases.forget(entry.seq);
        }
        if let Some(cold) = &mut self.cold {
            cold.dies(&entry, self.ready.priority_max());
        }
        effects.dead.push(Dead { entry, reason });
    }

    /// A message that was given up is kept after all.
    pub(super) fn keep_dead(&mut self, due: Time, mut dead: Dead) {
        if let Some(cold) = &mut self.cold {
            cold.stays(&mut dead.entry);
        }
        self.retries.hold_dead(due, dead);
    }

    /// A message that was given up leaves, and that is recorded before this lock is let go.
    pub(in crate::broker) fn leave(&mut self, seq: u64) {
        if let Some(cold) = &mut self.cold {
            cold.died(seq);
        }
    }

    /// Assigns ready messages to consumers that can take them, up to a bound; see [`Self::has_more`].
    pub fn dispatch(&mut self, now: Time, effects: &mut Effects) {
        self.usage.observe(self.consumers.is_blocked(), now);
        self.dispatch_some(now, effects);
        self.usage.observe(self.consumers.is_blocked(), now);
    }

    fn dispatch_some(&mut self, now: Time, effects: &mut Effects) {
        self.has_more = false;
        if self.stream.is_some() {
            return self.dispatch_stream();
        }
        if self.selection.is_some() {
            return self.dispatch_selected(now, effects);
        }
        let mut bytes = 0;
        for _ in 0..DISPATCH_MAX {
            let Front::Entry(front) = self.ready.front() else { return };
            // A message without time to live may still be taken in the moment in which it came.
            if front.deadline < now {
                self.expire_one(now, effects);
                continue;
            }
            let Some(slot) = self.consumers.choose() else { return };
            let Some(entry) = self.ready.pop() else { return };
            bytes += entry.message.body_bytes();
            self.assign(entry, slot, effects);
            if bytes > DISPATCH_BYTES_MAX {
                break;
            }
        }
        self.has_more = !self.ready.is_empty();
    }

    pub(super) fn expire_one(&mut self, now: Time, effects: &mut Effects) {
        if let Some(entry) = self.ready.pop_expired(now) {
            self.counters.expired += 1;
            self.die(entry, Reason::Expired, effects);
        }
    }

    #[inline(always)]
    fn assign(&mut self, entry: Entry, slot: u32, effects: &mut Effects) {
        let Some(consumer) = self.consumers.get_mut(slot) else { return };
        if consumer.assigned.is_empty() {
            consumer.assigned = consumers::spare_list();
            self.assigned.push(slot);
        }
        if entry.redelivered {
            self.counters.redelivered += 1;
        }
        // Without a journal this is all that honesty about redelivery costs.
        if effects.wants_settled && !consumer.options.no_ack && entry.message.traits.persistent {
            effects.handed = self.handed.hand(entry.seq).or(effects.handed);
        }
        if consumer.options.no_ack {
            self.counters.delivered_no_ack += 1;
            settle(&mut self.cold, &mut self.leases, &entry, self.ready.priority_max(), effects);
            consumer.assigned.push(Assigned::Owned {
                message: entry.message,
                redelivered: entry.redelivered,
                delivery_count: entry.delivery_count,
                opens_group: false,
            });
        } else {
            self.counters.delivered += 1;
            consumer.assigned.push(Assigned::Unsettled(self.unsettled.add(entry, slot)));
        }
    }

    fn dispatch_stream(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        let slots: Vec<u32> = self.consumers.slots().collect();
        for slot in slots {
            let is_allowed = self.consumers.active.is_none_or(|active| active == slot);
            let Some(consumer) = self.consumers.get_mut(slot) else { continue };
            let Some(cursor) = &consumer.cursor else { continue };
            if !is_allowed {
                continue;
            }
            let mut next = cursor.next;
            // Who cannot take anything keeps nothing in memory.
            if stream.is_cold_at(next) && consumer.could_take() {
                stream.read_at(next);
            }
            let mut bytes = 0;
            let mut is_at_end = false;
            while consumer.assigned.len() < DISPATCH_MAX && bytes < DISPATCH_BYTES_MAX {
                let Some(cursor) = &consumer.cursor else { break };
                let (offset, message) = match stream.next(next, cursor.since, &cursor.filter) {
                    Next::Message(offset, message) => (offset, message.clone()),
                    Next::Searched(offset) => {
                        next = offset;
                        // What does not fit the filter costs its consumer's turn, not the lock.
                        bytes += DISPATCH_BYTES_MAX / 8;
                        continue;
                    }
                    Next::Cold(offset) => {
                        next = offset;
                        is_at_end = true;
                        if consumer.could_take() {
                            stream.want(offset);
                        }
                        break;
                    }
                    Next::End(offset) => {
                        next = offset;
                        is_at_end = true;
                        break;
                    }
                };
                if !consumer.take_credit() {
                    next = offset;
                    is_at_end = true;
                    break;
                }
                next = offset + 1;
                bytes += message.body_bytes();
                self.counters.delivered += 1;
                if consumer.assigned.is_empty() {
                    consumer.assigned = consumers::spare_list();
                    self.assigned.push(slot);
                }
                let held = (!consumer.options.no_ack).then_some(Held { seq: offset, slot });
                consumer.assigned.push(Assigned::Stream { message, held, offset });
            }
            self.has_more |= !is_at_end;
            if let Some(cursor) = &mut consumer.cursor {
                cursor.next = next;
            }
        }
    }

    /// The last call of `dispatch` stopped at its bound: hand over and call it again.
    pub fn has_more(&self) -> bool {
        self.has_more
    }

    /// Slots of the consumers with assigned deliveries; the caller hands those over.
    pub fn take_assigned(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.assigned)
    }

    /// Gives the emptied list back for reuse.
    pub fn reuse_assigned(&mut self, mut list: Vec<u32>) {
        if self.assigned.is_empty() {
            list.clear();
            self.assigned = list;
        }
    }

    /// True when deliveries wait to be handed over.
    pub fn has_assigned(&self) -> bool {
        !self.assigned.is_empty()
    }

    /// Takes one message for a single get.
    pub fn get(&mut self, no_ack: bool, now: Time, effects: &mut Effects) -> Option<Got> {
        self.used_at = now;
        while self.ready.front().entry()?.deadline <= now {
            self.expire_one(now, effects);
        }
        let entry = self.ready.pop()?;
        self.counters.got += 1;
        if entry.redelivered {
            self.counters.redelivered += 1;
        }
        let (message, redelivered, delivery_count) = (entry.message.clone(), entry.redelivered, entry.delivery_count);
        let held = if no_ack {
            self.gone(&entry, effects);
            None
        } else {
            if effects.wants_settled && entry.message.traits.persistent {
                effects.handed = self.handed.hand_one(entry.seq).or(effects.handed);
            }
            Some(self.unsettled.add(entry, NO_CONSUMER))
        };
        Some(Got { message, held, redelivered, delivery_count, remaining: self.ready.len() as u32 })
    }

    /// Settles deliveries as accepted: what [`Self::settle`] does for each, without moving the message.
    pub fn accept(&mut self, held: &[Held], effects: &mut Effects) {
        let priority_max = self.ready.priority_max();
        for &one in held {
            let consumer = if self.stream.is_some() {
                one.slot
            } else {
                let Self { cold, selection, leases, .. } = self;
                let ended = self.unsettled.end(one, |consumer, entry| {
                    settle(cold, leases, entry, priority_max, effects);
                    if entry.message.traits.has_group
                        && consumer != NO_CONSUMER
                        && let Some(selection) = selection
                    {
                        selection.settled(&entry.message);
                        if let Some(leases) = leases {
                            leases.announce();
                        }
                    }
                });
                let Some((consumer, ())) = ended else { continue };
                consumer
            };
            if consumer != NO_CONSUMER {
                self.consumers.settled(consumer);
            }
            self.counters.acked += 1;
        }
    }

    /// Settles one delivery; false when it is not unsettled here (any more).
    pub fn settle(&mut self, held: Held, how: Settle, now: Time, effects: &mut Effects) -> bool {
        if self.stream.is_some() {
            self.counters.acked += 1;
            self.consumers.settled(held.slot);
            return true;
        }
        let Some((mut entry, consumer)) = self.unsettled.take(held) else { return false };
        if consumer != NO_CONSUMER {
            self.consumers.settled(consumer);
            if entry.message.traits.has_group
                && let Some(selection) = &mut self.selection
            {
                selection.settled(&entry.message);
                self.announce(1);
            }
        }
        match how {
            Settle::Accepted => {
                self.counters.acked += 1;
                self.gone(&entry, effects);
            }
            Settle::Returned => self.put_back(entry),
            Settle::Requeued => {
                entry.redelivered = true;
                entry.delivery_count += 1;
                effects.requeue(&entry);
                if let Some(cold) = &mut self.cold {
                    cold.changes(&entry, self.ready.priority_max());
                }
                if self.limits.delivery_limit.is_some_and(|limit| u64::from(entry.delivery_count) > limit) {
                    self.counters.rejected += 1;
                    self.die(entry, Reason::DeliveryLimit, effects);
                } else if let Some(delay) = self.limits.retry_delay {
                    self.retries.hold(now.after_ms(delay.after(entry.delivery_count)), entry);
                } else {
                    self.put_back(entry);
                }
            }
            Settle::Rejected => {
                self.counters.rejected += 1;
                self.die(entry, Reason::Rejected, effects);
            }
        }
        true
    }

    /// Tries messages again that have waited long enough, at most `max`; returns whether more are
    /// due.
    pub fn retry(&mut self, now: Time, max: usize, effects: &mut Effects) -> bool {
        for _ in 0..max {
            match self.retries.pop_due(now) {
                None => return false,
                Some(Retry::Deliver(entry)) => self.put_back(entry),
                Some(Retry::DeadLetter(Dead { entry, reason })) => self.die(entry, reason, effects),
            }
        }
        self.retries.next_due() <= now
    }

    /// Expires at most `max` messages; returns whether more are due.
    pub fn expire(&mut self, now: Time, max: usize, effects: &mut Effects) -> bool {
        for _ in 0..max {
            let Some(entry) = self.ready.pop_expired(now) else { return false };
            self.counters.expired += 1;
            self.die(entry, Reason::Expired, effects);
        }
        self.ready.next_deadline() <= now
    }

    /// Removes at most `max` messages that are ready or set aside; returns how many.
    pub fn purge(&mut self, max: usize, effects: &mut Effects) -> usize {
        for done in 0..max {
            match self.ready.pop() {
                Some(entry) => {
                    if let Some(leases) = &mut self.leases {
                        leases.forget(entry.seq);
                    }
                    effects.settle(&entry);
                }
                None => return done + self.purge_aside(max - done, effects),
            }
        }
        max
    }

    /// A message leaves for good. Its record follows before the lock is let go.
    #[inline]
    pub(super) fn gone(&mut self, entry: &Entry, effects: &mut Effects) {
        settle(&mut self.cold, &mut self.leases, entry, self.ready.priority_max(), effects);
    }

    /// Chooses the single active consumer if there is none; returns its slot when it is new.
    pub fn elect(&mut self) -> Option<u32> {
        if self.consumers.active.is_some() {
            return None;
        }
        let slot = match self.has_single_active_consumer {
            true => self.consumers.first()?,
            false => self.consumers.first_sole()?,
        };
        self.consumers.active = Some(slot);
        self.consumers.unblock(slot);
        Some(slot)
    }

    /// Copies old messages out of sparsely used buffers, a bounded number per call; returns
    /// whether more is to be done now. What came since the previous round is not old yet.
    pub fn compact(&mut self, max: usize) -> bool {
        let Compaction { done, old, slot } = self.compaction;
        let reached = self.ready.compact(done, old, max);
        let slot_reached = self.unsettled.compact(slot, old, max);
        let is_finished = reached >= old && slot_reached >= self.unsettled.slots_count();
        self.compaction = if is_finished {
            Compaction { done: old, old: self.next_seq - 1, slot: 0 }
        } else {
            Compaction { done: reached, old, slot: slot_reached }
        };
        !is_finished
    }

    /// Whether messages wait that no round of compaction has seen.
    pub fn needs_compaction(&self) -> bool {
        (!self.ready.is_empty() || !self.unsettled.is_empty()) && self.compaction.done + 1 < self.next_seq
    }
}

/// A message leaves for good. Its record follows before the lock is let go.
#[inline(always)]
fn settle(
    cold: &mut Option<Box<Cold>>,
    leases: &mut Option<Box<Leases>>,
    entry: &Entry,
    priority_max: u8,
    effects: &mut Effects,
) {
    if let Some(leases) = leases {
        leases.forget(entry.seq);
    }
    if let Some(cold) = cold {
        cold.left(entry, priority_max);
    }
    effects.settle(entry);
}

/// The seq of the message that this one repeats, if the window knows it; if not, it does from now on, under
/// this seq.
fn duplicate_of(
    dedup: &mut Option<Box<Window>>,
    selection: Option<&Selection>,
    message: &Message,
    seq: u64,
    now: Time,
    effects: &mut Effects,
) -> Option<u64> {
    let window = dedup.as_deref_mut()?;
    let group = selection.filter(|_| window.is_by_group()).and_then(|selection| selection.group_of(message));
    match window.observe(message.headers(), group, seq, now) {
        Observed::Duplicate(of) => Some(of),
        Observed::Unnamed => None,
        Observed::New(seen) => {
            if effects.wants_settled {
                effects.seen.push(seen);
            }
            None
        }
    }
}

mod selecting;

#[cfg(test)]
mod tests;
