//! The least of an HTTP client: one connection, one request at a time, calls of SQS in JSON and of SNS in forms.

use std::io;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, StatusCode, client::conn::http1};
use hyper_util::rt::TokioIo;
use lapin::{Error, Result};
use serde_json::Value;
use tokio::net::TcpStream;

/// A connection, which ends with its broker.
pub(crate) struct Http {
    port: u16,
    requests: http1::SendRequest<Full<Bytes>>,
}

/// What a call was refused with.
#[derive(Debug)]
pub(crate) struct Refused(String);

/// Of a call.
type Answer<T> = std::result::Result<T, Refused>;

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::from(io::Error::other(error))
}

impl From<Refused> for Error {
    fn from(Refused(text): Refused) -> Self {
        broken(text)
    }
}

impl Http {
    pub(crate) async fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let (requests, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Ends with the connection.
        tokio::spawn(connection);
        Ok(Self { port, requests })
    }

    /// A call of SQS.
    pub(crate) async fn sqs(&mut self, operation: &str, input: &Value) -> Result<Answer<Value>> {
        let head = Request::post("/").header("x-amz-target", format!("AmazonSQS.{operation}"));
        let body = self.send(operation, head, input.to_string()).await?;
        Ok(match body {
            Ok(body) if body.is_empty() => Ok(Value::Null),
            Ok(body) => Ok(serde_json::from_slice(&body).map_err(broken)?),
            Err(refused) => Err(refused),
        })
    }

    /// A call of SNS; the answer is its text.
    pub(crate) async fn sns(&mut self, action: &str, parameters: &[(&str, &str)]) -> Result<String> {
        let form = {
            let mut form = form_urlencoded::Serializer::new(String::new());
            form.extend_pairs([("Action", action), ("Version", "2010-03-31")]).extend_pairs(parameters);
            form.finish()
        };
        let head = Request::post("/").header("content-type", "application/x-www-form-urlencoded");
        let body = self.send(action, head, form).await??;
        String::from_utf8(body.into()).map_err(broken)
    }

    async fn send(&mut self, what: &str, head: hyper::http::request::Builder, body: String) -> Result<Answer<Bytes>> {
        let host = format!("127.0.0.1:{}", self.port);
        let request = head.header("host", host).body(Full::new(Bytes::from(body))).map_err(broken)?;
        self.requests.ready().await.map_err(broken)?;
        let answer = self.requests.send_request(request).await.map_err(broken)?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(broken)?.to_bytes();
        if status == StatusCode::OK {
            return Ok(Ok(body));
        }
        Ok(Err(Refused(format!("{what} was refused: {status} {}", String::from_utf8_lossy(&body)))))
    }
}
