//! Comma-separated values, every cell in quotes, under the names of their columns.

use std::io::{self, Write};

use serde_json::Value as Json;

use super::cell;
use super::format::{Rows, pairs};
use crate::admin::columns::Column;

pub(super) struct Csv {
    columns: Vec<Column>,
    header_due: bool,
}

impl Csv {
    pub(super) fn new(columns: Vec<Column>) -> Self {
        Self { columns, header_due: true }
    }
}

impl Rows for Csv {
    fn row(&mut self, cells: &[Json], out: &mut dyn Write) -> io::Result<()> {
        if self.header_due {
            self.header_due = false;
            line(self.columns.iter().map(|(name, _)| *name), out)?;
        }
        line(pairs(&self.columns, cells).map(|((_, kind), cell)| cell::shown(kind, cell)), out)
    }

    fn end(&mut self, _out: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }
}

fn line(cells: impl Iterator<Item = impl AsRef<str>>, out: &mut dyn Write) -> io::Result<()> {
    for (index, cell) in cells.enumerate() {
        if index > 0 {
            out.write_all(b",")?;
        }
        write!(out, "\"{}\"", cell.as_ref().replace('"', "\"\""))?;
    }
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::super::format::{Formatter, testing::show};
    use serde_json::json;

    #[test]
    fn every_cell_is_quoted_and_quotes_are_doubled() {
        let rows = [json!(["a\"b", 1, ["x", "y"]])];
        assert_eq!(show(Formatter::Csv, &rows), "\"name\",\"messages\",\"tags\"\n\"a\"\"b\",\"1\",\"[x, y]\"\n");
    }

    #[test]
    fn no_rows_have_no_header() {
        assert_eq!(show(Formatter::Csv, &[]), "");
    }
}
