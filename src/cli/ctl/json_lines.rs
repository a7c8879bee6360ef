//! An array of objects, one a line, with the comma in front of its line.

use std::io::{self, Write};

use serde_json::{Map, Value as Json};

use super::cell;
use super::format::{Rows, pairs};
use crate::admin::columns::Column;

pub(super) struct JsonLines {
    columns: Vec<Column>,
    began: bool,
}

impl JsonLines {
    pub(super) fn new(columns: Vec<Column>) -> Self {
        Self { columns, began: false }
    }
}

impl Rows for JsonLines {
    fn row(&mut self, cells: &[Json], out: &mut dyn Write) -> io::Result<()> {
        out.write_all(if self.began { b"," } else { b"[\n" })?;
        self.began = true;
        let object: Map<_, _> = pairs(&self.columns, cells)
            .map(|((name, kind), cell)| (name.to_owned(), cell::as_json(kind, cell)))
            .collect();
        serde_json::to_writer(&mut *out, &object)?;
        out.write_all(b"\n")
    }

    fn end(&mut self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(if self.began { b"]\n" } else { b"[\n]\n" })
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::{Formatter, testing::show};
    use serde_json::json;

    #[test]
    fn comma_stands_in_front_of_its_row() {
        let rows = [json!(["a\tb", 1, []]), json!(["c", 2.0, ["x"]])];
        let expected = "[\n{\"name\":\"a\\tb\",\"messages\":1,\"tags\":[]}\n,{\"name\":\"c\",\"messages\":2.0,\"tags\":[\"x\"]}\n]\n";
        assert_eq!(show(Formatter::Json, &rows), expected);
    }

    #[test]
    fn no_rows_are_an_empty_array_on_two_lines() {
        assert_eq!(show(Formatter::Json, &[]), "[\n]\n");
    }
}
