//! Other names of settings: rabbitmq.conf's, inside the TOML file and `--set`.
//!
//! People carry these over from RabbitMQ. Each becomes one of our own settings here, so nothing
//! behind this module knows that they exist.

use std::collections::BTreeMap;

use config::{Value, ValueKind};

use super::{Problem, table, value};

/// Names that only stand for another one.
pub(super) const NAMES: &[(&str, &str)] = &[
    ("anonymous_login_user", "amqp.anonymous_login_user"),
    ("channel_max", "amqp.channel_max"),
    ("channel_max_per_node", "broker.channels_count_max"),
    ("cluster_exchange_limit", "broker.exchanges_count_max"),
    ("cluster_name", "broker.cluster_name"),
    ("cluster_queue_limit", "broker.queues_count_max"),
    ("connection_max", "broker.connections_count_max"),
    ("consumer_max_per_channel", "amqp.consumers_per_channel_max"),
    ("consumer_timeout", "broker.consumer_timeout_ms"),
    ("default_pass", "broker.default_pass"),
    ("default_permissions.configure", "broker.default_permissions_configure"),
    ("default_permissions.read", "broker.default_permissions_read"),
    ("default_permissions.write", "broker.default_permissions_write"),
    ("default_queue_type", "broker.default_queue_type"),
    ("default_user", "broker.default_user"),
    ("default_vhost", "broker.default_vhost"),
    ("definitions.file", "server.definitions_file"),
    ("definitions.local.path", "server.definitions_file"),
    ("disk_free_limit.absolute", "broker.disk_free_limit"),
    ("disk_free_limit.relative", "broker.disk_free_limit"),
    ("frame_max", "amqp.frame_max"),
    ("handshake_timeout", "amqp.handshake_timeout_ms"),
    ("heartbeat", "amqp.heartbeat_secs"),
    ("load_definitions", "server.definitions_file"),
    ("log.console.formatter", "log.format"),
    ("log.console.level", "log.level"),
    ("max_connections", "broker.connections_count_max"),
    ("max_message_size", "broker.max_message_bytes"),
    ("password_hashing_module", "broker.password_hashing"),
    ("product.name", "amqp.product"),
    ("product.version", "amqp.product_version"),
    ("proxy_protocol", "server.proxy_protocol_trusted"),
    ("stomp.login_timeout", "stomp.login_timeout_ms"),
    ("vhost_max", "broker.vhosts_count_max"),
    ("vm_memory_high_watermark.absolute", "broker.memory_high_watermark"),
    ("vm_memory_high_watermark.relative", "broker.memory_high_watermark"),
    ("web_stomp.tcp.port", "web_stomp.port"),
];

/// Names with a variable last part that together make one list.
const GROUPS: &[(&str, &str)] = &[
    ("auth_mechanisms.", "amqp.mechanisms"),
    ("default_user_tags.", "broker.default_user_tags"),
    ("listeners.tcp.", "amqp.listeners"),
    ("loopback_users.", "broker.loopback_users"),
    ("stomp.listeners.tcp.", "stomp.listeners"),
];

/// Names of whole groups that may be set to nothing, as in `listeners.tcp = none`.
const GROUPS_OFF: &[(&str, &str)] = &[
    ("default_user_tags", "broker.default_user_tags"),
    ("listeners.tcp", "amqp.listeners"),
    ("loopback_users", "broker.loopback_users"),
    ("stomp.listeners.tcp", "stomp.listeners"),
    ("web_stomp.tcp.listener", "web_stomp.listeners"),
];

/// Names of listeners that may be a port alone: the setting of the port, and that of the addresses.
const DEFAULT_LISTENERS: &[(&str, &str, &str)] = &[
    ("listeners.tcp.default", "amqp.port", "amqp.listeners"),
    ("stomp.listeners.tcp.default", "stomp.port", "stomp.listeners"),
];

/// A value under the key of the table, and where it came from.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) written: String,
    pub(super) value: Value,
}

