//! Scheduled messages that are published again and again: more than memory keeps, with checkpoints, crashes
//! and moves in between. None is lost, none comes twice, and each goes on where it was.

use proptest::prelude::*;

use super::*;
use crate::broker::{
    exchange::Exchange,
    schedule::{Repeats, SCHEDULES, Schedule},
    time::Time,
};

/// All times are far ahead of the clock: so threads that read pages publish nothing by themselves.
struct Schedules {
    rig: Option<Rig>,
    now: Time,
    jobs: Vec<Job>,
}

/// What is to come of one message.
#[derive(Clone, Debug)]
struct Job {
    /// When it comes next.
    due: Option<Time>,
    period_ms: u64,
    /// How often after that; `None` without end.
    left: Option<u32>,
}

const QUEUE: &str = "out";

impl Schedules {
    fn new() -> Self {
        let rig = Rig::new();
        rig.declare("busy");
        rig.declare(QUEUE);
        Self { rig: Some(rig), now: clock::now().after_ms(1 << 32), jobs: Vec::new() }
    }

    fn rig(&self) -> &Rig {
        self.rig.as_ref().unwrap()
    }

    fn keeper(&self) -> Option<Arc<Exchange>> {
        self.rig().opened().broker.vhost("/").unwrap().exchange(SCHEDULES)
    }

    fn schedule(&mut self, delay_ms: u64, period_ms: u64, repeats: Option<u32>, body_bytes: usize) {
        let body = format!("{:06}{}", self.jobs.len(), "x".repeat(body_bytes));
        let mut message = Message::build("", QUEUE.as_bytes(), b"", (0, 0), body.as_bytes());
        message.traits.persistent = true;
        let broker = &self.rig().opened().broker;
        let mut turn = Turn::new(broker, self.now);
        let count = repeats.map_or(Repeats::Forever, Repeats::Times);
        let schedule = Schedule { delay_ms, period_ms, repeats: count, cron: None };
        let due = broker.vhost("/").unwrap().schedule(&message, &schedule, &mut turn).unwrap();
        drop(turn);
        self.jobs.push(Job { due: Some(due), period_ms, left: repeats });
    }

    /// What comes by then, by numbers.
    fn expect(&mut self) -> Vec<usize> {
        let mut expected = Vec::new();
        for (number, job) in self.jobs.iter_mut().enumerate() {
            let Some(due) = job.due.filter(|due| *due <= self.now) else { continue };
            expected.push(number);
            job.due = match &mut job.left {
                Some(0) => None,
                left => {
                    left.iter_mut().for_each(|left| *left -= 1);
                    let next = due.after_ms(job.period_ms);
                    Some(if next > self.now { next } else { self.now.after_ms(job.period_ms) })
                }
            };
        }
        expected
    }

    /// Has everything published that is due by then, and takes it.
    fn advance(&mut self, ms: u64) {
        self.now = self.now.after_ms(ms);
        let expected = self.expect();
        let broker = &self.rig().opened().broker;
        loop {
            broker.tick(self.now);
            assert_eq!(broker.damages(), [""; 0]);
            let Some(keeper) = self.keeper() else { break };
            let delayed = keeper.delayed.as_ref().unwrap().lock();
            if !delayed.is_reading() && delayed.next_due() > self.now {
                break;
            }
            drop(delayed);
            std::thread::yield_now();
        }
        let mut seen: Vec<usize> = self.rig().drain(QUEUE).into_iter().map(|body| body[..6].parse().unwrap()).collect();
        seen.sort_unstable();
        assert_eq!(seen, expected);
    }

    fn crash(&mut self) {
        self.rig = Some(self.rig().crash());
    }

    fn reopen(&mut self) {
        self.rig = self.rig.take().map(Rig::reopen);
    }
}

#[derive(Clone, Debug)]
enum Op {
    Schedule { count: u8, delay_ms: u16, period_ms: u16, repeats: Option<u32>, body_bytes: u16 },
    Flow(u8),
    Advance(u16),
    Checkpoint,
    Crash,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let repeats = prop_oneof![Just(None), (0..4_u32).prop_map(Some)];
    prop_oneof![
        4 => (1..30u8, 1..3_000u16, 1..3_000u16, repeats, 0..1_000u16).prop_map(
            |(count, delay_ms, period_ms, repeats, body_bytes)| Op::Schedule {
                count,
                delay_ms,
                period_ms,
                repeats,
                body_bytes
            }
        ),
        2 => (1..100u8).prop_map(Op::Flow),
        6 => (0..2_000u16).prop_map(Op::Advance),
        5 => Just(Op::Checkpoint),
        2 => Just(Op::Crash),
        1 => Just(Op::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn nothing_scheduled_is_lost_or_comes_twice(ops in prop::collection::vec(op(), 1..30)) {
        let mut schedules = Schedules::new();
        for op in ops {
            match op {
                Op::Schedule { count, delay_ms, period_ms, repeats, body_bytes } => (0..count).for_each(|number| {
                    let delay_ms = u64::from(delay_ms) + u64::from(number) * 7;
                    schedules.schedule(delay_ms, period_ms.into(), repeats, body_bytes.into());
                }),
                Op::Flow(count) => schedules.rig().flow("busy", count.into()),
                Op::Advance(ms) => schedules.advance(ms.into()),
                Op::Checkpoint => schedules.rig().checkpoint(),
                Op::Crash => schedules.crash(),
                Op::Reopen => schedules.reopen(),
            }
        }
        for _ in 0..6 {
            schedules.advance(10_000);
        }
        schedules.crash();
        schedules.advance(10_000);
        schedules.rig().settle_down();
        schedules.advance(10_000);
        prop_assert!(schedules.jobs.iter().all(|job| job.left.is_none() || job.due.is_none()));
    }
}

#[test]
fn what_is_published_without_end_keeps_neither_memory_nor_log() {
    let mut schedules = Schedules::new();
    for number in 0..20 {
        schedules.schedule(100 + number, 1_000, None, 1_000);
    }
    for round in 0..100 {
        schedules.advance(1_000);
        if round % 10 == 9 {
            schedules.rig().settle_down();
        }
    }
    let keeper = schedules.keeper().unwrap();
    assert!(keeper.delayed.as_ref().unwrap().lock().resident() <= 20);
    drop(keeper);
    // A hundred times twenty kilobytes went through it.
    let kept = schedules.rig().file_bytes();
    assert!(kept <= SLACK_BYTES + 3 * SEGMENT_BYTES, "{kept} bytes are kept");
    schedules.reopen();
    schedules.advance(1_000);
}
