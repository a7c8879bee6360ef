//! The seam between the store and a disk, so that tests can run the store on one that fails.
//!
//! [`RealDisk`] is the file system. Tests have a disk in memory that loses what was not synced, tears
//! writes, fails at a chosen operation and runs full.
//!
//! What the store assumes of a disk, and the disk in memory checks: after `sync_data` returned, what was
//! written to that file before is kept; after `sync_dir` returned, so are the names in that directory.
//! Without them any part of a write may be lost, but a byte that is written again with the value it had
//! keeps it.

mod real;
mod volatile;

#[cfg(test)]
pub(crate) mod memory;

use std::io;
use std::path::Path;

pub use real::RealDisk;
pub use volatile::Volatile;

/// A directory tree on stable storage.
pub trait Disk: Send + Sync {
    /// Opens an existing file.
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn File>>;

    /// Creates a file that must not exist yet. Its name is kept only after [`Disk::sync_dir`].
    fn create(&self, path: &Path, access: Access) -> io::Result<Box<dyn File>>;

    /// Creates a directory and those above it; one that exists is left as it is.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Renames a file, replacing one that has the new name. Kept only after [`Disk::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Kept only after [`Disk::sync_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The files of a directory, without directories in it.
    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Bytes that a user may still write to the file system of a directory.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;

    /// Takes the lock of a file, which is created if needed; `WouldBlock` when somebody holds it. It is
    /// held until the value is dropped or the process ends.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
}

/// An open file. Places are given with each call; there is no cursor, so that threads can share it.
pub trait File: Send + Sync {
    /// Reads up to `bytes.len()` bytes; 0 is the end of the file.
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize>;

    /// Writes; may write less than all.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize>;

    /// Makes the contents durable. An error must never be retried: the kernel forgets that the pages
    /// were dirty, and a second call would lie.
    fn sync_data(&self) -> io::Result<()>;

    /// Reserves the space for so many bytes, so that writing them cannot fail for want of it.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Cuts or extends the file.
    fn set_bytes(&self, bytes: u64) -> io::Result<()>;

    /// Size of the file.
    fn bytes(&self) -> io::Result<u64>;

    /// A write that has returned is durable, without [`File::sync_data`].
    fn is_synced_by_write(&self) -> bool;

    /// Writes all.
    fn write_all_at(&self, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_at(bytes, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = &bytes[written..];
                    at += written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads whole blocks ([`BLOCK_BYTES`]) until the buffer is full or the file ends, which may be inside
    /// of a block; returns how much that was.
    fn read_blocks_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        read_units_at(self, bytes, at, BLOCK_BYTES)
    }

    /// Reads until the buffer is full or the file ends; returns how much that was.
    fn read_full_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        read_units_at(self, bytes, at, 1)
    }
}

/// Reads on as long as whole units come.
fn read_units_at<F: File + ?Sized>(file: &F, bytes: &mut [u8], at: u64, unit: usize) -> io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() && filled.is_multiple_of(unit) {
        match file.read_at(&mut bytes[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To read, through the page cache.
    Read,
    /// To read whole blocks past the page cache. Where the file system refuses that, the same as
    /// [`Access::Read`].
    ReadDirect,
    /// To read and write, through the page cache; durable after [`File::sync_data`].
    Write,
    /// To write whole blocks past the page cache, durable when the write returns. Where the file system
    /// refuses that, the same as [`Access::Write`]: [`File::is_synced_by_write`] tells.
    Direct,
}

/// A file in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name in the directory; a name that is not UTF-8 is not ours and is not listed.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// The unit of direct reads and writes: their places, lengths and buffers are multiples of it. 4 KiB satisfies
/// every common disk.
pub const BLOCK_BYTES: usize = 4096;
