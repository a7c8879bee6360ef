//! The state of the node: status, cluster status, alarms, feature flags.

use serde_json::{Map, Value as Json, json};

use super::{
    control::{Call, Reply},
    node::Environment,
    wire::Alarm,
};
use crate::broker::options::MemoryShare;

/// RabbitMQ's feature flags that are always on, with what they are for. Tools wait for them.
const FEATURE_FLAGS: &[(&str, &str)] = &[
    ("classic_mirrored_queue_version", "Support setting version for classic mirrored queues"),
    ("implicit_default_bindings", "Default bindings are now implicit, instead of being stored in the database"),
    ("maintenance_mode_status", "Maintenance mode status"),
    ("quorum_queue", "Support queues of type `quorum`"),
    ("stream_queue", "Support queues of type `stream`"),
    ("user_limits", "Configure connection and channel limits for a user"),
    ("virtual_host_metadata", "Virtual host metadata (description, tags, etc)"),
];

pub(super) fn feature_flags() -> Reply {
    let rows = FEATURE_FLAGS.iter().map(|(name, _)| vec![json!(name), json!("enabled")]);
    Reply::Rows { columns: vec!["name".to_owned(), "state".to_owned()], rows: Box::new(rows) }
}

pub(super) fn alarms(call: &Call<'_>) -> Reply {
    Reply::Done(json!(on(call)))
}

fn on(call: &Call<'_>) -> Vec<Alarm> {
    let (memory, disk) = call.broker.alarms();
    let of_resources = [(memory, Alarm::Memory), (disk, Alarm::Disk)].into_iter();
    let of_resources = of_resources.filter_map(|(is_on, alarm)| is_on.then_some(alarm));
    of_resources.chain(call.broker.damages().into_iter().map(Alarm::Damage)).collect()
}

/// The alarms as `status` tells them.
fn told(call: &Call<'_>) -> Vec<String> {
    let node = call.node_name();
    let text = |alarm| match alarm {
        Alarm::Memory => format!("Memory alarm on node {node}"),
        Alarm::Disk => format!("Free disk space alarm on node {node}"),
        Alarm::FileDescriptorLimit => format!("File descriptor alarm on node {node}"),
        Alarm::Damage(what) => format!("Damaged data on node {node}: {what}"),
    };
    on(call).into_iter().map(text).collect()
}

pub(super) fn status(call: &Call<'_>) -> Reply {
    let Environment {
        pid,
        started_at,
        product_version,
        data_dir,
        config_files,
        log_files,
        listeners,
        memory,
        disk,
        store,
        files,
        settings: _,
    } = call.node.environment();
    let broker = call.broker;
    let vhosts = broker.vhosts();
    let queues: usize = vhosts.iter().map(|vhost| vhost.queues_count()).sum();
    let setting = match memory.watermark {
        MemoryShare::Relative(fraction) => json!({ "relative": fraction }),
        MemoryShare::Bytes(bytes) => json!({ "absolute": bytes }),
    };
    Reply::Done(json!({
        "active_plugins": [],
        "alarms": told(call),
        "config_files": config_files,
        "data_directory": data_dir,
        "disk_free": disk.free_bytes,
        "disk_free_limit": disk.limit.bytes(memory.total_bytes),
        "file_descriptors": {
            "sockets_limit": files.limit,
            "sockets_used": broker.connections.len(),
            "total_limit": files.limit,
            "total_used": files.open,
        },
        "is_under_maintenance": false,
        "listeners": listeners,
        "log_files": log_files,
        "memory": {
            "strategy": "rss",
            "total": { "rss": memory.resident_bytes },
        },
        "node": call.node_name(),
        "os": "Linux",
        "pid": pid,
        "product_name": "Tern",
        "product_version": env!("CARGO_PKG_VERSION"),
        "rabbitmq_version": product_version,
        "release_series_support_status": "supported",
        "store": {
            "checkpoint_bytes_written": store.checkpoint_bytes,
            "cold_files": store.cold_count,
            "disk_used": store.disk_bytes,
            "indexed_bytes": store.indexed_bytes,
            "indexed_messages": store.indexed_count,
            "log_bytes_written": store.log_bytes,
            "merge_bytes_written": store.merge_bytes,
            "relocated_bytes_written": store.relocated_bytes,
            "segments": store.segments_count,
            "unused_segments": store.unused_count,
        },
        "totals": {
            "virtual_host_count": vhosts.len(),
            "connection_count": broker.connections.len(),
            "queue_count": queues,
        },
        "uptime": call.now.ms_since(started_at) / 1000,
        "vm_memory_calculation_strategy": "rss",
        "vm_memory_high_watermark_limit": memory.watermark.bytes(memory.total_bytes),
        "vm_memory_high_watermark_setting": setting,
    }))
}

