//! Spill: of long queues, the messages that are in no log (all of a transient queue, the transient ones of
//! a durable queue) leave memory for files of their own, which last as long as the process. Nothing of it
//! is ever synced, and what an earlier process left is removed at start.
//!
//! ```text
//! data directory
//!   spill/log/      the messages
//!   spill/index/    which of them are alive, as in the index of what is in the log
//! ```
//!
//! Both are made when the first queue gets too long. When they cannot be written, messages stay in
//! memory, and the memory alarm does what it is for.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, Weak},
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::{INDEX_FOLDER, LOG_FOLDER, checkpoint, entries, journal::LogJournal};
use crate::{
    broker::{
        message::Message,
        queue::{
            Queue,
            cold::{LevelPlaces, Overflow, Window},
        },
        record::{Haste, Journal as _, Position, QueueId, Record},
        verb,
    },
    server::options::Persistence,
    store::{
        self, Admission, Log, Owner, Store,
        disk::{RealDisk, Volatile},
        index::{Changes, Index, NewCheckpoint, Rank},
    },
};

/// Folder of the spill in the data directory.
const FOLDER: &str = "spill";

/// See the module's text.
pub(super) struct Spill {
    dir: PathBuf,
    window: Window,
    index_options: store::index::Options,
    files: OnceLock<Files>,
    signal: Mutex<Signal>,
    signalled: Condvar,
}

/// The files, once there are any.
pub(super) struct Files {
    /// The messages.
    pub(super) log: Arc<Log>,
    /// Which of them are alive.
    pub(super) index: Arc<Index>,
    journal: LogJournal,
}

#[derive(Default)]
struct Signal {
    overflowing: Vec<Weak<Queue>>,
    is_over: bool,
}

/// A queue of which something may be in the files.
struct Spilled {
    queue: Weak<Queue>,
    priority_max: u8,
    /// The place of its first message there.
    first: Option<Position>,
}

/// What the thread keeps from one round to the next.
#[derive(Default)]
struct State {
    queues: HashMap<QueueId, Spilled, foldhash::fast::RandomState>,
    is_failing: bool,
    /// When queues were asked last what has gone.
    cleaned_at: Option<Instant>,
}

/// A queue with what was written of it.
struct Written {
    queue: Arc<Queue>,
    below: u64,
    places: Vec<LevelPlaces>,
}

/// Rounds follow each other no faster: each makes a run of the index, and pages under way are in vain.
const PACE: Duration = Duration::from_millis(50);
/// How often queues are asked what has gone, when none gets longer.
const CLEAN: Duration = Duration::from_secs(1);
/// Attempts after a failure follow each other no faster.
const RETRY: Duration = Duration::from_secs(1);
/// Bytes that are written before they are waited for.
const PIECE_BYTES: u64 = 4 << 20;

