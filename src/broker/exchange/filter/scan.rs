//! JSON as tokens that remember where they stand, and what a reader of the text is told when it is none.
//!
//! Texts and positions are those of the JSON reader that policies were first written for (Jackson): people search
//! for them and tools compare them. It reads lazily, so a position is where it had read to: behind the opening
//! quote of a text, behind a number, a word or a bracket, and, at a name, behind the beginning of its value.

use std::borrow::Cow;
use std::iter::Peekable;
use std::str::CharIndices;

/// Deepest nesting that is read.
pub(super) const DEPTH_MAX: usize = 256;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    ObjectStart,
    ObjectEnd,
    ArrayStart,
    ArrayEnd,
    Name,
    Text,
    Number,
    True,
    False,
    Null,
}

/// One token of a JSON text.
#[derive(Clone, Debug)]
pub(super) struct Token<'t> {
    pub(super) kind: Kind,
    /// The decoded text of names and texts, the letters of everything else.
    pub(super) text: Cow<'t, str>,
    /// Where the reader stands when it has found the token.
    pub(super) found: Place,
    /// Where it stands when it has read all of it.
    pub(super) read: Place,
}

/// A place in the text, counted from one, columns in UTF-16 units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: u32,
    pub(super) column: u32,
}

/// Why a text is no JSON, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) reason: String,
    pub(super) place: Option<Place>,
}

/// The tokens of the first JSON value of `text`; what follows it is not looked at.
pub(super) fn tokens(text: &str) -> Result<Vec<Token<'_>>, SyntaxError> {
    let mut scanner =
        Scanner { text, rest: text.char_indices().peekable(), place: Place { line: 1, column: 1 }, tokens: Vec::new() };
    scanner.value()?;
    // The reader has the value of a name in its hands when it hands out the name.
    for at in 1..scanner.tokens.len() {
        if scanner.tokens[at - 1].kind == Kind::Name {
            scanner.tokens[at - 1].found = scanner.tokens[at].found;
        }
    }
    Ok(scanner.tokens)
}

/// The same JSON without blanks, and with no more escapes than it needs.
pub(super) fn compact(tokens: &[Token<'_>]) -> String {
    let mut out = String::new();
    for (at, token) in tokens.iter().enumerate() {
        let follows_value = at > 0
            && !matches!(tokens[at - 1].kind, Kind::ObjectStart | Kind::ArrayStart | Kind::Name)
            && !matches!(token.kind, Kind::ObjectEnd | Kind::ArrayEnd);
        if follows_value {
            out.push(',');
        }
        match token.kind {
            Kind::Name | Kind::Text => {
                out.push('"');
                for character in token.text.chars() {
                    match character {
                        '"' | '\\' => out.extend(['\\', character]),
                        '\n' => out.push_str("\\n"),
                        '\r' => out.push_str("\\r"),
                        '\t' => out.push_str("\\t"),
                        '\u{8}' => out.push_str("\\b"),
                        '\u{c}' => out.push_str("\\f"),
                        control if control < ' ' => out.push_str(&format!("\\u{:04X}", u32::from(control))),
                        plain => out.push(plain),
                    }
                }
                out.push('"');
            }
            _ => out.push_str(&token.text),
        }
        if token.kind == Kind::Name {
            out.push(':');
        }
    }
    out
}

struct Scanner<'t> {
    text: &'t str,
    rest: Peekable<CharIndices<'t>>,
    place: Place,
    tokens: Vec<Token<'t>>,
}

/// What is open: a bracket and where it stands.
struct Open {
    is_object: bool,
    at: Place,
    is_empty: bool,
}

const VALUES: &str = "(JSON String, Number, Array, Object or token 'null', 'true' or 'false')";

impl<'t> Scanner<'t> {
    fn peek(&mut self) -> Option<char> {
        self.rest.peek().map(|(_, character)| *character)
    }

