//! What a null broker syncs with: the cheapest log there can be.
//!
//! What was read is copied into a batch. One thread writes what gathered during its previous write,
//! aligned, to a file that was filled with zeros and is used again from its beginning, so that no
//! write changes anything but data. Nothing is read back: it has no headers and no checksums.
//!
//! Invariant: `batch_flushed < batch`, and all up to `batch_flushed` is on the disk.

use super::failure::Failure;
use parking_lot::{Condvar, Mutex};
use rustix::{
    event::{EventfdFlags, eventfd},
    fs::{FsWord, OFlags, fcntl_getfl, fcntl_setfl, statfs},
    io::Errno,
};
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Instant,
};

/// The bytes of a segment, as a broker's log has them.
const SEGMENT_BYTES: usize = 64 << 20;
/// Segments that are used in turn. They stand in one file: at its end it begins anew.
const SEGMENTS_COUNT: usize = 4;
/// What a direct write must be a multiple of, in memory and in the file.
const BLOCK_BYTES: usize = 4096;
/// Full: who appended is not read before the batch is taken.
const GATHERED_BYTES_MAX: usize = 4 << 20;
/// The bytes of one write of zeros.
const ZEROS_BYTES: usize = 1 << 20;

const _: () = assert!(SEGMENT_BYTES.is_multiple_of(ZEROS_BYTES) && ZEROS_BYTES.is_multiple_of(BLOCK_BYTES));

/// A log and its writer, which ends when this is dropped.
pub(super) struct NullLog {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

/// What came of an append.
#[derive(Debug, Clone, Copy)]
pub(super) struct Appended {
    /// On the disk once `NullLog::flushed` has reached it.
    pub(super) batch: u64,
    /// Append no more before something is flushed.
    pub(super) is_full: bool,
}

struct Shared {
    /// Nothing is locked after it, and nothing is read or written while it is held.
    state: Mutex<State>,
    /// Something was gathered, or the log ends.
    gathered: Condvar,
    /// Readable when something was flushed, or a write has failed.
    flushed: OwnedFd,
}

struct State {
    gathering: Batch,
    /// The number of the gathering batch.
    batch: u64,
    batch_flushed: u64,
    failure: Option<io::Error>,
    is_ended: bool,
}

impl NullLog {
    /// Makes the file in `dir`, fills it and starts the writer. The file has no name any more when
    /// this returns: it goes with the process, however that ends.
    pub(super) fn create(dir: &Path) -> Result<Self, Failure> {
        let failed = || Failure::io(format!("making a log in {}", dir.display()));
        let file = LogFile::create(dir, SEGMENTS_COUNT * SEGMENT_BYTES).map_err(failed())?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let flushed = eventfd(0, flags).map_err(io::Error::from).map_err(failed())?;
        let state = State { gathering: Batch::default(), batch: 1, batch_flushed: 0, failure: None, is_ended: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), gathered: Condvar::new(), flushed });
        let of_writer = Arc::clone(&shared);
        let writer = thread::Builder::new().name("null-log".to_owned()).spawn(move || of_writer.write(file));
        Ok(Self { shared, writer: Some(writer.map_err(failed())?) })
    }

    /// Readable when there is news for `flushed`.
    pub(super) fn event(&self) -> BorrowedFd<'_> {
        self.shared.flushed.as_fd()
    }

    /// Copies `bytes` into the next batch. Not on the disk when this returns.
    #[inline]
    pub(super) fn append(&self, bytes: &[u8]) -> Appended {
        let mut state = self.shared.state.lock();
        state.gathering.push(bytes);
        let appended = Appended { batch: state.batch, is_full: state.gathering.len >= GATHERED_BYTES_MAX };
        drop(state);
        self.shared.gathered.notify_one();
        appended
    }

    /// The last batch that is on the disk with all before it.
    pub(super) fn flushed(&self) -> Result<u64, Failure> {
        // Emptied before the state is looked at: what is flushed in between signals again.
        let _ = rustix::io::read(&self.shared.flushed, &mut [0; 8]);
        let mut state = self.shared.state.lock();
        match state.failure.take() {
            None => Ok(state.batch_flushed),
            Some(error) => Err(Failure::io("writing the log")(error)),
        }
    }
}

