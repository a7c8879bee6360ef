//! What a restart leaves and what it takes, row by row: after SIGKILL and after SIGTERM, with everything in
//! memory and with checkpoints, pages and the index in the way.
//!
//! Every rule is a function that is given a fresh broker; [`restarts`] makes its tests of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use lapin::{
    options::*,
    types::{AMQPValue, FieldTable},
};
use ternmq::store::{
    disk::{Disk, RealDisk},
    survey::{Layout, Survey},
};

use crate::{
    app::{App, DURABLE, body, header, number, persistent, table, text},
    broker::{Broker, until},
};

/// How a broker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Killed,
    Terminated,
}

/// A broker that is to be restarted.
pub(crate) struct Rig {
    pub(crate) broker: Broker,
    end: End,
    has_index: bool,
}

/// Files small enough that a test does not wait for them.
const PLAIN: &[&str] = &["store.segment_bytes=32MiB"];
/// Everything that can be small is: a queue keeps sixteen of the messages of these tests in memory.
const INDEXED: &[&str] = &[
    "store.segment_bytes=4MiB",
    "store.batch_bytes_max=512KiB",
    "store.unwritten_bytes_max=1MiB",
    "store.checkpoint_bytes=64KiB",
    "store.checkpoint_ms=100",
    "store.queue_window_bytes=64KiB",
];
/// More messages of [`body`] than a queue keeps in memory then.
const MANY: u32 = 100;

impl Rig {
    pub(crate) fn new(end: End, has_index: bool) -> Self {
        let broker = Broker::with(if has_index { INDEXED } else { PLAIN });
        Self { broker, end, has_index }
    }

    pub(crate) fn app(&self) -> App {
        let app = App::on(&self.broker);
        app.declare("cover", DURABLE, &[]);
        app
    }

    /// Ends the broker with what the application has done so far.
    fn stop(&mut self, app: App) {
        // Nobody waits for an acknowledgement to be on the disk: what is confirmed later was logged later.
        app.publish("cover", b"last");
        if self.has_index {
            self.cover(&app);
        }
        match self.end {
            End::Killed => self.broker.kill(),
            End::Terminated => {
                self.broker.terminate();
                assert_eq!(self.broker.wait().code(), Some(0));
            }
        }
        app.forget();
    }

    pub(crate) fn restart(&mut self, app: App) -> App {
        self.stop(app);
        self.broker.start_again();
        self.app()
    }

    /// Waits until a checkpoint covers everything so far. It covers what was there when the one before it
    /// began, so something must go on.
    fn cover(&self, app: &App) {
        let end = self.survey().log.end;
        until("a checkpoint covers it", || {
            app.publish("cover", b"on");
            app.drain("cover");
            let index = self.survey().index.unwrap();
            index.checkpoint.is_some_and(|checkpoint| checkpoint.covered >= end.0)
        });
    }

    fn survey(&self) -> Survey {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let layout = Layout::find(&*disk, &self.broker.data()).unwrap().unwrap();
        Survey::take(&disk, &layout, true).unwrap()
    }
}

macro_rules! restarts {
    ($($rule:ident),* $(,)?) => {
        $(mod $rule {
            use super::{End, Rig};

            #[test]
            fn after_a_kill() {
                super::$rule(&mut Rig::new(End::Killed, false));
            }

            #[test]
            fn after_a_kill_with_an_index() {
                super::$rule(&mut Rig::new(End::Killed, true));
            }

            #[test]
            fn after_sigterm() {
                super::$rule(&mut Rig::new(End::Terminated, false));
            }

            #[test]
            fn after_sigterm_with_an_index() {
                super::$rule(&mut Rig::new(End::Terminated, true));
            }
        })*
    };
}

pub(crate) use restarts;

restarts!(
    exclusive_queues_and_transient_messages_are_gone,
    an_auto_delete_queue_is_kept_until_a_consumer_has_come_and_gone,
    the_timer_of_an_unused_queue_starts_again,
    unsettled_deliveries_are_ready_again_and_redelivered,
    what_was_settled_does_not_come_back,
    delivery_counts_are_kept,
    the_single_active_consumer_is_elected_anew,
    definitions_survive,
    deleted_definitions_stay_deleted,
    delayed_messages_fire_when_they_are_due,
    more_delayed_messages_than_memory_keeps_fire_once_and_in_order,
    dedup_windows_are_remembered,
    a_committed_transaction_survives_and_an_open_one_does_not,
    a_dead_lettered_message_stays_so,
    a_purge_and_a_delete_survive,
    a_message_longer_than_a_batch_survives,
    priorities_keep_their_order,
    a_ttl_counts_on,
    one_message_in_many_queues_survives_in_each,
    a_second_restart_finds_the_same,
    selectors_of_queues_and_consumers_find_theirs,
    groups_are_kept_apart,
);

