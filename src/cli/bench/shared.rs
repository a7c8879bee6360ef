//! What publishers, consumers and the measuring thread share: counters, flags, wake-ups.
//!
//! Counters are touched once a batch. A publisher that finds no room parks; the consumer that makes
//! room again unparks it.

use super::plan::Plan;
use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) queues: Vec<QueueState>,
    pub(super) lanes: Vec<LaneState>,
    /// Publishers end after the batch in hand.
    pub(super) stop: AtomicBool,
    /// Consumers end when nothing more arrives.
    pub(super) finish: AtomicBool,
    /// Somebody failed: everybody ends at once.
    pub(super) failed: AtomicBool,
    /// Latencies are recorded.
    pub(super) measuring: AtomicBool,
    /// Times in bodies count from here.
    pub(super) epoch: Instant,
}

/// Aligned so that no two queues share a cache line, prefetched pairs included.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct QueueState {
    sent: AtomicU64,
    received: AtomicU64,
    /// The publishers that send here.
    lanes: Vec<usize>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct LaneState {
    sent: AtomicU64,
    queues: Vec<usize>,
    /// The room that a waiting publisher needs.
    needed: AtomicU64,
    waiting: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Shared {
    pub(super) fn new(plan: &Plan) -> Self {
        let feeding = |queue: usize| {
            let lanes = plan.lanes.iter().enumerate();
            lanes.filter(|(_, lane)| lane.queues.contains(&queue)).map(|(index, _)| index).collect()
        };
        Self {
            queues: (0..plan.queues.len())
                .map(|queue| QueueState { lanes: feeding(queue), ..QueueState::default() })
                .collect(),
            lanes: plan
                .lanes
                .iter()
                .map(|lane| LaneState { queues: lane.queues.clone(), ..LaneState::default() })
                .collect(),
            stop: AtomicBool::new(false),
            finish: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            measuring: AtomicBool::new(false),
            epoch: Instant::now(),
        }
    }

    /// Messages taken from publishers.
    pub(super) fn sent(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.sent.load(SeqCst)).sum()
    }

    /// Messages delivered, to all consumers.
    pub(super) fn received(&self) -> u64 {
        self.queues.iter().map(|queue| queue.received.load(SeqCst)).sum()
    }

    /// Deliveries that are still to come.
    pub(super) fn outstanding(&self) -> u64 {
        let of = |queue: &QueueState| queue.sent.load(SeqCst).saturating_sub(queue.received.load(SeqCst));
        self.queues.iter().map(of).sum()
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// How many more messages the fullest queue of `lane` may take.
    pub(super) fn room(&self, lane: usize, in_flight_max: u64) -> u64 {
        if in_flight_max == 0 {
            return u64::MAX;
        }
        let room = |queue: &usize| {
            let queue = &self.queues[*queue];
            // Received first: read the other way round, a message could count as received only.
            let received = queue.received.load(SeqCst);
            in_flight_max.saturating_sub(queue.sent.load(SeqCst).saturating_sub(received))
        };
        self.lanes[lane].queues.iter().map(room).min().unwrap_or(u64::MAX)
    }

    /// Parks the publisher of `lane` until there is `needed` room, or `timeout` has passed.
    pub(super) fn await_room(&self, lane: usize, in_flight_max: u64, needed: u64, timeout: Duration) {
        let state = &self.lanes[lane];
        state.needed.store(needed, SeqCst);
        state.thread.get_or_init(thread::current);
        state.waiting.store(true, SeqCst);
        // Looked at again: room made before the flag was set woke nobody.
        if self.room(lane, in_flight_max) < needed {
            thread::park_timeout(timeout);
        }
        state.waiting.store(false, SeqCst);
    }

    pub(super) fn count_sent(&self, lane: usize, count: u64) {
        let lane = &self.lanes[lane];
        lane.sent.fetch_add(count, SeqCst);
        for queue in &lane.queues {
            self.queues[*queue].sent.fetch_add(count, SeqCst);
        }
    }

    /// Counts deliveries from `queue` and wakes its publishers that wait for room and have it now.
    pub(super) fn count_received(&self, queue: usize, count: u64, in_flight_max: u64) {
        let state = &self.queues[queue];
        state.received.fetch_add(count, SeqCst);
        for &index in &state.lanes {
            let lane = &self.lanes[index];
            if lane.waiting.load(SeqCst)
                && self.room(index, in_flight_max) >= lane.needed.load(SeqCst)
                && lane.waiting.swap(false, SeqCst)
                && let Some(thread) = lane.thread.get()
            {
                thread.unpark();
            }
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.stop.load(SeqCst) || self.failed.load(SeqCst)
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(SeqCst)
    }
}
