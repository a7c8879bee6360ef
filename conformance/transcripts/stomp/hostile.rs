//! Clients that mean no good: every flood ends at a bound, with an error or without one.

use crate::{frames::error, peer::World};

fn refused(octets: &[u8], is_logged_in: bool, text: &str) {
    let mut world = World::new();
    let peer = if is_logged_in { world.open_stomp("1.2") } else { world.connect_stomp() };
    for piece in octets.chunks(100_000) {
        world.send(peer, piece);
    }
    assert_eq!(world.heard(peer), [error("Frame too large", &format!("{text}\n"))]);
    assert!(world.is_over(peer));
}

#[test]
fn frames_without_an_end_are_refused() {
    refused(&[b'A'; 70_000], false, "headers are too large");
    refused(&[b'A'; 70_000], true, "headers are too large");
    let connect = [&b"CONNECT\n\n"[..], &[b'x'; 70_000]].concat();
    refused(&connect, false, "body is too large");
    let begin = [&b"BEGIN\ntransaction:t\n\n"[..], &[b'x'; 70_000]].concat();
    refused(&begin, true, "body is too large");
}

#[test]
fn a_flood_of_headers_is_refused() {
    let many: String = (0..2100).map(|n| format!("h{n}:1\n")).collect();
    refused(format!("SEND\n{many}\n\0").as_bytes(), true, "too many headers");
    refused(format!("CONNECT\n{many}\n\0").as_bytes(), false, "too many headers");
    let same = "a:1\n".repeat(2100);
    refused(format!("SEND\n{same}\n\0").as_bytes(), true, "too many headers");
}

#[test]
fn a_length_that_nobody_may_send_is_refused_before_the_body() {
    let frame = b"SEND\ndestination:/queue/a\ncontent-length:9000000000000\n\n";
    refused(frame, true, "body is too large");
    refused(b"SEND\ncontent-length:65536\n\n", false, "body is too large");
}

#[test]
fn a_length_that_is_never_filled_costs_nothing() {
    let mut world = World::new();
    let peer = world.open_stomp("1.2");
    world.send(peer, b"SEND\ndestination:/queue/a\ncontent-length:10000000\n\nx");
    assert!(!world.is_over(peer) && world.wants_input(peer));
    world.hang_up(peer);
}

#[test]
fn a_body_without_an_end_is_refused_at_the_bound() {
    let options = ternmq::broker::Options { max_message_bytes: 100_000, ..Default::default() };
    let mut world = World::with(options, Default::default());
    let peer = world.open_stomp("1.2");
    world.send(peer, b"SEND\ndestination:/queue/a\n\n");
    for _ in 0..4 {
        world.send(peer, &[b'x'; 30_000]);
    }
    assert_eq!(world.heard(peer), [error("Frame too large", "body is too large\n")]);
    assert!(world.is_over(peer));
}

#[test]
fn subscriptions_and_transactions_end_at_their_bounds() {
    let mut world = World::new();
    world.stomp.options.subscriptions_max = 2;
    world.stomp.options.transactions_max = 2;
    world.stomp.options.transaction_frames_max = 2;
    let fill = |world: &mut World, frames: &[&str]| {
        let peer = world.open_stomp("1.2");
        let said: Vec<String> = frames.iter().flat_map(|frame| world.ask(peer, frame)).collect();
        assert!(world.is_over(peer));
        said
    };
    let said = fill(
        &mut world,
        &[
            "SUBSCRIBE\nid:1\ndestination:/topic/a\n\n",
            "SUBSCRIBE\nid:2\ndestination:/topic/a\n\n",
            "SUBSCRIBE\nid:3\ndestination:/topic/a\n\n",
        ],
    );
    assert_eq!(said, [error("Too many subscriptions", "A connection has at most 2.\n")]);
    let said = fill(&mut world, &["BEGIN\ntransaction:1\n\n", "BEGIN\ntransaction:2\n\n", "BEGIN\ntransaction:3\n\n"]);
    assert_eq!(said, [error("Too many transactions", "A connection has at most 2 open transactions.\n")]);
    let send = "SEND\ndestination:/queue/a\ntransaction:1\n\n";
    let said = fill(&mut world, &["BEGIN\ntransaction:1\n\n", send, send, send]);
    let detail = "Transactions of a connection hold at most 2 frames and 268435456 bytes.\n";
    assert_eq!(said, [error("Transaction too large", detail)]);
    assert!(world.broker.vhost("/").unwrap().queues().iter().all(|queue| queue.status().consumers == 0));
}

#[test]
fn huge_heart_beats_are_no_overflow() {
    let mut world = World::new();
    let peer = world.connect_stomp();
    let said = world.ask(peer, "CONNECT\naccept-version:1.2\nheart-beat:9223372036854775807,9223372036854775807\n\n");
    assert!(said[0].contains("\nheart-beat:9223372036854775000,9223372036854775000\n"), "{said:?}");
    world.pass(1000);
    assert!(!world.is_over(peer));
    let peer = world.connect_stomp();
    let said = world.ask(peer, "CONNECT\nheart-beat:9223372036854775808,0\n\n");
    assert_eq!(said, [error("Processing error", "Processing error")]);
}

#[test]
fn texts_too_long_for_the_broker_are_refused() {
    let long = "x".repeat(256);
    for frame in [
        format!("SEND\ndestination:/queue/a\ncorrelation-id:{long}\n\n"),
        format!("SEND\ndestination:/queue/a\n{long}:1\n\n"),
        format!("SEND\ndestination:/queue/{long}\n\n"),
        format!("SEND\ndestination:/exchange/{long}/x\n\n"),
        format!("SUBSCRIBE\nid:{long}\ndestination:/queue/a\n\n"),
        format!("SUBSCRIBE\nid:1\ndestination:/topic/{long}\n\n"),
    ] {
        let mut world = World::new();
        let peer = world.open_stomp("1.2");
        let said = world.ask(peer, &frame);
        assert!(said.len() == 1 && said[0].starts_with("ERROR\n"), "{said:?}");
    }
}
