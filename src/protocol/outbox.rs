//! Encoded output that waits for a connection's next write.
//!
//! Small things are copied into one contiguous buffer; large bodies stay slices of the buffer they
//! arrived in and are spliced in by a vectored write. An empty outbox owns no memory: buffers come
//! from the thread that fills them and go back to the thread that has written them.

use std::{cell::RefCell, io::IoSlice};

use crate::broker::block::Slice;

/// Output in order: `bytes`, with slices inserted at some places.
#[derive(Debug, Default)]
pub struct Chunk {
    bytes: Vec<u8>,
    /// Places in `bytes`, ascending, and what comes there.
    inserts: Vec<(usize, Slice)>,
    inserted_bytes: usize,
}

impl Chunk {
    /// The contiguous part, to encode into.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = take_buffer();
        }
        &mut self.bytes
    }

    /// Appends a slice without copying it.
    pub fn push_slice(&mut self, slice: Slice) {
        if !slice.is_empty() {
            self.inserted_bytes += slice.len();
            self.inserts.push((self.bytes.len(), slice));
        }
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.inserted_bytes
    }

    /// True without output.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of it as one vector.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len());
        let mut at = 0;
        for (place, slice) in &self.inserts {
            all.extend_from_slice(&self.bytes[at..*place]);
            all.extend_from_slice(slice);
            at = *place;
        }
        all.extend_from_slice(&self.bytes[at..]);
        all
    }
}

/// A chunk that is being written, and how far.
#[derive(Debug, Default)]
pub struct Cursor {
    chunk: Chunk,
    bytes_at: usize,
    insert: usize,
    insert_at: usize,
}

impl Cursor {
    /// Starts with a new chunk. The former one must have been written.
    pub fn start(&mut self, chunk: Chunk) {
        debug_assert!(self.is_done());
        keep_buffer(std::mem::take(&mut self.chunk.bytes));
        *self = Self { chunk, ..Self::default() };
    }

    /// Everything has been written.
    pub fn is_done(&self) -> bool {
        self.bytes_at == self.chunk.bytes.len() && self.insert == self.chunk.inserts.len()
    }

    /// Gives the buffer of a written chunk back.
    pub fn release(&mut self) {
        if self.is_done() {
            keep_buffer(std::mem::take(&mut self.chunk.bytes));
            *self = Self::default();
        }
    }

    /// The next pieces to write; returns how many of `out` were set.
    pub fn fill<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        let (mut bytes_at, mut insert, mut insert_at) = (self.bytes_at, self.insert, self.insert_at);
        while filled < out.len() {
            let next_insert = self.chunk.inserts.get(insert);
            let bytes_end = next_insert.map_or(self.chunk.bytes.len(), |(place, _)| *place);
            if bytes_at < bytes_end {
                out[filled] = IoSlice::new(&self.chunk.bytes[bytes_at..bytes_end]);
                bytes_at = bytes_end;
                filled += 1;
            } else if let Some((_, slice)) = next_insert {
                out[filled] = IoSlice::new(&slice[insert_at..]);
                insert += 1;
                insert_at = 0;
                filled += 1;
            } else {
                break;
            }
        }
        filled
    }

    /// Moves on by `written` bytes.
    pub fn advance(&mut self, mut written: usize) {
        while written > 0 {
            let next_insert = self.chunk.inserts.get(self.insert);
            let bytes_end = next_insert.map_or(self.chunk.bytes.len(), |(place, _)| *place);
            let step = if self.bytes_at < bytes_end {
                let step = written.min(bytes_end - self.bytes_at);
                self.bytes_at += step;
                step
            } else if let Some((_, slice)) = next_insert {
                let step = written.min(slice.len() - self.insert_at);
                self.insert_at += step;
                if self.insert_at == slice.len() {
                    self.insert += 1;
                    self.insert_at = 0;
                }
                step
            } else {
                return;
            };
            written -= step;
        }
    }
}

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Buffers that a thread keeps.
const BUFFERS_MAX: usize = 4;
/// Bytes of a new buffer.
const BUFFER_BYTES: usize = 4 * 1024;
/// Bytes of the largest buffer that is kept.
const KEPT_BYTES_MAX: usize = 4 << 20;

fn take_buffer() -> Vec<u8> {
    BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES))
}

fn keep_buffer(mut buffer: Vec<u8>) {
    if buffer.capacity() == 0 || buffer.capacity() > KEPT_BYTES_MAX {
        return;
    }
    buffer.clear();
    BUFFERS.with_borrow_mut(|buffers| {
        if buffers.len() < BUFFERS_MAX {
            buffers.push(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk() -> Chunk {
        let mut chunk = Chunk::default();
        chunk.bytes_mut().extend_from_slice(b"head");
        chunk.push_slice(Slice::from_vec(b"BODY".to_vec()));
        chunk.push_slice(Slice::from_vec(b"MORE".to_vec()));
        chunk.bytes_mut().extend_from_slice(b"tail");
        chunk.push_slice(Slice::from_vec(b"END".to_vec()));
        chunk
    }

    #[test]
    fn pieces_come_out_in_order_however_they_are_cut() {
        let expected = chunk().to_vec();
        assert_eq!(expected, b"headBODYMOREtailEND");
        for step in 1..=expected.len() {
            let mut cursor = Cursor::default();
            cursor.start(chunk());
            let mut written = Vec::new();
            while !cursor.is_done() {
                let mut pieces = [IoSlice::new(&[]); 2];
                let count = cursor.fill(&mut pieces);
                let offered: Vec<u8> = pieces[..count].iter().flat_map(|piece| piece.to_vec()).collect();
                let taken = step.min(offered.len());
                written.extend_from_slice(&offered[..taken]);
                cursor.advance(taken);
            }
            assert_eq!(written, expected);
        }
    }
}
