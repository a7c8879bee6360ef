//! What is set aside while records are replayed. The index notes it as it was at some time after the first
//! of the records; repeating them comes to the same.

use std::collections::HashMap;

use super::{Aside, Body, Kind, Name, Note, checkpoint::NoteState};
use crate::broker::{
    queue::{cold::Find, machine::Machine},
    record::LeasedTo,
    time::Time,
};

impl Machine {
    /// Sets aside what the index notes.
    pub(in crate::broker) fn restore_notes(&mut self, notes: Vec<Note>, find: Find<'_>) {
        for note in notes {
            let parts = note.parts_count();
            let Note { seq, state, group, .. } = note;
            self.leases_mut().noted.insert(seq, parts);
            match state {
                NoteState::Leased { nonce, until, first_received_at } => {
                    self.restore_aside(seq, Kind::Leased { nonce, first_received_at }, until, group, find);
                }
                NoteState::Withheld { until } => self.restore_aside(seq, Kind::Withheld, until, None, find),
                NoteState::Received { first_received_at } => {
                    self.leases_mut().first_received.insert(seq, first_received_at);
                }
            }
            // As it is noted, it need not be told.
            self.leases_mut().changed.remove(&seq);
        }
    }

    /// Repeats that messages were leased.
    pub(in crate::broker) fn restore_leased(&mut self, leased: LeasedTo, find: Find<'_>) {
        let LeasedTo { seqs, groups, nonce, at, until } = leased;
        let mut groups: HashMap<u64, Name> = groups.into_iter().collect();
        for seq in seqs {
            // Those that were in no log had a seq, too.
            self.next_seq = self.next_seq.max(seq + 1);
            let leases = self.leases_mut();
            let before = leases.aside.get(&seq).map(|aside| aside.kind);
            let first_received_at = match before {
                Some(Kind::Leased { first_received_at, .. }) => first_received_at.min(at),
                _ => leases.first_received.remove(&seq).unwrap_or(at).min(at),
            };
            self.restore_aside(seq, Kind::Leased { nonce, first_received_at }, until, groups.remove(&seq), find);
        }
    }

    /// Repeats that leases end at another time.
    pub(in crate::broker) fn restore_lease_changed(&mut self, seqs: &[u64], until: Time) {
        seqs.iter().for_each(|seq| self.leases_mut().set_until(*seq, until));
    }

    /// Repeats that messages are withheld.
    pub(in crate::broker) fn restore_withheld(&mut self, seqs: &[(u64, Time)], find: Find<'_>) {
        seqs.iter().for_each(|&(seq, until)| self.restore_aside(seq, Kind::Withheld, until, None, find));
    }

    fn restore_aside(&mut self, seq: u64, kind: Kind, until: Time, group: Option<Name>, find: Find<'_>) {
        let body = match self.leases_mut().remove(seq) {
            Some(aside) => Some(aside.body),
            None => self.take_for_replay(seq, find),
        };
        if let Some(body) = body {
            self.leases_mut().insert(Aside { until, kind, group, body });
        }
    }

    fn take_for_replay(&mut self, seq: u64, find: Find<'_>) -> Option<Body> {
        if let Some(entry) = self.take_resident(seq) {
            return Some(Body::Here(entry));
        }
        let entry = self.find_cold(seq, find)?;
        self.ready.take_cold(entry.level, seq, entry.body_bytes, true).then_some(Body::Cold(entry))
    }

    /// Repeats that withheld messages were released.
    pub(in crate::broker) fn restore_unheld(&mut self, seqs: &[u64]) {
        seqs.iter().for_each(|seq| _ = self.restore_back(*seq, None));
    }

    /// Brings a message back that is set aside; false if it is not. One that is on disk comes due at once.
    pub(in crate::broker::queue) fn restore_back(&mut self, seq: u64, failed: Option<u32>) -> bool {
        let Some(leases) = self.leases.as_deref_mut() else { return false };
        let Some(mut aside) = leases.remove(seq) else { return false };
        if let (Kind::Leased { first_received_at, .. }, Some(_)) = (aside.kind, failed) {
            leases.note_first_received(seq, first_received_at);
        }
        match &mut aside.body {
            Body::Here(entry) => {
                if let Some(count) = failed {
                    (entry.redelivered, entry.delivery_count) = (true, count);
                }
            }
            Body::Cold(entry) => {
                if let Some(count) = failed {
                    (entry.redelivered, entry.delivery_count) = (true, count);
                }
                let entry = entry.clone();
                (aside.kind, aside.until, aside.group) = (Kind::Withheld, Time(0), None);
                leases.insert(aside);
                if let Some(cold) = self.cold.as_deref_mut() {
                    cold.changes_cold(entry);
                }
                return true;
            }
        }
        if let Body::Here(entry) = aside.body {
            self.ready.push(entry);
        }
        true
    }

    /// Forgets a message that is set aside, and has left; false if it is not.
    pub(in crate::broker::queue) fn restore_aside_gone(&mut self, seq: u64) -> bool {
        let Some(leases) = self.leases.as_deref_mut() else { return false };
        let Some(aside) = leases.remove(seq) else {
            leases.forget(seq);
            return false;
        };
        if let (Body::Cold(entry), Some(cold)) = (&aside.body, self.cold.as_deref_mut()) {
            cold.left_cold(entry);
        }
        true
    }

    /// Forgets what is set aside with a smaller seq, but for some.
    pub(in crate::broker::queue) fn restore_aside_purged(&mut self, below: u64, is_kept: impl Fn(u64) -> bool) {
        let Some(leases) = self.leases.as_deref_mut() else { return };
        let gone: Vec<u64> = leases.aside.keys().copied().filter(|seq| *seq < below && !is_kept(*seq)).collect();
        gone.iter().for_each(|seq| _ = leases.remove(*seq));
        let known = leases.first_received.keys().copied();
        let gone: Vec<u64> = known.filter(|seq| *seq < below && !is_kept(*seq)).collect();
        gone.iter().for_each(|seq| leases.forget(*seq));
    }
}
