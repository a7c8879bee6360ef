//! The index itself: reading through snapshots, and the commit.
//!
//! Locks, in the order in which they may be taken: `merging` (one merge at a time), `writer` (the
//! manifest; held over file operations), `current` (what readers see; never held over a file
//! operation). Readers take `current` alone.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use parking_lot::{Condvar, Mutex, RwLock};

use super::{
    changes::Changes,
    checkpoint::{self, ATTACHMENT_BYTES_MAX, Checkpoint, NOTE_BYTES_MAX, NewCheckpoint},
    error::Error,
    folder::Folder,
    heads::Head,
    key::{Entry, Key, Rank, Value},
    manifest::{Append, Kind, Manifest, manifest_name},
    merge,
    open::{self, Recovery},
    options::Options,
    run::{Finish, Run, RunWriter, run_name},
    scan::{Scan, Snapshot},
    scrub,
    state::{CommitEdit, MergeEdit, State, checkpoint_after},
};
use crate::store::disk::Disk;

/// The cold index. Readers, one committer and the merging thread work beside each other.
///
/// Dropping it stops its threads, which merge and verify; a merge that was under way is forgotten.
pub struct Index {
    pub(super) shared: Arc<Shared>,
    recovery: Recovery,
    threads: Vec<thread::JoinHandle<()>>,
}

/// Figures for operators and measurements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Run files.
    pub runs_count: usize,
    /// Groups of runs that a read may have to merge.
    pub groups_count: usize,
    /// Entries in all runs, dead ones and deletes included.
    pub entries_count: u64,
    /// Bytes of all runs.
    pub runs_bytes: u64,
    /// Bytes of the manifest in use.
    pub manifest_bytes: u64,
    /// Heads and drops that are still needed.
    pub heads_count: usize,
    /// Bytes written by commits since the start, manifests included.
    pub commit_bytes: u64,
    /// Bytes written by merges since the start.
    pub merge_bytes: u64,
    /// Runs that were found to be damaged. Merging leaves them alone and goes on around them.
    pub damaged_runs_count: usize,
}

