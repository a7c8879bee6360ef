//! STOMP on the real sockets of the real binary: what a receipt promises, how connections end, and what
//! hostile clients can do to it.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use crate::broker::{Broker, DEADLINE, until};

/// A client that reads frames one by one.
struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    fn connect(broker: &Broker) -> Self {
        Self::connect_to(broker.stomp_port())
    }

    fn connect_to(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { stream, read: Vec::new() }
    }

    fn open(broker: &Broker) -> Self {
        let mut client = Self::connect(broker);
        client.say("CONNECT\naccept-version:1.2\nlogin:guest\npasscode:guest\n\n");
        let answer = client.hear();
        assert!(answer.as_deref().is_some_and(|frame| frame.starts_with("CONNECTED\n")), "{answer:?}");
        client
    }

    fn say(&mut self, frame: &str) {
        self.stream.write_all(&[frame.as_bytes(), b"\0"].concat()).unwrap();
    }

    /// The next frame; `None` at the end of the connection. Bodies have no NUL here.
    fn hear(&mut self) -> Option<String> {
        loop {
            let begin = self.read.iter().take_while(|octet| **octet == b'\n').count();
            self.read.drain(..begin);
            if let Some(end) = self.read.iter().position(|octet| *octet == 0) {
                let frame = self.read.drain(..=end).take(end).collect();
                return Some(String::from_utf8(frame).unwrap());
            }
            let mut octets = [0; 65536];
            match self.stream.read(&mut octets) {
                Ok(0) => return None,
                Ok(count) => self.read.extend_from_slice(&octets[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn ask(&mut self, frame: &str) -> Option<String> {
        self.say(frame);
        self.hear()
    }
}

fn receipt(id: impl std::fmt::Display) -> Option<String> {
    Some(format!("RECEIPT\nreceipt-id:{id}\n\n"))
}

fn body(frame: Option<String>) -> String {
    let frame = frame.expect("a message");
    assert!(frame.starts_with("MESSAGE\n"), "{frame}");
    frame.split_once("\n\n").unwrap().1.to_owned()
}

#[test]
fn what_a_receipt_has_promised_survives_a_crash() {
    let mut broker = Broker::start();
    let mut client = Client::open(&broker);
    let subscribe = "SUBSCRIBE\nid:topic\ndestination:/topic/t\ndurable:true\nauto-delete:false\nreceipt:s\n\n";
    assert_eq!(client.ask(subscribe), receipt("s"));
    client.say("UNSUBSCRIBE\nid:topic\n\n");
    for number in 0..200 {
        client.say(&format!("SEND\ndestination:/queue/q\npersistent:true\nreceipt:{number}\n\n{number}"));
    }
    client.say("SEND\ndestination:/topic/t\npersistent:true\nreceipt:200\n\nkept");
    for number in 0..=200 {
        assert_eq!(client.hear(), receipt(number));
    }
    client.say("SUBSCRIBE\nid:0\ndestination:/queue/q\nack:client-individual\nprefetch-count:100\n\n");
    for number in 0..100 {
        let frame = client.hear().unwrap();
        assert!(frame.ends_with(&format!("\n\n{number}")), "{frame}");
        if number % 2 == 0 {
            let id = frame.lines().find_map(|line| line.strip_prefix("ack:")).unwrap().to_owned();
            client.say(&format!("ACK\nid:{id}\n\n"));
        }
    }
    client.say("BEGIN\ntransaction:end\nreceipt:acked\n\n");
    // Those that were freed come first.
    let mut answers = Vec::new();
    while answers.last() != Some(&receipt("acked")) {
        answers.push(client.hear());
    }
    let id = "T_0@@any@@2";
    client.say(&format!("ACK\nid:{id}\nreceipt:last\n\n"));
    while client.hear() != receipt("last") {}
    broker.crash();

    let mut client = Client::open(&broker);
    client.say("SUBSCRIBE\nid:0\ndestination:/queue/q\n\n");
    // The even ones of the first hundred and number 1 were settled, and that was answered.
    let expected = (0..200).filter(|number| number % 2 == 1 || *number >= 100).filter(|number| *number != 1);
    for number in expected {
        assert_eq!(body(client.hear()), number.to_string());
    }
    let mut client = Client::open(&broker);
    assert_eq!(client.ask(subscribe), receipt("s"));
    assert_eq!(body(client.hear()), "kept");
}

#[test]
fn an_activemq_client_finds_its_subscription_and_its_dead_after_a_crash() {
    let mut broker = Broker::with(&["stomp.activemq_port=0"]);
    let open = |broker: &Broker| {
        let mut client = Client::connect_to(broker.port_of("stomp/activemq"));
        let answer = client.ask("CONNECT\naccept-version:1.2\nclient-id:c\n\n");
        assert!(answer.as_deref().is_some_and(|frame| frame.contains("\nserver:ActiveMQ/5.17.2\n")), "{answer:?}");
        client
    };
    let subscribe = "SUBSCRIBE\nid:d\ndestination:/topic/t\nactivemq.subscriptionName:s\nreceipt:s\n\n";
    let mut client = open(&broker);
    assert_eq!(client.ask(subscribe), receipt("s"));
    assert_eq!(client.ask("UNSUBSCRIBE\nid:d\nreceipt:u\n\n"), receipt("u"));
    for (destination, number) in [("/topic/t", 1), ("/queue/q", 2)] {
        let send = format!("SEND\ndestination:{destination}\npersistent:true\nreceipt:{number}\n\n{number}");
        assert_eq!(client.ask(&send), receipt(number));
    }
    broker.crash();

    let mut client = open(&broker);
    assert_eq!(client.ask(subscribe), receipt("s"));
    assert_eq!(body(client.hear()), "1");
    // The queue still knows where its dead go.
    let frame = client.ask("SUBSCRIBE\nid:q\ndestination:/queue/q\nack:client\n\n").unwrap();
    let id = frame.lines().find_map(|line| line.strip_prefix("ack:")).unwrap().to_owned();
    assert_eq!(client.ask(&format!("NACK\nid:{id}\nreceipt:n\n\n")), receipt("n"));
    broker.crash();
    let mut client = open(&broker);
    let dead = client.ask("SUBSCRIBE\nid:dead\ndestination:/queue/ActiveMQ.DLQ\n\n");
    assert!(dead.as_deref().is_some_and(|frame| frame.contains("\noriginal-destination:/queue/q\n")), "{dead:?}");
    assert_eq!(body(dead), "2");
    let listeners = broker.ctl(&["status"]);
    assert!(listeners.contains("stomp/activemq"), "{listeners}");
}

#[test]
fn connections_are_listed_and_closed_by_an_operator() {
    let broker = Broker::start();
    let mut client = Client::open(&broker);
    let listed = broker.ctl(&["list_connections", "protocol", "user", "channels", "state", "pid"]);
    let row: Vec<&str> = listed.lines().last().unwrap().split('\t').collect();
    assert_eq!(row[..4], ["{'STOMP',\"1.2\"}", "guest", "1", "running"]);
    assert_eq!(client.ask("SUBSCRIBE\nid:0\ndestination:/queue/q\nack:client\nreceipt:1\n\n"), receipt(1));
    assert!(broker.ctl(&["list_consumers"]).lines().last().unwrap().contains("\tT_0\ttrue\t0\t"));
    broker.ctl(&["close_connection", row[4], "enough"]);
    let said = client.hear().unwrap();
    assert!(said.starts_with("ERROR\nmessage:connection_forced\n") && said.ends_with("CONNECTION_FORCED - enough"));
    assert_eq!(client.hear(), None);
}

#[test]
fn clients_are_told_of_the_end_and_come_back() {
    let mut broker = Broker::start();
    let mut client = Client::open(&broker);
    let port = broker.stomp_port();
    broker.ctl(&["stop_app"]);
    assert!(client.hear().unwrap().starts_with("ERROR\nmessage:connection_forced\n"));
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    broker.ctl(&["start_app"]);
    let mut client = Client::open(&broker);
    broker.terminate();
    assert!(client.hear().unwrap().starts_with("ERROR\nmessage:connection_forced\n"));
    drop(client);
    assert!(broker.wait().success());
}

#[test]
fn a_wrong_password_is_answered_late() {
    let mut broker = Broker::with(&["server.login_failure_delay_ms=300"]);
    let mut client = Client::connect(&broker);
    let started = std::time::Instant::now();
    let said = client.ask("CONNECT\nlogin:guest\npasscode:wrong\n\n").unwrap();
    assert!(said.ends_with("Access refused for user 'guest'\n"), "{said}");
    assert!(started.elapsed() >= std::time::Duration::from_millis(300));
    assert!(client.ask("CONNECT\nlogin:guest\npasscode:guest\n\n").unwrap().starts_with("CONNECTED\n"));
    broker.await_log("login refused");
}

#[test]
fn the_address_behind_a_trusted_proxy_counts() {
    let broker = Broker::with(&["server.proxy_protocol_trusted=127.0.0.1/32"]);
    let mut client = Client::connect(&broker);
    client.stream.write_all(b"PROXY TCP4 10.9.8.7 127.0.0.1 1111 61613\r\n").unwrap();
    let said = client.ask("CONNECT\nlogin:guest\npasscode:guest\n\n").unwrap();
    assert!(said.ends_with("non-loopback access denied"), "{said}");
}

#[test]
fn floods_before_login_are_cut_off() {
    let broker = Broker::start();
    let before = broker.resident_bytes();
    for flood in [&b"A"[..], b"CONNECT\n\nx", b"CONNECT\na:b\n"] {
        let mut client = Client::connect(&broker);
        let octets: Vec<u8> = flood.iter().copied().chain(flood[flood.len() - 1..].repeat(1 << 20)).collect();
        // It may be closed while it is being written to.
        let _ = client.stream.write_all(&octets);
        while client.hear().is_some() {}
    }
    assert!(broker.resident_bytes() < before + (16 << 20));
}

#[test]
fn promised_bodies_that_never_come_cost_little() {
    let broker = Broker::start();
    let mut clients: Vec<Client> = (0..50).map(|_| Client::open(&broker)).collect();
    let before = broker.resident_bytes();
    for client in &mut clients {
        let frame = b"SEND\ndestination:/queue/q\ncontent-length:100000000\n\nx";
        client.stream.write_all(frame).unwrap();
    }
    let mut witness = Client::open(&broker);
    until("a witness is served", || witness.ask("BEGIN\ntransaction:t\nreceipt:1\n\n") == receipt(1));
    assert!(broker.resident_bytes() < before + (32 << 20), "{before} -> {}", broker.resident_bytes());
}

#[test]
fn floods_after_login_end_at_their_bounds() {
    let settings =
        ["broker.max_message_bytes=1048576", "stomp.transaction_bytes_max=8388608", "stomp.subscriptions_max=1000"];
    let broker = Broker::with(&settings);
    let before = broker.resident_bytes();
    let subscriptions: String = (0..1200).map(|id| format!("SUBSCRIBE\nid:{id}\ndestination:/queue/q\n\n\0")).collect();
    let transactions: String = (0..2000).map(|id| format!("BEGIN\ntransaction:{id}\n\n\0")).collect();
    let send = format!("SEND\ndestination:/queue/q\ntransaction:t\n\n{}\0", "x".repeat(100_000));
    let floods = [
        ("A".repeat(32 << 20), "Frame too large"),
        (format!("SEND\ndestination:/queue/q\n{}\n", "a:b\n".repeat(1 << 20)), "Frame too large"),
        (format!("SEND\ndestination:/queue/q\n\n{}", "x".repeat(32 << 20)), "Frame too large"),
        (format!("SEND\ndestination:/queue/q\ncontent-length:{}\n\nx", u64::MAX / 2), "Frame too large"),
        (subscriptions, "Too many subscriptions"),
        (transactions, "Too many transactions"),
        (format!("BEGIN\ntransaction:t\n\n\0{}", send.repeat(200)), "Transaction too large"),
    ];
    for (flood, message) in floods {
        let mut client = Client::open(&broker);
        let mut writing = client.stream.try_clone().unwrap();
        // It may be closed while it is being written to.
        let writer = std::thread::spawn(move || _ = writing.write_all(flood.as_bytes()));
        let said = client.hear();
        // The reset that follows an unread flood may take the last words with it.
        let expected = format!("ERROR\nmessage:{message}\n");
        assert!(said.as_ref().is_none_or(|said| said.starts_with(&expected)), "{message}: {said:?}");
        while client.hear().is_some() {}
        writer.join().unwrap();
    }
    let grown = broker.resident_bytes().saturating_sub(before);
    assert!(grown < 96 << 20, "{grown} bytes more");
    until("nobody is left", || broker.ctl(&["-q", "list_connections", "pid", "--no-table-headers"]).is_empty());
    assert_eq!(broker.ctl(&["-q", "list_queues", "name", "consumers", "--no-table-headers"]), "q\t0\n");
}

#[test]
fn receipts_that_nobody_reads_stop_the_reading() {
    let broker = Broker::with(&["stomp.outbox_bytes_max=65536"]);
    let mut client = Client::open(&broker);
    let before = broker.resident_bytes();
    let frames = format!("BEGIN\ntransaction:t\nreceipt:{}\n\n\0", "r".repeat(1000)).repeat(1000);
    client.stream.set_write_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
    let mut written = 0_u64;
    while let Ok(count) = client.stream.write(frames.as_bytes()) {
        written += count as u64;
        assert!(written < 1 << 30, "a gigabyte of requests is read without an answer being taken");
    }
    let grown = broker.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more for {written} bytes of requests");
    assert_eq!(Client::open(&broker).ask("BEGIN\ntransaction:t\nreceipt:1\n\n"), receipt(1));
}
