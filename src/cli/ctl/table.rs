//! Cells with tabs between, under the names of their columns.
//!
//! Nothing is escaped: a tab in a queue's name is a tab in the output, as in RabbitMQ's.

use std::io::{self, Write};

use serde_json::Value as Json;

use super::cell;
use super::format::{Rows, pairs};
use crate::admin::columns::Column;

pub(super) struct Table {
    columns: Vec<Column>,
    /// Whether the header is still to come. It comes with the first row: no rows, no header.
    header_due: bool,
}

impl Table {
    pub(super) fn new(columns: Vec<Column>, headers: bool) -> Self {
        Self { columns, header_due: headers }
    }
}

impl Rows for Table {
    fn row(&mut self, cells: &[Json], out: &mut dyn Write) -> io::Result<()> {
        if self.header_due {
            self.header_due = false;
            let names: Vec<_> = self.columns.iter().map(|(name, _)| *name).collect();
            writeln!(out, "{}", names.join("\t"))?;
        }
        for (index, ((_, kind), cell)) in pairs(&self.columns, cells).enumerate() {
            if index > 0 {
                out.write_all(b"\t")?;
            }
            out.write_all(cell::shown(kind, cell).as_bytes())?;
        }
        out.write_all(b"\n")
    }

    fn end(&mut self, _out: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::{Formatter, testing::show};
    use serde_json::json;

    #[test]
    fn header_comes_with_the_first_row() {
        let table = Formatter::Table { headers: true };
        assert_eq!(show(table, &[]), "");
        assert_eq!(show(table, &[json!(["q", 3, ["a", "b"]])]), "name\tmessages\ttags\nq\t3\t[a, b]\n");
    }

    #[test]
    fn header_can_be_left_out() {
        assert_eq!(show(Formatter::Table { headers: false }, &[json!(["q", 3, ""])]), "q\t3\t\n");
    }
}
