//! Values as Erlang prints them: what a table's `arguments` and error texts look like.
//!
//! Only the one-line form. Nothing here fails: what is not as expected is shown as JSON.

use serde_json::Value as Json;
use std::fmt::Write;

/// A value that has an Erlang form.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Term {
    /// `running`, `'with space'`
    Atom(String),
    /// `5`, `1.5`
    Number(serde_json::Number),
    /// `"text"`, or `[]` if empty: a list of characters.
    Chars(String),
    /// `<<0,255>>`
    Bytes(Vec<u8>),
    /// `[a,b]`
    List(Vec<Term>),
    /// `{a,b}`
    Tuple(Vec<Term>),
    /// What has been printed already.
    Verbatim(String),
}

impl Term {
    /// A table of arguments, `[[name, kind, value], ...]`, as RabbitMQ shows it to people:
    /// pairs of name and value.
    pub(super) fn from_table(table: &Json) -> Self {
        let entries = table.as_array().map(Vec::as_slice).unwrap_or_default();
        Self::List(entries.iter().map(Self::from_entry).collect())
    }

    fn from_entry(entry: &Json) -> Self {
        let name = entry.get(0).and_then(Json::as_str).unwrap_or_default();
        Self::Tuple(vec![Self::Chars(name.to_owned()), Self::from_typed(entry.get(1), entry.get(2))])
    }

    fn from_typed(kind: Option<&Json>, value: Option<&Json>) -> Self {
        let value = value.unwrap_or(&Json::Null);
        match kind.and_then(Json::as_str).unwrap_or_default() {
            "table" => Self::from_table(value),
            "array" => {
                let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
                Self::List(items.iter().map(|item| Self::from_typed(item.get(0), item.get(1))).collect())
            }
            "binary" => {
                let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
                Self::Bytes(items.iter().filter_map(Json::as_u64).filter_map(|byte| byte.try_into().ok()).collect())
            }
            "decimal" => Self::Tuple(value.as_array().into_iter().flatten().map(Self::from_plain).collect()),
            "void" => Self::Atom("undefined".to_owned()),
            _ => Self::from_plain(value),
        }
    }

    /// One entry of a table as Erlang keeps it: name, kind and value.
    pub(super) fn from_raw_entry(entry: &Json) -> Self {
        let name = entry.get(0).and_then(Json::as_str).unwrap_or_default();
        let kind = entry.get(1).and_then(Json::as_str).unwrap_or_default();
        Self::Tuple(vec![
            Self::Bytes(name.as_bytes().to_vec()),
            Self::Atom(kind.to_owned()),
            Self::from_raw(kind, entry.get(2).unwrap_or(&Json::Null)),
        ])
    }

    fn from_raw(kind: &str, value: &Json) -> Self {
        let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
        match (kind, value) {
            ("table", _) => Self::List(items.iter().map(Self::from_raw_entry).collect()),
            ("array", _) => {
                let item = |item: &Json| {
                    let kind = item.get(0).and_then(Json::as_str).unwrap_or_default();
                    let value = Self::from_raw(kind, item.get(1).unwrap_or(&Json::Null));
                    Self::Tuple(vec![Self::Atom(kind.to_owned()), value])
                };
                Self::List(items.iter().map(item).collect())
            }
            (_, Json::String(text)) => Self::Bytes(text.clone().into_bytes()),
            _ => Self::from_typed(Some(&Json::from(kind)), Some(value)),
        }
    }

    fn from_plain(value: &Json) -> Self {
        match value {
            Json::Null => Self::Atom("null".to_owned()),
            Json::Bool(set) => Self::Atom(set.to_string()),
            Json::Number(number) => Self::Number(number.clone()),
            Json::String(text) => Self::Chars(text.clone()),
            Json::Array(items) => Self::List(items.iter().map(Self::from_plain).collect()),
            Json::Object(entries) => Self::List(
                entries
                    .iter()
                    .map(|(name, value)| Self::Tuple(vec![Self::Chars(name.clone()), Self::from_plain(value)]))
                    .collect(),
            ),
        }
    }

    /// Appends the term.
    pub(super) fn print(&self, out: &mut String) {
        match self {
            Self::Atom(name) if is_plain_atom(name) => out.push_str(name),
            Self::Atom(name) => quote(name, '\'', out),
            Self::Number(number) => print_number(number, out),
            Self::Chars(text) if text.is_empty() => out.push_str("[]"),
            Self::Chars(text) if text.chars().all(is_printable) => quote(text, '"', out),
            Self::Chars(text) => sequence("[", text.chars().map(u32::from), "]", out),
            Self::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok("") => out.push_str("<<>>"),
                Ok(text) if text.chars().all(is_printable) => {
                    out.push_str("<<");
                    quote(text, '"', out);
                    out.push_str(if text.is_ascii() { ">>" } else { "/utf8>>" });
                }
                _ => sequence("<<", bytes.iter(), ">>", out),
            },
            // A list of small numbers and a text are one thing to Erlang.
            Self::List(items) => match as_text(items) {
                Some(text) => quote(&text, '"', out),
                None => Self::print_all("[", items, "]", out),
            },
            Self::Tuple(items) => Self::print_all("{", items, "}", out),
            Self::Verbatim(text) => out.push_str(text),
        }
    }

    fn print_all(open: &str, items: &[Self], close: &str, out: &mut String) {
        out.push_str(open);
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            item.print(out);
        }
        out.push_str(close);
    }
}

