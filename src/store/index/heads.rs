//! Heads and drops: up to where the entries of an owner are dead, without touching them.
//!
//! Each stands with the commit that made it and acts on entries of earlier commits alone, so that a
//! later put below a head lives. A run that was merged after a head is rid of what that head
//! killed, so a head acts on a run exactly if the run's last commit is before it.
//!
//! Invariant: of one tree and owner, heads are in ascending order of commits and descending order
//! of ranks; a head that another one makes superfluous is not kept.

use std::{collections::HashMap, sync::Arc};

use smallvec::SmallVec;

use super::{key::Rank, run::Section};

/// Parts of the table, so that a commit beside readers copies only what it changes.
const SHARDS_COUNT: usize = 64;

type Table = HashMap<(u8, u64), SmallVec<[Head; 1]>, foldhash::fast::FixedState>;

/// All heads and drops. Cheap to clone.
#[derive(Clone)]
pub(super) struct Heads {
    shards: [Arc<Table>; SHARDS_COUNT],
    /// By owner, the commit that dropped it last.
    drops: Arc<HashMap<u64, u64, foldhash::fast::FixedState>>,
}

/// What is below `rank` and from a commit before `commit` is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) commit: u64,
    pub(super) rank: Rank,
}

/// What is dead of a tree and owner in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Floor {
    /// Everything below this rank; nothing, if it is [`Rank::MIN`].
    Below(Rank),
    /// Everything.
    All,
}

impl Floor {
    pub(super) fn kills(self, rank: Rank) -> bool {
        match self {
            Floor::Below(floor) => rank < floor,
            Floor::All => true,
        }
    }
}

impl Default for Heads {
    fn default() -> Heads {
        Heads { shards: std::array::from_fn(|_| Arc::default()), drops: Arc::default() }
    }
}

impl Heads {
    /// The head that `commit`, the newest one, moved to `rank`.
    pub(super) fn advance(&mut self, tree: u8, owner: u64, head: Head) {
        let heads = Arc::make_mut(&mut self.shards[shard(tree, owner)]).entry((tree, owner)).or_default();
        while heads.last().is_some_and(|last| last.rank <= head.rank) {
            heads.pop();
        }
        heads.push(head);
    }

    /// The drop that `commit`, the newest one, made.
    pub(super) fn drop_owner(&mut self, owner: u64, commit: u64) {
        Arc::make_mut(&mut self.drops).insert(owner, commit);
    }

    /// What is dead of (`tree`, `owner`) in a run whose last commit is `last_commit`.
    pub(super) fn floor(&self, tree: u8, owner: u64, last_commit: u64) -> Floor {
        if self.drops.get(&owner).is_some_and(|commit| *commit > last_commit) {
            return Floor::All;
        }
        let heads = self.shards[shard(tree, owner)].get(&(tree, owner));
        // Ranks descend, so the first that is late enough is the highest.
        let head = heads.and_then(|heads| heads.iter().find(|head| head.commit > last_commit));
        Floor::Below(head.map_or(Rank::MIN, |head| head.rank))
    }

    pub(super) fn is_dead(&self, section: &Section, last_commit: u64) -> bool {
        self.floor(section.tree, section.owner, last_commit).kills(section.last)
    }

    /// Forgets heads and drops, those that are still as named here.
    pub(super) fn remove(&mut self, heads: &[(u8, u64, Head)], drops: &[(u64, u64)]) {
        for (tree, owner, head) in heads {
            let table = Arc::make_mut(&mut self.shards[shard(*tree, *owner)]);
            if let Some(of_owner) = table.get_mut(&(*tree, *owner)) {
                of_owner.retain(|other| other != head);
                if of_owner.is_empty() {
                    table.remove(&(*tree, *owner));
                }
            }
        }
        for (owner, commit) in drops {
            if self.drops.get(owner) == Some(commit) {
                Arc::make_mut(&mut self.drops).remove(owner);
            }
        }
    }

    /// All heads, those of one tree and owner in the order of their commits.
    pub(super) fn heads(&self) -> impl Iterator<Item = (u8, u64, Head)> {
        self.shards
            .iter()
            .flat_map(|shard| shard.iter())
            .flat_map(|((tree, owner), heads)| heads.iter().map(move |head| (*tree, *owner, *head)))
    }

    /// All drops: owner and commit.
    pub(super) fn drops(&self) -> impl Iterator<Item = (u64, u64)> {
        self.drops.iter().map(|(owner, commit)| (*owner, *commit))
    }

    pub(super) fn count(&self) -> usize {
        self.drops.len() + self.shards.iter().map(|shard| shard.len()).sum::<usize>()
    }
}

fn shard(tree: u8, owner: u64) -> usize {
    (owner ^ u64::from(tree).rotate_left(3)) as usize % SHARDS_COUNT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(commit: u64, seq: u64) -> Head {
        Head { commit, rank: Rank::new(0, seq) }
    }

    #[test]
    fn a_head_kills_what_earlier_commits_wrote_below_it() {
        let mut heads = Heads::default();
        heads.advance(0, 1, head(5, 100));
        assert_eq!(heads.floor(0, 1, 4), Floor::Below(Rank::new(0, 100)));
        assert_eq!(heads.floor(0, 1, 5), Floor::Below(Rank::MIN));
        assert_eq!(heads.floor(1, 1, 4), Floor::Below(Rank::MIN));
    }

    #[test]
    fn a_lower_head_of_a_later_commit_stands_beside_a_higher_one() {
        let mut heads = Heads::default();
        heads.advance(0, 1, head(5, 100));
        heads.advance(0, 1, head(7, 20));
        assert_eq!(heads.floor(0, 1, 4), Floor::Below(Rank::new(0, 100)));
        assert_eq!(heads.floor(0, 1, 6), Floor::Below(Rank::new(0, 20)));
        heads.advance(0, 1, head(9, 300));
        assert_eq!(heads.heads().count(), 1);
    }

    #[test]
    fn a_drop_kills_all_trees_of_an_owner() {
        let mut heads = Heads::default();
        heads.drop_owner(1, 3);
        assert!(heads.floor(9, 1, 2).kills(Rank::MAX));
        assert!(!heads.floor(9, 1, 3).kills(Rank::MIN));
    }
}
