//! Who gets which message: rule by rule, and random verbs whose outcome is checked against a plain list.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use proptest::prelude::*;

use super::*;
use crate::broker::{
    connections::ConnectionId,
    consumer::{Assigned, Batch, ConsumerId, ConsumerOptions, Handed, Held, Outlet, Settle},
    queue::machine::{Effects, Limits, Machine},
    selection::Group,
    selector::{Conversion, Value},
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

/// The properties of a message are its colour, its group (zero for none), and whether it is the last.
struct Bytes;

impl Fields for Bytes {
    fn field<'m>(&self, subject: Subject<'m>, name: &str) -> Value<'m> {
        match name {
            "colour" => Value::Long(subject.message.properties()[0].into()),
            _ => Value::Null,
        }
    }

    fn group<'m>(&self, message: &'m Message) -> Option<Group<'m>> {
        let [_, group @ .., last] = message.properties() else { return None };
        Some(Group { name: group, is_last: *last != 0 })
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Said {
    colour: u8,
    group: u8,
    is_last: bool,
    priority: u8,
    ttl_ms: Option<u64>,
}

impl Said {
    fn message(self) -> Message {
        let properties = [self.colour, self.group, self.is_last.into()];
        let mut message = Message::build("", b"q", &properties, (0, 0), b"body");
        message.traits.has_group = self.group != 0;
        message.traits.priority = self.priority;
        message.traits.ttl = self.ttl_ms.into();
        message
    }
}

fn colour(colour: u8) -> Said {
    Said { colour, ..Said::default() }
}

fn group(group: u8) -> Said {
    Said { group, ..Said::default() }
}

/// A queue and what its consumers hold.
struct Bench {
    machine: Machine,
    effects: Effects,
    now: Time,
    held: Vec<(ConsumerId, Held)>,
}

impl Bench {
    fn new(limits: Limits, priority_max: u8, mode: GroupMode) -> Self {
        let machine = Machine::new(priority_max, Limits { group_mode: mode, ..limits }, Time(1));
        Self { machine, effects: Effects::default(), now: Time(1), held: Vec::new() }
    }

    fn plain() -> Self {
        Self::new(Limits::default(), 0, GroupMode::Consumer)
    }

    /// Takes messages in; seqs begin with 1.
    fn publish(&mut self, messages: &[Said]) {
        for said in messages {
            let message = said.message();
            if message.traits.has_group {
                self.machine.select_groups(|| Arc::new(Bytes));
            }
            self.machine.push(message, self.now, &mut self.effects);
        }
    }

    fn consume(&mut self, id: u64, selector: Option<u8>, prefetch: u32) {
        self.consume_as(id, selector, prefetch, false, 0);
    }

    fn consume_as(&mut self, id: u64, selector: Option<u8>, prefetch: u32, no_ack: bool, priority: i32) {
        let parse = |colour| Arc::new(Selector::parse(&format!("colour = {colour}"), Conversion::None).unwrap());
        let options = ConsumerOptions {
            tag: "c".into(),
            no_ack,
            exclusive: false,
            priority,
            prefetch,
            declared_prefetch: prefetch,
            shared_credit: None,
            selector: selector.map(parse),
            is_sole: false,
            arguments: Table::new(),
            outlet: Arc::new(Nobody),
            key: 0,
            connection: ConnectionId(1),
            channel: 1,
        };
        self.machine.open_consumer(ConsumerId(id), options, None, || Arc::new(Bytes));
        self.machine.elect();
    }

    fn close(&mut self, id: u64) {
        let slot = self.machine.consumers.slot_of(ConsumerId(id)).unwrap();
        self.machine.close_consumer(slot);
        self.machine.elect();
    }

    /// What goes to whom: by consumer, each with whether it opens its group. Zero where it need not be
    /// settled.
    fn dispatch(&mut self) -> BTreeMap<u64, Vec<(u64, bool)>> {
        let mut seen: BTreeMap<u64, Vec<(u64, bool)>> = BTreeMap::new();
        loop {
            self.machine.begin_look();
            self.machine.dispatch(self.now, &mut self.effects);
            for slot in self.machine.take_assigned() {
                let consumer = self.machine.consumers.get_mut(slot).unwrap();
                let id = consumer.id;
                for assigned in std::mem::take(&mut consumer.assigned) {
                    let opens = matches!(assigned, Assigned::Opening(_) | Assigned::Owned { opens_group: true, .. });
                    let seq = match assigned {
                        Assigned::Unsettled(held) | Assigned::Opening(held) => {
                            self.held.push((id, held));
                            held.seq
                        }
                        _ => 0,
                    };
                    seen.entry(id.0).or_default().push((seq, opens));
                }
            }
            if !self.machine.has_more() && !self.machine.is_looking() {
                return seen;
            }
        }
    }

