//! Workloads of SQS and SNS over HTTP: senders whose answers are promises, to a standard queue, a FIFO queue and a topic,
//! and receivers to whom an answer says until when nobody else has a message, or that it is gone.

use std::sync::Arc;

use lapin::{Connection, Result};
use serde_json::{Value, json};
use tokio::time::{Duration, sleep};

use crate::{
    body,
    client::{Client, Held as Delivery, Route},
    history::{Event, MessageId, Outcome, Place, QueueId, StreamId, Traits},
    http::Http,
    load::SPRINT,
    queues,
    record::{Record, now_ms},
    rng::Rng,
};

/// What the clients of a cycle hand on to those after the next crash.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// Of each sender to the FIFO queue what it has sent last, where that was not answered.
    unanswered: Vec<Vec<Sent>>,
    /// Received for long.
    held: Vec<Held>,
}

/// A message as it was sent.
#[derive(Clone, Debug)]
struct Sent {
    message: MessageId,
    body: String,
}

/// A message that was received.
#[derive(Clone, Debug)]
struct Held {
    place: Place,
    receipt: String,
    /// Nobody else has it until then.
    until_ms: u64,
}

/// For how long messages are received at first. The least that is not nothing, so that kills fall into it, and what is
/// received unanswered comes back soon.
const LEASE_SECS: u64 = 1;
/// For how long some are kept: longer than a cycle takes.
const LONG_LEASE_SECS: u64 = 600;
/// How long messages of one sender are withheld.
const DELAY_SECS: u64 = 1;
/// Messages of a queue that are kept for long.
const HELD_MAX: usize = 12;

/// Senders to the FIFO queue, and the groups of each, which are publishers by themselves.
pub(crate) const GROUP_SENDERS: u32 = 3;
const GROUPS_OF_A_SENDER: u32 = 8;
/// The first group.
const GROUP_0: u32 = 80;

const TOPIC: &str = "crash";
const TOPIC_ARN: &str = "arn:aws:sns:us-east-1:000000000000:crash";
/// Bytes of messages that share a request, or go to a topic, which takes no long ones.
const SHORT_BYTES_MAX: u64 = 3_000;

/// Makes the queues, the topic and the subscriptions, or finds them made.
pub(crate) async fn set_up(port: u16) -> Result<()> {
    let mut http = Http::open(port).await?;
    for queue in queues::SQS {
        let attributes = if queue == queues::SQS_GROUPS { json!({ "FifoQueue": "true" }) } else { json!({}) };
        let input = json!({ "QueueName": queues::name(queue), "Attributes": attributes });
        http.sqs("CreateQueue", &input).await??;
    }
    http.sns("CreateTopic", &[("Name", TOPIC)]).await?;
    for queue in queues::SNS {
        let arn = format!("arn:aws:sqs:us-east-1:000000000000:{}", queues::name(queue));
        let is_raw = if queue == queues::SNS_RAW { "true" } else { "false" };
        let attribute = [("Attributes.entry.1.key", "RawMessageDelivery"), ("Attributes.entry.1.value", is_raw)];
        let target = [("TopicArn", TOPIC_ARN), ("Protocol", "sqs"), ("Endpoint", arn.as_str())];
        http.sns("Subscribe", &[target.as_slice(), &attribute].concat()).await?;
    }
    Ok(())
}

fn url(queue: QueueId) -> String {
    format!("http://127.0.0.1/000000000000/{}", queues::name(queue))
}

/// Which standard sender this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Single,
    Batch,
    /// One at a time, and withheld for a while.
    Withheld,
}

