"""Rows of what queues do with messages: expiry, limits, dead-lettering, priority (section 1.4)."""

import time

from probe import row
from wire import Typed


def x(**arguments):
    return {f"x-{name.replace('_', '-')}": value for name, value in arguments.items()}


def dead_letters(**arguments):
    """Arguments of a queue whose dead letters go to the queue d.dead."""
    return x(dead_letter_exchange="", dead_letter_routing_key="d.dead", **arguments)


# ---- declaring ---------------------------------------------------------------------------------


@row("1.4", "server-named queue, and '' as the last declared one")
def _(p):
    c = p.open()
    name = c.declare("", exclusive=True)["queue"]
    c.publish(1, "", name, "hello")
    c.get("")
    c.call(1, "queue.purge", queue="")
    c.call(1, "queue.delete", queue="")
    c.call(1, "queue.declare", queue="", passive=True)


@row("1.4", "bind with empty queue and empty key takes the queue's name as key")
def _(p):
    c = p.open()
    c.declare("d.q")
    c.call(1, "queue.bind", queue="", exchange="amq.direct", key="")
    c.publish(1, "amq.direct", "d.q", "by name")
    c.call(1, "basic.qos")
    c.get("d.q")
    c.publish(1, "amq.direct", "", "by nothing", mandatory=True)
    c.expect("basic.return")


@row("1.4", "bind with a queue and an empty key leaves the key empty")
def _(p):
    c = p.open()
    c.declare("d.q")
    c.call(1, "queue.bind", queue="d.q", exchange="amq.direct", key="")
    c.publish(1, "amq.direct", "", "empty key", mandatory=True)
    c.call(1, "basic.qos")
    c.get("d.q")


@row("1.4", "nowait methods are not answered")
def _(p):
    c = p.open()
    c.send(1, "queue.declare", queue="d.q", nowait=True)
    c.send(1, "exchange.declare", exchange="d.ex", type="fanout", nowait=True)
    c.send(1, "queue.bind", queue="d.q", exchange="d.ex", nowait=True)
    c.send(1, "basic.consume", queue="d.q", tag="t", nowait=True)
    c.send(1, "basic.cancel", tag="t", nowait=True)
    c.send(1, "queue.purge", queue="d.q", nowait=True)
    c.send(1, "confirm.select", nowait=True)
    c.count("d.q")
    c.send(1, "exchange.delete", exchange="d.ex", nowait=True)
    c.send(1, "queue.delete", queue="d.q", nowait=True)
    c.call(1, "queue.declare", queue="d.q", passive=True)


@row("1.4", "nowait methods that fail close the channel")
def _(p):
    c = p.open()
    c.send(1, "basic.consume", queue="d.none", tag="t", nowait=True)
    c.expect("channel.close")


@row("1.4", "auto-delete queue goes with its last consumer")
def _(p):
    c = p.open()
    c.declare("d.q", auto_delete=True)
    c.count("d.q")
    c.consume("d.q", "one")
    c.consume("d.q", "two")
    c.call(1, "basic.cancel", tag="one")
    c.count("d.q")
    c.call(1, "basic.cancel", tag="two")
    c.count("d.q")


@row("1.4", "auto-delete queue goes with the channel of its consumer")
def _(p):
    c = p.open(channels=2)
    c.declare("d.q", auto_delete=True, channel=2)
    c.consume("d.q", "one")
    c.call(1, "channel.close", code=200)
    c.count("d.q", channel=2)


@row("1.4", "queue counts in declare-ok, purge-ok, delete-ok")
def _(p):
    c = p.open()
    c.declare("d.q")
    for number in range(4):
        c.publish(1, "", "d.q", f"{number}")
    c.await_count("d.q", 4)
    c.get("d.q", no_ack=False)
    c.count("d.q")
    c.call(1, "queue.purge", queue="d.q")
    c.count("d.q")
    c.call(1, "queue.delete", queue="d.q")


