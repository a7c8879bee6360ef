"""Rows of framing and channel state: what a broken or misplaced frame earns (section 2.2)."""

import struct

from probe import row
from wire import content, frame, header, method, method_payload

OPEN_PAYLOAD = method_payload("channel.open")


def frame_row(title, *data, section="2.2", queue=None):
    """Sends bytes on a connection whose channel 1 is open, and records the end of it."""

    @row(section, title)
    def _(p):
        c = p.open()
        if queue:
            c.declare(queue)
        c.raw(b"".join(data))
        c.expect_end()


frame_row("bad frame-end octet", frame(1, 0, b"\0\x14\0\x0a", end=0xAA))
frame_row("bad frame-end octet on a channel", frame(1, 1, b"\0\x14\0\x0a\0", end=0xAA))
frame_row("frame type 9", frame(9, 1, b"\0\x14\0\x0a"))
frame_row("frame type 0", frame(0, 1, b""))
frame_row("frame type 4", frame(4, 0, b"abc"))
frame_row("frame too large", struct.pack(">BHI", 3, 1, 1048576))
frame_row("method frame too large", struct.pack(">BHI", 1, 1, 131073))
frame_row("truncated method", frame(1, 1, b"\0\x32\0\x0a"))
frame_row("truncated publish", frame(1, 1, b"\0\x3c\0\x28\0\0\x05ab"))
frame_row("method with octets left over", frame(1, 1, method_payload("tx.select") + b"xx"))
frame_row("unknown class 99", frame(1, 1, b"\0\x63\0\x0a"))
frame_row("unknown method 50/99", frame(1, 1, b"\0\x32\0\x63"))
frame_row("empty method frame", frame(1, 1, b""))
frame_row("heartbeat on channel 1", frame(8, 1, b""))
frame_row("heartbeat on a channel that is not open", frame(8, 7, b""))
frame_row("heartbeat with a payload", frame(8, 0, b"abc"))
frame_row("header without publish", header(1, 5))
frame_row("body without publish", frame(3, 1, b"abc"))
frame_row("header on a channel that is not open", header(5, 5))
frame_row("body on channel 0", frame(3, 0, b"abc"))
frame_row(
    "method between publish and header",
    method(1, "basic.publish", key="q"),
    method(1, "basic.qos", count=1),
)
frame_row(
    "publish between publish and header",
    method(1, "basic.publish", key="q"),
    method(1, "basic.publish", key="q"),
)
frame_row(
    "body between publish and header", method(1, "basic.publish", key="q"), frame(3, 1, b"abc")
)
frame_row(
    "method between header and body",
    method(1, "basic.publish", key="q"),
    header(1, 5),
    method(1, "basic.qos", count=1),
)
frame_row(
    "second header instead of a body",
    method(1, "basic.publish", key="q"),
    header(1, 5),
    header(1, 5),
)
frame_row(
    "content header of the wrong class",
    method(1, "basic.publish", key="q"),
    header(1, 5, class_id=50),
)
frame_row(
    "header with broken properties",
    method(1, "basic.publish", key="q"),
    frame(2, 1, struct.pack(">HHQH", 60, 0, 0, 0x8000) + b"\x20ab"),
)
frame_row(
    "header shorter than its fixed part",
    method(1, "basic.publish", key="q"),
    frame(2, 1, b"\0\x3c\0\0"),
)
frame_row(
    "header with a broken headers table",
    method(1, "basic.publish", key="q"),
    frame(2, 1, struct.pack(">HHQH", 60, 0, 0, 0x2000) + struct.pack(">I", 4) + b"\x01aZ\0"),
    method(1, "basic.get", queue="q"),
)
frame_row("channel.open twice", method(1, "channel.open"))
frame_row("method on a channel that is not open", method(9, "basic.qos", count=1))
frame_row(
    "publish on a channel that is not open", method(9, "basic.publish", key="q") + content(9, "a")
)
frame_row("channel.close on a channel that is not open", method(9, "channel.close"))
frame_row("queue.declare on channel 0", method(0, "queue.declare", queue="q"))
frame_row("channel.open on channel 0", method(0, "channel.open"))
frame_row("second connection.open", method(0, "connection.open", vhost="/"))
frame_row("second tune-ok", method(0, "connection.tune-ok", channel_max=1, frame_max=4096))
frame_row("connection method on channel 1", method(1, "connection.open", vhost="/"))
frame_row("basic.get-empty from a client", method(1, "basic.get-empty"))
frame_row(
    "basic.deliver from a client", method(1, "basic.deliver", tag="c", key="q") + content(1, "abc")
)
frame_row("queue.declare-ok from a client", method(1, "queue.declare-ok", queue="q"))
frame_row(
    "unknown table value type",
    frame(1, 1, method_payload("queue.declare", queue="d.f")[:-4] + b"\0\0\0\x04\x01aZ\0"),
)
frame_row(
    "table longer than its frame",
    frame(1, 1, method_payload("queue.declare", queue="d.f")[:-4] + b"\0\xff\0\0\x01at\x01"),
)


