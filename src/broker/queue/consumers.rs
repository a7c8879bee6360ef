//! The consumers of one queue and the choice of who gets the next message.
//!
//! Highest priority first, round-robin inside one priority, only those with credit whose outlet
//! has room. With a single active consumer only that one is served.
//!
//! Invariants:
//! - each level names the open consumers of one priority in order of arrival, as a list through their slots: none
//!   is looked for among the others, however many there are;
//! - a closed consumer keeps its slot while deliveries of it are unsettled; slots without one are in `free`;
//! - `len`, `soles` and `exclusives_count` are of the open consumers, and so is `by_id` where it is kept;
//! - while `is_blocked`, no open consumer could take a message, or none may;
//! - while `is_halted`, it is blocked.

use std::{
    cell::RefCell,
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use crate::broker::{
    consumer::{Assigned, ConsumerId, ConsumerOptions},
    time::Time,
};

/// A consumer as its queue sees it.
pub struct Consumer {
    /// Its identity.
    pub id: ConsumerId,
    /// What it asked for.
    pub options: ConsumerOptions,
    /// Deliveries that it has not settled.
    pub unsettled: u32,
    /// Its outlet has no room.
    pub is_parked: bool,
    /// It takes no more; its slot waits for the last settle.
    pub is_closed: bool,
    /// Deliveries chosen for it and not yet handed to its outlet.
    pub assigned: Vec<Assigned>,
    /// Where it reads next, in a stream.
    pub cursor: Option<Box<Cursor>>,
    /// Consumers of this queue that came before it, ever.
    arrival: u64,
    /// Slots of its neighbours on its level.
    before: u32,
    after: u32,
}

/// A stream consumer's place.
pub struct Cursor {
    /// The offset to look at next.
    pub next: u64,
    /// What came earlier it does not want.
    pub since: Time,
    /// What it wants to see.
    pub filter: super::stream::Filter,
}

/// The table of consumers.
pub struct Consumers {
    slots: Vec<Option<Consumer>>,
    free: Vec<u32>,
    /// By priority.
    levels: BTreeMap<Reverse<i32>, Level>,
    len: usize,
    arrivals_count: u64,
    /// Those that are to be served alone, in the order in which they are served.
    soles: BTreeMap<(Reverse<i32>, u64), u32>,
    exclusives_count: usize,
    /// Slots, once there are more than [`SEARCHED_MAX`].
    by_id: Option<HashMap<ConsumerId, u32, foldhash::fast::RandomState>>,
    /// Whoever comes after this one is next on its level; on the others it is the first.
    served: u32,
    is_blocked: bool,
    /// Nobody is to get anything.
    is_halted: bool,
    /// Slot of the single active consumer, in queues that have one.
    pub active: Option<u32>,
    /// Consumers that were looked at.
    #[cfg(test)]
    pub(super) looked_at: std::cell::Cell<u64>,
}

/// The ends of the list of consumers of one priority.
#[derive(Clone, Copy)]
struct Level {
    first: u32,
    last: u32,
}

/// No slot.
const NOBODY: u32 = u32::MAX;

/// Consumers among which one is looked for by its identity.
const SEARCHED_MAX: usize = 32;

impl Default for Consumers {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            levels: BTreeMap::new(),
            len: 0,
            arrivals_count: 0,
            soles: BTreeMap::new(),
            exclusives_count: 0,
            by_id: None,
            served: NOBODY,
            is_blocked: false,
            is_halted: false,
            active: None,
            #[cfg(test)]
            looked_at: Default::default(),
        }
    }
}

impl Consumers {
    /// Somebody has asked to be the only one.
    pub fn has_exclusive(&self) -> bool {
        self.exclusives_count > 0
    }

    /// The slot of the first consumer that is to be served alone.
    pub fn first_sole(&self) -> Option<u32> {
        self.soles.first_key_value().map(|(_, slot)| *slot)
    }

    /// The slot of the consumer that is served first.
    pub fn first(&self) -> Option<u32> {
        self.levels.first_key_value().map(|(_, level)| level.first)
    }

    /// Number of open consumers.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without open consumers.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Messages wait and no consumer could take one, when that was last tried.
    pub fn is_blocked(&self) -> bool {
        self.is_blocked
    }

