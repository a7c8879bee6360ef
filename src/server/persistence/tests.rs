//! A broker on a directory with tiny segments, with checkpoints made by hand: what is given up of the
//! log, what is moved, and what a crash in between leaves.

mod holds;

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use tempfile::TempDir;
use tokio::sync::Notify;

use super::{Opened, Watcher, open};
use crate::{
    broker::{
        self,
        consumer::{Held, Settle},
        message::Message,
        queue::{Queue, machine::Got},
        record::{Haste, Position, Record},
        topology::DeclareQueue,
        turn::Turn,
        value::{Table, Value},
        verb::Verb,
    },
    server::{clock, options::Persistence},
    store::{self, Sync, index},
};

mod fair;
mod names;
mod schedules;
mod spill;

const SEGMENT_BYTES: u64 = 64 << 10;
const SLACK_BYTES: u64 = 4 * SEGMENT_BYTES;

pub(super) fn options() -> Persistence {
    let log = store::Options {
        sync: Sync::Os,
        segment_bytes: SEGMENT_BYTES,
        batch_bytes_max: 8 << 10,
        unwritten_bytes_max: 64 << 10,
        free_bytes_min: 0,
        zero_bytes_per_sec: 1 << 40,
        scrub_bytes_per_sec: 0,
        ..store::Options::default()
    };
    Persistence {
        spill: true,
        log,
        index: index::Options { scrub_bytes_per_sec: 0, ..index::Options::default() },
        // By hand only.
        checkpoint_bytes: u64::MAX,
        checkpoint_ms: u64::MAX,
        queue_window_bytes: 8 << 10,
        reclaim_slack_bytes: SLACK_BYTES,
    }
}

/// A broker, and the directory that it lives in.
struct Rig {
    opened: Option<Opened>,
    dir: TempDir,
}

impl Rig {
    fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap())
    }

    fn at(dir: TempDir) -> Self {
        let watcher = Arc::new(Watcher::new(Arc::new(Notify::new())));
        let opened = open(dir.path(), broker::Options::default(), &options(), &watcher).unwrap();
        Self { opened: Some(opened), dir }
    }

    fn opened(&self) -> &Opened {
        self.opened.as_ref().unwrap()
    }

    /// What a crash now would leave, opened.
    fn crash(&self) -> Self {
        self.opened().log.flush().unwrap();
        let dir = tempfile::tempdir().unwrap();
        copy(self.dir.path(), dir.path());
        Self::at(dir)
    }

    fn reopen(mut self) -> Self {
        self.opened.take().unwrap().close();
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        Self::at(dir)
    }

    fn turn(&self) -> Turn<'_> {
        Turn::new(&self.opened().broker, clock::now())
    }

    fn declare(&self, name: &str) {
        let mut arguments = Table::new();
        arguments.push("x-max-priority", Value::I64(2));
        let wanted = DeclareQueue { name, durable: true, arguments, ..DeclareQueue::default() };
        let vhost = self.opened().broker.vhost("/").unwrap();
        vhost.declare_queue(&wanted, None, &mut self.turn()).unwrap();
    }

    fn queue(&self, name: &str) -> Arc<Queue> {
        self.opened().broker.vhost("/").unwrap().queue(name).unwrap()
    }

    fn publish(&self, name: &str, body: &str) {
        let mut message = Message::build("", name.as_bytes(), b"", (0, 0), body.as_bytes());
        message.traits.persistent = true;
        message.traits.priority = body.len() as u8 % 3;
        self.queue(name).publish([message].into_iter(), &mut self.turn(), &mut Vec::new());
    }

    /// Messages of 1 KiB that are published and taken at once.
    fn flow(&self, name: &str, count: usize) {
        for _ in 0..count {
            self.publish(name, &"x".repeat(1024));
            self.get(name, true).unwrap();
        }
    }

    fn get(&self, name: &str, no_ack: bool) -> Option<Got> {
        loop {
            match self.queue(name).get(no_ack, &mut self.turn()) {
                Verb::Done(got) => return got,
                // The threads of the pages answer.
                Verb::Pending(_) => std::thread::yield_now(),
            }
            assert!(!self.queue(name).is_damaged(), "{name} is damaged");
        }
    }

    fn body(&self, name: &str) -> Option<String> {
        Some(String::from_utf8(self.get(name, true)?.message.body_to_vec()).unwrap())
    }

    fn drain(&self, name: &str) -> Vec<String> {
        let mut all: Vec<_> = std::iter::from_fn(|| self.body(name)).collect();
        all.sort();
        all
    }

    fn settle(&self, name: &str, held: Held, how: Settle) {
        self.queue(name).settle(&[held], how, &mut self.turn());
    }

    fn checkpoint(&self) {
        self.opened().checkpointer.make().unwrap();
    }

    /// Checkpoints until one more gives up nothing.
    fn settle_down(&self) {
        for round in 0.. {
            self.checkpoint();
            if !self.opened().checkpointer.with_reclaimer(|reclaimer| reclaimer.wants_checkpoint()) && round > 1 {
                return;
            }
            assert!(round < 100, "what is given up has no end");
        }
    }

    fn file_bytes(&self) -> u64 {
        let log = &self.opened().log;
        let segments = log.segments().iter().map(|segment| segment.file_bytes).sum::<u64>();
        segments + log.cold_files().iter().map(|cold| cold.file_bytes).sum::<u64>()
    }

    fn cold_files(&self) -> usize {
        self.opened().log.cold_files().len()
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&to).unwrap();
            copy(&entry.path(), &to);
        } else if let Err(error) = fs::copy(entry.path(), &to) {
            // A spare segment was renamed meanwhile.
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        }
    }
}

