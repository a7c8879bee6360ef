//! Health checks, most of them of `rabbitmq-diagnostics`, which container platforms call.

use serde_json::{Value as Json, json};

use super::super::verb::{Ask, Invalid, Invocation, Needs, Plan, Section, Show, Verb, Verdict};
use super::exactly;
use crate::admin::failure::EXIT_UNAVAILABLE;
use crate::admin::wire::{self, Alarm, Listener};

pub(super) const VERBS: &[Verb] = &[
    Verb {
        name: "ping",
        usage: "ping [--timeout <timeout>]",
        section: Section::Observability,
        about: "Checks that the process is there and answers",
        switches: &[],
        arity: exactly(0),
        plan: |call| {
            let banner = format!(
                "Will ping {}. This only checks if the OS process is running and registered with epmd. Timeout: {} ms.",
                call.node(),
                ping_timeout_ms(call)
            );
            let show = Show::Sentence(|_, _| Ok("Ping succeeded".to_owned()));
            Ok(Plan::new(banner, Ask::Pong, show).needs(Needs::Nothing))
        },
    },
    Verb {
        name: "check_running",
        usage: "check_running [--timeout <timeout>]",
        section: Section::HealthChecks,
        about: "Checks that the broker is started",
        switches: &[],
        arity: exactly(0),
        plan: |call| {
            let banner = format!("Checking if RabbitMQ is running on node {} ...", call.node());
            let show = Show::Sentence(
                |pong, call| {
                    if is_running(pong) { Ok(running(call)) } else { Err(error(not_running(call))) }
                },
            );
            Ok(Plan::new(banner, Ask::Pong, show).needs(Needs::Nothing))
        },
    },
    Verb {
        name: "is_running",
        usage: "is_running [--timeout <timeout>]",
        section: Section::HealthChecks,
        about: "Tells whether the broker is started",
        switches: &[],
        arity: exactly(0),
        plan: |call| {
            let banner = format!("Asking node {} for its status ...", call.node());
            let show =
                Show::Sentence(|pong, call| Ok(if is_running(pong) { running(call) } else { not_running(call) }));
            Ok(Plan::new(banner, Ask::Pong, show).needs(Needs::Nothing))
        },
    },
    Verb {
        name: "is_booting",
        usage: "is_booting [--timeout <timeout>]",
        section: Section::HealthChecks,
        about: "Tells whether the broker is starting",
        switches: &[],
        arity: exactly(0),
        plan: |call| {
            let banner = format!("Asking node {} for its boot status ...", call.node());
            let show = Show::Sentence(|_, call| {
                let node = call.node();
                let state = "is fully booted (check with is_running), stopped or has not started booting yet";
                Ok(format!("RabbitMQ on node {node} {state}"))
            });
            Ok(Plan::new(banner, Ask::Pong, show).needs(Needs::Nothing))
        },
    },
    Verb {
        name: "server_version",
        usage: "server_version [--timeout <timeout>]",
        section: Section::HealthChecks,
        about: "Shows the version of the broker",
        switches: &[],
        arity: exactly(0),
        plan: |call| {
            let banner = format!("Asking node {} for its RabbitMQ version...", call.node());
            let show = Show::Sentence(|status, _| {
                Ok(status.get("rabbitmq_version").and_then(Json::as_str).unwrap_or_default().to_owned())
            });
            Ok(Plan::new(banner, Ask::Request(wire::Verb::Status {}), show))
        },
    },
    Verb {
        name: "alarms",
        usage: "alarms [--timeout <timeout>]",
        section: Section::HealthChecks,
        about: "Lists the alarms that are on",
        switches: &[],
        arity: exactly(0),
        plan: |call| {
            let banner = format!("Asking node {} to report any known resource alarms ...", call.node());
            let show = Show::Object(|answer, call| {
                let node = call.node();
                let alarms = alarms(answer, &node);
                let text = match alarms.is_empty() {
                    true => format!("Node {node} reported no alarms, local or clusterwide"),
                    false => alarms.join("\n"),
                };
                Ok((text, json!({"local": alarms, "global": alarms, "node": node, "result": "ok"})))
            });
            Ok(Plan::new(banner, Ask::Request(wire::Verb::Alarms {}), show))
        },
    },
    Verb {
        name: "check_alarms",
        usage: "check_alarms [--timeout <timeout>]",
        section: Section::HealthChecks,
        about: "Checks that no alarm is on",
        switches: &[],
        arity: exactly(0),
        plan: |call| check_alarms(call, |answer, call| checked(answer, call, "no alarms, local or clusterwide")),
    },
    Verb {
        name: "check_local_alarms",
        usage: "check_local_alarms [--timeout <timeout>]",
        section: Section::HealthChecks,
        about: "Checks that no alarm is on",
        switches: &[],
        arity: exactly(0),
        plan: |call| check_alarms(call, |answer, call| checked(answer, call, "no local alarms")),
    },
    Verb {
        name: "check_port_connectivity",
        usage: "check_port_connectivity [--timeout <timeout>]",
        section: Section::HealthChecks,
        about: "Checks that every port of the broker can be connected to",
        switches: &[],
        arity: exactly(0),
        plan: |call| {
            let banner = format!("Testing TCP connections to all active listeners on node {} ...", call.node());
            let show = Show::Object(|answer, call| {
                let (node, ports) = (call.node(), ports(&listeners(answer)));
                let text = format!("Successfully connected to ports {ports} on node {node}.");
                Ok((text, json!({"listeners": answer, "node": node, "result": "ok"})))
            });
            Ok(Plan::new(banner, Ask::Listeners, show))
        },
    },
    Verb {
        name: "check_port_listener",
        usage: "check_port_listener <port> [--timeout <timeout>]",
        section: Section::HealthChecks,
        about: "Checks that the broker listens on a port",
        switches: &[],
        arity: exactly(1),
        plan: |call| {
            let (node, port) = (call.node(), call.word(0));
            let banner = format!("Asking node {node} if there's an active listener on port {port} ...");
            let show = Show::Object(|answer, call| {
                let (node, port, listeners) = (call.node(), call.word(0), listeners(answer));
                if listeners.iter().any(|listener| listener.port.to_string() == port) {
                    let text = format!("A listener for port {port} is running on node {node}.");
                    return Ok((text, json!({"result": "ok", "node": node, "port": port})));
                }
                let ports = ports(&listeners);
                let text = format!(
                    "No listener for port {port} is active on node {node}. \
                     Found listeners that use the following ports: {ports}"
                );
                Err((text, EXIT_UNAVAILABLE))
            });
            Ok(Plan::new(banner, Ask::Request(wire::Verb::Listeners {}), show))
        },
    },
    Verb {
        name: "check_protocol_listener",
        usage: "check_protocol_listener <protocol> [--timeout <timeout>]",
        section: Section::HealthChecks,
        about: "Checks that the broker listens for a protocol",
        switches: &[],
        arity: exactly(1),
        plan: |call| {
            let (node, protocol) = (call.node(), call.word(0));
            let banner = format!("Asking node {node} if there's an active listener for protocol {protocol} ...");
            let show = Show::Object(|answer, call| {
                let (node, protocol, listeners) = (call.node(), call.word(0), listeners(answer));
                if listeners.iter().any(|listener| is_protocol(listener, protocol)) {
                    let text = format!("A listener for protocol {protocol} is running on node {node}.");
                    return Ok((text, json!({"result": "ok", "node": node, "protocol": protocol})));
                }
                let mut found: Vec<_> = listeners.iter().map(|listener| listener.protocol.as_str()).collect();
                found.sort_unstable();
                found.dedup();
                Err(error(format!(
                    "No listener for protocol {protocol} is active on node {node}. \
                     Found listeners for the following protocols: {}",
                    found.join(", ")
                )))
            });
            Ok(Plan::new(banner, Ask::Request(wire::Verb::Listeners {}), show))
        },
    },
    Verb {
        name: "check_virtual_hosts",
        usage: "check_virtual_hosts [--timeout <timeout>]",
        section: Section::HealthChecks,
        about: "Checks that every virtual host is up",
        switches: &[],
        arity: exactly(0),
        plan: |call| {
            let banner = format!("Checking if all vhosts are running on node {} ...", call.node());
            let show = Show::Sentence(|answer, call| {
                let down: Vec<_> = answer.as_array().into_iter().flatten().filter_map(Json::as_str).collect();
                let node = call.node();
                match down.is_empty() {
                    true => Ok(format!("Node {node} reported all vhosts as running")),
                    false => Err(error(format!("Some virtual hosts on node {node} are down:\n{}", down.join("\n")))),
                }
            });
            Ok(Plan::new(banner, Ask::Request(wire::Verb::VhostsDown {}), show))
        },
    },
    Verb {
        name: "listeners",
        usage: "listeners [--timeout <timeout>]",
        section: Section::HealthChecks,
        about: "Lists the ports that the broker listens on",
        switches: &[],
        arity: exactly(0),
        plan: |call| {
            let banner = format!("Asking node {} to report its protocol listeners ...", call.node());
            let show = Show::Object(|answer, call| {
                let lines: Vec<_> = listeners(answer).iter().map(described).collect();
                Ok((lines.join("\n"), json!({"listeners": answer, "node": call.node(), "result": "ok"})))
            });
            Ok(Plan::new(banner, Ask::Request(wire::Verb::Listeners {}), show))
        },
    },
];

