//! Records as bytes: what is written is read again, and nothing else is.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::broker::{
    block::Slice,
    message::Ttl,
    value::{HeadersBuilder, Value},
};

fn bytes_of(record: &Record) -> Vec<u8> {
    let mut out = Vec::new();
    encode(record, &mut out);
    out
}

fn headers(entries: &[(&str, Value)]) -> Vec<u8> {
    let mut builder = HeadersBuilder::new();
    entries.iter().for_each(|(name, value)| builder.push(name, value));
    builder.finish()
}

fn message(body: &[u8]) -> Message {
    let mut properties = b"before".to_vec();
    properties.extend(headers(&[("name", Value::text("value"))]));
    let range = (6, properties.len() - 6);
    Message::build("exchange", b"key\xFF", &properties, range, body)
}

/// Every part that anybody can see.
fn parts(message: &Message) -> impl PartialEq + std::fmt::Debug {
    (
        (message.exchange().to_vec(), message.key().to_vec()),
        (message.properties().to_vec(), message.headers_range(), message.headers().as_bytes().to_vec()),
        (message.traits, format!("{:?}", message.view())),
        (message.body_to_vec(), message.body_bytes()),
    )
}

fn enqueue(message: Message, body: Option<Position>) -> Record {
    Record::Enqueue { queue: QueueId(3), seq: 1, message, body, deadline: Time::NEVER, at: Time(5) }
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,12}"
}

fn name() -> impl Strategy<Value = Arc<str>> {
    text().prop_map(Arc::from)
}

fn table() -> impl Strategy<Value = Table> {
    let value = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::I64),
        text().prop_map(Value::text),
        prop::collection::vec(any::<i8>().prop_map(Value::I8), 0..3).prop_map(Value::Array),
    ];
    prop::collection::vec((text(), value), 0..4).prop_map(Table::from_iter)
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..200u64, any::<u64>(), Just(u64::MAX)]
}

fn definition() -> impl Strategy<Value = Definition> {
    let limit = || prop::option::of(any::<i64>());
    let tags = || prop::collection::vec(text(), 0..3);
    prop_oneof![
        (name(), text(), tags(), prop::option::of(text())).prop_map(|(name, description, tags, default_queue_type)| {
            Definition::Vhost { name, metadata: Metadata { description, tags, default_queue_type } }
        }),
        (text(), prop::collection::vec(any::<u8>(), 0..9), tags(), limit(), limit()).prop_map(
            |(name, hash, tags, max_connections, max_channels)| {
                let password = PasswordHash::from_bytes(HashAlgorithm::Sha512, hash);
                let limits = UserLimits { max_connections, max_channels };
                Definition::User(Arc::new(User { name, password, tags, limits }))
            }
        ),
        (text(), text(), text(), text(), text()).prop_map(|(user, vhost, configure, write, read)| {
            let permissions = Permissions { configure, write, read };
            Definition::Permissions(PermissionEntry { user, vhost, permissions })
        }),
        (text(), text(), text(), text(), text()).prop_map(|(user, vhost, exchange, write, read)| {
            let permissions = TopicPermissions { write, read };
            Definition::TopicPermissions(TopicPermissionEntry { user, vhost, exchange, permissions })
        }),
        (any::<bool>(), text(), text(), any::<i64>(), 1..99u64).prop_map(|(is_user, vhost, name, priority, length)| {
            let layer = if is_user { Layer::User } else { Layer::Operator };
            let definition = json!({ "max-length": length }).to_string();
            let policy = Policy::parse(layer, &vhost, &name, "^(?!amq\\.)", &definition, priority, "queues").unwrap();
            Definition::Policy(layer, Arc::new(policy))
        }),
        (text(), limit(), limit()).prop_map(|(vhost, max_connections, max_queues)| {
            Definition::VhostLimits { vhost, limits: VhostLimits { max_connections, max_queues } }
        }),
        (text(), text(), text(), any::<i64>()).prop_map(|(vhost, component, name, n)| {
            Definition::Parameter(Parameter { value: json!({ "a": [n, null, "x"] }), vhost, component, name })
        }),
        (text(), any::<bool>())
            .prop_map(|(name, flag)| Definition::GlobalParameter { name, value: Arc::new(json!(flag)) }),
    ]
}

