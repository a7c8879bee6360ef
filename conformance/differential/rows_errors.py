"""Rows of channel and connection exceptions with their texts (sections 2.3 and 2.4)."""

from probe import row
from wire import Typed

MISSING = "d.nope"


def call_row(title, name, section="2.3", setup=None, expect=None, **values):
    """One method on a fresh channel; `setup` prepares it."""

    @row(section, title)
    def _(p):
        c = p.open()
        if setup:
            setup(c)
        c.call(1, name, expect=expect, **values)


call_row("passive declare of a missing queue", "queue.declare", queue=MISSING, passive=True)
call_row("consume from a missing queue", "basic.consume", queue=MISSING)
call_row("get from a missing queue", "basic.get", queue=MISSING, expect="basic.get-empty")
call_row("purge of a missing queue", "queue.purge", queue=MISSING)
call_row("bind of a missing queue", "queue.bind", queue=MISSING, exchange="amq.direct")
call_row("unbind of a missing queue", "queue.unbind", queue=MISSING, exchange="amq.direct")
call_row("delete of a missing queue is ok", "queue.delete", queue=MISSING)
call_row("delete of a missing exchange is ok", "exchange.delete", exchange=MISSING)
call_row(
    "passive declare of a missing exchange",
    "exchange.declare",
    exchange=MISSING,
    type="direct",
    passive=True,
)
call_row(
    "bind to a missing exchange",
    "queue.bind",
    setup=lambda c: c.declare("d.q"),
    queue="d.q",
    exchange=MISSING,
)
call_row(
    "unbind from a missing exchange",
    "queue.unbind",
    setup=lambda c: c.declare("d.q"),
    queue="d.q",
    exchange=MISSING,
)
call_row(
    "bind of a missing queue to a missing exchange", "queue.bind", queue=MISSING, exchange=MISSING
)
call_row("exchange bind, source missing", "exchange.bind", destination="amq.fanout", source=MISSING)
call_row(
    "exchange bind, destination missing", "exchange.bind", destination=MISSING, source="amq.fanout"
)
call_row(
    "exchange unbind, source missing", "exchange.unbind", destination="amq.fanout", source=MISSING
)


@row("2.3", "publish to a missing exchange")
def _(p):
    c = p.open()
    c.publish(1, MISSING, "k", "a")
    c.expect("channel.close")


@row("2.3", "publish to a missing exchange, more publishes behind it")
def _(p):
    c = p.open()
    c.publish(1, MISSING, "k", "a")
    c.publish(1, MISSING, "k", "b")
    c.expect("channel.close")
    c.quiet()


# Nothing declared yet on the channel, and an empty name.
for _name, _values in (
    ("basic.consume", {}),
    ("basic.get", {"expect": "basic.get-empty"}),
    ("queue.purge", {}),
    ("queue.delete", {}),
    ("queue.bind", {"exchange": "amq.direct"}),
    ("queue.unbind", {"exchange": "amq.direct"}),
):
    call_row(f"{_name} without a queue declared before", _name, **_values)
call_row("passive declare with an empty name", "queue.declare", passive=True)


EXCLUSIVE_CALLS = (
    ("queue.declare", {}),
    ("queue.declare passive", {"passive": True}),
    ("queue.declare exclusive", {"exclusive": True}),
    ("basic.consume", {}),
    ("basic.get", {"expect": "basic.get-empty"}),
    ("queue.bind", {"exchange": "amq.direct", "key": "k"}),
    ("queue.unbind", {"exchange": "amq.direct", "key": "k"}),
    ("queue.purge", {}),
    ("queue.delete", {}),
)
for _name, _values in EXCLUSIVE_CALLS:

    @row("2.3", f"{_name} on another connection's exclusive queue")
    def _(p, title=_name, values=_values):
        a, b = p.open("A"), p.open("B")
        a.declare("d.ex", exclusive=True)
        b.call(1, title.split()[0], queue="d.ex", **values)


