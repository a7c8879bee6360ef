//! Queue arguments against RabbitMQ's measured answers.

use proptest::prelude::*;

use super::*;

fn declaration<'a>(arguments: &'a Table) -> Declaration<'a> {
    Declaration {
        name: "q",
        vhost: "/",
        durable: true,
        exclusive: false,
        auto_delete: false,
        server_named: false,
        arguments,
        default_queue_type: None,
    }
}

fn refusal(entries: &[(&str, Value)]) -> String {
    let arguments = entries.iter().cloned().collect();
    parse(&declaration(&arguments)).expect_err("refused").to_string()
}

fn parsed(entries: &[(&str, Value)]) -> QueueArguments {
    let arguments = entries.iter().cloned().collect();
    parse(&declaration(&arguments)).expect("accepted")
}

fn quorum() -> (&'static str, Value) {
    (QUEUE_TYPE, Value::text("quorum"))
}

fn stream() -> (&'static str, Value) {
    (QUEUE_TYPE, Value::text("stream"))
}

#[test]
fn refusals_have_rabbitmqs_words() {
    let text = Value::text;
    for (name, value, reason) in [
        ("x-expires", Value::I32(-1), "{value_negative,-1}"),
        ("x-expires", Value::I32(0), "{value_zero,0}"),
        ("x-expires", Value::I64(315_360_000_001), "{value_too_large,315360000001}"),
        ("x-expires", text("1"), "\"expected integer, got longstr\""),
        ("x-expires", Value::Void, "\"expected integer, got void\""),
        ("x-expires", Value::Bytes(vec![]), "\"expected integer, got binary\""),
        ("x-message-ttl", Value::I64(315_360_000_001), "{value_too_large,315360000001}"),
        ("x-message-ttl", Value::I32(-5), "{value_negative,-5}"),
        ("x-dead-letter-routing-key", text("k"), "routing_key_but_no_dlx_defined"),
        ("x-dead-letter-routing-key", Value::I32(1), "{unacceptable_type,signedint}"),
        ("x-dead-letter-strategy", text("zz"), "invalid_dlx_strategy"),
        ("x-max-length", Value::I32(-1), "{value_negative,-1}"),
        ("x-max-priority", Value::I32(256), "{max_value_exceeded,256}"),
        ("x-overflow", text("zzz"), "invalid_overflow"),
        ("x-overflow", Value::I32(1), "{unacceptable_type,signedint}"),
        ("x-queue-mode", text("z"), "\"unsupported queue mode 'z'\""),
        ("x-queue-version", Value::I32(3), "\"unsupported queue version '3'\""),
        ("x-single-active-consumer", text("true"), "{unacceptable_type,longstr}"),
        ("x-queue-type", text("zzz"), "\"unsupported queue type 'zzz'\""),
        ("x-queue-type", Value::I32(1), "{unacceptable_type,signedint}"),
        ("x-queue-leader-locator", text("zzz"), "invalid_queue_locator_arg"),
        ("x-quorum-initial-group-size", Value::I32(0), "{value_zero,0}"),
    ] {
        let expected = format!("invalid arg '{name}' for queue 'q' in vhost '/': {reason}");
        assert_eq!(refusal(&[(name, value)]), expected);
    }
    assert_eq!(
        refusal(&[(DEAD_LETTER_EXCHANGE, Value::I32(1))]),
        "invalid type 'signedint' for arg 'x-dead-letter-exchange' in queue 'q' in vhost '/'"
    );
}

#[test]
fn stream_refusals_have_rabbitmqs_words() {
    for (name, value, text) in [
        ("x-max-age", Value::text("7X"), "invalid arg 'x-max-age' for queue 'q' in vhost '/': invalid_max_age"),
        ("x-max-age", Value::text("0s"), "invalid arg 'x-max-age' for queue 'q' in vhost '/': invalid_max_age"),
        ("x-max-age", Value::text("abc"), "invalid arg 'x-max-age' for queue 'q' in vhost '/': invalid_max_age"),
        ("x-max-age", Value::I8(1), "invalid arg 'x-max-age' for queue 'q' in vhost '/': {unacceptable_type,byte}"),
        (SEGMENT_BYTES, Value::I64(3_000_000_001), "Exceeded max value for x-stream-max-segment-size-bytes"),
        (
            "x-max-priority",
            Value::I32(5),
            "invalid arg 'x-max-priority' for queue 'q' in vhost '/' of queue type rabbit_stream_queue",
        ),
    ] {
        assert_eq!(refusal(&[stream(), (name, value)]), text);
    }
    assert_eq!(
        refusal(&[("x-max-age", Value::text("7D"))]),
        "invalid arg 'x-max-age' for queue 'q' in vhost '/' of queue type rabbit_classic_queue"
    );
}

