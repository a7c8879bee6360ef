//! Conversations that were recorded with RabbitMQ 3.10.8: Tern says the same, frame by frame, but for what
//! `differs.txt` lists with its reason.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::peer::World;

/// A frame with its headers in order.
fn in_order(frame: &str) -> String {
    let (head, body) = frame.split_once("\n\n").unwrap();
    let mut lines = head.lines();
    let command = lines.next().unwrap();
    let mut headers: Vec<&str> = lines.collect();
    headers.sort_unstable();
    let head: String = headers.iter().map(|line| format!("{line}\n")).collect();
    format!("{command}\n{head}\n{body}")
}

fn last(said: &[String], header: &str) -> Option<String> {
    let lines = said.iter().rev().flat_map(|frame| frame.lines());
    lines.filter_map(|line| line.strip_prefix(header)?.strip_prefix(':')).next().map(str::to_owned)
}

/// Plays one conversation; returns what was heard in each step, and whether the end was seen after it.
fn play(world: &mut World, steps: &[Json], name: &str) -> Vec<(Vec<String>, bool)> {
    let peer = world.connect_stomp();
    let mut said = Vec::new();
    let mut played = Vec::new();
    for step in steps {
        let mut octets = step["send"].as_str().unwrap().replace("QUEUE", name);
        for (word, header) in [("$ACK", "ack"), ("$MESSAGE_ID", "message-id")] {
            if octets.contains(word) {
                octets = octets.replace(word, &last(&said, header).unwrap_or_default());
            }
        }
        world.send(peer, octets.as_bytes());
        let heard = world.heard(peer);
        said.extend(heard.iter().cloned());
        let frames = heard.iter().map(|frame| in_order(frame).replace(name, "QUEUE")).collect();
        played.push((frames, world.is_over(peer)));
        if world.is_over(peer) {
            break;
        }
    }
    world.hang_up(peer);
    played
}

#[test]
fn conversations_go_as_with_rabbitmq() {
    let conversations: Json = serde_json::from_str(include_str!("conversations.json")).unwrap();
    let differs: BTreeMap<&str, &str> = include_str!("differs.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once(" | ").expect("NAME | REASON"))
        .collect();
    let mut world = World::new();
    world.stomp.server_name = "RabbitMQ/3.10.8".to_owned();
    world.stomp.options.host_fallback = false;
    let (mut problems, mut names) = (Vec::new(), Vec::new());
    for (number, conversation) in conversations.as_array().unwrap().iter().enumerate() {
        let name = conversation["name"].as_str().unwrap();
        names.push(name);
        let steps = conversation["steps"].as_array().unwrap();
        let recorded: Vec<(Vec<String>, bool)> = steps
            .iter()
            .map(|step| {
                let frames = step["heard"].as_array().unwrap().iter().map(|frame| frame.as_str().unwrap().to_owned());
                (frames.collect(), step["closed"] == true)
            })
            .collect();
        let played = play(&mut world, steps, &format!("stomp.q{number}x"));
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
