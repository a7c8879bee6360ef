//! Archives of FIFO topics and replays out of them.

use super::*;
use crate::aws::sns::replay::Stepped;

const POLICY: &str = r#"{"MessageRetentionPeriod":"2"}"#;
const DAY_MS: u64 = 86_400_000;

impl Desk {
    fn archived(&self) -> String {
        self.topic("t.fifo", json!({"FifoTopic": "true", "ArchivePolicy": POLICY}))
    }

    fn publish_to(&self, topic: &str, group: &str, message: &str) -> Json {
        let attributes = json!({"group": {"DataType": "String", "StringValue": group}});
        let (topic, id) = (topic.to_owned(), format!("{message}-{}", self.now.0));
        self.do_it(
            "Publish",
            json!({
                "TopicArn": topic, "Message": message, "MessageGroupId": group, "MessageDeduplicationId": id,
                "MessageAttributes": attributes,
            }),
        )
    }

    fn fifo_queue(&self, name: &str) -> Arc<Queue> {
        let properties = crate::broker::queue::properties::Properties {
            dedup: Some(crate::broker::queue::properties::Dedup::default()),
            ..Default::default()
        };
        let wanted = DeclareQueue { name, durable: true, properties, ..DeclareQueue::default() };
        self.vhost().declare_queue(&wanted, None, &mut self.turn()).unwrap()
    }

    fn attributes(&self, of: &str, arn: &str) -> Json {
        self.do_it(&format!("Get{of}Attributes"), json!({ (format!("{of}Arn")): arn }))["Attributes"].clone()
    }

    fn set(&self, of: &str, arn: &str, name: &str, value: &str) {
        let input = json!({ (format!("{of}Arn")): arn, "AttributeName": name, "AttributeValue": value });
        self.do_it(&format!("Set{of}Attributes"), input);
    }

    fn step(&self, max: usize) -> Stepped {
        self.aws.sns.replays.step(&self.aws, max, &mut self.turn())
    }

    fn replay(&self) {
        while self.step(2) != Stepped::None {}
    }

    fn all(&self, queue: &Arc<Queue>) -> Vec<Json> {
        std::iter::from_fn(|| Some(self.envelope(queue)).filter(|envelope| !envelope.is_null())).collect()
    }
}

fn since(ms: u64) -> String {
    json!({"PointType": "Timestamp", "StartingPoint": crate::aws::sns::envelope::timestamp(ms)}).to_string()
}

fn messages(envelopes: &[Json]) -> Vec<(&str, bool)> {
    envelopes.iter().map(|of| (of["Message"].as_str().unwrap(), of["Replayed"] == true)).collect()
}

