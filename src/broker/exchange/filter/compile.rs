//! From the text of a filter policy to its conditions.
//!
//! A policy is an object of names, each with an array of alternatives or with an object of further names; `$or`
//! holds an array of objects of which one must match. What comes out are branches: a message matches when it
//! satisfies all conditions of one of them. Errors have the texts and positions that authors of such policies know;
//! the positions are those of the policy without its blanks.

use std::borrow::Cow;

use super::matcher::{Bound, Excluded, Matcher, Network, Range, Wildcard, fold};
use super::number::Number;
use super::policy::{Branch, Condition, PolicyError, Scope};
use super::scan::{self, Kind, Place, Token};

/// Values in combination that a policy may have: over all branches the sum, over the conditions of a branch the
/// product of alternatives times depth.
pub(super) const COMBINATIONS_MAX: u64 = 150;
/// Names with alternatives that a policy may have.
pub(super) const NAMES_MAX: usize = 5;
/// Octets of a policy.
pub(super) const POLICY_BYTES_MAX: usize = 256 * 1024;

const OR: &str = "$or";
/// Names of operators, present and to come, that cannot be names of fields inside `$or`.
const RESERVED: [&str; 23] = [
    "exactly",
    "equals-ignore-case",
    "prefix",
    "suffix",
    "anything-but",
    "exists",
    "wildcard",
    "numeric",
    "cidr",
    "=",
    "<",
    "<=",
    ">",
    ">=",
    "regex",
    "not-wildcard",
    "not-equals-ignore-case",
    "date-after",
    "date-on-or-after",
    "date-before",
    "date-on-or-before",
    "in-date-range",
    "ip-address-in-range",
];

/// Compiles the text of a policy into branches.
pub(super) fn compile(text: &str, scope: Scope) -> Result<Vec<Branch>, PolicyError> {
    if text.len() > POLICY_BYTES_MAX {
        return Err(PolicyError::TooLong);
    }
    let syntax = |error: scan::SyntaxError| PolicyError::Syntax(error.to_string());
    // Positions in a policy are those of its compact form.
    let compacted = scan::compact(&scan::tokens(text).map_err(syntax)?);
    let tokens = scan::tokens(&compacted).map_err(syntax)?;
    let mut compiler =
        Compiler { text: &compacted, tokens: &tokens, at: 0, path: Vec::new(), names_count: 0, depth_max: 1 };
    let first = compiler.next()?;
    if first.kind != Kind::ObjectStart {
        return Err(compiler.refuse("Filter is not an object", first.found));
    }
    let mut branches = vec![Vec::new()];
    compiler.object(&mut branches, false)?;
    if scope == Scope::Attributes && compiler.depth_max > 1 {
        return Err(PolicyError::Nested);
    }
    if compiler.names_count > NAMES_MAX {
        return Err(PolicyError::TooManyNames);
    }
    let combinations = |branch: &Branch| {
        branch.iter().fold(1_u64, |product, condition| {
            product.saturating_mul(condition.alternatives_count as u64).saturating_mul(condition.depth as u64)
        })
    };
    if branches.iter().fold(0_u64, |sum, branch| sum.saturating_add(combinations(branch))) > COMBINATIONS_MAX {
        return Err(PolicyError::TooComplex);
    }
    for branch in &mut branches {
        branch.sort_by(|one, other| one.path.cmp(&other.path));
    }
    Ok(branches)
}

struct Compiler<'c, 't> {
    text: &'t str,
    tokens: &'c [Token<'t>],
    at: usize,
    path: Vec<&'c str>,
    names_count: usize,
    depth_max: usize,
}

type Result<T, E = PolicyError> = std::result::Result<T, E>;

impl<'c, 't> Compiler<'c, 't> {
    fn next(&mut self) -> Result<&'c Token<'t>> {
        // The scanner has closed what was opened, so that tokens never end inside a value.
        let token =
            self.tokens.get(self.at).ok_or_else(|| PolicyError::Refused("Filter is not complete".to_owned()))?;
        self.at += 1;
        Ok(token)
    }

    fn refuse(&self, reason: impl std::fmt::Display, place: Place) -> PolicyError {
        let mut shown: Cow<'_, str> = Cow::Borrowed(self.text);
        let units = self.text.encode_utf16().count();
        let mut cut = String::new();
        if units > SHOWN_UNITS_MAX {
            let mut left = SHOWN_UNITS_MAX;
            let keep = self.text.chars().take_while(|character| {
                let fits = character.len_utf16() <= left;
                left = left.saturating_sub(character.len_utf16());
                fits
            });
            shown = Cow::Owned(keep.collect());
            cut = format!("[truncated {} chars]", units - SHOWN_UNITS_MAX);
        }
        PolicyError::Refused(format!("{reason}\n at [Source: (String)\"{shown}\"{cut}; {place}"))
    }