@row("2.2", "frames of frame_max octets are taken, one more is too large")
def _(p):
    c = p.open(frame_max=4096)
    c.declare("d.frame")
    for messages, extra in ((1, 0), (2, 8)):
        body = b"x" * (4096 - 8 + extra)
        c.raw(method(1, "basic.publish", key="d.frame") + header(1, len(body)) + frame(3, 1, body))
        c.await_count("d.frame", messages)
    body = b"x" * (4096 + 1)
    c.raw(method(1, "basic.publish", key="d.frame") + header(1, len(body)) + frame(3, 1, body))
    c.expect_end()


@row("2.2", "deliveries are cut to the negotiated frame_max")
def _(p):
    c = p.open(frame_max=4096)
    c.declare("d.cut")
    c.publish(1, "", "d.cut", b"y" * 10000, frame_max=4096)
    event = c.get("d.cut")
    p.note(f"body frames {event.sizes}")


@row("2.2", "body larger than its header said")
def _(p):
    c = p.open()
    c.declare("d.over")
    c.raw(method(1, "basic.publish", key="d.over") + header(1, 3) + frame(3, 1, b"abcdef"))
    if c.count("d.over").name == "queue.declare-ok":
        c.get("d.over")


@row("2.2", "body in many small frames, an empty one among them")
def _(p):
    c = p.open()
    c.declare("d.small")
    parts = b"".join(frame(3, 1, part) for part in (b"a", b"", b"bc", b"d"))
    c.raw(method(1, "basic.publish", key="d.small") + header(1, 4) + parts)
    c.get("d.small")


@row("2.2", "empty body without a body frame")
def _(p):
    c = p.open()
    c.declare("d.empty")
    c.publish(1, "", "d.empty", "")
    c.get("d.empty")


@row("2.2", "contents of two channels interleaved")
def _(p):
    c = p.open(channels=2)
    c.declare("d.mix")
    c.raw(method(1, "basic.publish", key="d.mix") + method(2, "basic.publish", key="d.mix"))
    c.raw(header(1, 3) + header(2, 3) + frame(3, 2, b"two"))
    c.call(2, "basic.qos", count=0)
    c.raw(frame(3, 1, b"one"))
    c.call(1, "basic.qos", count=0)
    c.get("d.mix")
    c.get("d.mix")


@row("2.2", "more channels than channel_max")
def _(p):
    c = p.open(channel_max=2, channels=2)
    c.send(3, "channel.open")
    c.expect_end()


@row("1.2", "a channel number above channel_max opens while the count allows it")
def _(p):
    c = p.open(channel_max=2, channels=1)
    c.call(50, "channel.open")


@row("2.2", "frames on a channel that the broker has closed are dropped until close-ok")
def _(p):
    c = p.open()
    c.raw(
        method(1, "queue.declare", queue="d.none", passive=True)
        + method(1, "queue.declare", queue="d.late")
        + method(1, "basic.publish", key="x")
        + content(1, "abc")
    )
    c.expect("channel.close")
    c.closed_channels.clear()
    c.call(1, "channel.open")
    c.call(1, "queue.declare", queue="d.late", passive=True)


@row("2.2", "a closed channel's number is used again")
def _(p):
    c = p.open()
    c.call(1, "channel.close", code=200, text="bye")
    c.call(1, "channel.open")
    c.call(1, "basic.qos", count=1)


@row("2.2", "stray channel.close-ok")
def _(p):
    c = p.open()
    c.send(1, "channel.close-ok")
    c.call(1, "basic.qos", expect="basic.qos-ok", count=1)


@row("2.2", "frames after connection.close are ignored")
def _(p):
    c = p.open()
    c.raw(
        method(0, "connection.close", code=200, text="bye")
        + method(1, "queue.declare", queue="d.late")
    )
    c.expect("connection.close-ok")
    d = p.open("next")
    d.call(1, "queue.declare", queue="d.late", passive=True)


@row("2.2", "table nested 30 deep")
def _(p):
    c = p.open()
    value = {"leaf": 1}
    for _ in range(30):
        value = {"n": value}
    c.declare("d.nest", exclusive=True, arguments={"x-nested": value})


@row("1.2", "channel.flow")
def _(p):
    c = p.open()
    c.call(1, "channel.flow", active=True)
    c.call(1, "channel.flow", active=False)
    c.expect_end()


@row("1.2", "access.request")
def _(p):
    c = p.open()
    c.call(1, "access.request", realm="/data", active=True, read=True)
