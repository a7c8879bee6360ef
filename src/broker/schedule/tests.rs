//! Tests of scheduled messages: what comes when, and what stays of it.

use super::*;
use crate::broker::{
    Broker, Options,
    exchange::Target,
    queue::Queue,
    topology::DeclareQueue,
    value::{Headers, HeadersBuilder, Table, Value},
};

struct Rig {
    broker: Broker,
    now: Time,
}

impl Rig {
    fn new() -> Self {
        let rig = Self { broker: Broker::new(Options::default(), START).unwrap(), now: START };
        rig.declare("q");
        rig
    }

    fn vhost(&self) -> Arc<Vhost> {
        self.broker.vhost("/").unwrap()
    }

    fn turn(&self) -> Turn<'_> {
        Turn::new(&self.broker, self.now)
    }

    fn declare(&self, name: &str) -> Arc<Queue> {
        let wanted = DeclareQueue { name, ..DeclareQueue::default() };
        self.vhost().declare_queue(&wanted, None, &mut self.turn()).unwrap()
    }

    fn schedule(&self, message: &Message, schedule: &Schedule) -> Result<u64, ScheduleError> {
        let due = self.vhost().schedule(message, schedule, &mut self.turn())?;
        Ok(due.ms_since(self.now))
    }

    /// Ticks whenever the broker wants to, up to that time; returns when messages came.
    fn run_to(&mut self, end_ms: u64) -> Vec<(u64, Message)> {
        let mut seen = Vec::new();
        while let Some(next) = self.broker.timers.next().filter(|next| next.ms_since(START) <= end_ms) {
            self.now = self.now.max(next);
            self.broker.tick(self.now);
            seen.extend(self.take().into_iter().map(|message| (self.now.ms_since(START), message)));
        }
        self.now = START.after_ms(end_ms);
        seen
    }

    fn take(&self) -> Vec<Message> {
        let queue = self.vhost().queue("q").unwrap();
        let messages = queue.snapshot().into_iter().map(|(_, message, _)| message).collect();
        queue.purge(&mut self.turn());
        messages
    }
}

const START: Time = Time(1_700_000_000_000);

fn message() -> Message {
    Message::build("", b"q", b"", (0, 0), b"body")
}

fn with_header(name: &str, value: Value) -> Message {
    let mut headers = HeadersBuilder::new();
    headers.push(name, &value);
    let headers = headers.finish();
    Message::build("", b"q", &headers, (0, headers.len()), b"body")
}

fn after(delay_ms: u64) -> Schedule {
    Schedule { delay_ms, ..Schedule::default() }
}

fn times(seen: &[(u64, Message)]) -> Vec<u64> {
    seen.iter().map(|(at, _)| *at).collect()
}

#[test]
fn message_comes_once_when_it_is_due() {
    let mut rig = Rig::new();
    assert_eq!(rig.schedule(&message(), &after(1500)).unwrap(), 1500);
    assert_eq!(times(&rig.run_to(1499)), [0; 0]);
    assert_eq!(times(&rig.run_to(100_000)), [1500]);
    assert_eq!(rig.vhost().scheduled_resident(), 0);
}

#[test]
fn message_without_any_delay_comes_at_the_next_tick() {
    let mut rig = Rig::new();
    assert_eq!(rig.schedule(&message(), &Schedule::default()).unwrap(), 0);
    assert_eq!(times(&rig.run_to(0)), [0]);
}

#[test]
fn message_is_repeated_as_often_as_it_says() {
    let mut rig = Rig::new();
    let schedule = Schedule { period_ms: 200, repeats: Repeats::Times(2), ..after(500) };
    rig.schedule(&message(), &schedule).unwrap();
    assert_eq!(times(&rig.run_to(100_000)), [500, 700, 900]);
    assert_eq!(rig.vhost().scheduled_resident(), 0);
}

#[test]
fn message_is_repeated_without_end() {
    let mut rig = Rig::new();
    let schedule = Schedule { period_ms: 1000, repeats: Repeats::Forever, ..Schedule::default() };
    rig.schedule(&message(), &schedule).unwrap();
    assert_eq!(times(&rig.run_to(1_000_000)).len(), 1000);
    assert_eq!(rig.vhost().scheduled_resident(), 1);
}

#[test]
fn cron_begins_each_run() {
    let mut rig = Rig::new();
    let cron = Some(Cron::parse("*/10 * * * *").unwrap());
    let schedule = Schedule { delay_ms: 1000, period_ms: 500, repeats: Repeats::Times(1), cron };
    rig.schedule(&message(), &schedule).unwrap();
    // It was 22:13:20.
    let first = 400_000;
    let expected = [first + 1000, first + 1500, first + 601_000, first + 601_500];
    assert_eq!(times(&rig.run_to(first + 700_000)), expected);
}

#[test]
fn messages_due_at_once_come_in_the_order_in_which_they_were_scheduled() {
    let mut rig = Rig::new();
    for body in 0..600_u32 {
        let message = Message::build("", b"q", b"", (0, 0), &body.to_be_bytes());
        rig.schedule(&message, &after(100)).unwrap();
    }
    let seen = rig.run_to(100);
    let bodies: Vec<_> = seen.iter().map(|(_, message)| message.body_to_vec()).collect();
    assert_eq!(bodies, (0..600_u32).map(|body| body.to_be_bytes().to_vec()).collect::<Vec<_>>());
}

