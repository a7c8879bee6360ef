//! The broker as a whole: its queues' and connections' ends, its limits, definitions and life.

use std::path::Path;

use serde_json::{Value as Json, json};

use super::super::parse::{Kind, Switch};
use super::super::verb::{Ask, Invalid, Invocation, Needs, Plan, Process, Section, Show, Verb};
use super::super::{erlang, help, status};
use super::{at_least, between, exactly};
use crate::admin::columns::{Column, Type};
use crate::admin::failure::EXIT_USAGE;
use crate::admin::wire;

pub(super) const VERBS: &[Verb] = &[
    Verb {
        name: "help",
        usage: "help (<command> | [--list-commands])",
        section: Section::Help,
        about: "Shows what a command does",
        switches: &[("list-commands", Kind::Flag)],
        arity: between(0, 1),
        plan: |_| {
            let show = Show::Sentence(|_, call| {
                if call.flag("list-commands") {
                    let mut names: Vec<_> = super::of(call.program).map(|verb| verb.name).collect();
                    names.sort_unstable();
                    return Ok(names.join("\n"));
                }
                match call.words.first() {
                    None => Ok(help::of_program(call.program)),
                    Some(name) => match super::find(call.program, name) {
                        Some(verb) => Ok(help::of_verb(call.program, verb)),
                        None => Err((format!("Error:\n\nCommand '{name}' not found."), EXIT_USAGE)),
                    },
                }
            });
            Ok(Plan::new("", Ask::Nothing, show).needs(Needs::Nothing))
        },
    },
    Verb {
        name: "autocomplete",
        usage: "autocomplete [prefix]",
        section: Section::Help,
        about: "Lists the commands that begin so",
        switches: &[],
        arity: between(0, 1),
        plan: |_| {
            let show = Show::Sentence(|_, call| {
                let begins = |verb: &&Verb| verb.name.starts_with(call.word(0));
                let mut names: Vec<_> = super::of(call.program).filter(begins).map(|verb| verb.name).collect();
                names.sort_unstable();
                Ok(names.join("\n"))
            });
            Ok(Plan::new("", Ask::Nothing, show).needs(Needs::Nothing))
        },
    },
    Verb {
        name: "version",
        usage: "version",
        section: Section::Help,
        about: "Shows the version",
        switches: &[],
        arity: at_least(0),
        plan: |_| {
            let show = Show::Object(|_, call| {
                let version = json!({"node": call.node(), "result": "ok", "value": {"version": VERSION}});
                Ok((VERSION.to_owned(), version))
            });
            Ok(Plan::new("", Ask::Nothing, show).needs(Needs::Nothing))
        },
    },
    Verb {
        name: "await_startup",
        usage: "await_startup",
        section: Section::Nodes,
        about: "Waits until the broker has started",
        switches: &[],
        arity: exactly(0),
        plan: |_| Ok(Plan::new("", Ask::Started { process: None }, Show::Nothing).needs(Needs::Nothing)),
    },
    Verb {
        name: "wait",
        usage: "wait [<pidfile>] [--pid|-P <pid>] [--timeout <timeout>]",
        section: Section::Nodes,
        about: "Waits until the broker has started, as long as its process lives",
        switches: &[("pid", Kind::Number)],
        arity: between(0, 1),
        plan: |call| {
            let process = match (call.options.number("pid"), call.words.first()) {
                (Some(_), Some(_)) => return Err(Invalid::usage("\"Cannot specify both pid and pidfile\"")),
                (Some(pid), None) => Process::Id(pid.to_string()),
                (None, Some(file)) => Process::File(file.clone()),
                (None, None) => return Err(Invalid::usage("\"No pid or pidfile specified\"")),
            };
            Ok(Plan::new("", Ask::Started { process: Some(process) }, Show::Nothing).needs(Needs::Nothing))
        },
    },
    Verb {
        name: "stop_app",
        usage: "stop_app",
        section: Section::Nodes,
        about: "Stops the broker but not its process",
        switches: &[],
        arity: exactly(0),
        plan: |call| {
            let banner = format!("Stopping rabbit application on node {} ...", call.node());
            Ok(Plan::silent(banner, wire::Verb::StopApp {})?.needs(Needs::Nothing))
        },
    },
    Verb {
        name: "start_app",
        usage: "start_app",
        section: Section::Nodes,
        about: "Starts the broker again after stop_app",
        switches: &[],
        arity: exactly(0),
        plan: |call| {
            let banner = format!("Starting node {} ...", call.node());
            Ok(Plan::silent(banner, wire::Verb::StartApp {})?.needs(Needs::Nothing))
        },
    },
    Verb {
        name: "reset",
        usage: "reset",
        section: Section::Nodes,
        about: "Deletes everything that the broker holds; only after stop_app",
        switches: &[],
        arity: exactly(0),
        plan: |call| {
            let banner = format!("Resetting node {} ...", call.node());
            Ok(Plan::silent(banner, wire::Verb::Reset {})?.needs(Needs::Stopped))
        },
    },
    Verb {
        name: "force_reset",
        usage: "force_reset",
        section: Section::Nodes,
        about: "Does what reset does",
        switches: &[],
        arity: exactly(0),
        plan: |call| {
            let banner = format!("Forcefully resetting node {} ...", call.node());
            Ok(Plan::silent(banner, wire::Verb::Reset {})?.needs(Needs::Stopped))
        },
    },
    Verb {
        name: "stop",
        usage: "stop [--idempotent] [<pidfile>]",
        section: Section::Nodes,
        about: "Stops the broker and its process",
        switches: &[("idempotent", Kind::Flag)],
        arity: between(0, 1),
        plan: stop,
    },
    Verb {
        name: "shutdown",
        usage: "shutdown [--wait] [--timeout <timeout>]",
        section: Section::Nodes,
        about: "Stops the broker and its process",
        switches: &[("wait", Kind::Flag)],
        arity: exactly(0),
        plan: |_| Ok(Plan::new("", Ask::Shutdown, Show::Nothing).needs(Needs::Nothing)),
    },
    Verb {
        name: "rotate_logs",
        usage: "rotate_logs",
        section: Section::Nodes,
        about: "Does nothing",
        switches: &[],
        arity: exactly(0),
        plan: |_| {
            let show = Show::Sentence(|_, _| {
                Err(("Error:\nThis command does not rotate logs anymore [deprecated]".to_owned(), 69))
            });
            Ok(Plan::new("", Ask::Nothing, show).needs(Needs::Nothing))
        },
    },
    Verb {
        name: "environment",
        usage: "environment",
        section: Section::Configuration,
        about: "Shows the settings in force",
        switches: &[],
        arity: exactly(0),
        plan: |call| {
            let banner = format!("Application environment of node {} ...", call.node());
            let show = Show::Object(|settings, _| Ok((erlang::from_json(settings), settings.clone())));
            Ok(Plan::new(banner, Ask::Request(wire::Verb::Environment {}), show))
        },
    },
    Verb {
        name: "cluster_status",
        usage: "cluster_status [--timeout <timeout>]",
        section: Section::Observability,
        about: "Shows the nodes, which is this one",
        switches: &[],
        arity: exactly(0),
        plan: |call| {
            let banner = format!("Cluster status of node {} ...", call.node());
            let show = Show::Object(|cluster, _| Ok((status::cluster(cluster), cluster.clone())));
            Ok(Plan::new(banner, Ask::Request(wire::Verb::ClusterStatus {}), show))
        },
    },
    Verb {
        name: "list_feature_flags",
        usage: "list_feature_flags [<column> ...] [--timeout <timeout>]",
        section: Section::FeatureFlags,
        about: "Lists feature flags, which are all on",
        switches: &[],
        arity: at_least(0),
        plan: |_| {
            const FLAGS: &[Column] = &[("name", Type::Text), ("state", Type::Word)];
            Plan::gathered("Listing feature flags ...".to_owned(), wire::Verb::ListFeatureFlags {}, FLAGS)
        },
    },
    Verb {
        name: "enable_feature_flag",
        usage: "enable_feature_flag <all | feature_flag>",
        section: Section::FeatureFlags,
        about: "Does nothing: all feature flags are on",
        switches: &[],
        arity: exactly(1),
        plan: |call| {
            let banner = match call.word(0) {
                "all" => "Enabling all feature flags ...".to_owned(),
                flag => format!("Enabling feature flag \"{flag}\" ..."),
            };
            Ok(Plan::new(banner, Ask::Pong, Show::Nothing))
        },
    },
    Verb {
        name: "set_vm_memory_high_watermark",
        usage: "set_vm_memory_high_watermark <fraction> | absolute <value>",
        section: Section::Configuration,
        about: "Sets the memory above which publishers are held back",
        switches: &[],
        arity: between(1, 2),
        plan: |call| {
            let (limit, shown) = match (call.word(0), call.words.len()) {
                ("absolute", 1) => return Err(Invalid::usage("not enough arguments.")),
                ("absolute", _) => {
                    let limit = wire::MemoryLimit::Absolute(bytes(call.word(1)).ok_or_else(bad_argument)?);
                    (limit, format!("{} bytes", call.word(1)))
                }
                (_, 2) => return Err(Invalid::usage("too many arguments.")),
                (fraction, _) => {
                    let fraction: f64 = fraction.parse().map_err(|_| bad_argument())?;
                    if !(0.0..=1.0).contains(&fraction) {
                        let reason = "Bad argument: The threshold should be a fraction between 0.0 and 1.0";
                        return Err(Invalid::argument(reason));
                    }
                    (wire::MemoryLimit::Relative(fraction), call.owned(0))
                }
            };
            let banner = format!("Setting memory threshold on {} to {shown} ...", call.node());
            Plan::silent(banner, wire::Verb::SetVmMemoryHighWatermark(limit))
        },
    },
    Verb {
        name: "set_disk_free_limit",
        usage: "set_disk_free_limit <disk_limit> | mem_relative <fraction>",
        section: Section::Configuration,
        about: "Sets the free disk space below which publishers are held back",
        switches: &[],
        arity: between(1, 2),
        plan: |call| {
            let (limit, shown) = match (call.word(0), call.words.len()) {
                ("mem_relative", 1) => return Err(Invalid::usage("not enough arguments.")),
                ("mem_relative", _) => {
                    let fraction = call.word(1).parse().ok().filter(|fraction: &f64| *fraction >= 0.0);
                    let fraction = fraction.ok_or_else(bad_argument)?;
                    (wire::DiskLimit::MemRelative(fraction), format!("{} times the total RAM", call.word(1)))
                }
                (_, 2) => return Err(Invalid::usage("too many arguments.")),
                (limit, _) => {
                    let bytes = bytes(limit).ok_or_else(bad_argument)?;
                    (wire::DiskLimit::Absolute(bytes), format!("{limit} bytes"))
                }
            };
            let banner = format!("Setting disk free limit on {} to {shown} ...", call.node());
            Plan::silent(banner, wire::Verb::SetDiskFreeLimit(limit))
        },
    },
    Verb {
        name: "export_definitions",
        usage: "export_definitions <file_path | \"-\"> [--format <json | erlang>] [--timeout <timeout>]",
        section: Section::Definitions,
        about: "Writes users, vhosts, policies, queues, exchanges and bindings to a file",
        switches: FORMAT,
        arity: exactly(1),
        plan: |call| {
            check_format(call)?;
            let file = call.owned(0);
            let request = Ask::Request(wire::Verb::ExportDefinitions {});
            if file == "-" {
                return Ok(Plan::new("", request, Show::Sentence(|definitions, _| Ok(definitions.to_string()))));
            }
            let folder = Path::new(&file).parent().filter(|folder| !folder.as_os_str().is_empty());
            if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
                let reason = format!("Bad argument: Directory {} does not exist", folder.display());
                return Err(Invalid::argument(reason));
            }
            let banner = format!("Exporting definitions in JSON to a file at \"{file}\" ...");
            Ok(Plan::new(banner, request, Show::Definitions(file)))
        },
    },
    Verb {
        name: "import_definitions",
        usage: "import_definitions <file_path | \"-\"> [--format <json | erlang>] [--skip-if-unchanged] \
                [--timeout <timeout>]",
        section: Section::Definitions,
        about: "Adds what a file of definitions holds",
        switches: &[("format", Kind::Text), ("skip-if-unchanged", Kind::Flag)],
        arity: between(0, 1),
        plan: |call| {
            check_format(call)?;
            let file = call.words.first().cloned();
            if let Some(file) = file.as_ref().filter(|file| !Path::new(file.as_str()).exists()) {
                return Err(Invalid::argument(format!("Bad argument: File {file} does not exist")));
            }
            let banner = match &file {
                Some(file) => format!("Importing definitions in JSON from a file at \"{file}\" ..."),
                None => "Importing definitions in JSON from standard input ...".to_owned(),
            };
            let show = Show::Sentence(|_, call| Ok(if call.is_quiet() { String::new() } else { IMPORTED.to_owned() }));
            Ok(Plan::new(banner, Ask::WithDefinitions(file), show))
        },
    },
    Verb {
        name: "close_connection",
        usage: "close_connection <connection pid> <explanation>",
        section: Section::Operations,
        about: "Closes a connection",
        switches: &[],
        arity: exactly(2),
        plan: |call| {
            let (pid, reason) = (call.owned(0), call.owned(1));
            let banner = format!("Closing connection {pid}, reason: {reason}...");
            Plan::silent(banner, wire::Verb::CloseConnection { pid, reason })
        },
    },
    Verb {
        name: "close_all_connections",
        usage: "close_all_connections [--vhost <vhost> --limit <limit>] [-n <node> --global] \
                [--per-connection-delay <delay>] <explanation>",
        section: Section::Operations,
        about: "Closes the connections of a virtual host, or all",
        switches: &[("global", Kind::Flag), ("limit", Kind::Number), ("per-connection-delay", Kind::Number)],
        arity: exactly(1),
        plan: |call| {
            let number = |name| call.options.number(name).and_then(|number| u64::try_from(number).ok()).unwrap_or(0);
            let (limit, delay_ms) = (number("limit"), number("per-connection-delay"));
            let (global, reason) = (call.flag("global"), call.owned(0));
            let count = if limit == 0 { "all".to_owned() } else { limit.to_string() };
            let banner = if global {
                let node = call.node();
                format!("Closing {count} connections to node {node} (across all vhosts), reason: {reason}...")
            } else {
                format!("Closing {count} connections in vhost {}, reason: {reason}...", call.vhost())
            };
            let request = wire::Verb::CloseAllConnections { reason, global, limit, delay_ms };
            let show = Show::Sentence(|answer, _| Ok(format!("Closed {} connections", count_of(answer, "closed"))));
            Ok(Plan::new(banner, Ask::Request(request), show))
        },
    },
    Verb {
        name: "close_all_user_connections",
        usage: "close_all_user_connections <username> <explanation>",
        section: Section::Operations,
        about: "Closes the connections of a user",
        switches: &[],
        arity: exactly(2),
        plan: |call| {
            let (user, reason) = (call.owned(0), call.owned(1));
            let banner = format!("Closing connections of user {user}, reason: {reason}...");
            Plan::silent(banner, wire::Verb::CloseAllUserConnections { user, reason })
        },
    },
    Verb {
        name: "purge_queue",
        usage: "purge_queue <queue> [--timeout <timeout>]",
        section: Section::Queues,
        about: "Drops the ready messages of a queue",
        switches: &[],
        arity: exactly(1),
        plan: |call| {
            let banner = format!("Purging queue '{}' in vhost '{}' ...", call.word(0), call.vhost());
            Plan::silent(banner, wire::Verb::PurgeQueue { name: call.owned(0) })
        },
    },
    Verb {
        name: "delete_queue",
        usage: "delete_queue <queue_name> [--if-empty|-e] [--if-unused|-u] [--timeout <timeout>]",
        section: Section::Queues,
        about: "Deletes a queue",
        switches: &[("if-empty", Kind::Flag), ("if-unused", Kind::Flag)],
        arity: exactly(1),
        plan: |call| {
            let (if_empty, if_unused) = (call.flag("if-empty"), call.flag("if-unused"));
            let condition = match (if_empty, if_unused) {
                (true, true) => "if queue is empty and if queue is unused ",
                (true, false) => "if queue is empty ",
                (false, true) => "if queue is unused ",
                (false, false) => "",
            };
            let banner = format!("Deleting queue '{}' on vhost '{}' {condition}...", call.word(0), call.vhost());
            let request = wire::Verb::DeleteQueue { name: call.owned(0), if_empty, if_unused };
            let show = Show::Sentence(|answer, _| {
                let messages = count_of(answer, "messages");
                Ok(format!("Queue was successfully deleted with {messages} ready messages"))
            });
            Ok(Plan::new(banner, Ask::Request(request), show))
        },
    },
    Verb {
        name: "status",
        usage: "status [--unit <unit>] [--timeout <timeout>]",
        section: Section::Observability,
        about: "Shows the state of the broker",
        switches: &[("unit", Kind::Text)],
        arity: exactly(0),
        plan: |call| {
            let unit = call.options.text("unit").unwrap_or("gb").to_lowercase();
            if status::Unit::from_name(&unit).is_none() {
                let reason = format!("\"unit '{unit}' is not supported. Please use one of: bytes, mb, gb\"");
                return Err(Invalid::usage(reason));
            }
            let show = Show::Object(|answer, call| {
                let unit = call.options.text("unit").unwrap_or("gb").to_lowercase();
                let unit = status::Unit::from_name(&unit).unwrap_or(status::Unit::Gb);
                Ok((status::node(answer, unit), answer.clone()))
            });
            let banner = format!("Status of node {} ...", call.node());
            Ok(Plan::new(banner, Ask::Request(wire::Verb::Status {}), show))
        },
    },
];

