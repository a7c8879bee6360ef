//! The housekeeper: recycles and removes released files, and keeps zeroed segments ready.
//!
//! One thread, started by recovery, ended by `Shared::close`. It works slowly on purpose: see
//! [`Options::zero_bytes_per_sec`](super::Options).

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::disk::{Access, File};
use super::gather::Buffer;
use super::shared::{Shared, is_full};

/// Written at once while zeroing; the throttle rests after each.
const ZERO_BYTES: usize = 256 << 10;
/// How often a full disk is tried again.
const FULL_RETRY: Duration = Duration::from_secs(1);

pub(super) struct Housekeeper {
    shared: Arc<Shared>,
    zeros: Buffer,
}

impl Housekeeper {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, zeros: Buffer::new(ZERO_BYTES) }
    }

    pub(super) fn run(mut self) {
        while !self.shared.is_stopping() {
            if !self.step() {
                return;
            }
            let mut segments = self.shared.segments.lock();
            if segments.has_chores || self.shared.is_stopping() {
                continue;
            }
            if segments.is_full {
                self.shared.chores.wait_for(&mut segments, FULL_RETRY);
            } else {
                self.shared.chores.wait(&mut segments);
            }
        }
    }

    /// Does all that there is to do; `false` when the log has failed.
    pub(super) fn step(&mut self) -> bool {
        self.shared.segments.lock().has_chores = false;
        let result = self.clear_dead().and_then(|()| self.top_up());
        self.shared.room.notify_all();
        self.shared.publish_space();
        result.is_ok()
    }

    /// Released segments become ready ones as they are: their old bytes never validate, and blocks that
    /// were written once need no zeroing.
    fn clear_dead(&self) -> Result<(), ()> {
        let shared = &*self.shared;
        loop {
            let (name, spare) = {
                let mut segments = shared.segments.lock();
                let Some((name, bytes)) = segments.dead.pop() else { return Ok(()) };
                let is_wanted = segments.spares.len() < shared.options.spare_segments_max;
                let is_fitting = bytes == shared.options.segment_bytes;
                (name, (is_wanted && is_fitting).then(|| segments.spare_name()))
            };
            let path = shared.path(&name);
            let changed = match &spare {
                Some(spare) => shared.disk.rename(&path, &shared.path(spare)),
                None => shared.disk.remove(&path),
            };
            self.check(&path, "releasing a segment", changed)?;
            // Before the file is used again: its old name must not come back with other contents.
            self.check(&shared.dir, "syncing the directory", shared.disk.sync_dir(&shared.dir))?;
            if let Some(spare) = spare {
                shared.segments.lock().spares.push_back(spare);
                shared.room.notify_all();
            }
        }
    }

    fn top_up(&mut self) -> Result<(), ()> {
        let shared = self.shared.clone();
        while shared.segments.lock().wants_spare(&shared.options) {
            if shared.is_stopping() {
                return Ok(());
            }
            let name = shared.segments.lock().new_name();
            let path = shared.path(&name);
            let made = if shared.has_room() { self.make(&path) } else { Err(io::ErrorKind::StorageFull.into()) };
            match made {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) if is_full(&error) => {
                    // If it was not even created, there is nothing to remove.
                    let _ = shared.disk.remove(&path);
                    shared.segments.lock().is_full = true;
                    return Ok(());
                }
                Err(error) => return self.check(&path, "making a segment", Err(error)),
            }
            let spare = shared.segments.lock().spare_name();
            self.check(&path, "naming a segment", shared.disk.rename(&path, &shared.path(&spare)))?;
            self.check(&shared.dir, "syncing the directory", shared.disk.sync_dir(&shared.dir))?;
            let mut segments = shared.segments.lock();
            segments.spares.push_back(spare);
            segments.is_full = false;
            drop(segments);
            shared.room.notify_all();
        }
        shared.segments.lock().is_full = false;
        Ok(())
    }

    /// Makes a zeroed file; `false` when the log ended meanwhile.
    fn make(&mut self, path: &Path) -> io::Result<bool> {
        let shared = &*self.shared;
        let file: Box<dyn File> = shared.disk.create(path, Access::Direct)?;
        let bytes = shared.options.segment_bytes;
        file.allocate(bytes)?;
        let mut at = 0;
        while at < bytes {
            let piece = ((bytes - at) as usize).min(ZERO_BYTES);
            file.write_all_at(&self.zeros.bytes_mut()[..piece], at)?;
            at += piece as u64;
            let rest =
                Duration::from_nanos((piece as u64).saturating_mul(1_000_000_000) / shared.options.zero_bytes_per_sec);
            if !shared.pause(rest) {
                return Ok(false);
            }
        }
        file.sync_data()?;
        Ok(true)
    }

    fn check(&self, path: &Path, what: &'static str, result: io::Result<()>) -> Result<(), ()> {
        result.map_err(|error| self.shared.fail(path, what, &error))
    }
}