/// The timeout that a ping names, in milliseconds.
pub(in crate::cli::ctl) fn ping_timeout_ms(call: &Invocation) -> u64 {
    call.timeout_ms().unwrap_or(60_000)
}

/// A listener as RabbitMQ describes one.
pub(in crate::cli::ctl) fn described(listener: &Listener) -> String {
    let Listener { interface, port, protocol, purpose, .. } = listener;
    format!("Interface: {interface}, port: {port}, protocol: {protocol}, purpose: {purpose}")
}

/// The listeners in an answer.
pub(in crate::cli::ctl) fn listeners(answer: &Json) -> Vec<Listener> {
    serde_json::from_value(answer.clone()).unwrap_or_default()
}

/// A sentence for standard error.
pub(in crate::cli::ctl) fn error(text: String) -> (String, u8) {
    (format!("Error:\n{text}"), EXIT_UNAVAILABLE)
}

/// Both checks of alarms have the same banner, and differ only in what they say when all is well.
fn check_alarms(call: &Invocation, show: fn(&Json, &Invocation) -> Verdict<(String, Json)>) -> Result<Plan, Invalid> {
    let banner = format!("Asking node {} to report any local resource alarms ...", call.node());
    Ok(Plan::new(banner, Ask::Request(wire::Verb::Alarms {}), Show::Object(show)))
}

