//! Random verbs on a queue and on a model of it that is too simple to be wrong: one list that is
//! searched from the front.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::broker::{
    connections::ConnectionId,
    consumer::{Batch, ConsumerId, ConsumerOptions, Handed, Outlet},
    value::Table,
};

struct Nobody;

impl Outlet for Nobody {
    fn deliver(&self, _: u64, _: &Batch<'_>) -> Handed {
        Handed::default()
    }
    fn cancelled(&self, _: u64) {}
    fn flush(&self) {}
}

#[derive(Clone, Debug)]
enum Op {
    Push { priority: u8, ttl_ms: Option<u8>, bytes: u8 },
    Get { no_ack: bool },
    Settle { nth: u8, how: u8 },
    Wait(u8),
    Purge,
    Consume { no_ack: bool, prefetch: u8 },
    Cancel,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..5u8, prop::option::weighted(0.4, 0..30u8), 0..20u8)
            .prop_map(|(priority, ttl_ms, bytes)| Op::Push { priority, ttl_ms, bytes }),
        3 => any::<bool>().prop_map(|no_ack| Op::Get { no_ack }),
        4 => (any::<u8>(), 0..4u8).prop_map(|(nth, how)| Op::Settle { nth, how }),
        3 => (0..20u8).prop_map(Op::Wait),
        1 => Just(Op::Purge),
        2 => (any::<bool>(), 0..4u8).prop_map(|(no_ack, prefetch)| Op::Consume { no_ack, prefetch }),
        1 => Just(Op::Cancel),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    let overflow =
        prop_oneof![Just(Overflow::DropHead), Just(Overflow::RejectPublish), Just(Overflow::RejectPublishDlx)];
    (
        prop::option::weighted(0.3, 0..40u64),
        prop::option::weighted(0.4, 0..6u64),
        prop::option::weighted(0.3, 0..60u64),
        overflow,
        prop::option::weighted(0.4, 0..3u64),
    )
        .prop_map(|(message_ttl_ms, max_length, max_length_bytes, overflow, delivery_limit)| Limits {
            message_ttl_ms,
            max_length,
            max_length_bytes,
            overflow,
            delivery_limit,
            ..Limits::default()
        })
}

/// What the model knows of a message.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    seq: u64,
    priority: u8,
    bytes: u64,
    deadline: Time,
    delivery_count: u32,
    redelivered: bool,
}

struct Model {
    priority_max: u8,
    limits: Limits,
    /// In delivery order.
    ready: Vec<Known>,
    /// With whether the consumer has it.
    unsettled: Vec<(Known, bool)>,
    consumer: Option<(bool, u8)>,
    next_seq: u64,
    now: Time,
    /// Seqs handed out, in order.
    delivered: Vec<u64>,
    /// What left and why.
    dead: Vec<(u64, Reason)>,
    gone: u64,
}

impl Model {
    fn put(&mut self, known: Known) {
        let place = |known: &Known| (std::cmp::Reverse(known.priority), known.seq);
        let at = self.ready.partition_point(|other| place(other) < place(&known));
        self.ready.insert(at, known);
    }

    fn is_too_long(&self, more: u64) -> bool {
        let bytes: u64 = self.ready.iter().map(|known| known.bytes).sum();
        self.limits.max_length.is_some_and(|max| self.ready.len() as u64 + more > max)
            || self.limits.max_length_bytes.is_some_and(|max| bytes + more > max)
    }

    fn push(&mut self, priority: u8, ttl_ms: Option<u64>, bytes: u64) {
        if self.limits.overflow != Overflow::DropHead && self.is_too_long(1) {
            self.dispatch();
            if self.is_too_long(1) {
                if self.limits.overflow == Overflow::RejectPublishDlx {
                    self.dead.push((0, Reason::MaxLen));
                }
                return;
            }
        }
        let ttl_ms = ttl_ms.into_iter().chain(self.limits.message_ttl_ms).min();
        let deadline = ttl_ms.map_or(Time::NEVER, |ms| self.now.after_ms(ms));
        let priority = priority.min(self.priority_max);
        let seq = self.next_seq;
        self.next_seq += 1;
        self.put(Known { seq, priority, bytes, deadline, delivery_count: 0, redelivered: false });
        if self.limits.overflow == Overflow::DropHead && self.is_too_long(0) {
            self.dispatch();
            while self.is_too_long(0) && !self.ready.is_empty() {
                let dropped = self.ready.remove(0);
                self.dead.push((dropped.seq, Reason::MaxLen));
            }
        }
    }

