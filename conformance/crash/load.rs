//! The workloads that a broker is killed under. Each goes on until its connection is gone.

use std::{
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lapin::{Connection, Result, options::*};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    client::{Client, Held, Route, connect},
    history::{Event, Outcome, QueueId, Wiping},
    node::Ports,
    queues,
    record::Record,
    rng::Rng,
    sqs::{self, Way},
    stomp,
};

/// What the workloads leave in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Much of it stays for long.
    Plain,
    /// The same, on a broker that makes checkpoints all the time.
    Dense,
    /// Much comes and goes, and a little stays: segments are emptied by moving that.
    Sparse,
}

/// Clients at work.
pub(crate) struct Load {
    clients: JoinSet<()>,
    is_crashed: Arc<AtomicBool>,
    complaints: Arc<Mutex<Vec<String>>>,
}

/// How long a client may take to notice that its broker is gone.
const NOTICE_MAX: Duration = Duration::from_secs(5);

/// Publishes of one channel until it goes slowly, so that a fast machine has no more to drain than a slow one.
pub(crate) const SPRINT: usize = 400;

/// The same of long messages.
const BULK_SPRINT: usize = 200;

/// Publisher of the marks of the n-th consumer.
const MARKER_0: u32 = 16;

impl Load {
    /// Starts all workloads; their order of events is chance, their choices are the seed's.
    pub(crate) async fn start(
        Ports { amqp: port, stomp: stomp_port, activemq: activemq_port, aws }: Ports,
        record: &Arc<Record>,
        style: Style,
        rng: &mut Rng,
    ) -> Result<Self> {
        let mut load = Self { clients: JoinSet::new(), is_crashed: Arc::default(), complaints: Arc::default() };
        let fan = Route::by(queues::FAN_EXCHANGE, &queues::FAN);
        let flow = Route { is_bulk: style == Style::Sparse, ..Route::to(queues::DIRECT_0) };
        let mut publishers = vec![
            (0, flow.clone()),
            (1, flow),
            (2, Route::to(queues::DIRECT_1)),
            (4, Route::to(queues::ORDERS)),
            (5, Route::to(queues::RETRY_WORK)),
            (6, Route::to(queues::PURGED)),
            (7, Route::to(queues::DELETED)),
            (10, Route::to(queues::PRIORITY)),
            (11, Route::to(queues::PRIORITY)),
            (12, Route::to(queues::MIXED)),
            (34, Route::to(queues::SQS_WORK)),
        ];
        if style != Style::Sparse {
            publishers.push((3, fan));
        }
        let connection = Arc::new(connect(port).await?);
        for (publisher, route) in publishers {
            load.client(publish(connection.clone(), record.clone(), publisher, route, rng.fork()));
        }
        let connection = Arc::new(connect(port).await?);
        let mut consumed = vec![queues::DIRECT_0, queues::DIRECT_0, queues::DIRECT_1];
        consumed.extend([queues::RETRY_WORK, queues::RETRY_WORK]);
        consumed.extend([queues::PRIORITY, queues::MIXED]);
        consumed.extend(&queues::FAN[..5]);
        for (marker, queue) in (MARKER_0..).zip(consumed) {
            load.client(consume(connection.clone(), record.clone(), marker, queue, rng.fork()));
        }
        for (marker, queue) in [(MARKER_0 + 12, queues::SQS_WORK), (MARKER_0 + 13, queues::SQS_GROUPS)] {
            load.client(sqs::visit(connection.clone(), record.clone(), marker, queue, rng.fork()));
        }
        let connection = Arc::new(connect(port).await?);
        for publisher in [8, 9] {
            load.client(transact(connection.clone(), record.clone(), publisher, rng.fork()));
        }
        load.client(wipe(connection.clone(), record.clone(), queues::PURGED, Wiping::Purge, rng.fork()));
        load.client(wipe(connection, record.clone(), queues::DELETED, Wiping::Delete, rng.fork()));
        stomp::subscribe_durably(stomp_port, record, stomp::TOPIC).await?;
        stomp::subscribe_durably(activemq_port, record, stomp::ACTIVEMQ_TOPIC).await?;
        load.client(stomp::produce(activemq_port, record.clone(), 30, stomp::ACTIVEMQ_TOPIC, rng.fork()));
        load.client(stomp::subscribe(activemq_port, record.clone(), stomp::ACTIVEMQ_TOPIC, None, rng.fork()));
        for (publisher, target) in [(13, stomp::WORK), (14, stomp::TOPIC)] {
            load.client(stomp::produce(stomp_port, record.clone(), publisher, target, rng.fork()));
        }
        for (publisher, target) in [(Some(15), stomp::WORK), (None, stomp::WORK), (None, stomp::TOPIC)] {
            load.client(stomp::subscribe(stomp_port, record.clone(), target, publisher, rng.fork()));
        }
        for (publisher, way) in [(31, Way::Single), (32, Way::Batch), (33, Way::Withheld)] {
            load.client(sqs::send(aws, record.clone(), publisher, way, rng.fork()));
        }
        for sender in 0..sqs::GROUP_SENDERS {
            load.client(sqs::send_to_groups(aws, record.clone(), sender, rng.fork()));
        }
        load.client(sqs::publish(aws, record.clone(), 35, rng.fork()));
        for queue in
            [queues::SQS_WORK, queues::SQS_WORK, queues::SQS_GROUPS, queues::SQS_GROUPS].into_iter().chain(queues::SNS)
        {
            load.client(sqs::receive(aws, record.clone(), queue, rng.fork()));
        }
        Ok(load)
    }

