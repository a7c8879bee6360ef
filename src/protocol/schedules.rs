//! The headers by which clients of ActiveMQ have messages published later, or again and again.
//!
//! Whoever takes such a message takes [`ASKED`] off it, adds [`JOB_ID`], and gives it to
//! [`Vhost::schedule`](crate::broker::vhost::Vhost::schedule) instead of publishing it.

use thiserror::Error;

use crate::broker::schedule::{
    Repeats, Schedule,
    cron::{Cron, CronError},
};

/// Milliseconds until it is published first.
const DELAY: &str = "AMQ_SCHEDULED_DELAY";
/// Milliseconds between two publications.
const PERIOD: &str = "AMQ_SCHEDULED_PERIOD";
/// Publications after the first; less than none is without end.
const REPEAT: &str = "AMQ_SCHEDULED_REPEAT";
/// When all of that begins.
const CRON: &str = "AMQ_SCHEDULED_CRON";

/// The headers that ask; a message that is published has none of them, or it would be scheduled once more.
pub const ASKED: [&str; 4] = [DELAY, PERIOD, REPEAT, CRON];
/// The header by which consumers know the job that a message comes from, the same in each repetition.
pub const JOB_ID: &str = "scheduledJobId";

/// Why headers are no schedule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AskedError {
    /// A header should have a number.
    #[error("For input string: \"{text}\" in header {header}")]
    NoNumber {
        /// Which.
        header: &'static str,
        /// What it has.
        text: String,
    },
    /// The cron entry is none.
    #[error(transparent)]
    Cron(#[from] CronError),
}

/// What a message asks for, whose headers `header` looks up; `None` if it is to be published at once.
pub fn asked<'h>(header: impl Fn(&str) -> Option<&'h str>) -> Result<Option<Schedule>, AskedError> {
    // A number of repetitions alone asks for nothing.
    if [DELAY, PERIOD, CRON].iter().all(|name| header(name).is_none()) {
        return Ok(None);
    }
    let number = |name: &'static str| match header(name) {
        None => Ok(0),
        Some(text) => text.parse::<i64>().map_err(|_| AskedError::NoNumber { header: name, text: shortened(text) }),
    };
    let cron = header(CRON).filter(|text| !text.is_empty()).map(Cron::parse).transpose()?;
    // What is less than nothing is nothing.
    let milliseconds = |name| Ok::<_, AskedError>(u64::try_from(number(name)?).unwrap_or(0));
    let repeats = match number(REPEAT)? {
        ..0 => Repeats::Forever,
        times => Repeats::Times(u32::try_from(times).unwrap_or(u32::MAX)),
    };
    Ok(Some(Schedule { delay_ms: milliseconds(DELAY)?, period_ms: milliseconds(PERIOD)?, repeats, cron }))
}

fn shortened(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

/// How much of a header an error repeats.
const TEXT_CHARS_MAX: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(headers: &[(&'static str, &'static str)]) -> Result<Option<Schedule>, String> {
        let header = |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        asked(header).map_err(|error| error.to_string())
    }

    #[test]
    fn delay_period_or_cron_schedules_a_message() {
        let schedule = |delay_ms, period_ms, repeats| Some(Schedule { delay_ms, period_ms, repeats, cron: None });
        assert_eq!(ask(&[]), Ok(None));
        assert_eq!(ask(&[(REPEAT, "3")]), Ok(None));
        assert_eq!(ask(&[(DELAY, "1500")]), Ok(schedule(1500, 0, Repeats::Times(0))));
        assert_eq!(ask(&[(DELAY, "0")]), Ok(schedule(0, 0, Repeats::Times(0))));
        assert_eq!(ask(&[(DELAY, "-5"), (PERIOD, "-5")]), Ok(schedule(0, 0, Repeats::Times(0))));
        assert_eq!(ask(&[(PERIOD, "200"), (REPEAT, "2")]), Ok(schedule(0, 200, Repeats::Times(2))));
        assert_eq!(ask(&[(PERIOD, "200"), (REPEAT, "-1")]), Ok(schedule(0, 200, Repeats::Forever)));
        let Ok(Some(Schedule { cron: Some(cron), .. })) = ask(&[(CRON, "0  * * * *")]) else { panic!("a cron entry") };
        assert_eq!(cron.text(), "0 * * * *");
        assert_eq!(ask(&[(CRON, "")]), Ok(schedule(0, 0, Repeats::Times(0))));
        // The broker refuses it.
        let many = ask(&[(PERIOD, "1"), (REPEAT, "9999999999")]);
        assert_eq!(many, Ok(schedule(0, 1, Repeats::Times(u32::MAX))));
    }

    #[test]
    fn what_is_no_schedule_is_refused_by_its_header() {
        for (headers, expected) in [
            ([(DELAY, "soon")], "For input string: \"soon\" in header AMQ_SCHEDULED_DELAY"),
            ([(PERIOD, "1.5")], "For input string: \"1.5\" in header AMQ_SCHEDULED_PERIOD"),
            (
                [(DELAY, "99999999999999999999")],
                "For input string: \"99999999999999999999\" in header AMQ_SCHEDULED_DELAY",
            ),
            ([(CRON, "* * *")], "a cron entry has five fields, not 3"),
        ] {
            assert_eq!(ask(&headers), Err(expected.to_owned()));
        }
    }
}
