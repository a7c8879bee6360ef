//! Arguments as JSON, as RabbitMQ's management writes and reads them.
//!
//! From JSON, integers become `long`, other numbers `double`, text `longstr`; lists and objects
//! nest; null is refused. To JSON, keys are sorted and the width of integers is lost.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Number, Value as Json};

use crate::broker::value::{TABLE_DEPTH_MAX, TABLE_ENTRIES_MAX, Table, Value};

/// Why arguments were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentsError {
    /// Null has no counterpart.
    #[error("null_not_allowed: argument {place} is null")]
    Null {
        /// The key, with the keys around it.
        place: String,
    },
    /// An integer that does not fit 64 bits with a sign.
    #[error("argument {place} is an integer out of range")]
    OutOfRange {
        /// The key, with the keys around it.
        place: String,
    },
    /// Names have at most 255 bytes.
    #[error("the name of argument {place} is longer than 255 bytes")]
    NameTooLong {
        /// The key, with the keys around it.
        place: String,
    },
    /// Deeper or longer than arguments may be.
    #[error("arguments are nested too deeply or too many")]
    TooLarge,
    /// Arguments are an object.
    #[error("arguments must be an object")]
    NotAnObject,
}

/// Arguments from JSON. Nothing, null and an empty list are no arguments.
pub fn from_json(json: &Json) -> Result<Table, ArgumentsError> {
    match json {
        Json::Object(entries) => table(entries, "", 1, &mut 0),
        Json::Null => Ok(Table::new()),
        Json::Array(items) if items.is_empty() => Ok(Table::new()),
        _ => Err(ArgumentsError::NotAnObject),
    }
}

/// Arguments as JSON. Of a repeated name the first counts.
pub fn to_json(table: &Table) -> Map<String, Json> {
    let mut entries: Vec<_> = table.iter().collect();
    // Stable, so the first of a name stays the first.
    entries.sort_by_key(|(name, _)| *name);
    entries.dedup_by_key(|(name, _)| *name);
    entries.into_iter().map(|(name, value)| (name.to_owned(), value_to_json(value))).collect()
}

/// One value as JSON.
pub fn value_to_json(value: &Value) -> Json {
    let float = |n: f64| Number::from_f64(n).map_or_else(|| Json::String(n.to_string()), Json::Number);
    match value {
        Value::Bool(flag) => Json::Bool(*flag),
        // Through text: the shortest decimal of an f32 has fewer digits than that of its f64.
        Value::F32(n) => float(n.to_string().parse().unwrap_or(f64::from(*n))),
        Value::F64(n) => float(*n),
        Value::Decimal { scale, value } => float(f64::from(*value) / 10f64.powi(i32::from(*scale))),
        Value::Text(bytes) | Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(_) => format!("Invalid UTF-8, base64 is: {}", STANDARD.encode(bytes)).into(),
        },
        Value::Array(items) => Json::Array(items.iter().map(value_to_json).collect()),
        Value::Timestamp(secs) => (*secs).into(),
        Value::Table(table) => Json::Object(to_json(table)),
        Value::Void => "undefined".into(),
        integer => integer.as_integer().map_or(Json::Null, Into::into),
    }
}

fn table(entries: &Map<String, Json>, place: &str, depth: usize, count: &mut usize) -> Result<Table, ArgumentsError> {
    let mut sorted: Vec<_> = entries.iter().collect();
    sorted.sort_by_key(|(name, _)| *name);
    let mut table = Table::new();
    for (name, json) in sorted {
        let place = if place.is_empty() { name.clone() } else { format!("{place}.{name}") };
        if name.len() > usize::from(u8::MAX) {
            return Err(ArgumentsError::NameTooLong { place });
        }
        table.push(name.clone(), value(json, &place, depth, count)?);
    }
    Ok(table)
}

