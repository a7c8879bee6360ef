//! Message deduplication: which keys were seen of late.
//!
//! Works as LavinMQ's does: a message whose key header is absent is never a duplicate; the window
//! holds a bounded number of keys, the oldest leaving first whether or not it was seen again; a
//! key's time runs from its first message and is not extended by duplicates.
//!
//! What is remembered is recorded as it comes. A checkpoint leaves to the index what an earlier one has seen already
//! ([`Window::look`]): most names are forgotten before. So it costs what has come since the last, however much is
//! remembered.
//!
//! Invariants:
//! - at most `keys_max` keys are remembered;
//! - `order` holds each remembered key once, and at most as many forgotten ones again.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use sha2::{Digest, Sha256};

use super::{arguments::DedupArguments, behaviour::DedupScope};
use crate::broker::{
    time::Time,
    value::{Headers, ValueRef},
};

/// Keys remembered when the declaration names no number.
pub const KEYS_DEFAULT: usize = 128;
/// Most keys that a window remembers, whatever its declaration says. Full: the oldest key leaves.
pub const KEYS_MAX: usize = 1 << 20;
/// The header by which a message names its own key's time to live.
const TTL_HEADER: &[u8] = b"x-cache-ttl";
/// Keys whose time is over that are forgotten when one comes.
const FORGOTTEN_AT_ONCE: usize = 4;
/// Longest key kept as it is; of a longer one its digest is kept.
const KEY_BYTES_MAX: usize = 64;

/// The keys seen of late.
#[derive(Debug)]
pub struct Window {
    keys_max: usize,
    ttl_ms: Option<u64>,
    header: String,
    /// Keys of different groups differ.
    is_by_group: bool,
    seen: HashMap<Arc<[u8]>, Entry, foldhash::fast::RandomState>,
    /// Keys as they came, each with the serial that says whether its entry is still this one.
    order: VecDeque<(u64, Arc<[u8]>)>,
    next_serial: u64,
    told: Told,
}

/// What the index has of a window.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    /// Keys with smaller serials, as far as they were remembered then.
    below: u64,
    /// None with smaller ones.
    from: u64,
    /// Keys with smaller serials are in records that a checkpoint may leave behind.
    ripe: u64,
    /// What it has once the last look is in it: `below` and `from`.
    given: Option<(u64, u64)>,
}

/// What the index is to know of a window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenLook {
    /// Keys that it has not.
    pub puts: Vec<Seen>,
    /// Smaller serials are forgotten.
    pub from: u64,
}

/// A key as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// Grows with every key of a window.
    pub serial: u64,
    /// Stands for the name of a message, not of more than about [`KEY_BYTES_MAX`] bytes.
    pub key: Arc<[u8]>,
    /// From when it is forgotten.
    pub deadline: Time,
    /// The message that had it first, where that is in a queue; else 0.
    pub seq: u64,
}

/// What a window says to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed {
    /// It repeats an earlier one, which came under that seq.
    Duplicate(u64),
    /// It is remembered from now on.
    New(Seen),
    /// It has no name, or nothing is remembered.
    Unnamed,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    serial: u64,
    deadline: Time,
    seq: u64,
}

impl Window {
    /// An empty window as the arguments ask for it.
    pub fn new(arguments: &DedupArguments) -> Self {
        let asked = arguments.cache_size.map_or(KEYS_DEFAULT, |size| usize::try_from(size).unwrap_or(KEYS_MAX));
        Self {
            keys_max: asked.min(KEYS_MAX),
            ttl_ms: arguments.cache_ttl_ms,
            header: arguments.header.clone(),
            is_by_group: arguments.scope == DedupScope::Group,
            seen: HashMap::default(),
            order: VecDeque::new(),
            next_serial: 0,
            told: Told::default(),
        }
    }

    /// The same instead of another one, whose serials are not used again.
    #[must_use]
    pub fn after(mut self, next_serial: u64) -> Self {
        self.next_serial = next_serial;
        (self.told.below, self.told.ripe) = (next_serial, next_serial);
        self
    }

    /// Larger than the serial of every key that was remembered.
    pub fn next_serial(&self) -> u64 {
        self.next_serial
    }

