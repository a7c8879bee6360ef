//! A broker on a disk in memory that crashes at one operation after another: in recovery, while it logs,
//! in checkpoints, merges and moves, and while it stops.
//!
//! One thread acts, so the log has its acts in their order. After a crash the broker must be as it was
//! after one of them: all up to there, nothing of those behind, and none before the last flush missing.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, OnceLock},
};

use tokio::sync::Notify;

use super::{Opened, Watcher, open_on, tests};
use crate::{
    broker::{
        self,
        message::Message,
        queue::{
            Queue,
            leases::{LeaseSettle, Receive},
            machine::Got,
        },
        schedule::{Repeats, SCHEDULES, Schedule},
        time::Time,
        topology::DeclareQueue,
        turn::Turn,
        value::{Table, Value},
        verb::Verb,
        vhost::Metadata,
    },
    server::{clock, options::Persistence},
    store::{
        Sync,
        disk::{
            Disk,
            memory::{MemoryDisk, Plan, Random},
        },
    },
};

/// Where scheduled messages go.
const SCHEDULED: &str = "scheduled";
/// Later than any clock of those who run this.
const AHEAD: Time = Time(1 << 43);
/// Longer than the test takes, and than scheduled messages are ahead.
const LONG_MS: u64 = 1 << 45;
/// No directory of this machine.
const DIR: &str = "/crash";

/// Crashes of one life; with `TERN_CRASH_SEED` they are others, with `TERN_CRASH_EACH` all.
const CRASHES: u64 = 60;

fn options() -> Persistence {
    let mut options = tests::options();
    options.log.sync = Sync::Always;
    // Merges and new manifests come soon.
    options.index.fan_out = 2;
    options.index.manifest_bytes_max = 512;
    options.spill = false;
    options.reclaim_slack_bytes = 0;
    options
}

