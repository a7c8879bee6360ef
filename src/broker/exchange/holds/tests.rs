//! Messages held back beside a log and an index that a test keeps, with checkpoints in halves, pages that
//! come late, and crashes.

use proptest::prelude::*;

use super::*;

const WINDOW: Window = Window { bytes: 1_000, messages: 8 };

#[derive(Clone, Debug)]
enum Op {
    Hold {
        delay_ms: u8,
        is_recorded: bool,
        body_bytes: u8,
    },
    Advance(u8),
    /// With the first half of a checkpoint before it is recorded, perhaps.
    Release {
        max: u8,
        is_looked_at: bool,
    },
    Look,
    Commit(bool),
    Ask,
    Read,
    Answer,
    Relocate(u8),
    Crash,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (any::<u8>(), prop::bool::weighted(0.9), any::<u8>())
            .prop_map(|(delay_ms, is_recorded, body_bytes)| Op::Hold { delay_ms, is_recorded, body_bytes }),
        3 => (0..40u8).prop_map(Op::Advance),
        4 => (1..6u8, any::<bool>()).prop_map(|(max, is_looked_at)| Op::Release { max, is_looked_at }),
        3 => Just(Op::Look),
        3 => prop::bool::weighted(0.8).prop_map(Op::Commit),
        3 => Just(Op::Ask),
        3 => Just(Op::Read),
        3 => Just(Op::Answer),
        1 => any::<u8>().prop_map(Op::Relocate),
        1 => Just(Op::Crash),
    ]
}

enum Logged {
    Held(HoldEntry),
    Released(HoldKey),
}

/// What is held, and what is on the disk of it.
struct Story {
    holds: Holds<HoldKey>,
    log: Vec<Logged>,
    index: BTreeMap<HoldKey, HoldEntry>,
    covered: usize,
    boundary: usize,
    /// What a look has told, and the boundary of its checkpoint.
    told: Option<(HoldsLook, usize)>,
    asked: Option<HoldsWanted>,
    page: Option<HoldsPage<HoldKey>>,
    now: Time,
    next: u64,
    /// What is to come out, with whether a crash leaves it.
    expected: BTreeMap<HoldKey, bool>,
    /// Held since the last look.
    new: usize,
}

impl Story {
    fn new() -> Self {
        let mut holds = Holds::new();
        holds.keep_cold(false);
        Self {
            holds,
            log: Vec::new(),
            index: BTreeMap::new(),
            covered: 0,
            boundary: 0,
            told: None,
            asked: None,
            page: None,
            now: Time(1_000),
            next: 1,
            expected: BTreeMap::new(),
            new: 0,
        }
    }

    fn hold(&mut self, delay_ms: u64, is_recorded: bool, body_bytes: u64) {
        let key = HoldKey { due: self.now.after_ms(delay_ms), hold: HoldId(self.next) };
        self.next += 1;
        let mut entry = HoldEntry { key, place: Position::NONE, body_bytes };
        if is_recorded {
            entry.place = Position(self.log.len() as u64 + 1);
            self.log.push(Logged::Held(entry));
        }
        self.holds.hold(entry, key);
        self.expected.insert(key, is_recorded);
        self.new += 1;
    }

    fn release(&mut self, max: usize, is_looked_at: bool) -> usize {
        let pinned = self.log.len();
        let due = self.holds.release(self.now, max);
        for (key, is_recorded, message) in &due {
            assert_eq!(key, message);
            assert!(key.due <= self.now);
            let (first, recorded) = self.expected.pop_first().expect("nothing comes out twice");
            assert_eq!((*key, *is_recorded), (first, recorded), "in order, and none is left out");
        }
        if is_looked_at {
            self.look(pinned);
        }
        self.log.extend(due.iter().filter(|(_, is_recorded, _)| *is_recorded).map(|(key, ..)| Logged::Released(*key)));
        self.holds.released();
        due.len()
    }

    fn look(&mut self, boundary: usize) {
        if self.told.is_none() {
            self.told = Some((self.holds.look(&WINDOW).unwrap_or_default(), boundary));
            self.new = 0;
        }
    }

