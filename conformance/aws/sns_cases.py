"""The requests of each recorded case of SNS, by the case's name."""

import base64
import json
import urllib.parse
import urllib.request
import uuid

from sns_harness import ACCOUNT, REGION

RAW = {"RawMessageDelivery": "true"}
NUMBER = {"attr1": {"DataType": "Number", "StringValue": "99.12"}}
ALL = {"MessageAttributeNames": ["All"], "AttributeNames": ["All"]}


def fetch(url, post=False, **parameters):
    """What is at an address."""
    query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
    request = urllib.request.Request(url + query, data=b"" if post else None)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read()


def number(value):
    return {"attr1": {"DataType": "Number", "StringValue": value}}


# Topics.


def test_create_topic_with_attributes(c):
    arn = c.arn(
        name="topictest.fifo", Attributes={"DisplayName": "TestTopic", "SignatureVersion": "2", "FifoTopic": "true"}
    )
    c.match("get-topic-attrs", c.sns.get_topic_attributes(TopicArn=arn))
    c.refused("get-attrs-nonexistent-topic", c.sns.get_topic_attributes, TopicArn=arn[:-8] + "zzzzzzzz")
    c.refused("get-attrs-malformed-topic", c.sns.get_topic_attributes, TopicArn="test-topic")


def tags_of(c, arn):
    answer = c.sns.list_tags_for_resource(ResourceArn=arn)
    answer["Tags"].sort(key=lambda tag: tag["Key"])
    return answer


def test_tags(c):
    arn = c.arn()
    tags = [{"Key": "k1", "Value": "v1"}, {"Key": "k2", "Value": "v2"}]
    c.refused("duplicate-key-error", c.sns.tag_resource, ResourceArn=arn, Tags=[*tags, tags[1]])
    c.sns.tag_resource(ResourceArn=arn, Tags=tags)
    c.match("list-created-tags", tags_of(c, arn))
    c.sns.untag_resource(ResourceArn=arn, TagKeys=["k1"])
    c.match("list-after-delete-tags", tags_of(c, arn))
    c.sns.tag_resource(ResourceArn=arn, Tags=[{"Key": "k2", "Value": "v2b"}])
    c.match("list-after-update-tags", tags_of(c, arn))


def test_tags_removed_after_deletion(c):
    name = c.name("topic")
    arn = c.arn(name=name)
    c.sns.tag_resource(ResourceArn=arn, Tags=[{"Key": "k1", "Value": "v1"}, {"Key": "k2", "Value": "v2"}])
    c.match("list-created-tags", tags_of(c, arn))
    c.sns.delete_topic(TopicArn=arn)
    c.topic(name)
    c.match("list-empty-tags", tags_of(c, arn))


def test_create_topic_test_arn(c):
    answer = c.topic("topic-test-create")
    c.match("create-topic", answer)
    arn = answer["TopicArn"]
    c.match("get-topic-attrs", c.sns.get_topic_attributes(TopicArn=arn))
    c.match("delete-topic", c.sns.delete_topic(TopicArn=arn))
    c.refused("topic-not-exists", c.sns.get_topic_attributes, TopicArn=arn)


def test_delete_topic_idempotency(c):
    arn = c.arn()
    c.match("delete-topic", c.sns.delete_topic(TopicArn=arn))
    c.match("delete-topic-again", c.sns.delete_topic(TopicArn=arn))


def test_delete_non_existent_topic(c):
    arn = f"arn:aws:sns:{REGION}:{ACCOUNT}:{c.name()}"
    c.match("delete-non-existent-topic", c.sns.delete_topic(TopicArn=arn))


def test_create_duplicate_topic_with_more_tags(c):
    c.topic("test-duplicated-topic-more-tags")
    tags = [{"Key": "key1", "Value": "value1"}]
    c.refused("exception-duplicate", c.sns.create_topic, Name="test-duplicated-topic-more-tags", Tags=tags)


def test_create_duplicate_topic_check_idempotency(c):
    name, tags = c.name(), [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}]
    c.match("response-created", c.topic(name, Tags=tags))
    for index, again in enumerate([tags, tags[:1], []]):
        c.match(f"response-same-arn-{index}", c.topic(name, Tags=again))


def test_create_topic_after_delete_with_new_tags(c):
    name = c.name()
    first = c.topic(name, Tags=[{"Key": "Name", "Value": "pqr"}])
    c.match("topic-0", first)
    c.sns.delete_topic(TopicArn=first["TopicArn"])
    c.match("topic-1", c.topic(name, Tags=[{"Key": "Name", "Value": "abc"}]))


def test_topic_delivery_policy_crud(c):
    policy = {"http": {"defaultRequestPolicy": {"headerContentType": "application/json"}}}
    attributes = {"DisplayName": "TestTopic", "SignatureVersion": "2", "FifoTopic": "true"}
    arn = c.arn(name="topictest.fifo", Attributes={**attributes, "DeliveryPolicy": json.dumps(policy)})

    def change(policy):
        value = json.dumps(policy) if policy else ""
        return c.sns.set_topic_attributes(TopicArn=arn, AttributeName="DeliveryPolicy", AttributeValue=value)

    c.match("get-topic-attrs", c.sns.get_topic_attributes(TopicArn=arn))
    retries = {"minDelayTarget": 5, "maxDelayTarget": 6, "numRetries": 1}
    c.match("set-topic-attrs", change({"http": {"defaultHealthyRetryPolicy": retries}}))
    c.match("get-topic-attrs-after-update", c.sns.get_topic_attributes(TopicArn=arn))
    c.match("set-topic-attrs-none", change({"http": {"defaultHealthyRetryPolicy": None}}))
    c.match("get-topic-attrs-after-none", c.sns.get_topic_attributes(TopicArn=arn))
    c.match("set-topic-attrs-full-none", change(None))
    c.match("get-topic-attrs-after-delete", c.sns.get_topic_attributes(TopicArn=arn))


def test_create_topic_should_be_idempotent(c):
    name = c.name()
    arn = c.arn(name=name)
    c.sns.set_topic_attributes(TopicArn=arn, AttributeName="DisplayName", AttributeValue="AlreadySet")
    c.match("topic-attrs-idempotent-1", c.sns.get_topic_attributes(TopicArn=arn))
    c.match("topic-attrs-idempotent-2", c.sns.get_topic_attributes(TopicArn=c.arn(name=name)))


def test_create_topic_different_attrs(c):
    name = c.name()
    c.match("create-topic", c.topic(name, Attributes={"DisplayName": "Value1"}))
    again = c.topic(name)
    c.match("create-topic-no-attrs", again)
    c.match("topic-attrs", c.sns.get_topic_attributes(TopicArn=again["TopicArn"]))
    c.topic(name, Attributes={"DisplayName": "Value1"})
    c.topic(name, Attributes={"FifoTopic": "false"})
    for key, attributes in [
        ("create-topic-diff-attrs", {"DisplayName": "Value2"}),
        ("create-topic-new-attrs-fifo", {"FifoTopic": "true"}),
        ("create-topic-new-attrs", {"SignatureVersion": "2"}),
        ("create-topic-new-and-same-attrs", {"SignatureVersion": "2", "DisplayName": "Value1"}),
    ]:
        c.refused(key, c.sns.create_topic, Name=name, Attributes=attributes)


def test_create_topic_name_constraints(c):
    c.match("valid-name-max-length", c.topic("a" * 255))
    create = c.sns.create_topic
    c.refused("name-too-short", create, Name="")
    c.refused("name-too-long", create, Name="a" * 257)
    c.refused("name-contains-fifo", create, Name="test.fifo")
    c.refused("fifo-name-not-contains-fifo", create, Name="test", Attributes={"FifoTopic": "true"})
    for index, letter in enumerate([":", ";", "!", "@", "|", "^", "%", " "]):
        c.refused(f"name-invalid-char-{index}", create, Name=f"bad{letter}name")


def test_topic_get_attributes_with_fifo_false(c):
    arn = c.arn(Attributes={"FifoTopic": "false"})
    c.match("get-attrs-standard-topic", c.sns.get_topic_attributes(TopicArn=arn))
    change = {"TopicArn": arn, "AttributeName": "FifoTopic", "AttributeValue": "false"}
    c.refused("set-fifo-false-after-creation", c.sns.set_topic_attributes, **change)


def policy_of(c, arn):
    return json.loads(c.sns.get_topic_attributes(TopicArn=arn)["Attributes"]["Policy"])


def add_permission(c, arn, *actions, label="test"):
    return c.sns.add_permission(TopicArn=arn, Label=label, AWSAccountId=[ACCOUNT], ActionName=list(actions))


def test_topic_add_permission(c):
    arn = c.arn()
    c.match("add-permission-response", add_permission(c, arn, "Publish"))
    c.match("topic-policy-after-permission", policy_of(c, arn))


def test_topic_add_multiple_permissions(c):
    arn = c.arn()
    c.match("add-permission-response", add_permission(c, arn, "Publish", "Subscribe"))
    c.match("topic-policy-after-permission", policy_of(c, arn))


