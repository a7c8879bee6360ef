//! Calls and their answers on a broker without sockets.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use serde_json::{Value as Json, json};

use crate::{
    aws::{
        Aws,
        call::{Call, Caller, Input, Service, Step, Wire},
        dispatch::dispatch,
        error::Error,
    },
    broker::{
        Broker, Options,
        access::Permissions,
        connections::{ChannelStatus, ConnectionHandle, Traffic},
        message::{Message, Traits},
        time::Time,
        turn::Turn,
        value::{Table, Value},
        vhost::Vhost,
    },
    protocol::amqp::properties,
};

/// Counts how often it is told.
#[derive(Default)]
struct Told(AtomicUsize);

impl ConnectionHandle for Told {
    fn close(&self, _: &str) {}

    fn channels(&self) -> Vec<ChannelStatus> {
        Vec::new()
    }

    fn traffic(&self) -> Traffic {
        Traffic::default()
    }

    fn alarm_changed(&self) {}

    fn proceed(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Desk {
    broker: Broker,
    aws: Arc<Aws>,
    now: Time,
    told: Arc<Told>,
    user: &'static str,
}

impl Desk {
    fn new() -> Self {
        let broker = Broker::new(Options::default(), Time(1_000_000_000)).unwrap();
        broker.add_vhost("/", Default::default());
        for user in ["guest", "stranger"] {
            drop(broker.access.add(user, "secret"));
        }
        broker.access.set_permissions("guest", "/", Permissions::all()).unwrap();
        broker.attach_fields(Arc::new(crate::protocol::jms::JmsFields));
        Self { broker, aws: Arc::default(), now: Time(1_000_000_000), told: Arc::default(), user: "guest" }
    }

    fn call(&self, operation: &str, input: Json) -> Call {
        let waiter: Weak<Told> = Arc::downgrade(&self.told);
        Call {
            aws: self.aws.clone(),
            service: Service::Sqs,
            operation: Service::Sqs.model().operation(operation).unwrap(),
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
        }
    }

    fn step(&self, call: &mut Call) -> Result<Step, Error> {
        dispatch(call, &mut Turn::new(&self.broker, self.now))
    }

    fn try_do(&self, operation: &str, input: Json) -> Result<Json, Error> {
        match self.step(&mut self.call(operation, input))? {
            Step::Done(reply) if reply.body.is_empty() => Ok(Json::Null),
            Step::Done(reply) => Ok(serde_json::from_slice(&reply.body).unwrap()),
            Step::Wait { .. } => Ok(json!("waits")),
        }
    }

    #[track_caller]
    fn done(&self, operation: &str, input: Json) -> Json {
        self.try_do(operation, input).unwrap()
    }

    #[track_caller]
    fn refusal(&self, operation: &str, input: Json) -> String {
        self.try_do(operation, input).unwrap_err().message
    }

    fn queue(&self, name: &str, attributes: Json) -> String {
        let answer = self.done("CreateQueue", json!({"QueueName": name, "Attributes": attributes}));
        answer["QueueUrl"].as_str().unwrap().to_owned()
    }

    fn send(&self, url: &str, body: &str) -> Json {
        self.done("SendMessage", json!({"QueueUrl": url, "MessageBody": body}))
    }

    fn receive(&self, url: &str) -> Vec<Json> {
        let names = json!(["All"]);
        let input = json!({
            "QueueUrl": url, "MaxNumberOfMessages": 10, "AttributeNames": names, "MessageAttributeNames": names,
        });
        self.done("ReceiveMessage", input)["Messages"].as_array().cloned().unwrap_or_default()
    }

    fn bodies(&self, url: &str) -> Vec<String> {
        self.receive(url).iter().map(|message| message["Body"].as_str().unwrap().to_owned()).collect()
    }

    fn attribute(&self, url: &str, name: &str) -> Json {
        let input = json!({"QueueUrl": url, "AttributeNames": [name]});
        self.done("GetQueueAttributes", input)["Attributes"][name].clone()
    }

    fn later(&mut self, secs: u64) {
        self.now = self.now.after_ms(secs * 1_000);
        self.broker.tick(self.now);
    }

    fn vhost(&self) -> Arc<Vhost> {
        self.broker.vhost("/").unwrap()
    }

    /// As an AMQP client publishes.
    fn publish(&self, queue: &str, headers: Table, body: &[u8]) {
        let raw = properties::Properties { headers: Some(headers), ..Default::default() }.encode();
        let at = properties::scan(&raw).unwrap().headers;
        let mut message = Message::build("", queue.as_bytes(), &raw, at, body);
        message.traits = Traits { persistent: true, ..Traits::default() };
        let mut turn = Turn::new(&self.broker, self.now);
        self.vhost().queue(queue).unwrap().publish(std::iter::once(message), &mut turn, &mut Vec::new());
    }
}

fn handle(message: &Json) -> String {
    message["ReceiptHandle"].as_str().unwrap().to_owned()
}

#[test]
fn a_message_is_sent_received_and_deleted() {
    let desk = Desk::new();
    let url = desk.queue("q", json!({}));
    assert_eq!(url, "http://here/000000000000/q");
    let sent = desk.send(&url, "message");
    assert_eq!(sent["MD5OfMessageBody"], "78e731027d8fd50ed642340b7c9a63b3");
    let received = desk.receive(&url);
    let [message] = &received[..] else { panic!("{received:?}") };
    assert_eq!((&message["MessageId"], &message["Body"]), (&sent["MessageId"], &json!("message")));
    let attributes = &message["Attributes"];
    assert_eq!((&attributes["ApproximateReceiveCount"], &attributes["SenderId"]), (&json!("1"), &json!("guest")));
    assert_eq!(attributes["SentTimestamp"], desk.now.0.to_string());
    assert!(desk.receive(&url).is_empty(), "nobody else gets it");
    desk.done("DeleteMessage", json!({"QueueUrl": url, "ReceiptHandle": handle(message)}));
    desk.done("DeleteMessage", json!({"QueueUrl": url, "ReceiptHandle": handle(message)}));
    assert_eq!(desk.attribute(&url, "ApproximateNumberOfMessagesNotVisible"), "0");
}

#[test]
fn a_message_is_visible_again_after_its_time() {
    let mut desk = Desk::new();
    let url = desk.queue("q", json!({"VisibilityTimeout": "5"}));
    desk.send(&url, "a");
    let first = desk.receive(&url);
    desk.later(4);
    assert!(desk.receive(&url).is_empty());
    desk.later(2);
    let second = desk.receive(&url);
    assert_eq!(second[0]["Attributes"]["ApproximateReceiveCount"], "2");
    assert_ne!(handle(&first[0]), handle(&second[0]));
    let input = json!({"QueueUrl": url, "ReceiptHandle": handle(&second[0]), "VisibilityTimeout": 0});
    desk.done("ChangeMessageVisibility", input);
    assert_eq!(desk.bodies(&url), ["a"]);
}

#[test]
fn a_receiver_waits_and_is_told() {
    let mut desk = Desk::new();
    let url = desk.queue("q", json!({}));
    let mut call = desk.call("ReceiveMessage", json!({"QueueUrl": url, "WaitTimeSeconds": 20}));
    let Step::Wait { until } = desk.step(&mut call).unwrap() else { panic!("there is nothing") };
    assert_eq!(until, desk.now.after_ms(20_000));
    assert_eq!(desk.told.0.load(Ordering::Relaxed), 0);
    desk.send(&url, "a");
    assert_eq!(desk.told.0.load(Ordering::Relaxed), 1);
    let Step::Done(reply) = desk.step(&mut call).unwrap() else { panic!("it has come") };
    assert!(String::from_utf8(reply.body).unwrap().contains("\"Body\":\"a\""));
    let mut call = desk.call("ReceiveMessage", json!({"QueueUrl": url, "WaitTimeSeconds": 1}));
    assert!(matches!(desk.step(&mut call), Ok(Step::Wait { .. })));
    desk.later(1);
    let Ok(Step::Done(reply)) = desk.step(&mut call) else { panic!("its time is over") };
    assert_eq!(reply.body, b"{}");
}

#[test]
fn a_delayed_message_comes_later() {
    let mut desk = Desk::new();
    let url = desk.queue("q", json!({"DelaySeconds": "10"}));
    desk.send(&url, "later");
    desk.done("SendMessage", json!({"QueueUrl": url, "MessageBody": "now", "DelaySeconds": 0}));
    assert_eq!(desk.bodies(&url), ["now"]);
    assert_eq!(desk.attribute(&url, "ApproximateNumberOfMessagesDelayed"), "1");
    desk.later(10);
    assert_eq!(desk.bodies(&url), ["later"]);
}

#[test]
fn groups_are_received_in_order_and_one_call_at_a_time() {
    let desk = Desk::new();
    let url = desk.queue("q.fifo", json!({"FifoQueue": "true"}));
    let entries: Vec<_> = [("a", "1"), ("a", "2"), ("b", "3"), ("a", "4")]
        .iter()
        .map(|(group, body)| {
            json!({"Id": body, "MessageBody": body, "MessageGroupId": group, "MessageDeduplicationId": body})
        })
        .collect();
    let sent = desk.done("SendMessageBatch", json!({"QueueUrl": url, "Entries": entries}));
    let numbers: Vec<_> =
        sent["Successful"].as_array().unwrap().iter().map(|one| one["SequenceNumber"].as_str()).collect();
    assert!(numbers.is_sorted() && numbers.len() == 4);
    let first = desk.done("ReceiveMessage", json!({"QueueUrl": url, "MaxNumberOfMessages": 2}));
    let first = first["Messages"].as_array().unwrap();
    assert_eq!([&first[0]["Body"], &first[1]["Body"]], [&json!("1"), &json!("2")]);
    assert_eq!(desk.bodies(&url), ["3"], "the rest of group a waits");
    let entries: Vec<_> =
        first.iter().map(|message| json!({"Id": message["Body"], "ReceiptHandle": handle(message)})).collect();
    let deleted = desk.done("DeleteMessageBatch", json!({"QueueUrl": url, "Entries": entries}));
    assert_eq!(deleted["Successful"].as_array().unwrap().len(), 2);
    assert_eq!(desk.bodies(&url), ["4"]);
}

#[test]
fn a_repetition_is_told_what_the_first_was_and_not_delivered() {
    let mut desk = Desk::new();
    let url = desk.queue("q.fifo", json!({"FifoQueue": "true", "ContentBasedDeduplication": "true"}));
    let send =
        |desk: &Desk| desk.done("SendMessage", json!({"QueueUrl": url, "MessageBody": "x", "MessageGroupId": "g"}));
    let first = send(&desk);
    assert_eq!(send(&desk), first);
    assert_eq!(desk.bodies(&url), ["x"]);
    desk.later(301);
    assert_ne!(send(&desk)["MessageId"], first["MessageId"]);
}

#[test]
fn what_fails_too_often_goes_to_the_dead_queue() {
    let mut desk = Desk::new();
    let dead = desk.queue("dead", json!({}));
    let arn = desk.attribute(&dead, "QueueArn");
    let policy = json!({"deadLetterTargetArn": arn, "maxReceiveCount": 2}).to_string();
    let url = desk.queue("q", json!({"RedrivePolicy": policy, "VisibilityTimeout": "1"}));
    let sent = desk.send(&url, "a");
    for _ in 0..2 {
        assert_eq!(desk.bodies(&url), ["a"]);
        desk.later(2);
    }
    assert!(desk.receive(&url).is_empty());
    let received = desk.receive(&dead);
    assert_eq!(received[0]["MessageId"], sent["MessageId"]);
    let attributes = &received[0]["Attributes"];
    assert_eq!(attributes["DeadLetterQueueSourceArn"], "arn:aws:sqs:eu-west-1:000000000000:q");
    assert_eq!(attributes["ApproximateReceiveCount"], "3");
    let sources = desk.done("ListDeadLetterSourceQueues", json!({"QueueUrl": dead}));
    assert_eq!(sources["queueUrls"], json!([url]));
}

#[test]
fn what_is_moved_back_and_fails_again_is_in_the_dead_queue_again() {
    let mut desk = Desk::new();
    let fifo = |more: Json| {
        let mut attributes =
            json!({"FifoQueue": "true", "ContentBasedDeduplication": "true", "VisibilityTimeout": "1"});
        attributes.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        attributes
    };
    let dead = desk.queue("dead.fifo", fifo(json!({})));
    let arn = desk.attribute(&dead, "QueueArn");
    let policy = json!({"deadLetterTargetArn": arn, "maxReceiveCount": 1}).to_string();
    let url = desk.queue("q.fifo", fifo(json!({"RedrivePolicy": policy})));
    desk.done("SendMessage", json!({"QueueUrl": url, "MessageBody": "a", "MessageGroupId": "g"}));
    for round in 0..2 {
        assert_eq!(desk.bodies(&url), ["a"], "round {round}");
        desk.later(2);
        assert_eq!(desk.attribute(&dead, "ApproximateNumberOfMessages"), "1", "round {round}");
        let started = desk.done("StartMessageMoveTask", json!({"SourceArn": arn}));
        assert!(started["TaskHandle"].is_string());
        (0..3).for_each(|_| desk.later(1));
        let listed = desk.done("ListMessageMoveTasks", json!({"SourceArn": arn}));
        assert_eq!(listed["Results"][0]["Status"], "COMPLETED", "{listed}");
    }
}

#[test]
fn a_dead_queue_may_choose_its_sources() {
    let desk = Desk::new();
    let dead = desk.queue("dead", json!({"RedriveAllowPolicy": r#"{"redrivePermission":"denyAll"}"#}));
    let arn = desk.attribute(&dead, "QueueArn");
    let policy = json!({"deadLetterTargetArn": arn, "maxReceiveCount": 2}).to_string();
    let create = json!({"QueueName": "q", "Attributes": {"RedrivePolicy": policy}});
    assert!(desk.refusal("CreateQueue", create.clone()).contains("does not have permission"));
    let allow = r#"{"redrivePermission":"byQueue","sourceQueueArns":["arn:aws:sqs:us-east-1:000000000000:q"]}"#;
    let input = json!({"QueueUrl": dead, "Attributes": {"RedriveAllowPolicy": allow}});
    desk.done("SetQueueAttributes", input);
    desk.done("CreateQueue", create);
}

#[test]
fn messages_of_other_publishers_are_received() {
    let desk = Desk::new();
    let url = desk.queue("q", json!({}));
    desk.publish("q", Table::from_iter([("n", Value::I32(7)), ("s", Value::text("t"))]), b"plain");
    desk.publish("q", Table::new(), b"\xff\x00");
    let received = desk.receive(&url);
    let attributes = json!({
        "n": {"DataType": "Number", "StringValue": "7"}, "s": {"DataType": "String", "StringValue": "t"},
    });
    assert_eq!((&received[0]["Body"], &received[0]["MessageAttributes"]), (&json!("plain"), &attributes));
    assert_eq!(received[1]["Body"], "/wA=");
    assert_eq!(received[1]["MessageAttributes"]["tern.encoding"]["StringValue"], "base64");
    assert_eq!(received[0]["MessageId"].as_str().unwrap().len(), 36);
}

#[test]
fn what_is_too_long_for_a_receiver_is_left_and_counted() {
    let desk = Desk::new();
    let url = desk.queue("q", json!({}));
    desk.publish("q", Table::new(), &vec![b'a'; (1 << 20) + 1]);
    desk.publish("q", Table::new(), b"short");
    assert_eq!(desk.bodies(&url), ["short"]);
    assert_eq!(desk.aws.sqs.oversized(), 1);
    assert_eq!(desk.vhost().queue("q").unwrap().status().unsettled, 2);
}

#[test]
fn a_batch_fails_in_parts() {
    let desk = Desk::new();
    let url = desk.queue("q", json!({}));
    let entries = json!([
        {"Id": "good", "MessageBody": "a"},
        {"Id": "bad", "MessageBody": "\u{1}"},
        {"Id": "late", "MessageBody": "a", "DelaySeconds": 901},
    ]);
    let answer = desk.done("SendMessageBatch", json!({"QueueUrl": url, "Entries": entries}));
    assert_eq!(answer["Successful"][0]["Id"], "good");
    assert_eq!(answer["Failed"][0]["Code"], "InvalidMessageContents");
    assert_eq!(answer["Failed"][1]["Code"], "InvalidParameterValue");
    let received = desk.receive(&url);
    let entries = json!([{"Id": "a", "ReceiptHandle": handle(&received[0])}, {"Id": "b", "ReceiptHandle": "garbage"}]);
    let answer = desk.done("DeleteMessageBatch", json!({"QueueUrl": url, "Entries": entries}));
    assert_eq!(answer["Successful"], json!([{"Id": "a"}]));
    assert_eq!(answer["Failed"][0]["Code"], "ReceiptHandleIsInvalid");
}

#[test]
fn a_receipt_of_another_queue_is_refused() {
    let desk = Desk::new();
    let (one, other) = (desk.queue("one", json!({})), desk.queue("other", json!({})));
    desk.send(&one, "a");
    let received = desk.receive(&one);
    let input = json!({"QueueUrl": other, "ReceiptHandle": handle(&received[0])});
    assert_eq!(&*desk.try_do("DeleteMessage", input).unwrap_err().code, "ReceiptHandleIsInvalid");
}

#[test]
fn an_access_policy_lets_others_in_and_keeps_them_out() {
    let mut desk = Desk::new();
    let url = desk.queue("q", json!({}));
    desk.user = "stranger";
    let send = json!({"QueueUrl": url, "MessageBody": "a"});
    assert_eq!(desk.try_do("SendMessage", send.clone()).unwrap_err().status, 403);
    desk.user = "guest";
    let input = json!({"QueueUrl": url, "Label": "l", "AWSAccountIds": ["000000000000"], "Actions": ["SendMessage"]});
    desk.done("AddPermission", input);
    desk.user = "stranger";
    desk.done("SendMessage", send.clone());
    assert_eq!(desk.try_do("ReceiveMessage", json!({"QueueUrl": url})).unwrap_err().status, 403);
    desk.user = "guest";
    desk.done("RemovePermission", json!({"QueueUrl": url, "Label": "l"}));
    desk.user = "stranger";
    assert_eq!(desk.try_do("SendMessage", send).unwrap_err().status, 403);
}

#[test]
fn who_has_not_signed_may_do_what_the_policy_of_the_queue_lets_everybody_do() {
    let mut desk = Desk::new();
    let url = desk.queue("q", json!({}));
    let send = json!({"QueueUrl": url, "MessageBody": "a"});
    let set = |desk: &mut Desk, statements: Json| {
        desk.user = "guest";
        let policy = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
        desk.done("SetQueueAttributes", json!({"QueueUrl": url, "Attributes": {"Policy": policy}}));
        desk.user = "";
    };
    let refused = |desk: &Desk, operation, input| {
        let error = desk.try_do(operation, input).unwrap_err();
        assert_eq!((&*error.query_code, error.status), ("AccessDenied", 403), "{operation}");
    };
    desk.user = "";
    refused(&desk, "SendMessage", send.clone());
    let elsewhere = "http://here/000000000000/none";
    refused(&desk, "SendMessage", json!({"QueueUrl": elsewhere, "MessageBody": "a"}));
    refused(&desk, "GetQueueUrl", json!({"QueueName": "none"}));
    let account = json!({"Effect": "Allow", "Principal": {"AWS": "000000000000"}, "Action": "sqs:*"});
    set(&mut desk, account);
    refused(&desk, "SendMessage", send.clone());
    for principal in [json!("*"), json!({"AWS": "*"}), json!({"AWS": ["*"]})] {
        set(&mut desk, json!({"Effect": "Allow", "Principal": principal, "Action": "sqs:SendMessage"}));
        desk.done("SendMessage", send.clone());
        let entries = json!([{"Id": "1", "MessageBody": "a"}]);
        desk.done("SendMessageBatch", json!({"QueueUrl": url, "Entries": entries}));
        refused(&desk, "ReceiveMessage", json!({"QueueUrl": url}));
    }
    let open = json!({"Effect": "Allow", "Principal": "*", "Action": "sqs:*"});
    set(&mut desk, open.clone());
    let received = desk.receive(&url);
    assert_eq!(received[0]["Attributes"]["SenderId"], "anonymous");
    desk.done("DeleteMessage", json!({"QueueUrl": url, "ReceiptHandle": handle(&received[0])}));
    let closed = json!({
        "Effect": "Deny", "Principal": "*", "Action": "sqs:SendMessage",
        "Condition": {"StringEquals": {"aws:PrincipalType": "Anonymous"}},
    });
    set(&mut desk, json!([open, closed]));
    refused(&desk, "SendMessage", send.clone());
    desk.receive(&url);
    desk.user = "guest";
    desk.done("SendMessage", send);
}

#[test]
fn tags_have_bounds() {
    let desk = Desk::new();
    let url = desk.queue("q", json!({}));
    let tag = |tags: Json| desk.try_do("TagQueue", json!({"QueueUrl": url, "Tags": tags}));
    tag(json!({"x".repeat(128): "y".repeat(256), "\u{e4}": ""})).unwrap();
    for (tags, code) in [
        (json!({}), "MissingParameter"),
        (json!({"": "x"}), "InvalidParameterValue"),
        (json!({"x".repeat(129): "x"}), "InvalidParameterValue"),
        (json!({"a": "x".repeat(257)}), "InvalidParameterValue"),
        (json!({"AWS:a": "x"}), "InvalidParameterValue"),
        (
            (0..49).map(|n| (format!("t{n}"), json!("x"))).collect::<serde_json::Map<_, _>>().into(),
            "InvalidParameterValue",
        ),
    ] {
        assert_eq!(&*tag(tags.clone()).unwrap_err().query_code, code, "{tags}");
    }
    assert_eq!(desk.done("ListQueueTags", json!({"QueueUrl": url}))["Tags"].as_object().unwrap().len(), 2);
    tag((0..48).map(|n| (format!("t{n}"), json!("x"))).collect::<serde_json::Map<_, _>>().into()).unwrap();
}

#[test]
fn permissions_have_bounds() {
    let desk = Desk::new();
    let url = desk.queue("q", json!({}));
    let add = |label: &str, accounts: usize, actions: &[&str]| {
        let accounts: Vec<_> = (0..accounts).map(|n| format!("{n:012}")).collect();
        let input = json!({"QueueUrl": url, "Label": label, "AWSAccountIds": accounts, "Actions": actions});
        desk.try_do("AddPermission", input).map_err(|error| error.query_code.into_owned())
    };
    for (label, accounts, actions, code) in [
        ("", 1, &["SendMessage"][..], "InvalidParameterValue"),
        ("a b", 1, &["SendMessage"], "InvalidParameterValue"),
        (&*"x".repeat(81), 1, &["SendMessage"], "InvalidParameterValue"),
        ("a", 0, &["SendMessage"], "MissingParameter"),
        ("a", 1, &[], "MissingParameter"),
        ("a", 1, &["DeleteQueue"], "InvalidParameterValue"),
        ("a", 1, &["SendMessage"; 8], "OverLimit"),
        ("a", 51, &["SendMessage"], "OverLimit"),
    ] {
        assert_eq!(add(label, accounts, actions).unwrap_err(), code, "{label} {accounts} {actions:?}");
    }
    (0..20).for_each(|n| drop(add(&format!("l{n}"), 2, &["SendMessage"]).unwrap()));
    assert_eq!(add("one-more", 1, &["SendMessage"]).unwrap_err(), "OverLimit");
    let long = json!({"Statement": {"Effect": "Allow", "Principal": "*", "Action": "sqs:*", "Sid": "x".repeat(8_192)}});
    let set = json!({"QueueUrl": url, "Attributes": {"Policy": long.to_string()}});
    assert_eq!(desk.refusal("SetQueueAttributes", set), "Invalid value for the parameter Policy.");
}

#[test]
fn bodies_have_legal_characters_and_lengths() {
    let desk = Desk::new();
    let url = desk.queue("q", json!({"MaximumMessageSize": "1024"}));
    let send = |body: &str| {
        let sent = desk.try_do("SendMessage", json!({"QueueUrl": url, "MessageBody": body}));
        sent.map_err(|error| error.query_code.into_owned())
    };
    for body in ["\t\n\r \u{d7ff}\u{e000}\u{fffd}\u{10000}\u{10ffff}", &"x".repeat(1_024)] {
        send(body).unwrap();
    }
    for character in ["\0", "\u{8}", "\u{b}", "\u{c}", "\u{e}", "\u{1f}", "\u{fffe}", "\u{ffff}"] {
        assert_eq!(send(&format!("a{character}")).unwrap_err(), "InvalidMessageContents", "{character:?}");
    }
    assert_eq!(send("").unwrap_err(), "MissingParameter");
    assert_eq!(send(&"x".repeat(1_025)).unwrap_err(), "InvalidParameterValue");
    // Names, types and values of attributes count.
    let attribute = json!({"name": {"DataType": "String", "StringValue": "value"}});
    let with = |bytes: usize| {
        let body = "x".repeat(bytes);
        desk.try_do("SendMessage", json!({"QueueUrl": url, "MessageBody": body, "MessageAttributes": attribute}))
    };
    with(1_024 - 15).unwrap();
    assert!(with(1_024 - 14).is_err());
    let numbers = json!({"QueueUrl": url, "MessageBody": "a", "DelaySeconds": 901});
    assert!(desk.refusal("SendMessage", numbers).contains("DelaySeconds must be >= 0 and <= 900."));
}

#[test]
fn entries_of_a_batch_fail_each_for_itself() {
    let desk = Desk::new();
    let url = desk.queue("q", json!({"MaximumMessageSize": "1024"}));
    let entries = json!([
        {"Id": "good", "MessageBody": "a"},
        {"Id": "none", "MessageBody": ""},
        {"Id": "long", "MessageBody": "x".repeat(1_025)},
        {"Id": "late", "MessageBody": "a", "DelaySeconds": -1},
        {"Id": "group", "MessageBody": "a", "MessageGroupId": "a b"},
        {"Id": "dedup", "MessageBody": "a", "MessageDeduplicationId": "a"},
        {"Id": "bytes", "MessageBody": "\u{1}"},
    ]);
    let answer = desk.done("SendMessageBatch", json!({"QueueUrl": url, "Entries": entries}));
    let ids = |of: &str| {
        let all = answer[of].as_array().unwrap();
        all.iter().map(|one| one["Id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids("Successful"), ["good"]);
    assert_eq!(ids("Failed"), ["none", "long", "late", "group", "dedup", "bytes"]);
    assert!(answer["Failed"].as_array().unwrap().iter().all(|failed| failed["SenderFault"] == true));
    let url = desk.queue("whole", json!({}));
    let half = "x".repeat(600_000);
    let entries = json!([{"Id": "a", "MessageBody": half}, {"Id": "b", "MessageBody": half}]);
    let error = desk.try_do("SendMessageBatch", json!({"QueueUrl": url, "Entries": entries})).unwrap_err();
    assert_eq!(&*error.query_code, "AWS.SimpleQueueService.BatchRequestTooLong");
}

#[test]
fn attributes_out_of_bounds_are_refused_and_change_nothing() {
    let desk = Desk::new();
    let url = desk.queue("q", json!({}));
    for (name, value) in [
        ("VisibilityTimeout", "43201"),
        ("DelaySeconds", "-1"),
        ("MessageRetentionPeriod", "59"),
        ("MaximumMessageSize", "1023"),
        ("ReceiveMessageWaitTimeSeconds", "x"),
        ("KmsDataKeyReusePeriodSeconds", "59"),
        ("Policy", "[]"),
    ] {
        let input = json!({"QueueUrl": url, "Attributes": {"DelaySeconds": "7", name: value}});
        assert_eq!(desk.refusal("SetQueueAttributes", input), format!("Invalid value for the parameter {name}."));
    }
    let input = json!({"QueueUrl": url, "Attributes": {"QueueArn": "x"}});
    assert_eq!(desk.refusal("SetQueueAttributes", input), "Unknown Attribute QueueArn.");
    assert_eq!(desk.attribute(&url, "DelaySeconds"), "0");
}

#[test]
fn queues_of_other_protocols_are_found_and_listed() {
    let desk = Desk::new();
    for name in ["plain", "with.dots", "tern.sns.hidden"] {
        let wanted = crate::broker::topology::DeclareQueue { name, durable: true, ..Default::default() };
        desk.vhost().declare_queue(&wanted, None, &mut Turn::new(&desk.broker, desk.now)).unwrap();
    }
    let listed = desk.done("ListQueues", json!({}));
    assert_eq!(listed["QueueUrls"], json!(["http://here/000000000000/plain", "http://here/000000000000/with.dots"]));
    let url = desk.done("GetQueueUrl", json!({"QueueName": "with.dots"}))["QueueUrl"].as_str().unwrap().to_owned();
    desk.send(&url, "a");
    assert_eq!(desk.bodies(&url), ["a"]);
    assert_eq!(desk.attribute(&url, "VisibilityTimeout"), "30");
}

#[test]
fn messages_of_a_quiet_group_are_received_before_the_backlog_of_a_busy_one() {
    let mut desk = Desk::new();
    let url = desk.queue("q", json!({"VisibilityTimeout": "30"}));
    let send = |desk: &Desk, group: Option<&str>, body: &str| {
        desk.done("SendMessage", json!({"QueueUrl": url, "MessageBody": body, "MessageGroupId": group}));
    };
    (0..30).for_each(|_| send(&desk, Some("busy"), "busy"));
    assert_eq!(desk.bodies(&url).len(), 10);
    send(&desk, Some("quiet"), "quiet");
    send(&desk, None, "nobody's");
    let next = desk.bodies(&url);
    assert_eq!(next.iter().take(2).collect::<Vec<_>>(), ["quiet", "nobody's"]);
    assert!(next[2..].iter().all(|body| body == "busy"));
    desk.later(31);
    send(&desk, Some("late"), "late");
    // Nothing is in flight any more: all groups are alike.
    assert_eq!(desk.bodies(&url).len(), 10);
    assert_eq!(desk.bodies(&url).len(), 10);
    assert_eq!(desk.bodies(&url).len(), 10);
    assert_eq!(desk.bodies(&url).len(), 3);
}

#[test]
fn a_purge_takes_all_messages() {
    let desk = Desk::new();
    let url = desk.queue("q", json!({}));
    desk.send(&url, "received");
    desk.receive(&url);
    desk.send(&url, "ready");
    desk.done("SendMessage", json!({"QueueUrl": url, "MessageBody": "later", "DelaySeconds": 900}));
    desk.done("PurgeQueue", json!({"QueueUrl": url}));
    for name in ["", "NotVisible", "Delayed"] {
        assert_eq!(desk.attribute(&url, &format!("ApproximateNumberOfMessages{name}")), "0");
    }
    assert!(desk.refusal("PurgeQueue", json!({"QueueUrl": url})).contains("every 60 seconds"));
}

#[test]
fn a_deleted_queue_is_gone() {
    let desk = Desk::new();
    let url = desk.queue("q", json!({}));
    desk.done("DeleteQueue", json!({"QueueUrl": url}));
    assert_eq!(
        desk.refusal("SendMessage", json!({"QueueUrl": url, "MessageBody": "a"})),
        "The specified queue does not exist."
    );
    desk.queue("q", json!({}));
}
