#!/usr/bin/env python3
"""Records what ActiveMQ answers to the frames of stomp/activemq/conversations.json.

    STOMP_HOST=127.0.0.1 STOMP_PORT=61613 conformance/transcripts/record_activemq.py [FILE]

Of another FILE if one is named. A conversation is a list of steps: octets to send, on a connection if there
are several, or a number of milliseconds to wait, and what was heard after them on that connection; or the end
of a connection without a word. `QUEUE` becomes a name that no other conversation has, `$ACK`, `$MESSAGE_ID`
and `$REPLY_TO` the last such headers that were heard. Heard frames have their headers in order, and
placeholders for what differs from run to run; the trace of a Java program in an ERROR is left out. The steps
are kept, what was heard is written anew.

The node is Debian's activemq 5.17.2 with one STOMP connector, without persistence, with its scheduler on
and `expireMessagesPeriod` of 200 for all queues.
"""

import os
import pathlib
import socket
import sys
import time

import recording

PATH = pathlib.Path(sys.argv[1]) if sys.argv[1:] else pathlib.Path(__file__).parent / "stomp/activemq/conversations.json"
HOST, PORT = os.environ["STOMP_HOST"], int(os.environ["STOMP_PORT"])
QUIET_SECS = 0.35
PLACEHOLDERS = [
    (r"ID(:|\\c)[\w.-]+-\d+-\d+-\d+(:|\\c)\d+((:|\\c)-?\d+)*", "ID"),
    (r"timestamp:1[789]\d{11}", "timestamp:TIME"),
    (r"tcp(:|\\c)//[\d.:\\c]+", "tcp://PEER"),
    (r"\\c MessageAck \{[^}]*\}", ""),
]
WORDS = [(b"$ACK", b"ack"), (b"$MESSAGE_ID", b"message-id"), (b"$REPLY_TO", b"reply-to")]


def converse(steps, name):
    streams, said, recorded = {}, b"", []
    for step in steps:
        number = step.get("on", 1)
        if number not in streams:
            streams[number] = socket.create_connection((HOST, PORT))
            streams[number].settimeout(QUIET_SECS)
        stream = streams[number]
        if "end" in step:
            stream.close()
            del streams[number]
            time.sleep(QUIET_SECS)
            recorded.append(dict(step))
            continue
        octets = b"\n"
        if "wait" in step:
            time.sleep(step["wait"] / 1000)
        else:
            octets = recording.octets_of(step, name, said, WORDS)
        try:
            stream.sendall(octets)
        except OSError:
            pass
        heard, closed = recording.hear(stream)
        said += heard
        text = recording.frames(heard, name, PLACEHOLDERS, has_error_bodies=False)
        recorded.append({**{k: v for k, v in step.items() if k in ("on", "send", "wait")}, "heard": text})
        if closed:
            recorded[-1]["closed"] = True
    for stream in streams.values():
        stream.close()
    return recorded


recording.record(PATH, converse)
