//! A disk whose files need not outlive the process: nothing is synced.

use std::{io, path::Path};

use super::{Access, Disk, File, Listed};

/// Another disk without its syncs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Volatile<D>(pub D);

impl<D: Disk> Disk for Volatile<D> {
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn File>> {
        Ok(Box::new(VolatileFile(self.0.open(path, without_sync(access))?)))
    }

    fn create(&self, path: &Path, access: Access) -> io::Result<Box<dyn File>> {
        Ok(Box::new(VolatileFile(self.0.create(path, without_sync(access))?)))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        self.0.list(dir)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.0.free_bytes(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.0.lock(path)
    }
}

fn without_sync(access: Access) -> Access {
    match access {
        Access::Direct => Access::Write,
        // What was not synced is in the page cache and, for all we know, nowhere else.
        Access::ReadDirect => Access::Read,
        other => other,
    }
}

struct VolatileFile(Box<dyn File>);

impl File for VolatileFile {
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        self.0.read_at(bytes, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        self.0.write_at(bytes, at)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.0.allocate(bytes)
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.0.set_bytes(bytes)
    }

    fn bytes(&self) -> io::Result<u64> {
        self.0.bytes()
    }

    fn is_synced_by_write(&self) -> bool {
        false
    }
}