    /// What follows the opening brace of an object of names.
    fn object(&mut self, branches: &mut Vec<Branch>, is_inside_or: bool) -> Result<()> {
        let mut is_empty = true;
        loop {
            let name = self.next()?;
            if name.kind == Kind::ObjectEnd {
                return if is_empty { Err(self.refuse("Empty objects are not allowed", name.found)) } else { Ok(()) };
            }
            is_empty = false;
            if name.text == OR {
                self.alternatives(branches)?;
                continue;
            }
            if is_inside_or && RESERVED.contains(&&*name.text) {
                let reason = format!("{} is Ruler reserved fieldName which cannot be used inside {OR}.", name.text);
                return Err(self.refuse(reason, name.found));
            }
            let value = self.next()?;
            self.path.push(&name.text);
            // Alternatives count times their depth, so what is deeper is too complex with any of them.
            if self.path.len() as u64 > COMBINATIONS_MAX {
                return Err(PolicyError::TooComplex);
            }
            match value.kind {
                Kind::ObjectStart => self.object(branches, is_inside_or)?,
                Kind::ArrayStart => self.condition(branches)?,
                _ => {
                    let reason = format!("\"{}\" must be an object or an array", name.text);
                    return Err(self.refuse(reason, value.found));
                }
            }
            self.path.pop();
        }
    }

    /// What follows `$or`.
    fn alternatives(&mut self, branches: &mut Vec<Branch>) -> Result<()> {
        let start = self.next()?;
        if start.kind != Kind::ArrayStart {
            return Err(self.refuse(format_args!("It must be an Array followed with {OR}."), start.found));
        }
        let before = std::mem::take(branches);
        let mut count = 0;
        loop {
            let token = self.next()?;
            match token.kind {
                Kind::ArrayEnd if count < 2 => {
                    let reason = format!("There must have at least 2 Objects in {OR} relationship.");
                    return Err(self.refuse(reason, token.found));
                }
                Kind::ArrayEnd => return Ok(()),
                Kind::ObjectStart => {
                    let mut alternative = before.clone();
                    self.object(&mut alternative, true)?;
                    branches.append(&mut alternative);
                    // Each branch counts at least once.
                    if branches.len() as u64 > COMBINATIONS_MAX {
                        return Err(PolicyError::TooComplex);
                    }
                }
                _ => {
                    let reason = format!("Only JSON object is allowed in array of {OR} relationship.");
                    return Err(self.refuse(reason, token.found));
                }
            }
            count += 1;
        }
    }

    /// What follows the opening bracket of the alternatives of a name.
    fn condition(&mut self, branches: &mut [Branch]) -> Result<()> {
        let mut matchers = Vec::new();
        let mut alternatives_count = 0;
        loop {
            let token = self.next()?;
            match token.kind {
                Kind::ArrayEnd if alternatives_count == 0 => {
                    return Err(self.refuse("Empty arrays are not allowed", token.found));
                }
                Kind::ArrayEnd => break,
                Kind::ObjectStart => matchers.push(self.expression()?),
                Kind::Text => {
                    matchers.extend(Network::of_address(&token.text).map(Matcher::Network));
                    matchers.push(Matcher::Text((*token.text).into()));
                }
                Kind::Number => matchers.push(Matcher::Number(self.number(token)?)),
                Kind::True => matchers.push(Matcher::Bool(true)),
                Kind::False => matchers.push(Matcher::Bool(false)),
                Kind::Null => matchers.push(Matcher::Null),
                _ => return Err(self.refuse("Match value must be String, number, true, false, or null", token.found)),
            }
            alternatives_count += 1;
        }
        self.names_count += 1;
        self.depth_max = self.depth_max.max(self.path.len());
        let path = self.path.join(".");
        let condition =
            Condition { path: path.into(), matchers: matchers.into(), alternatives_count, depth: self.path.len() };
        for branch in branches {
            // The last of several equal names counts, as it does in JSON objects.
            branch.retain(|other: &Condition| other.path != condition.path);
            branch.push(condition.clone());
        }
        Ok(())
    }

    fn number(&self, token: &Token<'_>) -> Result<Number> {
        Number::parse(&token.text)
            .ok_or_else(|| self.refuse(format!("Cannot compare number : {}", token.text), token.found))
    }

