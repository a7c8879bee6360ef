//! The PROXY protocol header, versions 1 and 2, by which a load balancer tells a client's address.
//!
//! Pure: bytes in, addresses out. Who may send such a header is decided elsewhere; one from an
//! untrusted peer is never given to this parser.
//!
//! ```text
//! version 1   "PROXY" SP ("TCP4" | "TCP6" | "UNKNOWN") SP source SP destination SP port SP port CR LF
//! version 2   signature (12) | version and command (1) | family (1) | length (2) | addresses, TLVs
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header; call again with more. Never said of [`HEADER_BYTES_MAX`] or more.
    Incomplete,
    /// A header of `consumed` bytes, behind which the protocol begins.
    Header {
        /// The client, or nothing where the sender speaks for itself or does not know.
        source: Option<SocketAddr>,
        /// The address that the client connected to, known exactly when the source is.
        destination: Option<SocketAddr>,
        /// Bytes of the header.
        consumed: usize,
    },
}

/// Why the first bytes are no header. The connection is to be closed without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProxyError {
    /// Neither version begins like this: a peer that talks past its load balancer.
    #[error("the connection does not begin with a PROXY header")]
    Missing,
    /// A version 1 line longer than 107 bytes.
    #[error("the PROXY line has no end within {LINE_BYTES_MAX} bytes")]
    LineTooLong,
    /// A version 1 line that does not follow the grammar.
    #[error("the PROXY line is malformed")]
    Line,
    /// A version 2 header of another version or with an unknown command.
    #[error("the PROXY header has the unknown version and command {0:#04x}")]
    Command(u8),
    /// A version 2 header shorter than the addresses of its family.
    #[error("the PROXY header is too short for its address family")]
    Short,
    /// A version 2 header with more TLVs than anybody sends.
    #[error("the PROXY header is longer than {HEADER_BYTES_MAX} bytes")]
    HeaderTooLong,
}

/// The longest header taken. The format allows 65,551 bytes; real ones stay below 600, and what
/// comes before the login shall not make us hold more than a small frame.
pub const HEADER_BYTES_MAX: usize = 4096;

/// The longest version 1 line, CR and LF included, as its specification says.
const LINE_BYTES_MAX: usize = 107;
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const LINE_START: &[u8] = b"PROXY ";
const FIXED_BYTES: usize = 16;

/// Parses the header at the beginning of `input`.
pub fn parse(input: &[u8]) -> Result<Parsed, ProxyError> {
    let begins = |start: &[u8]| input.iter().zip(start).all(|(a, b)| a == b);
    if begins(&SIGNATURE) && input.len() >= SIGNATURE.len() {
        parse_binary(input)
    } else if begins(LINE_START) && input.len() >= LINE_START.len() {
        parse_line(input)
    } else if begins(&SIGNATURE) || begins(LINE_START) {
        Ok(Parsed::Incomplete)
    } else {
        Err(ProxyError::Missing)
    }
}

fn parse_line(input: &[u8]) -> Result<Parsed, ProxyError> {
    let window = &input[..input.len().min(LINE_BYTES_MAX)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if input.len() >= LINE_BYTES_MAX { Err(ProxyError::LineTooLong) } else { Ok(Parsed::Incomplete) };
    };
    let consumed = end + 2;
    let line = std::str::from_utf8(&window[LINE_START.len()..end]).map_err(|_| ProxyError::Line)?;
    let mut fields = line.split(' ');
    let family = fields.next();
    if family == Some("UNKNOWN") {
        // Whatever follows is to be ignored.
        return Ok(Parsed::Header { source: None, destination: None, consumed });
    }
    let mut field = || fields.next().ok_or(ProxyError::Line);
    let addresses = (field()?, field()?);
    let ports = (port(field()?)?, port(field()?)?);
    if fields.next().is_some() {
        return Err(ProxyError::Line);
    }
    let ip = |text: &str| match family {
        Some("TCP4") => text.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| ProxyError::Line),
        Some("TCP6") => text.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| ProxyError::Line),
        _ => Err(ProxyError::Line),
    };
    Ok(Parsed::Header {
        source: Some(SocketAddr::new(ip(addresses.0)?, ports.0)),
        destination: Some(SocketAddr::new(ip(addresses.1)?, ports.1)),
        consumed,
    })
}

fn port(text: &str) -> Result<u16, ProxyError> {
    // `parse` alone would take a plus sign and leading zeros.
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if is_plain { text.parse().map_err(|_| ProxyError::Line) } else { Err(ProxyError::Line) }
}

