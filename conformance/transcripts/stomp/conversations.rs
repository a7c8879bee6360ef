//! Conversations that were recorded with RabbitMQ 3.10.8: Tern says the same, frame by frame, but for what
//! `differs.txt` lists with its reason.

use serde_json::Value as Json;

use super::recorded::{Step, compare, in_order, octets};
use crate::peer::World;

/// Plays one conversation.
fn play(world: &mut World, steps: &[Json], name: &str) -> Vec<Step> {
    let peer = world.connect_stomp();
    let (mut said, mut played) = (Vec::new(), Vec::new());
    for step in steps {
        let octets = octets(step, name, &[("$ACK", "ack"), ("$MESSAGE_ID", "message-id")], &said);
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
    let mut world = World::new();
    world.stomp.server_name = "RabbitMQ/3.10.8".to_owned();
    world.stomp.options.host_fallback = false;
    let files = (include_str!("conversations.json"), include_str!("differs.txt"));
    compare(files, "stomp.q", |_| (), |steps, name| play(&mut world, steps, name));
}