/// Brings the flat `entries` of one source to the keys of the table. What cannot be brought there,
/// or comes there twice, is added to `problems`.
pub(super) fn translate(
    entries: Vec<(String, Value)>,
    source: &str,
    problems: &mut Vec<Problem>,
) -> BTreeMap<&'static str, Entry> {
    let mut translated: BTreeMap<&'static str, Entry> = BTreeMap::new();
    let mut groups: BTreeMap<&'static str, Vec<(String, Value)>> = BTreeMap::new();
    for (written, value) in entries {
        if let Some((prefix, _)) = GROUPS.iter().find(|(prefix, _)| written.starts_with(prefix))
            && !written.ends_with("listeners.tcp.default")
        {
            groups.entry(prefix).or_default().push((written, value));
            continue;
        }
        let Some((key, value)) = single(&written, value.clone()) else {
            problems.push(Problem::unknown(source, &written, nearest(&written)));
            continue;
        };
        insert(&mut translated, key, Entry { written, value }, source, problems);
    }
    for (prefix, members) in groups {
        let (_, key) = GROUPS.iter().find(|(group, _)| *group == prefix).expect("grouped by a prefix of GROUPS");
        // `listeners.tcp.1 = 5673` is a port on `server.bind`.
        if let [(written, value)] = members.as_slice()
            && value.clone().into_uint().is_ok()
            && let Some((_, port, _)) = DEFAULT_LISTENERS.iter().find(|(.., listeners)| listeners == key)
        {
            insert(&mut translated, port, Entry { written: written.clone(), value: value.clone() }, source, problems);
            continue;
        }
        let written = format!("{prefix}*");
        match list_of(prefix, &members) {
            Some(items) => {
                let value = Value::new(None, items);
                insert(&mut translated, key, Entry { written, value }, source, problems);
            }
            None => problems.push(Problem::bad(
                source,
                &members[0].0,
                &value::quoted(&members[0].1),
                "names set to true or false, or numbered texts",
            )),
        }
    }
    translated
}

fn insert(
    translated: &mut BTreeMap<&'static str, Entry>,
    key: &'static str,
    entry: Entry,
    source: &str,
    problems: &mut Vec<Problem>,
) {
    // The same name again is an override on one command line; two names are a mistake that would
    // otherwise be settled by chance.
    match translated.get(key) {
        Some(earlier) if earlier.written != entry.written => {
            problems.push(Problem::twice(source, key, &earlier.written, &entry.written));
        }
        _ => {
            translated.insert(key, entry);
        }
    }
}

/// The key and value that a single name stands for.
pub(super) fn single(written: &str, value: Value) -> Option<(&'static str, Value)> {
    if let Some(setting) = table::find(written) {
        return Some((setting.key, value));
    }
    // A port alone listens on `server.bind`; with an address it is a list of one.
    for (name, port, listeners) in DEFAULT_LISTENERS {
        if written == *name {
            let is_port = value.clone().into_uint().is_ok();
            return Some((if is_port { port } else { listeners }, value));
        }
    }
    if let Some((_, key)) = GROUPS_OFF.iter().find(|(name, _)| *name == written) {
        return Some((key, value));
    }
    let (name, key) = NAMES.iter().find(|(name, _)| *name == written)?;
    let value = match *name {
        // The share of memory is a factor even when it is written as a whole number.
        name if name.ends_with(".relative") => match value.clone().into_float() {
            Ok(factor) => Value::new(None, factor),
            Err(_) => value,
        },
        "proxy_protocol" => match value.clone().into_bool() {
            Ok(true) => Value::new(None, "0.0.0.0/0,::/0"),
            Ok(false) => Value::new(None, "none"),
            Err(_) => value,
        },
        "password_hashing_module" => match value::text(&value) {
            Some(module) => Value::new(None, module.trim_start_matches("rabbit_password_hashing_")),
            None => value,
        },
        "log.console.formatter" if matches!(&value.kind, ValueKind::String(text) if text == "plaintext") => {
            Value::new(None, "text")
        }
        _ => value,
    };
    Some((key, value))
}

/// The list that the members of a group make: `name = true`, or `number = name`.
fn list_of(prefix: &str, members: &[(String, Value)]) -> Option<Vec<String>> {
    // `loopback_users.guest = false` takes one name off the default; tags replace it.
    let mut items: Vec<String> = if prefix == "loopback_users." { vec!["guest".into()] } else { Vec::new() };
    let is_numbered = prefix == "auth_mechanisms." || prefix.ends_with("listeners.tcp.");
    for (written, value) in members {
        let name = &written[prefix.len()..];
        if is_numbered {
            items.push(value::text(value)?);
        } else if value.clone().into_bool().ok()? {
            if !items.iter().any(|item| item == name) {
                items.push(name.to_owned());
            }
        } else {
            items.retain(|item| item != name);
        }
    }
    Some(items)
}

