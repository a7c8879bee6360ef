//! Who gets which message: selectors, groups, exclusive consumers.

use super::{bodies, error, header, world};
use crate::{frames::receipt, lines, peer::World};

fn subscribe(world: &mut World, peer: usize, id: &str, destination: &str, headers: &str) -> Vec<String> {
    world.ask(peer, &format!("SUBSCRIBE\nid:{id}\ndestination:{destination}\n{headers}\n"))
}

fn send(world: &mut World, peer: usize, destination: &str, headers: &str, body: &str) -> Vec<String> {
    world.ask(peer, &format!("SEND\ndestination:{destination}\n{headers}\n{body}"))
}

#[test]
fn a_selector_takes_its_messages_out_of_a_queue_and_leaves_the_rest() {
    let mut world = world();
    let peer = world.open_stomp("1.2");
    for (n, color) in [(4, "red"), (3, "red"), (5, "blue")] {
        send(&mut world, peer, "/queue/q", &format!("n:{n}\ncolor:{color}\n"), &n.to_string());
    }
    let said = subscribe(&mut world, peer, "0", "/queue/q", "selector:n > 3 AND color = 'red'\n");
    assert_eq!(bodies(&said), ["4"]);
    assert_eq!(bodies(&subscribe(&mut world, peer, "1", "/queue/q", "")), ["3", "5"]);
}

#[test]
fn text_counts_as_a_number_beside_one_and_as_a_truth_value_beside_one() {
    for (selector, yes, no) in [
        ("n = 5", "n:5\n", "n:6\n"),
        ("n BETWEEN 1.5 AND 2.5", "n:2\n", "n:3\n"),
        ("flag = TRUE", "flag:true\n", "flag:false\n"),
        ("x IN ('a','b')", "x:b\n", "x:c\n"),
        ("x LIKE 'a%'", "x:abc\n", "x:b\n"),
        ("x IS NULL", "", "x:1\n"),
        ("JMSPriority > 5", "priority:9\n", ""),
        ("JMSType = 't'", "type:t\n", "type:u\n"),
        ("JMSCorrelationID = 'c'", "correlation-id:c\n", ""),
        ("JMSDeliveryMode = 'PERSISTENT'", "persistent:true\n", ""),
        ("JMSTimestamp = 1700000000123", "timestamp:1700000000123\n", ""),
        ("JMSExpiration = 4102444800000", "expires:4102444800000\n", ""),
    ] {
        for destination in ["/queue/q", "/topic/t"] {
            let mut world = world();
            let peer = world.open_stomp("1.2");
            let selects = format!("selector:{selector}\nreceipt:s\n");
            assert_eq!(subscribe(&mut world, peer, "0", destination, &selects), [receipt("s")], "{selector}");
            assert_eq!(bodies(&send(&mut world, peer, destination, yes, "yes")), ["yes"], "{selector} {destination}");
            assert!(send(&mut world, peer, destination, no, "no").is_empty(), "{selector} {destination}");
        }
    }
}

#[test]
fn a_selector_that_is_none_is_refused_and_harms_nobody() {
    let mut world = world();
    let peer = world.open_stomp("1.2");
    let deep = format!("{}1{} = 1", "(".repeat(10_000), ")".repeat(10_000));
    for selector in ["n >>> 3", "n =", "(a = 1", &deep[..8000]] {
        let said = subscribe(&mut world, peer, "0", "/queue/q", &format!("selector:{selector}\nreceipt:1\n"));
        assert_eq!(error(&said), selector);
        assert_eq!(header(&said[0], "receipt-id"), Some("1"));
    }
    assert!(world.is_served(peer));
    // Blank is none.
    assert!(subscribe(&mut world, peer, "0", "/queue/q", "selector:  \n").is_empty());
    assert_eq!(bodies(&send(&mut world, peer, "/queue/q", "", "x")), ["x"]);
}

