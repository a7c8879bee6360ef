//! The ordinary work of an application, done with lapin against the real binary.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may fail, take its time and say what it saw"
)]

use std::{collections::HashSet, future::Future, time::Duration};

use futures_lite::StreamExt as _;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer,
    message::Delivery,
    options::*,
    types::{AMQPValue, FieldTable},
};

#[allow(dead_code, reason = "shared with the tests of the process, which use more of it")]
#[path = "process/broker.rs"]
mod broker;

use broker::{Broker, DEADLINE};

/// Runs one test against a broker of its own.
fn with_broker<F: Future<Output = ()>>(test: impl FnOnce(String) -> F) {
    let broker = Broker::start();
    let url = format!("amqp://guest:guest@127.0.0.1:{}/%2f", broker.port);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let result = runtime.block_on(async { tokio::time::timeout(DEADLINE, test(url)).await });
    result.expect("the test ends in time");
}

async fn connect(url: &str) -> Connection {
    Connection::connect(url, ConnectionProperties::default()).await.unwrap()
}

async fn declare(channel: &Channel, name: &str) {
    channel.queue_declare(name.into(), QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
}

async fn publish(channel: &Channel, queue: &str, body: &[u8]) -> lapin::PublisherConfirm {
    let options = BasicPublishOptions::default();
    channel.basic_publish("".into(), queue.into(), options, body, BasicProperties::default()).await.unwrap()
}

async fn consume(channel: &Channel, queue: &str) -> Consumer {
    let options = BasicConsumeOptions::default();
    channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await.unwrap()
}

async fn next(consumer: &mut Consumer) -> Delivery {
    consumer.next().await.expect("the consumer goes on").unwrap()
}

/// Ready messages of a queue.
async fn ready(channel: &Channel, queue: &str) -> u32 {
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    channel.queue_declare(queue.into(), options, FieldTable::default()).await.unwrap().message_count()
}

#[test]
fn every_publish_is_confirmed_and_arrives_in_order() {
    with_broker(|url| async move {
        let connection = connect(&url).await;
        let channel = connection.create_channel().await.unwrap();
        declare(&channel, "q").await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let mut confirms = Vec::new();
        for n in 0..2000_u32 {
            confirms.push(publish(&channel, "q", &n.to_be_bytes()).await);
        }
        for confirm in confirms {
            assert_eq!(confirm.await.unwrap(), Confirmation::Ack(None));
        }
        let mut consumer = consume(&channel, "q").await;
        for n in 0..2000_u32 {
            let delivery = next(&mut consumer).await;
            assert_eq!(delivery.data, n.to_be_bytes());
            delivery.ack(BasicAckOptions::default()).await.unwrap();
        }
        assert_eq!(ready(&channel, "q").await, 0);
        connection.close(200, "done".into()).await.unwrap();
    });
}

#[test]
fn prefetch_holds_back_what_is_not_acked() {
    with_broker(|url| async move {
        let connection = connect(&url).await;
        let channel = connection.create_channel().await.unwrap();
        declare(&channel, "q").await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        for n in 0..20_u8 {
            publish(&channel, "q", &[n]).await.await.unwrap();
        }
        channel.basic_qos(3, BasicQosOptions::default()).await.unwrap();
        let mut consumer = consume(&channel, "q").await;
        for n in 0..20_u8 {
            // With `n` acked, three are out.
            assert_eq!(ready(&channel, "q").await, 20 - (u32::from(n) + 3).min(20));
            let delivery = next(&mut consumer).await;
            assert_eq!(delivery.data, [n]);
            delivery.ack(BasicAckOptions::default()).await.unwrap();
        }
    });
}

#[test]
fn nacked_message_comes_again_and_says_so() {
    with_broker(|url| async move {
        let connection = connect(&url).await;
        let channel = connection.create_channel().await.unwrap();
        declare(&channel, "q").await;
        for body in [b"a", b"b"] {
            publish(&channel, "q", body).await.await.unwrap();
        }
        channel.basic_qos(1, BasicQosOptions::default()).await.unwrap();
        let mut consumer = consume(&channel, "q").await;
        let first = next(&mut consumer).await;
        assert_eq!((&first.data[..], first.redelivered), (&b"a"[..], false));
        first.nack(BasicNackOptions { requeue: true, ..Default::default() }).await.unwrap();
        let again = next(&mut consumer).await;
        assert_eq!((&again.data[..], again.redelivered), (&b"a"[..], true));
        again.reject(BasicRejectOptions { requeue: false }).await.unwrap();
        let second = next(&mut consumer).await;
        assert_eq!((&second.data[..], second.redelivered), (&b"b"[..], false));
        second.ack(BasicAckOptions::default()).await.unwrap();
        assert_eq!(ready(&channel, "q").await, 0);
    });
}

#[test]
fn mandatory_message_without_a_queue_comes_back() {
    with_broker(|url| async move {
        let connection = connect(&url).await;
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let properties = BasicProperties::default().with_message_id("m-1".into());
        let confirm =
            channel.basic_publish("amq.direct".into(), "nowhere".into(), options, b"lost", properties).await.unwrap();
        let Confirmation::Ack(Some(returned)) = confirm.await.unwrap() else {
            panic!("expected a return, then an ack")
        };
        assert_eq!((returned.reply_code, returned.reply_text.as_str()), (312, "NO_ROUTE"));
        assert_eq!(returned.delivery.data, b"lost");
        assert_eq!(returned.delivery.properties.message_id().as_ref().map(|id| id.as_str()), Some("m-1"));
    });
}

#[test]
fn exclusive_queue_is_locked_for_others_and_goes_with_its_connection() {
    with_broker(|url| async move {
        let (owner, other) = (connect(&url).await, connect(&url).await);
        let channel = owner.create_channel().await.unwrap();
        let exclusive = QueueDeclareOptions::exclusive();
        channel.queue_declare("mine".into(), exclusive, FieldTable::default()).await.unwrap();
        let stranger = other.create_channel().await.unwrap();
        let options = BasicConsumeOptions::default();
        let error = stranger.basic_consume("mine".into(), "".into(), options, FieldTable::default()).await.unwrap_err();
        assert!(error.to_string().contains("RESOURCE_LOCKED"), "{error}");
        owner.close(200, "done".into()).await.unwrap();
        let channel = other.create_channel().await.unwrap();
        let passive = QueueDeclareOptions { passive: true, ..Default::default() };
        let error = channel.queue_declare("mine".into(), passive, FieldTable::default()).await.unwrap_err();
        assert!(error.to_string().contains("NOT_FOUND"), "{error}");
    });
}

#[test]
fn application_that_reconnects_declares_its_topology_again_and_goes_on() {
    async fn topology(connection: &Connection) -> Channel {
        let channel = connection.create_channel().await.unwrap();
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let kind = lapin::ExchangeKind::Topic;
        channel.exchange_declare("events".into(), kind, durable, FieldTable::default()).await.unwrap();
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), AMQPValue::LongInt(100));
        let durable = QueueDeclareOptions { durable: true, ..Default::default() };
        channel.queue_declare("orders".into(), durable, arguments).await.unwrap();
        let options = QueueBindOptions::default();
        channel
            .queue_bind("orders".into(), "events".into(), "order.#".into(), options, FieldTable::default())
            .await
            .unwrap();
        channel
    }
    with_broker(|url| async move {
        let connection = connect(&url).await;
        let channel = topology(&connection).await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        for key in ["order.new", "order.paid.eu", "payment.new"] {
            let options = BasicPublishOptions::default();
            let confirm = channel
                .basic_publish("events".into(), key.into(), options, key.as_bytes(), BasicProperties::default())
                .await
                .unwrap();
            confirm.await.unwrap();
        }
        let mut consumer = consume(&channel, "orders").await;
        let unsettled = next(&mut consumer).await;
        assert_eq!(unsettled.data, b"order.new");
        // The connection ends while a delivery is unsettled.
        connection.close(200, "going away".into()).await.unwrap();

        let connection = connect(&url).await;
        let channel = topology(&connection).await;
        let mut consumer = consume(&channel, "orders").await;
        for key in ["order.new", "order.paid.eu"] {
            let delivery = next(&mut consumer).await;
            assert_eq!(delivery.data, key.as_bytes());
            delivery.ack(BasicAckOptions::default()).await.unwrap();
        }
        assert_eq!(ready(&channel, "orders").await, 0);
    });
}

