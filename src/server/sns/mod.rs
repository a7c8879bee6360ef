//! Deliveries of topics to endpoints over HTTP and HTTPS, and the key that notifications are signed with.
//!
//! Replays of archived messages are driven beside the deliveries (`replays`).
//!
//! One task looks for subscriptions that come and go ([`run`]); each subscription has a task that delivers
//! ([`worker`]) and costs nothing while there is nothing to deliver. Messages that are posted at once are bounded by
//! [`POSTS_MAX`] for all and by [`worker::POSTS_PER_SUBSCRIPTION_MAX`] for one, so that an endpoint that does not
//! answer holds up its own messages and few others.

mod keys;
mod mail;
mod outlets;
mod post;
mod replays;
mod worker;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use rustls::pki_types::CertificateDer;
use tokio::{
    sync::Semaphore,
    task::{AbortHandle, JoinSet},
};

pub use keys::KeptSigner;
pub use mail::{is_mail_address, is_mail_relay};
pub use post::read_trusted;

use crate::{
    aws::{
        Aws, Options,
        sns::{outbox::DIRECT_QUEUE, subscription::Subscription},
    },
    broker::{Broker, queue::Queue, vhost::Vhost},
};
use outlets::Outlets;
use worker::{Shared, Worker};

/// Messages that are posted at once. Full: further ones wait in their queues.
const POSTS_MAX: usize = 256;
/// Between two looks whether subscriptions have changed, which is one number.
const LOOK: Duration = Duration::from_millis(100);

/// Messages without a subscription go the way of this protocol.
const DIRECT_PROTOCOL: &str = "sms";

/// Which subscription a worker delivers to: its vhost and name. No name: messages without one.
type Key = (String, String);

/// Delivers and replays until it is dropped; what is being posted then is posted again after its lease. Endpoints may
/// have certificates by those that are `trusted`, too.
pub async fn run(broker: Arc<Broker>, aws: Arc<Aws>, trusted: Vec<CertificateDer<'static>>) {
    tokio::join!(deliver(broker.clone(), aws.clone(), trusted), replays::run(broker, aws));
}

async fn deliver(broker: Arc<Broker>, aws: Arc<Aws>, trusted: Vec<CertificateDer<'static>>) {
    let mut workers: JoinSet<Key> = JoinSet::new();
    let mut running: HashMap<Key, (AbortHandle, String)> = HashMap::new();
    let mut shared: Option<Arc<Shared>> = None;
    let mut seen = None;
    loop {
        while let Some(ended) = workers.try_join_next() {
            if let Ok(key) = ended {
                running.remove(&key);
            }
        }
        // Of a queue that comes no parameter tells.
        let now = (broker.parameters.edition(), direct_queues(&broker, &aws.options).len());
        if seen != Some(now) {
            seen = Some(now);
            let wanted = subscriptions(&broker, &aws.options);
            let known: HashSet<&Key> = wanted.iter().map(|(key, ..)| key).collect();
            running.retain(|key, (worker, arn)| {
                let is_wanted = known.contains(key);
                if !is_wanted {
                    worker.abort();
                    aws.sns.outcomes.forget(arn);
                }
                is_wanted
            });
            if shared.is_none() && !wanted.is_empty() {
                // Reads files.
                let (of, trusted) = (aws.clone(), trusted.clone());
                let made = tokio::task::spawn_blocking(move || Outlets::new(&of.options, trusted)).await;
                let Ok(outlets) = made else { return };
                let posts = Arc::new(Semaphore::new(POSTS_MAX));
                shared = Some(Arc::new(Shared { broker: broker.clone(), aws: aws.clone(), outlets, posts }));
            }
            for (key, vhost, queue, of) in wanted {
                let (Some(shared), false) = (&shared, running.contains_key(&key)) else { continue };
                let arn = of.as_ref().map(|of| of.arn(&of.region)).unwrap_or_default();
                let subscription = of.map(|of| (of.topic, of.id));
                let worker = Worker { shared: shared.clone(), vhost, queue, subscription };
                let ended = key.clone();
                let handle = workers.spawn(async move {
                    worker.run().await;
                    ended
                });
                running.insert(key, (handle, arn));
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What is delivered from: the queues of subscriptions, and those with messages that have none.
type Source = (Key, Arc<Vhost>, Arc<Queue>, Option<Subscription>);

/// Everything that is delivered from here.
fn subscriptions(broker: &Broker, options: &Options) -> Vec<Source> {
    let of_vhost = |vhost: Arc<Vhost>| {
        let all = Subscription::list(broker, &vhost.name, None, "", usize::MAX);
        let ours = all.into_iter().filter(|(_, of)| outlets::delivers(options, &of.protocol));
        let source = |(name, of): (String, Subscription)| {
            let queue = vhost.queue(&of.own_queue())?;
            Some(((vhost.name.to_string(), name), vhost.clone(), queue, Some(of)))
        };
        ours.filter_map(source).collect::<Vec<Source>>()
    };
    let mut all: Vec<Source> = broker.vhosts().into_iter().flat_map(of_vhost).collect();
    let direct = direct_queues(broker, options).into_iter();
    all.extend(direct.map(|(vhost, queue)| ((vhost.name.to_string(), String::new()), vhost, queue, None)));
    all
}

/// The queues with messages that have no subscription, if those are delivered from here.
fn direct_queues(broker: &Broker, options: &Options) -> Vec<(Arc<Vhost>, Arc<Queue>)> {
    if !outlets::delivers(options, DIRECT_PROTOCOL) {
        return Vec::new();
    }
    let with_queue = |vhost: Arc<Vhost>| vhost.queue(DIRECT_QUEUE).map(|queue| (vhost, queue));
    broker.vhosts().into_iter().filter_map(with_queue).collect()
}