fn parse_binary(input: &[u8]) -> Result<Parsed, ProxyError> {
    let Some(fixed) = input.first_chunk::<FIXED_BYTES>() else { return Ok(Parsed::Incomplete) };
    let [.., command, family, high, low] = *fixed;
    if command != 0x20 && command != 0x21 {
        return Err(ProxyError::Command(command));
    }
    let consumed = FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if consumed > HEADER_BYTES_MAX {
        return Err(ProxyError::HeaderTooLong);
    }
    let Some(body) = input.get(FIXED_BYTES..consumed) else { return Ok(Parsed::Incomplete) };
    // LOCAL: the balancer's own health check. Its addresses, if any, are to be ignored.
    if command == 0x20 {
        return Ok(Parsed::Header { source: None, destination: None, consumed });
    }
    let addresses = match family {
        0x11 => {
            let block = body.first_chunk::<12>().ok_or(ProxyError::Short)?;
            let ip = |at: usize| IpAddr::V4(Ipv4Addr::new(block[at], block[at + 1], block[at + 2], block[at + 3]));
            let port = |at: usize| u16::from_be_bytes([block[at], block[at + 1]]);
            Some((SocketAddr::new(ip(0), port(8)), SocketAddr::new(ip(4), port(10))))
        }
        0x21 => {
            let block = body.first_chunk::<36>().ok_or(ProxyError::Short)?;
            let ip = |at: usize| {
                let octets: [u8; 16] = block[at..at + 16].try_into().expect("the block has 36 bytes and at is 0 or 16");
                IpAddr::V6(octets.into())
            };
            let port = |at: usize| u16::from_be_bytes([block[at], block[at + 1]]);
            Some((SocketAddr::new(ip(0), port(32)), SocketAddr::new(ip(16), port(34))))
        }
        // UNSPEC, datagrams and UNIX sockets: no address that means anything to us.
        _ => None,
    };
    Ok(Parsed::Header { source: addresses.map(|pair| pair.0), destination: addresses.map(|pair| pair.1), consumed })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(source: &str, destination: &str, consumed: usize) -> Result<Parsed, ProxyError> {
        let (source, destination) = (source.parse().ok(), destination.parse().ok());
        Ok(Parsed::Header { source, destination, consumed })
    }

    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend((body.len() as u16).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    const V4: [u8; 12] = [10, 0, 0, 1, 10, 0, 0, 2, 0x30, 0x39, 0x16, 0x28];

    #[test]
    fn line_gives_both_addresses() {
        let line = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 5672\r\nAMQP";
        assert_eq!(parse(line), header("192.168.0.1:56324", "192.168.0.11:5672", line.len() - 4));
        let line = b"PROXY TCP6 fd00::1 fd00::2 1 2\r\n";
        assert_eq!(parse(line), header("[fd00::1]:1", "[fd00::2]:2", line.len()));
    }

    #[test]
    fn unknown_line_has_no_addresses() {
        assert_eq!(parse(b"PROXY UNKNOWN\r\n"), header("", "", 15));
        assert_eq!(parse(b"PROXY UNKNOWN ffff::f x y z\r\n"), header("", "", 29));
    }

    #[test]
    fn malformed_line_is_refused() {
        for line in [
            "PROXY TCP4 fd00::1 fd00::2 1 2\r\n",
            "PROXY TCP4 10.0.0.1 10.0.0.2 1\r\n",
            "PROXY TCP4 10.0.0.1 10.0.0.2 1 2 3\r\n",
            "PROXY TCP4 10.0.0.1 10.0.0.2 1 65536\r\n",
            "PROXY TCP4 10.0.0.1 10.0.0.2 +1 2\r\n",
            "PROXY TCP4 10.0.0.1 10.0.0.2 01 2\r\n",
            "PROXY TCP4  10.0.0.1 10.0.0.2 1 2\r\n",
            "PROXY UDP4 10.0.0.1 10.0.0.2 1 2\r\n",
            "PROXY \r\n",
        ] {
            assert_eq!(parse(line.as_bytes()), Err(ProxyError::Line), "{line:?}");
        }
        assert_eq!(parse(b"PROXY TCP4 \xff\xff\r\n"), Err(ProxyError::Line));
    }

    #[test]
    fn line_ends_within_107_bytes() {
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(107 - 16));
        assert_eq!(parse(longest.as_bytes()), header("", "", 107));
        let longer = format!("PROXY UNKNOWN {}\r\n", "x".repeat(107 - 15));
        assert_eq!(parse(longer.as_bytes()), Err(ProxyError::LineTooLong));
        assert_eq!(parse(&longer.as_bytes()[..106]), Ok(Parsed::Incomplete));
    }

    #[test]
    fn binary_header_gives_both_addresses_and_skips_what_follows_them() {
        assert_eq!(parse(&binary(0x21, 0x11, &V4)), header("10.0.0.1:12345", "10.0.0.2:5672", 28));
        let mut with_tlvs = V4.to_vec();
        with_tlvs.extend([0x04, 0, 3, 1, 2, 3]);
        assert_eq!(parse(&binary(0x21, 0x11, &with_tlvs)), header("10.0.0.1:12345", "10.0.0.2:5672", 34));
        let mut v6 = [0; 36];
        (v6[15], v6[31], v6[33], v6[35]) = (1, 2, 3, 4);
        assert_eq!(parse(&binary(0x21, 0x21, &v6)), header("[::1]:3", "[::2]:4", 52));
    }

    #[test]
    fn local_and_unspecified_have_no_addresses() {
        assert_eq!(parse(&binary(0x20, 0x11, &V4)), header("", "", 28));
        assert_eq!(parse(&binary(0x20, 0x00, &[])), header("", "", 16));
        assert_eq!(parse(&binary(0x21, 0x00, &[])), header("", "", 16));
        assert_eq!(parse(&binary(0x21, 0x31, &[0; 216])), header("", "", 232));
    }

    #[test]
    fn malformed_binary_header_is_refused() {
        assert_eq!(parse(&binary(0x11, 0x11, &V4)), Err(ProxyError::Command(0x11)));
        assert_eq!(parse(&binary(0x22, 0x11, &V4)), Err(ProxyError::Command(0x22)));
        assert_eq!(parse(&binary(0x21, 0x11, &V4[..11])), Err(ProxyError::Short));
        assert_eq!(parse(&binary(0x21, 0x21, &[0; 35])), Err(ProxyError::Short));
        assert_eq!(parse(&binary(0x21, 0x11, &[0; HEADER_BYTES_MAX])), Err(ProxyError::HeaderTooLong));
    }

    #[test]
    fn protocol_without_a_header_is_told_from_a_short_read() {
        assert_eq!(parse(b"AMQP\x00\x00\x09\x01"), Err(ProxyError::Missing));
        assert_eq!(parse(b"PROXY"), Ok(Parsed::Incomplete));
        assert_eq!(parse(b"PROXX"), Err(ProxyError::Missing));
        assert_eq!(parse(b"\r\n\r\n\0"), Ok(Parsed::Incomplete));
        assert_eq!(parse(b""), Ok(Parsed::Incomplete));
    }

    #[test]
    fn every_prefix_of_a_header_is_incomplete() {
        for whole in [b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n".to_vec(), binary(0x21, 0x11, &V4)] {
            for end in 0..whole.len() {
                assert_eq!(parse(&whole[..end]), Ok(Parsed::Incomplete), "{end}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_input_panics_or_is_read_past_its_end(
            start in prop_oneof![Just(vec![]), Just(SIGNATURE.to_vec()), Just(LINE_START.to_vec()), Just(b"PROXY TCP4 ".to_vec())],
            rest in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let input = [start, rest].concat();
            if let Ok(Parsed::Header { consumed, source, destination }) = parse(&input) {
                prop_assert!(consumed <= input.len());
                prop_assert_eq!(source.is_some(), destination.is_some());
            }
        }

        #[test]
        fn flipped_byte_in_a_header_never_panics(at in 0_usize..28, byte: u8, end in 0_usize..=28) {
            let mut input = binary(0x21, 0x11, &V4);
            input[at] = byte;
            let _ = parse(&input[..end]);
        }

        #[test]
        fn line_of_any_address_is_read_back(source: [u8; 4], destination: [u8; 4], ports: (u16, u16)) {
            let (source, destination) = (Ipv4Addr::from(source), Ipv4Addr::from(destination));
            let line = format!("PROXY TCP4 {source} {destination} {} {}\r\n", ports.0, ports.1);
            prop_assert_eq!(parse(line.as_bytes()), Ok(Parsed::Header {
                source: Some(SocketAddr::new(source.into(), ports.0)),
                destination: Some(SocketAddr::new(destination.into(), ports.1)),
                consumed: line.len(),
            }));
        }
    }
}
