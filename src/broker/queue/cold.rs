//! What of a queue only the cold index has: the messages behind its resident window.
//!
//! The log has the bodies, the index one small [`ColdEntry`] for each message, and memory the head of
//! the queue and what came since the last checkpoint. A checkpoint asks each queue what changed
//! ([`Queue::look`](super::Queue::look)), writes that, and says so
//! ([`Queue::looked`](super::Queue::looked)): then the queue forgets what it need not have here. What
//! comes back does so in pages ([`Page`]), which somebody reads while nobody waits under a lock.
//!
//! What is in no log is spilled: written to files that last as long as the process, with an index of
//! their own ([`Spill`](super::super::verb::Spill)). Of a durable queue both may have messages; which of
//! them has one, its place tells.
//!
//! Streams keep their own account of the same ([`super::stream`]).
//!
//! Invariants, for either index:
//! - every message that is alive, has a place there, and has a seq below `indexed_below` is in the index
//!   or among the puts of the look under way; below `committed_below` it is in the index;
//! - a seq inside of a gap that the index may have is one of the gap's messages, or in the gap's
//!   `out`, or excluded by a purge: so no page brings back what has gone or is here;
//! - a page that was asked for before the last checkpoint was finished is dropped.

use std::{collections::BTreeMap, sync::Weak};

use super::{Queue, dedup::SeenLook, leases::NoteChange, ready::Entry, stream::Summary};
use crate::broker::{
    message::Message,
    record::{Position, QueueId},
    time::Time,
};

/// One message as the cold index has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColdEntry {
    /// Its priority, as far as the queue tells priorities apart.
    pub level: u8,
    /// Its identity in the queue.
    pub seq: u64,
    /// Where its body is.
    pub place: Position,
    /// When it expires; of a message of a stream, when it came.
    pub deadline: Time,
    /// It brought its time to live along: it may expire before those in front of it.
    pub has_own_ttl: bool,
    /// Deliveries that failed.
    pub delivery_count: u32,
    /// It was delivered before.
    pub redelivered: bool,
    /// Bytes of its body.
    pub body_bytes: u64,
}

impl ColdEntry {
    /// A message of a queue with priorities up to that one.
    pub(super) fn of(entry: &Entry, priority_max: u8) -> Self {
        Self {
            level: entry.message.traits.priority.min(priority_max),
            seq: entry.seq,
            place: entry.place,
            deadline: entry.deadline,
            has_own_ttl: entry.message.traits.ttl.ms().is_some() && entry.deadline != Time::NEVER,
            delivery_count: entry.delivery_count,
            redelivered: entry.redelivered,
            body_bytes: entry.message.body_bytes(),
        }
    }

    /// The message itself, as it waits in memory.
    pub(super) fn with(self, message: Message) -> Entry {
        let Self { seq, place, deadline, delivery_count, redelivered, .. } = self;
        Entry { seq, message, deadline, delivery_count, redelivered, place }
    }

    fn own_deadline(&self) -> Option<Time> {
        self.has_own_ttl.then_some(self.deadline)
    }
}

/// What is kept of a queue beside its messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// All live messages before this seq are in the index.
    pub indexed_below: u64,
    /// The seq of the next message.
    pub next_seq: u64,
    /// Messages up to this one may have been delivered.
    pub handed: u64,
    /// The earliest deadline in the index of a message with its own time to live; may be early.
    pub next_deadline: Time,
    /// The levels that have messages.
    pub levels: Vec<LevelHeader>,
}

/// Live messages of one level in the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelHeader {
    /// The level.
    pub level: u8,
    /// Messages.
    pub len: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

/// A message that the index has no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Its level.
    pub level: u8,
    /// Its identity.
    pub seq: u64,
    /// Its deadline, if it had its own time to live.
    pub deadline: Option<Time>,
}

/// Changes of one queue since the last look.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Everything that was indexed before is gone; the puts come after.
    pub is_purged: bool,
    /// New ones, and those whose value changed.
    pub puts: Vec<ColdEntry>,
    /// Those that have gone, from the heads on. Of what went below a head nothing more is told: what
    /// is filed by deadline has to be looked up by its seq.
    pub deletes: Vec<Gone>,
    /// Level and the seq below which nothing of it is alive.
    pub heads: Vec<(u8, u64)>,
    /// Of a stream: segments that are new or have grown.
    pub segments: Vec<Summary>,
    /// The new header, if it is another one.
    pub header: Option<Header>,
    /// Notes beside messages that have changed.
    pub notes: Vec<NoteChange>,
    /// Names that are remembered.
    pub seen: Option<SeenLook>,
}

impl Look {
    pub(super) fn is_empty(&self) -> bool {
        !self.is_purged
            && self.puts.is_empty()
            && self.deletes.is_empty()
            && self.heads.is_empty()
            && self.segments.is_empty()
            && self.header.is_none()
            && self.notes.is_empty()
            && self.seen.is_none()
    }
}

