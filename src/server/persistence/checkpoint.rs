//! Checkpoints: what the log says goes into the index, so that the log before need not be kept nor
//! replayed.
//!
//! A checkpoint covers the place at which the one before it began. So a queue that flows has nothing
//! to tell: what came since is replayed, what was there before has gone. What is told is what outlived
//! that time, and all of a queue that is longer than its window, which then leaves memory.
//!
//! ```text
//!  ─ released ─┬──── kept for messages ────┬─── replayed ───┬── flushed ──▶ log
//!              oldest message in the index  covered          boundary: the next checkpoint covers this
//! ```
//!
//! A record between `covered` and the moment of a look is repeated at start, though the index knows it
//! already. That comes to the same: a message that the index has is not entered twice, one that it has
//! not cannot leave, and counts are told as they are. Definitions are told at a place of their own
//! ([`Broker::snapshot`]), and records of them before it are passed over.
//!
//! The log is kept from what the checkpoint *before* the last one covers, since a damaged index falls
//! back to that. What is before has to be kept where either of them names a message in it (`reclaim`).

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::{
    Watcher, entries,
    journal::LogJournal,
    reclaim::{self, Reclaimer},
};
use crate::{
    admin::node::Store,
    broker::{
        Broker,
        exchange::holds::HoldsLook,
        queue::{
            Queue,
            cold::{Look, Window},
            dedup::SeenLook,
        },
        record::{Decoder, HoldId, Journal as _, Position, QueueId, Record, encode},
        snapshot::Snapshot,
    },
    server::options::Persistence,
    store::{
        self, Log,
        index::{self, Changes, Index, Key, NewCheckpoint, Rank},
    },
};

