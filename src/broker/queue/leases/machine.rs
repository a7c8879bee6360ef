//! What leases and withheld messages do to a queue's state. Nothing of this runs in a queue that nobody has
//! received from and that withholds nothing.

use std::{collections::HashSet, sync::Weak};

use super::{
    ATTEMPT_MS, ATTEMPTS_MAX, Aside, Attempt, Body, Kind, LeaseError, LeaseSettle, Leased, Leases, Name, SOUGHT_MAX,
};
use crate::broker::{
    connections::ConnectionHandle,
    message::Message,
    queue::{
        machine::{Effects, Machine, Reason},
        ready::{Entry, Front},
        selective::{GroupMode, Key},
    },
    record::Position,
    redrive::Taken,
    time::Time,
};

/// How a receiver takes messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Take {
    pub(super) max: usize,
    pub(super) nonce: u64,
    pub(super) until: Time,
}

/// What a look for messages came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looked {
    /// Everything was looked at, or enough was found.
    Through,
    /// The lock has been held for long enough.
    Cut,
    /// What comes next is on disk.
    Cold,
}

/// Whether a message that enters is withheld, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Withhold {
    /// As its queue says.
    Queue,
    /// Milliseconds of its own.
    Own(u64),
}

/// Expired messages that one call of a receiver takes out of its way.
const EXPIRED_MAX: usize = 256;

impl Machine {
    pub(super) fn leases_mut(&mut self) -> &mut Leases {
        let has_index = self.cold.as_deref().is_some_and(|cold| cold.is_logged());
        let leases = self.leases.get_or_insert_default();
        leases.has_index = has_index;
        leases
    }

    /// Bytes of the bodies of what is set aside.
    pub(in crate::broker::queue) fn leased_bytes(&self) -> u64 {
        self.leases.as_deref().map_or(0, Leases::bytes)
    }

    /// Number of persistent messages that are set aside, and the bytes of their bodies.
    pub(in crate::broker::queue) fn persistent_aside(&self) -> (u64, u64) {
        let mut sum = (0, 0);
        for aside in self.leases.as_deref().into_iter().flat_map(|leases| leases.aside.values()) {
            let is_persistent = match &aside.body {
                Body::Here(entry) => entry.message.traits.persistent,
                Body::Cold(entry) => !entry.place.is_in_spill(),
            };
            if is_persistent {
                sum = (sum.0 + 1, sum.1 + aside.body_bytes());
            }
        }
        sum
    }

    /// What is set aside and survives a restart, for comparison.
    #[cfg(test)]
    pub(in crate::broker) fn shown_aside(&self) -> Vec<String> {
        self.leases.as_deref().map_or_else(Vec::new, Leases::shown)
    }

    /// Number of messages that are leased, and of those that are withheld.
    pub(in crate::broker::queue) fn aside_counts(&self) -> (usize, usize) {
        self.leases.as_deref().map_or((0, 0), |leases| (leases.leased(), leases.withheld()))
    }

    /// Leases ready messages, in order, and appends them.
    pub(super) fn lease(&mut self, take: Take, now: Time, effects: &mut Effects, taken: &mut Vec<Leased>) -> Looked {
        let before = taken.len();
        let looked = match self.selection.is_some() {
            true => self.lease_selected(take, now, effects, taken),
            false => self.lease_first(take, now, effects, taken),
        };
        if let Some(cold) = self.cold.as_deref_mut().filter(|_| taken.len() > before) {
            cold.note_receiver();
        }
        let is_over = self.ready.is_empty();
        let waiters = &mut self.leases_mut().waiters;
        if looked == Looked::Through && (is_over || taken.len() < take.max) {
            waiters.found_nothing();
        } else if taken.len() > before {
            waiters.found_some();
        }
        looked
    }

