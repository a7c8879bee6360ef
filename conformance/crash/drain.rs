//! Empties all queues after the last crash of a cycle, accepting everything.

use std::{sync::Arc, time::Duration};

use lapin::{Connection, Result};
use tokio::task::JoinSet;

use crate::{
    client::{Client, Held, Route, connect},
    history::{Event, Outcome, QueueId},
    node::Ports,
    queues,
    record::Record,
    rng::Rng,
    sqs,
};

/// Publisher of the mark after the first queue's drain; the others follow.
const MARKER_0: u32 = 40;

/// Deliveries that one settle may accept.
const ACCEPTED_MAX: usize = 200;

/// Afterwards every queue was found empty, and that is durable.
pub(crate) async fn drain(ports: Ports, record: &Arc<Record>) -> Result<()> {
    let connection = Arc::new(connect(ports.amqp).await?);
    sqs::set_up(ports.aws).await?;
    Client::open(&connection, record).await?.declare().await?;
    let loops = [vec![queues::RETRY_WAIT, queues::RETRY_WORK]];
    let alone = queues::all().filter(|queue| !loops[0].contains(queue) && *queue != queues::MARKS);
    let mut drains = JoinSet::new();
    for queues in alone.map(|queue| vec![queue]).chain(loops.clone()) {
        drains.spawn(drain_all(connection.clone(), ports.aws, record.clone(), queues));
    }
    while let Some(drained) = drains.join_next().await {
        drained.expect("a drain does not panic")?;
    }
    drain_marks(&connection, record).await
}

/// Queues that messages wander between; done when a whole round found nothing.
async fn drain_all(
    connection: Arc<Connection>,
    aws_port: u16,
    record: Arc<Record>,
    queues: Vec<QueueId>,
) -> Result<()> {
    if queues::is_of_sqs(queues[0]) {
        sqs::give_up(aws_port, &record, queues[0]).await?;
    }
    let mut client = Client::confirming(&connection, &record).await?;
    loop {
        let mut count = 0;
        for queue in &queues {
            count += drain_queue(&mut client, *queue).await?;
        }
        if count == 0 {
            break;
        }
    }
    // The first one's confirm says that the broker has seen the settles, the second one's that they
    // are durable.
    let marker = MARKER_0 + u32::try_from(queues[0].0).expect("there are few queues");
    for _ in 0..2 {
        client.publish(marker, &Route::to(queues::MARKS), None, &mut Rng::new(0)).await?;
        client.await_confirms(0).await?;
    }
    Ok(())
}

/// Returns how many messages it had.
async fn drain_queue(client: &mut Client, queue: QueueId) -> Result<usize> {
    let mut count = 0;
    let mut held = Vec::<Held>::new();
    let mut reader = client.consume(queue, 0, true).await?;
    loop {
        match reader.next(Duration::from_millis(20)).await? {
            Some(delivery) => {
                held.push(delivery);
                count += 1;
            }
            None if client.ready(queue).await? == 0 => break,
            None => {}
        }
        if held.len() >= ACCEPTED_MAX {
            client.accept_all(&mut held).await?;
        }
    }
    let rest = reader.end(client).await?;
    count += rest.len();
    held.extend(rest);
    client.accept_all(&mut held).await?;
    // The count was of a moment; that a get finds nothing is the broker's last word.
    while let Some(delivery) = client.get(queue).await? {
        client.settle(delivery, Outcome::Accepted, None).await?;
        count += 1;
    }
    Ok(count)
}

/// Nothing is published after these: a commit makes their settles durable.
async fn drain_marks(connection: &Connection, record: &Arc<Record>) -> Result<()> {
    let mut client = Client::open(connection, record).await?;
    client.channel.tx_select().await?;
    let tx = record.tx();
    while let Some(delivery) = client.get(queues::MARKS).await? {
        client.settle(delivery, Outcome::Accepted, Some(tx)).await?;
    }
    record.note(Event::Commit { tx });
    client.channel.tx_commit().await?;
    record.note(Event::Committed { tx });
    Ok(())
}