    /// The same without the groups.
    fn seqs(&mut self) -> BTreeMap<u64, Vec<u64>> {
        let seqs = |(id, seen): (u64, Vec<(u64, bool)>)| (id, seen.into_iter().map(|(seq, _)| seq).collect());
        self.dispatch().into_iter().map(seqs).collect()
    }

    fn settle(&mut self, seq: u64, how: Settle) {
        let at = self.held.iter().position(|(_, held)| held.seq == seq).unwrap();
        let (_, held) = self.held.remove(at);
        match how {
            Settle::Accepted => self.machine.accept(&[held], &mut self.effects),
            how => _ = self.machine.settle(held, how, self.now, &mut self.effects),
        }
    }

    /// Settles all that a consumer holds.
    fn settle_all(&mut self, id: u64, how: Settle) {
        let seqs: Vec<u64> = self.held.iter().filter(|(of, _)| of.0 == id).map(|(_, held)| held.seq).collect();
        seqs.into_iter().rev().for_each(|seq| self.settle(seq, how));
    }
}

fn seen<const N: usize>(all: [(u64, &[u64]); N]) -> BTreeMap<u64, Vec<u64>> {
    all.into_iter().map(|(id, seqs)| (id, seqs.to_vec())).collect()
}

#[test]
fn a_selective_consumer_finds_what_it_wants_behind_what_it_does_not() {
    let mut bench = Bench::plain();
    bench.publish(&[colour(1), colour(1), colour(2), colour(1), colour(2)]);
    bench.consume(1, Some(2), 0);
    assert_eq!(bench.seqs(), seen([(1, &[3, 5])]));
    assert_eq!(bench.machine.ready.len(), 3);
    bench.publish(&[colour(1), colour(2)]);
    assert_eq!(bench.seqs(), seen([(1, &[7])]));
}

#[test]
fn what_nobody_wanted_goes_in_its_order_to_whoever_comes() {
    let mut bench = Bench::plain();
    bench.consume(1, Some(2), 0);
    bench.publish(&[colour(1), colour(2), colour(3), colour(1)]);
    assert_eq!(bench.seqs(), seen([(1, &[2])]));
    bench.consume(2, None, 0);
    assert_eq!(bench.seqs(), seen([(2, &[1, 3, 4])]));
}

#[test]
fn consumers_that_want_the_same_take_turns() {
    let mut bench = Bench::plain();
    bench.consume(1, Some(2), 0);
    bench.consume(2, Some(2), 0);
    bench.publish(&[colour(2), colour(1), colour(2), colour(2)]);
    assert_eq!(bench.seqs(), seen([(1, &[1, 4]), (2, &[3])]));
}

#[test]
fn a_consumer_of_higher_priority_gets_what_it_wants_first() {
    let mut bench = Bench::plain();
    bench.consume_as(1, None, 2, false, 0);
    bench.consume_as(2, Some(2), 2, false, 9);
    bench.publish(&[colour(1), colour(2), colour(2), colour(2)]);
    assert_eq!(bench.seqs(), seen([(1, &[1, 4]), (2, &[2, 3])]));
}

#[test]
fn what_comes_back_is_looked_at_again_before_what_is_behind_it() {
    let mut bench = Bench::plain();
    bench.publish(&[colour(1), colour(2), colour(2), colour(2)]);
    bench.consume(1, Some(2), 2);
    assert_eq!(bench.seqs(), seen([(1, &[2, 3])]));
    bench.settle(2, Settle::Requeued);
    assert_eq!(bench.seqs(), seen([(1, &[2])]));
    bench.settle(2, Settle::Accepted);
    assert_eq!(bench.seqs(), seen([(1, &[4])]));
    bench.settle_all(1, Settle::Returned);
    bench.consume(2, Some(1), 0);
    bench.close(1);
    assert_eq!(bench.seqs(), seen([(2, &[1])]));
    bench.consume(3, None, 0);
    assert_eq!(bench.seqs(), seen([(3, &[3, 4])]));
}

