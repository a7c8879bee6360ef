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
        self.try_call(Service::Sns, operation, input)
    }

    fn try_call(&self, service: Service, operation: &str, input: Json) -> Result<Json, Error> {
        let waiter: Weak<Nobody> = Weak::new();
        let mut call = Call {
            aws: self.aws.clone(),
            service,
            operation: service.model().operation(operation).unwrap(),
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

    /// Gives a queue an access policy, or takes it away.
    fn set_policy(&self, queue: &str, statements: &Json) {
        let policy = match statements.is_null() {
            true => String::new(),
            false => json!({"Version": "2012-10-17", "Statement": statements}).to_string(),
        };
        let url = format!("http://here/000000000000/{queue}");
        let input = json!({"QueueUrl": url, "Attributes": {"Policy": policy}});
        self.try_call(Service::Sqs, "SetQueueAttributes", input).unwrap();
    }

    fn deliveries(&self) -> Json {
        let request = pages::Request {
            method: "GET",
            path: "sns/deliveries",
            query: "",
            is_trusted: true,
            base_url: "http://here",
            now: self.now,
        };
        let page = pages::page(&self.aws, &self.broker, &request).unwrap();
        serde_json::from_slice::<Json>(&page.body).unwrap()["Deliveries"].clone()
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

#[test]
fn who_has_not_signed_may_do_what_the_policy_of_the_topic_lets_everybody_do() {
    let mut desk = Desk::new();
    let (topic, queue) = (desk.topic("t", json!({})), desk.queue("q"));
    desk.subscribe(&topic, "sqs", "q", json!({}));
    let message = json!({"TopicArn": topic, "Message": "m"});
    desk.user = "";
    let refused = |desk: &Desk, operation, input| {
        let error = desk.try_do(operation, input).unwrap_err();
        assert_eq!((&*error.query_code, error.status), ("MissingAuthenticationToken", 403), "{operation}");
    };
    refused(&desk, "Publish", message.clone());
    refused(&desk, "Publish", json!({"TopicArn": format!("{topic}-none"), "Message": "m"}));
    desk.user = "guest";
    let statement = json!({"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sns:Publish", "Resource": topic});
    let policy = json!({"Version": "2012-10-17", "Statement": statement}).to_string();
    desk.do_it("SetTopicAttributes", json!({"TopicArn": topic, "AttributeName": "Policy", "AttributeValue": policy}));
    desk.user = "";
    desk.do_it("Publish", message);
    assert!(desk.get(&queue).is_some());
    refused(&desk, "ListSubscriptionsByTopic", json!({"TopicArn": topic}));
}

#[test]
fn the_statement_that_every_topic_has_gives_users_no_more_than_their_permissions() {
    let mut desk = Desk::new();
    let topic = desk.topic("t", json!({}));
    let other = json!({"TopicArn": topic, "Label": "l", "AWSAccountId": ["111111111111"], "ActionName": ["Publish"]});
    desk.do_it("AddPermission", other);
    desk.do_it("Publish", json!({"TopicArn": topic, "Message": "m"}));
    for user in ["stranger", ""] {
        desk.user = user;
        assert_eq!(desk.try_do("Publish", json!({"TopicArn": topic, "Message": "m"})).unwrap_err().status, 403);
    }
}

#[test]
fn a_link_ends_a_subscription_unless_its_owner_is_to_be_asked() {
    let mut desk = Desk::new();
    let topic = desk.topic("t", json!({}));
    let confirmed = |desk: &Desk, url: &str, wants_owner: &str| {
        desk.subscribe(&topic, "https", url, json!({}));
        let all = super::subscription::Subscription::list(&desk.broker, "/", Some("t"), "", usize::MAX);
        let token = all.into_iter().find(|(_, of)| of.endpoint == url).unwrap().1.token;
        let input = json!({"TopicArn": topic, "Token": token, "AuthenticateOnUnsubscribe": wants_owner});
        desk.do_it("ConfirmSubscription", input)["SubscriptionArn"].clone()
    };
    desk.user = "guest";
    let (free, bound) = (confirmed(&desk, "https://a/", "false"), confirmed(&desk, "https://b/", "true"));
    let to_queue = {
        desk.queue("q");
        desk.subscribe(&topic, "sqs", "q", json!({}))
    };
    desk.user = "";
    desk.do_it("Unsubscribe", json!({ "SubscriptionArn": free }));
    for arn in [bound, to_queue.into()] {
        assert_eq!(desk.try_do("Unsubscribe", json!({ "SubscriptionArn": arn })).unwrap_err().status, 403);
    }
}

#[test]
fn a_queue_with_a_policy_takes_what_the_policy_lets_the_topic_send() {
    let desk = Desk::new();
    let topic = desk.topic("t", json!({}));
    let queue = desk.queue("q");
    let arn = desk.subscribe(&topic, "sqs", "q", json!({"RawMessageDelivery": "true"}));
    let from = |source: &str| {
        json!({
            "Effect": "Allow", "Principal": {"Service": "sns.amazonaws.com"}, "Action": "sqs:SendMessage",
            "Resource": "arn:aws:sqs:eu-west-1:000000000000:q",
            "Condition": {"ArnEquals": {"aws:SourceArn": source}},
        })
    };
    let account = json!({"Effect": "Allow", "Principal": {"AWS": "000000000000"}, "Action": "sqs:*"});
    let older = json!({
        "Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "SQS:SendMessage",
        "Condition": {"ArnLike": {"aws:SourceArn": "arn:aws:sns:*:*:t"}},
    });
    let deny = json!({"Effect": "Deny", "Principal": "*", "Action": "sqs:SendMessage"});
    for (statements, is_taken) in [
        (Json::Null, true),
        (from(&topic), true),
        (from(&format!("{topic}-other")), false),
        (older, true),
        (account.clone(), false),
        (json!([account, from(&topic)]), true),
        (json!([from(&topic), deny]), false),
        (Json::Null, true),
    ] {
        desk.set_policy("q", &statements);
        desk.publish(&topic, "m");
        assert_eq!(desk.text(&queue), if is_taken { "m" } else { "" }, "{statements}");
        let told = desk.deliveries();
        assert_eq!(told[0]["SubscriptionArn"] == *arn, !is_taken, "{told}");
    }
}

#[test]
fn what_a_queue_refuses_goes_to_the_dead_letter_queue_of_its_subscription() {
    let desk = Desk::new();
    let topic = desk.topic("t", json!({}));
    let (queue, dead) = (desk.queue("q"), desk.queue("dead"));
    let refusing = json!({"Effect": "Allow", "Principal": {"AWS": "111111111111"}, "Action": "sqs:SendMessage"});
    desk.set_policy("q", &refusing);
    let redrive = json!({"deadLetterTargetArn": "arn:aws:sqs:eu-west-1:000000000000:dead"}).to_string();
    desk.subscribe(&topic, "sqs", "q", json!({"RedrivePolicy": redrive, "RawMessageDelivery": "true"}));
    desk.publish(&topic, "refused");
    assert_eq!((desk.text(&queue), desk.text(&dead)), (String::new(), "refused".into()));
    assert_eq!(desk.deliveries()[0]["DeadLetterQueue"], "dead");
    desk.set_policy("q", &Json::Null);
    desk.publish(&topic, "taken");
    assert_eq!((desk.text(&queue), desk.text(&dead)), ("taken".into(), String::new()));
}

#[test]
fn who_may_not_send_to_a_queue_cannot_fill_it_by_a_subscription() {
    let mut desk = Desk::new();
    let topic = desk.topic("t", json!({}));
    desk.queue("q");
    desk.broker.access.set_permissions("stranger", "/", Permissions { read: "^t$".into(), ..none() }).unwrap();
    desk.user = "stranger";
    let endpoint = "arn:aws:sqs:eu-west-1:000000000000:q";
    let wanted = json!({"TopicArn": topic, "Protocol": "sqs", "Endpoint": endpoint});
    assert_eq!(desk.try_do("Subscribe", wanted.clone()).unwrap_err().status, 403);
    let redrive = json!({"deadLetterTargetArn": endpoint}).to_string();
    let by_detour = json!({
        "TopicArn": topic, "Protocol": "https", "Endpoint": "https://a/", "Attributes": {"RedrivePolicy": redrive},
    });
    assert_eq!(desk.try_do("Subscribe", by_detour).unwrap_err().status, 403);
    desk.user = "guest";
    desk.set_policy("q", &json!({"Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage"}));
    desk.user = "stranger";
    desk.do_it("Subscribe", wanted);
}

fn none() -> Permissions {
    Permissions { configure: "^$".into(), write: "^$".into(), read: "^$".into() }
}

#[test]
fn a_subscription_is_bound_when_its_queue_comes_whatever_came_in_between() {
    let desk = Desk::new();
    let topic = desk.topic("t", json!({}));
    let first = desk.queue("first");
    desk.subscribe(&topic, "sqs", "first", json!({"RawMessageDelivery": "true"}));
    desk.publish(&topic, "a");
    desk.subscribe(&topic, "sqs", "later", json!({"RawMessageDelivery": "true"}));
    let later = desk.queue("later");
    desk.publish(&topic, "b");
    assert_eq!((desk.text(&first), desk.text(&later)), ("a".into(), "b".into()));
}

#[test]
fn tags_permissions_and_policies_have_bounds() {
    let desk = Desk::new();
    let topic = desk.topic("t", json!({}));
    let tag = |tags: Json| desk.try_do("TagResource", json!({"ResourceArn": topic, "Tags": tags}));
    let many = |from: usize, to: usize| -> Json {
        (from..to).map(|n| json!({"Key": format!("k{n}"), "Value": "v"})).collect::<Vec<_>>().into()
    };
    tag(many(0, 40)).unwrap();
    tag(many(10, 50)).unwrap();
    assert_eq!(&*tag(many(50, 51)).unwrap_err().query_code, "TagLimitExceeded");
    for (key, value) in [("x".repeat(129), String::new()), ("a".into(), "x".repeat(257)), ("aws:a".into(), "".into())] {
        assert_eq!(&*tag(json!([{"Key": key, "Value": value}])).unwrap_err().query_code, "InvalidParameter", "{key}");
    }
    let add = |accounts: Json, actions: Json| {
        let input = json!({"TopicArn": topic, "Label": "l", "AWSAccountId": accounts, "ActionName": actions});
        desk.try_do("AddPermission", input)
    };
    assert!(add(json!([]), json!(["Publish"])).is_err());
    assert!(add(json!(["111111111111"]), json!([])).is_err());
    assert!(add(json!(["111111111111"]), json!(["CreateTopic"])).is_err());
    add(json!(["111111111111"]), json!(["Publish"])).unwrap();
    let set = |policy: &str| {
        let input = json!({"TopicArn": topic, "AttributeName": "Policy", "AttributeValue": policy});
        desk.try_do("SetTopicAttributes", input)
    };
    // What could not be weighed would let everybody do what it denies.
    assert!(set(r#"{"Statement": [{"Effect": "Deny", "Principal": {"AWS": []}, "Action": "sns:*"}]}"#).is_err());
    assert!(set("{}").is_err());
    set("").unwrap();
}

#[test]
fn numbers_of_attributes_are_digits() {
    let desk = Desk::new();
    let topic = desk.topic("t", json!({}));
    let publish = |number: &str| {
        let attributes = json!({"n": {"DataType": "Number", "StringValue": number}});
        desk.try_do("Publish", json!({"TopicArn": topic, "Message": "m", "MessageAttributes": attributes})).is_ok()
    };
    assert!(["1", "-1.5e3", "+7."].into_iter().all(publish));
    assert!(!["inf", "NaN", "1e999", "0x1", " 1"].into_iter().any(publish));
}
