//! The cold part of a stream against its rules.

use super::*;
use crate::broker::{
    message::Message,
    queue::stream::{Filter, Next, OffsetSpec, SEGMENT_MESSAGES_MAX, Start, StreamOptions},
};

const NOTHING: Window = Window { bytes: 0, messages: 0 };
const OF_SEGMENT: u64 = SEGMENT_MESSAGES_MAX as u64;

fn message(offset: u64) -> Message {
    Message::build("", b"s", b"", (0, 0), offset.to_string().as_bytes())
}

/// Messages that came a second after each other, the first at second 0, in the log at position 1 and on.
fn stream_of(count: u64) -> Stream {
    let mut stream = Stream::new(StreamOptions::default());
    stream.keep_cold();
    append(&mut stream, count);
    stream
}

fn append(stream: &mut Stream, count: u64) {
    for _ in 0..count {
        let offset = stream.next_offset();
        stream.append(message(offset), Time(offset * 1000), Position(offset + 1));
    }
    stream.mark_safe();
}

/// Has the index have everything, and memory what must be there.
fn evict(stream: &mut Stream) -> Look {
    let look = stream.look(Position(0), &NOTHING).unwrap();
    stream.looked(true, &NOTHING);
    look
}

fn page(wanted: Wanted) -> Page {
    let Wanted::Front { from, to, .. } = wanted else { panic!("streams want nothing else") };
    let filed = |offset| {
        let entry = Entry { time: Time(offset * 1000), place: Position(offset + 1), message: message(offset) };
        (filed(offset, &entry), entry.message)
    };
    let result = Ok((from..to).map(filed).collect());
    Page { generation: 0, wanted, result, next: None, next_deadline: Time::NEVER }
}

fn fetch(stream: &mut Stream, offset: u64) {
    stream.want(offset);
    for wanted in stream.wanted_pages() {
        assert_eq!(stream.page_in(page(wanted)), None);
    }
}

fn is_in_memory(stream: &Stream, offset: u64) -> bool {
    stream.get(offset).is_some()
}

#[test]
fn what_is_behind_the_window_leaves_memory_but_for_the_last_segment() {
    let mut stream = stream_of(3 * OF_SEGMENT);
    let look = evict(&mut stream);
    assert_eq!((look.puts.len() as u64, look.segments.len()), (3 * OF_SEGMENT, 3));
    assert!(!is_in_memory(&stream, 0));
    assert!(!is_in_memory(&stream, 2 * OF_SEGMENT - 1));
    assert!(is_in_memory(&stream, 2 * OF_SEGMENT));
    assert_eq!((stream.len(), stream.cold_count().0), (3 * OF_SEGMENT, 2 * OF_SEGMENT));
    assert!(matches!(stream.next(5, Time(0), &Filter::default()), Next::Cold(5)));
}

#[test]
fn what_the_index_may_not_have_stays() {
    let mut stream = stream_of(3 * OF_SEGMENT);
    stream.look(Position(0), &NOTHING).unwrap();
    assert!(stream.looked(false, &NOTHING).is_empty());
    assert!(is_in_memory(&stream, 0));
    // It is told again.
    assert_eq!(evict(&mut stream).puts.len() as u64, 3 * OF_SEGMENT);
}

#[test]
fn a_look_tells_what_is_before_its_place_and_nothing_twice() {
    let mut stream = stream_of(10);
    let window = Window::default();
    let look = stream.look(Position(5), &window).unwrap();
    assert_eq!((look.puts.len(), look.segments[0].count), (4, 4));
    stream.looked(true, &window);
    assert!(stream.look(Position(5), &window).is_none());
    let look = stream.look(Position(8), &window).unwrap();
    assert_eq!(look.puts.iter().map(|put| put.seq).collect::<Vec<_>>(), [4, 5, 6]);
    assert_eq!(look.segments[0].count, 7, "of a segment that has grown all is told");
    assert_eq!(look.puts[0].deadline, Time(4000));
}

#[test]
fn a_stream_out_of_the_index_goes_on_where_the_index_ends() {
    let mut before = stream_of(OF_SEGMENT + 10);
    let look = evict(&mut before);
    let mut stream = Stream::new(StreamOptions::default());
    stream.keep_cold();
    stream.restore_index(look.header.unwrap(), look.segments);
    let extent = |stream: &Stream| (stream.first_offset(), stream.next_offset(), stream.bytes(), stream.body_bytes());
    assert_eq!(extent(&stream), extent(&before));
    assert!(stream.look(Position(1000), &NOTHING).is_none());
    append(&mut stream, 5);
    for spec in [OffsetSpec::First, OffsetSpec::Last, OffsetSpec::Next, OffsetSpec::Offset(7)] {
        append(&mut before, 5 * u64::from(spec == OffsetSpec::First));
        assert_eq!(stream.resolve(&spec, Time(0)), before.resolve(&spec, Time(0)));
    }
    fetch(&mut stream, OF_SEGMENT);
    assert!(matches!(stream.next(OF_SEGMENT + 9, Time(0), &Filter::default()), Next::Message(..)));
    assert!(matches!(stream.next(OF_SEGMENT + 10, Time(0), &Filter::default()), Next::Message(..)));
}

#[test]
fn a_time_inside_of_a_cold_segment_is_found_by_its_reader() {
    let mut stream = stream_of(3 * OF_SEGMENT);
    evict(&mut stream);
    let start = stream.resolve(&OffsetSpec::Timestamp(300), Time(0));
    assert_eq!(start, Start { offset: OF_SEGMENT, since: Time(300_000) });
    fetch(&mut stream, start.offset);
    let next = stream.next(start.offset, start.since, &Filter::default());
    assert!(matches!(next, Next::Message(300, _)), "{next:?}");
    let resident = stream.resolve(&OffsetSpec::Timestamp(2 * OF_SEGMENT + 7), Time(0));
    assert_eq!(resident.offset, 2 * OF_SEGMENT + 7);
}