    /// Adds a consumer; returns its slot.
    pub fn add(&mut self, id: ConsumerId, options: ConsumerOptions, cursor: Option<Box<Cursor>>) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        let (rank, arrival) = (Reverse(options.priority), self.arrivals_count);
        self.arrivals_count += 1;
        self.len += 1;
        self.exclusives_count += usize::from(options.exclusive);
        if options.is_sole {
            self.soles.insert((rank, arrival), slot);
        }
        let level = self.levels.entry(rank).or_insert(Level { first: slot, last: NOBODY });
        let before = std::mem::replace(&mut level.last, slot);
        self.slots[slot as usize] = Some(Consumer {
            id,
            options,
            unsettled: 0,
            is_parked: false,
            is_closed: false,
            assigned: Vec::new(),
            cursor,
            arrival,
            before,
            after: NOBODY,
        });
        if let Some(before) = self.get_mut(before) {
            before.after = slot;
        }
        match &mut self.by_id {
            Some(by_id) => _ = by_id.insert(id, slot),
            None if self.len > SEARCHED_MAX => {
                let named = self.slots().filter_map(|slot| Some((self.get(slot)?.id, slot)));
                self.by_id = Some(named.collect());
            }
            None => {}
        }
        self.is_blocked = self.is_halted;
        slot
    }

    /// The consumer in that slot, open or closed.
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Consumer> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// The consumer in that slot, open or closed.
    pub fn get(&self, slot: u32) -> Option<&Consumer> {
        self.slots.get(slot as usize)?.as_ref()
    }

    /// The slot of an open consumer.
    pub fn slot_of(&self, id: ConsumerId) -> Option<u32> {
        if let Some(by_id) = &self.by_id {
            return by_id.get(&id).copied();
        }
        self.slots().find(|&slot| self.get(slot).is_some_and(|consumer| consumer.id == id))
    }

    /// Open consumers, in the order in which they are served.
    pub fn iter(&self) -> impl Iterator<Item = &Consumer> {
        self.slots().filter_map(|slot| self.get(slot))
    }

    /// Slots of the open consumers, in the order in which they are served.
    pub fn slots(&self) -> impl Iterator<Item = u32> {
        let of_level = |level: &Level| {
            std::iter::successors(Some(level.first), |&slot| {
                let after = self.get(slot).map_or(NOBODY, |consumer| consumer.after);
                (after != NOBODY).then_some(after)
            })
        };
        self.levels.values().flat_map(of_level).inspect(|_| self.note_look())
    }

    #[inline]
    fn note_look(&self) {
        #[cfg(test)]
        self.looked_at.update(|count| count + 1);
    }

    /// Takes a consumer out of service. What it holds stays unsettled.
    pub fn close(&mut self, slot: u32) {
        let Some(consumer) = self.get_mut(slot).filter(|consumer| !consumer.is_closed) else { return };
        consumer.is_closed = true;
        let (id, is_over) = (consumer.id, consumer.unsettled == 0);
        let (before, after, arrival) = (consumer.before, consumer.after, consumer.arrival);
        let (rank, is_sole) = (Reverse(consumer.options.priority), consumer.options.is_sole);
        let is_exclusive = consumer.options.exclusive;
        if let Some(before) = self.get_mut(before) {
            before.after = after;
        }
        if let Some(after) = self.get_mut(after) {
            after.before = before;
        }
        match self.levels.get_mut(&rank) {
            Some(level) if level.first == slot && level.last == slot => _ = self.levels.remove(&rank),
            Some(level) if level.first == slot => level.first = after,
            Some(level) if level.last == slot => level.last = before,
            _ => {}
        }
        if self.served == slot {
            self.served = before;
        }
        if self.active == Some(slot) {
            self.active = None;
        }
        self.len -= 1;
        self.exclusives_count -= usize::from(is_exclusive);
        if is_sole {
            self.soles.remove(&(rank, arrival));
        }
        if let Some(by_id) = &mut self.by_id {
            by_id.remove(&id);
            if by_id.is_empty() {
                self.by_id = None;
            }
        }
        if is_over {
            self.vacate(slot);
        }
    }

    fn vacate(&mut self, slot: u32) {
        self.slots[slot as usize] = None;
        self.free.push(slot);
    }

    /// One delivery of the consumer in that slot was settled.
    pub fn settled(&mut self, slot: u32) {
        let Some(consumer) = self.get_mut(slot) else { return };
        debug_assert!(consumer.unsettled > 0, "a delivery is settled once");
        consumer.unsettled = consumer.unsettled.saturating_sub(1);
        if let Some(shared) = &consumer.options.shared_credit {
            shared.release(1);
        }
        if consumer.is_closed {
            if consumer.unsettled == 0 {
                self.vacate(slot);
            }
        } else {
            self.unblock(slot);
        }
    }

    /// Nobody gets anything from now on, or everybody again.
    pub fn halt(&mut self, is_halted: bool) {
        self.is_halted = is_halted;
        self.is_blocked = is_halted;
    }

    /// The consumer in that slot may take messages again.
    pub fn unblock(&mut self, slot: u32) {
        if !self.is_halted
            && std::mem::take(&mut self.is_blocked)
            && let Some(consumer) = self.get(slot).filter(|consumer| !consumer.is_closed)
        {
            self.served = consumer.before;
        }
    }

    /// The consumer that gets the next message, its credit taken. `None`: nobody can take one.
    pub fn choose(&mut self) -> Option<u32> {
        if self.is_blocked {
            return None;
        }
        if let Some(active) = self.active {
            let chosen = self.slots[active as usize].as_mut().is_some_and(Consumer::take_credit);
            self.is_blocked = !chosen;
            return chosen.then_some(active);
        }
        if self.len == 1
            && let Some(only) = self.first()
        {
            let chosen = self.slots[only as usize].as_mut().is_some_and(Consumer::take_credit);
            self.is_blocked = !chosen;
            return chosen.then_some(only);
        }
        self.choose_for(|_| Some(())).map(|(slot, ())| slot)
    }

    /// As [`Self::choose`], where not everybody takes every message: `find` says what the consumer in a
    /// slot would get, if anything.
    pub(super) fn choose_for<T>(&mut self, mut find: impl FnMut(u32) -> Option<T>) -> Option<(u32, T)> {
        if self.is_blocked {
            return None;
        }
        let mut has_credit = false;
        let mut ask = |slots: &mut [Option<Consumer>], slot: u32| {
            let consumer = slots[slot as usize].as_mut()?;
            if !consumer.take_credit() {
                return None;
            }
            has_credit = true;
            let found = find(slot);
            if found.is_none() {
                consumer.give_back_credit();
            }
            Some((slot, found?))
        };
        let mut chosen = None;
        if let Some(active) = self.active {
            chosen = ask(&mut self.slots, active);
        } else {
            let served = self.get(self.served).map(|served| (Reverse(served.options.priority), served.after));
            for (rank, level) in &self.levels {
                let start = match served {
                    Some((of, after)) if of == *rank && after != NOBODY => after,
                    _ => level.first,
                };
                let mut slot = start;
                while chosen.is_none() {
                    #[cfg(test)]
                    self.looked_at.update(|count| count + 1);
                    chosen = ask(&mut self.slots, slot);
                    let after = self.slots[slot as usize].as_ref().map_or(NOBODY, |consumer| consumer.after);
                    slot = if after == NOBODY { level.first } else { after };
                    if slot == start {
                        break;
                    }
                }
                if let Some((slot, _)) = chosen {
                    self.served = slot;
                    break;
                }
            }
        }
        // Who has credit and finds nothing waits for messages, and not for credit.
        self.is_blocked = !has_credit;
        chosen
    }

    /// Whether somebody could take a message, for one that has to be fetched first. Like
    /// [`Self::choose`] it notes that nobody can.
    pub fn could_choose(&mut self) -> bool {
        if self.is_blocked || self.is_empty() {
            return false;
        }
        let could_take = |slot: u32| self.get(slot).is_some_and(Consumer::could_take);
        let could = match self.active {
            Some(active) => could_take(active),
            None => self.slots().any(could_take),
        };
        self.is_blocked = !could;
        could
    }
}

