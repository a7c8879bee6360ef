"""Calls a service over queues: the reply comes straight back to the caller's channel, without a
reply queue.

Needs pika. AMQP_URL names another broker than the one on this machine.
"""

import os
import threading
import time

import pika

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")
SERVICE = "example.rpc.square.python"
# Consuming from this name and naming it as the reply address is all that a caller does.
REPLY_TO = "amq.rabbitmq.reply-to"


def serve(ready):
    """Answers each number with its square, until a request says stop."""
    connection = pika.BlockingConnection(pika.URLParameters(URL))
    channel = connection.channel()
    channel.queue_declare(SERVICE, auto_delete=True)

    def answer(channel, method, properties, body):
        channel.basic_ack(method.delivery_tag)
        if body == b"stop":
            channel.stop_consuming()
            return
        reply = pika.BasicProperties(correlation_id=properties.correlation_id)
        channel.basic_publish("", properties.reply_to, str(int(body) ** 2), reply)

    channel.basic_consume(SERVICE, answer)
    ready.set()
    channel.start_consuming()
    connection.close()


def main():
    ready = threading.Event()
    service = threading.Thread(target=serve, args=(ready,), daemon=True)
    service.start()
    assert ready.wait(10), "the service did not start"

    connection = pika.BlockingConnection(pika.URLParameters(URL))
    channel = connection.channel()
    open_requests = {}

    def take(_channel, _method, properties, body):
        number = open_requests.pop(properties.correlation_id)
        assert int(body) == number**2, (number, body)
        print(f"{number} squared is {int(body)}")

    # Before the first request, on the same channel, and without acknowledgements.
    channel.basic_consume(REPLY_TO, take, auto_ack=True)
    for number in range(1, 11):
        request_id = f"request-{number}"
        open_requests[request_id] = number
        properties = pika.BasicProperties(reply_to=REPLY_TO, correlation_id=request_id)
        channel.basic_publish("", SERVICE, str(number), properties)

    deadline = time.monotonic() + 20
    while open_requests:
        assert time.monotonic() < deadline, f"no reply to {sorted(open_requests)}"
        connection.process_data_events(time_limit=1)
    channel.basic_publish("", SERVICE, "stop")
    service.join(10)
    assert not service.is_alive(), "the service did not stop"
    connection.close()


if __name__ == "__main__":
    main()
