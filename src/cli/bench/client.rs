//! A blocking AMQP 0-9-1 connection with one channel: handshake, topology calls, raw frames.
//!
//! Not a client library: no recovery, no heartbeats of its own (it negotiates none), and any
//! surprise ends the measurement with the broker's own words.
//!
//! The socket stays in blocking mode with a receive timeout; writes that could deadlock against a
//! broker that is itself waiting for us use MSG_DONTWAIT and then poll for both directions.

use super::{
    failure::Failure,
    url::Url,
    wire::{self, Arguments, Encode, Field, id},
};
use bytes::BufMut;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::SendFlags,
};
use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

/// The channel that every connection here uses.
pub(super) const CHANNEL: u16 = 1;

/// How long a read waits before its caller may look at the stop flags.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// How long the broker may take to answer a call.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// An open connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: TcpStream,
    /// The negotiated limit of a frame, its eight bytes of overhead included.
    pub(super) frame_max: usize,
    /// Input that is not decoded yet, while replies are awaited.
    input: Vec<u8>,
    output: Vec<u8>,
}

/// The options of a queue.
#[derive(Debug, Clone, Default)]
pub(super) struct QueueOptions {
    pub(super) durable: bool,
    pub(super) auto_delete: bool,
    /// The argument `x-queue-type`, where given.
    pub(super) kind: Option<String>,
    /// Arguments that are numbers.
    pub(super) numbers: Vec<(String, i64)>,
}

impl Client {
    /// Connects, logs in, opens the vhost and a channel.
    pub(super) fn connect(url: &Url, name: &str) -> Result<Self, Failure> {
        let mut client = Self::connect_without_channel(url, name)?;
        client.open_channel()?;
        Ok(client)
    }

    fn connect_without_channel(url: &Url, name: &str) -> Result<Self, Failure> {
        let stream = open_socket(url)?;
        let mut client = Self { stream, frame_max: wire::FRAME_MAX as usize, input: Vec::new(), output: Vec::new() };
        client.handshake(url, name)?;
        Ok(client)
    }

    fn handshake(&mut self, url: &Url, name: &str) -> Result<(), Failure> {
        self.output.extend_from_slice(wire::PROTOCOL_HEADER);
        self.flush()?;
        self.reply(id::CONNECTION_START, |_| Ok(()))?;
        self.output.method(0, id::CONNECTION_START_OK, |out| {
            out.put_table(&[
                ("product", Field::Text("tern bench")),
                ("version", Field::Text(env!("CARGO_PKG_VERSION"))),
                ("connection_name", Field::Text(name)),
                (
                    "capabilities",
                    Field::Table(&[
                        ("consumer_cancel_notify", Field::Flag(true)),
                        ("connection.blocked", Field::Flag(true)),
                        ("authentication_failure_close", Field::Flag(true)),
                        ("basic.nack", Field::Flag(true)),
                        ("publisher_confirms", Field::Flag(true)),
                    ]),
                ),
            ]);
            out.put_short(b"PLAIN");
            out.put_long(format!("\0{}\0{}", url.user, url.password).as_bytes());
            out.put_short(b"en_US");
        });
        self.flush()?;
        let (channel_max, frame_max) =
            self.reply(id::CONNECTION_TUNE, |arguments| Ok((arguments.u16()?, arguments.u32()?)))?;
        // Zero means that the broker sets no limit.
        let frame_max = if frame_max == 0 { wire::FRAME_MAX } else { frame_max.min(wire::FRAME_MAX) };
        self.frame_max = frame_max as usize;
        self.output.method(0, id::CONNECTION_TUNE_OK, |out| {
            out.put_u16(channel_max);
            out.put_u32(frame_max);
            out.put_u16(0);
        });
        self.output.method(0, id::CONNECTION_OPEN, |out| {
            out.put_short(url.vhost.as_bytes());
            out.put_short(b"");
            out.push(0);
        });
        self.flush()?;
        self.reply(id::CONNECTION_OPEN_OK, |_| Ok(()))
    }

    fn open_channel(&mut self) -> Result<(), Failure> {
        self.call(CHANNEL, id::CHANNEL_OPEN, id::CHANNEL_OPEN_OK, |out| out.put_short(b""))
    }

    pub(super) fn declare_queue(&mut self, name: &str, options: &QueueOptions) -> Result<(), Failure> {
        self.push_declare_queue(name, options);
        self.flush()?;
        self.await_reply(id::QUEUE_DECLARE_OK)
    }

