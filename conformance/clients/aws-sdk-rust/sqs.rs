//! Queues.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use aws_sdk_sqs::{
    Client,
    error::ProvideErrorMetadata as _,
    primitives::Blob,
    types::{
        ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, Message, MessageAttributeValue,
        MessageSystemAttributeName, QueueAttributeName, SendMessageBatchRequestEntry,
    },
};

use crate::broker::Broker;

async fn create(sqs: &Client, name: &str, attributes: &[(QueueAttributeName, &str)]) -> String {
    let attributes: HashMap<_, _> = attributes.iter().map(|(name, value)| (name.clone(), (*value).into())).collect();
    let made = sqs.create_queue().queue_name(name).set_attributes(Some(attributes)).send().await.unwrap();
    made.queue_url.unwrap()
}

async fn send(sqs: &Client, url: &str, body: &str) {
    sqs.send_message().queue_url(url).message_body(body).send().await.unwrap();
}

async fn receive(sqs: &Client, url: &str) -> Vec<Message> {
    let receive = sqs.receive_message().queue_url(url).max_number_of_messages(10).wait_time_seconds(5);
    let receive = receive.message_system_attribute_names(MessageSystemAttributeName::All);
    receive.message_attribute_names("All").send().await.unwrap().messages.unwrap_or_default()
}

async fn receive_now(sqs: &Client, url: &str) -> Vec<Message> {
    let receive = sqs.receive_message().queue_url(url).max_number_of_messages(10).wait_time_seconds(0);
    receive.send().await.unwrap().messages.unwrap_or_default()
}

async fn attribute(sqs: &Client, url: &str, name: QueueAttributeName) -> String {
    let got = sqs.get_queue_attributes().queue_url(url).attribute_names(name.clone()).send().await.unwrap();
    got.attributes.unwrap().remove(&name).unwrap()
}

fn bodies(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.body().unwrap()).collect()
}

fn text(value: &str) -> MessageAttributeValue {
    MessageAttributeValue::builder().data_type("String").string_value(value).build().unwrap()
}

#[tokio::test]
async fn message_comes_as_it_was_sent_and_is_gone_when_it_is_deleted() {
    let broker = Broker::start();
    let sqs = broker.sqs();
    let url = create(&sqs, "q", &[]).await;
    let number = MessageAttributeValue::builder().data_type("Number.int").string_value("-7").build().unwrap();
    let bytes = MessageAttributeValue::builder().data_type("Binary").binary_value(Blob::new([0, 255])).build().unwrap();
    let send = sqs.send_message().queue_url(&url).message_body("h\u{e9}llo <&> \u{1f980}");
    let send = send.message_attributes("text", text("a")).message_attributes("number", number.clone());
    let sent = send.message_attributes("bytes", bytes.clone()).send().await.unwrap();
    let received = receive(&sqs, &url).await;
    assert_eq!(bodies(&received), ["h\u{e9}llo <&> \u{1f980}"]);
    let message = &received[0];
    assert_eq!(message.message_id(), sent.message_id());
    assert_eq!(message.md5_of_body(), sent.md5_of_message_body());
    assert_eq!(message.md5_of_message_attributes(), sent.md5_of_message_attributes());
    let expected = [("text", text("a")), ("number", number), ("bytes", bytes)];
    let expected: HashMap<_, _> = expected.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    assert_eq!(message.message_attributes(), Some(&expected));
    let attributes = message.attributes().unwrap();
    assert_eq!(attributes[&MessageSystemAttributeName::ApproximateReceiveCount], "1");
    assert!(attributes.contains_key(&MessageSystemAttributeName::SentTimestamp));
    let handle = message.receipt_handle().unwrap();
    sqs.delete_message().queue_url(&url).receipt_handle(handle).send().await.unwrap();
    assert_eq!(attribute(&sqs, &url, QueueAttributeName::ApproximateNumberOfMessagesNotVisible).await, "0");
}

