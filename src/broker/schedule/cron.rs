//! Times of cron: minute, hour, day of the month, month, day of the week, in UTC.
//!
//! Each field is `*` or `?` for all, a number, a range `a-b`, or a list of them with commas; months and
//! weekdays may be named. A step `/n` leaves those that `n` divides, whatever the range begins with, as
//! ActiveMQ has it: `1-10/3` is 3, 6 and 9. Sunday is 0 or 7. Where both kinds of days are restricted,
//! either will do.

use std::fmt;

use ::time::Date;
use thiserror::Error;

use crate::broker::time::Time;

/// A parsed line of cron.
#[derive(Clone, PartialEq, Eq)]
pub struct Cron {
    text: Box<str>,
    /// One bit a value.
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
}

/// Why a line of cron was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CronError {
    /// Longer than [`CRON_BYTES_MAX`].
    #[error("a cron entry has at most {CRON_BYTES_MAX} bytes")]
    TooLong,
    /// Not five fields.
    #[error("a cron entry has five fields, not {0}")]
    Fields(usize),
    /// A field says nothing that could be.
    #[error("'{text}' is no {field} of a cron entry")]
    Field {
        /// What it should be.
        field: &'static str,
        /// What it says.
        text: String,
    },
    /// There is no such day.
    #[error("the cron entry never comes to pass")]
    Never,
}

struct Field {
    name: &'static str,
    first: u32,
    last: u32,
    /// Names of the values from `first` on.
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", first: 0, last: 59, names: &[] },
    Field { name: "hour", first: 0, last: 23, names: &[] },
    Field { name: "day of the month", first: 1, last: 31, names: &[] },
    Field {
        name: "month",
        first: 1,
        last: 12,
        names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    },
    // Seven is Sunday once more.
    Field { name: "day of the week", first: 0, last: 7, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] },
];

/// Longest line that is accepted.
pub const CRON_BYTES_MAX: usize = 1024;
const MINUTE_MS: u64 = 60_000;
const MINUTES_OF_DAY: u64 = 24 * 60;
/// 29 February may be eight years away.
const DAYS_MAX: u64 = 9 * 366;
/// The Julian day of 1970-01-01.
const EPOCH_JULIAN_DAY: i32 = 2_440_588;
const ALL_DAYS: u64 = bits(1, 31);
const ALL_WEEKDAYS: u64 = bits(0, 6);

impl Cron {
    /// Parses a line.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        if text.len() > CRON_BYTES_MAX {
            return Err(CronError::TooLong);
        }
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let fields: [&str; 5] = fields.try_into().map_err(|fields: Vec<_>| CronError::Fields(fields.len()))?;
        let mut masks = [0; 5];
        for ((mask, text), field) in masks.iter_mut().zip(fields).zip(&FIELDS) {
            let error = || CronError::Field { field: field.name, text: text.to_owned() };
            *mask = field.mask(text).filter(|mask| *mask != 0).ok_or_else(error)?;
        }
        let [minutes, hours, days, months, weekdays] = masks;
        let weekdays = (weekdays | weekdays >> 7) & ALL_WEEKDAYS;
        let cron = Self { text: fields.join(" ").into(), minutes, hours, days, months, weekdays };
        // Any start will do: all kinds of years are within reach of it.
        cron.next_after(Time(0)).map(|_| cron).ok_or(CronError::Never)
    }

    /// The first such minute that begins after `time`.
    pub fn next_after(&self, time: Time) -> Option<Time> {
        let start = time.0 / MINUTE_MS + 1;
        let first_day = start / MINUTES_OF_DAY;
        let mut minute_of_day = start % MINUTES_OF_DAY;
        for day in first_day..first_day + DAYS_MAX {
            if self.has_day(day)?
                && let Some(minute) = self.minute_from(minute_of_day)
            {
                return Some(Time((day * MINUTES_OF_DAY + minute) * MINUTE_MS));
            }
            minute_of_day = 0;
        }
        None
    }

    /// Whether it is one of its days; `None` beyond the calendar.
    fn has_day(&self, day: u64) -> Option<bool> {
        let date = Date::from_julian_day(i32::try_from(day).ok()?.checked_add(EPOCH_JULIAN_DAY)?).ok()?;
        let has = |mask: u64, value: u8| mask & 1 << value != 0;
        let is_day = has(self.days, date.day());
        let is_weekday = has(self.weekdays, date.weekday().number_days_from_sunday());
        // What is not restricted is always so.
        let either = self.days != ALL_DAYS && self.weekdays != ALL_WEEKDAYS;
        let is_right_day = if either { is_day || is_weekday } else { is_day && is_weekday };
        Some(is_right_day && has(self.months, u8::from(date.month())))
    }

    /// Its first minute of a day, from `from` on.
    fn minute_from(&self, from: u64) -> Option<u64> {
        let (hour, minute) = (from / 60, from % 60);
        let rest = self.minutes >> minute << minute;
        if self.hours & 1 << hour != 0 && rest != 0 {
            return Some(hour * 60 + u64::from(rest.trailing_zeros()));
        }
        let later = self.hours >> (hour + 1) << (hour + 1);
        (later != 0).then(|| u64::from(later.trailing_zeros()) * 60 + u64::from(self.minutes.trailing_zeros()))
    }

    /// The line, with one blank between fields.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cron({:?})", self.text)
    }
}