/// Sends to the standard queue.
pub(crate) async fn send(port: u16, record: Arc<Record>, publisher: u32, way: Way, mut rng: Rng) -> Result<()> {
    let mut http = Http::open(port).await?;
    let queue = queues::SQS_WORK;
    let mut count = 0;
    loop {
        let number = if way == Way::Batch { rng.count(1..11) } else { 1 };
        // Until then nobody may have it; the broker counts from later.
        let due_ms = if way == Way::Withheld { now_ms() + DELAY_SECS * 1_000 } else { 0 };
        let traits = Traits { due_ms, ..Traits::default() };
        let mut sent = Vec::new();
        for _ in 0..number {
            let message = record.publish(publisher, &[queue], traits, None);
            let bytes = if number > 1 { rng.count(0..SHORT_BYTES_MAX) } else { body::filler_bytes(&mut rng) };
            sent.push(Sent { message, body: body::encode_text(message, bytes) });
        }
        if way == Way::Batch {
            let entry = |(n, one): (usize, &Sent)| json!({ "Id": n.to_string(), "MessageBody": one.body });
            let entries: Vec<Value> = sent.iter().enumerate().map(entry).collect();
            let answer = http.sqs("SendMessageBatch", &json!({ "QueueUrl": url(queue), "Entries": entries })).await??;
            check_batch(&answer, sent.len())?;
        } else {
            let delay = if way == Way::Withheld { json!(DELAY_SECS) } else { Value::Null };
            let input = json!({ "QueueUrl": url(queue), "MessageBody": sent[0].body, "DelaySeconds": delay });
            http.sqs("SendMessage", &input).await??;
        }
        sent.iter().for_each(|one| record.confirm(one.message, traits));
        count += number;
        // What is withheld is waited for when the queues are emptied.
        let is_sprint = count < SPRINT && way != Way::Withheld;
        sleep(rng.micros(if is_sprint { 1..4_000 } else { 10_000..40_000 })).await;
    }
}

/// Sends to groups of the FIFO queue; first again what was not answered before the crash. Of each message there
/// is one all the same.
pub(crate) async fn send_to_groups(port: u16, record: Arc<Record>, sender: u32, mut rng: Rng) -> Result<()> {
    let mut http = Http::open(port).await?;
    send_unanswered(&mut http, &record, sender).await?;
    let mut answered = Vec::<Sent>::new();
    let mut count = 0;
    loop {
        // What was answered is known by its name, too.
        if !answered.is_empty() && rng.is_one_in(10) {
            let again = answered.swap_remove(rng.count(0..answered.len() as u64));
            send_named(&mut http, &[again]).await?;
        }
        let number = if rng.is_one_in(2) { 1 } else { rng.count(2..11) };
        let mut sent = Vec::new();
        for _ in 0..number {
            let group = GROUP_0 + sender * GROUPS_OF_A_SENDER + rng.count(0..GROUPS_OF_A_SENDER.into()) as u32;
            let message = record.publish(group, &[queues::SQS_GROUPS], Traits::default(), None);
            let body = body::encode_text(message, rng.count(0..SHORT_BYTES_MAX));
            sent.push(Sent { message, body });
        }
        record.sqs(|left| left.unanswered_of(sender).clone_from(&sent));
        send_named(&mut http, &sent).await?;
        record.sqs(|left| left.unanswered_of(sender).clear());
        sent.iter().for_each(|one| record.confirm(one.message, Traits::default()));
        count += number;
        answered.extend(sent);
        sleep(rng.micros(if count < SPRINT / 2 { 1..4_000 } else { 10_000..40_000 })).await;
    }
}

/// Sends again what was not answered.
pub(crate) async fn send_unanswered(http: &mut Http, record: &Record, sender: u32) -> Result<()> {
    let unanswered = record.sqs(|left| left.unanswered_of(sender).clone());
    if !unanswered.is_empty() {
        send_named(http, &unanswered).await?;
        record.sqs(|left| left.unanswered_of(sender).clear());
        unanswered.iter().for_each(|one| record.confirm(one.message, Traits::default()));
    }
    Ok(())
}

