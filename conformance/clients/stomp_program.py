#!/usr/bin/env python3
"""stomp.py and stompest against a broker, in STOMP 1.0, 1.1 and 1.2, and pika on the other side.

STOMP_HOST=.. STOMP_PORT=.. AMQP_HOST=.. AMQP_PORT=.. stomp_program.py [TEXT in the names of checks]
"""

import contextlib
import os
import queue
import socket
import time
import uuid

import pika
import stomp
from checks import HOST, PASSWORD, PORT, USER, check, equal, main
from stompest.config import StompConfig
from stompest.protocol import StompSpec
from stompest.sync import Stomp

STOMP_HOST = os.environ.get("STOMP_HOST", "127.0.0.1")
STOMP_PORT = int(os.environ.get("STOMP_PORT", "61613"))
WAIT_SECS = 10
QUIET_SECS = 0.3
VERSIONS = {"1.0": stomp.Connection10, "1.1": stomp.Connection11, "1.2": stomp.Connection12}


class Frames(stomp.ConnectionListener):
    """What the broker says, in order."""

    def __init__(self):
        self.messages, self.errors, self.receipts = queue.Queue(), queue.Queue(), queue.Queue()
        self.lost = queue.Queue()

    def on_message(self, frame):
        self.messages.put(frame)

    def on_error(self, frame):
        self.errors.put(frame)

    def on_receipt(self, frame):
        self.receipts.put(frame.headers["receipt-id"])

    def on_disconnected(self):
        self.lost.put(True)

    def message(self):
        return self.messages.get(timeout=WAIT_SECS)

    def receipt(self):
        return self.receipts.get(timeout=WAIT_SECS)

    def error(self):
        return self.errors.get(timeout=WAIT_SECS)

    def nothing(self):
        with contextlib.suppress(queue.Empty):
            raise AssertionError(f"a message: {self.messages.get(timeout=QUIET_SECS)}")


@contextlib.contextmanager
def client(version="1.2", user=USER, password=PASSWORD, **options):
    if version != "1.0":
        options.setdefault("vhost", "/")
    connection = VERSIONS[version]([(STOMP_HOST, STOMP_PORT)], **options)
    frames = Frames()
    connection.set_listener("", frames)
    connection.connect(user, password, wait=True)
    try:
        yield connection, frames
    finally:
        if connection.is_connected():
            connection.disconnect()


@contextlib.contextmanager
def amqp():
    parameters = pika.ConnectionParameters(HOST, PORT, credentials=pika.PlainCredentials(USER, PASSWORD))
    connection = pika.BlockingConnection(parameters)
    try:
        yield connection.channel()
    finally:
        connection.close()


def name(prefix):
    return f"stomp.program.{prefix}.{uuid.uuid4().hex[:8]}"


def acknowledge(connection, version, frame, nack=False):
    act = connection.nack if nack else connection.ack
    if version == "1.2":
        act(frame.headers["ack"])
    elif version == "1.1":
        act(frame.headers["message-id"], frame.headers["subscription"])
    else:
        act(frame.headers["message-id"])


for each in VERSIONS:

    @check(f"{each}: send, receive, acknowledge, nothing comes twice")
    def _(version=each):
        target = "/queue/" + name("basic")
        with client(version) as (connection, frames):
            connection.subscribe(target, id="1", ack="client-individual", headers={"receipt": "sub"})
            equal(frames.receipt(), "sub")
            connection.send(target, "hello", content_type="text/plain", headers={"foo": "bar"}, receipt="r")
            frame = frames.message()
            equal(frames.receipt(), "r")
            equal((frame.body, frame.headers["foo"], frame.headers["content-type"]), ("hello", "bar", "text/plain"))
            equal((frame.headers["destination"], frame.headers["redelivered"]), (target, "false"))
            acknowledge(connection, version, frame)
        with client(version) as (connection, frames):
            connection.subscribe(target, id="1")
            frames.nothing()

    @check(f"{each}: what was not acknowledged comes again")
    def _(version=each):
        target = "/queue/" + name("again")
        with client(version) as (connection, frames):
            connection.subscribe(target, id="1", ack="client")
            connection.send(target, "hello")
            frames.message()
        with client(version) as (connection, frames):
            connection.subscribe(target, id="1", ack="client")
            frame = frames.message()
            equal((frame.body, frame.headers["redelivered"]), ("hello", "true"))
            acknowledge(connection, version, frame)

    @check(f"{each}: a transaction is sent by commit and forgotten by abort")
    def _(version=each):
        target = "/queue/" + name("transaction")
        with client(version) as (connection, frames):
            connection.subscribe(target, id="1")
            connection.begin("t1")
            connection.send(target, "committed", transaction="t1")
            frames.nothing()
            connection.commit("t1")
            equal(frames.message().body, "committed")
            connection.begin("t2")
            connection.send(target, "aborted", transaction="t2")
            connection.abort("t2")
            frames.nothing()