#[tokio::test]
async fn long_poll_ends_with_a_message() {
    let broker = Broker::start();
    let sqs = broker.sqs();
    let url = create(&sqs, "q", &[]).await;
    let begun = Instant::now();
    let wait = sqs.receive_message().queue_url(&url).wait_time_seconds(20).send();
    // Joined: the one waits while the other sends.
    let (received, ()) = tokio::join!(wait, send(&sqs, &url, "x"));
    assert_eq!(bodies(received.unwrap().messages()), ["x"]);
    assert!(begun.elapsed() < Duration::from_secs(20));
    // Without one it is nothing at all.
    let nothing = sqs.receive_message().queue_url(&url).wait_time_seconds(1).send().await.unwrap();
    assert_eq!(nothing.messages, None);
}

#[tokio::test]
async fn visibility_is_what_receivers_say() {
    let broker = Broker::start();
    let sqs = broker.sqs();
    let url = create(&sqs, "q", &[(QueueAttributeName::VisibilityTimeout, "600")]).await;
    send(&sqs, &url, "x").await;
    let received = receive(&sqs, &url).await;
    assert!(receive_now(&sqs, &url).await.is_empty());
    let change = sqs.change_message_visibility().queue_url(&url).visibility_timeout(0);
    change.receipt_handle(received[0].receipt_handle().unwrap()).send().await.unwrap();
    let again = receive(&sqs, &url).await;
    assert_eq!(bodies(&again), ["x"]);
    assert_eq!(again[0].attributes().unwrap()[&MessageSystemAttributeName::ApproximateReceiveCount], "2");
    let change = sqs.change_message_visibility().queue_url(&url).visibility_timeout(43_201);
    let refused = change.receipt_handle(again[0].receipt_handle().unwrap()).send().await.unwrap_err();
    assert_eq!(refused.code(), Some("InvalidParameterValue"));
    let change = sqs.change_message_visibility().queue_url(&url).visibility_timeout(1);
    let refused = change.receipt_handle("garbage").send().await.unwrap_err();
    assert!(refused.as_service_error().unwrap().is_receipt_handle_is_invalid(), "{refused:?}");
}

#[tokio::test]
async fn batches_say_of_each_entry_what_became_of_it() {
    let broker = Broker::start();
    let sqs = broker.sqs();
    let url = create(&sqs, "q", &[]).await;
    let entry = |id: &str, body: &str| {
        let entry = SendMessageBatchRequestEntry::builder().id(id).message_body(body);
        entry.message_attributes("id", text(id)).build().unwrap()
    };
    let send = sqs.send_message_batch().queue_url(&url).entries(entry("a", "1")).entries(entry("b", "\u{1}"));
    let sent = send.entries(entry("c", "3")).send().await.unwrap();
    assert_eq!(sent.successful().iter().map(|one| one.id()).collect::<Vec<_>>(), ["a", "c"]);
    let failed = &sent.failed()[0];
    assert_eq!((failed.id(), failed.code(), failed.sender_fault()), ("b", "InvalidMessageContents", true));
    let received = receive(&sqs, &url).await;
    assert_eq!(bodies(&received), ["1", "3"]);
    let handle = |at: usize| received[at].receipt_handle().unwrap();
    let change = |id: &str, handle: &str| {
        let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(id).receipt_handle(handle);
        entry.visibility_timeout(60).build().unwrap()
    };
    let changed = sqs.change_message_visibility_batch().queue_url(&url).entries(change("a", handle(0)));
    let changed = changed.entries(change("b", "garbage")).send().await.unwrap();
    assert_eq!((changed.successful()[0].id(), changed.failed()[0].id()), ("a", "b"));
    assert_eq!(changed.failed()[0].code(), "ReceiptHandleIsInvalid");
    let delete = |id: &str, handle: &str| {
        DeleteMessageBatchRequestEntry::builder().id(id).receipt_handle(handle).build().unwrap()
    };
    let deleted = sqs.delete_message_batch().queue_url(&url).entries(delete("a", handle(0)));
    let deleted = deleted.entries(delete("b", handle(1))).send().await.unwrap();
    assert_eq!((deleted.successful().len(), deleted.failed().len()), (2, 0));
}

