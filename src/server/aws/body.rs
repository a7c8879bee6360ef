//! The body of a request, up to a bound.

use std::{future::poll_fn, pin::Pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body as _, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of a body that needs nobody's leave.
pub(super) const SMALL_BYTES: usize = 64 << 10;
/// How long a client may take at most to send a body that does not come at once.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// Why there is no body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// It is longer than that.
    TooLong,
    /// The client sent it too slowly.
    TooSlow,
    /// It ended before its end, or is not written as HTTP has it.
    Broken,
}

/// A body, with the leave to keep it in memory.
pub(super) struct Body {
    pub(super) bytes: Bytes,
    _leave: Option<OwnedSemaphorePermit>,
}

/// Reads a body of at most `bytes_max`, for which a client has so much time.
pub(super) async fn read(
    mut incoming: Incoming,
    bytes_max: usize,
    patience: Duration,
    room: &Arc<Semaphore>,
) -> Result<Body, Cut> {
    let patience = patience.min(BODY_TIME_MAX);
    let announced = incoming.size_hint();
    if announced.lower() > bytes_max as u64 {
        return Err(Cut::TooLong);
    }
    // Of unknown length: whoever wants to send in chunks may send as much as is allowed.
    let expected = announced.upper().map_or(bytes_max, |upper| upper.min(bytes_max as u64) as usize);
    let leave = if expected > SMALL_BYTES {
        let kib = u32::try_from(expected.div_ceil(1024)).unwrap_or(u32::MAX);
        let leave = tokio::time::timeout(patience, room.clone().acquire_many_owned(kib)).await;
        Some(leave.map_err(|_| Cut::TooSlow)?.map_err(|_| Cut::Broken)?)
    } else {
        None
    };
    // A timer is set only for what has not come with the head already.
    let mut gathered = Gathered::default();
    let is_whole = tokio::select! {
        biased;
        read = gathered.read(&mut incoming, bytes_max) => { read?; true }
        () = std::future::ready(()) => false,
    };
    if !is_whole {
        let rest = tokio::time::timeout(patience, gathered.read(&mut incoming, bytes_max)).await;
        rest.map_err(|_| Cut::TooSlow)??;
    }
    Ok(Body { bytes: gathered.into_bytes(), _leave: leave })
}

#[derive(Default)]
struct Gathered {
    /// Most bodies are one piece, which is taken as it is.
    first: Bytes,
    more: Option<BytesMut>,
}

impl Gathered {
    /// Reads to the end. May be dropped half-way and begun again: what was read stays.
    async fn read(&mut self, incoming: &mut Incoming, bytes_max: usize) -> Result<(), Cut> {
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut *incoming).poll_frame(cx)).await {
            let frame = frame.map_err(|_| Cut::Broken)?;
            let Ok(data) = frame.into_data() else { continue };
            let so_far = self.more.as_ref().map_or(self.first.len(), BytesMut::len);
            if so_far + data.len() > bytes_max {
                return Err(Cut::TooLong);
            }
            match &mut self.more {
                Some(more) => more.extend_from_slice(&data),
                None if self.first.is_empty() => self.first = data,
                None => {
                    let mut more = BytesMut::with_capacity(2 * (self.first.len() + data.len()));
                    more.extend_from_slice(&self.first);
                    more.extend_from_slice(&data);
                    self.more = Some(more);
                }
            }
        }
        Ok(())
    }

    fn into_bytes(self) -> Bytes {
        self.more.map_or(self.first, BytesMut::freeze)
    }
}