impl Index {
    /// Opens the index in the folder `dir`, or begins an empty one there.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if no checkpoint of the last two is whole, [`Error::NewerFormat`], or what
    /// the disk says.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, options: Options) -> Result<Index, Error> {
        let folder =
            Folder::open(disk, dir).map_err(|source| Error::io("create the folder of", "the index", source))?;
        let opened = open::open(&folder)?;
        let shared = Arc::new(Shared {
            folder,
            options,
            current: RwLock::new(Arc::new(opened.snapshot)),
            writer: Mutex::new(Writer {
                manifest: opened.manifest,
                older_manifest: opened.older_manifest,
                graveyard: opened.graveyard,
                failed: None,
            }),
            merging: Mutex::new(()),
            next_number: AtomicU64::new(opened.next_number),
            work: Mutex::new(Work::default()),
            reports: Mutex::new(Reports::default()),
            is_work: Condvar::new(),
            is_progress: Condvar::new(),
            heads_kept: AtomicUsize::new(0),
            garbage_sought: AtomicU64::new(0),
            commit_bytes: AtomicU64::new(0),
            merge_bytes: AtomicU64::new(0),
        });
        let mut index = Index { shared, recovery: opened.recovery, threads: Vec::new() };
        if index.shared.options.is_merging_in_background {
            index.spawn("index-merge", merge::run_thread)?;
        }
        if index.shared.options.scrub_bytes_per_sec > 0 {
            index.spawn("index-scrub", scrub::run_thread)?;
        }
        index.shared.wake();
        Ok(index)
    }

    fn spawn(&mut self, name: &'static str, run: fn(&Shared)) -> Result<(), Error> {
        let shared = self.shared.clone();
        let thread = thread::Builder::new().name(name.into()).spawn(move || run(&shared));
        self.threads.push(thread.map_err(|source| Error::io("start", name, source))?);
        Ok(())
    }

    /// Has `told` called, by a thread of the index, with damage that is found in the background: once for
    /// each place, what was found before at once. What a reader finds it is told itself. The first call
    /// counts.
    pub fn on_damage(&self, told: impl Fn(&Error) + Send + Sync + 'static) {
        let mut reports = self.shared.reports.lock();
        if reports.told.is_some() {
            return;
        }
        let told: Told = Arc::new(told);
        reports.told = Some(told.clone());
        let early = std::mem::take(&mut reports.early);
        drop(reports);
        early.iter().for_each(|error| told(error));
    }

    /// What was found when opening.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// The latest checkpoint; `None` if nothing was ever committed.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        self.snapshot().checkpoint().cloned()
    }

    /// The attachment of the latest checkpoint, read and checked; `None` if there never was one.
    ///
    /// # Errors
    /// If it cannot be read, or was damaged since the index was opened.
    pub fn attachment(&self) -> Result<Option<Vec<u8>>, Error> {
        // A commit would remove the file in time.
        let _writer = self.shared.writer.lock();
        let attachment = self.snapshot().checkpoint().and_then(|checkpoint| checkpoint.attachment);
        attachment.map(|attachment| checkpoint::read_attachment(&self.shared.folder, &attachment)).transpose()
    }

    /// Makes `changes` and `checkpoint` durable in one step. `Ok` means that they are on stable
    /// storage and that readers see them. `changes` is not cleared.
    ///
    /// Waits at most [`Options::commit_wait_ms_max`] for merging when that is far behind.
    ///
    /// # Errors
    /// After [`Error::Io`] of a write nothing has changed and the commit may be tried again; after
    /// one of a sync, and after every later call, it is [`Error::Failed`] or the sync's own error:
    /// then it is unknown which of the two checkpoints a restart finds.
    ///
    /// # Panics
    /// If the note is longer than [`NOTE_BYTES_MAX`] or the attachment than [`ATTACHMENT_BYTES_MAX`].
    pub fn commit(&self, changes: &mut Changes, checkpoint: NewCheckpoint<'_>) -> Result<Checkpoint, Error> {
        assert!(checkpoint.note.len() <= NOTE_BYTES_MAX, "a note has at most {NOTE_BYTES_MAX} bytes");
        self.shared.wait_for_merging();
        let committed = self.shared.commit(changes, checkpoint)?;
        self.shared.wake();
        Ok(committed)
    }

    /// What is committed now, for reading without regard to later commits. It keeps the files of
    /// dropped runs open as long as it lives.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.current.read().clone()
    }

    /// See [`Snapshot::get`].
    ///
    /// # Errors
    /// As there.
    pub fn get(&self, key: Key) -> Result<Option<Value>, Error> {
        self.snapshot().get(key)
    }

    /// See [`Snapshot::scan`].
    pub fn scan(&self, tree: u8, owner: u64, from: Rank) -> Scan {
        self.snapshot().scan(tree, owner, from)
    }

    /// See [`Snapshot::page`].
    ///
    /// # Errors
    /// As there.
    pub fn page(&self, tree: u8, owner: u64, from: Rank, limit: usize) -> Result<Vec<Entry>, Error> {
        self.snapshot().page(tree, owner, from, limit)
    }

    /// See [`Snapshot::first_by_order`].
    ///
    /// # Errors
    /// As there.
    pub fn first_by_order(&self, tree: u8, owner: u64, order: u64, limit: usize) -> Result<Vec<Entry>, Error> {
        self.snapshot().first_by_order(tree, owner, order, limit)
    }

    /// Does the most urgent merge, if there is one, and says whether there was: for tests and
    /// tools, and for callers that have no background thread.
    ///
    /// # Errors
    /// What reading or writing says. A damaged run is left alone from then on.
    pub fn merge_once(&self) -> Result<bool, Error> {
        merge::merge_once(&self.shared)
    }

    /// Copies the index as it is now to the folder `to`, which must be empty and is made if needed. Commits wait
    /// meanwhile.
    ///
    /// # Errors
    /// What the disk says.
    pub fn copy_to(&self, to: &Path) -> Result<(), Error> {
        // No record is half written, and what the last two checkpoints name stays.
        let _writer = self.shared.writer.lock();
        self.shared.folder.copy_to(to).map_err(|source| Error::io("copy the folder of", "the index", source))
    }

    /// Copies the index in the folder `dir`, which nobody has open, in the same way.
    ///
    /// # Errors
    /// What the disk says.
    pub fn copy(disk: Arc<dyn Disk>, dir: &Path, to: &Path) -> Result<(), Error> {
        let folder = Folder::to_look_at(disk, dir);
        folder.copy_to(to).map_err(|source| Error::io("copy the folder of", "the index", source))
    }

    /// Figures of now.
    pub fn stats(&self) -> Stats {
        let manifest_bytes = self.shared.writer.lock().manifest.bytes();
        let snapshot = self.snapshot();
        let mut groups: Vec<u64> = snapshot.runs.iter().map(|run| run.meta.group).collect();
        groups.sort_unstable();
        groups.dedup();
        Stats {
            runs_count: snapshot.runs.len(),
            groups_count: groups.len(),
            entries_count: snapshot.runs.iter().map(|run| run.file.entries()).sum(),
            runs_bytes: snapshot.runs.iter().map(|run| run.meta.file_bytes).sum(),
            manifest_bytes,
            heads_count: snapshot.heads.count(),
            commit_bytes: self.shared.commit_bytes.load(Ordering::Relaxed),
            merge_bytes: self.shared.merge_bytes.load(Ordering::Relaxed),
            damaged_runs_count: self.shared.work.lock().damaged.len(),
        }
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        self.shared.work.lock().is_ending = true;
        self.shared.is_work.notify_all();
        for thread in self.threads.drain(..) {
            // It holds nothing that a panic could have left half done but files, which the next
            // start removes.
            let _ = thread.join();
        }
    }
}

