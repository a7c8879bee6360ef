//! Topics of SNS across the end of a process: archives, replays, and what a reset leaves.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::{
    aws::Client,
    broker::{Broker, until},
};

/// Messages of an archive: a replay of them takes longer than a broker takes to be killed.
const ARCHIVED: usize = 1_200;
const GROUPS: usize = 3;

fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// A call of SNS; the text of its answer.
pub(crate) fn call(client: &mut Client, action: &str, parameters: &[(&str, &str)]) -> String {
    let mut form = format!("Action={action}&Version=2010-03-31");
    for (name, value) in parameters {
        form += &format!("&{name}={}", encoded(value));
    }
    let answer = client.form("/", &form);
    assert_eq!(answer.status, 200, "{action}: {}", answer.text());
    answer.text()
}

/// What stands between the first tags of that name.
pub(crate) fn inner(text: &str, tag: &str) -> String {
    let (start, end) = (format!("<{tag}>"), format!("</{tag}>"));
    let from = text.find(&start).unwrap_or_else(|| panic!("{text}")) + start.len();
    text[from..][..text[from..].find(&end).unwrap()].to_owned()
}

fn publish(client: &mut Client, topic: &str, group: &str, message: &str) {
    let parameters =
        [("TopicArn", topic), ("Message", message), ("MessageGroupId", group), ("MessageDeduplicationId", message)];
    call(client, "Publish", &parameters);
}

/// Receives and deletes what there is; envelopes.
fn take(client: &mut Client, url: &str) -> Vec<Value> {
    let received = client.json("ReceiveMessage", &json!({"QueueUrl": url, "MaxNumberOfMessages": 10})).json();
    let messages = received["Messages"].as_array().cloned().unwrap_or_default();
    let entries: Vec<_> = messages
        .iter()
        .enumerate()
        .map(|(n, message)| json!({"Id": n.to_string(), "ReceiptHandle": message["ReceiptHandle"]}))
        .collect();
    if !entries.is_empty() {
        assert_eq!(client.json("DeleteMessageBatch", &json!({"QueueUrl": url, "Entries": entries})).status, 200);
    }
    messages.iter().map(|message| serde_json::from_str(message["Body"].as_str().unwrap()).unwrap()).collect()
}

