//! Values as Erlang prints them, because RabbitMQ's error texts contain Erlang terms.
//!
//! Terms longer than a line are not wrapped here as Erlang wraps them.

use std::fmt;

use crate::broker::value::Value;

/// A value as it stands between quotes in a text: text bare, everything else an Erlang term.
pub(crate) struct Bare<'a>(pub &'a Value);

impl fmt::Display for Bare<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Text(bytes) | Value::Bytes(bytes) => f.write_str(&String::from_utf8_lossy(bytes)),
            other => Term(other).fmt(f),
        }
    }
}

/// A value as an Erlang term.
pub(crate) struct Term<'a>(pub &'a Value);

/// A value and its kind as an Erlang pair: `{longstr,<<"a">>}`.
pub(crate) struct Pair<'a>(pub &'a Value);

impl fmt::Display for Pair<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{},{}}}", self.0.kind_name(), Term(self.0))
    }
}

impl fmt::Display for Term<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Text(bytes) | Value::Bytes(bytes) => write!(f, "{}", erlang_binary(bytes)),
            Value::F32(number) => f.write_str(&erlang_float(f64::from(*number))),
            Value::F64(number) => f.write_str(&erlang_float(*number)),
            Value::Array(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    let comma = if index > 0 { "," } else { "" };
                    write!(f, "{comma}{}", Pair(item))?;
                }
                f.write_str("]")
            }
            Value::Table(table) => {
                f.write_str("[")?;
                for (index, (name, value)) in table.iter().enumerate() {
                    let comma = if index > 0 { "," } else { "" };
                    let name = erlang_binary(name.as_bytes());
                    write!(f, "{comma}{{{name},{},{}}}", value.kind_name(), Term(value))?;
                }
                f.write_str("]")
            }
            other => write!(f, "{other}"),
        }
    }
}

/// A string as Erlang prints it: quoted when all of it is printable, else a list of numbers.
pub(crate) fn erlang_string(bytes: &[u8]) -> String {
    erlang_quoted(bytes).unwrap_or_else(|| format!("[{}]", erlang_numbers(bytes)))
}

/// A float as Erlang prints it: always with a fraction.
fn erlang_float(number: f64) -> String {
    let text = format!("{number:?}");
    match text.split_once('e') {
        Some((mantissa, exponent)) if !mantissa.contains('.') => format!("{mantissa}.0e{exponent}"),
        _ => text,
    }
}

fn erlang_binary(bytes: &[u8]) -> String {
    match erlang_quoted(bytes) {
        Some(_) if bytes.is_empty() => "<<>>".into(),
        Some(quoted) => format!("<<{quoted}>>"),
        None => format!("<<{}>>", erlang_numbers(bytes)),
    }
}

fn erlang_numbers(bytes: &[u8]) -> String {
    bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(",")
}

fn erlang_quoted(bytes: &[u8]) -> Option<String> {
    let mut quoted = vec![b'"'];
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => quoted.extend([b'\\', byte]),
            b'\n' => quoted.extend(b"\\n"),
            b'\r' => quoted.extend(b"\\r"),
            b'\t' => quoted.extend(b"\\t"),
            0x0b => quoted.extend(b"\\v"),
            0x08 => quoted.extend(b"\\b"),
            0x0c => quoted.extend(b"\\f"),
            0x1b => quoted.extend(b"\\e"),
            // Latin-1's printable range: Erlang judges text byte by byte.
            b' '..=b'~' | 0xa0.. => quoted.push(byte),
            _ => return None,
        }
    }
    quoted.push(b'"');
    Some(String::from_utf8_lossy(&quoted).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::value::Table;

    #[test]
    fn terms_are_printed_as_erlang_prints_them() {
        let table = Table::from_iter([("k", Value::Array(vec![])), ("z", Value::text("")), ("y", Value::F64(1e22))]);
        let term = Term(&Value::Table(table)).to_string();
        assert_eq!(term, r#"[{<<"k">>,array,[]},{<<"z">>,longstr,<<>>},{<<"y">>,double,1.0e22}]"#);
        let array = Value::Array(vec![Value::F64(2.0), Value::F32(0.1), Value::Bytes(vec![0, 1]), Value::Void]);
        let term = Term(&array).to_string();
        assert_eq!(term, "[{double,2.0},{float,0.10000000149011612},{binary,<<0,1>>},{void,undefined}]");
        assert_eq!(Pair(&Value::text("zzz")).to_string(), r#"{longstr,<<"zzz">>}"#);
        assert_eq!(Bare(&Value::text("a b")).to_string(), "a b");
    }

    #[test]
    fn strings_that_are_not_printable_become_lists() {
        assert_eq!(erlang_string(b"z\"\\\n"), r#""z\"\\\n""#);
        assert_eq!(erlang_string("ä".as_bytes()), "\"ä\"");
        assert_eq!(erlang_string("日".as_bytes()), "[230,151,165]");
    }
}
