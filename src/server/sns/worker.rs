//! Deliveries to one subscription.
//!
//! A message is leased while it is posted. One that an endpoint has is accepted; one that it may have another time
//! stays leased until then, so that how often it was tried and when it is tried next are durable, and a restart goes
//! on where it was. After the last retry it goes to the subscription's dead-letter queue.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::outlets::{Outlets, Sent};
use crate::{
    aws::{
        Aws,
        sns::{
            deliveries::{Attempt, Plan, Verdict, give_up},
            handover,
            subscription::Subscription,
        },
    },
    broker::{
        Broker,
        connections::{ChannelStatus, ConnectionHandle, Traffic},
        message::Message,
        queue::{
            Queue,
            leases::{LeaseSettle, Leased, Receive, Received, Waiter},
        },
        turn::Turn,
        verb::Verb,
        vhost::Vhost,
    },
    server::clock,
};

/// Messages of one subscription that are posted at once.
pub(super) const POSTS_PER_SUBSCRIPTION_MAX: usize = 8;
/// Longer than a post may take. After a crash what was being posted waits so long.
const LEASE_MS: u64 = 60_000;

/// What all workers have in common.
pub(super) struct Shared {
    pub(super) broker: Arc<Broker>,
    pub(super) aws: Arc<Aws>,
    pub(super) outlets: Outlets,
    /// Messages that may be posted at once.
    pub(super) posts: Arc<Semaphore>,
}

/// One subscription, or all messages of a vhost that have none.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) vhost: Arc<Vhost>,
    pub(super) queue: Arc<Queue>,
    /// Topic and identity of the subscription; `None`: messages say themselves who gets them.
    pub(super) subscription: Option<(String, String)>,
}

/// The worker's task, for whoever has something for it.
#[derive(Default)]
struct Told(Notify);

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

/// What looking for a message came to.
enum Found {
    One(Box<Leased>),
    /// Nothing: this waits for something.
    Nothing(Option<Waiter>),
    /// There is nothing to look for any more.
    Over,
}

impl Worker {
    /// Delivers until the queue is deleted. May be dropped: what was being posted is posted again after its lease.
    pub(super) async fn run(self) {
        let worker = Arc::new(self);
        let told = Arc::new(Told::default());
        let mut posting = JoinSet::new();
        let mut next_at = Instant::now();
        loop {
            while posting.len() >= POSTS_PER_SUBSCRIPTION_MAX {
                posting.join_next().await;
            }
            while posting.try_join_next().is_some() {}
            sleep_until(next_at).await;
            // Held only while there is something to post.
            let Ok(permit) = worker.shared.posts.clone().acquire_owned().await else { return };
            let handle: Arc<dyn ConnectionHandle> = told.clone();
            match worker.find(Arc::downgrade(&handle)) {
                Found::One(leased) => {
                    let Some(of) = worker.recipient(&leased.message) else { return };
                    let plan = worker.shared.outlets.plan(&worker.vhost, &of);
                    if let Some(limit) = plan.per_second_max {
                        next_at = next_at.max(Instant::now()) + Duration::from_secs_f64((1.0 / limit).min(3_600.0));
                    }
                    let worker = worker.clone();
                    posting.spawn(async move {
                        worker.deliver(*leased, &of, &plan).await;
                        drop(permit);
                    });
                }
                Found::Nothing(waiter) => {
                    drop(permit);
                    told.0.notified().await;
                    drop(waiter);
                }
                Found::Over => return,
            }
        }
    }

    fn find(&self, told: Weak<dyn ConnectionHandle>) -> Found {
        let broker = &self.shared.broker;
        let mut turn = Turn::new(broker, clock::now());
        let wanted = Receive { max: 1, lease_ms: LEASE_MS, waiter: Some(told.clone()), ..Receive::default() };
        let mut received = self.queue.receive(&wanted, &mut turn);
        if matches!(received, Verb::Pending(_)) {
            // Before it looks again: a page that comes in between is not missed.
            broker.waiting.register(told);
            received = self.queue.receive(&wanted, &mut turn);
        }
        let found = match received {
            Verb::Done(Ok(Received { mut messages, waiter })) => match messages.pop() {
                Some(leased) => Found::One(Box::new(leased)),
                None => Found::Nothing(waiter),
            },
            Verb::Done(Err(error)) => {
                tracing::debug!(queue = %self.queue.name, %error, "nothing is delivered from here any more");
                Found::Over
            }
            Verb::Pending(_) => Found::Nothing(None),
        };
        turn.drain();
        turn.end();
        found
    }

