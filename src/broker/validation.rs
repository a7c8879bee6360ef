//! Checks of settings that arrive as JSON, with RabbitMQ's texts for what is wrong.
//!
//! A check reports every fault at once, in the order in which RabbitMQ lists them: unknown keys
//! first, then the keys from the last of the list of rules to the first.

use std::fmt;

use serde_json::{Map, Value as Json};

use super::term::{Pairs, Term};

/// The faults of a refused setting.
///
/// Prints as RabbitMQ does: a heading, an empty line, one line a fault, and a final newline.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Validation failed\n\n{}", Lines(.0))]
pub struct Failed(pub Vec<String>);

struct Lines<'a>(&'a [String]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// Text that is no JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("JSON decoding error. Reason: badarg")]
pub struct NotJson;

/// Parses JSON that an operator typed.
pub fn parse_json(text: &str) -> Result<Json, NotJson> {
    serde_json::from_str(text).map_err(|_| NotJson)
}

/// Checks one value; the name of its key is given for the text.
pub type Check = fn(&str, &Json) -> Result<(), String>;

/// What is known about one key.
pub struct Rule {
    /// The key.
    pub key: &'static str,
    /// The check of its value.
    pub check: Check,
    /// Whether its absence is a fault.
    pub mandatory: bool,
}

/// Checks an object called `name` against rules.
pub fn object<'a>(name: &str, rules: &[Rule], value: &'a Json) -> Result<&'a Map<String, Json>, Failed> {
    let Json::Object(entries) = value else {
        return Err(Failed(vec![format!("{name} not a list {}", Term(value))]));
    };
    let mut faults = Vec::new();
    let mut unknown: Vec<(&str, &Json)> = entries
        .iter()
        .filter(|(key, _)| rules.iter().all(|rule| rule.key != key.as_str()))
        .map(|(key, value)| (key.as_str(), value))
        .collect();
    if !unknown.is_empty() {
        unknown.sort_by_key(|(key, _)| *key);
        faults.push(format!("Unrecognised terms {} in {name}", Pairs(&unknown)));
    }
    for rule in rules.iter().rev() {
        match entries.get(rule.key) {
            Some(value) => faults.extend((rule.check)(rule.key, value).err()),
            None if rule.mandatory => faults.push(format!("Key \"{}\" not found in {name}", rule.key)),
            None => {}
        }
    }
    if faults.is_empty() { Ok(entries) } else { Err(Failed(faults)) }
}

/// Any number.
pub fn number(key: &str, value: &Json) -> Result<(), String> {
    if value.is_number() { Ok(()) } else { Err(format!("{key} should be a number, actually was {}", Term(value))) }
}

/// A whole number.
pub fn integer(key: &str, value: &Json) -> Result<(), String> {
    if value.is_i64() || value.is_u64() {
        Ok(())
    } else {
        Err(format!("{key} should be a number, actually was {}", Term(value)))
    }
}

/// A regular expression.
pub fn regex(key: &str, value: &Json) -> Result<(), String> {
    let Json::String(source) = value else {
        return Err(format!("{key} should be a binary but was {}", Term(value)));
    };
    match super::pattern::Pattern::compile(source) {
        Ok(_) => Ok(()),
        Err(super::pattern::PatternError::TooLong) => {
            Err(format!("{key} must not exceed {} bytes", super::pattern::PATTERN_BYTES_MAX))
        }
        Err(error) => Err(format!("{key} should be regular expression but is invalid: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const RULES: &[Rule] = &[
        Rule { key: "priority", check: number, mandatory: true },
        Rule { key: "pattern", check: regex, mandatory: true },
        Rule { key: "size", check: integer, mandatory: false },
    ];

    fn faults(value: &Json) -> Vec<String> {
        object("bar", RULES, value).expect_err("faulty").0
    }

    #[test]
    fn missing_keys_are_listed_from_the_last_rule() {
        assert_eq!(faults(&json!({})), ["Key \"pattern\" not found in bar", "Key \"priority\" not found in bar"]);
    }

    #[test]
    fn unknown_keys_come_first() {
        let value = json!({"priority": "x", "pattern": ".*", "max-foo": 1});
        assert_eq!(
            faults(&value),
            ["Unrecognised terms [{<<\"max-foo\">>,1}] in bar", "priority should be a number, actually was <<\"x\">>"]
        );
    }

    #[test]
    fn faults_print_as_lines_below_a_heading() {
        let failed = Failed(vec!["component foo not found".into()]);
        assert_eq!(failed.to_string(), "Validation failed\n\ncomponent foo not found\n");
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert_eq!(faults(&json!(1)), ["bar not a list 1"]);
    }

    #[test]
    fn a_fraction_is_a_number_but_no_integer() {
        let value = json!({"priority": 1.5, "pattern": "", "size": 1.5});
        assert_eq!(faults(&value), ["size should be a number, actually was 1.5"]);
    }
}
