//! Text messages: attributes, numbers of the sandbox, numbers that have opted out, and origination numbers.
//!
//! Kept in parameters of the vhost: `sns-sms-attributes` by region, `sns-sandbox-number` by number, `sns-opted-out`
//! by number. Nothing is sent from here: what is published to a number waits in the outbox.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use super::{arn::invalid, page, store, topics::with_next};
use crate::{
    aws::{
        Aws,
        call::{Call, Step},
        error::Error,
        pages::{Page, Request},
    },
    broker::{Broker, turn::Turn},
};

const ATTRIBUTES: &str = "sns-sms-attributes";
const SANDBOX: &str = "sns-sandbox-number";
/// The component whose parameters are numbers that have opted out.
pub(super) const OPTED_OUT: &str = "sns-opted-out";

/// Whether it is a number in the form of E.164, or nearly: the plus sign may be missing.
pub(super) fn is_number(text: &str) -> bool {
    let rest = text.strip_prefix('+').unwrap_or(text);
    let mut parts = rest.split(['-', ' ', '/', '.']);
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let digits_count = rest.bytes().filter(u8::is_ascii_digit).count();
    parts.all(is_digits) && (1..=20).contains(&digits_count)
}

#[derive(Deserialize)]
struct SetAttributes {
    attributes: Option<BTreeMap<String, Option<String>>>,
}

const KNOWN: [&str; 6] = [
    "MonthlySpendLimit",
    "DeliveryStatusIAMRole",
    "DeliveryStatusSuccessSamplingRate",
    "DefaultSenderID",
    "DefaultSMSType",
    "UsageReportS3Bucket",
];

pub(super) fn set_attributes(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: SetAttributes = input.parse()?;
    let refused = |message: String| Err(Error::sns("InvalidParameterException", message));
    let attributes = request.attributes.unwrap_or_default();
    for (name, value) in &attributes {
        let value = value.as_deref().unwrap_or_default();
        if !KNOWN.contains(&name.as_str()) {
            return refused(format!("{name} is not a valid attribute"));
        }
        match name.as_str() {
            "DefaultSenderID" => {
                let is_valid = value.len() <= 11
                    && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                    && value.bytes().any(|byte| byte.is_ascii_alphabetic());
                if !is_valid {
                    return refused("DefaultSendID is not a valid attribute".to_owned());
                }
            }
            "DefaultSMSType" if !matches!(value, "Promotional" | "Transactional") => {
                return refused("DefaultSMSType is invalid".to_owned());
            }
            "DeliveryStatusSuccessSamplingRate" if !value.parse::<u8>().is_ok_and(|rate| rate <= 100) => {
                return refused("DeliveryStatusSuccessSamplingRate is invalid".to_owned());
            }
            _ => {}
        }
    }
    let vhost = call.vhost(turn)?;
    let region = call.caller.region.clone();
    let mut kept = stored(turn, &vhost.name, &region);
    kept.extend(attributes.into_iter().map(|(name, value)| (name, value.unwrap_or_default().into())));
    store::put(turn, &vhost.name, ATTRIBUTES, &region, Json::Object(kept))?;
    call.reply_done()
}

fn stored(turn: &Turn<'_>, vhost: &str, region: &str) -> Map<String, Json> {
    match store::get(turn, vhost, ATTRIBUTES, region) {
        Some(Json::Object(kept)) => kept,
        _ => Map::new(),
    }
}

#[derive(Deserialize)]
struct GetAttributes {
    attributes: Option<Vec<String>>,
}

pub(super) fn get_attributes(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: GetAttributes = input.parse()?;
    let vhost = call.vhost(turn)?;
    let mut told = stored(turn, &vhost.name, &call.caller.region);
    told.entry("MonthlySpendLimit").or_insert("1".into());
    if let Some(wanted) = request.attributes.filter(|wanted| !wanted.is_empty()) {
        told.retain(|name, _| wanted.contains(name));
    }
    call.reply(&json!({ "attributes": told }))
}

#[derive(Deserialize)]
struct OfNumber {
    #[serde(rename = "phoneNumber")]
    phone_number: Option<String>,
    #[serde(rename = "nextToken")]
    next_token: Option<String>,
}

fn number(request: &OfNumber) -> Result<&str, Error> {
    let number = request.phone_number.as_deref().unwrap_or_default();
    let is_valid = is_number(number) && number.starts_with('+');
    if is_valid { Ok(number) } else { Err(invalid("PhoneNumber Reason: input incorrectly formatted")) }
}

pub(super) fn is_opted_out(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: OfNumber = input.parse()?;
    let (number, vhost) = (number(&request)?, call.vhost(turn)?);
    let is_out = store::get(turn, &vhost.name, OPTED_OUT, number).is_some();
    call.reply(&json!({ "isOptedOut": is_out }))
}

