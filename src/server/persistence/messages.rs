//! Messages of the log by their places.

use super::journal::{CHAINED, chain_of};
use crate::{
    broker::{
        message::Message,
        record::{Decoder, Position, Record},
    },
    store::{self, Log},
};

/// The messages in the records at `places`, given to `each` with their index. Reads the disk, in long
/// pieces where places are near each other.
pub(super) fn read_messages(
    log: &Log,
    places: &[store::Position],
    buffer: &mut Vec<u8>,
    mut each: impl FnMut(usize, Result<Message, String>),
) {
    log.read_many(places, buffer, |index, record| {
        let message = record.map_err(|error| error.to_string()).and_then(|record| {
            let position = record.position;
            let record = decode(log, record)?;
            record.message().cloned().ok_or_else(|| format!("the record at position {position} has no message"))
        });
        each(index, message);
    });
}

fn decode(log: &Log, record: store::Record<'_>) -> Result<Record, String> {
    let position = record.position;
    let unreadable =
        |error: &dyn std::fmt::Display| format!("the record at position {position} cannot be read: {error}");
    let at = Position(position.0);
    if record.head.kind != CHAINED {
        let head = (record.head.kind, record.head.version);
        return Decoder::default().decode_fields(head, record.body, at).map_err(|error| unreadable(&error));
    }
    let (kind, version, parts) = chain_of(record.body).ok_or_else(|| unreadable(&"it is no chain"))?;
    let (mut whole, mut buffer) = (Vec::new(), Vec::new());
    for part in parts {
        let part = log.read(part, &mut buffer).map_err(|error| unreadable(&error))?;
        whole.extend_from_slice(part.body);
    }
    Decoder::default().decode_fields((kind, version), &whole, at).map_err(|error| unreadable(&error))
}
