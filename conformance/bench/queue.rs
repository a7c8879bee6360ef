//! What a queue costs: a message in and out, and its own declaration among many others.

use std::{hint::black_box, sync::Arc};

use criterion::{BatchSize, Criterion, Throughput};
use ternmq::broker::{
    self, Broker,
    consumer::Settle,
    message::Message,
    queue::{
        leases::{LeaseSettle, Receive},
        machine::{Effects, Limits, Machine},
        selective::GroupMode,
    },
    selection::{Fields, Group, Subject},
    selector::Value,
    time::Time,
    topology::DeclareQueue,
    turn::Turn,
    verb::Verb,
};

const NOW: Time = Time(1_700_000_000_000);
const BATCH: u64 = 64;
const QUEUES: u32 = 100_000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    push_and_pop(&mut criterion);
    receive_and_accept(&mut criterion);
    declare_and_delete(&mut criterion);
    criterion.final_summary();
}

fn push_and_pop(criterion: &mut Criterion) {
    let message = Message::build("", b"q", &[0, 0], (0, 0), &[7; 1024]);
    let mut group = criterion.benchmark_group("machine");
    group.throughput(Throughput::Elements(BATCH));
    for (name, backlog) in [("empty", 0), ("backlog of 1000000", 1_000_000)] {
        let mut machine = Machine::new(0, Limits::default(), NOW);
        let mut effects = Effects::default();
        for _ in 0..backlog {
            machine.push(message.clone(), NOW, &mut effects);
        }
        group.bench_function(format!("push + get/{name}"), |bencher| {
            bencher.iter(|| {
                for _ in 0..BATCH {
                    machine.push(black_box(message.clone()), NOW, &mut effects);
                }
                for _ in 0..BATCH {
                    black_box(machine.get(true, NOW, &mut effects));
                }
            });
        });
        group.bench_function(format!("push + get + settle/{name}"), |bencher| {
            let mut held = Vec::new();
            bencher.iter(|| {
                for _ in 0..BATCH {
                    machine.push(black_box(message.clone()), NOW, &mut effects);
                }
                for _ in 0..BATCH {
                    held.extend(machine.get(false, NOW, &mut effects).and_then(|got| got.held));
                }
                for held in held.drain(..) {
                    machine.settle(held, Settle::Accepted, NOW, &mut effects);
                }
            });
        });
    }
    group.bench_function("push with priorities", |bencher| {
        bencher.iter_batched_ref(
            || Machine::new(10, Limits::default(), NOW),
            |machine| {
                let mut effects = Effects::default();
                for n in 0..BATCH {
                    let mut message = message.clone();
                    message.traits.priority = (n % 10) as u8;
                    machine.push(message, NOW, &mut effects);
                }
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// Ten messages in, received in one call and accepted in one.
fn receive_and_accept(criterion: &mut Criterion) {
    const TEN: usize = 10;
    let broker = Broker::new(broker::Options::default(), NOW).expect("the defaults make a broker");
    broker.attach_fields(Arc::new(Groups));
    let vhost = broker.vhost("/").expect("the default vhost");
    let mut group = criterion.benchmark_group("leases");
    group.throughput(Throughput::Elements(TEN as u64));
    for (name, backlog, groups) in
        [("empty", 0, 0), ("backlog of 1000000", 1_000_000, 0), ("1000000 in 10000 groups", 1_000_000, 10_000_u32)]
    {
        let mut turn = Turn::new(&broker, NOW);
        let wanted = DeclareQueue { name, ..DeclareQueue::default() };
        let queue = vhost.declare_queue(&wanted, None, &mut turn).expect("declared");
        let limits = Limits { group_mode: GroupMode::Unsettled, ..Limits::default() };
        queue.configure(limits, queue.dead_letter(), &mut turn);
        let mut next = 0_u32;
        let mut message = || {
            let name = (next % groups.max(1)).to_le_bytes();
            next += 1;
            let mut message = Message::build("", b"q", &name, (0, 0), &[7; 100]);
            message.traits.has_group = groups > 0;
            message
        };
        queue.publish((0..backlog).map(|_| message()), &mut turn, &mut Vec::new());
        turn.end();
        group.bench_function(format!("publish + receive + accept/{name}"), |bencher| {
            bencher.iter(|| {
                let mut turn = Turn::new(&broker, NOW);
                let messages: Vec<_> = (0..TEN).map(|_| (message(), None)).collect();
                queue.publish_each(messages.into_iter(), &mut turn);
                let wanted = Receive { max: TEN, lease_ms: 30_000, ..Receive::default() };
                let Verb::Done(Ok(received)) = queue.receive(&wanted, &mut turn) else {
                    panic!("everything is in memory")
                };
                assert_eq!(received.messages.len(), TEN);
                let leases: Vec<_> = received.messages.iter().map(|one| (one.seq, one.nonce)).collect();
                black_box(queue.settle_leases(&leases, LeaseSettle::Accept { is_strict: true }, &mut turn));
                turn.end();
            });
        });
    }
    group.finish();
}

/// The properties of a message are its group.
struct Groups;

impl Fields for Groups {
    fn field<'m>(&self, _: Subject<'m>, _: &str) -> Value<'m> {
        Value::Null
    }

    fn group<'m>(&self, message: &'m Message) -> Option<Group<'m>> {
        Some(Group { name: message.properties(), is_last: false })
    }
}

fn declare_and_delete(criterion: &mut Criterion) {
    let broker = Broker::new(broker::Options::default(), NOW).expect("the defaults make a broker");
    let vhost = broker.vhost("/").expect("the default vhost");
    let declare = |name: &str| {
        let mut turn = Turn::new(&broker, NOW);
        let wanted = DeclareQueue { name, ..DeclareQueue::default() };
        let queue = vhost.declare_queue(&wanted, None, &mut turn).expect("declared");
        turn.end();
        queue
    };
    let queues: Vec<Arc<_>> = (0..QUEUES).map(|n| declare(&format!("queue.{n}"))).collect();
    criterion.bench_function(&format!("declare + delete among {QUEUES} queues"), |bencher| {
        bencher.iter(|| {
            let queue = declare(black_box("one.more"));
            let mut turn = Turn::new(&broker, NOW);
            vhost.remove_queue(&queue, &mut turn);
            turn.end();
        });
    });
    drop(queues);
}
