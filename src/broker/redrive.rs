//! Moving what waits in a queue to another one, or back to where it came from, at a bounded rate.
//!
//! A redrive moves the messages that its source has when it begins, in their order, as far as they are
//! ready. Each move is one record: a message is in one of the queues, whatever happens. The broker's ticker
//! works, some messages at a time. The state of a redrive is a parameter, so that it is in the log: one that
//! runs goes on after a restart, with what is still there.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{
    Broker, dead_letter, parameters::Parameter, queue::Queue, time::Time, timers::Owner, turn::Turn, vhost::Vhost,
};

/// Where messages are moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RedriveTo {
    /// To that queue of the same vhost.
    Queue(String),
    /// Each to the queue that gave it up last.
    Origin,
}

/// How a redrive stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RedriveState {
    /// It moves messages.
    Running,
    /// There is nothing left to move.
    Completed,
    /// Somebody stopped it.
    Cancelled,
    /// It could not go on, for that reason.
    Failed(String),
}

/// A redrive as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedriveStatus {
    /// Its identity.
    pub id: u64,
    /// The queue that it empties.
    pub source: String,
    /// Where messages go.
    pub to: RedriveTo,
    /// Messages that it moves in a second at most.
    pub per_second: Option<u32>,
    /// Messages moved so far.
    pub moved: u64,
    /// Messages that there were to move when it began.
    pub to_move: u64,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_at_ms: u64,
    /// How it stands.
    pub state: RedriveState,
    /// Messages from this seq on came later.
    below: u64,
}

/// Why no redrive begins.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedriveError {
    /// One of that source runs already.
    #[error("messages of this queue are being moved already")]
    Running,
    /// Messages would go where they are.
    #[error("the messages are there already")]
    SameQueue,
    /// There is no such queue.
    #[error("there is no queue '{0}'")]
    NoTarget(String),
    /// A stream's messages stay in it.
    #[error("messages of a stream cannot be moved")]
    Stream,
    /// So many run that no more may.
    #[error("too many redrives are running")]
    TooMany,
}

/// All redrives of a broker.
#[derive(Default)]
pub(in crate::broker) struct Redrives {
    /// Taken alone; nothing else is locked inside.
    all: Mutex<Vec<Redrive>>,
    next: AtomicU64,
}

struct Redrive {
    vhost: Arc<str>,
    source: Weak<Queue>,
    status: RedriveStatus,
    /// Since when, in this life of the broker, and how many were moved before that.
    since: (Time, u64),
}

impl Redrives {
    /// Forgets those of a vhost, with which their parameters go.
    pub(in crate::broker) fn delete_vhost(&self, vhost: &str) {
        self.all.lock().retain(|one| *one.vhost != *vhost);
    }
}

/// What a redrive takes next of its source.
pub(in crate::broker) enum Taken {
    /// This message: it is leaving, and nobody else gets it.
    Entry(super::queue::ready::Entry),
    /// It is on disk.
    Cold,
    /// Nothing is left.
    Nothing,
}

/// The component of the parameters that redrives are.
const COMPONENT: &str = "redrive";
/// Redrives of one queue that are listed. Full: the oldest is forgotten.
const LISTED_MAX: usize = 10;
/// Redrives that run at one time.
const RUNNING_MAX: usize = 100;
/// Messages that are moved before others have their turn.
const MOVED_MAX: u64 = 256;
/// Milliseconds after which one that may go on as fast as it can does so.
const PAUSE_MS: u64 = 1;
/// The same where it has to wait for the disk, or for its rate.
const WAIT_MS: u64 = 20;

