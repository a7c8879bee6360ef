"""Rows of the handshake: headers, login, tuning, vhosts, heartbeats (sections 1.1, 2.1)."""

import time

import wire
from probe import CAPABILITIES, row
from wire import Typed, method, shown

KNOWN_PROPERTIES = (
    "capabilities",
    "cluster_name",
    "copyright",
    "information",
    "platform",
    "product",
    "version",
)


def header_row(title, data):
    @row("2.1", f"protocol header: {title}")
    def _(p):
        c = p.bare()
        c.raw(data)
        c.expect_end()


header_row("GET / HTTP", b"GET / HTTP/1.1\r\n\r\n")
header_row("AMQP 1.0", b"AMQP\x00\x01\x00\x00")
header_row("AMQP 1.0 with SASL", b"AMQP\x03\x01\x00\x00")
header_row("AMQP 0-0-9-2", b"AMQP\x00\x00\x09\x02")
header_row("TLS ClientHello", bytes.fromhex("16030100a5010000a10303") + b"\0" * 32)


@row("1.1", "Connection.Start")
def _(p):
    c = p.bare()
    c.raw(wire.HEADER_0_9_1)
    event = c.expect("connection.start", silent=True)
    p.note(f"version {event['major']}-{event['minor']}")
    properties = dict(event["properties"])
    for name in KNOWN_PROPERTIES:
        if name not in properties:
            p.note(f"{name} is missing")
        elif name == "capabilities":
            for key, value in sorted(properties[name].value):
                p.note(f"capability {key}: {shown(value)}")
        elif name == "product":
            p.note(f"product {shown(properties[name])}")
        else:
            p.note(f"{name} of type {properties[name].kind}")
    mechanisms = sorted(event["mechanisms"].decode().split())
    p.note(f"mechanisms {' '.join(mechanisms)}; locales {event['locales'].decode()}")


for _title, _header in (("1 1 0 9", b"AMQP\x01\x01\x00\x09"), ("1 1 8 0", b"AMQP\x01\x01\x08\x00")):

    @row("1.1", f"protocol header {_title} is taken as an early dialect")
    def _(p, data=_header):
        c = p.bare()
        c.raw(data)
        event = c.expect("connection.start", silent=True)
        p.note(f"{event.name} {event.fields.get('major')}-{event.fields.get('minor')}")


@row("1.1", "Tune, Open-Ok, Close-Ok")
def _(p):
    c = p.bare()
    c.start()
    c.login()
    c.expect("connection.tune")
    c.tune_ok()
    c.call(0, "connection.open", vhost="/")
    c.call(1, "channel.open")
    c.call(1, "channel.close")
    c.call(0, "connection.close", code=200, text="bye")


@row("1.1", "after close-ok the broker leaves it to the client to end the socket")
def _(p):
    # A client may still have acks in its buffers: a broker that hung up would reset them.
    c = p.open()
    c.call(0, "connection.close", code=200, text="bye")
    c.raw(method(1, "basic.ack", delivery=0, multiple=True))
    c.quiet(1)
    c.raw(method(1, "basic.ack", delivery=0, multiple=True))
    c.quiet(0.2)


@row("1.1", "a handshake that arrives octet by octet")
def _(p):
    c = p.bare()
    data = wire.HEADER_0_9_1
    for at in range(len(data)):
        c.raw(data[at : at + 1])
    c.expect("connection.start", silent=True)
    data = method(
        0,
        "connection.start-ok",
        properties={},
        mechanism="PLAIN",
        response="\0guest\0guest",
        locale="en_US",
    )
    for at in range(len(data)):
        c.raw(data[at : at + 1])
    c.expect("connection.tune")


def login_row(title, mechanism, response, capabilities=CAPABILITIES):
    @row("2.1", f"login: {title}")
    def _(p):
        c = p.bare()
        c.start()
        c.raw(
            method(
                0,
                "connection.start-ok",
                properties={"capabilities": capabilities},
                mechanism=mechanism,
                response=response,
                locale="en_US",
            )
        )
        if c.expect("connection.tune").name == "connection.close":
            c.expect_end()


AMQPLAIN = wire.table({"LOGIN": "guest", "PASSWORD": "guest"})[4:]
AMQPLAIN_BAD = wire.table({"LOGIN": "guest", "PASSWORD": "wrong"})[4:]
login_row("PLAIN", "PLAIN", "\0guest\0guest")
login_row("PLAIN with an authorisation identity", "PLAIN", "guest\0guest\0guest")
login_row("AMQPLAIN", "AMQPLAIN", AMQPLAIN)
login_row("AMQPLAIN, wrong password", "AMQPLAIN", AMQPLAIN_BAD)
login_row("AMQPLAIN without LOGIN", "AMQPLAIN", wire.table({"PASSWORD": "guest"})[4:])
login_row("wrong password", "PLAIN", "\0guest\0wrong")
login_row("unknown user", "PLAIN", "\0nobody\0wrong")
login_row("wrong password, no authentication_failure_close", "PLAIN", "\0guest\0wrong", {})
login_row("mechanism FOO", "FOO", "")
login_row("mechanism EXTERNAL", "EXTERNAL", "")
login_row("mechanism ANONYMOUS", "ANONYMOUS", "")
login_row("malformed PLAIN", "PLAIN", "guest")
login_row("empty PLAIN", "PLAIN", "")


