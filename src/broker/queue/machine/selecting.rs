//! What changes in a queue where not everybody may take every message: how messages are assigned, who has
//! to be told of what, and how much of the queue stays in memory. Without a selection nothing of this runs.

use std::{collections::HashSet, sync::Arc};

use super::{DISPATCH_BYTES_MAX, DISPATCH_MAX, Effects, Machine, Reach, Reason};
use crate::broker::{
    consumer::{Assigned, ConsumerId, ConsumerOptions},
    queue::{consumers::Cursor, ready::Entry, selective::Selection},
    selection::Fields,
    time::Time,
};

impl Machine {
    pub(super) fn dispatch_selected(&mut self, now: Time, effects: &mut Effects) {
        let Some(mut selection) = self.selection.take() else { return };
        selection.start(&self.ready);
        let (mut count, mut bytes) = (0, 0);
        while count < DISPATCH_MAX && self.ready.front().entry().is_some_and(|front| front.deadline < now) {
            self.expire_one(now, effects);
            count += 1;
        }
        self.has_more = loop {
            if count >= DISPATCH_MAX || bytes > DISPATCH_BYTES_MAX {
                break !self.ready.is_empty();
            }
            let chosen = self.consumers.choose_for(|slot| selection.find(slot, &self.ready, now));
            let Some((slot, found)) = chosen else { break false };
            count += 1;
            let Some(entry) = self.ready.take(found.key.level(), found.key.seq) else { continue };
            bytes += entry.message.body_bytes();
            let is_settled = self.consumers.get(slot).is_some_and(|consumer| consumer.options.no_ack);
            let opens = selection.taken(slot, found, is_settled);
            self.assign(entry, slot, effects);
            if opens && let Some(consumer) = self.consumers.get_mut(slot) {
                match consumer.assigned.last_mut() {
                    Some(Assigned::Owned { opens_group, .. }) => *opens_group = true,
                    Some(last @ Assigned::Unsettled(_)) => {
                        let Assigned::Unsettled(held) = *last else { continue };
                        *last = Assigned::Opening(held);
                    }
                    _ => {}
                }
            }
        };
        for key in selection.take_expired() {
            if let Some(entry) = self.ready.take(key.level(), key.seq) {
                self.counters.expired += 1;
                self.die(entry, Reason::Expired, effects);
            }
        }
        self.selection = Some(selection);
    }

    /// Has the queue look who may take what, from now on, if it has to. Before anything is dispatched.
    #[inline]
    pub(in crate::broker::queue) fn select_if_needed(&mut self, fields: impl FnOnce() -> Arc<dyn Fields>) {
        if self.ready.has_groups() && self.selection.is_none() && self.stream.is_none() {
            self.begin_selection(fields());
        }
    }

    /// A message that has a group is about to enter.
    pub(in crate::broker) fn select_groups(&mut self, fields: impl FnOnce() -> Arc<dyn Fields>) {
        if self.selection.is_none() && self.stream.is_none() {
            self.begin_selection(fields());
        }
    }

    fn begin_selection(&mut self, fields: Arc<dyn Fields>) {
        let priority_max = self.ready.priority_max();
        let mut selection = Selection::new(fields, self.limits.group_mode, self.reach, priority_max);
        for (name, key) in self.held_groups() {
            selection.hold(&name, key);
        }
        for slot in self.consumers.slots() {
            let selector = self.consumers.get(slot).and_then(|consumer| consumer.options.selector.as_ref());
            selection.join(slot, selector, priority_max);
        }
        self.selection = Some(Box::new(selection));
    }

    /// Groups are given out in another way from now on.
    pub(super) fn select_anew(&mut self) {
        if let Some(before) = self.selection.take() {
            self.begin_selection(before.fields());
        }
    }

    /// Messages that are to stay in memory, by their seqs.
    pub(in crate::broker::queue) fn kept_in_memory(&self) -> Option<HashSet<u64, foldhash::fast::RandomState>> {
        self.selection.as_ref()?.kept()
    }

    /// The lock was just taken: so many messages may be looked at.
    pub(in crate::broker::queue) fn begin_look(&mut self) {
        if let Some(selection) = &mut self.selection {
            selection.begin();
        }
    }

    /// More is to be looked at once the lock was let go.
    pub(in crate::broker::queue) fn is_looking(&self) -> bool {
        self.selection.as_ref().is_some_and(|selection| selection.is_cut())
    }

    /// Whether not everybody takes everything, and if so of what priority somebody wants more read.
    pub(in crate::broker::queue) fn selected_level(&self) -> Option<Option<u8>> {
        self.selection.as_ref().map(|selection| selection.wanted())
    }

    /// Who owns a group, if anybody does; `Some(None)` if that one has gone.
    #[cfg(test)]
    pub(in crate::broker::queue) fn group_owner(&self, name: &[u8]) -> Option<Option<ConsumerId>> {
        let slot = self.selection.as_ref()?.group_owner(name)?;
        Some(self.consumers.get(slot).map(|consumer| consumer.id))
    }

    /// What may stay in memory where `window` may otherwise.
    pub(in crate::broker::queue) fn stretched(&self, window: &Reach) -> Reach {
        match self.selection {
            None => *window,
            Some(_) => {
                Reach { messages: window.messages.max(self.reach.messages), bytes: window.bytes.max(self.reach.bytes) }
            }
        }
    }

    /// Messages have left memory.
    pub(in crate::broker::queue) fn note_evicted(&mut self, entries: &[Entry]) {
        if let Some(selection) = &mut self.selection {
            selection.evicted(entries, self.ready.priority_max());
        }
    }

    /// Adds a consumer.
    pub fn open_consumer(
        &mut self,
        id: ConsumerId,
        options: ConsumerOptions,
        cursor: Option<Box<Cursor>>,
        fields: impl FnOnce() -> Arc<dyn Fields>,
    ) {
        if options.selector.is_some() && self.selection.is_none() {
            self.begin_selection(fields());
        }
        let selector = options.selector.clone();
        let slot = self.consumers.add(id, options, cursor);
        if let Some(selection) = &mut self.selection {
            selection.join(slot, selector.as_ref(), self.ready.priority_max());
        }
    }

    /// Takes a consumer out of service. What it holds stays unsettled.
    pub fn close_consumer(&mut self, slot: u32) {
        self.consumers.close(slot);
        if let Some(selection) = &mut self.selection {
            selection.leave(slot);
            if let Some(leases) = &mut self.leases {
                leases.announce();
            }
            if selection.is_idle() && !self.ready.has_groups() {
                self.selection = None;
            }
        }
    }

    /// Puts a message back to its place.
    pub(in crate::broker::queue) fn put_back(&mut self, entry: Entry) {
        if let Some(selection) = &mut self.selection {
            selection.returned(&entry, self.ready.priority_max());
        }
        self.ready.push(entry);
        self.announce(1);
    }
}
