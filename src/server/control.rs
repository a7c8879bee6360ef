//! The control socket: `control.sock` in the data directory, over which `tern ctl` administers.
//!
//! One task accepts, and owns one task a client; whoever may open the socket is an administrator.
//! Requests are carried out on threads for blocking work, so that an import of 100,000 queues stops
//! nobody's messages; rows are made as the client takes them, so that a slow one holds only its own
//! place.
//!
//! Bounds: [`CLIENTS_MAX`] clients at once (full: further ones wait to be accepted),
//! [`REQUEST_BYTES_MAX`] a request, one request above [`LARGE_BYTES`] at once (full: it waits),
//! [`OUTPUT_BYTES`] of rows a client, [`IDLE`] without a byte in either direction (the client is
//! closed).

use std::{
    fs::File,
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::fs::{FlockOperation, Mode};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Semaphore,
    task::{JoinSet, spawn_blocking},
    time::{sleep, timeout},
};

use crate::{
    admin::{
        control::{self, Reply, Rows},
        failure::{EXIT_SOFTWARE, Failure, Kind},
        node::Node,
        wire::{Answer, REQUEST_BYTES_MAX, Request},
    },
    broker::{Broker, connections::Connection},
};

/// Clients at once; an operator's scripts need a few.
const CLIENTS_MAX: usize = 64;
/// Time without a byte after which a client is closed.
const IDLE: Duration = Duration::from_secs(10);
/// A request above this size holds the place for large ones.
const LARGE_BYTES: usize = 1024 * 1024;
/// Bytes of rows that are made before they are written.
const OUTPUT_BYTES: usize = 32 * 1024;
/// Pause after a failed accept, which is about to fail again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The bound socket. The lock is held as long as this lives.
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    _lock: File,
}

/// Why the socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The data directory is in use.
    #[error("another tern runs on this data directory: {}", .0.display())]
    InUse(PathBuf),
    /// The operating system declined.
    #[error("cannot make the control socket {path}: {error}", path = path.display())]
    Io {
        /// Where it was to be.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

/// Binds the control socket of a data directory with those permission bits. What a dead process left there is replaced.
pub fn bind(data_dir: &Path, mode: u32) -> Result<Socket, BindError> {
    let path = data_dir.join("control.sock");
    let failed = |error: io::Error| BindError::Io { path: path.clone(), error };
    // A lock dies with its process, a socket file does not: only the lock tells the two apart
    // without a race between two processes that start at once.
    let lock = File::options().create(true).truncate(false).write(true).open(data_dir.join("control.lock"));
    let lock = lock.map_err(failed)?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(BindError::InUse(data_dir.to_owned())),
        Err(error) => return Err(failed(error.into())),
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = bind_private(&path, mode).map_err(failed)?;
    Ok(Socket { listener, path, _lock: lock })
}

/// Binds without a moment in which others could connect.
fn bind_private(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    // The file takes the mode of the socket, less the umask.
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(mode))?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(std::os::unix::net::UnixListener::from(std::os::fd::OwnedFd::from(socket)))
}

/// Clients that wait to be accepted.
const BACKLOG: i32 = 128;

