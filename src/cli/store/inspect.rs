//! `tern store inspect`: what is in a data directory.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use super::{Look, Seen, print, show};
use crate::store::FORMAT_VERSION;
use crate::store::index::IndexSurvey;
use crate::store::survey::{LogEnd, LogSurvey};

/// Files of one kind that are listed one by one; beyond it, the first and the last.
const ROWS_MAX: usize = 40;

pub(super) fn run(look: &Look) -> Result<u8, String> {
    let seen = Seen::take(&look.dir)?;
    print(&if look.json { show::pretty(&json(&seen)) } else { text(&seen) });
    Ok(0)
}

fn text(seen: &Seen) -> String {
    let log = &seen.survey.log;
    let mut out = format!("{}: {}\n", seen.layout.dir.display(), seen.use_of());
    // Writing to a String cannot fail.
    let _ = write_log(&mut out, log);
    if let Some(index) = &seen.survey.index {
        let _ = write_index(&mut out, index);
    }
    let damage = seen.survey.damage().count();
    if damage > 0 {
        let _ = writeln!(out, "\nDAMAGED in {damage} places: run `tern store verify` to see them");
    }
    out
}

fn write_log(out: &mut String, log: &LogSurvey) -> std::fmt::Result {
    let id = log.id.map_or_else(|| "none yet".into(), |id| show::hex(&id));
    writeln!(out, "\nstore        {id}, log format {FORMAT_VERSION}")?;
    let (segments, bytes) = (log.segments.len(), show::size(log.file_bytes()));
    writeln!(out, "log          {segments} segments, {} cold files, {bytes}", log.cold.len())?;
    writeln!(out, "spare files  {}, {}", log.spares.len(), show::size(log.spares.iter().map(|file| file.bytes).sum()))?;
    if !log.unfinished.is_empty() {
        writeln!(out, "unfinished   {} files, which the next start removes", log.unfinished.len())?;
    }
    writeln!(out, "end          {}", end(log))?;
    for gap in &log.gaps {
        let numbers = show::range(gap.first_number, gap.last_number);
        let what = if gap.is_loss { "MISSING" } else { "released" };
        writeln!(out, "{what:<12} segments {numbers}, positions from {} to {}", gap.first, gap.end)?;
    }
    if !log.others.is_empty() {
        writeln!(out, "not ours     {}", log.others.join(", "))?;
    }
    let rows = log.segments.iter().map(|segment| {
        let cut = if segment.is_cut_off { " (behind the end)" } else { "" };
        [
            format!("{}{cut}", segment.number),
            format!("{}-{}", segment.first, segment.end),
            show::range(segment.epochs.0, segment.epochs.1),
            show::moment(segment.times_ms.0),
            show::moment(segment.times_ms.1),
            show::size(segment.file_bytes),
            segment.batches.to_string(),
            segment.records.to_string(),
        ]
    });
    let rows: Vec<_> = rows.collect();
    rows_of(out, ["SEGMENT", "POSITIONS", "EPOCH", "FROM", "TO", "FILE", "BATCHES", "RECORDS"], &rows)?;
    let owner = |owner: Option<u64>| match owner {
        None => "?".to_owned(),
        // Messages of several queues.
        Some(u64::MAX) => "several".to_owned(),
        Some(owner) => owner.to_string(),
    };
    let rows = log.cold.iter().map(|cold| {
        [cold.number.to_string(), owner(cold.owner), show::size(cold.file_bytes), cold.records.to_string()]
    });
    let rows: Vec<_> = rows.collect();
    rows_of(out, ["COLD", "OWNER", "FILE", "RECORDS"], &rows)?;
    for (kinds, head) in [(&log.kinds, "RECORDS IN THE LOG"), (&log.cold_kinds, "RECORDS IN COLD FILES")] {
        let rows = kinds.iter().map(|(kind, tally)| {
            [show::kind(*kind), kind.to_string(), tally.records.to_string(), show::size(tally.bytes)]
        });
        let rows: Vec<_> = rows.collect();
        rows_of(out, [head, "KIND", "COUNT", "BYTES"], &rows)?;
    }
    Ok(())
}

/// How the log ends, as a sentence.
pub(super) fn end(log: &LogSurvey) -> String {
    match &log.ending {
        LogEnd::Clean => format!("position {}", log.end),
        LogEnd::Torn { file, what, bytes } => format!(
            "position {}, torn: {what} in {}, {bytes} bytes behind it; never flushed, the next start cuts them off",
            log.end,
            file.display()
        ),
    }
}

