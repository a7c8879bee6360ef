//! Queues, exchanges and consumers of a null broker, and the routes through them.

use super::{
    failure::Failure,
    wire::{Encode, FRAME_HEAD_BYTES, id},
};
use bytes::BufMut;
use std::collections::HashMap;

/// The last route of a publisher; the next message usually goes the same way.
#[derive(Default)]
pub(super) struct Route {
    /// Exchange and routing key as they stand in the publish.
    pub(super) key: Vec<u8>,
    pub(super) generation: u64,
    pub(super) targets: Vec<RouteTarget>,
    /// A queue of it has several consumers: choose anew at each read.
    pub(super) rotates: bool,
}

pub(super) struct RouteTarget {
    pub(super) queue: usize,
    pub(super) consumer: usize,
    pub(super) peer: usize,
    pub(super) channel: u16,
    /// The whole deliver frame, with the tag to be filled in.
    pub(super) deliver: Vec<u8>,
    pub(super) tag_at: usize,
}

/// Invariant: whatever a route was made from changes together with `generation`.
#[derive(Default)]
pub(super) struct Topology {
    pub(super) names: HashMap<Vec<u8>, usize>,
    pub(super) queues: Vec<Queue>,
    pub(super) free: Vec<usize>,
    pub(super) exchanges: HashMap<Vec<u8>, Exchange>,
    pub(super) generation: u64,
}

#[derive(Default)]
pub(super) struct Exchange {
    /// Keys count; otherwise each message goes everywhere.
    pub(super) is_keyed: bool,
    pub(super) bound: Vec<(Vec<u8>, usize)>,
}

#[derive(Default)]
pub(super) struct Queue {
    pub(super) consumers: Vec<QueueConsumer>,
    pub(super) next: usize,
}

pub(super) struct QueueConsumer {
    pub(super) peer: usize,
    pub(super) channel: u16,
    pub(super) name: Vec<u8>,
    pub(super) tag: u64,
}

impl Topology {
    pub(super) fn declare(&mut self, name: &[u8]) -> usize {
        if let Some(queue) = self.names.get(name) {
            return *queue;
        }
        let queue = self.free.pop().unwrap_or_else(|| {
            self.queues.push(Queue::default());
            self.queues.len() - 1
        });
        self.names.insert(name.to_vec(), queue);
        self.generation += 1;
        queue
    }

    pub(super) fn delete(&mut self, name: &[u8]) {
        let Some(queue) = self.names.remove(name) else {
            return;
        };
        self.queues[queue] = Queue::default();
        for exchange in self.exchanges.values_mut() {
            exchange.bound.retain(|(_, other)| *other != queue);
        }
        self.free.push(queue);
        self.generation += 1;
    }

    pub(super) fn remove_consumers(&mut self, peer: usize, channel: Option<u16>) {
        for queue in &mut self.queues {
            let before = queue.consumers.len();
            queue
                .consumers
                .retain(|consumer| consumer.peer != peer || channel.is_some_and(|channel| channel != consumer.channel));
            if queue.consumers.len() != before {
                self.generation += 1;
            }
        }
    }

    /// The consumers that a message with this exchange and key reaches now.
    pub(super) fn route(&mut self, key: &[u8]) -> Result<Route, Failure> {
        let short = |text: &mut &[u8]| -> Option<Vec<u8>> {
            let (bytes, rest) = text.split_first()?;
            let (taken, rest) = rest.split_at_checked(usize::from(*bytes))?;
            *text = rest;
            Some(taken.to_vec())
        };
        let mut text = key;
        let (Some(exchange), Some(name)) = (short(&mut text), short(&mut text)) else {
            return Err(Failure::protocol("a publish without exchange and key"));
        };
        let queues: Vec<usize> = if exchange.is_empty() {
            self.names.get(&name).copied().into_iter().collect()
        } else if let Some(exchange) = self.exchanges.get(&exchange) {
            let reached = exchange.bound.iter().filter(|(key, _)| !exchange.is_keyed || *key == name);
            reached.map(|(_, queue)| *queue).collect()
        } else {
            Vec::new()
        };
        let mut route = Route { key: key.to_vec(), generation: self.generation, ..Route::default() };
        for queue in queues {
            let state = &mut self.queues[queue];
            if state.consumers.is_empty() {
                continue;
            }
            route.rotates |= state.consumers.len() > 1;
            state.next = (state.next + 1) % state.consumers.len();
            let consumer = &state.consumers[state.next];
            let mut deliver = Vec::new();
            deliver.method(consumer.channel, id::BASIC_DELIVER, |out| {
                out.put_short(&consumer.name);
                out.put_u64(0);
                out.push(0);
                out.extend_from_slice(key);
            });
            route.targets.push(RouteTarget {
                queue,
                consumer: state.next,
                peer: consumer.peer,
                channel: consumer.channel,
                deliver,
                tag_at: FRAME_HEAD_BYTES + 4 + 1 + consumer.name.len(),
            });
        }
        Ok(route)
    }
}
