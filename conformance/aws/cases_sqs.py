"""The requests of the recorded cases of SQS: each function sends what its case sent to AWS."""

import json
import time

TRACE = "Root=1-3152b799-8954dae64eda91bc9a23a7e8;Parent=7fa8c0f79203be72;Sampled=1"
MESSAGE_BYTES_MAX = 1_048_576
ATTRIBUTE = {"k": {"DataType": "String", "StringValue": "x"}}
ATTRIBUTE_BYTES = len("kStringx")
COUNTS = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed")


def counts(t, url):
    found = t.attributes(url, *COUNTS)["Attributes"]
    return tuple(int(found[name]) for name in COUNTS)


def entries(count):
    return [{"Id": f"message-{n}", "MessageBody": f"body {n}"} for n in range(count)]


def receive_all(t, url, count):
    received = []
    while len(received) < count:
        wanted = min(10, count - len(received))
        received += t.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=wanted)["Messages"]
    return received


# Sizes and counts.


def test_send_receive_max_number_of_messages(t):
    url = t.queue()
    t.sqs.send_message(QueueUrl=url, MessageBody="message")
    t.refused("send_max_number_of_messages", t.sqs.receive_message, QueueUrl=url, MaxNumberOfMessages=11)


def test_send_oversized_message(t):
    body = "a" * (MESSAGE_BYTES_MAX - ATTRIBUTE_BYTES + 1)
    arguments = {"QueueUrl": t.queue(), "MessageBody": body, "MessageAttributes": ATTRIBUTE}
    t.refused("send_oversized_message", t.sqs.send_message, **arguments)


def test_send_message_with_updated_maximum_message_size(t):
    url = t.queue()
    t.sqs.set_queue_attributes(QueueUrl=url, Attributes={"MaximumMessageSize": "1024"})
    t.sqs.send_message(QueueUrl=url, MessageBody="a" * 1024)
    body = "a" * (1024 - ATTRIBUTE_BYTES + 1)
    arguments = {"QueueUrl": url, "MessageBody": body, "MessageAttributes": ATTRIBUTE}
    t.refused("send_oversized_message", t.sqs.send_message, **arguments)


def batch_of_two(size):
    first = {"Id": "1", "MessageBody": "a" * (size - ATTRIBUTE_BYTES), "MessageAttributes": ATTRIBUTE}
    return [first, {"Id": "2", "MessageBody": "a"}]


def test_send_message_batch_with_oversized_contents(t):
    arguments = {"QueueUrl": t.queue(), "Entries": batch_of_two(MESSAGE_BYTES_MAX)}
    t.refused("send_oversized_message_batch", t.sqs.send_message_batch, **arguments)


def test_send_message_batch_with_oversized_contents_with_updated_maximum_message_size(t):
    url = t.queue()
    t.sqs.set_queue_attributes(QueueUrl=url, Attributes={"MaximumMessageSize": "2048"})
    answer = t.sqs.send_message_batch(QueueUrl=url, Entries=batch_of_two(2048))
    t.match("send_oversized_message_batch", answer)


def test_send_batch_message_size(t):
    url = t.queue(Attributes={"MaximumMessageSize": "1024"})
    ids = "a4cff0d1-1961-44bd-ae53-c6d5ed71ed08", "35b535ed-b76a-4ebd-b749-6eb35cdb55ee"
    batch = [{"Id": id, "MessageBody": "a" * size} for id, size in zip(ids, (1024, 1025))]
    t.match("send-message-batch-result", t.sqs.send_message_batch(QueueUrl=url, Entries=batch))


# Batches.


def test_too_many_entries_in_batch_request(t):
    arguments = {"QueueUrl": t.queue(), "Entries": entries(20)}
    t.refused("test_too_many_entries_in_batch_request", t.sqs.send_message_batch, **arguments)


def test_invalid_batch_id(t):
    batch = [{"Id": "message:1", "MessageBody": "body"}]
    t.refused("test_invalid_batch_id", t.sqs.send_message_batch, QueueUrl=t.queue(), Entries=batch)


def test_delete_message_batch_invalid_msg_id(t):
    batch = [{"Id": t.parameter, "ReceiptHandle": "handle"}]
    t.refused("error_response", t.sqs.delete_message_batch, QueueUrl=t.queue(), Entries=batch)


def twenty_received(t):
    url = t.queue()
    for _ in range(2):
        t.sqs.send_message_batch(QueueUrl=url, Entries=entries(10))
    return url, receive_all(t, url, 20)


