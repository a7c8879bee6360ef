//! A list of property lists, as Erlang's shell shows it in 80 columns.
//!
//! Lines break where the shell breaks those of listings; deep terms may differ from it in their
//! line breaks, not in their meaning. Holds all rows.

use std::io::{self, Write};

use serde_json::Value as Json;

use super::cell;
use super::format::{Rows, pairs};
use super::term::Term;
use crate::admin::columns::Column;

pub(super) struct Erlang {
    columns: Vec<Column>,
    rows: Vec<Term>,
}

impl Erlang {
    pub(super) fn new(columns: Vec<Column>) -> Self {
        Self { columns, rows: Vec::new() }
    }
}

impl Rows for Erlang {
    fn row(&mut self, cells: &[Json], _out: &mut dyn Write) -> io::Result<()> {
        let pair = |((name, kind), cell): (Column, &Json)| {
            Term::Tuple(vec![Term::Atom(name.to_owned()), cell::as_term(kind, cell)])
        };
        self.rows.push(Term::List(pairs(&self.columns, cells).map(pair).collect()));
        Ok(())
    }

    fn end(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let mut text = String::new();
        print(&Term::List(std::mem::take(&mut self.rows)), 0, 0, &mut text);
        writeln!(out, "{text}")
    }
}

/// A JSON value as a term: objects are lists of pairs.
pub(super) fn from_json(value: &Json) -> String {
    let mut text = String::new();
    print(&term(value), 0, 0, &mut text);
    text
}

fn term(value: &Json) -> Term {
    match value {
        Json::Object(members) => {
            let pair = |(name, value): (&String, &Json)| Term::Tuple(vec![Term::Atom(name.clone()), term(value)]);
            Term::List(members.iter().map(pair).collect())
        }
        Json::Array(items) => Term::List(items.iter().map(term).collect()),
        Json::String(text) => Term::Chars(text.clone()),
        Json::Number(number) => Term::Number(number.clone()),
        Json::Bool(_) | Json::Null => Term::Atom(value.to_string()),
    }
}

/// Prints `term`, whose first character stands in `column`, with `behind` characters to come after
/// its last.
pub(super) fn print(term: &Term, column: usize, behind: usize, out: &mut String) {
    let mut line = String::new();
    term.print(&mut line);
    let is_row = matches!(term, Term::List(items) if items.iter().any(|item| matches!(item, Term::List(_))));
    if !is_row && column + line.chars().count() + behind <= WIDTH {
        out.push_str(&line);
        return;
    }
    match term {
        Term::List(items) if !items.is_empty() => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(",\n");
                    out.extend(std::iter::repeat_n(' ', column + 1));
                }
                print(item, column + 1, behind + 1, out);
            }
            out.push(']');
        }
        Term::Tuple(items) if items.len() > 1 => {
            out.push('{');
            let (last, front) = items.split_last().unwrap_or((term, &[]));
            let mut head = String::new();
            for item in front {
                item.print(&mut head);
                head.push(',');
            }
            out.push_str(&head);
            let next = column + 1 + head.chars().count();
            let mut tail = String::new();
            last.print(&mut tail);
            if matches!(last, Term::List(_)) || next + tail.chars().count() + behind < WIDTH {
                print(last, next, behind + 1, out);
            } else {
                out.push('\n');
                out.extend(std::iter::repeat_n(' ', column + 1));
                print(last, column + 1, behind + 1, out);
            }
            out.push('}');
        }
        _ => out.push_str(&line),
    }
}

const WIDTH: usize = 80;

#[cfg(test)]
mod tests {
    use super::super::format::{Formatter, testing::show};
    use serde_json::json;

    #[test]
    fn row_that_fits_takes_one_line() {
        let rows = [json!(["bob", 1, ["administrator"]]), json!(["erin", 2, []])];
        assert_eq!(
            show(Formatter::Erlang, &rows),
            "[[{name,<<\"bob\">>},{messages,1},{tags,[administrator]}],\n [{name,<<\"erin\">>},{messages,2},{tags,[]}]]\n"
        );
    }

    #[test]
    fn no_rows_are_an_empty_list() {
        assert_eq!(show(Formatter::Erlang, &[]), "[]\n");
    }
}
