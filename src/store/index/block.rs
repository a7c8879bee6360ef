//! Blocks: 4 KiB of entries in ascending order, each coded by its difference to the one before.
//!
//! ```text
//! crc-32c of the rest  u32      entries   each:  tag  u8
//! number of the block  u32                         bits 0-1  how the key follows, see `KEY_*`
//! number of the run    u32, low half               bit 2     deleted: no value follows
//! entries              u16                         bit 3     value like the one before, see below
//! bytes used           u16, with this header       bit 4     in the shape of the one before
//!                                                  bits 5-7  0
//!                                                key, then value
//! ```
//! The rest of the block is zero. A value is its length (u8) and its bytes; or, if it is as long as
//! the value before it, a shape (u8: the number of leading bytes that are the same in the high half,
//! of trailing ones in the low half) and the bytes between; or, if the last such shape fits, those
//! bytes alone. The first entry of a block has its whole key and value.

use super::{
    coding::{checksum, put_varint, varint_at},
    key::{Key, VALUE_BYTES_MAX},
};

/// Bytes of a block, on disk and in memory.
pub(super) const BLOCK_BYTES: usize = 4096;
const HEADER_BYTES: usize = 16;
/// Tag, four numbers, length and value.
const ENTRY_BYTES_MAX: usize = 1 + 1 + 3 * 10 + 1 + VALUE_BYTES_MAX;
const _: () = assert!(HEADER_BYTES + ENTRY_BYTES_MAX <= BLOCK_BYTES && BLOCK_BYTES <= u16::MAX as usize);

/// The number follows the one before; nothing else changed.
const KEY_NEXT: u8 = 0;
/// The number's distance follows; nothing else changed.
const KEY_SEQ: u8 = 1;
/// The order's distance and the number follow; tree and owner are the same.
const KEY_ORDER: u8 = 2;
/// Tree (u8), owner, order and number follow.
const KEY_WHOLE: u8 = 3;
const KEY_MASK: u8 = 3;
const DELETED: u8 = 1 << 2;
const LIKE_BEFORE: u8 = 1 << 3;
const SAME_SHAPE: u8 = 1 << 4;
const SHARED_MAX: usize = 15;

/// What the coding of an entry takes from the entries before it.
#[derive(Clone, Copy)]
struct Before {
    key: Key,
    value: [u8; VALUE_BYTES_MAX],
    value_bytes: usize,
    shared_front: usize,
    shared_back: usize,
}

impl Before {
    const NONE: Before = Before {
        key: Key { tree: 0, owner: 0, order: 0, seq: 0 },
        value: [0; VALUE_BYTES_MAX],
        value_bytes: 0,
        shared_front: 0,
        shared_back: 0,
    };
}

/// Builds one block after the other.
pub(super) struct BlockBuilder {
    bytes: Vec<u8>,
    count: u16,
    before: Before,
}