def test_delete_message_batch_with_too_large_batch(t):
    url, received = twenty_received(t)
    batch = [{"Id": str(n), "ReceiptHandle": one["ReceiptHandle"]} for n, one in enumerate(received)]
    t.refused("error_response", t.sqs.delete_message_batch, QueueUrl=url, Entries=batch)


def test_change_message_visibility_batch_with_too_large_batch(t):
    url, received = twenty_received(t)
    handles = enumerate(one["ReceiptHandle"] for one in received)
    batch = [{"Id": str(n), "ReceiptHandle": handle, "VisibilityTimeout": 123} for n, handle in handles]
    t.refused("error_response", t.sqs.change_message_visibility_batch, QueueUrl=url, Entries=batch)


def grouped(**parameters):
    return {"MessageBody": "body", **parameters}


def test_send_batch_missing_deduplication_id_for_fifo_queue(t):
    url = t.fifo(ContentBasedDeduplication="false")
    one = grouped(Id="a", MessageGroupId="g", MessageDeduplicationId="d1")
    other = grouped(Id="b", MessageGroupId="g")
    key = "test_missing_deduplication_id_for_fifo_queue"
    t.refused(key, t.sqs.send_message_batch, QueueUrl=url, Entries=[one, other])


def test_send_batch_missing_message_group_id_for_fifo_queue(t):
    url = t.fifo(ContentBasedDeduplication="false")
    one = grouped(Id="a", MessageGroupId="g", MessageDeduplicationId="d1")
    other = grouped(Id="b", MessageDeduplicationId="d2")
    key = "test_missing_message_group_id_for_fifo_queue"
    t.refused(key, t.sqs.send_message_batch, QueueUrl=url, Entries=[one, other])


# Queues, their attributes, tags and permissions.


def test_non_existent_queue(t):
    name = t.name_of("queue")
    url = t.queue(name)
    t.sqs.delete_queue(QueueUrl=url)
    t.refused("queue-does-not-exist", t.json.get_queue_attributes, QueueUrl=url)
    t.refused("queue-does-not-exist-url", t.json.get_queue_url, QueueName=name)
    t.refused("queue-does-not-exist-query", t.query.get_queue_attributes, QueueUrl=url)


def test_list_queues_pagination(t):
    prefix = "7f7df0f5"
    for n in range(10):
        t.queue(f"{prefix}-test-queue-{n}")

    def listed(key, **arguments):
        answer = t.sqs.list_queues(QueueNamePrefix=prefix, **arguments)
        answer["QueueUrls"] = [url.rsplit("/", 2)[1:] for url in answer["QueueUrls"]]
        answer.pop("ResponseMetadata")
        token = answer.pop("NextToken", None)
        expected = dict(t.recorded[key])
        expected.pop("ResponseMetadata", None)
        assert (token is None) == (expected.pop("NextToken", None) is None), "a token where there is more"
        expected["QueueUrls"] = [url.rsplit("/", 2)[1:] for url in expected["QueueUrls"]]
        t.recorded[key] = expected
        t.match(key, answer)
        return token

    listed("list_all")
    token = listed("list_two_max", MaxResults=2)
    listed("list_remaining", MaxResults=10, NextToken=token)


def test_create_fifo_queue_with_different_attributes_raises_error(t):
    name = t.name_of("queue") + ".fifo"
    t.queue(name, Attributes={"FifoQueue": "true", "ContentBasedDeduplication": "true"})
    differs = {"FifoQueue": "true", "ContentBasedDeduplication": "false"}
    t.refused("queue-already-exists", t.json.create_queue, QueueName=name, Attributes=differs)


def test_create_queue_with_different_attributes_raises_exception(t):
    name = t.name_of("queue")

    def with_delay(secs):
        return {"ReceiveMessageWaitTimeSeconds": "1", "DelaySeconds": secs}

    url = t.queue(name, Attributes=with_delay("1"))
    assert t.queue(name) == url
    assert t.queue(name, Attributes={"DelaySeconds": "1"}) == url
    t.refused("create_queue_01", t.json.create_queue, QueueName=name, Attributes=with_delay("2"))
    t.sqs.set_queue_attributes(QueueUrl=url, Attributes={"DelaySeconds": "2"})
    assert t.queue(name, Attributes=with_delay("2")) == url
    t.refused("create_queue_02", t.json.create_queue, QueueName=name, Attributes=with_delay("1"))


def test_create_and_update_queue_attributes(t):
    created = {"MessageRetentionPeriod": "604800", "ReceiveMessageWaitTimeSeconds": "10", "VisibilityTimeout": "20"}
    url = t.queue(Attributes=created)
    t.match("get_queue_attributes", t.attributes(url))
    changed = {"MaximumMessageSize": "2048", "VisibilityTimeout": "69", "DelaySeconds": "420"}
    t.sqs.set_queue_attributes(QueueUrl=url, Attributes=changed)
    t.match("get_updated_queue_attributes", t.attributes(url))


