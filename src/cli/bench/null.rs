//! `tern bench null`: a broker that only parses a publish, rewrites it as a deliver and writes it.
//!
//! One thread, one epoll, one copy of a body, large writes: what a broker on this machine cannot
//! undercut. It stores nothing: a message for a queue without a consumer is gone. Exchanges compare
//! whole keys, or none where the type is fanout or headers; there are no wildcards. It confirms once
//! a read, takes acks without a look, and knows no prefetch.
//!
//! With `--sync` it confirms a publish when that is on the disk: what was read goes into a log that
//! nobody reads. Deliveries do not wait for it.
//!
//! Back-pressure: a publisher whose consumer's outbox is over `OUTBOX_BYTES_MAX` is not read until
//! that has drained to half.

use super::{
    client::send_now,
    failure::Failure,
    null_log::{self, NullLog},
    null_topology::{Exchange, QueueConsumer, Route, Topology},
    wire::{self, Encode, Field, Frame, PROTOCOL_HEADER, id},
};
use bytes::BufMut;
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    io::Errno,
};
use std::{
    collections::VecDeque,
    io::{self, Read},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    path::PathBuf,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
};

/// Runs a null broker on loopback; prints its address.
#[derive(Debug, clap::Args)]
pub(super) struct NullCommand {
    /// The port, 0 for any
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Write what is published to a file and sync it before confirming
    #[arg(long)]
    sync: bool,
    /// Where that file goes [default: a temporary directory on a disk]
    #[arg(long, requires = "sync")]
    dir: Option<PathBuf>,
    /// End together with the process that started it
    #[arg(long, hide = true)]
    with_parent: bool,
}

/// The bytes of one read.
const READ_BYTES: usize = 128 * 1024;
/// Full: the publishers that feed it are not read.
const OUTBOX_BYTES_MAX: usize = 1 << 20;
/// The listener's mark among the events.
const LISTENER: u64 = u64::MAX;
/// The log's mark among the events.
const LOG: u64 = u64::MAX - 1;
/// How often the stop flag is looked at.
const LOOK_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

impl NullCommand {
    pub(super) fn run(&self) -> ExitCode {
        let run = || -> Result<(), Failure> {
            if self.with_parent {
                use rustix::process::{Signal, set_parent_process_death_signal};
                set_parent_process_death_signal(Some(Signal::KILL))
                    .map_err(|errno| Failure::io("asking to end with the parent")(errno.into()))?;
            }
            let mut broker = NullBroker::bind(self.port)?;
            if self.sync {
                broker.sync_to(NullLog::create(&null_log::directory(self.dir.as_deref())?)?)?;
            }
            println!("amqp://guest:guest@127.0.0.1:{}/%2f", broker.port());
            broker.run(&AtomicBool::new(false))
        };
        match run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                eprintln!("tern bench null: {failure}");
                ExitCode::from(2)
            }
        }
    }
}

/// The broker and its connections.
pub(super) struct NullBroker {
    listener: TcpListener,
    epoll: OwnedFd,
    port: u16,
    peers: Vec<Option<Peer>>,
    free: Vec<usize>,
    topology: Topology,
    /// The one read buffer.
    input: Vec<u8>,
    /// Confirms wait for it.
    log: Option<NullLog>,
    /// Confirms that wait, in the order of their batches.
    due: VecDeque<Due>,
    /// Publishers that are paused because the log is full.
    log_waiters: Vec<usize>,
}

/// A confirm of all up to `count`, once `batch` is on the disk.
struct Due {
    batch: u64,
    peer: usize,
    channel: u16,
    count: u64,
}

struct Peer {
    stream: TcpStream,
    greeted: bool,
    /// An incomplete message, until the rest of it comes.
    rest: Vec<u8>,
    out: Vec<u8>,
    /// How much of `out` is written.
    out_at: usize,
    interest: epoll::EventFlags,
    /// Not read: an outbox that it feeds is full.
    is_paused: bool,
    /// Publishers that are paused for this one's outbox.
    waiters: Vec<usize>,
    /// With confirms: the channel and the number of its publishes.
    confirming: Option<(u16, u64)>,
    confirmed: u64,
    route: Route,
    is_closing: bool,
}

