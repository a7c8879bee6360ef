//! The list of what ActiveMQ's own tests check names tests and conversations that are there.

use serde_json::Value as Json;

const LIST: &str = include_str!("checklist.txt");
/// The modules that it names.
const MODULES: [(&str, &str); 10] = [
    ("advisories", include_str!("advisories.rs")),
    ("crossing", include_str!("crossing.rs")),
    ("destinations", include_str!("destinations.rs")),
    ("durable", include_str!("durable.rs")),
    ("later", include_str!("later.rs")),
    ("login", include_str!("login.rs")),
    ("messages", include_str!("messages.rs")),
    ("permissions", include_str!("permissions.rs")),
    ("selective", include_str!("selective.rs")),
    ("settles", include_str!("settles.rs")),
];

#[test]
fn what_the_checklist_names_is_there() {
    let mut conversations = Vec::new();
    for file in [include_str!("conversations.json"), include_str!("further.json")] {
        let file: Json = serde_json::from_str(file).unwrap();
        conversations.extend(file.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()));
    }
    let is_there = |proof: &str| match proof.split_once("::") {
        Some((module, test)) => {
            let file = MODULES.iter().find(|(name, _)| *name == module);
            file.is_some_and(|(_, code)| code.contains(&format!("#[test]\nfn {test}() {{")))
        }
        None => {
            let name = proof.trim_start_matches("conversations ").trim_matches('"');
            conversations.iter().any(|known| known == name)
        }
    };
    let mut missing = Vec::new();
    for line in LIST.lines().filter(|line| !line.starts_with('#')) {
        let (_, proofs) = line.split_once(" | ").expect("NAMES | PROOFS");
        if proofs.starts_with("not here: ") || proofs.starts_with("refused: ") {
            continue;
        }
        missing.extend(proofs.split(", ").filter(|proof| !is_there(proof)));
    }
    assert!(missing.is_empty(), "{missing:?}");
}
