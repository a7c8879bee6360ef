//! Messages of a queue that are set aside until a time: leased ones, which somebody has received and has
//! until then to settle, and withheld ones, which nobody may have before.
//!
//! A lease belongs to the broker and to no connection: whoever names the message by its seq and the nonce
//! of the lease may settle it, from wherever, also after a restart. When its time is over the message is
//! back in its place, and has failed once more. A withheld message comes to its place when it is due.
//!
//! Whoever receives finds what a consumer would be given, and consumers are served first. Receivers who
//! find nothing may wait ([`Waiter`]): one is told for each message that comes, and nobody else.
//!
//! A lease of a message that has a group holds the group, where groups are held until all is settled
//! ([`GroupMode::Unsettled`](super::selective::GroupMode)): nobody else gets a message of it, receivers
//! included, until everything that was received of it is settled or back. Only what is in front of all that
//! is leased of a group, because it has come back, may be received again. Withheld messages hold nothing.
//!
//! Every change of a lease is a record. What outlives a checkpoint is noted in the index beside the message
//! ([`Note`]), and the message itself need not stay in memory: only what comes due is read again.
//!
//! Invariants:
//! - a message is in at most one of `ready`, `unsettled`, `retries` and here;
//! - each message here is in `due` with its time, or in `thawing`;
//! - `leased` counts the leased messages here, and `withheld` has the others.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque},
    sync::{Arc, Weak},
};

use super::{cold::ColdEntry, ready::Entry, selective::Key};
use crate::broker::{connections::ConnectionHandle, message::Message, time::Time};

mod checkpoint;
mod machine;
mod replay;
mod shared;
mod thaw;
mod waiters;

pub use checkpoint::{NOTE_PART_BYTES, Note, NoteChange, NoteState};
pub(in crate::broker) use machine::Withhold;
pub(super) use shared::tell_waiters;
pub(super) use thaw::THAWING;
pub use waiters::Waiter;

use waiters::Waiters;

/// What somebody wants to receive.
#[derive(Clone, Debug, Default)]
pub struct Receive<'a> {
    /// At most so many messages.
    pub max: usize,
    /// Milliseconds that they are leased for.
    pub lease_ms: u64,
    /// Names the call: when it is repeated while all that it received is leased as it was left, the same
    /// messages are received again, for as long again.
    pub attempt: Option<&'a [u8]>,
    /// Messages of the queue that may be leased or delivered and not settled; 0 means no limit.
    pub in_flight_max: usize,
    /// Who is told when there is something, if there is nothing now.
    pub waiter: Option<Weak<dyn ConnectionHandle>>,
}

/// What was received.
#[derive(Debug, Default)]
pub struct Received {
    /// The messages, in the order of the queue.
    pub messages: Vec<Leased>,
    /// Set when there are none and somebody waits.
    pub waiter: Option<Waiter>,
}

/// A message that was received.
#[derive(Clone, Debug)]
pub struct Leased {
    /// The message.
    pub message: Message,
    /// Its identity in the queue.
    pub seq: u64,
    /// Which lease of it this is.
    pub nonce: u64,
    /// How often it was received or delivered, this time included.
    pub receives: u32,
    /// When it was received for the first time.
    pub first_received_at: Time,
}

/// Why nothing can be received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// The queue was deleted.
    #[error("the queue was deleted")]
    Deleted,
    /// What is read from a stream stays in it.
    #[error("nothing can be received from a stream")]
    Stream,
    /// A consumer has the queue for itself.
    #[error("the queue is consumed exclusively")]
    Exclusive,
    /// As many messages are in flight as may be.
    #[error("too many messages are in flight")]
    Full,
}

/// What becomes of leased messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseSettle {
    /// They are done.
    Accept {
        /// Only if the lease is in force. Otherwise a message goes, too, whose lease is over, or that somebody
        /// has received since.
        is_strict: bool,
    },
    /// The lease ends so many milliseconds from now; with 0 the message is ready at once, and has failed.
    Change {
        /// Milliseconds from now.
        lease_ms: u64,
    },
}

/// Why a lease cannot be settled so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// The queue has no such message, or not any more.
    #[error("there is no such message")]
    Gone,
    /// The lease is over, and the message may be received again.
    #[error("the lease is over")]
    Lapsed,
    /// The lease is over, and somebody else has the message.
    #[error("somebody else has the message")]
    Replaced,
}

/// A group's name.
type Name = Arc<[u8]>;

