//! What is fuzzed: one function a parser, each true of every input or a panic.
//!
//! Shared by cargo-fuzz (`fuzz_targets/`) and by the replay that runs on a stable compiler.

use std::{cell::RefCell, net::SocketAddr, sync::Arc};

use ternmq::{
    admin,
    broker::{
        self, Broker,
        definitions::Definitions,
        exchange::filter::{self, Attribute, Policies, Policy, Scope, Subject},
        message::Message,
        record::{self, Decoder, Position, Record},
        selector::{self, Conversion, Selector, SelectorError},
        time::Time,
        value::{Headers, Table},
    },
    config::{Flag, Settings, Sources},
    protocol::{
        amqp::{
            self, Session, Shared, Stage,
            codec::{
                frame::{FrameKind, split},
                hot, method,
            },
            properties::{self, Properties, Rewrite},
        },
        stomp::{
            self,
            codec::{self, BodyEnd, Head, Limits, Syntax, Trim},
            options::Dialect,
        },
    },
    server::proxy_protocol::{self, Parsed},
};

#[path = "aws.rs"]
mod aws;

/// Holds for any input, or panics.
pub(crate) type Target = fn(&[u8]);

/// Every target by its name, which is also its folder in `corpus/`.
#[allow(dead_code, reason = "cargo-fuzz names one target a binary")]
pub(crate) const TARGETS: &[(&str, Target)] = &[
    ("frames", frames),
    ("tables", tables),
    ("properties", message_properties),
    ("session", session),
    ("proxy", proxy),
    ("definitions", definitions),
    ("settings", settings),
    ("records", records),
    ("selector", selector_texts),
    ("filter", filter_policies),
    ("aws_query", aws_query),
    ("aws_json", aws_json),
    ("aws_policy", aws_policy),
    ("aws_signature", aws_signature),
    ("stomp", stomp_frames),
    ("stomp_session", stomp_session),
];

pub(crate) use aws::{json as aws_json, policies as aws_policy, query as aws_query, signatures as aws_signature};

/// Splitting frames, and reading in place what they hold.
pub(crate) fn frames(input: &[u8]) {
    let mut at = 0;
    while let Ok(Some(frame)) = split(input, at, FRAME_MAX) {
        assert!(frame.next_at() <= input.len() && frame.next_at() > at && frame.payload_len <= FRAME_MAX as usize);
        let payload = frame.payload(input);
        match frame.kind {
            FrameKind::Method => read_method(input, &frame, payload),
            FrameKind::Header => {
                if let Some(header) = hot::content_header(input, &frame) {
                    message_properties(&input[header.properties_at..header.properties_at + header.properties_len]);
                }
            }
            FrameKind::Body | FrameKind::Heartbeat => {}
        }
        at = frame.next_at();
    }
}

fn read_method(input: &[u8], frame: &ternmq::protocol::amqp::codec::frame::Frame, payload: &[u8]) {
    let general = method::decode(payload);
    let _ = method::table(payload);
    if let Ok(decoded) = &general {
        let mut out = Vec::new();
        method::encode(frame.channel, decoded, &mut out);
        let again = split(&out, 0, 0).expect("our own frames are sound").expect("and whole");
        assert_eq!(again.channel, frame.channel);
        // Compared as text: a table may hold a number that is not one.
        let decoded_again = method::decode(again.payload(&out)).expect("our own methods are sound");
        assert_eq!(format!("{decoded_again:?}"), format!("{decoded:?}"));
    }
    // Where both decoders know a method they agree on whether it is one.
    match hot::method_id(payload) {
        Some((60, 40)) => {
            if let Some(publish) = hot::publish(input, frame) {
                let _ = (publish.exchange(input), publish.key(input));
            } else {
                assert!(general.is_err(), "basic.publish is refused by one decoder only");
            }
        }
        Some((60, 80)) => assert_eq!(hot::ack(input, frame).is_some(), general.is_ok()),
        Some((60, 90)) => assert_eq!(hot::reject(input, frame).is_some(), general.is_ok()),
        Some((60, 120)) => assert_eq!(hot::nack(input, frame).is_some(), general.is_ok()),
        Some((60, 10)) => assert_eq!(hot::qos(input, frame).is_some(), general.is_ok()),
        Some((60, 70)) => {
            let _ = hot::get(input, frame);
        }
        _ => {}
    }
}

