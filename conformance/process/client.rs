//! A blocking AMQP client that does what it is told, right or wrong.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpStream},
};

use ternmq::protocol::amqp::codec::{
    frame::{FrameKind, split},
    hot,
    method::{self, AMQPClass, AMQPValue, FieldTable, basic, channel, confirm, connection, queue},
};

use crate::broker::{Broker, DEADLINE};

/// One connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    input: Vec<u8>,
}

/// How to log in.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) user: &'static str,
    pub(crate) password: &'static str,
    pub(crate) vhost: &'static str,
    pub(crate) heartbeat_secs: u16,
    pub(crate) channel_max: u16,
}

impl Login {
    pub(crate) const GUEST: Self =
        Self { user: "guest", password: "guest", vhost: "/", heartbeat_secs: 0, channel_max: 2047 };
}

impl Default for Login {
    fn default() -> Self {
        Self::GUEST
    }
}

/// What the broker sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Received {
    Method(u16, AMQPClass),
    /// Size of the body that follows.
    Header(u64),
    Body(Vec<u8>),
    Heartbeat,
    /// The broker has closed the socket.
    End,
}

/// A message as it was delivered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Delivered {
    pub(crate) tag: u64,
    pub(crate) redelivered: bool,
    pub(crate) body: Vec<u8>,
}

/// The frame size that every client here agrees to.
const FRAME_MAX: u32 = 131_072;
pub(crate) const PROTOCOL_HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";

impl Broker {
    /// A client that has logged in as guest.
    pub(crate) fn client(&self) -> Client {
        self.client_with(&Login::default())
    }

    /// A client that has logged in.
    pub(crate) fn client_with(&self, login: &Login) -> Client {
        let mut client = Client::connect(self.port);
        client.login(login);
        client
    }

    /// A client with an open channel 1.
    pub(crate) fn channel(&self) -> Client {
        let mut client = self.client();
        client.open_channel(1);
        client
    }
}

impl Client {
    /// A connected socket, nothing sent.
    pub(crate) fn connect(port: u16) -> Self {
        Self::over(TcpStream::connect(("127.0.0.1", port)).unwrap())
    }

