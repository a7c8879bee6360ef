//! Destinations: what they declare, where they send, what they read.

use std::sync::Arc;

use ternmq::broker::queue::Queue;

use crate::{frames::receipt, peer::World};

fn queue(world: &World, name: &str) -> Arc<Queue> {
    world.broker.vhost("/").unwrap().queue(name).unwrap_or_else(|| panic!("no queue {name}"))
}

fn queues(world: &World) -> Vec<String> {
    world.broker.vhost("/").unwrap().queues().iter().map(|queue| queue.name.to_string()).collect()
}

fn body(said: &[String]) -> Vec<&str> {
    said.iter().map(|frame| frame.split_once("\n\n").unwrap().1).collect()
}

#[test]
fn a_queue_is_declared_durable_by_whoever_uses_it_first() {
    for destination in ["/queue/a", "a"] {
        for frame in ["SEND", "SUBSCRIBE\nid:0"] {
            let mut world = World::new();
            let peer = world.open_stomp("1.2");
            world.ask(peer, &format!("{frame}\ndestination:{destination}\n\n"));
            let queue = queue(&world, "a");
            assert!(queue.is_durable && !queue.declaration.is_auto_delete && queue.declaration.owner.is_none());
        }
    }
}

#[test]
fn a_slash_in_a_name_is_written_with_an_escape() {
    let mut world = World::new();
    let peer = world.open_stomp("1.2");
    let said = world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/queue/a%2Fb\n\n");
    assert!(said.is_empty());
    assert_eq!(queues(&world), ["a/b"]);
    let said = world.ask(peer, "SEND\ndestination:/queue/a%2Fb\n\nx");
    assert!(said[0].contains("\ndestination:/queue/a%2Fb\n"), "{said:?}");
}

#[test]
fn queue_arguments_are_headers() {
    let mut world = World::new();
    let peer = world.open_stomp("1.2");
    let headers = "x-message-ttl: 60000\nx-expires:70000\nx-max-length:10\nx-max-length-bytes:1000\nx-max-priority:5\nx-dead-letter-exchange:amq.direct\nx-dead-letter-routing-key:k\nx-queue-type:classic\n";
    assert!(world.ask(peer, &format!("SUBSCRIBE\nid:0\ndestination:/queue/a\n{headers}\n")).is_empty());
    let mut arguments: Vec<String> =
        queue(&world, "a").declaration.arguments.iter().map(|(name, value)| format!("{name}={value}")).collect();
    arguments.sort();
    assert_eq!(
        arguments,
        [
            "x-dead-letter-exchange=amq.direct",
            "x-dead-letter-routing-key=k",
            "x-expires=70000",
            "x-max-length-bytes=1000",
            "x-max-length=10",
            "x-max-priority=5",
            "x-message-ttl=60000",
            "x-queue-type=classic",
        ]
    );
}

#[test]
fn flags_of_a_queue_are_headers_also_as_python_writes_them() {
    let mut world = World::new();
    let peer = world.open_stomp("1.2");
    world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/queue/a\nauto-delete:True\n\n");
    assert!(queue(&world, "a").is_durable && queue(&world, "a").declaration.is_auto_delete);
    world.ask(peer, "SUBSCRIBE\nid:1\ndestination:/queue/b\ndurable:false\nexclusive:False\nauto-delete:false\n\n");
    let b = queue(&world, "b");
    assert!(!b.is_durable && !b.declaration.is_auto_delete && b.declaration.owner.is_none());
    world.ask(peer, "SUBSCRIBE\nid:2\ndestination:/queue/c\ndurable:False\n\n");
    let c = queue(&world, "c");
    assert!(!c.is_durable && c.declaration.is_auto_delete && c.declaration.owner.is_some());
    world.ask(peer, "UNSUBSCRIBE\nid:0\n\n");
    assert!(!queues(&world).contains(&"a".to_owned()));
}

#[test]
fn a_queue_that_went_with_its_subscription_is_declared_anew() {
    let mut world = World::new();
    let peer = world.open_stomp("1.2");
    for _ in 0..3 {
        let subscribe = "SUBSCRIBE\nid:0\ndestination:/queue/a\nauto-delete:true\nreceipt:1\n\n";
        assert_eq!(world.ask(peer, subscribe), [receipt("1")]);
        assert_eq!(body(&world.ask(peer, "SEND\ndestination:/queue/a\nauto-delete:true\n\nhello")), ["hello"]);
        world.ask(peer, "UNSUBSCRIBE\nid:0\n\n");
        assert!(queues(&world).is_empty());
    }
}

