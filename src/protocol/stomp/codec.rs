//! STOMP's wire format: the head of a frame is found and read in place, and written.
//!
//! ```text
//! frame  = command EOL *(name ":" value EOL) EOL body NUL *EOL
//! EOL    = [CR] LF
//! escape = "\n" | "\r" | "\c" (a colon) | "\\", in names and values
//! ```
//!
//! Reading copies nothing: a [`Header`] is two places in the input, and only a value that has escapes
//! is copied when somebody asks for it. Of headers with one name the first counts; the others are
//! dropped here.
//!
//! Escapes and line ends are the same in all versions. How strictly they are read is [`Syntax`]. A body ends
//! where `content-length` says, if a SEND has it, and at the first NUL otherwise.

use std::{borrow::Cow, collections::HashSet};

use memchr::{memchr, memchr2};
use nom::{
    IResult, Parser,
    bytes::streaming::{tag, take_until},
    sequence::terminated,
};

/// What a head may cost, and how it is read.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the command with its headers.
    pub head_bytes_max: usize,
    /// Headers, repeated ones included.
    pub headers_count_max: usize,
    /// Bytes of the command.
    pub command_bytes_max: usize,
    /// Bytes of one header.
    pub line_bytes_max: usize,
    /// What is taken for a header.
    pub syntax: Syntax,
}

/// What is taken for a header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Syntax {
    /// What the specification says, as RabbitMQ reads it: all else ends the connection.
    #[default]
    Strict,
    /// Anything, as ActiveMQ reads it: a line without a colon is a name, a backslash before something that is
    /// no escape is a backslash, names have no escapes, and blanks around a command do not count.
    Lenient,
}

/// Which blanks around values do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trim {
    /// All count.
    #[default]
    Nothing,
    /// Those in front.
    Front,
    /// Those on both sides.
    Both,
}

/// Why input is no frame. The connection cannot go on: nobody knows where the next one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// A carriage return without a line feed.
    LineEnd,
    /// A header without a colon.
    NoColon,
    /// A backslash before something that is no escape.
    Escape,
    /// `content-length` is no number.
    ContentLength,
    /// No NUL behind as many octets as `content-length` says.
    NoNul,
    /// [`Limits::head_bytes_max`]
    HeadTooLarge,
    /// [`Limits::headers_count_max`]
    TooManyHeaders,
    /// [`Limits::command_bytes_max`]
    CommandTooLong,
    /// [`Limits::line_bytes_max`]
    HeaderTooLong,
    /// Larger than the reader allows.
    BodyTooLarge,
}

impl Error {
    /// What is wrong, for the log and for a client that is told.
    pub fn text(self) -> &'static str {
        match self {
            Self::LineEnd => "carriage return without a line feed",
            Self::NoColon => "header without a colon",
            Self::Escape => "undefined escape in a header",
            Self::ContentLength => "content-length is not a number",
            Self::NoNul => "no NUL behind content-length octets",
            Self::HeadTooLarge => "headers are too large",
            Self::TooManyHeaders => "too many headers",
            Self::CommandTooLong => "command is too long",
            Self::HeaderTooLong => "header is too long",
            Self::BodyTooLarge => "body is too large",
        }
    }

    /// Whether the input is well-formed and only more than anybody needs.
    pub fn is_limit(self) -> bool {
        matches!(
            self,
            Self::HeadTooLarge | Self::TooManyHeaders | Self::CommandTooLong | Self::HeaderTooLong | Self::BodyTooLarge
        )
    }
}

/// Where a header's name and value lie, from the beginning of the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    name: (u32, u32),
    value: (u32, u32),
    is_name_escaped: bool,
    is_value_escaped: bool,
}

/// A head that has come whole, and its headers.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    bytes: &'a [u8],
    command_len: usize,
    headers: &'a [Header],
    trim: Trim,
    has_return: bool,
}

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEnd {
    /// Behind so many octets, where a NUL must be.
    Length(u64),
    /// At the first NUL.
    Nul,
}

