//! Selectors: conditions over the properties of a message, in the words of SQL-92's WHERE.
//!
//! What a name means is the caller's affair; a selector asks for values by name and answers
//! whether the condition is TRUE. Inside it counts in three values, and UNKNOWN is no match.
//!
//! ```text
//! condition   = condition OR condition | condition AND condition | NOT condition
//!             | value (= | <> | !=) value | value (< | <= | > | >=) value
//!             | value [NOT] BETWEEN value AND value | value IS [NOT] NULL
//!             | value [NOT] LIKE 'pattern' [ESCAPE 'c'] | name [NOT] IN ('text', ...)
//!             | name | TRUE | FALSE | NULL | ( condition )
//! value       = value (+ | -) value | value (* | / | %) value | (+ | -) value
//!             | name | "any name" | 'text' | 1 | 1L | 0x1F | 017 | 1.5 | 1e3 | ( value )
//! comments    = -- to the end of the line | /* anything */
//! ```
//!
//! In order of precedence, loosest first: OR, AND, NOT, equality, order, sums, products, signs.
//! Where the words of the standard leave room, ActiveMQ's answers hold: division is never of
//! integers, `text + x` appends, values of unlike kinds are different (so `<>` is TRUE of them and
//! `<` FALSE), and IN of what is no text is UNKNOWN.
//!
//! Bounds: [`TEXT_BYTES_MAX`], [`DEPTH_MAX`], [`STEPS_MAX`]. Sums that leave 64 bits go on as
//! floating-point numbers.

mod error;
mod evaluate;
mod expression;
mod lexer;
mod like;
mod parser;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
mod value;

use std::fmt;

pub use error::SelectorError;
pub use value::Value;

use evaluate::Evaluation;
use expression::Expression;

/// Whether text takes part where a number or a truth value is compared with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conversion {
    /// Text is text: `n > 3` is FALSE of the text `5`.
    #[default]
    None,
    /// Text that reads as a number counts as that number beside a number, and `true` as TRUE:
    /// for protocols whose properties are all text.
    NumericStrings,
}

/// A parsed selector.
#[derive(Clone)]
pub struct Selector {
    text: Box<str>,
    conversion: Conversion,
    expression: Expression,
}

impl Selector {
    /// Parses a selector. One that begins with `convert_string_expressions:` converts text
    /// whatever `conversion` says. Blank text is an error; callers for whom it means "everything"
    /// do not ask.
    pub fn parse(text: &str, conversion: Conversion) -> Result<Self, SelectorError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(SelectorError::TooLong { bytes: text.len() });
        }
        let (start, conversion) = match text.starts_with(CONVERSION_PREFIX) {
            true => (CONVERSION_PREFIX.len(), Conversion::NumericStrings),
            false => (0, conversion),
        };
        let expression = parser::parse(text, start)?;
        Ok(Self { text: text.into(), conversion, expression })
    }

    /// Whether the condition is TRUE, where `lookup` gives what a name stands for
    /// ([`Value::Null`] if nothing does). A name may be asked for more than once.
    pub fn matches<'a>(&self, lookup: &dyn Fn(&str) -> Value<'a>) -> bool {
        Evaluation::new(lookup, self.conversion).holds(&self.expression)
    }

    /// The text that was parsed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether text is converted.
    pub fn conversion(&self) -> Conversion {
        self.conversion
    }
}

/// Two selectors are equal if they say the same, however it was written.
impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.conversion == other.conversion && self.expression == other.expression
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Selector({:?}, {:?})", self.text, self.conversion)
    }
}

/// The selector in its plainest writing; parses to the same selector, its conversion aside.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.expression.fmt(f)
    }
}

/// Longest selector that is accepted.
pub const TEXT_BYTES_MAX: usize = 64 << 10;
/// How deep parentheses, signs, NOTs and precedences may nest.
pub const DEPTH_MAX: usize = 256;
/// Steps after which an evaluation is given up as no match: one a node, one an octet looked at.
pub const STEPS_MAX: usize = 1 << 18;
/// ActiveMQ's way to ask for conversion within the text.
const CONVERSION_PREFIX: &str = "convert_string_expressions:";
