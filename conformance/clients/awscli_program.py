#!/usr/bin/env python3
"""The AWS command line against a broker that `tern env` leads it to: what it prints, and how it ends.

AMQP_CTL=.. AMQP_CTL_ENV=.. awscli_program.py [TEXT in the names of the checks to run]
"""

import base64
import contextlib
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from checks import check, equal, main

HOME = pathlib.Path(tempfile.mkdtemp(prefix="awscli-"))
AWS = pathlib.Path(sys.executable).parent / "aws"
# What the command line exits with when the service has refused.
REFUSED = 255
ACCOUNT = "000000000000"


def variables():
    """What `eval "$(tern env)"` leaves in the environment of a shell that knew nothing of AWS."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    plain.update(json.loads(os.environ["AMQP_CTL_ENV"]), TERN=json.loads(os.environ["AMQP_CTL"])[0])
    script = f"eval \"$($TERN env)\" && exec {sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    shell = subprocess.run(["sh", "-c", script], env=plain, capture_output=True, text=True, check=True)
    # No settings of whoever runs this.
    return {**json.loads(shell.stdout), "HOME": str(HOME), "AWS_EC2_METADATA_DISABLED": "true"}


ENVIRONMENT = variables()
os.environ.clear()
os.environ.update(ENVIRONMENT)
os.chdir(HOME)


class Done:
    """A command that has ended."""

    def __init__(self, words):
        # It reads and changes the environment when it is imported.
        from awscli.clidriver import create_clidriver

        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            # In this process: a Python of its own for every command takes ten times as long.
            self.status = create_clidriver().main(words)
        self.output, self.errors = output.getvalue(), errors.getvalue().strip()


def run(*words):
    words = [word if isinstance(word, str) else json.dumps(word) for word in words]
    if words[0] == "sqs":
        # Version 1 has addresses of its own for SQS in most regions, and then looks at no variable.
        words += ["--endpoint-url", ENVIRONMENT["AWS_ENDPOINT_URL"]]
    return Done(words)


def aws(*words):
    """What a command prints that succeeds: an object, or nothing."""
    done = run(*words)
    equal((done.status, done.errors), (0, ""), " ".join(map(str, words)))
    return json.loads(done.output) if done.output.strip() else None


def refused(code, operation, text, *words):
    """A command that the service refuses, with the message that a user sees."""
    done = run(*words)
    message = f"An error occurred ({code}) when calling the {operation} operation: {text}"
    equal((done.status, done.errors), (REFUSED, message), " ".join(map(str, words)))


def create(name, attributes=None):
    given = ["--attributes", attributes] if attributes else []
    return aws("sqs", "create-queue", "--queue-name", name, *given)["QueueUrl"]


def attribute(url, name):
    return aws("sqs", "get-queue-attributes", "--queue-url", url, "--attribute-names", name)["Attributes"][name]


def receive(url, *more):
    words = ["sqs", "receive-message", "--queue-url", url, "--wait-time-seconds", "10", *more]
    return (aws(*words) or {}).get("Messages", [])


@check("tern env leads here")
def _():
    done = subprocess.run([AWS, "sns", "list-topics"], env=ENVIRONMENT, capture_output=True, text=True)
    equal((done.returncode, json.loads(done.stdout), done.stderr), (0, {"Topics": []}, ""))
    # A region for which version 1 has no address of its own. An empty list is no output.
    command = [AWS, "--region", "il-central-1", "sqs", "list-queues"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    equal((done.returncode, done.stdout, done.stderr), (0, "", ""))


@check("sqs, a queue is made, changed, listed and deleted")
def _():
    url = create("first", {"VisibilityTimeout": "45", "DelaySeconds": "0"})
    equal(url, f"{ENVIRONMENT['AWS_ENDPOINT_URL']}/{ACCOUNT}/first")
    equal(aws("sqs", "get-queue-url", "--queue-name", "first")["QueueUrl"], url)
    attributes = aws("sqs", "get-queue-attributes", "--queue-url", url, "--attribute-names", "All")["Attributes"]
    equal((attributes["VisibilityTimeout"], attributes["QueueArn"]), ("45", f"arn:aws:sqs:us-east-1:{ACCOUNT}:first"))
    # The shorthand of the command line.
    change = "MessageRetentionPeriod=600,ReceiveMessageWaitTimeSeconds=1"
    equal(aws("sqs", "set-queue-attributes", "--queue-url", url, "--attributes", change), None)
    equal(attribute(url, "MessageRetentionPeriod"), "600")
    equal(aws("sqs", "list-queues", "--queue-name-prefix", "fir"), {"QueueUrls": [url]})
    text = run("sqs", "list-queues", "--query", "QueueUrls[0]", "--output", "text")
    equal(text.output, url + "\n")
    equal(aws("sqs", "delete-queue", "--queue-url", url), None)
    refused(
        "AWS.SimpleQueueService.NonExistentQueue",
        "GetQueueUrl",
        "The specified queue does not exist.",
        *["sqs", "get-queue-url", "--queue-name", "first"],
    )


@check("sqs, a message with attributes goes through, from a file and back")
def _():
    url = create("messages")
    body = 'Grüße, "quoted"\n<&> \u2028 \U0001f600'
    (HOME / "body").write_text(body)
    attributes = {
        "text": {"DataType": "String", "StringValue": "ü"},
        "number": {"DataType": "Number.int", "StringValue": "7"},
        "bytes": {"DataType": "Binary", "BinaryValue": "as they are"},
    }
    trace = "AWSTraceHeader={DataType=String,StringValue=Root=1-5759e988-bd862e3fe1be46a994272793}"
    (HOME / "attributes").write_text(json.dumps(attributes))
    sent = aws(
        *["sqs", "send-message", "--queue-url", url, "--message-body", "file://body"],
        *["--message-attributes", "file://attributes", "--message-system-attributes", trace],
    )
    (message,) = receive(url, "--attribute-names", "All", "--message-attribute-names", "All")
    equal((message["MessageId"], message["Body"]), (sent["MessageId"], body))
    equal(message["MD5OfBody"], sent["MD5OfMessageBody"])
    equal(message["MD5OfMessageAttributes"], sent["MD5OfMessageAttributes"])
    # Version 1 takes octets as they are and prints them in base64.
    attributes["bytes"]["BinaryValue"] = base64.b64encode(b"as they are").decode()
    equal(message["MessageAttributes"], attributes)
    equal(message["Attributes"]["AWSTraceHeader"], "Root=1-5759e988-bd862e3fe1be46a994272793")
    handle = message["ReceiptHandle"]
    words = ["--queue-url", url, "--receipt-handle", handle]
    equal(aws("sqs", "change-message-visibility", *words, "--visibility-timeout", "0"), None)
    (again,) = receive(url, "--message-system-attribute-names", "ApproximateReceiveCount")
    equal(again["Attributes"], {"ApproximateReceiveCount": "2"})
    equal(aws("sqs", "delete-message", "--queue-url", url, "--receipt-handle", again["ReceiptHandle"]), None)
    equal(attribute(url, "ApproximateNumberOfMessages"), "0")


@check("sqs, the largest message goes through, and one octet more does not")
def _():
    url = create("large")
    (HOME / "largest").write_text("x" * (1 << 20))
    aws("sqs", "send-message", "--queue-url", url, "--message-body", "file://largest")
    equal(len(receive(url)[0]["Body"]), 1 << 20)
    (HOME / "larger").write_text("x" * ((1 << 20) + 1))
    refused(
        "InvalidParameterValue",
        "SendMessage",
        "One or more parameters are invalid. Reason: Message must be shorter than 1048576 bytes.",
        *["sqs", "send-message", "--queue-url", url, "--message-body", "file://larger"],
    )


@check("sqs, batches, with what failed of them")
def _():
    url = create("batches")
    entries = [{"Id": f"m{number}", "MessageBody": str(number)} for number in range(3)]
    entries.append({"Id": "late", "MessageBody": "x", "DelaySeconds": 901})
    answer = aws("sqs", "send-message-batch", "--queue-url", url, "--entries", entries)
    equal([entry["Id"] for entry in answer["Successful"]], ["m0", "m1", "m2"])
    (failed,) = answer["Failed"]
    equal((failed["Id"], failed["SenderFault"], failed["Code"]), ("late", True, "InvalidParameterValue"))
    messages = receive(url, "--max-number-of-messages", "10")
    equal(sorted(message["Body"] for message in messages), ["0", "1", "2"])
    changes = [
        {"Id": str(index), "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 100}
        for index, message in enumerate(messages)
    ]
    changes.append({"Id": "none", "ReceiptHandle": "nonsense", "VisibilityTimeout": 1})
    answer = aws("sqs", "change-message-visibility-batch", "--queue-url", url, "--entries", changes)
    equal([entry["Id"] for entry in answer["Successful"]], ["0", "1", "2"])
    equal([(entry["Id"], entry["Code"]) for entry in answer["Failed"]], [("none", "ReceiptHandleIsInvalid")])
    deletes = [{name: change[name] for name in ("Id", "ReceiptHandle")} for change in changes]
    answer = aws("sqs", "delete-message-batch", "--queue-url", url, "--entries", deletes)
    equal([entry["Id"] for entry in answer["Successful"]], ["0", "1", "2"])
    equal([entry["Id"] for entry in answer["Failed"]], ["none"])
    twice = [{"Id": "same", "MessageBody": "a"}, {"Id": "same", "MessageBody": "b"}]
    refused(
        "AWS.SimpleQueueService.BatchEntryIdsNotDistinct",
        "SendMessageBatch",
        "Id same repeated.",
        *["sqs", "send-message-batch", "--queue-url", url, "--entries", twice],
    )


@check("sqs, a FIFO queue keeps order, knows what it has, and numbers")
def _():
    url = create("orders.fifo", {"FifoQueue": "true", "ContentBasedDeduplication": "true"})
    send = ["sqs", "send-message", "--queue-url", url, "--message-group-id", "g", "--message-body"]
    first = aws(*send, "one")
    equal(aws(*send, "one"), first, "the same again")
    second = aws(*send, "one", "--message-deduplication-id", "another")
    equal(second["SequenceNumber"] > first["SequenceNumber"], True)
    messages = receive(url, "--max-number-of-messages", "10", "--attribute-names", "All")
    equal([message["MessageId"] for message in messages], [first["MessageId"], second["MessageId"]])
    equal({message["Attributes"]["MessageGroupId"] for message in messages}, {"g"})
    equal([message["Attributes"]["SequenceNumber"] for message in messages], [first["SequenceNumber"], second["SequenceNumber"]])
    refused(
        "MissingParameter",
        "SendMessage",
        "The request must contain the parameter MessageGroupId.",
        *["sqs", "send-message", "--queue-url", url, "--message-body", "x"],
    )


@check("sqs, dead letters are listed, moved back, and a move is cancelled")
def _():
    dead = create("dead")
    arn = attribute(dead, "QueueArn")
    url = create("alive", {"RedrivePolicy": json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": "1"})})
    equal(aws("sqs", "list-dead-letter-source-queues", "--queue-url", dead), {"queueUrls": [url]})
    aws("sqs", "send-message", "--queue-url", url, "--message-body", "bad")
    receive(url, "--visibility-timeout", "0")
    equal(aws("sqs", "receive-message", "--queue-url", url), None)
    equal(attribute(dead, "ApproximateNumberOfMessages"), "1")
    task = aws("sqs", "start-message-move-task", "--source-arn", arn)["TaskHandle"]
    (back,) = receive(url)
    equal(back["Body"], "bad")
    (done,) = aws("sqs", "list-message-move-tasks", "--source-arn", arn)["Results"]
    equal((done["Status"], done["ApproximateNumberOfMessagesMoved"]), ("COMPLETED", 1))
    refused(
        "ResourceNotFoundException",
        "CancelMessageMoveTask",
        "Task does not exist.",
        *["sqs", "cancel-message-move-task", "--task-handle", task],
    )


@check("sqs, tags, permissions, purge")
def _():
    url = create("kept")
    equal(aws("sqs", "tag-queue", "--queue-url", url, "--tags", "a=1,b=2"), None)
    equal(aws("sqs", "untag-queue", "--queue-url", url, "--tag-keys", "b"), None)
    equal(aws("sqs", "list-queue-tags", "--queue-url", url), {"Tags": {"a": "1"}})
    grant = ["--label", "l", "--aws-account-ids", "111122223333", "--actions", "SendMessage"]
    equal(aws("sqs", "add-permission", "--queue-url", url, *grant), None)
    (statement,) = json.loads(attribute(url, "Policy"))["Statement"]
    equal((statement["Sid"], statement["Action"]), ("l", "SQS:SendMessage"))
    equal(aws("sqs", "remove-permission", "--queue-url", url, "--label", "l"), None)
    aws("sqs", "send-message", "--queue-url", url, "--message-body", "gone")
    equal(aws("sqs", "purge-queue", "--queue-url", url), None)
    equal(attribute(url, "ApproximateNumberOfMessages"), "0")
    refused(
        "AWS.SimpleQueueService.PurgeQueueInProgress",
        "PurgeQueue",
        "Only one PurgeQueue operation on kept is allowed every 60 seconds.",
        *["sqs", "purge-queue", "--queue-url", url],
    )


@check("sqs, the command line turns pages")
def _():
    for number in range(5):
        create(f"page-{number}")
    words = ["sqs", "list-queues", "--queue-name-prefix", "page-"]
    equal(len(aws(*words, "--page-size", "2")["QueueUrls"]), 5)
    first = aws(*words, "--page-size", "2", "--max-items", "3")
    rest = aws(*words, "--starting-token", first["NextToken"])
    equal([len(first["QueueUrls"]), len(rest["QueueUrls"])], [3, 2])
    equal(len({*first["QueueUrls"], *rest["QueueUrls"]}), 5)


@check("sqs, what is refused, with its text")
def _():
    url = create("refuses")
    refused(
        "InvalidParameterValue",
        "CreateQueue",
        "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length",
        *["sqs", "create-queue", "--queue-name", "a b"],
    )
    refused(
        "InvalidAttributeName",
        "SetQueueAttributes",
        "Unknown Attribute Nonsense.",
        *["sqs", "set-queue-attributes", "--queue-url", url, "--attributes", "Nonsense=1"],
    )
    refused(
        "InvalidParameterValue",
        "ReceiveMessage",
        "Value 11 for parameter MaxNumberOfMessages is invalid. Reason: Must be between 1 and 10, if provided.",
        *["sqs", "receive-message", "--queue-url", url, "--max-number-of-messages", "11"],
    )
    refused(
        "ReceiptHandleIsInvalid",
        "DeleteMessage",
        'The input receipt handle "nonsense" is not a valid receipt handle.',
        *["sqs", "delete-message", "--queue-url", url, "--receipt-handle", "nonsense"],
    )
    missing = url.replace("refuses", "missing")
    refused(
        "AWS.SimpleQueueService.NonExistentQueue",
        "SendMessage",
        "The specified queue does not exist.",
        *["sqs", "send-message", "--queue-url", missing, "--message-body", "x"],
    )


def topic(name, *more):
    return aws("sns", "create-topic", "--name", name, *more)["TopicArn"]


def subscribe(arn, url, attributes=None):
    given = ["--attributes", attributes] if attributes else []
    to = ["--protocol", "sqs", "--notification-endpoint", attribute(url, "QueueArn")]
    return aws("sns", "subscribe", "--topic-arn", arn, *to, *given)["SubscriptionArn"]


@check("sns, a topic is made, changed, tagged, listed and deleted")
def _():
    arn = topic("news", "--attributes", "DisplayName=The News", "--tags", "Key=a,Value=1", "Key=b,Value=2")
    equal(arn, f"arn:aws:sns:us-east-1:{ACCOUNT}:news")
    equal(aws("sns", "list-topics"), {"Topics": [{"TopicArn": arn}]})
    change = ["--attribute-name", "SignatureVersion", "--attribute-value", "2"]
    equal(aws("sns", "set-topic-attributes", "--topic-arn", arn, *change), None)
    attributes = aws("sns", "get-topic-attributes", "--topic-arn", arn)["Attributes"]
    equal((attributes["DisplayName"], attributes["SignatureVersion"]), ("The News", "2"))
    equal(aws("sns", "untag-resource", "--resource-arn", arn, "--tag-keys", "b"), None)
    equal(aws("sns", "tag-resource", "--resource-arn", arn, "--tags", "Key=c,Value=3"), None)
    tags = aws("sns", "list-tags-for-resource", "--resource-arn", arn)["Tags"]
    equal({tag["Key"]: tag["Value"] for tag in tags}, {"a": "1", "c": "3"})
    grant = ["--label", "l", "--aws-account-id", "111122223333", "--action-name", "Publish"]
    equal(aws("sns", "add-permission", "--topic-arn", arn, *grant), None)
    equal(aws("sns", "remove-permission", "--topic-arn", arn, "--label", "l"), None)
    refused(
        "InvalidParameter",
        "CreateTopic",
        "Invalid parameter: Attributes Reason: Topic already exists with different attributes",
        *["sns", "create-topic", "--name", "news", "--attributes", "DisplayName=Other"],
    )
    equal(aws("sns", "delete-topic", "--topic-arn", arn), None)
    refused("NotFound", "GetTopicAttributes", "Topic does not exist", "sns", "get-topic-attributes", "--topic-arn", arn)


@check("sns, what is published reaches queues by their filters, in an envelope or raw")
def _():
    arn, url, raw = topic("events"), create("enveloped"), create("raw")
    subscription = subscribe(arn, url)
    raw_attributes = {"RawMessageDelivery": "true", "FilterPolicy": json.dumps({"kind": ["a"]})}
    filtered = subscribe(arn, raw, raw_attributes)
    attributes = aws("sns", "get-subscription-attributes", "--subscription-arn", filtered)["Attributes"]
    equal((attributes["RawMessageDelivery"], attributes["Owner"]), ("true", ACCOUNT))
    listed = aws("sns", "list-subscriptions-by-topic", "--topic-arn", arn)["Subscriptions"]
    equal({of["SubscriptionArn"] for of in listed}, {subscription, filtered})
    kind = {"kind": {"DataType": "String", "StringValue": "a"}}
    publish = ["sns", "publish", "--topic-arn", arn]
    sent = aws(*publish, "--message", "hello", "--subject", "s", "--message-attributes", kind)
    aws(*publish, "--message", "to one", "--message-attributes", "kind={DataType=String,StringValue=b}")
    (message,) = receive(raw, "--message-attribute-names", "All", "--max-number-of-messages", "10")
    equal((message["Body"], message["MessageAttributes"]), ("hello", kind))
    bodies = []
    while len(bodies) < 2:
        bodies += [json.loads(message["Body"]) for message in receive(url, "--max-number-of-messages", "10")]
    first = next(body for body in bodies if body["MessageId"] == sent["MessageId"])
    equal((first["Message"], first["Subject"], first["TopicArn"]), ("hello", "s", arn))
    equal(first["MessageAttributes"], {"kind": {"Type": "String", "Value": "a"}})
    entries = [{"Id": "1", "Message": "x"}, {"Id": "2", "Message": "y", "MessageAttributes": kind}]
    answer = aws("sns", "publish-batch", "--topic-arn", arn, "--publish-batch-request-entries", entries)
    equal([entry["Id"] for entry in answer["Successful"]], ["1", "2"])
    equal([message["Body"] for message in receive(raw, "--max-number-of-messages", "10")], ["y"])
    change = ["--attribute-name", "FilterPolicy", "--attribute-value", '{"kind": ["c"]}']
    equal(aws("sns", "set-subscription-attributes", "--subscription-arn", filtered, *change), None)
    texts = {"default": "for all", "sqs": "for queues"}
    kind["kind"]["StringValue"] = "c"
    aws(*publish, "--message", texts, "--message-structure", "json", "--message-attributes", kind)
    equal([message["Body"] for message in receive(raw)], ["for queues"])
    equal(aws("sns", "unsubscribe", "--subscription-arn", filtered), None)
    refused(
        "NotFound",
        "GetSubscriptionAttributes",
        "Subscription does not exist",
        *["sns", "get-subscription-attributes", "--subscription-arn", filtered],
    )


@check("sns, a FIFO topic reaches a FIFO queue")
def _():
    attributes = {"FifoTopic": "true", "ContentBasedDeduplication": "true"}
    arn = topic("events.fifo", "--attributes", json.dumps(attributes))
    url = create("from-topic.fifo", {"FifoQueue": "true"})
    subscribe(arn, url, {"RawMessageDelivery": "true"})
    sent = aws("sns", "publish", "--topic-arn", arn, "--message", "x", "--message-group-id", "g")
    equal(len(sent["SequenceNumber"]), 20)
    (message,) = receive(url, "--attribute-names", "MessageGroupId")
    equal((message["Body"], message["Attributes"]), ("x", {"MessageGroupId": "g"}))


@check("sns, mobile push, text messages and their sandbox")
def _():
    # Other platforms have two.
    keys = {"PlatformCredential": "key"}
    make = ["sns", "create-platform-application", "--name", "app", "--platform", "GCM", "--attributes", keys]
    application = aws(*make)["PlatformApplicationArn"]
    of = ["--platform-application-arn", application]
    endpoint = aws("sns", "create-platform-endpoint", *of, "--token", "t")["EndpointArn"]
    listed = aws("sns", "list-endpoints-by-platform-application", *of)["Endpoints"]
    equal([(each["EndpointArn"], each["Attributes"]["Token"]) for each in listed], [(endpoint, "t")])
    aws("sns", "set-endpoint-attributes", "--endpoint-arn", endpoint, "--attributes", "Enabled=false")
    refused(
        "EndpointDisabled",
        "Publish",
        "Endpoint is disabled",
        *["sns", "publish", "--target-arn", endpoint, "--message", "x"],
    )
    aws("sns", "delete-endpoint", "--endpoint-arn", endpoint)
    aws("sns", "delete-platform-application", *of)
    equal(len(aws("sns", "publish", "--phone-number", "+4915112345678", "--message", "x")["MessageId"]), 36)
    aws("sns", "set-sms-attributes", "--attributes", "DefaultSMSType=Transactional")
    equal(aws("sns", "get-sms-attributes"), {"attributes": {"DefaultSMSType": "Transactional"}})
    number = ["--phone-number", "+4915112345678"]
    equal(aws("sns", "check-if-phone-number-is-opted-out", *number), {"isOptedOut": False})
    equal(aws("sns", "list-phone-numbers-opted-out"), {"phoneNumbers": []})
    aws("sns", "create-sms-sandbox-phone-number", *number)
    (listed,) = aws("sns", "list-sms-sandbox-phone-numbers")["PhoneNumbers"]
    equal(listed["PhoneNumber"], number[1])
    equal(type(aws("sns", "get-sms-sandbox-account-status")["IsInSandbox"]), bool)


@check("sns, what is refused, with its text")
def _():
    arn = topic("refuses")
    publish = ["sns", "publish", "--topic-arn", arn]
    refused("InvalidParameter", "Publish", "Invalid parameter: Empty message", *publish, "--message", "")
    refused(
        "InvalidParameter",
        "Publish",
        "Invalid parameter: Message Structure - No default entry in JSON message body",
        *publish,
        *["--message", "{}", "--message-structure", "json"],
    )
    refused(
        "InvalidParameter",
        "Subscribe",
        "Invalid parameter: SQS endpoint ARN",
        *["sns", "subscribe", "--topic-arn", arn, "--protocol", "sqs", "--notification-endpoint", "nonsense"],
    )
    refused(
        "InvalidParameter",
        "ConfirmSubscription",
        "Invalid token",
        *["sns", "confirm-subscription", "--topic-arn", arn, "--token", "nonsense"],
    )
    refused("NotFound", "Publish", "Topic does not exist", *publish[:-1], arn + "x", "--message", "x")


if __name__ == "__main__":
    main()
