//! Values written as Erlang terms, the form in which RabbitMQ quotes them in refusals.

use std::fmt::{self, Display};

use crate::broker::value::Value;

/// A value as `~p` prints it, on one line.
pub(super) struct Term<'a>(pub(super) &'a Value);

/// Bytes as `~p` prints a binary.
pub(super) struct Binary<'a>(pub(super) &'a [u8]);

impl Display for Binary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_printable = |byte: &u8| matches!(byte, 0x20..=0x7e | 0xa0..=0xff | 0x08..=0x0d | 0x1b);
        f.write_str("<<")?;
        if self.0.is_empty() {
            // Nothing between the brackets.
        } else if self.0.iter().all(is_printable) {
            let mut quoted = Vec::with_capacity(self.0.len() + 2);
            for &byte in self.0 {
                match byte {
                    b'"' | b'\\' => quoted.extend([b'\\', byte]),
                    0x08 => quoted.extend(*b"\\b"),
                    b'\t' => quoted.extend(*b"\\t"),
                    b'\n' => quoted.extend(*b"\\n"),
                    0x0b => quoted.extend(*b"\\v"),
                    0x0c => quoted.extend(*b"\\f"),
                    b'\r' => quoted.extend(*b"\\r"),
                    0x1b => quoted.extend(*b"\\e"),
                    byte => quoted.push(byte),
                }
            }
            write!(f, "\"{}\"", String::from_utf8_lossy(&quoted))?;
        } else {
            for (place, byte) in self.0.iter().enumerate() {
                write!(f, "{}{byte}", if place > 0 { "," } else { "" })?;
            }
        }
        f.write_str(">>")
    }
}

impl Display for Term<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Text(bytes) | Value::Bytes(bytes) => Binary(bytes).fmt(f),
            Value::F32(n) => float(f64::from(*n), f),
            Value::F64(n) => float(*n, f),
            Value::Array(items) => {
                list(f, items.iter(), |item, f| write!(f, "{{{},{}}}", item.kind_name(), Term(item)))
            }
            Value::Table(table) => list(f, table.iter(), |(name, value), f| {
                write!(f, "{{{},{},{}}}", Binary(name.as_bytes()), value.kind_name(), Term(value))
            }),
            other => other.fmt(f),
        }
    }
}

fn list<I: Iterator>(
    f: &mut fmt::Formatter<'_>,
    items: I,
    mut item: impl FnMut(I::Item, &mut fmt::Formatter<'_>) -> fmt::Result,
) -> fmt::Result {
    f.write_str("[")?;
    for (place, one) in items.enumerate() {
        if place > 0 {
            f.write_str(",")?;
        }
        item(one, f)?;
    }
    f.write_str("]")
}

/// The shortest digits that read back as `n`, always with a point.
fn float(n: f64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if n != 0.0 && !(1e-4..1e16).contains(&n.abs()) {
        let digits = format!("{n:e}");
        match digits.split_once('e') {
            Some((mantissa, exponent)) if !mantissa.contains('.') => write!(f, "{mantissa}.0e{exponent}"),
            _ => f.write_str(&digits),
        }
    } else {
        write!(f, "{n:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::value::Table;

    #[test]
    fn values_read_as_erlang_prints_them() {
        let table: Table = [("k", Value::text("v"))].into_iter().collect();
        for (value, expected) in [
            (Value::text("zzz"), "<<\"zzz\">>"),
            (Value::text(""), "<<>>"),
            (Value::text("h\"q\n"), "<<\"h\\\"q\\n\">>"),
            (Value::Bytes(vec![1, 2]), "<<1,2>>"),
            (Value::F64(1.0), "1.0"),
            (Value::F64(1.0e30), "1.0e30"),
            (Value::F64(123_456.789), "123456.789"),
            (Value::Array(vec![Value::I32(1)]), "[{signedint,1}]"),
            (Value::Table(table), "[{<<\"k\">>,longstr,<<\"v\">>}]"),
            (Value::Void, "undefined"),
            (Value::Bool(true), "true"),
            (Value::I64(-3), "-3"),
        ] {
            assert_eq!(Term(&value).to_string(), expected);
        }
    }
}