/// Why no checkpoint was made.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The log has failed.
    #[error(transparent)]
    Log(#[from] store::Failure),
    /// The log could not be copied.
    #[error("the log cannot be copied: {0}")]
    Copy(std::io::Error),
    /// The index could not be written.
    #[error(transparent)]
    Index(#[from] index::Error),
}

/// Makes checkpoints when enough has been logged, on a thread of its own.
pub(super) struct Checkpointer {
    broker: Arc<Broker>,
    log: Arc<Log>,
    journal: Arc<LogJournal>,
    index: Arc<Index>,
    watcher: Arc<Watcher>,
    options: Persistence,
    state: Mutex<State>,
    /// Messages that the index has since the last checkpoint, and bytes of their bodies.
    indexed: (AtomicU64, AtomicU64),
    /// Backups under way: nothing of the log is released.
    backups_count: AtomicUsize,
    is_over: Mutex<bool>,
    signalled: Condvar,
}

/// What one checkpoint leaves to the next.
struct State {
    /// What the next one covers.
    boundary: Position,
    /// The place of the definitions that the index has.
    defined_at: Option<Position>,
    reclaimer: Reclaimer,
}

/// How often the thread looks whether there is something to do.
const LOOK: Duration = Duration::from_millis(50);
/// Attempts after a failure follow each other no faster than this.
const RETRY: Duration = Duration::from_secs(1);
/// Checkpoints after the log has come to rest. The first begins what the second covers, so that a start
/// replays nothing; with the third the one before the last covers it too, and the log is released. Nobody
/// else would: on a full disk publishers wait for just that.
const MADE_AT_REST: u32 = 3;
/// Messages of a queue that stay in memory, whatever their size.
pub(super) const WINDOW_MESSAGES: usize = 16_384;

impl Checkpointer {
    /// A checkpointer for a broker that was replayed from `covered` on.
    pub(super) fn new(
        broker: Arc<Broker>,
        log: Arc<Log>,
        journal: Arc<LogJournal>,
        index: Arc<Index>,
        watcher: Arc<Watcher>,
        options: Persistence,
    ) -> Arc<Self> {
        let reclaim =
            reclaim::Options { slack_bytes: options.reclaim_slack_bytes, segment_bytes: options.log.segment_bytes };
        let reclaimer = Reclaimer::new(log.clone(), index.clone(), reclaim);
        let state = State { boundary: journal.end(), defined_at: None, reclaimer };
        let backups_count = AtomicUsize::new(0);
        let (state, indexed) = (Mutex::new(state), Default::default());
        let (is_over, signalled) = (Mutex::default(), Condvar::new());
        Arc::new(Self {
            broker,
            log,
            journal,
            index,
            watcher,
            options,
            state,
            indexed,
            backups_count,
            is_over,
            signalled,
        })
    }

    /// Begins to make checkpoints.
    pub(super) fn start(self: &Arc<Self>) -> std::io::Result<thread::JoinHandle<()>> {
        let checkpointer = self.clone();
        thread::Builder::new().name("checkpoint".into()).spawn(move || checkpointer.run())
    }

    /// Has the thread end.
    pub(super) fn stop(&self) {
        *self.is_over.lock() = true;
        self.signalled.notify_all();
    }

    /// Waits; false when it is over.
    fn pause(&self, duration: Duration) -> bool {
        let mut is_over = self.is_over.lock();
        if !*is_over {
            self.signalled.wait_for(&mut is_over, duration);
        }
        !*is_over
    }

    #[expect(clippy::disallowed_methods, reason = "paces a thread of its own; the broker sees none of it")]
    fn run(&self) {
        let mut last = Instant::now();
        let mut made_at = self.journal.end();
        // Since the log has last grown.
        let mut made_count = 0;
        while self.pause(LOOK) {
            let end = self.journal.end();
            let has_grown = end.0.saturating_sub(made_at.0) >= self.options.checkpoint_bytes;
            if made_at < end {
                made_count = 0;
            }
            let is_behind = made_count < MADE_AT_REST || self.state.lock().reclaimer.wants_checkpoint();
            let is_time = last.elapsed() >= Duration::from_millis(self.options.checkpoint_ms);
            let is_due = has_grown || is_time && is_behind;
            if !is_due {
                continue;
            }
            (made_at, made_count) = (end, made_count + 1);
            if let Err(error) = self.make() {
                if let Error::Index(index::Error::Failed { .. }) = error {
                    // Memory and the log would only grow from now on.
                    return self.watcher.fail(&error);
                }
                tracing::error!(%error, "no checkpoint could be made; trying again");
                made_count = 0;
                if !self.pause(RETRY) {
                    return;
                }
            }
            last = Instant::now();
        }
    }

    #[cfg(test)]
    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    #[cfg(test)]
    pub(super) fn with_reclaimer<T>(&self, act: impl FnOnce(&mut Reclaimer) -> T) -> T {
        act(&mut self.state.lock().reclaimer)
    }

    /// Makes a checkpoint.
    pub(super) fn make(&self) -> Result<(), Error> {
        self.make_with(&mut self.state.lock())
    }

    /// Copies log and index to these folders, as they are after a checkpoint that is made now. Nothing else
    /// waits for it but the next checkpoints, while the index is copied.
    pub(super) fn copy_to(&self, log: &Path, index: &Path) -> Result<(), Error> {
        self.backups_count.fetch_add(1, Ordering::SeqCst);
        let copied = self.copy_while_kept(log, index);
        self.backups_count.fetch_sub(1, Ordering::SeqCst);
        copied
    }

    /// What was written since the start, and what there is now.
    pub(super) fn figures(&self) -> Store {
        let (log, index) = (self.log.figures(), self.index.stats());
        Store {
            log_bytes: log.written_bytes,
            checkpoint_bytes: index.commit_bytes,
            merge_bytes: index.merge_bytes,
            relocated_bytes: log.cold_written_bytes,
            segments_count: log.segments_count,
            unused_count: log.unused_count,
            cold_count: log.cold_count,
            disk_bytes: log.files_bytes + index.runs_bytes + index.manifest_bytes,
            indexed_count: self.indexed.0.load(Ordering::Relaxed),
            indexed_bytes: self.indexed.1.load(Ordering::Relaxed),
        }
    }

    fn copy_while_kept(&self, log: &Path, index: &Path) -> Result<(), Error> {
        let mut state = self.state.lock();
        self.make_with(&mut state)?;
        self.index.copy_to(index)?;
        drop(state);
        // After the index: what that covers is flushed.
        self.log.copy_to(log).map_err(Error::Copy)?;
        Ok(())
    }

    fn make_with(&self, state: &mut State) -> Result<(), Error> {
        let covered = state.boundary;
        let boundary = self.journal.pins().boundary(|| self.journal.end());
        let is_new = state.defined_at.is_none_or(|at| at < self.journal.defined_at());
        let snapshot = is_new.then(|| self.broker.snapshot());
        let gone = self.broker.take_gone_queues();
        let gone_exchanges = self.broker.take_gone_exchanges();
        let mut changes = Changes::new();
        for &(queue, priority_max) in &gone {
            drop_queue(queue, priority_max, &mut changes);
            changes.drop_owner(entries::header_owner(queue));
        }
        gone_exchanges.iter().for_each(|&exchange| changes.drop_owner(entries::holds_owner(exchange)));
        let window = Window { bytes: self.options.queue_window_bytes, messages: WINDOW_MESSAGES };
        let (mut looked, mut indexed) = (Vec::new(), (0, 0));
        let mut is_emptied = !gone.is_empty() || !gone_exchanges.is_empty();
        for queue in self.broker.durable_queues() {
            state.reclaimer.tell(&queue, &mut changes);
            let look = queue.look(state.boundary, &window);
            let (count, bytes) = queue.indexed();
            indexed = (indexed.0 + count, indexed.1 + bytes);
            if let Some(look) = look {
                is_emptied |= look.is_purged;
                file(&queue, &look, true, &mut changes);
                looked.push(queue);
            }
        }
        self.indexed.0.store(indexed.0, Ordering::Relaxed);
        self.indexed.1.store(indexed.1, Ordering::Relaxed);
        let mut looked_exchanges = Vec::new();
        for exchange in self.broker.durable_delays() {
            state.reclaimer.tell_exchange(&exchange);
            if let Some(look) = exchange.look(&window) {
                file_holds(exchange.identity(), &look, &mut changes);
                looked_exchanges.push(exchange);
            }
        }
        let looked_seen = self.broker.look_seen();
        for (exchange, look) in &looked_seen {
            file_seen(entries::holds_owner(exchange.identity()), look, &mut changes);
        }
        let committed = self.commit(covered, snapshot.as_ref(), &mut changes);
        let is_committed = committed.is_ok();
        looked.iter().for_each(|queue| queue.looked(is_committed, &window));
        looked_exchanges.iter().for_each(|exchange| exchange.looked(is_committed));
        looked_seen.iter().for_each(|(exchange, _)| exchange.looked_seen(is_committed));
        if let Err(error) = committed {
            self.broker.give_back_gone_queues(gone);
            self.broker.give_back_gone_exchanges(gone_exchanges);
            return Err(error);
        }
        if let Some(snapshot) = snapshot {
            state.defined_at = Some(snapshot.at);
        }
        state.boundary = boundary;
        if is_emptied {
            state.reclaimer.note_emptied();
        }
        if self.backups_count.load(Ordering::SeqCst) > 0 {
            // A copy is being made of what might go.
        } else if *self.is_over.lock() {
            state.reclaimer.give_up_only();
        } else {
            state.reclaimer.reclaim(indexed, self.journal.chain_bytes_max(), self.journal.long_body_min());
        }
        Ok(())
    }

    fn commit(&self, covered: Position, snapshot: Option<&Snapshot>, changes: &mut Changes) -> Result<(), Error> {
        // The index is not to know what the log forgets in a crash.
        self.log.flush()?;
        let attachment = snapshot.map(put_snapshot);
        let (queue, hold) = self.broker.next_ids();
        let note = [queue.0, hold.0, self.journal.long_body_min(), self.journal.chain_bytes_max()];
        let note: Vec<u8> = note.into_iter().flat_map(u64::to_le_bytes).collect();
        let checkpoint = NewCheckpoint { covered: covered.0, note: &note, attachment: attachment.as_deref() };
        self.index.commit(changes, checkpoint)?;
        Ok(())
    }
}

/// The messages of a queue that has gone, as changes of the index.
pub(super) fn drop_queue(queue: QueueId, priority_max: u8, changes: &mut Changes) {
    (0..=priority_max).for_each(|level| changes.drop_owner(entries::owner(queue, level)));
}

/// What a queue has told, as changes of the index; with its header, if that is to be read at start.
pub(super) fn file(queue: &Queue, look: &Look, has_header: bool, changes: &mut Changes) {
    let id = queue.id;
    if look.is_purged {
        let priority_max = queue.declaration.parsed.max_priority.unwrap_or(0);
        drop_queue(id, priority_max, changes);
    }
    for gone in &look.deletes {
        changes.delete(entries::message_key(id, gone.level, gone.seq));
        if let Some(deadline) = gone.deadline {
            changes.delete(entries::deadline_key(id, deadline, gone.seq));
        }
    }
    for &(level, seq) in &look.heads {
        changes.advance_head(entries::MESSAGES, entries::owner(id, level), Rank::new(0, seq));
        if queue.is_stream() {
            changes.advance_head(entries::SEGMENTS, entries::header_owner(id), Rank::new(seq, 0));
        }
    }
    for segment in &look.segments {
        changes.put(entries::segment_key(id, segment.base), &entries::put_segment(segment));
    }
    if let Some(header) = &look.header {
        changes.advance_head(entries::DEADLINES, entries::owner(id, 0), Rank::new(header.next_deadline.0, 0));
    }
    if let Some(header) = look.header.as_ref().filter(|_| has_header) {
        let owner = entries::header_owner(id);
        changes.put(Key::new(entries::HEADERS, owner, 0, 0), &entries::put_header(header));
        changes.advance_head(entries::LEVELS, owner, Rank::MAX);
        for level in &header.levels {
            changes.put(Key::new(entries::LEVELS, owner, level.level.into(), 0), &entries::put_level(level));
        }
    }
    if let Some(seen) = &look.seen {
        file_seen(entries::header_owner(id), seen, changes);
    }
    for note in &look.notes {
        let parts = note.put.as_ref().map(entries::put_note).unwrap_or_default();
        for part in (parts.len() as u8)..note.parts_before {
            changes.delete(entries::note_key(id, part, note.seq));
        }
        for (part, value) in (0..).zip(&parts) {
            changes.put(entries::note_key(id, part, note.seq), value);
        }
    }
    for entry in &look.puts {
        changes.put(entries::message_key(id, entry.level, entry.seq), &entries::put_message(entry));
        if entry.has_own_ttl {
            changes.put(entries::deadline_key(id, entry.deadline, entry.seq), &[entry.level]);
        }
    }
}

/// Names that a queue or an exchange remembers, as changes of the index.
fn file_seen(owner: u64, look: &SeenLook, changes: &mut Changes) {
    changes.advance_head(entries::SEEN, owner, Rank::new(look.from, 0));
    for seen in &look.puts {
        for (part, value) in (0..).zip(entries::put_seen(seen)) {
            changes.put(entries::seen_key(owner, seen.serial, part), &value);
        }
    }
}

/// What an exchange has told of the messages that it holds back, as changes of the index.
fn file_holds(exchange: Position, look: &HoldsLook, changes: &mut Changes) {
    look.deletes.iter().for_each(|&key| changes.delete(entries::hold_key(exchange, key)));
    if let Some(head) = look.head {
        changes.advance_head(entries::HOLDS, entries::holds_owner(exchange), entries::hold_rank(head));
    }
    for entry in &look.puts {
        changes.put(entries::hold_key(exchange, entry.key), &entries::put_hold(entry));
    }
}

/// A snapshot as an attachment: its place, then for each record its place, its length and its bytes.
fn put_snapshot(snapshot: &Snapshot) -> Vec<u8> {
    let mut out = snapshot.at.0.to_le_bytes().to_vec();
    let mut encoded = Vec::new();
    for (place, record) in &snapshot.records {
        encoded.clear();
        encode(record, &mut encoded);
        out.extend(place.0.to_le_bytes());
        out.extend((encoded.len() as u32).to_le_bytes());
        out.extend_from_slice(&encoded);
    }
    out
}

/// The snapshot in an attachment; `None` if it is none.
pub(super) fn snapshot_of(attachment: &[u8]) -> Option<(Position, Vec<(Position, Record)>)> {
    let (at, mut rest) = attachment.split_first_chunk::<8>()?;
    let mut records = Vec::new();
    while !rest.is_empty() {
        let (place, after) = rest.split_first_chunk::<8>()?;
        let (length, after) = after.split_first_chunk::<4>()?;
        let (bytes, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        let place = Position(u64::from_le_bytes(*place));
        records.push((place, Decoder::default().decode(bytes, place).ok()?));
        rest = after;
    }
    Some((Position(u64::from_le_bytes(*at)), records))
}

/// What a checkpoint's note says.
pub(super) struct Note {
    /// The first identity that no queue has had.
    pub(super) queue: QueueId,
    /// The same of messages held back.
    pub(super) hold: HoldId,
    /// The smallest body of a message whose record has parts.
    pub(super) long_body_min: u64,
    /// Bytes of the log from the first part of a long record to its end, at most.
    pub(super) chain_bytes_max: u64,
}

pub(super) fn note_of(note: &[u8]) -> Option<Note> {
    let (numbers, []) = note.as_chunks::<8>() else { return None };
    let [queue, hold, long_body_min, chain_bytes_max] = <[_; 4]>::try_from(numbers).ok()?.map(u64::from_le_bytes);
    Some(Note { queue: QueueId(queue), hold: HoldId(hold), long_body_min, chain_bytes_max })
}
