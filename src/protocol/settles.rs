//! Settles of one read, gathered by queue and applied together.

use std::{collections::HashMap, sync::Arc};

use crate::broker::{
    consumer::{ConsumerId, Held, Settle},
    queue::Queue,
    record::QueueId,
    turn::Turn,
};

/// What a queue loses and gets back in one step when a channel or a connection ends.
pub(super) struct Leaving {
    pub(super) queue: Arc<Queue>,
    pub(super) consumers: Vec<ConsumerId>,
    /// Deliveries that were transmitted, and those that never were.
    pub(super) requeued: Vec<Held>,
    pub(super) returned: Vec<Held>,
}

impl Leaving {
    /// Sorts deliveries and consumers by their queues, each once.
    pub(super) fn gather<'c>(
        deliveries: Vec<(Arc<Queue>, Vec<Held>, Vec<Held>)>,
        consumers: impl Iterator<Item = (&'c Arc<Queue>, ConsumerId)>,
    ) -> Vec<Self> {
        let with = |(queue, requeued, returned)| Self { queue, consumers: Vec::new(), requeued, returned };
        let mut leaving: Vec<Self> = deliveries.into_iter().map(with).collect();
        let places = leaving.iter().enumerate().map(|(at, one)| (one.queue.id, at));
        let mut places: HashMap<QueueId, usize, foldhash::fast::FixedState> = places.collect();
        for (queue, consumer) in consumers {
            let at = *places.entry(queue.id).or_insert_with(|| {
                leaving.push(with((queue.clone(), Vec::new(), Vec::new())));
                leaving.len() - 1
            });
            leaving[at].consumers.push(consumer);
        }
        leaving
    }

    /// Has it take effect. Returns whether the queue has to be deleted because these were its last consumers.
    pub(super) fn apply(&self, turn: &mut Turn<'_>) -> bool {
        self.queue.leave(&self.consumers, &self.requeued, &self.returned, turn)
    }
}

/// Settles that wait for the end of the input.
#[derive(Default)]
pub(super) struct Settles {
    runs: Vec<(Arc<Queue>, Settle, Vec<Held>)>,
    spare: Vec<Vec<Held>>,
    /// Channels whose shared credit has grown.
    credited: Vec<u16>,
    /// Queues that have settled and served nobody, so that all sharers of a credit have a chance.
    unserved: Vec<Arc<Queue>>,
}

impl Settles {
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub(super) fn add(&mut self, queue: &Arc<Queue>, how: Settle, held: Held) {
        if let Some((last, last_how, list)) = self.runs.last_mut()
            && *last_how == how
            && Arc::ptr_eq(last, queue)
        {
            list.push(held);
            return;
        }
        let mut list = self.spare.pop().unwrap_or_default();
        list.push(held);
        self.runs.push((queue.clone(), how, list));
    }

    pub(super) fn apply(&mut self, turn: &mut Turn<'_>) {
        let runs = self.take();
        for (queue, how, list) in &runs {
            if self.credited.is_empty() {
                queue.settle(list, *how, turn);
            } else {
                queue.settle_quietly(list, *how, turn);
                self.unserved.push(queue.clone());
            }
        }
        self.give_back(runs);
    }

    /// Notes that a channel's shared credit will have grown.
    pub(super) fn credit(&mut self, channel: u16) {
        if !self.credited.contains(&channel) {
            self.credited.push(channel);
        }
    }

    /// The channels whose shared credit has grown, and the queues to serve after them.
    pub(super) fn take_credited(&mut self) -> (Vec<u16>, Vec<Arc<Queue>>) {
        (std::mem::take(&mut self.credited), std::mem::take(&mut self.unserved))
    }

    /// What is to be settled; [`Self::give_back`] returns the lists for reuse.
    pub(super) fn take(&mut self) -> Vec<(Arc<Queue>, Settle, Vec<Held>)> {
        std::mem::take(&mut self.runs)
    }

    pub(super) fn give_back(&mut self, mut runs: Vec<(Arc<Queue>, Settle, Vec<Held>)>) {
        for (_, _, mut list) in runs.drain(..) {
            list.clear();
            if self.spare.len() < SPARE_MAX && list.capacity() <= SPARE_CAPACITY_MAX {
                self.spare.push(list);
            }
        }
        if self.runs.is_empty() {
            self.runs = runs;
        }
    }
}

const SPARE_MAX: usize = 2;
const SPARE_CAPACITY_MAX: usize = 512;
