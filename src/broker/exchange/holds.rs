//! Messages that an exchange holds back until they are due: those due soonest in memory, the others in
//! the cold index alone.
//!
//! What is due comes out by time, and in the order it came in among equals.
//!
//! ```text
//!  ──── memory has all ────┬──── memory has what no checkpoint has told, or no log has ────▶ due
//!    released, in order    horizon: from here on the index has to be read
//! ```
//!
//! A checkpoint tells the index what is new ([`Holds::look`]) and says so ([`Holds::looked`]); then what
//! the window has no room for leaves memory, and so does everything behind the horizon. When the window
//! runs low, a page is read from the horizon on ([`Holds::wanted`], [`Holds::page_in`]), and the horizon
//! moves behind it.
//!
//! What is in no log stays in memory.
//!
//! Invariants:
//! - every recorded message that is alive and before the horizon is in memory; one behind it that is not
//!   in memory is in the index;
//! - what is not in memory, behind the horizon and in the index is alive, unless it is among `gone`;
//! - a page stands for the index from the horizon up to the first message that left memory while it was
//!   being read, and for no more.

use std::collections::{BTreeMap, BTreeSet};

use crate::broker::{
    queue::cold::Window,
    record::{HoldId, HoldKey, Position},
    time::Time,
};

/// A message that is held back, as the cold index has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldEntry {
    /// Where it is filed.
    pub key: HoldKey,
    /// Where the log has it.
    pub place: Position,
    /// Bytes of its body.
    pub body_bytes: u64,
}

/// What has changed since the last look. The puts come last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HoldsLook {
    /// Those that have gone, from the head on.
    pub deletes: Vec<HoldKey>,
    /// Nothing before this is alive.
    pub head: Option<HoldKey>,
    /// New ones, and those that have moved.
    pub puts: Vec<HoldEntry>,
}

/// The page that is wanted. At least one message, however large, unless there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldsWanted {
    /// The first key.
    pub from: HoldKey,
    /// At most so many.
    pub messages_max: usize,
    /// At most so many bytes of bodies.
    pub bytes_max: u64,
}

/// A page that was asked for.
#[derive(Debug)]
pub struct HoldsPage<M> {
    /// What was wanted.
    pub wanted: HoldsWanted,
    /// The messages, or what is wrong with index, log or disk.
    pub result: Result<Vec<(HoldEntry, M)>, String>,
    /// The key from which more follow; `None` when there are no more.
    pub next: Option<HoldKey>,
}

/// Before every other.
const FIRST: HoldKey = HoldKey { due: Time(0), hold: HoldId(0) };
/// Behind every other.
const LAST: HoldKey = HoldKey { due: Time::NEVER, hold: HoldId(u64::MAX) };

/// See the module's text.
#[derive(Debug)]
pub struct Holds<M> {
    here: BTreeMap<HoldKey, Here<M>>,
    /// Recorded messages that are here and before the horizon, and the bytes of their bodies.
    front: (usize, u64),
    /// Recorded messages that are being released: until that is recorded they are alive.
    leaving: BTreeMap<HoldKey, Filing>,
    is_releasing: bool,
    /// When somebody is to look, at the latest.
    appointed: Time,
    cold: Option<Box<Cold>>,
}

#[derive(Debug)]
struct Here<M> {
    message: M,
    filing: Filing,
}

/// What log and index have of a message.
#[derive(Clone, Copy, Debug)]
struct Filing {
    place: Position,
    body_bytes: u64,
    filed: Filed,
}

/// Whether the index has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filed {
    No,
    /// It was told, or may have been before the start.
    Maybe,
    Yes,
}

/// What is kept of those that an index has.
#[derive(Debug)]
struct Cold {
    window: Window,
    horizon: Option<HoldKey>,
    reading: Option<Reading>,
    /// Not yet told.
    new: Vec<HoldKey>,
    /// Told, and to be told once more: they have another place.
    moved: BTreeMap<HoldKey, HoldEntry>,
    /// Told, and gone since.
    gone: BTreeSet<HoldKey>,
    /// Length of `gone` at which those below everything alive are left to the next head.
    prune_at: usize,
    /// What is below this and was told before has gone: the least that the next head comes to.
    pruned: HoldKey,
    given: Option<Given>,
    is_damaged: bool,
}