impl Spill {
    /// A spill in that data directory, where what an earlier process left is removed.
    pub(super) fn new(data_dir: &Path, options: &Persistence) -> io::Result<Arc<Self>> {
        let dir = data_dir.join(FOLDER);
        for folder in [dir.join(INDEX_FOLDER), dir.join(LOG_FOLDER)] {
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let window = Window { bytes: options.queue_window_bytes, messages: checkpoint::WINDOW_MESSAGES };
        let index_options = store::index::Options { scrub_bytes_per_sec: 0, ..options.index.clone() };
        let (files, signal, signalled) = (OnceLock::new(), Mutex::default(), Condvar::new());
        Ok(Arc::new(Self { dir, window, index_options, files, signal, signalled }))
    }

    /// The files, if there are any.
    pub(super) fn files(&self) -> Option<&Files> {
        self.files.get()
    }

    /// Ends the files' threads.
    pub(super) fn close(&self) {
        if let Some(files) = self.files() {
            files.log.close();
        }
    }

    /// Begins to write.
    pub(super) fn start(self: &Arc<Self>) -> io::Result<thread::JoinHandle<()>> {
        let spill = self.clone();
        thread::Builder::new().name("spill".into()).spawn(move || spill.run())
    }

    /// Has the thread end.
    pub(super) fn stop(&self) {
        self.signal.lock().is_over = true;
        self.signalled.notify_all();
    }

    #[expect(clippy::disallowed_methods, reason = "paces a thread of its own; the broker sees none of it")]
    fn run(&self) {
        let mut state = State::default();
        let mut pause = PACE;
        loop {
            let mut signal = self.signal.lock();
            let clean_at = state.cleaned_at.map_or_else(Instant::now, |at| at + CLEAN);
            while !signal.is_over && signal.overflowing.is_empty() {
                if state.queues.is_empty() {
                    self.signalled.wait(&mut signal);
                } else if self.signalled.wait_until(&mut signal, clean_at).timed_out() {
                    break;
                }
            }
            if signal.is_over {
                return;
            }
            let overflowing = std::mem::take(&mut signal.overflowing);
            drop(signal);
            let is_clean_due = state.cleaned_at.is_none_or(|at| at.elapsed() >= CLEAN);
            if is_clean_due {
                state.cleaned_at = Some(Instant::now());
            }
            match self.round(&mut state, overflowing, is_clean_due) {
                Ok(()) => {
                    if std::mem::take(&mut state.is_failing) {
                        tracing::info!("messages of long queues that are in no log are written to files again");
                    }
                    pause = PACE;
                }
                Err(error) => {
                    if !std::mem::replace(&mut state.is_failing, true) {
                        tracing::error!(error, dir = %self.dir.display(),
                            "messages of long queues that are in no log cannot be written to files: they stay in memory");
                    }
                    pause = RETRY.max(pause);
                }
            }
            if !self.rest(pause) {
                return;
            }
        }
    }

    /// Waits; false when it is over.
    #[expect(clippy::disallowed_methods, reason = "paces a thread of its own; the broker sees none of it")]
    fn rest(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let mut signal = self.signal.lock();
        while !signal.is_over && !self.signalled.wait_until(&mut signal, until).timed_out() {}
        !signal.is_over
    }

    /// Writes what overflows, and files what has changed. A failure leaves in memory what is there.
    fn round(&self, state: &mut State, overflowing: Vec<Weak<Queue>>, is_clean_due: bool) -> Result<(), String> {
        let mut failure = None;
        let mut written: HashMap<QueueId, Written, foldhash::fast::RandomState> = HashMap::default();
        let mut again: HashMap<QueueId, Arc<Queue>, foldhash::fast::RandomState> = HashMap::default();
        for queue in overflowing.iter().filter_map(Weak::upgrade) {
            if written.contains_key(&queue.id) || again.contains_key(&queue.id) {
                continue;
            }
            let Some(overflow) = queue.overflow(&self.window) else { continue };
            let below = overflow.below;
            match self.write(overflow) {
                Ok(places) => _ = written.insert(queue.id, Written { queue, below, places }),
                Err(error) => {
                    failure = Some(error);
                    again.insert(queue.id, queue);
                }
            }
        }
        for Written { queue, .. } in written.values() {
            let priority_max = queue.declaration.parsed.max_priority.unwrap_or(0);
            let spilled = Spilled { queue: Arc::downgrade(queue), priority_max, first: None };
            state.queues.entry(queue.id).or_insert(spilled);
        }
        let filed = self.files().map_or(Ok(()), |files| self.file(files, state, &written, is_clean_due));
        // Nobody else may come to tell of those.
        let is_written = |written: &Written| written.places.iter().any(|(_, places)| !places.is_empty());
        let left = written.into_values().filter(|written| is_written(written) && written.queue.outgrows(&self.window));
        let again = again.into_values().chain(left.map(|written| written.queue));
        // A queue tells of itself under its lock: none may be taken under that of the signal.
        let again: Vec<_> = again.map(|queue| Arc::downgrade(&queue)).collect();
        self.signal.lock().overflowing.extend(again);
        filed?;
        failure.map_or(Ok(()), Err)
    }

    /// Writes messages, and waits until the log can be read that far.
    fn write(&self, overflow: Overflow) -> Result<Vec<LevelPlaces>, String> {
        if overflow.levels.iter().all(|(_, messages)| messages.is_empty()) && self.files().is_none() {
            return Ok(Vec::new());
        }
        let files = self.open()?;
        let mut unwritten = 0;
        let mut places = Vec::with_capacity(overflow.levels.len());
        for (level, messages) in overflow.levels {
            let mut of_level = Vec::with_capacity(messages.len());
            for (seq, message) in messages {
                if unwritten == 0 || unwritten >= PIECE_BYTES {
                    files.wait()?;
                    unwritten = 0;
                }
                unwritten += message.record_bytes_max();
                of_level.push((seq, files.append(message)?));
            }
            places.push((level, of_level));
        }
        files.wait()?;
        Ok(places)
    }

    fn open(&self) -> Result<&Files, String> {
        if let Some(files) = self.files() {
            return Ok(files);
        }
        let files = Files::open(&self.dir, &self.index_options)?;
        tracing::info!(dir = %self.dir.display(), "a queue is too long for memory: its messages that are in no log go to files");
        Ok(self.files.get_or_init(|| files))
    }

    fn file(
        &self,
        files: &Files,
        state: &mut State,
        written: &HashMap<QueueId, Written, foldhash::fast::RandomState>,
        is_clean_due: bool,
    ) -> Result<(), String> {
        let mut changes = Changes::new();
        let (mut looked, mut gone) = (Vec::new(), Vec::new());
        for (&id, spilled) in &state.queues {
            let Some(queue) = spilled.queue.upgrade().filter(|queue| !queue.is_deleted()) else {
                checkpoint::drop_queue(id, spilled.priority_max, &mut changes);
                gone.push(id);
                continue;
            };
            let written = written.get(&id).map(|written| (written.below, &*written.places));
            // What could not be filed has places that only this makes known.
            if written.is_none() && !is_clean_due && !state.is_failing {
                continue;
            }
            if let Some(mut look) = queue.look_spilled(written, &self.window) {
                look.puts.iter_mut().for_each(|put| put.place = put.place.plain());
                checkpoint::file(&queue, &look, false, &mut changes);
                looked.push(queue);
            }
        }
        let checkpoint = NewCheckpoint { covered: files.log.end().0, note: &[], attachment: None };
        let committed =
            if changes.is_empty() { Ok(()) } else { files.index.commit(&mut changes, checkpoint).map(drop) };
        let is_committed = committed.is_ok();
        looked.iter().for_each(|queue| queue.spilled(is_committed, &self.window));
        committed.map_err(|error| error.to_string())?;
        gone.iter().for_each(|id| _ = state.queues.remove(id));
        for queue in looked {
            let first = first_place(&files.index, &queue);
            if let Some(spilled) = state.queues.get_mut(&queue.id) {
                // Where nobody knows, everything is kept.
                spilled.first = first.unwrap_or(Some(Position::NONE));
            }
        }
        let first = state.queues.values().filter_map(|spilled| spilled.first).min();
        let kept_from = first.map_or(files.log.flushed().0, |first| first.0);
        let until = kept_from.saturating_sub(files.journal.chain_bytes_max());
        files.log.release_before(store::Position(until));
        Ok(())
    }
}

impl verb::Spill for Spill {
    #[inline]
    fn window(&self) -> Window {
        self.window
    }

