"""Rows in which an administrator acts beside the client: closing, alarms, policies, tracing (1.5).

They need the broker's ctl command, and are left out where there is none.
"""

import contextlib

from probe import CAPABILITIES, row

TINY_WATERMARK = "0.000001"


@contextlib.contextmanager
def memory_alarm(p):
    p.ctl("set_vm_memory_high_watermark", TINY_WATERMARK)
    try:
        yield
    finally:
        p.ctl("set_vm_memory_high_watermark", "0.4")


@row("2.1", "an administrator closes all connections", ctl=True)
def _(p):
    c = p.open()
    p.ctl("close_all_connections", "maintenance tonight")
    c.expect_end()


@row("2.1", "the vhost of an open connection is deleted", ctl=True)
def _(p):
    p.ctl("add_vhost", "d.gone")
    p.ctl("set_permissions", "-p", "d.gone", "guest", ".*", ".*", ".*")
    c = p.open(vhost="d.gone")
    p.ctl("delete_vhost", "d.gone")
    c.expect_end()


@row("2.1", "the user of an open connection is deleted", ctl=True)
def _(p):
    p.ctl("add_user", "d.leaver", "secret")
    p.ctl("set_permissions", "d.leaver", ".*", ".*", ".*")
    c = p.open(user="d.leaver", password="secret")
    p.ctl("delete_user", "d.leaver")
    c.expect_end()


@row("1.1", "memory alarm: connection.blocked at the first publish, then unblocked", ctl=True)
def _(p):
    c, d = p.open("publisher"), p.open("other")
    c.declare("d.alarm")
    c.publish(1, "", "d.alarm", "before")
    c.await_count("d.alarm", 1)
    with memory_alarm(p):
        c.quiet(0.5)
        c.publish(1, "", "d.alarm", "during")
        c.expect("connection.blocked")
        d.get("d.alarm")
        d.get("d.alarm")
    c.expect("connection.unblocked")
    d.await_count("d.alarm", 1)
    d.get("d.alarm")


@row("1.1", "memory alarm: without the capability the publisher is only not read", ctl=True)
def _(p):
    c = p.open("publisher", capabilities={**CAPABILITIES, "connection.blocked": False})
    d = p.open("other")
    c.declare("d.alarm")
    c.call(1, "confirm.select")
    with memory_alarm(p):
        c.publish(1, "", "d.alarm", "one")
        c.publish(1, "", "d.alarm", "two")
        c.quiet(1)
        d.count("d.alarm")
    d.await_count("d.alarm", 2)


@row("1.1", "memory alarm: consumers go on", ctl=True)
def _(p):
    c, d = p.open("consumer"), p.open("publisher")
    c.declare("d.alarm")
    for number in range(3):
        d.publish(1, "", "d.alarm", f"m{number}")
    d.await_count("d.alarm", 3)
    with memory_alarm(p):
        c.consume("d.alarm", "t")
        c.expect("basic.deliver", count=3)
        c.send(1, "basic.ack", delivery=3, multiple=True)
        c.call(1, "basic.cancel", tag="t")


@row("1.5", "a policy that is set and cleared works on a live queue", ctl=True)
def _(p):
    c = p.open()
    c.declare("d.live")
    c.call(1, "confirm.select")
    for number in range(3):
        c.confirmed("", "d.live", f"a{number}")
    p.ctl("set_policy", "d.live", r"^d\.live$", '{"max-length":1}')
    c.await_count("d.live", 1)
    c.confirmed("", "d.live", "b")
    c.count("d.live")
    p.ctl("clear_policy", "d.live")
    c.confirmed("", "d.live", "c")
    c.await_count("d.live", 2)


@row("1.5", "a queue that ctl deletes cancels its consumer; one that it purges is empty", ctl=True)
def _(p):
    c = p.open()
    c.declare("d.purged")
    c.publish(1, "", "d.purged", "m")
    c.await_count("d.purged", 1)
    p.ctl("purge_queue", "d.purged")
    c.count("d.purged")
    c.consume("d.purged", "t")
    p.ctl("delete_queue", "d.purged")
    c.expect("basic.cancel")


@row("1.5", "tracing copies what is published and delivered", ctl=True)
def _(p):
    c = p.open(user="d.imp", password="d.imp")
    watch = p.open("watch")
    c.declare("d.traced")
    watch.declare("d.trace")
    watch.bind("d.trace", "amq.rabbitmq.trace", "#.d.traced")
    watch.bind("d.trace", "amq.rabbitmq.trace", "publish.#")
    p.ctl("trace_on")
    try:
        d = p.open("late", user="d.imp", password="d.imp")
        d.publish(1, "", "d.traced", "m", content_type="t", headers={"a": 1}, priority=2)
        d.await_count("d.traced", 1)
        d.get("d.traced", no_ack=False)
        watch.await_count("d.trace", 2)
        watch.get("d.trace")
        watch.get("d.trace")
    finally:
        p.ctl("trace_off")
