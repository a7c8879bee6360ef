#!/usr/bin/env python3
"""Builds over AMQP the objects that the recorded invocations list, and holds them until stdin closes.

Usage: topology.py HOST PORT. Needs pika and the users and vhosts that the `setup` group creates.
Prints `ready` once every object stands; connections, channels and consumers live until end of input.
"""
import sys

import pika

HOST, PORT = sys.argv[1], int(sys.argv[2])


def connect(user, password, vhost, name=None):
    properties = {"connection_name": name} if name else {}
    return pika.BlockingConnection(pika.ConnectionParameters(
        HOST, PORT, vhost, pika.PlainCredentials(user, password), client_properties=properties, heartbeat=0))


def declare(channel, name, **arguments):
    """`durable_name=True` style flags are ours; everything else is a queue argument."""
    flags = {k: arguments.pop(k) for k in ("durable", "exclusive", "auto_delete") if k in arguments}
    channel.queue_declare(name, **({"durable": True} | flags), arguments={k.replace("_", "-"): v for k, v in arguments.items()} or None)


conn = connect("guest", "guest", "/", "topology main")
ch = conn.channel(1)
ch.exchange_declare("e.direct", "direct", durable=True)
ch.exchange_declare("e.topic", "topic", durable=True, auto_delete=False)
ch.exchange_declare("e.fanout", "fanout")
ch.exchange_declare("e.headers", "headers", durable=True)
ch.exchange_declare("e.internal", "fanout", internal=True, durable=True)
ch.exchange_declare("e.autodelete", "fanout", auto_delete=True)
ch.exchange_declare("e.alternate", "direct", durable=True, arguments={"alternate-exchange": "e.fanout"})
ch.exchange_declare("e.hash", "x-consistent-hash", durable=True)
ch.exchange_declare("pol.exchange", "direct", durable=True)

declare(ch, "plain")
declare(ch, "transient", durable=False)
declare(ch, "ttl", x_message_ttl=3600000)
declare(ch, "expires", x_expires=7200000)
declare(ch, "limits", x_max_length=5, x_max_length_bytes=100000, x_overflow="reject-publish")
declare(ch, "dead", x_dead_letter_exchange="e.direct", x_dead_letter_routing_key="dead.key")
declare(ch, "priority", x_max_priority=10)
declare(ch, "single", x_single_active_consumer=True)
declare(ch, "lazy", x_queue_mode="lazy")
declare(ch, "quorum", x_queue_type="quorum", x_delivery_limit=3)
declare(ch, "stream", x_queue_type="stream", x_max_age="1h")
declare(ch, "exclusive", exclusive=True, durable=False)
declare(ch, "autodelete", auto_delete=True)
declare(ch, "several", x_message_ttl=60000000, x_dead_letter_exchange="", x_max_length=1000, x_queue_type="classic")
declare(ch, "custom", my_string="quoted \"text\"", my_number=-7, my_int64=2**40, my_bool=False, my_list=[1, "two", True],
        my_table={"a": 1, "b": "c"}, my_null=None, my_empty="")
declare(ch, "pol.queue")
declare(ch, "both.queue")
declare(ch, "name with spaces")

ch.queue_bind("plain", "e.direct", "key")
ch.queue_bind("plain", "e.direct", "")
ch.queue_bind("plain", "e.topic", "a.*.#")
ch.queue_bind("ttl", "e.fanout", "ignored")
ch.queue_bind("limits", "e.headers", "", {"x-match": "all", "format": "pdf", "count": 3})
ch.queue_bind("plain", "e.hash", "10")
ch.exchange_bind("e.fanout", "e.topic", "to.exchange")
ch.exchange_bind("e.internal", "e.topic", "#")

for i in range(3):
    ch.basic_publish("", "plain", b"0123456789", pika.BasicProperties(delivery_mode=2))
ch.basic_publish("", "transient", b"abc")
ch.basic_publish("", "ttl", b"x" * 1000, pika.BasicProperties(delivery_mode=2))
ch.basic_publish("", "single", b"unsettled", pika.BasicProperties(delivery_mode=2))
ch.basic_publish("", "single", b"waiting", pika.BasicProperties(delivery_mode=2))
ch.basic_publish("", "purgeable", b"1")

spaced = connect("guest", "guest", "vhost with space", "topology odd").channel(1)
declare(spaced, "ünïcode-日本")
declare(spaced, "tab\there", my_string="täxt \\ \"quoted\"\n")
declare(spaced, "bytes", my_bytes=b"\x00\xff")

conn2 = connect("alice", "alice-pw", "v1", "topology second")
ch2 = conn2.channel(1)
declare(ch2, "v1.queue")
ch2.confirm_delivery()
ch3 = conn2.channel(7)
ch3.tx_select()
ch3.basic_publish("", "v1.queue", b"uncommitted")
ch3.basic_qos(prefetch_count=25, global_qos=True)

consumers = conn.channel(2)
consumers.basic_qos(prefetch_count=1)
consumers.basic_consume("single", lambda *_: None, consumer_tag="tag-active")
consumers.basic_consume("single", lambda *_: None, consumer_tag="tag-waiting")
consumers.basic_consume("priority", lambda *_: None, consumer_tag="tag-priority", arguments={"x-priority": 5})
consumers.basic_consume("expires", lambda *_: None, consumer_tag="tag-noack", auto_ack=True)
consumers.basic_consume("dead", lambda *_: None, consumer_tag="tag-exclusive", exclusive=True)
consumers.basic_consume("exclusive", lambda *_: None, consumer_tag="tag with space", auto_ack=True)
ch2.basic_consume("v1.queue", lambda *_: None, consumer_tag="v1-tag")

# One connection without a name, and one that a later invocation closes.
conn3 = connect("guest", "guest", "/")
conn4 = connect("alice", "alice-pw", "v1", "to be closed")
print("ready", flush=True)
sys.stdin.read()
