//! Records as bytes, and back.
//!
//! ```text
//! record  = kind (1 byte) version (1 byte) fields, whole: its length is kept by whoever keeps it
//! number  = LEB128, seven bits a byte, lowest first
//! signed  = zigzag number          deadline = number of its milliseconds + 1, 0 for never
//! bytes   = length (number) + bytes    text = bytes in UTF-8    list = length (number) + items
//! seqs    = list of the signed differences to the one before
//! table   = bytes in the encoding of headers    json = bytes
//!
//! message = flags (1 byte, see below)  priority (1 byte)  [time to live (number)]
//!           length of properties, offset and length of the headers in them, length of body,
//!           length of the replaced headers, [length of the envelopes] (numbers)
//!           exchange length (1 byte), exchange, key length (1 byte), key
//!           properties  body  replaced headers  [envelopes]
//! envelopes = list of (exchange (text), seal (bytes))  list of (queue, place of the seal, label (bytes))
//! ```
//!
//! A message is written straight from its slices into the given buffer. One that several queues
//! record is written once ([`Record::Body`]); a [`Decoder`] keeps it until the last record that
//! names it has come. Reading anything that is not a record ends in an error, and reserves no more
//! memory than a constant times the length of what was read.

use std::{collections::HashMap, sync::Arc};

use serde_json::Value as Json;

use super::{Definition, DefinitionKey, Enqueued, HoldId, HoldKey, Keeper, LeasedTo, Position, QueueId, Record};
use crate::broker::{
    access::{HashAlgorithm, PasswordHash, PermissionEntry, Permissions, TopicPermissionEntry, TopicPermissions, User},
    block::{Block, Slice},
    exchange::envelopes::{Envelopes, Seal},
    limits::{UserLimits, VhostLimits},
    message::{Layout, Message, Traits, View},
    parameters::Parameter,
    pattern::Pattern,
    policy::{ApplyTo, Layer, Policy},
    queue::dedup::Seen,
    time::Time,
    value::Table,
    vhost::Metadata,
};

/// Why bytes are no record that this broker can read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The record goes on behind the end of the bytes.
    #[error("a record is cut off")]
    Truncated,
    /// The record is shorter than the bytes.
    #[error("a record is followed by {0} bytes that are not part of it")]
    Trailing(usize),
    /// A newer broker wrote it.
    #[error("a record is of the unknown kind {0}")]
    UnknownKind(u8),
    /// A newer broker wrote it.
    #[error("a record of kind {kind} has the unknown version {version}")]
    UnknownVersion {
        /// Kind of the record.
        kind: u8,
        /// Its version.
        version: u8,
    },
    /// It names a body that no record before has, or that was said to be named no more.
    #[error("a record names the message at {0}, which is not there")]
    UnknownBody(u64),
    /// A part of it makes no sense.
    #[error("a record has {0}")]
    Invalid(&'static str),
}

use DecodeError::{Invalid, Truncated};

const BODY: u8 = 1;
const BODY_CLOSED: u8 = 2;
const ENQUEUE: u8 = 3;
const ENQUEUE_SHARED: u8 = 4;
const SETTLE: u8 = 5;
const REQUEUE: u8 = 6;
const MOVE: u8 = 7;
const HANDED: u8 = 8;
const SEEN: u8 = 9;
const HELD: u8 = 10;
const RELEASED: u8 = 11;
const KEPT: u8 = 12;
const STREAM_TRIMMED: u8 = 13;
const QUEUE_DECLARED: u8 = 14;
const QUEUE_DELETED: u8 = 15;
const EXCHANGE_DECLARED: u8 = 16;
const EXCHANGE_DELETED: u8 = 17;
const BINDING: u8 = 18;
const DEFINED: u8 = 19;
const REMOVED: u8 = 20;
const TRANSACTION: u8 = 21;
const PURGED: u8 = 22;
const HELD_SHARED: u8 = 23;
const LEASED: u8 = 24;
const LEASE_CHANGED: u8 = 25;
const WITHHELD: u8 = 26;
const UNHELD: u8 = 27;
const QUEUE_ALTERED: u8 = 28;
const EXCHANGE_ALTERED: u8 = 29;

/// What a kind of record is called, for operators; `None` if it is unknown.
pub fn kind_name(kind: u8) -> Option<&'static str> {
    Some(match kind {
        BODY => "body",
        BODY_CLOSED => "body closed",
        ENQUEUE => "enqueue",
        ENQUEUE_SHARED => "enqueue of a body",
        SETTLE => "settle",
        REQUEUE => "requeue",
        MOVE => "move",
        HANDED => "handed",
        SEEN => "seen",
        HELD => "held",
        RELEASED => "released",
        KEPT => "kept",
        STREAM_TRIMMED => "stream trimmed",
        QUEUE_DECLARED => "queue declared",
        QUEUE_DELETED => "queue deleted",
        EXCHANGE_DECLARED => "exchange declared",
        EXCHANGE_DELETED => "exchange deleted",
        BINDING => "binding",
        DEFINED => "defined",
        REMOVED => "removed",
        TRANSACTION => "transaction",
        PURGED => "purged",
        HELD_SHARED => "held of a body",
        LEASED => "leased",
        LEASE_CHANGED => "lease changed",
        WITHHELD => "withheld",
        UNHELD => "no longer withheld",
        QUEUE_ALTERED => "queue altered",
        EXCHANGE_ALTERED => "exchange altered",
        _ => return None,
    })
}

