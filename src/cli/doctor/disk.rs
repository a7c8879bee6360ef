//! The disk of the data directory: its file system, how fast it syncs, and how much of it is free.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Finding;
use crate::config::Settings;
use crate::server::limits;
use crate::store::disk::{Access, BLOCK_BYTES, Disk as _, RealDisk};
use crate::store::survey::{Held, Layout};

/// Writes that are measured.
const SYNCS: usize = 200;
/// Half of all syncs slower than this is a slow disk: one client that waits for each confirm gets 100 a
/// second.
const SYNC_P50_SLOW: Duration = Duration::from_millis(10);
/// No stable storage answers sooner.
const SYNC_P50_INCREDIBLE: Duration = Duration::from_micros(8);
/// One in a hundred slower than this shows in every latency.
const SYNC_P99_SLOW: Duration = Duration::from_millis(100);

/// Whether a broker is running on the directory.
pub(super) fn is_in_use(dir: &Path) -> bool {
    matches!(Layout::find(&RealDisk, dir), Ok(Some(layout)) if matches!(layout.hold(&RealDisk), Held::InUse))
}

/// Looks at the disk.
pub(super) fn examine(settings: &Settings, is_running: bool) -> Vec<Finding> {
    let dir = &settings.server.data_dir;
    let mut findings = Vec::new();
    let place = match existing(dir) {
        Some(place) => place,
        None => {
            let found = format!("{} and no directory above it exist", dir.display());
            return vec![Finding::bad("data directory", found, "name another as server.data_dir")];
        }
    };
    findings.push(match (place == *dir, is_running) {
        (_, true) => Finding::ok("data directory", format!("{}, in use by a running broker", dir.display())),
        (true, false) => Finding::ok("data directory", format!("{}, not in use", dir.display())),
        (false, false) => {
            Finding::ok("data directory", format!("{}, to be made in {}", dir.display(), place.display()))
        }
    });
    findings.push(match rustix::fs::statfs(&place) {
        Ok(stat) => file_system(stat.f_type.cast_unsigned()),
        Err(error) => Finding::warn("file system", error.to_string(), "look at the mount"),
    });
    findings.push(match measure(&place) {
        Ok(times) => sync_latency(times),
        Err(error) => Finding::bad(
            "disk sync",
            format!("{} cannot be written: {error}", place.display()),
            "let the broker's user own the data directory",
        ),
    });
    findings.push(match limits::disk_free_bytes(&place) {
        Ok(free) => {
            let total = limits::memory_total_bytes().unwrap_or_default();
            let publishes = settings.broker.disk_free_limit.bytes(total);
            free_space(free, publishes.max(settings.persistence.log.free_bytes_min))
        }
        Err(error) => Finding::warn("free space", error.to_string(), "look at the mount"),
    });
    findings
}

/// The directory itself, or the nearest above it.
fn existing(dir: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(dir).ok()?;
    if absolute.is_dir() {
        return Some(dir.to_owned());
    }
    absolute.ancestors().find(|above| above.is_dir()).map(Path::to_owned)
}

/// What is known of file systems, by the number that statfs gives.
fn file_system(magic: u64) -> Finding {
    let check = "file system";
    let ok = |name: &str| Finding::ok(check, name);
    match magic & 0xFFFF_FFFF {
        0xEF53 => ok("ext4 (or ext3, ext2)"),
        0x5846_5342 => ok("xfs"),
        0xF2F5_2010 => ok("f2fs"),
        0x9123_683E => Finding::warn(
            check,
            "btrfs",
            "syncs cost more on a copy-on-write file system: `chattr +C` on the empty data directory, or use ext4 or xfs",
        ),
        0x2FC1_2FC1 => Finding::warn(check, "zfs", "make sure that sync=standard is set, and measure"),
        0x0102_1994 | 0x8584_58F6 => Finding::warn(
            check,
            "tmpfs: it is memory, and everything in it is gone when the machine restarts",
            "put server.data_dir on a disk",
        ),
        0x794C_7630 => Finding::warn(
            check,
            "overlay: the writable layer of a container, which goes with the container",
            "mount a volume at server.data_dir",
        ),
        0x6969 => Finding::warn(
            check,
            "nfs: syncs and locks are as good as the server's, and a lost server stops the broker",
            "put server.data_dir on a local disk or a block device",
        ),
        0xFF53_4D42 | 0xFE53_4D42 => {
            Finding::warn(check, "cifs: syncs are as good as the server's", "put server.data_dir on a local disk")
        }
        0x6573_5546 => Finding::warn(
            check,
            "fuse: whether a sync reaches stable storage is up to the program behind it",
            "put server.data_dir on a local disk, or make sure of it",
        ),
        0x0102_1997 => Finding::warn(check, "9p: shared by a host with its guest", "use a block device"),
        other => Finding::ok(check, format!("unknown to tern (type {other:#x})")),
    }
}

