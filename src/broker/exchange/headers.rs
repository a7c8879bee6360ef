//! Routing by message headers: `x-match` all (the default) or any of the binding's arguments.
//!
//! A binding requires headers: its arguments without `x-match` and, unless it says `all-with-x` or
//! `any-with-x`, without every other name that begins with `x-`. A required void asks only that
//! the header is there; other values compare as RabbitMQ compares them: numbers by value, whatever
//! their kinds, text like bytes, and what is nested kind by kind. Names that occur several times
//! are paired in their order.
//!
//! Bindings with the same requirements form a group, which is matched once. A group is found
//! through one of its requirements (all) or through each (any), so a message costs a lookup per
//! header and a comparison per group found, however many other bindings there are.

use std::hash::{BuildHasher, Hash, Hasher};

use foldhash::HashMap;
use foldhash::fast::RandomState;
use smallvec::SmallVec;

use super::BindError;
use super::target_set::TargetSet;
use crate::broker::term::Term;
use crate::broker::value::{Headers, HeadersBuilder, Table, Value, ValueRef};

type GroupId = u32;
type Posting = HashMap<u64, SmallVec<[GroupId; 2]>>;

/// Which of the required headers must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Match {
    All,
    Any,
}

/// Groups of bindings, found by what they require.
#[derive(Debug)]
pub(super) struct ByHeaders<T> {
    groups: Vec<Group<T>>,
    groups_free: Vec<GroupId>,
    by_requirements: HashMap<(Match, Box<[u8]>), GroupId>,
    /// By a required name and value.
    by_pair: Posting,
    /// By a required name, for requirements of mere presence.
    by_name: Posting,
    /// The group that requires nothing of any message.
    unconditional: Option<GroupId>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Group<T> {
    how: Match,
    /// Encoded, ordered by name.
    requirements: Box<[u8]>,
    anchors: SmallVec<[Anchor; 1]>,
    targets: TargetSet<T>,
}

/// Where a group is posted.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Anchor {
    Pair(u64),
    Name(u64),
}

impl<T> Default for ByHeaders<T> {
    fn default() -> Self {
        Self {
            groups: Vec::new(),
            groups_free: Vec::new(),
            by_requirements: HashMap::default(),
            by_pair: HashMap::default(),
            by_name: HashMap::default(),
            unconditional: None,
            hasher: RandomState::default(),
        }
    }
}

/// Refuses arguments whose `x-match` is not one of the four.
pub(super) fn check(arguments: &Table) -> Result<(), BindError> {
    parse(arguments).map(|_| ())
}

fn parse(arguments: &Table) -> Result<(Match, bool), BindError> {
    match arguments.get("x-match") {
        None => Ok((Match::All, false)),
        Some(value @ Value::Text(how)) => match how.as_slice() {
            b"all" => Ok((Match::All, false)),
            b"any" => Ok((Match::Any, false)),
            b"all-with-x" => Ok((Match::All, true)),
            b"any-with-x" => Ok((Match::Any, true)),
            _ => Err(BindError(format!(
                "Invalid x-match field value {}; expected all, any, all-with-x, or any-with-x",
                Term(value)
            ))),
        },
        Some(value) => Err(BindError(format!(
            "Invalid x-match field type {} (value {}); expected longstr",
            value.kind_name(),
            Term(value)
        ))),
    }
}

/// What a binding with these arguments (ordered by name) requires, encoded.
fn requirements(arguments: &Table) -> (Match, Box<[u8]>) {
    let (how, with_x) = parse(arguments).unwrap_or((Match::All, false));
    let mut required = HeadersBuilder::new();
    for (name, value) in arguments.iter() {
        if name != "x-match" && (with_x || !name.starts_with("x-")) {
            required.push(name, value);
        }
    }
    (how, required.finish().into())
}

impl<T: Clone + Eq + Hash> ByHeaders<T> {
    /// Adds a binding whose arguments were checked and are ordered by name.
    pub(super) fn add(&mut self, target: &T, arguments: &Table) {
        let identity = requirements(arguments);
        let id = match self.by_requirements.get(&identity) {
            Some(&id) => id,
            None => self.add_group(identity),
        };
        self.groups[id as usize].targets.add(target);
    }

