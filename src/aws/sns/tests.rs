//! Calls of SNS and what comes to queues, on a broker without sockets.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Weak},
};

use bytes::Bytes;
use serde_json::{Value as Json, json};

use super::signing::{Signer, Version};
use crate::{
    aws::{
        Aws,
        call::{Call, Caller, Input, Service, Step, Wire},
        dispatch::dispatch,
        error::Error,
        message::{Contents, body_text},
        pages,
    },
    broker::{
        Broker, Options,
        access::Permissions,
        connections::{ChannelStatus, ConnectionHandle, Traffic},
        exchange::Target,
        message::Message,
        publish::Batch,
        queue::Queue,
        time::Time,
        topology::DeclareQueue,
        turn::Turn,
        value::{Table, Value},
        verb::Verb,
        vhost::Vhost,
    },
    protocol::amqp::properties,
};

mod replays;

/// Signs with the version's name.
struct Plain;

impl Signer for Plain {
    fn sign(&self, version: Version, text: &[u8]) -> String {
        format!("signed {} {}", version.name(), text.len())
    }

    fn certificate_url(&self, base_url: &str) -> String {
        format!("{base_url}/certificate")
    }

    fn certificate(&self, _: &str) -> Option<String> {
        None
    }
}

/// Nobody who waits.
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

struct Desk {
    broker: Broker,
    aws: Arc<Aws>,
    now: Time,
    user: &'static str,
}

impl Desk {
    fn new() -> Self {
        let broker = Broker::new(Options::default(), Time(1_000_000_000)).unwrap();
        for user in ["guest", "stranger"] {
            drop(broker.access.add(user, "secret"));
        }
        broker.access.set_permissions("guest", "/", Permissions::all()).unwrap();
        broker.attach_fields(Arc::new(crate::protocol::jms::JmsFields));
        let aws = Arc::<Aws>::default();
        aws.sns.begin(&broker, &aws.options, Arc::new(Plain), "http://here");
        Self { broker, aws, now: Time(1_000_000_000), user: "guest" }
    }

    fn vhost(&self) -> Arc<Vhost> {
        self.broker.vhost("/").unwrap()
    }

    fn turn(&self) -> Turn<'_> {
        Turn::new(&self.broker, self.now)
    }

    fn try_do(&self, operation: &str, input: Json) -> Result<Json, Error> {
        let waiter: Weak<Nobody> = Weak::new();
        let mut call = Call {
            aws: self.aws.clone(),
            service: Service::Sns,
            operation: Service::Sns.model().operation(operation).unwrap(),
            wire: Wire::Json,
            caller: Caller {
                user: self.user.into(),
                account: "000000000000".into(),
                region: "eu-west-1".into(),
                access_key: None,
                is_trusted: false,
            },
            base_url: "http://here".into(),
            input: Input::Json(Bytes::from(input.to_string())),
            request_id: "id".into(),
            source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            trace: None,
            waiter,
            state: None,
        };
        match dispatch(&mut call, &mut self.turn())? {
            Step::Done(reply) if reply.body.is_empty() => Ok(Json::Null),
            Step::Done(reply) => Ok(serde_json::from_slice(&reply.body).unwrap()),
            Step::Wait { .. } => panic!("{operation} waits"),
        }
    }

    fn do_it(&self, operation: &str, input: Json) -> Json {
        self.try_do(operation, input).unwrap_or_else(|error| panic!("{operation}: {error}"))
    }

    fn refused(&self, operation: &str, input: Json) -> String {
        self.try_do(operation, input).unwrap_err().message
    }

    fn queue(&self, name: &str) -> Arc<Queue> {
        let wanted = DeclareQueue { name, durable: true, ..DeclareQueue::default() };
        self.vhost().declare_queue(&wanted, None, &mut self.turn()).unwrap()
    }

    fn topic(&self, name: &str, attributes: Json) -> String {
        let made = self.do_it("CreateTopic", json!({"Name": name, "Attributes": attributes}));
        made["TopicArn"].as_str().unwrap().to_owned()
    }

    fn subscribe(&self, topic: &str, protocol: &str, endpoint: &str, attributes: Json) -> String {
        let endpoint = match protocol {
            "sqs" => format!("arn:aws:sqs:eu-west-1:000000000000:{endpoint}"),
            _ => endpoint.to_owned(),
        };
        let wanted = json!({
            "TopicArn": topic,
            "Protocol": protocol,
            "Endpoint": endpoint,
            "Attributes": attributes,
            "ReturnSubscriptionArn": true,
        });
        self.do_it("Subscribe", wanted)["SubscriptionArn"].as_str().unwrap().to_owned()
    }

    fn publish(&self, topic: &str, message: &str) -> Json {
        self.do_it("Publish", json!({"TopicArn": topic, "Message": message}))
    }

    fn get(&self, queue: &Arc<Queue>) -> Option<Message> {
        match queue.get(true, &mut self.turn()) {
            Verb::Done(got) => got.map(|got| got.message),
            Verb::Pending(_) => panic!("nothing is cold"),
        }
    }

    fn text(&self, queue: &Arc<Queue>) -> String {
        self.get(queue).map(|message| body_text(&message).text.into_owned()).unwrap_or_default()
    }

    fn envelope(&self, queue: &Arc<Queue>) -> Json {
        serde_json::from_str(&self.text(queue)).unwrap_or_default()
    }
}

