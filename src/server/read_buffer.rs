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
/// Bytes that are not worth copying what is left for.
const SLOW_BYTES: usize = 4096;
/// Reads below this size are copied.
const COPIED_BYTES_MAX: usize = BUFFER_BYTES / 4;

/// How much the reads of a connection bring.
#[derive(Default)]
pub struct Pace {
    /// The last one brought less than [`SLOW_BYTES`].
    is_slow: bool,
}

/// What one read brought.
pub enum Read {
    /// The bytes, those before them included. The flag says that the buffer was full: there is
    /// probably more.
    Bytes(Block, bool),
    /// A part of what is wanted; it was added to what is left.
    Part,
    /// Nothing is there now.
    Nothing,
    /// The peer has closed.
    End,
}

/// Reads once, behind the bytes that are left from before. `wanted` is what the frame that they
/// begin needs in all.
///
/// What is left is copied before each read, which is little beside what a read brings. Where reads
/// bring little of a large frame they go behind what is left instead, until all of it is there.
pub fn read(stream: &TcpStream, left: &mut Vec<u8>, wanted: usize, pace: &mut Pace) -> io::Result<Read> {
    if pace.is_slow && left.len() >= SLOW_BYTES && left.len() < wanted {
        return read_behind(stream, left, wanted, pace);
    }
    let before = left.len();
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
            pace.is_slow = buffer.len() - before < SLOW_BYTES;
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

fn read_behind(stream: &TcpStream, left: &mut Vec<u8>, wanted: usize, pace: &mut Pace) -> io::Result<Read> {
    // Room for as much again at the most: a peer pays for memory by sending what fills it.
    left.reserve((wanted - left.len()).min(left.len()));
    let before = left.len();
    match stream.try_read_buf(left) {
        Ok(0) => Ok(Read::End),
        Ok(read) => {
            pace.is_slow = read < SLOW_BYTES;
            if before + read < wanted {
                return Ok(Read::Part);
            }
            let was_full = left.len() == left.capacity();
            Ok(Read::Bytes(Arc::new(std::mem::take(left)), was_full))
        }
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(Read::Nothing),
            _ => Err(error),
        },
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

#[cfg(test)]
mod tests {
    use tokio::{
        io::AsyncWriteExt as _,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[tokio::test]
    async fn a_large_frame_that_comes_slowly_is_not_copied_at_each_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        peer.set_nodelay(true).unwrap();
        let wanted = 128 * 1024;
        let (mut left, mut pace) = (Vec::new(), Pace::default());
        let (mut moves, mut sent) = (0, 0_usize);
        loop {
            let piece = [(sent / 64) as u8; 64];
            peer.write_all(&piece).await.unwrap();
            sent += piece.len();
            stream.readable().await.unwrap();
            let place = left.as_ptr();
            match read(&stream, &mut left, wanted, &mut pace).unwrap() {
                Read::Part => moves += usize::from(left.as_ptr() != place),
                Read::Nothing => {}
                Read::End => panic!("the peer has not closed"),
                Read::Bytes(block, _) if block.len() >= wanted => {
                    assert!(block.chunks(64).enumerate().all(|(n, piece)| piece.iter().all(|octet| *octet == n as u8)));
                    break;
                }
                Read::Bytes(block, _) => {
                    assert!(block.len() <= SLOW_BYTES + 64, "{} bytes were copied", block.len());
                    left.extend_from_slice(&block);
                    give_back(block);
                }
            }
        }
        assert!(moves <= 6, "moved {moves} times");
        assert!(left.is_empty());
    }
}
