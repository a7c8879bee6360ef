//! One invocation from its arguments to its exit code.
//!
//! The order is RabbitMQ's, because it decides what a failing call has printed by then: options,
//! number of arguments, arguments, state of the broker, banner, request, answer.

use std::io::{self, BufRead, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::call::{Connection, Error};
use super::format::Formatter;
use super::parse::{self, Parsed};
use super::verb::{Ask, Invalid, Invocation, Needs, Plan, Show, Verb};
use super::verbs::{self, described, listeners};
use super::{Program, help, prompt, wait};
use crate::admin::failure::{EXIT_DATA, EXIT_SOFTWARE, EXIT_TIMEOUT, EXIT_UNAVAILABLE, EXIT_USAGE, Failure, Kind};
use crate::admin::wire::{self, Listener};

/// Where a call reads and writes.
pub(super) struct Streams<'a> {
    pub(super) input: &'a mut dyn BufRead,
    pub(super) out: &'a mut dyn Write,
    pub(super) err: &'a mut dyn Write,
}

/// How a call ends that does not end well: what standard error says, and the exit code.
struct Exit {
    text: String,
    code: u8,
}

/// Carries out one command line and returns its exit code.
pub(super) fn run(arguments: &[String], program: Program, socket: &Path, streams: &mut Streams<'_>) -> u8 {
    match carry_out(arguments, program, socket, streams) {
        Ok(()) => 0,
        Err(exit) => {
            // What was said before must stand before; and there is nowhere left to complain to.
            let _ = streams.out.flush();
            if !exit.text.is_empty() {
                let _ = writeln!(streams.err, "{}", exit.text);
            }
            exit.code
        }
    }
}

fn carry_out(arguments: &[String], program: Program, socket: &Path, streams: &mut Streams<'_>) -> Result<(), Exit> {
    let first = parse::parse(arguments, &[parse::GLOBAL]);
    let Some(name) = first.words.first().filter(|name| !name.is_empty()) else {
        return without_verb(arguments, program, streams);
    };
    let Some(verb) = verbs::find(program, name) else {
        let said = match help::suggestion(program, name) {
            Some(suggestion) => format!("\nCommand '{name}' not found. \nDid you mean '{suggestion}'? \n"),
            None => format!("\nCommand '{name}' not found. \n{}", help::of_program(program)),
        };
        return Err(Exit { text: said, code: EXIT_USAGE });
    };
    let refuse = |invalid: Invalid| Exit {
        text: refusal("Error (argument validation)", &invalid.reason, arguments, program, verb),
        code: invalid.exit,
    };
    let call = invocation(arguments, &first, program, verb).map_err(refuse)?;
    if call.flag("help") {
        return say(streams.out, &help::of_verb(program, verb));
    }
    if call.words.len() < verb.arity.min {
        return Err(refuse(Invalid::usage("not enough arguments.")));
    }
    if call.words.len() > verb.arity.max {
        return Err(refuse(Invalid::usage("too many arguments.")));
    }
    let plan = (verb.plan)(&call).map_err(refuse)?;
    let failed = |error: Error| match error {
        Error::Declined(failure) if matches!(failure.kind, Kind::AppStopped | Kind::AppRunning) => {
            // A broker that was found stopped after a wait has been waited for in vain: no usage.
            let text = match failure.exit {
                EXIT_USAGE => refusal("Error", &failure.message, arguments, program, verb),
                _ => format!("Error:\n{}", failure.message),
            };
            Exit { text, code: failure.exit }
        }
        other => exit_of(other, verb, &call, socket),
    };
    execute(plan, &call, socket, streams, &failed)
}

/// `--version`, `--help`, or nothing at all.
fn without_verb(arguments: &[String], program: Program, streams: &mut Streams<'_>) -> Result<(), Exit> {
    if arguments.iter().any(|argument| argument == "--version") {
        return say(streams.out, env!("CARGO_PKG_VERSION"));
    }
    let text = help::of_program(program);
    match arguments.iter().any(|argument| argument == "--help") {
        true => say(streams.out, &text),
        false => Err(Exit { text, code: EXIT_USAGE }),
    }
}