    /// What follows the opening brace of an operator.
    fn expression(&mut self) -> Result<Matcher> {
        let name = self.next()?;
        if name.kind != Kind::Name {
            return Err(self.refuse("Match expression name not found", name.found));
        }
        let matcher = match &*name.text {
            "exactly" => Matcher::Text(self.one_text("exact")?.into()),
            "equals-ignore-case" => Matcher::SameIgnoringCase(fold(self.one_text("equals-ignore-case")?)),
            "prefix" => match self.folded("prefix", "Prefix")? {
                Some(folded) => Matcher::PrefixIgnoringCase(folded),
                None => Matcher::Prefix(self.one_text("prefix")?.into()),
            },
            "suffix" => match self.folded("suffix", "Suffix")? {
                Some(folded) => Matcher::SuffixIgnoringCase(folded),
                None => Matcher::Suffix(self.one_text("suffix")?.into()),
            },
            "wildcard" => {
                let place = self.peek()?.read;
                let pattern = self.one_text("wildcard")?;
                Matcher::Wildcard(Wildcard::parse(pattern).map_err(|reason| self.refuse(reason, place))?)
            }
            // The text says "prefix" where it means this.
            "cidr" => {
                let block = self.one_text("prefix")?;
                Matcher::Network(Network::parse(block).map_err(PolicyError::Refused)?)
            }
            "exists" => {
                let token = self.next()?;
                match token.kind {
                    Kind::True => Matcher::Exists,
                    Kind::False => Matcher::Absent,
                    _ => {
                        let reason = "exists match pattern must be either true or false.";
                        return Err(self.refuse(reason, token.found));
                    }
                }
            }
            "numeric" => {
                let range = self.range()?;
                return self.close("Too many elements in numeric expression").map(|()| range);
            }
            "anything-but" => {
                let excluded = self.excluded()?;
                return self.close("Too many elements in numeric expression").map(|()| Matcher::AnythingBut(excluded));
            }
            other => return Err(self.refuse(format!("Unrecognized match type {other}"), name.found)),
        };
        self.close(ONE_KEY)?;
        Ok(matcher)
    }

    fn peek(&self) -> Result<&'c Token<'t>> {
        self.tokens.get(self.at).ok_or_else(|| PolicyError::Refused("Filter is not complete".to_owned()))
    }

    fn close(&mut self, otherwise: &str) -> Result<()> {
        let token = self.next()?;
        if token.kind == Kind::ObjectEnd { Ok(()) } else { Err(self.refuse(otherwise, token.found)) }
    }

