//! `tern store verify`: every byte of a data directory, checked.

use std::fmt::Write as _;

use serde_json::json;

use super::inspect::end;
use super::{EXIT_DAMAGE, Look, Seen, print, show};
use crate::store::survey::LogEnd;

pub(super) fn run(look: &Look) -> Result<u8, String> {
    let seen = Seen::take(&look.dir)?;
    let log = &seen.survey.log;
    let is_clean = seen.survey.damage().next().is_none();
    if look.json {
        print(&show::pretty(&json!({
            "directory": seen.layout.dir.display().to_string(),
            "in_use": seen.held.is_live(),
            "clean": is_clean,
            "end": log.end.0,
            "torn": matches!(log.ending, LogEnd::Torn { .. }),
            "damage": seen.survey.damage().map(show::damage_json).collect::<Vec<_>>(),
        })));
    } else {
        print(&text(&seen));
    }
    Ok(if is_clean { 0 } else { EXIT_DAMAGE })
}

fn text(seen: &Seen) -> String {
    let log = &seen.survey.log;
    let mut out = format!("{}: {}\n", seen.layout.dir.display(), seen.use_of());
    let records: u64 = log.kinds.values().chain(log.cold_kinds.values()).map(|tally| tally.records).sum();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "read {} segments and {} cold files, {}, {records} whole records",
        log.segments.len(),
        log.cold.len(),
        show::size(log.file_bytes())
    );
    if let Some(index) = seen.survey.index.as_ref().filter(|index| index.is_there) {
        let entries: u64 = index.runs.iter().map(|run| run.entries).sum();
        let _ = writeln!(out, "read {} runs of the index, {entries} entries", index.runs.len());
    }
    let _ = writeln!(out, "end of the log: {}", end(log));
    let mut count = 0;
    for damage in seen.survey.damage() {
        count += 1;
        let _ = writeln!(out, "DAMAGED: {}", show::damage_line(damage));
    }
    out.push_str(&match count {
        0 => "nothing is damaged\n".to_owned(),
        _ => format!(
            "{count} damaged places. Check the disk. Restore the directory from a backup, or stop the broker and run \
             `tern store salvage {} --to NEW` to keep what can be read\n",
            seen.layout.dir.display()
        ),
    });
    out
}