    fn commit(&mut self, is_committed: bool) {
        let Some((look, boundary)) = self.told.take() else { return };
        if is_committed {
            look.deletes.iter().for_each(|key| _ = self.index.remove(key));
            if let Some(head) = look.head {
                self.index = self.index.split_off(&head);
            }
            self.index.extend(look.puts.iter().map(|entry| (entry.key, *entry)));
            (self.covered, self.boundary) = (self.boundary, boundary);
        }
        // Without anything to tell nobody calls it.
        if look != HoldsLook::default() {
            let evicted = self.holds.looked(is_committed, |_| {});
            let transient = self.expected.values().filter(|is_recorded| !**is_recorded).count();
            if is_committed && self.new == 0 {
                let recorded = self.holds.resident() - transient;
                assert!(recorded <= WINDOW.messages, "{recorded} recorded messages in memory");
            }
            evicted.iter().for_each(|key| assert!(self.index.contains_key(key)));
        }
    }

    fn ask(&mut self) {
        if let Some(wanted) = self.holds.wanted() {
            assert!(self.asked.is_none() && self.page.is_none());
            self.asked = Some(wanted);
        }
    }

    fn read(&mut self) {
        let Some(wanted) = self.asked.take() else { return };
        let (mut found, mut bytes, mut next) = (Vec::new(), 0, None);
        for (&key, entry) in self.index.range(wanted.from..) {
            if found.len() >= wanted.messages_max || !found.is_empty() && bytes >= wanted.bytes_max {
                next = Some(key);
                break;
            }
            bytes += entry.body_bytes;
            found.push((*entry, key));
        }
        self.page = Some(HoldsPage { wanted, result: Ok(found), next });
    }

    fn answer(&mut self) {
        if let Some(page) = self.page.take() {
            assert_eq!(self.holds.page_in(page), None);
        }
    }

    fn relocate(&mut self, step: usize) {
        let moved = |entry: &HoldEntry| HoldEntry { place: Position(entry.place.0 + (1 << 20)), ..*entry };
        let moves: Vec<_> = self.index.values().step_by(step).map(moved).collect();
        self.holds.relocated(&moves);
    }

    fn crash(&mut self) {
        (self.told, self.asked, self.page) = (None, None, None);
        self.boundary = self.covered;
        self.holds = Holds::new();
        self.holds.keep_cold(true);
        for (at, logged) in self.log.iter().enumerate().skip(self.covered) {
            match *logged {
                Logged::Held(entry) => {
                    assert_eq!(entry.place.0, at as u64 + 1);
                    self.holds.restore(entry, entry.key);
                }
                Logged::Released(key) => self.holds.restore_released(key),
            }
        }
        self.expected.retain(|_, is_recorded| *is_recorded);
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Hold { delay_ms, is_recorded, body_bytes } => {
                self.hold(delay_ms.into(), is_recorded, body_bytes.into())
            }
            Op::Advance(ms) => self.now = self.now.after_ms(ms.into()),
            Op::Release { max, is_looked_at } => _ = self.release(max.into(), is_looked_at),
            Op::Look => self.look(self.log.len()),
            Op::Commit(is_committed) => self.commit(is_committed),
            Op::Ask => self.ask(),
            Op::Read => self.read(),
            Op::Answer => self.answer(),
            Op::Relocate(step) if self.told.is_none() => self.relocate(usize::from(step % 3) + 1),
            Op::Relocate(_) => {}
            Op::Crash => self.crash(),
        }
    }

    fn page(&mut self) {
        self.ask();
        self.read();
        self.answer();
    }

    fn checkpoint(&mut self) {
        self.commit(true);
        self.look(self.log.len());
        self.commit(true);
    }

    /// Everything becomes due and comes out.
    fn finish(&mut self) {
        self.now = Time(1 << 40);
        while self.release(5, false) > 0 || self.holds.next_due() <= self.now || self.holds.is_reading() {
            self.page();
        }
        assert!(self.expected.is_empty(), "{:?} did not come out", self.expected);
        self.checkpoint();
        self.checkpoint();
        assert!(self.index.is_empty(), "{:?} stays in the index", self.index);
        assert_eq!(self.holds.resident(), 0);
    }
}