    fn dispatch(&mut self) {
        while let Some((no_ack, prefetch)) = self.consumer
            && !self.ready.is_empty()
        {
            let holds = self.unsettled.iter().filter(|(_, is_consumers)| *is_consumers).count();
            if !no_ack && prefetch != 0 && holds >= usize::from(prefetch) {
                return;
            }
            let known = self.ready.remove(0);
            self.delivered.push(known.seq);
            if no_ack {
                self.gone += 1;
            } else {
                self.unsettled.push((known, true));
            }
        }
    }

    fn expire(&mut self) {
        let now = self.now;
        let (expired, kept) = self.ready.drain(..).partition(|known: &Known| known.deadline <= now);
        self.ready = kept;
        self.dead.extend::<Vec<_>>(expired.into_iter().map(|known| (known.seq, Reason::Expired)).collect());
    }
}

struct Pair {
    model: Model,
    machine: Machine,
    effects: Effects,
    delivered: Vec<u64>,
    held: Vec<Held>,
    consumers: u64,
}

impl Pair {
    fn new(priority_max: u8, limits: Limits) -> Self {
        let now = Time(1_000);
        let machine = Machine::new(priority_max, limits.clone(), now);
        let model = Model {
            priority_max,
            limits,
            ready: Vec::new(),
            unsettled: Vec::new(),
            consumer: None,
            next_seq: 1,
            now,
            delivered: Vec::new(),
            dead: Vec::new(),
            gone: 0,
        };
        let effects = Effects::default();
        Self { model, machine, effects, delivered: Vec::new(), held: Vec::new(), consumers: 0 }
    }

    fn run(&mut self, op: &Op) {
        let Self { model, machine, effects, .. } = self;
        match *op {
            Op::Push { priority, ttl_ms, bytes } => {
                let mut message = Message::build("", b"q", b"", (0, 0), &vec![0; bytes.into()]);
                message.traits.priority = priority;
                message.traits.ttl = ttl_ms.map(u64::from).into();
                machine.push(message, model.now, effects);
                model.push(priority, ttl_ms.map(u64::from), bytes.into());
            }
            Op::Get { no_ack } => {
                let got = machine.get(no_ack, model.now, effects);
                model.expire();
                let expected = (!model.ready.is_empty()).then(|| model.ready.remove(0));
                // A get expires only what stands before its message; the rest is due anyway.
                machine.expire(model.now, usize::MAX, effects);
                assert_eq!(got.is_some(), expected.is_some());
                if let (Some(got), Some(known)) = (got, expected) {
                    assert_eq!((got.redelivered, got.delivery_count), (known.redelivered, known.delivery_count));
                    match got.held {
                        Some(held) => {
                            assert_eq!(held.seq, known.seq);
                            self.held.push(held);
                            model.unsettled.push((known, false));
                        }
                        None => model.gone += 1,
                    }
                }
            }
            Op::Settle { nth, how } => {
                if self.held.is_empty() {
                    return;
                }
                let held = self.held.remove(usize::from(nth) % self.held.len());
                let at = model.unsettled.iter().position(|(known, _)| known.seq == held.seq).unwrap();
                let (mut known, _) = model.unsettled.remove(at);
                let how = [Settle::Accepted, Settle::Requeued, Settle::Returned, Settle::Rejected][usize::from(how)];
                assert!(machine.settle(held, how, Time(0), effects));
                assert!(!machine.settle(held, how, Time(0), effects), "a delivery is settled once");
                match how {
                    Settle::Accepted => model.gone += 1,
                    Settle::Returned => model.put(known),
                    Settle::Rejected => model.dead.push((known.seq, Reason::Rejected)),
                    Settle::Requeued => {
                        known.delivery_count += 1;
                        known.redelivered = true;
                        let is_over = |limit| u64::from(known.delivery_count) > limit;
                        if model.limits.delivery_limit.is_some_and(is_over) {
                            model.dead.push((known.seq, Reason::DeliveryLimit));
                        } else {
                            model.put(known);
                        }
                    }
                }
                // What came back too late expires before it is delivered, as it does at the next
                // tick; in which order a delivery would find that out is not the model's business.
                model.expire();
                machine.expire(model.now, usize::MAX, effects);
            }
            Op::Wait(ms) => {
                model.now = model.now.after_ms(ms.into());
                model.expire();
                while machine.expire(model.now, 2, effects) {}
            }
            Op::Purge => {
                model.gone += model.ready.len() as u64;
                let purged = machine.purge(usize::MAX, effects);
                assert_eq!(purged, model.ready.len());
                model.ready.clear();
            }
            Op::Consume { no_ack, prefetch } => {
                if model.consumer.is_none() {
                    self.consumers += 1;
                    let options = ConsumerOptions {
                        tag: "c".into(),
                        no_ack,
                        exclusive: false,
                        priority: 0,
                        prefetch: prefetch.into(),
                        declared_prefetch: prefetch.into(),
                        shared_credit: None,
                        selector: None,
                        is_sole: false,
                        arguments: Table::new(),
                        outlet: Arc::new(Nobody),
                        key: 0,
                        connection: ConnectionId(1),
                        channel: 1,
                    };
                    machine.consumers.add(ConsumerId(self.consumers), options, None);
                    model.consumer = Some((no_ack, prefetch));
                }
            }
            Op::Cancel => {
                if let Some(slot) = machine.consumers.slot_of(ConsumerId(self.consumers)) {
                    machine.consumers.close(slot);
                    model.consumer = None;
                    model.unsettled.iter_mut().for_each(|(_, is_consumers)| *is_consumers = false);
                }
            }
        }
        self.dispatch();
    }