/// Times of writes of a block, each until it is on stable storage, as the log makes them.
#[allow(clippy::disallowed_methods, reason = "a measurement of the disk itself")]
fn measure(dir: &Path) -> io::Result<Vec<Duration>> {
    let path = dir.join(format!("doctor-{}", std::process::id()));
    let file = RealDisk.create(&path, Access::Direct)?;
    let _removed = Removed(&path);
    let bytes = 256 * BLOCK_BYTES as u64;
    file.allocate(bytes)?;
    let room = vec![0x5A; 2 * BLOCK_BYTES];
    let skew = room.as_ptr().align_offset(BLOCK_BYTES);
    let block = &room[skew..skew + BLOCK_BYTES];
    // Once over new blocks, as a segment is zeroed ahead.
    for at in 0..256 {
        file.write_all_at(block, at * BLOCK_BYTES as u64)?;
    }
    file.sync_data()?;
    let mut times = Vec::with_capacity(SYNCS);
    for at in 0..SYNCS as u64 {
        let begin = Instant::now();
        file.write_all_at(block, at * BLOCK_BYTES as u64)?;
        file.sync_data()?;
        times.push(begin.elapsed());
    }
    Ok(times)
}

/// A file that goes when this does.
struct Removed<'a>(&'a Path);

impl Drop for Removed<'_> {
    fn drop(&mut self) {
        // It is small, and its name says whose it is.
        let _ = std::fs::remove_file(self.0);
    }
}

fn sync_latency(mut times: Vec<Duration>) -> Finding {
    let check = "disk sync";
    times.sort_unstable();
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    let millis = |time: Duration| format!("{}.{:02} ms", time.as_millis(), time.subsec_micros() % 1000 / 10);
    let found = format!("p50 {}, p99 {} for {} writes of 4 KiB, each synced", millis(p50), millis(p99), times.len());
    if p50 < SYNC_P50_INCREDIBLE {
        return Finding::warn(
            check,
            format!("{found}: faster than stable storage can be"),
            "confirmed messages may be lost in a power cut: make sure that the disk is one, and that it honours syncs",
        );
    }
    if p50 > SYNC_P50_SLOW || p99 > SYNC_P99_SLOW {
        return Finding::warn(
            check,
            format!("{found}: slow"),
            "every confirm waits for a sync: use a local SSD, and see that nothing else syncs on this disk",
        );
    }
    Finding::ok(check, found)
}

fn free_space(free: u64, needed: u64) -> Finding {
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    let found = format!("{} free; publishers are stopped below {}", mib(free), mib(needed));
    let advice = "make room on the disk of server.data_dir";
    if free < needed {
        return Finding::bad("free space", found, advice);
    }
    if free < needed.saturating_mul(4) {
        return Finding::warn("free space", found, advice);
    }
    Finding::ok("free space", found)
}

#[cfg(test)]
mod tests {
    use super::super::Health;
    use super::*;

    #[test]
    fn memory_networks_and_layers_are_warned_about() {
        for magic in [0x0102_1994, 0x6969, 0x794C_7630] {
            assert_eq!(file_system(magic).health, Health::Warn, "{magic:#x}");
        }
        assert_eq!(file_system(0xEF53).health, Health::Ok);
    }

    #[test]
    fn a_disk_that_is_slow_or_too_fast_is_warned_about() {
        let all = |micros| sync_latency(vec![Duration::from_micros(micros); SYNCS]).health;
        assert_eq!([2, 300, 30_000].map(all), [Health::Warn, Health::Ok, Health::Warn]);
        let mut one_in_fifty = vec![Duration::from_micros(300); SYNCS];
        one_in_fifty[..4].fill(Duration::from_millis(200));
        assert_eq!(sync_latency(one_in_fifty).health, Health::Warn);
    }

    #[test]
    fn too_little_space_is_bad_and_little_is_a_warning() {
        assert_eq!([99, 399, 400].map(|free| free_space(free, 100).health), [Health::Bad, Health::Warn, Health::Ok]);
    }

    #[test]
    fn measuring_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(measure(dir.path()).unwrap().len(), SYNCS);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_is_to_be_made_is_judged_by_the_one_above() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(existing(&dir.path().join("a/b")), Some(dir.path().to_owned()));
    }
}
