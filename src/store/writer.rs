//! The writer: takes what gathered, writes it as batches, syncs, moves `flushed`.
//!
//! One thread, started by recovery, ended by [`Shared::close`] after it has written everything, or by
//! the first failed write or sync. It owns the segment that is being written.
//!
//! A batch is one write of whole blocks. It rarely begins at a block, so the first block is written
//! again, with the end of the batch before it: padding instead would cost 4 KiB for each lonely settle.
//! That cannot damage what was synced. The bytes that are written again are the same as those that
//! stand there, so whichever parts of the write reach the disk, sector by sector or byte by byte, they
//! keep their values. (A disk that turns a sector it fails to write into garbage would break that, and
//! every log that appends through the page cache, too.) A batch after the damaged one is impossible:
//! nothing is written before the batch in front of it was synced, or in the same sync.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::disk::{Access, Disk, File};
use super::format::{self, BatchHeader, Position, Purpose, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::gather::{Batch, Buffer, WriterState};
use super::options::Sync;
use super::segments::{Segment, segment_name};
use super::shared::{Shared, is_full};

/// How long a writer without a segment waits before it looks again, should nobody tell it.
const ROOM_RETRY: Duration = Duration::from_millis(100);

/// How long records that nobody waits for may wait for more.
const LINGER: Duration = Duration::from_millis(5);

pub(super) struct Writer {
    shared: Arc<Shared>,
    active: Active,
    /// Taken, not written yet; not empty between steps only while the disk is full.
    backlog: VecDeque<Batch>,
    /// Bytes of the last block that was written, up to the end of its last batch.
    tail: Vec<u8>,
    /// Number of the next batch.
    number: u64,
    /// Checksum of the last batch.
    chain: u32,
    /// Time of the last batch.
    time_ms: u64,
    written: Position,
    /// Everything before this is on stable storage, whatever the option `sync` calls flushed.
    synced: Position,
    /// The last batch had records, so that nothing on the disk says yet that it was synced.
    wants_seal: bool,
}

/// The segment being written.
pub(super) struct Active {
    pub(super) file: Box<dyn File>,
    pub(super) path: PathBuf,
    pub(super) first: Position,
    pub(super) file_bytes: u64,
}

/// Where the last batch ended, for the one after it.
pub(super) struct Resume {
    pub(super) tail: Vec<u8>,
    pub(super) number: u64,
    pub(super) chain: u32,
    pub(super) end: Position,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Batches were flushed.
    Flushed,
    /// Nothing had gathered.
    Idle,
    /// There is no room; the batches are kept.
    Full,
    /// The log has failed.
    Failed,
}

/// Why a batch was not written.
enum Stop {
    Full,
    Failed { path: PathBuf, what: &'static str, error: io::Error },
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, active: Active, resume: Resume) -> Self {
        let time_ms = shared.time_ms.load(Ordering::Relaxed);
        Self {
            shared,
            active,
            backlog: VecDeque::new(),
            tail: resume.tail,
            number: resume.number,
            chain: resume.chain,
            time_ms,
            written: resume.end,
            synced: resume.end,
            // Recovery has synced what it found: say so before anything else is at risk.
            wants_seal: resume.end.0 > 0,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            self.linger();
            match self.step() {
                Step::Flushed => {}
                Step::Failed => return,
                Step::Full => {
                    if self.shared.is_stopping() {
                        let error = io::Error::from(io::ErrorKind::StorageFull);
                        self.shared.fail(&self.active.path, "writing the last records at the end", &error);
                        return;
                    }
                    let mut segments = self.shared.segments.lock();
                    self.shared.room.wait_for(&mut segments, ROOM_RETRY);
                }
                Step::Idle => {
                    if !self.rest() {
                        return;
                    }
                }
            }
        }
    }

    /// Lets more come while nobody waits for what there is: what a client settles it does not ask about, and
    /// hundreds of settles are one write then.
    fn linger(&self) {
        let mut gather = self.shared.gather.lock();
        if gather.is_empty() || !gather.is_patient() {
            return;
        }
        gather.writer = WriterState::Lingering;
        self.shared.work.wait_while_for(
            &mut gather,
            |gather| gather.writer == WriterState::Lingering && gather.is_patient(),
            LINGER,
        );
        gather.writer = WriterState::Busy;
    }

    /// Sleeps until there is work; `false` when there will be none.
    fn rest(&mut self) -> bool {
        let shared = self.shared.clone();
        let mut gather = shared.gather.lock();
        if !gather.is_empty() {
            return true;
        }
        let is_closed = gather.is_closed;
        if !is_closed {
            gather.writer = WriterState::Asleep;
            if self.wants_seal {
                let patience = Duration::from_millis(shared.options.seal_after_ms);
                if !shared.work.wait_for(&mut gather, patience).timed_out() {
                    gather.writer = WriterState::Busy;
                    return true;
                }
                gather.writer = WriterState::Busy;
            } else {
                shared.work.wait(&mut gather);
                gather.writer = WriterState::Busy;
                return true;
            }
        }
        drop(gather);
        let step = self.seal();
        !is_closed && step != Step::Failed
    }

    /// Writes and flushes all that gathered.
    pub(super) fn step(&mut self) -> Step {
        if self.shared.failure().is_some() {
            return Step::Failed;
        }
        if self.backlog.is_empty() {
            self.shared.gather.lock().take(&mut self.backlog);
        }
        if self.backlog.is_empty() { Step::Idle } else { self.write_backlog() }
    }

    /// Notes on the disk that everything was synced, if it is not noted yet. Without it, damage to the
    /// last batch could not be told from a torn write.
    pub(super) fn seal(&mut self) -> Step {
        if !self.wants_seal {
            return Step::Idle;
        }
        let batch = {
            let mut gather = self.shared.gather.lock();
            if !gather.is_empty() {
                return Step::Idle;
            }
            gather.take_empty()
        };
        self.backlog.push_back(batch);
        self.write_backlog()
    }

    fn write_backlog(&mut self) -> Step {
        let mut stop = None;
        while let Some(mut batch) = self.backlog.pop_front() {
            let result = self.write(&mut batch);
            if let Err(reason) = result {
                self.backlog.push_front(batch);
                stop = Some(reason);
                break;
            }
            self.shared.gather.lock().give_back(batch);
        }
        // What was written before the stop counts, unless the stop was a failure.
        let stop = match stop {
            Some(Stop::Failed { .. }) => stop,
            _ => self.sync().err().or(stop),
        };
        match stop {
            None => {
                self.set_stuck(false);
                Step::Flushed
            }
            Some(Stop::Full) => {
                self.set_stuck(true);
                Step::Full
            }
            Some(Stop::Failed { path, what, error }) => {
                self.shared.fail(&path, what, &error);
                Step::Failed
            }
        }
    }

    fn write(&mut self, batch: &mut Batch) -> Result<(), Stop> {
        assert_eq!(batch.first, self.written, "batches follow each other without a gap");
        let skew = batch.first.0 % SEGMENT_HEADER_BYTES as u64;
        let at = format::place_in(self.active.first, batch.first) - skew;
        let is_beyond = at + skew + batch.bytes() as u64 > self.active.file_bytes;
        if is_beyond {
            self.sync()?;
            self.roll(batch)?;
        }
        let at = format::place_in(self.active.first, batch.first) - skew;

        self.time_ms = self.time_ms.max(self.shared.time_ms.load(Ordering::Relaxed));
        let header = BatchHeader {
            bytes: batch.bytes() as u32,
            records: batch.records,
            number: self.number,
            first: batch.first,
            epoch: batch.epoch,
            time_ms: self.time_ms,
            watermark: self.synced,
            chain: self.chain,
        };
        let bytes = batch.complete(&self.tail);
        format::seal_records(bytes, header.first, header.records);
        let chain = header.seal(bytes, self.shared.tag);

        self.active.file.write_all_at(batch.blocks(), at).map_err(|error| {
            if is_full(&error) {
                Stop::Full
            } else {
                Stop::Failed { path: self.active.path.clone(), what: "writing a batch", error }
            }
        })?;
        self.tail.clear();
        self.tail.extend_from_slice(batch.tail());
        self.number += 1;
        self.chain = chain;
        self.written = batch.end();
        self.wants_seal = batch.records > 0;
        if self.active.file.is_synced_by_write() || self.shared.options.sync == Sync::Os {
            self.sync()?;
        }
        Ok(())
    }

    /// Makes what was written count.
    fn sync(&mut self) -> Result<(), Stop> {
        if self.written == self.shared.flushed() {
            return Ok(());
        }
        if self.shared.options.sync == Sync::Always {
            if !self.active.file.is_synced_by_write() {
                self.active.file.sync_data().map_err(|error| Stop::Failed {
                    path: self.active.path.clone(),
                    what: "syncing a batch",
                    error,
                })?;
            }
            self.synced = self.written;
        }
        self.shared.advance(self.written);
        Ok(())
    }

    /// Begins the segment whose first batch this is.
    fn roll(&mut self, batch: &Batch) -> Result<(), Stop> {
        let shared = self.shared.clone();
        let number = shared.segments.lock().live.last().map_or(1, |segment| segment.number + 1);
        let header = SegmentHeader {
            purpose: Purpose::Log,
            store: shared.store,
            number,
            first: batch.first,
            watermark: self.synced,
            chain: self.chain,
            batch: self.number,
            epoch: batch.epoch,
            time_ms: self.time_ms,
            file_bytes: shared.options.segment_bytes,
            cold_reserved: 0,
        };
        let spare = shared.segments.lock().take_spare(&shared.options);
        let active = match spare {
            Some(name) => self.begin(&name, None, &header)?,
            None => match self.begin_new(&header) {
                Err(Stop::Full) => self.begin_reserve(&header)?,
                other => other?,
            },
        };
        shared.chores.notify_one();
        let mut segments = shared.segments.lock();
        if let Some(last) = segments.live.last_mut() {
            last.end = Some(batch.first);
        }
        let (first, file_bytes) = (batch.first, active.file_bytes);
        segments.live.push(Segment { number, first, end: None, is_end_late: false, file_bytes });
        drop(segments);
        self.active = active;
        self.tail.clear();
        Ok(())
    }

    /// The housekeeper was too slow: a file of its own. Its syncs take longer than in a zeroed one, which
    /// also slows down a log that outruns the zeroing.
    fn begin_new(&self, header: &SegmentHeader) -> Result<Active, Stop> {
        let shared = &self.shared;
        let name = shared.segments.lock().new_name();
        if !shared.has_room() {
            self.note_full();
            return Err(Stop::Full);
        }
        let path = shared.path(&name);
        let file_bytes = shared.options.segment_bytes;
        let made = shared.disk.create(&path, access_of(shared.options.sync)).and_then(|file| {
            file.allocate(file_bytes)?;
            Ok(file)
        });
        match made {
            Ok(file) => self.begin(&name, Some(file), header),
            Err(error) if is_full(&error) => {
                // A file that could not be made whole is of no use; if it cannot be removed, either, the
                // next start does it.
                let _ = shared.disk.remove(&path);
                self.note_full();
                Err(Stop::Full)
            }
            Err(error) => Err(Stop::Failed { path, what: "making a segment", error }),
        }
    }

    fn begin_reserve(&self, header: &SegmentHeader) -> Result<Active, Stop> {
        let name = self.shared.segments.lock().take_reserve().ok_or(Stop::Full)?;
        self.shared.is_reserve_in_use.store(true, Ordering::Relaxed);
        self.shared.publish_space();
        self.begin(&name, None, header)
    }

    fn begin(&self, name: &str, file: Option<Box<dyn File>>, header: &SegmentHeader) -> Result<Active, Stop> {
        let shared = &*self.shared;
        let path = shared.path(name);
        begin_segment(&*shared.disk, &shared.dir, name, file, header, shared.options.sync)
            .map_err(|error| Stop::Failed { path, what: "beginning a segment", error })
    }

    fn note_full(&self) {
        self.shared.segments.lock().is_full = true;
        self.shared.publish_space();
    }

    fn set_stuck(&self, is_stuck: bool) {
        let mut segments = self.shared.segments.lock();
        if segments.is_stuck != is_stuck {
            segments.is_stuck = is_stuck;
            drop(segments);
            self.shared.publish_space();
        }
    }
}

pub(super) fn access_of(sync: Sync) -> Access {
    match sync {
        Sync::Always => Access::Direct,
        Sync::Os => Access::Write,
    }
}

/// Makes the file `name` the segment of `header`. The header is durable before the name, and the name
/// before the first batch: a segment without a valid header is damage, never a crash.
pub(super) fn begin_segment(
    disk: &dyn Disk,
    dir: &std::path::Path,
    name: &str,
    file: Option<Box<dyn File>>,
    header: &SegmentHeader,
    sync: Sync,
) -> io::Result<Active> {
    let old = dir.join(name);
    let file = match file {
        Some(file) => file,
        None => disk.open(&old, access_of(sync))?,
    };
    let mut block = Buffer::new(SEGMENT_HEADER_BYTES);
    block.bytes_mut()[..SEGMENT_HEADER_BYTES].copy_from_slice(&header.encode());
    file.write_all_at(&block.bytes()[..SEGMENT_HEADER_BYTES], 0)?;
    // Also with `Sync::Os`, and also for a direct file: its size and extents must last, too.
    file.sync_data()?;
    let path = dir.join(segment_name(header.number));
    disk.rename(&old, &path)?;
    disk.sync_dir(dir)?;
    let file_bytes = file.bytes()?;
    Ok(Active { file, path, first: header.first, file_bytes })
}