@row("1.4", "deleting a queue with unacked messages, then acking them")
def _(p):
    c = p.open()
    c.declare("d.q")
    c.publish(1, "", "d.q", "m")
    c.await_count("d.q", 1)
    c.get("d.q", no_ack=False)
    c.call(1, "queue.delete", queue="d.q")
    c.send(1, "basic.ack", delivery=1)
    c.call(1, "basic.qos")


@row("1.4", "a queue from the definitions file")
def _(p):
    c = p.open()
    c.call(1, "queue.declare", queue="d.defined", passive=True)
    c.publish(1, "d.defined.x", "a.b", "routed")
    c.call(1, "basic.qos")
    c.get("d.defined")


# ---- requeueing --------------------------------------------------------------------------------


def filled(p, messages=3, queue="d.q", arguments=None, **open_options):
    c = p.open(**open_options)
    c.declare(queue, arguments)
    for number in range(1, messages + 1):
        c.publish(1, "", queue, f"m{number}")
    c.await_count(queue, messages)
    return c


@row("1.2", "rejected with requeue returns to its place, redelivered")
def _(p):
    c = filled(p)
    c.get("d.q", no_ack=False)
    c.get("d.q", no_ack=False)
    c.send(1, "basic.reject", delivery=1, requeue=True)
    c.await_count("d.q", 2)
    for _ in range(2):
        c.get("d.q")


@row("1.2", "nack multiple with requeue returns all to their places")
def _(p):
    c = filled(p)
    for _ in range(3):
        c.get("d.q", no_ack=False)
    c.send(1, "basic.nack", delivery=2, multiple=True, requeue=True)
    c.await_count("d.q", 2)
    for _ in range(2):
        c.get("d.q", no_ack=False)
    c.send(1, "basic.nack", delivery=0, multiple=True, requeue=True)
    c.await_count("d.q", 3)
    for _ in range(3):
        c.get("d.q")


@row("1.2", "basic.recover with requeue")
def _(p):
    c = filled(p, 2)
    c.get("d.q", no_ack=False)
    c.get("d.q", no_ack=False)
    c.call(1, "basic.recover", requeue=True)
    c.await_count("d.q", 2)
    c.get("d.q")
    c.get("d.q")


@row("1.2", "basic.recover_async with requeue")
def _(p):
    c = filled(p, 1)
    c.get("d.q", no_ack=False)
    c.send(1, "basic.recover-async", requeue=True)
    c.await_count("d.q", 1)
    c.get("d.q")


@row("1.2", "channel close requeues what was unsettled")
def _(p):
    c = filled(p, 2, channels=2)
    c.get("d.q", no_ack=False)
    c.call(1, "channel.close", code=200)
    c.await_count("d.q", 2, channel=2)
    c.get("d.q", channel=2)
    c.get("d.q", channel=2)


@row("1.2", "connection lost requeues what was unsettled")
def _(p):
    a = filled(p, 2, label="A")
    b = p.open("B")
    a.get("d.q", no_ack=False)
    a.close()
    b.await_count("d.q", 2)
    b.get("d.q")


# ---- expiry ------------------------------------------------------------------------------------


@row("1.4", "x-message-ttl expires, and dead-letters with x-death")
def _(p):
    c = p.open()
    c.declare("d.dead")
    c.declare("d.q", dead_letters(message_ttl=50))
    c.publish(1, "", "d.q", "m", content_type="t", headers={"mine": 1}, delivery_mode=2)
    c.await_count("d.dead", 1)
    c.get("d.dead")
    c.count("d.q")


@row("1.4", "per-message expiration moves to original-expiration")
def _(p):
    c = p.open()
    c.declare("d.dead")
    c.declare("d.q", dead_letters())
    c.publish(1, "", "d.q", "m", expiration="50")
    c.await_count("d.dead", 1)
    c.get("d.dead")


@row("1.4", "the smaller of x-message-ttl and expiration counts")
def _(p):
    c = p.open()
    c.declare("d.dead")
    c.declare("d.q", dead_letters(message_ttl=60000))
    c.publish(1, "", "d.q", "m", expiration="50")
    c.await_count("d.dead", 1)
    c.get("d.dead")