/// Octets that lie between frames: heart-beats and spare NULs. A carriage return alone is left, until
/// it is known what follows.
pub fn skip_between(input: &[u8], syntax: Syntax) -> Result<usize, Error> {
    if syntax == Syntax::Lenient {
        return Ok(input.iter().take_while(|octet| **octet <= b' ').count());
    }
    let mut at = 0;
    while let Some(&octet) = input.get(at) {
        match (octet, input.get(at + 1)) {
            (b'\n' | 0, _) => at += 1,
            (b'\r', Some(b'\n')) => at += 2,
            (b'\r', Some(_)) => return Err(Error::LineEnd),
            _ => break,
        }
    }
    Ok(at)
}

/// Where the head ends that `input` begins with, its empty line included. `seen` octets were looked at
/// before.
pub fn find_head_end(input: &[u8], seen: usize) -> Option<usize> {
    // An end may have come in parts, of which two octets had been seen.
    let mut at = seen.saturating_sub(2);
    while let Some(found) = memchr(b'\n', &input[at..]) {
        at += found + 1;
        match input[at..] {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
    None
}

/// How long the first frame is of octets that [`encode`] and its like have written, or the heart-beat.
pub fn frame_len(output: &[u8], trailing_lf: bool) -> usize {
    if output.first() == Some(&b'\n') {
        return 1;
    }
    let Some(head_len) = find_head_end(output, 0) else { return output.len() };
    let lines = output[..head_len].split(|&octet| octet == b'\n');
    let length = lines.filter_map(|line| line.strip_prefix(b"content-length:")).find_map(integer).unwrap_or(0);
    let end_len = if trailing_lf { 2 } else { 1 };
    output.len().min(head_len + length as usize + end_len)
}

/// Reads a head that has come whole, into `headers`. Returns the length of its command.
pub fn decode_head(head: &[u8], limits: &Limits, headers: &mut Vec<Header>) -> Result<usize, Error> {
    headers.clear();
    if head.len() > limits.head_bytes_max {
        return Err(Error::HeadTooLarge);
    }
    let is_strict = limits.syntax == Syntax::Strict;
    // Most heads have neither, and then nothing needs a second look.
    let is_plain = memchr2(b'\r', b'\\', head).is_none();
    let (mut rest, mut command) = line(head, limits.syntax, is_plain)?;
    if command.len() > limits.command_bytes_max {
        return Err(Error::CommandTooLong);
    }
    if !is_strict {
        command = command.trim_ascii_end();
    }
    let command_len = command.len();
    let mut count = 0;
    let mut known = None;
    loop {
        let at = head.len() - rest.len();
        let (after, text) = line(rest, limits.syntax, is_plain)?;
        if text.is_empty() {
            return Ok(command_len);
        }
        rest = after;
        count += 1;
        if count > limits.headers_count_max {
            return Err(Error::TooManyHeaders);
        }
        if text.len() > limits.line_bytes_max {
            return Err(Error::HeaderTooLong);
        }
        let header = match memchr(b':', text) {
            Some(colon) => {
                let (name, value) = (&text[..colon], &text[colon + 1..]);
                let has_escapes = |text: &[u8]| match (is_plain, is_strict) {
                    (true, _) => Ok(false),
                    (false, true) => check_escapes(text),
                    (false, false) => Ok(memchr(b'\\', text).is_some()),
                };
                Header {
                    name: (at as u32, colon as u32),
                    value: ((at + colon + 1) as u32, value.len() as u32),
                    is_name_escaped: is_strict && has_escapes(name)?,
                    is_value_escaped: has_escapes(value)?,
                }
            }
            None if is_strict => return Err(Error::NoColon),
            None => Header {
                name: (at as u32, text.len() as u32),
                value: ((at + text.len()) as u32, 0),
                is_name_escaped: false,
                is_value_escaped: false,
            },
        };
        // Few headers are compared with each other; a flood must not cost the square of its size.
        let is_known = if headers.len() < COMPARED_MAX {
            headers.iter().any(|other| other.has_name_of(&header, head))
        } else {
            let names = || headers.iter().map(|header| header.name(head)).collect::<HashSet<_>>();
            !known.get_or_insert_with(names).insert(header.name(head))
        };
        if !is_known {
            headers.push(header);
        }
    }
}

const COMPARED_MAX: usize = 32;

/// A line without its end. In a plain head there are no carriage returns.
fn line(input: &[u8], syntax: Syntax, is_plain: bool) -> Result<(&[u8], &[u8]), Error> {
    let found: IResult<&[u8], &[u8]> = terminated(take_until("\n"), tag("\n")).parse(input);
    // The head ends with an empty line, so there is always one more.
    let (rest, text) = found.map_err(|_| Error::LineEnd)?;
    if is_plain {
        return Ok((rest, text));
    }
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if syntax == Syntax::Strict && memchr(b'\r', text).is_some() {
        return Err(Error::LineEnd);
    }
    Ok((rest, text))
}

/// Whether `text` has escapes.
fn check_escapes(text: &[u8]) -> Result<bool, Error> {
    let mut rest = text;
    let mut is_escaped = false;
    while let Some(at) = memchr(b'\\', rest) {
        is_escaped = true;
        match rest.get(at + 1).copied() {
            Some(b'n' | b'r' | b'c' | b'\\') => rest = &rest[at + 2..],
            _ => return Err(Error::Escape),
        }
    }
    Ok(is_escaped)
}

fn unescape(text: &[u8], has_return: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&octet, after)) = rest.split_first() {
        let (octet, used) = match (octet, after.first()) {
            (b'\\', Some(b'n')) => (b'\n', 2),
            (b'\\', Some(b'c')) => (b':', 2),
            (b'\\', Some(b'\\')) => (b'\\', 2),
            (b'\\', Some(b'r')) if has_return => (b'\r', 2),
            (other, _) => (other, 1),
        };
        out.push(octet);
        rest = &rest[used..];
    }
    out
}

