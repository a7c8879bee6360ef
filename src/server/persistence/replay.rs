//! Records of the log as records of the broker: long ones put together again, and each repeated.

use std::collections::HashMap;

use super::journal::{CHAIN_VERSION, CHAINED, PART, chain_of};
use crate::{
    broker::{
        record::{DecodeError, Decoder, Position},
        recovery::{Replay, ReplayError},
    },
    store,
};

/// Why the log's records make no broker.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The log itself.
    #[error(transparent)]
    Log(#[from] store::OpenError),
    /// A record of it cannot be read.
    #[error("the record at position {position} cannot be read: {error}")]
    Record {
        /// Where it is.
        position: store::Position,
        /// Why.
        error: DecodeError,
    },
    /// A record of it cannot be repeated.
    #[error("the record at position {position} cannot be repeated: {error}")]
    Replay {
        /// Where it is.
        position: store::Position,
        /// Why.
        error: ReplayError,
    },
    /// A long record lacks a part.
    #[error("the record at position {0} lacks a part")]
    PartMissing(store::Position),
}

/// Reads the records of a log in their order.
#[derive(Default)]
pub(super) struct Reader {
    decoder: Decoder,
    /// Pieces of records whose end has not come. Those that stay here were cut off by a crash.
    parts: HashMap<store::Position, Vec<u8>, foldhash::fast::RandomState>,
    whole: Vec<u8>,
}

impl Reader {
    /// Repeats one record of the log.
    pub(super) fn read(&mut self, record: store::Record<'_>, replay: &mut Replay<'_>) -> Result<(), Error> {
        let position = record.position;
        let unreadable = |error| Error::Record { position, error };
        let head = (record.head.kind, record.head.version);
        self.whole.clear();
        match head {
            (PART, CHAIN_VERSION) => {
                self.parts.insert(position, record.body.to_vec());
                return Ok(());
            }
            (CHAINED, CHAIN_VERSION) => {
                let (kind, version, parts) = chain_of(record.body).ok_or(Error::PartMissing(position))?;
                self.whole.extend([kind, version]);
                for part in parts {
                    let part = self.parts.remove(&part).ok_or(Error::PartMissing(position))?;
                    self.whole.extend(part);
                }
            }
            (PART | CHAINED, version) => {
                return Err(unreadable(DecodeError::UnknownVersion { kind: head.0, version }));
            }
            (kind, version) => {
                self.whole.extend([kind, version]);
                self.whole.extend_from_slice(record.body);
            }
        }
        let place = Position(position.0);
        let decoded = self.decoder.decode(&self.whole, place).map_err(unreadable)?;
        if self.whole.capacity() > WHOLE_BYTES_KEPT {
            self.whole = Vec::new();
        }
        replay.apply(decoded, place).map_err(|error| Error::Replay { position, error })
    }
}

/// Memory that is kept from one record to the next.
const WHOLE_BYTES_KEPT: usize = 1 << 20;
