#!/usr/bin/env python3
"""Celery against a broker: real worker processes at work for about a minute.

    AMQP_URL=amqp://.. celery_program.py [TEXT in the names of the checks to run]

One worker answers through rpc://, one through files (chords need a backend that keeps results),
one works on quorum queues with Celery's own delayed delivery.
"""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

import checks
from checks import URL, check, equal, main

checks.CHECK_SECS_MAX = 90
DIRECTORY = pathlib.Path(tempfile.mkdtemp(prefix="celery-"))
NOTES = DIRECTORY / "notes"
WAIT_SECS = 30

os.environ.update(AMQP_URL=URL, CELERY_NOTES=str(NOTES), CELERY_BACKEND="rpc://")
NOTES.touch()

import celery_app  # noqa: E402
from celery import Celery, chain, chord, group  # noqa: E402
from celery.exceptions import TaskRevokedError  # noqa: E402

app = celery_app.app
FILES = f"file://{DIRECTORY / 'results'}"
(DIRECTORY / "results").mkdir()
workers = {}


def start(name, *arguments, **environment):
    """Starts a worker without waiting for it."""
    log = open(DIRECTORY / f"{name}.log", "wb")
    workers[name] = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "celery_app", "worker", "-l", "INFO"]
        + ["-n", f"{name}@conformance", *arguments],
        cwd=pathlib.Path(__file__).resolve().parent,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )


def until(function, what, secs=WAIT_SECS):
    """Asks until the answer is true, and returns it."""
    deadline = time.monotonic() + secs
    while True:
        if answer := function():
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {secs} s")
        time.sleep(0.1)


def inspect(name="rpc", timeout=3):
    return app.control.inspect([f"{name}@conformance"], timeout=timeout)


def answer_of(name, method):
    return (getattr(inspect(name), method)() or {}).get(f"{name}@conformance")


def notes():
    return NOTES.read_text().splitlines()


def ready(queue):
    with app.connection_for_read() as connection:
        return connection.default_channel.queue_declare(queue, passive=True).message_count


@contextlib.contextmanager
def another_app(backend, queue_type="classic"):
    """The same application with another result backend and type of queues."""
    queues = celery_app.queues_of(queue_type)[-1:]
    other = Celery("conformance", broker=URL, backend=backend)
    other.conf.update(celery_app.settings(queues, queue_type))
    yield other
    other.close()


@check("workers start and answer ping")
def _():
    start("rpc", "-c", "2", "-Q", "c.work")
    start("files", "-c", "1", "-Q", "c.priority", CELERY_BACKEND=FILES)
    names = {"rpc@conformance", "files@conformance"}

    def answered():
        replies = app.control.ping(timeout=1)
        return names == {name for reply in replies for name in reply}

    until(answered, "ping of both workers", 60)


@check("kombu takes the broker for a RabbitMQ with its own meaning of qos global")
def _():
    with app.connection_for_read() as connection:
        connection.connect()
        properties = connection.connection.server_properties
        equal(properties["product"], "RabbitMQ", "product")
        matches = connection.transport.qos_semantics_matches_spec(connection.connection)
        equal(bool(matches), False, "qos_semantics_matches_spec")


@check("results over rpc://")
def _():
    results = [celery_app.add.delay(number, number) for number in range(50)]
    equal([each.get(timeout=WAIT_SECS) for each in results], [2 * n for n in range(50)])


@check("a failure comes back as its exception")
def _():
    try:
        celery_app.fail.delay("lost").get(timeout=WAIT_SECS)
    except KeyError as error:
        equal(error.args, ("lost",))
    else:
        raise AssertionError("no exception")


@check("prefetch: two slots hold two messages, the rest stays in the queue")
def _():
    results = [celery_app.remember.delay(f"slot {n}", 1.5) for n in range(6)]
    until(lambda: sum(line.startswith("slot") for line in notes()) == 2, "two running tasks")
    equal(ready("c.work"), 4, "ready")
    for each in results:
        each.get(timeout=WAIT_SECS)
    until(lambda: ready("c.work") == 0, "empty queue")