/// One old message in each of some slow queues, and a busy queue that fills many segments: one checkpoint
/// before anything is copied.
fn sparse() -> (Rig, Vec<String>) {
    let rig = Rig::new();
    rig.declare("busy");
    let names: Vec<_> = (0..8).map(|number| format!("slow-{number}")).collect();
    for name in &names {
        rig.declare(name);
        rig.publish(name, &format!("old of {name}"));
        rig.flow("busy", 100);
    }
    rig.checkpoint();
    (rig, names)
}

fn check(rig: &Rig, names: &[String]) {
    for name in names {
        assert_eq!(rig.drain(name), [format!("old of {name}")]);
    }
}

#[test]
fn slow_queues_among_busy_ones_do_not_keep_the_log() {
    let rig = Rig::new();
    let names: Vec<_> = (0..50).map(|number| format!("slow-{number}")).collect();
    names.iter().for_each(|name| rig.declare(name));
    rig.declare("busy");
    let mut expected: BTreeMap<&String, Vec<String>> = BTreeMap::new();
    for round in 0..20 {
        for (number, name) in names.iter().enumerate() {
            let body = format!("{round:02} of {name} {}", "y".repeat(number % 3 + 100));
            rig.publish(name, &body);
            expected.entry(name).or_default().push(body);
            rig.flow("busy", 4);
            if round % 3 == 2 && number % 2 == 0 {
                let gone = rig.body(name).unwrap();
                expected.get_mut(name).unwrap().retain(|body| *body != gone);
            }
        }
        rig.checkpoint();
        rig.checkpoint();
    }
    rig.settle_down();
    let live: u64 = expected.values().flatten().map(|body| body.len() as u64 + 100).sum();
    // A file begins with a block of its own, and each queue may have a few.
    let headers = names.len() as u64 * 4 * 4096;
    let bound = 2 * live + SLACK_BYTES + 2 * SEGMENT_BYTES + headers;
    assert!(bound < 2 << 20, "more than four were published");
    assert!(rig.file_bytes() <= bound, "{} bytes of files, bound {bound}", rig.file_bytes());
    let rig = rig.reopen();
    for (name, mut bodies) in expected {
        bodies.sort();
        assert_eq!(rig.drain(name), bodies);
    }
    rig.settle_down();
    assert_eq!(rig.cold_files(), 0);
}

#[test]
fn a_segment_in_the_middle_goes_though_an_older_one_stays() {
    let (rig, names) = sparse();
    for name in &names[1..] {
        rig.body(name).unwrap();
    }
    rig.opened().checkpointer.with_reclaimer(|reclaimer| reclaimer.set_slack_bytes(u64::MAX / 2));
    rig.settle_down();
    let numbers: Vec<_> = rig.opened().log.segments().iter().map(|segment| segment.number).collect();
    assert_eq!(numbers[0], 1);
    assert!(numbers.len() <= 4, "{numbers:?}");
    check(&rig.crash(), &names[..1]);
    let rig = rig.reopen();
    check(&rig, &names[..1]);
}

#[test]
fn a_message_is_read_where_it_was_moved_to_also_after_a_restart() {
    let (rig, names) = sparse();
    rig.settle_down();
    assert!(rig.cold_files() > 0);
    assert!(rig.file_bytes() <= SLACK_BYTES + 2 * SEGMENT_BYTES, "{}", rig.file_bytes());
    let crashed = rig.crash();
    check(&crashed, &names);
    let rig = rig.reopen();
    check(&rig, &names);
    rig.settle_down();
    assert_eq!(rig.cold_files(), 0);
}

#[test]
fn a_crash_at_any_checkpoint_of_a_move_loses_and_repeats_nothing() {
    let (rig, names) = sparse();
    for _ in 0..6 {
        let crashed = rig.crash();
        crashed.settle_down();
        check(&crashed.crash(), &names);
        check(&crashed, &names);
        crashed.settle_down();
        assert_eq!(crashed.cold_files(), 0);
        rig.checkpoint();
    }
    assert!(rig.cold_files() > 0);
    check(&rig, &names);
}