#[test]
fn queues_get_what_their_subscriptions_ask_for() {
    let desk = Desk::new();
    let topic = desk.topic("t", json!({}));
    let queues = ["enveloped", "raw", "bound"].map(|name| desk.queue(name));
    let subscription = desk.subscribe(&topic, "sqs", "enveloped", json!({}));
    desk.subscribe(&topic, "sqs", "raw", json!({"RawMessageDelivery": "true"}));
    let bound = Target::Queue(queues[2].clone());
    desk.vhost().bind("t", &bound, b"", &Table::new(), &mut desk.turn()).unwrap();
    let attributes = json!({"n": {"DataType": "Number", "StringValue": "7.0"}});
    let published = desk.do_it(
        "Publish",
        json!({"TopicArn": topic, "Subject": "s", "Message": "hello", "MessageAttributes": attributes}),
    );
    let envelope = desk.envelope(&queues[0]);
    let expected = json!({
        "Type": "Notification",
        "MessageId": published["MessageId"],
        "TopicArn": topic,
        "Subject": "s",
        "Message": "hello",
        "Timestamp": "1970-01-12T13:46:40.000Z",
        "SignatureVersion": "1",
        "Signature": envelope["Signature"],
        "SigningCertURL": "http://here/certificate",
        "UnsubscribeURL": format!("http://here/?Action=Unsubscribe&SubscriptionArn={subscription}"),
        "MessageAttributes": {"n": {"Type": "Number", "Value": "7.0"}},
    });
    assert_eq!(envelope, expected);
    for queue in &queues[1..] {
        let message = desk.get(queue).unwrap();
        let attributes = Contents::read(&message).attributes();
        assert_eq!((&*body_text(&message).text, &*attributes[0].data_type), ("hello", "Number"));
    }
}

