//! The verbs of messages held back on an exchange that is shared: they lock them, and do what [`Holds`]
//! decides.

use std::sync::{Arc, Weak};

use super::{HoldEntry, Holds, HoldsLook, HoldsPage, HoldsWanted};
use crate::broker::{
    exchange::Exchange, message::Message, queue::cold::Window, record::Position, timers::Owner, turn::Turn,
};

/// A page that an exchange wants. The index is to be looked at after the request was made.
#[derive(Clone)]
pub struct HoldsRequest {
    /// Who gets it.
    pub exchange: Weak<Exchange>,
    /// Its identity.
    pub identity: Position,
    /// What is wanted.
    pub wanted: HoldsWanted,
}

impl Exchange {
    /// Notes where the log has its declaration. In a replay, the index may have messages of it.
    pub(in crate::broker) fn identify(&self, identity: Position, turn: &Turn<'_>) {
        self.set_identity(identity);
        if let Some(delayed) = &self.delayed
            && identity != Position::NONE
            && turn.broker.cold_pages().is_some()
        {
            delayed.lock().keep_cold(turn.is_replay());
        }
    }

    /// First half of a checkpoint: what of the messages held back has changed. All that are alive are in the
    /// index after it. `None`: nothing has to be told, and [`Self::looked`] need not be called.
    pub fn look(&self, window: &Window) -> Option<HoldsLook> {
        let mut delayed = self.delayed.as_ref()?.lock();
        if self.is_deleted() { None } else { delayed.look(window) }
    }

    /// Second half: the changes of the last look are durable in the index, or were not written and will
    /// be told again. In the first case what the window has no room for leaves memory.
    pub fn looked(&self, is_committed: bool) {
        let Some(delayed) = &self.delayed else { return };
        // Or each would keep the block that it came in, with what has left memory.
        let evicted = delayed.lock().looked(is_committed, Message::compact);
        // Not under the lock, as many messages may be.
        drop(evicted);
    }

    /// Says where the log has messages of the index, too. The next look tells the new places of those that are
    /// alive then.
    pub fn relocated(&self, moves: &[HoldEntry]) {
        if let Some(delayed) = &self.delayed {
            delayed.lock().relocated(moves);
        }
    }

    /// Takes a page that was asked for, and releases what is due.
    pub fn page_in(self: &Arc<Self>, page: HoldsPage<Message>, turn: &mut Turn<'_>) {
        let (Some(delayed), Some(vhost)) = (&self.delayed, self.vhost.upgrade()) else { return };
        let damage = delayed.lock().page_in(page);
        if let Some(reason) = damage {
            let (vhost, exchange) = (&vhost.name, &self.name);
            tracing::error!(%vhost, %exchange, reason, "messages held back on disk cannot be read: they are not released");
            turn.broker
                .set_damage(format!("exchange {exchange} in vhost {vhost} releases no messages from disk: {reason}"));
        }
        if !vhost.is_deleted() && !self.is_deleted() {
            vhost.release_delayed(self, turn);
        }
    }

    /// Asks for the page that is wanted, and arranges to be looked at again.
    pub(in crate::broker) fn proceed_holds(self: &Arc<Self>, turn: &Turn<'_>) {
        let Some(delayed) = &self.delayed else { return };
        let mut delayed = delayed.lock();
        if let Some(pages) = turn.broker.cold_pages()
            && !self.is_deleted()
            && let Some(wanted) = delayed.wanted()
        {
            pages.fetch_held(HoldsRequest { exchange: Arc::downgrade(self), identity: self.identity(), wanted });
        }
        self.appoint(&mut delayed, turn);
    }

    /// Arranges to be looked at when the next message is due.
    pub(in crate::broker) fn appoint(self: &Arc<Self>, delayed: &mut Holds<Message>, turn: &Turn<'_>) {
        if let Some(at) = delayed.appoint(turn.now) {
            turn.broker.timers.schedule(at, Owner::Exchange(Arc::downgrade(self)));
        }
    }
}