@check("retries")
def _():
    equal(celery_app.flaky.delay(2).get(timeout=WAIT_SECS), 2, "retries")
    try:
        celery_app.flaky.delay(10).get(timeout=WAIT_SECS)
    except ValueError as error:
        equal(str(error), "not yet")
    else:
        raise AssertionError("it never gave up")


@check("countdown: tasks that wait raise the prefetch and do not hold others up")
def _():
    started = time.time()
    waiting = [celery_app.when.apply_async(countdown=4) for _ in range(10)]
    until(lambda: len(answer_of("rpc", "scheduled") or []) == 10, "ten scheduled tasks")
    equal(celery_app.add.delay(1, 1).get(timeout=3), 2, "a task that does not wait")
    equal(time.time() - started < 20, True, "time left")
    for each in waiting:
        late = each.get(timeout=WAIT_SECS) - started - 4
        equal(-0.1 < late < 10, True, f"{late} s late")


@check("priorities")
def _():
    order = [1, 9, 5, 0, 7, 3]
    with another_app(FILES) as other:
        task = "celery_app.remember"
        blocker = other.send_task(task, ["blocker", 3], priority=0)
        until(lambda: "blocker" in notes(), "a running blocker")
        results = [
            other.send_task(task, [f"priority {number}"], priority=number) for number in order
        ]
        for each in (blocker, *results):
            each.get(timeout=WAIT_SECS)
    done = [line for line in notes() if line.startswith("priority") and "ended" not in line]
    equal(done, [f"priority {number}" for number in sorted(order, reverse=True)], "order")


@check("chain, group and chord")
def _():
    with another_app(FILES) as other:
        add = other.signature("celery_app.add", queue="c.priority")
        total = other.signature("celery_app.total", queue="c.priority")
        equal(chain(add.clone((1, 2)), add.clone((3,)))().get(timeout=WAIT_SECS), 6, "chain")
        result = group([add.clone((n, 1)) for n in range(5)], app=other).apply_async()
        equal(result.get(timeout=WAIT_SECS), [1, 2, 3, 4, 5], "group")
        result = chord([add.clone((n, n)) for n in range(10)], app=other)(total)
        equal(result.get(timeout=WAIT_SECS), 90, "chord")


@check("revoke: a waiting task, and one that runs")
def _():
    waiting = celery_app.remember.apply_async(["revoked"], countdown=3)
    until(lambda: answer_of("rpc", "scheduled"), "a scheduled task")
    waiting.revoke()
    until(lambda: waiting.id in (answer_of("rpc", "revoked") or []), "the revoked task")
    running = celery_app.remember.delay("terminated", 60)
    until(lambda: "terminated" in notes(), "a running task")
    running.revoke(terminate=True)
    for each in (running, waiting):
        try:
            each.get(timeout=WAIT_SECS)
        except TaskRevokedError:
            continue
        raise AssertionError("it was not revoked")
    equal("revoked" in notes(), False, "the revoked task ran")


@check("remote control: active, stats, registered, queues, rate limit")
def _():
    task = celery_app.remember.delay("watched", 3)
    until(lambda: "watched" in notes(), "a running task")
    equal([each["id"] for each in answer_of("rpc", "active")], [task.id], "active")
    stats = answer_of("rpc", "stats")
    equal(stats["pool"]["max-concurrency"], 2, "concurrency")
    equal(stats["prefetch_count"], 2, "prefetch_count")
    equal("celery_app.add" in answer_of("rpc", "registered"), True, "registered")
    equal([each["name"] for each in answer_of("rpc", "active_queues")], ["c.work"], "queues")
    (reply,) = app.control.rate_limit(
        "celery_app.add", "100/s", destination=["rpc@conformance"], reply=True, timeout=3
    )
    equal("ok" in reply["rpc@conformance"], True, "rate limit")
    task.get(timeout=WAIT_SECS)


