/**
 * @cloudamqp/amqp-client against a broker: its channels over TCP and its sessions.
 *
 *     AMQP_URL=amqp://.. node cloudamqp_program.mjs [TEXT in the names of the checks to run]
 */
import checks from './checks.js';

const { assert, check, entry, main, promised, url } = checks;
const { AMQPClient, AMQPSession } = await import(entry('@cloudamqp/amqp-client'));

async function channel(use) {
  const client = new AMQPClient(url);
  // What it would print stands in the errors that the checks await.
  client.logger = null;
  const connection = await client.connect();
  try {
    return await use(await connection.channel(), connection);
  } finally {
    if (!connection.closed) await connection.close();
  }
}

async function rejects(promise, text) {
  await assert.rejects(promise, (error) => {
    assert.ok(error.message.includes(text), `${error.message} does not hold ${text}`);
    return true;
  });
}

async function get(on, queue, options = { noAck: true }) {
  let message = await on.basicGet(queue, options);
  while (message === null) message = await on.basicGet(queue, options);
  return message;
}

check('declare, publish, get, counts', () =>
  channel(async (on) => {
    const declared = await on.queueDeclare('', { exclusive: true, durable: false });
    assert.match(declared.name, /^amq\.gen-/);
    assert.deepEqual([declared.messageCount, declared.consumerCount], [0, 0]);
    await on.basicPublish('', declared.name, 'hello', { contentType: 'text/plain' });
    const message = await get(on, declared.name);
    assert.equal(message.bodyToString(), 'hello');
    assert.equal(message.properties.contentType, 'text/plain');
    assert.equal(message.messageCount, 0);
    assert.equal((await on.queueDelete(declared.name)).messageCount, 0);
  }));

check('every property and header type', () =>
  channel(async (on) => {
    const { name } = await on.queueDeclare('', { exclusive: true });
    const headers = {
      text: 'a',
      integer: 1,
      negative: -(2 ** 40),
      float: 1.5,
      yes: true,
      nothing: null,
      list: [1, 'two', { three: 3 }],
      table: { nested: { deep: 'value' } },
      date: new Date(1700000000000),
    };
    const properties = {
      contentType: 'a/b',
      contentEncoding: 'identity',
      headers,
      deliveryMode: 2,
      priority: 9,
      correlationId: 'c',
      replyTo: 'r',
      expiration: '60000',
      messageId: 'm',
      timestamp: new Date(1700000000000),
      type: 't',
      userId: 'guest',
      appId: 'a',
    };
    await on.basicPublish('', name, 'x', properties);
    const message = await get(on, name);
    assert.deepEqual(message.properties, properties);
  }));

check('confirms', () =>
  channel(async (on) => {
    const { name } = await on.queueDeclare('', { exclusive: true });
    await on.confirmSelect();
    const tags = await Promise.all(
      Array.from({ length: 100 }, (_, number) => on.basicPublish('', name, `${number}`)),
    );
    assert.deepEqual(
      tags,
      Array.from({ length: 100 }, (_, number) => number + 1),
    );
  }));

check('a rejected publish', () =>
  channel(async (on) => {
    const { name } = await on.queueDeclare(
      '',
      { exclusive: true },
      { 'x-max-length': 1, 'x-overflow': 'reject-publish' },
    );
    await on.confirmSelect();
    await on.basicPublish('', name, '1');
    await rejects(on.basicPublish('', name, '2'), 'rejected');
  }));

check('consume with a callback, ack, nack, redelivery', () =>
  channel(async (on) => {
    const { name } = await on.queueDeclare('', { exclusive: true });
    await on.prefetch(1);
    const got = [];
    const { promise, resolve } = promised();
    const consumer = await on.basicConsume(name, { noAck: false }, async (message) => {
      got.push([message.bodyToString(), message.redelivered]);
      if (got.length === 1) return message.nack(true);
      await message.ack();
      if (got.length === 3) resolve();
    });
    await on.basicPublish('', name, 'a');
    await on.basicPublish('', name, 'b');
    await promise;
    assert.deepEqual(got, [
      ['a', false],
      ['a', true],
      ['b', false],
    ]);
    await consumer.cancel();
  }));

check('consume with an iterator', () =>
  channel(async (on) => {
    const { name } = await on.queueDeclare('', { exclusive: true });
    for (let number = 0; number < 50; number++) await on.basicPublish('', name, `${number}`);
    await on.prefetch(10);
    const consumer = await on.basicConsume(name, { noAck: false });
    const got = [];
    for await (const message of consumer.messages) {
      got.push(Number(message.bodyToString()));
      await message.ack();
      if (got.length === 50) break;
    }
    assert.deepEqual(got, [...Array(50).keys()]);
  }));

check('mandatory message comes back', () =>
  channel(async (on) => {
    const { promise, resolve } = promised();
    on.onReturn = resolve;
    await on.basicPublish('amq.direct', 'nobody', 'back', {}, true);
    const message = await promise;
    assert.deepEqual([message.replyCode, message.replyText], [312, 'NO_ROUTE']);
    assert.equal(message.bodyToString(), 'back');
  }));

