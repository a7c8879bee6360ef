//! Merging: fewer and larger runs, and an end for what is dead.
//!
//! Levels: a commit makes a run of level 0; `fan_out` groups of a level become one group of the
//! next. So an entry is written once a level, and groups stay few. Commits of a level are always
//! later than those of the levels above it, so of two groups all of one is newer.
//!
//! A group whose runs have no key in common and hold a block or more of each owner is not written
//! again: its runs move to the next level as they are. That is the common case of few deep queues.
//!
//! A damaged run is left alone, with its group, until nothing in it lives. Merging goes on at both sides
//! of it, never across: what is older must not become newer than what it holds.
//!
//! What is dead goes at the next merge; where merges are rare, a run that is mostly dead is written
//! anew alone, and when a quarter of all entries are deletes, everything is merged.

use std::{collections::BTreeSet, sync::atomic::Ordering, time::Duration};

use super::{
    commit::Shared,
    error::Error,
    heads::{Floor, Heads},
    key::{Key, Rank},
    options::Options,
    run::{Finish, Run, RunCursor, RunWriter, run_name},
    scan::{Lane, Lanes, Snapshot},
    state::MergeEdit,
};

/// Deletes that are not worth a merge of everything.
const DELETED_COUNT_MIN: u64 = 4096;
/// Commits between two looks at how much of each run is dead.
const GARBAGE_COMMITS: u64 = 8;
/// Bytes after which a merge looks whether it should pause or end.
const PACE_BYTES: u64 = 1 << 20;

/// The merging thread: started by `Index::open`, ends when the index is dropped. It owns nothing.
pub(super) fn run_thread(shared: &Shared) {
    loop {
        let mut work = shared.work.lock();
        shared.is_work.wait_while(&mut work, |work| !work.is_pending && !work.is_ending);
        if work.is_ending {
            return;
        }
        work.is_pending = false;
        drop(work);
        loop {
            shared.bury(shared.take_buried());
            match merge_once(shared) {
                Ok(true) if shared.work.lock().is_ending => return,
                Ok(true) => {}
                Ok(false) => break,
                // That run is not tried again; others are.
                Err(error @ Error::Corrupt { .. }) => shared.report(&error),
                // The next commit tries again.
                Err(error) => {
                    tracing::warn!(%error, "a merge of the index failed");
                    break;
                }
            }
        }
    }
}

pub(super) fn merge_once(shared: &Shared) -> Result<bool, Error> {
    let _merging = shared.merging.lock();
    {
        let current = shared.current.read().clone();
        let is_there = |number: &u64| current.runs.iter().any(|run| run.meta.number == *number);
        shared.work.lock().damaged.retain(is_there);
    }
    let result = merge_most_urgent(shared);
    if let Err(error) = &result {
        shared.note_damage(error);
    }
    let heads_count = shared.current.read().heads.count();
    if heads_count > 2 * shared.heads_kept.load(Ordering::Relaxed) + 1024 {
        shared.forget_heads();
    }
    shared.is_progress.notify_all();
    result
}

fn merge_most_urgent(shared: &Shared) -> Result<bool, Error> {
    let snapshot = shared.current.read().clone();
    let Some(job) = pick(shared, &snapshot) else { return Ok(false) };
    match job {
        Job::Move { runs, level } => {
            let group = shared.new_number();
            let moved = runs.iter().map(|run| (run.meta.number, level, group)).collect();
            shared.install_merge(&[], MergeEdit { moved, ..MergeEdit::default() })?;
        }
        Job::Merge { runs, level, group } => {
            let group = group.unwrap_or_else(|| shared.new_number());
            let mut merge = Merge::new(shared, &snapshot, &runs, level, group);
            if !merge.run(&runs)? {
                return Ok(false);
            }
            shared.forget_heads();
        }
    }
    Ok(true)
}

/// What to do next.
enum Job {
    /// The runs become one group of `level` as they are.
    Move { runs: Vec<Run>, level: u8 },
    /// The runs are written as new ones of `level`, in a new group if none is named.
    Merge { runs: Vec<Run>, level: u8, group: Option<u64> },
}

