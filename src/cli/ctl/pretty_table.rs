//! Cells in boxes, drawn with the line characters of a VT100 as RabbitMQ draws them.
//!
//! Holds all rows: the widths of columns are known only at the end.

use std::io::{self, Write};

use serde_json::Value as Json;

use super::cell;
use super::format::{Rows, pairs};
use crate::admin::columns::Column;

pub(super) struct PrettyTable {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl PrettyTable {
    pub(super) fn new(columns: Vec<Column>) -> Self {
        Self { columns, rows: Vec::new() }
    }
}

impl Rows for PrettyTable {
    fn row(&mut self, cells: &[Json], _out: &mut dyn Write) -> io::Result<()> {
        let cells = pairs(&self.columns, cells).map(|((_, kind), cell)| cell::drawn(kind, cell).into_owned());
        self.rows.push(cells.collect());
        Ok(())
    }

    fn end(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let titles: Vec<_> = self.columns.iter().map(|(name, _)| *name).collect();
        draw(out, &titles, &self.rows)
    }
}

/// A table of one cell under the title `Output`: how a sentence looks.
pub(super) fn draw_output(out: &mut dyn Write, text: &str) -> io::Result<()> {
    draw(out, &["Output"], &[vec![text.to_owned()]])
}

fn draw(out: &mut dyn Write, titles: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let widths: Vec<_> = titles
        .iter()
        .enumerate()
        .map(|(index, title)| rows.iter().map(|row| width(&row[index])).chain([width(title)]).max().unwrap_or_default())
        .collect();
    border(out, &widths, 'l', 'w', 'k')?;
    let titles: Vec<_> = titles.iter().map(|title| (width(title), format!("{BOLD}{title}{PLAIN}"))).collect();
    draw_row(out, &widths, &titles)?;
    for row in rows {
        border(out, &widths, 't', 'n', 'u')?;
        let lines: Vec<Vec<&str>> = row.iter().map(|cell| cell.lines().collect()).collect();
        for index in 0..lines.iter().map(Vec::len).max().unwrap_or_default().max(1) {
            let line = lines.iter().map(|cell| cell.get(index).copied().unwrap_or_default());
            let line: Vec<_> = line.map(|text| (width(text), text.to_owned())).collect();
            draw_row(out, &widths, &line)?;
        }
    }
    border(out, &widths, 'm', 'v', 'j')
}

fn draw_row(out: &mut dyn Write, widths: &[usize], cells: &[(usize, String)]) -> io::Result<()> {
    out.write_all(UPRIGHT.as_bytes())?;
    for (width, (shown, cell)) in widths.iter().zip(cells) {
        write!(out, " {cell}{:padding$} {UPRIGHT}", "", padding = width.saturating_sub(*shown))?;
    }
    out.write_all(b"\n")
}

fn border(out: &mut dyn Write, widths: &[usize], left: char, between: char, right: char) -> io::Result<()> {
    let dashes: Vec<_> = widths.iter().map(|width| "q".repeat(width + 2)).collect();
    writeln!(out, "{LINES}{left}{}{right}{TEXT}", dashes.join(&between.to_string()))
}

fn width(text: &str) -> usize {
    text.lines().map(|line| line.chars().count()).max().unwrap_or_default()
}

const LINES: &str = "\u{1b}(0";
const TEXT: &str = "\u{1b}(B";
const UPRIGHT: &str = "\u{1b}(0x\u{1b}(B";
const BOLD: &str = "\u{1b}[1m";
const PLAIN: &str = "\u{1b}[0m";

#[cfg(test)]
mod tests {
    use super::super::format::{Formatter, testing::show};
    use serde_json::json;

    #[test]
    fn no_rows_draw_nothing() {
        assert_eq!(show(Formatter::PrettyTable, &[]), "");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let drawn = show(Formatter::PrettyTable, &[json!(["queue", 1, ["a", "b"]])]);
        let lines: Vec<_> = drawn.lines().collect();
        assert_eq!(lines[0], "\u{1b}(0lqqqqqqqwqqqqqqqqqqwqqqqqqk\u{1b}(B");
        assert_eq!(
            lines[3],
            "\u{1b}(0x\u{1b}(B queue \u{1b}(0x\u{1b}(B 1        \u{1b}(0x\u{1b}(B ab   \u{1b}(0x\u{1b}(B"
        );
        assert_eq!(lines[4], "\u{1b}(0mqqqqqqqvqqqqqqqqqqvqqqqqqj\u{1b}(B");
    }
}
