//! What the cold index costs at ten million entries: CPU, bytes written, space, memory, pauses.
//!
//! `cargo bench --bench index` runs every case, each in a process of its own so that peak memory is
//! its own, and prints a table. `-- CASE` runs one; `-- --entries N` scales them (default 10000000).
//! Files are in a temporary folder of `TMPDIR`, which must be on a disk for the figures to mean
//! anything.

#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a measurement reads the clock and prints")]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use ternmq::store::disk::RealDisk;
use ternmq::store::index::{Changes, Index, Key, NewCheckpoint, Options, Rank};

const CASES: &[&str] =
    &["queues-1", "queues-100", "queues-10000", "deadlines", "deadlines-and-numbers", "priorities", "groups", "delete"];
const REOPENED: &[&str] = &["1", "100", "10000"];
const CHECKPOINT_ENTRIES: u64 = 50_000;
const BY_NUMBER: u8 = 0;
const BY_ORDER: u8 = 1;
const PAGE_ENTRIES: usize = 256;

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let mut entries = 10_000_000;
    if let Some(at) = arguments.iter().position(|argument| argument == "--entries") {
        entries = arguments[at + 1].parse().expect("--entries takes a number");
        arguments.drain(at..at + 2);
    }
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => run_all(entries),
        ["fill", queues, folder] => fill_and_wait(entries, queues.parse().expect("a number"), Path::new(folder)),
        ["reopen", queues, folder] => reopen(queues, Path::new(folder)),
        [case] => run_case(case, entries),
        other => panic!("unknown case {other:?}; there are {CASES:?}"),
    }
}

fn run_all(entries: u64) {
    println!(
        "| what | entries | CPU s | us an entry | bytes written an entry | MB on disk | peak RSS MB | checkpoint p50 ms | max ms | runs | wall s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let own = std::env::current_exe().expect("this program has a path");
    let count = entries.to_string();
    for case in CASES {
        let status = Command::new(&own).args([case, "--entries", &count]).status().expect("it can be run again");
        assert!(status.success(), "{case} failed");
    }
    for queues in REOPENED {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().to_str().expect("a plain path");
        let mut filling = Command::new(&own)
            .args(["fill", queues, path, "--entries", &count])
            .stdout(Stdio::piped())
            .spawn()
            .expect("it can be run again");
        let output = filling.stdout.take().expect("asked for above");
        let line = BufReader::new(output).lines().next().expect("it says when it is done").expect("text");
        assert_eq!(line, "filled");
        filling.kill().expect("it waits to be killed");
        filling.wait().expect("it was killed");
        let status = Command::new(&own).args(["reopen", queues, path]).status().expect("it can be run again");
        assert!(status.success());
    }
}

fn run_case(case: &str, entries: u64) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut bench = Bench::open(folder.path());
    let part = entries / 5;
    match case {
        "queues-1" => queues(&mut bench, entries, 1),
        "queues-100" => queues(&mut bench, entries, 100),
        "queues-10000" => queues(&mut bench, entries, 10_000),
        "deadlines" => orders(&mut bench, "random deadlines", part, 3_600_000, false),
        "deadlines-and-numbers" => orders(&mut bench, "random deadlines, and by number", part, 3_600_000, true),
        "priorities" => orders(&mut bench, "10 priorities", part, 10, false),
        "groups" => groups(&mut bench, part, 10_000),
        "delete" => delete(&mut bench, entries / 2),
        _ => panic!("unknown case {case}; there are {CASES:?}"),
    }
}

/// An index being measured.
struct Bench {
    index: Index,
    folder: std::path::PathBuf,
    changes: Changes,
    random: u64,
    position: u64,
    covered: u64,
    commits: Vec<Duration>,
}

/// What a phase began with.
struct Phase {
    cpu: Duration,
    bytes: u64,
    started: Instant,
}

