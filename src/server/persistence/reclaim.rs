//! Gives up what of the log nobody needs, and moves what keeps the rest from being given up.
//!
//! The index names every message whose place is before what a checkpoint covers, so a walk over it
//! ([`Usage`]) tells how much of each segment and of each cold file is alive. What has nothing alive is
//! given up; while the files together are larger than twice what is alive and some slack, the sparsest
//! are emptied: their messages are copied into cold files, those of a queue that has many there into files
//! of its own, those of all others into common ones: a file for each of a thousand slow queues would cost a
//! sync each, for a message or two. A walk is made when it is worth it, since it costs up to a second for a
//! few million messages.
//!
//! ```text
//! checkpoint N     walk: file A is dead; file B is sparse: its messages are copied, the copies synced
//! checkpoint N+1   the index names the copies; A, which neither N nor N+1 names, is given up; walk: B is dead
//! checkpoint N+2   B is given up
//! ```
//!
//! What is dead at one checkpoint is dead at every later one: later records are behind what it covers,
//! and a copy is named by the next checkpoint or never. So a copy that was cut short by a crash is
//! given up like anything else. Nothing is given up that the checkpoint before the last one covers not,
//! or names: a damaged index falls back to that.
//!
//! A record whose parts fill more than a segment is not moved: its segments stay. The messages that one
//! exchange holds back are moved like those of a queue.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use super::{
    entries,
    journal::{CHAINED, PART, chain_of},
};
use crate::{
    broker::{
        exchange::{Exchange, holds::HoldEntry},
        queue::{
            Queue,
            cold::{ColdEntry, Relocated},
        },
        record::{Position, QueueId},
    },
    store::{
        self, Block, ColdWriter, Found, Head, Log, ReadError, Reading, Record, SegmentInfo,
        index::{self, Changes, Index, Rank, Snapshot},
    },
};

/// See the module's text.
pub(super) struct Reclaimer {
    log: Arc<Log>,
    index: Arc<Index>,
    options: Options,
    /// Files that had nothing alive at the last checkpoint.
    dead: Vec<File>,
    /// What was copied since the last checkpoint.
    moves: HashMap<QueueId, Vec<Relocated>>,
    /// The same of messages that an exchange holds back, at their new places.
    hold_moves: HashMap<Position, Vec<HoldEntry>>,
    /// Messages that are held back, and the bytes of their bodies, as the last walk found them.
    held: (u64, u64),
    /// Where the parts of long records are, by the record's place; empty for a record that has none.
    parts: HashMap<Position, Vec<store::Position>>,
    /// What was alive of each cold file when it was first looked at. What an entry says of the size of its
    /// record is an estimate; beside this the copies of a copy would look as sparse as the copy.
    first_live: HashMap<u32, u64>,
    /// Checkpoints without a walk, after one that cost much and led to nothing.
    rest: u64,
    is_wanted: bool,
    is_emptied: bool,
}

/// What the reclaimer has to know of the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    /// What the files may be larger than twice what is alive.
    pub(super) slack_bytes: u64,
    /// Size of a segment: no cold file is longer.
    pub(super) segment_bytes: u64,
}

/// A file of the log, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum File {
    Segment(u64),
    Cold(u32),
}

/// What is alive in a file.
#[derive(Debug, Default)]
struct FileUsage {
    file_bytes: u64,
    live_bytes: u64,
    /// Whose messages a cold file has, and what of them was alive when it was new.
    first: Option<(u64, u64)>,
    /// Everything before its end is in the index.
    is_covered: bool,
    /// Something in it is not moved.
    is_pinned: bool,
}

/// What is alive in which file.
struct Usage {
    segments: Vec<SegmentInfo>,
    files: BTreeMap<File, FileUsage>,
    /// The first and the last that an owner has in a file: by seq, or by when it is due.
    spans: HashMap<(File, u64), (u64, u64)>,
    entries_count: u64,
    /// What was added last: what an owner has in its order lies in few files, one after the other.
    run: Option<Run>,
}

