"""Rows of deliveries and of a channel's modes: consumers, prefetch, confirms, tx, replies (1.2)."""

import wire
from probe import CAPABILITIES, row


def filled(p, messages=3, queue="d.q", arguments=None, **open_options):
    c = p.open(**open_options)
    c.declare(queue, arguments)
    for number in range(1, messages + 1):
        c.publish(1, "", queue, f"m{number}")
    c.await_count(queue, messages)
    return c


@row("1.2", "consume, deliver, cancel")
def _(p):
    c = filled(p, 2)
    c.call(1, "basic.consume", queue="d.q", tag="")
    c.expect("basic.deliver", count=2)
    c.call(1, "basic.cancel", tag="nobody")
    c.send(1, "basic.ack", delivery=2, multiple=True)
    c.call(1, "basic.qos")


@row("1.2", "deliveries stop after cancel, and the unsettled one can still be acked")
def _(p):
    c = filled(p, 2)
    c.call(1, "basic.qos", count=1)
    c.consume("d.q", "t")
    c.expect("basic.deliver")
    c.call(1, "basic.cancel", tag="t")
    c.send(1, "basic.ack", delivery=1)
    c.count("d.q")
    c.quiet()


@row("1.2", "prefetch per consumer")
def _(p):
    c = filled(p, 5)
    c.call(1, "basic.qos", count=2)
    c.consume("d.q", "t")
    c.expect("basic.deliver", count=2)
    c.quiet(0.3)
    c.send(1, "basic.ack", delivery=1)
    c.expect("basic.deliver")
    c.quiet(0.3)


@row("1.2", "a later qos leaves a consumer's prefetch alone")
def _(p):
    c = filled(p, 5)
    c.call(1, "basic.qos", count=1)
    c.consume("d.q", "t")
    c.expect("basic.deliver")
    c.call(1, "basic.qos", count=5)
    c.quiet(0.3)


@row("1.2", "a global prefetch is shared by the channel's consumers")
def _(p):
    c = filled(p, 5)
    c.declare("d.q2")
    for number in range(3):
        c.publish(1, "", "d.q2", f"n{number}")
    c.await_count("d.q2", 3)
    c.call(1, "basic.qos", count=2, **{"global": True})
    c.consume("d.q", "t")
    c.expect("basic.deliver", count=2)
    c.consume("d.q2", "u")
    c.quiet(0.3)
    c.send(1, "basic.ack", delivery=2, multiple=True)
    c.expect("basic.deliver", count=2, silent=True)
    c.quiet(0.3)


@row("1.2", "no_ack ignores prefetch")
def _(p):
    c = filled(p, 3)
    c.call(1, "basic.qos", count=1)
    c.consume("d.q", "t", no_ack=True)
    c.expect("basic.deliver", count=3)


@row("1.2", "basic.get is not counted by prefetch")
def _(p):
    c = filled(p, 3)
    c.call(1, "basic.qos", count=1)
    c.get("d.q", no_ack=False)
    c.get("d.q", no_ack=False)
    c.consume("d.q", "t")
    c.expect("basic.deliver")


@row("1.2", "no_local is ignored")
def _(p):
    c = p.open()
    c.declare("d.q")
    c.consume("d.q", "t", no_local=True, no_ack=True)
    c.publish(1, "", "d.q", "own")
    c.expect("basic.deliver")


@row("1.2", "round robin between consumers")
def _(p):
    c = p.open()
    c.declare("d.q")
    c.consume("d.q", "one", no_ack=True)
    c.consume("d.q", "two", no_ack=True)
    for number in range(4):
        c.publish(1, "", "d.q", f"m{number}")
        c.expect("basic.deliver")


@row("1.2", "the higher consumer priority first, the lower when it is full")
def _(p):
    c = p.open()
    c.declare("d.q")
    c.call(1, "basic.qos", count=1)
    c.consume("d.q", "low", arguments={"x-priority": -1})
    c.consume("d.q", "high", arguments={"x-priority": 5})
    c.consume("d.q", "none")
    for number in range(3):
        c.publish(1, "", "d.q", f"m{number}")
        c.expect("basic.deliver")