/// What may stay resident at the head of a queue after a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Bytes of bodies.
    pub bytes: u64,
    /// Messages.
    pub messages: usize,
}

impl Default for Window {
    /// Until the first checkpoint says otherwise.
    fn default() -> Self {
        Self { bytes: 1 << 20, messages: 2_048 }
    }
}

/// A page that a queue wants.
#[derive(Clone, Debug)]
pub struct PageRequest {
    /// Who gets it.
    pub queue: Weak<Queue>,
    /// Its identity.
    pub id: QueueId,
    /// To be given back with the page. The index is to be looked at after the request was made: a later
    /// look would do, too.
    pub generation: u64,
    /// What is wanted.
    pub wanted: Wanted,
    /// The index of the log may have some of it.
    pub is_in_log: bool,
    /// That of what was spilled may have some of it. If both, a page is made of one of each
    /// ([`Self::halved`], [`Page::merge`]).
    pub is_in_spill: bool,
}

/// Which messages are wanted. At least one, however large, unless there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The next messages of a level in order, `from <= seq < to`.
    Front {
        /// The level.
        level: u8,
        /// The first seq.
        from: u64,
        /// The seq behind the last.
        to: u64,
        /// At most so many.
        messages_max: usize,
        /// At most so many bytes of bodies.
        bytes_max: u64,
    },
    /// Messages with their own time to live that expired, in the order of their deadlines.
    Expired {
        /// Only those whose deadline and seq are larger.
        after: (Time, u64),
        /// At this time.
        until: Time,
        /// At most so many.
        messages_max: usize,
    },
}

/// A page that was asked for.
#[derive(Debug)]
pub struct Page {
    /// As it was in the request.
    pub generation: u64,
    /// What was wanted.
    pub wanted: Wanted,
    /// The messages, or what is wrong with index, log or disk.
    pub result: Result<Vec<(ColdEntry, Message)>, String>,
    /// [`Wanted::Front`]: the seq from which more may follow; `None` when the range was read to its end.
    pub next: Option<u64>,
    /// [`Wanted::Expired`]: the earliest deadline of its own that a message behind this page has,
    /// [`Time::NEVER`] without one. May be before `until` when the page is full.
    pub next_deadline: Time,
}

/// What a queue keeps for its cold messages, beside the gaps in its ready ones.
#[derive(Debug)]
pub(super) struct Cold {
    window: Window,
    /// Finished looks.
    generation: u64,
    /// Its persistent messages are in the log.
    is_logged: bool,
    log: Side,
    /// Once something was spilled.
    spill: Option<Box<Side>>,
    /// What may be spilled later has no smaller seq. What has one and no place stays in memory for good.
    spilled_below: u64,
    /// How often in a row it was not spilled because a page was being read.
    deferred: u8,
    /// Messages that are leaving and whose leaving is not recorded.
    dying: BTreeMap<u64, ColdEntry>,
    /// The largest seq that has been in `dying`.
    dying_max: u64,
    /// The earliest own deadline of what is cold, for the next page of expired ones.
    own_deadline: Time,
    /// Up to which deadline and seq expired messages were taken.
    expired: (Time, u64),
    /// Of what is cold, messages up to this one may have been delivered before the start.
    redelivered_up_to: u64,
    is_front_asked: bool,
    is_expired_asked: bool,
    /// Somebody waits to get a message.
    has_get: bool,
    /// Somebody has received since a page was last asked for.
    has_receivers: bool,
    /// What was read last for those who look.
    leaf: Option<browsing::Leaf>,
    is_leaf_asked: bool,
    is_damaged: bool,
}

/// Messages of one page of expired ones.
const EXPIRED_MAX: usize = 256;

impl Default for Cold {
    fn default() -> Self {
        Self {
            window: Window::default(),
            generation: 0,
            is_logged: false,
            log: Side::default(),
            spill: None,
            spilled_below: 0,
            deferred: 0,
            dying: BTreeMap::new(),
            dying_max: 0,
            own_deadline: Time::NEVER,
            expired: (Time(0), 0),
            redelivered_up_to: 0,
            is_front_asked: false,
            is_expired_asked: false,
            has_get: false,
            has_receivers: false,
            leaf: None,
            is_leaf_asked: false,
            is_damaged: false,
        }
    }
}

impl Cold {
    /// The index that would have a message at that place.
    #[inline]
    fn side_of(&self, place: Position) -> Option<&Side> {
        match place.is_in_spill() {
            false if place == Position::NONE => None,
            false => Some(&self.log),
            true => self.spill.as_deref(),
        }
    }

    #[inline]
    fn side_of_mut(&mut self, place: Position) -> Option<&mut Side> {
        match place.is_in_spill() {
            false if place == Position::NONE => None,
            false => Some(&mut self.log),
            true => self.spill.as_deref_mut(),
        }
    }

