//! Copies a log, and with [`Index::copy_to`](super::index::Index::copy_to) an index, to another directory.
//!
//! Segments are copied and never linked: they are used again in place. Of a log that is being written,
//! what was flushed when the copy began is copied, and zeros stand behind it. Whoever copies sees to it
//! that nothing is released meanwhile.

use std::io;
use std::path::Path;

use super::disk::{Access, Disk};
use super::format::{Position, place_in};
use super::log::Log;
use super::recovery::Store;
use super::segments::{FileKind, IDENTITY_FILE, file_kind, segment_name};

/// Copied at once.
const PIECE_BYTES: usize = 1 << 20;

/// Copies the first `until` bytes of a file, all if it is `None`, and makes them durable; the new file is
/// as long as the old one. The name is durable when its directory is synced.
pub fn copy_file(disk: &dyn Disk, from: &Path, to: &Path, until: Option<u64>) -> io::Result<()> {
    let (source, target) = (disk.open(from, Access::Read)?, disk.create(to, Access::Write)?);
    let bytes = source.bytes()?;
    let until = until.unwrap_or(bytes).min(bytes);
    let mut buffer = vec![0; PIECE_BYTES];
    let mut at = 0;
    while at < until {
        let piece = PIECE_BYTES.min(usize::try_from(until - at).unwrap_or(PIECE_BYTES));
        let read = source.read_full_at(&mut buffer[..piece], at)?;
        if read == 0 {
            break;
        }
        target.write_all_at(&buffer[..read], at)?;
        at += read as u64;
    }
    target.set_bytes(bytes)?;
    target.sync_data()
}

impl Log {
    /// Copies what is flushed now to `to`, which must be empty and is made if needed. Nothing may be
    /// released meanwhile. Waits for the disk.
    ///
    /// # Errors
    /// What the file system says.
    pub fn copy_to(&self, to: &Path) -> io::Result<Position> {
        let shared = &*self.shared;
        let flushed = self.flushed();
        let segments = self.segments();
        shared.disk.create_dir(to)?;
        for segment in segments.iter().filter(|segment| segment.first < flushed || segment.first == segments[0].first) {
            let name = segment_name(segment.number);
            let place = (segment.end >= flushed).then(|| place_in(segment.first, flushed.max(segment.first)));
            copy_file(&*shared.disk, &shared.path(&name), &to.join(&name), place)?;
        }
        copy_others(&*shared.disk, &shared.dir, to)?;
        shared.disk.sync_dir(to)?;
        Ok(flushed)
    }
}

impl Store {
    /// Copies the log of a directory that no process has open to `to`, which must be empty and is made if
    /// needed.
    ///
    /// # Errors
    /// What the file system says.
    pub fn copy(disk: &dyn Disk, dir: &Path, to: &Path) -> io::Result<()> {
        disk.create_dir(to)?;
        for file in disk.list(dir)? {
            if let FileKind::Segment(_) = file_kind(&file.name) {
                copy_file(disk, &dir.join(&file.name), &to.join(&file.name), None)?;
            }
        }
        copy_others(disk, dir, to)?;
        disk.sync_dir(to)
    }
}

/// The identity and the cold files, which never change.
fn copy_others(disk: &dyn Disk, dir: &Path, to: &Path) -> io::Result<()> {
    for file in disk.list(dir)? {
        if file.name == IDENTITY_FILE || matches!(file_kind(&file.name), FileKind::Cold(_)) {
            copy_file(disk, &dir.join(&file.name), &to.join(&file.name), None)?;
        }
    }
    Ok(())
}