#[test]
fn a_topic_with_an_archive_is_kept_until_its_policy_is_taken_away() {
    let mut desk = Desk::new();
    let refused = |value: &str| {
        let attributes = json!({"FifoTopic": "true", "ArchivePolicy": value});
        desk.refused("CreateTopic", json!({"Name": "r.fifo", "Attributes": attributes}))
    };
    assert!(
        refused(r#"{"MessageRetentionPeriod":"366"}"#)
            .starts_with("Invalid parameter: Attributes Reason: ArchivePolicy")
    );
    let topic = desk.archived();
    let start = desk.now.0;
    let beginning = |desk: &Desk| desk.attributes("Topic", &topic)["BeginningArchiveTime"].clone();
    assert_eq!(beginning(&desk), json!(crate::aws::sns::envelope::timestamp(start)));
    desk.now = Time(start + 3 * DAY_MS);
    assert_eq!(beginning(&desk), json!(crate::aws::sns::envelope::timestamp(start + DAY_MS)));
    let refusal = desk.try_do("DeleteTopic", json!({ "TopicArn": topic })).unwrap_err();
    assert_eq!(
        (&*refusal.query_code, &*refusal.message),
        ("InvalidState", "Invalid state: Cannot delete a topic with an ArchivePolicy")
    );
    let streams = |desk: &Desk| desk.vhost().queues().iter().filter(|queue| queue.is_stream()).count();
    assert_eq!(streams(&desk), 1);
    desk.set("Topic", &topic, "ArchivePolicy", "{}");
    assert_eq!((streams(&desk), &desk.attributes("Topic", &topic)["ArchivePolicy"]), (0, &Json::Null));
    desk.do_it("DeleteTopic", json!({ "TopicArn": topic }));
}

#[test]
fn everything_that_is_published_to_a_topic_can_be_replayed_as_it_was() {
    let mut desk = Desk::new();
    let topic = desk.archived();
    let (live, late) = (desk.fifo_queue("live.fifo"), desk.fifo_queue("late.fifo"));
    desk.subscribe(&topic, "sqs", "live.fifo", json!({}));
    let start = desk.now.0;
    for n in 0..5 {
        desk.now = Time(start + n * 1_000);
        desk.publish_to(&topic, "g", &format!("m{n}"));
    }
    // Another protocol's.
    let (vhost, mut turn) = (desk.vhost(), desk.turn());
    let message = Message::build("t.fifo", b"k", &[], (0, 0), b"amqp");
    let route = vhost.route(&vhost.exchange("t.fifo").unwrap(), &message, &[], None, &mut turn);
    let mut batch = Batch::default();
    batch.push(message, &Arc::new(route));
    batch.place(&mut turn, &mut Vec::new());
    drop(turn);
    let policy = since(start + 1_000);
    let arn = desk.subscribe(&topic, "sqs", "late.fifo", json!({"ReplayPolicy": policy}));
    assert_eq!(desk.attributes("Subscription", &arn)["ReplayStatus"], "Pending");
    desk.replay();
    assert_eq!(desk.attributes("Subscription", &arn)["ReplayStatus"], "Completed");
    let (live, mut late) = (desk.all(&live), desk.all(&late));
    assert_eq!(messages(&late), [("m1", true), ("m2", true), ("m3", true), ("m4", true), ("amqp", true)]);
    for (was, is) in live[1..].iter().zip(&mut late) {
        for name in ["MessageId", "Timestamp", "SequenceNumber", "MessageAttributes"] {
            assert_eq!(was[name], is[name], "{name}");
        }
    }
}

#[test]
fn a_replay_passes_the_filter_and_ends_at_its_point_and_live_messages_follow() {
    let mut desk = Desk::new();
    let topic = desk.archived();
    let start = desk.now.0;
    for n in 0..6 {
        desk.now = Time(start + n * 1_000);
        desk.publish_to(&topic, if n % 2 == 0 { "even" } else { "odd" }, &format!("m{n}"));
    }
    let queue = desk.fifo_queue("q.fifo");
    let mut policy: Json = serde_json::from_str(&since(start)).unwrap();
    policy["EndingPoint"] = crate::aws::sns::envelope::timestamp(start + 3_000).into();
    let filter = r#"{"group": ["even"]}"#;
    let arn =
        desk.subscribe(&topic, "sqs", "q.fifo", json!({"ReplayPolicy": policy.to_string(), "FilterPolicy": filter}));
    desk.step(1);
    assert_eq!(desk.attributes("Subscription", &arn)["ReplayStatus"], "In progress");
    desk.publish_to(&topic, "even", "meanwhile");
    desk.publish_to(&topic, "odd", "unwanted");
    desk.replay();
    desk.publish_to(&topic, "even", "live");
    let envelopes = desk.all(&queue);
    assert_eq!(messages(&envelopes), [("m0", true), ("m2", true), ("meanwhile", false), ("live", false)]);
}

#[test]
fn a_queue_that_had_the_messages_has_them_once_more_and_live_ones_once() {
    let mut desk = Desk::new();
    let topic = desk.archived();
    let queue = desk.fifo_queue("q.fifo");
    let arn = desk.subscribe(&topic, "sqs", "q.fifo", json!({}));
    let start = desk.now.0;
    desk.publish_to(&topic, "g", "one");
    desk.now = Time(start + 1);
    desk.publish_to(&topic, "g", "two");
    // It is on its way to the queue when the replay begins, and comes to the archive after.
    let (vhost, mut turn) = (desk.vhost(), desk.turn());
    let message = Message::build("t.fifo", b"k", &[], (0, 0), b"passing");
    let route = Arc::new(vhost.route(&vhost.exchange("t.fifo").unwrap(), &message, &[], None, &mut turn));
    desk.set("Subscription", &arn, "ReplayPolicy", &since(start));
    desk.step(100);
    let mut batch = Batch::default();
    batch.push(message, &route);
    batch.place(&mut turn, &mut Vec::new());
    drop(turn);
    for _ in 0..5 {
        assert_ne!(desk.step(100), Stepped::None, "something passes the exchange still");
    }
    desk.publish_to(&topic, "g", "three");
    drop(route);
    desk.replay();
    desk.publish_to(&topic, "g", "four");
    let envelopes = desk.all(&queue);
    let expected = [
        ("one", false),
        ("two", false),
        ("one", true),
        ("two", true),
        ("passing", false),
        ("three", false),
        ("four", false),
    ];
    assert_eq!(messages(&envelopes), expected);
}

#[test]
fn a_replay_that_is_stopped_leaves_out_no_live_message() {
    let desk = Desk::new();
    let topic = desk.archived();
    let queue = desk.fifo_queue("q.fifo");
    for n in 0..4 {
        desk.publish_to(&topic, "g", &format!("m{n}"));
    }
    let arn = desk.subscribe(&topic, "sqs", "q.fifo", json!({"ReplayPolicy": since(desk.now.0)}));
    desk.step(1);
    desk.publish_to(&topic, "g", "live");
    desk.set("Subscription", &arn, "ReplayPolicy", "{}");
    assert_eq!(desk.attributes("Subscription", &arn)["ReplayPolicy"], Json::Null);
    desk.replay();
    assert_eq!(messages(&desk.all(&queue)), [("m0", true), ("live", false)]);
}

#[test]
fn a_replay_goes_on_where_another_process_left_it() {
    let mut desk = Desk::new();
    let topic = desk.archived();
    let queue = desk.fifo_queue("q.fifo");
    for n in 0..6 {
        desk.publish_to(&topic, "g", &format!("m{n}"));
    }
    desk.subscribe(&topic, "sqs", "q.fifo", json!({"ReplayPolicy": since(desk.now.0)}));
    for _ in 0..4 {
        desk.step(1);
    }
    // What was not kept yet is delivered again, and the queue knows it.
    let aws = Arc::<Aws>::default();
    aws.sns.begin(&desk.broker, &aws.options, Arc::new(Plain), "http://here");
    desk.aws = aws;
    desk.replay();
    let envelopes = desk.all(&queue);
    assert_eq!(
        messages(&envelopes),
        (0..6).map(|n| ["m0", "m1", "m2", "m3", "m4", "m5"][n]).map(|m| (m, true)).collect::<Vec<_>>()
    );
}

#[test]
fn what_cannot_be_replayed_is_refused_or_said_to_have_failed() {
    let desk = Desk::new();
    let plain = desk.topic("p.fifo", json!({"FifoTopic": "true"}));
    let queue = desk.fifo_queue("q.fifo");
    let wanted = |topic: &str, policy: &str| {
        json!({
            "TopicArn": topic, "Protocol": "sqs", "Endpoint": "arn:aws:sqs:eu-west-1:000000000000:q.fifo",
            "Attributes": {"ReplayPolicy": policy},
        })
    };
    let refusal = desk.refused("Subscribe", wanted(&plain, &since(0)));
    assert_eq!(refusal, "Invalid parameter: ReplayPolicy: The topic has no message archive");
    let topic = desk.archived();
    assert!(desk.refused("Subscribe", wanted(&topic, r#"{"PointType":"Offset"}"#)).contains("PointType"));
    desk.publish_to(&topic, "g", "m");
    let arn = desk.subscribe(&topic, "sqs", "q.fifo", json!({"ReplayPolicy": since(0)}));
    desk.vhost().remove_queue(&queue, &mut desk.turn());
    desk.replay();
    assert_eq!(desk.attributes("Subscription", &arn)["ReplayStatus"], "Failed");
}
