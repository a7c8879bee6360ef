//! MESSAGE frames and what is said about them: headers, acknowledgements, prefetch.

use crate::{
    frames::{error, receipt},
    peer::World,
};

fn message(headers: &str, body: &str) -> String {
    let length = if body.is_empty() { String::new() } else { format!("content-length:{}\n", body.len()) };
    format!("MESSAGE\n{headers}{length}\n{body}")
}

/// The head of a message to subscription 0 of that queue.
fn head(queue: &str, tag: u64, redelivered: bool) -> String {
    format!("subscription:0\ndestination:/queue/{queue}\nmessage-id:T_0@@SESSION@@{tag}\nredelivered:{redelivered}\n")
}

fn subscribed(version: &str, headers: &str) -> (World, usize) {
    let mut world = World::new();
    let peer = world.open_stomp(version);
    assert!(world.ask(peer, &format!("SUBSCRIBE\nid:0\ndestination:/queue/a\n{headers}\n")).is_empty());
    (world, peer)
}

#[test]
fn messages_say_where_they_come_from_and_what_their_sender_said() {
    let (mut world, peer) = subscribed("1.1", "");
    let said = world.ask(peer, "SEND\ndestination:/queue/a\ncontent-type:text/plain\nfoo:bar\n\nhello");
    assert_eq!(said, [message(&(head("a", 1, false) + "foo:bar\ncontent-type:text/plain\n"), "hello")]);
}

#[test]
fn an_empty_body_has_no_length() {
    let (mut world, peer) = subscribed("1.2", "");
    assert_eq!(world.ask(peer, "SEND\ndestination:/queue/a\n\n"), [message(&head("a", 1, false), "")]);
}

#[test]
fn a_body_may_have_a_nul_when_its_length_is_told() {
    let (mut world, peer) = subscribed("1.2", "");
    let said = world.ask(peer, "SEND\ndestination:/queue/a\ncontent-length:3\n\na\0b");
    assert_eq!(said, [message(&head("a", 1, false), "a\0b")]);
}

#[test]
fn frames_may_come_in_any_pieces_and_with_carriage_returns() {
    for frame in [
        &b"\n\r\nSEND\r\ndestination:/queue/a\r\nx:1\r\n\r\nhello\0\n\n"[..],
        b"SEND\ndestination:/queue/a\nx:1\ncontent-length:5\n\nhello\0",
    ] {
        // One broker for all: a first login takes its time.
        let (mut world, first) = subscribed("1.2", "");
        world.hang_up(first);
        for cut in 1..frame.len() {
            let peer = world.open_stomp("1.2");
            world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/queue/a\n\n");
            world.send(peer, &frame[..cut]);
            world.send(peer, &frame[cut..]);
            let expected = message(&format!("{}x:1\n", head("a", 1, false)), "hello");
            assert_eq!(world.heard(peer), [expected], "{cut}");
            world.hang_up(peer);
        }
    }
}

#[test]
fn a_body_larger_than_a_read_comes_through() {
    for length in [true, false] {
        let (mut world, peer) = subscribed("1.2", "");
        let body = "0123456789abcdef".repeat(40_000);
        let header = if length { format!("content-length:{}\n", body.len()) } else { String::new() };
        let frame = format!("SEND\ndestination:/queue/a\n{header}\n{body}\0");
        for piece in frame.as_bytes().chunks(50_000) {
            world.send(peer, piece);
        }
        assert_eq!(world.heard(peer), [message(&head("a", 1, false), &body)]);
    }
}

#[test]
fn the_first_of_repeated_headers_counts() {
    let (mut world, peer) = subscribed("1.2", "");
    let said = world.ask(peer, "SEND\ndestination:/queue/a\nfoo:first\nfoo:second\ndestination:/queue/b\n\n");
    assert_eq!(said, [message(&(head("a", 1, false) + "foo:first\n"), "")]);
}

#[test]
fn escapes_come_back_in_every_version() {
    for version in ["1.0", "1.1", "1.2"] {
        let (mut world, peer) = subscribed(version, "");
        let said = world.ask(peer, "SEND\ndestination:/queue/a\na\\cb:c\\nd\\\\e\\rf\n\n");
        assert_eq!(said, [message(&(head("a", 1, false) + "a\\cb:c\\nd\\\\e\\rf\n"), "")], "{version}");
    }
}

#[test]
fn values_lose_blanks_in_front_in_1_0_only() {
    for (version, value) in [("1.0", "b "), ("1.1", "  b "), ("1.2", "  b ")] {
        let (mut world, peer) = subscribed(version, "");
        let said = world.ask(peer, "SEND\ndestination:/queue/a\na:  b \n\n");
        assert_eq!(said, [message(&format!("{}a:{value}\n", head("a", 1, false)), "")], "{version}");
    }
}

