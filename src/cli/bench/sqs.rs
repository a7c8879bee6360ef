//! `tern bench sqs`: queues over HTTP, as AWS's SDKs use them: send, receive and delete, long polling.
//!
//! Each connection has one request at a time, as a client of an SDK's pool has. A few threads have all of them: the
//! broker shares the machine with this load, and a thread for each would cost it more than the requests. Requests are
//! signed, unless they are not to be.

use std::{
    process::ExitCode,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::{Builder, Runtime},
    task::LocalSet,
};

use super::{
    driver::Timing,
    failure::Failure,
    process::Usage,
    report::{Report, Sample, Series},
};
use crate::aws::sigv4::{self, SigningKeys};

/// SQS over HTTP: requests of many keep-alive connections.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Sqs {
    /// The address of the service
    #[arg(long, default_value = "http://127.0.0.1:9324")]
    url: String,
    /// The broker's process, for CPU seconds and memory from /proc
    #[arg(long)]
    pid: Option<u32>,
    /// Print JSON rather than a table
    #[arg(long)]
    json: bool,
    /// How often to measure; the median is reported
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    #[command(flatten)]
    timing: Timing,
    /// What is measured
    #[arg(long, value_enum, default_value_t = Work::Send)]
    work: Work,
    /// Connections
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    connections: u32,
    /// Messages of a request
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10))]
    batch: u32,
    /// Bytes of a body
    #[arg(long, short, default_value_t = 100)]
    size: usize,
    /// A FIFO queue with so many groups
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    groups: Option<u32>,
    /// Messages in the queue before measuring
    #[arg(long, default_value_t = 0)]
    backlog: u64,
    /// Write requests as forms of the Query protocol rather than in JSON
    #[arg(long)]
    query: bool,
    /// Do not sign requests
    #[arg(long)]
    unsigned: bool,
    /// Access key to sign with
    #[arg(long, env = "AWS_ACCESS_KEY_ID", default_value = "test")]
    access_key: String,
    /// Its secret
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", default_value = "test", hide_env_values = true)]
    secret_key: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Work {
    /// Messages are sent
    Send,
    /// Messages are received and deleted, after they were sent
    Receive,
    /// Each connection sends, receives and deletes in turn
    Cycle,
    /// Connections wait for a message, and none comes; then one for each
    Poll,
}

impl Sqs {
    /// As another scenario was asked for with this protocol.
    pub(super) fn beside(timing: Timing) -> Self {
        Self {
            url: "http://127.0.0.1:9324".to_owned(),
            pid: None,
            json: false,
            runs: 3,
            timing,
            work: Work::Cycle,
            connections: 32,
            batch: 1,
            size: 100,
            groups: None,
            backlog: 0,
            query: false,
            unsigned: false,
            access_key: "test".to_owned(),
            secret_key: "test".to_owned(),
        }
    }