/// Field tables and header tables.
pub(crate) fn tables(input: &[u8]) {
    let headers = Headers::new(input);
    let _ = headers.get("x-match");
    let _ = headers.iter().count();
    let _ = headers.to_table();
    if let Some(table) = Table::decode(input) {
        let mut encoded = Vec::new();
        table.encode(&mut encoded);
        // A name that is no UTF-8 is not kept as it was; what is written once is.
        let mut again = Vec::new();
        Table::decode(&encoded).expect("our own tables are sound").encode(&mut again);
        assert_eq!(again, encoded);
    }
}

/// The properties of a message, read, rewritten and written.
pub(crate) fn message_properties(input: &[u8]) {
    let scanned = properties::scan(input);
    let decoded = Properties::decode(input);
    if let Some(decoded) = &decoded {
        // A text that is no UTF-8 is not kept as it was, and cut if it grew; what is written once is.
        let encoded = decoded.encode();
        let again = Properties::decode(&encoded).expect("our own properties are sound");
        assert_eq!(again.encode(), encoded);
    }
    let Some(scanned) = scanned else { return };
    let (at, len) = scanned.headers;
    assert!(at + len <= input.len(), "the header table lies within");
    let new_headers = b"\x01kI\x00\x00\x00\x07";
    for headers in [None, Some(None), Some(Some(&new_headers[..]))] {
        let rewrite = Rewrite { headers, without_expiration: true, reply_to: Some(b"somebody") };
        let mut out = Vec::new();
        properties::rewrite(input, &rewrite, &mut out);
        let rewritten = properties::scan(&out).expect("rewritten properties are sound");
        assert_eq!(rewritten.expiration, None);
        assert_eq!(rewritten.priority, scanned.priority);
    }
}

/// A whole connection: the first octet says how far it has come, the second into what parts the
/// rest is cut.
pub(crate) fn session(input: &[u8]) {
    let [start, step, rest @ ..] = input else { return };
    let options = broker::Options { max_message_bytes: 1 << 20, queues_count_max: 1000, ..broker::Options::default() };
    let broker = Arc::new(Broker::new(options, NOW).expect("the defaults make a broker"));
    let amqp = amqp::Options { outbox_bytes_max: 64 << 10, ..amqp::Options::default() };
    let shared = Arc::new(Shared::new(amqp.outbox_bytes_max));
    let address: SocketAddr = ([127, 0, 0, 1], 5672).into();
    let mut peer = Peer {
        session: Session::new(broker.clone(), Arc::new(amqp), shared.clone(), address, address, NOW),
        shared,
        left: Vec::new(),
        now: NOW,
        is_greeted: false,
    };
    if start % 4 != 0 {
        peer.feed(HANDSHAKE);
        assert_eq!(peer.session.stage(), Stage::Running);
    }
    if start % 4 > 1 {
        peer.feed(CHANNEL_OPEN);
        peer.feed(QUEUE_DECLARE);
    }
    if start % 4 > 2 {
        peer.feed(CONSUME);
    }
    let step = usize::from(*step).pow(2).max(1);
    for part in rest.chunks(step) {
        peer.feed(part);
    }
    peer.session.handle_timeout(peer.now);
    peer.session.close(peer.now);
    assert!(broker.connections.is_empty(), "a closed connection is listed no more");
    for queue in broker.vhost("/").expect("the default vhost stays").queues() {
        let status = queue.status();
        assert_eq!(status.unsettled, 0, "what a closed connection held went back");
        assert_eq!(status.consumers, 0, "its consumers went with it");
    }
    broker.tick(peer.now.after_ms(1000));
}

struct Peer {
    session: Session,
    shared: Arc<Shared>,
    left: Vec<u8>,
    now: Time,
    is_greeted: bool,
}

impl Peer {
    fn feed(&mut self, bytes: &[u8]) {
        if self.session.stage() == Stage::Over {
            return;
        }
        self.left.extend_from_slice(bytes);
        let block = Arc::new(std::mem::take(&mut self.left));
        let progress = self.session.handle_input(&block, self.now);
        self.left = block[progress.consumed..].to_vec();
        // What is kept of an unfinished frame is bounded by the frame's own bound.
        assert!(self.left.len() <= FRAME_MAX as usize + 8, "{} octets are kept", self.left.len());
        self.is_greeted |= self.session.stage() != Stage::Greeting && self.session.stage() != Stage::Over;
        self.now = self.now.after_ms(7);
        let output = self.shared.output().take_chunk().to_vec();
        if self.is_greeted {
            let mut at = 0;
            while at < output.len() {
                let frame = split(&output, at, 0).expect("our own frames are sound").expect("and whole");
                at = frame.next_at();
            }
        }
        self.session.handle_events(self.now);
        if self.session.poll_timeout() <= self.now {
            self.session.handle_timeout(self.now);
        }
    }
}

