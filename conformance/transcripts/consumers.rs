//! Who gets which message, where several consumers, channels or connections are concerned.

use super::{
    lines::{self, Value},
    peer::World,
};

fn delivered(said: &[String]) -> Vec<String> {
    let field = |line: &String, name: &str| {
        let start = line.find(name).map_or(0, |at| at + name.len());
        line[start..].split(' ').next().unwrap_or_default().trim_matches('\'').to_owned()
    };
    said.iter()
        .filter(|line| line.contains("basic.deliver"))
        .map(|line| {
            let body = line.rsplit(' ').next().unwrap_or_default().trim_matches('\'');
            format!("{}:{body}{}", field(line, "tag="), if line.contains("redelivered=true") { "!" } else { "" })
        })
        .collect()
}

#[test]
fn shared_credit_that_comes_back_at_one_queue_wakes_the_consumer_of_another() {
    let mut world = World::new();
    let peer = world.open(1);
    world.call(peer, 1, "queue.declare", "queue=a");
    world.call(peer, 1, "queue.declare", "queue=b");
    world.call(peer, 1, "basic.qos", "count=1 global");
    world.call(peer, 1, "basic.consume", "queue=a tag=a");
    world.call(peer, 1, "basic.consume", "queue=b tag=b");
    world.publish(peer, 1, "a", "", b"1");
    world.publish(peer, 1, "b", "", b"2");
    assert_eq!(delivered(&world.heard(peer)), ["a:1"]);
    world.tell(peer, 1, "basic.ack", "delivery=1");
    assert_eq!(delivered(&world.heard(peer)), ["b:2"]);
}

#[test]
fn no_sharer_of_a_credit_starves() {
    let mut world = World::new();
    let peer = world.open(1);
    for queue in ["a", "b"] {
        world.call(peer, 1, "queue.declare", &format!("queue={queue}"));
        for _ in 0..10 {
            world.publish(peer, 1, queue, "", b"m");
        }
    }
    world.call(peer, 1, "basic.qos", "count=1 global");
    world.tell(peer, 1, "basic.consume", "queue=a tag=a");
    world.tell(peer, 1, "basic.consume", "queue=b tag=b");
    let mut counts = [0, 0];
    for tag in 1..=10 {
        let said = delivered(&world.heard(peer));
        assert_eq!(said.len(), 1);
        counts[usize::from(said[0].starts_with('b'))] += 1;
        world.tell(peer, 1, "basic.ack", &format!("delivery={tag}"));
    }
    assert!(counts[0] >= 4 && counts[1] >= 4, "{counts:?}");
}

#[test]
fn qos_global_reaches_consumers_that_are_there() {
    let mut world = World::new();
    let peer = world.open(1);
    world.call(peer, 1, "queue.declare", "queue=a");
    world.call(peer, 1, "basic.consume", "queue=a tag=a");
    world.publish(peer, 1, "a", "", b"1");
    world.heard(peer);
    world.call(peer, 1, "basic.qos", "count=2 global");
    world.publish(peer, 1, "a", "", b"2");
    world.publish(peer, 1, "a", "", b"3");
    assert_eq!(delivered(&world.heard(peer)), ["a:2"]);
    world.tell(peer, 1, "basic.ack", "delivery=0 multiple");
    assert_eq!(delivered(&world.heard(peer)), ["a:3"]);
}

#[test]
fn what_a_lost_connection_held_comes_before_what_waits() {
    let mut world = World::new();
    let (first, second) = (world.open(1), world.open(1));
    world.call(second, 1, "queue.declare", "queue=q");
    world.call(first, 1, "basic.qos", "count=2");
    world.call(first, 1, "basic.consume", "queue=q tag=first");
    for body in [b"1", b"2", b"3", b"4"] {
        world.publish(second, 1, "q", "", body);
    }
    assert_eq!(delivered(&world.heard(first)), ["first:1", "first:2"]);
    world.call(second, 1, "basic.qos", "count=1");
    world.tell(second, 1, "basic.consume", "queue=q tag=second");
    assert_eq!(delivered(&world.heard(second)), ["second:3"]);
    world.hang_up(first);
    for (tag, body) in [(1, "second:1!"), (2, "second:2!"), (3, "second:4")] {
        world.tell(second, 1, "basic.ack", &format!("delivery={tag}"));
        assert_eq!(delivered(&world.heard(second)), [body]);
    }
}

#[test]
fn the_next_single_active_consumer_gets_what_the_former_one_held_first() {
    let mut world = World::new();
    let (first, second) = (world.open(1), world.open(1));
    let arguments = super::lines::table(&[("x-single-active-consumer", super::lines::Value::Bool(true))]);
    world.send(first, &super::lines::method(1, "queue.declare", "queue=q", &arguments));
    world.heard(first);
    world.call(first, 1, "basic.qos", "count=1");
    world.call(first, 1, "basic.consume", "queue=q tag=first");
    world.call(second, 1, "basic.consume", "queue=q tag=second");
    for body in [b"1", b"2", b"3"] {
        world.publish(second, 1, "q", "", body);
    }
    assert_eq!(delivered(&world.heard(first)), ["first:1"]);
    world.call(first, 1, "channel.close", "code=200");
    assert_eq!(delivered(&world.heard(second)), ["second:1!", "second:2", "second:3"]);
}