    pub(super) fn run(&self) -> ExitCode {
        let mut series = Series::default();
        for _ in 0..self.runs {
            match self.measure() {
                Ok(sample) => series.push(sample),
                Err(failure) => {
                    eprintln!("tern bench: {failure}");
                    return ExitCode::from(2);
                }
            }
        }
        let report = Report {
            scenario: "sqs",
            settings: self.settings(),
            url: self.url.clone(),
            target: series,
            null: Series::default(),
        };
        if self.json {
            println!("{}", report.json());
        } else {
            print!("{}", report.table());
        }
        if report.has_problems() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    fn settings(&self) -> Value {
        json!({
            "work": format!("{:?}", self.work).to_lowercase(), "connections": self.connections, "batch": self.batch,
            "size": self.size, "groups": self.groups, "backlog": self.backlog,
            "wire": if self.query { "query" } else { "json" }, "signed": !self.unsigned,
        })
    }

    fn measure(&self) -> Result<Sample, Failure> {
        let control = Control::connect(self)?;
        let suffix = if self.groups.is_some() { ".fifo" } else { "" };
        let name = format!("tb{}{suffix}", std::process::id());
        let attributes = if self.groups.is_some() { json!({ "FifoQueue": "true" }) } else { json!({}) };
        control.call("CreateQueue", &json!({ "QueueName": name, "Attributes": attributes }))?;
        let queue = format!("{}/000000000000/{name}", self.url.trim_end_matches('/'));
        let sample = self.measure_on(&control, &queue);
        control.call("DeleteQueue", &json!({ "QueueUrl": queue }))?;
        sample
    }

    fn measure_on(&self, control: &Control<'_>, queue: &str) -> Result<Sample, Failure> {
        if self.work == Work::Poll {
            return self.poll(control, queue);
        }
        let shared = Arc::new(Shared::default());
        if self.backlog > 0 {
            let filling = Self { batch: 10, work: Work::Send, ..self.clone() };
            filling.drive(queue, &shared, Some(self.backlog), |_| Ok(()))?;
        }
        if self.work == Work::Receive && self.backlog == 0 {
            return Err(Failure::usage("--work receive needs a --backlog to receive"));
        }
        let mut sample = Sample::default();
        let (warmup, period) = (self.timing.warmup()?, self.timing.period()?);
        self.drive(queue, &shared, None, |shared| {
            thread::sleep(warmup);
            let usage = |of: Option<u32>| of.map(Usage::of).transpose();
            let before =
                (Instant::now(), shared.requests.load(Relaxed), shared.messages.load(Relaxed), usage(self.pid)?);
            shared.is_measuring.store(true, Relaxed);
            thread::sleep(period);
            shared.is_measuring.store(false, Relaxed);
            let secs = before.0.elapsed().as_secs_f64();
            let requests = (shared.requests.load(Relaxed) - before.1) as f64;
            sample.put("requests_per_sec", requests / secs);
            sample.put("msgs_per_sec", (shared.messages.load(Relaxed) - before.2) as f64 / secs);
            if let (Some(before), Some(after)) = (before.3, usage(self.pid)?) {
                sample.put(
                    "cpu_secs_per_10k_requests",
                    (after.cpu_secs - before.cpu_secs) * 10_000.0 / requests.max(1.0),
                );
                sample.put("rss_mib", after.rss_bytes as f64 / f64::from(1 << 20));
            }
            Ok(())
        })?;
        let latencies = std::mem::replace(&mut *shared.latencies.lock(), new_histogram());
        sample.put("p50_ms", latencies.value_at_quantile(0.5) as f64 / 1000.0);
        sample.put("p99_ms", latencies.value_at_quantile(0.99) as f64 / 1000.0);
        let lost = self.count_lost(control, queue, &shared)?;
        sample.problems.extend(lost);
        Ok(sample)
    }

    /// Runs all connections while `measure` watches, or until `limit` messages are sent.
    fn drive(
        &self,
        queue: &str,
        shared: &Arc<Shared>,
        limit: Option<u64>,
        measure: impl FnOnce(&Shared) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        shared.stop.store(false, Relaxed);
        shared.rounds.fetch_add(1, Relaxed);
        let count = if limit.is_some() { self.connections.min(16) } else { self.connections };
        let threads_count = count.min(THREADS_COUNT);
        let barrier = Arc::new(Barrier::new(threads_count as usize + 1));
        let workers: Vec<_> = (0..threads_count)
            .map(|thread| {
                let (options, queue) = (Arc::new(self.clone()), Arc::<str>::from(queue));
                let (shared, barrier) = (shared.clone(), barrier.clone());
                thread::spawn(move || {
                    let indexes = (0..count).filter(|index| index % threads_count == thread);
                    work_all(&options, &queue, &shared, indexes, &barrier, limit)
                })
            })
            .collect();
        barrier.wait();
        let measured = measure(shared);
        if limit.is_none() {
            shared.stop.store(true, Relaxed);
        }
        for worker in workers {
            worker.join().map_err(|_| Failure::protocol("a connection's thread failed"))??;
        }
        measured
    }

    /// What the queue holds has to be what was sent and not received.
    fn count_lost(&self, control: &Control<'_>, queue: &str, shared: &Shared) -> Result<Option<String>, Failure> {
        let names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"];
        let answer = control.call("GetQueueAttributes", &json!({ "QueueUrl": queue, "AttributeNames": ["All"] }))?;
        let held: u64 = names.iter().filter_map(|name| answer["Attributes"][name].as_str()?.parse::<u64>().ok()).sum();
        let expected = shared.sent.load(Relaxed) - shared.deleted.load(Relaxed);
        Ok((held != expected).then(|| format!("the queue holds {held} messages, and {expected} are expected")))
    }

    fn poll(&self, control: &Control<'_>, queue: &str) -> Result<Sample, Failure> {
        let connect = |_| control.runtime.block_on(Client::connect(self));
        let mut waiting = (0..self.connections).map(connect).collect::<Result<Vec<_>, _>>()?;
        let input = json!({ "QueueUrl": queue, "WaitTimeSeconds": 20 });
        let usage = || self.pid.map(Usage::of).transpose();
        let mut sample = Sample::default();
        for client in &mut waiting {
            control.runtime.block_on(client.send(self, "ReceiveMessage", &input))?;
        }
        // All of them wait when this, which came after them, is answered.
        control.call("ListQueues", &json!({}))?;
        thread::sleep(Duration::from_secs(1));
        let (begun, before) = (Instant::now(), usage()?);
        thread::sleep(self.timing.period()?.min(Duration::from_secs(12)));
        if let (Some(before), Some(after)) = (before, usage()?) {
            let share = (after.cpu_secs - before.cpu_secs) / begun.elapsed().as_secs_f64();
            sample.put("idle_cpu_percent", 100.0 * share);
            sample.put("rss_mib", after.rss_bytes as f64 / f64::from(1 << 20));
        }
        let begun = Instant::now();
        for _ in 0..self.connections {
            control.call("SendMessage", &json!({ "QueueUrl": queue, "MessageBody": "x".repeat(self.size) }))?;
        }
        let mut received = 0;
        for client in &mut waiting {
            let answer = control.runtime.block_on(client.receive())?;
            received += usize::from(answer["Messages"].as_array().is_some_and(|all| all.len() == 1));
        }
        sample.put("wake_msgs_per_sec", f64::from(self.connections) / begun.elapsed().as_secs_f64());
        if received != waiting.len() {
            sample.problems.push(format!("{received} of {} receivers got a message", waiting.len()));
        }
        Ok(sample)
    }
}

fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 120_000_000, 3).expect("microseconds up to two minutes, of three digits")
}

