//! Who may take which ready message, in a queue where not every consumer may take every one: some have
//! selectors, or messages belong to groups.
//!
//! Consumers with the same selector share a *lane*, those without one the first. A lane looks at every
//! message once, in delivery order: its cursors, one a priority, are at the first message that it has
//! not looked at. What it passes by is not for it, or waits for the owner of its group ([`Groups`]).
//! What comes back later with a smaller seq is noted in the lane, and looked at again.
//!
//! Where groups are given out fairly ([`Fair`]) nobody owns one, and the first lane notes there what it looks at, instead
//! of taking it in delivery order.
//!
//! Messages in memory are all looked at, however many. Where the rest is on disk, a lane has it read
//! until the head of the queue is as long as the reach of the queue: behind that a selective consumer
//! sees nothing before what is in front has been taken.
//!
//! Invariants:
//! - a message that is ready, in memory and behind a lane's cursor was refused by the lane's selector, is
//!   noted in the lane, or waits in its group;
//! - what is noted may have gone: it is looked for before it is taken.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use super::{
    cold::Window,
    ready::{Ahead, Entry, Ready},
};
use crate::broker::{
    message::Message,
    selection::{Fields, Subject, selects},
    selector::Selector,
    time::Time,
};

mod fair;
mod groups;

use fair::Fair;
pub use groups::GroupMode;
use groups::{Groups, Name};

/// A message's place in delivery order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// Smaller for larger priorities.
    rank: u8,
    /// Its identity.
    pub(super) seq: u64,
}

impl Key {
    pub(super) fn new(level: u8, seq: u64) -> Self {
        Self { rank: u8::MAX - level, seq }
    }

    pub(super) fn level(self) -> u8 {
        u8::MAX - self.rank
    }
}

/// See the module's text.
pub(super) struct Selection {
    fields: Arc<dyn Fields>,
    /// The first is of the consumers that want everything.
    lanes: Vec<Option<Lane>>,
    /// Lanes of open consumers, by their slots.
    seats: Vec<Option<usize>>,
    groups: Groups,
    /// Set where groups are given out fairly.
    fair: Option<Fair>,
    /// How long the head may get.
    reach: Window,
    /// Messages that may be looked at before the lock is let go.
    budget: usize,
    /// That was not enough.
    is_cut: bool,
    /// Somebody wants what is on disk of this priority.
    wanted: Option<u8>,
    /// Messages that were found to have expired.
    expired: Vec<Key>,
    /// What was noted since it was last looked through.
    noted: usize,
}

/// What consumers with one selector have in common.
#[derive(Default)]
struct Lane {
    selector: Option<Arc<Selector>>,
    consumers: u32,
    /// By priority: the seq to look at next.
    cursors: Vec<u64>,
    /// What is to be looked at again, each with the group whose later messages come after it.
    again: BTreeMap<Key, Option<Name>>,
}

/// A message that a consumer is to get.
pub(super) struct Found {
    pub(super) key: Key,
    /// Its group, and whether it ends it.
    group: Option<(Name, bool)>,
}

/// Stands for a call of a receiver among the slots of consumers.
const RECEIVER: u32 = u32::MAX - 1;
/// Messages that are looked at before the lock is let go.
const LOOKED_AT_MAX: usize = 4_096;
/// What is noted that is not worth looking through.
const NOTED_MIN: usize = 1_024;

impl Selection {
    pub(super) fn new(fields: Arc<dyn Fields>, mode: GroupMode, reach: Window, priority_max: u8) -> Self {
        Self {
            fields,
            lanes: vec![Some(Lane::new(None, priority_max))],
            seats: Vec::new(),
            groups: Groups::new(mode),
            fair: (mode == GroupMode::Fair).then(Fair::default),
            reach,
            budget: LOOKED_AT_MAX,
            is_cut: false,
            wanted: None,
            expired: Vec::new(),
            noted: 0,
        }
    }

