"""Tries a failing task again after a pause, and parks it after its third failure.

    work --reject--> wait (300 ms) --expired--> work ...  --third failure--> parked

Needs pika. AMQP_URL names another broker than the one on this machine.
"""

import os

import pika

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")
WORK = "example.retry.work.python"
WAIT = "example.retry.wait.python"
PARKED = "example.retry.parked.python"
PAUSE_MS = 300
ATTEMPTS = 3


def main():
    connection = pika.BlockingConnection(pika.URLParameters(URL))
    channel = connection.channel()
    delete_queues(channel)
    # A rejected task goes to WAIT; there it expires, and goes back to WORK.
    channel.queue_declare(WORK, durable=True, arguments=dead_letter_to(WAIT))
    channel.queue_declare(WAIT, durable=True, arguments=dead_letter_to(WORK) | {"x-message-ttl": PAUSE_MS})
    channel.queue_declare(PARKED, durable=True)

    channel.confirm_delivery()
    for task in ("good", "bad"):
        channel.basic_publish("", WORK, task)

    done = []
    failures = None
    for method, properties, body in channel.consume(WORK, inactivity_timeout=10):
        assert method is not None, "a task did not come back"
        task = body.decode()
        failures = rejections(properties)
        print(f"{task}: attempt {failures + 1}")
        if task == "good":
            channel.basic_ack(method.delivery_tag)
            done.append(task)
        elif failures + 1 < ATTEMPTS:
            channel.basic_reject(method.delivery_tag, requeue=False)
        else:
            # Parked first and acknowledged afterwards: a crash in between leaves two, never none.
            channel.basic_publish("", PARKED, body, properties)
            channel.basic_ack(method.delivery_tag)
            break
    channel.cancel()
    assert done == ["good"], done
    assert failures == ATTEMPTS - 1, failures

    _, _, body = channel.basic_get(PARKED, auto_ack=True)
    assert body == b"bad", body
    print("parked: bad")
    delete_queues(channel)
    connection.close()


def rejections(properties):
    """How often the work queue rejected this message, as its x-death header tells."""
    deaths = (properties.headers or {}).get("x-death", [])
    return sum(death["count"] for death in deaths if (death["queue"], death["reason"]) == (WORK, "rejected"))


def dead_letter_to(queue):
    return {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue}


def delete_queues(channel):
    for queue in (WORK, WAIT, PARKED):
        channel.queue_delete(queue)


if __name__ == "__main__":
    main()
