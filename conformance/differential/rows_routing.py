"""Rows of exchanges: where a message goes and what it looks like there (section 1.3)."""

from probe import row
from wire import Pairs, Typed


def queues(c, *names):
    for name in names:
        c.declare(name)


def routed(c, exchange, key, *names, **options):
    """Publishes one mandatory message, then records which of the queues have it."""
    c.publish(1, exchange, key, f"to {key}", mandatory=True, **options)
    c.call(1, "basic.qos")
    for name in names:
        c.get(name)


def topic_row(pattern, *keys):
    @row("1.3", f"topic {pattern!r}")
    def _(p):
        c = p.open()
        c.exchange("d.top", "topic")
        queues(c, "d.q")
        c.bind("d.q", "d.top", pattern)
        for key in keys:
            c.publish(1, "d.top", key, mandatory=True)
            c.send(1, "basic.qos")
            event = c.expect("basic.return", "basic.qos-ok", silent=True)
            if event.name == "basic.return":
                c.expect("basic.qos-ok", silent=True)
            p.note(f"{key!r} {'matches' if event.name == 'basic.qos-ok' else event.name}")
        c.count("d.q")


KEYS = ("", "a", "a.b", "a.b.c", ".", "a.", ".a", "a..b", "b", "a.b.a.b", "*", "#")
for _pattern in (
    "",
    "a",
    "*",
    "#",
    "a.*",
    "a.#",
    "#.b",
    "*.b",
    "#.#",
    "*.*",
    "a.*.c",
    "#.a.#",
    "a.#.b",
    "*.#",
    ".",
    "a..b",
    "a.*.",
    "#.*",
    "a*",
):
    topic_row(_pattern, *KEYS)


@row("1.3", "two matching bindings deliver once")
def _(p):
    c = p.open()
    c.exchange("d.top", "topic")
    queues(c, "d.q")
    c.bind("d.q", "d.top", "a.*")
    c.bind("d.q", "d.top", "#")
    c.bind("d.q", "d.top", "a.*")
    routed(c, "d.top", "a.b", "d.q", "d.q")


@row("1.3", "direct, fanout and unbinding")
def _(p):
    c = p.open()
    queues(c, "d.q", "d.q2")
    c.exchange("d.dir", "direct")
    c.exchange("d.fan", "fanout")
    c.bind("d.q", "d.dir", "k")
    c.bind("d.q2", "d.dir", "k")
    c.bind("d.q", "d.fan", "ignored")
    routed(c, "d.dir", "k", "d.q", "d.q2")
    routed(c, "d.dir", "K", "d.q")
    routed(c, "d.fan", "", "d.q")
    c.call(1, "queue.unbind", queue="d.q", exchange="d.dir", key="k")
    c.call(1, "queue.unbind", queue="d.q", exchange="d.dir", key="k")
    routed(c, "d.dir", "k", "d.q", "d.q2")


@row("1.3", "bindings that differ in arguments are two")
def _(p):
    c = p.open()
    queues(c, "d.q")
    c.exchange("d.dir", "direct")
    c.bind("d.q", "d.dir", "k", {"a": 1})
    c.bind("d.q", "d.dir", "k", {"a": 2})
    c.call(1, "queue.unbind", queue="d.q", exchange="d.dir", key="k", arguments={"a": 1})
    routed(c, "d.dir", "k", "d.q", "d.q")
    c.call(1, "queue.unbind", queue="d.q", exchange="d.dir", key="k")
    routed(c, "d.dir", "k", "d.q")


def headers_row(title, arguments, *messages):
    @row("1.3", f"headers: {title}")
    def _(p):
        c = p.open()
        c.exchange("d.head", "headers")
        queues(c, "d.q")
        c.bind("d.q", "d.head", "", arguments)
        for headers in messages:
            options = {} if headers is None else {"headers": headers}
            routed(c, "d.head", "", "d.q", **options)


