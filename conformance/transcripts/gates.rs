//! Answers that wait for the log, and a get that waits for its message: in order, each channel for
//! itself, and nothing before its time.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use ternmq::{
    broker::{
        Options as BrokerOptions,
        exchange::holds::HoldsRequest,
        message::Message,
        queue::{
            cold::{ColdEntry, Header, Page, PageRequest, Window},
            stream::Summary,
        },
        record::{Appended, Haste, Journal, Pins, Position, QueueId, Record},
        time::Time,
        turn::Turn,
        verb::ColdPages,
    },
    protocol::amqp::Options,
};

use super::{lines, peer::World};

/// A log that is as safe as the test says.
#[derive(Default)]
pub struct SlowJournal {
    records: Mutex<Vec<Record>>,
    pins: Arc<Pins>,
    flushed: AtomicU64,
}

impl SlowJournal {
    pub fn flush(&self, world: &mut World) {
        let written = self.records.lock().len() as u64;
        self.flush_to(written, world);
    }

    pub fn flush_to(&self, position: u64, world: &mut World) {
        self.flushed.store(position, Ordering::SeqCst);
        world.broker.waiting.proceed();
        world.settle();
    }

    fn written(&self) -> u64 {
        self.records.lock().len() as u64
    }
}

impl Journal for SlowJournal {
    fn append(&self, record: &Record, _: Haste) -> Appended {
        let mut records = self.records.lock();
        records.push(record.clone());
        let at = Position(records.len() as u64);
        Appended { at, end: at }
    }

    fn end(&self) -> Position {
        Position(self.records.lock().len() as u64)
    }

    fn pins(&self) -> &Arc<Pins> {
        &self.pins
    }

    fn flushed(&self) -> Position {
        Position(self.flushed.load(Ordering::SeqCst))
    }
}

pub fn slow_world() -> (World, Arc<SlowJournal>, usize) {
    let journal = Arc::new(SlowJournal::default());
    let mut world = World::with_journal(journal.clone());
    let peer = world.open(1);
    (world, journal, peer)
}

fn declare(world: &mut World, journal: &SlowJournal, peer: usize, queue: &str) {
    world.tell(peer, 1, "queue.declare", &format!("queue={queue} durable"));
    journal.flush(world);
    assert_eq!(world.heard(peer).len(), 1);
}

const PERSISTENT: &str = "delivery_mode=2";

#[test]
fn declare_ok_of_a_durable_queue_waits_for_the_log() {
    let (mut world, journal, peer) = slow_world();
    world.tell(peer, 1, "queue.declare", "queue=q durable");
    assert!(world.heard(peer).is_empty());
    journal.flush(&mut world);
    assert_eq!(world.heard(peer), ["1 queue.declare-ok queue='q' messages=0 consumers=0"]);
}

#[test]
fn declare_ok_of_a_transient_queue_does_not_wait() {
    let (mut world, _journal, peer) = slow_world();
    assert_eq!(world.call(peer, 1, "queue.declare", "queue=q"), "1 queue.declare-ok queue='q' messages=0 consumers=0");
}

#[test]
fn a_second_declare_waits_for_the_record_of_the_first() {
    let (mut world, journal, peer) = slow_world();
    let other = world.open(1);
    world.tell(peer, 1, "queue.declare", "queue=q durable");
    world.tell(other, 1, "queue.declare", "queue=q durable");
    let third = world.open(1);
    world.tell(third, 1, "queue.declare", "queue=q passive");
    assert!(world.heard(other).is_empty() && world.heard(third).is_empty());
    journal.flush(&mut world);
    assert_eq!(world.heard(other), ["1 queue.declare-ok queue='q' messages=0 consumers=0"]);
    assert_eq!(world.heard(third), ["1 queue.declare-ok queue='q' messages=0 consumers=0"]);
}

#[test]
fn bind_delete_and_purge_of_durable_things_wait_for_the_log() {
    let (mut world, journal, peer) = slow_world();
    declare(&mut world, &journal, peer, "q");
    for (name, values, answer) in [
        ("queue.bind", "queue=q exchange=amq.topic key=k", "1 queue.bind-ok"),
        ("queue.unbind", "queue=q exchange=amq.topic key=k", "1 queue.unbind-ok"),
        ("exchange.declare", "exchange=x type=fanout durable", "1 exchange.declare-ok"),
        ("exchange.bind", "destination=amq.fanout source=x", "1 exchange.bind-ok"),
        ("exchange.delete", "exchange=x", "1 exchange.delete-ok"),
        ("queue.delete", "queue=q", "1 queue.delete-ok messages=0"),
    ] {
        world.tell(peer, 1, name, values);
        assert!(world.heard(peer).is_empty(), "{name} waits");
        journal.flush(&mut world);
        assert_eq!(world.heard(peer), [answer]);
    }
}

