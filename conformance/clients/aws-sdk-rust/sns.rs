//! Topics.

use std::collections::HashMap;

use aws_sdk_sns::{
    Client,
    error::ProvideErrorMetadata as _,
    types::{MessageAttributeValue, PublishBatchRequestEntry, Tag},
};
use aws_sdk_sqs::types::{MessageSystemAttributeName, QueueAttributeName};
use serde_json::{Value, json};

use crate::broker::Broker;

/// A queue with its ARN.
struct Queue {
    url: String,
    arn: String,
}

async fn queue(sqs: &aws_sdk_sqs::Client, name: &str) -> Queue {
    let create = sqs.create_queue().queue_name(name);
    let is_fifo = name.ends_with(".fifo").then(|| HashMap::from([(QueueAttributeName::FifoQueue, "true".to_owned())]));
    let url = create.set_attributes(is_fifo).send().await.unwrap().queue_url.unwrap();
    let got = sqs.get_queue_attributes().queue_url(&url).attribute_names(QueueAttributeName::QueueArn);
    let arn = got.send().await.unwrap().attributes.unwrap().remove(&QueueAttributeName::QueueArn).unwrap();
    Queue { url, arn }
}

async fn topic(sns: &Client, name: &str) -> String {
    sns.create_topic().name(name).send().await.unwrap().topic_arn.unwrap()
}

async fn subscribe(sns: &Client, topic: &str, queue: &Queue, attributes: &[(&str, &str)]) -> String {
    let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let subscribe = sns.subscribe().topic_arn(topic).protocol("sqs").endpoint(&queue.arn);
    let made = subscribe.set_attributes(Some(attributes)).return_subscription_arn(true).send().await.unwrap();
    made.subscription_arn.unwrap()
}

async fn bodies(sqs: &aws_sdk_sqs::Client, queue: &Queue, wait_secs: i32) -> Vec<String> {
    let receive = sqs.receive_message().queue_url(&queue.url).max_number_of_messages(10).wait_time_seconds(wait_secs);
    let received = receive.send().await.unwrap().messages.unwrap_or_default();
    received.into_iter().map(|message| message.body.unwrap()).collect()
}

fn text(value: &str) -> MessageAttributeValue {
    MessageAttributeValue::builder().data_type("String").string_value(value).build().unwrap()
}

#[tokio::test]
async fn publish_reaches_queues_in_an_envelope_and_raw() {
    let broker = Broker::start();
    let (sns, sqs) = (broker.sns(), broker.sqs());
    let topic = topic(&sns, "t").await;
    let (wrapped, raw) = (queue(&sqs, "wrapped").await, queue(&sqs, "raw").await);
    subscribe(&sns, &topic, &wrapped, &[]).await;
    subscribe(&sns, &topic, &raw, &[("RawMessageDelivery", "true")]).await;
    let publish = sns.publish().topic_arn(&topic).message("h\u{e9}llo").subject("a subject");
    let published = publish.message_attributes("colour", text("red")).send().await.unwrap();
    let envelope: Value = serde_json::from_str(&bodies(&sqs, &wrapped, 5).await[0]).unwrap();
    assert_eq!(envelope["Type"], "Notification");
    assert_eq!(envelope["Message"], "h\u{e9}llo");
    assert_eq!(envelope["Subject"], "a subject");
    assert_eq!(envelope["TopicArn"], topic.as_str());
    assert_eq!(envelope["MessageId"].as_str(), published.message_id());
    assert_eq!(envelope["MessageAttributes"]["colour"], json!({ "Type": "String", "Value": "red" }));
    assert_eq!(bodies(&sqs, &raw, 5).await, ["h\u{e9}llo"]);
}

