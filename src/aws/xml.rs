//! Answers of the Query protocol, rendered by the shapes of the model.

use std::fmt::Write as _;

use serde_json::Value;

use super::{
    call::Service,
    error::Error,
    model::{Member, Operation, Shape},
};

/// The body of an answer.
pub fn answer(service: Service, operation: &Operation, output: &Value, request_id: &str) -> Vec<u8> {
    let mut out = String::with_capacity(256);
    let (name, namespace) = (operation.name, service.model().xml_namespace);
    let _ = write!(out, "<?xml version=\"1.0\"?><{name}Response xmlns=\"{namespace}\">");
    if let Some(shape) = operation.output {
        let wrapper = operation.wrapper;
        let _ = write!(out, "<{wrapper}>");
        content(&mut out, shape, output);
        let _ = write!(out, "</{wrapper}>");
    }
    let _ = write!(out, "<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{name}Response>");
    out.into_bytes()
}

/// The body of a refusal.
pub fn error(service: Service, error: &Error, request_id: &str) -> Vec<u8> {
    let mut out = String::with_capacity(256);
    let namespace = service.model().xml_namespace;
    let (fault, code) = (error.fault(), &error.query_code);
    let _ = write!(out, "<?xml version=\"1.0\"?><ErrorResponse xmlns=\"{namespace}\"><Error>");
    let _ = write!(out, "<Type>{fault}</Type><Code>{code}</Code><Message>");
    escape(&mut out, &error.message);
    out.push_str("</Message>");
    if service == Service::Sqs {
        out.push_str("<Detail/>");
    }
    let _ = write!(out, "</Error><RequestId>{request_id}</RequestId></ErrorResponse>");
    out.into_bytes()
}

/// What stands inside of an element that is `value`.
fn content(out: &mut String, shape: &Shape, value: &Value) {
    match shape {
        Shape::Structure(members) => {
            for one in *members {
                match value.get(one.name) {
                    None | Some(Value::Null) => {}
                    Some(value) => member(out, one, value),
                }
            }
        }
        Shape::List { item, shape, .. } => {
            for value in value.as_array().into_iter().flatten() {
                element(out, item, shape, value);
            }
        }
        Shape::Map { .. } => entries(out, shape, "entry", value),
        _ => scalar(out, value),
    }
}

fn member(out: &mut String, member: &Member, value: &Value) {
    match (member.shape, member.is_flat) {
        (Shape::List { shape, .. }, true) => {
            for value in value.as_array().into_iter().flatten() {
                element(out, member.wire, shape, value);
            }
        }
        (Shape::Map { .. }, true) => entries(out, member.shape, member.wire, value),
        _ => element(out, member.wire, member.shape, value),
    }
}

fn entries(out: &mut String, map: &Shape, name: &str, value: &Value) {
    let Shape::Map { key: key_name, value: value_name, shape, .. } = map else { return };
    for (key, value) in value.as_object().into_iter().flatten() {
        let _ = write!(out, "<{name}><{key_name}>");
        escape(out, key);
        let _ = write!(out, "</{key_name}>");
        element(out, value_name, shape, value);
        let _ = write!(out, "</{name}>");
    }
}

fn element(out: &mut String, name: &str, shape: &Shape, value: &Value) {
    let _ = write!(out, "<{name}>");
    content(out, shape, value);
    let _ = write!(out, "</{name}>");
}

fn scalar(out: &mut String, value: &Value) {
    match value {
        Value::String(text) => escape(out, text),
        Value::Null => {}
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

/// Text as it stands in an element. What XML 1.0 has no way to write becomes U+FFFD.
pub fn escape(out: &mut String, text: &str) {
    let mut from = 0;
    for (at, char) in text.char_indices() {
        let replacement = match char {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            '"' => "&quot;",
            // A parser would make a line feed of it.
            '\r' => "&#xD;",
            '\t' | '\n' => continue,
            '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => "\u{fffd}",
            _ => continue,
        };
        out.push_str(&text[from..at]);
        out.push_str(replacement);
        from = at + char.len_utf8();
    }
    out.push_str(&text[from..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rendered(service: Service, operation: &str, output: &Value) -> String {
        let operation = service.model().operation(operation).unwrap();
        let text = String::from_utf8(answer(service, operation, output, "id")).unwrap();
        let name = operation.name;
        let begin = format!("<?xml version=\"1.0\"?><{name}Response xmlns=\"{}\">", service.model().xml_namespace);
        let end = format!("<ResponseMetadata><RequestId>id</RequestId></ResponseMetadata></{name}Response>");
        text.strip_prefix(&begin).unwrap().strip_suffix(&end).unwrap().to_owned()
    }

    #[test]
    fn lists_and_maps_of_sqs_are_flat() {
        let output = json!({ "Messages": [{
            "MessageId": "m", "Body": "a<b\r\n", "Attributes": { "SenderId": "x" },
            "MessageAttributes": { "A": { "DataType": "String", "StringValue": "v" } },
        }]});
        assert_eq!(
            rendered(Service::Sqs, "ReceiveMessage", &output),
            "<ReceiveMessageResult><Message><MessageId>m</MessageId><Body>a&lt;b&#xD;\n</Body>\
             <Attribute><Name>SenderId</Name><Value>x</Value></Attribute>\
             <MessageAttribute><Name>A</Name><Value><StringValue>v</StringValue><DataType>String</DataType></Value>\
             </MessageAttribute></Message></ReceiveMessageResult>"
        );
        assert_eq!(
            rendered(Service::Sqs, "ListQueues", &json!({ "QueueUrls": ["a", "b"] })),
            "<ListQueuesResult><QueueUrl>a</QueueUrl><QueueUrl>b</QueueUrl></ListQueuesResult>"
        );
        assert_eq!(rendered(Service::Sqs, "DeleteMessage", &Value::Null), "");
    }

    #[test]
    fn lists_and_maps_of_sns_have_elements_around_them() {
        assert_eq!(
            rendered(Service::Sns, "ListTopics", &json!({ "Topics": [{ "TopicArn": "a" }] })),
            "<ListTopicsResult><Topics><member><TopicArn>a</TopicArn></member></Topics></ListTopicsResult>"
        );
        assert_eq!(
            rendered(Service::Sns, "GetTopicAttributes", &json!({ "Attributes": { "Owner": "1" } })),
            "<GetTopicAttributesResult><Attributes><entry><key>Owner</key><value>1</value></entry></Attributes>\
             </GetTopicAttributesResult>"
        );
    }
}
