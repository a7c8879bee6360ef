//! Peers that go without a word, or half-way through one: what they held goes back, what they had
//! not finished never happened.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use ternmq::protocol::amqp::codec::{
    hot,
    method::{AMQPClass, basic, queue},
};

use crate::{
    broker::{Broker, until},
    client::{Client, Login, Received, publish},
};

const BEATING: Login = Login { heartbeat_secs: 1, ..Login::GUEST };

#[test]
fn silent_peer_is_given_up_after_two_heartbeats() {
    let mut broker = Broker::start();
    let mut client = broker.client_with(&BEATING);
    let mut heartbeats = 0;
    while client.receive() == Received::Heartbeat {
        heartbeats += 1;
    }
    assert!(heartbeats >= 1, "the broker's own heartbeats go on in the two seconds that it may be silent");
    broker.await_log("missed heartbeats from client, timeout: 1s");
}

#[test]
fn peer_that_sends_heartbeats_stays() {
    let broker = Broker::start();
    let mut client = broker.client_with(&BEATING);
    let mut heartbeat = Vec::new();
    hot::put_heartbeat(&mut heartbeat);
    for _ in 0..8 {
        assert_eq!(client.receive(), Received::Heartbeat);
        client.write(&heartbeat);
    }
    client.close();
}

#[test]
fn half_open_consumer_gives_back_what_it_held() {
    let mut broker = Broker::start();
    let mut publisher = broker.channel();
    publisher.declare("q");
    publisher.select_confirms();
    // More than the socket takes: the broker has output waiting when it gives the peer up.
    for n in 1..=1000 {
        publisher.publish("q", &[7; 32_768]);
        publisher.await_confirm(n);
    }
    let mut consumer = broker.client_with(&BEATING);
    consumer.open_channel(1);
    consumer.declare_with(queue::Declare { queue: "own".into(), exclusive: true, ..queue::Declare::default() });
    consumer.consume("q", false);
    // From here on it neither reads nor writes, and its machine answers no more.
    broker.await_log("missed heartbeats from client");
    until("all messages are back", || publisher.look("q") == Some((1000, 0)));
    assert_eq!(publisher.look("own"), None);
}

#[test]
fn message_whose_publisher_dies_within_the_body_never_existed() {
    let broker = Broker::start();
    let mut other = broker.channel();
    other.declare("q");
    let mut client = broker.channel();
    client.select_confirms();
    client.publish("q", b"whole");
    client.await_confirm(1);
    let bytes = publish("q", &[7; 1 << 20]);
    // In the method, in the header, and in the first and a later body frame.
    for cut in [5, 40, 60, 70_000, 500_000, bytes.len() - 1] {
        let mut client = broker.channel();
        client.write(&bytes[..cut]);
        client.kill();
    }
    client.kill();
    until("the connections are gone", || other.look("q") == Some((1, 0)));
    assert_eq!(other.get("q").map(|message| message.body), Some(b"whole".to_vec()));
    assert_eq!(other.get("q"), None);
}

#[test]
fn exclusive_queue_goes_with_its_connection() {
    let broker = Broker::start();
    let exclusive =
        |name: &str| queue::Declare { queue: name.into(), exclusive: true, durable: true, ..queue::Declare::default() };
    let mut other = broker.client();
    let mut polite = broker.channel();
    polite.declare_with(exclusive("polite"));
    polite.close();
    assert_eq!(other.look("polite"), None, "it is gone before close-ok");
    let mut killed = broker.channel();
    killed.declare_with(exclusive("killed"));
    killed.kill();
    let mut again = broker.channel();
    until("the name is free", || {
        let declare = AMQPClass::Queue(queue::AMQPMethod::Declare(exclusive("killed")));
        again.send(1, declare);
        match again.method() {
            AMQPClass::Queue(_) => true,
            _ => {
                again = broker.channel();
                false
            }
        }
    });
}

