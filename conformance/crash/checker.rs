//! Judges a history: total-queue semantics for every queue, and what a queue promises beyond them.
//!
//! Knows no client and no broker. The history must end with a drain, in which every message that
//! can be had was delivered and accepted.
//!
//! What is demanded:
//! - nothing lost: a confirmed (or committed) message is accepted by somebody in the end, unless a
//!   purge, a deletion or a queue without dead-lettering may have taken it;
//! - nothing unexpected: never published, rolled back, in a queue that it was not routed to,
//!   dead-lettered without a cause, purged and back, or durably settled and back;
//! - one copy: within one run of the broker a message comes again only if it was requeued; after a
//!   crash it may come again until it is durably settled. Unconfirmed ones come once or not at all;
//! - order: messages of one publisher and one priority come in the order of their publishing, where
//!   nothing was requeued between; a sole reader after a crash gets higher priorities first;
//! - transient messages, confirmed or not, may vanish in a crash, and come after none;
//! - an honest flag: what was delivered before says so. What was not may say so too, but only for
//!   [`AHEAD_MAX`] messages a queue and crash, since a broker need not note each delivery. A flag that
//!   is missing is told apart by whether the log had the delivery for certain when the broker was
//!   killed: a publish was confirmed that went out after the delivery had come;
//! - transactions: after a crash all of one, or nothing;
//! - leases ([`leases`]): what somebody was promised for a while is given to nobody else before, by the same broker or
//!   the next one, and may come again afterwards; what is withheld comes to nobody before its time; a group is in
//!   one hand at a time, and in its order.

mod leases;

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::history::{
    Event, MessageId, Outcome, Place, QueueId, Reason, StreamId, Topology, Traits, TxId, WipeId, Wiping,
};

use leases::Lease;

/// What a history came to.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) violations: Vec<Violation>,
    pub(crate) counts: Counts,
    /// Of each crash.
    pub(crate) crashes: Vec<Crash>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) published: usize,
    /// By a confirm or by the answer to a commit; without transient ones.
    pub(crate) promised: usize,
    /// Transient messages that were confirmed, and those of them that never came.
    pub(crate) transient: usize,
    pub(crate) transient_vanished: usize,
    pub(crate) delivered: usize,
    pub(crate) redelivered: usize,
    /// Delivered, not confirmed.
    pub(crate) recovered: usize,
    /// Said to be redelivered, and were not seen before.
    pub(crate) ahead: usize,
    pub(crate) durable_settles: usize,
    /// Promises that nobody else has a message for a while, and those of them that were in force at a crash.
    pub(crate) leased: usize,
    pub(crate) leased_at_crash: usize,
    /// Commits without an answer of which all was there, and of which nothing was.
    pub(crate) tx_kept: usize,
    pub(crate) tx_vanished: usize,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Crash {
    /// Promises until then.
    pub(crate) promised: usize,
    /// Deliveries without a settle at that moment.
    pub(crate) unsettled: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// Promised to this queue, and never accepted.
    Lost(MessageId, QueueId),
    NeverPublished(Place),
    /// Of a transaction that was not committed, or not yet.
    Uncommitted(Place),
    /// In a queue that it was neither routed nor dead-lettered to.
    Misplaced(Place),
    /// Dead-lettered though nobody had rejected it.
    DeadLetteredUnasked(Place),
    /// Durably settled before.
    Resurrected(Place),
    /// Purged, or deleted with its queue, before.
    Unwiped(Place),
    Duplicated(Place),
    /// Somebody else was promised to have it for longer.
    Leased(Place),
    /// Withheld until later.
    Early(Place),
    /// Of a group of which somebody else has the second, which is in front of it.
    Shared(Place, u64),
    /// After the second, which was published later.
    Reordered(Place, u64),
    /// After another one that was there as well and has this lower priority.
    Overtaken(Place, u8),
    /// Transient, and there after a crash.
    Undead(Place),
    /// Delivered before, as the log knew for certain, and does not say so.
    Dishonest(Place),
    /// Delivered before, perhaps too late for the log, and does not say so.
    Hasty(Place),
    /// Too many that claim to have been delivered before.
    Ahead(QueueId, usize),
    /// One sign that it was done, and one that it was not.
    HalfTransaction(TxId, String, String),
    Damaged(StreamId),
}