#[test]
fn fifty_channels_work_at_once() {
    const CHANNELS: u32 = 50;
    const MESSAGES: u32 = 100;
    with_broker(|url| async move {
        let connection = connect(&url).await;
        let mut tasks = Vec::new();
        for number in 0..CHANNELS {
            let channel = connection.create_channel().await.unwrap();
            tasks.push(tokio::spawn(async move {
                let own = format!("q.{number}");
                declare(&channel, &own).await;
                declare(&channel, "all").await;
                channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
                let mut consumer = consume(&channel, &own).await;
                for n in 0..MESSAGES {
                    publish(&channel, &own, &n.to_be_bytes()).await.await.unwrap();
                    publish(&channel, "all", &(number * MESSAGES + n).to_be_bytes()).await.await.unwrap();
                    let delivery = next(&mut consumer).await;
                    assert_eq!(delivery.data, n.to_be_bytes());
                    delivery.ack(BasicAckOptions::default()).await.unwrap();
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        let channel = connection.create_channel().await.unwrap();
        let mut consumer = consume(&channel, "all").await;
        let mut seen = HashSet::new();
        while seen.len() < (CHANNELS * MESSAGES) as usize {
            let delivery = next(&mut consumer).await;
            assert!(seen.insert(delivery.data.clone()), "each message comes once");
            delivery.ack(BasicAckOptions::default()).await.unwrap();
        }
        assert_eq!(ready(&channel, "all").await, 0);
    });
}

#[test]
fn large_bodies_come_back_as_they_went() {
    with_broker(|url| async move {
        let connection = connect(&url).await;
        let channel = connection.create_channel().await.unwrap();
        declare(&channel, "q").await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let mut consumer = consume(&channel, "q").await;
        // One frame, its edges, and many frames.
        for size in [0, 1, 131_064, 131_065, 5 << 20] {
            let body: Vec<u8> = (0..size).map(|at: usize| (at % 251) as u8).collect();
            publish(&channel, "q", &body).await.await.unwrap();
            let delivery = next(&mut consumer).await;
            assert!(delivery.data == body, "{size} bytes went, {} came", delivery.data.len());
            delivery.ack(BasicAckOptions::default()).await.unwrap();
        }
        // Nothing is left over for a moment afterwards.
        let more = tokio::time::timeout(Duration::from_millis(1), consumer.next()).await;
        assert!(more.is_err());
    });
}
