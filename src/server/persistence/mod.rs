//! What makes the broker durable: its records in the log, and the broker out of them at start.
//!
//! ```text
//! data directory
//!   log/      the segments of the log ([`crate::store`])
//!   index/    the index of cold messages, with the definitions ([`crate::store::index`])
//!   spill/    of long queues, the messages that are in no log; emptied at start
//! ```

mod ahead;
mod backup;
mod checkpoint;
mod entries;
mod holds;
mod journal;
mod messages;
mod meter;
mod pages;
mod reclaim;
mod replay;
mod spill;
mod streams;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, Weak},
    thread::JoinHandle,
};

use tokio::sync::Notify;

pub use backup::{Backups, prepare as prepare_backup, verify as verify_backup};
pub use journal::LogJournal;
pub use meter::StoreMeter;

use super::{clock, listen::StartError, options::Persistence};
use crate::{
    broker::{self, Broker, recovery::Replay, time::Time},
    store::{
        self, Log, Owner, Space, Store,
        disk::{Disk, RealDisk},
        index::Index,
    },
};
use checkpoint::{Checkpointer, note_of, snapshot_of};
use pages::Pages;
use replay::Reader;
use spill::Spill;
use streams::Streams;

/// Folder of the log in the data directory.
const LOG_FOLDER: &str = "log";

/// Folder of the index in the data directory.
const INDEX_FOLDER: &str = "index";

/// A broker that is kept on the disk.
pub struct Opened {
    /// The broker.
    pub broker: Arc<Broker>,
    /// Its log.
    pub log: Arc<Log>,
    checkpointer: Arc<Checkpointer>,
    pages: Arc<Pages>,
    streams: Arc<Streams>,
    spill: Option<Arc<Spill>>,
    threads: Vec<JoinHandle<()>>,
}

/// Opens the log and the index of a data directory, and the broker as they say. `watcher` is told what
/// happens to the log from then on.
pub fn open(
    data_dir: &Path,
    options: broker::Options,
    persistence: &Persistence,
    watcher: &Arc<Watcher>,
) -> Result<Opened, StartError> {
    open_on(Arc::new(RealDisk), data_dir, options, persistence, watcher)
}

/// The same on another disk, which has the log and the index.
fn open_on(
    disk: Arc<dyn Disk>,
    data_dir: &Path,
    options: broker::Options,
    persistence: &Persistence,
    watcher: &Arc<Watcher>,
) -> Result<Opened, StartError> {
    let started_at = clock::wall();
    let store = Store::open(disk.clone(), &data_dir.join(LOG_FOLDER), persistence.log.clone()).map_err(other)?;
    let index_dir = data_dir.join(INDEX_FOLDER);
    // Before an empty one is begun in its place. A log that is all there needs none.
    if store.first().0 > 0 && !disk.list(&index_dir).is_ok_and(|files| !files.is_empty()) {
        return Err(other(IndexLost { dir: index_dir, first: store.first() }));
    }
    let index = Index::open(disk, &index_dir, persistence.index.clone()).map_err(other)?;
    let index = Arc::new(index);
    let checkpoint = index.checkpoint();
    let note = checkpoint.as_ref().and_then(|checkpoint| note_of(&checkpoint.note));
    let broker = Arc::new(Broker::blank(options, started_at).map_err(StartError::Other)?);
    let spill = persistence.spill.then(|| spill_in(data_dir, persistence)).flatten();
    let pages = Pages::new(index.clone(), spill.clone());
    broker.attach_cold_pages(pages.clone());
    spill.iter().for_each(|spill| broker.attach_spill(spill.clone()));
    let mut replay = Replay::new(&broker, started_at);
    if let Some(attachment) = index.attachment().map_err(other)? {
        let snapshot = snapshot_of(&attachment);
        let (at, records) = snapshot.ok_or_else(|| other("the checkpoint's definitions cannot be read"))?;
        replay.begin(at, records.into_iter()).map_err(other)?;
    }
    if let Some(note) = &note {
        replay.reserve_ids(note.queue, note.hold);
    }
    let mut reader = Reader::default();
    let covered = store::Position(checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.covered));
    let recovered = store.replay(covered, |record, _| reader.read(record, &mut replay)).map_err(other)?;
    // A broker that began without what it cannot read would lose messages and say nothing.
    if let Some(failure) = pages.failure() {
        return Err(other(failure));
    }
    clock::start_after(Time(recovered.time_ms()));
    if let Some(torn) = recovered.torn() {
        tracing::warn!(
            file = %torn.file.display(), position = %torn.position, what = torn.what,
            "the log ends in a batch that was not written whole: it was never confirmed, and is cut off"
        );
    }
    let epoch = recovered.epoch().max(1);
    let log = Arc::new(recovered.start(epoch, watcher.clone()).map_err(other)?);
    log.set_time(clock::now().0);
    let replayed = replay.finish(clock::now());
    let chain_bytes_max = reader.chain_bytes_max.max(note.as_ref().map_or(0, |note| note.chain_bytes_max));
    let long_body_min = note.as_ref().map_or(u64::MAX, |note| note.long_body_min);
    let long_body_min = reader.long_body_min.map_or(long_body_min, |min| min.min(long_body_min));
    let journal = Arc::new(LogJournal::new(log.clone(), chain_bytes_max, long_body_min));
    broker.begin(&replayed, journal.clone()).map_err(other)?;
    // What a first start defined must be there before anybody is told that the broker runs.
    log.flush().map_err(other)?;
    watcher.watch(&broker);
    let damaged = Arc::downgrade(&broker);
    index.on_damage(move |error| {
        tracing::error!(%error, "the index is damaged");
        if let Some(broker) = damaged.upgrade() {
            broker.set_damage(error.to_string());
        }
    });
    let checkpointer =
        Checkpointer::new(broker.clone(), log.clone(), journal, index, watcher.clone(), persistence.clone());
    let mut threads = pages.start(&log, &broker).map_err(other)?;
    threads.push(checkpointer.start().map_err(other)?);
    let streams = watcher.streams.clone();
    threads.push(streams.start(&broker).map_err(other)?);
    if let Some(spill) = &spill {
        threads.push(spill.start().map_err(other)?);
    }
    tracing::info!(
        records = replayed.records,
        queues = replayed.queues,
        messages = replayed.messages,
        ms = clock::wall().ms_since(started_at),
        "the log was replayed"
    );
    Ok(Opened { broker, log, checkpointer, pages, streams, spill, threads })
}

