//! Leases, withheld messages and those who wait, rule by rule, in queues without a log.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::broker::{
    Broker, Options,
    connections::{ChannelStatus, ConnectionId, Traffic},
    consumer::{Batch, ConsumerOptions, Handed, Held, Outlet, Settle},
    queue::{
        Queue,
        arguments::DedupArguments,
        behaviour::{DedupScope, Overflow},
        machine::{Limits, Pushed},
        selective::GroupMode,
    },
    selection::{Fields, Group, Subject},
    selector,
    topology::DeclareQueue,
    turn::Turn,
    value::{HeadersBuilder, Table, Value},
    verb::Verb,
};

/// The properties of a message are its group.
struct Groups;

impl Fields for Groups {
    fn field<'m>(&self, _: Subject<'m>, _: &str) -> selector::Value<'m> {
        selector::Value::Null
    }

    fn group<'m>(&self, message: &'m Message) -> Option<Group<'m>> {
        Some(Group { name: message.properties(), is_last: false })
    }
}

/// Counts how often it is told.
#[derive(Default)]
struct Ear(AtomicUsize);

impl ConnectionHandle for Ear {
    fn close(&self, _: &str) {}
    fn channels(&self) -> Vec<ChannelStatus> {
        Vec::new()
    }
    fn traffic(&self) -> Traffic {
        Traffic::default()
    }
    fn alarm_changed(&self) {}
    fn proceed(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn ear() -> (Arc<Ear>, Weak<dyn ConnectionHandle>) {
    let ear = Arc::new(Ear::default());
    let handle: Arc<dyn ConnectionHandle> = ear.clone();
    (ear, Arc::downgrade(&handle))
}

fn told(ears: &[(Arc<Ear>, Waiter)]) -> Vec<usize> {
    ears.iter().map(|(ear, _)| ear.0.load(Ordering::SeqCst)).collect()
}

#[derive(Default)]
struct Client(parking_lot::Mutex<Vec<(Vec<u8>, Option<Held>)>>);

impl Outlet for Client {
    fn deliver(&self, _: u64, batch: &Batch<'_>) -> Handed {
        batch.for_each(|one| self.0.lock().push((one.message.body_to_vec(), one.held)));
        Handed::default()
    }
    fn cancelled(&self, _: u64) {}
    fn flush(&self) {}
}

struct Bench {
    broker: Arc<Broker>,
    queue: Arc<Queue>,
    now: Time,
}

fn message(body: &str, group: &str) -> Message {
    let mut message = Message::build("", b"q", group.as_bytes(), (0, 0), body.as_bytes());
    message.traits.has_group = !group.is_empty();
    message
}

impl Bench {
    fn new(limits: Limits) -> Self {
        let now = Time(1_000_000);
        let broker = Arc::new(Broker::new(Options::default(), now).unwrap());
        broker.attach_fields(Arc::new(Groups));
        let vhost = broker.vhost("/").unwrap();
        let mut turn = Turn::new(&broker, now);
        let dead = DeclareQueue { name: "dead", ..DeclareQueue::default() };
        vhost.declare_queue(&dead, None, &mut turn).unwrap();
        let arguments = Table::from_iter([
            ("x-dead-letter-exchange", Value::text("")),
            ("x-dead-letter-routing-key", Value::text("dead")),
        ]);
        let wanted = DeclareQueue { name: "q", arguments, ..DeclareQueue::default() };
        let queue = vhost.declare_queue(&wanted, None, &mut turn).unwrap();
        queue.configure(limits, queue.dead_letter(), &mut turn);
        turn.end();
        Self { broker, queue, now }
    }

    fn plain() -> Self {
        Self::new(Limits::default())
    }

    fn grouped() -> Self {
        Self::new(Limits { group_mode: GroupMode::Unsettled, ..Limits::default() })
    }

    fn turn(&self) -> Turn<'_> {
        Turn::new(&self.broker, self.now)
    }

    fn publish(&self, bodies: &[&str]) {
        self.queue.publish(bodies.iter().map(|body| message(body, "")), &mut self.turn(), &mut Vec::new());
    }

    /// The first letter of a body is its group.
    fn publish_grouped(&self, bodies: &[&str]) {
        let messages = bodies.iter().map(|body| message(body, &body[..1]));
        self.queue.publish(messages, &mut self.turn(), &mut Vec::new());
    }

    fn try_receive(&self, wanted: &Receive<'_>) -> Result<Received, ReceiveError> {
        match self.queue.receive(wanted, &mut self.turn()) {
            Verb::Done(received) => received,
            Verb::Pending(_) => panic!("everything is in memory"),
        }
    }

    fn receive(&self, max: usize) -> Vec<Leased> {
        self.try_receive(&Receive { max, lease_ms: 100, ..Receive::default() }).unwrap().messages
    }

    fn bodies(&self, max: usize) -> Vec<String> {
        bodies(&self.receive(max))
    }

    fn settle(&self, leased: &Leased, how: LeaseSettle) -> Result<(), LeaseError> {
        match self.queue.settle_leases(&[(leased.seq, leased.nonce)], how, &mut self.turn()) {
            Verb::Done(mut settled) => settled.remove(0),
            Verb::Pending(_) => panic!("everything is in memory"),
        }
    }

    fn accept(&self, leased: &Leased) -> Result<(), LeaseError> {
        self.settle(leased, LeaseSettle::Accept { is_strict: true })
    }

    fn advance(&mut self, ms: u64) {
        self.now = self.now.after_ms(ms);
        self.broker.tick(self.now);
    }

    /// Ready, leased, withheld.
    fn counts(&self) -> (u64, u64, u64) {
        let status = self.queue.status();
        (status.ready, status.leased, status.withheld)
    }

    fn consume(&self, prefetch: u32) -> Arc<Client> {
        let client = Arc::<Client>::default();
        let options = ConsumerOptions {
            tag: "c".into(),
            no_ack: false,
            exclusive: false,
            priority: 0,
            prefetch,
            declared_prefetch: prefetch,
            shared_credit: None,
            selector: None,
            is_sole: false,
            arguments: Table::new(),
            outlet: client.clone(),
            key: 1,
            connection: ConnectionId(1),
            channel: 1,
        };
        self.queue.consume(self.broker.next_consumer_id(), options, &mut self.turn()).unwrap();
        client
    }

    /// Somebody who finds nothing, and waits.
    fn wait(&self) -> (Arc<Ear>, Waiter) {
        let (ear, handle) = ear();
        let wanted = Receive { max: 10, lease_ms: 100, waiter: Some(handle), ..Receive::default() };
        let waiter = self.try_receive(&wanted).unwrap().waiter.expect("there is nothing to receive");
        (ear, waiter)
    }
}

fn bodies(leased: &[Leased]) -> Vec<String> {
    leased.iter().map(|one| String::from_utf8(one.message.body_to_vec()).unwrap()).collect()
}

#[test]
fn messages_are_received_in_order_and_by_one_receiver_each() {
    let bench = Bench::plain();
    bench.publish(&["a", "b", "c"]);
    assert_eq!(bench.bodies(2), ["a", "b"]);
    assert_eq!(bench.bodies(2), ["c"]);
    assert_eq!(bench.bodies(2), [""; 0]);
    assert_eq!(bench.counts(), (0, 3, 0));
    assert_eq!(bench.queue.status().unsettled, 3);
}

#[test]
fn a_lease_that_is_over_puts_the_message_back_in_its_place_and_counts() {
    let mut bench = Bench::plain();
    bench.publish(&["a", "b"]);
    let first = bench.receive(1).remove(0);
    assert_eq!((first.receives, first.first_received_at), (1, bench.now));
    bench.advance(99);
    assert_eq!(bench.counts(), (1, 1, 0));
    bench.advance(1);
    assert_eq!(bench.counts(), (2, 0, 0));
    let again = bench.receive(2);
    assert_eq!(bodies(&again), ["a", "b"]);
    assert_eq!((again[0].receives, again[0].first_received_at), (2, first.first_received_at));
    assert_eq!((again[1].receives, again[1].first_received_at), (1, bench.now));
    assert_ne!(again[0].nonce, first.nonce);
    assert_eq!(bench.accept(&first), Err(LeaseError::Replaced));
}

#[test]
fn an_accepted_message_is_gone() {
    let mut bench = Bench::plain();
    bench.publish(&["a"]);
    let leased = bench.receive(1).remove(0);
    assert_eq!(bench.accept(&leased), Ok(()));
    assert_eq!(bench.accept(&leased), Err(LeaseError::Gone));
    bench.advance(1_000);
    assert_eq!(bench.counts(), (0, 0, 0));
}

#[test]
fn a_lease_that_is_over_settles_nothing_if_it_has_to_be_in_force() {
    let mut bench = Bench::plain();
    bench.publish(&["a"]);
    let leased = bench.receive(1).remove(0);
    bench.now = bench.now.after_ms(100);
    assert_eq!(bench.accept(&leased), Err(LeaseError::Lapsed), "though no timer has rung");
    bench.advance(0);
    assert_eq!(bench.accept(&leased), Err(LeaseError::Lapsed));
    assert_eq!(bench.settle(&leased, LeaseSettle::Change { lease_ms: 10 }), Err(LeaseError::Lapsed));
    assert_eq!(bench.counts(), (1, 0, 0));
}

#[test]
fn whoever_is_not_strict_accepts_what_is_ready_again_or_with_somebody_else() {
    let mut bench = Bench::plain();
    bench.publish(&["a", "b"]);
    let leased = bench.receive(2);
    bench.advance(100);
    let loose = LeaseSettle::Accept { is_strict: false };
    assert_eq!(bench.settle(&leased[0], loose), Ok(()));
    assert_eq!(bench.bodies(2), ["b"]);
    assert_eq!(bench.settle(&leased[1], loose), Ok(()));
    assert_eq!(bench.settle(&leased[1], loose), Err(LeaseError::Gone));
    assert_eq!(bench.counts(), (0, 0, 0));
}

#[test]
fn a_lease_may_be_made_longer_or_shorter_and_be_ended() {
    let mut bench = Bench::plain();
    bench.publish(&["a"]);
    let leased = bench.receive(1).remove(0);
    assert_eq!(bench.settle(&leased, LeaseSettle::Change { lease_ms: 1_000 }), Ok(()));
    bench.advance(999);
    assert_eq!(bench.counts(), (0, 1, 0));
    assert_eq!(bench.settle(&leased, LeaseSettle::Change { lease_ms: 5 }), Ok(()));
    bench.advance(5);
    assert_eq!(bench.counts(), (1, 0, 0));
    let leased = bench.receive(1).remove(0);
    assert_eq!(bench.settle(&leased, LeaseSettle::Change { lease_ms: 0 }), Ok(()));
    assert_eq!(bench.receive(1)[0].receives, 3);
}

#[test]
fn no_more_is_received_than_may_be_in_flight() {
    let bench = Bench::plain();
    bench.publish(&["a", "b", "c"]);
    let wanted = Receive { max: 10, lease_ms: 100, in_flight_max: 2, ..Receive::default() };
    assert_eq!(bench.try_receive(&wanted).unwrap().messages.len(), 2);
    assert_eq!(bench.try_receive(&wanted).unwrap_err(), ReceiveError::Full);
}

#[test]
fn a_message_that_failed_too_often_is_dead_lettered() {
    let mut bench = Bench::new(Limits { delivery_limit: Some(1), ..Limits::default() });
    bench.publish(&["a"]);
    for receives in 1..=2 {
        assert_eq!(bench.receive(1)[0].receives, receives);
        bench.advance(100);
    }
    assert_eq!(bench.counts(), (0, 0, 0));
    let dead = bench.broker.vhost("/").unwrap().queue("dead").unwrap();
    assert_eq!(dead.status().ready, 1);
}

#[test]
fn a_call_that_is_repeated_receives_the_same_while_that_is_as_it_was_left() {
    let mut bench = Bench::plain();
    bench.publish(&["a", "b", "c"]);
    let wanted = Receive { max: 2, lease_ms: 100, attempt: Some(b"one"), ..Receive::default() };
    let receive = |bench: &Bench| bench.try_receive(&wanted).unwrap().messages;
    let first = receive(&bench);
    bench.advance(60);
    let again = receive(&bench);
    assert_eq!(bodies(&again), ["a", "b"]);
    assert_eq!((again[0].nonce, again[0].receives), (first[0].nonce, 1));
    bench.advance(60);
    assert_eq!(bench.counts(), (1, 2, 0), "for as long again");
    bench.accept(&first[0]).unwrap();
    assert_eq!(bodies(&receive(&bench)), ["c"]);
}

#[test]
fn consumers_and_receivers_share_a_queue() {
    let bench = Bench::plain();
    let client = bench.consume(1);
    bench.publish(&["a", "b", "c"]);
    assert_eq!(bench.bodies(10), ["b", "c"]);
    let held = client.0.lock()[0].1.unwrap();
    bench.publish(&["d"]);
    bench.queue.settle(&[held], Settle::Accepted, &mut bench.turn());
    assert_eq!(client.0.lock().iter().map(|(body, _)| body.clone()).collect::<Vec<_>>(), [b"a", b"d"]);
    assert_eq!(bench.bodies(10), [""; 0]);
}

#[test]
fn withheld_messages_come_when_they_are_due() {
    let mut bench = Bench::new(Limits { withhold_ms: Some(50), ..Limits::default() });
    let held = [("own", Some(20)), ("none", Some(0)), ("of queue", None)];
    let messages = held.map(|(body, ms)| (message(body, ""), ms)).into_iter();
    let pushed = bench.queue.publish_each(messages, &mut bench.turn()).unwrap();
    assert_eq!(pushed, [1, 2, 3].map(Pushed::Accepted));
    bench.publish(&["too"]);
    assert_eq!(bench.counts(), (1, 0, 3));
    assert_eq!(bench.bodies(10), ["none"]);
    bench.advance(20);
    assert_eq!(bench.bodies(10), ["own"]);
    bench.advance(29);
    assert_eq!(bench.bodies(10), [""; 0]);
    bench.advance(1);
    assert_eq!(bench.bodies(10), ["of queue", "too"]);
}

#[test]
fn withheld_messages_count_where_the_length_is_limited() {
    let withheld = |body: &'static str, ms| (message(body, ""), Some(ms));
    let publish = |bench: &Bench, one| bench.queue.publish_each([one].into_iter(), &mut bench.turn()).unwrap()[0];
    let bench = Bench::new(Limits { max_length: Some(2), ..Limits::default() });
    bench.publish(&["a"]);
    publish(&bench, withheld("later", 50));
    publish(&bench, withheld("soon", 20));
    assert_eq!(bench.counts(), (0, 0, 2), "the one that is ready makes room");
    publish(&bench, withheld("last", 90));
    assert_eq!(bench.counts(), (0, 0, 2), "and then the one that would be");
    let dead = bench.broker.vhost("/").unwrap().queue("dead").unwrap();
    assert_eq!(dead.snapshot().iter().map(|(_, m, _)| m.body_to_vec()).collect::<Vec<_>>(), [&b"a"[..], b"soon"]);
    let bytes =
        Bench::new(Limits { max_length_bytes: Some(8), overflow: Overflow::RejectPublish, ..Limits::default() });
    assert_eq!(publish(&bytes, withheld("12345678", 50)), Pushed::Accepted(1));
    assert_eq!(publish(&bytes, withheld("x", 0)), Pushed::Refused);
}

#[test]
fn messages_of_groups_are_withheld_in_their_order() {
    let mut bench = Bench::new(Limits { withhold_ms: Some(50), group_mode: GroupMode::Unsettled, ..Limits::default() });
    bench.publish_grouped(&["a1"]);
    let without = [(message("a2", "a"), Some(0))].into_iter();
    bench.queue.publish_each(without, &mut bench.turn()).unwrap();
    assert_eq!(bench.counts(), (0, 0, 2));
    bench.advance(50);
    assert_eq!(bench.bodies(10), ["a1", "a2"]);
}

#[test]
fn a_purge_takes_what_is_leased_and_withheld_too() {
    let mut bench = Bench::plain();
    bench.publish(&["a", "b"]);
    let leased = bench.receive(1).remove(0);
    bench.queue.publish_each([(message("c", ""), Some(10))].into_iter(), &mut bench.turn()).unwrap();
    assert_eq!(bench.queue.purge(&mut bench.turn()), 3);
    assert_eq!(bench.accept(&leased), Err(LeaseError::Gone));
    bench.advance(1_000);
    assert_eq!(bench.counts(), (0, 0, 0));
}

#[test]
fn a_duplicate_names_the_message_that_it_repeats() {
    let deduplication = Some(DedupArguments {
        cache_size: Some(u64::MAX),
        cache_ttl_ms: Some(300_000),
        header: "name".into(),
        scope: DedupScope::Queue,
    });
    let bench = Bench::new(Limits { deduplication, ..Limits::default() });
    let named = |name: &str| {
        let mut headers = HeadersBuilder::new();
        headers.push("name", &Value::text(name));
        let headers = headers.finish();
        (Message::build("", b"q", &headers, (0, headers.len()), b"body"), None)
    };
    let messages = ["one", "two", "one"].map(named).into_iter();
    let pushed = bench.queue.publish_each(messages, &mut bench.turn()).unwrap();
    assert_eq!(pushed, [Pushed::Accepted(1), Pushed::Accepted(2), Pushed::Duplicate(1)]);
}

#[test]
fn one_call_receives_several_of_a_group_in_order_and_then_nobody_gets_more_of_it() {
    let bench = Bench::grouped();
    bench.publish_grouped(&["a1", "b1", "a2", "a3", "b2"]);
    let leased = bench.receive(3);
    assert_eq!(bodies(&leased), ["a1", "b1", "a2"]);
    assert_eq!(bench.bodies(10), [""; 0]);
    let client = bench.consume(10);
    assert!(client.0.lock().is_empty(), "consumers neither");
    bench.accept(&leased[0]).unwrap();
    assert!(client.0.lock().is_empty(), "while one is unsettled");
    bench.accept(&leased[2]).unwrap();
    assert_eq!(client.0.lock().iter().map(|(body, _)| body.clone()).collect::<Vec<_>>(), [b"a3"]);
}

#[test]
fn a_group_keeps_its_order_after_a_lease_is_over() {
    let mut bench = Bench::grouped();
    bench.publish_grouped(&["a1", "a2", "a3", "b1"]);
    let leased = bench.receive(2);
    bench.settle(&leased[1], LeaseSettle::Change { lease_ms: 0 }).unwrap();
    assert_eq!(bench.bodies(10), ["b1"], "a1 is still leased");
    bench.advance(100);
    assert_eq!(bench.bodies(10), ["a1", "a2", "a3", "b1"]);
}

#[test]
fn of_a_group_only_what_is_in_front_of_everything_leased_may_be_received() {
    for (kept, expected) in [(0, &[][..]), (1, &["a0"]), (2, &["a0", "a1"])] {
        let mut bench = Bench::grouped();
        bench.publish_grouped(&["a0", "a1", "a2", "a3"]);
        let leased = bench.receive(3);
        bench.settle(&leased[kept], LeaseSettle::Change { lease_ms: 1_000 }).unwrap();
        bench.advance(100);
        let again = bench.receive(10);
        assert_eq!(bodies(&again), expected, "{kept}");
        again.iter().for_each(|one| bench.accept(one).unwrap());
        assert_eq!(bench.bodies(10), [""; 0]);
        bench.accept(&leased[kept]).unwrap();
        let rest: Vec<_> = (0..4).filter(|n| *n != kept).map(|n| format!("a{n}")).skip(expected.len()).collect();
        assert_eq!(bench.bodies(10), rest, "{kept}");
    }
}

#[test]
fn what_waits_of_a_group_comes_to_its_front_when_what_was_leased_before_is_accepted() {
    let bench = Bench::grouped();
    bench.publish_grouped(&["a0", "a1", "a2"]);
    let leased = bench.receive(3);
    bench.settle(&leased[1], LeaseSettle::Change { lease_ms: 0 }).unwrap();
    assert_eq!(bench.bodies(10), [""; 0]);
    bench.accept(&leased[0]).unwrap();
    assert_eq!(bench.bodies(10), ["a1"]);
}

#[test]
fn what_a_consumer_holds_of_a_group_keeps_it_from_receivers() {
    let bench = Bench::grouped();
    let client = bench.consume(1);
    bench.publish_grouped(&["a1", "a2", "b1"]);
    assert_eq!(bench.bodies(10), ["b1"]);
    let held = client.0.lock()[0].1.unwrap();
    bench.queue.settle(&[held], Settle::Accepted, &mut bench.turn());
    assert_eq!(client.0.lock().len(), 2, "served first");
}

#[test]
fn where_consumers_own_groups_leases_hold_none() {
    let bench = Bench::plain();
    bench.publish_grouped(&["a1", "a2", "a3"]);
    assert_eq!(bench.bodies(1), ["a1"]);
    assert_eq!(bench.bodies(1), ["a2"]);
    let client = bench.consume(1);
    bench.publish_grouped(&["a4", "b1"]);
    assert_eq!(client.0.lock().len(), 1);
    assert_eq!(bench.bodies(10), ["b1"], "the consumer owns the other");
}

#[test]
fn many_groups_that_are_held_are_passed_by() {
    let bench = Bench::grouped();
    let all: Vec<String> = (0..6_000).map(|n| format!("{}{n}", char::from(b'a' + (n / 3_000) as u8))).collect();
    bench.publish_grouped(&all.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(bench.bodies(1), ["a0"]);
    assert_eq!(bench.bodies(1), ["b3000"]);
    assert_eq!(bench.bodies(1), [""; 0]);
}

#[test]
fn one_message_is_told_to_one_who_waits() {
    let bench = Bench::plain();
    let ears: Vec<_> = (0..3).map(|_| bench.wait()).collect();
    assert_eq!(told(&ears), [0, 0, 0]);
    bench.publish(&["a"]);
    assert_eq!(told(&ears), [1, 0, 0]);
    bench.publish(&["b", "c"]);
    assert_eq!(told(&ears), [1, 1, 1]);
    assert_eq!(bench.queue.waiters_count(), 0);
}

#[test]
fn what_a_consumer_has_taken_is_no_word_to_those_who_wait() {
    let bench = Bench::plain();
    let ears: Vec<_> = (0..3).map(|_| bench.wait()).collect();
    let _client = bench.consume(5);
    for _ in 0..5 {
        bench.publish(&["taken"]);
    }
    assert_eq!(told(&ears), [0, 0, 0]);
    bench.publish(&["a"]);
    assert_eq!(told(&ears), [1, 0, 0]);
}

#[test]
fn whoever_was_told_and_goes_passes_the_word_on() {
    let bench = Bench::plain();
    let mut ears: Vec<_> = (0..3).map(|_| bench.wait()).collect();
    drop(ears.remove(0));
    bench.publish(&["a"]);
    assert_eq!(told(&ears), [1, 0], "nobody speaks to the one who has gone");
    drop(ears.remove(0));
    assert_eq!(told(&ears), [1]);
    assert_eq!(bench.bodies(1), ["a"]);
}

#[test]
fn whoever_receives_and_leaves_some_has_the_next_told() {
    let bench = Bench::plain();
    let ears: Vec<_> = (0..2).map(|_| bench.wait()).collect();
    let client = bench.consume(1);
    bench.publish(&["taken"]);
    assert_eq!(told(&ears), [0, 0], "consumers are served first");
    bench.publish(&["a"]);
    bench.publish(&["b"]);
    assert_eq!(told(&ears), [1, 1]);
    let third = bench.queue.await_ready(ear().1);
    drop(third);
    let (ear, handle) = ear();
    let _waiter = bench.queue.await_ready(handle);
    assert_eq!(ear.0.load(Ordering::SeqCst), 1, "there is something now");
    assert_eq!(client.0.lock().len(), 1);
}

#[test]
fn who_waits_is_told_when_a_lease_is_over_when_a_group_is_free_and_when_the_queue_is_deleted() {
    let mut bench = Bench::grouped();
    bench.publish_grouped(&["a1", "a2"]);
    let leased = bench.receive(1).remove(0);
    let first = [bench.wait()];
    bench.accept(&leased).unwrap();
    assert_eq!(told(&first), [1], "a2 may be received");
    assert_eq!(bench.bodies(1), ["a2"]);
    let second = [bench.wait()];
    bench.advance(100);
    assert_eq!(told(&second), [1]);
    assert_eq!(bench.bodies(1), ["a2"]);
    let third = [bench.wait()];
    let vhost = bench.broker.vhost("/").unwrap();
    vhost.remove_queue(&bench.queue, &mut bench.turn());
    assert_eq!(told(&third), [1]);
    assert_eq!(bench.try_receive(&Receive::default()).unwrap_err(), ReceiveError::Deleted);
}

#[test]
fn thousands_may_wait_and_go() {
    let bench = Bench::plain();
    let mut ears: Vec<_> = (0..5_000).map(|_| bench.wait()).collect();
    assert_eq!(bench.queue.waiters_count(), 5_000);
    ears.truncate(10);
    assert_eq!(bench.queue.waiters_count(), 10);
    bench.publish(&["a"]);
    assert_eq!(told(&ears).iter().sum::<usize>(), 1);
}
