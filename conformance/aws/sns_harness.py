"""One recorded case of SNS: clients, what it makes, and the comparison with the recorded answers.

In recorded answers `<name:1>` stands for any text, and for the same text wherever it stands in one
case; `<name>` without a number stands for any text each time.
"""

import json
import re
import time
import uuid

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

REGION = "us-east-1"
ACCOUNT = "000000000000"
ANYTHING = {"timestamp", "date"}
IGNORED = {"RequestId", "RetryAttempts", "HTTPHeaders", "HostId", "Detail", "@xmlns"}
NAMED = re.compile(r"<[a-z0-9_-]+(?::\d+)?>|111111111111")
WAIT_SECS_MAX = 20


class Differs(Exception):
    """The answer is another; the text says where."""


class Case:
    def __init__(self, endpoint, name, recorded, left_out):
        self.endpoint, self.recorded, self.left_out = endpoint, recorded, left_out
        self.parameter = name.split("[", 1)[1][:-1] if "[" in name else ""
        self.known, self.matched = {}, set()
        self.topics, self.queues = [], []
        self.sns, self.sqs = self.client("sns"), self.client("sqs")

    def client(self, service, region=REGION):
        config = Config(retries={"max_attempts": 1}, parameter_validation=False)
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        return boto3.client(service, endpoint_url=self.endpoint, region_name=region, config=config, **keys)

    def run(self, function):
        try:
            function(self)
            missing = set(self.recorded) - self.matched - self.left_out
            assert not missing, f"nobody asked for {sorted(missing)}"
        finally:
            for arn in self.topics:
                self._quietly(self.sns.delete_topic, TopicArn=arn)
            for url in self.queues:
                self._quietly(self.sqs.delete_queue, QueueUrl=url)

    @staticmethod
    def _quietly(call, **arguments):
        try:
            call(**arguments)
        except ClientError:
            pass

    # What a case makes.

    def name(self, kind="x"):
        return f"{kind}-{uuid.uuid4().hex[:8]}"

    def topic(self, name=None, **arguments):
        answer = self.sns.create_topic(Name=name or self.name("topic"), **arguments)
        self.topics.append(answer["TopicArn"])
        return answer

    def arn(self, **arguments):
        return self.topic(**arguments)["TopicArn"]

    def fifo(self, **attributes):
        return self.arn(name=self.name("topic") + ".fifo", Attributes={"FifoTopic": "true", **attributes})

    def queue(self, name=None, **attributes):
        url = self.sqs.create_queue(QueueName=name or self.name("queue"), Attributes=attributes)["QueueUrl"]
        self.queues.append(url)
        return url

    def fifo_queue(self, **attributes):
        return self.queue(self.name("queue") + ".fifo", FifoQueue="true", **attributes)

    def queue_arn(self, url):
        return self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]

    def subscribe(self, topic, url, **arguments):
        """Subscribes a queue; the attributes of the subscription."""
        arguments = {"TopicArn": topic, "Protocol": "sqs", "Endpoint": self.queue_arn(url), **arguments}
        arn = self.sns.subscribe(**arguments)["SubscriptionArn"]
        return self.sns.get_subscription_attributes(SubscriptionArn=arn)["Attributes"]

    def set(self, subscription, name, value):
        arn = subscription["SubscriptionArn"] if isinstance(subscription, dict) else subscription
        value = value if isinstance(value, str) else json.dumps(value)
        return self.sns.set_subscription_attributes(SubscriptionArn=arn, AttributeName=name, AttributeValue=value)

    def receive(self, url, **arguments):
        return self.sqs.receive_message(QueueUrl=url, **{"WaitTimeSeconds": 2, **arguments})

    def collect(self, url, count, **arguments):
        """Receives and deletes so many messages."""
        arguments = {"MessageAttributeNames": ["All"], "AttributeNames": ["All"], **arguments}
        found, until = [], time.monotonic() + WAIT_SECS_MAX
        while len(found) < count:
            assert time.monotonic() < until, f"{len(found)} of {count} messages have come"
            answer = self.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1, MaxNumberOfMessages=10, **arguments)
            for message in answer.get("Messages", []):
                found.append(message)
                self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return found

    # What it is compared with.

    def refused(self, key, call, **arguments):
        try:
            answer = call(**arguments)
        except ClientError as error:
            kept = ("Error", "ResponseMetadata")
            self.match(key, {name: value for name, value in error.response.items() if name in kept})
            return
        raise AssertionError(f"{key}: not refused: {answer}")

    def match(self, key, answer):
        self.matched.add(key)
        if key not in self.left_out:
            self._match(self.recorded[key], answer, key)

    def _match(self, expected, actual, at):
        if isinstance(expected, dict):
            if isinstance(actual, str):
                try:
                    actual = json.loads(actual)
                except ValueError:
                    raise Differs(f"{at}: no JSON: {actual!r}") from None
            if not isinstance(actual, dict):
                raise Differs(f"{at}: expected an object, got {actual!r}")
            wanted = {name for name in expected if name not in IGNORED}
            found = {name for name in actual if name not in IGNORED}
            if wanted != found:
                missing, extra = sorted(wanted - found), sorted(found - wanted)
                raise Differs(f"{at}: missing {missing}, too much {extra}")
            # The order decides what a name is bound to first: that of the recording.
            for name in expected:
                if name in wanted:
                    self._match(expected[name], actual[name], f"{at}.{name}")
        elif isinstance(expected, list):
            if not isinstance(actual, list) or len(actual) != len(expected):
                raise Differs(f"{at}: expected {len(expected)} items, got {actual!r}")
            for index, (one, other) in enumerate(zip(expected, actual)):
                self._match(one, other, f"{at}[{index}]")
        elif isinstance(expected, str):
            if expected not in ANYTHING:
                self._match_text(expected, str(actual), at)
        elif expected != actual:
            raise Differs(f"{at}: expected {expected!r}, got {actual!r}")

    def _match_text(self, expected, actual, at):
        pattern, names, end = "", [], 0
        for named in NAMED.finditer(expected):
            pattern += re.escape(expected[end : named.start()]) + "(.*?)"
            names.append(named.group())
            end = named.end()
        found = re.fullmatch(pattern + re.escape(expected[end:]), actual, re.DOTALL)
        if not found:
            raise Differs(f"{at}: expected {expected!r}, got {actual!r}")
        for name, value in zip(names, found.groups()):
            if ":" in name and self.known.setdefault(name, value) != value:
                raise Differs(f"{at}: {name} was {self.known[name]!r}, and is {value!r}")