    /// Takes back one [`ByHeaders::add`] of the same target and arguments.
    pub(super) fn remove(&mut self, target: &T, arguments: &Table) {
        let identity = requirements(arguments);
        let Some(&id) = self.by_requirements.get(&identity) else { return };
        let group = &mut self.groups[id as usize];
        group.targets.remove(target);
        if group.targets.is_empty() {
            self.by_requirements.remove(&identity);
            self.remove_group(id);
        }
    }

    /// Appends the targets of all matching bindings; a target of several of them several times.
    pub(super) fn route(&self, headers: Headers<'_>, out: &mut Vec<T>) {
        if let Some(id) = self.unconditional {
            self.groups[id as usize].targets.append_to(out);
        }
        if self.by_pair.is_empty() && self.by_name.is_empty() {
            return;
        }
        let mut entries: SmallVec<[(&[u8], ValueRef<'_>); 16]> = headers.iter().collect();
        entries.sort_by(|a, b| a.0.cmp(b.0));
        let mut found: SmallVec<[GroupId; 32]> = SmallVec::new();
        for (name, value) in &entries {
            if !self.by_pair.is_empty()
                && let Some(ids) = self.by_pair.get(&self.hash_pair(name, *value))
            {
                found.extend_from_slice(ids);
            }
            if !self.by_name.is_empty()
                && let Some(ids) = self.by_name.get(&self.hash_name(name))
            {
                found.extend_from_slice(ids);
            }
        }
        if found.len() > 1 {
            found.sort_unstable();
            found.dedup();
        }
        for id in found {
            let group = &self.groups[id as usize];
            if matches(group.how, Headers::new(&group.requirements), &entries) {
                group.targets.append_to(out);
            }
        }
    }

    fn add_group(&mut self, identity: (Match, Box<[u8]>)) -> GroupId {
        let (how, requirements) = identity.clone();
        let id = self.groups_free.pop().unwrap_or(self.groups.len() as GroupId);
        let required: Vec<Anchor> = Headers::new(&requirements)
            .iter()
            .map(|(name, value)| match value.kind {
                b'V' => Anchor::Name(self.hash_name(name)),
                _ => Anchor::Pair(self.hash_pair(name, value)),
            })
            .collect();
        let mut anchors: SmallVec<[Anchor; 1]> = SmallVec::new();
        match how {
            // Any one will do, so the one that the fewest groups share; a value tells more than a name.
            Match::All => anchors.extend(required.into_iter().min_by_key(|anchor| match anchor {
                Anchor::Pair(hash) => (0, self.by_pair.get(hash).map_or(0, |ids| ids.len())),
                Anchor::Name(hash) => (1, self.by_name.get(hash).map_or(0, |ids| ids.len())),
            })),
            Match::Any => {
                for anchor in required {
                    if !anchors.contains(&anchor) {
                        anchors.push(anchor);
                    }
                }
            }
        }
        for anchor in &anchors {
            match anchor {
                Anchor::Pair(hash) => self.by_pair.entry(*hash).or_default().push(id),
                Anchor::Name(hash) => self.by_name.entry(*hash).or_default().push(id),
            }
        }
        if how == Match::All && anchors.is_empty() {
            self.unconditional = Some(id);
        }
        let group = Group { how, requirements, anchors, targets: TargetSet::default() };
        match self.groups.get_mut(id as usize) {
            Some(free) => *free = group,
            None => self.groups.push(group),
        }
        self.by_requirements.insert(identity, id);
        id
    }

    fn remove_group(&mut self, id: GroupId) {
        let group = &mut self.groups[id as usize];
        group.requirements = Box::default();
        group.targets = TargetSet::default();
        for anchor in std::mem::take(&mut group.anchors) {
            let (posting, hash) = match anchor {
                Anchor::Pair(hash) => (&mut self.by_pair, hash),
                Anchor::Name(hash) => (&mut self.by_name, hash),
            };
            if let Some(ids) = posting.get_mut(&hash) {
                if let Some(place) = ids.iter().position(|other| *other == id) {
                    ids.swap_remove(place);
                }
                if ids.is_empty() {
                    posting.remove(&hash);
                }
            }
        }
        if self.unconditional == Some(id) {
            self.unconditional = None;
        }
        self.groups_free.push(id);
    }

    fn hash_name(&self, name: &[u8]) -> u64 {
        self.hasher.hash_one(name)
    }

    /// Equal for values that [`equals`] finds equal.
    fn hash_pair(&self, name: &[u8], value: ValueRef<'_>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        name.hash(&mut hasher);
        match Comparable::of(value) {
            Comparable::Integer(n) => n.hash(&mut hasher),
            Comparable::Float(n) => n.to_bits().hash(&mut hasher),
            Comparable::Bytes(bytes) => bytes.hash(&mut hasher),
            Comparable::Bool(flag) => flag.hash(&mut hasher),
            Comparable::Decimal(bytes) => bytes.hash(&mut hasher),
            // Rare, and several encodings are equal: told apart by comparing.
            Comparable::List(_) | Comparable::Void => {}
        }
        hasher.finish()
    }
}

/// Whether headers ordered by name meet the requirements, also ordered by name.
fn matches(how: Match, required: Headers<'_>, entries: &[(&[u8], ValueRef<'_>)]) -> bool {
    let mut entries = entries;
    for (name, value) in required.iter() {
        let behind = entries.iter().take_while(|entry| entry.0 < name).count();
        entries = &entries[behind..];
        let is_met = match entries.split_first() {
            Some((&(other, found), rest)) if other == name => {
                entries = rest;
                value.kind == b'V' || equals(value, found)
            }
            _ => false,
        };
        match how {
            Match::All if !is_met => return false,
            Match::Any if is_met => return true,
            _ => {}
        }
    }
    how == Match::All
}