/// What one owner has alive in a file.
struct Run {
    file: File,
    /// Positions in that file.
    places: Range<u64>,
    owner: u64,
    live_bytes: u64,
    /// The first and the last.
    span: (u64, u64),
}

/// A record and its header, and what the properties of a message take, about.
const MESSAGE_OVERHEAD_BYTES: u64 = 96;
/// What is reckoned for a part of a long record that is not moved.
const PINNED_BYTES: u64 = 1_024;
/// Entries of the index that are walked over at every checkpoint, needed or not.
const FEW_ENTRIES: u64 = 16_384;
/// Entries after which a walk that led to nothing is followed by one checkpoint more without any.
const ENTRIES_PER_REST: u64 = 1 << 20;
/// Checkpoints without a walk at most.
const REST_MAX: u64 = 60;
/// Bytes that are copied between two checkpoints, about.
const COPIED_BYTES_MAX: u64 = 96 << 20;
/// Messages that are copied between two checkpoints: until then memory has their places.
const COPIED_MESSAGES_MAX: usize = 128 << 10;
/// A queue has a cold file of its own from so many bytes on: it can be given up as soon as the queue has
/// gone on.
const OWN_FILE_BYTES: u64 = 1 << 20;
/// The owner of cold files with messages of several queues; no queue has this identity.
const COMMON: u64 = u64::MAX;
/// Small cold files of one queue, or of several, that are put together.
const SMALL_FILES_MAX: usize = 4;
/// Threads that read what is copied. A disk serves several small reads in the time of one.
const READERS: usize = 8;
/// Messages that one of them reads before what was read is written, and bytes of bodies that all do.
const READ_MAX: usize = 64;
const READ_BYTES_MAX: u64 = 16 << 20;

impl Reclaimer {
    /// A reclaimer of that log.
    pub(super) fn new(log: Arc<Log>, index: Arc<Index>, options: Options) -> Self {
        // Those that a crash left without a name in the index are found by the first walk.
        let is_wanted = !log.cold_files().is_empty();
        Self {
            log,
            index,
            options,
            dead: Vec::new(),
            moves: HashMap::new(),
            hold_moves: HashMap::new(),
            held: (0, 0),
            parts: HashMap::new(),
            first_live: HashMap::new(),
            rest: 0,
            is_wanted,
            is_emptied: is_wanted,
        }
    }

    /// Whether a checkpoint would give up something.
    pub(super) fn wants_checkpoint(&self) -> bool {
        self.is_wanted
    }

    #[cfg(test)]
    pub(super) fn set_slack_bytes(&mut self, slack_bytes: u64) {
        self.options.slack_bytes = slack_bytes;
    }

    /// Many messages went at once: it is worth looking.
    pub(super) fn note_emptied(&mut self) {
        self.is_emptied = true;
    }

    /// Says to a queue where its messages were copied to. To be called before its look, and before the
    /// look is in `changes`: what it says has gone is gone.
    pub(super) fn tell(&mut self, queue: &Queue, changes: &mut Changes) {
        if self.moves.is_empty() {
            return;
        }
        let Some(moves) = self.moves.remove(&queue.id) else { return };
        if !queue.is_stream() {
            return queue.relocated(&moves);
        }
        // A message of a stream never changes, and goes only below a head.
        for Relocated { entry, place } in moves {
            let moved = ColdEntry { place, ..entry };
            changes.put(entries::message_key(queue.id, moved.level, moved.seq), &entries::put_message(&moved));
        }
    }

    /// The same for an exchange, of the messages that it holds back.
    pub(super) fn tell_exchange(&mut self, exchange: &Exchange) {
        if let Some(moves) = self.hold_moves.remove(&exchange.identity()) {
            exchange.relocated(&moves);
        }
    }

