//! Destinations: what a client writes, and what it means in exchanges and queues.
//!
//! | destination | SEND | SUBSCRIBE |
//! |---|---|---|
//! | `/queue/N`, or `N` alone | declares N, publishes to it | declares N, consumes |
//! | `/amq/queue/N`, `/reply-queue/N` | publishes to N | consumes from N |
//! | `/topic/K` | publishes with key K | consumes from a queue bound with K |
//! | `/exchange/E[/K]` | publishes to E with key K | consumes from a queue bound to E with K |
//! | `/temp-queue/N` | in `reply-to` only | never |
//!
//! `%2F` in a part of a destination is a slash.

use super::super::super::reply::Refusal;

/// A destination that was understood. Names are octets, as they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// A queue that is declared.
    Queue(Vec<u8>),
    /// A queue that exists.
    AmqQueue(Vec<u8>),
    /// A queue that takes replies.
    ReplyQueue(Vec<u8>),
    /// A topic.
    Topic(Vec<u8>),
    /// An exchange, and a key if there is one.
    Exchange(Vec<u8>, Option<Vec<u8>>),
    /// A queue of this connection that takes replies.
    TempQueue(Vec<u8>),
}

impl Destination {
    pub(super) fn parse(text: &[u8]) -> Result<Self, Refusal> {
        let mut parts = text.split(|&octet| octet == b'/');
        let first = parts.next().unwrap_or_default();
        let rest: Vec<&[u8]> = parts.collect();
        if rest.is_empty() {
            return Ok(Self::Queue(unescape(first)));
        }
        if !first.is_empty() {
            return Err(unknown(text));
        }
        match (rest[0], &rest[1..]) {
            (b"exchange", [name, key @ ..]) if !name.is_empty() && key.len() < 2 => {
                Ok(Self::Exchange(unescape(name), key.first().map(|key| unescape(key))))
            }
            (b"exchange", rest) => Err(invalid("exchange", rest)),
            (b"queue", rest) => one("queue", rest).map(Self::Queue),
            (b"topic", rest) => one("topic", rest).map(Self::Topic),
            (b"temp-queue", rest) => one("temp_queue", rest).map(Self::TempQueue),
            (b"amq", [b"queue", rest @ ..]) => one("amqqueue", rest).map(Self::AmqQueue),
            (b"reply-queue", [_, ..]) => {
                // Its name is the rest as it is: whoever replies has it from us.
                one("reply_queue", &[&text[b"/reply-queue/".len()..]]).map(Self::ReplyQueue)
            }
            _ => Err(unknown(text)),
        }
    }

    /// Exchange and key that stand for it, `topic_exchange` being that of topics.
    pub(super) fn route<'a>(&'a self, topic_exchange: &'a str) -> (&'a [u8], &'a [u8]) {
        match self {
            Self::Queue(name) | Self::AmqQueue(name) | Self::ReplyQueue(name) | Self::TempQueue(name) => (b"", name),
            Self::Topic(key) => (topic_exchange.as_bytes(), key),
            Self::Exchange(name, key) => (name, key.as_deref().unwrap_or_default()),
        }
    }
}

/// Appends the destination of a message that was published to `exchange` with `key`, without escapes
/// of the frame.
pub(in crate::protocol::stomp) fn put_destination(exchange: &[u8], key: &[u8], out: &mut Vec<u8>) {
    match (exchange, key) {
        (b"", key) => {
            out.extend_from_slice(b"/queue/");
            put_part(key, out);
        }
        (b"amq.topic", key) => {
            out.extend_from_slice(b"/topic/");
            put_part(key, out);
        }
        (exchange, key) => {
            out.extend_from_slice(b"/exchange/");
            put_part(exchange, out);
            if !key.is_empty() {
                out.push(b'/');
                put_part(key, out);
            }
        }
    }
}

fn put_part(text: &[u8], out: &mut Vec<u8>) {
    for &octet in text {
        match octet {
            b'/' | b'%' | 0..32 | 128.. => {
                let digit = |half: u8| b"0123456789ABCDEF"[usize::from(half)];
                out.extend_from_slice(&[b'%', digit(octet >> 4), digit(octet & 15)]);
            }
            _ => out.push(octet),
        }
    }
}