/// See the module's text: 1,000 that one note of the broker covers, and what may have been on its
/// way to the clients of a queue.
pub(crate) const AHEAD_MAX: usize = 1_000 + 500;

/// Whether a delivery has to wait until the log has what makes its flag honest. Tern does not wait: what
/// was delivered within the last write to the disk before a crash may come again without the flag.
const HASTE_IS_WRONG: bool = false;

pub(crate) fn check(topology: &Topology, history: &[Event]) -> Verdict {
    Checker::read(topology, history).judge()
}

/// A message and the queue that it was routed to.
type LifeId = (MessageId, QueueId);

#[derive(Debug)]
struct Published {
    at: usize,
    /// Crashes before.
    run: usize,
    queues: Vec<QueueId>,
    traits: Traits,
    tx: Option<TxId>,
}

/// What became of a message from one queue that it was routed to.
#[derive(Debug, Default)]
struct Life {
    deliveries: Vec<Delivery>,
    settles: Vec<Settle>,
    leases: Vec<Lease>,
}

#[derive(Debug)]
struct Delivery {
    at: usize,
    /// Crashes before.
    run: usize,
    stream: StreamId,
    place: Place,
    redelivered: bool,
    at_ms: u64,
}

#[derive(Debug)]
struct Settle {
    at: usize,
    run: usize,
    place: Place,
    outcome: Outcome,
    tx: Option<TxId>,
    durable_at: Option<usize>,
}

#[derive(Debug, Default)]
struct Tx {
    run: usize,
    commit_at: Option<usize>,
    committed_at: Option<usize>,
    publishes: Vec<LifeId>,
    settles: Vec<Place>,
}

#[derive(Debug)]
struct Wipe {
    queue: QueueId,
    wiping: Wiping,
    asked_at: usize,
    answered_at: Option<usize>,
    /// What was published later is safe.
    over_at: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Stream {
    at: usize,
    queue: QueueId,
    is_sole: bool,
}

struct Checker<'a> {
    topology: &'a Topology,
    /// The first queue of the loop that a queue belongs to.
    roots: Vec<usize>,
    published: HashMap<MessageId, Published>,
    promised_at: HashMap<MessageId, usize>,
    /// Transient messages whose confirm came.
    confirmed: HashSet<MessageId>,
    lives: BTreeMap<LifeId, Life>,
    streams: HashMap<StreamId, Stream>,
    txs: BTreeMap<TxId, Tx>,
    wipes: BTreeMap<WipeId, Wipe>,
    /// Where the crashes stand.
    crashed_at: Vec<usize>,
    runs: usize,
    verdict: Verdict,
}

impl<'a> Checker<'a> {
    fn read(topology: &'a Topology, history: &[Event]) -> Self {
        let mut checker = Self {
            topology,
            roots: roots(topology),
            published: HashMap::new(),
            promised_at: HashMap::new(),
            confirmed: HashSet::new(),
            lives: BTreeMap::new(),
            streams: HashMap::new(),
            txs: BTreeMap::new(),
            wipes: BTreeMap::new(),
            crashed_at: Vec::new(),
            runs: 0,
            verdict: Verdict::default(),
        };
        let mut settled_here = HashSet::new();
        let mut delivered_here = HashSet::new();
        let mut leased = HashMap::new();
        let mut now_ms = 0;
        for (at, event) in history.iter().enumerate() {
            if *event == Event::Crashed {
                let unsettled = delivered_here.difference(&settled_here).count();
                checker.verdict.crashes.push(Crash { promised: checker.promised_at.len(), unsettled });
                checker.verdict.counts.leased_at_crash += leased.values().filter(|until| **until > now_ms).count();
                delivered_here.clear();
                settled_here.clear();
            }
            match event {
                Event::Delivered { place, at_ms, .. } => {
                    now_ms = now_ms.max(*at_ms);
                    _ = (delivered_here.insert(*place), settled_here.remove(place));
                }
                Event::Leased { place, until_ms } => _ = leased.insert(*place, *until_ms),
                Event::Settled { place, .. } => _ = (settled_here.insert(*place), leased.remove(place)),
                _ => {}
            }
            checker.take(at, event);
        }
        checker
    }

