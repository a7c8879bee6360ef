//! The operators of filter policies, each compiled to what is compared with one value of a message.
//!
//! Text is compared octet by octet; operators of text never match numbers and the other way round.
//! No operator costs more than one pass over the value for each literal part that it has.

use std::net::{IpAddr, Ipv6Addr};

use memchr::memmem;

use super::number::Number;
use super::subject::Scalar;

/// One alternative of a condition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Matcher {
    Text(Box<str>),
    Number(Number),
    Bool(bool),
    Null,
    Prefix(Box<str>),
    Suffix(Box<str>),
    /// These three are folded.
    SameIgnoringCase(Box<str>),
    PrefixIgnoringCase(Box<str>),
    SuffixIgnoringCase(Box<str>),
    Wildcard(Wildcard),
    Range(Range),
    Network(Network),
    /// The name is there with a value other than null.
    Exists,
    /// It is not; decided without a value.
    Absent,
    AnythingBut(Excluded),
}

/// What `anything-but` excludes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Excluded {
    Texts(Box<[Box<str>]>),
    Numbers(Box<[Number]>),
    Prefixes(Box<[Box<str>]>),
    Suffixes(Box<[Box<str>]>),
    /// Folded.
    IgnoringCase(Box<[Box<str>]>),
    Wildcards(Box<[Wildcard]>),
}

/// Numbers between two bounds, each of which may be missing and may be part of the range.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Range {
    pub(super) low: Option<Bound>,
    pub(super) high: Option<Bound>,
}

/// An end of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Bound {
    pub(super) at: Number,
    pub(super) is_included: bool,
}

/// A pattern with `*`: the literal parts around each of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Wildcard(Box<[Box<str>]>);

/// A block of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Network {
    bits: u128,
    mask: u128,
    is_v6: bool,
}

impl Matcher {
    /// Whether this value satisfies the alternative.
    pub(super) fn matches(&self, value: &Scalar<'_>) -> bool {
        match (self, value) {
            (Self::Text(wanted), Scalar::Text(text)) => **wanted == **text,
            (Self::Number(wanted), Scalar::Number(number)) => wanted == number,
            (Self::Bool(wanted), Scalar::Bool(value)) => wanted == value,
            (Self::Null, Scalar::Null) => true,
            (Self::Prefix(prefix), Scalar::Text(text)) => text.starts_with(&**prefix),
            (Self::Suffix(suffix), Scalar::Text(text)) => text.ends_with(&**suffix),
            (Self::SameIgnoringCase(folded), Scalar::Text(text)) => is_same_folded(folded, text),
            (Self::PrefixIgnoringCase(folded), Scalar::Text(text)) => fold(text).starts_with(&**folded),
            (Self::SuffixIgnoringCase(folded), Scalar::Text(text)) => fold(text).ends_with(&**folded),
            (Self::Wildcard(pattern), Scalar::Text(text)) => pattern.matches(text),
            (Self::Range(range), Scalar::Number(number)) => range.contains(number),
            (Self::Network(network), Scalar::Text(text)) => network.contains(text),
            (Self::Exists, value) => !matches!(value, Scalar::Null),
            (Self::AnythingBut(excluded), value) => !excluded.contains(value),
            _ => false,
        }
    }
}

impl Excluded {
    fn contains(&self, value: &Scalar<'_>) -> bool {
        match (self, value) {
            (Self::Texts(texts), Scalar::Text(text)) => texts.iter().any(|excluded| **excluded == **text),
            (Self::Numbers(numbers), Scalar::Number(number)) => numbers.contains(number),
            (Self::Prefixes(prefixes), Scalar::Text(text)) => prefixes.iter().any(|prefix| text.starts_with(&**prefix)),
            (Self::Suffixes(suffixes), Scalar::Text(text)) => suffixes.iter().any(|suffix| text.ends_with(&**suffix)),
            (Self::IgnoringCase(texts), Scalar::Text(text)) => {
                texts.iter().any(|excluded| is_same_folded(excluded, text))
            }
            (Self::Wildcards(patterns), Scalar::Text(text)) => patterns.iter().any(|pattern| pattern.matches(text)),
            // What cannot be read is not known to be something else.
            (_, Scalar::Unreadable) => true,
            _ => false,
        }
    }
}