    fn next(&mut self) -> Option<char> {
        let (_, character) = self.rest.next()?;
        if character == '\n' {
            self.place = Place { line: self.place.line + 1, column: 1 };
        } else {
            self.place.column += character.len_utf16() as u32;
        }
        Some(character)
    }

    fn at(&mut self) -> usize {
        self.rest.peek().map_or(self.text.len(), |(at, _)| *at)
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t' | '\r' | '\n')) {
            self.next();
        }
    }

    fn push(&mut self, kind: Kind, text: Cow<'t, str>, found: Place) {
        self.tokens.push(Token { kind, text, found, read: self.place });
    }

    fn value(&mut self) -> Result<(), SyntaxError> {
        let mut open: Vec<Open> = Vec::new();
        loop {
            self.skip_blanks();
            if let Some(inner) = open.last_mut() {
                let is_first = std::mem::replace(&mut inner.is_empty, false);
                let (is_object, start) = (inner.is_object, inner.at);
                if self.peek() == Some(if is_object { '}' } else { ']' }) {
                    self.bracket(if is_object { Kind::ObjectEnd } else { Kind::ArrayEnd });
                    open.pop();
                    if open.is_empty() {
                        return Ok(());
                    }
                    continue;
                }
                if !is_first {
                    match self.peek() {
                        Some(',') => drop(self.next()),
                        Some(other @ ('}' | ']')) => return Err(self.wrong_close(other, is_object, start)),
                        Some(other) => {
                            let kind = if is_object { "Object" } else { "Array" };
                            return Err(
                                self.unexpected(other, &format!("was expecting comma to separate {kind} entries"))
                            );
                        }
                        None => return Err(self.end_inside(is_object, start)),
                    }
                    self.skip_blanks();
                }
                if is_object {
                    match self.peek() {
                        Some('"') => {}
                        Some(other) => {
                            return Err(self.unexpected(other, "was expecting double-quote to start field name"));
                        }
                        None => return Err(self.end_inside(true, start)),
                    }
                    let (name, _) = self.text("in field name")?;
                    self.push(Kind::Name, name, self.place);
                    self.skip_blanks();
                    match self.peek() {
                        Some(':') => drop(self.next()),
                        Some(other) => {
                            let expected = "was expecting a colon to separate field name and value";
                            return Err(self.unexpected(other, expected));
                        }
                        None => return Err(self.end_inside(true, start)),
                    }
                    self.skip_blanks();
                }
            }
            match self.peek() {
                Some(bracket @ ('{' | '[')) => {
                    if open.len() == DEPTH_MAX {
                        let reason = format!(
                            "Document nesting depth ({}) exceeds the maximum allowed ({DEPTH_MAX})",
                            DEPTH_MAX + 1
                        );
                        return Err(SyntaxError { reason, place: Some(self.place) });
                    }
                    let at = self.place;
                    let is_object = bracket == '{';
                    self.bracket(if is_object { Kind::ObjectStart } else { Kind::ArrayStart });
                    open.push(Open { is_object, at, is_empty: true });
                    continue;
                }
                Some('"') => {
                    let (text, found) = self.text(": was expecting closing quote for a string value")?;
                    self.push(Kind::Text, text, found);
                }
                Some('-' | '0'..='9') => self.number()?,
                Some(letter) if letter.is_alphabetic() => self.word()?,
                Some(other @ ('}' | ']')) => match open.last() {
                    Some(inner) if inner.is_object != (other == '}') => {
                        let (is_object, start) = (inner.is_object, inner.at);
                        return Err(self.wrong_close(other, is_object, start));
                    }
                    _ => return Err(self.unexpected(other, &format!("expected a valid value {VALUES}"))),
                },
                Some(other) => return Err(self.unexpected(other, &format!("expected a valid value {VALUES}"))),
                None => {
                    return Err(match open.last() {
                        Some(inner) => {
                            let (is_object, start) = (inner.is_object, inner.at);
                            self.end_inside(is_object, start)
                        }
                        None => SyntaxError { reason: "No content to map due to end-of-input".to_owned(), place: None },
                    });
                }
            }
            if open.is_empty() {
                return Ok(());
            }
        }
    }

    fn bracket(&mut self, kind: Kind) {
        let at = self.at();
        self.next();
        let end = self.at();
        self.push(kind, Cow::Borrowed(&self.text[at..end]), self.place);
    }

    /// Reads a text in quotes; also where the reader stands behind the opening one.
    fn text(&mut self, where_it_ends: &str) -> Result<(Cow<'t, str>, Place), SyntaxError> {
        self.next();
        let found = self.place;
        let start = self.at();
        let mut owned: Option<String> = None;
        loop {
            let at = self.at();
            let before = self.place;
            let Some(character) = self.next() else {
                let reason = format!(
                    "Unexpected end-of-input{}{where_it_ends}",
                    if where_it_ends.starts_with(':') { "" } else { " " }
                );
                return Err(SyntaxError { reason, place: Some(self.place) });
            };
            match character {
                '"' => {
                    let text = owned.map_or(Cow::Borrowed(&self.text[start..at]), Cow::Owned);
                    return Ok((text, found));
                }
                '\\' => {
                    let decoded = self.escape()?;
                    owned.get_or_insert_with(|| self.text[start..at].to_owned()).push(decoded);
                }
                control if control < ' ' => {
                    let reason = format!(
                        "Illegal unquoted character ((CTRL-CHAR, code {})): has to be escaped using backslash to be \
                         included in string value",
                        u32::from(control)
                    );
                    return Err(SyntaxError { reason, place: Some(before) });
                }
                plain => {
                    if let Some(owned) = &mut owned {
                        owned.push(plain);
                    }
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, SyntaxError> {
        let before = self.place;
        let Some(letter) = self.next() else {
            return Err(SyntaxError {
                reason: "Unexpected end-of-input in character escape sequence".to_owned(),
                place: Some(self.place),
            });
        };
        Ok(match letter {
            '"' | '\\' | '/' => letter,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let first = self.unit()?;
                let mut rest = self.rest.clone();
                let is_pair = (0xD800..0xDC00).contains(&first)
                    && rest.next().is_some_and(|(_, c)| c == '\\')
                    && rest.next().is_some_and(|(_, c)| c == 'u');
                if is_pair {
                    self.next();
                    self.next();
                    let second = self.unit()?;
                    char::decode_utf16([first, second])
                        .next()
                        .and_then(Result::ok)
                        .unwrap_or(char::REPLACEMENT_CHARACTER)
                } else {
                    char::from_u32(first.into()).unwrap_or(char::REPLACEMENT_CHARACTER)
                }
            }
            other => {
                let reason = format!("Unrecognized character escape '{other}' (code {})", u32::from(other));
                return Err(SyntaxError { reason, place: Some(before) });
            }
        })
    }

    fn unit(&mut self) -> Result<u16, SyntaxError> {
        let mut unit = 0;
        for _ in 0..4 {
            let before = self.place;
            match self.next().map(|digit| (digit, digit.to_digit(16))) {
                Some((_, Some(digit))) => unit = unit << 4 | digit as u16,
                Some((other, None)) => {
                    let reason = format!(
                        "Unexpected character ('{other}' (code {})): expected a hex-digit for character escape sequence",
                        u32::from(other)
                    );
                    return Err(SyntaxError { reason, place: Some(before) });
                }
                None => {
                    return Err(SyntaxError {
                        reason: "Unexpected end-of-input in character escape sequence".to_owned(),
                        place: Some(self.place),
                    });
                }
            }
        }
        Ok(unit)
    }

    fn number(&mut self) -> Result<(), SyntaxError> {
        let start = self.at();
        let is_negative = self.peek() == Some('-');
        if is_negative {
            self.next();
        }
        let whole = self.digits();
        if whole == 0 {
            return Err(self.not_a_number("expected digit (0-9) to follow minus sign, for valid numeric value"));
        }
        let first_digit = start + usize::from(is_negative);
        if whole > 1 && self.text.as_bytes()[first_digit] == b'0' {
            return Err(SyntaxError {
                reason: "Invalid numeric value: Leading zeroes not allowed".to_owned(),
                place: Some(self.place),
            });
        }
        if self.peek() == Some('.') {
            self.next();
            if self.digits() == 0 {
                return Err(self.not_a_number("Decimal point not followed by a digit"));
            }
        }
        if matches!(self.peek(), Some('e' | 'E')) {
            self.next();
            if matches!(self.peek(), Some('+' | '-')) {
                self.next();
            }
            if self.digits() == 0 {
                return Err(self.not_a_number("Exponent indicator not followed by a digit"));
            }
        }
        let end = self.at();
        self.push(Kind::Number, Cow::Borrowed(&self.text[start..end]), self.place);
        Ok(())
    }

    fn digits(&mut self) -> usize {
        let mut count = 0;
        while matches!(self.peek(), Some('0'..='9')) {
            self.next();
            count += 1;
        }
        count
    }

    fn not_a_number(&mut self, reason: &str) -> SyntaxError {
        match self.peek() {
            Some(other) => {
                let code = u32::from(other);
                let reason = format!("Unexpected character ('{other}' (code {code})) in numeric value: {reason}");
                SyntaxError { reason, place: Some(self.place) }
            }
            None => {
                SyntaxError { reason: "Unexpected end-of-input in numeric value".to_owned(), place: Some(self.place) }
            }
        }
    }

    fn word(&mut self) -> Result<(), SyntaxError> {
        let start = self.at();
        while self.peek().is_some_and(|letter| letter.is_alphanumeric() || letter == '_' || letter == '$') {
            self.next();
        }
        let end = self.at();
        let word = &self.text[start..end];
        let kind = match word {
            "true" => Kind::True,
            "false" => Kind::False,
            "null" => Kind::Null,
            _ => {
                // No more of a token is repeated than helps.
                let shown: String = word.chars().take(WORD_CHARACTERS_MAX).collect();
                let cut = if shown.len() < word.len() { "..." } else { "" };
                let reason = format!("Unrecognized token '{shown}{cut}': was expecting {VALUES}");
                return Err(SyntaxError { reason, place: Some(self.place) });
            }
        };
        self.push(kind, Cow::Borrowed(word), self.place);
        Ok(())
    }

    fn unexpected(&self, character: char, expected: &str) -> SyntaxError {
        let reason = format!("Unexpected character ('{character}' (code {})): {expected}", u32::from(character));
        SyntaxError { reason, place: Some(self.place) }
    }

    fn wrong_close(&self, found: char, is_object: bool, start: Place) -> SyntaxError {
        let (expected, kind) = if is_object { ('}', "Object") } else { (']', "Array") };
        let reason = format!(
            "Unexpected close marker '{found}': expected '{expected}' (for {kind} starting at {REDACTED}{start})"
        );
        SyntaxError { reason, place: Some(self.place) }
    }

    fn end_inside(&self, is_object: bool, start: Place) -> SyntaxError {
        let kind = if is_object { "Object" } else { "Array" };
        let reason =
            format!("Unexpected end-of-input: expected close marker for {kind} (start marker at {REDACTED}{start})");
        SyntaxError { reason, place: Some(self.place) }
    }
}

/// How the source is named where it is not repeated.
const REDACTED: &str = "[Source: REDACTED (`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled); ";
const WORD_CHARACTERS_MAX: usize = 256;

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line: {}, column: {}]", self.line, self.column)
    }
}