#[test]
fn a_durable_subscription_takes_in_only_what_its_selector_says() {
    let mut world = world();
    let peer = world.connect_stomp();
    world.ask(peer, "CONNECT\naccept-version:1.2\nclient-id:c\n\n");
    let durable = "activemq.subscriptionName:s\nselector:a = 1\n";
    assert!(subscribe(&mut world, peer, "0", "/topic/t", durable).is_empty());
    world.ask(peer, "UNSUBSCRIBE\nid:0\n\n");
    for a in 1..=2 {
        send(&mut world, peer, "/topic/t", &format!("a:{a}\n"), &a.to_string());
    }
    let status = |world: &World| world.broker.vhost("/").unwrap().queue("ActiveMQ.Durable.c:s").unwrap().status().ready;
    assert_eq!(status(&world), 1);
    assert_eq!(bodies(&subscribe(&mut world, peer, "0", "/topic/t", durable)), ["1"]);
    world.ask(peer, "UNSUBSCRIBE\nid:0\n\n");
    send(&mut world, peer, "/topic/t", "a:1\n", "old");
    // Another selector makes it anew.
    let other = durable.replace("a = 1", "a = 2");
    assert!(subscribe(&mut world, peer, "0", "/topic/t", &other).is_empty());
    assert_eq!(bodies(&send(&mut world, peer, "/topic/t", "a:2\n", "2")), ["2"]);
    assert!(send(&mut world, peer, "/topic/t", "a:1\n", "1").is_empty());
}

#[test]
fn a_subscription_that_is_not_local_hears_others_only() {
    let mut world = world();
    let peer = world.open_stomp("1.2");
    let other = world.open_stomp("1.2");
    let amqp = world.open(1);
    subscribe(&mut world, peer, "0", "/topic/t", "activemq.noLocal:true\nselector:a IS NULL\n");
    assert!(send(&mut world, peer, "/topic/t", "", "mine").is_empty());
    send(&mut world, other, "/topic/t", "", "theirs");
    send(&mut world, other, "/topic/t", "a:1\n", "not wanted");
    world.send(amqp, &lines::publish(1, "exchange=amq.topic key=t", "", &[], b"of amqp"));
    assert_eq!(bodies(&world.heard(peer)), ["theirs", "of amqp"]);
}

#[test]
fn an_exclusive_consumer_is_served_alone_while_it_is_there() {
    let mut world = world();
    let peer = world.open_stomp("1.2");
    subscribe(&mut world, peer, "plain", "/queue/q", "");
    subscribe(&mut world, peer, "first", "/queue/q", "activemq.exclusive:true\nack:client\nactivemq.prefetchSize:1\n");
    subscribe(&mut world, peer, "second", "/queue/q", "activemq.exclusive:true\n");
    let served = |said: &[String]| -> Vec<String> {
        said.iter().map(|frame| header(frame, "subscription").unwrap().to_owned()).collect()
    };
    for body in ["1", "2"] {
        world.say(peer, &format!("SEND\ndestination:/queue/q\n\n{body}"));
    }
    // It holds what it may hold; the rest waits for it.
    assert_eq!(served(&world.heard(peer)), ["first"]);
    assert_eq!(served(&world.ask(peer, "UNSUBSCRIBE\nid:first\n\n")), ["second", "second"]);
    world.ask(peer, "UNSUBSCRIBE\nid:second\n\n");
    assert_eq!(served(&send(&mut world, peer, "/queue/q", "", "3")), ["plain"]);
}

#[test]
fn a_group_stays_with_its_consumer_until_it_is_ended() {
    let mut world = world();
    let peer = world.open_stomp("1.2");
    for id in ["0", "1"] {
        subscribe(&mut world, peer, id, "/queue/q", "");
    }
    let mut owners = Vec::new();
    for group in ["a", "b", "a", "b", "a"] {
        let said = send(&mut world, peer, "/queue/q", &format!("JMSXGroupID:{group}\n"), "");
        let first = header(&said[0], "JMSXGroupFirstForConsumer");
        owners.push((header(&said[0], "subscription").unwrap().to_owned(), first == Some("true")));
    }
    assert_ne!(owners[0].0, owners[1].0);
    assert_eq!((&owners[2].0, &owners[3].0, &owners[4].0), (&owners[0].0, &owners[1].0, &owners[0].0));
    assert_eq!(owners.iter().map(|(_, first)| *first).collect::<Vec<_>>(), [true, true, false, false, false]);
    send(&mut world, peer, "/queue/q", "JMSXGroupID:a\nJMSXGroupSeq:-1\n", "");
    let said = send(&mut world, peer, "/queue/q", "JMSXGroupID:a\n", "");
    assert_eq!(header(&said[0], "JMSXGroupFirstForConsumer"), Some("true"));
}
