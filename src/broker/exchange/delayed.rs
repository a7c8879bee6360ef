//! How long a message asks to wait, and what it says of that afterwards.

use crate::broker::value::{Headers, HeadersBuilder, Value, ValueRef};

/// The header that asks for a delay in milliseconds.
pub const DELAY: &str = "x-delay";

/// The longest delay, about 49 days. A message that asks for more is not delayed at all, as with RabbitMQ's plugin.
pub const DELAY_MS_MAX: i128 = u32::MAX as i128;

/// The milliseconds that a message asks to wait; `None` when it is to be routed at once.
///
/// Integers, other numbers (cut off at the point) and text of an integer count. Zero, less, more
/// than [`DELAY_MS_MAX`] and everything else is no delay.
pub fn delay_ms(headers: Headers<'_>) -> Option<u64> {
    let asked = asked_ms(headers.get(DELAY)?)?;
    (1..=DELAY_MS_MAX).contains(&asked).then_some(asked as u64)
}

/// The headers of a message after its delay: `x-delay` turned negative, so that consumers see how
/// long it waited and a further delayed exchange does not hold it again.
pub fn released_headers(headers: Headers<'_>) -> Vec<u8> {
    let mut released = HeadersBuilder::new();
    let mut delay = delay_ms(headers);
    for (name, value) in headers.iter() {
        match delay.take_if(|_| name == DELAY.as_bytes()) {
            Some(ms) => {
                let ms = -(ms as i64);
                released.push(DELAY, &i32::try_from(ms).map_or(Value::I64(ms), Value::I32));
            }
            None => released.push_ref(name, value),
        }
    }
    released.finish()
}

fn asked_ms(value: ValueRef<'_>) -> Option<i128> {
    if let Some(n) = value.as_integer() {
        return Some(n.into());
    }
    match value.to_value() {
        Value::Text(text) => std::str::from_utf8(&text).ok()?.parse().ok(),
        // Casting cuts off the fraction and keeps within bounds; what is not a number becomes zero.
        Value::F32(n) => Some(n as i128),
        Value::F64(n) => Some(n as i128),
        Value::Decimal { scale, value } => {
            Some(10_i128.checked_pow(scale.into()).map_or(0, |divisor| i128::from(value) / divisor))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::value::Table;

    fn headers(entries: &[(&str, Value)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        entries.iter().map(|(name, value)| (*name, value.clone())).collect::<Table>().encode(&mut bytes);
        bytes
    }

    fn delay(value: Value) -> Option<u64> {
        delay_ms(Headers::new(&headers(&[(DELAY, value)])))
    }

    #[test]
    fn every_integer_and_what_reads_as_one_is_a_delay() {
        assert_eq!(delay(Value::I32(5000)), Some(5000));
        assert_eq!(delay(Value::U8(5)), Some(5));
        assert_eq!(delay(Value::I64(4_294_967_295)), Some(4_294_967_295));
        assert_eq!(delay(Value::text("1500")), Some(1500));
        assert_eq!(delay(Value::F64(12.9)), Some(12));
        assert_eq!(delay(Value::Decimal { scale: 1, value: 129 }), Some(12));
    }

    #[test]
    fn nothing_else_delays() {
        assert_eq!(delay_ms(Headers::default()), None);
        for value in [
            Value::I32(0),
            Value::I32(-1),
            Value::I64(4_294_967_296),
            Value::text("soon"),
            Value::text(""),
            Value::F64(f64::NAN),
            Value::F64(f64::INFINITY),
            Value::F64(0.9),
            Value::Decimal { scale: 255, value: 1 },
            Value::Bool(true),
            Value::Void,
            Value::Timestamp(5),
        ] {
            assert_eq!(delay(value.clone()), None, "{value:?}");
        }
    }

    #[test]
    fn a_released_message_says_how_long_it_waited_and_waits_no_more() {
        let before = headers(&[("a", Value::text("1")), (DELAY, Value::text("700")), ("b", Value::Void)]);
        let after = released_headers(Headers::new(&before));
        assert_eq!(after, headers(&[("a", Value::text("1")), (DELAY, Value::I32(-700)), ("b", Value::Void)]));
        assert_eq!(delay_ms(Headers::new(&after)), None);
    }
}