#[test]
fn receipt_and_transaction_are_forwarded_as_headers_of_the_message() {
    let (mut world, peer) = subscribed("1.2", "");
    let said = world.ask(peer, "SEND\ndestination:/queue/a\nreceipt:r\n\n");
    assert_eq!(said, [message(&(head("a", 1, false) + "receipt:r\n"), ""), receipt("r")]);
}

#[test]
fn a_line_end_follows_each_frame_unless_that_is_switched_off() {
    let mut world = World::new();
    let peer = world.connect_stomp();
    // The line end is read as a part of the frame; a heart-beat would be told apart.
    assert_eq!(world.ask(peer, "CONNECT\n\n").len(), 1);
    world.stomp.options.trailing_lf = false;
    let peer = world.connect_stomp();
    world.ask(peer, "CONNECT\naccept-version:1.2\n\n");
    assert_eq!(world.ask(peer, "BEGIN\ntransaction:t\nreceipt:1\n\n"), [receipt("1")]);
}

#[test]
fn only_1_2_has_an_ack_header_and_only_where_something_is_acknowledged() {
    for (version, mode, has_ack) in
        [("1.2", "client", true), ("1.2", "client-individual", true), ("1.2", "auto", false), ("1.1", "client", false)]
    {
        let (mut world, peer) = subscribed(version, &format!("ack:{mode}\n"));
        let said = world.ask(peer, "SEND\ndestination:/queue/a\n\n");
        let ack = if has_ack { "ack:T_0@@SESSION@@1\n" } else { "" };
        assert_eq!(said, [message(&(head("a", 1, false) + ack), "")], "{version} {mode}");
    }
}

#[test]
fn without_an_id_a_subscription_is_known_by_its_destination() {
    for version in ["1.0", "1.1", "1.2"] {
        let mut world = World::new();
        let peer = world.open_stomp(version);
        world.ask(peer, "SUBSCRIBE\ndestination:/queue/a\n\n");
        let said = world.ask(peer, "SEND\ndestination:/queue/a\n\n");
        let head = "destination:/queue/a\nmessage-id:Q_/queue/a@@SESSION@@1\nredelivered:false\n";
        assert_eq!(said, [message(head, "")]);
        assert_eq!(world.ask(peer, "UNSUBSCRIBE\ndestination:/queue/a\nreceipt:1\n\n"), [receipt("1")]);
        assert!(world.ask(peer, "SEND\ndestination:/queue/a\n\n").is_empty());
    }
}

/// The raw id of a message, which [`World::heard`] hides.
fn id(world: &World, tag: u64) -> String {
    let list = world.broker.vhost("/").unwrap().queue("a").unwrap().consumers();
    format!("{}@@any@@{tag}", list[0].options.tag)
}

fn unsettled(world: &World) -> u64 {
    world.broker.vhost("/").unwrap().queue("a").unwrap().status().unsettled
}

#[test]
fn a_colon_in_an_id_is_written_as_it_is_where_it_harms_nobody() {
    let mut world = World::new();
    let peer = world.open_stomp("1.2");
    world.ask(peer, "SUBSCRIBE\nid:a\\cb\\\\\ndestination:/queue/a\nack:client\n\n");
    let said = world.ask(peer, "SEND\ndestination:/queue/a\n\n");
    let head = "subscription:a\\cb\\\\\ndestination:/queue/a\nmessage-id:T_a:b\\\\@@SESSION@@1\nredelivered:false\nack:T_a:b\\\\@@SESSION@@1\n";
    assert_eq!(said, [message(head, "")]);
    assert_eq!(world.ask(peer, "ACK\nid:T_a\\cb\\\\@@s@@1\nreceipt:1\n\n"), [receipt("1")]);
}

#[test]
fn client_mode_acknowledges_all_before() {
    let (mut world, peer) = subscribed("1.2", "ack:client\n");
    for _ in 0..3 {
        assert_eq!(world.ask(peer, "SEND\ndestination:/queue/a\n\n").len(), 1);
    }
    let two = id(&world, 2);
    assert_eq!(world.ask(peer, &format!("ACK\nid:{two}\nreceipt:1\n\n")), [receipt("1")]);
    assert_eq!(unsettled(&world), 1);
}