/// Whether a `reply-to` is a destination already.
pub(super) fn is_destination(text: &[u8]) -> bool {
    let prefixes: [&[u8]; 5] = [b"/exchange", b"/topic", b"/queue", b"/amq/queue", b"/reply-queue/"];
    prefixes.iter().any(|prefix| text.starts_with(prefix))
}

fn one(kind: &str, rest: &[&[u8]]) -> Result<Vec<u8>, Refusal> {
    match rest {
        [name] if !name.is_empty() => Ok(unescape(name)),
        _ => Err(invalid(kind, rest)),
    }
}

fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&octet, after)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(b"%2F") {
            out.push(b'/');
            rest = after;
        } else {
            out.push(octet);
            rest = after;
        }
    }
    out
}

fn invalid(kind: &str, rest: &[&[u8]]) -> Refusal {
    let url: String = rest.iter().map(|part| format!("/{}", String::from_utf8_lossy(part))).collect();
    Refusal::new("Invalid destination", format!("'{url}' is not a valid {kind} destination\n"))
}

fn unknown(text: &[u8]) -> Refusal {
    Refusal::new(
        "Unknown destination",
        format!(
            "'{}' is not a valid destination.\nValid destination types are: /temp-queue, /exchange, /topic, /queue, /amq/queue, /reply-queue/.\n",
            String::from_utf8_lossy(text)
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_understood_as_rabbitmq_does() {
        let name = |text: &str| text.as_bytes().to_vec();
        for (text, expected) in [
            ("/queue/a", Destination::Queue(name("a"))),
            ("a", Destination::Queue(name("a"))),
            ("/queue/a%2Fb%2f", Destination::Queue(name("a/b%2f"))),
            ("/amq/queue/a", Destination::AmqQueue(name("a"))),
            ("/topic/a.*.#", Destination::Topic(name("a.*.#"))),
            ("/exchange/e", Destination::Exchange(name("e"), None)),
            ("/exchange/e/k", Destination::Exchange(name("e"), Some(name("k")))),
            ("/exchange/e/", Destination::Exchange(name("e"), Some(name("")))),
            ("/temp-queue/t", Destination::TempQueue(name("t"))),
            ("/reply-queue/a/b%2F", Destination::ReplyQueue(name("a/b/"))),
        ] {
            assert_eq!(Destination::parse(text.as_bytes()).ok(), Some(expected), "{text}");
        }
    }

    #[test]
    fn other_destinations_are_refused_in_rabbitmqs_words() {
        let refused = |text: &str| {
            let refusal = Destination::parse(text.as_bytes()).expect_err(text);
            (refusal.message.into_owned(), refusal.detail)
        };
        for (text, detail) in [
            ("/queue", "'' is not a valid queue destination\n"),
            ("/queue/", "'/' is not a valid queue destination\n"),
            ("/queue/a/b", "'/a/b' is not a valid queue destination\n"),
            ("/topic/", "'/' is not a valid topic destination\n"),
            ("/exchange", "'' is not a valid exchange destination\n"),
            ("/exchange//k", "'//k' is not a valid exchange destination\n"),
            ("/exchange/a/b/c", "'/a/b/c' is not a valid exchange destination\n"),
            ("/temp-queue/", "'/' is not a valid temp_queue destination\n"),
            ("/amq/queue/", "'/' is not a valid amqqueue destination\n"),
            ("/reply-queue/", "'/' is not a valid reply_queue destination\n"),
        ] {
            assert_eq!(refused(text), ("Invalid destination".to_owned(), detail.to_owned()), "{text}");
        }
        for text in ["/foo/bar", "foo/bar", "/", "/amq", "/reply-queue", "/temp-topic/x"] {
            assert_eq!(refused(text).0, "Unknown destination", "{text}");
        }
    }

    #[test]
    fn destinations_of_messages_are_written_with_escapes() {
        for (exchange, key, expected) in [
            ("", "q/1%", "/queue/q%2F1%25"),
            ("amq.topic", "a.b", "/topic/a.b"),
            ("e", "", "/exchange/e"),
            ("e/f", "k\u{e9}", "/exchange/e%2Ff/k%C3%A9"),
        ] {
            let mut out = Vec::new();
            put_destination(exchange.as_bytes(), key.as_bytes(), &mut out);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        }
    }
}
