//! Splits the text of a selector into tokens, one at a time.

use super::SelectorError;

/// The least part of a selector that means something.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'a> {
    /// A name, or a keyword in the wrong place.
    Name(&'a str),
    /// A name in double quotes: the inside, doubled quotes still doubled.
    QuotedName(&'a str),
    Keyword(Keyword),
    /// Text in quotes: the inside, doubled quotes still doubled.
    Text(&'a str),
    /// An integer of at most 2^63.
    Integer(u64),
    Float(f64),
    Open,
    Close,
    Comma,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Plus,
    Minus,
    Times,
    Divide,
    Modulo,
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    And,
    Between,
    Escape,
    False,
    In,
    Is,
    Like,
    Not,
    Null,
    Or,
    True,
}

const KEYWORDS: [(&str, Keyword); 11] = [
    ("AND", Keyword::And),
    ("BETWEEN", Keyword::Between),
    ("ESCAPE", Keyword::Escape),
    ("FALSE", Keyword::False),
    ("IN", Keyword::In),
    ("IS", Keyword::Is),
    ("LIKE", Keyword::Like),
    ("NOT", Keyword::Not),
    ("NULL", Keyword::Null),
    ("OR", Keyword::Or),
    ("TRUE", Keyword::True),
];

/// Whether `name` must stand in quotes to be a name.
pub(super) fn needs_quotes(name: &str) -> bool {
    let is_plain = name.starts_with(is_name_start) && name.chars().all(is_name_part);
    !is_plain || keyword(name).is_some()
}

/// Reads tokens off a text.
pub(super) struct Lexer<'a> {
    text: &'a str,
    /// Where the next token is looked for.
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str, at: usize) -> Self {
        Self { text, at }
    }

    /// The next token, and where it begins and ends.
    pub(super) fn next(&mut self) -> Result<(Token<'a>, usize, usize), SelectorError> {
        self.skip_blanks()?;
        let start = self.at;
        let rest = &self.text[start..];
        let mut chars = rest.chars();
        let Some(first) = chars.next() else { return Ok((Token::End, start, start)) };
        let second = chars.next();
        let (token, len) = match (first, second) {
            ('\'', _) => {
                let inside = self.quoted(start, '\'', "a closing '")?;
                (Token::Text(inside), inside.len() + 2)
            }
            ('"', _) => {
                let inside = self.quoted(start, '"', "a closing \"")?;
                (Token::QuotedName(inside), inside.len() + 2)
            }
            ('0'..='9', _) | ('.', Some('0'..='9')) => self.number(start)?,
            ('(', _) => (Token::Open, 1),
            (')', _) => (Token::Close, 1),
            (',', _) => (Token::Comma, 1),
            ('=', _) => (Token::Equal, 1),
            ('<', Some('>')) | ('!', Some('=')) => (Token::NotEqual, 2),
            ('<', Some('=')) => (Token::LessOrEqual, 2),
            ('<', _) => (Token::Less, 1),
            ('>', Some('=')) => (Token::GreaterOrEqual, 2),
            ('>', _) => (Token::Greater, 1),
            ('+', _) => (Token::Plus, 1),
            ('-', _) => (Token::Minus, 1),
            ('*', _) => (Token::Times, 1),
            ('/', _) => (Token::Divide, 1),
            ('%', _) => (Token::Modulo, 1),
            (first, _) if is_name_start(first) => {
                let len = rest.find(|c| !is_name_part(c)).unwrap_or(rest.len());
                let name = &rest[..len];
                (keyword(name).map_or(Token::Name(name), Token::Keyword), len)
            }
            (other, _) => return Err(syntax(start, "a name, a value or an operator", format!("{other:?}"))),
        };
        self.at = start + len;
        Ok((token, start, self.at))
    }

    fn skip_blanks(&mut self) -> Result<(), SelectorError> {
        loop {
            let rest = &self.text[self.at..];
            if rest.starts_with([' ', '\t', '\n', '\r', '\x0C']) {
                self.at += 1;
            } else if rest.starts_with("--") {
                self.at += rest.find(['\n', '\r']).unwrap_or(rest.len());
            } else if let Some(comment) = rest.strip_prefix("/*") {
                match comment.find("*/") {
                    Some(len) => self.at += 2 + len + 2,
                    None => return Err(syntax(self.at, "a closing */", "the end".to_owned())),
                }
            } else {
                return Ok(());
            }
        }
    }

    /// The inside of what is quoted at `start`.
    fn quoted(&self, start: usize, quote: char, expected: &'static str) -> Result<&'a str, SelectorError> {
        let inside = &self.text[start + 1..];
        let mut at = 0;
        loop {
            match inside[at..].find(quote) {
                None => return Err(syntax(self.text.len(), expected, "the end".to_owned())),
                Some(len) if inside[at + len + 1..].starts_with(quote) => at += len + 2,
                Some(len) => return Ok(&inside[..at + len]),
            }
        }
    }

    /// Any number, and its length.
    fn number(&self, start: usize) -> Result<(Token<'a>, usize), SelectorError> {
        let rest = &self.text.as_bytes()[start..];
        let digits = |from: usize, radix: u32| {
            rest[from..].iter().take_while(|octet| char::from(**octet).is_digit(radix)).count()
        };
        let invalid = |reason| SelectorError::Invalid { at: start, reason };
        if let [b'0', b'x' | b'X', ..] = rest {
            let len = 2 + digits(2, 16);
            let value = i64::from_str_radix(&self.text[start + 2..start + len], 16)
                .map_err(|_| invalid("a hexadecimal number has 1 to 63 bits, not so the one"))?;
            return Ok((Token::Integer(value.unsigned_abs()), len + suffix(rest, len, b'l')));
        }
        let whole = digits(0, 10);
        let mut len = whole;
        let mut is_float = false;
        if rest.get(len) == Some(&b'.') {
            len += 1 + digits(len + 1, 10);
            is_float = true;
        }
        if let Some(b'e' | b'E') = rest.get(len) {
            let sign = usize::from(matches!(rest.get(len + 1), Some(b'+' | b'-')));
            match digits(len + 1 + sign, 10) {
                0 => return Err(syntax(start + len + 1, "the digits of an exponent", "none".to_owned())),
                exponent => len += 1 + sign + exponent,
            }
            is_float = true;
        }
        let float_suffix = suffix(rest, len, b'f') + suffix(rest, len, b'd');
        if is_float || float_suffix > 0 {
            let value = self.text[start..start + len].parse().map_err(|_| invalid("this is no number"))?;
            return Ok((Token::Float(value), len + float_suffix));
        }
        let text = &self.text[start..start + len];
        let len = len + suffix(rest, len, b'l');
        if let Some(octal) = text.strip_prefix('0').filter(|octal| !octal.is_empty()) {
            let value = i64::from_str_radix(octal, 8)
                .map_err(|_| invalid("a number that begins with 0 has octal digits of 63 bits, not so the one"))?;
            return Ok((Token::Integer(value.unsigned_abs()), len));
        }
        match text.parse::<u64>() {
            Ok(value) if value <= i64::MIN.unsigned_abs() => Ok((Token::Integer(value), len)),
            _ => Ok((Token::Float(text.parse().map_err(|_| invalid("this is no number"))?), len)),
        }
    }
}

/// 1 if the suffix of a number stands at `at`, in either case.
fn suffix(rest: &[u8], at: usize, letter: u8) -> usize {
    usize::from(rest.get(at).is_some_and(|octet| octet.to_ascii_lowercase() == letter))
}

fn keyword(name: &str) -> Option<Keyword> {
    KEYWORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(name)).map(|(_, keyword)| *keyword)
}

fn is_name_start(c: char) -> bool {
    c == '_' || c == '$' || c.is_alphabetic()
}

fn is_name_part(c: char) -> bool {
    is_name_start(c) || c.is_numeric()
}

pub(super) fn syntax(at: usize, expected: &'static str, found: String) -> SelectorError {
    SelectorError::Syntax { at, expected, found }
}
