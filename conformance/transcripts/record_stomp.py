#!/usr/bin/env python3
"""Records what RabbitMQ's STOMP plugin answers to the frames of stomp/conversations.json.

    conformance/clients/rabbitmq-node > node.env &
    . ./node.env; conformance/transcripts/record_stomp.py

Each conversation is a list of steps: octets to send (a number waits so many milliseconds), and what was
heard after them. `QUEUE` becomes a name that no other conversation has, `$ACK` and `$MESSAGE_ID` the
last such headers that were heard. Heard frames have their headers in order, and placeholders for what
differs from run to run. The steps are kept, what was heard is written anew.
"""

import json
import os
import pathlib
import re
import socket
import time

PATH = pathlib.Path(__file__).parent / "stomp/conversations.json"
HOST, PORT = os.environ["STOMP_HOST"], int(os.environ["STOMP_PORT"])
QUIET_SECS = 0.6
PLACEHOLDERS = [
    (r"session-[\w-]+", "SESSION"),
    (r"stomp-subscription-[\w-]+", "stomp-subscription-NAME"),
    (r"amq\.gen-[\w-]+", "amq.gen-NAME"),
]


def hear(stream):
    """(octets until it is quiet, whether the connection was closed)"""
    said = b""
    while True:
        try:
            octets = stream.recv(65536)
        except TimeoutError:
            return said, False
        except ConnectionResetError:
            return said, True
        if not octets:
            return said, True
        said += octets


def frames(said):
    """Frames with their headers in order. Bodies have no NUL here."""
    found = []
    for frame in said.decode().split("\0"):
        head, _, body = frame.lstrip("\n").partition("\n\n")
        if head:
            command, *headers = head.split("\n")
            found.append("\n".join([command, *sorted(headers)]) + "\n\n" + body)
    return found


def converse(steps, name):
    with socket.create_connection((HOST, PORT)) as stream:
        stream.settimeout(QUIET_SECS)
        said, recorded = b"", []
        for step in steps:
            if "wait" in step:
                time.sleep(step["wait"] / 1000)
                octets = b"\n"
            else:
                octets = step["send"].encode().replace(b"QUEUE", name.encode())
                for word, header in ((b"$ACK", b"ack"), (b"$MESSAGE_ID", b"message-id")):
                    if word in octets:
                        last = re.findall(rb"\n%s:([^\n]*)\n" % header, said)[-1]
                        octets = octets.replace(word, last)
            try:
                stream.sendall(octets)
            except OSError:
                octets = b""
            heard, closed = hear(stream)
            said += heard
            text = [frame.replace(name, "QUEUE") for frame in frames(heard)]
            for pattern, word in PLACEHOLDERS:
                text = [re.sub(pattern, word, frame) for frame in text]
            recorded.append({**{k: v for k, v in step.items() if k in ("send", "wait")}, "heard": text})
            if closed:
                recorded[-1]["closed"] = True
                break
        return recorded


def main():
    conversations = json.loads(PATH.read_text())
    for number, conversation in enumerate(conversations):
        conversation["steps"] = converse(conversation["steps"], f"stomp.q{number}x")
    PATH.write_text(json.dumps(conversations, indent=1, ensure_ascii=False) + "\n")


main()