    fn lease_first(&mut self, take: Take, now: Time, effects: &mut Effects, taken: &mut Vec<Leased>) -> Looked {
        let mut expired = 0;
        while taken.len() < take.max {
            match self.ready.front() {
                Front::Empty => break,
                Front::Cold(_) => return Looked::Cold,
                Front::Entry(front) if front.deadline <= now => {
                    if expired == EXPIRED_MAX {
                        return Looked::Cut;
                    }
                    expired += 1;
                    self.expire_one(now, effects);
                }
                Front::Entry(_) => {
                    let Some(entry) = self.ready.pop() else { break };
                    self.lease_one(entry, None, take, now, taken);
                }
            }
        }
        Looked::Through
    }

    fn lease_selected(&mut self, take: Take, now: Time, effects: &mut Effects, taken: &mut Vec<Leased>) -> Looked {
        let Some(mut selection) = self.selection.take() else { return Looked::Through };
        selection.start(&self.ready);
        let mut held: Vec<(Name, Key)> = Vec::new();
        while taken.len() < take.max {
            let Some(found) = selection.find_for_receiver(&self.ready, now) else { break };
            let Some(entry) = self.ready.take(found.key.level(), found.key.seq) else { continue };
            let key = found.key;
            let group = selection.received(found);
            held.extend(group.clone().map(|name| (name, key)));
            self.lease_one(entry, group, take, now, taken);
        }
        selection.end_receive(&held);
        let looked = match (selection.is_cut(), selection.wanted()) {
            _ if taken.len() >= take.max => Looked::Through,
            (true, _) => Looked::Cut,
            (false, Some(_)) => Looked::Cold,
            (false, None) => Looked::Through,
        };
        for key in selection.take_expired() {
            if let Some(entry) = self.ready.take(key.level(), key.seq) {
                self.counters.expired += 1;
                self.die(entry, Reason::Expired, effects);
            }
        }
        self.selection = Some(selection);
        looked
    }

    fn lease_one(&mut self, mut entry: Entry, group: Option<Name>, take: Take, now: Time, taken: &mut Vec<Leased>) {
        let seq = entry.seq;
        // It may stay here for hours, and what it came with need not.
        entry.message.compact();
        self.counters.delivered += 1;
        if entry.redelivered {
            self.counters.redelivered += 1;
        }
        let receives = entry.delivery_count.saturating_add(1);
        let leases = self.leases_mut();
        let first_received_at = leases.first_received.remove(&seq).unwrap_or(now);
        let message = entry.message.clone();
        let kind = Kind::Leased { nonce: take.nonce, first_received_at };
        leases.insert(Aside { until: take.until, kind, group, body: Body::Here(entry) });
        taken.push(Leased { message, seq, nonce: take.nonce, receives, first_received_at });
    }

    /// The messages that a call of that name received, leased for as long again, if all of them are as it
    /// left them.
    pub(super) fn lease_again(&mut self, name: &[u8], until: Time, now: Time) -> Option<Vec<Leased>> {
        let leases = self.leases.as_deref_mut()?;
        while leases.attempts.pop_front_if(|first| first.at.after_ms(ATTEMPT_MS) <= now).is_some() {}
        let attempt = leases.attempts.iter_mut().find(|attempt| *attempt.name == *name)?;
        let mut again = Vec::with_capacity(attempt.seqs.len());
        for &seq in &attempt.seqs {
            let aside = leases.aside.get(&seq).filter(|aside| aside.until == attempt.until && aside.until > now)?;
            let (Kind::Leased { nonce, first_received_at }, Body::Here(entry)) = (aside.kind, &aside.body) else {
                return None;
            };
            if nonce != attempt.nonce {
                return None;
            }
            let (message, receives) = (entry.message.clone(), entry.delivery_count.saturating_add(1));
            again.push(Leased { message, seq, nonce, receives, first_received_at });
        }
        attempt.until = until;
        again.iter().for_each(|one| leases.set_until(one.seq, until));
        Some(again)
    }

