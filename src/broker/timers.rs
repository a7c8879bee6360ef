//! When which queue or exchange wants to be looked at again.
//!
//! Entries are never removed early; an owner that is asked too early says so and is asked again.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use super::{exchange::Exchange, queue::Queue, time::Time};

/// Who wants to be looked at.
#[derive(Clone)]
pub enum Owner {
    /// A queue: expiry, its own end, compaction.
    Queue(Weak<Queue>),
    /// An exchange that holds messages back.
    Exchange(Weak<Exchange>),
    /// A redrive.
    Redrive(u64),
}

/// All appointments of the broker.
#[derive(Default)]
pub struct Timers {
    inner: Mutex<Inner>,
    /// Called when the earliest appointment came forward.
    waker: Mutex<Option<Arc<dyn Fn() + Send + Sync>>>,
}

#[derive(Default)]
struct Inner {
    due: BinaryHeap<Reverse<(Time, u64)>>,
    owners: std::collections::HashMap<u64, Owner, foldhash::fast::FixedState>,
    next: u64,
}

impl Timers {
    /// Asks to be called when the earliest appointment came forward.
    pub fn on_earlier(&self, waker: Arc<dyn Fn() + Send + Sync>) {
        *self.waker.lock() = Some(waker);
    }

    /// Makes an appointment.
    pub fn schedule(&self, at: Time, owner: Owner) {
        let is_earliest = {
            let mut inner = self.inner.lock();
            let is_earliest = inner.due.peek().is_none_or(|Reverse((first, _))| at < *first);
            let number = inner.next;
            inner.next += 1;
            inner.due.push(Reverse((at, number)));
            inner.owners.insert(number, owner);
            is_earliest
        };
        if is_earliest {
            let waker = self.waker.lock().clone();
            if let Some(waker) = waker {
                waker();
            }
        }
    }

    /// The earliest appointment.
    pub fn next(&self) -> Option<Time> {
        self.inner.lock().due.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes one appointment that is due.
    pub fn take_due(&self, now: Time) -> Option<Owner> {
        let mut inner = self.inner.lock();
        if inner.due.peek()?.0.0 > now {
            return None;
        }
        let Reverse((_, number)) = inner.due.pop()?;
        inner.owners.remove(&number)
    }
}
