//! RabbitMQ's own output, as recorded, against this client with a broker that gives the same answers.
//!
//! Checked are the parser, the banners, the formatters and the exit codes; what a real broker answers is
//! checked by `conformance/ctl/compare`.

use std::path::Path;

use serde_json::{Value as Json, json};

use super::Program;
use super::session_tests::{Broker, call};
use crate::admin::columns;
use crate::admin::failure::{Failure, Kind};
use crate::admin::wire::Answer;

const NODE: &str = "rabbit@recorded";
const PORT: &str = "17672";

/// Erlang breaks the lines of these terms where this client does not.
const LINES_BREAK_ELSEWHERE: &[&str] = &[
    "list_connections_erlang",
    "list_user_topic_permissions_erlang",
    "list_parameters_erlang",
    "list_global_parameters_erlang",
];

fn recorded(group: &str) -> Vec<Json> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/ctl/recorded").join(group);
    let text = std::fs::read(&path).expect("recordings are part of the repository");
    serde_json::from_slice(&text).expect("recordings are JSON")
}

fn text<'a>(case: &'a Json, member: &str) -> &'a str {
    case.get(member).and_then(Json::as_str).unwrap_or_default()
}

fn program(case: &Json) -> Program {
    if text(case, "program") == "rabbitmq-diagnostics" { Program::Diagnostics } else { Program::Ctl }
}

