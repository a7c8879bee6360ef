//! A connection to the broker's control socket.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value as Json;

use crate::admin::failure::{EXIT_SOFTWARE, Failure, Kind};
use crate::admin::wire::{Answer, Pong, Request, Verb};

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Error {
    /// Nobody listens on the socket, or it went away.
    Unreachable(io::Error),
    /// The answer did not come in time.
    Timeout,
    /// The broker declined.
    Declined(Failure),
    /// The output could not be written.
    Output,
}

pub(super) struct Connection {
    stream: BufReader<UnixStream>,
}

impl Connection {
    /// Connects. An answer that takes longer than `timeout_ms` is [`Error::Timeout`].
    pub(super) fn open(socket: &Path, timeout_ms: Option<u64>) -> Result<Self, Error> {
        let stream = UnixStream::connect(socket).map_err(Error::Unreachable)?;
        let timeout = timeout_ms.filter(|ms| *ms > 0).map(Duration::from_millis);
        stream.set_read_timeout(timeout).map_err(Error::Unreachable)?;
        Ok(Self { stream: BufReader::with_capacity(64 * 1024, stream) })
    }

    /// Whether the broker is started.
    pub(super) fn ping(&mut self) -> Result<Pong, Error> {
        let pong = self.ask("/", Verb::Ping {})?;
        serde_json::from_value(pong).map_err(|_| unexpected("pong"))
    }

    /// Asks what has one answer.
    pub(super) fn ask(&mut self, vhost: &str, verb: Verb) -> Result<Json, Error> {
        self.send(vhost, verb)?;
        match self.answer()? {
            Answer::Ok { ok } => Ok(ok),
            other => Err(unexpected(&format!("{other:?}"))),
        }
    }

    /// Asks for a listing and hands over its rows as they come.
    pub(super) fn list(
        &mut self,
        vhost: &str,
        verb: Verb,
        mut each: impl FnMut(&[Json]) -> io::Result<()>,
    ) -> Result<(), Error> {
        self.send(vhost, verb)?;
        loop {
            match self.answer()? {
                Answer::Columns { .. } => {}
                Answer::Row(cells) => each(&cells).map_err(|_| Error::Output)?,
                Answer::End { .. } => return Ok(()),
                other => return Err(unexpected(&format!("{other:?}"))),
            }
        }
    }

    fn send(&mut self, vhost: &str, verb: Verb) -> Result<(), Error> {
        let request = Request { verb, vhost: vhost.to_owned() };
        let mut line = serde_json::to_vec(&request).map_err(|error| unexpected(&error.to_string()))?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).map_err(Error::Unreachable)
    }

    fn answer(&mut self) -> Result<Answer, Error> {
        let mut line = Vec::new();
        match self.stream.read_until(b'\n', &mut line) {
            Ok(0) => Err(Error::Unreachable(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => match serde_json::from_slice(&line) {
                Ok(Answer::Error { error }) => Err(Error::Declined(error)),
                Ok(answer) => Ok(answer),
                Err(error) => Err(unexpected(&error.to_string())),
            },
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Err(Error::Timeout)
            }
            Err(error) => Err(Error::Unreachable(error)),
        }
    }
}

/// The broker at the other end is not of this version.
fn unexpected(what: &str) -> Error {
    Error::Declined(Failure::new(Kind::Internal, format!("unexpected answer from the broker: {what}"), EXIT_SOFTWARE))
}
