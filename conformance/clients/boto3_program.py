#!/usr/bin/env python3
"""boto3 and pika on the same queues: what one sends the other receives, and each message goes to one of them.

AMQP_HOST=.. AMQP_PORT=.. AWS_ENDPOINT_URL=.. boto3_program.py [TEXT in the names of the checks to run]
"""

import contextlib
import json
import threading
import uuid

import boto3
import pika
from checks import HOST, PASSWORD, PORT, USER, check, equal, main

REGION = "eu-west-1"


def client():
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    return boto3.client("sqs", region_name=REGION, **keys)


@contextlib.contextmanager
def channel():
    credentials = pika.PlainCredentials(USER, PASSWORD)
    connection = pika.BlockingConnection(pika.ConnectionParameters(HOST, PORT, credentials=credentials))
    try:
        yield connection.channel()
    finally:
        connection.close()


@contextlib.contextmanager
def queue(sqs, name=None, **attributes):
    name = name or f"boto3-{uuid.uuid4().hex[:8]}"
    if attributes.get("FifoQueue"):
        name += ".fifo"
    url = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    try:
        yield name, url
    finally:
        sqs.delete_queue(QueueUrl=url)


def receive(sqs, url, wait_secs=10, **arguments):
    names = {"AttributeNames": ["All"], "MessageAttributeNames": ["All"]}
    answer = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=wait_secs, **names, **arguments)
    return answer.get("Messages", [])


def publish(name, body, **properties):
    with channel() as on:
        on.confirm_delivery()
        on.basic_publish("", name, body, pika.BasicProperties(delivery_mode=2, **properties))


@check("what pika publishes boto3 receives with its types")
def _():
    sqs = client()
    with queue(sqs) as (name, url):
        headers = {"text": "t", "number": 7, "flag": True}
        publish(name, b"hello", headers=headers, message_id="an-id", timestamp=1_700_000_000)
        (message,) = receive(sqs, url)
        equal((message["Body"], message["MessageId"]), ("hello", "an-id"))
        equal(message["Attributes"]["SentTimestamp"], "1700000000000")
        attributes = {name: (of["DataType"], of["StringValue"]) for name, of in message["MessageAttributes"].items()}
        wanted = {"text": ("String", "t"), "number": ("Number", "7"), "flag": ("String", "true")}
        equal(attributes, wanted)


@check("what boto3 sends pika consumes with its types")
def _():
    sqs = client()
    with queue(sqs) as (name, url), channel() as on:
        attributes = {
            "text": {"DataType": "String", "StringValue": "t"},
            "number": {"DataType": "Number", "StringValue": "-42"},
            "bytes": {"DataType": "Binary", "BinaryValue": b"\0\1"},
        }
        sent = sqs.send_message(QueueUrl=url, MessageBody="h\u00e9llo", MessageAttributes=attributes)
        method, properties, body = on.basic_get(name)
        equal((body.decode(), properties.message_id), ("h\u00e9llo", sent["MessageId"]))
        found = {name: properties.headers[name] for name in attributes}
        equal(found, {"text": "t", "number": -42, "bytes": b"\0\1"})
        equal(properties.delivery_mode, 2, "delivery mode")
        on.basic_ack(method.delivery_tag)


@check("a body that is no text comes in base64")
def _():
    sqs = client()
    with queue(sqs) as (name, url):
        publish(name, b"\xff\0")
        (message,) = receive(sqs, url)
        equal(message["Body"], "/wA=")
        equal(message["MessageAttributes"]["tern.encoding"]["StringValue"], "base64")


@check("a publish wakes a receiver that waits")
def _():
    sqs = client()
    with queue(sqs) as (name, url):
        received = []
        waiter = threading.Thread(target=lambda: received.extend(receive(client(), url, 20)))
        waiter.start()
        publish(name, b"come")
        waiter.join(15)
        equal([message["Body"] for message in received], ["come"])


@check("what is received is nobody else's until it is given back")
def _():
    sqs = client()
    with queue(sqs) as (name, url), channel() as on:
        sqs.send_message(QueueUrl=url, MessageBody="one")
        (message,) = receive(sqs, url)
        equal(on.basic_get(name)[0], None, "a second delivery")
        handle = message["ReceiptHandle"]
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=0)
        method, _, body = on.basic_get(name)
        equal((body, method.redelivered), (b"one", True))
        equal(receive(sqs, url, 0), [])
        on.basic_nack(method.delivery_tag)
        equal([again["Body"] for again in receive(sqs, url)], ["one"])


@check("a consumer's message holds its group from receivers")
def _():
    sqs = client()
    with queue(sqs, FifoQueue="true", ContentBasedDeduplication="true") as (name, url), channel() as on:
        for group, body in ("a", "1"), ("a", "2"), ("b", "3"):
            sqs.send_message(QueueUrl=url, MessageBody=body, MessageGroupId=group)
        on.basic_qos(prefetch_count=1)
        held = next(on.consume(name, inactivity_timeout=10))
        equal(held[2], b"1")
        equal([message["Body"] for message in receive(sqs, url, 0, MaxNumberOfMessages=10)], ["3"])
        on.cancel()
        on.basic_ack(held[0].delivery_tag)
        equal([message["Body"] for message in receive(sqs, url, 10)], ["2"])


@check("what fails too often is in the dead queue for everybody")
def _():
    sqs = client()
    with queue(sqs) as (dead, dead_url), channel() as on:
        names = ["QueueArn"]
        arn = sqs.get_queue_attributes(QueueUrl=dead_url, AttributeNames=names)["Attributes"]["QueueArn"]
        policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 1})
        with queue(sqs, RedrivePolicy=policy) as (_, url):
            sqs.send_message(QueueUrl=url, MessageBody="bad")
            receive(sqs, url, VisibilityTimeout=0)
            equal(receive(sqs, url, 0), [])
            method, properties, body = on.basic_get(dead, auto_ack=True)
            equal(body, b"bad")
            equal(properties.headers["x-death"][0]["reason"], "delivery_limit")


@check("a queue of AMQP is found by its name")
def _():
    sqs = client()
    name = f"amqp.{uuid.uuid4().hex[:8]}"
    with channel() as on:
        on.queue_declare(name, durable=True)
        url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
        sqs.send_message(QueueUrl=url, MessageBody="x")
        equal(on.basic_get(name, auto_ack=True)[2], b"x")
        on.queue_delete(name)


if __name__ == "__main__":
    main()