/// What the index and its merging thread share.
pub(super) struct Shared {
    pub(super) folder: Folder,
    pub(super) options: Options,
    pub(super) current: RwLock<Arc<Snapshot>>,
    pub(super) writer: Mutex<Writer>,
    pub(super) merging: Mutex<()>,
    next_number: AtomicU64,
    pub(super) work: Mutex<Work>,
    /// Taken alone; nobody is called under it.
    reports: Mutex<Reports>,
    pub(super) is_work: Condvar,
    /// A merge is done, or will not be.
    pub(super) is_progress: Condvar,
    /// Heads and drops that were left when the superfluous ones were last forgotten.
    pub(super) heads_kept: AtomicUsize,
    /// The commit at which runs of mostly dead entries were last looked for.
    pub(super) garbage_sought: AtomicU64,
    commit_bytes: AtomicU64,
    pub(super) merge_bytes: AtomicU64,
}

/// What the merging thread is to know.
#[derive(Default)]
pub(super) struct Work {
    /// Something changed since it last looked.
    pub(super) is_pending: bool,
    pub(super) is_ending: bool,
    /// Numbers of runs that cannot be read. They are found again after a restart.
    pub(super) damaged: BTreeSet<u64>,
}

/// Whom to tell of damage, and of which it was told.
#[derive(Default)]
struct Reports {
    told: Option<Told>,
    /// File and byte.
    known: BTreeSet<(String, u64)>,
    /// Found before there was anybody to tell.
    early: Vec<Error>,
}

type Told = Arc<dyn Fn(&Error) + Send + Sync>;

/// What is written behind the manifest's lock.
pub(super) struct Writer {
    pub(super) manifest: Manifest,
    /// The manifest before, kept because this one begins with one record that may be damaged.
    older_manifest: Option<u64>,
    /// Files that are superfluous, each with the commit after which they may go.
    graveyard: Vec<(u64, String)>,
    failed: Option<String>,
}

impl Writer {
    fn check(&self) -> Result<(), Error> {
        match &self.failed {
            None => Ok(()),
            Some(reason) => Err(Error::Failed { reason: reason.clone() }),
        }
    }

    fn fail(&mut self, error: Error) -> Error {
        self.failed = Some(error.to_string());
        error
    }

    fn append(&mut self, kind: Kind, commit: u64, payload: &[u8]) -> Result<(), Error> {
        match self.manifest.append(kind, commit, payload) {
            Ok(()) => Ok(()),
            Err(Append::Write(error)) => Err(error),
            Err(Append::Sync(error)) => Err(self.fail(error)),
        }
    }
}

impl Shared {
    pub(super) fn new_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn wake(&self) {
        self.work.lock().is_pending = true;
        self.is_work.notify_all();
    }

    /// Waits, shorter if the index is being closed; then it is false.
    pub(super) fn rest(&self, pause: Duration) -> bool {
        let mut work = self.work.lock();
        self.is_work.wait_while_for(&mut work, |work| !work.is_ending, pause);
        !work.is_ending
    }