@row("1.4", "expiry behind a message that does not expire")
def _(p):
    c = p.open()
    c.declare("d.dead")
    c.declare("d.q", dead_letters())
    c.publish(1, "", "d.q", "stays")
    c.publish(1, "", "d.q", "goes", expiration="50")
    c.await_count("d.dead", 1, secs=1)
    c.count("d.q")
    c.get("d.q")
    c.await_count("d.dead", 1)


@row("1.4", "TTL 0 expires unless it is delivered at once")
def _(p):
    c = p.open()
    c.declare("d.q", x(message_ttl=0))
    c.publish(1, "", "d.q", "lost")
    c.call(1, "basic.qos")
    c.get("d.q")
    c.consume("d.q", "t", no_ack=True)
    c.publish(1, "", "d.q", "delivered")
    c.expect("basic.deliver")


@row("1.4", "expiration 0 expires unless it is delivered at once")
def _(p):
    c = p.open()
    c.declare("d.q")
    c.publish(1, "", "d.q", "lost", expiration="0")
    c.call(1, "basic.qos")
    c.get("d.q")
    c.consume("d.q", "t", no_ack=True)
    c.publish(1, "", "d.q", "delivered", expiration="0")
    c.expect("basic.deliver")


@row("1.4", "a requeued message keeps its deadline")
def _(p):
    c = p.open()
    c.declare("d.q", x(message_ttl=300))
    c.publish(1, "", "d.q", "m")
    c.await_count("d.q", 1)
    c.get("d.q", no_ack=False)
    time.sleep(0.5)
    c.send(1, "basic.nack", delivery=1, requeue=True)
    c.call(1, "basic.qos")
    c.await_count("d.q", 0)
    c.get("d.q")


@row("1.4", "x-expires deletes an unused queue")
def _(p):
    c = p.open()
    c.declare("d.q", x(expires=200))
    time.sleep(0.8)
    c.count("d.q")


@row("1.4", "x-expires waits while there is a consumer")
def _(p):
    c = p.open()
    c.declare("d.q", x(expires=200))
    c.consume("d.q", "t")
    time.sleep(0.6)
    c.count("d.q")
    c.call(1, "basic.cancel", tag="t")
    time.sleep(0.8)
    c.count("d.q")


@row("1.4", "x-expires does not dead-letter")
def _(p):
    c = p.open()
    c.declare("d.dead")
    c.declare("d.q", dead_letters(expires=100))
    c.publish(1, "", "d.q", "m")
    time.sleep(0.6)
    c.count("d.dead")


# ---- limits ------------------------------------------------------------------------------------


def limit_row(title, arguments, bodies, confirm=True, waits=True):
    @row("1.4", title)
    def _(p):
        c = p.open()
        c.declare("d.dead")
        c.declare("d.q", arguments)
        if confirm:
            c.call(1, "confirm.select")
        for body in bodies:
            c.confirmed("", "d.q", body)
        c.count("d.q")
        while c.get("d.q").name == "basic.get-ok":
            pass
        if "x-dead-letter-exchange" in arguments:
            c.await_count("d.dead", len(bodies) - 2, secs=2)
            while c.get("d.dead").name == "basic.get-ok":
                pass


LETTERS = ("aaaa", "bbbb", "cccc")
limit_row("max-length drops the head", x(max_length=2), LETTERS)
limit_row("max-length-bytes drops the head", x(max_length_bytes=8), LETTERS)
limit_row("max-length-bytes with one large message", x(max_length_bytes=8), ("a" * 9, "b"))
limit_row("max-length dead-letters the head", dead_letters(max_length=2), LETTERS)
limit_row("max-length-bytes dead-letters the head", dead_letters(max_length_bytes=8), LETTERS)
limit_row("reject-publish nacks", x(max_length=2, overflow="reject-publish"), LETTERS)
limit_row(
    "reject-publish by bytes nacks", x(max_length_bytes=8, overflow="reject-publish"), LETTERS
)
limit_row(
    "reject-publish-dlx nacks and dead-letters",
    dead_letters(max_length=2, overflow="reject-publish-dlx"),
    LETTERS,
)
limit_row("max-length 0", x(max_length=0), ("a",))
limit_row("max-length 0 with reject-publish", x(max_length=0, overflow="reject-publish"), ("a",))


