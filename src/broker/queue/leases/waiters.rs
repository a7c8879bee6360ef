//! Receivers who wait until something can be received.
//!
//! A message that comes has one of them told. Whoever was told and receives something has the next told,
//! if there is more; whoever was told and goes without receiving passes the word on. So no word is lost,
//! and not everybody comes running for one message.
//!
//! Invariants:
//! - `has_news` unless somebody has looked since the last message came and found nothing for a receiver;
//! - while `has_news` and somebody waits, somebody who was told has neither received nor gone.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Weak,
        atomic::{AtomicU8, Ordering},
    },
};

use crate::broker::{connections::ConnectionHandle, queue::Queue};

/// See the module's text.
#[derive(Default)]
pub(super) struct Waiters {
    waiting: VecDeque<Arc<Place>>,
    /// Those of them that have gone.
    gone: usize,
    /// A receiver may find something.
    has_news: bool,
    /// Messages that came since somebody was last told.
    came: usize,
}

/// Somebody's place among those who wait. It is waited for until this is dropped.
pub struct Waiter {
    queue: Weak<Queue>,
    place: Arc<Place>,
}

struct Place {
    handle: Weak<dyn ConnectionHandle>,
    state: AtomicU8,
}

const WAITING: u8 = 0;
const TOLD: u8 = 1;
const GONE: u8 = 2;
/// Places of those who have gone that are not worth sweeping.
const GONE_MIN: usize = 64;

impl Waiters {
    /// Messages have become ready, or others may be received than before.
    pub(super) fn announce(&mut self, count: usize) {
        self.has_news = true;
        self.came = self.came.saturating_add(count);
    }

    /// A receiver has looked at everything, and found nothing.
    pub(super) fn found_nothing(&mut self) {
        (self.has_news, self.came) = (false, 0);
    }

    /// A receiver has taken something, and something is left.
    pub(super) fn found_some(&mut self) {
        if self.has_news {
            self.came = self.came.max(1);
        }
    }

    /// Number of those who wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() - self.gone
    }

    /// Adds somebody, who is told at once if there is something.
    pub(super) fn wait(&mut self, queue: Weak<Queue>, handle: Weak<dyn ConnectionHandle>) -> Waiter {
        let place = Arc::new(Place { handle, state: AtomicU8::new(WAITING) });
        self.waiting.push_back(place.clone());
        self.found_some();
        Waiter { queue, place }
    }

    /// Those who are to be told now that so many messages are ready, once no lock is held.
    pub(super) fn take_told(&mut self, ready: usize) -> Vec<Weak<dyn ConnectionHandle>> {
        // What came and was taken by others is no word to anybody.
        let count = self.came.min(ready);
        let mut told = Vec::new();
        while told.len() < count
            && let Some(place) = self.waiting.pop_front()
        {
            if place.state.compare_exchange(WAITING, TOLD, Ordering::AcqRel, Ordering::Acquire).is_err() {
                self.gone = self.gone.saturating_sub(1);
            } else if place.handle.strong_count() > 0 {
                told.push(place.handle.clone());
            }
        }
        self.came = 0;
        told
    }

    /// All of them: there will be nothing.
    pub(super) fn take_all(&mut self) -> Vec<Weak<dyn ConnectionHandle>> {
        self.came = usize::MAX;
        self.take_told(usize::MAX)
    }

    fn note_gone(&mut self) {
        self.gone += 1;
        if self.gone > GONE_MIN && self.gone > self.waiting.len() / 2 {
            self.waiting.retain(|place| place.state.load(Ordering::Acquire) == WAITING);
            self.gone = 0;
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let was_told = self.place.state.swap(GONE, Ordering::AcqRel) == TOLD;
        let Some(queue) = self.queue.upgrade() else { return };
        let told = {
            let mut machine = queue.lock();
            let ready = machine.ready.len();
            let Some(leases) = machine.leases.as_deref_mut() else { return };
            if was_told {
                leases.waiters.found_some();
                leases.waiters.take_told(ready)
            } else {
                leases.waiters.note_gone();
                Vec::new()
            }
        };
        tell(told);
    }
}

impl std::fmt::Debug for Waiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Waiter(told={})", self.place.state.load(Ordering::Relaxed) == TOLD)
    }
}

/// Tells those who waited. No lock is held.
pub(super) fn tell(told: Vec<Weak<dyn ConnectionHandle>>) {
    for handle in told.iter().filter_map(Weak::upgrade) {
        handle.proceed();
    }
}
