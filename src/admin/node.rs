//! What administration needs of the process around the broker.
//!
//! The server implements [`Node`]; a test does too, without a process.

use std::{
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
};

use serde_json::Value as Json;

use super::wire::Listener;
use crate::broker::{message::Message, options::MemoryShare, record::Position, time::Time};

/// What a change of the node's state ends with: nothing, or why it failed.
pub type Change = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// The process that the broker runs in.
pub trait Node: Send + Sync {
    /// The broker's clock.
    fn now(&self) -> Time;

    /// Whether clients are served: false between `stop_app` and `start_app`.
    fn is_running(&self) -> bool;

    /// How it stands. Asked for with each status, never on the way of a message.
    fn environment(&self) -> Environment;

    /// Returns when everything before that place of the log is safe. May block.
    fn wait_until_safe(&self, position: Position);

    /// When the publisher says that it published a message, in seconds since the epoch. Only a
    /// protocol can read that.
    fn timestamp_secs(&self, message: &Message) -> Option<u64>;

    /// Closes the listeners and all connections; done when they are closed. Again: nothing.
    fn stop_app(&self) -> Change;

    /// Opens the listeners again; done when they are open. Again: nothing.
    fn start_app(&self) -> Change;

    /// Copies the data directory to an empty one; done when the copy is safe and was verified.
    fn backup(&self, to: &Path) -> Change;

    /// Begins to end the process, as SIGTERM does. Returns at once.
    fn stop(&self);

    /// Sets the resident memory above which publishers are held back, and looks at it at once.
    fn set_memory_watermark(&self, share: MemoryShare);

    /// Sets the disk space below which publishers are held back, and looks at it at once.
    fn set_disk_free_limit(&self, share: MemoryShare);
}

/// How a process stands.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Its identity in the operating system.
    pub pid: u32,
    /// When it was started.
    pub started_at: Time,
    /// The version told to clients, which they take for RabbitMQ's.
    pub product_version: String,
    /// Where its data is.
    pub data_dir: PathBuf,
    /// The files that it was configured from.
    pub config_files: Vec<PathBuf>,
    /// The files that it logs to, or `<stdout>`.
    pub log_files: Vec<String>,
    /// The ports that it listens on.
    pub listeners: Vec<Listener>,
    /// Its memory.
    pub memory: Memory,
    /// The disk of its data.
    pub disk: Disk,
    /// What it keeps there.
    pub store: Store,
    /// Its open files.
    pub files: Files,
    /// The settings in force: an object of objects: component, setting, value.
    pub settings: Json,
}

/// The memory of a process.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Resident bytes.
    pub resident_bytes: u64,
    /// Bytes that it may use at all.
    pub total_bytes: u64,
    /// When publishers are held back.
    pub watermark: MemoryShare,
}

/// The disk of a process.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    /// Bytes free.
    pub free_bytes: u64,
    /// When publishers are held back.
    pub limit: MemoryShare,
}

/// What a process wrote to its log and to the index of it since it was started, and what it has there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Store {
    /// Bytes written to the log.
    pub log_bytes: u64,
    /// Bytes written to the index by checkpoints.
    pub checkpoint_bytes: u64,
    /// Bytes written to the index by merges.
    pub merge_bytes: u64,
    /// Bytes of messages that were copied out of sparse segments.
    pub relocated_bytes: u64,
    /// Segments of the log.
    pub segments_count: usize,
    /// Files that are or become ready to be a segment.
    pub unused_count: usize,
    /// Files of messages that were copied out of sparse segments.
    pub cold_count: usize,
    /// What log and index take on the disk.
    pub disk_bytes: u64,
    /// Messages that the index had at the last checkpoint.
    pub indexed_count: u64,
    /// Bytes of their bodies.
    pub indexed_bytes: u64,
}

/// The file descriptors of a process.
#[derive(Clone, Copy, Debug)]
pub struct Files {
    /// Open now.
    pub open: u64,
    /// Most that may be open.
    pub limit: u64,
}
