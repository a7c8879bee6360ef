//! Receipts that wait for the log.

use crate::{frames::receipt, gates::SlowJournal, peer::World};

use std::sync::Arc;

fn slow() -> (World, Arc<SlowJournal>, usize) {
    let journal = Arc::new(SlowJournal::default());
    let mut world = World::with_journal(journal.clone());
    let peer = world.open_stomp("1.2");
    world.ask(peer, "SEND\ndestination:/queue/a\n\n0");
    journal.flush(&mut world);
    (world, journal, peer)
}

#[test]
fn the_receipt_of_a_persistent_message_waits_for_the_log() {
    let (mut world, journal, peer) = slow();
    assert!(world.ask(peer, "SEND\ndestination:/queue/a\npersistent:true\nreceipt:1\n\nbody").is_empty());
    journal.flush(&mut world);
    assert_eq!(world.heard(peer), [receipt("1")]);
}

#[test]
fn the_receipt_of_a_transient_message_waits_for_nothing_but_those_before() {
    let (mut world, journal, peer) = slow();
    assert_eq!(world.ask(peer, "SEND\ndestination:/queue/a\nreceipt:1\n\nbody"), [receipt("1")]);
    world.ask(peer, "SEND\ndestination:/queue/a\npersistent:true\nreceipt:2\n\nbody");
    assert!(world.ask(peer, "SEND\ndestination:/queue/a\nreceipt:3\n\nbody").is_empty());
    journal.flush(&mut world);
    assert_eq!(world.heard(peer), [receipt("2"), receipt("3")]);
}

#[test]
fn the_first_message_to_a_queue_waits_for_its_declaration() {
    let (mut world, journal, peer) = slow();
    assert!(world.ask(peer, "SEND\ndestination:/queue/new\nreceipt:1\n\nbody").is_empty());
    journal.flush(&mut world);
    assert_eq!(world.heard(peer), [receipt("1")]);
}

#[test]
fn the_receipt_of_a_subscription_comes_before_its_first_message() {
    let (mut world, journal, peer) = slow();
    world.ask(peer, "SEND\ndestination:/queue/a\npersistent:true\nreceipt:1\n\n1");
    assert!(world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/queue/a\nreceipt:2\n\n").is_empty());
    assert!(!world.wants_input(peer));
    journal.flush(&mut world);
    let said = world.heard(peer);
    assert_eq!(said[..2], [receipt("1"), receipt("2")]);
    assert_eq!(said.len(), 4, "{said:?}");
    assert!(said[2].starts_with("MESSAGE\n"));
}

#[test]
fn the_receipt_of_a_durable_subscription_waits_for_queue_and_binding() {
    let (mut world, journal, peer) = slow();
    let frame = "SUBSCRIBE\nid:s\ndestination:/topic/t\ndurable:true\nauto-delete:false\nreceipt:1\n\n";
    assert!(world.ask(peer, frame).is_empty());
    journal.flush(&mut world);
    assert_eq!(world.heard(peer), [receipt("1")]);
    assert!(world.ask(peer, "UNSUBSCRIBE\nid:s\ndurable:true\nreceipt:2\n\n").is_empty());
    journal.flush(&mut world);
    assert_eq!(world.heard(peer), [receipt("2")]);
}

#[test]
fn a_subscription_to_a_topic_does_not_wait() {
    let (mut world, _journal, peer) = slow();
    assert_eq!(world.ask(peer, "SUBSCRIBE\nid:s\ndestination:/topic/t\nreceipt:1\n\n"), [receipt("1")]);
}

#[test]
fn the_receipts_of_ack_and_nack_wait_for_the_log() {
    for frame in ["ACK\n", "NACK\nrequeue:false\n"] {
        let (mut world, journal, peer) = slow();
        world.ask(peer, "SEND\ndestination:/queue/p\npersistent:true\n\n1");
        world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/queue/p\nack:client\n\n");
        journal.flush(&mut world);
        world.heard(peer);
        assert!(world.ask(peer, &format!("{frame}id:T_0@@s@@1\nreceipt:1\n\n")).is_empty(), "{frame}");
        journal.flush(&mut world);
        assert_eq!(world.heard(peer), [receipt("1")], "{frame}");
    }
}

#[test]
fn the_receipt_of_commit_waits_for_the_log() {
    let (mut world, journal, peer) = slow();
    world.ask(peer, "BEGIN\ntransaction:t\n\n");
    world.ask(peer, "SEND\ndestination:/queue/a\npersistent:true\ntransaction:t\n\n1");
    assert!(world.ask(peer, "COMMIT\ntransaction:t\nreceipt:1\n\n").is_empty());
    journal.flush(&mut world);
    assert_eq!(world.heard(peer), [receipt("1")]);
}

#[test]
fn disconnect_ends_only_when_all_was_said() {
    let (mut world, journal, peer) = slow();
    world.ask(peer, "SEND\ndestination:/queue/a\npersistent:true\nreceipt:1\n\n1");
    assert!(world.ask(peer, "DISCONNECT\nreceipt:2\n\n").is_empty());
    assert!(!world.is_over(peer));
    journal.flush(&mut world);
    assert_eq!(world.heard(peer), [receipt("1"), receipt("2")]);
    assert!(world.is_over(peer));
}

#[test]
fn too_many_waiting_receipts_stop_the_reading() {
    let (mut world, journal, _) = slow();
    world.stomp.options.unanswered_max = 3;
    let peer = world.open_stomp("1.2");
    for n in 0..3 {
        assert!(world.wants_input(peer));
        world.ask(peer, &format!("SEND\ndestination:/queue/a\npersistent:true\nreceipt:{n}\n\n"));
    }
    assert!(!world.wants_input(peer));
    journal.flush(&mut world);
    assert_eq!(world.heard(peer).len(), 3);
    assert!(world.wants_input(peer));
}
