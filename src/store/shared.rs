//! What the log's threads and its users share.
//!
//! Lock order: `gather`, then `segments`; `files` is taken alone, `waiting` before `stopping`. None is held across a
//! file operation or a call of the owner, but `cold_reserved`, which only writers of cold files take. (`space_notice` only orders the calls of the owner.)

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::disk::{Access, Disk, File};
use super::error::{Failure, Refused};
use super::format::{Head, Position, RECORD_HEADER_BYTES, RECORD_OVERHEAD_BYTES, StoreId};
use super::gather::Gather;
use super::log::{Admission, Appended, Figures, Owner, Space};
use super::options::Options;
use super::segments::{Segment, Segments, segment_name};

/// What becomes of a record while the disk is behind, and when it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// It is refused; written at once.
    Ordinary,
    /// It is taken; written at once.
    Essential,
    /// It is taken; written some moments later, with what else comes, unless somebody waits for it.
    Patient,
}

/// An open file: the first position in it, and how it is read.
type FileKey = (Position, Access);

/// Open files of cold segments. Beyond it the least recently opened is closed.
const OPEN_FILES_MAX: usize = 64;
/// Appending is refused at this many times the bound at which admission says `Busy`: what had been
/// admitted before must fit.
const UNWRITTEN_GRACE: u64 = 4;

pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) store: StoreId,
    pub(super) tag: u32,
    pub(super) owner: Arc<dyn Owner>,

    pub(super) gather: Mutex<Gather>,
    /// Wakes the writer; used with `gather`.
    pub(super) work: Condvar,
    /// Place after the last record. For admission, which needs no exact answer.
    appended: AtomicU64,
    flushed: AtomicU64,
    pub(super) time_ms: AtomicU64,

    waiting: Mutex<()>,
    waited: Condvar,
    waiters: AtomicUsize,

    pub(super) segments: Mutex<Segments>,
    /// Wakes the housekeeper; used with `segments`.
    pub(super) chores: Condvar,
    /// Wakes a writer that has no segment; used with `segments`.
    pub(super) room: Condvar,
    space: AtomicU8,
    space_notice: Mutex<()>,
    /// A segment of the reserve was begun.
    pub(super) is_reserve_in_use: AtomicBool,

    /// Cold files may have numbers up to this one. Taken before `segments`, and held while a higher one is
    /// written down.
    pub(super) cold_reserved: Mutex<u32>,
    /// Where this process began to append.
    began: Position,
    /// Bytes of cold files that were finished.
    pub(super) cold_bytes: AtomicU64,
    files: Mutex<Vec<(FileKey, Arc<dyn File>)>>,
    failure: OnceLock<Failure>,
    stopping: Mutex<bool>,
    stopped: Condvar,
    /// Held as long as the log is open.
    _lock: Box<dyn Send + Sync>,
}

impl Shared {
    #[allow(clippy::too_many_arguments, reason = "called once, by recovery, which has found all of it")]
    pub(super) fn new(
        options: Options,
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        store: StoreId,
        owner: Arc<dyn Owner>,
        gather: Gather,
        segments: Segments,
        time_ms: u64,
        lock: Box<dyn Send + Sync>,
    ) -> Self {
        let end = gather.end().0;
        Self {
            options,
            disk,
            dir,
            tag: super::format::tag_of(&store),
            store,
            owner,
            gather: Mutex::new(gather),
            work: Condvar::new(),
            appended: AtomicU64::new(end),
            flushed: AtomicU64::new(end),
            time_ms: AtomicU64::new(time_ms),
            waiting: Mutex::new(()),
            waited: Condvar::new(),
            waiters: AtomicUsize::new(0),
            // All that may have been used count as used.
            cold_reserved: Mutex::new(segments.next_cold),
            segments: Mutex::new(segments),
            chores: Condvar::new(),
            room: Condvar::new(),
            space: AtomicU8::new(0),
            space_notice: Mutex::new(()),
            is_reserve_in_use: AtomicBool::new(false),
            began: Position(end),
            cold_bytes: AtomicU64::new(0),
            files: Mutex::new(Vec::new()),
            failure: OnceLock::new(),
            stopping: Mutex::new(false),
            stopped: Condvar::new(),
            _lock: lock,
        }
    }