/// The known name most like `written`, if any is like it.
pub(super) fn nearest(written: &str) -> Option<&'static str> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let candidates = table::SETTINGS.iter().map(|setting| setting.key).chain(NAMES.iter().map(|(name, _)| *name));
    candidates
        .map(|name| {
            let whole = strsim::damerau_levenshtein(written, name);
            // A right name in a wrong section is likelier than three wrong letters.
            let ending = 1 + strsim::damerau_levenshtein(&last(written), &last(name));
            (whole.min(ending), name)
        })
        .filter(|(distance, name)| *distance <= 1 + last(name).len() / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// The environment variable that differs from `name` by a slip of the finger, if there is one.
pub(super) fn nearest_variable(name: &str) -> Option<String> {
    let settings = table::SETTINGS.iter().map(|setting| setting.key);
    settings
        .chain(NAMES.iter().map(|(name, _)| *name))
        .map(variable)
        .map(|known| (strsim::damerau_levenshtein(name, &known), known))
        .filter(|(distance, _)| *distance <= 2)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// The environment variable of a key or of another name.
pub(super) fn variable(name: &str) -> String {
    format!("TERN_{}", name.replace('.', "_").to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(entries: &[(&str, Value)]) -> (BTreeMap<&'static str, Entry>, Vec<Problem>) {
        let mut problems = Vec::new();
        let entries = entries.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        (translate(entries, "test", &mut problems), problems)
    }

    fn of(kind: impl Into<ValueKind>) -> Value {
        Value::new(None, kind)
    }

    #[test]
    fn every_other_name_leads_to_a_row_of_the_table() {
        for (name, key) in NAMES.iter().chain(GROUPS).chain(GROUPS_OFF) {
            assert!(table::find(key).is_some(), "{name} -> {key}");
        }
    }

    #[test]
    fn loopback_user_set_to_false_leaves_the_list() {
        let (entries, problems) = translated(&[("loopback_users.guest", of(false)), ("loopback_users.bob", of(true))]);
        assert!(problems.is_empty());
        assert_eq!(value::text(&entries["broker.loopback_users"].value), None);
        assert_eq!(entries["broker.loopback_users"].value.clone().into_array().unwrap().len(), 1);
    }

    #[test]
    fn whole_number_after_relative_is_still_a_factor() {
        let (entries, _) = translated(&[("vm_memory_high_watermark.relative", of(1_i64))]);
        assert_eq!(entries["broker.memory_high_watermark"].value.kind, ValueKind::Float(1.0));
    }

    #[test]
    fn two_names_of_one_setting_are_refused() {
        let (_, problems) = translated(&[("frame_max", of(8192_i64)), ("amqp.frame_max", of(4096_i64))]);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].to_string().contains("frame_max and amqp.frame_max"), "{}", problems[0]);
    }

    #[test]
    fn port_alone_keeps_the_bound_addresses() {
        let (entries, _) = translated(&[("listeners.tcp.default", of(5673_i64))]);
        assert!(entries.contains_key("amqp.port"));
        let (entries, _) = translated(&[("listeners.tcp.default", of("10.0.0.1:5673"))]);
        assert!(entries.contains_key("amqp.listeners"));
    }

    #[test]
    fn one_numbered_listener_may_be_a_port_alone() {
        for (name, key) in [("stomp.listeners.tcp.1", "stomp.port"), ("listeners.tcp.1", "amqp.port")] {
            assert!(translated(&[(name, of(61614_i64))]).0.contains_key(key));
            assert!(translated(&[(name, of("61614"))]).0.contains_key(key));
        }
        let (entries, _) = translated(&[("stomp.listeners.tcp.1", of("10.0.0.1:61613"))]);
        assert!(entries.contains_key("stomp.listeners"));
    }

    #[test]
    fn misspelt_name_has_a_nearest_one() {
        assert_eq!(nearest("amqp.fram_max"), Some("amqp.frame_max"));
        assert_eq!(nearest("port"), Some("amqp.port"));
        assert_eq!(nearest("server.datadir"), Some("server.data_dir"));
        assert_eq!(nearest("amqp.bind"), Some("server.bind"));
        assert_eq!(nearest("cluster_formation.peer_discovery_backend"), None);
    }
}
