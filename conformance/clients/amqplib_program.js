/**
 * amqplib against a broker: its promise and callback APIs, confirms, prefetch, large messages, the
 * texts of errors.
 *
 *     AMQP_URL=amqp://.. node amqplib_program.js [TEXT in the names of the checks to run]
 */
'use strict';

const { assert, check, main, packages, promised, url } = require('./checks.js');

const amqp = packages('amqplib');
const callbacks = packages('amqplib/callback_api');

async function connected(use, options) {
  const connection = await amqp.connect(url, options);
  // An unexpected end shows in what the check awaits.
  connection.on('error', () => {});
  try {
    return await use(connection);
  } finally {
    await connection.close().catch(() => {});
  }
}

function channel(use) {
  return connected(async (connection) => use(await connection.createChannel(), connection));
}

/** The next `count` messages of a queue, acked. */
async function take(on, queue, count, options) {
  const got = [];
  const { promise, resolve, reject } = promised();
  const { consumerTag } = await on.consume(
    queue,
    (message) => {
      if (message === null) return reject(new Error('cancelled by the broker'));
      got.push(message);
      if (!options?.noAck) on.ack(message);
      if (got.length === count) resolve();
    },
    options,
  );
  await promise;
  await on.cancel(consumerTag);
  return got;
}

async function closes(code, text, use) {
  await connected(async (connection) => {
    const on = await connection.createChannel();
    const { promise, resolve } = promised();
    on.on('error', resolve);
    connection.on('error', resolve);
    use(on)?.catch?.(() => {});
    const error = await promise;
    assert.equal(error.code, code);
    assert.ok(error.message.endsWith(`"${text}"`), `${error.message} does not end in ${text}`);
  });
}

check('assert, send, get, ack', () =>
  channel(async (on) => {
    const { queue } = await on.assertQueue('', { exclusive: true });
    on.sendToQueue(queue, Buffer.from('hello'), { contentType: 'text/plain', headers: { n: 1 } });
    let message = await on.get(queue);
    while (message === false) message = await on.get(queue);
    assert.equal(message.content.toString(), 'hello');
    assert.equal(message.properties.contentType, 'text/plain');
    assert.deepEqual(message.properties.headers, { n: 1 });
    on.ack(message);
    assert.equal(await on.get(queue), false);
  }));

check('server properties', () =>
  connected(async (connection) => {
    const properties = connection.connection.serverProperties;
    assert.equal(properties.product, 'RabbitMQ');
    assert.equal(properties.version.split('.')[0], '3');
    assert.equal(properties.capabilities['consumer_cancel_notify'], true);
  }));

check('confirm channel: callbacks and waitForConfirms', () =>
  connected(async (connection) => {
    const on = await connection.createConfirmChannel();
    const { queue } = await on.assertQueue('', { exclusive: true });
    let confirmed = 0;
    for (let number = 0; number < 200; number++) {
      on.sendToQueue(queue, Buffer.from(`${number}`), {}, (error) => {
        assert.equal(error, null);
        confirmed += 1;
      });
    }
    await on.waitForConfirms();
    assert.equal(confirmed, 200);
    assert.equal((await on.checkQueue(queue)).messageCount, 200);
    const got = await take(on, queue, 200);
    assert.deepEqual(
      got.map((message) => Number(message.content)),
      [...Array(200).keys()],
    );
  }));

check('a rejected publish is nacked', () =>
  connected(async (connection) => {
    const on = await connection.createConfirmChannel();
    const { queue } = await on.assertQueue('', {
      exclusive: true,
      arguments: { 'x-max-length': 1, 'x-overflow': 'reject-publish' },
    });
    const results = [];
    for (let number = 0; number < 2; number++) {
      await new Promise((resolve) =>
        on.sendToQueue(queue, Buffer.from('m'), {}, (error) => resolve(results.push(error))),
      );
    }
    assert.equal(results[0], null);
    assert.ok(results[1] instanceof Error);
  }));

check('mandatory message comes back', () =>
  channel(async (on) => {
    const { promise, resolve } = promised();
    on.on('return', resolve);
    on.publish('amq.topic', 'nobody.there', Buffer.from('back'), { mandatory: true });
    const message = await promise;
    assert.equal(message.fields.replyCode, 312);
    assert.equal(message.fields.replyText, 'NO_ROUTE');
    assert.equal(message.content.toString(), 'back');
  }));