/// The version of every kind but those that say otherwise.
const VERSION: u8 = 1;
/// The version of [`SEEN`] that names a message's seq. The first did not.
const SEEN_VERSION: u8 = 2;

const PERSISTENT: u8 = 1;
const HAS_TTL: u8 = 1 << 1;
const HAS_VIEW: u8 = 1 << 2;
const HAS_VIEW_HEADERS: u8 = 1 << 3;
const WITHOUT_TTL: u8 = 1 << 4;
const HAS_GROUP: u8 = 1 << 5;
const HAS_ENVELOPES: u8 = 1 << 6;
const FLAGS: u8 = PERSISTENT | HAS_TTL | HAS_VIEW | HAS_VIEW_HEADERS | WITHOUT_TTL | HAS_GROUP | HAS_ENVELOPES;

/// Appends a record.
pub fn encode(record: &Record, out: &mut Vec<u8>) {
    let mut begin = |kind: u8| out.extend([kind, if kind == SEEN { SEEN_VERSION } else { VERSION }]);
    match record {
        Record::Body { targets, message } => {
            begin(BODY);
            put(u64::from(*targets), out);
            put_message(message, out);
        }
        Record::BodyClosed { body } => {
            begin(BODY_CLOSED);
            put(body.0, out);
        }
        &Record::Enqueue { queue, seq, ref message, body: None, deadline, at } => {
            let enqueued = Enqueued { queue, seq, message, deadline, at };
            encode_enqueued(&enqueued, out, |parts, out| parts.for_each(|part| out.extend_from_slice(part)));
        }
        Record::Enqueue { queue, seq, body: Some(body), deadline, at, .. } => {
            begin(ENQUEUE_SHARED);
            put(queue.0, out);
            put(*seq, out);
            put_deadline(*deadline, out);
            put(at.0, out);
            put(body.0, out);
        }
        Record::Settle { queue, seqs } => {
            begin(SETTLE);
            put(queue.0, out);
            put_seqs(seqs.iter().copied(), out);
        }
        Record::Leased { queue, leased } => {
            begin(LEASED);
            let LeasedTo { seqs, groups, nonce, at, until } = leased;
            put(queue.0, out);
            out.extend_from_slice(&nonce.to_le_bytes());
            put(at.0, out);
            put_deadline(*until, out);
            put_seqs(seqs.iter().copied(), out);
            put_list(groups, out, |(seq, name), out| {
                put(*seq, out);
                put_bytes(name, out);
            });
        }
        Record::LeaseChanged { queue, seqs, until } => {
            begin(LEASE_CHANGED);
            put(queue.0, out);
            put_deadline(*until, out);
            put_seqs(seqs.iter().copied(), out);
        }
        Record::Withheld { queue, seqs } => {
            begin(WITHHELD);
            put(queue.0, out);
            put_seqs(seqs.iter().map(|(seq, _)| *seq), out);
            put_seqs(seqs.iter().map(|(_, until)| until.0), out);
        }
        Record::Unheld { queue, seqs } => {
            begin(UNHELD);
            put(queue.0, out);
            put_seqs(seqs.iter().copied(), out);
        }
        Record::Requeue { queue, seqs } => {
            begin(REQUEUE);
            put(queue.0, out);
            put_seqs(seqs.iter().map(|(seq, _)| *seq), out);
            seqs.iter().for_each(|(_, count)| put(u64::from(*count), out));
        }
        Record::Move { from, to, message, at } => {
            begin(MOVE);
            put_option(from.as_ref(), out, |(queue, seq), out| {
                put(queue.0, out);
                put(*seq, out);
            });
            put_list(to, out, |(queue, seq, deadline), out| {
                put(queue.0, out);
                put(*seq, out);
                put_deadline(*deadline, out);
            });
            put(at.0, out);
            put_option(message.as_ref(), out, put_message);
        }
        Record::Handed { queue, up_to } => {
            begin(HANDED);
            put(queue.0, out);
            put(*up_to, out);
        }
        Record::Seen { keeper, seen } => {
            begin(SEEN);
            match keeper {
                Keeper::Queue(queue) => {
                    out.push(0);
                    put(queue.0, out);
                }
                Keeper::Exchange { vhost, name } => {
                    out.push(1);
                    put_bytes(vhost.as_bytes(), out);
                    put_bytes(name.as_bytes(), out);
                }
            }
            put(seen.serial, out);
            put_deadline(seen.deadline, out);
            put_bytes(&seen.key, out);
            put(seen.seq, out);
        }
        Record::Held { vhost, exchange, hold, due, message, body } => {
            begin(if body.is_some() { HELD_SHARED } else { HELD });
            put_bytes(vhost.as_bytes(), out);
            put_bytes(exchange.as_bytes(), out);
            put(hold.0, out);
            put_deadline(*due, out);
            match body {
                Some(body) => put(body.0, out),
                None => put_message(message, out),
            }
        }
        Record::Released { vhost, exchange, holds } => {
            begin(RELEASED);
            put_bytes(vhost.as_bytes(), out);
            put_bytes(exchange.as_bytes(), out);
            put_seqs(holds.iter().map(|key| key.hold.0), out);
            put_seqs(holds.iter().map(|key| key.due.0), out);
        }
        Record::Kept { vhost, exchange, message } => {
            begin(KEPT);
            put_bytes(vhost.as_bytes(), out);
            put_bytes(exchange.as_bytes(), out);
            put_message(message, out);
        }
        Record::Purged { queue, below, kept } => {
            begin(PURGED);
            put(queue.0, out);
            put(*below, out);
            put_seqs(kept.iter().copied(), out);
        }
        Record::StreamTrimmed { queue, first } => {
            begin(STREAM_TRIMMED);
            put(queue.0, out);
            put(*first, out);
        }
        Record::QueueDeclared { queue, vhost, name, auto_delete, arguments, dead_queue } => {
            begin(QUEUE_DECLARED);
            put(queue.0, out);
            put_bytes(vhost.as_bytes(), out);
            put_bytes(name.as_bytes(), out);
            out.push(u8::from(*auto_delete) | u8::from(dead_queue.is_some()) << 1);
            put_table(arguments, out);
            if let Some(dead_queue) = dead_queue {
                put_bytes(dead_queue.as_bytes(), out);
            }
        }
        Record::QueueAltered { queue, properties } => {
            begin(QUEUE_ALTERED);
            put(queue.0, out);
            put_table(properties, out);
        }
        Record::QueueDeleted { queue } => {
            begin(QUEUE_DELETED);
            put(queue.0, out);
        }
        Record::ExchangeDeclared { vhost, name, kind, auto_delete, internal, arguments } => {
            begin(EXCHANGE_DECLARED);
            put_bytes(vhost.as_bytes(), out);
            put_bytes(name.as_bytes(), out);
            put_bytes(kind.as_bytes(), out);
            out.extend([u8::from(*auto_delete), u8::from(*internal)]);
            put_table(arguments, out);
        }
        Record::ExchangeDeleted { vhost, name } => {
            begin(EXCHANGE_DELETED);
            put_bytes(vhost.as_bytes(), out);
            put_bytes(name.as_bytes(), out);
        }
        Record::ExchangeAltered { vhost, name, notes } => {
            begin(EXCHANGE_ALTERED);
            put_bytes(vhost.as_bytes(), out);
            put_bytes(name.as_bytes(), out);
            put_table(notes, out);
        }
        Record::Binding { is_bound, vhost, source, destination, to_queue, key, arguments } => {
            begin(BINDING);
            out.extend([u8::from(*is_bound), u8::from(*to_queue)]);
            put_bytes(vhost.as_bytes(), out);
            put_bytes(source.as_bytes(), out);
            put_bytes(destination.as_bytes(), out);
            put_bytes(key, out);
            put_table(arguments, out);
        }
        Record::Defined(definition) => {
            begin(DEFINED);
            put_definition(definition, out);
        }
        Record::Removed(key) => {
            begin(REMOVED);
            put_key(key, out);
        }
        Record::Transaction(records) => {
            begin(TRANSACTION);
            put_list(records, out, encode);
        }
    }
}