fn key() -> impl Strategy<Value = DefinitionKey> {
    prop_oneof![
        name().prop_map(DefinitionKey::Vhost),
        text().prop_map(DefinitionKey::User),
        (text(), text()).prop_map(|(user, vhost)| DefinitionKey::Permissions { user, vhost }),
        (text(), text(), prop::option::of(text()))
            .prop_map(|(user, vhost, exchange)| DefinitionKey::TopicPermissions { user, vhost, exchange }),
        (text(), text()).prop_map(|(vhost, name)| DefinitionKey::Policy { layer: Layer::Operator, vhost, name }),
        text().prop_map(|vhost| DefinitionKey::VhostLimits { vhost }),
        (text(), text(), text()).prop_map(|(vhost, component, name)| DefinitionKey::Parameter {
            vhost,
            component,
            name
        }),
        text().prop_map(|name| DefinitionKey::GlobalParameter { name }),
    ]
}

/// Records without messages, which alone are told in full by their debug form.
fn record() -> impl Strategy<Value = Record> {
    let seqs = || prop::collection::vec(number(), 0..6);
    let queue = || number().prop_map(QueueId);
    let time = || number().prop_map(Time);
    let to = prop::collection::vec((queue(), number(), time()), 0..3);
    prop_oneof![
        number().prop_map(|body| Record::BodyClosed { body: Position(body) }),
        (queue(), seqs()).prop_map(|(queue, seqs)| Record::Settle { queue, seqs }),
        (queue(), any::<u64>(), seqs()).prop_map(|(queue, below, kept)| Record::Purged { queue, below, kept }),
        (queue(), prop::collection::vec((number(), any::<u32>()), 0..6))
            .prop_map(|(queue, seqs)| Record::Requeue { queue, seqs }),
        (prop::option::of((queue(), number())), to, time()).prop_map(|(from, to, at)| Record::Move {
            from,
            to,
            message: None,
            at
        }),
        (queue(), number()).prop_map(|(queue, up_to)| Record::Handed { queue, up_to }),
        (queue(), seqs(), prop::collection::vec((number(), text()), 0..3), any::<u64>(), time(), time()).prop_map(
            |(queue, seqs, groups, nonce, at, until)| {
                let groups = groups.into_iter().map(|(seq, name)| (seq, name.as_bytes().into())).collect();
                Record::Leased { queue, leased: LeasedTo { seqs, groups, nonce, at, until } }
            }
        ),
        (queue(), seqs(), time()).prop_map(|(queue, seqs, until)| Record::LeaseChanged { queue, seqs, until }),
        (queue(), prop::collection::vec((number(), time()), 0..6))
            .prop_map(|(queue, seqs)| Record::Withheld { queue, seqs }),
        (queue(), seqs()).prop_map(|(queue, seqs)| Record::Unheld { queue, seqs }),
        (queue(), number(), time(), text()).prop_map(|(queue, serial, deadline, key)| Record::Seen {
            keeper: Keeper::Queue(queue),
            seen: Seen { serial, key: key.as_bytes().into(), deadline, seq: serial >> 3 },
        }),
        (name(), name(), number()).prop_map(|(vhost, name, serial)| Record::Seen {
            keeper: Keeper::Exchange { vhost, name },
            seen: Seen { serial, key: [1, 2].into(), deadline: Time::NEVER, seq: 0 },
        }),
        (name(), name(), prop::collection::vec((time(), number()), 0..6)).prop_map(|(vhost, exchange, holds)| {
            let holds = holds.into_iter().map(|(due, hold)| HoldKey { due, hold: HoldId(hold) }).collect();
            Record::Released { vhost, exchange, holds }
        }),
        (queue(), number()).prop_map(|(queue, first)| Record::StreamTrimmed { queue, first }),
        (queue(), name(), name(), any::<bool>(), table(), prop::option::of(name())).prop_map(
            |(queue, vhost, name, auto_delete, arguments, dead_queue)| Record::QueueDeclared {
                queue,
                vhost,
                name,
                auto_delete,
                arguments,
                dead_queue
            }
        ),
        (queue(), table()).prop_map(|(queue, properties)| Record::QueueAltered { queue, properties }),
        queue().prop_map(|queue| Record::QueueDeleted { queue }),
        (name(), name(), text(), any::<bool>(), any::<bool>(), table()).prop_map(
            |(vhost, name, kind, auto_delete, internal, arguments)| Record::ExchangeDeclared {
                vhost,
                name,
                kind,
                auto_delete,
                internal,
                arguments
            }
        ),
        (name(), name()).prop_map(|(vhost, name)| Record::ExchangeDeleted { vhost, name }),
        (name(), name(), table()).prop_map(|(vhost, name, notes)| Record::ExchangeAltered { vhost, name, notes }),
        (any::<(bool, bool)>(), name(), name(), name(), table()).prop_map(
            |((is_bound, to_queue), vhost, source, destination, arguments)| Record::Binding {
                is_bound,
                vhost,
                source,
                destination,
                to_queue,
                key: vec![0, 255],
                arguments,
            }
        ),
        definition().prop_map(Record::Defined),
        key().prop_map(Record::Removed),
    ]
}

