//! How a JSON value reads in an error text.
//!
//! Tools compare RabbitMQ's texts, and those print values as Erlang terms: text is `<<"x">>`, an
//! object `#{<<"k">> => 1}`, a list of settings `[{<<"k">>,1}]`. Long values stay on one line here;
//! RabbitMQ breaks them after 80 columns.

use std::fmt::{self, Write as _};

use serde_json::Value as Json;

/// Prints a value as a term.
pub struct Term<'a>(pub &'a Json);

impl fmt::Display for Term<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Json::Null => f.write_str("null"),
            Json::Bool(flag) => write!(f, "{flag}"),
            Json::Number(number) => match number.as_f64() {
                Some(float) if number.is_f64() => write_float(f, float),
                _ => write!(f, "{number}"),
            },
            Json::String(text) => write_binary(f, text),
            Json::Array(items) => {
                f.write_char('[')?;
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{}", if i > 0 { "," } else { "" }, Term(item))?;
                }
                f.write_char(']')
            }
            Json::Object(entries) => {
                f.write_str("#{")?;
                let mut entries: Vec<_> = entries.iter().collect();
                entries.sort_by_key(|(name, _)| *name);
                for (i, (name, value)) in entries.into_iter().enumerate() {
                    f.write_str(if i > 0 { "," } else { "" })?;
                    write_binary(f, name)?;
                    write!(f, " => {}", Term(value))?;
                }
                f.write_char('}')
            }
        }
    }
}

/// Prints named values as a list of pairs, in the given order.
pub struct Pairs<'a>(pub &'a [(&'a str, &'a Json)]);

impl fmt::Display for Pairs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('[')?;
        for (i, (name, value)) in self.0.iter().enumerate() {
            f.write_str(if i > 0 { ",{" } else { "{" })?;
            write_binary(f, name)?;
            write!(f, ",{}}}", Term(value))?;
        }
        f.write_char(']')
    }
}

fn write_binary(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    // Bytes below a space print as numbers, unless they have a letter escape.
    let is_printable =
        |c: char| c >= ' ' && c != '\u{7f}' || matches!(c, '\n' | '\r' | '\t' | '\u{b}' | '\u{c}' | '\u{8}' | '\u{1b}');
    if text.is_empty() {
        return f.write_str("<<>>");
    }
    if !text.chars().all(is_printable) {
        f.write_str("<<")?;
        for (i, byte) in text.bytes().enumerate() {
            write!(f, "{}{byte}", if i > 0 { "," } else { "" })?;
        }
        return f.write_str(">>");
    }
    f.write_str("<<")?;
    write_quoted(f, text)?;
    f.write_str(">>")
}

/// Writes text between double quotes with letter escapes.
pub(crate) fn write_quoted(f: &mut impl fmt::Write, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
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

fn write_float(f: &mut fmt::Formatter<'_>, float: f64) -> fmt::Result {
    let magnitude = float.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        // Erlang keeps a digit after the point also in front of an exponent: 1.0e30.
        let text = format!("{float:e}");
        return match text.split_once('e') {
            Some((mantissa, exponent)) if !mantissa.contains('.') => write!(f, "{mantissa}.0e{exponent}"),
            _ => f.write_str(&text),
        };
    }
    write!(f, "{float:?}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_print_as_terms() {
        let value = json!({"b": [1.5, null, 1.0e30], "a": 1, "t": "x\"y", "f": false});
        assert_eq!(
            Term(&value).to_string(),
            r#"#{<<"a">> => 1,<<"b">> => [1.5,null,1.0e30],<<"f">> => false,<<"t">> => <<"x\"y">>}"#
        );
    }

    #[test]
    fn empty_and_unprintable_text_print_as_binaries() {
        assert_eq!(Term(&json!("")).to_string(), "<<>>");
        assert_eq!(Term(&json!("\u{0}a")).to_string(), "<<0,97>>");
        assert_eq!(Term(&json!("ü")).to_string(), "<<\"ü\">>");
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
}
