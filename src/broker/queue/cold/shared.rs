//! The verbs of cold messages on a queue that is shared: they lock it, and do what [`Machine`]
//! decides.

use std::sync::Arc;

use super::{Home, Look, Page, PageRequest, Side, Window};
use crate::broker::{
    queue::{Queue, handle::CHUNK, leases::THAWING, machine::Machine, ready::Front},
    record::{Position, Record},
    turn::Turn,
};

impl Queue {
    /// First half of a checkpoint: what changed. Every live message whose place is before `below` is in
    /// the index after it; when more than `window` is in memory, all are, so that they can be
    /// evicted. `None`: nothing has to be told, and [`Self::looked`] need not be called.
    pub fn look(&self, below: Position, window: &Window) -> Option<Look> {
        let mut evicted = Vec::new();
        let mut machine = self.lock();
        if self.is_deleted() {
            return None;
        }
        let seen = machine.look_seen();
        let look = match &mut machine.stream {
            Some(stream) => stream.look(below, window),
            None => machine.look(Home::Log, below, window, &mut evicted),
        };
        let look = match (look, seen) {
            (look, None) => look,
            (look, seen) => Some(Look { seen, ..look.unwrap_or_default() }),
        };
        // Dropped after the lock is let go, as many messages may be.
        drop(machine);
        look
    }

    /// Second half: the changes of the last look are durable in the index, or were not written and will
    /// be told again. In the first case what the window has no room for leaves memory. Where the
    /// log forgets what the index no longer names, it does so after this was called.
    pub fn looked(&self, is_committed: bool, window: &Window) {
        let mut evicted = Vec::new();
        let mut machine = self.lock();
        machine.looked_seen(is_committed);
        if let Some(stream) = &mut machine.stream {
            let of_stream = stream.looked(is_committed, window);
            drop(machine);
            return drop(of_stream);
        }
        machine.looked(Home::Log, is_committed, window, &mut evicted);
        drop(machine);
    }

    /// Takes a page that was asked for. Whoever calls this calls
    /// [`Waiting::proceed`](crate::broker::verb::Waiting::proceed) afterwards.
    pub fn page_in(self: &Arc<Self>, page: Page, turn: &mut Turn<'_>) {
        let mut effects = self.effects(turn);
        let mut machine = self.lock();
        if self.is_deleted() {
            return;
        }
        let damage = machine.page_in(page, &mut effects);
        machine.come_due(turn.now, CHUNK, &mut effects);
        self.run(&mut machine, turn, &mut effects);
        let mut has_more = machine.enforce_limits(CHUNK, &mut effects);
        has_more |= machine.expire(turn.now, CHUNK, &mut effects);
        if has_more {
            self.appoint(turn.now, turn);
        }
        self.appoint_next(&machine, turn);
        self.finish(machine, effects, turn);
        if let Some(reason) = damage {
            let (vhost, queue) = (self.vhost_name(), &self.name);
            tracing::error!(%vhost, %queue, reason, "messages on disk cannot be read: the queue delivers none of them");
            turn.broker.set_damage(format!("queue {queue} in vhost {vhost} delivers no messages from disk: {reason}"));
        }
    }

    /// Its messages on disk cannot be read.
    pub fn is_damaged(&self) -> bool {
        let machine = self.lock();
        machine.stream.as_ref().is_some_and(|stream| stream.is_damaged())
            || machine.cold.as_deref().is_some_and(|cold| cold.is_damaged())
    }

    /// Number of messages that are not in memory, and the bytes of their bodies.
    pub fn cold(&self) -> (u64, u64) {
        let machine = self.lock();
        machine.stream.as_ref().map_or_else(|| machine.ready.cold(), |stream| stream.cold_count())
    }

    pub(in crate::broker::queue) fn ask_for_pages(self: &Arc<Self>, machine: &mut Machine, turn: &Turn<'_>) {
        // Before somebody can answer, nothing is asked.
        if turn.is_replay() {
            return;
        }
        let Some(pages) = turn.broker.cold_pages() else { return };
        if let Some(stream) = &mut machine.stream {
            for wanted in stream.wanted_pages() {
                let (queue, id) = (Arc::downgrade(self), self.id);
                let (is_in_log, is_in_spill) = (true, false);
                pages.fetch(PageRequest { queue, id, generation: 0, wanted, is_in_log, is_in_spill });
            }
            return;
        }
        if let Some(thaw) = machine.wanted_thaw()
            && let Some(cold) = machine.cold.as_deref()
        {
            pages.fetch(PageRequest {
                queue: Arc::downgrade(self),
                id: self.id,
                generation: cold.generation() | THAWING,
                wanted: thaw.wanted,
                is_in_log: thaw.is_in_log,
                is_in_spill: thaw.is_in_spill,
            });
        }
        if machine.ready.gaps().is_empty() {
            return;
        }
        for wanted in machine.wanted_pages(turn.now).into_iter().flatten() {
            let Some(cold) = machine.cold.as_deref() else { return };
            pages.fetch(PageRequest {
                queue: Arc::downgrade(self),
                id: self.id,
                generation: cold.generation(),
                wanted,
                is_in_log: cold.is_logged,
                is_in_spill: cold.spill.as_deref().is_some_and(Side::has_any),
            });
        }
    }

    /// Removes all ready messages in one step; `None` when they have to go one by one.
    pub(in crate::broker::queue) fn purge_at_once(self: &Arc<Self>, turn: &mut Turn<'_>) -> Option<u64> {
        let effects = self.effects(turn);
        let mut machine = self.lock();
        if !effects.wants_settled && !machine.is_spilling() {
            return None;
        }
        let purge = machine.purge_all()?;
        if effects.wants_settled {
            turn.record(Record::Purged { queue: self.id, below: machine.next_seq(), kept: purge.kept });
        }
        self.finish(machine, effects, turn);
        drop(purge.ready);
        Some(purge.count)
    }
}

impl Machine {
    /// Notes that a receiver waits for what comes next, which is on disk.
    /// False if it cannot be read.
    pub(in crate::broker::queue) fn want_front(&mut self) -> bool {
        let is_selected = self.selected_level().is_some();
        let Some(cold) = self.cold.as_deref_mut().filter(|cold| !cold.is_damaged()) else { return false };
        if !is_selected {
            cold.wait();
        }
        true
    }

    /// Notes that somebody waits for the first message, if it has to be read; false when it has not.
    pub(in crate::broker::queue) fn wait_for_front(&mut self) -> bool {
        let is_cold = matches!(self.ready.front(), Front::Cold(_));
        match self.cold.as_deref_mut() {
            Some(cold) if is_cold && !cold.is_damaged() => cold.wait(),
            _ => return false,
        }
        true
    }
}
