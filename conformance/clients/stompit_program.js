/** stompit against a broker: streamed bodies, acknowledgements, transactions, reconnecting channels.
 *
 * STOMP_HOST=.. STOMP_PORT=.. node stompit_program.js [TEXT in the names of checks]
 */
'use strict';

const crypto = require('node:crypto');
const net = require('node:net');
const { assert, check, main, packages, promised } = require('./checks.js');
const stompit = packages('stompit');

const host = process.env.STOMP_HOST || '127.0.0.1';
const port = Number(process.env.STOMP_PORT || 61613);
const QUIET_MS = 300;

const options = (more = {}, at = port) => ({
  host, port: at, connectHeaders: { host: '/', login: 'guest', passcode: 'guest', ...more },
});
const name = (prefix) => `stompit.${prefix}.${crypto.randomUUID().slice(0, 8)}`;
const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

function connect(more) {
  return new Promise((resolve, reject) => {
    stompit.connect(options(more), (error, client) => (error ? reject(error) : resolve(client)));
  });
}

async function using(more, run) {
  const client = await connect(more);
  client.on('error', () => {});
  try {
    await run(client);
  } finally {
    client.destroy();
  }
}

/** Sends a body and waits for its receipt. */
function send(sender, destination, body, headers = {}) {
  return new Promise((resolve, reject) => {
    const frame = sender.send({ destination, ...headers }, { onReceipt: resolve, onError: reject });
    frame.end(body);
  });
}

/** Messages of a subscription, one by one, each with its body read. */
function subscribe(client, destination, headers = {}) {
  const items = [];
  const waiting = [];
  const put = (item) => (waiting.length ? waiting.shift()(item) : items.push(item));
  const subscription = client.subscribe({ destination, ...headers }, (error, message) => {
    if (error) return put({ error });
    const chunks = [];
    message.on('data', (chunk) => chunks.push(chunk));
    message.on('end', () => put({ message, body: Buffer.concat(chunks) }));
  });
  return {
    subscription,
    next: () => (items.length ? items.shift() : new Promise((resolve) => waiting.push(resolve))),
    nothing: async () => {
      await pause(QUIET_MS);
      assert.equal(items.length, 0);
    },
  };
}

check('send, receive, acknowledge, nothing comes twice', async () => {
  const target = `/queue/${name('basic')}`;
  await using({}, async (client) => {
    await send(client, target, 'hello', { foo: 'a:b\\c', 'content-type': 'text/plain', persistent: 'true' });
    const inbox = subscribe(client, target, { ack: 'client-individual' });
    const { message, body } = await inbox.next();
    assert.deepEqual([String(body), message.headers.foo], ['hello', 'a:b\\c']);
    client.ack(message);
    await new Promise((resolve) => { client.disconnect(resolve); });
  });
  await using({}, (client) => subscribe(client, target).nothing());
});

check('nack puts a message back', () => using({}, async (client) => {
  const target = `/queue/${name('nack')}`;
  const inbox = subscribe(client, target, { ack: 'client-individual' });
  await send(client, target, 'again');
  client.nack((await inbox.next()).message);
  const { message } = await inbox.next();
  assert.equal(message.headers.redelivered, 'true');
  client.ack(message);
}));

check('ack:client acknowledges all before', async () => {
  const target = `/queue/${name('client')}`;
  await using({}, async (client) => {
    const inbox = subscribe(client, target, { ack: 'client' });
    for (const body of 'abc') await send(client, target, body);
    await inbox.next();
    client.ack((await inbox.next()).message);
    await inbox.next();
    await new Promise((resolve) => { client.disconnect(resolve); });
  });
  await using({}, async (client) => {
    const inbox = subscribe(client, target);
    assert.equal(String((await inbox.next()).body), 'c');
    await inbox.nothing();
  });
});

check('a body in pieces without a length, and one of 2 MiB', () => using({}, async (client) => {
  const target = `/queue/${name('stream')}`;
  const inbox = subscribe(client, target);
  const frame = client.send({ destination: target });
  for (const piece of ['one ', 'two ', 'three']) {
    frame.write(piece);
    await pause(20);
  }
  frame.end();
  assert.equal(String((await inbox.next()).body), 'one two three');
  const octets = crypto.randomBytes(2 << 20);
  await send(client, target, octets, { 'content-length': octets.length });
  assert.ok((await inbox.next()).body.equals(octets));
}));

