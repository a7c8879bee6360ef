"""Routes log lines by topic: each reader names the patterns that it wants.

Needs pika. AMQP_URL names another broker than the one on this machine.
"""

import os

import pika

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")
EXCHANGE = "example.topics.python"
KEYS = ["shop.orders.info", "shop.orders.error", "shop.stock.error", "bank.info", "shop"]
# Patterns and what they take: * is one word, # any number of them, none included.
READERS = [
    (["#"], KEYS),
    (["shop.#"], ["shop.orders.info", "shop.orders.error", "shop.stock.error", "shop"]),
    (["*.*.error"], ["shop.orders.error", "shop.stock.error"]),
    # Two patterns that both match are still one message.
    (["shop.orders.*", "#.info"], ["shop.orders.info", "shop.orders.error", "bank.info"]),
]


def main():
    connection = pika.BlockingConnection(pika.URLParameters(URL))
    channel = connection.channel()
    channel.exchange_declare(EXCHANGE, "topic", auto_delete=True)
    queues = []
    for patterns, _ in READERS:
        queue = channel.queue_declare("", exclusive=True).method.queue
        queues.append(queue)
        for pattern in patterns:
            channel.queue_bind(queue, EXCHANGE, pattern)

    channel.confirm_delivery()
    for key in KEYS:
        channel.basic_publish(EXCHANGE, key, key)

    # All publishes are confirmed, so all messages are in their queues.
    for queue, (patterns, expected) in zip(queues, READERS):
        received = []
        while True:
            method, _, _ = channel.basic_get(queue, auto_ack=True)
            if method is None:
                break
            received.append(method.routing_key)
        print(f"{patterns} took {received}")
        assert received == expected, expected
    connection.close()


if __name__ == "__main__":
    main()
