//! Where the registries of administration record their changes: the broker's journal, once it has
//! one.
//!
//! A registry appends while it holds the lock of what it changes, and before it changes it: the
//! order of the log is the order of the changes, and nobody sees one that is not in the log.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

use super::{Haste, Journal, Position, Record};

/// See the module's text. Clones share one journal.
#[derive(Clone, Default)]
pub struct Log(Arc<Shared>);

#[derive(Default)]
struct Shared {
    journal: OnceLock<Arc<dyn Journal>>,
    last: AtomicU64,
}

impl Log {
    /// Has every change recorded from now on.
    pub(in crate::broker) fn attach(&self, journal: Arc<dyn Journal>) {
        assert!(self.0.journal.set(journal).is_ok(), "a broker has one journal");
    }

    /// Appends what `record` makes, if there is a journal.
    pub(in crate::broker) fn append(&self, record: impl FnOnce() -> Record) {
        if let Some(journal) = self.0.journal.get() {
            let appended = journal.append(&record(), Haste::Due);
            self.note(appended.end);
        }
    }

    /// Notes a record of a definition that was appended elsewhere.
    pub(in crate::broker) fn note(&self, end: Position) {
        self.0.last.fetch_max(end.0, Ordering::AcqRel);
    }

    /// After the last record of a definition: whoever is told that a definition is in force waits
    /// for it.
    pub fn last(&self) -> Position {
        Position(self.0.last.load(Ordering::Acquire))
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Log(last={})", self.last().0)
    }
}