impl Consumer {
    /// Whether it could take a message that has to be fetched first.
    pub(super) fn could_take(&self) -> bool {
        let shares = || {
            let shared = self.options.shared_credit.as_ref();
            shared.is_none_or(|shared| shared.reserve().then(|| shared.release(1)).is_some())
        };
        !self.is_parked && (self.options.no_ack || self.has_own_credit() && shares())
    }

    fn has_own_credit(&self) -> bool {
        self.options.prefetch == 0 || self.unsettled < self.options.prefetch
    }

    /// Gives credit back that was taken for nothing.
    fn give_back_credit(&mut self) {
        if !self.options.no_ack {
            self.unsettled -= 1;
            if let Some(shared) = &self.options.shared_credit {
                shared.release(1);
            }
        }
    }

    /// Takes credit for one delivery, if the consumer can have one.
    pub fn take_credit(&mut self) -> bool {
        if self.is_parked {
            return false;
        }
        if self.options.no_ack {
            return true;
        }
        if !self.has_own_credit() {
            return false;
        }
        if self.options.shared_credit.as_ref().is_some_and(|shared| !shared.reserve()) {
            return false;
        }
        self.unsettled += 1;
        true
    }
}

thread_local! {
    static SPARE_LISTS: RefCell<Vec<Vec<Assigned>>> = const { RefCell::new(Vec::new()) };
}