/// What a look has told and nobody has confirmed.
#[derive(Debug, Default)]
struct Given {
    new: Vec<HoldKey>,
    moved: BTreeMap<HoldKey, HoldEntry>,
    gone: BTreeSet<HoldKey>,
    head: Option<HoldKey>,
}

/// A page that is being read.
#[derive(Debug)]
struct Reading {
    /// It is good for what is before this key.
    good_to: HoldKey,
    /// Of what the index no longer has, what the page may have.
    gone: BTreeSet<HoldKey>,
}

/// Messages of one page, whatever the window.
const PAGE_MESSAGES_MAX: usize = 4_096;
/// Pending deletes that are not worth looking at.
const GONE_MIN: usize = 4_096;

impl<M> Default for Holds<M> {
    fn default() -> Self {
        Self {
            here: BTreeMap::new(),
            front: (0, 0),
            leaving: BTreeMap::new(),
            is_releasing: false,
            appointed: Time::NEVER,
            cold: None,
        }
    }
}

impl<M> Holds<M> {
    /// Nothing held, and no index.
    pub fn new() -> Self {
        Self::default()
    }

    /// Has an index keep what is too much for memory. It has nothing yet, unless this is a start.
    pub fn keep_cold(&mut self, is_start: bool) {
        self.cold = Some(Box::new(Cold {
            window: Window::default(),
            horizon: is_start.then_some(FIRST),
            reading: None,
            new: Vec::new(),
            moved: BTreeMap::new(),
            gone: BTreeSet::new(),
            prune_at: GONE_MIN,
            pruned: FIRST,
            given: None,
            is_damaged: false,
        }));
        self.recount();
    }

    /// Holds a message back. Its place is [`Position::NONE`] when no log has it.
    pub fn hold(&mut self, entry: HoldEntry, message: M) {
        self.insert(entry, message, Filed::No);
    }

    /// Holds a message back that a log tells of; the index may know it.
    pub fn restore(&mut self, entry: HoldEntry, message: M) {
        self.insert(entry, message, Filed::Maybe);
    }

    fn insert(&mut self, HoldEntry { key, place, body_bytes }: HoldEntry, message: M, filed: Filed) {
        let filing = Filing { place, body_bytes, filed };
        if let Some(cold) = self.cold.as_deref_mut().filter(|_| filing.is_recorded()) {
            cold.new.push(key);
        }
        self.count_in(key, filing);
        self.here.insert(key, Here { message, filing });
    }

    /// Lets go of a message wherever it is, as a log says it was done.
    pub fn restore_released(&mut self, key: HoldKey) {
        if let Some(here) = self.here.remove(&key) {
            self.count_out(key, here.filing);
        }
        if let Some(cold) = self.cold.as_deref_mut() {
            cold.gone.insert(key);
        }
    }

    /// Lets go of everything.
    pub fn clear(&mut self) -> impl Sized + use<M> {
        self.front = (0, 0);
        self.cold = None;
        self.leaving.clear();
        std::mem::take(&mut self.here)
    }

    /// Takes out at most `max` messages that are due at `now`, each with whether it is recorded. Unless
    /// there are none, nothing more comes out before [`Self::released`] was called.
    pub fn release(&mut self, now: Time, max: usize) -> Vec<(HoldKey, bool, M)> {
        let mut due = Vec::new();
        if self.is_releasing {
            return due;
        }
        while due.len() < max
            && let Some(first) = self.first().filter(|first| first.due <= now)
            && let Some(Here { message, filing }) = self.here.remove(&first)
        {
            self.count_out(first, filing);
            if filing.is_recorded() {
                self.leaving.insert(first, filing);
            }
            due.push((first, filing.is_recorded(), message));
        }
        self.is_releasing = !due.is_empty();
        due
    }

