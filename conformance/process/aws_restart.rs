//! What a restart leaves of queues and topics of SQS and SNS: leases with their receipts, what is withheld, names and
//! groups of FIFO queues, and message move tasks.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::{
    aws::Client,
    broker::until,
    restart::{End, Rig, restarts},
};

restarts!(
    leases_are_kept_with_their_receipts,
    withheld_messages_come_when_they_are_due,
    names_of_fifo_messages_are_remembered,
    groups_stay_held_and_in_order,
    move_tasks_go_on,
    cancelled_move_tasks_stay_so,
    topics_know_their_subscribers_and_what_was_published,
);

fn ok(client: &mut Client, operation: &str, input: &Value) -> Value {
    let answer = client.json(operation, input);
    assert_eq!(answer.status, 200, "{operation}: {}", answer.text());
    if answer.text().is_empty() { Value::Null } else { answer.json() }
}

fn receive(client: &mut Client, url: &str, wait_secs: u64) -> Vec<Value> {
    let input = json!({ "QueueUrl": url, "MaxNumberOfMessages": 10, "VisibilityTimeout": 600,
        "WaitTimeSeconds": wait_secs, "MessageSystemAttributeNames": ["All"] });
    ok(client, "ReceiveMessage", &input)["Messages"].as_array().cloned().unwrap_or_default()
}

fn bodies(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["Body"].as_str().unwrap()).collect()
}

fn delete(client: &mut Client, url: &str, message: &Value) {
    ok(client, "DeleteMessage", &json!({ "QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"] }));
}

/// Ready, leased and withheld messages.
fn counts(client: &mut Client, url: &str) -> [String; 3] {
    let input = json!({ "QueueUrl": url, "AttributeNames": ["All"] });
    let attributes = ok(client, "GetQueueAttributes", &input)["Attributes"].clone();
    ["", "NotVisible", "Delayed"]
        .map(|kind| attributes[format!("ApproximateNumberOfMessages{kind}")].as_str().unwrap().to_owned())
}

fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}

fn leases_are_kept_with_their_receipts(rig: &mut Rig) {
    let app = rig.app();
    let mut client = Client::open(&rig.broker);
    let url = client.create("q");
    for body in ["1", "2", "3"] {
        ok(&mut client, "SendMessage", &json!({ "QueueUrl": url, "MessageBody": body }));
    }
    let input = json!({ "QueueUrl": url, "MaxNumberOfMessages": 2, "VisibilityTimeout": 600 });
    let leased = ok(&mut client, "ReceiveMessage", &input)["Messages"].as_array().cloned().unwrap();
    assert_eq!(bodies(&leased), ["1", "2"]);
    let app = rig.restart(app);
    let mut client = Client::open(&rig.broker);
    assert_eq!(counts(&mut client, &url), ["1", "2", "0"]);
    // Consumers are not given them either.
    let rest = app.drain("q");
    assert_eq!(rest.iter().map(|delivery| delivery.data.as_slice()).collect::<Vec<_>>(), [b"3"]);
    let change = json!({ "QueueUrl": url, "ReceiptHandle": leased[0]["ReceiptHandle"], "VisibilityTimeout": 0 });
    ok(&mut client, "ChangeMessageVisibility", &change);
    let again = receive(&mut client, &url, 5);
    assert_eq!(bodies(&again), ["1"]);
    assert_eq!(again[0]["Attributes"]["ApproximateReceiveCount"], "2");
    delete(&mut client, &url, &leased[1]);
    let _app = rig.restart(app);
    let mut client = Client::open(&rig.broker);
    assert_eq!(counts(&mut client, &url), ["0", "1", "0"]);
    delete(&mut client, &url, &again[0]);
    assert_eq!(counts(&mut client, &url), ["0", "0", "0"]);
}

