//! One policy: a pattern, the kinds of objects it is for, a priority and its definition.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Number, Value as Json};

use super::keys;
use crate::broker::parameters::{OPERATOR_POLICY, Parameter};
use crate::broker::pattern::Pattern;
use crate::broker::term::Term;
use crate::broker::validation::{self, Failed, NotJson, Rule};

/// The settings of a policy by key, in the order in which listings show them.
pub type Definition = BTreeMap<String, Json>;

/// Whose policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layer {
    /// Set by the users of a vhost.
    User,
    /// Set by the operator of the broker; overrides or limits the other layer.
    Operator,
}

/// What a policy is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ApplyTo {
    /// Queues of every kind, and exchanges.
    #[default]
    All,
    /// Queues of every kind.
    Queues,
    /// Classic queues only.
    ClassicQueues,
    /// Quorum queues only.
    QuorumQueues,
    /// Streams only.
    Streams,
    /// Exchanges only.
    Exchanges,
}

impl ApplyTo {
    /// The name that RabbitMQ uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Queues => "queues",
            Self::ClassicQueues => "classic_queues",
            Self::QuorumQueues => "quorum_queues",
            Self::Streams => "streams",
            Self::Exchanges => "exchanges",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::All, Self::Queues, Self::ClassicQueues, Self::QuorumQueues, Self::Streams, Self::Exchanges]
            .into_iter()
            .find(|kind| kind.as_str() == name)
    }

    fn includes(self, kind: ObjectKind) -> bool {
        match self {
            Self::All => true,
            Self::Queues => kind != ObjectKind::Exchange,
            Self::ClassicQueues => kind == ObjectKind::ClassicQueue,
            Self::QuorumQueues => kind == ObjectKind::QuorumQueue,
            Self::Streams => kind == ObjectKind::Stream,
            Self::Exchanges => kind == ObjectKind::Exchange,
        }
    }
}

impl fmt::Display for ApplyTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an object is, as far as policies tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    /// An exchange.
    Exchange,
    /// A queue of type classic.
    ClassicQueue,
    /// A queue of type quorum.
    QuorumQueue,
    /// A queue of type stream.
    Stream,
}

/// A checked policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The vhost whose objects it is for.
    pub vhost: String,
    /// Its name, one per vhost and layer.
    pub name: String,
    /// Which names it is for.
    pub pattern: Pattern,
    /// Which kinds it is for.
    pub apply_to: ApplyTo,
    /// The highest wins. Mostly whole, but RabbitMQ takes any number.
    pub priority: Number,
    /// Its settings.
    pub definition: Arc<Definition>,
}

impl Policy {
    /// Checks a policy given as a JSON object with the keys pattern, definition, priority and apply-to.
    pub fn from_json(layer: Layer, vhost: &str, name: &str, value: &Json) -> Result<Self, Failed> {
        let rules = match layer {
            Layer::User => USER_RULES,
            Layer::Operator => OPERATOR_RULES,
        };
        let entries = validation::object(name, rules, value)?;
        let text = |key| entries.get(key).and_then(Json::as_str);
        let pattern = Pattern::compile(text("pattern").unwrap_or_default())
            .map_err(|error| Failed(vec![format!("pattern should be regular expression but is invalid: {error}")]))?;
        let definition = match entries.get("definition") {
            Some(Json::Object(entries)) => {
                entries.iter().map(|(key, value)| (key.clone(), value.clone())).collect::<Definition>()
            }
            _ => Definition::new(),
        };
        Ok(Self {
            vhost: vhost.to_owned(),
            name: name.to_owned(),
            pattern,
            apply_to: text("apply-to").and_then(ApplyTo::from_name).unwrap_or_default(),
            priority: match entries.get("priority") {
                Some(Json::Number(priority)) => priority.clone(),
                _ => Number::from(0),
            },
            definition: Arc::new(definition),
        })
    }

    /// As [`Policy::from_json`], where priority and apply-to may be missing or null, as over HTTP and
    /// in definitions.
    pub fn from_parts(layer: Layer, vhost: &str, name: &str, parts: PolicyParts) -> Result<Self, Failed> {
        let mut entries = Map::new();
        entries.insert("pattern".into(), parts.pattern);
        entries.insert("definition".into(), parts.definition);
        entries.insert("priority".into(), if parts.priority.is_null() { 0.into() } else { parts.priority });
        entries.insert("apply-to".into(), if parts.apply_to.is_null() { "all".into() } else { parts.apply_to });
        Self::from_json(layer, vhost, name, &Json::Object(entries))
    }