struct Shared {
    stop: AtomicBool,
    is_measuring: AtomicBool,
    requests: AtomicU64,
    messages: AtomicU64,
    sent: AtomicU64,
    deleted: AtomicU64,
    /// Loads so far: a message of one does not repeat that of another.
    rounds: AtomicU64,
    latencies: parking_lot::Mutex<Histogram<u64>>,
}

impl Default for Shared {
    fn default() -> Self {
        let number = AtomicU64::default;
        Self {
            stop: AtomicBool::default(),
            is_measuring: AtomicBool::default(),
            requests: number(),
            messages: number(),
            sent: number(),
            deleted: number(),
            rounds: number(),
            latencies: parking_lot::Mutex::new(new_histogram()),
        }
    }
}

/// A connection for what is done besides.
struct Control<'a> {
    options: &'a Sqs,
    runtime: Runtime,
    client: parking_lot::Mutex<Client>,
}

impl<'a> Control<'a> {
    fn connect(options: &'a Sqs) -> Result<Self, Failure> {
        let runtime = runtime()?;
        let client = parking_lot::Mutex::new(runtime.block_on(Client::connect(options))?);
        Ok(Self { options, runtime, client })
    }

    fn call(&self, operation: &str, input: &Value) -> Result<Value, Failure> {
        self.runtime.block_on(self.client.lock().call(self.options, operation, input))
    }
}

fn runtime() -> Result<Runtime, Failure> {
    Builder::new_current_thread().enable_all().build().map_err(Failure::io("starting a runtime"))
}

/// Threads of a load.
const THREADS_COUNT: u32 = 2;

