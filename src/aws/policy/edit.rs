//! `AddPermission` and `RemovePermission`: statements of a document, by their labels.

use serde_json::{Map, Value, json};

/// Why a document was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EditError {
    /// A statement has that label already.
    LabelExists,
    /// No statement has that label.
    NoSuchLabel,
    /// There are as many as there may be.
    TooMany,
}

/// Adds a statement that lets `accounts` do `actions` (`sqs:SendMessage`) with `resource`. `id` is the document's, if it
/// is a new one. Returns the document.
pub fn add(
    policy: Option<&str>,
    id: &str,
    label: &str,
    accounts: &[&str],
    actions: &[String],
    resource: &str,
) -> Result<String, EditError> {
    let mut document = read(policy).unwrap_or_else(|| {
        let mut document = Map::new();
        document.insert("Version".into(), "2008-10-17".into());
        document.insert("Id".into(), id.into());
        document
    });
    let mut statements = statements(&document);
    if statements.iter().any(|statement| has_label(statement, label)) {
        return Err(EditError::LabelExists);
    }
    if statements.len() >= super::STATEMENTS_COUNT_MAX {
        return Err(EditError::TooMany);
    }
    let principals: Vec<Value> = accounts.iter().map(|account| format!("arn:aws:iam::{account}:root").into()).collect();
    let actions: Vec<Value> = actions.iter().map(|action| action.as_str().into()).collect();
    statements.push(json!({
        "Sid": label,
        "Effect": "Allow",
        "Principal": { "AWS": one_or_all(principals) },
        "Action": one_or_all(actions),
        "Resource": resource,
    }));
    document.insert("Statement".into(), statements.into());
    Ok(Value::Object(document).to_string())
}

/// Removes a statement. Returns the document; `None`: nothing is left of it.
pub fn remove(policy: Option<&str>, label: &str) -> Result<Option<String>, EditError> {
    let mut document = read(policy).ok_or(EditError::NoSuchLabel)?;
    let mut statements = statements(&document);
    let before = statements.len();
    statements.retain(|statement| !has_label(statement, label));
    if statements.len() == before {
        return Err(EditError::NoSuchLabel);
    }
    if statements.is_empty() {
        return Ok(None);
    }
    document.insert("Statement".into(), statements.into());
    Ok(Some(Value::Object(document).to_string()))
}

fn read(policy: Option<&str>) -> Option<Map<String, Value>> {
    match serde_json::from_str(policy?).ok()? {
        Value::Object(document) => Some(document),
        _ => None,
    }
}

fn statements(document: &Map<String, Value>) -> Vec<Value> {
    match document.get("Statement") {
        Some(Value::Array(all)) => all.clone(),
        Some(one @ Value::Object(_)) => vec![one.clone()],
        _ => Vec::new(),
    }
}

fn has_label(statement: &Value, label: &str) -> bool {
    statement.get("Sid").and_then(Value::as_str) == Some(label)
}

/// AWS writes a list of one as its item.
fn one_or_all(mut values: Vec<Value>) -> Value {
    if values.len() == 1 { values.swap_remove(0) } else { values.into() }
}