    /// A client over a socket that is connected already.
    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, input: Vec::new() }
    }

    /// Everything from the protocol header to open-ok.
    pub(crate) fn login(&mut self, login: &Login) {
        assert_eq!(self.try_login(login), None, "the login is accepted");
    }

    /// The same, when a refusal is expected: what came instead of open-ok.
    pub(crate) fn try_login(&mut self, login: &Login) -> Option<Received> {
        self.write(PROTOCOL_HEADER);
        match self.receive() {
            Received::Method(0, AMQPClass::Connection(connection::AMQPMethod::Start(_))) => {}
            other => return Some(other),
        }
        self.send(0, start_ok(login));
        match self.receive() {
            Received::Method(0, AMQPClass::Connection(connection::AMQPMethod::Tune(_))) => {}
            other => return Some(other),
        }
        self.send(0, tune_ok(login));
        self.send(0, open(login.vhost));
        match self.receive() {
            Received::Method(0, AMQPClass::Connection(connection::AMQPMethod::OpenOk(_))) => None,
            other => Some(other),
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn send(&mut self, channel: u16, class: AMQPClass) {
        let mut out = Vec::new();
        method::encode(channel, &class, &mut out);
        self.write(&out);
    }

    /// The next frame.
    pub(crate) fn receive(&mut self) -> Received {
        loop {
            if let Some(received) = self.buffered() {
                return received;
            }
            let mut buffer = [0; 65_536];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Received::End,
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                    return Received::End;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("nothing received: {error}"),
            }
        }
    }

    /// Whether something comes before the read timeout of the socket.
    pub(crate) fn has_input(&mut self) -> bool {
        let mut octet = [0];
        !self.input.is_empty() || self.stream.peek(&mut octet).is_ok_and(|count| count > 0)
    }

    fn buffered(&mut self) -> Option<Received> {
        let frame = split(&self.input, 0, 0).unwrap()?;
        let payload = frame.payload(&self.input);
        let received = match frame.kind {
            FrameKind::Method => Received::Method(frame.channel, method::decode(payload).unwrap()),
            FrameKind::Header => Received::Header(hot::content_header(&self.input, &frame).unwrap().body_size),
            FrameKind::Body => Received::Body(payload.to_vec()),
            FrameKind::Heartbeat => Received::Heartbeat,
        };
        self.input.drain(..frame.next_at());
        Some(received)
    }

    /// The next frame that is no heartbeat, which must be a method.
    pub(crate) fn method(&mut self) -> AMQPClass {
        loop {
            match self.receive() {
                Received::Heartbeat => {}
                Received::Method(_, class) => return class,
                other => panic!("expected a method: {other:?}"),
            }
        }
    }

    /// Reads to the end of the socket and returns the method before it, if there was one.
    pub(crate) fn until_end(&mut self) -> Option<AMQPClass> {
        let mut last = None;
        loop {
            match self.receive() {
                Received::End => return last,
                Received::Method(_, class) => last = Some(class),
                _ => {}
            }
        }
    }

    /// Reads until the broker closes the connection and returns code and text; answers nothing.
    pub(crate) fn connection_closed(&mut self) -> (u16, String) {
        loop {
            match self.receive() {
                Received::Method(0, AMQPClass::Connection(connection::AMQPMethod::Close(close))) => {
                    return (close.reply_code, close.reply_text.to_string());
                }
                Received::End => panic!("the socket ended without connection.close"),
                _ => {}
            }
        }
    }

    pub(crate) fn send_close_ok(&mut self) {
        let close_ok = connection::AMQPMethod::CloseOk(connection::CloseOk {});
        self.send(0, AMQPClass::Connection(close_ok));
    }

    pub(crate) fn open_channel(&mut self, number: u16) {
        self.send(number, AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {})));
        let answer = self.method();
        assert!(matches!(answer, AMQPClass::Channel(channel::AMQPMethod::OpenOk(_))), "{answer:?}");
    }

    /// Declares a queue and returns its counts of messages and consumers.
    pub(crate) fn declare(&mut self, name: &str) -> (u32, u32) {
        self.declare_with(queue::Declare { queue: name.into(), ..queue::Declare::default() })
    }

    pub(crate) fn declare_with(&mut self, declare: queue::Declare) -> (u32, u32) {
        self.send(1, AMQPClass::Queue(queue::AMQPMethod::Declare(declare)));
        match self.method() {
            AMQPClass::Queue(queue::AMQPMethod::DeclareOk(ok)) => (ok.message_count, ok.consumer_count),
            other => panic!("expected queue.declare-ok: {other:?}"),
        }
    }

    /// Ready messages and consumers of a queue; nothing if there is none. Closes channel 2.
    pub(crate) fn look(&mut self, name: &str) -> Option<(u32, u32)> {
        self.open_channel(2);
        let declare = queue::Declare { queue: name.into(), passive: true, ..queue::Declare::default() };
        self.send(2, AMQPClass::Queue(queue::AMQPMethod::Declare(declare)));
        let (answer, found) = match self.method() {
            AMQPClass::Queue(queue::AMQPMethod::DeclareOk(ok)) => {
                (channel::AMQPMethod::Close(channel::Close::default()), Some((ok.message_count, ok.consumer_count)))
            }
            AMQPClass::Channel(channel::AMQPMethod::Close(close)) if close.reply_code == 404 => {
                (channel::AMQPMethod::CloseOk(channel::CloseOk {}), None)
            }
            other => panic!("unexpected answer: {other:?}"),
        };
        self.send(2, AMQPClass::Channel(answer));
        if found.is_some() {
            let closed = self.method();
            assert!(matches!(closed, AMQPClass::Channel(channel::AMQPMethod::CloseOk(_))), "{closed:?}");
        }
        found
    }

    pub(crate) fn select_confirms(&mut self) {
        let select = confirm::AMQPMethod::Select(confirm::Select::default());
        self.send(1, AMQPClass::Confirm(select));
        let answer = self.method();
        assert!(matches!(answer, AMQPClass::Confirm(confirm::AMQPMethod::SelectOk(_))), "{answer:?}");
    }

    pub(crate) fn publish(&mut self, queue: &str, body: &[u8]) {
        self.write(&publish(queue, body));
    }

    /// With properties as they are on the wire.
    pub(crate) fn publish_with(&mut self, queue: &str, body: &[u8], properties: &[u8]) {
        self.write(&publish_with(queue, body, properties));
    }

    /// Publishes and waits for the confirm of the number `upto`.
    pub(crate) fn await_confirm(&mut self, upto: u64) {
        loop {
            match self.method() {
                AMQPClass::Basic(basic::AMQPMethod::Ack(ack)) if ack.delivery_tag == upto => return,
                AMQPClass::Basic(basic::AMQPMethod::Ack(ack)) => assert!(ack.delivery_tag < upto),
                other => panic!("expected basic.ack: {other:?}"),
            }
        }
    }

    pub(crate) fn qos(&mut self, count: u16) {
        let qos = basic::Qos { prefetch_count: count, ..basic::Qos::default() };
        self.send(1, AMQPClass::Basic(basic::AMQPMethod::Qos(qos)));
        let answer = self.method();
        assert!(matches!(answer, AMQPClass::Basic(basic::AMQPMethod::QosOk(_))), "{answer:?}");
    }

    /// Starts a consumer whose tag is `c`.
    pub(crate) fn consume(&mut self, queue: &str, no_ack: bool) {
        self.send(1, consume(queue, "c", no_ack));
        let answer = self.method();
        assert!(matches!(answer, AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(_))), "{answer:?}");
    }

    /// The next delivery.
    pub(crate) fn delivery(&mut self) -> Delivered {
        let deliver = match self.method() {
            AMQPClass::Basic(basic::AMQPMethod::Deliver(deliver)) => deliver,
            other => panic!("expected basic.deliver: {other:?}"),
        };
        let body = self.content();
        Delivered { tag: deliver.delivery_tag, redelivered: deliver.redelivered, body }
    }

    /// One message by basic.get without acknowledgement.
    pub(crate) fn get(&mut self, queue: &str) -> Option<Delivered> {
        let get = basic::Get { queue: queue.into(), no_ack: true };
        self.send(1, AMQPClass::Basic(basic::AMQPMethod::Get(get)));
        match self.method() {
            AMQPClass::Basic(basic::AMQPMethod::GetOk(ok)) => {
                let body = self.content();
                Some(Delivered { tag: ok.delivery_tag, redelivered: ok.redelivered, body })
            }
            AMQPClass::Basic(basic::AMQPMethod::GetEmpty(_)) => None,
            other => panic!("expected an answer to basic.get: {other:?}"),
        }
    }

    fn content(&mut self) -> Vec<u8> {
        let Received::Header(size) = self.receive() else { panic!("expected a header") };
        let mut body = Vec::new();
        while (body.len() as u64) < size {
            let Received::Body(part) = self.receive() else { panic!("expected a body") };
            body.extend_from_slice(&part);
        }
        body
    }

    pub(crate) fn ack(&mut self, tag: u64, multiple: bool) {
        let ack = basic::Ack { delivery_tag: tag, multiple };
        self.send(1, AMQPClass::Basic(basic::AMQPMethod::Ack(ack)));
    }

    /// Ends the connection as a crash of the client would: without a word of AMQP.
    pub(crate) fn kill(self) {
        // The peer may have been faster.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Closes the connection politely and waits for the answer.
    pub(crate) fn close(mut self) {
        let close = connection::Close { reply_code: 200, ..connection::Close::default() };
        self.send(0, AMQPClass::Connection(connection::AMQPMethod::Close(close)));
        loop {
            match self.receive() {
                Received::Method(0, AMQPClass::Connection(connection::AMQPMethod::CloseOk(_))) => return,
                Received::End => panic!("the socket ended without connection.close-ok"),
                _ => {}
            }
        }
    }
}