impl Range {
    fn contains(&self, number: &Number) -> bool {
        let above = self.low.is_none_or(|low| if low.is_included { *number >= low.at } else { *number > low.at });
        above && self.high.is_none_or(|high| if high.is_included { *number <= high.at } else { *number < high.at })
    }
}

/// Lower case, character by character.
pub(super) fn fold(text: &str) -> Box<str> {
    text.chars().flat_map(char::to_lowercase).collect::<String>().into()
}

fn is_same_folded(folded: &str, text: &str) -> bool {
    if folded.is_ascii() && text.is_ascii() {
        return folded.eq_ignore_ascii_case(text);
    }
    folded.chars().eq(text.chars().flat_map(char::to_lowercase))
}

impl Wildcard {
    /// Reads a pattern; the error is what the author of the policy is told.
    pub(super) fn parse(pattern: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut part = String::new();
        let mut characters = pattern.char_indices().peekable();
        // Positions count octets and the quote in front of the text.
        while let Some((at, character)) = characters.next() {
            match character {
                '*' => {
                    if matches!(characters.peek(), Some((_, '*'))) {
                        return Err(format!("Consecutive wildcard characters at pos {}", at + 1));
                    }
                    parts.push(std::mem::take(&mut part).into());
                }
                '\\' => match characters.next_if(|(_, next)| matches!(next, '*' | '\\')) {
                    Some((_, literal)) => part.push(literal),
                    None => return Err(format!("Invalid escape character at pos {}", at + 1)),
                },
                literal => part.push(literal),
            }
        }
        parts.push(part.into());
        Ok(Self(parts.into()))
    }

    fn matches(&self, text: &str) -> bool {
        let text = text.as_bytes();
        let [first, middle @ .., last] = &*self.0 else {
            return self.0.first().is_some_and(|whole| whole.as_bytes() == text);
        };
        let Some(rest) = text.strip_prefix(first.as_bytes()) else { return false };
        let Some(mut rest) = rest.strip_suffix(last.as_bytes()) else { return false };
        // The leftmost place for each part leaves most for those after it.
        for part in middle {
            let Some(at) = memmem::find(rest, part.as_bytes()) else { return false };
            rest = &rest[at + part.len()..];
        }
        true
    }
}