    /// Has merging keep away from the run that an error of reading names.
    pub(super) fn note_damage(&self, error: &Error) {
        let Error::Corrupt { file, .. } = error else { return };
        let current = self.current.read().clone();
        let numbers = || current.runs.iter().map(|run| run.meta.number);
        let named: Vec<u64> = numbers().filter(|number| run_name(*number) == *file).collect();
        let mut work = self.work.lock();
        if named.is_empty() {
            // No run of now, so a merge that met it would meet it again: better none than that.
            work.damaged.extend(numbers());
        } else {
            work.damaged.extend(named);
        }
    }

    /// Tells of damage, once for each place.
    pub(super) fn report(&self, error: &Error) {
        let Error::Corrupt { file, offset, what } = error else { return };
        let mut reports = self.reports.lock();
        if !reports.known.insert((file.clone(), *offset)) {
            return;
        }
        match reports.told.clone() {
            Some(told) => {
                drop(reports);
                told(error);
            }
            None => reports.early.push(Error::corrupt(file, *offset, what)),
        }
    }

    /// After a sync has failed in a merge, too, nothing more is committed.
    pub(super) fn fail(&self, error: Error) -> Error {
        self.writer.lock().fail(error)
    }

    pub(super) fn has_failed(&self) -> bool {
        self.writer.lock().failed.is_some()
    }

    fn wait_for_merging(&self) {
        if !self.options.is_merging_in_background || !self.is_far_behind() {
            return;
        }
        let mut work = self.work.lock();
        self.is_progress.wait_for(&mut work, Duration::from_millis(self.options.commit_wait_ms_max));
    }

    /// Whether so many runs wait that merging goes before everything else.
    pub(super) fn is_far_behind(&self) -> bool {
        let current = self.current.read();
        let waiting = current.runs.iter().filter(|run| run.meta.level == 0).count();
        // Fewer than two merges' worth is not behind, whatever the setting.
        waiting > self.options.runs_count_soft.max(2 * self.options.fan_out)
    }