    /// What [`Self::release`] took out has gone, and that is recorded.
    pub fn released(&mut self) {
        self.is_releasing = false;
        let leaving = std::mem::take(&mut self.leaving);
        let Some(cold) = self.cold.as_deref_mut() else { return };
        for (key, _) in leaving.into_iter().filter(|(_, filing)| filing.filed != Filed::No) {
            cold.moved.remove(&key);
            if let Some(given) = &mut cold.given {
                given.moved.remove(&key);
            }
            cold.gone.insert(key);
        }
        if cold.gone.len() >= cold.prune_at {
            self.prune_gone();
        }
    }

    /// What is released in order costs the index one head, and memory nothing.
    fn prune_gone(&mut self) {
        let head = self.head();
        if let Some(cold) = self.cold.as_deref_mut() {
            cold.gone = cold.gone.split_off(&head);
            cold.pruned = cold.pruned.max(head);
            cold.prune_at = GONE_MIN.max(2 * cold.gone.len());
        }
    }

    /// The first message, if it is here.
    fn first(&self) -> Option<HoldKey> {
        let (&first, _) = self.here.first_key_value()?;
        self.is_front(first).then_some(first)
    }

    /// When something has to be done next: a message released, or a page asked for.
    pub fn next_due(&self) -> Time {
        if self.is_releasing {
            // Whoever does that asks again.
            return Time::NEVER;
        }
        match (self.first(), self.cold.as_deref()) {
            (Some(first), _) => first.due,
            (None, Some(cold)) if cold.reading.is_none() && !cold.is_damaged => {
                cold.horizon.map_or(Time::NEVER, |horizon| horizon.due)
            }
            _ => Time::NEVER,
        }
    }

    /// When to come again, if that has to be arranged.
    pub fn appoint(&mut self, now: Time) -> Option<Time> {
        if self.appointed <= now {
            self.appointed = Time::NEVER;
        }
        let due = self.next_due();
        if due >= self.appointed {
            return None;
        }
        // Half-way at least: many messages, each due before all others, come to a few appointments.
        let until = due.ms_since(now);
        let at = if until > 0 { now.after_ms(1 << until.ilog2()) } else { due };
        self.appointed = at;
        Some(at)
    }

    /// The page that is to be asked for now; handed out once.
    pub fn wanted(&mut self) -> Option<HoldsWanted> {
        let cold = self.cold.as_deref_mut().filter(|cold| !cold.is_damaged && cold.reading.is_none())?;
        let (from, window) = (cold.horizon?, cold.window);
        if self.front.0 >= (window.messages / 2).max(1) || self.front.1 >= (window.bytes / 2).max(1) {
            return None;
        }
        cold.reading = Some(Reading { good_to: LAST, gone: BTreeSet::new() });
        Some(HoldsWanted {
            from,
            messages_max: (window.messages / 2).clamp(1, PAGE_MESSAGES_MAX),
            bytes_max: (window.bytes / 2).max(1),
        })
    }

    /// Takes a page that was asked for. Returns what is wrong with what is not here, once.
    pub fn page_in(&mut self, page: HoldsPage<M>) -> Option<String> {
        let cold = self.cold.as_deref_mut()?;
        let reading = cold.reading.take()?;
        let entries = match page.result {
            Ok(entries) => entries,
            Err(error) => {
                cold.is_damaged = true;
                return Some(error);
            }
        };
        let from = page.wanted.from;
        let to = page.next.unwrap_or(LAST).min(reading.good_to);
        if cold.horizon != Some(from) || to <= from {
            return None;
        }
        for (entry, message) in entries {
            let key = entry.key;
            let is_gone = cold.has_gone(key) || reading.gone.contains(&key);
            let is_here = self.here.contains_key(&key) || self.leaving.contains_key(&key);
            if key < from || key >= to || is_gone || is_here {
                continue;
            }
            let entry = cold.moved_to(key).unwrap_or(entry);
            let filing = Filing { place: entry.place, body_bytes: entry.body_bytes, filed: Filed::Yes };
            self.here.insert(key, Here { message, filing });
        }
        cold.horizon = (to < LAST).then_some(to);
        self.recount();
        None
    }

