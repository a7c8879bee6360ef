#!/usr/bin/env python3
"""aio-pika against a broker: robust connections, its RPC and master/worker patterns, reconnecting.

AMQP_HOST=.. AMQP_PORT=.. aio_pika_program.py [TEXT in the names of the checks to run]
"""

import asyncio
import contextlib

import aio_pika
import aiormq
from aio_pika import DeliveryMode, ExchangeType, Message
from aio_pika.patterns import RPC, Master, RejectMessage
from checks import HOST, PORT, URL, check, equal, main

WAIT_SECS = 10


@contextlib.asynccontextmanager
async def channel(**options):
    connection = await aio_pika.connect(URL)
    async with connection:
        yield await connection.channel(**options)


@check("publish with confirms, get, ack")
async def _():
    async with channel() as on:
        queue = await on.declare_queue(exclusive=True)
        message = Message(b"hello", content_type="text/plain", headers={"n": 1})
        confirmed = await on.default_exchange.publish(message, queue.name)
        equal(type(confirmed).__name__, "Ack", "confirm")
        got = await queue.get(timeout=WAIT_SECS)
        equal((got.body, got.content_type, got.headers), (b"hello", "text/plain", {"n": 1}))
        await got.ack()
        equal(await queue.get(fail=False), None, "message after ack")


@check("an unroutable message is returned")
async def _():
    async with channel(on_return_raises=True) as on:
        try:
            await on.default_exchange.publish(Message(b"lost"), "a.none")
        except aio_pika.exceptions.DeliveryError:
            return
    raise AssertionError("it was taken")


@check("iterator with prefetch over two hundred messages")
async def _():
    async with channel() as on:
        await on.set_qos(prefetch_count=10)
        queue = await on.declare_queue(exclusive=True)
        for number in range(200):
            await on.default_exchange.publish(Message(b"%d" % number), queue.name)
        got = []
        async with queue.iterator() as messages:
            async for message in messages:
                async with message.process():
                    got.append(int(message.body))
                if len(got) == 200:
                    break
        equal(got, list(range(200)), "order")


@check("process() requeues on an exception")
async def _():
    async with channel() as on:
        queue = await on.declare_queue(exclusive=True)
        await on.default_exchange.publish(Message(b"m"), queue.name)
        message = await queue.get(timeout=WAIT_SECS)
        with contextlib.suppress(ValueError):
            async with message.process(requeue=True):
                raise ValueError
        message = await queue.get(timeout=WAIT_SECS)
        equal(message.redelivered, True, "redelivered")
        await message.ack()


@check("transaction")
async def _():
    async with channel(publisher_confirms=False) as on:
        queue = await on.declare_queue(exclusive=True)
        with contextlib.suppress(ValueError):
            async with on.transaction():
                await on.default_exchange.publish(Message(b"1"), queue.name)
                raise ValueError
        async with on.transaction():
            await on.default_exchange.publish(Message(b"2"), queue.name)
        got = await queue.get(timeout=WAIT_SECS)
        equal(got.body, b"2", "committed")
        await got.ack()


@check("errors carry their texts")
async def _():
    async with channel() as on:
        try:
            await on.declare_queue("a.none", passive=True)
        except aiormq.exceptions.ChannelNotFoundEntity as error:
            equal(str(error), "NOT_FOUND - no queue 'a.none' in vhost '/'", "text")
        else:
            raise AssertionError("it is there")
    async with channel() as keep:
        await keep.declare_queue("a.redeclare", exclusive=True)
        async with channel() as on:
            try:
                await on.declare_queue("a.redeclare", exclusive=True)
            except aiormq.exceptions.ChannelLockedResource as error:
                equal(str(error).startswith("RESOURCE_LOCKED - cannot obtain exclusive"), True)
            else:
                raise AssertionError("it was shared")
        try:
            await keep.declare_queue("a.redeclare", exclusive=True, auto_delete=True)
        except aiormq.exceptions.ChannelPreconditionFailed as error:
            equal(
                str(error),
                "PRECONDITION_FAILED - inequivalent arg 'auto_delete' for queue 'a.redeclare'"
                " in vhost '/': received 'true' but current is 'false'",
                "text",
            )
        else:
            raise AssertionError("it was redeclared")