impl BlockBuilder {
    pub(super) fn new() -> BlockBuilder {
        let mut bytes = Vec::with_capacity(BLOCK_BYTES + ENTRY_BYTES_MAX);
        bytes.resize(HEADER_BYTES, 0);
        BlockBuilder { bytes, count: 0, before: Before::NONE }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds an entry behind all others; false, and nothing is added, if the block is full.
    pub(super) fn push(&mut self, key: Key, value: Option<&[u8]>) -> bool {
        let start = self.bytes.len();
        // Copied only where the entry may have to be taken back.
        let before = (start + ENTRY_BYTES_MAX > BLOCK_BYTES).then_some(self.before);
        self.bytes.push(0);
        let mut tag = self.put_key(key);
        tag |= match value {
            None => DELETED,
            Some(value) => self.put_value(value),
        };
        if let Some(before) = before.filter(|_| self.bytes.len() > BLOCK_BYTES) {
            self.bytes.truncate(start);
            self.before = before;
            return false;
        }
        self.bytes[start] = tag;
        self.before.key = key;
        self.count += 1;
        true
    }

    fn put_key(&mut self, key: Key) -> u8 {
        let before = self.before.key;
        if self.count == 0 || key.tree_owner() != before.tree_owner() {
            self.bytes.push(key.tree);
            put_varint(&mut self.bytes, key.owner);
            put_varint(&mut self.bytes, key.order);
            put_varint(&mut self.bytes, key.seq);
            KEY_WHOLE
        } else if key.order != before.order {
            put_varint(&mut self.bytes, key.order - before.order);
            put_varint(&mut self.bytes, key.seq);
            KEY_ORDER
        } else if key.seq - before.seq != 1 {
            put_varint(&mut self.bytes, key.seq - before.seq);
            KEY_SEQ
        } else {
            KEY_NEXT
        }
    }

    fn put_value(&mut self, value: &[u8]) -> u8 {
        let before = &mut self.before;
        let old = &before.value[..before.value_bytes];
        let tag = if self.count > 0 && old.len() == value.len() {
            let front = value.iter().zip(old).take_while(|(new, old)| new == old).count();
            let back = value[front..].iter().rev().zip(old[front..].iter().rev()).take_while(|(new, old)| new == old);
            let (front, back) = (front.min(SHARED_MAX), back.count().min(SHARED_MAX));
            let is_shape_fitting = before.shared_front <= front
                && before.shared_back <= back
                && before.shared_front + before.shared_back + 1 >= front + back
                && before.shared_front + before.shared_back <= value.len();
            if is_shape_fitting {
                self.bytes.extend_from_slice(&value[before.shared_front..value.len() - before.shared_back]);
                LIKE_BEFORE | SAME_SHAPE
            } else {
                (before.shared_front, before.shared_back) = (front, back);
                self.bytes.push((front << 4 | back) as u8);
                self.bytes.extend_from_slice(&value[front..value.len() - back]);
                LIKE_BEFORE
            }
        } else {
            self.bytes.push(value.len() as u8);
            self.bytes.extend_from_slice(value);
            0
        };
        before.value[..value.len()].copy_from_slice(value);
        before.value_bytes = value.len();
        tag
    }

    /// Appends the finished block to `out` and begins the next one.
    pub(super) fn finish(&mut self, block_number: u32, run_number: u64, out: &mut Vec<u8>) {
        let used = self.bytes.len() as u16;
        self.bytes.resize(BLOCK_BYTES, 0);
        self.bytes[4..8].copy_from_slice(&block_number.to_le_bytes());
        self.bytes[8..12].copy_from_slice(&(run_number as u32).to_le_bytes());
        self.bytes[12..14].copy_from_slice(&self.count.to_le_bytes());
        self.bytes[14..16].copy_from_slice(&used.to_le_bytes());
        let crc = checksum(&self.bytes[4..]);
        self.bytes[..4].copy_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&self.bytes);
        self.bytes.truncate(HEADER_BYTES);
        self.count = 0;
        self.before = Before::NONE;
    }
}

/// Walks over the entries of one block.
pub(super) struct BlockCursor {
    /// Empty before the first block: most cursors of a scan are never begun.
    bytes: Vec<u8>,
    at: usize,
    used: usize,
    left: u16,
    before: Before,
    is_deleted: bool,
}

impl BlockCursor {
    pub(super) fn new() -> BlockCursor {
        BlockCursor { bytes: Vec::new(), at: 0, used: 0, left: 0, before: Before::NONE, is_deleted: false }
    }

    /// Where to read a block to; [`begin`](Self::begin) must follow.
    pub(super) fn buffer(&mut self) -> &mut [u8] {
        self.left = 0;
        self.bytes.resize(BLOCK_BYTES, 0);
        &mut self.bytes
    }