proptest! {
    #[test]
    fn what_is_held_comes_out_once_and_in_order_whatever_is_in_memory(ops in prop::collection::vec(op(), 0..200)) {
        let mut story = Story::new();
        ops.iter().for_each(|op| story.run(op));
        story.finish();
    }
}

#[test]
fn messages_come_out_by_time_and_then_by_arrival() {
    let mut holds = Holds::new();
    for (hold, (due, name)) in (0..).zip([(30, "c"), (10, "a"), (20, "b1"), (20, "b2"), (20, "b3")]) {
        let key = HoldKey { due: Time(due), hold: HoldId(hold) };
        holds.hold(HoldEntry { key, place: Position::NONE, body_bytes: 1 }, name);
    }
    let mut release = |now, max| {
        let names: Vec<_> = holds.release(Time(now), max).into_iter().map(|(.., name)| name).collect();
        holds.released();
        names
    };
    assert_eq!(release(9, 10), [""; 0]);
    assert_eq!(release(20, 3), ["a", "b1", "b2"]);
    assert_eq!(release(20, 3), ["b3"]);
    assert_eq!(holds.next_due(), Time(30));
}

#[test]
fn memory_keeps_a_window_whatever_is_held() {
    let mut story = Story::new();
    for number in 0..10_000_u64 {
        story.hold(1 + number * 7_919 % 10_000, true, 100);
        if number % 100 == 99 {
            story.checkpoint();
            assert!(story.holds.resident() <= WINDOW.messages);
        }
    }
    while !story.expected.is_empty() {
        story.now = story.now.after_ms(1);
        while story.holds.next_due() <= story.now {
            story.release(5, false);
            story.page();
            assert!(story.holds.resident() <= 2 * WINDOW.messages);
        }
    }
}

#[test]
fn a_start_loads_a_window() {
    let mut story = Story::new();
    (0..5_000).for_each(|number| story.hold(number, true, 100));
    story.checkpoint();
    story.checkpoint();
    story.crash();
    assert_eq!(story.holds.resident(), 0);
    story.page();
    assert!((1..5_000).contains(&story.holds.resident()), "{}", story.holds.resident());
    story.now = Time(1_000);
    assert_eq!(story.release(10, false), 1, "the first is released before the others are read");
    story.finish();
}

#[test]
fn what_is_in_no_log_stays_in_memory() {
    let mut story = Story::new();
    (0..100).for_each(|number| story.hold(number, false, 100));
    story.checkpoint();
    assert_eq!(story.holds.resident(), 100);
    story.crash();
    story.finish();
}

#[test]
fn messages_that_are_due_ever_earlier_come_to_a_few_appointments() {
    let (mut holds, now) = (Holds::new(), Time(1_000_000));
    let appointments = (0..10_000_u64).filter(|number| {
        let key = HoldKey { due: now.after_ms(20_000 - number), hold: HoldId(*number) };
        holds.hold(HoldEntry { key, place: Position::NONE, body_bytes: 1 }, ());
        holds.appoint(now).is_some()
    });
    assert!(appointments.count() <= 20);
}

#[test]
fn what_cannot_be_read_holds_up_nothing_else() {
    let mut story = Story::new();
    (0..100).for_each(|number| story.hold(number, true, 100));
    story.checkpoint();
    story.hold(200, true, 100);
    let wanted = loop {
        story.now = story.now.after_ms(1);
        story.release(5, false);
        if let Some(wanted) = story.holds.wanted() {
            break wanted;
        }
    };
    let page = HoldsPage { wanted, result: Err("torn".to_owned()), next: None };
    assert_eq!(story.holds.page_in(page), Some("torn".to_owned()));
    assert_eq!(story.holds.wanted(), None);
    story.now = story.now.after_ms(1_000);
    let mut released = Vec::new();
    loop {
        let due = story.holds.release(story.now, 5);
        if due.is_empty() {
            break;
        }
        released.extend(due);
        story.holds.released();
    }
    assert_eq!(released.last().map(|(key, ..)| key.hold), Some(HoldId(101)));
}