fn as_text(items: &[Term]) -> Option<String> {
    if items.is_empty() {
        return None;
    }
    let character = |item: &Term| match item {
        Term::Number(number) => char::from_u32(number.as_u64()?.try_into().ok()?).filter(|&c| is_printable(c)),
        _ => None,
    };
    items.iter().map(character).collect()
}

fn sequence(open: &str, items: impl Iterator<Item = impl std::fmt::Display>, close: &str, out: &mut String) {
    out.push_str(open);
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(',');
        }
        // Writing to a String cannot fail.
        let _ = write!(out, "{item}");
    }
    out.push_str(close);
}

/// Whether RabbitMQ's tool prints the character within quotes: those of Latin-1 only.
fn is_printable(c: char) -> bool {
    matches!(c, '\u{8}'..='\u{d}' | '\u{1b}' | ' '..='~' | '\u{a0}'..='\u{ff}')
}

fn is_plain_atom(name: &str) -> bool {
    name.starts_with(|c: char| c.is_lowercase()) && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '@')
}

fn quote(text: &str, mark: char, out: &mut String) {
    out.push(mark);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            '\u{1b}' => out.push_str("\\e"),
            '\\' => out.push_str("\\\\"),
            _ if c == mark => {
                out.push('\\');
                out.push(c);
            }
            _ => out.push(c),
        }
    }
    out.push(mark);
}

/// Integers as they are; floats with a point always, and an exponent without a sign: `1.0e22`.
pub(super) fn print_number(number: &serde_json::Number, out: &mut String) {
    if !number.is_f64() {
        let _ = write!(out, "{number}");
        return;
    }
    let float = number.as_f64().unwrap_or_default();
    let decimal = format!("{float:?}");
    let (mantissa, exponent) = match decimal.split_once('e') {
        Some((mantissa, exponent)) => (mantissa, exponent),
        None => (decimal.as_str(), ""),
    };
    out.push_str(mantissa);
    if !exponent.is_empty() {
        if !mantissa.contains('.') {
            out.push_str(".0");
        }
        out.push('e');
        out.push_str(exponent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn table(json: &Json) -> String {
        let mut out = String::new();
        Term::from_table(json).print(&mut out);
        out
    }

    #[test]
    fn arguments_are_pairs_of_name_and_value() {
        let arguments = json!([["x-max-length", "signedint", 5], ["x-overflow", "longstr", "reject-publish"]]);
        assert_eq!(table(&arguments), r#"[{"x-max-length",5},{"x-overflow","reject-publish"}]"#);
        assert_eq!(table(&json!([])), "[]");
    }

    #[test]
    fn every_kind_of_value_has_its_erlang_form() {
        let arguments = json!([
            ["my-string", "longstr", "täxt \"quoted\"\n"],
            ["my-bool", "bool", false],
            ["my-list", "array", [["signedint", 1], ["longstr", "two"], ["bool", true]]],
            ["my-table", "table", [["a", "signedint", 1], ["b", "longstr", "c"]]],
            ["my-null", "void", null],
            ["my-empty", "longstr", ""],
            ["my-bytes", "binary", [0, 255]],
            ["my-float", "double", 1.5],
            ["my-decimal", "decimal", [2, 314]],
        ]);
        assert_eq!(
            table(&arguments),
            "[{\"my-string\",\"täxt \\\"quoted\\\"\\n\"},{\"my-bool\",false},{\"my-list\",[1,\"two\",true]},\
             {\"my-table\",[{\"a\",1},{\"b\",\"c\"}]},{\"my-null\",undefined},{\"my-empty\",[]},\
             {\"my-bytes\",<<0,255>>},{\"my-float\",1.5},{\"my-decimal\",{2,314}}]"
        );
    }

    #[test]
    fn text_beyond_latin_1_is_a_list_of_numbers() {
        assert_eq!(table(&json!([["s", "longstr", "日本"]])), r#"[{"s",[26085,26412]}]"#);
    }

    #[test]
    fn list_of_printable_numbers_is_a_text() {
        let arguments = json!([["a", "array", [["signedint", 104], ["signedint", 105]]]]);
        assert_eq!(table(&arguments), r#"[{"a","hi"}]"#);
    }
}