#[test]
fn consumers_see_the_headers_that_the_publisher_gave() {
    let mut rig = Rig::new();
    let schedule = Schedule { period_ms: 10, repeats: Repeats::Times(1), ..after(10) };
    rig.schedule(&with_header("mine", Value::I32(7)), &schedule).unwrap();
    let seen = rig.run_to(1000);
    assert_eq!(seen.len(), 2);
    for (_, message) in seen {
        let table = message.headers().to_table();
        assert_eq!(table, Table::from_iter([("mine", Value::I32(7))]));
    }
}

#[test]
fn publishers_cannot_say_how_far_a_message_has_come() {
    let mut rig = Rig::new();
    // As the plan of a message that is repeated without end.
    let forged = with_header("x-tern-schedule", Value::text("1 1 -1 -1 0 "));
    rig.schedule(&forged, &after(5)).unwrap();
    assert_eq!(times(&rig.run_to(1000)), [5]);
}

#[test]
fn message_goes_through_the_exchange_that_it_names() {
    let mut rig = Rig::new();
    let queue = rig.vhost().queue("q").unwrap();
    rig.vhost().bind("amq.topic", &Target::Queue(queue), b"a.*", &Table::new(), &mut rig.turn()).unwrap();
    for (key, delay_ms) in [("a.b", 10), ("b.a", 20)] {
        let message = Message::build("amq.topic", key.as_bytes(), b"", (0, 0), b"");
        rig.schedule(&message, &after(delay_ms)).unwrap();
    }
    let seen = rig.run_to(1000);
    assert_eq!(times(&seen), [10]);
    assert_eq!((seen[0].1.exchange(), seen[0].1.key()), (&b"amq.topic"[..], &b"a.b"[..]));
}

#[test]
fn message_whose_exchange_is_gone_goes_nowhere_and_holds_up_no_other() {
    let mut rig = Rig::new();
    let nowhere = Message::build("gone", b"q", b"", (0, 0), b"");
    rig.schedule(&nowhere, &after(10)).unwrap();
    rig.schedule(&message(), &after(10)).unwrap();
    assert_eq!(times(&rig.run_to(1000)), [10]);
    assert_eq!(rig.vhost().scheduled_resident(), 0);
}

#[test]
fn time_to_live_begins_when_the_message_is_published() {
    let mut rig = Rig::new();
    let mut message = message();
    message.traits.ttl = Some(100).into();
    rig.schedule(&message, &after(1000)).unwrap();
    assert_eq!(times(&rig.run_to(1099)), [1000]);
}

#[test]
fn schedules_are_kept_within_bounds() {
    let rig = Rig::new();
    let repeated = |times| Schedule { period_ms: 1, repeats: Repeats::Times(times), ..Schedule::default() };
    assert!(rig.schedule(&message(), &after(SCHEDULE_MS_MAX)).is_ok());
    assert!(rig.schedule(&message(), &repeated(REPEATS_MAX)).is_ok());
    let too_far = Schedule { period_ms: SCHEDULE_MS_MAX + 1, ..Schedule::default() };
    let endless = Schedule { repeats: Repeats::Forever, ..after(10) };
    for (schedule, expected) in [
        (after(SCHEDULE_MS_MAX + 1), "the delay of a scheduled message is at most 316224000000 ms, not 316224000001"),
        (too_far, "the period of a scheduled message is at most 316224000000 ms, not 316224000001"),
        (repeated(REPEATS_MAX + 1), "The scheduled repeat value is too large"),
        (endless, "a scheduled message that is repeated without end needs a period"),
    ] {
        assert_eq!(rig.schedule(&message(), &schedule).unwrap_err().to_string(), expected);
    }
    assert_eq!(rig.vhost().scheduled_resident(), 2);
}

#[test]
fn clients_neither_declare_nor_delete_the_exchange_that_holds_schedules() {
    let rig = Rig::new();
    let (vhost, mut turn) = (rig.vhost(), rig.turn());
    for name in ["mine", SCHEDULES] {
        let kind = Kind::Schedule;
        let wanted = DeclareExchange { name, kind: kind.name(), ..DeclareExchange::default() };
        let error = vhost.declare_exchange(&wanted, &mut turn).err().unwrap();
        assert_eq!(error.to_string(), "unknown exchange type 'x-tern-schedule'");
    }
    rig.schedule(&message(), &after(10)).unwrap();
    assert!(vhost.delete_exchange(SCHEDULES, false, &mut turn).is_err());
    assert!(vhost.exchange(SCHEDULES).unwrap().declaration.is_internal);
}

#[test]
fn what_is_bound_to_the_exchange_that_holds_schedules_makes_none() {
    let mut rig = Rig::new();
    rig.schedule(&message(), &after(10)).unwrap();
    let (vhost, mut turn) = (rig.vhost(), rig.turn());
    let keeper = Target::Exchange(vhost.exchange(SCHEDULES).unwrap());
    vhost.bind("amq.fanout", &keeper, b"", &Table::new(), &mut turn).unwrap();
    let mut headers = HeadersBuilder::new();
    headers.push("x-delay", &Value::I32(5));
    headers.push("x-tern-schedule", &Value::text("1 1 -1 -1 0 "));
    let headers = headers.finish();
    assert!(!Headers::new(&headers).is_empty());
    let message = Message::build("amq.fanout", b"q", &headers, (0, headers.len()), b"");
    let fanout = vhost.exchange("amq.fanout").unwrap();
    let route = vhost.route(&fanout, &message, &[], None, &mut turn);
    assert!(!route.is_kept && route.queues.is_empty());
    drop(turn);
    assert_eq!(times(&rig.run_to(1000)), [10]);
}
