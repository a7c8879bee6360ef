#!/usr/bin/env python3
"""pika against a broker: its blocking and its select connection, and RabbitMQ's exact answers.

AMQP_HOST=.. AMQP_PORT=.. pika_program.py [TEXT in the names of the checks to run]
"""

import contextlib
import threading
import time

import pika
from checks import HOST, PASSWORD, PORT, USER, check, equal, main
from pika.exceptions import (
    AMQPConnectionError,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    NackError,
    UnroutableError,
)


def parameters(**options):
    options.setdefault("credentials", pika.PlainCredentials(USER, PASSWORD))
    return pika.ConnectionParameters(HOST, PORT, **options)


@contextlib.contextmanager
def connected(**options):
    connection = pika.BlockingConnection(parameters(**options))
    try:
        yield connection
    finally:
        if connection.is_open:
            connection.close()


@contextlib.contextmanager
def channel(**options):
    with connected(**options) as connection:
        yield connection.channel()


@contextlib.contextmanager
def queue(on, name="", arguments=None, **flags):
    flags.setdefault("exclusive", not flags.get("durable"))
    name = on.queue_declare(name, arguments=arguments, **flags).method.queue
    yield name
    if on.is_open:
        on.queue_delete(name)


def get(on, name, wait_secs=10, auto_ack=True):
    """The next message of a queue, waiting for what arrives by itself."""
    deadline = time.monotonic() + wait_secs
    while True:
        method, properties, body = on.basic_get(name, auto_ack=auto_ack)
        if method:
            return method, properties, body
        if time.monotonic() > deadline:
            raise AssertionError(f"{name} stays empty")
        on.connection.process_data_events(0.02)


def take(on, name, count, **options):
    """The next `count` deliveries of a consumer."""
    deliveries = []
    for delivery in on.consume(name, inactivity_timeout=10, **options):
        if delivery[0] is None:
            break
        deliveries.append(delivery)
        if len(deliveries) == count:
            break
    equal(len(deliveries), count, "deliveries")
    return deliveries


def closes(code, text, function, kind=ChannelClosedByBroker):
    try:
        function()
    except kind as error:
        equal((error.reply_code, error.reply_text), (code, text), "close")
        return
    raise AssertionError(f"nothing closed; {code} {text} was due")


def channel_closes(code, text, function):
    with channel() as on:
        closes(code, text, lambda: function(on))


# ---- the basics --------------------------------------------------------------------------------


@check("server properties and negotiation")
def _():
    with connected() as connection:
        properties = connection._impl.server_properties
        equal(properties["product"], "RabbitMQ", "product")
        equal(int(properties["version"].split(".")[0]), 3, "major version")
        equal(connection._impl.params.channel_max, 2047, "channel_max")
        equal(connection._impl.params.frame_max, 131072, "frame_max")
        equal(connection.basic_nack_supported, True, "basic.nack")
        equal(connection.consumer_cancel_notify_supported, True, "cancel notify")
        equal(connection.exchange_exchange_bindings_supported, True, "exchange bindings")
        equal(connection.publisher_confirms_supported, True, "confirms")


@check("publish, get, ack")
def _():
    with channel() as on, queue(on) as name:
        on.basic_publish("", name, b"hello", pika.BasicProperties(content_type="text/plain"))
        method, properties, body = get(on, name, auto_ack=False)
        equal((body, properties.content_type, method.message_count), (b"hello", "text/plain", 0))
        on.basic_ack(method.delivery_tag)
        equal(on.basic_get(name)[0], None, "message after ack")


@check("every property comes back")
def _():
    sent = pika.BasicProperties(
        content_type="a/b",
        content_encoding="utf-8",
        headers={"n": 1, "s": "x", "t": True, "l": [1, "two"], "d": {"k": None}},
        delivery_mode=2,
        priority=3,
        correlation_id="c",
        reply_to="r",
        expiration="60000",
        message_id="m",
        timestamp=1700000000,
        type="t",
        user_id=USER,
        app_id="a",
        cluster_id="cl",
    )
    with channel() as on, queue(on) as name:
        on.basic_publish("", name, b"", sent)
        equal(get(on, name)[1].__dict__, sent.__dict__, "properties")


