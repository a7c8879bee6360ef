//! Destinations: what they are in queues and exchanges that AMQP sees, too.

use super::{bodies, error, header, plain, world};
use crate::{frames::receipt, lines, peer::World};

fn queues(world: &World) -> Vec<String> {
    let mut names: Vec<String> =
        world.broker.vhost("/").unwrap().queues().iter().map(|queue| queue.name.to_string()).collect();
    names.sort();
    names
}

#[test]
fn a_queue_can_be_declared_by_amqp_in_the_same_way() {
    for frame in ["SEND", "SUBSCRIBE\nid:0"] {
        let mut world = world();
        let peer = world.open_stomp("1.2");
        assert!(world.ask(peer, &format!("{frame}\ndestination:/queue/a\n\n")).is_empty());
        let amqp = world.open(1);
        assert!(world.call(amqp, 1, "queue.declare", "queue=a durable").contains("declare-ok"));
        let vhost = world.broker.vhost("/").unwrap();
        let queue = vhost.queue("a").unwrap();
        assert!(queue.is_durable && !queue.declaration.is_auto_delete && queue.declaration.owner.is_none());
        assert!(queue.declaration.arguments.is_empty());
        assert_eq!(queue.declaration.dead_queue.as_deref(), Some("ActiveMQ.DLQ"));
    }
}