/// See the module's text.
#[derive(Default)]
pub(super) struct Leases {
    aside: HashMap<u64, Aside, foldhash::fast::RandomState>,
    /// When each comes due. May name what has been settled or changed since.
    due: BinaryHeap<Reverse<(Time, u64)>>,
    leased: usize,
    /// Withheld messages by when they are due.
    withheld: BTreeSet<(Time, u64)>,
    /// Bytes of the bodies of those.
    withheld_bytes: u64,
    /// Bytes of the bodies of all.
    bytes: u64,
    /// Those of them that are in memory.
    here: (usize, u64),
    /// When messages were first received that are ready now, or with a consumer.
    first_received: HashMap<u64, Time, foldhash::fast::RandomState>,
    /// Withheld messages that have a group are due at this time at the latest.
    ordered_due: Time,
    /// Calls that may be repeated, oldest first.
    attempts: VecDeque<Attempt>,
    /// Those that are due and not in memory, by priority and seq.
    thawing: BTreeSet<(u8, u64)>,
    is_thaw_asked: bool,
    /// Messages that somebody wants to settle and nobody knows of, each with the priority to look at next.
    sought: HashMap<u64, Option<u8>, foldhash::fast::RandomState>,
    waiters: Waiters,
    /// Somebody keeps notes.
    has_index: bool,
    /// Notes that the index has not, or has otherwise.
    changed: HashSet<u64, foldhash::fast::RandomState>,
    /// Notes that the index has, each with the number of its parts.
    noted: HashMap<u64, u8, foldhash::fast::RandomState>,
    /// What was told to the index and nobody has confirmed.
    given: Vec<(u64, u8)>,
}

/// A message that is set aside.
#[derive(Debug)]
struct Aside {
    until: Time,
    kind: Kind,
    /// The group that it holds.
    group: Option<Name>,
    body: Body,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Leased { nonce: u64, first_received_at: Time },
    Withheld,
}

#[derive(Debug)]
enum Body {
    Here(Entry),
    /// The index has it.
    Cold(ColdEntry),
}

/// A call that may be repeated.
struct Attempt {
    name: Box<[u8]>,
    at: Time,
    nonce: u64,
    until: Time,
    seqs: Vec<u64>,
}

/// Messages of which is remembered when they were first received, though they are not leased. Full: of others
/// the next time counts as the first.
const FIRST_RECEIVED_MAX: usize = 1 << 18;
/// Calls that may be repeated, and for how long. Full: the oldest may not be any more.
const ATTEMPTS_MAX: usize = 4_096;
const ATTEMPT_MS: u64 = 300_000;
/// Messages that are looked for in the index at one time. Full: all are looked for anew.
const SOUGHT_MAX: usize = 1_024;

impl Aside {
    fn seq(&self) -> u64 {
        match &self.body {
            Body::Here(entry) => entry.seq,
            Body::Cold(entry) => entry.seq,
        }
    }

    fn body_bytes(&self) -> u64 {
        match &self.body {
            Body::Here(entry) => entry.message.body_bytes(),
            Body::Cold(entry) => entry.body_bytes,
        }
    }

    fn key(&self, priority_max: u8) -> Key {
        match &self.body {
            Body::Here(entry) => Key::new(entry.message.traits.priority.min(priority_max), entry.seq),
            Body::Cold(entry) => Key::new(entry.level, entry.seq),
        }
    }

    fn cold(&self, priority_max: u8) -> ColdEntry {
        match &self.body {
            Body::Here(entry) => ColdEntry::of(entry, priority_max),
            Body::Cold(entry) => entry.clone(),
        }
    }
}

impl Leases {
    /// Number of messages that are set aside.
    pub(super) fn len(&self) -> usize {
        self.aside.len()
    }

    /// Number of messages that are set aside and in memory.
    #[cfg(test)]
    pub(super) fn here(&self) -> usize {
        self.here.0
    }

    /// Number of messages that are leased.
    pub(super) fn leased(&self) -> usize {
        self.leased
    }

    /// Number of messages that are withheld.
    pub(super) fn withheld(&self) -> usize {
        self.withheld.len()
    }

    /// Bytes of the bodies of messages that are withheld.
    pub(super) fn withheld_bytes(&self) -> u64 {
        self.withheld_bytes
    }

    /// Messages up to that one may have been delivered before the start.
    pub(super) fn mark_redelivered(&mut self, up_to: u64) {
        for aside in self.aside.values_mut() {
            if let Body::Here(entry) = &mut aside.body {
                entry.redelivered |= entry.seq <= up_to;
            }
        }
    }

