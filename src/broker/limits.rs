//! Limits of vhosts and users: how many connections, queues and channels they may have.
//!
//! A negative number means no limit and is kept as it was given, because listings show it. What
//! is counted, and when, is the business of whoever asks.

use std::collections::BTreeMap;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::parameters::{NotFound, Parameter};
use super::record::{Definition, DefinitionKey, Log, Record};
use super::validation::{self, Failed, Rule};

/// What a vhost may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct VhostLimits {
    /// Client connections open at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<i64>,
    /// Queues of all kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_queues: Option<i64>,
}

impl VhostLimits {
    /// Checks an object of limits.
    pub fn from_json(value: &Json) -> Result<Self, Failed> {
        let entries = validation::object(LIMITS, VHOST_RULES, value)?;
        Ok(Self { max_connections: integer(entries, CONNECTIONS), max_queues: integer(entries, QUEUES) })
    }

    /// Parses what an operator typed.
    pub fn parse(text: &str) -> Result<Self, LimitsError> {
        Ok(Self::from_json(&validation::parse_json(text)?)?)
    }

    /// With one limit replaced, as `PUT /vhost-limits/{vhost}/{name}` does.
    pub fn with(self, name: &str, value: &Json) -> Result<Self, Failed> {
        let mut entries = self.to_json();
        entries.insert(name.to_owned(), value.clone());
        Self::from_json(&Json::Object(entries))
    }

    /// Without one limit; an unknown name changes nothing.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        match name {
            CONNECTIONS => self.max_connections = None,
            QUEUES => self.max_queues = None,
            _ => {}
        }
        self
    }

    /// Connections that are allowed; `None` is any number.
    pub fn connections(&self) -> Option<u64> {
        bound(self.max_connections)
    }

    /// Queues that are allowed; `None` is any number.
    pub fn queues(&self) -> Option<u64> {
        bound(self.max_queues)
    }

    /// The object that listings and definitions show.
    pub fn to_json(&self) -> Map<String, Json> {
        entries([(CONNECTIONS, self.max_connections), (QUEUES, self.max_queues)])
    }
}

/// What a user may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct UserLimits {
    /// Client connections open at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<i64>,
    /// Channels open at once on all connections together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_channels: Option<i64>,
}

impl UserLimits {
    /// Checks an object of limits.
    pub fn from_json(value: &Json) -> Result<Self, UserLimitsInvalid> {
        let entries = validation::object("user-limits", USER_RULES, value).map_err(UserLimitsInvalid::from)?;
        Ok(Self { max_connections: integer(entries, CONNECTIONS), max_channels: integer(entries, CHANNELS) })
    }

    /// Parses what an operator typed.
    pub fn parse(text: &str) -> Result<Self, LimitsError> {
        Ok(Self::from_json(&validation::parse_json(text)?)?)
    }

    /// These limits with those that `change` sets put over them.
    #[must_use]
    pub fn merged(self, change: Self) -> Self {
        Self {
            max_connections: change.max_connections.or(self.max_connections),
            max_channels: change.max_channels.or(self.max_channels),
        }
    }

    /// Without one limit, or without any for `all`; an unknown name changes nothing.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        match name {
            CONNECTIONS => self.max_connections = None,
            CHANNELS => self.max_channels = None,
            "all" => self = Self::default(),
            _ => {}
        }
        self
    }

    /// Connections that are allowed; `None` is any number.
    pub fn connections(&self) -> Option<u64> {
        bound(self.max_connections)
    }

    /// Channels that are allowed; `None` is any number.
    pub fn channels(&self) -> Option<u64> {
        bound(self.max_channels)
    }

    /// Whether no limit is set, not even a negative one.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The object that listings and definitions show.
    pub fn to_json(&self) -> Map<String, Json> {
        entries([(CONNECTIONS, self.max_connections), (CHANNELS, self.max_channels)])
    }
}

/// Refused limits of a user: the faults without a heading, unlike everywhere else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct UserLimitsInvalid(pub Vec<String>);

impl From<Failed> for UserLimitsInvalid {
    fn from(failed: Failed) -> Self {
        Self(failed.0)
    }
}

