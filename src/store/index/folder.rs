//! The index's folder on a [`Disk`]: its files, by their names alone.
//!
//! What is written may be lost in a crash until the file is synced, and a file's name (created,
//! renamed, removed) until the folder is.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::store::{
    backup::copy_file,
    disk::{Access, Disk, File},
};

/// A folder that the index has for itself.
pub(super) struct Folder {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// How existing files are opened.
    access: Access,
}

impl Folder {
    /// The folder, created if it is not there.
    pub(super) fn open(disk: Arc<dyn Disk>, dir: &Path) -> io::Result<Folder> {
        disk.create_dir(dir)?;
        Ok(Folder { disk, dir: dir.to_owned(), access: Access::Write })
    }

    /// The folder, whose files will only be read: for whoever looks at an index without opening it.
    pub(super) fn to_look_at(disk: Arc<dyn Disk>, dir: &Path) -> Folder {
        Folder { disk, dir: dir.to_owned(), access: Access::Read }
    }

    /// A new, empty file for reading and writing; one that an earlier attempt has left is replaced.
    pub(super) fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let path = self.dir.join(name);
        match self.disk.create(&path, Access::Write) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.disk.remove(&path)?;
                self.disk.create(&path, Access::Write)
            }
            created => created,
        }
    }

    /// An existing file for reading, and for writing in a folder that was opened.
    pub(super) fn open_file(&self, name: &str) -> io::Result<Box<dyn File>> {
        self.disk.open(&self.dir.join(name), self.access)
    }

    /// Renames a file; one named `to` is replaced.
    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(&self.dir.join(from), &self.dir.join(to))
    }

    /// Removes a file. Those who have it open can still read it.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(&self.dir.join(name))
    }

    /// The names of all files.
    pub(super) fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.disk.list(&self.dir)?.into_iter().map(|file| file.name).collect())
    }

    /// Copies all files but drafts to the folder `to`, durably. One that is removed meanwhile is needed by nobody.
    pub(super) fn copy_to(&self, to: &Path) -> io::Result<()> {
        self.disk.create_dir(to)?;
        for name in self.list()?.iter().filter(|name| !name.ends_with(".tmp")) {
            match copy_file(&*self.disk, &self.dir.join(name), &to.join(name), None) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                copied => copied?,
            }
        }
        self.disk.sync_dir(to)
    }

    /// Makes names durable.
    pub(super) fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir(&self.dir)
    }
}

/// Fills `bytes`. Fails with `UnexpectedEof` behind the end.
pub(super) fn read_exact_at(file: &dyn File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    if file.read_full_at(bytes, at)? == bytes.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