@row("1.2", "single active consumer: the second takes over")
def _(p):
    a = p.open("A")
    b = p.open("B")
    a.declare("d.q", {"x-single-active-consumer": True})
    a.consume("d.q", "a")
    b.consume("d.q", "b")
    a.publish(1, "", "d.q", "m1")
    a.expect("basic.deliver")
    b.quiet(0.3)
    a.call(1, "channel.close", code=200)
    b.expect("basic.deliver")
    b.send(1, "basic.ack", delivery=1)
    b.call(1, "basic.qos")


@row("1.2", "single active consumer: a cancelled one keeps its unsettled messages")
def _(p):
    c = p.open(channels=2)
    c.declare("d.q", {"x-single-active-consumer": True})
    c.consume("d.q", "a")
    c.consume("d.q", "b", channel=2)
    c.publish(1, "", "d.q", "m1")
    c.expect("basic.deliver")
    c.call(1, "basic.cancel", tag="a")
    c.publish(1, "", "d.q", "m2")
    c.expect("basic.deliver")


@row("1.2", "single active consumer: exclusive consume is refused")
def _(p):
    c = p.open()
    c.declare("d.q", {"x-single-active-consumer": True})
    c.call(1, "basic.consume", queue="d.q", tag="a", exclusive=True)


@row("1.2", "single active consumer: get")
def _(p):
    c = filled(p, 1, arguments={"x-single-active-consumer": True})
    c.get("d.q")


@row("1.2", "cancel notify when the queue is deleted")
def _(p):
    a, b = p.open("A"), p.open("B")
    a.declare("d.q")
    a.consume("d.q", "t")
    b.call(1, "queue.delete", queue="d.q")
    a.expect("basic.cancel")
    a.call(1, "basic.qos")


@row("1.2", "cancel notify on the channel that deletes the queue")
def _(p):
    c = p.open()
    c.declare("d.q")
    c.consume("d.q", "t")
    c.send(1, "queue.delete", queue="d.q")
    c.unordered(2)
    c.call(1, "basic.cancel", tag="t")


@row("1.2", "no cancel notify without the capability")
def _(p):
    a = p.open("A", capabilities={**CAPABILITIES, "consumer_cancel_notify": False})
    b = p.open("B")
    a.declare("d.q")
    a.consume("d.q", "t")
    b.call(1, "queue.delete", queue="d.q")
    a.quiet(0.5)


@row("1.2", "get-ok counts what is left")
def _(p):
    c = filled(p, 3)
    for _ in range(4):
        c.get("d.q")


@row("1.2", "delivery tags count per channel, gets included")
def _(p):
    c = filled(p, 4, channels=2)
    c.get("d.q", no_ack=True)
    c.get("d.q", no_ack=False)
    c.get("d.q", no_ack=False, channel=2)
    c.consume("d.q", "t")
    c.expect("basic.deliver")


# ---- publishing --------------------------------------------------------------------------------


@row("1.2", "mandatory and not routed: the return carries all")
def _(p):
    c = p.open()
    c.publish(
        1,
        "amq.direct",
        "none",
        "body",
        mandatory=True,
        content_type="t",
        headers={"a": 1},
        message_id="m",
    )
    c.expect("basic.return")


@row("1.2", "mandatory with an empty body")
def _(p):
    c = p.open()
    c.publish(1, "", "d.none", "", mandatory=True)
    c.expect("basic.return")


@row("1.2", "not routed, not mandatory: silence")
def _(p):
    c = p.open()
    c.publish(1, "", "d.none", "body")
    c.call(1, "basic.qos")


@row("1.2", "confirm mode: return, then ack")
def _(p):
    c = p.open()
    c.call(1, "confirm.select")
    c.publish(1, "", "d.none", "one", mandatory=True)
    c.expect("basic.ack")
    c.publish(1, "", "d.none", "two")
    c.expect("basic.ack")


@row("1.2", "confirms count from confirm.select")
def _(p):
    c = p.open()
    c.declare("d.q")
    c.publish(1, "", "d.q", "before")
    c.call(1, "confirm.select")
    for number in range(3):
        c.confirmed("", "d.q", f"m{number}")