    /// To be called after every checkpoint, with the number of messages that the index has and the bytes
    /// of their bodies. `chain_bytes_max` is zero while no record has parts; those that have hold bodies of
    /// `long_body_min` bytes or more. May take a while.
    #[expect(clippy::disallowed_methods, reason = "tells operators how long it took; decides nothing")]
    pub(super) fn reclaim(&mut self, indexed: (u64, u64), chain_bytes_max: u64, long_body_min: u64) {
        let Some(checkpoint) = self.index.checkpoint() else { return };
        // Of queues that have gone meanwhile: nobody names those copies.
        self.moves.clear();
        self.hold_moves.clear();
        self.give_up(checkpoint.previous_covered.unwrap_or(0));
        self.is_wanted = false;
        if self.rest > 0 && !self.is_emptied {
            self.rest -= 1;
            return;
        }
        let (count, bytes) = (indexed.0 + self.held.0, indexed.1 + self.held.1);
        let live_bytes = bytes + count * MESSAGE_OVERHEAD_BYTES;
        if !self.is_worth_it(live_bytes, checkpoint.covered) {
            return;
        }
        self.is_emptied = false;
        let begun = Instant::now();
        match self.walk(checkpoint.covered, chain_bytes_max, long_body_min) {
            Ok(mut usage) => {
                usage.compare(&mut self.first_live);
                self.dead = usage.dead().collect();
                let sparse = usage.sparse(self.options);
                if !sparse.is_empty() {
                    self.relocate(&usage, &sparse);
                }
                let (dead, sparse) = (self.dead.len(), sparse.len());
                let moved = self.moves.values().map(Vec::len).sum::<usize>();
                tracing::debug!(elapsed = ?begun.elapsed(), dead, sparse, moved, "looked for what the log need not keep");
                self.is_wanted = !self.dead.is_empty() || !self.moves.is_empty() || !self.hold_moves.is_empty();
                if !self.is_wanted {
                    self.rest = (usage.entries_count / ENTRIES_PER_REST).min(REST_MAX);
                }
            }
            Err(error) => {
                tracing::error!(%error, "the index cannot be read: no disk space is given up for a while");
                self.rest = REST_MAX;
            }
        }
    }

    /// Only gives up what is known to be dead, for a checkpoint that is in a hurry.
    pub(super) fn give_up_only(&mut self) {
        self.moves.clear();
        self.hold_moves.clear();
        if let Some(checkpoint) = self.index.checkpoint() {
            self.give_up(checkpoint.previous_covered.unwrap_or(0));
        }
    }

    fn give_up(&mut self, covered: u64) {
        let segments = self.log.segments();
        let mut count = 0;
        for file in std::mem::take(&mut self.dead) {
            count += match file {
                File::Segment(number) => {
                    let is_covered = |segment: &SegmentInfo| segment.number == number && segment.end.0 <= covered;
                    let is_released = segments.iter().any(is_covered) && self.log.drop_segment(number);
                    u64::from(is_released)
                }
                File::Cold(number) => u64::from(self.log.drop_cold(number)),
            };
        }
        if count > 0 {
            tracing::debug!(files = count, "gave up what the log need not keep");
        }
    }

    fn is_worth_it(&self, live_bytes: u64, covered: u64) -> bool {
        let (segments, cold) = (self.log.segments(), self.log.cold_files());
        let is_old = |segment: &SegmentInfo| !segment.is_active && segment.end.0 <= covered;
        if cold.is_empty() && !segments.iter().any(is_old) {
            return false;
        }
        let cold_bytes: u64 = cold.iter().map(|cold| cold.file_bytes).sum();
        let file_bytes = segments.iter().map(|segment| segment.file_bytes).sum::<u64>() + cold_bytes;
        let is_large = file_bytes > 2 * live_bytes + self.options.slack_bytes;
        is_large || self.is_emptied || self.index.stats().entries_count <= FEW_ENTRIES
    }