const FORMAT: &[Switch] = &[("format", Kind::Text)];
const VERSION: &str = env!("CARGO_PKG_VERSION");
const IMPORTED: &str = "Successfully started definition import. This process is asynchronous and can take some time.";

fn stop(call: &Invocation) -> Result<Plan, Invalid> {
    let banner = format!("Stopping and halting node {} ...", call.node());
    Ok(Plan::silent(banner, wire::Verb::Stop {})?.needs(Needs::Nothing))
}

fn check_format(call: &Invocation) -> Result<(), Invalid> {
    match call.options.text("format").map(str::to_lowercase).as_deref() {
        None | Some("json") => Ok(()),
        Some(_) => Err(Invalid::argument("Bad argument: Format should be json")),
    }
}

fn bad_argument() -> Invalid {
    Invalid::argument("Bad argument.")
}

fn count_of(answer: &Json, name: &str) -> u64 {
    answer.get(name).and_then(Json::as_u64).unwrap_or_default()
}

/// `1000`, `512MiB`, `1G`: k, M and G are powers of 1024 as with an `i` behind, kB, MB and GB of 1000.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "" => 1,
        "k" | "kiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_memory_are_binary_unless_they_say_otherwise() {
        assert_eq!(bytes("1000"), Some(1000));
        assert_eq!(bytes("2k"), Some(2048));
        assert_eq!(bytes("1GiB"), Some(1 << 30));
        assert_eq!(bytes("1GB"), Some(1_000_000_000));
        assert_eq!(bytes("1x"), None);
        assert_eq!(bytes("much"), None);
        assert_eq!(bytes("99999999999999G"), None);
    }
}