#[test]
fn every_lane_looks_at_a_message_once() {
    let mut bench = Bench::plain();
    bench.consume(1, Some(2), 0);
    bench.publish(&[colour(1); 10_000]);
    assert!(bench.seqs().is_empty());
    for _ in 0..100 {
        bench.publish(&[colour(2)]);
        bench.machine.begin_look();
        bench.machine.dispatch(bench.now, &mut bench.effects);
    }
    assert!(!bench.machine.is_looking());
    assert_eq!(bench.seqs().values().map(Vec::len).sum::<usize>(), 100);
}

#[test]
fn a_long_look_is_cut_and_goes_on() {
    let mut bench = Bench::plain();
    bench.publish(&[colour(1); LOOKED_AT_MAX + 1]);
    bench.publish(&[colour(2)]);
    bench.consume(1, Some(2), 0);
    bench.machine.begin_look();
    bench.machine.dispatch(bench.now, &mut bench.effects);
    assert!(bench.machine.is_looking() && !bench.machine.has_assigned());
    assert_eq!(bench.seqs(), seen([(1, &[LOOKED_AT_MAX as u64 + 2])]));
}

#[test]
fn what_nobody_wants_is_dropped_first_when_the_queue_is_full_and_what_somebody_wants_is_taken() {
    let limits = Limits { max_length: Some(3), ..Limits::default() };
    let mut bench = Bench::new(limits, 0, GroupMode::Consumer);
    bench.consume(1, Some(2), 0);
    bench.publish(&[colour(1), colour(1), colour(1), colour(2)]);
    assert_eq!((bench.seqs(), bench.machine.counters.dropped), (seen([(1, &[4])]), 0));
    bench.publish(&[colour(3)]);
    assert_eq!((bench.machine.ready.len(), bench.machine.counters.dropped), (3, 1));
    bench.consume(2, None, 0);
    assert_eq!(bench.seqs(), seen([(2, &[2, 3, 5])]));
}

#[test]
fn what_has_expired_is_not_delivered_wherever_it_is() {
    let mut bench = Bench::plain();
    let short = |colour| Said { ttl_ms: Some(5), ..self::colour(colour) };
    bench.publish(&[short(1), colour(1), short(2), colour(2)]);
    bench.now = Time(100);
    bench.consume(1, Some(2), 0);
    assert_eq!(bench.seqs(), seen([(1, &[4])]));
    assert_eq!((bench.machine.counters.expired, bench.effects.dead.len(), bench.machine.ready.len()), (2, 2, 1));
}

#[test]
fn of_what_a_selective_consumer_wants_the_larger_priority_comes_first() {
    let mut bench = Bench::new(Limits::default(), 5, GroupMode::Consumer);
    let of = |colour, priority| Said { priority, ..self::colour(colour) };
    bench.consume(1, Some(2), 1);
    bench.publish(&[of(2, 0), of(1, 5), of(2, 3), of(2, 5)]);
    assert_eq!(bench.seqs(), seen([(1, &[4])]));
    bench.publish(&[of(2, 5)]);
    for next in [5, 3, 1] {
        let last = bench.held[0].1.seq;
        bench.settle(last, Settle::Accepted);
        assert_eq!(bench.seqs(), seen([(1, &[next])]));
    }
}

#[test]
fn a_single_active_consumer_leaves_what_it_does_not_want() {
    let mut bench = Bench::plain();
    bench.machine.has_single_active_consumer = true;
    bench.consume(1, Some(2), 0);
    bench.consume(2, None, 0);
    bench.publish(&[colour(1), colour(2)]);
    assert_eq!(bench.seqs(), seen([(1, &[2])]));
    bench.close(1);
    assert_eq!(bench.seqs(), seen([(2, &[1])]));
}

#[test]
fn without_selective_consumers_and_groups_a_queue_forgets_that_it_had_them() {
    let mut bench = Bench::plain();
    bench.consume(1, Some(2), 0);
    bench.publish(&[colour(1)]);
    bench.close(1);
    assert!(bench.machine.selected_level().is_none());
    bench.consume(2, None, 0);
    assert_eq!(bench.seqs(), seen([(2, &[1])]));
    bench.publish(&[group(1)]);
    assert!(bench.machine.selected_level().is_some());
    assert_eq!(bench.seqs(), seen([(2, &[2])]));
    bench.settle_all(2, Settle::Accepted);
    bench.close(2);
    assert!(bench.machine.selected_level().is_none());
}