def test_set_queue_attributes_default_values(t):
    url = t.queue()
    t.match("get-queue-attributes-initial-values", t.attributes(url))
    changed = {"KmsMasterKeyId": "testKeyId", "KmsDataKeyReusePeriodSeconds": "6000"}
    t.sqs.set_queue_attributes(QueueUrl=url, Attributes=changed)
    t.match("get-queue-attributes-after-update", t.attributes(url))
    defaults = {"KmsMasterKeyId": "", "KmsDataKeyReusePeriodSeconds": "300"}
    t.sqs.set_queue_attributes(QueueUrl=url, Attributes=defaults)
    t.match("get-queue-attributes-after-set-to-defaults", t.attributes(url))


SSE = ("KmsMasterKeyId", "KmsDataKeyReusePeriodSeconds", "SqsManagedSseEnabled")


def test_sse_queue_attributes(t):
    url = t.queue()
    attributes = dict(zip(SSE, ("testKeyId", "6000", "false")))
    t.sqs.set_queue_attributes(QueueUrl=url, Attributes=attributes)
    t.match("sse_kms_attributes", t.attributes(url, *SSE))
    url = t.queue()
    t.sqs.set_queue_attributes(QueueUrl=url, Attributes={"SqsManagedSseEnabled": "true"})
    t.match("sse_sqs_attributes", t.attributes(url, *SSE))


def test_sse_kms_and_sqs_are_mutually_exclusive(t):
    attributes = {"KmsMasterKeyId": "testKeyId", "SqsManagedSseEnabled": "true"}
    try:
        t.sqs.set_queue_attributes(QueueUrl=t.queue(), Attributes=attributes)
    except t.sqs.exceptions.ClientError as error:
        t.match("error", str(error))
    else:
        raise AssertionError("not refused")


def test_create_standard_queue_with_fifo_attribute_raises_error(t):
    for key, name, value in [
        ("invalid-attribute-fifo-queue", "FifoQueue", "false"),
        ("invalid-attribute-content-based-deduplication", "ContentBasedDeduplication", "false"),
        ("invalid-attribute-deduplication-scope", "DeduplicationScope", "queue"),
        ("invalid-attribute-throughput-limit", "FifoThroughputLimit", "perQueue"),
    ]:
        t.refused(key, t.json.create_queue, QueueName=t.name_of("queue"), Attributes={name: value})


def test_set_unsupported_attribute_standard(t):
    url = t.queue()
    for n, value in (1, "true"), (2, "false"):
        attributes = {"FifoQueue": value}
        t.refused(f"invalid-attr-name-{n}", t.sqs.set_queue_attributes, QueueUrl=url, Attributes=attributes)


def test_set_unsupported_attribute_fifo(t):
    url = t.queue()
    t.refused("invalid-attr-name-1", t.sqs.set_queue_attributes, QueueUrl=url, Attributes={"FifoQueue": "true"})
    url = t.fifo()
    t.sqs.set_queue_attributes(QueueUrl=url, Attributes={"FifoQueue": "true"})
    t.refused("invalid-attr-name-2", t.sqs.set_queue_attributes, QueueUrl=url, Attributes={"FifoQueue": "false"})


def test_fifo_set_content_based_deduplication_strategy(t):
    url = t.fifo(SqsManagedSseEnabled="true", ContentBasedDeduplication="true")
    t.match("before-update", t.attributes(url))
    t.sqs.set_queue_attributes(QueueUrl=url, Attributes={"ContentBasedDeduplication": "false"})
    t.match("after-update", t.attributes(url))


def test_set_empty_redrive_policy(t):
    name = t.name_of("queue")
    url = t.queue(name)
    t.sqs.set_queue_attributes(QueueUrl=name, Attributes={"RedrivePolicy": ""})
    assert "RedrivePolicy" not in t.attributes(url)["Attributes"]
    policy = json.dumps({"deadLetterTargetArn": t.arn(url), "maxReceiveCount": "42"})
    t.sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": policy})
    assert t.arn(url) in t.attributes(url)["Attributes"]["RedrivePolicy"]
    t.sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": ""})
    assert "RedrivePolicy" not in t.attributes(url)["Attributes"]


