//! A stream that is longer than memory: its messages stay under their offsets, also after a crash.

use ternmq::protocol::amqp::codec::method::{AMQPClass, AMQPValue, FieldTable, basic, queue};

use crate::{
    broker::{Broker, until},
    client::{Client, Login, publish},
};

const MESSAGES: u64 = 20_000;
/// Small enough that nearly all of the stream is on disk only.
const SETTINGS: [&str; 3] =
    ["store.checkpoint_bytes=1MiB", "store.queue_window_bytes=64KiB", "store.checkpoint_ms=100"];

fn body(offset: u64) -> Vec<u8> {
    format!("{offset:0100}").into_bytes()
}

fn declare(client: &mut Client) -> u32 {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
    let declare = queue::Declare { queue: "s".into(), durable: true, arguments, ..queue::Declare::default() };
    client.declare_with(declare).0
}

fn publish_all(client: &mut Client, offsets: std::ops::Range<u64>) {
    let bytes: Vec<u8> = offsets.flat_map(|offset| publish("s", &body(offset))).collect();
    client.write(&bytes);
}

/// Reads from a place in the stream to its end, and expects the messages from `first` on.
fn read(port: u16, offset: AMQPValue, first: u64) {
    let mut client = Client::connect(port);
    client.login(&Login::default());
    client.open_channel(1);
    client.qos(500);
    let mut arguments = FieldTable::default();
    arguments.insert("x-stream-offset".into(), offset);
    let consume =
        basic::Consume { queue: "s".into(), consumer_tag: "c".into(), arguments, ..basic::Consume::default() };
    client.send(1, AMQPClass::Basic(basic::AMQPMethod::Consume(consume)));
    let answer = client.method();
    assert!(matches!(answer, AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(_))), "{answer:?}");
    for offset in first..MESSAGES {
        let message = client.delivery();
        assert_eq!(message.body, body(offset));
        if message.tag.is_multiple_of(100) {
            client.ack(message.tag, true);
        }
    }
    client.close();
}

#[test]
fn a_stream_on_disk_is_read_from_anywhere_after_a_crash() {
    let mut broker = Broker::with(&SETTINGS);
    let mut client = broker.channel();
    declare(&mut client);
    client.select_confirms();
    publish_all(&mut client, 0..MESSAGES / 2);
    client.await_confirm(MESSAGES / 2);
    // Time stamps are whole seconds: the second half begins in a later one.
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let half = now() + 1;
    until("the second half begins in a later second", || now() > half);
    publish_all(&mut client, MESSAGES / 2..MESSAGES);
    client.await_confirm(MESSAGES);
    for _ in 0..2 {
        read(broker.port, AMQPValue::LongString("first".into()), 0);
        read(broker.port, AMQPValue::LongLongInt(1234), 1234);
        read(broker.port, AMQPValue::Timestamp(half), MESSAGES / 2);
        read(broker.port, AMQPValue::LongLongInt(19_990), 19_990);
        broker.crash();
        assert_eq!(declare(&mut broker.channel()), MESSAGES as u32);
    }
    let mut next = broker.channel();
    next.select_confirms();
    next.publish("s", b"more");
    next.await_confirm(1);
    assert_eq!(declare(&mut next), MESSAGES as u32 + 1);
}

#[test]
fn several_readers_of_a_stream_on_disk_come_to_its_end() {
    let broker = Broker::with(&SETTINGS);
    let mut client = broker.channel();
    declare(&mut client);
    client.select_confirms();
    publish_all(&mut client, 0..MESSAGES);
    client.await_confirm(MESSAGES);
    std::thread::scope(|scope| {
        for reader in 0..12 {
            let port = broker.port;
            scope.spawn(move || read(port, AMQPValue::LongLongInt(reader * 777), reader as u64 * 777));
        }
    });
}
