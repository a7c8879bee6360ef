//! Random operations on a stream with an index of its own, and a plain list: the same messages under the
//! same offsets, also after crashes that cut off what was not flushed.

use proptest::prelude::*;

use super::{Arc, Client, Index, Mutex, Ordering, Side, Store, VecJournal, Window};
use crate::broker::{
    connections::ConnectionId,
    consumer::{Batch, ConsumerId, ConsumerOptions, Handed, Held, Outlet, Settle},
    message::Message,
    queue::stream::OffsetSpec,
    record::{Journal as _, Position},
    time::Time,
    turn::Turn,
    value::{HeadersBuilder, Table, Value},
};

#[derive(Clone, Debug)]
enum Op {
    Publish { count: u8, later_ms: u8 },
    Flush,
    Consume { spec: u8, at: u8, filter: Option<u8>, prefetch: u8 },
    Leave(u8),
    Park(u8),
    Settle { nth: u8, count: u8 },
    Advance(u16),
    Look { lag: u8, window: u8 },
    Looked { is_committed: bool },
    Load,
    Answer,
    Restart { is_committed: bool },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => (1..20u8, 0..20u8).prop_map(|(count, later_ms)| Op::Publish { count, later_ms }),
        6 => Just(Op::Flush),
        4 => (0..5u8, any::<u8>(), prop::option::weighted(0.3, 0..3u8), 0..20u8)
            .prop_map(|(spec, at, filter, prefetch)| Op::Consume { spec, at, filter, prefetch }),
        1 => any::<u8>().prop_map(Op::Leave),
        1 => any::<u8>().prop_map(Op::Park),
        6 => (any::<u8>(), 1..20u8).prop_map(|(nth, count)| Op::Settle { nth, count }),
        2 => (0..4000u16).prop_map(Op::Advance),
        6 => (0..4u8, 0..20u8).prop_map(|(lag, window)| Op::Look { lag, window }),
        6 => prop::bool::weighted(0.8).prop_map(|is_committed| Op::Looked { is_committed }),
        3 => Just(Op::Load),
        3 => Just(Op::Answer),
        2 => any::<bool>().prop_map(|is_committed| Op::Restart { is_committed }),
    ]
}

/// A message as the list has it.
#[derive(Clone, Debug)]
struct Listed {
    body: Vec<u8>,
    at: Time,
    value: u8,
}

/// A consumer, and what it has to see.
#[derive(Default)]
struct Reader {
    id: Option<ConsumerId>,
    filter: Option<u8>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    seen: Vec<(u64, Vec<u8>)>,
    held: Vec<Held>,
    is_parked: bool,
}

impl Outlet for Reader {
    fn deliver(&self, _: u64, batch: &Batch<'_>) -> Handed {
        let mut state = self.state.lock();
        batch.for_each(|one| {
            state.seen.push((one.stream_offset.unwrap(), one.message.body_to_vec()));
            state.held.extend(one.held);
        });
        Handed { is_full: state.is_parked, needs_flush: false }
    }

    fn cancelled(&self, _: u64) {}

    fn flush(&self) {}
}

struct Story {
    side: Side,
    store: Arc<Store>,
    list: Vec<Listed>,
    first: u64,
    now: Time,
    readers: Vec<(Arc<Reader>, u64)>,
    has_single_active_consumer: bool,
    given: Option<(Index, Window)>,
}

fn arguments(kind: u8) -> Table {
    let mut table = Table::new();
    let mut set = |name: &str, value: Value| table.push(name, value);
    set("x-queue-type", Value::text("stream"));
    set("x-stream-max-segment-size-bytes", Value::I64(900));
    match kind {
        1 => set("x-max-length-bytes", Value::I64(20_000)),
        2 => set("x-max-age", Value::text("3s")),
        _ => {}
    }
    table
}

impl Story {
    fn new(kind: u8) -> Self {
        let (store, now) = (Arc::new(Store::default()), Time(1_000_000));
        let side = Side::open(Arc::new(VecJournal::default()), Some(store.clone()), now);
        side.declare("q", arguments(kind), now);
        let story = Self {
            side,
            store,
            list: Vec::new(),
            first: 0,
            now,
            readers: Vec::new(),
            has_single_active_consumer: kind == 3,
            given: None,
        };
        story.flush();
        story.configure();
        story
    }

    /// Nothing that can be declared has a stream with a single active consumer; the machine knows it.
    fn configure(&self) {
        self.side.queue("q").lock().has_single_active_consumer = self.has_single_active_consumer;
    }

