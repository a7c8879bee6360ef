//! The task of one connection: HTTP/1.1 or HTTP/2 as the client begins it, request by request.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context as Poller, Poll},
    time::Duration,
};

use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::Notify,
    time::Sleep,
};

use super::{Web, request};
use crate::server::connection::Handshake;

/// Bytes of a request's line and headers.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Headers of a request.
const HEADERS_COUNT_MAX: usize = 100;
/// Requests that a connection of HTTP/2 has open at once.
const STREAMS_COUNT_MAX: u32 = 250;
/// How long requests in hand may take once the connection is asked to end.
const ENDING: Duration = Duration::from_secs(10);

/// What requests of one connection have in common.
pub(super) struct Client {
    pub(super) web: Arc<Web>,
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
    /// Scheme and host as the last request said them: most say the same.
    pub(super) base_url: Mutex<(String, Arc<str>)>,
    /// A request has come.
    has_asked: AtomicBool,
    /// The peer takes nothing of what was answered.
    is_stalled: AtomicBool,
    /// It takes something again.
    resumed: Notify,
}

impl Client {
    /// Waits until the peer takes what was answered before: of a client that asks on and on and reads nothing no more
    /// than one answer is kept.
    async fn until_it_reads(&self) {
        loop {
            let resumed = self.resumed.notified();
            if !self.is_stalled.load(Ordering::Acquire) {
                return;
            }
            resumed.await;
        }
    }
}

/// Counts a connection as long as it is there.
struct Open(Arc<Web>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves a connection until it is over. `left` was read from it already.
pub(in crate::server) async fn serve(
    stream: TcpStream,
    left: Vec<u8>,
    (peer, local): (SocketAddr, SocketAddr),
    mut handshake: Handshake,
) {
    let web = handshake.context.aws.clone();
    // Every request says who it is of: there is nothing to wait for.
    handshake.is_over();
    let open = web.connections.fetch_add(1, Ordering::Relaxed);
    let _open = Open(web.clone());
    if open >= web.aws.options.connections_count_max {
        tracing::warn!(%peer, open, "connection refused: aws.connections_count_max");
        return;
    }
    let mut closing = web.closing.subscribe();
    let idle = Duration::from_millis(web.aws.options.idle_timeout_ms);
    let client = Arc::new(Client {
        web,
        peer,
        local,
        base_url: Mutex::default(),
        has_asked: AtomicBool::new(false),
        is_stalled: AtomicBool::new(false),
        resumed: Notify::new(),
    });
    let (asker, reader) = (client.clone(), client.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let client = client.clone();
        client.has_asked.store(true, Ordering::Relaxed);
        async move {
            client.until_it_reads().await;
            Ok::<_, Infallible>(request::answer(&client, request).await)
        }
    });
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_COUNT_MAX);
    http.http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .max_concurrent_streams(STREAMS_COUNT_MAX)
        .keep_alive_interval(idle)
        .keep_alive_timeout(idle);
    let stream = TokioIo::new(Socket { stream, left, reader, patience: idle, stalled: None });
    let mut connection = pin!(http.serve_connection(stream, service));
    // Which version it is the first octets say, and hyper waits for them as long as it takes.
    let silent = async {
        tokio::time::sleep(idle).await;
        if asker.has_asked.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = silent => return tracing::debug!(%peer, "no request in time"),
        _ = closing.changed() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(ENDING, connection.as_mut()).await {
                Ok(ended) => ended,
                Err(_) => return tracing::debug!(%peer, "a request took too long to end"),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, error, "connection ended");
    }
}

/// A socket some of whose octets have been read, and which ends when its peer takes nothing for too long: answers that
/// nobody reads would stay in memory.
struct Socket {
    stream: TcpStream,
    left: Vec<u8>,
    reader: Arc<Client>,
    patience: Duration,
    /// Runs while octets wait to be taken.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    fn watch(&mut self, cx: &mut Poller<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            if self.stalled.take().is_some() {
                self.reader.is_stalled.store(false, Ordering::Release);
                self.reader.resumed.notify_waiters();
            }
            return written;
        }
        self.reader.is_stalled.store(true, Ordering::Release);
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        stalled.as_mut().poll(cx).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "answers are not read")))
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Poller<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.left.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let count = self.left.len().min(buffer.remaining());
        buffer.put_slice(&self.left[..count]);
        self.left.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Poller<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Poller<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