    /// Walks over the index.
    fn walk(&mut self, covered: u64, chain_bytes_max: u64, long_body_min: u64) -> Result<Usage, index::Error> {
        let snapshot = self.index.snapshot();
        let mut usage = Usage::new(&self.log, covered);
        let has_chains = chain_bytes_max > 0;
        let mut long = HashSet::new();
        let mut note = |of: &mut Self, usage: &mut Usage, (place, body_bytes): (Position, u64), owner, at| {
            let mut bytes = body_bytes;
            // A copy is in one file, with its parts.
            if has_chains && body_bytes >= long_body_min && !is_cold(place) {
                long.insert(place);
                match of.parts_of(place) {
                    Some([]) => {}
                    Some(parts) => {
                        let each = bytes / parts.len() as u64 + 1;
                        parts.iter().for_each(|part| usage.add(placed(*part), each, owner, at));
                        bytes = 0;
                    }
                    None => usage.pin(place, chain_bytes_max),
                }
            }
            usage.add(place, bytes + MESSAGE_OVERHEAD_BYTES, owner, at);
        };
        for (owner, _) in snapshot.owners(entries::MESSAGES) {
            let mut scan = snapshot.scan(entries::MESSAGES, owner, Rank::MIN);
            while let Some((rank, value)) = scan.next_entry()? {
                usage.entries_count += 1;
                let Some(entry) = entries::message(0, rank.seq, value) else { continue };
                note(self, &mut usage, (entry.place, entry.body_bytes), owner, rank.seq);
            }
        }
        self.held = (0, 0);
        for (owner, _) in snapshot.owners(entries::HOLDS) {
            let mut scan = snapshot.scan(entries::HOLDS, owner, Rank::MIN);
            while let Some((rank, value)) = scan.next_entry()? {
                usage.entries_count += 1;
                let Some(entry) = entries::hold(rank, value) else { continue };
                self.held = (self.held.0 + 1, self.held.1 + entry.body_bytes);
                note(self, &mut usage, (entry.place, entry.body_bytes), owner, rank.order);
            }
        }
        self.parts.retain(|place, _| long.contains(place));
        usage.end_run();
        Ok(usage)
    }

    /// Where the parts of a record are; `None` if it cannot be read.
    fn parts_of(&mut self, place: Position) -> Option<&[store::Position]> {
        if !self.parts.contains_key(&place) {
            let mut buffer = Vec::new();
            let record = self.log.read(store::Position(place.0), &mut buffer).ok()?;
            let parts = match record.head.kind {
                CHAINED => chain_of(record.body)?.2.collect(),
                _ => Vec::new(),
            };
            self.parts.insert(place, parts);
        }
        self.parts.get(&place).map(Vec::as_slice)
    }

    /// Copies what is alive in those files, as much as may be copied at once.
    fn relocate(&mut self, usage: &Usage, sparse: &HashSet<File>) {
        let mut owners: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for (&(_, owner), &(first, last)) in usage.spans.iter().filter(|((file, _), _)| sparse.contains(file)) {
            let span = owners.entry(owner).or_insert((first, last));
            *span = (span.0.min(first), span.1.max(last));
        }
        let snapshot = self.index.snapshot();
        let mut common = Vec::new();
        let mut copied = 0;
        let mut owners = owners.into_iter().peekable();
        let mut result = Ok(());
        while let Some(&(owner, span)) = owners.peek()
            && copied < COPIED_MESSAGES_MAX
        {
            if let Some(exchange) = entries::exchange_of(owner) {
                owners.next();
                let left = COPIED_MESSAGES_MAX.saturating_sub(copied);
                let (count, result) = self.relocate_holds(usage, sparse, &snapshot, (owner, exchange), span, left);
                copied += count;
                if let Err(error) = result {
                    tracing::warn!(
                        exchange = exchange.0,
                        error,
                        "messages held back in sparse segments cannot be moved"
                    );
                    return;
                }
                continue;
            }
            if result.is_err() {
                break;
            }
            let queue = entries::queue_of(owner);
            let mut found = Ok(Vec::new());
            while let Some((owner, span)) = owners.next_if(|(owner, _)| entries::queue_of(*owner) == queue) {
                let left = COPIED_MESSAGES_MAX.saturating_sub(copied + found.as_ref().map_or(0, Vec::len));
                found = found.and_then(|mut found: Vec<_>| {
                    found.extend(self.entries_in(usage, sparse, &snapshot, owner, span, left)?);
                    Ok(found)
                });
            }
            copied += found.as_ref().map_or(0, Vec::len);
            result = found.map_err(|error: index::Error| error.to_string()).and_then(|found| {
                let bytes: u64 = found.iter().map(|entry| entry.body_bytes + MESSAGE_OVERHEAD_BYTES).sum();
                let named = found.into_iter().map(|entry| (queue, entry));
                if bytes < OWN_FILE_BYTES {
                    common.extend(named);
                    return Ok(());
                }
                self.relocate_to(queue.0, named.collect())
            });
        }
        // In the order of the log: each segment is gone through once, and not once for each queue.
        common.sort_unstable_by_key(|(_, entry)| entry.place);
        let result = result.and_then(|()| self.relocate_to(COMMON, common));
        if let Err(error) = result {
            // The next walk tries again; until then the disk keeps what it has.
            tracing::warn!(error, "messages of sparse segments cannot be moved");
        }
    }

