//! What a setting's value may look like, and reading it: numbers with units, lists, shares of memory.
//!
//! Every layer's values pass through here: TOML types from the file, plain text from the
//! environment and the command line. Text means the same wherever it stands.

use config::{Value, ValueKind};

use crate::broker::options::MemoryShare;

/// What is allowed for a setting.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    /// A whole number between two bounds.
    Number { min: u64, max: u64, unit: Unit, off: Off },
    /// A number of bytes or a factor of the memory, up to `relative_max`.
    Share { relative_max: f64 },
    /// Any text that is not empty.
    Text,
    /// Text that the setting itself checks; this says what it accepts.
    Checked(&'static str),
    /// Like `Checked`, with a word for "none".
    CheckedOrOff(&'static str),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Several texts: a TOML array, or one text with commas; this says what each may be.
    List(&'static str),
}

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Things.
    Count,
    /// Bytes, also written `64KiB`, `64MB`.
    Bytes,
    /// Milliseconds, also written `500ms`, `10s`, `5m`, `1h`, `1d`.
    Millis,
    /// Seconds, also written `60s`, `5m`.
    Secs,
    /// Permission bits; text is octal.
    Mode,
}

/// Whether a number may be switched off, and how that is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Off {
    /// It may not.
    Never,
    /// `off`.
    Word,
    /// `unlimited`.
    Unlimited,
    /// `auto`: chosen at the start.
    Auto,
}

/// A value that keeps its rule.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Parsed {
    Number(u64),
    Off,
    Share(MemoryShare),
    Text(String),
    List(Vec<String>),
}

impl Parsed {
    /// The number in its field's type.
    pub(super) fn number<T: TryFrom<u64>>(self) -> T {
        let Self::Number(number) = self else { unreachable!("a Number row without `off` parses to a number") };
        T::try_from(number).ok().expect("the bounds of a row fit the type of its field")
    }

    /// The number, or nothing when switched off.
    pub(super) fn optional(self) -> Option<u64> {
        if let Self::Number(number) = self { Some(number) } else { None }
    }

    /// The number, or the largest when unlimited.
    pub(super) fn count(self) -> usize {
        self.optional().map_or(usize::MAX, |number| usize::try_from(number).unwrap_or(usize::MAX))
    }

    pub(super) fn share(self) -> MemoryShare {
        let Self::Share(share) = self else { unreachable!("a Share row parses to a share") };
        share
    }

    /// The text, or nothing when switched off.
    pub(super) fn text_or_off(self) -> Option<String> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub(super) fn text(self) -> String {
        self.text_or_off().expect("a row of text without `off` parses to text")
    }

    pub(super) fn list(self) -> Vec<String> {
        let Self::List(list) = self else { unreachable!("a List row parses to a list") };
        list
    }
}

impl Rule {
    /// Reads `value`, or nothing when the rule does not allow it.
    pub(super) fn parse(self, value: &Value) -> Option<Parsed> {
        match self {
            Self::Number { min, max, unit, off } => {
                if off != Off::Never && is_off(value) {
                    return Some(Parsed::Off);
                }
                let number = number(value, unit)?;
                (min..=max).contains(&number).then_some(Parsed::Number(number))
            }
            Self::Share { relative_max } => share(value, relative_max).map(Parsed::Share),
            Self::Text | Self::Checked(_) => text(value).filter(|text| !text.is_empty()).map(Parsed::Text),
            Self::CheckedOrOff(_) if is_off(value) => Some(Parsed::Off),
            Self::CheckedOrOff(_) => text(value).filter(|text| !text.is_empty()).map(Parsed::Text),
            Self::OneOf(words) => {
                let text = text(value)?.to_lowercase();
                words.contains(&text.as_str()).then_some(Parsed::Text(text))
            }
            Self::List(_) => list(value).map(Parsed::List),
        }
    }

    /// What a value may be, for an error and for the table of settings.
    pub(super) fn allowed(self) -> String {
        match self {
            Self::Number { min, max, unit, off } => {
                let max_text = unit.show(max);
                let bounds = match unit {
                    Unit::Mode => "permission bits in octal that let the owner read and write, such as \"0660\"".into(),
                    Unit::Count if max == u64::MAX => format!("a whole number from {min} up"),
                    Unit::Count => format!("a whole number from {min} to {max}"),
                    Unit::Bytes => format!("bytes from {} to {max_text}, with or without a unit", unit.show(min)),
                    Unit::Millis => {
                        format!("milliseconds from {min} to {max}, or text such as \"500ms\", \"10s\", \"1h\"")
                    }
                    Unit::Secs => format!("seconds from {min} to {max}, or text such as \"60s\", \"5m\""),
                };
                match off {
                    Off::Never => bounds,
                    _ => format!("{bounds}, or \"{}\"", off.word()),
                }
            }
            Self::Share { relative_max } => {
                format!("a factor of the memory from 0.0 to {relative_max:.1}, or bytes such as \"2GiB\"")
            }
            Self::Text => "text that is not empty".into(),
            Self::Checked(what) => what.into(),
            Self::CheckedOrOff(what) => format!("{what}, or \"off\""),
            Self::OneOf(words) => format!("one of {}", words.join(", ")),
            Self::List(what) => format!("a list of {what} (an array, or one text with commas)"),
        }
    }

