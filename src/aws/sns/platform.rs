//! Platform applications and their endpoints, for pushing to mobile devices.
//!
//! Kept in parameters of the vhost: `sns-platform-application` by `PLATFORM/NAME`, `sns-platform-endpoint` by
//! `PLATFORM/NAME/ID`. What is published to an endpoint waits in the outbox.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use super::{
    arn::{self, invalid, new_uuid, not_found, null_member},
    page, store,
    topics::with_next,
};
use crate::{
    aws::{
        call::{Call, Step},
        error::Error,
    },
    broker::turn::Turn,
};

const APPLICATION: &str = "sns-platform-application";
const ENDPOINT: &str = "sns-platform-endpoint";

const PLATFORMS: [&str; 10] =
    ["ADM", "APNS", "APNS_SANDBOX", "APNS_VOIP", "APNS_VOIP_SANDBOX", "BAIDU", "FCM", "GCM", "MPNS", "WNS"];
/// What is never told.
const SECRETS: [&str; 2] = ["PlatformCredential", "PlatformPrincipal"];
const ENDPOINT_ATTRIBUTES: [&str; 3] = ["CustomUserData", "Enabled", "Token"];
const CUSTOM_DATA_BYTES_MAX: usize = 2048;

type Texts = Option<BTreeMap<String, Option<String>>>;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    name: Option<String>,
    platform: Option<String>,
    platform_application_arn: Option<String>,
    endpoint_arn: Option<String>,
    token: Option<String>,
    custom_user_data: Option<String>,
    attributes: Texts,
    next_token: Option<String>,
}

fn texts(attributes: Texts) -> Option<Map<String, Json>> {
    let attributes = attributes.filter(|attributes| !attributes.is_empty())?;
    Some(attributes.into_iter().map(|(name, value)| (name, value.unwrap_or_default().into())).collect())
}

fn attributes_null() -> Error {
    null_member("attributes")
}

fn check_secrets(platform: &str, attributes: &Map<String, Json>) -> Result<(), Error> {
    let has = |name: &str| attributes.contains_key(name);
    match (has("PlatformCredential"), has("PlatformPrincipal")) {
        // Google's has a key alone.
        (true, false) if matches!(platform, "FCM" | "GCM") => Ok(()),
        (true, false) => {
            Err(invalid("Attributes Reason: PlatformCredential attribute provided without PlatformPrincipal"))
        }
        (false, true) => {
            Err(invalid("Attributes Reason: PlatformPrincipal attribute provided without PlatformCredential"))
        }
        _ => Ok(()),
    }
}

pub(super) fn create_application(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: Request = input.parse()?;
    let attributes = texts(request.attributes).ok_or_else(attributes_null)?;
    let name = request.name.unwrap_or_default();
    if name.is_empty() {
        return Err(invalid(format_args!("{name} Reason: cannot be empty")));
    }
    if name.len() > 256 {
        return Err(invalid(format_args!("{name} Reason: must be at most 256 characters long")));
    }
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if !name.bytes().all(is_letter) {
        let reason = "must contain only characters 'a'-'z', 'A'-'Z', '0'-'9', '_', '-', and '.'";
        return Err(invalid(format_args!("{name} Reason: {reason}")));
    }
    let platform = request.platform.unwrap_or_default();
    if !PLATFORMS.contains(&platform.as_str()) {
        return Err(invalid(format_args!("Platform Reason: {platform} is not supported")));
    }
    check_secrets(&platform, &attributes)?;
    let vhost = call.vhost(turn)?;
    let mut attributes = attributes;
    attributes.entry("Enabled").or_insert("true".into());
    store::put(turn, &vhost.name, APPLICATION, &format!("{platform}/{name}"), Json::Object(attributes))?;
    call.reply(&json!({"PlatformApplicationArn": application_arn(call, &format!("{platform}/{name}"))}))
}

fn application_arn(call: &Call, key: &str) -> String {
    format!("arn:aws:sns:{}:{}:app/{key}", call.caller.region, call.caller.account)
}

fn endpoint_arn(call: &Call, key: &str) -> String {
    format!("arn:aws:sns:{}:{}:endpoint/{key}", call.caller.region, call.caller.account)
}

/// `PLATFORM/NAME` of an application's ARN.
fn application_key(text: Option<&str>) -> Result<String, Error> {
    let arn = arn::parse(text, "PlatformApplicationArn")?;
    let key = arn.name.strip_prefix("app/").filter(|key| key.split('/').count() == 2);
    key.map(ToOwned::to_owned).ok_or_else(|| {
        invalid("PlatformApplicationArn Reason: Wrong number of slashes in relative portion of the ARN.")
    })
}