impl Header {
    fn name<'a>(&self, head: &'a [u8]) -> Cow<'a, [u8]> {
        text(head, self.name, self.is_name_escaped, true)
    }

    fn raw_name<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        &head[self.name.0 as usize..][..self.name.1 as usize]
    }

    fn has_name_of(&self, other: &Self, head: &[u8]) -> bool {
        if self.is_name_escaped || other.is_name_escaped {
            return self.name(head) == other.name(head);
        }
        self.name.1 == other.name.1 && self.raw_name(head) == other.raw_name(head)
    }
}

fn text(head: &[u8], (at, len): (u32, u32), is_escaped: bool, has_return: bool) -> Cow<'_, [u8]> {
    let raw = &head[at as usize..][..len as usize];
    if is_escaped { unescape(raw, has_return).into() } else { raw.into() }
}

impl<'a> Head<'a> {
    /// What [`decode_head`] has read.
    pub fn new(bytes: &'a [u8], command_len: usize, headers: &'a [Header], trim: Trim) -> Self {
        Self { bytes, command_len, headers, trim, has_return: true }
    }

    /// Without the escape `\r` in values, which 1.2 has brought: it is two octets of text.
    pub fn without_return(self, is_without: bool) -> Self {
        Self { has_return: !is_without, ..self }
    }

    /// All of it.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The command.
    pub fn command(&self) -> &'a [u8] {
        &self.bytes[..self.command_len]
    }

    /// The value of a header.
    pub fn get(&self, name: &str) -> Option<Cow<'a, [u8]>> {
        let header = self.headers.iter().find(|header| {
            if header.is_name_escaped {
                *header.name(self.bytes) == *name.as_bytes()
            } else {
                header.name.1 as usize == name.len() && header.raw_name(self.bytes) == name.as_bytes()
            }
        })?;
        Some(self.value(header))
    }

    /// Names and values in their order.
    pub fn iter(&self) -> impl Iterator<Item = (Cow<'a, [u8]>, Cow<'a, [u8]>)> + '_ {
        self.headers.iter().map(|header| (header.name(self.bytes), self.value(header)))
    }

    fn value(&self, header: &Header) -> Cow<'a, [u8]> {
        let (mut at, mut len) = header.value;
        let is_blank = |octet: u8| octet == b' ' || self.trim == Trim::Both && octet <= b' ';
        while self.trim != Trim::Nothing && len > 0 && is_blank(self.bytes[at as usize]) {
            at += 1;
            len -= 1;
        }
        while self.trim == Trim::Both && len > 0 && self.bytes[(at + len - 1) as usize] <= b' ' {
            len -= 1;
        }
        text(self.bytes, (at, len), header.is_value_escaped, self.has_return)
    }

    /// Where the body ends.
    pub fn body_end(&self) -> Result<BodyEnd, Error> {
        if self.command() != b"SEND" {
            return Ok(BodyEnd::Nul);
        }
        let Some(length) = self.get("content-length") else { return Ok(BodyEnd::Nul) };
        let length = integer(&length).and_then(|length| u64::try_from(length).ok());
        length.map(BodyEnd::Length).ok_or(Error::ContentLength)
    }
}

