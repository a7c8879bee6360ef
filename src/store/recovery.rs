//! Opening a directory: which files there are, replaying the records, cutting a torn tail.
//!
//! Nothing is changed before [`Recovered::start`], so that a refusal leaves everything for whoever
//! looks into it. Every change that `start` makes can be cut short by a crash and is made again, the
//! same, by the next.
//!
//! What a bad batch means:
//!
//! - Nothing on the disk says that it had been synced: it is the torn end of the log. It was never
//!   flushed, and is cut off.
//! - A watermark above it, in a whole batch behind it or in the header of a later segment, or the
//!   caller's checkpoint, says that it had been: damage. The log is not opened.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cold::{ColdFile, write_identity};
use super::disk::{Access, BLOCK_BYTES, Disk, File};
use super::error::OpenError;
use super::format::{
    BatchHeader, LOST, Position, Purpose, Record, Records, SEGMENT_HEADER_BYTES, SegmentHeader, StoreId,
};
use super::gather::{Buffer, Gather};
use super::housekeeper::Housekeeper;
use super::log::{Log, Owner};
use super::options::Options;
use super::scan::{Found, Scanner, read_header};
use super::scrub::Scrubber;
use super::segments::{FileKind, IDENTITY_FILE, LOCK_FILE, Segment, Segments, file_kind};
use super::shared::Shared;
use super::writer::{Active, Resume, Writer, access_of, begin_segment};

/// Written at once when the end of the log is made durable again.
const PIECE_BYTES: usize = 1 << 20;

/// A directory whose files are known and whose lock is held.
pub struct Store {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: Options,
    lock: Box<dyn Send + Sync>,
    id: StoreId,
    is_new: bool,
    has_identity: bool,
    segments: Vec<SegmentFile>,
    spares: VecDeque<String>,
    leftovers: Vec<String>,
    cold: BTreeMap<u32, ColdFile>,
    /// What the identity says of their numbers.
    cold_reserved: u32,
    next_file: u64,
}

struct SegmentFile {
    path: PathBuf,
    name: String,
    file_bytes: u64,
    header: SegmentHeader,
}

/// The end of the log was being written when the process or the machine stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The segment's file.
    pub file: PathBuf,
    /// Where the log ends now.
    pub position: Position,
    /// What was wrong there.
    pub what: &'static str,
}

/// A log whose records were replayed, and that is not being written yet.
pub struct Recovered {
    store: Store,
    found: Replay,
}