    fn one_text(&mut self, operator: &str) -> Result<&'c str> {
        let token = self.next()?;
        if token.kind != Kind::Text {
            return Err(self.refuse(format!("{operator} match pattern must be a string"), token.found));
        }
        Ok(&token.text)
    }

    /// `{"equals-ignore-case": text}` behind `prefix` or `suffix`, if that is what follows.
    fn folded(&mut self, operator: &str, title: &str) -> Result<Option<Box<str>>> {
        if self.peek()?.kind != Kind::ObjectStart {
            return Ok(None);
        }
        self.next()?;
        let name = self.next()?;
        if name.kind != Kind::Name {
            return Err(self.refuse(format!("{title} expression name not found"), name.found));
        }
        if name.text != "equals-ignore-case" {
            return Err(self.refuse(format!("Unsupported {operator} pattern: {}", name.text), name.found));
        }
        let folded = fold(self.one_text("equals-ignore-case")?);
        self.close(ONE_KEY)?;
        Ok(Some(folded))
    }

    fn range(&mut self) -> Result<Matcher> {
        let start = self.next()?;
        if start.kind != Kind::ArrayStart {
            return Err(self.refuse("Value of numeric must be an array.", start.found));
        }
        let operator = self.next()?;
        if operator.kind != Kind::Text {
            let reason = format!("Invalid member in numeric match: {}", operator.text);
            return Err(self.refuse(reason, operator.read));
        }
        let value = self.next()?;
        let number = |compiler: &Self, name: &str, token: &Token<'_>| {
            if token.kind == Kind::Number {
                compiler.number(token)
            } else {
                Err(compiler.refuse(format!("Value of {name} must be numeric"), token.found))
            }
        };
        let (is_low, is_included) = match &*operator.text {
            "=" => {
                let equal = number(self, "equals", value)?;
                self.end_of_range()?;
                return Ok(Matcher::Number(equal));
            }
            ">=" => (true, true),
            ">" => (true, false),
            "<=" => (false, true),
            "<" => (false, false),
            other => return Err(self.refuse(format!("Unrecognized numeric range operator: {other}"), value.found)),
        };
        let bound = Bound { at: number(self, &operator.text, value)?, is_included };
        if !is_low {
            self.end_of_range()?;
            return Ok(Matcher::Range(Range { low: None, high: Some(bound) }));
        }
        let operator = self.next()?;
        if operator.kind == Kind::ArrayEnd {
            return Ok(Matcher::Range(Range { low: Some(bound), high: None }));
        }
        if operator.kind != Kind::Text {
            return Err(self.refuse(format!("Bad value in numeric range: {}", operator.text), operator.read));
        }
        let is_included = match &*operator.text {
            "<" => false,
            "<=" => true,
            other => return Err(self.refuse(format!("Bad numeric range operator: {other}"), operator.read)),
        };
        let value = self.next()?;
        let high = Bound { at: number(self, &operator.text, value)?, is_included };
        let end = self.next()?;
        if end.kind != Kind::ArrayEnd {
            return Err(self.refuse("Too many terms in numeric range expression", end.found));
        }
        if bound.at >= high.at {
            return Err(self.refuse("Bottom must be less than top", end.found));
        }
        Ok(Matcher::Range(Range { low: Some(bound), high: Some(high) }))
    }

    fn end_of_range(&mut self) -> Result<()> {
        let end = self.next()?;
        if end.kind == Kind::ArrayEnd {
            Ok(())
        } else {
            Err(self.refuse("Too many elements in numeric expression", end.found))
        }
    }

    fn excluded(&mut self) -> Result<Excluded> {
        let token = self.next()?;
        if token.kind == Kind::ObjectStart {
            let name = self.next()?;
            if name.kind != Kind::Name {
                return Err(self.refuse("Anything-But expression name not found", name.found));
            }
            let excluded = match &*name.text {
                operator @ "prefix" => Excluded::Prefixes(self.affixes(operator)?),
                operator @ "suffix" => Excluded::Suffixes(self.affixes(operator)?),
                operator @ "equals-ignore-case" => {
                    let texts = self.texts(operator, |_| {
                        "Inside anything-but/equals-ignore-case list, number|start|null|boolean is not supported."
                            .to_owned()
                    })?;
                    Excluded::IgnoringCase(texts.iter().map(|token| fold(&token.text)).collect())
                }
                operator @ "wildcard" => {
                    let patterns = self.texts(operator, |_| "wildcard match pattern must be a string".to_owned())?;
                    let patterns = patterns
                        .iter()
                        .map(|token| Wildcard::parse(&token.text).map_err(|reason| self.refuse(reason, token.read)));
                    Excluded::Wildcards(patterns.collect::<Result<_>>()?)
                }
                other => return Err(self.refuse(format!("Unsupported anything-but pattern: {other}"), name.found)),
            };
            self.close("Too many elements in numeric expression")?;
            return Ok(excluded);
        }
        let mut texts: Vec<Box<str>> = Vec::new();
        let mut numbers = Vec::new();
        match token.kind {
            Kind::Text => texts.push((*token.text).into()),
            Kind::Number => numbers.push(self.number(token)?),
            Kind::ArrayStart => loop {
                let token = self.next()?;
                match token.kind {
                    Kind::Text => texts.push((*token.text).into()),
                    Kind::Number => numbers.push(self.number(token)?),
                    Kind::ArrayEnd if texts.is_empty() == numbers.is_empty() => {
                        let reason = "Inside anything but list, either all values are number or string, mixed type is \
                                      not supported";
                        return Err(self.refuse(reason, token.found));
                    }
                    Kind::ArrayEnd => break,
                    _ => {
                        let reason = "Inside anything but list, start|null|boolean is not supported.";
                        return Err(self.refuse(reason, token.found));
                    }
                }
            },
            _ => {
                let reason = "Value of anything-but must be an array or single string/number value.";
                return Err(self.refuse(reason, token.found));
            }
        }
        Ok(if texts.is_empty() { Excluded::Numbers(numbers.into()) } else { Excluded::Texts(texts.into()) })
    }

    fn affixes(&mut self, operator: &str) -> Result<Box<[Box<str>]>> {
        let texts = self.texts(operator, |is_listed| {
            let operator = if is_listed { "prefix/suffix" } else { operator };
            format!("{operator} match pattern must be a string")
        })?;
        if let Some(empty) = texts.iter().find(|token| token.text.is_empty()) {
            return Err(self.refuse("Null prefix/suffix not allowed", empty.read));
        }
        Ok(texts.iter().map(|token| (*token.text).into()).collect())
    }

    /// One text or a list of them.
    fn texts(&mut self, operator: &str, otherwise: impl Fn(bool) -> String) -> Result<Vec<&'c Token<'t>>> {
        let token = self.next()?;
        match token.kind {
            Kind::Text => return Ok(vec![token]),
            Kind::ArrayStart => {}
            _ => return Err(self.refuse(otherwise(false), token.found)),
        }
        let mut texts = Vec::new();
        loop {
            let token = self.next()?;
            match token.kind {
                Kind::Text => texts.push(token),
                Kind::ArrayEnd if texts.is_empty() => {
                    return Err(self.refuse(format!("Value of {operator} must not be empty"), token.found));
                }
                Kind::ArrayEnd => return Ok(texts),
                _ => return Err(self.refuse(otherwise(true), token.found)),
            }
        }
    }
}

const ONE_KEY: &str = "Only one key allowed in match expression";
/// UTF-16 units of a policy that an error repeats.
const SHOWN_UNITS_MAX: usize = 500;