impl Field {
    fn mask(&self, text: &str) -> Option<u64> {
        text.split(',').try_fold(0, |mask, item| Some(mask | self.item(item)?))
    }

    fn item(&self, text: &str) -> Option<u64> {
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => (range, step.parse().ok().filter(|step| *step > 0)?),
            None => (text, 1),
        };
        let (first, last) = match (range, range.split_once('-')) {
            ("*" | "?", _) => (self.first, self.last),
            (_, Some((first, last))) => (self.value(first)?, self.value(last)?),
            (one, None) => (self.value(one)?, self.value(one)?),
        };
        Some((first..=last).filter(|value: &u32| value.is_multiple_of(step)).fold(0, |mask, value| mask | 1 << value))
    }

    fn value(&self, text: &str) -> Option<u32> {
        if let Some(index) = self.names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
            return Some(self.first + index as u32);
        }
        let is_plain = text.bytes().all(|octet| octet.is_ascii_digit());
        let value = text.parse().ok().filter(|_| is_plain)?;
        (self.first..=self.last).contains(&value).then_some(value)
    }
}

const fn bits(first: u32, last: u32) -> u64 {
    (1 << (last + 1)) - (1 << first)
}

#[cfg(test)]
mod tests {
    use ::time::{OffsetDateTime, format_description::well_known::Rfc3339};
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Time {
        let moment = OffsetDateTime::parse(text, &Rfc3339).unwrap();
        Time(u64::try_from(moment.unix_timestamp_nanos() / 1_000_000).unwrap())
    }