impl Store {
    /// Takes the directory, which is made if needed, and looks at what is in it.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, options: Options) -> Result<Self, OpenError> {
        options.check()?;
        disk.create_dir(dir).map_err(OpenError::io(dir))?;
        let lock_path = dir.join(LOCK_FILE);
        let lock = disk.lock(&lock_path).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => OpenError::Locked { dir: dir.into() },
            _ => OpenError::Io { path: lock_path.clone(), error },
        })?;
        let mut store = Self {
            disk,
            dir: dir.into(),
            options,
            lock,
            id: StoreId::default(),
            is_new: true,
            has_identity: false,
            segments: Vec::new(),
            spares: VecDeque::new(),
            leftovers: Vec::new(),
            cold: BTreeMap::new(),
            cold_reserved: 0,
            next_file: 0,
        };
        store.list()?;
        store.identify()?;
        Ok(store)
    }

    /// Identity of the store, made with its directory.
    pub fn id(&self) -> StoreId {
        self.id
    }

    /// There was nothing in the directory.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Where the oldest segment begins.
    pub fn first(&self) -> Position {
        self.segments.first().map_or(Position(0), |segment| segment.header.first)
    }

    fn list(&mut self) -> Result<(), OpenError> {
        let mut found = self.disk.list(&self.dir).map_err(OpenError::io(&self.dir))?;
        found.sort_by(|one, other| one.name.cmp(&other.name));
        for file in found {
            let path = self.dir.join(&file.name);
            match file_kind(&file.name) {
                FileKind::Segment(number) => {
                    let header = self.header(&path)?;
                    if header.number != number || header.purpose != Purpose::Log {
                        return Err(damaged(&path, number, header.first, "the segment's header is of another segment"));
                    }
                    if file.bytes < header.file_bytes {
                        return Err(damaged(&path, number, header.first, "the file was cut short"));
                    }
                    self.segments.push(SegmentFile { path, name: file.name, file_bytes: file.bytes, header });
                }
                FileKind::Cold(number) => {
                    let header = self.header(&path)?;
                    let Purpose::Cold { owner } = header.purpose else {
                        return Err(damaged(
                            &path,
                            number.into(),
                            header.first,
                            "the file's header is of another kind",
                        ));
                    };
                    if file.bytes < header.file_bytes {
                        return Err(damaged(&path, number.into(), header.first, "the file was cut short"));
                    }
                    self.cold.insert(number, ColdFile { number, owner, file_bytes: file.bytes });
                }
                FileKind::Spare(number) => {
                    self.next_file = self.next_file.max(number);
                    if file.bytes == self.options.segment_bytes {
                        self.spares.push_back(file.name);
                    } else {
                        self.leftovers.push(file.name);
                    }
                }
                FileKind::New => self.leftovers.push(file.name),
                FileKind::Other => self.has_identity |= file.name == IDENTITY_FILE,
            }
        }
        Ok(())
    }

    fn header(&self, path: &Path) -> Result<SegmentHeader, OpenError> {
        let file = self.disk.open(path, Access::Read).map_err(OpenError::io(path))?;
        read_header(&*file, path)
    }

    /// All files are of one store; one that has an identity has segments, too.
    fn identify(&mut self) -> Result<(), OpenError> {
        let path = self.dir.join(IDENTITY_FILE);
        let known = if self.has_identity {
            let file = self.disk.open(&path, Access::Read).map_err(OpenError::io(&path))?;
            let header = read_header(&*file, &path)?;
            self.cold_reserved = header.cold_reserved;
            Some(header.store)
        } else {
            None
        };
        let Some(last) = self.segments.last() else {
            if known.is_some() {
                return Err(OpenError::SegmentMissing { dir: self.dir.clone(), position: Position(0) });
            }
            getrandom::fill(&mut self.id)
                .map_err(|error| OpenError::Io { path, error: std::io::Error::other(error.to_string()) })?;
            return Ok(());
        };
        self.id = known.unwrap_or(last.header.store);
        // The identity is written after the first segment, and before its first batch.
        if known.is_none() && (self.segments.len() > 1 || last.header.number > 1) {
            return Err(damaged(&path, last.header.number, last.header.first, "the file is missing"));
        }
        self.is_new = false;
        for segment in &self.segments {
            if segment.header.store != self.id {
                let (number, first) = (segment.header.number, segment.header.first);
                return Err(damaged(&segment.path, number, first, "the segment is of another store"));
            }
        }
        Ok(())
    }

    /// Hands out every record from `from` on, in order, each in a verified batch. `from` is a place
    /// between records that was flushed: a checkpoint's, or 0.
    ///
    /// An error of `each` ends the replay with nothing changed.
    pub fn replay<E: From<OpenError>>(
        self,
        from: Position,
        mut each: impl FnMut(Record<'_>, &BatchHeader) -> Result<(), E>,
    ) -> Result<Recovered, E> {
        let missing = |position| OpenError::SegmentMissing { dir: self.dir.clone(), position };
        let begin = self.segments.partition_point(|segment| segment.header.first <= from);
        if begin == 0 && (from.0 > 0 || !self.segments.is_empty()) {
            return Err(missing(from).into());
        }
        let mut state = Replay::default();
        for at in begin.saturating_sub(1)..self.segments.len() {
            let segment = &self.segments[at];
            let next = self.segments.get(at + 1);
            if let Some(next) = next
                && next.header.number != segment.header.number + 1
            {
                return Err(missing(next.header.first).into());
            }
            let mut scanner = Scanner::open(&*self.disk, &segment.path)?;
            state.begin(&scanner, at)?;
            let is_bad = loop {
                if next.is_some_and(|next| next.header.first == scanner.next) {
                    break None;
                }
                match scanner.step().map_err(OpenError::io(&segment.path))? {
                    Found::Bad(what) => break Some(what),
                    Found::Batch(header, batch) => {
                        state.note(&header);
                        if header.end() <= from {
                            continue;
                        }
                        for record in Records::new(batch, &header) {
                            match record {
                                // What a salvage could not save is nothing to replay.
                                Ok(record) if record.head.kind == LOST => {}
                                Ok(record) if record.position >= from => each(record, &header)?,
                                Ok(_) => {}
                                Err(what) => {
                                    return Err(
                                        damaged(&segment.path, segment.header.number, header.first, what).into()
                                    );
                                }
                            }
                        }
                    }
                }
            };
            state.end = scanner.next;
            state.number = scanner.number;
            state.chain = scanner.chain;
            if let Some(what) = is_bad {
                self.judge(&mut state, &mut scanner, at, from, what)?;
                break;
            }
        }
        Ok(Recovered { store: self, found: state })
    }

    /// No batch follows at `scanner.next`, in the segment `at`: the end of the log, torn or not, or
    /// damage?
    fn judge(
        &self,
        state: &mut Replay,
        scanner: &mut Scanner,
        at: usize,
        from: Position,
        what: &'static str,
    ) -> Result<(), OpenError> {
        let bad = scanner.next;
        let (mut watermark, remains) = scanner.look_behind(bad).map_err(OpenError::io(&scanner.path))?;
        let mut is_torn = remains > scanner.header.place(bad);
        for later in &self.segments[at + 1..] {
            is_torn = true;
            watermark = watermark.max(later.header.watermark);
            let mut scanner = Scanner::open(&*self.disk, &later.path)?;
            let first = later.header.first;
            watermark = watermark.max(scanner.look_behind(first).map_err(OpenError::io(&later.path))?.0);
        }
        if bad < watermark || bad < from {
            return Err(scanner.corruption(bad, what).into());
        }
        state.remains = remains;
        if is_torn {
            state.torn = Some(Torn { file: scanner.path.clone(), position: bad, what });
        }
        Ok(())
    }
}