headers_row(
    "all by default",
    {"a": 1, "b": "x"},
    {"a": 1, "b": "x"},
    {"a": 1},
    {"a": 1, "b": "x", "c": 0},
    None,
)
headers_row("all", {"x-match": "all", "a": 1}, {"a": 1}, {"a": 2}, {"a": "1"}, {})
headers_row("any", {"x-match": "any", "a": 1, "b": 2}, {"a": 1}, {"b": 2}, {"c": 1}, {}, None)
headers_row(
    "all ignores x- headers", {"x-match": "all", "a": 1, "x-b": 2}, {"a": 1}, {"a": 1, "x-b": 3}
)
headers_row("all-with-x", {"x-match": "all-with-x", "a": 1, "x-b": 2}, {"a": 1}, {"a": 1, "x-b": 2})
headers_row("any-with-x", {"x-match": "any-with-x", "x-b": 2}, {"a": 1}, {"x-b": 2})
headers_row("any ignores x- headers", {"x-match": "any", "x-b": 2}, {"x-b": 2})
headers_row("no arguments", {}, {"a": 1}, None)
headers_row("any without further arguments", {"x-match": "any"}, {"a": 1}, None)
headers_row("void matches any value", {"a": None}, {"a": 1}, {"a": None}, {"b": 1})
headers_row(
    "integers of another width", {"a": 1}, {"a": Typed("l", 1)}, {"a": Typed("b", 1)}, {"a": 1.0}
)
headers_row("text as longstr and octets", {"a": "x"}, {"a": Typed("x", b"x")})
headers_row(
    "bool, float, table and array",
    {"t": True, "d": 1.5, "F": {"k": 1}, "A": [1, "a"]},
    {"t": True, "d": 1.5, "F": {"k": 1}, "A": [1, "a"]},
    {"t": True, "d": 1.5, "F": {"k": 2}, "A": [1, "a"]},
)


@row("1.3", "headers: amq.match is amq.headers")
def _(p):
    c = p.open()
    queues(c, "d.q")
    c.bind("d.q", "amq.match", "", {"a": 1})
    routed(c, "amq.match", "", "d.q", headers={"a": 1})


@row("1.3", "alternate exchange counts as routed and keeps exchange and key")
def _(p):
    c = p.open()
    c.exchange("d.alt", "fanout")
    c.exchange("d.main", "direct", {"alternate-exchange": "d.alt"})
    queues(c, "d.q")
    c.bind("d.q", "d.alt")
    routed(c, "d.main", "k", "d.q")


@row("1.3", "alternate exchange by policy")
def _(p):
    c = p.open()
    c.exchange("d.aepol.x", "direct")
    queues(c, "d.q")
    c.bind("d.q", "amq.fanout")
    routed(c, "d.aepol.x", "k", "d.q")


@row("1.3", "alternate exchange that is missing: the message is returned")
def _(p):
    c = p.open()
    c.exchange("d.main", "direct", {"alternate-exchange": "d.none"})
    routed(c, "d.main", "k")


@row("1.3", "alternate exchanges in a cycle")
def _(p):
    c = p.open()
    c.exchange("d.one", "direct", {"alternate-exchange": "d.two"})
    c.exchange("d.two", "direct", {"alternate-exchange": "d.one"})
    routed(c, "d.one", "k")


@row("1.3", "exchange-to-exchange bindings, a cycle among them")
def _(p):
    c = p.open()
    c.exchange("d.one", "fanout")
    c.exchange("d.two", "topic")
    queues(c, "d.q")
    c.call(1, "exchange.bind", destination="d.two", source="d.one", key="")
    c.call(1, "exchange.bind", destination="d.one", source="d.two", key="a.#")
    c.bind("d.q", "d.two", "a.*")
    routed(c, "d.one", "a.b", "d.q", "d.q")
    c.call(1, "exchange.unbind", destination="d.two", source="d.one", key="")
    routed(c, "d.one", "a.b", "d.q")


@row("1.3", "auto-delete exchange goes with its last binding as a source")
def _(p):
    c = p.open()
    c.exchange("d.auto", "direct", auto_delete=True)
    queues(c, "d.q")
    c.bind("d.q", "d.auto", "1")
    c.bind("d.q", "d.auto", "2")
    c.call(1, "queue.unbind", queue="d.q", exchange="d.auto", key="1")
    c.exchange("d.auto", "direct", passive=True)
    c.call(1, "queue.unbind", queue="d.q", exchange="d.auto", key="2")
    c.exchange("d.auto", "direct", passive=True)