#[test]
fn a_copy_that_the_index_never_named_is_given_up_after_a_crash() {
    let (rig, names) = sparse();
    while rig.cold_files() == 0 {
        rig.checkpoint();
    }
    let (copies, crashed) = (rig.cold_files(), rig.crash());
    assert_eq!(crashed.cold_files(), copies);
    let unnamed: Vec<_> = crashed.opened().log.cold_files().iter().map(|cold| cold.number).collect();
    crashed.settle_down();
    let left = crashed.opened().log.cold_files();
    assert!(left.iter().all(|cold| !unnamed.contains(&cold.number)), "{left:?}");
    check(&crashed, &names);
}

#[test]
fn a_message_that_left_while_it_was_moved_stays_away() {
    let (rig, names) = sparse();
    while rig.cold_files() == 0 {
        rig.checkpoint();
    }
    // Copied, and the index does not know it.
    rig.body(&names[0]).unwrap();
    rig.queue(&names[1]).purge(&mut rig.turn());
    let held = rig.get(&names[2], false).unwrap().held.unwrap();
    rig.checkpoint();
    rig.settle(&names[2], held, Settle::Accepted);
    for rig in [rig.crash(), rig] {
        rig.settle_down();
        let rig = rig.reopen();
        for name in &names[..3] {
            assert_eq!(rig.drain(name), [""; 0]);
        }
        check(&rig, &names[3..]);
        rig.settle_down();
        assert_eq!(rig.cold_files(), 0);
    }
}

#[test]
fn a_requeued_message_keeps_the_place_that_it_was_moved_to() {
    let (rig, names) = sparse();
    let held: Vec<_> = names.iter().map(|name| rig.get(name, false).unwrap().held.unwrap()).collect();
    rig.settle_down();
    assert!(rig.cold_files() > 0);
    for (name, held) in names.iter().zip(held) {
        rig.settle(name, held, Settle::Requeued);
    }
    rig.settle_down();
    rig.flow("busy", 200);
    rig.settle_down();
    let crashed = rig.crash();
    let got = crashed.get(&names[0], true).unwrap();
    assert!(got.redelivered);
    check(&crashed, &names[1..]);
    check(&rig.reopen(), &names);
}

#[test]
fn a_few_messages_each_of_many_queues_are_moved_into_one_file() {
    let (rig, mut names) = sparse();
    rig.opened().checkpointer.with_reclaimer(|reclaimer| reclaimer.set_slack_bytes(0));
    while rig.cold_files() == 0 {
        rig.checkpoint();
    }
    assert_eq!(rig.cold_files(), 1);
    rig.settle_down();
    let vhost = rig.opened().broker.vhost("/").unwrap();
    for name in names.drain(..3) {
        vhost.delete_queue(&name, false, false, None, &mut rig.turn()).unwrap();
    }
    rig.settle_down();
    let rig = rig.reopen();
    check(&rig, &names);
    rig.settle_down();
    assert_eq!(rig.cold_files(), 0);
}

#[test]
fn a_purge_and_a_deletion_free_the_disk() {
    let rig = Rig::new();
    for name in ["purged", "deleted"] {
        rig.declare(name);
        (0..300).for_each(|_| rig.publish(name, &"z".repeat(1000)));
    }
    rig.checkpoint();
    rig.checkpoint();
    let before = rig.file_bytes();
    assert!(before > 500 << 10);
    rig.queue("purged").purge(&mut rig.turn());
    let vhost = rig.opened().broker.vhost("/").unwrap();
    vhost.delete_queue("deleted", false, false, None, &mut rig.turn()).unwrap();
    for _ in 0..3 {
        rig.checkpoint();
    }
    assert!(rig.file_bytes() <= 2 * SEGMENT_BYTES, "{} bytes of files, before {before}", rig.file_bytes());
    assert_eq!(rig.reopen().drain("purged"), [""; 0]);
}

#[test]
fn a_record_of_several_parts_is_moved_as_a_whole() {
    let rig = Rig::new();
    rig.declare("busy");
    rig.declare("slow");
    let long = "l".repeat(30_000);
    rig.publish("slow", &long);
    rig.publish("slow", "short");
    rig.flow("busy", 800);
    rig.opened().checkpointer.with_reclaimer(|reclaimer| reclaimer.set_slack_bytes(0));
    rig.settle_down();
    assert!(rig.cold_files() > 0);
    let first = rig.opened().log.segments()[0].number;
    assert!(first > 1, "the segment with the parts is gone");
    let rig = rig.reopen();
    assert_eq!(rig.drain("slow"), [long, "short".to_owned()]);
}

