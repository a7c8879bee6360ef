//! Values as Erlang prints them, because RabbitMQ's error texts quote Erlang terms and tools compare
//! those texts.
//!
//! Text is `<<"x">>`, a JSON object `#{<<"k">> => 1}`, a table `[{<<"k">>,longstr,<<"v">>}]`. Long
//! terms stay on one line here; RabbitMQ breaks them after 80 columns.

use std::fmt::{self, Display, Write as _};

use serde_json::Value as Json;

use super::value::Value;

/// A value as a term.
pub struct Term<'a, T>(pub &'a T);

impl Display for Term<'_, Value> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Text(bytes) | Value::Bytes(bytes) => Binary(bytes).fmt(f),
            Value::F32(number) => write_float(f, f64::from(*number)),
            Value::F64(number) => write_float(f, *number),
            Value::Array(items) => write_list(f, items, |f, item| Pair(item).fmt(f)),
            Value::Table(table) => write_list(f, table.iter(), |f, (name, value)| {
                write!(f, "{{{},{},{}}}", Binary(name.as_bytes()), value.kind_name(), Term(value))
            }),
            other => other.fmt(f),
        }
    }
}

impl Display for Term<'_, Json> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Json::Null => f.write_str("null"),
            Json::Bool(flag) => write!(f, "{flag}"),
            Json::Number(number) => match number.as_f64() {
                Some(float) if number.is_f64() => write_float(f, float),
                _ => write!(f, "{number}"),
            },
            Json::String(text) => Binary(text.as_bytes()).fmt(f),
            Json::Array(items) => write_list(f, items, |f, item| Term(item).fmt(f)),
            Json::Object(entries) => {
                let mut entries: Vec<_> = entries.iter().collect();
                entries.sort_by_key(|(name, _)| *name);
                f.write_str("#{")?;
                write_joined(f, entries, |f, (name, value)| {
                    write!(f, "{} => {}", Binary(name.as_bytes()), Term(value))
                })?;
                f.write_char('}')
            }
        }
    }
}

/// A value as it stands between quotes in a text: text bare, everything else a term.
pub struct Bare<'a>(pub &'a Value);

impl Display for Bare<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Text(bytes) | Value::Bytes(bytes) => f.write_str(&String::from_utf8_lossy(bytes)),
            other => Term(other).fmt(f),
        }
    }
}

/// A value and its kind: `{longstr,<<"a">>}`.
pub struct Pair<'a>(pub &'a Value);

impl Display for Pair<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{},{}}}", self.0.kind_name(), Term(self.0))
    }
}

/// Named settings as a list of pairs, in the given order: `[{<<"k">>,1}]`.
pub struct Pairs<'a>(pub &'a [(&'a str, &'a Json)]);

impl Display for Pairs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_list(f, self.0, |f, (name, value)| write!(f, "{{{},{}}}", Binary(name.as_bytes()), Term(*value)))
    }
}

/// Bytes as a binary: `<<"x">>` when all of it is printable, else `<<0,120>>`.
pub struct Binary<'a>(pub &'a [u8]);

impl Display for Binary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<<")?;
        if !is_printable(self.0) {
            write_joined(f, self.0, |f, byte| byte.fmt(f))?;
        } else if !self.0.is_empty() {
            write_quoted(f, self.0)?;
        }
        f.write_str(">>")
    }
}

/// Bytes as a list of characters: `"x"` when all of it is printable, else `[0,120]`.
pub struct Characters<'a>(pub &'a [u8]);

impl Display for Characters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_printable(self.0) { write_quoted(f, self.0) } else { write_list(f, self.0, |f, byte| byte.fmt(f)) }
    }
}

/// Erlang judges text byte by byte, by Latin-1's printable range and what has a letter escape.
fn is_printable(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b' '..=b'~' | 0xa0.. | 0x08..=0x0d | 0x1b))
}

