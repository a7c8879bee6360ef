//! Which consumer owns which group of messages, and what waits for it.
//!
//! A group's messages that somebody who does not own it has passed by wait here by seq, until the owner
//! can take them or the group is released. The owner is offered the first of each of its groups; the next
//! comes up when that is taken, or not for it.
//!
//! Invariants:
//! - `first` of an owned group is in `offered` of its owner, and nowhere else;
//! - a group is known while it has an owner, an unsettled delivery or a message that waits.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::Key;

/// A group's name.
pub(super) type Name = Arc<[u8]>;

/// How long a consumer owns a group that it was given the first message of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupMode {
    /// Until it closes, or the group says that it ends.
    #[default]
    Consumer,
    /// Until it has settled all that it was given of the group.
    Unsettled,
    /// Never: whose messages come next is decided by how many of a group are in flight.
    Fair,
}

impl GroupMode {
    /// The mode that properties call `name`.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "consumer" => Some(Self::Consumer),
            "unsettled" => Some(Self::Unsettled),
            "fair" => Some(Self::Fair),
            _ => None,
        }
    }

    /// The name in properties.
    pub fn name(self) -> &'static str {
        match self {
            Self::Consumer => "consumer",
            Self::Unsettled => "unsettled",
            Self::Fair => "fair",
        }
    }
}

/// See the module's text.
pub(super) struct Groups {
    pub(super) mode: GroupMode,
    known: HashMap<Name, Group, foldhash::fast::RandomState>,
    /// By the slots of owners.
    offered: HashMap<u32, BTreeMap<Key, Name>, foldhash::fast::RandomState>,
    /// Grows with every message that is taken.
    clock: u64,
    /// Groups at which idle ones are forgotten.
    forget_at: usize,
}

#[derive(Default)]
struct Group {
    owner: Option<u32>,
    /// The one that the owner is offered.
    first: Option<Key>,
    waiting: BTreeSet<Key>,
    unsettled: u32,
    /// Those of the unsettled ones that are leased.
    leased: BTreeSet<Key>,
    /// When a message of it was last taken.
    used: u64,
}

/// Groups of one queue whose owners are remembered. Full: of those that nothing waits of and nothing is
/// unsettled of, the half that was not used for longest is given to whoever comes first.
const GROUPS_MAX: usize = 65_536;
/// The owner of a group whose consumer has gone and has not settled all of it, and of one that leases hold.
const NOBODY: u32 = u32::MAX;

