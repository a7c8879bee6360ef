//! The command line in RabbitMQ's style: options may stand anywhere, before and after the verb.
//!
//! Which options exist depends on the verb and on the formatter, and both stand somewhere in the
//! line, so it is parsed twice: first with the options that every verb knows, then with all.
//! Knows nothing of what verbs do.

/// What kind of value an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `--name` or `--no-name`.
    Flag,
    /// `--name text`, `--name=text`.
    Text,
    /// `--name 5`, `--name=5`.
    Number,
}

/// An option: its long name without dashes, and what it takes.
pub(super) type Switch = (&'static str, Kind);

/// The options that every verb knows. Those that only concern an Erlang runtime are accepted and
/// have no effect, so that scripts run unchanged.
pub(super) const GLOBAL: &[Switch] = &[
    ("node", Kind::Text),
    ("quiet", Kind::Flag),
    ("silent", Kind::Flag),
    ("dry-run", Kind::Flag),
    ("vhost", Kind::Text),
    ("timeout", Kind::Number),
    ("longnames", Kind::Flag),
    ("formatter", Kind::Text),
    ("printer", Kind::Text),
    ("file", Kind::Text),
    ("script-name", Kind::Text),
    ("rabbitmq-home", Kind::Text),
    ("mnesia-dir", Kind::Text),
    ("plugins-dir", Kind::Text),
    ("enabled-plugins-file", Kind::Text),
    ("aliases-file", Kind::Text),
    ("erlang-cookie", Kind::Text),
    ("help", Kind::Flag),
    ("print-stacktrace", Kind::Flag),
];

/// The options of the formatter that writes tables.
pub(super) const TABLE: &[Switch] = &[("table-headers", Kind::Flag), ("pad-to-header", Kind::Flag)];

const ALIASES: &[(char, &str)] = &[
    ('p', "vhost"),
    ('n', "node"),
    ('q', "quiet"),
    ('s', "silent"),
    ('l', "longnames"),
    ('t', "timeout"),
    ('?', "help"),
    ('e', "if-empty"),
    ('u', "if-unused"),
    ('P', "pid"),
];

/// What a command line says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Parsed {
    /// The verb and its arguments.
    pub(super) words: Vec<String>,
    /// Options by long name, in the order given; the last of a name counts.
    options: Vec<(&'static str, Given)>,
    /// Options that are unknown, lack a value or have one of the wrong kind: as typed, with the
    /// value if there is one.
    pub(super) invalid: Vec<(String, Option<String>)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Given {
    Flag(bool),
    Text(String),
    Number(i64),
}

impl Parsed {
    /// Whether a flag is set; `None` if it was not given.
    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        match self.last(name)? {
            Given::Flag(set) => Some(*set),
            Given::Text(_) | Given::Number(_) => None,
        }
    }

    /// The value of a text option.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.last(name)? {
            Given::Text(text) => Some(text),
            Given::Flag(_) | Given::Number(_) => None,
        }
    }

    /// The value of a number option.
    pub(super) fn number(&self, name: &str) -> Option<i64> {
        match self.last(name)? {
            Given::Number(number) => Some(*number),
            Given::Flag(_) | Given::Text(_) => None,
        }
    }

    fn last(&self, name: &str) -> Option<&Given> {
        self.options.iter().rev().find(|(given, _)| *given == name).map(|(_, value)| value)
    }
}

/// Reads `arguments` with the options `known`.
pub(super) fn parse(arguments: &[String], known: &[&[Switch]]) -> Parsed {
    let mut parsed = Parsed::default();
    let mut rest = arguments;
    while let Some((argument, tail)) = rest.split_first() {
        rest = tail;
        if argument == "--" {
            parsed.words.extend_from_slice(rest);
            break;
        }
        if is_word(argument) {
            parsed.words.push(argument.clone());
            continue;
        }
        let (typed, value) = match argument.split_once('=') {
            Some((typed, value)) => (typed, Some(value)),
            None => (argument.as_str(), None),
        };
        let letters = if typed.starts_with("--") { "" } else { &typed[1..] };
        if letters.chars().count() > 1 {
            // `-qs` is `-q -s`; a value cannot follow such a group.
            parse_group(&mut parsed, typed, letters, value, known);
            continue;
        }
        let Some((name, kind, negated)) = find(typed, known) else {
            parsed.invalid.push((typed.to_owned(), value.map(str::to_owned)));
            continue;
        };
        let value = match (kind, value) {
            (_, Some(value)) => Some(value),
            (Kind::Flag, None) => None,
            (Kind::Text | Kind::Number, None) => match rest.split_first() {
                Some((next, tail)) if is_word(next) => {
                    rest = tail;
                    Some(next.as_str())
                }
                _ => None,
            },
        };
        match read(kind, value, negated) {
            Some(given) => parsed.options.push((name, given)),
            None => parsed.invalid.push((typed.to_owned(), value.map(str::to_owned))),
        }
    }
    parsed
}

