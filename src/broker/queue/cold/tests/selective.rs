//! Selective consumers, groups and browsing where messages are in memory and on disk: random verbs, and
//! what has to hold whatever is where.

use std::collections::{BTreeSet, HashMap};

use super::*;
use crate::broker::{
    queue::cold::{BrowsePlace, Browsed},
    selection::{Fields, Group, Subject},
    selector::{Conversion, Selector, Value as Field},
};

/// The properties of a message are its colour and its group, zero for none.
struct Bytes;

impl Fields for Bytes {
    fn field<'m>(&self, subject: Subject<'m>, name: &str) -> Field<'m> {
        match name {
            "colour" => Field::Long(subject.message.properties()[0].into()),
            _ => Field::Null,
        }
    }

    fn group<'m>(&self, message: &'m Message) -> Option<Group<'m>> {
        Some(Group { name: &message.properties()[1..], is_last: false })
    }
}

/// A consumer, and what it got and has not settled.
struct Taker {
    id: ConsumerId,
    key: u64,
    selector: Option<u8>,
    prefetch: usize,
}

#[derive(Clone, Debug)]
enum Step {
    Publish(Vec<(u8, u8, bool, u8)>),
    Consume { selector: Option<u8>, prefetch: u8 },
    Leave(u8),
    Settle { nth: u8, how: u8 },
    Look { window: u8 },
    LookSpilled { window: u8 },
    Advance(u8),
    Browse { max: u8 },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let publish = (0..3u8, 0..4u8, any::<bool>(), 0..3u8);
    prop_oneof![
        8 => prop::collection::vec(publish, 1..10).prop_map(Step::Publish),
        3 => (prop::option::of(0..3u8), 1..4u8).prop_map(|(selector, prefetch)| Step::Consume { selector, prefetch }),
        2 => any::<u8>().prop_map(Step::Leave),
        8 => (any::<u8>(), 0..4u8).prop_map(|(nth, how)| Step::Settle { nth, how }),
        4 => (0..5u8).prop_map(|window| Step::Look { window }),
        4 => (0..5u8).prop_map(|window| Step::LookSpilled { window }),
        1 => (0..20u8).prop_map(Step::Advance),
        2 => (1..6u8).prop_map(|max| Step::Browse { max }),
        1 => Just(Step::Restart),
    ]
}

struct Tale {
    side: Side,
    now: Time,
    reach: Window,
    /// By body: colour, group, priority, whether it survives a restart.
    said: BTreeMap<String, (u8, u8, u8, bool)>,
    ready: BTreeSet<String>,
    takers: Vec<Taker>,
    /// By key of its consumer, with the identity for settling.
    held: Vec<(u64, String, Held)>,
    /// By group: the key of its owner.
    owners: HashMap<u8, u64>,
    keys: u64,
}

impl Tale {
    fn new(is_durable: bool, priority_max: i64, reach: usize) -> Self {
        let now = Time(1_000_000);
        let mut side = Side::open(Arc::default(), Some(Arc::default()), now);
        side.broker.attach_fields(Arc::new(Bytes));
        side.is_durable = is_durable;
        let arguments = match priority_max {
            0 => Table::new(),
            max => Table::from_iter([("x-max-priority", Value::I64(max))]),
        };
        side.declare("q", arguments, now);
        let reach = Window { messages: reach, bytes: 1 << 20 };
        side.queue("q").lock().reach = reach;
        Self {
            side,
            now,
            reach,
            said: BTreeMap::new(),
            ready: BTreeSet::new(),
            takers: Vec::new(),
            held: Vec::new(),
            owners: HashMap::new(),
            keys: 0,
        }
    }

