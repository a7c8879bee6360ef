//! BEGIN, COMMIT, ABORT.

use crate::{
    frames::{error, receipt},
    peer::World,
};

fn ready(world: &World, queue: &str) -> (u64, u64) {
    let status = world.broker.vhost("/").unwrap().queue(queue).unwrap().status();
    (status.ready, status.unsettled)
}

#[test]
fn messages_of_a_transaction_are_sent_by_commit() {
    let mut world = World::new();
    let peer = world.open_stomp("1.2");
    assert_eq!(world.ask(peer, "BEGIN\ntransaction:t\nreceipt:1\n\n"), [receipt("1")]);
    assert!(world.ask(peer, "SEND\ndestination:/queue/a\ntransaction:t\nreceipt:2\n\n1").is_empty());
    world.ask(peer, "SEND\ndestination:/queue/a\ntransaction:t\n\n2");
    assert_eq!(ready(&world, "a"), (0, 0));
    assert_eq!(world.ask(peer, "COMMIT\ntransaction:t\nreceipt:3\n\n"), [receipt("2"), receipt("3")]);
    assert_eq!(ready(&world, "a"), (2, 0));
    let again = world.ask(peer, "COMMIT\ntransaction:t\n\n");
    assert_eq!(again, [error("Bad transaction", "Invalid transaction identifier: \"t\"\n")]);
}

#[test]
fn abort_forgets_messages_and_acknowledgements() {
    let mut world = World::new();
    let peer = world.open_stomp("1.2");
    world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/queue/a\nack:client\n\n");
    world.ask(peer, "SEND\ndestination:/queue/a\n\n1");
    world.ask(peer, "BEGIN\ntransaction:t\n\n");
    world.ask(peer, "SEND\ndestination:/queue/a\ntransaction:t\n\n2");
    world.ask(peer, "ACK\nid:T_0@@s@@1\ntransaction:t\n\n");
    assert_eq!(world.ask(peer, "ABORT\ntransaction:t\nreceipt:1\n\n"), [receipt("1")]);
    assert_eq!(ready(&world, "a"), (0, 1));
    assert_eq!(world.ask(peer, "ACK\nid:T_0@@s@@1\nreceipt:2\n\n"), [receipt("2")]);
    assert_eq!(ready(&world, "a"), (0, 0));
}

#[test]
fn acknowledgements_take_effect_at_commit() {
    let mut world = World::new();
    let peer = world.open_stomp("1.2");
    world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/queue/a\nack:client\n\n");
    world.ask(peer, "SEND\ndestination:/queue/a\n\n1");
    world.ask(peer, "BEGIN\ntransaction:t\n\n");
    world.ask(peer, "ACK\nid:T_0@@s@@1\ntransaction:t\n\n");
    world.ask(peer, "SEND\ndestination:/queue/b\ntransaction:t\n\n2");
    assert_eq!((ready(&world, "a"), ready(&world, "b")), ((0, 1), (0, 0)));
    world.ask(peer, "COMMIT\ntransaction:t\n\n");
    assert_eq!((ready(&world, "a"), ready(&world, "b")), ((0, 0), (1, 0)));
}

#[test]
fn a_commit_that_fails_does_nothing_and_closes() {
    let mut world = World::new();
    let peer = world.open_stomp("1.2");
    world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/queue/a\nack:client\n\n");
    world.ask(peer, "SEND\ndestination:/queue/a\n\n1");
    world.ask(peer, "BEGIN\ntransaction:t\n\n");
    world.ask(peer, "SEND\ndestination:/queue/b\ntransaction:t\n\n2");
    world.ask(peer, "ACK\nid:T_0@@s@@1\ntransaction:t\n\n");
    world.ask(peer, "ACK\nid:T_0@@s@@9\ntransaction:t\n\n");
    let said = world.ask(peer, "COMMIT\ntransaction:t\nreceipt:1\n\n");
    assert_eq!(said, [error("precondition_failed", "PRECONDITION_FAILED - unknown delivery tag 9")]);
    assert!(world.is_over(peer));
    assert_eq!((ready(&world, "a"), ready(&world, "b")), ((1, 0), (0, 0)));
}

#[test]
fn beginning_again_starts_anew() {
    let mut world = World::new();
    let peer = world.open_stomp("1.2");
    world.ask(peer, "BEGIN\ntransaction:t\n\n");
    world.ask(peer, "SEND\ndestination:/queue/a\ntransaction:t\n\n1");
    assert_eq!(world.ask(peer, "BEGIN\ntransaction:t\nreceipt:1\n\n"), [receipt("1")]);
    world.ask(peer, "COMMIT\ntransaction:t\n\n");
    assert_eq!(ready(&world, "a"), (0, 0));
}

#[test]
fn disconnect_forgets_open_transactions() {
    let mut world = World::new();
    let peer = world.open_stomp("1.2");
    world.ask(peer, "BEGIN\ntransaction:t\n\n");
    world.ask(peer, "SEND\ndestination:/queue/a\ntransaction:t\n\n1");
    assert_eq!(world.ask(peer, "DISCONNECT\nreceipt:1\n\n"), [receipt("1")]);
    assert_eq!(ready(&world, "a"), (0, 0));
}
