//! Read buffers shared by the messages that were parsed from them, and slices of such buffers.
//!
//! A [`Block`] is filled once by one reader and never changes afterwards; messages hold it by
//! reference count. Unlike `bytes::Bytes` the count of holders can be read, which is how a queue
//! tells a densely used block from one that a single small message keeps alive.

use std::{ops::Deref, sync::Arc};

/// An immutable run of bytes with a reference count.
pub type Block = Arc<Vec<u8>>;

/// A part of a [`Block`]; cloning it counts a holder of the whole block.
#[derive(Clone)]
pub struct Slice {
    block: Block,
    start: u32,
    len: u32,
}

impl Slice {
    /// The part `start..start + len` of `block`.
    ///
    /// # Panics
    /// When the range is not inside the block.
    pub fn new(block: Block, start: usize, len: usize) -> Self {
        assert!(start + len <= block.len(), "a slice lies inside its block");
        let (start, len) = (start as u32, len as u32);
        Self { block, start, len }
    }

    /// The part of this slice from `at`, `len` bytes long.
    ///
    /// # Panics
    /// When the range is not inside this slice.
    pub fn part(&self, at: usize, len: usize) -> Self {
        assert!(at + len <= self.len as usize, "a part lies inside its slice");
        Self { block: self.block.clone(), start: self.start + at as u32, len: len as u32 }
    }

    /// A slice that owns all of `bytes`.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        Self::new(Arc::new(bytes), 0, len)
    }

    /// Where in its block this slice ends.
    pub fn end(&self) -> usize {
        (self.start + self.len) as usize
    }

    /// The block that this slice keeps alive.
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// True when the block holds much more than its holders can account for, so that a copy of
    /// this slice would free memory.
    pub fn is_sparse(&self) -> bool {
        is_sparse(&self.block, self.len as usize)
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.block[self.start as usize..(self.start + self.len) as usize]
    }
}

impl std::fmt::Debug for Slice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slice({} bytes)", self.len)
    }
}

/// Whether holders of about `used` bytes each account for less than half of `block`.
pub fn is_sparse(block: &Block, used: usize) -> bool {
    block.capacity() > 2 * (Arc::strong_count(block) * used).max(SMALL_BLOCK_BYTES)
}

/// Bytes below which copying a block is not worth the saving.
const SMALL_BLOCK_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_small_slice_of_a_large_block_is_sparse() {
        let block: Block = Arc::new(vec![0; 64 * 1024]);
        let slice = Slice::new(block.clone(), 10, 100);
        assert!(slice.is_sparse());
        assert_eq!(slice.len(), 100);
    }

    #[test]
    fn a_fully_held_block_is_not_sparse() {
        let block: Block = Arc::new(vec![0; 64 * 1024]);
        let slices: Vec<_> = (0..64).map(|i| Slice::new(block.clone(), i * 1024, 1024)).collect();
        assert!(!slices[0].is_sparse());
    }
}
