//! The little STOMP 1.2 that a load needs, over a blocking socket: log in, subscribe, take frames apart.
//!
//! Deliberately apart from the broker's own codec, like [`super::wire`]. Queues come with their
//! subscription and go with it; messages go to `/amq/queue/NAME` where the broker knows that, so that
//! SEND has nothing to declare, and to `/queue/NAME` elsewhere.

use super::{
    client::{open_socket, receive},
    failure::Failure,
    plan::{Consuming, Plan},
    url::Url,
    wire::{GROUP_HEADER, Properties},
};
use memchr::memchr;
use std::{
    io::Write,
    net::TcpStream,
    time::{Duration, Instant},
};

/// Digits of a receipt's number: as many in each, so that they can be renewed in place.
pub(super) const RECEIPT_DIGITS: usize = 15;

const REPLY_TIMEOUT: Duration = Duration::from_secs(60);
/// Octets of a frame beyond which a peer is not speaking STOMP with us.
const FRAME_BYTES_MAX: usize = 256 << 20;

/// A connection that has logged in.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: TcpStream,
    input: Vec<u8>,
    /// What stands before a queue's name in a SEND.
    pub(super) queue_prefix: &'static str,
}

/// One complete frame inside a larger buffer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) command: &'a [u8],
    /// The headers, as they stand there.
    pub(super) headers: &'a [u8],
    pub(super) body: &'a [u8],
    /// What the client acknowledges it by.
    pub(super) ack: &'a [u8],
    pub(super) receipt_id: &'a [u8],
    /// Of the whole frame, line ends before it included.
    pub(super) bytes: usize,
}

impl Client {
    pub(super) fn connect(url: &Url) -> Result<Self, Failure> {
        let stream = open_socket(url)?;
        let mut client = Self { stream, input: Vec::new(), queue_prefix: "/queue/" };
        let Url { user, password, vhost, .. } = url;
        client.say(&format!(
            "CONNECT\naccept-version:1.2\nheart-beat:0,0\nhost:{vhost}\nlogin:{user}\npasscode:{password}\n\n\0"
        ))?;
        let is_rabbitmq = client.await_frame(b"CONNECTED", |frame| {
            frame.headers.split(|octet| *octet == b'\n').any(|line| line.starts_with(b"server:RabbitMQ"))
        })?;
        if is_rabbitmq {
            client.queue_prefix = "/amq/queue/";
        }
        Ok(client)
    }

    /// Subscribes to a queue of the plan, which exists from then on.
    pub(super) fn subscribe(&mut self, plan: &Plan, queue: usize) -> Result<(), Failure> {
        let options = &plan.queue_options;
        let mut frame = format!("SUBSCRIBE\nid:0\nreceipt:0\ndestination:/queue/{}\n", plan.queues[queue]);
        frame += &format!("durable:{}\nauto-delete:{}\n", options.durable, options.auto_delete);
        if let Some(kind) = &options.kind {
            frame += &format!("x-queue-type:{kind}\n");
        }
        for (name, number) in &options.numbers {
            frame += &format!("{name}:{number}\n");
        }
        frame += &match plan.consuming {
            Consuming::AutoAck => "ack:auto\n".to_owned(),
            Consuming::Manual { prefetch: 0, .. } => "ack:client\n".to_owned(),
            // RabbitMQ knows the first of these names, ActiveMQ the second.
            Consuming::Manual { prefetch, .. } => {
                format!("ack:client\nprefetch-count:{prefetch}\nactivemq.prefetchSize:{prefetch}\n")
            }
        };
        frame += "\n\0";
        self.say(&frame)?;
        self.await_frame(b"RECEIPT", |_| ())
    }

    /// Ends in good order and waits for the broker's answer; what is on the way is dropped.
    pub(super) fn close(&mut self) -> Result<(), Failure> {
        self.say("DISCONNECT\nreceipt:bye\n\n\0")?;
        while !self.await_frame(b"RECEIPT", |frame| frame.receipt_id == b"bye")? {}
        Ok(())
    }

    /// Hands over input that was read already, for raw work.
    pub(super) fn take_input(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.input)
    }

    fn say(&mut self, frame: &str) -> Result<(), Failure> {
        self.stream.write_all(frame.as_bytes()).map_err(Failure::io("writing to the broker"))
    }

    /// Reads until a frame with `command` arrives and hands it to `take`.
    fn await_frame<T>(&mut self, command: &[u8], take: impl Fn(&Frame<'_>) -> T) -> Result<T, Failure> {
        let deadline = Instant::now() + REPLY_TIMEOUT;
        let mut at = 0;
        loop {
            while let Some(frame) = decode(&self.input[at..])? {
                at += frame.bytes;
                check(&frame)?;
                if frame.command == command {
                    let taken = take(&frame);
                    self.input.drain(..at);
                    return Ok(taken);
                }
            }
            if Instant::now() > deadline {
                return Err(Failure::Timeout(format!("the broker's {}", String::from_utf8_lossy(command))));
            }
            let mut piece = [0; 16 * 1024];
            let read = receive(&self.stream, &mut piece)?;
            self.input.extend_from_slice(&piece[..read]);
        }
    }
}

/// An ERROR is a failure with the broker's own words.
pub(super) fn check(frame: &Frame<'_>) -> Result<(), Failure> {
    if frame.command != b"ERROR" {
        return Ok(());
    }
    let headers = frame.headers.split(|octet| *octet == b'\n');
    let message = headers.filter_map(|line| line.strip_prefix(b"message:")).next().unwrap_or_default();
    let (message, body) = (String::from_utf8_lossy(message), String::from_utf8_lossy(frame.body));
    Err(Failure::Refused(format!("{message}: {}", body.trim_end())))
}

