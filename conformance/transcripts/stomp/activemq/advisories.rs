//! Advisories: their topics, headers and counts are those that clients of OpenWire get from ActiveMQ 5.17.2 when
//! clients of STOMP do the same. (Clients of STOMP get none from Debian's, which lacks a class for it.)

use serde_json::Value as Json;

use super::{error, header, world};
use crate::peer::World;

/// A client who listens.
fn listener(world: &mut World, topic: &str) -> usize {
    let peer = world.open_stomp("1.2");
    let said = world.ask(peer, &format!("SUBSCRIBE\nid:w\ndestination:/topic/{topic}\n\n"));
    assert_eq!(said, [""; 0]);
    peer
}

/// What each advisory is: its topic, what is told, and the count of consumers.
fn told(said: &[String]) -> Vec<String> {
    said.iter()
        .map(|frame| {
            let body: Json = serde_json::from_str(frame.split_once("\n\n").unwrap().1).unwrap();
            let what = body.as_object().unwrap().keys().next().unwrap().clone();
            let topic = header(frame, "destination").unwrap().strip_prefix("/topic/ActiveMQ.Advisory.").unwrap();
            let count = header(frame, "consumerCount").map(|count| format!(" {count}")).unwrap_or_default();
            let of_session = topic.split_once("ID\\c").map_or(topic.to_owned(), |(kind, _)| format!("{kind}ID"));
            format!("{of_session} {what}{count}")
        })
        .collect()
}

#[test]
fn an_advisory_has_the_headers_of_activemq() {
    let mut world = world();
    let listener = listener(&mut world, "ActiveMQ.Advisory.Consumer.Queue.q");
    let peer = world.open_stomp("1.2");
    world.ask(peer, "SUBSCRIBE\nid:1\ndestination:/queue/q\nactivemq.prefetchSize:7\nselector:a = 1\n\n");
    let said = world.heard(listener);
    assert_eq!(said.len(), 1);
    let node = world.broker.options.node_name.clone();
    for (name, value) in [
        ("destination", "/topic/ActiveMQ.Advisory.Consumer.Queue.q"),
        ("type", "Advisory"),
        ("transformation", "jms-advisory-json"),
        ("priority", "0"),
        ("expires", "0"),
        ("timestamp", "0"),
        ("consumerCount", "1"),
        ("originBrokerName", node.replace(':', "\\c").as_str()),
    ] {
        assert_eq!(header(&said[0], name), Some(value), "{name} of {said:?}");
    }
    assert!(header(&said[0], "originBrokerId").is_some() && header(&said[0], "originBrokerURL").is_some());
    assert_eq!(header(&said[0], "persistent"), None);
    let body: Json = serde_json::from_str(said[0].split_once("\n\n").unwrap().1).unwrap();
    let info = &body["ConsumerInfo"];
    assert_eq!(info["destination"]["physicalName"], "q");
    assert_eq!((&info["prefetchSize"], &info["selector"]), (&7.into(), &"a = 1".into()));
}

#[test]
fn everything_of_a_client_is_told_in_the_order_in_which_it_happens() {
    let mut world = world();
    let listener = listener(&mut world, "ActiveMQ.Advisory.>");
    let peer = world.open_stomp("1.2");
    for frame in [
        "SUBSCRIBE\nid:1\ndestination:/queue/q\n\n",
        "SEND\ndestination:/queue/q\n\nx",
        "SUBSCRIBE\nid:2\ndestination:/topic/t\n\n",
        "SEND\ndestination:/topic/t2\n\nx",
        "SUBSCRIBE\nid:3\ndestination:/temp-queue/tt\n\n",
        "UNSUBSCRIBE\nid:1\n\n",
        "SUBSCRIBE\nid:6\ndestination:/queue/w.>\n\n",
    ] {
        world.ask(peer, frame);
    }
    assert_eq!(
        told(&world.heard(listener)),
        [
            "Connection ConnectionInfo",
            "Queue DestinationInfo",
            "Consumer.Queue.q ConsumerInfo 1",
            "Topic DestinationInfo",
            "Consumer.Topic.t ConsumerInfo 1",
            "Topic DestinationInfo",
            "TempQueue DestinationInfo",
            "Consumer.Queue.ID ConsumerInfo 1",
            "Consumer.Queue.q RemoveInfo 0",
            "Consumer.Queue.w.> ConsumerInfo 0",
        ]
    );
    world.hang_up(peer);
    assert_eq!(
        told(&world.heard(listener)),
        [
            "Consumer.Topic.t RemoveInfo 0",
            "Consumer.Queue.ID RemoveInfo 0",
            "Consumer.Queue.w.> RemoveInfo 0",
            "TempQueue DestinationInfo",
            "Connection RemoveInfo",
        ]
    );
}

