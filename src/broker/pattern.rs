//! Patterns over names: the regular expressions of permissions and policies.
//!
//! RabbitMQ uses PCRE on bytes, unanchored; look-ahead such as `^(?!amq\.).*` is common. An
//! expression means here what it means there, except that `\w` and `[:alpha:]` know no letters
//! beyond ASCII. Refused here alone are recursion (`(?1)`), branch reset (`(?|`), repeated
//! look-around, `\cX` and octal escapes.
//!
//! The usual simple shapes are recognised and matched without an engine, so a user with `.*` costs
//! nothing. A match that takes more than [`BACKTRACKS_MAX`] steps is given up and counts as none.

use std::fmt;

use fancy_regex::{BytesMode, RegexBuilder};

use super::term::Characters;

/// A compiled pattern and its text.
#[derive(Clone)]
pub struct Pattern {
    source: Box<str>,
    matcher: Matcher,
}

#[derive(Clone)]
enum Matcher {
    /// Every name.
    All,
    /// Names that start so.
    Prefix(Box<str>),
    /// One name.
    Exact(Box<str>),
    Regex(Box<fancy_regex::Regex>),
}

impl Pattern {
    /// Compiles a pattern. The empty pattern matches everything.
    pub fn compile(source: &str) -> Result<Self, PatternError> {
        if source.len() > PATTERN_BYTES_MAX {
            return Err(PatternError::TooLong);
        }
        let matcher = match simple(source) {
            Some(matcher) => matcher,
            None => Matcher::Regex(Box::new(engine(source)?)),
        };
        Ok(Self { source: source.into(), matcher })
    }

    /// Whether the pattern is found anywhere in `name`.
    pub fn is_match(&self, name: &str) -> bool {
        match &self.matcher {
            Matcher::All => true,
            Matcher::Prefix(prefix) => name.starts_with(&**prefix),
            Matcher::Exact(exact) => *name == **exact,
            Matcher::Regex(regex) => regex.is_match(name.as_bytes()).unwrap_or(false),
        }
    }

    /// The text that was compiled.
    pub fn as_str(&self) -> &str {
        &self.source
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.source)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Pattern {}

/// Why a pattern was refused. Prints as RabbitMQ prints PCRE's answer: `{"missing )",1}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatternError {
    /// Longer than [`PATTERN_BYTES_MAX`].
    TooLong,
    /// Not a regular expression.
    Invalid {
        /// What is wrong.
        message: String,
        /// The byte at which it was noticed.
        at: usize,
    },
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => f.write_str("pattern_too_long"),
            Self::Invalid { message, at } => {
                write!(f, "{{{},{at}}}", Characters(message.as_bytes()))
            }
        }
    }
}

impl std::error::Error for PatternError {}

/// Longest pattern that is accepted.
pub const PATTERN_BYTES_MAX: usize = 8192;
/// Steps after which a match gives up.
pub const BACKTRACKS_MAX: usize = 50_000;
/// Bound of the compiled form, for each part that the engine compiles on its own.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// Recognises `.*`, `^literal`, `^literal.*` and `^literal$`.
fn simple(source: &str) -> Option<Matcher> {
    if matches!(source, "" | ".*" | "^.*" | "^") {
        return Some(Matcher::All);
    }
    let rest = source.strip_prefix('^')?;
    let mut literal = String::new();
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '-' | ':' | '/' | '%' | ' ' | '@' | ',' => literal.push(c),
            '\\' => match chars.next()?.1 {
                escaped if escaped.is_ascii_punctuation() => literal.push(escaped),
                _ => return None,
            },
            _ => {
                return match &rest[at..] {
                    "$" => Some(Matcher::Exact(literal.into())),
                    ".*" => Some(Matcher::Prefix(literal.into())),
                    _ => None,
                };
            }
        }
    }
    Some(Matcher::Prefix(literal.into()))
}