def test_tag_untag_queue(t):
    url = t.queue()
    t.sqs.tag_queue(QueueUrl=url, Tags={"tag1": "value1", "tag2": "value2", "tag3": ""})
    t.match("get-tag-1", t.sqs.list_queue_tags(QueueUrl=url))
    t.sqs.untag_queue(QueueUrl=url, TagKeys=["tag1", "tag3"])
    t.match("get-tag-2", t.sqs.list_queue_tags(QueueUrl=url))
    t.sqs.untag_queue(QueueUrl=url, TagKeys=["tag2"])
    t.match("get-tag-after-untag", t.sqs.list_queue_tags(QueueUrl=url))


def test_sqs_permission_lifecycle(t):
    url = t.queue()
    own, other = url.split("/")[-2], "668614515564"
    label = "crossaccountpermission"

    def add(accounts, label):
        arguments = {"AWSAccountIds": accounts, "Actions": ["ReceiveMessage"], "Label": label}
        return {"QueueUrl": url, **arguments}

    def policy(key):
        answer = t.attributes(url, "Policy")
        if "Attributes" in answer:
            policy = json.loads(answer["Attributes"]["Policy"])
            principals = policy["Statement"][0]["Principal"]["AWS"]
            if isinstance(principals, list):
                principals.sort(key=lambda arn: other not in arn)
            answer["Attributes"]["Policy"] = policy
        t.match(key, answer)

    t.match("add-permission-response", t.sqs.add_permission(**add([own, other], label)))
    policy("get-queue-policy-attribute")
    t.match("remove-permission-response", t.sqs.remove_permission(QueueUrl=url, Label=label))
    policy("get-queue-policy-attribute-after-removal")
    t.sqs.add_permission(**add([own], label))
    policy("get-queue-policy-attribute-first-account-same-label")
    t.refused("get-queue-policy-attribute-second-account-same-label", t.sqs.add_permission, **add([other], label))
    t.sqs.add_permission(**add([own], label + "2"))
    policy("get-queue-policy-attribute-second-account-different-label")
    t.sqs.remove_permission(QueueUrl=url, Label=label)
    policy("get-queue-policy-attribute-delete-first-permission")
    t.sqs.remove_permission(QueueUrl=url, Label=label + "2")
    policy("get-queue-policy-attribute-delete-second-permission")
    key = "get-queue-policy-attribute-delete-non-existent-label"
    t.refused(key, t.sqs.remove_permission, QueueUrl=url, Label=label + "2")


def test_successive_purge_calls_fail(t):
    url = t.queue()
    t.sqs.purge_queue(QueueUrl=url)
    t.refused("purge_queue_error", t.sqs.purge_queue, QueueUrl=url)


# Sending.


def test_send_empty_message(t):
    t.refused("send_empty_message", t.sqs.send_message, QueueUrl=t.queue(), MessageBody="")


def test_send_message_with_empty_string_attribute(t):
    attributes = {"ErrorDetails": {"StringValue": "", "DataType": "String"}}
    arguments = {"QueueUrl": t.queue(), "MessageBody": "test", "MessageAttributes": attributes}
    t.refused("empty-string-attr", t.sqs.send_message, **arguments)


def test_send_message_with_binary_attributes(t):
    url = t.queue()
    value = b"traceparent\x1e00-774062d6c37081a5a0b9b5b88e30627c-2d2482211f6489da-01"
    attributes = {"attr1": {"BinaryValue": value, "DataType": "Binary"}}
    sent = t.sqs.send_message(QueueUrl=url, MessageBody="test", MessageAttributes=attributes)
    answer = t.sqs.receive_message(QueueUrl=url, MessageAttributeNames=["All"])
    t.match("binary-attrs-msg", answer)
    received = answer["Messages"][0]
    assert received["MessageAttributes"] == attributes
    for name in ("MessageId", "MD5OfMessageAttributes"):
        assert received[name] == sent[name]


ILLEGAL = {"empty": "", "too_long": "a" * 129, "spaces": "group 123"}


def test_send_message_to_standard_queue_with_invalid_message_group_id(t):
    group = ILLEGAL[t.parameters]
    arguments = {"QueueUrl": t.queue(), "MessageBody": "message", "MessageGroupId": group}
    t.refused("error-response", t.sqs.send_message, **arguments)


def test_message_deduplication_id_invalid(t):
    ids = {"MessageGroupId": "test", "MessageDeduplicationId": ILLEGAL[t.parameters]}
    t.refused("error-response", t.sqs.send_message, QueueUrl=t.fifo(), MessageBody="Hello World!", **ids)


def test_message_deduplication_id_success(t):
    ids = {"MessageGroupId": "test", "MessageDeduplicationId": "a" * 128}
    t.sqs.send_message(QueueUrl=t.fifo(), MessageBody="Hello World!", **ids)


