//! The conditions of many policies, found by the values of one message.
//!
//! Equal conditions are kept once and lead to all branches that need them. A pass over a message marks the
//! conditions that its values satisfy; a branch whose last condition is marked is complete. Exact values are looked
//! up, other operators are applied one after the other, each once for all policies that have it on that name.

use foldhash::HashMap;
use smallvec::SmallVec;

use super::compile::NAMES_MAX;
use super::consistency;
use super::matcher::Matcher;
use super::number::Number;
use super::policy::Branch;
use super::subject::Scalar;

pub(super) type NameId = u32;
pub(super) type ConditionId = u32;
pub(super) type BranchId = u32;
pub(super) type PolicyId = u32;

/// Conditions and branches of the policies of one scope.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Paths that conditions have, and the paths on the way to them.
    paths: HashMap<Box<str>, Path>,
    names: Vec<Name>,
    names_free: Vec<NameId>,
    conditions: Vec<Condition>,
    conditions_free: Vec<ConditionId>,
    condition_ids: HashMap<(NameId, Box<[Matcher]>), ConditionId>,
    branches: Vec<Needs>,
    branches_free: Vec<BranchId>,
    branches_count: usize,
    /// Names that some condition wants to be absent.
    names_absent: Vec<NameId>,
}

/// What is known of a path.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Path {
    /// Conditions on it.
    pub(super) name: Option<NameId>,
    /// How many names have a path that goes on from here.
    inner_count: u32,
}

/// The conditions on one name, by what satisfies them.
#[derive(Debug, Default)]
struct Name {
    path: Box<str>,
    conditions_count: usize,
    texts: HashMap<Box<str>, Vec<ConditionId>>,
    numbers: HashMap<Number, Vec<ConditionId>>,
    others: Vec<(Matcher, Vec<ConditionId>)>,
    others_places: HashMap<Matcher, u32>,
    absent: Vec<ConditionId>,
}

#[derive(Debug, Default)]
struct Condition {
    name: NameId,
    matchers: Box<[Matcher]>,
    branches: Vec<BranchId>,
}

/// The conditions of a branch.
#[derive(Clone, Debug, Default)]
struct Needs {
    policy: PolicyId,
    conditions: SmallVec<[ConditionId; NAMES_MAX]>,
}

/// What passes over messages write to, reused from one to the next.
///
/// An entry counts only when it has the stamp of this pass, so that nothing is cleared.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    stamp: u32,
    names: Vec<u32>,
    conditions: Vec<u32>,
    branches: Vec<(u32, u8)>,
    policies: Vec<u32>,
    complete: Vec<BranchId>,
}

/// One message on its way through an index.
pub(super) struct Pass<'p> {
    index: &'p Index,
    scratch: &'p mut Scratch,
}

impl Index {
    pub(super) fn is_empty(&self) -> bool {
        self.branches_count == 0
    }

    /// What is known of a path; `None`: no condition is on it or beyond it.
    pub(super) fn path(&self, path: &str) -> Option<Path> {
        self.paths.get(path).copied()
    }

    pub(super) fn add(&mut self, policy: PolicyId, branch: &Branch) -> BranchId {
        let id = take(&mut self.branches, &mut self.branches_free);
        let conditions: SmallVec<[ConditionId; NAMES_MAX]> = branch
            .iter()
            .map(|condition| {
                let condition = self.condition(&condition.path, &condition.matchers);
                self.conditions[condition as usize].branches.push(id);
                condition
            })
            .collect();
        self.branches[id as usize] = Needs { policy, conditions };
        self.branches_count += 1;
        id
    }

    pub(super) fn remove(&mut self, id: BranchId) {
        let needs = std::mem::take(&mut self.branches[id as usize]);
        for condition in needs.conditions {
            let branches = &mut self.conditions[condition as usize].branches;
            remove_one(branches, &id);
            if branches.is_empty() {
                self.remove_condition(condition);
            }
        }
        self.branches_free.push(id);
        self.branches_count -= 1;
    }

