//! Names that queues and exchanges remember: they outlive checkpoints and restarts, and cost a checkpoint what has come
//! since the last.

use super::*;
use crate::broker::{
    publish::Batch,
    queue::{
        machine::Pushed,
        properties::{Dedup, Properties},
    },
    topology::DeclareExchange,
    value::HeadersBuilder,
};

fn named(exchange: &str, name: &str) -> Message {
    let mut headers = HeadersBuilder::new();
    headers.push("x-deduplication-header", &Value::text(name));
    let headers = headers.finish();
    let mut message = Message::build(exchange, b"q", &headers, (0, headers.len()), b"m");
    message.traits.persistent = true;
    message
}

impl Rig {
    fn declare_remembering(&self) {
        let properties = Properties { dedup: Some(Dedup::default()), ..Properties::default() };
        let wanted = DeclareQueue { name: "q", durable: true, properties, ..DeclareQueue::default() };
        self.opened().broker.vhost("/").unwrap().declare_queue(&wanted, None, &mut self.turn()).unwrap();
    }

    fn is_repeated(&self, name: &str) -> bool {
        let pushed = self.queue("q").publish_each([(named("", name), None)].into_iter(), &mut self.turn()).unwrap();
        matches!(pushed[..], [Pushed::Duplicate(_)])
    }

    fn commit_bytes(&self) -> u64 {
        self.opened().checkpointer.figures().checkpoint_bytes
    }
}

#[test]
fn names_outlive_checkpoints_and_restarts_wherever_they_are_kept() {
    let rig = Rig::new();
    rig.declare_remembering();
    let long = "long".repeat(15);
    let mut sent = Vec::new();
    for round in 0..4 {
        for name in [format!("{round}"), format!("{long}{round}"), "y".repeat(100 + round)] {
            assert!(!rig.is_repeated(&name), "{name}");
            sent.push(name);
        }
        rig.checkpoint();
    }
    let rig = rig.crash();
    let rig = {
        sent.iter().for_each(|name| assert!(rig.is_repeated(name), "{name}"));
        rig.checkpoint();
        rig.reopen()
    };
    sent.iter().for_each(|name| assert!(rig.is_repeated(name), "{name}"));
    assert!(!rig.is_repeated("another"));
    assert_eq!(rig.queue("q").status().ready, sent.len() as u64 + 1);
}

#[test]
fn names_of_an_exchange_outlive_checkpoints_and_restarts_and_go_with_it() {
    let mut arguments = Table::new();
    arguments.push("x-message-deduplication", Value::Bool(true));
    let wanted = DeclareExchange { name: "x", kind: "fanout", durable: true, arguments, ..DeclareExchange::default() };
    let rig = Rig::new();
    let declare = |rig: &Rig| {
        let vhost = rig.opened().broker.vhost("/").unwrap();
        vhost.declare_exchange(&wanted, &mut rig.turn()).unwrap()
    };
    declare(&rig);
    rig.declare("q");
    let is_repeated = |rig: &Rig, name: &str| {
        let (vhost, mut turn) = (rig.opened().broker.vhost("/").unwrap(), rig.turn());
        let message = named("x", name);
        let route = vhost.route(&vhost.exchange("x").unwrap(), &message, &[], None, &mut turn);
        let is_repeated = route.is_kept;
        let mut batch = Batch::default();
        batch.push(message, &Arc::new(route));
        batch.place(&mut turn, &mut Vec::new());
        is_repeated
    };
    let bind = |rig: &Rig| {
        let target = crate::broker::exchange::Target::Queue(rig.queue("q"));
        let vhost = rig.opened().broker.vhost("/").unwrap();
        vhost.bind("x", &target, b"", &Table::new(), &mut rig.turn()).unwrap();
    };
    bind(&rig);
    for name in ["a", "b", "c"] {
        assert!(!is_repeated(&rig, name));
        rig.checkpoint();
    }
    let rig = rig.crash();
    assert!(["a", "b", "c"].iter().all(|name| is_repeated(&rig, name)));
    rig.settle_down();
    let rig = rig.reopen();
    assert!(["a", "b", "c"].iter().all(|name| is_repeated(&rig, name)));
    let vhost = rig.opened().broker.vhost("/").unwrap();
    vhost.delete_exchange("x", false, &mut rig.turn()).unwrap();
    declare(&rig);
    bind(&rig);
    rig.settle_down();
    let rig = rig.crash();
    assert!(!is_repeated(&rig, "a"), "another exchange has seen nothing");
}

#[test]
fn a_checkpoint_writes_a_name_once() {
    const NAMES: usize = 10_000;
    let rig = Rig::new();
    rig.declare_remembering();
    (0..NAMES).for_each(|number| assert!(!rig.is_repeated(&format!("name {number}"))));
    rig.queue("q").purge(&mut rig.turn());
    rig.settle_down();
    let before = rig.commit_bytes();
    for number in 0..10 {
        assert!(!rig.is_repeated(&format!("further {number}")));
        rig.checkpoint();
    }
    let each = (rig.commit_bytes() - before) / 10;
    assert!(each < 4 * NAMES as u64, "{each} bytes for one name more");
    let rig = rig.reopen();
    assert!(rig.is_repeated("name 0") && rig.is_repeated("further 9"));
}