/// Calls as recorded and returns how the output differs.
fn difference(case: &Json, socket: &Path) -> Option<String> {
    let arguments: Vec<_> = case["arguments"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
    // The node's name is part of many texts, so it is given, first, and taken out again.
    let line: Vec<_> = ["--node", NODE].into_iter().chain(arguments.iter().copied()).collect();
    let said = call(program(case), socket, &line, text(case, "stdin"));
    let plain = |text: String| text.replace(&format!("--node {NODE} "), "").replace(NODE, "NODE");
    let ours = (plain(said.out), plain(said.err), u64::from(said.code));
    let theirs =
        (text(case, "stdout").to_owned(), text(case, "stderr").to_owned(), case["exit"].as_u64().unwrap_or(999));
    (ours != theirs)
        .then(|| format!("{}: {arguments:?}\n  RabbitMQ {theirs:?}\n  Tern     {ours:?}\n", text(case, "id")))
}

fn assert_none(differences: Vec<String>) {
    assert!(differences.is_empty(), "{} differences\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn usage_errors_are_word_for_word() {
    let nowhere = tempfile::tempdir().expect("a temporary folder");
    let mut checked = 0;
    let mut differences = Vec::new();
    for group in ["setup.json", "listings.json", "usage.json", "changes.json"] {
        for case in recorded(group) {
            let is_refused = text(&case, "stderr").starts_with("Error (argument validation)")
                || text(&case, "stderr").contains("Did you mean");
            if is_refused {
                checked += 1;
                differences.extend(difference(&case, &nowhere.path().join("none")));
            }
        }
    }
    assert!(checked > 100, "only {checked} cases");
    assert_none(differences);
}

#[test]
fn listings_look_the_same_in_every_format() {
    let listings = recorded("listings.json");
    let mut differences = Vec::new();
    let mut checked = 0;
    for (verb, known) in [
        ("list_users", columns::USERS),
        ("list_vhosts", columns::VHOSTS),
        ("list_exchanges", columns::EXCHANGES),
        ("list_bindings", columns::BINDINGS),
        ("list_queues", columns::QUEUES),
        ("list_connections", columns::CONNECTIONS),
        ("list_permissions", columns::PERMISSIONS),
        ("list_user_permissions", columns::USER_PERMISSIONS),
        ("list_topic_permissions", columns::TOPIC_PERMISSIONS),
        ("list_user_topic_permissions", columns::USER_TOPIC_PERMISSIONS),
        ("list_policies", columns::POLICIES),
        ("list_operator_policies", columns::POLICIES),
        ("list_parameters", columns::PARAMETERS),
        ("list_global_parameters", columns::GLOBAL_PARAMETERS),
        ("list_user_limits", columns::USER_LIMITS),
    ] {
        for (source, suffixes) in [
            ("_json", &["", "_quiet", "_silent", "_no_headers", "_json", "_pretty", "_csv", "_erlang"][..]),
            ("_columns_json", &["_columns", "_columns_json", "_columns_csv"][..]),
        ] {
            let find = |id: String| listings.iter().find(|case| text(case, "id") == id);
            let Some(source) = find(format!("{verb}{source}")) else { continue };
            let rows: Vec<Json> =
                serde_json::from_str(&text(source, "stdout").replace("PORT", PORT)).expect("RabbitMQ writes JSON");
            let rows: Vec<Vec<Json>> = rows.iter().map(|row| cells(row, known)).collect();
            let broker = Broker::answering(move |_| {
                let rows = rows.iter().cloned().map(Answer::Row);
                [Answer::Columns { columns: vec![] }].into_iter().chain(rows).chain([Answer::END]).collect()
            });
            for case in suffixes.iter().filter_map(|suffix| find(format!("{verb}{suffix}"))) {
                if LINES_BREAK_ELSEWHERE.contains(&text(case, "id")) {
                    continue;
                }
                checked += 1;
                differences.extend(difference(&anonymous(case), &broker.socket()));
            }
        }
    }
    assert!(checked > 100, "only {checked} cases");
    assert_none(differences);
}

/// Pids and the port were taken out of the recording, which leaves `#PID<PID>` where JSON has one.
fn anonymous(case: &Json) -> Json {
    let plain = |member| {
        text(case, member).replace("#PID<PID>", "#PID<0.1.0>").replace("<PID>", "<r.1.1.0>").replace("PORT", PORT)
    };
    let mut case = case.clone();
    case["stdout"] = json!(plain("stdout"));
    case
}

/// The cells that a broker would send for a row that RabbitMQ shows as this object.
fn cells(row: &Json, known: &[columns::Column]) -> Vec<Json> {
    let cell = |(name, value): (&String, &Json)| {
        let kind = known.iter().find(|(column, _)| column == name).map(|(_, kind)| *kind);
        match (kind, value) {
            (Some(columns::Type::Pid), Json::String(pid)) if !pid.is_empty() => json!("<r.1.1.0>"),
            (Some(columns::Type::Address), Json::Array(octets)) => {
                json!(octets.iter().map(Json::to_string).collect::<Vec<_>>().join("."))
            }
            (Some(columns::Type::Table), Json::Array(entries)) => entries.iter().map(entry).collect(),
            (None, _) => panic!("column {name} has no type"),
            _ => value.clone(),
        }
    };
    row.as_object().expect("rows are objects").iter().map(cell).collect()
}

/// An entry of a table, whose arrays RabbitMQ shows as objects.
fn entry(entry: &Json) -> Json {
    let mut entry = entry.clone();
    if let Some(Json::Object(items)) = entry.get(2) {
        entry[2] = items.iter().map(|(kind, value)| json!([kind, value])).collect();
    }
    entry
}

#[test]
fn banners_and_results_of_verbs_are_word_for_word() {
    let mut differences = Vec::new();
    let mut checked = 0;
    for group in ["setup.json", "usage.json", "changes.json"] {
        for case in recorded(group) {
            let (stdout, stderr) = (text(&case, "stdout"), text(&case, "stderr"));
            let id = text(&case, "id");
            let is_left_out = stderr.starts_with("Error (argument validation)")
                || stderr.starts_with("Error: ")
                || stderr.contains("[warning]")
                || stderr.contains("not found")
                || stdout.contains("Usage")
                || id.starts_with("help")
                || id.starts_with("stopped_")
                || id.starts_with("down_")
                || id.starts_with("reset")
                || id.starts_with("force_reset")
                || stdout.contains("SCRATCH")
                || stdout.contains("<PID>")
                || stdout.contains("PORT")
                || ["no_arguments", "verb_help_flag", "import_definitions_bad_content", "autocomplete"].contains(&id)
                || !case["mask"].is_null()
                || case["arguments"].to_string().contains("SCRATCH")
                || case["arguments"].to_string().contains("list_");
            if is_left_out {
                continue;
            }
            let exit = case["exit"].as_u64().unwrap_or_default();
            let answer = if exit == 0 {
                let number = |text: &str| text.split_whitespace().find_map(|word| word.parse::<u64>().ok());
                let last = stdout.lines().last().and_then(number).unwrap_or_default();
                Answer::Ok { ok: json!({"messages": last, "closed": last}) }
            } else {
                let exit = u8::try_from(exit).expect("exit codes have 8 bits");
                match stderr.strip_prefix("Error:\n").and_then(|message| message.strip_suffix('\n')) {
                    Some(message) => Failure::new(Kind::Invalid, message, exit).into(),
                    None => Failure { bare: true, ..Failure::new(Kind::Invalid, stderr.trim_end(), exit) }.into(),
                }
            };
            let broker = Broker::answering(move |_| vec![answer.clone()]);
            checked += 1;
            differences.extend(difference(&case, &broker.socket()));
        }
    }
    assert!(checked > 120, "only {checked} cases");
    assert_none(differences);
}

#[test]
fn stopped_broker_is_worded_the_same() {
    let broker = Broker::stopped(|_| vec![Answer::DONE]);
    let cases = recorded("changes.json");
    let is_about_it = |case: &&Json| {
        let id = text(case, "id");
        (id.starts_with("stopped_") || id == "reset" || id == "force_reset") && case["mask"].is_null()
    };
    assert_none(cases.iter().filter(is_about_it).filter_map(|case| difference(case, &broker.socket())).collect());
}