#[test]
fn client_individual_mode_acknowledges_one() {
    for version in ["1.1", "1.2"] {
        let (mut world, peer) = subscribed(version, "ack:client-individual\n");
        for _ in 0..3 {
            assert_eq!(world.ask(peer, "SEND\ndestination:/queue/a\n\n").len(), 1);
        }
        let two = id(&world, 2);
        let header = if version == "1.2" { "id" } else { "subscription:0\nmessage-id" };
        assert_eq!(world.ask(peer, &format!("ACK\n{header}:{two}\nreceipt:1\n\n")), [receipt("1")]);
        assert_eq!(unsettled(&world), 2);
    }
}

#[test]
fn auto_mode_needs_no_acknowledgement_and_takes_none() {
    let (mut world, peer) = subscribed("1.2", "");
    world.ask(peer, "SEND\ndestination:/queue/a\n\n");
    assert_eq!(unsettled(&world), 0);
    let one = id(&world, 1);
    let said = world.ask(peer, &format!("ACK\nid:{one}\n\n"));
    assert_eq!(said, [error("precondition_failed", "PRECONDITION_FAILED - unknown delivery tag 1")]);
}

#[test]
fn nack_puts_a_message_back_also_in_1_0() {
    for version in ["1.0", "1.1", "1.2"] {
        let (mut world, peer) = subscribed(version, "ack:client-individual\n");
        world.ask(peer, "SEND\ndestination:/queue/a\n\n");
        let header = if version == "1.2" { "id" } else { "message-id" };
        let one = id(&world, 1);
        let said = world.ask(peer, &format!("NACK\n{header}:{one}\n\n"));
        let ack = if version == "1.2" { "ack:T_0@@SESSION@@2\n" } else { "" };
        assert_eq!(said, [message(&(head("a", 2, true) + ack), "")], "{version}");
    }
}

#[test]
fn nack_without_requeue_drops_or_dead_letters() {
    for (header, setting) in [("requeue:false\n", true), ("", false)] {
        let mut world = World::new();
        world.stomp.options.default_nack_requeue = setting;
        let peer = world.open_stomp("1.2");
        world.ask(peer, "SUBSCRIBE\nid:dead\ndestination:/queue/dead\n\n");
        let arguments = "x-dead-letter-exchange:\nx-dead-letter-routing-key:dead\n";
        world.ask(peer, &format!("SUBSCRIBE\nid:0\ndestination:/queue/a\nack:client\n{arguments}\n"));
        world.ask(peer, "SEND\ndestination:/queue/a\n\nbody");
        let one = id(&world, 1);
        let said = world.ask(peer, &format!("NACK\nid:{one}\n{header}\n"));
        assert_eq!(said.len(), 1);
        assert!(said[0].starts_with("MESSAGE\nsubscription:dead\ndestination:/queue/dead\n"), "{said:?}");
        assert!(said[0].contains("x-first-death-reason:rejected\n") && said[0].ends_with("\n\nbody"), "{said:?}");
    }
}

#[test]
fn prefetch_count_bounds_what_a_subscription_holds() {
    let (mut world, peer) = subscribed("1.2", "ack:client-individual\nprefetch-count:2\n");
    for _ in 0..4 {
        world.say(peer, "SEND\ndestination:/queue/a\n\n");
    }
    assert_eq!(world.heard(peer).len(), 2);
    let one = id(&world, 1);
    assert_eq!(world.ask(peer, &format!("ACK\nid:{one}\n\n")).len(), 1);
}

#[test]
fn x_priority_serves_a_subscription_first() {
    let mut world = World::new();
    let (low, high) = (world.open_stomp("1.2"), world.open_stomp("1.2"));
    world.ask(low, "SUBSCRIBE\nid:0\ndestination:/queue/a\n\n");
    world.ask(high, "SUBSCRIBE\nid:0\ndestination:/queue/a\nx-priority:10\n\n");
    for _ in 0..4 {
        world.say(low, "SEND\ndestination:/queue/a\n\n");
    }
    assert_eq!((world.heard(low).len(), world.heard(high).len()), (0, 4));
}

#[test]
fn what_a_lost_client_held_is_redelivered() {
    let (mut world, peer) = subscribed("1.2", "ack:client\n");
    world.ask(peer, "SEND\ndestination:/queue/a\n\nbody");
    world.hang_up(peer);
    let other = world.open_stomp("1.1");
    let said = world.ask(other, "SUBSCRIBE\nid:0\ndestination:/queue/a\n\n");
    assert_eq!(said, [message(&head("a", 1, true), "body")]);
}

