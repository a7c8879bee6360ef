//! Peers that read or write slowly, or not at all.

use crate::{
    broker::{Broker, until},
    client::publish,
};

const BODY_BYTES: usize = 16 * 1024;
const BACKLOG_COUNT: u64 = 12_800;
/// More than the sockets of one connection and its outbox take.
const COUNT: u64 = 2000;

/// Fills a queue with 200 MiB.
fn fill(broker: &Broker, queue: &str) {
    let mut publisher = broker.channel();
    publisher.declare(queue);
    publisher.select_confirms();
    let message = publish(queue, &[7; BODY_BYTES]);
    for batch in 1..=BACKLOG_COUNT / 64 {
        publisher.write(&message.repeat(64));
        publisher.await_confirm(batch * 64);
    }
    publisher.close();
}

#[test]
fn consumer_that_does_not_read_costs_its_outbox_and_gets_no_more() {
    let broker = Broker::with(&["amqp.outbox_bytes_max=1MiB"]);
    fill(&broker, "q");
    let filled = broker.resident_bytes();
    let mut slow = broker.channel();
    slow.consume("q", false);
    let mut lazy = broker.channel();
    lazy.consume("q", false);
    // Others go on: a hundred messages there and back.
    let mut other = broker.channel();
    other.declare("other");
    for n in 0..100_u8 {
        other.publish("other", &[n]);
        assert_eq!(other.get("other").map(|message| message.body), Some(vec![n]));
    }
    let (ready, consumers) = other.look("q").unwrap();
    assert_eq!(consumers, 2);
    assert!(u64::from(ready) > BACKLOG_COUNT / 2, "{ready} ready: most of the backlog stays in the queue");
    let grown = broker.resident_bytes().saturating_sub(filled);
    assert!(grown < 32 << 20, "{grown} bytes more for two consumers that do not read");
    slow.kill();
    lazy.kill();
    until("everything is back", || other.look("q") == Some((BACKLOG_COUNT as u32, 0)));
}

#[test]
fn only_what_was_sent_to_a_consumer_is_redelivered() {
    let broker = Broker::with(&["amqp.outbox_bytes_max=1MiB"]);
    let mut publisher = broker.channel();
    publisher.declare("q");
    publisher.select_confirms();
    for n in 1..=COUNT {
        publisher.publish("q", &[7; BODY_BYTES]);
        publisher.await_confirm(n);
    }
    // It takes what fits its socket and a little more, and goes.
    let mut consumer = broker.channel();
    consumer.consume("q", false);
    let mut seen = 0;
    while seen < 10 {
        assert!(!consumer.delivery().redelivered);
        seen += 1;
    }
    let held = COUNT - u64::from(publisher.look("q").unwrap().0);
    assert!(held < COUNT, "the outbox is full before the queue is empty");
    consumer.kill();
    until("everything is back", || publisher.look("q") == Some((COUNT as u32, 0)));
    let flags: Vec<bool> = (0..COUNT).map(|_| publisher.get("q").unwrap().redelivered).collect();
    let redelivered = flags.iter().take_while(|&&redelivered| redelivered).count() as u64;
    assert!(redelivered >= seen, "{redelivered} are redelivered and {seen} were seen");
    assert!(flags[redelivered as usize..].iter().all(|&redelivered| !redelivered), "what was sent stands in front");
    assert!(redelivered < held, "{redelivered} of {held}: what waited in the outbox was never sent");
}

#[test]
fn consumer_that_reads_again_gets_everything_in_order() {
    let broker = Broker::with(&["amqp.outbox_bytes_max=64KiB"]);
    let mut client = broker.channel();
    client.declare("q");
    client.consume("q", true);
    let mut publisher = broker.channel();
    publisher.select_confirms();
    for n in 1..=4000_u64 {
        let mut body = vec![7; 8192];
        body[..8].copy_from_slice(&n.to_be_bytes());
        publisher.publish("q", &body);
    }
    publisher.await_confirm(4000);
    for n in 1..=4000_u64 {
        assert_eq!(client.delivery().body[..8], n.to_be_bytes());
    }
    client.qos(0);
}

#[test]
fn publish_that_arrives_octet_by_octet_is_a_publish() {
    let broker = Broker::start();
    let mut slow = broker.channel();
    slow.declare("q");
    slow.select_confirms();
    let mut other = broker.channel();
    for (n, octet) in publish("q", &[7; 3000]).into_iter().enumerate() {
        slow.write(&[octet]);
        if n % 500 == 0 {
            assert_eq!(other.get("q"), None, "nothing is there before the last octet");
        }
    }
    slow.await_confirm(1);
    assert_eq!(other.get("q").map(|message| message.body), Some(vec![7; 3000]));
}
