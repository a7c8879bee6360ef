//! The first bytes of a connection: which protocol the peer speaks, and what to answer when it is
//! the wrong one.

/// What AMQP 0-9-1 connections start with, and the answer to any other version.
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";

/// What the first bytes of a connection say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// AMQP 0-9-1, or 0-9, which is taken for it as RabbitMQ does. 8 bytes long.
    Amqp091,
    /// Eight bytes or more that are nothing known.
    Other,
    /// A TLS client hello.
    Tls,
    /// An HTTP request.
    Http,
    /// AMQP 1.0, with or without TLS or SASL layer.
    Amqp10,
    /// OpenWire, the protocol of ActiveMQ.
    OpenWire,
    /// Too few bytes to tell.
    Incomplete,
    /// A proxy that tells its peer's address in text; the greeting proper follows.
    ProxyV1,
    /// A proxy that tells its peer's address in binary; the greeting proper follows.
    ProxyV2,
}

impl Greeting {
    /// Tells the greeting at the start of `input`.
    pub fn detect(input: &[u8]) -> Self {
        match input {
            [b'A', b'M', b'Q', b'P', 0, 0, 9, 1, ..] | [b'A', b'M', b'Q', b'P', 1, 1, 0, 9, ..] => Self::Amqp091,
            [b'A', b'M', b'Q', b'P', 0 | 2 | 3, 1, 0, 0, ..] => Self::Amqp10,
            [TLS_HANDSHAKE, 3, 0..=4, ..] => Self::Tls,
            [_, _, _, _, OPENWIRE_WIRE_FORMAT, b'A', b'c', b't', ..] => Self::OpenWire,
            _ if input.starts_with(PROXY_V1) => Self::ProxyV1,
            _ if input.starts_with(PROXY_V2) => Self::ProxyV2,
            _ if HTTP_METHODS.iter().any(|method| input.starts_with(method)) => Self::Http,
            _ if input.len() < PROTOCOL_HEADER.len() || PROXY_V2.starts_with(input) => Self::Incomplete,
            _ => Self::Other,
        }
    }

    /// What to send before closing; empty when the greeting is good or not complete.
    pub fn answer(self) -> &'static [u8] {
        match self {
            Self::Amqp091 | Self::Incomplete | Self::ProxyV1 | Self::ProxyV2 => &[],
            Self::Other | Self::Amqp10 | Self::OpenWire => &PROTOCOL_HEADER,
            Self::Tls => &TLS_REFUSAL,
            Self::Http => HTTP_REFUSAL,
        }
    }

    /// What the peer speaks, for a log line.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Amqp091 => "AMQP 0-9-1",
            Self::Other => "an unknown protocol",
            Self::Tls => "TLS",
            Self::Http => "HTTP",
            Self::Amqp10 => "AMQP 1.0",
            Self::OpenWire => "OpenWire",
            Self::Incomplete => "an incomplete protocol header",
            Self::ProxyV1 => "PROXY protocol v1",
            Self::ProxyV2 => "PROXY protocol v2",
        }
    }
}

const TLS_HANDSHAKE: u8 = 22;
/// A fatal alert, handshake_failure, in a TLS 1.0 record, which clients of all versions read.
const TLS_REFUSAL: [u8; 7] = [21, 3, 1, 0, 2, 2, 40];
/// The type of OpenWire's first command, after four bytes of length; its magic follows.
const OPENWIRE_WIRE_FORMAT: u8 = 1;
const PROXY_V1: &[u8] = b"PROXY ";
const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const HTTP_METHODS: [&[u8]; 9] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"CONNECT ", b"PRI "];
const HTTP_REFUSAL: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n\
    Content-Length: 37\r\n\r\nThis port speaks AMQP 0-9-1, not HTTP";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings_are_told_apart() {
        for (input, greeting) in [
            (&b"AMQP\x00\x00\x09\x01"[..], Greeting::Amqp091),
            (b"AMQP\x01\x01\x00\x09", Greeting::Amqp091),
            (b"AMQP\x01\x01\x08\x00", Greeting::Other),
            (b"AMQP\x00\x01\x00\x00", Greeting::Amqp10),
            (b"AMQP\x03\x01\x00\x00", Greeting::Amqp10),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01", Greeting::Tls),
            (b"GET / HTTP/1.1\r\n", Greeting::Http),
            (b"CONNECT\naccept-version:1.2", Greeting::Other),
            (b"\x00\x00\x00\xf0\x01ActiveMQ", Greeting::OpenWire),
            (b"PROXY TCP4 1.2.3.4", Greeting::ProxyV1),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11", Greeting::ProxyV2),
            (b"\r\n\r\n\0\r\nQUITE", Greeting::Other),
            (b"garbage!", Greeting::Other),
        ] {
            assert_eq!(Greeting::detect(input), greeting, "{input:?}");
        }
    }

    #[test]
    fn a_prefix_of_a_greeting_is_incomplete() {
        for whole in [&PROTOCOL_HEADER[..], b"\x16\x03\x01", b"GET ", PROXY_V1, PROXY_V2] {
            for len in 0..whole.len() {
                assert_eq!(Greeting::detect(&whole[..len]), Greeting::Incomplete, "{:?}", &whole[..len]);
            }
        }
    }

    #[test]
    fn a_wrong_version_is_answered_with_the_right_one() {
        assert_eq!(Greeting::Amqp10.answer(), b"AMQP\x00\x00\x09\x01");
        assert!(Greeting::Amqp091.answer().is_empty());
    }

    #[test]
    fn the_answer_to_http_has_the_length_that_it_says() {
        let text = str::from_utf8(Greeting::Http.answer()).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("head and body");
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())));
    }
}
