//! A connection's socket as a [`Link`]: whoever has produced output writes it, from any thread.
//!
//! Invariants:
//! - bytes are written by the holder of the writer's lock alone, in the order of the outbox;
//! - output that arrives while the lock is held is written by its holder before it goes: it looks
//!   again after it has unlocked;
//! - when the peer takes no more, the connection's own task waits until it does.

use std::{
    io::{self, IoSlice},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::{net::TcpStream, sync::Notify};

use crate::protocol::{
    outbox::Cursor,
    shared::{Link, Outbox},
};

/// See the module's text.
pub struct Socket {
    stream: TcpStream,
    shared: Arc<dyn Outbox>,
    writer: Mutex<Writer>,
    notify: Notify,
    is_blocked: AtomicBool,
    is_dead: AtomicBool,
    /// The task reads nothing until output has drained.
    is_reader_waiting: AtomicBool,
}

#[derive(Default)]
struct Writer {
    cursor: Cursor,
    /// Bytes written and not yet reported to the outbox.
    sent_bytes: u64,
}

/// Pieces of one vectored write.
const PIECES_MAX: usize = 64;

impl Socket {
    /// The socket of the connection that `shared` belongs to.
    pub fn new(stream: TcpStream, shared: Arc<dyn Outbox>) -> Self {
        Self {
            stream,
            shared,
            writer: Mutex::default(),
            notify: Notify::new(),
            is_blocked: AtomicBool::new(false),
            is_dead: AtomicBool::new(false),
            is_reader_waiting: AtomicBool::new(false),
        }
    }

    /// The stream, for reading.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Woken by [`Link::wake`], and when output has drained that the reader waits for.
    pub fn notify(&self) -> &Notify {
        &self.notify
    }

    /// The peer takes no more for now.
    pub fn is_blocked(&self) -> bool {
        self.is_blocked.load(Ordering::Acquire)
    }

    /// Writing has failed for good.
    pub fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::Acquire)
    }

    /// The reader waits until output has drained.
    pub fn set_reader_waiting(&self, is_waiting: bool) {
        self.is_reader_waiting.store(is_waiting, Ordering::Release);
    }

    /// The peer takes more again: goes on writing.
    pub fn unblock(&self) {
        self.is_blocked.store(false, Ordering::Release);
        self.flush();
    }

    /// Everything has been written.
    pub fn is_drained(&self) -> bool {
        self.shared.has_no_output() && self.writer.try_lock().is_some_and(|writer| writer.cursor.is_done())
    }

    /// Writes what the peer takes; returns whether it took anything.
    fn write(&self, writer: &mut Writer) -> bool {
        let mut has_written = false;
        loop {
            if writer.cursor.is_done() {
                match self.shared.take_output(std::mem::take(&mut writer.sent_bytes)) {
                    Some(chunk) => writer.cursor.start(chunk),
                    None => {
                        writer.cursor.release();
                        return has_written;
                    }
                }
            }
            let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
            let count = writer.cursor.fill(&mut pieces);
            match self.stream.try_write_vectored(&pieces[..count]) {
                Ok(written) => {
                    has_written = true;
                    writer.cursor.advance(written);
                    writer.sent_bytes += written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.shared.note_sent(std::mem::take(&mut writer.sent_bytes));
                    self.is_blocked.store(true, Ordering::Release);
                    self.notify.notify_one();
                    return has_written;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.shared.note_sent(std::mem::take(&mut writer.sent_bytes));
                    self.is_dead.store(true, Ordering::Release);
                    self.notify.notify_one();
                    return has_written;
                }
            }
        }
    }
}

impl Link for Socket {
    fn flush(&self) {
        loop {
            if self.is_blocked() || self.is_dead() {
                return;
            }
            let Some(mut writer) = self.writer.try_lock() else { return };
            let has_written = self.write(&mut writer);
            drop(writer);
            // Only when something has drained: the task itself flushes before it waits, and would
            // otherwise wake itself for ever.
            if has_written && self.is_reader_waiting.load(Ordering::Acquire) {
                self.notify.notify_one();
            }
            // Somebody may have added output while the lock was ours and gone away.
            if self.shared.has_no_output() {
                return;
            }
        }
    }

    fn wake(&self) {
        self.notify.notify_one();
    }
}