/// Runs that have no key in common.
struct Group<'a> {
    number: u64,
    level: u8,
    runs: Vec<&'a Run>,
}

fn pick(shared: &Shared, snapshot: &Snapshot) -> Option<Job> {
    let damaged = shared.work.lock().damaged.clone();
    let groups = groups(snapshot);
    // What stands between two damaged groups, oldest first.
    let is_damaged = |group: &Group<'_>| group.runs.iter().any(|run| damaged.contains(&run.meta.number));
    let mut stretches = groups.split(is_damaged).peekable();
    let oldest = stretches.peek().copied().unwrap_or_default();
    let stretches: Vec<&[Group<'_>]> = stretches.collect();
    stretches
        .iter()
        .find_map(|groups| pick_level(groups, &shared.options))
        .or_else(|| pick_deletes(oldest))
        .or_else(|| pick_small_files(stretches.iter().copied().flatten(), snapshot, &shared.options))
        .or_else(|| {
            let commit = snapshot.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.number);
            let is_time = commit >= shared.garbage_sought.load(Ordering::Relaxed) + GARBAGE_COMMITS;
            let job = is_time.then(|| pick_garbage(snapshot, &damaged)).flatten();
            if is_time && job.is_none() {
                shared.garbage_sought.store(commit, Ordering::Relaxed);
            }
            job
        })
}

/// The groups, oldest first.
fn groups(snapshot: &Snapshot) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    // Runs of a group stand together: their commits do not interleave with those of other groups.
    for run in snapshot.runs.iter().rev() {
        match groups.last_mut() {
            Some(group) if group.number == run.meta.group => group.runs.push(run),
            _ => groups.push(Group { number: run.meta.group, level: run.meta.level, runs: vec![run] }),
        }
    }
    groups
}

/// A level that is full: its oldest groups. Only neighbours: levels fall from the oldest group to the
/// newest, but for where a damaged one once stood in the way.
fn pick_level(groups: &[Group<'_>], options: &Options) -> Option<Job> {
    let fan_out = options.fan_out.max(2);
    let levels = groups.chunk_by(|one, next| one.level == next.level);
    let full = levels.filter(|level| level.len() >= fan_out).min_by_key(|level| level[0].level)?;
    let runs: Vec<Run> = full[..fan_out].iter().flat_map(|group| group.runs.iter().copied().cloned()).collect();
    let level = full[0].level.saturating_add(1);
    Some(if is_good_as_it_is(&runs) { Job::Move { runs, level } } else { Job::Merge { runs, level, group: None } })
}

/// Whether merging would bring nothing together that a read looks for together.
fn is_good_as_it_is(runs: &[Run]) -> bool {
    let blocks: u64 = runs.iter().map(|run| u64::from(run.file.blocks())).sum();
    let sections_count: u64 = runs.iter().map(|run| run.file.sections.len() as u64).sum();
    if blocks < sections_count {
        return false;
    }
    let mut sections: Vec<_> = runs.iter().flat_map(|run| run.file.sections.iter()).collect();
    sections.sort_unstable_by_key(|section| (section.tree, section.owner, section.first));
    let has_deletes = sections.iter().any(|section| section.deleted > 0);
    let is_overlapping =
        |pair: &[&super::run::Section]| pair[0].tree_owner() == pair[1].tree_owner() && pair[0].last >= pair[1].first;
    !has_deletes && !sections.windows(2).any(is_overlapping)
}

/// Everything, when so much of it are deletes that cannot go in another way. Where a damaged run is in the
/// way, only what is older: behind it deletes could not go.
fn pick_deletes(groups: &[Group<'_>]) -> Option<Job> {
    let runs = || groups.iter().flat_map(|group| group.runs.iter().copied());
    let entries: u64 = runs().map(|run| run.file.entries()).sum();
    let deleted: u64 = runs().map(|run| run.file.deleted()).sum();
    if deleted < DELETED_COUNT_MIN || deleted * 4 < entries {
        return None;
    }
    let level = runs().map(|run| run.meta.level).max()?;
    Some(Job::Merge { runs: runs().cloned().collect(), level, group: None })
}

/// A group of many small files, when there are too many files.
fn pick_small_files<'a>(
    groups: impl Iterator<Item = &'a Group<'a>>,
    snapshot: &Snapshot,
    options: &Options,
) -> Option<Job> {
    if snapshot.runs.len() <= options.files_count_max {
        return None;
    }
    let most = groups.max_by_key(|group| group.runs.len())?;
    let bytes: u64 = most.runs.iter().map(|run| run.meta.file_bytes).sum();
    let is_worth_it =
        most.runs.len() >= options.fan_out && bytes / (most.runs.len() as u64) < options.run_bytes_max / 4;
    is_worth_it.then(|| Job::Merge {
        runs: most.runs.iter().copied().cloned().collect(),
        level: most.level,
        group: Some(most.number),
    })
}

/// A run of which more than half is dead.
fn pick_garbage(snapshot: &Snapshot, damaged: &BTreeSet<u64>) -> Option<Job> {
    let run = snapshot.runs.iter().filter(|run| !damaged.contains(&run.meta.number)).find(|run| {
        let sections = run.file.sections.iter();
        let dead = sections.filter(|section| snapshot.heads.is_dead(section, run.meta.last_commit));
        dead.map(|section| u64::from(section.entries)).sum::<u64>() * 2 > run.file.entries()
    })?;
    Some(Job::Merge { runs: vec![run.clone()], level: run.meta.level, group: Some(run.meta.group) })
}

/// One merge.
struct Merge<'a> {
    shared: &'a Shared,
    heads: &'a Heads,
    /// Runs of earlier commits than those being merged.
    older: Vec<&'a Run>,
    level: u8,
    group: u64,
    commits: (u64, u64),
    writer: Option<RunWriter>,
    finished: Vec<Run>,
    /// Numbers of all files that were begun.
    begun: Vec<u64>,
    /// Bytes of the writer when the pace was last looked at.
    paced_bytes: u64,
}