/// A whole number between blanks, as Erlang reads one.
pub fn integer(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.trim_matches(' ');
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

/// Appends a header.
pub fn put_header(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    put_text(name, out);
    out.push(b':');
    put_text(value, out);
    out.push(b'\n');
}

/// Appends text with its escapes.
pub fn put_text(text: &[u8], out: &mut Vec<u8>) {
    put_escaped(text, Escapes::All, out);
}

/// Appends a header whose name is written as it is.
pub fn put_header_escaped(name: &[u8], value: &[u8], escapes: Escapes, out: &mut Vec<u8>) {
    // Nobody can read back a name that has these, and it could pretend to be another header.
    if name.iter().any(|octet| matches!(octet, b':' | b'\n' | 0)) {
        return;
    }
    out.extend_from_slice(name);
    out.push(b':');
    put_escaped(value, escapes, out);
    out.push(b'\n');
}

/// How text is written that a line cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escapes {
    /// With all escapes of 1.2.
    All,
    /// With those of 1.1, as ActiveMQ writes them.
    NoReturn,
    /// With none: what would end the line is a blank.
    Nothing,
}

/// Appends text with such escapes.
pub fn put_escaped(text: &[u8], escapes: Escapes, out: &mut Vec<u8>) {
    if !text.iter().any(|octet| matches!(octet, b':' | b'\\' | b'\n' | b'\r')) {
        out.extend_from_slice(text);
        return;
    }
    for &octet in text {
        match (octet, escapes) {
            (b'\n', Escapes::Nothing) => out.push(b' '),
            (other, Escapes::Nothing) => out.push(other),
            (b':', _) => out.extend_from_slice(b"\\c"),
            (b'\\', _) => out.extend_from_slice(b"\\\\"),
            (b'\n', _) => out.extend_from_slice(b"\\n"),
            (b'\r', Escapes::All) => out.extend_from_slice(b"\\r"),
            (other, _) => out.push(other),
        }
    }
}