    #[inline]
    pub(super) fn append(&self, head: Head, parts: &[&[u8]], urgency: Urgency) -> Result<Appended, Refused> {
        let is_essential = urgency != Urgency::Ordinary;
        let body_bytes = parts.iter().map(|part| part.len()).sum::<usize>();
        let bytes_max = self.options.batch_bytes_max - RECORD_OVERHEAD_BYTES;
        if body_bytes > bytes_max {
            return Err(Refused::TooLarge { bytes: body_bytes, bytes_max });
        }
        let unwritten = self.unwritten_bytes();
        if !is_essential && unwritten > UNWRITTEN_GRACE * self.options.unwritten_bytes_max {
            return Err(Refused::Busy { bytes: unwritten });
        }
        if !is_essential && self.is_reserve_in_use.load(Ordering::Relaxed) {
            return Err(Refused::DiskFull);
        }
        let mut gather = self.gather.lock();
        if gather.is_closed {
            return Err(Refused::Failed);
        }
        let position = gather.append(head, parts, body_bytes);
        let end = position.plus(RECORD_HEADER_BYTES + body_bytes);
        self.appended.store(end.0, Ordering::Relaxed);
        gather.is_urgent |= urgency != Urgency::Patient;
        let takes_wake = gather.takes_wake();
        drop(gather);
        if takes_wake {
            self.work.notify_one();
        }
        Ok(Appended { position, end })
    }

    /// Has what was appended flushed without waiting for more.
    pub(super) fn hasten(&self) {
        let mut gather = self.gather.lock();
        if gather.is_urgent || gather.is_empty() {
            return;
        }
        gather.is_urgent = true;
        let takes_wake = gather.takes_wake();
        drop(gather);
        if takes_wake {
            self.work.notify_one();
        }
    }

    #[inline]
    fn unwritten_bytes(&self) -> u64 {
        // The flushed place may be further: it is the end of a batch, with its padding.
        self.appended.load(Ordering::Relaxed).saturating_sub(self.flushed.load(Ordering::Relaxed))
    }

    #[inline]
    pub(super) fn admission(&self) -> Admission {
        if self.failure.get().is_some() {
            Admission::Failed
        } else if self.unwritten_bytes() > self.options.unwritten_bytes_max {
            Admission::Busy
        } else if self.space() != Space::Ok {
            Admission::DiskLow
        } else {
            Admission::Open
        }
    }

    #[inline]
    pub(super) fn flushed(&self) -> Position {
        Position(self.flushed.load(Ordering::Acquire))
    }

    /// Moves the flushed place on. Only the writer calls it, after a sync that succeeded.
    pub(super) fn advance(&self, to: Position) {
        let before = self.flushed.swap(to.0, Ordering::SeqCst);
        assert!(before <= to.0, "flushed never runs backwards");
        self.owner.flushed(to);
        if self.waiters.load(Ordering::SeqCst) > 0 {
            drop(self.waiting.lock());
            self.waited.notify_all();
        }
    }

    pub(super) fn wait_flushed(&self, position: Position) -> Result<(), Failure> {
        self.hasten();
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let mut guard = self.waiting.lock();
        let result = loop {
            if self.flushed() >= position {
                break Ok(());
            }
            if let Some(failure) = self.failure.get() {
                break Err(failure.clone());
            }
            // A place that nothing was appended up to, and nothing will be.
            if self.is_stopping() && position.0 > self.appended.load(Ordering::Relaxed) {
                let error = io::Error::other("the log was closed");
                break Err(Failure::new(&self.dir, "waiting for a record", &error));
            }
            self.waited.wait(&mut guard);
        };
        drop(guard);
        self.waiters.fetch_sub(1, Ordering::SeqCst);
        result
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        self.failure.get().cloned()
    }

    /// Ends the log: nothing is flushed after it. The first reason counts.
    pub(super) fn fail(&self, path: &Path, what: &'static str, error: &io::Error) {
        let failure = Failure::new(path, what, error);
        if self.failure.set(failure.clone()).is_err() {
            return;
        }
        self.gather.lock().is_closed = true;
        self.stop();
        drop(self.waiting.lock());
        self.waited.notify_all();
        self.owner.failed(&failure);
    }

    pub(super) fn close(&self) {
        self.gather.lock().is_closed = true;
        self.stop();
        drop(self.waiting.lock());
        self.waited.notify_all();
    }

    fn stop(&self) {
        *self.stopping.lock() = true;
        self.stopped.notify_all();
        drop(self.gather.lock());
        self.work.notify_all();
        drop(self.segments.lock());
        self.chores.notify_all();
        self.room.notify_all();
    }