    /// A policy as an operator types it, the definition being JSON.
    pub fn parse(
        layer: Layer,
        vhost: &str,
        name: &str,
        pattern: &str,
        definition: &str,
        priority: i64,
        apply_to: &str,
    ) -> Result<Self, PolicyError> {
        let parts = PolicyParts {
            pattern: pattern.into(),
            definition: validation::parse_json(definition)?,
            priority: priority.into(),
            apply_to: apply_to.into(),
        };
        Ok(Self::from_parts(layer, vhost, name, parts)?)
    }

    /// Whether this policy is for that object.
    ///
    /// As in RabbitMQ a policy with a key that a kind of queue does not know is not for that kind at
    /// all. Here classic queues know the keys of quorum queues.
    pub fn applies_to(&self, kind: ObjectKind, name: &str) -> bool {
        self.apply_to.includes(kind)
            && self.definition.keys().all(|key| keys::is_known_to(kind, key))
            && self.pattern.is_match(name)
    }

    /// The definition as a JSON object.
    pub fn definition_json(&self) -> Map<String, Json> {
        self.definition.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// The policy as listings and definitions show it.
    pub fn to_json(&self) -> Json {
        let mut entries = Map::new();
        entries.insert("vhost".into(), self.vhost.clone().into());
        entries.insert("name".into(), self.name.clone().into());
        entries.insert("pattern".into(), self.pattern.as_str().into());
        entries.insert("apply-to".into(), self.apply_to.as_str().into());
        entries.insert("definition".into(), Json::Object(self.definition_json()));
        entries.insert("priority".into(), Json::Number(self.priority.clone()));
        Json::Object(entries)
    }

    /// An operator policy as a runtime parameter, the form in which definitions carry it.
    pub fn to_parameter(&self) -> Parameter {
        let mut value = Map::new();
        value.insert("pattern".into(), self.pattern.as_str().into());
        value.insert("definition".into(), Json::Object(self.definition_json()));
        value.insert("priority".into(), Json::Number(self.priority.clone()));
        value.insert("apply-to".into(), self.apply_to.as_str().into());
        Parameter {
            value: Json::Object(value),
            vhost: self.vhost.clone(),
            component: OPERATOR_POLICY.into(),
            name: self.name.clone(),
        }
    }
}

/// The parts of an unchecked policy, `null` where they are missing.
#[derive(Clone, Debug, Default)]
pub struct PolicyParts {
    /// The pattern, text when well-formed.
    pub pattern: Json,
    /// The definition, an object when well-formed.
    pub definition: Json,
    /// The priority, 0 when missing.
    pub priority: Json,
    /// The kinds, all when missing.
    pub apply_to: Json,
}

/// Why a policy was refused or not found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The definition is no JSON.
    #[error(transparent)]
    NotJson(#[from] NotJson),
    /// Faults in its parts.
    #[error(transparent)]
    Invalid(#[from] Failed),
}

const USER_RULES: &[Rule] = &[
    Rule { key: "priority", check: validation::number, mandatory: true },
    Rule { key: "pattern", check: validation::regex, mandatory: true },
    Rule { key: "apply-to", check: check_apply_to, mandatory: false },
    Rule { key: "definition", check: check_definition, mandatory: true },
];

const OPERATOR_RULES: &[Rule] = &[
    Rule { key: "priority", check: validation::number, mandatory: true },
    Rule { key: "pattern", check: validation::regex, mandatory: true },
    Rule { key: "apply-to", check: check_apply_to, mandatory: false },
    Rule { key: "definition", check: check_operator_definition, mandatory: true },
];

fn check_apply_to(_key: &str, value: &Json) -> Result<(), String> {
    if value.as_str().and_then(ApplyTo::from_name).is_some() {
        return Ok(());
    }
    let given = value.as_str().map_or_else(|| Term(value).to_string(), ToOwned::to_owned);
    // The words of RabbitMQ 4, because 3.10 does not know the kinds of queues; its two blanks included.
    Err(format!(
        "apply-to '{given}' unrecognised; should be one of: 'queues', 'classic_queues',  'quorum_queues', 'streams', \
         'exchanges', or 'all'"
    ))
}

fn check_definition(_key: &str, value: &Json) -> Result<(), String> {
    keys::check_definition(Layer::User, value)
}

fn check_operator_definition(_key: &str, value: &Json) -> Result<(), String> {
    keys::check_definition(Layer::Operator, value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(definition: &str) -> Result<Policy, PolicyError> {
        Policy::parse(Layer::User, "/", "p", ".*", definition, 0, "all")
    }

    fn refusal(layer: Layer, parts: Json) -> String {
        let part = |key: &str| parts.get(key).cloned().unwrap_or_default();
        let parts = PolicyParts {
            pattern: part("pattern"),
            definition: part("definition"),
            priority: part("priority"),
            apply_to: part("apply-to"),
        };
        Policy::from_parts(layer, "/", "p", parts).expect_err("faulty").to_string()
    }

    #[test]
    fn every_fault_of_a_policy_is_named() {
        let text = refusal(
            Layer::User,
            json!({"pattern": "(", "definition": {"max-length": -1}, "priority": "x", "apply-to": "foo"}),
        );
        assert_eq!(
            text,
            "Validation failed\n\n\
             -1 is not a valid maximum length\n\
             apply-to 'foo' unrecognised; should be one of: 'queues', 'classic_queues',  'quorum_queues', 'streams', \
             'exchanges', or 'all'\n\
             pattern should be regular expression but is invalid: {\"missing )\",1}\n\
             priority should be a number, actually was <<\"x\">>\n"
        );
    }

    #[test]
    fn a_pattern_must_be_text() {
        let text = refusal(Layer::User, json!({"pattern": 1, "definition": {"max-length": 1}}));
        assert_eq!(text, "Validation failed\n\npattern should be a binary but was 1\n");
    }

    #[test]
    fn an_operator_policy_as_a_parameter_needs_its_keys() {
        let failed = Policy::from_json(Layer::Operator, "/", "bar", &json!({})).unwrap_err();
        assert_eq!(
            failed.to_string(),
            "Validation failed\n\nKey \"definition\" not found in bar\nKey \"pattern\" not found in bar\n\
             Key \"priority\" not found in bar\n"
        );
    }

    #[test]
    fn a_definition_that_is_no_json_is_refused_first() {
        assert_eq!(set("{").unwrap_err().to_string(), "JSON decoding error. Reason: badarg");
        assert_eq!(set("[1]").unwrap_err().to_string(), "Validation failed\n\ndefinition must be a dictionary: [1]\n");
    }

    #[test]
    fn a_policy_lists_with_its_keys_in_order() {
        let policy = set(r#"{"max-length":1,"expires":2}"#).unwrap();
        assert_eq!(
            policy.to_json().to_string(),
            r#"{"vhost":"/","name":"p","pattern":".*","apply-to":"all","definition":{"expires":2,"max-length":1},"priority":0}"#
        );
        assert_eq!(
            policy.to_parameter().value.to_string(),
            r#"{"pattern":".*","definition":{"expires":2,"max-length":1},"priority":0,"apply-to":"all"}"#
        );
    }

    #[test]
    fn a_policy_with_a_key_of_streams_is_for_streams_only() {
        let policy = set(r#"{"max-age":"1h","max-length-bytes":1}"#).unwrap();
        assert!(policy.applies_to(ObjectKind::Stream, "s"));
        assert!(!policy.applies_to(ObjectKind::ClassicQueue, "q"));
        assert!(!policy.applies_to(ObjectKind::QuorumQueue, "q"));
        let policy = set(r#"{"message-ttl":1}"#).unwrap();
        assert!(!policy.applies_to(ObjectKind::Stream, "s"));
    }

    #[test]
    fn classic_queues_know_the_keys_of_quorum_queues() {
        let policy = set(r#"{"delivery-limit":3}"#).unwrap();
        assert!(policy.applies_to(ObjectKind::ClassicQueue, "q"));
        let mirrored = set(r#"{"ha-mode":"all"}"#).unwrap();
        assert!(mirrored.applies_to(ObjectKind::ClassicQueue, "q"));
        assert!(!mirrored.applies_to(ObjectKind::QuorumQueue, "q"));
    }

    #[test]
    fn a_policy_is_for_the_kinds_it_names() {
        for (apply_to, kinds) in [
            ("queues", vec![ObjectKind::ClassicQueue, ObjectKind::QuorumQueue, ObjectKind::Stream]),
            ("classic_queues", vec![ObjectKind::ClassicQueue]),
            ("quorum_queues", vec![ObjectKind::QuorumQueue]),
            ("streams", vec![ObjectKind::Stream]),
            ("exchanges", vec![ObjectKind::Exchange]),
        ] {
            let policy =
                Policy::parse(Layer::User, "/", "p", "^a", r#"{"queue-leader-locator":"balanced"}"#, 0, apply_to)
                    .unwrap();
            for kind in [ObjectKind::ClassicQueue, ObjectKind::QuorumQueue, ObjectKind::Stream, ObjectKind::Exchange] {
                assert_eq!(policy.applies_to(kind, "abc"), kinds.contains(&kind), "{apply_to} {kind:?}");
                assert!(!policy.applies_to(kind, "bcd"));
            }
        }
    }
}
