//! Opening: finding the latest checkpoint that is whole, and clearing away what nothing names.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    checkpoint::{Attachment, attachment_name, read_attachment},
    error::Error,
    folder::Folder,
    manifest::{Append, Kind, Manifest, Read, Record, manifest_name},
    run::{Run, RunMeta, commit_of, run_name},
    scan::Snapshot,
    state::{CommitEdit, MergeEdit, State},
};

/// What was found when the index was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// There was no index: an empty one was begun. If the log says otherwise, the folder was lost.
    pub is_new: bool,
    /// What was left out, as file, byte and reason: after a crash in the middle of a commit the
    /// torn end of the manifest, otherwise damage.
    pub discarded: Vec<String>,
    /// The number of the checkpoint that was lost, if it is known that there was one: the index is
    /// as at the one before. A commit that was under way in a crash may be named here too.
    pub lost_checkpoint: Option<u64>,
}

/// All that [`Index::open`](super::Index::open) needs.
pub(super) struct Opened {
    pub(super) snapshot: Snapshot,
    pub(super) manifest: Manifest,
    pub(super) older_manifest: Option<u64>,
    pub(super) graveyard: Vec<(u64, String)>,
    pub(super) next_number: u64,
    pub(super) recovery: Recovery,
}

pub(super) fn open(folder: &Folder) -> Result<Opened, Error> {
    let files = Files::list(folder)?;
    for draft in &files.drafts {
        folder.remove(draft).map_err(|source| Error::io("remove", draft, source))?;
    }
    let mut manifests = Vec::new();
    for number in &files.manifests {
        manifests.push(Read::file(folder, *number)?);
    }
    let Some(newest) = manifests.last() else { return begin(folder, &files) };
    let history = History::of(&manifests);
    let (snapshot, last_record, mut discarded) = history.latest_whole(folder)?;
    let commit = snapshot.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.number);

    let kept = history.files_of_last_two(commit);
    let current: BTreeSet<String> = names(&snapshot);
    let orphans: Vec<u64> = files.runs_but(&kept, &current).collect();
    if let Some(later) = orphans.iter().filter_map(|number| commit_of(folder, *number)).max() {
        // The run of a commit is written when the commit before is durable.
        if later > commit + 2 {
            let end = newest.bytes.len() as u64;
            return Err(Error::corrupt(&newest.name, end, "the end is missing, with more than one checkpoint"));
        }
        if later == commit + 2 {
            discarded.push(format!("{}: the last checkpoint is missing", newest.name));
        }
    }
    files.remove_all_but(folder, &kept, &current)?;
    let graveyard = kept.difference(&current).map(|name| (commit + 2, name.clone())).collect();

    discarded.splice(0..0, history.damage());
    let is_clean = discarded.is_empty() && last_record == history.last_record();
    let (manifest, older_manifest) = match is_clean {
        true => {
            let older = files.manifests.iter().rev().nth(1).copied();
            for oldest in files.manifests.iter().rev().skip(2) {
                let name = manifest_name(*oldest);
                folder.remove(&name).map_err(|source| Error::io("remove", &name, source))?;
            }
            (Manifest::reopen(folder, newest)?, older)
        }
        // Nothing is written behind damage: another manifest begins with what is whole.
        false => {
            let number = files.manifests.last().map_or(1, |last| last + 1);
            let encoded = snapshot.state().encode();
            let manifest = Manifest::create(folder, number, history.last_record() + 1, commit, &encoded)
                .map_err(|(Append::Write(error) | Append::Sync(error))| error)?;
            for oldest in files.manifests.iter().rev().skip(1) {
                let name = manifest_name(*oldest);
                folder.remove(&name).map_err(|source| Error::io("remove", &name, source))?;
            }
            (manifest, files.manifests.last().copied())
        }
    };
    let lost_checkpoint = Some(history.latest_commit).filter(|latest| *latest > commit);
    Ok(Opened {
        snapshot,
        manifest,
        older_manifest,
        graveyard,
        next_number: files.last_number + 1,
        recovery: Recovery { is_new: false, discarded, lost_checkpoint },
    })
}

fn begin(folder: &Folder, files: &Files) -> Result<Opened, Error> {
    if let Some(name) = files.others.iter().next() {
        return Err(Error::corrupt(name, 0, "the file is there, but no manifest is"));
    }
    let snapshot = Snapshot::default();
    let manifest = Manifest::create(folder, 1, 0, 0, &snapshot.state().encode())
        .map_err(|(Append::Write(error) | Append::Sync(error))| error)?;
    Ok(Opened {
        snapshot,
        manifest,
        older_manifest: None,
        graveyard: Vec::new(),
        next_number: 1,
        recovery: Recovery { is_new: true, ..Recovery::default() },
    })
}