check('prefetch and nack with requeue', () =>
  channel(async (on) => {
    const { queue } = await on.assertQueue('', { exclusive: true });
    for (let number = 0; number < 5; number++) on.sendToQueue(queue, Buffer.from(`${number}`));
    await on.prefetch(2);
    const got = [];
    const second = promised();
    const third = promised();
    await on.consume(queue, (message) => {
      got.push(message);
      if (got.length === 2) second.resolve();
      if (got.length === 3) third.resolve();
    });
    await second.promise;
    await on.checkQueue(queue);
    assert.equal(got.length, 2);
    on.nack(got[0], false, true);
    await third.promise;
    assert.equal(got[2].content.toString(), '0');
    assert.equal(got[2].fields.redelivered, true);
  }));

check('a global prefetch is shared', () =>
  channel(async (on) => {
    const queues = [];
    for (let number = 0; number < 2; number++) {
      const { queue } = await on.assertQueue('', { exclusive: true });
      for (let each = 0; each < 3; each++) on.sendToQueue(queue, Buffer.from('m'));
      queues.push(queue);
    }
    await on.prefetch(2, true);
    let got = 0;
    const second = promised();
    for (const queue of queues) {
      await on.consume(queue, () => {
        got += 1;
        if (got === 2) second.resolve();
      });
    }
    await second.promise;
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.equal(got, 2);
  }));

check('a message of 10 MiB comes back whole', () =>
  connected(
    async (connection) => {
      const on = await connection.createConfirmChannel();
      const { queue } = await on.assertQueue('', { exclusive: true });
      const body = Buffer.alloc(10 * 1024 * 1024);
      for (let at = 0; at < body.length; at += 4) body.writeUInt32BE(at, at);
      on.sendToQueue(queue, body);
      await on.waitForConfirms();
      const [message] = await take(on, queue, 1);
      assert.ok(message.content.equals(body));
    },
    { frameMax: 0x1000 },
  ));

check('frame_max 4096 and heartbeat 1', () =>
  connected(
    async (connection) => {
      const on = await connection.createChannel();
      const { queue } = await on.assertQueue('', { exclusive: true });
      on.sendToQueue(queue, Buffer.alloc(20000, 'x'));
      const [message] = await take(on, queue, 1);
      assert.equal(message.content.length, 20000);
      await new Promise((resolve) => setTimeout(resolve, 3000));
      await on.checkQueue(queue);
    },
    { frameMax: 4096, heartbeat: 1 },
  ));

check('errors: missing queue', () =>
  closes(404, "NOT_FOUND - no queue 'n.none' in vhost '/'", (on) => on.checkQueue('n.none')));

check('errors: missing exchange', () =>
  closes(404, "NOT_FOUND - no exchange 'n.none' in vhost '/'", (on) => {
    on.publish('n.none', 'k', Buffer.from('m'));
  }));

check('errors: unknown delivery tag', () =>
  closes(406, 'PRECONDITION_FAILED - unknown delivery tag 5', (on) => {
    on.ack({ fields: { deliveryTag: 5 } });
  }));

check('errors: redeclaring otherwise', () =>
  channel(async (keep) => {
    await keep.assertQueue('n.redeclare', { durable: false, autoDelete: true });
    await closes(
      406,
      "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'n.redeclare' in vhost '/':" +
        " received 'true' but current is 'false'",
      (on) => on.assertQueue('n.redeclare', { durable: true, autoDelete: true }),
    );
    await keep.deleteQueue('n.redeclare');
  }));

check('errors: bad expiration', () =>
  closes(406, "PRECONDITION_FAILED - invalid expiration 'soon': no_integer", (on) => {
    on.publish('', 'n.any', Buffer.from('m'), { expiration: 'soon' });
  }));

check('errors: an unknown exchange type closes the connection', () =>
  closes(503, "COMMAND_INVALID - unknown exchange type 'zzz'", (on) =>
    on.assertExchange('n.type', 'zzz'),
  ));

check('errors: wrong password', async () => {
  const wrong = url.replace(/:[^:@]*@/, ':wrong@');
  await assert.rejects(amqp.connect(wrong), /ACCESS[-_]REFUSED.*Login was refused using authentic/i);
});

check('errors: missing vhost', async () => {
  const missing = url.replace(/\/$/, '/n.none');
  // The library names the frame that came, not its text.
  await assert.rejects(amqp.connect(missing), /got <ConnectionClose channel:0>/);
});

check('consumer is told of its deleted queue', () =>
  channel(async (on) => {
    await on.assertQueue('n.deleted', { durable: false });
    const { promise, resolve } = promised();
    await on.consume('n.deleted', resolve);
    await on.deleteQueue('n.deleted');
    assert.equal(await promise, null);
  }));

