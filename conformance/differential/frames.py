#!/usr/bin/env python3
"""Sends raw AMQP 0-9-1 frames to a broker, row by row, and prints what it answers as JSON.

    frames.py [--host H] [--port P] [--only TEXT] [--list]

The broker must have loaded definitions.json. `run` beside this file starts brokers and compares.
"""

import argparse
import json
import sys

# Each registers its rows. Those of an administrator come last: they stir the whole broker.
# isort: off
import rows_framing  # noqa: F401
import rows_handshake  # noqa: F401
import rows_errors  # noqa: F401
import rows_queues  # noqa: F401
import rows_routing  # noqa: F401
import rows_streams  # noqa: F401
import rows_consumers  # noqa: F401
import rows_admin  # noqa: F401

# isort: on
from probe import ROWS, ROWS_WITH_CTL, run_row


def record(host, port, only=None, ctl=None, progress=False):
    """{row: lines} of every row whose name holds `only`; without `ctl`, of those that need none."""
    answers = {}
    for name in ROWS:
        if only and only not in name or name in ROWS_WITH_CTL and not ctl:
            continue
        if progress:
            print(name, file=sys.stderr, flush=True)
        answers[name] = run_row(name, host, port, ctl)
    return answers


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5672)
    parser.add_argument("--only", help="rows whose name holds this text")
    parser.add_argument("--list", action="store_true", help="name the rows and stop")
    options = parser.parse_args()
    if options.list:
        print("\n".join(ROWS))
        return
    json.dump(record(options.host, options.port, options.only, progress=True), sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