impl Groups {
    pub(super) fn new(mode: GroupMode) -> Self {
        Self { mode, known: HashMap::default(), offered: HashMap::default(), clock: 0, forget_at: GROUPS_MAX }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    pub(super) fn owner(&self, name: &[u8]) -> Option<u32> {
        self.known.get(name)?.owner
    }

    /// The first message that waits for the consumer in that slot.
    pub(super) fn first_of(&self, slot: u32) -> Option<Key> {
        if self.offered.is_empty() {
            return None;
        }
        self.offered.get(&slot)?.first_key_value().map(|(key, _)| *key)
    }

    /// A message of a group waits for its owner.
    pub(super) fn wait(&mut self, name: &[u8], key: Key) {
        let Some((name, _)) = self.known.get_key_value(name) else { return };
        let name = name.clone();
        let Some(group) = self.known.get_mut(&name) else { return };
        group.waiting.insert(key);
        if group.first.is_none_or(|first| key < first) {
            offer(&mut self.offered, &name, group, Some(key));
        }
    }

    /// A message is not for the consumer that it was offered to, or has gone.
    pub(super) fn pass(&mut self, slot: u32, key: Key, was_offered: bool, has_gone: bool) {
        if !was_offered {
            return;
        }
        let Some(name) = self.offered.get(&slot).and_then(|offered| offered.get(&key)).cloned() else { return };
        let Some(group) = self.known.get_mut(&name) else { return };
        let next = next(&group.waiting, key);
        if has_gone {
            group.waiting.remove(&key);
        }
        offer(&mut self.offered, &name, group, next);
    }

    /// What waits of a group without an owner behind that message.
    pub(super) fn after(&self, name: &Name, key: Key) -> Option<Key> {
        let group = self.known.get(name).filter(|group| group.owner.is_none())?;
        next(&group.waiting, key)
    }

    /// A message has gone.
    pub(super) fn forget(&mut self, name: &Name, key: Key) {
        if let Some(group) = self.known.get_mut(name) {
            group.waiting.remove(&key);
            self.forget_idle(name);
        }
    }

    /// The consumer in that slot takes a message of a group that is its own, or nobody's. Returns whether
    /// it becomes the owner.
    pub(super) fn take(&mut self, name: &Name, key: Key, slot: u32, is_settled: bool) -> bool {
        if self.known.len() >= self.forget_at && !self.known.contains_key(name) {
            self.forget_unused();
        }
        self.clock += 1;
        let group = self.known.entry(name.clone()).or_default();
        group.used = self.clock;
        group.unsettled += u32::from(!is_settled);
        let opens = group.owner.is_none();
        group.waiting.remove(&key);
        let next = if opens { group.waiting.first().copied() } else { next(&group.waiting, key) };
        group.owner = Some(slot);
        offer(&mut self.offered, name, group, next);
        opens
    }

    /// A lease of that message holds its group from now on, and nobody gets more of it.
    pub(super) fn lease_out(&mut self, name: &Name, key: Key) {
        if let Some(group) = self.known.get_mut(name).filter(|group| group.unsettled > 0) {
            offer(&mut self.offered, name, group, None);
            group.owner = Some(NOBODY);
            group.leased.insert(key);
        }
    }

    /// One more lease holds a group.
    pub(super) fn hold(&mut self, name: &Name, key: Key) {
        let group = self.known.entry(name.clone()).or_default();
        group.unsettled += 1;
        group.leased.insert(key);
        group.owner = Some(NOBODY);
    }

    /// A receiver takes a message of a group that is nobody's, or of which only later ones are leased. Others
    /// learn of it by [`Self::lease_out`].
    pub(super) fn lease(&mut self, name: &Name, key: Key, slot: u32) {
        match self.known.get_mut(name).filter(|group| group.owner == Some(NOBODY)) {
            Some(group) => {
                group.waiting.remove(&key);
                group.unsettled += 1;
            }
            None => _ = self.take(name, key, slot, false),
        }
    }

    /// A lease of a message is over. Returns whether its group is to be released.
    pub(super) fn end_lease(&mut self, name: &Name, key: Key) -> bool {
        if let Some(group) = self.known.get_mut(name) {
            group.leased.remove(&key);
        }
        self.settle(name)
    }

    /// Whether only messages behind that one are leased of a group. It may be leased, too, then: it has come
    /// back, and its order is lost to nobody.
    pub(super) fn precedes_leased(&self, name: &[u8], key: Key) -> bool {
        let group = self.known.get(name).filter(|group| group.owner == Some(NOBODY));
        group.and_then(|group| group.leased.first()).is_some_and(|first| key < *first)
    }

    /// What waits of a group before everything that is leased of it.
    pub(super) fn before_leased(&mut self, name: &Name) -> Vec<Key> {
        let Some(group) = self.known.get_mut(name).filter(|group| group.owner == Some(NOBODY)) else {
            return Vec::new();
        };
        let Some(&first) = group.leased.first() else { return Vec::new() };
        let behind = group.waiting.split_off(&first);
        std::mem::replace(&mut group.waiting, behind).into_iter().collect()
    }

    /// A delivery was settled. Returns whether the group is to be released.
    pub(super) fn settle(&mut self, name: &Name) -> bool {
        let Some(group) = self.known.get_mut(name) else { return false };
        group.unsettled = group.unsettled.saturating_sub(1);
        self.is_over(name) || self.forget_idle(name)
    }

    /// Whether nothing keeps a group with its owner.
    pub(super) fn is_over(&self, name: &Name) -> bool {
        let is_unsettled = self.mode == GroupMode::Unsettled;
        let is_over =
            |group: &Group| group.unsettled == 0 && group.owner.is_some_and(|owner| is_unsettled || owner == NOBODY);
        self.known.get(name).is_some_and(is_over)
    }

    /// Takes a group from its owner. Returns the first message that waits.
    pub(super) fn release(&mut self, name: &Name) -> Option<Key> {
        let group = self.known.get_mut(name)?;
        offer(&mut self.offered, name, group, None);
        group.owner = None;
        let first = group.waiting.first().copied();
        self.forget_idle(name);
        first
    }

    /// A consumer has gone. Returns what waits first of each of its groups.
    pub(super) fn leave(&mut self, slot: u32) -> Vec<(Name, Key)> {
        let mut released = Vec::new();
        let mode = self.mode;
        self.offered.remove(&slot);
        self.known.retain(|name, group| {
            if group.owner != Some(slot) {
                return true;
            }
            group.first = None;
            if mode == GroupMode::Unsettled && group.unsettled > 0 {
                group.owner = Some(NOBODY);
                return true;
            }
            group.owner = None;
            released.extend(group.waiting.first().map(|first| (name.clone(), *first)));
            group.is_known()
        });
        released
    }

    /// Forgets what has gone. Returns what waits first of groups without an owner.
    pub(super) fn prune(&mut self, is_here: impl Fn(&Key) -> bool) -> Vec<(Name, Key)> {
        let mut free = Vec::new();
        let offered = &mut self.offered;
        self.known.retain(|name, group| {
            group.waiting.retain(&is_here);
            let first = group.waiting.first().copied();
            match group.owner {
                Some(_) => offer(offered, name, group, first),
                None => free.extend(first.map(|first| (name.clone(), first))),
            }
            group.is_known()
        });
        free
    }

    /// Forgets a group that there is nothing to know of; false.
    fn forget_idle(&mut self, name: &Name) -> bool {
        if self.known.get(name).is_some_and(|group| !group.is_known()) {
            self.known.remove(name);
        }
        false
    }

    fn forget_unused(&mut self) {
        let is_idle = |group: &Group| group.waiting.is_empty() && group.unsettled == 0;
        let mut used: Vec<u64> = self.known.values().filter(|group| is_idle(group)).map(|group| group.used).collect();
        if !used.is_empty() {
            let middle = used.len() / 2;
            let (_, &mut middle, _) = used.select_nth_unstable(middle);
            self.known.retain(|_, group| !is_idle(group) || group.used > middle);
        }
        self.forget_at = GROUPS_MAX.max(2 * self.known.len());
    }
}

impl Group {
    fn is_known(&self) -> bool {
        self.owner.is_some() || self.unsettled > 0 || !self.waiting.is_empty()
    }
}

fn next(waiting: &BTreeSet<Key>, key: Key) -> Option<Key> {
    use std::ops::Bound::{Excluded, Unbounded};
    waiting.range((Excluded(key), Unbounded)).next().copied()
}

/// Has the owner of a group offered that message instead of another.
fn offer(
    offered: &mut HashMap<u32, BTreeMap<Key, Name>, foldhash::fast::RandomState>,
    name: &Name,
    group: &mut Group,
    key: Option<Key>,
) {
    let Some(owner) = group.owner.filter(|owner| *owner != NOBODY) else { return };
    if let Some(old) = std::mem::replace(&mut group.first, key)
        && let Some(of_owner) = offered.get_mut(&owner)
    {
        of_owner.remove(&old);
        if of_owner.is_empty() {
            offered.remove(&owner);
        }
    }
    if let Some(key) = key {
        offered.entry(owner).or_default().insert(key, name.clone());
    }
}