check('topic and exchange bindings', () =>
  channel(async (on) => {
    await on.assertExchange('n.topic', 'topic', { durable: false });
    await on.assertExchange('n.fanout', 'fanout', { durable: false });
    const { queue } = await on.assertQueue('', { exclusive: true });
    await on.bindExchange('n.fanout', 'n.topic', 'a.#');
    await on.bindQueue(queue, 'n.fanout', '');
    on.publish('n.topic', 'a.b.c', Buffer.from('in'));
    on.publish('n.topic', 'b', Buffer.from('out'));
    const [message] = await take(on, queue, 1);
    assert.equal(message.fields.routingKey, 'a.b.c');
    assert.equal((await on.checkQueue(queue)).messageCount, 0);
    await on.unbindExchange('n.fanout', 'n.topic', 'a.#');
    await on.deleteExchange('n.topic');
    await on.deleteExchange('n.fanout');
  }));

check('dead letters with x-death', () =>
  channel(async (on) => {
    const { queue: dead } = await on.assertQueue('n.dead', { exclusive: true });
    const { queue } = await on.assertQueue('', {
      exclusive: true,
      deadLetterExchange: '',
      deadLetterRoutingKey: dead,
      messageTtl: 50,
    });
    on.sendToQueue(queue, Buffer.from('m'), { CC: ['n.copy'] });
    const [message] = await take(on, dead, 1);
    const [death] = message.properties.headers['x-death'];
    assert.equal(death.reason, 'expired');
    assert.equal(death.queue, queue);
    assert.equal(death.count, 1);
    assert.deepEqual(death['routing-keys'], [queue, 'n.copy']);
    assert.equal(typeof death.time.value, 'number');
    assert.equal(message.properties.headers['x-first-death-reason'], 'expired');
  }));

check('calls over direct reply-to', () =>
  connected(async (connection) => {
    const server = await connection.createChannel();
    const { queue } = await server.assertQueue('', { exclusive: true });
    await server.consume(queue, (message) => {
      const { replyTo, correlationId } = message.properties;
      server.sendToQueue(replyTo, Buffer.from(`${message.content}!`), { correlationId });
      server.ack(message);
    });
    const client = await connection.createChannel();
    const answers = new Map();
    const { promise, resolve } = promised();
    await client.consume(
      'amq.rabbitmq.reply-to',
      (message) => {
        answers.set(message.properties.correlationId, message.content.toString());
        if (answers.size === 20) resolve();
      },
      { noAck: true },
    );
    for (let number = 0; number < 20; number++) {
      client.sendToQueue(queue, Buffer.from(`${number}`), {
        replyTo: 'amq.rabbitmq.reply-to',
        correlationId: `${number}`,
      });
    }
    await promise;
    for (let number = 0; number < 20; number++) {
      assert.equal(answers.get(`${number}`), `${number}!`);
    }
  }));

check('recover redelivers', () =>
  channel(async (on) => {
    const { queue } = await on.assertQueue('', { exclusive: true });
    on.sendToQueue(queue, Buffer.from('m'));
    let message = await on.get(queue);
    while (message === false) message = await on.get(queue);
    await on.recover();
    message = await on.get(queue);
    while (message === false) message = await on.get(queue);
    assert.equal(message.fields.redelivered, true);
    on.ack(message);
  }));

check('callback API: declare, publish, consume, close', () => {
  const { promise, resolve, reject } = promised();
  const or = (next) => (error, value) => (error ? reject(error) : next(value));
  callbacks.connect(
    url,
    or((connection) => {
      connection.on('close', resolve);
      connection.createConfirmChannel(
        or((on) => {
          on.assertQueue(
            '',
            { exclusive: true },
            or(({ queue }) => {
              let confirmed = 0;
              const got = [];
              const done = () => {
                if (confirmed === 10 && got.length === 10) connection.close();
              };
              on.consume(queue, (message) => {
                got.push(message.content.toString());
                on.ack(message);
                done();
              });
              for (let number = 0; number < 10; number++) {
                on.sendToQueue(
                  queue,
                  Buffer.from(`${number}`),
                  {},
                  or(() => {
                    confirmed += 1;
                    done();
                  }),
                );
              }
            }),
          );
        }),
      );
    }),
  );
  return promise;
});

check('callback API: an error reaches its callback', () => {
  const { promise, resolve, reject } = promised();
  callbacks.connect(url, (error, connection) => {
    if (error) return reject(error);
    connection.createChannel((error, on) => {
      if (error) return reject(error);
      on.on('error', () => {});
      on.checkExchange('n.none', (error) => {
        setImmediate(() => connection.close(() => resolve(error)));
      });
    });
  });
  return promise.then((error) => assert.match(error.message, /404/));
});

check('a hundred channels of one connection', () =>
  connected(async (connection) => {
    const channels = await Promise.all(
      Array.from({ length: 100 }, () => connection.createChannel()),
    );
    await Promise.all(channels.map((on) => on.assertQueue('', { exclusive: true })));
    await Promise.all(channels.map((on) => on.close()));
  }));

main();
