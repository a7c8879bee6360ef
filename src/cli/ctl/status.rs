//! `status` and `cluster_status` for people: headings, and under each what the broker told.
//!
//! A heading or line whose members are missing from the answer is left out.

use std::fmt::Write;

use serde_json::Value as Json;

use super::verbs::{described, listeners};

/// The unit in which memory and disk space are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Bytes,
    Mb,
    Gb,
}

impl Unit {
    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "bytes" => Some(Self::Bytes),
            "mb" => Some(Self::Mb),
            "gb" => Some(Self::Gb),
            _ => None,
        }
    }

    /// `0.1251 gb`: at most four digits behind the point.
    fn show(self, bytes: f64) -> String {
        let (divisor, name) = match self {
            Self::Bytes => (1.0, "bytes"),
            Self::Mb => (1e6, "mb"),
            Self::Gb => (1e9, "gb"),
        };
        match self {
            Self::Bytes => format!("{bytes:.0} {name}"),
            _ => format!("{:?} {name}", (bytes / divisor * 1e4).round() / 1e4),
        }
    }
}

/// The state of a node.
pub(super) fn node(status: &Json, unit: Unit) -> String {
    let mut report = Report::default();
    report.heading("Runtime");
    for (title, member) in [
        ("OS PID", "pid"),
        ("OS", "os"),
        ("Uptime (seconds)", "uptime"),
        ("Is under maintenance?", "is_under_maintenance"),
        ("RabbitMQ version", "rabbitmq_version"),
        ("Node name", "node"),
        ("Product name", "product_name"),
        ("Product version", "product_version"),
    ] {
        report.line(title, status.get(member));
    }
    report.heading("Data directory");
    report.line("Node data directory", status.get("data_directory"));
    report.items("Config files", status.get("config_files"));
    report.items("Log file(s)", status.get("log_files"));
    report.alarms(status.get("alarms"));
    if let Some(memory) = status.get("memory").and_then(Json::as_object) {
        report.heading("Memory");
        let total = status.pointer("/memory/total/rss").and_then(Json::as_f64).unwrap_or_default();
        report.text(&format!("Total memory used: {}", unit.show(total)));
        report.line("Calculation strategy", memory.get("strategy"));
        if let Some(limit) = status.get("vm_memory_high_watermark_limit").and_then(Json::as_f64) {
            let setting = match status.get("vm_memory_high_watermark_setting") {
                Some(setting) if setting.get("absolute").is_some() => text_of(&setting["absolute"]),
                Some(setting) => format!("{} of available memory", text_of(&setting["relative"])),
                None => "unset".to_owned(),
            };
            report.text(&format!("Memory high watermark setting: {setting}, computed to: {}", unit.show(limit)));
        }
        let mut parts: Vec<_> = memory.iter().filter_map(|(name, bytes)| Some((name, bytes.as_f64()?))).collect();
        if !parts.is_empty() {
            report.text("");
        }
        parts.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        for (name, bytes) in parts {
            let percent = if total > 0.0 { (bytes / total * 1e4).round() / 1e2 } else { 0.0 };
            report.text(&format!("{name}: {} ({percent:?} %)", unit.show(bytes)));
        }
    }
    if let Some(files) = status.get("file_descriptors") {
        report.heading("File Descriptors");
        let pair = |used: &str, limit: &str| format!("{}, limit: {}", text_of(&files[used]), text_of(&files[limit]));
        report.text(&format!("Total: {}", pair("total_used", "total_limit")));
        report.text(&format!("Sockets: {}", pair("sockets_used", "sockets_limit")));
    }
    if let (Some(free), Some(limit)) = (status.get("disk_free"), status.get("disk_free_limit")) {
        report.heading("Free Disk Space");
        let shown = |bytes: &Json| unit.show(bytes.as_f64().unwrap_or_default());
        report.text(&format!("Low free disk space watermark: {}", shown(limit)));
        report.text(&format!("Free disk space: {}", shown(free)));
    }
    if let Some(store) = status.get("store") {
        report.store(store, unit);
    }
    if let Some(totals) = status.get("totals") {
        report.heading("Totals");
        report.line("Connection count", totals.get("connection_count"));
        report.line("Queue count", totals.get("queue_count"));
        report.line("Virtual host count", totals.get("virtual_host_count"));
    }
    report.listeners(status.get("listeners"), "");
    report.end()
}

/// The state of a cluster, which is one node.
pub(super) fn cluster(status: &Json) -> String {
    let mut report = Report::default();
    report.heading("Basics");
    report.line("Cluster name", status.get("cluster_name"));
    for (heading, member) in [("Disk Nodes", "disk_nodes"), ("Running Nodes", "running_nodes")] {
        report.heading(heading);
        for node in status.get(member).and_then(Json::as_array).into_iter().flatten() {
            report.text(&text_of(node));
        }
    }
    report.alarms(status.get("alarms"));
    report.heading("Network Partitions");
    report.text("(none)");
    report.listeners(status.get("listeners"), "Node");
    report.end()
}