@check("consume, nack with requeue, redelivered, reject")
def _():
    with channel() as on, queue(on) as name:
        on.basic_publish("", name, b"1")
        ((method, _, _),) = take(on, name, 1)
        equal(method.redelivered, False, "redelivered")
        on.basic_nack(method.delivery_tag, requeue=True)
        ((method, _, _),) = take(on, name, 1)
        equal(method.redelivered, True, "redelivered")
        on.basic_reject(method.delivery_tag, requeue=False)
        on.cancel()
        equal(on.queue_declare(name, passive=True).method.message_count, 0, "ready")


@check("requeued messages keep their order")
def _():
    with channel() as on, queue(on) as name:
        for number in range(5):
            on.basic_publish("", name, str(number))
        methods = [get(on, name, auto_ack=False)[0] for _ in range(3)]
        on.basic_nack(methods[-1].delivery_tag, multiple=True, requeue=True)
        equal([get(on, name)[2] for _ in range(5)], [b"0", b"1", b"2", b"3", b"4"], "order")


@check("prefetch holds back what is not acked")
def _():
    with channel() as on, queue(on) as name:
        for number in range(6):
            on.basic_publish("", name, str(number))
        on.basic_qos(prefetch_count=2)
        got = []
        on.basic_consume(name, lambda *delivery: got.append(delivery))
        deadline = time.monotonic() + 10
        while len(got) < 2 and time.monotonic() < deadline:
            on.connection.process_data_events(0.1)
        on.connection.process_data_events(0.3)
        equal(len(got), 2, "deliveries before the first ack")
        on.basic_ack(got[0][1].delivery_tag)
        while len(got) < 3 and time.monotonic() < deadline:
            on.connection.process_data_events(0.1)
        equal([delivery[3] for delivery in got], [b"0", b"1", b"2"], "bodies")


@check("a thousand messages in order")
def _():
    with channel() as on, queue(on) as name:
        for number in range(1000):
            on.basic_publish("", name, str(number))
        bodies = [int(body) for _, _, body in take(on, name, 1000, auto_ack=True)]
        equal(bodies, list(range(1000)), "order")


@check("a message of 4 MiB and an empty one")
def _():
    with channel() as on, queue(on) as name:
        body = bytes(range(256)) * 16384
        on.basic_publish("", name, body)
        on.basic_publish("", name, b"")
        equal(get(on, name)[2] == body, True, "large body is the same")
        equal(get(on, name)[2], b"", "empty body")


# ---- confirms, returns, transactions -----------------------------------------------------------


@check("confirms, and an unroutable mandatory message")
def _():
    with channel() as on, queue(on) as name:
        on.confirm_delivery()
        for number in range(20):
            on.basic_publish("", name, str(number), mandatory=True)
        try:
            on.basic_publish("", "nobody." + name, b"lost", mandatory=True)
        except UnroutableError as error:
            (returned,) = error.messages
            equal((returned.method.reply_code, returned.method.reply_text), (312, "NO_ROUTE"))
            equal((returned.method.routing_key, returned.body), ("nobody." + name, b"lost"))
        else:
            raise AssertionError("nothing was returned")
        equal(on.queue_declare(name, passive=True).method.message_count, 20, "ready")


@check("return without confirms reaches the callback")
def _():
    with channel() as on:
        returned = []
        on.add_on_return_callback(lambda *message: returned.append(message))
        on.basic_publish("amq.direct", "no such key", b"back", mandatory=True)
        deadline = time.monotonic() + 10
        while not returned and time.monotonic() < deadline:
            on.connection.process_data_events(0.1)
        equal([message[3] for message in returned], [b"back"], "returned")


@check("overflow reject-publish is a nack")
def _():
    arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
    with channel() as on, queue(on, arguments=arguments) as name:
        on.confirm_delivery()
        on.basic_publish("", name, b"1")
        try:
            on.basic_publish("", name, b"2")
        except NackError:
            return
        raise AssertionError("the second message was taken")


@check("transactions commit and roll back")
def _():
    with connected() as connection:
        on, watch = connection.channel(), connection.channel()
        with queue(watch) as name:
            on.tx_select()
            on.basic_publish("", name, b"1")
            on.tx_rollback()
            on.basic_publish("", name, b"2")
            equal(watch.basic_get(name)[0], None, "message before commit")
            on.tx_commit()
            equal(get(watch, name)[2], b"2", "message after commit")