#[test]
fn of_several_mistakes_rabbitmqs_first_is_reported() {
    let named = |entries: &[(&str, Value)], name: &str| {
        let text = refusal(entries);
        assert!(text.contains(&format!("'{name}'")), "{text}");
    };
    let negative = Value::I32(-1);
    named(&[("x-max-length", negative.clone()), ("x-expires", negative.clone())], "x-expires");
    named(&[(QUEUE_TYPE, Value::text("zzz")), (DEAD_LETTER_EXCHANGE, Value::I32(1))], DEAD_LETTER_EXCHANGE);
    named(&[stream(), ("x-max-priority", negative), ("x-max-age", Value::text("0s"))], "x-max-age");
    named(&[("x-max-age", Value::text("7D")), ("x-max-priority", Value::I32(300))], "x-max-priority");
}

#[test]
fn quorum_queues_and_streams_are_durable_and_shared() {
    let arguments = Table::from_iter([quorum()]);
    let good = declaration(&arguments);
    let text = |declaration: Declaration<'_>| parse(&declaration).expect_err("refused").to_string();
    assert_eq!(
        text(Declaration { durable: false, ..good }),
        "invalid property 'non-durable' for queue 'q' in vhost '/'"
    );
    assert_eq!(
        text(Declaration { durable: false, exclusive: true, ..good }),
        "invalid property 'exclusive-owner' for queue 'q' in vhost '/'"
    );
    assert_eq!(
        text(Declaration { exclusive: true, auto_delete: true, ..good }),
        "invalid property 'auto-delete' for queue 'q' in vhost '/'"
    );
    assert_eq!(
        text(Declaration { server_named: true, ..good }),
        "Cannot declare a server-named queue for type rabbit_quorum_queue"
    );
}

#[test]
fn arguments_of_classic_and_quorum_queues_are_honoured_on_both() {
    assert_eq!(parsed(&[quorum(), ("x-max-priority", Value::I32(5))]).max_priority, Some(5));
    assert_eq!(parsed(&[("x-delivery-limit", Value::I32(3))]).delivery_limit, Some(3));
    assert_eq!(parsed(&[("x-delivery-limit", Value::I32(-1))]).delivery_limit, None);
    assert_eq!(parsed(&[("x-delivery-limit", Value::text("a"))]).delivery_limit, None);
}

#[test]
fn deduplication_has_defaults() {
    let dedup = parsed(&[("x-message-deduplication", Value::Bool(true))]).deduplication.expect("asked for");
    assert_eq!(
        dedup,
        DedupArguments {
            cache_size: None,
            cache_ttl_ms: None,
            header: DEDUP_HEADER_DEFAULT.into(),
            scope: DedupScope::Queue
        }
    );
    assert_eq!(parsed(&[("x-cache-size", Value::I32(7))]).deduplication, None);
}

#[test]
fn the_vhosts_default_type_applies_where_the_properties_allow() {
    let none = Table::new();
    let good = Declaration { default_queue_type: Some(QueueType::Quorum), ..declaration(&none) };
    assert_eq!(parse(&good).expect("accepted").queue_type, QueueType::Quorum);
    assert_eq!(good.effective_arguments().get(QUEUE_TYPE), Some(&Value::text("quorum")));
    let exclusive = Declaration { exclusive: true, ..good };
    assert_eq!(parse(&exclusive).expect("accepted").queue_type, QueueType::Classic);
    assert!(exclusive.effective_arguments().is_empty());
}

fn difference(stored: &[(&str, Value)], received: &[(&str, Value)]) -> Option<String> {
    let (stored, received) = (stored.iter().cloned().collect(), received.iter().cloned().collect());
    let queue_type = parse(&declaration(&stored)).expect("accepted").queue_type;
    let stored = Stored { durable: true, auto_delete: false, queue_type, arguments: &stored };
    inequivalence(&stored, &declaration(&received)).map(|difference| difference.to_string())
}

#[test]
fn differing_values_are_named_without_their_kind() {
    let stored = [("x-max-length", Value::I16(10))];
    for (received, text) in [
        (Value::I64(11), "received '11' but current is '10'"),
        (Value::text("10"), "received '10' but current is '10'"),
        (Value::F64(10.0), "received '10.0' but current is '10'"),
        (Value::Bool(true), "received 'true' but current is '10'"),
        (Value::Void, "received none but current is '10'"),
    ] {
        assert_eq!(
            difference(&stored, &[("x-max-length", received)]),
            Some(format!("inequivalent arg 'x-max-length' for queue 'q' in vhost '/': {text}"))
        );
    }
}