def test_topic_remove_permission(c):
    arn = c.arn()
    add_permission(c, arn, "Publish")
    c.sns.remove_permission(TopicArn=arn, Label="test")
    c.match("topic-policy", policy_of(c, arn))


def test_add_permission_errors(c):
    arn = c.arn()
    add_permission(c, arn, "Publish")
    more = {"AWSAccountId": [ACCOUNT]}
    add = c.sns.add_permission
    c.refused("duplicate-label", add, TopicArn=arn, Label="test", ActionName=["AddPermission"], **more)
    missing = arn + "-not-existing"
    c.refused("topic-not-found", add, TopicArn=missing, Label="test-2", ActionName=["AddPermission"], **more)
    c.refused("invalid-action", add, TopicArn=arn, Label="test-2", ActionName=["InvalidAction"], **more)


def test_remove_permission_errors(c):
    arn = c.arn()
    add_permission(c, arn, "Publish")
    c.refused("topic-not-found", c.sns.remove_permission, TopicArn=arn + "-not-existing", Label="test")


def test_data_protection_policy_crud(c):
    arn = c.arn()
    statement = {
        "Sid": "test-statement",
        "DataDirection": "Inbound",
        "Principal": ["*"],
        "DataIdentifier": [f"arn:aws:dataprotection:{REGION}::data-identifier/EmailAddress"],
        "Operation": {"Deny": {}},
    }
    policy = {"Name": "data_protection_policy", "Description": "Test Policy", "Version": "2021-06-01"}
    policy["Statement"] = [statement]
    c.match("get-topic-attributes-before-policy", c.sns.get_topic_attributes(TopicArn=arn))
    put = c.sns.put_data_protection_policy(ResourceArn=arn, DataProtectionPolicy=json.dumps(policy))
    c.match("put-data-protection-policy", put)
    c.match("get-data-protection-policy", c.sns.get_data_protection_policy(ResourceArn=arn))
    c.match("get-topic-attributes-after-policy", c.sns.get_topic_attributes(TopicArn=arn))


def test_cross_region_access(c):
    arn, other = c.arn(), c.client("sns", "us-west-2")
    change = {"TopicArn": arn, "AttributeName": "DisplayName", "AttributeValue": "test"}
    c.refused("set-topic-attrs", other.set_topic_attributes, **change)
    c.refused("get-topic-attrs", other.get_topic_attributes, TopicArn=arn)
    c.refused("cross-region-publish-forbidden", other.publish, TopicArn=arn, Message="hello world")
    queue = c.queue_arn(c.queue())
    c.refused("cross-region-subscribe", other.subscribe, TopicArn=arn, Protocol="sqs", Endpoint=queue)
    c.refused("list-subs", other.list_subscriptions_by_topic, TopicArn=arn)
    c.refused("delete-topic", other.delete_topic, TopicArn=arn)


# Publishing.


def test_publish_by_path_parameters(c):
    arn, url = c.arn(), c.queue()
    c.subscribe(arn, url)
    asked = {"Action": "Publish", "Version": "2010-03-31", "TopicArn": arn}
    answer = fetch(c.endpoint, post=True, **asked, Message="test message direct post request").decode()
    assert "<PublishResponse" in answer, answer
    message_id = answer.split("<MessageId>")[1].split("<")[0]
    result = {"PublishResult": {"MessageId": message_id}, "ResponseMetadata": {"HTTPStatusCode": 200}}
    c.match("post-request", {"PublishResponse": result})
    c.match("messages", c.receive(url))


def test_publish_wrong_arn_format(c):
    for key, arn in [("invalid-topic-arn", "randomstring"), ("invalid-topic-arn-1", "randomstring:1"), ("empty-topic", "")]:
        c.refused(key, c.sns.publish, TopicArn=arn, Message="Good news everyone!")


def test_publish_message_by_target_arn(c):
    arn, url = c.arn(), c.queue()
    c.subscribe(arn, url)
    c.sns.publish(TopicArn=arn, Message="test-msg-1")
    answer = c.receive(url)
    c.match("receive-topic-arn", answer)
    c.sqs.delete_message(QueueUrl=url, ReceiptHandle=answer["Messages"][0]["ReceiptHandle"])
    c.sns.publish(TargetArn=arn, Message="test-msg-2")
    c.match("receive-target-arn", c.receive(url))


def test_publish_message_before_subscribe_topic(c):
    arn, url = c.arn(), c.queue()
    before = c.sns.publish(TopicArn=arn, Subject="test-subject-before-sub", Message="test_message_before")
    c.match("publish-before-subscribing", before)
    c.subscribe(arn, url)
    after = c.sns.publish(TopicArn=arn, Subject="test-subject-after-sub", Message="test_message_after")
    c.match("publish-after-subscribing", after)
    c.match("receive-messages", c.receive(url))


def test_unknown_topic_publish(c):
    arn = c.arn()
    c.match("success", c.sns.publish(TopicArn=arn, Message="This is a test message"))
    c.refused("error", c.sns.publish, TopicArn=arn + "-fake", Message="This is a test message")


def test_topic_publish_another_region(c):
    arn, other = c.arn(), c.client("sns", "us-west-2")
    c.match("success", c.sns.publish(TopicArn=arn, Message="This is a test message"))
    c.refused("error", other.publish, TopicArn=arn, Message="This is a test message")
    entries = [{"Id": "1", "Message": "This is a test message"}]
    c.refused("error-batch", other.publish_batch, TopicArn=arn, PublishBatchRequestEntries=entries)


def test_publish_non_existent_target(c):
    arn = f"arn:aws:sns:us-east-1:{ACCOUNT}:endpoint/APNS/abcdef/0f7d5971-aa8b-4bd5-b585-0826e9f93a66"
    c.refused("non-existent-endpoint", c.sns.publish, TargetArn=arn, Message="This is a push notification")


def test_publish_with_empty_subject(c):
    arn, message = c.arn(), json.dumps({"message": "test_publish"})
    c.match("response-without-subject", c.sns.publish(TopicArn=arn, Message=message))
    c.refused("response-with-empty-subject", c.sns.publish, TopicArn=arn, Subject="", Message=message)


def test_empty_sns_message(c):
    arn, url = c.arn(), c.queue()
    c.subscribe(arn, url)
    c.refused("empty-msg-error", c.sns.publish, TopicArn=arn, Message="")
    wanted = ["ApproximateNumberOfMessages"]
    c.match("queue-attrs", c.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=wanted))


SIZED = {"attr1": {"DataType": "Number", "StringValue": "1"}}
SIZED_BYTES = len("attr1") + len("Number") + len("1")


def test_publish_too_long_message(c):
    arn = c.arn()
    c.refused("error", c.sns.publish, TopicArn=arn, Message="This is a test message" * 12000)
    message = "a" * (262144 - SIZED_BYTES + 1)
    c.refused("error-with-attrs", c.sns.publish, TopicArn=arn, Message=message, MessageAttributes=SIZED)
    c.sns.publish(TopicArn=arn, Message=message[:-1], MessageAttributes=SIZED)


def test_publish_batch_too_long_message(c):
    arn, half = c.arn(), 262144 // 2

    def entries(first, second, **more):
        return [{"Id": "1", "Message": first, **more}, {"Id": "2", "Message": second}]

    batch = c.sns.publish_batch
    c.refused("error-no-attrs", batch, TopicArn=arn, PublishBatchRequestEntries=entries("a" * half, "b" * (half + 1)))
    long = "a" * (262144 - SIZED_BYTES)
    too_long = entries(long, "b", MessageAttributes=SIZED)
    c.refused("error-with-attrs", batch, TopicArn=arn, PublishBatchRequestEntries=too_long)
    batch(TopicArn=arn, PublishBatchRequestEntries=entries(long[:-1], "b", MessageAttributes=SIZED))


def test_publish_batch_invalid_entry_id(c):
    arn = c.arn()
    long = "my" + "really" * 13 + "longid"
    for key, entry in [
        ("invalid-char-dot", "message.id"),
        ("invalid-char-special", "msg@123#test"),
        ("id-too-long-81", "a" * 81),
        ("id-too-long-91", long),
    ]:
        entries = [{"Id": entry, "Message": "test message"}]
        c.refused(key, c.sns.publish_batch, TopicArn=arn, PublishBatchRequestEntries=entries)
    for key, entry in [("valid-id-80-chars", "a" * 80), ("valid-id-with-hyphen-underscore", "valid-message_123")]:
        entries = [{"Id": entry, "Message": "test message"}]
        c.match(key, c.sns.publish_batch(TopicArn=arn, PublishBatchRequestEntries=entries))


def test_message_structure_json_exc(c):
    arn = c.arn()
    publish = c.sns.publish
    message = json.dumps({"sqs": "Test message"})
    c.refused("missing-default-key", publish, TopicArn=arn, Message=message, MessageStructure="json")
    c.refused("invalid-json", publish, TopicArn=arn, Message='{"default": "This is a default message"} }', MessageStructure="json")
    message = '{"default": "This is a default message", "default": "This is a duplicated key"}'
    c.match("duplicate-json-keys", publish(TopicArn=arn, Message=message, MessageStructure="json"))
    message = json.dumps({"default": {"object": "test"}})
    c.refused("key-is-not-string", publish, TopicArn=arn, Message=message, MessageStructure="json")