pub(super) fn cluster(call: &Call<'_>) -> Reply {
    let node = call.node_name();
    let environment = call.node.environment();
    let name = call.broker.parameters.get_global("cluster_name");
    let name = name.as_deref().and_then(Json::as_str).unwrap_or(&call.broker.options.cluster_name);
    let flag = |(name, desc): &(&str, &str)| {
        json!({
            "desc": desc, "doc_url": "", "name": name, "provided_by": "rabbit", "stability": "stable",
            "state": "enabled",
        })
    };
    let of_node = |value: Json| Json::Object(Map::from_iter([(node.to_owned(), value)]));
    let versions = json!({ "rabbitmq_name": "RabbitMQ", "rabbitmq_version": environment.product_version });
    Reply::Done(json!({
        "alarms": told(call),
        "cluster_name": name,
        "disk_nodes": [node],
        "feature_flags": FEATURE_FLAGS.iter().map(flag).collect::<Vec<_>>(),
        "listeners": of_node(json!(environment.listeners)),
        "maintenance_status": of_node(json!("not under maintenance")),
        "partitions": {},
        "ram_nodes": [],
        "running_nodes": [node],
        "versions": of_node(versions),
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::{
        admin::{tests::Desk, wire::Verb},
        broker::value::Table,
    };

    #[test]
    fn status_tells_the_process_and_the_totals() {
        let desk = Desk::new();
        desk.queue("q", Table::new());
        desk.connect("guest", "/");
        let status = desk.done(Verb::Status {});
        assert_eq!(status["uptime"], 6);
        assert_eq!(status["pid"], 77);
        assert_eq!(status["rabbitmq_version"], "3.13.7");
        assert_eq!(status["totals"], json!({"virtual_host_count": 1, "connection_count": 1, "queue_count": 1}));
        assert_eq!(status["vm_memory_high_watermark_limit"], 40_000);
        assert_eq!(status["alarms"], json!([]));
        assert_eq!(status["store"]["log_bytes_written"], 9_000);
        assert_eq!(status["store"]["segments"], 3);
    }

    #[test]
    fn alarms_are_told_everywhere() {
        let desk = Desk::new();
        desk.broker.set_alarms(true, true);
        assert_eq!(desk.done(Verb::Alarms {}), json!(["memory", "disk"]));
        let told = ["Memory alarm on node tern@localhost", "Free disk space alarm on node tern@localhost"];
        assert_eq!(desk.done(Verb::Status {})["alarms"], json!(told));
        assert_eq!(desk.done(Verb::ClusterStatus {})["alarms"], json!(told));
    }

    #[test]
    fn damage_is_an_alarm_that_says_what_is_damaged() {
        let desk = Desk::new();
        desk.broker.set_damage("segment 7 is damaged".into());
        desk.broker.set_damage("segment 7 is damaged".into());
        assert_eq!(desk.done(Verb::Alarms {}), json!([{ "damage": "segment 7 is damaged" }]));
        let told = ["Damaged data on node tern@localhost: segment 7 is damaged"];
        assert_eq!(desk.done(Verb::Status {})["alarms"], json!(told));
    }

    #[test]
    fn cluster_is_this_node_and_has_the_name_that_was_given() {
        let desk = Desk::new();
        assert_eq!(desk.done(Verb::ClusterStatus {})["cluster_name"], "tern@localhost");
        desk.done(Verb::SetGlobalParameter { name: "cluster_name".into(), value: "\"west\"".into() });
        let status = desk.done(Verb::ClusterStatus {});
        assert_eq!(status["cluster_name"], "west");
        assert_eq!(status["running_nodes"], json!(["tern@localhost"]));
        assert_eq!(desk.rows(Verb::ListFeatureFlags {})[3], json!(["quorum_queue", "enabled"]));
        assert_eq!(desk.done(Verb::Listeners {})[0]["port"], 5672);
        assert_eq!(desk.done(Verb::Environment {}), json!({"amqp": {"port": "5672"}}));
    }
}
