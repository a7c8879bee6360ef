//! ARNs of topics, subscriptions, platform applications and endpoints, with the refusals that SNS answers.

use std::borrow::Cow;

use crate::aws::{
    call::{Arn, Call, decoded, encoded},
    error::Error,
};

/// A parameter has a value that cannot be.
pub(super) fn invalid(text: impl std::fmt::Display) -> Error {
    Error::sns("InvalidParameterException", format!("Invalid parameter: {text}"))
}

/// There is nothing of that name.
pub(super) fn not_found(what: &str) -> Error {
    Error::sns("NotFoundException", format!("{what} does not exist"))
}

/// The service's check of a request: a member that has to be there is not.
pub(super) fn null_member(path: &str) -> Error {
    let message = format!(
        "1 validation error detected: Value null at '{path}' failed to satisfy constraint: Member must not be null"
    );
    Error::new("ValidationError", 400, message)
}

/// The ARN that a parameter holds.
pub(super) fn parse<'a>(text: Option<&'a str>, parameter: &str) -> Result<Arn<'a>, Error> {
    let Some(text) = text else {
        return Err(invalid(format_args!("{parameter} Reason: no value for required parameter")));
    };
    let parts_count = text.split(':').count();
    if parts_count < 6 {
        let reason = format_args!("{parameter} Reason: An ARN must have at least 6 elements, not {parts_count}");
        return Err(invalid(reason));
    }
    Arn::parse(text).filter(|arn| arn.service == "sns").ok_or_else(|| invalid(parameter))
}

/// A topic's account and name.
pub(super) struct TopicName<'a> {
    /// Its account.
    pub(super) account: &'a str,
    /// Its name.
    pub(super) name: Cow<'a, str>,
}

/// The topic that a parameter names: of the caller's region, as topics of others cannot be reached.
pub(super) fn topic<'a>(call: &Call, text: Option<&'a str>, parameter: &str) -> Result<TopicName<'a>, Error> {
    let arn = parse(text, parameter)?;
    if arn.region != &*call.caller.region {
        return Err(invalid(parameter));
    }
    Ok(TopicName { account: arn.account, name: arn.name })
}

/// A subscription's account, topic and identity.
pub(super) struct SubscriptionName<'a> {
    /// Its account.
    pub(super) account: &'a str,
    /// Its topic.
    pub(super) topic: String,
    /// Its identity among those of the topic.
    pub(super) id: &'a str,
}

/// The subscription that a parameter names.
pub(super) fn subscription(text: Option<&str>) -> Result<SubscriptionName<'_>, Error> {
    let arn = parse(text, "SubscriptionArn")?;
    let text = text.unwrap_or_default();
    let rest = text.splitn(6, ':').nth(5).unwrap_or_default();
    let (topic, id) = rest.rsplit_once(':').ok_or_else(|| invalid("SubscriptionId"))?;
    if !is_uuid(id) {
        return Err(invalid("SubscriptionId"));
    }
    Ok(SubscriptionName { account: arn.account, topic: decoded(topic).into_owned(), id })
}

/// Five groups of hexadecimal digits.
pub(super) fn is_uuid(text: &str) -> bool {
    let lengths = [8, 4, 4, 4, 12];
    let mut groups = text.split('-');
    lengths.iter().all(|&length| {
        groups.next().is_some_and(|group| group.len() == length && group.bytes().all(|b| b.is_ascii_hexdigit()))
    }) && groups.next().is_none()
}

/// The ARN of a topic.
pub(super) fn of_topic(region: &str, account: &str, name: &str) -> String {
    format!("arn:aws:sns:{region}:{account}:{}", encoded(name))
}

/// A new identity.
pub(super) fn new_uuid() -> String {
    let mut bytes = [0; 16];
    // Without a source of randomness the broker does not start.
    let _ = getrandom::fill(&mut bytes);
    uuid_of(bytes)
}

/// An identity made of these octets.
pub(super) fn uuid_of(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0F | 0x40;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    let hex = |part: &[u8]| part.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!(
        "{}-{}-{}-{}-{}",
        hex(&bytes[..4]),
        hex(&bytes[4..6]),
        hex(&bytes[6..8]),
        hex(&bytes[8..10]),
        hex(&bytes[10..])
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(error: Error) -> String {
        error.message
    }

    #[test]
    fn a_malformed_arn_is_refused_with_the_number_of_its_parts() {
        let refused = |arn| text(subscription(arn).err().unwrap());
        assert_eq!(
            refused(Some("randomstring")),
            "Invalid parameter: SubscriptionArn Reason: An ARN must have at least 6 elements, not 1"
        );
        assert_eq!(
            refused(Some("arn:aws:sns:us-east-1:random")),
            "Invalid parameter: SubscriptionArn Reason: An ARN must have at least 6 elements, not 5"
        );
        assert_eq!(refused(Some("arn:aws:sns:us-east-1:111111111111:random")), "Invalid parameter: SubscriptionId");
        assert_eq!(refused(None), "Invalid parameter: SubscriptionArn Reason: no value for required parameter");
    }

    #[test]
    fn a_subscription_is_known_by_topic_and_identity() {
        let id = new_uuid();
        let arn = format!("arn:aws:sns:us-east-1:111111111111:t:{id}");
        let name = subscription(Some(&arn)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((name.account, &*name.topic, name.id), ("111111111111", "t", &*id));
    }
}