impl Vhost {
    /// Begins to move what a queue of this vhost has.
    pub fn start_redrive(
        &self,
        source: &Arc<Queue>,
        to: RedriveTo,
        per_second: Option<u32>,
        turn: &mut Turn<'_>,
    ) -> Result<RedriveStatus, RedriveError> {
        if source.is_stream() {
            return Err(RedriveError::Stream);
        }
        if let RedriveTo::Queue(name) = &to {
            match self.queue(name) {
                None => return Err(RedriveError::NoTarget(name.clone())),
                Some(queue) if Arc::ptr_eq(&queue, source) => return Err(RedriveError::SameQueue),
                Some(_) => {}
            }
        }
        let redrives = &turn.broker.redrives;
        let (to_move, below) = source.left_to_move();
        let mut all = redrives.all.lock();
        let running = || all.iter().filter(|one| one.status.state == RedriveState::Running);
        if running().any(|one| one.vhost == self.name && *one.status.source == *source.name) {
            return Err(RedriveError::Running);
        }
        if running().count() >= RUNNING_MAX {
            return Err(RedriveError::TooMany);
        }
        let status = RedriveStatus {
            id: redrives.next.fetch_add(1, Ordering::Relaxed) + 1,
            source: source.name.to_string(),
            to,
            per_second: per_second.filter(|rate| *rate > 0),
            moved: 0,
            to_move,
            started_at_ms: turn.now.0,
            state: RedriveState::Running,
            below,
        };
        let (vhost, since) = (self.name.clone(), (turn.now, 0));
        all.push(Redrive { vhost, source: Arc::downgrade(source), status: status.clone(), since });
        let listed = |one: &Redrive| one.vhost == self.name && *one.status.source == *source.name;
        let forgotten = (all.iter().filter(|one| listed(one)).count() > LISTED_MAX)
            .then(|| all.iter().position(listed))
            .flatten()
            .map(|oldest| all.remove(oldest));
        drop(all);
        if let Some(forgotten) = forgotten {
            turn.broker.forget_redrive(&forgotten);
        }
        turn.broker.keep_redrive(&self.name, &status, turn);
        turn.broker.timers.schedule(turn.now, Owner::Redrive(status.id));
        Ok(status)
    }
}

impl Broker {
    /// The redrives of a vhost that run or have run of late, oldest first.
    pub fn redrives(&self, vhost: &str) -> Vec<RedriveStatus> {
        let all = self.redrives.all.lock();
        all.iter().filter(|one| &*one.vhost == vhost).map(|one| one.status.clone()).collect()
    }

    /// Stops a redrive; what was moved stays where it is. `None`: there is none that runs.
    pub fn cancel_redrive(&self, id: u64, turn: &mut Turn<'_>) -> Option<RedriveStatus> {
        self.end_redrive(id, RedriveState::Cancelled, turn)
    }

    fn end_redrive(&self, id: u64, state: RedriveState, turn: &mut Turn<'_>) -> Option<RedriveStatus> {
        let (vhost, status) = {
            let mut all = self.redrives.all.lock();
            let one = all.iter_mut().find(|one| one.status.id == id)?;
            if one.status.state != RedriveState::Running {
                return None;
            }
            one.status.state = state;
            (one.vhost.clone(), one.status.clone())
        };
        self.keep_redrive(&vhost, &status, turn);
        Some(status)
    }

    fn keep_redrive(&self, vhost: &str, status: &RedriveStatus, turn: &mut Turn<'_>) {
        let Ok(value) = serde_json::to_value(status) else { return };
        let (vhost, component, name) = (vhost.to_owned(), COMPONENT.to_owned(), status.id.to_string());
        self.parameters.keep(Parameter { value, vhost, component, name });
        turn.wait_for(self.defined_at());
    }

    fn forget_redrive(&self, redrive: &Redrive) {
        // It may have gone with its vhost.
        let _ = self.parameters.clear(&redrive.vhost, COMPONENT, &redrive.status.id.to_string());
    }

