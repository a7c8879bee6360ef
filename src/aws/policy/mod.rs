//! Access policies of queues and topics: who else may call what, under which conditions.
//!
//! ```json
//! { "Version": "2012-10-17", "Statement": [{
//!     "Effect": "Allow", "Principal": { "AWS": "arn:aws:iam::111111111111:root" }, "Action": "sqs:SendMessage",
//!     "Resource": "arn:aws:sqs:eu-west-1:000000000000:q", "Condition": { "ArnEquals": { "aws:SourceArn": "..." } }
//! }] }
//! ```
//!
//! - this file: the document, compiled once, and what it says of a request;
//! - `condition`: operators of conditions;
//! - `edit`: `AddPermission` and `RemovePermission`, which change a document.
//!
//! A pure module: it knows no broker. Bounds: [`POLICY_BYTES_MAX`] and [`STATEMENTS_COUNT_MAX`].

mod condition;
pub mod edit;

use std::borrow::Cow;

use serde_json::{Map, Value};

use condition::Condition;

/// Bytes of a document. A longer one is refused.
pub const POLICY_BYTES_MAX: usize = 64 << 10;
/// Statements of a document. More: refused.
pub const STATEMENTS_COUNT_MAX: usize = 100;
/// Texts in one list of a statement. More: refused.
const LIST_COUNT_MAX: usize = 1000;

/// Why a document is refused: what AWS says follows the name of the parameter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

fn malformed<T>(text: impl Into<String>) -> Result<T, Malformed> {
    Err(Malformed(text.into()))
}

/// What a policy says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may be done, unless something else denies it.
    Allow,
    /// It may not be done, whatever else allows it.
    Deny,
    /// Nothing.
    Nothing,
}

/// A request as policies see it.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// ARN of who calls, or `sns.amazonaws.com` of a service; empty: nobody knows.
    pub principal: &'a str,
    /// The caller's account.
    pub account: &'a str,
    /// `sqs:SendMessage`.
    pub action: &'a str,
    /// ARN of the queue or topic.
    pub resource: &'a str,
    /// Values of condition keys by their names in small letters, `aws:sourcearn`, other than those that follow from the
    /// fields above.
    pub context: &'a [(&'a str, Cow<'a, str>)],
}

/// A compiled document.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    statements: Vec<Statement>,
}

#[derive(Clone, Debug)]
struct Statement {
    is_allow: bool,
    principal: Matching<Principal>,
    action: Matching<Vec<Pattern>>,
    resource: Matching<Vec<Pattern>>,
    conditions: Vec<Condition>,
}

/// What has to match, or must not.
#[derive(Clone, Debug)]
enum Matching<T> {
    Is(T),
    IsNot(T),
}

impl<T> Matching<T> {
    fn holds(&self, matches: impl FnOnce(&T) -> bool) -> bool {
        match self {
            Self::Is(of) => matches(of),
            Self::IsNot(of) => !matches(of),
        }
    }
}

#[derive(Clone, Debug)]
enum Principal {
    Anybody,
    These(Vec<String>),
}

