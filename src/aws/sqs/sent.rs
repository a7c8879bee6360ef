//! Attributes of messages that are sent: as inputs have them, looked at, and as messages have them.

use std::{borrow::Cow, collections::BTreeMap};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use crate::aws::{
    error::Error,
    message::{Attribute, Data, illegal_character, is_attribute_name},
};

/// Attributes of a message by name.
pub(super) type Attributes = BTreeMap<String, Sent>;

/// The value of an attribute as it is sent.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Sent {
    data_type: Option<String>,
    string_value: Option<String>,
    /// In base64.
    binary_value: Option<String>,
}

/// Attributes of a message at most.
const ATTRIBUTES_COUNT_MAX: usize = 10;
/// Octets of a type's name at most.
const TYPE_BYTES_MAX: usize = 256;

/// The attributes as a message has them, in the order of their names, or why they cannot be.
pub(super) fn check(attributes: &Attributes) -> Result<Vec<Attribute<'_>>, Error> {
    if attributes.len() > ATTRIBUTES_COUNT_MAX {
        let count = attributes.len();
        return Err(invalid(format!(
            "Number of message attributes [{count}] exceeds the allowed maximum [{ATTRIBUTES_COUNT_MAX}]."
        )));
    }
    attributes.iter().map(|(name, sent)| check_one(name, sent)).collect()
}

fn check_one<'a>(name: &'a str, sent: &'a Sent) -> Result<Attribute<'a>, Error> {
    if !is_attribute_name(name) {
        return Err(invalid(
            "Message (user) attributes name can only contain upper and lower score alphabetic characters, digits, \
             periods, hyphens and underscores."
                .to_owned(),
        ));
    }
    let lower = name.to_ascii_lowercase();
    if lower.starts_with("aws.") || lower.starts_with("amazon.") {
        return Err(invalid(
            "You can't use message attribute names beginning with 'AWS.' or 'Amazon.'. These strings \
                            are reserved for internal use."
                .to_owned(),
        ));
    }
    let Some(data_type) = sent.data_type.as_deref().filter(|data_type| !data_type.is_empty()) else {
        return Err(invalid(format!(
            "The message (user) attribute '{name}' must contain a non-empty message attribute type."
        )));
    };
    if let Some(character) = illegal_character(data_type) {
        return Err(invalid(format!(
            "Invalid binary character '#x{:X}' was found in the message attribute '{name}' type, the set of allowed \
             characters is {LEGAL}",
            u32::from(character)
        )));
    }
    let base = data_type.split('.').next().unwrap_or_default();
    if !matches!(base, "String" | "Number" | "Binary") || data_type.len() > TYPE_BYTES_MAX {
        return Err(invalid(format!(
            "The message (user) attribute '{name}' has an invalid message attribute type, the set of supported type \
             prefixes is Binary, Number, and String."
        )));
    }
    let empty =
        || invalid(format!("Message (user) attribute '{name}' must contain a non-empty value of type '{base}'."));
    let data = if base == "Binary" {
        let text = sent.binary_value.as_deref().filter(|text| !text.is_empty()).ok_or_else(empty)?;
        Data::Binary(Cow::Owned(STANDARD.decode(text).map_err(|_| empty())?))
    } else {
        let text = sent.string_value.as_deref().filter(|text| !text.is_empty()).ok_or_else(empty)?;
        if let Some(character) = illegal_character(text) {
            return Err(invalid(format!(
                "Invalid binary character '#x{:X}' was found in the message attribute '{name}' value, the set of \
                 allowed characters is {LEGAL}",
                u32::from(character)
            )));
        }
        if base == "Number" && !is_number(text) {
            return Err(invalid(format!("Can't cast the value of message (user) attribute '{name}' to a number.")));
        }
        Data::Text(text.into())
    };
    Ok(Attribute { name: name.into(), data_type: data_type.into(), data })
}

/// The characters that a text may have, as refusals say.
pub(super) const LEGAL: &str = "#x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF";

/// Whether a text is a number between -10^128 and 10^126.
fn is_number(text: &str) -> bool {
    let text = text.trim();
    let is_decimal =
        !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
    is_decimal && text.parse::<f64>().is_ok_and(|number| (-1e128..=1e126).contains(&number))
}

/// The trace header of system attributes, which is the only one that there may be.
pub(super) fn check_system(attributes: &Attributes) -> Result<Vec<Attribute<'_>>, Error> {
    for (name, sent) in attributes {
        if name != "AWSTraceHeader" {
            return Err(invalid(format!(
                "Message system attribute name '{name}' is invalid. Valid message system attribute names are \
                 [AWSTraceHeader]."
            )));
        }
        if sent.data_type.as_deref() != Some("String") || sent.string_value.as_deref().is_none_or(str::is_empty) {
            return Err(invalid(format!(
                "Message (system) attribute '{name}' must contain a non-empty value of type 'String'."
            )));
        }
    }
    let text = |sent: &'_ Sent| sent.string_value.clone().unwrap_or_default();
    Ok(attributes.iter().map(|(name, sent)| Attribute::text(name.as_str(), text(sent))).collect())
}

fn invalid(message: String) -> Error {
    Error::sqs("InvalidParameterValueException", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, data_type: &str, text: &str) -> Attributes {
        let sent = Sent {
            data_type: Some(data_type.into()),
            string_value: Some(text.into()),
            binary_value: Some(text.into()),
        };
        Attributes::from([(name.to_owned(), sent)])
    }

    #[test]
    fn attributes_have_legal_names_types_and_values() {
        for (name, data_type, text) in
            [("a", "String", "x"), ("a.b", "Number", "-1.5e3"), ("a", "Number.int", "42"), ("a", "Binary.png", "AAEC")]
        {
            assert!(check(&of(name, data_type, text)).is_ok(), "{name} {data_type} {text}");
        }
        for (name, data_type, text) in [
            ("a", "String", ""),
            ("a", "", "x"),
            ("a", "Integer", "1"),
            ("a", "Number", "one"),
            ("a", "Number", "1e127"),
            ("a", "Number", "inf"),
            ("a", "Binary", "not base64"),
            ("AWS.a", "String", "x"),
            ("amazon.a", "String", "x"),
            ("a b", "String", "x"),
            ("a", "String", "\u{0}"),
            ("a", "String.\u{1}", "x"),
            ("a", &*format!("String.{}", "x".repeat(250)), "x"),
            (&*"x".repeat(257), "String", "x"),
            ("a", "Number", "-1.1e128"),
            ("a", "Number", "0x1F"),
        ] {
            assert!(check(&of(name, data_type, text)).is_err(), "{name} {data_type} {text}");
        }
        let many: Attributes = (0..11).flat_map(|n| of(&format!("a{n}"), "String", "x")).collect();
        assert!(check(&many).is_err());
    }

    #[test]
    fn an_empty_text_is_refused_as_aws_does() {
        let error = check(&of("ErrorDetails", "String", "")).unwrap_err();
        let expected = "Message (user) attribute 'ErrorDetails' must contain a non-empty value of type 'String'.";
        assert_eq!(error.message, expected);
    }

    #[test]
    fn only_the_trace_header_is_a_system_attribute() {
        assert!(check_system(&of("AWSTraceHeader", "String", "Root=1")).is_ok());
        assert!(check_system(&of("AWSTraceHeader", "Number", "1")).is_err());
        assert!(check_system(&of("Other", "String", "x")).is_err());
    }
}