fn engine(source: &str) -> Result<fancy_regex::Regex, PatternError> {
    let portable = Translator::new(source).run()?;
    let build = |mode: BytesMode| {
        RegexBuilder::new(&portable)
            .backtrack_limit(BACKTRACKS_MAX)
            .delegate_size_limit(COMPILED_BYTES_MAX)
            .delegate_dfa_size_limit(COMPILED_BYTES_MAX)
            .unicode_mode(mode != BytesMode::Ascii)
            .bytes_mode(mode)
            .build()
    };
    // Bytes first, as PCRE does; classes with letters beyond ASCII compile only with Unicode.
    build(BytesMode::Ascii).or_else(|_| build(BytesMode::UnicodeBytes)).map_err(|error| {
        use fancy_regex::{CompileError, Error, ParseError};
        let message = match &error {
            Error::ParseError(_, ParseError::InvalidBackref | ParseError::InvalidGroupNameBackref(_)) => {
                "reference to non-existent subpattern".to_owned()
            }
            Error::CompileError(inner) => match **inner {
                CompileError::InvalidBackref(_) | CompileError::InvalidGroupNameBackref(_) => {
                    "reference to non-existent subpattern".to_owned()
                }
                CompileError::LookBehindNotConst => "lookbehind assertion is not fixed length".to_owned(),
                CompileError::InnerError(_) => "regular expression is too large".to_owned(),
                _ => error.to_string(),
            },
            _ => error.to_string(),
        };
        PatternError::Invalid { message, at: source.len() }
    })
}

/// Walks a PCRE expression once: refuses the usual mistakes with PCRE's words and positions, and
/// rewrites what the engine reads differently.
///
/// Rewritten: a brace that opens no quantifier, `[`, `&` and `~` inside classes, `\Q..\E`, `\h`,
/// comments, and escapes that are plain characters to PCRE only (`\<`, `\_`, `\y`).
struct Translator<'a> {
    source: &'a str,
    at: usize,
    out: String,
    groups_open: usize,
    /// Whether a quantifier may follow.
    is_repeatable: bool,
}

impl<'a> Translator<'a> {
    fn new(source: &'a str) -> Self {
        Self { source, at: 0, out: String::with_capacity(source.len() + 8), groups_open: 0, is_repeatable: false }
    }

    fn run(mut self) -> Result<String, PatternError> {
        while let Some(c) = self.peek() {
            match c {
                '\\' => self.escape()?,
                '[' => self.class()?,
                '(' => self.group()?,
                ')' if self.groups_open == 0 => return Err(invalid("unmatched parentheses", self.at)),
                ')' => {
                    self.groups_open -= 1;
                    self.take();
                    self.is_repeatable = true;
                }
                '|' | '^' | '$' => {
                    self.take();
                    self.is_repeatable = false;
                }
                '*' | '+' | '?' => self.quantifier(c.len_utf8())?,
                '{' => match self.braces()? {
                    Some(bytes) => self.quantifier(bytes)?,
                    None => self.literal('{'),
                },
                '}' | ']' => self.literal(c),
                _ => {
                    self.take();
                    self.is_repeatable = true;
                }
            }
        }
        if self.groups_open > 0 { Err(invalid("missing )", self.source.len())) } else { Ok(self.out) }
    }

    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Copies one character.
    fn take(&mut self) {
        if let Some(c) = self.peek() {
            self.out.push(c);
            self.at += c.len_utf8();
        }
    }

    /// Passes one character that stands for itself.
    fn literal(&mut self, c: char) {
        if is_meta(c) {
            self.out.push('\\');
        }
        self.out.push(c);
        self.at += c.len_utf8();
        self.is_repeatable = true;
    }

    fn quantifier(&mut self, bytes: usize) -> Result<(), PatternError> {
        if !self.is_repeatable {
            // Noticed at the last character of `{n}`.
            return Err(invalid("nothing to repeat", self.at + bytes - 1));
        }
        for _ in 0..bytes {
            self.take();
        }
        // `?` makes it lazy, `+` possessive.
        if matches!(self.peek(), Some('?' | '+')) {
            self.take();
        }
        self.is_repeatable = false;
        Ok(())
    }

    /// The length of a `{n}`, `{n,}` or `{n,m}` that starts here.
    fn braces(&self) -> Result<Option<usize>, PatternError> {
        let Some((body, _)) = self.rest()[1..].split_once('}') else { return Ok(None) };
        let end = self.at + 1 + body.len();
        let (low, high) = body.split_once(',').map_or((body, None), |(low, high)| (low, Some(high)));
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if low.is_empty() || !is_digits(low) || !high.is_none_or(is_digits) {
            return Ok(None);
        }
        let count = |text: &str| match text.parse::<u32>() {
            Ok(count) if count <= 65535 => Ok(count),
            _ => Err(invalid("number too big in {} quantifier", end)),
        };
        let low = count(low)?;
        if let Some(high) = high.filter(|high| !high.is_empty())
            && count(high)? < low
        {
            return Err(invalid("numbers out of order in {} quantifier", end));
        }
        Ok(Some(body.len() + 2))
    }