/// The names in the folder.
pub(super) struct Files {
    /// Numbers, ascending.
    pub(super) manifests: Vec<u64>,
    pub(super) drafts: Vec<String>,
    /// Runs and attachments.
    pub(super) others: BTreeSet<String>,
    /// The highest number of a run or attachment.
    last_number: u64,
}

impl Files {
    pub(super) fn list(folder: &Folder) -> Result<Files, Error> {
        let names = folder.list().map_err(|source| Error::io("list the folder of", "the index", source))?;
        let mut files = Files { manifests: Vec::new(), drafts: Vec::new(), others: BTreeSet::new(), last_number: 0 };
        for name in names {
            if name.starts_with("manifest-") && name.ends_with(".tmp") {
                files.drafts.push(name);
            } else if let Some(number) = number_of(&name, "manifest-") {
                files.manifests.push(number);
            } else if let Some(number) = number_of(&name, "run-").or_else(|| number_of(&name, "attachment-")) {
                files.last_number = files.last_number.max(number);
                files.others.insert(name);
            }
            // What has another name is not ours and stays.
        }
        files.manifests.sort_unstable();
        Ok(files)
    }

    /// The numbers of the runs that neither set names.
    fn runs_but(&self, a: &BTreeSet<String>, b: &BTreeSet<String>) -> impl Iterator<Item = u64> {
        let others = self.others.iter().filter(|name| !a.contains(*name) && !b.contains(*name));
        others.filter_map(|name| number_of(name, "run-"))
    }

    fn remove_all_but(&self, folder: &Folder, a: &BTreeSet<String>, b: &BTreeSet<String>) -> Result<(), Error> {
        for name in self.others.iter().filter(|name| !a.contains(*name) && !b.contains(*name)) {
            folder.remove(name).map_err(|source| Error::io("remove", name, source))?;
        }
        Ok(())
    }
}

fn number_of(name: &str, prefix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?;
    let is_ours = digits.len() == 16 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    // The highest number could not be counted on from.
    is_ours.then(|| u64::from_str_radix(digits, 16).ok()).flatten().filter(|number| *number < u64::MAX)
}

pub(super) fn names(snapshot: &Snapshot) -> BTreeSet<String> {
    let runs = snapshot.runs.iter().map(|run| run_name(run.meta.number));
    let attachment = snapshot.checkpoint().and_then(|checkpoint| checkpoint.attachment);
    runs.chain(attachment.map(|attachment| attachment_name(attachment.number))).collect()
}

/// All records of all manifests.
pub(super) struct History<'a> {
    manifests: &'a [Read],
    /// Whole records of kind state, by number, with their manifest.
    bases: BTreeMap<u64, (&'a Read, &'a Record)>,
    /// Whole records of other kinds.
    edits: BTreeMap<u64, (&'a Read, &'a Record)>,
    /// The highest commit that any right header names, its record whole or not.
    pub(super) latest_commit: u64,
    /// The highest number of a record, whole or not.
    last_record: u64,
}

