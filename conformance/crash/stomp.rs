//! Workloads over STOMP: producers whose receipts are promises, and subscribers, to a queue and durably to
//! a topic, for whom the receipt of an ACK or a COMMIT says that it is in the log.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use lapin::{Error, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    body,
    history::{Event, MessageId, Outcome, Place, QueueId, StreamId, Traits},
    load::SPRINT,
    queues,
    record::{Record, now_ms},
    rng::Rng,
};

/// What a producer's SENDs say, and where that leads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) destination: &'static str,
    pub(crate) queue: QueueId,
    /// What a SUBSCRIBE has besides.
    durable: &'static str,
    /// ActiveMQ's dialect, in which a subscriber has this name, and a NACK brings nothing back.
    client: Option<&'static str>,
}

pub(crate) const WORK: Target =
    Target { destination: "/queue/stomp.work", queue: queues::STOMP_WORK, durable: "", client: None };
pub(crate) const TOPIC: Target = Target {
    destination: "/topic/crash",
    queue: queues::STOMP_TOPIC,
    durable: "durable:true\nauto-delete:false\nx-queue-name:stomp.topic\n",
    client: None,
};
pub(crate) const ACTIVEMQ_TOPIC: Target = Target {
    destination: "/topic/activemq.crash",
    queue: queues::ACTIVEMQ_TOPIC,
    durable: "activemq.subscriptionName:topic\n",
    client: Some("crash"),
};

/// A connection that has logged in.
struct Peer {
    stream: TcpStream,
    input: Vec<u8>,
}

struct Frame {
    head: String,
    body: Vec<u8>,
}

/// A message to be settled.
struct Held {
    place: Place,
    ack: String,
}

impl Frame {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    }
}

fn unexpected(what: impl Into<String>) -> Error {
    Error::from(io::Error::other(what.into()))
}

impl Peer {
    async fn open(port: u16, client: Option<&str>) -> Result<Self> {
        let mut peer = Self { stream: TcpStream::connect(("127.0.0.1", port)).await?, input: Vec::new() };
        peer.stream.set_nodelay(true)?;
        let client = client.map(|client| format!("client-id:{client}\n")).unwrap_or_default();
        peer.say(&format!("CONNECT\naccept-version:1.2\nhost:/\nlogin:guest\npasscode:guest\n{client}")).await?;
        peer.hear().await?;
        Ok(peer)
    }

    async fn say(&mut self, head: &str) -> Result<()> {
        Ok(self.stream.write_all(format!("{head}\n\0").as_bytes()).await?)
    }

    /// The next frame; giving up on it loses nothing.
    async fn hear(&mut self) -> Result<Frame> {
        loop {
            if let Some(frame) = self.take_frame() {
                if frame.head.starts_with("ERROR\n") {
                    return Err(unexpected(format!("{}{}", frame.head, String::from_utf8_lossy(&frame.body))));
                }
                return Ok(frame);
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(unexpected("the connection has ended"));
            }
        }
    }

    fn take_frame(&mut self) -> Option<Frame> {
        let begin = self.input.iter().take_while(|octet| **octet == b'\n').count();
        self.input.drain(..begin);
        let head_len = self.input.windows(2).position(|pair| pair == b"\n\n")? + 2;
        let head = String::from_utf8(self.input[..head_len].to_vec()).expect("heads are text");
        let mut frame = Frame { head, body: Vec::new() };
        let body_len = frame.header("content-length").map_or(0, |length| length.parse().expect("a number"));
        self.input.get(head_len + body_len)?;
        frame.body = self.input[head_len..head_len + body_len].to_vec();
        self.input.drain(..=head_len + body_len);
        Some(frame)
    }

    async fn send(&mut self, destination: &str, more: &str, message: MessageId, rng: &mut Rng) -> Result<()> {
        let content = body::encode(message, body::filler_bytes(rng));
        let length = content.len();
        let head = format!("SEND\ndestination:{destination}\npersistent:true\n{more}content-length:{length}\n\n");
        Ok(self.stream.write_all(&[head.as_bytes(), &content, b"\0"].concat()).await?)
    }
}