@row("1.4", "max-length counts ready messages only")
def _(p):
    c = p.open()
    c.declare("d.q", x(max_length=1))
    c.call(1, "confirm.select")
    c.confirmed("", "d.q", "one")
    c.get("d.q", no_ack=False)
    c.confirmed("", "d.q", "two")
    c.send(1, "basic.nack", delivery=1, requeue=True)
    c.await_count("d.q", 1)
    c.get("d.q")


@row("1.4", "one queue of a fanout rejects: nack, the other keeps the message")
def _(p):
    c = p.open()
    c.exchange("d.fan", "fanout")
    c.declare("d.q", x(max_length=1, overflow="reject-publish"))
    c.declare("d.q2")
    c.bind("d.q", "d.fan")
    c.bind("d.q2", "d.fan")
    c.call(1, "confirm.select")
    c.confirmed("d.fan", "", "one")
    c.confirmed("d.fan", "", "two")
    c.count("d.q")
    c.count("d.q2")


# ---- dead letters ------------------------------------------------------------------------------


def death_row(title, settle, **values):
    @row("1.4", title)
    def _(p):
        c = p.open()
        c.declare("d.dead")
        c.declare("d.q", dead_letters())
        c.publish(1, "", "d.q", "m", content_type="t", headers={"mine": "h"}, priority=3)
        c.await_count("d.q", 1)
        c.get("d.q", no_ack=False)
        c.send(1, settle, delivery=1, **values)
        c.await_count("d.dead", 1)
        c.get("d.dead")


death_row("rejected message dead-letters", "basic.reject")
death_row("nacked message dead-letters", "basic.nack")


@row("1.4", "dead letters of nack multiple keep their order")
def _(p):
    c = p.open()
    c.declare("d.dead")
    c.declare("d.q", dead_letters())
    for number in range(1, 4):
        c.publish(1, "", "d.q", f"m{number}")
    c.await_count("d.q", 3)
    for _ in range(3):
        c.get("d.q", no_ack=False)
    c.send(1, "basic.nack", delivery=3, multiple=True)
    c.await_count("d.dead", 3)
    for _ in range(3):
        c.get("d.dead")


@row("1.4", "dead letter without a key keeps the routing key")
def _(p):
    c = p.open()
    c.exchange("d.dlx", "topic")
    c.declare("d.dead")
    c.bind("d.dead", "d.dlx", "#")
    c.declare("d.q", x(dead_letter_exchange="d.dlx"))
    c.bind("d.q", "amq.topic", "a.*")
    c.publish(1, "amq.topic", "a.b", "m")
    c.await_count("d.q", 1)
    c.get("d.q", no_ack=False)
    c.send(1, "basic.reject", delivery=1)
    c.await_count("d.dead", 1)
    c.get("d.dead")


@row("1.4", "dead letter to an exchange that is missing is dropped")
def _(p):
    c = p.open()
    c.declare("d.q", x(dead_letter_exchange="d.none"))
    c.publish(1, "", "d.q", "m")
    c.await_count("d.q", 1)
    c.get("d.q", no_ack=False)
    c.send(1, "basic.reject", delivery=1)
    c.call(1, "basic.qos")
    c.count("d.q")


@row("1.4", "CC in x-death, and kept without a dead-letter key")
def _(p):
    c = p.open()
    c.exchange("d.dlx", "fanout")
    c.declare("d.dead")
    c.bind("d.dead", "d.dlx")
    c.declare("d.q", x(dead_letter_exchange="d.dlx"))
    c.publish(1, "", "d.q", "m", headers={"CC": ["cc1", "cc2"], "BCC": ["b1"]})
    c.await_count("d.q", 1)
    c.get("d.q", no_ack=False)
    c.send(1, "basic.reject", delivery=1)
    c.await_count("d.dead", 1)
    c.get("d.dead")