/// `PLATFORM/NAME/ID` of an endpoint's ARN.
fn endpoint_key(text: Option<&str>, parameter: &str) -> Result<String, Error> {
    let arn = arn::parse(text, parameter)?;
    let key = arn.name.strip_prefix("endpoint/").filter(|key| key.split('/').count() == 3);
    key.map(ToOwned::to_owned).ok_or_else(|| {
        invalid(format_args!("{parameter} Reason: Wrong number of slashes in relative portion of the ARN."))
    })
}

fn find_application(call: &Call, turn: &Turn<'_>, key: &str) -> Result<Map<String, Json>, Error> {
    let vhost = call.vhost(turn)?;
    match store::get(turn, &vhost.name, APPLICATION, key) {
        Some(Json::Object(attributes)) => Ok(attributes),
        _ => Err(not_found("PlatformApplication")),
    }
}

fn find_endpoint(call: &Call, turn: &Turn<'_>, key: &str) -> Result<Map<String, Json>, Error> {
    let vhost = call.vhost(turn)?;
    match store::get(turn, &vhost.name, ENDPOINT, key) {
        Some(Json::Object(attributes)) => Ok(attributes),
        _ => Err(not_found("Endpoint")),
    }
}

fn without_secrets(mut attributes: Map<String, Json>) -> Map<String, Json> {
    attributes.retain(|name, _| !SECRETS.contains(&name.as_str()));
    attributes
}

pub(super) fn delete_application(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: Request = input.parse()?;
    let key = application_key(request.platform_application_arn.as_deref())?;
    let vhost = call.vhost(turn)?;
    for (endpoint, _) in store::list(turn, &vhost.name, ENDPOINT, &format!("{key}/"), "", usize::MAX) {
        store::remove(turn, &vhost.name, ENDPOINT, &endpoint);
    }
    store::remove(turn, &vhost.name, APPLICATION, &key);
    call.reply_done()
}

pub(super) fn get_application(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: Request = input.parse()?;
    let key = application_key(request.platform_application_arn.as_deref())?;
    let attributes = without_secrets(find_application(call, turn, &key)?);
    call.reply(&json!({ "Attributes": attributes }))
}

pub(super) fn set_application(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: Request = input.parse()?;
    let key = application_key(request.platform_application_arn.as_deref())?;
    let changes = texts(request.attributes).ok_or_else(attributes_null)?;
    let mut attributes = find_application(call, turn, &key)?;
    check_secrets(key.split('/').next().unwrap_or_default(), &changes)?;
    attributes.extend(changes);
    let vhost = call.vhost(turn)?;
    store::put(turn, &vhost.name, APPLICATION, &key, Json::Object(attributes))?;
    call.reply_done()
}

pub(super) fn list_applications(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: Request = input.parse()?;
    let vhost = call.vhost(turn)?;
    let from = page::behind(page::after(request.next_token.as_deref())?);
    let found = store::list(turn, &vhost.name, APPLICATION, "", &from, page::ITEMS_MAX + 1);
    let (found, next) = page::cut(found, page::ITEMS_MAX, |(key, _)| key);
    let shown = |(key, value): (String, std::sync::Arc<Json>)| {
        let attributes = without_secrets(value.as_object().cloned().unwrap_or_default());
        json!({"PlatformApplicationArn": application_arn(call, &key), "Attributes": attributes})
    };
    let shown: Vec<_> = found.into_iter().map(shown).collect();
    call.reply(&with_next(json!({ "PlatformApplications": shown }), next))
}

fn check_endpoint_attributes(attributes: &Map<String, Json>) -> Result<(), Error> {
    for (name, value) in attributes {
        if !ENDPOINT_ATTRIBUTES.contains(&name.as_str()) {
            return Err(invalid(format_args!("Attributes Reason: Invalid attribute name: {name}")));
        }
        if name == "CustomUserData" && value.as_str().is_some_and(|text| text.len() > CUSTOM_DATA_BYTES_MAX) {
            let reason = format_args!("{name}: must be at most {CUSTOM_DATA_BYTES_MAX} bytes long in UTF-8 encoding");
            return Err(invalid(format_args!("Attributes Reason: Invalid value for attribute: {reason}")));
        }
    }
    Ok(())
}

