//! What the codec costs per message, beside `amq-protocol` on the same bytes.

use std::hint::black_box;

use amq_protocol::{
    frame::{AMQPFrame, gen_frame, parse_frame},
    protocol::{AMQPClass, basic},
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ternmq::{
    broker::value::{Table, Value},
    protocol::amqp::{
        codec::{
            frame::{self, FrameKind},
            hot,
        },
        properties::{self, Properties},
    },
};

const FRAME_MAX: u32 = 131_072;
/// Messages back to back in one buffer, as a read of a busy socket brings them.
const BATCH: usize = 48;
const BODIES: [usize; 3] = [16, 1024, 16 * 1024];

fn typical() -> Properties {
    let headers = [("source", Value::text("checkout")), ("attempt", Value::I32(1)), ("urgent", Value::Bool(true))];
    Properties {
        content_type: Some("application/json".into()),
        delivery_mode: Some(2),
        headers: Some(Table::from_iter(headers)),
        ..Properties::default()
    }
}

fn push_publish(out: &mut Vec<u8>, properties: &[u8], body: &[u8]) {
    let payload = b"\0\x3c\0\x28\0\0\0\x06orders\0";
    out.extend([1, 0, 1]);
    out.extend((payload.len() as u32).to_be_bytes());
    out.extend(payload);
    out.push(frame::FRAME_END);
    hot::put_content_header(out, 1, body.len() as u64, properties);
    hot::put_body_contiguous(out, 1, FRAME_MAX, body);
}

/// Reads a buffer of publishes; gives the body bytes, so that nothing is optimised away.
fn read_publishes(input: &[u8]) -> u64 {
    let (mut at, mut bytes) = (0, 0);
    while let Ok(Some(frame)) = frame::split(input, at, FRAME_MAX) {
        match frame.kind {
            FrameKind::Method => {
                if hot::method_id(frame.payload(input)) == Some((60, 40)) {
                    bytes += hot::publish(input, &frame).map_or(0, |publish| u64::from(publish.key_len));
                }
            }
            FrameKind::Header => {
                if let Some(header) = hot::content_header(input, &frame) {
                    let raw = &input[header.properties_at..][..header.properties_len];
                    bytes += properties::scan(raw).and_then(|scan| scan.delivery_mode).map_or(0, u64::from);
                }
            }
            FrameKind::Body => bytes += frame.payload_len as u64,
            FrameKind::Heartbeat => {}
        }
        at = frame.next_at();
    }
    bytes
}

fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse_publish");
    group.throughput(Throughput::Elements(BATCH as u64));
    for body_bytes in BODIES {
        for (name, raw) in [("bare", vec![0, 0]), ("headers", typical().encode())] {
            let mut input = Vec::new();
            (0..BATCH).for_each(|_| push_publish(&mut input, &raw, &vec![b'x'; body_bytes]));
            group.bench_function(format!("{name}/{body_bytes}"), |b| b.iter(|| read_publishes(black_box(&input))));
            group.bench_function(format!("amq-protocol/{name}/{body_bytes}"), |b| {
                b.iter(|| {
                    let mut rest = black_box(&input[..]);
                    while let Ok((next, frame)) = parse_frame(rest) {
                        black_box(frame);
                        rest = next;
                    }
                });
            });
        }
    }
    group.finish();
}