    fn run(&mut self, step: &Step) {
        let queue = self.side.queue("q");
        match step {
            Step::Publish(publishes) => {
                for &(colour, group, is_persistent, priority) in publishes {
                    let body = format!("{:05}", self.said.len());
                    let mut message = Message::build("", b"q", &[colour, group], (0, 0), body.as_bytes());
                    message.traits.persistent = is_persistent;
                    message.traits.priority = priority;
                    message.traits.has_group = group != 0;
                    self.said.insert(body.clone(), (colour, group, priority, is_persistent));
                    self.ready.insert(body);
                    let mut turn = Turn::new(&self.side.broker, self.now);
                    queue.publish(std::iter::once(message), &mut turn, &mut Vec::new());
                }
            }
            &Step::Consume { selector, prefetch } => {
                self.keys += 1;
                let id = self.side.broker.next_consumer_id();
                let parse =
                    |colour| Arc::new(Selector::parse(&format!("colour = {colour}"), Conversion::None).unwrap());
                let options = ConsumerOptions {
                    tag: "c".into(),
                    no_ack: false,
                    exclusive: false,
                    priority: 0,
                    prefetch: prefetch.into(),
                    declared_prefetch: prefetch.into(),
                    shared_credit: None,
                    selector: selector.map(parse),
                    is_sole: false,
                    arguments: Table::new(),
                    outlet: self.side.client.clone(),
                    key: self.keys,
                    connection: ConnectionId(1),
                    channel: 1,
                };
                self.takers.push(Taker { id, key: self.keys, selector, prefetch: prefetch.into() });
                queue.consume(id, options, &mut Turn::new(&self.side.broker, self.now)).unwrap();
            }
            &Step::Leave(nth) => {
                if self.takers.is_empty() {
                    return;
                }
                let taker = self.takers.remove(usize::from(nth) % self.takers.len());
                self.owners.retain(|_, owner| *owner != taker.key);
                let (gone, kept) = std::mem::take(&mut self.held).into_iter().partition(|(key, ..)| *key == taker.key);
                self.held = kept;
                let gone: Vec<(u64, String, Held)> = gone;
                let held: Vec<Held> = gone.iter().map(|(.., held)| *held).collect();
                self.ready.extend(gone.into_iter().map(|(_, body, _)| body));
                queue.leave(&[taker.id], &held, &[], &mut Turn::new(&self.side.broker, self.now));
            }
            &Step::Settle { nth, how } => {
                if self.held.is_empty() {
                    return;
                }
                let (_, body, held) = self.held.remove(usize::from(nth) % self.held.len());
                let how = [Settle::Accepted, Settle::Requeued, Settle::Returned, Settle::Rejected][usize::from(how)];
                if matches!(how, Settle::Requeued | Settle::Returned) {
                    self.ready.insert(body);
                }
                queue.settle(&[held], how, &mut Turn::new(&self.side.broker, self.now));
            }
            &Step::Look { window } => self.look(window),
            &Step::LookSpilled { window } => self.look_spilled(window),
            &Step::Advance(ms) => {
                self.now = self.now.after_ms(ms.into());
                self.side.broker.tick(self.now);
            }
            &Step::Browse { max } => {
                let seen = self.browse(max.into());
                let bodies: Vec<String> = seen.iter().map(|one| body_of(&one.message)).collect();
                assert_eq!(bodies, self.in_order());
            }
            Step::Restart if !self.side.is_durable => {}
            Step::Restart => {
                self.side.answer(self.now);
                let store = self.side.store.clone().unwrap();
                store.asked.lock().clear();
                *store.spill_index.lock() = Index::default();
                store.spilled.lock().clear();
                self.side = Side::open(self.side.journal.clone(), Some(store), self.now);
                self.side.broker.attach_fields(Arc::new(Bytes));
                self.side.queue("q").lock().reach = self.reach;
                let held = std::mem::take(&mut self.held).into_iter().map(|(_, body, _)| body);
                self.ready.extend(held);
                self.ready.retain(|body| self.said[body].3);
                (self.takers, self.owners) = (Vec::new(), HashMap::new());
            }
        }
        self.check();
    }

    fn look(&self, window: u8) {
        if !self.side.is_durable {
            return;
        }
        let window = Window { messages: window.into(), bytes: 1 << 20 };
        let store = self.side.store.as_ref().unwrap();
        let mut index = store.index.lock().clone();
        index.covered = self.side.journal.end();
        let queue = self.side.queue("q");
        if let Some(look) = queue.look(Position(index.covered), &window) {
            index.apply(queue.id, &look);
        }
        *store.index.lock() = index;
        queue.looked(true, &window);
    }

    fn look_spilled(&self, window: u8) {
        let window = Window { messages: window.into(), bytes: 1 << 20 };
        let store = self.side.store.as_ref().unwrap();
        let queue = self.side.queue("q");
        let written = queue.overflow(&window).map(|overflow| store.spill(overflow));
        let written = written.as_ref().map(|(below, places)| (*below, &**places));
        let mut index = store.spill_index.lock().clone();
        if let Some(look) = queue.look_spilled(written, &window) {
            index.apply(queue.id, &look);
        }
        *store.spill_index.lock() = index;
        queue.spilled(true, &window);
    }

    /// All that can be looked at, some at a time.
    fn browse(&self, max: usize) -> Vec<Browsed> {
        let mut all = Vec::new();
        let mut from: Option<BrowsePlace> = None;
        for _ in 0..10_000 {
            let looked = self.side.queue("q").browse(from, max, &mut Turn::new(&self.side.broker, self.now));
            match looked {
                Verb::Pending(_) => self.side.answer(self.now),
                Verb::Done(page) => {
                    assert!(page.messages.len() <= max);
                    all.extend(page.messages);
                    match page.next {
                        None => return all,
                        next => from = next,
                    }
                }
            }
        }
        panic!("a look has no end");
    }

    /// What is ready, in delivery order.
    fn in_order(&self) -> Vec<String> {
        let priority_max = self.side.queue("q").lock().ready.priority_max();
        let mut all: Vec<String> = self.ready.iter().cloned().collect();
        all.sort_by_key(|body| (std::cmp::Reverse(self.said[body].2.min(priority_max)), body.clone()));
        all
    }