    fn client(&mut self, work: impl Future<Output = Result<()>> + Send + 'static) {
        let (is_crashed, complaints) = (self.is_crashed.clone(), self.complaints.clone());
        self.clients.spawn(async move {
            // They go on until an error ends them.
            if let (Err(error), false) = (work.await, is_crashed.load(Ordering::SeqCst)) {
                complaints.lock().unwrap().push(error.to_string());
            }
        });
    }

    /// From here on errors are expected.
    pub(crate) fn expect_crash(&self) {
        self.is_crashed.store(true, Ordering::SeqCst);
    }

    /// Waits until all have noted what they still received; returns what went wrong before the crash.
    pub(crate) async fn end(mut self) -> Vec<String> {
        let ended = tokio::time::timeout(NOTICE_MAX, async { while self.clients.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            // A client that hangs notes nothing more: what it was to be told stays unknown.
            self.clients.shutdown().await;
        }
        std::mem::take(&mut self.complaints.lock().unwrap())
    }
}

async fn publish(
    connection: Arc<Connection>,
    record: Arc<Record>,
    publisher: u32,
    route: Route,
    rng: Rng,
) -> Result<()> {
    let mut client = Client::confirming(&connection, &record).await?;
    let result = publish_on(&mut client, publisher, &route, rng).await;
    client.await_rest().await;
    result
}

async fn publish_on(client: &mut Client, publisher: u32, route: &Route, mut rng: Rng) -> Result<()> {
    let mut published = 0;
    loop {
        let burst = rng.count(1..if route.is_bulk { 12 } else { 48 });
        for _ in 0..burst {
            client.publish(publisher, route, None, &mut rng).await?;
        }
        published += burst;
        client.await_confirms(rng.count(0..256)).await?;
        let is_sprint = published < if route.is_bulk { BULK_SPRINT } else { SPRINT };
        let pause = if is_sprint { 1..2_000 } else { 10_000..40_000 };
        sleep(rng.micros(pause)).await;
    }
}

async fn consume(
    connection: Arc<Connection>,
    record: Arc<Record>,
    marker: u32,
    queue: QueueId,
    rng: Rng,
) -> Result<()> {
    let mut client = Client::confirming(&connection, &record).await?;
    let result = consume_on(&mut client, marker, queue, rng).await;
    client.await_rest().await;
    result
}

async fn consume_on(client: &mut Client, marker: u32, queue: QueueId, mut rng: Rng) -> Result<()> {
    let prefetch = rng.count(4..60);
    let mut reader = client.consume(queue, u16::try_from(prefetch).expect("prefetches are small"), false).await?;
    let mark = Route::to(queues::MARKS);
    let mut held = Vec::<Held>::new();
    loop {
        let enough = 1 + rng.count(0..prefetch as u64);
        while held.len() < enough {
            match reader.next(Duration::from_millis(5)).await? {
                Some(delivery) => held.push(delivery),
                None => break,
            }
        }
        if held.is_empty() {
            continue;
        }
        if queue != queues::RETRY_WORK && rng.is_one_in(3) {
            client.accept_all(&mut held).await?;
        } else {
            // Some stay unsettled for long.
            let left = if rng.is_one_in(4) { rng.count(0..enough as u64) } else { 0 };
            while held.len() > left {
                let delivery = held.swap_remove(rng.count(0..held.len() as u64));
                client.settle(delivery, outcome(queue, delivery, &mut rng), None).await?;
            }
        }
        client.publish(marker, &mark, None, &mut rng).await?;
        client.await_confirms(rng.count(0..4)).await?;
    }
}

fn outcome(queue: QueueId, delivery: Held, rng: &mut Rng) -> Outcome {
    let place = delivery.place;
    // Each attempt is two deaths: the reject, and the end of the wait.
    let is_failing = queue == queues::RETRY_WORK && place.deaths / 2 < place.message.seq % 4;
    match rng.within(0..20) {
        0 => Outcome::Requeued,
        _ if is_failing => Outcome::Rejected,
        _ => Outcome::Accepted,
    }
}

async fn transact(connection: Arc<Connection>, record: Arc<Record>, publisher: u32, mut rng: Rng) -> Result<()> {
    let mut client = Client::open(&connection, &record).await?;
    client.channel.tx_select().await?;
    let mut reader = client.consume(queues::ORDERS, 20, false).await?;
    let mut held = Vec::<Held>::new();
    loop {
        let enough = rng.count(1..9);
        while held.len() < enough {
            match reader.next(Duration::from_millis(5)).await? {
                Some(delivery) => held.push(delivery),
                None => break,
            }
        }
        let tx = record.tx();
        let is_committed = !rng.is_one_in(8);
        for delivery in &held {
            if rng.is_one_in(2) {
                publish_result(&mut client, publisher, tx, &mut rng).await?;
            }
            client.settle(*delivery, Outcome::Accepted, Some(tx)).await?;
        }
        publish_result(&mut client, publisher, tx, &mut rng).await?;
        if is_committed {
            record.note(Event::Commit { tx });
            client.channel.tx_commit().await?;
            record.note(Event::Committed { tx });
            held.clear();
        } else {
            // The deliveries are unsettled again.
            client.channel.tx_rollback().await?;
            record.note(Event::RolledBack { tx });
        }
        sleep(rng.micros(1..3_000)).await;
    }
}

async fn publish_result(client: &mut Client, publisher: u32, tx: crate::history::TxId, rng: &mut Rng) -> Result<()> {
    let route = match rng.count(0..3) {
        2 => Route::by(queues::BOTH_EXCHANGE, &queues::TX),
        n => Route::to(queues::TX[n]),
    };
    client.publish(publisher, &route, Some(tx), rng).await
}

/// Purges or deletes a queue again and again, and reads a little of it: only on this channel, so
/// that nothing is on its way when the queue is wiped.
async fn wipe(
    connection: Arc<Connection>,
    record: Arc<Record>,
    queue: QueueId,
    wiping: Wiping,
    mut rng: Rng,
) -> Result<()> {
    let mut client = Client::open(&connection, &record).await?;
    loop {
        for _ in 0..rng.count(0..6) {
            let Some(delivery) = client.get(queue).await? else { break };
            if rng.is_one_in(2) {
                client.settle(delivery, Outcome::Accepted, None).await?;
            }
        }
        sleep(rng.micros(5_000..120_000)).await;
        let wipe = record.wipe();
        record.note(Event::Wipe { wipe, queue, wiping });
        let name = queues::name(queue).into();
        match wiping {
            Wiping::Purge => _ = client.channel.queue_purge(name, QueuePurgeOptions::default()).await?,
            Wiping::Delete => _ = client.channel.queue_delete(name, QueueDeleteOptions::default()).await?,
        }
        record.note(Event::Wiped { wipe });
        if wiping == Wiping::Delete {
            client.declare_queue(queue).await?;
        }
    }
}
