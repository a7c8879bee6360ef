//! What the index has of the broker: its keys and values.
//!
//! | tree | owner | order | seq | value |
//! |---|---|---|---|---|
//! | 0, messages | queue and level | 0 | seq of the message | flags, place, deadline, failed deliveries, bytes of the body |
//! | 1, deadlines | queue | deadline | seq | level |
//! | 2, headers | header of the queue | 0 | 0 | [`Header`] without its levels |
//! | 3, levels | header of the queue | level | 0 | number of messages, bytes of their bodies |
//! | 4, holds | exchange | when it is due | identity | place, bytes of the body |
//! | 5, segments of a stream | header of the queue | first offset | 0 | [`Summary`] |
//! | 6, notes | header of the queue | 0 | seq of the message | what is noted of it ([`Note`]) |
//! | 6, notes | header of the queue | from 1 on | seq of the message | the name of the group that it holds, in parts |
//! | 7, names seen | header of the queue, or exchange | serial | part, from 0 on | when it is forgotten, seq of the message, beginning of the name; in further parts the rest of it |
//!
//! Flags: 1 own time to live, 2 redelivered. Numbers are LEB128; a deadline is one more, so that never
//! is 0. A message of a stream has the time at which it came for a deadline. A segment has its number of
//! messages, the time of the first, by how much the last is later, how far its end is behind the first
//! message of the stream at that time, and its bytes with and without what surrounds bodies.

use crate::{
    broker::{
        exchange::holds::HoldEntry,
        queue::{
            cold::{ColdEntry, Header, LevelHeader},
            dedup::Seen,
            leases::{NOTE_PART_BYTES, Note, NoteState},
            stream::Summary,
        },
        record::{HoldId, HoldKey, Position, QueueId},
        time::Time,
    },
    store::index::{Key, Rank, put_varint, varint_at},
};

pub(super) const MESSAGES: u8 = 0;
pub(super) const DEADLINES: u8 = 1;
pub(super) const HEADERS: u8 = 2;
pub(super) const LEVELS: u8 = 3;
pub(super) const HOLDS: u8 = 4;
pub(super) const SEGMENTS: u8 = 5;
pub(super) const NOTES: u8 = 6;
pub(super) const SEEN: u8 = 7;

const HAS_OWN_TTL: u64 = 1;
const REDELIVERED: u64 = 2;

/// The messages of one level of a queue.
pub(super) fn owner(queue: QueueId, level: u8) -> u64 {
    queue.0 << 8 | u64::from(level)
}

/// Whose messages those of an [`owner`] are.
pub(super) fn queue_of(owner: u64) -> QueueId {
    QueueId(owner >> 8)
}

/// Which of its levels an [`owner`] is.
pub(super) fn level_of(owner: u64) -> u8 {
    owner as u8
}

/// The header of a queue. Its own owner: it outlives a purge of the messages.
pub(super) fn header_owner(queue: QueueId) -> u64 {
    1 << 63 | queue.0
}

/// Where a message is filed.
pub(super) fn message_key(queue: QueueId, level: u8, seq: u64) -> Key {
    Key::new(MESSAGES, owner(queue, level), 0, seq)
}

/// Where a message is filed by its deadline.
pub(super) fn deadline_key(queue: QueueId, deadline: Time, seq: u64) -> Key {
    Key::new(DEADLINES, owner(queue, 0), deadline.0, seq)
}

/// Where a segment of a stream is filed.
pub(super) fn segment_key(queue: QueueId, base: u64) -> Key {
    Key::new(SEGMENTS, header_owner(queue), base, 0)
}

/// Where a part of a note of a message is filed; the first is the note, the others are its group's name.
pub(super) fn note_key(queue: QueueId, part: u8, seq: u64) -> Key {
    Key::new(NOTES, header_owner(queue), part.into(), seq)
}

/// Where a part of a name is filed that its owner remembers.
pub(super) fn seen_key(owner: u64, serial: u64, part: u64) -> Key {
    Key::new(SEEN, owner, serial, part)
}