impl Bench {
    fn open(folder: &Path) -> Bench {
        Bench {
            index: Index::open(Arc::new(RealDisk), folder, Options::default()).expect("an empty index"),
            folder: folder.to_owned(),
            changes: Changes::new(),
            random: 1,
            position: 0,
            covered: 0,
            commits: Vec::new(),
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % bound
    }

    /// What a broker would keep of its next message: position, length, flags.
    fn next_value(&mut self) -> [u8; 13] {
        let length = 1024 + self.below(256);
        let mut value = [0; 13];
        value[..8].copy_from_slice(&self.position.to_be_bytes());
        value[8..12].copy_from_slice(&(length as u32).to_be_bytes());
        self.position += length;
        value
    }

    fn commit(&mut self) {
        self.covered += 1;
        let started = Instant::now();
        let new = NewCheckpoint { covered: self.covered, note: b"", attachment: None };
        self.index.commit(&mut self.changes, new).expect("a commit");
        self.commits.push(started.elapsed());
        self.changes.clear();
    }

    fn begin(&mut self) -> Phase {
        self.commits.clear();
        let stats = self.index.stats();
        Phase { cpu: cpu(), bytes: stats.commit_bytes + stats.merge_bytes, started: Instant::now() }
    }

    /// Waits until nothing is left to merge, and prints what the phase cost.
    fn end(&mut self, phase: Phase, name: &str, entries: u64) {
        let wall = phase.started.elapsed();
        while self.index.merge_once().expect("a merge") {}
        let cpu = cpu() - phase.cpu;
        let runs_count = self.index.stats().runs_count;
        let mut commits = std::mem::take(&mut self.commits);
        // What merges made superfluous goes with the second checkpoint from here, by the thread.
        self.commit();
        self.commit();
        std::thread::sleep(Duration::from_millis(200));
        let stats = self.index.stats();
        let bytes = (stats.commit_bytes + stats.merge_bytes - phase.bytes) as f64 / entries as f64;
        commits.sort_unstable();
        let commit = |at: usize| commits.get(at).map_or(0.0, |time| time.as_secs_f64() * 1000.0);
        println!(
            "| {name} | {entries} | {:.2} | {:.3} | {bytes:.1} | {} | {} | {:.1} | {:.1} | {} | {:.1} |",
            cpu.as_secs_f64(),
            cpu.as_secs_f64() * 1e6 / entries as f64,
            megabytes_in(&self.folder),
            peak_megabytes(),
            commit(commits.len() / 2),
            commit(commits.len().saturating_sub(1)),
            runs_count,
            wall.as_secs_f64(),
        );
    }

    /// Takes all of (`tree`, `owner`) from the front in pages; a checkpoint as often as when
    /// they were put.
    fn pop_all(&mut self, tree: u8, owner: u64, popped: &mut u64, mut on_entry: impl FnMut(&mut Changes, Rank, &[u8])) {
        let mut head = Rank::MIN;
        loop {
            let mut scan = self.index.scan(tree, owner, head);
            let mut count = 0;
            while count < PAGE_ENTRIES {
                let Some((rank, value)) = scan.next_entry().expect("readable") else { break };
                head = rank.next().expect("no rank is the highest");
                on_entry(&mut self.changes, rank, value);
                count += 1;
                *popped += 1;
                if popped.is_multiple_of(CHECKPOINT_ENTRIES) {
                    self.changes.advance_head(tree, owner, head);
                    self.commit();
                    break;
                }
            }
            if count == 0 {
                break;
            }
        }
        self.changes.advance_head(tree, owner, head);
    }
}

fn insert(bench: &mut Bench, entries: u64, queues: u64) {
    let mut seqs = vec![0; queues as usize];
    for entry in 1..=entries {
        let owner = bench.below(queues);
        let value = bench.next_value();
        bench.changes.put(Key::new(BY_NUMBER, owner, 0, seqs[owner as usize]), &value);
        seqs[owner as usize] += 1;
        if entry % CHECKPOINT_ENTRIES == 0 {
            bench.commit();
        }
    }
}

fn queues(bench: &mut Bench, entries: u64, queues: u64) {
    let phase = bench.begin();
    insert(bench, entries, queues);
    bench.end(phase, &format!("insert, {queues} queues"), entries);
    let phase = bench.begin();
    let mut popped = 0;
    for owner in 0..queues {
        bench.pop_all(BY_NUMBER, owner, &mut popped, |_, _, _| {});
    }
    bench.commit();
    assert_eq!(popped, entries);
    bench.end(phase, &format!("pop, {queues} queues"), entries);
}

/// Entries by an order that is not that of their numbers.
fn orders(bench: &mut Bench, name: &str, entries: u64, orders: u64, is_by_number_too: bool) {
    let phase = bench.begin();
    for seq in 0..entries {
        // Deadlines move on with time, as those of messages do.
        let now = if orders > 100_000 { seq / 100 } else { 0 };
        let order = now + bench.below(orders);
        let value = bench.next_value();
        bench.changes.put(Key::new(BY_ORDER, 1, order, seq), &value);
        if is_by_number_too {
            bench.changes.put(Key::new(BY_NUMBER, 1, 0, seq), &value);
        }
        if (seq + 1) % CHECKPOINT_ENTRIES == 0 {
            bench.commit();
        }
    }
    bench.end(phase, &format!("insert, {name}"), entries);
    let phase = bench.begin();
    let mut popped = 0;
    bench.pop_all(BY_ORDER, 1, &mut popped, |changes, rank, _| {
        if is_by_number_too {
            changes.delete(Key::new(BY_NUMBER, 1, 0, rank.seq));
        }
    });
    bench.commit();
    assert_eq!(popped, entries);
    bench.end(phase, &format!("pop, {name}"), entries);
}

fn groups(bench: &mut Bench, entries: u64, groups: u64) {
    let hash = |group: u64| group.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let phase = bench.begin();
    for seq in 0..entries {
        let group = bench.below(groups);
        let value = bench.next_value();
        bench.changes.put(Key::new(BY_ORDER, 1, hash(group), seq), &value);
        if (seq + 1) % CHECKPOINT_ENTRIES == 0 {
            bench.commit();
        }
    }
    bench.end(phase, &format!("insert, {groups} groups"), entries);
    let phase = bench.begin();
    let firsts = bench.index.first_by_order(BY_ORDER, 1, 0, usize::MAX).expect("readable");
    assert_eq!(firsts.len() as u64, groups.min(entries));
    bench.end(phase, "first of each group", groups);
    let phase = bench.begin();
    for group in 0..groups {
        let order = hash(group);
        let page = bench.index.page(BY_ORDER, 1, Rank { order, seq: 0 }, 10).expect("readable");
        assert!(page.iter().filter(|entry| entry.rank.order == order).count() > 0);
    }
    bench.end(phase, "a page of 10 of each group", groups);
}

fn delete(bench: &mut Bench, entries: u64) {
    insert(bench, entries, 1);
    bench.changes.put(Key::new(BY_NUMBER, 7, 0, 1), b"another");
    bench.commit();
    while bench.index.merge_once().expect("a merge") {}
    let before = megabytes_in(&bench.folder);
    bench.changes.drop_owner(0);
    let started = Instant::now();
    bench.commit();
    let took = started.elapsed();
    assert!(bench.index.page(BY_NUMBER, 0, Rank::MIN, 1).expect("readable").is_empty());
    bench.commit();
    bench.commit();
    let waiting = Instant::now();
    while megabytes_in(&bench.folder) > 1 && waiting.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(10));
    }
    println!(
        "delete a queue of {entries}: {:.1} ms, {before} MB before, {} MB two checkpoints later",
        took.as_secs_f64() * 1000.0,
        megabytes_in(&bench.folder)
    );
}