@row("1.4", "CC is removed with a dead-letter key")
def _(p):
    c = p.open()
    c.declare("d.dead")
    c.declare("d.q", dead_letters())
    c.publish(1, "", "d.q", "m", headers={"CC": ["cc1"], "other": 1})
    c.await_count("d.q", 1)
    c.get("d.q", no_ack=False)
    c.send(1, "basic.reject", delivery=1)
    c.await_count("d.dead", 1)
    c.get("d.dead")


@row("1.4", "retry loop: reject, wait by TTL, again; x-death counts")
def _(p):
    c = p.open()
    c.declare("d.work", x(dead_letter_exchange="", dead_letter_routing_key="d.wait"))
    c.declare(
        "d.wait", x(dead_letter_exchange="", dead_letter_routing_key="d.work", message_ttl=50)
    )
    c.publish(1, "", "d.work", "m")
    for number in range(1, 4):
        c.await_count("d.work", 1)
        c.get("d.work", no_ack=False)
        c.send(1, "basic.reject", delivery=number)
    c.await_count("d.work", 1)


@row("1.4", "expiration property survives a retry loop only once")
def _(p):
    c = p.open()
    c.declare("d.work", x(dead_letter_exchange="", dead_letter_routing_key="d.wait"))
    c.declare(
        "d.wait", x(dead_letter_exchange="", dead_letter_routing_key="d.work", message_ttl=50)
    )
    c.publish(1, "", "d.wait", "m", expiration="20")
    for number in range(1, 3):
        c.await_count("d.work", 1)
        c.get("d.work", no_ack=False)
        c.send(1, "basic.reject", delivery=number)
    c.await_count("d.work", 1)


@row("1.4", "a cycle of expiries alone is dropped")
def _(p):
    c = p.open()
    c.declare("d.a", x(dead_letter_exchange="", dead_letter_routing_key="d.b", message_ttl=30))
    c.declare("d.b", x(dead_letter_exchange="", dead_letter_routing_key="d.a", message_ttl=30))
    c.publish(1, "", "d.a", "m")
    time.sleep(0.5)
    c.count("d.a")
    c.count("d.b")


@row("1.4", "a queue that dead-letters to itself: expired is dropped, rejected comes back")
def _(p):
    c = p.open()
    c.declare("d.q", x(dead_letter_exchange="", dead_letter_routing_key="d.q", message_ttl=200))
    c.publish(1, "", "d.q", "m")
    c.await_count("d.q", 1)
    c.get("d.q", no_ack=False)
    c.send(1, "basic.reject", delivery=1)
    c.await_count("d.q", 1)
    c.get("d.q", no_ack=False)
    c.send(1, "basic.nack", delivery=2, requeue=True)
    time.sleep(0.8)
    c.count("d.q")


@row("1.4", "x-death sent by the client is kept under the broker's entry")
def _(p):
    c = p.open()
    c.declare("d.dead")
    c.declare("d.q", dead_letters())
    entry = {
        "count": Typed("l", 7),
        "reason": "rejected",
        "queue": "d.q",
        "time": Typed("T", 5),
        "exchange": "",
        "routing-keys": ["d.q"],
    }
    other = {**entry, "queue": "elsewhere"}
    c.publish(1, "", "d.q", "m", headers={"x-death": [other, entry], "x-first-death-queue": "q0"})
    c.await_count("d.q", 1)
    c.get("d.q", no_ack=False)
    c.send(1, "basic.reject", delivery=1)
    c.await_count("d.dead", 1)
    c.get("d.dead")


@row("1.4", "x-death that is no array")
def _(p):
    c = p.open()
    c.declare("d.dead")
    c.declare("d.q", dead_letters())
    c.publish(1, "", "d.q", "m", headers={"x-death": "zzz"})
    c.await_count("d.q", 1)
    c.get("d.q", no_ack=False)
    c.send(1, "basic.reject", delivery=1)
    c.await_count("d.dead", 1)
    c.get("d.dead")