#[tokio::test]
async fn filter_policy_chooses_and_can_be_changed() {
    let broker = Broker::start();
    let (sns, sqs) = (broker.sns(), broker.sqs());
    let topic = topic(&sns, "t").await;
    let (chosen, all) = (queue(&sqs, "chosen").await, queue(&sqs, "all").await);
    let policy = json!({ "colour": ["red", { "prefix": "bl" }] }).to_string();
    let attributes = [("FilterPolicy", policy.as_str()), ("RawMessageDelivery", "true")];
    let subscription = subscribe(&sns, &topic, &chosen, &attributes).await;
    subscribe(&sns, &topic, &all, &[("RawMessageDelivery", "true")]).await;
    for colour in ["red", "green", "blue"] {
        let publish = sns.publish().topic_arn(&topic).message(colour);
        publish.message_attributes("colour", text(colour)).send().await.unwrap();
    }
    assert_eq!(bodies(&sqs, &all, 5).await, ["red", "green", "blue"]);
    assert_eq!(bodies(&sqs, &chosen, 5).await, ["red", "blue"]);
    let set = sns.set_subscription_attributes().subscription_arn(&subscription).attribute_name("FilterPolicy");
    set.attribute_value(r#"{"colour":["green"]}"#).send().await.unwrap();
    let got = sns.get_subscription_attributes().subscription_arn(&subscription).send().await.unwrap();
    assert_eq!(got.attributes().unwrap()["FilterPolicy"], r#"{"colour":["green"]}"#);
    let set = sns.set_subscription_attributes().subscription_arn(&subscription).attribute_name("FilterPolicy");
    let refused = set.attribute_value("{").send().await.unwrap_err();
    assert!(refused.as_service_error().unwrap().is_invalid_parameter_exception(), "{refused:?}");
}

#[tokio::test]
async fn batch_is_published_and_says_what_became_of_each() {
    let broker = Broker::start();
    let (sns, sqs) = (broker.sns(), broker.sqs());
    let topic = topic(&sns, "t").await;
    let raw = queue(&sqs, "raw").await;
    subscribe(&sns, &topic, &raw, &[("RawMessageDelivery", "true")]).await;
    let entry = |id: &str| PublishBatchRequestEntry::builder().id(id).message(format!("m{id}")).build().unwrap();
    let publish = sns.publish_batch().topic_arn(&topic).publish_batch_request_entries(entry("1"));
    let published = publish.publish_batch_request_entries(entry("2")).send().await.unwrap();
    let ids: Vec<_> = published.successful().iter().filter_map(|one| one.id()).collect();
    assert_eq!((ids, published.failed().len()), (vec!["1", "2"], 0));
    assert_eq!(bodies(&sqs, &raw, 5).await, ["m1", "m2"]);
    let twice = sns.publish_batch().topic_arn(&topic).publish_batch_request_entries(entry("1"));
    let refused = twice.publish_batch_request_entries(entry("1")).send().await.unwrap_err();
    assert!(refused.as_service_error().unwrap().is_batch_entry_ids_not_distinct_exception(), "{refused:?}");
}

#[tokio::test]
async fn fifo_topic_hands_groups_and_names_on() {
    let broker = Broker::start();
    let (sns, sqs) = (broker.sns(), broker.sqs());
    let made = sns.create_topic().name("t.fifo").attributes("FifoTopic", "true").send().await.unwrap();
    let topic = made.topic_arn.unwrap();
    let queue = queue(&sqs, "q.fifo").await;
    subscribe(&sns, &topic, &queue, &[("RawMessageDelivery", "true")]).await;
    for (body, dedup) in [("1", "a"), ("1", "a"), ("2", "b")] {
        let publish = sns.publish().topic_arn(&topic).message(body).message_group_id("g");
        let published = publish.message_deduplication_id(dedup).send().await.unwrap();
        assert!(published.sequence_number().is_some());
    }
    let receive = sqs.receive_message().queue_url(&queue.url).max_number_of_messages(10).wait_time_seconds(5);
    let received = receive.message_system_attribute_names(MessageSystemAttributeName::All).send().await.unwrap();
    let shown: Vec<_> = received.messages().iter().map(|message| message.body().unwrap()).collect();
    assert_eq!(shown, ["1", "2"]);
    assert_eq!(received.messages()[0].attributes().unwrap()[&MessageSystemAttributeName::MessageGroupId], "g");
}

#[tokio::test]
async fn topics_subscriptions_and_tags_are_read_back() {
    let broker = Broker::start();
    let (sns, sqs) = (broker.sns(), broker.sqs());
    let tag = |key: &str| Tag::builder().key(key).value("v").build().unwrap();
    let topic = sns.create_topic().name("t").tags(tag("a")).send().await.unwrap().topic_arn.unwrap();
    let queue = queue(&sqs, "q").await;
    let subscription = subscribe(&sns, &topic, &queue, &[]).await;
    let set = sns.set_topic_attributes().topic_arn(&topic).attribute_name("DisplayName");
    set.attribute_value("shown").send().await.unwrap();
    let got = sns.get_topic_attributes().topic_arn(&topic).send().await.unwrap().attributes.unwrap();
    assert_eq!((got["DisplayName"].as_str(), got["SubscriptionsConfirmed"].as_str()), ("shown", "1"));
    sns.tag_resource().resource_arn(&topic).tags(tag("b")).send().await.unwrap();
    sns.untag_resource().resource_arn(&topic).tag_keys("a").send().await.unwrap();
    let tags = sns.list_tags_for_resource().resource_arn(&topic).send().await.unwrap();
    assert_eq!(tags.tags(), [tag("b")]);
    let listed = sns.list_subscriptions_by_topic().topic_arn(&topic).send().await.unwrap();
    assert_eq!(listed.subscriptions()[0].subscription_arn(), Some(subscription.as_str()));
    assert_eq!(sns.list_topics().send().await.unwrap().topics()[0].topic_arn(), Some(topic.as_str()));
    sns.unsubscribe().subscription_arn(&subscription).send().await.unwrap();
    sns.delete_topic().topic_arn(&topic).send().await.unwrap();
    let refused = sns.get_topic_attributes().topic_arn(&topic).send().await.unwrap_err();
    assert!(refused.as_service_error().unwrap().is_not_found_exception(), "{refused:?}");
}

#[tokio::test]
async fn refusals_are_the_errors_that_the_service_models() {
    let broker = Broker::start();
    let sns = broker.sns();
    let topic = topic(&sns, "t").await;
    let missing = topic.replace(":t", ":missing");
    let refused = sns.publish().topic_arn(&missing).message("x").send().await.unwrap_err();
    assert!(refused.as_service_error().unwrap().is_not_found_exception(), "{refused:?}");
    assert_eq!(refused.message(), Some("Topic does not exist"));
    let refused = sns.publish().topic_arn(&topic).message("").send().await.unwrap_err();
    assert!(refused.as_service_error().unwrap().is_invalid_parameter_exception(), "{refused:?}");
    let subscribe = sns.subscribe().topic_arn(&topic).protocol("pigeon").endpoint("x");
    let refused = subscribe.send().await.unwrap_err();
    assert!(refused.as_service_error().unwrap().is_invalid_parameter_exception(), "{refused:?}");
}