    fn side_mut(&mut self, home: Home) -> Option<&mut Side> {
        match home {
            Home::Log => Some(&mut self.log),
            Home::Spill => self.spill.as_deref_mut(),
        }
    }

    fn sides(&self) -> impl Iterator<Item = &Side> {
        std::iter::once(&self.log).chain(self.spill.as_deref())
    }

    fn sides_mut(&mut self) -> impl Iterator<Item = &mut Side> {
        std::iter::once(&mut self.log).chain(self.spill.as_deref_mut())
    }

    /// A message has left for good, and that is recorded under the same lock.
    #[inline]
    pub(super) fn left(&mut self, entry: &Entry, priority_max: u8) {
        if let Some(side) = self.side_of_mut(entry.place)
            && entry.seq < side.indexed_below
        {
            side.count_out(&ColdEntry::of(entry, priority_max));
        }
    }

    /// The same for one that is not in memory.
    pub(super) fn left_cold(&mut self, entry: &ColdEntry) {
        if let Some(side) = self.side_of_mut(entry.place) {
            side.count_out(entry);
        }
    }

    /// A message is leaving; until that is recorded it is alive.
    pub(super) fn dies(&mut self, entry: &Entry, priority_max: u8) {
        if entry.place.is_in_spill() {
            // Nobody will say that it is recorded.
            return self.left(entry, priority_max);
        }
        if entry.place != Position::NONE && entry.seq != 0 {
            self.dying_max = self.dying_max.max(entry.seq);
            self.dying.insert(entry.seq, ColdEntry::of(entry, priority_max));
        }
    }

    /// It is not leaving after all.
    pub(super) fn stays(&mut self, entry: &mut Entry) {
        self.dying.remove(&entry.seq);
        if entry.place.is_in_spill() {
            // It has left the index.
            entry.place = Position::NONE;
        }
    }

    /// Its leaving is being recorded.
    pub(super) fn died(&mut self, seq: u64) {
        if let Some(entry) = self.dying.remove(&seq) {
            self.log.count_out(&entry);
        }
    }

    /// A delivery of it failed.
    pub(super) fn changes(&mut self, entry: &Entry, priority_max: u8) {
        if let Some(side) = self.side_of_mut(entry.place)
            && entry.seq < side.indexed_below
        {
            side.changed.insert(entry.seq, ColdEntry::of(entry, priority_max));
        }
    }

    /// The same for one that is not in memory.
    pub(super) fn changes_cold(&mut self, entry: ColdEntry) {
        if let Some(side) = self.side_of_mut(entry.place)
            && entry.seq < side.indexed_below
        {
            side.changed.insert(entry.seq, entry);
        }
    }

    /// Whether what the index has of a message is of one that is gone.
    pub(super) fn has_lost(&self, entry: &ColdEntry) -> bool {
        self.is_purged(entry)
    }

    pub(super) fn is_logged(&self) -> bool {
        self.is_logged
    }

    pub(super) fn has_spilled(&self) -> bool {
        self.spill.as_deref().is_some_and(Side::has_any)
    }

    pub(super) fn set_damaged(&mut self) {
        self.is_damaged = true;
    }

    fn is_purged(&self, entry: &ColdEntry) -> bool {
        self.side_of(entry.place).is_some_and(|side| side.is_purged(entry.seq))
    }

    /// What its index has of a message with what it has not.
    pub(super) fn overlay(&self, entry: ColdEntry) -> ColdEntry {
        let mut entry = match self.side_of(entry.place) {
            Some(side) => side.overlay(entry),
            None => entry,
        };
        entry.redelivered |= entry.seq <= self.redelivered_up_to;
        entry
    }

    /// Whether an index has it, so that it need not be in memory.
    pub(super) fn is_committed(&self, entry: &Entry) -> bool {
        self.side_of(entry.place).is_some_and(|side| entry.seq < side.committed_below)
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    /// A page was asked for and has not come.
    fn is_reading(&self) -> bool {
        self.is_front_asked || self.is_expired_asked
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Somebody waits to get a message that is not here.
    pub(super) fn wait(&mut self) {
        self.has_get = true;
    }

    /// Whether a message may have been delivered before the start.
    pub(super) fn was_maybe_handed(&self, seq: u64) -> bool {
        seq <= self.redelivered_up_to
    }

    /// Somebody receives: what comes next is read before it is needed.
    pub(super) fn note_receiver(&mut self) {
        self.has_receivers = true;
    }

    pub(super) fn was_handed(&mut self, up_to: u64) {
        self.redelivered_up_to = up_to;
    }
}

pub(in crate::broker) use replay::Find;
pub use spill::{LevelPlaces, Overflow};

use side::{Home, Side};

mod browsing;
mod checkpoint;
mod merge;
mod paging;
mod relocate;
mod replay;
mod shared;
mod side;
mod spill;

pub use browsing::{BrowsePlace, Browsed, BrowsedPage};
pub use relocate::Relocated;

#[cfg(test)]
mod tests;