    fn take(&mut self, at: usize, event: &Event) {
        let run = self.runs;
        match event {
            Event::Publish { message, queues, traits, tx } => {
                let roots: HashSet<_> = queues.iter().map(|queue| self.roots[queue.0]).collect();
                assert_eq!(roots.len(), queues.len(), "a message enters a loop of queues at one place");
                if let Some(tx) = tx {
                    self.tx(*tx).publishes.extend(queues.iter().map(|&queue| (*message, queue)));
                }
                let published = Published { at, run, queues: queues.clone(), traits: *traits, tx: *tx };
                assert!(self.published.insert(*message, published).is_none(), "a message is published once");
            }
            Event::Confirmed { message } => {
                if self.traits(*message).is_transient {
                    self.confirmed.insert(*message);
                } else {
                    self.promised_at.insert(*message, at);
                }
            }
            Event::Nacked { .. } | Event::RolledBack { .. } => {}
            Event::Opened { stream, queue, is_sole } => {
                self.streams.insert(*stream, Stream { at, queue: *queue, is_sole: *is_sole });
            }
            Event::Delivered { stream, place, redelivered, at_ms } => {
                let (stream, redelivered, at_ms) = (*stream, *redelivered, *at_ms);
                let delivery = Delivery { at, run, stream, place: *place, redelivered, at_ms };
                self.life(place).deliveries.push(delivery);
            }
            Event::Leased { place, until_ms } => {
                self.verdict.counts.leased += 1;
                self.life(place).leases.push(Lease { at, place: *place, until_ms: *until_ms });
            }
            Event::Damaged { stream } => self.verdict.violations.push(Violation::Damaged(*stream)),
            Event::Settled { place, outcome, tx } => {
                if let Some(tx) = tx {
                    self.tx(*tx).settles.push(*place);
                }
                let settle = Settle { at, run, place: *place, outcome: *outcome, tx: *tx, durable_at: None };
                self.life(place).settles.push(settle);
            }
            Event::Durable { place } => {
                self.verdict.counts.durable_settles += 1;
                let settles = &mut self.life(place).settles;
                let settle = settles.iter_mut().rev().find(|settle| settle.place == *place);
                settle.expect("what is durable was settled").durable_at = Some(at);
            }
            Event::Commit { tx } => {
                let tx = self.tx(*tx);
                (tx.commit_at, tx.run) = (Some(at), run);
            }
            Event::Committed { tx } => {
                let tx = self.tx(*tx);
                tx.committed_at = Some(at);
                let messages: Vec<_> = tx.publishes.iter().map(|(message, _)| *message).collect();
                let settled = std::mem::take(&mut tx.settles);
                for place in &settled {
                    self.take(at, &Event::Durable { place: *place });
                }
                self.promised_at.extend(messages.into_iter().map(|message| (message, at)));
            }
            Event::Wipe { wipe, queue, wiping } => {
                assert_eq!(self.topology.queues[queue.0].dead_letter, None, "wiped queues belong to no loop");
                let wiped = Wipe { queue: *queue, wiping: *wiping, asked_at: at, answered_at: None, over_at: None };
                self.wipes.insert(*wipe, wiped);
            }
            Event::Wiped { wipe } => {
                let wipe = self.wipes.get_mut(wipe).expect("what was wiped was to be");
                wipe.answered_at = Some(at);
                if wipe.wiping == Wiping::Purge {
                    wipe.over_at = Some(at);
                }
            }
            Event::Declared { queue } => self.end_wipes(at, |wipe| wipe.queue == *queue),
            Event::Crashed => {
                self.runs += 1;
                self.crashed_at.push(at);
                // A deletion is over when its queue is there again.
                self.end_wipes(at, |wipe| wipe.wiping == Wiping::Purge);
            }
        }
    }