    fn turn(&self) -> Turn<'_> {
        Turn::new(&self.side.broker, self.now)
    }

    fn flush(&self) {
        let journal = &self.side.journal;
        journal.2.store(VecJournal::end(journal) - 1, Ordering::Relaxed);
        self.side.broker.waiting.serve_streams(&mut self.turn());
    }

    /// The first offset and the next one, and bytes.
    fn extent(&self) -> (u64, u64, u64) {
        let queue = self.side.queue("q");
        let machine = queue.lock();
        let stream = machine.stream.as_ref().unwrap();
        (stream.first_offset(), stream.next_offset(), stream.body_bytes())
    }

    fn run(&mut self, op: &Op) {
        let queue = self.side.queue("q");
        match op {
            &Op::Publish { count, later_ms } => {
                for _ in 0..count {
                    self.now = self.now.after_ms(u64::from(later_ms) * u64::from(count % 3));
                    let value = (self.list.len() % 3) as u8;
                    let body = format!("{}", self.list.len()).into_bytes();
                    let mut headers = HeadersBuilder::new();
                    headers.push("x-stream-filter-value", &Value::text(char::from(b'a' + value).to_string()));
                    let headers = headers.finish();
                    let message = Message::build("", b"q", &headers, (0, headers.len()), &body);
                    queue.publish([message].into_iter(), &mut self.turn(), &mut Vec::new());
                    self.list.push(Listed { body, at: self.now, value });
                }
            }
            Op::Flush => self.flush(),
            &Op::Consume { spec, at, filter, prefetch } => {
                let times = |index: usize| self.list.get(index).map_or(self.now, |one| one.at);
                let spec = match spec {
                    0 => OffsetSpec::First,
                    1 => OffsetSpec::Last,
                    2 => OffsetSpec::Next,
                    3 => OffsetSpec::Offset(u64::from(at)),
                    _ => OffsetSpec::Timestamp(times(at.into()).0 / 1000),
                };
                let (first, next, _) = self.extent();
                let from = |time: Time| {
                    let left = self.list[first as usize..].iter().position(|one| one.at >= time);
                    left.map_or(next, |index| first + index as u64)
                };
                let (start, argument) = match spec {
                    OffsetSpec::First => (first, Value::text("first")),
                    OffsetSpec::Last => (self.list.last().map_or(0, |last| from(last.at)), Value::text("last")),
                    OffsetSpec::Next => (next, Value::text("next")),
                    OffsetSpec::Offset(offset) => (offset.clamp(first, next), Value::I64(offset as i64)),
                    OffsetSpec::Timestamp(secs) => (from(Time(secs * 1000)), Value::Timestamp(secs)),
                    OffsetSpec::Interval(_) => unreachable!("not among these"),
                };
                let id = self.side.broker.next_consumer_id();
                let reader = Arc::new(Reader { id: Some(id), filter, state: Mutex::default() });
                let mut arguments = Table::new();
                arguments.push("x-stream-offset", argument);
                if let Some(value) = filter {
                    arguments.push("x-stream-filter", Value::text(char::from(b'a' + value).to_string()));
                }
                let options = ConsumerOptions {
                    tag: "c".into(),
                    no_ack: false,
                    exclusive: false,
                    priority: 0,
                    prefetch: prefetch.into(),
                    declared_prefetch: prefetch.into(),
                    shared_credit: None,
                    selector: None,
                    is_sole: false,
                    arguments,
                    outlet: reader.clone(),
                    key: 0,
                    connection: ConnectionId(1),
                    channel: 1,
                };
                queue.consume(id, options, &mut self.turn()).unwrap();
                self.readers.push((reader, start));
            }
            &Op::Leave(nth) => {
                if !self.readers.is_empty() {
                    let (reader, start) = self.readers.remove(nth as usize % self.readers.len());
                    self.check(&reader, start, false);
                    queue.leave(&[reader.id.unwrap()], &reader.state.lock().held, &[], &mut self.turn());
                }
            }
            &Op::Park(nth) => {
                if !self.readers.is_empty() {
                    let (reader, _) = &self.readers[nth as usize % self.readers.len()];
                    let is_parked = {
                        let mut state = reader.state.lock();
                        state.is_parked = !state.is_parked;
                        state.is_parked
                    };
                    if !is_parked {
                        queue.resume(reader.id.unwrap(), &mut self.turn());
                    }
                }
            }
            &Op::Settle { nth, count } => {
                if !self.readers.is_empty() {
                    let (reader, _) = &self.readers[nth as usize % self.readers.len()];
                    let held: Vec<Held> = {
                        let held = &mut reader.state.lock().held;
                        let count = held.len().min(count.into());
                        held.drain(..count).collect()
                    };
                    queue.settle(&held, Settle::Accepted, &mut self.turn());
                }
            }
            &Op::Advance(ms) => {
                self.now = self.now.after_ms(ms.into());
                self.side.broker.tick(self.now);
            }
            &Op::Look { lag, window } => {
                if self.given.is_some() {
                    return;
                }
                let window = Window { messages: window.into(), bytes: 1 << 20 };
                let mut index = self.store.index.lock().clone();
                index.covered = index.covered.max(VecJournal::end(&self.side.journal).saturating_sub(lag.into()));
                if let Some(look) = queue.look(Position(index.covered), &window) {
                    index.apply(queue.id, &look);
                }
                self.given = Some((index, window));
            }
            &Op::Looked { is_committed } => {
                let Some((index, window)) = self.given.take() else { return };
                if is_committed {
                    // The index knows nothing that the log may forget.
                    self.flush();
                    *self.store.index.lock() = index;
                }
                queue.looked(is_committed, &window);
            }
            Op::Load => self.side.load(),
            Op::Answer => self.side.answer(self.now),
            &Op::Restart { is_committed } => self.restart(is_committed),
        }
        let (first, next, bytes) = self.extent();
        assert!(first >= self.first, "what retention took stays away");
        self.first = first;
        assert_eq!(next, self.list.len() as u64, "after {op:?}");
        let listed: u64 = self.list[first as usize..].iter().map(|one| one.body.len() as u64).sum();
        assert_eq!(bytes, listed, "after {op:?}");
        for (reader, start) in &self.readers {
            self.check(reader, *start, false);
        }
    }

    fn restart(&mut self, is_committed: bool) {
        let mut seen_below = 0;
        for (reader, start) in std::mem::take(&mut self.readers) {
            self.check(&reader, start, false);
            seen_below = reader.state.lock().seen.last().map_or(0, |(offset, _)| offset + 1).max(seen_below);
        }
        if let Some((index, _)) = self.given.take()
            && is_committed
        {
            self.flush();
            *self.store.index.lock() = index;
        }
        let before = self.extent();
        self.store.asked.lock().clear();
        let journal = self.side.journal.clone();
        let flushed = journal.flushed().0;
        journal.0.lock().truncate(flushed as usize);
        self.side = Side::open(journal, Some(self.store.clone()), self.now);
        self.side.client = Arc::<Client>::default();
        self.configure();
        let after = self.extent();
        assert!(after.1 <= before.1);
        assert!(seen_below <= after.1, "what was delivered keeps its offset");
        if after.1 == before.1 {
            assert!(after.0 <= before.0, "nothing goes at a start");
        }
        // A trim that was cut off is repeated when retention looks again.
        self.first = after.0;
        self.list.truncate(after.1 as usize);
        self.flush();
    }

    /// A reader has seen what it had to, in order and without gaps but for what retention took.
    fn check(&self, reader: &Reader, start: u64, is_all: bool) {
        let state = reader.state.lock();
        let passes = |offset: u64| reader.filter.is_none_or(|value| self.list[offset as usize].value == value);
        let mut next = start;
        for (offset, body) in &state.seen {
            assert!(*offset >= next, "in order");
            assert!(
                (next..*offset).all(|missing| missing < self.first || !passes(missing)),
                "reader from {start} misses messages between {next} and {offset}"
            );
            assert!(passes(*offset));
            assert_eq!(*body, self.list[*offset as usize].body);
            next = offset + 1;
        }
        if is_all {
            let missing = (next.max(self.first)..self.list.len() as u64).find(|offset| passes(*offset));
            assert_eq!(missing, None, "a reader from {start} comes to the end");
        }
    }

    /// Everybody who is served reads to the end.
    fn finish(&mut self) {
        self.flush();
        for _ in 0..10_000 {
            self.side.answer(self.now);
            let queue = self.side.queue("q");
            let mut is_over = true;
            for (reader, _) in &self.readers {
                let held = {
                    let mut state = reader.state.lock();
                    state.is_parked = false;
                    std::mem::take(&mut state.held)
                };
                is_over &= held.is_empty();
                queue.settle(&held, Settle::Accepted, &mut self.turn());
                queue.resume(reader.id.unwrap(), &mut self.turn());
            }
            if is_over
                && self.store.asked.lock().is_empty()
                && self.readers.iter().all(|(reader, _)| reader.state.lock().held.is_empty())
            {
                break;
            }
        }
        for (index, (reader, start)) in self.readers.iter().enumerate() {
            self.check(reader, *start, index == 0 || !self.has_single_active_consumer);
        }
    }
}

fn check(kind: u8, ops: &[Op]) {
    let mut story = Story::new(kind);
    for op in ops {
        story.run(op);
    }
    story.finish();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_stream_with_an_index_is_a_list_whose_head_is_cut(
        kind in 0..4u8, ops in prop::collection::vec(op(), 1..80)
    ) {
        check(kind, &ops);
    }
}