fn numbers(app: &App, queue: &str) -> Vec<u32> {
    app.drain(queue).iter().map(|delivery| number(&delivery.data)).collect()
}

fn exclusive_queues_and_transient_messages_are_gone(rig: &mut Rig) {
    let app = rig.app();
    app.declare("kept", DURABLE, &[]);
    app.declare("exclusive", QueueDeclareOptions { exclusive: true, ..DURABLE }, &[]);
    app.declare("transient", QueueDeclareOptions::default(), &[]);
    for at in 0..MANY {
        app.publish_to("", "kept", &body(at), if at % 2 == 0 { persistent() } else { Default::default() });
    }
    app.publish("exclusive", b"");
    app.publish("transient", b"");
    let app = rig.restart(app);
    assert_eq!([app.ready("exclusive"), app.ready("transient")], [None, None]);
    assert_eq!(numbers(&app, "kept"), (0..MANY).step_by(2).collect::<Vec<_>>());
}

fn an_auto_delete_queue_is_kept_until_a_consumer_has_come_and_gone(rig: &mut Rig) {
    let app = rig.app();
    app.declare("q", QueueDeclareOptions { auto_delete: true, ..DURABLE }, &[]);
    app.publish_numbers("q", 0..MANY);
    let app = rig.restart(app);
    assert_eq!(app.ready("q"), Some(MANY));
    app.consume("q", "c");
    app.wait(app.channel.basic_cancel("c".into(), BasicCancelOptions::default())).unwrap();
    until("the queue is gone", || app.ready("q").is_none());
    let app = rig.restart(app);
    assert_eq!(app.ready("q"), None);
}

fn the_timer_of_an_unused_queue_starts_again(rig: &mut Rig) {
    const EXPIRES: Duration = Duration::from_secs(5);
    let app = rig.app();
    app.declare("q", DURABLE, &[("x-expires", AMQPValue::LongLongInt(EXPIRES.as_millis() as i64))]);
    let used = Instant::now();
    rig.stop(app);
    until("it would have expired", || used.elapsed() > EXPIRES);
    rig.broker.start_again();
    // Looking is no use of it.
    let queues = || rig.broker.ctl(&["-s", "list_queues", "name"]);
    assert!(queues().lines().any(|name| name == "q"), "{}", queues());
    until("it expires", || !queues().lines().any(|name| name == "q"));
}

fn unsettled_deliveries_are_ready_again_and_redelivered(rig: &mut Rig) {
    let app = rig.app();
    app.declare("q", DURABLE, &[]);
    app.publish_numbers("q", 0..MANY);
    let deliveries: Vec<_> = (0..10).map(|_| app.expect("q")).collect();
    // Neither the first nor the last, so that what is left is no range.
    deliveries[3..6].iter().for_each(|delivery| app.ack(delivery));
    app.sync();
    app.publish_numbers("q", MANY..MANY + 1);
    let app = rig.restart(app);
    let all = app.drain("q");
    let found: Vec<_> = all.iter().map(|delivery| (number(&delivery.data), delivery.redelivered)).collect();
    let expected = (0..3).chain(6..=MANY).map(|number| (number, number < 10));
    assert_eq!(found, expected.collect::<Vec<_>>());
}

fn what_was_settled_does_not_come_back(rig: &mut Rig) {
    let app = rig.app();
    app.declare("q", DURABLE, &[]);
    app.publish_numbers("q", 0..MANY);
    assert_eq!(numbers(&app, "q").len(), MANY as usize);
    app.publish_numbers("q", MANY..MANY + 3);
    let app = rig.restart(app);
    assert_eq!(app.ready("q"), Some(3));
    assert_eq!(numbers(&app, "q"), [MANY, MANY + 1, MANY + 2]);
    app.publish_numbers("q", 0..1);
    let app = rig.restart(app);
    assert_eq!(numbers(&app, "q"), [0]);
}

