//! A data directory of format version 1, what is in it, and that it is opened.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use ternmq::store::disk::RealDisk;
use ternmq::store::index::{self, Changes, Index, Key, NewCheckpoint, Rank};
use ternmq::store::{Corruption, Failure, Head, Log, OpenError, Options, Owner, Position, Space, Store};

/// Records of the log.
const RECORDS: u64 = 120;
/// Where the log is replayed from: the checkpoint covers this many records.
const COVERED: u64 = 40;
/// Queues in the index, each with entries for three commits.
const OWNERS: u64 = 3;
const ENTRIES: u64 = 50;
/// Whose cold file there is.
const COLD_OWNER: u64 = 2;

/// The fixture in the tree.
fn original() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/store/v1")
}

/// A copy of the fixture.
pub(crate) fn copy() -> (TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("data");
    for folder in ["log", "index"] {
        fs::create_dir_all(data.join(folder)).unwrap();
        for file in fs::read_dir(original().join(folder)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), data.join(folder).join(file.file_name())).unwrap();
        }
    }
    (temp, data)
}

/// Small files, as the fixture's are.
pub(crate) fn options() -> Options {
    Options {
        segment_bytes: 16 << 10,
        batch_bytes_max: 1 << 10,
        unwritten_bytes_max: 8 << 10,
        spare_segments_min: 0,
        reserve_segments: 1,
        spare_segments_max: 1,
        free_bytes_min: 0,
        ..Options::default()
    }
}

pub(crate) fn index_options() -> index::Options {
    index::Options { is_merging_in_background: false, ..index::Options::default() }
}

/// Kind, version and body of a record of the fixture.
fn record(number: u64) -> (Head, Vec<u8>) {
    let body = (0..number * 37 % 900).map(|at| (at * 31 + number * 7) as u8).collect();
    let head = if number.is_multiple_of(5) {
        Head { kind: 200, version: 3, flags: 0 }
    } else {
        Head::new((number % 21) as u8 + 1, 1)
    };
    (head, body)
}

/// Entries of the index after all commits: queue 1 has a head, queue 3 was dropped in the last but one.
fn entries(owner: u64) -> Vec<(u64, u64, Vec<u8>)> {
    let of_commit = |commit: u64| {
        (0..ENTRIES).map(move |at| {
            let (order, seq) = (at % 4, commit * ENTRIES + at);
            (order, seq, vec![(owner * 16 + commit) as u8; (seq % 9) as usize + 1])
        })
    };
    let mut entries: Vec<_> = match owner {
        1 => (0..3).flat_map(of_commit).filter(|(order, seq, _)| (*order, *seq) >= (1, 0)).collect(),
        2 => (0..3).flat_map(of_commit).filter(|(_, seq, _)| seq % 10 != 3).collect(),
        _ => of_commit(2).collect(),
    };
    entries.sort();
    entries
}

pub(crate) struct Silent;

impl Owner for Silent {
    fn flushed(&self, _: Position) {}
    fn space_changed(&self, _: Space) {}
    fn failed(&self, failure: &Failure) {
        panic!("{failure}");
    }
    fn corrupted(&self, corruption: &Corruption) {
        panic!("{corruption}");
    }
}

fn open_index(data: &Path) -> Index {
    Index::open(Arc::new(RealDisk), &data.join("index"), index_options()).unwrap()
}

/// Head and body of every record from a position on, with its position.
type Replayed = Vec<(Position, Head, Vec<u8>)>;

pub(crate) fn start(data: &Path, from: Position) -> Result<(Log, Replayed), OpenError> {
    let mut records = Vec::new();
    let store = Store::open(Arc::new(RealDisk), &data.join("log"), options())?;
    let recovered = store.replay(from, |record, batch| {
        assert_eq!((batch.epoch, batch.time_ms), (4, 1_750_000_000_000));
        records.push((record.position, record.head, record.body.to_vec()));
        Ok::<_, OpenError>(())
    })?;
    Ok((recovered.start(4, Arc::new(Silent))?, records))
}

