//! Messages that are published later, or again and again.
//!
//! A vhost holds them back in an exchange of its own, which is there from the first of them on: it
//! keeps them as an exchange that delays does ([`Holds`](super::exchange::Holds)), in a window of memory
//! and a cold index, and clients cannot publish to it. When one is due, it is published to the exchange
//! that it names, and one record says so, together with when it is due next: no crash comes in between.
//!
//! Clients have no hand in what waits: how far it has come ([`plan`]) is kept in a header that is taken
//! off what publishers say and what consumers get.

pub mod cron;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use thiserror::Error;

use super::{
    error::Error,
    exchange::{Exchange, Kind, holds::HoldEntry},
    message::{Message, View},
    publish::{Batch, commit_with},
    record::{HoldKey, Position, Record},
    time::Time,
    topology::DeclareExchange,
    turn::Turn,
    vhost::Vhost,
};
use cron::{Cron, CronError};
use plan::Plan;

/// When a message is to be published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// First so many milliseconds from now, or from the time that `cron` says.
    pub delay_ms: u64,
    /// Then again after so many, `repeats` times. Without a delay the first comes after a period, too.
    pub period_ms: u64,
    /// How often it is published after the first.
    pub repeats: Repeats,
    /// When all of this begins, each time anew. Without it, it begins now, and once.
    pub cron: Option<Cron>,
}

/// How often something is done again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeats {
    /// So many times.
    Times(u32),
    /// Without end. Then a further run never begins.
    Forever,
}

