//! A whole data directory of an earlier version, which every later version must open: `directory-v1`.
//!
//! It has every kind of definition, queues of each type with messages, messages held back, names that
//! were seen before, an index with a checkpoint, a cold file, and a log that goes on after the checkpoint
//! until a kill. The ignored test `write_the_directory` has made it, with the binary of that time:
//!
//! ```text
//! cargo test --test process -- --ignored write_the_directory
//! ```
//!
//! A released one is never written again. A new format gets a new one beside it.
//!
//! `files` is the directory without the zeros that most of a segment is:
//!
//! ```text
//! file    name length u32 | name | size u64 | pieces | 0 u64, 0 u32
//! piece   place u64 | length u32 | bytes, of which no 64 in a row are zero
//! ```

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use lapin::types::AMQPValue;
use ternmq::store::{
    disk::{Disk, RealDisk},
    survey::{Layout, Survey},
};

use crate::{
    app::{App, DURABLE, persistent, table, text},
    broker::{Broker, until},
    client::{Client, Login},
    restart::{define, listings},
};

/// Small files, and checkpoints and moves all the time.
const BUSY: &[&str] = &[
    "store.segment_bytes=3MiB",
    "store.batch_bytes_max=512KiB",
    "store.unwritten_bytes_max=4MiB",
    "store.checkpoint_bytes=64KiB",
    "store.checkpoint_ms=50",
    "store.reclaim_slack_bytes=1MiB",
];
/// No checkpoint comes before the kill.
const TAIL: &[&str] = &[
    "store.segment_bytes=3MiB",
    "store.batch_bytes_max=512KiB",
    "store.unwritten_bytes_max=4MiB",
    "store.checkpoint_bytes=1GiB",
    "store.checkpoint_ms=3600000",
];
/// Of kinds that `define` has none of, each with a queue of its name.
const EXCHANGES: &[(&str, &str)] = &[
    ("direct", "k"),
    ("headers", ""),
    ("x-consistent-hash", "1"),
    ("x-modulus-hash", ""),
    ("x-random", ""),
    ("x-recent-history", ""),
];
/// A user whose password RabbitMQ has hashed: it is `secret`.
const IMPORTED: &str = r#"{"users": [{"name": "imported", "tags": "management", "limits": {},
    "password_hash": "AQIDBDB9kM21iEUzN1lZ+6VReCsdNqS0sERdAQTcY6Xs3PMz",
    "hashing_algorithm": "rabbit_password_hashing_sha256"}]}"#;
const NAMES: [(&str, AMQPValue); 2] =
    [("x-message-deduplication", AMQPValue::Boolean(true)), ("x-cache-size", AMQPValue::LongInt(100))];
/// 46 days: held back while this version is young.
const LATE_MS: i64 = 4_000_000_000;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/process/directory-v1")
}

fn survey(broker: &Broker) -> Survey {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let layout = Layout::find(&*disk, &broker.data()).unwrap().unwrap();
    Survey::take(&disk, &layout, true).unwrap()
}

fn has_cold(broker: &Broker) -> bool {
    broker.files("log").iter().any(|name| name.starts_with("cold-"))
}

fn publish_named(app: &App, at: u32) {
    let headers = table(&[("x-deduplication-header", text(&format!("m{at}")))]);
    app.publish_to("", "once", &body(at), persistent().with_headers(headers));
}

fn delay(app: &App, from: u32) {
    publish_late(app, from, 1);
    publish_late(app, from + 1, LATE_MS);
}

fn publish_late(app: &App, at: u32, delay: i64) {
    let headers = table(&[("x-delay", AMQPValue::LongLongInt(delay))]);
    app.publish_to("delays", "k", &body(at), persistent().with_headers(headers));
}

fn body(number: u32) -> Vec<u8> {
    format!("message {number}").into_bytes()
}

fn number(body: &[u8]) -> u32 {
    std::str::from_utf8(body).unwrap().strip_prefix("message ").unwrap().parse().unwrap()
}

