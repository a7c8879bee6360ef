"""Publishes messages whose arrival the broker confirms, and learns of one that has nowhere to go.

Needs pika. AMQP_URL names another broker than the one on this machine.
"""

import os

import pika

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")
MESSAGES = 200


def main():
    connection = pika.BlockingConnection(pika.URLParameters(URL))
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    # From here on basic_publish returns when the broker has confirmed, and raises if it refused.
    channel.confirm_delivery()

    persistent = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
    for number in range(MESSAGES):
        channel.basic_publish("", queue, f"message {number}", persistent, mandatory=True)
    print(f"{MESSAGES} messages are confirmed")

    try:
        channel.basic_publish("", "example.no-such-queue", "nobody reads this", mandatory=True)
    except pika.exceptions.UnroutableError as error:
        returned = error.messages[0].method
        assert (returned.reply_code, returned.reply_text) == (312, "NO_ROUTE"), returned
        print(f"one message came back: {returned.reply_text}")
    else:
        raise AssertionError("the unroutable message was not returned")

    bodies = []
    for _, _, body in channel.consume(queue, auto_ack=True, inactivity_timeout=10):
        assert body is not None, f"only {len(bodies)} messages arrived"
        bodies.append(body.decode())
        if len(bodies) == MESSAGES:
            break
    assert bodies == [f"message {number}" for number in range(MESSAGES)]
    print(f"{MESSAGES} messages arrived in order")
    connection.close()


if __name__ == "__main__":
    main()