pub(crate) fn start_ok(login: &Login) -> AMQPClass {
    let mut capabilities = FieldTable::default();
    for name in ["authentication_failure_close", "connection.blocked", "consumer_cancel_notify"] {
        capabilities.insert(name.into(), AMQPValue::Boolean(true));
    }
    let mut client_properties = FieldTable::default();
    client_properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
    let start_ok = connection::StartOk {
        client_properties,
        mechanism: "PLAIN".into(),
        response: format!("\0{}\0{}", login.user, login.password).into(),
        locale: "en_US".into(),
    };
    AMQPClass::Connection(connection::AMQPMethod::StartOk(start_ok))
}

pub(crate) fn tune_ok(login: &Login) -> AMQPClass {
    let tune_ok =
        connection::TuneOk { channel_max: login.channel_max, frame_max: FRAME_MAX, heartbeat: login.heartbeat_secs };
    AMQPClass::Connection(connection::AMQPMethod::TuneOk(tune_ok))
}

pub(crate) fn open(vhost: &str) -> AMQPClass {
    AMQPClass::Connection(connection::AMQPMethod::Open(connection::Open { virtual_host: vhost.into() }))
}

pub(crate) fn consume(queue: &str, tag: &str, no_ack: bool) -> AMQPClass {
    let consume = basic::Consume { queue: queue.into(), consumer_tag: tag.into(), no_ack, ..basic::Consume::default() };
    AMQPClass::Basic(basic::AMQPMethod::Consume(consume))
}

/// A message for the default exchange, on channel 1.
pub(crate) fn publish(queue: &str, body: &[u8]) -> Vec<u8> {
    publish_with(queue, body, &[0, 0])
}

fn publish_with(queue: &str, body: &[u8], properties: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 128);
    let publish = basic::Publish { routing_key: queue.into(), ..basic::Publish::default() };
    method::encode(1, &AMQPClass::Basic(basic::AMQPMethod::Publish(publish)), &mut out);
    hot::put_content_header(&mut out, 1, body.len() as u64, properties);
    if !body.is_empty() {
        hot::put_body_contiguous(&mut out, 1, FRAME_MAX, body);
    }
    out
}
