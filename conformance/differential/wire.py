"""AMQP 0-9-1 on a plain socket: frames out of Python values, and frames read back as lines of text.

Knows the wire and nothing of any broker. It sends whatever it is asked to, wrong frames included.
What a peer answers is written as one line an event, with what differs from run to run (generated
names, clock times) replaced by a placeholder, so that two brokers' answers compare as text.
"""

import re
import socket
import struct
import time

FRAME_METHOD, FRAME_HEADER, FRAME_BODY, FRAME_HEARTBEAT = 1, 2, 3, 8
FRAME_END = 0xCE
HEADER_0_9_1 = b"AMQP\x00\x00\x09\x01"
ANSWER_SECS_MAX = 10

# name: (class, method, fields). A field is name:type with the types o octet, h short, l long,
# q longlong, s short string, S long string, F table, b bit.
METHODS = {
    "connection.start": (10, 10, "major:o minor:o properties:F mechanisms:S locales:S"),
    "connection.start-ok": (10, 11, "properties:F mechanism:s response:S locale:s"),
    "connection.secure": (10, 20, "challenge:S"),
    "connection.secure-ok": (10, 21, "response:S"),
    "connection.tune": (10, 30, "channel_max:h frame_max:l heartbeat:h"),
    "connection.tune-ok": (10, 31, "channel_max:h frame_max:l heartbeat:h"),
    "connection.open": (10, 40, "vhost:s reserved1:s reserved2:b"),
    "connection.open-ok": (10, 41, "reserved1:s"),
    "connection.close": (10, 50, "code:h text:s class:h method:h"),
    "connection.close-ok": (10, 51, ""),
    "connection.blocked": (10, 60, "reason:s"),
    "connection.unblocked": (10, 61, ""),
    "connection.update-secret": (10, 70, "secret:S reason:s"),
    "connection.update-secret-ok": (10, 71, ""),
    "channel.open": (20, 10, "reserved1:s"),
    "channel.open-ok": (20, 11, "reserved1:S"),
    "channel.flow": (20, 20, "active:b"),
    "channel.flow-ok": (20, 21, "active:b"),
    "channel.close": (20, 40, "code:h text:s class:h method:h"),
    "channel.close-ok": (20, 41, ""),
    "access.request": (30, 10, "realm:s exclusive:b passive:b active:b write:b read:b"),
    "access.request-ok": (30, 11, "ticket:h"),
    "exchange.declare": (
        40,
        10,
        "ticket:h exchange:s type:s passive:b durable:b auto_delete:b internal:b nowait:b"
        " arguments:F",
    ),
    "exchange.declare-ok": (40, 11, ""),
    "exchange.delete": (40, 20, "ticket:h exchange:s if_unused:b nowait:b"),
    "exchange.delete-ok": (40, 21, ""),
    "exchange.bind": (40, 30, "ticket:h destination:s source:s key:s nowait:b arguments:F"),
    "exchange.bind-ok": (40, 31, ""),
    "exchange.unbind": (40, 40, "ticket:h destination:s source:s key:s nowait:b arguments:F"),
    "exchange.unbind-ok": (40, 51, ""),
    "queue.declare": (
        50,
        10,
        "ticket:h queue:s passive:b durable:b exclusive:b auto_delete:b nowait:b arguments:F",
    ),
    "queue.declare-ok": (50, 11, "queue:s messages:l consumers:l"),
    "queue.bind": (50, 20, "ticket:h queue:s exchange:s key:s nowait:b arguments:F"),
    "queue.bind-ok": (50, 21, ""),
    "queue.purge": (50, 30, "ticket:h queue:s nowait:b"),
    "queue.purge-ok": (50, 31, "messages:l"),
    "queue.delete": (50, 40, "ticket:h queue:s if_unused:b if_empty:b nowait:b"),
    "queue.delete-ok": (50, 41, "messages:l"),
    "queue.unbind": (50, 50, "ticket:h queue:s exchange:s key:s arguments:F"),
    "queue.unbind-ok": (50, 51, ""),
    "basic.qos": (60, 10, "size:l count:h global:b"),
    "basic.qos-ok": (60, 11, ""),
    "basic.consume": (
        60,
        20,
        "ticket:h queue:s tag:s no_local:b no_ack:b exclusive:b nowait:b arguments:F",
    ),
    "basic.consume-ok": (60, 21, "tag:s"),
    "basic.cancel": (60, 30, "tag:s nowait:b"),
    "basic.cancel-ok": (60, 31, "tag:s"),
    "basic.publish": (60, 40, "ticket:h exchange:s key:s mandatory:b immediate:b"),
    "basic.return": (60, 50, "code:h text:s exchange:s key:s"),
    "basic.deliver": (60, 60, "tag:s delivery:q redelivered:b exchange:s key:s"),
    "basic.get": (60, 70, "ticket:h queue:s no_ack:b"),
    "basic.get-ok": (60, 71, "delivery:q redelivered:b exchange:s key:s messages:l"),
    "basic.get-empty": (60, 72, "reserved1:s"),
    "basic.ack": (60, 80, "delivery:q multiple:b"),
    "basic.reject": (60, 90, "delivery:q requeue:b"),
    "basic.recover-async": (60, 100, "requeue:b"),
    "basic.recover": (60, 110, "requeue:b"),
    "basic.recover-ok": (60, 111, ""),
    "basic.nack": (60, 120, "delivery:q multiple:b requeue:b"),
    "confirm.select": (85, 10, "nowait:b"),
    "confirm.select-ok": (85, 11, ""),
    "tx.select": (90, 10, ""),
    "tx.select-ok": (90, 11, ""),
    "tx.commit": (90, 20, ""),
    "tx.commit-ok": (90, 21, ""),
    "tx.rollback": (90, 30, ""),
    "tx.rollback-ok": (90, 31, ""),
}
NAMES = {(row[0], row[1]): name for name, row in METHODS.items()}
FIELDS = {name: [pair.split(":") for pair in row[2].split()] for name, row in METHODS.items()}
WITH_CONTENT = ("basic.deliver", "basic.get-ok", "basic.return")
DEFAULTS = {"o": 0, "h": 0, "l": 0, "q": 0, "s": "", "S": b"", "F": {}, "b": False}

