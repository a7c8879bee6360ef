//! Numbers as filter policies compare them: by value, however they are written.
//!
//! A number is a double and, for integers that a double cannot hold, what is missing to the exact
//! value, so that neighbouring identifiers of 17 digits are told apart.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

/// A number of a policy or a message.
#[derive(Clone, Copy, Debug)]
pub struct Number {
    value: f64,
    /// Exact value minus `value`; zero unless this is an integer of 64 bits.
    rest: i64,
}

impl Number {
    /// Reads decimal digits with optional sign, point and exponent; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(integer) = text.parse::<i64>() {
            return Some(integer.into());
        }
        if let Ok(integer) = text.parse::<u64>() {
            return Some(integer.into());
        }
        // Rust reads "inf" and "nan", too.
        let starts_well = text
            .bytes()
            .find(|octet| !matches!(octet, b'+' | b'-'))
            .is_some_and(|octet| octet == b'.' || octet.is_ascii_digit());
        if starts_well { text.parse::<f64>().ok().map(Self::from) } else { None }
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        // Zero has one form, so that equal numbers have equal hashes.
        Self { value: if value == 0.0 { 0.0 } else { value }, rest: 0 }
    }
}

impl From<i64> for Number {
    fn from(integer: i64) -> Self {
        let value = integer as f64;
        Self { value, rest: (i128::from(integer) - value as i128) as i64 }
    }
}

impl From<u64> for Number {
    fn from(integer: u64) -> Self {
        let value = integer as f64;
        Self { value, rest: (i128::from(integer) - value as i128) as i64 }
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Number {}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        self.value.total_cmp(&other.value).then(self.rest.cmp(&other.rest))
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Number {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.value.to_bits(), self.rest).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        Number::parse(text).unwrap()
    }

    #[test]
    fn a_number_is_its_value_and_not_its_spelling() {
        for (one, other) in [("301.5", "3.015e2"), ("0", "-0.0"), ("100", "100.000"), ("+7", "7"), ("1e3", "1000")] {
            assert_eq!(number(one), number(other), "{one} {other}");
        }
    }

    #[test]
    fn integers_of_many_digits_are_told_apart() {
        assert_ne!(number("9007199254740993"), number("9007199254740992"));
        assert!(number("18446744073709551615") > number("18446744073709551614"));
        assert!(number("-9223372036854775808") < number("-9223372036854775807"));
    }

    #[test]
    fn what_is_not_written_in_digits_is_no_number() {
        for text in ["", "inf", "NaN", "0x10", "1,5", "-", "12a", "--1"] {
            assert_eq!(Number::parse(text), None, "{text}");
        }
    }
}