#[test]
fn a_group_stays_with_the_consumer_of_its_first_message_and_groups_are_shared_out() {
    let mut bench = Bench::plain();
    bench.consume(1, None, 0);
    bench.consume(2, None, 0);
    bench.publish(&[group(1), group(2), group(1), group(2), group(2), group(3)]);
    let seen = bench.dispatch();
    assert_eq!(seen[&1], [(1, true), (3, false), (6, true)]);
    assert_eq!(seen[&2], [(2, true), (4, false), (5, false)]);
}

#[test]
fn messages_of_a_group_whose_owner_has_no_credit_wait_and_hold_nobody_up() {
    let mut bench = Bench::plain();
    bench.consume(1, None, 1);
    bench.consume(2, None, 0);
    bench.publish(&[group(1), group(1), group(1), group(2), colour(0)]);
    assert_eq!(bench.seqs(), seen([(1, &[1]), (2, &[4, 5])]));
    bench.settle(1, Settle::Accepted);
    assert_eq!(bench.seqs(), seen([(1, &[2])]));
    bench.settle(2, Settle::Requeued);
    assert_eq!(bench.seqs(), seen([(1, &[2])]), "in its order");
    bench.settle(2, Settle::Accepted);
    assert_eq!(bench.seqs(), seen([(1, &[3])]));
}

#[test]
fn the_groups_of_a_closed_consumer_go_to_others_in_order() {
    let mut bench = Bench::plain();
    bench.consume(1, None, 2);
    bench.consume(2, None, 0);
    bench.publish(&[group(1), group(1), group(1), group(1)]);
    assert_eq!(bench.seqs(), seen([(1, &[1, 2])]));
    bench.close(1);
    bench.settle_all(1, Settle::Requeued);
    let seen = bench.dispatch();
    assert_eq!(seen[&2], [(1, true), (2, false), (3, false), (4, false)]);
}

#[test]
fn the_last_message_of_a_group_ends_its_ownership() {
    let mut bench = Bench::plain();
    bench.consume(1, None, 1);
    bench.consume(2, None, 0);
    bench.publish(&[group(1), Said { is_last: true, ..group(1) }, group(1)]);
    assert_eq!(bench.seqs(), seen([(1, &[1])]));
    bench.settle(1, Settle::Accepted);
    let seen = bench.dispatch();
    assert_eq!((&seen[&1][..], &seen[&2][..]), (&[(2, false)][..], &[(3, true)][..]));
}

#[test]
fn a_group_may_stay_with_its_consumer_only_while_something_of_it_is_unsettled() {
    let mut bench = Bench::new(Limits::default(), 0, GroupMode::Unsettled);
    bench.consume(1, None, 1);
    bench.consume(2, None, 1);
    bench.publish(&[group(1), group(1), group(1)]);
    assert_eq!(bench.seqs(), seen([(1, &[1])]));
    bench.settle(1, Settle::Accepted);
    assert_eq!(bench.seqs(), seen([(2, &[2])]), "it is anybody's");
    bench.close(2);
    bench.consume(3, None, 1);
    assert!(bench.seqs().is_empty(), "what a closed consumer holds holds its group");
    bench.settle(2, Settle::Requeued);
    assert_eq!(bench.seqs().values().flatten().collect::<Vec<_>>(), [&2]);
}

#[test]
fn groups_that_are_not_used_are_forgotten() {
    let mut groups = Groups::new(GroupMode::Consumer);
    for number in 0..200_000_u64 {
        let name = Name::from(number.to_be_bytes().as_slice());
        groups.take(&name, Key::new(0, number), 0, false);
        groups.settle(&name);
    }
    let owned = (0..200_000_u64).filter(|number| groups.owner(&number.to_be_bytes()).is_some()).count();
    assert!((32_000..=70_000).contains(&owned), "{owned}");
    assert!(groups.owner(&199_999_u64.to_be_bytes()).is_some());
}

