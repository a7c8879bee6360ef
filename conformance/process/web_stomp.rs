//! STOMP over WebSocket on the real sockets of the real binary: the handshake, what messages hold, how
//! connections end, and what a peer may not do.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use tokio_tungstenite::tungstenite::{
    Error, Message, WebSocket,
    client::IntoClientRequest as _,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use crate::broker::{Broker, DEADLINE};

/// A client over WebSocket.
struct Client(WebSocket<TcpStream>);

impl Client {
    fn connect(broker: &Broker) -> Self {
        let mut request = format!("ws://127.0.0.1:{}/ws", broker.web_stomp_port()).into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", "v11.stomp, v12.stomp".parse().unwrap());
        let (socket, response) = tokio_tungstenite::tungstenite::client(request, stream(broker)).unwrap();
        assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "v12.stomp");
        Self(socket)
    }

    fn open(broker: &Broker) -> Self {
        let mut client = Self::connect(broker);
        client.text("CONNECT\naccept-version:1.2\nlogin:guest\npasscode:guest\n\n\0");
        assert!(client.hear().starts_with("CONNECTED\n"));
        client
    }

    fn text(&mut self, text: &str) {
        self.0.send(Message::text(text)).unwrap();
    }

    /// The next message, which is a text.
    fn hear(&mut self) -> String {
        match self.0.read().unwrap() {
            Message::Text(text) => text.to_string(),
            other => panic!("{other:?}"),
        }
    }

    /// How it ends.
    fn end(&mut self) -> Option<CloseFrame> {
        loop {
            match self.0.read() {
                Ok(Message::Close(frame)) => return frame,
                Ok(_) => {}
                Err(Error::ConnectionClosed | Error::Io(_) | Error::Protocol(_)) => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn end_code(&mut self) -> Option<CloseCode> {
        self.end().map(|frame| frame.code)
    }

    /// Whether the broker still answers.
    fn is_alive(&mut self) -> bool {
        self.text("BEGIN\ntransaction:t\nreceipt:alive\n\n\0");
        self.hear() == "RECEIPT\nreceipt-id:alive\n\n\0\n"
    }
}

fn stream(broker: &Broker) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", broker.web_stomp_port())).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// What a request is answered by, up to its empty line.
fn answer(broker: &Broker, request: &str) -> String {
    let mut stream = stream(broker);
    stream.write_all(request.as_bytes()).unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"\r\n\r\n") {
        let mut octet = [0];
        if stream.read(&mut octet).unwrap() == 0 {
            break;
        }
        said.push(octet[0]);
    }
    String::from_utf8(said).unwrap().to_lowercase()
}

fn upgrade(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )
}

fn message(number: u64, queue: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "MESSAGE\nsubscription:0\ndestination:/queue/{queue}\nmessage-id:T_0@@SESSION@@{number}\n\
         redelivered:false\ncontent-length:{length}\n\n{body}\0\n"
    )
}

/// With the name of the session taken out.
fn plain(frame: &str) -> String {
    match (frame.find("@@"), frame.rfind("@@")) {
        (Some(from), Some(to)) if from < to => format!("{}@@SESSION{}", &frame[..from], &frame[to..]),
        _ => frame.to_owned(),
    }
}