    /// The unit for the table of settings.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::Number { unit: Unit::Count, .. } => "count",
            Self::Number { unit: Unit::Bytes, .. } => "bytes",
            Self::Number { unit: Unit::Millis, .. } => "ms",
            Self::Number { unit: Unit::Secs, .. } => "s",
            Self::Number { unit: Unit::Mode, .. } => "octal",
            Self::Share { .. } => "of memory, or bytes",
            Self::Text | Self::Checked(_) | Self::CheckedOrOff(_) => "text",
            Self::OneOf(_) => "word",
            Self::List(_) => "list",
        }
    }
}

impl Unit {
    /// A number of this unit as a person would write it.
    pub(super) fn show(self, number: u64) -> String {
        match self {
            Self::Bytes => {
                let units =
                    [("GiB", 1 << 30), ("MiB", 1 << 20), ("GB", 1_000_000_000), ("MB", 1_000_000), ("KiB", 1024)];
                match units.iter().find(|(_, size)| number > 0 && number.is_multiple_of(*size)) {
                    Some((unit, size)) => format!("{}{unit}", number / size),
                    None => number.to_string(),
                }
            }
            Self::Mode => format!("{number:04o}"),
            Self::Count | Self::Millis | Self::Secs => number.to_string(),
        }
    }
}

impl Off {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Never | Self::Word => "off",
            Self::Unlimited => "unlimited",
            Self::Auto => "auto",
        }
    }
}

/// Whether a value means "nothing": our words and RabbitMQ's.
fn is_off(value: &Value) -> bool {
    match &value.kind {
        ValueKind::Boolean(on) => !on,
        ValueKind::String(text) => ["off", "none", "unlimited", "infinity", "undefined", "false", "auto"]
            .contains(&text.trim().to_lowercase().as_str()),
        _ => false,
    }
}

fn number(value: &Value, unit: Unit) -> Option<u64> {
    match &value.kind {
        ValueKind::I64(number) => u64::try_from(*number).ok(),
        ValueKind::I128(number) => u64::try_from(*number).ok(),
        ValueKind::U64(number) => Some(*number),
        ValueKind::U128(number) => u64::try_from(*number).ok(),
        ValueKind::String(text) => number_from_text(text.trim(), unit),
        _ => None,
    }
}

fn number_from_text(text: &str, unit: Unit) -> Option<u64> {
    if unit == Unit::Mode {
        let digits = text.strip_prefix("0o").unwrap_or(text);
        return u64::from_str_radix(digits, 8).ok().filter(|_| !digits.starts_with('+'));
    }
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let number: u64 = text[..digits_end].replace('_', "").parse().ok()?;
    let suffix = text[digits_end..].trim().to_lowercase();
    let (times, over) = match (unit, suffix.as_str()) {
        (_, "") => (1, 1),
        // RabbitMQ reads a bare letter as a power of 1024 and a `B` behind it as one of 1000.
        (Unit::Bytes, "b") => (1, 1),
        (Unit::Bytes, "k" | "kib" | "ki") => (1 << 10, 1),
        (Unit::Bytes, "m" | "mib" | "mi") => (1 << 20, 1),
        (Unit::Bytes, "g" | "gib" | "gi") => (1 << 30, 1),
        (Unit::Bytes, "t" | "tib" | "ti") => (1 << 40, 1),
        (Unit::Bytes, "kb") => (1_000, 1),
        (Unit::Bytes, "mb") => (1_000_000, 1),
        (Unit::Bytes, "gb") => (1_000_000_000, 1),
        (Unit::Bytes, "tb") => (1_000_000_000_000, 1),
        (Unit::Millis | Unit::Secs, _) => {
            let ms = match suffix.as_str() {
                "ms" => 1,
                "s" => 1_000,
                "m" | "min" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return None,
            };
            (ms, if unit == Unit::Secs { 1_000 } else { 1 })
        }
        _ => return None,
    };
    let product = number.checked_mul(times)?;
    (product.is_multiple_of(over)).then_some(product / over)
}

fn share(value: &Value, relative_max: f64) -> Option<MemoryShare> {
    let relative = |factor: f64| (0.0..=relative_max).contains(&factor).then_some(MemoryShare::Relative(factor));
    match &value.kind {
        ValueKind::Float(factor) => relative(*factor),
        ValueKind::String(text) => {
            let text = text.trim();
            if let Some(percent) = text.strip_suffix('%') {
                relative(percent.trim().parse::<f64>().ok()? / 100.0)
            } else if let Some(bytes) = number_from_text(text, Unit::Bytes) {
                Some(MemoryShare::Bytes(bytes))
            } else {
                relative(text.parse().ok()?)
            }
        }
        _ => number(value, Unit::Bytes).map(MemoryShare::Bytes),
    }
}