# ---- errors with their texts -------------------------------------------------------------------


@check("errors: missing queue and exchange")
def _():
    channel_closes(
        404,
        "NOT_FOUND - no queue 'p.none' in vhost '/'",
        lambda on: on.queue_declare("p.none", passive=True),
    )
    channel_closes(
        404,
        "NOT_FOUND - no exchange 'p.none' in vhost '/'",
        lambda on: on.exchange_declare("p.none", passive=True),
    )

    def publish(on):
        on.basic_publish("p.none", "k", b"m")
        on.queue_declare("p.none", passive=True)

    channel_closes(404, "NOT_FOUND - no exchange 'p.none' in vhost '/'", publish)


@check("errors: redeclaring otherwise")
def _():
    with channel() as keep, queue(keep, "p.redeclare", {"x-max-length": 10}, exclusive=False):
        channel_closes(
            406,
            "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'p.redeclare'"
            " in vhost '/': received '11' but current is '10'",
            lambda on: on.queue_declare("p.redeclare", arguments={"x-max-length": 11}),
        )
        channel_closes(
            406,
            "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'p.redeclare'"
            " in vhost '/': received 'true' but current is 'false'",
            lambda on: on.queue_declare(
                "p.redeclare", durable=True, arguments={"x-max-length": 10}
            ),
        )


@check("errors: somebody else's exclusive queue")
def _():
    text = (
        "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'p.exclusive' in vhost"
        " '/'. It could be originally declared on another connection or the exclusive property"
        " value does not match that of the original declaration."
    )
    with channel() as keep, queue(keep, "p.exclusive"):
        channel_closes(405, text, lambda on: on.queue_declare("p.exclusive", exclusive=True))
        channel_closes(405, text, lambda on: on.basic_consume("p.exclusive", print))


@check("errors: exclusive consumer, reserved names, unknown tag")
def _():
    with channel() as keep, queue(keep, "p.consumer", exclusive=False):
        keep.basic_consume("p.consumer", print, exclusive=True)
        channel_closes(
            403,
            "ACCESS_REFUSED - queue 'p.consumer' in vhost '/' in exclusive use",
            lambda on: on.basic_consume("p.consumer", print),
        )
    channel_closes(
        403,
        "ACCESS_REFUSED - queue name 'amq.p' contains reserved prefix 'amq.*'",
        lambda on: on.queue_declare("amq.p"),
    )

    def ack(on):
        on.basic_ack(99)
        on.queue_declare("", exclusive=True)

    channel_closes(406, "PRECONDITION_FAILED - unknown delivery tag 99", ack)


@check("errors: a reused consumer tag closes the connection")
def _():
    with connected() as connection:
        on = connection.channel()
        with queue(on) as name:
            impl = on._impl
            on.basic_consume(name, print, consumer_tag="t")
            # The blocking channel refuses this by itself, so it is sent past it.
            method = pika.spec.Basic.Consume(queue=name, consumer_tag="t")

            def consume():
                impl._send_method(method)
                connection.process_data_events(10)
                connection.process_data_events(1)

            closes(
                530,
                "NOT_ALLOWED - attempt to reuse consumer tag 't'",
                consume,
                kind=ConnectionClosedByBroker,
            )


@check("errors: wrong password and missing vhost")
def _():
    for options, text in (
        (
            {"credentials": pika.PlainCredentials(USER, "wrong")},
            "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN."
            " For details see the broker logfile.",
        ),
        ({"virtual_host": "p.none"}, "NOT_ALLOWED - vhost p.none not found"),
    ):
        try:
            pika.BlockingConnection(parameters(**options))
        except AMQPConnectionError as error:
            if text not in f"{error!r} {error.args!r} {error.__cause__!r} {error.__context__!r}":
                raise AssertionError(f"{error!r} does not say {text!r}") from error
        else:
            raise AssertionError("it connected")


# ---- what queues do ----------------------------------------------------------------------------