# Subscriptions.


def test_subscribe_with_invalid_protocol(c):
    more = {"Protocol": "test-protocol", "Endpoint": "localstack@yopmail.com"}
    c.refused("exception", c.sns.subscribe, TopicArn=c.arn(), **more)


def test_unsubscribe_from_non_existing_subscription(c):
    subscription = c.subscribe(c.arn(), c.queue())["SubscriptionArn"]
    c.sns.unsubscribe(SubscriptionArn=subscription)
    c.match("empty-unsubscribe", c.sns.unsubscribe(SubscriptionArn=subscription))


def test_unsubscribe_idempotency(c):
    subscription = c.subscribe(c.arn(), c.queue())["SubscriptionArn"]
    c.match("unsubscribe-1", c.sns.unsubscribe(SubscriptionArn=subscription))
    c.match("unsubscribe-2", c.sns.unsubscribe(SubscriptionArn=subscription))


def test_unsubscribe_wrong_arn_format(c):
    texts = ["randomstring", "arn:aws:sns:us-east-1:random", "arn:aws:sns:us-east-1:111111111111:random"]
    for index, text in enumerate(texts):
        c.refused(f"invalid-unsubscribe-arn-{index + 1}", c.sns.unsubscribe, SubscriptionArn=text)
    c.refused("invalid-unsubscribe-arn-4", c.sns.unsubscribe)


def test_create_subscriptions_with_attributes(c):
    wanted = {"TopicArn": c.arn(), "Protocol": "sqs", "Endpoint": c.queue_arn(c.queue())}
    attributes = {"FilterPolicyScope": "MessageBody", "FilterPolicy": ""}
    wrong = {**attributes, "RawMessageDelivery": "wrongvalue"}
    c.refused("subscribe-wrong-attr", c.sns.subscribe, **wanted, Attributes=wrong)
    answer = c.sns.subscribe(**wanted, Attributes={**attributes, "RawMessageDelivery": "TrUe"})
    c.match("subscribe", answer)
    arn = answer["SubscriptionArn"]
    c.match("get-attrs", c.sns.get_subscription_attributes(SubscriptionArn=arn))
    c.refused("get-attrs-nonexistent-sub", c.sns.get_subscription_attributes, SubscriptionArn=arn[:-8] + "12345678")


def test_not_found_error_on_set_subscription_attributes(c):
    topic, url = c.arn(), c.queue()
    answer = c.sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=c.queue_arn(url))
    c.match("sub", answer)
    arn = answer["SubscriptionArn"]
    c.match("sub-attrs", c.sns.get_subscription_attributes(SubscriptionArn=arn))
    c.match("subscriptions-for-topic-before-unsub", c.sns.list_subscriptions_by_topic(TopicArn=topic))
    c.sns.unsubscribe(SubscriptionArn=arn)
    change = {"SubscriptionArn": arn, "AttributeName": "RawMessageDelivery", "AttributeValue": "true"}
    c.refused("sub-not-found", c.sns.set_subscription_attributes, **change)
    c.match("subscriptions-for-topic-after-unsub", c.sns.list_subscriptions_by_topic(TopicArn=topic))


def test_validate_set_sub_attributes(c):
    arn = c.subscribe(c.arn(), c.queue())["SubscriptionArn"]
    for key, name, value in [
        ("fake-attribute", "FakeAttribute", "test-value"),
        ("raw-message-wrong-value", "RawMessageDelivery", "test-ValUe"),
        ("raw-message-empty-value", "RawMessageDelivery", ""),
        ("fake-arn-redrive-policy", "RedrivePolicy", json.dumps({"deadLetterTargetArn": "fake-arn"})),
        ("invalid-json-redrive-policy", "RedrivePolicy", "{invalidjson}"),
        ("invalid-json-filter-policy", "FilterPolicy", "{invalidjson}"),
    ]:
        change = {"SubscriptionArn": arn, "AttributeName": name, "AttributeValue": value}
        c.refused(key, c.sns.set_subscription_attributes, **change)


def test_sns_confirm_subscription_wrong_token(c):
    arn, token = c.arn(), "51b2ff3edb475b7d91550e0ab6edf0c1" * 9
    c.refused("topic-not-exists", c.sns.confirm_subscription, TopicArn=arn[:-1] + "_", Token=token)
    c.refused("invalid-token", c.sns.confirm_subscription, TopicArn=arn, Token="randomtoken")
    c.refused("token-not-exists", c.sns.confirm_subscription, TopicArn=arn, Token=token)


def test_list_subscriptions(c):
    topics, made = [c.arn(), c.arn()], []
    for topic in topics:
        for _ in range(3):
            queue = c.queue_arn(c.queue())
            c.sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue)
            made.append((topic, queue))
    pages = c.sns.get_paginator("list_subscriptions").paginate()
    found = [(of["TopicArn"], of["Endpoint"]) for page in pages for of in page["Subscriptions"]]
    assert set(made) <= set(found)


def test_list_subscriptions_by_topic_pagination(c):
    arn = c.arn()
    for suffix in range(101):
        c.sns.subscribe(TopicArn=arn, Protocol="sms", Endpoint=f"+12312312{suffix}")
    first = c.sns.list_subscriptions_by_topic(TopicArn=arn)
    assert base64.b64decode(first["NextToken"]) and len(first["Subscriptions"]) == 100
    second = c.sns.list_subscriptions_by_topic(TopicArn=arn, NextToken=first["NextToken"])
    c.match("list-sub-per-topic-page-2", second)


def test_subscribe_idempotency(c):
    wanted = {"TopicArn": c.arn(), "Protocol": "sqs", "Endpoint": c.queue_arn(c.queue())}

    def subscribe(attributes=None):
        return c.sns.subscribe(**wanted, **({} if attributes is None else {"Attributes": attributes}))

    answer = subscribe({"RawMessageDelivery": "True"})
    c.match("subscribe", answer)
    c.match("get-sub-attrs", c.sns.get_subscription_attributes(SubscriptionArn=answer["SubscriptionArn"]))
    c.match("subscribe-exact-same-raw", subscribe(RAW))
    c.match("subscribe-idempotent", subscribe({**RAW, "FilterPolicyScope": "MessageAttributes"}))
    c.match("subscribe-idempotent-no-attributes", subscribe())
    c.match("subscribe-idempotent-empty-attributes", subscribe({}))
    c.match("subscribe-missing-attributes", subscribe({"FilterPolicyScope": "MessageAttributes"}))
    other = {"RawMessageDelivery": "false", "FilterPolicyScope": "MessageBody"}
    c.refused("subscribe-diff-attributes", c.sns.subscribe, **wanted, Attributes=other)


def test_subscribe_with_invalid_topic(c):
    more = {"Protocol": "email", "Endpoint": "localstack@yopmail.com"}
    c.refused("invalid-subscribe-arn-1", c.sns.subscribe, TopicArn="randomstring", **more)
    c.refused("invalid-subscribe-arn-2", c.sns.subscribe, TopicArn="arn:aws:sns:us-east-1:random", **more)
    c.refused("non-existent-topic", c.sns.subscribe, TopicArn=c.arn() + "aaa", **more)


def test_subscribe_sms(c):
    answer = c.sns.subscribe(TopicArn=c.arn(), Protocol="sms", Endpoint="+1234567890")
    c.match("subscribe-sms-1", answer)


def test_subscribe_sms_obscure_phone_number(c):
    answer = c.sns.subscribe(TopicArn=c.arn(), Protocol="sms", Endpoint="+12/34-567.890")
    c.match("subscribe-sms-2", answer)


def test_subscribe_bad_sms(c):
    c.refused("subscribe-bad-sms", c.sns.subscribe, TopicArn=c.arn(), Protocol="sms", Endpoint="invalid-number")


def test_subscribe_invalid_sms(c):
    arn = c.arn()
    for text in ["+15--551234567", "NAA+15551234567", "+15551234567.", "/+15551234567"]:
        c.refused(f"subscribe-bad-sms-{text}", c.sns.subscribe, TopicArn=arn, Protocol="sms", Endpoint=text)


def test_subscribe_unknown_topic(c):
    arn = f"arn:aws:sns:{REGION}:{ACCOUNT}:{c.name()}"
    c.refused("subscribe-unknown-topic", c.sns.subscribe, TopicArn=arn, Protocol="sms", Endpoint="+1234567890")


def test_subscribe_unknown_sqs_queue(c):
    arn = c.arn()
    queue = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{c.name()}"
    c.match("subscribe-unknown-sqs", c.sns.subscribe(TopicArn=arn, Protocol="sqs", Endpoint=queue))
    key = "subscribe-unknown-sqs-invalid_arn"
    c.refused(key, c.sns.subscribe, TopicArn=arn, Protocol="sqs", Endpoint="unknown")


