//! Checks of the source tree itself: who names whom, how a file begins, what must not be left in.
//!
//! It reads text, not Rust: comments and strings are cut out first, so that what remains is code.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What a part of the tree may name of the crate. The longest matching path decides.
///
/// `""` is everything. Naming one's own part is always allowed.
const EDGES: &[(&str, &[&str])] = &[
    ("store", &[]),
    ("broker", &["store"]),
    ("protocol", &["broker"]),
    ("protocol/amqp/codec", &[]),
    ("protocol/stomp/codec", &[]),
    ("replica", &["store"]),
    ("aws", &["broker"]),
    ("aws/sigv4", &[]),
    // Messages of all protocols have the same properties.
    ("aws/message", &["broker", "protocol::amqp::properties", "protocol::jms"]),
    ("aws/sns/tests", &["aws", "broker", "protocol::amqp::properties", "protocol::jms"]),
    ("admin", &["broker"]),
    (
        "config",
        &[
            "aws::Options",
            "aws::options",
            "broker::Options",
            "broker::options",
            "protocol::amqp::Options",
            "protocol::amqp::options",
            "protocol::stomp::Options",
            "protocol::stomp::options",
            "server::Options",
            "server::options",
            "store::Options",
            "store::options",
        ],
    ),
    ("server", &[""]),
    ("cli", &[""]),
    ("main", &[""]),
    ("lib", &[""]),
];

/// Words of wire protocols, which the broker core must not know. Matched in lower case inside
/// identifiers and strings; comments may say where a rule comes from.
const PROTOCOL_WORDS: &[&str] = &["amqp", "stomp", "sqs", "sns", "jms", "mqtt", "openwire", "basic."];

/// What the core does say, because users and stored definitions do: names that are data.
const PROTOCOL_WORDS_ALLOWED: &[&str] = &["x-jms-topic", "x-sns"];

/// Crates that bring time, sockets or tasks into layers that must have none of them.
const FORBIDDEN_IN_PURE_LAYERS: &[&str] =
    &["tokio", "socket2", "std::fs", "std::net::Tcp", "std::thread::sleep", "Instant::now", "SystemTime::now"];

const PURE_LAYERS: &[&str] = &["broker", "protocol", "aws"];

/// Code that is never finished work.
const LEFT_OVERS: &[&str] = &["todo!", "unimplemented!", "dbg!"];

/// Lines of a file, tests included: beyond it, it holds more than one idea.
const LINES_MAX: usize = 1200;

#[test]
fn every_file_begins_with_what_it_is() {
    report(sources(&["src", "conformance", "examples"]).iter().filter_map(|file| {
        let first = file.text.lines().find(|line| !line.starts_with("#!")).unwrap_or_default();
        (!first.starts_with("//! ")).then(|| format!("{}: the first line is not a `//!` sentence", file.name))
    }));
}

#[test]
fn no_layer_names_one_above_it() {
    report(sources(&["src"]).iter().flat_map(|file| {
        let module = file.module();
        let (part, allowed) = EDGES
            .iter()
            .filter(|(part, _)| module == *part || module.starts_with(&format!("{part}/")))
            .max_by_key(|(part, _)| part.len())
            .unwrap_or_else(|| panic!("{}: no edge is written down for it in EDGES", file.name));
        let own = part.replace('/', "::");
        let is_within =
            |path: &str, root: &str| root.is_empty() || path == root || path.starts_with(&format!("{root}::"));
        crate_paths(&file.code)
            .into_iter()
            .filter(|path| !is_within(path, &own) && !allowed.iter().any(|root| is_within(path, root)))
            .map(|path| format!("{}: names crate::{path}, which {part} must not know", file.name))
            .collect::<Vec<_>>()
    }));
}

#[test]
fn pure_layers_read_no_clock_socket_or_file() {
    report(sources(&["src"]).iter().filter(|file| PURE_LAYERS.contains(&file.part())).flat_map(|file| {
        let code = file.code_without_tests();
        FORBIDDEN_IN_PURE_LAYERS
            .iter()
            .filter(|word| names_word(&code, word))
            .map(|word| format!("{}: names {word}", file.name))
            .collect::<Vec<_>>()
    }));
}