/// What a replay has learnt so far.
#[derive(Default)]
struct Replay {
    /// Segments that were replayed or lie before; those after are cut off with the torn tail.
    kept: usize,
    end: Position,
    number: u64,
    chain: u32,
    watermark: Position,
    epoch: u64,
    time_ms: u64,
    torn: Option<Torn>,
    /// Place in the last segment's file up to which something may look like a batch behind the end.
    remains: u64,
}

impl Replay {
    fn begin(&mut self, scanner: &Scanner, at: usize) -> Result<(), OpenError> {
        let header = &scanner.header;
        let follows = self.end == header.first && self.chain == header.chain && self.number == header.batch;
        if self.kept > 0 && !follows {
            return Err(scanner.corruption(header.first, "the segment does not follow the one before it").into());
        }
        self.kept = at + 1;
        self.watermark = self.watermark.max(header.watermark);
        self.epoch = self.epoch.max(header.epoch);
        self.time_ms = self.time_ms.max(header.time_ms);
        Ok(())
    }

    fn note(&mut self, header: &BatchHeader) {
        self.watermark = self.watermark.max(header.watermark);
        self.epoch = self.epoch.max(header.epoch);
        self.time_ms = self.time_ms.max(header.time_ms);
    }
}

impl Recovered {
    /// Identity of the store.
    pub fn id(&self) -> StoreId {
        self.store.id
    }

    /// Place after the last record that was found.
    pub fn end(&self) -> Position {
        self.found.end
    }

    /// The latest epoch in what was replayed.
    pub fn epoch(&self) -> u64 {
        self.found.epoch
    }

    /// The latest time of the broker in what was replayed: it must not run backwards from there.
    pub fn time_ms(&self) -> u64 {
        self.found.time_ms
    }

    /// The end was torn; what was cut off was never flushed.
    pub fn torn(&self) -> Option<&Torn> {
        self.found.torn.as_ref()
    }