#[tokio::test]
async fn refusals_are_the_errors_that_the_service_models() {
    let broker = Broker::start();
    let sqs = broker.sqs();
    let url = create(&sqs, "q", &[]).await;
    let missing = url.replace("/q", "/missing");
    let refused = sqs.send_message().queue_url(&missing).message_body("x").send().await.unwrap_err();
    assert!(refused.as_service_error().unwrap().is_queue_does_not_exist(), "{refused:?}");
    assert_eq!(refused.message(), Some("The specified queue does not exist."));
    let refused = sqs.receive_message().queue_url(&missing).send().await.unwrap_err();
    assert!(refused.as_service_error().unwrap().is_queue_does_not_exist(), "{refused:?}");
    let refused = sqs.get_queue_url().queue_name("missing").send().await.unwrap_err();
    assert!(refused.as_service_error().unwrap().is_queue_does_not_exist(), "{refused:?}");
    let refused = sqs.send_message().queue_url(&url).message_body("\u{b}").send().await.unwrap_err();
    assert!(refused.as_service_error().unwrap().is_invalid_message_contents(), "{refused:?}");
    let create = sqs.create_queue().queue_name("q").attributes(QueueAttributeName::DelaySeconds, "5");
    let refused = create.send().await.unwrap_err();
    assert!(refused.as_service_error().unwrap().is_queue_name_exists(), "{refused:?}");
    let create = sqs.create_queue().queue_name("other").attributes("Nonsense".into(), "5");
    let refused = create.send().await.unwrap_err();
    assert!(refused.as_service_error().unwrap().is_invalid_attribute_name(), "{refused:?}");
    let create = sqs.create_queue().queue_name("other").attributes(QueueAttributeName::DelaySeconds, "901");
    let refused = create.send().await.unwrap_err();
    assert!(refused.as_service_error().unwrap().is_invalid_attribute_value(), "{refused:?}");
    let refused = sqs.delete_message().queue_url(&url).receipt_handle("garbage").send().await.unwrap_err();
    assert!(refused.as_service_error().unwrap().is_receipt_handle_is_invalid(), "{refused:?}");
    let entry = || SendMessageBatchRequestEntry::builder().id("a").message_body("x").build().unwrap();
    let refused = sqs.send_message_batch().queue_url(&url).set_entries(Some(vec![])).send().await.unwrap_err();
    assert!(refused.as_service_error().unwrap().is_empty_batch_request(), "{refused:?}");
    let twice = sqs.send_message_batch().queue_url(&url).entries(entry()).entries(entry());
    let refused = twice.send().await.unwrap_err();
    assert!(refused.as_service_error().unwrap().is_batch_entry_ids_not_distinct(), "{refused:?}");
    sqs.purge_queue().queue_url(&url).send().await.unwrap();
    let refused = sqs.purge_queue().queue_url(&url).send().await.unwrap_err();
    assert!(refused.as_service_error().unwrap().is_purge_queue_in_progress(), "{refused:?}");
}

#[tokio::test]
async fn fifo_queue_keeps_groups_in_order_and_knows_repetitions() {
    let broker = Broker::start();
    let sqs = broker.sqs();
    let url = create(&sqs, "q.fifo", &[(QueueAttributeName::FifoQueue, "true")]).await;
    let send = |group: &str, dedup: &str| {
        let send = sqs.send_message().queue_url(&url).message_body(dedup).message_group_id(group);
        send.message_deduplication_id(dedup).send()
    };
    let first = send("a", "1").await.unwrap();
    let again = send("a", "1").await.unwrap();
    assert_eq!((first.message_id(), first.sequence_number()), (again.message_id(), again.sequence_number()));
    let second = send("a", "2").await.unwrap();
    assert!(first.sequence_number() < second.sequence_number());
    send("b", "3").await.unwrap();
    let one = sqs.receive_message().queue_url(&url).send().await.unwrap().messages.unwrap();
    assert_eq!(bodies(&one), ["1"]);
    assert_eq!(bodies(&receive(&sqs, &url).await), ["3"], "the group of the first is held");
    sqs.delete_message().queue_url(&url).receipt_handle(one[0].receipt_handle().unwrap()).send().await.unwrap();
    let next = receive(&sqs, &url).await;
    assert_eq!(bodies(&next), ["2"]);
    let attributes = next[0].attributes().unwrap();
    assert_eq!(attributes[&MessageSystemAttributeName::MessageGroupId], "a");
    assert_eq!(attributes[&MessageSystemAttributeName::MessageDeduplicationId], "2");
    assert_eq!(Some(attributes[&MessageSystemAttributeName::SequenceNumber].as_str()), second.sequence_number());
    let refused = sqs.send_message().queue_url(&url).message_body("x").send().await.unwrap_err();
    assert_eq!(refused.code(), Some("MissingParameter"));
}