impl NullBroker {
    pub(super) fn bind(port: u16) -> Result<Self, Failure> {
        let doing = || format!("listening on port {port}");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(Failure::io(doing()))?;
        listener.set_nonblocking(true).map_err(Failure::io(doing()))?;
        let port = listener.local_addr().map_err(Failure::io(doing()))?.port();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(epoll_failure)?;
        epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)
            .map_err(epoll_failure)?;
        // Ten thousand connections must fit, where the system allows it.
        let _ = super::process::raise_open_files(20_000);
        Ok(Self {
            listener,
            epoll,
            port,
            peers: Vec::new(),
            free: Vec::new(),
            topology: Topology { generation: 1, ..Topology::default() },
            input: vec![0; READ_BYTES],
            log: None,
            due: VecDeque::new(),
            log_waiters: Vec::new(),
        })
    }

    /// From now on confirms a publish when `log` has it on the disk.
    pub(super) fn sync_to(&mut self, log: NullLog) -> Result<(), Failure> {
        epoll::add(&self.epoll, log.event(), epoll::EventData::new_u64(LOG), epoll::EventFlags::IN)
            .map_err(epoll_failure)?;
        self.log = Some(log);
        Ok(())
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Serves until `stop`.
    pub(super) fn run(&mut self, stop: &AtomicBool) -> Result<(), Failure> {
        let mut events = Vec::with_capacity(256);
        while !stop.load(SeqCst) {
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&LOOK_INTERVAL)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(epoll_failure(errno)),
            }
            for event in events.drain(..) {
                let (data, flags) = (event.data.u64(), event.flags);
                if data == LISTENER {
                    self.accept()?;
                    continue;
                }
                if data == LOG {
                    self.confirm_flushed()?;
                    continue;
                }
                let index = data as usize;
                if flags.contains(epoll::EventFlags::OUT) {
                    self.flush(index);
                }
                if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
                    self.read(index);
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<(), Failure> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(Failure::io("accepting")(error)),
            };
            let ready = stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true));
            ready.map_err(Failure::io("preparing a connection"))?;
            let index = self.free.pop().unwrap_or_else(|| {
                self.peers.push(None);
                self.peers.len() - 1
            });
            let interest = epoll::EventFlags::IN;
            epoll::add(&self.epoll, &stream, epoll::EventData::new_u64(index as u64), interest)
                .map_err(epoll_failure)?;
            self.peers[index] = Some(Peer {
                stream,
                greeted: false,
                rest: Vec::new(),
                out: Vec::new(),
                out_at: 0,
                interest,
                is_paused: false,
                waiters: Vec::new(),
                confirming: None,
                confirmed: 0,
                route: Route::default(),
                is_closing: false,
            });
        }
    }

    /// Confirms what the log has on the disk by now, and reads those again that filled it.
    fn confirm_flushed(&mut self) -> Result<(), Failure> {
        let Some(log) = &self.log else {
            return Ok(());
        };
        let flushed = log.flushed()?;
        let mut told = Vec::new();
        while let Some(due) = self.due.pop_front_if(|due| due.batch <= flushed) {
            if let Some(peer) = &mut self.peers[due.peer] {
                confirm(&mut peer.out, due.channel, due.count);
                told.push(due.peer);
            }
        }
        for index in told {
            self.flush(index);
        }
        let waiters = std::mem::take(&mut self.log_waiters);
        self.resume(waiters);
        Ok(())
    }

    /// One read of a peer and all that follows from it.
    fn read(&mut self, index: usize) {
        let Some(mut peer) = self.peers[index].take() else {
            return;
        };
        let mut input = std::mem::take(&mut self.input);
        let kept = peer.rest.len();
        if input.len() < kept + READ_BYTES {
            input.resize(kept + READ_BYTES, 0);
        }
        input[..kept].copy_from_slice(&peer.rest);
        let result = match peer.stream.read(&mut input[kept..]) {
            Ok(0) => Err(Failure::protocol("gone")),
            Ok(read) => self.take_input(index, &mut peer, &input[..kept + read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(Failure::io("reading")(error)),
        };
        self.input = input;
        let fed: Vec<usize> = match result {
            Ok(()) => peer.route.targets.iter().map(|target| target.peer).collect(),
            Err(_) => {
                self.peers[index] = Some(peer);
                self.remove(index);
                return;
            }
        };
        self.peers[index] = Some(peer);
        for target in fed.into_iter().filter(|target| *target != index) {
            self.flush(target);
            let waiting = match &mut self.peers[target] {
                Some(target) if target.out.len() - target.out_at > OUTBOX_BYTES_MAX => &mut target.waiters,
                _ => continue,
            };
            if !waiting.contains(&index) {
                waiting.push(index);
            }
            if let Some(peer) = &mut self.peers[index] {
                peer.is_paused = true;
            }
        }
        self.flush(index);
    }

    /// Handles the complete messages of `input` and keeps the rest.
    fn take_input(&mut self, index: usize, peer: &mut Peer, input: &[u8]) -> Result<(), Failure> {
        let mut at = 0;
        if !peer.greeted {
            if input.len() < PROTOCOL_HEADER.len() {
                peer.rest = input.to_vec();
                return Ok(());
            }
            if !input.starts_with(PROTOCOL_HEADER) {
                return Err(Failure::protocol("not AMQP 0-9-1"));
            }
            at = PROTOCOL_HEADER.len();
            peer.greeted = true;
            peer.out.method(0, id::CONNECTION_START, |out| {
                out.extend_from_slice(&[0, 9]);
                out.put_table(&[("product", Field::Text("tern bench null"))]);
                out.put_long(b"PLAIN");
                out.put_long(b"en_US");
            });
        }
        if peer.route.rotates {
            peer.route.generation = 0;
        }
        let mut has_published = false;
        while let Some(frame) = wire::decode(&input[at..])? {
            if frame.kind == wire::METHOD && frame.method()? == id::BASIC_PUBLISH {
                let content_at = at + frame.bytes();
                let Some(end) = content_end(input, content_at)? else {
                    break;
                };
                self.publish(index, peer, &frame, &input[content_at..end])?;
                has_published = true;
                at = end;
                continue;
            }
            if frame.kind == wire::METHOD {
                self.call(index, peer, &frame)?;
            }
            at += frame.bytes();
        }
        peer.rest.clear();
        peer.rest.extend_from_slice(&input[at..]);
        if peer.rest.is_empty() {
            // An idle connection holds no memory.
            peer.rest = Vec::new();
        }
        // One copy of all that was read: what is not a publish there is of no weight.
        let appended = self.log.as_ref().filter(|_| has_published).map(|log| log.append(&input[..at]));
        if appended.is_some_and(|appended| appended.is_full) {
            peer.is_paused = true;
            self.log_waiters.push(index);
        }
        if let Some((channel, count)) = peer.confirming
            && count > peer.confirmed
        {
            peer.confirmed = count;
            match appended {
                Some(appended) => self.due.push_back(Due { batch: appended.batch, peer: index, channel, count }),
                None => confirm(&mut peer.out, channel, count),
            }
        }
        Ok(())
    }

    /// Appends a deliver to each consumer that the message reaches.
    #[inline]
    fn publish(&mut self, index: usize, peer: &mut Peer, frame: &Frame<'_>, content: &[u8]) -> Result<(), Failure> {
        // Class, method, reserved; exchange and key; one byte of flags.
        let key = match frame.payload {
            [_, _, _, _, _, _, key @ .., _] => key,
            _ => return Err(Failure::protocol("a publish too short")),
        };
        if peer.route.generation != self.topology.generation || peer.route.key != key {
            peer.route = self.topology.route(key)?;
        }
        if let Some((_, count)) = &mut peer.confirming {
            *count += 1;
        }
        for target in &peer.route.targets {
            let out = match &mut self.peers[target.peer] {
                Some(other) => &mut other.out,
                None if target.peer == index => &mut peer.out,
                None => continue,
            };
            let consumer = &mut self.topology.queues[target.queue].consumers[target.consumer];
            consumer.tag += 1;
            let start = out.len();
            out.extend_from_slice(&target.deliver);
            out[start + target.tag_at..start + target.tag_at + 8].copy_from_slice(&consumer.tag.to_be_bytes());
            let content_at = out.len();
            out.extend_from_slice(content);
            if target.channel != frame.channel {
                let mut at = content_at;
                while let Some(piece) = wire::decode(&out[at..])? {
                    let bytes = piece.bytes();
                    out[at + 1..at + 3].copy_from_slice(&target.channel.to_be_bytes());
                    at += bytes;
                }
            }
        }
        Ok(())
    }

    /// Answers every other method.
    fn call(&mut self, index: usize, peer: &mut Peer, frame: &Frame<'_>) -> Result<(), Failure> {
        let channel = frame.channel;
        let mut arguments = frame.arguments();
        let topology = &mut self.topology;
        let out = &mut peer.out;
        let empty = |_: &mut Vec<u8>| {};
        match frame.method()? {
            id::CONNECTION_START_OK => out.method(0, id::CONNECTION_TUNE, |out| {
                out.put_u16(2047);
                out.put_u32(wire::FRAME_MAX);
                out.put_u16(0);
            }),
            id::CONNECTION_OPEN => out.method(0, id::CONNECTION_OPEN_OK, |out| out.put_short(b"")),
            id::CONNECTION_CLOSE => {
                out.method(0, id::CONNECTION_CLOSE_OK, empty);
                peer.is_closing = true;
            }
            id::CONNECTION_CLOSE_OK => return Err(Failure::protocol("closed")),
            id::CHANNEL_OPEN => out.method(channel, id::CHANNEL_OPEN_OK, |out| out.put_long(b"")),
            id::CHANNEL_CLOSE => {
                topology.remove_consumers(index, Some(channel));
                out.method(channel, id::CHANNEL_CLOSE_OK, empty);
            }
            id::CONFIRM_SELECT => {
                peer.confirming = Some((channel, 0));
                peer.confirmed = 0;
                out.method(channel, id::CONFIRM_SELECT_OK, empty);
            }
            id::BASIC_QOS => out.method(channel, id::BASIC_QOS_OK, empty),
            id::QUEUE_DECLARE => {
                arguments.u16()?;
                let name = arguments.short()?;
                topology.declare(name);
                out.method(channel, id::QUEUE_DECLARE_OK, |out| {
                    out.put_short(name);
                    out.put_u64(0);
                });
            }
            id::QUEUE_DELETE => {
                arguments.u16()?;
                topology.delete(arguments.short()?);
                out.method(channel, id::QUEUE_DELETE_OK, |out| out.put_u32(0));
            }
            id::EXCHANGE_DECLARE => {
                arguments.u16()?;
                let (name, kind) = (arguments.short()?, arguments.short()?);
                let is_keyed = match kind {
                    b"direct" | b"topic" => true,
                    b"fanout" | b"headers" => false,
                    _ => {
                        close(out, 540, "NOT_IMPLEMENTED - the null broker does not know this type");
                        return Ok(());
                    }
                };
                topology.exchanges.insert(name.to_vec(), Exchange { is_keyed, bound: Vec::new() });
                topology.generation += 1;
                out.method(channel, id::EXCHANGE_DECLARE_OK, empty);
            }
            id::EXCHANGE_DELETE => {
                arguments.u16()?;
                topology.exchanges.remove(arguments.short()?);
                topology.generation += 1;
                out.method(channel, id::EXCHANGE_DELETE_OK, empty);
            }
            id::QUEUE_BIND => {
                arguments.u16()?;
                let (queue, exchange, key) = (arguments.short()?, arguments.short()?, arguments.short()?);
                let queue = topology.names.get(queue).copied();
                let Some((exchange, queue)) = topology.exchanges.get_mut(exchange).zip(queue) else {
                    close(out, 404, "NOT_FOUND - no such queue or exchange");
                    return Ok(());
                };
                if exchange.is_keyed && key.iter().any(|byte| matches!(byte, b'*' | b'#')) {
                    close(out, 540, "NOT_IMPLEMENTED - the null broker knows no wildcards");
                    return Ok(());
                }
                exchange.bound.push((key.to_vec(), queue));
                topology.generation += 1;
                out.method(channel, id::QUEUE_BIND_OK, empty);
            }
            id::BASIC_CONSUME => {
                arguments.u16()?;
                let (queue, name) = (arguments.short()?, arguments.short()?);
                let name = if name.is_empty() { format!("null{index}").into_bytes() } else { name.to_vec() };
                let queue = topology.declare(queue);
                let consumer = QueueConsumer { peer: index, channel, name: name.clone(), tag: 0 };
                topology.queues[queue].consumers.push(consumer);
                topology.generation += 1;
                out.method(channel, id::BASIC_CONSUME_OK, |out| out.put_short(&name));
            }
            id::CONNECTION_TUNE_OK
            | id::BASIC_ACK
            | id::BASIC_NACK
            | id::BASIC_REJECT
            | id::CHANNEL_FLOW_OK
            | id::CHANNEL_CLOSE_OK => {}
            _ => close(out, 540, "NOT_IMPLEMENTED - the null broker does not know this method"),
        }
        Ok(())
    }

    /// Writes as much as the socket takes, wakes those who waited for it, and keeps epoll informed.
    fn flush(&mut self, index: usize) {
        let Some(peer) = &mut self.peers[index] else {
            return;
        };
        while peer.out_at < peer.out.len() {
            match send_now(&peer.stream, &peer.out[peer.out_at..]) {
                Ok(0) => break,
                Ok(sent) => peer.out_at += sent,
                Err(_) => {
                    self.remove(index);
                    return;
                }
            }
        }
        let left = peer.out.len() - peer.out_at;
        if left == 0 {
            peer.out.clear();
            peer.out_at = 0;
            if peer.is_closing {
                self.remove(index);
                return;
            }
            if peer.out.capacity() <= 1024 {
                peer.out = Vec::new();
            }
        } else if peer.out_at > OUTBOX_BYTES_MAX {
            peer.out.drain(..peer.out_at);
            peer.out_at = 0;
        }
        let waiters = if left <= OUTBOX_BYTES_MAX / 2 { std::mem::take(&mut peer.waiters) } else { Vec::new() };
        self.set_interest(index);
        self.resume(waiters);
    }

    /// Reads `waiters` again.
    fn resume(&mut self, waiters: Vec<usize>) {
        for waiter in waiters {
            if let Some(peer) = &mut self.peers[waiter] {
                peer.is_paused = false;
            }
            self.set_interest(waiter);
        }
    }

    fn set_interest(&mut self, index: usize) {
        let Some(peer) = &mut self.peers[index] else {
            return;
        };
        let mut wanted = epoll::EventFlags::empty();
        if !peer.is_paused {
            wanted |= epoll::EventFlags::IN;
        }
        if !peer.out.is_empty() {
            wanted |= epoll::EventFlags::OUT;
        }
        if wanted != peer.interest {
            peer.interest = wanted;
            let data = epoll::EventData::new_u64(index as u64);
            if epoll::modify(&self.epoll, &peer.stream, data, wanted).is_err() {
                self.remove(index);
            }
        }
    }

    fn remove(&mut self, index: usize) {
        let Some(peer) = self.peers[index].take() else {
            return;
        };
        self.topology.remove_consumers(index, None);
        self.free.push(index);
        self.due.retain(|due| due.peer != index);
        self.resume(peer.waiters);
    }
}

/// Where the header and body frames that begin at `at` end; `None` while some are missing.
#[inline]
fn content_end(input: &[u8], at: usize) -> Result<Option<usize>, Failure> {
    let Some(header) = wire::decode(&input[at..])? else {
        return Ok(None);
    };
    if header.kind != wire::HEADER {
        return Err(Failure::protocol("a publish without its header"));
    }
    let mut missing = header.body_bytes()?;
    let mut at = at + header.bytes();
    while missing > 0 {
        let Some(body) = wire::decode(&input[at..])? else {
            return Ok(None);
        };
        if body.kind != wire::BODY || body.payload.is_empty() {
            return Err(Failure::protocol("a header without its body"));
        }
        missing = missing.saturating_sub(body.payload.len() as u64);
        at += body.bytes();
    }
    Ok(Some(at))
}

fn confirm(out: &mut Vec<u8>, channel: u16, count: u64) {
    out.method(channel, id::BASIC_ACK, |out| {
        out.put_u64(count);
        out.push(1);
    });
}

fn close(out: &mut Vec<u8>, code: u16, text: &str) {
    out.method(0, id::CONNECTION_CLOSE, |out| {
        out.put_u16(code);
        out.put_short(text.as_bytes());
        out.put_u32(0);
    });
}

fn epoll_failure(errno: Errno) -> Failure {
    Failure::io("epoll")(errno.into())
}

#[cfg(test)]
mod tests {
    use super::super::{
        client::{Client, QueueOptions},
        load::Load,
        plan::{Binding, Consuming, Lane, Plan, Publishing},
        url::Url,
    };
    use super::*;
    use hdrhistogram::Histogram;
    use std::{sync::Arc, thread, time::Duration};

    /// A broker on a thread of its own, for the time of a test.
    struct Served {
        url: Url,
        stop: Arc<AtomicBool>,
        thread: Option<thread::JoinHandle<()>>,
    }

    impl Served {
        fn start() -> Self {
            Self::run(NullBroker::bind(0).unwrap())
        }

        fn start_synced() -> Self {
            let mut broker = NullBroker::bind(0).unwrap();
            let dir = tempfile::tempdir().unwrap();
            broker.sync_to(NullLog::create(dir.path()).unwrap()).unwrap();
            Self::run(broker)
        }

        fn run(mut broker: NullBroker) -> Self {
            let url = format!("amqp://127.0.0.1:{}", broker.port()).parse().unwrap();
            let stop = Arc::new(AtomicBool::new(false));
            let stopped = Arc::clone(&stop);
            let thread = thread::spawn(move || broker.run(&stopped).unwrap());
            Self { url, stop, thread: Some(thread) }
        }
    }

    impl Drop for Served {
        fn drop(&mut self) {
            self.stop.store(true, SeqCst);
            if let Some(thread) = self.thread.take() {
                let _ = thread.join();
            }
        }
    }

    fn publishing(body_bytes: usize) -> Publishing {
        Publishing {
            body_bytes,
            confirm_window: None,
            receipt_every: 1,
            rate: None,
            in_flight_max: 400,
            limit: Some(1000),
            stamped: false,
        }
    }

    fn problems(plan: Plan) -> Vec<String> {
        let mut load = Load::declare(plan).unwrap();
        load.start_consumers().unwrap();
        load.start_publishers().unwrap();
        load.join_publishers().unwrap();
        load.drain();
        load.finish().unwrap().problems
    }

    #[test]
    fn messages_of_every_size_arrive_whole_and_in_order() {
        let broker = Served::start();
        for size in [0, 5, 16, 1024, 140_000] {
            let mut publishing = publishing(size);
            publishing.limit = Some(if size > 100_000 { 20 } else { 1000 });
            let plan = Plan::spread(&broker.url, 1, 1, 1, publishing, Consuming::AutoAck).unwrap();
            assert_eq!(problems(plan), [""; 0], "{size} bytes");
        }
    }

    #[test]
    fn pairs_do_not_mix() {
        let broker = Served::start();
        let consuming = Consuming::Manual { prefetch: 100, ack_every: 10 };
        let plan = Plan::spread(&broker.url, 3, 2, 3, publishing(64), consuming).unwrap();
        assert_eq!(problems(plan), [""; 0]);
    }

    #[test]
    fn all_publishes_are_confirmed() {
        let broker = Served::start();
        let publishing = Publishing { confirm_window: Some(50), ..publishing(64) };
        let plan = Plan::spread(&broker.url, 1, 1, 1, publishing, Consuming::AutoAck).unwrap();
        assert_eq!(problems(plan), [""; 0]);
    }

    #[test]
    fn a_synced_broker_confirms_all_and_outlives_a_full_log() {
        let broker = Served::start_synced();
        let publishing = Publishing { confirm_window: Some(50), ..publishing(64) };
        let plan = Plan::spread(&broker.url, 2, 2, 2, publishing, Consuming::AutoAck).unwrap();
        assert_eq!(problems(plan), [""; 0]);
        let large = Publishing { confirm_window: Some(200), limit: Some(200), ..publishing };
        let large = Publishing { body_bytes: 140_000, ..large };
        let plan = Plan::spread(&broker.url, 1, 1, 1, large, Consuming::AutoAck).unwrap();
        assert_eq!(problems(plan), [""; 0]);
    }

    #[test]
    fn stamped_publishes_with_confirms_give_both_latencies() {
        let broker = Served::start_synced();
        let publishing =
            Publishing { confirm_window: Some(100), rate: Some(2000.0), limit: None, stamped: true, ..publishing(64) };
        let plan = Plan::spread(&broker.url, 1, 1, 1, publishing, Consuming::AutoAck).unwrap();
        let mut load = Load::declare(plan).unwrap();
        load.start_consumers().unwrap();
        load.start_publishers().unwrap();
        load.measure(None, Duration::ZERO, Duration::from_millis(200)).unwrap();
        load.stop_publishers().unwrap();
        load.drain();
        let outcome = load.finish().unwrap();
        assert_eq!(outcome.problems, [""; 0]);
        let count = |latencies: Option<Histogram<u64>>| latencies.map_or(0, |latencies| latencies.len());
        assert!(count(outcome.latencies) > 0);
        assert!(count(outcome.confirm_latencies) > 0);
    }

    #[test]
    fn a_fanout_reaches_every_queue() {
        let broker = Served::start();
        let mut plan = Plan::spread(&broker.url, 3, 3, 3, publishing(64), Consuming::AutoAck).unwrap();
        plan.exchanges = vec![("all".to_owned(), "fanout")];
        let binding = |queue| Binding { queue, exchange: "all".to_owned(), key: String::new() };
        plan.bindings = (0..3).map(binding).collect();
        let all = Lane { exchange: "all".to_owned(), keys: vec![String::new()], queues: vec![0, 1, 2] };
        plan.lanes = vec![all];
        assert_eq!(problems(plan), [""; 0]);
    }

    #[test]
    fn a_message_without_a_consumer_is_reported_as_lost() {
        let broker = Served::start();
        let publishing = Publishing { in_flight_max: 0, limit: Some(10), ..publishing(64) };
        let mut plan = Plan::spread(&broker.url, 1, 1, 1, publishing, Consuming::AutoAck).unwrap();
        plan.consumers.clear();
        let mut load = Load::declare(plan).unwrap();
        load.start_publishers().unwrap();
        load.join_publishers().unwrap();
        let problems = load.finish().unwrap().problems;
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("10 messages of publisher 0 lost"), "{problems:?}");
    }

    #[test]
    fn what_it_does_not_know_is_refused_with_a_reason() {
        let broker = Served::start();
        let mut client = Client::connect(&broker.url, "test").unwrap();
        client.declare_queue("q", &QueueOptions::default()).unwrap();
        client.declare_exchange("e", "topic").unwrap();
        let failure = client.bind("q", "e", "a.*").unwrap_err().to_string();
        assert!(failure.starts_with("the broker closed the connection: 540"), "{failure}");
    }

    #[test]
    fn a_keyed_exchange_sends_a_message_to_its_queue_alone() {
        let broker = Served::start();
        let mut plan = Plan::spread(&broker.url, 2, 2, 2, publishing(64), Consuming::AutoAck).unwrap();
        plan.exchanges = vec![("keyed".to_owned(), "direct")];
        for (queue, lane) in plan.lanes.iter_mut().enumerate() {
            lane.exchange = "keyed".to_owned();
            let key = lane.keys[0].clone();
            plan.bindings.push(Binding { queue, exchange: "keyed".to_owned(), key });
        }
        assert_eq!(problems(plan), [""; 0]);
    }
}
