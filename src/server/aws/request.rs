//! One request: where it is to go, who sent it, the call that it is, and its answer.

use std::{borrow::Cow, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderName, HeaderValue},
    http::request::Parts,
};

use super::{
    body::{self, Cut},
    connection::Client,
    origin::{self, Page},
    running,
};
use crate::{
    aws::{
        Call, Caller, Error, Service, Wire,
        call::{Arn, Input},
        dispatch, identity,
        model::Operation,
        pages,
        query::Form,
        sigv4,
    },
    broker::Broker,
    server::clock,
};

type Answer = Response<Full<Bytes>>;

/// Bytes of the body of a call that carries no message.
const OTHER_BODY_BYTES_MAX: usize = 512 << 10;
/// How long a call that adds messages waits for room before its client is to try again.
const ROOM_TIME: Duration = Duration::from_secs(5);
/// Between two looks for room: there is an alarm, and nothing else to do.
const ROOM_POLL: Duration = Duration::from_millis(50);

/// Answers a request.
pub(super) async fn answer(client: &Client, request: Request<Incoming>) -> Answer {
    let (parts, incoming) = request.into_parts();
    let is_loopback = client.local.ip().to_canonical().is_loopback();
    let page = origin::page(&parts.headers, &client.web.aws.options.origins, is_loopback);
    if page == Page::Foreign {
        return plain(StatusCode::FORBIDDEN, "pages of this origin may not call: see aws.origins\n");
    }
    let is_preflight = origin::is_preflight(&parts.method, &parts.headers);
    let mut answer = if is_preflight {
        plain(StatusCode::OK, "")
    } else if let Some(path) = parts.uri.path().strip_prefix("/_tern/") {
        own_page(client, &parts, path)
    } else {
        call(client, &parts, incoming).await
    };
    if page == Page::Welcome {
        let mut status = answer.status();
        origin::allow(&parts.headers, answer.headers_mut(), &mut status, is_preflight);
        *answer.status_mut() = status;
    }
    answer
}

