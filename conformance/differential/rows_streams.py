"""Rows of streams over AMQP 0-9-1: arguments, offsets and what they refuse (sections 1.4, 2.4)."""

from probe import row
from wire import Typed

STREAM = {"x-queue-type": "stream"}


def stream(c, messages=3, **arguments):
    c.declare("d.s", {**STREAM, **arguments}, durable=True)
    c.call(1, "confirm.select")
    for number in range(messages):
        c.confirmed("", "d.s", f"m{number}", headers={"mine": number})


def declare_row(title, arguments, **flags):
    @row("1.4", f"stream: {title}")
    def _(p):
        c = p.open()
        c.declare("d.s", {**STREAM, **arguments}, **flags)


declare_row("declared", {}, durable=True)
declare_row("non-durable", {})
declare_row("exclusive", {}, durable=True, exclusive=True)
declare_row("auto-delete", {}, durable=True, auto_delete=True)
declare_row("x-max-age 1h", {"x-max-age": "1h"}, durable=True)
declare_row("x-max-age zzz", {"x-max-age": "zzz"}, durable=True)
declare_row("x-max-age of a wrong type", {"x-max-age": 5}, durable=True)
declare_row("x-max-length-bytes", {"x-max-length-bytes": 1000000}, durable=True)
declare_row("x-max-length", {"x-max-length": 10}, durable=True)
declare_row("x-message-ttl", {"x-message-ttl": 10}, durable=True)
declare_row("x-expires", {"x-expires": 10}, durable=True)
declare_row("x-dead-letter-exchange", {"x-dead-letter-exchange": ""}, durable=True)
declare_row("x-max-priority", {"x-max-priority": 5}, durable=True)
declare_row("x-overflow", {"x-overflow": "reject-publish"}, durable=True)
declare_row("x-single-active-consumer", {"x-single-active-consumer": True}, durable=True)
declare_row(
    "x-stream-max-segment-size-bytes", {"x-stream-max-segment-size-bytes": 100000}, durable=True
)
declare_row("x-initial-cluster-size 1", {"x-initial-cluster-size": 1}, durable=True)


@row("1.4", "stream: server-named")
def _(p):
    p.open().declare("", STREAM, durable=True)


def refused_row(title, name, expect=None, prefetch=0, **values):
    @row("2.4", f"stream: {title}")
    def _(p):
        c = p.open()
        stream(c, 1)
        if prefetch:
            c.call(1, "basic.qos", count=prefetch)
        c.call(1, name, expect=expect, queue="d.s", **values)


refused_row("consume without prefetch", "basic.consume", tag="t")
refused_row("consume with no_ack", "basic.consume", prefetch=10, tag="t", no_ack=True)
refused_row("get", "basic.get", expect="basic.get-empty")
refused_row("purge", "queue.purge")
refused_row("exclusive consume", "basic.consume", prefetch=10, tag="t", exclusive=True)
refused_row(
    "offset zzz", "basic.consume", prefetch=10, tag="t", arguments={"x-stream-offset": "zzz"}
)
refused_row(
    "offset of a wrong type",
    "basic.consume",
    prefetch=10,
    tag="t",
    arguments={"x-stream-offset": True},
)
refused_row("offset -1", "basic.consume", prefetch=10, tag="t", arguments={"x-stream-offset": -1})
refused_row("delete if-empty", "queue.delete", if_empty=True)
refused_row("delete if-unused", "queue.delete", if_unused=True)


@row("2.4", "stream: global qos")
def _(p):
    c = p.open()
    stream(c, 1)
    c.call(1, "basic.qos", count=5, **{"global": True})
    c.call(1, "basic.consume", queue="d.s", tag="t")


def offset_row(title, offset, deliveries, messages=3):
    @row("1.4", f"stream: offset {title}")
    def _(p):
        c = p.open()
        stream(c, messages)
        c.call(1, "basic.qos", count=10)
        arguments = {} if offset is None else {"x-stream-offset": offset}
        c.consume("d.s", "t", arguments=arguments)
        if deliveries:
            c.expect("basic.deliver", count=deliveries)
        else:
            c.quiet(0.5)


offset_row("first", "first", 3)
offset_row("by number", 1, 2)
offset_row("past the end", 10, 0)
offset_row("timestamp of the past", Typed("T", 1), 3)
offset_row("interval of an hour", "1h", 3)
offset_row("missing means next", None, 0)


@row("1.4", "stream: offset next")
def _(p):
    c = p.open()
    stream(c, 2)
    c.call(1, "basic.qos", count=10)
    c.consume("d.s", "t", arguments={"x-stream-offset": "next"})
    c.quiet(0.5)
    c.publish(1, "", "d.s", "later")
    c.unordered(2)


@row("1.4", "stream: consumed again from the start, credit by ack")
def _(p):
    c = p.open()
    stream(c, 4)
    c.call(1, "basic.qos", count=2)
    c.consume("d.s", "t", arguments={"x-stream-offset": "first"})
    c.expect("basic.deliver", count=2)
    c.send(1, "basic.ack", delivery=2, multiple=True)
    c.expect("basic.deliver", count=2)
    c.call(1, "basic.cancel", tag="t")
    c.consume("d.s", "u", arguments={"x-stream-offset": "first"})
    c.expect("basic.deliver", count=2)


@row("1.4", "stream: reject and nack count as settling")
def _(p):
    c = p.open()
    stream(c, 3)
    c.call(1, "basic.qos", count=1)
    c.consume("d.s", "t", arguments={"x-stream-offset": "first"})
    c.expect("basic.deliver")
    c.send(1, "basic.reject", delivery=1)
    c.expect("basic.deliver")
    c.send(1, "basic.nack", delivery=2, requeue=True)
    c.expect("basic.deliver")


@row("1.4", "stream: delete-ok and declare-ok counts")
def _(p):
    c = p.open()
    stream(c, 2)
    c.call(1, "queue.delete", queue="d.s")
