//! What RabbitMQ 3.10.8 and a client said to each other (`conversations.json`, see `record.py`),
//! repeated with a session in RabbitMQ's place.
//!
//! Rows that differ on purpose stand in `differs.txt` with their reason.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;
use ternmq::broker::{
    definitions::Definitions,
    exchange::Target,
    policy::Layer,
    topology::{DeclareExchange, DeclareQueue},
    turn::Turn,
    value::Table,
};

use super::peer::World;

/// A world with the users, limits, policies and queues that the rows expect.
fn defined_world() -> World {
    let world = World::new();
    let json: Json = serde_json::from_str(include_str!("definitions.json")).unwrap();
    let definitions = Definitions::from_json(json.clone()).unwrap();
    let broker = &world.broker;
    for vhost in ["d.conn", "d.queues"] {
        broker.add_vhost(vhost, Default::default());
    }
    for user in &definitions.users {
        broker.access.put(user.to_user(definitions.version()).unwrap()).unwrap();
    }
    for permission in &definitions.permissions {
        let vhost = permission.vhost.as_str();
        broker.access.set_permissions(&permission.user, vhost, permission.permissions()).unwrap();
    }
    for permission in &definitions.topic_permissions {
        let vhost = permission.vhost.as_str();
        let permissions = permission.permissions();
        broker.access.set_topic_permissions(&permission.user, vhost, &permission.exchange, permissions).unwrap();
    }
    for policy in &definitions.policies {
        broker.policies.set(Layer::User, policy.to_policy(Layer::User, "/").unwrap());
    }
    for parameter in json["parameters"].as_array().unwrap() {
        let (vhost, name) = (parameter["vhost"].as_str().unwrap(), parameter["name"].as_str().unwrap());
        if parameter["component"] == "vhost-limits" {
            let limits = ternmq::broker::limits::VhostLimits::from_json(&parameter["value"]).unwrap();
            broker.vhost_limits.set(vhost, limits);
        } else {
            let policy = ternmq::broker::policy::Policy::from_json(Layer::Operator, vhost, name, &parameter["value"]);
            broker.policies.set(Layer::Operator, policy.unwrap());
        }
    }
    let vhost = broker.vhost("/").unwrap();
    let mut turn = Turn::new(broker, world.now);
    let arguments = Table::from_iter([("x-max-length", ternmq::broker::value::Value::I32(5))]);
    let wanted = DeclareQueue { name: "d.defined", durable: true, arguments, ..DeclareQueue::default() };
    let queue = vhost.declare_queue(&wanted, None, &mut turn).unwrap();
    let wanted = DeclareExchange { name: "d.defined.x", kind: "topic", durable: true, ..DeclareExchange::default() };
    vhost.declare_exchange(&wanted, &mut turn).unwrap();
    vhost.bind("d.defined.x", &Target::Queue(queue), b"a.#", &Table::new(), &mut turn).unwrap();
    turn.end();
    world
}

/// The names in `differs.txt`.
fn differing() -> BTreeSet<&'static str> {
    include_str!("differs.txt").lines().filter(|line| !line.starts_with([' ', '#']) && !line.is_empty()).collect()
}

fn text(step: &Json, at: usize) -> &str {
    step[at].as_str().unwrap_or_default()
}

fn octets(hex: &str) -> Vec<u8> {
    hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// Puts the names that were made up here in the place of those made up there.
fn renamed(mut octets: Vec<u8>, names: &BTreeMap<String, String>) -> Vec<u8> {
    for (theirs, ours) in names {
        if theirs.len() != ours.len() {
            continue;
        }
        while let Some(at) = octets.windows(theirs.len()).position(|part| part == theirs.as_bytes()) {
            octets[at..at + ours.len()].copy_from_slice(ours.as_bytes());
        }
    }
    octets
}

struct Replay<'a> {
    /// Octets that many rows send.
    often: &'a Json,
    world: World,
    peers: BTreeMap<u64, usize>,
    names: BTreeMap<String, String>,
    elapsed: u64,
}

