//! Queues, topics and subscriptions of the settings, made at each start where they are not there.
//!
//! ```toml
//! [aws]
//! queues = ["orders", "orders.fifo FifoQueue=true VisibilityTimeout=60"]
//! topics = ["events"]
//! subscriptions = ["events sqs orders RawMessageDelivery=true", "events https https://example.com/hook"]
//! ```
//!
//! They are made by the operations themselves, so attributes are AWS's. What is there already and differs stays as it
//! is: somebody has changed it since.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Weak},
};

use serde_json::{Map, Value, json};

use super::{
    Aws,
    call::{Call, Caller, Input, Service, Wire},
    dispatch,
};
use crate::broker::{
    Broker,
    connections::{ChannelStatus, ConnectionHandle, Traffic},
    time::Time,
    turn::Turn,
};

/// Something that is to be there: words, and attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// A queue's or topic's name; of a subscription topic, protocol and endpoint.
    pub words: Vec<String>,
    /// Attributes by name.
    pub attributes: Vec<(String, String)>,
}

impl Declared {
    /// Reads an item of `words_count` words, with `Attribute=value` behind them.
    pub fn parse(text: &str, words_count: usize) -> Option<Self> {
        let mut words: Vec<String> = text.split_ascii_whitespace().map(str::to_owned).collect();
        if words.len() < words_count {
            return None;
        }
        let rest = words.split_off(words_count);
        let attributes = rest.iter().map(|word| {
            let (name, value) = word.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        });
        Some(Self { words, attributes: attributes.collect::<Option<_>>()? })
    }

    /// As it is written.
    pub fn show(&self) -> String {
        let attributes = self.attributes.iter().map(|(name, value)| format!("{name}={value}"));
        self.words.iter().cloned().chain(attributes).collect::<Vec<_>>().join(" ")
    }

    fn attributes(&self) -> Value {
        let all = self.attributes.iter().map(|(name, value)| (name.clone(), Value::String(value.clone())));
        Value::Object(all.collect::<Map<_, _>>())
    }
}

/// Makes what the settings name. What cannot be made is said, one text each.
pub fn declare(aws: &Arc<Aws>, broker: &Broker, now: Time) -> Vec<String> {
    let options = aws.options.clone();
    let mut problems = Vec::new();
    let mut make = |service: Service, operation: &str, declared: &Declared, input: Value| {
        if let Err(reason) = call(aws, broker, now, service, operation, input) {
            problems.push(format!("{}: {reason}", declared.show()));
        }
    };
    for queue in &options.queues {
        let mut attributes = queue.attributes();
        if queue.words[0].ends_with(".fifo") {
            attributes["FifoQueue"] = "true".into();
        }
        make(Service::Sqs, "CreateQueue", queue, json!({ "QueueName": queue.words[0], "Attributes": attributes }));
    }
    for topic in &options.topics {
        let mut attributes = topic.attributes();
        if topic.words[0].ends_with(".fifo") {
            attributes["FifoTopic"] = "true".into();
        }
        make(Service::Sns, "CreateTopic", topic, json!({ "Name": topic.words[0], "Attributes": attributes }));
    }
    for subscription in &options.subscriptions {
        let [topic, protocol, endpoint] = subscription.words.as_slice() else { continue };
        let arn = |service: &str, name: &str| match name.starts_with("arn:") {
            true => name.to_owned(),
            false => format!("arn:aws:{service}:{}:{}:{name}", options.region, options.account),
        };
        let endpoint = if protocol == "sqs" { arn("sqs", endpoint) } else { endpoint.clone() };
        let input = json!({
            "TopicArn": arn("sns", topic), "Protocol": protocol, "Endpoint": endpoint,
            "Attributes": subscription.attributes(),
        });
        make(Service::Sns, "Subscribe", subscription, input);
    }
    problems
}

fn call(
    aws: &Arc<Aws>,
    broker: &Broker,
    now: Time,
    service: Service,
    operation: &str,
    input: Value,
) -> Result<(), String> {
    let options = &aws.options;
    let operation = service.model().operation(operation).ok_or("no such operation")?;
    let waiter: Weak<dyn ConnectionHandle> = Weak::<Nobody>::new();
    let mut call = Call {
        aws: aws.clone(),
        service,
        operation,
        wire: Wire::Query,
        caller: Caller {
            user: broker.options.default_user.as_str().into(),
            account: options.account.as_str().into(),
            region: options.region.as_str().into(),
            access_key: None,
            is_trusted: true,
        },
        base_url: "http://localhost".into(),
        input: Input::Decoded(Arc::new(input)),
        request_id: "settings".into(),
        source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        trace: None,
        waiter,
        state: None,
    };
    let mut turn = Turn::new(broker, now);
    let done = dispatch::dispatch(&mut call, &mut turn);
    turn.end();
    done.map(drop).map_err(|error| error.message)
}

/// Nobody waits for an answer.
struct Nobody;

impl ConnectionHandle for Nobody {
    fn close(&self, _: &str) {}

    fn channels(&self) -> Vec<ChannelStatus> {
        Vec::new()
    }

    fn traffic(&self) -> Traffic {
        Traffic::default()
    }

    fn alarm_changed(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        aws::{Options, sns::signing::Unsigned},
        broker,
    };

    #[test]
    fn item_is_words_with_attributes_behind_them() {
        let declared = Declared::parse("t sqs q RawMessageDelivery=true A=b=c", 3).unwrap();
        assert_eq!(declared.words, ["t", "sqs", "q"]);
        assert_eq!(declared.attributes()["A"], "b=c");
        assert_eq!(declared.show(), "t sqs q RawMessageDelivery=true A=b=c");
        assert_eq!(Declared::parse("t sqs", 3), None);
        assert_eq!(Declared::parse("q attribute", 1), None);
    }

    #[test]
    fn queues_topics_and_subscriptions_are_made_once() {
        let broker = Broker::new(broker::Options::default(), Time(1)).unwrap();
        let item = |text, count| vec![Declared::parse(text, count).unwrap()];
        let options = Options {
            queues: item("q VisibilityTimeout=60", 1),
            topics: item("t", 1),
            subscriptions: item("t sqs q RawMessageDelivery=true", 3),
            ..Options::default()
        };
        let aws = Arc::new(Aws::new(options));
        aws.sns.begin(&broker, &aws.options, Arc::new(Unsigned), "http://localhost:9324");
        for _ in 0..2 {
            assert_eq!(declare(&aws, &broker, Time(2)), Vec::<String>::new());
        }
        assert!(broker.vhost("/").unwrap().queue("q").is_some());
        let wrong = Options { queues: item("q Nonsense=1", 1), ..Options::default() };
        assert_eq!(declare(&Arc::new(Aws::new(wrong)), &broker, Time(3)).len(), 1);
    }
}
