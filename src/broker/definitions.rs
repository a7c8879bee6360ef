//! Definitions in RabbitMQ's format: the file that carries users, vhosts, policies and topology.
//!
//! Reading is tolerant of what versions of RabbitMQ differ in (tags as text, missing fields, exports
//! of one vhost, unknown fields) and strict about the rest: the error names the place. Nothing is
//! applied here. Writing keeps RabbitMQ's order of sections and fields.

pub mod arguments;

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value as Json};

use super::access::{
    HashAlgorithm, PasswordHash, PermissionEntry, Permissions, TopicPermissionEntry, TopicPermissions, User, parse_tags,
};
use super::limits::UserLimits;
use super::policy::{Layer, Policy, PolicyParts};
use super::validation::Failed;
use super::value::Table;

/// A whole definitions file.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Definitions {
    /// Version of the broker that wrote the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rabbit_version: Option<String>,
    /// The same; newer versions write only this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rabbitmq_version: Option<String>,
    /// Product that wrote the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product_name: Option<String>,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product_version: Option<String>,
    /// Users with their passwords.
    pub users: Vec<UserDefinition>,
    /// Vhosts.
    pub vhosts: Vec<VhostDefinition>,
    /// What users may do on vhosts.
    pub permissions: Vec<PermissionDefinition>,
    /// What users may do with topics.
    pub topic_permissions: Vec<TopicPermissionDefinition>,
    /// Runtime parameters, among them operator policies and vhost limits.
    pub parameters: Vec<ParameterDefinition>,
    /// Parameters without a vhost.
    pub global_parameters: Vec<GlobalParameterDefinition>,
    /// Policies.
    pub policies: Vec<PolicyDefinition>,
    /// Durable queues.
    pub queues: Vec<QueueDefinition>,
    /// Durable exchanges, the predeclared ones apart.
    pub exchanges: Vec<ExchangeDefinition>,
    /// Bindings between durable objects.
    pub bindings: Vec<BindingDefinition>,
}

