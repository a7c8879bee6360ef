//! Leases of messages that have groups, in memory and on disk and over restarts: random verbs, and what has
//! to hold whatever is where.

use std::collections::BTreeSet;

use super::*;
use crate::broker::{
    queue::{leases::Leased, machine::Limits, selective::GroupMode},
    selection::{Fields, Group, Subject},
    selector::Value as Field,
};

/// The properties of a message are its group, zero for none.
struct Bytes;

impl Fields for Bytes {
    fn field<'m>(&self, _: Subject<'m>, _: &str) -> Field<'m> {
        Field::Null
    }

    fn group<'m>(&self, message: &'m Message) -> Option<Group<'m>> {
        Some(Group { name: message.properties(), is_last: false })
    }
}

#[derive(Clone, Debug)]
enum Step {
    Publish(Vec<u8>),
    Receive { max: u8, lease_ms: u8 },
    Settle { nth: u8, how: u8 },
    Look { window: u8 },
    Advance(u8),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(0..4u8, 1..10).prop_map(Step::Publish),
        8 => (1..6u8, 0..60u8).prop_map(|(max, lease_ms)| Step::Receive { max, lease_ms }),
        8 => (any::<u8>(), 0..4u8).prop_map(|(nth, how)| Step::Settle { nth, how }),
        4 => (0..5u8).prop_map(|window| Step::Look { window }),
        3 => (0..40u8).prop_map(Step::Advance),
        2 => Just(Step::Restart),
    ]
}

/// A message as it is known: its seq grows with every one.
#[derive(Clone, Copy, Debug)]
struct Known {
    seq: u64,
    group: u8,
    until: Time,
    nonce: u64,
}

struct Tale {
    side: Side,
    now: Time,
    groups: BTreeMap<u64, u8>,
    ready: BTreeSet<u64>,
    leased: Vec<Known>,
}

impl Tale {
    fn new() -> Self {
        let now = Time(1_000_000);
        let side = Side::open(Arc::default(), Some(Arc::default()), now);
        side.declare("q", Table::new(), now);
        let tale = Self { side, now, groups: BTreeMap::new(), ready: BTreeSet::new(), leased: Vec::new() };
        tale.configure();
        tale
    }

    fn configure(&self) {
        self.side.broker.attach_fields(Arc::new(Bytes));
        let queue = self.side.queue("q");
        let limits = Limits { group_mode: GroupMode::Unsettled, ..Limits::default() };
        queue.configure(limits, queue.dead_letter(), &mut Turn::new(&self.side.broker, self.now));
    }

    fn run(&mut self, step: &Step) {
        let queue = self.side.queue("q");
        match step {
            Step::Publish(groups) => {
                let messages = groups.iter().map(|group| {
                    let mut message = Message::build("", b"q", &[*group], (0, 0), b"body");
                    message.traits.persistent = true;
                    message.traits.has_group = *group != 0;
                    message
                });
                queue.publish(messages, &mut Turn::new(&self.side.broker, self.now), &mut Vec::new());
                for group in groups {
                    let seq = self.groups.len() as u64 + 1;
                    self.groups.insert(seq, *group);
                    self.ready.insert(seq);
                }
            }
            &Step::Receive { max, lease_ms } => self.receive(max.into(), lease_ms.into()),
            &Step::Settle { nth, how } => {
                if self.leased.is_empty() {
                    return;
                }
                let nth = usize::from(nth) % self.leased.len();
                let Known { seq, nonce, .. } = self.leased[nth];
                let how = [
                    LeaseSettle::Accept { is_strict: true },
                    LeaseSettle::Accept { is_strict: false },
                    LeaseSettle::Change { lease_ms: 0 },
                    LeaseSettle::Change { lease_ms: 100 },
                ][usize::from(how)];
                assert_eq!(self.side.settle_leases(&[(seq, nonce)], how, self.now), [Ok(())]);
                match how {
                    LeaseSettle::Change { lease_ms: 0 } => _ = self.ready.insert(seq),
                    LeaseSettle::Change { lease_ms } => {
                        self.leased[nth].until = self.now.after_ms(lease_ms);
                        return;
                    }
                    LeaseSettle::Accept { .. } => {}
                }
                self.leased.remove(nth);
            }
            &Step::Look { window } => {
                let window = Window { messages: window.into(), bytes: 1 << 20 };
                let store = self.side.store.as_ref().unwrap();
                let mut index = store.index.lock().clone();
                index.covered = self.side.journal.end();
                if let Some(look) = queue.look(Position(index.covered), &window) {
                    index.apply(queue.id, &look);
                }
                *store.index.lock() = index;
                queue.looked(true, &window);
            }
            &Step::Advance(ms) => self.now = self.now.after_ms(ms.into()),
            Step::Restart => {
                self.side.answer(self.now);
                let store = self.side.store.clone().unwrap();
                store.asked.lock().clear();
                self.side = Side::open(self.side.journal.clone(), Some(store), self.now);
                self.configure();
            }
        }
        self.come_due();
    }