/// A filter policy in its first line, held against the rest as a body and as attributes.
pub(crate) fn filter_policies(input: &[u8]) {
    let end = input.iter().position(|octet| *octet == b'\n').unwrap_or(input.len());
    let (text, body) = (String::from_utf8_lossy(&input[..end]), &input[(end + 1).min(input.len())..]);
    let is_json = serde_json::from_str::<serde_json::Value>(&text).is_ok();
    assert!(!is_json || filter::json_error(&text).is_none(), "JSON is read as JSON");
    let value = String::from_utf8_lossy(body);
    for scope in [Scope::Attributes, Scope::Body] {
        let policy = match Policy::parse(&text, scope) {
            Ok(policy) => policy,
            Err(error) => {
                assert!(error.to_string().len() < 20_000, "an error repeats some of the policy");
                continue;
            }
        };
        assert!(is_json || serde_json::from_str::<serde_json::Value>(&text).is_err());
        let subject = Subject::new(body)
            .with("a", Attribute::Text(&value))
            .with("b", Attribute::Number(&value))
            .with("c", Attribute::List(&value));
        let mut policies = Policies::default();
        policies.add(&1, Some(&policy));
        let mut out = Vec::new();
        policies.route(&subject, &mut out);
        assert_eq!(policy.matches(&subject), out == [1]);
        let is_object = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(body).is_ok();
        assert!(scope == Scope::Attributes || out.is_empty() || is_object, "only objects have fields");
        policies.remove(&1, Some(&policy));
        assert!(policies.is_empty());
    }
}

/// A selector, evaluated for some messages, written and read again.
pub(crate) fn selector_texts(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let Ok(parsed) = Selector::parse(&text, Conversion::None) else { return };
    assert_eq!(parsed.text(), text);
    let values = [
        selector::Value::Null,
        selector::Value::Bool(true),
        selector::Value::Long(i64::MIN),
        selector::Value::Double(0.5),
        selector::Value::Text(b"12"),
        selector::Value::Text(input),
    ];
    // Each name has a value of its own, another one each time.
    let answers = |parsed: &Selector, shift: usize| {
        parsed.matches(&|name| values[(name.bytes().map(usize::from).sum::<usize>() + shift) % values.len()])
    };
    let before: Vec<bool> = (0..values.len()).map(|shift| answers(&parsed, shift)).collect();
    let written = parsed.to_string();
    match Selector::parse(&written, parsed.conversion()) {
        Ok(again) => {
            assert_eq!(again, parsed, "{written}");
            // What takes too long is no match, and parentheses are no steps.
            assert!((0..values.len()).map(|shift| answers(&again, shift)).eq(before));
        }
        // What is written plainly is longer, and has more parentheses.
        Err(SelectorError::TooLong { .. } | SelectorError::TooDeep { .. }) => {}
        Err(error) => panic!("{written}: {error}"),
    }
    if let Ok(converting) = Selector::parse(&text, Conversion::NumericStrings) {
        (0..values.len()).for_each(|shift| _ = answers(&converting, shift));
    }
}

/// Frames of STOMP, read and written again.
pub(crate) fn stomp_frames(input: &[u8]) {
    // What the lenient syntax reads is not always what can be written, so it only has to be read.
    lenient_frames(input);
    let limits = Limits {
        head_bytes_max: 4096,
        headers_count_max: 100,
        command_bytes_max: 4096,
        line_bytes_max: 4096,
        syntax: Syntax::Strict,
    };
    let mut headers = Vec::new();
    let mut at = 0;
    while let Ok(skipped) = codec::skip_between(&input[at..], limits.syntax) {
        at += skipped;
        let rest = &input[at..];
        let Some(end) = codec::find_head_end(rest, 0) else { return };
        assert_eq!(codec::find_head_end(rest, end - 1), Some(end), "an end is found again");
        let Ok(command_len) = codec::decode_head(&rest[..end], &limits, &mut headers) else { return };
        let head = Head::new(&rest[..end], command_len, &headers, Trim::Nothing);
        let read: Vec<(Vec<u8>, Vec<u8>)> =
            head.iter().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
        for (name, value) in &read {
            if let Ok(name) = std::str::from_utf8(name) {
                assert_eq!(head.get(name).as_deref(), Some(&value[..]));
            }
        }
        let mut again = head.command().to_vec();
        again.push(b'\n');
        read.iter().for_each(|(name, value)| codec::put_header(name, value, &mut again));
        again.push(b'\n');
        let mut headers_again = Vec::new();
        let loose = Limits { head_bytes_max: usize::MAX, line_bytes_max: usize::MAX, ..limits };
        let command_len = codec::decode_head(&again, &loose, &mut headers_again).expect("our own heads are sound");
        let head_again = Head::new(&again, command_len, &headers_again, Trim::Nothing);
        assert_eq!(head_again.command(), head.command());
        assert!(head_again.iter().map(|(name, value)| (name.into_owned(), value.into_owned())).eq(read));
        let body = match head.body_end() {
            Ok(BodyEnd::Length(length)) => usize::try_from(length).ok().filter(|length| *length < rest.len() - end),
            Ok(BodyEnd::Nul) => rest[end..].iter().position(|octet| *octet == 0),
            Err(_) => return,
        };
        let Some(body) = body else { return };
        at += end + body + 1;
    }
}

