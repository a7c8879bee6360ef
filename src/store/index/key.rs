//! What the index stores: keys in four parts, and small values.

use std::fmt;

/// Bytes that a value may have at most.
pub const VALUE_BYTES_MAX: usize = 64;

/// The place of an entry among those of its tree and owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank {
    /// What comes first: 0, a priority, a deadline or the hash of a group.
    pub order: u64,
    /// What decides within one order.
    pub seq: u64,
}

impl Rank {
    /// The lowest rank.
    pub const MIN: Rank = Rank { order: 0, seq: 0 };
    /// The highest rank.
    pub const MAX: Rank = Rank { order: u64::MAX, seq: u64::MAX };

    /// The rank of (`order`, `seq`).
    pub fn new(order: u64, seq: u64) -> Rank {
        Rank { order, seq }
    }

    /// The rank that follows this one; `None` behind the highest.
    pub fn next(self) -> Option<Rank> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(Rank { order: self.order, seq }),
            None => Some(Rank { order: self.order.checked_add(1)?, seq: 0 }),
        }
    }
}

/// The key of an entry. Keys are ordered by their parts from the first to the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Which of the caller's orders this is, for example by number or by deadline.
    pub tree: u8,
    /// Whose entry this is, for example a queue's.
    pub owner: u64,
    /// See [`Rank::order`].
    pub order: u64,
    /// See [`Rank::seq`].
    pub seq: u64,
}

impl Key {
    /// The key of these parts.
    pub fn new(tree: u8, owner: u64, order: u64, seq: u64) -> Key {
        Key { tree, owner, order, seq }
    }

    /// The key's place within its tree and owner.
    pub fn rank(&self) -> Rank {
        Rank { order: self.order, seq: self.seq }
    }

    pub(super) fn at(tree: u8, owner: u64, rank: Rank) -> Key {
        Key { tree, owner, order: rank.order, seq: rank.seq }
    }

    pub(super) fn tree_owner(&self) -> (u8, u64) {
        (self.tree, self.owner)
    }
}

/// A value of up to [`VALUE_BYTES_MAX`] bytes, opaque to the index. Held inline.
#[derive(Clone, Copy)]
pub struct Value {
    length: u8,
    bytes: [u8; VALUE_BYTES_MAX],
}

impl Value {
    /// # Panics
    /// If `bytes` are more than [`VALUE_BYTES_MAX`].
    pub fn new(bytes: &[u8]) -> Value {
        assert!(bytes.len() <= VALUE_BYTES_MAX, "a value has at most {VALUE_BYTES_MAX} bytes");
        let mut value = Value { length: bytes.len() as u8, bytes: [0; VALUE_BYTES_MAX] };
        value.bytes[..bytes.len()].copy_from_slice(bytes);
        value
    }

    /// The bytes of the value.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Value {}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().fmt(f)
    }
}

/// One entry of a scan, whose tree and owner the caller named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The place of the entry.
    pub rank: Rank,
    /// What was put there last.
    pub value: Value,
}