impl Policy {
    /// Reads a document. An empty text is a policy that says nothing.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        if text.len() > POLICY_BYTES_MAX {
            return malformed("Policy is too long.");
        }
        let document: Value = match serde_json::from_str(text) {
            Ok(value) => value,
            Err(_) => return malformed("Policy is not valid JSON."),
        };
        let Value::Object(document) = document else { return malformed("Policy is not a JSON object.") };
        for key in document.keys() {
            if !["Version", "Id", "Statement"].contains(&key.as_str()) {
                return malformed(format!("Policy has unknown element {key}."));
            }
        }
        if let Some(version) = document.get("Version")
            && !["2008-10-17", "2012-10-17"].iter().any(|known| version == known)
        {
            return malformed("Policy has an unknown Version.");
        }
        let statements: &[Value] = match document.get("Statement") {
            Some(Value::Array(all)) if !all.is_empty() => all,
            Some(one @ Value::Object(_)) => std::slice::from_ref(one),
            _ => return malformed("Policy statement list cannot be empty."),
        };
        if statements.len() > STATEMENTS_COUNT_MAX {
            return malformed("Policy has too many statements.");
        }
        let statements = statements.iter().map(Statement::parse).collect::<Result<_, _>>()?;
        Ok(Self { statements })
    }

    /// Whether it says nothing of anybody.
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }

    /// What it says of a request: one statement that denies outweighs all that allow.
    pub fn decide(&self, request: &Request<'_>) -> Decision {
        let mut decision = Decision::Nothing;
        for statement in &self.statements {
            if statement.applies(request) {
                if !statement.is_allow {
                    return Decision::Deny;
                }
                decision = Decision::Allow;
            }
        }
        decision
    }

    /// What it and the caller's own permissions come to: a policy that denies outweighs all; else either is enough.
    pub fn allows(&self, request: &Request<'_>, is_permitted: bool) -> bool {
        match self.decide(request) {
            Decision::Deny => false,
            Decision::Allow => true,
            Decision::Nothing => is_permitted,
        }
    }
}

impl Statement {
    fn parse(value: &Value) -> Result<Self, Malformed> {
        let Value::Object(statement) = value else { return malformed("Policy statement must be an object.") };
        const ELEMENTS: [&str; 9] = [
            "Sid",
            "Effect",
            "Principal",
            "NotPrincipal",
            "Action",
            "NotAction",
            "Resource",
            "NotResource",
            "Condition",
        ];
        for key in statement.keys() {
            if !ELEMENTS.contains(&key.as_str()) {
                return malformed(format!("Policy statement has unknown element {key}."));
            }
        }
        let is_allow = match statement.get("Effect").and_then(Value::as_str) {
            Some("Allow") => true,
            Some("Deny") => false,
            Some(_) => return malformed("Policy statement effect must be Allow or Deny."),
            None => return malformed("Policy statement must contain an Effect."),
        };
        let Some(principal) = either(statement, "Principal", "NotPrincipal")? else {
            return malformed("Policy statement must contain principals.");
        };
        let principal = principal.map(Principal::parse)?;
        let Some(action) = either(statement, "Action", "NotAction")? else {
            return malformed("Policy statement must contain actions.");
        };
        let action = action.map(|value| patterns(value, "Action", true))?;
        let resource = match either(statement, "Resource", "NotResource")? {
            Some(resource) => resource.map(|value| patterns(value, "Resource", false))?,
            // A policy stands at what it is of.
            None => Matching::Is(vec![Pattern::new("*", false)]),
        };
        let conditions = match statement.get("Condition") {
            None => Vec::new(),
            Some(Value::Object(operators)) => condition::parse(operators)?,
            Some(_) => return malformed("Policy statement condition must be an object."),
        };
        Ok(Self { is_allow, principal, action, resource, conditions })
    }

    fn applies(&self, request: &Request<'_>) -> bool {
        self.action.holds(|patterns| patterns.iter().any(|pattern| pattern.matches(request.action)))
            && self.resource.holds(|patterns| patterns.iter().any(|pattern| pattern.matches(request.resource)))
            && self.principal.holds(|principal| principal.matches(request))
            && self.conditions.iter().all(|condition| condition.holds(request))
    }
}

impl<'v> Matching<&'v Value> {
    fn map<T>(self, read: impl FnOnce(&'v Value) -> Result<T, Malformed>) -> Result<Matching<T>, Malformed> {
        Ok(match self {
            Self::Is(value) => Matching::Is(read(value)?),
            Self::IsNot(value) => Matching::IsNot(read(value)?),
        })
    }
}

/// One of two elements, of which a statement has at most one.
fn either<'v>(
    statement: &'v Map<String, Value>,
    is: &str,
    is_not: &str,
) -> Result<Option<Matching<&'v Value>>, Malformed> {
    match (statement.get(is), statement.get(is_not)) {
        (Some(_), Some(_)) => malformed(format!("Policy statement must not contain both {is} and {is_not}.")),
        (Some(value), None) => Ok(Some(Matching::Is(value))),
        (None, Some(value)) => Ok(Some(Matching::IsNot(value))),
        (None, None) => Ok(None),
    }
}

