//! The values of a JSON body that some policy names, found in one pass.
//!
//! The body must be one JSON object of sound syntax, and nested at most 128 deep where a policy leads. What no policy
//! names is checked and skipped. A name that occurs twice in an object has both values.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use smallvec::SmallVec;

use super::index::{Index, NameId};
use super::subject::Scalar;

/// The values that were found, in the order of the body.
#[derive(Debug, Default)]
pub(super) struct Fields<'m> {
    pub(super) occurrences: Vec<Occurrence<'m>>,
    /// Of all occurrences: which element of which array they are in, from the outermost.
    places: Vec<Place>,
}

/// A value under a name.
#[derive(Debug)]
pub(super) struct Occurrence<'m> {
    pub(super) name: NameId,
    pub(super) value: Scalar<'m>,
    places_start: u32,
    places_len: u32,
}

/// An element of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) array: u32,
    pub(super) element: u32,
}

impl<'m> Fields<'m> {
    /// Reads a body; `None` when it is no JSON object.
    pub(super) fn read(index: &Index, body: &'m [u8]) -> Option<Self> {
        let mut reader =
            Reader { index, path: String::new(), arrays: SmallVec::new(), arrays_count: 0, fields: Fields::default() };
        // What is skipped is not checked for this otherwise.
        let text = std::str::from_utf8(body).ok()?;
        let mut json = serde_json::Deserializer::from_str(text);
        Node { reader: &mut reader, name: None, path_len: None }.deserialize(&mut json).ok()?;
        json.end().ok()?;
        Some(reader.fields)
    }

    /// Whether some value is in an array.
    pub(super) fn has_arrays(&self) -> bool {
        !self.places.is_empty()
    }

    /// The elements of arrays that this occurrence is in, from the outermost.
    pub(super) fn places(&self, occurrence: &Occurrence<'_>) -> &[Place] {
        let start = occurrence.places_start as usize;
        &self.places[start..start + occurrence.places_len as usize]
    }
}

struct Reader<'i, 'm> {
    index: &'i Index,
    path: String,
    arrays: SmallVec<[Place; 8]>,
    arrays_count: u32,
    fields: Fields<'m>,
}

impl<'m> Reader<'_, 'm> {
    fn found(&mut self, name: Option<NameId>, value: Scalar<'m>) {
        let Some(name) = name else { return };
        let places = &mut self.fields.places;
        let places_len = self.arrays.len();
        // Fields of one element stand in one place, mostly.
        let is_same = places.len() >= places_len && places[places.len() - places_len..] == self.arrays[..];
        if !is_same {
            places.extend_from_slice(&self.arrays);
        }
        let places_start = (places.len() - places_len) as u32;
        self.fields.occurrences.push(Occurrence { name, value, places_start, places_len: places_len as u32 });
    }
}

/// Any value of the body: its name if it has conditions, and how much of `path` leads to it. The body itself has
/// no path.
struct Node<'r, 'i, 'm> {
    reader: &'r mut Reader<'i, 'm>,
    name: Option<NameId>,
    path_len: Option<usize>,
}

impl<'i, 'de> Node<'_, 'i, 'de> {
    fn scalar<E: Error>(self, value: Scalar<'de>) -> Result<(), E> {
        if self.path_len.is_none() {
            return Err(E::custom("the body is no object"));
        }
        self.reader.found(self.name, value);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.scalar(Scalar::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.scalar(Scalar::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.scalar(Scalar::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.scalar(Scalar::Number(value.into()))
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<(), E> {
        self.scalar(Scalar::text(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.scalar(Scalar::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.scalar(Scalar::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        if self.path_len.is_none() {
            return Err(A::Error::custom("the body is no object"));
        }
        let Self { reader, name, path_len } = self;
        let array = reader.arrays_count;
        reader.arrays_count += 1;
        reader.arrays.push(Place { array, element: 0 });
        while elements.next_element_seed(Node { reader: &mut *reader, name, path_len })?.is_some() {
            if let Some(place) = reader.arrays.last_mut() {
                place.element += 1;
            }
        }
        reader.arrays.pop();
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let Self { reader, path_len, .. } = self;
        while let Some(known) = entries.next_key_seed(Key { reader: &mut *reader, path_len })? {
            match known {
                Some(name) => {
                    let path_len = Some(reader.path.len());
                    entries.next_value_seed(Node { reader: &mut *reader, name, path_len })?;
                }
                None => drop(entries.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// A name in an object: extends the path and says whether some policy goes that way, and has conditions there.
struct Key<'r, 'i, 'm> {
    reader: &'r mut Reader<'i, 'm>,
    path_len: Option<usize>,
}

impl<'de> DeserializeSeed<'de> for Key<'_, '_, '_> {
    type Value = Option<Option<NameId>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_, '_, '_> {
    type Value = Option<Option<NameId>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        let path = &mut self.reader.path;
        path.truncate(self.path_len.unwrap_or(0));
        if self.path_len.is_some() {
            path.push('.');
        }
        path.push_str(key);
        Ok(self.reader.index.path(path).map(|path| path.name))
    }
}