#[test]
fn a_request_is_answered_by_what_it_asks_for() {
    let broker = Broker::start();
    let switched = answer(&broker, &upgrade("/ws", ""));
    assert!(switched.starts_with("http/1.1 101 ") && !switched.contains("sec-websocket-protocol"), "{switched}");
    assert!(switched.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{switched}");
    for (offered, chosen) in [("v10.stomp", "v10"), ("v10.stomp, v11.stomp", "v11"), ("mqtt, v12.stomp", "v12")] {
        let more = format!("Sec-WebSocket-Protocol: {offered}\r\nOrigin: http://localhost:8080\r\n");
        let switched = answer(&broker, &upgrade("/ws/?x=1", &more));
        assert!(switched.contains(&format!("\r\nsec-websocket-protocol: {chosen}.stomp\r\n")), "{switched}");
    }
    assert!(answer(&broker, &upgrade("/ws", "Sec-WebSocket-Protocol: mqtt\r\n")).starts_with("http/1.1 101 "));
    assert!(answer(&broker, &upgrade("/ws", "Origin: https://app.example.com\r\n")).starts_with("http/1.1 403 "));
    assert!(answer(&broker, &upgrade("/stomp", "")).starts_with("http/1.1 404 "));
    for request in ["GET /ws HTTP/1.1\r\nHost: x\r\n\r\n", "POST /ws HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"]
    {
        let refused = answer(&broker, request);
        assert!(refused.starts_with("http/1.1 426 ") && refused.contains("\r\nupgrade: websocket\r\n"), "{refused}");
    }
    assert_eq!(answer(&broker, "AMQP\0\0\x09\x01\r\n\r\n").get(..12).unwrap_or("http/1.1 400"), "http/1.1 400");
}

#[test]
fn frames_come_one_in_a_message_and_go_in_any_pieces() {
    let broker = Broker::start();
    let mut client = Client::open(&broker);
    client.0.send(Message::binary(&b"SUBSCRIBE\nid:0\ndestination:/queue/w\nreceipt:1\n\n\0"[..])).unwrap();
    assert_eq!(client.hear(), "RECEIPT\nreceipt-id:1\n\n\0\n");
    let send = |body: &str| format!("SEND\ndestination:/queue/w\n\n{body}\0");
    client.text(&(send("a") + "\n" + &send("b") + "SEND\ndest"));
    client.text("ination:/queue/w\n\nc\0");
    let heard: Vec<String> = (0..3).map(|_| plain(&client.hear())).collect();
    assert_eq!(heard, [message(1, "w", "a"), message(2, "w", "b"), message(3, "w", "c")]);
    // A body of many messages, and one of a single large one.
    let long = "0123456789abcdef".repeat(20_000);
    for piece in send(&long).as_bytes().chunks(1000) {
        client.text(std::str::from_utf8(piece).unwrap());
    }
    assert_eq!(plain(&client.hear()), message(4, "w", &long));
    client.text(&send(&long));
    assert_eq!(plain(&client.hear()), message(5, "w", &long));
    // What is no text goes as it is.
    client.0.send(Message::binary(&b"SEND\ndestination:/queue/w\n\n\xff\xfe\0"[..])).unwrap();
    let Message::Binary(octets) = client.0.read().unwrap() else { panic!("a text") };
    assert!(octets.ends_with(b"content-length:2\n\n\xff\xfe\0\n"));
    client.text("DISCONNECT\nreceipt:bye\n\n\0");
    assert_eq!(client.hear(), "RECEIPT\nreceipt-id:bye\n\n\0\n");
    assert_eq!(client.end_code(), Some(CloseCode::Normal));
}

#[test]
fn frames_are_binary_where_the_settings_say_so() {
    let broker = Broker::with(&["web_stomp.ws_frame=binary", "web_stomp.ws_path=/stomp"]);
    assert!(answer(&broker, &upgrade("/ws", "")).starts_with("http/1.1 404 "));
    let request = format!("ws://127.0.0.1:{}/stomp", broker.web_stomp_port()).into_client_request().unwrap();
    let (mut socket, _) = tokio_tungstenite::tungstenite::client(request, stream(&broker)).unwrap();
    socket.send(Message::text("CONNECT\naccept-version:1.2\n\n\0")).unwrap();
    assert!(matches!(socket.read().unwrap(), Message::Binary(octets) if octets.starts_with(b"CONNECTED\n")));
}

#[test]
fn heart_beats_pings_and_closes_are_answered() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker);
    client.text("CONNECT\naccept-version:1.2\nheart-beat:0,1000\n\n\0");
    assert!(client.hear().contains("\nheart-beat:1000,0\n"));
    assert_eq!((client.hear(), client.hear()), ("\n".into(), "\n".into()));
    client.0.send(Message::Ping("hi".into())).unwrap();
    let pong = std::iter::repeat_with(|| client.0.read().unwrap()).find(|message| !message.is_text());
    assert_eq!(pong, Some(Message::Pong("hi".into())));
    client.0.close(None).unwrap();
    assert_eq!(client.end(), None);

    let mut client = Client::connect(&broker);
    client.text("CONNECT\naccept-version:1.2\nheart-beat:1000,0\n\n\0");
    client.hear();
    // Nothing comes: the broker gives up.
    let end = client.end().unwrap();
    assert_eq!((end.code, end.reason.contains("missed heartbeats")), (CloseCode::Normal, true), "{end:?}");
}

