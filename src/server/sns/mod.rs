//! Deliveries of topics to endpoints over HTTP and HTTPS, and the key that notifications are signed with.
//!
//! One task looks for subscriptions that come and go ([`run`]); each subscription has a task that delivers
//! ([`worker`]) and costs nothing while there is nothing to deliver. Messages that are posted at once are bounded by
//! [`POSTS_MAX`] for all and by [`worker::POSTS_PER_SUBSCRIPTION_MAX`] for one, so that an endpoint that does not
//! answer holds up its own messages and few others.

mod keys;
mod post;
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
pub use post::read_trusted;

use crate::{
    aws::{Aws, sns::subscription::Subscription},
    broker::{Broker, vhost::Vhost},
};
use post::Poster;
use worker::{Shared, Worker};

/// Messages that are posted at once. Full: further ones wait in their queues.
const POSTS_MAX: usize = 256;
/// Between two looks whether subscriptions have changed, which is one number.
const LOOK: Duration = Duration::from_millis(100);

/// Which subscription a worker delivers to.
type Key = (String, String);

/// Delivers until it is dropped; what is being posted then is posted again after its lease. Endpoints may have
/// certificates by those that are `trusted`, too.
pub async fn run(broker: Arc<Broker>, aws: Arc<Aws>, trusted: Vec<CertificateDer<'static>>) {
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
        let edition = broker.parameters.edition();
        if seen != Some(edition) {
            seen = Some(edition);
            let wanted = subscriptions(&broker);
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
                let trusted = trusted.clone();
                let Ok(poster) = tokio::task::spawn_blocking(move || Poster::new(trusted)).await else { return };
                let posts = Arc::new(Semaphore::new(POSTS_MAX));
                shared = Some(Arc::new(Shared { broker: broker.clone(), aws: aws.clone(), poster, posts }));
            }
            for (key, vhost, of) in wanted {
                let (Some(shared), false) = (&shared, running.contains_key(&key)) else { continue };
                let Some(queue) = vhost.queue(&of.own_queue()) else { continue };
                let arn = of.arn(&of.region);
                let worker = Worker { shared: shared.clone(), vhost, queue, topic: of.topic, id: of.id };
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

/// All subscriptions that are delivered to from here.
fn subscriptions(broker: &Broker) -> Vec<(Key, Arc<Vhost>, Subscription)> {
    let of_vhost = |vhost: Arc<Vhost>| {
        let all = Subscription::list(broker, &vhost.name, None, "", usize::MAX);
        let ours = all.into_iter().filter(|(_, of)| matches!(&*of.protocol, "http" | "https"));
        ours.map(move |(name, of)| ((vhost.name.to_string(), name), vhost.clone(), of)).collect::<Vec<_>>()
    };
    broker.vhosts().into_iter().flat_map(of_vhost).collect()
}