#[test]
fn broker_core_knows_no_protocol() {
    report(sources(&["src/broker"]).iter().flat_map(|file| {
        let mut text = file.code_with_strings.to_lowercase();
        for allowed in PROTOCOL_WORDS_ALLOWED {
            text = text.replace(allowed, "");
        }
        PROTOCOL_WORDS
            .iter()
            .filter(|word| text.contains(*word))
            .map(|word| format!("{}: says {word:?}", file.name))
            .collect::<Vec<_>>()
    }));
}

#[test]
fn nothing_unfinished_is_left_in() {
    report(sources(&["src", "conformance", "examples"]).iter().flat_map(|file| {
        LEFT_OVERS
            .iter()
            .filter(|word| file.code.contains(*word))
            .map(|word| format!("{}: contains {word}", file.name))
            .collect::<Vec<_>>()
    }));
}

#[test]
fn no_unwrap_outside_tests() {
    report(sources(&["src"]).iter().filter_map(|file| {
        let count = file.code_without_tests().matches(".unwrap()").count();
        (count > 0).then(|| format!("{}: {count} times .unwrap() outside tests", file.name))
    }));
}

#[test]
fn no_file_is_too_long() {
    report(sources(&["src", "conformance", "examples"]).iter().filter_map(|file| {
        let lines = file.text.lines().count();
        (lines > LINES_MAX).then(|| format!("{}: {lines} lines, more than {LINES_MAX}", file.name))
    }));
}

#[test]
fn every_file_is_declared() {
    let root = root();
    report(sources(&["src"]).iter().filter_map(|file| {
        let module = file.module();
        if ["main", "lib"].contains(&module.as_str()) {
            return None;
        }
        let (parent, name) = module.rsplit_once('/').unwrap_or(("", &module));
        let candidates = if parent.is_empty() {
            vec!["src/lib.rs".to_owned()]
        } else {
            vec![format!("src/{parent}/mod.rs"), format!("src/{parent}.rs")]
        };
        let is_declared = candidates.iter().any(|path| {
            fs::read_to_string(root.join(path))
                .is_ok_and(|text| code_of(&text, false).contains(&format!("mod {name};")))
        });
        (!is_declared).then(|| format!("{}: no module declares it", file.name))
    }));
}

#[test]
fn every_option_is_a_documented_setting() {
    let table = fs::read_to_string(root().join("src/config/table.rs")).expect("the table of settings is there");
    let layers = [
        ("aws", "src/aws/options.rs"),
        ("broker", "src/broker/options.rs"),
        ("amqp", "src/protocol/amqp/options.rs"),
        ("stomp", "src/protocol/stomp/options.rs"),
        ("server", "src/server/options.rs"),
        ("store", "src/store/options.rs"),
    ];
    // Nobody has a reason to change these: one spare segment is made while another is filled, and the
    // time of the seal bounds what a crash can hide.
    let fixed = ["store.spare_segments_min", "store.seal_after_ms"];
    report(layers.iter().flat_map(|(layer, path)| {
        let text = fs::read_to_string(root().join(path)).expect("each layer has its options.rs");
        let code = code_of(&text, false);
        let body = code.split_once("pub struct Options {").and_then(|(_, rest)| rest.split_once("\n}"));
        let (body, _) = body.unwrap_or_else(|| panic!("{path} has no struct Options"));
        let fields = body.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split(':').next());
        fields
            .map(|field| (field, format!("{layer}.{field}")))
            .filter(|(_, key)| !names_word(&table, key) && !fixed.contains(&key.as_str()))
            .map(|(field, _)| format!("{path}: {field} has no row in src/config/table.rs"))
            .collect::<Vec<_>>()
    }));
}