@row("1.4", "two dead-letterings by different reasons")
def _(p):
    c = p.open()
    c.declare("d.dead")
    c.declare("d.two", x(dead_letter_exchange="", dead_letter_routing_key="d.dead", message_ttl=50))
    c.declare("d.one", x(dead_letter_exchange="", dead_letter_routing_key="d.two", max_length=1))
    c.publish(1, "", "d.one", "m1")
    c.publish(1, "", "d.one", "m2")
    c.await_count("d.dead", 1)
    c.get("d.dead")


@row("1.4", "a policy's dead letters and limit; the operator policy's limit")
def _(p):
    c = p.open()
    c.declare("d.pol-dead")
    c.declare("d.pol.q")
    c.declare("d.op.q", x(max_length=5))
    c.call(1, "confirm.select")
    for number in range(4):
        c.confirmed("", "d.pol.q", f"p{number}")
    for number in range(4):
        c.confirmed("", "d.op.q", f"o{number}")
    c.count("d.pol.q")
    c.count("d.op.q")
    c.await_count("d.pol-dead", 1)
    c.get("d.pol-dead")


@row("1.4", "purging and deleting do not dead-letter")
def _(p):
    c = p.open()
    c.declare("d.dead")
    c.declare("d.q", dead_letters())
    c.publish(1, "", "d.q", "m1")
    c.await_count("d.q", 1)
    c.call(1, "queue.purge", queue="d.q")
    c.publish(1, "", "d.q", "m2")
    c.await_count("d.q", 1)
    c.call(1, "queue.delete", queue="d.q")
    c.count("d.dead")


# ---- priority ----------------------------------------------------------------------------------


@row("1.4", "priority order; above the maximum is the maximum")
def _(p):
    c = p.open()
    c.declare("d.q", x(max_priority=5))
    for number in (None, 0, 1, 9, 5, 3, 9):
        priority = {} if number is None else {"priority": number}
        c.publish(1, "", "d.q", f"{number}", **priority)
    c.await_count("d.q", 7)
    for _ in range(7):
        c.get("d.q")


@row("1.4", "a requeued message keeps its priority and place")
def _(p):
    c = p.open()
    c.declare("d.q", x(max_priority=5))
    for number, priority in ((1, 1), (2, 5), (3, 5)):
        c.publish(1, "", "d.q", f"m{number}", priority=priority)
    c.await_count("d.q", 3)
    c.get("d.q", no_ack=False)
    c.send(1, "basic.nack", delivery=1, requeue=True)
    c.await_count("d.q", 3)
    for _ in range(3):
        c.get("d.q")


@row("1.4", "max-length of a priority queue drops its head, the highest priority")
def _(p):
    c = p.open()
    c.declare("d.q", x(max_priority=5, max_length=2))
    c.call(1, "confirm.select")
    for body, priority in (("low", 1), ("high", 5), ("mid", 3)):
        c.confirmed("", "d.q", body, priority=priority)
    c.get("d.q")
    c.get("d.q")


# ---- quorum queues -----------------------------------------------------------------------------


def quorum(**arguments):
    return {"x-queue-type": "quorum", **x(**arguments)}


def quorum_declare_row(title, arguments, **flags):
    @row("1.4", f"quorum: {title}")
    def _(p):
        c = p.open()
        c.declare("d.qq", arguments, **flags)