def test_posting_to_fifo_requires_deduplicationid_group_id(t):
    url = t.fifo()
    for client, suffix in (t.sqs, ""), (t.json, "-query"):
        arguments = {"QueueUrl": url, "MessageBody": "body"}
        t.refused("invalid-parameter-value" + suffix, client.send_message, MessageGroupId="g", **arguments)
        t.refused("missing-parameter" + suffix, client.send_message, MessageDeduplicationId="d", **arguments)


def test_fifo_queue_send_message_with_delay_seconds_fails(t):
    url = t.fifo(ContentBasedDeduplication="true")
    arguments = {"QueueUrl": url, "MessageBody": "message-1", "MessageGroupId": "1", "DelaySeconds": 2}
    t.refused("send_message", t.sqs.send_message, **arguments)


def test_fifo_queue_send_message_with_zero_delay_defaults_to_queue_delay(t):
    url = t.fifo(ContentBasedDeduplication="true", DelaySeconds="2")
    sent = t.sqs.send_message(QueueUrl=url, MessageBody="message-1", MessageGroupId="1", DelaySeconds=0)
    t.match("send_message_result", sent)
    t.match("receive_message_initial_result", t.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1))
    t.match("receive_message_after_delay_result", t.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=3))


def test_aws_trace_header_propagation(t):
    def add_header(request, **_):
        request.headers["X-Amzn-Trace-Id"] = TRACE

    url = t.queue()
    event = "before-send.sqs.SendMessage"
    t.sqs.meta.events.register(event, add_header)
    try:
        attributes = {"timestamp": {"StringValue": "1493147359900", "DataType": "Number"}}
        t.sqs.send_message(QueueUrl=url, MessageBody="test", MessageAttributes=attributes)
    finally:
        t.sqs.meta.events.unregister(event, add_header)
    names = {"AttributeNames": ["SentTimestamp", "AWSTraceHeader"], "MessageAttributeNames": ["All"]}
    answer = t.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=2, **names)
    t.match("xray-msg", {**answer["Messages"][0], "MessageAttributes": {"timestamp": "timestamp"}})


# Receiving.


def test_send_receive_wait_time_seconds(t):
    url = t.queue()
    for _ in range(2):
        t.sqs.send_message(QueueUrl=url, MessageBody="message")
    t.refused("recieve_message_error_too_large", t.sqs.receive_message, QueueUrl=url, WaitTimeSeconds=21)
    t.refused("recieve_message_error_too_small", t.sqs.receive_message, QueueUrl=url, WaitTimeSeconds=-1)
    t.match("empty_short_poll_by_default_resp", t.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=1))
    answer = t.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=1, WaitTimeSeconds=0)
    t.match("empty_short_poll_explicit_resp", answer)


def test_receive_empty_queue(t):
    url = t.queue()
    t.match("empty_short_poll_resp_no_param", t.sqs.receive_message(QueueUrl=url))
    t.match("empty_short_poll_resp", t.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=1))
    answer = t.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=1, WaitTimeSeconds=1)
    t.match("empty_long_poll_resp", answer)


def test_send_message_via_queue_url_with_json_protocol(t):
    import harness

    url = t.queue()
    answer = harness.client(url, "sqs").receive_message(QueueUrl=url, WaitTimeSeconds=1)
    assert answer["ResponseMetadata"]["HTTPHeaders"]["content-type"] == "application/x-amz-json-1.0"
    t.match("receive-json-on-queue-url", answer)


def one_message(t, attributes):
    url = t.queue(Attributes={"VisibilityTimeout": "0"})
    return url, t.sqs.send_message(QueueUrl=url, MessageBody="msg", MessageAttributes=attributes)


FOO = {"Foo": {"DataType": "String", "StringValue": "Bar"}}


def selected(t, parameter):
    url, _ = one_message(t, FOO)
    for key, system, attributes in [
        ("all_attributes", ["All"], []),
        ("all_system_and_message_attributes", ["All"], ["All"]),
        ("single_attribute", ["SenderId"], []),
        ("multiple_attributes", ["SenderId", "SequenceNumber"], []),
    ]:
        names = {parameter: system, "MessageAttributeNames": attributes}
        t.match(key, t.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5, **names))


def test_receive_message_attribute_names_filters(t):
    selected(t, "AttributeNames")


def test_receive_message_message_system_attribute_names_filters(t):
    selected(t, "MessageSystemAttributeNames")


