"""The requests of the recorded cases of message move tasks."""

import base64
import json
import time
import uuid


def handle(task, arn):
    """What a task's handle is in recorded answers."""
    return base64.b64encode(json.dumps({"taskId": task, "sourceArn": arn}).encode()).decode()


def size(t, url):
    names = ["ApproximateNumberOfMessages"]
    return int(t.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"][names[0]])


def pipe(t, dead=None):
    """A queue and its dead queue."""
    dead = dead or t.queue(t.name_of("dead"))
    policy = json.dumps({"deadLetterTargetArn": t.arn(dead), "maxReceiveCount": 1})
    return t.queue(Attributes={"RedrivePolicy": policy}), dead


def fail(t, url, bodies):
    for body in bodies:
        t.sqs.send_message(QueueUrl=url, MessageBody=body)
    for _ in range(2 * len(bodies)):
        t.sqs.receive_message(QueueUrl=url, VisibilityTimeout=0)


def failed(t, bodies):
    url, dead = pipe(t)
    fail(t, url, bodies)
    t.wait_for(lambda: size(t, dead) == len(bodies))
    return url, dead


def start(t, dead, destination=None, **arguments):
    if destination:
        arguments["DestinationArn"] = t.arn(destination)
    return t.sqs.start_message_move_task(SourceArn=t.arn(dead), **arguments)


def collect(t, url, count):
    bodies = set()
    until = time.monotonic() + 30
    while len(bodies) < count:
        assert time.monotonic() < until, f"{bodies} of {count}"
        answer = t.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1, MaxNumberOfMessages=10)
        for message in answer.get("Messages", []):
            bodies.add(message["Body"])
            t.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return bodies


def listed(t, dead):
    return t.sqs.list_message_move_tasks(SourceArn=t.arn(dead))


def when(t, dead, condition):
    """The list of tasks, once the newest is as it should be."""
    t.wait_for(lambda: condition(listed(t, dead)["Results"][0]))
    return listed(t, dead)


def test_cancel_with_invalid_task_handle(t):
    t.refused("error", t.sqs.cancel_message_move_task, TaskHandle="foobared")


def test_cancel_with_invalid_source_arn_in_task_handle(t):
    arn = "arn:aws:sqs:us-east-1:000000000000:no-such-queue"
    t.refused("error", t.sqs.cancel_message_move_task, TaskHandle=handle(str(uuid.uuid4()), arn))


def test_cancel_with_invalid_task_id_in_task_handle(t):
    arn = t.arn(t.queue())
    t.refused("error", t.sqs.cancel_message_move_task, TaskHandle=handle(str(uuid.uuid4()), arn))


def test_source_needs_redrive_policy(t):
    source, destination = t.arn(t.queue()), t.arn(t.queue())
    t.refused("error", t.sqs.start_message_move_task, SourceArn=source, DestinationArn=destination)


def test_destination_needs_to_exist(t):
    _, dead = pipe(t)
    destination = t.arn(t.queue()) + "doesntexist"
    t.refused("error", t.sqs.start_message_move_task, SourceArn=t.arn(dead), DestinationArn=destination)


BODIES = ["message-1", "message-2"]


def test_basic_move_task_workflow(t):
    _, dead = failed(t, BODIES)
    destination = t.queue()
    answer = start(t, dead, destination)
    t.match("start-message-move-task-response", answer)
    task = json.loads(base64.b64decode(answer["TaskHandle"]))
    assert uuid.UUID(task["taskId"]) and task["sourceArn"] == t.arn(dead)
    assert collect(t, destination, 2) == set(BODIES)
    # Which of two queues is the first of them in the recorded answer is not ours to say.
    t.matcher.known.clear()
    t.match("list-message-move-task-response", when(t, dead, lambda task: task["Status"] == "COMPLETED"))
    assert "Messages" not in t.sqs.receive_message(QueueUrl=dead)


def test_move_task_workflow_with_default_destination(t):
    url, dead = failed(t, BODIES)
    t.match("source-arn", t.arn(dead))
    t.match("original-source", t.arn(url))
    t.match("start-message-move-task-response", start(t, dead))
    assert collect(t, url, 2) == set(BODIES)
    t.match("list-message-move-task-response", when(t, dead, lambda task: task["Status"] == "COMPLETED"))
    assert "Messages" not in t.sqs.receive_message(QueueUrl=dead)


def test_move_task_workflow_with_multiple_sources_as_default_destination(t):
    first, dead = pipe(t)
    second, _ = pipe(t, dead)
    t.match("source-arn", t.arn(dead))
    t.match("original-source-1", t.arn(first))
    t.match("original-source-2", t.arn(second))
    fail(t, first, ["1-1", "1-2"])
    fail(t, second, ["2-1", "2-2"])
    t.wait_for(lambda: size(t, dead) == 4)
    t.match("start-message-move-task-response", start(t, dead))
    assert collect(t, first, 2) == {"1-1", "1-2"}
    assert collect(t, second, 2) == {"2-1", "2-2"}
    t.match("list-message-move-task-response", when(t, dead, lambda task: task["Status"] == "COMPLETED"))
    assert "Messages" not in t.sqs.receive_message(QueueUrl=dead)


def test_move_task_with_throughput_limit(t):
    bodies = [f"message-{n}" for n in range(4)]
    _, dead = failed(t, bodies)
    destination = t.queue()
    answer = start(t, dead, destination, MaxNumberOfMessagesPerSecond=1)
    t.match("start-message-move-task-response", answer)
    started = time.monotonic()
    assert collect(t, destination, 4) == set(bodies)
    assert time.monotonic() - started >= 2.5


def running(t):
    """A task that has begun to move ten messages, one a second."""
    _, dead = failed(t, [f"message-{n}" for n in range(10)])
    destination = t.queue()
    return dead, destination, start(t, dead, destination, MaxNumberOfMessagesPerSecond=1)


def without_moved(t, key):
    """How many were moved when it was looked at is a matter of chance."""
    recorded = t.recorded[key]
    for one in [recorded, *recorded.get("Results", [])]:
        if "ApproximateNumberOfMessagesMoved" in one:
            one["ApproximateNumberOfMessagesMoved"] = "<moved>"


def match_but_moved(t, key, answer):
    without_moved(t, key)
    t.matcher.known.pop("<moved>", None)
    t.match(key, answer)


def test_move_task_cancel(t):
    dead, destination, answer = running(t)
    t.wait_for(lambda: size(t, destination) >= 2)
    match_but_moved(t, "list-while", listed(t, dead))
    match_but_moved(t, "cancel", t.sqs.cancel_message_move_task(TaskHandle=answer["TaskHandle"]))
    match_but_moved(t, "list-after", when(t, dead, lambda task: task["Status"] == "CANCELLED"))
    assert t.sqs.receive_message(QueueUrl=dead)["Messages"]


def test_move_task_delete_destination_queue_while_running(t):
    dead, destination, _ = running(t)
    t.sqs.delete_queue(QueueUrl=destination)
    match_but_moved(t, "list", when(t, dead, lambda task: task["Status"] != "RUNNING"))
    assert t.sqs.receive_message(QueueUrl=dead)["Messages"]


def test_start_multiple_move_tasks(t):
    dead, destination, _ = running(t)
    arguments = {"DestinationArn": t.arn(destination), "MaxNumberOfMessagesPerSecond": 1}
    t.refused("error", t.sqs.start_message_move_task, SourceArn=t.arn(dead), **arguments)
