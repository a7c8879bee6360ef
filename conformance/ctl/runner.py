"""Runs the invocations against one broker and normalises what differs between two runs of the same broker."""
import concurrent.futures
import os
import re
import subprocess
import tempfile

import invocations


class Broker:
    """How to call one broker's command line: a program for each name, and words that stand for run-time values."""

    def __init__(self, programs, port, node, pid_file, environment=None, workers=1):
        self.programs, self.port, self.node, self.pid_file = programs, port, node, pid_file
        self.environment = dict(os.environ, **(environment or {}))
        self.workers = workers
        self.scratch = tempfile.mkdtemp(prefix="ctl-")

    def words(self):
        pid = ""
        if os.path.exists(self.pid_file):
            with open(self.pid_file, encoding="utf-8") as file:
                pid = file.read().strip()
        return {"NODE": self.node, "PIDFILE": self.pid_file, "SERVERPID": pid, "PORT": str(self.port),
                "SCRATCH": self.scratch}

    def call(self, arguments, options):
        words = self.words()
        if "CONNECTIONPID" in arguments:
            words["CONNECTIONPID"] = self.connection_pid()
        actual = []
        for argument in arguments:
            for word, value in words.items():
                argument = re.sub(rf"(?<![A-Z]){word}(?![A-Z])", lambda _, value=value: value, argument)
            actual.append(argument)
        command = [*self.programs[options.get("program", "rabbitmqctl")], *actual]
        try:
            done = subprocess.run(command, input=options.get("stdin", "").encode(), capture_output=True,
                                  env=self.environment, timeout=90, check=False)
            out, err, code = done.stdout, done.stderr, done.returncode
        except subprocess.TimeoutExpired:
            out, err, code = b"", b"timed out", None
        return {"stdout": self.normalise(out, words), "stderr": self.normalise(err, words), "exit": code}

    def connection_pid(self):
        """The pid of the connection that topology.py calls `to be closed`."""
        lines = subprocess.run([*self.programs["rabbitmqctl"], "-s", "list_connections", "pid", "client_properties"],
                               capture_output=True, text=True, env=self.environment, check=False).stdout.splitlines()
        return next((line.split("\t")[0] for line in lines if "to be closed" in line), "<none>")

    def normalise(self, output, words):
        text = output.decode("utf-8", "replace")
        text = text.replace(words["SCRATCH"], "SCRATCH").replace(words["PIDFILE"], "PIDFILE")
        text = re.sub(rf"<{re.escape(self.node)}\.\d+\.\d+\.\d+>", "<PID>", text)
        text = re.sub(r"<\d+\.\d+\.\d+>", "<PID>", text)
        # The default node name of this machine appears in help texts of some verbs only.
        text = text.replace(self.node, "NODE").replace(str(self.port), "PORT")
        text = re.sub(r"(127\.0\.0\.1|localhost):(?!PORT)\d+", r"\1:CLIENT", text)
        if words["SERVERPID"]:
            text = re.sub(rf"\b{words['SERVERPID']}\b", "SERVERPID", text)
        return text


def run_group(broker, cases, parallel):
    def one(case):
        name, arguments, options = case if len(case) == 3 else (*case, {})
        return {"id": name, "arguments": arguments, **options, **broker.call(arguments, options)}
    if parallel and broker.workers > 1:
        with concurrent.futures.ThreadPoolExecutor(broker.workers) as pool:
            return list(pool.map(one, cases))
    return [one(case) for case in cases]


def start_topology(python, port):
    """Starts topology.py and returns once its objects stand. Close its stdin to end it."""
    script = os.path.join(os.path.dirname(__file__), "topology.py")
    process = subprocess.Popen([python, script, "127.0.0.1", str(port)], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    if process.stdout.readline().strip() != "ready":
        raise SystemExit("topology.py failed")
    return process


def stop_topology(process):
    process.stdin.close()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