    /// Notes what a call received, in case it is repeated.
    pub(super) fn note_attempt(&mut self, name: &[u8], take: Take, taken: &[Leased], now: Time) {
        let leases = self.leases_mut();
        leases.attempts.retain(|attempt| *attempt.name != *name);
        if leases.attempts.len() >= ATTEMPTS_MAX {
            leases.attempts.pop_front();
        }
        let seqs = taken.iter().map(|one| one.seq).collect();
        leases.attempts.push_back(Attempt { name: name.into(), at: now, nonce: take.nonce, until: take.until, seqs });
    }

    /// Settles one lease. Nobody has to look for the message: see [`Self::seek`].
    pub(super) fn settle_lease(
        &mut self,
        (seq, nonce): (u64, u64),
        how: LeaseSettle,
        now: Time,
        effects: &mut Effects,
    ) -> Result<(), LeaseError> {
        let leases = self.leases_mut();
        let is_loose = matches!(how, LeaseSettle::Accept { is_strict: false });
        let Some(aside) = leases.aside.get(&seq) else { return self.settle_lapsed(seq, is_loose, effects) };
        let Kind::Leased { nonce: has, .. } = aside.kind else { return Err(LeaseError::Lapsed) };
        if !is_loose && has != nonce {
            return Err(LeaseError::Replaced);
        }
        if !is_loose && aside.until <= now {
            return Err(LeaseError::Lapsed);
        }
        match (how, &aside.body) {
            (LeaseSettle::Accept { .. }, _) => self.accept_lease(seq, effects),
            (LeaseSettle::Change { lease_ms: 0 }, Body::Here(_)) => self.end_lease(seq, effects),
            (LeaseSettle::Change { lease_ms }, _) => {
                let until = now.after_ms(lease_ms);
                leases.set_until(seq, until);
                if effects.wants_settled {
                    effects.leases_changed.push(seq);
                }
            }
        }
        Ok(())
    }

    /// As [`Self::settle_lease`], where the lease is over.
    fn settle_lapsed(&mut self, seq: u64, is_accepted: bool, effects: &mut Effects) -> Result<(), LeaseError> {
        self.leases_mut().sought.remove(&seq);
        if let Some(level) = self.level_of(seq) {
            if !is_accepted {
                return Err(LeaseError::Lapsed);
            }
            if let Some(entry) = self.ready.take(level, seq) {
                self.counters.acked += 1;
                self.gone(&entry, effects);
            }
            return Ok(());
        }
        let is_held = self.unsettled.find(seq).is_some() || self.retries.iter().any(|entry| entry.seq == seq);
        Err(if is_held { LeaseError::Replaced } else { LeaseError::Gone })
    }

    /// The priority of a ready message that is in memory.
    fn level_of(&self, seq: u64) -> Option<u8> {
        (0..=self.ready.priority_max()).find(|level| self.ready.get(*level, seq).is_some())
    }

    /// Whether a message is to be looked for in the index, before anybody can say what becomes of it.
    pub(super) fn seek(&mut self, seq: u64) -> bool {
        if self.ready.gaps().is_empty() || self.cold.as_deref().is_none_or(|cold| cold.is_damaged()) {
            return false;
        }
        let from = match self.leases_mut().sought.get(&seq) {
            None => 0,
            Some(Some(level)) => *level,
            Some(None) => return false,
        };
        let is_here = self.leases_mut().aside.contains_key(&seq)
            || self.level_of(seq).is_some()
            || self.unsettled.find(seq).is_some();
        let next = if is_here { None } else { self.next_sought(seq, from) };
        let sought = &mut self.leases_mut().sought;
        if next.is_some() && sought.len() >= SOUGHT_MAX {
            sought.clear();
        }
        next.inspect(|level| _ = sought.insert(seq, Some(*level))).is_some()
    }

    /// The first priority from that one on whose gap may have a message.
    pub(super) fn next_sought(&self, seq: u64, from: u8) -> Option<u8> {
        (from..=self.ready.priority_max()).find(|level| self.is_in_gap(*level, seq))
    }

