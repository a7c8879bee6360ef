//! Destinations as ActiveMQ writes them, and what they are in exchanges and queues.
//!
//! | destination | SEND | SUBSCRIBE |
//! |---|---|---|
//! | `/queue/N`, or anything without a known prefix | declares queue N, publishes to it | declares N, consumes |
//! | `/topic/A.B` | publishes to the topic exchange with key A.B | a queue of its own, bound with A.B |
//! | `/temp-queue/N` | to a queue that goes with the connection | consumes from it |
//! | `/temp-topic/N` | with a key that nobody else has | a queue of its own, bound with that key |
//! | `/remote-temp-queue/ID`, `/remote-temp-topic/ID` | to that of another connection | never |
//! | several with commas | to each | from each |
//!
//! In a SUBSCRIBE a word `*` of a name stands for one word and `>` at its end for the rest, which may be
//! nothing.

use super::super::super::reply::Refusal;

/// A destination that was understood. Names are octets, as they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// A queue, or queues if the name is a pattern.
    Queue(Vec<u8>),
    /// A topic, or topics if the name is a pattern.
    Topic(Vec<u8>),
    /// A queue of this connection, by the whole text that the client has for it.
    TempQueue(Vec<u8>),
    /// A topic of this connection, in the same way.
    TempTopic(Vec<u8>),
    /// A queue of another connection, by its real name.
    RemoteTempQueue(Vec<u8>),
    /// A topic of another connection, by its real name.
    RemoteTempTopic(Vec<u8>),
}

/// Parts of one destination. More: it is refused.
const PARTS_MAX: usize = 64;

impl Destination {
    /// Reads a destination and its parts. A part without a prefix is of the kind of the first.
    pub(super) fn parse(text: &[u8]) -> Result<Vec<Self>, Refusal> {
        let mut all: Vec<Self> = Vec::new();
        for part in text.split(|&octet| octet == b',') {
            let part = part.trim_ascii();
            if all.len() >= PARTS_MAX {
                return Err(Refusal::new(
                    "A destination has too many parts",
                    format!("There are at most {PARTS_MAX}."),
                ));
            }
            let one = match Self::with_prefix(part) {
                Some(one) => one,
                None => match all.first() {
                    Some(Self::Topic(_)) => Self::Topic(without_options(part)),
                    _ => Self::Queue(without_options(part)),
                },
            };
            if one.name().is_empty() {
                return Err(empty());
            }
            if one.name().len() > u8::MAX.into() {
                return Err(Refusal::new("A destination is too long", "Names have at most 255 bytes."));
            }
            all.push(one);
        }
        Ok(all)
    }

    fn with_prefix(text: &[u8]) -> Option<Self> {
        let rest = |prefixes: [&str; 2]| {
            let rest = prefixes.iter().find_map(|prefix| text.strip_prefix(prefix.as_bytes()));
            rest.map(|name| without_options(name.trim_ascii()))
        };
        let whole = |prefix: &str| {
            let name = text.strip_prefix(prefix.as_bytes())?;
            Some(if name.is_empty() { Vec::new() } else { text.to_vec() })
        };
        if let Some(name) = rest(["/queue/", "queue://"]) {
            return Some(Self::Queue(name));
        }
        if let Some(name) = rest(["/topic/", "topic://"]) {
            return Some(Self::Topic(name));
        }
        if let Some(name) = rest(["/remote-temp-queue/", "temp-queue://"]) {
            return Some(Self::RemoteTempQueue(name));
        }
        if let Some(name) = rest(["/remote-temp-topic/", "temp-topic://"]) {
            return Some(Self::RemoteTempTopic(name));
        }
        whole("/temp-queue/").map(Self::TempQueue).or_else(|| whole("/temp-topic/").map(Self::TempTopic))
    }

    /// Its name, or the text of a temporary one.
    pub(super) fn name(&self) -> &[u8] {
        match self {
            Self::Queue(name)
            | Self::Topic(name)
            | Self::TempQueue(name)
            | Self::TempTopic(name)
            | Self::RemoteTempQueue(name)
            | Self::RemoteTempTopic(name) => name,
        }
    }