fn parse_group(parsed: &mut Parsed, typed: &str, letters: &str, value: Option<&str>, known: &[&[Switch]]) {
    let flags: Option<Vec<_>> = letters
        .chars()
        .map(|letter| match find(&format!("-{letter}"), known) {
            Some((name, Kind::Flag, _)) => Some((name, Given::Flag(true))),
            _ => None,
        })
        .collect();
    match (flags, value) {
        (Some(flags), None) => parsed.options.extend(flags),
        _ => parsed.invalid.push((typed.to_owned(), value.map(str::to_owned))),
    }
}

/// Whether an argument is a word or a value and not an option. `-0.5` is a number, `-` is itself.
fn is_word(argument: &str) -> bool {
    match argument.strip_prefix('-') {
        None | Some("") => true,
        Some(rest) => rest.starts_with(' ') || argument.parse::<f64>().is_ok_and(|_| !rest.starts_with('-')),
    }
}

/// The option that was typed, and whether as `--no-...`.
fn find(typed: &str, known: &[&[Switch]]) -> Option<(&'static str, Kind, bool)> {
    let lookup = |name: &str| known.iter().flat_map(|list| list.iter()).find(|(known, _)| *known == name).copied();
    let Some(long) = typed.strip_prefix("--") else {
        let letter = typed.chars().nth(1)?;
        let (_, name) = ALIASES.iter().find(|(alias, _)| *alias == letter)?;
        return lookup(name).map(|(name, kind)| (name, kind, false));
    };
    if let Some((name, kind)) = lookup(long) {
        return Some((name, kind, false));
    }
    let (name, kind) = lookup(long.strip_prefix("no-")?)?;
    (kind == Kind::Flag).then_some((name, kind, true))
}

fn read(kind: Kind, value: Option<&str>, negated: bool) -> Option<Given> {
    match (kind, value) {
        (Kind::Flag, None) => Some(Given::Flag(!negated)),
        (Kind::Flag, Some("true")) => Some(Given::Flag(!negated)),
        (Kind::Flag, Some("false")) => Some(Given::Flag(negated)),
        (Kind::Flag, Some(_)) | (Kind::Text | Kind::Number, None) => None,
        (Kind::Text, Some(value)) => Some(Given::Text(value.to_owned())),
        (Kind::Number, Some(value)) => value.parse().ok().map(Given::Number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &[&str]) -> Parsed {
        parse(&line.iter().map(|&word| word.to_owned()).collect::<Vec<_>>(), &[GLOBAL, TABLE])
    }

    #[test]
    fn options_stand_before_and_after_the_verb() {
        let parsed = parse_line(&["-p", "v1", "list_queues", "name", "--quiet", "messages"]);
        assert_eq!(parsed.words, ["list_queues", "name", "messages"]);
        assert_eq!(parsed.text("vhost"), Some("v1"));
        assert_eq!(parsed.flag("quiet"), Some(true));
        assert_eq!(parsed.invalid, []);
    }

    #[test]
    fn last_of_an_option_counts() {
        assert_eq!(parse_line(&["-p", "a", "--vhost=b"]).text("vhost"), Some("b"));
    }

    #[test]
    fn no_in_front_negates_a_flag() {
        assert_eq!(parse_line(&["--no-table-headers"]).flag("table-headers"), Some(false));
    }

    #[test]
    fn letters_of_flags_may_be_grouped() {
        let parsed = parse_line(&["-qs"]);
        assert_eq!((parsed.flag("quiet"), parsed.flag("silent")), (Some(true), Some(true)));
    }

    #[test]
    fn negative_number_is_a_word() {
        assert_eq!(parse_line(&["set", "-0.5", "-"]).words, ["set", "-0.5", "-"]);
    }

    #[test]
    fn unknown_option_and_bad_value_are_reported_as_typed() {
        let parsed = parse_line(&["--nonsense", "-z", "-t", "soon", "-p"]);
        let expected = [("--nonsense", None), ("-z", None), ("-t", Some("soon")), ("-p", None)]
            .map(|(a, b): (&str, Option<&str>)| (a.to_owned(), b.map(str::to_owned)));
        assert_eq!(parsed.invalid, expected);
    }

    #[test]
    fn everything_after_two_dashes_is_words() {
        assert_eq!(parse_line(&["add_user", "--", "-q", "--x"]).words, ["add_user", "-q", "--x"]);
    }
}