    /// What is set aside and survives a restart, in order, for comparison.
    #[cfg(test)]
    pub(in crate::broker) fn shown(&self) -> Vec<String> {
        let mut all: Vec<_> = self.aside.iter().collect();
        all.sort_by_key(|(seq, _)| **seq);
        let shown = |(seq, aside): (&u64, &Aside)| match &aside.body {
            Body::Here(entry) if !entry.message.traits.persistent => None,
            Body::Here(entry) => Some(format!(
                "{seq} {:?} until={} {:?} deadline={} count={}",
                aside.kind, aside.until.0, aside.group, entry.deadline.0, entry.delivery_count
            )),
            Body::Cold(_) => Some(format!("{seq} is on disk")),
        };
        all.into_iter().filter_map(shown).collect()
    }

    /// Bytes of the bodies of what is set aside.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the next message is due, or [`Time::NEVER`]. May be early.
    pub(super) fn next_due(&self) -> Time {
        self.due.peek().map_or(Time::NEVER, |Reverse((due, _))| *due)
    }

    /// All that is set aside, in no order.
    pub(super) fn cold_entries(&self, priority_max: u8) -> impl Iterator<Item = ColdEntry> {
        self.aside.values().map(move |aside| aside.cold(priority_max))
    }

    /// Others may be received than before.
    pub(super) fn announce(&mut self) {
        self.waiters.announce(1);
    }

    /// A message that was received has gone, by another way than its lease.
    #[inline]
    pub(super) fn forget(&mut self, seq: u64) {
        if !self.first_received.is_empty() && self.first_received.remove(&seq).is_some() {
            self.unnote(seq);
        }
    }

    /// What the index has to know of a message has changed.
    fn note(&mut self, seq: u64) {
        if self.has_index {
            self.changed.insert(seq);
        }
    }

    /// There is nothing to know of a message any more.
    fn unnote(&mut self, seq: u64) {
        if self.noted.contains_key(&seq) {
            self.changed.insert(seq);
        } else {
            self.changed.remove(&seq);
        }
    }

    fn insert(&mut self, aside: Aside) {
        let (seq, bytes) = (aside.seq(), aside.body_bytes());
        self.bytes += bytes;
        if matches!(aside.body, Body::Here(_)) {
            self.here = (self.here.0 + 1, self.here.1 + bytes);
        }
        match aside.kind {
            Kind::Leased { .. } => self.leased += 1,
            Kind::Withheld => {
                self.withheld.insert((aside.until, seq));
                self.withheld_bytes += bytes;
            }
        }
        self.due.push(Reverse((aside.until, seq)));
        self.note(seq);
        let before = self.aside.insert(seq, aside);
        debug_assert!(before.is_none(), "a message is set aside once");
    }

    fn remove(&mut self, seq: u64) -> Option<Aside> {
        let aside = self.aside.remove(&seq)?;
        let bytes = aside.body_bytes();
        self.bytes -= bytes;
        match &aside.body {
            Body::Here(_) => self.here = (self.here.0 - 1, self.here.1 - bytes),
            Body::Cold(entry) => _ = self.thawing.remove(&(entry.level, seq)),
        }
        match aside.kind {
            Kind::Leased { .. } => self.leased -= 1,
            Kind::Withheld => {
                self.withheld.remove(&(aside.until, seq));
                self.withheld_bytes -= bytes;
            }
        }
        self.unnote(seq);
        self.prune_due();
        Some(aside)
    }

    /// Sets when a message is due.
    fn set_until(&mut self, seq: u64, until: Time) {
        if let Some(aside) = self.aside.get_mut(&seq) {
            if aside.kind == Kind::Withheld && self.withheld.remove(&(aside.until, seq)) {
                self.withheld.insert((until, seq));
            }
            aside.until = until;
            if let Body::Cold(entry) = &aside.body {
                self.thawing.remove(&(entry.level, seq));
            }
            self.due.push(Reverse((until, seq)));
            self.note(seq);
            self.prune_due();
        }
    }

    fn prune_due(&mut self) {
        if self.aside.is_empty() {
            self.due.clear();
        } else if self.due.len() > 64 && self.due.len() > 2 * self.aside.len() {
            let aside = &self.aside;
            self.due.retain(|Reverse((due, seq))| aside.get(seq).is_some_and(|aside| aside.until == *due));
        }
    }

    /// Takes the seq of one that is due out of `due`.
    fn pop_due(&mut self, now: Time) -> Option<u64> {
        while let Some(&Reverse((due, seq))) = self.due.peek().filter(|Reverse((due, _))| *due <= now) {
            self.due.pop();
            if self.aside.get(&seq).is_some_and(|aside| aside.until == due) {
                return Some(seq);
            }
        }
        None
    }

    fn note_first_received(&mut self, seq: u64, at: Time) {
        if self.first_received.len() < FIRST_RECEIVED_MAX {
            self.first_received.insert(seq, at);
            self.note(seq);
        }
    }
}

#[cfg(test)]
mod tests;