fn value(json: &Json, place: &str, depth: usize, count: &mut usize) -> Result<Value, ArgumentsError> {
    *count += 1;
    if depth > TABLE_DEPTH_MAX || *count > TABLE_ENTRIES_MAX {
        return Err(ArgumentsError::TooLarge);
    }
    Ok(match json {
        Json::Null => return Err(ArgumentsError::Null { place: place.to_owned() }),
        Json::Bool(flag) => Value::Bool(*flag),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(n), _, _) => Value::I64(n),
            (None, None, Some(n)) => Value::F64(n),
            _ => return Err(ArgumentsError::OutOfRange { place: place.to_owned() }),
        },
        Json::String(text) => Value::text(text.clone()),
        Json::Array(items) => {
            Value::Array(items.iter().map(|item| value(item, place, depth + 1, count)).collect::<Result<_, _>>()?)
        }
        Json::Object(entries) => Value::Table(table(entries, place, depth + 1, count)?),
    })
}

pub(super) fn serialize<S: Serializer>(table: &Table, serializer: S) -> Result<S::Ok, S::Error> {
    to_json(table).serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Table, D::Error> {
    from_json(&Json::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn integers_are_long_and_numbers_double() {
        let json = json!({"b": true, "f": 1.5, "i": 5, "l": [1, "a"], "s": "x", "t": {"z": -1}});
        let table = from_json(&json).unwrap();
        let kinds: Vec<_> = table.iter().map(|(name, value)| (name, value.kind_name())).collect();
        let expected =
            [("b", "bool"), ("f", "double"), ("i", "long"), ("l", "array"), ("s", "longstr"), ("t", "table")];
        assert_eq!(kinds, expected);
        assert_eq!(Json::Object(to_json(&table)), json);
    }

    #[test]
    fn what_has_no_counterpart_is_refused_with_its_place() {
        let refusal = |json: Json| from_json(&json).unwrap_err().to_string();
        assert_eq!(refusal(json!({"a": {"b": null}})), "null_not_allowed: argument a.b is null");
        assert_eq!(refusal(json!({"a": u64::MAX})), "argument a is an integer out of range");
        assert_eq!(refusal(json!(1)), "arguments must be an object");
        assert_eq!(
            from_json(&json!({"x".repeat(256): 1})).unwrap_err(),
            ArgumentsError::NameTooLong { place: "x".repeat(256) }
        );
        let deep = (0..=TABLE_DEPTH_MAX).fold(json!(1), |inner, _| json!([inner]));
        assert_eq!(from_json(&json!({"a": deep})), Err(ArgumentsError::TooLarge));
        assert_eq!(from_json(&json!([])), Ok(Table::new()));
    }

    #[test]
    fn every_kind_of_value_has_a_json_form() {
        for (value, expected) in [
            (Value::I8(-1), json!(-1)),
            (Value::U32(7), json!(7)),
            (Value::F32(0.1), json!(0.1)),
            (Value::F64(f64::NAN), json!("NaN")),
            (Value::Decimal { scale: 2, value: 275 }, json!(2.75)),
            (Value::Timestamp(9), json!(9)),
            (Value::Void, json!("undefined")),
            (Value::Bytes(b"x".to_vec()), json!("x")),
            (Value::Text(vec![0xff]), json!("Invalid UTF-8, base64 is: /w==")),
        ] {
            assert_eq!(value_to_json(&value), expected, "{value:?}");
        }
    }

    fn any_json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            (-1e9..1e9f64).prop_map(Json::from),
            "[ -~äö]{0,8}".prop_map(Json::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
                proptest::collection::btree_map("[a-z-]{1,8}", inner, 0..4)
                    .prop_map(|entries| Json::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn json_survives_the_way_through_a_table(
            entries in proptest::collection::btree_map("[a-z-]{1,8}", any_json(), 0..6)
        ) {
            let json = Json::Object(entries.into_iter().collect());
            let table = from_json(&json).unwrap();
            prop_assert_eq!(Json::Object(to_json(&table)), json);
        }
    }
}
