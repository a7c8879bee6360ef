"""A topic of SNS is an exchange: published over AMQP and over SNS, received over SQS, AMQP and STOMP.

    pika  --basic_publish-->  topic "orders"  --subscription-->  queue  --ReceiveMessage-->  boto3
    boto3 --Publish-------->                  --binding------->  queue  --basic_get------->  pika
                                              --binding------->  queue  --SUBSCRIBE------->  stomp.py

Needs boto3, pika and stomp.py. AWS_ENDPOINT_URL, AMQP_URL, STOMP_HOST and STOMP_PORT name another broker
than the one on this machine.
"""

import json
import os
import queue

import boto3
import pika
import stomp

AWS = {
    "endpoint_url": os.environ.get("AWS_ENDPOINT_URL", "http://127.0.0.1:9324"),
    "region_name": os.environ.get("AWS_REGION", "us-east-1"),
    "aws_access_key_id": os.environ.get("AWS_ACCESS_KEY_ID", "any"),
    "aws_secret_access_key": os.environ.get("AWS_SECRET_ACCESS_KEY", "any"),
}
URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")
STOMP = (os.environ.get("STOMP_HOST", "127.0.0.1"), int(os.environ.get("STOMP_PORT", "61613")))
TOPIC = "example-orders"
BILLING = "example-billing"
ARCHIVE = "example.archive"
SCREEN = "example.screen"
WAIT_SECS = 10


class Frames(stomp.ConnectionListener):
    def __init__(self):
        self.messages = queue.Queue()

    def on_message(self, frame):
        self.messages.put(frame)


def main():
    sns, sqs = boto3.client("sns", **AWS), boto3.client("sqs", **AWS)
    topic = sns.create_topic(Name=TOPIC)["TopicArn"]
    billing = sqs.create_queue(QueueName=BILLING)["QueueUrl"]
    endpoint = sqs.get_queue_attributes(QueueUrl=billing, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    # Billing wants what costs something, and gets Amazon's envelope around it.
    policy = json.dumps({"price": [{"numeric": [">", 0]}]})
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=endpoint, Attributes={"FilterPolicy": policy})

    connection = pika.BlockingConnection(pika.URLParameters(URL))
    channel = connection.channel()
    # Whoever binds to the exchange gets messages as they were published.
    channel.queue_declare(ARCHIVE, durable=True)
    channel.queue_bind(ARCHIVE, TOPIC, "")
    channel.queue_declare(SCREEN, durable=True)
    channel.queue_bind(SCREEN, TOPIC, "", {"x-filter-policy": json.dumps({"kind": ["gift"]})})
    screen, frames = stomp.Connection12([STOMP], vhost="/"), Frames()
    screen.set_listener("", frames)
    screen.connect("guest", "guest", wait=True)
    screen.subscribe(f"/amq/queue/{SCREEN}", id="1", ack="auto")

    # From AMQP to SQS: headers are message attributes.
    channel.confirm_delivery()
    properties = pika.BasicProperties(delivery_mode=2, headers={"price": 7, "kind": "order"})
    channel.basic_publish(TOPIC, "", b"7 apples", properties)
    envelope = receive(sqs, billing)
    assert envelope["Type"] == "Notification" and envelope["TopicArn"] == topic, envelope
    assert envelope["Message"] == "7 apples", envelope
    assert envelope["MessageAttributes"]["price"] == {"Type": "Number", "Value": "7"}, envelope
    print("over AMQP, received over SQS:", envelope["Message"])
    assert channel.basic_get(ARCHIVE, auto_ack=True)[2] == b"7 apples"

    # From SNS to AMQP and STOMP: message attributes are headers.
    attributes = {
        "price": {"DataType": "Number", "StringValue": "0"},
        "kind": {"DataType": "String", "StringValue": "gift"},
    }
    published = sns.publish(TopicArn=topic, Subject="a gift", Message="1 pear", MessageAttributes=attributes)
    _, properties, body = channel.basic_get(ARCHIVE, auto_ack=True)
    assert (body, properties.headers["kind"], properties.headers["price"]) == (b"1 pear", "gift", 0), properties
    assert properties.message_id == published["MessageId"], properties
    print("over SNS, received over AMQP:", body.decode())
    frame = frames.messages.get(timeout=WAIT_SECS)
    assert (frame.body, frame.headers["kind"]) == ("1 pear", "gift"), frame
    print("over SNS, received over STOMP:", frame.body)
    # It costs nothing.
    assert "Messages" not in sqs.receive_message(QueueUrl=billing)

    screen.disconnect()
    channel.queue_delete(ARCHIVE)
    channel.queue_delete(SCREEN)
    connection.close()
    sns.delete_topic(TopicArn=topic)
    sqs.delete_queue(QueueUrl=billing)


def receive(sqs, url):
    message = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=WAIT_SECS)["Messages"][0]
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return json.loads(message["Body"])


if __name__ == "__main__":
    main()
