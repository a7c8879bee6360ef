//! Answers in JSON to forms that ask for it with `ContentType=JSON`, as SNS has them: boto knows no others.
//!
//! ```text
//! {"CreateTopicResponse":{"CreateTopicResult":{"TopicArn":"..."},"ResponseMetadata":{"RequestId":"..."}}}
//! {"Error":{"Type":"Sender","Code":"NotFound","Message":"Topic does not exist"},"RequestId":"..."}
//! ```

use serde_json::{Map, Value, json};

use super::{
    error::Error,
    model::{Operation, Shape},
};

/// The body of an answer. What there is none of is null.
pub fn answer(operation: &Operation, output: &Value, request_id: &str) -> Vec<u8> {
    let mut response = Map::new();
    if let Some(shape) = operation.output {
        let members = if let Shape::Structure(members) = shape { *members } else { &[] };
        let value = |name: &str| output.get(name).cloned().unwrap_or_default();
        let result: Map<_, _> = members.iter().map(|member| (member.wire.to_owned(), value(member.name))).collect();
        response.insert(operation.wrapper.to_owned(), Value::Object(result));
    }
    response.insert("ResponseMetadata".to_owned(), json!({ "RequestId": request_id }));
    json!({ format!("{}Response", operation.name): response }).to_string().into_bytes()
}

/// The body of a refusal.
pub fn error(error: &Error, request_id: &str) -> Vec<u8> {
    let said = json!({ "Type": error.fault(), "Code": error.query_code, "Message": error.message });
    json!({ "Error": said, "RequestId": request_id }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::call::Service;

    #[test]
    fn answer_stands_in_its_wrappers() {
        let of = |name| Service::Sns.model().operation(name).unwrap();
        let text = |body: Vec<u8>| String::from_utf8(body).unwrap();
        let output = json!({ "Topics": [{ "TopicArn": "t" }] });
        assert_eq!(
            text(answer(of("ListTopics"), &output, "id")),
            r#"{"ListTopicsResponse":{"ListTopicsResult":{"Topics":[{"TopicArn":"t"}],"NextToken":null},"ResponseMetadata":{"RequestId":"id"}}}"#
        );
        assert_eq!(
            text(answer(of("Unsubscribe"), &Value::Null, "id")),
            r#"{"UnsubscribeResponse":{"ResponseMetadata":{"RequestId":"id"}}}"#
        );
        assert_eq!(
            text(error(&Error::sns("NotFoundException", "Topic does not exist"), "id")),
            r#"{"Error":{"Type":"Sender","Code":"NotFound","Message":"Topic does not exist"},"RequestId":"id"}"#
        );
    }
}