fn fill_and_wait(entries: u64, queues: u64, folder: &Path) {
    let mut bench = Bench::open(folder);
    insert(&mut bench, entries, queues);
    println!("filled");
    loop {
        std::thread::park();
    }
}

fn reopen(queues: &str, folder: &Path) {
    let started = Instant::now();
    let options = Options { is_merging_in_background: false, ..Options::default() };
    let index = Index::open(Arc::new(RealDisk), folder, options).expect("a whole index");
    let opened = started.elapsed();
    let first = index.page(BY_NUMBER, 0, Rank::MIN, 1).expect("readable");
    assert_eq!(first.len(), 1);
    let stats = index.stats();
    println!(
        "reopen after SIGKILL, {queues} queues, {} entries in {} runs: open {:.1} ms, first entry {:.1} ms, {} MB resident at most",
        stats.entries_count,
        stats.runs_count,
        opened.as_secs_f64() * 1000.0,
        started.elapsed().as_secs_f64() * 1000.0,
        peak_megabytes()
    );
}

/// CPU time of this process, both user's and system's.
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").expect("there is /proc");
    let behind_name = stat.rsplit(')').next().expect("it has a name in parentheses");
    let ticks: u64 =
        behind_name.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum();
    // USER_HZ is 100 on every Linux.
    Duration::from_millis(ticks * 10)
}

fn peak_megabytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("there is /proc");
    let line = status.lines().find(|line| line.starts_with("VmHWM")).expect("it names the peak");
    let kilobytes: u64 = line.split_whitespace().nth(1).expect("with a number").parse().expect("a number");
    kilobytes / 1024
}

fn megabytes_in(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).expect("the folder is there");
    let bytes: u64 = files.filter_map(|file| file.ok()?.metadata().ok()).map(|metadata| metadata.len()).sum();
    bytes / 1_000_000
}
