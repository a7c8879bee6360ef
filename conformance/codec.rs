//! The AMQP codec against `amq-protocol`: what both accept they read alike, and nothing that a
//! peer can send makes ours panic.
//!
//! `TERN_MUTATIONS` and `TERN_SEED` lengthen and vary the mutation run, whose failures name both.

#![allow(clippy::print_stderr, reason = "a failed run names its seed")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use amq_protocol::{
    frame::{AMQPContentHeader, AMQPFrame, gen_frame, parse_frame},
    protocol::{AMQPClass, basic, parse_class},
    types::{AMQPValue, DecimalValue, FieldArray, FieldTable, ShortString},
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use ternmq::{
    broker::value::{self, Headers, Table, Value},
    protocol::amqp::{
        codec::{
            frame::{self, FRAME_END, Frame, FrameError, FrameKind},
            header::Greeting,
            hot,
            method::{self, MethodError},
        },
        properties::{self, Properties, Rewrite},
    },
};

/// Every method with its fields, from the specification: numbers of so many octets, `f` flags and
/// how many, `s` and `S` strings, `T` a table.
const METHODS: [(u16, u16, &str); 66] = [
    (10, 10, "1 1 T S S"),
    (10, 11, "T s S s"),
    (10, 20, "S"),
    (10, 21, "S"),
    (10, 30, "2 4 2"),
    (10, 31, "2 4 2"),
    (10, 40, "s s f"),
    (10, 41, "s"),
    (10, 50, "2 s 2 2"),
    (10, 51, ""),
    (10, 60, "s"),
    (10, 61, ""),
    (10, 70, "S s"),
    (10, 71, ""),
    (20, 10, "s"),
    (20, 11, "S"),
    (20, 20, "f"),
    (20, 21, "f"),
    (20, 40, "2 s 2 2"),
    (20, 41, ""),
    (30, 10, "s f"),
    (30, 11, "2"),
    (40, 10, "2 s s f T"),
    (40, 11, ""),
    (40, 20, "2 s f"),
    (40, 21, ""),
    (40, 30, "2 s s s f T"),
    (40, 31, ""),
    (40, 40, "2 s s s f T"),
    (40, 51, ""),
    (50, 10, "2 s f T"),
    (50, 11, "s 4 4"),
    (50, 20, "2 s s s f T"),
    (50, 21, ""),
    (50, 30, "2 s f"),
    (50, 31, "4"),
    (50, 40, "2 s f"),
    (50, 41, "4"),
    (50, 50, "2 s s s T"),
    (50, 51, ""),
    (60, 10, "4 2 f"),
    (60, 11, ""),
    (60, 20, "2 s s f T"),
    (60, 21, "s"),
    (60, 30, "s f"),
    (60, 31, "s"),
    (60, 40, "2 s s f"),
    (60, 50, "2 s s s"),
    (60, 60, "s 8 f s s"),
    (60, 70, "2 s f"),
    (60, 71, "8 f s s 4"),
    (60, 72, "s"),
    (60, 80, "8 f"),
    (60, 90, "8 f"),
    (60, 100, "f"),
    (60, 110, "f"),
    (60, 111, ""),
    (60, 120, "8 f"),
    (85, 10, "f"),
    (85, 11, ""),
    (90, 10, ""),
    (90, 11, ""),
    (90, 20, ""),
    (90, 21, ""),
    (90, 30, ""),
    (90, 31, ""),
];

fn short_text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-z.#*]{1,20}", "\\PC{0,60}"]
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i8>().prop_map(Value::I8),
        any::<u8>().prop_map(Value::U8),
        any::<i16>().prop_map(Value::I16),
        any::<u16>().prop_map(Value::U16),
        any::<i32>().prop_map(Value::I32),
        any::<u32>().prop_map(Value::U32),
        any::<i64>().prop_map(Value::I64),
        (-1e30f32..1e30).prop_map(Value::F32),
        (-1e300f64..1e300).prop_map(Value::F64),
        (any::<u8>(), any::<i32>()).prop_map(|(scale, value)| Value::Decimal { scale, value }),
        vec(any::<u8>(), 0..40).prop_map(Value::Text),
        vec(any::<u8>(), 0..40).prop_map(Value::Bytes),
        any::<u64>().prop_map(Value::Timestamp),
        Just(Value::Void),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::Array),
            vec((short_text(), inner), 0..5).prop_map(|entries| Value::Table(entries.into_iter().collect())),
        ]
    })
}

