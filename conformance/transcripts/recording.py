"""What the recorders of STOMP conversations have in common: hearing frames, and writing what was heard."""

import json
import re


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


def frames(said, name, placeholders, has_error_bodies=True):
    """Frames with their headers in order, and placeholders for the name and for what differs from run to run.
    Bodies have no NUL here."""
    found = []
    for frame in said.decode().split("\0"):
        head, _, body = frame.lstrip("\n").partition("\n\n")
        if not head:
            continue
        command, *headers = head.split("\n")
        body = body if command != "ERROR" or has_error_bodies else ""
        text = ("\n".join([command, *sorted(headers)]) + "\n\n" + body).replace(name, "QUEUE")
        for pattern, word in placeholders:
            text = re.sub(pattern, word, text)
        found.append(text)
    return found


def octets_of(step, name, said, words):
    """What a step sends; `words` stand for the last such header that was heard."""
    octets = step["send"].encode().replace(b"QUEUE", name.encode())
    for word, header in words:
        if word in octets:
            octets = octets.replace(word, (re.findall(rb"\n%s:([^\n]*)\n" % header, said) or [b""])[-1])
    return octets


def record(path, converse):
    """Has `converse` play each conversation of a file and writes it anew."""
    conversations = json.loads(path.read_text())
    for number, conversation in enumerate(conversations):
        conversation["steps"] = converse(conversation["steps"], f"stomp.q{number}x")
    path.write_text(json.dumps(conversations, indent=1, ensure_ascii=False) + "\n")
