//! Conversations that were recorded with another broker: what both dialects need to replay them and compare.

use std::collections::BTreeMap;

use serde_json::Value as Json;

/// What was heard in one step, and whether the end was seen after it.
pub(crate) type Step = (Vec<String>, bool);

/// A frame with its headers in order.
pub(crate) fn in_order(frame: &str) -> String {
    let (head, body) = frame.split_once("\n\n").unwrap_or((frame, ""));
    let (command, headers) = head.split_once('\n').unwrap_or((head, ""));
    let mut headers: Vec<&str> = headers.lines().collect();
    headers.sort_unstable();
    let headers: String = headers.iter().map(|line| format!("{line}\n")).collect();
    format!("{command}\n{headers}\n{body}")
}

/// What a step sends: `QUEUE` is the conversation's name, and each of `words` the last such header that was heard.
pub(crate) fn octets(step: &Json, name: &str, words: &[(&str, &str)], said: &[String]) -> String {
    let mut octets = step["send"].as_str().unwrap().replace("QUEUE", name);
    for (word, header) in words {
        if octets.contains(word) {
            octets = octets.replace(word, &last(said, header).unwrap_or_default());
        }
    }
    octets
}

fn last(said: &[String], header: &str) -> Option<String> {
    let lines = said.iter().rev().flat_map(|frame| frame.lines());
    lines.filter_map(|line| line.strip_prefix(header)?.strip_prefix(':')).next().map(str::to_owned)
}

/// Plays all conversations of a file, each under a name of its own, and compares: they go as recorded but for those
/// that `differs` lists, and those differ. `mend` is applied to both sides before.
pub(crate) fn compare(
    (conversations, differs): (&str, &str),
    prefix: &str,
    mend: impl Fn(&mut Step),
    mut play: impl FnMut(&[Json], &str) -> Vec<Step>,
) {
    let conversations: Json = serde_json::from_str(conversations).unwrap();
    let lines = differs.lines().filter(|line| !line.starts_with('#'));
    let differs: BTreeMap<&str, &str> = lines.map(|line| line.split_once(" | ").expect("NAME | REASON")).collect();
    let (mut problems, mut names) = (Vec::new(), Vec::new());
    for (number, conversation) in conversations.as_array().unwrap().iter().enumerate() {
        let name = conversation["name"].as_str().unwrap();
        names.push(name);
        let steps = conversation["steps"].as_array().unwrap();
        let heard = |step: &Json| {
            let frames = step["heard"].as_array().into_iter().flatten().map(|frame| frame.as_str().unwrap().to_owned());
            (frames.collect(), step["closed"] == true)
        };
        let mut recorded: Vec<Step> = steps.iter().map(heard).collect();
        let mut played = play(steps, &format!("{prefix}{number}x"));
        recorded.iter_mut().chain(&mut played).for_each(&mend);
        match (played == recorded, differs.contains_key(name)) {
            (true, true) => problems.push(format!("{name}: listed as different, and is not")),
            (false, false) => problems.push(format!("{name}:\n  recorded {recorded:#?}\n  played {played:#?}")),
            _ => {}
        }
    }
    let unknown = differs.keys().filter(|name| !names.contains(name));
    problems.extend(unknown.map(|name| format!("{name}: there is no such conversation")));
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