impl Definitions {
    /// Reads a file. An empty one has no definitions.
    pub fn parse(bytes: &[u8]) -> Result<Self, DefinitionsError> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        if bytes.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let json = serde_json::from_slice(bytes).map_err(|error| DefinitionsError::NotJson {
            line: error.line(),
            column: error.column(),
            reason: without_place(&error),
        })?;
        Self::from_json(json)
    }

    /// Reads definitions from parsed JSON.
    pub fn from_json(json: Json) -> Result<Self, DefinitionsError> {
        let Json::Object(mut sections) = json else { return Err(DefinitionsError::NotAnObject) };
        let text = |sections: &Map<String, Json>, key: &str| sections.get(key)?.as_str().map(ToOwned::to_owned);
        Ok(Self {
            rabbit_version: text(&sections, "rabbit_version"),
            rabbitmq_version: text(&sections, "rabbitmq_version"),
            product_name: text(&sections, "product_name"),
            product_version: text(&sections, "product_version"),
            users: section(&mut sections, "users")?,
            vhosts: section(&mut sections, "vhosts")?,
            permissions: section(&mut sections, "permissions")?,
            topic_permissions: section(&mut sections, "topic_permissions")?,
            parameters: section(&mut sections, "parameters")?,
            global_parameters: section(&mut sections, "global_parameters")?,
            policies: section(&mut sections, "policies")?,
            queues: section(&mut sections, "queues")?,
            exchanges: section(&mut sections, "exchanges")?,
            bindings: section(&mut sections, "bindings")?,
        })
    }

    /// The version of the broker that wrote the file.
    pub fn version(&self) -> Option<&str> {
        self.rabbitmq_version.as_deref().or(self.rabbit_version.as_deref())
    }

    /// Refuses objects without a vhost: the file is an export of one vhost and must be imported
    /// into one.
    pub fn check_vhosts(&self) -> Result<(), DefinitionsError> {
        fn check<'a>(
            section: &'static str,
            items: impl Iterator<Item = (Option<&'a String>, &'a str)>,
        ) -> Result<(), DefinitionsError> {
            for (index, (vhost, name)) in items.enumerate() {
                if vhost.is_none() {
                    let reason = "has no vhost: exports of a single vhost must be imported into a vhost".to_owned();
                    return Err(DefinitionsError::Item { section, index, name: Some(name.to_owned()), reason });
                }
            }
            Ok(())
        }
        check("parameters", self.parameters.iter().map(|of| (of.vhost.as_ref(), of.name.as_str())))?;
        check("policies", self.policies.iter().map(|of| (of.vhost.as_ref(), of.name.as_str())))?;
        check("queues", self.queues.iter().map(|of| (of.vhost.as_ref(), of.name.as_str())))?;
        check("exchanges", self.exchanges.iter().map(|of| (of.vhost.as_ref(), of.name.as_str())))?;
        check("bindings", self.bindings.iter().map(|of| (of.vhost.as_ref(), of.source.as_str())))
    }

    /// Puts everything that belongs to a vhost into that one and drops the rest, as an import into
    /// one vhost does.
    #[must_use]
    pub fn into_vhost(mut self, vhost: &str) -> Self {
        let moved = || Some(vhost.to_owned());
        self.parameters.iter_mut().for_each(|of| of.vhost = moved());
        self.policies.iter_mut().for_each(|of| of.vhost = moved());
        self.queues.iter_mut().for_each(|of| of.vhost = moved());
        self.exchanges.iter_mut().for_each(|of| of.vhost = moved());
        self.bindings.iter_mut().for_each(|of| of.vhost = moved());
        Self {
            users: Vec::new(),
            vhosts: Vec::new(),
            permissions: Vec::new(),
            topic_permissions: Vec::new(),
            global_parameters: Vec::new(),
            ..self
        }
    }

    /// The file.
    pub fn to_json(&self) -> Json {
        serde_json::to_value(self).expect("definitions have text keys only")
    }

    /// The export of one vhost: what belongs to it, queues, exchanges and bindings without its name.
    pub fn to_vhost_json(&self, vhost: &str) -> Json {
        let mut own = self.clone();
        let is_own = |of: &Option<String>| of.as_deref() == Some(vhost);
        own.parameters.retain(|of| is_own(&of.vhost));
        own.policies.retain(|of| is_own(&of.vhost));
        own.queues.retain(|of| is_own(&of.vhost));
        own.exchanges.retain(|of| is_own(&of.vhost));
        own.bindings.retain(|of| is_own(&of.vhost));
        own.queues.iter_mut().for_each(|of| of.vhost = None);
        own.exchanges.iter_mut().for_each(|of| of.vhost = None);
        own.bindings.iter_mut().for_each(|of| of.vhost = None);
        let Json::Object(mut sections) = own.to_json() else { return Json::Null };
        sections.retain(|key, _| {
            !matches!(
                key.as_str(),
                "rabbitmq_version"
                    | "product_name"
                    | "product_version"
                    | "users"
                    | "vhosts"
                    | "permissions"
                    | "topic_permissions"
                    | "global_parameters"
            )
        });
        Json::Object(sections)
    }
}

/// Why definitions were refused. Nothing was read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DefinitionsError {
    /// Not JSON.
    #[error("not JSON at line {line} column {column}: {reason}")]
    NotJson {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What the parser says.
        reason: String,
    },
    /// JSON, but no object.
    #[error("definitions must be a JSON object")]
    NotAnObject,
    /// A section that is no list.
    #[error("{section} must be a list")]
    Section {
        /// Its key.
        section: &'static str,
    },
    /// A faulty item.
    #[error("{section}[{index}]{} {reason}", Named(.name))]
    Item {
        /// The key of its section.
        section: &'static str,
        /// Its place there, from 0.
        index: usize,
        /// Its name, if it has one.
        name: Option<String>,
        /// What is wrong.
        reason: String,
    },
}