    fn escape(&mut self) -> Result<(), PatternError> {
        let Some(c) = self.rest()[1..].chars().next() else {
            return Err(invalid("\\ at end of pattern", self.source.len()));
        };
        self.at += 1;
        match c {
            'Q' => {
                self.at += 1;
                let (quoted, skip) = match self.rest().split_once("\\E") {
                    Some((quoted, _)) => (quoted, 2),
                    None => (self.rest(), 0),
                };
                for c in quoted.chars() {
                    self.literal(c);
                }
                self.at += skip;
            }
            'E' => self.at += 1,
            // A blank to PCRE, a hexadecimal digit to the engine.
            'h' | 'H' => {
                self.out.push_str(if c == 'h' { "[ \\t]" } else { "[^ \\t]" });
                self.at += 1;
                self.is_repeatable = true;
            }
            'b' | 'B' | 'A' | 'z' | 'Z' | 'G' | 'K' => {
                self.out.push('\\');
                self.take();
                self.is_repeatable = false;
            }
            // Letters without a meaning stand for themselves.
            'y' | 'i' | 'j' | 'm' | 'q' | 'F' | 'I' | 'J' | 'M' | 'O' | 'T' | 'Y' => self.literal(c),
            c if c.is_ascii_alphanumeric() => {
                self.out.push('\\');
                self.take();
                // A braced operand belongs to the escape: \x{41}, \p{L}, \k{name}.
                if matches!(c, 'x' | 'p' | 'P' | 'k' | 'g' | 'o') && self.peek() == Some('{') {
                    while let Some(operand) = self.peek() {
                        self.take();
                        if operand == '}' {
                            break;
                        }
                    }
                }
                self.is_repeatable = true;
            }
            c => self.literal(c),
        }
        Ok(())
    }

    fn group(&mut self) -> Result<(), PatternError> {
        let len = self.source.len();
        let Some(special) = self.rest().strip_prefix("(?") else {
            if self.rest().starts_with("(*") {
                return Err(invalid("(*VERB) not recognized or malformed", (self.at + 2).min(len)));
            }
            self.groups_open += 1;
            self.is_repeatable = false;
            self.take();
            return Ok(());
        };
        if let Some(comment) = special.strip_prefix('#') {
            let Some((text, _)) = comment.split_once(')') else {
                return Err(invalid("missing ) after comment", len));
            };
            self.at += 4 + text.len();
            return Ok(());
        }
        let mut chars = special.chars();
        match chars.next() {
            Some(':' | '=' | '!' | '>' | '|' | '\'' | '(' | 'R' | '&' | '+' | '0'..='9') => {}
            Some('i' | 'm' | 's' | 'x' | 'J' | 'U' | 'X' | '-' | '^' | ')') => {}
            Some('<') => match chars.next() {
                Some('=' | '!') => {}
                Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                    let name = &special[1..];
                    if !name.contains('>') {
                        return Err(invalid("syntax error in subpattern name (missing terminator)", len));
                    }
                }
                _ => return Err(invalid("unrecognized character after (?<", self.at + 3)),
            },
            Some('P') => match chars.next() {
                Some('<') if !special.contains('>') => {
                    return Err(invalid("syntax error in subpattern name (missing terminator)", len));
                }
                Some('<' | '=' | '>') => {}
                _ => return Err(invalid("unrecognized character after (?P", self.at + 3)),
            },
            Some(_) => return Err(invalid("unrecognized character after (? or (?-", self.at + 2)),
            None => return Err(invalid("missing )", len)),
        }
        self.groups_open += 1;
        self.is_repeatable = false;
        self.take();
        // The question mark and what follows are no quantifier and no class.
        self.take();
        while let Some(c) = self.peek() {
            match c {
                ':' | '=' | '!' | '>' | '|' => {
                    self.take();
                    break;
                }
                '<' | 'P' | '\'' | '-' | '_' | '^' | '&' | '+' => self.take(),
                c if c.is_ascii_alphanumeric() => self.take(),
                _ => break,
            }
            // A look-behind sign ends the head as `(?<=` does above.
        }
        Ok(())
    }

    fn class(&mut self) -> Result<(), PatternError> {
        let unterminated = || invalid("missing terminating ] for character class", self.source.len());
        let mut at = self.at + 1;
        let mut out = String::from("[");
        let text = self.source;
        if text[at..].starts_with('^') {
            out.push('^');
            at += 1;
        }
        let mut is_first = true;
        // The character before a `-`, while a range may follow.
        let mut low: Option<char> = None;
        loop {
            let Some(c) = text[at..].chars().next() else { return Err(unterminated()) };
            if c == ']' && !is_first {
                out.push(']');
                at += 1;
                break;
            }
            is_first = false;
            if c == '['
                && text[at..].starts_with("[:")
                && let Some((name, _)) = text[at + 2..].split_once(":]")
                && name.trim_start_matches('^').bytes().all(|byte| byte.is_ascii_lowercase())
            {
                if !POSIX_CLASSES.contains(&name.trim_start_matches('^')) {
                    return Err(invalid("unknown POSIX class name", at + 2));
                }
                out.push_str(&text[at..at + name.len() + 4]);
                at += name.len() + 4;
                low = None;
                continue;
            }
            if c == '-' && low.is_some() && !text[at + 1..].starts_with(']') {
                out.push('-');
                at += 1;
                let (high, bytes) = class_item(&text[at..], &mut out).ok_or_else(unterminated)?;
                match (low, high) {
                    (Some(low), Some(high)) if low > high => {
                        return Err(invalid("range out of order in character class", at + bytes - 1));
                    }
                    (_, None) => return Err(invalid("invalid range in character class", at + bytes - 1)),
                    _ => {}
                }
                at += bytes;
                low = None;
                continue;
            }
            if c == '-' {
                out.push_str("\\-");
                at += 1;
                low = None;
                continue;
            }
            let (item, bytes) = class_item(&text[at..], &mut out).ok_or_else(unterminated)?;
            low = item;
            at += bytes;
        }
        self.out.push_str(&out);
        self.at = at;
        self.is_repeatable = true;
        Ok(())
    }
}