@check("dead letter and retry by TTL: the exact x-death")
def _():
    with channel() as on:
        work, wait = "p.work", "p.wait"
        on.queue_declare(
            work,
            exclusive=True,
            arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": wait},
        )
        on.queue_declare(
            wait,
            exclusive=True,
            arguments={
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": work,
                "x-message-ttl": 60,
            },
        )
        on.basic_publish("", work, b"job", pika.BasicProperties(headers={"mine": 1}))
        for attempt in range(1, 4):
            method, properties, _ = get(on, work, auto_ack=False)
            headers = properties.headers
            if attempt > 1:
                deaths = [
                    {key: value for key, value in death.items() if key != "time"}
                    for death in headers["x-death"]
                ]
                expected = [
                    {
                        "count": attempt - 1,
                        "reason": reason,
                        "queue": name,
                        "exchange": "",
                        "routing-keys": [name],
                    }
                    for reason, name in (("expired", wait), ("rejected", work))
                ]
                equal(deaths, expected, "x-death")
                equal(headers["x-first-death-reason"], "rejected", "first reason")
                equal(headers["x-first-death-queue"], work, "first queue")
                equal(headers["x-first-death-exchange"], "", "first exchange")
                equal(headers["mine"], 1, "own header")
            on.basic_reject(method.delivery_tag, requeue=False)


@check("per-message expiration becomes original-expiration")
def _():
    with channel() as on, queue(on, "p.dead") as dead:
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
        with queue(on, "p.short", arguments) as name:
            on.basic_publish("", name, b"m", pika.BasicProperties(expiration="50"))
            _, properties, _ = get(on, dead)
            equal(properties.expiration, None, "expiration")
            (death,) = properties.headers["x-death"]
            equal(death["original-expiration"], "50", "original-expiration")


@check("max-length drops the oldest, and dead-letters it")
def _():
    with channel() as on, queue(on, "p.dropped") as dropped:
        arguments = {
            "x-max-length": 2,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": dropped,
        }
        with queue(on, arguments=arguments) as name:
            for number in range(3):
                on.basic_publish("", name, str(number))
            _, properties, body = get(on, dropped)
            equal((body, properties.headers["x-death"][0]["reason"]), (b"0", "maxlen"))
            equal([get(on, name)[2] for _ in range(2)], [b"1", b"2"], "kept")


@check("priorities")
def _():
    with channel() as on, queue(on, arguments={"x-max-priority": 5}) as name:
        for priority in (0, 5, 1, 9, 3):
            on.basic_publish("", name, str(priority), pika.BasicProperties(priority=priority))
        bodies = [get(on, name)[2] for _ in range(5)]
        equal(bodies, [b"5", b"9", b"3", b"1", b"0"], "order")


@check("single active consumer hands over")
def _():
    with connected() as one, connected() as two:
        first, second = one.channel(), two.channel()
        arguments = {"x-single-active-consumer": True}
        with queue(second, "p.single", arguments, exclusive=False) as name:
            first.basic_consume(name, lambda on, method, *_: None)
            second.basic_consume(name, lambda on, method, *_: got.append(method.redelivered))
            got = []
            first.basic_publish("", name, b"m")
            two.process_data_events(0.3)
            equal(got, [], "deliveries of the waiting consumer")
            one.close()
            deadline = time.monotonic() + 10
            while not got and time.monotonic() < deadline:
                two.process_data_events(0.1)
            equal(got, [True], "deliveries after the change")


@check("quorum queue counts deliveries")
def _():
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": 1}
    with channel() as on, queue(on, "p.quorum", arguments, durable=True) as name:
        on.confirm_delivery()
        on.basic_publish("", name, b"m")
        method, _, _ = get(on, name, auto_ack=False)
        on.basic_nack(method.delivery_tag, requeue=True)
        method, properties, _ = get(on, name, auto_ack=False)
        equal(properties.headers["x-delivery-count"], 1, "x-delivery-count")
        on.basic_nack(method.delivery_tag, requeue=True)
        on.connection.process_data_events(0.3)
        equal(on.basic_get(name)[0], None, "message after its limit")


@check("stream read twice from its start")
def _():
    with channel() as on:
        with queue(on, "p.stream", {"x-queue-type": "stream"}, durable=True) as name:
            on.confirm_delivery()
            for number in range(3):
                on.basic_publish("", name, str(number))
            on.basic_qos(prefetch_count=10)
            for _ in range(2):
                got = take(on, name, 3, arguments={"x-stream-offset": "first"})
                equal([body for _, _, body in got], [b"0", b"1", b"2"], "bodies")
                equal([p.headers["x-stream-offset"] for _, p, _ in got], [0, 1, 2], "offsets")
                for method, _, _ in got:
                    on.basic_ack(method.delivery_tag)
                on.cancel()