struct Named<'a>(&'a Option<String>);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(f, " \"{name}\":"),
            None => f.write_str(":"),
        }
    }
}

/// A user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UserDefinition {
    /// The name to log in with.
    pub name: String,
    /// Salt and digest in base64, or the text of an argon2id hash; empty or missing without a password.
    #[serde(default)]
    pub password_hash: String,
    /// How the password was digested; missing in files from before RabbitMQ 3.6. RabbitMQ does not know
    /// `argon2id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hashing_algorithm: Option<String>,
    /// A password in clear, in files written by hand. Never exported.
    #[serde(default, skip_serializing)]
    pub password: Option<String>,
    /// Roles.
    #[serde(default, deserialize_with = "tags")]
    pub tags: Vec<String>,
    /// Limits by name.
    #[serde(default, deserialize_with = "object")]
    pub limits: Map<String, Json>,
}

impl UserDefinition {
    /// The user, or what is wrong. `version` is that of the file: before 3.6 hashes were MD5.
    pub fn to_user(&self, version: Option<&str>) -> Result<User, String> {
        let algorithm = match self.hashing_algorithm.as_deref() {
            Some(name) => HashAlgorithm::from_name(name).ok_or_else(|| format!("unknown hashing algorithm {name}"))?,
            None if version.is_some_and(is_before_3_6) => HashAlgorithm::Md5,
            None => HashAlgorithm::default(),
        };
        let password = match &self.password {
            Some(_) if !self.password_hash.is_empty() => {
                return Err("both password and password_hash are provided".into());
            }
            Some(password) => PasswordHash::random(HashAlgorithm::default(), password.as_bytes()),
            None => PasswordHash::from_text(algorithm, &self.password_hash).map_err(|error| error.to_string())?,
        };
        let limits = UserLimits::from_json(&Json::Object(self.limits.clone())).map_err(|error| error.to_string())?;
        Ok(User { name: self.name.clone(), password, tags: self.tags.clone(), limits })
    }
}

impl From<&User> for UserDefinition {
    fn from(user: &User) -> Self {
        Self {
            name: user.name.clone(),
            password_hash: user.password.to_text(),
            hashing_algorithm: Some(user.password.algorithm().as_str().to_owned()),
            password: None,
            tags: user.tags.clone(),
            limits: user.limits.to_json(),
        }
    }
}

/// A vhost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VhostDefinition {
    /// Its name.
    pub name: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "known_text")]
    pub description: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "tags")]
    pub tags: Vec<String>,
    /// The type of queues that are declared without one.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "known_text")]
    pub default_queue_type: Option<String>,
    /// The three above once more, in newer files.
    #[serde(default, skip_serializing_if = "Map::is_empty", deserialize_with = "object")]
    pub metadata: Map<String, Json>,
    /// Limits by name, in newer files.
    #[serde(default, skip_serializing_if = "Map::is_empty", deserialize_with = "object")]
    pub limits: Map<String, Json>,
    /// Whether messages are copied to the trace exchange.
    #[serde(default, skip_serializing)]
    pub tracing: bool,
}

impl VhostDefinition {
    /// The description, wherever the file has it.
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref().or_else(|| self.metadata.get("description")?.as_str())
    }

    /// The tags, wherever the file has them.
    pub fn tags(&self) -> Vec<String> {
        if !self.tags.is_empty() {
            return self.tags.clone();
        }
        self.metadata.get("tags").and_then(|value| tags(value).ok()).unwrap_or_default()
    }

    /// The default type of queues, wherever the file has it.
    pub fn default_queue_type(&self) -> Option<&str> {
        let found = self.default_queue_type.as_deref().or_else(|| self.metadata.get("default_queue_type")?.as_str());
        found.filter(|name| *name != UNDEFINED)
    }
}

