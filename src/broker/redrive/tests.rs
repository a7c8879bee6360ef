//! What a redrive moves, how fast, and what stops it.

use super::*;
use crate::broker::{
    Options,
    message::Message,
    queue::{leases::Receive, machine::Limits},
    topology::DeclareQueue,
    value::{Table, Value},
    verb::Verb,
};

struct Bench {
    broker: Arc<Broker>,
    now: Time,
}

impl Bench {
    /// A queue `work` that gives up after one failed delivery what then comes to `dead`, and a queue `other`.
    fn new() -> Self {
        let now = Time(1_000_000);
        let broker = Arc::new(Broker::new(Options::default(), now).unwrap());
        let bench = Self { broker, now };
        let arguments = Table::from_iter([
            ("x-dead-letter-exchange", Value::text("")),
            ("x-dead-letter-routing-key", Value::text("dead")),
        ]);
        for (name, arguments) in [("work", arguments), ("dead", Table::new()), ("other", Table::new())] {
            let wanted = DeclareQueue { name, arguments, ..DeclareQueue::default() };
            bench.vhost().declare_queue(&wanted, None, &mut bench.turn()).unwrap();
        }
        let work = bench.queue("work");
        let limits = Limits { delivery_limit: Some(0), ..Limits::default() };
        work.configure(limits, work.dead_letter(), &mut bench.turn());
        bench
    }

    fn vhost(&self) -> Arc<Vhost> {
        self.broker.vhost("/").unwrap()
    }

    fn queue(&self, name: &str) -> Arc<Queue> {
        self.vhost().queue(name).unwrap()
    }

    fn turn(&self) -> Turn<'_> {
        Turn::new(&self.broker, self.now)
    }

    /// So many messages fail in `work`.
    fn fail(&mut self, count: usize) {
        let message = |nth| Message::build("", b"work", b"", (0, 0), format!("{nth}").as_bytes());
        self.queue("work").publish((0..count).map(message), &mut self.turn(), &mut Vec::new());
        let wanted = Receive { max: count, lease_ms: 1, ..Receive::default() };
        let Verb::Done(received) = self.queue("work").receive(&wanted, &mut self.turn()) else {
            panic!("all is in memory")
        };
        assert_eq!(received.unwrap().messages.len(), count);
        self.advance(1);
        assert_eq!(self.ready(), [0, count as u64, 0]);
    }

    fn ready(&self) -> [u64; 3] {
        ["work", "dead", "other"].map(|name| self.queue(name).status().ready)
    }

    fn advance(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now = self.now.after_ms(1);
            self.broker.tick(self.now);
        }
    }

    fn start(&self, to: RedriveTo, per_second: Option<u32>) -> Result<RedriveStatus, RedriveError> {
        self.vhost().start_redrive(&self.queue("dead"), to, per_second, &mut self.turn())
    }

    fn status(&self) -> RedriveStatus {
        self.broker.redrives("/").pop().unwrap()
    }
}

#[test]
fn messages_go_back_to_where_they_were_given_up_in_their_order() {
    let mut bench = Bench::new();
    bench.fail(600);
    assert_eq!(bench.start(RedriveTo::Origin, None).unwrap().to_move, 600);
    bench.advance(10);
    assert_eq!(bench.ready(), [600, 0, 0]);
    assert_eq!((bench.status().state, bench.status().moved), (RedriveState::Completed, 600));
    let first: Vec<_> = bench.queue("work").snapshot().iter().take(3).map(|(_, one, _)| one.body_to_vec()).collect();
    assert_eq!(first, [b"0", b"1", b"2"]);
}

#[test]
fn a_redrive_is_as_fast_as_it_may_be_and_can_be_stopped() {
    let mut bench = Bench::new();
    bench.fail(50);
    let id = bench.start(RedriveTo::Queue("other".into()), Some(10)).unwrap().id;
    assert_eq!(bench.start(RedriveTo::Origin, None), Err(RedriveError::Running));
    bench.advance(1_010);
    let [_, dead, other] = bench.ready();
    assert!((9..=12).contains(&other), "{other}");
    assert_eq!(dead + other, 50);
    let stopped = bench.broker.cancel_redrive(id, &mut bench.turn()).unwrap();
    assert_eq!((stopped.state, stopped.moved), (RedriveState::Cancelled, other));
    bench.advance(500);
    assert_eq!(bench.ready(), [0, dead, other]);
    assert_eq!(bench.broker.cancel_redrive(id, &mut bench.turn()), None);
}

#[test]
fn what_comes_later_is_not_moved() {
    let mut bench = Bench::new();
    bench.fail(2);
    bench.start(RedriveTo::Queue("other".into()), Some(1)).unwrap();
    let late = Message::build("", b"dead", b"", (0, 0), b"late");
    bench.queue("dead").publish(std::iter::once(late), &mut bench.turn(), &mut Vec::new());
    bench.advance(3_000);
    assert_eq!((bench.ready(), bench.status().state), ([0, 1, 2], RedriveState::Completed));
}

#[test]
fn a_message_that_has_nowhere_to_go_stays_and_the_redrive_fails() {
    let mut bench = Bench::new();
    let stray = Message::build("", b"dead", b"", (0, 0), b"stray");
    bench.queue("dead").publish(std::iter::once(stray), &mut bench.turn(), &mut Vec::new());
    bench.start(RedriveTo::Origin, None).unwrap();
    bench.advance(5);
    assert!(matches!(bench.status().state, RedriveState::Failed(_)));
    assert_eq!(bench.ready(), [0, 1, 0]);
    assert_eq!(bench.start(RedriveTo::Queue("none".into()), None), Err(RedriveError::NoTarget("none".into())));
    assert_eq!(bench.start(RedriveTo::Queue("dead".into()), None), Err(RedriveError::SameQueue));
}