fn delivery_counts_are_kept(rig: &mut Rig) {
    let app = rig.app();
    app.declare("q", DURABLE, &[("x-queue-type", text("quorum"))]);
    app.publish_numbers("q", 0..MANY);
    for before in 0..2_i64 {
        let delivery = app.expect("q");
        assert_eq!(number(&delivery.data), 0);
        let count = header(&delivery, "x-delivery-count");
        assert!(before == 0 || count == Some(AMQPValue::LongLongInt(before)), "{count:?} after {before}");
        app.nack(&delivery, true);
        app.sync();
    }
    app.publish_numbers("q", MANY..MANY + 1);
    let app = rig.restart(app);
    let delivery = app.expect("q");
    assert_eq!((number(&delivery.data), delivery.redelivered), (0, true));
    assert_eq!(header(&delivery, "x-delivery-count"), Some(AMQPValue::LongLongInt(2)));
    let other = app.expect("q");
    assert_eq!((number(&other.data), other.redelivered), (1, false));
}

fn the_single_active_consumer_is_elected_anew(rig: &mut Rig) {
    let app = rig.app();
    app.declare("q", DURABLE, &[("x-single-active-consumer", AMQPValue::Boolean(true))]);
    let mut first = app.consume("q", "first");
    let _second = app.consume("q", "second");
    app.publish_numbers("q", 0..1);
    assert_eq!(number(&app.next(&mut first).data), 0);
    let app = rig.restart(app);
    let mut second = app.consume("q", "second");
    let _first = app.consume("q", "first");
    let delivery = app.next(&mut second);
    assert_eq!((number(&delivery.data), delivery.redelivered), (0, true));
    let consumers = rig.broker.ctl(&["-s", "list_consumers", "consumer_tag", "activity_status"]);
    let mut consumers: Vec<_> = consumers.lines().collect();
    consumers.sort_unstable();
    assert_eq!(consumers, ["first\twaiting", "second\tsingle_active"]);
}

/// What operators and applications define, as `tern ctl` lists it.
const LISTINGS: &[&[&str]] = &[
    &["list_vhosts", "name", "tracing"],
    &["list_users"],
    &["list_permissions", "-p", "shop"],
    &["list_topic_permissions", "-p", "shop"],
    &["list_policies", "-p", "shop"],
    &["list_operator_policies", "-p", "shop"],
    &["list_vhost_limits", "-p", "shop"],
    &["list_user_limits", "--user", "clerk"],
    &["list_parameters", "-p", "shop"],
    &["list_global_parameters"],
    &["list_exchanges", "name", "type", "durable", "auto_delete", "internal", "arguments"],
    &["list_bindings"],
    &["list_queues", "name", "durable", "auto_delete", "arguments", "policy"],
];

