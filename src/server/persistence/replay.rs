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
    /// The longest way from the first part of a record to its end, in bytes of the log.
    pub(super) chain_bytes_max: u64,
    /// The smallest body of a message whose record has parts.
    pub(super) long_body_min: Option<u64>,
}

impl Reader {
    /// Repeats one record of the log.
    pub(super) fn read(&mut self, record: store::Record<'_>, replay: &mut Replay<'_>) -> Result<(), Error> {
        let position = record.position;
        let place = Position(position.0);
        let head = (record.head.kind, record.head.version);
        let decoded = match head {
            (PART, CHAIN_VERSION) => {
                self.parts.insert(position, record.body.to_vec());
                return Ok(());
            }
            (CHAINED, CHAIN_VERSION) => {
                let (kind, version, parts) = chain_of(record.body).ok_or(Error::PartMissing(position))?;
                let mut whole = Vec::new();
                for part in parts {
                    self.chain_bytes_max = self.chain_bytes_max.max(position.0.saturating_sub(part.0));
                    let part = self.parts.remove(&part).ok_or(Error::PartMissing(position))?;
                    whole.extend(part);
                }
                self.decoder.decode_fields((kind, version), &whole, place)
            }
            (PART | CHAINED, version) => Err(DecodeError::UnknownVersion { kind: head.0, version }),
            head => self.decoder.decode_fields(head, record.body, place),
        };
        let decoded = decoded.map_err(|error| Error::Record { position, error })?;
        if head.0 == CHAINED
            && let Some(message) = decoded.message()
        {
            let bytes = message.body_bytes();
            self.long_body_min = Some(self.long_body_min.map_or(bytes, |min| min.min(bytes)));
        }
        replay.apply(decoded, place).map_err(|error| Error::Replay { position, error })
    }
}
