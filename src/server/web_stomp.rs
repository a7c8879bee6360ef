//! STOMP over WebSocket, for browsers: the HTTP request that asks for it, and what it becomes.
//!
//! As RabbitMQ's plugin: one frame or heart-beat in each message that we send, as text unless the settings
//! say otherwise; what comes may be text or binary, and frames may be cut into messages in any way. Over
//! loopback only pages of this machine may connect, or those in `web_stomp.origins`; all log in like everybody.
//!
//! Until the login a peer may send `stomp.pre_login_frame_max` twice over, for its requests, its
//! first frame and what they are wrapped in. A text has to be UTF-8: a frame that is not goes as binary.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context as Poller, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::Notify,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

use super::{
    Options, clock,
    connection::Handshake,
    options::WebFrame,
    web_socket::{self, Talk},
};
use crate::protocol::{
    session::Session as _,
    shared::{Link, Shared},
    stomp::{self, codec},
};

/// What may be spoken, the best first.
const SUBPROTOCOLS: [&str; 3] = ["v12.stomp", "v11.stomp", "v10.stomp"];
/// Bytes of a request with its headers.
const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// Bytes that are read at once, and written at once.
const BUFFER_BYTES: usize = 16 * 1024;

/// Serves a connection until it is over. `left` was read from it already.
pub(super) async fn serve(
    stream: TcpStream,
    left: Vec<u8>,
    (peer, local): (SocketAddr, SocketAddr),
    handshake: Handshake,
) {
    let context = handshake.context.clone();
    let surroundings = context.stomp[context.server.stomp_dialect as usize].clone();
    let allowance = Arc::new(AtomicUsize::new(2 * surroundings.options.pre_login_frame_max));
    let stream = Metered { stream, left, allowance: allowance.clone() };
    let deadline = Duration::from_millis(context.amqp.handshake_timeout_ms);
    let is_loopback = local.ip().to_canonical().is_loopback();
    let stream = match tokio::time::timeout(deadline, upgrade(&context.server, is_loopback, stream)).await {
        Ok(Ok(Some(stream))) => stream,
        Ok(Ok(None)) => return tracing::debug!(%peer, "a request for something else than STOMP over WebSocket"),
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "no request for STOMP over WebSocket"),
        Err(_) => return tracing::debug!(%peer, "no request for STOMP over WebSocket in time"),
    };
    let shared = Arc::new(Shared::new(surroundings.options.outbox_bytes_max));
    let broker = context.broker.clone();
    let mut session = stomp::Session::new(broker, surroundings.clone(), shared.clone(), peer, local, clock::now());
    session.set_protocol_name("Web STOMP");
    let link = Arc::new(Waker::default());
    let weak: Arc<dyn Link> = link.clone();
    shared.set_link(Arc::downgrade(&weak));
    drop(weak);
    let trailing_lf = surroundings.options.trailing_lf;
    let frame = context.server.web_stomp_frame;
    let talk = Talk {
        outbox: shared,
        notify: &link.notify,
        split: move |output| messages(output, trailing_lf, frame),
        logged_in: move || allowance.store(usize::MAX, Ordering::Relaxed),
    };
    web_socket::run(&mut session, stream, talk, handshake, peer).await;
    debug_assert!(session.vhost_name().is_none(), "a session that is over has closed its vhost");
}

/// Answers requests until one asks for a WebSocket; `None`: the peer went before.
async fn upgrade(
    options: &Options,
    is_loopback: bool,
    stream: Metered,
) -> io::Result<Option<WebSocketStream<Metered>>> {
    let asked = Mutex::new(None);
    let answer = |mut request: Request<Incoming>| {
        let response = answer(&request, options, is_loopback);
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            *asked.lock() = Some(hyper::upgrade::on(&mut request));
        }
        async { Ok::<_, Infallible>(response) }
    };
    let mut http = http1::Builder::new();
    let connection = http.max_buf_size(REQUEST_BYTES_MAX).serve_connection(TokioIo::new(stream), service_fn(answer));
    connection.with_upgrades().await.map_err(io::Error::other)?;
    let asked: Option<OnUpgrade> = asked.lock().take();
    let Some(asked) = asked else { return Ok(None) };
    let upgraded = asked.await.map_err(io::Error::other)?;
    let parts = upgraded.downcast::<TokioIo<Metered>>().map_err(|_| io::Error::other("not the stream it was"))?;
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_message_size(Some(options.web_stomp_message_bytes_max))
        .max_frame_size(Some(options.web_stomp_message_bytes_max));
    let (stream, left) = (parts.io.into_inner(), parts.read_buf.to_vec());
    Ok(Some(WebSocketStream::from_partially_read(stream, left, Role::Server, Some(config)).await))
}