fn checked(answer: &Json, call: &Invocation, none: &str) -> Verdict<(String, Json)> {
    let node = call.node();
    let alarms = alarms(answer, &node);
    if alarms.is_empty() {
        return Ok((format!("Node {node} reported {none}"), json!({"result": "ok"})));
    }
    if call.formatter == super::super::format::Formatter::Json {
        let message = format!("Node {node} reported local alarms");
        let object = json!({"local": alarms, "message": message, "result": "error"});
        return Err((object.to_string(), EXIT_UNAVAILABLE));
    }
    Err(error(alarms.join("\n")))
}

fn alarms(answer: &Json, node: &str) -> Vec<String> {
    let alarms: Vec<Alarm> = serde_json::from_value(answer.clone()).unwrap_or_default();
    alarms
        .into_iter()
        .map(|alarm| match alarm {
            Alarm::Memory => format!("Memory alarm on node {node}"),
            Alarm::Disk => format!("Free disk space alarm on node {node}"),
            Alarm::FileDescriptorLimit => format!("File descriptor alarm on node {node}"),
            Alarm::Damage(what) => format!("Damaged data on node {node}: {what}"),
        })
        .collect()
}

fn ports(listeners: &[Listener]) -> String {
    let mut ports: Vec<_> = listeners.iter().map(|listener| listener.port).collect();
    ports.sort_unstable();
    ports.dedup();
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}

fn is_protocol(listener: &Listener, protocol: &str) -> bool {
    // `amqp091` and the like are other names for what RabbitMQ calls `amqp`.
    let protocol = protocol.to_lowercase();
    let wanted = match protocol.as_str() {
        "amqp091" | "amqp10" | "amqp0.9.1" | "amqp1.0" | "amqp" => "amqp",
        "amqps" | "amqp/ssl" => "amqp/ssl",
        other => other,
    };
    listener.protocol == wanted
}

fn is_running(pong: &Json) -> bool {
    pong.get("running").and_then(Json::as_bool).unwrap_or(false)
}

fn running(call: &Invocation) -> String {
    format!("RabbitMQ on node {} is fully booted and running", call.node())
}

fn not_running(call: &Invocation) -> String {
    format!("RabbitMQ on node {} is not running or has not fully booted yet (check with is_booting)", call.node())
}