    /// Says that the log has messages at another place, too. Nothing may be given up because this was
    /// called: only because the index names it no more.
    pub fn relocated(&mut self, moves: &[HoldEntry]) {
        let Some(cold) = self.cold.as_deref_mut() else { return };
        for entry in moves {
            let key = entry.key;
            if let Some(here) = self.here.get_mut(&key) {
                here.filing.place = entry.place;
            } else if let Some(leaving) = self.leaving.get_mut(&key) {
                leaving.place = entry.place;
            } else if cold.is_before_horizon(key) || cold.has_gone(key) {
                continue;
            }
            cold.moved.insert(key, *entry);
        }
    }

    /// First half of a checkpoint: what changed. `None`: nothing has to be told, and [`Self::looked`] need not
    /// be called.
    pub fn look(&mut self, window: &Window) -> Option<HoldsLook> {
        if self.cold.as_deref()?.given.is_some() {
            // Whoever was to say what became of it has not.
            drop(self.looked(false, |_| {}));
        }
        let head = self.head();
        let cold = self.cold.as_deref_mut()?;
        cold.window = *window;
        let mut given = Given::default();
        let mut look = HoldsLook::default();
        for key in std::mem::take(&mut cold.new) {
            let here = self.here.get_mut(&key).map(|here| &mut here.filing);
            let Some(filing) = here.or_else(|| self.leaving.get_mut(&key)) else { continue };
            filing.filed = Filed::Maybe;
            look.puts.push(HoldEntry { key, place: filing.place, body_bytes: filing.body_bytes });
            given.new.push(key);
        }
        given.moved = std::mem::take(&mut cold.moved);
        look.puts.extend(given.moved.values());
        given.gone = std::mem::take(&mut cold.gone);
        cold.prune_at = GONE_MIN;
        let pruned = std::mem::replace(&mut cold.pruned, FIRST);
        let has_gone = pruned > FIRST || !given.gone.is_empty();
        let head = head.max(pruned);
        look.head = (has_gone && head > FIRST).then_some(head);
        given.head = look.head;
        look.deletes = given.gone.range(head..).copied().collect();
        if look == HoldsLook::default() {
            return None;
        }
        cold.given = Some(given);
        Some(look)
    }

    /// Second half: the changes of the last look are durable in the index, or were not written and will be told
    /// again. In the first case what the window has no room for leaves memory, and is returned to be dropped; of
    /// what was told `stays` is given the rest.
    pub fn looked(&mut self, is_committed: bool, stays: impl Fn(&mut M)) -> Vec<M> {
        let Some(cold) = self.cold.as_deref_mut() else { return Vec::new() };
        let Some(given) = cold.given.take() else { return Vec::new() };
        if !is_committed {
            cold.new.extend(given.new);
            for (key, entry) in given.moved {
                cold.moved.entry(key).or_insert(entry);
            }
            cold.gone.extend(given.gone);
            cold.pruned = cold.pruned.max(given.head.unwrap_or(FIRST));
            return Vec::new();
        }
        if let Some(reading) = &mut cold.reading {
            reading.gone.extend(given.gone);
        }
        for key in &given.new {
            let here = self.here.get_mut(key).map(|here| &mut here.filing);
            if let Some(filing) = here.or_else(|| self.leaving.get_mut(key)) {
                filing.filed = Filed::Yes;
            }
        }
        let evicted = self.evict();
        for key in given.new {
            if let Some(here) = self.here.get_mut(&key) {
                stays(&mut here.message);
            }
        }
        evicted
    }

