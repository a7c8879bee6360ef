//! Routing to one target by a hash: equal keys meet the same target, in shares by weight.
//!
//! The binding's key is its weight, the number of buckets that its target owns. A jump consistent
//! hash picks a bucket. A new target takes buckets that others left, then new ones at the end;
//! a leaving target leaves holes, and a hash that meets a hole is mixed and tried again. So a change
//! moves only the keys that come to the new target or come from the old one. When three quarters are
//! holes the buckets are numbered anew, which moves keys between other targets too.
//!
//! Buckets are kept as runs, so that a weight of a billion costs what a weight of one costs.
//!
//! Invariants:
//! - `runs` and `holes` together cover every bucket below `buckets_count` once;
//! - no two holes touch; `buckets_live` is the sum of the lengths of `runs`.

use std::collections::BTreeMap;
use std::hash::Hash;

use foldhash::HashMap;
use smallvec::SmallVec;

use super::stable_hash::{mix, stable_hash};
use super::{BindError, KindError, Routing};
use crate::broker::term::Binary;
use crate::broker::value::{Table, Value, ValueRef};

/// Weights above count as this, so that sums cannot overflow.
pub const WEIGHT_MAX: u64 = u32::MAX as u64;

/// Holes that a hash may meet before it takes the next run instead.
const TRIES_MAX: u64 = 64;

/// What is hashed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum HashOn {
    Key,
    Header(String),
    Property(String),
}

/// Targets by bucket.
#[derive(Debug)]
pub(super) struct ConsistentHash<T> {
    hash_on: HashOn,
    /// First bucket -> length and owner.
    runs: BTreeMap<u64, (u64, T)>,
    /// First bucket -> length.
    holes: BTreeMap<u64, u64>,
    buckets_count: u64,
    buckets_live: u64,
    /// The first buckets of each target's runs.
    owners: HashMap<T, SmallVec<[u64; 1]>>,
}

/// The weight that a binding's key says.
pub(super) fn weight(key: &[u8]) -> Result<u64, BindError> {
    let (is_negative, digits) = match key {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(BindError(format!("The binding key must be an integer: {}", Binary(key))));
    }
    let weight = digits.iter().fold(0, |sum: u64, digit| (sum * 10 + u64::from(digit - b'0')).min(WEIGHT_MAX));
    if is_negative || weight == 0 {
        return Err(BindError("The binding key must be greater than 0".to_owned()));
    }
    Ok(weight)
}

impl HashOn {
    /// What the arguments of an exchange ask to hash.
    fn parse(arguments: &Table) -> Result<Self, KindError> {
        let text = |name: &str| match arguments.get(name) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(String::from_utf8_lossy(text).into_owned())),
            Some(_) => Err(KindError::InvalidArgument(format!("Invalid argument, '{name}' must be a string"))),
        };
        let header = match text("hash-header")? {
            None => text("x-hash-on")?,
            header => header,
        };
        match (header, text("hash-property")?) {
            (None, None) => Ok(Self::Key),
            (Some(header), None) => Ok(Self::Header(header)),
            (None, Some(property)) => match property.as_str() {
                "correlation_id" | "message_id" | "timestamp" => Ok(Self::Property(property)),
                _ => Err(KindError::InvalidArgument(format!("Unsupported property: {property}"))),
            },
            (Some(_), Some(_)) => {
                Err(KindError::InvalidArgument("hash-header and hash-property are mutually exclusive".to_owned()))
            }
        }
    }

    /// Messages without the header or property all have one hash.
    fn hash(&self, routing: &Routing<'_>) -> u64 {
        match self {
            Self::Key => stable_hash(routing.key),
            Self::Header(name) => routing.headers.get(name).map_or_else(|| stable_hash(b""), hash_value),
            Self::Property(name) => {
                let value = routing.property.and_then(|property| property(name));
                stable_hash(&value.unwrap_or_default())
            }
        }
    }
}

/// Integers of all widths hash by their number: clients differ in the width they choose.
fn hash_value(value: ValueRef<'_>) -> u64 {
    match value.as_integer() {
        Some(n) => stable_hash(&n.to_be_bytes()),
        None => stable_hash(value.payload),
    }
}

impl<T: Clone + Eq + Hash> ConsistentHash<T> {
    /// Without targets. `arguments` are those of the exchange.
    pub(super) fn new(arguments: &Table) -> Result<Self, KindError> {
        Ok(Self {
            hash_on: HashOn::parse(arguments)?,
            runs: BTreeMap::new(),
            holes: BTreeMap::new(),
            buckets_count: 0,
            buckets_live: 0,
            owners: HashMap::default(),
        })
    }

    pub(super) fn hashes_key(&self) -> bool {
        self.hash_on == HashOn::Key
    }