/// The messages that the exchange of that identity holds back, and the names that it remembers. Differs from all owners of queues.
pub(super) fn holds_owner(exchange: Position) -> u64 {
    HOLDS_OWNER | exchange.0
}

/// The identity of the exchange that such an owner is; `None` for a queue.
pub(super) fn exchange_of(owner: u64) -> Option<Position> {
    (owner & (HOLDS_OWNER | 1 << 63) == HOLDS_OWNER).then_some(Position(owner & !HOLDS_OWNER))
}

const HOLDS_OWNER: u64 = 1 << 62;

/// Where a message is filed among those that its exchange holds back.
pub(super) fn hold_rank(key: HoldKey) -> Rank {
    Rank::new(key.due.0, key.hold.0)
}

/// Where a message is filed that an exchange holds back.
pub(super) fn hold_key(exchange: Position, key: HoldKey) -> Key {
    Key::new(HOLDS, holds_owner(exchange), key.due.0, key.hold.0)
}

/// What is filed there.
pub(super) fn key_of_hold(rank: Rank) -> HoldKey {
    HoldKey { due: Time(rank.order), hold: HoldId(rank.seq) }
}

fn put(numbers: &[u64]) -> Vec<u8> {
    let mut out = Vec::with_capacity(VALUE_BYTES);
    numbers.iter().for_each(|number| put_varint(&mut out, *number));
    out
}

const VALUE_BYTES: usize = 32;

fn numbers<const N: usize>(bytes: &[u8]) -> Option<[u64; N]> {
    let (mut all, mut at) = ([0; N], 0);
    for number in &mut all {
        *number = varint_at(bytes, &mut at)?;
    }
    (at == bytes.len()).then_some(all)
}

/// The value of a message.
pub(super) fn put_message(entry: &ColdEntry) -> Vec<u8> {
    let flags = if entry.has_own_ttl { HAS_OWN_TTL } else { 0 } | if entry.redelivered { REDELIVERED } else { 0 };
    let deadline = entry.deadline.0.wrapping_add(1);
    put(&[flags, entry.place.0, deadline, entry.delivery_count.into(), entry.body_bytes])
}

/// A message of that level and seq.
pub(super) fn message(level: u8, seq: u64, value: &[u8]) -> Option<ColdEntry> {
    let [flags, place, deadline, delivery_count, body_bytes] = numbers(value)?;
    Some(ColdEntry {
        level,
        seq,
        place: Position(place),
        deadline: Time(deadline.wrapping_sub(1)),
        has_own_ttl: flags & HAS_OWN_TTL != 0,
        delivery_count: u32::try_from(delivery_count).ok()?,
        redelivered: flags & REDELIVERED != 0,
        body_bytes,
    })
}

/// The value of a message that is held back.
pub(super) fn put_hold(entry: &HoldEntry) -> Vec<u8> {
    put(&[entry.place.0, entry.body_bytes])
}

/// A message that is held back, and filed there.
pub(super) fn hold(rank: Rank, value: &[u8]) -> Option<HoldEntry> {
    let [place, body_bytes] = numbers(value)?;
    Some(HoldEntry { key: key_of_hold(rank), place: Position(place), body_bytes })
}

/// The value of a header.
pub(super) fn put_header(header: &Header) -> Vec<u8> {
    put(&[header.indexed_below, header.next_seq, header.handed, header.next_deadline.0.wrapping_add(1)])
}

/// A header without its levels.
pub(super) fn header(value: &[u8]) -> Option<Header> {
    let [indexed_below, next_seq, handed, next_deadline] = numbers(value)?;
    let next_deadline = Time(next_deadline.wrapping_sub(1));
    Some(Header { indexed_below, next_seq, handed, next_deadline, levels: Vec::new() })
}

/// The value of a segment.
pub(super) fn put_segment(segment: &Summary) -> Vec<u8> {
    put(&[
        segment.count,
        segment.first_time.0,
        segment.last_time.0.wrapping_sub(segment.first_time.0),
        (segment.base + segment.count).wrapping_sub(segment.last_time_offset),
        segment.held_bytes,
        segment.body_bytes,
    ])
}

