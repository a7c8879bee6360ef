//! Messages that exchanges hold back: more than memory keeps, with crashes, and moved out of sparse segments.

use proptest::prelude::*;

use super::*;
use crate::{
    broker::{
        exchange::{Exchange, Target},
        time::Time,
        topology::DeclareExchange,
    },
    server::persistence::entries,
};

/// Messages that an exchange holds back for a queue, at times that are all far ahead of the clock: so threads
/// that read pages release nothing by themselves.
struct Delays {
    rig: Option<Rig>,
    now: Time,
    published: usize,
    /// Due, and the number of the message.
    expected: Vec<(Time, usize)>,
    seen: Vec<usize>,
}

const EXCHANGE: &str = "delays";
const QUEUE: &str = "out";

impl Delays {
    fn new() -> Self {
        let rig = Rig::new();
        rig.declare("busy");
        let delays = Self {
            rig: Some(rig),
            now: clock::now().after_ms(1 << 32),
            published: 0,
            expected: Vec::new(),
            seen: Vec::new(),
        };
        delays.declare();
        delays
    }

    fn declare(&self) {
        let rig = self.rig();
        let vhost = rig.opened().broker.vhost("/").unwrap();
        let wanted = DeclareQueue { name: QUEUE, durable: true, ..DeclareQueue::default() };
        let queue = vhost.declare_queue(&wanted, None, &mut rig.turn()).unwrap();
        let arguments = Table::from_iter([("x-delayed-type", Value::text("fanout"))]);
        let kind = "x-delayed-message";
        let wanted = DeclareExchange { name: EXCHANGE, kind, durable: true, arguments, ..DeclareExchange::default() };
        vhost.declare_exchange(&wanted, &mut rig.turn()).unwrap();
        vhost.bind(EXCHANGE, &Target::Queue(queue), b"", &Table::new(), &mut rig.turn()).unwrap();
    }

    fn rig(&self) -> &Rig {
        self.rig.as_ref().unwrap()
    }

    fn exchange(&self) -> Arc<Exchange> {
        self.rig().opened().broker.vhost("/").unwrap().exchange(EXCHANGE).unwrap()
    }

    fn resident(&self) -> usize {
        self.exchange().delayed.as_ref().unwrap().lock().resident()
    }

    fn publish(&mut self, delay_ms: u32, body_bytes: usize) {
        let body = format!("{:06}{}", self.published, "x".repeat(body_bytes));
        self.expected.push((self.now.after_ms(delay_ms.into()), self.published));
        self.published += 1;
        let mut headers = Vec::new();
        Table::from_iter([("x-delay", Value::I64(delay_ms.into()))]).encode(&mut headers);
        let mut message = Message::build(EXCHANGE, b"", &headers, (0, headers.len()), body.as_bytes());
        message.traits.persistent = true;
        let broker = &self.rig().opened().broker;
        let mut turn = Turn::new(broker, self.now);
        let route = broker.vhost("/").unwrap().route(&self.exchange(), &message, &[], None, &mut turn);
        assert!(route.is_kept);
    }

    /// Has everything released that is due by then, and takes it.
    fn advance(&mut self, ms: u64) {
        self.now = self.now.after_ms(ms);
        let (broker, exchange) = (&self.rig().opened().broker, self.exchange());
        loop {
            broker.tick(self.now);
            assert_eq!(broker.damages(), [""; 0]);
            let delayed = exchange.delayed.as_ref().unwrap().lock();
            if !delayed.is_reading() && delayed.next_due() > self.now {
                break;
            }
            drop(delayed);
            std::thread::yield_now();
        }
        let number = |got: Got| {
            let body = got.message.body_to_vec();
            std::str::from_utf8(&body[..6]).unwrap().parse::<usize>().unwrap()
        };
        let seen: Vec<_> = std::iter::from_fn(|| self.rig().get(QUEUE, true).map(number)).collect();
        self.seen.extend(seen);
    }

    fn crash(&mut self) {
        self.rig = Some(self.rig().crash());
    }

    fn reopen(&mut self) {
        self.rig = self.rig.take().map(Rig::reopen);
    }

    /// Everything becomes due.
    fn finish(&mut self) {
        self.advance(1 << 33);
        self.expected.sort();
        let expected: Vec<_> = self.expected.iter().map(|(_, number)| *number).collect();
        assert_eq!(self.seen, expected);
    }