    /// Whether one consumer gets a message, and not all.
    pub(super) fn is_queue(&self) -> bool {
        matches!(self, Self::Queue(_) | Self::TempQueue(_) | Self::RemoteTempQueue(_))
    }
}

pub(super) fn empty() -> Refusal {
    Refusal::new("Invalid empty or 'null' Destination header", "")
}

/// What stands behind a question mark tells of consumers and is not a part of the name.
fn without_options(name: &[u8]) -> Vec<u8> {
    name.split(|&octet| octet == b'?').next().unwrap_or_default().to_vec()
}

/// How a composite destination is told to whom gets a part of it. `names` are those of the parts, real ones for
/// temporary destinations.
pub(super) fn put_composite<'n>(parts: &[Destination], names: impl Iterator<Item = &'n [u8]>, out: &mut Vec<u8>) {
    for (index, (part, name)) in parts.iter().zip(names).enumerate() {
        let is_temporary = !matches!(part, Destination::Queue(_) | Destination::Topic(_));
        out.extend_from_slice(match (index, is_temporary, part.is_queue()) {
            (0, false, true) => b"/queue/",
            (0, false, false) => b"/topic/",
            (0, true, true) => b"/remote-temp-queue/",
            (0, true, false) => b"/remote-temp-topic/",
            (_, false, true) => b",queue://",
            (_, false, false) => b",topic://",
            (_, true, true) => b",temp-queue://",
            (_, true, false) => b",temp-topic://",
        });
        out.extend_from_slice(name);
    }
}

/// Whether a name stands for others.
pub(super) fn is_pattern(name: &[u8]) -> bool {
    name.split(|&octet| octet == b'.').any(|word| matches!(word, b"*" | b">"))
}

/// Whether a name fits a pattern.
pub(super) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let mut words = name.split(|&octet| octet == b'.');
    for wanted in pattern.split(|&octet| octet == b'.') {
        match (wanted, words.next()) {
            (b">", _) => return true,
            (_, None) => return false,
            (b"*", Some(_)) => {}
            (wanted, Some(word)) if wanted == word => {}
            _ => return false,
        }
    }
    words.next().is_none()
}

/// The pattern of a topic as the key of a binding. A word `#`, which is like any other here, becomes one that
/// stands for any: see [`exact_selector`].
pub(super) fn binding_key(pattern: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(pattern.len());
    for (index, word) in pattern.split(|&octet| octet == b'.').enumerate() {
        if index > 0 {
            key.push(b'.');
        }
        if word == b">" {
            key.push(b'#');
            break;
        }
        key.extend_from_slice(if word == b"#" { b"*" } else { word });
    }
    key
}

/// What a message to a topic must be besides fitting [`binding_key`], where that says too little.
pub(super) fn exact_selector(pattern: &[u8]) -> Option<String> {
    let words = || pattern.split(|&octet| octet == b'.');
    if words().all(|word| word != b"#") {
        return None;
    }
    let mut like = String::from("JMSDestination LIKE 'topic://");
    for (index, word) in words().enumerate() {
        like.push_str(if index > 0 { "." } else { "" });
        match word {
            b"*" => like.push('%'),
            b">" => {
                // What it stands for may be nothing, and then there is no dot.
                like.truncate(like.len() - usize::from(index > 0));
                like.push('%');
                break;
            }
            word => {
                for letter in String::from_utf8_lossy(word).chars() {
                    match letter {
                        '%' | '_' | '!' => like.extend(['!', letter]),
                        '\'' => like.push_str("''"),
                        letter => like.push(letter),
                    }
                }
            }
        }
    }
    like.push_str("' ESCAPE '!'");
    Some(like)
}