    /// Queues the call without sending it; `flush` sends, `await_reply` takes each answer.
    pub(super) fn push_declare_queue(&mut self, name: &str, options: &QueueOptions) {
        const DURABLE: u8 = 2;
        const AUTO_DELETE: u8 = 8;
        self.output.method(CHANNEL, id::QUEUE_DECLARE, |out| {
            out.put_u16(0);
            out.put_short(name.as_bytes());
            let durable = if options.durable { DURABLE } else { 0 };
            let auto_delete = if options.auto_delete { AUTO_DELETE } else { 0 };
            out.push(durable | auto_delete);
            let kind = options.kind.iter().map(|kind| ("x-queue-type", Field::Text(kind)));
            let numbers = options.numbers.iter().map(|(name, number)| (name.as_str(), Field::Number(*number)));
            out.put_table(&kind.chain(numbers).collect::<Vec<_>>());
        });
    }

    pub(super) fn delete_queue(&mut self, name: &str) -> Result<(), Failure> {
        self.push_delete_queue(name);
        self.flush()?;
        self.await_reply(id::QUEUE_DELETE_OK)
    }

    /// Queues the call without sending it, like `push_declare_queue`.
    pub(super) fn push_delete_queue(&mut self, name: &str) {
        self.output.method(CHANNEL, id::QUEUE_DELETE, |out| {
            out.put_u16(0);
            out.put_short(name.as_bytes());
            out.push(0);
        });
    }

    pub(super) fn declare_exchange(&mut self, name: &str, kind: &str) -> Result<(), Failure> {
        self.call(CHANNEL, id::EXCHANGE_DECLARE, id::EXCHANGE_DECLARE_OK, |out| {
            out.put_u16(0);
            out.put_short(name.as_bytes());
            out.put_short(kind.as_bytes());
            out.push(0);
            out.put_table(&[]);
        })
    }

    pub(super) fn delete_exchange(&mut self, name: &str) -> Result<(), Failure> {
        self.call(CHANNEL, id::EXCHANGE_DELETE, id::EXCHANGE_DELETE_OK, |out| {
            out.put_u16(0);
            out.put_short(name.as_bytes());
            out.push(0);
        })
    }

    pub(super) fn bind(&mut self, queue: &str, exchange: &str, key: &str) -> Result<(), Failure> {
        self.call(CHANNEL, id::QUEUE_BIND, id::QUEUE_BIND_OK, |out| {
            out.put_u16(0);
            out.put_short(queue.as_bytes());
            out.put_short(exchange.as_bytes());
            out.put_short(key.as_bytes());
            out.push(0);
            out.put_table(&[]);
        })
    }

    pub(super) fn prefetch(&mut self, count: u16) -> Result<(), Failure> {
        self.call(CHANNEL, id::BASIC_QOS, id::BASIC_QOS_OK, |out| {
            out.put_u32(0);
            out.put_u16(count);
            out.push(0);
        })
    }

    pub(super) fn consume(&mut self, queue: &str, auto_ack: bool) -> Result<(), Failure> {
        const NO_ACK: u8 = 2;
        self.call(CHANNEL, id::BASIC_CONSUME, id::BASIC_CONSUME_OK, |out| {
            out.put_u16(0);
            out.put_short(queue.as_bytes());
            out.put_short(b"");
            out.push(if auto_ack { NO_ACK } else { 0 });
            out.put_table(&[]);
        })
    }

    pub(super) fn select_confirms(&mut self) -> Result<(), Failure> {
        self.call(CHANNEL, id::CONFIRM_SELECT, id::CONFIRM_SELECT_OK, |out| out.push(0))
    }

    /// Takes the next message of a queue for good and returns its body.
    pub(super) fn take(&mut self, queue: &str) -> Result<Vec<u8>, Failure> {
        const NO_ACK: u8 = 1;
        self.output.method(CHANNEL, id::BASIC_GET, |out| {
            out.put_u16(0);
            out.put_short(queue.as_bytes());
            out.push(NO_ACK);
        });
        self.flush()?;
        self.await_reply(id::BASIC_GET_OK)?;
        let mut body = Vec::new();
        let mut body_bytes = None;
        while body_bytes.is_none_or(|bytes| (body.len() as u64) < bytes) {
            let Some(frame) = wire::decode(&self.input)? else {
                self.read_more()?;
                continue;
            };
            match frame.kind {
                wire::HEADER => body_bytes = Some(frame.body_bytes()?),
                wire::BODY => body.extend_from_slice(frame.payload),
                wire::METHOD => {
                    check_method(frame.method()?, &mut frame.arguments(), &mut self.output)?;
                }
                _ => {}
            }
            let used = frame.bytes();
            self.input.drain(..used);
        }
        Ok(body)
    }