    /// Copies messages of queues to cold files of that owner.
    fn relocate_to(&mut self, owner: u64, found: Vec<(QueueId, ColdEntry)>) -> Result<(), String> {
        let mut copy = Copy::new(&self.log, owner, self.options);
        let copied = copy.all(&found, |(_, entry)| (entry.place, entry.body_bytes)).and_then(|()| copy.finish());
        for ((queue, entry), place) in copy.done {
            self.moves.entry(queue).or_default().push(Relocated { entry, place });
        }
        copied
    }

    /// Copies up to `max` messages that an exchange holds back; returns how many were found.
    fn relocate_holds(
        &mut self,
        usage: &Usage,
        sparse: &HashSet<File>,
        snapshot: &Arc<Snapshot>,
        (owner, exchange): (u64, Position),
        span: (u64, u64),
        max: usize,
    ) -> (usize, Result<(), String>) {
        let found = match self.holds_in(usage, sparse, snapshot, owner, span, max) {
            Ok(found) => found,
            Err(error) => return (0, Err(error.to_string())),
        };
        let count = found.len();
        let mut copy = Copy::new(&self.log, owner, self.options);
        let result = copy.all(&found, |entry| (entry.place, entry.body_bytes)).and_then(|()| copy.finish());
        let moved: Vec<_> = copy.done.into_iter().map(|(entry, place)| HoldEntry { place, ..entry }).collect();
        if !moved.is_empty() {
            self.hold_moves.insert(exchange, moved);
        }
        (count, result)
    }

    /// Up to `max` entries of an owner that need those files.
    fn entries_in(
        &self,
        usage: &Usage,
        sparse: &HashSet<File>,
        snapshot: &Arc<Snapshot>,
        owner: u64,
        (first, last): (u64, u64),
        max: usize,
    ) -> Result<Vec<ColdEntry>, index::Error> {
        let mut found = Vec::new();
        let mut scan = snapshot.scan(entries::MESSAGES, owner, Rank::new(0, first));
        while let Some((rank, value)) = scan.next_entry()? {
            if rank.seq > last || found.len() >= max {
                break;
            }
            let Some(entry) = entries::message(entries::level_of(owner), rank.seq, value) else { continue };
            if self.is_in(usage, sparse, entry.place) {
                found.push(entry);
            }
        }
        Ok(found)
    }

    /// The same of messages that an exchange holds back.
    fn holds_in(
        &self,
        usage: &Usage,
        sparse: &HashSet<File>,
        snapshot: &Arc<Snapshot>,
        owner: u64,
        (first, last): (u64, u64),
        max: usize,
    ) -> Result<Vec<HoldEntry>, index::Error> {
        let mut found = Vec::new();
        let mut scan = snapshot.scan(entries::HOLDS, owner, Rank::new(first, 0));
        while let Some((rank, value)) = scan.next_entry()? {
            if rank.order > last || found.len() >= max {
                break;
            }
            found.extend(entries::hold(rank, value).filter(|entry| self.is_in(usage, sparse, entry.place)));
        }
        Ok(found)
    }