/// The virtual topic that a queue is a consumer of: `Consumer.A.VirtualTopic.T` is one of `VirtualTopic.T`.
pub(super) fn virtual_topic(queue: &[u8]) -> Option<&[u8]> {
    let rest = queue.strip_prefix(b"Consumer.")?;
    let dot = rest.iter().position(|&octet| octet == b'.')?;
    let topic = &rest[dot + 1..];
    (dot > 0 && topic.starts_with(b"VirtualTopic.")).then_some(topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Vec<u8> {
        text.as_bytes().to_vec()
    }

    #[test]
    fn destinations_are_understood_as_activemq_does() {
        for (text, expected) in [
            ("/queue/a.b", Destination::Queue(name("a.b"))),
            ("a", Destination::Queue(name("a"))),
            (" /queue/a ", Destination::Queue(name("a"))),
            ("/queue/ a", Destination::Queue(name("a"))),
            ("/foo/bar", Destination::Queue(name("/foo/bar"))),
            ("/queue/a/b", Destination::Queue(name("a/b"))),
            ("/queue/a?consumer.prefetchSize=1", Destination::Queue(name("a"))),
            ("/topic/a.>", Destination::Topic(name("a.>"))),
            ("topic://a", Destination::Topic(name("a"))),
            ("/temp-queue/t", Destination::TempQueue(name("/temp-queue/t"))),
            ("/temp-topic/t", Destination::TempTopic(name("/temp-topic/t"))),
            ("/remote-temp-queue/ID:1", Destination::RemoteTempQueue(name("ID:1"))),
            ("/remote-temp-topic/ID:1", Destination::RemoteTempTopic(name("ID:1"))),
        ] {
            assert_eq!(Destination::parse(text.as_bytes()).ok(), Some(vec![expected]), "{text}");
        }
        for text in ["", "/queue/", "/topic/", "a,,b", "/temp-queue/"] {
            assert!(Destination::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn parts_without_a_prefix_are_of_the_kind_of_the_first() {
        let parse = |text: &str| Destination::parse(text.as_bytes()).unwrap();
        let (queue, topic) = (|text| Destination::Queue(name(text)), |text| Destination::Topic(name(text)));
        assert_eq!(parse("/queue/a,b,/topic/c"), [queue("a"), queue("b"), topic("c")]);
        assert_eq!(parse("/topic/a, b,queue://c"), [topic("a"), topic("b"), queue("c")]);
        let mut out = Vec::new();
        let parts = parse("/queue/a,/topic/b,c,/temp-queue/t");
        put_composite(&parts, ["a", "b", "c", "ID:1"].iter().map(|name| name.as_bytes()), &mut out);
        assert_eq!(out, b"/queue/a,topic://b,queue://c,temp-queue://ID:1");
        let many = vec!["q"; PARTS_MAX + 1].join(",");
        assert!(Destination::parse(many.as_bytes()).is_err());
    }

    #[test]
    fn patterns_match_words() {
        for (pattern, yes, no) in [
            ("a.b", vec!["a.b"], vec!["a", "a.b.c"]),
            ("a.*", vec!["a.b"], vec!["a", "a.b.c", "b.a"]),
            ("a.>", vec!["a", "a.b", "a.b.c"], vec!["b", "ab"]),
            (">", vec!["a", "a.b"], vec![]),
            ("*.x.>", vec!["a.x", "a.x.y.z"], vec!["a.b.x"]),
        ] {
            for name in yes {
                assert!(matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
            }
            for name in no {
                assert!(!matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
            }
        }
        assert!(is_pattern(b"a.*") && is_pattern(b">") && !is_pattern(b"a.b>") && !is_pattern(b"a*"));
        assert_eq!(binding_key(b"a.*.b.>"), b"a.*.b.#");
        assert_eq!(binding_key(b"a.b"), b"a.b");
        assert_eq!(binding_key(b"a.#"), b"a.*");
        assert_eq!(exact_selector(b"a.>"), None);
        assert_eq!(exact_selector(b"a_b.#"), Some("JMSDestination LIKE 'topic://a!_b.#' ESCAPE '!'".to_owned()));
        assert_eq!(exact_selector(b"*.#.>"), Some("JMSDestination LIKE 'topic://%.#%' ESCAPE '!'".to_owned()));
    }

    #[test]
    fn consumers_of_virtual_topics_are_known_by_their_names() {
        assert_eq!(virtual_topic(b"Consumer.A.VirtualTopic.T.x"), Some(&b"VirtualTopic.T.x"[..]));
        for name in ["Consumer.A.T", "Consumer..VirtualTopic.T", "VirtualTopic.T", "Consumer.A"] {
            assert_eq!(virtual_topic(name.as_bytes()), None, "{name}");
        }
    }
}