/// Runs the connections of one thread to their end; the first failure ends the load.
fn work_all(
    options: &Arc<Sqs>,
    queue: &Arc<str>,
    shared: &Arc<Shared>,
    indexes: impl Iterator<Item = u32>,
    barrier: &Barrier,
    limit: Option<u64>,
) -> Result<(), Failure> {
    let runtime = runtime()?;
    let connect = |index| Ok((index, runtime.block_on(Client::connect(options))?));
    let clients: Result<Vec<_>, Failure> = indexes.map(connect).collect();
    barrier.wait();
    let local = LocalSet::new();
    let tasks: Vec<_> = clients?
        .into_iter()
        .map(|(index, client)| {
            let (options, queue, shared) = (options.clone(), queue.clone(), shared.clone());
            let worker = Worker { options, queue, shared: shared.clone(), client, index, number: 0 };
            local.spawn_local(async move {
                let worked = worker.work(limit).await;
                if worked.is_err() {
                    shared.stop.store(true, Relaxed);
                }
                worked
            })
        })
        .collect();
    local.block_on(&runtime, async {
        for task in tasks {
            task.await.map_err(|_| Failure::protocol("a connection's task failed"))??;
        }
        Ok(())
    })
}

struct Worker {
    options: Arc<Sqs>,
    queue: Arc<str>,
    shared: Arc<Shared>,
    client: Client,
    index: u32,
    number: u64,
}

impl Worker {
    async fn work(mut self, limit: Option<u64>) -> Result<(), Failure> {
        let mut latencies = new_histogram();
        while !self.shared.stop.load(Relaxed) {
            if limit.is_some_and(|limit| self.shared.sent.load(Relaxed) >= limit) {
                break;
            }
            match self.options.work {
                Work::Send => self.send(&mut latencies).await?,
                Work::Receive => {
                    if self.receive(&mut latencies).await? == 0 {
                        break;
                    }
                }
                Work::Cycle | Work::Poll => {
                    self.send(&mut latencies).await?;
                    self.receive(&mut latencies).await?;
                }
            }
        }
        let mut all = self.shared.latencies.lock();
        all.add(latencies).map_err(|error| Failure::protocol(error.to_string()))
    }

    async fn timed(
        &mut self,
        operation: &str,
        input: &Value,
        latencies: &mut Histogram<u64>,
    ) -> Result<Value, Failure> {
        let begun = Instant::now();
        let answer = self.client.call(&self.options, operation, input).await?;
        if self.shared.is_measuring.load(Relaxed) {
            latencies.saturating_record(begun.elapsed().as_micros() as u64);
        }
        self.shared.requests.fetch_add(1, Relaxed);
        Ok(answer)
    }

    fn entry(&mut self, body: &str) -> Value {
        self.number += 1;
        match self.options.groups {
            None => json!({ "MessageBody": body }),
            Some(groups) => {
                let group =
                    (self.number * u64::from(self.options.connections) + u64::from(self.index)) % u64::from(groups);
                let id = format!("{}-{}-{}", self.shared.rounds.load(Relaxed), self.index, self.number);
                json!({ "MessageBody": body, "MessageGroupId": format!("g{group}"), "MessageDeduplicationId": id })
            }
        }
    }

    async fn send(&mut self, latencies: &mut Histogram<u64>) -> Result<(), Failure> {
        let body = "x".repeat(self.options.size);
        let count = u64::from(self.options.batch);
        if count == 1 {
            let mut input = self.entry(&body);
            input["QueueUrl"] = (*self.queue).into();
            self.timed("SendMessage", &input, latencies).await?;
        } else {
            let entries: Vec<Value> = (0..count)
                .map(|index| {
                    let mut entry = self.entry(&body);
                    entry["Id"] = index.to_string().into();
                    entry
                })
                .collect();
            let input = json!({ "QueueUrl": &*self.queue, "Entries": entries });
            let answer = self.timed("SendMessageBatch", &input, latencies).await?;
            if answer["Failed"].as_array().is_some_and(|failed| !failed.is_empty()) {
                return Err(Failure::Refused(answer["Failed"].to_string()));
            }
        }
        self.shared.messages.fetch_add(count, Relaxed);
        self.shared.sent.fetch_add(count, Relaxed);
        Ok(())
    }

