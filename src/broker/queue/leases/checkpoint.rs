//! What the index notes beside messages, so that leases, withheld messages and what is known of earlier
//! leases outlive the records that told of them.

use std::sync::Arc;

use super::{Body, Kind, Leases};
use crate::broker::{
    queue::{cold::Window, machine::Machine, ready::Entry},
    record::Position,
    time::Time,
};

/// What is noted of a message that the index has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The message.
    pub seq: u64,
    /// Its priority, if it is set aside.
    pub level: u8,
    /// What there is to know.
    pub state: NoteState,
    /// The group that it holds.
    pub group: Option<Arc<[u8]>>,
}

/// See [`Note`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteState {
    /// It is leased.
    Leased {
        /// Which lease this is.
        nonce: u64,
        /// Until then.
        until: Time,
        /// When it was first received.
        first_received_at: Time,
    },
    /// It is withheld.
    Withheld {
        /// Until then.
        until: Time,
    },
    /// It was received before, and is ready or with a consumer.
    Received {
        /// When it was first received.
        first_received_at: Time,
    },
}

/// A note that the index is to have, or not any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteChange {
    /// The message.
    pub seq: u64,
    /// What it is to have.
    pub put: Option<Note>,
    /// Parts of the note that it may have: see [`Note::parts_count`].
    pub parts_before: u8,
}

/// Bytes of a group's name in one part.
pub const NOTE_PART_BYTES: usize = 60;
/// Parts of a note at most. A longer name holds no group after a restart.
const PARTS_MAX: usize = 32;

impl Note {
    /// Number of entries that it takes: one, and one for each part of its group's name.
    pub fn parts_count(&self) -> u8 {
        let bytes = self.group.as_ref().map_or(0, |group| group.len());
        (1 + bytes.div_ceil(NOTE_PART_BYTES)) as u8
    }
}

impl Leases {
    fn note_of(&self, seq: u64, priority_max: u8) -> Option<Note> {
        let Some(aside) = self.aside.get(&seq) else {
            let first_received_at = *self.first_received.get(&seq)?;
            return Some(Note { seq, level: 0, state: NoteState::Received { first_received_at }, group: None });
        };
        let entry = aside.cold(priority_max);
        if entry.place == Position::NONE || entry.place.is_in_spill() {
            return None;
        }
        let until = aside.until;
        let state = match aside.kind {
            Kind::Leased { nonce, first_received_at } => NoteState::Leased { nonce, until, first_received_at },
            Kind::Withheld => NoteState::Withheld { until },
        };
        let group = aside.group.clone().filter(|group| group.len() <= NOTE_PART_BYTES * PARTS_MAX);
        Some(Note { seq, level: entry.level, state, group })
    }

    /// The notes that have changed of messages that the index is to have.
    pub(in crate::broker::queue) fn look(&mut self, indexed_below: u64, priority_max: u8) -> Vec<NoteChange> {
        let changed: Vec<u64> = self.changed.extract_if(|seq| *seq < indexed_below).collect();
        let mut notes = Vec::with_capacity(changed.len());
        for seq in changed {
            let put = self.note_of(seq, priority_max);
            let parts_before = match &put {
                Some(note) => self.noted.insert(seq, note.parts_count()),
                None => self.noted.remove(&seq),
            };
            if put.is_some() || parts_before.is_some() {
                let parts_before = parts_before.unwrap_or(0);
                self.given.push((seq, parts_before));
                notes.push(NoteChange { seq, put, parts_before });
            }
        }
        notes
    }

    /// What was told last is in the index, or was not written.
    pub(in crate::broker::queue) fn looked(&mut self, is_committed: bool) {
        for (seq, parts_before) in std::mem::take(&mut self.given) {
            if !is_committed {
                self.changed.insert(seq);
                if parts_before > 0 {
                    let parts = self.noted.entry(seq).or_default();
                    *parts = parts_before.max(*parts);
                }
            }
        }
    }
}

impl Machine {
    /// Has what is set aside and is in an index leave memory, if that is much.
    pub(in crate::broker::queue) fn evict_aside(&mut self, window: &Window, evicted: &mut Vec<Entry>) {
        let priority_max = self.ready.priority_max();
        let (Some(leases), Some(cold)) = (self.leases.as_deref_mut(), self.cold.as_deref()) else { return };
        if leases.here.0 <= window.messages && leases.here.1 <= window.bytes {
            return;
        }
        for aside in leases.aside.values_mut() {
            let Body::Here(entry) = &aside.body else { continue };
            if cold.is_committed(entry) {
                let kept = Body::Cold(super::ColdEntry::of(entry, priority_max));
                let bytes = entry.message.body_bytes();
                if let Body::Here(entry) = std::mem::replace(&mut aside.body, kept) {
                    evicted.push(entry);
                }
                leases.here = (leases.here.0 - 1, leases.here.1 - bytes);
            }
        }
    }

    /// Messages that are set aside are at other places than before. Returns those that were changed.
    pub(in crate::broker::queue) fn relocate_aside(&mut self, new: impl Fn(u64, Position) -> Option<Position>) {
        let priority_max = self.ready.priority_max();
        let (Some(leases), Some(cold)) = (self.leases.as_deref_mut(), self.cold.as_deref_mut()) else { return };
        for (&seq, aside) in &mut leases.aside {
            let place = match &mut aside.body {
                Body::Here(entry) => &mut entry.place,
                Body::Cold(entry) => &mut entry.place,
            };
            if let Some(new) = new(seq, *place) {
                *place = new;
                cold.changes_cold(aside.cold(priority_max));
            }
        }
    }
}