    fn come_due(&mut self) {
        for _ in 0..3 {
            self.side.broker.tick(self.now);
            self.side.answer(self.now);
        }
        let now = self.now;
        let lapsed = self.leased.extract_if(.., |one| one.until <= now);
        self.ready.extend(lapsed.map(|one| one.seq));
        let status = self.side.queue("q").status();
        assert_eq!((status.ready, status.leased), (self.ready.len() as u64, self.leased.len() as u64));
    }

    fn receive_once(&self, max: usize, lease_ms: u64) -> Vec<Leased> {
        for _ in 0..10_000 {
            let wanted = Receive { max, lease_ms, ..Receive::default() };
            let received = self.side.queue("q").receive(&wanted, &mut Turn::new(&self.side.broker, self.now));
            match received {
                Verb::Done(received) => return received.unwrap().messages,
                Verb::Pending(_) => self.side.answer(self.now),
            }
        }
        panic!("a receive waits without end");
    }

    fn receive(&mut self, max: usize, lease_ms: u64) {
        // What is not in memory is had by the next call.
        let got = self.receive_once(max, lease_ms);
        let before = self.leased.clone();
        let blocks = |group: u8, seq| group != 0 && before.iter().any(|one| one.group == group && one.seq < seq);
        for one in &got {
            assert!(self.ready.remove(&one.seq), "{} is ready", one.seq);
            let group = self.groups[&one.seq];
            assert!(!blocks(group, one.seq), "{} has a group that is held", one.seq);
            let is_passed = |seq: &u64| group != 0 && self.groups[seq] == group && *seq < one.seq;
            assert!(!self.ready.iter().any(is_passed), "{} comes in the order of its group", one.seq);
            let until = self.now.after_ms(lease_ms);
            self.leased.push(Known { seq: one.seq, group, until, nonce: one.nonce });
        }
        if got.is_empty() {
            let free = self.ready.iter().find(|seq| !blocks(self.groups[seq], **seq));
            assert_eq!(free, None, "it could be received");
        }
    }

    fn drain(&mut self) {
        self.run(&Step::Advance(200));
        while !self.leased.is_empty() || !self.ready.is_empty() {
            let left = self.leased.len() + self.ready.len();
            self.run(&Step::Receive { max: 10, lease_ms: 10 });
            while !self.leased.is_empty() {
                self.run(&Step::Settle { nth: 0, how: 0 });
            }
            assert!(self.ready.len() < left, "there is no end");
        }
        self.run(&Step::Look { window: 3 });
        let store = self.side.store.clone().unwrap();
        assert!(store.index.lock().notes.is_empty(), "nothing is noted of what has gone");
        self.run(&Step::Restart);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn leases_hold_their_groups_wherever_their_messages_are(steps in prop::collection::vec(step(), 1..50)) {
        let mut tale = Tale::new();
        for step in &steps {
            tale.run(step);
        }
        tale.drain();
    }
}

#[test]
fn what_is_leased_for_long_leaves_memory_and_comes_back() {
    let mut tale = Tale::new();
    tale.run(&Step::Publish(vec![0; 20]));
    tale.run(&Step::Receive { max: 10, lease_ms: 50 });
    tale.run(&Step::Look { window: 3 });
    assert_eq!(tale.side.queue("q").lock().leases.as_deref().unwrap().here(), 0);
    tale.run(&Step::Restart);
    tale.run(&Step::Settle { nth: 0, how: 0 });
    tale.run(&Step::Advance(50));
    assert_eq!(tale.ready.len(), 19);
    tale.drain();
}

#[test]
fn a_group_is_held_after_a_restart() {
    let mut tale = Tale::new();
    tale.run(&Step::Publish(vec![1, 1, 2]));
    tale.run(&Step::Receive { max: 1, lease_ms: 50 });
    for window in [9, 0] {
        tale.run(&Step::Look { window });
        tale.run(&Step::Restart);
        let got = tale.receive_once(10, 0);
        assert_eq!(got.iter().map(|one| one.seq).collect::<Vec<_>>(), [3]);
        tale.come_due();
    }
    tale.drain();
}