    /// Receives and deletes; how many messages came.
    async fn receive(&mut self, latencies: &mut Histogram<u64>) -> Result<usize, Failure> {
        let input = json!({ "QueueUrl": &*self.queue, "MaxNumberOfMessages": self.options.batch });
        let answer = self.timed("ReceiveMessage", &input, latencies).await?;
        let handles: Vec<&str> = answer["Messages"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|one| one["ReceiptHandle"].as_str())
            .collect();
        let count = handles.len();
        match handles.as_slice() {
            [] => return Ok(0),
            [one] => {
                let input = json!({ "QueueUrl": &*self.queue, "ReceiptHandle": one });
                self.timed("DeleteMessage", &input, latencies).await?;
            }
            many => {
                let entries: Vec<Value> = many
                    .iter()
                    .enumerate()
                    .map(|(index, handle)| json!({ "Id": index.to_string(), "ReceiptHandle": handle }))
                    .collect();
                let input = json!({ "QueueUrl": &*self.queue, "Entries": entries });
                self.timed("DeleteMessageBatch", &input, latencies).await?;
            }
        }
        self.shared.messages.fetch_add(count as u64, Relaxed);
        self.shared.deleted.fetch_add(count as u64, Relaxed);
        Ok(count)
    }
}

/// How long an answer may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

/// A keep-alive connection with one request at a time.
struct Client {
    stream: TcpStream,
    host: String,
    input: Vec<u8>,
    keys: SigningKeys,
    is_query: bool,
}

impl Client {
    async fn connect(options: &Sqs) -> Result<Self, Failure> {
        let host =
            options.url.strip_prefix("http://").ok_or_else(|| Failure::usage("an address begins with http://"))?;
        let host = host.trim_end_matches('/').to_owned();
        let stream = TcpStream::connect(&host).await.map_err(Failure::io(format!("connecting to {host}")))?;
        stream.set_nodelay(true).map_err(Failure::io("setting up a socket"))?;
        Ok(Self { stream, host, input: Vec::new(), keys: SigningKeys::default(), is_query: options.query })
    }

    async fn call(&mut self, options: &Sqs, operation: &str, input: &Value) -> Result<Value, Failure> {
        self.send(options, operation, input).await?;
        let answer = tokio::time::timeout(ANSWER_TIME_MAX, self.receive()).await;
        answer.map_err(|_| Failure::protocol("no answer in time"))?
    }

    async fn send(&mut self, options: &Sqs, operation: &str, input: &Value) -> Result<(), Failure> {
        let body = if self.is_query { form(operation, input) } else { input.to_string() };
        let target = format!("AmazonSQS.{operation}");
        let mut head = format!("POST / HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n", self.host, body.len());
        let kind = if self.is_query { "application/x-www-form-urlencoded" } else { "application/x-amz-json-1.0" };
        head += &format!("content-type: {kind}\r\n");
        if !self.is_query {
            head += &format!("x-amz-target: {target}\r\n");
        }
        if !options.unsigned {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
            let time = sigv4::basic_time(now);
            let mut headers = vec![("content-type", kind), ("host", self.host.as_str()), ("x-amz-date", &time)];
            if !self.is_query {
                headers.push(("x-amz-target", &target));
            }
            let key = (options.access_key.as_str(), options.secret_key.as_str());
            let route = ("POST", "/", "");
            let signed =
                sigv4::authorization(key, ("us-east-1", "sqs"), now, route, &headers, body.as_bytes(), &self.keys);
            head += &format!("x-amz-date: {time}\r\nauthorization: {signed}\r\n");
        }
        head += "\r\n";
        head += &body;
        self.stream.write_all(head.as_bytes()).await.map_err(Failure::io("writing to the broker"))
    }