#[tokio::test]
async fn what_failed_too_often_is_dead_lettered_and_moved_back() {
    let broker = Broker::start();
    let sqs = broker.sqs();
    let dead = create(&sqs, "dead", &[]).await;
    let arn = attribute(&sqs, &dead, QueueAttributeName::QueueArn).await;
    let policy = serde_json::json!({ "deadLetterTargetArn": arn, "maxReceiveCount": 1 }).to_string();
    let url = create(&sqs, "q", &[(QueueAttributeName::RedrivePolicy, &policy)]).await;
    send(&sqs, &url, "x").await;
    assert_eq!(
        bodies(&sqs.receive_message().queue_url(&url).visibility_timeout(0).send().await.unwrap().messages.unwrap()),
        ["x"]
    );
    assert!(receive_now(&sqs, &url).await.is_empty());
    let sources = sqs.list_dead_letter_source_queues().queue_url(&dead).send().await.unwrap();
    assert_eq!(sources.queue_urls(), [url.as_str()]);
    let died = sqs.receive_message().queue_url(&dead).wait_time_seconds(5).visibility_timeout(0);
    let died = died.message_system_attribute_names(MessageSystemAttributeName::All).send().await.unwrap();
    assert_eq!(bodies(died.messages()), ["x"]);
    let source = &died.messages()[0].attributes().unwrap()[&MessageSystemAttributeName::DeadLetterQueueSourceArn];
    assert!(source.ends_with(":q"), "{source}");
    let started = sqs.start_message_move_task().source_arn(&arn).send().await.unwrap();
    assert!(started.task_handle().is_some());
    let back = sqs.receive_message().queue_url(&url).wait_time_seconds(20).send().await.unwrap();
    assert_eq!(bodies(back.messages()), ["x"]);
    let tasks = sqs.list_message_move_tasks().source_arn(&arn).send().await.unwrap();
    assert_eq!(tasks.results()[0].source_arn(), Some(arn.as_str()));
    let refused = sqs.start_message_move_task().source_arn(arn.replace("dead", "none")).send().await.unwrap_err();
    assert!(refused.as_service_error().unwrap().is_resource_not_found_exception(), "{refused:?}");
}

#[tokio::test]
async fn attributes_tags_and_lists_are_read_back() {
    let broker = Broker::start();
    let sqs = broker.sqs();
    let url = create(&sqs, "one", &[(QueueAttributeName::DelaySeconds, "7")]).await;
    create(&sqs, "two", &[]).await;
    sqs.set_queue_attributes()
        .queue_url(&url)
        .attributes(QueueAttributeName::MessageRetentionPeriod, "120")
        .send()
        .await
        .unwrap();
    let all = sqs.get_queue_attributes().queue_url(&url).attribute_names(QueueAttributeName::All);
    let all = all.send().await.unwrap().attributes.unwrap();
    assert_eq!(all[&QueueAttributeName::DelaySeconds], "7");
    assert_eq!(all[&QueueAttributeName::MessageRetentionPeriod], "120");
    assert!(all[&QueueAttributeName::QueueArn].starts_with("arn:aws:sqs:eu-central-1:"));
    sqs.tag_queue().queue_url(&url).tags("team", "a").tags("stage", "test").send().await.unwrap();
    sqs.untag_queue().queue_url(&url).tag_keys("stage").send().await.unwrap();
    let tags = sqs.list_queue_tags().queue_url(&url).send().await.unwrap().tags.unwrap();
    assert_eq!(tags, HashMap::from([("team".to_owned(), "a".to_owned())]));
    let mut pages = sqs.list_queues().max_results(1).into_paginator().send();
    let mut listed = Vec::new();
    while let Some(page) = pages.next().await {
        listed.extend(page.unwrap().queue_urls.unwrap_or_default());
    }
    assert_eq!(listed.len(), 2);
    assert_eq!(sqs.get_queue_url().queue_name("one").send().await.unwrap().queue_url(), Some(url.as_str()));
    sqs.delete_queue().queue_url(&url).send().await.unwrap();
    let left = sqs.list_queues().queue_name_prefix("o").send().await.unwrap();
    assert_eq!(left.queue_urls, None);
}