    /// First half of a checkpoint: what the index has to know. `None`: nothing, and [`Self::looked`] need not be
    /// called. What came since the look before is not told: its records are kept.
    pub fn look(&mut self) -> Option<SeenLook> {
        self.told.given = None;
        let until = std::mem::replace(&mut self.told.ripe, self.next_serial);
        let is_live = |(serial, key): &(u64, Arc<[u8]>)| {
            self.seen.get(key).filter(|entry| entry.serial == *serial).map(|entry| Seen {
                serial: *serial,
                key: key.clone(),
                deadline: entry.deadline,
                seq: entry.seq,
            })
        };
        let from = self.order.iter().find(|place| is_live(place).is_some()).map_or(until, |(serial, _)| *serial);
        let from = from.min(until);
        let start = self.order.partition_point(|(serial, _)| *serial < self.told.below);
        let new = self.order.range(start..).take_while(|(serial, _)| *serial < until);
        let puts: Vec<Seen> = new.filter_map(is_live).collect();
        if puts.is_empty() && from <= self.told.from {
            return None;
        }
        self.told.given = Some((until.max(self.told.below), from));
        Some(SeenLook { puts, from })
    }

    /// Second half: what the last look told is in the index, or was not written.
    pub fn looked(&mut self, is_committed: bool) {
        if let Some((below, from)) = self.told.given.take()
            && is_committed
        {
            (self.told.below, self.told.from) = (below, from);
        }
    }

    /// Remembers again what the index has.
    pub fn restore_told(&mut self, seen: Seen) {
        self.told.below = self.told.below.max(seen.serial + 1);
        self.restore(seen);
    }

    /// Whether a message with these headers repeats an earlier one. If it does not, its key is
    /// remembered from now on, under that seq. `group` is the one that the message belongs to.
    pub fn observe(&mut self, headers: Headers<'_>, group: Option<&[u8]>, seq: u64, now: Time) -> Observed {
        if headers.is_empty() {
            return Observed::Unnamed;
        }
        let Some(key) = headers.get(&self.header) else { return Observed::Unnamed };
        let own_ttl = headers.iter().find(|(name, _)| *name == TTL_HEADER).and_then(|(_, value)| value.as_integer());
        let ttl_ms = own_ttl.and_then(|ttl| u64::try_from(ttl).ok()).or(self.ttl_ms);
        let key = key_bytes(key);
        match group.filter(|_| self.is_by_group) {
            // What was named before names were kept apart by groups repeats in all of them.
            Some(_) if let Some(first) = self.first_of(&key, now) => Observed::Duplicate(first),
            Some(group) => self.observe_key(&key_in_group(group, &key), seq, now, ttl_ms),
            None => self.observe_key(&key, seq, now, ttl_ms),
        }
    }

    /// The message that had that key first, as long as it is remembered.
    fn first_of(&self, key: &[u8], now: Time) -> Option<u64> {
        self.seen.get(key).filter(|entry| now < entry.deadline).map(|entry| entry.seq)
    }

    /// Whether `key` is remembered. If it is not, it is remembered from now on, for `ttl_ms`.
    pub fn observe_key(&mut self, key: &[u8], seq: u64, now: Time, ttl_ms: Option<u64>) -> Observed {
        if let Some(entry) = self.seen.get(key) {
            if now < entry.deadline {
                return Observed::Duplicate(entry.seq);
            }
            self.seen.remove(key);
        }
        if self.keys_max == 0 {
            return Observed::Unnamed;
        }
        self.forget_over(now);
        let deadline = ttl_ms.map_or(Time::NEVER, |ttl| now.after_ms(ttl));
        let seen = Seen { serial: self.next_serial, key: key.into(), deadline, seq };
        self.remember(&seen);
        Observed::New(seen)
    }

    /// Takes what changed arguments ask for, and goes on remembering what it does, unless they ask for something else
    /// altogether. Returns whether it has.
    pub fn adopt(&mut self, arguments: &DedupArguments) -> bool {
        let same = Self::new(arguments);
        let is_alike = same.keys_max == self.keys_max && same.header == self.header;
        if is_alike {
            (self.ttl_ms, self.is_by_group) = (same.ttl_ms, same.is_by_group);
        }
        is_alike
    }

    /// Whether it asks for the group of a message.
    pub fn is_by_group(&self) -> bool {
        self.is_by_group
    }

    fn remember(&mut self, seen: &Seen) {
        while self.seen.len() >= self.keys_max {
            self.forget_oldest();
        }
        self.next_serial = self.next_serial.max(seen.serial + 1);
        // Records of an exchange may change places; they come back in their order.
        let at = self.order.partition_point(|(serial, _)| *serial < seen.serial);
        self.order.insert(at, (seen.serial, seen.key.clone()));
        let Seen { serial, deadline, seq, .. } = *seen;
        self.seen.insert(seen.key.clone(), Entry { serial, deadline, seq });
        self.drop_stale_order();
    }