# In the order of their flag bits, from bit 15 down.
PROPERTIES = (
    ("content_type", "s"),
    ("content_encoding", "s"),
    ("headers", "F"),
    ("delivery_mode", "o"),
    ("priority", "o"),
    ("correlation_id", "s"),
    ("reply_to", "s"),
    ("expiration", "s"),
    ("message_id", "s"),
    ("timestamp", "q"),
    ("type", "s"),
    ("user_id", "s"),
    ("app_id", "s"),
    ("cluster_id", "s"),
)


class Typed:
    """A table value with its wire type named, where the Python type would not say it."""

    def __init__(self, kind, value):
        self.kind = kind
        self.value = value


class Pairs:
    """A table as a list of (name, value): keeps order and repeated names."""

    def __init__(self, *items):
        self.items = items


def short_string(value):
    value = value.encode() if isinstance(value, str) else value
    return struct.pack(">B", len(value)) + value


def long_string(value):
    value = value.encode() if isinstance(value, str) else value
    return struct.pack(">I", len(value)) + value


def table(value):
    items = value.items if isinstance(value, Pairs) else value.items()
    return long_string(b"".join(short_string(name) + table_value(each) for name, each in items))


NUMBERS = {
    "b": ">b",
    "B": ">B",
    "s": ">h",
    "u": ">H",
    "I": ">i",
    "i": ">I",
    "l": ">q",
    "L": ">q",
    "f": ">f",
    "d": ">d",
    "T": ">Q",
}


def table_value(value):
    if isinstance(value, Typed):
        kind, value = value.kind, value.value
    elif isinstance(value, bool):
        kind = "t"
    elif isinstance(value, int):
        kind = "I" if -(2**31) <= value < 2**31 else "l"
    elif isinstance(value, float):
        kind = "d"
    elif isinstance(value, (str, bytes)):
        kind = "S"
    elif isinstance(value, (dict, Pairs)):
        kind = "F"
    elif isinstance(value, list):
        kind = "A"
    else:
        kind = "V"
    if kind == "t":
        data = bytes([value])
    elif kind in NUMBERS:
        data = struct.pack(NUMBERS[kind], value)
    elif kind in "Sx":
        data = long_string(value)
    elif kind == "F":
        data = table(value)
    elif kind == "A":
        data = long_string(b"".join(map(table_value, value)))
    elif kind == "D":
        data = struct.pack(">Bi", *value)
    else:
        data = b""
    return kind.encode() + data