/// Writes one member of a class; gives the character (unless it is a set such as `\d`) and its length.
fn class_item(text: &str, out: &mut String) -> Option<(Option<char>, usize)> {
    let mut chars = text.chars();
    let c = chars.next()?;
    if c != '\\' {
        if matches!(c, '[' | ']' | '&' | '~' | '^' | '-') {
            out.push('\\');
        }
        out.push(c);
        return Some((Some(c), c.len_utf8()));
    }
    let escaped = chars.next()?;
    let bytes = 1 + escaped.len_utf8();
    match escaped {
        'h' => out.push_str(" \\t"),
        'H' => out.push_str("[^ \\t]"),
        _ if escaped.is_ascii_alphanumeric() => out.extend(['\\', escaped]),
        _ => {
            if escaped.is_ascii_punctuation() && !matches!(escaped, '<' | '>' | '_') {
                out.push('\\');
            }
            out.push(escaped);
            return Some((Some(escaped), bytes));
        }
    }
    Some((None, bytes))
}

const POSIX_CLASSES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
    "xdigit",
];

fn is_meta(c: char) -> bool {
    matches!(
        c,
        '\\' | '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$' | '#' | '&' | '-' | '~'
    )
}

fn invalid(message: &str, at: usize) -> PatternError {
    PatternError::Invalid { message: message.to_owned(), at }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::compile(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}")).is_match(name)
    }

    fn refusal(pattern: &str) -> String {
        Pattern::compile(pattern).expect_err(pattern).to_string()
    }

    #[test]
    fn a_pattern_is_found_anywhere_in_the_name() {
        assert!(matches("orders", "eu.orders.new"));
        assert!(matches("", "anything"));
        assert!(matches(".*", ""));
        assert!(!matches("^orders", "eu.orders"));
        assert!(!matches("^$", "x"));
        assert!(matches("^$", ""));
    }

    #[test]
    fn simple_shapes_match_as_the_engine_does() {
        for pattern in ["^orders\\.", "^orders\\..*", "^orders$", "^a-b_c$", "^", "^.*", ".*"] {
            let simple = Pattern::compile(pattern).unwrap();
            assert!(!matches!(simple.matcher, Matcher::Regex(_)), "{pattern}");
            let engine = engine(pattern).unwrap();
            for name in ["", "orders", "orders.", "orders.eu", "ordersx", "xorders.", "a-b_c", "a-b_cd"] {
                assert_eq!(simple.is_match(name), engine.is_match(name.as_bytes()).unwrap(), "{pattern} on {name}");
            }
        }
    }

    #[test]
    fn look_ahead_excludes_names() {
        assert!(matches("^(?!amq\\.).*", "orders"));
        assert!(!matches("^(?!amq\\.).*", "amq.direct"));
        assert!(matches("^(?!amq\\.|system).*$", "order"));
        assert!(matches("(?<=eu\\.)orders$", "eu.orders"));
        assert!(!matches("(?<!eu\\.)orders$", "eu.orders"));
    }

    #[test]
    fn mistakes_are_named_as_pcre_names_them() {
        for (pattern, text) in [
            ("(", r#"{"missing )",1}"#),
            ("*", r#"{"nothing to repeat",0}"#),
            ("+a", r#"{"nothing to repeat",0}"#),
            ("a**", r#"{"nothing to repeat",2}"#),
            ("[z-a", r#"{"range out of order in character class",3}"#),
            ("[a", r#"{"missing terminating ] for character class",2}"#),
            ("[z-a]", r#"{"range out of order in character class",3}"#),
            ("\\", r#"{"\\ at end of pattern",1}"#),
            ("a{2,1}", r#"{"numbers out of order in {} quantifier",5}"#),
            ("(?<", r#"{"unrecognized character after (?<",3}"#),
            ("(?<n", r#"{"syntax error in subpattern name (missing terminator)",4}"#),
            ("(?P<n", r#"{"syntax error in subpattern name (missing terminator)",5}"#),
            ("(?!a", r#"{"missing )",4}"#),
            ("a)", r#"{"unmatched parentheses",1}"#),
            ("(?q)", r#"{"unrecognized character after (? or (?-",2}"#),
            ("[[:foo:]]", r#"{"unknown POSIX class name",3}"#),
            ("x{99999}", r#"{"number too big in {} quantifier",7}"#),
            ("\\1", r#"{"reference to non-existent subpattern",2}"#),
            ("(a)\\2", r#"{"reference to non-existent subpattern",5}"#),
            ("^*", r#"{"nothing to repeat",1}"#),
            ("a|{2}", r#"{"nothing to repeat",4}"#),
            ("[a--b]", r#"{"range out of order in character class",3}"#),
            ("[a-\\d]", r#"{"invalid range in character class",4}"#),
        ] {
            assert_eq!(refusal(pattern), text, "{pattern}");
        }
    }

    #[test]
    fn what_pcre_takes_literally_is_literal() {
        assert!(matches("a{", "a{"));
        assert!(matches("^{username}", "{username}-x"));
        assert!(matches("a{1,", "a{1,"));
        assert!(matches("a{,3}", "a{,3}"));
        assert!(matches("\\y\\_\\<\\>", "y_<>"));
        assert!(matches("^[a[b]$", "["));
        assert!(matches("^[a&&b]$", "&"));
        assert!(matches("^[]a]$", "]"));
        assert!(matches("^[^]a]$", "b"));
        assert!(matches("^[\\w-]+$", "a-b_c"));
        assert!(matches("^\\Qa.b\\E$", "a.b"));
        assert!(!matches("^\\Qa.b\\E$", "axb"));
        assert!(matches("x(?#comment)y", "xy"));
        assert!(matches("]}{", "]}{"));
        assert!(matches("^\\h[\\h]\\H$", " \ta"));
        assert!(!matches("\\h", "a"));
        for pattern in [
            "\\-\\/\\@\\%\\#\\ ",
            "a++",
            "(?>a)b",
            "\\h",
            "(?i)ABC",
            "[[:alpha:]]+",
            "\\Aa\\Z",
            "(a|b)\\1",
            "(?:a|b)*?",
        ] {
            Pattern::compile(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
        }
    }

    #[test]
    fn letters_are_bytes_unless_a_class_needs_more() {
        assert!(matches("^ü$", "ü"));
        assert!(matches("^.{2}$", "ü"));
        assert!(matches("[ü]", "für"));
        assert!(!matches("^\\w+$", "für"));
    }

    #[test]
    fn a_pattern_without_end_gives_up_and_does_not_match() {
        let name = "a".repeat(200);
        assert!(!matches("^(?=(a+)+$)(a|aa)+(?!a)b$", &name));
        assert_eq!(Pattern::compile(&"a".repeat(PATTERN_BYTES_MAX + 1)), Err(PatternError::TooLong));
        assert!(Pattern::compile("((((a{1000}){1000}){1000}){1000})").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_pattern_panics(pattern in "[a-c(){}\\[\\]*+?|^$.\\\\,1-3:!=<>P&~#QEdw-]{0,24}", name in "[a-c.{}]{0,12}") {
            if let Ok(pattern) = Pattern::compile(&pattern) {
                pattern.is_match(&name);
            }
        }

        #[test]
        fn an_escaped_name_matches_itself_only(name in "[ -~]{1,20}", other in "[ -~]{1,20}") {
            let escaped: String = name.chars().flat_map(|c| {
                if c.is_ascii_alphanumeric() { vec![c] } else { vec!['\\', c] }
            }).collect();
            let pattern = Pattern::compile(&format!("^{escaped}$")).unwrap();
            proptest::prop_assert!(pattern.is_match(&name));
            proptest::prop_assert_eq!(pattern.is_match(&other), name == other);
        }
    }
}