def test_message_system_attribute_names_with_attribute_names(t):
    url, _ = one_message(t, FOO)
    for key, old in ("same_values", ["All"]), ("different_values", ["SenderId"]):
        names = {"MessageSystemAttributeNames": ["All"], "AttributeNames": old}
        t.match(key, t.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5, **names))


def test_receive_message_message_attribute_names_filters(t):
    texts = {"Help.Me": "Me", "Hello": "There", "General": "Kenobi"}
    attributes = {name: {"DataType": "String", "StringValue": text} for name, text in texts.items()}
    url, sent = one_message(t, attributes)
    t.match("send_message_response", sent)
    for key, names, is_whole in [
        ("empty_filter", [], True),
        ("all_name", ["All"], True),
        ("all_wildcard_asterisk", ["*"], False),
        ("all_wildcard", [".*"], False),
        ("only_non_existing_names", ["Foo", "Help"], False),
        ("only_existing", ["Hello", "General"], False),
        ("existing_and_non_existing", ["Foo", "Hello"], False),
        ("prefix_filter", ["Hel.*"], False),
        ("illegal_name_1", ["AWS."], True),
        ("illegal_name_2", ["..foo"], True),
    ]:
        answer = t.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5, MessageAttributeNames=names)
        t.match(key, answer if is_whole else answer["Messages"][0])


# Visibility.


def test_change_message_visibility_after_visibility_timeout_expiration(t):
    url = t.queue(Attributes={"VisibilityTimeout": "1"})
    t.sqs.send_message(QueueUrl=url, MessageBody="test")
    handle = t.sqs.receive_message(QueueUrl=url)["Messages"][0]["ReceiptHandle"]
    t.wait_for(lambda: counts(t, url)[0] == 1)
    answer = t.sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=2)
    t.match("visibility_timeout_expired", answer)


def test_delete_after_visibility_timeout(t):
    url = t.queue(Attributes={"VisibilityTimeout": "1"})
    t.sqs.send_message(QueueUrl=url, MessageBody="foobar")
    handle = t.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5)["Messages"][0]["ReceiptHandle"]
    t.wait_for(lambda: counts(t, url)[0] == 1)
    t.sqs.delete_message(QueueUrl=url, ReceiptHandle=handle)
    t.match("delete_after_timeout_queue_empty", t.sqs.receive_message(QueueUrl=url))


def one_of_a_group(t):
    url = t.fifo(VisibilityTimeout="1", ContentBasedDeduplication="true")
    t.sqs.send_message(QueueUrl=url, MessageBody="foobar", MessageGroupId="1")
    answer = t.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5)
    t.match("received_sqs_message", answer)
    return url, answer["Messages"][0]["ReceiptHandle"]


def test_fifo_delete_after_visibility_timeout(t):
    url, handle = one_of_a_group(t)
    t.wait_for(lambda: counts(t, url)[0] == 1)
    t.refused("delete_after_timeout_fifo", t.sqs.delete_message, QueueUrl=url, ReceiptHandle=handle)


def test_fifo_delete_after_visibility_timeout_extended(t):
    url, handle = one_of_a_group(t)
    t.sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=5)
    time.sleep(1.5)
    t.sqs.delete_message(QueueUrl=url, ReceiptHandle=handle)
    t.match("delete_after_timeout_fifo_extended", t.sqs.receive_message(QueueUrl=url))


def test_fifo_group_visibility_extends_with_change_message_visibility(t):
    url = t.fifo(VisibilityTimeout="1")
    for body in ("foo", "bar", "baz"):
        ids = {"MessageGroupId": "1", "MessageDeduplicationId": body}
        t.sqs.send_message(QueueUrl=url, MessageBody=body, **ids)
    answer = t.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=5)
    t.match("receive_all_messages", answer)
    first = t.parameter.split("-")[0]
    # Two names of the same cases, by what is still visible and by what is not any more.
    extended = int(first) if first.isdigit() and "visible" == t.parameter.split("-")[1] else None
    if extended is None:
        extended = {"all": 0, "1": 1, "no": 2}[first]
    handle = answer["Messages"][extended]["ReceiptHandle"]
    t.sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=4)
    time.sleep(2.5)
    t.match("some-messages-invisible", t.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=5))


def test_approximate_number_of_messages_not_visible(t):
    url = t.queue(Attributes={"VisibilityTimeout": "5"})
    for n in range(6):
        t.sqs.send_message(QueueUrl=url, MessageBody=f"message-{n}")
    t.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=1)
    assert counts(t, url) == (5, 1, 0)
    t.wait_for(lambda: counts(t, url) == (6, 0, 0))


