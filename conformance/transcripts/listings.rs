//! What listings show of connections, channels and queues while they are used.

use ternmq::broker::connections::{ChannelStatus, Traffic};

use super::{lines, peer::World};

fn traffic(world: &World) -> Traffic {
    world.broker.connections.list()[0].handle.traffic()
}

fn channel(world: &World) -> ChannelStatus {
    world.broker.connections.list()[0].handle.channels().remove(0)
}

#[test]
fn bytes_and_reads_and_writes_of_a_connection_are_counted() {
    let mut world = World::new();
    let peer = world.open(1);
    let before = traffic(&world);
    assert!(before.received_bytes > 0 && before.sent_bytes > 0);
    let sent = lines::method(1, "queue.declare", "queue=q", &[]);
    let (first, rest) = sent.split_at(5);
    world.send(peer, first);
    assert_eq!(traffic(&world).received_bytes - before.received_bytes, 5);
    world.send(peer, rest);
    assert_eq!(world.heard(peer).len(), 1);
    let after = traffic(&world);
    assert_eq!(after.received_bytes - before.received_bytes, sent.len() as u64);
    assert_eq!(after.reads_count - before.reads_count, 2);
    // Frame, two names and two numbers of four octets.
    assert_eq!(after.sent_bytes - before.sent_bytes, 8 + 4 + 2 + 4 + 4);
    assert_eq!(after.writes_count - before.writes_count, 1);
}

#[test]
fn what_a_transaction_gathers_is_counted_until_it_ends() {
    let mut world = World::new();
    let peer = world.open(1);
    world.call(peer, 1, "queue.declare", "queue=q");
    world.publish(peer, 1, "q", "", b"1");
    world.publish(peer, 1, "q", "", b"2");
    world.call(peer, 1, "tx.select", "");
    world.tell(peer, 1, "basic.consume", "queue=q tag=c");
    assert_eq!(world.heard(peer).len(), 3);
    for end in ["tx.rollback", "tx.commit"] {
        world.tell(peer, 1, "basic.ack", "delivery=2 multiple");
        world.publish(peer, 1, "nowhere", "", b"3");
        let status = channel(&world);
        assert_eq!((status.uncommitted_settles, status.uncommitted, status.unsettled), (2, 1, 0));
        world.call(peer, 1, end, "");
        let status = channel(&world);
        assert_eq!((status.uncommitted_settles, status.uncommitted), (0, 0));
    }
    assert_eq!(channel(&world).unsettled, 0);
}

#[test]
fn capacity_falls_while_consumers_can_take_no_more() {
    let mut world = World::new();
    let peer = world.open(1);
    world.call(peer, 1, "queue.declare", "queue=q");
    let queue = world.broker.vhost("/").unwrap().queue("q").unwrap();
    assert_eq!(queue.consumer_capacity(world.now), None);
    world.call(peer, 1, "basic.qos", "count=1");
    world.call(peer, 1, "basic.consume", "queue=q tag=c");
    world.pass(1_000);
    world.publish(peer, 1, "q", "", b"1");
    assert_eq!(queue.consumer_capacity(world.now), Some(1.0));
    world.publish(peer, 1, "q", "", b"2");
    world.pass(9_000);
    let share = queue.consumer_capacity(world.now).unwrap();
    assert!((share - 0.1).abs() < 0.01, "{share}");
    world.tell(peer, 1, "basic.ack", "delivery=1");
    world.pass(60_000);
    assert!(queue.consumer_capacity(world.now).unwrap() > 0.99);
}