impl Drop for NullLog {
    fn drop(&mut self) {
        self.shared.state.lock().is_ended = true;
        self.shared.gathered.notify_one();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Shared {
    /// The writer: until the log ends or a write fails.
    fn write(&self, mut file: LogFile) {
        let mut writing = Batch::default();
        loop {
            let mut state = self.state.lock();
            while state.gathering.len == 0 && !state.is_ended {
                self.gathered.wait(&mut state);
            }
            if state.is_ended {
                return;
            }
            std::mem::swap(&mut state.gathering, &mut writing);
            let batch = state.batch;
            state.batch += 1;
            drop(state);

            let written = file.write(writing.blocks());
            writing.len = 0;
            let mut state = self.state.lock();
            let is_over = written.is_err();
            match written {
                Ok(()) => state.batch_flushed = batch,
                Err(error) => state.failure = Some(error),
            }
            drop(state);
            // Fails only when it was not read 2^64 times.
            let _ = rustix::io::write(&self.flushed, &1u64.to_ne_bytes());
            if is_over {
                return;
            }
        }
    }
}

/// Bytes that begin at a block's boundary in memory.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Where the first aligned byte stands.
    start: usize,
    len: usize,
}

impl Batch {
    #[inline]
    fn push(&mut self, more: &[u8]) {
        let wanted = self.len + more.len();
        if self.bytes.len() < self.start + wanted.next_multiple_of(BLOCK_BYTES) {
            self.grow(wanted);
        }
        let end = self.start + self.len;
        self.bytes[end..end + more.len()].copy_from_slice(more);
        self.len = wanted;
    }

    #[cold]
    fn grow(&mut self, wanted: usize) {
        let capacity = wanted.next_power_of_two().max(ZEROS_BYTES);
        let mut bytes = vec![0; capacity + BLOCK_BYTES];
        let start = bytes.as_ptr().align_offset(BLOCK_BYTES);
        bytes[start..start + self.len].copy_from_slice(&self.bytes[self.start..self.start + self.len]);
        *self = Self { bytes, start, len: self.len };
    }

    /// Whole blocks: what follows the last byte is of no meaning.
    fn blocks(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len.next_multiple_of(BLOCK_BYTES)]
    }
}

/// The file, written round and round.
struct LogFile {
    file: File,
    bytes: usize,
    at: usize,
    is_direct: bool,
}

impl LogFile {
    fn create(dir: &Path, bytes: usize) -> io::Result<Self> {
        let path = unused_path(dir)?;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        options.custom_flags((OFlags::DIRECT | OFlags::DSYNC).bits().cast_signed());
        let (file, is_direct) = match options.open(&path) {
            Ok(file) => (file, true),
            // Not every file system knows O_DIRECT. It may have created the file before it said so.
            Err(error) if is_invalid(&error) => {
                options.custom_flags(0).create_new(false).create(true);
                (options.open(&path)?, false)
            }
            Err(error) => return Err(error),
        };
        // The file stays as long as it is open, and nobody has to clean up after a kill.
        fs::remove_file(&path)?;
        let mut log = Self { file, bytes, at: 0, is_direct };
        let mut zeros = Batch::default();
        zeros.push(&vec![0; ZEROS_BYTES]);
        for _ in 0..bytes / ZEROS_BYTES {
            log.write(zeros.blocks())?;
        }
        log.file.sync_all()?;
        if !log.is_direct {
            eprintln!("tern bench null: no O_DIRECT in {}, so it writes and calls fdatasync", dir.display());
        }
        Ok(log)
    }

    /// On the disk when this returns.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(rest.len().min(self.bytes - self.at));
            match self.file.write_all_at(piece, self.at as u64) {
                // Accepted at open and refused at the write.
                Err(error) if self.is_direct && is_invalid(&error) => {
                    fcntl_setfl(&self.file, fcntl_getfl(&self.file)? - OFlags::DIRECT)?;
                    self.is_direct = false;
                    continue;
                }
                other => other?,
            }
            if !self.is_direct {
                self.file.sync_data()?;
            }
            self.at = (self.at + piece.len()) % self.bytes;
            rest = more;
        }
        Ok(())
    }
}