    fn condition(&mut self, path: &str, matchers: &[Matcher]) -> ConditionId {
        let name = self.name(path);
        let key = (name, matchers.into());
        if let Some(&known) = self.condition_ids.get(&key) {
            return known;
        }
        let id = take(&mut self.conditions, &mut self.conditions_free);
        self.conditions[id as usize] = Condition { name, matchers: matchers.into(), branches: Vec::new() };
        self.condition_ids.insert(key, id);
        let entry = &mut self.names[name as usize];
        entry.conditions_count += 1;
        for matcher in matchers {
            match matcher {
                Matcher::Text(text) => entry.texts.entry(text.clone()).or_default().push(id),
                Matcher::Number(number) => entry.numbers.entry(*number).or_default().push(id),
                Matcher::Absent => {
                    if entry.absent.is_empty() {
                        self.names_absent.push(name);
                    }
                    entry.absent.push(id);
                }
                other => match entry.others_places.get(other) {
                    Some(place) => entry.others[*place as usize].1.push(id),
                    None => {
                        entry.others_places.insert(other.clone(), entry.others.len() as u32);
                        entry.others.push((other.clone(), vec![id]));
                    }
                },
            }
        }
        id
    }

    fn remove_condition(&mut self, id: ConditionId) {
        let Condition { name, matchers, .. } = std::mem::take(&mut self.conditions[id as usize]);
        let entry = &mut self.names[name as usize];
        for matcher in &matchers {
            match matcher {
                Matcher::Text(text) => remove_posting(&mut entry.texts, text, id),
                Matcher::Number(number) => remove_posting(&mut entry.numbers, number, id),
                Matcher::Absent => {
                    remove_one(&mut entry.absent, &id);
                    if entry.absent.is_empty() {
                        remove_one(&mut self.names_absent, &name);
                    }
                }
                other => {
                    let Some(&place) = entry.others_places.get(other) else { continue };
                    let conditions = &mut entry.others[place as usize].1;
                    remove_one(conditions, &id);
                    if conditions.is_empty() {
                        entry.others_places.remove(other);
                        entry.others.swap_remove(place as usize);
                        if let Some((moved, _)) = entry.others.get(place as usize)
                            && let Some(moved_place) = entry.others_places.get_mut(moved)
                        {
                            *moved_place = place;
                        }
                    }
                }
            }
        }
        entry.conditions_count -= 1;
        if entry.conditions_count == 0 {
            self.remove_name(name);
        }
        self.condition_ids.remove(&(name, matchers));
        self.conditions_free.push(id);
    }

    fn name(&mut self, path: &str) -> NameId {
        if let Some(Path { name: Some(name), .. }) = self.paths.get(path) {
            return *name;
        }
        let name = take(&mut self.names, &mut self.names_free);
        self.names[name as usize].path = path.into();
        self.paths.entry(path.into()).or_default().name = Some(name);
        for (end, _) in path.match_indices('.') {
            self.paths.entry(path[..end].into()).or_default().inner_count += 1;
        }
        name
    }

    fn remove_name(&mut self, name: NameId) {
        let Name { path, .. } = std::mem::take(&mut self.names[name as usize]);
        let mut forget = |path: &str, change: &dyn Fn(&mut Path)| {
            if let Some(known) = self.paths.get_mut(path) {
                change(known);
                if known.name.is_none() && known.inner_count == 0 {
                    self.paths.remove(path);
                }
            }
        };
        forget(&path, &|known| known.name = None);
        for (end, _) in path.match_indices('.') {
            forget(&path[..end], &|known| known.inner_count -= 1);
        }
        self.names_free.push(name);
    }

    /// Whether the alternatives of a condition are satisfied by a value.
    pub(super) fn is_satisfied(&self, condition: ConditionId, value: &Scalar<'_>) -> bool {
        self.conditions[condition as usize].matchers.iter().any(|matcher| matcher.matches(value))
    }

    /// The name that a condition is on.
    pub(super) fn name_of(&self, condition: ConditionId) -> NameId {
        self.conditions[condition as usize].name
    }
}

fn take<T: Default>(items: &mut Vec<T>, free: &mut Vec<u32>) -> u32 {
    free.pop().unwrap_or_else(|| {
        items.push(T::default());
        items.len() as u32 - 1
    })
}

