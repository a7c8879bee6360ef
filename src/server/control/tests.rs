//! The control socket with real clients, `tern ctl` among them, and a broker without listeners.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::PathBuf,
    sync::atomic::Ordering,
};

use serde_json::Value as Json;
use tempfile::TempDir;
use tokio::task::AbortHandle;

use super::*;
use crate::{
    admin::{tests::Desk, wire::Verb},
    broker::value::Table,
    cli::ctl,
};

/// A served socket.
struct Served {
    desk: Desk,
    dir: TempDir,
    task: AbortHandle,
}

impl Served {
    fn start() -> Self {
        Self::with(Desk::new())
    }

    fn with(desk: Desk) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = bind(dir.path(), 0o660).unwrap();
        let task = tokio::spawn(serve(socket, desk.broker.clone(), desk.node.clone())).abort_handle();
        Self { desk, dir, task }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    /// What `tern ctl` writes, and its exit code.
    async fn ctl(&self, arguments: &'static [&'static str]) -> (String, String, u8) {
        let path = self.path();
        spawn_blocking(move || ctl::captured(arguments, &path)).await.unwrap()
    }

    /// The answers to lines, each up to its last one.
    async fn exchange(&self, lines: Vec<String>) -> Vec<Json> {
        let path = self.path();
        let talk = move || {
            let mut stream = UnixStream::connect(path).unwrap();
            let mut input = BufReader::new(stream.try_clone().unwrap()).lines();
            let answer = |line: String| {
                stream.write_all(format!("{line}\n").as_bytes()).unwrap();
                serde_json::from_str(&input.next().unwrap().unwrap()).unwrap()
            };
            lines.into_iter().map(answer).collect()
        };
        spawn_blocking(talk).await.unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn request(verb: Verb) -> String {
    serde_json::to_string(&Request { verb, vhost: "/".into() }).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ctl_administers_the_broker_behind_the_socket() {
    let served = Served::start();
    let (out, err, code) = served.ctl(&["-q", "add_user", "bob", "secret"]).await;
    assert_eq!((out.as_str(), err.as_str(), code), ("", "", 0));
    assert!(served.desk.broker.access.authenticate("bob", b"secret").is_ok());
    let (out, _, code) = served.ctl(&["-q", "list_users"]).await;
    assert_eq!((out.as_str(), code), ("user\ttags\nbob\t[]\nguest\t[administrator]\n", 0));
    let (_, err, code) = served.ctl(&["delete_user", "nobody"]).await;
    assert_eq!((err.as_str(), code), ("Error:\nUser \"nobody\" does not exist\n", 67));
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_broker_is_started_again_over_the_socket() {
    let served = Served::start();
    assert_eq!(served.ctl(&["stop_app"]).await.2, 0);
    assert_eq!(served.ctl(&["list_queues"]).await.2, 64);
    assert_eq!(served.ctl(&["reset"]).await.2, 0);
    assert_eq!(served.ctl(&["start_app"]).await.2, 0);
    assert_eq!(served.ctl(&["await_startup"]).await.2, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn listing_of_many_rows_arrives_whole() {
    let desk = Desk::new();
    (0..1500).for_each(|i| desk.queue(&format!("q{i:04}"), Table::new()));
    let served = Served::with(desk);
    let (out, _, code) = served.ctl(&["-s", "list_queues", "name", "pid", "arguments", "memory", "state"]).await;
    assert_eq!((out.lines().count(), code), (1500, 0));
    assert!(out.lines().last().unwrap().starts_with("q1499\t"), "{:?}", out.lines().last());
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_does_not_read_holds_up_nobody() {
    let desk = Desk::new();
    (0..1500).for_each(|i| desk.queue(&format!("{i:0200}"), Table::new()));
    let served = Served::with(desk);
    let mut lazy = UnixStream::connect(served.path()).unwrap();
    let listing = crate::admin::tests::columns(&["name", "arguments", "pid", "state", "name", "name"]);
    writeln!(lazy, "{}", request(Verb::ListQueues(listing))).unwrap();
    let (out, _, _) = served.ctl(&["-s", "list_queues", "name"]).await;
    assert_eq!(out.lines().count(), 1500);
    served.desk.queue("made meanwhile", Table::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn line_that_is_no_request_is_answered_and_the_next_one_served() {
    let served = Served::start();
    let answers = served.exchange(vec!["nonsense".into(), request(Verb::Ping {})]).await;
    assert_eq!(answers[0]["error"]["kind"], "bad_request");
    assert_eq!(answers[1], json!({"ok": {"running": true}}));
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_connections_are_counted() {
    let served = Served::start();
    let connections = [served.desk.connect("guest", "/"), served.desk.connect("guest", "/")];
    let verb = Verb::CloseAllConnections { reason: "why".into(), global: false, limit: 0, delay_ms: 1 };
    assert_eq!(served.exchange(vec![request(verb)]).await, [json!({"ok": {"closed": 2}})]);
    assert!(connections.iter().all(|connection| connection.reason().as_deref() == Some("why")));
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_is_answered_before_the_node_is_told() {
    let served = Served::start();
    // The second answer shows that the first request is over.
    let answers = served.exchange(vec![request(Verb::Stop {}), request(Verb::Ping {})]).await;
    assert_eq!(answers[0], json!({"ok": null}));
    assert!(served.desk.node.is_stopping.load(Ordering::Relaxed));
}

#[tokio::test]
async fn socket_is_for_owner_and_group_and_goes_with_its_server() {
    let dir = tempfile::tempdir().unwrap();
    let socket = bind(dir.path(), 0o660).unwrap();
    let path = dir.path().join("control.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    drop(socket);
    assert!(!path.exists());
}

#[tokio::test]
async fn socket_of_a_dead_process_is_replaced_and_that_of_a_living_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    // A process that was killed leaves its socket file behind, and no lock.
    drop(std::os::unix::net::UnixListener::bind(dir.path().join("control.sock")).unwrap());
    let living = bind(dir.path(), 0o660).unwrap();
    let refused = bind(dir.path(), 0o660).err().map(|error| error.to_string());
    let expected = format!("another tern runs on this data directory: {}", dir.path().display());
    assert_eq!(refused.as_deref(), Some(expected.as_str()));
    assert!(UnixStream::connect(dir.path().join("control.sock")).is_ok());
    drop(living);
    assert!(bind(dir.path(), 0o660).is_ok());
}