pub(super) fn create_endpoint(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: Request = input.parse()?;
    let key = application_key(request.platform_application_arn.as_deref())?;
    find_application(call, turn, &key)?;
    let token = request.token.filter(|token| !token.is_empty());
    let token = call.required(token, "Token")?;
    let mut attributes = texts(request.attributes).unwrap_or_default();
    check_endpoint_attributes(&attributes)?;
    if let Some(data) = request.custom_user_data {
        attributes.entry("CustomUserData").or_insert(data.into());
        check_endpoint_attributes(&attributes)?;
    }
    attributes.entry("Enabled").or_insert("true".into());
    attributes.insert("Token".into(), token.as_str().into());
    let vhost = call.vhost(turn)?;
    let prefix = format!("{key}/");
    let known = store::list(turn, &vhost.name, ENDPOINT, &prefix, "", usize::MAX);
    if let Some((endpoint, has)) = known.into_iter().find(|(_, has)| has["Token"] == token.as_str()) {
        let arn = endpoint_arn(call, &endpoint);
        if has.as_object() == Some(&attributes) {
            return call.reply(&json!({ "EndpointArn": arn }));
        }
        let reason = format!("Endpoint {arn} already exists with the same Token, but different attributes.");
        return Err(invalid(format_args!("Token Reason: {reason}")));
    }
    let endpoint = format!("{prefix}{}", new_uuid());
    store::put(turn, &vhost.name, ENDPOINT, &endpoint, Json::Object(attributes))?;
    call.reply(&json!({"EndpointArn": endpoint_arn(call, &endpoint)}))
}

pub(super) fn delete_endpoint(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: Request = input.parse()?;
    let key = endpoint_key(request.endpoint_arn.as_deref(), "EndpointArn")?;
    let vhost = call.vhost(turn)?;
    store::remove(turn, &vhost.name, ENDPOINT, &key);
    call.reply_done()
}

pub(super) fn get_endpoint(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: Request = input.parse()?;
    let key = endpoint_key(request.endpoint_arn.as_deref(), "EndpointArn")?;
    let attributes = find_endpoint(call, turn, &key)?;
    call.reply(&json!({ "Attributes": attributes }))
}

pub(super) fn set_endpoint(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: Request = input.parse()?;
    let changes = texts(request.attributes).ok_or_else(attributes_null)?;
    let key = endpoint_key(request.endpoint_arn.as_deref(), "EndpointArn")?;
    let mut attributes = find_endpoint(call, turn, &key)?;
    check_endpoint_attributes(&changes)?;
    attributes.extend(changes);
    let vhost = call.vhost(turn)?;
    store::put(turn, &vhost.name, ENDPOINT, &key, Json::Object(attributes))?;
    call.reply_done()
}

pub(super) fn list_endpoints(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    let input = call.input.clone();
    let request: Request = input.parse()?;
    let key = application_key(request.platform_application_arn.as_deref())?;
    find_application(call, turn, &key)?;
    let vhost = call.vhost(turn)?;
    let from = page::behind(page::after(request.next_token.as_deref())?);
    let found = store::list(turn, &vhost.name, ENDPOINT, &format!("{key}/"), &from, page::ITEMS_MAX + 1);
    let (found, next) = page::cut(found, page::ITEMS_MAX, |(key, _)| key);
    let shown: Vec<_> = found
        .into_iter()
        .map(|(key, attributes)| json!({"EndpointArn": endpoint_arn(call, &key), "Attributes": *attributes}))
        .collect();
    call.reply(&with_next(json!({ "Endpoints": shown }), next))
}

/// Whether that endpoint may be subscribed.
pub(super) fn check_endpoint(call: &Call, turn: &Turn<'_>, arn: &str) -> Result<(), Error> {
    let key = endpoint_key(Some(arn), "Endpoint").map_err(|_| invalid("Endpoint ARN"))?;
    let found = find_endpoint(call, turn, &key);
    found.map(drop).map_err(|_| invalid("Endpoint Reason: Endpoint does not exist for endpoint"))
}

/// Whether that endpoint may be published to.
pub(super) fn check_target(call: &Call, turn: &Turn<'_>, arn: &str) -> Result<(), Error> {
    let missing = || invalid("TargetArn Reason: No endpoint found for the target arn specified");
    let key = endpoint_key(Some(arn), "TargetArn").map_err(|_| missing())?;
    let attributes = find_endpoint(call, turn, &key).map_err(|_| missing())?;
    let is_enabled = attributes.get("Enabled").and_then(Json::as_str) == Some("true");
    if is_enabled { Ok(()) } else { Err(Error::sns("EndpointDisabledException", "Endpoint is disabled")) }
}