for each in ("1.1", "1.2"):

    @check(f"{each}: nack puts a message back")
    def _(version=each):
        target = "/queue/" + name("nack")
        with client(version) as (connection, frames):
            connection.subscribe(target, id="1", ack="client-individual")
            connection.send(target, "hello")
            acknowledge(connection, version, frames.message(), nack=True)
            frame = frames.message()
            equal(frame.headers["redelivered"], "true")
            acknowledge(connection, version, frame)


@check("ack:client acknowledges all before")
def _():
    target = "/queue/" + name("cumulative")
    with client() as (connection, frames):
        connection.subscribe(target, id="1", ack="client")
        for number in range(5):
            connection.send(target, str(number))
        got = [frames.message() for _ in range(5)]
        connection.ack(got[3].headers["ack"])
    with client() as (connection, frames):
        connection.subscribe(target, id="1", ack="auto")
        equal(frames.message().body, "4")
        frames.nothing()


@check("prefetch-count bounds what is held")
def _():
    target = "/queue/" + name("prefetch")
    with client() as (connection, frames):
        for number in range(4):
            connection.send(target, str(number))
        connection.subscribe(target, id="1", ack="client-individual", headers={"prefetch-count": "2"})
        first = frames.message()
        frames.message()
        frames.nothing()
        connection.ack(first.headers["ack"])
        equal(frames.message().body, "2")


@check("topics with wildcards")
def _():
    topic = name("topic")
    with client() as (connection, frames):
        connection.subscribe(f"/topic/{topic}.*.x.#", id="1", headers={"receipt": "s"})
        equal(frames.receipt(), "s")
        for key in ("a.x", "a.x.y.z", "a.b.x", "a.y"):
            connection.send(f"/topic/{topic}.{key}", key)
        equal([frames.message().body for _ in range(2)], ["a.x", "a.x.y.z"])
        frames.nothing()


@check("a durable subscription gets what was sent meanwhile")
def _():
    topic = "/topic/" + name("durable")
    headers = {"durable": "true", "auto-delete": "false", "receipt": "s"}
    with client() as (connection, frames):
        connection.subscribe(topic, id="mine", headers=headers)
        equal(frames.receipt(), "s")
    with client() as (connection, _):
        connection.send(topic, "meanwhile")
    with client() as (connection, frames):
        connection.subscribe(topic, id="mine", headers=headers)
        equal(frames.message().body, "meanwhile")
        connection.unsubscribe(id="mine", headers={"durable": "true", "receipt": "u"})
        equal([frames.receipt(), frames.receipt()], ["s", "u"])


@check("requests and replies through a temp queue")
def _():
    target = "/queue/" + name("rpc")
    with client() as (server, asked), client() as (asker, answered):
        server.subscribe(target, id="1", headers={"receipt": "s"})
        equal(asked.receipt(), "s")
        asker.send(target, "question", headers={"reply-to": "/temp-queue/answers", "correlation-id": "7"})
        question = asked.message()
        server.send(question.headers["reply-to"], "answer", headers={"correlation-id": "7"})
        answer = answered.message()
        equal((answer.body, answer.headers["correlation-id"]), ("answer", "7"))
        equal(answer.headers["subscription"], "/temp-queue/answers")


@check("a thousand persistent messages with receipts, in order")
def _():
    target = "/queue/" + name("thousand")
    with client() as (connection, frames):
        for number in range(1000):
            connection.send(target, str(number), headers={"persistent": "true"}, receipt=str(number))
        equal([frames.receipt() for _ in range(1000)], [str(number) for number in range(1000)], "receipts")
        connection.subscribe(target, id="1", ack="client", headers={"prefetch-count": "100"})
        for number in range(1000):
            frame = frames.message()
            equal(frame.body, str(number))
            connection.ack(frame.headers["ack"])


@check("a body of 5 MiB")
def _():
    target = "/queue/" + name("large")
    body = "0123456789abcdef" * (5 << 16)
    with client() as (connection, frames):
        connection.subscribe(target, id="1")
        connection.send(target, body)
        equal(frames.message().body == body, True, "the body is the same")


@check("headers with every escape come back")
def _():
    target = "/queue/" + name("escapes")
    value = "colon:back\\slash\nline\rreturn"
    with client() as (connection, frames):
        connection.subscribe(target, id="1")
        connection.send(target, "x", headers={"odd": value})
        equal(frames.message().headers["odd"], value)


@check("an error leaves the connection open")
def _():
    with client() as (connection, frames):
        connection.send("/nowhere/at/all", "x")
        equal(frames.error().headers["message"], "Unknown destination")
        connection.begin("t", headers={"receipt": "alive"})
        equal(frames.receipt(), "alive")


@check("a missing queue closes the connection with AMQP's words")
def _():
    with client() as (connection, frames):
        connection.subscribe("/amq/queue/" + name("missing"), id="1")
        equal(frames.error().headers["message"], "not_found")
        equal(frames.lost.get(timeout=WAIT_SECS), True)


@check("a wrong password is refused")
def _():
    try:
        with client(password="wrong"):
            raise AssertionError("it was accepted")
    except stomp.exception.ConnectFailedException:
        pass