impl Drop for Socket {
    fn drop(&mut self) {
        // Whoever comes next replaces it anyway.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Serves the socket until it is dropped, which ends all its clients.
pub async fn serve(socket: Socket, broker: Arc<Broker>, node: Arc<dyn Node>) {
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    let large = Arc::new(Semaphore::new(1));
    let mut clients = JoinSet::new();
    loop {
        // The semaphore is never closed.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match socket.listener.accept().await {
            Ok((stream, _)) => {
                let client = Client::new(stream, broker.clone(), node.clone(), large.clone());
                clients.spawn(async move {
                    if let Err(error) = client.serve().await {
                        tracing::debug!(%error, "a client of the control socket went away");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the control socket");
                sleep(ACCEPT_PAUSE).await;
            }
        }
        while clients.try_join_next().is_some() {}
    }
}

struct Client {
    input: BufReader<OwnedReadHalf>,
    output: OwnedWriteHalf,
    broker: Arc<Broker>,
    node: Arc<dyn Node>,
    large: Arc<Semaphore>,
}

impl Client {
    fn new(stream: UnixStream, broker: Arc<Broker>, node: Arc<dyn Node>, large: Arc<Semaphore>) -> Self {
        let (input, output) = stream.into_split();
        Self { input: BufReader::new(input), output, broker, node, large }
    }

    async fn serve(mut self) -> io::Result<()> {
        while self.serve_one().await? {}
        Ok(())
    }

    /// Reads a request and answers it; false when there is none.
    async fn serve_one(&mut self) -> io::Result<bool> {
        let mut line = Vec::new();
        let mut _place = None;
        loop {
            let chunk = within(self.input.fill_buf()).await?;
            if chunk.is_empty() {
                return Ok(false);
            }
            let end = chunk.iter().position(|&byte| byte == b'\n');
            let taken = end.map_or(chunk.len(), |at| at + 1);
            line.extend_from_slice(&chunk[..taken]);
            self.input.consume(taken);
            if line.len() > REQUEST_BYTES_MAX {
                let reason = format!("a request has at most {REQUEST_BYTES_MAX} bytes");
                self.write(&Failure::bad_request(reason).into()).await?;
                return Ok(false);
            }
            if end.is_some() {
                break;
            }
            if line.len() > LARGE_BYTES && _place.is_none() {
                _place = self.large.clone().acquire_owned().await.ok();
            }
        }
        let reply = match serde_json::from_slice::<Request>(&line) {
            Ok(request) => {
                drop(line);
                let (broker, node) = (self.broker.clone(), self.node.clone());
                let carried_out = spawn_blocking(move || {
                    let reply = control::handle(&broker, &node, &request)?;
                    // Whoever is told that something is defined finds it after a crash.
                    node.wait_until_safe(broker.defined_at());
                    Ok(reply)
                })
                .await;
                carried_out.unwrap_or_else(|_| Err(internal("the request could not be carried out: see the log")))
            }
            Err(error) => Err(Failure::bad_request(format!("not a request: {error}"))),
        };
        self.answer(reply).await?;
        Ok(true)
    }

    async fn answer(&mut self, reply: Result<Reply, Failure>) -> io::Result<()> {
        match reply {
            Ok(Reply::Done(ok)) => self.write(&Answer::Ok { ok }).await,
            Ok(Reply::Rows { columns, rows }) => self.write_rows(columns, rows).await,
            Ok(Reply::Close { connections, reason, delay_ms }) => {
                let closed = close(connections, &reason, delay_ms).await;
                self.write(&Answer::Ok { ok: json!({ "closed": closed }) }).await
            }
            Ok(Reply::Later(change)) => match change.await {
                Ok(()) => self.write(&Answer::DONE).await,
                Err(reason) => self.write(&internal(reason).into()).await,
            },
            Ok(Reply::Stop) => {
                let written = self.write(&Answer::DONE).await;
                self.node.stop();
                written
            }
            Err(failure) => self.write(&failure.into()).await,
        }
    }

    async fn write_rows(&mut self, columns: Vec<String>, mut rows: Rows) -> io::Result<()> {
        let mut out = line_of(&Answer::Columns { columns })?;
        loop {
            let row = rows.next();
            let is_last = row.is_none();
            out.extend(line_of(&row.map_or(Answer::END, Answer::Row))?);
            if is_last || out.len() >= OUTPUT_BYTES {
                within(self.output.write_all(&out)).await?;
                out.clear();
            }
            if is_last {
                return Ok(());
            }
        }
    }

    async fn write(&mut self, answer: &Answer) -> io::Result<()> {
        within(self.output.write_all(&line_of(answer)?)).await
    }
}

/// Closes connections at a pace.
async fn close(connections: Vec<Connection>, reason: &str, delay_ms: u64) -> usize {
    let count = connections.len();
    for (index, connection) in connections.into_iter().enumerate() {
        if index > 0 && delay_ms > 0 {
            sleep(Duration::from_millis(delay_ms)).await;
        }
        connection.handle.close(reason);
    }
    count
}

fn line_of(answer: &Answer) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    Ok(line)
}

fn internal(reason: impl Into<String>) -> Failure {
    Failure::new(Kind::Internal, reason, EXIT_SOFTWARE)
}

async fn within<T>(operation: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(IDLE, operation).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests;