def test_subscribe_sqs_queue_url(c):
    key = "subscribe-sqs-via-url-error"
    c.refused(key, c.sns.subscribe, TopicArn=c.arn(), Protocol="sqs", Endpoint=c.queue())


def test_subscribe_to_sqs_with_queue_url(c):
    c.refused("sub-queue-url", c.sns.subscribe, TopicArn=c.arn(), Protocol="sqs", Endpoint=c.queue())


def test_double_subscription(c):
    wanted = {"TopicArn": c.arn(name="double-sub-befdfdff"), "Protocol": "sqs", "Endpoint": c.queue_arn(c.queue())}
    c.match("double-subscription-first", c.sns.subscribe(**wanted))
    c.match("double-subscription-second", c.sns.subscribe(**wanted))


def test_creating_subscription(c):
    answer = c.sns.subscribe(TopicArn=c.arn(), Protocol="http", Endpoint="http://example.com/")
    c.match("create-subscription", answer)


def test_unsubscribe_from_deleted_topic(c):
    arn = c.arn()
    subscription = c.sns.subscribe(TopicArn=arn, Protocol="http", Endpoint="http://example.com/")["SubscriptionArn"]
    c.sns.delete_topic(TopicArn=arn)
    c.refused("unsubscribe-deleted-topic", c.sns.unsubscribe, SubscriptionArn=subscription)


def test_getting_subscriptions_by_topic(c):
    arn = c.arn()
    c.subscribe(arn, c.queue())
    c.match("list-subscriptions-by-topic", c.sns.list_subscriptions_by_topic(TopicArn=arn))


def attributes_of(c, arn):
    return c.sns.get_subscription_attributes(SubscriptionArn=arn)


def test_subscribe_attributes(c):
    arn = c.subscribe(c.arn(), c.queue())["SubscriptionArn"]
    c.match("get-subscription-attributes", attributes_of(c, arn))


def test_creating_subscription_with_attributes(c):
    arn = c.subscribe(c.arn(), c.queue(), Attributes=RAW)["SubscriptionArn"]
    c.match("subscription-with-attributes", attributes_of(c, arn))


def test_delete_subscriptions_on_delete_topic(c):
    topic = c.arn()
    arn = c.subscribe(topic, c.queue(), Attributes=RAW)["SubscriptionArn"]
    c.sns.delete_topic(TopicArn=topic)
    c.match("get-sub-after-topic-delete", attributes_of(c, arn))


def test_set_subscription_attributes(c):
    arn = c.subscribe(c.arn(), c.queue())["SubscriptionArn"]
    c.set(arn, "RawMessageDelivery", "true")
    c.match("set-subscription-attributes", attributes_of(c, arn))


def test_subscribe_invalid_filter_policy(c):
    more = {"Protocol": "email", "Endpoint": "test@example.com", "Attributes": {"FilterPolicy": "invalid-json"}}
    c.refused("subscribe-invalid-filter-policy", c.sns.subscribe, TopicArn=c.arn(), **more)


def test_get_subscription_attributes_error_not_exists(c):
    arn = f"arn:aws:sns:{REGION}:{ACCOUNT}:nonexistent:{uuid.uuid4()}"
    c.refused("get-sub-attrs-nonexistent", c.sns.get_subscription_attributes, SubscriptionArn=arn)


# To queues.


def test_subscribe_sqs_queue(c):
    topic, url = c.arn(), c.queue()
    arn = c.subscribe(topic, url)["SubscriptionArn"]
    c.set(arn, "FilterPolicy", {"attr1": [{"numeric": [">", 0, "<=", 100]}]})
    c.match("subscription-attributes", attributes_of(c, arn))
    c.sns.publish(TopicArn=topic, Message="This is a test message", MessageAttributes=NUMBER)
    c.match("messages", c.receive(url, MessageAttributeNames=["All"]))


def test_publish_unicode_chars(c):
    topic, url = c.arn(), c.queue()
    c.subscribe(topic, url)
    c.sns.publish(TopicArn=topic, Message='ö§a1"_!?,. £$-')
    c.match("received-message", c.receive(url))


def test_attribute_raw_subscribe(c):
    topic, url = c.arn(), c.queue()
    arn = c.subscribe(topic, url, Attributes=RAW)["SubscriptionArn"]
    c.match("subscription-attributes", attributes_of(c, arn))
    attributes = {"store": {"DataType": "Binary", "BinaryValue": b"\x02\x03\x04"}}
    c.sns.publish(TopicArn=topic, Message="This is a test message", MessageAttributes=attributes)
    c.match("messages-response", c.receive(url, MessageAttributeNames=["All"]))


def test_sqs_topic_subscription_confirmation(c):
    c.match("subscription-attrs", c.subscribe(c.arn(), c.queue()))


def test_publish_sqs_from_sns(c):
    topic, url = c.arn(), c.queue()
    arn = c.subscribe(topic, url)["SubscriptionArn"]
    for flag, value, target in [("true", "99.12", "TopicArn"), ("false", "100.12", "TargetArn")]:
        c.set(arn, "RawMessageDelivery", flag)
        c.match(f"sub-attrs-raw-{flag}", attributes_of(c, arn))
        c.sns.publish(**{target: topic}, Message="Test msg", MessageAttributes=number(value))
        answer = c.receive(url, MessageAttributeNames=["All"])
        c.match(f"message-raw-{flag}", answer)
        c.sqs.delete_message(QueueUrl=url, ReceiptHandle=answer["Messages"][0]["ReceiptHandle"])


BATCH = [
    {
        "Id": "1",
        "Message": "Test Message with two attributes",
        "Subject": "Subject",
        "MessageAttributes": {**NUMBER, "attr2": {"DataType": "Number", "StringValue": "109.12"}},
    },
    {
        "Id": "2",
        "Message": "Test Message with one attribute",
        "Subject": "Subject",
        "MessageAttributes": number("19.12"),
    },
    {"Id": "3", "Message": "Test Message without attribute", "Subject": "Subject"},
]


def test_publish_batch_messages_from_sns_to_sqs(c):
    topic, url = c.arn(), c.queue()
    arn = c.subscribe(topic, url)["SubscriptionArn"]
    c.set(arn, "RawMessageDelivery", "true")
    c.match("sub-attrs-raw-true", attributes_of(c, arn))
    structured = json.dumps({"default": "test default", "sqs": "test sqs"})
    entries = [
        *BATCH,
        {"Id": "4", "Message": "Test Message without subject"},
        {"Id": "5", "Message": structured, "MessageStructure": "json"},
    ]
    c.match("publish-batch", c.sns.publish_batch(TopicArn=topic, PublishBatchRequestEntries=entries))
    messages = sorted(c.collect(url, 5), key=lambda message: message["Body"])
    c.match("messages", {"Messages": messages})


def test_publish_batch_messages_without_topic(c):
    entries = [{"Id": "1", "Message": "Test Message with two attributes", "Subject": "Subject"}]
    topic = c.arn() + "fake-topic"
    c.refused("publish-batch-no-topic", c.sns.publish_batch, TopicArn=topic, PublishBatchRequestEntries=entries)


def test_publish_batch_exceptions(c):
    topic = c.fifo()
    for key, entries in [
        ("no-group-id", [{"Id": "1", "Message": "Test message without Group ID"}]),
        ("too-many-msg", [{"Id": f"Id_{i}", "Message": "Too many messages"} for i in range(11)]),
        ("same-msg-id", [{"Id": "1", "Message": "Messages with the same ID"}] * 2),
        ("no-dedup-id", [{"Id": "1", "Message": "Test message", "MessageGroupId": "msg1"}]),
        ("no-default-key-json", [{"Id": "1", "Message": json.dumps({"sqs": "test sqs"}), "MessageStructure": "json"}]),
    ]:
        c.refused(key, c.sns.publish_batch, TopicArn=topic, PublishBatchRequestEntries=entries)


def test_publish_sqs_from_sns_with_xray_propagation(c):
    topic, url = c.arn(), c.queue()
    c.subscribe(topic, url)
    trace = "Root=1-3152b799-8954dae64eda91bc9a23a7e8;Parent=7fa8c0f79203be72;Sampled=1"

    def add(request, **_):
        request.headers["X-Amzn-Trace-Id"] = trace

    c.sns.meta.events.register("before-send.sns.Publish", add)
    c.sns.publish(TargetArn=topic, Message="X-Ray propagation test msg")
    answer = c.receive(url, AttributeNames=["SentTimestamp", "AWSTraceHeader"], MessageAttributeNames=["All"])
    c.match("xray-msg", answer["Messages"][0])


def test_redrive_policy_sqs_queue_subscription(c):
    topic, url, dlq = c.arn(), c.queue(), c.queue()
    arn = c.subscribe(topic, url)["SubscriptionArn"]
    c.set(arn, "RedrivePolicy", {"deadLetterTargetArn": c.queue_arn(dlq)})
    if c.parameter == "True":
        c.set(arn, "RawMessageDelivery", "true")
    c.sqs.delete_queue(QueueUrl=url)
    attributes = {**number("111"), "attr2": {"DataType": "Binary", "BinaryValue": b"\x02\x03\x04"}}
    c.sns.publish(TopicArn=topic, Message="test_dlq_after_sqs_endpoint_deleted", MessageAttributes=attributes)
    c.match("messages", c.receive(dlq, **ALL))


