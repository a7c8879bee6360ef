//! What the operating system allows this process: open files, memory, disk space.
//!
//! Reads /proc and /sys only; nothing here decides what to do about a limit.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::admin::node::Files;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The open-files limit before and after [`raise_open_files`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    /// What the process was started with.
    pub before: u64,
    /// What it has now.
    pub now: u64,
}

/// Raises the limit of open files as far as an ordinary user may: to the hard limit.
///
/// The soft limit is 1024 on most systems, for programs that use `select`. Each connection is a
/// file, so that would be the number of clients.
pub fn raise_open_files() -> io::Result<OpenFiles> {
    let limit = getrlimit(Resource::Nofile);
    let count = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    let before = count(limit.current);
    if before >= count(limit.maximum) {
        return Ok(OpenFiles { before, now: before });
    }
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(OpenFiles { before, now: count(getrlimit(Resource::Nofile).current) })
}

/// Keeps the allocator from handing buffers back to the system only to ask for them again.
///
/// Read buffers and outboxes are between 128 KiB and 4 MiB, which glibc by default maps and trims
/// again and again.
pub fn keep_buffers_mapped() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only sets parameters of the allocator, and is called before other threads
    // exist. Measured at 16-byte messages, 2 million a second: 286,000 page faults and 0.44 CPU
    // seconds per million without it, 400 page faults and 0.33 with it.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 8 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 << 20);
        libc::mallopt(libc::M_TOP_PAD, 1 << 20);
    }
}

/// CPU time that this process has used.
pub fn cpu_time() -> std::time::Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    used.try_into().unwrap_or_default()
}

/// Files that are open now, and most that may be.
pub fn open_files() -> Files {
    let open = fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
    Files { open, limit: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) }
}

/// Measures the resident memory of this process.
#[derive(Debug)]
pub struct MemoryMeter {
    status: File,
}

impl MemoryMeter {
    /// Opens the meter; it stays open, so that measuring works when no file can be opened.
    pub fn open() -> io::Result<Self> {
        Ok(Self { status: File::open("/proc/self/status")? })
    }

    /// Bytes of this process in memory now, files mapped in included.
    pub fn resident_bytes(&self) -> io::Result<u64> {
        // The line stands within the first half of a page on every kernel.
        let mut buffer = [0; 4096];
        let bytes = self.status.read_at(&mut buffer, 0)?;
        let resident = kibibytes_of("VmRSS:", &String::from_utf8_lossy(&buffer[..bytes]));
        resident.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/self/status has no VmRSS"))
    }
}

/// Memory that this process may use: the machine's, or less where a control group says so.
///
/// `None` where neither can be read.
pub fn memory_total_bytes() -> Option<u64> {
    memory_total_under(Path::new("/"))
}

fn memory_total_under(root: &Path) -> Option<u64> {
    let machine = fs::read_to_string(root.join("proc/meminfo")).ok().and_then(|text| kibibytes_of("MemTotal:", &text));
    let group = fs::read_to_string(root.join("proc/self/cgroup")).ok().and_then(|text| group_limit_bytes(root, &text));
    machine.into_iter().chain(group).min()
}

/// Bytes free for an ordinary user on the file system of `path`.
pub fn disk_free_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Bytes in the line of /proc/meminfo or /proc/self/status that begins with `name`.
fn kibibytes_of(name: &str, text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The tightest limit among this process's control group and those above it.
///
/// Inside a container the path in /proc/self/cgroup may be that of the host, which is not to be
/// found under /sys/fs/cgroup; the walk up ends at the mount itself, which then is the container's.
fn group_limit_bytes(root: &Path, cgroup: &str) -> Option<u64> {
    let mut limits = Vec::new();
    for line in cgroup.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let (mount, file) = if controllers.is_empty() {
            (root.join("sys/fs/cgroup"), "memory.max")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            (root.join("sys/fs/cgroup/memory"), "memory.limit_in_bytes")
        } else {
            continue;
        };
        let mut directory = mount.join(path.trim_start_matches('/'));
        while directory.starts_with(&mount) {
            // Version 2 says `max` for none and version 1 a number beyond all memory.
            let text = fs::read_to_string(directory.join(file)).unwrap_or_default();
            limits.extend(text.trim().parse::<u64>());
            if !directory.pop() {
                break;
            }
        }
    }
    limits.into_iter().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn open_files_end_at_the_hard_limit() {
        let raised = raise_open_files().unwrap();
        assert!(raised.now >= raised.before);
        let again = raise_open_files().unwrap();
        assert_eq!(again, OpenFiles { before: raised.now, now: raised.now });
    }

    #[test]
    fn resident_memory_grows_with_what_is_touched() {
        let meter = MemoryMeter::open().unwrap();
        let before = meter.resident_bytes().unwrap();
        let block = vec![1_u8; 64 << 20];
        let after = meter.resident_bytes().unwrap();
        assert!(after >= before + (32 << 20), "{before} -> {after}");
        drop(block);
    }

    #[test]
    fn this_machine_has_memory_and_disk() {
        assert!(memory_total_bytes().unwrap() > 1 << 20);
        assert!(disk_free_bytes(Path::new("/")).is_ok());
    }

    #[test]
    fn tightest_group_of_version_2_wins() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "proc/meminfo", "MemTotal:       16000000 kB\nMemFree: 1 kB\n");
        assert_eq!(memory_total_under(root.path()), Some(16_000_000 * 1024));
        write(root.path(), "proc/self/cgroup", "0::/a/b\n");
        write(root.path(), "sys/fs/cgroup/a/b/memory.max", "max\n");
        write(root.path(), "sys/fs/cgroup/a/memory.max", "1073741824\n");
        write(root.path(), "sys/fs/cgroup/memory.max", "2147483648\n");
        assert_eq!(memory_total_under(root.path()), Some(1 << 30));
    }

    #[test]
    fn group_path_of_the_host_ends_at_the_mount() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "proc/self/cgroup", "0::/kubepods/pod1/container\n");
        write(root.path(), "sys/fs/cgroup/memory.max", "536870912\n");
        assert_eq!(memory_total_under(root.path()), Some(512 << 20));
    }

    #[test]
    fn unlimited_group_of_version_1_leaves_the_machine() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "proc/meminfo", "MemTotal: 1024 kB\n");
        write(root.path(), "proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/x\n");
        write(root.path(), "sys/fs/cgroup/memory/x/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(memory_total_under(root.path()), Some(1 << 20));
    }

    #[test]
    fn nothing_readable_is_no_total() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(memory_total_under(root.path()), None);
        assert_eq!(kibibytes_of("VmRSS:", "VmHWM:\t 9 kB\nVmRSS:\t    2 kB\n"), Some(2048));
        assert_eq!(kibibytes_of("VmRSS:", "VmRSS:\t many kB\n"), None);
    }
}