fn write_index(out: &mut String, index: &IndexSurvey) -> std::fmt::Result {
    if !index.is_there {
        return writeln!(out, "\nindex        none");
    }
    match &index.checkpoint {
        None => writeln!(out, "\nindex        no checkpoint yet")?,
        Some(checkpoint) => {
            let previous = checkpoint.previous_covered.map_or_else(|| "nothing".into(), |before| before.to_string());
            writeln!(
                out,
                "\ncheckpoint   {}, covers the log up to {} (the one before: {previous})",
                checkpoint.number, checkpoint.covered
            )?;
            let attachment = index
                .attachment_bytes
                .map_or_else(|| "no attachment".into(), |bytes| format!("attachment of {}", show::size(bytes)));
            writeln!(out, "             note of {} bytes, {attachment}", checkpoint.note.len())?;
        }
    }
    if let Some(lost) = index.lost_checkpoint {
        writeln!(out, "             checkpoint {lost} is lost, or was being made")?;
    }
    if let Some(torn) = &index.torn {
        writeln!(out, "             torn end, as a crash leaves it: {torn}")?;
    }
    let entries: u64 = index.runs.iter().map(|run| run.entries).sum();
    let bytes = show::size(index.runs.iter().map(|run| run.file_bytes).sum());
    writeln!(out, "index        {} runs, {bytes}, {entries} entries, {} heads", index.runs.len(), index.heads_count)?;
    let manifests: Vec<_> =
        index.manifests.iter().map(|(file, records)| format!("{} ({records} records)", file.name)).collect();
    writeln!(out, "manifests    {}", manifests.join(", "))?;
    if !index.others.is_empty() {
        let bytes = show::size(index.others.iter().map(|file| file.bytes).sum());
        writeln!(
            out,
            "other files  {}, {bytes}: of the checkpoint before, or for the next start to remove",
            index.others.len()
        )?;
    }
    let rows = index.runs.iter().map(|run| {
        [
            run.name.clone(),
            run.level.to_string(),
            show::range(run.commits.0, run.commits.1),
            show::size(run.file_bytes),
            run.entries.to_string(),
            run.deleted.to_string(),
        ]
    });
    let rows: Vec<_> = rows.collect();
    rows_of(out, ["RUN", "LEVEL", "COMMITS", "FILE", "ENTRIES", "DELETES"], &rows)
}

/// A table, if there is anything; of a long one the ends.
fn rows_of<const N: usize>(out: &mut String, heads: [&str; N], rows: &[[String; N]]) -> std::fmt::Result {
    if rows.is_empty() {
        return Ok(());
    }
    if rows.len() <= ROWS_MAX {
        return write!(out, "\n{}", show::table(heads, rows));
    }
    let mut ends = rows[..ROWS_MAX / 2].to_vec();
    ends.push(std::array::from_fn(|_| "...".to_owned()));
    ends.extend_from_slice(&rows[rows.len() - ROWS_MAX / 2..]);
    write!(out, "\n{}  ({} in all; --json has them)\n", show::table(heads, &ends), rows.len())
}

fn json(seen: &Seen) -> Json {
    json!({
        "directory": seen.layout.dir.display().to_string(),
        "in_use": seen.held.is_live(),
        "log": log_json(&seen.survey.log),
        "index": seen.survey.index.as_ref().map(index_json),
        "damage": seen.survey.damage().map(show::damage_json).collect::<Vec<_>>(),
    })
}

fn log_json(log: &LogSurvey) -> Json {
    let segments: Json = log
        .segments
        .iter()
        .map(|segment| {
            json!({
                "number": segment.number, "file": segment.file.display().to_string(), "file_bytes": segment.file_bytes,
                "format": segment.format, "first": segment.first.0, "end": segment.end.0,
                "epoch_first": segment.epochs.0, "epoch_last": segment.epochs.1,
                "time_first_ms": segment.times_ms.0, "time_last_ms": segment.times_ms.1,
                "batches": segment.batches, "records": segment.records, "cut_off": segment.is_cut_off,
            })
        })
        .collect();
    let cold: Json = log
        .cold
        .iter()
        .map(|cold| {
            json!({
                "number": cold.number, "owner": cold.owner, "file": cold.file.display().to_string(),
                "file_bytes": cold.file_bytes, "records": cold.records, "record_bytes": cold.record_bytes,
            })
        })
        .collect();
    let gaps: Json = log
        .gaps
        .iter()
        .map(|gap| {
            json!({
                "first_number": gap.first_number, "last_number": gap.last_number,
                "first": gap.first.0, "end": gap.end.0, "missing": gap.is_loss,
            })
        })
        .collect();
    json!({
        "format": FORMAT_VERSION,
        "store": log.id.map(|id| show::hex(&id)),
        "end": log.end.0,
        "torn": matches!(log.ending, LogEnd::Torn { .. }),
        "segments": segments,
        "gaps": gaps,
        "cold": cold,
        "spare_files": log.spares.len(),
        "spare_bytes": log.spares.iter().map(|file| file.bytes).sum::<u64>(),
        "unfinished_files": log.unfinished.len(),
        "other_files": log.others,
        "kinds": show::kinds(&log.kinds),
        "cold_kinds": show::kinds(&log.cold_kinds),
    })
}

fn index_json(index: &IndexSurvey) -> Json {
    let checkpoint = index.checkpoint.as_ref().map(|checkpoint| {
        json!({
            "number": checkpoint.number, "covered": checkpoint.covered,
            "previous_covered": checkpoint.previous_covered, "note_bytes": checkpoint.note.len(),
            "attachment_bytes": index.attachment_bytes,
        })
    });
    let runs: Json = index
        .runs
        .iter()
        .map(|run| {
            json!({
                "name": run.name, "file_bytes": run.file_bytes, "level": run.level,
                "commit_first": run.commits.0, "commit_last": run.commits.1,
                "entries": run.entries, "deletes": run.deleted, "blocks_damaged": run.blocks_damaged,
            })
        })
        .collect();
    let manifests: Json = index
        .manifests
        .iter()
        .map(|(file, records)| json!({ "name": file.name, "file_bytes": file.bytes, "records": records }))
        .collect();
    json!({
        "there": index.is_there,
        "checkpoint": checkpoint,
        "lost_checkpoint": index.lost_checkpoint,
        "torn": index.torn,
        "heads": index.heads_count,
        "manifests": manifests,
        "runs": runs,
        "other_files": index.others.iter().map(|file| file.name.clone()).collect::<Vec<_>>(),
    })
}