#[test]
fn unsubscribe_ends_deliveries_and_keeps_what_is_held() {
    let (mut world, peer) = subscribed("1.2", "ack:client\n");
    world.ask(peer, "SEND\ndestination:/queue/a\n\n1");
    assert_eq!(world.ask(peer, "UNSUBSCRIBE\nid:0\nreceipt:1\n\n"), [receipt("1")]);
    assert!(world.ask(peer, "SEND\ndestination:/queue/a\n\n2").is_empty());
    assert_eq!(unsettled(&world), 1);
}

#[test]
fn a_stream_is_read_from_the_offset_that_is_asked_for() {
    let mut world = World::new();
    let peer = world.open_stomp("1.2");
    let queue = "destination:/queue/s\nx-queue-type:stream\n";
    for n in 0..3 {
        world.ask(peer, &format!("SEND\n{queue}\n{n}"));
    }
    for (id, offset, expected) in [("f", "first", 3), ("o", "offset=1", 2), ("l", "next", 0)] {
        let said = world.ask(
            peer,
            &format!("SUBSCRIBE\nid:{id}\n{queue}ack:client\nprefetch-count:10\nx-stream-offset:{offset}\n\n"),
        );
        assert_eq!(said.len(), expected, "{offset}: {said:?}");
        if offset == "offset=1" {
            assert!(said[0].contains("x-stream-offset:1\n") && said[0].ends_with("\n1"), "{said:?}");
        }
    }
    let said = world.ask(peer, &format!("SUBSCRIBE\nid:a\n{queue}prefetch-count:10\n\n"));
    let detail = "NOT_IMPLEMENTED - automatic acknowledgement not supported by stream queues queue 's' in vhost '/'";
    assert_eq!(said, [error("not_implemented", detail)]);
}

#[test]
fn an_alarm_stops_who_sends_and_not_who_consumes() {
    let (mut world, peer) = subscribed("1.2", "ack:client\n");
    let sender = world.open_stomp("1.2");
    world.ask(sender, "SEND\ndestination:/queue/a\n\n1");
    assert_eq!(world.heard(peer).len(), 1);
    world.broker.set_alarms(true, false);
    let one = id(&world, 1);
    assert_eq!(world.ask(peer, &format!("ACK\nid:{one}\nreceipt:1\n\n")), [receipt("1")]);
    assert!(world.ask(sender, "SEND\ndestination:/queue/a\nreceipt:2\n\n2").is_empty());
    assert!(!world.wants_input(sender) && world.wants_input(peer));
    world.broker.set_alarms(false, false);
    assert_eq!(world.heard(sender), [receipt("2")]);
    assert_eq!(world.heard(peer).len(), 1);
}

#[test]
fn frames_with_equal_heads_are_frames_of_their_own() {
    for length in ["", "content-length:1\n"] {
        let (mut world, peer) = subscribed("1.2", "");
        let send = |body: &str| format!("SEND\ndestination:/queue/a\nx:1\n{length}\n{body}\0");
        let other = "SEND\ndestination:/queue/a\nx:2\nreceipt:r\n\no\0".to_owned();
        let elsewhere = "SEND\ndestination:/queue/b\nx:1\n\nb\0".to_owned();
        let frames = [send("1"), send("2"), other, send("3"), elsewhere, send("4"), send("5")].concat();
        world.send(peer, frames.as_bytes());
        let expected = |(tag, (x, body)): (u64, (&str, &str))| message(&format!("{}{x}", head("a", tag, false)), body);
        let bodies = [("x:1\n", "1"), ("x:1\n", "2"), ("x:2\nreceipt:r\n", "o"), ("x:1\n", "3"), ("x:1\n", "4")];
        let mut said: Vec<String> = (1..).zip(bodies).map(expected).collect();
        said.push(expected((6, ("x:1\n", "5"))));
        let mut heard = world.heard(peer);
        heard.retain(|frame| *frame != receipt("r"));
        assert_eq!(heard, said);
        // The same head in pieces, and before a body that is not as long as it says.
        let frame = send("6");
        for piece in frame.as_bytes().chunks(7) {
            world.send(peer, piece);
        }
        assert_eq!(world.heard(peer), [expected((7, ("x:1\n", "6")))]);
        if !length.is_empty() {
            world.send(peer, send("too long").as_bytes());
            assert_eq!(world.heard(peer), [""; 0]);
            assert!(world.is_over(peer));
        }
    }
}

#[test]
fn a_head_that_begins_like_the_one_before_is_another() {
    let (mut world, peer) = subscribed("1.2", "");
    world.send(peer, b"SEND\ndestination:/queue/a\n\n1\0SEND\ndestination:/queue/a\nx:1\n\n2\0");
    let expected = [message(&head("a", 1, false), "1"), message(&(head("a", 2, false) + "x:1\n"), "2")];
    assert_eq!(world.heard(peer), expected);
}
