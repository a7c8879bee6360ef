//! `tern store inspect`, `verify` and `salvage`, and `tern doctor`: what they print, and their exit status.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value as Json;
use ternmq::store::Position;

use crate::fixture::{copy, start};

fn tern(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tern"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TERN_") || name.starts_with("RABBITMQ_")) {
        command.env_remove(name);
    }
    command.current_dir(std::env::temp_dir()).args(arguments).output().unwrap()
}

fn status(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(output: &Output) -> Json {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn path(dir: &Path) -> &str {
    dir.to_str().unwrap()
}

/// Names, lengths and contents of all files.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            files.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    files.sort();
    files
}

/// The first file of a folder whose name begins so.
fn file(data: &Path, folder: &str, prefix: &str) -> PathBuf {
    let files = contents(&data.join(folder)).into_iter().map(|(path, _)| path);
    files.into_iter().find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix)).unwrap()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 4;
    fs::write(path, bytes).unwrap();
}

#[test]
fn inspect_shows_what_is_there_and_changes_nothing() {
    let (_temp, data) = copy();
    let before = contents(&data);
    let output = tern(&["store", "inspect", path(&data)]);
    let text = stdout(&output);
    assert_eq!(status(&output), 0, "{text}");
    for part in
        ["not in use", "log format 1", "SEGMENT", "settle", "kind 200", "COLD", "checkpoint   3, covers", "run-0000"]
    {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    let found = json(&tern(&["store", "inspect", "--json", path(&data)]));
    assert_eq!(
        found["log"]["segments"].as_array().unwrap().iter().map(|one| one["records"].as_u64().unwrap()).sum::<u64>(),
        120
    );
    assert_eq!(found["log"]["segments"][0]["epoch_last"], 4);
    assert_eq!(found["log"]["torn"], false);
    assert_eq!(found["log"]["cold"][0]["records"], 2);
    assert_eq!(found["index"]["checkpoint"]["number"], 3);
    assert_eq!(found["damage"], Json::Array(Vec::new()));
    // The folder of the log alone.
    assert_eq!(status(&tern(&["store", "inspect", path(&data.join("log"))])), 0);
    assert!(contents(&data) == before, "inspecting changes nothing");
}

#[test]
fn a_directory_in_use_is_looked_at_and_said_to_be_so() {
    let (_temp, data) = copy();
    let (log, _) = start(&data, Position(0)).unwrap();
    for verb in ["inspect", "verify"] {
        let output = tern(&["store", verb, path(&data)]);
        assert_eq!(status(&output), 0, "{output:?}");
        assert!(stdout(&output).contains("IN USE by a running broker"), "{output:?}");
    }
    let output = tern(&["store", "salvage", path(&data), "--to", path(&data.with_file_name("new"))]);
    assert_eq!(status(&output), 2);
    assert!(String::from_utf8_lossy(&output.stderr).contains("is in use by another process"), "{output:?}");
    log.close();
}

#[test]
fn verify_names_file_segment_and_position_of_damage() {
    let (_temp, data) = copy();
    let output = tern(&["store", "verify", path(&data)]);
    assert_eq!((status(&output), stdout(&output).contains("nothing is damaged")), (0, true), "{output:?}");
    let (segment, run) = (file(&data, "log", "0000000000000002"), file(&data, "index", "run-"));
    flip(&segment, 9000);
    flip(&run, 100);
    let before = contents(&data);
    let output = tern(&["store", "verify", path(&data)]);
    let text = stdout(&output);
    assert_eq!(status(&output), 1, "{text}");
    assert!(text.contains(&format!("DAMAGED: {} (segment 2), position ", segment.display())), "{text}");
    assert!(text.contains("checksum of the batch"), "{text}");
    assert!(text.contains(&format!("DAMAGED: {}, byte 0, 4096 bytes: ", run.display())), "{text}");
    assert!(text.contains("tern store salvage"), "{text}");
    let found = json(&tern(&["store", "verify", "--json", path(&data)]));
    assert_eq!((found["clean"].as_bool(), found["damage"].as_array().unwrap().len()), (Some(false), 2));
    assert!(contents(&data) == before, "verifying changes nothing");
}

#[test]
fn salvage_makes_a_directory_that_starts() {
    let (temp, data) = copy();
    let new = temp.path().join("new");
    let output = tern(&["store", "salvage", path(&data), "--to", path(&new)]);
    assert_eq!(status(&output), 0, "{output:?}");
    assert!(stdout(&output).contains("everything that was ever confirmed"), "{output:?}");
    // A second time there is something already.
    let output = tern(&["store", "salvage", path(&data), "--to", path(&new)]);
    assert_eq!(status(&output), 2);
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not empty"), "{output:?}");

    flip(&file(&data, "log", "0000000000000002"), 9100);
    let before = contents(&data);
    let newer = temp.path().join("newer");
    let output = tern(&["store", "salvage", path(&data), "--to", path(&newer)]);
    assert_eq!(status(&output), 1, "{output:?}");
    assert!(stdout(&output).contains("LOST: ") && stdout(&output).contains("0000000000000002.seg, position "));
    assert!(contents(&data) == before, "the damaged directory is only read");
    assert_eq!(status(&tern(&["store", "verify", path(&newer)])), 0);
    assert!(start(&data, Position(0)).is_err());
    let (log, records) = start(&newer, Position(0)).unwrap();
    assert_eq!(records.len(), 119);
    log.close();
}

#[test]
fn what_nothing_can_be_said_of_exits_with_2() {
    let empty = tempfile::tempdir().unwrap();
    let output = tern(&["store", "verify", path(empty.path())]);
    assert_eq!(status(&output), 2);
    assert!(String::from_utf8_lossy(&output.stderr).contains("is no data directory"), "{output:?}");
    assert_eq!(status(&tern(&["store", "verify"])), 2);
    let (_temp, data) = copy();
    let path_newer = file(&data, "log", "0000");
    let mut bytes = fs::read(&path_newer).unwrap();
    bytes[8] = 2;
    fs::write(&path_newer, bytes).unwrap();
    let output = tern(&["store", "verify", path(&data)]);
    assert_eq!(status(&output), 2);
    assert!(String::from_utf8_lossy(&output.stderr).contains("format version 2"), "{output:?}");
}

#[test]
fn doctor_says_what_is_bad_and_what_to_do() {
    let temp = tempfile::tempdir().unwrap();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let listen = format!("amqp.listeners={taken}");
    let output = tern(&["doctor", path(temp.path()), "--set", &listen]);
    let text = stdout(&output);
    assert_eq!(status(&output), 1, "{text}");
    assert!(text.contains(&format!("{taken} is taken by another process")) && text.contains("-> `ss -tlnp`"), "{text}");
    for check in
        ["settings", "data directory", "file system", "disk sync", "free space", "open files", "memory", "clock"]
    {
        assert!(text.contains(check), "{check:?} is not in {text}");
    }
    drop(holder);
    let output = tern(&["doctor", "--json", path(temp.path()), "--set", "amqp.port=0", "--set", "stomp.port=0"]);
    let found = json(&output);
    let bad = found["findings"].as_array().unwrap().iter().filter(|one| one["health"] == "bad").count();
    assert_eq!((status(&output) == 0, found["healthy"].as_bool()), (bad == 0, Some(bad == 0)), "{found}");
    let output = tern(&["doctor", path(temp.path()), "--set", "amqp.port=none"]);
    assert_eq!((status(&output), stdout(&output).contains("amqp.port")), (1, true), "{output:?}");
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
}