/// Why a message is not scheduled; nothing was changed.
#[derive(Debug, Error)]
pub enum ScheduleError {
    /// A delay or a period of more than [`SCHEDULE_MS_MAX`].
    #[error("the {what} of a scheduled message is at most {SCHEDULE_MS_MAX} ms, not {ms}")]
    TooLong {
        /// Delay, or period.
        what: &'static str,
        /// How long it was to be.
        ms: u64,
    },
    /// More repeats than [`REPEATS_MAX`].
    #[error("The scheduled repeat value is too large")]
    TooManyRepeats,
    /// Without end, and without a pause.
    #[error("a scheduled message that is repeated without end needs a period")]
    NoPeriod,
    /// No time of its cron entry is left.
    #[error(transparent)]
    Cron(#[from] CronError),
    /// The exchange that holds such messages cannot be.
    #[error(transparent)]
    Exchange(#[from] Error),
}

/// The exchange of a vhost that holds its scheduled messages.
pub const SCHEDULES: &str = "amq.tern.schedules";
/// The longest delay, and the longest period: ten years.
pub const SCHEDULE_MS_MAX: u64 = 10 * 366 * 24 * 60 * 60 * 1000;
/// How often a message may be repeated, unless without end; ActiveMQ's bound.
pub const REPEATS_MAX: u32 = 1000;
/// Messages that are published at once.
const RELEASED_MAX: usize = 256;

impl Default for Repeats {
    fn default() -> Self {
        Self::Times(0)
    }
}

impl Schedule {
    /// From the start of a run to its first message.
    fn offset_ms(&self) -> u64 {
        if self.delay_ms > 0 { self.delay_ms } else { self.period_ms }
    }

    fn check(&self) -> Result<(), ScheduleError> {
        for (what, ms) in [("delay", self.delay_ms), ("period", self.period_ms)] {
            if ms > SCHEDULE_MS_MAX {
                return Err(ScheduleError::TooLong { what, ms });
            }
        }
        match self.repeats {
            Repeats::Forever if self.period_ms == 0 => Err(ScheduleError::NoPeriod),
            Repeats::Times(times) if times > REPEATS_MAX => Err(ScheduleError::TooManyRepeats),
            _ => Ok(()),
        }
    }
}

impl Vhost {
    /// Holds a message back and publishes it as `schedule` says to the exchange that it names, under its
    /// key. Returns when it is due first.
    ///
    /// Who may publish there was asked before. A persistent message is in the log when the turn's gate has
    /// passed; another one is gone after a restart. An exchange that is gone when it is due takes nothing.
    pub fn schedule(
        self: &Arc<Self>,
        message: &Message,
        schedule: &Schedule,
        turn: &mut Turn<'_>,
    ) -> Result<Time, ScheduleError> {
        schedule.check()?;
        let (plan, due) = Plan::begin(schedule, turn.now)?;
        let keeper = self.schedules(turn)?;
        let message = with_headers(message, plan.put(message.headers()));
        self.hold(&keeper, message, due, turn);
        Ok(due)
    }

    /// Number of scheduled messages in memory; others are in the index.
    pub fn scheduled_resident(&self) -> usize {
        let keeper = self.exchange(SCHEDULES);
        keeper.as_ref().and_then(|keeper| keeper.delayed.as_ref()).map_or(0, |delayed| delayed.lock().resident())
    }

    /// The exchange that holds scheduled messages.
    fn schedules(self: &Arc<Self>, turn: &mut Turn<'_>) -> Result<Arc<Exchange>, Error> {
        if let Some(keeper) = self.exchange(SCHEDULES) {
            turn.wait_for(keeper.declared_at());
            return Ok(keeper);
        }
        let kind = Kind::Schedule;
        let wanted = DeclareExchange {
            name: SCHEDULES,
            kind: kind.name(),
            durable: true,
            internal: true,
            ..DeclareExchange::default()
        };
        self.ensure_exchange(&wanted, kind, turn)
    }

    /// Publishes what is due, and arranges for what is due again.
    pub(in crate::broker) fn release_scheduled(self: &Arc<Self>, keeper: &Arc<Exchange>, turn: &mut Turn<'_>) {
        let Some(delayed) = &keeper.delayed else { return };
        loop {
            // No checkpoint comes between the records of it, and between them and what is held.
            let pin = turn.broker.pin();
            let due = delayed.lock().release(turn.now, RELEASED_MAX);
            if due.is_empty() {
                break;
            }
            let mut batch = Batch::default();
            let (mut holds, mut again, mut records) = (Vec::new(), Vec::new(), Vec::new());
            for (key, is_recorded, message) in due {
                if is_recorded {
                    holds.push(key);
                }
                let (headers, plan) = Plan::take(message.headers());
                let bare = with_headers(&message, headers);
                if let Some((plan, due)) = plan.and_then(|plan| plan.proceed(key.due, turn.now)) {
                    let waiting = with_headers(&message, plan.put(message.headers()));
                    again.push(self.hold_again(keeper, due, waiting, is_recorded, &mut records, turn));
                }
                let target = std::str::from_utf8(bare.exchange()).ok().and_then(|name| self.exchange(name));
                if let Some(target) = target {
                    let copies = bare.copy_keys();
                    let route = self.route(&target, &bare, &copies, None, turn);
                    batch.push(bare, &Arc::new(route));
                }
            }
            if !holds.is_empty() {
                records.push(Record::Released { vhost: self.name.clone(), exchange: keeper.name.clone(), holds });
            }
            // In one record with what the queues take: neither lost nor published twice.
            commit_with(&mut batch, &[], records, turn, &mut Vec::new());
            let mut delayed = delayed.lock();
            delayed.released();
            if !keeper.is_deleted() {
                again.into_iter().for_each(|(entry, message)| delayed.hold(entry, message));
            }
            drop(delayed);
            drop(pin);
            turn.drain();
        }
        keeper.proceed_holds(turn);
    }

    /// What is to be held until `due`. Its message is in the log by itself, so that it can be read by itself.
    fn hold_again(
        &self,
        keeper: &Exchange,
        due: Time,
        message: Message,
        is_recorded: bool,
        records: &mut Vec<Record>,
        turn: &mut Turn<'_>,
    ) -> (HoldEntry, Message) {
        let hold = turn.broker.next_hold_id();
        let mut place = Position::NONE;
        if is_recorded {
            place = turn.record_now(&Record::Body { targets: 1, message: message.clone() });
            let (vhost, exchange) = (self.name.clone(), keeper.name.clone());
            records.push(Record::Held { vhost, exchange, hold, due, message: message.clone(), body: Some(place) });
        }
        let (key, body_bytes) = (HoldKey { due, hold }, message.body_bytes());
        (HoldEntry { key, place, body_bytes }, message)
    }
}

fn with_headers(message: &Message, headers: Vec<u8>) -> Message {
    message.with_view(View { headers: Some(headers), ..View::default() })
}
