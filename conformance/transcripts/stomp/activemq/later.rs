//! Browsers, which take nothing, and messages that are published later.

use super::{bodies, error, header, plain, world};
use crate::{frames::receipt, peer::World};

fn send(world: &mut World, peer: usize, headers: &str, body: &str) -> Vec<String> {
    world.ask(peer, &format!("SEND\ndestination:/queue/q\n{headers}\n{body}"))
}

#[test]
fn a_browser_sees_all_messages_and_then_the_end_and_takes_none() {
    let mut world = world();
    let peer = world.open_stomp("1.1");
    for number in 0..200 {
        send(&mut world, peer, &format!("n:{number}\n"), &number.to_string());
    }
    let said = world.ask(peer, "SUBSCRIBE\nid:b\ndestination:/queue/q\nbrowser:true\nreceipt:r\n\n");
    assert_eq!((said.len(), &said[0]), (202, &receipt("r")));
    assert!((0..200).all(|number| said[number + 1].ends_with(&format!("\n\n{number}"))));
    let end = "MESSAGE\nsubscription:b\ndestination:/queue/q\nmessage-id:0\nbrowser:end\n\n";
    assert_eq!(said[201], end);
    assert_eq!(world.broker.vhost("/").unwrap().queue("q").unwrap().status().ready, 200);
    assert!(world.ask(peer, "UNSUBSCRIBE\nid:b\n\n").is_empty());
    let selects = "SUBSCRIBE\nid:b\ndestination:/queue/q\nbrowser:true\nselector:n > 197\n\n";
    assert_eq!(bodies(&world.ask(peer, selects)), ["198", "199", ""]);
}

#[test]
fn a_browser_waits_for_a_client_that_does_not_read() {
    let mut world = world();
    world.stomp.options.outbox_bytes_max = 64 << 10;
    let peer = world.open_stomp("1.2");
    let body = "x".repeat(10_000);
    for _ in 0..100 {
        send(&mut world, peer, "", &body);
    }
    world.set_deaf(peer, true);
    world.say(peer, "SUBSCRIBE\nid:b\ndestination:/queue/q\nbrowser:true\n\n");
    assert!(world.waiting_bytes(peer) < 1 << 20);
    world.set_deaf(peer, false);
    world.pass(1000);
    assert_eq!(world.heard(peer).len(), 101);
}

#[test]
fn only_queues_can_be_browsed_and_not_in_1_0() {
    let mut world = world();
    let peer = world.open_stomp("1.2");
    for destination in ["/topic/t", "/queue/a.>", "/temp-queue/t"] {
        let said = world.ask(peer, &format!("SUBSCRIBE\nid:0\ndestination:{destination}\nbrowser:true\n\n"));
        assert_eq!(error(&said), "Only queues can be browsed");
    }
    let peer = world.open_stomp("1.0");
    let said = world.ask(peer, "SUBSCRIBE\ndestination:/queue/q\nbrowser:true\n\n");
    assert_eq!(error(&said), "Queue Browser feature only valid for Stomp v1.1+ clients!");
}

#[test]
fn a_delayed_message_comes_when_its_time_has_come() {
    let mut world = world();
    let peer = world.open_stomp("1.2");
    world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/queue/q\n\n");
    let said = send(&mut world, peer, "AMQ_SCHEDULED_DELAY:1500\npersistent:true\nreceipt:r\n", "late");
    assert_eq!(said, [receipt("r")]);
    world.pass(1499);
    assert!(world.heard(peer).is_empty());
    world.pass(1);
    let said = world.heard(peer);
    assert_eq!(bodies(&said), ["late"]);
    assert_eq!(plain(header(&said[0], "scheduledJobId").unwrap()), "ID");
    assert!(!said[0].contains("AMQ_SCHEDULED"));
}

#[test]
fn a_repeated_message_comes_once_more_than_it_is_repeated() {
    let mut world = world();
    let peer = world.open_stomp("1.2");
    world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/topic/t\n\n");
    let headers = "AMQ_SCHEDULED_DELAY:100\nAMQ_SCHEDULED_PERIOD:50\nAMQ_SCHEDULED_REPEAT:2\n";
    world.ask(peer, &format!("SEND\ndestination:/topic/t\n{headers}\nagain"));
    world.pass(10_000);
    let said = world.heard(peer);
    assert_eq!(bodies(&said), ["again", "again", "again"]);
    assert!(said.iter().all(|frame| header(frame, "scheduledJobId") == header(&said[0], "scheduledJobId")));
}

#[test]
fn a_cron_entry_says_when() {
    let mut world = world();
    let peer = world.open_stomp("1.2");
    world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/queue/q\n\n");
    assert!(send(&mut world, peer, "AMQ_SCHEDULED_CRON:* * * * *\n", "tick").is_empty());
    world.pass(60_000);
    assert_eq!(bodies(&world.heard(peer)), ["tick"]);
    let said = send(&mut world, peer, "AMQ_SCHEDULED_CRON:every day\n", "never");
    assert!(said[0].starts_with("ERROR\n"), "{said:?}");
    assert!(world.is_served(peer));
}

#[test]
fn a_delay_in_a_transaction_begins_at_commit() {
    let mut world = world();
    let peer = world.open_stomp("1.2");
    world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/queue/q\n\n");
    world.ask(peer, "BEGIN\ntransaction:t\n\n");
    send(&mut world, peer, "AMQ_SCHEDULED_DELAY:100\ntransaction:t\n", "x");
    world.pass(1000);
    assert!(world.heard(peer).is_empty());
    world.ask(peer, "COMMIT\ntransaction:t\n\n");
    world.pass(99);
    assert!(world.heard(peer).is_empty());
    world.pass(1);
    assert_eq!(bodies(&world.heard(peer)), ["x"]);
}

#[test]
fn too_many_repeats_are_refused() {
    let mut world = world();
    let peer = world.open_stomp("1.2");
    let headers = "AMQ_SCHEDULED_PERIOD:50\nAMQ_SCHEDULED_REPEAT:1001\nreceipt:1\n";
    assert_eq!(error(&send(&mut world, peer, headers, "")), "The scheduled repeat value is too large");
}
