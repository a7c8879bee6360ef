//! Tries a failing task again after a pause, and parks it after its third failure.
//!
//! ```text
//!   work ──reject──▶ wait (300 ms) ──expired──▶ work ...  ──third failure──▶ parked
//! ```
//! Run with `cargo run --example dead_letter_retry`; `AMQP_URL` names another broker.
#![allow(clippy::print_stdout)]

use std::{env, error::Error, time::Duration};

use futures_lite::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::*,
    types::{AMQPValue, FieldTable},
};

const WORK: &str = "example.retry.work";
const WAIT: &str = "example.retry.wait";
const PARKED: &str = "example.retry.parked";
const PAUSE_MS: u32 = 300;
const ATTEMPTS: i64 = 3;

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
    delete_queues(&channel).await?;
    // A rejected task goes to `wait`; there it expires, and goes back to `work`.
    declare(&channel, WORK, dead_letter_to(WAIT)).await?;
    let mut waiting = dead_letter_to(WORK);
    waiting.insert("x-message-ttl".into(), AMQPValue::LongUInt(PAUSE_MS));
    declare(&channel, WAIT, waiting).await?;
    declare(&channel, PARKED, FieldTable::default()).await?;

    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    for task in ["good", "bad"] {
        publish(&channel, WORK, task.as_bytes(), BasicProperties::default()).await?;
    }

    let mut consumer =
        channel.basic_consume(WORK.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default()).await?;
    let mut done = Vec::new();
    let failures = loop {
        let delivery = consumer.next().await.ok_or("the consumer was cancelled")??;
        let task = String::from_utf8_lossy(&delivery.data).into_owned();
        let failures = rejections(&delivery.properties);
        println!("{task}: attempt {}", failures + 1);
        if task == "good" {
            delivery.ack(BasicAckOptions::default()).await?;
            done.push(task);
        } else if failures + 1 < ATTEMPTS {
            delivery.reject(BasicRejectOptions { requeue: false }).await?;
        } else {
            // Parked first and acknowledged afterwards: a crash in between leaves two, never none.
            publish(&channel, PARKED, &delivery.data, delivery.properties.clone()).await?;
            delivery.ack(BasicAckOptions::default()).await?;
            break failures;
        }
    };
    assert_eq!(done, ["good"]);
    assert_eq!(failures, ATTEMPTS - 1);

    let parked =
        channel.basic_get(PARKED.into(), BasicGetOptions { no_ack: true }).await?.ok_or("nothing is parked")?;
    assert_eq!(parked.delivery.data, b"bad");
    println!("parked: bad");
    delete_queues(&channel).await?;
    channel.close(200, "done".into()).await?;
    Ok(())
}

/// How often the work queue rejected this message, as its `x-death` header tells.
fn rejections(properties: &BasicProperties) -> i64 {
    let headers = properties.headers().as_ref();
    let Some(AMQPValue::FieldArray(deaths)) = headers.and_then(|headers| headers.inner().get("x-death")) else {
        return 0;
    };
    let text = |death: &FieldTable, name: &str| match death.inner().get(name) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        _ => String::new(),
    };
    deaths
        .as_slice()
        .iter()
        .filter_map(|death| match death {
            AMQPValue::FieldTable(death) => Some(death),
            _ => None,
        })
        .filter(|death| text(death, "queue") == WORK && text(death, "reason") == "rejected")
        .map(|death| match death.inner().get("count") {
            Some(AMQPValue::LongLongInt(count)) => *count,
            _ => 0,
        })
        .sum()
}

fn dead_letter_to(queue: &str) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("".into()));
    arguments.insert("x-dead-letter-routing-key".into(), AMQPValue::LongString(queue.into()));
    arguments
}

async fn declare(channel: &Channel, queue: &str, arguments: FieldTable) -> Result<(), lapin::Error> {
    channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments).await?;
    Ok(())
}

async fn delete_queues(channel: &Channel) -> Result<(), lapin::Error> {
    for queue in [WORK, WAIT, PARKED] {
        channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await?;
    }
    Ok(())
}

async fn publish(channel: &Channel, queue: &str, body: &[u8], properties: BasicProperties) -> Result<(), lapin::Error> {
    let options = BasicPublishOptions::default();
    channel.basic_publish("".into(), queue.into(), options, body, properties).await?.await?;
    Ok(())
}
