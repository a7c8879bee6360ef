/** @stomp/stompjs against a broker: over TCP, and over WebSocket in text and in binary frames.
 *
 * STOMP_HOST=.. STOMP_PORT=.. WEB_STOMP_PORT=.. node stompjs_program.js [TEXT in the names of checks]
 */
'use strict';

const crypto = require('node:crypto');
const net = require('node:net');
const { assert, check, main, packages } = require('./checks.js');
const { Client, Versions } = packages('@stomp/stompjs');
const { WebSocket } = packages('ws');

const host = process.env.STOMP_HOST || '127.0.0.1';
const port = Number(process.env.STOMP_PORT || 61613);
// Empty: this broker has none.
const webPort = process.env.WEB_STOMP_PORT ?? '15674';
const QUIET_MS = 300;

/** A TCP socket with the face of a WebSocket. */
function tcp() {
  const socket = net.connect(port, host);
  const face = { url: `tcp://${host}:${port}`, binaryType: 'arraybuffer', readyState: 0, protocol: '' };
  socket.setNoDelay(true);
  socket.on('connect', () => { face.readyState = 1; face.onopen?.({}); });
  socket.on('data', (data) => face.onmessage?.({ data: new Uint8Array(data) }));
  socket.on('error', (error) => face.onerror?.(error));
  socket.on('close', () => { face.readyState = 3; face.onclose?.({ code: 1000, reason: '' }); });
  face.send = (data) => socket.write(data instanceof ArrayBuffer ? Buffer.from(data) : data);
  face.close = () => { face.readyState = 2; socket.end(); };
  return face;
}

const web = () => new WebSocket(`ws://${host}:${webPort}/ws`, Versions.default.protocolVersions());

const TRANSPORTS = {
  TCP: { webSocketFactory: tcp, forceBinaryWSFrames: true },
  'WebSocket, text': { webSocketFactory: web },
  'WebSocket, binary': { webSocketFactory: web, forceBinaryWSFrames: true },
  'WebSocket, in pieces': { webSocketFactory: web, splitLargeFrames: true, maxWebSocketChunkSize: 1000 },
};

/** What comes, in order; `next` waits for it. */
class Inbox {
  items = [];
  waiting = [];
  put(item) {
    const first = this.waiting.shift();
    if (first) first(item);
    else this.items.push(item);
  }
  next() {
    return this.items.length ? this.items.shift() : new Promise((resolve) => this.waiting.push(resolve));
  }
  async nothing() {
    await new Promise((resolve) => { setTimeout(resolve, QUIET_MS); });
    assert.deepEqual(this.items.map((frame) => frame.body), []);
  }
}

/** A client that has logged in, or has been refused: then `error` is set. */
async function open(transport, options = {}) {
  const client = new Client({
    ...TRANSPORTS[transport],
    connectHeaders: { login: 'guest', passcode: 'guest', host: '/' },
    reconnectDelay: 0,
    heartbeatIncoming: 0,
    heartbeatOutgoing: 0,
    debug: () => {},
    ...options,
  });
  client.errors = new Inbox();
  client.unhandled = new Inbox();
  client.onUnhandledMessage = (frame) => client.unhandled.put(frame);
  client.ended = new Promise((resolve) => { client.onWebSocketClose = resolve; });
  await new Promise((resolve) => {
    client.onStompError = (frame) => { client.errors.put(frame); resolve(); };
    client.onConnect = () => resolve();
    client.activate();
  });
  return client;
}

async function using(transport, options, run) {
  const client = await open(transport, options);
  try {
    return await run(client);
  } finally {
    await client.deactivate();
  }
}

const name = (prefix) => `stompjs.${prefix}.${crypto.randomUUID().slice(0, 8)}`;

function receipt(client, act) {
  const id = crypto.randomUUID();
  return new Promise((resolve) => {
    client.watchForReceipt(id, resolve);
    act({ receipt: id });
  });
}

async function subscribe(client, destination, headers = {}) {
  const inbox = new Inbox();
  await receipt(client, (more) => {
    inbox.subscription = client.subscribe(destination, (frame) => inbox.put(frame), { ...headers, ...more });
  });
  return inbox;
}

const publish = (client, destination, body, headers = {}) => client.publish({ destination, body, headers });

