//! One cell of a listing, as each formatter shows it.

use std::borrow::Cow;

use serde_json::{Map, Value as Json, json};

use super::term::Term;
use crate::admin::columns::Type;

/// As tables and CSV show it. A text is shown as it is, tabs and line ends included.
pub(super) fn shown(kind: Type, cell: &Json) -> Cow<'_, str> {
    match (kind, cell) {
        (_, Json::String(text)) => Cow::Borrowed(text),
        (_, Json::Null) => Cow::Borrowed(""),
        (_, Json::Bool(true)) => Cow::Borrowed("true"),
        (_, Json::Bool(false)) => Cow::Borrowed("false"),
        (_, Json::Number(number)) => {
            let mut out = String::new();
            super::term::print_number(number, &mut out);
            Cow::Owned(out)
        }
        (Type::Words, Json::Array(words)) => {
            let words: Vec<_> = words.iter().map(|word| shown(Type::Word, word)).collect();
            Cow::Owned(format!("[{}]", words.join(", ")))
        }
        (Type::Words, Json::Object(pairs)) => {
            let pairs: Vec<_> = pairs.iter().map(|(k, v)| format!("{{{k}, {}}}", shown(Type::Word, v))).collect();
            Cow::Owned(format!("[{}]", pairs.join(", ")))
        }
        (Type::Version, Json::Array(_)) => Cow::Owned(tuple(cell)),
        (Type::Table, _) => {
            let mut out = String::new();
            Term::from_table(cell).print(&mut out);
            Cow::Owned(out)
        }
        _ => Cow::Owned(cell.to_string()),
    }
}

/// As a drawn table shows it: the items of a list stand side by side, without anything between.
pub(super) fn drawn(kind: Type, cell: &Json) -> Cow<'_, str> {
    match (kind, cell) {
        (Type::Words, Json::Array(words)) => {
            words.iter().map(|word| shown(Type::Word, word)).collect::<Vec<_>>().concat().into()
        }
        (Type::Words, Json::Object(pairs)) => {
            pairs.iter().map(|(k, v)| format!("{{{k},{}}}", shown(Type::Word, v))).collect::<String>().into()
        }
        (Type::Table, Json::Array(entries)) => {
            let mut out = String::new();
            entries.iter().for_each(|entry| Term::from_raw_entry(entry).print(&mut out));
            out.into()
        }
        (Type::Address, Json::String(_)) => match as_json(kind, cell) {
            numbers @ Json::Array(_) => tuple(&numbers).into(),
            _ => shown(kind, cell),
        },
        (Type::Pid, Json::String(pid)) if !pid.is_empty() => local_pid(pid).into(),
        _ => shown(kind, cell),
    }
}

/// As JSON shows it.
pub(super) fn as_json(kind: Type, cell: &Json) -> Json {
    match (kind, cell) {
        (Type::Pid, Json::String(pid)) if !pid.is_empty() => json!(format!("#PID{}", local_pid(pid))),
        (Type::Address, Json::String(address)) => match address.parse() {
            Ok(std::net::IpAddr::V4(address)) => json!(address.octets()),
            Ok(std::net::IpAddr::V6(address)) => json!(address.segments()),
            Err(_) => cell.clone(),
        },
        (Type::Table, Json::Array(entries)) => entries.iter().map(entry_as_json).collect(),
        _ => cell.clone(),
    }
}

/// RabbitMQ takes an array, whose items have a kind and a value, for an object. That is kept as long
/// as nothing is lost: two items of one kind stay an array of pairs.
fn entry_as_json(entry: &Json) -> Json {
    let [name, kind, value] = [0, 1, 2].map(|index| entry.get(index).cloned().unwrap_or_default());
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let value = match kind.as_str() {
        Some("table") => items.iter().map(entry_as_json).collect(),
        Some("array") => {
            let member = |item: &Json| Some((item.get(0)?.as_str()?.to_owned(), item.get(1)?.clone()));
            let members: Map<_, _> = items.iter().filter_map(member).collect();
            if members.len() == items.len() && !items.is_empty() { Json::Object(members) } else { value }
        }
        _ => value,
    };
    json!([name, kind, value])
}