/// A Rust file of this tree.
struct Source {
    name: String,
    text: String,
    /// Without comments, and with empty strings.
    code: String,
    /// Without comments.
    code_with_strings: String,
}

impl Source {
    /// `broker/queue` for `src/broker/queue/mod.rs` and for `src/broker/queue.rs`.
    fn module(&self) -> String {
        let path = self.name.strip_prefix("src/").unwrap_or(&self.name);
        let path = path.strip_suffix(".rs").unwrap_or(path);
        path.strip_suffix("/mod").unwrap_or(path).to_owned()
    }

    fn part(&self) -> &str {
        let path = self.name.strip_prefix("src/").unwrap_or(&self.name);
        path.split(['/', '.']).next().unwrap_or_default()
    }

    /// The code before the test module, which by the style of this tree comes last.
    fn code_without_tests(&self) -> String {
        let is_test_file =
            self.name.ends_with("/tests.rs") || self.name.contains("/tests/") || self.module().ends_with("_tests");
        if is_test_file {
            return String::new();
        }
        // `#[cfg(test)]` also stands before single helpers: each such item is cut out by its braces.
        let mut kept = String::new();
        let mut rest = self.code.as_str();
        while let Some(at) = rest.find("#[cfg(test)]") {
            kept.push_str(&rest[..at]);
            rest = after_item(&rest[at + "#[cfg(test)]".len()..]);
        }
        kept + rest
    }
}

/// What follows the first item of `code`: behind its `;` or its closing brace.
fn after_item(code: &str) -> &str {
    let mut depth = 0_usize;
    for (at, character) in code.char_indices() {
        match character {
            ';' if depth == 0 => return &code[at + 1..],
            '{' => depth += 1,
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return &code[at + 1..];
                }
            }
            _ => {}
        }
    }
    ""
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let mut paths = BTreeSet::new();
    for folder in folders {
        collect(&root().join(folder), &mut paths);
    }
    paths
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path).expect("a source file can be read");
            let name = path.strip_prefix(root()).expect("found below the root").display().to_string();
            Source { name, code: code_of(&text, false), code_with_strings: code_of(&text, true), text }
        })
        .collect()
}

fn collect(folder: &Path, paths: &mut BTreeSet<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("a folder can be listed").path();
        let is_foreign =
            path.file_name().is_some_and(|name| name == ".cache" || name == "target" || name == "node_modules");
        if path.is_dir() && !is_foreign {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.insert(path);
        }
    }
}

/// `text` without comments and, unless `keeps_strings`, with nothing between quotes.
fn code_of(text: &str, keeps_strings: bool) -> String {
    let bytes = text.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        if rest.starts_with(b"//") {
            at += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        } else if rest.starts_with(b"/*") {
            at += 2 + rest[2..].windows(2).position(|pair| pair == b"*/").map_or(rest.len() - 2, |end| end + 2);
        } else if let Some(hashes) = raw_string_hashes(bytes, at) {
            let close: Vec<u8> = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
            let open = 2 + hashes;
            let end = rest[open..].windows(close.len()).position(|window| window == close).unwrap_or(rest.len() - open);
            if keeps_strings {
                code.extend(&rest[open..open + end]);
            }
            code.extend(b"\"\"");
            at = (at + open + end + close.len()).min(bytes.len());
        } else if rest[0] == b'"' {
            let mut end = 1;
            while end < rest.len() && rest[end] != b'"' {
                end += if rest[end] == b'\\' { 2 } else { 1 };
            }
            let end = end.min(rest.len());
            if keeps_strings {
                code.extend(&rest[1..end]);
            }
            code.extend(b"\"\"");
            at += (end + 1).min(rest.len());
        } else if rest[0] == b'\'' {
            // A character is cut like a string; a lifetime has no closing quote near it.
            let length = match rest {
                [_, b'\\', b'x', _, _, b'\'', ..] => 6,
                [_, b'\\', b'u', tail @ ..] => tail.iter().position(|byte| *byte == b'\'').map_or(1, |end| end + 4),
                [_, b'\\', _, b'\'', ..] => 4,
                [_, _, b'\'', ..] => 3,
                _ => 1,
            };
            code.push(b' ');
            at += length;
        } else {
            code.push(rest[0]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&code).into_owned()
}

/// The number of `#` of a raw string that begins at `at`.
fn raw_string_hashes(bytes: &[u8], at: usize) -> Option<usize> {
    let is_part_of_a_name =
        at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_') && bytes[at - 1] != b'b';
    let rest = bytes[at..].strip_prefix(b"r")?;
    let hashes = rest.iter().take_while(|byte| **byte == b'#').count();
    (!is_part_of_a_name && rest.get(hashes) == Some(&b'"')).then_some(hashes)
}

/// Every path behind `crate::` in `code`, each branch of a `use` tree on its own.
fn crate_paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let is_whole = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
        if is_whole {
            branches(String::new(), &code[at + "crate::".len()..], &mut paths);
        }
    }
    paths
}