    /// Who gets a message; `None`: the subscription is gone.
    fn recipient(&self, message: &Message) -> Option<Subscription> {
        let Some((topic, id)) = &self.subscription else {
            let options = &self.shared.aws.options;
            let account = options.account_of(&self.vhost.name).unwrap_or_default();
            return Some(handover::recipient(message, account, &options.region));
        };
        Subscription::find(&self.shared.broker, &self.vhost.name, topic, id)
    }

    async fn deliver(&self, leased: Leased, of: &Subscription, plan: &Plan) {
        let to = (of, &*self.vhost, plan);
        let Sent { verdict, said, is_farewell } = self.shared.outlets.send(to, &leased.message, leased.receives).await;
        let now = clock::now();
        let mut turn = Turn::new(&self.shared.broker, now);
        let delay = plan.retries.delay_ms(leased.receives);
        let arn = handover::account_of(of);
        let outcomes = &self.shared.aws.sns.outcomes;
        let outcome = match (verdict, delay) {
            (Verdict::Delivered, _) => "Delivered",
            (Verdict::Again, Some(_)) => "Retried",
            _ if of.dead_letter_queue().is_some_and(|name| self.vhost.queue(&name).is_some()) => "DeadLettered",
            _ => "Dropped",
        };
        outcomes.remember(Attempt {
            subscription: arn.clone(),
            protocol: of.protocol.clone(),
            endpoint: of.endpoint.clone(),
            message_id: handover::message_id(of, &leased.message),
            number: leased.receives,
            outcome,
            answer: said.clone(),
            at: now,
        });
        outcomes.note(&arn, |outcome| {
            (outcome.last, outcome.last_at) = (said.clone(), now);
            if verdict == Verdict::Delivered { outcome.delivered += 1 } else { outcome.failed += 1 }
        });
        match (verdict, delay) {
            (Verdict::Delivered, _) => self.accept(&leased, &mut turn),
            (Verdict::Again, Some(delay)) => {
                tracing::debug!(
                    subscription = arn,
                    said,
                    attempt = leased.receives,
                    delay,
                    "not delivered; trying again"
                );
                self.settle(&leased, LeaseSettle::Change { lease_ms: delay }, &mut turn);
            }
            (Verdict::Again | Verdict::Refused, _) => {
                self.bury(&leased, of, &said, &mut turn);
                self.accept(&leased, &mut turn);
            }
        }
        let is_over = is_farewell && (verdict != Verdict::Again || delay.is_none());
        if is_over {
            // Nothing follows a farewell.
            of.forget(&self.vhost, &mut turn);
            outcomes.forget(&arn);
        }
        turn.drain();
        turn.end();
    }

    fn bury(&self, leased: &Leased, of: &Subscription, said: &str, turn: &mut Turn<'_>) {
        let arn = handover::account_of(of);
        let is_kept = give_up(of, &self.vhost, &leased.message, turn);
        self.shared
            .aws
            .sns
            .outcomes
            .note(&arn, |outcome| if is_kept { outcome.dead_lettered += 1 } else { outcome.dropped += 1 });
        let attempts = leased.receives;
        if is_kept {
            tracing::info!(subscription = arn, said, attempts, "not delivered; it is in the dead-letter queue");
        } else {
            tracing::warn!(
                subscription = arn,
                said,
                attempts,
                "not delivered; dropped, as there is no dead-letter queue"
            );
        }
    }

    fn accept(&self, leased: &Leased, turn: &mut Turn<'_>) {
        self.settle(leased, LeaseSettle::Accept { is_strict: false }, turn);
    }

    fn settle(&self, leased: &Leased, how: LeaseSettle, turn: &mut Turn<'_>) {
        match self.queue.settle_leases(&[(leased.seq, leased.nonce)], how, turn) {
            Verb::Done(results) => {
                if let Some(Err(error)) = results.first() {
                    tracing::debug!(queue = %self.queue.name, %error, "delivered, and settled by somebody else");
                }
            }
            // A lease that was given a moment ago is known. If not it lapses, and the message is delivered again.
            Verb::Pending(_) => tracing::debug!(queue = %self.queue.name, "a lease is not in memory; it lapses"),
        }
    }
}
