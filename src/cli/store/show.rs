//! Sizes, times, tables and JSON of what was found in a data directory.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value as Json, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::broker::record::kind_name;
use crate::store::LOST;
use crate::store::survey::{Damage, Tally};

/// A number of bytes, short.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (bytes.max(1).ilog2() / 10).min(4);
    if unit == 0 {
        return format!("{bytes} B");
    }
    let tenths = (u128::from(bytes) * 10) >> (10 * unit);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit as usize])
}

/// A time of the broker.
pub(super) fn moment(ms: u64) -> String {
    if ms == 0 {
        return "-".into();
    }
    let found = OffsetDateTime::from_unix_timestamp((ms / 1000).min(i64::MAX as u64).cast_signed());
    found.ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{ms} ms"))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// `one` or `one-other`.
pub(super) fn range(one: u64, other: u64) -> String {
    if one == other { one.to_string() } else { format!("{one}-{other}") }
}

/// What a kind of record is called.
pub(super) fn kind(kind: u8) -> String {
    match kind_name(kind) {
        _ if kind == LOST => "lost in a salvage".into(),
        Some(name) => name.into(),
        None => format!("kind {kind}"),
    }
}

/// Columns under their heads, indented. Columns of numbers stand to the right.
pub(super) fn table<const N: usize>(heads: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = heads.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in std::iter::once(&heads.map(str::to_owned)).chain(rows) {
        let mut line = String::from(" ");
        for (at, (cell, width)) in row.iter().zip(widths).enumerate() {
            // Writing to a String cannot fail.
            let _ = if at == 0 { write!(line, " {cell:width$}") } else { write!(line, "  {cell:>width$}") };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

pub(super) fn kinds(tallies: &BTreeMap<u8, Tally>) -> Json {
    let one = |(kind_number, tally): (&u8, &Tally)| json!({ "kind": kind_number, "name": kind(*kind_number), "records": tally.records, "bytes": tally.bytes });
    tallies.iter().map(one).collect()
}

/// One damage, for operators: where, and what.
pub(super) fn damage_line(damage: &Damage) -> String {
    let mut text = damage.file.display().to_string();
    // Writing to a String cannot fail.
    if let Some(segment) = damage.segment {
        let _ = write!(text, " (segment {segment})");
    }
    if let Some(position) = damage.position {
        let _ = write!(text, ", position {position}");
    }
    let _ = write!(text, ", byte {}", damage.at);
    if damage.bytes > 0 {
        let _ = write!(text, ", {} bytes", damage.bytes);
    }
    let _ = write!(text, ": {}", damage.what);
    text
}

pub(super) fn damage_json(damage: &Damage) -> Json {
    let mut object = Map::new();
    object.insert("file".into(), json!(damage.file.display().to_string()));
    object.insert("segment".into(), json!(damage.segment));
    object.insert("position".into(), json!(damage.position.map(|position| position.to_string())));
    object.insert("byte".into(), json!(damage.at));
    object.insert("bytes".into(), json!(damage.bytes));
    object.insert("what".into(), json!(damage.what));
    object.into()
}

/// JSON as it is printed.
pub(super) fn pretty(json: &Json) -> String {
    format!("{json:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_digit_behind_the_point() {
        assert_eq!(
            [0, 1023, 1024, 1536, (64 << 20) - 1, 64 << 20].map(size),
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "63.9 MiB", "64.0 MiB"]
        );
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a".to_owned(), "1000".to_owned()], ["long".to_owned(), "2".to_owned()]];
        assert_eq!(table(["NAME", "N"], &rows), "  NAME     N\n  a     1000\n  long     2\n");
    }
}