    fn commit(&self, changes: &mut Changes, new: NewCheckpoint<'_>) -> Result<Checkpoint, Error> {
        let mut writer = self.writer.lock();
        writer.check()?;
        let before = self.current.read().clone();
        let commit = before.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.number) + 1;
        let mut begun = Vec::new();
        let result = self.write_commit(&mut writer, &before, commit, changes, new, &mut begun);
        if result.is_err() {
            // Without a failed sync it is certain that nothing names these files.
            if writer.failed.is_none() {
                self.bury(begun);
            }
            // What would be dead now is not.
            before.runs.iter().for_each(|run| run.file.forget_dead());
        }
        result
    }

    /// Writes a commit, and notes in `begun` the files that it makes.
    fn write_commit(
        &self,
        writer: &mut Writer,
        before: &Snapshot,
        commit: u64,
        changes: &mut Changes,
        new: NewCheckpoint<'_>,
        begun: &mut Vec<String>,
    ) -> Result<Checkpoint, Error> {
        let run = self.write_run(writer, changes, commit, begun)?;
        let edit = CommitEdit {
            covered: new.covered,
            note: new.note.to_vec(),
            attachment: self.write_attachment(writer, new, begun)?,
            added: run.iter().map(|run| run.meta).collect(),
            removed: Vec::new(),
            heads: changes.heads(),
            drops: changes.drops(),
        };
        self.append_commit(writer, before, commit, edit, run.as_ref())
    }

    fn write_run(
        &self,
        writer: &mut Writer,
        changes: &mut Changes,
        commit: u64,
        begun: &mut Vec<String>,
    ) -> Result<Option<Run>, Error> {
        let mut entries = changes.sorted().peekable();
        if entries.peek().is_none() {
            return Ok(None);
        }
        let number = self.new_number();
        begun.push(run_name(number));
        let mut file = RunWriter::create(&self.folder, number)?;
        let written = entries.try_for_each(|(key, value)| file.push(key, value));
        match written.map_err(Finish::Write).and_then(|()| file.finish(0, number, (commit, commit))) {
            Ok(run) => Ok(Some(run)),
            Err(Finish::Sync(error)) => Err(writer.fail(error)),
            Err(Finish::Write(error)) => Err(error),
        }
    }

    fn write_attachment(
        &self,
        writer: &mut Writer,
        new: NewCheckpoint<'_>,
        begun: &mut Vec<String>,
    ) -> Result<Option<checkpoint::Attachment>, Error> {
        let Some(body) = new.attachment else { return Ok(None) };
        assert!(body.len() as u64 <= ATTACHMENT_BYTES_MAX, "an attachment has at most {ATTACHMENT_BYTES_MAX} bytes");
        let number = self.new_number();
        begun.push(checkpoint::attachment_name(number));
        match checkpoint::write_attachment(&self.folder, number, body) {
            Ok(Ok(attachment)) => {
                self.commit_bytes.fetch_add(attachment.bytes, Ordering::Relaxed);
                Ok(Some(attachment))
            }
            Ok(Err(error)) => Err(error),
            Err(error) => Err(writer.fail(error)),
        }
    }

    fn append_commit(
        &self,
        writer: &mut Writer,
        before: &Snapshot,
        commit: u64,
        mut edit: CommitEdit,
        run: Option<&Run>,
    ) -> Result<Checkpoint, Error> {
        if run.is_some() || edit.attachment.is_some() {
            self.folder
                .sync_dir()
                .map_err(|source| writer.fail(Error::io("sync the folder of", "the index", source)))?;
        }
        let mut after = before.clone();
        after.apply_heads(commit, &edit);
        edit.removed = after.remove_dead_runs();
        let payload = edit.encode();
        writer.append(Kind::Commit, commit, &payload)?;

        let run_bytes = run.map_or(0, |run| run.meta.file_bytes);
        self.commit_bytes.fetch_add(payload.len() as u64 + run_bytes, Ordering::Relaxed);
        let checkpoint = checkpoint_after(before.checkpoint(), commit, &edit);
        after.checkpoint = Some(Arc::new(checkpoint.clone()));
        after.runs.splice(0..0, run.cloned());
        let superfluous = edit.removed.iter().map(|number| run_name(*number));
        let old_attachment = before.checkpoint().and_then(|before| before.attachment);
        let old_attachment = old_attachment.filter(|_| edit.attachment.is_some());
        let superfluous = superfluous.chain(old_attachment.map(|old| checkpoint::attachment_name(old.number)));
        writer.graveyard.extend(superfluous.map(|name| (commit + 1, name)));
        *self.current.write() = Arc::new(after);
        self.begin_manifest_if_long(writer)?;
        if !self.options.is_merging_in_background {
            self.bury(writer.take_buried(commit));
        }
        Ok(checkpoint)
    }

    /// Installs what a merge made: readers and the manifest change in one step.
    pub(super) fn install_merge(&self, added: &[Run], mut edit: MergeEdit) -> Result<(), Error> {
        let mut writer = self.writer.lock();
        writer.check()?;
        let mut after = Snapshot::clone(&self.current.read());
        let commit = after.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.number);
        // Commits meanwhile may have dropped some of them.
        edit.removed.retain(|number| after.runs.iter().any(|run| run.meta.number == *number));
        edit.moved.retain(|(number, ..)| after.runs.iter().any(|run| run.meta.number == *number));
        let payload = edit.encode();
        writer.append(Kind::Merge, commit, &payload)?;
        self.merge_bytes.fetch_add(payload.len() as u64, Ordering::Relaxed);
        after.runs.retain(|run| !edit.removed.contains(&run.meta.number));
        for run in &mut after.runs {
            if let Some((_, level, group)) = edit.moved.iter().find(|(number, ..)| *number == run.meta.number) {
                (run.meta.level, run.meta.group) = (*level, *group);
            }
        }
        after.runs.extend(added.iter().cloned());
        after.sort_runs();
        // The checkpoint may be gone back to together with this merge, until the one after the next.
        writer.graveyard.extend(edit.removed.iter().map(|number| (commit + 2, run_name(*number))));
        *self.current.write() = Arc::new(after);
        self.begin_manifest_if_long(&mut writer)
    }

    /// Forgets heads and drops that no longer act on anything. Holds up commits only to take out
    /// what was found superfluous before. Not beside a merge: what is being merged may need them.
    pub(super) fn forget_heads(&self) {
        let found = self.current.read().superfluous_heads();
        if !found.heads.is_empty() || !found.drops.is_empty() {
            let _writer = self.writer.lock();
            let mut after = Snapshot::clone(&self.current.read());
            after.heads.remove(&found.heads, &found.drops);
            *self.current.write() = Arc::new(after);
        }
        self.heads_kept.store(self.current.read().heads.count(), Ordering::Relaxed);
    }

    /// The files that may be removed now.
    pub(super) fn take_buried(&self) -> Vec<String> {
        let mut writer = self.writer.lock();
        let commit = self.current.read().checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.number);
        writer.take_buried(commit)
    }

    /// Removes files that nothing names any more. What cannot be removed is removed at the next start.
    pub(super) fn bury(&self, names: Vec<String>) {
        for name in names {
            let _ = self.folder.remove(&name);
        }
    }

    fn begin_manifest_if_long(&self, writer: &mut Writer) -> Result<(), Error> {
        if !writer.manifest.is_long(self.options.manifest_bytes_max) {
            return Ok(());
        }
        let state = self.current.read().state();
        let encoded = state.encode();
        let number = writer.manifest.number + 1;
        match Manifest::create(&self.folder, number, writer.manifest.last_record(), state.commit, &encoded) {
            Ok(manifest) => {
                self.commit_bytes.fetch_add(manifest.bytes(), Ordering::Relaxed);
                let before = std::mem::replace(&mut writer.manifest, manifest);
                if let Some(oldest) = writer.older_manifest.replace(before.number) {
                    self.bury(vec![manifest_name(oldest)]);
                }
                Ok(())
            }
            // The record that came before is durable, and the manifest in use is only long.
            Err(Append::Write(_)) => Ok(()),
            Err(Append::Sync(error)) => Err(writer.fail(error)),
        }
    }
}

