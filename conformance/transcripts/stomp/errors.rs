//! Errors: their words, and which of them close the connection.

use crate::{
    frames::{error, receipt},
    peer::World,
};

/// Sends a frame that is refused, and has to be served afterwards.
fn refused(frame: &str, message: &str, detail: &str) {
    let mut world = World::new();
    let peer = world.open_stomp("1.2");
    assert_eq!(world.ask(peer, frame), [error(message, detail)], "{frame}");
    assert!(world.is_served(peer), "{frame}");
}

/// Sends octets that drop the connection without a word.
fn dropped(octets: &[u8]) {
    let mut world = World::new();
    let peer = world.open_stomp("1.2");
    world.send(peer, octets);
    assert_eq!(world.heard(peer), Vec::<String>::new(), "{}", String::from_utf8_lossy(octets));
    assert!(world.is_over(peer), "{}", String::from_utf8_lossy(octets));
}

#[test]
fn unknown_and_lower_case_commands_are_refused() {
    refused("FOO\n\n", "Bad command", "Could not interpret command \"FOO\"\n");
    refused("send\ndestination:/queue/a\n\n", "Bad command", "Could not interpret command \"send\"\n");
}

#[test]
fn destinations_that_are_missing_or_unknown_are_refused() {
    refused("SEND\n\nbody", "Missing destination", "\"SEND\" must include a 'destination' header\n");
    refused("SUBSCRIBE\nid:0\n\n", "Missing destination", "\"SUBSCRIBE\" must include a 'destination' header\n");
    let detail = "'/foo/bar' is not a valid destination.\nValid destination types are: /temp-queue, /exchange, /topic, /queue, /amq/queue, /reply-queue/.\n";
    refused("SEND\ndestination:/foo/bar\n\n", "Unknown destination", detail);
    refused("SUBSCRIBE\nid:0\ndestination:/foo/bar\n\n", "Unknown destination", detail);
    refused("SEND\ndestination:/queue/\n\n", "Invalid destination", "'/' is not a valid queue destination\n");
    refused("SEND\ndestination:\n\n", "Invalid destination", "Destination cannot be blank");
}

#[test]
fn an_invalid_ack_mode_is_a_processing_error() {
    let frame = "SUBSCRIBE\nid:0\ndestination:/queue/a\nack:bogus\n\n";
    refused(frame, "Processing error", "Processing error");
    let frame = "SUBSCRIBE\nid:0\ndestination:/queue/a\nprefetch-count:x\n\n";
    refused(frame, "Processing error", "Processing error");
}

#[test]
fn unsubscribe_needs_a_subscription() {
    let detail = "UNSUBSCRIBE must refer to an existing subscription.\nSubscription to \"id='nix'\" not found.\n";
    refused("UNSUBSCRIBE\nid:nix\n\n", "No subscription found", detail);
    let detail = "UNSUBSCRIBE must include a 'destination' or 'id' header";
    refused("UNSUBSCRIBE\n\n", "Missing destination or id", detail);
    let detail = "UNSUBSCRIBE 'id' may not start with /temp-queue/\n";
    refused("UNSUBSCRIBE\nid:/temp-queue/x\n\n", "Invalid id", detail);
    refused("SUBSCRIBE\nid:/temp-queue/x\ndestination:/queue/a\n\n", "Processing error", "Processing error");
}

#[test]
fn acknowledgements_need_the_header_of_their_version() {
    refused("ACK\n\n", "Missing header", "\"ACK\" must include the \"id\" header\n");
    refused("NACK\n\n", "Missing header", "\"NACK\" must include the \"id\" header\n");
    refused("ACK\nid:x\n\n", "Invalid header", "\"ACK\" must include a valid \"id\" header\n");
    refused("NACK\nid:x@@y\n\n", "Invalid header", "\"NACK\" must include a valid \"id\" header\n");
    refused("ACK\nid:T_0@@s@@x\n\n", "Processing error", "Processing error");
    let detail = "Message with id \"T_0@@s@@1\" has no subscription";
    refused("ACK\nid:T_0@@s@@1\n\n", "Subscription not found", detail);
    for version in ["1.0", "1.1"] {
        let mut world = World::new();
        let peer = world.open_stomp(version);
        let detail = "\"ACK\" must include the \"message-id\" header\n";
        assert_eq!(world.ask(peer, "ACK\nid:x\n\n"), [error("Missing header", detail)]);
    }
}

#[test]
fn an_unknown_delivery_tag_closes_as_it_closes_a_channel() {
    let mut world = World::new();
    let peer = world.open_stomp("1.2");
    world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/queue/a\nack:client-individual\n\n");
    let said = world.ask(peer, "ACK\nid:T_0@@s@@7\nreceipt:1\n\n");
    assert_eq!(said, [error("precondition_failed", "PRECONDITION_FAILED - unknown delivery tag 7")]);
    assert!(world.is_over(peer));
}

#[test]
fn transactions_need_a_name_that_was_begun() {
    refused("BEGIN\n\n", "Missing transaction", "\"BEGIN\" must include a 'transaction' header\n");
    refused("COMMIT\n\n", "Missing transaction", "\"COMMIT\" must include a 'transaction' header\n");
    let detail = "Invalid transaction identifier: \"t\"\n";
    refused("COMMIT\ntransaction:t\n\n", "Bad transaction", detail);
    refused("ABORT\ntransaction:t\n\n", "Bad transaction", detail);
    refused("SEND\ndestination:/queue/a\ntransaction:t\n\nbody", "Bad transaction", detail);
}

