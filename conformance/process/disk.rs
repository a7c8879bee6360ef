//! Disks that end: one that is full, and one that fails.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use lapin::{
    Confirmation,
    options::{BasicPublishOptions, QueuePurgeOptions},
};
use tempfile::TempDir;
use ternmq::protocol::amqp::codec::method::{AMQPClass, basic, connection};

use crate::{
    app::{App, DURABLE, body, number, persistent},
    broker::Broker,
    client::{Client, Received},
};

/// An ext4 of its own, in a file.
struct FileSystem {
    home: TempDir,
}

const IMAGE_BYTES: u64 = 300 << 20;

impl FileSystem {
    /// Nothing, and a word why, where the machine does not allow it.
    fn mount() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: a file system is mounted by root only");
            return None;
        }
        let home = tempfile::tempdir().unwrap();
        let image = home.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(IMAGE_BYTES).unwrap();
        let dir = home.path().join("mount");
        std::fs::create_dir(&dir).unwrap();
        let commands = [
            Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image).output(),
            Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&dir).output(),
        ];
        for output in commands {
            if !output.as_ref().is_ok_and(|output| output.status.success()) {
                eprintln!("skipped: no file system can be mounted: {output:?}");
                return None;
            }
        }
        Some(Self { home })
    }

    fn dir(&self) -> PathBuf {
        self.home.path().join("mount")
    }

    /// A broker on it that makes checkpoints so often, or after 1 MiB.
    fn broker(&self, checkpoint_ms: u32) -> Broker {
        let checkpoint_ms = format!("store.checkpoint_ms={checkpoint_ms}");
        let settings = [
            "store.segment_bytes=8MiB",
            "store.batch_bytes_max=512KiB",
            "store.unwritten_bytes_max=4MiB",
            "store.zero_bytes_per_sec=1GiB",
            "store.free_bytes_min=32MiB",
            "store.spare_segments_max=4",
            "store.checkpoint_bytes=1MiB",
            &checkpoint_ms,
            "store.queue_window_bytes=1MiB",
            "broker.disk_free_limit=1MB",
        ];
        Broker::on(TempDir::new_in(self.dir()).unwrap(), &settings, &[])
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        // What could not be unmounted stays where the operator sees it.
        let _ = Command::new("umount").arg(self.dir()).output();
    }
}

const LONG_BYTES: usize = 64 << 10;

fn long(number: u32) -> Vec<u8> {
    let mut body = vec![number as u8; LONG_BYTES];
    body[..4].copy_from_slice(&number.to_be_bytes());
    body
}

/// A persistent message for the queue `q`.
fn publish(client: &mut Client, at: u32) {
    client.publish_with("q", &long(at), PERSISTENT);
}

/// Properties with nothing but delivery mode 2.
const PERSISTENT: &[u8] = &[0x10, 0x00, 2];

#[derive(Debug, PartialEq)]
enum Told {
    Confirmed(u64),
    Blocked(String),
    Unblocked,
}

fn told(client: &mut Client) -> Told {
    loop {
        match client.receive() {
            Received::Method(_, AMQPClass::Basic(basic::AMQPMethod::Ack(ack))) => {
                return Told::Confirmed(ack.delivery_tag);
            }
            Received::Method(0, AMQPClass::Connection(connection::AMQPMethod::Blocked(blocked))) => {
                return Told::Blocked(blocked.reason.to_string());
            }
            Received::Method(0, AMQPClass::Connection(connection::AMQPMethod::Unblocked(_))) => return Told::Unblocked,
            Received::End => panic!("the connection was closed"),
            _ => {}
        }
    }
}

/// Publishes until the disk is full; how many were confirmed, while one more may be on its way.
fn fill(publisher: &mut Client) -> u32 {
    let mut sent = 0;
    loop {
        publish(publisher, sent);
        sent += 1;
        match told(publisher) {
            Told::Confirmed(tag) => assert_eq!(tag, u64::from(sent)),
            Told::Blocked(reason) => {
                assert_eq!(reason, "low on disk");
                return sent - 1;
            }
            Told::Unblocked => panic!("it was not blocked"),
        }
        assert!(u64::from(sent) * (LONG_BYTES as u64) < IMAGE_BYTES, "the disk is never full");
    }
}

/// Waits until a publisher is unblocked and the message that was on its way is confirmed.
fn await_room(publisher: &mut Client, confirmed: u32) {
    let mut is_unblocked = false;
    let mut is_confirmed = false;
    while !(is_unblocked && is_confirmed) {
        match told(publisher) {
            Told::Unblocked => is_unblocked = true,
            Told::Confirmed(tag) => is_confirmed = tag == u64::from(confirmed) + 1,
            // It may be short again for a moment.
            Told::Blocked(_) => is_unblocked = false,
        }
    }
}

