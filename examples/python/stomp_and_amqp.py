"""Sends an order over STOMP, works on it over AMQP, and reads the answer over STOMP.

Needs stomp.py and pika. AMQP_URL, STOMP_HOST and STOMP_PORT name another broker than the one on this
machine.
"""

import os
import queue

import pika
import stomp

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")
STOMP = (os.environ.get("STOMP_HOST", "127.0.0.1"), int(os.environ.get("STOMP_PORT", "61613")))
ORDERS = "example.orders.stomp"
WAIT_SECS = 10


class Answers(stomp.ConnectionListener):
    def __init__(self):
        self.frames, self.receipts = queue.Queue(), queue.Queue()

    def on_message(self, frame):
        self.frames.put(frame)

    def on_receipt(self, frame):
        self.receipts.put(frame.headers["receipt-id"])

    def on_error(self, frame):
        self.frames.put(frame)


def main():
    shop = stomp.Connection12([STOMP], vhost="/")
    answers = Answers()
    shop.set_listener("", answers)
    shop.connect("guest", "guest", wait=True)
    headers = {"reply-to": "/temp-queue/answers", "correlation-id": "order 7", "persistent": "true"}
    shop.send(f"/queue/{ORDERS}", "7 apples", content_type="text/plain", headers=headers, receipt="order 7")
    # The receipt says that the order is safe.
    assert answers.receipts.get(timeout=WAIT_SECS) == "order 7"

    worker = pika.BlockingConnection(pika.URLParameters(URL))
    channel = worker.channel()
    method, properties, body = channel.basic_get(ORDERS)
    assert (body, properties.content_type, properties.delivery_mode) == (b"7 apples", "text/plain", 2)
    reply = pika.BasicProperties(correlation_id=properties.correlation_id, content_type="text/plain")
    channel.basic_publish("", properties.reply_to, b"packed", reply)
    channel.basic_ack(method.delivery_tag)
    channel.queue_delete(ORDERS)
    worker.close()

    answer = answers.frames.get(timeout=WAIT_SECS)
    assert (answer.cmd, answer.body) == ("MESSAGE", "packed"), answer
    assert answer.headers["correlation-id"] == "order 7"
    shop.disconnect()
    print(f"{answer.headers['correlation-id']}: {answer.body}")


if __name__ == "__main__":
    main()
