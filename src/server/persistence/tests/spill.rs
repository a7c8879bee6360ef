//! Durable queues with persistent and transient messages, both behind the window: the former in the log,
//! the latter spilled.

use super::*;
use crate::broker::time::Time;

/// Messages of each kind.
const EACH: u64 = 1_500;
/// What may be in memory: the window, and by half of it more before anybody is told.
const RESIDENT_BYTES_MAX: u64 = (8 << 10) * 3 / 2;

fn name(number: u64) -> String {
    format!("{number:05}{}", "-".repeat(100 + number as usize % 7))
}

/// By turns, persistent first.
fn fill(rig: &Rig, queue: &str, ttl_ms: Option<u64>) {
    for number in 0..2 * EACH {
        let body = name(number);
        let mut message = Message::build("", queue.as_bytes(), b"", (0, 0), body.as_bytes());
        message.traits.persistent = number.is_multiple_of(2);
        message.traits.priority = (number / 100 % 3) as u8;
        message.traits.ttl = ttl_ms.into();
        rig.queue(queue).publish([message].into_iter(), &mut rig.turn(), &mut Vec::new());
    }
    leave_memory(rig, queue);
}

fn leave_memory(rig: &Rig, queue: &str) {
    let queue = rig.queue(queue);
    let resident = || queue.status().ready_bytes - queue.cold().1;
    while resident() > RESIDENT_BYTES_MAX {
        rig.checkpoint();
        // The thread of the spill does the rest.
        std::thread::yield_now();
    }
}

/// All that is left, which has to be in order.
fn drain_in_order(rig: &Rig, queue: &str) -> usize {
    let mut last = BTreeMap::new();
    let mut count = 0;
    while let Some(got) = rig.get(queue, true) {
        let body = String::from_utf8(got.message.body_to_vec()).unwrap();
        let number: u64 = body[..5].parse().unwrap();
        assert_eq!(body, name(number));
        assert_eq!(got.message.traits.persistent, number.is_multiple_of(2));
        let before = last.insert(got.message.traits.priority, number);
        assert!(before < Some(number), "{number} after {before:?}");
        count += 1;
    }
    count
}

#[test]
fn transient_messages_of_a_durable_queue_leave_memory_and_come_back_in_their_order() {
    let rig = Rig::new();
    rig.declare("q");
    fill(&rig, "q", None);
    let queue = rig.queue("q");
    let status = queue.status();
    assert_eq!((status.ready, queue.persistent().0), (2 * EACH, EACH));
    // What comes back keeps its place.
    let taken: Vec<_> = std::iter::from_fn(|| rig.get("q", false)).take(EACH as usize).collect();
    leave_memory(&rig, "q");
    for got in &taken {
        rig.settle("q", got.held.unwrap(), Settle::Returned);
    }
    assert_eq!(drain_in_order(&rig, "q"), 2 * EACH as usize);
}

#[test]
fn a_restart_leaves_the_persistent_messages_of_a_queue_that_spilled_others() {
    let rig = Rig::new();
    rig.declare("q");
    fill(&rig, "q", None);
    let crashed = rig.crash();
    assert_eq!(crashed.queue("q").status().ready, EACH);
    assert_eq!(drain_in_order(&crashed, "q"), EACH as usize);
    let rig = rig.reopen();
    fill(&rig, "q", None);
    assert_eq!(rig.queue("q").status().ready, 3 * EACH);
    rig.queue("q").purge(&mut rig.turn());
    assert_eq!(rig.queue("q").status().ready, 0);
    fill(&rig, "q", None);
    assert_eq!(drain_in_order(&rig, "q"), 2 * EACH as usize);
}

#[test]
fn expired_messages_are_dead_lettered_whether_they_were_logged_or_spilled() {
    let rig = Rig::new();
    let arguments = Table::from_iter([
        ("x-dead-letter-exchange", Value::text("")),
        ("x-dead-letter-routing-key", Value::text("dead")),
    ]);
    let vhost = rig.opened().broker.vhost("/").unwrap();
    for (name, arguments) in [("work", arguments), ("dead", Table::new())] {
        let wanted = DeclareQueue { name, durable: true, arguments, ..DeclareQueue::default() };
        vhost.declare_queue(&wanted, None, &mut rig.turn()).unwrap();
    }
    fill(&rig, "work", Some(3_600_000));
    let now: Time = clock::now().after_ms(3_600_001);
    while rig.queue("dead").status().ready < 2 * EACH {
        rig.opened().broker.tick(now);
        std::thread::yield_now();
        assert!(!rig.queue("work").is_damaged());
    }
    let status = rig.queue("work").status();
    assert_eq!((status.ready, status.counters.expired), (0, 2 * EACH));
    leave_memory(&rig, "dead");
    assert_eq!(std::iter::from_fn(|| rig.body("dead")).count() as u64, 2 * EACH);
}