/// A segment that begins at that offset.
pub(super) fn segment(base: u64, value: &[u8]) -> Option<Summary> {
    let [count, first_time, lasted, since_last, held_bytes, body_bytes] = numbers(value)?;
    Some(Summary {
        base,
        count,
        first_time: Time(first_time),
        last_time: Time(first_time.wrapping_add(lasted)),
        last_time_offset: base.wrapping_add(count).wrapping_sub(since_last),
        held_bytes,
        body_bytes,
    })
}

const NOTED_LEASED: u64 = 0;
const NOTED_WITHHELD: u64 = 1;
const NOTED_RECEIVED: u64 = 2;

/// The parts of a note, in order.
pub(super) fn put_note(note: &Note) -> Vec<Vec<u8>> {
    let level = u64::from(note.level);
    let first = match note.state {
        NoteState::Leased { nonce, until, first_received_at } => {
            put(&[NOTED_LEASED, level, until.0.wrapping_add(1), nonce, first_received_at.0])
        }
        NoteState::Withheld { until } => put(&[NOTED_WITHHELD, level, until.0.wrapping_add(1), 0, 0]),
        NoteState::Received { first_received_at } => put(&[NOTED_RECEIVED, level, 0, 0, first_received_at.0]),
    };
    let group = note.group.iter().flat_map(|group| group.chunks(NOTE_PART_BYTES)).map(<[u8]>::to_vec);
    std::iter::once(first).chain(group).collect()
}

/// The note of a message, without the group that it holds.
pub(super) fn note(seq: u64, value: &[u8]) -> Option<Note> {
    let [kind, level, until, nonce, first_received_at] = numbers(value)?;
    let (until, first_received_at) = (Time(until.wrapping_sub(1)), Time(first_received_at));
    let state = match kind {
        NOTED_LEASED => NoteState::Leased { nonce, until, first_received_at },
        NOTED_WITHHELD => NoteState::Withheld { until },
        NOTED_RECEIVED => NoteState::Received { first_received_at },
        _ => return None,
    };
    Some(Note { seq, level: u8::try_from(level).ok()?, state, group: None })
}

/// Bytes of a name in its first part, beside two numbers, and in each other.
const SEEN_FIRST_BYTES: usize = 40;
const SEEN_PART_BYTES: usize = 60;

/// The parts of a name, in order.
pub(super) fn put_seen(seen: &Seen) -> Vec<Vec<u8>> {
    let (beginning, rest) = seen.key.split_at(seen.key.len().min(SEEN_FIRST_BYTES));
    let mut first = put(&[seen.deadline.0.wrapping_add(1), seen.seq]);
    first.extend_from_slice(beginning);
    std::iter::once(first).chain(rest.chunks(SEEN_PART_BYTES).map(<[u8]>::to_vec)).collect()
}

/// Puts the parts of names together, which come in the order of their keys.
#[derive(Default)]
pub(super) struct SeenReader {
    names: Vec<(Seen, Vec<u8>)>,
}

impl SeenReader {
    /// Takes the next part; one that makes no sense is left out.
    pub(super) fn add(&mut self, rank: Rank, value: &[u8]) {
        if rank.seq > 0 {
            if let Some((_, key)) = self.names.last_mut().filter(|(seen, _)| seen.serial == rank.order) {
                key.extend_from_slice(value);
            }
            return;
        }
        let mut at = 0;
        if let (Some(deadline), Some(seq)) = (varint_at(value, &mut at), varint_at(value, &mut at)) {
            let (deadline, key) = (Time(deadline.wrapping_sub(1)), value[at..].to_vec());
            self.names.push((Seen { serial: rank.order, key: [].into(), deadline, seq }, key));
        }
    }

    /// The names, oldest first.
    pub(super) fn finish(self) -> Vec<Seen> {
        self.names.into_iter().map(|(seen, key)| Seen { key: key.into(), ..seen }).collect()
    }
}

/// The value of a level.
pub(super) fn put_level(level: &LevelHeader) -> Vec<u8> {
    put(&[level.len, level.bytes])
}