/// What a client has done, one record each.
#[derive(Clone, Debug)]
enum Act {
    Declare(&'static str),
    Delete(&'static str),
    Publish(&'static str, String),
    /// The first message is taken, and nothing of it comes back.
    Take(&'static str),
    Purge(&'static str),
    /// The first message is leased, for longer than the test takes.
    Lease(&'static str),
    /// What was leased first is accepted.
    Accept(&'static str),
    /// What was leased first is ready again.
    GiveBack(&'static str),
    /// A message comes that nobody may have before the test is over.
    Withhold(&'static str),
    AddVhost(String),
    /// A message is to be published so many times.
    Schedule(&'static str, u32),
    /// All that are scheduled are due, once.
    Due,
}

/// All that acts can change: bodies in the order in which they come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    queues: BTreeMap<String, Vec<String>>,
    vhosts: Vec<String>,
    /// By queue, those that are leased, oldest lease first.
    leased: BTreeMap<String, Vec<String>>,
    /// By queue, how many are withheld.
    withheld: BTreeMap<String, u64>,
    /// How often they are still to be published.
    scheduled: Vec<(String, u32)>,
}

impl State {
    fn enqueue(&mut self, name: &str, body: &str) {
        let queue = self.queues.get_mut(name).expect("it was declared");
        let before = queue.partition_point(|other| priority(other) >= priority(body));
        queue.insert(before, body.to_owned());
    }

    /// What can be seen of it without waiting.
    fn visible(&self) -> Self {
        let mut visible = Self { scheduled: Vec::new(), ..self.clone() };
        // Who holds what cannot be seen, but how many are held.
        visible.leased.values_mut().flatten().for_each(String::clear);
        visible.leased.retain(|_, leased| !leased.is_empty());
        visible
    }

    fn apply(&mut self, act: &Act) {
        match act {
            Act::Declare(name) => _ = self.queues.entry((*name).into()).or_default(),
            Act::Delete(name) => {
                self.queues.remove(*name);
                self.leased.remove(*name);
                self.withheld.remove(*name);
            }
            Act::Publish(name, body) => self.enqueue(name, body),
            Act::Take(name) => _ = self.queues.get_mut(*name).expect("it was declared").remove(0),
            Act::Purge(name) => {
                self.queues.get_mut(*name).expect("it was declared").clear();
                self.leased.remove(*name);
                self.withheld.remove(*name);
            }
            Act::Lease(name) => {
                let body = self.queues.get_mut(*name).expect("it was declared").remove(0);
                self.leased.entry((*name).into()).or_default().push(body);
            }
            Act::Accept(name) => _ = self.leased.get_mut(*name).expect("one is leased").remove(0),
            Act::GiveBack(name) => {
                let body = self.leased.get_mut(*name).expect("one is leased").remove(0);
                let queue = self.queues.get_mut(*name).expect("it was declared");
                // It was the first of its priority.
                let before = queue.partition_point(|other| priority(other) > priority(&body));
                queue.insert(before, body);
            }
            Act::Withhold(name) => *self.withheld.entry((*name).into()).or_default() += 1,
            Act::AddVhost(name) => {
                self.vhosts.push(name.clone());
                self.vhosts.sort();
            }
            Act::Schedule(body, times) => self.scheduled.push(((*body).to_owned(), *times)),
            Act::Due => {
                for (body, left) in std::mem::take(&mut self.scheduled) {
                    self.enqueue(SCHEDULED, &body);
                    if left > 1 {
                        self.scheduled.push((body, left - 1));
                    }
                }
            }
        }
    }
}

fn priority(body: &str) -> u8 {
    (body.len() % 3) as u8
}

/// A broker on such a disk, and what has been done.
struct Life {
    disk: MemoryDisk,
    opened: Option<Opened>,
    acts: Vec<Act>,
    state: State,
    /// Acts that a flush has answered for.
    flushed: usize,
    /// By queue, the seqs and nonces of what is leased.
    leases: BTreeMap<String, Vec<(u64, u64)>>,
    /// When scheduled messages are due: far ahead, so that nothing but an act publishes any.
    ahead: Time,
}

/// The disk is gone.
#[derive(Debug)]
struct Crashed;

impl Life {
    /// `None`: the disk was gone before it had opened.
    fn open(disk: &MemoryDisk) -> Option<Self> {
        let watcher = Arc::new(Watcher::new(Arc::new(Notify::new())));
        let opened = open_on(Arc::new(disk.clone()), Path::new(DIR), broker::Options::default(), &options(), &watcher);
        match opened {
            Ok(opened) => {
                let mut life = Self {
                    disk: disk.clone(),
                    opened: Some(opened),
                    acts: Vec::new(),
                    state: State::default(),
                    flushed: 0,
                    leases: BTreeMap::new(),
                    ahead: AHEAD,
                };
                life.state.vhosts = life.vhosts();
                Some(life)
            }
            Err(error) => {
                assert!(is_down(disk), "it does not open: {error:?}");
                None
            }
        }
    }

    fn opened(&self) -> &Opened {
        self.opened.as_ref().expect("it is open between acts")
    }

    fn turn(&self) -> Turn<'_> {
        Turn::new(&self.opened().broker, clock::now())
    }

    fn queue(&self, name: &str) -> Arc<Queue> {
        self.opened().broker.vhost("/").unwrap().queue(name).unwrap()
    }

    fn act(&mut self, act: Act) -> Result<(), Crashed> {
        let vhost = self.opened().broker.vhost("/").unwrap();
        match &act {
            Act::Declare(name) => {
                let mut arguments = Table::new();
                arguments.push("x-max-priority", Value::I64(2));
                let wanted = DeclareQueue { name, durable: true, arguments, ..DeclareQueue::default() };
                vhost.declare_queue(&wanted, None, &mut self.turn()).unwrap();
            }
            Act::Delete(name) => _ = vhost.delete_queue(name, false, false, None, &mut self.turn()).unwrap(),
            Act::Publish(name, body) => {
                let mut message = Message::build("", name.as_bytes(), b"", (0, 0), body.as_bytes());
                message.traits.persistent = true;
                message.traits.priority = priority(body);
                self.queue(name).publish([message].into_iter(), &mut self.turn(), &mut Vec::new());
            }
            Act::Take(name) => {
                let got = self.get(name, true)?.expect("the model has a message");
                assert_eq!(got.message.body_to_vec(), self.state.queues[*name][0].as_bytes());
            }
            Act::Purge(name) => {
                self.queue(name).purge(&mut self.turn());
                self.leases.remove(*name);
            }
            Act::Lease(name) => {
                let wanted = Receive { max: 1, lease_ms: LONG_MS, ..Receive::default() };
                if let Ok(one) = self.receive(name, &wanted) {
                    self.leases.entry((*name).into()).or_default().push(one);
                }
            }
            // They may have come to the disk all the same.
            Act::Accept(name) => _ = self.settle_first(name, LeaseSettle::Accept { is_strict: true }),
            Act::GiveBack(name) => _ = self.settle_first(name, LeaseSettle::Change { lease_ms: 0 }),
            Act::Withhold(name) => {
                let mut message = Message::build("", name.as_bytes(), b"", (0, 0), b"withheld");
                message.traits.persistent = true;
                let messages = std::iter::once((message, Some(LONG_MS)));
                self.queue(name).publish_each(messages, &mut self.turn()).expect("it is there");
            }
            Act::AddVhost(name) => _ = self.opened().broker.add_vhost(name, Metadata::default()),
            Act::Schedule(body, times) => {
                let mut message = Message::build("", SCHEDULED.as_bytes(), b"", (0, 0), body.as_bytes());
                message.traits.persistent = true;
                message.traits.priority = priority(body);
                let repeats = Repeats::Times(times - 1);
                let schedule = Schedule { delay_ms: 1, period_ms: 1, repeats, cron: None };
                let mut turn = Turn::new(&self.opened().broker, self.ahead);
                vhost.schedule(&message, &schedule, &mut turn).unwrap();
            }
            // It may have come to the disk all the same.
            Act::Due => _ = self.publish_due(),
        }
        self.state.apply(&act);
        self.acts.push(act);
        self.check_up()
    }

    fn publish_due(&mut self) -> Result<(), Crashed> {
        self.ahead = self.ahead.after_ms(1_000);
        let keeper = self.opened().broker.vhost("/").unwrap().exchange(SCHEDULES);
        loop {
            self.opened().broker.tick(self.ahead);
            self.check_up()?;
            let delayed = keeper.as_ref().and_then(|keeper| keeper.delayed.as_ref()).map(|delayed| delayed.lock());
            if delayed.is_none_or(|delayed| !delayed.is_reading() && delayed.next_due() > self.ahead) {
                return self.check_up();
            }
            std::thread::yield_now();
        }
    }

    fn get(&self, name: &str, no_ack: bool) -> Result<Option<Got>, Crashed> {
        loop {
            match self.queue(name).get(no_ack, &mut self.turn()) {
                Verb::Done(Some(got)) => return Ok(Some(got)),
                // A page that cannot be read may have been there.
                Verb::Done(None) => return self.check_up().map(|()| None),
                // The threads of the pages answer.
                Verb::Pending(_) => std::thread::yield_now(),
            }
            self.check_up()?;
            assert!(!self.queue(name).is_damaged(), "{name} is damaged");
        }
    }

    fn receive(&self, name: &str, wanted: &Receive<'_>) -> Result<(u64, u64), Crashed> {
        loop {
            match self.queue(name).receive(wanted, &mut self.turn()) {
                Verb::Done(received) => {
                    let Some(one) = received.unwrap().messages.pop() else { return Err(Crashed) };
                    assert_eq!(one.message.body_to_vec(), self.state.queues[name][0].as_bytes());
                    return Ok((one.seq, one.nonce));
                }
                Verb::Pending(_) => std::thread::yield_now(),
            }
            self.check_up()?;
        }
    }

    /// Ends the oldest lease of a queue. The message comes back when it has been read.
    fn settle_first(&mut self, name: &str, how: LeaseSettle) -> Result<(), Crashed> {
        let one = self.leases.get_mut(name).expect("one is leased").remove(0);
        let left = self.queue(name).status().leased - 1;
        match self.queue(name).settle_leases(&[one], how, &mut self.turn()) {
            Verb::Done(settled) => assert_eq!(settled, [Ok(())]),
            Verb::Pending(_) => panic!("nobody looks for what is leased"),
        }
        while self.queue(name).status().leased > left {
            self.check_up()?;
            self.opened().broker.tick(clock::now());
            std::thread::yield_now();
        }
        Ok(())
    }

    fn check_up(&self) -> Result<(), Crashed> {
        if is_down(&self.disk) { Err(Crashed) } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Crashed> {
        self.opened().log.flush().map_err(|_| Crashed)?;
        self.flushed = self.acts.len();
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), Crashed> {
        let made = self.opened().checkpointer.make();
        assert!(made.is_ok() || is_down(&self.disk), "{made:?}");
        made.map_err(|_| Crashed)?;
        // It has flushed the log first.
        self.flushed = self.acts.len();
        Ok(())
    }

    fn flow(&mut self, count: usize) -> Result<(), Crashed> {
        for _ in 0..count {
            self.act(Act::Publish("busy", "x".repeat(1_023)))?;
            self.act(Act::Take("busy"))?;
        }
        Ok(())
    }

    fn close(&mut self) {
        if let Some(opened) = self.opened.take() {
            opened.close();
        }
    }

    fn vhosts(&self) -> Vec<String> {
        let mut names: Vec<_> = self.opened().broker.vhosts().iter().map(|vhost| vhost.name.to_string()).collect();
        names.sort();
        names
    }

    /// The broker as it is. All messages are unsettled afterwards.
    fn observe(&self) -> State {
        let mut state = State { vhosts: self.vhosts(), ..State::default() };
        for queue in self.opened().broker.vhost("/").unwrap().queues() {
            // What was given back is read from the disk first.
            while queue.brings_back(self.turn().now) {
                self.opened().broker.tick(self.turn().now);
                self.check_up().unwrap();
                std::thread::yield_now();
            }
            let bodies = std::iter::from_fn(|| self.get(&queue.name, false).unwrap());
            let bodies = bodies.map(|got| String::from_utf8(got.message.body_to_vec()).unwrap()).collect();
            state.queues.insert(queue.name.to_string(), bodies);
            let status = queue.status();
            if status.leased > 0 {
                state.leased.insert(queue.name.to_string(), vec![String::new(); status.leased as usize]);
            }
            if status.withheld > 0 {
                state.withheld.insert(queue.name.to_string(), status.withheld);
            }
        }
        state
    }

    /// How often each is still published that is scheduled.
    fn observe_scheduled(&mut self) -> BTreeMap<String, u32> {
        (0..10).for_each(|_| self.publish_due().unwrap());
        let mut counts = BTreeMap::new();
        if self.opened().broker.vhost("/").unwrap().queue(SCHEDULED).is_some() {
            while let Some(got) = self.get(SCHEDULED, true).unwrap() {
                *counts.entry(String::from_utf8(got.message.body_to_vec()).unwrap()).or_default() += 1;
            }
        }
        counts
    }

    /// Everything that there is to crash in.
    fn live(&mut self) -> Result<(), Crashed> {
        const SLOW: [&str; 3] = ["slow-0", "slow-1", "slow-2"];
        for (number, name) in SLOW.into_iter().enumerate() {
            self.act(Act::Declare(name))?;
            for part in 0..3 {
                self.act(Act::Publish(name, format!("{name} {part} {}", "y".repeat(number + 2 * part))))?;
            }
            self.flow(30)?;
            self.flush()?;
        }
        for name in ["slow-0", "slow-1", "slow-2", "slow-2"] {
            self.act(Act::Lease(name))?;
        }
        self.act(Act::Withhold("slow-0"))?;
        // In parts, as it is longer than a record.
        self.act(Act::Publish("slow-0", "l".repeat(20_000)))?;
        self.act(Act::Publish("busy", "b".repeat(700)))?;
        self.act(Act::AddVhost("one".into()))?;
        self.act(Act::Declare(SCHEDULED))?;
        self.act(Act::Schedule("six", 6))?;
        self.act(Act::Schedule("two!", 2))?;
        self.checkpoint()?;
        self.act(Act::Due)?;
        self.flow(60)?;
        // What is sparse now is moved, and what was moved is named, and the rest given up.
        self.checkpoint()?;
        self.act(Act::Take("slow-1"))?;
        self.act(Act::GiveBack("slow-1"))?;
        self.act(Act::Accept("slow-2"))?;
        self.act(Act::Lease("slow-0"))?;
        self.checkpoint()?;
        self.act(Act::Due)?;
        self.act(Act::Take(SCHEDULED))?;
        self.act(Act::Purge("slow-2"))?;
        self.act(Act::Publish("slow-2", "after the purge".into()))?;
        self.flush()?;
        self.checkpoint()?;
        self.act(Act::Delete("slow-1"))?;
        self.checkpoint()?;
        self.close();
        self.check_up()?;
        // A stop in good order keeps everything.
        self.flushed = self.acts.len();
        let again = Self::open(&self.disk).ok_or(Crashed)?;
        self.opened = Some({ again }.opened.take().expect("it is open"));
        self.act(Act::Due)?;
        self.act(Act::Accept("slow-0"))?;
        self.act(Act::GiveBack("slow-0"))?;
        self.act(Act::Withhold("slow-0"))?;
        self.act(Act::Declare("slow-1"))?;
        self.act(Act::Publish("slow-1", "of the second queue of that name".into()))?;
        self.act(Act::AddVhost("two".into()))?;
        self.flow(20)?;
        self.checkpoint()?;
        self.act(Act::Take("slow-0"))?;
        self.act(Act::Due)?;
        self.flush()
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.close();
    }
}

fn is_down(disk: &MemoryDisk) -> bool {
    disk.list(Path::new(DIR)).is_err()
}

/// A disk with a broker that has been started once: that defines users, which takes its time.
fn begun() -> &'static MemoryDisk {
    static BEGUN: OnceLock<MemoryDisk> = OnceLock::new();
    BEGUN.get_or_init(|| {
        let disk = MemoryDisk::new(Plan::default());
        let mut life = Life::open(&disk).unwrap();
        life.act(Act::Declare("busy")).unwrap();
        life.close();
        disk
    })
}

/// Lives until the crash; returns whether it came, and what must be true of what it left.
fn live_until(at: u64) -> bool {
    let disk = begun().copy(Plan { crash_at: Some(at), ..Plan::default() });
    let mut begin = State { vhosts: vec!["/".into()], ..State::default() };
    begin.apply(&Act::Declare("busy"));
    let (mut acts, mut flushed, mut is_crashed) = (Vec::new(), 0, true);
    if let Some(mut life) = Life::open(&disk) {
        life.state = begin.clone();
        is_crashed = life.live().is_err();
        // What its threads still do on a disk that is there is done after the crash.
        (acts, flushed) = (std::mem::take(&mut life.acts), life.flushed);
        if !is_crashed {
            return false;
        }
    }
    assert!(is_crashed);
    let mut random = Random(at);
    // The process alone, or the machine.
    let left =
        if at.is_multiple_of(4) { disk.copy(Plan::default()) } else { disk.power_cut(&mut random, Plan::default()) };
    let life = Life::open(&left).unwrap_or_else(|| panic!("crash at {at}: the disk is there"));
    let first = life.observe();
    let mut state = begin.clone();
    let mut possible = Vec::new();
    for (count, act) in acts.iter().map(Some).chain([None]).enumerate() {
        if count >= flushed {
            possible.push(state.clone());
        }
        act.iter().for_each(|act| state.apply(act));
    }
    possible.retain(|state| state.visible() == first);
    assert!(
        !possible.is_empty(),
        "crash at {at}, {flushed} of {} acts flushed (then {:?}): {:?}, at first it was {:?}",
        acts.len(),
        acts.get(flushed..).unwrap_or_default().first(),
        brief(&first),
        brief(&begin),
    );
    // What it has shown is on the disk.
    let again = left.power_cut(&mut random, Plan::default());
    drop(life);
    let mut life = Life::open(&again).unwrap_or_else(|| panic!("crash at {at}: the disk is there"));
    assert_eq!(brief(&life.observe()), brief(&first), "crash at {at}: the second start differs from the first");
    life.ahead = AHEAD.after_ms(1 << 30);
    let scheduled = life.observe_scheduled();
    let is_so = |state: &State| state.scheduled.iter().cloned().collect::<BTreeMap<_, _>>() == scheduled;
    assert!(possible.iter().any(is_so), "crash at {at}: {scheduled:?} are published afterwards");
    true
}

fn brief(state: &State) -> String {
    let queues = state.queues.iter().map(|(name, bodies)| {
        let bodies: Vec<_> = bodies.iter().map(|body| format!("{:.12}({})", body, body.len())).collect();
        format!("{name}: {}", bodies.join(" "))
    });
    let leased = state.leased.iter().map(|(name, of)| (name, of.len())).filter(|(_, count)| *count > 0);
    let held = (leased.collect::<Vec<_>>(), &state.withheld);
    format!("{} {:?} {held:?}", queues.collect::<Vec<_>>().join("; "), state.vhosts)
}

fn number(name: &str) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[test]
fn a_life_without_a_crash_moves_messages_and_merges() {
    let disk = begun().copy(Plan::default());
    let mut life = Life::open(&disk).unwrap();
    life.state.apply(&Act::Declare("busy"));
    life.live().unwrap();
    assert_eq!(brief(&life.observe()), brief(&life.state));
    assert_eq!(life.observe_scheduled(), BTreeMap::from([("six".to_owned(), 2)]));
    let log = &life.opened().log;
    assert!(!log.cold_files().is_empty(), "messages were moved");
    assert!(log.segments()[0].number > 1, "segments were given up");
}

#[test]
fn a_crash_at_any_operation_leaves_what_was_flushed_and_nothing_half_done() {
    let whole = begun().copy(Plan::default());
    let mut life = Life::open(&whole).unwrap();
    life.state.apply(&Act::Declare("busy"));
    life.live().unwrap();
    let operations = whole.operations();
    drop(life);
    let step = if number("TERN_CRASH_EACH") > 0 { 1 } else { (operations / CRASHES).max(1) };
    let first = 1 + number("TERN_CRASH_SEED") % step;
    let crashes = (first..=operations).step_by(step as usize).filter(|at| live_until(*at)).count();
    assert!(crashes as u64 > operations / step / 2, "{crashes} crashes in {operations} operations");
}
