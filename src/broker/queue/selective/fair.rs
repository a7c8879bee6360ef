//! The order in which messages are given out where groups share a queue: that of the group of which the fewest are in
//! flight comes first, so that a group with a long backlog, or one whose messages take long, does not hold up others.
//!
//! Nobody owns a group here, and groups have no order of their own. A message without a group is one that nothing is
//! in flight of. Every [`OLDEST_EVERY`]th message is the oldest, whoever's it is: many quiet groups together cannot hold
//! up one busy group for good.
//!
//! Knows the messages that it was told of ([`Fair::wait`]). They may have gone since: whoever asks looks, and says so
//! ([`Fair::forget`]). What is kept is bounded by what is in memory of the queue.
//!
//! Invariants:
//! - a group is known while something of it waits or is in flight;
//! - a group of which something waits is in `order` and in `oldest` once, by what is said of it in `groups`.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{Key, groups::Name};

/// See the module's text.
#[derive(Default)]
pub(super) struct Fair {
    groups: HashMap<Name, Group, foldhash::fast::RandomState>,
    /// By priority, number in flight and place of the first message that waits.
    order: BTreeSet<(u8, u32, Key, Name)>,
    /// By the place of the first message that waits.
    oldest: BTreeSet<(Key, Name)>,
    /// Messages without a group.
    alone: BTreeSet<Key>,
    /// Messages given out.
    given: u64,
}

#[derive(Default)]
struct Group {
    in_flight: u32,
    waiting: BTreeSet<Key>,
}

/// Which message is the oldest whoever's it is.
const OLDEST_EVERY: u64 = 8;
/// Messages of each group that stay in memory where the rest of the queue is on disk, and those of all. More: of some
/// groups nothing is found before the head of the queue has come to it.
const KEPT_OF_GROUP: usize = 10;
const KEPT_MAX: usize = 4_096;

impl Fair {
    /// Nothing waits and nothing is in flight.
    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.alone.is_empty()
    }

    /// A message may be given out.
    pub(super) fn wait(&mut self, group: Option<&[u8]>, key: Key) {
        match group {
            None => _ = self.alone.insert(key),
            Some(name) => self.change(name, |group| _ = group.waiting.insert(key)),
        }
    }

    /// A message has gone.
    pub(super) fn forget(&mut self, group: Option<&[u8]>, key: Key) {
        match group {
            None => _ = self.alone.remove(&key),
            Some(name) => self.change(name, |group| _ = group.waiting.remove(&key)),
        }
    }

    /// The message to give out next, with its group.
    pub(super) fn next(&self) -> Option<(Key, Option<Name>)> {
        let alone = self.alone.first().copied();
        let is_for_oldest = self.given % OLDEST_EVERY == OLDEST_EVERY - 1;
        let of_group = match is_for_oldest {
            true => self.oldest.first().map(|(key, name)| ((0, 0, *key), name)),
            false => self.order.first().map(|(rank, in_flight, key, name)| ((*rank, *in_flight, *key), name)),
        };
        let alone_at = alone.map(|key| if is_for_oldest { (0, 0, key) } else { (key.rank, 0, key) });
        match (alone_at, of_group) {
            (Some(alone), Some((grouped, _))) if alone < grouped => Some((alone.2, None)),
            (_, Some((grouped, name))) => Some((grouped.2, Some(name.clone()))),
            (Some(alone), None) => Some((alone.2, None)),
            (None, None) => None,
        }
    }

    /// A message was given out; `is_held` until it is settled.
    pub(super) fn give(&mut self, group: Option<&[u8]>, key: Key, is_held: bool) {
        self.given += 1;
        match group {
            None => _ = self.alone.remove(&key),
            Some(name) => self.change(name, |group| {
                group.waiting.remove(&key);
                group.in_flight += u32::from(is_held);
            }),
        }
    }

    /// One more message of a group is in flight, from before.
    pub(super) fn hold(&mut self, name: &[u8]) {
        self.change(name, |group| group.in_flight += 1);
    }

    /// A message of a group is in flight no more.
    pub(super) fn settle(&mut self, name: &[u8]) {
        if self.groups.contains_key(name) {
            self.change(name, |group| group.in_flight = group.in_flight.saturating_sub(1));
        }
    }

    /// Forgets what has gone.
    pub(super) fn prune(&mut self, is_here: impl Fn(&Key) -> bool) {
        self.alone.retain(&is_here);
        self.groups.retain(|_, group| {
            group.waiting.retain(&is_here);
            group.in_flight > 0 || !group.waiting.is_empty()
        });
        let places = self.groups.iter().filter_map(|(name, group)| group.place(name));
        self.order = places.collect();
        self.oldest = self.order.iter().map(|(.., key, name)| (*key, name.clone())).collect();
    }

    /// Messages that are to stay in memory, by their seqs: the first of each group, so that one is found behind a
    /// backlog that is on disk.
    pub(super) fn kept(&self) -> HashSet<u64, foldhash::fast::RandomState> {
        let firsts = self.groups.values().flat_map(|group| group.waiting.iter().take(KEPT_OF_GROUP));
        firsts.take(KEPT_MAX).map(|key| key.seq).collect()
    }

    fn change(&mut self, name: &[u8], change: impl FnOnce(&mut Group)) {
        let (name, mut group) = match self.groups.remove_entry(name) {
            Some(known) => known,
            None => (Name::from(name), Group::default()),
        };
        let before = group.place(&name);
        change(&mut group);
        let after = group.place(&name);
        if before != after {
            if let Some(before) = before {
                self.oldest.remove(&(before.2, name.clone()));
                self.order.remove(&before);
            }
            if let Some(after) = after {
                self.oldest.insert((after.2, name.clone()));
                self.order.insert(after);
            }
        }
        if group.in_flight > 0 || !group.waiting.is_empty() {
            self.groups.insert(name, group);
        }
    }
}

