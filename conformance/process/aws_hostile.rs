//! Hostile and unlucky peers of SQS and SNS over HTTP/1.1 and HTTP/2: each is refused or ends with its connection, and
//! nobody else notices.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    aws::{Client, request},
    broker::{Broker, DEADLINE, until},
};

const TARGET: (&str, &str) = ("X-Amz-Target", "AmazonSQS.SendMessage");

fn assert_serves(broker: &Broker) {
    assert_eq!(Client::open(broker).json("ListQueues", &json!({})).status, 200);
}

#[test]
fn what_is_no_text_is_refused() {
    let broker = Broker::start();
    let mut client = Client::open(&broker);
    let url = client.create("q");
    let body = [b"{\"QueueUrl\":\"".as_slice(), url.as_bytes(), b"\",\"MessageBody\":\"\xff\xfe\"}"].concat();
    let answer = client.send("POST", "/", &[TARGET], &body);
    assert_eq!((answer.status, answer.code().as_str()), (400, "SerializationException"));
    for form in ["Action=SendMessage&MessageBody=%FF%FE", "Action=SendMessage&MessageBody=%C0%80"] {
        let answer = client.form("/000000000000/q", form);
        assert_eq!(answer.status, 400, "{form}");
        assert!(answer.text().contains("<Code>MalformedInput</Code>"), "{}", answer.text());
    }
    // The character that stands for what is no text is one like others.
    let answer = client.form("/000000000000/q", "Action=SendMessage&MessageBody=%EF%BF%BD");
    assert_eq!(answer.status, 200, "{}", answer.text());
    // Half an escape stands for itself.
    assert_eq!(client.form("/000000000000/q", "Action=SendMessage&MessageBody=100%&x=%zz").status, 200);
    let received = client.json("ReceiveMessage", &json!({ "QueueUrl": url, "MaxNumberOfMessages": 10 }));
    let bodies: Vec<Value> =
        received.json()["Messages"].as_array().unwrap().iter().map(|one| one["Body"].clone()).collect();
    assert_eq!(bodies, ["\u{fffd}", "100%"]);
}

#[test]
fn characters_that_no_message_may_have_are_refused_by_name() {
    let broker = Broker::start();
    let mut client = Client::open(&broker);
    let url = client.create("q");
    let legal = "#x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF";
    for (character, name) in [('\0', "#x0"), ('\u{b}', "#xB"), ('\u{1f}', "#x1F"), ('\u{fffe}', "#xFFFE")] {
        let answer = client.json("SendMessage", &json!({ "QueueUrl": url, "MessageBody": format!("a{character}") }));
        assert_eq!((answer.status, answer.code().as_str()), (400, "InvalidMessageContents"));
        let text = format!(
            "Invalid binary character '{name}' was found in the message body, the set of allowed characters is {legal}"
        );
        assert_eq!(answer.json()["message"], text.as_str());
    }
    for body in ["tab\t line\n return\r", "\u{7f}\u{80}\u{d7ff}\u{e000}\u{fffd}\u{10000}\u{10ffff}"] {
        assert_eq!(client.json("SendMessage", &json!({ "QueueUrl": url, "MessageBody": body })).status, 200);
    }
    // Half of a pair is no character at all.
    let half = format!("{{\"QueueUrl\":\"{url}\",\"MessageBody\":\"\\ud800\"}}");
    let answer = client.send("POST", "/", &[TARGET], half.as_bytes());
    assert_eq!((answer.status, answer.code().as_str()), (400, "SerializationException"));
}

#[test]
fn numbers_that_are_none_or_far_too_large_are_refused() {
    let broker = Broker::start();
    let mut client = Client::open(&broker);
    let url = client.create("q");
    let digits = "9".repeat(100_000);
    for number in ["1e400", "-1e400", "99999999999999999999", "-9223372036854775809", "1.5", "NaN", "0x10", &digits] {
        let body = format!("{{\"QueueUrl\":\"{url}\",\"MaxNumberOfMessages\":{number}}}");
        let answer = client.send("POST", "/", &[("X-Amz-Target", "AmazonSQS.ReceiveMessage")], body.as_bytes());
        assert_eq!((answer.status, answer.code().as_str()), (400, "SerializationException"), "{number:.30}");
    }
    for (field, number) in [("MaxNumberOfMessages", i64::MAX), ("VisibilityTimeout", i64::MIN), ("WaitTimeSeconds", 21)]
    {
        let answer = client.json("ReceiveMessage", &json!({ "QueueUrl": url, field: number }));
        assert_eq!((answer.status, answer.code().as_str()), (400, "InvalidParameterValueException"), "{field}");
    }
    for number in ["99999999999999999999", "1e3", "-", &digits] {
        let answer = client.form("/000000000000/q", &format!("Action=ReceiveMessage&MaxNumberOfMessages={number}"));
        assert_eq!(answer.status, 400, "{number:.30}");
    }
    // Numbers of items count nothing: so many are not there.
    let far = "Action=SendMessageBatch&SendMessageBatchRequestEntry.4294967296.Id=a\
               &SendMessageBatchRequestEntry.4294967296.MessageBody=x";
    assert!([200, 400].contains(&client.form("/000000000000/q", far).status));
    assert_serves(&broker);
}

