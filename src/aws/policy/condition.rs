//! Conditions of a statement: an operator, a key of the request, and values of which one has to match.
//!
//! ```text
//! "ForAnyValue:StringLikeIfExists": { "aws:PrincipalArn": ["arn:aws:iam::1:user/a*", ...] }
//! ```

use std::{borrow::Cow, net::IpAddr};

use serde_json::{Map, Value};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Malformed, Pattern, Request, malformed};

/// Conditions of one statement. More: the document is refused.
const CONDITIONS_COUNT_MAX: usize = 64;

/// One operator on one key.
#[derive(Clone, Debug)]
pub(super) struct Condition {
    /// In small letters.
    key: String,
    test: Test,
    /// None of the values may match, instead of one.
    is_negated: bool,
    /// A request without the key passes.
    if_exists: bool,
    /// Each of the request's values has to pass, and so does none.
    for_all: bool,
}

/// The values, as the operator reads them.
#[derive(Clone, Debug)]
enum Test {
    Text(Vec<String>),
    TextCaseless(Vec<String>),
    Like(Vec<Pattern>),
    /// Each part between colons by itself.
    Arn(Vec<Vec<Pattern>>),
    Number(Vec<f64>, Compare),
    Date(Vec<f64>, Compare),
    Bool(Vec<bool>),
    Network(Vec<(IpAddr, u8)>),
    Binary(Vec<String>),
    /// Whether the key has to be missing.
    Null(bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compare {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Compare {
    /// By the end of an operator's name; whether it is negated.
    fn parse(name: &str) -> Option<(Self, bool)> {
        Some(match name {
            "Equals" => (Self::Equal, false),
            "NotEquals" => (Self::Equal, true),
            "LessThan" => (Self::Less, false),
            "LessThanEquals" => (Self::LessOrEqual, false),
            "GreaterThan" => (Self::Greater, false),
            "GreaterThanEquals" => (Self::GreaterOrEqual, false),
            _ => return None,
        })
    }

    fn holds(self, said: f64, wanted: f64) -> bool {
        match self {
            Self::Equal => said == wanted,
            Self::Less => said < wanted,
            Self::LessOrEqual => said <= wanted,
            Self::Greater => said > wanted,
            Self::GreaterOrEqual => said >= wanted,
        }
    }
}

/// Reads what stands under `Condition`.
pub(super) fn parse(operators: &Map<String, Value>) -> Result<Vec<Condition>, Malformed> {
    let mut conditions = Vec::new();
    for (name, keys) in operators {
        let Value::Object(keys) = keys else {
            return malformed(format!("Policy condition {name} must be an object."));
        };
        for (key, values) in keys {
            if conditions.len() >= CONDITIONS_COUNT_MAX {
                return malformed("Policy statement has too many conditions.");
            }
            conditions.push(Condition::parse(name, key, values)?);
        }
    }
    Ok(conditions)
}

impl Condition {
    fn parse(operator: &str, key: &str, values: &Value) -> Result<Self, Malformed> {
        let (for_all, name) = match operator.split_once(':') {
            Some(("ForAllValues", name)) => (true, name),
            Some(("ForAnyValue", name)) => (false, name),
            Some(_) => return malformed(format!("Invalid condition type : {operator}.")),
            None => (false, operator),
        };
        let (name, if_exists) = match name.strip_suffix("IfExists") {
            Some(name) => (name, true),
            None => (name, false),
        };
        let values = scalars(values, operator)?;
        let unread = |what: &str| Malformed(format!("Policy condition {operator} must have {what}."));
        let numbers = |read: fn(&str) -> Option<f64>, what: &str| {
            values.iter().map(|value| read(value)).collect::<Option<Vec<_>>>().ok_or_else(|| unread(what))
        };
        let owned = || values.iter().map(|value| value.clone().into_owned()).collect::<Vec<_>>();
        let (test, is_negated) = match name {
            "StringEquals" => (Test::Text(owned()), false),
            "StringNotEquals" => (Test::Text(owned()), true),
            "StringEqualsIgnoreCase" => (Test::TextCaseless(owned()), false),
            "StringNotEqualsIgnoreCase" => (Test::TextCaseless(owned()), true),
            "StringLike" => (Test::Like(likes(&values)), false),
            "StringNotLike" => (Test::Like(likes(&values)), true),
            "ArnEquals" | "ArnLike" => (Test::Arn(arns(&values)), false),
            "ArnNotEquals" | "ArnNotLike" => (Test::Arn(arns(&values)), true),
            "BinaryEquals" => (Test::Binary(owned()), false),
            "Bool" => {
                let bools = values.iter().map(|value| boolean(value)).collect::<Option<Vec<_>>>();
                (Test::Bool(bools.ok_or_else(|| unread("true or false"))?), false)
            }
            "Null" => match values.as_slice() {
                [one] => (Test::Null(boolean(one).ok_or_else(|| unread("true or false"))?), false),
                _ => return Err(unread("true or false")),
            },
            "IpAddress" | "NotIpAddress" => {
                let ranges = values.iter().map(|value| network(value)).collect::<Option<Vec<_>>>();
                (Test::Network(ranges.ok_or_else(|| unread("IP addresses"))?), name == "NotIpAddress")
            }
            _ => {
                let of = |prefix| name.strip_prefix(prefix).and_then(Compare::parse);
                if let Some((compare, is_negated)) = of("Numeric") {
                    (Test::Number(numbers(number, "numbers")?, compare), is_negated)
                } else if let Some((compare, is_negated)) = of("Date") {
                    (Test::Date(numbers(date, "dates")?, compare), is_negated)
                } else {
                    return malformed(format!("Invalid condition type : {operator}."));
                }
            }
        };
        Ok(Self { key: key.to_ascii_lowercase(), test, is_negated, if_exists, for_all })
    }

    pub(super) fn holds(&self, request: &Request<'_>) -> bool {
        let said = values(request, &self.key);
        if let Test::Null(is_missing) = self.test {
            return said.is_empty() == is_missing;
        }
        if said.is_empty() {
            // What is not there equals nothing.
            return self.if_exists || self.for_all || self.is_negated;
        }
        let passes = |said: &Cow<'_, str>| self.test.matches(said) != self.is_negated;
        if self.for_all || self.is_negated { said.iter().all(passes) } else { said.iter().any(passes) }
    }
}

/// What a request says of a key.
fn values<'r>(request: &Request<'r>, key: &str) -> Vec<Cow<'r, str>> {
    let of_fields = match key {
        "aws:principalarn" => request.principal,
        "aws:principalaccount" => request.account,
        _ => "",
    };
    if !of_fields.is_empty() {
        return vec![of_fields.into()];
    }
    let all = request.context.iter().filter(|(known, _)| *known == key);
    all.map(|(_, value)| value.clone()).collect()
}

impl Test {
    fn matches(&self, said: &str) -> bool {
        match self {
            Self::Text(values) | Self::Binary(values) => values.iter().any(|value| value == said),
            Self::TextCaseless(values) => values.iter().any(|value| value.to_lowercase() == said.to_lowercase()),
            Self::Like(patterns) => patterns.iter().any(|pattern| pattern.matches(said)),
            Self::Arn(arns) => {
                let parts: Vec<&str> = said.splitn(6, ':').collect();
                arns.iter().any(|arn| {
                    arn.len() == parts.len() && arn.iter().zip(&parts).all(|(pattern, part)| pattern.matches(part))
                })
            }
            Self::Number(values, compare) => {
                number(said).is_some_and(|said| values.iter().any(|value| compare.holds(said, *value)))
            }
            Self::Date(values, compare) => {
                date(said).is_some_and(|said| values.iter().any(|value| compare.holds(said, *value)))
            }
            Self::Bool(values) => boolean(said).is_some_and(|said| values.contains(&said)),
            Self::Network(ranges) => {
                let said = said.parse::<IpAddr>().map(|ip| ip.to_canonical());
                said.is_ok_and(|said| ranges.iter().any(|(ip, bits)| is_within(said, *ip, *bits)))
            }
            Self::Null(_) => false,
        }
    }
}

/// Values of a condition as texts.
fn scalars<'v>(value: &'v Value, operator: &str) -> Result<Vec<Cow<'v, str>>, Malformed> {
    let items = match value {
        Value::Array(items) => items.as_slice(),
        one => std::slice::from_ref(one),
    };
    if items.is_empty() || items.len() > super::LIST_COUNT_MAX {
        return malformed(format!("Policy condition {operator} must have 1 to {} values.", super::LIST_COUNT_MAX));
    }
    let scalar = |item: &'v Value| match item {
        Value::String(text) => Ok(Cow::Borrowed(text.as_str())),
        Value::Number(number) => Ok(number.to_string().into()),
        Value::Bool(is) => Ok(is.to_string().into()),
        _ => malformed(format!("Policy condition {operator} has a value that is no text.")),
    };
    items.iter().map(scalar).collect()
}

