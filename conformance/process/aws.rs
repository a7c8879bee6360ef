//! SQS and SNS over HTTP, on the real binary: who is let in, how calls are answered, and what hostile peers can do.

use std::{
    fmt::Write as _,
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use ternmq::aws::sigv4;

use crate::broker::{Broker, DEADLINE};

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The code of a refusal in JSON.
    fn code(&self) -> String {
        let kind = self.json()["__type"].as_str().unwrap_or_default().to_owned();
        kind.rsplit('#').next().unwrap_or_default().to_owned()
    }
}

/// A connection of HTTP/1.1.
pub(crate) struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    host: String,
}

impl Client {
    pub(crate) fn open(broker: &Broker) -> Self {
        let port = broker.port_of("aws");
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { stream, input: Vec::new(), host: format!("127.0.0.1:{port}") }
    }

    fn write(&mut self, octets: &[u8]) {
        self.stream.write_all(octets).unwrap();
    }

    /// The next answer; `None`: the broker has closed the connection.
    fn read(&mut self) -> Option<Answer> {
        let head = loop {
            if let Some(at) = self.input.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.more()?;
        };
        let text = String::from_utf8(self.input[..head].to_vec()).unwrap();
        let mut lines = text.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length: usize = length.map_or(0, |(_, value)| value.parse().unwrap());
        while self.input.len() < head + length {
            self.more()?;
        }
        let body = self.input[head..head + length].to_vec();
        self.input.drain(..head + length);
        Some(Answer { status, headers, body })
    }

    fn more(&mut self) -> Option<()> {
        let mut piece = [0; 64 << 10];
        let read = self.stream.read(&mut piece).ok().filter(|read| *read > 0)?;
        self.input.extend_from_slice(&piece[..read]);
        Some(())
    }

    /// Sends a request and reads its answer.
    pub(crate) fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let request = request(method, path, &self.host, headers, body);
        self.write(&request);
        self.read().expect("an answer")
    }

    pub(crate) fn json(&mut self, operation: &str, input: &Value) -> Answer {
        let target = format!("AmazonSQS.{operation}");
        let headers = [("Content-Type", "application/x-amz-json-1.0"), ("X-Amz-Target", target.as_str())];
        self.send("POST", "/", &headers, input.to_string().as_bytes())
    }

    pub(crate) fn form(&mut self, path: &str, form: &str) -> Answer {
        self.send("POST", path, &[("Content-Type", "application/x-www-form-urlencoded")], form.as_bytes())
    }

    /// A call in JSON that is signed.
    fn signed(&mut self, key: (&str, &str), operation: &str, input: &Value) -> Answer {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        let (time, target) = (sigv4::basic_time(now), format!("AmazonSQS.{operation}"));
        let host = self.host.clone();
        let headers = [("host", host.as_str()), ("x-amz-date", &time), ("x-amz-target", &target)];
        let body = input.to_string();
        let keys = sigv4::SigningKeys::default();
        let authorization =
            sigv4::authorization(key, ("us-east-1", "sqs"), now, ("POST", "/", ""), &headers, body.as_bytes(), &keys);
        let sent = [("X-Amz-Date", time.as_str()), ("X-Amz-Target", &target), ("Authorization", &authorization)];
        self.send("POST", "/", &sent, body.as_bytes())
    }

    pub(crate) fn create(&mut self, name: &str) -> String {
        let made = self.json("CreateQueue", &json!({ "QueueName": name }));
        assert_eq!(made.status, 200, "{}", made.text());
        made.json()["QueueUrl"].as_str().unwrap().to_owned()
    }
}

fn request(method: &str, path: &str, host: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    head += "\r\n";
    [head.as_bytes(), body].concat()
}