    /// Leaves to the index what it has and the window has no room for.
    fn evict(&mut self) -> Vec<M> {
        let Some(cold) = self.cold.as_deref_mut() else { return Vec::new() };
        let (horizon, window) = (cold.horizon.unwrap_or(LAST), cold.window);
        let has_room = |(count, bytes): (usize, u64)| count <= window.messages && (bytes <= window.bytes || count <= 1);
        if has_room(self.front) && cold.horizon.is_none() {
            return Vec::new();
        }
        let mut kept = (0, 0);
        let mut leaves = |key: HoldKey, filing: &Filing| {
            if filing.is_recorded() && key < horizon {
                kept = (kept.0 + 1, kept.1 + filing.body_bytes);
            }
            filing.filed == Filed::Yes && (key >= horizon || !has_room(kept))
        };
        let here = self.here.iter();
        let keys: Vec<_> = here.filter(|(key, here)| leaves(**key, &here.filing)).map(|(key, _)| *key).collect();
        let Some(&first) = keys.first() else { return Vec::new() };
        cold.horizon = Some(horizon.min(first));
        if let Some(reading) = &mut cold.reading {
            reading.good_to = reading.good_to.min(first);
        }
        let evicted = keys.iter().filter_map(|key| self.here.remove(key)).map(|here| here.message).collect();
        self.recount();
        evicted
    }

    /// The first key that may be alive.
    fn head(&self) -> HoldKey {
        let here = self.here.keys().next().copied();
        let leaving = self.leaving.keys().next().copied();
        let horizon = self.cold.as_deref().and_then(|cold| cold.horizon);
        [here, leaving, horizon].into_iter().flatten().min().unwrap_or(LAST)
    }

    /// Whether it may be released from here.
    fn is_front(&self, key: HoldKey) -> bool {
        // What cannot be read holds up nothing else.
        self.cold.as_deref().is_none_or(|cold| cold.is_damaged || cold.is_before_horizon(key))
    }

    fn count_in(&mut self, key: HoldKey, filing: Filing) {
        if filing.is_recorded() && self.cold.as_deref().is_some_and(|cold| cold.is_before_horizon(key)) {
            self.front = (self.front.0 + 1, self.front.1 + filing.body_bytes);
        }
    }

    fn count_out(&mut self, key: HoldKey, filing: Filing) {
        if filing.is_recorded() && self.cold.as_deref().is_some_and(|cold| cold.is_before_horizon(key)) {
            self.front = (self.front.0 - 1, self.front.1 - filing.body_bytes);
        }
    }

    fn recount(&mut self) {
        let horizon = self.cold.as_deref().and_then(|cold| cold.horizon).unwrap_or(LAST);
        let recorded = self.here.range(..horizon).filter(|(_, here)| here.filing.is_recorded());
        self.front = recorded.fold((0, 0), |(count, bytes), (_, here)| (count + 1, bytes + here.filing.body_bytes));
    }

    /// Number of messages in memory.
    pub fn resident(&self) -> usize {
        self.here.len() + self.leaving.len()
    }

    /// A page was asked for and has not come.
    pub fn is_reading(&self) -> bool {
        self.cold.as_deref().is_some_and(|cold| cold.reading.is_some())
    }

    /// Messages in memory, in order.
    pub fn iter(&self) -> impl Iterator<Item = (HoldKey, &M)> {
        self.here.iter().map(|(key, here)| (*key, &here.message))
    }
}

impl Filing {
    fn is_recorded(&self) -> bool {
        self.place != Position::NONE
    }
}

impl Cold {
    fn is_before_horizon(&self, key: HoldKey) -> bool {
        self.horizon.is_none_or(|horizon| key < horizon)
    }

    fn has_gone(&self, key: HoldKey) -> bool {
        self.gone.contains(&key) || self.given.as_ref().is_some_and(|given| given.gone.contains(&key))
    }

    /// The place that the index does not have yet.
    fn moved_to(&self, key: HoldKey) -> Option<HoldEntry> {
        let given = self.given.as_ref().and_then(|given| given.moved.get(&key));
        self.moved.get(&key).or(given).copied()
    }
}

mod shared;

pub use shared::HoldsRequest;

#[cfg(test)]
mod tests;