/// A level.
pub(super) fn level(level: u8, value: &[u8]) -> Option<LevelHeader> {
    let [len, bytes] = numbers(value)?;
    Some(LevelHeader { level, len, bytes })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::index::VALUE_BYTES_MAX;

    proptest! {
        #[test]
        fn messages_and_headers_are_read_as_they_were_written(
            (place, deadline, bytes) in any::<(u64, u64, u64)>(),
            (count, has_own_ttl, redelivered) in any::<(u32, bool, bool)>(),
        ) {
            let entry = ColdEntry {
                level: 3,
                seq: 7,
                place: Position(place),
                deadline: Time(deadline),
                has_own_ttl,
                delivery_count: count,
                redelivered,
                body_bytes: bytes,
            };
            let value = put_message(&entry);
            prop_assert!(value.len() <= VALUE_BYTES_MAX);
            prop_assert_eq!(message(3, 7, &value), Some(entry));
            let written =
                Header { indexed_below: place, next_seq: bytes, handed: 1, next_deadline: Time(deadline), levels: vec![] };
            let value = put_header(&written);
            prop_assert!(value.len() <= VALUE_BYTES_MAX);
            prop_assert_eq!(header(&value), Some(written));
            let written = HoldEntry {
                key: HoldKey { due: Time(deadline), hold: HoldId(bytes) },
                place: Position(place),
                body_bytes: bytes,
            };
            let value = put_hold(&written);
            prop_assert!(value.len() <= VALUE_BYTES_MAX);
            prop_assert_eq!(hold(hold_rank(written.key), &value), Some(written));
            let written = Summary {
                base: place >> 1,
                count: u64::from(count),
                first_time: Time(deadline),
                last_time: Time(bytes),
                last_time_offset: place,
                held_bytes: bytes,
                body_bytes: deadline,
            };
            let value = put_segment(&written);
            prop_assert!(value.len() <= VALUE_BYTES_MAX);
            prop_assert_eq!(segment(place >> 1, &value), Some(written));
        }

        #[test]
        fn notes_are_read_as_they_were_written(
            (nonce, until, first) in any::<(u64, u64, u64)>(),
            kind in 0..3u8,
            group in prop::option::of(prop::collection::vec(any::<u8>(), 1..200)),
        ) {
            let (until, first_received_at) = (Time(until), Time(first));
            let state = match kind {
                0 => NoteState::Leased { nonce, until, first_received_at },
                1 => NoteState::Withheld { until },
                _ => NoteState::Received { first_received_at },
            };
            let written = Note { seq: 7, level: 3, state, group: group.map(Into::into) };
            let parts = put_note(&written);
            prop_assert_eq!(parts.len(), usize::from(written.parts_count()));
            prop_assert!(parts.iter().all(|part| part.len() <= VALUE_BYTES_MAX));
            let group = parts[1..].concat();
            prop_assert_eq!(written.group.as_deref().unwrap_or_default(), &group[..]);
            let read = note(7, &parts[0]).unwrap();
            prop_assert_eq!(Note { group: None, ..written }, read);
        }

        #[test]
        fn names_are_read_as_they_were_written(
            all in prop::collection::vec((any::<(u64, u64)>(), prop::collection::vec(any::<u8>(), 0..200)), 0..5),
        ) {
            let named = |(serial, ((deadline, seq), key)): (usize, ((u64, u64), Vec<u8>))| {
                Seen { serial: serial as u64, key: key.into(), deadline: Time(deadline), seq }
            };
            let all: Vec<Seen> = all.into_iter().enumerate().map(named).collect();
            let mut reader = SeenReader::default();
            for seen in &all {
                for (part, value) in (0..).zip(put_seen(seen)) {
                    prop_assert!(value.len() <= VALUE_BYTES_MAX);
                    reader.add(Rank::new(seen.serial, part), &value);
                }
            }
            prop_assert_eq!(reader.finish(), all);
        }

        #[test]
        fn other_bytes_are_no_message(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Some(read) = message(0, 0, &bytes) {
                prop_assert_eq!(message(0, 0, &put_message(&read)), Some(read));
            }
        }
    }
}