@row("2.3", "publish to another connection's exclusive queue is allowed")
def _(p):
    a, b = p.open("A"), p.open("B")
    a.declare("d.ex", exclusive=True)
    b.publish(1, "", "d.ex", "hello")
    b.call(1, "basic.qos")
    a.get("d.ex")


@row("1.4", "exclusive queue ends with its connection")
def _(p):
    a = p.open("A")
    a.declare("d.ex", exclusive=True)
    a.call(0, "connection.close", code=200)
    p.open("B").call(1, "queue.declare", queue="d.ex", passive=True)


def redeclare_row(title, first, second, queue="d.p"):
    @row("2.3", f"redeclare: {title}")
    def _(p):
        c = p.open()
        c.declare(queue, **first)
        c.declare(queue, **second)


def args(**arguments):
    return {
        "arguments": {f"x-{name.replace('_', '-')}": value for name, value in arguments.items()}
    }


redeclare_row("equal", {"durable": True}, {"durable": True})
redeclare_row("durable differs", {"durable": True}, {})
redeclare_row("not durable before", {}, {"durable": True})
redeclare_row("auto-delete differs", {"auto_delete": True}, {})
redeclare_row("exclusive now", {}, {"exclusive": True})
redeclare_row("exclusive no longer", {"exclusive": True}, {})
redeclare_row("durable and auto-delete differ", {"durable": True}, {"auto_delete": True})
redeclare_row("argument differs", args(max_length=10), args(max_length=11))
redeclare_row("argument absent", args(message_ttl=Typed("s", 1000)), {})
redeclare_row("argument absent, long string", args(dead_letter_exchange="a"), {})
redeclare_row("argument absent, signedint", args(expires=60000), {})
redeclare_row("argument absent, long", args(max_length_bytes=Typed("l", 60000)), {})
redeclare_row("argument absent, byte", args(max_priority=Typed("b", 5)), {})
redeclare_row("argument absent, unsigned byte", args(max_priority=Typed("B", 5)), {})
redeclare_row("argument absent, unsigned short", args(max_priority=Typed("u", 5)), {})
redeclare_row("argument absent, unsigned int", args(max_length=Typed("i", 5)), {})
redeclare_row("argument absent, bool", args(single_active_consumer=True), {})
redeclare_row("argument new", {}, args(dead_letter_exchange="dlx"))
redeclare_row("argument new, integer", {}, args(max_length=10))
redeclare_row("overflow differs", args(overflow="drop-head"), args(overflow="reject-publish"))
redeclare_row(
    "integer types differ, value equal", args(max_length=10), args(max_length=Typed("l", 10))
)
redeclare_row("unknown argument new", {}, args(foo="bar"))
redeclare_row("unknown argument differs", args(foo="bar"), args(foo="baz"))
redeclare_row(
    "two arguments differ", args(max_length=1, message_ttl=5), args(max_length=2, message_ttl=6)
)
redeclare_row(
    "queue type classic made explicit",
    {"durable": True},
    {"durable": True, **args(queue_type="classic")},
)
redeclare_row(
    "queue type differs", {"durable": True}, {"durable": True, **args(queue_type="quorum")}
)
redeclare_row("queue mode differs", {}, args(queue_mode="lazy"))
redeclare_row("queue version differs", {}, args(queue_version=2))
redeclare_row(
    "dead-letter key differs",
    args(dead_letter_exchange="a", dead_letter_routing_key="k"),
    args(dead_letter_exchange="a", dead_letter_routing_key="l"),
)
redeclare_row(
    "text with a quote and UTF-8",
    args(dead_letter_exchange="it's é"),
    args(dead_letter_exchange="x"),
)
redeclare_row("name with UTF-8", {"durable": True}, {}, queue="d.ü'q")


@row("2.3", "redeclare: passive ignores what differs")
def _(p):
    c = p.open()
    c.declare("d.p", durable=True)
    c.call(1, "queue.declare", queue="d.p", passive=True, arguments={"x-max-length": 5})