/// A value as far as comparing is concerned.
enum Comparable<'a> {
    Integer(i128),
    /// Not integral.
    Float(f64),
    Bytes(&'a [u8]),
    Bool(bool),
    Decimal(&'a [u8]),
    List(ValueRef<'a>),
    Void,
}

impl<'a> Comparable<'a> {
    fn of(value: ValueRef<'a>) -> Self {
        let payload = value.payload;
        let float = |n: f64| {
            // Beyond this range an integer of 64 bits cannot be equal anyway.
            if n.fract() == 0.0 && n.abs() < 1e30 { Self::Integer(n as i128) } else { Self::Float(n) }
        };
        match value.kind {
            b't' => Self::Bool(payload.first().is_some_and(|&byte| byte != 0)),
            b'S' | b'x' => Self::Bytes(payload),
            b'D' => Self::Decimal(payload),
            b'A' | b'F' => Self::List(value),
            b'f' => payload.try_into().map_or(Self::Void, |bytes| float(f64::from(f32::from_be_bytes(bytes)))),
            b'd' => payload.try_into().map_or(Self::Void, |bytes| float(f64::from_be_bytes(bytes))),
            b'T' => payload.try_into().map_or(Self::Void, |bytes| Self::Integer(u64::from_be_bytes(bytes).into())),
            _ => value.as_integer().map_or(Self::Void, |n| Self::Integer(n.into())),
        }
    }
}

fn equals(a: ValueRef<'_>, b: ValueRef<'_>) -> bool {
    match (Comparable::of(a), Comparable::of(b)) {
        (Comparable::Integer(a), Comparable::Integer(b)) => a == b,
        (Comparable::Float(a), Comparable::Float(b)) => a == b,
        (Comparable::Bytes(a), Comparable::Bytes(b)) => a == b,
        (Comparable::Bool(a), Comparable::Bool(b)) => a == b,
        (Comparable::Decimal(a), Comparable::Decimal(b)) => a == b,
        (Comparable::List(a), Comparable::List(b)) => lists_equal(a, b),
        (Comparable::Void, Comparable::Void) => true,
        _ => false,
    }
}

/// Items and entries compare in their order, and only within one kind.
fn lists_equal(a: ValueRef<'_>, b: ValueRef<'_>) -> bool {
    if a.payload.is_empty() || b.payload.is_empty() {
        return a.payload.len() == b.payload.len();
    }
    let same = |a: ValueRef<'_>, b: ValueRef<'_>| canonical_kind(a.kind) == canonical_kind(b.kind) && equals(a, b);
    if let (Some(mut a), Some(mut b)) = (a.as_array(), b.as_array()) {
        loop {
            match (a.next(), b.next()) {
                (Some(a), Some(b)) if same(a, b) => {}
                (None, None) => return true,
                _ => return false,
            }
        }
    }
    if let (Some(a), Some(b)) = (a.as_headers(), b.as_headers()) {
        let (mut a, mut b) = (a.iter(), b.iter());
        loop {
            match (a.next(), b.next()) {
                (Some(a), Some(b)) if a.0 == b.0 && same(a.1, b.1) => {}
                (None, None) => return true,
                _ => return false,
            }
        }
    }
    false
}

/// Two kinds have two letters each.
fn canonical_kind(kind: u8) -> u8 {
    match kind {
        b'U' => b's',
        b'L' => b'l',
        kind => kind,
    }
}

#[cfg(test)]
mod tests {
    use super::super::bindings::{dedup_from, sorted};
    use super::*;
    use proptest::prelude::*;

    fn table(entries: &[(&str, Value)]) -> Table {
        entries.iter().map(|(name, value)| (*name, value.clone())).collect()
    }

    fn with_match(how: &str, entries: &[(&str, Value)]) -> Table {
        let mut arguments = table(entries);
        arguments.push("x-match", Value::text(how));
        sorted(&arguments)
    }

    fn encoded(message: &Table) -> Vec<u8> {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        bytes
    }

    fn routes(arguments: &Table, message: &[(&str, Value)]) -> bool {
        let mut index = ByHeaders::default();
        index.add(&1, &sorted(arguments));
        let mut out = Vec::new();
        index.route(Headers::new(&encoded(&table(message))), &mut out);
        index.remove(&1, &sorted(arguments));
        assert!(index.by_pair.is_empty() && index.by_name.is_empty() && index.unconditional.is_none());
        !out.is_empty()
    }

    #[test]
    fn all_needs_every_header_and_any_needs_one() {
        let wanted = [("a", Value::I32(1)), ("b", Value::text("x"))];
        for (how, message, expected) in [
            ("all", &wanted[..], true),
            ("all", &wanted[..1], false),
            ("any", &wanted[..1], true),
            ("any", &wanted[1..], true),
            ("any", &[("a", Value::I32(2))][..], false),
            ("all", &[][..], false),
            ("any", &[][..], false),
        ] {
            assert_eq!(routes(&with_match(how, &wanted), message), expected, "{how} {message:?}");
        }
    }

    #[test]
    fn all_is_the_default() {
        assert!(!routes(&table(&[("a", Value::I32(1)), ("b", Value::I32(2))]), &[("a", Value::I32(1))]));
    }

    #[test]
    fn all_of_nothing_matches_everything_and_any_of_nothing_matches_nothing() {
        assert!(routes(&Table::new(), &[]));
        assert!(routes(&with_match("all", &[("x-other", Value::I32(1))]), &[("q", Value::I32(1))]));
        assert!(!routes(&with_match("any", &[]), &[("q", Value::I32(1))]));
    }

    #[test]
    fn names_that_begin_with_x_count_only_when_asked_for() {
        let wanted = [("x-a", Value::I32(1))];
        assert!(routes(&with_match("all", &wanted), &[]));
        assert!(!routes(&with_match("any", &wanted), &wanted));
        assert!(!routes(&with_match("all-with-x", &wanted), &[]));
        assert!(routes(&with_match("all-with-x", &wanted), &wanted));
        assert!(routes(&with_match("any-with-x", &wanted), &wanted));
        assert!(!routes(&with_match("any-with-x", &[]), &[("x-match", Value::text("any-with-x"))]));
    }

    #[test]
    fn a_required_void_asks_for_presence_only() {
        let wanted = table(&[("a", Value::Void)]);
        assert!(routes(&wanted, &[("a", Value::text("anything"))]));
        assert!(routes(&wanted, &[("a", Value::Void)]));
        assert!(!routes(&wanted, &[("b", Value::Void)]));
        assert!(!routes(&table(&[("a", Value::I32(0))]), &[("a", Value::Void)]));
    }

    #[test]
    fn values_compare_as_numbers_or_bytes_whatever_their_kinds() {
        let equal = [
            (Value::I32(1), Value::I64(1)),
            (Value::U8(1), Value::F64(1.0)),
            (Value::F32(0.5), Value::F64(0.5)),
            (Value::Timestamp(7), Value::I16(7)),
            (Value::text("a"), Value::Bytes(b"a".to_vec())),
            (Value::F64(0.0), Value::F64(-0.0)),
            (Value::Array(vec![]), Value::Table(Table::new())),
            (Value::Array(vec![Value::I32(1), Value::Void]), Value::Array(vec![Value::I32(1), Value::Void])),
        ];
        for (a, b) in equal {
            assert!(routes(&table(&[("n", a.clone())]), &[("n", b.clone())]), "{a:?} {b:?}");
            assert!(routes(&table(&[("n", b.clone())]), &[("n", a.clone())]), "{b:?} {a:?}");
        }
        let different = [
            (Value::text("1"), Value::I32(1)),
            (Value::Bool(true), Value::I32(1)),
            (Value::I64(9_007_199_254_740_993), Value::F64(9_007_199_254_740_992.0)),
            (Value::Decimal { scale: 0, value: 1 }, Value::I32(1)),
            (Value::Array(vec![Value::I32(1)]), Value::Array(vec![Value::I64(1)])),
            (Value::Array(vec![Value::I32(1)]), Value::Array(vec![Value::I32(1), Value::I32(1)])),
        ];
        for (a, b) in different {
            assert!(!routes(&table(&[("n", a.clone())]), &[("n", b.clone())]), "{a:?} {b:?}");
        }
    }

    #[test]
    fn an_unknown_x_match_is_refused_in_rabbitmqs_words() {
        let refusal = |value: Value| check(&table(&[("x-match", value)])).unwrap_err().to_string();
        assert_eq!(
            refusal(Value::text("zzz")),
            "Invalid x-match field value <<\"zzz\">>; expected all, any, all-with-x, or any-with-x"
        );
        assert_eq!(refusal(Value::I32(1)), "Invalid x-match field type signedint (value 1); expected longstr");
        assert_eq!(refusal(Value::Void), "Invalid x-match field type void (value undefined); expected longstr");
    }

    #[test]
    fn bindings_that_share_a_common_value_are_found_by_the_rare_one() {
        let mut index = ByHeaders::default();
        for n in 0..1000 {
            let wanted = table(&[("kind", Value::text("order")), ("region", Value::I32(n))]);
            index.add(&n, &sorted(&wanted));
        }
        assert!(index.by_pair.values().all(|ids| ids.len() <= 2));
    }

    /// RabbitMQ's rule, as a walk through two sorted lists.
    fn expected(arguments: &Table, message: &Table) -> bool {
        let (how, required) = requirements(arguments);
        let mut left: Vec<(String, Value)> = message.iter().map(|(n, v)| (n.to_owned(), v.clone())).collect();
        let mut met = Vec::new();
        for (name, value) in Headers::new(&required).to_table().iter() {
            let place = left.iter().position(|(other, _)| other == name);
            let found = place.map(|place| left.remove(place).1);
            met.push(match (value, found) {
                (_, None) => false,
                (Value::Void, Some(_)) => true,
                (value, Some(found)) => value.is_equivalent(&found),
            });
        }
        match how {
            Match::All => !met.contains(&false),
            Match::Any => met.contains(&true),
        }
    }

    fn entries(max: usize) -> impl Strategy<Value = Table> {
        let name = prop::sample::select(vec!["a", "b", "c", "x-d"]);
        let value = prop_oneof![
            Just(Value::Void),
            (0..3i32).prop_map(Value::I32),
            (0..3i64).prop_map(Value::I64),
            Just(Value::text("t")),
            Just(Value::Bool(true)),
        ];
        prop::collection::vec((name, value), 0..max).prop_map(|entries| {
            let mut table = Table::new();
            entries.into_iter().for_each(|(name, value)| table.push(name, value));
            table
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn the_index_finds_what_a_scan_finds(
            bindings in prop::collection::vec((entries(4), prop::sample::select(vec!["", "all", "any", "all-with-x", "any-with-x"])), 1..24),
            messages in prop::collection::vec(entries(6), 1..8),
            kept in 0..24usize,
        ) {
            let bindings: Vec<Table> = bindings.into_iter().map(|(mut arguments, how)| {
                if !how.is_empty() {
                    arguments.push("x-match", Value::text(how));
                }
                sorted(&arguments)
            }).collect();
            let mut index = ByHeaders::default();
            bindings.iter().enumerate().for_each(|(n, arguments)| index.add(&n, arguments));
            let kept = kept.min(bindings.len());
            bindings.iter().enumerate().skip(kept).for_each(|(n, arguments)| index.remove(&n, arguments));
            for message in &messages {
                let mut out = Vec::new();
                index.route(Headers::new(&encoded(message)), &mut out);
                dedup_from(&mut out, 0);
                out.sort_unstable();
                let scan: Vec<usize> = (0..kept).filter(|&n| expected(&bindings[n], message)).collect();
                prop_assert_eq!(out, scan);
            }
        }
    }
}
