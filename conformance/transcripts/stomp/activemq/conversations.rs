//! Conversations that were recorded with ActiveMQ 5.17.2: Tern says the same, frame by frame, but for what
//! `differs.txt` and `further_differs.txt` list with its reason.
//!
//! In the further ones only what one subscription gets has an order. They were found by asking for what nobody
//! had asked yet.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::{
    super::recorded::{self, Step, octets},
    plain, world,
};
use crate::peer::World;

/// A frame with its headers in order, and an ERROR without its body, which is a trace of Java.
fn in_order(frame: &str) -> String {
    let frame = recorded::in_order(frame);
    match frame.find("\n\n") {
        Some(at) if frame.starts_with("ERROR\n") => frame[..at + 2].to_owned(),
        _ => frame,
    }
}

/// Text as it is in recordings.
fn shown(frame: &str, name: &str) -> String {
    let frame = plain(frame).replace(name, "QUEUE");
    match frame.find("tcp://127") {
        None => frame,
        Some(at) => {
            let len = frame[at..].find('\n').unwrap();
            format!("{}tcp://PEER{}", &frame[..at], &frame[at + len..])
        }
    }
}

/// Plays one conversation.
fn play(world: &mut World, steps: &[Json], name: &str) -> Vec<Step> {
    let mut peers = BTreeMap::new();
    let (mut said, mut played) = (Vec::new(), Vec::new());
    for step in steps {
        let number = step["on"].as_u64().unwrap_or(1);
        let peer = *peers.entry(number).or_insert_with(|| world.connect_stomp());
        if step["end"] == true {
            peers.remove(&number);
            world.hang_up(peer);
            played.push((Vec::new(), false));
            continue;
        }
        match step["wait"].as_u64() {
            Some(ms) => world.pass(ms),
            None => {
                let words = [("$ACK", "ack"), ("$MESSAGE_ID", "message-id"), ("$REPLY_TO", "reply-to")];
                let octets = octets(step, name, &words, &said);
                // Time goes on in the recordings, too.
                world.pass(1);
                world.send(peer, octets.as_bytes());
                if octets.contains("client-id:") {
                    // One whose name is taken waits for it a little while.
                    world.pass(300);
                }
            }
        }
        let mut heard = world.heard(peer);
        // Nobody promises an order among subscriptions to topics.
        heard.sort_by_key(|frame| frame.contains("\ndestination:/topic/").then(|| frame.clone()));
        said.extend(heard.iter().cloned());
        played.push((heard.iter().map(|frame| in_order(&shown(frame, name))).collect(), world.is_over(peer)));
    }
    peers.into_values().for_each(|peer| world.hang_up(peer));
    played
}

/// The frames of each subscription in their order, behind those of none; persistent messages first, as ActiveMQ
/// keeps them apart.
fn by_subscription(frames: &mut [String]) {
    frames.sort_by_key(|frame| {
        let line = frame.lines().find(|line| line.starts_with("subscription:")).unwrap_or_default();
        (frame.starts_with("MESSAGE"), line.to_owned(), !frame.contains("\npersistent:true\n"))
    });
}

#[test]
fn conversations_go_as_with_activemq() {
    compare((include_str!("conversations.json"), include_str!("differs.txt")), "stomp.q", |_| ());
}

#[test]
fn further_conversations_go_as_with_activemq() {
    compare((include_str!("further.json"), include_str!("further_differs.txt")), "stomp.f", by_subscription);
}

fn compare(files: (&str, &str), prefix: &str, sort: fn(&mut [String])) {
    let mut world = world();
    // Recorded with a broker that is called localhost.
    let node = format!("Broker: {}", world.broker.options.node_name);
    let mend = |(frames, _): &mut Step| {
        frames.iter_mut().for_each(|frame| *frame = frame.replace(&node, "Broker: localhost"));
        sort(frames);
    };
    recorded::compare(files, prefix, mend, |steps, name| play(&mut world, steps, name));
}