def test_fifo_approximate_number_of_messages_not_visible(t):
    url = t.fifo(ContentBasedDeduplication="True", VisibilityTimeout="5")
    for n in range(6):
        t.sqs.send_message(QueueUrl=url, MessageBody=f"message-{n}", MessageGroupId=str(n // 2 + 1))
    for group in ("1", "2"):
        names = {"MessageSystemAttributeNames": ["MessageGroupId"]}
        answer = t.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=1, **names)
        assert answer["Messages"][0]["Attributes"]["MessageGroupId"] == group
    assert counts(t, url) == (4, 2, 0)
    t.wait_for(lambda: counts(t, url) == (6, 0, 0))


# Order, groups and repetitions.


def test_fair_queue_with_message_group_id(t):
    url = t.queue()
    t.match("send_message", t.sqs.send_message(QueueUrl=url, MessageBody="message", MessageGroupId="test"))
    answer = t.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5, AttributeNames=["All"])
    t.match("get-message-with-deduplication-id", answer)


def test_fifo_message_attributes(t):
    url = t.fifo(
        ContentBasedDeduplication="true",
        VisibilityTimeout="0",
        DeduplicationScope="messageGroup",
        FifoThroughputLimit="perMessageGroupId",
    )
    ids = {"MessageGroupId": "group-1", "MessageDeduplicationId": "dedup-1"}
    t.match("send_message", t.sqs.send_message(QueueUrl=url, MessageBody="message-body-1", **ids))
    for n in range(2):
        answer = t.sqs.receive_message(QueueUrl=url, AttributeNames=["All"], WaitTimeSeconds=10)
        t.match(f"receive_message_{n}", answer)


def test_fifo_empty_message_groups_added_back_to_queue(t):
    url = t.fifo()

    def send(n):
        ids = {"MessageGroupId": "g1", "MessageDeduplicationId": str(n)}
        t.sqs.send_message(QueueUrl=url, MessageBody=f"Message {n}", **ids)

    send(1)
    answer = t.sqs.receive_message(QueueUrl=url)
    t.match("inital-fifo-receive", answer)
    t.sqs.delete_message(QueueUrl=url, ReceiptHandle=answer["Messages"][0]["ReceiptHandle"])
    t.match("empty-fifo-receive", t.sqs.receive_message(QueueUrl=url))
    send(2)
    t.match("final-fifo-receive", t.sqs.receive_message(QueueUrl=url))


def deduplicated(t):
    is_by_content = t.parameter == "True"
    ids = {} if is_by_content else {"MessageDeduplicationId": "dedup1"}
    return t.fifo(ContentBasedDeduplication=str(is_by_content).lower()), ids


def test_fifo_deduplication_arrives_once_after_delete(t):
    url, ids = deduplicated(t)
    arguments = {"QueueUrl": url, "MessageBody": '{"foo": "bar"}', "MessageGroupId": "group-1", **ids}
    first = t.sqs.send_message(**arguments)
    answer = t.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=1, WaitTimeSeconds=2)
    t.match("get-messages", answer)
    t.sqs.delete_message(QueueUrl=url, ReceiptHandle=answer["Messages"][0]["ReceiptHandle"])
    second = t.sqs.send_message(**arguments)
    assert second["MessageId"] == first["MessageId"]
    t.match("get-messages-duplicate", t.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1))


def test_fifo_deduplication_not_on_message_group_id(t):
    url, ids = deduplicated(t)
    for group in ("group-1", "group-2"):
        t.sqs.send_message(QueueUrl=url, MessageBody='{"foo": "bar"}', MessageGroupId=group, **ids)
    t.match("get-messages", t.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=1, WaitTimeSeconds=2))
    t.match("get-dedup-messages", t.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=1, WaitTimeSeconds=1))


def sent_and_taken(t, url, key, body, group, dedup=None):
    """Sends a message, receives what there is, and deletes it."""
    ids = {"MessageDeduplicationId": dedup} if dedup else {}
    t.sqs.send_message(QueueUrl=url, MessageBody=body, MessageGroupId=group, **ids)
    answer = t.sqs.receive_message(QueueUrl=url)
    t.match(key, answer)
    for message in answer.get("Messages", []):
        t.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


HIGH = {"DeduplicationScope": "messageGroup", "FifoThroughputLimit": "perMessageGroupId"}
REGULAR = {"DeduplicationScope": "queue", "FifoThroughputLimit": "perQueue"}


def test_sqs_fifo_same_dedup_id_different_message_groups(t):
    url = t.fifo(ContentBasedDeduplication="False")
    for n in (1, 2):
        sent_and_taken(t, url, f"same-dedup-different-grp-{n}", "Test", f"group{n}", "same-dedup")


