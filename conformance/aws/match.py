"""Compares an answer with a recorded one in which values that differ from run to run are named.

A name such as `<uuid:1>` stands for any text, and for the same text wherever it stands in one case.
"""

import base64
import json
import re

NAMED = re.compile(r"<[a-z-]+(?::\d+)?>|111111111111")
# What a client library adds, or says in another way by its version.
IGNORED = {"RequestId", "RetryAttempts", "HTTPHeaders", "HostId", "Detail"}
TIMES = "timestamp"


class Differs(Exception):
    """The answer is another; the text says where."""


class Matcher:
    def __init__(self):
        self.known = {}

    def match(self, expected, actual, at="$"):
        if isinstance(expected, dict) and isinstance(actual, str):
            try:
                actual = json.loads(actual)
            except ValueError:
                raise Differs(f"{at}: no JSON: {actual!r}") from None
        if isinstance(expected, dict):
            self._match_dict(expected, actual, at)
        elif isinstance(expected, list):
            if not isinstance(actual, list) or len(actual) != len(expected):
                raise Differs(f"{at}: expected {len(expected)} items, got {actual!r}")
            for index, (one, other) in enumerate(zip(expected, actual)):
                self.match(one, other, f"{at}[{index}]")
        elif isinstance(expected, str):
            self._match_text(expected, actual, at)
        elif expected != actual:
            raise Differs(f"{at}: expected {expected!r}, got {actual!r}")

    def _match_dict(self, expected, actual, at):
        if not isinstance(actual, dict):
            raise Differs(f"{at}: expected an object, got {actual!r}")
        wanted = {name for name in expected if name not in IGNORED}
        found = {name for name in actual if name not in IGNORED}
        if wanted != found:
            missing, extra = sorted(wanted - found), sorted(found - wanted)
            raise Differs(f"{at}: missing {missing}, too much {extra}")
        for name in wanted:
            self.match(expected[name], actual[name], f"{at}.{name}")

    def _match_text(self, expected, actual, at):
        if isinstance(actual, bytes):
            actual = str(actual)
        if not isinstance(actual, (str, int)):
            # Times that the library has parsed.
            if expected == TIMES:
                return
            raise Differs(f"{at}: expected {expected!r}, got {actual!r}")
        if expected == TIMES:
            return
        pattern, names, end = "", [], 0
        for named in NAMED.finditer(expected):
            pattern += re.escape(expected[end : named.start()]) + "(.+?)"
            names.append(named.group())
            end = named.end()
        pattern += re.escape(expected[end:])
        found = re.fullmatch(pattern, str(actual), re.DOTALL)
        if not found:
            raise Differs(f"{at}: expected {expected!r}, got {actual!r}")
        for name, value in zip(names, found.groups()):
            if self.known.setdefault(name, value) != value:
                raise Differs(f"{at}: {name} was {self.known[name]!r}, and is {value!r}")


def token_of(text):
    """What a token of pages is in recorded answers."""
    return base64.b64encode(text.encode()).decode()