# ---- exchanges ---------------------------------------------------------------------------------


def routes(kind, cases, exchange_arguments=None, **options):
    """cases: [(binding key, binding arguments, [(key, headers, whether it matches)])]"""
    with channel() as on:
        on.exchange_declare("p.routes", kind, auto_delete=True, arguments=exchange_arguments)
        on.confirm_delivery()
        for binding_key, arguments, messages in cases:
            with queue(on) as name:
                on.queue_bind(name, "p.routes", binding_key, arguments)
                for key, headers, matches in messages:
                    try:
                        properties = pika.BasicProperties(headers=headers)
                        on.basic_publish("p.routes", key, b"m", properties, mandatory=True)
                        routed = True
                    except UnroutableError:
                        routed = False
                    equal(routed, matches, f"{binding_key!r} {arguments} to {key!r} {headers}")
                on.queue_unbind(name, "p.routes", binding_key, arguments)
            # It was auto-delete, and went with its last binding.
            on.exchange_declare("p.routes", kind, auto_delete=True, arguments=exchange_arguments)
        on.exchange_delete("p.routes")


@check("topic exchange")
def _():
    routes(
        "topic",
        [
            ("a.*", None, [("a.b", None, True), ("a", None, False), ("a.b.c", None, False)]),
            ("a.#", None, [("a", None, True), ("a.b.c", None, True), ("b.a", None, False)]),
            ("#.z", None, [("z", None, True), ("a.b.z", None, True), ("z.a", None, False)]),
            ("*.*", None, [("a.b", None, True), (".", None, True), ("a", None, False)]),
            ("#", None, [("", None, True), ("a.b", None, True)]),
        ],
    )


@check("headers exchange")
def _():
    one, both = {"a": 1}, {"a": 1, "b": "x"}
    routes(
        "headers",
        [
            ("", {"x-match": "all", **both}, [("", both, True), ("", one, False)]),
            ("", {"x-match": "any", **both}, [("", one, True), ("", {"c": 1}, False)]),
            ("", dict(both), [("", {**both, "c": 2}, True), ("", one, False)]),
            ("", {"x-match": "all-with-x", "x-k": 1}, [("", {"x-k": 1}, True), ("", one, False)]),
            ("", {"x-match": "any-with-x", "x-k": 1}, [("", {"x-k": 1}, True), ("", one, False)]),
            ("", {"x-match": "all", "x-k": 1}, [("", {"x-k": 2}, True)]),
        ],
    )


@check("consistent hash exchange spreads keys and keeps them together")
def _():
    with channel() as on:
        on.exchange_declare("p.hash", "x-consistent-hash")
        with queue(on) as one, queue(on) as two:
            for name in (one, two):
                on.queue_bind(name, "p.hash", "10")
            on.confirm_delivery()
            for number in range(200):
                on.basic_publish("p.hash", f"key{number % 100}", f"key{number % 100}")
            bodies = []
            for name in (one, two):
                count = on.queue_declare(name, passive=True).method.message_count
                bodies.append([get(on, name)[2] for _ in range(count)])
            equal(sum(map(len, bodies)), 200, "messages")
            equal(set(bodies[0]) & set(bodies[1]), set(), "keys in both queues")
            equal(min(map(len, bodies)) > 20, True, "both queues are used")
        on.exchange_delete("p.hash")


@check("alternate exchange and exchange-to-exchange bindings")
def _():
    with channel() as on, queue(on) as name:
        on.exchange_declare("p.alternate", "fanout")
        on.exchange_declare("p.main", "direct", arguments={"alternate-exchange": "p.alternate"})
        on.exchange_declare("p.second", "fanout")
        on.exchange_bind("p.second", "p.alternate")
        on.queue_bind(name, "p.second")
        on.confirm_delivery()
        on.basic_publish("p.main", "nobody", b"m", mandatory=True)
        method, _, _ = get(on, name)
        equal((method.exchange, method.routing_key), ("p.main", "nobody"))
        for exchange in ("p.main", "p.alternate", "p.second"):
            on.exchange_delete(exchange)