/// What a request comes to: 101 for one that asks for a WebSocket at the right place.
fn answer(request: &Request<Incoming>, options: &Options, is_loopback: bool) -> Response<String> {
    let (asked, path) = (request.uri().path(), options.web_stomp_path.as_str());
    if asked.strip_suffix('/').unwrap_or(asked) != path.strip_suffix('/').unwrap_or(path) {
        return respond(StatusCode::NOT_FOUND, &[(header::CONNECTION, "close")]);
    }
    let headers = request.headers();
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| {
        request.method() == Method::GET
            && has_token(headers, header::UPGRADE, "websocket")
            && has_token(headers, header::CONNECTION, "upgrade")
            && has_token(headers, header::SEC_WEBSOCKET_VERSION, "13")
    });
    let Some(key) = key else {
        return respond(
            StatusCode::UPGRADE_REQUIRED,
            &[
                (header::CONNECTION, "upgrade, close"),
                (header::UPGRADE, "websocket"),
                (header::SEC_WEBSOCKET_VERSION, "13"),
            ],
        );
    };
    let origin = headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
    if origin.is_some_and(|origin| !is_welcome(origin, &options.web_stomp_origins, is_loopback)) {
        return respond(StatusCode::FORBIDDEN, &[(header::CONNECTION, "close")]);
    }
    let accept = derive_accept_key(key.as_bytes());
    let mut said = vec![
        (header::CONNECTION, "Upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_ACCEPT, accept.as_str()),
    ];
    // Whoever asks for none of them gets none and is served all the same.
    let best = SUBPROTOCOLS.iter().find(|name| has_token(headers, header::SEC_WEBSOCKET_PROTOCOL, name));
    said.extend(best.map(|name| (header::SEC_WEBSOCKET_PROTOCOL, *name)));
    respond(StatusCode::SWITCHING_PROTOCOLS, &said)
}

/// Whether pages from `origin` may connect. A browser tells it of every page, and would let any page on the
/// network try the well-known login of a broker on the machine of whoever looks at it.
pub(super) fn is_welcome(origin: &str, listed: &[String], is_loopback: bool) -> bool {
    if listed.iter().any(|one| one == "*" || one.eq_ignore_ascii_case(origin)) {
        return true;
    }
    if !is_loopback {
        return listed.is_empty();
    }
    let uri: Option<hyper::Uri> = origin.parse().ok();
    let host = uri.as_ref().and_then(hyper::Uri::host);
    host.is_some_and(|host| ["localhost", "127.0.0.1", "[::1]"].iter().any(|own| host.eq_ignore_ascii_case(own)))
}

fn respond(status: StatusCode, headers: &[(header::HeaderName, &str)]) -> Response<String> {
    let builder =
        headers.iter().fold(Response::builder().status(status), |builder, (name, value)| builder.header(name, *value));
    builder.body(String::new()).unwrap_or_default()
}

/// Whether a header that is a list has this in it.
fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// Output, cut into messages: a frame or a heart-beat each.
fn messages(mut output: Bytes, trailing_lf: bool, frame: WebFrame) -> Vec<Message> {
    let mut messages = Vec::new();
    while !output.is_empty() {
        let octets = output.split_to(codec::frame_len(&output, trailing_lf));
        messages.push(match frame {
            WebFrame::Binary => Message::Binary(octets),
            WebFrame::Text => match octets.clone().try_into() {
                Ok(text) => Message::Text(text),
                Err(_) => Message::Binary(octets),
            },
        });
    }
    messages
}

/// A connection's task as a [`Link`]: it alone writes.
#[derive(Default)]
struct Waker {
    notify: Notify,
}

impl Link for Waker {
    fn flush(&self) {
        self.notify.notify_one();
    }

    fn wake(&self) {
        self.notify.notify_one();
    }
}

/// A socket that gives so many bytes and no more, unless it is told to.
struct Metered {
    stream: TcpStream,
    /// What was read before.
    left: Vec<u8>,
    allowance: Arc<AtomicUsize>,
}

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Poller<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if self.left.is_empty() {
            std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        } else {
            let count = self.left.len().min(buffer.remaining());
            buffer.put_slice(&self.left[..count]);
            self.left.drain(..count);
        }
        let read = buffer.filled().len() - before;
        let allowed = self.allowance.load(Ordering::Relaxed);
        if allowed != usize::MAX {
            let Some(allowed) = allowed.checked_sub(read) else {
                return Poll::Ready(Err(io::Error::other("too much before the login")));
            };
            self.allowance.store(allowed, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Poller<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_elsewhere_connect_over_loopback_only_when_they_are_listed() {
        let listed = ["https://app.example.com".to_owned()];
        for (origin, is_welcome_by_default) in [
            ("http://localhost:8080", true),
            ("http://127.0.0.1", true),
            ("http://[::1]:3000", true),
            ("https://app.example.com", false),
            ("https://localhost.example.com", false),
            ("null", false),
            ("", false),
        ] {
            assert_eq!(is_welcome(origin, &[], true), is_welcome_by_default, "{origin}");
            assert!(is_welcome(origin, &[], false), "{origin}");
            assert!(is_welcome(origin, &["*".to_owned()], true), "{origin}");
        }
        assert!(is_welcome("https://APP.example.com", &listed, true));
        assert!(is_welcome("https://app.example.com", &listed, false));
        assert!(!is_welcome("https://other.example.com", &listed, false));
        assert!(is_welcome("http://localhost", &listed, true));
    }
}
