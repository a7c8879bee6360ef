//! The seam between the index and the file system: one folder of files.
//!
//! Names are plain file names. What is written may be lost in a crash until the file is synced, and
//! a file's name (created, renamed, removed) until the folder is.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// A folder that the index has for itself.
pub trait IndexDisk: Send + Sync {
    /// A new, empty file for reading and writing; one of that name is replaced.
    fn create(&self, name: &str) -> io::Result<Box<dyn IndexFile>>;
    /// An existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Box<dyn IndexFile>>;
    /// Renames a file; one named `to` is replaced.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file. Those who have it open can still read it.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes names durable.
    fn sync_dir(&self) -> io::Result<()>;
}

/// An open file of an [`IndexDisk`].
pub trait IndexFile: Send + Sync {
    /// Writes all of `bytes` at `offset`; the file grows as needed.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file off behind its first `bytes`.
    fn cut(&self, bytes: u64) -> io::Result<()>;
    /// Fills `bytes` from `offset`. Fails with `UnexpectedEof` behind the end.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;
    /// Makes the contents durable.
    fn sync(&self) -> io::Result<()>;
    /// The length in bytes.
    fn bytes(&self) -> io::Result<u64>;
}

/// A folder of the operating system.
#[derive(Debug)]
pub struct OsDisk {
    folder: PathBuf,
}

impl OsDisk {
    /// The folder at `folder`, created if it is not there.
    pub fn open(folder: &Path) -> io::Result<OsDisk> {
        if !folder.is_dir() {
            fs::create_dir_all(folder)?;
            if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(OsDisk { folder: folder.to_owned() })
    }
}

impl IndexDisk for OsDisk {
    fn create(&self, name: &str) -> io::Result<Box<dyn IndexFile>> {
        let path = self.folder.join(name);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Box::new(OsFile { file }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn IndexFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.folder.join(name))?;
        Ok(Box::new(OsFile { file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.folder.join(from), self.folder.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.folder.join(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            // What is not UTF-8 is not ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }
}

struct OsFile {
    file: File,
}

impl IndexFile for OsFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn cut(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}