@check("CC and BCC")
def _():
    with channel() as on, queue(on) as cc, queue(on) as bcc:
        headers = {"CC": [cc], "BCC": [bcc]}
        on.basic_publish("", "nobody", b"m", pika.BasicProperties(headers=headers))
        for name in (cc, bcc):
            method, properties, _ = get(on, name)
            equal(method.routing_key, "nobody", "routing key")
            equal(properties.headers, {"CC": [cc]}, "headers")


# ---- cancel notify, replies, connections -------------------------------------------------------


@check("cancel notify when the queue is deleted")
def _():
    with connected() as connection, channel() as other:
        on = connection.channel()
        other.queue_declare("p.cancelled")
        cancelled = []
        on.add_on_cancel_callback(cancelled.append)
        tag = on.basic_consume("p.cancelled", print)
        other.queue_delete("p.cancelled")
        deadline = time.monotonic() + 10
        while not cancelled and time.monotonic() < deadline:
            connection.process_data_events(0.1)
        equal([frame.method.consumer_tag for frame in cancelled], [tag], "cancelled")


@check("remote procedure calls over direct reply-to")
def _():
    def serve():
        with channel() as on:
            on.queue_declare("p.rpc", exclusive=True)
            ready.set()
            for method, properties, body in on.consume("p.rpc", auto_ack=True):
                if body == b"stop":
                    return
                reply = pika.BasicProperties(correlation_id=properties.correlation_id)
                on.basic_publish("", properties.reply_to, body.upper(), reply)

    ready = threading.Event()
    server = threading.Thread(target=serve, daemon=True)
    server.start()
    equal(ready.wait(10), True, "server is ready")
    with channel() as on:
        answers = {}

        def answered(on, method, properties, body):
            answers[properties.correlation_id] = body

        on.basic_consume("amq.rabbitmq.reply-to", answered, auto_ack=True)
        for number in range(50):
            properties = pika.BasicProperties(
                reply_to="amq.rabbitmq.reply-to", correlation_id=str(number)
            )
            on.basic_publish("", "p.rpc", f"call {number}", properties)
        deadline = time.monotonic() + 10
        while len(answers) < 50 and time.monotonic() < deadline:
            on.connection.process_data_events(0.1)
        equal(answers, {str(n): f"CALL {n}".encode() for n in range(50)}, "answers")
        on.basic_publish("", "p.rpc", b"stop")
    server.join(10)


@check("heartbeats keep an idle connection")
def _():
    with connected(heartbeat=2) as connection:
        on = connection.channel()
        connection.sleep(5)
        on.queue_declare("", exclusive=True)


@check("channels open and close by the hundred")
def _():
    with connected() as connection:
        channels = [connection.channel() for _ in range(300)]
        equal(len({each.channel_number for each in channels}), 300, "numbers")
        for each in channels:
            each.close()
        connection.channel().queue_declare("", exclusive=True)


@check("select connection: declare, publish with confirms, consume")
def _():
    got, confirmed = [], []

    def failed(connection, error):
        problems.append(error)
        connection.ioloop.stop()

    def opened(connection):
        connection.channel(on_open_callback=ready)

    def ready(on):
        on.confirm_delivery(
            lambda frame: confirmed.append((type(frame.method).__name__, frame.method)),
            callback=lambda frame: on.queue_declare("", exclusive=True, callback=declared),
        )

    def declared(frame):
        name = frame.method.queue
        on = connection._channels[1]
        on.basic_qos(prefetch_count=10)
        on.basic_consume(name, delivered)
        for number in range(100):
            on.basic_publish("", name, str(number), mandatory=True)

    def delivered(on, method, properties, body):
        got.append(int(body))
        on.basic_ack(method.delivery_tag)
        done()

    def done():
        if len(got) < 100:
            return
        if highest() < 100:
            connection.ioloop.call_later(0.05, done)
            return
        connection.close()

    def highest():
        return max((method.delivery_tag for _, method in confirmed), default=0)

    problems = []
    connection = pika.SelectConnection(
        parameters(),
        on_open_callback=opened,
        on_open_error_callback=failed,
        on_close_callback=lambda connection, reason: connection.ioloop.stop(),
    )
    connection.ioloop.start()
    equal(problems, [], "problems")
    equal(got, list(range(100)), "order")
    equal({kind for kind, _ in confirmed}, {"Ack"}, "confirms")
    equal(highest(), 100, "highest confirm")


if __name__ == "__main__":
    main()