impl<'a> History<'a> {
    pub(super) fn of(manifests: &'a [Read]) -> History<'a> {
        let mut history =
            History { manifests, bases: BTreeMap::new(), edits: BTreeMap::new(), latest_commit: 0, last_record: 0 };
        for read in manifests {
            for record in &read.records {
                history.latest_commit = history.latest_commit.max(record.commit);
                history.last_record = history.last_record.max(record.number);
                if record.is_whole {
                    let of_kind = if record.kind == Kind::State { &mut history.bases } else { &mut history.edits };
                    of_kind.insert(record.number, (read, record));
                }
            }
        }
        history
    }

    fn last_record(&self) -> u64 {
        self.last_record
    }

    /// Numbers of all whole records.
    pub(super) fn numbers(&self) -> BTreeSet<u64> {
        self.bases.keys().chain(self.edits.keys()).copied().collect()
    }

    /// The state after the record `number`; `None` if a record before it is missing.
    pub(super) fn state_at(&self, number: u64) -> Option<State> {
        'bases: for (base, (read, record)) in self.bases.range(..=number).rev() {
            let Some(mut state) = State::decode(record.commit, read.payload(record)) else { continue };
            let mut at = *base;
            while at < number {
                at += 1;
                let Some((read, record)) = self.edits.get(&at) else { continue 'bases };
                let payload = read.payload(record);
                let is_applied = match record.kind {
                    Kind::Commit => {
                        CommitEdit::decode(payload).map(|edit| state.apply_commit(record.commit, &edit)).is_some()
                    }
                    _ => MergeEdit::decode(payload).map(|edit| state.apply_merge(&edit)).is_some(),
                };
                if !is_applied {
                    continue 'bases;
                }
            }
            return Some(state);
        }
        None
    }

    /// The latest state of the last two checkpoints all of whose files are whole, the number of
    /// its record, and what was passed over.
    pub(super) fn latest_whole(&self, folder: &Folder) -> Result<(Snapshot, u64, Vec<String>), Error> {
        let mut runs = HashMap::new();
        let mut passed_over = Vec::new();
        let mut first_error = None;
        for number in self.numbers().into_iter().rev() {
            let Some(state) = self.state_at(number) else { continue };
            if state.commit + 1 < self.latest_commit {
                break;
            }
            match load(folder, state, &mut runs) {
                Ok(snapshot) => return Ok((snapshot, number, passed_over)),
                Err(error @ Error::Corrupt { .. }) => {
                    passed_over.push(error.to_string());
                    first_error.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(first_error.unwrap_or_else(|| {
            let newest = &self.manifests[self.manifests.len() - 1];
            let offset = newest.damage.first().map_or(0, |(offset, _)| *offset);
            Error::corrupt(&newest.name, offset, "neither of the last two checkpoints can be read")
        }))
    }

    /// What is damaged, from the newest manifest that begins whole on: what is older is not needed.
    fn damage(&self) -> Vec<String> {
        let is_whole = |read: &&Read| read.records.iter().any(|record| record.kind == Kind::State && record.is_whole);
        let oldest = self.manifests.iter().rev().find(is_whole).map_or(0, |read| read.number);
        let needed = self.manifests.iter().filter(|read| read.number >= oldest);
        needed
            .flat_map(|read| read.damage.iter().map(|(offset, what)| format!("{} at byte {offset}: {what}", read.name)))
            .collect()
    }

    /// The files that the checkpoint before `commit` needs, or any state since.
    fn files_of_last_two(&self, commit: u64) -> BTreeSet<String> {
        let records = || self.bases.iter().chain(&self.edits);
        let is_of_last_two = |record: &Record| record.commit == commit || record.commit + 1 == commit;
        let numbers = records().filter(|(_, (_, record))| is_of_last_two(record)).map(|(number, _)| *number);
        // The earliest such state, and all that was added to it since.
        let Some((first, state)) = numbers.min().and_then(|first| Some((first, self.state_at(first)?))) else {
            return BTreeSet::new();
        };
        let mut runs: Vec<u64> = state.runs.iter().map(|run| run.number).collect();
        let attachment = |state: &State| state.checkpoint.as_ref().and_then(|checkpoint| checkpoint.attachment);
        let mut attachments: Vec<Attachment> = attachment(&state).into_iter().collect();
        for (read, record) in self.edits.range(first + 1..).map(|(_, edit)| edit) {
            let payload = read.payload(record);
            if record.kind == Kind::Commit {
                let edit = CommitEdit::decode(payload).unwrap_or_default();
                runs.extend(edit.added.iter().map(|run| run.number));
                attachments.extend(edit.attachment);
            } else {
                runs.extend(MergeEdit::decode(payload).unwrap_or_default().added.iter().map(|run| run.number));
            }
        }
        let runs = runs.into_iter().map(run_name);
        runs.chain(attachments.iter().map(|attachment| attachment_name(attachment.number))).collect()
    }
}

/// Opens the runs of `state`. Runs that were opened for another state are taken from `runs`.
pub(super) fn load(folder: &Folder, state: State, runs: &mut HashMap<RunMeta, Run>) -> Result<Snapshot, Error> {
    let mut snapshot = Snapshot { runs: Vec::new(), heads: state.heads, checkpoint: state.checkpoint };
    if let Some(attachment) = snapshot.checkpoint().and_then(|checkpoint| checkpoint.attachment) {
        read_attachment(folder, &attachment)?;
    }
    for meta in state.runs {
        let as_file = RunMeta { level: 0, group: 0, ..meta };
        let run = match runs.get(&as_file) {
            Some(run) => run.clone(),
            None => {
                let run = Run::open(folder, meta)?;
                runs.insert(as_file, run.clone());
                run
            }
        };
        snapshot.runs.push(Run { meta, ..run });
    }
    snapshot.sort_runs();
    Ok(snapshot)
}
