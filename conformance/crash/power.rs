//! The disk under a broker: a folder, or a file system of its own whose power can be cut.
//!
//! A cut is ext4's shutdown without flushing its journal: what was not synced is gone once the file
//! system is mounted again. Needs root and loop devices.

use std::{
    fs::File,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

pub(crate) struct Disk {
    /// Of the image and the mount point; logs are here, so that they survive a cut.
    home: Option<TempDir>,
    kept: PathBuf,
    mount: Option<PathBuf>,
}

/// Of a file system: enough for the segments, spares and reserve of a broker. The file is sparse.
const IMAGE_BYTES: u64 = 4 << 30;

impl Disk {
    pub(crate) fn folder() -> Self {
        let home = tempfile::Builder::new().prefix("tern-crash-").tempdir().unwrap();
        Self { kept: home.path().to_owned(), home: Some(home), mount: None }
    }

    /// Makes and mounts a file system in a file.
    pub(crate) fn cuttable() -> Self {
        let mut disk = Self::folder();
        let mount = disk.home().join("mount");
        File::create(disk.image()).and_then(|image| image.set_len(IMAGE_BYTES)).unwrap();
        std::fs::create_dir(&mount).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"]).arg(disk.image()));
        disk.mount = Some(mount);
        disk.mount();
        disk
    }

    pub(crate) fn home(&self) -> &Path {
        &self.kept
    }

    /// Where data belongs.
    pub(crate) fn dir(&self) -> &Path {
        self.mount.as_deref().unwrap_or(&self.kept)
    }

    pub(crate) fn is_cuttable(&self) -> bool {
        self.mount.is_some()
    }

    /// From here on nothing reaches the disk. Does nothing to a folder.
    pub(crate) fn cut(&self) {
        let Some(mount) = &self.mount else { return };
        let root = File::open(mount).unwrap();
        let how: u32 = NO_LOG_FLUSH;
        // SAFETY: the descriptor is open for the call, and the request reads one u32 that lives as long.
        // There is no command-line tool for this one request, and no safe wrapper.
        let result = unsafe { libc::ioctl(root.as_raw_fd(), EXT4_IOC_SHUTDOWN, &raw const how) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }

    /// Power is back. The broker must be over.
    pub(crate) fn restore(&self) {
        if self.is_cuttable() {
            self.unmount();
            self.mount();
        }
    }

    /// It stays when this goes.
    pub(crate) fn keep(&mut self) -> PathBuf {
        if let Some(home) = self.home.take() {
            let _ = home.keep();
        }
        self.kept.clone()
    }

    fn image(&self) -> PathBuf {
        self.home().join("disk.img")
    }

    fn mount(&self) {
        run(Command::new("mount").args(["-o", "loop"]).arg(self.image()).arg(self.dir()));
    }

    fn unmount(&self) {
        run(Command::new("umount").arg(self.dir()));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_cuttable() {
            self.unmount();
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// `_IOR('X', 125, __u32)` of linux/ext4.h.
const EXT4_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587D;
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`.
const NO_LOG_FLUSH: u32 = 2;
