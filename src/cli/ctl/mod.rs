//! `tern ctl`: RabbitMQ's `rabbitmqctl` and `rabbitmq-diagnostics`, with their verbs, options,
//! output and exit codes, over the control socket of a running broker.
//!
//! Also when the binary is called by one of these names, so that other people's scripts, container
//! health checks and test suites drive a broker unchanged. Blocking sockets and no runtime: a call
//! is over in a few milliseconds.
//!
//! A call is: `parse` the options, find the `verb`, let it make a plan of the arguments, check that
//! the broker is in the state that the verb needs, say the banner, `call` the broker, show the
//! answer in the `format` that was asked for. `session` is this order; what each verb is, is in
//! `verbs`.

mod call;
mod cell;
mod csv;
mod erlang;
mod format;
mod help;
mod json_lines;
mod node;
mod parse;
mod pretty_table;
mod prompt;
mod session;
mod status;
mod table;
mod term;
mod verb;
mod verbs;
mod wait;

#[cfg(test)]
mod recorded_tests;
#[cfg(test)]
mod session_tests;

use std::ffi::OsStr;
use std::io::{self, BufWriter};
use std::path::Path;
use std::process::ExitCode;

/// The program whose part is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `rabbitmqctl`
    Ctl,
    /// `rabbitmq-diagnostics`
    Diagnostics,
}

impl Program {
    /// Its name, as usage texts have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ctl => "rabbitmqctl",
            Self::Diagnostics => "rabbitmq-diagnostics",
        }
    }
}

/// The program that a binary of this name is called as, if it is one of RabbitMQ's.
pub fn program_from_argv0(argv0: &OsStr) -> Option<Program> {
    match Path::new(argv0).file_name()?.to_str()? {
        "rabbitmqctl" => Some(Program::Ctl),
        "rabbitmq-diagnostics" => Some(Program::Diagnostics),
        _ => None,
    }
}

/// Carries out one command line, whose first argument follows the program's name.
pub fn run(arguments: Vec<String>, program: Program, socket: &Path) -> ExitCode {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let mut streams =
        session::Streams { input: &mut stdin.lock(), out: &mut BufWriter::new(stdout.lock()), err: &mut stderr.lock() };
    let code = session::run(&arguments, program, socket, &mut streams);
    // A reader that went away, as `head` does, is not told so.
    let _ = streams.out.flush();
    ExitCode::from(code)
}

/// Carries out one command line and returns what it wrote, to standard output and error, and its
/// exit code.
#[cfg(test)]
pub(crate) fn captured(arguments: &[&str], socket: &Path) -> (String, String, u8) {
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut streams = session::Streams { input: &mut io::empty(), out: &mut out, err: &mut err };
    let code = session::run(&arguments, Program::Ctl, socket, &mut streams);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&out), text(&err), code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_called_by_a_name_of_rabbitmq_is_that_program() {
        assert_eq!(program_from_argv0(OsStr::new("/usr/sbin/rabbitmqctl")), Some(Program::Ctl));
        assert_eq!(program_from_argv0(OsStr::new("rabbitmq-diagnostics")), Some(Program::Diagnostics));
        assert_eq!(program_from_argv0(OsStr::new("tern")), None);
    }
}