fn remove_one<T: PartialEq>(items: &mut Vec<T>, item: &T) {
    if let Some(place) = items.iter().position(|other| other == item) {
        items.swap_remove(place);
    }
}

fn remove_posting<K: std::hash::Hash + Eq>(postings: &mut HashMap<K, Vec<ConditionId>>, key: &K, id: ConditionId) {
    if let Some(posting) = postings.get_mut(key) {
        remove_one(posting, &id);
        if posting.is_empty() {
            postings.remove(key);
        }
    }
}

impl<'p> Pass<'p> {
    /// Begins with a message.
    pub(super) fn new(index: &'p Index, scratch: &'p mut Scratch) -> Self {
        scratch.stamp = scratch.stamp.wrapping_add(1);
        if scratch.stamp == 0 {
            *scratch = Scratch { stamp: 1, ..Scratch::default() };
        }
        grow(&mut scratch.names, index.names.len());
        grow(&mut scratch.conditions, index.conditions.len());
        grow(&mut scratch.branches, index.branches.len());
        scratch.complete.clear();
        Self { index, scratch }
    }

    /// The message has this value under that name.
    pub(super) fn value(&mut self, name: NameId, value: &Scalar<'_>) {
        let index = self.index;
        let entry = &index.names[name as usize];
        if !matches!(value, Scalar::Null) {
            self.scratch.names[name as usize] = self.scratch.stamp;
        }
        let exact = match value {
            Scalar::Text(text) => entry.texts.get(&**text),
            Scalar::Number(number) => entry.numbers.get(number),
            _ => None,
        };
        exact.into_iter().flatten().for_each(|condition| self.satisfied(*condition));
        for (matcher, conditions) in &entry.others {
            if matcher.matches(value) {
                conditions.iter().for_each(|condition| self.satisfied(*condition));
            }
        }
    }

    /// The message has no further values: calls `found` for each policy that accepts it, once.
    ///
    /// `fields` are the values of a body, which must satisfy the conditions of a branch together.
    pub(super) fn finish(mut self, fields: Option<&super::body::Fields<'_>>, found: &mut dyn FnMut(PolicyId)) {
        let index = self.index;
        for name in &index.names_absent {
            if self.scratch.names[*name as usize] != self.scratch.stamp {
                let absent = &index.names[*name as usize].absent;
                absent.iter().for_each(|condition| self.satisfied(*condition));
            }
        }
        // Values outside of arrays always belong together.
        let fields = fields.filter(|fields| fields.has_arrays());
        let Scratch { stamp, names, policies, complete, .. } = self.scratch;
        for branch in complete.drain(..) {
            let needs = &index.branches[branch as usize];
            grow(policies, needs.policy as usize + 1);
            let seen = &mut policies[needs.policy as usize];
            if *seen == *stamp {
                continue;
            }
            let is_absent = |name: NameId| names[name as usize] != *stamp;
            if fields.is_none_or(|fields| consistency::agree(index, &needs.conditions, fields, &is_absent)) {
                *seen = *stamp;
                found(needs.policy);
            }
        }
    }

    fn satisfied(&mut self, condition: ConditionId) {
        let stamp = self.scratch.stamp;
        if std::mem::replace(&mut self.scratch.conditions[condition as usize], stamp) == stamp {
            return;
        }
        for branch in &self.index.conditions[condition as usize].branches {
            let (seen, count) = &mut self.scratch.branches[*branch as usize];
            *count = if *seen == stamp { *count + 1 } else { 1 };
            *seen = stamp;
            if usize::from(*count) == self.index.branches[*branch as usize].conditions.len() {
                self.scratch.complete.push(*branch);
            }
        }
    }
}

impl Index {
    /// Whether some condition is satisfied when its name is absent.
    pub(super) fn wants_absence(&self, condition: ConditionId) -> bool {
        self.conditions[condition as usize].matchers.contains(&Matcher::Absent)
    }
}

fn grow<T: Clone + Default>(items: &mut Vec<T>, len: usize) {
    if items.len() < len {
        items.resize(len, T::default());
    }
}
