//! Looking at the messages of a queue without taking them, in delivery order, wherever they are.
//!
//! What is on disk is read in pages that the queue does not keep: they are for whoever looks. One is asked
//! for at a time, and kept until it has been looked through or another has come; whoever finds another's
//! asks for its own again.

use std::{borrow::Cow, sync::Arc};

use super::{ColdEntry, Page, PageRequest, Side, Wanted};
use crate::broker::{
    message::Message,
    queue::{Queue, machine::Machine, ready::Ahead},
    time::Time,
    turn::Turn,
    verb::{Ticket, Verb},
};

/// Where to go on looking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrowsePlace {
    level: u8,
    /// The first seq that was not looked at.
    from: u64,
}

/// A message that somebody looks at.
#[derive(Clone, Debug)]
pub struct Browsed {
    /// Its identity in the queue.
    pub seq: u64,
    /// The message.
    pub message: Message,
    /// It was delivered before.
    pub redelivered: bool,
    /// Deliveries that failed.
    pub delivery_count: u32,
}

/// Some messages of a queue, in order.
#[derive(Debug, Default)]
pub struct BrowsedPage {
    /// The messages; there may be none though there are more.
    pub messages: Vec<Browsed>,
    /// Where to go on; `None` at the end of the queue.
    pub next: Option<BrowsePlace>,
}

/// A page for those who look.
#[derive(Debug)]
pub(super) struct Leaf {
    generation: u64,
    level: u8,
    /// All that the index has with `from <= seq < to` is here.
    from: u64,
    to: u64,
    entries: Vec<(ColdEntry, Message)>,
}

/// What a page for those who look is asked for with, beside the generation.
pub(super) const BROWSING: u64 = 1 << 63;
/// Messages that one call looks at.
const BROWSED_MAX: usize = 256;
/// Bytes of bodies that one call looks at, if it is more than one message.
const BROWSED_BYTES_MAX: u64 = 1 << 20;

/// What a look came to.
enum Look {
    Page(BrowsedPage),
    /// What is on disk from this seq on has to be read first.
    Cold(u8, u64),
}

impl Queue {
    /// Looks at ready messages from a place on, at most `max` and not more than one call may, and leaves
    /// them where they are. `None`: from the first. Streams are not looked at like this.
    pub fn browse(self: &Arc<Self>, from: Option<BrowsePlace>, max: usize, turn: &mut Turn<'_>) -> Verb<BrowsedPage> {
        let mut machine = self.lock();
        if self.is_deleted() || machine.stream.is_some() {
            return Verb::Done(BrowsedPage::default());
        }
        match machine.browse(from, max.clamp(1, BROWSED_MAX), turn.now) {
            Look::Page(mut page) => {
                for browsed in &mut page.messages {
                    let presented = turn.broker.presented(self.id, &browsed.message);
                    if let Cow::Owned(message) = presented {
                        browsed.message = message;
                    }
                }
                if page.next.is_none()
                    && let Some(cold) = machine.cold.as_deref_mut()
                {
                    cold.leaf = None;
                }
                Verb::Done(page)
            }
            Look::Cold(level, from) => {
                self.ask_for_leaf(&mut machine, level, from, turn);
                Verb::Pending(Ticket(self.id.0))
            }
        }
    }

    fn ask_for_leaf(self: &Arc<Self>, machine: &mut Machine, level: u8, from: u64, turn: &Turn<'_>) {
        let Some(pages) = turn.broker.cold_pages() else { return };
        let Some(to) = machine.ready.gap(level).map(|gap| gap.to) else { return };
        let Some(cold) = machine.cold.as_deref_mut().filter(|cold| !cold.is_leaf_asked) else { return };
        cold.is_leaf_asked = true;
        // One more than there is to read: whoever reads ahead does not take it for the queue's own request.
        let to = to.saturating_add(1);
        let (messages_max, bytes_max) = (BROWSED_MAX, BROWSED_BYTES_MAX);
        pages.fetch(PageRequest {
            queue: Arc::downgrade(self),
            id: self.id,
            generation: cold.generation() | BROWSING,
            wanted: Wanted::Front { level, from, to, messages_max, bytes_max },
            is_in_log: cold.is_logged,
            is_in_spill: cold.spill.as_deref().is_some_and(Side::has_any),
        });
    }
}

