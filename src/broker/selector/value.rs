//! What a name of a selector stands for.

/// The value of a property.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Value<'a> {
    /// There is no such property, or it has no value that a selector could use.
    #[default]
    Null,
    /// A truth value.
    Bool(bool),
    /// Any integer.
    Long(i64),
    /// Any floating-point number.
    Double(f64),
    /// Text, in UTF-8 where it is sound.
    Text(&'a [u8]),
    /// Text in two pieces.
    Joined(&'static str, &'a [u8]),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text.as_bytes())
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Long(number)
    }
}

impl From<f64> for Value<'_> {
    fn from(number: f64) -> Self {
        Self::Double(number)
    }
}

impl From<bool> for Value<'_> {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}