/// A text, or a list of them.
fn texts<'v>(value: &'v Value, of: &str) -> Result<Vec<&'v str>, Malformed> {
    let items = match value {
        Value::Array(items) => items.as_slice(),
        one => std::slice::from_ref(one),
    };
    if items.is_empty() || items.len() > LIST_COUNT_MAX {
        return malformed(format!("Policy {of} must have 1 to {LIST_COUNT_MAX} values."));
    }
    let texts = items.iter().map(Value::as_str).collect::<Option<Vec<_>>>();
    texts.ok_or_else(|| Malformed(format!("Policy {of} must be a string or a list of strings.")))
}

fn patterns(value: &Value, of: &str, is_action: bool) -> Result<Vec<Pattern>, Malformed> {
    let mut patterns = Vec::new();
    for text in texts(value, of)? {
        if is_action && text != "*" && !text.contains(':') {
            return malformed(format!("Policy Action {text} has no vendor."));
        }
        if !is_action && text != "*" && !text.starts_with("arn:") {
            return malformed(format!("Policy Resource {text} is no ARN."));
        }
        // SQS:SendMessage is sqs:SendMessage.
        patterns.push(Pattern::new(text, is_action));
    }
    Ok(patterns)
}

impl Principal {
    fn parse(value: &Value) -> Result<Self, Malformed> {
        let mut these = Vec::new();
        match value {
            Value::String(text) if text == "*" => return Ok(Self::Anybody),
            Value::Object(kinds) if !kinds.is_empty() => {
                for (kind, value) in kinds {
                    if !["AWS", "Service", "Federated", "CanonicalUser"].contains(&kind.as_str()) {
                        return malformed(format!("Policy has an unknown principal type {kind}."));
                    }
                    for text in texts(value, "Principal")? {
                        if text == "*" {
                            return Ok(Self::Anybody);
                        }
                        if text.contains('*') {
                            return malformed(format!("Invalid value for the parameter Policy. Principal {text}."));
                        }
                        these.push(text.to_owned());
                    }
                }
            }
            _ => return malformed("Policy statement principal is not valid."),
        }
        Ok(Self::These(these))
    }

    fn matches(&self, request: &Request<'_>) -> bool {
        let Self::These(these) = self else { return true };
        these.iter().any(|one| {
            let account = one.strip_prefix("arn:aws:iam::").and_then(|rest| rest.strip_suffix(":root"));
            // An account is all who belong to it.
            one == request.principal || (!request.account.is_empty() && account.unwrap_or(one) == request.account)
        })
    }
}

/// A text with `*` for any run of characters, and `?` for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    text: Box<str>,
    is_caseless: bool,
}

impl Pattern {
    pub(super) fn new(text: &str, is_caseless: bool) -> Self {
        Self { text: text.into(), is_caseless }
    }

    /// Takes at most the product of both lengths.
    pub(super) fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.text.as_bytes(), text.as_bytes());
        let is_same = |a: u8, b: u8| a == b || (self.is_caseless && a.eq_ignore_ascii_case(&b));
        let (mut at, mut from) = (0, 0);
        // Where the last star stood, and what it has taken up to.
        let mut star: Option<(usize, usize)> = None;
        while from < text.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    star = Some((at, from));
                    at += 1;
                }
                Some(b'?') => {
                    // One character, however many octets it has.
                    at += 1;
                    from += 1;
                    while text.get(from).is_some_and(|octet| octet & 0xC0 == 0x80) {
                        from += 1;
                    }
                }
                Some(octet) if is_same(*octet, text[from]) => {
                    at += 1;
                    from += 1;
                }
                _ => match star {
                    Some((star_at, taken)) => {
                        star = Some((star_at, taken + 1));
                        (at, from) = (star_at + 1, taken + 1);
                    }
                    None => return false,
                },
            }
        }
        pattern[at..].iter().all(|octet| *octet == b'*')
    }
}

#[cfg(test)]
mod tests;