@check("exchanges: topic and headers bindings")
async def _():
    async with channel() as on:
        queue = await on.declare_queue(exclusive=True)
        topic = await on.declare_exchange("a.topic", ExchangeType.TOPIC, auto_delete=True)
        headers = await on.declare_exchange("a.headers", ExchangeType.HEADERS, auto_delete=True)
        await queue.bind(topic, "logs.*.error")
        await queue.bind(headers, "", arguments={"x-match": "any", "a": 1})
        await topic.publish(Message(b"1"), "logs.x.error")
        await topic.publish(Message(b"no"), "logs.x.info", mandatory=False)
        await headers.publish(Message(b"2", headers={"a": 1}), "")
        bodies = [(await queue.get(timeout=WAIT_SECS, no_ack=True)).body for _ in range(2)]
        equal(bodies, [b"1", b"2"], "routed")
        equal(await queue.get(fail=False), None, "further message")


@check("RPC pattern, an exception among the answers")
async def _():
    async def multiply(x, y):
        return x * y

    async def fail():
        raise ValueError("no")

    connection = await aio_pika.connect_robust(URL)
    async with connection:
        rpc = await RPC.create(await connection.channel())
        await rpc.register("multiply", multiply, auto_delete=True)
        await rpc.register("fail", fail, auto_delete=True)
        calls = [rpc.call("multiply", {"x": x, "y": 2}) for x in range(100)]
        equal(await asyncio.gather(*calls), [2 * x for x in range(100)], "answers")
        try:
            await rpc.call("fail")
        except ValueError as error:
            equal(str(error), "no", "exception")
        else:
            raise AssertionError("no exception came back")
        try:
            await rpc.call("a.nobody")
        except aio_pika.exceptions.MessageProcessError as error:
            equal(error.args[0], "Message has been returned", "text")
        else:
            raise AssertionError("a call to nobody was answered")


@check("RPC pattern: a call that nobody takes expires")
async def _():
    connection = await aio_pika.connect_robust(URL)
    async with connection:
        on = await connection.channel()
        rpc = await RPC.create(on)
        # A queue without a consumer, in the place of a server. What expires in it goes to a
        # headers exchange, and from there back to who called.
        arguments = {"x-dead-letter-exchange": RPC.DLX_NAME}
        await on.declare_queue("a.slow", exclusive=True, arguments=arguments)
        try:
            await rpc.call("a.slow", {}, expiration=1)
        except TimeoutError:
            return
    raise AssertionError("the call was answered")


@check("master and workers")
async def _():
    done = []
    finished = asyncio.Event()

    async def work(*, task):
        if task == 7 and not done.count(7):
            done.append(task)
            raise RejectMessage(requeue=True)
        done.append(task)
        if len(done) == 51:
            finished.set()

    connection = await aio_pika.connect_robust(URL)
    async with connection:
        on = await connection.channel()
        await on.set_qos(prefetch_count=5)
        master = Master(on)
        workers = [await master.create_worker("a.work", work, auto_delete=True) for _ in range(3)]
        for task in range(50):
            await master.create_task("a.work", {"task": task})
        await asyncio.wait_for(finished.wait(), WAIT_SECS)
        equal(sorted(done), sorted([*range(50), 7]), "tasks")
        for worker in workers:
            await worker.close()