/// Scalars as text: a user name may look like a number.
pub(super) fn text(value: &Value) -> Option<String> {
    match &value.kind {
        ValueKind::Nil | ValueKind::Table(_) | ValueKind::Array(_) => None,
        kind => Some(kind.to_string()),
    }
}

fn list(value: &Value) -> Option<Vec<String>> {
    match &value.kind {
        ValueKind::Array(values) => values.iter().map(|value| text(value).filter(|text| !text.is_empty())).collect(),
        _ if is_off(value) => Some(Vec::new()),
        _ => {
            let text = text(value)?;
            Some(text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect())
        }
    }
}

/// A value as it stands in an error.
pub(super) fn quoted(value: &Value) -> String {
    match &value.kind {
        ValueKind::String(text) => format!("{text:?}"),
        kind => kind.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: Rule = Rule::Number { min: 1, max: 1 << 40, unit: Unit::Bytes, off: Off::Never };
    const MILLIS: Rule = Rule::Number { min: 0, max: 1 << 40, unit: Unit::Millis, off: Off::Word };

    fn parse(rule: Rule, kind: impl Into<ValueKind>) -> Option<Parsed> {
        rule.parse(&Value::new(None, kind))
    }

    #[test]
    fn bytes_are_read_with_and_without_units() {
        for (text, bytes) in [
            ("4096", 4096),
            ("64KiB", 65536),
            ("64k", 65536),
            ("50MB", 50_000_000),
            ("1 GiB", 1 << 30),
            ("1_000", 1000),
        ] {
            assert_eq!(parse(BYTES, text), Some(Parsed::Number(bytes)), "{text}");
        }
        for text in ["", "MiB", "-1", "12 parsecs", "1.5GiB", "99999999999999999999", "99999999999TiB", "0"] {
            assert_eq!(parse(BYTES, text), None, "{text}");
        }
        assert_eq!(parse(BYTES, 4096_i64), Some(Parsed::Number(4096)));
        assert_eq!(parse(BYTES, -4096_i64), None);
        assert_eq!(parse(BYTES, 0.5), None);
    }

    #[test]
    fn times_are_read_in_the_unit_of_the_setting() {
        assert_eq!(parse(MILLIS, "10s"), Some(Parsed::Number(10_000)));
        assert_eq!(parse(MILLIS, "1h"), Some(Parsed::Number(3_600_000)));
        assert_eq!(parse(MILLIS, "250"), Some(Parsed::Number(250)));
        assert_eq!(parse(MILLIS, "10 parsecs"), None);
        let secs = Rule::Number { min: 0, max: 65535, unit: Unit::Secs, off: Off::Word };
        assert_eq!(parse(secs, "5m"), Some(Parsed::Number(300)));
        assert_eq!(parse(secs, "500ms"), None);
    }

    #[test]
    fn off_is_a_word_or_false_only_where_allowed() {
        assert_eq!(parse(MILLIS, "infinity"), Some(Parsed::Off));
        assert_eq!(parse(MILLIS, false), Some(Parsed::Off));
        assert_eq!(parse(MILLIS, true), None);
        assert_eq!(parse(BYTES, "off"), None);
    }

    #[test]
    fn share_is_a_factor_or_bytes() {
        let rule = Rule::Share { relative_max: 1.0 };
        assert_eq!(parse(rule, 0.4), Some(Parsed::Share(MemoryShare::Relative(0.4))));
        assert_eq!(parse(rule, "0.4"), Some(Parsed::Share(MemoryShare::Relative(0.4))));
        assert_eq!(parse(rule, "40%"), Some(Parsed::Share(MemoryShare::Relative(0.4))));
        assert_eq!(parse(rule, "2GiB"), Some(Parsed::Share(MemoryShare::Bytes(2 << 30))));
        assert_eq!(parse(rule, 1000_i64), Some(Parsed::Share(MemoryShare::Bytes(1000))));
        for bad in ["1.1", "-0.1", "NaN", "inf", "140%"] {
            assert_eq!(parse(rule, bad), None, "{bad}");
        }
    }

    #[test]
    fn mode_text_is_octal() {
        let rule = Rule::Number { min: 0o600, max: 0o777, unit: Unit::Mode, off: Off::Never };
        assert_eq!(parse(rule, "0660"), Some(Parsed::Number(0o660)));
        assert_eq!(parse(rule, 0o660_i64), Some(Parsed::Number(0o660)));
        assert_eq!(parse(rule, "0888"), None);
        assert_eq!(parse(rule, "0444"), None);
    }

    #[test]
    fn list_is_an_array_or_a_text_with_commas() {
        let rule = Rule::List("names");
        let two = Some(Parsed::List(vec!["a".into(), "b".into()]));
        assert_eq!(parse(rule, "a, b"), two);
        assert_eq!(parse(rule, vec!["a", "b"]), two);
        assert_eq!(parse(rule, "none"), Some(Parsed::List(vec![])));
    }
}