/// Permissions of a user on a vhost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermissionDefinition {
    /// Whose.
    pub user: String,
    /// Where.
    pub vhost: String,
    /// Pattern of names.
    pub configure: String,
    /// Pattern of names.
    pub write: String,
    /// Pattern of names.
    pub read: String,
}

impl PermissionDefinition {
    /// The permissions alone.
    pub fn permissions(&self) -> Permissions {
        Permissions { configure: self.configure.clone(), write: self.write.clone(), read: self.read.clone() }
    }
}

impl From<PermissionEntry> for PermissionDefinition {
    fn from(entry: PermissionEntry) -> Self {
        let Permissions { configure, write, read } = entry.permissions;
        Self { user: entry.user, vhost: entry.vhost, configure, write, read }
    }
}

/// Permissions of a user for the topics of an exchange.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicPermissionDefinition {
    /// Whose.
    pub user: String,
    /// Where.
    pub vhost: String,
    /// On which exchange.
    pub exchange: String,
    /// Pattern of routing keys.
    pub write: String,
    /// Pattern of routing keys.
    pub read: String,
}

impl TopicPermissionDefinition {
    /// The permissions alone.
    pub fn permissions(&self) -> TopicPermissions {
        TopicPermissions { write: self.write.clone(), read: self.read.clone() }
    }
}

impl From<TopicPermissionEntry> for TopicPermissionDefinition {
    fn from(entry: TopicPermissionEntry) -> Self {
        let TopicPermissions { write, read } = entry.permissions;
        Self { user: entry.user, vhost: entry.vhost, exchange: entry.exchange, write, read }
    }
}

/// A runtime parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParameterDefinition {
    /// The value.
    pub value: Json,
    /// Where it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vhost: Option<String>,
    /// Whose parameter.
    pub component: String,
    /// Its name.
    pub name: String,
}

impl From<super::parameters::Parameter> for ParameterDefinition {
    fn from(parameter: super::parameters::Parameter) -> Self {
        Self {
            value: parameter.value,
            vhost: Some(parameter.vhost),
            component: parameter.component,
            name: parameter.name,
        }
    }
}

/// A parameter without a vhost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GlobalParameterDefinition {
    /// Its name.
    pub name: String,
    /// The value.
    pub value: Json,
}

/// A policy, checked when it is applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyDefinition {
    /// Where it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vhost: Option<String>,
    /// Its name.
    pub name: String,
    /// Which names it is for.
    #[serde(default)]
    pub pattern: Json,
    /// Which kinds it is for.
    #[serde(rename = "apply-to", default)]
    pub apply_to: Json,
    /// Its settings.
    #[serde(default)]
    pub definition: Json,
    /// The highest wins.
    #[serde(default)]
    pub priority: Json,
}

impl PolicyDefinition {
    /// The policy for a vhost, or its faults.
    pub fn to_policy(&self, layer: Layer, vhost: &str) -> Result<Policy, Failed> {
        let parts = PolicyParts {
            pattern: self.pattern.clone(),
            definition: self.definition.clone(),
            priority: self.priority.clone(),
            apply_to: self.apply_to.clone(),
        };
        Policy::from_parts(layer, vhost, &self.name, parts)
    }
}

impl From<&Policy> for PolicyDefinition {
    fn from(policy: &Policy) -> Self {
        Self {
            vhost: Some(policy.vhost.clone()),
            name: policy.name.clone(),
            pattern: policy.pattern.as_str().into(),
            apply_to: policy.apply_to.as_str().into(),
            definition: Json::Object(policy.definition_json()),
            priority: Json::Number(policy.priority.clone()),
        }
    }
}