#[test]
fn calls_are_answered_as_they_are_written() {
    let broker = Broker::start();
    let mut client = Client::open(&broker);
    let url = client.create("q");
    assert_eq!(url, format!("http://{}/000000000000/q", client.host));
    let sent = client.json("SendMessage", &json!({ "QueueUrl": url, "MessageBody": "a<b" }));
    assert_eq!(sent.header("content-type"), Some("application/x-amz-json-1.0"));
    assert_eq!(sent.header("x-amzn-requestid").map(str::len), Some(36));
    assert_eq!(sent.json()["MD5OfMessageBody"], "1a382af93ed4b8a29ebd8e859a0168d7");
    // At the address of the queue, without its parameter.
    let received = client.form("/000000000000/q", "Action=ReceiveMessage&Version=2012-11-05");
    assert_eq!(received.header("content-type"), Some("text/xml"));
    assert!(received.text().contains("<Body>a&lt;b</Body>"), "{}", received.text());
    let handle = received.text();
    let (_, handle) = handle.split_once("<ReceiptHandle>").unwrap();
    let (handle, _) = handle.split_once("</ReceiptHandle>").unwrap();
    let deleted = client.json("DeleteMessage", &json!({ "QueueUrl": url, "ReceiptHandle": handle }));
    assert_eq!((deleted.status, deleted.text().as_str()), (200, ""));
    // As a link.
    let listed = client.send("GET", "/?Action=ListQueues&Version=2012-11-05", &[], b"");
    assert!(listed.text().contains(&format!("<QueueUrl>{url}</QueueUrl>")), "{}", listed.text());
}

#[test]
fn refusals_have_the_codes_of_their_protocol() {
    let broker = Broker::start();
    let mut client = Client::open(&broker);
    let missing = json!({ "QueueUrl": "http://localhost/000000000000/missing", "MessageBody": "x" });
    let answer = client.json("SendMessage", &missing);
    assert_eq!((answer.status, answer.code().as_str()), (400, "QueueDoesNotExist"));
    assert_eq!(answer.header("x-amzn-query-error"), None);
    let headers = [("X-Amz-Target", "AmazonSQS.SendMessage"), ("x-amzn-query-mode", "true")];
    let answer = client.send("POST", "/", &headers, missing.to_string().as_bytes());
    assert_eq!(answer.header("x-amzn-query-error"), Some("AWS.SimpleQueueService.NonExistentQueue;Sender"));
    let answer = client.form("/000000000000/missing", "Action=SendMessage&MessageBody=x");
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("<Code>AWS.SimpleQueueService.NonExistentQueue</Code>"), "{}", answer.text());
    assert_eq!(client.json("Nothing", &json!({})).code(), "UnknownOperationException");
    for form in ["Action=Nothing", "Nothing=1", ""] {
        let answer = client.form("/", form);
        assert_eq!(answer.status, 400, "{form}");
        assert!(answer.text().contains("<Code>InvalidAction</Code>") || answer.text().contains("MissingAction"));
    }
    for body in ["", "{", "[]", "null", "\"x\"", "{\"QueueUrl\":5}", "{\"QueueUrl\":\"\u{0}\"}", "\u{feff}{}"] {
        let answer = client.send("POST", "/", &[("X-Amz-Target", "AmazonSQS.SendMessage")], body.as_bytes());
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
    }
    let deep = "[".repeat(100_000);
    let answer = client.send("POST", "/", &[("X-Amz-Target", "AmazonSQS.SendMessage")], deep.as_bytes());
    assert_eq!((answer.status, answer.code().as_str()), (400, "SerializationException"));
    assert_eq!(client.send("PUT", "/", &[], b"").status, 405);
    assert_eq!(client.send("GET", "/_tern/health", &[], b"").json(), json!({ "status": "ok" }));
    assert_eq!(client.send("POST", "/_tern/reset", &[], b"").status, 404);
}

