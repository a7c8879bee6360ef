//! Whole calls against a broker that is played by the test.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;

use serde_json::{Value as Json, json};

use super::{Program, session};
use crate::admin::failure::Failure;
use crate::admin::wire::{Answer, Pong, Request, Verb};

/// What a call printed, and its exit code.
#[derive(Debug, PartialEq)]
pub(super) struct Said {
    pub(super) out: String,
    pub(super) err: String,
    pub(super) code: u8,
}

/// A folder with a control socket on which `answer` answers; pings are answered as started.
pub(super) struct Broker {
    folder: tempfile::TempDir,
}

impl Broker {
    pub(super) fn answering(answer: impl Fn(Request) -> Vec<Answer> + Send + 'static) -> Self {
        Self::new(true, answer)
    }

    pub(super) fn stopped(answer: impl Fn(Request) -> Vec<Answer> + Send + 'static) -> Self {
        Self::new(false, answer)
    }

    fn new(running: bool, answer: impl Fn(Request) -> Vec<Answer> + Send + 'static) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let listener = UnixListener::bind(folder.path().join("control.sock")).expect("a free name");
        // Ends with the test's process: it owns nothing but the listener.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(stream);
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
                    let request: Request = serde_json::from_str(&line).expect("a request");
                    line.clear();
                    let answers = match request.verb {
                        Verb::Ping {} => vec![Answer::Ok { ok: json!(Pong { running }) }],
                        _ => answer(request),
                    };
                    for answer in answers {
                        let answer = serde_json::to_string(&answer).expect("answers are JSON");
                        if writeln!(reader.get_mut(), "{answer}").is_err() {
                            break;
                        }
                    }
                }
            }
        });
        Self { folder }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    pub(super) fn call(&self, line: &[&str]) -> Said {
        call(Program::Ctl, &self.socket(), line, "")
    }
}

pub(super) fn call(program: Program, socket: &Path, line: &[&str], input: &str) -> Said {
    let arguments: Vec<_> = line.iter().map(|&argument| argument.to_owned()).collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut streams = session::Streams { input: &mut input.as_bytes(), out: &mut out, err: &mut err };
    let code = session::run(&arguments, program, socket, &mut streams);
    let text = |bytes| String::from_utf8(bytes).expect("output is text");
    Said { out: text(out), err: text(err), code }
}

fn listing(columns: &[&str], rows: &[Json]) -> Vec<Answer> {
    let columns = columns.iter().map(|&name| name.to_owned()).collect();
    let rows = rows.iter().map(|row| Answer::Row(row.as_array().expect("rows are arrays").clone()));
    [Answer::Columns { columns }].into_iter().chain(rows).chain([Answer::END]).collect()
}

#[test]
fn request_carries_verb_vhost_and_arguments() {
    let broker = Broker::answering(|request| {
        let asked = json!(request);
        assert_eq!(
            asked,
            json!({"verb": "list_queues", "vhost": "v1",
                   "args": {"columns": ["name", "state"], "online": false, "offline": false}})
        );
        listing(&["name", "state"], &[json!(["q", "running"])])
    });
    let said = broker.call(&["-q", "-p", "v1", "list_queues", "name", "state"]);
    assert_eq!(said, Said { out: "name\tstate\nq\trunning\n".into(), err: String::new(), code: 0 });
}

#[test]
fn failure_ends_with_its_exit_code_and_text() {
    let broker = Broker::answering(|request| vec![Failure::no_such_queue(&request.verb).into()]);
    let said = broker.call(&["-q", "purge_queue", "missing"]);
    assert_eq!(said, Said { out: String::new(), err: "Error:\nnot_found\n".into(), code: 69 });
}

#[test]
fn failure_may_end_a_listing_half_way() {
    let broker = Broker::answering(|_| {
        let mut answers = listing(&["name", "messages"], &[json!(["q", 1])]);
        answers.pop();
        answers.push(Failure::bad_request("stopping").into());
        answers
    });
    let said = broker.call(&["-q", "list_queues"]);
    assert_eq!((said.out.as_str(), said.err.as_str(), said.code), ("name\tmessages\nq\t1\n", "Error:\nstopping\n", 70));
}