class Cable:
    """A TCP relay between client and broker that can be cut."""

    async def __aenter__(self):
        self.writers = set()
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def serve(self, reader, writer):
        try:
            broker_reader, broker_writer = await asyncio.open_connection(HOST, PORT)
        except OSError:
            writer.close()
            return
        self.writers |= {writer, broker_writer}
        await asyncio.gather(self.pump(reader, broker_writer), self.pump(broker_reader, writer))

    async def pump(self, reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    def cut(self):
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    async def __aexit__(self, *_):
        self.server.close()
        self.cut()


@check("a robust connection reconnects, redeclares and goes on consuming")
async def _():
    async with Cable() as cable:
        url = URL.replace(f"{HOST}:{PORT}", f"127.0.0.1:{cable.port}")
        connection = await aio_pika.connect_robust(url, reconnect_interval=0.1)
        async with connection:
            reconnected = asyncio.Event()
            connection.reconnect_callbacks.add(lambda *_: reconnected.set())
            on = await connection.channel()
            exchange = await on.declare_exchange("a.robust", ExchangeType.FANOUT, auto_delete=True)
            queue = await on.declare_queue("a.robust", auto_delete=True, exclusive=True)
            await queue.bind(exchange)
            got = asyncio.Queue()

            async def consume(message):
                async with message.process():
                    await got.put(message.body)

            await queue.consume(consume)
            await exchange.publish(Message(b"before"), "")
            equal(await asyncio.wait_for(got.get(), WAIT_SECS), b"before")
            for _ in range(3):
                reconnected.clear()
                cable.cut()
                await asyncio.wait_for(reconnected.wait(), WAIT_SECS)
                async with asyncio.timeout(WAIT_SECS):
                    await on.ready() if hasattr(on, "ready") else None
                    # Bindings come back one by one: a message may find none of them yet.
                    while got.empty():
                        with contextlib.suppress(Exception):
                            await exchange.publish(Message(b"after"), "", mandatory=False)
                        await asyncio.sleep(0.1)
                while not got.empty():
                    equal(await got.get(), b"after")


@check("an unsettled message comes again after the connection is cut")
async def _():
    async with channel() as keep, Cable() as cable:
        await keep.declare_queue("a.cut", auto_delete=False)
        url = URL.replace(f"{HOST}:{PORT}", f"127.0.0.1:{cable.port}")
        connection = await aio_pika.connect(url)
        on = await connection.channel()
        queue = await on.declare_queue("a.cut", passive=True)
        await keep.default_exchange.publish(Message(b"m"), "a.cut")
        message = await queue.get(timeout=WAIT_SECS)
        equal(message.redelivered, False, "redelivered")
        cable.cut()
        watched = await keep.declare_queue("a.cut", passive=True)
        async with asyncio.timeout(WAIT_SECS):
            while (message := await watched.get(fail=False)) is None:
                await asyncio.sleep(0.05)
        equal((message.body, message.redelivered), (b"m", True))
        await message.ack()
        await watched.delete()
        with contextlib.suppress(Exception):
            await connection.close()


@check("persistent messages of a durable queue")
async def _():
    async with channel() as on:
        queue = await on.declare_queue("a.durable", durable=True)
        message = Message(b"m", delivery_mode=DeliveryMode.PERSISTENT, expiration=60)
        await on.default_exchange.publish(message, queue.name)
        got = await queue.get(timeout=WAIT_SECS, no_ack=True)
        equal((got.delivery_mode, got.expiration), (DeliveryMode.PERSISTENT, 60.0))
        equal((await queue.delete()).message_count, 0, "messages at deletion")


@check("a hundred connections at once")
async def _():
    connections = await asyncio.gather(*(aio_pika.connect(URL) for _ in range(100)))

    async def use(connection):
        async with connection:
            on = await connection.channel()
            queue = await on.declare_queue(exclusive=True)
            await on.default_exchange.publish(Message(b"m"), queue.name)
            return (await queue.get(timeout=WAIT_SECS, no_ack=True)).body

    equal(set(await asyncio.gather(*map(use, connections))), {b"m"}, "bodies")


if __name__ == "__main__":
    main(lambda function: asyncio.run(function()))
