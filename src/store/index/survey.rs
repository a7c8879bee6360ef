//! The index, seen from outside: which checkpoint a start would find, and every byte that it needs.
//!
//! Reads only. Damage is noted, with what a start would make of it; a newer format is an error.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{
    Checkpoint, Error,
    block::BLOCK_BYTES,
    checkpoint::read_attachment,
    folder::Folder,
    manifest::Read,
    open::{Files, History, load, names},
    run::{Run, RunMeta, run_name},
    scan::Snapshot,
    state::State,
};
use crate::store::disk::{Disk, Listed};
use crate::store::survey::Damage;

/// Rounds over an index that changes meanwhile.
const LIVE_ROUNDS: usize = 3;

/// What an index consists of.
#[derive(Debug, Default)]
pub struct IndexSurvey {
    /// The folder.
    pub dir: PathBuf,
    /// There is an index.
    pub is_there: bool,
    /// Manifests, oldest first, with the number of their whole records.
    pub manifests: Vec<(Listed, usize)>,
    /// The checkpoint that a start finds.
    pub checkpoint: Option<Checkpoint>,
    /// The number of a later one, which was lost.
    pub lost_checkpoint: Option<u64>,
    /// The end of a manifest is torn, as after a crash within a commit: where, and why. Not damage.
    pub torn: Option<String>,
    /// Runs of the checkpoint, in the order of their numbers.
    pub runs: Vec<RunSurvey>,
    /// Bytes of the checkpoint's attachment.
    pub attachment_bytes: Option<u64>,
    /// Heads and drops.
    pub heads_count: usize,
    /// Files that the checkpoint does not need. The one before may; the next start removes the others.
    pub others: Vec<Listed>,
    /// What is damaged.
    pub damage: Vec<Damage>,
    pub(in crate::store) state: Option<Found>,
}

/// A state of the index that can be opened.
#[derive(Debug)]
pub(in crate::store) struct Found {
    pub(super) commit: u64,
    pub(super) state: Vec<u8>,
    pub(super) last_record: u64,
    pub(super) manifest: u64,
    /// Files that it needs, manifests aside.
    pub(super) files: BTreeSet<String>,
    pub(super) runs: Vec<RunMeta>,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSurvey {
    /// The file's name.
    pub name: String,
    /// Its size.
    pub file_bytes: u64,
    /// How often its entries were merged.
    pub level: u8,
    /// The first and last commit whose entries it holds.
    pub commits: (u64, u64),
    /// Entries, dead ones included.
    pub entries: u64,
    /// Those of them that say that a key was deleted.
    pub deleted: u64,
    /// Blocks that are damaged.
    pub blocks_damaged: u64,
}

impl IndexSurvey {
    /// Reads the index in `dir`. One that `is_live` may change meanwhile: what is damaged at first sight
    /// is looked at again.
    pub(in crate::store) fn take(disk: &Arc<dyn Disk>, dir: &Path, is_live: bool) -> Result<Self, Error> {
        let mut survey = Self::round(disk, dir)?;
        let mut rounds = 1;
        while is_live && !survey.damage.is_empty() && rounds < LIVE_ROUNDS {
            survey = Self::round(disk, dir)?;
            rounds += 1;
        }
        Ok(survey)
    }

    fn round(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Self, Error> {
        let mut survey = Self { dir: dir.into(), ..Self::default() };
        let listed = match disk.list(dir) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(survey),
            listed => listed.map_err(|source| Error::io("list", &dir.display().to_string(), source))?,
        };
        let bytes_of: HashMap<String, u64> = listed.into_iter().map(|file| (file.name, file.bytes)).collect();
        let folder = Folder::to_look_at(disk.clone(), dir);
        let files = Files::list(&folder)?;
        survey.is_there = !files.manifests.is_empty() || !files.others.is_empty();
        let listed = |name: &str| Listed { name: name.into(), bytes: bytes_of.get(name).copied().unwrap_or_default() };
        let mut manifests = Vec::new();
        for number in &files.manifests {
            let read = Read::file(&folder, *number)?;
            let whole = read.records.iter().filter(|record| record.is_whole).count();
            survey.manifests.push((listed(&read.name), whole));
            manifests.push(read);
        }
        let Some(newest) = manifests.last() else {
            if let Some(name) = files.others.iter().next() {
                survey.tell(name, 0, 0, "the file is there, but no manifest is");
            }
            return Ok(survey);
        };
        let history = History::of(&manifests);
        let newest_end = newest.bytes.len() as u64;
        survey.note_manifests(&manifests);
        let mut used = BTreeSet::new();
        match history.latest_whole(&folder) {
            Ok((snapshot, last_record, passed_over)) => {
                let commit = snapshot.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.number);
                survey.lost_checkpoint = Some(history.latest_commit).filter(|latest| *latest > commit);
                for what in passed_over {
                    survey.tell(&newest.name, newest_end, 0, &format!("the latest checkpoint is lost: {what}"));
                }
                used = names(&snapshot);
                survey.note(&folder, &snapshot)?;
                survey.state = Some(Found {
                    commit,
                    state: snapshot.state().encode(),
                    last_record,
                    manifest: newest.number,
                    files: used.clone(),
                    runs: snapshot.runs.iter().map(|run| run.meta).collect(),
                });
                survey.checkpoint = snapshot.checkpoint().cloned();
            }
            Err(Error::Corrupt { file, offset, what }) => {
                let what = format!("no checkpoint can be read: {what}");
                survey.tell(&file, offset, 0, &what);
            }
            Err(error) => return Err(error),
        }
        let others = files.others.iter().chain(&files.drafts).filter(|name| !used.contains(*name));
        survey.others = others.map(|name| listed(name)).collect();
        Ok(survey)
    }