#[test]
fn a_confirm_of_a_persistent_message_waits_and_of_a_transient_one_does_not() {
    let (mut world, journal, peer) = slow_world();
    declare(&mut world, &journal, peer, "q");
    world.call(peer, 1, "confirm.select", "");
    world.publish(peer, 1, "q", "", b"transient");
    assert_eq!(world.heard(peer), ["1 basic.ack delivery=1 multiple=false"]);
    world.publish(peer, 1, "q", PERSISTENT, b"persistent");
    assert!(world.heard(peer).is_empty());
    journal.flush(&mut world);
    assert_eq!(world.heard(peer), ["1 basic.ack delivery=2 multiple=false"]);
}

#[test]
fn a_transient_publish_is_confirmed_behind_an_earlier_one_that_waits() {
    let (mut world, journal, peer) = slow_world();
    declare(&mut world, &journal, peer, "q");
    world.call(peer, 1, "confirm.select", "");
    world.publish(peer, 1, "q", PERSISTENT, b"first");
    world.publish(peer, 1, "q", "", b"second");
    world.publish(peer, 1, "nowhere", "", b"third");
    assert!(world.heard(peer).is_empty());
    journal.flush(&mut world);
    let said = world.heard(peer);
    assert_eq!(said.last().map(String::as_str), Some("1 basic.ack delivery=3 multiple=false"), "{said:?}");
}

#[test]
fn confirms_follow_the_log_as_far_as_it_is_flushed() {
    let (mut world, journal, peer) = slow_world();
    declare(&mut world, &journal, peer, "q");
    world.call(peer, 1, "confirm.select", "");
    let before = journal.written();
    for body in [b"1", b"2", b"3"] {
        world.publish(peer, 1, "q", PERSISTENT, body);
    }
    let unconfirmed = |world: &World| world.broker.connections.list()[0].handle.channels()[0].unconfirmed;
    assert_eq!(unconfirmed(&world), 3);
    journal.flush_to(before + 2, &mut world);
    let said = world.heard(peer);
    assert_eq!(said.last().map(String::as_str), Some("1 basic.ack delivery=2 multiple=false"), "{said:?}");
    assert_eq!(unconfirmed(&world), 1);
    journal.flush(&mut world);
    assert_eq!(world.heard(peer), ["1 basic.ack delivery=3 multiple=false"]);
    assert_eq!(unconfirmed(&world), 0);
}

#[test]
fn channels_do_not_wait_for_each_other() {
    let (mut world, journal, peer) = slow_world();
    declare(&mut world, &journal, peer, "q");
    world.call(peer, 2, "channel.open", "");
    world.call(peer, 1, "confirm.select", "");
    world.call(peer, 2, "confirm.select", "");
    world.publish(peer, 1, "q", PERSISTENT, b"waits");
    world.publish(peer, 2, "q", "", b"goes");
    assert_eq!(world.heard(peer), ["2 basic.ack delivery=1 multiple=false"]);
}

#[test]
fn tx_commit_ok_waits_for_the_log_and_for_the_one_record_that_commits() {
    let (mut world, journal, peer) = slow_world();
    declare(&mut world, &journal, peer, "q");
    declare(&mut world, &journal, peer, "r");
    world.call(peer, 1, "tx.select", "");
    world.publish(peer, 1, "q", PERSISTENT, b"1");
    world.publish(peer, 1, "r", PERSISTENT, b"2");
    let before = journal.written();
    world.tell(peer, 1, "tx.commit", "");
    assert!(world.heard(peer).is_empty());
    // The messages come first and say nothing by themselves.
    assert_eq!(journal.written(), before + 3);
    let records = journal.records.lock().split_off(before as usize);
    assert!(matches!(&records[..2], [Record::Body { targets: 1, .. }, Record::Body { targets: 1, .. }]));
    assert!(matches!(&records[2], Record::Transaction(records) if records.len() == 2));
    journal.records.lock().extend(records);
    journal.flush(&mut world);
    assert_eq!(world.heard(peer), ["1 tx.commit-ok"]);
}

