//! Why a call was refused, with its codes in each protocol.
//!
//! JSON has the name of the error's shape, Query the code that the service had before it spoke JSON. What the models
//! do not list has one name in both, or the two that [`Error::new`]'s callers give.

use std::borrow::Cow;

use serde::Serialize;

use super::{
    call::{Service, Wire},
    xml,
};

/// Why a call was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Error {
    /// The code in JSON.
    pub code: Cow<'static, str>,
    /// The code in Query, and in `x-amzn-query-error`.
    pub query_code: Cow<'static, str>,
    /// Status of the answer.
    pub status: u16,
    /// For people, and for tests that compare it.
    pub message: String,
}

impl Error {
    /// An error with one code in all protocols.
    pub fn new(code: &'static str, status: u16, message: impl Into<String>) -> Self {
        Self { code: code.into(), query_code: code.into(), status, message: message.into() }
    }

    /// An error of a service by the name of its shape.
    ///
    /// The models leave out some that services answer all the same: those are known here, too.
    pub fn of(service: Service, shape: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        if let Some(error) = service.model().error(shape) {
            return Self { code: shape.into(), query_code: error.code.into(), status: error.status, message };
        }
        let beside = BESIDE_THE_MODELS.iter().find(|(name, ..)| *name == shape);
        let (query_code, status) = beside.map_or((shape, 400), |(_, code, status)| (code, *status));
        Self { code: shape.into(), query_code: query_code.into(), status, message }
    }

    /// An error of SQS by the name of its shape.
    pub fn sqs(shape: &'static str, message: impl Into<String>) -> Self {
        Self::of(Service::Sqs, shape, message)
    }

    /// An error of SNS by the name of its shape.
    pub fn sns(shape: &'static str, message: impl Into<String>) -> Self {
        Self::of(Service::Sns, shape, message)
    }

    /// SQS: a parameter has a value that cannot be.
    pub fn invalid_value(value: impl std::fmt::Display, parameter: &str, reason: &str) -> Self {
        let message = format!("Value {value} for parameter {parameter} is invalid. Reason: {reason}");
        Self::sqs("InvalidParameterValueException", message)
    }

    /// SQS: a parameter is not there.
    pub fn missing(parameter: &str) -> Self {
        let message = format!("The request must contain the parameter {parameter}.");
        Self::sqs("MissingRequiredParameterException", message)
    }

    /// The queue does not exist; texts differ by protocol.
    pub fn queue_does_not_exist(wire: Wire) -> Self {
        let message = match wire {
            Wire::Json => "The specified queue does not exist.",
            Wire::Query => "The specified queue does not exist for this wsdl version.",
        };
        Self::sqs("QueueDoesNotExist", message)
    }

    /// Nobody has signed what somebody has to.
    pub fn unsigned() -> Self {
        let (code, query_code) = ("MissingAuthenticationTokenException".into(), "MissingAuthenticationToken".into());
        Self { code, query_code, status: 403, message: "Request is missing Authentication Token".to_owned() }
    }

    /// Something failed that is nobody's fault but ours.
    pub fn internal(message: impl Into<String>) -> Self {
        let (code, query_code) = ("InternalFailure".into(), "InternalFailure".into());
        Self { code, query_code, status: 500, message: message.into() }
    }

    /// Whether the caller is to change something before it tries again.
    pub fn is_senders_fault(&self) -> bool {
        self.status < 500
    }

    /// `Sender`, or `Receiver` for a fault of ours.
    pub fn fault(&self) -> &'static str {
        if self.is_senders_fault() { "Sender" } else { "Receiver" }
    }

    /// The body of the answer.
    pub fn body(&self, service: Service, wire: Wire, request_id: &str) -> Vec<u8> {
        match wire {
            Wire::Json => {
                let kind = format!("com.amazonaws.{}#{}", service.model().name, self.code);
                serde_json::to_vec(&Shown { kind: &kind, message: &self.message }).unwrap_or_default()
            }
            Wire::Query => xml::error(service, self, request_id),
        }
    }
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(rename = "__type")]
    kind: &'a str,
    message: &'a str,
}

/// What services answer beside their models: name in JSON, code in Query, status.
const BESIDE_THE_MODELS: &[(&str, &str, u16)] = &[
    ("AccessDeniedException", "AccessDenied", 403),
    ("InvalidParameterCombinationException", "InvalidParameterCombination", 400),
    ("InvalidParameterValueException", "InvalidParameterValue", 400),
    ("MissingRequiredParameterException", "MissingParameter", 400),
    ("ServiceUnavailable", "ServiceUnavailable", 503),
    ("UnknownOperationException", "InvalidAction", 404),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_has_its_code_in_each_protocol() {
        let error = Error::queue_does_not_exist(Wire::Json);
        assert_eq!(
            (&*error.code, &*error.query_code, error.status),
            ("QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", 400)
        );
        let body = error.body(Service::Sqs, Wire::Json, "id");
        assert_eq!(
            String::from_utf8(body).unwrap(),
            r#"{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"The specified queue does not exist."}"#
        );
        let error = Error::invalid_value(11, "MaxNumberOfMessages", "Must be between 1 and 10, if provided.");
        assert_eq!(&*error.query_code, "InvalidParameterValue");
        assert_eq!(Error::sqs("PurgeQueueInProgress", "").status, 403);
        let error = Error::sns("NotFoundException", "Topic does not exist");
        assert_eq!((&*error.query_code, error.status), ("NotFound", 404));
    }

    #[test]
    fn text_of_an_error_is_escaped_in_xml() {
        let error = Error::missing("<&>");
        let body = String::from_utf8(error.body(Service::Sqs, Wire::Query, "id")).unwrap();
        assert_eq!(
            body,
            "<?xml version=\"1.0\"?><ErrorResponse xmlns=\"http://queue.amazonaws.com/doc/2012-11-05/\"><Error>\
             <Type>Sender</Type><Code>MissingParameter</Code><Message>The request must contain the parameter \
             &lt;&amp;&gt;.</Message><Detail/></Error><RequestId>id</RequestId></ErrorResponse>"
        );
    }
}