for (const transport of Object.keys(TRANSPORTS)) {
  if (transport !== 'TCP' && !webPort) continue;
  const here = (what, run, options = {}) => check(`${transport}: ${what}`, () => using(transport, options, run));

  here('send, receive, acknowledge, nothing comes twice', async (client) => {
    const target = `/queue/${name('basic')}`;
    const inbox = await subscribe(client, target, { ack: 'client-individual' });
    await receipt(client, (more) => publish(client, target, 'hello', { foo: 'bar: baz', persistent: 'true', ...more }));
    const frame = await inbox.next();
    assert.deepEqual([frame.body, frame.headers.foo, frame.headers.persistent], ['hello', 'bar: baz', 'true']);
    await receipt(client, (more) => frame.ack(more));
    await using(transport, {}, async (other) => (await subscribe(other, target)).nothing());
  });

  here('nack puts a message back', async (client) => {
    const target = `/queue/${name('nack')}`;
    const inbox = await subscribe(client, target, { ack: 'client-individual' });
    publish(client, target, 'again');
    (await inbox.next()).nack();
    const frame = await inbox.next();
    assert.equal(frame.headers.redelivered, 'true');
    frame.ack();
  });

  here('ack:client acknowledges all before', async (client) => {
    const target = `/queue/${name('client')}`;
    const inbox = await subscribe(client, target, { ack: 'client' });
    for (const body of 'abcd') publish(client, target, body);
    const frames = [await inbox.next(), await inbox.next(), await inbox.next(), await inbox.next()];
    await receipt(client, (more) => frames[2].ack(more));
    inbox.subscription.unsubscribe();
    await client.deactivate();
    await using(transport, {}, async (other) => {
      const left = await subscribe(other, target);
      assert.equal((await left.next()).body, 'd');
      await left.nothing();
    });
  });

  here('a transaction is sent by commit and forgotten by abort', async (client) => {
    const target = `/queue/${name('transaction')}`;
    const inbox = await subscribe(client, target);
    const kept = client.begin();
    publish(client, target, 'kept', { transaction: kept.id });
    await inbox.nothing();
    kept.commit();
    assert.equal((await inbox.next()).body, 'kept');
    const dropped = client.begin();
    publish(client, target, 'dropped', { transaction: dropped.id });
    dropped.abort();
    await inbox.nothing();
  });

  here('octets of every value, NULs among them', async (client) => {
    const target = `/queue/${name('binary')}`;
    const inbox = await subscribe(client, target);
    const binaryBody = Uint8Array.from({ length: 1024 }, (_, at) => at);
    client.publish({ destination: target, binaryBody });
    assert.deepEqual((await inbox.next()).binaryBody, binaryBody);
    publish(client, target, 'grüße\0🐦');
    assert.equal((await inbox.next()).body, 'grüße\0🐦');
  });

  here('a body of 2 MiB', async (client) => {
    const target = `/queue/${name('large')}`;
    const inbox = await subscribe(client, target);
    const body = '0123456789abcdef'.repeat(1 << 17);
    publish(client, target, body);
    assert.ok((await inbox.next()).body === body);
  });

  here('two hundred messages in order, with receipts and prefetch', async (client) => {
    const target = `/queue/${name('many')}`;
    const all = [...Array(200).keys()].map(String);
    await Promise.all(all.map((body) => receipt(client, (more) => publish(client, target, body, more))));
    const inbox = await subscribe(client, target, { ack: 'client', 'prefetch-count': '10' });
    for (const body of all) {
      const frame = await inbox.next();
      assert.equal(frame.body, body);
      frame.ack();
    }
  });

  here('a request and its answer through a temp queue', async (client) => {
    const target = `/queue/${name('rpc')}`;
    const inbox = await subscribe(client, target);
    publish(client, target, 'question', { 'reply-to': '/temp-queue/answers', 'correlation-id': '7' });
    const asked = await inbox.next();
    publish(client, asked.headers['reply-to'], 'answer', { 'correlation-id': asked.headers['correlation-id'] });
    const answer = await client.unhandled.next();
    assert.deepEqual([answer.body, answer.headers.subscription], ['answer', '/temp-queue/answers']);
    assert.equal(answer.headers['correlation-id'], '7');
  });

  here('a durable subscription gets what was sent meanwhile', async (client) => {
    const topic = `/topic/${name('durable')}`;
    const headers = { id: 'mine', durable: 'true', 'auto-delete': 'false' };
    await subscribe(client, topic, headers);
    await client.deactivate();
    await using(transport, {}, async (other) => {
      await receipt(other, (more) => publish(other, topic, 'meanwhile', { persistent: 'true', ...more }));
      const inbox = await subscribe(other, topic, headers);
      assert.equal((await inbox.next()).body, 'meanwhile');
      await receipt(other, (more) => inbox.subscription.unsubscribe({ durable: 'true', ...more }));
    });
  });

  here('heart-beats keep a quiet connection', async (client) => {
    const winner = await Promise.race([
      client.ended.then(() => 'ended'),
      new Promise((resolve) => { setTimeout(resolve, 4500, 'alive'); }),
    ]);
    assert.equal(winner, 'alive');
  }, { heartbeatIncoming: 1000, heartbeatOutgoing: 1000 });

  here('an unknown destination is an ERROR that leaves the connection open', async (client) => {
    publish(client, '/nowhere/at/all', 'x');
    assert.equal((await client.errors.next()).headers.message, 'Unknown destination');
    const target = `/queue/${name('open')}`;
    const inbox = await subscribe(client, target);
    publish(client, target, 'still here');
    assert.equal((await inbox.next()).body, 'still here');
  });

  here('a missing exchange ends the connection', async (client) => {
    client.subscribe(`/exchange/${name('missing')}/x`, () => {});
    assert.equal((await client.errors.next()).headers.message, 'not_found');
    await client.ended;
  });

  here('a wrong password is refused', async (client) => {
    assert.equal((await client.errors.next()).headers.message, 'Bad CONNECT');
    assert.equal(client.connected, false);
  }, { connectHeaders: { login: 'guest', passcode: 'wrong', host: '/' } });

  here('each version is spoken', async () => {
    for (const version of ['1.0', '1.1', '1.2']) {
      await using(transport, { stompVersions: new Versions([version]) }, async (client) => {
        assert.equal(client.connectedVersion, version);
        const target = `/queue/${name('version')}`;
        const inbox = await subscribe(client, target, { ack: 'client' });
        publish(client, target, version);
        const frame = await inbox.next();
        await receipt(client, (more) => frame.ack(more));
        assert.equal(frame.body, version);
      });
    }
  });
}

main();