#[test]
fn a_commit_that_finds_its_exchange_gone_leaves_nothing_behind() {
    let (mut world, journal, peer) = slow_world();
    declare(&mut world, &journal, peer, "q");
    let other = world.open(1);
    world.call(other, 1, "exchange.declare", "exchange=x type=fanout");
    world.call(peer, 1, "tx.select", "");
    world.publish(peer, 1, "q", PERSISTENT, b"1");
    world.send(peer, &lines::publish(1, "exchange=x", "", &[], b"2"));
    world.call(other, 1, "exchange.delete", "exchange=x");
    let before = journal.written();
    world.tell(peer, 1, "tx.commit", "");
    assert_eq!(world.heard(peer), [r#"1 channel.close 404 "NOT_FOUND - no exchange 'x' in vhost '/'" 90/20"#]);
    assert_eq!(journal.written(), before);
}

#[test]
fn no_delivery_comes_before_the_answer_to_its_consumer() {
    let (mut world, journal, peer) = slow_world();
    declare(&mut world, &journal, peer, "full");
    world.publish(peer, 1, "full", "", b"m");
    world.tell(peer, 1, "queue.declare", "queue=new durable");
    world.tell(peer, 1, "basic.consume", "queue=full tag=c no_ack");
    world.tell(peer, 1, "basic.get", "queue=new");
    assert!(world.heard(peer).is_empty());
    journal.flush(&mut world);
    assert_eq!(
        world.heard(peer),
        [
            "1 queue.declare-ok queue='new' messages=0 consumers=0",
            "1 basic.consume-ok tag='c'",
            "1 basic.deliver tag='c' delivery=1 redelivered=false exchange='' key='full' body 'm'",
            "1 basic.get-empty",
        ]
    );
}

#[test]
fn a_consumer_does_not_wait_for_settles_of_the_same_read() {
    let (mut world, journal, peer) = slow_world();
    declare(&mut world, &journal, peer, "q");
    world.publish(peer, 1, "q", PERSISTENT, b"1");
    world.tell(peer, 1, "basic.get", "queue=q");
    assert_eq!(world.heard(peer).len(), 1);
    let mut octets = lines::method(1, "basic.ack", "delivery=1", &[]);
    octets.extend(lines::method(1, "basic.consume", "queue=q tag=c", &[]));
    world.send(peer, &octets);
    assert_eq!(world.heard(peer), ["1 basic.consume-ok tag='c'"]);
}

#[test]
fn a_channel_that_waits_is_closed_behind_its_answers() {
    let (mut world, journal, peer) = slow_world();
    world.tell(peer, 1, "queue.declare", "queue=q durable");
    world.tell(peer, 1, "channel.close", "code=200");
    assert!(world.heard(peer).is_empty());
    journal.flush(&mut world);
    assert_eq!(world.heard(peer), ["1 queue.declare-ok queue='q' messages=0 consumers=0", "1 channel.close-ok"]);
}

/// A queue whose one message is on disk, until `arrive` was called.
#[derive(Default)]
struct Pages {
    asked: Mutex<Vec<PageRequest>>,
    asked_count: AtomicU64,
    cold: Mutex<Option<(ColdEntry, Message)>>,
}

impl ColdPages for Pages {
    fn fetch(&self, request: PageRequest) {
        self.asked_count.fetch_add(1, Ordering::SeqCst);
        self.asked.lock().push(request);
    }

    fn fetch_held(&self, _: HoldsRequest) {}

    fn find(&self, _: QueueId, _: u8, _: u64) -> Option<ColdEntry> {
        None
    }

    fn header(&self, _: QueueId) -> Option<Header> {
        None
    }

    fn segments(&self, _: QueueId) -> Vec<Summary> {
        Vec::new()
    }
}

fn cold_world() -> (World, Arc<Pages>, usize) {
    let journal = Arc::new(SlowJournal::default());
    journal.flushed.store(u64::MAX, Ordering::SeqCst);
    let mut world = World::with_journal(journal.clone());
    let pages = Arc::new(Pages::default());
    world.broker.attach_cold_pages(pages.clone());
    let peer = world.open(1);
    world.call(peer, 1, "queue.declare", "queue=q durable");
    world.publish(peer, 1, "q", PERSISTENT, b"cold");
    let queue = world.broker.vhost("/").unwrap().queue("q").unwrap();
    let window = Window { bytes: 0, messages: 0 };
    let look = queue.look(Position(u64::MAX), &window).unwrap();
    let message = journal.records.lock().last().and_then(Record::message).cloned();
    *pages.cold.lock() = look.puts.into_iter().next().zip(message);
    queue.looked(true, &window);
    (world, pages, peer)
}

fn arrive(pages: &Pages, world: &mut World) {
    let requests = std::mem::take(&mut *pages.asked.lock());
    for request in requests {
        let Some(queue) = request.queue.upgrade() else { continue };
        let cold = pages.cold.lock().take();
        let page = Page {
            generation: request.generation,
            wanted: request.wanted,
            result: Ok(cold.into_iter().collect()),
            next: None,
            next_deadline: Time::NEVER,
        };
        queue.page_in(page, &mut Turn::new(&world.broker, Time(0)));
        assert_eq!((queue.cold().0, queue.status().ready), (0, 1), "the message is here");
    }
    // For the page, and for what was recorded when the message was taken.
    for _ in 0..2 {
        world.broker.waiting.proceed();
        world.settle();
    }
}

const COLD: &str =
    "1 basic.get-ok delivery=1 redelivered=false exchange='' key='q' messages=0 delivery_mode:2 body 'cold'";

#[test]
fn a_get_waits_for_its_page_and_later_frames_wait_behind_it() {
    let (mut world, pages, peer) = cold_world();
    world.call(peer, 2, "channel.open", "");
    world.tell(peer, 1, "basic.get", "queue=q");
    world.tell(peer, 1, "queue.declare", "queue=q passive");
    world.publish(peer, 1, "q", "", b"later");
    world.tell(peer, 1, "basic.get", "queue=q no_ack");
    assert!(world.heard(peer).is_empty());
    // Another channel goes on.
    assert_eq!(world.call(peer, 2, "basic.qos", "count=1"), "2 basic.qos-ok");
    arrive(&pages, &mut world);
    assert_eq!(
        world.heard(peer),
        [
            COLD,
            "1 queue.declare-ok queue='q' messages=0 consumers=0",
            "1 basic.get-ok delivery=2 redelivered=false exchange='' key='q' messages=0 body 'later'",
        ]
    );
}

#[test]
fn a_wake_up_for_something_else_leaves_a_get_waiting() {
    let (mut world, pages, peer) = cold_world();
    world.tell(peer, 1, "basic.get", "queue=q");
    for _ in 0..3 {
        world.broker.waiting.proceed();
        assert!(world.heard(peer).is_empty());
    }
    assert_eq!(pages.asked_count.load(Ordering::SeqCst), 1, "a page is asked for once");
    arrive(&pages, &mut world);
    assert_eq!(world.heard(peer), [COLD]);
}

#[test]
fn parked_frames_are_bounded() {
    let (mut world, pages, peer) = cold_world();
    world.tell(peer, 1, "basic.get", "queue=q");
    let publish = lines::publish(1, "key=q", "", &[], &[b'x'; 4000]);
    let mut sent = 0;
    while world.wants_input(peer) {
        world.send(peer, &publish);
        sent += 1;
        assert!(sent < 200, "the session stops wanting input");
    }
    assert!(sent > 60);
    arrive(&pages, &mut world);
    assert!(world.wants_input(peer));
    assert_eq!(world.heard(peer).len(), 1);
    let count = world.call(peer, 1, "queue.declare", "queue=q passive");
    assert_eq!(count, format!("1 queue.declare-ok queue='q' messages={sent} consumers=0"));
}

#[test]
fn a_connection_that_goes_while_it_waits_leaves_its_message() {
    let (mut world, pages, peer) = cold_world();
    world.tell(peer, 1, "basic.get", "queue=q");
    world.hang_up(peer);
    arrive(&pages, &mut world);
    let other = world.open(1);
    assert_eq!(
        world.call(other, 1, "queue.declare", "queue=q passive"),
        "1 queue.declare-ok queue='q' messages=1 consumers=0"
    );
}

#[test]
fn a_connection_is_not_read_from_while_too_many_confirms_wait() {
    let journal = Arc::new(SlowJournal::default());
    let options = Options { unconfirmed_per_channel_max: 3, ..Options::default() };
    let mut world = World::with(BrokerOptions::default(), options);
    world.broker.attach_journal(journal.clone());
    let peer = world.open(1);
    declare(&mut world, &journal, peer, "q");
    world.call(peer, 1, "confirm.select", "");
    for number in 1..=3 {
        assert!(world.wants_input(peer), "before publish {number}");
        world.publish(peer, 1, "q", PERSISTENT, b"m");
    }
    assert!(!world.wants_input(peer));
    world.publish(peer, 1, "q", PERSISTENT, b"m");
    assert!(world.heard(peer).is_empty());
    journal.flush(&mut world);
    assert_eq!(world.heard(peer).last().map(String::as_str), Some("1 basic.ack delivery=3 multiple=false"));
    assert!(world.wants_input(peer));
    journal.flush(&mut world);
    assert_eq!(world.heard(peer), ["1 basic.ack delivery=4 multiple=false"]);
}
