//! An application of these tests: lapin on one connection and one channel with confirms, one call at a time.

use std::time::Duration;

use futures_lite::StreamExt as _;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, ExchangeKind,
    message::Delivery,
    options::*,
    types::{AMQPValue, FieldTable},
};
use tokio::{runtime::Runtime, time::timeout};

use crate::broker::{Broker, DEADLINE};

/// A connected application.
pub(crate) struct App {
    runtime: Runtime,
    connection: Connection,
    pub(crate) channel: Channel,
}

/// Arguments of a declaration.
pub(crate) fn table(pairs: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in pairs {
        table.insert((*name).into(), value.clone());
    }
    table
}

/// A value of a declaration's arguments.
pub(crate) fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

/// A durable queue.
pub(crate) const DURABLE: QueueDeclareOptions =
    QueueDeclareOptions { durable: true, passive: false, exclusive: false, auto_delete: false, nowait: false };

/// A message that is to be kept.
pub(crate) fn persistent() -> BasicProperties {
    BasicProperties::default().with_delivery_mode(2)
}

/// A body of 4 KiB with a number in it.
pub(crate) fn body(number: u32) -> Vec<u8> {
    let mut body = vec![number as u8; 4096];
    body[..4].copy_from_slice(&number.to_be_bytes());
    body
}

/// The number in a body, all of which must be there.
pub(crate) fn number(data: &[u8]) -> u32 {
    let number = u32::from_be_bytes(data[..4].try_into().unwrap());
    assert_eq!(data, body(number));
    number
}

impl App {
    pub(crate) fn on(broker: &Broker) -> Self {
        let url = format!("amqp://guest:guest@127.0.0.1:{}/%2f", broker.port);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (connection, channel) = runtime.block_on(async {
            let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
            let channel = connection.create_channel().await.unwrap();
            channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
            (connection, channel)
        });
        Self { runtime, connection, channel }
    }

    /// Carries out what lapin gives, in time.
    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { timeout(DEADLINE, future).await }).expect("it is answered in time")
    }

    /// A further channel, without confirms.
    pub(crate) fn open_channel(&self) -> Channel {
        self.wait(self.connection.create_channel()).unwrap()
    }

    pub(crate) fn declare(&self, name: &str, options: QueueDeclareOptions, arguments: &[(&str, AMQPValue)]) {
        self.wait(self.channel.queue_declare(name.into(), options, table(arguments))).unwrap();
    }

    /// Ready messages of a queue; nothing if there is none.
    pub(crate) fn ready(&self, queue: &str) -> Option<u32> {
        let channel = self.open_channel();
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let declared = self.wait(channel.queue_declare(queue.into(), options, FieldTable::default()));
        declared.ok().map(|queue| queue.message_count())
    }

    pub(crate) fn declare_exchange(&self, name: &str, kind: &str, arguments: &[(&str, AMQPValue)]) {
        let kind = match kind {
            "topic" => ExchangeKind::Topic,
            "fanout" => ExchangeKind::Fanout,
            "direct" => ExchangeKind::Direct,
            other => ExchangeKind::Custom(other.to_owned()),
        };
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        self.wait(self.channel.exchange_declare(name.into(), kind, options, table(arguments))).unwrap();
    }

    pub(crate) fn bind(&self, exchange: &str, key: &str, queue: &str) {
        let options = QueueBindOptions::default();
        let bound = self.channel.queue_bind(queue.into(), exchange.into(), key.into(), options, FieldTable::default());
        self.wait(bound).unwrap();
    }

    /// Publishes, and returns when it is confirmed.
    pub(crate) fn publish_to(&self, exchange: &str, key: &str, body: &[u8], properties: BasicProperties) {
        let confirm = self.wait(async {
            let options = BasicPublishOptions::default();
            let sent = self.channel.basic_publish(exchange.into(), key.into(), options, body, properties).await;
            sent.unwrap().await.unwrap()
        });
        assert_eq!(confirm, Confirmation::Ack(None));
    }

    /// A persistent message for a queue.
    pub(crate) fn publish(&self, queue: &str, body: &[u8]) {
        self.publish_to("", queue, body, persistent());
    }

    /// Persistent messages with these numbers.
    pub(crate) fn publish_numbers(&self, queue: &str, numbers: std::ops::Range<u32>) {
        self.wait(async {
            let mut confirms = Vec::new();
            for number in numbers {
                let (options, body) = (BasicPublishOptions::default(), body(number));
                let sent = self.channel.basic_publish("".into(), queue.into(), options, &body, persistent()).await;
                confirms.push(sent.unwrap());
            }
            for confirm in confirms {
                assert_eq!(confirm.await.unwrap(), Confirmation::Ack(None));
            }
        });
    }

    /// A message, not acknowledged.
    pub(crate) fn get(&self, queue: &str) -> Option<Delivery> {
        let got = self.wait(self.channel.basic_get(queue.into(), BasicGetOptions::default())).unwrap();
        got.map(|message| message.delivery)
    }

    /// A message that must be there, not acknowledged.
    pub(crate) fn expect(&self, queue: &str) -> Delivery {
        self.get(queue).unwrap_or_else(|| panic!("{queue} is empty"))
    }

    /// Every message of a queue, acknowledged.
    pub(crate) fn drain(&self, queue: &str) -> Vec<Delivery> {
        let mut all = Vec::new();
        while let Some(delivery) = self.get(queue) {
            self.ack(&delivery);
            all.push(delivery);
        }
        all
    }

    pub(crate) fn ack(&self, delivery: &Delivery) {
        self.wait(delivery.ack(BasicAckOptions::default())).unwrap();
    }

    /// Has everything that was sent on the channel carried out: answers come in order.
    pub(crate) fn sync(&self) {
        self.wait(self.channel.basic_qos(0, BasicQosOptions::default())).unwrap();
    }

    pub(crate) fn nack(&self, delivery: &Delivery, requeue: bool) {
        self.wait(delivery.nack(BasicNackOptions { requeue, ..Default::default() })).unwrap();
    }

    pub(crate) fn consume(&self, queue: &str, tag: &str) -> Consumer {
        self.consume_with(queue, tag, &[])
    }

    pub(crate) fn consume_with(&self, queue: &str, tag: &str, arguments: &[(&str, AMQPValue)]) -> Consumer {
        let options = BasicConsumeOptions::default();
        self.wait(self.channel.basic_consume(queue.into(), tag.into(), options, table(arguments))).unwrap()
    }

    pub(crate) fn next(&self, consumer: &mut Consumer) -> Delivery {
        self.wait(consumer.next()).expect("the consumer goes on").unwrap()
    }

    /// Goes away without a word; the process may be dead.
    pub(crate) fn forget(self) {
        self.runtime.shutdown_timeout(Duration::from_millis(1));
    }
}

/// A header of a delivery.
pub(crate) fn header(delivery: &Delivery, name: &str) -> Option<AMQPValue> {
    delivery.properties.headers().as_ref().and_then(|headers| headers.inner().get(name).cloned())
}