/// Appends a decimal number.
pub fn put_number(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends a whole frame.
pub fn encode(command: &str, headers: &[(&str, &[u8])], body: &[u8], trailing_lf: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(command.as_bytes());
    out.push(b'\n');
    for (name, value) in headers {
        put_header(name.as_bytes(), value, out);
    }
    put_content_length(body.len() as u64, out);
    out.push(b'\n');
    out.extend_from_slice(body);
    put_end(trailing_lf, out);
}

/// Appends the length of a body, unless there is none.
pub fn put_content_length(bytes: u64, out: &mut Vec<u8>) {
    if bytes > 0 {
        out.extend_from_slice(b"content-length:");
        put_number(bytes, out);
        out.push(b'\n');
    }
}

/// Appends what ends a frame.
pub fn put_end(trailing_lf: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(if trailing_lf { b"\0\n" } else { b"\0" });
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    const LIMITS: Limits = Limits {
        head_bytes_max: 64 << 10,
        headers_count_max: 2048,
        command_bytes_max: 64 << 10,
        line_bytes_max: 64 << 10,
        syntax: Syntax::Strict,
    };

    fn read(input: &[u8]) -> Result<(String, Vec<(String, String)>), Error> {
        let end = find_head_end(input, 0).expect("a whole head");
        let mut headers = Vec::new();
        let command_len = decode_head(&input[..end], &LIMITS, &mut headers)?;
        let head = Head::new(&input[..end], command_len, &headers, Trim::Nothing);
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        Ok((text(head.command()), head.iter().map(|(name, value)| (text(&name), text(&value))).collect()))
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn heads_end_at_an_empty_line_with_and_without_carriage_returns() {
        for input in ["SEND\na:b\n\n", "SEND\r\na:b\r\n\r\n", "SEND\na:b\r\n\n"] {
            assert_eq!(read(input.as_bytes()), Ok(("SEND".into(), pairs(&[("a", "b")]))), "{input:?}");
        }
        assert_eq!(read(b"BEGIN\n\n"), Ok(("BEGIN".into(), vec![])));
    }

    #[test]
    fn the_first_of_repeated_headers_counts() {
        let (_, headers) = read(b"SEND\nfoo:first\nbar:1\nfoo:second\n\n").unwrap();
        assert_eq!(headers, pairs(&[("foo", "first"), ("bar", "1")]));
        let many: String = (0..100).map(|n| format!("h{}:{n}\n", n % 50)).collect();
        let (_, headers) = read(format!("SEND\n{many}\n").as_bytes()).unwrap();
        assert_eq!(headers.len(), 50);
        assert!(headers.iter().enumerate().all(|(n, (_, value))| *value == n.to_string()));
    }

    #[test]
    fn escapes_stand_for_what_a_line_cannot_hold() {
        let (_, headers) = read(b"SEND\na\\cb:x\\ny\\rz\\\\c\\c:d\n\n").unwrap();
        assert_eq!(headers, pairs(&[("a:b", "x\ny\rz\\c::d")]));
        assert_eq!(read(b"SEND\na:\\t\n\n"), Err(Error::Escape));
        assert_eq!(read(b"SEND\na:b\\\n\n"), Err(Error::Escape));
    }

    #[test]
    fn lines_that_are_no_headers_are_refused() {
        assert_eq!(read(b"SEND\nnocolon\n\n"), Err(Error::NoColon));
        assert_eq!(read(b"SEND\na:b\rc\n\n"), Err(Error::LineEnd));
        assert_eq!(skip_between(b"\n\r\n\0\nSEND", Syntax::Strict), Ok(5));
        assert_eq!(skip_between(b"\n\rS", Syntax::Strict), Err(Error::LineEnd));
        assert_eq!(skip_between(b"\n\r", Syntax::Strict), Ok(1));
    }

    #[test]
    fn too_many_or_too_long_headers_are_refused() {
        let many: String = (0..3000).map(|n| format!("h{n}:1\n")).collect();
        assert_eq!(read(format!("SEND\n{many}\n").as_bytes()), Err(Error::TooManyHeaders));
        let long = format!("SEND\na:{}\n\n", "x".repeat(70_000));
        assert_eq!(read(long.as_bytes()), Err(Error::HeadTooLarge));
    }

    #[test]
    fn an_end_that_comes_in_parts_is_found() {
        for input in [&b"SEND\na:b\n\nrest"[..], b"SEND\r\na:b\r\n\r\nrest"] {
            let end = find_head_end(input, 0).unwrap();
            for cut in 0..end {
                assert_eq!(find_head_end(&input[..cut], 0), None);
                assert_eq!(find_head_end(input, cut), Some(end), "{cut}");
            }
        }
    }

    #[test]
    fn only_send_has_a_content_length() {
        let end = |input: &[u8]| {
            let mut headers = Vec::new();
            let command_len = decode_head(input, &LIMITS, &mut headers).unwrap();
            Head::new(input, command_len, &headers, Trim::Nothing).body_end()
        };
        assert_eq!(end(b"SEND\ncontent-length: 12 \n\n"), Ok(BodyEnd::Length(12)));
        assert_eq!(end(b"SEND\ncontent-length:-1\n\n"), Err(Error::ContentLength));
        assert_eq!(end(b"SEND\ncontent-length:abc\n\n"), Err(Error::ContentLength));
        assert_eq!(end(b"SEND\n\n"), Ok(BodyEnd::Nul));
        assert_eq!(end(b"ACK\ncontent-length:12\n\n"), Ok(BodyEnd::Nul));
    }

    #[test]
    fn values_are_trimmed_in_front_where_asked() {
        let input = b"SEND\na:  b \n\n";
        let mut headers = Vec::new();
        let command_len = decode_head(input, &LIMITS, &mut headers).unwrap();
        assert_eq!(Head::new(input, command_len, &headers, Trim::Front).get("a").as_deref(), Some(&b"b "[..]));
        assert_eq!(Head::new(input, command_len, &headers, Trim::Nothing).get("a").as_deref(), Some(&b"  b "[..]));
    }

    #[test]
    fn frames_have_a_length_only_with_a_body() {
        let mut out = Vec::new();
        encode("ERROR", &[("message", b"a:b")], b"text\n", true, &mut out);
        encode("RECEIPT", &[("receipt-id", b"1")], b"", false, &mut out);
        assert_eq!(out, b"ERROR\nmessage:a\\cb\ncontent-length:5\n\ntext\n\0\nRECEIPT\nreceipt-id:1\n\n\0");
        let error_len = frame_len(&out, true);
        assert_eq!(&out[error_len..][..7], b"RECEIPT");
        assert_eq!(frame_len(&out[error_len..], false), out.len() - error_len);
        assert_eq!(frame_len(b"\nERROR", true), 1);
        out.clear();
        for number in [0, 7, 10, u64::MAX] {
            put_number(number, &mut out);
            out.push(b' ');
        }
        assert_eq!(out, b"0 7 10 18446744073709551615 ");
    }

    /// What a reader makes of frames that come in pieces.
    fn read_all(wire: &[u8], cuts: &[usize]) -> Result<Vec<Told>, Error> {
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (wire.len() + 1)).chain([wire.len()]).collect();
        ends.sort_unstable();
        let (mut at, mut seen, mut told) = (0, 0, Vec::new());
        let mut headers = Vec::new();
        for end in ends {
            loop {
                let rest = &wire[at..end];
                let skipped = skip_between(rest, Syntax::Strict)?;
                if skipped > 0 {
                    at += skipped;
                    seen = 0;
                    continue;
                }
                let Some(head_len) = find_head_end(rest, seen) else {
                    seen = rest.len();
                    break;
                };
                let command_len = decode_head(&rest[..head_len], &LIMITS, &mut headers)?;
                let head = Head::new(&rest[..head_len], command_len, &headers, Trim::Nothing);
                let body = &rest[head_len..];
                let length = match head.body_end()? {
                    BodyEnd::Length(length) => Some(length as usize).filter(|length| *length < body.len()),
                    BodyEnd::Nul => body.iter().position(|&octet| octet == 0),
                };
                let Some(length) = length else { break };
                if body[length] != 0 {
                    return Err(Error::NoNul);
                }
                let pairs = head.iter().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
                told.push((head.command().to_vec(), pairs, body[..length].to_vec()));
                at += head_len + length + 1;
                seen = 0;
            }
        }
        Ok(told)
    }

    /// Command, headers, body.
    type Told = (Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>, Vec<u8>);

    proptest::proptest! {
        #[test]
        fn frames_are_read_as_they_were_written_however_they_are_cut(
            frames in vec((
                select(vec!["SEND", "ACK", "SUBSCRIBE"]),
                vec((vec(any::<u8>(), 1..6), vec(any::<u8>(), 0..12)), 0..40),
                vec(any::<u8>(), 0..40),
                any::<bool>(),
            ), 0..6),
            cuts in vec(any::<usize>(), 0..12),
        ) {
            let (mut wire, mut expected) = (Vec::new(), Vec::<Told>::new());
            for (command, headers, body, has_length) in frames {
                let has_length = has_length && command == "SEND";
                let body: Vec<u8> = body.into_iter().filter(|octet| has_length || *octet != 0).collect();
                let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
                wire.extend_from_slice(command.as_bytes());
                wire.push(b'\n');
                let length = has_length.then(|| (b"content-length".to_vec(), body.len().to_string().into_bytes()));
                for (name, value) in headers.into_iter().chain(length) {
                    put_header(&name, &value, &mut wire);
                    if !pairs.iter().any(|(known, _)| *known == name) {
                        pairs.push((name, value));
                    }
                }
                wire.push(b'\n');
                wire.extend_from_slice(&body);
                put_end(has_length, &mut wire);
                expected.push((command.as_bytes().to_vec(), pairs, body));
            }
            prop_assert_eq!(read_all(&wire, &cuts), Ok(expected));
        }

        #[test]
        fn anything_is_read_alike_however_it_is_cut(
            wire in vec(select(b"SEND:\n\r\0\\c a".to_vec()), 0..80),
            cuts in vec(any::<usize>(), 0..12),
        ) {
            let whole = read_all(&wire, &[]);
            if whole.is_ok() {
                prop_assert_eq!(read_all(&wire, &cuts), whole);
            }
        }
    }
}