    /// Remembers again what a log says was remembered.
    pub fn restore(&mut self, seen: Seen) {
        // It may come from a record that is not kept much longer.
        self.told.ripe = self.told.ripe.max(seen.serial + 1);
        if self.keys_max == 0 || self.seen.get(&seen.key).is_some_and(|entry| entry.serial >= seen.serial) {
            return;
        }
        self.seen.remove(&seen.key);
        self.remember(&seen);
    }

    /// What is remembered, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Seen> {
        self.order.iter().filter_map(|(serial, key)| {
            let entry = self.seen.get(key).filter(|entry| entry.serial == *serial)?;
            Some(Seen { serial: *serial, key: key.clone(), deadline: entry.deadline, seq: entry.seq })
        })
    }

    /// Number of keys remembered, those included whose time is over and that nobody asked for.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// True when no key is remembered.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Forgets every key, as a purge does not but a deletion does.
    pub fn clear(&mut self) {
        self.seen.clear();
        self.order.clear();
    }

    /// Forgets some of the oldest whose time is over: more than come, so that none pile up.
    fn forget_over(&mut self, now: Time) {
        for _ in 0..FORGOTTEN_AT_ONCE {
            let Some((serial, key)) = self.order.front() else { return };
            let is_live = |entry: &Entry| entry.serial == *serial && now < entry.deadline;
            if self.seen.get(key).is_some_and(is_live) {
                return;
            }
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((serial, key)) = self.order.pop_front() else {
            // Not reached: every remembered key stands in `order`. Emptying both keeps the bound.
            self.seen.clear();
            return;
        };
        if self.seen.get(&key).is_some_and(|entry| entry.serial == serial) {
            self.seen.remove(&key);
        }
    }

    /// A key that came again after its time leaves its earlier place in `order` behind; once these
    /// are half of it they are swept, so that the sweep costs each key a constant.
    fn drop_stale_order(&mut self) {
        if self.order.len() > 2 * self.seen.len() + 16 {
            let seen = &self.seen;
            self.order.retain(|(serial, key)| seen.get(key).is_some_and(|entry| entry.serial == *serial));
        }
    }
}

/// The bytes that stand for a key: kind and payload, integers of any width alike, of a long key
/// its digest.
fn key_bytes(key: ValueRef<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 + key.payload.len().min(KEY_BYTES_MAX));
    if let Some(number) = key.as_integer() {
        bytes.push(b'l');
        bytes.extend(number.to_be_bytes());
    } else if key.payload.len() <= KEY_BYTES_MAX {
        bytes.push(key.kind);
        bytes.extend_from_slice(key.payload);
    } else {
        // Zero is no kind, so a digest never meets a key kept as it is.
        bytes.extend([0, key.kind]);
        bytes.extend_from_slice(Sha256::digest(key.payload).as_slice());
    }
    bytes
}

