//! Consumers and queues with selectors, and groups of messages.

use super::{
    lines::{self, Value},
    peer::World,
};

fn publish(world: &mut World, peer: usize, headers: &[(&str, Value<'_>)], body: &[u8]) {
    let headers = lines::table(headers);
    world.send(peer, &lines::publish(1, "key=q", "", &headers, body));
}

fn consume(world: &mut World, peer: usize, values: &str, selector: &str) -> Vec<String> {
    let arguments = lines::table(&[("x-selector", Value::Text(selector))]);
    world.send(peer, &lines::method(1, "basic.consume", &format!("queue=q {values}"), &arguments));
    world.heard(peer)
}

/// A line without what quotes its quotes.
fn plain(line: &str) -> String {
    line.replace('\\', "")
}

/// The tags and bodies of what was delivered.
fn delivered(said: &[String]) -> Vec<String> {
    let deliveries = said.iter().filter(|line| line.contains("basic.deliver"));
    let tag = |line: &str| {
        let from = line.find("tag=").map_or(0, |at| at + 4);
        line[from..].split(' ').next().unwrap_or_default().trim_matches('\'').to_owned()
    };
    let body = |line: &str| line.rsplit(' ').next().unwrap_or_default().trim_matches('\'').to_owned();
    deliveries.map(|line| format!("{}:{}", tag(line), body(line))).collect()
}

#[test]
fn a_consumer_with_a_selector_takes_what_matches_and_leaves_the_rest() {
    let mut world = World::new();
    let peer = world.open(1);
    world.call(peer, 1, "queue.declare", "queue=q");
    for (colour, size, body) in [("red", 1, b"1"), ("blue", 5, b"2"), ("red", 7, b"3")] {
        publish(&mut world, peer, &[("colour", Value::Text(colour)), ("size", Value::Number(size))], body);
    }
    assert_eq!(delivered(&consume(&mut world, peer, "tag=big", "colour = 'red' AND size > 3")), ["big:3"]);
    publish(&mut world, peer, &[("colour", Value::Text("red")), ("size", Value::Number(9))], b"4");
    assert_eq!(delivered(&world.heard(peer)), ["big:4"]);
    assert_eq!(delivered(&consume(&mut world, peer, "tag=all no_ack", "")), ["all:1", "all:2"]);
}

#[test]
fn a_selector_sees_properties_by_the_names_of_jms() {
    let mut world = World::new();
    let peer = world.open(1);
    world.call(peer, 1, "queue.declare", "queue=q");
    world.publish(peer, 1, "q", "priority=7 type=order", b"1");
    world.publish(peer, 1, "q", "delivery_mode=2", b"2");
    assert_eq!(delivered(&consume(&mut world, peer, "tag=p", "JMSPriority > 5 AND JMSType = 'order'")), ["p:1"]);
    assert_eq!(delivered(&consume(&mut world, peer, "tag=d", "JMSDeliveryMode = 'PERSISTENT'")), ["d:2"]);
    world.tell(peer, 1, "basic.nack", "delivery=2 requeue");
    assert_eq!(delivered(&world.heard(peer)), ["d:2"]);
}

#[test]
fn a_selector_that_makes_no_sense_is_refused() {
    let mut world = World::new();
    let peer = world.open(1);
    world.call(peer, 1, "queue.declare", "queue=q");
    let said = consume(&mut world, peer, "tag=c", "colour = = 'red'");
    let refusal = "invalid arg 'x-selector' for queue 'q' in vhost '/': expected";
    assert!(said.len() == 1 && said[0].contains("channel.close 406") && plain(&said[0]).contains(refusal), "{said:?}");

    let peer = world.open(1);
    let arguments = lines::table(&[("x-selector", Value::Number(1))]);
    world.send(peer, &lines::method(1, "basic.consume", "queue=q tag=c", &arguments));
    let said = world.heard(peer);
    assert!(said.len() == 1 && said[0].contains("channel.close 406") && said[0].contains("expected text"), "{said:?}");

    let peer = world.open(1);
    let arguments = lines::table(&[("x-selector", Value::Text("colour ="))]);
    world.send(peer, &lines::method(1, "queue.declare", "queue=other", &arguments));
    let said = world.heard(peer);
    let refusal = "invalid arg 'x-selector' for queue 'other' in vhost '/': expected";
    assert!(said.len() == 1 && said[0].contains("channel.close 406") && plain(&said[0]).contains(refusal), "{said:?}");
}

#[test]
fn a_queue_with_a_selector_takes_in_what_matches_and_confirms_the_rest() {
    let mut world = World::new();
    let peer = world.open(1);
    let arguments = lines::table(&[("x-selector", Value::Text("colour = 'red'"))]);
    world.send(peer, &lines::method(1, "queue.declare", "queue=q", &arguments));
    world.heard(peer);
    world.call(peer, 1, "confirm.select", "");
    let red = lines::table(&[("colour", Value::Text("red"))]);
    world.send(peer, &lines::publish(1, "key=q mandatory", "", &red, b"1"));
    world.send(peer, &lines::publish(1, "key=q mandatory", "", &[], b"2"));
    let said = world.heard(peer);
    assert!(said.iter().all(|line| line.contains("basic.ack")), "{said:?}");
    assert!(world.call(peer, 1, "queue.declare", "queue=q passive").contains("messages=1"));
    // Declared again it has to be the same.
    let other = lines::table(&[("x-selector", Value::Text("colour = 'blue'"))]);
    world.send(peer, &lines::method(1, "queue.declare", "queue=q", &other));
    let said = world.heard(peer);
    assert!(plain(&said[0]).contains("inequivalent arg 'x-selector'"), "{said:?}");
}

#[test]
fn messages_of_a_group_go_to_one_consumer_until_it_closes() {
    let mut world = World::new();
    let (first, second) = (world.open(1), world.open(1));
    world.call(first, 1, "queue.declare", "queue=q");
    for peer in [first, second] {
        world.call(peer, 1, "basic.consume", "queue=q tag=c");
    }
    let of = |group| [("JMSXGroupID", Value::Text(group))];
    for (group, body) in [("a", b"1"), ("a", b"2"), ("b", b"3"), ("a", b"4"), ("b", b"5")] {
        publish(&mut world, first, &of(group), body);
    }
    assert_eq!(delivered(&world.heard(first)), ["c:1", "c:2", "c:4"]);
    assert_eq!(delivered(&world.heard(second)), ["c:3", "c:5"]);
    world.call(first, 1, "channel.close", "");
    assert_eq!(delivered(&world.heard(second)), ["c:1", "c:2", "c:4"]);
}

#[test]
fn a_negative_sequence_number_ends_a_group() {
    let mut world = World::new();
    let (first, second) = (world.open(1), world.open(1));
    world.call(first, 1, "queue.declare", "queue=q");
    for peer in [first, second] {
        world.call(peer, 1, "basic.consume", "queue=q tag=c");
    }
    let group = ("JMSXGroupID", Value::Text("a"));
    publish(&mut world, first, &[group], b"1");
    publish(&mut world, first, &[group, ("JMSXGroupSeq", Value::Number(-1))], b"2");
    publish(&mut world, first, &[group], b"3");
    assert_eq!(delivered(&world.heard(first)), ["c:1", "c:2"]);
    assert_eq!(delivered(&world.heard(second)), ["c:3"]);
}