@check("consumers come and go by remote control; the pool grows")
def _():
    where = {"destination": ["rpc@conformance"], "reply": True, "timeout": 3}
    equal(len(app.control.add_consumer("c.extra", **where)), 1, "replies")
    result = celery_app.add.apply_async((2, 3), queue="c.extra")
    equal(result.get(timeout=WAIT_SECS), 5, "result")
    equal(len(app.control.cancel_consumer("c.extra", **where)), 1, "replies")
    app.control.pool_grow(1, **where)
    until(lambda: answer_of("rpc", "stats")["prefetch_count"] == 3, "prefetch of three")
    app.control.pool_shrink(1, **where)
    until(lambda: answer_of("rpc", "stats")["prefetch_count"] == 2, "prefetch of two")


@check("events")
def _():
    seen, stop = set(), threading.Event()

    def capture():
        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(
                connection, handlers={"*": lambda event: seen.add(event["type"])}
            )
            with contextlib.suppress(OSError):
                for _ in receiver.itercapture(timeout=WAIT_SECS, wakeup=True):
                    if stop.is_set():
                        return

    thread = threading.Thread(target=capture, daemon=True)
    thread.start()
    wanted = {"task-sent", "task-received", "task-started", "task-succeeded", "worker-heartbeat"}

    def complete():
        celery_app.add.delay(1, 1).get(timeout=WAIT_SECS)
        return wanted <= seen

    until(complete, f"events {wanted}")
    stop.set()


@check("warm shutdown finishes what runs and leaves the rest in the queue")
def _():
    results = [celery_app.remember.delay(f"last {number}", 3) for number in range(4)]
    until(lambda: sum(line.startswith("last") for line in notes()) == 2, "two running tasks")
    worker = workers["rpc"]
    worker.send_signal(signal.SIGTERM)
    equal(worker.wait(WAIT_SECS), 0, "exit status")
    ended = [line for line in notes() if line.startswith("last") and line.endswith("ended")]
    equal(sorted(ended), ["last 0 ended", "last 1 ended"], "ended tasks")
    equal(ready("c.work"), 2, "ready")
    for each in results[:2]:
        each.get(timeout=WAIT_SECS)
    start("rpc", "-c", "2", "-Q", "c.work")
    for each in results[2:]:
        each.get(timeout=60)


@check("a killed worker's task runs again")
def _():
    result = celery_app.remember.delay("killed", 4)
    until(lambda: "killed" in notes(), "a running task")
    worker = workers["rpc"]
    children = subprocess.run(
        ["ps", "--ppid", str(worker.pid), "-o", "pid="], capture_output=True, text=True
    ).stdout.split()
    for pid in (worker.pid, *map(int, children)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    worker.wait()
    until(lambda: ready("c.work") == 1, "the task back in the queue")
    start("rpc", "-c", "1", "-Q", "c.work")
    equal(result.get(timeout=60), "killed", "result")
    equal(notes().count("killed"), 2, "starts")


@check("quorum queues, with Celery's delayed delivery")
def _():
    start("quorum", "-c", "1", "-Q", "c.quorum", CELERY_BACKEND=FILES, CELERY_QUEUE_TYPE="quorum")
    until(lambda: answer_of("quorum", "ping"), "ping of the quorum worker", 60)
    with another_app(FILES, "quorum") as other:
        result = other.send_task("celery_app.add", [20, 22])
        equal(result.get(timeout=WAIT_SECS), 42, "result")
        started = time.time()
        result = other.send_task(
            "celery_app.when",
            exchange="celery_delayed_27",
            routing_key=".".join(["0"] * 26 + ["1", "0", "c.quorum"]),
        )
        late = result.get(timeout=WAIT_SECS) - started - 2
        equal(-0.1 < late < 10, True, f"{late} s late")


def finish():
    for name, worker in workers.items():
        if worker.poll() is None:
            worker.terminate()
    for name, worker in workers.items():
        try:
            worker.wait(WAIT_SECS)
        except subprocess.TimeoutExpired:
            worker.kill()
        log = (DIRECTORY / f"{name}.log").read_text(errors="replace")
        print(f"---- {name}\n{log[-3000:]}", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    finally:
        finish()