    fn is_in_gap(&self, level: u8, seq: u64) -> bool {
        self.ready.gap(level).is_some_and(|gap| gap.has(seq))
    }

    fn accept_lease(&mut self, seq: u64, effects: &mut Effects) {
        let Some(aside) = self.leases_mut().remove(seq) else { return };
        self.release_group(&aside);
        self.counters.acked += 1;
        match aside.body {
            Body::Here(entry) => self.gone(&entry, effects),
            Body::Cold(entry) => {
                if let Some(cold) = self.cold.as_deref_mut() {
                    cold.left_cold(&entry);
                }
                if effects.wants_settled && !entry.place.is_in_spill() {
                    effects.settled.push(seq);
                }
            }
        }
    }

    /// A lease is over, and the message is back.
    fn end_lease(&mut self, seq: u64, effects: &mut Effects) {
        let Some(leases) = self.leases.as_deref_mut() else { return };
        let Some(aside) = leases.aside.get(&seq) else { return };
        if let Body::Cold(entry) = &aside.body {
            // It ends once the message has been read.
            leases.thawing.insert((entry.level, seq));
            return;
        }
        let Some(aside) = leases.remove(seq) else { return };
        self.release_group(&aside);
        let Body::Here(mut entry) = aside.body else { return };
        match aside.kind {
            Kind::Withheld => {
                if effects.wants_settled && entry.message.traits.persistent {
                    effects.unheld.push(seq);
                }
                self.put_back(entry);
            }
            Kind::Leased { first_received_at, .. } => {
                entry.redelivered = true;
                entry.delivery_count = entry.delivery_count.saturating_add(1);
                self.fail(entry, Some(first_received_at), effects);
            }
        }
    }

    /// A message has failed once more, as its count says: it is ready again, unless that was too often.
    fn fail(&mut self, entry: Entry, first_received_at: Option<Time>, effects: &mut Effects) {
        effects.requeue(&entry);
        if let Some(cold) = &mut self.cold {
            cold.changes(&entry, self.ready.priority_max());
        }
        if self.limits.delivery_limit.is_some_and(|limit| u64::from(entry.delivery_count) > limit) {
            self.counters.rejected += 1;
            return self.die(entry, Reason::DeliveryLimit, effects);
        }
        if let Some((leases, at)) = self.leases.as_deref_mut().zip(first_received_at) {
            leases.note_first_received(entry.seq, at);
        }
        self.put_back(entry);
    }

    /// What of a group was received is settled, or back.
    fn release_group(&mut self, aside: &Aside) {
        let priority_max = self.ready.priority_max();
        if let Some((name, selection)) = aside.group.as_ref().zip(self.selection.as_deref_mut()) {
            selection.lease_ended(name, aside.key(priority_max));
            self.announce(1);
        }
    }

    /// Ends at most `max` leases whose time is over, and releases what is due of what is withheld; returns
    /// whether more is to be done now.
    pub(in crate::broker::queue) fn come_due(&mut self, now: Time, max: usize, effects: &mut Effects) -> bool {
        for _ in 0..max {
            let Some(seq) = self.leases.as_deref_mut().and_then(|leases| leases.pop_due(now)) else { return false };
            self.end_lease(seq, effects);
        }
        self.leases.as_deref().is_some_and(|leases| leases.next_due() <= now)
    }

    /// When something that is set aside is due, or [`Time::NEVER`].
    #[inline]
    pub(in crate::broker::queue) fn aside_due(&self) -> Time {
        self.leases.as_deref().map_or(Time::NEVER, Leases::next_due)
    }

