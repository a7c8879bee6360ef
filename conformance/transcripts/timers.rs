//! What happens because time passes: heartbeats, a login that takes too long, a close that is not
//! answered, deliveries that nobody settles.

use serde_json::json;
use ternmq::{
    broker::{
        Options as BrokerOptions,
        policy::{Layer, Policy},
        turn::Turn,
    },
    protocol::amqp::Options,
};

use super::{lines, peer::World};

#[test]
fn a_heartbeat_goes_out_every_half_interval() {
    let mut world = World::new();
    let peer = world.open_with(1, "heartbeat=10");
    for _ in 0..5 {
        world.pass(5_000);
        assert_eq!(world.heard(peer), ["heartbeat"]);
        world.send(peer, &lines::frame(8, 0, &[]));
    }
}

#[test]
fn other_output_is_as_good_as_a_heartbeat() {
    let mut world = World::new();
    let peer = world.open_with(1, "heartbeat=10");
    world.pass(4_000);
    world.call(peer, 1, "basic.qos", "");
    world.pass(4_000);
    assert!(world.heard(peer).is_empty());
    world.pass(1_000);
    assert_eq!(world.heard(peer), ["heartbeat"]);
}

#[test]
fn a_silent_peer_is_given_up_after_two_intervals() {
    let mut world = World::new();
    let peer = world.open_with(1, "heartbeat=10");
    world.pass(19_000);
    assert!(!world.is_over(peer));
    world.pass(1_001);
    assert!(world.is_over(peer));
    assert_eq!(world.ended_by(peer), Some("missed heartbeats from client, timeout: 10s"));
}

#[test]
fn without_heartbeats_nobody_is_given_up() {
    let mut world = World::new();
    let peer = world.open(1);
    world.pass(10_000_000);
    assert!(!world.is_over(peer));
    assert!(world.heard(peer).is_empty());
}

#[test]
fn a_peer_that_the_broker_does_not_read_is_not_given_up() {
    let mut world = World::new();
    let peer = world.open_with(1, "heartbeat=10");
    world.call(peer, 1, "queue.declare", "queue=q");
    world.publish(peer, 1, "q", "", b"m");
    world.broker.set_alarms(true, false);
    world.publish(peer, 1, "q", "", b"m");
    assert_eq!(world.heard(peer), ["0 connection.blocked reason='low on memory'"]);
    world.pass(100_000);
    assert!(!world.is_over(peer));
    world.broker.set_alarms(false, false);
    world.send(peer, &lines::frame(8, 0, &[]));
    let said = world.heard(peer);
    assert!(said.contains(&"0 connection.unblocked".to_owned()), "{said:?}");
    assert!(!world.is_over(peer));
}

#[test]
fn an_alarm_holds_a_connection_at_its_next_publish_and_not_before() {
    let mut world = World::new();
    let (peer, other) = (world.open(1), world.open(1));
    world.call(peer, 1, "queue.declare", "queue=q");
    world.publish(peer, 1, "q", "", b"before");
    world.broker.set_alarms(true, false);
    assert!(world.call(peer, 1, "basic.get", "queue=q").ends_with("body 'before'"));
    world.publish(peer, 1, "q", "", b"during");
    world.tell(peer, 1, "basic.get", "queue=q");
    assert_eq!(world.heard(peer), ["0 connection.blocked reason='low on memory'"]);
    assert_eq!(world.call(other, 1, "basic.get", "queue=q"), "1 basic.get-empty");
    world.broker.set_alarms(false, false);
    let said = world.heard(peer);
    assert_eq!(said[0], "0 connection.unblocked");
    assert!(said[1].ends_with("body 'during'"), "{said:?}");
}

#[test]
fn the_whole_handshake_has_ten_seconds_a_step() {
    let mut world = World::new();
    let silent = world.connect();
    let greeted = world.connect();
    world.send(greeted, b"AMQP\x00\x00\x09\x01");
    world.pass(9_999);
    assert!(!world.is_over(silent) && !world.is_over(greeted));
    world.pass(1);
    assert!(world.is_over(silent) && world.is_over(greeted));
    assert_eq!(world.ended_by(silent), Some("handshake_timeout"));
}

#[test]
fn a_close_that_is_not_answered_ends_by_itself() {
    let mut world = World::new();
    let peer = world.open(1);
    world.send(peer, &lines::frame(9, 1, &[]));
    assert_eq!(world.heard(peer).len(), 1);
    world.pass(9_000);
    assert!(!world.is_over(peer));
    world.pass(1_000);
    assert!(world.is_over(peer));
}

#[test]
fn a_delivery_that_nobody_settles_closes_its_channel() {
    let options = BrokerOptions { consumer_timeout_ms: Some(60_000), ..BrokerOptions::default() };
    let mut world = World::with(options, Options::default());
    let peer = world.open(1);
    world.call(peer, 2, "channel.open", "");
    world.call(peer, 1, "queue.declare", "queue=q");
    world.call(peer, 1, "basic.consume", "queue=q tag=c");
    world.publish(peer, 2, "q", "", b"1");
    assert_eq!(world.heard(peer).len(), 1);
    world.pass(30_000);
    world.tell(peer, 1, "basic.ack", "delivery=1");
    world.publish(peer, 2, "q", "", b"2");
    assert_eq!(world.heard(peer).len(), 1);
    world.pass(59_000);
    assert!(world.heard(peer).is_empty());
    world.pass(10_000);
    let text = "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: 60000 ms. \
                This timeout value can be configured, see consumers doc guide to learn more";
    assert_eq!(world.heard(peer), [format!("1 channel.close 406 '{text}' 0/0")]);
    let count = world.call(peer, 2, "queue.declare", "queue=q passive");
    assert_eq!(count, "2 queue.declare-ok queue='q' messages=1 consumers=0");
}