/// What stands for a key among the messages of a group. One is no kind of a key, so it meets no other.
fn key_in_group(group: &[u8], key: &[u8]) -> Vec<u8> {
    let mut digest = Sha256::new();
    digest.update((group.len() as u64).to_le_bytes());
    digest.update(group);
    digest.update(key);
    let mut bytes = vec![1];
    bytes.extend_from_slice(digest.finalize().as_slice());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::value::{HeadersBuilder, Value};

    fn window(size: u64, ttl_ms: Option<u64>) -> Window {
        Window::new(&DedupArguments {
            cache_size: Some(size),
            cache_ttl_ms: ttl_ms,
            header: "x-deduplication-header".into(),
            scope: DedupScope::Queue,
        })
    }

    fn is_duplicate(window: &mut Window, key: &[u8], now: Time, ttl_ms: Option<u64>) -> bool {
        matches!(window.observe_key(key, 7, now, ttl_ms), Observed::Duplicate(7))
    }

    fn headers(entries: &[(&str, Value)]) -> Vec<u8> {
        let mut builder = HeadersBuilder::new();
        for (name, value) in entries {
            builder.push(name, value);
        }
        builder.finish()
    }

    fn repeats(window: &mut Window, entries: &[(&str, Value)], now: u64) -> bool {
        matches!(window.observe(Headers::new(&headers(entries)), None, 7, Time(now)), Observed::Duplicate(7))
    }

    #[test]
    fn the_second_of_a_key_is_a_duplicate() {
        let mut window = window(10, None);
        let key = [("x-deduplication-header", Value::text("a"))];
        assert!(!repeats(&mut window, &key, 1));
        assert!(repeats(&mut window, &key, 1_000_000));
        assert!(!repeats(&mut window, &[("x-deduplication-header", Value::text("b"))], 2));
    }

    fn told(window: &mut Window) -> Option<(Vec<u64>, u64)> {
        window.look().map(|look| (look.puts.iter().map(|seen| seen.serial).collect(), look.from))
    }

    #[test]
    fn the_index_is_told_once_what_outlives_a_checkpoint() {
        let mut window = window(4, Some(100));
        let new = |window: &mut Window, key: u8, now| assert!(!is_duplicate(window, &[key], Time(now), Some(100)));
        (0..3).for_each(|key| new(&mut window, key, 0));
        assert_eq!(told(&mut window), None, "their records are kept");
        new(&mut window, 3, 0);
        assert_eq!(told(&mut window), Some((vec![0, 1, 2], 0)));
        window.looked(false);
        assert_eq!(told(&mut window), Some((vec![0, 1, 2, 3], 0)));
        window.looked(true);
        assert_eq!(told(&mut window), None);
        // The oldest leave.
        new(&mut window, 4, 50);
        new(&mut window, 5, 50);
        assert_eq!(told(&mut window), Some((vec![], 2)));
        window.looked(true);
        assert_eq!(told(&mut window), Some((vec![4, 5], 2)));
        window.looked(true);
        assert_eq!(told(&mut window), None);
    }

    #[test]
    fn what_the_index_has_is_not_told_again_after_a_restart() {
        let mut before = window(10, None);
        (0..5_u8).for_each(|key| _ = is_duplicate(&mut before, &[key], Time(0), None));
        let all: Vec<Seen> = before.iter().collect();
        let mut after = window(10, None);
        all[..3].iter().for_each(|seen| after.restore_told(seen.clone()));
        // The log has some of them, too.
        all[2..].iter().for_each(|seen| after.restore(seen.clone()));
        assert_eq!(after.iter().collect::<Vec<_>>(), all);
        assert_eq!(told(&mut after), Some((vec![3, 4], 0)));
        let mut other = window(3, None).after(after.next_serial());
        assert!(!is_duplicate(&mut other, &[1], Time(0), None));
        assert_eq!(told(&mut other), Some((vec![], 5)), "of the one before nothing is left");
    }

    #[test]
    fn a_message_without_the_header_is_never_a_duplicate() {
        let mut window = window(10, None);
        for _ in 0..2 {
            assert!(!repeats(&mut window, &[], 1));
            assert!(!repeats(&mut window, &[("other", Value::text("a"))], 1));
        }
        assert!(window.is_empty());
    }

    #[test]
    fn a_key_is_forgotten_when_its_time_is_over() {
        let mut window = window(10, Some(100));
        let key = [("x-deduplication-header", Value::text("a"))];
        assert!(!repeats(&mut window, &key, 0));
        assert!(repeats(&mut window, &key, 99), "a duplicate does not extend the time");
        assert!(!repeats(&mut window, &key, 100));
        assert!(repeats(&mut window, &key, 199));
    }

    #[test]
    fn a_message_may_name_its_own_time() {
        let mut window = window(10, Some(100));
        let key = [("x-deduplication-header", Value::text("a")), ("x-cache-ttl", Value::I32(500))];
        assert!(!repeats(&mut window, &key, 0));
        assert!(repeats(&mut window, &key, 499));
        assert!(!repeats(&mut window, &key, 500));
    }

    #[test]
    fn a_changed_scope_goes_on_remembering() {
        let by = |scope| DedupArguments {
            cache_size: Some(10),
            cache_ttl_ms: Some(100),
            header: "x-deduplication-header".into(),
            scope,
        };
        let mut window = Window::new(&by(DedupScope::Queue));
        let encoded = headers(&[("x-deduplication-header", Value::text("a"))]);
        let is_repeated = |window: &mut Window, group: &[u8]| {
            let observed = window.observe(Headers::new(&encoded), Some(group), 7, Time(0));
            matches!(observed, Observed::Duplicate(_))
        };
        assert!(!is_repeated(&mut window, b"g"));
        assert!(window.adopt(&by(DedupScope::Group)));
        assert!(is_repeated(&mut window, b"g") && is_repeated(&mut window, b"h"));
        let mut window = Window::new(&by(DedupScope::Group));
        assert!(!is_repeated(&mut window, b"g") && !is_repeated(&mut window, b"h"));
        assert!(window.adopt(&by(DedupScope::Queue)));
        assert!(!is_repeated(&mut window, b"g"), "what was named in a group was named there only");
        assert!(!window.adopt(&DedupArguments { header: "other".into(), ..by(DedupScope::Queue) }));
    }

    #[test]
    fn the_oldest_key_leaves_a_full_window() {
        let mut window = window(2, None);
        for key in [b"a", b"b"] {
            assert!(!is_duplicate(&mut window, key, Time(0), None));
        }
        assert!(is_duplicate(&mut window, b"a", Time(0), None), "being seen again does not keep it");
        assert!(!is_duplicate(&mut window, b"c", Time(0), None));
        assert_eq!(window.len(), 2);
        assert!(is_duplicate(&mut window, b"b", Time(0), None));
        assert!(!is_duplicate(&mut window, b"a", Time(0), None));
    }

    #[test]
    fn a_window_of_no_keys_remembers_none() {
        let mut window = window(0, None);
        assert!(!is_duplicate(&mut window, b"a", Time(0), None));
        assert!(!is_duplicate(&mut window, b"a", Time(0), None));
    }

    #[test]
    fn keys_that_return_after_their_time_do_not_pile_up() {
        let mut window = window(1000, Some(1));
        for now in 0..10_000 {
            assert!(!is_duplicate(&mut window, b"a", Time(2 * now), Some(1)));
        }
        assert_eq!(window.len(), 1);
        assert!(window.order.len() <= 2 + 16);
    }

    #[test]
    fn a_returned_key_leaves_by_its_second_place() {
        let mut window = window(2, None);
        is_duplicate(&mut window, b"a", Time(0), Some(1));
        is_duplicate(&mut window, b"b", Time(0), None);
        assert!(!is_duplicate(&mut window, b"a", Time(5), None));
        assert!(!is_duplicate(&mut window, b"c", Time(5), None));
        assert!(is_duplicate(&mut window, b"a", Time(5), None), "b was the oldest");
    }

    #[test]
    fn numbers_are_keys_whatever_their_width_and_long_keys_are_digested() {
        let mut window = window(10, None);
        assert!(!repeats(&mut window, &[("x-deduplication-header", Value::I16(7))], 0));
        assert!(repeats(&mut window, &[("x-deduplication-header", Value::I64(7))], 0));
        let long = Value::text("x".repeat(10_000));
        assert!(!repeats(&mut window, &[("x-deduplication-header", long.clone())], 0));
        assert!(repeats(&mut window, &[("x-deduplication-header", long)], 0));
        assert!(window.seen.keys().all(|key| key.len() <= KEY_BYTES_MAX + 2));
    }

    #[test]
    fn names_are_looked_for_among_all_messages_or_those_of_one_group() {
        let name = headers(&[("x-deduplication-header", Value::text("a"))]);
        let observe = |window: &mut Window, group: &str, seq| {
            window.observe(Headers::new(&name), Some(group.as_bytes()), seq, Time(0))
        };
        let mut of_queue = window(10, None);
        assert!(matches!(observe(&mut of_queue, "one", 1), Observed::New(_)));
        assert_eq!(observe(&mut of_queue, "two", 2), Observed::Duplicate(1));
        let mut by_group = Window { is_by_group: true, ..window(10, None) };
        assert!(matches!(observe(&mut by_group, "one", 1), Observed::New(_)));
        assert!(matches!(observe(&mut by_group, "two", 2), Observed::New(_)));
        assert_eq!(observe(&mut by_group, "two", 3), Observed::Duplicate(2));
    }

    #[test]
    fn keys_whose_time_is_over_do_not_pile_up() {
        let mut window = window(1_000_000, Some(100));
        for now in 0..10_000_u64 {
            assert!(!is_duplicate(&mut window, &now.to_le_bytes(), Time(now), Some(100)));
        }
        assert!(window.len() <= 101, "{}", window.len());
    }

    #[test]
    fn restored_keys_are_known_for_as_long_as_before_and_leave_in_their_order() {
        let mut before = window(2, Some(100));
        for (now, key) in [(0, b"a"), (1, b"b"), (2, b"c")] {
            before.observe_key(key, 7, Time(now), Some(100));
        }
        let mut kept: Vec<_> = before.iter().collect();
        kept.reverse();
        let mut after = window(2, Some(100));
        kept.into_iter().for_each(|seen| after.restore(seen));
        assert!(after.iter().eq(before.iter()));
        assert!(is_duplicate(&mut after, b"b", Time(100), None));
        assert!(!is_duplicate(&mut after, b"b", Time(101), None));
        assert!(is_duplicate(&mut after, b"b", Time(150), None));
        assert!(!is_duplicate(&mut after, b"d", Time(101), None));
        assert!(!is_duplicate(&mut after, b"c", Time(101), None), "c was the oldest");
    }
}