/// Reads the line again, with the options of the verb and of the formatter.
fn invocation(
    arguments: &[String],
    first: &Parsed,
    program: Program,
    verb: &'static Verb,
) -> Result<Invocation, Invalid> {
    let formatter = match first.text("formatter") {
        None => Formatter::Table { headers: true },
        Some(name) => {
            Formatter::from_name(name).ok_or_else(|| Invalid::usage(format!("unknown formatter '{name}'.")))?
        }
    };
    let of_formatter = if formatter == (Formatter::Table { headers: true }) { parse::TABLE } else { &[] };
    let options = parse::parse(arguments, &[parse::GLOBAL, verb.switches, of_formatter]);
    if !options.invalid.is_empty() {
        let lines: String = options
            .invalid
            .iter()
            .map(|(name, value)| format!("\n{name} : {}", value.as_deref().unwrap_or_default()))
            .collect();
        return Err(Invalid::usage(format!("Invalid options for this command:{lines}")));
    }
    let words = options.words.get(1..).unwrap_or_default().to_vec();
    let headers = options.flag("table-headers").unwrap_or(true) && !options.flag("silent").unwrap_or(false);
    let formatter = match formatter {
        Formatter::Table { .. } => Formatter::Table { headers },
        other => other,
    };
    Ok(Invocation { program, words, options, formatter })
}

fn execute(
    plan: Plan,
    call: &Invocation,
    socket: &Path,
    streams: &mut Streams<'_>,
    failed: &dyn Fn(Error) -> Exit,
) -> Result<(), Exit> {
    let Plan { banner, ask, show, needs } = plan;
    let timeout_ms = match call.timeout_ms() {
        None if matches!(ask, Ask::Request(wire::Verb::ListQueues(_))) => Some(60_000),
        given => given,
    };
    let dry_run = call.flag("dry-run");
    let open = || Connection::open(socket, timeout_ms);
    let mut broker = match needs {
        Needs::Nothing => None,
        _ if dry_run => None,
        Needs::Started | Needs::Stopped => {
            let mut broker = open().map_err(failed)?;
            match (needs, broker.ping().map_err(failed)?.running) {
                (Needs::Started, false) => return Err(failed(Error::Declined(Failure::app_stopped()))),
                (Needs::Stopped, true) => return Err(failed(Error::Declined(Failure::app_running()))),
                _ => Some(broker),
            }
        }
    };
    if !banner.is_empty() && !call.is_quiet() && !call.formatter.is_for_programs() {
        say(streams.out, &banner)?;
    }
    if dry_run {
        return Ok(());
    }
    let checks_ports = matches!(ask, Ask::Listeners);
    let request = match ask {
        Ask::Nothing => return present(&show, &Json::Null, call, streams.out),
        Ask::Started { process } => {
            let (node, is_quiet) = (call.node(), call.is_quiet());
            let wait = wait::Wait { socket, node, timeout_ms: call.timeout_ms(), is_quiet };
            return wait.started(process, streams.out).map_err(failed);
        }
        Ask::Pong => {
            let mut broker = match broker {
                Some(broker) => broker,
                None => open().map_err(failed)?,
            };
            let pong = broker.ping().map_err(failed)?;
            return present(&show, &json!(pong), call, streams.out);
        }
        Ask::Shutdown => {
            let mut broker = open().map_err(failed)?;
            return shut_down(&mut broker, call, streams.out).map_err(failed);
        }
        Ask::Listeners => wire::Verb::Listeners {},
        Ask::Request(request) => request,
        Ask::WithPassword(request) => {
            if !call.is_quiet() {
                say(streams.out, "Password: ")?;
            }
            // The prompt must be seen before the answer is waited for.
            streams.out.flush().map_err(unwritten)?;
            let _hidden = prompt::hide_input();
            request(password(streams.input)?)
        }
        Ask::WithDefinitions(file) => wire::Verb::ImportDefinitions { definitions: definitions(file, streams.input)? },
    };
    let broker = match &mut broker {
        Some(broker) => broker,
        None => broker.insert(open().map_err(failed)?),
    };
    if let Show::Listing { columns, streams: is_stream, headers } = show {
        let formatter = match call.formatter {
            Formatter::Table { headers: wanted } => Formatter::Table { headers: wanted && headers },
            other => other,
        };
        let mut rows = formatter.rows(columns);
        let mut is_empty = true;
        let out = &mut *streams.out;
        broker
            .list(call.vhost(), request, |cells| {
                is_empty = false;
                rows.row(cells, out)
            })
            .map_err(failed)?;
        let ended = if is_empty && !is_stream { formatter.empty(out) } else { rows.end(out) };
        return ended.map_err(unwritten);
    }
    let answer = broker.ask(call.vhost(), request).map_err(failed)?;
    if checks_ports {
        connect_to_all(&listeners(&answer), call)?;
    }
    present(&show, &answer, call, streams.out)
}