impl Group {
    fn place(&self, name: &Name) -> Option<(u8, u32, Key, Name)> {
        self.waiting.first().map(|key| (key.rank, self.in_flight, *key, name.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seq: u64) -> Key {
        Key::new(0, seq)
    }

    /// Gives the next one out, and says its seq.
    fn give(fair: &mut Fair) -> u64 {
        let (key, group) = fair.next().unwrap();
        fair.give(group.as_deref(), key, true);
        key.seq
    }

    #[test]
    fn a_quiet_group_comes_before_the_backlog_of_a_busy_one() {
        let mut fair = Fair::default();
        (0..100).for_each(|seq| fair.wait(Some(b"busy"), key(seq)));
        assert_eq!([0; 3].map(|_| give(&mut fair)), [0, 1, 2]);
        fair.wait(Some(b"quiet"), key(100));
        fair.wait(None, key(101));
        assert_eq!([0; 3].map(|_| give(&mut fair)), [100, 101, 3]);
        fair.wait(Some(b"quiet"), key(102));
        assert_eq!(give(&mut fair), 102, "one is in flight of it, and four of the other");
    }

    #[test]
    fn what_is_settled_is_in_flight_no_more() {
        let mut fair = Fair::default();
        (0..4).for_each(|seq| fair.wait(Some(b"a"), key(seq)));
        (4..6).for_each(|seq| fair.wait(Some(b"b"), key(seq)));
        assert_eq!([0; 3].map(|_| give(&mut fair)), [0, 4, 1]);
        fair.settle(b"a");
        fair.settle(b"a");
        assert_eq!(give(&mut fair), 2);
        [b"a", b"b"].iter().for_each(|name| fair.settle(*name));
        assert_eq!([0; 2].map(|_| give(&mut fair)), [3, 5]);
        [b"a", b"b"].iter().for_each(|name| fair.settle(*name));
        assert!(fair.is_empty() && fair.next().is_none());
    }

    #[test]
    fn a_busy_group_gets_its_share_of_many_quiet_ones() {
        let mut fair = Fair::default();
        (0..10).for_each(|seq| fair.wait(Some(b"busy"), key(seq)));
        let first = give(&mut fair);
        let mut busy = 0;
        for seq in 10..90 {
            fair.wait(Some(format!("quiet {seq}").as_bytes()), key(seq));
            busy += u32::from(give(&mut fair) < 10);
        }
        assert_eq!((first, busy), (0, 9), "the rest of its ten, each as the eighth");
    }

    #[test]
    fn a_higher_priority_comes_before_fairness() {
        let mut fair = Fair::default();
        fair.wait(Some(b"a"), Key::new(5, 9));
        fair.hold(b"a");
        fair.wait(Some(b"b"), key(1));
        assert_eq!((give(&mut fair), give(&mut fair)), (9, 1));
    }

    #[test]
    fn what_has_gone_is_forgotten() {
        let mut fair = Fair::default();
        for seq in 0..20 {
            fair.wait(Some(&[seq as u8 % 3]), key(seq));
            fair.wait(None, key(100 + seq));
        }
        fair.forget(Some(&[0]), key(0));
        fair.prune(|key| key.seq == 4);
        assert_eq!(fair.next(), Some((key(4), Some(Name::from(&[1][..])))));
        fair.forget(Some(&[1]), key(4));
        assert!(fair.is_empty() && fair.order.is_empty() && fair.oldest.is_empty());
    }
}