/// Every listing that is of none of `gone`, its rows in an order of their own.
pub(crate) fn listings(broker: &Broker, gone: &[&str]) -> Vec<Vec<String>> {
    let is_there = |listing: &&&[&str]| !listing.iter().any(|argument| gone.contains(argument));
    let sorted = |arguments: &&[&str]| {
        let listed = broker.ctl(&[&["-s"], *arguments].concat());
        let mut lines: Vec<_> = listed.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    LISTINGS.iter().filter(is_there).map(sorted).collect()
}

pub(crate) fn define(broker: &Broker, app: &App) {
    for line in [
        &["add_vhost", "shop"][..],
        &["add_user", "clerk", "secret"],
        &["set_user_tags", "clerk", "monitoring", "policymaker"],
        &["set_permissions", "-p", "shop", "clerk", "^c", "^w", "^r"],
        &["set_topic_permissions", "-p", "shop", "clerk", "amq.topic", "^w", "^r"],
        &["set_user_limits", "clerk", r#"{"max-connections": 7}"#],
        &["set_vhost_limits", "-p", "shop", r#"{"max-queues": 70}"#],
        &["set_policy", "-p", "shop", "short", "^q", r#"{"max-length": 10}"#, "--priority", "3"],
        &["set_policy", "ours", "^events$", r#"{"message-ttl": 600000}"#],
        &["set_operator_policy", "-p", "shop", "limit", ".*", r#"{"expires": 60000}"#],
        &["set_global_parameter", "label", r#"{"of": "the broker"}"#],
    ] {
        broker.ctl(line);
    }
    app.declare_exchange("orders", "topic", &[("alternate-exchange", text("amq.fanout"))]);
    app.declare_exchange("copies", "fanout", &[]);
    app.declare("events", DURABLE, &[("x-max-length", AMQPValue::LongInt(1000))]);
    app.bind("orders", "a.#", "events");
    let arguments = table(&[("x-match", text("any")), ("kind", text("invoice"))]);
    let bound = app.channel.queue_bind(
        "events".into(),
        "amq.headers".into(),
        "".into(),
        QueueBindOptions::default(),
        arguments,
    );
    app.wait(bound).unwrap();
    let options = ExchangeBindOptions::default();
    let bound =
        app.channel.exchange_bind("copies".into(), "orders".into(), "b.*".into(), options, FieldTable::default());
    app.wait(bound).unwrap();
}

fn definitions_survive(rig: &mut Rig) {
    let app = rig.app();
    define(&rig.broker, &app);
    app.bind("copies", "", "events");
    let before = listings(&rig.broker, &[]);
    let app = rig.restart(app);
    assert_eq!(listings(&rig.broker, &[]), before);
    rig.broker.ctl(&["authenticate_user", "clerk", "secret"]);
    app.publish_to("orders", "b.x", b"routed", persistent());
    assert_eq!(app.expect("events").data, b"routed");
    // What is in both is told once.
    let app = rig.restart(app);
    assert_eq!(listings(&rig.broker, &[]), before);
    app.forget();
}

fn deleted_definitions_stay_deleted(rig: &mut Rig) {
    const GONE: &[&str] = &["shop", "clerk"];
    let app = rig.app();
    let before = listings(&rig.broker, GONE);
    define(&rig.broker, &app);
    if rig.has_index {
        rig.cover(&app);
    }
    rig.broker.ctl(&["delete_vhost", "shop"]);
    rig.broker.ctl(&["delete_user", "clerk"]);
    rig.broker.ctl(&["clear_policy", "ours"]);
    rig.broker.ctl(&["clear_global_parameter", "label"]);
    for exchange in ["orders", "copies"] {
        let deleted = app.channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default());
        app.wait(deleted).unwrap();
    }
    app.wait(app.channel.queue_delete("events".into(), QueueDeleteOptions::default())).unwrap();
    let app = rig.restart(app);
    assert_eq!(listings(&rig.broker, GONE), before);
    app.forget();
}

fn delayed_messages_fire_when_they_are_due(rig: &mut Rig) {
    const LATER: Duration = Duration::from_secs(6);
    const LATEST: Duration = Duration::from_secs(7);
    let app = rig.app();
    app.declare_exchange("delays", "x-delayed-message", &[("x-delayed-type", text("direct"))]);
    app.declare("q", DURABLE, &[]);
    app.bind("delays", "k", "q");
    let published = Instant::now();
    for (number, delay) in [(0, LATEST), (1, LATER)] {
        let headers = table(&[("x-delay", AMQPValue::LongLongInt(delay.as_millis() as i64))]);
        app.publish_to("delays", "k", &body(number), persistent().with_headers(headers));
    }
    let app = rig.restart(app);
    for (expected, due) in [(1, LATER), (0, LATEST)] {
        until("it is due", || app.ready("q") == Some(1));
        assert!(published.elapsed() >= due - Duration::from_millis(50), "{:?}", published.elapsed());
        assert_eq!(numbers(&app, "q"), [expected]);
    }
    app.publish("q", &body(2));
    let app = rig.restart(app);
    assert_eq!(numbers(&app, "q"), [2], "what has fired does not fire again");
}

fn more_delayed_messages_than_memory_keeps_fire_once_and_in_order(rig: &mut Rig) {
    const FIRST: Duration = Duration::from_secs(6);
    const SECOND: Duration = Duration::from_secs(8);
    let app = rig.app();
    app.declare_exchange("delays", "x-delayed-message", &[("x-delayed-type", text("direct"))]);
    app.declare("q", DURABLE, &[]);
    app.bind("delays", "k", "q");
    let started = Instant::now();
    // Even numbers come second.
    for number in 0..MANY {
        let due = if number % 2 == 1 { FIRST } else { SECOND };
        let delay = due.saturating_sub(started.elapsed()).max(Duration::from_millis(1));
        let headers = table(&[("x-delay", AMQPValue::LongLongInt(delay.as_millis() as i64))]);
        app.publish_to("delays", "k", &body(number), persistent().with_headers(headers));
    }
    let app = rig.restart(app);
    until("all are due", || app.ready("q") == Some(MANY));
    let mut fired = numbers(&app, "q");
    fired[..MANY as usize / 2].sort_unstable();
    fired[MANY as usize / 2..].sort_unstable();
    let (second, first): (Vec<_>, Vec<_>) = (0..MANY).partition(|number| number % 2 == 0);
    assert_eq!(fired, [first, second].concat());
    app.publish("q", &body(MANY));
    let app = rig.restart(app);
    assert_eq!(numbers(&app, "q"), [MANY], "what has fired does not fire again");
}

fn dedup_windows_are_remembered(rig: &mut Rig) {
    let app = rig.app();
    let window = [("x-message-deduplication", AMQPValue::Boolean(true)), ("x-cache-size", AMQPValue::LongInt(1000))];
    app.declare("q", DURABLE, &window);
    app.declare("bound", DURABLE, &[]);
    app.declare_exchange("once", "fanout", &window);
    app.bind("once", "", "bound");
    let publish = |app: &App, at: u32| {
        let named = || persistent().with_headers(table(&[("x-deduplication-header", text(&format!("m{at}")))]));
        app.publish_to("", "q", &body(at), named());
        app.publish_to("once", "", &body(at), named());
    };
    (0..MANY).for_each(|at| publish(&app, at));
    (0..MANY).for_each(|at| publish(&app, at));
    assert_eq!((numbers(&app, "q").len(), numbers(&app, "bound").len()), (MANY as usize, MANY as usize));
    let app = rig.restart(app);
    (0..=MANY).for_each(|at| publish(&app, at));
    assert_eq!((numbers(&app, "q"), numbers(&app, "bound")), (vec![MANY], vec![MANY]));
}

fn a_committed_transaction_survives_and_an_open_one_does_not(rig: &mut Rig) {
    let app = rig.app();
    app.declare("a", DURABLE, &[]);
    app.declare("b", DURABLE, &[]);
    app.publish_numbers("a", 0..10);
    let transact = |is_committed: bool, at: u32| {
        let channel = app.open_channel();
        app.wait(async {
            channel.tx_select().await.unwrap();
            for number in at..at + 2 * MANY {
                let (options, body) = (BasicPublishOptions::default(), body(number));
                let queue = if number % 2 == 0 { "a" } else { "b" };
                channel.basic_publish("".into(), queue.into(), options, &body, persistent()).await.unwrap();
            }
            for _ in 0..5 {
                let got = channel.basic_get("a".into(), BasicGetOptions::default()).await.unwrap().unwrap();
                got.delivery.ack(BasicAckOptions::default()).await.unwrap();
            }
            if is_committed {
                channel.tx_commit().await.unwrap();
            } else {
                channel.basic_qos(0, BasicQosOptions::default()).await.unwrap();
            }
        });
        channel
    };
    let _committed = transact(true, 1000);
    let _open = transact(false, 2000);
    let app = rig.restart(app);
    let expected = (5..10).chain((1000..1000 + 2 * MANY).step_by(2)).collect::<Vec<_>>();
    assert_eq!(numbers(&app, "a"), expected);
    assert_eq!(numbers(&app, "b"), (1001..1001 + 2 * MANY).step_by(2).collect::<Vec<_>>());
}

fn a_dead_lettered_message_stays_so(rig: &mut Rig) {
    let app = rig.app();
    app.declare("dead", DURABLE, &[]);
    let to_dead = [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text("dead"))];
    app.declare("q", DURABLE, &to_dead);
    app.publish_numbers("q", 0..MANY);
    for _ in 0..MANY / 2 {
        app.nack(&app.expect("q"), false);
    }
    app.sync();
    until("they are dead", || app.ready("dead") == Some(MANY / 2));
    app.publish_numbers("q", MANY..MANY + 1);
    let app = rig.restart(app);
    assert_eq!(numbers(&app, "q"), (MANY / 2..=MANY).collect::<Vec<_>>());
    let dead = app.drain("dead");
    assert_eq!(
        dead.iter().map(|delivery| number(&delivery.data)).collect::<Vec<_>>(),
        (0..MANY / 2).collect::<Vec<_>>()
    );
    for delivery in &dead {
        let Some(AMQPValue::FieldArray(deaths)) = header(delivery, "x-death") else { panic!("no x-death") };
        let [AMQPValue::FieldTable(death)] = deaths.as_slice() else { panic!("{deaths:?}") };
        let field = |name: &str| death.inner().get(name).cloned();
        assert_eq!([field("queue"), field("reason")], [Some(text("q")), Some(text("rejected"))]);
        assert_eq!(field("count"), Some(AMQPValue::LongLongInt(1)));
    }
}

fn a_purge_and_a_delete_survive(rig: &mut Rig) {
    let app = rig.app();
    for queue in ["purged", "deleted", "declared again"] {
        app.declare(queue, DURABLE, &[]);
        app.publish_numbers(queue, 0..MANY);
    }
    if rig.has_index {
        rig.cover(&app);
    }
    app.wait(app.channel.queue_purge("purged".into(), QueuePurgeOptions::default())).unwrap();
    for queue in ["deleted", "declared again"] {
        app.wait(app.channel.queue_delete(queue.into(), QueueDeleteOptions::default())).unwrap();
    }
    app.declare("declared again", DURABLE, &[]);
    app.publish_numbers("declared again", MANY..2 * MANY);
    app.publish_numbers("purged", MANY..MANY + 2);
    let app = rig.restart(app);
    assert_eq!(numbers(&app, "purged"), [MANY, MANY + 1]);
    assert_eq!(app.ready("deleted"), None);
    assert_eq!(numbers(&app, "declared again"), (MANY..2 * MANY).collect::<Vec<_>>());
}

fn a_message_longer_than_a_batch_survives(rig: &mut Rig) {
    let long = |seed: u32| -> Vec<u8> {
        let words = (0..(9 << 20) / 4_u32).flat_map(|at| (at.wrapping_mul(seed)).to_be_bytes());
        words.collect()
    };
    let app = rig.app();
    app.declare("q", DURABLE, &[]);
    app.publish_numbers("q", 0..1);
    app.publish("q", &long(7));
    app.publish("q", &long(9));
    app.publish_numbers("q", 1..2);
    let app = rig.restart(app);
    let all = app.drain("q");
    assert_eq!(all.len(), 4);
    assert!(all[1].data == long(7) && all[2].data == long(9), "every byte of both");
    assert_eq!([number(&all[0].data), number(&all[3].data)], [0, 1]);
}

fn priorities_keep_their_order(rig: &mut Rig) {
    let app = rig.app();
    app.declare("q", DURABLE, &[("x-max-priority", AMQPValue::LongInt(3))]);
    for at in 0..MANY {
        app.publish_to("", "q", &body(at), persistent().with_priority((at % 4) as u8));
    }
    let app = rig.restart(app);
    app.publish_to("", "q", &body(MANY), persistent().with_priority(2));
    let expected = (0..4).rev().flat_map(|priority| {
        (0..=MANY).filter(move |at| match *at {
            MANY => priority == 2,
            at => at % 4 == priority,
        })
    });
    assert_eq!(numbers(&app, "q"), expected.collect::<Vec<_>>());
}

fn a_ttl_counts_on(rig: &mut Rig) {
    const TTL: Duration = Duration::from_secs(4);
    let app = rig.app();
    app.declare("dead", DURABLE, &[]);
    let to_dead = [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text("dead"))];
    app.declare("own", DURABLE, &to_dead);
    let ttl = [("x-message-ttl", AMQPValue::LongLongInt(TTL.as_millis() as i64))];
    app.declare("all", DURABLE, &[&to_dead[..], &ttl].concat());
    // Ordinary queues look at their first message only.
    let expires = |ttl: Duration| persistent().with_expiration(ttl.as_millis().to_string().as_str().into());
    for at in 0..MANY / 2 {
        app.publish_to("", "own", &body(at), expires(TTL));
        app.publish("all", &body(at));
    }
    app.publish_to("", "own", &body(MANY), expires(Duration::from_secs(3600)));
    let published = Instant::now();
    rig.stop(app);
    until("they have expired", || published.elapsed() > TTL);
    rig.broker.start_again();
    let app = rig.app();
    assert_eq!((numbers(&app, "own"), numbers(&app, "all")), (vec![MANY], vec![]));
    until("they are dead", || app.ready("dead") == Some(MANY / 2 * 2));
    for delivery in app.drain("dead") {
        let Some(AMQPValue::FieldArray(deaths)) = header(&delivery, "x-death") else { panic!("no x-death") };
        let [AMQPValue::FieldTable(death)] = deaths.as_slice() else { panic!("{deaths:?}") };
        assert_eq!(death.inner().get("reason"), Some(&text("expired")));
    }
}

fn one_message_in_many_queues_survives_in_each(rig: &mut Rig) {
    let app = rig.app();
    app.declare_exchange("copies", "fanout", &[]);
    let queues: Vec<_> = (0..5).map(|at| format!("q{at}")).collect();
    for queue in &queues {
        app.declare(queue, DURABLE, &[]);
        app.bind("copies", "", queue);
    }
    for at in 0..MANY {
        app.publish_to("copies", "", &body(at), persistent());
    }
    assert_eq!(numbers(&app, "q0").len(), MANY as usize, "one of them is done with all");
    app.publish_numbers("q0", MANY..MANY + 1);
    let app = rig.restart(app);
    assert_eq!(numbers(&app, "q0"), [MANY]);
    for queue in &queues[1..] {
        assert_eq!(numbers(&app, queue), (0..MANY).collect::<Vec<_>>(), "{queue}");
    }
}

fn a_second_restart_finds_the_same(rig: &mut Rig) {
    let mut app = rig.app();
    app.declare("q", DURABLE, &[]);
    app.declare("p", DURABLE, &[("x-max-priority", AMQPValue::LongInt(3))]);
    for at in 0..MANY {
        app.publish_to("", "p", &body(at), persistent().with_priority((at % 4) as u8));
    }
    app.publish_numbers("q", 0..MANY);
    for round in 0..3_u32 {
        let first = app.expect("q");
        assert_eq!((number(&first.data), first.redelivered), (round, false));
        app.ack(&first);
        app.publish_numbers("q", MANY + round..MANY + round + 1);
        app = rig.restart(app);
        assert_eq!((app.ready("q"), app.ready("p")), (Some(MANY), Some(MANY)));
    }
    assert_eq!(numbers(&app, "q"), (3..MANY + 3).collect::<Vec<_>>());
    let expected = (0..4).rev().flat_map(|priority| (0..MANY).filter(move |at| at % 4 == priority));
    assert_eq!(numbers(&app, "p"), expected.collect::<Vec<_>>());
}

fn selectors_of_queues_and_consumers_find_theirs(rig: &mut Rig) {
    let app = rig.app();
    app.declare("q", DURABLE, &[]);
    app.declare("red", DURABLE, &[("x-selector", text("colour = 'red'"))]);
    let publish = |app: &App, at: u32, colour: &str| {
        let coloured = || persistent().with_headers(table(&[("colour", text(colour))]));
        app.publish_to("", "q", &body(at), coloured());
        app.publish_to("", "red", &body(at), coloured());
    };
    (0..MANY).for_each(|at| publish(&app, at, "blue"));
    publish(&app, MANY, "red");
    let app = rig.restart(app);
    publish(&app, MANY + 1, "blue");
    publish(&app, MANY + 2, "red");
    assert_eq!(numbers(&app, "red"), [MANY, MANY + 2]);
    let mut consumer = app.consume_with("q", "red", &[("x-selector", text("colour = 'red'"))]);
    for expected in [MANY, MANY + 2] {
        let delivery = app.next(&mut consumer);
        assert_eq!(number(&delivery.data), expected);
        app.ack(&delivery);
    }
    assert_eq!(app.ready("q"), Some(MANY + 1));
}

fn groups_are_kept_apart(rig: &mut Rig) {
    let app = rig.app();
    app.declare("q", DURABLE, &[]);
    for at in 0..MANY {
        let group = if at % 2 == 0 { "even" } else { "odd" };
        app.publish_to("", "q", &body(at), persistent().with_headers(table(&[("JMSXGroupID", text(group))])));
    }
    let app = rig.restart(app);
    app.wait(app.channel.basic_qos(1, BasicQosOptions::default())).unwrap();
    let mut consumers = [app.consume("q", "even"), app.consume("q", "odd")];
    for at in 0..MANY {
        let delivery = app.next(&mut consumers[at as usize % 2]);
        assert_eq!(number(&delivery.data), at);
        app.ack(&delivery);
    }
}