/// Numbers that are random enough, the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[test]
fn nothing_confirmed_is_lost_when_publishers_and_consumers_are_killed() {
    const LIVES: u64 = 25;
    let broker = Broker::start();
    broker.channel().declare("q");
    let port = broker.port;
    let is_publishing = Arc::new(AtomicBool::new(true));
    // How often each body was received.
    let received = Arc::new(Mutex::new(HashMap::<Vec<u8>, u32>::new()));
    let note = |received: &Mutex<HashMap<Vec<u8>, u32>>, body: Vec<u8>, redelivered: bool| {
        let mut received = received.lock().unwrap();
        let times = received.entry(body).or_default();
        *times += 1;
        assert!(*times == 1 || redelivered, "a second delivery says so");
    };
    let publishers: Vec<_> = (0..2_u64)
        .map(|number| {
            thread::spawn(move || {
                let mut random = Random(0x9E37_79B9 + number);
                let mut confirmed = Vec::new();
                for life in 0..LIVES {
                    let mut client = open_channel(port);
                    client.select_confirms();
                    let count = 1 + random.below(60);
                    let bodies: Vec<_> = (0..count)
                        .map(|n| {
                            let mut body = format!("{number}.{life}.{n}.").into_bytes();
                            body.resize(20 + random.below(9000) as usize, b'.');
                            body
                        })
                        .collect();
                    let bytes: Vec<u8> = bodies.iter().flat_map(|body| publish("q", body)).collect();
                    client.write(&bytes[..bytes.len() - random.below(3000).min(bytes.len() as u64) as usize]);
                    let mut acked = 0;
                    // It may die with confirms on their way, and waits for no more than half.
                    while acked < count / 2 {
                        match client.receive() {
                            Received::Method(1, AMQPClass::Basic(basic::AMQPMethod::Ack(ack))) => {
                                acked = ack.delivery_tag;
                            }
                            other => panic!("expected a confirm: {other:?}"),
                        }
                        // The tail that was cut off may be larger than half.
                        if acked + 2 >= count / 2 {
                            break;
                        }
                    }
                    confirmed.extend(bodies.into_iter().take(acked as usize));
                    client.kill();
                }
                confirmed
            })
        })
        .collect();
    let consumer = {
        let (received, is_publishing) = (received.clone(), is_publishing.clone());
        thread::spawn(move || {
            let mut random = Random(0x1234_5678);
            while is_publishing.load(Ordering::Relaxed) {
                let mut client = open_channel(port);
                client.qos(1 + random.below(20) as u16);
                client.consume("q", false);
                client.stream.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
                let lifetime = random.below(50);
                for _ in 0..lifetime {
                    // Nothing to read for a while is an end as good as any.
                    if !client.has_input() {
                        break;
                    }
                    let message = client.delivery();
                    if random.below(4) > 0 {
                        client.ack(message.tag, false);
                    }
                    note(&received, message.body, message.redelivered);
                }
                client.kill();
            }
        })
    };
    let confirmed: Vec<Vec<u8>> = publishers.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    is_publishing.store(false, Ordering::Relaxed);
    consumer.join().unwrap();
    let mut last = broker.channel();
    // Until the broker has seen the ends of all sockets, messages come back.
    until("all consumers are gone", || last.look("q").is_some_and(|(_, consumers)| consumers == 0));
    while let Some(message) = last.get("q") {
        note(&received, message.body, message.redelivered);
    }
    let received = received.lock().unwrap();
    for body in &confirmed {
        let text = String::from_utf8_lossy(&body[..10.min(body.len())]).into_owned();
        assert!(received.contains_key(body), "{text} was confirmed and is lost");
    }
    assert!(confirmed.len() > 100, "{} confirmed", confirmed.len());
    assert_eq!(last.look("q"), Some((0, 0)));
}

fn open_channel(port: u16) -> Client {
    let mut client = Client::connect(port);
    client.login(&Login::default());
    client.open_channel(1);
    client
}

#[test]
fn the_kernel_asks_silent_peers_whether_they_are_there() {
    let broker = Broker::start();
    let asked = broker.client();
    assert_eq!(timer_of(broker.port, &asked), "02", "the timer that runs is the one of keepalive");
    let never = Broker::with(&["server.tcp_keepalive_secs=off"]);
    let ignored = never.client();
    assert_eq!(timer_of(never.port, &ignored), "00");
}

/// Which timer runs on the broker's socket for a client, as Linux shows it.
fn timer_of(port: u16, client: &Client) -> String {
    let ends = format!("0100007F:{port:04X} 0100007F:{:04X}", client.stream.local_addr().unwrap().port());
    let mut timer = String::new();
    // The acknowledgement of what was sent last may have to come first.
    until("only keepalive's timer runs", || {
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let line = sockets.lines().find(|line| line.contains(&ends)).unwrap();
        timer = line.split_whitespace().nth(5).unwrap()[..2].to_owned();
        timer == "02" || timer == "00"
    });
    timer
}