fn lenient_frames(input: &[u8]) {
    let limits = Limits {
        head_bytes_max: 4096,
        headers_count_max: 100,
        command_bytes_max: 64,
        line_bytes_max: 1024,
        syntax: Syntax::Lenient,
    };
    let mut headers = Vec::new();
    let mut at = 0;
    while let Ok(skipped) = codec::skip_between(&input[at..], limits.syntax) {
        at += skipped;
        let rest = &input[at..];
        let Some(end) = codec::find_head_end(rest, 0) else { return };
        let Ok(command_len) = codec::decode_head(&rest[..end], &limits, &mut headers) else { return };
        let head = Head::new(&rest[..end], command_len, &headers, Trim::Both);
        for (name, value) in head.iter() {
            if let Ok(name) = std::str::from_utf8(&name) {
                assert_eq!(head.get(name), Some(value));
            }
        }
        let Some(body) = rest[end..].iter().position(|octet| *octet == 0) else { return };
        at += end + body + 1;
    }
}

/// A whole connection of STOMP: the first octet says how far it has come and which dialect it is, the second
/// into what parts the rest is cut.
pub(crate) fn stomp_session(input: &[u8]) {
    let [start, step, rest @ ..] = input else { return };
    let options = broker::Options { max_message_bytes: 1 << 20, queues_count_max: 1000, ..broker::Options::default() };
    let broker = Arc::new(Broker::new(options, NOW).expect("the defaults make a broker"));
    let options = stomp::Options { outbox_bytes_max: 64 << 10, transactions_max: 4, ..stomp::Options::default() };
    let shared = Arc::new(stomp::Shared::new(options.outbox_bytes_max));
    let server_name = "Tern".to_owned();
    let dialect = if *start & 0x80 == 0 { Dialect::Rabbitmq } else { Dialect::Activemq };
    let clients = Arc::default();
    let surroundings =
        Arc::new(stomp::Surroundings { options, dialect, clients, server_name, login_failure_delay_ms: 0 });
    let address: SocketAddr = ([127, 0, 0, 1], 61613).into();
    let mut session = stomp::Session::new(broker.clone(), surroundings, shared.clone(), address, address, NOW);
    let mut left = Vec::new();
    let mut now = NOW;
    let step = usize::from(*step).pow(2).max(1);
    let begin = &STOMP_BEGIN[..usize::from(start % 4)];
    for part in begin.iter().copied().chain(rest.chunks(step)) {
        if session.stage() == stomp::Stage::Over {
            break;
        }
        left.extend_from_slice(part);
        let block = Arc::new(std::mem::take(&mut left));
        let progress = session.handle_input(&block, now);
        left = block[progress.consumed..].to_vec();
        assert!(left.len() <= 256 << 10, "{} octets are kept", left.len());
        now = now.after_ms(7);
        shared.output().take_chunk();
        session.handle_events(now);
        if session.poll_timeout() <= now {
            session.handle_timeout(now);
        }
    }
    session.handle_timeout(now);
    session.close(now);
    assert!(broker.connections.is_empty(), "a closed connection is listed no more");
    for queue in broker.vhost("/").expect("the default vhost stays").queues() {
        let status = queue.status();
        assert_eq!(status.unsettled, 0, "what a closed connection held went back");
        assert_eq!(status.consumers, 0, "its consumers went with it");
    }
    broker.tick(now.after_ms(1000));
}

const STOMP_BEGIN: [&[u8]; 3] = [
    b"CONNECT\naccept-version:1.2\n\n\0",
    b"SUBSCRIBE\nid:0\ndestination:/queue/q\nack:client\n\n\0",
    b"BEGIN\ntransaction:t\n\n\0",
];

