#!/usr/bin/env python3
"""Celery with the SQS transport: real worker processes, and kombu where Celery has no word for it.

    AWS_ENDPOINT_URL=http://.. celery_sqs_program.py [TEXT in the names of the checks to run]
"""

import contextlib
import datetime
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import uuid

import boto3
import checks
from checks import check, equal, main

checks.CHECK_SECS_MAX = 90
DIRECTORY = pathlib.Path(tempfile.mkdtemp(prefix="celery-sqs-"))
NOTES = DIRECTORY / "notes"
PREFIX = f"celery-{uuid.uuid4().hex[:6]}-"
WAIT_SECS = 40

(DIRECTORY / "results").mkdir()
NOTES.touch()
os.environ.update(CELERY_NOTES=str(NOTES), CELERY_BACKEND=f"file://{DIRECTORY / 'results'}", CELERY_PREFIX=PREFIX)

import celery_sqs_app as tasks  # noqa: E402
import kombu  # noqa: E402
from celery import chain, group  # noqa: E402

workers = {}


def start(name, queues, *arguments):
    """Starts a worker without waiting for it."""
    log = open(DIRECTORY / f"{name}.log", "wb")
    workers[name] = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "celery_sqs_app", "worker", "-l", "INFO", "--without-gossip"]
        + ["--without-mingle", "-n", f"{name}@conformance", "-Q", queues, *arguments],
        cwd=pathlib.Path(__file__).resolve().parent,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )


def until(function, what, secs=WAIT_SECS):
    deadline = time.monotonic() + secs
    while not function():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {secs} s")
        time.sleep(0.1)


def notes():
    return NOTES.read_text().splitlines()


def client(service="sqs"):
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    return boto3.client(service, region_name="us-east-1", **keys)


def counts(queue):
    """What waits in a queue, and what is with somebody."""
    sqs = client()
    url = sqs.get_queue_url(QueueName=PREFIX + queue)["QueueUrl"]
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return tuple(int(attributes[name]) for name in names)


@check("a worker makes its queues and does what is in them")
def _():
    start("first", "work,other,late", "-c", "2")
    equal(tasks.add.delay(2, 3).get(timeout=WAIT_SECS), 5)
    # It names its queues as SQS allows.
    names = {url.rsplit("/", 1)[1] for url in client().list_queues(QueueNamePrefix=PREFIX)["QueueUrls"]}
    equal(names, {PREFIX + name for name in ("work", "other", "late")})


@check("tasks of several queues, a hundred of them")
def _():
    sent = [tasks.add.apply_async((number, 1), queue=("work", "other")[number % 2]) for number in range(100)]
    equal([each.get(timeout=WAIT_SECS) for each in sent], list(range(1, 101)))
    until(lambda: counts("work") == counts("other") == (0, 0), "everything is acknowledged")


@check("groups, chains, and a task that fails")
def _():
    equal(group(tasks.add.s(number, number) for number in range(5))().get(timeout=WAIT_SECS), [0, 2, 4, 6, 8])
    equal(chain(tasks.add.s(1, 2), tasks.add.s(3))().get(timeout=WAIT_SECS), 6)
    try:
        tasks.fail.delay("no").get(timeout=WAIT_SECS)
    except KeyError as error:
        equal(error.args, ("no",))
    else:
        raise AssertionError("it did not fail")


@check("a task that is tried again, with a countdown")
def _():
    equal(tasks.flaky.delay(2).get(timeout=WAIT_SECS), 2)


@check("a countdown, and a time of its own")
def _():
    started = time.time()
    late = tasks.when.apply_async(countdown=2)
    at = tasks.when.apply_async(eta=tasks.app.now() + datetime.timedelta(seconds=1), queue="other")
    for result, secs in (at, 1), (late, 2):
        waited = result.get(timeout=WAIT_SECS) - started
        equal(secs - 0.1 <= waited < secs + 10, True, f"{waited} s for {secs}")


@check("a delay by the broker")
def _():
    started = time.time()
    waited = tasks.when.apply_async(delay_seconds=3).get(timeout=WAIT_SECS) - started
    equal(2.9 <= waited < 12, True, f"{waited} s")


@check("what is rejected comes again, or never")
def _():
    again = tasks.refuse.delay("again", True)
    equal(again.get(timeout=WAIT_SECS), "again")
    equal(notes().count("again"), 2)
    tasks.refuse.delay("never", False)
    until(lambda: "never" in notes(), "it is tried")
    until(lambda: counts("work") == (0, 0), "it is gone")
    equal(notes().count("never"), 1)