#[test]
fn ten_thousand_groups_and_a_slow_owner_cost_no_more_than_their_messages() {
    let mut bench = Bench::plain();
    bench.consume(1, None, 1);
    bench.consume(2, None, 0);
    bench.publish(&[group(1)]);
    assert_eq!(bench.seqs(), seen([(1, &[1])]));
    bench.publish(&[group(1); 20_000]);
    assert!(bench.seqs().is_empty());
    for _ in 0..20_000 {
        let seq = bench.held[0].1.seq;
        bench.settle(seq, Settle::Accepted);
        bench.machine.begin_look();
        bench.machine.dispatch(bench.now, &mut bench.effects);
        assert!(!bench.machine.is_looking());
        bench.dispatch();
        let slot = bench.machine.consumers.slot_of(ConsumerId(1)).unwrap();
        let assigned = std::mem::take(&mut bench.machine.consumers.get_mut(slot).unwrap().assigned);
        assert!(assigned.is_empty());
    }
    assert_eq!(bench.held[0].1.seq, 20_001);
}

#[test]
fn ten_thousand_groups_are_shared_out_and_each_is_delivered_in_order() {
    let mut bench = Bench::plain();
    (1..=10).for_each(|id| bench.consume(id, None, 20));
    bench.machine.select_groups(|| Arc::new(Bytes));
    const GROUPS: u64 = 10_000;
    for number in 0..5 * GROUPS {
        let [.., high, low] = (number * 7_919 % GROUPS).to_be_bytes();
        let mut message = Message::build("", b"q", &[0, high, low, 0], (0, 0), b"body");
        message.traits.has_group = true;
        bench.machine.push(message, bench.now, &mut bench.effects);
    }
    let mut of_groups: HashMap<u64, (u64, u64)> = HashMap::new();
    let mut count = 0;
    loop {
        let seen = bench.dispatch();
        for (id, all) in &seen {
            for (seq, opens) in all {
                count += 1;
                let group = (seq - 1) * 7_919 % GROUPS;
                let (owner, last) = of_groups.entry(group).or_insert((*id, 0));
                assert_eq!((*owner, *opens), (*id, *last == 0), "group {group}");
                assert!(*last < *seq, "group {group}");
                *last = *seq;
            }
        }
        if seen.is_empty() {
            break;
        }
        let held: Vec<Held> = bench.held.drain(..).map(|(_, held)| held).collect();
        bench.machine.accept(&held, &mut bench.effects);
    }
    assert_eq!(count, 5 * GROUPS);
    assert!(of_groups.values().map(|(owner, _)| owner).collect::<BTreeSet<_>>().len() == 10);
}

#[test]
fn a_quiet_group_is_not_held_up_by_the_backlog_of_a_busy_one() {
    let mut bench = Bench::new(Limits::default(), 0, GroupMode::Fair);
    bench.publish(&[group(1); 50]);
    bench.consume(1, None, 2);
    bench.consume(2, None, 2);
    assert_eq!(bench.seqs(), seen([(1, &[1, 3]), (2, &[2, 4])]), "nobody owns a group");
    bench.publish(&[group(2), colour(1), group(1)]);
    bench.settle_all(1, Settle::Accepted);
    assert_eq!(bench.seqs(), seen([(1, &[51, 52])]));
    bench.settle(51, Settle::Returned);
    bench.settle(52, Settle::Accepted);
    assert_eq!(bench.seqs(), seen([(1, &[51, 5])]), "and then the oldest, whoever's it is");
}

#[test]
fn another_mode_holds_for_what_waits_already() {
    let mut bench = Bench::new(Limits::default(), 0, GroupMode::Consumer);
    bench.consume(1, None, 1);
    bench.consume(2, Some(9), 1);
    bench.publish(&[group(1), group(1), group(2), colour(9), colour(9)]);
    assert_eq!(bench.seqs(), seen([(1, &[1]), (2, &[4])]));
    bench.machine.set_limits(Limits { group_mode: GroupMode::Fair, ..Limits::default() });
    bench.consume(3, None, 3);
    assert_eq!(bench.seqs(), seen([(3, &[2, 3, 5])]));
    bench.settle(4, Settle::Returned);
    assert_eq!(bench.seqs(), seen([(2, &[4])]), "selectors hold on");
}

#[derive(Clone, Debug)]
enum Op {
    Publish(Vec<Said>),
    Consume { selector: Option<u8>, prefetch: u8, no_ack: bool, priority: i32 },
    Close { nth: u8, how: u8 },
    Settle { nth: u8, how: u8 },
    Wait(u8),
    Purge,
}

