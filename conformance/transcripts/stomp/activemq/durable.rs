//! Durable subscriptions: ordinary queues that a client comes back to.

use super::{bodies, error, world};
use crate::{frames::receipt, peer::World};

fn client(world: &mut World, name: &str) -> usize {
    let peer = world.connect_stomp();
    let said = world.ask(peer, &format!("CONNECT\naccept-version:1.2\nclient-id:{name}\n\n"));
    assert!(said[0].starts_with("CONNECTED\n"), "{said:?}");
    peer
}

const SUBSCRIBE: &str = "SUBSCRIBE\nid:d\ndestination:/topic/T.>\nactivemq.subscriptionName:s\nreceipt:1\n\n";

#[test]
fn messages_of_the_time_between_are_kept_persistent_or_not() {
    let mut world = world();
    let amqp = world.open(1);
    let peer = client(&mut world, "c");
    assert_eq!(world.ask(peer, SUBSCRIBE), [receipt("1")]);
    world.hang_up(peer);
    let sender = world.open_stomp("1.2");
    for (mode, body) in [("true", "one"), ("false", "two")] {
        world.ask(sender, &format!("SEND\ndestination:/topic/T.a\npersistent:{mode}\n\n{body}"));
    }
    // AMQP sees it as what it is.
    assert!(world.call(amqp, 1, "queue.declare", "queue=ActiveMQ.Durable.c:s durable").contains("declare-ok"));
    assert_eq!(world.broker.vhost("/").unwrap().queue("ActiveMQ.Durable.c:s").unwrap().status().ready, 2);
    let peer = client(&mut world, "c");
    let said = world.ask(peer, SUBSCRIBE);
    assert_eq!((said[0].clone(), bodies(&said[1..])), (receipt("1"), vec!["one", "two"]));
}

#[test]
fn each_client_has_its_own() {
    let mut world = world();
    for name in ["a", "b"] {
        let peer = client(&mut world, name);
        world.ask(peer, SUBSCRIBE);
        world.hang_up(peer);
    }
    let sender = world.open_stomp("1.2");
    world.ask(sender, "SEND\ndestination:/topic/T\n\nx");
    for name in ["a", "b"] {
        let peer = client(&mut world, name);
        assert_eq!(bodies(&world.ask(peer, SUBSCRIBE)[1..]), ["x"], "{name}");
    }
}

#[test]
fn it_goes_when_it_is_unsubscribed_by_name_and_not_in_use() {
    let mut world = world();
    let peer = client(&mut world, "c");
    world.ask(peer, SUBSCRIBE);
    let by_name = "UNSUBSCRIBE\nid:d\nactivemq.subscriptionName:s\nreceipt:2\n\n";
    assert_eq!(error(&world.ask(peer, by_name)), "Durable consumer is in use");
    assert_eq!(world.ask(peer, "UNSUBSCRIBE\nid:d\nreceipt:3\n\n"), [receipt("3")]);
    assert_eq!(world.ask(peer, by_name), [receipt("2")]);
    let expected = "No durable subscription exists for clientID\\c c and subscriptionName\\c s";
    assert_eq!(error(&world.ask(peer, by_name)), expected);
    assert!(world.broker.vhost("/").unwrap().queue("ActiveMQ.Durable.c:s").is_none());
}

#[test]
fn it_has_one_consumer() {
    let mut world = world();
    let peer = client(&mut world, "c");
    world.ask(peer, SUBSCRIBE);
    let said = world.ask(peer, &SUBSCRIBE.replace("id:d", "id:e"));
    assert_eq!(error(&said), "Durable consumer is in use for client\\c c and subscriptionName\\c s");
}

#[test]
fn it_is_never_one_of_a_queue() {
    let mut world = world();
    let peer = client(&mut world, "c");
    let said = world.ask(peer, "SUBSCRIBE\nid:d\ndestination:/queue/q\nactivemq.subscriptionName:s\n\n");
    assert_eq!(error(&said), "Invalid Subscription\\c cannot durably subscribe to a Queue destination!");
    assert!(world.is_served(peer));
}

#[test]
fn another_topic_makes_it_anew() {
    let mut world = world();
    let peer = client(&mut world, "c");
    world.ask(peer, SUBSCRIBE);
    world.ask(peer, "UNSUBSCRIBE\nid:d\n\n");
    world.ask(peer, "SEND\ndestination:/topic/T.old\n\nold");
    assert_eq!(world.ask(peer, &SUBSCRIBE.replace("/topic/T.>", "/topic/U")), [receipt("1")]);
    assert!(world.ask(peer, "SEND\ndestination:/topic/T.a\n\nx").is_empty());
    assert_eq!(bodies(&world.ask(peer, "SEND\ndestination:/topic/U\n\ny")), ["y"]);
}

#[test]
fn nobody_can_come_back_without_a_name_so_it_goes_with_the_connection() {
    let mut world = world();
    let peer = world.open_stomp("1.2");
    assert_eq!(world.ask(peer, SUBSCRIBE), [receipt("1")]);
    assert_eq!(bodies(&world.ask(peer, "SEND\ndestination:/topic/T.a\n\nx")), ["x"]);
    world.hang_up(peer);
    assert_eq!(world.broker.vhost("/").unwrap().queues_count(), 0);
}

#[test]
fn other_names_of_the_header_mean_the_same() {
    for header in ["activemq.subcriptionName", "durable-subscriber-name", "durable-subscription-name"] {
        let mut world = world();
        let peer = client(&mut world, "c");
        assert_eq!(world.ask(peer, &SUBSCRIBE.replace("activemq.subscriptionName", header)), [receipt("1")]);
        assert!(world.broker.vhost("/").unwrap().queue("ActiveMQ.Durable.c:s").is_some(), "{header}");
    }
}

#[test]
fn names_cannot_pretend_to_be_others() {
    let mut world = world();
    for (name, subscription) in [("a", "b:c"), ("a\\cb", "c")] {
        let peer = client(&mut world, name);
        let said = world.ask(peer, &SUBSCRIBE.replace("Name:s", &format!("Name:{}", subscription.replace(':', "\\c"))));
        assert_eq!(said, [receipt("1")]);
    }
    assert_eq!(world.broker.vhost("/").unwrap().queues_count(), 3);
}

#[test]
fn nothing_is_retained_for_a_retroactive_subscription() {
    let mut world = world();
    let peer = world.open_stomp("1.2");
    world.ask(peer, "SEND\ndestination:/topic/T\n\nold");
    assert!(world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/topic/T\nactivemq.retroactive:true\n\n").is_empty());
}