#[test]
fn an_amqp_publish_reaches_subscribers_in_an_envelope() {
    let desk = Desk::new();
    let topic = desk.topic("t", json!({}));
    let (queue, filtered) = (desk.queue("q"), desk.queue("f"));
    desk.subscribe(&topic, "sqs", "q", json!({}));
    desk.subscribe(&topic, "sqs", "f", json!({"FilterPolicy": r#"{"kind": ["gift"], "n": [{"numeric": [">", 5]}]}"#}));
    for (kind, n) in [("gift", 7), ("gift", 3), ("order", 7)] {
        let table = Table::from_iter([("kind", Value::text(kind)), ("n", Value::I32(n))]);
        let raw = properties::Properties { headers: Some(table), ..Default::default() }.encode();
        let message = Message::build("t", b"k", &raw, properties::scan(&raw).unwrap().headers, b"body");
        let (vhost, mut turn) = (desk.vhost(), desk.turn());
        let route = vhost.route(&vhost.exchange("t").unwrap(), &message, &[], None, &mut turn);
        let mut batch = Batch::default();
        batch.push(message, &Arc::new(route));
        batch.place(&mut turn, &mut Vec::new());
    }
    let envelope = desk.envelope(&queue);
    assert_eq!((&envelope["Message"], &envelope["TopicArn"]), (&json!("body"), &json!(topic)));
    assert_eq!(envelope["MessageAttributes"]["kind"], json!({"Type": "String", "Value": "gift"}));
    assert_eq!((queue.status().ready, filtered.status().ready), (2, 1));
}

#[test]
fn a_subscribed_queue_that_is_gone_is_stood_in_for_until_it_is_back() {
    let desk = Desk::new();
    let topic = desk.topic("t", json!({}));
    let (queue, dead) = (desk.queue("q"), desk.queue("dead"));
    let policy = r#"{"deadLetterTargetArn": "arn:aws:sqs:eu-west-1:000000000000:dead"}"#;
    desk.subscribe(&topic, "sqs", "q", json!({"RawMessageDelivery": "true", "RedrivePolicy": policy}));
    desk.vhost().remove_queue(&queue, &mut desk.turn());
    desk.publish(&topic, "one");
    let queue = desk.queue("q");
    desk.publish(&topic, "two");
    assert_eq!((desk.text(&dead), desk.text(&queue)), ("one".into(), "two".into()));
    assert!(desk.get(&dead).is_none());
}

#[test]
fn a_repeated_message_of_a_fifo_topic_is_told_of_again_and_delivered_once() {
    let desk = Desk::new();
    let topic = desk.topic("t.fifo", json!({"FifoTopic": "true"}));
    let queue = desk.queue("q.fifo");
    desk.subscribe(&topic, "sqs", "q.fifo", json!({}));
    let message = json!({"TopicArn": topic, "Message": "m", "MessageGroupId": "g", "MessageDeduplicationId": "d"});
    let first = desk.do_it("Publish", message.clone());
    assert_eq!(desk.do_it("Publish", message), first);
    let envelope = desk.envelope(&queue);
    assert_eq!((&envelope["SequenceNumber"], &envelope["Signature"]), (&first["SequenceNumber"], &Json::Null));
    assert!(desk.get(&queue).is_none());
}

#[test]
fn a_protocol_may_have_a_text_of_its_own_and_a_signature_of_it() {
    let desk = Desk::new();
    let topic = desk.topic("t", json!({"SignatureVersion": "2"}));
    let (enveloped, raw, bound) = (desk.queue("e"), desk.queue("r"), desk.queue("b"));
    desk.subscribe(&topic, "sqs", "e", json!({}));
    desk.subscribe(&topic, "sqs", "r", json!({"RawMessageDelivery": "true"}));
    desk.vhost().bind("t", &Target::Queue(bound.clone()), b"", &Table::new(), &mut desk.turn()).unwrap();
    let texts = json!({"default": "for all", "sqs": "for queues"}).to_string();
    desk.do_it("Publish", json!({"TopicArn": topic, "Message": texts, "MessageStructure": "json"}));
    let envelope = desk.envelope(&enveloped);
    assert_eq!((&envelope["Message"], &envelope["SignatureVersion"]), (&json!("for queues"), &json!("2")));
    assert_eq!((desk.text(&raw), desk.text(&bound)), ("for queues".into(), "for all".into()));
}

#[test]
fn an_endpoint_that_has_not_confirmed_gets_nothing_but_the_question() {
    let desk = Desk::new();
    let topic = desk.topic("t", json!({}));
    let arn = desk.subscribe(&topic, "email-json", "somebody@example.com", json!({}));
    desk.publish(&topic, "lost");
    let id = arn.rsplit(':').next().unwrap();
    let own = desk.vhost().queue(&format!("tern.sns.{id}")).unwrap();
    let question = desk.envelope(&own);
    assert_eq!(question["Type"], "SubscriptionConfirmation");
    assert!(desk.get(&own).is_none());
    let unknown = "0".repeat(288);
    let refusal = desk.refused("ConfirmSubscription", json!({"TopicArn": topic, "Token": unknown}));
    assert_eq!(refusal, "Invalid parameter: Token");
    desk.do_it("ConfirmSubscription", json!({"TopicArn": topic, "Token": question["Token"]}));
    desk.publish(&topic, "taken");
    assert_eq!(desk.envelope(&own)["Message"], "taken");
    let attributes = desk.do_it("GetSubscriptionAttributes", json!({ "SubscriptionArn": arn }));
    assert_eq!(attributes["Attributes"]["PendingConfirmation"], "false");
}

#[test]
fn what_cannot_be_delivered_waits_in_the_outbox() {
    let desk = Desk::new();
    let topic = desk.topic("t", json!({}));
    desk.subscribe(&topic, "sms", "+15551234567", json!({}));
    desk.publish(&topic, "to subscribers");
    desk.do_it("Publish", json!({"PhoneNumber": "+15557654321", "Message": "to one"}));
    let request = pages::Request {
        method: "GET",
        path: "sns/outbox",
        query: "",
        is_trusted: true,
        base_url: "http://here",
        now: desk.now,
    };
    let page = super::page(&desk.aws, &desk.broker, &request).unwrap();
    let shown: Json = serde_json::from_slice(&page.body).unwrap();
    assert_eq!(shown["Waiting"], 2);
    let endpoints: Vec<_> = shown["Messages"].as_array().unwrap().iter().map(|of| of["Endpoint"].clone()).collect();
    assert_eq!(endpoints, ["+15551234567", "+15557654321"]);
    let stranger = pages::Request { is_trusted: false, ..request };
    assert!(super::page(&desk.aws, &desk.broker, &stranger).is_none());
}

#[test]
fn a_subscription_ends_with_its_binding_and_is_listed_no_more() {
    let desk = Desk::new();
    let topic = desk.topic("t", json!({}));
    let queue = desk.queue("q");
    let arn = desk.subscribe(&topic, "sqs", "q", json!({}));
    let count = || desk.vhost().exchange("t").unwrap().bindings_count();
    let listed = || {
        let answer = desk.do_it("ListSubscriptionsByTopic", json!({ "TopicArn": topic }));
        answer["Subscriptions"].as_array().unwrap().len()
    };
    assert_eq!((count(), listed()), (1, 1));
    desk.do_it("Unsubscribe", json!({ "SubscriptionArn": arn }));
    desk.do_it("Unsubscribe", json!({ "SubscriptionArn": arn }));
    assert_eq!((count(), listed()), (0, 0));
    desk.publish(&topic, "m");
    assert!(desk.get(&queue).is_none());
}

#[test]
fn who_has_no_permission_may_do_what_the_policy_of_the_topic_allows() {
    let mut desk = Desk::new();
    let topic = desk.topic("t", json!({}));
    desk.user = "stranger";
    let message = json!({"TopicArn": topic, "Message": "m"});
    assert_eq!(desk.try_do("Publish", message.clone()).unwrap_err().status, 403);
    let policy = |effect: &str| {
        let statement = json!({"Effect": effect, "Principal": "*", "Action": "sns:Publish", "Resource": topic});
        json!({"Version": "2012-10-17", "Statement": [statement]}).to_string()
    };
    for (effect, stranger, guest) in [("Allow", true, true), ("Deny", false, false)] {
        desk.user = "guest";
        let set = json!({"TopicArn": topic, "AttributeName": "Policy", "AttributeValue": policy(effect)});
        desk.do_it("SetTopicAttributes", set);
        for (user, may) in [("stranger", stranger), ("guest", guest)] {
            desk.user = user;
            assert_eq!(desk.try_do("Publish", message.clone()).is_ok(), may, "{effect} {user}");
        }
    }
}