fn likes(values: &[Cow<'_, str>]) -> Vec<Pattern> {
    values.iter().map(|value| Pattern::new(value, false)).collect()
}

fn arns(values: &[Cow<'_, str>]) -> Vec<Vec<Pattern>> {
    let parts = |value: &Cow<'_, str>| {
        // A star by itself is any ARN.
        let value = if &**value == "*" { "*:*:*:*:*:*" } else { value };
        value.splitn(6, ':').map(|part| Pattern::new(part, false)).collect()
    };
    values.iter().map(parts).collect()
}

fn number(text: &str) -> Option<f64> {
    text.trim().parse::<f64>().ok().filter(|number| number.is_finite())
}

/// Seconds since 1970 of a date, or of such a number.
fn date(text: &str) -> Option<f64> {
    let text = text.trim();
    if let Some(secs) = number(text) {
        return Some(secs);
    }
    // A day is its midnight.
    let text = if text.len() == 10 { Cow::Owned(format!("{text}T00:00:00Z")) } else { Cow::Borrowed(text) };
    let time = OffsetDateTime::parse(&text, &Rfc3339).ok()?;
    Some(time.unix_timestamp_nanos() as f64 / 1e9)
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, bits) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
    let ip: IpAddr = ip.trim().parse().ok()?;
    let bits_max = if ip.is_ipv4() { 32 } else { 128 };
    let bits = bits.map_or(Some(bits_max), |bits| bits.parse().ok())?;
    (bits <= bits_max).then_some((ip, bits))
}

fn is_within(ip: IpAddr, range: IpAddr, bits: u8) -> bool {
    match (ip, range) {
        (IpAddr::V4(ip), IpAddr::V4(range)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            ip.to_bits() & mask == range.to_bits() & mask
        }
        (IpAddr::V6(ip), IpAddr::V6(range)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            ip.to_bits() & mask == range.to_bits() & mask
        }
        _ => false,
    }
}