/// Lists that a thread keeps for reuse.
const SPARE_LISTS_MAX: usize = 8;

/// An empty list for assigned deliveries, with room if the thread has one to spare: a consumer
/// without assigned deliveries owns no memory for them.
pub fn spare_list() -> Vec<Assigned> {
    SPARE_LISTS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Empties a list and keeps it for the next consumer of this thread.
pub fn keep_list(mut list: Vec<Assigned>) {
    list.clear();
    SPARE_LISTS.with_borrow_mut(|lists| {
        if lists.len() < SPARE_LISTS_MAX {
            lists.push(list);
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::broker::{
        connections::ConnectionId,
        consumer::{Batch, Handed, Outlet},
        value::Table,
    };

    struct Nobody;

    impl Outlet for Nobody {
        fn deliver(&self, _: u64, _: &Batch<'_>) -> Handed {
            Handed::default()
        }
        fn cancelled(&self, _: u64) {}
        fn flush(&self) {}
    }

    fn options(outlet: &Arc<Nobody>, is_sole: bool, exclusive: bool) -> ConsumerOptions {
        ConsumerOptions {
            tag: "c".into(),
            no_ack: false,
            exclusive,
            priority: 0,
            prefetch: 0,
            declared_prefetch: 0,
            shared_credit: None,
            selector: None,
            is_sole,
            arguments: Table::new(),
            outlet: outlet.clone(),
            key: 0,
            connection: ConnectionId(1),
            channel: 1,
        }
    }

    #[test]
    fn consumers_are_found_by_their_identity_however_many_there_are() {
        let outlet = Arc::new(Nobody);
        let mut consumers = Consumers::default();
        for id in 0..100 {
            let slot = consumers.add(ConsumerId(id), options(&outlet, false, false), None);
            assert_eq!(consumers.slot_of(ConsumerId(id)), Some(slot));
        }
        for id in (0..100).filter(|id| id % 3 != 0) {
            consumers.close(consumers.slot_of(ConsumerId(id)).unwrap());
        }
        for id in 0..100 {
            let slot = consumers.slot_of(ConsumerId(id));
            assert_eq!(
                slot.and_then(|slot| consumers.get(slot)).map(|one| one.id),
                (id % 3 == 0).then_some(ConsumerId(id))
            );
        }
        assert_eq!(consumers.len(), 34);
        for id in 100..166 {
            assert!(consumers.add(ConsumerId(id), options(&outlet, false, false), None) < 100, "slots are used again");
        }
    }

    #[test]
    fn who_asks_to_be_alone_is_counted_while_it_is_there() {
        let outlet = Arc::new(Nobody);
        let mut consumers = Consumers::default();
        consumers.add(ConsumerId(1), options(&outlet, false, false), None);
        assert_eq!((consumers.first_sole(), consumers.has_exclusive()), (None, false));
        let slot = consumers.add(ConsumerId(2), options(&outlet, true, true), None);
        assert_eq!((consumers.first_sole(), consumers.has_exclusive()), (Some(slot), true));
        consumers.close(slot);
        consumers.close(slot);
        assert_eq!((consumers.first_sole(), consumers.has_exclusive()), (None, false));
    }

    #[test]
    fn consumers_come_and_go_at_the_same_cost_however_many_there_are() {
        const COUNT: u64 = 70_000;
        let outlet = Arc::new(Nobody);
        let mut consumers = Consumers::default();
        for id in 0..COUNT {
            // Most of one priority; and many of one of their own.
            let mut options = options(&outlet, id % 7 == 0, false);
            options.priority = if id % 3 == 0 { id as i32 % 1_000 } else { 0 };
            consumers.add(ConsumerId(id), options, None);
        }
        // Those that came first, those that came last, and those in between, in turn.
        let step = 40_003;
        for nth in 0..COUNT {
            let slot = consumers.slot_of(ConsumerId(nth * step % COUNT)).unwrap();
            consumers.unblock(slot);
            consumers.close(slot);
            consumers.first_sole();
        }
        assert!(consumers.is_empty() && consumers.first().is_none() && consumers.first_sole().is_none());
        let looked_at = consumers.looked_at.get();
        assert!(looked_at < 1_000, "{looked_at} looks at consumers beside the one that is meant");
    }

    /// What `Consumers` is to do, without thought of its cost: all in order of service, and whom the next one
    /// comes after.
    #[derive(Default)]
    struct Plain {
        order: Vec<(i32, u64)>,
        served: Option<u64>,
    }

    impl Plain {
        fn add(&mut self, id: u64, priority: i32) {
            let at = self.order.partition_point(|(other, _)| *other >= priority);
            self.order.insert(at, (priority, id));
        }

        fn level_of(&self, id: u64) -> (i32, Vec<u64>) {
            let priority = self.order.iter().find(|(_, other)| *other == id).unwrap().0;
            (priority, self.order.iter().filter(|(other, _)| *other == priority).map(|(_, id)| *id).collect())
        }

        fn before(&self, id: u64) -> Option<u64> {
            let (_, level) = self.level_of(id);
            level.iter().position(|other| *other == id).and_then(|at| level[..at].last().copied())
        }

        fn close(&mut self, id: u64) {
            if self.served == Some(id) {
                self.served = self.before(id);
            }
            self.order.retain(|(_, other)| *other != id);
        }

        fn choose(&mut self, can: impl Fn(u64) -> bool) -> Option<u64> {
            let (_, first) = *self.order.iter().find(|(_, id)| can(*id))?;
            let (_, mut level) = self.level_of(first);
            if let Some(at) = level.iter().position(|id| Some(*id) == self.served) {
                level.rotate_left(at + 1);
            }
            self.served = level.into_iter().find(|id| can(*id));
            self.served
        }
    }

    proptest::proptest! {
        #[test]
        fn they_are_served_in_turn_within_their_priorities(
            steps in proptest::collection::vec((0..8_u8, proptest::prelude::any::<u8>()), 1..200),
        ) {
            let outlet = Arc::new(Nobody);
            let (mut consumers, mut plain) = (Consumers::default(), Plain::default());
            let (mut held, mut count) = (HashMap::<u64, u32>::new(), 0);
            for (step, nth) in steps {
                let open: Vec<u64> = plain.order.iter().map(|(_, id)| *id).collect();
                let of_open = (!open.is_empty()).then(|| open[usize::from(nth) % open.len()]);
                match (step, of_open) {
                    (0..2, _) => {
                        let priority = i32::from(nth % 3);
                        let options = ConsumerOptions { priority, prefetch: 2, ..options(&outlet, false, false) };
                        consumers.add(ConsumerId(count), options, None);
                        plain.add(count, priority);
                        count += 1;
                    }
                    (2, Some(id)) => {
                        consumers.close(consumers.slot_of(ConsumerId(id)).unwrap());
                        plain.close(id);
                        held.remove(&id);
                    }
                    (3, Some(id)) if held.get(&id).is_some_and(|count| *count > 0) => {
                        *held.get_mut(&id).unwrap() -= 1;
                        let was_blocked = consumers.is_blocked();
                        consumers.settled(consumers.slot_of(ConsumerId(id)).unwrap());
                        if was_blocked {
                            plain.served = plain.before(id);
                        }
                    }
                    _ => {
                        let chosen = consumers.choose_for(|_| Some(())).map(|(slot, ())| consumers.get(slot).unwrap().id.0);
                        let expected = plain.choose(|id| held.get(&id).is_none_or(|count| *count < 2));
                        assert_eq!(chosen, expected);
                        if let Some(id) = chosen {
                            *held.entry(id).or_default() += 1;
                        }
                    }
                }
                let order: Vec<u64> = consumers.iter().map(|consumer| consumer.id.0).collect();
                assert_eq!(order, plain.order.iter().map(|(_, id)| *id).collect::<Vec<_>>());
                assert_eq!(consumers.len(), order.len());
            }
        }
    }
}