fn tables() -> impl Strategy<Value = Table> {
    vec((short_text(), values()), 0..6).prop_map(|entries| entries.into_iter().collect())
}

fn encoded(table: &Table) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.encode(&mut bytes);
    bytes
}

/// The payload of a method frame with arbitrary fields.
fn payloads() -> impl Strategy<Value = Vec<u8>> {
    let fields = (vec(any::<u8>(), 32), vec(short_text(), 4), vec(vec(any::<u8>(), 0..100), 2), tables());
    (select(&METHODS[..]), fields).prop_map(|((class, method, signature), (numbers, shorts, longs, table))| {
        let mut payload = [class.to_be_bytes(), method.to_be_bytes()].concat();
        let (mut numbers, mut shorts, mut longs) = (numbers.into_iter(), shorts.iter(), longs.iter());
        for field in signature.split_whitespace() {
            match field {
                "s" => {
                    let text = shorts.next().map(String::as_str).unwrap_or_default();
                    let len = text.floor_char_boundary(255);
                    payload.push(len as u8);
                    payload.extend(&text.as_bytes()[..len]);
                }
                "S" => {
                    let bytes = longs.next().map(Vec::as_slice).unwrap_or_default();
                    payload.extend((bytes.len() as u32).to_be_bytes());
                    payload.extend(bytes);
                }
                "T" => {
                    let bytes = encoded(&table);
                    payload.extend((bytes.len() as u32).to_be_bytes());
                    payload.extend(bytes);
                }
                "f" => payload.extend(numbers.next()),
                digit => payload.extend(numbers.by_ref().take(digit.parse().unwrap_or(1))),
            }
        }
        payload
    })
}

fn all_properties() -> impl Strategy<Value = Properties> {
    let text = || option::of(short_text().prop_map(|text| text[..text.floor_char_boundary(255)].to_owned()));
    let first = (text(), text(), option::of(tables()), option::of(any::<u8>()), option::of(any::<u8>()));
    let second = (text(), text(), text(), text(), option::of(any::<u64>()));
    (first, second, (text(), text(), text(), text())).prop_map(|(first, second, third)| Properties {
        content_type: first.0,
        content_encoding: first.1,
        headers: first.2,
        delivery_mode: first.3,
        priority: first.4,
        correlation_id: second.0,
        reply_to: second.1,
        expiration: second.2,
        message_id: second.3,
        timestamp: second.4,
        message_type: third.0,
        user_id: third.1,
        app_id: third.2,
        cluster_id: third.3,
    })
}

fn frame_bytes(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(channel.to_be_bytes());
    bytes.extend((payload.len() as u32).to_be_bytes());
    bytes.extend(payload);
    bytes.push(FRAME_END);
    bytes
}

fn header_payload(body_size: u64, properties: &[u8]) -> Vec<u8> {
    let mut payload = vec![0, 60, 0, 0];
    payload.extend(body_size.to_be_bytes());
    payload.extend(properties);
    payload
}

fn generated(frame: &AMQPFrame) -> Vec<u8> {
    let context = gen_frame(frame)(Vec::new().into()).expect("writes to a vector");
    context.into_inner().0
}

/// What `amq-protocol` reads from a whole input, frame by frame.
fn parsed(mut input: &[u8]) -> Vec<AMQPFrame> {
    let mut frames = Vec::new();
    while !input.is_empty() {
        let (rest, frame) = parse_frame(input).expect("amq-protocol reads it");
        frames.push(frame);
        input = rest;
    }
    frames
}

/// What our splitter finds in an input, and what is left over.
fn split_all(input: &[u8], frame_max: u32) -> (Vec<Frame>, Result<usize, FrameError>) {
    let (mut frames, mut at) = (Vec::new(), 0);
    loop {
        match frame::split(input, at, frame_max) {
            Ok(Some(frame)) => {
                assert!(frame.next_at() > at && frame.next_at() <= input.len());
                at = frame.next_at();
                frames.push(frame);
            }
            Ok(None) => return (frames, Ok(input.len() - at)),
            Err(error) => return (frames, Err(error)),
        }
    }
}

fn short(bytes: &[u8]) -> Option<ShortString> {
    ShortString::try_new(str::from_utf8(bytes).ok()?).ok()
}