#[test]
fn an_amq_queue_is_never_declared() {
    let mut world = World::new();
    let amqp = world.open(1);
    let peer = world.open_stomp("1.2");
    assert_eq!(world.ask(peer, "SEND\ndestination:/amq/queue/a\nreceipt:1\n\nlost"), [receipt("1")]);
    assert!(queues(&world).is_empty());
    world.call(amqp, 1, "queue.declare", "queue=a");
    assert!(world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/amq/queue/a\n\n").is_empty());
    let said = world.ask(peer, "SEND\ndestination:/amq/queue/a\n\nhello");
    assert_eq!(body(&said), ["hello"]);
    assert!(said[0].contains("\ndestination:/queue/a\n"));
}

#[test]
fn a_topic_reaches_every_subscription_that_matches() {
    let mut world = World::new();
    let peer = world.open_stomp("1.2");
    for (id, pattern) in [("star", "a.*"), ("hash", "a.#"), ("other", "b")] {
        world.ask(peer, &format!("SUBSCRIBE\nid:{id}\ndestination:/topic/{pattern}\n\n"));
    }
    let mut said = world.ask(peer, "SEND\ndestination:/topic/a.b\n\nhello");
    said.sort();
    assert_eq!(said.len(), 2);
    assert!(said[0].starts_with("MESSAGE\nsubscription:hash\ndestination:/topic/a.b\n"), "{said:?}");
    assert!(said[1].starts_with("MESSAGE\nsubscription:star\ndestination:/topic/a.b\n"), "{said:?}");
    for name in queues(&world) {
        let queue = queue(&world, &name);
        assert!(name.starts_with("stomp-subscription-") && !queue.is_durable, "{name}");
        assert!(queue.declaration.is_auto_delete && queue.declaration.owner.is_none());
    }
    world.hang_up(peer);
    assert!(queues(&world).is_empty());
}

#[test]
fn a_durable_subscription_keeps_messages_for_its_id() {
    let mut world = World::new();
    let peer = world.open_stomp("1.2");
    let subscribe = "SUBSCRIBE\nid:sub1\ndestination:/topic/durable\ndurable:true\nauto-delete:false\n\n";
    assert!(world.ask(peer, subscribe).is_empty());
    // The name that RabbitMQ gives it, so that queues can be carried over.
    let names = queues(&world);
    assert_eq!(names, [DURABLE_NAME]);
    world.ask(peer, "DISCONNECT\n\n");
    let sender = world.open_stomp("1.2");
    world.ask(sender, "SEND\ndestination:/topic/durable\n\nkept");
    let peer = world.open_stomp("1.2");
    assert_eq!(body(&world.ask(peer, subscribe)), ["kept"]);
    assert_eq!(world.ask(peer, "UNSUBSCRIBE\nid:sub1\nreceipt:1\n\n"), [receipt("1")]);
    assert_eq!(queues(&world), names);
    assert!(world.ask(peer, subscribe).is_empty());
    assert_eq!(world.ask(peer, "UNSUBSCRIBE\nid:sub1\ndurable:true\nreceipt:2\n\n"), [receipt("2")]);
    assert!(queues(&world).is_empty());
}

/// Of key `durable` and id `sub1`.
const DURABLE_NAME: &str = "stomp-subscription-C5-SQv12i_QDSNfPSC3okg";

#[test]
fn the_queue_of_a_subscription_can_be_named() {
    let mut world = World::new();
    let peer = world.open_stomp("1.2");
    world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/topic/t\nx-queue-name:mine\n\n");
    world.ask(peer, "SUBSCRIBE\nid:1\ndestination:/exchange/amq.direct/k\nx-queue-name:yours\n\n");
    let mut names = queues(&world);
    names.sort();
    assert_eq!(names, ["mine", "yours"]);
    assert_eq!(body(&world.ask(peer, "SEND\ndestination:/exchange/amq.direct/k\n\nd")), ["d"]);
}

#[test]
fn an_exchange_is_sent_to_and_read_from() {
    let mut world = World::new();
    let peer = world.open_stomp("1.2");
    world.ask(peer, "SUBSCRIBE\nid:f\ndestination:/exchange/amq.fanout\n\n");
    world.ask(peer, "SUBSCRIBE\nid:d\ndestination:/exchange/amq.direct/k%2F1\n\n");
    let said = world.ask(peer, "SEND\ndestination:/exchange/amq.fanout\n\n1");
    assert!(said[0].starts_with("MESSAGE\nsubscription:f\ndestination:/exchange/amq.fanout\n"), "{said:?}");
    let said = world.ask(peer, "SEND\ndestination:/exchange/amq.direct/k%2F1\n\n2");
    assert!(said[0].starts_with("MESSAGE\nsubscription:d\ndestination:/exchange/amq.direct/k%2F1\n"), "{said:?}");
}

#[test]
fn the_exchange_behind_topics_is_a_setting() {
    let mut world = World::new();
    world.stomp.options.default_topic_exchange = "amq.fanout".to_owned();
    let peer = world.open_stomp("1.2");
    world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/topic/x\n\n");
    let said = world.ask(peer, "SEND\ndestination:/topic/y\n\n1");
    assert!(said[0].contains("\ndestination:/exchange/amq.fanout/y\n"), "{said:?}");
}

#[test]
fn a_temp_queue_takes_replies() {
    let mut world = World::new();
    let (asker, answerer) = (world.open_stomp("1.2"), world.open_stomp("1.2"));
    world.ask(answerer, "SUBSCRIBE\nid:0\ndestination:/queue/rpc\n\n");
    world.ask(asker, "SEND\ndestination:/queue/rpc\nreply-to:/temp-queue/mine\n\nquestion");
    let said = world.heard(answerer);
    assert!(said[0].contains("\nreply-to:/reply-queue/amq.gen-NAME\n"), "{said:?}");
    let names = queues(&world);
    let reply = names.iter().find(|name| name.starts_with("amq.gen-")).unwrap();
    let made = queue(&world, reply);
    assert!(made.declaration.owner.is_some() && made.declaration.is_auto_delete);
    world.ask(answerer, &format!("SEND\ndestination:/reply-queue/{reply}\n\nanswer"));
    let said = world.heard(asker);
    assert!(said[0].starts_with("MESSAGE\nsubscription:/temp-queue/mine\ndestination:/queue/amq.gen-NAME\nmessage-id:T_/temp-queue/mine@@SESSION@@1\n"), "{said:?}");
    assert_eq!(body(&said), ["answer"]);
    // The second question uses the same queue.
    world.ask(asker, "SEND\ndestination:/queue/rpc\nreply-to:/temp-queue/mine\n\nquestion");
    assert_eq!(queues(&world).len(), names.len());
    world.hang_up(asker);
    assert!(!queues(&world).contains(reply));
}

#[test]
fn other_reply_destinations_are_forwarded() {
    let mut world = World::new();
    let peer = world.open_stomp("1.2");
    world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/queue/a\n\n");
    for (given, seen) in [("/queue/b", "/queue/b"), ("/topic/t", "/topic/t"), ("plain", "/reply-queue/plain")] {
        let said = world.ask(peer, &format!("SEND\ndestination:/queue/a\nreply-to:{given}\n\n"));
        assert!(said[0].contains(&format!("\nreply-to:{seen}\n")), "{said:?}");
    }
}

#[test]
fn users_need_permissions_as_with_amqp() {
    let mut world = World::new();
    let access = &world.broker.access;
    access.add("bob", "secret").unwrap();
    let permissions = ternmq::broker::access::Permissions {
        configure: "^mine$".into(),
        write: "^(mine|amq\\.default)$".into(),
        read: "^mine$".into(),
    };
    access.set_permissions("bob", "/", permissions).unwrap();
    let denied = |what: &str, name: &str| {
        crate::frames::error(
            "access_refused",
            &format!("ACCESS_REFUSED - access to {what} '{name}' in vhost '/' refused for user 'bob'"),
        )
    };
    for (frame, expected) in [
        ("SEND\ndestination:/queue/mine\nreceipt:1\n\n", receipt("1")),
        ("SEND\ndestination:/queue/other\nreceipt:1\n\n", denied("queue", "other")),
        ("SEND\ndestination:/topic/t\nreceipt:1\n\n", denied("exchange", "amq.topic")),
        ("SUBSCRIBE\nid:0\ndestination:/amq/queue/other\n\n", denied("queue", "other")),
    ] {
        let peer = world.connect_stomp();
        world.ask(peer, "CONNECT\nlogin:bob\npasscode:secret\naccept-version:1.2\n\n");
        assert_eq!(world.ask(peer, frame), [expected], "{frame}");
    }
}