    /// Queues messages that were encoded already, for `flush`.
    pub(super) fn push_encoded(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
    }

    /// Closes in good order and waits for the broker's answer; deliveries on the way are dropped.
    pub(super) fn close(&mut self) -> Result<(), Failure> {
        self.output.method(0, id::CONNECTION_CLOSE, |out| {
            out.put_u16(200);
            out.put_short(b"Goodbye");
            out.put_u32(0);
        });
        self.flush()?;
        self.await_reply(id::CONNECTION_CLOSE_OK)
    }

    fn call(&mut self, channel: u16, method: u32, reply: u32, fill: impl FnOnce(&mut Vec<u8>)) -> Result<(), Failure> {
        self.output.method(channel, method, fill);
        self.flush()?;
        self.await_reply(reply)
    }

    /// Sends what was queued.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        let sent = self.stream.write_all(&self.output);
        self.output.clear();
        match sent {
            Ok(()) => Ok(()),
            // A broker that refuses us may close before it has read everything: its reason is in
            // the input, so let the read report it.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(Failure::io("writing to the broker")(error)),
        }
    }

    pub(super) fn await_reply(&mut self, method: u32) -> Result<(), Failure> {
        self.reply(method, |_| Ok(()))
    }

    /// Reads until `method` arrives and hands its arguments to `take`.
    fn reply<T>(
        &mut self,
        method: u32,
        take: impl FnOnce(&mut Arguments<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let deadline = Instant::now() + REPLY_TIMEOUT;
        let mut at = 0;
        let taken = loop {
            match wire::decode(&self.input[at..])? {
                Some(frame) => {
                    at += frame.bytes();
                    if frame.kind == wire::METHOD {
                        let got = frame.method()?;
                        if got == method {
                            break take(&mut frame.arguments())?;
                        }
                        check_method(got, &mut frame.arguments(), &mut self.output)?;
                    }
                }
                None => {
                    self.input.drain(..at);
                    at = 0;
                    if Instant::now() > deadline {
                        return Err(Failure::Timeout(format!("the broker's {}", method_name(method))));
                    }
                    self.read_more()?;
                }
            }
        };
        self.input.drain(..at);
        Ok(taken)
    }

    fn read_more(&mut self) -> Result<(), Failure> {
        const READ_BYTES: usize = 16 * 1024;
        let mut piece = [0; READ_BYTES];
        let read = receive(&self.stream, &mut piece)?;
        self.input.extend_from_slice(&piece[..read]);
        Ok(())
    }

    /// Hands over the socket for raw work, and input that was read already.
    pub(super) fn take_input(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.input)
    }
}

/// A socket to the broker, with a receive timeout of a tick.
pub(super) fn open_socket(url: &Url) -> Result<TcpStream, Failure> {
    let doing = || format!("connecting to {url}");
    let addresses = (url.host.as_str(), url.port).to_socket_addrs().map_err(Failure::io(doing()))?;
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let mut stream = None;
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(connected) => {
                stream = Some(connected);
                break;
            }
            Err(error) => last = error,
        }
    }
    let stream = stream.ok_or(last).map_err(Failure::io(doing()))?;
    stream.set_nodelay(true).map_err(Failure::io(doing()))?;
    stream.set_read_timeout(Some(TICK)).map_err(Failure::io(doing()))?;
    Ok(stream)
}

/// Reads what has arrived; 0 when nothing came within a tick.
pub(super) fn receive(mut stream: &TcpStream, buffer: &mut [u8]) -> Result<usize, Failure> {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    match stream.read(buffer) {
        Ok(0) => Err(Failure::protocol("the broker closed the socket without a reason")),
        Ok(read) => Ok(read),
        Err(error) if matches!(error.kind(), WouldBlock | TimedOut | Interrupted) => Ok(0),
        Err(error) => Err(Failure::io("reading from the broker")(error)),
    }
}

