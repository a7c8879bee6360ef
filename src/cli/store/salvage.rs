//! `tern store salvage`: a new data directory with everything that can be read of a damaged one.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use serde_json::json;

use super::{EXIT_DAMAGE, Salvage, layout, print, real, show};
use crate::store::index::IndexOutcome;
use crate::store::salvage::{Salvaged, salvage};

/// Losses that are listed one by one.
const LOSSES_MAX: usize = 100;

pub(super) fn run(args: &Salvage) -> Result<u8, String> {
    let from = layout(&args.dir)?;
    let failed = |error: io::Error| format!("{}: {error}", args.to.display());
    match fs::read_dir(&args.to).map(Iterator::count) {
        Ok(1..) => {
            return Err(format!("{} is not empty; name a directory that does not exist yet", args.to.display()));
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let absolute = |path: &Path| std::path::absolute(path).map_err(failed);
    if absolute(&args.to)?.starts_with(fs::canonicalize(&args.dir).map_err(failed)?) {
        return Err(format!("{} is in the damaged directory; name one elsewhere", args.to.display()));
    }
    let salvaged = salvage(&real(), &from, &args.to).map_err(|error| error.to_string())?;
    if args.json {
        print(&show::pretty(&json(args, &salvaged)));
    } else {
        print(&text(args, &salvaged));
    }
    Ok(if salvaged.is_lossless() { 0 } else { EXIT_DAMAGE })
}

fn text(args: &Salvage, salvaged: &Salvaged) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    for damage in salvaged.survey.damage() {
        let _ = writeln!(out, "found damaged: {}", show::damage_line(damage));
    }
    for loss in salvaged.losses.iter().take(LOSSES_MAX) {
        let (position, bytes) = (loss.position, loss.bytes);
        let _ = writeln!(out, "LOST: {}, position {position}, {bytes} bytes", loss.file.display());
    }
    if salvaged.losses.len() > LOSSES_MAX {
        let _ = writeln!(out, "LOST: {} more ranges; --json has them", salvaged.losses.len() - LOSSES_MAX);
    }
    if let Some(index) = &salvaged.index {
        let _ = writeln!(out, "index: {}", index_text(index));
    }
    let bytes: u64 = salvaged.losses.iter().map(|loss| loss.bytes).sum();
    let _ = writeln!(
        out,
        "{} records kept, {} of them from damaged batches; {} lost in {} ranges of the log",
        salvaged.records_kept,
        salvaged.records_rescued,
        show::size(bytes),
        salvaged.losses.len()
    );
    let to = args.to.display();
    let is_usable = salvaged.index != Some(IndexOutcome::Unusable);
    out.push_str(&match (is_usable, salvaged.is_lossless()) {
        (true, true) => format!("{to} has everything that was ever confirmed; start tern on it\n"),
        (true, false) => format!("{to} has everything else; start tern on it, or restore a backup\n"),
        (false, _) => {
            format!("{to} has the log, but tern will refuse to start on it without an index: restore a backup\n")
        }
    });
    out
}

fn index_text(index: &IndexOutcome) -> String {
    match index {
        IndexOutcome::Copied => "whole, copied".into(),
        IndexOutcome::FellBack { from, to } => {
            format!("checkpoint {from} is damaged; back to checkpoint {to}, and the log has what came after")
        }
        IndexOutcome::Rewritten { runs, entries_lost } => format!(
            "LOST: {entries_lost} entries of cold messages in {}: those messages are missing from their queues, and \
             some that were settled may be delivered again",
            runs.join(", ")
        ),
        IndexOutcome::Unusable => "LOST: no checkpoint can be read, so definitions and cold messages cannot be found; \
                                   its files are copied as they are"
            .into(),
    }
}

fn json(args: &Salvage, salvaged: &Salvaged) -> serde_json::Value {
    let index = salvaged.index.as_ref().map(|index| match index {
        IndexOutcome::Copied => json!({ "outcome": "copied" }),
        IndexOutcome::FellBack { from, to } => json!({ "outcome": "fell_back", "from": from, "to": to }),
        IndexOutcome::Rewritten { runs, entries_lost } => {
            json!({ "outcome": "rewritten", "runs": runs, "entries_lost": entries_lost })
        }
        IndexOutcome::Unusable => json!({ "outcome": "unusable" }),
    });
    let losses: serde_json::Value = salvaged
        .losses
        .iter()
        .map(|loss| {
            json!({
                "file": loss.file.display().to_string(), "position": loss.position.to_string(), "bytes": loss.bytes,
            })
        })
        .collect();
    json!({
        "directory": args.dir.display().to_string(),
        "to": args.to.display().to_string(),
        "lossless": salvaged.is_lossless(),
        "records_kept": salvaged.records_kept,
        "records_rescued": salvaged.records_rescued,
        "bytes_lost": salvaged.losses.iter().map(|loss| loss.bytes).sum::<u64>(),
        "lost": losses,
        "index": index,
        "damage": salvaged.survey.damage().map(show::damage_json).collect::<Vec<_>>(),
    })
}