    /// Goes on with what ran when the broker stopped.
    pub(in crate::broker) fn resume_redrives(&self) {
        for Parameter { vhost, value, .. } in self.parameters.list(None, Some(COMPONENT)) {
            let Ok(mut status) = serde_json::from_value::<RedriveStatus>(Json::clone(&value)) else { continue };
            let Some(vhost) = self.vhost(&vhost) else { continue };
            let source = vhost.queue(&status.source);
            self.redrives.next.fetch_max(status.id, Ordering::Relaxed);
            if status.state == RedriveState::Running {
                let left = source.as_ref().map_or(0, |source| source.left_to_move().0);
                status.moved = status.moved.max(status.to_move.saturating_sub(left));
                self.timers.schedule(Time(0), Owner::Redrive(status.id));
            }
            let since = (Time(0), status.moved);
            let source = source.as_ref().map_or_else(Weak::new, Arc::downgrade);
            self.redrives.all.lock().push(Redrive { vhost: vhost.name.clone(), source, status, since });
        }
        self.redrives.all.lock().sort_by_key(|one| one.status.id);
    }

    /// Moves some messages, and makes an appointment for the next.
    pub(in crate::broker) fn work_redrive(&self, id: u64, turn: &mut Turn<'_>) {
        let (vhost, source, status, budget) = {
            let mut all = self.redrives.all.lock();
            let Some(one) = all.iter_mut().find(|one| one.status.id == id) else { return };
            if one.status.state != RedriveState::Running {
                return;
            }
            if one.since.0 == Time(0) {
                one.since.0 = turn.now;
            }
            let budget = one.status.per_second.map_or(MOVED_MAX, |rate| {
                let allowed = 1 + turn.now.ms_since(one.since.0).saturating_mul(u64::from(rate)) / 1_000;
                (one.since.1 + allowed).saturating_sub(one.status.moved).min(MOVED_MAX)
            });
            (one.vhost.clone(), one.source.upgrade(), one.status.clone(), budget)
        };
        let vhost = self.vhost(&vhost);
        let (Some(vhost), Some(source)) = (vhost, source.filter(|source| !source.is_deleted())) else {
            self.end_redrive(id, RedriveState::Failed("the queue was deleted".to_owned()), turn);
            return;
        };
        let (mut moved, mut ended, mut pause_ms) = (0, None, if budget < MOVED_MAX { WAIT_MS } else { PAUSE_MS });
        while moved < budget && ended.is_none() {
            match source.take_to_move(status.below, turn) {
                Taken::Nothing => ended = Some(RedriveState::Completed),
                Taken::Cold => {
                    pause_ms = WAIT_MS;
                    break;
                }
                Taken::Entry(entry) => match redrive_one(&vhost, &source, &status.to, entry, turn) {
                    Ok(()) => moved += 1,
                    Err(reason) => ended = Some(RedriveState::Failed(reason)),
                },
            }
        }
        if let Some(one) = self.redrives.all.lock().iter_mut().find(|one| one.status.id == id) {
            one.status.moved += moved;
        }
        match ended {
            Some(state) => _ = self.end_redrive(id, state, turn),
            None => self.timers.schedule(turn.now.after_ms(pause_ms), Owner::Redrive(id)),
        }
    }
}

fn redrive_one(
    vhost: &Arc<Vhost>,
    source: &Arc<Queue>,
    to: &RedriveTo,
    entry: super::queue::ready::Entry,
    turn: &mut Turn<'_>,
) -> Result<(), String> {
    let name = match to {
        RedriveTo::Queue(name) => Some(name.clone()),
        RedriveTo::Origin => dead_letter::origin(entry.message.headers()),
    };
    let target = name.as_deref().and_then(|name| vhost.queue(name)).filter(|queue| !Arc::ptr_eq(queue, source));
    let Some(target) = target else {
        source.take_back(entry, turn);
        return Err(match name {
            Some(name) => format!("there is no other queue '{name}'"),
            None => "a message does not say where it comes from".to_owned(),
        });
    };
    let view = entry.message.view().cloned().unwrap_or_default();
    let message = entry.message.rerouted("", target.name.as_bytes(), view);
    let is_recorded = source.is_recorded(&entry.message, turn);
    let from = is_recorded.then_some((source, entry.seq));
    if dead_letter::redrive(target, message, from, turn) {
        return Ok(());
    }
    source.take_back(entry, turn);
    Err(format!("queue '{}' is full", name.unwrap_or_default()))
}

#[cfg(test)]
mod tests;
