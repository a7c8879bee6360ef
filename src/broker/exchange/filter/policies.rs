//! The filter policies of one topic, and who wants what they accept.

use std::cell::RefCell;
use std::hash::Hash;

use foldhash::HashMap;

use super::body::Fields;
use super::index::{BranchId, Index, Pass, PolicyId, Scratch};
use super::policy::{Policy, Scope};
use super::subject::Subject;
use crate::broker::exchange::target_set::TargetSet;

/// Targets by the policy that decides what they get.
#[derive(Debug)]
pub struct Policies<T> {
    unfiltered: TargetSet<T>,
    entries: Vec<Entry<T>>,
    entries_free: Vec<PolicyId>,
    ids: HashMap<Policy, PolicyId>,
    attributes: Index,
    body: Index,
}

#[derive(Debug)]
struct Entry<T> {
    targets: TargetSet<T>,
    branches: Vec<BranchId>,
}

impl<T> Default for Policies<T> {
    fn default() -> Self {
        Self {
            unfiltered: TargetSet::default(),
            entries: Vec::new(),
            entries_free: Vec::new(),
            ids: HashMap::default(),
            attributes: Index::default(),
            body: Index::default(),
        }
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl<T: Clone + Eq + Hash> Policies<T> {
    /// Adds a target that wants what the policy accepts; without one it wants everything.
    pub fn add(&mut self, target: &T, policy: Option<&Policy>) {
        let Some(policy) = policy else { return self.unfiltered.add(target) };
        let id = match self.ids.get(policy) {
            Some(&id) => id,
            None => self.add_policy(policy),
        };
        self.entries[id as usize].targets.add(target);
    }

    /// Takes back one [`Policies::add`] of the same target and policy.
    pub fn remove(&mut self, target: &T, policy: Option<&Policy>) {
        let Some(policy) = policy else { return self.unfiltered.remove(target) };
        let Some(&id) = self.ids.get(policy) else { return };
        let entry = &mut self.entries[id as usize];
        entry.targets.remove(target);
        if entry.targets.is_empty() {
            let index = match policy.scope() {
                Scope::Attributes => &mut self.attributes,
                Scope::Body => &mut self.body,
            };
            entry.branches.drain(..).for_each(|branch| index.remove(branch));
            self.ids.remove(policy);
            self.entries_free.push(id);
        }
    }

    /// Appends the targets of a message; a target with several policies several times.
    pub fn route(&self, subject: &Subject<'_>, out: &mut Vec<T>) {
        self.unfiltered.append_to(out);
        SCRATCH.with_borrow_mut(|scratch| {
            let mut found = |policy: PolicyId| self.entries[policy as usize].targets.append_to(out);
            if !self.attributes.is_empty() && subject.has_attributes() {
                let mut pass = Pass::new(&self.attributes, scratch);
                for (name, value) in subject.attributes() {
                    let path = std::str::from_utf8(name).ok().and_then(|name| self.attributes.path(name));
                    if let Some(name) = path.and_then(|path| path.name) {
                        value.values(&mut |value| pass.value(name, &value));
                    }
                }
                pass.finish(None, &mut found);
            }
            if !self.body.is_empty()
                && let Some(fields) = Fields::read(&self.body, subject.body())
            {
                let mut pass = Pass::new(&self.body, scratch);
                fields.occurrences.iter().for_each(|field| pass.value(field.name, &field.value));
                pass.finish(Some(&fields), &mut found);
            }
        });
    }

    /// True without targets.
    pub fn is_empty(&self) -> bool {
        self.unfiltered.is_empty() && self.ids.is_empty()
    }

    fn add_policy(&mut self, policy: &Policy) -> PolicyId {
        let index = match policy.scope() {
            Scope::Attributes => &mut self.attributes,
            Scope::Body => &mut self.body,
        };
        let id = self.entries_free.pop().unwrap_or(self.entries.len() as PolicyId);
        let branches = policy.branches().iter().map(|branch| index.add(id, branch)).collect();
        let entry = Entry { targets: TargetSet::default(), branches };
        match self.entries.get_mut(id as usize) {
            Some(free) => *free = entry,
            None => self.entries.push(entry),
        }
        self.ids.insert(policy.clone(), id);
        id
    }
}
