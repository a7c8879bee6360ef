//! Clients that ask for too much of everything: each meets a bound, and nobody else notices.

use std::io::Write as _;

use ternmq::protocol::amqp::codec::method::{self, AMQPClass, channel, queue};

use crate::{
    broker::Broker,
    client::{Client, Login, consume},
};

#[test]
fn channels_beyond_the_bound_close_the_connection() {
    let broker = Broker::with(&["amqp.channel_max=8"]);
    let mut other = broker.channel_of_8();
    let mut client = broker.client_of_8();
    for number in 1..=8 {
        client.open_channel(number);
    }
    client.send(9, AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {})));
    let text = "NOT_ALLOWED - number of channels opened (8) has reached the negotiated channel_max (8)";
    assert_eq!(client.connection_closed(), (530, text.to_owned()));
    other.declare("q");
}

#[test]
fn two_thousand_channels_are_no_flood() {
    let broker = Broker::start();
    let mut client = broker.client();
    let mut out = Vec::new();
    for number in 1..=2047 {
        let open = AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {}));
        method::encode(number, &open, &mut out);
    }
    client.write(&out);
    for _ in 1..=2047 {
        let answer = client.method();
        assert!(matches!(answer, AMQPClass::Channel(channel::AMQPMethod::OpenOk(_))), "{answer:?}");
    }
    client.close();
}

#[test]
fn consumers_beyond_the_bound_close_the_connection() {
    let broker = Broker::with(&["amqp.consumers_per_channel_max=5"]);
    let mut client = broker.channel();
    client.declare("q");
    for n in 0..6 {
        client.send(1, consume("q", &n.to_string(), false));
    }
    let text = "NOT_ALLOWED - reached maximum (5) of consumers per channel";
    assert_eq!(client.connection_closed(), (530, text.to_owned()));
    client.send_close_ok();
    client.until_end();
    assert_eq!(broker.client().look("q"), Some((0, 0)), "its consumers went with it");
}

#[test]
fn credit_is_withheld_at_the_bound_of_unsettled_deliveries() {
    let broker = Broker::with(&["amqp.unsettled_per_channel_max=10"]);
    let mut client = broker.channel();
    client.declare("q");
    client.select_confirms();
    for n in 0..100_u8 {
        client.publish("q", &[n]);
    }
    client.await_confirm(100);
    client.consume("q", false);
    for n in 0..10 {
        assert_eq!(client.delivery().body, [n]);
    }
    // An eleventh would come before this answer.
    client.qos(0);
    assert_eq!(broker.client().look("q"), Some((90, 1)));
    client.ack(5, true);
    for n in 10..15 {
        assert_eq!(client.delivery().body, [n]);
    }
    client.qos(0);
    client.ack(15, true);
    for n in 15..25 {
        assert_eq!(client.delivery().body, [n]);
    }
}

#[test]
fn several_consumers_of_a_channel_share_the_bound_of_unsettled_deliveries() {
    let broker = Broker::with(&["amqp.unsettled_per_channel_max=10"]);
    let mut client = broker.channel();
    client.declare("q");
    client.select_confirms();
    for n in 0..100_u8 {
        client.publish("q", &[n]);
    }
    client.await_confirm(100);
    for n in 0..4 {
        client.send(1, consume("q", &n.to_string(), false));
    }
    client.send(
        1,
        AMQPClass::Queue(queue::AMQPMethod::Declare(queue::Declare {
            queue: "q".into(),
            passive: true,
            ..queue::Declare::default()
        })),
    );
    let ready = loop {
        if let crate::client::Received::Method(1, AMQPClass::Queue(queue::AMQPMethod::DeclareOk(ok))) = client.receive()
        {
            break ok.message_count;
        }
    };
    assert!(ready >= 90, "{ready} ready: more than 10 are unsettled on one channel");
}

#[test]
fn requests_whose_answers_nobody_reads_stop_being_read() {
    let broker = Broker::with(&["amqp.outbox_bytes_max=65536"]);
    let mut client = broker.channel();
    client.declare("q");
    let before = broker.resident_bytes();
    let mut out = Vec::new();
    for _ in 0..10_000 {
        let declare = queue::Declare { queue: "q".into(), passive: true, ..queue::Declare::default() };
        method::encode(1, &AMQPClass::Queue(queue::AMQPMethod::Declare(declare)), &mut out);
    }
    // The broker's outbox, then both socket buffers fill; then the write ends.
    client.stream.set_write_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
    let mut written = 0_u64;
    let stopped = loop {
        match client.stream.write(&out) {
            Ok(count) => written += count as u64,
            Err(error) => break error,
        }
        assert!(written < 1 << 30, "a gigabyte of requests is read without an answer being taken");
    };
    assert!(matches!(stopped.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{stopped}");
    let grown = broker.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more for {written} bytes of requests");
    // Everybody else goes on.
    let mut other = broker.channel();
    other.publish("q", b"x");
    assert!(other.get("q").is_some());
    client.kill();
}

impl Broker {
    /// A client that agrees to eight channels.
    fn client_of_8(&self) -> Client {
        self.client_with(&Login { channel_max: 8, ..Login::default() })
    }

    fn channel_of_8(&self) -> Client {
        let mut client = self.client_of_8();
        client.open_channel(1);
        client
    }
}