/// What a channel is told whose delivery took too long.
fn timed_out(channel: u16, timeout_ms: u64) -> String {
    format!(
        "{channel} channel.close 406 'PRECONDITION_FAILED - delivery acknowledgement on channel {channel} timed out. \
         Timeout value used: {timeout_ms} ms. This timeout value can be configured, see consumers doc guide to learn \
         more' 0/0"
    )
}

fn number(name: &str, value: i64) -> Vec<u8> {
    lines::table(&[(name, lines::Value::Number(value))])
}

fn set_timeout_policy(world: &mut World, pattern: &str, timeout_ms: u64) {
    let definition = json!({"consumer-timeout": timeout_ms});
    let value = json!({"pattern": pattern, "definition": definition, "priority": 0, "apply-to": "queues"});
    let policy = Policy::from_json(Layer::User, "/", pattern, &value).unwrap();
    world.broker.policies.set(Layer::User, policy);
    let broker = world.broker.clone();
    let mut turn = Turn::new(&broker, world.now);
    broker.apply_policies(&broker.vhost("/").unwrap(), &mut turn);
    turn.end();
}

#[test]
fn a_queue_sets_the_time_for_its_deliveries_alone() {
    let mut world = World::new();
    let peer = world.open(1);
    world.call(peer, 2, "channel.open", "");
    world.send(peer, &lines::method(1, "queue.declare", "queue=fast", &number("x-consumer-timeout", 60_000)));
    world.tell(peer, 1, "queue.declare", "queue=slow");
    world.tell(peer, 1, "basic.consume", "queue=fast tag=fast");
    world.tell(peer, 1, "basic.consume", "queue=slow tag=slow");
    world.publish(peer, 2, "slow", "", b"1");
    world.publish(peer, 2, "fast", "", b"2");
    assert_eq!(world.heard(peer).len(), 6);
    world.tell(peer, 1, "basic.ack", "delivery=2");
    world.pass(10_000_000);
    assert!(world.heard(peer).is_empty());
    world.publish(peer, 2, "fast", "", b"3");
    assert_eq!(world.heard(peer).len(), 1);
    world.pass(59_999);
    assert!(world.heard(peer).is_empty());
    world.pass(15_000);
    assert_eq!(world.heard(peer), [timed_out(1, 60_000)]);
}

#[test]
fn a_policy_that_changes_acts_on_deliveries_that_are_out() {
    let mut world = World::new();
    let peer = world.open(1);
    world.call(peer, 1, "queue.declare", "queue=q");
    world.call(peer, 1, "basic.consume", "queue=q tag=c");
    world.publish(peer, 1, "q", "", b"m");
    assert_eq!(world.heard(peer).len(), 1);
    world.pass(600_000);
    assert!(world.heard(peer).is_empty());
    set_timeout_policy(&mut world, "^q", 900_000);
    world.pass(200_000);
    assert!(world.heard(peer).is_empty());
    world.pass(250_000);
    assert_eq!(world.heard(peer), [timed_out(1, 900_000)]);
}

#[test]
fn a_consumers_timeout_comes_before_its_queues_and_that_before_the_brokers() {
    let options = BrokerOptions { consumer_timeout_ms: Some(10_000), ..BrokerOptions::default() };
    let mut world = World::with(options, Options::default());
    set_timeout_policy(&mut world, "^p", 50_000);
    let peer = world.open(1);
    for (channel, queue, argument, own, expected) in [
        (2, "setting", None, None, 10_000_u64),
        (3, "policy", None, None, 50_000),
        (4, "plarger", Some(100_000), None, 50_000),
        (5, "psmaller", Some(40_000), None, 40_000),
        (6, "pown", Some(40_000), Some(80_000), 80_000),
    ] {
        world.call(peer, channel, "channel.open", "");
        let arguments = argument.map_or(Vec::new(), |value| number("x-consumer-timeout", value));
        world.send(peer, &lines::method(channel, "queue.declare", &format!("queue={queue}"), &arguments));
        let arguments = own.map_or(Vec::new(), |value| number("x-consumer-timeout", value));
        world.send(peer, &lines::method(channel, "basic.consume", &format!("queue={queue} tag=c"), &arguments));
        world.publish(peer, channel, queue, "", b"m");
        assert_eq!(world.heard(peer).len(), 3);
        world.pass(expected - 1);
        assert!(world.heard(peer).is_empty(), "{queue}");
        world.pass(expected / 4 + 2_000);
        assert_eq!(world.heard(peer), [timed_out(channel, expected)], "{queue}");
    }
}

#[test]
fn a_single_get_that_nobody_settles_closes_its_channel() {
    let mut world = World::new();
    let peer = world.open(1);
    world.send(peer, &lines::method(1, "queue.declare", "queue=q", &number("x-consumer-timeout", 60_000)));
    world.publish(peer, 1, "q", "", b"m");
    world.tell(peer, 1, "basic.get", "queue=q");
    assert_eq!(world.heard(peer).len(), 2);
    world.pass(80_000);
    assert_eq!(world.heard(peer), [timed_out(1, 60_000)]);
    // Without deliveries nothing is checked any more.
    world.tell(peer, 1, "channel.close-ok", "");
    world.pass(10_000_000);
    assert!(world.heard(peer).is_empty());
}