#[test]
fn without_development_mode_every_call_is_signed_and_its_user_needs_permission() {
    let broker = Broker::with(&["aws.development=off", "aws.access_keys=AKID:secret:guest"]);
    let mut client = Client::open(&broker);
    let (right, input) = (("AKID", "secret"), json!({ "QueueName": "q" }));
    assert_eq!(client.json("CreateQueue", &input).code(), "MissingAuthenticationTokenException");
    let unsigned = client.form("/", "Action=Publish&Version=2010-03-31");
    assert!(unsigned.text().contains("<Code>MissingAuthenticationToken</Code>"), "{}", unsigned.text());
    assert_eq!(client.signed(("AKID", "wrong"), "CreateQueue", &input).code(), "InvalidSignatureException");
    assert_eq!(client.signed(("NOBODY", "secret"), "CreateQueue", &input).code(), "UnrecognizedClientException");
    assert_eq!(client.signed(right, "CreateQueue", &input).status, 200);
    broker.ctl(&["add_user", "bob", "x"]);
    let made = broker.ctl(&["-q", "add_access_key", "bob", "--id", "BOB"]);
    let secret = made.lines().find_map(|line| line.strip_prefix("AWS_SECRET_ACCESS_KEY=")).unwrap().to_owned();
    let bob = ("BOB", secret.as_str());
    let url = format!("http://{}/000000000000/q", client.host);
    let send = json!({ "QueueUrl": url, "MessageBody": "x" });
    assert_eq!(client.signed(bob, "SendMessage", &send).status, 403);
    broker.ctl(&["set_permissions", "bob", "", "^q$", ""]);
    assert_eq!(client.signed(bob, "SendMessage", &send).status, 200);
    assert_eq!(client.signed(bob, "ReceiveMessage", &json!({ "QueueUrl": url })).status, 403);
    // Without a signature, what the policy lets everybody do.
    assert_eq!(client.json("SendMessage", &send).status, 403);
    let allow = json!({"Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage"});
    let policy = json!({"Version": "2012-10-17", "Statement": allow}).to_string();
    let set = json!({ "QueueUrl": url, "Attributes": { "Policy": policy } });
    assert_eq!(client.signed(right, "SetQueueAttributes", &set).status, 200);
    assert_eq!(client.json("SendMessage", &send).status, 200);
    let get = "/000000000000/q?Action=SendMessage&Version=2012-11-05&MessageBody=x";
    assert_eq!(client.send("GET", get, &[], b"").status, 200);
    let refused = client.send("GET", "/000000000000/q?Action=ReceiveMessage", &[], b"");
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("<Code>AccessDenied</Code>"), "{}", refused.text());
    assert!(broker.ctl(&["list_access_keys"]).contains("BOB\tbob"));
    broker.ctl(&["delete_access_key", "BOB"]);
    assert_eq!(client.signed(bob, "SendMessage", &send).code(), "UnrecognizedClientException");
}

#[test]
fn access_key_is_there_after_a_restart() {
    let mut broker = Broker::with(&["aws.development=off"]);
    broker.ctl(&["add_access_key", "guest", "--id", "AKID", "--secret", "secret"]);
    broker.crash();
    let mut client = Client::open(&broker);
    assert_eq!(client.signed(("AKID", "secret"), "ListQueues", &json!({})).status, 200);
}

#[test]
fn proxy_and_pages_of_elsewhere_are_not_this_machine() {
    let broker = Broker::start();
    let mut client = Client::open(&broker);
    let target = ("X-Amz-Target", "AmazonSQS.ListQueues");
    let answer = client.send("POST", "/", &[target, ("X-Forwarded-For", "127.0.0.1")], b"{}");
    assert_eq!(answer.code(), "MissingAuthenticationTokenException");
    let answer = client.send("POST", "/", &[target, ("Origin", "https://example.com")], b"{}");
    assert_eq!(answer.status, 403);
    let answer = client.send("GET", "/?Action=ListQueues", &[("Sec-Fetch-Site", "cross-site")], b"");
    assert_eq!(answer.status, 403);
    let page = ("Origin", "http://localhost:3000");
    let asked = [page, ("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "x-amz-target")];
    let answer = client.send("OPTIONS", "/", &asked, b"");
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("*")));
    assert_eq!(answer.header("access-control-allow-headers"), Some("x-amz-target"));
    let answer = client.send("POST", "/", &[target, page], b"{}");
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("*")));
}

