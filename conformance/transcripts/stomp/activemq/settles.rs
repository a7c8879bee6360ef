//! Acknowledgements, what becomes of messages that nobody works off, and transactions.

use super::{bodies, error, header, world};
use crate::{frames::receipt, lines, peer::World};

fn subscribe(world: &mut World, peer: usize, headers: &str) -> Vec<String> {
    world.ask(peer, &format!("SUBSCRIBE\nid:0\ndestination:/queue/q\n{headers}\n"))
}

fn send(world: &mut World, peer: usize, headers: &str, body: &str) {
    world.say(peer, &format!("SEND\ndestination:/queue/q\n{headers}\n{body}"));
}

fn ready(world: &World, queue: &str) -> (u64, u64) {
    let status = world.broker.vhost("/").unwrap().queue(queue).unwrap().status();
    (status.ready, status.unsettled)
}

#[test]
fn a_client_acknowledgement_stands_for_all_before_it_of_its_subscription_alone() {
    for version in ["1.0", "1.1", "1.2"] {
        let mut world = world();
        let peer = world.open_stomp(version);
        subscribe(&mut world, peer, "ack:client\n");
        world.ask(peer, "SUBSCRIBE\nid:1\ndestination:/queue/other\nack:client\n\n");
        world.ask(peer, "SEND\ndestination:/queue/other\n\nx");
        for body in ["1", "2", "3"] {
            send(&mut world, peer, "", body);
        }
        let said = world.heard(peer);
        let second = &said[1];
        let ack = match version {
            "1.2" => format!("ACK\nid:{}\nreceipt:r\n\n", header(second, "ack").unwrap()),
            _ => format!("ACK\nsubscription:0\nmessage-id:{}\nreceipt:r\n\n", header(second, "message-id").unwrap()),
        };
        assert_eq!(world.ask(peer, &ack), [receipt("r")], "{version}");
        assert_eq!((ready(&world, "q"), ready(&world, "other")), ((0, 1), (0, 1)), "{version}");
        assert!(error(&world.ask(peer, &ack)).starts_with("Unexpected ACK received for message-id ["));
    }
}

#[test]
fn an_acknowledgement_of_1_0_needs_no_subscription() {
    let mut world = world();
    let peer = world.open_stomp("1.0");
    subscribe(&mut world, peer, "ack:client\n");
    send(&mut world, peer, "", "1");
    let said = world.heard(peer);
    let id = header(&said[0], "message-id").unwrap();
    assert_eq!(world.ask(peer, &format!("ACK\nmessage-id:{id}\nreceipt:r\n\n")), [receipt("r")]);
    assert_eq!(ready(&world, "q"), (0, 0));
}

#[test]
fn one_message_of_a_topic_is_acknowledged_by_each_subscription_of_the_connection() {
    let mut world = world();
    let peer = world.open_stomp("1.1");
    for id in ["a", "b"] {
        world.ask(peer, &format!("SUBSCRIBE\nid:{id}\ndestination:/topic/t\nack:client-individual\n\n"));
    }
    let said = world.ask(peer, "SEND\ndestination:/topic/t\n\nx");
    let id = header(&said[0], "message-id").unwrap();
    assert_eq!(header(&said[1], "message-id"), Some(id));
    for subscription in ["b", "a"] {
        let ack = format!("ACK\nsubscription:{subscription}\nmessage-id:{id}\nreceipt:r\n\n");
        assert_eq!(world.ask(peer, &ack), [receipt("r")], "{subscription}");
        assert!(error(&world.ask(peer, &ack)).starts_with("Unexpected ACK"));
    }
}

#[test]
fn a_persistent_message_that_is_refused_goes_to_the_queue_of_the_dead_at_once() {
    let mut world = world();
    let peer = world.open_stomp("1.2");
    subscribe(&mut world, peer, "ack:client-individual\n");
    send(&mut world, peer, "persistent:true\nfoo:bar\ntype:t\n", "poison");
    let ack = header(&world.heard(peer)[0], "ack").unwrap().to_owned();
    assert_eq!(world.ask(peer, &format!("NACK\nid:{ack}\nreceipt:r\n\n")), [receipt("r")]);
    assert_eq!(ready(&world, "q"), (0, 0));
    let said = world.ask(peer, "SUBSCRIBE\nid:d\ndestination:/queue/ActiveMQ.DLQ\n\n");
    assert_eq!(bodies(&said), ["poison"]);
    for (name, value) in [
        ("original-destination", "/queue/q"),
        ("originalExpiration", "0"),
        ("expires", "0"),
        ("persistent", "true"),
        ("foo", "bar"),
        ("type", "t"),
        ("destination", "/queue/ActiveMQ.DLQ"),
    ] {
        assert_eq!(header(&said[0], name), Some(value), "{name}");
    }
    assert!(!said[0].contains("x-first-death"));
}