    /// Whether a record needs one of those files.
    fn is_in(&self, usage: &Usage, sparse: &HashSet<File>, place: Position) -> bool {
        let is_in = |place: Position| usage.file_of(place).is_some_and(|file| sparse.contains(&file));
        let parts = self.parts.get(&place).into_iter().flatten();
        is_in(place) || parts.into_iter().any(|part| is_in(placed(*part)))
    }
}

impl FileUsage {
    /// How much of it is alive, from 0 to 1.
    fn share(&self) -> f64 {
        let whole = self.first.map_or(self.file_bytes, |(_, first)| first);
        (self.live_bytes as f64 / whole.max(1) as f64).min(1.0)
    }
}

impl Usage {
    fn new(log: &Log, covered: u64) -> Self {
        let segments = log.segments();
        let of_log = segments.iter().map(|segment| {
            let is_covered = !segment.is_active && segment.end.0 <= covered;
            let (file, file_bytes) = (File::Segment(segment.number), segment.file_bytes);
            (file, FileUsage { file_bytes, is_covered, ..FileUsage::default() })
        });
        let cold = log.cold_files().into_iter().map(|cold| {
            let file_bytes = cold.file_bytes;
            let first = Some((cold.owner, 0));
            (File::Cold(cold.number), FileUsage { file_bytes, first, is_covered: true, ..FileUsage::default() })
        });
        let files = of_log.chain(cold).collect();
        Self { segments, files, spans: HashMap::new(), entries_count: 0, run: None }
    }

    fn file_of(&self, place: Position) -> Option<File> {
        self.file_around(place).map(|(file, _)| file)
    }

    /// The file of a place, with the positions that are in it.
    fn file_around(&self, place: Position) -> Option<(File, Range<u64>)> {
        let place = store::Position(place.0);
        if let Some(number) = place.cold_file() {
            return Some((File::Cold(number), store::Position::in_cold_file(number)));
        }
        let after = self.segments.partition_point(|segment| segment.first <= place);
        let segment = self.segments.get(after.checked_sub(1)?)?;
        let next = self.segments.get(after).map_or(u64::MAX, |next| next.first.0);
        Some((File::Segment(segment.number), segment.first.0..next))
    }

    /// Something of an owner is alive there.
    fn add(&mut self, place: Position, bytes: u64, owner: u64, seq: u64) {
        if let Some(run) = self.run.as_mut().filter(|run| run.owner == owner && run.places.contains(&place.0)) {
            run.live_bytes += bytes;
            run.span = (run.span.0.min(seq), run.span.1.max(seq));
            return;
        }
        self.end_run();
        self.run = self.file_around(place).map(|(file, places)| Run {
            file,
            places,
            owner,
            live_bytes: bytes,
            span: (seq, seq),
        });
    }

    fn end_run(&mut self) {
        let Some(Run { file, owner, live_bytes, span: (first, last), .. }) = self.run.take() else { return };
        if let Some(usage) = self.files.get_mut(&file) {
            usage.live_bytes += live_bytes;
            let span = self.spans.entry((file, owner)).or_insert((first, last));
            *span = (span.0.min(first), span.1.max(last));
        }
    }

    /// Something is alive there, or up to so many bytes before, and cannot be moved.
    fn pin(&mut self, place: Position, bytes_before: u64) {
        let from = if is_cold(place) { place.0 } else { place.0.saturating_sub(bytes_before) };
        let (Some(first), Some(last)) = (self.file_of(Position(from)).or(self.first()), self.file_of(place)) else {
            return;
        };
        for (_, usage) in self.files.range_mut(first.min(last)..=last) {
            usage.is_pinned = true;
            usage.live_bytes += PINNED_BYTES;
        }
    }

    /// Notes what was alive when each cold file was new.
    fn compare(&mut self, first_live: &mut HashMap<u32, u64>) {
        let known = std::mem::take(first_live);
        for (file, usage) in &mut self.files {
            if let (File::Cold(number), Some((_, first))) = (file, &mut usage.first) {
                *first = known.get(number).copied().unwrap_or(usage.live_bytes);
                first_live.insert(*number, *first);
            }
        }
    }

