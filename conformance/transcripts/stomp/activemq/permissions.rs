//! What a user may not do: the words are ActiveMQ's, the permissions RabbitMQ's, and the connection stays open.

use super::{error, world};
use crate::{frames::receipt, peer::World};

/// A client who may make and use `mine` and nothing else, and write to no topic.
fn bob(world: &mut World) -> usize {
    world.stomp.options.login_optional = false;
    let access = &world.broker.access;
    access.add("bob", "secret").unwrap();
    let permissions = ternmq::broker::access::Permissions {
        configure: "^mine$|^ActiveMQ|^activemq-".into(),
        write: "^(mine|amq\\.default|activemq-.*)$".into(),
        read: "^mine$|^activemq-".into(),
    };
    access.set_permissions("bob", "/", permissions).unwrap();
    let peer = world.connect_stomp();
    let said = world.ask(peer, "CONNECT\nlogin:bob\npasscode:secret\naccept-version:1.2\n\n");
    assert!(said[0].starts_with("CONNECTED\n"), "{said:?}");
    peer
}

#[test]
fn a_refused_frame_says_who_may_not_do_what_to_which_destination() {
    let mut world = world();
    let guest = world.open_stomp("1.2");
    world.ask(guest, "SEND\ndestination:/queue/others\n\nx");
    let peer = bob(&mut world);
    for (frame, what) in [
        ("SEND\ndestination:/queue/new\nreceipt:1\n\nx", "create\\c queue\\c//new"),
        ("SUBSCRIBE\nid:0\ndestination:/queue/new\nreceipt:1\n\n", "create\\c queue\\c//new"),
        ("SUBSCRIBE\nid:0\ndestination:/queue/others\nreceipt:1\n\n", "read from\\c queue\\c//others"),
        ("SEND\ndestination:/topic/a.b\nreceipt:1\n\nx", "write to\\c topic\\c//a.b"),
        ("SUBSCRIBE\nid:0\ndestination:/topic/a.>\nreceipt:1\n\n", "read from\\c topic\\c//a.>"),
        ("SEND\ndestination:/queue/mine,/queue/new\nreceipt:1\n\nx", "create\\c queue\\c//new"),
    ] {
        let said = world.ask(peer, frame);
        assert_eq!(error(&said), format!("User bob is not authorized to {what}"), "{frame}");
        assert!(said[0].contains("\nreceipt-id:1\n"), "{said:?}");
    }
    assert!(world.is_served(peer));
    assert_eq!(world.ask(peer, "SEND\ndestination:/queue/mine\nreceipt:2\n\nx"), [receipt("2")]);
    assert_eq!(world.broker.vhost("/").unwrap().queue("others").unwrap().status().ready, 1);
}

#[test]
fn a_refused_subscription_leaves_nothing_behind() {
    let mut world = world();
    let peer = bob(&mut world);
    let before = world.broker.vhost("/").unwrap().queues_count();
    world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/topic/a\n\n");
    assert_eq!(world.broker.vhost("/").unwrap().queues_count(), before);
    assert_eq!(error(&world.ask(peer, "UNSUBSCRIBE\nid:0\n\n")), "No subscription matched.");
}

#[test]
fn what_a_transaction_may_not_send_is_told_at_its_end() {
    let mut world = world();
    let peer = bob(&mut world);
    world.ask(peer, "BEGIN\ntransaction:t\n\n");
    assert_eq!(world.ask(peer, "SEND\ndestination:/topic/a\ntransaction:t\nreceipt:1\n\nx"), [receipt("1")]);
    let said = world.ask(peer, "COMMIT\ntransaction:t\nreceipt:2\n\n");
    assert_eq!(error(&said), "User bob is not authorized to write to\\c topic\\c//a");
}