#[test]
fn requests_behind_one_another_are_answered_in_order() {
    let broker = Broker::start();
    let mut client = Client::open(&broker);
    let url = client.create("q");
    let mut all = Vec::new();
    for number in 0..50 {
        let body = json!({ "QueueUrl": url, "MessageBody": number.to_string() }).to_string();
        let headers = [("X-Amz-Target", "AmazonSQS.SendMessage")];
        all.extend(request("POST", "/", &client.host, &headers, body.as_bytes()));
    }
    client.write(&all);
    for _ in 0..50 {
        assert_eq!(client.read().unwrap().status, 200);
    }
    let count = client
        .json("GetQueueAttributes", &json!({ "QueueUrl": url, "AttributeNames": ["ApproximateNumberOfMessages"] }));
    assert_eq!(count.json()["Attributes"]["ApproximateNumberOfMessages"], "50");
}

#[test]
fn http_2_is_spoken_at_the_same_port() {
    let broker = Broker::start();
    let mut client = Client::open(&broker);
    // The preface, and empty settings.
    client.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    while client.input.len() < 9 {
        client.more().expect("settings");
    }
    assert_eq!(client.input[3], 4, "the first frame has settings");
}

#[test]
fn long_poll_ends_with_a_message_and_with_the_broker() {
    let mut broker = Broker::start();
    let mut client = Client::open(&broker);
    let url = client.create("q");
    let wait = json!({ "QueueUrl": url, "WaitTimeSeconds": 20 }).to_string();
    let mut waiting = Client::open(&broker);
    let receive = request("POST", "/", &waiting.host, &[("X-Amz-Target", "AmazonSQS.ReceiveMessage")], wait.as_bytes());
    waiting.write(&receive);
    client.json("SendMessage", &json!({ "QueueUrl": url, "MessageBody": "x" }));
    let received = waiting.read().unwrap().json();
    assert_eq!(received["Messages"][0]["Body"], "x");
    // One that waits when the broker goes is told, and the broker goes at once.
    waiting.write(&receive);
    let begun = Instant::now();
    broker.terminate();
    assert!(broker.wait().success());
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    if let Some(answer) = waiting.read() {
        assert_eq!(answer.status, 503);
    }
}

#[test]
fn receiver_that_went_away_takes_no_message_with_it() {
    let broker = Broker::start();
    let mut client = Client::open(&broker);
    let url = client.create("q");
    // One whose request is read only after the message has come may still receive it, and its lease then has to end.
    client.json("SetQueueAttributes", &json!({ "QueueUrl": url, "Attributes": { "VisibilityTimeout": "1" } }));
    for _ in 0..20 {
        let mut gone = Client::open(&broker);
        let wait = json!({ "QueueUrl": url, "WaitTimeSeconds": 20 }).to_string();
        let receive =
            request("POST", "/", &gone.host, &[("X-Amz-Target", "AmazonSQS.ReceiveMessage")], wait.as_bytes());
        gone.write(&receive);
        gone.stream.shutdown(Shutdown::Both).unwrap();
    }
    client.json("SendMessage", &json!({ "QueueUrl": url, "MessageBody": "x" }));
    let received = client.json("ReceiveMessage", &json!({ "QueueUrl": url, "WaitTimeSeconds": 20 }));
    assert_eq!(received.json()["Messages"][0]["Body"], "x");
}

