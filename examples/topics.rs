//! Routes log lines by topic: each reader names the patterns that it wants.
//!
//! Run with `cargo run --example topics`; `AMQP_URL` names another broker.
#![allow(clippy::print_stdout)]

use std::{env, error::Error, time::Duration};

use futures_lite::StreamExt;
use lapin::{BasicProperties, Connection, ConnectionProperties, ExchangeKind, options::*, types::FieldTable};

const EXCHANGE: &str = "example.topics";
const KEYS: [&str; 5] = ["shop.orders.info", "shop.orders.error", "shop.stock.error", "bank.info", "shop"];
/// Patterns and what they take: `*` is one word, `#` any number of them, none included.
const READERS: [(&[&str], &[&str]); 4] = [
    (&["#"], &KEYS),
    (&["shop.#"], &["shop.orders.info", "shop.orders.error", "shop.stock.error", "shop"]),
    (&["*.*.error"], &["shop.orders.error", "shop.stock.error"]),
    // Two patterns that both match are still one message.
    (&["shop.orders.*", "#.info"], &["shop.orders.info", "shop.orders.error", "bank.info"]),
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2f".into());
    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    tokio::time::timeout(Duration::from_secs(30), run(&connection)).await??;
    connection.close(200, "done".into()).await?;
    Ok(())
}

async fn run(connection: &Connection) -> Result<(), Box<dyn Error>> {
    let channel = connection.create_channel().await?;
    let options = ExchangeDeclareOptions { auto_delete: true, ..Default::default() };
    channel.exchange_declare(EXCHANGE.into(), ExchangeKind::Topic, options, FieldTable::default()).await?;
    let mut readers = Vec::new();
    for (patterns, expected) in READERS {
        let queue = channel.queue_declare("".into(), QueueDeclareOptions::exclusive(), FieldTable::default()).await?;
        for &pattern in patterns {
            channel
                .queue_bind(
                    queue.name().clone(),
                    EXCHANGE.into(),
                    pattern.into(),
                    QueueBindOptions::default(),
                    FieldTable::default(),
                )
                .await?;
        }
        let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
        let consumer = channel.basic_consume(queue.name().clone(), "".into(), options, FieldTable::default()).await?;
        readers.push((patterns, expected, consumer));
    }

    // The last message goes to every reader and says that nothing follows.
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    for key in KEYS {
        publish(&channel, EXCHANGE, key, key).await?;
    }
    for (_, _, consumer) in &readers {
        publish(&channel, "", consumer.queue().as_str(), "end").await?;
    }

    for (patterns, expected, consumer) in &mut readers {
        let mut received = Vec::new();
        loop {
            let delivery = consumer.next().await.ok_or("the consumer was cancelled")??;
            if delivery.data == b"end" {
                break;
            }
            received.push(delivery.routing_key.to_string());
        }
        println!("{patterns:?} took {received:?}");
        assert_eq!(received, *expected);
    }
    channel.close(200, "done".into()).await?;
    Ok(())
}

async fn publish(channel: &lapin::Channel, exchange: &str, key: &str, body: &str) -> Result<(), lapin::Error> {
    let options = BasicPublishOptions::default();
    let confirm = channel
        .basic_publish(exchange.into(), key.into(), options, body.as_bytes(), BasicProperties::default())
        .await?;
    confirm.await?;
    Ok(())
}
