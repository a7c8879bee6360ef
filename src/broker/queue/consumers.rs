//! The consumers of one queue and the choice of who gets the next message.
//!
//! Highest priority first, round-robin inside one priority, only those with credit whose outlet
//! has room. With a single active consumer only that one is served.
//!
//! Invariants:
//! - `order` names the open consumers, priority descending, then in order of arrival;
//! - a closed consumer keeps its slot while deliveries of it are unsettled; slots without one are in `free`;
//! - `soles_count` and `exclusives_count` are of the open consumers, and so is `by_id` where it is kept;
//! - while `is_blocked`, no open consumer could take a message, or none may;
//! - while `is_halted`, it is blocked.

use std::{cell::RefCell, collections::HashMap};

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
#[derive(Default)]
pub struct Consumers {
    slots: Vec<Option<Consumer>>,
    free: Vec<u32>,
    order: Vec<u32>,
    soles_count: usize,
    exclusives_count: usize,
    /// Slots, once there are more than [`SEARCHED_MAX`].
    by_id: Option<HashMap<ConsumerId, u32, foldhash::fast::RandomState>>,
    next: usize,
    is_blocked: bool,
    /// Nobody is to get anything.
    is_halted: bool,
    /// Slot of the single active consumer, in queues that have one.
    pub active: Option<u32>,
}

/// Consumers among which one is looked for by its identity.
const SEARCHED_MAX: usize = 32;

impl Consumers {
    /// Somebody has asked to be the only one.
    pub fn has_exclusive(&self) -> bool {
        self.exclusives_count > 0
    }

    /// The slot of the first consumer that is to be served alone.
    pub fn first_sole(&self) -> Option<u32> {
        if self.soles_count == 0 {
            return None;
        }
        let is_sole = |slot: &u32| self.slots[*slot as usize].as_ref().is_some_and(|one| one.options.is_sole);
        self.order.iter().copied().find(is_sole)
    }

    /// Number of open consumers.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// True without open consumers.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Messages wait and no consumer could take one, when that was last tried.
    pub fn is_blocked(&self) -> bool {
        self.is_blocked
    }

    /// Adds a consumer; returns its slot.
    pub fn add(&mut self, id: ConsumerId, options: ConsumerOptions, cursor: Option<Box<Cursor>>) -> u32 {
        let priority = options.priority;
        self.soles_count += usize::from(options.is_sole);
        self.exclusives_count += usize::from(options.exclusive);
        let consumer =
            Consumer { id, options, unsettled: 0, is_parked: false, is_closed: false, assigned: Vec::new(), cursor };
        let slot = match self.free.pop() {
            Some(free) => {
                self.slots[free as usize] = Some(consumer);
                free
            }
            None => {
                self.slots.push(Some(consumer));
                (self.slots.len() - 1) as u32
            }
        };
        let slots = &self.slots;
        let priority_of = |slot: u32| slots[slot as usize].as_ref().map_or(i32::MIN, |c| c.options.priority);
        let at = self.order.partition_point(|&other| priority_of(other) >= priority);
        self.order.insert(at, slot);
        match &mut self.by_id {
            Some(by_id) => _ = by_id.insert(id, slot),
            None if self.order.len() > SEARCHED_MAX => {
                let named = self.order.iter().filter_map(|&slot| Some((self.get(slot)?.id, slot)));
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
        self.order.iter().copied().find(|&slot| self.get(slot).is_some_and(|consumer| consumer.id == id))
    }

    /// Open consumers, in the order in which they are served.
    pub fn iter(&self) -> impl Iterator<Item = &Consumer> {
        self.order.iter().filter_map(|&slot| self.get(slot))
    }

    /// Slots of the open consumers, in the order in which they are served.
    pub fn slots(&self) -> &[u32] {
        &self.order
    }

    /// Takes a consumer out of service. What it holds stays unsettled.
    pub fn close(&mut self, slot: u32) {
        // Those who come last often go first.
        if let Some(at) = self.order.iter().rposition(|&other| other == slot) {
            self.order.remove(at);
            if self.next > at {
                self.next -= 1;
            }
        }
        if self.active == Some(slot) {
            self.active = None;
        }
        let Some(consumer) = self.get_mut(slot).filter(|consumer| !consumer.is_closed) else { return };
        consumer.is_closed = true;
        let (id, is_over) = (consumer.id, consumer.unsettled == 0);
        let (is_sole, is_exclusive) = (consumer.options.is_sole, consumer.options.exclusive);
        self.soles_count -= usize::from(is_sole);
        self.exclusives_count -= usize::from(is_exclusive);
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
            && let Some(at) = self.order.iter().position(|&other| other == slot)
        {
            self.next = at;
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
        if let [only] = self.order[..] {
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
        let mut group = 0;
        if let Some(active) = self.active {
            chosen = ask(&mut self.slots, active);
            group = self.order.len();
        }
        while group < self.order.len() && chosen.is_none() {
            let priority = self.priority_at(group);
            let group_end = group + self.order[group..].partition_point(|&slot| self.priority_of(slot) == priority);
            let start = if (group..group_end).contains(&self.next) { self.next } else { group };
            for at in (start..group_end).chain(group..start) {
                chosen = ask(&mut self.slots, self.order[at]);
                if chosen.is_some() {
                    self.next = at + 1;
                    break;
                }
            }
            group = group_end;
        }
        // Who has credit and finds nothing waits for messages, and not for credit.
        self.is_blocked = !has_credit;
        chosen
    }

    /// Whether somebody could take a message, for one that has to be fetched first. Like
    /// [`Self::choose`] it notes that nobody can.
    pub fn could_choose(&mut self) -> bool {
        if self.is_blocked || self.order.is_empty() {
            return false;
        }
        let Self { slots, order, active, .. } = self;
        let served = active.as_ref().map_or(&order[..], std::slice::from_ref);
        let could = served.iter().any(|&slot| slots[slot as usize].as_mut().is_some_and(Consumer::could_take));
        self.is_blocked = !could;
        could
    }

    fn priority_at(&self, at: usize) -> i32 {
        self.priority_of(self.order[at])
    }

    fn priority_of(&self, slot: u32) -> i32 {
        self.get(slot).map_or(i32::MIN, |consumer| consumer.options.priority)
    }
}

impl Consumer {
    /// Whether it could take a message that has to be fetched first.
    pub(super) fn could_take(&mut self) -> bool {
        let could = self.take_credit();
        if could {
            self.give_back_credit();
        }
        could
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
        if self.options.prefetch != 0 && self.unsettled >= self.options.prefetch {
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
}
