//! Peers that mean harm: each ends in the right reply code or a closed socket, with bounded memory
//! and everybody else undisturbed.

use ternmq::{broker::Options as BrokerOptions, protocol::amqp::Options};

use super::{
    lines::{self, Value},
    peer::World,
};

#[test]
fn a_large_frame_before_login_is_refused_by_its_head_alone() {
    let mut world = World::new();
    let peer = world.connect();
    world.send(peer, b"AMQP\x00\x00\x09\x01");
    world.heard(peer);
    let mut head = vec![1, 0, 0];
    head.extend(20_000u32.to_be_bytes());
    world.send(peer, &head);
    let said = world.heard(peer);
    assert!(said[0].starts_with("0 connection.close 501 'FRAME_ERROR - type 1, all octets = <<>>: {frame_too_large"));
}

#[test]
fn tables_nested_beyond_32_are_refused() {
    let mut world = World::new();
    let peer = world.open(1);
    let mut nested = Vec::new();
    for _ in 0..40 {
        nested = lines::table(&[("a", Value::Table(&nested))]);
    }
    world.send(peer, &lines::method(1, "queue.declare", "queue=q", &nested));
    let said = world.heard(peer);
    assert!(said[0].starts_with("0 connection.close 50"), "{said:?}");
    let other = world.open(1);
    world.call(other, 1, "queue.declare", "queue=q");
}

#[test]
fn a_body_larger_than_its_header_said_is_a_frame_error() {
    let mut world = World::new();
    let peer = world.open(1);
    let mut octets = lines::method(1, "basic.publish", "key=q", &[]);
    octets.extend(lines::content_header(1, 3, "", &[]));
    octets.extend(lines::frame(3, 1, b"four"));
    world.send(peer, &octets);
    let said = world.heard(peer);
    assert!(said[0].starts_with("0 connection.close 501 'FRAME_ERROR"), "{said:?}");
}

#[test]
fn a_body_larger_than_the_broker_takes_is_refused_by_its_header_and_not_allocated() {
    let mut world = World::new();
    let peer = world.open(1);
    let mut octets = lines::method(1, "basic.publish", "key=q", &[]);
    octets.extend(lines::content_header(1, u64::MAX, "", &[]));
    octets.extend(lines::frame(3, 1, b"start"));
    world.send(peer, &octets);
    let said = world.heard(peer);
    assert!(said[0].starts_with("1 channel.close 406 'PRECONDITION_FAILED - message size"), "{said:?}");
    assert_eq!(said.len(), 1);
}

#[test]
fn a_flood_of_channels_ends_at_the_negotiated_number() {
    let mut world = World::new();
    let peer = world.open_with(1, "channel_max=100 frame_max=131072");
    for channel in 2..=100 {
        world.call(peer, channel, "channel.open", "");
    }
    world.tell(peer, 101, "channel.open", "");
    assert_eq!(
        world.heard(peer),
        ["0 connection.close 530 'NOT_ALLOWED - number of channels opened (100) has reached the negotiated \
          channel_max (100)' 0/0"]
    );
}

#[test]
fn a_flood_of_consumers_ends_at_the_limit_of_its_channel() {
    let options = Options { consumers_per_channel_max: 50, ..Options::default() };
    let mut world = World::with(BrokerOptions::default(), options);
    let peer = world.open(1);
    world.call(peer, 1, "queue.declare", "queue=q");
    for _ in 0..50 {
        world.call(peer, 1, "basic.consume", "queue=q");
    }
    world.tell(peer, 1, "basic.consume", "queue=q");
    assert!(world.heard(peer)[0].starts_with("0 connection.close 530 'NOT_ALLOWED - reached maximum (50)"));
}

#[test]
fn credit_is_withheld_from_a_consumer_that_settles_nothing() {
    let options = Options { unsettled_per_channel_max: 100, ..Options::default() };
    let mut world = World::with(BrokerOptions::default(), options);
    let peer = world.open(1);
    world.call(peer, 1, "queue.declare", "queue=q");
    for _ in 0..150 {
        world.publish(peer, 1, "q", "", b"m");
    }
    world.tell(peer, 1, "basic.consume", "queue=q tag=c");
    assert_eq!(world.heard(peer).len(), 101);
    world.tell(peer, 1, "basic.ack", "delivery=10 multiple");
    assert_eq!(world.heard(peer).len(), 10);
}

#[test]
fn a_consumer_that_reads_nothing_is_parked_and_its_messages_stay_in_the_queue() {
    let mut world =
        World::with(BrokerOptions::default(), Options { outbox_bytes_max: 64 * 1024, ..Options::default() });
    let (deaf, publisher) = (world.open(1), world.open(1));
    world.call(publisher, 1, "queue.declare", "queue=q");
    world.call(deaf, 1, "basic.consume", "queue=q tag=c no_ack");
    world.set_deaf(deaf, true);
    for _ in 0..500 {
        world.publish(publisher, 1, "q", "", &[b'x'; 1000]);
    }
    assert!(world.waiting_bytes(deaf) < 2 * 64 * 1024 + 256 * 1024, "{}", world.waiting_bytes(deaf));
    let count = world.call(publisher, 1, "queue.declare", "queue=q passive");
    assert!(!count.contains("messages=0"), "{count}");
    world.set_deaf(deaf, false);
    assert_eq!(world.heard(deaf).len(), 500, "what waited follows once it reads");
}

