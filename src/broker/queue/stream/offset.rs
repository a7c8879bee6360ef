//! Where in a stream a consumer starts: the consumer argument `x-stream-offset`.

use crate::broker::{queue::behaviour::parse_age_ms, term::Pair, value::Value};

/// Where a consumer starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OffsetSpec {
    /// At the oldest message.
    First,
    /// At the messages that came last together.
    Last,
    /// At what comes from now on.
    #[default]
    Next,
    /// At this offset; if it is gone, at the oldest message; if it is not yet given, at the next.
    Offset(u64),
    /// At the first message that came at this second since the epoch or later.
    Timestamp(u64),
    /// At the first message that came at most so many milliseconds ago.
    Interval(u64),
}

/// The argument says nothing that a consumer could start at. Its text ends RabbitMQ's
/// `invalid arg 'x-stream-offset' for queue 'q' in vhost '/': `.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{{invalid_stream_offset_arg,{term}}}")]
pub struct OffsetError {
    term: String,
}

impl OffsetSpec {
    /// Reads `first`, `last`, `next`, an offset, a timestamp, or an age such as `1h`.
    ///
    /// RabbitMQ closes the connection with an internal error on most other values; here they are
    /// refused as it refuses the rest.
    pub fn parse(value: &Value) -> Result<Self, OffsetError> {
        let spec = match value {
            Value::Text(text) | Value::Bytes(text) => match text.as_slice() {
                b"first" => Some(Self::First),
                b"last" => Some(Self::Last),
                b"next" => Some(Self::Next),
                _ => value.as_text().and_then(parse_age_ms).map(Self::Interval),
            },
            Value::Timestamp(secs) => Some(Self::Timestamp(*secs)),
            // Below zero is before the first message.
            other => other.as_integer().map(|offset| Self::Offset(u64::try_from(offset).unwrap_or(0))),
        };
        spec.ok_or_else(|| OffsetError { term: Pair(value).to_string() })
    }

    /// Reads a consumer's argument, absent meaning [`OffsetSpec::Next`].
    pub fn parse_argument(argument: Option<&Value>) -> Result<Self, OffsetError> {
        argument.map_or(Ok(Self::Next), Self::parse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_offsets_timestamps_and_ages_are_understood() {
        for (value, spec) in [
            (Value::text("first"), OffsetSpec::First),
            (Value::text("last"), OffsetSpec::Last),
            (Value::text("next"), OffsetSpec::Next),
            (Value::Bytes(b"first".to_vec()), OffsetSpec::First),
            (Value::I8(3), OffsetSpec::Offset(3)),
            (Value::I64(3), OffsetSpec::Offset(3)),
            (Value::I64(-1), OffsetSpec::Offset(0)),
            (Value::Timestamp(7), OffsetSpec::Timestamp(7)),
            (Value::text("1h"), OffsetSpec::Interval(3_600_000)),
        ] {
            assert_eq!(OffsetSpec::parse(&value), Ok(spec));
        }
        assert_eq!(OffsetSpec::parse_argument(None), Ok(OffsetSpec::Next));
    }

    #[test]
    fn other_values_are_refused_in_rabbitmqs_words() {
        for (value, text) in [
            (Value::text("3"), r#"{invalid_stream_offset_arg,{longstr,<<"3">>}}"#),
            (Value::text("zzz"), r#"{invalid_stream_offset_arg,{longstr,<<"zzz">>}}"#),
            (Value::text("FIRST"), r#"{invalid_stream_offset_arg,{longstr,<<"FIRST">>}}"#),
            (Value::text(""), "{invalid_stream_offset_arg,{longstr,<<>>}}"),
            (Value::Bytes(b"1h".to_vec()), r#"{invalid_stream_offset_arg,{binary,<<"1h">>}}"#),
            (Value::F64(1.5), "{invalid_stream_offset_arg,{double,1.5}}"),
            (Value::Bool(true), "{invalid_stream_offset_arg,{bool,true}}"),
            (Value::Void, "{invalid_stream_offset_arg,{void,undefined}}"),
        ] {
            assert_eq!(OffsetSpec::parse(&value).map_err(|error| error.to_string()), Err(text.to_owned()));
        }
    }
}
