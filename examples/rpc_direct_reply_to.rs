//! Calls a service over queues: the reply comes straight back to the caller's channel, without a
//! reply queue.
//!
//! Run with `cargo run --example rpc_direct_reply_to`; `AMQP_URL` names another broker.
#![allow(clippy::print_stdout)]

use std::{collections::BTreeMap, env, error::Error, time::Duration};

use futures_lite::StreamExt;
use lapin::{BasicProperties, Connection, ConnectionProperties, options::*, types::FieldTable};

const SERVICE: &str = "example.rpc.square";
/// Consuming from this name and naming it as the reply address is all that a caller does.
const REPLY_TO: &str = "amq.rabbitmq.reply-to";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2f".into());
    let service = Connection::connect(&url, ConnectionProperties::default()).await?;
    let caller = Connection::connect(&url, ConnectionProperties::default()).await?;
    tokio::time::timeout(Duration::from_secs(30), async {
        serve(&service).await?;
        call(&caller).await
    })
    .await??;
    caller.close(200, "done".into()).await?;
    service.close(200, "done".into()).await?;
    Ok(())
}

/// Answers each number with its square.
async fn serve(connection: &Connection) -> Result<(), Box<dyn Error>> {
    let channel = connection.create_channel().await?;
    let options = QueueDeclareOptions { auto_delete: true, ..Default::default() };
    channel.queue_declare(SERVICE.into(), options, FieldTable::default()).await?;
    let mut requests =
        channel.basic_consume(SERVICE.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default()).await?;
    tokio::spawn(async move {
        while let Some(Ok(request)) = requests.next().await {
            let number: i64 = String::from_utf8_lossy(&request.data).parse().unwrap_or(0);
            if let (Some(reply_to), Some(id)) = (request.properties.reply_to(), request.properties.correlation_id()) {
                channel
                    .basic_publish(
                        "".into(),
                        reply_to.clone(),
                        BasicPublishOptions::default(),
                        (number * number).to_string().as_bytes(),
                        BasicProperties::default().with_correlation_id(id.clone()),
                    )
                    .await?;
            }
            request.ack(BasicAckOptions::default()).await?;
        }
        Ok::<(), lapin::Error>(())
    });
    Ok(())
}

async fn call(connection: &Connection) -> Result<(), Box<dyn Error>> {
    let channel = connection.create_channel().await?;
    // Before the first request, on the same channel, and without acknowledgements.
    let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
    let mut replies = channel.basic_consume(REPLY_TO.into(), "".into(), options, FieldTable::default()).await?;

    let mut open = BTreeMap::new();
    for number in 1..=10 {
        let id = format!("request-{number}");
        channel
            .basic_publish(
                "".into(),
                SERVICE.into(),
                BasicPublishOptions::default(),
                number.to_string().as_bytes(),
                BasicProperties::default().with_reply_to(REPLY_TO.into()).with_correlation_id(id.as_str().into()),
            )
            .await?;
        open.insert(id, number);
    }
    while !open.is_empty() {
        let reply = replies.next().await.ok_or("the consumer was cancelled")??;
        let id = reply.properties.correlation_id().as_ref().ok_or("a reply without its request's id")?;
        let number: i64 = open.remove(id.as_str()).ok_or("a reply to no open request")?;
        let square: i64 = String::from_utf8_lossy(&reply.data).parse()?;
        assert_eq!(square, number * number);
        println!("{number} squared is {square}");
    }
    channel.close(200, "done".into()).await?;
    Ok(())
}
