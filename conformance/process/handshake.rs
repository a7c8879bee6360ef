//! Peers that have not logged in yet: what they may send, how long they may take, how many there
//! may be, and whose word is taken for their address.

use std::io::Read as _;

use ternmq::protocol::amqp::codec::method::{AMQPClass, connection};

use crate::{
    broker::{Broker, until},
    client::{Client, Login, PROTOCOL_HEADER, Received, start_ok, tune_ok},
};

const TRUSTED: &str = "server.proxy_protocol_trusted=127.0.0.1/32";

/// Log in behind a PROXY header.
fn login_behind(broker: &Broker, header: &[u8]) -> Option<Received> {
    let mut client = Client::connect(broker.port);
    client.write(header);
    client.try_login(&Login::default())
}

fn version_2(command: u8, source: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, 0x11, 0, 12]);
    header.extend(source);
    header.extend([127, 0, 0, 1, 0x12, 0x34, 0x16, 0x28]);
    header
}

fn is_refused(answer: &Option<Received>) -> bool {
    let Some(Received::Method(0, AMQPClass::Connection(connection::AMQPMethod::Close(close)))) = answer else {
        return false;
    };
    close.reply_code == 403
}

#[test]
fn proxy_header_of_a_trusted_peer_tells_the_address_that_counts() {
    let mut broker = Broker::with(&[TRUSTED]);
    // guest may log in from loopback only, so the address that is believed decides.
    assert_eq!(login_behind(&broker, b"PROXY TCP4 127.0.0.9 127.0.0.1 1111 5672\r\n"), None);
    assert!(is_refused(&login_behind(&broker, b"PROXY TCP4 10.9.8.7 127.0.0.1 1111 5672\r\n")));
    assert!(broker.await_log("login refused").contains("10.9.8.7:1111"));
    assert_eq!(login_behind(&broker, &version_2(1, [127, 0, 0, 9])), None);
    assert!(is_refused(&login_behind(&broker, &version_2(1, [10, 9, 8, 7]))));
    // A health check of the load balancer speaks for itself.
    assert_eq!(login_behind(&broker, &version_2(0, [10, 9, 8, 7])), None);
    assert_eq!(login_behind(&broker, b"PROXY UNKNOWN\r\n"), None);
}

#[test]
fn proxy_header_may_arrive_octet_by_octet() {
    let broker = Broker::with(&[TRUSTED]);
    let mut client = Client::connect(broker.port);
    for octet in version_2(1, [127, 0, 0, 9]) {
        client.write(&[octet]);
    }
    assert_eq!(client.try_login(&Login::default()), None);
}

#[test]
fn trusted_peer_without_a_proxy_header_is_closed_without_an_answer() {
    let broker = Broker::with(&[TRUSTED, "amqp.handshake_timeout_ms=500"]);
    let mut client = Client::connect(broker.port);
    client.write(PROTOCOL_HEADER);
    assert_eq!(client.receive(), Received::End);
    let mut silent = Client::connect(broker.port);
    silent.write(b"PROXY TCP4 ");
    assert_eq!(silent.receive(), Received::End);
}

#[test]
fn proxy_header_of_an_untrusted_peer_is_refused_without_an_answer() {
    let broker = Broker::start();
    let mut client = Client::connect(broker.port);
    client.write(b"PROXY TCP4 10.9.8.7 127.0.0.1 1111 5672\r\n");
    assert_eq!(client.receive(), Received::End);
}

#[test]
fn handshake_that_takes_too_long_is_ended_at_every_stage() {
    let mut broker = Broker::with(&["amqp.handshake_timeout_ms=300"]);
    let mut silent = Client::connect(broker.port);
    let mut half = Client::connect(broker.port);
    half.write(&PROTOCOL_HEADER[..5]);
    let mut started = Client::connect(broker.port);
    started.write(PROTOCOL_HEADER);
    let mut tuned = Client::connect(broker.port);
    tuned.write(PROTOCOL_HEADER);
    tuned.send(0, start_ok(&Login::default()));
    tuned.send(0, tune_ok(&Login::default()));
    for client in [&mut silent, &mut half, &mut started, &mut tuned] {
        client.until_end();
        broker.await_log("handshake_timeout");
    }
    // Whoever has logged in is not meant.
    let mut client = broker.client_with(&Login { heartbeat_secs: 1, ..Login::default() });
    for _ in 0..2 {
        assert_eq!(client.receive(), Received::Heartbeat);
    }
    client.close();
}

#[test]
fn handshakes_beyond_the_bound_are_closed_at_once() {
    let broker = Broker::with(&["amqp.pending_handshakes_max=3"]);
    // Those who have logged in do not count.
    let _open = [broker.client(), broker.client(), broker.client()];
    let mut pending: Vec<Client> = (0..3).map(|_| Client::connect(broker.port)).collect();
    for client in &mut pending {
        client.write(PROTOCOL_HEADER);
        assert!(matches!(client.receive(), Received::Method(0, _)));
    }
    let mut further = Client::connect(broker.port);
    assert_eq!(further.receive(), Received::End);
    pending.pop().unwrap().kill();
    until("a place is free again", || {
        let mut client = Client::connect(broker.port);
        // A refused socket may be gone before the header is written.
        let _ = std::io::Write::write_all(&mut client.stream, PROTOCOL_HEADER);
        matches!(client.receive(), Received::Method(0, _))
    });
}

#[test]
fn large_frame_before_the_login_is_refused_by_its_announced_size() {
    let broker = Broker::start();
    let announce = |size: u32| [&[1, 0, 0][..], &size.to_be_bytes()].concat();
    // In place of start-ok, whose table may be longer than other frames.
    let mut client = Client::connect(broker.port);
    client.write(PROTOCOL_HEADER);
    client.receive();
    client.write(&announce(16_385));
    assert_eq!(client.connection_closed().0, 501);
    // In place of tune-ok.
    let mut client = Client::connect(broker.port);
    client.write(PROTOCOL_HEADER);
    client.receive();
    client.send(0, start_ok(&Login::default()));
    client.receive();
    client.write(&announce(4097));
    assert_eq!(client.connection_closed().0, 501);
    // The same frame is welcome once the connection is open.
    let mut client = broker.channel();
    client.declare("q");
    client.publish("q", &[7; 100_000]);
    assert_eq!(client.get("q").map(|message| message.body.len()), Some(100_000));
}

#[test]
fn other_protocols_are_told_what_is_spoken_here() {
    let broker = Broker::start();
    for (noise, answer) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], &b"HTTP/1.1 400"[..]),
        (b"AMQP\x03\x01\x00\x00", b"AMQP\x00\x00\x09\x01"),
        (b"\xDE\xAD\xBE\xEF\xDE\xAD\xBE\xEF", b"AMQP\x00\x00\x09\x01"),
    ] {
        let mut client = Client::connect(broker.port);
        client.write(noise);
        let mut received = Vec::new();
        // A reset after the answer is an end as well.
        let _ = client.stream.read_to_end(&mut received);
        assert!(received.starts_with(answer), "{noise:?} was answered with {received:?}");
    }
    broker.client().close();
}