impl Machine {
    fn browse(&self, from: Option<BrowsePlace>, max: usize, now: Time) -> Look {
        let BrowsePlace { mut level, mut from } =
            from.unwrap_or(BrowsePlace { level: self.ready.priority_max(), from: 0 });
        level = level.min(self.ready.priority_max());
        let start = (level, from);
        let (mut messages, mut bytes, mut looked_at) = (Vec::new(), 0, 0);
        loop {
            if looked_at >= max || bytes >= BROWSED_BYTES_MAX {
                return Look::Page(BrowsedPage { messages, next: Some(BrowsePlace { level, from }) });
            }
            let found = match self.ready.ahead(level, from) {
                Ahead::Entry(seq) => {
                    from = seq + 1;
                    self.ready.get(level, seq).cloned()
                }
                Ahead::Cold(seq) => match self.leaf_at(level, seq) {
                    Some(leaf) => {
                        let (next, entry) = self.next_of(leaf, seq);
                        from = next;
                        entry
                    }
                    None if self.cold.as_deref().is_none_or(|cold| cold.is_damaged) => {
                        return Look::Page(BrowsedPage { messages, next: None });
                    }
                    // Whoever got on says so, and does not look through the page before again.
                    None if (level, seq) == start => return Look::Cold(level, seq),
                    None => {
                        let next = Some(BrowsePlace { level, from: seq });
                        return Look::Page(BrowsedPage { messages, next });
                    }
                },
                Ahead::End if level == 0 => return Look::Page(BrowsedPage { messages, next: None }),
                Ahead::End => {
                    (level, from) = (level - 1, 0);
                    continue;
                }
            };
            looked_at += 1;
            if let Some(entry) = found.filter(|entry| entry.deadline > now) {
                bytes += entry.message.body_bytes();
                let (redelivered, delivery_count) = (entry.redelivered, entry.delivery_count);
                messages.push(Browsed { seq: entry.seq, message: entry.message, redelivered, delivery_count });
            }
        }
    }

    fn leaf_at(&self, level: u8, seq: u64) -> Option<&Leaf> {
        let cold = self.cold.as_deref()?;
        // What left memory since is in none of its pages.
        let leaf = cold.leaf.as_ref().filter(|leaf| leaf.generation == cold.generation)?;
        (leaf.level == level && (leaf.from..leaf.to).contains(&seq)).then_some(leaf)
    }

    /// The first message of a page, or beside it in memory, that is alive; and the seq to go on from.
    fn next_of(&self, leaf: &Leaf, from: u64) -> (u64, Option<crate::broker::queue::ready::Entry>) {
        let (Some(cold), Some(gap)) = (self.cold.as_deref(), self.ready.gap(leaf.level)) else { return (from, None) };
        let to = leaf.to.min(gap.to).max(from + 1);
        let here = self.ready.range(leaf.level, from, to).next();
        let start = leaf.entries.partition_point(|(entry, _)| entry.seq < from);
        let is_alive = |entry: &ColdEntry| entry.seq < to && gap.has(entry.seq) && !cold.is_purged(entry);
        let there = leaf.entries[start..].iter().find(|(entry, _)| is_alive(entry));
        match (here, there) {
            (Some(here), there) if there.is_none_or(|(entry, _)| here.seq < entry.seq) => {
                (here.seq + 1, Some(here.clone()))
            }
            (_, Some((entry, message))) => (entry.seq + 1, Some(cold.overlay(entry.clone()).with(message.clone()))),
            (_, None) => (to, None),
        }
    }

    /// Takes a page that somebody looks at. Returns what is wrong with the cold messages.
    pub(super) fn leaf_in(&mut self, page: Page) -> Option<String> {
        let cold = self.cold.as_deref_mut()?;
        cold.is_leaf_asked = false;
        if page.generation != cold.generation | BROWSING || cold.is_damaged {
            return None;
        }
        let Wanted::Front { level, from, to, .. } = page.wanted else { return None };
        match page.result {
            Ok(entries) => {
                let last = entries.last().map_or(from, |(entry, _)| entry.seq);
                let to = page.next.unwrap_or(to).max(last + 1);
                let generation = cold.generation;
                cold.leaf = Some(Leaf { generation, level, from, to, entries });
                None
            }
            Err(error) => {
                cold.is_damaged = true;
                Some(error)
            }
        }
    }
}
