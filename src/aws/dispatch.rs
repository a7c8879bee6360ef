//! Which service and operation a request means, and the function that does it.
//!
//! The operation's name decides, by `X-Amz-Target` or `Action`, never what the signature says it is for: clients sign
//! for whatever their configuration says.

use super::{
    call::{Call, Handler, Service, Step, Wire},
    error::Error,
    model::Operation,
    sns, sqs,
};
use crate::broker::turn::Turn;

/// The operation that `X-Amz-Target` names.
pub fn by_target(target: &str) -> Result<(Service, &'static Operation), Error> {
    let (prefix, name) = target.rsplit_once('.').unwrap_or((target, ""));
    let service = match prefix {
        "AmazonSQS" => Service::Sqs,
        _ => return Err(unknown(Service::Sqs, Wire::Json, target)),
    };
    let operation = service.model().operation(name);
    Ok((service, operation.ok_or_else(|| unknown(service, Wire::Json, name))?))
}

/// The operation that `Action` names, with the version of the interface where two services have one of that name.
///
/// `AddPermission` and `RemovePermission` are of both: a topic's has a `TopicArn`, which `has_topic` says.
pub fn by_action(
    action: Option<&str>,
    version: Option<&str>,
    has_topic: bool,
) -> Result<(Service, &'static Operation), Error> {
    let of_version = [Service::Sqs, Service::Sns].into_iter().find(|service| version == Some(service.model().version));
    let Some(action) = action.filter(|action| !action.is_empty()) else {
        return Err(Error::new("MissingAction", 400, "The request must contain the parameter Action."));
    };
    let preferred = of_version.unwrap_or(if has_topic { Service::Sns } else { Service::Sqs });
    let other = if preferred == Service::Sqs { Service::Sns } else { Service::Sqs };
    for service in [preferred, other] {
        if let Some(operation) = service.model().operation(action) {
            return Ok((service, operation));
        }
    }
    Err(unknown(preferred, Wire::Query, action))
}

/// Nothing has that name.
fn unknown(service: Service, wire: Wire, name: &str) -> Error {
    let version = service.model().version;
    match wire {
        Wire::Json => Error { status: 400, ..Error::of(service, "UnknownOperationException", "") },
        Wire::Query | Wire::QueryJson => {
            let message = format!("The action {name} is not valid for this endpoint (version {version}).");
            Error { status: 400, ..Error::of(service, "UnknownOperationException", message) }
        }
    }
}

/// Does what the call wants, or a part of it: see [`Step`].
pub fn dispatch(call: &mut Call, turn: &mut Turn<'_>) -> Result<Step, Error> {
    match handler(call.service, call.operation.name) {
        Some(handler) => handler(call, turn),
        None => {
            let message = format!("{} is not supported by this broker.", call.operation.name);
            Err(Error::of(call.service, "UnsupportedOperation", message))
        }
    }
}

fn handler(service: Service, name: &str) -> Option<Handler> {
    let operations = match service {
        Service::Sqs => sqs::OPERATIONS,
        Service::Sns => sns::OPERATIONS,
    };
    operations.iter().find(|(known, _)| *known == name).map(|(_, handler)| *handler)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operation_is_found_by_its_name_whatever_is_signed() {
        assert_eq!(by_target("AmazonSQS.SendMessage").unwrap().0, Service::Sqs);
        assert!(by_target("AmazonSQS.Publish").is_err());
        assert!(by_target("Kinesis_20131202.PutRecord").is_err());
        assert_eq!(by_action(Some("SendMessage"), Some("2012-11-05"), false).unwrap().0, Service::Sqs);
        assert_eq!(by_action(Some("Publish"), None, false).unwrap().0, Service::Sns);
        assert_eq!(by_action(Some("AddPermission"), Some("2010-03-31"), false).unwrap().0, Service::Sns);
        assert_eq!(by_action(Some("AddPermission"), None, true).unwrap().0, Service::Sns);
        assert_eq!(by_action(Some("AddPermission"), None, false).unwrap().0, Service::Sqs);
        assert_eq!(&*by_action(None, None, false).unwrap_err().query_code, "MissingAction");
        assert_eq!(&*by_action(Some("Nope"), None, false).unwrap_err().query_code, "InvalidAction");
    }

    #[test]
    fn every_registered_operation_is_one_of_the_model() {
        for (service, operations) in [(Service::Sqs, sqs::OPERATIONS), (Service::Sns, sns::OPERATIONS)] {
            for (name, _) in operations {
                assert!(service.model().operation(name).is_some(), "{name}");
            }
        }
    }
}
