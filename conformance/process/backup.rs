//! `tern store backup`: a copy of a data directory on which a broker runs, and of one on which none does.

use std::{
    path::Path,
    process::{Command, Output},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
};

use tempfile::TempDir;

use crate::{
    app::{App, DURABLE, body, number, persistent},
    broker::Broker,
};

/// Everything that can be small is, so that the copy has segments that were used again, runs and merges.
const SETTINGS: &[&str] = &[
    "store.segment_bytes=4MiB",
    "store.batch_bytes_max=512KiB",
    "store.unwritten_bytes_max=1MiB",
    "store.checkpoint_bytes=64KiB",
    "store.checkpoint_ms=50",
    "store.queue_window_bytes=64KiB",
];

fn backup(from: &Path, to: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tern"));
    command.args(["store", "backup"]).arg(from).arg("--to").arg(to).output().unwrap()
}

/// A place for the data directory of a second broker, and what starts it.
fn target() -> (TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    (dir, data)
}

fn numbers(broker: &Broker, queue: &str) -> Vec<u32> {
    App::on(broker).drain(queue).iter().map(|delivery| number(&delivery.data)).collect()
}

#[test]
fn a_backup_under_load_has_all_that_was_confirmed_before_it_began() {
    let broker = Broker::with(SETTINGS);
    let app = App::on(&broker);
    for queue in ["kept", "flow", "cold"] {
        app.declare(queue, DURABLE, &[]);
    }
    app.publish_numbers("cold", 0..500);
    let confirmed = AtomicU32::new(0);
    let is_over = AtomicBool::new(false);
    for _ in 0..3 {
        let (dir, data) = target();
        is_over.store(false, Ordering::Relaxed);
        let before = thread::scope(|scope| {
            let loads = App::on(&broker);
            let (confirmed, is_over) = (&confirmed, &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let at = confirmed.load(Ordering::Relaxed);
                    loads.publish_to("", "kept", &body(at), persistent());
                    confirmed.store(at + 1, Ordering::Relaxed);
                    // Segments are released and used again all the while.
                    loads.publish_numbers("flow", 0..20);
                    loads.drain("flow");
                }
            });
            let begun = confirmed.load(Ordering::Relaxed);
            while confirmed.load(Ordering::Relaxed) < begun + 20 {
                thread::yield_now();
            }
            let before = confirmed.load(Ordering::Relaxed);
            let output = backup(&broker.data(), &data);
            is_over.store(true, Ordering::Relaxed);
            assert!(output.status.success(), "{output:?}");
            before
        });
        let copy = Broker::on(dir, SETTINGS, &[]);
        let found = numbers(&copy, "kept");
        assert!(found.len() >= before as usize, "{} of {before}", found.len());
        assert_eq!(found, (0..found.len() as u32).collect::<Vec<_>>(), "in order, once");
        assert_eq!(numbers(&copy, "cold"), (0..500).collect::<Vec<_>>());
    }
    assert_eq!(numbers(&broker, "kept").len(), confirmed.into_inner() as usize, "the original lacks nothing");
}

#[test]
fn a_backup_without_a_broker_is_the_same() {
    let mut broker = Broker::with(SETTINGS);
    let app = App::on(&broker);
    app.declare("q", DURABLE, &[]);
    app.publish_numbers("q", 0..200);
    broker.kill();
    app.forget();
    let (dir, data) = target();
    let output = backup(&broker.data(), &data);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(numbers(&Broker::on(dir, SETTINGS, &[]), "q"), (0..200).collect::<Vec<_>>());
    broker.start_again();
    assert_eq!(numbers(&broker, "q"), (0..200).collect::<Vec<_>>());
}

#[test]
fn a_backup_goes_to_an_empty_directory_only() {
    let broker = Broker::with(SETTINGS);
    let (dir, _) = target();
    std::fs::write(dir.path().join("mine"), "").unwrap();
    let output = backup(&broker.data(), dir.path());
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not empty"), "{output:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}