/// Stops the broker and waits for the end of its process, telling of each step.
fn shut_down(broker: &mut Connection, call: &Invocation, out: &mut dyn Write) -> Result<(), Error> {
    let mut tell = |text: String| match call.is_quiet() {
        true => Ok(()),
        false => writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|_| Error::Output),
    };
    let node = call.node();
    let status = broker.ask("/", wire::Verb::Status {})?;
    let Some(pid) = status.get("pid").and_then(Json::as_u64) else {
        return broker.ask("/", wire::Verb::Stop {}).map(drop);
    };
    tell(format!("Shutting down RabbitMQ node {node} running at PID {pid}"))?;
    broker.ask("/", wire::Verb::Stop {})?;
    if call.options.flag("wait") == Some(false) {
        return Ok(());
    }
    tell(format!("Waiting for PID {pid} to terminate"))?;
    wait::ended(&pid.to_string(), call.timeout_ms())?;
    tell(format!("RabbitMQ node {node} running at PID {pid} successfully shut down"))
}

/// Shows what has one answer.
fn present(show: &Show, answer: &Json, call: &Invocation, out: &mut dyn Write) -> Result<(), Exit> {
    let exit = |(text, code)| Exit { text, code };
    let shown = match show {
        Show::Nothing => match call.formatter {
            Formatter::Json => writeln!(out, "{}", json!({"node": call.node(), "result": "ok"})),
            _ => Ok(()),
        },
        Show::OneOrNone(_) if answer.is_null() => call.formatter.empty(out),
        Show::OneOrNone(text) => call.formatter.message(&text(answer), out),
        Show::Sentence(text) => match text(answer, call).map_err(exit)? {
            text if text.is_empty() => Ok(()),
            text => call.formatter.message(&text, out),
        },
        Show::Object(of) => match of(answer, call).map_err(exit)? {
            (text, _) if text.is_empty() && call.formatter != Formatter::Json => Ok(()),
            (text, object) => call.formatter.object(&object, &text, out),
        },
        Show::Definitions(file) => {
            let written =
                serde_json::to_vec(answer).map_err(io::Error::from).and_then(|text| std::fs::write(file, text));
            written.map_err(|error| Exit { text: format!("Error:\ncannot write {file}: {error}"), code: EXIT_DATA })?;
            Ok(())
        }
        Show::Listing { .. } => Ok(()),
    };
    shown.map_err(unwritten)
}

/// What is said before a usage line.
fn refusal(heading: &str, reason: &str, arguments: &[String], program: Program, verb: &Verb) -> String {
    let (given, usage) = (arguments.join(" "), help::usage(program, verb));
    format!("{heading}: {reason}\nArguments given:\n\t{given}\n{usage}")
}