#[derive(Default)]
struct Report {
    text: String,
}

impl Report {
    fn heading(&mut self, title: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "\u{1b}[1m{title}\u{1b}[0m\n");
    }

    fn text(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn line(&mut self, title: &str, value: Option<&Json>) {
        if let Some(value) = value.filter(|value| !matches!(value, Json::Null) && *value != "") {
            self.text(&format!("{title}: {}", text_of(value)));
        }
    }

    fn items(&mut self, heading: &str, items: Option<&Json>) {
        let Some(items) = items.and_then(Json::as_array) else { return };
        self.heading(heading);
        for item in items {
            self.text(&format!(" * {}", text_of(item)));
        }
    }

    fn alarms(&mut self, alarms: Option<&Json>) {
        self.heading("Alarms");
        let alarms = alarms.and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
        if alarms.is_empty() {
            self.text("(none)");
        }
        for alarm in alarms {
            self.text(&text_of(alarm));
        }
    }

    /// What was written since the start, and what there is.
    fn store(&mut self, store: &Json, unit: Unit) {
        let bytes = |member: &str| store[member].as_f64().unwrap_or_default();
        let logged = bytes("log_bytes_written");
        self.heading("Store");
        self.text(&format!("Written to the log: {}", unit.show(logged)));
        for (title, member) in [
            ("by checkpoints", "checkpoint_bytes_written"),
            ("by merges", "merge_bytes_written"),
            ("to move messages", "relocated_bytes_written"),
        ] {
            let percent = if logged > 0.0 { (bytes(member) / logged * 1e4).round() / 1e2 } else { 0.0 };
            self.text(&format!("Written {title}: {} ({percent:?} % of the log)", unit.show(bytes(member))));
        }
        self.line("Segments", store.get("segments"));
        self.line("Unused segments", store.get("unused_segments"));
        self.line("Files of moved messages", store.get("cold_files"));
        self.text(&format!("Disk space used: {}", unit.show(bytes("disk_used"))));
        let indexed = (text_of(&store["indexed_messages"]), unit.show(bytes("indexed_bytes")));
        self.text(&format!("In the index: {} messages, {}", indexed.0, indexed.1));
    }

    /// One line a listener; with `owner`, that and the node's name in front.
    fn listeners(&mut self, answer: Option<&Json>, owner: &str) {
        let Some(answer) = answer else { return };
        self.heading("Listeners");
        for listener in listeners(answer) {
            let line = described(&listener);
            match owner {
                "" => self.text(&line),
                _ => self.text(&format!("{owner}: {}, i{}", listener.node, &line["I".len()..])),
            }
        }
    }

    fn end(self) -> String {
        self.text
    }
}

fn text_of(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sizes_have_at_most_four_digits_behind_the_point() {
        assert_eq!(Unit::Gb.show(125_091_264.0), "0.1251 gb");
        assert_eq!(Unit::Gb.show(0.0), "0.0 gb");
        assert_eq!(Unit::Bytes.show(5.0), "5 bytes");
    }

    #[test]
    fn what_the_broker_does_not_tell_is_left_out() {
        let status = json!({"rabbitmq_version": "3.13.7", "totals": {"queue_count": 2}});
        let shown = node(&status, Unit::Gb);
        assert!(shown.starts_with("\u{1b}[1mRuntime\u{1b}[0m\n\nRabbitMQ version: 3.13.7\n\n"));
        assert!(shown.ends_with("\u{1b}[1mTotals\u{1b}[0m\n\nQueue count: 2\n"));
        assert!(!shown.contains("Memory"));
    }

    #[test]
    fn what_was_written_beside_the_log_is_a_share_of_it() {
        let store = json!({
            "log_bytes_written": 2_000_000_000_u64, "checkpoint_bytes_written": 30_000_000, "merge_bytes_written": 0,
            "relocated_bytes_written": 5_000_000, "segments": 31, "unused_segments": 3, "cold_files": 0,
            "disk_used": 2_300_000_000_u64, "indexed_messages": 7, "indexed_bytes": 7168,
        });
        let shown = node(&json!({ "store": store }), Unit::Gb);
        assert!(shown.contains("Written to the log: 2.0 gb\nWritten by checkpoints: 0.03 gb (1.5 % of the log)\n"));
        assert!(shown.contains("Segments: 31\nUnused segments: 3\n"));
        assert!(shown.ends_with("Disk space used: 2.3 gb\nIn the index: 7 messages, 0.0 gb\n"));
    }

    #[test]
    fn listeners_of_a_cluster_name_their_node() {
        let listener =
            json!({"interface": "127.0.0.1", "node": "a@b", "port": 5672, "protocol": "amqp", "purpose": "AMQP"});
        let shown = cluster(&json!({"listeners": [listener]}));
        assert!(shown.ends_with("Node: a@b, interface: 127.0.0.1, port: 5672, protocol: amqp, purpose: AMQP\n"));
    }
}