/// Appends the record of a message that enters a queue, but for the message's own bytes: `message` is
/// called with them, in order, so that they can be taken from where they are.
pub fn encode_enqueued<T>(
    enqueued: &Enqueued<'_>,
    out: &mut Vec<u8>,
    message: impl FnOnce(&mut dyn Iterator<Item = &[u8]>, &mut Vec<u8>) -> T,
) -> T {
    out.extend([ENQUEUE, VERSION]);
    put(enqueued.queue.0, out);
    put(enqueued.seq, out);
    put_deadline(enqueued.deadline, out);
    put(enqueued.at.0, out);
    put_message_head(enqueued.message, out);
    with_message_parts(enqueued.message, |parts| message(parts, out))
}

/// Reads one record that names no body. Where the records of a log are read, a [`Decoder`] is
/// needed.
pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    Decoder::default().decode(bytes, Position::NONE)
}

/// Reads the records of a log in their order, and keeps the messages that further records name.
#[derive(Debug, Default)]
pub struct Decoder {
    /// By their positions, each with the number of records that may still name it.
    bodies: HashMap<Position, (Message, u64), foldhash::fast::RandomState>,
}

impl Decoder {
    /// Reads one record, which is at `at`.
    pub fn decode(&mut self, bytes: &[u8], at: Position) -> Result<Record, DecodeError> {
        let mut reader = Reader { rest: bytes, block: None };
        let record = self.record(&mut reader, at, false)?;
        reader.end(record)
    }

    /// Messages that may still be named.
    pub fn bodies_count(&self) -> usize {
        self.bodies.len()
    }

    /// Reads one record of that kind and version, of which `bytes` are the fields.
    pub fn decode_fields(&mut self, head: (u8, u8), bytes: &[u8], at: Position) -> Result<Record, DecodeError> {
        let mut reader = Reader { rest: bytes, block: None };
        let record = self.fields(head, &mut reader, at, false)?;
        reader.end(record)
    }

    /// The same for fields that lie in a block: messages hold it, and nothing is copied.
    pub fn decode_fields_in(&mut self, head: (u8, u8), fields: &Slice, at: Position) -> Result<Record, DecodeError> {
        let mut reader = Reader { rest: fields, block: Some((fields.block(), fields.end())) };
        let record = self.fields(head, &mut reader, at, false)?;
        reader.end(record)
    }