fn op() -> impl Strategy<Value = Op> {
    let said = (0..3u8, 0..5u8, prop::bool::weighted(0.1), 0..3u8, prop::option::weighted(0.15, 1..30u64))
        .prop_map(|(colour, group, is_last, priority, ttl_ms)| Said { colour, group, is_last, priority, ttl_ms });
    prop_oneof![
        8 => prop::collection::vec(said, 1..6).prop_map(Op::Publish),
        3 => (prop::option::of(0..3u8), 0..4u8, prop::bool::weighted(0.2), 0..2i32)
            .prop_map(|(selector, prefetch, no_ack, priority)| Op::Consume { selector, prefetch, no_ack, priority }),
        2 => (any::<u8>(), 0..3u8).prop_map(|(nth, how)| Op::Close { nth, how }),
        8 => (any::<u8>(), 0..4u8).prop_map(|(nth, how)| Op::Settle { nth, how }),
        2 => (0..20u8).prop_map(Op::Wait),
        1 => Just(Op::Purge),
    ]
}

/// A consumer as the model knows it.
struct Known {
    id: u64,
    selector: Option<u8>,
    prefetch: usize,
    no_ack: bool,
}

struct Story {
    bench: Bench,
    mode: GroupMode,
    priority_max: u8,
    /// All that were published, by seq.
    said: BTreeMap<u64, Said>,
    ready: BTreeSet<u64>,
    consumers: Vec<Known>,
    owners: HashMap<u8, u64>,
    /// By group.
    unsettled: HashMap<u8, usize>,
    next: u64,
}

/// In the mode that goes by what is unsettled: its consumer has gone.
const GONE: u64 = 0;