    async fn receive(&mut self) -> Result<Value, Failure> {
        let head = loop {
            if let Some(at) = memchr::memmem::find(&self.input, b"\r\n\r\n") {
                break at + 4;
            }
            self.read().await?;
        };
        let text = String::from_utf8_lossy(&self.input[..head]).into_owned();
        let status: u16 = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let length = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok()).flatten()
        });
        let end = head + length.unwrap_or(0);
        while self.input.len() < end {
            self.read().await?;
        }
        let body = self.input[head..end].to_vec();
        self.input.drain(..end);
        if status != 200 {
            return Err(Failure::Refused(format!("{status}: {}", String::from_utf8_lossy(&body))));
        }
        if self.is_query {
            return Ok(of_xml(&String::from_utf8_lossy(&body)));
        }
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).map_err(|error| Failure::protocol(error.to_string()))
    }

    async fn read(&mut self) -> Result<(), Failure> {
        let mut piece = [0; 16 << 10];
        match self.stream.read(&mut piece).await.map_err(Failure::io("reading from the broker"))? {
            0 => Err(Failure::protocol("the broker closed the connection")),
            read => {
                self.input.extend_from_slice(&piece[..read]);
                Ok(())
            }
        }
    }
}

/// An input as a form, of the few shapes that are needed here.
fn form(operation: &str, input: &Value) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("Action", operation).append_pair("Version", "2012-11-05");
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    for (name, value) in input.as_object().into_iter().flatten() {
        match (name.as_str(), value) {
            ("Entries", Value::Array(entries)) => {
                for (index, entry) in entries.iter().enumerate() {
                    for (inner, value) in entry.as_object().into_iter().flatten() {
                        form.append_pair(&format!("{operation}RequestEntry.{}.{inner}", index + 1), &text(value));
                    }
                }
            }
            ("Attributes", Value::Object(attributes)) => {
                for (index, (name, value)) in attributes.iter().enumerate() {
                    form.append_pair(&format!("Attribute.{}.Name", index + 1), name);
                    form.append_pair(&format!("Attribute.{}.Value", index + 1), &text(value));
                }
            }
            ("AttributeNames", Value::Array(names)) => {
                for (index, name) in names.iter().enumerate() {
                    form.append_pair(&format!("AttributeName.{}", index + 1), &text(name));
                }
            }
            _ => {
                form.append_pair(name, &text(value));
            }
        }
    }
    form.finish()
}

/// What is needed of an answer in XML: handles of messages, attributes of a queue, and whether something failed.
fn of_xml(text: &str) -> Value {
    let all = |from: &str, to: &str| -> Vec<String> {
        text.split(from).skip(1).filter_map(|rest| Some(rest.split_once(to)?.0.to_owned())).collect()
    };
    let messages: Vec<Value> = all("<ReceiptHandle>", "</ReceiptHandle>")
        .into_iter()
        .map(|handle| json!({ "ReceiptHandle": handle }))
        .collect();
    let attributes = all("<Attribute>", "</Attribute>").into_iter().filter_map(|attribute| {
        let of = |name: &str| Some(attribute.split_once(&format!("<{name}>"))?.1.split('<').next()?.to_owned());
        Some((of("Name")?, Value::String(of("Value")?)))
    });
    let attributes: serde_json::Map<String, Value> = attributes.collect();
    let failed = all("<BatchResultErrorEntry>", "</BatchResultErrorEntry>");
    json!({ "Messages": messages, "Attributes": attributes, "Failed": failed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_and_answers_of_the_query_protocol_are_understood() {
        let input = json!({ "QueueUrl": "u", "Entries": [{ "Id": "0", "MessageBody": "a b" }] });
        let expected = "Action=SendMessageBatch&Version=2012-11-05&QueueUrl=u&SendMessageBatchRequestEntry.1.Id=0\
                        &SendMessageBatchRequestEntry.1.MessageBody=a+b";
        assert_eq!(form("SendMessageBatch", &input), expected);
        let answer =
            of_xml("<M><ReceiptHandle>h</ReceiptHandle></M><Attribute><Name>A</Name><Value>5</Value></Attribute>");
        assert_eq!(answer["Messages"][0]["ReceiptHandle"], "h");
        assert_eq!(answer["Attributes"]["A"], "5");
    }
}
