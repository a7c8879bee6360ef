//! A data directory that is not as it was left: what a start says of it, and that it leaves it as it is.

use std::{
    collections::BTreeMap,
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use crate::{
    app::{App, DURABLE, body, number},
    broker::{Broker, Refused, until},
};

/// Files small enough to be compared.
const SETTINGS: &[&str] =
    &["store.segment_bytes=4MiB", "store.batch_bytes_max=512KiB", "store.unwritten_bytes_max=1MiB"];
const COUNT: u32 = 50;

/// Bytes of a segment before its first batch.
const HEADER_BYTES: usize = 4096;

/// A broker that was killed after it had confirmed [`COUNT`] messages, none of them in a checkpoint.
fn killed() -> Broker {
    let mut broker = Broker::with(SETTINGS);
    let app = App::on(&broker);
    app.declare("q", DURABLE, &[]);
    for at in 0..COUNT {
        // One by one, so that each is a batch of its own, and says that those before it were synced.
        app.publish("q", &body(at));
    }
    broker.kill();
    app.forget();
    broker
}

/// Every file of a folder and of those in it, with its contents.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else if path.is_file() {
            files.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    files
}

/// The only segment of the log.
fn segment(broker: &Broker) -> PathBuf {
    broker.data().join("log").join("0000000000000001.seg")
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    File::options().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

/// Where a message's body is in a file.
fn find(path: &Path, body: &[u8]) -> usize {
    let bytes = std::fs::read(path).unwrap();
    bytes.windows(body.len()).position(|window| window == body).unwrap()
}

/// A start that is refused, and that has changed nothing in log and index.
fn refused(broker: &Broker) -> Refused {
    let folders = ["log", "index"].map(|folder| broker.data().join(folder));
    let look = || folders.iter().filter(|folder| folder.exists()).map(|folder| contents(folder)).collect::<Vec<_>>();
    let before = look();
    let refused = broker.start_again_refused();
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
    assert!(look() == before, "a refused start changes nothing");
    refused
}

#[track_caller]
fn says(refused: &Refused, texts: &[&str]) {
    for text in texts {
        assert!(refused.stderr.contains(text), "no {text:?} in {}", refused.stderr);
    }
}

fn bodies(broker: &Broker) -> Vec<u32> {
    App::on(broker).drain("q").iter().map(|delivery| number(&delivery.data)).collect()
}

#[test]
fn a_changed_byte_in_the_middle_is_refused_with_its_place_and_advice() {
    let broker = killed();
    let file = segment(&broker);
    let at = find(&file, &body(COUNT / 2)) as u64 + 2000;
    overwrite(&file, at, &[0xFF]);
    let refused = refused(&broker);
    let name = file.display().to_string();
    says(&refused, &["corruption in", &name, "segment 1", "at position", "backup", "tern store salvage"]);
}

#[test]
fn what_was_put_right_starts() {
    let mut broker = killed();
    let file = segment(&broker);
    let at = find(&file, &body(COUNT / 2)) as u64;
    overwrite(&file, at, b"not what was written");
    refused(&broker);
    overwrite(&file, at, &body(COUNT / 2)[..20]);
    broker.start_again();
    assert_eq!(bodies(&broker), (0..COUNT).collect::<Vec<_>>());
}

#[test]
fn a_missing_segment_is_refused_by_position() {
    let broker = killed();
    std::fs::remove_file(segment(&broker)).unwrap();
    says(&refused(&broker), &["position", "missing"]);
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let broker = killed();
    let file = segment(&broker);
    let mut header = std::fs::read(&file).unwrap()[..128].to_vec();
    header[8..12].copy_from_slice(&7_u32.to_le_bytes());
    header[12..16].fill(0);
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &header) as u32;
    header[12..16].copy_from_slice(&crc.to_le_bytes());
    overwrite(&file, 0, &header);
    says(&refused(&broker), &[&file.display().to_string(), "format version 7", "newer Tern"]);
}

#[test]
fn a_data_directory_in_use_is_refused() {
    let broker = Broker::with(SETTINGS);
    App::on(&broker).declare("q", DURABLE, &[]);
    let refused = broker.start_again_refused();
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
    says(&refused, &["another tern runs on this data directory", &broker.data().display().to_string()]);
    let app = App::on(&broker);
    app.publish("q", &body(0));
    assert_eq!(number(&app.expect("q").data), 0, "the first one is unharmed");
}

#[test]
fn a_torn_tail_is_cut_off() {
    let mut broker = killed();
    let file = segment(&broker);
    let bytes = std::fs::read(&file).unwrap();
    let length = |at: usize| u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
    let (mut last, mut end) = (0, HEADER_BYTES);
    while bytes[end..].starts_with(b"TrnB") {
        (last, end) = (end, end + length(end));
    }
    // The header of one more batch as it should be, and of its records some: what a cut write leaves.
    let mut torn = bytes[last..last + 64].to_vec();
    torn[8..12].copy_from_slice(&4096_u32.to_le_bytes());
    torn[24..32].copy_from_slice(&((end - HEADER_BYTES) as u64).to_le_bytes());
    torn.extend([0x5A; 500]);
    overwrite(&file, end as u64, &torn);
    broker.start_again();
    broker.await_log("ends in a batch that was not written whole");
    assert_eq!(bodies(&broker), (0..COUNT).collect::<Vec<_>>());
    let app = App::on(&broker);
    app.publish("q", &body(COUNT));
    broker.kill();
    app.forget();
    broker.start_again();
    assert_eq!(bodies(&broker).last(), Some(&COUNT), "the log goes on behind the cut");
}

#[test]
fn a_lost_index_costs_nothing_while_the_log_is_whole() {
    let mut broker = killed();
    // The last checkpoint of an orderly end covers everything.
    broker.start_again();
    broker.terminate();
    assert_eq!(broker.wait().code(), Some(0));
    std::fs::remove_dir_all(broker.data().join("index")).unwrap();
    broker.start_again();
    assert_eq!(bodies(&broker), (0..COUNT).collect::<Vec<_>>());
}

#[test]
fn a_lost_index_is_refused_when_the_log_was_released() {
    let settings = [SETTINGS, &["store.checkpoint_bytes=64KiB", "store.checkpoint_ms=50"]].concat();
    let mut broker = Broker::with(&settings);
    let app = App::on(&broker);
    app.declare("q", DURABLE, &[]);
    let first = segment(&broker);
    until("the first segment is released", || {
        app.publish_numbers("q", 0..COUNT);
        app.drain("q");
        !first.exists()
    });
    app.publish("q", &body(7));
    broker.kill();
    app.forget();
    let (index, aside) = (broker.data().join("index"), broker.data().join("aside"));
    std::fs::rename(&index, &aside).unwrap();
    let index_name = index.display().to_string();
    says(&refused(&broker), &["the index", &index_name, "missing", "backup", "tern store salvage"]);
    assert!(!index.exists(), "no empty one is begun in its place");
    std::fs::rename(&aside, &index).unwrap();
    broker.start_again();
    assert_eq!(bodies(&broker), [7]);
}

#[test]
fn a_damaged_manifest_of_the_index_is_refused_by_file() {
    let mut broker = killed();
    broker.start_again();
    broker.terminate();
    assert_eq!(broker.wait().code(), Some(0));
    for (file, bytes) in contents(&broker.data().join("index")) {
        if file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("manifest-")) {
            overwrite(&file, 0, &vec![0xAA; bytes.len()]);
        }
    }
    says(&refused(&broker), &["index file manifest-", "damaged", "backup"]);
}
