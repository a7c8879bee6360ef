//! The disk of the machine, through the file system.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, FlockOperation, OFlags};
use rustix::io::Errno;

use super::{Access, Disk, File, Listed};

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl RealDisk {
    fn open_with(path: &Path, access: Access, is_new: bool) -> io::Result<Box<dyn File>> {
        let mut options = fs::OpenOptions::new();
        let is_write = matches!(access, Access::Write | Access::Direct);
        options.read(true).write(is_write).create_new(is_new).mode(0o640);
        let flags = match access {
            Access::Direct => OFlags::DIRECT | OFlags::DSYNC,
            Access::ReadDirect => OFlags::DIRECT,
            Access::Read | Access::Write => OFlags::empty(),
        };
        if !flags.is_empty() {
            options.custom_flags(flags.bits().cast_signed());
            match options.open(path) {
                Ok(file) => return Ok(Box::new(RealFile { file, is_direct: true })),
                // Not every file system knows O_DIRECT. It may have created the file before it said so.
                Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                    options.custom_flags(0).create_new(false).create(is_new);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Box::new(RealFile { file: options.open(path)?, is_direct: false }))
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn File>> {
        Self::open_with(path, access, false)
    }

    fn create(&self, path: &Path, access: Access) -> io::Result<Box<dyn File>> {
        Self::open_with(path, access, true)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)?;
        // The directory's own name must last as well, or everything in it goes with it.
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => self.sync_dir(parent),
            _ => Ok(()),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // Another thread removed it in between.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
                found.push(Listed { name, bytes: metadata.len() });
            }
        }
        Ok(found)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let found = rustix::fs::statvfs(dir)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o640).open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(file))
    }
}

struct RealFile {
    file: fs::File,
    is_direct: bool,
}

impl RealFile {
    /// Whether that is what a file system says that accepts O_DIRECT at open and refuses it afterwards.
    fn is_refused(&self, error: &io::Error) -> bool {
        self.is_direct && error.raw_os_error() == Some(Errno::INVAL.raw_os_error())
    }

    fn go_through_the_page_cache(&self) -> io::Result<()> {
        let flags = rustix::fs::fcntl_getfl(self.file.as_fd())?;
        Ok(rustix::fs::fcntl_setfl(self.file.as_fd(), flags - OFlags::DIRECT)?)
    }
}

impl File for RealFile {
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        match self.file.read_at(bytes, at) {
            Err(error) if self.is_refused(&error) => {
                self.go_through_the_page_cache()?;
                self.file.read_at(bytes, at)
            }
            other => other,
        }
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        match self.file.write_at(bytes, at) {
            // Some file systems accept O_DIRECT at open and refuse it at the write. O_DSYNC stays, so the
            // write is durable all the same. A short write leaves an unaligned rest, which ends here too.
            Err(error) if self.is_refused(&error) => {
                self.go_through_the_page_cache()?;
                self.file.write_at(bytes, at)
            }
            other => other,
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(self.file.as_fd(), FallocateFlags::empty(), 0, bytes) {
            Ok(()) => Ok(()),
            // No such call on this file system: writing the zeros will find out whether they fit.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.file.set_len(bytes),
            Err(error) => Err(error.into()),
        }
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn is_synced_by_write(&self) -> bool {
        self.is_direct
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_of_one_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = RealDisk.lock(&path).unwrap();
        assert_eq!(RealDisk.lock(&path).err().map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
        drop(held);
        assert!(RealDisk.lock(&path).is_ok());
    }

    #[test]
    fn a_direct_file_takes_whole_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = RealDisk.create(&path, Access::Direct).unwrap();
        file.allocate(8192).unwrap();
        let buffer = vec![7_u8; 3 * 4096];
        let skew = buffer.as_ptr().align_offset(4096);
        file.write_all_at(&buffer[skew..skew + 4096], 4096).unwrap();
        let mut read = [0; 4096];
        let reader = RealDisk.open(&path, Access::Read).unwrap();
        assert_eq!(reader.read_full_at(&mut read, 4096).unwrap(), 4096);
        assert_eq!(read, [7; 4096]);
        assert_eq!(RealDisk.list(dir.path()).unwrap(), [Listed { name: "file".into(), bytes: 8192 }]);
    }
}
