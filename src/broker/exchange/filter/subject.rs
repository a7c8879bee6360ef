//! What a filter policy is held against: the attributes of a message, and its body.
//!
//! A [`Subject`] only points at them. Nothing is decoded before some policy names it, and what was
//! decoded once serves all policies of an exchange.

use std::borrow::Cow;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use smallvec::SmallVec;

use super::number::Number;
use crate::broker::value::{Headers, ValueRef};

/// A message as policies see it.
#[derive(Clone, Debug, Default)]
pub struct Subject<'m> {
    attributes: SmallVec<[(&'m [u8], Attribute<'m>); 8]>,
    body: &'m [u8],
}

/// The value of an attribute.
#[derive(Clone, Copy, Debug)]
pub enum Attribute<'m> {
    /// Text.
    Text(&'m str),
    /// A number, in decimal digits.
    Number(&'m str),
    /// A JSON array whose elements are matched each for itself.
    List(&'m str),
    /// The value of a header: text, numbers, booleans, void, and arrays of them.
    Header(ValueRef<'m>),
}

/// One value that operators are applied to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar<'m> {
    Text(Cow<'m, str>),
    Number(Number),
    Bool(bool),
    Null,
    /// There is something, and no operator but `exists` matches it.
    Unreadable,
}

impl<'m> Subject<'m> {
    /// A message without attributes.
    pub fn new(body: &'m [u8]) -> Self {
        Self { attributes: SmallVec::new(), body }
    }

    /// A message whose attributes are those of its headers that `is_attribute` by their name. Bytes are left out:
    /// policies do not see binary attributes.
    pub fn from_headers(headers: Headers<'m>, body: &'m [u8], is_attribute: impl Fn(&[u8]) -> bool) -> Self {
        let attributes = headers
            .iter()
            .filter(|(name, value)| value.kind != b'x' && is_attribute(name))
            .map(|(name, value)| (name, Attribute::Header(value)));
        Self { attributes: attributes.collect(), body }
    }

    /// Adds an attribute.
    pub fn with(mut self, name: &'m str, value: Attribute<'m>) -> Self {
        self.push(name, value);
        self
    }

    /// Adds an attribute.
    pub fn push(&mut self, name: &'m str, value: Attribute<'m>) {
        self.attributes.push((name.as_bytes(), value));
    }

    /// The attributes, in the order they were added.
    pub(super) fn attributes(&self) -> impl Iterator<Item = (&'m [u8], Attribute<'m>)> {
        self.attributes.iter().copied()
    }

    /// Policies over attributes match no message without any, not even by the absence of one.
    pub(super) fn has_attributes(&self) -> bool {
        !self.attributes.is_empty()
    }

    /// The body.
    pub(super) fn body(&self) -> &'m [u8] {
        self.body
    }
}

impl<'m> Attribute<'m> {
    /// Hands each of the attribute's values to `each`.
    pub(super) fn values(self, each: &mut dyn FnMut(Scalar<'m>)) {
        match self {
            Self::Text(text) => each(Scalar::text(text)),
            Self::Number(digits) => each(Number::parse(digits).map_or(Scalar::Unreadable, Scalar::Number)),
            Self::List(json) => match serde_json::from_str::<List<'_>>(json) {
                Ok(List(values)) => values.into_iter().for_each(each),
                Err(_) => each(Scalar::Unreadable),
            },
            Self::Header(value) => match value.as_array() {
                Some(items) => items.for_each(|item| each(Scalar::of_header(item))),
                None => each(Scalar::of_header(value)),
            },
        }
    }
}

impl<'m> Scalar<'m> {
    /// Text that is borrowed.
    pub(super) fn text(text: &'m str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    fn of_header(value: ValueRef<'m>) -> Self {
        if let Some(integer) = value.as_integer() {
            return Self::Number(integer.into());
        }
        let bytes = value.payload;
        match value.kind {
            b'S' => std::str::from_utf8(bytes).map_or(Self::Unreadable, Self::text),
            b't' => Self::Bool(bytes.first().is_some_and(|octet| *octet != 0)),
            b'V' => Self::Null,
            b'f' => {
                bytes.try_into().map_or(Self::Unreadable, |b| Self::Number(f64::from(f32::from_be_bytes(b)).into()))
            }
            b'd' => bytes.try_into().map_or(Self::Unreadable, |b| Self::Number(f64::from_be_bytes(b).into())),
            b'T' => bytes.try_into().map_or(Self::Unreadable, |b| Self::Number(u64::from_be_bytes(b).into())),
            b'D' => match bytes {
                [scale, value @ ..] => value.try_into().map_or(Self::Unreadable, |value| {
                    let unscaled = f64::from(i32::from_be_bytes(value));
                    Self::Number((unscaled / 10_f64.powi((*scale).into())).into())
                }),
                [] => Self::Unreadable,
            },
            _ => Self::Unreadable,
        }
    }
}

/// The elements of a JSON array that are no arrays or objects themselves.
struct List<'m>(Vec<Scalar<'m>>);

impl<'de> Deserialize<'de> for List<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements;
        impl<'de> Visitor<'de> for Elements {
            type Value = List<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
                let mut values = Vec::new();
                while let Some(Element(value)) = elements.next_element()? {
                    values.extend(value);
                }
                Ok(List(values))
            }
        }
        deserializer.deserialize_seq(Elements)
    }
}

struct Element<'m>(Option<Scalar<'m>>);

impl<'de> Deserialize<'de> for Element<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Element<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a value")
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
                Ok(Element(Some(Scalar::Bool(value))))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
                Ok(Element(Some(Scalar::Number(value.into()))))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
                Ok(Element(Some(Scalar::Number(value.into()))))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
                Ok(Element(Some(Scalar::Number(value.into()))))
            }

            fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Self::Value, E> {
                Ok(Element(Some(Scalar::text(value))))
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
                Ok(Element(Some(Scalar::Text(Cow::Owned(value.to_owned())))))
            }

            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Ok(Element(Some(Scalar::Null)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
                while elements.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Element(None))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
                while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Element(None))
            }
        }
        deserializer.deserialize_any(Any)
    }
}