    fn end_wipes(&mut self, at: usize, is_over: impl Fn(&Wipe) -> bool) {
        for wipe in self.wipes.values_mut().filter(|wipe| wipe.over_at.is_none() && is_over(wipe)) {
            wipe.over_at = Some(at);
        }
    }

    fn tx(&mut self, tx: TxId) -> &mut Tx {
        self.txs.entry(tx).or_default()
    }

    fn traits(&self, message: MessageId) -> Traits {
        self.published.get(&message).map_or_else(Traits::default, |published| published.traits)
    }

    fn life_id(&self, place: &Place) -> LifeId {
        let root = self.roots[place.queue.0];
        let queues = self.published.get(&place.message).map_or(&[][..], |published| &published.queues);
        let origin = queues.iter().find(|queue| self.roots[queue.0] == root);
        (place.message, *origin.unwrap_or(&place.queue))
    }

    fn life(&mut self, place: &Place) -> &mut Life {
        let id = self.life_id(place);
        self.lives.entry(id).or_default()
    }

    /// Whether a settle may have had an effect at all.
    fn is_sent(&self, settle: &Settle) -> bool {
        settle.tx.is_none_or(|tx| self.txs[&tx].commit_at.is_some())
    }

    fn judge(mut self) -> Verdict {
        let mut found = std::mem::take(&mut self.verdict.violations);
        let mut ahead = BTreeMap::<QueueId, usize>::new();
        let witnesses = self.witnesses();
        for (id, life) in &self.lives {
            self.judge_life(*id, life, &witnesses, &mut ahead, &mut found);
        }
        for (queue, count) in &ahead {
            if *count > AHEAD_MAX * self.runs {
                found.push(Violation::Ahead(*queue, *count));
            }
        }
        self.judge_losses(&mut found);
        self.judge_order(&mut found);
        self.judge_groups(&mut found);
        let (mut kept, mut vanished) = (0, 0);
        for (id, tx) in &self.txs {
            match self.judge_tx(tx) {
                (Some(done), Some(undone)) => found.push(Violation::HalfTransaction(*id, done, undone)),
                (done, undone) => {
                    kept += usize::from(done.is_some() && tx.committed_at.is_none());
                    vanished += usize::from(undone.is_some());
                }
            }
        }
        let deliveries = || self.lives.values().flat_map(|life| &life.deliveries);
        let seen: HashSet<_> = deliveries().map(|delivery| delivery.place.message).collect();
        let is_confirmed =
            |message: &&MessageId| self.promised_at.contains_key(message) || self.confirmed.contains(message);
        self.verdict.counts = Counts {
            published: self.published.len(),
            promised: self.promised_at.len(),
            transient: self.confirmed.len(),
            transient_vanished: self.confirmed.difference(&seen).count(),
            delivered: deliveries().count(),
            redelivered: deliveries().filter(|delivery| delivery.redelivered).count(),
            recovered: seen.iter().filter(|message| !is_confirmed(message)).count(),
            ahead: ahead.values().sum(),
            tx_kept: kept,
            tx_vanished: vanished,
            ..self.verdict.counts
        };
        self.verdict.violations = found;
        self.verdict
    }

