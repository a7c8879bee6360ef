//! What a process has used: CPU seconds and resident memory from `/proc`, and its files on disk.

use super::failure::Failure;
use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

/// The unit of CPU time in `/proc` (USER_HZ), the same on every architecture that Rust runs on.
const TICKS_PER_SEC: f64 = 100.0;

/// CPU time and memory of a process at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    /// User and system time of all its threads, those that have ended included.
    pub(super) cpu_secs: f64,
    pub(super) rss_bytes: u64,
}

impl Usage {
    /// Reads the process `pid`.
    pub(super) fn of(pid: u32) -> Result<Self, Failure> {
        Self::read(&pid.to_string())
    }

    /// Reads this process.
    pub(super) fn own() -> Result<Self, Failure> {
        Self::read("self")
    }

    fn read(process: &str) -> Result<Self, Failure> {
        let file = |name: &str| {
            let path = format!("/proc/{process}/{name}");
            fs::read_to_string(&path).map_err(Failure::io(format!("reading {path}")))
        };
        let bad = |what: &str| Failure::protocol(format!("/proc/{process} has no {what}"));
        let ticks = ticks(&file("stat")?).ok_or_else(|| bad("CPU time"))?;
        let rss_kib = field_kib(&file("status")?, "VmRSS:").ok_or_else(|| bad("VmRSS"))?;
        Ok(Self { cpu_secs: ticks as f64 / TICKS_PER_SEC, rss_bytes: rss_kib * 1024 })
    }
}

/// Clock ticks spent, from the text of `stat`. The command's name may hold spaces and parentheses,
/// so fields are counted from the last `)`.
fn ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn field_kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with(name))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// What the files below `dir` take on the disk.
pub(super) fn directory_bytes(dir: &Path) -> Result<u64, Failure> {
    let failed = || Failure::io(format!("looking into {}", dir.display()));
    let mut bytes = 0;
    for entry in fs::read_dir(dir).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            // The broker is at work: it removed it in between.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed()(error)),
        };
        // In blocks of this size whatever the file system's own are.
        bytes += metadata.blocks() * 512;
        if metadata.is_dir() {
            bytes += directory_bytes(&entry.path())?;
        }
    }
    Ok(bytes)
}

/// Raises this process's limit of open files as far as it may go, so that it can hold `wanted`.
pub(super) fn raise_open_files(wanted: u64) -> Result<(), Failure> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let raised = Rlimit { current: limit.maximum.map(|max| max.min(wanted)), maximum: limit.maximum };
    // Root may lift the hard limit too; anybody else goes as far as it.
    let lifted = Rlimit { current: Some(wanted), maximum: Some(wanted.max(limit.maximum.unwrap_or(0))) };
    setrlimit(Resource::Nofile, lifted)
        .or_else(|_| setrlimit(Resource::Nofile, raised))
        .map_err(|errno| Failure::io("raising the limit of open files")(io::Error::from(errno)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_a_name_with_parentheses() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 9 9 20 0 1 0 5 6 7";
        assert_eq!(ticks(stat), Some(200));
        assert_eq!(ticks("nonsense"), None);
    }

    #[test]
    fn a_directory_takes_what_all_its_files_take() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("inner")).unwrap();
        fs::write(dir.path().join("inner/file"), vec![7; 100_000]).unwrap();
        fs::File::open(dir.path().join("inner/file")).unwrap().sync_all().unwrap();
        assert!((100_000..200_000).contains(&directory_bytes(dir.path()).unwrap()));
        assert!(directory_bytes(&dir.path().join("none")).is_err());
    }

    #[test]
    fn own_usage_is_read() {
        assert!(Usage::own().unwrap().rss_bytes > 0);
        assert!(Usage::of(std::process::id()).is_ok());
    }
}