def test_message_attributes_not_missing(c):
    topic, url = c.arn(), c.queue()
    arn = c.subscribe(topic, url)["SubscriptionArn"]
    attributes = {
        "an-attribute-key": {"DataType": "String", "StringValue": "an-attribute-value"},
        "binary-attribute": {"DataType": "Binary", "BinaryValue": b"\x02\x03\x04"},
    }
    for form, flag in [("raw", "true"), ("json", "false")]:
        c.set(arn, "RawMessageDelivery", flag)
        published = c.sns.publish(TopicArn=topic, Message="text", MessageAttributes=attributes)
        c.match(f"publish-msg-{form}", published)
        answer = c.receive(url, **ALL)
        c.match(f"{form}-delivery-msg-attrs", answer)
        c.sqs.delete_message(QueueUrl=url, ReceiptHandle=answer["Messages"][0]["ReceiptHandle"])


def test_subscription_after_failure_to_deliver(c):
    topic, url, dlq = c.arn(), c.queue(), c.queue()
    arn = c.subscribe(topic, url)["SubscriptionArn"]
    c.match("subscriptions-attrs", attributes_of(c, arn))
    c.sns.publish(TopicArn=topic, Message="test_dlq_before_sqs_endpoint_deleted")
    answer = c.receive(url, MaxNumberOfMessages=4)
    c.match("messages-before-delete", answer)
    c.sqs.delete_message(QueueUrl=url, ReceiptHandle=answer["Messages"][0]["ReceiptHandle"])
    c.sqs.delete_queue(QueueUrl=url)
    other = c.queue()
    beside = c.subscribe(topic, other)["SubscriptionArn"]
    c.sns.publish(TopicArn=topic, Message="test_dlq_after_sqs_endpoint_deleted")
    c.collect(other, 1)
    c.sns.unsubscribe(SubscriptionArn=beside)
    c.match("subscriptions", c.sns.list_subscriptions_by_topic(TopicArn=topic))
    c.set(arn, "RedrivePolicy", {"deadLetterTargetArn": c.queue_arn(dlq)})
    c.match("subscriptions-attrs-with-redrive", attributes_of(c, arn))
    for index in range(2):
        c.sns.publish(TopicArn=topic, Message=f"test_dlq_after_sqs_endpoint_deleted_{index}")
        answer = c.receive(dlq, MaxNumberOfMessages=4)
        c.sqs.delete_message(QueueUrl=dlq, ReceiptHandle=answer["Messages"][0]["ReceiptHandle"])
        c.match(f"message-{index}-after-delete", answer)


def test_empty_or_wrong_message_attributes(c):
    topic = c.arn()
    for key, attributes in {
        "missing_string_attr": {"attr1": {"DataType": "String", "StringValue": ""}},
        "fully_missing_string_attr": {"attr1": {"DataType": "String"}},
        "fully_missing_data_type": {"attr1": {"StringValue": "value"}},
        "missing_binary_attr": {"attr1": {"DataType": "Binary", "BinaryValue": b""}},
        "str_attr_binary_value": {"attr1": {"DataType": "String", "BinaryValue": b"123"}},
        "int_attr_binary_value": {"attr1": {"DataType": "Number", "BinaryValue": b"123"}},
        "binary_attr_string_value": {"attr1": {"DataType": "Binary", "StringValue": "123"}},
        "invalid_attr_string_value": {"attr1": {"DataType": "InvalidType", "StringValue": "123"}},
        "too_long_name": {"a" * 257: {"DataType": "String", "StringValue": "123"}},
        "invalid_name": {"a^*?": {"DataType": "String", "StringValue": "123"}},
        "invalid_name_2": {".abc": {"DataType": "String", "StringValue": "123"}},
        "invalid_name_3": {"abc.": {"DataType": "String", "StringValue": "123"}},
        "invalid_name_4": {"a..bc": {"DataType": "String", "StringValue": "123"}},
    }.items():
        c.refused(key, c.sns.publish, TopicArn=topic, Message="test message", MessageAttributes=attributes)
        entries = [
            {"Id": "1", "Message": "test-batch", "MessageAttributes": attributes},
            {"Id": "3", "Message": "valid-batch"},
        ]
        c.refused(f"batch-{key}", c.sns.publish_batch, TopicArn=topic, PublishBatchRequestEntries=entries)


def test_message_attributes_prefixes(c):
    topic = c.arn()

    def wanted(data_type):
        attributes = {"attr1": {"DataType": data_type, "StringValue": "prefixed-1"}}
        return {"TopicArn": topic, "Message": "test message", "MessageAttributes": attributes}

    c.refused("publish-error", c.sns.publish, **wanted("String."))
    c.refused("publish-error-2", c.sns.publish, **wanted("Stringprefixed"))
    c.match("publish-ok-1", c.sns.publish(**wanted("String.prefixed")))
    c.match("publish-ok-2", c.sns.publish(**wanted("String.  prefixed.")))


def test_message_structure_json_to_sqs(c):
    topic, url = c.arn(), c.queue()
    c.subscribe(topic, url)
    for key, of_queue in [("sqs", json.dumps({"field": "value"})), ("default", {"field": "value"})]:
        message = json.dumps({"default": "default field", "sqs": of_queue})
        c.sns.publish(TopicArn=topic, Message=message, MessageStructure="json")
        answer = c.receive(url)
        c.match(f"get-msg-json-{key}", answer)
        c.sqs.delete_message(QueueUrl=url, ReceiptHandle=answer["Messages"][0]["ReceiptHandle"])


def test_publish_sqs_verify_signature(c):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    topic = c.arn(Attributes={"DisplayName": "TestTopicSignature", "SignatureVersion": c.parameter})
    url = c.queue()
    c.subscribe(topic, url)
    text = "test signature value with attributes"
    c.sns.publish(TopicArn=topic, Message=text, MessageAttributes=number("1"))
    answer = c.receive(url, **ALL)
    c.match("messages", answer)
    message = json.loads(answer["Messages"][0]["Body"])
    certificate = x509.load_pem_x509_certificate(fetch(message["SigningCertURL"]))
    fields = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]
    signed = "".join(f"{field}\n{message[field]}\n" for field in fields if field in message)
    digest = hashes.SHA1() if c.parameter == "1" else hashes.SHA256()
    signature = base64.b64decode(message["Signature"])
    certificate.public_key().verify(signature, signed.encode(), padding.PKCS1v15(), digest)


def test_publish_message_group_id(c):
    topic, url = c.arn(), c.queue()
    c.subscribe(topic, url)
    text = "test signature value with attributes"
    c.sns.publish(TopicArn=topic, Message=text, MessageGroupId="my-group-id-1", MessageAttributes=number("1"))
    c.match("messages", c.receive(url, **ALL))


# FIFO.


def fifo_pair(c, content_based, queue=True):
    attributes = {"ContentBasedDeduplication": "true"} if content_based else {}
    topic = c.fifo(**attributes)
    url = c.fifo_queue(**attributes) if queue else c.queue()
    return topic, url


def one_and_its_duplicate(c, topic, url):
    more = {"MessageGroupId": "message-group-id-1"}
    if c.parameter == "False":
        more["MessageDeduplicationId"] = "message-deduplication-id-1"
    c.sns.publish(TopicArn=topic, Message="Test", **more)
    answer = c.receive(url, AttributeNames=["All"])
    c.match("messages", answer)
    c.sqs.delete_message(QueueUrl=url, ReceiptHandle=answer["Messages"][0]["ReceiptHandle"])
    c.sns.publish(TopicArn=topic, Message="Test", **more)
    c.match("dedup-messages", c.receive(url, AttributeNames=["All"], WaitTimeSeconds=1))


def test_message_to_fifo_sqs(c):
    topic, url = fifo_pair(c, c.parameter == "True")
    c.subscribe(topic, url)
    one_and_its_duplicate(c, topic, url)


def test_fifo_topic_to_regular_sqs(c):
    topic, url = fifo_pair(c, c.parameter == "True", queue=False)
    c.subscribe(topic, url)
    one_and_its_duplicate(c, topic, url)


def test_validations_for_fifo(c):
    topic, fifo_topic, fifo_queue, queue = c.arn(), c.fifo(), c.fifo_queue(), c.queue()
    endpoint = c.queue_arn(fifo_queue)
    c.refused("not-fifo-topic", c.sns.subscribe, TopicArn=topic, Protocol="sqs", Endpoint=endpoint)
    to_standard = c.subscribe(fifo_topic, queue)
    c.match("not-fifo-queue", to_standard)
    c.set(to_standard, "RedrivePolicy", {"deadLetterTargetArn": c.queue_arn(c.queue())})
    arn = c.subscribe(fifo_topic, fifo_queue)["SubscriptionArn"]
    policy = json.dumps({"deadLetterTargetArn": c.queue_arn(queue)})
    change = {"SubscriptionArn": arn, "AttributeName": "RedrivePolicy", "AttributeValue": policy}
    c.refused("regular-queue-for-dlq-of-fifo-topic", c.sns.set_subscription_attributes, **change)
    c.refused("no-msg-group-id", c.sns.publish, TopicArn=fifo_topic, Message="test")
    c.refused("no-dedup-policy", c.sns.publish, TopicArn=fifo_topic, Message="test", MessageGroupId="g")
    c.refused("no-msg-dedup-regular-topic", c.sns.publish, TopicArn=topic, Message="test", MessageDeduplicationId="d")


