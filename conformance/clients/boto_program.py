#!/usr/bin/env python3
"""boto, the SDK before boto3: Query with answers in XML from SQS and in JSON from SNS; and boto3's resources.

    AWS_ENDPOINT_URL=http://.. boto_program.py [TEXT in the names of the checks to run]
"""

import json
import os
import uuid
from urllib.parse import urlsplit

import boto3
from boto.exception import BotoServerError, SQSError
from boto.regioninfo import RegionInfo
from boto.sns.connection import SNSConnection
from boto.sqs.connection import SQSConnection
from boto.sqs.message import Message, RawMessage
from checks import check, equal, main

ADDRESS = urlsplit(os.environ["AWS_ENDPOINT_URL"])


def connect(kind):
    region = RegionInfo(name="us-east-1", endpoint=ADDRESS.hostname)
    return kind("test", "test", is_secure=False, port=ADDRESS.port, region=region)


def named(what):
    return f"{what}-{uuid.uuid4().hex[:8]}"


def resource(service):
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    return boto3.resource(service, region_name="us-east-1", **keys)


@check("boto, a queue is made, found, changed and deleted")
def _():
    sqs, name = connect(SQSConnection), named("boto")
    queue = sqs.create_queue(name, 45)
    equal(sqs.get_queue(name).url, queue.url)
    equal(queue.get_timeout(), 45)
    queue.set_attribute("MessageRetentionPeriod", 600)
    equal(queue.get_attributes()["MessageRetentionPeriod"], "600")
    equal([each.name for each in sqs.get_all_queues(name)], [name])
    equal(queue.add_permission("l", "111122223333", "SendMessage"), True)
    equal(queue.remove_permission("l"), True)
    equal(queue.delete(), True)
    equal(sqs.get_queue(name), None)


@check("boto, messages with attributes go through")
def _():
    sqs = connect(SQSConnection)
    queue = sqs.create_queue(named("boto"))
    message = Message()
    message.set_body("Grüße <&> \"'")
    message.message_attributes = {
        "text": {"data_type": "String", "string_value": "ü"},
        "number": {"data_type": "Number", "string_value": "7"},
    }
    written = queue.write(message)
    read = queue.read(visibility_timeout=60, wait_time_seconds=10, message_attributes=["All"])
    equal((read.id, read.get_body()), (written.id, "Grüße <&> \"'"))
    equal(read.message_attributes["text"]["string_value"], "ü")
    equal(read.message_attributes["number"]["string_value"], "7")
    equal(queue.count(), 0)
    read.change_visibility(0)
    (read,) = queue.get_messages(wait_time_seconds=10, attributes="All")
    equal(read.attributes["ApproximateReceiveCount"], "2")
    equal(queue.delete_message(read), True)


@check("boto, batches and dead letters")
def _():
    sqs = connect(SQSConnection)
    queue, dead = sqs.create_queue(named("boto")), sqs.create_queue(named("dead"))
    for each in queue, dead:
        each.set_message_class(RawMessage)
    result = queue.write_batch([(str(number), f"body {number}", 0) for number in range(3)] + [("late", "x", 901)])
    equal([entry["id"] for entry in result.results], ["0", "1", "2"])
    equal([(entry["id"], entry["error_code"]) for entry in result.errors], [("late", "InvalidParameterValue")])
    messages = queue.get_messages(10, wait_time_seconds=10)
    equal(sorted(message.get_body() for message in messages), ["body 0", "body 1", "body 2"])
    # Of what came of these it reads the errors only.
    equal(queue.change_message_visibility_batch([(message, 0) for message in messages]).errors, [])
    messages = queue.get_messages(10, wait_time_seconds=10)
    equal(len(messages), 3)
    equal(len(queue.delete_message_batch(messages).results), 3)
    queue.set_attribute("RedrivePolicy", json.dumps({"deadLetterTargetArn": dead.arn, "maxReceiveCount": 1}))
    equal([each.name for each in sqs.get_dead_letter_source_queues(dead)], [queue.name])
    queue.write(queue.new_message("bad"))
    queue.get_messages(visibility_timeout=0, wait_time_seconds=10)
    equal(queue.get_messages(), [])
    equal([message.get_body() for message in dead.get_messages(wait_time_seconds=10)], ["bad"])
    equal(queue.purge(), True)


@check("boto, what is refused has the codes of Query")
def _():
    sqs = connect(SQSConnection)
    try:
        sqs.create_queue("a b")
    except SQSError as error:
        equal((error.status, error.error_code), (400, "InvalidParameterValue"))
    else:
        raise AssertionError("it is accepted")
    queue = sqs.create_queue(named("boto"))
    queue.delete()
    try:
        queue.count()
    except SQSError as error:
        equal((error.status, error.error_code), (400, "AWS.SimpleQueueService.NonExistentQueue"))
    else:
        raise AssertionError("it is there")


