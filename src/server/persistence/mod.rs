//! What makes the broker durable: its records in the log, and the broker out of them at start.
//!
//! ```text
//! data directory
//!   log/      the segments of the log ([`crate::store`])
//! ```

mod journal;
mod replay;

use std::{
    path::Path,
    sync::{Arc, OnceLock, Weak},
};

use tokio::sync::Notify;

pub use journal::LogJournal;

use super::{clock, listen::StartError, options::Persistence};
use crate::{
    broker::{self, Broker, recovery::Replay, time::Time},
    store::{self, Log, Owner, Space, Store, disk::RealDisk},
};
use replay::Reader;

/// Folder of the log in the data directory.
const LOG_FOLDER: &str = "log";

/// A broker and the log that it records to.
pub struct Opened {
    /// The broker.
    pub broker: Arc<Broker>,
    /// Its log.
    pub log: Arc<Log>,
}

/// Opens the log of a data directory, and the broker as it says. `watcher` is told what happens to the
/// log from then on.
pub fn open(
    data_dir: &Path,
    options: broker::Options,
    persistence: &Persistence,
    watcher: &Arc<Watcher>,
) -> Result<Opened, StartError> {
    let other = |error: &dyn std::fmt::Display| StartError::Other(error.to_string());
    let started_at = std::time::Instant::now();
    let store = Store::open(Arc::new(RealDisk), &data_dir.join(LOG_FOLDER), persistence.log.clone())
        .map_err(|error| other(&error))?;
    let broker = Arc::new(Broker::blank(options, clock::wall()).map_err(StartError::Other)?);
    let mut replay = Replay::new(&broker, clock::wall());
    let mut reader = Reader::default();
    let recovered = store
        .replay(store::Position(0), |record, _| reader.read(record, &mut replay))
        .map_err(|error| other(&error))?;
    clock::start_after(Time(recovered.time_ms()));
    let replayed = replay.finish(clock::now());
    if let Some(torn) = recovered.torn() {
        tracing::warn!(
            file = %torn.file.display(), position = %torn.position, what = torn.what,
            "the log ends in a batch that was not written whole: it was never confirmed, and is cut off"
        );
    }
    let epoch = recovered.epoch().max(1);
    let log = Arc::new(recovered.start(epoch, watcher.clone()).map_err(|error| other(&error))?);
    log.set_time(clock::now().0);
    broker.begin(&replayed, Arc::new(LogJournal::new(log.clone()))).map_err(|error| other(&error))?;
    // What a first start defined must be there before anybody is told that the broker runs.
    log.flush().map_err(|error| other(&error))?;
    watcher.watch(&broker);
    tracing::info!(
        records = replayed.records,
        queues = replayed.queues,
        messages = replayed.messages,
        ms = started_at.elapsed().as_millis() as u64,
        "the log was replayed"
    );
    Ok(Opened { broker, log })
}

/// Is told what happens to the log, and has the broker act on it.
#[derive(Default)]
pub struct Watcher {
    broker: OnceLock<Weak<Broker>>,
    failure: OnceLock<String>,
    stop: Arc<Notify>,
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
        tracing::error!(%failure, "the log has failed: nothing more is confirmed, and the broker stops");
        // The log tells the first failure only.
        let _ = self.failure.set(failure.to_string());
        self.stop.notify_one();
    }

    fn corrupted(&self, corruption: &store::Corruption) {
        tracing::error!(%corruption, "the log is damaged");
    }
}
