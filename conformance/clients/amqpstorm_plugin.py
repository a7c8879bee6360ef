"""A pytest plugin that points amqpstorm's functional suite at the broker under test.

The suite knows a host but no port, and cleans up through a management API. This gives it the port
of AMQP_PORT, and until that API is there it deletes what a case declared over AMQP.
"""

import functools
import os

import amqpstorm
from amqpstorm import AMQPError
from amqpstorm.tests.functional import utility

PORT = int(os.environ["AMQP_PORT"])
connect = functools.partial(amqpstorm.Connection, port=PORT)
utility.Connection = connect


def clean(names, queue=False, exchange=False):
    """Deletes the queues and exchanges of a case."""
    if not queue and not exchange:
        return
    with connect(os.environ["AMQP_HOST"], "guest", "guest") as connection:
        for name in names:
            with connection.channel() as channel:
                try:
                    if queue:
                        channel.queue.delete(name)
                    if exchange:
                        channel.exchange.delete(name)
                except AMQPError:
                    pass


utility.clean = clean
