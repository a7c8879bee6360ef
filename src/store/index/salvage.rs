//! The index of a salvage; [`crate::store::salvage`] says which way is taken when.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use super::{
    Error,
    folder::Folder,
    manifest::{Append, Manifest},
    run::{Finish, Run, RunMeta, RunWriter, run_name},
    state::State,
    survey::{Found, IndexSurvey, before},
};
use crate::store::disk::{Access, Disk};

/// Copied at once.
const PIECE_BYTES: usize = 1 << 20;

/// What became of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexOutcome {
    /// Everything that the latest checkpoint needs was whole, and is copied.
    Copied,
    /// The checkpoint before the latest is the latest now; the log has what came after.
    FellBack {
        /// The number of the checkpoint that was given up.
        from: u64,
        /// The number of the one that stays.
        to: u64,
    },
    /// Damaged runs were written anew without their damaged blocks.
    Rewritten {
        /// Names of the runs.
        runs: Vec<String>,
        /// Entries that were in their damaged blocks.
        entries_lost: u64,
    },
    /// No checkpoint can be read: the files are copied as they are.
    Unusable,
}

/// Writes what can be read of the index that `survey` found to the folder `to`. Returns what the new
/// index covers. `is_log_whole_from` says whether nothing of the log is damaged from a position on.
pub(in crate::store) fn salvage(
    disk: &Arc<dyn Disk>,
    survey: &IndexSurvey,
    to: &Path,
    is_log_whole_from: impl Fn(u64) -> bool,
) -> Result<(IndexOutcome, Option<u64>), Error> {
    let output =
        Folder::open(disk.clone(), to).map_err(|source| Error::io("make", &to.display().to_string(), source))?;
    let covered = survey.checkpoint.as_ref().map(|checkpoint| checkpoint.covered);
    let Some(latest) = &survey.state else {
        let names =
            survey.manifests.iter().map(|(file, _)| &file.name).chain(survey.others.iter().map(|file| &file.name));
        copy(&**disk, &survey.dir, to, names)?;
        return Ok((IndexOutcome::Unusable, None));
    };
    if survey.damage.is_empty() && survey.torn.is_none() {
        let manifests = survey.manifests.iter().map(|(file, _)| &file.name);
        let others = survey.others.iter().map(|file| &file.name).filter(|name| !name.ends_with(".tmp"));
        copy(&**disk, &survey.dir, to, manifests.chain(others).chain(&latest.files))?;
        return Ok((IndexOutcome::Copied, covered));
    }
    let damaged: Vec<&str> =
        survey.runs.iter().filter(|run| run.blocks_damaged > 0).map(|run| run.name.as_str()).collect();
    if damaged.is_empty() {
        copy(&**disk, &survey.dir, to, &latest.files)?;
        begin(&output, latest, &latest.state)?;
        return Ok((IndexOutcome::Copied, covered));
    }
    if let Some((found, checkpoint)) = before(disk, survey)?
        && is_log_whole_from(checkpoint.covered)
    {
        copy(&**disk, &survey.dir, to, &found.files)?;
        begin(&output, &found, &found.state)?;
        let outcome = IndexOutcome::FellBack { from: latest.commit, to: found.commit };
        return Ok((outcome, Some(checkpoint.covered)));
    }
    let (state, entries_lost) = rewrite(disk, survey, &output, to, latest, &damaged)?;
    begin(&output, latest, &state)?;
    let runs = damaged.iter().map(|name| (*name).to_owned()).collect();
    Ok((IndexOutcome::Rewritten { runs, entries_lost }, covered))
}

/// Copies the runs that are whole, and of the damaged ones the blocks that are. Returns the state with
/// the new runs, and how many entries are lost.
fn rewrite(
    disk: &Arc<dyn Disk>,
    survey: &IndexSurvey,
    output: &Folder,
    to: &Path,
    latest: &Found,
    damaged: &[&str],
) -> Result<(Vec<u8>, u64), Error> {
    copy(&**disk, &survey.dir, to, latest.files.iter().filter(|name| !damaged.contains(&name.as_str())))?;
    let input = Folder::to_look_at(disk.clone(), &survey.dir);
    let mut metas: HashMap<u64, Option<RunMeta>> = HashMap::new();
    let mut entries_lost = 0;
    for meta in latest.runs.iter().filter(|meta| damaged.contains(&run_name(meta.number).as_str())) {
        let run = Run::open(&input, *meta)?;
        let mut writer: Option<RunWriter> = None;
        let mut kept = 0;
        run.file.each_block(|key, value| {
            if writer.is_none() {
                writer = Some(RunWriter::create(output, meta.number)?);
            }
            kept += 1;
            writer.as_mut().map_or(Ok(()), |writer| writer.push(key, value))
        })?;
        entries_lost += run.file.entries().saturating_sub(kept);
        let written = match writer {
            // Nothing of it is left.
            None => None,
            Some(writer) => {
                let finished = writer.finish(meta.level, meta.group, (meta.first_commit, meta.last_commit));
                Some(finished.map_err(|(Finish::Write(error) | Finish::Sync(error))| error)?.meta)
            }
        };
        metas.insert(meta.number, written);
    }
    let mut state = State::decode(latest.commit, &latest.state).unwrap_or_default();
    state.runs = state.runs.iter().filter_map(|run| metas.get(&run.number).copied().unwrap_or(Some(*run))).collect();
    Ok((state.encode(), entries_lost))
}

/// Begins a manifest with one state, as durable as a commit.
fn begin(output: &Folder, found: &Found, state: &[u8]) -> Result<(), Error> {
    output.sync_dir().map_err(|source| Error::io("sync the folder of", "the index", source))?;
    let made = Manifest::create(output, found.manifest, found.last_record, found.commit, state);
    made.map(|_| ()).map_err(|(Append::Write(error) | Append::Sync(error))| error)
}

/// Copies files, each once, and syncs them and the folder.
fn copy<'n>(disk: &dyn Disk, from: &Path, to: &Path, names: impl IntoIterator<Item = &'n String>) -> Result<(), Error> {
    let names: BTreeSet<&String> = names.into_iter().collect();
    for name in names {
        copy_file(disk, &from.join(name), &to.join(name)).map_err(|source| Error::io("copy", name, source))?;
    }
    disk.sync_dir(to).map_err(|source| Error::io("sync the folder of", "the index", source))
}

/// Copies a file and syncs it, but not its name.
pub(in crate::store) fn copy_file(disk: &dyn Disk, from: &Path, to: &Path) -> std::io::Result<u64> {
    let (input, output) = (disk.open(from, Access::Read)?, disk.create(to, Access::Write)?);
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    loop {
        let filled = input.read_full_at(&mut piece, at)?;
        if filled == 0 {
            break;
        }
        output.write_all_at(&piece[..filled], at)?;
        at += filled as u64;
    }
    output.sync_data()?;
    Ok(at)
}