@check("boto, a topic reaches a queue")
def _():
    sqs, sns = connect(SQSConnection), connect(SNSConnection)
    answer = sns.create_topic(named("boto"))["CreateTopicResponse"]
    topic = answer["CreateTopicResult"]["TopicArn"]
    equal(len(answer["ResponseMetadata"]["RequestId"]), 36)
    topics = sns.get_all_topics()["ListTopicsResponse"]["ListTopicsResult"]
    equal(({"TopicArn": topic} in topics["Topics"], topics["NextToken"]), (True, None))
    sns.set_topic_attributes(topic, "DisplayName", "The News")
    attributes = sns.get_topic_attributes(topic)["GetTopicAttributesResponse"]["GetTopicAttributesResult"]
    equal(attributes["Attributes"]["DisplayName"], "The News")
    queue = sqs.create_queue(named("boto"))
    # It gives the topic leave by a policy of the queue, too.
    answer = sns.subscribe_sqs_queue(topic, queue)["SubscribeResponse"]
    subscription = answer["SubscribeResult"]["SubscriptionArn"]
    equal(len(json.loads(queue.get_attributes("Policy")["Policy"])["Statement"]), 1)
    listed = sns.get_all_subscriptions_by_topic(topic)["ListSubscriptionsByTopicResponse"]
    (only,) = listed["ListSubscriptionsByTopicResult"]["Subscriptions"]
    equal((only["SubscriptionArn"], only["Protocol"]), (subscription, "sqs"))
    kind = {"kind": {"data_type": "String", "string_value": "a"}}
    sent = sns.publish(topic=topic, message="hello", subject="s", message_attributes=kind)["PublishResponse"]
    queue.set_message_class(RawMessage)
    (message,) = queue.get_messages(wait_time_seconds=10)
    envelope = json.loads(message.get_body())
    equal((envelope["Message"], envelope["MessageId"]), ("hello", sent["PublishResult"]["MessageId"]))
    equal(envelope["MessageAttributes"], {"kind": {"Type": "String", "Value": "a"}})
    equal(list(sns.unsubscribe(subscription)["UnsubscribeResponse"]), ["ResponseMetadata"])
    sns.delete_topic(topic)
    try:
        sns.get_topic_attributes(topic)
    except BotoServerError as error:
        equal((error.status, error.error_code, error.message), (404, "NotFound", "Topic does not exist"))
    else:
        raise AssertionError("it is there")


@check("boto3's resources, queues and messages as objects")
def _():
    sqs, name = resource("sqs"), named("resource")
    queue = sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "45"})
    equal(sqs.get_queue_by_name(QueueName=name), queue)
    equal([each.url for each in sqs.queues.filter(QueueNamePrefix=name)], [queue.url])
    equal(queue.attributes["VisibilityTimeout"], "45")
    queue.send_message(MessageBody="one")
    queue.send_messages(Entries=[{"Id": str(number), "MessageBody": str(number)} for number in range(3)])
    messages = []
    while len(messages) < 4:
        messages += queue.receive_messages(MaxNumberOfMessages=10, WaitTimeSeconds=10, AttributeNames=["All"])
    equal(sorted(message.body for message in messages), ["0", "1", "2", "one"])
    equal({message.attributes["ApproximateReceiveCount"] for message in messages}, {"1"})
    messages[0].change_visibility(VisibilityTimeout=0)
    (again,) = queue.receive_messages(WaitTimeSeconds=10)
    equal(again.body, messages[0].body)
    again.delete()
    queue.delete_messages(
        Entries=[{"Id": str(number), "ReceiptHandle": each.receipt_handle} for number, each in enumerate(messages[1:])]
    )
    queue.reload()
    waiting = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
    equal([queue.attributes[name] for name in waiting], ["0", "0"])
    queue.delete()


@check("boto3's resources, topics and subscriptions as objects")
def _():
    sns, queue = resource("sns"), resource("sqs").create_queue(QueueName=named("resource"))
    topic = sns.create_topic(Name=named("resource"))
    raw = {"RawMessageDelivery": "true"}
    arn = queue.attributes["QueueArn"]
    subscription = topic.subscribe(Protocol="sqs", Endpoint=arn, Attributes=raw, ReturnSubscriptionArn=True)
    equal([each.arn for each in topic.subscriptions.all()], [subscription.arn])
    equal(subscription.attributes["RawMessageDelivery"], "true")
    topic.publish(Message="hello")
    (message,) = queue.receive_messages(WaitTimeSeconds=10)
    equal(message.body, "hello")
    topic.set_attributes(AttributeName="DisplayName", AttributeValue="x")
    topic.reload()
    equal(topic.attributes["DisplayName"], "x")
    subscription.delete()
    topic.delete()
    equal(topic.arn in [each.arn for each in sns.topics.all()], False)


if __name__ == "__main__":
    main()