    fn record(&mut self, reader: &mut Reader<'_>, at: Position, is_inside: bool) -> Result<Record, DecodeError> {
        let head = (reader.byte()?, reader.byte()?);
        self.fields(head, reader, at, is_inside)
    }

    fn fields(
        &mut self,
        (kind, version): (u8, u8),
        reader: &mut Reader<'_>,
        at: Position,
        is_inside: bool,
    ) -> Result<Record, DecodeError> {
        if kind_name(kind).is_none() {
            return Err(DecodeError::UnknownKind(kind));
        }
        if version != VERSION && (kind, version) != (SEEN, SEEN_VERSION) {
            return Err(DecodeError::UnknownVersion { kind, version });
        }
        Ok(match kind {
            BODY => {
                let targets = u32::try_from(reader.number()?).map_err(|_| Invalid("too many targets"))?;
                let message = reader.message()?;
                if targets > 0 {
                    self.bodies.insert(at, (message.clone(), targets.into()));
                }
                Record::Body { targets, message }
            }
            BODY_CLOSED => {
                let body = Position(reader.number()?);
                self.bodies.remove(&body);
                Record::BodyClosed { body }
            }
            ENQUEUE | ENQUEUE_SHARED => {
                let (queue, seq) = (QueueId(reader.number()?), reader.number()?);
                let (deadline, at) = (reader.deadline()?, Time(reader.number()?));
                let (message, body) = if kind == ENQUEUE {
                    (reader.message()?, None)
                } else {
                    let body = Position(reader.number()?);
                    (self.body(body)?, Some(body))
                };
                Record::Enqueue { queue, seq, message, body, deadline, at }
            }
            HELD | HELD_SHARED => {
                let (vhost, exchange) = (reader.text()?, reader.text()?);
                let (hold, due) = (HoldId(reader.number()?), reader.deadline()?);
                let (message, body) = if kind == HELD {
                    (reader.message()?, None)
                } else {
                    let body = Position(reader.number()?);
                    (self.body(body)?, Some(body))
                };
                Record::Held { vhost, exchange, hold, due, message, body }
            }
            TRANSACTION if is_inside => return Err(Invalid("a transaction inside of a transaction")),
            TRANSACTION => Record::Transaction(reader.list(|reader| self.record(reader, at, true))?),
            _ => reader.plain(kind, version)?,
        })
    }

    fn body(&mut self, body: Position) -> Result<Message, DecodeError> {
        let (message, missing) = self.bodies.get_mut(&body).ok_or(DecodeError::UnknownBody(body.0))?;
        *missing -= 1;
        let message = message.clone();
        if *missing == 0 {
            self.bodies.remove(&body);
        }
        Ok(message)
    }
}