check('transaction', () =>
  channel(async (on, connection) => {
    const watch = await connection.channel();
    const { name } = await watch.queueDeclare('', { exclusive: true });
    await on.txSelect();
    await on.basicPublish('', name, '1');
    await on.txRollback();
    await on.basicPublish('', name, '2');
    assert.equal(await watch.basicGet(name, { noAck: true }), null);
    await on.txCommit();
    assert.equal((await get(watch, name)).bodyToString(), '2');
  }));

check('exchange types, bindings and unbinding', () =>
  channel(async (on) => {
    const { name } = await on.queueDeclare('', { exclusive: true });
    for (const type of ['direct', 'fanout', 'topic', 'headers']) {
      const exchange = `c.${type}`;
      await on.exchangeDeclare(exchange, type, { durable: false });
      await on.queueBind(name, exchange, 'key', { 'x-match': 'all' });
      await on.basicPublish(exchange, 'key', type);
      assert.equal((await get(on, name)).bodyToString(), type);
      await on.queueUnbind(name, exchange, 'key', { 'x-match': 'all' });
      await on.basicPublish(exchange, 'key', 'dropped');
      assert.equal(await on.basicGet(name, { noAck: true }), null);
      await on.exchangeDelete(exchange);
    }
  }));

check('cancel, purge, flow, recover', () =>
  channel(async (on) => {
    const { name } = await on.queueDeclare('', { exclusive: true });
    assert.equal(await on.basicFlow(true), true);
    await on.basicPublish('', name, '1');
    await get(on, name, { noAck: false });
    await on.basicRecover(true);
    const again = await get(on, name, { noAck: false });
    assert.equal(again.redelivered, true);
    await again.ack();
    await on.basicPublish('', name, '2');
    await on.queueDeclare(name, { passive: true });
    assert.equal((await on.queuePurge(name)).messageCount, 1);
    await on.basicCancel('c.unknown').catch(() => {});
  }));

check('consumer ends when its queue is deleted', () =>
  channel(async (on) => {
    const { name } = await on.queueDeclare('c.deleted', { durable: false });
    const consumer = await on.basicConsume(name, {}, () => {});
    const ended = consumer.wait().then(
      () => 'ended',
      (error) => error.message,
    );
    await on.queueDelete(name);
    assert.match(await ended, /ended|cancelled by the server/i);
  }));

check('errors: texts', async () => {
  const cases = [
    [(on) => on.queueDeclare('c.none', { passive: true }), "NOT_FOUND - no queue 'c.none' in vhost '/'"],
    [(on) => on.exchangeDeclare('amq.c', 'direct'), "contains reserved prefix 'amq.*'"],
    [(on) => on.exchangeDelete('amq.direct'), "deletion of system exchange 'amq.direct' in vhost '/' not allowed"],
    [(on) => on.queueBind('c.none', 'amq.direct', 'k'), "NOT_FOUND - no queue 'c.none' in vhost '/'"],
    [(on) => on.txCommit(), 'PRECONDITION_FAILED - channel is not transactional'],
    [(on) => on.exchangeDeclare('c.type', 'zzz'), "COMMAND_INVALID - unknown exchange type 'zzz'"],
    [(on) => on.basicQos(1, 1), 'NOT_IMPLEMENTED - prefetch_size!=0 (1)'],
    [(on) => on.basicRecover(false), 'NOT_IMPLEMENTED - requeue=false'],
  ];
  for (const [use, text] of cases) await channel((on) => rejects(use(on), text));
});

check('errors: wrong password', async () => {
  const client = new AMQPClient(url.replace(/:[^:@]*@/, ':wrong@'));
  client.logger = null;
  await rejects(client.connect(), 'Login was refused using authentication mechanism PLAIN');
});

check('update secret', () =>
  channel(async (on, connection) => {
    await connection.updateSecret('guest', 'renewed');
    await on.queueDeclare('', { exclusive: true });
  }));

check('a body of 3 MiB and many channels', () =>
  channel(async (on, connection) => {
    const { name } = await on.queueDeclare('', { exclusive: true });
    const body = new Uint8Array(3 * 1024 * 1024).map((_, index) => index % 251);
    await on.confirmSelect();
    await on.basicPublish('', name, body);
    const message = await get(on, name);
    assert.ok(Buffer.from(body).equals(Buffer.from(message.body)));
    const channels = await Promise.all(Array.from({ length: 50 }, () => connection.channel()));
    assert.equal(new Set(channels.map((each) => each.id)).size, 50);
  }));

check('session: queue, subscription, topic exchange, calls', async () => {
  const session = await AMQPSession.connect(url);
  try {
    const queue = await session.queue('c.session', { durable: false, autoDelete: true });
    const got = [];
    const { promise, resolve } = promised();
    const subscription = await queue.subscribe({ prefetch: 5 }, async (message) => {
      got.push(message.bodyString());
      if (got.length === 20) resolve();
    });
    for (let number = 0; number < 20; number++) await queue.publish(`${number}`);
    await promise;
    assert.deepEqual(
      got,
      Array.from({ length: 20 }, (_, number) => `${number}`),
    );
    await subscription.cancel();
    const server = await session.rpcServer('c.rpc', async (message) => `<${message.bodyString()}>`);
    for (let number = 0; number < 5; number++) {
      const reply = await session.rpcCall('c.rpc', `${number}`, { timeout: 5000 });
      assert.equal(reply.bodyToString(), `<${number}>`);
    }
    await server.close();
  } finally {
    await session.stop();
  }
});

main();
