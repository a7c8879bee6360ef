//! The task that drives replays of archived messages.
//!
//! One for all: replays take turns with [`PAGE_MAX`] messages each, so that neither their number nor the length of an
//! archive costs memory, and [`PER_SECOND_MAX`] bounds what they take from everybody else.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    aws::{Aws, sns::replay::Stepped},
    broker::{Broker, turn::Turn},
    server::clock,
};

/// Messages of one turn.
const PAGE_MAX: usize = 100;
/// Messages of a second, of all replays together: what a topic may publish.
const PER_SECOND_MAX: u32 = 3_000;
/// Between two looks while no archived message is being replayed.
const IDLE: Duration = Duration::from_millis(100);
/// Between two looks while replays wait for the log, for a page, or for a moment in which nothing is published.
const WAITING: Duration = Duration::from_millis(5);

/// Drives replays until it is dropped, at any await: what was kept last is where they go on.
pub(super) async fn run(broker: Arc<Broker>, aws: Arc<Aws>) {
    let mut next_at = Instant::now();
    loop {
        sleep_until(next_at).await;
        if broker.has_alarm() || broker.journal().is_some_and(|journal| !journal.has_room()) {
            sleep(IDLE).await;
            continue;
        }
        let mut turn = Turn::new(&broker, clock::now());
        let stepped = aws.sns.replays.step(&aws, PAGE_MAX, &mut turn);
        turn.drain();
        turn.end();
        match stepped {
            Stepped::Looked(count) => {
                let count = u32::try_from(count).unwrap_or(u32::MAX).max(1);
                next_at = next_at.max(Instant::now()) + Duration::from_secs(count.into()) / PER_SECOND_MAX;
            }
            Stepped::Nothing => sleep(WAITING).await,
            Stepped::None => sleep(IDLE).await,
        }
    }
}
