//! A call until its answer may go out: again when it is told or its time has come, then until the log is flushed.

use std::sync::{Arc, Weak};

use tokio::sync::{Notify, watch};

use crate::{
    aws::{Call, Error, Reply, Step, dispatch},
    broker::{
        Broker,
        connections::{ChannelStatus, ConnectionHandle, Traffic},
        record::Position,
        turn::Turn,
    },
    server::clock,
};

/// A request's task, for those who have something for it.
#[derive(Default)]
pub(super) struct Told(Notify);

impl ConnectionHandle for Told {
    fn close(&self, _: &str) {}

    fn channels(&self) -> Vec<ChannelStatus> {
        Vec::new()
    }

    fn traffic(&self) -> Traffic {
        Traffic::default()
    }

    fn alarm_changed(&self) {}

    fn proceed(&self) {
        self.0.notify_one();
    }
}

/// Makes a waiter for a call.
pub(super) fn waiter() -> (Arc<Told>, Weak<dyn ConnectionHandle>) {
    let told = Arc::new(Told::default());
    let handle: Arc<dyn ConnectionHandle> = told.clone();
    (told, Arc::downgrade(&handle))
}

/// Runs a call to its end. May be dropped at any await: what the call holds is dropped with it, and what it has done is
/// done, unanswered.
pub(super) async fn run(
    broker: &Broker,
    call: &mut Call,
    told: &Told,
    closing: &mut watch::Receiver<u64>,
) -> Result<Reply, Error> {
    loop {
        let (step, gate) = step(broker, call);
        let until = match step {
            Ok(Step::Wait { until }) => until,
            // An error, too, says that something is so.
            Ok(Step::Done(reply)) => {
                flushed(broker, &call.waiter, told, gate).await;
                return Ok(reply);
            }
            Err(error) => {
                flushed(broker, &call.waiter, told, gate).await;
                return Err(error);
            }
        };
        let time = async {
            match clock::instant_at(until) {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = told.0.notified() => {}
            () = time => {}
            _ = closing.changed() => {
                call.state = None;
                return Err(Error::of(call.service, "ServiceUnavailable", "The broker is shutting down."));
            }
        }
    }
}

fn step(broker: &Broker, call: &mut Call) -> (Result<Step, Error>, Option<Position>) {
    let mut turn = Turn::patient(broker, clock::now());
    let step = dispatch::dispatch(call, &mut turn);
    turn.drain();
    let gate = turn.take_gate();
    turn.end();
    (step, gate)
}

/// Waits until the log is flushed to `gate`.
async fn flushed(broker: &Broker, waiter: &Weak<dyn ConnectionHandle>, told: &Told, gate: Option<Position>) {
    let Some(journal) = broker.journal() else { return };
    if broker.is_safe(gate) {
        return;
    }
    // Calls that have come already take their turns first: one write is for all of them.
    tokio::task::yield_now().await;
    let mut is_hastened = false;
    loop {
        // Registered before it looks a last time, so that no flush is missed.
        if broker.is_safe(gate) {
            return;
        }
        broker.waiting.register(waiter.clone());
        if broker.is_safe(gate) {
            return;
        }
        if !is_hastened {
            journal.hasten();
            is_hastened = true;
        }
        told.0.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_told_before_it_waits_does_not_wait() {
        let (told, waiter) = waiter();
        waiter.upgrade().unwrap().proceed();
        told.0.notified().await;
    }
}