impl std::fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.place {
            Some(place) => write!(f, "failed to parse JSON. {}\n at {REDACTED}{place}", self.reason),
            None => write!(f, "failed to parse JSON. {}", self.reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        tokens(text).unwrap_err().to_string()
    }

    fn columns(text: &str) -> Vec<(Kind, u32, u32)> {
        tokens(text).unwrap().iter().map(|token| (token.kind, token.found.column, token.read.column)).collect()
    }

    #[test]
    fn positions_are_where_a_lazy_reader_stands() {
        assert_eq!(
            columns(r#"{"k":["ab",-1.5e3,null]}"#),
            [
                (Kind::ObjectStart, 2, 2),
                (Kind::Name, 7, 5),
                (Kind::ArrayStart, 7, 7),
                (Kind::Text, 8, 11),
                (Kind::Number, 18, 18),
                (Kind::Null, 23, 23),
                (Kind::ArrayEnd, 24, 24),
                (Kind::ObjectEnd, 25, 25),
            ]
        );
    }

    #[test]
    fn lines_are_counted_and_columns_are_utf16_units() {
        let tokens = tokens("{\n \"\u{1F600}\": true}").unwrap();
        assert_eq!(tokens[1].text, "\u{1F600}");
        assert_eq!(tokens[2].read, Place { line: 2, column: 12 });
    }

    #[test]
    fn the_compact_form_has_the_same_tokens() {
        let text = "{ \"a\" : [ 1 , \"q\\\"\\u0001\\u00e9\" , { } ] , \"b\": [[], null] }";
        let compacted = compact(&tokens(text).unwrap());
        assert_eq!(compacted, r#"{"a":[1,"q\"\u0001é",{}],"b":[[],null]}"#);
        let kinds = |text: &str| -> Vec<_> {
            tokens(text).unwrap().into_iter().map(|token| (token.kind, token.text.into_owned())).collect()
        };
        assert_eq!(kinds(&compacted), kinds(text));
    }

    #[test]
    fn escapes_are_decoded() {
        let tokens = tokens(r#"["a\n\u00e9\ud83d\ude00\/\\"]"#).unwrap();
        assert_eq!(tokens[1].text, "a\né\u{1F600}/\\");
    }

    #[test]
    fn what_is_no_json_is_explained_in_the_words_people_search_for() {
        let at = |column| {
            format!(
                "\n at [Source: REDACTED (`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled); line: 1, column: {column}]"
            )
        };
        for (text, reason, column) in [
            (
                "{invalidjson}",
                "Unexpected character ('i' (code 105)): was expecting double-quote to start field name",
                2,
            ),
            (
                "invalid-json",
                "Unrecognized token 'invalid': was expecting (JSON String, Number, Array, Object or token 'null', 'true' or 'false')",
                8,
            ),
            (
                r#"{"a" 1}"#,
                "Unexpected character ('1' (code 49)): was expecting a colon to separate field name and value",
                6,
            ),
            ("[1 2]", "Unexpected character ('2' (code 50)): was expecting comma to separate Array entries", 4),
            ("[01]", "Invalid numeric value: Leading zeroes not allowed", 4),
        ] {
            assert_eq!(error(text), format!("failed to parse JSON. {reason}{}", at(column)), "{text}");
        }
        assert_eq!(error(" "), "failed to parse JSON. No content to map due to end-of-input");
        for text in [
            "[",
            "{",
            r#"{"a"#,
            r#"{"a""#,
            r#"{"a":"#,
            r#"{"a":1"#,
            r#"{"a":1]"#,
            "[1}",
            "[1,]",
            "{,}",
            "\"\u{1}\"",
            r#""\q""#,
            r#""\u12"#,
            "-",
            "1.",
            "1e",
            "nul",
            "]",
            "{\"a\":}",
        ] {
            assert!(tokens(text).is_err(), "{text}");
        }
        assert!(tokens(&"[".repeat(10_000)).is_err());
    }
}