/// A queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueueDefinition {
    /// Its name.
    pub name: String,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vhost: Option<String>,
    /// Survives a restart.
    #[serde(default = "yes")]
    pub durable: bool,
    /// Goes with its last consumer.
    #[serde(default)]
    pub auto_delete: bool,
    /// Its arguments.
    #[serde(default, with = "arguments")]
    pub arguments: Table,
    /// The queue that takes its dead messages without being asked to; other brokers do not know of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_queue: Option<String>,
    /// What is known of it beside its declaration. RabbitMQ does not know it.
    #[serde(default, with = "arguments", skip_serializing_if = "Table::is_empty")]
    pub properties: Table,
}

/// An exchange.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExchangeDefinition {
    /// Its name.
    pub name: String,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vhost: Option<String>,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Survives a restart.
    #[serde(default = "yes")]
    pub durable: bool,
    /// Goes with its last binding.
    #[serde(default)]
    pub auto_delete: bool,
    /// Takes messages from other exchanges only.
    #[serde(default)]
    pub internal: bool,
    /// Its arguments.
    #[serde(default, with = "arguments")]
    pub arguments: Table,
    /// What layers above keep with it.
    #[serde(default, with = "arguments", skip_serializing_if = "Table::is_empty")]
    pub notes: Table,
}

/// A binding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BindingDefinition {
    /// The exchange.
    pub source: String,
    /// Where both ends are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vhost: Option<String>,
    /// The queue or exchange.
    pub destination: String,
    /// Which of the two.
    pub destination_type: DestinationKind,
    /// The key.
    #[serde(default)]
    pub routing_key: String,
    /// Its arguments.
    #[serde(default, with = "arguments")]
    pub arguments: Table,
}

/// The kind of object that a binding leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DestinationKind {
    /// A queue.
    Queue,
    /// An exchange.
    Exchange,
}

/// How files say that there is no value.
const UNDEFINED: &str = "undefined";

fn yes() -> bool {
    true
}

fn section<T: DeserializeOwned>(
    sections: &mut Map<String, Json>,
    section: &'static str,
) -> Result<Vec<T>, DefinitionsError> {
    let items = match sections.remove(section) {
        None | Some(Json::Null) => return Ok(Vec::new()),
        Some(Json::Array(items)) => items,
        Some(_) => return Err(DefinitionsError::Section { section }),
    };
    let read = |(index, item): (usize, Json)| {
        let text = |key: &str| item.get(key).and_then(Json::as_str).map(ToOwned::to_owned);
        let name = text("name").or_else(|| text("source")).or_else(|| text("user"));
        serde_json::from_value(item).map_err(|error| DefinitionsError::Item {
            section,
            index,
            name,
            reason: without_place(&error),
        })
    };
    items.into_iter().enumerate().map(read).collect()
}

/// The text of an error without the line and column, which are told apart or mean nothing.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((reason, _)) => reason.to_owned(),
        None => text,
    }
}

/// Tags as a list, or as text with commas.
fn tags<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "tags must be a list of text, or text with commas")]
    enum Tags {
        List(Vec<String>),
        Text(String),
    }
    Ok(match Option::<Tags>::deserialize(deserializer)? {
        None => Vec::new(),
        Some(Tags::List(tags)) => tags.into_iter().map(|tag| tag.trim().to_owned()).collect(),
        Some(Tags::Text(text)) if text == UNDEFINED => Vec::new(),
        Some(Tags::Text(text)) => parse_tags(&text),
    })
}

/// An object; an empty list or nothing is an empty one.
fn object<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Map<String, Json>, D::Error> {
    match Json::deserialize(deserializer)? {
        Json::Object(entries) => Ok(entries),
        Json::Null => Ok(Map::new()),
        Json::Array(items) if items.is_empty() => Ok(Map::new()),
        _ => Err(serde::de::Error::custom("expected an object")),
    }
}

/// Text, where `undefined` and nothing are none.
fn known_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.filter(|text| text != UNDEFINED))
}

/// Whether a version, such as 3.5.7, is older than 3.6.
fn is_before_3_6(version: &str) -> bool {
    let mut parts = version.split(['.', '-', '+']).map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < (3, 6)
}

#[cfg(test)]
mod tests;