/// Why limits that an operator typed were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// Not JSON at all.
    #[error(transparent)]
    NotJson(#[from] validation::NotJson),
    /// Limits of a vhost with faults.
    #[error(transparent)]
    Vhost(#[from] Failed),
    /// Limits of a user with faults.
    #[error(transparent)]
    User(#[from] UserLimitsInvalid),
}

/// The limits of all vhosts.
///
/// Knows names only: whether a vhost exists is for the caller to check.
#[derive(Debug, Default)]
pub struct AllVhostLimits {
    // Taken alone, nothing else is locked inside.
    by_vhost: RwLock<BTreeMap<String, VhostLimits>>,
    log: Log,
}

impl AllVhostLimits {
    /// No limits yet; changes are recorded in `log`.
    pub fn new(log: Log) -> Self {
        Self { log, ..Self::default() }
    }

    /// Replaces all limits of a vhost.
    pub fn set(&self, vhost: &str, limits: VhostLimits) {
        let mut by_vhost = self.by_vhost.write();
        self.log.append(|| Record::Defined(Definition::VhostLimits { vhost: vhost.to_owned(), limits }));
        by_vhost.insert(vhost.to_owned(), limits);
    }

    /// Removes all limits of a vhost, an error when none were ever set.
    pub fn clear(&self, vhost: &str) -> Result<(), NotFound> {
        let mut by_vhost = self.by_vhost.write();
        if !by_vhost.contains_key(vhost) {
            return Err(NotFound);
        }
        self.log.append(|| Record::Removed(DefinitionKey::VhostLimits { vhost: vhost.to_owned() }));
        by_vhost.remove(vhost);
        Ok(())
    }

    /// The limits of a vhost: none set when it is unknown.
    pub fn get(&self, vhost: &str) -> VhostLimits {
        self.by_vhost.read().get(vhost).copied().unwrap_or_default()
    }

    /// The vhosts with limits, by name.
    pub fn list(&self) -> Vec<(String, VhostLimits)> {
        self.by_vhost.read().iter().map(|(vhost, limits)| (vhost.clone(), *limits)).collect()
    }

    /// The limits as runtime parameters, the form in which definitions carry them.
    pub fn to_parameters(&self) -> Vec<Parameter> {
        self.list()
            .into_iter()
            .map(|(vhost, limits)| Parameter {
                vhost,
                component: super::parameters::VHOST_LIMITS.into(),
                name: LIMITS.into(),
                value: Json::Object(limits.to_json()),
            })
            .collect()
    }

    /// Forgets a vhost.
    pub fn delete_vhost(&self, vhost: &str) {
        self.by_vhost.write().remove(vhost);
    }
}

const CONNECTIONS: &str = "max-connections";
const QUEUES: &str = "max-queues";
const CHANNELS: &str = "max-channels";
/// The name under which a vhost's limits are a parameter.
const LIMITS: &str = "limits";

const VHOST_RULES: &[Rule] = &[
    Rule { key: CONNECTIONS, check: validation::integer, mandatory: false },
    Rule { key: QUEUES, check: validation::integer, mandatory: false },
];

const USER_RULES: &[Rule] = &[
    Rule { key: CONNECTIONS, check: validation::integer, mandatory: false },
    Rule { key: CHANNELS, check: validation::integer, mandatory: false },
];

fn integer(entries: &Map<String, Json>, key: &str) -> Option<i64> {
    // Beyond i64 is as good as no limit.
    entries.get(key).map(|value| value.as_i64().unwrap_or(i64::MAX))
}

fn bound(limit: Option<i64>) -> Option<u64> {
    limit.and_then(|limit| u64::try_from(limit).ok())
}

fn entries<const N: usize>(limits: [(&str, Option<i64>); N]) -> Map<String, Json> {
    limits.into_iter().filter_map(|(name, limit)| Some((name.to_owned(), limit?.into()))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_negative_limit_is_none_and_stays_visible() {
        let limits = VhostLimits::parse(r#"{"max-queues":-1,"max-connections":0}"#).unwrap();
        assert_eq!(limits.queues(), None);
        assert_eq!(limits.connections(), Some(0));
        assert_eq!(Json::Object(limits.to_json()), json!({"max-connections": 0, "max-queues": -1}));
    }

    #[test]
    fn faulty_vhost_limits_are_all_named() {
        let error = VhostLimits::parse(r#"{"max-connections":"x","max-foo":1}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Validation failed\n\nUnrecognised terms [{<<\"max-foo\">>,1}] in limits\n\
             max-connections should be a number, actually was <<\"x\">>\n"
        );
        assert_eq!(VhostLimits::parse("{").unwrap_err().to_string(), "JSON decoding error. Reason: badarg");
        assert_eq!(
            VhostLimits::from_json(&json!(1)).unwrap_err().to_string(),
            "Validation failed\n\nlimits not a list 1\n"
        );
    }

    #[test]
    fn faulty_user_limits_have_no_heading() {
        let error = |text| UserLimits::parse(text).unwrap_err().to_string();
        assert_eq!(error(r#"{"max-connections":"x"}"#), "max-connections should be a number, actually was <<\"x\">>");
        assert_eq!(error(r#"{"max-foo":1}"#), "Unrecognised terms [{<<\"max-foo\">>,1}] in user-limits");
    }

    #[test]
    fn user_limits_are_merged_and_cleared_by_name() {
        let limits = UserLimits::parse(r#"{"max-connections":3}"#).unwrap();
        let limits = limits.merged(UserLimits::parse(r#"{"max-channels":-5}"#).unwrap());
        assert_eq!((limits.connections(), limits.channels()), (Some(3), None));
        assert_eq!(Json::Object(limits.without("max-connections").to_json()), json!({"max-channels": -5}));
        assert!(limits.without("all").is_empty());
    }

    #[test]
    fn one_limit_of_a_vhost_is_replaced_alone() {
        let limits = VhostLimits::parse(r#"{"max-queues":5}"#).unwrap().with("max-connections", &json!(7)).unwrap();
        assert_eq!((limits.connections(), limits.queues()), (Some(7), Some(5)));
        assert!(limits.with("max-foo", &json!(1)).is_err());
        assert_eq!(limits.without("max-queues").queues(), None);
    }

    #[test]
    fn clearing_limits_that_were_never_set_is_an_error() {
        let all = AllVhostLimits::default();
        all.set("/", VhostLimits { max_queues: Some(1), ..Default::default() });
        assert_eq!(all.get("/").queues(), Some(1));
        assert_eq!(all.to_parameters()[0].component, "vhost-limits");
        assert_eq!(all.clear("/"), Ok(()));
        assert_eq!(all.clear("/").unwrap_err().to_string(), "Parameter does not exist");
    }
}
