//! Forms of the Query protocol, decoded by the shapes of the model.
//!
//! ```text
//! Action=SendMessage&MessageAttribute.1.Name=A&MessageAttribute.1.Value.StringValue=v
//! ```
//!
//! Names are paths; numbers in them count items from 1. Where services and their older versions differ in names, each
//! is taken: `Attribute.1.Name`, `Attributes.entry.1.key`, `SendMessageBatchRequestEntry.1.Id`, `Entries.member.1.Id`.
//! An item that is left out counts nothing. Bounds: [`PARAMETERS_COUNT_MAX`] and [`DEPTH_MAX`].

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::{
    call::Service,
    error::Error,
    model::{Member, Shape},
};

/// Parameters of a form. More: the form is refused.
pub const PARAMETERS_COUNT_MAX: usize = 8192;
/// Parts of a parameter's name. More: the form is refused.
pub const DEPTH_MAX: usize = 12;

/// A form as it came: names and values, decoded.
#[derive(Debug, Default)]
pub struct Form<'a> {
    parameters: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Form<'a> {
    /// Reads a form.
    pub fn parse(body: &'a [u8]) -> Result<Self, Error> {
        let (mut parameters, mut is_suspect) = (Vec::new(), false);
        for (name, value) in form_urlencoded::parse(body) {
            if parameters.len() >= PARAMETERS_COUNT_MAX || name.split('.').count() > DEPTH_MAX {
                return Err(Error::new("MalformedInput", 400, "The request has too many parameters."));
            }
            is_suspect |= name.contains(char::REPLACEMENT_CHARACTER) || value.contains(char::REPLACEMENT_CHARACTER);
            parameters.push((name, value));
        }
        // What is no text would be another text otherwise, and a message be kept that nobody has sent.
        if is_suspect && percent_encoding::percent_decode(body).decode_utf8().is_err() {
            return Err(Error::new("MalformedInput", 400, "The request is not encoded in UTF-8."));
        }
        // Stable: of two with one name the first stays the first.
        parameters.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(Self { parameters })
    }

    /// The value of that parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.parameters.partition_point(|(known, _)| &**known < name);
        self.parameters.get(found).filter(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// Adds a parameter that is not there.
    pub fn insert(&mut self, name: &'a str, value: String) {
        let at = self.parameters.partition_point(|(known, _)| &**known <= name);
        self.parameters.insert(at, (name.into(), value.into()));
    }

    /// The input of an operation.
    pub fn decode(&self, service: Service, shape: &Shape) -> Result<Value, Error> {
        let all = Scope { service, parameters: &self.parameters, prefix_bytes: 0 };
        Ok(all.decode(shape)?.unwrap_or_else(|| Value::Object(Map::new())))
    }
}

/// The parameters that begin with one path.
#[derive(Clone, Copy)]
struct Scope<'f, 'a> {
    service: Service,
    parameters: &'f [(Cow<'a, str>, Cow<'a, str>)],
    prefix_bytes: usize,
}