#[test]
fn what_a_deaf_consumer_was_never_sent_goes_back_uncounted() {
    let mut world = World::new();
    let (deaf, other) = (world.open(1), world.open(1));
    world.call(other, 1, "queue.declare", "queue=q");
    world.call(deaf, 1, "basic.consume", "queue=q tag=c");
    world.set_deaf(deaf, true);
    world.publish(other, 1, "q", "", b"m");
    world.hang_up(deaf);
    world.tell(other, 1, "basic.get", "queue=q");
    assert_eq!(
        world.heard(other),
        ["1 basic.get-ok delivery=1 redelivered=false exchange='' key='q' messages=0 body 'm'"]
    );
}

#[test]
fn topic_patterns_of_hundreds_of_hashes_do_not_explode() {
    let mut world = World::new();
    let peer = world.open(1);
    world.call(peer, 1, "queue.declare", "queue=q");
    let pattern = vec!["#"; 120].join(".");
    for tail in ["a", "b", "c"] {
        world.call(peer, 1, "queue.bind", &format!("queue=q exchange=amq.topic key={pattern}.{tail}"));
    }
    let key = vec!["x"; 120].join(".");
    for _ in 0..100 {
        world.send(peer, &lines::publish(1, &format!("exchange=amq.topic key={key}"), "", &[], b"m"));
    }
    let count = world.call(peer, 1, "queue.declare", "queue=q passive");
    assert_eq!(count, "1 queue.declare-ok queue='q' messages=0 consumers=0");
}

#[test]
fn a_client_that_stops_inside_a_frame_holds_only_what_it_sent() {
    let mut world = World::new();
    let peer = world.open(1);
    let mut octets = lines::method(1, "basic.publish", "key=q", &[]);
    octets.extend(lines::content_header(1, 100_000_000, "", &[]));
    octets.extend(&[3, 0, 1, 0, 1, 0, 0]);
    world.send(peer, &octets);
    assert!(world.heard(peer).is_empty());
    world.hang_up(peer);
}

#[test]
fn a_transaction_that_grows_beyond_its_bound_closes_the_channel() {
    let options = Options { transaction_messages_max: 3, transaction_bytes_max: 10_000, ..Options::default() };
    let mut world = World::with(BrokerOptions::default(), options);
    let peer = world.open(1);
    world.call(peer, 2, "channel.open", "");
    world.call(peer, 2, "queue.declare", "queue=q");
    let text = "PRECONDITION_FAILED - transaction is larger than 3 messages or 10000 bytes";
    for (count, body) in [(3, &[0; 10][..]), (1, &[0; 9_000][..])] {
        world.call(peer, 1, "tx.select", "");
        for _ in 0..count {
            world.publish(peer, 1, "q", "", body);
        }
        // What fits is committed, and the next transaction begins empty.
        assert_eq!(world.call(peer, 1, "tx.commit", ""), "1 tx.commit-ok");
        for _ in 0..=count {
            world.publish(peer, 1, "q", "", body);
        }
        assert_eq!(world.heard(peer), [format!("1 channel.close 406 '{text}' 60/40")]);
        world.tell(peer, 1, "channel.close-ok", "");
        world.call(peer, 1, "channel.open", "");
    }
    let count = world.call(peer, 2, "queue.declare", "queue=q passive");
    assert_eq!(count, "2 queue.declare-ok queue='q' messages=4 consumers=0");
}

#[test]
fn single_gets_count_as_unsettled_deliveries_of_the_channel() {
    let options = Options { unsettled_per_channel_max: 3, ..Options::default() };
    let mut world = World::with(BrokerOptions::default(), options);
    let peer = world.open(1);
    world.call(peer, 1, "queue.declare", "queue=q");
    for body in [b"1", b"2", b"3", b"4", b"5", b"6"] {
        world.publish(peer, 1, "q", "", body);
    }
    for _ in 0..3 {
        assert!(world.call(peer, 1, "basic.get", "queue=q").starts_with("1 basic.get-ok"));
    }
    assert!(world.call(peer, 1, "basic.get", "queue=q no_ack").starts_with("1 basic.get-ok"));
    world.tell(peer, 1, "basic.ack", "delivery=1");
    assert!(world.call(peer, 1, "basic.get", "queue=q").starts_with("1 basic.get-ok"));
    let text = "PRECONDITION_FAILED - channel 1 has 3 unacknowledged deliveries, which is the maximum";
    assert_eq!(world.call(peer, 1, "basic.get", "queue=q"), format!("1 channel.close 406 '{text}' 60/70"));
}

#[test]
fn a_refusal_that_a_stream_declines_leaves_other_deliveries_where_they_are() {
    let mut world = World::new();
    let (peer, other) = (world.open(1), world.open(1));
    let stream = lines::table(&[("x-queue-type", lines::Value::Text("stream"))]);
    world.call(peer, 1, "queue.declare", "queue=q");
    world.send(peer, &lines::method(1, "queue.declare", "queue=s durable", &stream));
    world.publish(peer, 1, "q", "", b"queued");
    world.publish(peer, 1, "s", "", b"streamed");
    world.tell(peer, 1, "basic.qos", "count=10");
    world.tell(peer, 1, "basic.consume", "queue=q tag=q");
    let first = lines::table(&[("x-stream-offset", lines::Value::Text("first"))]);
    world.send(peer, &lines::method(1, "basic.consume", "queue=s tag=s", &first));
    assert_eq!(world.heard(peer).len(), 6);
    world.tell(peer, 1, "basic.nack", "delivery=2 multiple");
    let said = world.heard(peer);
    assert!(said.len() == 1 && said[0].starts_with("0 connection.close 540"), "{said:?}");
    let count = world.call(other, 1, "queue.declare", "queue=q passive");
    assert_eq!(count, "1 queue.declare-ok queue='q' messages=1 consumers=0");
}
