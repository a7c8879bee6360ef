//! The places that settings come from, each as a source for the `config` crate.
//!
//! A layer brings its values to the keys of the table and writes on each where it came from, so
//! that the merged value still knows whether a file, a variable or a flag set it.

use std::collections::BTreeMap;
use std::path::Path;

use config::{ConfigError, FileFormat, Format as _, Map, Source, Value, ValueKind};

use super::alias::{self, Entry};
use super::{Flag, Problem, table};

/// The values of one place under the keys of the table, each with its origin.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer {
    values: Map<String, Value>,
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.values.clone())
    }
}

impl Layer {
    fn insert(&mut self, key: &str, value: Value, origin: String) {
        self.values.insert(key.to_owned(), Value::new(Some(&origin), value.kind));
    }

    fn insert_all(&mut self, entries: BTreeMap<&'static str, Entry>, origin: &str) {
        for (key, entry) in entries {
            let origin = if entry.written == key { origin.to_owned() } else { format!("{origin}, {}", entry.written) };
            self.insert(key, entry.value, origin);
        }
    }

    /// Reads a TOML file.
    pub(super) fn of_file(path: &Path, problems: &mut Vec<Problem>) -> Self {
        let mut layer = Self::default();
        let origin = path.display().to_string();
        if path.extension().is_some_and(|extension| extension == "conf") {
            let advice = "rabbitmq.conf files are not read; the same names are accepted in a TOML file";
            problems.push(Problem::of_source(&origin, advice));
            return layer;
        }
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                problems.push(Problem::of_source(&origin, &format!("cannot be read: {error}")));
                return layer;
            }
        };
        match FileFormat::Toml.parse(None, &text) {
            Ok(tree) => {
                let mut entries = Vec::new();
                flatten(String::new(), tree, &mut entries);
                layer.insert_all(alias::translate(entries, &origin, problems), &origin);
            }
            Err(error) => {
                problems.push(Problem::of_source(&origin, &format!("is not TOML: {}", error.to_string().trim_end())))
            }
        }
        layer
    }

    /// Reads the variables `TERN_SECTION_NAME`, those of other names (`TERN_DEFINITIONS_FILE`) and
    /// those of RabbitMQ's container image.
    ///
    /// An empty variable counts as not set: compose files pass those on.
    pub(super) fn of_environment(variables: &[(String, String)], problems: &mut Vec<Problem>) -> Self {
        let mut layer = Self::default();
        // Weakest first: what is inserted later wins.
        let image = RABBITMQ_VARIABLES.iter().map(|(name, key)| ((*name).to_owned(), *key));
        let others = alias::NAMES.iter().map(|(name, _)| (alias::variable(name), *name));
        let ours = table::SETTINGS.iter().map(|setting| (alias::variable(setting.key), setting.key));
        let mut known = Vec::new();
        for (name, written) in image.chain(others).chain(ours) {
            if let Some((value, origin)) = Self::variable(variables, &name, written, &mut known, problems)
                && let Some((key, value)) = alias::single(written, Value::new(None, value))
            {
                layer.insert(key, value, origin);
            }
            known.push(name);
        }
        for (name, value) in variables {
            let Some(rest) = name.strip_prefix("TERN_") else { continue };
            if known.contains(name) || is_service_link(name, value) || name == "TERN_CONFIG" {
                continue;
            }
            let section = rest.split('_').next().unwrap_or_default().to_lowercase();
            let is_ours = table::SETTINGS.iter().any(|row| row.key.split('.').next() == Some(section.as_str()));
            let written = rest.to_lowercase().replacen('_', ".", 1);
            let nearest = alias::nearest_variable(name);
            // A name of no section of ours may be anybody's, such as a version set by an image:
            // only one that is a slip away from ours is taken for a mistake.
            if is_ours {
                let nearest = nearest.or_else(|| alias::nearest(&written).map(alias::variable));
                problems.push(Problem::unknown("environment", name, nearest.as_deref()));
            } else if nearest.is_some() {
                problems.push(Problem::unknown("environment", name, nearest.as_deref()));
            }
        }
        layer
    }

    /// The value of one variable, or of the file that `NAME_FILE` names, with its origin.
    fn variable(
        variables: &[(String, String)],
        name: &str,
        written: &str,
        known: &mut Vec<String>,
        problems: &mut Vec<Problem>,
    ) -> Option<(String, String)> {
        let get = |name: &str| {
            let found = variables.iter().find(|(key, value)| key == name && !value.is_empty());
            found.map(|(_, value)| value).filter(|value| !is_service_link(name, value))
        };
        let value = get(name).map(|value| (value.clone(), format!("environment variable {name}")));
        let setting = alias::single(written, Value::default()).and_then(|(key, _)| table::find(key))?;
        if !setting.may_come_from_a_file() {
            return value;
        }
        let file_name = format!("{name}_FILE");
        let path = get(&file_name);
        known.push(file_name.clone());
        match (value, path) {
            (value, None) => value,
            (Some(_), Some(_)) => {
                problems.push(Problem::twice("environment", setting.key, name, &file_name));
                None
            }
            (None, Some(path)) => match std::fs::read_to_string(path) {
                Ok(text) => {
                    let text = text.trim_end_matches(['\n', '\r']).to_owned();
                    Some((text, format!("{path}, environment variable {file_name}")))
                }
                Err(error) => {
                    let origin = format!("environment variable {file_name}");
                    problems.push(Problem::of_source(&origin, &format!("names {path}, which cannot be read: {error}")));
                    None
                }
            },
        }
    }

    /// Takes the flags of the command line.
    pub(super) fn of_flags(flags: &[Flag], problems: &mut Vec<Problem>) -> Self {
        let mut layer = Self::default();
        for flag in flags {
            let origin = format!("flag {}", flag.name);
            let entries = vec![(flag.key.clone(), Value::new(None, flag.value.as_str()))];
            for (key, entry) in alias::translate(entries, &origin, problems) {
                layer.insert(key, entry.value, origin.clone());
            }
        }
        layer
    }
}

/// What RabbitMQ itself reads from the environment.
const RABBITMQ_VARIABLES: &[(&str, &str)] = &[
    ("RABBITMQ_DEFAULT_USER", "broker.default_user"),
    ("RABBITMQ_DEFAULT_PASS", "broker.default_pass"),
    ("RABBITMQ_DEFAULT_VHOST", "broker.default_vhost"),
    ("RABBITMQ_NODENAME", "broker.node_name"),
];

/// Whether a variable is one of those that Kubernetes sets for a service, here one named like us:
/// `TERN_AMQP_PORT=tcp://10.0.0.7:5672`, `TERN_AMQP_SERVICE_HOST`, `TERN_AMQP_PORT_5672_TCP_ADDR`.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let has_part = |part: &str| name.ends_with(part) || name.contains(&format!("{part}_"));
    has_part("_SERVICE_HOST")
        || has_part("_SERVICE_PORT")
        || (has_part("_PORT") && (is_url || ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| has_part(protocol))))
}

fn flatten(prefix: String, tree: Map<String, Value>, entries: &mut Vec<(String, Value)>) {
    for (name, value) in tree {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value.kind {
            ValueKind::Table(tree) => flatten(key, tree, entries),
            kind => entries.push((key, Value::new(None, kind))),
        }
    }
}