fn withheld_messages_come_when_they_are_due(rig: &mut Rig) {
    let app = rig.app();
    let mut client = Client::open(&rig.broker);
    let url = client.create("q");
    let due_ms = now_ms() + 3_000;
    ok(&mut client, "SendMessage", &json!({ "QueueUrl": url, "MessageBody": "later", "DelaySeconds": 3 }));
    ok(&mut client, "SendMessage", &json!({ "QueueUrl": url, "MessageBody": "far", "DelaySeconds": 900 }));
    ok(&mut client, "SendMessage", &json!({ "QueueUrl": url, "MessageBody": "now" }));
    let app = rig.restart(app);
    let mut client = Client::open(&rig.broker);
    let mut received = receive(&mut client, &url, 5);
    assert_eq!(bodies(&received)[0], if now_ms() < due_ms { "now" } else { bodies(&received)[0] });
    until("what was withheld comes", || {
        received.extend(receive(&mut client, &url, 1));
        bodies(&received).contains(&"later")
    });
    assert!(now_ms() >= due_ms);
    let mut all = bodies(&received);
    all.sort_unstable();
    assert_eq!(all, ["later", "now"]);
    // A second time it is as it was.
    let _app = rig.restart(app);
    let mut client = Client::open(&rig.broker);
    assert_eq!(counts(&mut client, &url), ["0", "2", "1"]);
}

fn fifo(client: &mut Client, name: &str) -> String {
    let made = json!({ "QueueName": name, "Attributes": { "FifoQueue": "true" } });
    ok(client, "CreateQueue", &made)["QueueUrl"].as_str().unwrap().to_owned()
}

fn send_named(client: &mut Client, url: &str, group: &str, name: &str) -> String {
    let input =
        json!({ "QueueUrl": url, "MessageBody": name, "MessageGroupId": group, "MessageDeduplicationId": name });
    ok(client, "SendMessage", &input)["SequenceNumber"].as_str().unwrap().to_owned()
}

fn names_of_fifo_messages_are_remembered(rig: &mut Rig) {
    let app = rig.app();
    let mut client = Client::open(&rig.broker);
    let url = fifo(&mut client, "q.fifo");
    let deleted = send_named(&mut client, &url, "a", "deleted");
    let received = receive(&mut client, &url, 5);
    delete(&mut client, &url, &received[0]);
    let kept = send_named(&mut client, &url, "b", "kept");
    let app = rig.restart(app);
    let mut client = Client::open(&rig.broker);
    assert_eq!(send_named(&mut client, &url, "a", "deleted"), deleted);
    assert_eq!(send_named(&mut client, &url, "b", "kept"), kept);
    assert!(send_named(&mut client, &url, "a", "new") > kept);
    let _app = rig.restart(app);
    let mut client = Client::open(&rig.broker);
    assert_eq!(send_named(&mut client, &url, "a", "deleted"), deleted);
    assert_eq!(bodies(&receive(&mut client, &url, 5)), ["kept", "new"]);
}

fn groups_stay_held_and_in_order(rig: &mut Rig) {
    let app = rig.app();
    let mut client = Client::open(&rig.broker);
    let url = fifo(&mut client, "q.fifo");
    send_named(&mut client, &url, "a", "1");
    let held = receive(&mut client, &url, 5);
    send_named(&mut client, &url, "a", "2");
    send_named(&mut client, &url, "b", "3");
    let app = rig.restart(app);
    let mut client = Client::open(&rig.broker);
    assert_eq!(bodies(&receive(&mut client, &url, 5)), ["3"], "the other group is held");
    assert!(app.drain("q.fifo").is_empty());
    delete(&mut client, &url, &held[0]);
    assert_eq!(bodies(&receive(&mut client, &url, 5)), ["2"]);
}