    /// Of each run the last publish that was promised: what came before it went out, the log had.
    fn witnesses(&self) -> HashMap<usize, usize> {
        let wiped: HashSet<_> = self.wipes.values().map(|wipe| wipe.queue).collect();
        let mut witnesses = HashMap::new();
        for (message, promised_at) in &self.promised_at {
            let Some(published) = self.published.get(message) else { continue };
            // What was promised to a second try says nothing of the first one's broker.
            let is_of_run = self.crashed_at.partition_point(|crashed_at| crashed_at < promised_at) == published.run;
            // What finds its queue deleted is promised without the log.
            if is_of_run && published.queues.iter().all(|queue| !wiped.contains(queue)) {
                let last = witnesses.entry(published.run).or_insert(published.at);
                *last = published.at.max(*last);
            }
        }
        witnesses
    }

    /// Each delivery of a message against those before it.
    fn judge_life(
        &self,
        id: LifeId,
        life: &Life,
        witnesses: &HashMap<usize, usize>,
        ahead: &mut BTreeMap<QueueId, usize>,
        found: &mut Vec<Violation>,
    ) {
        let published = self.published.get(&id.0);
        for (n, delivery) in life.deliveries.iter().enumerate() {
            let place = delivery.place;
            let Some(published) = published.filter(|published| published.at < delivery.at) else {
                found.push(Violation::NeverPublished(place));
                continue;
            };
            if !published.queues.contains(&id.1) || self.queue_after(id.1, place.deaths) != Some(place.queue) {
                found.push(Violation::Misplaced(place));
                continue;
            }
            if published.tx.is_some_and(|tx| self.txs[&tx].commit_at.is_none_or(|commit| delivery.at < commit)) {
                found.push(Violation::Uncommitted(place));
            }
            if self.is_dead_lettered_unasked(id.1, life, delivery) {
                found.push(Violation::DeadLetteredUnasked(place));
            }
            if life.settles.iter().any(|settle| settle.forbids(delivery)) {
                found.push(Violation::Resurrected(place));
            }
            if life.is_leased_at(delivery) {
                found.push(Violation::Leased(place));
            }
            if published.traits.due_ms > delivery.at_ms {
                found.push(Violation::Early(place));
            }
            if published.traits.is_transient && delivery.run > published.run {
                found.push(Violation::Undead(place));
            }
            if self.is_wiped(id, life, delivery) {
                found.push(Violation::Unwiped(place));
            }
            let before = &life.deliveries[..n];
            if self.is_duplicate(before, life, delivery) {
                found.push(Violation::Duplicated(place));
            }
            let same = || before.iter().filter(|earlier| earlier.place == place);
            match (same().next().is_some(), delivery.redelivered) {
                (true, false) => {
                    // A receiver is told how often it was received, and not of what a consumer's crash undid.
                    let is_received = life.is_leased(delivery);
                    let mut same = same().filter(|earlier| !is_received || life.is_leased(earlier));

                    // Within a run no log is needed.
                    let is_known = |earlier: &Delivery| {
                        earlier.run == delivery.run
                            || witnesses.get(&earlier.run).is_some_and(|&witness| earlier.at < witness)
                    };
                    if same.any(is_known) {
                        found.push(Violation::Dishonest(place));
                    } else if HASTE_IS_WRONG {
                        found.push(Violation::Hasty(place));
                    }
                }
                (false, true) => *ahead.entry(place.queue).or_default() += 1,
                _ => {}
            }
        }
    }

    /// Where a message is that entered at `queue` and died so often.
    fn queue_after(&self, queue: QueueId, deaths: u64) -> Option<QueueId> {
        (0..deaths).try_fold(queue, |queue, _| self.topology.queues[queue.0].dead_letter.map(|(_, next)| next))
    }