fn exit_of(error: Error, verb: &Verb, call: &Invocation, socket: &Path) -> Exit {
    let node = call.node();
    match error {
        Error::Declined(Failure { message, exit, bare: true, .. }) => Exit { text: message, code: exit },
        Error::Declined(Failure { message, exit, .. }) => Exit { text: format!("Error:\n{message}"), code: exit },
        Error::Timeout => {
            let (name, ms) = (verb.name, timeout_ms(verb, call));
            let text = format!("Error: operation {name} on node {node} timed out. Timeout value used: {ms}");
            Exit { text, code: EXIT_TIMEOUT }
        }
        Error::Unreachable(_) if verb.name == "ping" => {
            let ms = verbs::ping_timeout_ms(call);
            let text = format!("Error:\nFailed to connect and authenticate to {node} in {ms} ms");
            Exit { text, code: EXIT_UNAVAILABLE }
        }
        Error::Unreachable(reason) => Exit { text: unreachable_text(&node, socket, &reason), code: EXIT_UNAVAILABLE },
        Error::Output => Exit { text: String::new(), code: EXIT_SOFTWARE },
    }
}

fn timeout_ms(verb: &Verb, call: &Invocation) -> u64 {
    let default = match verb.name {
        "await_startup" => 300_000,
        "wait" => 10_000,
        _ => 60_000,
    };
    call.timeout_ms().unwrap_or(default)
}

fn unreachable_text(node: &str, socket: &Path, reason: &io::Error) -> String {
    let hint = match reason.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "No broker runs on this data directory. Start one with `tern serve`, or name the data directory of the \
             one that runs."
        }
        io::ErrorKind::PermissionDenied => {
            "The socket belongs to the user and group that the broker runs as: become one of them."
        }
        _ => "The broker closed the connection: its log says why.",
    };
    format!(
        "Error: unable to perform an operation on node '{node}'. Please see diagnostics information and suggestions \
         below.\n\nControl socket: {}\nReason: {reason}\n\n{hint}\n",
        socket.display()
    )
}

/// The first line of standard input.
fn password(input: &mut dyn BufRead) -> Result<String, Exit> {
    let mut line = String::new();
    let read = input.read_line(&mut line);
    let password = line.trim_end_matches(['\r', '\n']);
    match read {
        Ok(_) if !password.is_empty() => Ok(password.to_owned()),
        _ => Err(Exit { text: "Error:\nPassword is not provided via argument or stdin".to_owned(), code: EXIT_DATA }),
    }
}

fn definitions(file: Option<String>, input: &mut dyn BufRead) -> Result<Json, Exit> {
    let failed = |reason: String| Exit { text: format!("Error:\n{reason}"), code: EXIT_DATA };
    let mut text = Vec::new();
    match &file {
        Some(file) => text = std::fs::read(file).map_err(|error| failed(format!("cannot read {file}: {error}")))?,
        None => {
            input.read_to_end(&mut text).map_err(|error| failed(format!("cannot read standard input: {error}")))?;
        }
    }
    serde_json::from_slice(&text).map_err(|error| {
        let reason = match error.is_eof() {
            true => ":unexpected_end_of_buffer".to_owned(),
            false => error.to_string(),
        };
        failed(format!("Failed to deserialise input (format: JSON) (error: {reason})"))
    })
}

/// Connects to every port, as a client on this machine would.
fn connect_to_all(listeners: &[Listener], call: &Invocation) -> Result<(), Exit> {
    let refused: Vec<_> = listeners.iter().filter(|listener| !is_connectable(listener)).map(described).collect();
    if refused.is_empty() {
        return Ok(());
    }
    let (node, refused) = (call.node(), refused.join("\n"));
    let text = format!("Error:\nConnection to ports of the following listeners on node {node} failed:\n{refused}");
    Err(Exit { text, code: EXIT_UNAVAILABLE })
}

fn is_connectable(listener: &Listener) -> bool {
    const TIMEOUT: Duration = Duration::from_secs(5);
    let address = listener.interface.trim_matches(['[', ']']).parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let address = if address.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { address };
    TcpStream::connect_timeout(&SocketAddr::new(address, listener.port), TIMEOUT).is_ok()
}

fn say(out: &mut dyn Write, text: &str) -> Result<(), Exit> {
    writeln!(out, "{text}").map_err(unwritten)
}

/// A reader that went away is not told so.
fn unwritten(_: io::Error) -> Exit {
    Exit { text: String::new(), code: EXIT_SOFTWARE }
}