/// Reads one path of a `use` tree and returns what follows it.
fn branches<'a>(prefix: String, code: &'a str, paths: &mut Vec<String>) -> &'a str {
    let mut path = prefix;
    let mut rest = code.trim_start();
    loop {
        if let Some(mut inner) = rest.strip_prefix('{') {
            loop {
                inner = inner.trim_start();
                if let Some(after) = inner.strip_prefix('}') {
                    return after;
                }
                if inner.is_empty() {
                    return inner;
                }
                let before = inner.len();
                inner = branches(path.clone(), inner, paths).trim_start();
                inner = inner.strip_prefix(',').unwrap_or(inner);
                if inner.len() == before {
                    return "";
                }
            }
        }
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        let name = &rest[..end];
        if name == "self" {
            paths.push(path.clone());
        } else if !name.is_empty() {
            path = if path.is_empty() { name.to_owned() } else { format!("{path}::{name}") };
        }
        rest = rest[end..].trim_start();
        if let Some(after) = rest.strip_prefix("::") {
            rest = after.trim_start();
            continue;
        }
        rest = rest.strip_prefix('*').unwrap_or(rest);
        if name != "self" {
            paths.push(path);
        }
        if let Some(renamed) = rest.strip_prefix("as ") {
            let renamed = renamed.trim_start();
            rest = renamed.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
        }
        return rest;
    }
}

/// Whether `word` stands in `text` and no longer name of which it is a part.
fn names_word(text: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(is_name) && (word.ends_with("Tcp") || !text[at + word.len()..].starts_with(is_name))
    })
}

fn report(problems: impl Iterator<Item = String>) {
    let problems: Vec<String> = problems.collect();
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn comments_and_strings_are_no_code() {
    let text = "a // b\nc /* d */ \"e \\\" f\" r#\"g \" h\"# 'i' &'j k '\\'' '\"' l";
    let code = code_of(text, false);
    let words: Vec<&str> = code.split_whitespace().collect();
    assert_eq!(words, ["a", "c", "\"\"", "\"\"", "&", "j", "k", "l"]);
    assert!(code_of(text, true).contains("g \" h"));
}

#[test]
fn use_trees_are_followed_into_their_branches() {
    let code = "use crate::{a, b::{c as d, e::*}, f::{self, g}}; let x = crate::h::I::new(); macrocrate::no";
    assert_eq!(crate_paths(code), ["a", "b::c", "b::e", "f", "f::g", "h::I::new"]);
}

#[test]
fn test_modules_are_cut_out_by_their_braces() {
    let text = "fn a() {}\n#[cfg(test)]\nfn b() { x.unwrap() }\nfn c() {}\n#[cfg(test)]\nmod tests { fn d() { x.unwrap() } }\n";
    let source = Source {
        name: "src/x.rs".into(),
        code: code_of(text, false),
        code_with_strings: String::new(),
        text: text.into(),
    };
    let kept = source.code_without_tests();
    assert!(kept.contains("fn a") && kept.contains("fn c") && !kept.contains("unwrap"), "{kept}");
}