#[test]
fn a_queue_that_amqp_declared_is_used_as_it_is() {
    let mut world = world();
    let amqp = world.open(1);
    world.call(amqp, 1, "queue.declare", "queue=a auto_delete");
    let peer = world.open_stomp("1.2");
    assert!(world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/queue/a\n\n").is_empty());
    assert_eq!(bodies(&world.ask(peer, "SEND\ndestination:a\n\nx")), ["x"]);
    assert_eq!(queues(&world), ["a"]);
    assert!(world.broker.vhost("/").unwrap().queue("a").unwrap().declaration.dead_queue.is_none());
}

#[test]
fn a_topic_is_a_key_of_the_topic_exchange() {
    let mut world = world();
    let amqp = world.open(1);
    world.call(amqp, 1, "queue.declare", "queue=all");
    world.call(amqp, 1, "queue.bind", "queue=all exchange=amq.topic key=A.#");
    let peer = world.open_stomp("1.2");
    world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/topic/A.*\n\n");
    let said = world.ask(peer, "SEND\ndestination:/topic/A.B\n\nstomp");
    assert_eq!(header(&said[0], "destination"), Some("/topic/A.B"));
    assert!(world.call(amqp, 1, "basic.get", "queue=all no_ack").contains("stomp"));
    world.send(amqp, &lines::publish(1, "exchange=amq.topic key=A.C", "", &[], b"amqp"));
    let said = world.heard(peer);
    assert_eq!((bodies(&said), header(&said[0], "destination")), (vec!["amqp"], Some("/topic/A.C")));
    world.send(amqp, &lines::publish(1, "exchange=amq.topic key=A.C.D", "", &[], b"too deep"));
    assert!(world.heard(peer).is_empty());
    world.hang_up(peer);
    assert_eq!(queues(&world), ["all"]);
}

#[test]
fn the_rest_of_a_pattern_may_be_nothing() {
    let mut world = world();
    let peer = world.open_stomp("1.2");
    world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/topic/W.*.x.>\n\n");
    for (topic, count) in [("W.a.x", 1), ("W.a.x.y.z", 1), ("W.a.b.x", 0), ("W", 0)] {
        assert_eq!(world.ask(peer, &format!("SEND\ndestination:/topic/{topic}\n\n")).len(), count, "{topic}");
    }
}

#[test]
fn each_consumer_queue_of_a_virtual_topic_gets_its_copy() {
    let mut world = world();
    let amqp = world.open(1);
    let peer = world.open_stomp("1.2");
    for name in ["A", "B"] {
        world.ask(peer, &format!("SUBSCRIBE\nid:{name}\ndestination:/queue/Consumer.{name}.VirtualTopic.T\n\n"));
    }
    world.ask(peer, "UNSUBSCRIBE\nid:B\n\n");
    let said = world.ask(peer, "SEND\ndestination:/topic/VirtualTopic.T\npersistent:true\n\nx");
    assert_eq!(bodies(&said), ["x"]);
    // An ordinary durable queue.
    let got = world.call(amqp, 1, "basic.get", "queue=Consumer.B.VirtualTopic.T no_ack");
    assert!(got.contains("x"), "{got}");
    assert!(world.call(amqp, 1, "queue.declare", "queue=Consumer.B.VirtualTopic.T durable").contains("declare-ok"));
}

#[test]
fn a_pattern_of_queues_is_for_those_that_come_later_too() {
    let mut world = world();
    let amqp = world.open(1);
    let peer = world.open_stomp("1.2");
    world.call(amqp, 1, "queue.declare", "queue=A.1 durable");
    world.publish(amqp, 1, "A.1", "", b"old");
    let said = world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/queue/A.>\nreceipt:1\n\n");
    assert_eq!((said[0].clone(), bodies(&said[1..])), (receipt("1"), vec!["old"]));
    world.call(amqp, 1, "queue.declare", "queue=A.2.x durable");
    world.publish(amqp, 1, "A.2.x", "", b"new");
    let said = world.heard(peer);
    assert_eq!((bodies(&said), header(&said[0], "destination")), (vec!["new"], Some("/queue/A.2.x")));
    // Queues of one connection, or of a subscription, are nobody else's.
    world.call(amqp, 1, "queue.declare", "queue=A.3 exclusive");
    world.publish(amqp, 1, "A.3", "", b"mine");
    world.call(amqp, 1, "queue.declare", "queue=B durable");
    world.publish(amqp, 1, "B", "", b"other");
    assert!(world.heard(peer).is_empty());
    world.ask(peer, "UNSUBSCRIBE\nid:0\nreceipt:2\n\n");
    world.call(amqp, 1, "queue.declare", "queue=A.4 durable");
    world.publish(amqp, 1, "A.4", "", b"after");
    assert!(world.heard(peer).is_empty());
}

#[test]
fn a_pattern_ends_at_a_bound() {
    let mut world = world();
    world.stomp.options.subscriptions_max = 3;
    let peer = world.open_stomp("1.2");
    world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/queue/A.*\n\n");
    for number in 0..5 {
        world.ask(peer, &format!("SEND\ndestination:/queue/A.{number}\n\nx"));
    }
    assert_eq!(world.broker.connections.list()[0].handle.channels()[0].consumers, 3);
    assert!(world.is_served(peer));
}

#[test]
fn a_composite_reaches_every_part_in_one_step() {
    let mut world = world();
    let peer = world.open_stomp("1.2");
    world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/queue/A,/topic/C\n\n");
    let mut said = world.ask(peer, "SEND\ndestination:/queue/A,/queue/B,/topic/C\nreceipt:1\n\nx");
    said.retain(|frame| *frame != receipt("1"));
    let mut destinations: Vec<_> = said.iter().map(|frame| header(frame, "destination").unwrap()).collect();
    destinations.sort_unstable();
    assert_eq!(destinations, ["/queue/A", "/topic/C"]);
    for frame in &said {
        assert_eq!(header(frame, "original-destination"), Some("/queue/A,queue\\c//B,topic\\c//C"));
    }
    let many = vec!["q"; 65].join(",");
    let said = world.ask(peer, &format!("SEND\ndestination:{many}\n\nx"));
    assert_eq!(error(&said), "A destination has too many parts");
    assert!(world.is_served(peer));
}

#[test]
fn an_answer_finds_a_temporary_queue_from_either_protocol() {
    let mut world = world();
    let asker = world.open_stomp("1.1");
    world.ask(asker, "SUBSCRIBE\nid:0\ndestination:/temp-queue/answers\n\n");
    world.ask(asker, "SEND\ndestination:/queue/q\nreply-to:/temp-queue/answers\ncorrelation-id:7\n\nask");
    let amqp = world.open(1);
    let got = world.call(amqp, 1, "basic.get", "queue=q no_ack");
    let name = got.split("reply_to:'").nth(1).unwrap().split('\'').next().unwrap().to_owned();
    assert!(name.starts_with("ID:tern-"), "{got}");
    world.publish(amqp, 1, &name, "correlation_id=7", b"from amqp");
    let said = world.heard(asker);
    assert_eq!((bodies(&said), header(&said[0], "destination")), (vec!["from amqp"], Some("/temp-queue/answers")));
    world.ask(asker, "SEND\ndestination:/queue/q\nreply-to:/temp-queue/answers\n\nask");
    let responder = world.open_stomp("1.2");
    let said = world.ask(responder, "SUBSCRIBE\nid:0\ndestination:/queue/q\n\n");
    let to = header(&said[0], "reply-to").unwrap().to_owned();
    assert_eq!(plain(&to), "/remote-temp-queue/ID");
    world.ask(responder, &format!("SEND\ndestination:{to}\n\nfrom stomp"));
    assert_eq!(bodies(&world.heard(asker)), ["from stomp"]);
    world.hang_up(asker);
    assert_eq!(queues(&world), ["ActiveMQ.DLQ", "q"]);
    let said = world.ask(responder, &format!("SEND\ndestination:{to}\n\nlate"));
    assert!(error(&said).starts_with("temp-queue\\c//ID"), "{said:?}");
}

#[test]
fn the_queue_of_an_amqp_client_takes_answers() {
    let mut world = world();
    let amqp = world.open(1);
    world.call(amqp, 1, "queue.declare", "queue=mine exclusive");
    let peer = world.open_stomp("1.2");
    world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/queue/q\n\n");
    world.publish(amqp, 1, "q", "reply_to=mine", b"ask");
    let said = world.heard(peer);
    assert_eq!(header(&said[0], "reply-to"), Some("/queue/mine"));
    assert!(world.ask(peer, "SEND\ndestination:/queue/mine\n\nyes").is_empty());
    assert!(world.call(amqp, 1, "basic.get", "queue=mine no_ack").contains("yes"));
}

#[test]
fn nobody_reads_the_exclusive_queue_of_another_connection() {
    let mut world = world();
    let amqp = world.open(1);
    let peer = world.open_stomp("1.2");
    for name in ["mine", "Consumer.A.VirtualTopic.T"] {
        world.call(amqp, 1, "queue.declare", &format!("queue={name} exclusive"));
        world.publish(amqp, 1, name, "", b"secret");
        for browser in ["true", "false"] {
            let subscribe = format!("SUBSCRIBE\nid:0\ndestination:/queue/{name}\nbrowser:{browser}\n\n");
            assert!(error(&world.ask(peer, &subscribe)).starts_with("RESOURCE_LOCKED"));
        }
    }
}

#[test]
fn a_topic_of_a_connection_can_be_answered_to() {
    let mut world = world();
    let asker = world.open_stomp("1.2");
    world.ask(asker, "SUBSCRIBE\nid:0\ndestination:/temp-topic/t\n\n");
    world.ask(asker, "SEND\ndestination:/queue/q\nreply-to:/temp-topic/t\n\nask");
    let responder = world.open_stomp("1.2");
    let said = world.ask(responder, "SUBSCRIBE\nid:0\ndestination:/queue/q\n\n");
    let to = header(&said[0], "reply-to").unwrap().to_owned();
    assert_eq!(plain(&to), "/remote-temp-topic/ID");
    world.ask(responder, &format!("SEND\ndestination:{to}\n\nyes"));
    let said = world.heard(asker);
    assert_eq!((bodies(&said), header(&said[0], "destination")), (vec!["yes"], Some("/temp-topic/t")));
}

#[test]
fn a_queue_that_is_deleted_is_said_and_made_anew() {
    let mut world = world();
    let amqp = world.open(1);
    let peer = world.open_stomp("1.2");
    world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/queue/a\n\n");
    world.call(amqp, 1, "queue.delete", "queue=a");
    assert_eq!(error(&world.heard(peer)), "The destination queue\\c//a was deleted");
    world.ask(peer, "SEND\ndestination:/queue/a\n\nx");
    assert!(world.call(amqp, 1, "basic.get", "queue=a no_ack").contains("get-ok"));
}
