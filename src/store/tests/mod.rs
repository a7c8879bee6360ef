//! The whole store on a disk that fails: what was flushed survives, what was not is never served.

mod crash;
mod damage;
mod full;
mod many;
mod ordinary;
mod salvage;
mod survey;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::disk::Disk;
use super::disk::memory::{MemoryDisk, Plan, Random};
use super::housekeeper::Housekeeper;
use super::shared::Shared;
use super::writer::{Step, Writer};
use super::*;

pub(super) const DIR: &str = "/log";

/// Small segments, so that a test crosses many.
pub(super) fn small() -> Options {
    Options {
        segment_bytes: 48 << 10,
        batch_bytes_max: 8 << 10,
        unwritten_bytes_max: 32 << 10,
        spare_segments_min: 1,
        reserve_segments: 1,
        spare_segments_max: 3,
        free_bytes_min: 0,
        zero_bytes_per_sec: u64::MAX,
        scrub_bytes_per_sec: u64::MAX,
        ..Options::default()
    }
}

/// What the owner was told.
#[derive(Default)]
pub(super) struct Told {
    pub(super) flushed: Mutex<Vec<Position>>,
    pub(super) space: Mutex<Vec<Space>>,
    pub(super) failures: Mutex<Vec<Failure>>,
    pub(super) corruptions: Mutex<Vec<Corruption>>,
}

impl Owner for Told {
    fn flushed(&self, to: Position) {
        let mut flushed = self.flushed.lock();
        assert!(flushed.last().is_none_or(|last| *last < to), "flushed moves on only");
        assert!(self.failures.lock().is_empty(), "nothing is flushed after a failure");
        flushed.push(to);
    }

    fn space_changed(&self, space: Space) {
        self.space.lock().push(space);
    }

    fn failed(&self, failure: &Failure) {
        self.failures.lock().push(failure.clone());
    }

    fn corrupted(&self, corruption: &Corruption) {
        self.corruptions.lock().push(corruption.clone());
    }
}

/// A record that a test appended or read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) position: Position,
    pub(super) kind: u8,
    pub(super) body: Vec<u8>,
}

/// A log without threads: the test takes each step.
pub(super) struct Rig {
    pub(super) log: Log,
    pub(super) writer: Writer,
    pub(super) housekeeper: Housekeeper,
    pub(super) told: Arc<Told>,
}

impl Rig {
    pub(super) fn open(disk: &MemoryDisk, options: Options) -> Self {
        Self::open_from(disk, options, Position(0)).unwrap().0
    }

    pub(super) fn open_from(
        disk: &MemoryDisk,
        options: Options,
        from: Position,
    ) -> Result<(Self, Vec<Kept>), OpenError> {
        let (recovered, kept) = replay(disk, options, from)?;
        let told = Arc::new(Told::default());
        let (shared, writer) = recovered.prepare(1, told.clone())?;
        let housekeeper = Housekeeper::new(shared.clone());
        let log = Log::new(shared, Vec::new());
        Ok((Self { log, writer, housekeeper, told }, kept))
    }

    pub(super) fn append(&self, kind: u8, body: &[u8]) -> Kept {
        let appended = self.log.append(Head::new(kind, 0), &[body]).unwrap();
        Kept { position: appended.position, kind, body: body.to_vec() }
    }

    /// Appends a record that is a batch of its own.
    pub(super) fn write(&mut self, kind: u8, body: &[u8]) -> Kept {
        let kept = self.append(kind, body);
        assert_eq!(self.writer.step(), Step::Flushed);
        kept
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.log.shared
    }

    pub(super) fn read(&self, position: Position) -> Result<Kept, ReadError> {
        let mut buffer = Vec::new();
        let record = self.log.read(position, &mut buffer)?;
        Ok(Kept { position, kind: record.head.kind, body: record.body.to_vec() })
    }
}

pub(super) fn replay(disk: &MemoryDisk, options: Options, from: Position) -> Result<(Recovered, Vec<Kept>), OpenError> {
    let mut kept = Vec::new();
    let store = Store::open(Arc::new(disk.clone()), Path::new(DIR), options)?;
    let recovered = store.replay(from, |record, _| {
        kept.push(Kept { position: record.position, kind: record.head.kind, body: record.body.to_vec() });
        Ok::<_, OpenError>(())
    })?;
    Ok((recovered, kept))
}

/// The segments of the log, in order.
pub(super) fn segment_paths(disk: &MemoryDisk) -> Vec<PathBuf> {
    let listed = disk.list(Path::new(DIR)).unwrap();
    let is_segment = |name: &str| matches!(segments::file_kind(name), segments::FileKind::Segment(_));
    listed.into_iter().filter(|file| is_segment(&file.name)).map(|file| Path::new(DIR).join(file.name)).collect()
}

/// Any kind but that of lost records, which nobody writes.
fn kind(number: u64) -> u8 {
    (number % u64::from(crate::store::LOST)) as u8
}

pub(super) fn body(random: &mut Random, bytes_max: u64) -> Vec<u8> {
    let fill = random.next() as u8;
    vec![fill; random.below(bytes_max) as usize]
}