async fn send_named(http: &mut Http, sent: &[Sent]) -> Result<()> {
    let of = |one: &Sent| {
        let MessageId { cycle, publisher, seq } = one.message;
        json!({
            "MessageBody": one.body,
            "MessageGroupId": publisher.to_string(),
            "MessageDeduplicationId": format!("{cycle}-{publisher}-{seq}"),
        })
    };
    let url = json!(url(queues::SQS_GROUPS));
    if let [one] = sent {
        let mut input = of(one);
        input["QueueUrl"] = url;
        http.sqs("SendMessage", &input).await??;
        return Ok(());
    }
    let entry = |(n, one): (usize, &Sent)| {
        let mut entry = of(one);
        entry["Id"] = json!(n.to_string());
        entry
    };
    let entries: Vec<Value> = sent.iter().enumerate().map(entry).collect();
    let answer = http.sqs("SendMessageBatch", &json!({ "QueueUrl": url, "Entries": entries })).await??;
    check_batch(&answer, sent.len())
}

/// An answered batch is whole.
fn check_batch(answer: &Value, count: usize) -> Result<()> {
    match answer["Successful"].as_array().map(Vec::len) {
        Some(done) if done == count => Ok(()),
        _ => Err(std::io::Error::other(format!("not all of {count} were done: {answer}")).into()),
    }
}

/// Publishes to the topic, from where each message goes to both queues.
pub(crate) async fn publish(port: u16, record: Arc<Record>, publisher: u32, mut rng: Rng) -> Result<()> {
    let mut http = Http::open(port).await?;
    let mut count = 0;
    loop {
        let number = if rng.is_one_in(2) { 1 } else { rng.count(2..11) };
        let mut sent = Vec::new();
        for _ in 0..number {
            let message = record.publish(publisher, &queues::SNS, Traits::default(), None);
            sent.push((message, body::encode_text(message, rng.count(0..SHORT_BYTES_MAX))));
        }
        if let [(_, body)] = &sent[..] {
            http.sns("Publish", &[("TopicArn", TOPIC_ARN), ("Message", body)]).await?;
        } else {
            let mut parameters = vec![("TopicArn".to_owned(), TOPIC_ARN.to_owned())];
            for (n, (_, body)) in sent.iter().enumerate() {
                let member = format!("PublishBatchRequestEntries.member.{}", n + 1);
                parameters.push((format!("{member}.Id"), n.to_string()));
                parameters.push((format!("{member}.Message"), body.clone()));
            }
            let parameters: Vec<_> = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let answer = http.sns("PublishBatch", &parameters).await?;
            if answer.matches("<MessageId>").count() != number {
                return Err(std::io::Error::other(format!("not all of {number} were published: {answer}")).into());
            }
        }
        sent.iter().for_each(|(message, _)| record.confirm(*message, Traits::default()));
        count += number;
        sleep(rng.micros(if count < SPRINT / 2 { 1..4_000 } else { 10_000..40_000 })).await;
    }
}

impl Left {
    fn unanswered_of(&mut self, sender: u32) -> &mut Vec<Sent> {
        let at = sender as usize;
        if self.unanswered.len() <= at {
            self.unanswered.resize(at + 1, Vec::new());
        }
        &mut self.unanswered[at]
    }

    fn held_of(&self, queue: QueueId) -> impl Iterator<Item = usize> + '_ {
        (0..self.held.len()).filter(move |at| self.held[*at].place.queue == queue)
    }
}

/// Receives from a queue and deletes, gives back, keeps for long or lets lapse.
pub(crate) async fn receive(port: u16, record: Arc<Record>, queue: QueueId, rng: Rng) -> Result<()> {
    let mut receiver = Receiver { http: Http::open(port).await?, record, queue, rng };
    loop {
        let mut received = receiver.receive().await?;
        while !received.is_empty() {
            let count = 1 + receiver.rng.count(0..received.len() as u64);
            let some: Vec<Held> = received.drain(..count).collect();
            match receiver.rng.within(0..20) {
                // They lapse.
                0 => {}
                1 => receiver.give_back(&some).await?,
                2 => receiver.keep(some).await?,
                _ => receiver.delete(&some).await?,
            }
        }
        let kept = receiver.record.sqs(|left| {
            let of_queue: Vec<usize> = left.held_of(queue).collect();
            let is_over = of_queue.len() > HELD_MAX || !of_queue.is_empty() && receiver.rng.is_one_in(8);
            is_over.then(|| left.held[of_queue[receiver.rng.count(0..of_queue.len() as u64)]].clone())
        });
        if let Some(kept) = kept {
            receiver.delete(std::slice::from_ref(&kept)).await?;
            // Not before: it may be there for long, if the crash comes first.
            receiver.record.sqs(|left| left.held.retain(|held| held.receipt != kept.receipt));
        }
        sleep(receiver.rng.micros(1..10_000)).await;
    }
}

