//! What a client of the campaign does on one channel, and notes of it.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_lite::StreamExt as _;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, Error, ExchangeKind,
    PublisherConfirm, Result,
    message::Delivery,
    options::*,
    types::{AMQPValue, FieldTable},
};
use tokio::time::timeout;

use crate::{
    body,
    history::{Event, MessageId, Outcome, Place, QueueId, StreamId, Traits, TxId},
    queues,
    record::{Record, now_ms},
    rng::Rng,
};

/// Where a publisher's messages go.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) exchange: &'static str,
    pub(crate) key: &'static str,
    pub(crate) queues: Vec<QueueId>,
    /// Only long messages.
    pub(crate) is_bulk: bool,
}

impl Route {
    /// By the default exchange.
    pub(crate) fn to(queue: QueueId) -> Self {
        Self { exchange: "", key: queues::name(queue), queues: vec![queue], is_bulk: false }
    }

    /// By a fanout exchange.
    pub(crate) fn by(exchange: &'static str, queues: &[QueueId]) -> Self {
        Self { exchange, key: "", queues: queues.to_vec(), is_bulk: false }
    }
}

pub(crate) async fn connect(port: u16) -> Result<Connection> {
    let url = format!("amqp://guest:guest@127.0.0.1:{port}/%2f");
    Connection::connect(&url, ConnectionProperties::default()).await
}

/// A channel that notes what it does.
pub(crate) struct Client {
    pub(crate) channel: Channel,
    pub(crate) record: Arc<Record>,
    window: VecDeque<Sent>,
    /// Settles since the last publish.
    settled: Vec<Place>,
    /// Settles before a publish that was confirmed, since the last publish.
    answered: Vec<Place>,
}

/// A publish whose confirm is awaited.
struct Sent {
    message: MessageId,
    traits: Traits,
    confirm: PublisherConfirm,
    /// What was settled before it: has been seen by the broker when the confirm comes.
    settled: Vec<Place>,
    /// What the broker had seen before it: is in the log before it.
    vouched: Vec<Place>,
}

impl Client {
    pub(crate) async fn open(connection: &Connection, record: &Arc<Record>) -> Result<Self> {
        let channel = connection.create_channel().await?;
        Ok(Self { channel, record: record.clone(), window: VecDeque::new(), settled: Vec::new(), answered: Vec::new() })
    }

    /// With confirms.
    pub(crate) async fn confirming(connection: &Connection, record: &Arc<Record>) -> Result<Self> {
        let client = Self::open(connection, record).await?;
        client.channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(client)
    }

    /// Declares everything that is not there.
    pub(crate) async fn declare(&self) -> Result<()> {
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        for (exchange, _) in queues::EXCHANGES {
            let arguments = FieldTable::default();
            self.channel.exchange_declare((*exchange).into(), ExchangeKind::Fanout, options, arguments).await?;
        }
        for queue in queues::all() {
            self.declare_queue(queue).await?;
        }
        for (exchange, bound) in queues::EXCHANGES {
            for queue in *bound {
                let (name, options) = (queues::name(*queue), QueueBindOptions::default());
                self.channel
                    .queue_bind(name.into(), (*exchange).into(), "".into(), options, FieldTable::default())
                    .await?;
            }
        }
        Ok(())
    }

    pub(crate) async fn declare_queue(&self, queue: QueueId) -> Result<()> {
        // Those of SQS are made over HTTP, with other arguments.
        let passive = queues::is_of_sqs(queue);
        let options = QueueDeclareOptions { durable: true, passive, ..Default::default() };
        self.channel.queue_declare(queues::name(queue).into(), options, queues::arguments(queue)).await?;
        self.record.note(Event::Declared { queue });
        Ok(())
    }

    /// Ready messages of a queue.
    pub(crate) async fn ready(&self, queue: QueueId) -> Result<u32> {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let declared = self.channel.queue_declare(queues::name(queue).into(), options, FieldTable::default()).await?;
        Ok(declared.message_count())
    }

    /// One message; in a transaction nothing is to be awaited.
    pub(crate) async fn publish(
        &mut self,
        publisher: u32,
        route: &Route,
        tx: Option<TxId>,
        rng: &mut Rng,
    ) -> Result<()> {
        let traits = queues::traits(&route.queues, rng);
        // The confirm of a transient message says nothing of the log, nor of what came before it.
        assert!(!traits.is_transient || self.settled.is_empty() && self.answered.is_empty());
        let message = self.record.publish(publisher, &route.queues, traits, tx);
        let filler_bytes = if route.is_bulk { body::BULK_BYTES } else { body::filler_bytes(rng) };
        let content = body::encode(message, filler_bytes);
        let delivery_mode = if traits.is_transient { 1 } else { 2 };
        let properties = BasicProperties::default().with_delivery_mode(delivery_mode).with_priority(traits.priority);
        let options = BasicPublishOptions::default();
        let publish =
            self.channel.basic_publish(route.exchange.into(), route.key.into(), options, &content, properties);
        let confirm = publish.await?;
        if tx.is_none() {
            let (settled, vouched) = (std::mem::take(&mut self.settled), std::mem::take(&mut self.answered));
            self.window.push_back(Sent { message, traits, confirm, settled, vouched });
        }
        Ok(())
    }