#[test]
fn absent_and_new_arguments_are_named_with_their_kind() {
    let length = ("x-max-length", Value::I16(10));
    assert_eq!(
        difference(std::slice::from_ref(&length), &[]).as_deref(),
        Some(
            "inequivalent arg 'x-max-length' for queue 'q' in vhost '/': \
             received none but current is the value '10' of type 'short'"
        )
    );
    assert_eq!(
        difference(&[], &[("x-dead-letter-exchange", Value::text("dlx"))]).as_deref(),
        Some(
            "inequivalent arg 'x-dead-letter-exchange' for queue 'q' in vhost '/': \
             received the value 'dlx' of type 'longstr' but current is none"
        )
    );
}

#[test]
fn kinds_that_hold_the_same_are_equivalent() {
    let stored = [("x-max-length", Value::I16(10))];
    assert_eq!(difference(&stored, &[("x-max-length", Value::I64(10))]), None);
    assert_eq!(difference(&stored, &[("x-max-length", Value::Timestamp(10))]), None);
    let stored = [(QUEUE_TYPE, Value::text("quorum"))];
    assert_eq!(difference(&stored, &[(QUEUE_TYPE, Value::Bytes(b"quorum".to_vec()))]), None);
}

#[test]
fn unknown_arguments_are_not_compared() {
    assert_eq!(difference(&[], &[("x-foo", Value::I8(1)), ("x-max-age", Value::text("1h"))]), None);
}

#[test]
fn classic_is_the_type_that_needs_no_name() {
    let classic = (QUEUE_TYPE, Value::text("classic"));
    assert_eq!(difference(&[], std::slice::from_ref(&classic)), None);
    assert_eq!(difference(std::slice::from_ref(&classic), &[]), None);
    assert_eq!(
        difference(&[classic], &[quorum()]).as_deref(),
        Some(
            "inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': \
             received 'quorum' but current is 'classic'"
        )
    );
}

#[test]
fn an_exclusive_queue_is_not_durable() {
    let none = Table::new();
    let exclusive = Declaration { exclusive: true, ..declaration(&none) };
    let mut stored = Stored { durable: false, auto_delete: false, queue_type: QueueType::Classic, arguments: &none };
    assert_eq!(inequivalence(&stored, &exclusive), None);
    stored.durable = true;
    stored.auto_delete = true;
    let transient = Declaration { durable: false, ..declaration(&none) };
    assert_eq!(
        inequivalence(&stored, &transient).map(|difference| difference.to_string()).as_deref(),
        Some("inequivalent arg 'durable' for queue 'q' in vhost '/': received 'false' but current is 'true'")
    );
    assert_eq!(
        inequivalence(&stored, &declaration(&none)).map(|difference| difference.to_string()).as_deref(),
        Some("inequivalent arg 'auto_delete' for queue 'q' in vhost '/': received 'false' but current is 'true'")
    );
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::I64),
        (0_i64..10).prop_map(Value::I64),
        any::<f64>().prop_map(Value::F64),
        any::<u64>().prop_map(Value::Timestamp),
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(Value::Text),
        "[0-9]{0,25}[YMDhms]?".prop_map(Value::text),
        Just(Value::Void),
        Just(Value::text("quorum")),
        Just(Value::text("stream")),
    ]
}

fn any_table() -> impl Strategy<Value = Table> {
    let names: Vec<&str> =
        QUEUE_ONLY.iter().chain(STREAM_ONLY).chain(COMPARED_ALL).chain(&[QUEUE_TYPE]).copied().collect();
    proptest::collection::vec((proptest::sample::select(names), any_value()), 0..6)
        .prop_map(|entries| entries.into_iter().collect())
}

proptest! {
    #[test]
    fn no_arguments_panic(stored in any_table(), received in any_table(), durable: bool, exclusive: bool) {
        let declaration = Declaration { durable, exclusive, ..declaration(&received) };
        let _ = parse(&declaration);
        for queue_type in [QueueType::Classic, QueueType::Quorum, QueueType::Stream] {
            let stored = Stored { durable, auto_delete: false, queue_type, arguments: &stored };
            let _ = inequivalence(&stored, &declaration);
        }
    }

    #[test]
    fn a_queue_is_equivalent_to_its_own_declaration(arguments in any_table()) {
        let declaration = declaration(&arguments);
        if let Ok(parsed) = parse(&declaration) {
            let stored = Stored {
                durable: true, auto_delete: false, queue_type: parsed.queue_type, arguments: &arguments,
            };
            prop_assert_eq!(inequivalence(&stored, &declaration), None);
        }
    }
}