impl<'f, 'a> Scope<'f, 'a> {
    /// The parameter of this very path.
    fn value(&self) -> Option<&'f str> {
        let (_, value) = self.parameters.iter().find(|(name, _)| name.len() + 1 == self.prefix_bytes)?;
        Some(value)
    }

    /// Those below a part of a name, itself included.
    fn below(&self, part: &str) -> Self {
        let rest = |name: &str| -> std::cmp::Ordering {
            let rest = name.get(self.prefix_bytes..).unwrap_or_default();
            // `part`, or `part.` and more: between them others may sort, such as `part-x`.
            rest.get(..part.len().min(rest.len())).unwrap_or_default().cmp(part)
        };
        let begin = self.parameters.partition_point(|(name, _)| rest(name).is_lt());
        let end = begin + self.parameters[begin..].partition_point(|(name, _)| rest(name).is_eq());
        Self { parameters: &self.parameters[begin..end], prefix_bytes: self.prefix_bytes + part.len() + 1, ..*self }
            .without_neighbours()
    }

    /// Cuts off what only begins with the same letters.
    fn without_neighbours(self) -> Self {
        let at = self.prefix_bytes - 1;
        let is_mine = |name: &str| name.len() == at || name.as_bytes().get(at) == Some(&b'.');
        let begin = self.parameters.iter().position(|(name, _)| is_mine(name)).unwrap_or(self.parameters.len());
        let end = self.parameters.iter().rposition(|(name, _)| is_mine(name)).map_or(begin, |last| last + 1);
        Self { parameters: &self.parameters[begin..end], ..self }
    }

    fn is_empty(&self) -> bool {
        self.parameters.is_empty()
    }

    fn decode(&self, shape: &Shape) -> Result<Option<Value>, Error> {
        match shape {
            Shape::Structure(members) => {
                let mut object = Map::new();
                for member in *members {
                    if let Some(value) = self.member(member)? {
                        object.insert(member.name.to_owned(), value);
                    }
                }
                Ok((!object.is_empty() || self.prefix_bytes > 0).then_some(Value::Object(object)))
            }
            Shape::List { item, shape, .. } => {
                let items = self.items(&[item, "member"]);
                if items.is_empty() {
                    return Ok(match self.value() {
                        // Before there were lists there was one name: `AttributeName=All`.
                        Some(text) if !text.is_empty() && is_scalar(shape) => {
                            Some(Value::Array(vec![self.scalar(shape, text)?]))
                        }
                        Some(_) => Some(Value::Array(Vec::new())),
                        None => None,
                    });
                }
                let items = items.into_iter().filter_map(|scope| scope.decode(shape).transpose());
                items.collect::<Result<_, _>>().map(|items| Some(Value::Array(items)))
            }
            Shape::Map { key, value, shape, .. } => {
                let mut object = Map::new();
                let mut entries = self.items(&["entry"]);
                if entries.is_empty() {
                    // One without a number: `Attribute.Name=A&Attribute.Value=v`.
                    entries.push(*self);
                }
                for entry in entries {
                    let either = |name: &str, other: [&str; 2]| {
                        let mut names = [name, other[0], other[1]].into_iter().map(|name| entry.below(name));
                        names.find(|scope| !scope.is_empty())
                    };
                    let name = either(key, ["Name", "key"]).and_then(|scope| scope.value());
                    let Some(name) = name.or_else(|| either("Key", ["Name", "key"])?.value()) else { continue };
                    let Some(inner) = either(value, ["Value", "value"]) else {
                        // A name without a value: of a text it is the empty one.
                        if matches!(shape, Shape::Text) {
                            object.insert(name.to_owned(), Value::String(String::new()));
                        }
                        continue;
                    };
                    if let Some(inner) = inner.decode(shape)? {
                        object.insert(name.to_owned(), inner);
                    }
                }
                Ok((!object.is_empty()).then_some(Value::Object(object)))
            }
            _ => self.value().map(|text| self.scalar(shape, text)).transpose(),
        }
    }

    fn member(&self, member: &Member) -> Result<Option<Value>, Error> {
        let scope = self.below(member.wire);
        if !scope.is_empty() {
            return scope.decode(member.shape);
        }
        if member.name != member.wire {
            let scope = self.below(member.name);
            if !scope.is_empty() {
                return scope.decode(member.shape);
            }
        }
        Ok(None)
    }

    /// Items by their numbers, which may stand behind one of `names`.
    fn items(&self, names: &[&str]) -> Vec<Self> {
        let named = names.iter().map(|name| self.below(name)).find(|scope| !scope.is_empty());
        let scope = named.unwrap_or(*self);
        let mut numbers: Vec<(u32, &str)> = Vec::new();
        for (name, _) in scope.parameters {
            let part = name.get(scope.prefix_bytes..).unwrap_or_default().split('.').next().unwrap_or_default();
            if let Ok(number) = part.parse::<u32>()
                && numbers.last().is_none_or(|(_, last)| *last != part)
            {
                numbers.push((number, part));
            }
        }
        numbers.sort_unstable();
        numbers.dedup();
        numbers.into_iter().map(|(_, part)| scope.below(part)).collect()
    }

    fn scalar(&self, shape: &Shape, text: &str) -> Result<Value, Error> {
        let wrong = |expected: &str| {
            let name = self.parameters.first().map_or("", |(name, _)| name);
            match self.service {
                Service::Sqs => Error::invalid_value(text, name, &format!("Must be {expected}.")),
                Service::Sns => Error::new("MalformedInput", 400, format!("{name} must be {expected}")),
            }
        };
        Ok(match shape {
            Shape::Integer => text.trim().parse::<i64>().map_err(|_| wrong("an integer"))?.into(),
            Shape::Float => text.trim().parse::<f64>().map_err(|_| wrong("a number"))?.into(),
            Shape::Boolean => match text {
                "true" | "True" | "TRUE" | "1" => true.into(),
                "false" | "False" | "FALSE" | "0" => false.into(),
                _ => return Err(wrong("true or false")),
            },
            _ => text.into(),
        })
    }
}

