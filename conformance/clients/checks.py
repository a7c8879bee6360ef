"""What the scripted programs share: one line a check, a limit on its time, and the exit status."""

import os
import signal
import sys
import traceback

HOST = os.environ.get("AMQP_HOST", "127.0.0.1")
PORT = int(os.environ.get("AMQP_PORT", "5672"))
USER = os.environ.get("AMQP_USER", "guest")
PASSWORD = os.environ.get("AMQP_PASSWORD", "guest")
URL = os.environ.get("AMQP_URL", f"amqp://{USER}:{PASSWORD}@{HOST}:{PORT}/")
CHECK_SECS_MAX = 30

CHECKS = []


def check(name):
    """Registers a function as the check `name`; it passes when it returns."""

    def register(function):
        CHECKS.append((name, function))
        return function

    return register


def equal(answer, expected, what="value"):
    if answer != expected:
        raise AssertionError(f"{what} is {answer!r}, not {expected!r}")


def report(name, error=None):
    if error is None:
        print(f"ok {name}", flush=True)
    else:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"not ok {name}: {text}", flush=True)
        traceback.print_exception(error, file=sys.stderr)


def too_long(*_):
    raise TimeoutError(f"no end after {CHECK_SECS_MAX} s")


def main(run=lambda function: function()):
    """Runs every check, or those whose name holds the first argument, and exits."""
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    signal.signal(signal.SIGALRM, too_long)
    failed = 0
    for name, function in CHECKS:
        if only not in name:
            continue
        signal.alarm(CHECK_SECS_MAX)
        try:
            run(function)
        except Exception as error:
            failed += 1
            report(name, error)
        else:
            report(name)
        finally:
            signal.alarm(0)
    sys.exit(1 if failed else 0)