#[test]
fn another_message_that_is_refused_is_dropped() {
    let mut world = world();
    let peer = world.open_stomp("1.2");
    subscribe(&mut world, peer, "ack:client\n");
    send(&mut world, peer, "", "1");
    let ack = header(&world.heard(peer)[0], "ack").unwrap().to_owned();
    world.ask(peer, &format!("NACK\nid:{ack}\n\n"));
    assert_eq!((ready(&world, "q"), ready(&world, "ActiveMQ.DLQ")), ((0, 0), (0, 0)));
}

#[test]
fn the_dead_letter_settings_of_a_queue_count_before_those_of_the_dialect() {
    let mut world = world();
    let amqp = world.open(1);
    let argument = lines::table(&[
        ("x-dead-letter-exchange", lines::Value::Text("")),
        ("x-dead-letter-routing-key", lines::Value::Text("dead")),
    ]);
    world.call(amqp, 1, "queue.declare", "queue=dead");
    world.send(amqp, &lines::method(1, "queue.declare", "queue=q durable", &argument));
    world.heard(amqp);
    world.call(amqp, 1, "queue.declare", "queue=plain durable");
    let peer = world.open_stomp("1.2");
    for queue in ["q", "plain"] {
        world.ask(peer, &format!("SUBSCRIBE\nid:{queue}\ndestination:/queue/{queue}\nack:client-individual\n\n"));
        let said = world.ask(peer, &format!("SEND\ndestination:/queue/{queue}\npersistent:true\n\nx"));
        let ack = header(&said[0], "ack").unwrap().to_owned();
        world.ask(peer, &format!("NACK\nid:{ack}\n\n"));
    }
    assert_eq!(ready(&world, "dead"), (1, 0));
    assert!(world.broker.vhost("/").unwrap().queue("ActiveMQ.DLQ").is_none());
}

#[test]
fn an_expired_persistent_message_goes_to_the_queue_of_the_dead() {
    let mut world = world();
    let peer = world.open_stomp("1.2");
    let expires = world.now.0 + 100;
    for persistent in ["true", "false"] {
        send(&mut world, peer, &format!("persistent:{persistent}\nexpires:{expires}\n"), persistent);
    }
    world.pass(100);
    assert_eq!((ready(&world, "q"), ready(&world, "ActiveMQ.DLQ")), ((0, 0), (1, 0)));
    let said = world.ask(peer, "SUBSCRIBE\nid:d\ndestination:/queue/ActiveMQ.DLQ\n\n");
    assert_eq!(bodies(&said), ["true"]);
    let cause = format!("java.lang.Throwable\\c Message Expired. Expiration\\c{expires}");
    assert_eq!(header(&said[0], "dlqDeliveryFailureCause"), Some(&*cause));
    assert_eq!(header(&said[0], "originalExpiration"), Some(&*expires.to_string()));
    assert_eq!(header(&said[0], "original-destination"), Some("/queue/q"));
}

#[test]
fn a_dead_message_of_a_durable_subscription_tells_its_topic() {
    let mut world = world();
    let peer = world.connect_stomp();
    world.ask(peer, "CONNECT\naccept-version:1.2\nclient-id:c\n\n");
    world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/topic/t\nactivemq.subscriptionName:s\nack:client\n\n");
    let said = world.ask(peer, "SEND\ndestination:/topic/t\npersistent:true\n\nx");
    let ack = header(&said[0], "ack").unwrap().to_owned();
    world.ask(peer, &format!("NACK\nid:{ack}\n\n"));
    let said = world.ask(peer, "SUBSCRIBE\nid:d\ndestination:/queue/ActiveMQ.DLQ\n\n");
    assert_eq!(header(&said[0], "original-destination"), Some("/topic/t"));
}

#[test]
fn what_a_connection_held_is_delivered_again_however_often() {
    let mut world = world();
    let sender = world.open_stomp("1.2");
    send(&mut world, sender, "persistent:true\n", "1");
    for round in 0..8 {
        let peer = world.open_stomp("1.2");
        let said = subscribe(&mut world, peer, "ack:client\n");
        assert_eq!(header(&said[0], "redelivered"), (round > 0).then_some("true"), "{round}");
        world.hang_up(peer);
    }
    assert_eq!(ready(&world, "q"), (1, 0));
}

#[test]
fn an_unsubscribed_consumer_gives_back_what_it_held() {
    let mut world = world();
    let peer = world.open_stomp("1.2");
    subscribe(&mut world, peer, "ack:client-individual\n");
    for body in ["1", "2"] {
        send(&mut world, peer, "", body);
    }
    let ack = header(&world.heard(peer)[0], "ack").unwrap().to_owned();
    world.ask(peer, &format!("ACK\nid:{ack}\n\n"));
    world.ask(peer, "UNSUBSCRIBE\nid:0\n\n");
    assert_eq!(ready(&world, "q"), (1, 0));
    let said = subscribe(&mut world, peer, "");
    assert_eq!((bodies(&said), header(&said[0], "redelivered")), (vec!["2"], Some("true")));
}