fn publisher(broker: &Broker) -> Client {
    let mut publisher = broker.channel();
    publisher.select_confirms();
    publisher
}

#[test]
fn a_full_disk_blocks_publishers_until_consumers_have_drained_it() {
    let Some(system) = FileSystem::mount() else { return };
    let mut broker = system.broker(100);
    let app = App::on(&broker);
    app.declare("q", DURABLE, &[]);
    let mut publisher = publisher(&broker);
    let confirmed = fill(&mut publisher);
    assert!(confirmed > 1000, "{confirmed} messages fill it");
    let drained: Vec<_> = app.drain("q").into_iter().map(|delivery| delivery.data).collect();
    assert!(drained.len() >= confirmed as usize, "{} of {confirmed}", drained.len());
    assert!(drained.iter().zip(0..).all(|(data, at)| *data == long(at)), "all of it, in order");
    await_room(&mut publisher, confirmed);
    let rest = app.drain("q").len();
    assert_eq!(drained.len() + rest, confirmed as usize + 1, "and the one that was on its way");
    for at in 0..10 {
        publish(&mut publisher, at);
        publisher.await_confirm(u64::from(confirmed + 2 + at));
    }
    broker.kill();
    app.forget();
    broker.start_again();
    let found: Vec<_> = App::on(&broker).drain("q").into_iter().map(|delivery| delivery.data).collect();
    assert_eq!(found, (0..10).map(long).collect::<Vec<_>>());
}

#[test]
fn a_full_disk_that_is_purged_has_room_again_though_nothing_else_happens() {
    let Some(system) = FileSystem::mount() else { return };
    // Time enough between checkpoints for the log to come to rest.
    let broker = system.broker(3000);
    let app = App::on(&broker);
    app.declare("q", DURABLE, &[]);
    let mut publisher = publisher(&broker);
    let confirmed = fill(&mut publisher);
    app.wait(app.channel.queue_purge("q".into(), QueuePurgeOptions::default())).unwrap();
    await_room(&mut publisher, confirmed);
}

#[test]
fn what_a_full_disk_confirmed_survives_a_kill() {
    let Some(system) = FileSystem::mount() else { return };
    let mut broker = system.broker(100);
    let app = App::on(&broker);
    app.declare("q", DURABLE, &[]);
    let confirmed = fill(&mut publisher(&broker));
    broker.kill();
    app.forget();
    broker.start_again();
    let found: Vec<_> = App::on(&broker).drain("q").into_iter().map(|delivery| delivery.data).collect();
    assert!(found.len() >= confirmed as usize, "{} of {confirmed}", found.len());
    assert!(found.iter().zip(0..).all(|(data, at)| *data == long(at)), "in order");
}

/// The library that has writes or syncs fail; nothing, and a word why, without a compiler.
fn fault_library(dir: &Path) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/process/fault/sync.c");
    let library = dir.join("fault.so");
    let output = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).output();
    if output.as_ref().is_ok_and(|output| output.status.success()) {
        return Some(library);
    }
    eprintln!("skipped: no C compiler: {output:?}");
    None
}

/// After an error of `what` nothing is confirmed, the process ends and says why, and what was confirmed
/// before is there.
fn fails_for_good(what: &str) {
    let dir = tempfile::tempdir().unwrap();
    let Some(library) = fault_library(dir.path()) else { return };
    let switch = dir.path().join("switch");
    let variables =
        [("LD_PRELOAD", library.to_str().unwrap()), ("FAULT_WHAT", what), ("FAULT_SWITCH", switch.to_str().unwrap())];
    let mut broker = Broker::with_environment(&["store.segment_bytes=32MiB"], &variables);
    let app = App::on(&broker);
    app.declare("q", DURABLE, &[]);
    app.publish_numbers("q", 0..10);
    std::fs::write(&switch, "").unwrap();
    let confirmed = app.wait(async {
        let options = BasicPublishOptions::default();
        let sent = app.channel.basic_publish("".into(), "q".into(), options, &body(10), persistent()).await;
        sent.unwrap().await
    });
    assert!(!matches!(confirmed, Ok(Confirmation::Ack(_))), "{confirmed:?}");
    assert_eq!(broker.wait().code(), Some(1));
    let said = broker.await_log("the disk has failed: nothing more is confirmed");
    assert!(said.contains(".seg") && said.contains("os error 5"), "{said}");
    broker.await_log("tern: ");
    app.forget();
    broker.start_again();
    let found: Vec<_> = App::on(&broker).drain("q").iter().map(|delivery| number(&delivery.data)).collect();
    assert!(found == (0..10).collect::<Vec<_>>() || found == (0..11).collect::<Vec<_>>(), "{found:?}");
}

#[test]
fn a_failed_write_ends_confirms_and_the_process() {
    fails_for_good("write");
}

#[test]
fn a_failed_sync_ends_confirms_and_the_process() {
    fails_for_good("sync");
}