def fifo_batch(is_named, first=0):
    batch = [{**entry, "MessageGroupId": "complexMessageGroupId"} for entry in BATCH]
    if is_named:
        for index, entry in enumerate(batch):
            entry["MessageDeduplicationId"] = f"MessageDeduplicationId-{index + first}"
    return batch


def test_publish_fifo_messages_to_dlq(c):
    topic = c.fifo()
    c.match("topic-attrs", c.sns.get_topic_attributes(TopicArn=topic))
    url, dlq = c.fifo_queue(), c.fifo_queue()
    arn = c.subscribe(topic, url)["SubscriptionArn"]
    if c.parameter == "True":
        c.set(arn, "RawMessageDelivery", "true")
    c.set(arn, "RedrivePolicy", {"deadLetterTargetArn": c.queue_arn(dlq)})
    c.sqs.delete_queue(QueueUrl=url)
    batch = c.sns.publish_batch(TopicArn=topic, PublishBatchRequestEntries=fifo_batch(True, 1))
    c.match("publish-batch-response-fifo", batch)
    c.match("batch-messages-in-dlq", {"Messages": c.collect(dlq, 3)})
    more = {"MessageGroupId": "message-group-id-1", "MessageDeduplicationId": "message-deduplication-id-1"}
    c.match("publish-response-fifo", c.sns.publish(TopicArn=topic, Message="test-message", **more))
    c.match("messages-in-dlq", {"Messages": c.collect(dlq, 1)})


def test_publish_batch_messages_from_fifo_topic_to_fifo_queue(c):
    is_content_based = c.parameter == "True"
    topic, url = fifo_pair(c, is_content_based)
    c.match("topic-attrs", c.sns.get_topic_attributes(TopicArn=topic))
    arn = c.subscribe(topic, url)["SubscriptionArn"]
    c.set(arn, "RawMessageDelivery", "true")
    c.match("sub-attrs-raw-true", attributes_of(c, arn))
    batch = fifo_batch(not is_content_based)
    answer = c.sns.publish_batch(TopicArn=topic, PublishBatchRequestEntries=batch)
    c.match("publish-batch-response-fifo", answer)
    c.match("messages", {"Messages": c.collect(url, 3)})
    answer = c.sns.publish_batch(TopicArn=topic, PublishBatchRequestEntries=batch)
    c.match("republish-batch-response-fifo", answer)
    c.match("duplicate-messages", c.receive(url, WaitTimeSeconds=1, **ALL))


def test_publish_to_fifo_topic_to_sqs_queue_no_content_dedup(c):
    topic, url = c.fifo(ContentBasedDeduplication="true"), c.fifo_queue()
    subscription = c.subscribe(topic, url)
    if c.parameter == "True":
        c.set(subscription, "RawMessageDelivery", "true")
    group = {"MessageGroupId": "message-group-id-1"}
    for _ in range(2):
        c.sns.publish(TopicArn=topic, Message="Test single", **group)
        entries = [{"Id": "1", "Message": "Test batched", **group}]
        c.sns.publish_batch(TopicArn=topic, PublishBatchRequestEntries=entries)
    messages = c.collect(url, 2)
    messages.sort(key=lambda message: message["Attributes"]["MessageDeduplicationId"])
    c.match("messages", {"Messages": messages})


def test_publish_to_fifo_topic_deduplication_on_topic_level(c):
    topic, url = c.fifo(ContentBasedDeduplication="true"), c.fifo_queue()
    c.subscribe(topic, url)
    for group in ["message-group-id-1", "message-group-id-2"]:
        c.sns.publish(TopicArn=topic, Message="Test", MessageGroupId=group)
    answer = c.receive(url, AttributeNames=["All"])
    c.match("messages", answer)
    c.sqs.delete_message(QueueUrl=url, ReceiptHandle=answer["Messages"][0]["ReceiptHandle"])
    c.match("dedup-messages", c.receive(url, AttributeNames=["All"], WaitTimeSeconds=1))


def test_message_to_fifo_sqs_ordering(c):
    topic = c.fifo(ContentBasedDeduplication="true")
    urls = [c.fifo_queue(ContentBasedDeduplication="true") for _ in range(5)]
    for url in urls:
        c.subscribe(topic, url, Attributes=RAW)
    for index in range(10):
        c.sns.publish(TopicArn=topic, Message=str(index), MessageGroupId="message-group-id-1")
    for url in urls:
        assert [message["Body"] for message in c.collect(url, 10)] == [str(index) for index in range(10)]


# Mobile push.

SECRETS = {"PlatformPrincipal": "dummy", "PlatformCredential": "dummy"}


def application(c, name=None):
    name = name or c.name("application")
    answer = c.sns.create_platform_application(Name=name, Platform="ADM", Attributes=SECRETS)
    return answer["PlatformApplicationArn"]


def endpoint(c, of, **more):
    return c.sns.create_platform_endpoint(PlatformApplicationArn=of, Token="token_1", **more)


def without_applications(c):
    for of in c.sns.list_platform_applications()["PlatformApplications"]:
        c.sns.delete_platform_application(PlatformApplicationArn=of["PlatformApplicationArn"])


def test_create_platform_application(c):
    answer = c.sns.create_platform_application(Name=c.name(), Platform="ADM", Attributes=SECRETS)
    c.match("create-platform-application", answer)


def test_list_platform_applications(c):
    without_applications(c)
    application(c)
    c.match("list-platform-applications", c.sns.list_platform_applications())


def test_create_platform_application_invalid_attributes(c):
    attributes = {
        "no-args": {},
        "missing-credential": {"PlatformPrincipal": "dummy"},
        "missing-principal": {"PlatformCredential": "dummy"},
    }[c.parameter]
    create = c.sns.create_platform_application
    c.refused("platform-application-no-attributes", create, Name=c.name(), Platform="ADM", Attributes=attributes)


def test_create_platform_application_invalid_name(c):
    name = {"too-long": "a" * 257, "empty": "", "invalid-char": "@name"}[c.parameter]
    create = c.sns.create_platform_application
    c.refused("invalid-application-name", create, Name=name, Platform="ADM", Attributes=SECRETS)


def test_create_platform_application_invalid_platform(c):
    create = c.sns.create_platform_application
    c.refused("invalid-platform", create, Name=c.name(), Platform="AAA", Attributes=SECRETS)


def test_get_platform_application_attributes(c):
    arn = application(c)
    answer = c.sns.get_platform_application_attributes(PlatformApplicationArn=arn)
    c.match("get-application-attributes", answer)


MISSING_APPLICATION = f"arn:aws:sns:{REGION}:{ACCOUNT}:app/ADM/NonExistingApp"


def test_get_platform_application_attributes_invalid_arn(c):
    get = c.sns.get_platform_application_attributes
    c.refused("invalid-application-arn", get, PlatformApplicationArn="invalid-arn")


def test_get_platform_application_attributes_non_existing_app(c):
    get = c.sns.get_platform_application_attributes
    c.refused("non_existing-application-arn", get, PlatformApplicationArn=MISSING_APPLICATION)


def test_set_platform_application_attributes(c):
    arn = application(c)
    change = {"SuccessFeedbackSampleRate": "50"}
    c.sns.set_platform_application_attributes(PlatformApplicationArn=arn, Attributes=change)
    answer = c.sns.get_platform_application_attributes(PlatformApplicationArn=arn)
    c.match("set-get-application-attributes", answer)


def test_set_platform_application_attributes_invalid_arn(c):
    change = c.sns.set_platform_application_attributes
    c.refused("invalid-application-arn", change, PlatformApplicationArn="invalid-arn", Attributes={})


def test_set_platform_application_attributes_non_existing_app(c):
    attributes = {
        "": {},
        "no-args": {},
        "missing-credential": {"PlatformPrincipal": "dummy"},
        "missing-principal": {"PlatformCredential": "dummy"},
        "dummy-args": {"PlatformPrincipal": "dummy"},
    }[c.parameter]
    change = c.sns.set_platform_application_attributes
    arguments = {"PlatformApplicationArn": MISSING_APPLICATION, "Attributes": attributes}
    c.refused("non_existing-application-arn", change, **arguments)


def test_create_platform_endpoint(c):
    c.match("create-platform-endpoint", endpoint(c, application(c)))