    fn is_dead_lettered_unasked(&self, origin: QueueId, life: &Life, delivery: &Delivery) -> bool {
        (0..delivery.place.deaths).any(|deaths| {
            let queue = self.queue_after(origin, deaths).expect("the place was checked");
            let is_by_reject =
                self.topology.queues[queue.0].dead_letter.is_some_and(|(why, _)| why == Reason::Rejected);
            let place = Place { queue, deaths, ..delivery.place };
            is_by_reject
                && !life.settles.iter().any(|settle| {
                    settle.place == place && settle.outcome == Outcome::Rejected && settle.at < delivery.at
                })
        })
    }

    fn is_duplicate(&self, before: &[Delivery], life: &Life, delivery: &Delivery) -> bool {
        let here = || before.iter().filter(|earlier| earlier.run == delivery.run);
        let settles = || life.settles.iter().filter(|settle| settle.run == delivery.run && settle.at < delivery.at);
        let came = here().filter(|earlier| earlier.place == delivery.place).count();
        let requeued =
            settles().filter(|settle| settle.place == delivery.place && settle.outcome == Outcome::Requeued).count();
        let is_accepted = settles().any(|settle| {
            let is_done = settle.tx.is_none_or(|tx| self.txs[&tx].committed_at.is_some_and(|at| at < delivery.at));
            settle.outcome == Outcome::Accepted && is_done && !life.is_late(settle, delivery)
        });
        came > requeued + life.lapsed_count(here(), delivery)
            || is_accepted
            || here().any(|earlier| earlier.place.deaths > delivery.place.deaths)
    }

    /// Whether a wipe that was answered has taken it before.
    fn is_wiped(&self, id: LifeId, life: &Life, delivery: &Delivery) -> bool {
        let first_delivery = life.deliveries.first().map(|first| first.at);
        let came_at = first_delivery.into_iter().chain(self.promised_at.get(&id.0).copied()).min();
        let asked_at = self.streams[&delivery.stream].at;
        self.wipes.values().filter(|wipe| wipe.queue == id.1).any(|wipe| {
            let Some(answered_at) = wipe.answered_at.filter(|answered_at| *answered_at < asked_at) else {
                return false;
            };
            // A purge leaves what is unsettled.
            let is_left = wipe.wiping == Wiping::Purge && first_delivery.is_some_and(|first| first < answered_at);
            came_at.is_some_and(|came_at| came_at < wipe.asked_at) && !is_left
        })
    }

    /// Whether a wipe may have taken it, now or later.
    fn may_be_wiped(&self, id: LifeId) -> bool {
        let published_at = self.published[&id.0].at;
        self.wipes.values().any(|wipe| wipe.queue == id.1 && wipe.over_at.is_none_or(|over_at| published_at < over_at))
    }

    fn judge_losses(&self, found: &mut Vec<Violation>) {
        for message in self.promised_at.keys().chain(&self.confirmed) {
            let Some(published) = self.published.get(message) else { continue };
            if published.traits.is_transient && published.run < self.runs {
                continue;
            }
            for queue in &published.queues {
                let id = (*message, *queue);
                let settles = self.lives.get(&id).map_or(&[][..], |life| &life.settles);
                let is_gone = settles.iter().any(|settle| {
                    let is_final = match settle.outcome {
                        Outcome::Accepted => true,
                        Outcome::Rejected => self.topology.queues[settle.place.queue.0].dead_letter.is_none(),
                        Outcome::Requeued => false,
                    };
                    is_final && self.is_sent(settle)
                });
                if !is_gone && !self.may_be_wiped(id) {
                    found.push(Violation::Lost(*message, *queue));
                }
            }
        }
    }