    #[test]
    fn next_time_is_the_first_minute_that_every_field_has() {
        let rows = [
            ("* * * * *", "2026-11-23T02:40:00Z", "2026-11-23T02:41:00Z"),
            ("* * * * *", "2026-11-23T02:40:59.999Z", "2026-11-23T02:41:00Z"),
            ("0 * * * *", "2026-11-23T02:40:00Z", "2026-11-23T03:00:00Z"),
            ("30 2 * * *", "2026-11-23T02:29:59Z", "2026-11-23T02:30:00Z"),
            ("30 2 * * *", "2026-11-23T02:30:00Z", "2026-11-24T02:30:00Z"),
            ("*/15 * * * *", "2026-11-23T23:50:00Z", "2026-11-24T00:00:00Z"),
            ("1-10/3 * * * *", "2026-11-23T02:00:00Z", "2026-11-23T02:03:00Z"),
            ("5,35 9-17 * * *", "2026-11-23T17:40:00Z", "2026-11-24T09:05:00Z"),
            ("0 0 1 1 ?", "2026-11-23T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("0 12 31 * *", "2026-11-23T00:00:00Z", "2026-12-31T12:00:00Z"),
            ("0 0 29 2 *", "2026-11-23T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 29 2 *", "2097-01-01T00:00:00Z", "2104-02-29T00:00:00Z"),
            ("0 0 * * 0", "2026-11-23T00:00:00Z", "2026-11-29T00:00:00Z"),
            ("0 0 * * 7", "2026-11-23T00:00:00Z", "2026-11-29T00:00:00Z"),
            ("0 0 * * MON-fri", "2026-11-20T12:00:00Z", "2026-11-23T00:00:00Z"),
            ("0 0 * feb *", "2026-11-23T00:00:00Z", "2027-02-01T00:00:00Z"),
            // Either kind of day, where both are restricted.
            ("0 0 13 * 5", "2026-11-23T00:00:00Z", "2026-11-27T00:00:00Z"),
            ("0 0 1 * 5", "2026-11-28T00:00:00Z", "2026-12-01T00:00:00Z"),
            ("59 23 31 12 *", "2026-12-31T23:59:00Z", "2027-12-31T23:59:00Z"),
        ];
        for (text, after, expected) in rows {
            assert_eq!(Cron::parse(text).unwrap().next_after(at(after)), Some(at(expected)), "{text} after {after}");
        }
    }

    #[test]
    fn what_is_no_cron_entry_is_refused_with_its_field() {
        let rows = [
            ("", "a cron entry has five fields, not 0"),
            ("* * * *", "a cron entry has five fields, not 4"),
            ("* * * * * *", "a cron entry has five fields, not 6"),
            ("60 * * * *", "'60' is no minute of a cron entry"),
            ("a * * * *", "'a' is no minute of a cron entry"),
            ("* 24 * * *", "'24' is no hour of a cron entry"),
            ("* * 0 * *", "'0' is no day of the month of a cron entry"),
            ("* * * 13 *", "'13' is no month of a cron entry"),
            ("* * * * 8", "'8' is no day of the week of a cron entry"),
            ("*/0 * * * *", "'*/0' is no minute of a cron entry"),
            ("5/15 * * * *", "'5/15' is no minute of a cron entry"),
            ("5-1 * * * *", "'5-1' is no minute of a cron entry"),
            ("1, * * * *", "'1,' is no minute of a cron entry"),
            ("-1 * * * *", "'-1' is no minute of a cron entry"),
            ("+1 * * * *", "'+1' is no minute of a cron entry"),
            ("1-2-3 * * * *", "'1-2-3' is no minute of a cron entry"),
            ("* * mon * *", "'mon' is no day of the month of a cron entry"),
            ("0 0 30 2 *", "the cron entry never comes to pass"),
        ];
        for (text, expected) in rows {
            assert_eq!(Cron::parse(text).unwrap_err().to_string(), expected, "{text:?}");
        }
        assert_eq!(Cron::parse(&"*".repeat(CRON_BYTES_MAX + 1)), Err(CronError::TooLong));
    }

    #[test]
    fn there_is_no_time_after_the_calendar() {
        let cron = Cron::parse("* * * * *").unwrap();
        for late in [Time::NEVER, Time(u64::MAX - 1), Time(1 << 60)] {
            assert_eq!(cron.next_after(late), None);
        }
    }

    fn field(first: u32, last: u32) -> impl Strategy<Value = String> {
        let value = first..=last;
        let range = (first..=last, first..=last).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b)));
        let item = prop_oneof![
            3 => Just("*".to_owned()),
            2 => value.prop_map(|value| value.to_string()),
            2 => range,
            1 => (2..10u32).prop_map(|step| format!("*/{step}")),
        ];
        prop::collection::vec(item, 1..3).prop_map(|items| items.join(","))
    }

    /// By the definition, without masks.
    fn fits(field: &str, value: u32) -> bool {
        field.split(',').any(|item| {
            let (range, step) = item.split_once('/').unwrap_or((item, "1"));
            let is_in = match range.split_once('-') {
                Some((a, b)) => (a.parse().unwrap()..=b.parse::<u32>().unwrap()).contains(&value),
                None => range == "*" || range.parse() == Ok(value),
            };
            is_in && value.is_multiple_of(step.parse().unwrap())
        })
    }

    proptest! {
        #[test]
        fn next_time_fits_and_no_earlier_minute_does(
            fields in (field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 6)),
            now in 0..4_000_000_000_000_u64,
        ) {
            let (minute, hour, day, month, weekday) = &fields;
            let fits_at = |time: Time| {
                let moment = OffsetDateTime::from_unix_timestamp(time.secs() as i64).unwrap();
                let is_all = |text: &str, first, last| (first..=last).all(|value| fits(text, value));
                let is_day = fits(day, moment.day().into());
                let is_weekday = fits(weekday, moment.weekday().number_days_from_sunday().into());
                let is_right_day = match is_all(day, 1, 31) || is_all(weekday, 0, 6) {
                    true => is_day && is_weekday,
                    false => is_day || is_weekday,
                };
                is_right_day && fits(month, u8::from(moment.month()).into())
                    && fits(hour, moment.hour().into()) && fits(minute, moment.minute().into())
            };
            let text = format!("{minute} {hour} {day} {month} {weekday}");
            let Ok(cron) = Cron::parse(&text) else { return Ok(()) };
            let next = cron.next_after(Time(now)).unwrap();
            prop_assert!(next > Time(now) && fits_at(next), "{text} at {next:?}");
            let first = now / MINUTE_MS + 1;
            let last = (next.0 / MINUTE_MS).min(first + 3000);
            for minute in first..last {
                prop_assert!(!fits_at(Time(minute * MINUTE_MS)), "{} at minute {}, not {:?}", text, minute, next);
            }
        }
    }
}