    /// Until when a message is withheld that enters now; `None`: it is not.
    #[inline]
    pub(in crate::broker) fn withheld_until(&self, message: &Message, how: Withhold, now: Time) -> Option<Time> {
        let ms = match how {
            Withhold::Own(ms) => ms,
            Withhold::Queue => self.limits.withhold_ms.unwrap_or(0),
        };
        let mut due = now.after_ms(ms);
        if self.withholds_in_order(message)
            && let Some(leases) = self.leases.as_deref().filter(|leases| !leases.withheld.is_empty())
        {
            due = due.max(leases.ordered_due);
        }
        (due > now && self.stream.is_none()).then_some(due)
    }

    fn withholds_in_order(&self, message: &Message) -> bool {
        message.traits.has_group && self.limits.group_mode == GroupMode::Unsettled
    }

    /// Takes a message in that was admitted under that seq, and withholds it until `due`, if that is said. The
    /// log has both by then, or none.
    pub(in crate::broker) fn enter_or_withhold(
        &mut self,
        (seq, message, place): (u64, Message, Position),
        due: Option<Time>,
        now: Time,
        effects: &mut Effects,
    ) {
        let Some(due) = due else { return self.enter(seq, message, place, now, effects) };
        let is_ordered = self.withholds_in_order(&message);
        debug_assert_eq!(self.next_seq, seq, "what was admitted enters at once");
        self.counters.published += 1;
        self.next_seq += 1;
        let deadline = self.deadline_of(&message, now);
        let entry = Entry { seq, message, deadline, delivery_count: 0, redelivered: false, place };
        let leases = self.leases_mut();
        if is_ordered {
            leases.ordered_due = due;
        }
        leases.insert(Aside { until: due, kind: Kind::Withheld, group: None, body: Body::Here(entry) });
        self.make_room(now, effects);
    }

    /// Number of messages that are withheld, and the bytes of their bodies: they count where the length of the queue
    /// is limited.
    #[inline]
    pub(in crate::broker::queue) fn withheld(&self) -> (u64, u64) {
        self.leases.as_deref().map_or((0, 0), |leases| (leases.withheld() as u64, leases.withheld_bytes()))
    }

    /// Takes the withheld message out that would be due first, if it is in memory.
    pub(in crate::broker::queue) fn pop_withheld(&mut self) -> Option<Entry> {
        let leases = self.leases.as_deref_mut()?;
        let &(_, seq) = leases.withheld.first()?;
        leases.aside.get(&seq).filter(|aside| matches!(aside.body, Body::Here(_)))?;
        match leases.remove(seq)?.body {
            Body::Here(entry) => Some(entry),
            Body::Cold(_) => None,
        }
    }

    /// Takes the first ready message out, if it came before that seq. Until it leaves or is taken back it is
    /// alive, and nobody's.
    pub(super) fn take_to_move(&mut self, below: u64, now: Time, effects: &mut Effects) -> Taken {
        for _ in 0..EXPIRED_MAX {
            match self.ready.front() {
                Front::Empty => return Taken::Nothing,
                Front::Cold(_) => return if self.want_front() { Taken::Cold } else { Taken::Nothing },
                Front::Entry(front) if front.deadline <= now => self.expire_one(now, effects),
                Front::Entry(front) if front.seq >= below => return Taken::Nothing,
                Front::Entry(_) => {
                    let Some(entry) = self.ready.pop() else { return Taken::Nothing };
                    let priority_max = self.ready.priority_max();
                    if let Some(cold) = &mut self.cold {
                        cold.dies(&entry, priority_max);
                        cold.note_receiver();
                    }
                    if let Some(leases) = &mut self.leases {
                        leases.forget(entry.seq);
                    }
                    return Taken::Entry(entry);
                }
            }
        }
        Taken::Cold
    }

    /// A message that was to be moved stays.
    pub(super) fn take_back(&mut self, mut entry: Entry) {
        if let Some(cold) = &mut self.cold {
            cold.stays(&mut entry);
        }
        self.put_back(entry);
    }