    /// The name of the group that a message belongs to.
    pub(super) fn group_of<'m>(&self, message: &'m Message) -> Option<&'m [u8]> {
        group_of(&*self.fields, message).map(|group| group.name)
    }

    /// A consumer has come.
    pub(super) fn join(&mut self, slot: u32, selector: Option<&Arc<Selector>>, priority_max: u8) {
        let is_same = |lane: &Lane| lane.selector.as_deref() == selector.map(|selector| &**selector);
        let found = self.lanes.iter().position(|lane| lane.as_ref().is_some_and(is_same));
        let at = found.or_else(|| self.lanes.iter().position(Option::is_none)).unwrap_or(self.lanes.len());
        if at == self.lanes.len() {
            self.lanes.push(None);
        }
        self.lanes[at].get_or_insert_with(|| Lane::new(selector.cloned(), priority_max)).consumers += 1;
        let slot = slot as usize;
        if self.seats.len() <= slot {
            self.seats.resize(slot + 1, None);
        }
        self.seats[slot] = Some(at);
    }

    /// A consumer has gone: its groups are anybody's.
    pub(super) fn leave(&mut self, slot: u32) {
        let Some(at) = self.seats.get_mut(slot as usize).and_then(Option::take) else { return };
        for (name, first) in self.groups.leave(slot) {
            self.offer(&name, first);
        }
        if let Some(lane) = &mut self.lanes[at] {
            lane.consumers -= 1;
            // Those that want everything are most often not alone.
            if lane.consumers == 0 && at != 0 {
                self.lanes[at] = None;
            }
        }
    }

    /// Whether nothing of it is of use to anybody.
    pub(super) fn is_idle(&self) -> bool {
        self.groups.is_empty()
            && self.fair.as_ref().is_none_or(Fair::is_empty)
            && self.lanes.iter().skip(1).all(Option::is_none)
    }

    /// How long a consumer owns a group from now on; false when that takes a new selection.
    pub(super) fn set_mode(&mut self, mode: GroupMode) -> bool {
        self.groups.mode = mode;
        (mode == GroupMode::Fair) == self.fair.is_some()
    }

    /// What knows the fields of messages.
    pub(super) fn fields(&self) -> Arc<dyn Fields> {
        self.fields.clone()
    }

    /// Messages that are to stay in memory, by their seqs.
    pub(super) fn kept(&self) -> Option<HashSet<u64, foldhash::fast::RandomState>> {
        self.fair.as_ref().map(Fair::kept)
    }

    /// The lock was just taken.
    pub(super) fn begin(&mut self) {
        (self.budget, self.is_cut) = (LOOKED_AT_MAX, false);
    }

    /// More is to be looked at, after the lock was let go.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Somebody could take messages of this priority, and those that come next are on disk.
    pub(super) fn wanted(&self) -> Option<u8> {
        self.wanted
    }

    /// Messages are about to be assigned.
    pub(super) fn start(&mut self, ready: &Ready) {
        self.wanted = None;
        if self.noted > NOTED_MIN.max(2 * ready.resident().0) {
            self.prune(ready);
        }
    }

    /// The first message that the consumer in that slot may take. Whoever asks takes it, and says so to
    /// [`Self::taken`].
    pub(super) fn find(&mut self, slot: u32, ready: &Ready, now: Time) -> Option<Found> {
        let at = (*self.seats.get(slot as usize)?)?;
        self.find_in(at, slot, ready, now)
    }

    /// The first message that a receiver may take, who wants everything. Whoever asks takes it, and says so to
    /// [`Self::received`].
    pub(super) fn find_for_receiver(&mut self, ready: &Ready, now: Time) -> Option<Found> {
        self.find_in(0, RECEIVER, ready, now)
    }

    fn find_in(&mut self, at: usize, slot: u32, ready: &Ready, now: Time) -> Option<Found> {
        if at == 0 && self.fair.is_some() {
            return self.find_fairly(ready, now);
        }
        loop {
            let own = self.groups.first_of(slot);
            let lane = self.lanes[at].as_mut()?;
            let again = lane.again.first_key_value().map(|(key, _)| *key);
            let (ahead, is_cold) = match lane.ahead(ready, &self.reach) {
                Some((key, is_cold)) => (Some(key), is_cold),
                None => (None, false),
            };
            let key = own.into_iter().chain(again).chain(ahead).min()?;
            if is_cold && ahead == Some(key) && own != ahead && again != ahead {
                self.wanted = self.wanted.max(Some(key.level()));
                return None;
            }
            if self.budget == 0 {
                self.is_cut = true;
                return None;
            }
            self.budget -= 1;
            if !is_cold && ahead == Some(key) {
                lane.cursors[usize::from(key.level())] = key.seq + 1;
            }
            let noted = if again == Some(key) { lane.again.remove(&key).flatten() } else { None };
            let entry = ready.get(key.level(), key.seq);
            let is_expired = entry.is_some_and(|entry| entry.deadline < now);
            if is_expired {
                self.expired.push(key);
            }
            let Some(entry) = entry.filter(|_| !is_expired) else {
                self.groups.pass(slot, key, own == Some(key), true);
                self.follow(at, noted, key, true);
                continue;
            };
            if !self.suits(at, entry) {
                self.groups.pass(slot, key, own == Some(key), false);
                self.follow(at, noted, key, false);
                continue;
            }
            let Some(group) = group_of(&*self.fields, &entry.message) else { return Some(Found { key, group: None }) };
            match self.groups.owner(group.name) {
                Some(owner) if owner != slot && !(slot == RECEIVER && self.groups.precedes_leased(group.name, key)) => {
                    self.groups.wait(group.name, key);
                    self.noted += 1;
                }
                _ => return Some(Found { key, group: Some((Name::from(group.name), group.is_last)) }),
            }
        }
    }

    /// The message of the group of which the fewest are in flight.
    fn find_fairly(&mut self, ready: &Ready, now: Time) -> Option<Found> {
        let (lane, fair) = (self.lanes[0].as_mut()?, self.fair.as_mut()?);
        while let Some((key, is_cold)) = lane.ahead(ready, &self.reach) {
            if is_cold {
                self.wanted = self.wanted.max(Some(key.level()));
                break;
            }
            if self.budget == 0 {
                // What was looked at is given out meanwhile.
                self.is_cut = fair.next().is_none();
                break;
            }
            self.budget -= 1;
            lane.cursors[usize::from(key.level())] = key.seq + 1;
            if let Some(entry) = ready.get(key.level(), key.seq) {
                fair.wait(group_of(&*self.fields, &entry.message).map(|group| group.name), key);
                self.noted += 1;
            }
        }
        while let Some((key, group)) = fair.next() {
            let entry = ready.get(key.level(), key.seq);
            match entry {
                Some(entry) if entry.deadline >= now => {
                    return Some(Found { key, group: group.map(|name| (name, false)) });
                }
                Some(_) => self.expired.push(key),
                None => {}
            }
            fair.forget(group.as_deref(), key);
            if self.budget == 0 {
                self.is_cut = true;
                break;
            }
            self.budget -= 1;
        }
        None
    }

    fn suits(&self, lane: usize, entry: &Entry) -> bool {
        let selector = self.lanes[lane].as_ref().and_then(|lane| lane.selector.as_deref());
        selector.is_none_or(|selector| {
            let subject = Subject { message: &entry.message, redelivered: entry.redelivered };
            selects(selector, &*self.fields, subject)
        })
    }

    /// A message is not for a lane that looked at it again: in a group without an owner, the next may be.
    fn follow(&mut self, lane: usize, group: Option<Name>, key: Key, has_gone: bool) {
        let Some(name) = group else { return };
        let next = self.groups.after(&name, key);
        if has_gone {
            self.groups.forget(&name, key);
        }
        if let (Some(next), Some(lane)) = (next, &mut self.lanes[lane]) {
            lane.again.insert(next, Some(name));
        }
    }

    /// The consumer in that slot has taken a message that was found for it; `is_settled` if it need not
    /// settle it. Returns whether it has become the owner of the message's group.
    pub(super) fn taken(&mut self, slot: u32, found: Found, is_settled: bool) -> bool {
        if let Some(fair) = &mut self.fair {
            fair.give(found.group.as_ref().map(|(name, _)| &**name), found.key, !is_settled);
            return false;
        }
        let Some((name, is_last)) = found.group else { return false };
        let opens = self.groups.take(&name, found.key, slot, is_settled);
        if is_last || is_settled && self.groups.is_over(&name) {
            self.release(&name);
        }
        opens
    }

    /// A receiver has taken a message that was found. Returns the group that its lease holds, if there are
    /// such: until [`Self::end_receive`] the same call may find more of it.
    pub(super) fn received(&mut self, found: Found) -> Option<Name> {
        if let Some(fair) = &mut self.fair {
            let name = found.group.map(|(name, _)| name);
            fair.give(name.as_deref(), found.key, true);
            return name;
        }
        let (name, _) = found.group?;
        if self.groups.mode == GroupMode::Consumer {
            // A lease has no consumer that could keep a group: it takes what nobody has.
            self.follow(0, Some(name), found.key, true);
            return None;
        }
        self.groups.lease(&name, found.key, RECEIVER);
        Some(name)
    }

    /// A call of a receiver is over: nobody gets more of these groups.
    pub(super) fn end_receive(&mut self, held: &[(Name, Key)]) {
        held.iter().for_each(|(name, key)| self.groups.lease_out(name, *key));
    }

    /// A lease holds a group since before there was a selection.
    pub(super) fn hold(&mut self, name: &Name, key: Key) {
        if let Some(fair) = &mut self.fair {
            return fair.hold(name);
        }
        self.groups.hold(name, key);
    }

    /// A lease that held a group is over.
    pub(super) fn lease_ended(&mut self, name: &Name, key: Key) {
        if let Some(fair) = &mut self.fair {
            return fair.settle(name);
        }
        if self.groups.end_lease(name, key) {
            return self.release(name);
        }
        for key in self.groups.before_leased(name) {
            self.look_again(key);
        }
    }

    fn look_again(&mut self, key: Key) {
        let skipped = usize::from(self.fair.is_some());
        for lane in self.lanes.iter_mut().skip(skipped).flatten() {
            if key.seq < lane.cursors[usize::from(key.level())] {
                lane.again.entry(key).or_insert(None);
            }
        }
    }

    /// A delivery to a consumer was settled, in whichever way.
    pub(super) fn settled(&mut self, message: &Message) {
        let Some(group) = group_of(&*self.fields, message) else { return };
        if let Some(fair) = &mut self.fair {
            return fair.settle(group.name);
        }
        let name = Name::from(group.name);
        if self.groups.settle(&name) {
            self.release(&name);
        }
    }

    /// A message is ready again.
    pub(super) fn returned(&mut self, entry: &Entry, priority_max: u8) {
        let level = entry.message.traits.priority.min(priority_max);
        let key = Key::new(level, entry.seq);
        self.noted += 1;
        self.note_fairly(entry, key);
        if let Some(group) = group_of(&*self.fields, &entry.message)
            && self.groups.owner(group.name).is_some()
            && !self.groups.precedes_leased(group.name, key)
        {
            return self.groups.wait(group.name, key);
        }
        self.look_again(key);
    }

    /// A message has come to the end of the queue, part of which is on disk perhaps.
    pub(super) fn entered(&mut self, entry: &Entry, priority_max: u8) {
        if self.fair.is_none() {
            return;
        }
        let key = Key::new(entry.message.traits.priority.min(priority_max), entry.seq);
        if let Some(lane) = &mut self.lanes[0] {
            let cursor = &mut lane.cursors[usize::from(key.level())];
            // Nothing is left out in between.
            if *cursor == key.seq {
                *cursor += 1;
            }
        }
        self.noted += 1;
        self.note_fairly(entry, key);
    }

    fn note_fairly(&mut self, entry: &Entry, key: Key) {
        if let Some(fair) = &mut self.fair {
            fair.wait(group_of(&*self.fields, &entry.message).map(|group| group.name), key);
        }
    }

    /// Messages have left memory. Those that were noted are looked at when they are read again.
    pub(super) fn evicted(&mut self, entries: &[Entry], priority_max: u8) {
        let level_of = |entry: &Entry| entry.message.traits.priority.min(priority_max);
        if let Some(fair) = &mut self.fair {
            for entry in entries {
                let group = group_of(&*self.fields, &entry.message).map(|group| group.name);
                fair.forget(group, Key::new(level_of(entry), entry.seq));
            }
        }
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            let Some(lane) = lane else { continue };
            // All of it was noted.
            let is_fair = at == 0 && self.fair.is_some();
            for entry in entries {
                let is_noted =
                    || !lane.again.is_empty() && lane.again.contains_key(&Key::new(level_of(entry), entry.seq));
                if is_fair || entry.message.traits.has_group || is_noted() {
                    let cursor = &mut lane.cursors[usize::from(level_of(entry))];
                    *cursor = (*cursor).min(entry.seq);
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn group_owner(&self, name: &[u8]) -> Option<u32> {
        self.groups.owner(name)
    }

    /// Messages that were found to have expired.
    pub(super) fn take_expired(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.expired)
    }

    fn release(&mut self, name: &Name) {
        if let Some(first) = self.groups.release(name) {
            self.offer(name, first);
        }
    }

    /// A group has no owner: its first message that waits is anybody's.
    fn offer(&mut self, name: &Name, first: Key) {
        for lane in self.lanes.iter_mut().flatten() {
            lane.again.insert(first, Some(name.clone()));
        }
        self.noted += self.lanes.len();
    }

    /// Forgets what has gone.
    fn prune(&mut self, ready: &Ready) {
        let is_here = |key: &Key| ready.get(key.level(), key.seq).is_some();
        for lane in self.lanes.iter_mut().flatten() {
            lane.again.retain(|key, _| is_here(key));
        }
        if let Some(fair) = &mut self.fair {
            fair.prune(is_here);
        }
        for (name, first) in self.groups.prune(is_here) {
            self.offer(&name, first);
        }
        self.noted = 0;
    }
}

impl Lane {
    fn new(selector: Option<Arc<Selector>>, priority_max: u8) -> Self {
        Self { selector, cursors: vec![0; usize::from(priority_max) + 1], ..Self::default() }
    }

    /// The next message to look at for the first time, and whether it is on disk.
    fn ahead(&self, ready: &Ready, reach: &Window) -> Option<(Key, bool)> {
        (0..=ready.priority_max()).rev().find_map(|level| match ready.ahead(level, self.cursors[usize::from(level)]) {
            Ahead::Entry(seq) => Some((Key::new(level, seq), false)),
            Ahead::Cold(seq) if !ready.is_head_beyond(level, reach) => Some((Key::new(level, seq), true)),
            Ahead::Cold(_) | Ahead::End => None,
        })
    }
}

/// The group of a message that says it has one.
fn group_of<'m>(fields: &dyn Fields, message: &'m Message) -> Option<crate::broker::selection::Group<'m>> {
    if message.traits.has_group { fields.group(message) } else { None }
}

#[cfg(test)]
mod tests;