#[test]
fn body_that_is_too_long_is_cut_off_before_it_has_come() {
    let broker = Broker::start();
    let mut client = Client::open(&broker);
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {}\r\nX-Amz-Target: AmazonSQS.SendMessage\r\nContent-Length: 1000000000\r\n\r\n{{",
        client.host
    );
    client.write(head.as_bytes());
    let answer = client.read().unwrap();
    assert_eq!((answer.status, answer.code().as_str()), (400, "InvalidParameterValueException"));
    let before = broker.resident_bytes();
    // In chunks nobody says how much it will be.
    let mut client = Client::open(&broker);
    let head = format!("POST / HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n", client.host);
    client.write(head.as_bytes());
    let chunk = [b"10000\r\n".as_slice(), &[b'a'; 0x10000], b"\r\n"].concat();
    let flooded = (0..1000).try_for_each(|_| client.stream.write_all(&chunk));
    if flooded.is_ok() {
        client.stream.shutdown(Shutdown::Write).unwrap();
    }
    assert!(broker.resident_bytes() < before + (32 << 20));
    let mut client = Client::open(&broker);
    let answer = client.send("POST", "/", &[("X-Amz-Target", "AmazonSQS.ListQueues")], &vec![b' '; 600 << 10]);
    assert_eq!((answer.status, answer.code().as_str()), (413, "RequestEntityTooLarge"));
}

#[test]
fn floods_of_headers_and_broken_chunks_end_their_connection_only() {
    let broker = Broker::start();
    let many: String = (0..200).map(|number| format!("X-H{number}: x\r\n")).collect();
    let long = format!("X-Long: {}\r\n", "x".repeat(1 << 20));
    for headers in [many.as_str(), &long] {
        let mut client = Client::open(&broker);
        let head = format!("POST / HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        // It may be refused while it is still being sent.
        let _ = client.stream.write_all(head.as_bytes());
        if let Some(answer) = client.read() {
            assert_eq!(answer.status, 431);
        }
    }
    for chunks in ["zz\r\nabc\r\n0\r\n\r\n", "-1\r\n", "ffffffffffffffff1\r\nabc"] {
        let mut client = Client::open(&broker);
        let head =
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nX-Amz-Target: AmazonSQS.ListQueues\r\n\r\n";
        client.write(format!("{head}{chunks}").as_bytes());
        if let Some(answer) = client.read() {
            assert_eq!(answer.status, 400, "{chunks}");
        }
    }
    for nonsense in ["\r\n\r\n\r\n\r\n", "GET\r\n\r\n", "AMQP\0\0\x09\x01", "\x16\x03\x01\x02\0\x01\0\x01\x7c"] {
        let mut client = Client::open(&broker);
        let _ = client.stream.write_all(nonsense.as_bytes());
        let _ = client.stream.shutdown(Shutdown::Write);
        if let Some(answer) = client.read() {
            assert_eq!(answer.status, 400);
        }
    }
    assert_eq!(Client::open(&broker).json("ListQueues", &json!({})).status, 200);
}

#[test]
fn slow_clients_are_not_waited_for() {
    let broker = Broker::with(&["aws.idle_timeout_ms=1000"]);
    for begin in ["", "P", "POST / HTTP/1.1\r\nHost: x\r\n"] {
        let mut client = Client::open(&broker);
        client.write(begin.as_bytes());
        if let Some(answer) = client.read() {
            assert_eq!(answer.status, 408, "{begin:?}");
        }
    }
    // One that has asked once and then says nothing.
    let mut client = Client::open(&broker);
    assert_eq!(client.json("ListQueues", &json!({})).status, 200);
    assert!(client.read().is_none());
}

#[test]
fn everything_is_deleted_where_tests_may() {
    let broker = Broker::with(&["aws.reset=on"]);
    let mut client = Client::open(&broker);
    client.create("q");
    assert_eq!(client.send("POST", "/_tern/reset", &[], b"").status, 200);
    assert_eq!(client.json("ListQueues", &json!({})).json()["QueueUrls"], Value::Null);
    client.create("q");
}

#[test]
fn waiting_receivers_cost_nothing() {
    let broker = Broker::start();
    let mut client = Client::open(&broker);
    let url = client.create("q");
    let wait = json!({ "QueueUrl": url, "WaitTimeSeconds": 20 }).to_string();
    let mut waiting: Vec<Client> = (0..300).map(|_| Client::open(&broker)).collect();
    for one in &mut waiting {
        let receive = request("POST", "/", &one.host, &[("X-Amz-Target", "AmazonSQS.ReceiveMessage")], wait.as_bytes());
        one.write(&receive);
    }
    // All have been read when this is answered by the same listener after them.
    client.json("ListQueues", &json!({}));
    let (before, begun) = (broker.cpu(), Instant::now());
    let first = client.json("ReceiveMessage", &json!({ "QueueUrl": url, "WaitTimeSeconds": 2 }));
    assert_eq!(first.status, 200);
    let (used, took) = (broker.cpu() - before, begun.elapsed());
    assert!(used < took / 4, "{used:?} of {took:?}");
    for number in 0..300 {
        client.json("SendMessage", &json!({ "QueueUrl": url, "MessageBody": number.to_string() }));
    }
    for one in &mut waiting {
        assert!(one.read().unwrap().json()["Messages"][0]["Body"].is_string());
    }
}
