//! Streams against their rules, and random operations against a plain list.

use proptest::prelude::*;

use super::*;
use crate::broker::value::HeadersBuilder;

fn message(body: &[u8]) -> Message {
    Message::build("", b"s", b"", (0, 0), body)
}

fn filtered(value: &str) -> Message {
    let mut headers = HeadersBuilder::new();
    headers.push("x-stream-filter-value", &Value::text(value));
    let headers = headers.finish();
    Message::build("", b"s", &headers, (0, headers.len()), b"body")
}

/// Adds a message that is as safe as it will be.
fn append(stream: &mut Stream, message: Message, now: Time, place: Position) -> u64 {
    let offset = stream.append(message, now, place);
    stream.mark_safe();
    offset
}

/// A stream with one message per given time.
fn stream_at(times: &[u64]) -> Stream {
    let mut stream = Stream::new(StreamOptions::default());
    for &time in times {
        append(&mut stream, message(b"body"), Time(time), Position::NONE);
    }
    stream
}

fn filter(entries: &[(&str, Value)]) -> Filter {
    Filter::parse(&entries.iter().cloned().collect())
}

/// The offsets that a consumer with this filter is given.
fn offsets(stream: &Stream, filter: &Filter) -> Vec<u64> {
    let (mut from, mut offsets) = (0, Vec::new());
    loop {
        match stream.next(from, Time(0), filter) {
            Next::Message(offset, _) => {
                offsets.push(offset);
                from = offset + 1;
            }
            Next::Searched(offset) => from = offset,
            Next::Cold(offset) => panic!("{offset} is not in memory"),
            Next::End(_) => return offsets,
        }
    }
}

#[test]
fn offsets_count_from_zero_and_reading_takes_nothing() {
    let stream = stream_at(&[1, 2, 3]);
    assert_eq!((stream.first_offset(), stream.next_offset(), stream.len()), (0, 3, 3));
    for _ in 0..2 {
        assert_eq!(offsets(&stream, &Filter::default()), [0, 1, 2]);
    }
    assert_eq!(stream.get(1).map(|(_, time)| time), Some(Time(2)));
    assert!(stream.get(3).is_none());
}

#[test]
fn an_empty_stream_starts_everybody_at_zero() {
    let stream = stream_at(&[]);
    for spec in [OffsetSpec::First, OffsetSpec::Last, OffsetSpec::Next, OffsetSpec::Offset(5), OffsetSpec::Interval(9)]
    {
        assert_eq!(stream.resolve(&spec, Time(10)).offset, 0);
    }
    assert!(matches!(stream.next(0, Time(0), &Filter::default()), Next::End(0)));
}

#[test]
fn last_is_the_start_of_what_came_together() {
    let stream = stream_at(&[1, 1, 5, 5, 5]);
    assert_eq!(stream.resolve(&OffsetSpec::Last, Time(9)).offset, 2);
    assert_eq!(stream.resolve(&OffsetSpec::Next, Time(9)).offset, 5);
}

#[test]
fn an_offset_not_yet_given_is_the_next() {
    let stream = stream_at(&[1, 1, 1]);
    assert_eq!(stream.resolve(&OffsetSpec::Offset(2), Time(9)).offset, 2);
    assert_eq!(stream.resolve(&OffsetSpec::Offset(3), Time(9)).offset, 3);
    assert_eq!(stream.resolve(&OffsetSpec::Offset(99), Time(9)).offset, 3);
}

#[test]
fn a_time_is_the_first_message_at_it_or_later() {
    let times: Vec<u64> = (0..1000).map(|n| 10_000 + n / 5 * 1000).collect();
    let stream = stream_at(&times);
    assert_eq!(stream.resolve(&OffsetSpec::Timestamp(0), Time(0)).offset, 0);
    assert_eq!(stream.resolve(&OffsetSpec::Timestamp(12), Time(0)).offset, 10);
    assert_eq!(stream.resolve(&OffsetSpec::Timestamp(u64::MAX), Time(0)).offset, 1000);
    assert_eq!(stream.resolve(&OffsetSpec::Interval(2500), Time(15_000)).offset, 15);
    assert_eq!(stream.resolve(&OffsetSpec::Interval(u64::MAX), Time(15_000)).offset, 0);
}

#[test]
fn a_time_that_runs_backwards_counts_as_the_last() {
    let stream = stream_at(&[10_000, 4_000]);
    assert_eq!(stream.get(1).map(|(_, time)| time), Some(Time(10_000)));
}