fn write_quoted(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    f.write_char('"')?;
    for c in String::from_utf8_lossy(bytes).chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            '\u{b}' => f.write_str("\\v")?,
            '\u{c}' => f.write_str("\\f")?,
            '\u{8}' => f.write_str("\\b")?,
            '\u{1b}' => f.write_str("\\e")?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

/// The shortest digits that read back as `number`, always with a point.
fn write_float(f: &mut fmt::Formatter<'_>, number: f64) -> fmt::Result {
    let text = format!("{number:?}");
    match text.split_once('e') {
        // Erlang keeps a digit after the point also in front of an exponent: 1.0e30.
        Some((mantissa, exponent)) if !mantissa.contains('.') => write!(f, "{mantissa}.0e{exponent}"),
        _ => f.write_str(&text),
    }
}

fn write_list<I: IntoIterator>(
    f: &mut fmt::Formatter<'_>,
    items: I,
    write: impl FnMut(&mut fmt::Formatter<'_>, I::Item) -> fmt::Result,
) -> fmt::Result {
    f.write_char('[')?;
    write_joined(f, items, write)?;
    f.write_char(']')
}

fn write_joined<I: IntoIterator>(
    f: &mut fmt::Formatter<'_>,
    items: I,
    mut write: impl FnMut(&mut fmt::Formatter<'_>, I::Item) -> fmt::Result,
) -> fmt::Result {
    for (place, item) in items.into_iter().enumerate() {
        if place > 0 {
            f.write_char(',')?;
        }
        write(f, item)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::broker::value::Table;

    #[test]
    fn values_print_as_erlang_prints_them() {
        let pairs: Table = [("k", Value::text("v"))].into_iter().collect();
        let table = Table::from_iter([("k", Value::Array(vec![])), ("z", Value::text("")), ("y", Value::F64(1e22))]);
        for (value, expected) in [
            (Value::text("zzz"), r#"<<"zzz">>"#),
            (Value::text(""), "<<>>"),
            (Value::text("h\"q\n"), r#"<<"h\"q\n">>"#),
            (Value::Bytes(vec![1, 2]), "<<1,2>>"),
            (Value::F32(0.1), "0.10000000149011612"),
            (Value::F64(1.0), "1.0"),
            (Value::F64(1.0e30), "1.0e30"),
            (Value::F64(1.5e-7), "1.5e-7"),
            (Value::F64(123_456.789), "123456.789"),
            (Value::Array(vec![Value::I32(1), Value::Void]), "[{signedint,1},{void,undefined}]"),
            (Value::Table(pairs), r#"[{<<"k">>,longstr,<<"v">>}]"#),
            (Value::Table(table), r#"[{<<"k">>,array,[]},{<<"z">>,longstr,<<>>},{<<"y">>,double,1.0e22}]"#),
            (Value::Bool(true), "true"),
            (Value::I64(-3), "-3"),
        ] {
            assert_eq!(Term(&value).to_string(), expected);
        }
    }

    #[test]
    fn json_prints_as_erlang_prints_it() {
        let value = json!({"b": [1.5, null, 1.0e30], "a": 1, "t": "x\"y", "f": false});
        assert_eq!(
            Term(&value).to_string(),
            r#"#{<<"a">> => 1,<<"b">> => [1.5,null,1.0e30],<<"f">> => false,<<"t">> => <<"x\"y">>}"#
        );
    }

    #[test]
    fn settings_print_as_pairs() {
        let one = json!(1);
        let two = json!([1, "a", {"k": true}]);
        assert_eq!(
            Pairs(&[("nope", &one), ("zz", &two)]).to_string(),
            r#"[{<<"nope">>,1},{<<"zz">>,[1,<<"a">>,#{<<"k">> => true}]}]"#
        );
    }

    #[test]
    fn kinds_are_named_where_the_text_asks_for_them() {
        assert_eq!(Pair(&Value::text("zzz")).to_string(), r#"{longstr,<<"zzz">>}"#);
        assert_eq!(Bare(&Value::text("a b")).to_string(), "a b");
        assert_eq!(Bare(&Value::F64(2.0)).to_string(), "2.0");
    }

    #[test]
    fn what_is_not_printable_byte_by_byte_becomes_numbers() {
        assert_eq!(Term(&json!("")).to_string(), "<<>>");
        assert_eq!(Term(&json!("\u{0}a")).to_string(), "<<0,97>>");
        assert_eq!(Term(&json!("ü")).to_string(), r#"<<"ü">>"#);
        assert_eq!(Term(&json!("日")).to_string(), "<<230,151,165>>");
        assert_eq!(Characters(b"z\"\\\n").to_string(), r#""z\"\\\n""#);
        assert_eq!(Characters("ä".as_bytes()).to_string(), "\"ä\"");
        assert_eq!(Characters("日".as_bytes()).to_string(), "[230,151,165]");
    }
}
