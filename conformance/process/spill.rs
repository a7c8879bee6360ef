//! Long queues with messages that are in no log: memory stays flat, and nothing of these outlives the
//! process.

use ternmq::protocol::amqp::codec::method::queue;

use crate::{
    broker::{Broker, until},
    client::Client,
};

const MESSAGES: u64 = 200_000;
const BODY_BYTES: usize = 1024;

fn body(number: u64) -> Vec<u8> {
    let mut body = vec![b'x'; BODY_BYTES];
    body[..8].copy_from_slice(&number.to_le_bytes());
    body
}

fn fill(broker: &Broker, queue: &str, messages: u64) {
    let mut publisher = broker.channel();
    publisher.select_confirms();
    publisher.declare(queue);
    for number in 1..=messages {
        publisher.publish(queue, &body(number));
        if number % 1000 == 0 || number == messages {
            publisher.await_confirm(number);
        }
    }
    publisher.close();
}

fn segments_count(broker: &Broker) -> usize {
    broker.files("spill/log").iter().filter(|name| name.ends_with(".seg")).count()
}

#[test]
fn a_long_transient_queue_leaves_memory_and_comes_back_in_order() {
    let mut broker = Broker::start();
    let before = broker.resident_bytes();
    fill(&broker, "long", MESSAGES);
    let whole = MESSAGES * BODY_BYTES as u64;
    until("the queue has left memory", || broker.resident_bytes() < before + whole / 2);
    let full = broker.resident_bytes();
    assert!(segments_count(&broker) > 2);
    broker.await_log("go to files");

    let mut consumer = broker.channel();
    consumer.qos(500);
    consumer.consume("long", false);
    for number in 1..=MESSAGES {
        let delivered = consumer.delivery();
        assert_eq!(delivered.body[..8], number.to_le_bytes(), "in order, and none twice");
        assert!(!delivered.redelivered);
        if number % 100 == 0 {
            consumer.ack(delivered.tag, true);
        }
    }
    let mib = |bytes: u64| bytes >> 20;
    println!("RSS at start {} MiB, with {MESSAGES} x 1 KiB waiting {} MiB", mib(before), mib(full));
    until("the queue is empty", || consumer.look("long") == Some((0, 1)));
    until("its files are given up", || segments_count(&broker) == 1);
    consumer.close();

    // Of a queue that goes at once, too.
    fill(&broker, "gone", MESSAGES / 2);
    until("it is written", || segments_count(&broker) > 1);
    broker.ctl(&["delete_queue", "gone"]);
    until("its files are given up", || segments_count(&broker) == 1);

    fill(&broker, "left", MESSAGES / 4);
    until("it is written", || segments_count(&broker) > 1);
    broker.terminate();
    broker.wait();
    broker.start_again();
    assert!(broker.files("spill").is_empty(), "{:?}", broker.files("spill"));
}

#[test]
fn transient_messages_of_a_long_durable_queue_leave_memory_and_a_restart_leaves_the_others() {
    const PERSISTENT: &[u8] = &[0x10, 0, 2];
    let messages = MESSAGES / 2;
    let mut broker = Broker::start();
    let before = broker.resident_bytes();
    let mut client = broker.channel();
    client.select_confirms();
    client.declare_with(queue::Declare { queue: "mixed".into(), durable: true, ..queue::Declare::default() });
    for number in 1..=messages {
        match number % 10 {
            0 => client.publish_with("mixed", &body(number), PERSISTENT),
            _ => client.publish("mixed", &body(number)),
        }
        if number % 1000 == 0 {
            client.await_confirm(number);
        }
    }
    client.close();
    until("the queue has left memory", || broker.resident_bytes() < before + messages * BODY_BYTES as u64 / 2);
    assert!(segments_count(&broker) > 2);

    let mut consumer = broker.channel();
    let is_there = |consumer: &mut Client, number: u64| {
        assert_eq!(consumer.get("mixed").unwrap().body[..8], number.to_le_bytes(), "in order, and none twice");
    };
    (1..=messages / 20).for_each(|number| is_there(&mut consumer, number));
    consumer.close();
    broker.terminate();
    broker.wait();
    broker.start_again();
    let mut consumer = broker.channel();
    assert_eq!(consumer.look("mixed"), Some((((messages - messages / 20) / 10) as u32, 0)));
    (1..=messages / 100).for_each(|number| is_there(&mut consumer, messages / 20 + 10 * number));
}

#[test]
fn what_cannot_be_written_stays_in_memory_until_it_can() {
    let mut broker = Broker::start();
    let in_the_way = broker.data().join("spill");
    std::fs::write(&in_the_way, b"").unwrap();
    let messages = 20_000;
    fill(&broker, "q", messages);
    broker.await_log("they stay in memory");
    let mut consumer = broker.channel();
    for number in 1..=messages / 100 {
        assert_eq!(consumer.get("q").unwrap().body[..8], number.to_le_bytes());
    }
    std::fs::remove_file(&in_the_way).unwrap();
    // Nobody has to touch the queue for that.
    broker.await_log("are written to files again");
    for number in messages / 100 + 1..=messages {
        assert_eq!(consumer.get("q").unwrap().body[..8], number.to_le_bytes());
    }
    assert_eq!(consumer.get("q"), None);
}