#[test]
fn message_id_is_not_for_senders() {
    let frame = "SEND\ndestination:/queue/a\nmessage-id:1\n\nbody";
    refused(frame, "Invalid header", "'message-id' is not allowed on 'SEND'.\n");
}

#[test]
fn a_durable_subscription_needs_an_id() {
    let detail = "Header 'id' is required for durable subscriptions";
    refused("SUBSCRIBE\ndestination:/topic/a\ndurable:true\n\n", "Missing Header", detail);
    refused("SUBSCRIBE\ndestination:/topic/a\npersistent:true\n\n", "Missing Header", detail);
    refused("UNSUBSCRIBE\ndestination:/topic/a\ndurable:true\n\n", "Missing Header", detail);
}

#[test]
fn a_temp_queue_cannot_be_subscribed_to() {
    let frame = "SUBSCRIBE\nid:0\ndestination:/temp-queue/x\n\n";
    refused(frame, "Invalid destination", "'/temp-queue/x' is not a valid destination for 'SUBSCRIBE'\n");
    let frame = "SEND\ndestination:/temp-queue/x\n\n";
    refused(frame, "Invalid destination", "'/temp-queue/x' is not a valid destination for 'SEND'\n");
}

#[test]
fn a_duplicate_subscription_is_refused_and_answered_and_closes() {
    let mut world = World::new();
    let peer = world.open_stomp("1.2");
    world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/queue/a\n\n");
    let said = world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/queue/b\nreceipt:1\n\n");
    let detail = "A subscription identified by 'T_0' already exists.";
    assert_eq!(said, [error("Duplicated subscription identifier", detail), receipt("1")]);
    assert!(world.is_over(peer));
}

#[test]
fn what_closes_a_channel_closes_the_connection() {
    for (frame, message, detail) in [
        ("SUBSCRIBE\nid:0\ndestination:/amq/queue/nix\n\n", "not_found", "NOT_FOUND - no queue 'nix' in vhost '/'"),
        ("SEND\ndestination:/exchange/nix\n\nbody", "not_found", "NOT_FOUND - no exchange 'nix' in vhost '/'"),
        ("SUBSCRIBE\nid:0\ndestination:/exchange/nix/k\n\n", "not_found", "NOT_FOUND - no exchange 'nix' in vhost '/'"),
        (
            "SEND\ndestination:/queue/a\nuser-id:bob\n\n",
            "precondition_failed",
            "PRECONDITION_FAILED - user_id property set to 'bob' but authenticated user was 'guest'",
        ),
        (
            "SEND\ndestination:/queue/a\nexpiration:x\n\n",
            "precondition_failed",
            "PRECONDITION_FAILED - invalid expiration 'x': no_integer",
        ),
        (
            "SUBSCRIBE\nid:0\ndestination:/queue/amq.a\n\n",
            "access_refused",
            "ACCESS_REFUSED - queue name 'amq.a' contains reserved prefix 'amq.*'",
        ),
    ] {
        let mut world = World::new();
        let peer = world.open_stomp("1.2");
        assert_eq!(world.ask(peer, frame), [error(message, detail)], "{frame}");
        assert!(world.is_over(peer), "{frame}");
    }
}

#[test]
fn a_subscription_that_closes_is_answered_all_the_same() {
    let mut world = World::new();
    let peer = world.open_stomp("1.2");
    let said = world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/amq/queue/nix\nreceipt:1\n\n");
    assert_eq!(said, [error("not_found", "NOT_FOUND - no queue 'nix' in vhost '/'"), receipt("1")]);
    assert!(world.is_over(peer));
}

#[test]
fn input_that_is_no_frame_drops_the_connection_without_a_word() {
    dropped(b"SEND\ndestination:/queue/a\nx:a\\tb\n\n\0");
    dropped(b"SEND\nnocolon\n\n\0");
    dropped(b"SEND\ndestination:/queue/a\ncontent-length:2\n\nbody\0");
    dropped(b"SEND\ndestination:/queue/a\ncontent-length:x\n\nbody\0");
    dropped(b"SEND\ndestination:/queue/a\ncontent-length:-1\n\nbody\0");
    dropped(b"SEND\ndestination:/queue/a\rx:y\n\n\0");
    dropped(b"\rSEND\n\n\0");
}

#[test]
fn a_deleted_queue_cancels_its_subscriptions() {
    let mut world = World::new();
    let amqp = world.open(1);
    let peer = world.open_stomp("1.2");
    world.ask(peer, "SUBSCRIBE\nid:my:0\ndestination:/queue/a\n\n");
    world.call(amqp, 1, "queue.delete", "queue=a");
    let detail = "The server has canceled a subscription.\nNo more messages will be delivered for \"id='my:0'\".\n";
    let expected = format!(
        "ERROR\nmessage:Server cancelled subscription\ncontent-type:text/plain\nversion:1.0,1.1,1.2\nsubscription:my\\c0\ncontent-length:{}\n\n{detail}",
        detail.len()
    );
    assert_eq!(world.heard(peer), [expected]);
    assert!(world.is_served(peer));
}

#[test]
fn an_operator_closes_with_a_reason() {
    let mut world = World::new();
    let peer = world.open_stomp("1.2");
    world.broker.connections.list()[0].handle.close("enough");
    assert_eq!(world.heard(peer), [error("connection_forced", "CONNECTION_FORCED - enough")]);
    assert!(world.is_over(peer));
}

#[test]
fn errors_carry_no_receipt_id() {
    refused(
        "UNSUBSCRIBE\nreceipt:1\n\n",
        "Missing destination or id",
        "UNSUBSCRIBE must include a 'destination' or 'id' header",
    );
}
