//! Read buffers that a thread lends to whichever of its connections has something to read.
//!
//! An idle connection owns no buffer, only the beginning of a frame that has not come whole. A
//! large read is handed on as it is, and messages keep slices of it; a small one is copied into a
//! block of its size, so that one small message does not keep a large buffer alive.

use std::{cell::RefCell, io, sync::Arc};

use tokio::net::TcpStream;

use crate::broker::block::Block;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes of a buffer.
const BUFFER_BYTES: usize = 128 * 1024;
/// Buffers that a thread keeps.
const SPARE_MAX: usize = 2;
/// Reads below this size are copied.
const COPIED_BYTES_MAX: usize = BUFFER_BYTES / 4;

/// What one read brought.
pub enum Read {
    /// The bytes, those before them included. The flag says that the buffer was full: there is
    /// probably more.
    Bytes(Block, bool),
    /// Nothing is there now.
    Nothing,
    /// The peer has closed.
    End,
}

/// Reads once, behind the bytes that are left from before. `wanted` is what the frame that they
/// begin needs in all.
pub fn read(stream: &TcpStream, left: &mut Vec<u8>, wanted: usize) -> io::Result<Read> {
    let mut buffer = SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES));
    debug_assert!(buffer.is_empty());
    buffer.extend_from_slice(left);
    if wanted > buffer.capacity() {
        buffer.reserve_exact(wanted - buffer.len());
    }
    match stream.try_read_buf(&mut buffer) {
        Ok(0) => {
            keep(buffer);
            Ok(Read::End)
        }
        Ok(_) => {
            left.clear();
            let was_full = buffer.len() == buffer.capacity();
            if buffer.len() < COPIED_BYTES_MAX {
                let block = Arc::new(buffer.as_slice().to_vec());
                keep(buffer);
                return Ok(Read::Bytes(block, was_full));
            }
            Ok(Read::Bytes(Arc::new(buffer), was_full))
        }
        Err(error) => {
            keep(buffer);
            match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(Read::Nothing),
                _ => Err(error),
            }
        }
    }
}

/// Takes the buffer back, unless messages hold parts of it.
pub fn give_back(block: Block) {
    if let Ok(buffer) = Arc::try_unwrap(block) {
        keep(buffer);
    }
}

fn keep(mut buffer: Vec<u8>) {
    if buffer.capacity() != BUFFER_BYTES {
        return;
    }
    buffer.clear();
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < SPARE_MAX {
            spare.push(buffer);
        }
    });
}