    /// Cuts off a torn tail, makes everything that was replayed durable, and starts the log.
    pub fn start(self, epoch: u64, owner: Arc<dyn Owner>) -> Result<Log, OpenError> {
        let (shared, writer) = self.prepare(epoch, owner)?;
        let mut threads = Vec::new();
        let mut spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let guard = FailOnPanic(shared.clone());
            let run = move || {
                run();
                drop(guard);
            };
            let spawned = std::thread::Builder::new().name(name.into()).spawn(run);
            spawned.map(|thread| threads.push(thread)).map_err(OpenError::io(&shared.dir))
        };
        let (housekeeper, scrubber) = (Housekeeper::new(shared.clone()), Scrubber::new(shared.clone()));
        let spawned = spawn("tern-log", Box::new(move || writer.run()))
            .and_then(|()| spawn("tern-log-spare", Box::new(move || housekeeper.run())))
            .and_then(|()| match shared.options.scrub_bytes_per_sec {
                0 => Ok(()),
                _ => spawn("tern-log-scrub", Box::new(move || scrubber.run())),
            });
        // Dropped if a thread is missing, which ends the others.
        let log = Log::new(shared.clone(), threads);
        spawned.map(|()| log)
    }

    /// All of [`Recovered::start`] but the threads.
    pub(super) fn prepare(mut self, epoch: u64, owner: Arc<dyn Owner>) -> Result<(Arc<Shared>, Writer), OpenError> {
        self.remove_leftovers()?;
        // If only the process ended, names that we see may not be on the disk yet: the segment that we
        // go on writing, for one.
        self.store.disk.sync_dir(&self.store.dir).map_err(OpenError::io(&self.store.dir))?;
        if self.store.segments.is_empty() {
            self.create_first(epoch)?;
        }
        self.remove_cut_off()?;
        self.sync_kept()?;
        let (active, tail) = self.write_end()?;
        if !self.store.has_identity {
            self.write_identity()?;
        }

        let Store { disk, dir, options, lock, id, segments, spares, cold, cold_reserved, next_file, .. } = self.store;
        let next_cold = cold.keys().last().copied().unwrap_or(0).max(cold_reserved);
        let end_of = |at: usize| segments.get(at + 1).map(|next: &SegmentFile| next.header.first);
        let is_gap_after = |at: usize| {
            let (this, next): (&SegmentFile, Option<&SegmentFile>) = (&segments[at], segments.get(at + 1));
            next.is_some_and(|next| next.header.number != this.header.number + 1)
        };
        let live = segments.iter().enumerate().map(|(at, segment)| Segment {
            number: segment.header.number,
            first: segment.header.first,
            end: end_of(at).map(|end| end.min(segment.header.first.plus(segment.file_bytes as usize))),
            is_end_late: is_gap_after(at),
            file_bytes: segment.file_bytes,
        });
        let segments = Segments {
            live: live.collect(),
            spares,
            dead: Vec::new(),
            cold,
            next_cold,
            next_file,
            is_full: false,
            is_stuck: false,
            has_chores: true,
        };
        let gather = Gather::new(self.found.end, epoch.max(self.found.epoch), options.batch_bytes_max);
        let shared = Shared::new(options, disk, dir, id, owner, gather, segments, self.found.time_ms, lock);
        let shared = Arc::new(shared);
        let resume = Resume { tail, number: self.found.number, chain: self.found.chain, end: self.found.end };
        let writer = Writer::new(shared.clone(), active, resume);
        Ok((shared, writer))
    }

    fn remove_leftovers(&mut self) -> Result<(), OpenError> {
        for name in std::mem::take(&mut self.store.leftovers) {
            let path = self.store.dir.join(name);
            self.store.disk.remove(&path).map_err(OpenError::io(&path))?;
        }
        Ok(())
    }

    fn create_first(&mut self, epoch: u64) -> Result<(), OpenError> {
        let store = &mut self.store;
        let header = SegmentHeader {
            purpose: Purpose::Log,
            store: store.id,
            number: 1,
            first: Position(0),
            watermark: Position(0),
            chain: 0,
            batch: 1,
            epoch,
            time_ms: 0,
            file_bytes: store.options.segment_bytes,
            cold_reserved: 0,
        };
        // A file of a first start that was cut short may be there already.
        let name = store.spares.pop_front();
        let (name, file) = match name {
            Some(name) => (name, None),
            None => {
                let name = "new-first".to_owned();
                let path = store.dir.join(&name);
                let made = store.disk.create(&path, access_of(store.options.sync)).and_then(|file| {
                    file.allocate(store.options.segment_bytes)?;
                    Ok(file)
                });
                (name, Some(made.map_err(OpenError::io(&path))?))
            }
        };
        let active = begin_segment(&*store.disk, &store.dir, &name, file, &header, store.options.sync)
            .map_err(OpenError::io(&store.dir))?;
        let name = super::segments::segment_name(1);
        store.segments.push(SegmentFile { path: active.path, name, file_bytes: active.file_bytes, header });
        (self.found.kept, self.found.number) = (1, 1);
        self.found.remains = SEGMENT_HEADER_BYTES as u64;
        Ok(())
    }

    /// Segments behind the torn place. The last goes first: they stay without a gap at every moment.
    fn remove_cut_off(&mut self) -> Result<(), OpenError> {
        let store = &mut self.store;
        while store.segments.len() > self.found.kept {
            let Some(segment) = store.segments.pop() else { break };
            if segment.file_bytes == store.options.segment_bytes {
                store.next_file += 1;
                let spare = format!("spare-{:08x}", store.next_file);
                store.disk.rename(&segment.path, &store.dir.join(&spare)).map_err(OpenError::io(&segment.path))?;
                store.spares.push_back(spare);
            } else {
                store.disk.remove(&segment.path).map_err(OpenError::io(&segment.path))?;
            }
            store.disk.sync_dir(&store.dir).map_err(OpenError::io(&store.dir))?;
            debug_assert!(!segment.name.is_empty());
        }
        Ok(())
    }

    /// What was replayed counts as flushed from now on, so it must be durable, although a crash of the
    /// process alone may have left it in the page cache.
    fn sync_kept(&self) -> Result<(), OpenError> {
        let Some((_, before)) = self.store.segments.split_last() else { return Ok(()) };
        for (at, segment) in before.iter().enumerate() {
            if self.store.segments[at + 1].header.first > self.found.watermark {
                let file = self.store.disk.open(&segment.path, Access::Write).map_err(OpenError::io(&segment.path))?;
                file.sync_data().map_err(OpenError::io(&segment.path))?;
            }
        }
        Ok(())
    }

    /// Writes the last segment again from the watermark to the end, and zeros over what is left of torn
    /// batches behind it. Writing rather than syncing, because after a failed sync the page cache shows
    /// bytes that the disk does not have, and another sync would not tell.
    fn write_end(&self) -> Result<(Active, Vec<u8>), OpenError> {
        let store = &self.store;
        let segment = store.segments.last().expect("create_first() made one");
        let io = || OpenError::io(&segment.path);
        let block = BLOCK_BYTES as u64;
        let end = segment.header.place(self.found.end);
        let begin = segment.header.place(self.found.watermark.clamp(segment.header.first, self.found.end));
        let remains = self.found.remains.max(end).next_multiple_of(block).min(segment.file_bytes);

        let reader = store.disk.open(&segment.path, Access::Read).map_err(io())?;
        let file: Box<dyn File> = store.disk.open(&segment.path, access_of(store.options.sync)).map_err(io())?;
        let mut buffer = Buffer::new(PIECE_BYTES);
        let mut at = begin - begin % block;
        while at < remains {
            let piece = (remains - at).min(PIECE_BYTES as u64) as usize;
            let bytes = &mut buffer.bytes_mut()[..piece];
            bytes.fill(0);
            let kept = end.saturating_sub(at).min(piece as u64) as usize;
            let filled = reader.read_full_at(&mut bytes[..kept], at).map_err(io())?;
            if filled < kept {
                let error = std::io::ErrorKind::UnexpectedEof.into();
                return Err(OpenError::Io { path: segment.path.clone(), error });
            }
            file.write_all_at(bytes, at).map_err(io())?;
            at += piece as u64;
        }
        file.sync_data().map_err(io())?;
        let mut tail = vec![0; (end % block) as usize];
        reader.read_full_at(&mut tail, end - end % block).map_err(io())?;
        let active =
            Active { file, path: segment.path.clone(), first: segment.header.first, file_bytes: segment.file_bytes };
        Ok((active, tail))
    }

    /// A directory with an identity and without segments has lost them.
    fn write_identity(&mut self) -> Result<(), OpenError> {
        let store = &self.store;
        let header = SegmentHeader::identity(store.id, store.cold_reserved);
        let written = write_identity(&*store.disk, &store.dir, "new-identity", &header);
        written.map_err(OpenError::io(&store.dir.join(IDENTITY_FILE)))
    }
}

/// A thread that dies of a mistake of ours must not leave a log that silently flushes nothing.
struct FailOnPanic(Arc<Shared>);

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(&self.0.dir, "a thread of the log", &std::io::Error::other("it panicked"));
        }
    }
}

fn damaged(path: &Path, segment: u64, position: Position, what: &'static str) -> OpenError {
    OpenError::Corrupt(super::error::Corruption { file: path.into(), segment, position, what })
}