def test_create_platform_endpoint_idempotency(c):
    of = application(c)
    c.match("create-platform-endpoint", endpoint(c, of))
    c.match("create-platform-endpoint-idempotent", endpoint(c, of))
    arguments = {"PlatformApplicationArn": of, "Token": "token_1", "Attributes": {"Enabled": "false"}}
    c.refused("create-platform-endpoint-different-token", c.sns.create_platform_endpoint, **arguments)


def test_create_platform_endpoint_non_existent_app(c):
    arguments = {"PlatformApplicationArn": MISSING_APPLICATION, "Token": "token_1"}
    c.refused("create-platform-endpoint", c.sns.create_platform_endpoint, **arguments)


def endpoints_of(c, of):
    return c.sns.list_endpoints_by_platform_application(PlatformApplicationArn=of)


def test_list_platform_endpoints(c):
    of = application(c)
    endpoint(c, of)
    c.match("list-endpoints-by-app", endpoints_of(c, of))


def test_delete_platform_endpoint(c):
    of = application(c)
    arn = endpoint(c, of)["EndpointArn"]
    c.match("list-endpoints-by-app-pre-delete", endpoints_of(c, of))
    c.match("delete-endpoint", c.sns.delete_endpoint(EndpointArn=arn))
    c.match("list-endpoints-by-app-post-delete", endpoints_of(c, of))


def test_delete_platform_endpoint_with_subscription(c):
    arn, topic = endpoint(c, application(c))["EndpointArn"], c.arn()
    c.sns.subscribe(TopicArn=topic, Protocol="application", Endpoint=arn)
    c.match("list-subscriptions-pre-delete", c.sns.list_subscriptions_by_topic(TopicArn=topic))
    c.match("delete-endpoint", c.sns.delete_endpoint(EndpointArn=arn))
    c.match("list-subscriptions-post-delete", c.sns.list_subscriptions_by_topic(TopicArn=topic))


def test_delete_endpoints_of_deleted_app(c):
    of = application(c)
    endpoint(c, of)
    c.match("delete-application", c.sns.delete_platform_application(PlatformApplicationArn=of))
    listing = c.sns.list_endpoints_by_platform_application
    c.refused("list-endpoints-after-app-delete", listing, PlatformApplicationArn=of)


def test_get_platform_endpoint_attributes(c):
    arn = endpoint(c, application(c))["EndpointArn"]
    c.match("get-platform-endpoint-attributes", c.sns.get_endpoint_attributes(EndpointArn=arn))


def test_set_platform_endpoint_attributes(c):
    arn = endpoint(c, application(c))["EndpointArn"]
    answer = c.sns.set_endpoint_attributes(EndpointArn=arn, Attributes={"Enabled": "false"})
    c.match("set-platform-endpoint-attributes", answer)
    c.match("get-platform-endpoint-attributes", c.sns.get_endpoint_attributes(EndpointArn=arn))


def test_set_platform_endpoint_attributes_invalid_arn(c):
    arn = f"arn:aws:sns:{REGION}:{ACCOUNT}:endpoint/ADM/{uuid.uuid4()}"
    key = "set-platform-endpoint-attributes-non-existent-app"
    c.refused(key, c.sns.set_endpoint_attributes, EndpointArn=arn, Attributes={"Enabled": "false"})


def missing_endpoint():
    return f"arn:aws:sns:{REGION}:{ACCOUNT}:endpoint/ADM/fakeapp/{uuid.uuid4()}"


def test_get_platform_endpoint_attributes_non_existent_endpoint(c):
    key = "set-platform-endpoint-attributes-non-existent-app"
    c.refused(key, c.sns.get_endpoint_attributes, EndpointArn=missing_endpoint())


def test_set_platform_endpoint_attributes_non_existent_endpoint(c):
    key = "set-platform-endpoint-attributes-non-existent-app"
    change = {"EndpointArn": missing_endpoint(), "Attributes": {"Enabled": "false"}}
    c.refused(key, c.sns.set_endpoint_attributes, **change)


WRONG = {
    "Empty": {},
    "Invalid_Name_Principal": {"PlatformPrincipal": "Principal"},
    "Invalid_Name_Credential": {"PlatformCredential": "Credential"},
    "Invalid_Name_Generic": {"InvalidKey": "Value"},
    "Data_Too_Long": {"CustomUserData": "A" * 2050},
}


def test_set_platform_endpoint_attributes_invalid_attributes(c):
    change = {"EndpointArn": endpoint(c, application(c))["EndpointArn"], "Attributes": WRONG[c.parameter]}
    c.refused("set-platform-endpoint-invalid-attributes", c.sns.set_endpoint_attributes, **change)


def test_create_platform_endpoint_with_invalid_attributes(c):
    if c.parameter == "Empty":
        endpoint(c, application(c), Attributes={})
        return
    arguments = {"PlatformApplicationArn": application(c), "Token": "token_1", "Attributes": WRONG[c.parameter]}
    c.refused("create-platform-endpoint-invalid-attr", c.sns.create_platform_endpoint, **arguments)


def test_create_platform_endpoint_custom_data(c):
    arn = endpoint(c, application(c), CustomUserData="bar")["EndpointArn"]
    c.match("create-endpoint-double-custom-data", c.sns.get_endpoint_attributes(EndpointArn=arn))


def test_create_platform_endpoint_double_custom_data(c):
    arn = endpoint(c, application(c), Attributes={"CustomUserData": "foo"}, CustomUserData="bar")["EndpointArn"]
    c.match("create-endpoint-double-custom-data", c.sns.get_endpoint_attributes(EndpointArn=arn))


# Text messages.


def test_subscribe_sms_endpoint(c):
    answer = c.sns.subscribe(TopicArn=c.arn(), Protocol="sms", Endpoint="+123123123")
    c.match("subscribe-sms-endpoint", answer)
    c.match("subscribe-sms-attrs", attributes_of(c, answer["SubscriptionArn"]))


def test_publish_wrong_phone_format(c):
    text = "Good news everyone!"
    c.refused("invalid-number", c.sns.publish, Message=text, PhoneNumber="+1a234")
    c.refused("wrong-format", c.sns.publish, Message=text, PhoneNumber="NAA+15551234567")
    c.refused("wrong-endpoint", c.sns.subscribe, TopicArn=c.arn(), Protocol="sms", Endpoint="NAA+15551234567")


def test_set_get_sms_attributes(c):
    attributes = {"DeliveryStatusSuccessSamplingRate": "100", "DefaultSenderID": "LSTest"}
    c.sns.set_sms_attributes(attributes={**attributes, "DefaultSMSType": "Promotional"})
    c.match("get-sms-all-attributes", c.sns.get_sms_attributes())
    some = c.sns.get_sms_attributes(attributes=["DefaultSenderID", "DefaultSMSType"])
    c.match("get-sms-some-attributes", some)


def test_get_sms_attributes_from_unmodified_region(c):
    answer = c.client("sns", "eu-west-3").get_sms_attributes()
    c.match("get-sms-attributes_unmodified_region", answer)


def test_set_invalid_sms_attributes(c):
    name, value = {
        "InvalidAttributeName": ("InvalidAttribute", "invalid"),
        "TooLongID": ("DefaultSendID", "a" * 12),
        "NoLetterID": ("DefaultSendID", "123456789"),
        "InvalidSMSType": ("DefaultSMSType", "invalid"),
    }[c.parameter]
    c.refused("invalid-attribute", c.sns.set_sms_attributes, attributes={name: value})


NUMBER_OUT = "+15550123456"


def opt_out(c):
    fetch(f"{c.endpoint}/_tern/sns/opt-out", post=True, phoneNumber=NUMBER_OUT)


def test_is_phone_number_opted_out(c):
    opt_out(c)
    answer = c.sns.check_if_phone_number_is_opted_out(phoneNumber=NUMBER_OUT)
    c.match("phone-number-opted-out", answer)


def test_list_phone_numbers_opted_out(c):
    opt_out(c)
    c.match("list-phone-numbers-opted-out", c.sns.list_phone_numbers_opted_out())


def test_opt_in_phone_number(c):
    opt_out(c)
    c.match("opt-in-phone-number", c.sns.opt_in_phone_number(phoneNumber=NUMBER_OUT))
    assert not c.sns.check_if_phone_number_is_opted_out(phoneNumber=NUMBER_OUT)["isOptedOut"]


def test_opt_in_non_existing_phone_number(c):
    answer = c.sns.opt_in_phone_number(phoneNumber="+44123456789")
    c.match("opt-in-non-existing-number", answer)


def test_opt_in_invalid_number(c):
    c.refused("opt-in-non-existing-number", c.sns.opt_in_phone_number, phoneNumber="no-number")


# Filters.


def filtered(c, policy=None, scope=None, **attributes):
    """A topic, a subscribed queue, and the subscription."""
    topic, url = c.arn(), c.queue()
    if policy is not None:
        attributes["FilterPolicy"] = json.dumps(policy)
    if scope:
        attributes["FilterPolicyScope"] = scope
    return topic, url, c.subscribe(topic, url, Attributes=attributes)["SubscriptionArn"]


def delete_first(c, url, answer):
    c.sqs.delete_message(QueueUrl=url, ReceiptHandle=answer["Messages"][0]["ReceiptHandle"])


