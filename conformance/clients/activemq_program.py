#!/usr/bin/env python3
"""stomp.py and stompest as they are used with ActiveMQ, and pika on the other side of the same queues.

STOMP_HOST=.. STOMP_PORT=.. AMQP_HOST=.. AMQP_PORT=.. activemq_program.py [TEXT in the names of checks]

The listener speaks ActiveMQ's dialect. Without AMQP_PORT nothing of AMQP is checked, so ActiveMQ itself can be
the broker.
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
from stompest.error import StompProtocolError
from stompest.protocol import StompSpec
from stompest.sync import Stomp

STOMP_HOST = os.environ.get("STOMP_HOST", "127.0.0.1")
STOMP_PORT = int(os.environ.get("STOMP_PORT", "61613"))
HAS_AMQP = "AMQP_PORT" in os.environ
WAIT_SECS = 10
QUIET_SECS = 0.3
VERSIONS = {"1.0": stomp.Connection10, "1.1": stomp.Connection11, "1.2": stomp.Connection12}
DEAD = "/queue/ActiveMQ.DLQ"


class Frames(stomp.ConnectionListener):
    """What the broker says, in order."""

    def __init__(self):
        self.messages, self.errors, self.receipts = queue.Queue(), queue.Queue(), queue.Queue()
        self.connected = None
        self.lost = queue.Queue()

    def on_connected(self, frame):
        self.connected = frame.headers

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

    def bodies(self, count):
        return [self.message().body for _ in range(count)]

    def receipt(self):
        return self.receipts.get(timeout=WAIT_SECS)

    def error(self):
        return self.errors.get(timeout=WAIT_SECS).headers["message"]

    def nothing(self):
        with contextlib.suppress(queue.Empty):
            raise AssertionError(f"a message: {self.messages.get(timeout=QUIET_SECS)}")


@contextlib.contextmanager
def client(version="1.2", client_id=None, **options):
    connection = VERSIONS[version]([(STOMP_HOST, STOMP_PORT)], auto_content_length=False, **options)
    frames = Frames()
    connection.set_listener("", frames)
    headers = {"client-id": client_id} if client_id else {}
    connection.connect(USER, PASSWORD, wait=True, headers=headers)
    try:
        yield connection, frames
    finally:
        if connection.is_connected():
            connection.disconnect()


@contextlib.contextmanager
def amqp():
    parameters = pika.ConnectionParameters(
        HOST, PORT, credentials=pika.PlainCredentials(USER, PASSWORD)
    )
    connection = pika.BlockingConnection(parameters)
    try:
        yield connection.channel()
    finally:
        connection.close()


def amqp_check(name):
    return check(name) if HAS_AMQP else lambda function: function


def name(prefix):
    return f"activemq.program.{prefix}.{uuid.uuid4().hex[:8]}"


def subscribe(both, target, number="1", ack="auto", **headers):
    """Subscribes, and waits until the broker says so. Dots are underscores in names of headers here."""
    connection, frames = both
    headers = {key.replace("__", "-").replace("_", "."): value for key, value in headers.items()}
    connection.subscribe(target, id=number, ack=ack, headers={**headers, "receipt": "subscribed"})
    equal(frames.receipt(), "subscribed")


def acknowledge(connection, version, frame, nack=False):
    act = connection.nack if nack else connection.ack
    if version == "1.2":
        act(frame.headers["ack"])
    elif version == "1.1":
        act(frame.headers["message-id"], frame.headers["subscription"])
    else:
        act(frame.headers["message-id"])


def dead(body):
    """The message of that body in the queue of the dead; others are left to theirs."""
    with client() as both:
        subscribe(both, DEAD, ack="client-individual")
        while True:
            frame = both[1].message()
            if frame.body == body:
                both[0].ack(frame.headers["ack"])
                return frame


for each in VERSIONS:

    @check(f"{each}: the headers of JMS, and none of RabbitMQ's")
    def _(version=each):
        target = "/queue/" + name("headers")
        with client(version) as both:
            connection, frames = both
            equal(frames.connected["server"].startswith("ActiveMQ/"), True)
            subscribe(both, target)
            before = int(time.time() * 1000)
            connection.send(target, "hello", headers={"foo": "bar"}, receipt="r")
            frame = frames.message()
            equal(frames.receipt(), "r")
            told = frame.headers
            equal((frame.body, told["foo"], told["destination"]), ("hello", "bar", target))
            equal((told["expires"], told["priority"]), ("0", "4"))
            equal(before - 60_000 < int(told["timestamp"]) < before + 60_000, True, "timestamp")
            equal(told["message-id"].startswith("ID:"), True, "message-id")
            equal({"redelivered", "persistent", "content-length", "receipt"} & set(told), set())

    @check(f"{each}: what a client held comes again, and says so")
    def _(version=each):
        target = "/queue/" + name("again")
        with client(version) as both:
            subscribe(both, target, ack="client")
            both[0].send(target, "hello")
            equal("redelivered" in both[1].message().headers, False)
        with client(version) as both:
            subscribe(both, target, ack="client")
            frame = both[1].message()
            equal((frame.body, frame.headers["redelivered"]), ("hello", "true"))
            acknowledge(both[0], version, frame)
        with client(version) as both:
            subscribe(both, target)
            both[1].nothing()

    @check(f"{each}: a durable subscription by client-id and name")
    def _(version=each):
        topic, client_id = name("durable"), name("client")
        wanted = {"activemq_subscriptionName": "mine"}
        with client(version, client_id) as both:
            equal(both[1].connected["session"], client_id)
            subscribe(both, "/topic/" + topic, **wanted)
        with client(version) as (connection, _):
            for body in ("1", "2"):
                connection.send("/topic/" + topic, body, receipt=body)
        with client(version, client_id) as both:
            subscribe(both, "/topic/" + topic, **wanted)
            equal(both[1].bodies(2), ["1", "2"])
            both[0].unsubscribe("1")
            if version != "1.0":
                both[0].unsubscribe(
                    "1", headers={"activemq.subscriptionName": "mine", "receipt": "forgotten"}
                )
                equal(both[1].receipt(), "forgotten")

    @check(f"{each}: transactions of several destinations")
    def _(version=each):
        one, other = "/queue/" + name("one"), "/queue/" + name("other")
        with client(version) as both:
            connection, frames = both
            subscribe(both, one, "1")
            subscribe(both, other, "2")
            connection.begin("t")
            for target in (one, other):
                connection.send(target, target, transaction="t", receipt=target)
                equal(frames.receipt(), target)
            frames.nothing()
            connection.commit("t", receipt="committed")
            equal(sorted(frames.bodies(2)), sorted([one, other]))
            equal(frames.receipt(), "committed")
            connection.begin("u")
            connection.send(one, "none", transaction="u")
            connection.abort("u")
            frames.nothing()


for each in ("1.1", "1.2"):

    @check(f"{each}: NACK brings a persistent message to the queue of the dead")
    def _(version=each):
        target, body = "/queue/" + name("nack"), name("body")
        with client(version) as both:
            connection, frames = both
            subscribe(both, target, ack="client-individual")
            connection.send(target, body, headers={"persistent": "true", "foo": "bar"})
            acknowledge(connection, version, frames.message(), nack=True)
            frames.nothing()
        told = dead(body).headers
        equal(
            (told["original-destination"], told["persistent"], told["foo"]), (target, "true", "bar")
        )

    @check(f"{each}: NACK of another message is its end")
    def _(version=each):
        target = "/queue/" + name("dropped")
        with client(version) as both:
            subscribe(both, target, ack="client-individual")
            both[0].send(target, "x")
            acknowledge(both[0], version, both[1].message(), nack=True)
        with client(version) as both:
            subscribe(both, target)
            both[1].nothing()


@check("a client-id is one client's, until it is gone")
def _():
    client_id = name("client")
    with client(client_id=client_id):
        with (
            contextlib.suppress(stomp.exception.ConnectFailedException),
            client(client_id=client_id),
        ):
            raise AssertionError("it was accepted")
    with client(client_id=client_id) as (_, frames):
        equal(frames.connected["session"], client_id)


@check("a client-id is free when its connection breaks")
def _():
    client_id = name("client")
    octets = f"CONNECT\naccept-version:1.2\nhost:x\nlogin:{USER}\npasscode:{PASSWORD}\nclient-id:{client_id}\n\n\0"
    for _ in range(3):
        deadline = time.monotonic() + WAIT_SECS
        while True:
            with socket.create_connection((STOMP_HOST, STOMP_PORT)) as raw:
                raw.sendall(octets.encode())
                if raw.recv(4096).startswith(b"CONNECTED"):
                    break
            equal(time.monotonic() < deadline, True, "it is free in time")


@check("expired messages go to the queue of the dead if they are persistent")
def _():
    target, kept, dropped = "/queue/" + name("expires"), name("kept"), name("dropped")
    with client() as (connection, _):
        expires = str(int(time.time() * 1000) + 300)
        connection.send(target, dropped, headers={"expires": expires})
        connection.send(target, kept, headers={"expires": expires, "persistent": "true"})
        time.sleep(0.5)
    with client() as both:
        subscribe(both, target)
        both[1].nothing()
    if HAS_AMQP:
        told = dead(kept).headers
        equal((told["original-destination"], told["originalExpiration"]), (target, expires))
        equal("Expired" in told["dlqDeliveryFailureCause"], True)


@check("what has expired already is not delivered")
def _():
    target = "/queue/" + name("expired")
    with client() as both:
        subscribe(both, target)
        both[0].send(target, "old", headers={"expires": "1"})
        both[0].send(target, "new", headers={"expires": str(int(time.time() * 1000) + 60_000)})
        equal(both[1].bodies(1), ["new"])
        both[1].nothing()


@check("content-length makes bytes of a message, and its absence text")
def _():
    target = "/queue/" + name("bytes")
    with client() as both:
        connection, frames = both
        subscribe(both, target)
        connection.send(target, "text")
        connection.send(target, "bytes", headers={"content-length": 5})
        connection.send(target, "forced", headers={"content-length": 6, "amq-msg-type": "text"})
        lengths = [
            (frame.body, frame.headers.get("content-length"))
            for frame in (frames.message() for _ in range(3))
        ]
        equal(lengths, [("text", None), ("bytes", "5"), ("forced", "6")])


@check("activemq.prefetchSize bounds what is held")
def _():
    target = "/queue/" + name("prefetch")
    with client() as both:
        connection, frames = both
        for number in range(5):
            connection.send(target, str(number))
        subscribe(both, target, ack="client-individual", activemq_prefetchSize="2")
        first = frames.message()
        equal(frames.bodies(1), ["1"])
        frames.nothing()
        connection.ack(first.headers["ack"])
        equal(frames.bodies(1), ["2"])
        frames.nothing()


@check("composite destinations, to send and to subscribe")
def _():
    one, other, topic = (
        "/queue/" + name("one"),
        "/queue/" + name("other"),
        "/topic/" + name("topic"),
    )
    with client() as both:
        connection, frames = both
        subscribe(both, f"{one},{other}", "q")
        subscribe(both, topic, "t")
        connection.send(f"{one},{other},{topic}", "x")
        told = [frames.message().headers for _ in range(3)]
        equal(sorted(each["destination"] for each in told), sorted([one, other, topic]))
        wanted = ",".join(
            [one, other.replace("/queue/", "queue://"), topic.replace("/topic/", "topic://")]
        )
        equal({each["original-destination"] for each in told}, {wanted})
        frames.nothing()


@check("wildcards of topics and queues")
def _():
    root = name("wild")
    with client() as both:
        connection, frames = both
        subscribe(both, f"/topic/{root}.*.x.>", "t")
        for key in ("a.x", "a.x.y.z", "a.b.x", "a"):
            connection.send(f"/topic/{root}.{key}", key)
        equal(frames.bodies(2), ["a.x", "a.x.y.z"])
        frames.nothing()
        connection.send(f"/queue/{root}.before", "before", receipt="sent")
        equal(frames.receipt(), "sent")
        subscribe(both, f"/queue/{root}.>", "q")
        equal(frames.bodies(1), ["before"])
        connection.send(f"/queue/{root}.after.all", "after")
        frame = frames.message()
        equal((frame.body, frame.headers["destination"]), ("after", f"/queue/{root}.after.all"))


@check("virtual topics: each group gets its copy, whoever is there")
def _():
    topic = "VirtualTopic." + name("virtual")
    groups = [f"/queue/Consumer.{group}.{topic}" for group in "AB"]
    with client() as both:
        for number, group in enumerate(groups):
            subscribe(both, group, str(number))
    with client() as both:
        connection, frames = both
        for body in ("1", "2"):
            connection.send("/topic/" + topic, body, receipt=body)
            equal(frames.receipt(), body)
        for number, group in enumerate(groups):
            subscribe(both, group, str(number))
            equal(frames.bodies(2), ["1", "2"], group)


@check("requests and replies through a temporary queue")
def _():
    target = "/queue/" + name("rpc")
    with client() as server, client() as asker:
        subscribe(server, target)
        subscribe(asker, "/temp-queue/answers")
        asker[0].send(
            target, "question", headers={"reply-to": "/temp-queue/answers", "correlation-id": "7"}
        )
        question = server[1].message()
        equal(
            question.headers["reply-to"].startswith("/remote-temp-queue/ID:"),
            True,
            question.headers["reply-to"],
        )
        server[0].send(question.headers["reply-to"], "answer", headers={"correlation-id": "7"})
        answer = asker[1].message()
        told = (answer.body, answer.headers["correlation-id"], answer.headers["destination"])
        equal(told, ("answer", "7", "/temp-queue/answers"))


@check("selectors: numbers in text, LIKE, IN, JMS names; others get the rest")
def _():
    target = "/queue/" + name("selector")
    cases = {
        "n > 3 AND n < 10": ["5"],
        "color IN ('red', 'blue')": ["red"],
        "color LIKE 'gr_en%'": ["green"],
        "JMSPriority = 9": ["nine"],
        "JMSType = 'order' AND color IS NULL": ["order"],
    }
    with client() as both:
        connection, frames = both
        for body, headers in (
            ("2", {"n": "2"}),
            ("5", {"n": "5"}),
            ("red", {"color": "red"}),
            ("green", {"color": "greenish"}),
            ("nine", {"priority": "9"}),
            ("order", {"type": "order"}),
        ):
            connection.send(target, body, headers=headers)
        for text, wanted in cases.items():
            subscribe(both, target, text, selector=text)
            equal(frames.bodies(1), wanted, text)
            frames.nothing()
        subscribe(both, target, "rest")
        equal(frames.bodies(1), ["2"])
        connection.subscribe(target, id="wrong", headers={"selector": "n >"})
        equal(frames.error() != "", True)
        connection.send(target, "alive", headers={"n": "4"})
        equal(frames.bodies(1), ["alive"])


@check("a durable subscription takes in what its selector selects")
def _():
    topic, client_id = "/topic/" + name("selected"), name("client")
    wanted = {"activemq_subscriptionName": "mine", "selector": "n = 1"}
    with client(client_id=client_id) as both:
        subscribe(both, topic, **wanted)
    with client() as (connection, _):
        for number in ("1", "2", "1"):
            connection.send(topic, number, headers={"n": number})
    with client(client_id=client_id) as both:
        subscribe(both, topic, **wanted)
        equal(both[1].bodies(2), ["1", "1"])
        both[1].nothing()


@check("groups stay with one consumer")
def _():
    target = "/queue/" + name("groups")
    with client() as one, client() as other:
        subscribe(one, target)
        subscribe(other, target)
        for number in range(12):
            group = "xyz"[number % 3]
            one[0].send(target, f"{group}{number}", headers={"JMSXGroupID": group})
        time.sleep(QUIET_SECS)
        got = []
        for _, frames in (one, other):
            got.append([frames.message().body for _ in range(frames.messages.qsize())])
        equal(sum(map(len, got)), 12)
        equal({body[0] for body in got[0]} & {body[0] for body in got[1]}, set())
        equal(all(got), True, "both have a group")


@check("a consumer of its own, one of higher priority, and none of its own messages")
def _():
    with client() as one, client() as other:
        target = "/queue/" + name("exclusive")
        subscribe(one, target, "e", activemq_exclusive="true")
        subscribe(other, target, "e", activemq_exclusive="true")
        for number in range(4):
            one[0].send(target, str(number))
        equal(one[1].bodies(4), ["0", "1", "2", "3"])
        other[1].nothing()
        target = "/queue/" + name("priority")
        subscribe(one, target, "p", activemq_priority="1")
        subscribe(other, target, "p", activemq_priority="10")
        for number in range(4):
            one[0].send(target, str(number))
        equal(other[1].bodies(4), ["0", "1", "2", "3"])
        target = "/topic/" + name("local")
        subscribe(one, target, "n", activemq_noLocal="true")
        subscribe(other, target, "n", activemq_noLocal="true")
        one[0].send(target, "x")
        equal(other[1].bodies(1), ["x"])
        one[1].nothing()


@check("a browser sees all, takes nothing, and is told the end")
def _():
    target = "/queue/" + name("browser")
    with client() as both:
        connection, frames = both
        for number in range(3):
            connection.send(target, str(number))
        subscribe(both, target, browser="true")
        equal(frames.bodies(3), ["0", "1", "2"])
        equal(frames.message().headers["browser"], "end")
        subscribe(both, target, "2")
        equal(frames.bodies(3), ["0", "1", "2"])


@check("scheduled: a delay and repeats")
def _():
    target = "/queue/" + name("scheduled")
    with client() as both:
        subscribe(both, target)
        started = time.monotonic()
        headers = {
            "AMQ_SCHEDULED_DELAY": "600",
            "AMQ_SCHEDULED_PERIOD": "200",
            "AMQ_SCHEDULED_REPEAT": "2",
        }
        both[0].send(target, "x", headers={**headers, "foo": "bar"})
        first = both[1].message()
        equal(0.5 < time.monotonic() - started < 5, True, "it waited")
        equal(("scheduledJobId" in first.headers, first.headers["foo"]), (True, "bar"))
        equal(both[1].bodies(2), ["x", "x"])
        both[1].nothing()


@check("heart-beats are in milliseconds, and a silent client is closed")
def _():
    with client(heartbeats=(400, 400)) as (connection, frames):
        equal(frames.connected["heart-beat"], "400,400")
        time.sleep(2)
        equal((connection.is_connected(), frames.lost.qsize()), (True, 0))
    with socket.create_connection((STOMP_HOST, STOMP_PORT)) as raw:
        raw.sendall(
            b"CONNECT\naccept-version:1.2\nhost:x\nlogin:guest\npasscode:guest\nheart-beat:500,0\n\n\0"
        )
        raw.settimeout(WAIT_SECS)
        equal(raw.recv(4096).startswith(b"CONNECTED"), True)
        started = time.monotonic()
        equal(raw.recv(4096), b"", "the end of the connection")
        equal(0.4 < time.monotonic() - started < 5, True, "it was given time")


@check("errors name their receipt and leave the connection open")
def _():
    with client() as (connection, frames):
        connection.send_frame("SEND", {"receipt": "r"}, "x")
        error = frames.errors.get(timeout=WAIT_SECS).headers
        equal(
            (error["message"], error["receipt-id"]),
            ("SEND received without a Destination specified!", "r"),
        )
        connection.unsubscribe("none")
        equal(frames.error(), "No subscription matched.")
        connection.commit("none")
        equal(frames.error(), "Invalid transaction id: none")
        connection.begin("t", headers={"receipt": "alive"})
        equal(frames.receipt(), "alive")


@check("a body of 5 MiB, and a thousand persistent messages with receipts, in order")
def _():
    target, many = "/queue/" + name("large"), "/queue/" + name("thousand")
    body = "0123456789abcdef" * (5 << 16)
    with client() as both:
        connection, frames = both
        subscribe(both, target)
        connection.send(target, body)
        equal(frames.message().body == body, True, "the body is the same")
        for number in range(1000):
            connection.send(many, str(number), headers={"persistent": "true"}, receipt=str(number))
        equal(
            [frames.receipt() for _ in range(1000)],
            [str(number) for number in range(1000)],
            "receipts",
        )
        subscribe(both, many, "2", ack="client", activemq_prefetchSize="100")
        for number in range(1000):
            frame = frames.message()
            equal(frame.body, str(number))
            connection.ack(frame.headers["ack"])


@amqp_check("STOMP to AMQP: headers are properties, and the queue is an ordinary one")
def _():
    target = name("up")
    headers = {
        "persistent": "true",
        "priority": "7",
        "correlation-id": "c",
        "type": "order",
        "reply-to": "/queue/answers",
        "foo": "bar",
        "content-type": "text/plain",
    }
    with amqp() as channel, client() as (connection, frames):
        connection.send("/queue/" + target, "hello", headers=headers, receipt="r")
        equal(frames.receipt(), "r")
        equal(channel.queue_declare(target, durable=True).method.message_count, 1)
        _, properties, body = channel.basic_get(target, auto_ack=True)
        equal(body, b"hello")
        told = (
            properties.delivery_mode,
            properties.priority,
            properties.correlation_id,
            properties.type,
        )
        equal(told, (2, 7, "c", "order"))
        equal((properties.reply_to, properties.content_type), ("answers", "text/plain"))
        equal(properties.headers["foo"], "bar")


@amqp_check("AMQP to STOMP: properties are headers, and an answer goes back")
def _():
    target = name("down")
    with amqp() as channel, client() as both:
        connection, frames = both
        subscribe(both, "/queue/" + target)
        answers = channel.queue_declare("", exclusive=True).method.queue
        properties = pika.BasicProperties(
            headers={"n": 7, "text": "yes"},
            delivery_mode=2,
            priority=3,
            correlation_id="c",
            reply_to=answers,
            type="order",
            message_id="m",
        )
        channel.basic_publish("", target, b"hello", properties)
        frame = frames.message()
        told = frame.headers
        equal(
            (frame.body, told["n"], told["text"], told["persistent"]), ("hello", "7", "yes", "true")
        )
        equal((told["priority"], told["correlation-id"], told["type"]), ("3", "c", "order"))
        equal((told["message-id"], told["destination"]), ("m", "/queue/" + target))
        connection.send(told["reply-to"], "answer", headers={"correlation-id": "c"}, receipt="r")
        equal(frames.receipt(), "r")
        _, properties, body = channel.basic_get(answers, auto_ack=True)
        equal((body, properties.correlation_id), (b"answer", "c"))


@amqp_check("AMQP and STOMP: topics, virtual topics and durable subscriptions are amq.topic")
def _():
    topic, client_id = name("topic"), name("client")
    with amqp() as channel, client(client_id=client_id) as both:
        mine = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(mine, "amq.topic", topic + ".*")
        subscribe(both, f"/topic/{topic}.>", "t")
        subscribe(both, f"/topic/{topic}.>", "d", activemq_subscriptionName="mine")
        subscribe(both, f"/queue/Consumer.A.VirtualTopic.{topic}", "v")
        channel.basic_publish("amq.topic", topic + ".a", b"1")
        equal(both[1].bodies(2), ["1", "1"])
        channel.basic_publish("amq.topic", "VirtualTopic." + topic, b"2")
        equal(both[1].bodies(1), ["2"])
        both[0].send(f"/topic/{topic}.b", "3", receipt="r")
        equal(both[1].receipt(), "r")
        got = [channel.basic_get(mine, auto_ack=True)[2] for _ in range(2)]
        equal(got, [b"1", b"3"])
        both[1].bodies(2)
        stored = channel.queue_declare(f"ActiveMQ.Durable.{client_id}:mine", passive=True).method
        equal(stored.message_count, 0)


@amqp_check("AMQP and STOMP take turns at one queue, and acknowledge each their own")
def _():
    target = name("turns")
    with amqp() as channel, client() as both:
        connection, frames = both
        subscribe(both, "/queue/" + target, ack="client-individual", activemq_prefetchSize="1")
        for number in range(3):
            channel.basic_publish("", target, str(number).encode())
        held = frames.message()
        equal(held.body, "0")
        method, _, body = channel.basic_get(target)
        equal(body, b"1")
        channel.basic_nack(method.delivery_tag, requeue=True)
        connection.ack(held.headers["ack"])
        frame = frames.message()
        equal((frame.body, frame.headers["redelivered"]), ("1", "true"))
        connection.ack(frame.headers["ack"])
        equal(frames.bodies(1), ["2"])


for each in (StompSpec.VERSION_1_0, StompSpec.VERSION_1_1, StompSpec.VERSION_1_2):

    @check(f"stompest {each}: durable subscription, selector and client acknowledgement")
    def _(version=each):
        topic, client_id = "/topic/" + name("stompest"), name("client")
        config = StompConfig(f"tcp://{STOMP_HOST}:{STOMP_PORT}", USER, PASSWORD, version=version)
        wanted = {
            StompSpec.ID_HEADER: "1",
            StompSpec.ACK_HEADER: "client",
            "activemq.subscriptionName": "mine",
            "selector": "n = 1",
        }

        def connected():
            deadline = time.monotonic() + WAIT_SECS
            while True:
                connection = Stomp(config)
                try:
                    connection.connect(headers={"client-id": client_id}, versions=[version])
                    break
                except StompProtocolError:
                    # The end of the connection before may be seen later than this one.
                    equal(time.monotonic() < deadline, True, "the client-id is free in time")
                    connection.close()
            connection.subscribe(topic, wanted, receipt="subscribed")
            equal(connection.receiveFrame().headers["receipt-id"], "subscribed")
            return connection

        connected().disconnect()
        sender = Stomp(config)
        sender.connect(versions=[version])
        for number in (b"1", b"2"):
            sender.send(
                topic, number, {"n": number.decode(), "persistent": "true"}, receipt=number.decode()
            )
            equal(sender.receiveFrame().headers["receipt-id"], number.decode())
        sender.disconnect()
        # As a process that is killed after it has read: what it did not acknowledge comes again.
        for is_acknowledged in (False, True, None):
            connection = connected()
            if is_acknowledged is None:
                equal(connection.canRead(QUIET_SECS), False, "something comes")
            else:
                frame = connection.receiveFrame()
                equal(frame.body, b"1")
            if is_acknowledged:
                connection.ack(frame, receipt="acknowledged")
                equal(connection.receiveFrame().headers["receipt-id"], "acknowledged")
            connection.close() if is_acknowledged is False else connection.disconnect()


main()