def encode_fields(fields, values):
    out, bits = [], None
    for name, kind in fields:
        value = values.pop(name, DEFAULTS[kind])
        if kind == "b":
            if bits is None or bits[1] == 8:
                bits = [0, 0]
                out.append(bits)
            bits[0] |= bool(value) << bits[1]
            bits[1] += 1
            continue
        bits = None
        if kind in "ohlq":
            out.append(struct.pack({"o": ">B", "h": ">H", "l": ">I", "q": ">Q"}[kind], value))
        else:
            out.append({"s": short_string, "S": long_string, "F": table}[kind](value))
    if values:
        raise TypeError(f"no such fields: {sorted(values)}")
    return b"".join(bytes([part[0]]) if isinstance(part, list) else part for part in out)


def frame(kind, channel, payload, end=FRAME_END):
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + bytes([end])


def method_payload(name, **values):
    row = METHODS[name]
    return struct.pack(">HH", row[0], row[1]) + encode_fields(FIELDS[name], values)


def method(channel, name, **values):
    return frame(FRAME_METHOD, channel, method_payload(name, **values))


def header(channel, body_bytes, class_id=60, **properties):
    flags, data = 0, b""
    for index, (name, kind) in enumerate(PROPERTIES):
        if name in properties:
            flags |= 1 << (15 - index)
            data += encode_fields([(name, kind)], {name: properties.pop(name)})
    if properties:
        raise TypeError(f"no such properties: {sorted(properties)}")
    return frame(FRAME_HEADER, channel, struct.pack(">HHQH", class_id, 0, body_bytes, flags) + data)


def content(channel, body, frame_max=131072, **properties):
    body = body.encode() if isinstance(body, str) else body
    step = frame_max - 8
    parts = [frame(FRAME_BODY, channel, body[at : at + step]) for at in range(0, len(body), step)]
    return header(channel, len(body), **properties) + b"".join(parts)


class Reader:
    """Takes wire values from the front of a payload, already as text where a person reads them."""

    def __init__(self, data):
        self.data = data
        self.at = 0

    def take(self, count):
        if self.at + count > len(self.data):
            raise ValueError("payload ends early")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, layout):
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def short_string(self):
        return self.take(self.number(">B")).decode(errors="backslashreplace")

    def long_string(self):
        return self.take(self.number(">I"))

    def table(self):
        inner, items = Reader(self.long_string()), []
        while inner.at < len(inner.data):
            name = inner.short_string()
            items.append((name, inner.table_value()))
        return items

    def table_value(self):
        kind = self.take(1).decode()
        if kind == "t":
            return Typed(kind, bool(self.number(">B")))
        if kind in NUMBERS:
            return Typed(kind, self.number(NUMBERS[kind]))
        if kind in "Sx":
            return Typed(kind, self.long_string())
        if kind == "F":
            return Typed(kind, self.table())
        if kind == "A":
            inner, items = Reader(self.long_string()), []
            while inner.at < len(inner.data):
                items.append(inner.table_value())
            return Typed(kind, items)
        if kind == "D":
            return Typed(kind, (self.number(">B"), self.number(">i")))
        if kind == "V":
            return Typed(kind, None)
        raise ValueError(f"table value of type {kind!r}")

    def fields(self, fields):
        values, bit = {}, None
        for name, kind in fields:
            if kind == "b":
                if bit is None or bit[1] == 8:
                    bit = [self.number(">B"), 0]
                values[name] = bool(bit[0] >> bit[1] & 1)
                bit[1] += 1
                continue
            bit = None
            if kind in "ohlq":
                values[name] = self.number({"o": ">B", "h": ">H", "l": ">I", "q": ">Q"}[kind])
            elif kind == "s":
                values[name] = self.short_string()
            elif kind == "S":
                values[name] = self.long_string()
            else:
                values[name] = self.table()
        return values


OPAQUE = (
    (re.compile(r"amq\.gen-[A-Za-z0-9_-]{22}"), "amq.gen-<22>"),
    (re.compile(r"amq\.ctag-[A-Za-z0-9_-]{22}"), "amq.ctag-<22>"),
    (re.compile(r"127\.0\.0\.1:\d+ -> 127\.0\.0\.1:\d+"), "<connection>"),
    (re.compile(r"amq\.rabbitmq\.reply-to\.[A-Za-z0-9_.+/=@-]+"), "amq.rabbitmq.reply-to.<opaque>"),
)


def normal(text):
    for pattern, placeholder in OPAQUE:
        text = pattern.sub(placeholder, text)
    return text


