"""Rows of the comparison: what registers them, runs one against a broker and cleans up after it."""

import time

import wire
from wire import Ended, Peer, method

ROWS = {}
ROWS_WITH_CTL = set()
CAPABILITIES = {
    "publisher_confirms": True,
    "exchange_exchange_bindings": True,
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "authentication_failure_close": True,
}


def row(section, title, ctl=False):
    """Registers a function of a Probe as the row `section title`; says whether it needs ctl."""

    def register(function):
        name = f"{section} {title}"
        if ctl:
            ROWS_WITH_CTL.add(name)
        if name in ROWS:
            raise ValueError(f"two rows are called {name}")
        ROWS[name] = function
        return function

    return register


class Client(Peer):
    """A peer that remembers what it declared, so that the next row finds a clean broker."""

    def __init__(self, probe, label):
        super().__init__(probe.host, probe.port, probe.transcript, label)
        self.probe = probe

    def send(self, channel, name, **values):
        if values.get("passive"):
            pass
        elif name == "queue.declare":
            self.probe.declared.append(("queue", values.get("queue", "")))
        elif name == "exchange.declare":
            self.probe.declared.append(("exchange", values.get("exchange", "")))
        super().send(channel, name, **values)

    def start(self):
        """Header out, Connection.Start in; not recorded."""
        self.raw(wire.HEADER_0_9_1)
        return self.expect("connection.start", silent=True)

    def login(self, user="guest", password="guest", capabilities=None, properties=None):
        capabilities = CAPABILITIES if capabilities is None else capabilities
        self.raw(
            method(
                0,
                "connection.start-ok",
                properties={"capabilities": capabilities, **(properties or {})},
                mechanism="PLAIN",
                response=f"\0{user}\0{password}",
                locale="en_US",
            )
        )

    def handshake(self, vhost="/", channel_max=2047, frame_max=131072, heartbeat=0, **login):
        self.start()
        self.login(**login)
        self.tuned(vhost, channel_max, frame_max, heartbeat)

    def tuned(self, vhost="/", channel_max=2047, frame_max=131072, heartbeat=0):
        if self.expect("connection.tune", silent=True).name != "connection.tune":
            raise Ended("login failed")
        self.tune_ok(channel_max, frame_max, heartbeat)
        self.raw(method(0, "connection.open", vhost=vhost))
        if self.expect("connection.open-ok", silent=True).name != "connection.open-ok":
            raise Ended(f"vhost {vhost!r} did not open")

    def tune_ok(self, channel_max=2047, frame_max=131072, heartbeat=0):
        self.raw(
            method(
                0,
                "connection.tune-ok",
                channel_max=channel_max,
                frame_max=frame_max,
                heartbeat=heartbeat,
            )
        )

    def channel(self, channel):
        """Opens a channel; not recorded."""
        self.closed_channels.discard(channel)
        self.send(channel, "channel.open")
        if self.expect("channel.open-ok", silent=True).name != "channel.open-ok":
            raise Ended(f"channel {channel} did not open")

    def declare(self, queue, arguments=None, channel=1, **flags):
        return self.call(channel, "queue.declare", queue=queue, arguments=arguments or {}, **flags)

    def exchange(self, exchange, kind="direct", arguments=None, channel=1, **flags):
        return self.call(
            channel,
            "exchange.declare",
            exchange=exchange,
            type=kind,
            arguments=arguments or {},
            **flags,
        )

    def bind(self, queue, exchange, key="", arguments=None, channel=1):
        return self.call(
            channel,
            "queue.bind",
            queue=queue,
            exchange=exchange,
            key=key,
            arguments=arguments or {},
        )

    def get(self, queue, no_ack=True, channel=1):
        self.send(channel, "basic.get", queue=queue, no_ack=no_ack)
        return self.expect("basic.get-ok", "basic.get-empty")

    def consume(self, queue, tag="c", channel=1, **options):
        return self.call(channel, "basic.consume", queue=queue, tag=tag, **options)

    def count(self, queue, channel=1):
        """Records the ready messages and consumers of a queue."""
        return self.call(channel, "queue.declare", queue=queue, passive=True)

    def confirmed(self, exchange, key, body="", channel=1, **options):
        """Publishes on a channel in confirm mode and records the broker's answer."""
        self.publish(channel, exchange, key, body, **options)
        return self.expect("basic.ack", "basic.nack")

    def await_count(self, queue, messages, channel=1, secs=wire.ANSWER_SECS_MAX):
        """Asks until the queue holds that many ready messages, for moves that nobody announces."""
        deadline = time.monotonic() + secs
        while True:
            self.send(channel, "queue.declare", queue=queue, passive=True)
            event = self.expect("queue.declare-ok", silent=True)
            if event.name != "queue.declare-ok":
                self.note(event.line())
                raise Ended(f"{queue} cannot be asked")
            if event["messages"] == messages:
                self.note(f"{queue} holds {messages}")
                return
            if time.monotonic() > deadline:
                self.note(f"{queue} holds {event['messages']}, not {messages}")
                return
            time.sleep(0.02)


class Probe:
    """One row's view of a broker: opens its connections and holds its transcript."""

    def __init__(self, host, port, ctl=None):
        self.host = host
        self.port = port
        self.ctl = ctl
        self.transcript = []
        self.declared = []
        self.clients = []

    def bare(self, label=""):
        client = Client(self, label)
        self.clients.append(client)
        return client

    def open(self, label="", channels=1, **handshake):
        """A connection past its handshake with channels 1..n open; none of that is recorded."""
        client = self.bare(label)
        client.handshake(**handshake)
        for channel in range(1, channels + 1):
            client.channel(channel)
        return client

    def note(self, text):
        self.transcript.append(text)

    def close(self):
        for client in self.clients:
            client.close()

    def clean(self):
        """Deletes what the row declared, through a connection that is recorded nowhere."""
        names = [
            (kind, name)
            for kind, name in dict.fromkeys(self.declared)
            if name and isinstance(name, str) and not name.startswith("amq.")
        ]
        if not names:
            return
        cleaner = Probe(self.host, self.port)
        try:
            client = cleaner.open()
            for kind, name in names:
                if 1 in client.closed_channels:
                    client.channel(1)
                client.call(1, f"{kind}.delete", **{kind: name})
        except (Ended, OSError):
            pass
        finally:
            cleaner.close()


def run_row(name, host, port, ctl=None):
    """The lines that the row `name` records against this broker.

    `ctl` is a function that runs one administration command.
    """
    probe = Probe(host, port, ctl)
    try:
        ROWS[name](probe)
    except Ended as ended:
        probe.note(f"row ended: {ended}")
    except (OSError, ValueError, RuntimeError) as error:
        probe.note(f"row failed: {type(error).__name__}: {error}")
    probe.close()
    probe.clean()
    return probe.transcript


__all__ = [
    "CAPABILITIES",
    "Client",
    "Ended",
    "Probe",
    "ROWS",
    "ROWS_WITH_CTL",
    "row",
    "run_row",
]