#[test]
fn a_segment_is_asked_for_once() {
    let mut stream = stream_of(3 * OF_SEGMENT);
    evict(&mut stream);
    stream.want(3);
    stream.want(4);
    let wanted = stream.wanted_pages();
    assert_eq!(wanted.len(), 1);
    stream.want(5);
    assert!(stream.wanted_pages().is_empty());
    assert_eq!(stream.page_in(page(wanted[0])), None);
    stream.want(6);
    assert!(stream.wanted_pages().is_empty(), "it is here");
}

#[test]
fn few_fetched_segments_stay_and_those_read_last() {
    let mut stream = stream_of(12 * OF_SEGMENT);
    evict(&mut stream);
    for segment in 0..FETCHED_MAX as u64 {
        fetch(&mut stream, segment * OF_SEGMENT);
    }
    stream.read_at(0);
    fetch(&mut stream, 9 * OF_SEGMENT);
    assert!(is_in_memory(&stream, 0));
    assert!(!is_in_memory(&stream, OF_SEGMENT));
    assert!(is_in_memory(&stream, 9 * OF_SEGMENT));
    assert!(stream.cold.as_ref().unwrap().fetched.len() <= FETCHED_MAX);
}

#[test]
fn what_nobody_reads_any_more_is_given_up() {
    let mut stream = stream_of(4 * OF_SEGMENT);
    evict(&mut stream);
    fetch(&mut stream, 0);
    fetch(&mut stream, OF_SEGMENT);
    stream.forget_unread();
    stream.read_at(OF_SEGMENT);
    stream.forget_unread();
    assert!(!is_in_memory(&stream, 0));
    assert!(is_in_memory(&stream, OF_SEGMENT));
    stream.forget_fetched();
    assert!(!is_in_memory(&stream, OF_SEGMENT));
}

#[test]
fn retention_works_on_cold_segments_and_moves_the_head() {
    let mut stream = stream_of(4 * OF_SEGMENT);
    evict(&mut stream);
    stream.want(0);
    let asked = stream.wanted_pages();
    fetch(&mut stream, OF_SEGMENT);
    stream.set_options(StreamOptions { max_age_ms: Some(2 * OF_SEGMENT * 1000), ..StreamOptions::default() });
    let now = Time(stream.next_offset() * 1000);
    while stream.retain(now) > 0 {}
    assert_eq!(stream.first_offset(), 2 * OF_SEGMENT);
    assert_eq!(stream.page_in(page(asked[0])), None, "a page that comes too late is dropped");
    assert!(stream.cold.as_ref().unwrap().fetched.is_empty());
    let look = stream.look(Position(0), &NOTHING).unwrap();
    assert_eq!(look.heads, [(0, 2 * OF_SEGMENT)]);
    let bytes: u64 = (stream.first_offset()..stream.next_offset()).map(|offset| message(offset).body_bytes()).sum();
    assert_eq!(stream.body_bytes(), bytes);
}

#[test]
fn what_retention_took_before_the_index_had_it_never_comes_there() {
    let mut stream = stream_of(3 * OF_SEGMENT);
    stream.set_options(StreamOptions { max_age_ms: Some(1), ..StreamOptions::default() });
    while stream.retain(Time(u64::MAX / 2)) > 0 {}
    let look = stream.look(Position(0), &Window::default()).unwrap();
    assert!(look.puts.is_empty());
    assert_eq!(look.header.map(|header| header.indexed_below), Some(2 * OF_SEGMENT));
}

#[test]
fn a_trim_in_the_middle_of_a_resident_segment_takes_just_that() {
    let mut stream = stream_of(OF_SEGMENT + 100);
    stream.trim_to(OF_SEGMENT + 50);
    assert_eq!((stream.first_offset(), stream.len()), (OF_SEGMENT + 50, 50));
    let bytes: u64 = (stream.first_offset()..stream.next_offset()).map(|offset| message(offset).body_bytes()).sum();
    assert_eq!(stream.body_bytes(), bytes);
}

#[test]
fn a_page_that_lacks_messages_is_damage_and_nothing_more_is_asked() {
    let mut stream = stream_of(3 * OF_SEGMENT);
    evict(&mut stream);
    stream.want(0);
    let mut short = page(stream.wanted_pages()[0]);
    short.result.as_mut().unwrap().remove(1);
    assert!(stream.page_in(short).is_some());
    assert!(stream.is_damaged());
    stream.want(OF_SEGMENT);
    assert!(stream.wanted_pages().is_empty());
}

#[test]
fn nothing_is_read_that_is_not_flushed() {
    let mut stream = Stream::new(StreamOptions::default());
    stream.append(message(0), Time(0), Position(1));
    let next = |stream: &Stream, from| matches!(stream.next(from, Time(0), &Filter::default()), Next::Message(..));
    assert!(!next(&stream, 0), "not even marked");
    stream.mark(Position(10));
    stream.append(message(1), Time(0), Position(10));
    stream.mark(Position(20));
    assert!(!next(&stream, 0));
    assert_eq!(stream.unflushed_until(), Some(Position(10)));
    stream.flushed(Position(19));
    assert!(next(&stream, 0));
    assert!(!next(&stream, 1));
    stream.flushed(Position(20));
    assert!(next(&stream, 1));
    assert_eq!(stream.unflushed_until(), None);
}