def quoted(value):
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return "0x" + value.hex()
    if len(value) > 300:
        return f"{value[:40]!r}... of {len(value)}"
    return repr(normal(value))


def shown(value):
    """A decoded table value as text, its wire type in front: l1 S'expired' A[..] F{..}."""
    kind, inner = value.kind, value.value
    if kind == "F":
        return "F" + shown_table(inner)
    if kind == "A":
        return "A[" + ", ".join(map(shown, inner)) + "]"
    if kind in "Sx":
        return kind + quoted(inner)
    if kind == "T" and abs(inner - time.time()) < 86400:
        return "T<now>"
    return f"{kind}{inner}"


def shown_table(items):
    parts = []
    for name, value in items:
        # A broker's own name for itself, in the headers of its trace.
        text = f"{value.kind}<node>" if name == "node" else shown(value)
        parts.append(f"{name}: {text}")
    return "{" + ", ".join(parts) + "}"


def shown_field(value):
    if isinstance(value, list):
        return shown_table(value)
    if isinstance(value, (str, bytes)):
        return quoted(value)
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


class Event:
    """One thing a peer did: a method with its content, a stray frame, or the end of the socket."""

    def __init__(self, name, channel=0, fields=None, properties=None, body=b"", sizes=()):
        self.name = name
        self.channel = channel
        self.fields = fields or {}
        self.properties = properties
        self.body = body
        self.sizes = list(sizes)

    def __getitem__(self, name):
        return self.fields[name]

    def header(self, name):
        for key, value in self.properties.get("headers", []):
            if key == name:
                return value.value
        return None

    def line(self):
        if self.name.endswith(".close"):
            return (
                f"{self.channel} {self.name} {self['code']} {quoted(self['text'])}"
                f" {self['class']}/{self['method']}"
            )
        parts = [f"{self.channel} {self.name}"] if self.fields or "." in self.name else [self.name]
        parts += [
            f"{name}={shown_field(value)}"
            for name, value in self.fields.items()
            if not name.startswith("reserved")
        ]
        if self.properties is not None:
            parts += [f"{name}:{shown_field(value)}" for name, value in self.properties.items()]
            parts.append(f"body {quoted(self.body)}")
        return " ".join(parts)


class Ended(Exception):
    """The row cannot go on: the channel or the socket it needs is gone, or an answer is missing."""