#[test]
fn bytes_over_the_limit_take_the_oldest_segments() {
    let options = StreamOptions { max_length_bytes: Some(100_000), ..StreamOptions::default() };
    let mut stream = Stream::new(options);
    for now in 0..1000 {
        append(&mut stream, message(&[0; 1000]), Time(now), Position::NONE);
        let dropped = stream.retain(Time(now));
        assert!(dropped <= SEGMENT_MESSAGES_MAX);
    }
    assert!(stream.bytes() <= 100_000);
    assert!(stream.bytes() > 80_000, "no more goes than a segment too many");
    assert_eq!(stream.next_offset(), 1000);
    assert_eq!(stream.len(), 1000 - stream.first_offset());
    let first = stream.first_offset();
    assert!(stream.get(first - 1).is_none());
    assert!(stream.get(first).is_some());
    assert_eq!(stream.resolve(&OffsetSpec::Offset(0), Time(0)).offset, first);
    assert!(matches!(stream.next(0, Time(0), &Filter::default()), Next::Message(offset, _) if offset == first));
}

#[test]
fn the_last_segment_stays_however_small_the_limit() {
    let options = StreamOptions { max_length_bytes: Some(1), max_age_ms: Some(1), ..StreamOptions::default() };
    let mut stream = Stream::new(options);
    for now in 0..10 {
        append(&mut stream, message(b"body"), Time(100 * now), Position::NONE);
        while stream.retain(Time(1_000_000)) > 0 {}
    }
    assert_eq!((stream.first_offset(), stream.next_offset()), (9, 10));
}

#[test]
fn age_takes_segments_whose_last_message_is_older() {
    let options = StreamOptions { max_age_ms: Some(8000), ..StreamOptions::default() };
    let mut stream = Stream::new(options);
    for now in 0..10 {
        append(&mut stream, message(b"body"), Time(now * 1001), Position::NONE);
    }
    assert_eq!(stream.retain(Time(8000)), 0);
    assert_eq!(stream.next_expiry(), Some(Time(8001)));
    assert_eq!(stream.retain(Time(8001)), 1);
    assert_eq!(stream.first_offset(), 1);
    assert_eq!(stream.retain(Time(8001)), 0);
}

#[test]
fn new_options_hold_for_what_is_there() {
    let mut stream = Stream::new(StreamOptions::default());
    for now in 0..3 * SEGMENT_MESSAGES_MAX as u64 {
        append(&mut stream, message(b"body"), Time(now), Position::NONE);
    }
    assert_eq!(stream.retain(Time(1_000_000)), 0);
    stream.set_options(StreamOptions { max_age_ms: Some(10), ..StreamOptions::default() });
    assert_eq!(stream.retain(Time(1_000_000)), SEGMENT_MESSAGES_MAX);
    assert_eq!(stream.retain(Time(1_000_000)), SEGMENT_MESSAGES_MAX);
    assert_eq!(stream.retain(Time(1_000_000)), 0);
}

#[test]
fn a_filter_passes_one_of_its_values() {
    let mut stream = Stream::new(StreamOptions::default());
    for value in ["a", "b", "c", "a"] {
        append(&mut stream, filtered(value), Time(0), Position::NONE);
    }
    append(&mut stream, message(b"no value"), Time(0), Position::NONE);
    let text = |value| ("x-stream-filter", Value::text(value));
    assert_eq!(offsets(&stream, &filter(&[text("a")])), [0, 3]);
    let list = ("x-stream-filter", Value::Array(vec![Value::text("c"), Value::I8(1), Value::text("a")]));
    assert_eq!(offsets(&stream, &filter(&[list])), [0, 2, 3]);
    let unfiltered = ("x-stream-match-unfiltered", Value::Bool(true));
    assert_eq!(offsets(&stream, &filter(&[text("a"), unfiltered.clone()])), [0, 3, 4]);
    assert_eq!(offsets(&stream, &filter(&[unfiltered])), [0, 1, 2, 3, 4]);
    assert!(filter(&[]).is_open());
}

#[test]
fn a_search_without_a_hit_is_bounded_and_goes_on_where_it_stopped() {
    let mut stream = Stream::new(StreamOptions::default());
    for _ in 0..1000 {
        append(&mut stream, filtered("a"), Time(0), Position::NONE);
    }
    append(&mut stream, filtered("b"), Time(0), Position::NONE);
    let filter = filter(&[("x-stream-filter", Value::text("b"))]);
    assert!(matches!(stream.next(0, Time(0), &filter), Next::Searched(offset) if offset == SCAN_MESSAGES_MAX as u64));
    assert_eq!(offsets(&stream, &filter), [1000]);
}

#[test]
fn old_messages_do_not_pin_the_buffers_they_came_in() {
    use std::sync::Arc;

    use crate::broker::message::{Layout, Traits};
    let mut stream = Stream::new(StreamOptions::default());
    let block = Arc::new(vec![0; 1 << 20]);
    append(&mut stream, Message::new(block.clone(), Layout::default(), Traits::default()), Time(0), Position::NONE);
    for now in 0..UNCOMPACTED_MESSAGES as u64 {
        append(&mut stream, message(b"body"), Time(now), Position::NONE);
    }
    assert_eq!(Arc::strong_count(&block), 1);
}