    /// Checks the block in the buffer and stands before its first entry.
    pub(super) fn begin(&mut self, block_number: u32, run_number: u64) -> Result<(), &'static str> {
        self.left = 0;
        let number = |at: usize| {
            u32::from_le_bytes([self.bytes[at], self.bytes[at + 1], self.bytes[at + 2], self.bytes[at + 3]])
        };
        if number(0) != checksum(&self.bytes[4..]) {
            return Err("the checksum of a block does not match");
        }
        if number(4) != block_number || number(8) != run_number as u32 {
            return Err("a block of another place stands here");
        }
        let count = number(12) as u16;
        self.used = (number(12) >> 16) as usize;
        if !(HEADER_BYTES..=BLOCK_BYTES).contains(&self.used) || count == 0 {
            return Err("the header of a block is impossible");
        }
        self.at = HEADER_BYTES;
        self.left = count;
        self.before = Before::NONE;
        Ok(())
    }

    /// Steps to the next entry; false behind the last.
    #[inline]
    pub(super) fn step(&mut self) -> Result<bool, &'static str> {
        if self.left == 0 {
            return Ok(false);
        }
        match self.decode() {
            Some(()) => {
                self.left -= 1;
                Ok(true)
            }
            None => {
                self.left = 0;
                Err("an entry of a block is impossible")
            }
        }
    }

    #[inline]
    fn decode(&mut self) -> Option<()> {
        let bytes = &self.bytes[..self.used];
        let before = &mut self.before;
        let mut at = self.at;
        let tag = *bytes.get(at)?;
        at += 1;
        match tag & KEY_MASK {
            KEY_NEXT => before.key.seq = before.key.seq.checked_add(1)?,
            KEY_SEQ => before.key.seq = before.key.seq.checked_add(varint_at(bytes, &mut at)?)?,
            KEY_ORDER => {
                before.key.order = before.key.order.checked_add(varint_at(bytes, &mut at)?)?;
                before.key.seq = varint_at(bytes, &mut at)?;
            }
            _ => {
                before.key.tree = *bytes.get(at)?;
                at += 1;
                before.key.owner = varint_at(bytes, &mut at)?;
                before.key.order = varint_at(bytes, &mut at)?;
                before.key.seq = varint_at(bytes, &mut at)?;
            }
        }
        self.is_deleted = tag & DELETED != 0;
        if !self.is_deleted {
            if tag & LIKE_BEFORE != 0 {
                if tag & SAME_SHAPE == 0 {
                    let shape = *bytes.get(at)?;
                    at += 1;
                    before.shared_front = usize::from(shape >> 4);
                    before.shared_back = usize::from(shape & 0xF);
                }
                let end = before.value_bytes.checked_sub(before.shared_back)?;
                let new = bytes.get(at..at + end.checked_sub(before.shared_front)?)?;
                before.value[before.shared_front..end].copy_from_slice(new);
                at += new.len();
            } else {
                let length = usize::from(*bytes.get(at)?);
                at += 1;
                before.value.get_mut(..length)?.copy_from_slice(bytes.get(at..at + length)?);
                before.value_bytes = length;
                at += length;
            }
        }
        self.at = at;
        Some(())
    }

    /// The key of the entry stepped to.
    #[inline]
    pub(super) fn key(&self) -> Key {
        self.before.key
    }

    /// The value of the entry stepped to; `None` if it says that the key was deleted.
    #[inline]
    pub(super) fn value(&self) -> Option<&[u8]> {
        (!self.is_deleted).then(|| &self.before.value[..self.before.value_bytes])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Entries = Vec<(Key, Option<Vec<u8>>)>;

    fn read(block: &[u8], number: u32, run: u64) -> Result<Entries, &'static str> {
        let mut cursor = BlockCursor::new();
        cursor.buffer().copy_from_slice(block);
        cursor.begin(number, run)?;
        let mut entries = Vec::new();
        while cursor.step()? {
            entries.push((cursor.key(), cursor.value().map(<[u8]>::to_vec)));
        }
        Ok(entries)
    }

    fn entries() -> impl Strategy<Value = Entries> {
        let part = || prop_oneof![4 => 0..4_u64, 1 => any::<u64>()];
        let key =
            (0..3_u8, part(), part(), part()).prop_map(|(tree, owner, order, seq)| Key { tree, owner, order, seq });
        let value = prop_oneof![
            3 => prop::collection::vec(0..3_u8, 8).prop_map(Some),
            1 => prop::collection::vec(any::<u8>(), 0..=VALUE_BYTES_MAX).prop_map(Some),
            1 => Just(None),
        ];
        prop::collection::btree_map(key, value, 1..300).prop_map(|map| map.into_iter().collect())
    }

    proptest! {
        #[test]
        fn entries_read_back_as_they_were_pushed(entries in entries()) {
            let mut builder = BlockBuilder::new();
            let mut blocks = Vec::new();
            let mut number = 0;
            for (key, value) in &entries {
                if !builder.push(*key, value.as_deref()) {
                    builder.finish(number, 7, &mut blocks);
                    number += 1;
                    prop_assert!(builder.push(*key, value.as_deref()));
                }
            }
            builder.finish(number, 7, &mut blocks);
            let read: Vec<_> = (0_u32..)
                .zip(blocks.chunks(BLOCK_BYTES))
                .flat_map(|(number, block)| read(block, number, 7).expect("a whole block"))
                .collect();
            prop_assert_eq!(read, entries);
        }

        #[test]
        fn garbage_behind_a_right_checksum_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut block = vec![0; BLOCK_BYTES];
            block[HEADER_BYTES..HEADER_BYTES + bytes.len()].copy_from_slice(&bytes);
            block[12..16].copy_from_slice(&[200, 0, 0, 16]);
            let crc = checksum(&block[4..]);
            block[..4].copy_from_slice(&crc.to_le_bytes());
            let _ = read(&block, 0, 0);
        }
    }

    #[test]
    fn regular_entries_cost_less_than_five_bytes() {
        let mut builder = BlockBuilder::new();
        let mut count = 0_u64;
        loop {
            let mut value = [0; 16];
            value[..8].copy_from_slice(&(count * 1100).to_be_bytes());
            value[8..12].copy_from_slice(&1064_u32.to_be_bytes());
            if !builder.push(Key::new(0, 1, 0, count), Some(&value)) {
                break;
            }
            count += 1;
        }
        assert!(count > 4096 / 5, "{count} entries in a block");
    }

    #[test]
    fn a_block_of_another_place_is_refused() {
        let mut builder = BlockBuilder::new();
        let mut block = Vec::new();
        assert!(builder.push(Key::default(), None));
        builder.finish(3, 7, &mut block);
        assert!(read(&block, 3, 7).is_ok());
        assert!(read(&block, 4, 7).is_err());
        assert!(read(&block, 3, 8).is_err());
    }
}