/// Values as `amq-protocol` holds them: sorted, the last of a repeated name.
fn amq_table(table: &Table) -> FieldTable {
    let mut converted = FieldTable::default();
    for (name, value) in table.iter() {
        let name = &name[..name.floor_char_boundary(255)];
        converted.insert(name.into(), amq_value(value));
    }
    converted
}

fn amq_value(value: &Value) -> AMQPValue {
    match value {
        Value::Bool(flag) => AMQPValue::Boolean(*flag),
        Value::I8(n) => AMQPValue::ShortShortInt(*n),
        Value::U8(n) => AMQPValue::ShortShortUInt(*n),
        Value::I16(n) => AMQPValue::ShortInt(*n),
        Value::U16(n) => AMQPValue::ShortUInt(*n),
        Value::I32(n) => AMQPValue::LongInt(*n),
        Value::U32(n) => AMQPValue::LongUInt(*n),
        Value::I64(n) => AMQPValue::LongLongInt(*n),
        Value::F32(n) => AMQPValue::Float(*n),
        Value::F64(n) => AMQPValue::Double(*n),
        Value::Decimal { scale, value } => {
            AMQPValue::DecimalValue(DecimalValue { scale: *scale, value: *value as u32 })
        }
        Value::Text(bytes) => AMQPValue::LongString(bytes.clone().into()),
        Value::Bytes(bytes) => AMQPValue::ByteArray(bytes.clone().into()),
        Value::Timestamp(secs) => AMQPValue::Timestamp(*secs),
        Value::Void => AMQPValue::Void,
        Value::Array(items) => AMQPValue::FieldArray(FieldArray::from(items.iter().map(amq_value).collect::<Vec<_>>())),
        Value::Table(table) => AMQPValue::FieldTable(amq_table(table)),
    }
}