@check("the task of a worker that is killed runs again when its visibility ends")
def _():
    result = tasks.remember.apply_async(("killed", 5), queue="late")
    until(lambda: "killed" in notes(), "it runs")
    worker = workers["first"]
    children = subprocess.run(["ps", "--ppid", str(worker.pid), "-o", "pid="], capture_output=True, text=True).stdout
    for pid in (worker.pid, *map(int, children.split())):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    worker.wait()
    equal(counts("late"), (0, 1))
    start("second", "work,other,late", "-c", "2")
    equal(result.get(timeout=WAIT_SECS), "killed")
    equal((notes().count("killed"), notes().count("killed ended")), (2, 1))


@check("a worker that is asked to end finishes what it has and leaves the rest")
def _():
    results = [tasks.remember.delay(f"last {number}", 2) for number in range(6)]
    until(lambda: sum(line.startswith("last") for line in notes()) >= 2, "two run")
    worker = workers["second"]
    worker.send_signal(signal.SIGTERM)
    equal(worker.wait(WAIT_SECS), 0, "exit status")
    begun = {line.removesuffix(" ended") for line in notes() if line.startswith("last")}
    ended = {line.removesuffix(" ended") for line in notes() if line.startswith("last") and line.endswith("ended")}
    equal(begun, ended, "what was begun and ended")
    start("third", "work", "-c", "2")
    for number, result in enumerate(results):
        equal(result.get(timeout=WAIT_SECS), f"last {number}")
    equal([notes().count(f"last {number} ended") for number in range(6)], [1] * 6)


def connection(**options):
    options = {**tasks.OPTIONS, "wait_time_seconds": 1, **options}
    return kombu.Connection(tasks.BROKER, transport_options=options)


@check("kombu, a fanout exchange is a topic of SNS")
def _():
    exchange = kombu.Exchange("everybody", type="fanout")
    queues = [kombu.Queue(f"fan-{number}", exchange) for number in range(2)]
    got = []
    with connection(supports_fanout=True) as on, on.channel() as channel:
        # It makes the topic, subscribes its queues, and lets the topic send by a policy of each queue.
        with kombu.Consumer(channel, queues, callbacks=[lambda body, message: (got.append(body), message.ack())]):
            kombu.Producer(channel, exchange).publish({"to": "all"}, declare=queues)
            for _ in range(2):
                on.drain_events(timeout=WAIT_SECS)
    equal(got, [{"to": "all"}] * 2)


@check("kombu, a FIFO queue keeps its order")
def _():
    queue = kombu.Queue("ordered.fifo", routing_key="ordered.fifo")
    got = []
    with connection() as on, on.channel() as channel:
        producer = kombu.Producer(channel)
        for number in range(5):
            ids = {"MessageGroupId": "g", "MessageDeduplicationId": f"{number}"}
            producer.publish(number, routing_key="ordered.fifo", declare=[queue], **ids)
        with kombu.Consumer(channel, [queue], callbacks=[lambda body, message: (got.append(body), message.ack())]):
            while len(got) < 5:
                on.drain_events(timeout=WAIT_SECS)
    equal(got, list(range(5)))


@check("kombu, a message with attributes and headers goes through")
def _():
    queue = kombu.Queue("attributes", routing_key="attributes")
    with connection(fetch_message_attributes=["ApproximateReceiveCount", "SenderId"]) as on, on.channel() as channel:
        attributes = {"kind": {"DataType": "String", "StringValue": "a"}}
        properties = {"message_attributes": attributes, "headers": {"h": 1}}
        kombu.Producer(channel).publish("x", routing_key="attributes", declare=[queue], **properties)
        got = []
        with kombu.Consumer(channel, [queue], callbacks=[lambda body, message: got.append(message)]):
            on.drain_events(timeout=WAIT_SECS)
        (message,) = got
        equal((message.payload, message.headers["h"]), ("x", 1))
        message.ack()


def finish():
    for worker in workers.values():
        if worker.poll() is None:
            worker.terminate()
    for name, worker in workers.items():
        try:
            worker.wait(WAIT_SECS)
        except subprocess.TimeoutExpired:
            worker.kill()
        log = (DIRECTORY / f"{name}.log").read_text(errors="replace")
        print(f"---- {name}\n{log[-3000:]}", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    finally:
        finish()