fn is_scalar(shape: &Shape) -> bool {
    !matches!(shape, Shape::Structure(_) | Shape::List { .. } | Shape::Map { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn decoded(service: Service, operation: &str, form: &str) -> Value {
        let shape = service.model().operation(operation).unwrap().input;
        Form::parse(form.as_bytes()).unwrap().decode(service, shape).unwrap()
    }

    #[test]
    fn attributes_of_a_message_are_numbered() {
        let form = "Action=SendMessage&QueueUrl=http%3A%2F%2Fh%2F1%2Fq&MessageBody=a+b%26&DelaySeconds=5\
                    &MessageAttribute.2.Name=B&MessageAttribute.2.Value.BinaryValue=AA%3D%3D\
                    &MessageAttribute.2.Value.DataType=Binary\
                    &MessageAttribute.1.Name=A&MessageAttribute.1.Value.StringValue=v&MessageAttribute.1.Value.DataType=String";
        assert_eq!(
            decoded(Service::Sqs, "SendMessage", form),
            json!({
                "QueueUrl": "http://h/1/q", "MessageBody": "a b&", "DelaySeconds": 5,
                "MessageAttributes": {
                    "A": { "StringValue": "v", "DataType": "String" },
                    "B": { "BinaryValue": "AA==", "DataType": "Binary" },
                },
            })
        );
    }

    #[test]
    fn entries_of_a_batch_stay_in_order_beyond_nine() {
        let form: String =
            (1..=11).map(|n| format!("&SendMessageBatchRequestEntry.{n}.Id=i{n}")).collect::<Vec<_>>().join("");
        let input = decoded(Service::Sqs, "SendMessageBatch", &form);
        let ids: Vec<_> = input["Entries"].as_array().unwrap().iter().map(|entry| entry["Id"].clone()).collect();
        assert_eq!(ids, (1..=11).map(|n| json!(format!("i{n}"))).collect::<Vec<_>>());
        let other = decoded(Service::Sqs, "SendMessageBatch", "Entries.member.1.Id=a&Entries.member.2.Id=b");
        assert_eq!(other["Entries"], json!([{ "Id": "a" }, { "Id": "b" }]));
    }

    #[test]
    fn names_of_every_age_are_taken() {
        let attributes = |form| decoded(Service::Sqs, "SetQueueAttributes", form)["Attributes"].clone();
        let expected = json!({ "VisibilityTimeout": "5" });
        assert_eq!(attributes("Attribute.1.Name=VisibilityTimeout&Attribute.1.Value=5"), expected);
        assert_eq!(attributes("Attribute.Name=x&Attribute.1.Name=VisibilityTimeout&Attribute.1.Value=5"), expected);
        assert_eq!(attributes("Attribute.Name=VisibilityTimeout&Attribute.Value=5"), expected);
        assert_eq!(attributes("Attributes.entry.1.key=VisibilityTimeout&Attributes.entry.1.value=5"), expected);
        let tags = decoded(Service::Sqs, "TagQueue", "Tag.1.Key=a&Tag.1.Value=b&Tag.2.Key=c&Tag.2.Value=");
        assert_eq!(tags["Tags"], json!({ "a": "b", "c": "" }));
        let names = decoded(Service::Sqs, "ReceiveMessage", "AttributeName.1=All&MessageAttributeName.1=a.*");
        assert_eq!((&names["AttributeNames"], &names["MessageAttributeNames"]), (&json!(["All"]), &json!(["a.*"])));
        let names = |form| decoded(Service::Sqs, "GetQueueAttributes", form)["AttributeNames"].clone();
        assert_eq!(names("AttributeName=All"), json!(["All"]));
        assert_eq!(names("AttributeName="), json!([]));
        assert_eq!(names("AttributeName=All&AttributeName.1=QueueArn"), json!(["QueueArn"]));
    }

    #[test]
    fn lists_and_maps_of_sns_are_named() {
        let form = "TopicArn=t&PublishBatchRequestEntries.member.1.Id=1&PublishBatchRequestEntries.member.1.Message=m\
                    &PublishBatchRequestEntries.member.1.MessageAttributes.entry.1.Name=A\
                    &PublishBatchRequestEntries.member.1.MessageAttributes.entry.1.Value.DataType=String";
        let input = decoded(Service::Sns, "PublishBatch", form);
        let entry = json!({ "Id": "1", "Message": "m", "MessageAttributes": { "A": { "DataType": "String" } } });
        assert_eq!(input, json!({ "TopicArn": "t", "PublishBatchRequestEntries": [entry] }));
        let topic = decoded(
            Service::Sns,
            "CreateTopic",
            "Name=n&Attributes.entry.1.key=FifoTopic&Attributes.entry.1.value=true&Tags.member.1.Key=k&Tags.member.1.Value=v",
        );
        let expected =
            json!({ "Name": "n", "Attributes": { "FifoTopic": "true" }, "Tags": [{ "Key": "k", "Value": "v" }] });
        assert_eq!(topic, expected);
    }

    #[test]
    fn number_that_is_none_is_refused() {
        let shape = Service::Sqs.model().operation("ReceiveMessage").unwrap().input;
        let form = Form::parse(b"WaitTimeSeconds=x").unwrap();
        let error = form.decode(Service::Sqs, shape).unwrap_err();
        assert_eq!(&*error.query_code, "InvalidParameterValue");
    }

    #[test]
    fn form_without_bounds_is_refused() {
        let many = "a=b&".repeat(PARAMETERS_COUNT_MAX + 1);
        assert!(Form::parse(many.as_bytes()).is_err());
        let deep = format!("{}=x", ["a"; DEPTH_MAX + 1].join("."));
        assert!(Form::parse(deep.as_bytes()).is_err());
    }
}