#[test]
fn the_parts_of_a_short_body_under_long_properties_are_kept() {
    let rig = Rig::new();
    rig.declare("busy");
    rig.declare("slow");
    let mut message = Message::build("", b"slow", &[b'p'; 30_000], (0, 0), b"short");
    message.traits.persistent = true;
    // The first parts of some lie in a segment where nothing else is alive. Equal distances would fall in
    // step with the segments, and leave each record in one of them.
    for round in 0..12 {
        rig.flow("busy", 65 + 7 * round);
        rig.queue("slow").publish([message.clone()].into_iter(), &mut rig.turn(), &mut Vec::new());
    }
    rig.flow("busy", 200);
    rig.opened().checkpointer.with_reclaimer(|reclaimer| reclaimer.set_slack_bytes(u64::MAX / 4));
    rig.settle_down();
    let kept: Vec<_> = rig.opened().log.segments().iter().map(|segment| segment.number).collect();
    assert!(kept.windows(2).any(|two| two[1] == two[0] + 1), "a record lies in two segments: {kept:?}");
    let rig = rig.reopen();
    assert_eq!(rig.drain("slow"), vec!["short".to_owned(); 12]);
}

#[test]
fn a_record_that_no_cold_file_has_room_for_keeps_its_segments() {
    let rig = Rig::new();
    rig.declare("busy");
    rig.declare("slow");
    let long = "l".repeat(100_000);
    rig.publish("slow", &long);
    rig.flow("busy", 800);
    rig.opened().checkpointer.with_reclaimer(|reclaimer| reclaimer.set_slack_bytes(0));
    rig.settle_down();
    rig.settle_down();
    assert_eq!(rig.opened().log.segments()[0].number, 1);
    let rig = rig.reopen();
    assert_eq!(rig.drain("slow"), [long]);
    rig.settle_down();
    assert_ne!(rig.opened().log.segments()[0].number, 1);
}

#[test]
fn the_meter_tells_what_was_written_and_what_it_takes() {
    let rig = Rig::new();
    rig.declare("busy");
    rig.declare("slow");
    rig.publish("slow", "old");
    let before = rig.opened().meter().read();
    assert_eq!((before.checkpoint_bytes, before.relocated_bytes, before.indexed_count), (0, 0, 0));
    rig.flow("busy", 800);
    rig.opened().log.flush().unwrap();
    let flowed = rig.opened().meter().read();
    assert!((800 << 10..1200 << 10).contains(&(flowed.log_bytes - before.log_bytes)), "{flowed:?}");
    assert!(flowed.segments_count > 10 && flowed.disk_bytes >= rig.file_bytes(), "{flowed:?}");
    rig.opened().checkpointer.with_reclaimer(|reclaimer| reclaimer.set_slack_bytes(0));
    rig.settle_down();
    let settled = rig.opened().meter().read();
    assert!(settled.checkpoint_bytes > 0, "{settled:?}");
    assert_eq!((settled.indexed_count, settled.indexed_bytes), (1, 3));
    // The message, its header and that of its file.
    assert!((3..8 << 10).contains(&settled.relocated_bytes), "{settled:?}");
    assert_eq!((settled.cold_count, settled.segments_count), (1, rig.opened().log.segments().len()));
    let again = rig.reopen().opened().meter().read();
    assert!(again.log_bytes < 8 << 10 && again.relocated_bytes == 0, "{again:?}");
}

#[test]
fn no_checkpoint_begins_between_the_parts_of_a_long_record() {
    let rig = Rig::new();
    let (log, journal) = (&rig.opened().log, rig.opened().broker.journal().unwrap());
    let message = Message::build("", b"q", b"", (0, 0), &[7; 20 << 10]);
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let (chains, boundaries) = std::thread::scope(|scope| {
        let boundaries = scope.spawn(|| {
            let mut boundaries = Vec::new();
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                boundaries.push(journal.pins().boundary(|| journal.end()));
                std::thread::yield_now();
            }
            boundaries
        });
        let write = || {
            let record = Record::Body { targets: 0, message: message.clone() };
            (0..200).map(|_| journal.append(&record, Haste::Due).at).collect::<Vec<_>>()
        };
        let writers: Vec<_> = (0..3).map(|_| scope.spawn(write)).collect();
        let chains: Vec<_> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        (chains, boundaries.join().unwrap())
    });
    log.flush().unwrap();
    let mut buffer = Vec::new();
    for at in chains {
        let chain = log.read(store::Position(at.0), &mut buffer).unwrap();
        let first = super::journal::chain_of(chain.body).unwrap().2.next().unwrap();
        let divides = |boundary: &&Position| first.0 < boundary.0 && boundary.0 <= at.0;
        assert_eq!(boundaries.iter().find(divides), None, "between {} and {}", first.0, at.0);
    }
}
