//! The memory alarm under a real overload.

use std::{
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use ternmq::protocol::amqp::codec::{
    hot,
    method::{AMQPClass, connection},
};

use crate::{
    broker::Broker,
    client::{Client, Login, Received, publish},
};

const BODY_BYTES: usize = 16 * 1024;
const COUNT: u64 = 38_400;
const WATERMARK_BYTES: u64 = 128 << 20;

/// The next connection.blocked or unblocked; its reason if it is the former. Counts the heartbeats
/// before it.
fn next_notice(client: &mut Client) -> Option<String> {
    loop {
        match client.receive() {
            Received::Method(0, AMQPClass::Connection(connection::AMQPMethod::Blocked(blocked))) => {
                return Some(blocked.reason.to_string());
            }
            Received::Method(0, AMQPClass::Connection(connection::AMQPMethod::Unblocked(_))) => return None,
            Received::End => panic!("the connection was closed"),
            _ => {}
        }
    }
}

#[test]
fn overload_stops_publishers_and_lets_consumers_drain_it_without_a_loss() {
    // Without files to go to, what waits is in memory.
    let watermark = format!("broker.memory_high_watermark={WATERMARK_BYTES}");
    let mut broker = Broker::with(&[&watermark, "store.spill=off"]);
    let mut publisher = broker.client_with(&Login { heartbeat_secs: 1, ..Login::default() });
    publisher.open_channel(1);
    publisher.declare("q");
    publisher.select_confirms();
    // Connected before, as consumers usually are; it has not published, so nothing blocks it.
    let mut consumer = broker.channel();
    let written = Arc::new(AtomicU64::new(0));
    let writer = {
        let (mut stream, written) = (publisher.stream.try_clone().unwrap(), written.clone());
        stream.set_write_timeout(None).unwrap();
        thread::spawn(move || {
            let mut body = [7; BODY_BYTES];
            for n in 1..=COUNT {
                body[..8].copy_from_slice(&n.to_be_bytes());
                stream.write_all(&publish("q", &body)).unwrap();
                written.store(n, Ordering::Relaxed);
            }
        })
    };
    assert_eq!(next_notice(&mut publisher), Some("low on memory".to_owned()));
    broker.await_log("memory alarm on");
    // Longer than a silent peer may be: it is not read from, so it cannot be silent.
    for _ in 0..8 {
        while publisher.receive() != Received::Heartbeat {}
    }
    let stopped_at = written.load(Ordering::Relaxed);
    assert!(stopped_at < COUNT, "the publisher is no longer read from");
    let cpu = broker.cpu();
    for _ in 0..3 {
        while publisher.receive() != Received::Heartbeat {}
    }
    let cpu = broker.cpu() - cpu;
    assert!(cpu < Duration::from_millis(500), "{cpu:?} for a publisher that waits, in two seconds or so");
    assert_eq!(written.load(Ordering::Relaxed), stopped_at, "the publisher is not read from at all");
    // A second publisher is told with its first message, and not before.
    let mut second = broker.channel();
    assert_eq!(second.look("q").map(|(_, consumers)| consumers), Some(0));
    second.publish("q", &0_u64.to_be_bytes());
    assert_eq!(next_notice(&mut second), Some("low on memory".to_owned()));

    consumer.qos(100);
    consumer.consume("q", false);
    let drain = thread::spawn(move || {
        let mut next = 1;
        let mut others = 0;
        while next <= COUNT || others == 0 {
            let message = consumer.delivery();
            consumer.ack(message.tag, false);
            let number = u64::from_be_bytes(message.body[..8].try_into().unwrap());
            if number == 0 {
                others += 1;
            } else {
                assert_eq!(number, next, "in order, none lost and none twice");
                next += 1;
            }
        }
        consumer
    });
    assert_eq!(next_notice(&mut publisher), None);
    assert_eq!(next_notice(&mut second), None);
    let mut heartbeat = Vec::new();
    hot::put_heartbeat(&mut heartbeat);
    // It may be blocked again before all is written; the socket is read to let it go on.
    let mut consumer = loop {
        if drain.is_finished() {
            break drain.join().unwrap();
        }
        assert_ne!(publisher.receive(), Received::End);
        if writer.is_finished() {
            // Nobody else writes to this socket any more, and a silent peer is given up.
            publisher.write(&heartbeat);
        }
    };
    writer.join().unwrap();
    assert_eq!(consumer.look("q"), Some((0, 1)));
}
