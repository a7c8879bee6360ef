//! Replays the corpora of the fuzz targets, then mutates them for a while, on a stable compiler.
//!
//! `TERN_FUZZ_SECONDS` is how long each target is mutated (default 5), `TERN_FUZZ_SEED` repeats a
//! run. A failure prints the seed and the input.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may fail, take its time and say what it saw"
)]

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::{Duration, Instant, SystemTime},
};

mod targets;

fn replay_and_mutate(name: &str) {
    let (_, target) = targets::TARGETS.iter().find(|(known, _)| *known == name).expect("a known target");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/fuzz/corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let corpus: Vec<Vec<u8>> = files.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(!corpus.is_empty(), "{} has no inputs", folder.display());
    for (path, input) in files.iter().zip(&corpus) {
        run(*target, input, &path.display().to_string());
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seconds = number("TERN_FUZZ_SECONDS").unwrap_or(5);
    let seed = number("TERN_FUZZ_SEED").unwrap_or_else(|| {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64)
    });
    let mut random = Random(seed | 1);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut runs = 0_u64;
    while Instant::now() < end {
        for _ in 0..16 {
            let input = mutated(&corpus, &mut random);
            run(*target, &input, &format!("run {runs} of TERN_FUZZ_SEED={seed}"));
            runs += 1;
        }
    }
    println!("{name}: {} inputs replayed, {runs} mutations with TERN_FUZZ_SEED={seed}", corpus.len());
}

fn run(target: fn(&[u8]), input: &[u8], what: &str) {
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
        let octets: String = input.iter().map(|octet| format!("\\x{octet:02x}")).collect();
        panic!("{what} failed on b\"{octets}\"");
    }
}

/// Numbers that are random enough and depend on the seed only.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit.max(1)
    }
}

/// Octets that parsers like least: ends of ranges, signs, lengths, marks of the formats.
const DISLIKED: &[&[u8]] = &[
    b"\x00",
    b"\xFF",
    b"\x7F",
    b"\x80",
    b"\xCE",
    b"\x00\x00\x00\x00",
    b"\xFF\xFF\xFF\xFF",
    b"\x7F\xFF\xFF\xFF",
    b"F",
    b"A",
    b"S",
    b"\"",
    b"{",
    b"[",
    b"]",
    b"=",
    b"\n",
    b"-1",
    b"99999999999999999999",
    b"\xC3\xA9",
    b"\xC3",
];

fn mutated(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(6) {
        let at = random.below(input.len() + 1);
        let len = random.below(16).min(input.len() - at);
        match random.below(8) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 if at < input.len() => input[at] = random.below(256) as u8,
            2 => drop(input.drain(at..at + len)),
            3 => {
                let copy = input[at..at + len].to_vec();
                let to = random.below(input.len() + 1);
                input.splice(to..to, copy);
            }
            4 => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len() + 1);
                let part = other[from..].iter().take(1 + random.below(200)).copied().collect::<Vec<_>>();
                input.splice(at..at, part);
            }
            5 => input.truncate(at),
            _ => {
                let octets = DISLIKED[random.below(DISLIKED.len())];
                let end = if random.below(2) == 0 { at } else { (at + octets.len()).min(input.len()) };
                input.splice(at..end, octets.iter().copied());
            }
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

const INPUT_BYTES_MAX: usize = 64 * 1024;

#[test]
fn frames_survive_anything() {
    replay_and_mutate("frames");
}

#[test]
fn tables_survive_anything() {
    replay_and_mutate("tables");
}

#[test]
fn properties_survive_anything() {
    replay_and_mutate("properties");
}

#[test]
fn sessions_survive_anything() {
    replay_and_mutate("session");
}

#[test]
fn proxy_headers_survive_anything() {
    replay_and_mutate("proxy");
}

#[test]
fn definitions_survive_anything() {
    replay_and_mutate("definitions");
}

#[test]
fn settings_survive_anything() {
    replay_and_mutate("settings");
}

#[test]
fn records_survive_anything() {
    replay_and_mutate("records");
}

#[test]
fn selectors_survive_anything() {
    replay_and_mutate("selector");
}

#[test]
fn filter_policies_survive_anything() {
    replay_and_mutate("filter");
}

#[test]
fn frames_of_stomp_survive_anything() {
    replay_and_mutate("stomp");
}

#[test]
fn sessions_of_stomp_survive_anything() {
    replay_and_mutate("stomp_session");
}

#[test]
fn forms_of_the_query_protocol_survive_anything() {
    replay_and_mutate("aws_query");
}

#[test]
fn calls_in_json_survive_anything() {
    replay_and_mutate("aws_json");
}

#[test]
fn access_policies_survive_anything() {
    replay_and_mutate("aws_policy");
}

#[test]
fn signatures_survive_anything() {
    replay_and_mutate("aws_signature");
}
