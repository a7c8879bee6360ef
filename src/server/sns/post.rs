//! Posting to endpoints over HTTP and HTTPS: connections are kept and used again, certificates are checked against those
//! that the machine trusts and those that a setting names.

use std::{fmt, io, path::Path, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, body::Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
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
    pub(super) fn new(trusted: Vec<CertificateDer<'static>>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIME));
        connector.set_nodelay(true);
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_max_idle_per_host(IDLE_PER_HOST_MAX).pool_idle_timeout(IDLE_TIME);
        let plain = builder.build(connector.clone());
        connector.enforce_http(false);
        let secure = checking(trusted).map(|checks| {
            let https = HttpsConnectorBuilder::new().with_tls_config(checks).https_only().enable_http1();
            builder.build(https.wrap_connector(connector))
        });
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

/// The certificates of a file, for endpoints that nobody else vouches for. One that cannot be used is refused here.
pub fn read_trusted(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let text = std::fs::read(path)?;
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    let all = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let all = all.map_err(|error| invalid(format!("not certificates in PEM: {error}")))?;
    if all.is_empty() {
        return Err(invalid("there is no certificate in PEM in it".to_owned()));
    }
    for certificate in &all {
        let added = RootCertStore::empty().add(certificate.clone());
        added.map_err(|error| invalid(format!("one of its certificates cannot be used: {error}")))?;
    }
    Ok(all)
}

/// How certificates are checked; the reason where there is nothing to check them with.
fn checking(trusted: Vec<CertificateDer<'static>>) -> Result<ClientConfig, String> {
    let of_machine = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(of_machine.certs.into_iter().chain(trusted));
    if roots.is_empty() {
        let errors: Vec<_> = of_machine.errors.iter().map(ToString::to_string).collect();
        return Err(format!("no certificates are trusted on this machine: {}", errors.join(", ")));
    }
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{aws::sns::rsa_signer::RsaSigner, broker::time::Time};

    #[test]
    fn a_file_of_certificates_is_read_whole_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let refused = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read_trusted(&path).unwrap_err().to_string()
        };
        assert_eq!(refused("nothing"), "there is no certificate in PEM in it");
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(refused(broken).starts_with("one of its certificates cannot be used: "));
        let one = RsaSigner::generate(Time(0)).unwrap().certificate_pem().to_owned();
        assert!(refused(&format!("{one}{broken}")).starts_with("one of its certificates cannot be used: "));
        std::fs::write(&path, format!("{one}{one}")).unwrap();
        assert_eq!(read_trusted(&path).unwrap().len(), 2);
        assert_eq!(read_trusted(&dir.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
