//! Publishes messages whose arrival the broker confirms, and learns of one that has nowhere to go.
//!
//! Run with `cargo run --example publish_with_confirms`; `AMQP_URL` names another broker.
#![allow(clippy::print_stdout)]

use std::{env, error::Error, time::Duration};

use futures_lite::StreamExt;
use lapin::{BasicProperties, Confirmation, Connection, ConnectionProperties, options::*, types::FieldTable};

const MESSAGES: u32 = 1000;
const PERSISTENT: u8 = 2;

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
    let queue = channel.queue_declare("".into(), QueueDeclareOptions::exclusive(), FieldTable::default()).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;

    // Publish everything first and collect the confirms afterwards: waiting for each confirm
    // before the next publish would cost a round trip a message.
    let mut confirms = Vec::new();
    for number in 0..MESSAGES {
        let confirm = channel
            .basic_publish(
                "".into(),
                queue.name().clone(),
                BasicPublishOptions::default(),
                format!("message {number}").as_bytes(),
                BasicProperties::default().with_delivery_mode(PERSISTENT),
            )
            .await?;
        confirms.push(confirm);
    }
    for confirm in confirms {
        assert_eq!(confirm.await?, Confirmation::Ack(None));
    }
    println!("{MESSAGES} messages are confirmed");

    // A mandatory message that no queue takes comes back; its confirm says so too.
    let lost = channel
        .basic_publish(
            "".into(),
            "example.no-such-queue".into(),
            BasicPublishOptions { mandatory: true, ..Default::default() },
            b"nobody reads this",
            BasicProperties::default(),
        )
        .await?
        .await?;
    let returned = lost.take_message().ok_or("the unroutable message was not returned")?;
    assert_eq!((returned.reply_code, returned.reply_text.as_str()), (312, "NO_ROUTE"));
    println!("one message came back: {}", returned.reply_text);

    let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
    let mut consumer = channel.basic_consume(queue.name().clone(), "".into(), options, FieldTable::default()).await?;
    for number in 0..MESSAGES {
        let delivery = consumer.next().await.ok_or("the consumer was cancelled")??;
        assert_eq!(delivery.data, format!("message {number}").as_bytes());
    }
    println!("{MESSAGES} messages arrived in order");
    channel.close(200, "done".into()).await?;
    Ok(())
}