/// The fields of a scan must be those that `amq-protocol` reads from the same properties.
fn assert_scan_agrees(raw: &[u8], amq: &basic::AMQPProperties) {
    let scan = properties::scan(raw).expect("a scan accepts what amq-protocol reads");
    let text = |bytes: Option<&[u8]>| bytes.and_then(short);
    assert_eq!(scan.delivery_mode, *amq.delivery_mode());
    assert_eq!(scan.priority, *amq.priority());
    assert_eq!(text(scan.reply_to), *amq.reply_to());
    assert_eq!(text(scan.expiration), *amq.expiration());
    assert_eq!(text(scan.message_id), *amq.message_id());
    assert_eq!(scan.timestamp, *amq.timestamp());
    assert_eq!(text(scan.user_id), *amq.user_id());
    let (at, len) = scan.headers;
    assert_eq!(at > 0, amq.headers().is_some());
    if let Some(headers) = amq.headers() {
        let names = Headers::new(&raw[at..at + len]).iter().count();
        assert!(names >= headers.inner().len(), "repeated names are one in amq-protocol");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn methods_are_read_as_amq_protocol_reads_them(payload in payloads()) {
        let ours = method::decode(&payload).expect("well formed");
        let (rest, theirs) = parse_class(&payload[..]).expect("amq-protocol reads it");
        prop_assert!(rest.is_empty());
        prop_assert_eq!(&ours, &theirs);

        let mut out = Vec::new();
        method::encode(9, &ours, &mut out);
        prop_assert_eq!(&out, &generated(&AMQPFrame::Method(9, theirs)));
        let (frames, rest) = split_all(&out, 0);
        prop_assert_eq!((frames.len(), rest), (1, Ok(0)));
        prop_assert_eq!(method::decode(frames[0].payload(&out)), Ok(ours));
    }

    #[test]
    fn a_method_cut_anywhere_or_with_more_behind_it_is_refused(payload in payloads()) {
        for len in 0..payload.len() {
            let is_refused = method::decode(&payload[..len]).is_err();
            prop_assert!(is_refused, "{len}");
        }
        let long = [&payload[..], &[0]].concat();
        let is_truncated = matches!(method::decode(&long), Err(MethodError::Truncated { .. }));
        prop_assert!(is_truncated);
    }

    #[test]
    fn methods_of_the_message_path_are_read_as_amq_protocol_reads_them(payload in payloads()) {
        let input = frame_bytes(1, 5, &payload);
        let frame = split_all(&input, 0).0[0];
        match method::decode(&payload).expect("well formed") {
            AMQPClass::Basic(basic::AMQPMethod::Publish(theirs)) => {
                let ours = hot::publish(&input, &frame).expect("well formed");
                prop_assert_eq!(short(ours.exchange(&input)), Some(theirs.exchange));
                prop_assert_eq!(short(ours.key(&input)), Some(theirs.routing_key));
                prop_assert_eq!((ours.mandatory, ours.immediate), (theirs.mandatory, theirs.immediate));
            }
            AMQPClass::Basic(basic::AMQPMethod::Ack(theirs)) => {
                let hot::Ack { delivery_tag, multiple } = hot::ack(&input, &frame).expect("well formed");
                prop_assert_eq!((delivery_tag, multiple), (theirs.delivery_tag, theirs.multiple));
            }
            AMQPClass::Basic(basic::AMQPMethod::Nack(theirs)) => {
                let ours = hot::nack(&input, &frame).expect("well formed");
                prop_assert_eq!(ours.delivery_tag, theirs.delivery_tag);
                prop_assert_eq!((ours.multiple, ours.requeue), (theirs.multiple, theirs.requeue));
            }
            AMQPClass::Basic(basic::AMQPMethod::Reject(theirs)) => {
                let hot::Reject { delivery_tag, requeue } = hot::reject(&input, &frame).expect("well formed");
                prop_assert_eq!((delivery_tag, requeue), (theirs.delivery_tag, theirs.requeue));
            }
            AMQPClass::Basic(basic::AMQPMethod::Get(theirs)) => {
                let ours = hot::get(&input, &frame).expect("well formed");
                prop_assert_eq!((short(ours.queue), ours.no_ack), (Some(theirs.queue), theirs.no_ack));
            }
            AMQPClass::Basic(basic::AMQPMethod::Qos(theirs)) => {
                let ours = hot::qos(&input, &frame).expect("well formed");
                prop_assert_eq!((ours.prefetch_count, ours.global), (theirs.prefetch_count, theirs.global));
            }
            _ => {}
        }
    }

    #[test]
    fn deliveries_are_what_amq_protocol_expects(
        (tag, exchange, key) in ("[ -~]{0,100}", "[a-z.]{0,60}", "[a-z.]{0,60}"),
        (delivery_tag, redelivered, count) in any::<(u64, bool, u32)>(),
        properties in all_properties(),
        body in vec(any::<u8>(), 0..3000),
        (next_tag, next_body) in (any::<u64>(), vec(any::<u8>(), 0..3000)),
        frame_max in prop_oneof![Just(0), Just(4096), 9u32..2000],
    ) {
        let route = [&[exchange.len() as u8], exchange.as_bytes(), &[key.len() as u8], key.as_bytes()].concat();
        let raw = properties.encode();
        let mut out = Vec::new();
        let content = |body: &[u8]| hot::ContentOut {
            channel: 7, frame_max, properties: &raw, body_size: body.len() as u64,
        };
        let head =
            hot::put_delivery(&mut out, &content(&body), tag.as_bytes(), delivery_tag, redelivered, &route, &body);
        if let Some(head) = head {
            let mut whole = Vec::new();
            hot::put_delivery(&mut whole, &content(&next_body), tag.as_bytes(), next_tag, redelivered, &route, &next_body);
            let before = out.len();
            if head.put_again(&mut out, next_tag, &next_body) {
                prop_assert_eq!(&out[before..], &whole);
            }
            out.truncate(before);
        }
        let mut frames = parsed(&out).into_iter();
        let deliver = basic::Deliver {
            consumer_tag: tag.as_str().into(),
            delivery_tag,
            redelivered,
            exchange: exchange.as_str().into(),
            routing_key: key.as_str().into(),
        };
        let deliver = AMQPClass::Basic(basic::AMQPMethod::Deliver(deliver));
        prop_assert_eq!(frames.next(), Some(AMQPFrame::Method(7, deliver)));
        let Some(AMQPFrame::Header(7, AMQPContentHeader { class_id, body_size, properties: theirs })) = frames.next()
        else { panic!("a header follows") };
        prop_assert_eq!((class_id, body_size), (60, body.len() as u64));
        assert_scan_agrees(&raw, &theirs);
        let mut read = Vec::new();
        for frame in frames {
            let AMQPFrame::Body(7, part) = frame else { panic!("only body is left") };
            prop_assert!(!part.is_empty() && (frame_max == 0 || part.len() + 8 <= frame_max as usize));
            read.extend(part);
        }
        prop_assert_eq!(read, body);

        out.clear();
        hot::put_get_ok(&mut out, 7, delivery_tag, redelivered, &route, count);
        hot::put_get_empty(&mut out, 7);
        hot::put_return(&mut out, 7, 312, "NO_ROUTE", &route);
        hot::put_ack(&mut out, 7, delivery_tag, redelivered);
        hot::put_nack(&mut out, 7, delivery_tag, redelivered, !redelivered);
        hot::put_cancel(&mut out, 7, tag.as_bytes());
        hot::put_heartbeat(&mut out);
        let (exchange, routing_key) = (ShortString::from(exchange), ShortString::from(key));
        let methods = [
            basic::AMQPMethod::GetOk(basic::GetOk {
                delivery_tag,
                redelivered,
                exchange: exchange.clone(),
                routing_key: routing_key.clone(),
                message_count: count,
            }),
            basic::AMQPMethod::GetEmpty(basic::GetEmpty {}),
            basic::AMQPMethod::Return(basic::Return {
                reply_code: 312,
                reply_text: "NO_ROUTE".into(),
                exchange,
                routing_key,
            }),
            basic::AMQPMethod::Ack(basic::Ack { delivery_tag, multiple: redelivered }),
            basic::AMQPMethod::Nack(basic::Nack { delivery_tag, multiple: redelivered, requeue: !redelivered }),
            basic::AMQPMethod::Cancel(basic::Cancel { consumer_tag: tag.into(), nowait: true }),
        ];
        let expected: Vec<_> = methods
            .into_iter()
            .map(|method| AMQPFrame::Method(7, AMQPClass::Basic(method)))
            .chain([AMQPFrame::Heartbeat])
            .collect();
        prop_assert_eq!(parsed(&out), expected);
    }

    #[test]
    fn properties_are_read_as_amq_protocol_reads_them(properties in all_properties()) {
        let raw = properties.encode();
        let input = frame_bytes(2, 1, &header_payload(5, &raw));
        let header = hot::content_header(&input, &split_all(&input, 0).0[0]).expect("well formed");
        prop_assert_eq!(&input[header.properties_at..][..header.properties_len], &raw[..]);
        let Some(AMQPFrame::Header(_, theirs)) = parsed(&input).pop() else { panic!("a header") };
        prop_assert_eq!((header.class_id, header.body_size), (theirs.class_id, theirs.body_size));
        let theirs = theirs.properties;
        assert_scan_agrees(&raw, &theirs);
        let same = |ours: &Option<String>, theirs: &Option<ShortString>| {
            ours.as_deref() == theirs.as_ref().map(ShortString::as_str)
        };
        prop_assert!(same(&properties.content_type, theirs.content_type()));
        prop_assert!(same(&properties.content_encoding, theirs.content_encoding()));
        prop_assert!(same(&properties.correlation_id, theirs.correlation_id()));
        prop_assert!(same(&properties.message_type, theirs.kind()));
        prop_assert!(same(&properties.app_id, theirs.app_id()));
        prop_assert!(same(&properties.cluster_id, theirs.cluster_id()));
        prop_assert_eq!(&properties.headers.as_ref().map(amq_table), theirs.headers());
        prop_assert_eq!(Properties::decode(&raw), Some(properties));
    }

    #[test]
    fn a_rewrite_changes_what_it_says_and_nothing_else(
        properties in all_properties(),
        headers in option::of(option::of(tables())),
        without_expiration in any::<bool>(),
        reply_to in option::of("[a-z]{0,40}"),
    ) {
        let new = headers.as_ref().map(|headers| headers.as_ref().map(encoded));
        let change = Rewrite {
            headers: new.as_ref().map(|headers| headers.as_deref()),
            without_expiration,
            reply_to: reply_to.as_deref().map(str::as_bytes),
        };
        let mut out = Vec::new();
        properties::rewrite(&properties.encode(), &change, &mut out);
        let mut expected = properties;
        if let Some(headers) = headers {
            expected.headers = headers;
        }
        if without_expiration {
            expected.expiration = None;
        }
        if reply_to.is_some() {
            expected.reply_to = reply_to;
        }
        prop_assert_eq!(out, expected.encode());
    }

    #[test]
    fn every_prefix_of_a_conversation_asks_for_more(payloads in vec(payloads(), 1..5), body in vec(any::<u8>(), 0..50)) {
        let mut input = Vec::new();
        let mut ends = vec![0];
        for payload in &payloads {
            input.extend(frame_bytes(1, 1, payload));
            ends.push(input.len());
        }
        for bytes in [frame_bytes(2, 1, &header_payload(1, &[0, 0])), frame_bytes(3, 1, &body), frame_bytes(8, 0, &[])] {
            input.extend(bytes);
            ends.push(input.len());
        }
        for len in 0..=input.len() {
            let (frames, rest) = split_all(&input[..len], 0);
            let whole = ends.iter().filter(|&&end| end <= len).count() - 1;
            prop_assert_eq!(frames.len(), whole);
            prop_assert_eq!(rest, Ok(len - ends[whole]));
            let wanted = frame::wanted(&input[..len], ends[whole]);
            prop_assert!(wanted.is_none_or(|wanted| wanted == ends[whole + 1] - ends[whole]));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(input in vec(any::<u8>(), 0..300)) {
        exercise(&input);
        exercise(&frame_bytes(1, 0, &input));
        exercise(&frame_bytes(2, 1, &input));
    }

    #[test]
    fn both_walks_over_tables_agree(table in tables(), cut in any::<prop::sample::Index>()) {
        let whole = encoded(&table);
        for bytes in [&whole[..], &whole[..cut.index(whole.len() + 1)]] {
            let mut payload = vec![0, 50, 0, 10, 0, 0, 1, b'q', 0];
            payload.extend((bytes.len() as u32).to_be_bytes());
            payload.extend(bytes);
            prop_assert_eq!(method::decode(&payload).is_ok(), value::check(bytes).is_some());
            if value::check(bytes).is_some() {
                prop_assert_eq!(method::table(&payload), bytes);
            }
        }
    }
}

/// A table nested so deeply that decoding it recursively would exhaust the stack.
fn bomb(kind: u8, depth: usize) -> Vec<u8> {
    let prefix: &[u8] = if kind == b'F' { &[1, b'k', b'F'] } else { b"A" };
    let mut bytes = vec![1, b'k', b'F'];
    bytes.truncate(if kind == b'F' { 0 } else { 2 });
    for level in (0..depth).rev() {
        bytes.extend(prefix);
        bytes.extend(((level * (prefix.len() + 4)) as u32).to_be_bytes());
    }
    bytes
}

#[test]
fn tables_nested_without_end_are_refused_in_methods_and_headers() {
    for (kind, depth) in [(b'F', 18_000), (b'A', 26_000)] {
        let bomb = bomb(kind, depth);
        let mut payload = vec![0, 10, 0, 11];
        payload.extend((bomb.len() as u32).to_be_bytes());
        payload.extend(&bomb);
        payload.extend(b"\x05PLAIN\0\0\0\x04\0u\0p\x05en_US");
        let fault = method::Fault::Table;
        assert_eq!(method::decode(&payload), Err(MethodError::Malformed { class: 10, method: 11, fault }));
        let mut raw = vec![0x20, 0];
        raw.extend((bomb.len() as u32).to_be_bytes());
        raw.extend(&bomb);
        assert_eq!(properties::scan(&raw), None);
        assert_eq!(Properties::decode(&raw), None);
    }
}

#[test]
fn a_shallow_bomb_is_a_table() {
    for kind in [b'F', b'A'] {
        assert!(value::check(&bomb(kind, 30)).is_some());
    }
}

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Counts the allocations of each thread.
struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; the counter is a thread-local
// without destructor, so that counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above; the block came from the system's allocator.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_message_passes_without_allocation() {
    let input = corpus().swap_remove(0);
    let mut out = Vec::with_capacity(4096);
    let before = ALLOCATIONS.get();
    let mut at = 0;
    let (mut route, mut raw) = (&[][..], &[][..]);
    while let Ok(Some(frame)) = frame::split(&input, at, 4096) {
        match frame.kind {
            FrameKind::Method => {
                let publish = hot::publish(&input, &frame).expect("a publish");
                route = &input[publish.route_at..][..2 + (publish.exchange_len + publish.key_len) as usize];
            }
            FrameKind::Header => {
                let header = hot::content_header(&input, &frame).expect("a header");
                raw = &input[header.properties_at..][..header.properties_len];
                assert!(properties::scan(raw).is_some_and(|scan| scan.headers.1 > 0));
            }
            FrameKind::Body => {
                let body = frame.payload(&input);
                let content =
                    hot::ContentOut { channel: 2, frame_max: 4096, properties: raw, body_size: body.len() as u64 };
                hot::put_delivery(&mut out, &content, b"ctag", 1, false, route, body);
            }
            FrameKind::Heartbeat => hot::put_ack(&mut out, 1, 1, false),
        }
        at = frame.next_at();
    }
    let allocations = ALLOCATIONS.get() - before;
    assert_eq!((at, allocations), (input.len(), 0));
    assert_eq!(parsed(&out).len(), 4);
}

/// What a session does with input, through every reader.
fn exercise(input: &[u8]) {
    Greeting::detect(input).answer();
    let (frames, rest) = split_all(input, 4096);
    if let Err(error) = rest {
        let text = error.text();
        assert!(text.starts_with("type ") && text.len() < 400, "{text}");
    }
    for frame in frames {
        let payload = frame.payload(input);
        assert!(frame::unexpected_text(frame.kind, payload).contains("octets = <<"));
        match frame.kind {
            FrameKind::Method => exercise_method(input, &frame, payload),
            FrameKind::Header => {
                let header = hot::content_header(input, &frame).expect("long enough by its kind");
                let raw = &input[header.properties_at..][..header.properties_len];
                exercise_properties(raw);
                exercise_against_amq(&input[frame.payload_at - 7..frame.next_at()], raw);
            }
            FrameKind::Body | FrameKind::Heartbeat => {}
        }
    }
}

fn exercise_method(input: &[u8], frame: &Frame, payload: &[u8]) {
    if let Some(publish) = hot::publish(input, frame) {
        let (exchange, key) = (publish.exchange(input), publish.key(input));
        assert_eq!(exchange.len() + key.len() + 9, payload.len());
    }
    hot::ack(input, frame);
    hot::nack(input, frame);
    hot::reject(input, frame);
    hot::get(input, frame);
    hot::qos(input, frame);
    method::table(payload);
    match method::decode(payload) {
        Ok(decoded) => {
            let mut out = Vec::new();
            method::encode(frame.channel, &decoded, &mut out);
            let (again, _) = split_all(&out, 0);
            let again = method::decode(again[0].payload(&out));
            // Not-a-number is not equal to itself.
            assert_eq!(format!("{again:?}"), format!("Ok({decoded:?})"));
        }
        Err(error) => {
            let is_ours_alone = matches!(error, MethodError::Malformed { fault: method::Fault::Table, .. });
            assert!(error.text().len() < 1100);
            let theirs = parse_class(payload);
            let is_theirs = matches!(theirs, Ok(([], _)));
            assert!(is_ours_alone || !is_theirs, "only amq-protocol reads {payload:?}: {error:?}");
        }
    }
}

fn exercise_properties(raw: &[u8]) {
    let scan = properties::scan(raw);
    assert_eq!(scan.is_some(), Properties::decode(raw).is_some());
    let change = Rewrite { headers: Some(None), without_expiration: true, reply_to: Some(b"r") };
    let mut out = Vec::new();
    properties::rewrite(raw, &change, &mut out);
    match scan {
        Some(old) => {
            let new = properties::scan(&out).expect("a rewrite of good properties is good");
            let expected = properties::Scan { headers: (0, 0), expiration: None, reply_to: Some(b"r"), ..old };
            assert_eq!(new, expected);
            let (at, len) = old.headers;
            Headers::new(&raw[at..at + len]).to_table();
        }
        None => assert!(properties::scan(&out).is_none() || out != raw),
    }
    out.clear();
    properties::rewrite(raw, &Rewrite::default(), &mut out);
    assert_eq!(out, raw);
}

/// Input is short here, so that its tables cannot exhaust amq-protocol's stack.
fn exercise_against_amq(frame: &[u8], raw: &[u8]) {
    let has_more_flags = raw.get(1).is_some_and(|flags| flags & 1 != 0);
    if frame.len() < 600
        && !has_more_flags
        && let Ok(([], AMQPFrame::Header(_, header))) = parse_frame(frame)
    {
        assert_scan_agrees(raw, &header.properties);
    }
}

fn corpus() -> Vec<Vec<u8>> {
    let headers = Table::from_iter([
        ("z", Value::I32(7)),
        ("list", Value::Array(vec![Value::text("a"), Value::Void, Value::F64(0.5)])),
        ("inner", Value::Table(Table::from_iter([("at", Value::Timestamp(1)), ("ok", Value::Bool(true))]))),
    ]);
    let text = |text: &str| Some(text.to_owned());
    let properties = Properties {
        content_type: text("text/plain"),
        headers: Some(headers.clone()),
        delivery_mode: Some(2),
        priority: Some(1),
        correlation_id: text("c"),
        reply_to: text("amq.rabbitmq.reply-to"),
        expiration: text("1000"),
        timestamp: Some(1),
        user_id: text("guest"),
        ..Properties::default()
    };
    let mut publish = frame_bytes(1, 1, b"\0\x3c\0\x28\0\0\x02ex\x03key\0");
    publish.extend(frame_bytes(2, 1, &header_payload(4, &properties.encode())));
    publish.extend(frame_bytes(3, 1, b"body"));
    publish.extend(frame_bytes(8, 0, b""));
    let table = encoded(&headers);
    let mut with_table = Vec::new();
    for prefix in
        [&b"\0\x32\0\x0a\0\0\x01q\x02"[..], b"\0\x28\0\x0a\0\0\x01x\x05topic\x02", b"\0\x3c\0\x14\0\0\x01q\x01c\0"]
    {
        let mut payload = prefix.to_vec();
        payload.extend((table.len() as u32).to_be_bytes());
        payload.extend(&table);
        with_table.push(frame_bytes(1, 1, &payload));
    }
    let mut settle = frame_bytes(1, 1, b"\0\x3c\0\x50\0\0\0\0\0\0\0\x01\x01");
    settle.extend(frame_bytes(1, 1, b"\0\x3c\0\x78\0\0\0\0\0\0\0\x02\x03"));
    settle.extend(frame_bytes(1, 1, b"\0\x3c\0\x5a\0\0\0\0\0\0\0\x03\x01"));
    settle.extend(frame_bytes(1, 1, b"\0\x3c\0\x46\0\0\x01q\x01"));
    let mut open = b"AMQP\0\0\x09\x01".to_vec();
    open.extend(frame_bytes(1, 0, b"\0\x0a\0\x28\x01/\0\0"));
    open.extend(frame_bytes(1, 1, b"\0\x14\0\x0a\0"));
    let mut corpus = vec![publish, settle, open];
    corpus.extend(with_table);
    corpus
}

/// A small generator, so that a seed means the same input everywhere.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(bytes.len());
        match self.below(8) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, self.next() as u8),
            2 if !bytes.is_empty() => drop(bytes.remove(at)),
            3 => {
                let start = self.below(other.len());
                let end = start + self.below(other.len() - start).min(40);
                bytes.splice(at..at, other[start..end].iter().copied());
            }
            4 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = [0, 1, 0x7F, 0x80, 0xFF, FRAME_END, b'F', b'A'][self.below(8)];
                }
            }
            5 if bytes.len() >= 4 => {
                let at = self.below(bytes.len() - 3);
                let sizes = [0, 1, 255, 256, 4088, 4096, 4097, 0x7FFF_FFFF, u32::MAX];
                bytes[at..at + 4].copy_from_slice(&sizes[self.below(sizes.len())].to_be_bytes());
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << self.below(8);
                }
            }
        }
    }
}

/// Names the run when it ends by a panic.
struct Run {
    seed: u64,
    iteration: u64,
}

impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("TERN_SEED={} failed at mutation {}", self.seed, self.iteration);
        }
    }
}

#[test]
fn mutated_conversations_never_panic() {
    let setting = |name: &str, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (seed, mutations) = (setting("TERN_SEED", 1), setting("TERN_MUTATIONS", 100_000));
    let corpus = corpus();
    let mut rng = Rng(seed);
    let mut run = Run { seed, iteration: 0 };
    let mut bytes = Vec::new();
    while run.iteration < mutations {
        // Half of the mutations go on from the one before, up to a few dozen deep.
        if bytes.is_empty() || bytes.len() > 500 || rng.below(20) == 0 {
            bytes = corpus[rng.below(corpus.len())].clone();
        }
        let other = &corpus[rng.below(corpus.len())];
        let keep = bytes.clone();
        rng.mutate(&mut bytes, other);
        exercise(&bytes);
        if rng.below(2) == 0 {
            bytes = keep;
        }
        run.iteration += 1;
    }
}
