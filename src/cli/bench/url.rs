//! The address of a broker: `amqp://user:password@host:port/vhost`, or `stomp://...`.

use std::{fmt, str::FromStr};

/// What a load speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Protocol {
    /// AMQP 0-9-1
    Amqp,
    /// STOMP 1.2
    Stomp,
    /// SQS, signed and in JSON: see `tern bench sqs`, which takes more
    Sqs,
}

impl Protocol {
    fn scheme(self) -> &'static str {
        match self {
            Self::Amqp => "amqp",
            Self::Stomp => "stomp",
            Self::Sqs => "http",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Amqp => 5672,
            Self::Stomp => 61613,
            Self::Sqs => 9324,
        }
    }
}

/// Where the broker is and as whom to log in. Prints without its password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) protocol: Protocol,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) vhost: String,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let after = |protocol: Protocol| Some((protocol, text.strip_prefix(protocol.scheme())?.strip_prefix("://")?));
        let (protocol, rest) = after(Protocol::Amqp)
            .or_else(|| after(Protocol::Stomp))
            .ok_or_else(|| "an address begins with amqp:// or stomp://".to_owned())?;
        let (authority, vhost) = match rest.split_once('/') {
            Some((authority, vhost)) => (authority, unescape(vhost)?),
            None => (rest, "/".to_owned()),
        };
        let (login, address) = match authority.rsplit_once('@') {
            Some((login, address)) => (login, address),
            None => ("guest:guest", authority),
        };
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| format!("{port:?} is not a port"))?)
            }
            _ => (address, protocol.port()),
        };
        Ok(Self {
            protocol,
            user: unescape(user)?,
            password: unescape(password)?,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
            vhost,
        })
    }
}

impl Url {
    /// A broker on this machine with its default port and login.
    pub(super) fn local(protocol: Protocol) -> Self {
        let guest = || "guest".to_owned();
        let (host, vhost) = ("127.0.0.1".to_owned(), "/".to_owned());
        Self { protocol, user: guest(), password: guest(), host, port: protocol.port(), vhost }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vhost = self.vhost.replace('/', "%2f");
        write!(f, "{}://{}@{}:{}/{vhost}", self.protocol.scheme(), self.user, self.host, self.port)
    }
}

/// Resolves `%2f` and the like.
fn unescape(text: &str) -> Result<String, String> {
    let bad = || format!("{text:?} has a broken percent escape");
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16)).ok_or_else(bad);
        let (high, low) = (digit()?, digit()?);
        out.push((high * 16 + low) as u8);
    }
    String::from_utf8(out).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_read_and_unescaped() {
        let url: Url = "amqp://a%40b:p%3aw@[::1]:5673/%2f".parse().unwrap();
        assert_eq!((url.user.as_str(), url.password.as_str()), ("a@b", "p:w"));
        assert_eq!((url.host.as_str(), url.port, url.vhost.as_str()), ("::1", 5673, "/"));
        assert!(!url.to_string().contains("p:w"));
    }

    #[test]
    fn missing_parts_have_defaults() {
        let url: Url = "amqp://localhost".parse().unwrap();
        assert_eq!((url.user.as_str(), url.port, url.vhost.as_str()), ("guest", 5672, "/"));
        let stomp: Url = "stomp://localhost".parse().unwrap();
        assert_eq!((stomp.protocol, stomp.port), (Protocol::Stomp, 61613));
        assert!("http://localhost".parse::<Url>().is_err());
        assert!("amqp://h:x/".parse::<Url>().is_err());
        assert!("amqp://h/%2".parse::<Url>().is_err());
    }
}