    /// Removes at most `max` of what is set aside; returns how many.
    pub(in crate::broker::queue) fn purge_aside(&mut self, max: usize, effects: &mut Effects) -> usize {
        let seqs: Vec<u64> = match &self.leases {
            None => return 0,
            Some(leases) => leases.aside.keys().copied().take(max).collect(),
        };
        for &seq in &seqs {
            let Some(aside) = self.leases_mut().remove(seq) else { continue };
            self.release_group(&aside);
            if let Body::Here(entry) = aside.body {
                self.gone(&entry, effects);
            }
        }
        seqs.len()
    }

    /// Forgets everything that is set aside, as nothing of it is left; returns how many messages that were.
    /// Whoever waits is told of it by the caller.
    pub(in crate::broker::queue) fn clear_aside(&mut self) -> usize {
        let Some(leases) = self.leases.as_deref_mut() else { return 0 };
        let gone = std::mem::take(&mut leases.aside);
        leases.changed.extend(gone.keys());
        // What consumers have, or waits to be tried again, is neither ready nor set aside, and stays.
        let mut first_received = std::mem::take(&mut leases.first_received);
        if !first_received.is_empty() {
            let kept = self.unsettled.slots(0, usize::MAX).chain(self.retries.iter());
            let kept: HashSet<u64> = kept.map(|entry| entry.seq).collect();
            let gone = first_received.keys().filter(|seq| !kept.contains(seq));
            leases.changed.extend(gone);
            first_received.retain(|seq, _| kept.contains(seq));
        }
        leases.changed.retain(|seq| leases.noted.contains_key(seq) || first_received.contains_key(seq));
        leases.first_received = first_received;
        leases.due.clear();
        leases.thawing.clear();
        leases.sought.clear();
        leases.attempts.clear();
        (leases.leased, leases.withheld_bytes, leases.bytes, leases.here) = (0, 0, 0, (0, 0));
        leases.withheld.clear();
        for aside in gone.values() {
            self.release_group(aside);
        }
        gone.len()
    }

    /// The groups that leased messages hold.
    pub(super) fn groups_of(&self, seqs: &[u64]) -> Vec<(u64, Name)> {
        let Some(leases) = &self.leases else { return Vec::new() };
        let group = |seq: &u64| Some((*seq, leases.aside.get(seq)?.group.clone()?));
        seqs.iter().filter_map(group).collect()
    }

    /// Groups that are held by leases, each with the message that holds it.
    pub(in crate::broker::queue) fn held_groups(&self) -> Vec<(Name, Key)> {
        let priority_max = self.ready.priority_max();
        let aside = self.leases.as_deref().into_iter().flat_map(|leases| leases.aside.values());
        aside.filter_map(|aside| Some((aside.group.clone()?, aside.key(priority_max)))).collect()
    }

    /// Messages have become ready, or others may be received than before.
    #[inline]
    pub(in crate::broker::queue) fn announce(&mut self, count: usize) {
        if let Some(leases) = &mut self.leases {
            leases.waiters.announce(count);
        }
    }

    /// Those who wait and are to be told now, once the lock was let go.
    #[inline]
    pub(in crate::broker::queue) fn take_told(&mut self) -> Vec<Weak<dyn ConnectionHandle>> {
        let Some(leases) = &mut self.leases else { return Vec::new() };
        leases.waiters.take_told(self.ready.len())
    }

    /// Whether something that is set aside is on its way back: due, or being read.
    #[cfg(test)]
    pub(in crate::broker::queue) fn brings_back(&self, now: Time) -> bool {
        let is_due = |aside: &Aside| aside.until <= now;
        self.leases.as_deref().is_some_and(|leases| leases.aside.values().any(is_due))
    }

    /// All who wait: the queue is gone.
    pub(in crate::broker::queue) fn take_waiters(&mut self) -> Vec<Weak<dyn ConnectionHandle>> {
        self.leases.as_deref_mut().map_or_else(Vec::new, |leases| leases.waiters.take_all())
    }
}