/// Heads and drops that kill nothing any more.
struct Superfluous {
    heads: Vec<(u8, u64, Head)>,
    drops: Vec<(u64, u64)>,
}

impl Writer {
    fn take_buried(&mut self, commit: u64) -> Vec<String> {
        let is_due = |entry: &mut (u64, String)| entry.0 <= commit;
        self.graveyard.extract_if(.., is_due).map(|(_, name)| name).collect()
    }
}

impl Snapshot {
    fn apply_heads(&mut self, commit: u64, edit: &CommitEdit) {
        for (tree, owner, rank) in &edit.heads {
            self.heads.advance(*tree, *owner, Head { commit, rank: *rank });
        }
        for owner in &edit.drops {
            self.heads.drop_owner(*owner, commit);
        }
    }

    /// Takes out the runs in which nothing lives, and returns their numbers.
    fn remove_dead_runs(&mut self) -> Vec<u64> {
        let heads = &self.heads;
        let is_dead = |run: &mut Run| run.file.is_all_dead(|section| heads.is_dead(section, run.meta.last_commit));
        self.runs.extract_if(.., is_dead).map(|run| run.meta.number).collect()
    }

    /// The heads and drops that kill nothing in any run, nor will.
    fn superfluous_heads(&self) -> Superfluous {
        let is_head_needed = |tree: u8, owner: u64, head: &Head| {
            self.runs
                .iter()
                .filter(|run| run.meta.last_commit < head.commit)
                .any(|run| run.file.section(tree, owner).is_some_and(|section| section.first < head.rank))
        };
        let is_drop_needed = |owner: u64, commit: u64| {
            let mut earlier = self.runs.iter().filter(|run| run.meta.last_commit < commit);
            earlier.any(|run| run.file.sections_of(owner).next().is_some())
        };
        let heads = self.heads.heads().filter(|(tree, owner, head)| !is_head_needed(*tree, *owner, head)).collect();
        let drops = self.heads.drops().filter(|(owner, commit)| !is_drop_needed(*owner, *commit)).collect();
        Superfluous { heads, drops }
    }

    /// Newest first.
    pub(super) fn sort_runs(&mut self) {
        self.runs.sort_by_key(|run| std::cmp::Reverse((run.meta.last_commit, run.meta.number)));
    }

    pub(super) fn state(&self) -> State {
        State {
            commit: self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.number),
            checkpoint: self.checkpoint.clone(),
            runs: self.runs.iter().map(|run| run.meta).collect(),
            heads: self.heads.clone(),
        }
    }
}