    fn tell(&mut self, file: &str, at: u64, bytes: u64, what: &str) {
        let (file, what) = (self.dir.join(file), what.to_owned());
        self.damage.push(Damage { file, segment: None, position: None, at, bytes, what });
    }

    /// What is wrong with manifests. At the end of the newest it is what a crash leaves, if nothing whole
    /// stands behind it.
    fn note_manifests(&mut self, manifests: &[Read]) {
        for (at, read) in manifests.iter().enumerate() {
            for (offset, what) in &read.damage {
                let is_followed =
                    read.records.iter().any(|record| record.is_whole && record.payload.start as u64 > *offset);
                if at + 1 == manifests.len() && !is_followed && *offset > 0 {
                    self.torn = Some(format!("{} at byte {offset}: {what}", read.name));
                } else {
                    self.tell(&read.name, *offset, 0, what);
                }
            }
        }
    }

    /// Reads all that `snapshot` needs.
    fn note(&mut self, folder: &Folder, snapshot: &Snapshot) -> Result<(), Error> {
        if let Some(attachment) = snapshot.checkpoint().and_then(|checkpoint| checkpoint.attachment) {
            self.attachment_bytes = Some(attachment.bytes);
            match read_attachment(folder, &attachment) {
                Ok(_) => {}
                Err(Error::Corrupt { file, offset, what }) => self.tell(&file, offset, 0, what),
                Err(error) => return Err(error),
            }
        }
        self.heads_count = snapshot.heads.count();
        let mut runs: Vec<&Run> = snapshot.runs.iter().collect();
        runs.sort_by_key(|run| run.meta.number);
        for run in runs {
            let name = run_name(run.meta.number);
            let damage = run.file.damage()?;
            for (offset, what) in &damage {
                self.tell(&name, *offset, BLOCK_BYTES as u64, what);
            }
            self.runs.push(RunSurvey {
                name,
                file_bytes: run.meta.file_bytes,
                level: run.meta.level,
                commits: (run.meta.first_commit, run.meta.last_commit),
                entries: run.file.entries(),
                deleted: run.file.deleted(),
                blocks_damaged: damage.len() as u64,
            });
        }
        Ok(())
    }
}

/// The checkpoint before the one that `survey` found, if every byte that it needs is whole.
pub(in crate::store) fn before(
    disk: &Arc<dyn Disk>,
    survey: &IndexSurvey,
) -> Result<Option<(Found, Checkpoint)>, Error> {
    let folder = Folder::to_look_at(disk.clone(), &survey.dir);
    let files = Files::list(&folder)?;
    let manifests = files.manifests.iter().map(|number| Read::file(&folder, *number)).collect::<Result<Vec<_>, _>>()?;
    let (Some(newest), Some(latest)) = (manifests.last(), &survey.state) else { return Ok(None) };
    let history = History::of(&manifests);
    let states = history.numbers().into_iter().rev().filter_map(|number| Some((number, history.state_at(number)?)));
    // The last of its states: later merges only rearrange, and may have rid themselves of damage.
    let is_before = |state: &State| state.commit + 1 == latest.commit;
    for (number, state) in states.filter(|(_, state)| is_before(state)) {
        let encoded = state.encode();
        let snapshot = match load(&folder, state, &mut HashMap::new()) {
            Ok(snapshot) => snapshot,
            Err(Error::Corrupt { .. }) => continue,
            Err(error) => return Err(error),
        };
        let Some(checkpoint) = snapshot.checkpoint().cloned() else { continue };
        let mut is_whole = true;
        for run in &snapshot.runs {
            is_whole &= run.file.damage()?.is_empty();
        }
        if is_whole {
            let found = Found {
                commit: checkpoint.number,
                state: encoded,
                last_record: number,
                manifest: newest.number,
                files: names(&snapshot),
                runs: snapshot.runs.iter().map(|run| run.meta).collect(),
            };
            return Ok(Some((found, checkpoint)));
        }
    }
    Ok(None)
}
