"""Points stompest's integration cases at the broker under test: they know it by literals.

Read before the cases, which import the literals by name; one case has the port in its text. Reads
STOMP_HOST and STOMP_PORT, and in STOMP_DIALECT whose conventions the cases follow.
"""

import functools
import os

import stompest.config
import stompest.tests as literals

literals.HOST = os.environ["STOMP_HOST"]
literals.PORT = int(os.environ["STOMP_PORT"])
literals.BROKER = os.environ.get("STOMP_DIALECT", "rabbitmq")
literals.LOGIN, literals.PASSCODE, literals.VIRTUALHOST = {
    "activemq": ("", "", ""),
    "rabbitmq": ("guest", "guest", "/"),
}[literals.BROKER]

make = stompest.config.StompConfig.__init__


@functools.wraps(make)
def with_port(self, uri, *arguments, **options):
    uri = uri.replace("localhost:61613", f"{literals.HOST}:{literals.PORT}")
    make(self, uri, *arguments, **options)


stompest.config.StompConfig.__init__ = with_port