def test_sqs_fifo_message_group_scope_no_throughput_setting(t):
    url = t.fifo(ContentBasedDeduplication="True", DeduplicationScope="messageGroup")
    for n in (1, 2):
        sent_and_taken(t, url, f"same-dedup-different-grp-{n}", "Test", f"group{n}")


def test_fifo_high_throughput_ordering(t):
    url = t.fifo(ContentBasedDeduplication="False", **HIGH)
    for n in (1, 2):
        sent_and_taken(t, url, f"same-dedup-different-grp-{n}", f"Test{n}", f"group{n}", "same-dedup")


def test_fifo_change_to_high_throughput_after_creation(t):
    url = t.fifo(ContentBasedDeduplication="False", DeduplicationScope="queue")
    for n in (1, 2):
        sent_and_taken(t, url, f"same-dedup-different-grp-{n}", f"Test{n}", f"group{n}", "same-dedup")
    t.sqs.set_queue_attributes(QueueUrl=url, Attributes=HIGH)
    t.match("set-to-high-throughput", t.attributes(url))
    sent_and_taken(t, url, "same-dedup-different-grp-high-throughput", "Test1", "group1", "same-dedup")
    sent_and_taken(t, url, "same-dedup-different-grp-high-throughput-2", "Test3", "group2", "same-dedup")
    sent_and_taken(t, url, "new-dedup2-high-throughput", "Test4", "group1", "new-dedup")
    sent_and_taken(t, url, "same-dedup2-high-throughput", "Test5", "group1", "new-dedup")


def test_fifo_change_to_regular_throughput_after_creation(t):
    url = t.fifo(ContentBasedDeduplication="False", **HIGH)
    for n in (1, 2):
        sent_and_taken(t, url, f"same-dedup-different-grp-{n}", f"Test{n}", f"group{n}", "same-dedup")
    t.sqs.set_queue_attributes(QueueUrl=url, Attributes=REGULAR)
    t.match("set-to-regular-throughput", t.attributes(url))
    sent_and_taken(t, url, "same-dedup-different-grp-regular-throughput", "Test3", "group2", "same-dedup")


# Dead queues.


def redrive(t, dead, receives):
    return json.dumps({"deadLetterTargetArn": t.arn(dead), "maxReceiveCount": receives})


def test_dead_letter_queue_message_attributes(t):
    dead = t.queue(t.name_of("dead"))
    url = t.queue(Attributes={"RedrivePolicy": redrive(t, dead, 1)})
    t.match("dlq-arn", t.arn(dead))
    t.match("sourcen-arn", t.arn(url))
    trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
    t.sqs.send_message(
        QueueUrl=url,
        MessageBody="message-1",
        MessageAttributes={"MyAttribute": {"StringValue": "foobar", "DataType": "String"}},
        MessageSystemAttributes={"AWSTraceHeader": {"StringValue": trace, "DataType": "String"}},
    )
    t.sqs.send_message(QueueUrl=url, MessageBody="message-2")

    def received(url, count, **arguments):
        messages = []
        for _ in range(count):
            names = {"AttributeNames": ["All"], "MessageAttributeNames": ["All"]}
            messages += t.sqs.receive_message(QueueUrl=url, **names, **arguments).get("Messages", [])
        for message in messages:
            del message["Attributes"]["SenderId"]
        return sorted(messages, key=lambda message: message["Body"])

    t.match("rec-pre-dlq", received(url, 4, VisibilityTimeout=0))
    t.match("dlq-messages", received(dead, 2, WaitTimeSeconds=5))


def test_dead_letter_queue_with_fifo_and_content_based_deduplication(t):
    dead = t.fifo(ContentBasedDeduplication="true", MessageRetentionPeriod="1209600")
    url = t.fifo(ContentBasedDeduplication="true", VisibilityTimeout="60", RedrivePolicy=redrive(t, dead, 2))
    sent = t.sqs.send_message(QueueUrl=url, MessageBody="foobar", MessageGroupId="1")
    for _ in range(3):
        t.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1, VisibilityTimeout=0)
    (message,) = t.sqs.receive_message(QueueUrl=dead, WaitTimeSeconds=10)["Messages"]
    assert (message["MessageId"], message["Body"]) == (sent["MessageId"], "foobar")
    sent = t.sqs.send_message(QueueUrl=url, MessageBody="foobar2", MessageGroupId="1")
    (message,) = t.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1)["Messages"]
    assert (message["MessageId"], message["Body"]) == (sent["MessageId"], "foobar2")