    fn dispatch(&mut self) {
        let Self { model, machine, effects, .. } = self;
        loop {
            machine.dispatch(model.now, effects);
            for slot in machine.take_assigned() {
                let Some(consumer) = machine.consumers.get_mut(slot) else { continue };
                for assigned in std::mem::take(&mut consumer.assigned) {
                    match assigned {
                        Assigned::Unsettled(held) | Assigned::Opening(held) => {
                            self.delivered.push(held.seq);
                            self.held.push(held);
                        }
                        // What needs no settling is not told apart by its seq any more.
                        Assigned::Owned { .. } => self.delivered.push(0),
                        Assigned::Stream { .. } => unreachable!("it is no stream"),
                    }
                }
            }
            if !machine.has_more() {
                break;
            }
        }
        model.dispatch();
    }

    fn check(&mut self) {
        let Self { model, machine, .. } = self;
        let ready: Vec<Known> = machine
            .ready
            .iter()
            .map(|entry| Known {
                seq: entry.seq,
                priority: entry.message.traits.priority.min(model.priority_max),
                bytes: entry.message.body_bytes(),
                deadline: entry.deadline,
                delivery_count: entry.delivery_count,
                redelivered: entry.redelivered,
            })
            .collect();
        assert_eq!(ready, model.ready);
        assert_eq!(machine.ready_count(), model.ready.len() as u64);
        assert_eq!(machine.ready.bytes(), model.ready.iter().map(|known| known.bytes).sum::<u64>());
        assert_eq!(machine.unsettled_count(), model.unsettled.len() as u64);
        assert_eq!(machine.unsettled.bytes(), model.unsettled.iter().map(|(known, _)| known.bytes).sum::<u64>());
        let delivered: Vec<u64> = self
            .delivered
            .iter()
            .zip(&model.delivered)
            .map(|(&seq, &known)| if seq == 0 { known } else { seq })
            .collect();
        assert_eq!(delivered, model.delivered);
        assert_eq!(self.delivered.len(), model.delivered.len());
        let sorted = |mut dead: Vec<(u64, Reason)>| {
            dead.sort_by_key(|(seq, reason)| (*seq, reason.as_str()));
            dead
        };
        let dead = self.effects.dead.iter().map(|dead| (dead.entry.seq, dead.reason)).collect();
        assert_eq!(sorted(dead), sorted(model.dead.clone()));
        // Every message is counted once: waiting, held, dead or gone.
        let died = model.dead.iter().filter(|(seq, _)| *seq != 0).count() as u64;
        let held = (model.ready.len() + model.unsettled.len()) as u64;
        assert_eq!(machine.counters.published, held + died + model.gone);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn a_queue_does_what_a_simple_list_does(
        priority_max in 0..4u8,
        limits in limits(),
        ops in prop::collection::vec(op(), 1..80),
    ) {
        let mut pair = Pair::new(priority_max, limits);
        for op in &ops {
            pair.run(op);
            pair.check();
        }
    }
}

#[test]
fn a_failed_message_waits_its_delay_before_it_is_ready_again() {
    let delay = super::super::retries::RetryDelay { min_ms: 100, max_ms: None };
    let limits = Limits { retry_delay: Some(delay), ..Limits::default() };
    let mut machine = Machine::new(0, limits, Time(0));
    let mut effects = Effects::default();
    machine.push(Message::build("", b"q", b"", (0, 0), b"body"), Time(0), &mut effects);
    let held = machine.get(false, Time(0), &mut effects).and_then(|got| got.held).unwrap();
    assert!(machine.settle(held, Settle::Requeued, Time(5), &mut effects));
    assert_eq!((machine.ready_count(), machine.unsettled_count()), (0, 1));
    assert!(!machine.retry(Time(104), 10, &mut effects));
    assert!(machine.get(false, Time(104), &mut effects).is_none());
    assert!(!machine.retry(Time(105), 10, &mut effects));
    assert!(machine.get(false, Time(105), &mut effects).is_some_and(|got| got.redelivered));
}