impl Network {
    /// Reads `address/bits`; the error is what the author of the policy is told.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.trim_end_matches('/').split('/').collect();
        let [address, bits] = parts[..] else {
            return Err("Malformed CIDR, one '/' required".to_owned());
        };
        let bits: i32 = bits.parse().map_err(|_| "Malformed CIDR, mask bits must be an integer".to_owned())?;
        if bits < 0 {
            return Err("Malformed CIDR, mask bits must not be negative".to_owned());
        }
        let Ok(parsed) = address.parse::<IpAddr>() else {
            let is_like_v6 = address.contains(':') && address.bytes().all(|o| o == b':' || o.is_ascii_hexdigit());
            let groups = || address.split('.');
            let is_like_v4 =
                groups().count() == 4 && groups().all(|g| !g.is_empty() && g.bytes().all(|o| o.is_ascii_digit()));
            let kind = if is_like_v4 || is_like_v6 { "Invalid" } else { "Nonstandard" };
            return Err(format!("{kind} IP address: {address}"));
        };
        match parsed {
            IpAddr::V4(_) if bits > 31 => Err("IPv4 mask bits must be < 32".to_owned()),
            IpAddr::V6(_) if bits > 127 => Err("IPv6 mask bits must be < 128".to_owned()),
            IpAddr::V4(address) => Ok(Self::new(u32::from(address).into(), 96 + bits as u32, false)),
            IpAddr::V6(address) => Ok(Self::new(address.into(), bits as u32, true)),
        }
    }

    /// The one address that `text` is, if it is one with several spellings.
    pub(super) fn of_address(text: &str) -> Option<Self> {
        let address: Ipv6Addr = text.parse().ok()?;
        Some(Self::new(address.into(), 128, true))
    }

    fn new(bits: u128, bits_count: u32, is_v6: bool) -> Self {
        let mask = u128::MAX.checked_shl(128 - bits_count).unwrap_or(0);
        Self { bits: bits & mask, mask, is_v6 }
    }

    fn contains(&self, text: &str) -> bool {
        let (bits, is_v6) = match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => (u32::from(address).into(), false),
            Ok(IpAddr::V6(address)) => (u128::from(address), true),
            Err(_) => return false,
        };
        is_v6 == self.is_v6 && bits & self.mask == self.bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, text: &str) -> bool {
        Wildcard::parse(pattern).unwrap().matches(text)
    }

    #[test]
    fn a_star_stands_for_any_number_of_characters() {
        for (pattern, text) in [
            ("*", ""),
            ("*", "anything"),
            ("v*e", "value"),
            ("v*e", "ve"),
            ("*/bin/*.jar", "/usr/bin/a.b.jar"),
            ("a*a*a", "aaa"),
            ("*aba*ab", "abaab"),
            (r"5\*", "5*"),
            (r"a\\*", r"a\b"),
            ("plain", "plain"),
            ("é*è", "éxè"),
        ] {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("v*e", "val"),
            ("a*a", "a"),
            ("a*b*a", "aba-"),
            ("*ab*ab", "ab"),
            (r"5\*", "55"),
            ("plain", "plainer"),
            ("*.jar", "x.war"),
        ] {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn patterns_with_two_stars_in_a_row_or_a_lone_backslash_are_refused() {
        assert_eq!(Wildcard::parse("a**").unwrap_err(), "Consecutive wildcard characters at pos 2");
        assert_eq!(Wildcard::parse(r"a\b").unwrap_err(), "Invalid escape character at pos 2");
        assert_eq!(Wildcard::parse(r"ab\").unwrap_err(), "Invalid escape character at pos 3");
    }

    #[test]
    fn a_network_holds_its_addresses_in_every_spelling() {
        let network = Network::parse("10.0.0.0/24").unwrap();
        assert!(network.contains("10.0.0.255"));
        for outside in ["10.0.0.256", "10.0.1.0", "::a00:1", "here", ""] {
            assert!(!network.contains(outside), "{outside}");
        }
        let network = Network::parse("2001:db8:1234:1a00::/64").unwrap();
        assert!(network.contains("2001:0db8:1234:1a00:0000:0000:0000:0000"));
        assert!(!network.contains("2001:0db8:123f:1a01:0000:0000:0000:0000"));
        assert!(Network::parse("0.0.0.0/0").unwrap().contains("255.1.2.3"));
        assert!(!Network::parse("::/0").unwrap().contains("1.2.3.4"));
        assert!(Network::of_address("::1").unwrap().contains("0:0:0:0:0:0:0:1"));
    }

    #[test]
    fn case_is_ignored_beyond_ascii() {
        assert!(Matcher::SameIgnoringCase(fold("ÄRGER")).matches(&Scalar::text("ärger")));
        assert!(Matcher::PrefixIgnoringCase(fold("Str")).matches(&Scalar::text("sTRASSE")));
        assert!(Matcher::SuffixIgnoringCase(fold(".PNG")).matches(&Scalar::text("a.png")));
        assert!(!Matcher::SameIgnoringCase(fold("ab")).matches(&Scalar::text("abc")));
    }

    #[test]
    fn operators_of_text_leave_numbers_alone_and_the_other_way_round() {
        let five = Scalar::Number(5_i64.into());
        assert!(!Matcher::Text("5".into()).matches(&five));
        assert!(!Matcher::Prefix("5".into()).matches(&five));
        assert!(!Matcher::Number(5_i64.into()).matches(&Scalar::text("5")));
        let but_texts = Matcher::AnythingBut(Excluded::Texts(["5".into()].into()));
        assert!(but_texts.matches(&five));
        assert!(!but_texts.matches(&Scalar::text("5")));
        assert!(Matcher::AnythingBut(Excluded::Numbers([5_i64.into()].into())).matches(&Scalar::text("5")));
    }
}