/// A run being read.
struct Input<'a> {
    run: &'a Run,
    /// The next section to be merged.
    section_index: usize,
    cursor: Option<RunCursor>,
}

impl<'a> Merge<'a> {
    fn new(shared: &'a Shared, snapshot: &'a Snapshot, runs: &[Run], level: u8, group: u64) -> Merge<'a> {
        let first_commit = runs.iter().map(|run| run.meta.first_commit).min().unwrap_or_default();
        let last_commit = runs.iter().map(|run| run.meta.last_commit).max().unwrap_or_default();
        Merge {
            shared,
            heads: &snapshot.heads,
            older: snapshot.runs.iter().filter(|run| run.meta.last_commit < first_commit).collect(),
            level,
            group,
            commits: (first_commit, last_commit),
            writer: None,
            finished: Vec::new(),
            begun: Vec::new(),
            paced_bytes: 0,
        }
    }

    /// Merges `runs` and installs the result; false if the index is being closed meanwhile.
    fn run(&mut self, runs: &[Run]) -> Result<bool, Error> {
        let result = self.merge(runs).and_then(|is_done| {
            if is_done {
                self.install(runs)?;
            }
            Ok(is_done)
        });
        // After a failed sync the manifest may name the files: then the next start decides.
        if !matches!(result, Ok(true)) && !self.shared.has_failed() {
            self.writer = None;
            self.shared.bury(self.begun.iter().map(|number| run_name(*number)).collect());
        }
        result
    }

    fn install(&mut self, runs: &[Run]) -> Result<(), Error> {
        self.finish_file()?;
        if !self.finished.is_empty() {
            let synced = self.shared.folder.sync_dir();
            synced.map_err(|source| self.shared.fail(Error::io("sync the folder of", "the index", source)))?;
        }
        let bytes: u64 = self.finished.iter().map(|run| run.meta.file_bytes).sum();
        self.shared.merge_bytes.fetch_add(bytes, Ordering::Relaxed);
        let edit = MergeEdit {
            added: self.finished.iter().map(|run| run.meta).collect(),
            removed: runs.iter().map(|run| run.meta.number).collect(),
            moved: Vec::new(),
        };
        self.shared.install_merge(&self.finished, edit)
    }

    fn merge(&mut self, runs: &[Run]) -> Result<bool, Error> {
        let mut inputs: Vec<Input<'_>> = runs.iter().map(|run| Input { run, section_index: 0, cursor: None }).collect();
        let next_section = |input: &Input<'_>| input.run.file.sections.get(input.section_index).copied();
        while let Some((tree, owner)) = inputs.iter().filter_map(next_section).map(|section| section.tree_owner()).min()
        {
            let mut lanes = Lanes::new(tree, owner);
            for (index, input) in inputs.iter_mut().enumerate() {
                let Some(section) = next_section(input).filter(|section| section.tree_owner() == (tree, owner)) else {
                    continue;
                };
                input.section_index += 1;
                let floor = match self.heads.floor(tree, owner, input.run.meta.last_commit) {
                    Floor::Below(floor) if floor <= section.last => floor,
                    _ => continue,
                };
                lanes.add(Lane {
                    cursor: input.cursor.take().unwrap_or_else(|| RunCursor::new(input.run.file.clone())),
                    commit: input.run.meta.last_commit,
                    start: section.first.max(floor),
                    index,
                });
            }
            if !self.merge_section(tree, owner, &mut lanes)? {
                return Ok(false);
            }
            for lane in lanes.into_done() {
                inputs[lane.index].cursor = Some(lane.cursor);
            }
        }
        Ok(true)
    }

    fn merge_section(&mut self, tree: u8, owner: u64, lanes: &mut Lanes) -> Result<bool, Error> {
        lanes.begin();
        let mut older: Option<Vec<(Rank, Rank)>> = None;
        while lanes.advance()? {
            let rank = lanes.rank();
            let value = lanes.value();
            if value.is_none() {
                // A delete has done its work when no older run can hold the key.
                let older = older.get_or_insert_with(|| self.older_ranges(tree, owner));
                if !older.iter().any(|(first, last)| *first <= rank && rank <= *last) {
                    continue;
                }
            }
            if self.writer.is_none() {
                let number = self.shared.new_number();
                self.begun.push(number);
                self.writer = Some(RunWriter::create(&self.shared.folder, number)?);
                self.paced_bytes = 0;
            }
            let Some(writer) = &mut self.writer else { continue };
            writer.push(Key::at(tree, owner, rank), value)?;
            let bytes = writer.bytes();
            if bytes >= self.paced_bytes + PACE_BYTES {
                if !self.pace(bytes - self.paced_bytes) {
                    return Ok(false);
                }
                self.paced_bytes = bytes;
            }
            if bytes >= self.shared.options.run_bytes_max {
                self.finish_file()?;
            }
        }
        Ok(true)
    }

    /// What older runs hold of (`tree`, `owner`).
    fn older_ranges(&self, tree: u8, owner: u64) -> Vec<(Rank, Rank)> {
        let sections = self.older.iter().filter_map(|run| {
            let section = run.file.section(tree, owner)?;
            (!self.heads.is_dead(section, run.meta.last_commit)).then_some((section.first, section.last))
        });
        sections.collect()
    }

    fn finish_file(&mut self) -> Result<(), Error> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        match writer.finish(self.level, self.group, self.commits) {
            Ok(run) => {
                self.finished.push(run);
                Ok(())
            }
            Err(Finish::Write(error)) => Err(error),
            Err(Finish::Sync(error)) => Err(self.shared.fail(error)),
        }
    }

    /// Pauses as long as writing `bytes` may take; false if the index is being closed.
    fn pace(&self, bytes: u64) -> bool {
        let rate = self.shared.options.merge_bytes_per_sec;
        let is_limited = self.shared.options.is_merging_in_background && rate > 0 && !self.shared.is_far_behind();
        let mut work = self.shared.work.lock();
        if is_limited {
            let pause = Duration::from_secs_f64(bytes as f64 / rate as f64);
            self.shared.is_work.wait_while_for(&mut work, |work| !work.is_ending, pause);
        }
        !work.is_ending
    }
}
