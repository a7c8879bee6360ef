//! Usage lines and help texts.

use std::fmt::Write;

use super::Program;
use super::verb::{Section, Verb};
use super::verbs;

/// The line that errors end with.
pub(super) fn usage(program: Program, verb: &Verb) -> String {
    let (name, usage) = (program.name(), verb.usage);
    format!("\n{BOLD}Usage{PLAIN}\n\n{name} [--node <node>] [--longnames] [--quiet] {usage}")
}

/// The help of one verb.
pub(super) fn of_verb(program: Program, verb: &Verb) -> String {
    let (usage, about) = (usage(program, verb), verb.about);
    format!("{usage}\n\n{about}\n\n\n{BOLD}General Options{PLAIN}\n{GENERAL}")
}

/// The help of a program: all its verbs.
pub(super) fn of_program(program: Program) -> String {
    let name = program.name();
    let mut text = format!(
        "\n{BOLD}Usage{PLAIN}\n\n{name} [--node <node>] [--timeout <timeout>] [--longnames] [--quiet] <command> \
         [<command options>]\n\nAvailable commands:\n"
    );
    let width = verbs::of(program).map(|verb| verb.name.len()).max().unwrap_or_default();
    for section in Section::ALL {
        let mut verbs: Vec<_> = verbs::of(program).filter(|verb| verb.section == section).collect();
        if verbs.is_empty() {
            continue;
        }
        verbs.sort_by_key(|verb| verb.name);
        // Writing to a String cannot fail.
        let _ = write!(text, "\n{BOLD}{}{PLAIN}:\n\n", section.title());
        for Verb { name, about, .. } in verbs {
            let _ = writeln!(text, "   {name:width$}  {about}");
        }
    }
    let _ = write!(text, "\nUse '{name} help <command>' to learn more about a specific command");
    text
}

/// The verb that was probably meant.
pub(super) fn suggestion(program: Program, typed: &str) -> Option<&'static str> {
    const SIMILARITY_MIN: f64 = 0.85;
    verbs::of(program)
        .map(|verb| (strsim::jaro(typed, verb.name), verb.name))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}

const BOLD: &str = "\u{1b}[1m";
const PLAIN: &str = "\u{1b}[0m";
const GENERAL: &str = "
  -n, --node <node>         the node's name, for texts only
  -p, --vhost <vhost>       the virtual host, for commands of one
  -q, --quiet               no messages but the answer
  -s, --silent              as --quiet, and no names of columns
  -t, --timeout <seconds>   how long to wait for the answer
      --formatter <name>    table, pretty_table, json, csv or erlang
      --no-table-headers    no names of columns
  -l, --longnames           accepted, without effect
  -?, --help                this text
";
