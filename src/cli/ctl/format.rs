//! The formatters behind `--formatter`, one of which shows the answer to a verb.
//!
//! A listing streams through [`Rows`]; anything else is shown at once. Only the drawn table and the
//! Erlang term need all rows before the first can be shown.

use std::io::{self, Write};

use serde_json::{Value as Json, json};

use super::{csv, erlang, json_lines, pretty_table, table};
use crate::admin::columns::Column;

/// How an answer is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Formatter {
    /// Cells with tabs between.
    Table {
        /// Whether the names of the columns come first.
        headers: bool,
    },
    /// Cells in boxes, in the characters of a VT100.
    PrettyTable,
    /// An array with one object a line.
    Json,
    /// Every cell in quotes.
    Csv,
    /// A term.
    Erlang,
}

impl Formatter {
    /// The formatter of that name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "table" | "string" | "string_per_line" | "inspect" | "report" => Self::Table { headers: true },
            "pretty_table" => Self::PrettyTable,
            "json" | "json_stream" => Self::Json,
            "csv" => Self::Csv,
            "erlang" => Self::Erlang,
            _ => return None,
        })
    }

    /// Whether programs read the output, which then has no banner.
    pub(super) fn is_for_programs(self) -> bool {
        matches!(self, Self::Json | Self::Csv)
    }

    /// Begins a listing.
    pub(super) fn rows(self, columns: Vec<Column>) -> Box<dyn Rows> {
        match self {
            Self::Table { headers } => Box::new(table::Table::new(columns, headers)),
            Self::PrettyTable => Box::new(pretty_table::PrettyTable::new(columns)),
            Self::Json => Box::new(json_lines::JsonLines::new(columns)),
            Self::Csv => Box::new(csv::Csv::new(columns)),
            Self::Erlang => Box::new(erlang::Erlang::new(columns)),
        }
    }

    /// A listing that RabbitMQ gathers first looks different when it has no rows.
    pub(super) fn empty(self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Table { .. } => writeln!(out),
            Self::Json | Self::Erlang => writeln!(out, "[]"),
            Self::Csv => out.write_all(b"\r\n\r\n\n"),
            Self::PrettyTable => pretty_table::draw_output(out, "[]"),
        }
    }

    /// Shows a sentence.
    pub(super) fn message(self, text: &str, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Table { .. } | Self::Csv => writeln!(out, "{text}"),
            Self::Json => writeln!(out, "{}", json!({ "message": text })),
            Self::Erlang => writeln!(out, "<<{}>>", Json::from(text)),
            Self::PrettyTable => pretty_table::draw_output(out, text),
        }
    }

    /// Shows an object to programs, or the sentence that means the same to people.
    pub(super) fn object(self, object: &Json, text: &str, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Json => writeln!(out, "{object}"),
            _ => self.message(text, out),
        }
    }
}

/// A listing on its way out.
pub(super) trait Rows {
    /// Adds a row. Its cells are in the order of the columns; missing ones are empty.
    fn row(&mut self, cells: &[Json], out: &mut dyn Write) -> io::Result<()>;
    /// Ends the listing.
    fn end(&mut self, out: &mut dyn Write) -> io::Result<()>;
}

/// The cells of a row with their columns.
pub(super) fn pairs<'a>(columns: &'a [Column], cells: &'a [Json]) -> impl Iterator<Item = (Column, &'a Json)> {
    columns.iter().enumerate().map(|(index, column)| (*column, cells.get(index).unwrap_or(&Json::Null)))
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use crate::admin::columns::Type;

    /// What a formatter makes of two rows with a text, a number and words.
    pub(in crate::cli::ctl) fn show(formatter: Formatter, rows: &[Json]) -> String {
        let columns = vec![("name", Type::Text), ("messages", Type::Number), ("tags", Type::Words)];
        let mut out = Vec::new();
        let mut listing = formatter.rows(columns);
        for row in rows {
            listing.row(row.as_array().expect("rows are arrays"), &mut out).expect("a Vec takes all");
        }
        listing.end(&mut out).expect("a Vec takes all");
        String::from_utf8(out).expect("formatters write text")
    }
}
