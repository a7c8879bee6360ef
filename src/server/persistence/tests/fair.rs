//! Groups that share a queue most of which is on disk.

use super::*;
use crate::{
    broker::queue::{leases::Receive, properties::Properties, selective::GroupMode},
    protocol::jms::JmsFields,
};

fn grouped(group: &str, body: &str) -> Message {
    let raw = crate::protocol::amqp::properties::Properties {
        headers: Some(Table::from_iter([("JMSXGroupID", Value::text(group))])),
        ..Default::default()
    }
    .encode();
    let at = crate::protocol::amqp::properties::scan(&raw).unwrap().headers;
    let mut message = Message::build("", b"q", &raw, at, body.as_bytes());
    (message.traits.persistent, message.traits.has_group) = (true, true);
    message
}

#[test]
fn a_quiet_group_is_found_behind_a_backlog_that_is_on_disk() {
    let rig = Rig::new();
    rig.opened().broker.attach_fields(Arc::new(JmsFields));
    let properties = Properties { group_mode: Some(GroupMode::Fair), ..Properties::default() };
    let wanted = DeclareQueue { name: "q", durable: true, properties, ..DeclareQueue::default() };
    rig.opened().broker.vhost("/").unwrap().declare_queue(&wanted, None, &mut rig.turn()).unwrap();
    let publish = |group: &str, count: usize| {
        let messages = (0..count).map(|_| grouped(group, group));
        rig.queue("q").publish(messages, &mut rig.turn(), &mut Vec::new());
    };
    publish("busy", 21_000);
    publish("quiet", 12);
    publish("busy", 2_000);
    rig.settle_down();
    assert!(rig.queue("q").cold().0 > 2_000);
    let receive = |max| {
        let wanted = Receive { max, lease_ms: 60_000, ..Receive::default() };
        loop {
            match rig.queue("q").receive(&wanted, &mut rig.turn()) {
                Verb::Done(received) => {
                    let bodies = received.unwrap().messages;
                    return bodies.iter().map(|one| one.message.body_to_vec()).collect::<Vec<_>>();
                }
                Verb::Pending(_) => std::thread::yield_now(),
            }
        }
    };
    assert_eq!([receive(1), receive(1)].concat(), [b"busy".to_vec(), b"quiet".to_vec()]);
    // All of it comes, each once.
    let (mut busy, mut quiet) = (1, 1);
    loop {
        let bodies = receive(10);
        if bodies.is_empty() {
            break;
        }
        let of_busy = bodies.iter().filter(|body| body[..] == *b"busy").count();
        (busy, quiet) = (busy + of_busy, quiet + bodies.len() - of_busy);
    }
    assert_eq!((busy, quiet), (23_000, 12));
}