/// The first frame of `input`, or `None` while it is incomplete.
#[inline]
pub(super) fn decode(input: &[u8]) -> Result<Option<Frame<'_>>, Failure> {
    let begin = input.iter().take_while(|octet| matches!(octet, b'\n' | b'\r')).count();
    let rest = &input[begin..];
    let mut frame = Frame::default();
    let mut length = None;
    let mut at = 0;
    loop {
        let Some(len) = memchr(b'\n', &rest[at..]) else {
            if rest.len() > FRAME_BYTES_MAX || rest.starts_with(b"AMQP") {
                let start = String::from_utf8_lossy(&rest[..rest.len().min(64)]);
                return Err(Failure::protocol(format!("the peer does not speak STOMP: it sent {start:?}")));
            }
            return Ok(None);
        };
        let line = &rest[at..at + len];
        if at == 0 {
            frame.command = line;
        } else if line.is_empty() {
            break;
        } else if let Some(value) = line.strip_prefix(b"content-length:") {
            let bad = || Failure::protocol("a content-length that is no number");
            length = Some(number(value).filter(|bytes| *bytes <= FRAME_BYTES_MAX as u64).ok_or_else(bad)? as usize);
        } else if let Some(value) = line.strip_prefix(b"ack:") {
            frame.ack = value;
        } else if let Some(value) = line.strip_prefix(b"receipt-id:") {
            frame.receipt_id = value;
        }
        at += len + 1;
    }
    frame.headers = &rest[frame.command.len() + 1..at];
    let body = &rest[at + 1..];
    let length = match length {
        Some(length) if length >= body.len() => return Ok(None),
        Some(length) => length,
        None => match memchr(0, body) {
            Some(length) => length,
            None => return Ok(None),
        },
    };
    if body[length] != 0 {
        return Err(Failure::protocol("a frame without a NUL at its end"));
    }
    frame.body = &body[..length];
    frame.bytes = begin + at + 1 + length + 1;
    Ok(Some(frame))
}

/// A decimal number.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Appends a SEND. With `has_receipt` it asks for one, whose number stands as zero so far; returns
/// where its digits are.
pub(super) fn encode_send(
    out: &mut Vec<u8>,
    destination: &str,
    properties: Properties,
    body: &[u8],
    has_receipt: bool,
) -> Option<usize> {
    out.extend_from_slice(format!("SEND\ndestination:{destination}\n").as_bytes());
    if properties.persistent {
        out.extend_from_slice(b"persistent:true\n");
    }
    if let Some(priority) = properties.priority {
        out.extend_from_slice(format!("priority:{priority}\n").as_bytes());
    }
    if let Some(expiration) = properties.expiration {
        out.extend_from_slice(format!("expiration:{expiration}\n").as_bytes());
    }
    if let Some(group) = properties.group_name() {
        out.extend_from_slice(format!("{GROUP_HEADER}:{group}\n").as_bytes());
    }
    let digits_at = has_receipt.then(|| {
        out.extend_from_slice(b"receipt:");
        out.resize(out.len() + RECEIPT_DIGITS, b'0');
        out.len() - RECEIPT_DIGITS
    });
    if has_receipt {
        out.push(b'\n');
    }
    out.extend_from_slice(format!("content-length:{}\n\n", body.len()).as_bytes());
    out.extend_from_slice(body);
    out.push(0);
    digits_at
}

/// Writes a number over all of `digits`.
pub(super) fn renew_receipt(digits: &mut [u8], mut number: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Appends an ACK of all messages up to the one that is called `ack`.
pub(super) fn encode_ack(out: &mut Vec<u8>, ack: &[u8]) {
    out.extend_from_slice(b"ACK\nid:");
    out.extend_from_slice(ack);
    out.extend_from_slice(b"\n\n\0");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_frame_is_none_at_every_length() {
        let input = b"\nMESSAGE\nack:T_0@@s@@1\ncontent-length:3\n\na\0b\0\n";
        let whole = input.len() - 1;
        for bytes in 0..whole {
            assert_eq!(decode(&input[..bytes]).unwrap(), None, "{bytes}");
        }
        let frame = decode(input).unwrap().unwrap();
        assert_eq!((frame.command, frame.body, frame.ack), (&b"MESSAGE"[..], &b"a\0b"[..], &b"T_0@@s@@1"[..]));
        assert_eq!(frame.bytes, whole);
    }

    #[test]
    fn a_body_without_a_length_ends_at_its_nul() {
        let frame = decode(b"RECEIPT\nreceipt-id:7\n\n\0\nREST").unwrap().unwrap();
        assert_eq!((number(frame.receipt_id), frame.body, frame.bytes), (Some(7), &b""[..], 23));
    }

    #[test]
    fn an_error_fails_with_the_brokers_words() {
        let frame = decode(b"ERROR\nmessage:Bad CONNECT\n\nAccess refused\n\0").unwrap().unwrap();
        assert_eq!(check(&frame).unwrap_err().to_string(), "the broker refused: Bad CONNECT: Access refused");
    }

    #[test]
    fn a_receipt_is_renewed_in_place() {
        let mut out = Vec::new();
        let properties = Properties { persistent: true, ..Properties::default() };
        let at = encode_send(&mut out, "/queue/q", properties, b"ab", true).unwrap();
        renew_receipt(&mut out[at..at + RECEIPT_DIGITS], 1234);
        let expected = "SEND\ndestination:/queue/q\npersistent:true\nreceipt:000000000001234\ncontent-length:2\n\nab\0";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
