//! A broker without sockets: peers whose octets go straight into sessions, in virtual time.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc};

use ternmq::{
    broker::{Broker, Options as BrokerOptions, record::Journal, time::Time},
    protocol::{
        amqp::{self, Options},
        jms::JmsFields,
        session::{Phase, Session},
        shared::{Outbox, Shared, Wire},
        stomp::{self, Surroundings},
    },
};

use super::{
    frames,
    lines::{self, Said},
};

/// A broker, its peers and its clock.
pub struct World {
    pub broker: Arc<Broker>,
    pub now: Time,
    options: Arc<Options>,
    /// What the next STOMP session is told.
    pub stomp: Surroundings,
    /// Where STOMP clients are, and what they connect to, if not on this machine.
    pub stomp_addresses: Option<(SocketAddr, SocketAddr)>,
    peers: Vec<Peer>,
}

struct Peer {
    session: Box<dyn Session>,
    outbox: Arc<dyn Outbox>,
    has_events: Box<dyn Fn() -> bool>,
    waiting_bytes: Box<dyn Fn() -> u64>,
    /// Reads one event from the front of what was said.
    read: Read,
    /// Octets that the session has not used yet.
    left: Vec<u8>,
    /// Octets that the session has said and nobody has read.
    output: Vec<u8>,
    said: VecDeque<Said>,
    is_over: bool,
    /// The client reads nothing.
    is_deaf: bool,
}

/// Reads one event from the front of what was said at that time; says how long it was.
type Read = fn(&[u8], u64) -> Option<(Said, usize)>;

/// When stories begin: some time in 2025.
pub const START: Time = Time(1_750_000_000_000);

impl World {
    pub fn new() -> Self {
        Self::with(BrokerOptions::default(), Options::default())
    }

    pub fn with(broker: BrokerOptions, options: Options) -> Self {
        let broker = Arc::new(Broker::new(broker, START).unwrap());
        broker.attach_fields(Arc::new(JmsFields));
        let stomp = Surroundings {
            options: stomp::Options::default(),
            dialect: stomp::options::Dialect::Rabbitmq,
            clients: Arc::default(),
            server_name: "RabbitMQ/3.13.7".to_owned(),
            login_failure_delay_ms: 0,
        };
        Self { broker, now: START, options: Arc::new(options), stomp, stomp_addresses: None, peers: Vec::new() }
    }

    /// A world whose changes are recorded.
    pub fn with_journal(journal: Arc<dyn Journal>) -> Self {
        let world = Self::new();
        world.broker.attach_journal(journal);
        world
    }

    /// A new connection, of which nothing has been said; returns its number.
    pub fn connect(&mut self) -> usize {
        let shared = Arc::new(amqp::Shared::new(self.options.outbox_bytes_max));
        let (from, to) = self.addresses(5672);
        let (broker, options) = (self.broker.clone(), self.options.clone());
        let session = amqp::Session::new(broker, options, shared.clone(), from, to, self.now);
        self.add(Box::new(session), shared, lines::read)
    }

    /// The same to the STOMP listener.
    pub fn connect_stomp(&mut self) -> usize {
        let shared = Arc::new(stomp::Shared::new(self.stomp.options.outbox_bytes_max));
        let (from, to) = self.stomp_addresses.unwrap_or_else(|| self.addresses(61613));
        let (broker, surroundings) = (self.broker.clone(), Arc::new(self.stomp.clone()));
        let session = stomp::Session::new(broker, surroundings, shared.clone(), from, to, self.now);
        self.add(Box::new(session), shared, frames::read)
    }

    fn addresses(&self, port: u16) -> (SocketAddr, SocketAddr) {
        (([127, 0, 0, 1], 40_000 + self.peers.len() as u16).into(), ([127, 0, 0, 1], port).into())
    }