/// As they are, in a transaction, or with a message.
fn any_record() -> impl Strategy<Value = Record> {
    let body = || prop::collection::vec(any::<u8>(), 0..40).prop_map(|body| message(&body));
    prop_oneof![
        8 => record(),
        1 => prop::collection::vec(record(), 0..4).prop_map(Record::Transaction),
        1 => body().prop_map(|message| enqueue(message, None)),
        1 => body().prop_map(|message| Record::Body { targets: 2, message }),
        1 => (body(), name()).prop_map(|(message, vhost)| Record::Held {
            exchange: vhost.clone(),
            vhost,
            hold: HoldId(4),
            due: Time(7),
            message,
            body: None,
        }),
        1 => (body(), name())
            .prop_map(|(message, vhost)| Record::Kept { exchange: vhost.clone(), vhost, message }),
        1 => body().prop_map(|message| Record::Move { from: None, to: vec![], message: Some(message), at: Time(1) }),
    ]
}

proptest! {
    #[test]
    fn a_record_is_read_as_it_was_written(record in record()) {
        prop_assert_eq!(format!("{:?}", decode(&bytes_of(&record)).unwrap()), format!("{record:?}"));
    }

    #[test]
    fn a_read_record_is_written_as_it_was(record in any_record()) {
        let bytes = bytes_of(&record);
        prop_assert_eq!(bytes_of(&decode(&bytes).unwrap()), bytes);
    }

    #[test]
    fn a_record_that_is_cut_off_anywhere_is_none(record in any_record(), at in any::<prop::sample::Index>()) {
        let bytes = bytes_of(&record);
        prop_assert!(decode(&bytes[..at.index(bytes.len())]).is_err());
    }

    #[test]
    fn a_damaged_record_is_refused_or_another(
        record in any_record(),
        at in any::<prop::sample::Index>(),
        octet in any::<u8>(),
    ) {
        let mut bytes = bytes_of(&record);
        let at = at.index(bytes.len());
        bytes[at] = octet;
        let _ = decode(&bytes);
    }

    #[test]
    fn numbers_of_every_size_are_kept(n in any::<i64>()) {
        let mut out = Vec::new();
        put(n as u64, &mut out);
        put_signed(n, &mut out);
        let mut reader = Reader { rest: &out, block: None };
        prop_assert_eq!((reader.number(), reader.signed(), reader.rest.len()), (Ok(n as u64), Ok(n), 0));
    }
}

#[test]
fn a_message_keeps_every_part() {
    let read = |message: &Message| match decode(&bytes_of(&enqueue(message.clone(), None))).unwrap() {
        Record::Enqueue { message, deadline: Time::NEVER, .. } => message,
        other => panic!("{other:?}"),
    };
    let mut whole = message(b"body");
    whole.traits = Traits { persistent: true, priority: 7, ttl: Ttl::of_ms(0), has_group: true };
    let pieces = [&b"one "[..], b"two"].map(|piece| Slice::from_vec(piece.to_vec())).to_vec();
    let view = View { headers: Some(headers(&[("x", Value::Void)])), without_ttl: true, ..View::default() };
    let seal = Seal { exchange: "t".into(), bytes: Arc::from(&b"sealed"[..]) };
    let queues = vec![(QueueId(1), 0, Arc::from(&b"one"[..])), (QueueId(300), 0, Arc::from(&b""[..]))];
    let envelopes = Arc::new(Envelopes::from_parts(vec![seal], queues).unwrap());
    for message in [
        whole.clone(),
        message(b""),
        message(b"").with_body_parts(pieces),
        whole.rerouted("dlx", b"dead", view.clone()),
        whole.with_view(View::default()),
        whole.rerouted("dlx", b"dead", view).with_envelopes(envelopes.clone()),
        message(b"").with_envelopes(envelopes),
        whole.with_view(View { headers: Some(Vec::new()), ..View::default() }),
        Message::build("", b"", b"", (0, 0), b"b"),
    ] {
        assert_eq!(parts(&read(&message)), parts(&message));
    }
}