/// The same part of each queue: `from` is 0 for what the index has, 10 for what only the log has.
fn fill(app: &App, from: u32) {
    for queue in ["classic", "quorum", "stream"] {
        (from..from + 4).for_each(|at| app.publish(queue, &body(at)));
    }
    for at in from..from + 4 {
        app.publish_to("", "ranked", &body(at), persistent().with_priority((at % 2) as u8));
        publish_named(app, at);
    }
    app.publish_to("orders", "b.x", &body(from), persistent());
    // One that has been delivered, and one that is settled.
    app.nack(&app.expect("classic"), true);
    app.ack(&app.expect("quorum"));
}

fn numbers(app: &App, queue: &str) -> Vec<u32> {
    app.drain(queue).iter().map(|delivery| number(&delivery.data)).collect()
}

#[test]
fn a_data_directory_of_format_1_is_opened_with_all_that_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    unpack(&fs::read(folder().join("files")).unwrap(), &dir.path().join("data"));
    let broker = Broker::on(dir, TAIL, &[]);
    let expected = fs::read_to_string(folder().join("listings")).unwrap();
    assert_eq!(listed(&broker), expected);
    assert!(has_cold(&broker));
    broker.ctl(&["authenticate_user", "clerk", "secret"]);
    broker.ctl(&["authenticate_user", "imported", "secret"]);
    let app = App::on(&broker);
    let first = app.expect("classic");
    assert!(first.redelivered);
    app.nack(&first, true);
    assert_eq!(numbers(&app, "classic"), [0, 1, 2, 3, 10, 11, 12, 13]);
    // The first was taken each time.
    assert_eq!(numbers(&app, "quorum"), [2, 3, 10, 11, 12, 13]);
    assert_eq!(numbers(&app, "ranked"), [1, 3, 11, 13, 0, 2, 10, 12]);
    assert_eq!(read_stream(&broker), [0, 1, 2, 3, 10, 11, 12, 13]);
    publish_named(&app, 2);
    publish_named(&app, 12);
    publish_named(&app, 20);
    assert_eq!(numbers(&app, "once"), [0, 1, 2, 3, 10, 11, 12, 13, 20]);
    assert_eq!(numbers(&app, "copied"), [0, 10]);
    // What is to come in 46 days has come when this test is older than that.
    until("what is due has come", || app.ready("late").is_some_and(|ready| ready >= 2));
    let late = numbers(&app, "late");
    assert!(late.starts_with(&[0, 10]), "{late:?}");
    assert_eq!(numbers(&app, "flow"), [20]);
    for (kind, key) in EXCHANGES {
        app.publish_to(kind, key, b"routed", persistent());
        assert_eq!(app.expect(kind).data, b"routed");
    }
    app.forget();
}

fn read_stream(broker: &Broker) -> Vec<u32> {
    use ternmq::protocol::amqp::codec::method::{AMQPClass, FieldTable, basic};
    let mut client = Client::connect(broker.port);
    client.login(&Login::default());
    client.open_channel(1);
    client.qos(100);
    let mut arguments = FieldTable::default();
    let offset = ternmq::protocol::amqp::codec::method::AMQPValue::LongString("first".into());
    arguments.insert("x-stream-offset".into(), offset);
    let consume =
        basic::Consume { queue: "stream".into(), consumer_tag: "c".into(), arguments, ..basic::Consume::default() };
    client.send(1, AMQPClass::Basic(basic::AMQPMethod::Consume(consume)));
    client.method();
    let read = (0..8).map(|_| number(&client.delivery().body)).collect();
    client.close();
    read
}

fn listed(broker: &Broker) -> String {
    listings(broker, &[]).into_iter().map(|lines| lines.join("\n") + "\n\n").collect()
}

