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

    /// Reads the variables `TERN_SECTION_NAME` and those of RabbitMQ's container image.
    ///
    /// An empty variable counts as not set: compose files pass those on.
    pub(super) fn of_environment(variables: &[(String, String)], problems: &mut Vec<Problem>) -> Self {
        let mut layer = Self::default();
        let get =
            |name: &str| variables.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value);
        let mut known = Vec::new();
        // RabbitMQ's first, so that our own names win over them.
        let ours = table::SETTINGS.iter().map(|setting| (setting.variable(), setting));
        let theirs = RABBITMQ_VARIABLES.iter().map(|(name, key)| {
            ((*name).to_owned(), table::find(key).expect("RABBITMQ_VARIABLES name rows of the table"))
        });
        for (name, setting) in theirs.chain(ours) {
            let origin = format!("environment variable {name}");
            let value = get(&name).filter(|value| !is_service_link(&name, value));
            if setting.may_come_from_a_file() {
                let file_name = format!("{name}_FILE");
                match (value, get(&file_name)) {
                    (Some(_), Some(_)) => problems.push(Problem::twice("environment", setting.key, &name, &file_name)),
                    (None, Some(path)) => match std::fs::read_to_string(path) {
                        Ok(text) => {
                            let text = text.trim_end_matches(['\n', '\r']);
                            layer.insert(
                                setting.key,
                                Value::new(None, text),
                                format!("{path} (environment variable {file_name})"),
                            );
                        }
                        Err(error) => {
                            let origin = format!("environment variable {file_name}");
                            problems.push(Problem::of_source(
                                &origin,
                                &format!("names {path}, which cannot be read: {error}"),
                            ));
                        }
                    },
                    _ => {}
                }
                known.push(file_name);
            }
            if let Some(value) = value {
                layer.insert(setting.key, Value::new(None, value.as_str()), origin);
            }
            known.push(name);
        }
        for (name, value) in variables {
            let Some((section, rest)) = name.strip_prefix("TERN_").and_then(|rest| rest.split_once('_')) else {
                continue;
            };
            // Variables of other sections may be anybody's: a service called `tern` gets such from
            // its orchestrator.
            let section = section.to_lowercase();
            let is_ours =
                table::SETTINGS.iter().any(|setting| setting.key.split_once('.').is_some_and(|(s, _)| s == section));
            if is_ours && !known.contains(name) && !is_service_link(name, value) {
                let written = format!("{section}.{}", rest.to_lowercase());
                let nearest = alias::nearest(&written).and_then(table::find).map(table::Setting::variable);
                problems.push(Problem::unknown("environment", name, nearest.as_deref()));
            }
        }
        layer
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