    fn add<W: Wire + 'static>(&mut self, session: Box<dyn Session>, shared: Arc<Shared<W>>, read: Read) -> usize {
        let (events, waiting) = (shared.clone(), shared.clone());
        self.peers.push(Peer {
            session,
            outbox: shared,
            has_events: Box::new(move || events.has_events()),
            waiting_bytes: Box::new(move || waiting.output().waiting_bytes()),
            read,
            left: Vec::new(),
            output: Vec::new(),
            said: VecDeque::new(),
            is_over: false,
            is_deaf: false,
        });
        self.peers.len() - 1
    }

    /// A connection of guest's on vhost `/` with that channel open.
    pub fn open(&mut self, channel: u16) -> usize {
        self.open_with(channel, "heartbeat=0")
    }

    /// The same with other limits.
    pub fn open_with(&mut self, channel: u16, limits: &str) -> usize {
        let peer = self.connect();
        self.handshake(peer, limits);
        self.call(peer, channel, "channel.open", "");
        peer
    }

    /// From the protocol header to connection.open-ok.
    pub fn handshake(&mut self, peer: usize, limits: &str) {
        self.send(peer, b"AMQP\x00\x00\x09\x01");
        let flag = lines::Value::Bool(true);
        let capabilities = lines::table(&[
            ("consumer_cancel_notify", flag),
            ("connection.blocked", flag),
            ("authentication_failure_close", flag),
        ]);
        let properties = lines::table(&[("capabilities", lines::Value::Table(&capabilities))]);
        self.send(
            peer,
            &lines::method(
                0,
                "connection.start-ok",
                "mechanism=PLAIN response=\0guest\0guest locale=en_US",
                &properties,
            ),
        );
        let max = "channel_max=2047 frame_max=131072";
        let limits = if limits.contains("frame_max") { limits.to_owned() } else { format!("{max} {limits}") };
        self.send(peer, &lines::method(0, "connection.tune-ok", &limits, &[]));
        self.send(peer, &lines::method(0, "connection.open", "vhost=/", &[]));
        let said = self.heard(peer);
        assert_eq!(said.last().map(String::as_str), Some("0 connection.open-ok"), "{said:?}");
    }

    /// The client sends octets; how many it sends at once does not matter.
    pub fn send(&mut self, peer: usize, octets: &[u8]) {
        let one = &mut self.peers[peer];
        one.left.extend(octets);
        while !one.is_over && !one.left.is_empty() && one.session.wants_input() {
            let block = Arc::new(std::mem::take(&mut one.left));
            let progress = one.session.handle_input(&block, self.now);
            one.left = block[progress.consumed..].to_vec();
            if progress.consumed == 0 {
                break;
            }
        }
        self.settle();
    }

    /// Sends a method.
    pub fn tell(&mut self, peer: usize, channel: u16, name: &str, values: &str) {
        self.send(peer, &lines::method(channel, name, values, &[]));
    }

    /// Sends a method and reads its answer.
    pub fn call(&mut self, peer: usize, channel: u16, name: &str, values: &str) -> String {
        self.tell(peer, channel, name, values);
        let mut said = self.heard(peer);
        assert_eq!(said.len(), 1, "{name} has one answer: {said:?}");
        said.remove(0)
    }

    /// Publishes a body to a queue.
    pub fn publish(&mut self, peer: usize, channel: u16, queue: &str, properties: &str, body: &[u8]) {
        self.send(peer, &lines::publish(channel, &format!("key={queue}"), properties, &[], body));
    }

    /// Everything that the peer has been told and not read.
    pub fn heard(&mut self, peer: usize) -> Vec<String> {
        self.settle();
        self.peers[peer].said.drain(..).map(|said| said.line).collect()
    }

    /// The next thing that the peer has been told.
    pub fn next(&mut self, peer: usize) -> Option<Said> {
        self.settle();
        self.peers[peer].said.pop_front()
    }

    /// The peer's socket was closed by the broker.
    pub fn is_over(&self, peer: usize) -> bool {
        self.peers[peer].is_over
    }

    /// Why, as the log has it.
    pub fn ended_by(&self, peer: usize) -> Option<&str> {
        self.peers[peer].session.ended_by()
    }

    /// Whether the session would be read from.
    pub fn wants_input(&self, peer: usize) -> bool {
        self.peers[peer].session.wants_input()
    }

    /// The client stops or starts reading what it is sent.
    pub fn set_deaf(&mut self, peer: usize, is_deaf: bool) {
        self.peers[peer].is_deaf = is_deaf;
        self.settle();
    }

    /// Octets that wait for the peer.
    pub fn waiting_bytes(&self, peer: usize) -> u64 {
        (self.peers[peer].waiting_bytes)()
    }

    /// The client hangs up.
    pub fn hang_up(&mut self, peer: usize) {
        let one = &mut self.peers[peer];
        if !one.is_over {
            one.is_over = true;
            one.session.close(self.now);
        }
        self.settle();
    }

    /// Lets time pass, with everything that becomes due at its own time.
    pub fn pass(&mut self, ms: u64) {
        let end = self.now.after_ms(ms);
        for _ in 0..10_000 {
            self.settle();
            let due = self.peers.iter().filter(|peer| !peer.is_over).map(|peer| peer.session.poll_timeout());
            let due = due.chain(self.broker.timers.next()).min().unwrap_or(Time::NEVER).max(self.now);
            if due > end {
                break;
            }
            self.now = due;
            self.broker.tick(self.now);
            for peer in self.peers.iter_mut().filter(|peer| !peer.is_over) {
                if peer.session.poll_timeout() <= self.now {
                    peer.session.handle_timeout(self.now);
                }
            }
        }
        self.now = end;
        self.broker.tick(self.now);
        self.settle();
    }

    /// Does what tasks and sockets do: events are looked at, output is taken.
    pub fn settle(&mut self) {
        loop {
            let mut is_quiet = true;
            for peer in &mut self.peers {
                if !peer.is_over {
                    let events = (peer.has_events)();
                    if events {
                        peer.session.handle_events(self.now);
                        is_quiet = false;
                    }
                }
                if !peer.is_deaf {
                    let chunk = peer.outbox.take_output(0);
                    if let Some(chunk) = chunk {
                        let octets = chunk.to_vec();
                        // The socket has taken all of it at once.
                        peer.output.extend(&octets);
                        if let Some(more) = peer.outbox.take_output(octets.len() as u64) {
                            let octets = more.to_vec();
                            peer.output.extend(&octets);
                            peer.outbox.take_output(octets.len() as u64);
                        }
                        is_quiet = false;
                    }
                    while let Some((said, used)) = (peer.read)(&peer.output, self.now.secs()) {
                        peer.output.drain(..used);
                        peer.said.push_back(said);
                    }
                }
                if !peer.is_over && peer.session.phase() == Phase::Over {
                    peer.is_over = true;
                    peer.session.close(self.now);
                    is_quiet = false;
                }
                if !peer.is_over && !peer.left.is_empty() && peer.session.wants_input() {
                    let block = Arc::new(std::mem::take(&mut peer.left));
                    let progress = peer.session.handle_input(&block, self.now);
                    peer.left = block[progress.consumed..].to_vec();
                    is_quiet &= progress.consumed == 0;
                }
            }
            if is_quiet {
                return;
            }
        }
    }
}