    fn judge_order(&self, found: &mut Vec<Violation>) {
        let mut deliveries = Vec::new();
        for life in self.lives.values() {
            for (n, delivery) in life.deliveries.iter().enumerate().filter(|(_, delivery)| delivery.place.deaths == 0) {
                let is_sole = self.streams[&delivery.stream].is_sole;
                let is_first = if is_sole {
                    life.deliveries[..n].iter().all(|earlier| earlier.run != delivery.run)
                } else {
                    n == 0 && !delivery.redelivered
                };
                if is_first {
                    deliveries.push(delivery);
                }
            }
        }
        deliveries.sort_by_key(|delivery| delivery.at);
        let (mut last, mut lowest) = (HashMap::new(), HashMap::new());
        for delivery in deliveries {
            let MessageId { cycle, publisher, seq } = delivery.place.message;
            let Stream { queue, is_sole, .. } = self.streams[&delivery.stream];
            let priority_max = self.topology.queues[queue.0].priority_max;
            let priority = self.traits(delivery.place.message).priority.min(priority_max.unwrap_or(0));
            let last = last.entry((delivery.stream, queue, cycle, publisher, priority)).or_insert(seq);
            if *last > seq {
                found.push(Violation::Reordered(delivery.place, *last));
            }
            *last = seq.max(*last);
            // What the queue has at a crash is there before a reader comes.
            let is_of_before = self.published.get(&delivery.place.message).is_some_and(|it| it.run < delivery.run);
            if is_sole && is_of_before {
                let lowest = lowest.entry(delivery.stream).or_insert(priority);
                if *lowest < priority {
                    found.push(Violation::Overtaken(delivery.place, *lowest));
                }
                *lowest = priority.min(*lowest);
            }
        }
    }

    /// A sign that a transaction whose commit was not answered was done, and one that it was not.
    ///
    /// Only what happened after the crash is one: deliveries may precede the log.
    fn judge_tx(&self, tx: &Tx) -> (Option<String>, Option<String>) {
        let (mut done, mut undone) = (None, None);
        if tx.commit_at.is_none() || tx.committed_at.is_some() || tx.run == self.runs {
            return (done, undone);
        }
        for id in &tx.publishes {
            let life = self.lives.get(id);
            let later = life.is_some_and(|life| life.deliveries.iter().any(|delivery| delivery.run > tx.run));
            let is_unclear = life.is_some_and(|life| !life.settles.is_empty()) || self.may_be_wiped(*id);
            if later {
                done.get_or_insert_with(|| format!("{:?} is in {:?}", id.0, id.1));
            } else if !is_unclear {
                undone.get_or_insert_with(|| format!("{:?} is not in {:?}", id.0, id.1));
            }
        }
        for place in &tx.settles {
            let id = self.life_id(place);
            let Some(life) = self.lives.get(&id) else { continue };
            let is_back = life.deliveries.iter().any(|delivery| delivery.run > tx.run);
            let ends = |settle: &&Settle| settle.outcome != Outcome::Requeued && self.is_sent(settle);
            let is_only_end = life.settles.iter().filter(ends).count() == 1;
            if is_back {
                undone.get_or_insert_with(|| format!("{place:?} is back"));
            } else if is_only_end && self.promised_at.contains_key(&place.message) && !self.may_be_wiped(id) {
                done.get_or_insert_with(|| format!("{place:?} is gone"));
            }
        }
        (done, undone)
    }
}

impl Settle {
    /// Whether a delivery shows that this was forgotten though it was durable.
    fn forbids(&self, delivery: &Delivery) -> bool {
        let is_over = match self.outcome {
            Outcome::Accepted => true,
            Outcome::Rejected => delivery.place.deaths <= self.place.deaths,
            Outcome::Requeued => false,
        };
        is_over && self.durable_at.is_some_and(|durable_at| durable_at < delivery.at)
    }
}

fn roots(topology: &Topology) -> Vec<usize> {
    let mut roots: Vec<_> = (0..topology.queues.len()).collect();
    for (n, queue) in topology.queues.iter().enumerate() {
        if let Some((_, next)) = queue.dead_letter {
            let (from, to) = (roots[n], roots[next.0]);
            let (least, other) = (from.min(to), from.max(to));
            roots.iter_mut().filter(|root| **root == other).for_each(|root| *root = least);
        }
    }
    roots
}

#[cfg(test)]
#[path = "checker_tests.rs"]
mod tests;
