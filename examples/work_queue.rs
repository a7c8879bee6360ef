//! Shares tasks among two workers: each gets a new one when it has finished the last, and a task
//! whose worker gives up is done by another.
//!
//! Run with `cargo run --example work_queue`; `AMQP_URL` names another broker.
#![allow(clippy::print_stdout)]

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    error::Error,
    time::Duration,
};

use futures_lite::StreamExt;
use lapin::{BasicProperties, Connection, ConnectionProperties, options::*, types::FieldTable};
use tokio::{sync::mpsc, task::JoinHandle};

const QUEUE: &str = "example.work-queue";
const TASKS: usize = 20;
const PERSISTENT: u8 = 2;

/// A worker's report: who did which task, and whether it was tried before.
type Report = (&'static str, String, bool);

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
    // What an interrupted run left behind would be counted twice.
    channel.queue_delete(QUEUE.into(), QueueDeleteOptions::default()).await?;
    channel.queue_declare(QUEUE.into(), QueueDeclareOptions::durable(), FieldTable::default()).await?;

    let (reports, mut reported) = mpsc::unbounded_channel();
    let mut workers = Vec::new();
    for name in ["anna", "bert"] {
        workers.push(start_worker(connection, name, reports.clone()).await?);
    }
    for number in 0..TASKS {
        channel
            .basic_publish(
                "".into(),
                QUEUE.into(),
                BasicPublishOptions::default(),
                format!("task {number}").as_bytes(),
                BasicProperties::default().with_delivery_mode(PERSISTENT),
            )
            .await?;
    }

    let mut tasks = BTreeSet::new();
    let mut done_by = BTreeMap::new();
    let mut retried = 0;
    while tasks.len() < TASKS {
        let (worker, task, redelivered) = reported.recv().await.ok_or("the workers are gone")?;
        assert!(tasks.insert(task), "no task is done twice");
        *done_by.entry(worker).or_insert(0) += 1;
        retried += usize::from(redelivered);
    }
    println!("{TASKS} tasks done by {done_by:?}, {retried} at the second attempt");
    assert_eq!(done_by.len(), 2, "both workers have worked");
    assert_eq!(retried, 1, "one task was given up once");
    // Without its queue a worker's consumer is cancelled, and the worker stops.
    channel.queue_delete(QUEUE.into(), QueueDeleteOptions::default()).await?;
    for worker in workers {
        worker.await??;
    }
    channel.close(200, "done".into()).await?;
    Ok(())
}

async fn start_worker(
    connection: &Connection,
    name: &'static str,
    reports: mpsc::UnboundedSender<Report>,
) -> Result<JoinHandle<Result<(), lapin::Error>>, lapin::Error> {
    let channel = connection.create_channel().await?;
    // One task at a time: the next goes to whoever is free.
    channel.basic_qos(1, BasicQosOptions::default()).await?;
    let mut consumer =
        channel.basic_consume(QUEUE.into(), name.into(), BasicConsumeOptions::default(), FieldTable::default()).await?;
    Ok(tokio::spawn(async move {
        while let Some(Ok(delivery)) = consumer.next().await {
            let task = String::from_utf8_lossy(&delivery.data).into_owned();
            if task == "task 7" && !delivery.redelivered {
                delivery.nack(BasicNackOptions { requeue: true, ..Default::default() }).await?;
                continue;
            }
            // The work, which takes its time.
            tokio::time::sleep(Duration::from_millis(5)).await;
            delivery.ack(BasicAckOptions::default()).await?;
            if reports.send((name, task, delivery.redelivered)).is_err() {
                break;
            }
        }
        channel.close(200, "done".into()).await
    }))
}