/// Sends with a receipt for each message, or for a burst of them: that stands for those before it, too.
pub(crate) async fn produce(
    port: u16,
    record: Arc<Record>,
    publisher: u32,
    target: Target,
    mut rng: Rng,
) -> Result<()> {
    let mut peer = Peer::open(port, None).await?;
    let mut window = VecDeque::<(u64, Vec<MessageId>)>::new();
    let (mut published, mut receipt) = (0, 0);
    loop {
        let burst = rng.count(1..32);
        let is_each = rng.is_one_in(2);
        let mut unasked = Vec::new();
        for n in 1..=burst {
            let message = record.publish(publisher, &[target.queue], Traits::default(), None);
            unasked.push(message);
            let mut more = String::new();
            if is_each || n == burst {
                receipt += 1;
                more = format!("receipt:{receipt}\n");
                window.push_back((receipt, std::mem::take(&mut unasked)));
            }
            peer.send(target.destination, &more, message, &mut rng).await?;
        }
        published += burst;
        let left = rng.count(0..64);
        while window.len() > left {
            let heard = peer.hear().await?;
            let (awaited, messages) = window.pop_front().expect("it is not empty");
            if heard.header("receipt-id") != Some(&awaited.to_string()) {
                return Err(unexpected(format!("{} instead of receipt {awaited}", heard.head)));
            }
            messages.into_iter().for_each(|message| record.confirm(message, Traits::default()));
        }
        sleep(rng.micros(if published < SPRINT { 1..2_000 } else { 10_000..40_000 })).await;
    }
}

/// Reads and settles, goes and comes again. With a publisher, some of it in transactions with a message.
pub(crate) async fn subscribe(
    port: u16,
    record: Arc<Record>,
    target: Target,
    publisher: Option<u32>,
    mut rng: Rng,
) -> Result<()> {
    loop {
        let mut subscriber = Subscriber::start(port, &record, target, rng.count(4..60)).await?;
        let rounds = rng.count(20..200);
        for _ in 0..rounds {
            subscriber.gather(&mut rng).await?;
            match publisher {
                Some(publisher) if rng.is_one_in(3) => subscriber.transact(publisher, &mut rng).await?,
                _ => subscriber.settle(&mut rng).await?,
            }
        }
        subscriber.leave(&mut rng).await?;
    }
}

/// Makes the durable subscription, so that what is published from now on reaches its queue.
pub(crate) async fn subscribe_durably(port: u16, record: &Arc<Record>, target: Target) -> Result<()> {
    let subscriber = Subscriber::start(port, record, target, 1).await?;
    subscriber.leave(&mut Rng::new(0)).await
}

struct Subscriber {
    peer: Peer,
    record: Arc<Record>,
    stream: StreamId,
    queue: QueueId,
    prefetch: usize,
    /// By NACK.
    requeues: bool,
    held: Vec<Held>,
    /// Transactions until now.
    transactions: u64,
}

impl Subscriber {
    async fn start(port: u16, record: &Arc<Record>, target: Target, prefetch: usize) -> Result<Self> {
        let mut peer = Peer::open(port, target.client).await?;
        let Target { destination, queue, durable, client } = target;
        let stream = record.open(queue, false);
        let limit = if client.is_some() { "activemq.prefetchSize" } else { "prefetch-count" };
        let head = format!(
            "SUBSCRIBE\nid:0\nreceipt:s\ndestination:{destination}\nack:client-individual\n{limit}:{prefetch}\n{durable}"
        );
        peer.say(&head).await?;
        let record = record.clone();
        let (held, requeues) = (Vec::new(), client.is_none());
        let mut subscriber = Self { peer, record, stream, queue, prefetch, requeues, held, transactions: 0 };
        subscriber.await_receipt().await?;
        Ok(subscriber)
    }

