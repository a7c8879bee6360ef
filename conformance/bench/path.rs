//! The whole path of a message without sockets: from the octets that a publisher sends to the
//! octets that a consumer is sent.

use std::{net::SocketAddr, sync::Arc};

use criterion::{Criterion, Throughput};
use ternmq::{
    broker::{self, Broker, block::Block, time::Time},
    protocol::amqp::{
        self, Session, Shared, Stage,
        codec::{
            frame::{FrameKind, split},
            hot,
            method::{self, AMQPClass, FieldTable, basic, channel, confirm, connection, queue},
        },
    },
};

const NOW: Time = Time(1_700_000_000_000);
const FRAME_MAX: u32 = 131_072;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for (name, is_acked) in [("auto-ack", false), ("manual ack with confirms", true)] {
        let mut group = criterion.benchmark_group(format!("path/{name}"));
        for (body_bytes, count) in [(16, 1000), (1024, 100), (16 * 1024, 7)] {
            let mut path = Path::new(is_acked);
            let block: Block = Arc::new(publishes(body_bytes, count));
            group.throughput(Throughput::Elements(count));
            group.bench_function(body_bytes.to_string(), |bencher| bencher.iter(|| path.pass(&block, count)));
        }
        group.finish();
    }
    criterion.final_summary();
}

/// One publisher, one queue, one consumer.
struct Path {
    publisher: Peer,
    consumer: Peer,
    last_tag: u64,
    is_acked: bool,
}

impl Path {
    fn new(is_acked: bool) -> Self {
        let broker = Broker::new(broker::Options::default(), NOW).expect("the defaults make a broker");
        let broker = Arc::new(broker);
        let (mut publisher, mut consumer) = (Peer::new(&broker), Peer::new(&broker));
        let declare = queue::Declare { queue: "q".into(), ..queue::Declare::default() };
        consumer.say(1, &AMQPClass::Queue(queue::AMQPMethod::Declare(declare)));
        let consume = basic::Consume { queue: "q".into(), no_ack: !is_acked, ..basic::Consume::default() };
        consumer.say(1, &AMQPClass::Basic(basic::AMQPMethod::Consume(consume)));
        if is_acked {
            publisher.say(1, &AMQPClass::Confirm(confirm::AMQPMethod::Select(confirm::Select::default())));
        }
        publisher.output();
        consumer.output();
        Self { publisher, consumer, last_tag: 0, is_acked }
    }

    /// One read of the publisher's socket, and all that follows from it.
    fn pass(&mut self, block: &Block, count: u64) -> usize {
        self.publisher.take(block);
        let delivered = self.consumer.output();
        self.last_tag += count;
        if self.is_acked {
            let ack = basic::Ack { delivery_tag: self.last_tag, multiple: true };
            self.consumer.say(1, &AMQPClass::Basic(basic::AMQPMethod::Ack(ack)));
            assert!(self.publisher.output() > 0, "the publisher got its confirms");
        }
        assert!(delivered > block.len() / 2, "the consumer got what was published");
        delivered
    }
}

struct Peer {
    session: Session,
    shared: Arc<Shared>,
}

impl Peer {
    /// A connection with channel 1 open.
    fn new(broker: &Arc<Broker>) -> Self {
        let amqp = amqp::Options::default();
        let shared = Arc::new(Shared::new(amqp.outbox_bytes_max));
        let address: SocketAddr = ([127, 0, 0, 1], 5672).into();
        let session = Session::new(broker.clone(), Arc::new(amqp), shared.clone(), address, address, NOW);
        let mut peer = Self { session, shared };
        peer.take(&Arc::new(b"AMQP\x00\x00\x09\x01".to_vec()));
        let start_ok = connection::StartOk {
            client_properties: FieldTable::default(),
            mechanism: "PLAIN".into(),
            response: "\0guest\0guest".into(),
            locale: "en_US".into(),
        };
        let tune_ok = connection::TuneOk { channel_max: 2047, frame_max: FRAME_MAX, heartbeat: 0 };
        let open = connection::Open { virtual_host: "/".into() };
        peer.say(0, &AMQPClass::Connection(connection::AMQPMethod::StartOk(start_ok)));
        peer.say(0, &AMQPClass::Connection(connection::AMQPMethod::TuneOk(tune_ok)));
        peer.say(0, &AMQPClass::Connection(connection::AMQPMethod::Open(open)));
        assert_eq!(peer.session.stage(), Stage::Running);
        peer.say(1, &AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {})));
        peer
    }

    fn say(&mut self, channel: u16, class: &AMQPClass) {
        let mut out = Vec::new();
        method::encode(channel, class, &mut out);
        self.take(&Arc::new(out));
    }

    fn take(&mut self, block: &Block) {
        let progress = self.session.handle_input(block, NOW);
        assert_eq!(progress.consumed, block.len());
    }

    /// Takes what would be written to the socket; returns its octets.
    fn output(&mut self) -> usize {
        self.shared.output().take_chunk().len()
    }
}

/// What a publisher writes for `count` messages.
fn publishes(body_bytes: usize, count: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let body = vec![7; body_bytes];
    for _ in 0..count {
        let publish = basic::Publish { routing_key: "q".into(), ..basic::Publish::default() };
        method::encode(1, &AMQPClass::Basic(basic::AMQPMethod::Publish(publish)), &mut out);
        hot::put_content_header(&mut out, 1, body.len() as u64, &[0, 0]);
        hot::put_body_contiguous(&mut out, 1, FRAME_MAX, &body);
    }
    let first = split(&out, 0, FRAME_MAX).ok().flatten();
    assert!(first.is_some_and(|frame| frame.kind == FrameKind::Method));
    out
}