struct Receiver {
    http: Http,
    record: Arc<Record>,
    queue: QueueId,
    rng: Rng,
}

impl Receiver {
    async fn receive(&mut self) -> Result<Vec<Held>> {
        let stream = self.record.open(self.queue, false);
        let until_ms = now_ms() + LEASE_SECS * 1_000;
        let input = json!({
            "QueueUrl": url(self.queue),
            "MaxNumberOfMessages": self.rng.within(1..11),
            "VisibilityTimeout": LEASE_SECS,
            "WaitTimeSeconds": self.rng.within(0..2),
            "MessageSystemAttributeNames": ["ApproximateReceiveCount"],
        });
        let answer = self.http.sqs("ReceiveMessage", &input).await??;
        let (mut events, mut received) = (Vec::new(), Vec::new());
        for shown in answer["Messages"].as_array().into_iter().flatten() {
            let Some(held) = self.read(shown, stream, until_ms, &mut events) else { continue };
            received.push(held);
        }
        // One after the other nobody else's deliveries come between.
        self.record.note_all(events);
        Ok(received)
    }

    fn read(&self, shown: &Value, stream: StreamId, until_ms: u64, events: &mut Vec<Event>) -> Option<Held> {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let Some(message) = body::decode(text(&shown["Body"]).as_bytes()) else {
            events.push(Event::Damaged { stream });
            return None;
        };
        let place = Place { queue: self.queue, message, deaths: 0 };
        let redelivered = shown["Attributes"]["ApproximateReceiveCount"] != "1";
        events.push(Event::Delivered { stream, place, redelivered, at_ms: now_ms() });
        events.push(Event::Leased { place, until_ms });
        Some(Held { place, receipt: text(&shown["ReceiptHandle"]), until_ms })
    }

    /// One call for each, or one for all. Says of those that were still held when the answer came that it is so; of
    /// others nobody can tell.
    async fn settle(&mut self, operation: &str, held: &[Held], visibility: Option<u64>) -> Result<Vec<Held>> {
        let mut done = Vec::new();
        if held.len() > 1 && self.rng.is_one_in(2) {
            let entry = |(n, one): (usize, &Held)| json!({ "Id": n.to_string(), "ReceiptHandle": one.receipt, "VisibilityTimeout": visibility });
            let entries: Vec<Value> = held.iter().enumerate().map(entry).collect();
            let input = json!({ "QueueUrl": url(self.queue), "Entries": entries });
            let answer = self.http.sqs(&format!("{operation}Batch"), &input).await??;
            if held.iter().all(Held::is_in_force) {
                let whole = check_batch(&answer, held.len());
                if whole.is_ok() {
                    done.extend_from_slice(held);
                }
                self.check(operation, whole)?;
            }
            return Ok(done);
        }
        for one in held {
            let input =
                json!({ "QueueUrl": url(self.queue), "ReceiptHandle": one.receipt, "VisibilityTimeout": visibility });
            let answer = self.http.sqs(operation, &input).await?;
            if one.is_in_force() {
                let is_done = answer.is_ok();
                self.check(operation, answer.map(|_| ()).map_err(Into::into))?;
                done.extend(is_done.then(|| one.clone()));
            }
        }
        Ok(done)
    }

    /// In a standard queue somebody whose time was over may have deleted what another has.
    fn check(&self, operation: &str, done: Result<()>) -> Result<()> {
        let may_be_gone = operation == "ChangeMessageVisibility" && self.queue != queues::SQS_GROUPS;
        if may_be_gone { Ok(()) } else { done }
    }