check('a transaction is sent by commit and forgotten by abort', () => using({}, async (client) => {
  const target = `/queue/${name('transaction')}`;
  const inbox = subscribe(client, target);
  const kept = client.begin();
  kept.send({ destination: target }).end('kept');
  await inbox.nothing();
  kept.commit();
  assert.equal(String((await inbox.next()).body), 'kept');
  const dropped = client.begin();
  dropped.send({ destination: target }).end('dropped');
  dropped.abort();
  await inbox.nothing();
}));

check('acknowledgements in a transaction', () => using({}, async (client) => {
  const target = `/queue/${name('settled')}`;
  const inbox = subscribe(client, target, { ack: 'client-individual' });
  await send(client, target, 'x');
  const { message } = await inbox.next();
  const transaction = client.begin();
  client.ack(message, { transaction: transaction.id });
  await new Promise((resolve, reject) => { transaction.commit({ onReceipt: resolve, onError: reject }); });
}));

check('a hundred messages in order behind a prefetch', () => using({}, async (client) => {
  const target = `/queue/${name('many')}`;
  await Promise.all([...Array(100).keys()].map((body) => send(client, target, String(body))));
  const inbox = subscribe(client, target, { ack: 'client-individual', 'prefetch-count': '3' });
  for (let number = 0; number < 100; number += 1) {
    const { message, body } = await inbox.next();
    assert.equal(String(body), String(number));
    client.ack(message);
  }
}));

check('a durable subscription gets what was sent meanwhile', async () => {
  const topic = `/topic/${name('durable')}`;
  const headers = { id: 'mine', durable: 'true', 'auto-delete': 'false' };
  await using({}, async (client) => {
    subscribe(client, topic, headers);
    await new Promise((resolve) => { client.disconnect(resolve); });
  });
  await using({}, (client) => send(client, topic, 'meanwhile', { persistent: 'true' }));
  await using({}, async (client) => {
    const inbox = subscribe(client, topic, headers);
    assert.equal(String((await inbox.next()).body), 'meanwhile');
    inbox.subscription.unsubscribe({ durable: 'true' });
    await new Promise((resolve) => { client.disconnect(resolve); });
  });
});

check('heart-beats keep a quiet connection', () => using({ 'heart-beat': '1000,1000' }, async (client) => {
  const ended = promised();
  client.on('error', ended.reject);
  client.on('end', () => ended.reject(new Error('the connection ended')));
  await Promise.race([pause(4500), ended.promise]);
}));

/** What an ERROR says: stompit raises it on a frame that nobody can listen to. */
function said() {
  return new Promise((resolve) => { process.once('uncaughtException', resolve); });
}

check('a wrong password is refused with the reason', async () => {
  const error = said();
  await assert.rejects(connect({ passcode: 'wrong' }));
  assert.equal((await error).message, 'Bad CONNECT');
});

check('an error has the words of the broker', () => using({}, async (client) => {
  const error = said();
  client.send({ destination: '/nowhere/at/all' }).end('x');
  assert.equal((await error).message, 'Unknown destination');
}));

check('a channel goes on where a connection was cut', async () => {
  // A cable that can be pulled.
  const ends = new Set();
  const cable = net.createServer((near) => {
    const far = net.connect(port, host);
    for (const end of [near, far]) {
      ends.add(end);
      end.on('error', () => {});
      end.on('close', () => { ends.delete(end); near.destroy(); far.destroy(); });
    }
    near.pipe(far).pipe(near);
  });
  await new Promise((resolve) => { cable.listen(0, '127.0.0.1', resolve); });
  const servers = new stompit.ConnectFailover([options({}, cable.address().port)], { initialReconnectDelay: 50 });
  const pool = new stompit.ChannelPool(servers);
  const channel = await new Promise((resolve, reject) => {
    pool.channel((error, found) => (error ? reject(error) : resolve(found)));
  });
  const sent = (body) => new Promise((resolve, reject) => {
    channel.send({ destination: target, persistent: 'true' }, body, (error) => (error ? reject(error) : resolve()));
  });
  const target = `/queue/${name('channel')}`;
  await sent('before');
  for (const end of ends) end.destroy();
  await sent('after');
  await using({}, async (client) => {
    const inbox = subscribe(client, target);
    assert.deepEqual([String((await inbox.next()).body), String((await inbox.next()).body)], ['before', 'after']);
  });
  pool.close();
  cable.close();
  for (const end of ends) end.destroy();
});

main();