quorum_declare_row("declared", quorum(), durable=True)
quorum_declare_row("non-durable", quorum())
quorum_declare_row("exclusive", quorum(), durable=True, exclusive=True)
quorum_declare_row("auto-delete", quorum(), durable=True, auto_delete=True)
quorum_declare_row("x-max-priority", quorum(max_priority=5), durable=True)
quorum_declare_row("x-queue-mode", quorum(queue_mode="lazy"), durable=True)
quorum_declare_row("x-max-age", quorum(max_age="1h"), durable=True)
quorum_declare_row("x-delivery-limit of a wrong type", quorum(delivery_limit="5"), durable=True)
quorum_declare_row("x-delivery-limit -1", quorum(delivery_limit=-1), durable=True)
quorum_declare_row("x-delivery-limit 0", quorum(delivery_limit=0), durable=True)
quorum_declare_row("reject-publish-dlx", quorum(overflow="reject-publish-dlx"), durable=True)
quorum_declare_row("x-message-ttl", quorum(message_ttl=1000), durable=True)
quorum_declare_row("x-expires", quorum(expires=60000), durable=True)
quorum_declare_row(
    "at-least-once strategy",
    quorum(
        dead_letter_strategy="at-least-once", dead_letter_exchange="", overflow="reject-publish"
    ),
    durable=True,
)
quorum_declare_row("unknown dead-letter strategy", quorum(dead_letter_strategy="zzz"), durable=True)
quorum_declare_row(
    "x-quorum-initial-group-size 3", quorum(quorum_initial_group_size=3), durable=True
)
quorum_declare_row(
    "x-quorum-initial-group-size 0", quorum(quorum_initial_group_size=0), durable=True
)


@row("1.4", "quorum: server-named")
def _(p):
    c = p.open()
    c.declare("", quorum(), durable=True)


@row("1.4", "quorum: global qos then consume")
def _(p):
    c = p.open()
    c.declare("d.qq", quorum(), durable=True)
    c.call(1, "basic.qos", count=5, **{"global": True})
    c.call(1, "basic.consume", queue="d.qq", tag="c")


@row("1.4", "quorum: x-delivery-count and delivery limit, dead-lettered")
def _(p):
    c = p.open()
    c.declare("d.dead")
    c.declare("d.qq", {**quorum(delivery_limit=2), **dead_letters()}, durable=True)
    c.call(1, "confirm.select")
    c.confirmed("", "d.qq", "m")
    for number in range(1, 4):
        c.await_count("d.qq", 1)
        c.get("d.qq", no_ack=False)
        c.send(1, "basic.nack", delivery=number, requeue=True)
    c.await_count("d.dead", 1)
    c.get("d.dead")


@row("1.4", "quorum: consume, requeue, redelivery")
def _(p):
    c = p.open()
    c.declare("d.qq", quorum(), durable=True)
    c.call(1, "confirm.select")
    c.confirmed("", "d.qq", "m")
    c.call(1, "basic.qos", count=1)
    c.consume("d.qq", "t")
    c.expect("basic.deliver")
    c.send(1, "basic.reject", delivery=1, requeue=True)
    c.expect("basic.deliver")
    c.send(1, "basic.ack", delivery=2)
    c.call(1, "basic.cancel", tag="t")


@row("1.4", "quorum: reject-publish nacks, one message late")
def _(p):
    c = p.open()
    c.declare("d.qq", quorum(max_length=1, overflow="reject-publish"), durable=True)
    c.call(1, "confirm.select")
    for number in range(1, 5):
        c.confirmed("", "d.qq", f"{number}")


@row("1.4", "quorum: single active consumer refuses get")
def _(p):
    c = p.open()
    c.declare("d.qq", quorum(single_active_consumer=True), durable=True)
    c.get("d.qq")


@row("1.4", "quorum: delete if-empty and if-unused")
def _(p):
    c = p.open()
    c.declare("d.qq", quorum(), durable=True)
    c.call(1, "queue.delete", queue="d.qq", if_empty=True)


@row("1.4", "quorum: delete if-unused with a consumer")
def _(p):
    c = p.open()
    c.declare("d.qq", quorum(), durable=True)
    c.consume("d.qq", "t")
    c.call(1, "queue.delete", queue="d.qq", if_unused=True)


@row("1.4", "classic: no x-delivery-count on redelivery")
def _(p):
    c = filled(p, 1)
    c.get("d.q", no_ack=False)
    c.send(1, "basic.nack", delivery=1, requeue=True)
    c.await_count("d.q", 1)
    c.get("d.q")
