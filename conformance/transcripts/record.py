#!/usr/bin/env python3
"""Writes conversations.json: what RabbitMQ 3.10.8 and a client say to each other, row by row.

Runs the rows of conformance/differential against a node of its own and keeps every octet that the
client sends, with its time, and every event that it reads, as a line of text. The transcript tests
repeat the client's part on a session without a socket, in virtual time.

A step is one of
    ["open", connection, ms]                      a connection is made
    ["send", connection, ms, hex]                 the client sends (a number: see "often sent")
    ["read", connection, ms, line, names]         the client has read; `names` are those made up by
                                                  the broker that stand in the line
    ["any", connection, ms, [[line, names], ..]]  the client has read these in any order
    ["quiet", connection, ms]                     the client has waited until here and read nothing
    ["close", connection, ms]                     the client hangs up
"""

import collections
import functools
import json
import pathlib
import re
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = sys.argv[1:] or [str(HERE.parent / "differential"), str(HERE.parent / "clients")]

import brokers  # noqa: E402
import frames  # noqa: E402
import probe  # noqa: E402
import wire  # noqa: E402

steps, start, connections, unordered = [], 0.0, {}, None
kept = []  # peers, so that no two of a row have one identity
NAMES = re.compile(
    r"amq\.gen-[A-Za-z0-9_-]{22}|amq\.ctag-[A-Za-z0-9_-]{22}"
    r"|amq\.rabbitmq\.reply-to\.[A-Za-z0-9_.+/=@-]+"
)


def step(kind, peer, *more):
    if steps is not None:
        at = int((time.monotonic() - start) * 1000)
        steps.append([kind, connections.setdefault(id(peer), len(connections)), at, *more])


def names_in(event):
    found = []

    def look(value):
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        if isinstance(value, str):
            found.extend(NAMES.findall(value))
        elif isinstance(value, wire.Typed):
            look(value.value)
        elif isinstance(value, (list, tuple)):
            for each in value:
                look(each)

    for value in [*event.fields.values(), *(event.properties or {}).values(), event.body]:
        look(value)
    return found


def hook(cls, name):
    original = getattr(cls, name)

    def register(function):
        setattr(cls, name, lambda self, *a, **k: function(original, self, *a, **k))

    return register


@hook(wire.Peer, "__init__")
def _(original, self, *a, **k):
    original(self, *a, **k)
    kept.append(self)
    step("open", self)


@hook(wire.Peer, "raw")
def _(original, self, data):
    step("send", self, data.hex())
    original(self, data)


@hook(wire.Peer, "read")
def _(original, self, deadline):
    event = original(self, deadline)
    if event is None:
        step("quiet", self)
    elif unordered is not None:
        unordered.append([event.line(), names_in(event)])
    else:
        step("read", self, event.line(), names_in(event))
    return event


@hook(wire.Peer, "unordered")
def _(original, self, *a, **k):
    global unordered
    unordered = []
    try:
        return original(self, *a, **k)
    finally:
        step("any", self, unordered)
        unordered = None


@hook(wire.Peer, "close")
def _(original, self):
    step("close", self)
    original(self)


@hook(probe.Probe, "clean")
def _(original, self):
    global steps
    saved, steps = steps, None
    original(self)
    steps = saved


def main():
    global steps, start, connections
    conversations = {}
    definitions = pathlib.Path(frames.__file__).parent / "definitions.json"
    with brokers.running("rabbitmq", definitions=definitions) as broker:
        for name in frames.ROWS:
            if name in frames.ROWS_WITH_CTL:
                continue
            steps, start, connections = [], time.monotonic(), {}
            kept.clear()
            probe.run_row(name, broker.host, broker.port, None)
            conversations[name] = steps
            print(name, len(steps), file=sys.stderr, flush=True)
    write(conversations)


ROW_BYTES_MAX = 64 * 1024


def write(conversations):
    """Leaves out rows with huge bodies, and writes what many rows send only once."""
    rows = {n: s for n, s in conversations.items() if len(json.dumps(s)) <= ROW_BYTES_MAX}
    sent = collections.Counter(each[3] for row in rows.values() for each in row if each[0] == "send")
    often = [octets for octets, count in sent.most_common() if count >= 4 and len(octets) > 40]
    place = {octets: at for at, octets in enumerate(often)}
    for row in rows.values():
        for each in row:
            if each[0] == "send":
                each[3] = place.get(each[3], each[3])
            elif each[0] == "read":
                if " connection.start " in each[3]:
                    each[3] = "0 connection.start"
                if not each[4]:
                    each.pop()
    with open(HERE / "conversations.json", "w") as out:
        text = functools.partial(json.dumps, separators=(",", ":"), ensure_ascii=False)
        lines = [f'"often sent":{text(often)}'] + [f"{text(n)}:{text(s)}" for n, s in rows.items()]
        out.write("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