fn delivery(c: &mut Criterion) {
    let mut group = c.benchmark_group("put_delivery");
    group.throughput(Throughput::Elements(BATCH as u64));
    let raw = typical().encode();
    for body_bytes in BODIES {
        let body = vec![b'x'; body_bytes];
        let mut out = Vec::with_capacity(BATCH * (body_bytes + 256));
        let content =
            hot::ContentOut { channel: 1, frame_max: FRAME_MAX, properties: &raw, body_size: body_bytes as u64 };
        group.bench_function(body_bytes.to_string(), |b| {
            b.iter(|| {
                out.clear();
                for tag in 0..BATCH as u64 {
                    let (route, body) = (black_box(&b"\0\x06orders"[..]), black_box(&body));
                    let content = hot::ContentOut { properties: black_box(&raw), ..content };
                    hot::put_delivery(&mut out, &content, b"ctag1.1", tag, false, route, body);
                }
                out.len()
            });
        });
        group.bench_function(format!("repeated/{body_bytes}"), |b| {
            b.iter(|| {
                out.clear();
                let head = hot::put_delivery(&mut out, &content, b"ctag1.1", 0, false, b"\0\x06orders", &body);
                let head = head.expect("the body fits one frame");
                for tag in 1..BATCH as u64 {
                    head.put_again(&mut out, tag, black_box(&body));
                }
                out.len()
            });
        });
        let mut whole = Vec::new();
        hot::put_delivery(&mut whole, &content, b"ctag1.1", 1, false, b"\0\x06orders", &body);
        let mut frames = Vec::new();
        let mut rest = &whole[..];
        while let Ok((next, frame)) = parse_frame(rest) {
            frames.push(frame);
            rest = next;
        }
        let is_delivery = matches!(frames[0], AMQPFrame::Method(_, AMQPClass::Basic(basic::AMQPMethod::Deliver(_))));
        assert!(is_delivery && frames.len() == 3, "amq-protocol reads what we write");
        let mut out = Some(Vec::with_capacity(BATCH * (body_bytes + 256)));
        group.bench_function(format!("amq-protocol/{body_bytes}"), |b| {
            b.iter(|| {
                let mut buffer = out.take().unwrap_or_default();
                buffer.clear();
                for _ in 0..BATCH {
                    for frame in black_box(&frames) {
                        if let Ok(context) = gen_frame(frame)(std::mem::take(&mut buffer).into()) {
                            buffer = context.into_inner().0;
                        }
                    }
                }
                out = Some(buffer);
            });
        });
    }
    group.finish();
}

fn scan(c: &mut Criterion) {
    let mut group = c.benchmark_group("scan");
    let common =
        Properties { content_type: Some("application/json".into()), delivery_mode: Some(2), ..Properties::default() };
    let rpc = Properties {
        correlation_id: Some("7f1c9a4e-0b5d-4a55-9d7c-0a4a2e1f9b11".into()),
        reply_to: Some("amq.rabbitmq.reply-to".into()),
        ..common.clone()
    };
    for (name, raw) in [
        ("none", vec![0, 0]),
        ("delivery_mode", vec![0x10, 0, 2]),
        ("content_type", common.encode()),
        ("rpc", rpc.encode()),
        ("headers", typical().encode()),
    ] {
        // Only what a caller takes out of it: handing a whole scan to the bench would cost more.
        let facts = |raw| properties::scan(raw).map(|scan| (scan.delivery_mode, scan.headers.1));
        group.bench_function(name, |b| b.iter(|| facts(black_box(&raw[..]))));
    }
    group.finish();
}

fn settle(c: &mut Criterion) {
    let mut group = c.benchmark_group("settle");
    group.throughput(Throughput::Elements(BATCH as u64));
    let mut input = Vec::new();
    (0..BATCH as u64).for_each(|tag| hot::put_ack(&mut input, 1, tag, false));
    group.bench_function("parse_ack", |b| {
        b.iter(|| {
            let (input, mut at, mut sum) = (black_box(&input[..]), 0, 0);
            while let Ok(Some(frame)) = frame::split(input, at, FRAME_MAX) {
                if hot::method_id(frame.payload(input)) == Some((60, 80)) {
                    sum += hot::ack(input, &frame).map_or(0, |ack| ack.delivery_tag);
                }
                at = frame.next_at();
            }
            sum
        });
    });
    let mut out = Vec::with_capacity(BATCH * 32);
    group.bench_function("put_ack", |b| {
        b.iter(|| {
            out.clear();
            (0..BATCH as u64).for_each(|tag| hot::put_ack(&mut out, 1, black_box(tag), false));
            out.len()
        });
    });
    group.finish();
}

criterion_group!(benches, parse, delivery, scan, settle);
criterion_main!(benches);