#[test]
fn a_data_directory_of_format_1_is_read_as_it_was_written() {
    let (_temp, data) = copy();
    let index = open_index(&data);
    let recovery = index.recovery();
    assert!(!recovery.is_new && recovery.discarded.is_empty() && recovery.lost_checkpoint.is_none(), "{recovery:?}");
    let checkpoint = index.checkpoint().unwrap();
    assert_eq!((checkpoint.number, checkpoint.note.as_slice()), (3, &b"third"[..]));
    assert!(checkpoint.previous_covered.is_some_and(|before| before < checkpoint.covered));
    assert_eq!(index.attachment().unwrap().unwrap(), b"attached to the second");
    for owner in 1..=OWNERS {
        let scan = index.scan(0, owner, Rank::MIN);
        let found: Vec<_> = scan
            .map(|entry| entry.unwrap())
            .map(|one| (one.rank.order, one.rank.seq, one.value.as_bytes().to_vec()))
            .collect();
        assert_eq!(found, entries(owner), "queue {owner}");
    }

    let (log, records) = start(&data, Position(0)).unwrap();
    let wanted: Vec<_> = (0..RECORDS).map(record).collect();
    assert_eq!(records.iter().map(|(_, head, body)| (*head, body.clone())).collect::<Vec<_>>(), wanted);
    assert_eq!(records[COVERED as usize].0, Position(checkpoint.covered));
    assert!(log.segments().len() > 2);
    let mut buffer = Vec::new();
    for (position, head, body) in &records {
        let read = log.read(*position, &mut buffer).unwrap();
        assert_eq!((read.head, read.body), (*head, body.as_slice()));
    }
    let [cold] = log.cold_files()[..] else { panic!("{:?}", log.cold_files()) };
    assert_eq!((cold.number, cold.owner), (1, COLD_OWNER));
    for (at, number) in [(4096, 1), (4096 + 12 + 37, 2)] {
        let read = log.read(Position(1 << 63 | 1 << 32 | at), &mut buffer).unwrap();
        assert_eq!((read.head, read.body), (record(number).0, record(number).1.as_slice()));
    }

    // From the checkpoint on, and with something more, by this version.
    log.append(Head::new(1, 1), &[b"more"]).unwrap();
    log.close();
    drop(log);
    let (_log, records) = start(&data, Position(checkpoint.covered)).unwrap();
    assert_eq!(records.len() as u64, RECORDS - COVERED + 1);
    assert_eq!(records.last().unwrap().2, b"more");
}

#[test]
fn a_newer_format_is_refused_by_the_name_of_the_file() {
    let first = |data: &Path, folder: &str, prefix: &str| {
        let files = fs::read_dir(data.join(folder)).unwrap().map(|file| file.unwrap().path());
        let mut files: Vec<_> =
            files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix)).collect();
        files.sort();
        files.swap_remove(0)
    };
    for prefix in ["0000", "cold-"] {
        let (_temp, data) = copy();
        let path = first(&data, "log", prefix);
        let mut bytes = fs::read(&path).unwrap();
        bytes[8] = 2;
        fs::write(&path, bytes).unwrap();
        let refused = start(&data, Position(0)).err().unwrap().to_string();
        assert!(refused.contains(path.to_str().unwrap()), "{refused}");
        assert!(refused.contains("format version 2") && refused.contains("newer Tern"), "{refused}");
    }
    // The index: magic, format, and the checksum of the header behind it.
    let (_temp, data) = copy();
    let path = first(&data, "index", "manifest-");
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 2;
    let sum = crc_fast::crc32_iscsi(&bytes[..28]);
    bytes[28..32].copy_from_slice(&sum.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let refused = Index::open(Arc::new(RealDisk), &data.join("index"), index_options()).err().unwrap().to_string();
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(refused.contains(name) && refused.contains("format 2") && refused.contains("later version"), "{refused}");
}

#[test]
#[ignore = "writes the fixture; a released one is never written again"]
fn write_the_fixture() {
    let data = original();
    let _ = fs::remove_dir_all(&data);
    let store = Store::open(Arc::new(RealDisk), &data.join("log"), options()).unwrap();
    let recovered = store.replay(Position(0), |_, _| Ok::<_, OpenError>(())).unwrap();
    let log = recovered.start(4, Arc::new(Silent)).unwrap();
    log.set_time(1_750_000_000_000);
    let mut positions = Vec::new();
    for number in 0..RECORDS {
        let (head, body) = record(number);
        positions.push(log.append(head, &[&body]).unwrap().position.0);
        // Batches of one record and of several.
        if number % 3 == 0 {
            log.flush().unwrap();
        }
    }
    log.flush().unwrap();
    let mut cold = log.cold_writer(COLD_OWNER).unwrap();
    for number in 1..=2 {
        let (head, body) = record(number);
        cold.append(head, &body).unwrap().unwrap();
    }
    cold.finish().unwrap();
    log.close();
    drop(log);

    let index = open_index(&data);
    let commits =
        [(10, &b"first"[..], None), (20, b"second", Some(&b"attached to the second"[..])), (COVERED, b"third", None)];
    for (commit, (covered, note, attachment)) in commits.into_iter().enumerate() {
        let commit = commit as u64;
        let mut changes = Changes::default();
        for owner in 1..=OWNERS {
            for at in 0..ENTRIES {
                let seq = commit * ENTRIES + at;
                let key = Key { tree: 0, owner, order: at % 4, seq };
                changes.put(key, &vec![(owner * 16 + commit) as u8; (seq % 9) as usize + 1]);
            }
        }
        if commit == 1 {
            changes.drop_owner(3);
        }
        if commit == 2 {
            changes.advance_head(0, 1, Rank { order: 1, seq: 0 });
            for seq in (0..3 * ENTRIES).filter(|seq| seq % 10 == 3) {
                changes.delete(Key { tree: 0, owner: 2, order: seq % ENTRIES % 4, seq });
            }
        }
        let covered = positions[covered as usize];
        index.commit(&mut changes, NewCheckpoint { covered, note, attachment }).unwrap();
    }
    drop(index);
    for file in fs::read_dir(data.join("log")).unwrap() {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        if name == "lock" || name.starts_with("spare-") || name.starts_with("new-") {
            fs::remove_file(file.path()).unwrap();
        }
    }
}