const NOW: Time = Time(1_700_000_000_000);
const FRAME_MAX: u32 = 131_072;
/// Protocol header, start-ok with PLAIN guest, tune-ok and open of `/`.
const HANDSHAKE: &[u8] = b"AMQP\x00\x00\x09\x01\
    \x01\x00\x00\x00\x00\x00\x24\x00\x0A\x00\x0B\x00\x00\x00\x00\x05PLAIN\x00\x00\x00\x0C\x00guest\x00guest\x05en_US\xCE\
    \x01\x00\x00\x00\x00\x00\x0C\x00\x0A\x00\x1F\x07\xFF\x00\x02\x00\x00\x00\x0A\xCE\
    \x01\x00\x00\x00\x00\x00\x08\x00\x0A\x00\x28\x01/\x00\x00\xCE";
const CHANNEL_OPEN: &[u8] = b"\x01\x00\x01\x00\x00\x00\x05\x00\x14\x00\x0A\x00\xCE";
const QUEUE_DECLARE: &[u8] = b"\x01\x00\x01\x00\x00\x00\x0D\x00\x32\x00\x0A\x00\x00\x01q\x00\x00\x00\x00\x00\xCE";
const CONSUME: &[u8] = b"\x01\x00\x01\x00\x00\x00\x0F\x00\x3C\x00\x14\x00\x00\x01q\x01c\x00\x00\x00\x00\x00\xCE";

/// The PROXY protocol header.
pub(crate) fn proxy(input: &[u8]) {
    match proxy_protocol::parse(input) {
        Ok(Parsed::Incomplete) => assert!(input.len() < proxy_protocol::HEADER_BYTES_MAX, "a header has an end"),
        Ok(Parsed::Header { source, destination, consumed }) => {
            assert!(consumed <= input.len() && consumed > 0);
            assert_eq!(source.is_some(), destination.is_some());
            // A header is the same whatever follows it.
            let alone = proxy_protocol::parse(&input[..consumed]);
            assert_eq!(alone, Ok(Parsed::Header { source, destination, consumed }));
        }
        Err(_) => {}
    }
}

/// Definitions in JSON, read, shown and applied.
pub(crate) fn definitions(input: &[u8]) {
    let Ok(definitions) = Definitions::parse(input) else { return };
    let json = definitions.to_json();
    Definitions::from_json(json).expect("our own definitions are sound");
    if definitions.check_vhosts().is_ok() {
        let broker = Broker::new(broker::Options::default(), NOW).expect("the defaults make a broker");
        let _ = admin::definitions::import(&broker, NOW, &definitions);
    }
}

/// A settings file, and the same lines as flags.
pub(crate) fn settings(input: &[u8]) {
    thread_local! {
        static DIR: RefCell<tempfile::TempDir> = RefCell::new(tempfile::tempdir().expect("a temporary directory"));
    }
    let path = DIR.with_borrow(|dir| dir.path().join("tern.toml"));
    std::fs::write(&path, input).expect("the temporary directory takes a file");
    if let Err(problems) = Settings::load(&Sources { file: Some(path), ..Sources::default() }) {
        assert!(!problems.to_string().is_empty());
    }
    let text = String::from_utf8_lossy(input);
    let flags = text.lines().filter_map(|line| {
        let (key, value) = line.split_once('=')?;
        Some(Flag { name: format!("--set {key}"), key: key.trim().into(), value: value.trim().into() })
    });
    let _ = Settings::load(&Sources { flags: flags.collect(), ..Sources::default() });
}

/// Records of the log, where one body may be named.
pub(crate) fn records(input: &[u8]) {
    let read = |bytes: &[u8]| {
        let body = Message::build("x", b"k", b"", (0, 0), b"body");
        let mut first = Vec::new();
        record::encode(&Record::Body { targets: 9, message: body }, &mut first);
        let mut decoder = Decoder::default();
        decoder.decode(&first, Position(1)).expect("our own records are sound");
        decoder.decode(bytes, Position(2))
    };
    let Ok(found) = read(input) else { return };
    let mut out = Vec::new();
    record::encode(&found, &mut out);
    let again = read(&out).expect("our own records are sound");
    let mut out_again = Vec::new();
    record::encode(&again, &mut out_again);
    // JSON may have numbers that lose their last digit on each way.
    if !has_json(&found) {
        assert_eq!(out, out_again);
    }
}

fn has_json(record: &Record) -> bool {
    match record {
        Record::Defined(_) => true,
        Record::Transaction(records) => records.iter().any(has_json),
        _ => false,
    }
}