#[test]
fn nesting_and_repetition_cost_no_more_than_their_octets() {
    let broker = Broker::start();
    let mut client = Client::open(&broker);
    let url = client.create("q");
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(20_000), close.repeat(20_000));
    for value in [deep("[", "]"), deep("{\"a\":", "}")] {
        let wrong = format!("{{\"QueueUrl\":\"{url}\",\"MessageBody\":{value}}}");
        let answer = client.send("POST", "/", &[TARGET], wrong.as_bytes());
        assert_eq!((answer.status, answer.code().as_str()), (400, "SerializationException"));
        // What nobody knows is passed over, and needs no stack for that.
        let unknown = format!("{{\"QueueUrl\":\"{url}\",\"MessageBody\":\"x\",\"Unknown\":{value}}}");
        assert!([200, 400].contains(&client.send("POST", "/", &[TARGET], unknown.as_bytes()).status));
        let answer = client.json("SetQueueAttributes", &json!({ "QueueUrl": url, "Attributes": { "Policy": value } }));
        assert_eq!((answer.status, answer.code().as_str()), (400, "InvalidAttributeValue"));
    }
    let begun = Instant::now();
    let many = "Attribute.1.Name=a&".repeat(20_000);
    let answer = client.form("/000000000000/q", &format!("Action=SetQueueAttributes&{many}"));
    assert!(answer.text().contains("<Code>MalformedInput</Code>"), "{}", answer.text());
    let deep = "a.".repeat(20_000);
    assert_eq!(client.form("/000000000000/q", &format!("Action=SetQueueAttributes&{deep}=x")).status, 400);
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn markup_in_names_and_policies_is_text() {
    let broker = Broker::start();
    let mut client = Client::open(&broker);
    let url = client.create("q");
    let entity = "<!DOCTYPE a [<!ENTITY b SYSTEM \"file:///etc/passwd\">]><a>&b;</a>";
    let sid = json!({ "Version": "2012-10-17", "Statement": [{
        "Sid": entity, "Effect": "Allow", "Principal": "*", "Action": "SQS:SendMessage", "Resource": "*",
    }] });
    let set = json!({ "QueueUrl": url, "Attributes": { "Policy": sid.to_string() } });
    let _ = client.json("SetQueueAttributes", &set);
    client.json("TagQueue", &json!({ "QueueUrl": url, "Tags": { "markup": entity } }));
    client.json("SendMessage", &json!({ "QueueUrl": url, "MessageBody": entity }));
    for action in ["ListQueueTags", "ReceiveMessage", "GetQueueAttributes&AttributeName.1=Policy"] {
        let answer = client.form("/000000000000/q", &format!("Action={action}&Version=2012-11-05"));
        assert_eq!(answer.status, 200);
        assert!(!answer.text().contains("<!DOCTYPE") && !answer.text().contains("&b;"), "{}", answer.text());
    }
    // XML is not what calls are written in.
    let answer = client.send("POST", "/", &[("Content-Type", "text/xml")], entity.as_bytes());
    assert_eq!(answer.status, 400);
    assert!(!answer.text().contains("root:"));
}

#[test]
fn lengths_that_are_wrong_end_their_connection_only() {
    let broker = Broker::start();
    let head =
        |lengths: &str| format!("POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: AmazonSQS.ListQueues\r\n{lengths}\r\n");
    for lengths in [
        "Content-Length: -1\r\n",
        "Content-Length: two\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Content-Length: 2\r\nContent-Length: 3\r\n",
        "Content-Length: 2, 3\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
    ] {
        let mut client = Client::open(&broker);
        client.write(format!("{}{{}}", head(lengths)).as_bytes());
        if let Some(answer) = client.read() {
            assert_eq!(answer.status, 400, "{lengths}");
        }
        assert!(client.read().is_none(), "{lengths}: the connection goes on");
    }
    // Two lengths are one request at most: what follows is none of its own.
    let mut client = Client::open(&broker);
    let smuggled = "0\r\n\r\nGET /_tern/health HTTP/1.1\r\nHost: x\r\n\r\n";
    let both = head("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n");
    client.write(format!("{both}{smuggled}").as_bytes());
    if let Some(answer) = client.read() {
        assert!([200, 400].contains(&answer.status));
    }
    // Less than was announced.
    let mut client = Client::open(&broker);
    client.write(format!("{}{{", head("Content-Length: 2\r\n")).as_bytes());
    client.stream.shutdown(Shutdown::Write).unwrap();
    if let Some(answer) = client.read() {
        assert_eq!(answer.status, 400);
    }
    assert!(client.read().is_none());
    // More than was announced is the next request.
    let mut client = Client::open(&broker);
    client.write(format!("{}{{}}garbage\r\n\r\n", head("Content-Length: 2\r\n")).as_bytes());
    if let Some(answer) = client.read() {
        assert_eq!(answer.status, 200);
    }
    if let Some(answer) = client.read() {
        assert_eq!(answer.status, 400);
    }
    assert!(client.read().is_none());
    assert_serves(&broker);
}