#[test]
fn acknowledgements_in_a_transaction_count_at_commit_however_often_they_are_said() {
    let mut world = world();
    let peer = world.open_stomp("1.2");
    subscribe(&mut world, peer, "ack:client\n");
    for body in ["1", "2"] {
        send(&mut world, peer, "", body);
    }
    let said = world.heard(peer);
    world.ask(peer, "BEGIN\ntransaction:t\n\n");
    for frame in &said {
        let ack = header(frame, "ack").unwrap();
        assert_eq!(world.ask(peer, &format!("ACK\nid:{ack}\ntransaction:t\nreceipt:r\n\n")), [receipt("r")]);
    }
    assert_eq!(ready(&world, "q"), (0, 2));
    assert_eq!(world.ask(peer, "COMMIT\ntransaction:t\nreceipt:c\n\n"), [receipt("c")]);
    assert_eq!(ready(&world, "q"), (0, 0));
}

#[test]
fn an_aborted_acknowledgement_can_be_said_again() {
    let mut world = world();
    let peer = world.open_stomp("1.2");
    subscribe(&mut world, peer, "ack:client\n");
    send(&mut world, peer, "", "1");
    let ack = header(&world.heard(peer)[0], "ack").unwrap().to_owned();
    world.ask(peer, "BEGIN\ntransaction:t\n\n");
    world.ask(peer, &format!("ACK\nid:{ack}\ntransaction:t\n\n"));
    assert!(world.ask(peer, "ABORT\ntransaction:t\n\n").is_empty());
    assert_eq!(ready(&world, "q"), (0, 1));
    assert_eq!(world.ask(peer, &format!("ACK\nid:{ack}\nreceipt:r\n\n")), [receipt("r")]);
    assert_eq!(ready(&world, "q"), (0, 0));
}

#[test]
fn a_transaction_takes_effect_at_commit_for_all_its_destinations() {
    let mut world = world();
    let peer = world.open_stomp("1.1");
    world.ask(peer, "BEGIN\ntransaction:t\n\n");
    let both = "SEND\ndestination:/queue/q,/queue/p\ntransaction:t\nreceipt:s\n\nx";
    assert_eq!(world.ask(peer, both), [receipt("s")]);
    assert_eq!((ready(&world, "q"), ready(&world, "p")), ((0, 0), (0, 0)));
    world.ask(peer, "COMMIT\ntransaction:t\n\n");
    assert_eq!((ready(&world, "q"), ready(&world, "p")), ((1, 0), (1, 0)));
}

#[test]
fn a_prefetch_bounds_what_a_consumer_holds() {
    for (mode, count) in [("client", 2), ("client-individual", 2), ("auto", 5)] {
        let mut world = world();
        let peer = world.open_stomp("1.2");
        subscribe(&mut world, peer, &format!("ack:{mode}\nactivemq.prefetchSize:2\n"));
        for body in ["1", "2", "3", "4", "5"] {
            send(&mut world, peer, "", body);
        }
        assert_eq!(world.heard(peer).len(), count, "{mode}");
    }
}

#[test]
fn a_transaction_frees_the_prefetch_of_what_it_acknowledges_until_its_end() {
    for end in ["COMMIT", "ABORT"] {
        let mut world = world();
        let peer = world.open_stomp("1.2");
        for body in ["1", "2", "3", "4", "5"] {
            send(&mut world, peer, "", body);
        }
        let mut said = subscribe(&mut world, peer, "ack:client-individual\nactivemq.prefetchSize:1\n");
        world.say(peer, "BEGIN\ntransaction:t\n\n");
        for expected in ["2", "3"] {
            let ack = format!("ACK\nid:{}\ntransaction:t\n\n", header(&said[0], "ack").unwrap());
            said = world.ask(peer, &ack);
            assert_eq!(bodies(&said), [expected], "{end}");
        }
        // The third is held, whatever becomes of the others, and so is all of the prefetch.
        assert_eq!(world.ask(peer, &format!("{end}\ntransaction:t\nreceipt:e\n\n")), [receipt("e")], "{end}");
        assert_eq!(ready(&world, "q"), (2, if end == "COMMIT" { 1 } else { 3 }), "{end}");
        let ack = format!("ACK\nid:{}\n\n", header(&said[0], "ack").unwrap());
        let more = if end == "COMMIT" { &["4"][..] } else { &[] };
        assert_eq!(bodies(&world.ask(peer, &ack)), more, "{end}");
    }
}

#[test]
fn a_consumer_of_higher_priority_is_served_first() {
    let mut world = world();
    let peer = world.open_stomp("1.2");
    for (id, priority) in [(1, 1), (2, 10)] {
        let subscribe = format!("SUBSCRIBE\nid:{id}\ndestination:/queue/q\nactivemq.priority:{priority}\n\n");
        world.ask(peer, &subscribe);
    }
    for body in ["1", "2", "3", "4"] {
        send(&mut world, peer, "", body);
    }
    assert!(world.heard(peer).iter().all(|frame| header(frame, "subscription") == Some("2")));
}