class Peer:
    """A client's socket. Every event that is read from it goes to `transcript` as a line."""

    def __init__(self, host, port, transcript, label=""):
        self.transcript = transcript
        self.label = label + ": " if label else ""
        self.socket = socket.create_connection((host, port), timeout=ANSWER_SECS_MAX)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.input = b""
        self.ended = False
        self.closed_channels = set()
        self.events = []

    def note(self, text):
        self.transcript.append(self.label + text)

    def raw(self, data):
        """Sends bytes as they are. A peer that has already hung up shows when it is read."""
        try:
            self.socket.sendall(data)
        except OSError:
            pass

    def send(self, channel, name, **values):
        if self.ended or channel in self.closed_channels:
            raise Ended(f"cannot send {name}: channel {channel} is closed")
        self.raw(method(channel, name, **values))

    def call(self, channel, name, expect=None, **values):
        """Sends a method and waits for its answer (`name` with -ok unless told)."""
        self.send(channel, name, **values)
        return self.expect(expect or name + "-ok")

    def publish(self, channel, exchange, key, body="", mandatory=False, immediate=False, **props):
        if self.ended or channel in self.closed_channels:
            raise Ended(f"cannot publish: channel {channel} is closed")
        self.raw(
            method(
                channel,
                "basic.publish",
                exchange=exchange,
                key=key,
                mandatory=mandatory,
                immediate=immediate,
            )
            + content(channel, body, **props)
        )

    def expect(self, *names, count=1, secs=ANSWER_SECS_MAX, silent=False):
        """Reads until the last of `count` events of these names; records all that comes before.

        A close of the channel or connection ends the wait as well: it is an answer.
        """
        deadline = time.monotonic() + secs
        while True:
            event = self.read(deadline)
            if event is None:
                raise Ended(f"{self.label}no {' or '.join(names)} came")
            if not silent:
                self.note(event.line())
            if event.name in names:
                count -= 1
                if count == 0:
                    return event
            if event.name in ("connection.close", "channel.close", "socket closed"):
                return event

    def unordered(self, count, secs=ANSWER_SECS_MAX):
        """Reads `count` events whose order is the broker's to choose, and records them sorted."""
        deadline = time.monotonic() + secs
        events = []
        while len(events) < count:
            event = self.read(deadline)
            if event is None:
                break
            events.append(event)
            if event.name in ("connection.close", "channel.close", "socket closed"):
                break
        for line in sorted(event.line() for event in events):
            self.note(line)
        if len(events) < count:
            raise Ended(f"{self.label}only {len(events)} of {count} events came")
        return events

    def quiet(self, secs=0.5):
        """Records that nothing comes for a while, or what comes."""
        event = self.read(time.monotonic() + secs)
        if event is None:
            self.note("silence")
            return None
        self.note(event.line())
        return event

    def expect_end(self, secs=ANSWER_SECS_MAX):
        """Records everything up to the end of the socket. A reset and an end are alike."""
        return self.expect("socket closed", secs=secs)

    def fill(self, deadline):
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        self.socket.settimeout(left)
        try:
            data = self.socket.recv(1 << 20)
        except TimeoutError:
            return False
        except OSError:
            data = b""
        if not data:
            self.ended = True
            return False
        self.input += data
        return True

    def read_frame(self, deadline):
        while True:
            if len(self.input) >= 8 and self.input[:4] == b"AMQP":
                data, self.input = self.input[:8], self.input[8:]
                return None, 0, data
            if len(self.input) >= 7:
                kind, channel, size = struct.unpack(">BHI", self.input[:7])
                if len(self.input) >= size + 8:
                    payload, end = self.input[7 : 7 + size], self.input[7 + size]
                    self.input = self.input[size + 8 :]
                    if end != FRAME_END:
                        raise ValueError(f"frame ends in {end:#x}")
                    return kind, channel, payload
            if self.ended or not self.fill(deadline):
                return None

    def read(self, deadline):
        """The next event; None when the deadline passes first. Heartbeats are not events."""
        while True:
            if self.events:
                return self.events.pop(0)
            got = self.read_frame(deadline)
            if got is None:
                if not self.ended:
                    return None
                self.socket.close()
                return Event("socket closed")
            kind, channel, payload = got
            if kind is None:
                return Event(f"protocol header {payload[4:].hex(' ')}")
            if kind == FRAME_HEARTBEAT:
                continue
            if kind != FRAME_METHOD:
                return Event(f"stray frame of type {kind} on channel {channel}")
            return self.method_event(channel, payload, deadline)

    def method_event(self, channel, payload, deadline):
        reader = Reader(payload)
        name = NAMES.get((reader.number(">H"), reader.number(">H")))
        if name is None:
            return Event(f"unknown method {payload[:4].hex()}")
        event = Event(name, channel, reader.fields(FIELDS[name]))
        if reader.at != len(payload):
            event.fields["trailing_bytes"] = len(payload) - reader.at
        if name in WITH_CONTENT:
            self.read_content(event, deadline)
        elif name == "connection.close":
            self.raw(method(0, "connection.close-ok"))
        elif name == "channel.close":
            self.raw(method(channel, "channel.close-ok"))
            self.closed_channels.add(channel)
        return event

    def read_content(self, event, deadline):
        kind, channel, payload = self.content_frame(event, deadline)
        if kind != FRAME_HEADER or channel != event.channel:
            raise ValueError(f"frame of type {kind} on channel {channel} where a header belongs")
        reader = Reader(payload)
        reader.number(">H")
        reader.number(">H")
        body_bytes = reader.number(">Q")
        flags = reader.number(">H")
        fields = [row for bit, row in enumerate(PROPERTIES) if flags >> (15 - bit) & 1]
        event.properties = reader.fields(fields)
        while len(event.body) < body_bytes:
            kind, channel, payload = self.content_frame(event, deadline)
            if kind != FRAME_BODY or channel != event.channel:
                raise ValueError(f"frame of type {kind} on channel {channel} where a body belongs")
            event.body += payload
            event.sizes.append(len(payload))

    def content_frame(self, event, deadline):
        """The next frame of a message; frames of other channels may come between."""
        while True:
            got = self.read_frame(max(deadline, time.monotonic() + 2))
            if got is None:
                raise ValueError(f"{event.name} without the whole of its content")
            kind, channel, payload = got
            if kind == FRAME_HEARTBEAT:
                continue
            if kind == FRAME_METHOD and channel != event.channel:
                self.events.append(self.method_event(channel, payload, deadline))
                continue
            return got

    def close(self):
        self.socket.close()