#[derive(Clone, Debug)]
enum Operation {
    Append { body_bytes: usize, value: Option<u8>, later_ms: u64 },
    Retain,
    Limit(StreamOptions),
    Resolve(OffsetSpec),
    Read { from: u64, value: Option<u8> },
}

fn any_options() -> impl Strategy<Value = StreamOptions> {
    (proptest::option::of(0_u64..20_000), proptest::option::of(0_u64..500), proptest::option::of(0_u64..5000)).prop_map(
        |(max_length_bytes, max_age_ms, segment_bytes_max)| StreamOptions {
            max_length_bytes,
            max_age_ms,
            segment_bytes_max,
        },
    )
}

fn any_operation() -> impl Strategy<Value = Operation> {
    let value = || proptest::option::of(b'a'..b'd');
    prop_oneof![
        8 => (0_usize..300, value(), 0_u64..20)
            .prop_map(|(body_bytes, value, later_ms)| Operation::Append { body_bytes, value, later_ms }),
        2 => Just(Operation::Retain),
        1 => any_options().prop_map(Operation::Limit),
        2 => prop_oneof![
            Just(OffsetSpec::First), Just(OffsetSpec::Last), Just(OffsetSpec::Next),
            (0_u64..400).prop_map(OffsetSpec::Offset),
            (0_u64..5).prop_map(OffsetSpec::Timestamp),
            (0_u64..3000).prop_map(OffsetSpec::Interval),
        ].prop_map(Operation::Resolve),
        2 => (0_u64..400, value()).prop_map(|(from, value)| Operation::Read { from, value }),
    ]
}

proptest! {
    #[test]
    fn a_stream_is_a_list_whose_head_is_cut(operations in proptest::collection::vec(any_operation(), 1..200)) {
        let mut stream = Stream::new(StreamOptions::default());
        let mut list: Vec<(u64, Option<u8>)> = Vec::new();
        let mut first = 0_usize;
        let mut now = 1000;
        for operation in operations {
            match operation {
                Operation::Append { body_bytes, value, later_ms } => {
                    now += later_ms;
                    let message = match value {
                        Some(value) => filtered(&char::from(value).to_string()),
                        None => message(&vec![0; body_bytes]),
                    };
                    prop_assert_eq!(append(&mut stream, message, Time(now), Position::NONE), list.len() as u64);
                    list.push((now, value));
                }
                Operation::Retain => first += stream.retain(Time(now)),
                Operation::Limit(options) => stream.set_options(options),
                Operation::Resolve(spec) => {
                    let from = |time: u64| {
                        list[first..].iter().position(|(at, _)| *at >= time).map_or(list.len(), |index| first + index)
                    };
                    let expected = match spec {
                        OffsetSpec::First => first,
                        OffsetSpec::Last => list[first..].last().map_or(list.len(), |(last, _)| from(*last)),
                        OffsetSpec::Next => list.len(),
                        OffsetSpec::Offset(offset) => (offset as usize).clamp(first, list.len()),
                        OffsetSpec::Timestamp(secs) => from(secs * 1000),
                        OffsetSpec::Interval(ms) => from(now.saturating_sub(ms)),
                    };
                    prop_assert_eq!(stream.resolve(&spec, Time(now)).offset, expected as u64);
                }
                Operation::Read { from, value } => {
                    let wanted = value.map(|value| ("x-stream-filter", Value::text(char::from(value).to_string())));
                    let filter = Filter::parse(&wanted.into_iter().collect());
                    let start = (from as usize).max(first).min(list.len());
                    let hit = list[start..].iter().position(|(_, held)| value.is_none() || *held == value);
                    match (stream.next(from, Time(0), &filter), hit) {
                        (Next::Message(offset, _), Some(hit)) => prop_assert_eq!(offset, (start + hit) as u64),
                        (Next::End(end), None) => prop_assert_eq!(end, from.max(list.len() as u64)),
                        (Next::Searched(offset), hit) => {
                            prop_assert_eq!(offset, (start + SCAN_MESSAGES_MAX) as u64);
                            prop_assert!(hit.is_none_or(|hit| hit >= SCAN_MESSAGES_MAX));
                        }
                        (next, hit) => prop_assert!(false, "{:?} but {:?}", next, hit),
                    }
                }
            }
            prop_assert_eq!(stream.first_offset(), first as u64);
            prop_assert_eq!(stream.len(), (list.len() - first) as u64);
            let held: u64 = (first..list.len())
                .map(|offset| stream.get(offset as u64).map_or(0, |(message, _)| message.body_bytes()))
                .sum();
            prop_assert_eq!(stream.body_bytes(), held);
        }
    }
}