def nothing_in(c, url):
    assert not c.receive(url, WaitTimeSeconds=1).get("Messages")


def test_set_subscription_filter_policy_scope(c):
    _, _, arn = filtered(c)
    c.match("sub-attrs-default", attributes_of(c, arn))
    c.set(arn, "FilterPolicyScope", "MessageBody")
    c.match("sub-attrs-filter-scope-body", attributes_of(c, arn))
    change = {"SubscriptionArn": arn, "AttributeName": "FilterPolicyScope", "AttributeValue": "RandomValue"}
    c.refused("sub-attrs-filter-scope-error", c.sns.set_subscription_attributes, **change)
    c.set(arn, "FilterPolicy", {"attr": ["match-this"]})
    c.match("sub-attrs-after-setting-policy", attributes_of(c, arn))


def refuse_policy(c, key, arn, policy):
    change = {"SubscriptionArn": arn, "AttributeName": "FilterPolicy", "AttributeValue": json.dumps(policy)}
    c.refused(key, c.sns.set_subscription_attributes, **change)


def test_sub_filter_policy_nested_property(c):
    _, _, arn = filtered(c)
    nested = {"object": {"key": [{"prefix": "auto-"}]}}
    refuse_policy(c, "sub-filter-policy-nested-error", arn, nested)
    c.set(arn, "FilterPolicyScope", "MessageBody")
    c.set(arn, "FilterPolicy", nested)
    c.match("sub-attrs-after-setting-nested-policy", attributes_of(c, arn))


def test_sub_filter_policy_nested_property_constraints(c):
    _, _, arn = filtered(c, scope="MessageBody")
    values = ["value_one", "value_two", "value_three", "value_four"]
    nested = {"key_a": {"key_b": {"key_c": values}}, "key_d": {"key_e": values[:3]}, "key_f": values[:3]}
    refuse_policy(c, "sub-filter-policy-nested-error-too-many-combinations", arn, nested)
    refuse_policy(c, "sub-filter-policy-max-attr-keys", arn, {f"key_{letter}": ["value"] for letter in "abcdef"})
    refuse_policy(c, "sub-filter-policy-rule-no-list", arn, {"key_a": "value_one"})


def test_filter_policy(c):
    topic, url, arn = filtered(c)
    c.set(arn, "FilterPolicy", {"attr1": [{"numeric": [">", 0, "<=", 100]}]})
    c.match("subscription-attributes", attributes_of(c, arn))
    now = {"VisibilityTimeout": 0, "WaitTimeSeconds": 1}
    c.match("messages-0", c.receive(url, **now))
    c.sns.publish(TopicArn=topic, Message="This is a test message", MessageAttributes=number("99"))
    first = c.receive(url, **now)
    c.match("messages-1", first)
    c.sns.publish(TopicArn=topic, Message="This is another test message", MessageAttributes=number("111"))
    answer = c.receive(url, **now)
    c.match("messages-2", answer)
    delete_first(c, url, answer)
    c.set(arn, "FilterPolicy", {"attr1": [None, {"anything-but": "whatever"}]})
    c.match("subscription-attributes-2", attributes_of(c, arn))
    c.sns.publish(TopicArn=topic, Message="This the test message for null")
    c.match("messages-3", c.receive(url, **now))
    c.set(arn, "FilterPolicy", "")
    c.sns.publish(TopicArn=topic, Message="This the test message for null")
    c.match("messages-4", c.receive(url, **now))


def test_exists_filter_policy(c):
    topic, url, arn = filtered(c)
    c.set(arn, "FilterPolicy", {"store": [{"exists": True}]})
    c.match("subscription-attributes-policy-1", attributes_of(c, arn))
    now = {"VisibilityTimeout": 0, "WaitTimeSeconds": 1}
    nine = {"DataType": "Number", "StringValue": "99"}
    c.match("messages-0", c.receive(url, **now))
    c.sns.publish(TopicArn=topic, Message="message-1", MessageAttributes={"store": nine, "def": nine})
    c.match("messages-1", c.receive(url, **now))
    c.sns.publish(TopicArn=topic, Message="message-2", MessageAttributes=number("111"))
    answer = c.receive(url, **now)
    c.match("messages-2", answer)
    delete_first(c, url, answer)
    c.set(arn, "FilterPolicy", {"store": [{"exists": False}]})
    c.match("subscription-attributes-policy-2", attributes_of(c, arn))
    c.sns.publish(TopicArn=topic, Message="message-3", MessageAttributes={"def": nine})
    c.match("messages-3", c.receive(url, **now))
    c.sns.publish(TopicArn=topic, Message="message-4", MessageAttributes={"store": nine, "def": nine})
    c.match("messages-4", c.receive(url, **now))


def test_exists_filter_policy_attributes_array(c):
    topic, url, arn = filtered(c, {"store": ["value1"]}, "MessageAttributes", **RAW)
    c.match("subscription-attributes-policy", attributes_of(c, arn))
    c.match("messages-init", c.receive(url, WaitTimeSeconds=0))
    for index, (data_type, value) in enumerate(
        [
            ("String", "value1"),
            ("String.Array", json.dumps(["value1", "value2"])),
            ("String.Array", json.dumps(["value2", "value3"])),
        ],
        1,
    ):
        attributes = {"store": {"DataType": data_type, "StringValue": value}}
        c.sns.publish(TopicArn=topic, Message=f"message-{index}", MessageAttributes=attributes)
        answer = c.receive(url, WaitTimeSeconds=1)
        if index < 3:
            delete_first(c, url, answer)
        c.match(f"messages-{index}", answer)


def test_filter_policy_for_batch(c):
    topic, url, arn = filtered(c)
    other = c.queue()
    unfiltered = c.subscribe(topic, other)["SubscriptionArn"]
    c.set(arn, "FilterPolicy", {"attr1": [{"numeric": [">", 0, "<=", 100]}]})
    c.match("subscription-attributes-with-filter", attributes_of(c, arn))
    c.match("subscription-attributes-no-filter", attributes_of(c, unfiltered))
    c.match("messages-no-filter-before-publish", c.receive(other, WaitTimeSeconds=0))
    c.match("messages-with-filter-before-publish", c.receive(url, WaitTimeSeconds=0))

    def publish(text, value):
        entries = [{"Id": "1", "Message": text, "MessageAttributes": number(value)}]
        c.sns.publish_batch(TopicArn=topic, PublishBatchRequestEntries=entries)

    publish("This is a test message", "99")
    for key, queue in [("no-filter", other), ("with-filter", url)]:
        answer = c.receive(queue)
        c.match(f"messages-{key}-after-publish-ok", answer)
        delete_first(c, queue, answer)
    publish("This is another test message", "111")
    c.match("messages-no-filter-after-publish-ok-1", c.receive(other))
    c.match("messages-with-filter-after-publish-filtered", c.receive(url, WaitTimeSeconds=1))


def publish_and_match(c, topic, url, messages, prefix):
    for index, message in enumerate(messages):
        c.sns.publish(TopicArn=topic, Message=json.dumps(message))
        answer = c.receive(url)
        c.match(f"{prefix}-{index}", answer)
        delete_first(c, url, answer)


def test_filter_policy_on_message_body_dot_attribute(c):
    topic, url, arn = filtered(c, {"object.nested": ["string.value"]}, "MessageBody")
    c.match("recv-init", c.receive(url, WaitTimeSeconds=0))
    passing = [{"object": {"nested": "string.value"}}, {"object.nested": "string.value"}]
    publish_and_match(c, topic, url, passing, "recv-nested-msg")
    c.sns.publish(TopicArn=topic, Message=json.dumps({"object": {"nested": "test-auto"}}))
    nothing_in(c, url)
    c.set(arn, "FilterPolicy", {"object.nested.test": ["string.value"]})
    passing = [
        {"object": {"nested": {"test": "string.value"}}},
        {"object.nested.test": "string.value"},
        {"object.nested": {"test": "string.value"}},
        {"object": {"nested.test": "string.value"}},
    ]
    publish_and_match(c, topic, url, passing, "recv-deep-nested-msg")
    c.sns.publish(TopicArn=topic, Message=json.dumps({"object": {"nested": {"test": "string.notvalue"}}}))
    nothing_in(c, url)


def test_filter_policy_on_message_body_array_attributes(c):
    topic, urls = c.arn(), [c.queue(), c.queue()]
    for index, url in enumerate(urls, 1):
        policy = json.dumps({"headers": {"route-to": [f"queue{index}"]}})
        c.subscribe(topic, url, Attributes={"FilterPolicyScope": "MessageBody", "FilterPolicy": policy, **RAW})
    for route in [["queue3"], ["queue1"], ["queue2"], ["queue1", "queue2"]]:
        c.sns.publish(TopicArn=topic, Message=json.dumps({"headers": {"route-to": route}}))
    for index, url in enumerate(urls):
        messages = sorted(c.collect(url, 2, MessageAttributeNames=[]), key=lambda of: of["Body"])
        c.match(f"messages-queue-{index}", {"Messages": messages})
