//! Valid conversations with octets changed, left out, repeated and swapped: no session may panic,
//! and what it holds and says stays bounded by what it was sent.
//!
//! `TERN_FUZZ_SECONDS=60` runs for that long; `TERN_FUZZ_SEED` repeats a run.

use std::time::{Duration, Instant};

use super::{
    lines::{self, Value},
    peer::World,
};

/// Numbers from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut n = self.0;
        n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        n ^ (n >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Frames that belong together; a conversation is some of them in a row.
fn corpus() -> Vec<Vec<u8>> {
    let m = |name: &str, values: &str| lines::method(1, name, values, &[]);
    let limits = lines::table(&[
        ("x-max-length", Value::Number(3)),
        ("x-overflow", Value::Text("reject-publish")),
        ("x-dead-letter-exchange", Value::Text("")),
        ("x-dead-letter-routing-key", Value::Text("q")),
        ("x-message-ttl", Value::Number(10)),
    ]);
    let stream = lines::table(&[("x-queue-type", Value::Text("stream"))]);
    let headers = lines::table(&[("CC", Value::Text("q")), ("x-delay", Value::Number(5))]);
    vec![
        lines::method(1, "channel.open", "", &[]),
        lines::method(2, "channel.open", "", &[]),
        m("queue.declare", "queue=q"),
        m("queue.declare", "queue=e exclusive"),
        m("queue.declare", "durable"),
        lines::method(1, "queue.declare", "queue=l durable", &limits),
        lines::method(1, "queue.declare", "queue=s durable", &stream),
        m("queue.bind", "queue=q exchange=amq.topic key=a.#"),
        m("queue.unbind", "queue=q exchange=amq.topic key=a.#"),
        m("queue.purge", "queue=q"),
        m("queue.delete", "queue=q"),
        m("exchange.declare", "exchange=x type=headers"),
        m("exchange.bind", "source=x destination=amq.fanout"),
        m("exchange.delete", "exchange=x"),
        m("confirm.select", ""),
        m("tx.select", ""),
        m("tx.commit", ""),
        m("tx.rollback", ""),
        m("basic.qos", "count=2"),
        m("basic.qos", "count=1 global"),
        m("basic.consume", "queue=q tag=c"),
        m("basic.consume", "queue=s tag=s"),
        m("basic.consume", "queue=amq.rabbitmq.reply-to no_ack tag=r"),
        m("basic.cancel", "tag=c"),
        m("basic.get", "queue=q"),
        m("basic.ack", "delivery=1"),
        m("basic.ack", "delivery=0 multiple"),
        m("basic.nack", "delivery=0 multiple requeue"),
        m("basic.reject", "delivery=1"),
        m("basic.recover", "requeue"),
        m("channel.close", "code=200"),
        m("channel.close-ok", ""),
        m("channel.flow", "active"),
        lines::publish(1, "key=q", "delivery_mode=2 priority=3", &[], b"body"),
        lines::publish(1, "key=q mandatory", "expiration=5 reply_to=amq.rabbitmq.reply-to", &headers, &[b'x'; 9000]),
        lines::publish(2, "exchange=amq.topic key=a.b mandatory", "user_id=guest", &[], b""),
        lines::publish(1, "key=l", "", &[], b"limited"),
        lines::publish(1, "key=s", "", &[], b"streamed"),
        lines::frame(8, 0, &[]),
    ]
}

fn mutate(octets: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..dice.below(3) {
        let at = dice.below(octets.len());
        match dice.below(6) {
            0 => octets[at] ^= 1 << dice.below(8),
            1 => octets[at] = [0, 1, 0x7F, 0x80, 0xCE, 0xFF][dice.below(6)],
            2 => drop(octets.remove(at)),
            3 => octets.insert(at, dice.next() as u8),
            4 => octets.truncate(at),
            _ => {
                let end = (at + dice.below(20)).min(octets.len());
                let part = octets[at..end].to_vec();
                octets.splice(at..at, part);
            }
        }
        if octets.is_empty() {
            return;
        }
    }
}

fn story(seed: u64, corpus: &[Vec<u8>]) {
    let mut dice = Dice(seed);
    let mut world = World::new();
    let peer = match dice.below(8) {
        0 => world.connect(),
        _ => {
            let peer = world.connect();
            world.handshake(peer, "heartbeat=0");
            world.send(peer, &corpus[0]);
            peer
        }
    };
    let mut sent = 0;
    for _ in 0..dice.below(40) {
        let mut octets = corpus[dice.below(corpus.len())].clone();
        if dice.below(4) == 0 {
            mutate(&mut octets, &mut dice);
        }
        sent += octets.len() as u64;
        // In two pieces, cut anywhere.
        let cut = dice.below(octets.len() + 1);
        world.send(peer, &octets[..cut]);
        world.send(peer, &octets[cut..]);
        world.pass(dice.below(20) as u64);
    }
    let said: usize = world.heard(peer).iter().map(String::len).sum();
    assert!(said as u64 <= 100 * (sent + 10_000), "{said} octets were said to {sent}");
    world.hang_up(peer);
    // Everybody else is undisturbed.
    let other = world.open(1);
    world.call(other, 1, "queue.declare", "queue=another");
}

#[test]
fn changed_conversations_never_panic() {
    let corpus = corpus();
    let first = std::env::var("TERN_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let seconds = std::env::var("TERN_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    for seed in first.. {
        let outcome = std::panic::catch_unwind(|| story(seed, &corpus));
        assert!(outcome.is_ok(), "TERN_FUZZ_SEED={seed} panics");
        if end.map_or(seed >= first + 1_500, |end| Instant::now() >= end) {
            break;
        }
    }
}