/// As an Erlang term.
pub(super) fn as_term(kind: Type, cell: &Json) -> Term {
    match (kind, cell) {
        (_, Json::String(text)) if text.is_empty() && kind != Type::Text => Term::Atom(String::new()),
        (Type::Text, Json::String(text)) => Term::Bytes(text.clone().into_bytes()),
        (Type::Pid, Json::String(pid)) => Term::Verbatim(local_pid(pid)),
        (Type::Address, Json::String(_)) => match as_json(kind, cell) {
            numbers @ Json::Array(_) => Term::Verbatim(tuple(&numbers)),
            _ => Term::Verbatim(shown(kind, cell).into_owned()),
        },
        (Type::Version, Json::Array(_)) => Term::Verbatim(tuple(cell)),
        (Type::Table, Json::Array(entries)) => Term::List(entries.iter().map(Term::from_raw_entry).collect()),
        (Type::Words, Json::Array(words)) => {
            Term::List(words.iter().map(|word| Term::Atom(shown(Type::Word, word).into_owned())).collect())
        }
        (Type::Words, Json::Object(pairs)) => {
            let pair = |(k, v): (&String, &Json)| {
                Term::Tuple(vec![Term::Atom(k.clone()), Term::Atom(shown(Type::Word, v).into_owned())])
            };
            Term::List(pairs.iter().map(pair).collect())
        }
        (_, Json::Number(number)) => Term::Number(number.clone()),
        _ => Term::Atom(shown(kind, cell).into_owned()),
    }
}

/// `<rabbit@host.1.250.0>` as the node itself writes it: `<0.250.0>`.
fn local_pid(pid: &str) -> String {
    let mut parts = pid.trim_matches(['<', '>']).rsplit('.');
    match (parts.next(), parts.next()) {
        (Some(serial), Some(number)) => format!("<0.{number}.{serial}>"),
        _ => pid.to_owned(),
    }
}

fn tuple(items: &Json) -> String {
    let items: Vec<_> = items.as_array().into_iter().flatten().map(Json::to_string).collect();
    format!("{{{}}}", items.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cell_without_a_value_is_empty_whatever_its_type() {
        for kind in [Type::Pid, Type::Bool, Type::Words, Type::Number, Type::Address] {
            assert_eq!(shown(kind, &json!("")), "");
            assert_eq!(as_json(kind, &json!("")), json!(""));
        }
    }

    #[test]
    fn words_have_a_comma_and_a_space_between() {
        assert_eq!(shown(Type::Words, &json!(["management", "monitoring"])), "[management, monitoring]");
        assert_eq!(shown(Type::Words, &json!([])), "[]");
        assert_eq!(shown(Type::Words, &json!({"rabbit@h": "running"})), "[{rabbit@h, running}]");
        assert_eq!(drawn(Type::Words, &json!(["management", "monitoring"])), "managementmonitoring");
    }

    #[test]
    fn pid_is_local_in_json() {
        assert_eq!(as_json(Type::Pid, &json!("<rabbit@h.1.250.0>")), json!("#PID<0.250.0>"));
        assert_eq!(shown(Type::Pid, &json!("<rabbit@h.1.250.0>")), "<rabbit@h.1.250.0>");
    }

    #[test]
    fn address_is_numbers_in_json_and_text_in_a_table() {
        assert_eq!(as_json(Type::Address, &json!("127.0.0.1")), json!([127, 0, 0, 1]));
        assert_eq!(as_json(Type::Address, &json!("::1")), json!([0, 0, 0, 0, 0, 0, 0, 1]));
        assert_eq!(shown(Type::Address, &json!("127.0.0.1")), "127.0.0.1");
        assert_eq!(drawn(Type::Address, &json!("127.0.0.1")), "{127,0,0,1}");
    }

    #[test]
    fn array_is_an_object_of_kinds_in_json() {
        let arguments = json!([["l", "array", [["signedint", 1], ["longstr", "two"]]]]);
        assert_eq!(as_json(Type::Table, &arguments), json!([["l", "array", {"signedint": 1, "longstr": "two"}]]));
        let alike = json!([["l", "array", [["signedint", 1], ["signedint", 2]]]]);
        assert_eq!(as_json(Type::Table, &alike), alike);
    }

    #[test]
    fn version_is_a_tuple() {
        assert_eq!(shown(Type::Version, &json!([0, 9, 1])), "{0,9,1}");
    }

    #[test]
    fn fractions_keep_their_point() {
        assert_eq!(shown(Type::Number, &json!(1.0)), "1.0");
        assert_eq!(shown(Type::Number, &json!(0)), "0");
    }
}
