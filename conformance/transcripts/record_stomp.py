#!/usr/bin/env python3
"""Records what RabbitMQ's STOMP plugin answers to the frames of stomp/conversations.json.

    conformance/clients/rabbitmq-node > node.env &
    . ./node.env; conformance/transcripts/record_stomp.py

Each conversation is a list of steps: octets to send (a number waits so many milliseconds), and what was
heard after them. `QUEUE` becomes a name that no other conversation has, `$ACK` and `$MESSAGE_ID` the
last such headers that were heard. Heard frames have their headers in order, and placeholders for what
differs from run to run. The steps are kept, what was heard is written anew.
"""

import os
import pathlib
import socket
import time

import recording

PATH = pathlib.Path(__file__).parent / "stomp/conversations.json"
HOST, PORT = os.environ["STOMP_HOST"], int(os.environ["STOMP_PORT"])
QUIET_SECS = 0.6
PLACEHOLDERS = [
    (r"session-[\w-]+", "SESSION"),
    (r"stomp-subscription-[\w-]+", "stomp-subscription-NAME"),
    (r"amq\.gen-[\w-]+", "amq.gen-NAME"),
]
WORDS = [(b"$ACK", b"ack"), (b"$MESSAGE_ID", b"message-id")]


def converse(steps, name):
    with socket.create_connection((HOST, PORT)) as stream:
        stream.settimeout(QUIET_SECS)
        said, recorded = b"", []
        for step in steps:
            if "wait" in step:
                time.sleep(step["wait"] / 1000)
                octets = b"\n"
            else:
                octets = recording.octets_of(step, name, said, WORDS)
            try:
                stream.sendall(octets)
            except OSError:
                octets = b""
            heard, closed = recording.hear(stream)
            said += heard
            text = recording.frames(heard, name, PLACEHOLDERS)
            recorded.append({**{k: v for k, v in step.items() if k in ("send", "wait")}, "heard": text})
            if closed:
                recorded[-1]["closed"] = True
                break
        return recorded


recording.record(PATH, converse)
