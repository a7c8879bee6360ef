//! Kills that are aimed: what the broker is doing is seen in the names and sizes of its files.
//!
//! What a kill is said to have hit is judged by two looks, one just before it was decided and one after
//! the process was over: a commit was under way only if its file is there and the manifest is as it was.

use std::{
    collections::BTreeMap,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// What a kill under load waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    /// The index begins a run or an attachment.
    Commit,
    /// Messages are copied out of sparse segments.
    Move,
    /// A file of the log is given up.
    Release,
}

/// What a kill has hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// At a random time under load, or aimed at what did not come.
    Load,
    /// A file of the index was there that the manifest did not name yet: of a checkpoint, or of a merge.
    Commit,
    /// A message had been copied to a cold file, complete or not, that the index did not name yet.
    Move,
    /// A file of the log had just been given up.
    Release,
    /// Before the broker had its data directory.
    Launch,
    /// It had its data directory, and had not replayed its log.
    Recovery,
    /// It had replayed its log, and served nobody.
    Opening,
    /// It had just begun to serve.
    Started,
}

impl Phase {
    pub(crate) const ALL: [(Self, &'static str); 8] = [
        (Self::Load, "kills at random under load"),
        (Self::Commit, "kills in a checkpoint or a merge"),
        (Self::Move, "kills between a move and its checkpoint"),
        (Self::Release, "kills after a file of the log had gone"),
        (Self::Launch, "kills before recovery"),
        (Self::Recovery, "kills in recovery"),
        (Self::Opening, "kills between recovery and service"),
        (Self::Started, "kills just after a start"),
    ];
}

/// How often the files are looked at.
const LOOK: Duration = Duration::from_micros(200);

/// How long a kill waits for what it is aimed at.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// A copy is shorter; a new segment has its full size at once.
const COPY_BYTES_MAX: u64 = 1 << 20;

/// The files of a data directory with their sizes.
#[derive(Debug, Default)]
pub(crate) struct Sight {
    log: BTreeMap<String, u64>,
    index: BTreeMap<String, u64>,
}

impl Sight {
    pub(crate) fn of(data: &Path) -> Self {
        Self { log: files(&data.join("log")), index: files(&data.join("index")) }
    }

    /// What has been done of that between the two looks and is not over.
    fn phase_until(&self, later: &Self) -> Option<Phase> {
        [(Aim::Move, Phase::Move), (Aim::Commit, Phase::Commit), (Aim::Release, Phase::Release)]
            .into_iter()
            .find_map(|(aim, phase)| self.is_seen(aim, later).then_some(phase))
    }

    fn is_seen(&self, aim: Aim, later: &Self) -> bool {
        let manifest = |sight: &Self| -> BTreeMap<_, _> {
            sight.index.clone().into_iter().filter(|(name, _)| name.starts_with("manifest-")).collect()
        };
        let is_new = |name: &str| !self.log.contains_key(name) && !self.index.contains_key(name);
        let is_part =
            |(name, _): (&String, &u64)| (name.starts_with("run-") || name.starts_with("attachment-")) && is_new(name);
        let is_copy = |(name, bytes): (&String, &u64)| {
            let is_begun = name.starts_with("new-") && (1..COPY_BYTES_MAX).contains(bytes);
            (is_begun || name.starts_with("cold-")) && is_new(name)
        };
        let is_segment = |name: &&String| name.ends_with(".seg");
        match aim {
            Aim::Commit => later.index.iter().any(is_part) && manifest(self) == manifest(later),
            Aim::Move => later.log.iter().any(is_copy) && manifest(self) == manifest(later),
            Aim::Release => self.log.keys().filter(is_segment).any(|name| !later.log.contains_key(name)),
        }
    }
}

/// Watches until what is aimed at begins; returns the look before that.
pub(crate) fn await_moment(data: &Path, aim: Aim) -> Option<Sight> {
    let begun = Instant::now();
    let mut before = Sight::of(data);
    while begun.elapsed() < PATIENCE {
        thread::sleep(LOOK);
        let now = Sight::of(data);
        if before.is_seen(aim, &now) {
            return Some(before);
        }
        before = now;
    }
    None
}

/// What a kill has hit that followed that look.
pub(crate) fn judge(before: Option<Sight>, data: &Path) -> Phase {
    before.and_then(|before| before.phase_until(&Sight::of(data))).unwrap_or(Phase::Load)
}

/// Whether a process holds a lock of a file: the broker's data directory is its own.
pub(crate) fn has_lock(pid: u32) -> bool {
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let pid = pid.to_string();
    locks.lines().any(|line| line.contains("FLOCK") && line.split_whitespace().any(|word| word == pid))
}

fn files(dir: &Path) -> BTreeMap<String, u64> {
    // One that goes meanwhile is not there.
    let entries = std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.metadata().ok()?.len()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(log: &[(&str, u64)], index: &[(&str, u64)]) -> Sight {
        let map = |files: &[(&str, u64)]| files.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect();
        Sight { log: map(log), index: map(index) }
    }

    #[test]
    fn commit_is_under_way_until_the_manifest_has_grown() {
        let before = sight(&[], &[("manifest-1", 90), ("run-1", 5)]);
        assert_eq!(before.phase_until(&sight(&[], &[("manifest-1", 90), ("run-1", 5)])), None);
        let begun = sight(&[], &[("manifest-1", 90), ("run-1", 5), ("run-2", 0)]);
        assert_eq!(before.phase_until(&begun), Some(Phase::Commit));
        assert_eq!(before.phase_until(&sight(&[], &[("manifest-1", 99), ("run-1", 5), ("run-2", 8)])), None);
    }

    #[test]
    fn move_is_told_from_a_new_segment_and_from_one_that_is_named() {
        let before = sight(&[("1.seg", 9)], &[("manifest-1", 90)]);
        let copied = |index| before.phase_until(&sight(&[("1.seg", 9), ("cold-1.seg", 7)], index));
        assert_eq!(copied(&[("manifest-1", 90)]), Some(Phase::Move));
        assert_eq!(copied(&[("manifest-1", 99)]), None);
        let new = |bytes| before.phase_until(&sight(&[("1.seg", 9), ("new-1", bytes)], &[("manifest-1", 90)]));
        assert_eq!((new(0), new(3 << 20), new(5_000)), (None, None, Some(Phase::Move)));
    }

    #[test]
    fn segment_that_is_not_there_any_more_was_given_up() {
        let before = sight(&[("1.seg", 9), ("spare-1", 9)], &[]);
        assert_eq!(before.phase_until(&sight(&[("spare-2", 9)], &[])), Some(Phase::Release));
        assert_eq!(before.phase_until(&sight(&[("1.seg", 9)], &[])), None);
    }
}