    async fn delete(&mut self, held: &[Held]) -> Result<()> {
        for one in held {
            self.record.note(Event::Settled { place: one.place, outcome: Outcome::Accepted, tx: None });
        }
        let done = self.settle("DeleteMessage", held, None).await?;
        self.record.durable(done.iter().map(|one| one.place));
        Ok(())
    }

    async fn give_back(&mut self, held: &[Held]) -> Result<()> {
        for one in held {
            self.record.note(Event::Settled { place: one.place, outcome: Outcome::Requeued, tx: None });
        }
        self.settle("ChangeMessageVisibility", held, Some(0)).await?;
        Ok(())
    }

    /// Keeps them, beyond a crash.
    async fn keep(&mut self, held: Vec<Held>) -> Result<()> {
        self.record.sqs(|left| left.held.extend_from_slice(&held));
        let until_ms = now_ms() + LONG_LEASE_SECS * 1_000;
        for one in self.settle("ChangeMessageVisibility", &held, Some(LONG_LEASE_SECS)).await? {
            self.record.note(Event::Leased { place: one.place, until_ms });
            self.record.sqs(|left| {
                let kept = left.held.iter_mut().filter(|kept| kept.receipt == one.receipt);
                kept.for_each(|kept| kept.until_ms = until_ms);
            });
        }
        Ok(())
    }
}

impl Held {
    fn is_in_force(&self) -> bool {
        now_ms() < self.until_ms
    }
}

/// Reads a queue of SQS over AMQP, now and then.
pub(crate) async fn visit(
    connection: Arc<Connection>,
    record: Arc<Record>,
    marker: u32,
    queue: QueueId,
    mut rng: Rng,
) -> Result<()> {
    let mut client = Client::confirming(&connection, &record).await?;
    let mark = Route::to(queues::MARKS);
    loop {
        let count = rng.count(1..6);
        let mut held = Vec::<Delivery>::new();
        if rng.is_one_in(2) {
            while held.len() < count
                && let Some(delivery) = client.get(queue).await?
            {
                held.push(delivery);
            }
        } else {
            let mut reader = client.consume(queue, count as u16, false).await?;
            while held.len() < count
                && let Some(delivery) = reader.next(Duration::from_millis(5)).await?
            {
                held.push(delivery);
            }
            held.extend(reader.end(&client).await?);
        }
        for delivery in held {
            let outcome = if rng.is_one_in(8) { Outcome::Requeued } else { Outcome::Accepted };
            client.settle(delivery, outcome, None).await?;
        }
        client.publish(marker, &mark, None, &mut rng).await?;
        client.await_confirms(rng.count(0..3)).await?;
        sleep(rng.micros(5_000..60_000)).await;
    }
}

/// Before a queue is emptied over AMQP: what was not answered is sent again, what is kept is deleted, and the rest comes
/// back by itself.
pub(crate) async fn give_up(port: u16, record: &Arc<Record>, queue: QueueId) -> Result<()> {
    let mut receiver = Receiver { http: Http::open(port).await?, record: record.clone(), queue, rng: Rng::new(0) };
    if queue == queues::SQS_GROUPS {
        for sender in 0..GROUP_SENDERS {
            send_unanswered(&mut receiver.http, record, sender).await?;
        }
    }
    let held = record.sqs(|left| {
        let (of_queue, others) = std::mem::take(&mut left.held).into_iter().partition(|held| held.place.queue == queue);
        left.held = others;
        Vec::<Held>::clone(&of_queue)
    });
    for one in held {
        receiver.delete(&[one]).await?;
    }
    let names = ["ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed"];
    loop {
        let input = json!({ "QueueUrl": url(queue), "AttributeNames": names });
        let answer = receiver.http.sqs("GetQueueAttributes", &input).await??;
        if names.iter().all(|name| answer["Attributes"][name] == "0") {
            return Ok(());
        }
        sleep(Duration::from_millis(20)).await;
    }
}