    /// Gives a target its buckets. One that has some keeps those: its first binding counts.
    pub(super) fn add(&mut self, target: &T, weight: u64) {
        if self.owners.contains_key(target) {
            return;
        }
        self.owners.insert(target.clone(), SmallVec::new());
        let mut missing = weight;
        while missing > 0 {
            let Some((start, len)) = self.holes.pop_first() else {
                self.give(target, self.buckets_count, missing);
                self.buckets_count += missing;
                break;
            };
            let taken = len.min(missing);
            if taken < len {
                self.holes.insert(start + taken, len - taken);
            }
            self.give(target, start, taken);
            missing -= taken;
        }
    }

    /// Takes a target's buckets; `weight` is that of another of its bindings, which counts then.
    pub(super) fn remove(&mut self, target: &T, weight: Option<u64>) {
        for start in self.owners.remove(target).unwrap_or_default() {
            if let Some((len, _)) = self.runs.remove(&start) {
                self.buckets_live -= len;
                self.free(start, len);
            }
        }
        if let Some(weight) = weight {
            self.add(target, weight);
        }
        if self.buckets_live < self.buckets_count / 4 || self.buckets_live == 0 {
            self.renumber();
        }
    }

    /// The target of a message, unless there are no bindings.
    pub(super) fn route(&self, routing: &Routing<'_>) -> Option<&T> {
        if self.owners.len() < 2 {
            return self.owners.keys().next();
        }
        let mut hash = self.hash_on.hash(routing);
        let mut bucket = 0;
        for _ in 0..TRIES_MAX {
            bucket = jump(hash, self.buckets_count);
            if let Some((start, (len, target))) = self.runs.range(..=bucket).next_back()
                && bucket - start < *len
            {
                return Some(target);
            }
            hash = mix(hash.wrapping_add(0x9e37_79b9_7f4a_7c15));
        }
        let next = self.runs.range(bucket..).next().or_else(|| self.runs.iter().next());
        next.map(|(_, (_, target))| target)
    }

    fn give(&mut self, target: &T, start: u64, len: u64) {
        self.runs.insert(start, (len, target.clone()));
        self.owners.entry(target.clone()).or_default().push(start);
        self.buckets_live += len;
    }

    /// Makes a hole, one with the holes that it touches.
    fn free(&mut self, mut start: u64, mut len: u64) {
        if let Some((&before, &before_len)) = self.holes.range(..start).next_back()
            && before + before_len == start
        {
            self.holes.remove(&before);
            start = before;
            len += before_len;
        }
        if let Some(after_len) = self.holes.remove(&(start + len)) {
            len += after_len;
        }
        self.holes.insert(start, len);
    }

    /// Moves all runs together, so that no holes are left.
    fn renumber(&mut self) {
        self.holes.clear();
        self.owners.clear();
        self.buckets_count = 0;
        self.buckets_live = 0;
        for (len, target) in std::mem::take(&mut self.runs).into_values() {
            self.give(&target, self.buckets_count, len);
            self.buckets_count += len;
        }
    }
}