#[test]
fn a_durable_subscription_counts_while_nobody_is_there() {
    let mut world = world();
    let listener = listener(&mut world, "ActiveMQ.Advisory.Consumer.Topic.>");
    let peer = world.connect_stomp();
    world.ask(peer, "CONNECT\naccept-version:1.2\nclient-id:c\n\n");
    world.ask(peer, "SUBSCRIBE\nid:1\ndestination:/topic/d\nactivemq.subscriptionName:n\n\n");
    world.hang_up(peer);
    assert_eq!(told(&world.heard(listener)), ["Consumer.Topic.d ConsumerInfo 1", "Consumer.Topic.d RemoveInfo 1"]);
}

#[test]
fn whoever_asks_for_a_kind_is_told_what_is_there_already() {
    let mut world = world();
    let amqp = world.open(1);
    world.call(amqp, 1, "queue.declare", "queue=q durable");
    world.call(amqp, 1, "basic.consume", "queue=q tag=c");
    let peer = world.open_stomp("1.2");
    let said = world.ask(peer, "SUBSCRIBE\nid:w\ndestination:/topic/ActiveMQ.Advisory.Consumer.>\n\n");
    assert_eq!(told(&said), ["Consumer.Queue.q ConsumerInfo 1"]);
    let said = world.ask(peer, "SUBSCRIBE\nid:q\ndestination:/topic/ActiveMQ.Advisory.Queue\n\n");
    assert_eq!(told(&said), ["Queue DestinationInfo"]);
    let said = world.ask(peer, "SUBSCRIBE\nid:c\ndestination:/topic/ActiveMQ.Advisory.Connection\n\n");
    assert_eq!(told(&said), ["Connection ConnectionInfo", "Connection ConnectionInfo"]);
}

#[test]
fn nobody_else_who_listens_to_topics_gets_advisories() {
    let mut world = world();
    let amqp = world.open(1);
    world.call(amqp, 1, "queue.declare", "queue=all");
    world.call(amqp, 1, "queue.bind", "queue=all exchange=amq.topic key=#");
    let everything = world.open_stomp("1.2");
    world.ask(everything, "SUBSCRIBE\nid:1\ndestination:/topic/>\n\n");
    let listener = listener(&mut world, "ActiveMQ.Advisory.Queue");
    let peer = world.open_stomp("1.2");
    world.ask(peer, "SUBSCRIBE\nid:1\ndestination:/queue/q\n\n");
    assert_eq!(told(&world.heard(listener)), ["Queue DestinationInfo"]);
    assert_eq!(world.heard(everything), [""; 0]);
    assert_eq!(world.broker.vhost("/").unwrap().queue("all").unwrap().status().ready, 0);
    // And after the listener has gone nothing is told at all.
    assert_eq!(world.ask(listener, "UNSUBSCRIBE\nid:w\n\n"), [""; 0]);
    world.ask(peer, "SUBSCRIBE\nid:2\ndestination:/queue/q2\n\n");
    assert_eq!(error(&world.ask(listener, "UNSUBSCRIBE\nid:w\n\n")), "No subscription matched.");
}