    fn check(&mut self) {
        // Pages, and looks that were cut.
        for _ in 0..3 {
            self.side.answer(self.now);
            self.side.broker.tick(self.now);
        }
        self.side.answer(self.now);
        let seen = std::mem::take(&mut *self.side.client.seen.lock());
        let held = std::mem::take(&mut *self.side.client.held.lock());
        assert_eq!(seen.len(), held.len());
        for ((key, body, ..), (_, held)) in seen.into_iter().zip(held) {
            let body = String::from_utf8(body).unwrap();
            let (colour, group, ..) = self.said[&body];
            assert!(self.ready.remove(&body), "{body} was ready");
            let taker = self.takers.iter().find(|taker| taker.key == key).expect("it consumes");
            assert!(taker.selector.is_none_or(|wanted| wanted == colour), "{body} is not for {key}");
            if group != 0 {
                assert_eq!(*self.owners.entry(group).or_insert(key), key, "group {group} has an owner");
            }
            self.held.push((key, body, held));
        }
        let status = self.side.queue("q").status();
        assert_eq!((status.ready, status.unsettled), (self.ready.len() as u64, self.held.len() as u64));
        if self.ready.len() >= self.reach.messages {
            return;
        }
        for taker in &self.takers {
            if self.held.iter().filter(|(key, ..)| *key == taker.key).count() >= taker.prefetch {
                continue;
            }
            for body in &self.ready {
                let (colour, group, ..) = self.said[body];
                let is_free = group == 0 || self.owners.get(&group).is_none_or(|owner| *owner == taker.key);
                let is_wanted = taker.selector.is_none_or(|wanted| wanted == colour);
                assert!(!is_free || !is_wanted, "{} goes without {body}", taker.key);
            }
        }
    }

    /// In the end everything goes, in order, to whoever wants everything.
    fn drain(&mut self) {
        while !self.takers.is_empty() {
            self.run(&Step::Leave(0));
        }
        while !self.held.is_empty() {
            self.run(&Step::Settle { nth: 0, how: 2 });
        }
        let expected = self.in_order();
        self.run(&Step::Browse { max: 3 });
        self.run(&Step::Consume { selector: None, prefetch: 0 });
        let got: Vec<String> = self.held.iter().map(|(_, body, _)| body.clone()).collect();
        assert_eq!(got, expected);
    }
}

fn body_of(message: &Message) -> String {
    String::from_utf8(message.body_to_vec()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn selective_consumers_and_groups_get_theirs_wherever_it_is(
        is_durable in any::<bool>(),
        priority_max in 0..3i64,
        reach in prop::sample::select(vec![3, 1_000]),
        steps in prop::collection::vec(step(), 1..50),
    ) {
        let mut tale = Tale::new(is_durable, priority_max, reach);
        for step in &steps {
            tale.run(step);
        }
        tale.drain();
    }
}

fn publish(tale: &mut Tale, messages: &[(u8, u8)]) {
    tale.run(&Step::Publish(messages.iter().map(|(colour, group)| (*colour, *group, true, 0)).collect()));
}

#[test]
fn what_a_selective_consumer_wants_is_found_on_disk_behind_what_it_does_not() {
    let mut tale = Tale::new(true, 0, 100);
    publish(&mut tale, &[(1, 0); 20]);
    publish(&mut tale, &[(2, 0)]);
    tale.look(3);
    assert_eq!(tale.side.queue("q").cold().0, 18);
    tale.run(&Step::Consume { selector: Some(2), prefetch: 1 });
    assert_eq!(tale.held.len(), 1);
    tale.drain();
}

#[test]
fn behind_its_reach_nobody_looks_until_somebody_takes_what_is_in_front() {
    let mut tale = Tale::new(true, 0, 5);
    publish(&mut tale, &[(1, 0); 20]);
    publish(&mut tale, &[(2, 0)]);
    tale.look(3);
    tale.run(&Step::Consume { selector: Some(2), prefetch: 1 });
    assert_eq!(tale.held.len(), 0);
    tale.run(&Step::Consume { selector: Some(1), prefetch: 3 });
    for _ in 0..20 {
        let nth = tale.held.iter().position(|(key, ..)| *key == 2);
        let Some(nth) = nth else { break };
        tale.run(&Step::Settle { nth: nth as u8, how: 0 });
    }
    assert_eq!(tale.held.iter().filter(|(key, ..)| *key == 1).count(), 1);
    tale.drain();
}

#[test]
fn what_was_looked_at_before_it_left_memory_does_not_hold_up_what_comes() {
    let mut tale = Tale::new(true, 0, 5);
    tale.run(&Step::Consume { selector: Some(2), prefetch: 9 });
    publish(&mut tale, &[(1, 0); 50]);
    tale.look(3);
    assert_eq!(tale.side.queue("q").cold().0, 45);
    publish(&mut tale, &[(2, 0), (1, 0), (2, 0)]);
    assert_eq!(tale.held.len(), 2);
    tale.drain();
}

#[test]
fn a_look_at_messages_on_disk_leaves_them_there() {
    let mut tale = Tale::new(true, 0, 5);
    publish(&mut tale, &[(1, 0); 600]);
    tale.look(3);
    let cold = tale.side.queue("q").cold();
    assert_eq!(tale.browse(1_000).len(), 600);
    assert_eq!(tale.side.queue("q").cold(), cold);
    assert!(tale.side.queue("q").lock().cold.as_deref().unwrap().leaf.is_none());
}
