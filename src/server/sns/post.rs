//! Posting to endpoints over HTTP and HTTPS: connections are kept and used again, certificates are checked against those
//! that the machine trusts.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, body::Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

use crate::aws::sns::deliveries::Post;

/// How long an endpoint has to answer, from the first octet.
const ANSWER_TIME: Duration = Duration::from_secs(15);
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Connections to one endpoint that are kept for the next message, and for how long.
const IDLE_PER_HOST_MAX: usize = 4;
const IDLE_TIME: Duration = Duration::from_secs(30);
/// Octets of an answer that are read. Longer: the connection is not used again.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Why there was no answer.
#[derive(Debug)]
pub(super) enum PostError {
    /// The address is none: it will not be another time either.
    Address(String),
    /// Everything else.
    Network(String),
}

impl fmt::Display for PostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(reason) | Self::Network(reason) => f.write_str(reason),
        }
    }
}

/// Posts.
pub(super) struct Poster {
    plain: Client<HttpConnector, Full<Bytes>>,
    /// The reason where this machine trusts nobody.
    secure: Result<Client<HttpsConnector<HttpConnector>, Full<Bytes>>, String>,
}

impl Poster {
    /// Reads which certificates the machine trusts, and so blocks.
    pub(super) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIME));
        connector.set_nodelay(true);
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_max_idle_per_host(IDLE_PER_HOST_MAX).pool_idle_timeout(IDLE_TIME);
        let plain = builder.build(connector.clone());
        connector.enforce_http(false);
        let secure = HttpsConnectorBuilder::new()
            .with_native_roots()
            .map(|https| builder.build(https.https_only().enable_http1().wrap_connector(connector)))
            .map_err(|error| format!("no certificates are trusted on this machine: {error}"));
        Self { plain, secure }
    }

    /// Posts once. Returns the status of the answer. May be dropped: whether the endpoint has it is not known then.
    pub(super) async fn post(&self, post: &Post) -> Result<u16, PostError> {
        match tokio::time::timeout(ANSWER_TIME, self.post_in_time(post)).await {
            Ok(result) => result,
            Err(_) => Err(PostError::Network(format!("no answer within {} s", ANSWER_TIME.as_secs()))),
        }
    }

    async fn post_in_time(&self, post: &Post) -> Result<u16, PostError> {
        let mut request = Request::post(&post.url);
        for (name, value) in &post.headers {
            request = request.header(*name, value);
        }
        let request = request
            .body(Full::new(Bytes::from(post.body.clone())))
            .map_err(|error| PostError::Address(format!("cannot be posted: {error}")))?;
        let network = |error: hyper_util::client::legacy::Error| PostError::Network(said(&error));
        let answer = match request.uri().scheme_str() {
            Some("http") => self.plain.request(request).await.map_err(network)?,
            Some("https") => {
                let secure = self.secure.as_ref().map_err(|reason| PostError::Network(reason.clone()))?;
                secure.request(request).await.map_err(network)?
            }
            _ => return Err(PostError::Address("the address is neither http nor https".to_owned())),
        };
        let status = answer.status().as_u16();
        read_to_end(answer.into_body()).await;
        Ok(status)
    }
}

/// A connection serves again only when its answer was read. What it says does not matter.
async fn read_to_end(body: Incoming) {
    let _ = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
}

/// An error and what it came from.
fn said(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        said = format!("{said}: {error}");
        source = error.source();
    }
    said
}