/// What the disk of `dir` takes of a log that is zeroed ahead and then written, each once, synced
/// every mebibyte: bytes of log a second.
pub(super) fn zero_and_overwrite_bytes_per_sec(dir: &Path) -> Result<f64, Failure> {
    let measure = || -> io::Result<f64> {
        let bytes = SEGMENTS_COUNT * SEGMENT_BYTES;
        let mut ones = Batch::default();
        ones.push(&vec![1; ZEROS_BYTES]);
        let start = Instant::now();
        let mut file = LogFile::create(dir, bytes)?;
        for _ in 0..bytes / ZEROS_BYTES {
            file.write(ones.blocks())?;
        }
        Ok(bytes as f64 / start.elapsed().as_secs_f64())
    };
    measure().map_err(Failure::io(format!("measuring the disk of {}", dir.display())))
}

fn is_invalid(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::INVAL.raw_os_error())
}

fn unused_path(dir: &Path) -> io::Result<PathBuf> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(dir.join(format!("tern-bench-{:016x}", u64::from_le_bytes(random))))
}

/// Where files go that are to be synced: `dir`, or the first temporary directory that is on a disk.
pub(super) fn directory(dir: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(dir) = dir {
        if is_in_memory(dir)? {
            eprintln!("tern bench: {} is in memory: syncing costs nothing there", dir.display());
        }
        return Ok(dir.to_owned());
    }
    for dir in [std::env::temp_dir(), PathBuf::from("/var/tmp")] {
        if matches!(is_in_memory(&dir), Ok(false)) {
            return Ok(dir);
        }
    }
    Err(Failure::usage("no temporary directory is on a disk: name one with --dir"))
}

fn is_in_memory(dir: &Path) -> Result<bool, Failure> {
    const TMPFS: FsWord = 0x0102_1994;
    const RAMFS: FsWord = 0x8584_58f6;
    let found = statfs(dir).map_err(|errno| Failure::io(format!("looking at {}", dir.display()))(errno.into()))?;
    Ok([TMPFS, RAMFS].contains(&found.f_type))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};

    fn await_flushed(log: &NullLog, batch: u64) {
        while log.flushed().unwrap() < batch {
            poll(&mut [PollFd::from_borrowed_fd(log.event(), PollFlags::IN)], None).unwrap();
        }
    }

    #[test]
    fn what_is_appended_is_flushed_and_said_so() {
        let dir = tempfile::tempdir().unwrap();
        let log = NullLog::create(dir.path()).unwrap();
        let first = log.append(b"one");
        await_flushed(&log, first.batch);
        let second = log.append(&[7; 3 * BLOCK_BYTES]);
        assert!(second.batch > first.batch && !second.is_full);
        await_flushed(&log, second.batch);
    }

    #[test]
    fn a_log_leaves_no_file_behind() {
        let dir = tempfile::tempdir().unwrap();
        let _log = NullLog::create(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_batch_is_whole_blocks_at_a_blocks_boundary() {
        let mut batch = Batch::default();
        let mut all = Vec::new();
        for round in 0..40u8 {
            let piece = vec![round; 50_001];
            batch.push(&piece);
            all.extend_from_slice(&piece);
            let blocks = batch.blocks();
            assert_eq!((blocks.as_ptr().align_offset(BLOCK_BYTES), blocks.len() % BLOCK_BYTES), (0, 0));
        }
        assert_eq!(batch.blocks()[..all.len()], all);
    }

    #[test]
    fn a_file_begins_anew_at_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = LogFile::create(dir.path(), 2 * ZEROS_BYTES).unwrap();
        assert_eq!(file.at, 0);
        let mut batch = Batch::default();
        batch.push(&vec![1; ZEROS_BYTES + BLOCK_BYTES]);
        file.write(batch.blocks()).unwrap();
        file.write(batch.blocks()).unwrap();
        assert_eq!(file.at, 2 * BLOCK_BYTES);
        assert_eq!(file.file.metadata().unwrap().len(), 2 * ZEROS_BYTES as u64);
    }

    #[test]
    fn a_directory_in_memory_is_told_apart() {
        assert!(!is_in_memory(Path::new("/proc")).unwrap());
        if Path::new("/dev/shm").exists() {
            assert!(is_in_memory(Path::new("/dev/shm")).unwrap());
        }
        assert!(directory(Some(Path::new("/nonexistent"))).is_err());
    }
}