@check("heart-beats keep a quiet connection, and a silent one is closed")
def _():
    with client(heartbeats=(1000, 1000)) as (connection, frames):
        time.sleep(3.5)
        equal((connection.is_connected(), frames.lost.qsize()), (True, 0))
    with socket.create_connection((STOMP_HOST, STOMP_PORT)) as raw:
        raw.sendall(b"CONNECT\naccept-version:1.2\nhost:/\nlogin:guest\npasscode:guest\nheart-beat:1000,0\n\n\0")
        raw.settimeout(WAIT_SECS)
        equal(raw.recv(4096).startswith(b"CONNECTED"), True)
        started = time.monotonic()
        equal(raw.recv(4096), b"", "the end of the connection")
        equal(1.5 < time.monotonic() - started < 6, True, "it was given time")


@check("AMQP to STOMP: properties are headers")
def _():
    target = name("down")
    with amqp() as channel, client() as (connection, frames):
        connection.subscribe("/queue/" + target, id="1", headers={"receipt": "s"})
        frames.receipt()
        properties = pika.BasicProperties(
            content_type="text/plain",
            content_encoding="identity",
            headers={"text": "yes", "number": 7},
            delivery_mode=2,
            priority=3,
            correlation_id="c",
            reply_to="answers",
            expiration="60000",
            message_id="m",
            timestamp=1700000000,
            type="order",
            user_id="guest",
            app_id="program",
        )
        channel.basic_publish("", target, b"hello", properties)
        frame = frames.message()
        expected = {
            "content-type": "text/plain",
            "content-encoding": "identity",
            "text": "yes",
            "number": "7",
            "persistent": "true",
            "priority": "3",
            "correlation-id": "c",
            "reply-to": "/reply-queue/answers",
            "expiration": "60000",
            "amqp-message-id": "m",
            "timestamp": "1700000000",
            "type": "order",
            "user-id": "guest",
            "app-id": "program",
        }
        equal({key: frame.headers.get(key) for key in expected}, expected, "headers")


@check("STOMP to AMQP: headers are properties")
def _():
    target = name("up")
    with amqp() as channel, client() as (connection, frames):
        headers = {
            "persistent": "true",
            "priority": "3",
            "correlation-id": "c",
            "reply-to": "answers",
            "expiration": "60000",
            "amqp-message-id": "m",
            "timestamp": "1700000000",
            "type": "order",
            "app-id": "program",
            "text": "yes",
        }
        connection.send("/queue/" + target, "hello", content_type="text/plain", headers=headers, receipt="r")
        equal(frames.receipt(), "r")
        _, properties, body = channel.basic_get(target, auto_ack=True)
        equal(body, b"hello")
        equal((properties.delivery_mode, properties.priority, properties.content_type), (2, 3, "text/plain"))
        equal((properties.correlation_id, properties.reply_to, properties.expiration), ("c", "answers", "60000"))
        equal((properties.message_id, properties.timestamp, properties.type), ("m", 1700000000, "order"))
        equal((properties.app_id, properties.headers["text"]), ("program", "yes"))


@check("one topic for subscribers of both")
def _():
    topic = name("both")
    with amqp() as channel, client() as (connection, frames):
        bound = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(bound, "amq.topic", f"{topic}.*")
        connection.subscribe(f"/topic/{topic}.#", id="1", headers={"receipt": "s"})
        frames.receipt()
        connection.send(f"/topic/{topic}.a", "from STOMP", receipt="r")
        frames.receipt()
        equal(channel.basic_get(bound, auto_ack=True)[2], b"from STOMP")
        channel.basic_publish("amq.topic", f"{topic}.b", b"from AMQP")
        equal([frames.message().body for _ in range(2)], ["from STOMP", "from AMQP"])


for each in (StompSpec.VERSION_1_0, StompSpec.VERSION_1_1, StompSpec.VERSION_1_2):

    @check(f"stompest {each}: receipts before messages")
    def _(version=each):
        target = "/queue/" + name("stompest")
        config = StompConfig(f"tcp://{STOMP_HOST}:{STOMP_PORT}", USER, PASSWORD, version=version)
        connection = Stomp(config)
        connection.connect(host="/", versions=[version])
        connection.send(target, b"hello", receipt="sent")
        equal(connection.receiveFrame().headers["receipt-id"], "sent")
        headers = {StompSpec.ID_HEADER: "1", StompSpec.ACK_HEADER: StompSpec.ACK_CLIENT_INDIVIDUAL}
        connection.subscribe(target, headers, receipt="subscribed")
        equal(connection.receiveFrame().headers["receipt-id"], "subscribed")
        frame = connection.receiveFrame()
        equal(frame.body, b"hello")
        connection.ack(frame, receipt="acknowledged")
        equal(connection.receiveFrame().headers["receipt-id"], "acknowledged")
        connection.disconnect(receipt="bye")
        equal(connection.receiveFrame().headers["receipt-id"], "bye")


main()
