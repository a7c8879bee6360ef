//! AMQP and ActiveMQ's dialect on the same queues, and both dialects beside each other.

use ternmq::protocol::stomp::options::Dialect;

use super::{header, world};
use crate::{lines, peer::World};

/// What an AMQP consumer sees of a SEND with these headers.
fn to_amqp(headers: &str) -> String {
    let mut world = world();
    let stomp = world.open_stomp("1.2");
    let amqp = world.open(1);
    world.ask(stomp, &format!("SEND\ndestination:/queue/q\n{headers}\nbody"));
    world.call(amqp, 1, "basic.get", "queue=q no_ack")
}

/// What a client of this dialect sees of a publish with these properties.
fn to_stomp(properties: &str) -> String {
    let mut world = world();
    let stomp = world.open_stomp("1.2");
    let amqp = world.open(1);
    world.ask(stomp, "SUBSCRIBE\nid:0\ndestination:/queue/q\n\n");
    world.send(amqp, &lines::publish(1, "key=q", properties, &[], b"body"));
    world.heard(stomp).remove(0)
}

#[test]
fn persistent_is_delivery_mode_2() {
    assert!(to_amqp("persistent:true\n").contains("delivery_mode:2"));
    assert!(!to_amqp("persistent:false\n").contains("delivery_mode"));
    assert_eq!(header(&to_stomp("delivery_mode=2"), "persistent"), Some("true"));
    assert_eq!(header(&to_stomp("delivery_mode=1"), "persistent"), None);
}

#[test]
fn texts_cross_both_ways() {
    for (name, property) in [
        ("content-type", "content_type"),
        ("content-encoding", "content_encoding"),
        ("correlation-id", "correlation_id"),
        ("type", "type"),
        ("app-id", "app_id"),
    ] {
        let seen = to_amqp(&format!("{name}:some/text\n"));
        assert!(seen.contains(&format!("{property}:")) && seen.contains("some/text"), "{name}: {seen}");
        assert_eq!(header(&to_stomp(&format!("{property}=some/text")), name), Some("some/text"), "{name}");
    }
    assert_eq!(header(&to_stomp("message_id=m1"), "message-id"), Some("m1"));
    assert!(to_amqp("").contains("message_id:'ID:tern-"), "{}", to_amqp(""));
}

#[test]
fn priorities_cross_both_ways() {
    assert!(to_amqp("priority:7\n").contains("priority:7"));
    assert!(!to_amqp("").contains("priority"));
    assert_eq!(header(&to_stomp("priority=7"), "priority"), Some("7"));
    assert_eq!(header(&to_stomp(""), "priority"), Some("4"));
}

#[test]
fn times_are_seconds_there_and_milliseconds_here() {
    assert!(to_amqp("timestamp:1700000000123\n").contains("timestamp:"));
    assert_eq!(header(&to_stomp("timestamp=1700000000"), "timestamp"), Some("1700000000000"));
    assert_eq!(header(&to_stomp(""), "timestamp"), Some("0"));
}

#[test]
fn expirations_are_a_time_here_and_a_duration_there() {
    let at = crate::peer::START.0 + 60_000;
    let seen = to_amqp(&format!("expires:{at}\n"));
    assert!(seen.contains("expiration:") && seen.contains("60000"), "{seen}");
    let said = to_stomp("timestamp=1750000000 expiration=60000");
    assert_eq!(header(&said, "expires"), Some(&*at.to_string()));
    let said = to_stomp("expiration=60000");
    assert_eq!((header(&said, "expires"), header(&said, "expiration")), (Some("0"), Some("60000")));
}

#[test]
fn reply_to_names_the_same_queue_on_both_sides() {
    assert!(to_amqp("reply-to:/queue/answers\n").contains("reply_to:'answers'"));
    assert_eq!(header(&to_stomp("reply_to=answers"), "reply-to"), Some("/queue/answers"));
    assert_eq!(header(&to_stomp("reply_to=/topic/a.b"), "reply-to"), Some("/topic/a.b"));
    assert!(to_amqp("reply-to:answers\n").contains("reply_to:'answers'"));
}

#[test]
fn other_headers_cross_as_text() {
    let seen = to_amqp("foo:bar\nempty:\n");
    assert!(seen.contains("foo") && seen.contains("bar") && seen.contains("empty"), "{seen}");
}

#[test]
fn a_body_of_amqp_is_text_where_its_type_says_so() {
    assert_eq!(header(&to_stomp(""), "content-length"), Some("4"));
    assert_eq!(header(&to_stomp("content_type=application/octet-stream"), "content-length"), Some("4"));
    for kind in ["text/plain", "application/json"] {
        assert_eq!(header(&to_stomp(&format!("content_type={kind}")), "content-length"), None, "{kind}");
    }
}

#[test]
fn clients_of_both_dialects_understand_each_other() {
    let mut world: World = world();
    let activemq = world.open_stomp("1.2");
    world.stomp.dialect = Dialect::Rabbitmq;
    let rabbitmq = world.open_stomp("1.2");
    world.ask(activemq, "SUBSCRIBE\nid:0\ndestination:/queue/a\n\n");
    world.ask(rabbitmq, "SUBSCRIBE\nid:0\ndestination:/queue/r\n\n");
    let headers = "persistent:true\ncorrelation-id:c\npriority:3\ntype:t\ncontent-type:text/plain\nfoo:bar\n";
    world.ask(rabbitmq, &format!("SEND\ndestination:/queue/a\nreply-to:/queue/r\n{headers}\none"));
    let said = world.heard(activemq);
    let same = [
        ("persistent", "true"),
        ("correlation-id", "c"),
        ("priority", "3"),
        ("type", "t"),
        ("content-type", "text/plain"),
        ("foo", "bar"),
    ];
    for (name, value) in same {
        assert_eq!(header(&said[0], name), Some(value), "{name}");
    }
    assert_eq!(header(&said[0], "reply-to"), Some("/queue/r"));
    world.ask(activemq, &format!("SEND\ndestination:/queue/r\nreply-to:/queue/a\n{headers}\ntwo"));
    let said = world.heard(rabbitmq);
    for (name, value) in same {
        assert_eq!(header(&said[0], name), Some(value), "{name}");
    }
    assert_eq!(header(&said[0], "reply-to"), Some("/reply-queue/a"));
    world.ask(rabbitmq, "SUBSCRIBE\nid:t\ndestination:/topic/x.#\n\n");
    let said = world.ask(activemq, "SEND\ndestination:/topic/x.y\n\nthree");
    assert!(said.is_empty());
    assert_eq!(header(&world.heard(rabbitmq)[0], "destination"), Some("/topic/x.y"));
}