fn replay_goes_on(settings: &[&str]) {
    let mut broker = Broker::with(settings);
    let mut client = Client::open(&broker);
    let topic = inner(
        &call(
            &mut client,
            "CreateTopic",
            &[
                ("Name", "t.fifo"),
                ("Attributes.entry.1.key", "FifoTopic"),
                ("Attributes.entry.1.value", "true"),
                ("Attributes.entry.2.key", "ArchivePolicy"),
                ("Attributes.entry.2.value", r#"{"MessageRetentionPeriod":"1"}"#),
            ],
        ),
        "TopicArn",
    );
    for n in 0..ARCHIVED {
        publish(&mut client, &topic, &format!("g{}", n % GROUPS), &format!("m{n}"));
    }
    let made = client.json("CreateQueue", &json!({"QueueName": "q.fifo", "Attributes": {"FifoQueue": "true"}})).json();
    let url = made["QueueUrl"].as_str().unwrap().to_owned();
    let policy = json!({"PointType": "Timestamp", "StartingPoint": "2000-01-01T00:00:00.000Z"}).to_string();
    let subscribed = call(
        &mut client,
        "Subscribe",
        &[
            ("TopicArn", &topic),
            ("Protocol", "sqs"),
            ("Endpoint", "arn:aws:sqs:us-east-1:000000000000:q.fifo"),
            ("Attributes.entry.1.key", "ReplayPolicy"),
            ("Attributes.entry.1.value", &policy),
            ("ReturnSubscriptionArn", "true"),
        ],
    );
    let arn = inner(&subscribed, "SubscriptionArn");
    let mut found = Vec::new();
    until("a part was replayed", || {
        found.extend(take(&mut client, &url));
        !found.is_empty()
    });
    broker.crash();
    let mut client = Client::open(&broker);
    let url = url.replace(&url[..url.find("/000").unwrap()], &format!("http://127.0.0.1:{}", broker.port_of("aws")));
    publish(&mut client, &topic, "g0", "live");
    until("everything was replayed", || {
        found.extend(take(&mut client, &url));
        found.len() > ARCHIVED
    });
    assert!(take(&mut client, &url).is_empty(), "more than there was");
    let mut by_group: HashMap<usize, Vec<usize>> = HashMap::new();
    for envelope in found.iter().filter(|envelope| envelope["Message"] != "live") {
        assert_eq!(envelope["Replayed"], true, "{envelope}");
        let n = envelope["Message"].as_str().unwrap()[1..].parse::<usize>().unwrap();
        by_group.entry(n % GROUPS).or_default().push(n);
    }
    for (group, numbers) in &by_group {
        assert_eq!(*numbers, (*group..ARCHIVED).step_by(GROUPS).collect::<Vec<_>>(), "group {group}");
    }
    assert_eq!(found.iter().filter(|envelope| envelope["Message"] == "live").count(), 1);
    let attributes = call(&mut client, "GetSubscriptionAttributes", &[("SubscriptionArn", &arn)]);
    assert!(attributes.contains("<key>ReplayStatus</key><value>Completed</value>"), "{attributes}");
}

#[test]
fn a_replay_goes_on_after_a_crash_in_order_and_each_message_comes_once() {
    replay_goes_on(&[]);
}

#[test]
fn an_archive_on_disk_is_replayed_like_one_in_memory() {
    replay_goes_on(&[
        "store.segment_bytes=4MiB",
        "store.batch_bytes_max=512KiB",
        "store.unwritten_bytes_max=1MiB",
        "store.checkpoint_bytes=64KiB",
        "store.checkpoint_ms=100",
        "store.queue_window_bytes=64KiB",
    ]);
}

#[test]
fn a_reset_leaves_nothing_of_what_was_kept_beside_queues_and_exchanges() {
    let broker = Broker::with(&["aws.reset=on", "aws.queue_deleted_recently=on"]);
    let mut client = Client::open(&broker);
    let make = |client: &mut Client| {
        let number = ("PhoneNumber", "+15551230000");
        call(client, "CreateSMSSandboxPhoneNumber", &[number]);
        call(
            client,
            "SetSMSAttributes",
            &[("attributes.entry.1.key", "DefaultSenderID"), ("attributes.entry.1.value", "me")],
        );
        let application = [
            ("Name", "app"),
            ("Platform", "GCM"),
            ("Attributes.entry.1.key", "PlatformCredential"),
            ("Attributes.entry.1.value", "key"),
            ("Attributes.entry.2.key", "PlatformPrincipal"),
            ("Attributes.entry.2.value", "me"),
        ];
        call(client, "CreatePlatformApplication", &application);
        assert_eq!(client.send("POST", "/_tern/sns/opt-out?phoneNumber=%2B15551230001", &[], b"").status, 200);
        call(client, "Publish", &[("PhoneNumber", "+15551230002"), ("Message", "out")]);
        let topic = inner(&call(client, "CreateTopic", &[("Name", "t")]), "TopicArn");
        let policy = r#"{"Name":"p","Version":"2021-06-01","Statement":[]}"#;
        call(client, "PutDataProtectionPolicy", &[("ResourceArn", &topic), ("DataProtectionPolicy", policy)]);
        let fifo = [
            ("Name", "t.fifo"),
            ("Attributes.entry.1.key", "FifoTopic"),
            ("Attributes.entry.1.value", "true"),
            ("Attributes.entry.2.key", "ArchivePolicy"),
            ("Attributes.entry.2.value", r#"{"MessageRetentionPeriod":"1"}"#),
        ];
        let fifo = inner(&call(client, "CreateTopic", &fifo), "TopicArn");
        publish(client, &fifo, "g", "m");
        let dead = client.create("dead");
        let policy = json!({"deadLetterTargetArn": "arn:aws:sqs:us-east-1:000000000000:dead", "maxReceiveCount": 3});
        let source = json!({"QueueName": "source", "Attributes": {"RedrivePolicy": policy.to_string()}});
        assert_eq!(client.json("CreateQueue", &source).status, 200);
        let gone = client.create("gone");
        assert_eq!(client.json("DeleteQueue", &json!({ "QueueUrl": gone })).status, 200);
        let purged = client.create("purged");
        assert_eq!(client.json("PurgeQueue", &json!({ "QueueUrl": purged })).status, 200);
        let sent = client.json("SendMessage", &json!({"QueueUrl": dead, "MessageBody": "m"}));
        assert_eq!(sent.status, 200);
        let task = json!({
            "SourceArn": "arn:aws:sqs:us-east-1:000000000000:dead",
            "DestinationArn": "arn:aws:sqs:us-east-1:000000000000:source",
        });
        let started = client.json("StartMessageMoveTask", &task);
        assert_eq!(started.status, 200, "{}", started.text());
        topic
    };
    make(&mut client);
    let seen = |client: &mut Client, topic: &str| {
        let outbox = client.send("GET", "/_tern/sns/outbox", &[], b"").json();
        let deliveries = client.send("GET", "/_tern/sns/deliveries", &[], b"").json();
        let tasks = json!({"SourceArn": "arn:aws:sqs:us-east-1:000000000000:dead"});
        client.create("dead");
        let tasks = client.json("ListMessageMoveTasks", &tasks).json();
        let mut seen = vec![outbox.to_string(), deliveries.to_string(), tasks["Results"].to_string()];
        for action in ["ListSMSSandboxPhoneNumbers", "GetSMSAttributes", "ListPlatformApplications", "ListTopics"] {
            let text = call(client, action, &[]);
            seen.push(text[..text.find("<ResponseMetadata>").unwrap()].to_owned());
        }
        let opted_out = call(client, "ListPhoneNumbersOptedOut", &[]);
        seen.push(opted_out[..opted_out.find("<ResponseMetadata>").unwrap()].to_owned());
        call(client, "CreateTopic", &[("Name", "t")]);
        let policy = call(client, "GetDataProtectionPolicy", &[("ResourceArn", topic)]);
        seen.push(policy[..policy.find("<ResponseMetadata>").unwrap()].to_owned());
        seen
    };
    let fresh = {
        let other = Broker::start();
        let mut client = Client::open(&other);
        let topic = "arn:aws:sns:us-east-1:000000000000:t";
        seen(&mut client, topic)
    };
    assert_eq!(client.send("POST", "/_tern/reset", &[], b"").status, 200);
    assert_eq!(seen(&mut client, "arn:aws:sns:us-east-1:000000000000:t"), fresh);
    assert_eq!(client.send("POST", "/_tern/reset", &[], b"").status, 200);
    // Neither a name that was deleted nor a purge of a minute ago stands in the way.
    make(&mut client);
}