    fn take(&mut self, frame: &Frame) {
        let Some(message) = body::decode(&frame.body) else {
            return self.record.note(Event::Damaged { stream: self.stream });
        };
        let place = Place { queue: self.queue, message, deaths: 0 };
        let redelivered = frame.header("redelivered") == Some("true");
        self.record.note(Event::Delivered { stream: self.stream, place, redelivered, at_ms: now_ms() });
        let ack = frame.header("ack").expect("messages say by what they are acknowledged").to_owned();
        self.held.push(Held { place, ack });
    }

    async fn await_receipt(&mut self) -> Result<()> {
        loop {
            let frame = self.peer.hear().await?;
            match frame.header("receipt-id") {
                Some(_) => return Ok(()),
                None => self.take(&frame),
            }
        }
    }

    /// Waits for some messages, but not for long.
    async fn gather(&mut self, rng: &mut Rng) -> Result<()> {
        let enough = 1 + rng.count(0..self.prefetch as u64);
        while self.held.len() < enough {
            let Ok(frame) = timeout(Duration::from_millis(5), self.peer.hear()).await else { break };
            self.take(&frame?);
        }
        Ok(())
    }

    async fn settle(&mut self, rng: &mut Rng) -> Result<()> {
        // Some stay unsettled for long.
        let left = if rng.is_one_in(4) { rng.count(0..1 + self.held.len() as u64) } else { 0 };
        let mut accepted = Vec::new();
        while self.held.len() > left {
            let held = self.held.swap_remove(rng.count(0..self.held.len() as u64));
            let outcome = if self.requeues && rng.is_one_in(20) { Outcome::Requeued } else { Outcome::Accepted };
            self.record.note(Event::Settled { place: held.place, outcome, tx: None });
            match outcome {
                Outcome::Accepted => {
                    accepted.push(held.place);
                    self.peer.say(&format!("ACK\nid:{}\nreceipt:a\n", held.ack)).await?;
                }
                _ => self.peer.say(&format!("NACK\nid:{}\n", held.ack)).await?,
            }
        }
        for place in accepted {
            self.await_receipt().await?;
            self.record.durable([place]);
        }
        Ok(())
    }

    /// Takes what it holds and puts a message elsewhere, both or neither.
    async fn transact(&mut self, publisher: u32, rng: &mut Rng) -> Result<()> {
        let tx = self.record.tx();
        self.transactions += 1;
        let transaction = format!("transaction:{}\n", self.transactions);
        self.peer.say(&format!("BEGIN\n{transaction}")).await?;
        for held in &self.held {
            self.record.note(Event::Settled { place: held.place, outcome: Outcome::Accepted, tx: Some(tx) });
            self.peer.say(&format!("ACK\nid:{}\n{transaction}", held.ack)).await?;
        }
        let message = self.record.publish(publisher, &[queues::TX[0]], Traits::default(), Some(tx));
        self.peer.send("/amq/queue/tx.0", &transaction, message, rng).await?;
        if rng.is_one_in(8) {
            // The deliveries are unsettled again.
            self.peer.say(&format!("ABORT\n{transaction}receipt:t\n")).await?;
            self.await_receipt().await?;
            self.record.note(Event::RolledBack { tx });
            return Ok(());
        }
        self.record.note(Event::Commit { tx });
        self.peer.say(&format!("COMMIT\n{transaction}receipt:t\n")).await?;
        self.held.clear();
        self.await_receipt().await?;
        self.record.note(Event::Committed { tx });
        Ok(())
    }

    /// Goes with or without a word; what it holds goes back.
    async fn leave(mut self, rng: &mut Rng) -> Result<()> {
        if rng.is_one_in(2) {
            self.peer.say("UNSUBSCRIBE\nid:0\nreceipt:u\n").await?;
            self.await_receipt().await?;
        }
        for held in &self.held {
            self.record.note(Event::Settled { place: held.place, outcome: Outcome::Requeued, tx: None });
        }
        if rng.is_one_in(2) {
            self.peer.say("DISCONNECT\nreceipt:d\n").await?;
        }
        Ok(())
    }
}
