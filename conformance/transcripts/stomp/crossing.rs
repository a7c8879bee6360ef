//! AMQP and STOMP on the same queues: what one says the other understands.

use crate::{lines, peer::World};

/// What an AMQP consumer sees of a SEND with these headers.
fn to_amqp(headers: &str) -> String {
    let mut world = World::new();
    let stomp = world.open_stomp("1.2");
    let amqp = world.open(1);
    world.ask(stomp, &format!("SEND\ndestination:/queue/q\n{headers}\nbody"));
    world.call(amqp, 1, "basic.get", "queue=q no_ack")
}

/// What a STOMP consumer sees of a publish with these properties.
fn to_stomp(properties: &str, headers: &[(&str, lines::Value<'_>)]) -> String {
    let mut world = World::new();
    let stomp = world.open_stomp("1.2");
    let amqp = world.open(1);
    world.ask(stomp, "SUBSCRIBE\nid:0\ndestination:/queue/q\n\n");
    world.send(amqp, &lines::publish(1, "key=q", properties, &lines::table(headers), b"body"));
    let said = world.heard(stomp);
    assert_eq!(said.len(), 1, "{said:?}");
    let (head, body) = said[0].split_once("\n\n").unwrap();
    assert_eq!(body, "body");
    let begin = "MESSAGE\nsubscription:0\ndestination:/queue/q\nmessage-id:T_0@@SESSION@@1\nredelivered:false\n";
    head.strip_prefix(begin).and_then(|rest| rest.strip_suffix("content-length:4")).unwrap().to_owned()
}

#[test]
fn persistent_is_delivery_mode_2() {
    assert!(to_amqp("persistent:true\n").contains("delivery_mode:2"), "{}", to_amqp("persistent:true\n"));
    assert!(!to_amqp("persistent:false\nx:1\n").contains("delivery_mode"));
    assert_eq!(to_stomp("delivery_mode=2", &[]), "persistent:true\n");
    assert_eq!(to_stomp("delivery_mode=1", &[]), "");
}

#[test]
fn texts_cross_both_ways() {
    for (header, property) in [
        ("content-type", "content_type"),
        ("content-encoding", "content_encoding"),
        ("correlation-id", "correlation_id"),
        ("amqp-message-id", "message_id"),
        ("type", "type"),
        ("app-id", "app_id"),
    ] {
        let seen = to_amqp(&format!("{header}:some/text\n"));
        assert!(seen.contains(&format!("{property}:")) && seen.contains("some/text"), "{header}: {seen}");
        assert_eq!(to_stomp(&format!("{property}=some/text"), &[]), format!("{header}:some/text\n"));
    }
}

#[test]
fn numbers_cross_both_ways() {
    assert!(to_amqp("priority:5\n").contains("priority:5"));
    assert_eq!(to_stomp("priority=5", &[]), "priority:5\n");
    let seen = to_amqp("expiration:60000\n");
    assert!(seen.contains("expiration:") && seen.contains("60000"), "{seen}");
    assert_eq!(to_stomp("expiration=60000", &[]), "expiration:60000\n");
    assert!(to_amqp("timestamp:1700000000\n").contains("timestamp:"));
    assert_eq!(to_stomp("timestamp=1700000000", &[]), "timestamp:1700000000\n");
}

#[test]
fn other_headers_cross_as_text() {
    let seen = to_amqp("foo:bar\nempty:\n");
    assert!(seen.contains("foo") && seen.contains("bar") && seen.contains("empty"), "{seen}");
    let headers =
        [("flag", lines::Value::Bool(true)), ("text", lines::Value::Text("a:b")), ("n", lines::Value::Number(-7))];
    assert_eq!(to_stomp("", &headers), "text:a\\cb\nn:-7\n");
}

#[test]
fn reply_to_names_the_same_queue_on_both_sides() {
    assert!(to_amqp("reply-to:answers\n").contains("reply_to:'answers'"), "{}", to_amqp("reply-to:answers\n"));
    assert_eq!(to_stomp("reply_to=answers", &[]), "reply-to:/reply-queue/answers\n");
    let mut world = World::new();
    let stomp = world.open_stomp("1.2");
    let amqp = world.open(1);
    world.call(amqp, 1, "queue.declare", "queue=answers");
    world.ask(stomp, "SEND\ndestination:/reply-queue/answers\ncorrelation-id:7\n\nyes");
    let answer = world.call(amqp, 1, "basic.get", "queue=answers no_ack");
    assert!(answer.contains("yes") && answer.contains("correlation_id:"), "{answer}");
}

#[test]
fn an_expiration_of_a_stomp_client_expires() {
    let mut world = World::new();
    let stomp = world.open_stomp("1.2");
    let amqp = world.open(1);
    world.ask(stomp, "SEND\ndestination:/queue/q\nexpiration:100\n\nbody");
    world.pass(100);
    assert!(world.call(amqp, 1, "basic.get", "queue=q no_ack").contains("get-empty"));
}

#[test]
fn a_priority_of_a_stomp_client_counts() {
    let mut world = World::new();
    let stomp = world.open_stomp("1.2");
    let amqp = world.open(1);
    for priority in [1, 9] {
        let queue = "destination:/queue/q\nx-max-priority:10\n";
        world.ask(stomp, &format!("SEND\n{queue}priority:{priority}\n\n{priority}"));
    }
    let first = world.call(amqp, 1, "basic.get", "queue=q no_ack");
    assert!(first.contains("priority:9"), "{first}");
}

#[test]
fn one_topic_has_subscribers_of_both() {
    let mut world = World::new();
    let stomp = world.open_stomp("1.2");
    let amqp = world.open(1);
    world.call(amqp, 1, "queue.declare", "queue=t");
    world.call(amqp, 1, "queue.bind", "queue=t exchange=amq.topic key=a.#");
    world.ask(stomp, "SUBSCRIBE\nid:0\ndestination:/topic/a.*\n\n");
    world.ask(stomp, "SEND\ndestination:/topic/a.b\n\nfrom stomp");
    assert!(world.call(amqp, 1, "basic.get", "queue=t no_ack").contains("from stomp"));
    world.send(amqp, &lines::publish(1, "exchange=amq.topic key=a.c", "", &[], b"from amqp"));
    let said = world.heard(stomp);
    assert!(said.iter().any(|frame| frame.contains("destination:/topic/a.c\n") && frame.ends_with("from amqp")));
}