fn plain(status: StatusCode, text: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

/// What is served beside the services.
fn own_page(client: &Client, parts: &Parts, path: &str) -> Answer {
    let web = &client.web;
    let request = pages::Request {
        method: parts.method.as_str(),
        path,
        query: parts.uri.query().unwrap_or_default(),
        is_trusted: is_trusted(client, &parts.headers),
        base_url: &base_url(client, parts),
        now: clock::now(),
    };
    let Some(page) = pages::page(&web.aws, &web.broker, &request) else {
        return plain(StatusCode::NOT_FOUND, "there is nothing here\n");
    };
    let mut answer = Response::new(Full::new(page.body.into()));
    *answer.status_mut() = StatusCode::from_u16(page.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    answer
}

/// Whether any credentials do: the peer is on this machine, and speaks for nobody else.
fn is_trusted(client: &Client, headers: &HeaderMap) -> bool {
    // A proxy on this machine forwards for others. A header can only take trust away, never give it.
    let is_forwarded = || FORWARDED.iter().any(|name| headers.contains_key(*name));
    client.web.is_development && client.peer.ip().to_canonical().is_loopback() && !is_forwarded()
}

const FORWARDED: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

/// A request as far as it says which operation it wants.
struct Routed {
    service: Service,
    operation: &'static Operation,
    wire: Wire,
    input: Result<Input, Error>,
    /// The region in the ARN of the topic that a form is about.
    region: Option<String>,
}

/// A refusal, with what decides how it is written.
struct Refusal {
    service: Service,
    wire: Wire,
    error: Error,
}

async fn call(client: &Client, parts: &Parts, incoming: Incoming) -> Answer {
    let request_id = request_id(&client.web.broker);
    let result = run(client, parts, incoming, &request_id).await;
    let (wire, status, body, error) = match result {
        Ok((wire, body)) => (wire, StatusCode::OK, body, None),
        Err(Refusal { service, wire, error }) => {
            tracing::debug!(peer = %client.peer, code = %error.query_code, text = %error.message, "call refused");
            let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (wire, status, error.body(service, wire, &request_id), Some(error))
        }
    };
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    let content_type = match wire {
        Wire::Json => "application/x-amz-json-1.0",
        Wire::Query => "text/xml",
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(id) = HeaderValue::from_str(&request_id) {
        headers.insert(REQUEST_ID, id);
    }
    if let Some(error) = error
        && wire == Wire::Json
        && parts.headers.get("x-amzn-query-mode").is_some_and(|mode| mode.as_bytes().eq_ignore_ascii_case(b"true"))
        && let Ok(value) = HeaderValue::from_str(&format!("{};{}", error.query_code, error.fault()))
    {
        headers.insert(QUERY_ERROR, value);
    }
    answer
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const QUERY_ERROR: HeaderName = HeaderName::from_static("x-amzn-query-error");

async fn run(
    client: &Client,
    parts: &Parts,
    incoming: Incoming,
    request_id: &Arc<str>,
) -> Result<(Wire, Vec<u8>), Refusal> {
    let web = &client.web;
    let target = parts.headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    let wire = if target.is_some() { Wire::Json } else { Wire::Query };
    let refusal = |service, error| Refusal { service, wire, error };
    if parts.method != Method::POST && !(parts.method == Method::GET && wire == Wire::Query) {
        let error = Error::new("InvalidAction", 405, "The request must be a POST, or a GET with a query string.");
        return Err(refusal(Service::Sqs, error));
    }
    let targeted = match target {
        Some(target) => Some(dispatch::by_target(target).map_err(|error| refusal(Service::Sqs, error))?),
        None => None,
    };
    let options = &web.aws.options;
    let is_other = targeted.is_some_and(|(_, operation)| !takes_messages(operation.name));
    let bytes_max = if is_other { OTHER_BODY_BYTES_MAX.min(options.body_bytes_max) } else { options.body_bytes_max };
    let body = body::read(incoming, bytes_max, &web.bodies).await;
    let body = body.map_err(|cut| refusal(Service::Sqs, cut_off(&cut, targeted.map(|(_, operation)| operation))))?;
    let Routed { service, operation, wire, input, region } = match targeted {
        Some((service, operation)) => {
            Routed { service, operation, wire, input: Ok(Input::Json(body.bytes.clone())), region: None }
        }
        None => route_form(client, parts, &body.bytes).map_err(|(service, error)| refusal(service, error))?,
    };
    let refusal = |error| Refusal { service, wire, error };
    let caller = identify(client, parts, &body.bytes, (service, operation), region.as_deref()).map_err(refusal)?;
    let input = input.map_err(refusal)?;
    if takes_messages(operation.name) && !has_room(&web.broker).await {
        let message = "The broker is short of memory or disk space. Try again later.";
        return Err(refusal(Error::of(service, "ServiceUnavailable", message)));
    }
    let (told, waiter) = running::waiter();
    let mut call = Call {
        aws: web.aws.clone(),
        service,
        operation,
        wire,
        caller,
        base_url: base_url(client, parts),
        input,
        request_id: request_id.clone(),
        source_ip: client.peer.ip().to_canonical(),
        trace: parts.headers.get("x-amzn-trace-id").and_then(|value| Some(value.to_str().ok()?.into())),
        waiter,
        state: None,
    };
    let mut closing = web.closing.subscribe();
    let reply = running::run(&web.broker, &mut call, &told, &mut closing).await.map_err(refusal)?;
    Ok((wire, reply.body))
}

fn identify(
    client: &Client,
    parts: &Parts,
    body: &Bytes,
    (service, operation): (Service, &Operation),
    named_region: Option<&str>,
) -> Result<Caller, Error> {
    let web = &client.web;
    let header = |name: &str| joined(parts, name);
    let request = sigv4::Request {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query: parts.uri.query().unwrap_or_default(),
        header: &header,
        body,
    };
    let is_trusted = is_trusted(client, &parts.headers);
    let now_secs = (clock::wall().0 / 1000) as i64;
    let origin = identity::Origin { service, operation: operation.name, is_trusted, now_secs, named_region };
    identity::identify(&web.aws, &web.broker, &request, origin)
}

/// Whether an operation adds messages.
fn takes_messages(operation: &str) -> bool {
    matches!(operation, "SendMessage" | "SendMessageBatch" | "Publish" | "PublishBatch")
}

/// Waits until messages are taken; false if that takes too long.
async fn has_room(broker: &Broker) -> bool {
    let is_open = || !broker.has_alarm() && broker.journal().is_none_or(|journal| journal.has_room());
    if is_open() {
        return true;
    }
    let opened = async {
        while !is_open() {
            tokio::time::sleep(ROOM_POLL).await;
        }
    };
    tokio::time::timeout(ROOM_TIME, opened).await.is_ok()
}

fn cut_off(cut: &Cut, operation: Option<&Operation>) -> Error {
    match cut {
        Cut::TooLong => match operation.map(|operation| operation.name) {
            Some("SendMessage") => Error::sqs(
                "InvalidParameterValueException",
                "One or more parameters are invalid. Reason: Message must be shorter than 1048576 bytes.",
            ),
            Some("SendMessageBatch") => {
                Error::sqs("BatchRequestTooLong", "Batch requests cannot be longer than 1048576 bytes.")
            }
            _ => Error::new("RequestEntityTooLarge", 413, "The body of the request is too long."),
        },
        Cut::TooSlow => Error::new("RequestTimeout", 408, "The body of the request did not come in time."),
        Cut::Broken => Error::new("MalformedInput", 400, "The body of the request ended before its end."),
    }
}

/// The values of a header in the form in which they are signed.
fn joined<'a>(parts: &'a Parts, name: &str) -> Option<Cow<'a, str>> {
    let text = |value: &'a HeaderValue| String::from_utf8_lossy(value.as_bytes());
    let mut values = parts.headers.get_all(name).iter();
    let Some(first) = values.next() else {
        // HTTP/2 says it elsewhere.
        return (name == "host").then(|| parts.uri.authority().map(|host| host.as_str().into())).flatten();
    };
    let first = text(first);
    Some(values.fold(first, |all, value| format!("{all},{}", text(value)).into()))
}

/// Which operation a form wants, and with what.
fn route_form(client: &Client, parts: &Parts, body: &Bytes) -> Result<Routed, (Service, Error)> {
    let query = parts.uri.query().unwrap_or_default();
    let whole: Cow<'_, [u8]> = match (query.is_empty(), body.is_empty()) {
        (true, _) => Cow::Borrowed(body),
        (false, true) => Cow::Borrowed(query.as_bytes()),
        (false, false) => [query.as_bytes(), b"&", body].concat().into(),
    };
    let mut form = Form::parse(&whole).map_err(|error| (Service::Sqs, error))?;
    let has_topic = form.get("TopicArn").is_some();
    let (service, operation) =
        dispatch::by_action(form.get("Action"), form.get("Version"), has_topic).map_err(|error| {
            let is_sns = form.get("Version") == Some(Service::Sns.model().version);
            (if is_sns { Service::Sns } else { Service::Sqs }, error)
        })?;
    let path = parts.uri.path();
    if service == Service::Sqs && path.len() > 1 && form.get("QueueUrl").is_none() {
        form.insert("QueueUrl", format!("{}{path}", base_url(client, parts)));
    }
    let arn = ["TopicArn", "TargetArn", "SubscriptionArn"].into_iter().find_map(|name| form.get(name));
    let region = arn.filter(|_| service == Service::Sns).and_then(|arn| Some(Arn::parse(arn)?.region.to_owned()));
    let input = form.decode(service, operation.input).map(|value| Input::Decoded(Arc::new(value)));
    Ok(Routed { service, operation, wire: Wire::Query, input, region })
}

/// Scheme and host as the client said them.
fn base_url(client: &Client, parts: &Parts) -> Arc<str> {
    let said = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let said = said.or_else(|| parts.uri.authority().map(|authority| authority.as_str()));
    let host = said.filter(|host| !host.is_empty() && host.len() <= HOST_BYTES_MAX && host.bytes().all(is_of_host));
    let host = host.map_or_else(|| Cow::Owned(client.local.to_string()), Cow::Borrowed);
    let mut last = client.base_url.lock();
    if last.0 != *host {
        *last = (host.to_string(), format!("http://{host}").into());
    }
    last.1.clone()
}

/// Bytes of a name of a host with its port.
const HOST_BYTES_MAX: usize = 270;

fn is_of_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._:[]~%".contains(&byte)
}

/// A UUID.
fn request_id(broker: &Broker) -> Arc<str> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let random = (u128::from(broker.random()) << 64) | u128::from(broker.random());
    // Version 4, variant 1.
    let random = random & !(0xF << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let mut text = [b'-'; 36];
    let places = (0..36).filter(|place| ![8, 13, 18, 23].contains(place));
    for (index, place) in places.enumerate() {
        text[place] = DIGITS[(random >> (124 - 4 * index) & 0xF) as usize];
    }
    std::str::from_utf8(&text).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{self, time::Time};

    #[test]
    fn request_id_is_a_uuid() {
        let broker = Broker::new(broker::Options::default(), Time::default()).unwrap();
        let id = request_id(&broker);
        assert_eq!(id.len(), 36);
        assert_eq!(&id[14..15], "4");
        assert!("89ab".contains(&id[19..20]), "{id}");
        assert_ne!(id, request_id(&broker));
    }
}