#[test]
fn a_requeue_into_a_queue_that_is_full_drops_its_head() {
    let mut world = World::new();
    let peer = world.open(1);
    let arguments = super::lines::table(&[("x-max-length", super::lines::Value::Number(1))]);
    world.send(peer, &super::lines::method(1, "queue.declare", "queue=q", &arguments));
    world.heard(peer);
    world.publish(peer, 1, "q", "", b"one");
    world.call(peer, 1, "basic.get", "queue=q");
    world.publish(peer, 1, "q", "", b"two");
    world.tell(peer, 1, "basic.nack", "delivery=1 requeue");
    let got = world.call(peer, 1, "basic.get", "queue=q no_ack");
    assert!(got.ends_with("messages=0 body 'two'"), "{got}");
}

#[test]
fn the_tag_of_a_consumer_whose_queue_was_deleted_is_free_in_the_same_read() {
    let mut world = World::new();
    let peer = world.open(1);
    let mut octets = Vec::new();
    for (name, values) in [
        ("queue.declare", "queue=q"),
        ("basic.consume", "queue=q tag=t"),
        ("queue.delete", "queue=q"),
        ("queue.declare", "queue=q"),
        ("basic.consume", "queue=q tag=t"),
    ] {
        octets.extend(super::lines::method(1, name, values, &[]));
    }
    world.send(peer, &octets);
    let said = world.heard(peer);
    let cancel = said.iter().position(|line| line == "1 basic.cancel tag='t' nowait=true");
    let deleted = said.iter().position(|line| line.contains("queue.delete-ok"));
    assert!(deleted.is_some() && deleted < cancel, "the answer comes before the news: {said:?}");
    assert_eq!(said.last().map(String::as_str), Some("1 basic.consume-ok tag='t'"));
    world.publish(peer, 1, "q", "", b"m");
    assert_eq!(delivered(&world.heard(peer)), ["t:m"]);
}

#[test]
fn an_exclusive_queue_is_gone_when_close_ok_is_there() {
    let mut world = World::new();
    let (owner, other) = (world.open(1), world.open(1));
    world.call(owner, 1, "queue.declare", "queue=q exclusive");
    assert_eq!(world.call(owner, 0, "connection.close", "code=200"), "0 connection.close-ok");
    assert_eq!(world.call(other, 1, "queue.declare", "queue=q"), "1 queue.declare-ok queue='q' messages=0 consumers=0");
}

#[test]
fn a_message_that_is_rejected_after_its_queue_was_deleted_is_not_dead_lettered() {
    let mut world = World::new();
    let peer = world.open(1);
    let text = super::lines::Value::Text;
    let arguments =
        super::lines::table(&[("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text("dead"))]);
    world.send(peer, &super::lines::method(1, "queue.declare", "queue=q", &arguments));
    world.heard(peer);
    world.call(peer, 1, "queue.declare", "queue=dead");
    world.publish(peer, 1, "q", "", b"m");
    world.call(peer, 1, "basic.get", "queue=q");
    world.call(peer, 1, "queue.delete", "queue=q");
    world.tell(peer, 1, "basic.reject", "delivery=1");
    assert_eq!(
        world.call(peer, 1, "queue.declare", "queue=dead passive"),
        "1 queue.declare-ok queue='dead' messages=0 consumers=0"
    );
}

#[test]
fn a_message_that_a_full_queue_refused_is_no_duplicate_when_it_comes_again() {
    let mut world = World::new();
    let peer = world.open(1);
    let arguments = super::lines::table(&[
        ("x-max-length", super::lines::Value::Number(1)),
        ("x-overflow", super::lines::Value::Text("reject-publish")),
        ("x-message-deduplication", super::lines::Value::Bool(true)),
    ]);
    world.send(peer, &super::lines::method(1, "queue.declare", "queue=q", &arguments));
    world.heard(peer);
    world.call(peer, 1, "confirm.select", "");
    let named = |name| {
        let headers = super::lines::table(&[("x-deduplication-header", super::lines::Value::Text(name))]);
        super::lines::publish(1, "key=q", "", &headers, name.as_bytes())
    };
    world.send(peer, &named("one"));
    world.send(peer, &named("two"));
    let said = world.heard(peer);
    assert!(
        said[0].starts_with("1 basic.ack delivery=1") && said[1].starts_with("1 basic.nack delivery=2"),
        "{said:?}"
    );
    world.call(peer, 1, "basic.get", "queue=q no_ack");
    world.send(peer, &named("two"));
    assert!(world.heard(peer)[0].starts_with("1 basic.ack delivery=3"));
    let got = world.call(peer, 1, "basic.get", "queue=q no_ack");
    assert!(got.contains("body 'two'"), "{got}");
}

#[test]
fn connections_that_all_go_hand_nothing_to_each_other() {
    let mut world = World::new();
    let peer = world.open(1);
    let limit = lines::table(&[("x-delivery-limit", Value::Number(1))]);
    world.send(peer, &lines::method(1, "queue.declare", "queue=q", &limit));
    world.publish(peer, 1, "q", "", b"m");
    let consumers = [0; 4].map(|_| {
        let consumer = world.open(1);
        world.call(consumer, 1, "basic.qos", "count=1");
        world.tell(consumer, 1, "basic.consume", "queue=q tag=c");
        consumer
    });
    assert_eq!(delivered(&world.heard(consumers[0])), ["c:m"]);
    world.broker.halt_deliveries(true, world.now);
    for consumer in consumers {
        world.hang_up(consumer);
        assert_eq!(delivered(&world.heard(consumer)), [""; 0]);
    }
    // It has failed once, and not once for each of them.
    let late = world.open(1);
    world.tell(late, 1, "basic.consume", "queue=q tag=late");
    assert_eq!(delivered(&world.heard(late)), [""; 0]);
    world.broker.halt_deliveries(false, world.now);
    assert_eq!(delivered(&world.heard(late)), ["late:m!"]);
}