@row("1.3", "auto-delete exchange goes when its bound queue is deleted")
def _(p):
    c = p.open()
    c.exchange("d.auto", "direct", auto_delete=True)
    queues(c, "d.q")
    c.bind("d.q", "d.auto", "1")
    c.call(1, "queue.delete", queue="d.q")
    c.exchange("d.auto", "direct", passive=True)


@row("1.3", "deleting an exchange removes its bindings")
def _(p):
    c = p.open()
    c.exchange("d.ex", "direct")
    queues(c, "d.q")
    c.bind("d.q", "d.ex", "k")
    c.call(1, "exchange.delete", exchange="d.ex")
    c.exchange("d.ex", "direct")
    routed(c, "d.ex", "k", "d.q")


@row("1.3", "internal exchange passes on what is bound to it")
def _(p):
    c = p.open()
    c.exchange("d.int", "fanout", internal=True)
    c.exchange("d.ex", "fanout")
    queues(c, "d.q")
    c.call(1, "exchange.bind", destination="d.int", source="d.ex")
    c.bind("d.q", "d.int")
    routed(c, "d.ex", "", "d.q")


@row("1.2", "CC and BCC: routed, BCC removed, the key kept")
def _(p):
    c = p.open()
    queues(c, "d.q", "d.cc", "d.bcc")
    routed(
        c,
        "",
        "d.q",
        "d.q",
        "d.cc",
        "d.bcc",
        headers={"CC": ["d.cc", "d.none"], "BCC": ["d.bcc"], "z": 1},
    )


@row("1.2", "CC routes though the key does not")
def _(p):
    c = p.open()
    queues(c, "d.cc")
    routed(c, "", "d.none", "d.cc", headers={"CC": ["d.cc"]})


@row("1.2", "CC naming the key's own queue delivers once")
def _(p):
    c = p.open()
    queues(c, "d.q")
    routed(c, "", "d.q", "d.q", "d.q", headers={"CC": ["d.q", "d.q"]})


@row("1.2", "CC with a topic exchange")
def _(p):
    c = p.open()
    queues(c, "d.q")
    c.bind("d.q", "amq.topic", "x.*")
    routed(c, "amq.topic", "no", "d.q", headers={"CC": ["x.y"]})


@row("1.2", "BCC is removed from a returned message as well")
def _(p):
    c = p.open()
    routed(c, "", "d.none", headers={"BCC": ["d.none2"], "CC": ["d.none3"]})


@row("1.2", "header tables pass through with order, repeats and every type")
def _(p):
    c = p.open()
    queues(c, "d.q")
    headers = Pairs(
        ("z", 1),
        ("a", Typed("s", -2)),
        ("z", 3),
        ("b", Typed("b", -4)),
        ("B", Typed("B", 200)),
        ("u", Typed("u", 65535)),
        ("i", Typed("i", 4294967295)),
        ("l", Typed("l", -(2**40))),
        ("f", Typed("f", 1.5)),
        ("d", 2.25),
        ("D", Typed("D", (2, 314))),
        ("S", b"\xff\x00"),
        ("x", Typed("x", b"\x00\xff")),
        ("t", True),
        ("T", Typed("T", 1)),
        ("V", None),
        ("A", [1, [2, "three"], {"four": 4}]),
        ("F", {"nested": {"deep": []}}),
        ("", "empty name"),
        ("é", "ü"),
    )
    routed(c, "", "d.q", "d.q", headers=headers)


def plugin_exchange_row(title, kind, arguments=None, **flags):
    @row("1.3", title)
    def _(p):
        c = p.open()
        c.exchange("d.plug", kind, arguments, **flags)