#[test]
fn a_body_is_kept_until_as_many_have_named_it_as_were_to() {
    let mut decoder = Decoder::default();
    let id = Position(8);
    decoder.decode(&bytes_of(&Record::Body { targets: 2, message: message(b"body") }), id).unwrap();
    let named = bytes_of(&enqueue(message(b"is not written again"), Some(id)));
    assert!(named.len() < 20);
    for _ in 0..2 {
        let Record::Enqueue { message, body, .. } = decoder.decode(&named, Position(9)).unwrap() else {
            panic!("another record")
        };
        assert_eq!((message.body_to_vec(), body), (b"body".to_vec(), Some(id)));
    }
    assert_eq!(decoder.bodies_count(), 0);
    assert_eq!(decoder.decode(&named, Position(9)).unwrap_err(), DecodeError::UnknownBody(8));
}

#[test]
fn a_message_that_is_held_again_may_be_named_by_its_place() {
    let mut decoder = Decoder::default();
    let id = Position(8);
    decoder.decode(&bytes_of(&Record::Body { targets: 1, message: message(b"body") }), id).unwrap();
    let (hold, due) = (HoldId(4), Time(7));
    let message = message(b"is not written again");
    let held = Record::Held { vhost: "/".into(), exchange: "x".into(), hold, due, message, body: Some(id) };
    let transaction = bytes_of(&Record::Transaction(vec![held]));
    let Record::Transaction(records) = decoder.decode(&transaction, Position(9)).unwrap() else {
        panic!("another record")
    };
    let [Record::Held { message, body, hold: HoldId(4), due: Time(7), .. }] = &records[..] else {
        panic!("another record")
    };
    assert_eq!((message.body_to_vec(), *body), (b"body".to_vec(), Some(id)));
    assert_eq!(decoder.bodies_count(), 0);
}

#[test]
fn a_body_that_was_closed_is_named_no_more() {
    let mut decoder = Decoder::default();
    let body = Position(8);
    decoder.decode(&bytes_of(&Record::Body { targets: 2, message: message(b"body") }), body).unwrap();
    decoder.decode(&bytes_of(&Record::BodyClosed { body }), Position(9)).unwrap();
    assert_eq!(decoder.bodies_count(), 0);
}

#[test]
fn records_of_a_newer_broker_are_refused_by_name() {
    let mut bytes = bytes_of(&Record::Handed { queue: QueueId(1), up_to: 2 });
    bytes[1] = 2;
    assert_eq!(decode(&bytes).unwrap_err(), DecodeError::UnknownVersion { kind: HANDED, version: 2 });
    bytes[0] = u8::MAX;
    assert_eq!(decode(&bytes).unwrap_err(), DecodeError::UnknownKind(u8::MAX));
}

#[test]
fn what_follows_a_record_is_no_part_of_it() {
    let mut bytes = bytes_of(&Record::QueueDeleted { queue: QueueId(1) });
    bytes.push(0);
    assert_eq!(decode(&bytes).unwrap_err(), DecodeError::Trailing(1));
}

#[test]
fn a_list_longer_than_the_record_is_not_begun() {
    let mut bytes = vec![SETTLE, VERSION, 1];
    put(u64::MAX, &mut bytes);
    assert_eq!(decode(&bytes).unwrap_err(), Truncated);
}

#[test]
fn transactions_do_not_nest() {
    let nested = Record::Transaction(vec![Record::Transaction(Vec::new())]);
    assert!(matches!(decode(&bytes_of(&nested)), Err(Invalid(_))));
}