    fn first(&self) -> Option<File> {
        self.segments.first().map(|segment| File::Segment(segment.number))
    }

    fn dead(&self) -> impl Iterator<Item = File> {
        let is_dead = |usage: &FileUsage| usage.is_covered && usage.live_bytes == 0;
        self.files.iter().filter(move |(_, usage)| is_dead(usage)).map(|(file, _)| *file)
    }

    /// The files that are to be emptied, so that all together are no larger than twice what is alive and
    /// a part of the slack: those from which a copy gains most.
    fn sparse(&self, Options { slack_bytes, segment_bytes }: Options) -> HashSet<File> {
        let live_bytes: u64 = self.files.values().map(|usage| usage.live_bytes).sum();
        let kept = self.files.values().filter(|usage| !usage.is_covered || usage.live_bytes > 0);
        let mut file_bytes: u64 = kept.map(|usage| usage.file_bytes).sum();
        if file_bytes <= 2 * live_bytes + slack_bytes {
            return HashSet::new();
        }
        let is_movable = |usage: &&FileUsage| usage.is_covered && !usage.is_pinned && usage.live_bytes > 0;
        let movable = || self.files.iter().filter(|(_, usage)| is_movable(usage));
        let mut candidates: Vec<_> = movable().filter(|(_, usage)| usage.share() < 0.5).collect();
        candidates.sort_by(|(_, one), (_, other)| one.share().total_cmp(&other.share()));
        let (mut sparse, mut copied) = (HashSet::new(), 0);
        for (file, usage) in candidates {
            if file_bytes <= 2 * live_bytes + slack_bytes / 2 || copied >= COPIED_BYTES_MAX {
                break;
            }
            file_bytes -= ((1.0 - usage.share()) * usage.file_bytes as f64) as u64;
            copied += usage.live_bytes;
            sparse.insert(*file);
        }
        // Small files of one queue become one.
        let mut small: BTreeMap<u64, Vec<File>> = BTreeMap::new();
        for (file, usage) in movable().filter(|(_, usage)| usage.file_bytes <= segment_bytes / 4) {
            if let Some((owner, _)) = usage.first {
                small.entry(owner).or_default().push(*file);
            }
        }
        for files in small.into_values().filter(|files| files.len() >= SMALL_FILES_MAX) {
            sparse.extend(files);
        }
        sparse
    }
}

/// Copies messages to cold files of one owner; a `T` names each.
struct Copy<T> {
    log: Arc<Log>,
    owner: u64,
    options: Options,
    /// The file being written, and what is in it.
    file: Option<(ColdWriter, Vec<(T, Position)>)>,
    /// What is in complete files, with its new place.
    done: Vec<(T, Position)>,
}

impl<T: Clone> Copy<T> {
    fn new(log: &Arc<Log>, owner: u64, options: Options) -> Self {
        Self { log: log.clone(), owner, options, file: None, done: Vec::new() }
    }

    /// Copies what is at those places, with bodies of so many bytes.
    fn all(&mut self, found: &[T], place: impl Fn(&T) -> (Position, u64)) -> Result<(), String> {
        let places: Vec<_> = found.iter().map(&place).collect();
        let mut done = 0;
        while done < found.len() {
            let mut bytes = 0;
            let fits = places[done..].iter().take(READERS * READ_MAX).take_while(|(_, body_bytes)| {
                bytes += body_bytes;
                bytes <= READ_BYTES_MAX
            });
            let end = done + fits.count().max(1);
            let wanted: Vec<_> = places[done..end].iter().map(|(place, _)| store::Position(place.0)).collect();
            for (entry, read) in found[done..end].iter().zip(read_all(&self.log, &wanted)) {
                match read {
                    Ok((position, head, body)) => self.one(entry, Record { position, head, body: &body })?,
                    // Whoever wants the message is told; what cannot be read stays where it is.
                    Err(error @ ReadError::Corrupt(_)) => {
                        tracing::error!(%error, owner = self.owner, "a message cannot be moved");
                    }
                    Err(error) => return Err(error.to_string()),
                }
            }
            done = end;
        }
        Ok(())
    }

