"""Shares tasks among two workers: each gets a new one when it has finished the last, and a task
whose worker gives up is done by another.

Needs pika. AMQP_URL names another broker than the one on this machine.
"""

import collections
import os
import time

import pika

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")
QUEUE = "example.work-queue.python"
TASKS = 20


def main():
    connection = pika.BlockingConnection(pika.URLParameters(URL))
    channel = connection.channel()
    # What an interrupted run left behind would be counted twice.
    channel.queue_delete(QUEUE)
    channel.queue_declare(QUEUE, durable=True)

    reports = []
    for name in ("anna", "bert"):
        start_worker(connection, name, reports)
    persistent = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
    for number in range(TASKS):
        channel.basic_publish("", QUEUE, f"task {number}", persistent)

    deadline = time.monotonic() + 20
    while len(reports) < TASKS:
        assert time.monotonic() < deadline, f"only {len(reports)} tasks are done"
        connection.process_data_events(time_limit=1)

    tasks = [task for _, task, _ in reports]
    done_by = collections.Counter(name for name, _, _ in reports)
    retried = sum(redelivered for _, _, redelivered in reports)
    print(f"{TASKS} tasks done by {dict(done_by)}, {retried} at the second attempt")
    assert len(set(tasks)) == TASKS, "no task is done twice"
    assert len(done_by) == 2, "both workers have worked"
    assert retried == 1, "one task was given up once"
    channel.queue_delete(QUEUE)
    connection.close()


def start_worker(connection, name, reports):
    channel = connection.channel()
    # One task at a time: the next goes to whoever is free.
    channel.basic_qos(prefetch_count=1)

    def work(channel, method, _properties, body):
        task = body.decode()
        if task == "task 7" and not method.redelivered:
            channel.basic_nack(method.delivery_tag, requeue=True)
            return
        channel.basic_ack(method.delivery_tag)
        reports.append((name, task, method.redelivered))

    channel.basic_consume(QUEUE, work, consumer_tag=name)


if __name__ == "__main__":
    main()