fn put(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_signed(number: i64, out: &mut Vec<u8>) {
    put(((number << 1) ^ (number >> 63)) as u64, out);
}

fn put_deadline(deadline: Time, out: &mut Vec<u8>) {
    put(deadline.0.wrapping_add(1), out);
}

fn put_seqs(seqs: impl ExactSizeIterator<Item = u64>, out: &mut Vec<u8>) {
    put(seqs.len() as u64, out);
    let mut before = 0_u64;
    for seq in seqs {
        put_signed(seq.wrapping_sub(before) as i64, out);
        before = seq;
    }
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn put_table(table: &Table, out: &mut Vec<u8>) {
    let mut bytes = Vec::new();
    table.encode(&mut bytes);
    put_bytes(&bytes, out);
}

fn put_json(json: &Json, out: &mut Vec<u8>) {
    // Text keys and finite numbers are all that a value can have.
    put_bytes(json.to_string().as_bytes(), out);
}

fn put_list<T>(items: &[T], out: &mut Vec<u8>, put_item: impl Fn(&T, &mut Vec<u8>)) {
    put(items.len() as u64, out);
    items.iter().for_each(|item| put_item(item, out));
}

fn put_option<T>(item: Option<&T>, out: &mut Vec<u8>, put_item: impl Fn(&T, &mut Vec<u8>)) {
    out.push(u8::from(item.is_some()));
    if let Some(item) = item {
        put_item(item, out);
    }
}

fn put_message(message: &Message, out: &mut Vec<u8>) {
    put_message_head(message, out);
    with_message_parts(message, |parts| parts.for_each(|part| out.extend_from_slice(part)));
}

fn put_message_head(message: &Message, out: &mut Vec<u8>) {
    let Traits { persistent, priority, ttl, has_group } = message.traits;
    let ttl_ms = ttl.ms();
    let view = message.view();
    let replaced = view.and_then(|view| view.headers.as_deref());
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    out.push(
        flag(persistent, PERSISTENT)
            | flag(ttl_ms.is_some(), HAS_TTL)
            | flag(view.is_some(), HAS_VIEW)
            | flag(replaced.is_some(), HAS_VIEW_HEADERS)
            | flag(view.is_some_and(|view| view.without_ttl), WITHOUT_TTL)
            | flag(has_group, HAS_GROUP)
            | flag(message.envelopes().is_some(), HAS_ENVELOPES),
    );
    out.push(priority);
    if let Some(ttl_ms) = ttl_ms {
        put(ttl_ms, out);
    }
    let (headers_at, headers_len) = message.headers_range();
    let body_bytes = message.body_bytes();
    let replaced = replaced.unwrap_or_default();
    put(message.properties().len() as u64, out);
    put(headers_at as u64, out);
    put(headers_len as u64, out);
    put(body_bytes, out);
    put(replaced.len() as u64, out);
    if let Some(envelopes) = message.envelopes() {
        put(encoded_envelopes(envelopes).len() as u64, out);
    }
}

fn encoded_envelopes(envelopes: &Envelopes) -> Vec<u8> {
    let mut out = Vec::with_capacity(envelopes.record_bytes_max());
    put_list(envelopes.seals(), &mut out, |seal, out| {
        put_bytes(seal.exchange.as_bytes(), out);
        put_bytes(&seal.bytes, out);
    });
    put_list(envelopes.queues(), &mut out, |(queue, seal, label), out| {
        put(queue.0, out);
        put(u64::from(*seal), out);
        put_bytes(label, out);
    });
    out
}

fn with_message_parts<T>(message: &Message, take: impl FnOnce(&mut dyn Iterator<Item = &[u8]>) -> T) -> T {
    let replaced = message.view().and_then(|view| view.headers.as_deref()).unwrap_or_default();
    let envelopes = message.envelopes().map(|envelopes| encoded_envelopes(envelopes)).unwrap_or_default();
    let head = [message.route_bytes(), message.properties()].into_iter();
    match message.body_contiguous() {
        Some(body) => take(&mut head.chain([body, replaced, &envelopes])),
        None => take(&mut head.chain(message.body_parts()).chain([replaced, &envelopes])),
    }
}

fn put_definition(definition: &Definition, out: &mut Vec<u8>) {
    let limit = |limit: &i64, out: &mut Vec<u8>| put_signed(*limit, out);
    let text = |text: &String, out: &mut Vec<u8>| put_bytes(text.as_bytes(), out);
    match definition {
        Definition::Vhost { name, metadata } => {
            let Metadata { description, tags, default_queue_type } = metadata;
            out.push(0);
            put_bytes(name.as_bytes(), out);
            text(description, out);
            put_list(tags, out, text);
            put_option(default_queue_type.as_ref(), out, text);
        }
        Definition::User(user) => {
            let User { name, password, tags, limits } = &**user;
            out.push(1);
            text(name, out);
            put_bytes(password.algorithm().as_str().as_bytes(), out);
            put_bytes(password.as_bytes(), out);
            put_list(tags, out, text);
            put_option(limits.max_connections.as_ref(), out, limit);
            put_option(limits.max_channels.as_ref(), out, limit);
        }
        Definition::Permissions(PermissionEntry { user, vhost, permissions }) => {
            let Permissions { configure, write, read } = permissions;
            out.push(2);
            [user, vhost, configure, write, read].into_iter().for_each(|part| text(part, out));
        }
        Definition::TopicPermissions(TopicPermissionEntry { user, vhost, exchange, permissions }) => {
            let TopicPermissions { write, read } = permissions;
            out.push(3);
            [user, vhost, exchange, write, read].into_iter().for_each(|part| text(part, out));
        }
        Definition::Policy(layer, policy) => {
            out.push(4);
            put_layer(*layer, out);
            text(&policy.vhost, out);
            text(&policy.name, out);
            put_bytes(policy.pattern.as_str().as_bytes(), out);
            put_bytes(policy.apply_to.as_str().as_bytes(), out);
            put_json(&Json::Number(policy.priority.clone()), out);
            put_json(&Json::Object(policy.definition_json()), out);
        }
        Definition::VhostLimits { vhost, limits } => {
            out.push(5);
            text(vhost, out);
            put_option(limits.max_connections.as_ref(), out, limit);
            put_option(limits.max_queues.as_ref(), out, limit);
        }
        Definition::Parameter(Parameter { value, vhost, component, name }) => {
            out.push(6);
            [vhost, component, name].into_iter().for_each(|part| text(part, out));
            put_json(value, out);
        }
        Definition::GlobalParameter { name, value } => {
            out.push(7);
            text(name, out);
            put_json(value, out);
        }
    }
}

fn put_layer(layer: Layer, out: &mut Vec<u8>) {
    out.push(match layer {
        Layer::User => 0,
        Layer::Operator => 1,
    });
}

fn put_key(key: &DefinitionKey, out: &mut Vec<u8>) {
    let text = |text: &String, out: &mut Vec<u8>| put_bytes(text.as_bytes(), out);
    match key {
        DefinitionKey::Vhost(name) => {
            out.push(0);
            put_bytes(name.as_bytes(), out);
        }
        DefinitionKey::User(name) => {
            out.push(1);
            text(name, out);
        }
        DefinitionKey::Permissions { user, vhost } => {
            out.push(2);
            text(user, out);
            text(vhost, out);
        }
        DefinitionKey::TopicPermissions { user, vhost, exchange } => {
            out.push(3);
            text(user, out);
            text(vhost, out);
            put_option(exchange.as_ref(), out, text);
        }
        DefinitionKey::Policy { layer, vhost, name } => {
            out.push(4);
            put_layer(*layer, out);
            text(vhost, out);
            text(name, out);
        }
        DefinitionKey::VhostLimits { vhost } => {
            out.push(5);
            text(vhost, out);
        }
        DefinitionKey::Parameter { vhost, component, name } => {
            out.push(6);
            [vhost, component, name].into_iter().for_each(|part| text(part, out));
        }
        DefinitionKey::GlobalParameter { name } => {
            out.push(7);
            text(name, out);
        }
    }
}

fn read_envelopes(bytes: &[u8]) -> Result<Arc<Envelopes>, DecodeError> {
    let mut reader = Reader { rest: bytes, block: None };
    let seals = reader.list(|reader| Ok(Seal { exchange: reader.text()?, bytes: reader.bytes()?.into() }))?;
    let queues = reader.list(|reader| {
        let queue = QueueId(reader.number()?);
        let seal = u32::try_from(reader.number()?).map_err(|_| Invalid("too many seals"))?;
        Ok((queue, seal, reader.bytes()?.into()))
    })?;
    let envelopes = Envelopes::from_parts(seals, queues).ok_or(Invalid("envelopes that do not fit together"))?;
    reader.end(Arc::new(envelopes))
}

/// What is left to read.
struct Reader<'a> {
    rest: &'a [u8],
    /// What is read lies in this block, and ends at this offset of it: messages need no copy.
    block: Option<(&'a Block, usize)>,
}

impl<'a> Reader<'a> {
    /// What was read, if that was all.
    fn end<T>(&self, read: T) -> Result<T, DecodeError> {
        if self.rest.is_empty() { Ok(read) } else { Err(DecodeError::Trailing(self.rest.len())) }
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        let (&first, rest) = self.rest.split_first().ok_or(Truncated)?;
        self.rest = rest;
        Ok(first)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Invalid("a flag that is neither 0 nor 1")),
        }
    }

    fn number(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7F);
            if shift == 63 && bits > 1 || shift > 0 && byte == 0 {
                return Err(Invalid("a number that is too long"));
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Invalid("a number that is too long"))
    }

    fn signed(&mut self) -> Result<i64, DecodeError> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// A length; what does not fit into memory does not fit into the bytes either.
    fn len(&mut self) -> Result<usize, DecodeError> {
        usize::try_from(self.number()?).map_err(|_| Truncated)
    }

    fn deadline(&mut self) -> Result<Time, DecodeError> {
        Ok(Time(self.number()?.wrapping_sub(1)))
    }

    fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.len()?;
        self.take(len)
    }

    fn text<T: From<&'a str>>(&mut self) -> Result<T, DecodeError> {
        std::str::from_utf8(self.bytes()?).map(T::from).map_err(|_| Invalid("a text that is not UTF-8"))
    }

    fn table(&mut self) -> Result<Table, DecodeError> {
        Table::decode(self.bytes()?).ok_or(Invalid("a malformed table"))
    }

    fn json(&mut self) -> Result<Json, DecodeError> {
        serde_json::from_slice(self.bytes()?).map_err(|_| Invalid("a value that is not JSON"))
    }

    /// Items of at least one byte each. The list grows as they are found, whatever it promises.
    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T, DecodeError>) -> Result<Vec<T>, DecodeError> {
        let len = self.len()?;
        if len > self.rest.len() {
            return Err(Truncated);
        }
        let mut items = Vec::new();
        for _ in 0..len {
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn option<T>(&mut self, item: impl FnOnce(&mut Self) -> Result<T, DecodeError>) -> Result<Option<T>, DecodeError> {
        if self.flag()? { item(self).map(Some) } else { Ok(None) }
    }

    fn seqs<T>(&mut self, made: impl Fn(u64) -> T) -> Result<Vec<T>, DecodeError> {
        let mut before = 0_u64;
        self.list(|reader| {
            before = before.wrapping_add(reader.signed()? as u64);
            Ok(made(before))
        })
    }

    fn hold_keys(&mut self) -> Result<Vec<HoldKey>, DecodeError> {
        let (holds, dues) = (self.seqs(HoldId)?, self.seqs(Time)?);
        let is_whole = holds.len() == dues.len();
        let keys = holds.into_iter().zip(dues).map(|(hold, due)| HoldKey { due, hold });
        if is_whole { Ok(keys.collect()) } else { Err(Invalid("messages held back without times")) }
    }

    fn message(&mut self) -> Result<Message, DecodeError> {
        let flags = self.byte()?;
        let is_set = |flag: u8| flags & flag != 0;
        if flags & !FLAGS != 0 || !is_set(HAS_VIEW) && is_set(HAS_VIEW_HEADERS | WITHOUT_TTL | HAS_ENVELOPES) {
            return Err(Invalid("unknown flags of a message"));
        }
        let priority = self.byte()?;
        let ttl_ms = if is_set(HAS_TTL) { Some(self.number()?) } else { None };
        let (properties_len, headers_at, headers_len) = (self.len()?, self.len()?, self.len()?);
        let (body_len, replaced_len) = (self.len()?, self.len()?);
        let envelopes_len = if is_set(HAS_ENVELOPES) { self.len()? } else { 0 };
        if headers_at.checked_add(headers_len).is_none_or(|end| end > properties_len) {
            return Err(Invalid("headers outside of the properties"));
        }
        if !is_set(HAS_VIEW_HEADERS) && replaced_len > 0 {
            return Err(Invalid("replaced headers that it says it has not"));
        }
        let start = self.rest;
        let exchange_len = self.byte()?;
        self.take(exchange_len.into())?;
        let key_len = self.byte()?;
        self.take(key_len.into())?;
        let properties_at = start.len() - self.rest.len();
        self.take(properties_len)?;
        let body_at = start.len() - self.rest.len();
        self.take(body_len)?;
        let end = start.len() - self.rest.len();
        let (block, base) = match self.block {
            Some((block, block_end)) => (block.clone(), block_end - start.len()),
            None => (Arc::new(start[..end].to_vec()), 0),
        };
        if u32::try_from(base + end).is_err() {
            return Err(Invalid("a message of more than 4 GiB"));
        }
        let replaced = self.take(replaced_len)?;
        let envelopes = self.take(envelopes_len)?;
        let properties_at = base + properties_at;
        let headers = if headers_len == 0 { (0, 0) } else { (properties_at + headers_at, headers_len) };
        let layout = Layout { route_at: base, properties: (properties_at, properties_len), headers };
        let traits =
            Traits { persistent: is_set(PERSISTENT), priority, ttl: ttl_ms.into(), has_group: is_set(HAS_GROUP) };
        let message = Message::inline(block, layout, traits, (base + body_at, body_len));
        Ok(if is_set(HAS_VIEW) {
            let headers = is_set(HAS_VIEW_HEADERS).then(|| replaced.to_vec());
            let envelopes = is_set(HAS_ENVELOPES).then(|| read_envelopes(envelopes)).transpose()?;
            let mut message = message.with_view(View { headers, without_ttl: is_set(WITHOUT_TTL), envelopes });
            message.traits.ttl = ttl_ms.into();
            message
        } else {
            message
        })
    }

    /// A record that neither has a body of its own identity nor names one.
    fn plain(&mut self, kind: u8, version: u8) -> Result<Record, DecodeError> {
        Ok(match kind {
            SETTLE => Record::Settle { queue: QueueId(self.number()?), seqs: self.seqs(|seq| seq)? },
            PURGED => {
                Record::Purged { queue: QueueId(self.number()?), below: self.number()?, kept: self.seqs(|seq| seq)? }
            }
            LEASED => {
                let queue = QueueId(self.number()?);
                let nonce = self.take(8)?.first_chunk().copied().map_or(0, u64::from_le_bytes);
                let (at, until) = (Time(self.number()?), self.deadline()?);
                let seqs = self.seqs(|seq| seq)?;
                let groups = self.list(|reader| Ok((reader.number()?, reader.bytes()?.into())))?;
                Record::Leased { queue, leased: LeasedTo { seqs, groups, nonce, at, until } }
            }
            LEASE_CHANGED => {
                let (queue, until) = (QueueId(self.number()?), self.deadline()?);
                Record::LeaseChanged { queue, seqs: self.seqs(|seq| seq)?, until }
            }
            WITHHELD => {
                let queue = QueueId(self.number()?);
                let (seqs, times) = (self.seqs(|seq| seq)?, self.seqs(Time)?);
                if seqs.len() != times.len() {
                    return Err(Invalid("messages withheld without times"));
                }
                Record::Withheld { queue, seqs: seqs.into_iter().zip(times).collect() }
            }
            UNHELD => Record::Unheld { queue: QueueId(self.number()?), seqs: self.seqs(|seq| seq)? },
            REQUEUE => {
                let (queue, mut seqs) = (QueueId(self.number()?), self.seqs(|seq| (seq, 0))?);
                for (_, count) in &mut seqs {
                    *count = u32::try_from(self.number()?).map_err(|_| Invalid("too many failed deliveries"))?;
                }
                Record::Requeue { queue, seqs }
            }
            MOVE => Record::Move {
                from: self.option(|reader| Ok((QueueId(reader.number()?), reader.number()?)))?,
                to: self.list(|reader| Ok((QueueId(reader.number()?), reader.number()?, reader.deadline()?)))?,
                at: Time(self.number()?),
                message: self.option(Self::message)?,
            },
            HANDED => Record::Handed { queue: QueueId(self.number()?), up_to: self.number()? },
            SEEN => {
                let keeper = if self.flag()? {
                    Keeper::Exchange { vhost: self.text()?, name: self.text()? }
                } else {
                    Keeper::Queue(QueueId(self.number()?))
                };
                let (serial, deadline, key) = (self.number()?, self.deadline()?, self.bytes()?.into());
                let seq = if version == SEEN_VERSION { self.number()? } else { 0 };
                Record::Seen { keeper, seen: Seen { serial, key, deadline, seq } }
            }
            RELEASED => Record::Released { vhost: self.text()?, exchange: self.text()?, holds: self.hold_keys()? },
            KEPT => Record::Kept { vhost: self.text()?, exchange: self.text()?, message: self.message()? },
            STREAM_TRIMMED => Record::StreamTrimmed { queue: QueueId(self.number()?), first: self.number()? },
            QUEUE_DECLARED => {
                let (queue, vhost, name) = (QueueId(self.number()?), self.text()?, self.text()?);
                let flags = self.byte()?;
                if flags > 3 {
                    return Err(Invalid("a flag that is neither set nor not"));
                }
                let arguments = self.table()?;
                let dead_queue = if flags & 2 == 0 { None } else { Some(self.text()?) };
                Record::QueueDeclared { queue, vhost, name, auto_delete: flags & 1 == 1, arguments, dead_queue }
            }
            QUEUE_ALTERED => Record::QueueAltered { queue: QueueId(self.number()?), properties: self.table()? },
            QUEUE_DELETED => Record::QueueDeleted { queue: QueueId(self.number()?) },
            EXCHANGE_DECLARED => Record::ExchangeDeclared {
                vhost: self.text()?,
                name: self.text()?,
                kind: self.text()?,
                auto_delete: self.flag()?,
                internal: self.flag()?,
                arguments: self.table()?,
            },
            EXCHANGE_ALTERED => {
                Record::ExchangeAltered { vhost: self.text()?, name: self.text()?, notes: self.table()? }
            }
            EXCHANGE_DELETED => Record::ExchangeDeleted { vhost: self.text()?, name: self.text()? },
            BINDING => Record::Binding {
                is_bound: self.flag()?,
                to_queue: self.flag()?,
                vhost: self.text()?,
                source: self.text()?,
                destination: self.text()?,
                key: self.bytes()?.to_vec(),
                arguments: self.table()?,
            },
            DEFINED => Record::Defined(self.definition()?),
            REMOVED => Record::Removed(self.key()?),
            other => return Err(DecodeError::UnknownKind(other)),
        })
    }

    fn definition(&mut self) -> Result<Definition, DecodeError> {
        Ok(match self.byte()? {
            0 => {
                let name = self.text()?;
                let (description, tags) = (self.text()?, self.list(Self::text)?);
                let default_queue_type = self.option(Self::text)?;
                Definition::Vhost { name, metadata: Metadata { description, tags, default_queue_type } }
            }
            1 => {
                let (name, algorithm) = (self.text()?, self.text::<&str>()?);
                let algorithm = HashAlgorithm::from_name(algorithm).ok_or(Invalid("an unknown hash algorithm"))?;
                let password = PasswordHash::from_bytes(algorithm, self.bytes()?.to_vec());
                let tags = self.list(Self::text)?;
                let (max_connections, max_channels) = (self.option(Self::signed)?, self.option(Self::signed)?);
                let limits = UserLimits { max_connections, max_channels };
                Definition::User(Arc::new(User { name, password, tags, limits }))
            }
            2 => {
                let (user, vhost) = (self.text()?, self.text()?);
                let permissions = Permissions { configure: self.text()?, write: self.text()?, read: self.text()? };
                Definition::Permissions(PermissionEntry { user, vhost, permissions })
            }
            3 => {
                let (user, vhost, exchange) = (self.text()?, self.text()?, self.text()?);
                let permissions = TopicPermissions { write: self.text()?, read: self.text()? };
                Definition::TopicPermissions(TopicPermissionEntry { user, vhost, exchange, permissions })
            }
            4 => Definition::Policy(self.layer()?, Arc::new(self.policy()?)),
            5 => {
                let vhost = self.text()?;
                let (max_connections, max_queues) = (self.option(Self::signed)?, self.option(Self::signed)?);
                Definition::VhostLimits { vhost, limits: VhostLimits { max_connections, max_queues } }
            }
            6 => {
                let (vhost, component, name) = (self.text()?, self.text()?, self.text()?);
                Definition::Parameter(Parameter { value: self.json()?, vhost, component, name })
            }
            7 => Definition::GlobalParameter { name: self.text()?, value: Arc::new(self.json()?) },
            _ => return Err(Invalid("an unknown kind of definition")),
        })
    }

    fn layer(&mut self) -> Result<Layer, DecodeError> {
        Ok(if self.flag()? { Layer::Operator } else { Layer::User })
    }

    /// Not checked as when it was set: what was in force then is in force now.
    fn policy(&mut self) -> Result<Policy, DecodeError> {
        let (vhost, name) = (self.text()?, self.text()?);
        let pattern = Pattern::compile(self.text::<&str>()?).map_err(|_| Invalid("an invalid pattern"))?;
        let apply_to = ApplyTo::from_name(self.text::<&str>()?).ok_or(Invalid("an unknown apply-to"))?;
        let Json::Number(priority) = self.json()? else { return Err(Invalid("a priority that is no number")) };
        let Json::Object(entries) = self.json()? else { return Err(Invalid("a policy that is no object")) };
        let definition = Arc::new(entries.into_iter().collect());
        Ok(Policy { vhost, name, pattern, apply_to, priority, definition })
    }

    fn key(&mut self) -> Result<DefinitionKey, DecodeError> {
        Ok(match self.byte()? {
            0 => DefinitionKey::Vhost(self.text()?),
            1 => DefinitionKey::User(self.text()?),
            2 => DefinitionKey::Permissions { user: self.text()?, vhost: self.text()? },
            3 => DefinitionKey::TopicPermissions {
                user: self.text()?,
                vhost: self.text()?,
                exchange: self.option(Self::text)?,
            },
            4 => DefinitionKey::Policy { layer: self.layer()?, vhost: self.text()?, name: self.text()? },
            5 => DefinitionKey::VhostLimits { vhost: self.text()? },
            6 => DefinitionKey::Parameter { vhost: self.text()?, component: self.text()?, name: self.text()? },
            7 => DefinitionKey::GlobalParameter { name: self.text()? },
            _ => return Err(Invalid("an unknown kind of definition")),
        })
    }
}

#[cfg(test)]
mod tests;