#[test]
fn slow_bodies_are_not_waited_for() {
    let broker = Broker::with(&["aws.idle_timeout_ms=1000"]);
    let head = |how: &str| format!("POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: AmazonSQS.ListQueues\r\n{how}\r\n\r\n");
    for (how, piece) in [("Content-Length: 1000000", "{"), ("Transfer-Encoding: chunked", "1\r\n{\r\n")] {
        let mut client = Client::open(&broker);
        let begun = Instant::now();
        client.write(format!("{}{piece}", head(how)).as_bytes());
        // Octet by octet does not make it longer.
        let piece = if how.starts_with('C') { " " } else { "1\r\n \r\n" };
        client.stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut first = [0];
        loop {
            match client.stream.read(&mut first) {
                Ok(0) => break,
                Ok(_) => {
                    client.input.push(first[0]);
                    break;
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
            assert!(begun.elapsed() < DEADLINE);
            let _ = client.stream.write_all(piece.as_bytes());
        }
        client.stream.set_read_timeout(Some(DEADLINE)).unwrap();
        if let Some(answer) = client.read() {
            assert!([408, 413].contains(&answer.status), "{how}: {}", answer.text());
        }
    }
    assert_serves(&broker);
}

#[test]
fn answers_that_nobody_reads_end_their_connection() {
    let broker = Broker::with(&["aws.idle_timeout_ms=5000", "aws.connections_count_max=1"]);
    let mut client = Client::open(&broker);
    let url = client.create("q");
    let body = "x".repeat(1 << 20);
    for _ in 0..8 {
        assert_eq!(client.json("SendMessage", &json!({ "QueueUrl": url, "MessageBody": body })).status, 200);
    }
    let receive = json!({ "QueueUrl": url, "MaxNumberOfMessages": 10, "VisibilityTimeout": 0 }).to_string();
    let receive =
        request("POST", "/", &client.host, &[("X-Amz-Target", "AmazonSQS.ReceiveMessage")], receive.as_bytes());
    (0..4).for_each(|_| client.write(&receive));
    // There is room for another one when this one has been given up.
    until("the connection is closed", || {
        let mut other = Client::open(&broker);
        let list = request("POST", "/", &other.host, &[("X-Amz-Target", "AmazonSQS.ListQueues")], b"{}");
        other.stream.write_all(&list).is_ok() && other.read().is_some_and(|answer| answer.status == 200)
    });
}

#[test]
fn requests_whose_answers_nobody_reads_stop_being_read() {
    let broker = Broker::start();
    let mut client = Client::open(&broker);
    client.create("q");
    let before = broker.resident_bytes();
    let list = request("POST", "/", &client.host, &[("X-Amz-Target", "AmazonSQS.ListQueues")], b"{}");
    let many = list.repeat(1_000);
    client.stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut written = 0_u64;
    let stopped = loop {
        // Where the write before was cut off, or it would be no request.
        match client.stream.write(&many[written as usize % many.len()..]) {
            Ok(count) => written += count as u64,
            Err(error) => break error,
        }
        assert!(written < 1 << 30, "a gigabyte of requests is read without an answer being taken");
    };
    assert!(matches!(stopped.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{stopped}");
    let grown = broker.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more for {written} bytes of requests");
    assert_serves(&broker);
}

#[test]
fn connections_beyond_the_bound_are_closed_and_there_is_room_again_later() {
    let broker = Broker::with(&["aws.connections_count_max=3"]);
    let mut served: Vec<Client> = (0..3).map(|_| Client::open(&broker)).collect();
    for client in &mut served {
        assert_eq!(client.json("ListQueues", &json!({})).status, 200);
    }
    for _ in 0..100 {
        assert!(Client::open(&broker).read().is_none());
    }
    assert_eq!(served[0].json("ListQueues", &json!({})).status, 200);
    served.pop();
    until("there is room again", || {
        let mut other = Client::open(&broker);
        let list = request("POST", "/", &other.host, &[("X-Amz-Target", "AmazonSQS.ListQueues")], b"{}");
        other.stream.write_all(&list).is_ok() && other.read().is_some_and(|answer| answer.status == 200)
    });
}

/// A connection of HTTP/2, frame by frame.
struct Frames {
    stream: TcpStream,
    input: Vec<u8>,
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `POST http://x/`, by the static table of HPACK.
const POST: &[u8] = b"\x83\x86\x84\x41\x01x";

impl Frames {
    fn open(broker: &Broker) -> Self {
        let stream = Client::open(broker).stream;
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        let mut frames = Self { stream, input: Vec::new() };
        frames.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        frames.write(&frame(SETTINGS, 0, 0, b""));
        frames
    }

    /// It may be closed while it is still being written to.
    fn write(&mut self, octets: &[u8]) -> bool {
        self.stream.write_all(octets).is_ok()
    }

    /// The next frame: its kind, its stream and what it holds. `None`: the connection is over.
    fn read(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        self.fill(9)?;
        let length = u32::from_be_bytes([0, self.input[0], self.input[1], self.input[2]]) as usize;
        let stream = u32::from_be_bytes(self.input[5..9].try_into().unwrap());
        let kind = self.input[3];
        self.fill(9 + length)?;
        let payload = self.input[9..9 + length].to_vec();
        self.input.drain(..9 + length);
        Some((kind, stream, payload))
    }

    fn fill(&mut self, count: usize) -> Option<()> {
        while self.input.len() < count {
            let mut piece = [0; 16 << 10];
            let read = self.stream.read(&mut piece).ok().filter(|read| *read > 0)?;
            self.input.extend_from_slice(&piece[..read]);
        }
        Some(())
    }

    /// Reads on until that kind of frame comes.
    fn until(&mut self, wanted: u8) -> Option<Vec<u8>> {
        loop {
            let (kind, _, payload) = self.read()?;
            if kind == wanted {
                return Some(payload);
            }
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Streams of a client, in order.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|n| 2 * n + 1)
}

#[test]
fn requests_over_http_2_are_answered_and_a_flood_of_resets_is_not() {
    let broker = Broker::start();
    let mut frames = Frames::open(&broker);
    frames.write(&frame(HEADERS, END_HEADERS | END_STREAM, 1, POST));
    assert!(frames.until(HEADERS).is_some(), "even nonsense is answered");
    let mut frames = Frames::open(&broker);
    let flood: Vec<u8> = streams(20_000)
        .flat_map(|stream| {
            [frame(HEADERS, END_HEADERS | END_STREAM, stream, POST), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())]
        })
        .flatten()
        .collect();
    let before = broker.resident_bytes();
    frames.write(&flood);
    // Its connection is ended, with a word or without.
    frames.until(GOAWAY);
    let grown = broker.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes");
    assert_serves(&broker);
}

#[test]
fn streams_beyond_the_bound_are_refused_and_the_others_are_served() {
    let broker = Broker::start();
    let mut frames = Frames::open(&broker);
    // All wait for a body.
    let flood: Vec<u8> = streams(2_000).flat_map(|stream| frame(HEADERS, END_HEADERS, stream, POST)).collect();
    frames.write(&flood);
    let mut refused = 0;
    while refused < 1_500 {
        match frames.read() {
            Some((RST_STREAM, _, why)) => {
                assert_eq!(why, 7_u32.to_be_bytes(), "it may be tried again");
                refused += 1;
            }
            Some((GOAWAY, ..)) | None => break,
            Some(_) => {}
        }
    }
    assert_serves(&broker);
    if refused == 1_500 {
        frames.write(&frame(DATA, END_STREAM, 1, b"{}"));
        assert!(frames.until(HEADERS).is_some());
    }
}

#[test]
fn headers_without_end_pings_and_settings_are_no_way_to_fill_memory() {
    let broker = Broker::start();
    let before = broker.resident_bytes();
    // Headers that go on and on.
    let mut frames = Frames::open(&broker);
    frames.write(&frame(HEADERS, 0, 1, POST));
    // A header that is not to be remembered, of two octets and 8 KiB.
    let long = [b"\x00\x01x\x7f\x81\x3f".as_slice(), &[b'y'; 127 + 8065]].concat();
    let more = frame(CONTINUATION, 0, 1, &long);
    let was_ended = (0..10_000).any(|_| !frames.write(&more));
    assert!(was_ended || frames.until(GOAWAY).is_none() || frames.read().is_none());
    // Answers that are asked for and not read.
    for kind in [PING, SETTINGS] {
        let mut frames = Frames::open(&broker);
        frames.stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
        let payload: &[u8] = if kind == PING { b"12345678" } else { b"" };
        let flood = frame(kind, 0, 0, payload).repeat(10_000);
        let _ = (0..1_000).all(|_| frames.write(&flood));
    }
    let grown = broker.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes");
    assert_serves(&broker);
}
