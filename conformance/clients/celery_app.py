"""The Celery application of celery_program.py, for its workers and for the program itself.

CELERY_BACKEND is its result backend, CELERY_NOTES the file to which tasks append what they did,
CELERY_QUEUE_TYPE the type of its queues (`classic` or `quorum`).
"""

import os
import time

from celery import Celery
from kombu import Exchange, Queue

NOTES = os.environ["CELERY_NOTES"]
QUEUE_TYPE = os.environ.get("CELERY_QUEUE_TYPE", "classic")

app = Celery("conformance", broker=os.environ["AMQP_URL"], backend=os.environ["CELERY_BACKEND"])


def queue(name, exchange_type, **arguments):
    arguments = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    return Queue(name, Exchange(name, exchange_type), name, queue_arguments=arguments)


def queues_of(queue_type):
    if queue_type == "quorum":
        # Delayed delivery binds the task's exchange to exchanges of its own, and needs a topic.
        return [queue("c.quorum", "topic", queue_type="quorum")]
    return [queue("c.work", "direct"), queue("c.priority", "direct", max_priority=10)]


def settings(queues, queue_type):
    """The configuration of an application whose first queue is its default one."""
    conf = {
        "task_queues": queues,
        "task_default_queue": queues[0].name,
        "task_default_exchange": queues[0].exchange.name,
        "task_default_routing_key": queues[0].name,
        "task_acks_late": True,
        "task_track_started": True,
        "task_send_sent_event": True,
        "worker_prefetch_multiplier": 1,
        "worker_send_task_events": True,
        "broker_connection_retry_on_startup": True,
        "broker_transport_options": {"confirm_publish": True},
    }
    if queue_type == "quorum":
        conf.update(task_default_queue_type="quorum", task_default_exchange_type="topic")
    return conf


app.conf.update(settings(queues_of(QUEUE_TYPE), QUEUE_TYPE))


def note(text):
    with open(NOTES, "a") as notes:
        notes.write(text + "\n")


@app.task
def add(x, y):
    return x + y


@app.task
def total(numbers):
    return sum(numbers)


@app.task
def remember(text, secs=0):
    note(text)
    time.sleep(secs)
    note(f"{text} ended")
    return text


@app.task
def when():
    return time.time()


@app.task(bind=True, max_retries=3)
def flaky(self, failures):
    if self.request.retries < failures:
        raise self.retry(countdown=0.2, exc=ValueError("not yet"))
    return self.request.retries


@app.task
def fail(text):
    raise KeyError(text)
