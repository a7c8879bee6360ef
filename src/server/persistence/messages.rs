//! Messages of the log by their places.

use super::journal::{CHAINED, chain_of};
use crate::{
    broker::{
        block::Slice,
        message::Message,
        record::{Decoder, Position, Record},
    },
    store::{self, Block, Found, Log, Reading},
};

/// The messages in the records at `places`. Reads the disk, in long pieces where places are near each
/// other, of which messages keep what they share, or a copy where that is less.
pub(super) fn read_messages(
    log: &Log,
    places: &[store::Position],
    reading: Reading,
    block: &mut Block,
) -> Result<Vec<Message>, String> {
    let mut read = Vec::with_capacity(places.len());
    let mut failure = None;
    log.read_many(places, reading, block, |_, found| {
        let message = found.map_err(|error| error.to_string()).and_then(|found| {
            let record = decode_found(log, &found)?;
            let position = found.record.position;
            record.message().cloned().ok_or_else(|| format!("the record at position {position} has no message"))
        });
        match message {
            Ok(message) => read.push(message),
            Err(error) => failure = failure.take().or(Some(error)),
        }
    });
    match failure {
        Some(error) => Err(error),
        None => {
            // Only now it is seen how many of the bytes that were read are wanted.
            read.iter_mut().for_each(Message::compact);
            Ok(read)
        }
    }
}

fn decode_found(log: &Log, found: &Found<'_>) -> Result<Record, String> {
    let record = found.record;
    if record.head.kind == CHAINED {
        return decode(log, record);
    }
    let fields = Slice::new(found.block.clone(), found.at, record.body.len());
    let head = (record.head.kind, record.head.version);
    let decoded = Decoder::default().decode_fields_in(head, &fields, Position(record.position.0));
    decoded.map_err(|error| unreadable(record.position, &error))
}

fn unreadable(position: store::Position, error: &dyn std::fmt::Display) -> String {
    format!("the record at position {position} cannot be read: {error}")
}

fn decode(log: &Log, record: store::Record<'_>) -> Result<Record, String> {
    let position = record.position;
    let unreadable = |error: &dyn std::fmt::Display| unreadable(position, error);
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