    /// Awaits the oldest confirms until so many are left.
    pub(crate) async fn await_confirms(&mut self, left: usize) -> Result<()> {
        while self.window.len() > left {
            let sent = self.window.pop_front().expect("it is not empty");
            match sent.confirm.await? {
                Confirmation::Ack(_) => {
                    self.record.confirm(sent.message, sent.traits);
                    self.record.durable(sent.vouched);
                    self.answered.extend(sent.settled);
                }
                // A nack says nothing of the log.
                _ => self.record.note(Event::Nacked { message: sent.message }),
            }
        }
        Ok(())
    }

    /// Takes note of the confirms that came before the connection went.
    pub(crate) async fn await_rest(&mut self) {
        while !self.window.is_empty() {
            // The others may have had theirs.
            let _ = self.await_confirms(self.window.len() - 1).await;
        }
    }

    pub(crate) async fn consume(&self, queue: QueueId, prefetch: u16, is_sole: bool) -> Result<Reader> {
        self.channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
        let stream = self.record.open(queue, is_sole);
        let (name, options) = (queues::name(queue), BasicConsumeOptions::default());
        let consumer = self.channel.basic_consume(name.into(), "".into(), options, FieldTable::default()).await?;
        Ok(Reader { queue, stream, consumer, record: self.record.clone() })
    }

    /// `None`: the queue is empty.
    pub(crate) async fn get(&self, queue: QueueId) -> Result<Option<Held>> {
        let stream = self.record.open(queue, false);
        let got = self.channel.basic_get(queues::name(queue).into(), BasicGetOptions::default()).await?;
        Ok(got.and_then(|got| note_delivery(&self.record, queue, stream, &got.delivery)))
    }

    /// Settles one delivery.
    pub(crate) async fn settle(&mut self, held: Held, outcome: Outcome, tx: Option<TxId>) -> Result<()> {
        self.note_settle(&held, outcome, tx);
        match outcome {
            Outcome::Accepted => self.channel.basic_ack(held.tag, BasicAckOptions::default()).await,
            Outcome::Rejected => self.channel.basic_reject(held.tag, BasicRejectOptions { requeue: false }).await,
            Outcome::Requeued => {
                let options = BasicNackOptions { requeue: true, ..Default::default() };
                self.channel.basic_nack(held.tag, options).await
            }
        }
    }

    /// Accepts all these in one go. They must be all that the channel has.
    pub(crate) async fn accept_all(&mut self, held: &mut Vec<Held>) -> Result<()> {
        let Some(last) = held.iter().map(|held| held.tag).max() else { return Ok(()) };
        for held in held.drain(..) {
            self.note_settle(&held, Outcome::Accepted, None);
        }
        self.channel.basic_ack(last, BasicAckOptions { multiple: true }).await
    }

    fn note_settle(&mut self, held: &Held, outcome: Outcome, tx: Option<TxId>) {
        self.record.note(Event::Settled { place: held.place, outcome, tx });
        if tx.is_none() && outcome != Outcome::Requeued {
            self.settled.push(held.place);
        }
    }
}

/// A delivery to be settled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) place: Place,
    pub(crate) tag: u64,
}

/// A consumer.
pub(crate) struct Reader {
    queue: QueueId,
    stream: StreamId,
    consumer: Consumer,
    record: Arc<Record>,
}

impl Reader {
    /// `None`: nothing came for so long.
    pub(crate) async fn next(&mut self, patience: Duration) -> Result<Option<Held>> {
        let Ok(next) = timeout(patience, self.consumer.next()).await else { return Ok(None) };
        // Without an error the consumer has been cancelled, which nobody does.
        let delivery = next.unwrap_or_else(|| Err(Error::from(std::io::Error::other("the consumer was cancelled"))))?;
        Ok(note_delivery(&self.record, self.queue, self.stream, &delivery))
    }

    /// Cancels the consumer and returns what still came.
    pub(crate) async fn end(mut self, client: &Client) -> Result<Vec<Held>> {
        client.channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default()).await?;
        let mut held = Vec::new();
        while let Some(delivery) = self.consumer.next().await {
            held.extend(note_delivery(&self.record, self.queue, self.stream, &delivery?));
        }
        Ok(held)
    }
}

/// What cannot be read is noted, and stays unsettled.
fn note_delivery(record: &Record, queue: QueueId, stream: StreamId, delivery: &Delivery) -> Option<Held> {
    let Some(message) = body::decode(&delivery.data) else {
        record.note(Event::Damaged { stream });
        return None;
    };
    let place = Place { queue, message, deaths: deaths(&delivery.properties) };
    record.note(Event::Delivered { stream, place, redelivered: delivery.redelivered, at_ms: now_ms() });
    Some(Held { place, tag: delivery.delivery_tag })
}

/// How often it was dead-lettered: the sum over all queues and reasons.
fn deaths(properties: &BasicProperties) -> u64 {
    let headers = properties.headers().as_ref().map(FieldTable::inner);
    let Some(AMQPValue::FieldArray(deaths)) = headers.and_then(|headers| headers.get("x-death")) else { return 0 };
    let count = |death: &AMQPValue| match death {
        AMQPValue::FieldTable(death) => match death.inner().get("count") {
            Some(AMQPValue::LongLongInt(count)) => u64::try_from(*count).unwrap_or(0),
            _ => 0,
        },
        _ => 0,
    };
    deaths.as_slice().iter().map(count).sum()
}