@row("1.2", "every publish of a burst is confirmed once")
def _(p):
    c = p.open()
    c.declare("d.q", durable=True)
    c.call(1, "confirm.select")
    for number in range(50):
        c.publish(1, "", "d.q", f"m{number}", delivery_mode=2)
    confirmed, tag = 0, 0
    while confirmed < 50:
        event = c.expect("basic.ack", "basic.nack", silent=True)
        if event.name != "basic.ack":
            p.note(event.line())
            return
        # `multiple` covers what is not confirmed yet up to the tag; singles may overtake it.
        confirmed = event["delivery"] if event["multiple"] else confirmed + 1
        tag = max(tag, event["delivery"])
    p.note(f"{tag} confirmed")
    c.count("d.q")


@row("1.2", "confirm for a publish that closes the channel never comes")
def _(p):
    c = p.open()
    c.call(1, "confirm.select")
    c.publish(1, "d.none", "k", "m")
    c.expect("channel.close")


# ---- transactions ------------------------------------------------------------------------------


@row("1.2", "tx: publishes appear at commit")
def _(p):
    c = p.open(channels=2)
    c.declare("d.q", channel=2)
    c.call(1, "tx.select")
    c.publish(1, "", "d.q", "one")
    c.publish(1, "", "d.q", "two")
    c.call(1, "basic.qos")
    c.count("d.q", channel=2)
    c.call(1, "tx.commit")
    c.await_count("d.q", 2, channel=2)


@row("1.2", "tx: rollback drops publishes and acks")
def _(p):
    c = p.open(channels=2)
    c.declare("d.q", channel=2)
    c.publish(2, "", "d.q", "m")
    c.await_count("d.q", 1, channel=2)
    c.call(1, "tx.select")
    c.get("d.q", no_ack=False)
    c.send(1, "basic.ack", delivery=1)
    c.publish(1, "", "d.q", "dropped")
    c.call(1, "tx.rollback")
    c.count("d.q", channel=2)
    c.call(1, "channel.close", code=200)
    c.await_count("d.q", 1, channel=2)
    c.get("d.q", channel=2)


@row("1.2", "tx: acks take effect at commit")
def _(p):
    c = p.open(channels=2)
    c.declare("d.q", channel=2)
    c.publish(2, "", "d.q", "m")
    c.await_count("d.q", 1, channel=2)
    c.call(1, "tx.select")
    c.get("d.q", no_ack=False)
    c.send(1, "basic.ack", delivery=1)
    c.call(1, "tx.commit")
    c.call(1, "channel.close", code=200)
    c.count("d.q", channel=2)


@row("1.2", "tx: nack with requeue at commit")
def _(p):
    c = p.open()
    c.declare("d.q")
    c.publish(1, "", "d.q", "m")
    c.await_count("d.q", 1)
    c.call(1, "tx.select")
    c.get("d.q", no_ack=False)
    c.send(1, "basic.nack", delivery=1, requeue=True)
    c.get("d.q")
    c.call(1, "tx.commit")
    c.await_count("d.q", 1)


@row("1.2", "tx: ack twice in one transaction")
def _(p):
    c = p.open()
    c.declare("d.q")
    c.publish(1, "", "d.q", "m")
    c.await_count("d.q", 1)
    c.call(1, "tx.select")
    c.get("d.q", no_ack=False)
    c.send(1, "basic.ack", delivery=1)
    c.send(1, "basic.ack", delivery=1)
    c.call(1, "tx.commit")


@row("1.2", "tx: returns come at commit")
def _(p):
    c = p.open()
    c.call(1, "tx.select")
    c.publish(1, "", "d.none", "m", mandatory=True)
    c.call(1, "basic.qos")
    c.call(1, "tx.commit")


@row("1.2", "tx: publish to a missing exchange")
def _(p):
    c = p.open()
    c.call(1, "tx.select")
    c.publish(1, "d.none", "k", "m")
    c.call(1, "tx.commit")


@row("1.2", "tx: closing the channel rolls back")
def _(p):
    c = p.open(channels=2)
    c.declare("d.q", channel=2)
    c.call(1, "tx.select")
    c.publish(1, "", "d.q", "m")
    c.call(1, "channel.close", code=200)
    c.count("d.q", channel=2)


# ---- direct reply-to ---------------------------------------------------------------------------

REPLY_TO = "amq.rabbitmq.reply-to"