/// A jump consistent hash (Lamping and Veach): growing `count` moves keys to the new buckets only.
fn jump(mut key: u64, count: u64) -> u64 {
    let (mut bucket, mut next) = (0, 0);
    while next < count {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        let scale = (1_u64 << 31) as f64 / ((key >> 33) + 1) as f64;
        next = ((bucket + 1) as f64 * scale) as u64;
    }
    bucket
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::value::Headers;
    use proptest::prelude::*;

    fn of(weights: &[(u32, u64)]) -> ConsistentHash<u32> {
        let mut hash = ConsistentHash::new(&Table::new()).unwrap();
        weights.iter().for_each(|(target, weight)| hash.add(target, *weight));
        hash
    }

    fn owner(hash: &ConsistentHash<u32>, n: usize) -> u32 {
        *hash.route(&Routing::by_key(format!("key-{n}").as_bytes())).unwrap()
    }

    fn owners(hash: &ConsistentHash<u32>) -> Vec<u32> {
        (0..4000).map(|n| owner(hash, n)).collect()
    }

    fn arguments(entries: &[(&str, &str)]) -> Table {
        entries.iter().map(|(name, value)| (*name, Value::text(*value))).collect()
    }

    #[test]
    fn a_weight_is_a_positive_integer() {
        let refusal = |key: &[u8]| weight(key).unwrap_err().to_string();
        assert_eq!(weight(b"10"), Ok(10));
        assert_eq!(weight(b"+7"), Ok(7));
        assert_eq!(weight(b"99999999999999999999999999"), Ok(WEIGHT_MAX));
        assert_eq!(refusal(b"0"), "The binding key must be greater than 0");
        assert_eq!(refusal(b"-3"), "The binding key must be greater than 0");
        assert_eq!(refusal(b"abc"), "The binding key must be an integer: <<\"abc\">>");
        assert_eq!(refusal(b""), "The binding key must be an integer: <<>>");
        assert_eq!(refusal(b"1.5"), "The binding key must be an integer: <<\"1.5\">>");
    }

    #[test]
    fn only_known_arguments_are_accepted_and_only_one_source() {
        let refusal = |entries: &[(&str, &str)]| HashOn::parse(&arguments(entries)).unwrap_err().to_string();
        assert_eq!(
            refusal(&[("hash-header", "h"), ("hash-property", "message_id")]),
            "hash-header and hash-property are mutually exclusive"
        );
        assert_eq!(refusal(&[("hash-property", "app_id")]), "Unsupported property: app_id");
        assert_eq!(HashOn::parse(&arguments(&[("x-hash-on", "h")])), Ok(HashOn::Header("h".to_owned())));
    }

    #[test]
    fn shares_follow_the_weights() {
        let routed = owners(&of(&[(0, 1), (1, 2), (2, 5)]));
        for (target, share) in [(0, 500), (1, 1000), (2, 2500)] {
            let count = routed.iter().filter(|owner| **owner == target).count();
            assert!(count.abs_diff(share) < 150, "{target}: {count} of {share}");
        }
    }

    #[test]
    fn huge_weights_cost_nothing_and_share_alike() {
        let routed = owners(&of(&[(0, WEIGHT_MAX), (1, WEIGHT_MAX)]));
        assert!(routed.iter().filter(|owner| **owner == 0).count().abs_diff(2000) < 200);
    }

    #[test]
    fn a_new_target_only_takes_keys_and_a_leaving_one_only_gives_them() {
        let mut hash = of(&[(0, 3), (1, 3), (2, 3), (3, 3)]);
        let before = owners(&hash);
        hash.add(&4, 3);
        let with_new = owners(&hash);
        assert!(before.iter().zip(&with_new).all(|(old, new)| old == new || *new == 4));
        hash.remove(&1, None);
        let without = owners(&hash);
        assert!(with_new.iter().zip(&without).all(|(old, new)| old == new || *old == 1));
        assert!(!without.contains(&1));
        hash.add(&1, 3);
        assert_eq!(owners(&hash), with_new);
    }

    #[test]
    fn a_second_binding_of_a_target_counts_when_the_first_is_gone() {
        let mut hash = of(&[(0, 1), (1, 1), (0, 100)]);
        assert_eq!(hash.buckets_live, 2);
        hash.remove(&0, Some(100));
        assert_eq!(hash.buckets_live, 101);
    }

    #[test]
    fn messages_without_the_header_or_property_meet() {
        let mut hash = ConsistentHash::new(&arguments(&[("hash-header", "h")])).unwrap();
        (0..10).for_each(|target| hash.add(&target, 1));
        let target = *hash.route(&Routing::by_key(b"a")).unwrap();
        assert!((0..50).all(|n| *hash.route(&Routing::by_key(&[n])).unwrap() == target));
        let mut seen = std::collections::HashSet::new();
        for n in 0..100 {
            let mut bytes = Vec::new();
            Table::from_iter([("h", Value::I32(n))]).encode(&mut bytes);
            let routing = Routing { headers: Headers::new(&bytes), ..Routing::by_key(b"") };
            seen.insert(*hash.route(&routing).unwrap());
        }
        assert_eq!(seen.len(), 10);
    }

    #[test]
    fn a_property_is_asked_for_by_its_name() {
        let mut hash = ConsistentHash::new(&arguments(&[("hash-property", "message_id")])).unwrap();
        (0..10).for_each(|target| hash.add(&target, 1));
        let mut seen = std::collections::HashSet::new();
        for n in 0..100_u8 {
            let property = move |name: &str| (name == "message_id").then(|| vec![n]);
            seen.insert(*hash.route(&Routing { property: Some(&property), ..Routing::by_key(b"") }).unwrap());
        }
        assert_eq!(seen.len(), 10);
    }

    proptest! {
        #[test]
        fn buckets_stay_covered_once_whatever_comes_and_goes(
            history in prop::collection::vec((any::<bool>(), 0..8u32, 1..40u64), 0..200)
        ) {
            let mut hash = of(&[]);
            let mut model = std::collections::BTreeMap::new();
            for (is_add, target, weight) in history {
                if is_add {
                    hash.add(&target, weight);
                    model.entry(target).or_insert(weight);
                } else {
                    hash.remove(&target, None);
                    model.remove(&target);
                }
                let mut pieces: Vec<(u64, u64)> = hash.runs.iter().map(|(start, run)| (*start, run.0)).collect();
                pieces.extend(hash.holes.iter().map(|(start, len)| (*start, *len)));
                pieces.sort_unstable();
                let end = pieces.iter().try_fold(0, |at, (start, len)| (at == *start).then_some(start + len));
                prop_assert_eq!(end, Some(hash.buckets_count));
                prop_assert_eq!(hash.buckets_live, model.values().sum::<u64>());
                prop_assert!(hash.buckets_count <= 4 * hash.buckets_live + 3);
                let routed = hash.route(&Routing::by_key(b"k"));
                prop_assert_eq!(routed.is_none(), model.is_empty());
                prop_assert!(routed.is_none_or(|target| model.contains_key(target)));
            }
        }
    }
}