/// A dead queue with five messages, and the queue that they are to go to.
fn dead_letters(client: &mut Client) -> (String, String, String) {
    let dead = client.create("dead");
    let arn = |name: &str| format!("arn:aws:sqs:us-east-1:000000000000:{name}");
    let policy = json!({ "deadLetterTargetArn": arn("dead"), "maxReceiveCount": 3 }).to_string();
    let made = json!({ "QueueName": "q", "Attributes": { "RedrivePolicy": policy } });
    let url = ok(client, "CreateQueue", &made)["QueueUrl"].as_str().unwrap().to_owned();
    for body in ["1", "2", "3", "4", "5"] {
        ok(client, "SendMessage", &json!({ "QueueUrl": dead, "MessageBody": body }));
    }
    let input = json!({ "SourceArn": arn("dead"), "DestinationArn": arn("q"), "MaxNumberOfMessagesPerSecond": 1 });
    let handle = ok(client, "StartMessageMoveTask", &input)["TaskHandle"].as_str().unwrap().to_owned();
    (dead, url, handle)
}

fn tasks(client: &mut Client) -> Value {
    ok(client, "ListMessageMoveTasks", &json!({ "SourceArn": "arn:aws:sqs:us-east-1:000000000000:dead" }))["Results"][0]
        .clone()
}

fn move_tasks_go_on(rig: &mut Rig) {
    let app = rig.app();
    let mut client = Client::open(&rig.broker);
    let (dead, url, _) = dead_letters(&mut client);
    let mut moved = receive(&mut client, &url, 20);
    assert!(!moved.is_empty() && moved.len() < 5);
    let _app = rig.restart(app);
    let mut client = Client::open(&rig.broker);
    until("all have been moved", || {
        moved.extend(receive(&mut client, &url, 5));
        moved.len() >= 5
    });
    assert_eq!(bodies(&moved), ["1", "2", "3", "4", "5"]);
    until("the task is over", || tasks(&mut client)["Status"] == "COMPLETED");
    assert_eq!(counts(&mut client, &dead), ["0", "0", "0"]);
    assert_eq!(counts(&mut client, &url), ["0", "5", "0"]);
}

fn cancelled_move_tasks_stay_so(rig: &mut Rig) {
    let app = rig.app();
    let mut client = Client::open(&rig.broker);
    let (dead, url, handle) = dead_letters(&mut client);
    assert!(!receive(&mut client, &url, 20).is_empty());
    ok(&mut client, "CancelMessageMoveTask", &json!({ "TaskHandle": handle }));
    let before = counts(&mut client, &dead);
    let _app = rig.restart(app);
    let mut client = Client::open(&rig.broker);
    // One that went on would move at least one in this time.
    assert!(receive(&mut client, &url, 3).len() <= 1);
    assert_eq!(counts(&mut client, &dead), before);
}

fn topics_know_their_subscribers_and_what_was_published(rig: &mut Rig) {
    const TOPIC: &str = "TopicArn=arn:aws:sns:us-east-1:000000000000:t.fifo";
    let call = |client: &mut Client, form: &str| {
        let answer = client.form("/", &format!("{form}&Version=2010-03-31"));
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    let publish = |client: &mut Client, name: &str| {
        let message = format!("Message={name}&MessageGroupId=g&MessageDeduplicationId={name}");
        call(client, &format!("Action=Publish&{TOPIC}&{message}"));
    };
    let app = rig.app();
    let mut client = Client::open(&rig.broker);
    let url = fifo(&mut client, "q.fifo");
    let fifo_topic = "Attributes.entry.1.key=FifoTopic&Attributes.entry.1.value=true";
    call(&mut client, &format!("Action=CreateTopic&Name=t.fifo&{fifo_topic}"));
    let raw = "Attributes.entry.1.key=RawMessageDelivery&Attributes.entry.1.value=true";
    let to = "Protocol=sqs&Endpoint=arn:aws:sqs:us-east-1:000000000000:q.fifo";
    call(&mut client, &format!("Action=Subscribe&{TOPIC}&{to}&{raw}"));
    publish(&mut client, "1");
    let app = rig.restart(app);
    let mut client = Client::open(&rig.broker);
    publish(&mut client, "1");
    publish(&mut client, "2");
    let _app = rig.restart(app);
    let mut client = Client::open(&rig.broker);
    publish(&mut client, "2");
    assert_eq!(bodies(&receive(&mut client, &url, 5)), ["1", "2"]);
}