#[test]
#[ignore = "writes the directory; a released one is never written again"]
fn write_the_directory() {
    let mut broker = Broker::with(BUSY);
    let app = App::on(&broker);
    define(&broker, &app);
    let imported = broker.data().join("../imported.json");
    fs::write(&imported, IMPORTED).unwrap();
    broker.ctl(&["import_definitions", imported.to_str().unwrap()]);
    for (kind, key) in EXCHANGES {
        app.declare_exchange(kind, kind, &[]);
        app.declare(kind, DURABLE, &[]);
        app.bind(kind, key, kind);
    }
    app.declare_exchange("delays", "x-delayed-message", &[("x-delayed-type", text("direct"))]);
    for (queue, arguments) in [
        ("classic", &[][..]),
        ("quorum", &[("x-queue-type", text("quorum"))]),
        ("stream", &[("x-queue-type", text("stream"))]),
        ("ranked", &[("x-max-priority", AMQPValue::LongInt(1))]),
        ("once", &NAMES),
        ("late", &[]),
        ("copied", &[]),
        ("flow", &[]),
    ] {
        app.declare(queue, DURABLE, arguments);
    }
    app.bind("delays", "k", "late");
    app.bind("copies", "", "copied");
    fill(&app, 0);
    // Segments of which little is left: that is moved.
    until("messages have been moved", || {
        app.publish("flow", &[0; 40_000]);
        app.drain("flow");
        has_cold(&broker)
    });
    // Only now: what is held back is not moved.
    delay(&app, 0);
    let end = survey(&broker).log.end;
    until("the index has them", || {
        app.publish("flow", b"on");
        app.drain("flow");
        survey(&broker).index.unwrap().checkpoint.is_some_and(|checkpoint| checkpoint.covered >= end.0)
    });
    broker.terminate();
    broker.wait();
    app.forget();

    broker.set_settings(TAIL);
    broker.start_again();
    let app = App::on(&broker);
    fill(&app, 10);
    delay(&app, 10);
    // Until its confirm the acknowledgement before it may not be in the log.
    app.sync();
    app.publish("flow", &body(20));
    let listed = listed(&broker);
    broker.kill();
    app.forget();
    assert!(has_cold(&broker));
    fs::create_dir_all(folder()).unwrap();
    fs::write(folder().join("listings"), listed).unwrap();
    fs::write(folder().join("files"), pack(&broker.data())).unwrap();
}

/// The files of log and index, but those that are empty or made anew.
fn pack(data: &Path) -> Vec<u8> {
    let mut packed = Vec::new();
    for folder in ["log", "index"] {
        let mut names: Vec<_> =
            fs::read_dir(data.join(folder)).unwrap().map(|file| file.unwrap().file_name()).collect();
        names.sort();
        for name in names.iter().map(|name| name.to_str().unwrap()) {
            if name == "lock" || name.starts_with("spare-") || name.starts_with("new-") {
                continue;
            }
            let (path, bytes) = (format!("{folder}/{name}"), fs::read(data.join(folder).join(name)).unwrap());
            packed.extend((path.len() as u32).to_be_bytes());
            packed.extend(path.as_bytes());
            packed.extend((bytes.len() as u64).to_be_bytes());
            let is_empty = |piece: &[u8]| piece.iter().all(|byte| *byte == 0);
            let mut at = 0;
            let chunks: Vec<_> = bytes.chunks(64).collect();
            for some in chunks.chunk_by(|one, other| is_empty(one) == is_empty(other)) {
                let piece = some.concat();
                if !is_empty(&piece) {
                    put_piece(&mut packed, at, &piece);
                }
                at += piece.len() as u64;
            }
            put_piece(&mut packed, 0, b"");
        }
    }
    packed
}

fn put_piece(packed: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    packed.extend(at.to_be_bytes());
    packed.extend((bytes.len() as u32).to_be_bytes());
    packed.extend(bytes);
}

fn unpack(mut packed: &[u8], data: &Path) {
    let take = |packed: &mut &[u8], count: usize| -> Vec<u8> { packed.split_off(..count).unwrap().to_vec() };
    let u32_of = |packed: &mut &[u8]| u32::from_be_bytes(take(packed, 4).try_into().unwrap()) as usize;
    let u64_of = |packed: &mut &[u8]| u64::from_be_bytes(take(packed, 8).try_into().unwrap());
    while !packed.is_empty() {
        let length = u32_of(&mut packed);
        let path = data.join(String::from_utf8(take(&mut packed, length)).unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = File::create_new(path).unwrap();
        file.set_len(u64_of(&mut packed)).unwrap();
        loop {
            let (at, length) = (u64_of(&mut packed), u32_of(&mut packed));
            if length == 0 {
                break;
            }
            file.write_all_at(&take(&mut packed, length), at).unwrap();
        }
    }
}
