"""How the suites start and stop a broker: the one place that knows Tern's flags, RabbitMQ's and ActiveMQ's.

Each broker is a child process on loopback ports that the system chose, with its data in a
directory of its own. It is ended by its process id and by nothing else.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
RABBITMQ_BIN = pathlib.Path(os.environ.get("RABBITMQ_BIN", "/usr/lib/rabbitmq/bin"))
RABBITMQ_PLUGINS = (
    "rabbitmq_consistent_hash_exchange",
    "rabbitmq_random_exchange",
    "rabbitmq_recent_history_exchange",
    "rabbitmq_sharding",
    "rabbitmq_stomp",
)
START_SECS_MAX = 120
STOP_SECS_MAX = 60


class Broker:
    """A running broker: where it listens, how to administer it, how to end it."""

    kind = "external"

    def __init__(self, host="127.0.0.1", port=5672, user="guest", password="guest", ctl=()):
        self.host = host
        self.port = port
        self.user = user
        self.password = password
        self.ctl = list(ctl)
        self.ctl_env = {}
        self.stomp_port = 61613
        self.web_stomp_port = None
        self.aws_port = None
        self.pid = None

    def url(self):
        return f"amqp://{self.user}:{self.password}@{self.host}:{self.port}/"

    def stomp_url(self):
        return f"stomp://{self.user}:{self.password}@{self.host}:{self.stomp_port}/"

    def env(self):
        """The environment in which every suite and program finds its broker."""
        return {
            "AMQP_URL": self.url(),
            "AMQP_HOST": self.host,
            "AMQP_PORT": str(self.port),
            "AMQP_USER": self.user,
            "AMQP_PASSWORD": self.password,
            "AMQP_BROKER": self.kind,
            "STOMP_HOST": self.host,
            "STOMP_PORT": str(self.stomp_port),
            "WEB_STOMP_PORT": str(self.web_stomp_port or ""),
            "AWS_ENDPOINT_URL": f"http://{self.host}:{self.aws_port}" if self.aws_port else "",
            "AMQP_CTL": json.dumps(self.ctl),
            "AMQP_CTL_ENV": json.dumps(self.ctl_env),
        }

    def run_ctl(self, *arguments, timeout=120):
        """Runs one administration command and returns its output; a failure is an exception."""
        if not self.ctl:
            raise RuntimeError("this broker has no ctl command")
        done = subprocess.run(
            [*self.ctl, *arguments],
            env={**os.environ, **self.ctl_env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if done.returncode:
            raise RuntimeError(f"ctl {arguments}: {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def stop(self):
        pass

    def log_tail(self):
        return ""


class Tern(Broker):
    kind = "tern"

    def __init__(self, directory, definitions=None, executable=None, settings=None):
        super().__init__()
        self.directory = pathlib.Path(directory)
        executable = executable or os.environ.get("TERN") or ROOT / "target/release/tern"
        data = self.directory / "data"
        ports = self.directory / "ports.json"
        env = {**os.environ, "TERN_AMQP_PORT": "0", "TERN_STOMP_PORT": "0", "TERN_AWS_PORT": "0", **(settings or {})}
        if definitions:
            env["TERN_DEFINITIONS_FILE"] = str(definitions)
        self.log = self.directory / "log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [str(executable), "serve", "--data", str(data), "--ports-file", str(ports)],
                cwd=self.directory,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.pid = self.process.pid
        self.ctl = [str(executable), "ctl"]
        self.ctl_env = {"TERN_SERVER_DATA_DIR": str(data), "TERN_SERVER_PORTS_FILE": str(ports)}
        try:
            await_true(lambda: self._read_ports(ports), self.process, "Tern's ports file")
            await_handshake(self)
        except BaseException:
            self.stop()
            raise

    def _read_ports(self, path):
        try:
            ports = json.loads(path.read_text())
            self.port, self.stomp_port, self.web_stomp_port = ports["amqp"], ports["stomp"], ports["web_stomp"]
            self.aws_port = ports["aws"]
        except (OSError, ValueError, KeyError):
            return False
        return True

    def stop(self):
        end(self.process)

    def log_tail(self):
        return tail(self.log)


class RabbitMQ(Broker):
    """A node of Debian's rabbitmq-server, with an epmd of its own beside it."""

    kind = "rabbitmq"

    def __init__(self, directory, definitions=None):
        super().__init__()
        self.directory = pathlib.Path(directory)
        self.port, self.stomp_port, distribution, epmd = free_ports(4)
        node = f"conformance{self.port}@localhost"
        conf = self.directory / "rabbitmq.conf"
        lines = [
            f"listeners.tcp.1 = 127.0.0.1:{self.port}",
            f"stomp.listeners.tcp.1 = 127.0.0.1:{self.stomp_port}",
            "vm_memory_high_watermark.absolute = 1GB",
            "disk_free_limit.absolute = 10MB",
        ]
        if definitions:
            lines.append(f"load_definitions = {definitions}")
        conf.write_text("\n".join(lines) + "\n")
        plugins = self.directory / "enabled_plugins"
        plugins.write_text("[" + ",".join(RABBITMQ_PLUGINS) + "].\n")
        (self.directory / "rabbitmq-env.conf").write_text("")
        self.ctl_env = {
            "HOME": str(self.directory),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": node,
            "RABBITMQ_CONF_ENV_FILE": str(self.directory / "rabbitmq-env.conf"),
        }
        env = {
            **os.environ,
            **self.ctl_env,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_CONFIG_FILE": str(conf),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
        }
        self.ctl = [str(RABBITMQ_BIN / "rabbitmqctl")]
        # Without an epmd of our own the node would start one that outlives it.
        self.epmd = subprocess.Popen(
            ["epmd", "-address", "127.0.0.1", "-port", str(epmd)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.output = self.directory / "output"
        with open(self.output, "wb") as output:
            self.process = subprocess.Popen(
                [str(RABBITMQ_BIN / "rabbitmq-server")],
                cwd=self.directory,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.pid = self.process.pid
        try:
            await_handshake(self)
        except BaseException:
            self.stop()
            raise

    def stop(self):
        end(self.process)
        end(self.epmd)

    def log_tail(self):
        return tail(self.output)


class ActiveMQ(Broker):
    """Debian's activemq as its instance `main` is set up, with a STOMP connector instead of OpenWire's."""

    kind = "activemq"

    def __init__(self, directory):
        super().__init__()
        self.directory = pathlib.Path(directory)
        (self.stomp_port,) = free_ports(1)
        self.port = None
        conf = self.directory / "activemq.xml"
        conf.write_text(ACTIVEMQ_XML.format(directory=self.directory, port=self.stomp_port))
        opens = [f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in ("lang", "util", "net", "security")]
        settings = [f"-Dactivemq.{name}={self.directory}" for name in ("base", "conf", "data")]
        jar = ACTIVEMQ_HOME / "bin/activemq.jar"
        self.output = self.directory / "output"
        with open(self.output, "wb") as output:
            self.process = subprocess.Popen(
                # The memory that Debian's instances have.
                ["java", "-Xms512M", "-Xmx512M", "-Dorg.apache.activemq.UseDedicatedTaskRunner=true", *opens]
                + [f"-Dactivemq.home={ACTIVEMQ_HOME}", *settings, "-jar", str(jar), "start", f"xbean:file:{conf}"],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.pid = self.process.pid
        try:
            await_true(self._answers, self.process, "ActiveMQ's CONNECTED")
        except BaseException as error:
            self.stop()
            raise RuntimeError(f"{error}\n{self.log_tail()}") from None

    def _answers(self):
        try:
            with socket.create_connection((self.host, self.stomp_port), timeout=5) as peer:
                peer.sendall(b"CONNECT\naccept-version:1.2\nhost:/\n\n\0")
                return peer.recv(9) == b"CONNECTED"
        except OSError:
            return False

    def stop(self):
        end(self.process)

    def log_tail(self):
        return tail(self.output)


ACTIVEMQ_HOME = pathlib.Path("/usr/share/activemq")
ACTIVEMQ_XML = """<beans xmlns="http://www.springframework.org/schema/beans"
  xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:schemaLocation="http://www.springframework.org/schema/beans
  http://www.springframework.org/schema/beans/spring-beans-2.0.xsd
  http://activemq.apache.org/schema/core http://activemq.apache.org/schema/core/activemq-core.xsd">
  <broker xmlns="http://activemq.apache.org/schema/core" useJmx="false" brokerName="localhost"
          dataDirectory="{directory}/data">
    <persistenceAdapter><kahaDB directory="{directory}/data/kahadb"/></persistenceAdapter>
    <transportConnectors><transportConnector name="stomp" uri="stomp://127.0.0.1:{port}"/></transportConnectors>
  </broker>
</beans>
"""

KINDS = {"tern": Tern, "rabbitmq": RabbitMQ, "activemq": ActiveMQ}


@contextlib.contextmanager
def running(kind, definitions=None, **options):
    """A fresh broker in a fresh directory for the length of the block."""
    directory = tempfile.mkdtemp(prefix=f"conformance-{kind}-")
    try:
        broker = KINDS[kind](directory, definitions=definitions, **options)
        try:
            yield broker
        finally:
            broker.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def free_ports(count):
    """Loopback ports that were free a moment ago, for a broker that cannot choose its own."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def await_true(check, process, what):
    deadline = time.monotonic() + START_SECS_MAX
    while not check():
        if process.poll() is not None:
            raise RuntimeError(f"{what}: the broker ended with {process.returncode}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not there after {START_SECS_MAX} s")
        time.sleep(0.05)


def await_handshake(broker):
    """Waits until the broker answers a protocol header with Connection.Start."""

    def answers():
        try:
            with socket.create_connection((broker.host, broker.port), timeout=5) as peer:
                peer.sendall(b"AMQP\x00\x00\x09\x01")
                return peer.recv(1) == b"\x01"
        except OSError:
            return False

    try:
        await_true(answers, broker.process, f"{broker.kind}'s handshake")
    except RuntimeError as error:
        raise RuntimeError(f"{error}\n{broker.log_tail()}") from None


def end(process):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def tail(path, bytes_max=4000):
    try:
        return path.read_bytes()[-bytes_max:].decode(errors="replace")
    except OSError:
        return ""