impl<'a> Replay<'a> {
    fn run(often: &'a Json, steps: &[Json]) -> Result<(), String> {
        let mut replay =
            Self { often, world: defined_world(), peers: BTreeMap::new(), names: BTreeMap::new(), elapsed: 0 };
        for (at, step) in steps.iter().enumerate() {
            replay.step(step, &steps[at + 1..]).map_err(|error| format!("step {at}: {error}"))?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Json, rest: &[Json]) -> Result<(), String> {
        let ms = step[2].as_u64().unwrap();
        self.world.pass(ms.saturating_sub(self.elapsed));
        self.elapsed = self.elapsed.max(ms);
        let connection = step[1].as_u64().unwrap();
        if text(step, 0) == "open" {
            let peer = self.world.connect();
            self.peers.insert(connection, peer);
            return Ok(());
        }
        let peer = self.peers[&connection];
        match text(step, 0) {
            "send" => {
                let hex = step[3].as_u64().map_or(text(step, 3), |at| text(self.often, at as usize));
                self.world.send(peer, &renamed(octets(hex), &self.names));
            }
            "close" => self.world.hang_up(peer),
            "quiet" => {
                if let Some(said) = self.next(peer) {
                    return Err(format!("expected silence\n       got {}", said.0));
                }
            }
            "read" => {
                let expected = text(step, 3);
                let (line, names) = self.next(peer).unwrap_or_else(|| ("nothing".to_owned(), Vec::new()));
                // What a broker says of itself is its own.
                let line = if line.starts_with("0 connection.start ") { "0 connection.start".to_owned() } else { line };
                if line != expected && !is_poll(expected, &line, connection, rest) {
                    return Err(format!("expected {expected}\n       got {line}"));
                }
                self.note(&step[4], names);
            }
            "any" => {
                let mut expected: Vec<&str> = step[3].as_array().unwrap().iter().map(|one| text(one, 0)).collect();
                let mut got: Vec<String> = (0..expected.len()).filter_map(|_| Some(self.next(peer)?.0)).collect();
                expected.sort_unstable();
                got.sort_unstable();
                if got != expected {
                    return Err(format!("expected {expected:?}\n       got {got:?}"));
                }
            }
            other => panic!("a step of kind {other}"),
        }
        Ok(())
    }

    fn next(&mut self, peer: usize) -> Option<(String, Vec<String>)> {
        loop {
            match self.world.next(peer) {
                Some(said) if said.name == "heartbeat" => {}
                Some(said) => return Some((said.line, said.names)),
                None if self.world.is_over(peer) => return Some(("socket closed".to_owned(), Vec::new())),
                None => return None,
            }
        }
    }

    fn note(&mut self, theirs: &Json, ours: Vec<String>) {
        for (theirs, ours) in theirs.as_array().into_iter().flatten().zip(ours) {
            self.names.insert(theirs.as_str().unwrap().to_owned(), ours);
        }
    }
}

/// The client asked for a count again and again until it was what it waited for; here it may be
/// that already.
fn is_poll(expected: &str, got: &str, connection: u64, rest: &[Json]) -> bool {
    let queue = |line: &str| line.strip_prefix("1 queue.declare-ok ")?.split(" messages=").next().map(str::to_owned);
    queue(expected).is_some()
        && queue(expected) == queue(got)
        && rest
            .iter()
            .filter(|step| step[1] == connection && text(step, 0) == "read")
            .map(|step| text(step, 3))
            .take_while(|line| queue(line) == queue(expected))
            .any(|line| line == got)
}

#[test]
fn rabbitmq_and_tern_say_the_same() {
    let mut conversations: serde_json::Map<String, Json> =
        serde_json::from_str(include_str!("conversations.json")).unwrap();
    let often = conversations.remove("often sent").unwrap();
    let only = std::env::var("TERN_ROW").ok();
    let differing = differing();
    let mut broken = Vec::new();
    let mut same = 0;
    for (name, steps) in &conversations {
        if only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        match Replay::run(&often, steps.as_array().unwrap()) {
            Ok(()) => same += 1,
            Err(error) if differing.contains(name.as_str()) && only.is_none() => drop(error),
            Err(error) => broken.push(format!("{name}\n  {error}")),
        }
    }
    for name in differing {
        assert!(conversations.contains_key(name), "differs.txt names a row that is not there: {name}");
    }
    assert!(broken.is_empty(), "{same} rows are the same, {} are not:\n{}", broken.len(), broken.join("\n"));
}