/// Sends what the socket takes at once; 0 when it is full.
pub(super) fn send_now(stream: &TcpStream, bytes: &[u8]) -> Result<usize, Failure> {
    match rustix::net::send(stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Ok(sent) => Ok(sent),
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        Err(errno) => Err(Failure::io("writing to the broker")(errno.into())),
    }
}

/// Waits at most `timeout` until the socket has input or, with `output`, room for more; tells whether
/// there is input.
pub(super) fn wait(stream: &TcpStream, output: bool, timeout: Duration) -> Result<bool, Failure> {
    let wanted = if output { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
    let mut fds = [PollFd::new(stream, wanted)];
    let timeout = Timespec::try_from(timeout).map_err(|_| Failure::usage("a timeout too long"))?;
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(Failure::io("waiting for the broker")(errno.into())),
    }
    // A broken socket is read, so that the read tells what happened.
    let events = fds[0].revents();
    Ok(events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR))
}

/// What a method that nobody asked for means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unasked {
    /// The broker reads no more publishes until further notice.
    Blocked,
    Unblocked,
    /// Nothing that matters here.
    Ignored,
}

/// Judges a method that is not the awaited one; a closing method is a failure with its text.
/// An answer that is due is appended to `output`.
pub(super) fn check_method(
    method: u32,
    arguments: &mut Arguments<'_>,
    output: &mut Vec<u8>,
) -> Result<Unasked, Failure> {
    let closed = |what, arguments: &mut Arguments<'_>| -> Result<Unasked, Failure> {
        Err(Failure::Closed { what, code: arguments.u16()?, text: arguments.text()? })
    };
    match method {
        id::CONNECTION_CLOSE => closed("connection", arguments),
        id::CHANNEL_CLOSE => closed("channel", arguments),
        id::BASIC_CANCEL => Err(Failure::protocol(format!("the broker cancelled the consumer {}", arguments.text()?))),
        id::CONNECTION_BLOCKED => {
            eprintln!("the broker blocks publishers: {}", arguments.text()?);
            Ok(Unasked::Blocked)
        }
        id::CONNECTION_UNBLOCKED => {
            eprintln!("the broker takes publishes again");
            Ok(Unasked::Unblocked)
        }
        id::CHANNEL_FLOW => {
            let active = arguments.u8()?;
            output.method(CHANNEL, id::CHANNEL_FLOW_OK, |out| out.push(active));
            Ok(Unasked::Ignored)
        }
        id::BASIC_DELIVER | id::BASIC_RETURN | id::BASIC_ACK | id::BASIC_NACK => Ok(Unasked::Ignored),
        other => Err(Failure::protocol(format!("an unexpected {}", method_name(other)))),
    }
}

fn method_name(method: u32) -> String {
    let known = match method {
        id::CONNECTION_START => "connection.start",
        id::CONNECTION_TUNE => "connection.tune",
        id::CONNECTION_OPEN_OK => "connection.open-ok",
        id::CONNECTION_CLOSE_OK => "connection.close-ok",
        id::CHANNEL_OPEN_OK => "channel.open-ok",
        id::CHANNEL_CLOSE_OK => "channel.close-ok",
        id::EXCHANGE_DECLARE_OK => "exchange.declare-ok",
        id::EXCHANGE_DELETE_OK => "exchange.delete-ok",
        id::QUEUE_DECLARE_OK => "queue.declare-ok",
        id::QUEUE_BIND_OK => "queue.bind-ok",
        id::QUEUE_DELETE_OK => "queue.delete-ok",
        id::BASIC_QOS_OK => "basic.qos-ok",
        id::BASIC_CONSUME_OK => "basic.consume-ok",
        id::BASIC_GET_OK => "basic.get-ok",
        id::BASIC_GET_EMPTY => "basic.get-empty",
        id::CONFIRM_SELECT_OK => "confirm.select-ok",
        _ => return format!("method {}.{}", method >> 16, method & 0xffff),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closing_method_fails_with_the_brokers_words() {
        let mut payload = Vec::new();
        payload.put_u16(404);
        payload.put_short(b"NOT_FOUND - no queue 'q'");
        let mut frame = Vec::new();
        frame.method(1, id::CHANNEL_CLOSE, |out| out.extend_from_slice(&payload));
        let frame = wire::decode(&frame).unwrap().unwrap();
        let failure = check_method(id::CHANNEL_CLOSE, &mut frame.arguments(), &mut Vec::new());
        assert_eq!(failure.unwrap_err().to_string(), "the broker closed the channel: 404 NOT_FOUND - no queue 'q'");
    }
}