    fn overflows(&self, queue: &Arc<Queue>) {
        self.signal.lock().overflowing.push(Arc::downgrade(queue));
        self.signalled.notify_one();
    }
}

impl Files {
    fn open(dir: &Path, index_options: &store::index::Options) -> Result<Self, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let disk = Arc::new(Volatile(RealDisk));
        let options = store::Options {
            sync: store::Sync::Os,
            segment_bytes: 32 << 20,
            unwritten_bytes_max: 16 << 20,
            reserve_segments: 1,
            spare_segments_max: 4,
            zero_bytes_per_sec: u64::MAX,
            scrub_bytes_per_sec: 0,
            ..store::Options::default()
        };
        let opened = Store::open(disk.clone(), &dir.join(LOG_FOLDER), options).map_err(|error| text(&error))?;
        let recovered =
            opened.replay(store::Position(0), |_, _| Ok::<_, store::OpenError>(())).map_err(|error| text(&error))?;
        let log = Arc::new(recovered.start(1, Arc::new(Silent)).map_err(|error| text(&error))?);
        let index = Index::open(disk, &dir.join(INDEX_FOLDER), index_options.clone()).map_err(|error| text(&error))?;
        Ok(Self { journal: LogJournal::new(log.clone(), 0, u64::MAX), log, index: Arc::new(index) })
    }

    fn append(&self, message: Message) -> Result<Position, String> {
        let appended = self.journal.append(&Record::Body { targets: 0, message }, Haste::Due);
        if appended.at == Position::NONE { Err(self.reason()) } else { Ok(appended.at.in_spill()) }
    }

    /// Waits for what was appended; there is room for more then, if it succeeds.
    fn wait(&self) -> Result<(), String> {
        // The reserve of the log holds one piece, so this ends though the disk may be full.
        self.log.flush().map_err(|error| error.to_string())?;
        match self.log.admission() {
            Admission::Open | Admission::Busy => Ok(()),
            Admission::DiskLow | Admission::Failed => Err(self.reason()),
        }
    }

    fn reason(&self) -> String {
        self.log.failure().map_or_else(|| "the disk is full".into(), |failure| failure.to_string())
    }
}

/// The smallest place in the files that their index has of a queue: of the first message of each level,
/// since places grow with seqs but for the few messages that several queues took at once.
fn first_place(index: &Index, queue: &Queue) -> Result<Option<Position>, store::index::Error> {
    let priority_max = queue.declaration.parsed.max_priority.unwrap_or(0);
    let mut first = None;
    for level in 0..=priority_max {
        for entry in index.page(entries::MESSAGES, entries::owner(queue.id, level), Rank::MIN, 1)? {
            let found = entries::message(level, entry.rank.seq, entry.value.as_bytes()).map(|found| found.place);
            first = [first, found].into_iter().flatten().min();
        }
    }
    Ok(first)
}

/// Is told what happens to the log of the spill; whoever writes asks.
struct Silent;

impl Owner for Silent {
    fn flushed(&self, _: store::Position) {}

    fn failed(&self, _: &store::Failure) {}
}