    fn one(&mut self, entry: &T, record: Record<'_>) -> Result<(), String> {
        let place = if record.head.kind == CHAINED {
            let (log, mut buffer) = (self.log.clone(), Vec::new());
            let (kind, version, parts) =
                chain_of(record.body).ok_or_else(|| format!("position {} is no chain", record.position))?;
            let parts: Vec<_> = parts.collect();
            // All of it in one file, so that the file lives as long as the message.
            let bytes_max = parts.len() as u64 * (log.body_bytes_max() as u64 + RECORD_BYTES);
            let Some(bytes) = bytes_max.checked_add(record.body.len() as u64 + RECORD_BYTES) else { return Ok(()) };
            if bytes + FILE_HEADER_BYTES > self.options.segment_bytes {
                return Ok(());
            }
            self.make_room(bytes)?;
            let mut chain = vec![kind, version];
            for part in parts {
                let part = log.read(part, &mut buffer).map_err(|error| error.to_string())?;
                if part.head.kind != PART {
                    return Err(format!("position {} is no part", part.position));
                }
                let place = self.append(part.head, part.body)?;
                chain.extend(place.0.to_le_bytes());
            }
            self.append(record.head, &chain)?
        } else {
            self.make_room(record.body.len() as u64 + RECORD_BYTES)?;
            self.append(record.head, record.body)?
        };
        if let Some((_, moved)) = &mut self.file {
            moved.push((entry.clone(), placed(place)));
        }
        Ok(())
    }

    /// Has a file that takes so many bytes.
    fn make_room(&mut self, bytes: u64) -> Result<(), String> {
        let is_full = |file: &ColdWriter| file.file_bytes() + bytes > self.options.segment_bytes;
        if self.file.as_ref().is_some_and(|(file, _)| is_full(file)) {
            self.finish()?;
        }
        if self.file.is_none() {
            let file = self.log.cold_writer(self.owner).map_err(|error| error.to_string())?;
            self.file = Some((file, Vec::new()));
        }
        Ok(())
    }

    fn append(&mut self, head: Head, body: &[u8]) -> Result<store::Position, String> {
        let (file, _) = self.file.as_mut().ok_or("there is no cold file")?;
        let place = file.append(head, body).map_err(|error| error.to_string())?;
        place.ok_or_else(|| format!("a cold file has no room for a record of {} bytes", body.len()))
    }

    /// Makes durable what was copied.
    fn finish(&mut self) -> Result<(), String> {
        if let Some((file, moved)) = self.file.take() {
            file.finish().map_err(|error| error.to_string())?;
            self.done.extend(moved);
        }
        Ok(())
    }
}

type Read = Result<(store::Position, Head, Vec<u8>), ReadError>;

/// The records at those places, in their order, read by several threads if they are many.
fn read_all(log: &Log, places: &[store::Position]) -> Vec<Read> {
    let read = |places: &[store::Position]| {
        let (mut found, mut block) = (Vec::with_capacity(places.len()), Block::default());
        log.read_many(places, Reading::Once, &mut block, |_, read| {
            found.push(read.map(|Found { record, .. }| (record.position, record.head, record.body.to_vec())));
        });
        found
    };
    if places.len() <= READ_MAX {
        return read(places);
    }
    thread::scope(|scope| {
        let readers: Vec<_> = places.chunks(READ_MAX).map(|places| scope.spawn(move || read(places))).collect();
        readers.into_iter().flat_map(|reader| reader.join().expect("a reader does not panic")).collect()
    })
}

/// What a record takes beside its body.
const RECORD_BYTES: u64 = 12;
/// What a cold file begins with.
const FILE_HEADER_BYTES: u64 = 4_096;

fn is_cold(place: Position) -> bool {
    store::Position(place.0).is_cold()
}

fn placed(position: store::Position) -> Position {
    Position(position.0)
}
