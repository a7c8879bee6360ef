//! When a scheduled message is published, and what of that is kept with it while it waits.

use super::{
    Repeats, Schedule,
    cron::{Cron, CronError},
};
use crate::broker::{
    time::Time,
    value::{Headers, HeadersBuilder, Value},
};

/// The header that a waiting message has its plan in.
const PLAN: &str = "x-tern-schedule";

/// How far a scheduled message has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    schedule: Schedule,
    /// Publications after the next one, in this run.
    left: Repeats,
    /// What this run began with.
    run: Time,
}

impl Plan {
    /// The plan of a message that is scheduled now, and when it is published first.
    pub(super) fn begin(schedule: &Schedule, now: Time) -> Result<(Self, Time), CronError> {
        let run = match &schedule.cron {
            Some(cron) => cron.next_after(now).ok_or(CronError::Never)?,
            None => now,
        };
        let plan = Self { left: schedule.repeats, run, schedule: schedule.clone() };
        Ok((plan, run.after_ms(schedule.offset_ms())))
    }

    /// The message was due at `due` and is published `now`: what is left to do, and when.
    ///
    /// Nothing is made up for that was missed: who was away for an hour does not get an hour's messages.
    pub(super) fn proceed(mut self, due: Time, now: Time) -> Option<(Self, Time)> {
        let period_ms = self.schedule.period_ms.max(PERIOD_MS_MIN);
        match &mut self.left {
            Repeats::Forever => {}
            Repeats::Times(0) => return self.next_run(now),
            Repeats::Times(left) => *left -= 1,
        }
        let next = due.after_ms(period_ms);
        let next = if next > now { next } else { now.after_ms(period_ms) };
        Some((self, next))
    }

    fn next_run(self, now: Time) -> Option<(Self, Time)> {
        let offset_ms = self.schedule.offset_ms();
        // A run that would have begun while this one went on begins now.
        let after = self.run.max(Time(now.0.saturating_sub(offset_ms)));
        let run = self.schedule.cron.as_ref()?.next_after(after)?;
        let due = run.after_ms(offset_ms);
        Some((Self { left: self.schedule.repeats, run, schedule: self.schedule }, due))
    }

    /// `headers` with the plan, in place of any that they have.
    pub(super) fn put(&self, headers: Headers<'_>) -> Vec<u8> {
        let mut with_plan = HeadersBuilder::new();
        with_plan.extend(headers, |name| name != PLAN.as_bytes());
        with_plan.push(PLAN, &Value::text(self.write()));
        with_plan.finish()
    }

    /// `headers` without the plan, and the plan.
    pub(super) fn take(headers: Headers<'_>) -> (Vec<u8>, Option<Self>) {
        let mut without_plan = HeadersBuilder::new();
        without_plan.extend(headers, |name| name != PLAN.as_bytes());
        let plan = headers.get(PLAN).and_then(|plan| Self::read(plan.as_text()?));
        (without_plan.finish(), plan)
    }

    /// Six words: delay, period, repeats, repeats left, begin of the run; the cron entry, if there is one.
    fn write(&self) -> String {
        let Schedule { delay_ms, period_ms, repeats, cron } = &self.schedule;
        let count = |repeats: &Repeats| match repeats {
            Repeats::Forever => -1,
            Repeats::Times(times) => i64::from(*times),
        };
        let (repeats, left, run) = (count(repeats), count(&self.left), self.run.0);
        let cron = cron.as_ref().map_or("", Cron::text);
        format!("{delay_ms} {period_ms} {repeats} {left} {run} {cron}")
    }

    fn read(text: &str) -> Option<Self> {
        let mut words = text.splitn(6, ' ');
        let mut number = || words.next()?.parse::<i64>().ok();
        let count = |number: i64| match number {
            -1 => Some(Repeats::Forever),
            times => u32::try_from(times).ok().map(Repeats::Times),
        };
        let (delay_ms, period_ms) = (u64::try_from(number()?).ok()?, u64::try_from(number()?).ok()?);
        let (repeats, left) = (count(number()?)?, count(number()?)?);
        let run = Time(u64::try_from(number()?).ok()?);
        let cron = match words.next()? {
            "" => None,
            cron => Some(Cron::parse(cron).ok()?),
        };
        Some(Self { schedule: Schedule { delay_ms, period_ms, repeats, cron }, left, run })
    }
}

