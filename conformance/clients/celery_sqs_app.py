"""The Celery application of celery_sqs_program.py, for its workers and for the program itself.

CELERY_BACKEND is its result backend, CELERY_NOTES the file to which tasks append what they did, CELERY_PREFIX what the
names of its queues begin with.
"""

import os
import time
from urllib.parse import urlsplit

from celery import Celery
from celery.exceptions import Reject
from kombu import Queue

VISIBILITY_SECS = 6
ADDRESS = urlsplit(os.environ["AWS_ENDPOINT_URL"])
BROKER = f"sqs://test:test@{ADDRESS.hostname}:{ADDRESS.port}//"
OPTIONS = {
    "region": "us-east-1",
    "is_secure": False,
    "visibility_timeout": VISIBILITY_SECS,
    "polling_interval": 0.1,
    "wait_time_seconds": 2,
    "queue_name_prefix": os.environ["CELERY_PREFIX"],
}

app = Celery("conformance", broker=BROKER, backend=os.environ["CELERY_BACKEND"])
app.conf.update(
    broker_transport_options=OPTIONS,
    broker_connection_retry_on_startup=True,
    task_queues=[Queue("work"), Queue("other"), Queue("late")],
    task_default_queue="work",
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_enable_remote_control=False,
)


def note(text):
    with open(os.environ["CELERY_NOTES"], "a") as notes:
        notes.write(text + "\n")


@app.task
def add(x, y):
    return x + y


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
        raise self.retry(countdown=0.5, exc=ValueError("not yet"))
    return self.request.retries


@app.task
def fail(text):
    raise KeyError(text)


@app.task(bind=True)
def refuse(self, text, requeue):
    """Gives the message back the first time, or refuses it for good."""
    note(text)
    if not (requeue and self.request.delivery_info.get("redelivered")):
        with open(os.environ["CELERY_NOTES"]) as notes:
            if notes.read().split("\n").count(text) == 1:
                raise Reject(text, requeue=requeue)
    return text