/// The index is gone, and with it what of the log was released for its sake. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[error(
    "the index {} is missing or empty, and the log no longer has what is before position {first}: put the folder \
     back, or restore the data directory from a backup (`tern store salvage` keeps what can be read)",
    dir.display()
)]
struct IndexLost {
    dir: PathBuf,
    /// Where the log begins.
    first: store::Position,
}

fn other(error: impl std::fmt::Display) -> StartError {
    StartError::Other(error.to_string())
}

/// The spill; without one, messages stay in memory: what is lost at a stop anyway is no reason not to start.
fn spill_in(data_dir: &Path, persistence: &Persistence) -> Option<Arc<Spill>> {
    let spill = Spill::new(data_dir, persistence);
    spill
        .inspect_err(|error| tracing::error!(%error, "no messages can be spilled: the old files cannot be removed"))
        .ok()
}

impl Opened {
    /// Makes backups of it.
    pub fn backups(&self) -> Backups {
        Backups::new(self.checkpointer.clone())
    }

    /// Tells what it writes and what it takes.
    pub fn meter(&self) -> StoreMeter {
        StoreMeter::new(self.checkpointer.clone())
    }

    /// Ends everything in good order. May block.
    pub fn close(self) {
        self.checkpointer.stop();
        self.pages.stop();
        self.streams.stop();
        self.spill.iter().for_each(|spill| spill.stop());
        for thread in self.threads {
            // One that panicked has said so.
            let _ = thread.join();
        }
        // The second covers what the first began with: the next start has nothing to replay.
        for _ in 0..2 {
            if self.log.failure().is_none()
                && let Err(error) = self.checkpointer.make()
            {
                tracing::warn!(%error, "no last checkpoint could be made; the next start replays the log");
            }
        }
        self.spill.iter().for_each(|spill| spill.close());
        self.log.close();
    }
}

/// Is told what happens to the log, and has the broker act on it.
#[derive(Default)]
pub struct Watcher {
    broker: OnceLock<Weak<Broker>>,
    failure: OnceLock<String>,
    stop: Arc<Notify>,
    streams: Arc<Streams>,
}

impl Watcher {
    /// A watcher that notifies `stop` when the process must end.
    pub fn new(stop: Arc<Notify>) -> Self {
        Self { stop, ..Self::default() }
    }

    /// Why the process must end, if it must.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// What is on the disk is not known any more: the process ends.
    fn fail(&self, failure: &dyn std::fmt::Display) {
        tracing::error!(%failure, "the disk has failed: nothing more is confirmed, and the broker stops");
        // The first failure is what an operator has to know.
        let _ = self.failure.set(failure.to_string());
        self.stop.notify_one();
    }

    fn watch(&self, broker: &Arc<Broker>) {
        // Set once, when the broker is opened.
        let _ = self.broker.set(Arc::downgrade(broker));
    }

    fn broker(&self) -> Option<Arc<Broker>> {
        self.broker.get()?.upgrade()
    }
}

impl Owner for Watcher {
    fn flushed(&self, _: store::Position) {
        if let Some(broker) = self.broker() {
            broker.waiting.proceed();
            if broker.waiting.has_streams() {
                self.streams.flushed();
            }
        }
    }

    fn space_changed(&self, space: Space) {
        match space {
            Space::Ok => tracing::info!("the log has room again: publishers go on"),
            Space::Low => tracing::error!("the disk is full: publishers are blocked, consumers go on from a reserve"),
            Space::Full => {
                tracing::error!("the disk is full, and so is the reserve: nothing goes on until there is room")
            }
        }
        if let Some(broker) = self.broker() {
            broker.set_log_alarm(space != Space::Ok);
            broker.waiting.proceed();
        }
    }

    fn failed(&self, failure: &store::Failure) {
        self.fail(failure);
    }

    fn corrupted(&self, corruption: &store::Corruption) {
        tracing::error!(%corruption, "the log is damaged");
        if let Some(broker) = self.broker() {
            broker.set_damage(corruption.to_string());
        }
    }
}
