//! One message in many queues: its body is in the log once, and each queue has it after a restart.

use serde_json::Value as Json;

use crate::{
    app::{App, DURABLE, persistent},
    broker::Broker,
};

const QUEUES: u64 = 100;
const MESSAGES: u64 = 10;
const BODY_BYTES: u64 = 100_000;

fn name(queue: u64) -> String {
    format!("q{queue}")
}

fn body(message: u64) -> Vec<u8> {
    let mut body = vec![b'x'; BODY_BYTES as usize];
    body[..8].copy_from_slice(&message.to_le_bytes());
    body
}

fn written_bytes(broker: &Broker) -> u64 {
    let status: Json = serde_json::from_str(&broker.ctl(&["status", "--formatter", "json"])).unwrap();
    status["store"]["log_bytes_written"].as_u64().unwrap()
}

#[test]
fn a_body_that_goes_to_a_hundred_queues_is_written_once() {
    let mut broker = Broker::start();
    let app = App::on(&broker);
    app.declare_exchange("copies", "fanout", &[]);
    for queue in 0..QUEUES {
        app.declare(&name(queue), DURABLE, &[]);
        app.bind("copies", "", &name(queue));
    }
    let before = written_bytes(&broker);
    for message in 0..MESSAGES {
        app.publish_to("copies", "", &body(message), persistent());
    }
    let written = written_bytes(&broker) - before;
    println!("{MESSAGES} messages of {BODY_BYTES} bytes to {QUEUES} queues: {written} bytes in the log");
    let bodies = MESSAGES * BODY_BYTES;
    assert!((bodies..bodies + bodies / 10).contains(&written), "{written} bytes for bodies of {bodies}");

    broker.crash();
    app.forget();
    let app = App::on(&broker);
    let wanted: Vec<_> = (0..MESSAGES).map(body).collect();
    for queue in 0..QUEUES {
        let found: Vec<_> = app.drain(&name(queue)).into_iter().map(|delivery| delivery.data).collect();
        assert!(found == wanted, "all of them, in order, in {}", name(queue));
    }
}