def exchange_redeclare_row(title, first, second):
    @row("2.3", f"exchange redeclare: {title}")
    def _(p):
        c = p.open()
        c.exchange("d.ex", **first)
        c.exchange("d.ex", **second)


exchange_redeclare_row("equal", {"durable": True}, {"durable": True})
exchange_redeclare_row("type", {}, {"kind": "fanout"})
exchange_redeclare_row("durable", {"durable": True}, {})
exchange_redeclare_row("auto-delete", {"auto_delete": True}, {})
exchange_redeclare_row("internal", {"internal": True}, {})
exchange_redeclare_row(
    "alternate exchange differs",
    {"arguments": {"alternate-exchange": "a"}},
    {"arguments": {"alternate-exchange": "b"}},
)
exchange_redeclare_row("alternate exchange new", {}, {"arguments": {"alternate-exchange": "a"}})
exchange_redeclare_row("alternate exchange absent", {"arguments": {"alternate-exchange": "a"}}, {})
exchange_redeclare_row("unknown argument", {}, {"arguments": {"x-foo": 1}})
exchange_redeclare_row("passive with another type", {}, {"kind": "fanout", "passive": True})
exchange_redeclare_row("passive with an unknown type", {}, {"kind": "zzz", "passive": True})

call_row("unknown exchange type", "exchange.declare", exchange="d.ex", type="zzz")
call_row("empty exchange type", "exchange.declare", exchange="d.ex", type="")
call_row(
    "alternate exchange of a wrong type",
    "exchange.declare",
    exchange="d.ex",
    type="direct",
    arguments={"alternate-exchange": 5},
)
call_row(
    "alternate exchange with an odd name",
    "exchange.declare",
    exchange="d.ex",
    type="direct",
    arguments={"alternate-exchange": ""},
)


def argument_row(title, arguments, **flags):
    call_row(f"declare: {title}", "queue.declare", queue="d.arg", arguments=arguments, **flags)


INTEGER_ARGUMENTS = (
    "x-max-length",
    "x-max-length-bytes",
    "x-message-ttl",
    "x-expires",
    "x-max-priority",
)
for _name in INTEGER_ARGUMENTS:
    for _what, _value in (
        ("a string", "5"),
        ("-1", -1),
        ("0", 0),
        ("a float", 1.5),
        ("a bool", True),
        ("void", None),
        ("256", 256),
        ("2^32", 2**32),
        ("2^40", 2**40),
        ("an octet", Typed("b", 7)),
    ):
        argument_row(f"{_name} {_what}", {_name: _value})
argument_row("x-overflow unknown", {"x-overflow": "zzz"})
argument_row("x-overflow of a wrong type", {"x-overflow": 5})
for _value in ("drop-head", "reject-publish", "reject-publish-dlx"):
    argument_row(f"x-overflow {_value}", {"x-overflow": _value})