#[test]
fn connections_and_listeners_are_listed_and_closed_like_others() {
    let mut broker = Broker::start();
    let mut client = Client::open(&broker);
    let listed = broker.ctl(&["list_connections", "protocol", "user", "state", "pid"]);
    let row: Vec<&str> = listed.lines().last().unwrap().split('\t').collect();
    assert_eq!(row[..3], ["{'Web STOMP',\"1.2\"}", "guest", "running"]);
    let port = broker.web_stomp_port();
    let purpose = format!("port: {port}, protocol: http/web-stomp, purpose: STOMP over WebSockets");
    assert!(broker.ctl(&["status"]).contains(&purpose));
    broker.ctl(&["close_connection", row[3], "enough"]);
    assert!(client.hear().starts_with("ERROR\nmessage:connection_forced\n"));
    assert_eq!(client.end_code(), Some(CloseCode::Normal));
    let mut client = Client::open(&broker);
    broker.ctl(&["stop_app"]);
    assert!(client.hear().starts_with("ERROR\nmessage:connection_forced\n"));
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    broker.ctl(&["start_app"]);
    assert!(Client::open(&broker).is_alive());
    broker.terminate();
    assert!(broker.wait().success());
}

#[test]
fn a_consumer_that_reads_nothing_holds_no_more_than_its_outbox() {
    let broker = Broker::start();
    let mut client = Client::open(&broker);
    client.text("SUBSCRIBE\nid:0\ndestination:/queue/w\n\n\0");
    let mut other = Client::open(&broker);
    let body = "x".repeat(100_000);
    for _ in 0..300 {
        other.text(&format!("SEND\ndestination:/queue/w\n\n{body}\0"));
    }
    assert!(other.is_alive());
    let listed = broker.ctl(&["-q", "list_queues", "messages_ready", "--no-table-headers"]);
    assert!(listed.trim().parse::<u64>().unwrap() > 100, "{listed}");
    for number in 1..=300 {
        let frame = client.hear();
        assert!(plain(&frame) == message(number, "w", &body), "{number}: {}", &frame[..200]);
    }
}

#[test]
fn what_a_peer_may_not_do_ends_its_connection() {
    let broker = Broker::with(&["web_stomp.message_bytes_max=100000", "amqp.handshake_timeout_ms=1000"]);
    let mut client = Client::open(&broker);
    client.text(&format!("SEND\ndestination:/queue/w\n\n{}\0", "x".repeat(99_000)));
    assert!(client.is_alive());
    client.text(&"x".repeat(100_001));
    assert_eq!(client.end_code(), Some(CloseCode::Size));
    // More than a login needs, in messages that are allowed.
    let mut client = Client::connect(&broker);
    let flood = (0..100).try_for_each(|_| client.0.send(Message::text("\n".repeat(10_000))));
    assert!(flood.is_err() || client.end_code().is_none());
    // Not masked.
    let mut client = Client::open(&broker);
    client.0.get_mut().write_all(b"\x81\x05hello").unwrap();
    assert_eq!(client.end_code(), Some(CloseCode::Protocol));
    // A frame that is none.
    let mut client = Client::open(&broker);
    client.text("SEND\nnocolon\n\n\0");
    assert_eq!(client.end().unwrap().reason.as_str(), "header without a colon");
    // No request, and half of one.
    for request in ["", "GET /ws HTTP/1.1\r\nHost: x\r\n"] {
        let mut stream = stream(&broker);
        stream.write_all(request.as_bytes()).unwrap();
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 4"), "{said:?}");
    }
    assert!(Client::open(&broker).is_alive());
}
