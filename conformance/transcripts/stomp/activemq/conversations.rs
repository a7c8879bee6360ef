//! Conversations that were recorded with ActiveMQ 5.17.2: Tern says the same, frame by frame, but for what
//! `differs.txt` and `further_differs.txt` list with its reason.
//!
//! In the further ones only what one subscription gets has an order. They were found by asking for what nobody
//! had asked yet.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::{plain, world};
use crate::peer::World;

type Step = (Vec<String>, bool);

/// A frame with its headers in order, and an ERROR without its body, which is a trace of Java.
fn in_order(frame: &str) -> String {
    let (head, body) = frame.split_once("\n\n").unwrap_or((frame, ""));
    let (command, headers) = head.split_once('\n').unwrap_or((head, ""));
    let mut headers: Vec<&str> = headers.lines().collect();
    headers.sort_unstable();
    let headers: String = headers.iter().map(|line| format!("{line}\n")).collect();
    format!("{command}\n{headers}\n{}", if command == "ERROR" { "" } else { body })
}

fn last(said: &[String], header: &str) -> Option<String> {
    let lines = said.iter().rev().flat_map(|frame| frame.lines());
    lines.filter_map(|line| line.strip_prefix(header)?.strip_prefix(':')).next().map(str::to_owned)
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

/// Plays one conversation; returns what was heard in each step, and whether the end was seen after it.
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
                let mut octets = step["send"].as_str().unwrap().replace("QUEUE", name);
                for (word, header) in [("$ACK", "ack"), ("$MESSAGE_ID", "message-id"), ("$REPLY_TO", "reply-to")] {
                    if octets.contains(word) {
                        octets = octets.replace(word, &last(&said, header).unwrap_or_default());
                    }
                }
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
    let (conversations, differs) = (include_str!("conversations.json"), include_str!("differs.txt"));
    compare(conversations, differs, "stomp.q", |_| ());
}

#[test]
fn further_conversations_go_as_with_activemq() {
    let (conversations, differs) = (include_str!("further.json"), include_str!("further_differs.txt"));
    compare(conversations, differs, "stomp.f", by_subscription);
}

fn compare(conversations: &str, differs: &str, prefix: &str, in_order: fn(&mut [String])) {
    let conversations: Json = serde_json::from_str(conversations).unwrap();
    let differs: BTreeMap<&str, &str> = differs
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once(" | ").expect("NAME | REASON"))
        .collect();
    let mut world = world();
    let node = world.broker.options.node_name.clone();
    let (mut problems, mut names) = (Vec::new(), Vec::new());
    for (number, conversation) in conversations.as_array().unwrap().iter().enumerate() {
        let name = conversation["name"].as_str().unwrap();
        names.push(name);
        let steps = conversation["steps"].as_array().unwrap();
        let mut recorded: Vec<Step> = steps
            .iter()
            .map(|step| {
                let frames = step["heard"].as_array().into_iter().flatten().map(|frame| frame.as_str().unwrap());
                let frames = frames.map(|frame| frame.replace("Broker: localhost", &format!("Broker: {node}")));
                (frames.collect(), step["closed"] == true)
            })
            .collect();
        let mut played = play(&mut world, steps, &format!("{prefix}{number}x"));
        recorded.iter_mut().chain(&mut played).for_each(|(frames, _)| in_order(frames));
        match (played == recorded, differs.contains_key(name)) {
            (true, true) => problems.push(format!("{name}: listed as different, and is not")),
            (false, false) => problems.push(format!("{name}:\n  recorded {recorded:#?}\n  played {played:#?}")),
            _ => {}
        }
    }
    problems.extend(
        differs
            .keys()
            .filter(|name| !names.contains(name))
            .map(|name| format!("{name}: there is no such conversation")),
    );
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