argument_row("x-dead-letter-routing-key alone", {"x-dead-letter-routing-key": "k"})
argument_row(
    "x-dead-letter-routing-key of a wrong type",
    {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": 5},
)
argument_row("x-dead-letter-exchange of a wrong type", {"x-dead-letter-exchange": 5})
argument_row("x-dead-letter-exchange that is missing", {"x-dead-letter-exchange": "d.none"})
argument_row("x-dead-letter-strategy on classic", {"x-dead-letter-strategy": "at-least-once"})
argument_row("x-single-active-consumer of a wrong type", {"x-single-active-consumer": "yes"})
argument_row("x-queue-type unknown", {"x-queue-type": "zzz"}, durable=True)
argument_row("x-queue-type of a wrong type", {"x-queue-type": 5}, durable=True)
argument_row("x-queue-mode unknown", {"x-queue-mode": "zzz"})
argument_row("x-queue-mode lazy", {"x-queue-mode": "lazy"})
argument_row("x-queue-version 3", {"x-queue-version": 3})
argument_row("x-queue-version 2", {"x-queue-version": 2})
argument_row("x-queue-master-locator unknown", {"x-queue-master-locator": "zzz"})
argument_row("x-delivery-limit on classic", {"x-delivery-limit": 3})
argument_row("x-max-age on classic", {"x-max-age": "1h"})
argument_row("unknown arguments of every type", {"x-foo": {"a": [1, 2.5, True]}, "y": None})
call_row("reserved queue name", "queue.declare", queue="amq.foo")
call_row("reserved queue name, passive", "queue.declare", queue="amq.foo", passive=True)
call_row("reserved exchange name", "exchange.declare", exchange="amq.foo", type="direct")
call_row(
    "amq.direct redeclared equally",
    "exchange.declare",
    exchange="amq.direct",
    type="direct",
    durable=True,
)
call_row(
    "amq.direct redeclared differently",
    "exchange.declare",
    exchange="amq.direct",
    type="fanout",
    durable=True,
)
for _name in (
    "amq.direct",
    "amq.fanout",
    "amq.topic",
    "amq.headers",
    "amq.match",
    "amq.rabbitmq.trace",
    "amq.rabbitmq.log",
):
    call_row(
        f"passive declare of {_name}",
        "exchange.declare",
        section="1.3",
        exchange=_name,
        type="direct",
        passive=True,
    )

call_row("default exchange declared", "exchange.declare", exchange="", type="direct", durable=True)
call_row(
    "default exchange declared passively",
    "exchange.declare",
    exchange="",
    type="direct",
    passive=True,
)
call_row("default exchange deleted", "exchange.delete", exchange="")
call_row(
    "default exchange bound",
    "queue.bind",
    setup=lambda c: c.declare("d.q"),
    queue="d.q",
    exchange="",
    key="d.q",
)
call_row(
    "default exchange unbound",
    "queue.unbind",
    setup=lambda c: c.declare("d.q"),
    queue="d.q",
    exchange="",
    key="d.q",
)
call_row("default exchange as a source", "exchange.bind", destination="amq.fanout", source="")
call_row("default exchange as a destination", "exchange.bind", destination="", source="amq.fanout")
call_row("system exchange deleted", "exchange.delete", exchange="amq.direct")
call_row("trace exchange deleted", "exchange.delete", exchange="amq.rabbitmq.trace")


@row("2.3", "publish to an internal exchange")
def _(p):
    c = p.open()
    c.exchange("d.int", internal=True)
    c.publish(1, "d.int", "k", "a")
    c.expect("channel.close")


@row("2.3", "publish to amq.rabbitmq.trace")
def _(p):
    c = p.open()
    c.publish(1, "amq.rabbitmq.trace", "k", "a")
    c.expect("channel.close")


def user_row(title, name, setup=None, expect=None, **values):
    """One method of a user who may only touch d.u.*; the queue d.x belongs to somebody else."""

    @row("2.3", f"permission: {title}")
    def _(p):
        guest = p.open("guest")
        guest.declare("d.x")
        guest.exchange("d.xx")
        c = p.open(user="d.u", password="d.u")
        if setup:
            setup(c)
        c.call(1, name, expect=expect, **values)


def own_queue(c):
    c.declare("d.u.q")


user_row("declare", "queue.declare", queue="d.x2")
user_row("passive declare", "queue.declare", queue="d.x", passive=True)
user_row("passive declare of what is missing", "queue.declare", queue="d.x3", passive=True)
user_row("server-named declare", "queue.declare", queue="")
user_row("delete", "queue.delete", queue="d.x")
user_row("delete of what is missing", "queue.delete", queue="d.x3")
user_row("consume", "basic.consume", queue="d.x")
user_row("get", "basic.get", queue="d.x", expect="basic.get-empty")
user_row("purge", "queue.purge", queue="d.x")
user_row("bind, queue not writable", "queue.bind", queue="d.x", exchange="amq.topic", key="b.c")
user_row(
    "bind, exchange not readable", "queue.bind", setup=own_queue, queue="d.u.q", exchange="d.xx"
)
user_row(
    "unbind, exchange not readable", "queue.unbind", setup=own_queue, queue="d.u.q", exchange="d.xx"
)
user_row("exchange declare", "exchange.declare", exchange="d.x2", type="direct")
user_row("exchange delete", "exchange.delete", exchange="d.xx")
user_row(
    "exchange passive declare", "exchange.declare", exchange="d.xx", type="direct", passive=True
)
user_row("exchange bind, source", "exchange.bind", destination="amq.topic", source="d.xx")
user_row(
    "exchange bind, destination", "exchange.bind", destination="d.xx", source="amq.topic", key="b.c"
)
user_row(
    "topic bind refused",
    "queue.bind",
    setup=own_queue,
    queue="d.u.q",
    exchange="amq.topic",
    key="c.d",
)
user_row(
    "topic bind allowed",
    "queue.bind",
    setup=own_queue,
    queue="d.u.q",
    exchange="amq.topic",
    key="b.d",
)
user_row(
    "topic bind allowed by variable",
    "queue.bind",
    setup=own_queue,
    queue="d.u.q",
    exchange="amq.topic",
    key="d.u.d",
)
user_row(
    "dead-letter exchange not writable",
    "queue.declare",
    queue="d.u.d",
    arguments={"x-dead-letter-exchange": "d.xx"},
)
user_row(
    "dead-letter exchange writable",
    "queue.declare",
    queue="d.u.d",
    arguments={"x-dead-letter-exchange": "d.u.x"},
)
user_row(
    "alternate exchange not writable",
    "exchange.declare",
    exchange="d.u.a",
    type="direct",
    arguments={"alternate-exchange": "d.xx"},
)


@row("2.3", "permission: publish")
def _(p):
    p.open("guest").exchange("d.xx")
    c = p.open(user="d.u", password="d.u")
    c.publish(1, "d.xx", "k", "a")
    c.expect("channel.close")


@row("2.3", "permission: publish to the default exchange")
def _(p):
    c = p.open(user="d.u", password="d.u")
    c.publish(1, "", "d.x", "a")
    c.expect("channel.close")


@row("2.3", "permission: publish to a topic, allowed and refused")
def _(p):
    c = p.open(user="d.u", password="d.u")
    c.call(1, "confirm.select")
    c.confirmed("amq.topic", "a.b", "x")
    c.publish(1, "amq.topic", "z.b", "x")
    c.expect("channel.close")


@row("2.3", "exclusive consumer on a queue that has one")
def _(p):
    c = p.open()
    c.declare("d.q")
    c.consume("d.q", "one")
    c.call(1, "basic.consume", queue="d.q", tag="two", exclusive=True)


@row("2.3", "consumer on a queue with an exclusive one")
def _(p):
    c = p.open()
    c.declare("d.q")
    c.consume("d.q", "one", exclusive=True)
    c.call(1, "basic.consume", queue="d.q", tag="two")


def ready(c, queue="d.q", messages=1):
    c.declare(queue)
    for number in range(messages):
        c.publish(1, "", queue, f"m{number}")
    c.await_count(queue, messages)


def consumed(c):
    c.declare("d.q")
    c.consume("d.q")


call_row(
    "delete if-empty of a queue with messages",
    "queue.delete",
    setup=ready,
    queue="d.q",
    if_empty=True,
)
call_row(
    "delete if-unused of a queue with a consumer",
    "queue.delete",
    setup=consumed,
    queue="d.q",
    if_unused=True,
)
call_row(
    "delete if-empty and if-unused, allowed",
    "queue.delete",
    setup=own_queue,
    queue="d.u.q",
    if_empty=True,
    if_unused=True,
)
call_row(
    "delete counts messages", "queue.delete", setup=lambda c: ready(c, messages=3), queue="d.q"
)


@row("2.3", "exchange delete if-unused while bound")
def _(p):
    c = p.open()
    c.exchange("d.ex")
    c.declare("d.q")
    c.bind("d.q", "d.ex", "k")
    c.call(1, "exchange.delete", exchange="d.ex", if_unused=True)


@row("2.3", "exchange delete if-unused while only a destination")
def _(p):
    c = p.open()
    c.exchange("d.ex")
    c.call(1, "exchange.bind", destination="d.ex", source="amq.fanout")
    c.call(1, "exchange.delete", exchange="d.ex", if_unused=True)


def tag_row(title, name, **values):
    @row("2.3", title)
    def _(p):
        c = p.open()
        ready(c)
        c.get("d.q", no_ack=False)
        c.send(1, name, **values)
        if c.call(1, "basic.qos").name == "basic.qos-ok":
            c.send(1, "basic.reject", delivery=1)
            c.call(1, "basic.qos")


tag_row("ack of an unknown tag", "basic.ack", delivery=99)
tag_row("ack of an unknown tag, multiple", "basic.ack", delivery=99, multiple=True)
tag_row("ack of tag 0, single", "basic.ack", delivery=0)
tag_row("ack of tag 0, multiple, then again", "basic.ack", delivery=0, multiple=True)
tag_row("ack, then reject of the same tag", "basic.ack", delivery=1)
tag_row("nack of an unknown tag", "basic.nack", delivery=99)
tag_row("nack of tag 0, multiple", "basic.nack", delivery=0, multiple=True)
tag_row("reject of an unknown tag", "basic.reject", delivery=99)
tag_row("reject of tag 0", "basic.reject", delivery=0)


@row("1.2", "ack of tag 0, multiple, with nothing outstanding")
def _(p):
    c = p.open()
    c.send(1, "basic.ack", delivery=0, multiple=True)
    c.call(1, "basic.qos")
    c.send(1, "basic.ack", delivery=5, multiple=True)
    c.call(1, "basic.qos")


@row("2.3", "ack of a delivery that needed none")
def _(p):
    c = p.open()
    ready(c)
    c.get("d.q", no_ack=True)
    c.send(1, "basic.ack", delivery=1)
    c.call(1, "basic.qos")


def publish_row(title, section="2.3", confirm=False, key="d.q", body="m", get=True, **values):
    @row(section, title)
    def _(p):
        c = p.open()
        c.declare("d.q")
        if confirm:
            c.call(1, "confirm.select")
        c.publish(1, "", key, body, **values)
        if confirm:
            c.expect("basic.ack", "basic.nack")
        if c.call(1, "basic.qos").name == "basic.qos-ok" and get:
            c.get("d.q")


for _value in ("abc", "-1", "", "1.5", "5 ", "+60000", "4294967295", "4294967296", "99999999999999999999", "60000"):
    publish_row(f"expiration {_value!r}", expiration=_value)
publish_row("user_id of somebody else", user_id="bob")
publish_row("user_id of the user", user_id="guest")
publish_row("CC of a wrong type", headers={"CC": "d.q"})
publish_row("CC with an integer in it", headers={"CC": [5]})
publish_row("BCC of a wrong type", headers={"BCC": True})
publish_row("delivery_mode 3", delivery_mode=3)
publish_row("delivery_mode 0", delivery_mode=0)
publish_row(
    "timestamp, priority 255 and every other property",
    section="1.2",
    content_type="t/p",
    content_encoding="e",
    headers={"h": 1},
    delivery_mode=2,
    priority=255,
    correlation_id="c",
    reply_to="r",
    expiration="60000",
    message_id="m",
    timestamp=1,
    type="t",
    app_id="a",
    cluster_id="cl",
)
publish_row("an ordinary reply_to", section="1.2", reply_to="amq.gen-x")
publish_row("reply_to direct without its consumer", reply_to="amq.rabbitmq.reply-to")
publish_row("immediate", section="2.4", immediate=True)
publish_row(
    "immediate on a queue that is missing", section="2.4", key="d.none", immediate=True, get=False
)
publish_row("mandatory, routed, confirmed", section="1.2", confirm=True, mandatory=True)
publish_row("not routed, confirmed", section="1.2", confirm=True, key="d.none", get=False)


@row("2.3", "user_id of somebody else from an impersonator")
def _(p):
    c = p.open(user="d.imp", password="d.imp")
    c.declare("d.q")
    c.publish(1, "", "d.q", "a", user_id="bob")
    c.call(1, "basic.qos")
    c.get("d.q")


@row("2.3", "tx.select after confirm.select")
def _(p):
    c = p.open()
    c.call(1, "confirm.select")
    c.call(1, "confirm.select")
    c.call(1, "tx.select")


@row("2.3", "confirm.select after tx.select")
def _(p):
    c = p.open()
    c.call(1, "tx.select")
    c.call(1, "tx.select")
    c.call(1, "confirm.select")


call_row("tx.commit without select", "tx.commit")
call_row("tx.rollback without select", "tx.rollback")
call_row(
    "headers binding, x-match unknown",
    "queue.bind",
    setup=lambda c: c.declare("d.q"),
    queue="d.q",
    exchange="amq.headers",
    arguments={"x-match": "zzz"},
)
call_row(
    "headers binding, x-match of a wrong type",
    "queue.bind",
    setup=lambda c: c.declare("d.q"),
    queue="d.q",
    exchange="amq.headers",
    arguments={"x-match": 5},
)
call_row(
    "consume with x-priority of a wrong type",
    "basic.consume",
    setup=lambda c: c.declare("d.q"),
    queue="d.q",
    arguments={"x-priority": "high"},
)
call_row(
    "consume with a negative x-priority",
    "basic.consume",
    setup=lambda c: c.declare("d.q"),
    queue="d.q",
    tag="c",
    arguments={"x-priority": -5},
)
call_row(
    "consume with unknown arguments",
    "basic.consume",
    setup=lambda c: c.declare("d.q"),
    queue="d.q",
    tag="c",
    arguments={"x-foo": [1]},
)
call_row(
    "consume with x-cancel-on-ha-failover",
    "basic.consume",
    setup=lambda c: c.declare("d.q"),
    queue="d.q",
    tag="c",
    arguments={"x-cancel-on-ha-failover": True},
)

call_row("prefetch_size set", "basic.qos", section="2.4", size=1, count=1)
call_row(
    "prefetch_size set, global", "basic.qos", section="2.4", size=5, count=1, **{"global": True}
)
call_row("recover without requeue", "basic.recover", section="2.4", requeue=False)
call_row(
    "recover_async without requeue",
    "basic.recover-async",
    section="2.4",
    expect="connection.close",
    requeue=False,
)
call_row("channel.flow off", "channel.flow", section="2.4", active=False)


@row("2.4", "consumer tag used twice on a channel")
def _(p):
    c = p.open()
    c.declare("d.q")
    c.consume("d.q", "t")
    c.call(1, "basic.consume", queue="d.q", tag="t")
    c.expect_end()


@row("2.4", "consumer tag used on two channels is fine")
def _(p):
    c = p.open(channels=2)
    c.declare("d.q")
    c.consume("d.q", "t")
    c.consume("d.q", "t", channel=2)


@row("2.3", "queue name of 255 octets, and of newlines")
def _(p):
    c = p.open()
    c.declare("d." + "n" * 253, exclusive=True)
    c.declare("d.new\r\nline", exclusive=True)
    c.call(1, "queue.declare", queue="d.newline", passive=True)


@row("2.3", "queue name that is not UTF-8")
def _(p):
    c = p.open()
    c.declare(b"d.\xff\xfe", exclusive=True)