@row("1.2", "direct reply-to: request and reply")
def _(p):
    a, b = p.open("A"), p.open("B")
    b.declare("d.rpc")
    a.call(1, "basic.consume", queue=REPLY_TO, tag="r", no_ack=True)
    a.publish(1, "", "d.rpc", "request", reply_to=REPLY_TO, correlation_id="1")
    b.await_count("d.rpc", 1)
    request = b.get("d.rpc")
    address = request.properties["reply_to"]
    p.note(f"reply_to rewritten: {address.startswith(REPLY_TO + '.')}")
    b.call(1, "queue.declare", queue=address, passive=True)
    b.call(1, "queue.declare", queue=address)
    b.call(1, "confirm.select")
    b.publish(1, "", address, "reply", correlation_id="1")
    a.expect("basic.deliver")
    b.expect("basic.ack")
    a.call(1, "basic.cancel", tag="r")
    b.publish(1, "", address, "late", mandatory=True)
    b.expect("basic.ack")


@row("1.2", "direct reply-to: needs no_ack")
def _(p):
    c = p.open()
    c.call(1, "basic.consume", queue=REPLY_TO, tag="r")


@row("1.2", "direct reply-to: one consumer a channel")
def _(p):
    c = p.open()
    c.call(1, "basic.consume", queue=REPLY_TO, tag="r", no_ack=True)
    c.call(1, "basic.consume", queue=REPLY_TO, tag="s", no_ack=True)


@row("1.2", "direct reply-to: cancelled and consumed again")
def _(p):
    c = p.open()
    c.call(1, "basic.consume", queue=REPLY_TO, tag="r", no_ack=True)
    c.call(1, "basic.cancel", tag="r")
    c.call(1, "basic.consume", queue=REPLY_TO, tag="r", no_ack=True)


@row("1.2", "direct reply-to: server-named tag")
def _(p):
    c = p.open()
    c.call(1, "basic.consume", queue=REPLY_TO, no_ack=True)


@row("1.2", "direct reply-to: exclusive consume")
def _(p):
    c = p.open()
    c.call(1, "basic.consume", queue=REPLY_TO, tag="r", no_ack=True, exclusive=True)


@row("1.2", "direct reply-to: declare, get, bind, purge, delete of the pseudo queue")
def _(p):
    for name, options in (
        ("queue.declare", {"queue": REPLY_TO}),
        ("queue.declare", {"queue": REPLY_TO, "passive": True}),
        ("basic.get", {"queue": REPLY_TO, "no_ack": True, "expect": "basic.get-empty"}),
        ("queue.bind", {"queue": REPLY_TO, "exchange": "amq.direct"}),
        ("queue.purge", {"queue": REPLY_TO}),
        ("queue.delete", {"queue": REPLY_TO}),
    ):
        c = p.open(name)
        c.call(1, name, **options)


@row("1.2", "direct reply-to: an address that never was")
def _(p):
    c = p.open()
    c.call(1, "queue.declare", queue=REPLY_TO + ".g1hkABByZXBseQ==.abc", passive=True)
    c.channel(1)
    c.publish(1, "", REPLY_TO + ".nonsense", "m", mandatory=True)
    c.expect("basic.return")


@row("1.2", "direct reply-to: publish of another channel's consumer")
def _(p):
    c = p.open(channels=2)
    c.call(1, "basic.consume", queue=REPLY_TO, tag="r", no_ack=True)
    c.publish(2, "", "d.none", "m", reply_to=REPLY_TO)
    c.expect("channel.close")


# ---- several frames at once --------------------------------------------------------------------


@row("1.2", "pipelined methods are answered in order")
def _(p):
    c = p.open()
    data = wire.method(1, "queue.declare", queue="d.pipe", exclusive=True)
    data += wire.method(1, "queue.bind", queue="d.pipe", exchange="amq.fanout")
    data += wire.method(1, "basic.publish", exchange="amq.fanout") + wire.content(1, "piped")
    data += wire.method(1, "basic.get", queue="d.pipe", no_ack=True)
    data += wire.method(1, "queue.delete", queue="d.pipe")
    c.raw(data)
    c.expect("queue.delete-ok")


@row("1.2", "a large message comes back whole")
def _(p):
    c = p.open()
    c.declare("d.big")
    body = bytes(range(256)) * 4096
    c.publish(1, "", "d.big", body)
    c.send(1, "basic.get", queue="d.big", no_ack=True)
    event = c.expect("basic.get-ok", silent=True)
    p.note(f"{event.name}: {len(event.body)} octets, equal: {event.body == body}")