#[test]
fn stopped_broker_is_told_of_before_the_banner() {
    let broker = Broker::stopped(|_| vec![Answer::DONE]);
    let said = broker.call(&["list_users"]);
    assert_eq!((said.out.as_str(), said.code), ("", 64));
    assert!(said.err.starts_with("Error: this command requires the 'rabbit' app to be running"));
    assert_eq!(broker.call(&["reset"]).code, 0);
    assert_eq!(broker.call(&["ping"]).code, 0);
    let said = call(Program::Diagnostics, &broker.socket(), &["-q", "check_running"], "");
    assert_eq!(said.code, 69);
}

#[test]
fn missing_broker_is_unavailable() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("control.sock");
    let said = call(Program::Ctl, &socket, &["-n", "a@b", "list_users"], "");
    assert_eq!((said.out.as_str(), said.code), ("", 69));
    assert!(said.err.contains("control.sock") && said.err.contains("tern serve"));
    let said = call(Program::Diagnostics, &socket, &["-q", "-n", "a@b", "ping"], "");
    assert_eq!((said.err.as_str(), said.code), ("Error:\nFailed to connect and authenticate to a@b in 60000 ms\n", 69));
}

#[test]
fn password_is_read_from_standard_input() {
    let broker = Broker::answering(|request| {
        assert_eq!(request.verb, Verb::AddUser { name: "bob".into(), password: "secret".into() });
        vec![Answer::DONE]
    });
    let said = call(Program::Ctl, &broker.socket(), &["add_user", "bob"], "secret\n");
    assert!(said.out.starts_with("Adding user \"bob\" ...\nPassword: \nDone."));
    assert_eq!(said.code, 0);
    let said = call(Program::Ctl, &broker.socket(), &["add_user", "bob"], "");
    assert_eq!((said.err.as_str(), said.code), ("Error:\nPassword is not provided via argument or stdin\n", 65));
}

#[test]
fn silent_broker_times_out() {
    let broker = Broker::answering(|_| Vec::new());
    let said = broker.call(&["-q", "-n", "a@b", "-t", "1", "list_queues"]);
    assert_eq!(said.code, 75);
    assert_eq!(said.err, "Error: operation list_queues on node a@b timed out. Timeout value used: 1000\n");
}

#[test]
fn stopped_broker_is_awaited_until_the_timeout() {
    let broker = Broker::stopped(|_| Vec::new());
    let said = broker.call(&["await_startup", "-t", "1"]);
    assert_eq!((said.err.as_str(), said.code), ("Error:\nrabbit_is_not_running\n", 69));
}

#[test]
fn unknown_formatter_is_a_usage_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let said = call(Program::Ctl, &folder.path().join("none"), &["list_queues", "--formatter", "nonsense"], "");
    assert_eq!(said.code, 64);
}

#[test]
fn definitions_go_to_a_file_and_come_from_one() {
    let broker = Broker::answering(|request| match request.verb {
        Verb::ExportDefinitions {} => vec![Answer::Ok { ok: json!({"users": []}) }],
        Verb::ImportDefinitions { definitions } => {
            assert_eq!(definitions, json!({"users": []}));
            vec![Answer::DONE]
        }
        other => panic!("unexpected {other:?}"),
    });
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("definitions.json");
    let file = file.to_str().expect("a plain name");
    assert_eq!(broker.call(&["export_definitions", file]).code, 0);
    assert_eq!(
        broker.call(&["-q", "import_definitions", file]),
        Said { out: String::new(), err: String::new(), code: 0 }
    );
}

#[test]
fn port_that_refuses_fails_the_check_of_ports() {
    // Bound and closed again: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let broker = Broker::answering(move |_| {
        let listener =
            json!({"interface": "127.0.0.1", "node": "a@b", "port": port, "protocol": "amqp", "purpose": ""});
        vec![Answer::Ok { ok: json!([listener]) }]
    });
    let said = call(Program::Diagnostics, &broker.socket(), &["-q", "check_port_connectivity"], "");
    assert_eq!((said.out.as_str(), said.code), ("", 69));
}