    pub(super) fn is_stopping(&self) -> bool {
        *self.stopping.lock()
    }

    /// Waits a while; `false` when the log ends meanwhile.
    pub(super) fn pause(&self, duration: Duration) -> bool {
        let mut stopping = self.stopping.lock();
        if !*stopping && !duration.is_zero() {
            self.stopped.wait_for(&mut stopping, duration);
        }
        !*stopping
    }

    pub(super) fn space(&self) -> Space {
        match self.space.load(Ordering::Relaxed) {
            0 => Space::Ok,
            1 => Space::Low,
            _ => Space::Full,
        }
    }

    /// Works out how much room there is, and tells the owner of a change.
    pub(super) fn publish_space(&self) {
        let _in_order = self.space_notice.lock();
        let now = {
            let segments = self.segments.lock();
            let has_spare = segments.spares.len() > self.options.reserve_segments;
            if !segments.is_full && segments.spares.len() >= self.options.reserve_segments || has_spare {
                self.is_reserve_in_use.store(false, Ordering::Relaxed);
            }
            if segments.is_stuck {
                Space::Full
            } else if segments.is_full && !has_spare || self.is_reserve_in_use.load(Ordering::Relaxed) {
                Space::Low
            } else {
                Space::Ok
            }
        };
        let before = self.space();
        self.space.store(now as u8, Ordering::Relaxed);
        if before != now {
            self.owner.space_changed(now);
        }
    }

    /// There is room for another segment beside what must stay free.
    pub(super) fn has_room(&self) -> bool {
        let wanted = self.options.free_bytes_min.saturating_add(self.options.segment_bytes);
        // A file system that cannot say is asked by writing to it.
        self.disk.free_bytes(&self.dir).map_or(true, |free| free >= wanted)
    }

    pub(super) fn release(&self, is_dead: impl Fn(&Segment) -> bool) -> usize {
        let flushed = self.flushed();
        let mut released = Vec::new();
        let mut guard = self.segments.lock();
        let segments = &mut *guard;
        segments.live.retain(|segment| {
            let is_released = segment.end.is_some_and(|end| end <= flushed) && is_dead(segment);
            if is_released {
                segments.dead.push((segment_name(segment.number), segment.file_bytes));
                released.push(segment.first);
            }
            !is_released
        });
        if !released.is_empty() {
            segments.has_chores = true;
            self.chores.notify_one();
        }
        drop(guard);
        self.files.lock().retain(|((first, _), _)| !released.contains(first));
        released.len()
    }

    pub(super) fn drop_cold(&self, file: u32) -> bool {
        let mut segments = self.segments.lock();
        let is_known = segments.cold.remove(&file).is_some();
        if is_known {
            segments.dead.push((super::segments::cold_name(file), 0));
            segments.has_chores = true;
            self.chores.notify_one();
        }
        drop(segments);
        self.forget_file(Position::cold(file, 0));
        is_known
    }

    /// An open file to read from; `first` is the first position in it.
    pub(super) fn file(&self, first: Position, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let key = (first, access);
        if let Some((_, file)) = self.files.lock().iter().find(|(known, _)| *known == key) {
            return Ok(file.clone());
        }
        let file: Arc<dyn File> = self.disk.open(path, access)?.into();
        let mut files = self.files.lock();
        if files.len() >= OPEN_FILES_MAX {
            files.remove(0);
        }
        files.push((key, file.clone()));
        Ok(file)
    }

    pub(super) fn forget_file(&self, first: Position) {
        self.files.lock().retain(|((known, _), _)| *known != first);
    }

    pub(super) fn figures(&self) -> Figures {
        let segments = self.segments.lock();
        let live_bytes = segments.live.iter().map(|segment| segment.file_bytes).sum::<u64>();
        let unused_count = segments.spares.len() + segments.dead.len();
        let cold_bytes = segments.cold.values().map(|cold| cold.file_bytes).sum::<u64>();
        Figures {
            written_bytes: self.flushed().0 - self.began.0,
            cold_written_bytes: self.cold_bytes.load(Ordering::Relaxed),
            segments_count: segments.live.len(),
            unused_count,
            cold_count: segments.cold.len(),
            files_bytes: live_bytes + cold_bytes + unused_count as u64 * self.options.segment_bytes,
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// There was no room: another attempt may succeed later.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