pub(super) fn list_opted_out(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: OfNumber = input.parse()?;
    let vhost = call.vhost(turn)?;
    let from = page::behind(page::after(request.next_token.as_deref())?);
    let found = store::list(turn, &vhost.name, OPTED_OUT, "", &from, page::ITEMS_MAX + 1);
    let (found, next) = page::cut(found, page::ITEMS_MAX, |(number, _)| number);
    let numbers: Vec<_> = found.into_iter().map(|(number, _)| number).collect();
    let mut answer = json!({ "phoneNumbers": numbers });
    if let Some(next) = next {
        answer["nextToken"] = next.into();
    }
    call.reply(&answer)
}

/// Somebody has answered that they want no more: `phoneNumber` says which number.
pub(super) fn opt_out(aws: &Aws, broker: &Broker, request: &Request<'_>) -> Page {
    let number = form_urlencoded::parse(request.query.as_bytes()).find(|(name, _)| name == "phoneNumber");
    let Some((_, number)) = number.filter(|(_, number)| is_number(number)) else {
        return Page { status: 400, ..Page::json(&json!({"error": "phoneNumber is no phone number"})) };
    };
    let mut turn = Turn::new(broker, request.now);
    let kept = store::put(&mut turn, &aws.options.vhost, OPTED_OUT, &number, json!({}));
    turn.end();
    match kept {
        Ok(()) => Page::json(&json!({ "phoneNumber": number })),
        Err(error) => Page { status: 500, ..Page::json(&json!({"error": error.message})) },
    }
}

pub(super) fn opt_in(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: OfNumber = input.parse()?;
    let (number, vhost) = (number(&request)?, call.vhost(turn)?);
    store::remove(turn, &vhost.name, OPTED_OUT, number);
    call.reply_done()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Sandbox {
    phone_number: Option<String>,
    one_time_password: Option<String>,
    next_token: Option<String>,
    max_results: Option<usize>,
}

fn sandbox_number(request: &Sandbox) -> Result<&str, Error> {
    let number = request.phone_number.as_deref().unwrap_or_default();
    let is_valid = is_number(number) && number.starts_with('+');
    if is_valid { Ok(number) } else { Err(invalid("PhoneNumber Reason: input incorrectly formatted")) }
}

pub(super) fn create_sandbox(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: Sandbox = input.parse()?;
    let (number, vhost) = (sandbox_number(&request)?, call.vhost(turn)?);
    let known = store::get(turn, &vhost.name, SANDBOX, number);
    if known.is_none() {
        store::put(turn, &vhost.name, SANDBOX, number, json!({"status": "Pending"}))?;
    }
    call.reply_done()
}

/// Nobody sends a password, so any that looks like one is right.
pub(super) fn verify_sandbox(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: Sandbox = input.parse()?;
    let (number, vhost) = (sandbox_number(&request)?, call.vhost(turn)?);
    let password = request.one_time_password.as_deref().unwrap_or_default();
    if store::get(turn, &vhost.name, SANDBOX, number).is_none() {
        return Err(Error::sns("ResourceNotFoundException", "Phone number does not exist in the sandbox"));
    }
    if !(5..=8).contains(&password.len()) || !password.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::sns("VerificationException", "The one-time password is not valid"));
    }
    store::put(turn, &vhost.name, SANDBOX, number, json!({"status": "Verified"}))?;
    call.reply_done()
}

pub(super) fn delete_sandbox(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: Sandbox = input.parse()?;
    let (number, vhost) = (sandbox_number(&request)?, call.vhost(turn)?);
    if store::get(turn, &vhost.name, SANDBOX, number).is_none() {
        return Err(Error::sns("ResourceNotFoundException", "Phone number does not exist in the sandbox"));
    }
    store::remove(turn, &vhost.name, SANDBOX, number);
    call.reply_done()
}

pub(super) fn list_sandbox(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: Sandbox = input.parse()?;
    let vhost = call.vhost(turn)?;
    let max = request.max_results.unwrap_or(page::ITEMS_MAX).clamp(1, page::ITEMS_MAX);
    let from = page::behind(page::after(request.next_token.as_deref())?);
    let found = store::list(turn, &vhost.name, SANDBOX, "", &from, max + 1);
    let (found, next) = page::cut(found, max, |(number, _)| number);
    let numbers: Vec<_> =
        found.into_iter().map(|(number, value)| json!({"PhoneNumber": number, "Status": value["status"]})).collect();
    call.reply(&with_next(json!({ "PhoneNumbers": numbers }), next))
}

pub(super) fn sandbox_status(call: &mut Call, _: &mut Turn<'_>) -> Result<Step, Error> {
    call.reply(&json!({ "IsInSandbox": true }))
}

pub(super) fn origination_numbers(call: &mut Call, _: &mut Turn<'_>) -> Result<Step, Error> {
    call.reply(&json!({ "PhoneNumbers": [] }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_digits_in_groups() {
        for number in ["+15551234567", "15551234567", "+1-555-1234567", "+12/34-567.890"] {
            assert!(is_number(number), "{number}");
        }
        for number in ["", "+", "+1a234", "NAA+15551234567", "+15--551234567", "/+15551234567", "+15551234567."] {
            assert!(!is_number(number), "{number}");
        }
    }
}