    fn is_index_empty(&self) -> bool {
        let exchange = self.exchange();
        let index = self.rig().opened().checkpointer.index();
        let owner = entries::holds_owner(exchange.identity());
        index.page(entries::HOLDS, owner, index::Rank::MIN, 1).unwrap().is_empty()
    }
}

#[derive(Clone, Debug)]
enum Op {
    Publish { count: u8, delay_ms: u16, step: u8, body_bytes: u16 },
    Flow(u8),
    Advance(u16),
    Checkpoint,
    Crash,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (1..60u8, 1..5_000u16, any::<u8>(), 0..1_000u16)
            .prop_map(|(count, delay_ms, step, body_bytes)| Op::Publish { count, delay_ms, step, body_bytes }),
        2 => (1..100u8).prop_map(Op::Flow),
        4 => (0..2_000u16).prop_map(Op::Advance),
        5 => Just(Op::Checkpoint),
        1 => Just(Op::Crash),
        1 => Just(Op::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn nothing_held_back_is_lost_or_released_twice(ops in prop::collection::vec(op(), 1..30)) {
        let mut delays = Delays::new();
        for op in ops {
            match op {
                Op::Publish { count, delay_ms, step, body_bytes } => (0..u32::from(count)).for_each(|number| {
                    delays.publish(u32::from(delay_ms) + number * u32::from(step) % 97, body_bytes.into());
                }),
                Op::Flow(count) => delays.rig().flow("busy", count.into()),
                Op::Advance(ms) => delays.advance(ms.into()),
                Op::Checkpoint => delays.rig().checkpoint(),
                Op::Crash => delays.crash(),
                Op::Reopen => delays.reopen(),
            }
        }
        delays.finish();
        delays.crash();
        delays.finish();
        delays.rig().settle_down();
        prop_assert!(delays.is_index_empty());
    }
}

#[test]
fn memory_keeps_a_window_of_what_is_held_back() {
    const COUNT: u32 = 8_000;
    // Of 106 bytes each; a page has half of it.
    let window = options().queue_window_bytes as usize / 106 + 1;
    let mut delays = Delays::new();
    for number in 0..COUNT {
        delays.publish(1 + number * 3_331 % COUNT, 100);
        if number % 500 == 499 {
            delays.rig().checkpoint();
            assert!(delays.resident() <= window, "{} in memory", delays.resident());
        }
    }
    for _ in 0..20 {
        delays.advance(100);
        assert!(delays.resident() <= window, "{} in memory", delays.resident());
    }
    delays.reopen();
    delays.advance(100);
    assert!(delays.resident() <= 2_048, "a start loads a window, not {}", delays.resident());
    delays.finish();
}

#[test]
fn messages_held_back_are_moved_out_of_sparse_segments() {
    let mut delays = Delays::new();
    for _ in 0..10 {
        delays.publish(60_000, 100);
        delays.rig().flow("busy", 100);
    }
    // With parts, too.
    delays.publish(60_000, 30_000);
    delays.rig().flow("busy", 200);
    delays.rig().checkpoint();
    for _ in 0..4 {
        let mut crashed =
            Delays { rig: Some(delays.rig().crash()), expected: delays.expected.clone(), seen: Vec::new(), ..delays };
        crashed.rig().settle_down();
        crashed.finish();
        delays.rig().checkpoint();
    }
    delays.rig().settle_down();
    assert!(delays.rig().cold_files() > 0);
    assert!(delays.rig().file_bytes() <= SLACK_BYTES + 2 * SEGMENT_BYTES, "{}", delays.rig().file_bytes());
    delays.reopen();
    // Those that are in memory move, too.
    delays.advance(1);
    delays.finish();
    delays.rig().settle_down();
    assert_eq!(delays.rig().cold_files(), 0);
}

#[test]
fn what_a_deleted_exchange_held_back_leaves_index_and_log() {
    let mut delays = Delays::new();
    (0..300).for_each(|_| delays.publish(60_000, 1_000));
    delays.rig().checkpoint();
    delays.rig().checkpoint();
    assert!(!delays.is_index_empty());
    let vhost = delays.rig().opened().broker.vhost("/").unwrap();
    vhost.delete_exchange(EXCHANGE, false, &mut delays.rig().turn()).unwrap();
    drop(vhost);
    delays.expected.clear();
    delays.declare();
    delays.publish(60_000, 100);
    for _ in 0..4 {
        delays.rig().checkpoint();
    }
    assert!(delays.rig().file_bytes() <= 3 * SEGMENT_BYTES, "{}", delays.rig().file_bytes());
    delays.crash();
    delays.finish();
}