def open_row(title, vhost, user="guest", connections=1):
    @row("2.1", f"open: {title}")
    def _(p):
        opened = []
        for number in range(1, connections + 1):
            c = p.bare(str(number) if connections > 1 else "")
            c.start()
            c.login(user=user, password=user)
            if c.expect("connection.tune", silent=True).name != "connection.tune":
                p.note("login failed")
                return
            c.tune_ok()
            c.raw(method(0, "connection.open", vhost=vhost))
            if c.expect("connection.open-ok").name == "connection.close":
                c.expect_end()
            else:
                opened.append(c)
        # Another row counts this user's connections: they are gone when close-ok is there.
        for c in opened:
            c.raw(method(0, "connection.close", code=200, text="bye"))
            c.expect("connection.close-ok", silent=True)


open_row("vhost missing", "nope")
open_row("vhost with an empty name", "")
open_row("user without permissions", "/", "d.none")
open_row("vhost connection limit", "d.conn")
open_row("user connection limit", "/", "d.lim", 2)


@row("1.1", "user channel limit")
def _(p):
    c = p.open(user="d.lim", password="d.lim")
    c.send(2, "channel.open")
    c.expect("channel.open-ok")


@row("1.1", "vhost queue limit")
def _(p):
    c = p.open(vhost="d.queues")
    c.declare("d.limit.1", exclusive=True)
    c.declare("d.limit.2", exclusive=True)


def tune_row(title, **values):
    @row("2.1", f"tune-ok: {title}")
    def _(p):
        c = p.bare()
        c.start()
        c.login()
        c.expect("connection.tune", silent=True)
        c.tune_ok(**values)
        c.raw(method(0, "connection.open", vhost="/"))
        if c.expect("connection.open-ok").name == "connection.close":
            c.expect_end()


tune_row("channel_max above the server's", channel_max=4000)
tune_row("channel_max 0", channel_max=0)
tune_row("channel_max 1", channel_max=1)
tune_row("frame_max above the server's", frame_max=200000)
tune_row("frame_max 0", frame_max=0)
tune_row("frame_max 4095", frame_max=4095)
tune_row("frame_max 4096", frame_max=4096)
tune_row("heartbeat above the server's", heartbeat=600)


@row("2.1", "open before tune-ok")
def _(p):
    c = p.bare()
    c.start()
    c.login()
    c.expect("connection.tune", silent=True)
    c.raw(method(0, "connection.open", vhost="/"))
    c.expect_end()


@row("2.1", "channel.open before connection.open")
def _(p):
    c = p.bare()
    c.start()
    c.login()
    c.expect("connection.tune", silent=True)
    c.tune_ok()
    c.raw(method(1, "channel.open"))
    c.expect_end()


@row("2.1", "frame larger than 4096 before login")
def _(p):
    c = p.bare()
    c.start()
    c.raw(wire.frame(1, 0, b"\0" * 200000))
    c.expect_end()


@row("2.1", "client closes during the handshake")
def _(p):
    c = p.bare()
    c.start()
    c.raw(method(0, "connection.close", code=200, text="no"))
    c.expect_end()


@row("1.1", "heartbeats are sent, and a silent client is cut off")
def _(p):
    c = p.bare()
    c.handshake(heartbeat=1)
    beats, deadline = 0, time.monotonic() + 15
    while True:
        got = c.read_frame(deadline)
        if got is None:
            break
        beats += got[0] == wire.FRAME_HEARTBEAT
    p.note(f"heartbeats {'seen' if beats else 'missing'}; socket {'closed' if c.ended else 'open'}")


@row("1.1", "a client that sends heartbeats stays connected")
def _(p):
    c = p.bare()
    c.handshake(heartbeat=1)
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline and not c.ended:
        c.raw(wire.frame(8, 0, b""))
        c.read_frame(min(deadline, time.monotonic() + 0.4))
    p.note("closed" if c.ended else "open")


@row("1.1", "connection.update_secret")
def _(p):
    c = p.open()
    c.call(0, "connection.update-secret", secret="guest", reason="new")


@row("1.1", "odd client properties and a long locale")
def _(p):
    c = p.bare()
    c.start()
    c.login(
        properties={
            "connection_name": "named",
            "nested": {"a": [1, Typed("V", None), {"b": 2.5}]},
            "decimal": Typed("D", (2, 314)),
            "octets": Typed("x", b"\0\xff"),
        }
    )
    c.expect("connection.tune")


@row("2.1", "start-ok with a broken table")
def _(p):
    c = p.bare()
    c.start()
    c.raw(
        wire.frame(1, 0, b"\0\x0a\0\x0b" + b"\0\0\0\x05" + b"\x01aZ\0\0" + b"\x05PLAIN" + b"\0" * 8)
    )
    c.expect_end()