/// Messages that are repeated without a period come so far apart.
const PERIOD_MS_MIN: u64 = 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schedule(delay_ms: u64, period_ms: u64, repeats: Repeats, cron: &str) -> Schedule {
        let cron = (!cron.is_empty()).then(|| Cron::parse(cron).unwrap());
        Schedule { delay_ms, period_ms, repeats, cron }
    }

    /// The times at which it is published by one who is `late_ms` late.
    fn times(schedule: &Schedule, now: u64, late_ms: u64, max: usize) -> Vec<u64> {
        let mut times = Vec::new();
        let mut next = Some(Plan::begin(schedule, Time(now)).unwrap());
        while let Some((plan, due)) = next
            && times.len() < max
        {
            times.push(due.0 - now);
            let read = Plan::read(&plan.write());
            assert_eq!(read.as_ref(), Some(&plan), "what is written is read again");
            next = plan.proceed(due, due.after_ms(late_ms));
        }
        times
    }

    #[test]
    fn first_comes_after_the_delay_or_else_the_period_and_the_rest_by_period() {
        let rows: [(Schedule, &[u64]); 7] = [
            (schedule(500, 0, Repeats::Times(0), ""), &[500]),
            (schedule(0, 0, Repeats::Times(0), ""), &[0]),
            (schedule(0, 200, Repeats::Times(0), ""), &[200]),
            (schedule(500, 200, Repeats::Times(2), ""), &[500, 700, 900]),
            (schedule(0, 200, Repeats::Times(2), ""), &[200, 400, 600]),
            (schedule(500, 0, Repeats::Times(2), ""), &[500, 501, 502]),
            (schedule(500, 200, Repeats::Forever, ""), &[500, 700, 900, 1100, 1300]),
        ];
        for (schedule, expected) in rows {
            assert_eq!(times(&schedule, 1_000_000, 0, 5), expected, "{schedule:?}");
        }
    }

    #[test]
    fn cron_gives_the_start_of_each_run() {
        let hour = 3_600_000;
        let now = 1_000 * 24 * hour;
        let rows: [(Schedule, &[u64]); 4] = [
            (schedule(0, 0, Repeats::Times(0), "0 * * * *"), &[hour, 2 * hour, 3 * hour]),
            (schedule(1000, 0, Repeats::Times(0), "0 * * * *"), &[hour + 1000, 2 * hour + 1000, 3 * hour + 1000]),
            (
                schedule(1000, 500, Repeats::Times(1), "0 * * * *"),
                &[hour + 1000, hour + 1500, 2 * hour + 1000, 2 * hour + 1500],
            ),
            // A delay longer than the time between two runs moves them all.
            (schedule(2 * hour, 0, Repeats::Times(0), "0 * * * *"), &[3 * hour, 4 * hour, 5 * hour]),
        ];
        for (schedule, expected) in rows {
            assert_eq!(times(&schedule, now, 0, expected.len()), expected, "{schedule:?}");
        }
    }

    #[test]
    fn who_was_away_gets_one_message_and_then_the_next_in_time() {
        let late = 10_000;
        let forever = schedule(100, 100, Repeats::Forever, "");
        assert_eq!(times(&forever, 0, late, 3), [100, 100 + late + 100, 100 + 2 * (late + 100)]);
        // All the same, none of a counted number is lost.
        let counted = schedule(100, 100, Repeats::Times(3), "");
        assert_eq!(times(&counted, 0, late, 9).len(), 4);
        // A little late moves nothing.
        assert_eq!(times(&forever, 0, 99, 3), [100, 200, 300]);
        let (minute, now) = (60_000, 1_000 * 60_000);
        let cron = schedule(0, 0, Repeats::Times(0), "* * * * *");
        assert_eq!(times(&cron, now, 10 * minute, 2), [minute, 12 * minute]);
    }

    #[test]
    fn what_is_no_plan_is_read_as_none() {
        for text in ["", "1", "1 2 3 4 5", "1 2 3 4 x ", "-1 0 0 0 0 ", "0 0 -2 0 0 ", "0 0 0 0 0 nonsense"] {
            assert_eq!(Plan::read(text), None, "{text:?}");
        }
    }

    #[test]
    fn plan_travels_in_a_header_of_its_own() {
        let (plan, _) = Plan::begin(&schedule(1, 2, Repeats::Times(3), "* * * * *"), Time(0)).unwrap();
        let mut theirs = HeadersBuilder::new();
        theirs.push("a", &Value::I32(1));
        theirs.push(PLAN, &Value::text("forged"));
        theirs.push("b", &Value::Void);
        let theirs = theirs.finish();
        let with_plan = plan.put(Headers::new(&theirs));
        let (bare, taken) = Plan::take(Headers::new(&with_plan));
        assert_eq!(taken, Some(plan));
        let names: Vec<_> = Headers::new(&bare).iter().map(|(name, _)| name.to_vec()).collect();
        assert_eq!(names, [b"a", b"b"]);
    }

    proptest! {
        #[test]
        fn next_time_is_always_later(
            delay_ms in 0..5_000_u64,
            period_ms in 0..5_000_u64,
            repeats in prop_oneof![(0..4_u32).prop_map(Repeats::Times), Just(Repeats::Forever)],
            cron in prop_oneof![Just(""), Just("* * * * *"), Just("*/7 3 * * *")],
            now in 0..2_000_000_000_000_u64,
            lates in prop::collection::vec(0..1_000_000_u64, 1..12),
        ) {
            let schedule = schedule(delay_ms, period_ms, repeats, cron);
            let (mut plan, mut due) = Plan::begin(&schedule, Time(now)).unwrap();
            prop_assert!(due >= Time(now).after_ms(schedule.offset_ms()));
            let mut published = 1;
            for late in &lates {
                let now = due.after_ms(*late);
                let Some((next, next_due)) = plan.proceed(due, now) else {
                    prop_assert_eq!(Repeats::Times(published - 1), schedule.repeats);
                    prop_assert!(schedule.cron.is_none());
                    return Ok(());
                };
                prop_assert!(next_due > now);
                (plan, due) = (next, next_due);
                published += 1;
            }
            let goes_on = match schedule.repeats {
                Repeats::Times(times) => schedule.cron.is_some() || published <= times + 1,
                Repeats::Forever => true,
            };
            prop_assert!(goes_on);
        }
    }
}