impl Story {
    fn new(mode: GroupMode, priority_max: u8) -> Self {
        Self {
            bench: Bench::new(Limits::default(), priority_max, mode),
            mode,
            priority_max,
            said: BTreeMap::new(),
            ready: BTreeSet::new(),
            consumers: Vec::new(),
            owners: HashMap::new(),
            unsettled: HashMap::new(),
            next: 1,
        }
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Publish(messages) => {
                for said in messages {
                    let seq = self.bench.machine.next_seq();
                    self.said.insert(seq, *said);
                    self.ready.insert(seq);
                    self.bench.publish(&[*said]);
                }
            }
            &Op::Consume { selector, prefetch, no_ack, priority } => {
                let id = self.next;
                self.next += 1;
                // Without ids of what it takes the model would have to guess.
                let prefetch = if no_ack { 0 } else { prefetch };
                self.consumers.push(Known { id, selector, prefetch: prefetch.into(), no_ack });
                self.bench.consume_as(id, selector, prefetch.into(), no_ack, priority);
            }
            &Op::Close { nth, how } => {
                if self.consumers.is_empty() {
                    return;
                }
                let known = self.consumers.remove(usize::from(nth) % self.consumers.len());
                self.bench.close(known.id);
                let unsettled = &self.unsettled;
                self.owners.retain(|group, owner| {
                    let is_kept = self.mode == GroupMode::Unsettled && unsettled.get(group).is_some_and(|n| *n > 0);
                    if *owner == known.id && is_kept {
                        *owner = GONE;
                    }
                    *owner != known.id
                });
                if how > 0 {
                    let held: Vec<_> =
                        self.bench.held.iter().filter(|(id, _)| id.0 == known.id).map(|(_, held)| held.seq).collect();
                    held.into_iter().rev().for_each(|seq| self.settle(seq, how));
                }
            }
            &Op::Settle { nth, how } => {
                if self.bench.held.is_empty() {
                    return;
                }
                let seq = self.bench.held[usize::from(nth) % self.bench.held.len()].1.seq;
                self.settle(seq, how);
            }
            &Op::Wait(ms) => self.bench.now = self.bench.now.after_ms(ms.into()),
            Op::Purge => {
                self.bench.machine.purge(usize::MAX, &mut self.bench.effects);
                self.ready.clear();
            }
        }
        self.dispatch();
    }

    fn settle(&mut self, seq: u64, how: u8) {
        let how = [Settle::Accepted, Settle::Requeued, Settle::Returned, Settle::Rejected][usize::from(how)];
        self.bench.settle(seq, how);
        let group = self.said[&seq].group;
        if group != 0 {
            let unsettled = self.unsettled.get_mut(&group).unwrap();
            *unsettled -= 1;
            if *unsettled == 0 && self.mode == GroupMode::Unsettled {
                self.owners.remove(&group);
            }
        }
        if matches!(how, Settle::Requeued | Settle::Returned) {
            self.ready.insert(seq);
        }
    }

    fn key(&self, seq: u64) -> (std::cmp::Reverse<u8>, u64) {
        (std::cmp::Reverse(self.said[&seq].priority.min(self.priority_max)), seq)
    }

    fn dispatch(&mut self) {
        let before = self.bench.held.len();
        let owners_before = self.owners.clone();
        self.bench.dispatch();
        // What expired, and what went to consumers that settle nothing, is known by what is left.
        let left: BTreeSet<u64> = self.bench.machine.ready.iter().map(|entry| entry.seq).collect();
        assert!(left.is_subset(&self.ready), "nothing comes from nowhere");
        let new: Vec<(u64, u64)> = self.bench.held[before..].iter().map(|(id, held)| (id.0, held.seq)).collect();
        let mut touched = BTreeSet::new();
        let mut by_consumer: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for &(id, seq) in &new {
            let said = self.said[&seq];
            let known = self.consumers.iter().find(|known| known.id == id).unwrap();
            assert!(known.selector.is_none_or(|colour| colour == said.colour), "{seq} to {id}");
            assert!(self.ready.contains(&seq), "{seq} was ready");
            by_consumer.entry(id).or_default().push(seq);
            if said.group != 0 {
                touched.insert(said.group);
                *self.unsettled.entry(said.group).or_default() += 1;
            }
        }
        let has_no_ack = self.consumers.iter().any(|known| known.no_ack);
        for seqs in by_consumer.values() {
            let keys: Vec<_> = seqs.iter().map(|seq| self.key(*seq)).collect();
            assert!(keys.is_sorted() || !touched.is_empty(), "in order: {seqs:?}");
        }
        // Owners as the queue sees them: each group's messages go to one consumer at a time.
        for group in 1..5_u8 {
            let to: BTreeSet<u64> =
                new.iter().filter(|(_, seq)| self.said[seq].group == group).map(|(id, _)| *id).collect();
            let has_last = new.iter().any(|(_, seq)| self.said[seq].group == group && self.said[seq].is_last);
            let was = owners_before.get(&group);
            if !has_last && !has_no_ack && self.mode != GroupMode::Fair {
                assert!(to.len() <= 1, "group {group} to {to:?}");
                if let (Some(was), Some(now)) = (was, to.first()) {
                    assert_eq!(was, now, "group {group} has an owner");
                }
            }
            match self.bench.machine.group_owner(&[group]) {
                Some(id) => _ = self.owners.insert(group, id.map_or(GONE, |id| id.0)),
                None => _ = self.owners.remove(&group),
            }
            // Within a group and a priority, in order.
            for id in &to {
                let mine = new.iter().filter(|(of, seq)| of == id && self.said[seq].group == group);
                let keys: Vec<_> = mine.map(|(_, seq)| self.key(*seq)).collect();
                assert!(keys.is_sorted(), "group {group}: {keys:?}");
            }
        }
        self.ready = left;
        // Nobody goes without what it could have.
        for known in &self.consumers {
            let held = self.bench.held.iter().filter(|(id, _)| id.0 == known.id).count();
            if !known.no_ack && known.prefetch != 0 && held >= known.prefetch {
                continue;
            }
            for seq in &self.ready {
                let said = self.said[seq];
                let is_free = said.group == 0 || self.owners.get(&said.group).is_none_or(|owner| *owner == known.id);
                let is_wanted = known.selector.is_none_or(|colour| colour == said.colour);
                assert!(!is_free || !is_wanted, "{} goes without {seq}", known.id);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn everybody_gets_what_is_for_them_in_order(
        mode in 0..3_usize, priority_max in 0..3u8, ops in prop::collection::vec(op(), 1..60)
    ) {
        let mode = [GroupMode::Consumer, GroupMode::Unsettled, GroupMode::Fair][mode];
        let mut story = Story::new(mode, priority_max);
        for op in &ops {
            story.run(op);
        }
        // And in the end everything goes to whoever wants everything.
        while !story.consumers.is_empty() {
            story.run(&Op::Close { nth: 0, how: 0 });
        }
        while !story.bench.held.is_empty() {
            story.run(&Op::Settle { nth: 0, how: 1 });
        }
        story.run(&Op::Consume { selector: None, prefetch: 0, no_ack: true, priority: 0 });
        prop_assert!(story.ready.is_empty());
    }
}