plugin_exchange_row("x-consistent-hash declared", "x-consistent-hash")
plugin_exchange_row("x-consistent-hash with hash-header", "x-consistent-hash", {"hash-header": "h"})
plugin_exchange_row(
    "x-consistent-hash with hash-property", "x-consistent-hash", {"hash-property": "message_id"}
)
plugin_exchange_row(
    "x-consistent-hash with an unknown hash-property", "x-consistent-hash", {"hash-property": "zzz"}
)
plugin_exchange_row(
    "x-consistent-hash with both",
    "x-consistent-hash",
    {"hash-property": "message_id", "hash-header": "h"},
)
plugin_exchange_row("x-random declared", "x-random")
plugin_exchange_row("x-modulus-hash declared", "x-modulus-hash")
plugin_exchange_row("x-recent-history declared", "x-recent-history")
plugin_exchange_row(
    "x-recent-history with a length", "x-recent-history", {"x-recent-history-length": 2}
)
plugin_exchange_row(
    "x-recent-history with a length of 0", "x-recent-history", {"x-recent-history-length": 0}
)
plugin_exchange_row(
    "x-recent-history with a length of a wrong type",
    "x-recent-history",
    {"x-recent-history-length": "a"},
)


@row("1.3", "x-consistent-hash: a binding key that is no number")
def _(p):
    c = p.open()
    c.exchange("d.hash", "x-consistent-hash")
    queues(c, "d.q")
    c.bind("d.q", "d.hash", "abc")


@row("1.3", "x-consistent-hash: a weight of 0")
def _(p):
    c = p.open()
    c.exchange("d.hash", "x-consistent-hash")
    queues(c, "d.q")
    c.bind("d.q", "d.hash", "0")


@row("1.3", "x-consistent-hash: one key goes to one queue, and all messages arrive")
def _(p):
    c = p.open()
    c.exchange("d.hash", "x-consistent-hash")
    queues(c, "d.q", "d.q2")
    c.bind("d.q", "d.hash", "1")
    c.bind("d.q2", "d.hash", "1")
    for _ in range(10):
        c.publish(1, "d.hash", "same", "m")
    c.call(1, "basic.qos")
    counts = []
    for name in ("d.q", "d.q2"):
        c.send(1, "queue.declare", queue=name, passive=True)
        counts.append(c.expect("queue.declare-ok", silent=True)["messages"])
    p.note(f"counts {sorted(counts)}")
    for number in range(90):
        c.publish(1, "d.hash", f"key {number}", "m")
    c.call(1, "basic.qos")
    counts = []
    for name in ("d.q", "d.q2"):
        c.send(1, "queue.declare", queue=name, passive=True)
        counts.append(c.expect("queue.declare-ok", silent=True)["messages"])
    p.note(f"sum {sum(counts)}, both used: {min(counts) > 10}")


@row("1.3", "x-recent-history: a queue that binds late gets the last messages")
def _(p):
    c = p.open()
    c.exchange("d.hist", "x-recent-history", {"x-recent-history-length": 2})
    queues(c, "d.q")
    for number in range(3):
        c.publish(1, "d.hist", "k", f"m{number}")
    c.call(1, "basic.qos")
    c.bind("d.q", "d.hist", "")
    c.await_count("d.q", 2)
    c.get("d.q")
    c.get("d.q")


@row("1.3", "x-random: each message goes to one queue")
def _(p):
    c = p.open()
    c.exchange("d.rand", "x-random")
    queues(c, "d.q", "d.q2")
    c.bind("d.q", "d.rand")
    c.bind("d.q2", "d.rand")
    for _ in range(40):
        c.publish(1, "d.rand", "k", "m")
    c.call(1, "basic.qos")
    counts = []
    for name in ("d.q", "d.q2"):
        c.send(1, "queue.declare", queue=name, passive=True)
        counts.append(c.expect("queue.declare-ok", silent=True)["messages"])
    p.note(f"sum {sum(counts)}, both used: {min(counts) > 0}")


@row("1.3", "amq.rabbitmq.trace is a topic that nobody feeds while tracing is off")
def _(p):
    c = p.open()
    queues(c, "d.q")
    c.bind("d.q", "amq.rabbitmq.trace", "#")
    routed(c, "amq.fanout", "k", "d.q")
