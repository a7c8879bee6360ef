/**
 * sqs-consumer and sqs-producer on queues of this broker.
 *
 * AWS_ENDPOINT_URL=... node sqs_consumer_program.js [TEXT in the names of the checks to run]
 */
'use strict';

const { assert, check, main, packages, promised } = require('./checks.js');
const { attribute, queues, receive, settings, sqs, until, withQueue } = require('./aws_sdk.js');

const { Consumer } = packages('sqs-consumer');
const { Producer } = packages('sqs-producer');

/** Runs `use` beside a consumer, and stops that; an error nobody expects ends it. */
async function consuming(options, use) {
  const consumer = Consumer.create({ sqs: queues, waitTimeSeconds: 2, suppressFifoWarning: true, ...options });
  const failed = promised();
  if (!options.isRefused) consumer.on('error', failed.reject);
  consumer.start();
  try {
    return await Promise.race([use(consumer), failed.promise]);
  } finally {
    const stopped = new Promise((resolve) => consumer.once('stopped', resolve));
    consumer.stop({ abort: true });
    await stopped;
  }
}

const producerOf = (queueUrl) => Producer.create({ queueUrl, sqs: queues });
const bodies = (count) => Array.from({ length: count }, (_, index) => `m${index}`);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** For longer than the heartbeats' visibility, and ending between two of them: not with a third beside the deletion. */
async function nobodyReceives(url) {
  assert.deepEqual(await receive(url, { WaitTimeSeconds: 3 }), []);
  await pause(500);
}

async function isEmpty(url) {
  const of = ['ApproximateNumberOfMessages', 'ApproximateNumberOfMessagesNotVisible'];
  return (await Promise.all(of.map((name) => attribute(url, name)))).every((count) => count === '0');
}

check('what a producer sends a consumer handles one by one, and it is gone', () =>
  withQueue({}, async (queueUrl) => {
    // More than a batch: the producer makes three of them.
    await producerOf(queueUrl).send(bodies(25));
    assert.equal(await producerOf(queueUrl).queueSize(), 25);
    const handled = [];
    const handleMessage = async (message) => {
      handled.push(message.Body);
      return message;
    };
    await consuming({ queueUrl, handleMessage, batchSize: 10 }, async () => {
      await until(() => handled.length === 25, 'all are handled');
      await until(() => isEmpty(queueUrl), 'all are deleted');
    });
    assert.deepEqual(handled.sort(), bodies(25).sort());
  }));

check('attributes and delays of a producer reach the consumer', () =>
  withQueue({}, async (queueUrl) => {
    const messageAttributes = {
      text: { DataType: 'String', StringValue: 't' },
      bytes: { DataType: 'Binary', BinaryValue: Buffer.from([1, 2]) },
    };
    await producerOf(queueUrl).send([{ id: 'late', body: 'late', delaySeconds: 1 }, { id: 'one', body: 'one', messageAttributes }]);
    const handled = [];
    const handleMessage = async (message) => handled.push(message) && message;
    const names = { messageAttributeNames: ['All'], messageSystemAttributeNames: ['SentTimestamp'] };
    await consuming({ queueUrl, handleMessage, ...names }, () => until(() => handled.length === 2, 'both are handled'));
    assert.deepEqual(handled.map(({ Body }) => Body), ['one', 'late']);
    const [{ MessageAttributes, Attributes }] = handled;
    assert.equal(MessageAttributes.text.StringValue, 't');
    assert.deepEqual([...MessageAttributes.bytes.BinaryValue], [1, 2]);
    assert.match(Attributes.SentTimestamp, /^\d{13}$/);
  }));

check('of a batch only what the handler returns is deleted', () =>
  withQueue({ VisibilityTimeout: '60' }, async (queueUrl) => {
    await producerOf(queueUrl).send(bodies(10));
    let seen = [];
    const handleMessageBatch = async (messages) => {
      seen = seen.concat(messages.map(({ Body }) => Body));
      return messages.filter(({ Body }) => Number(Body.slice(1)) % 2 === 0);
    };
    await consuming({ queueUrl, handleMessageBatch, batchSize: 10 }, async () => {
      await until(() => seen.length === 10, 'all are seen');
      await until(async () => (await attribute(queueUrl, 'ApproximateNumberOfMessagesNotVisible')) === '5', 'half is left');
    });
    assert.equal(await attribute(queueUrl, 'ApproximateNumberOfMessages'), '0');
  }));

check('heartbeats hold a message for as long as its handler takes', () =>
  withQueue({}, async (queueUrl) => {
    await producerOf(queueUrl).send('long');
    let calls = 0;
    const handleMessage = async (message) => {
      calls += 1;
      // Without heartbeats it would be anybody's after two seconds.
      await nobodyReceives(queueUrl);
      return message;
    };
    const options = { queueUrl, handleMessage, visibilityTimeout: 2, heartbeatInterval: 1 };
    await consuming(options, () => until(() => isEmpty(queueUrl), 'it is handled'));
    assert.equal(calls, 1);
  }));

check('heartbeats hold a whole batch', () =>
  withQueue({}, async (queueUrl) => {
    await producerOf(queueUrl).send(bodies(3));
    const sizes = [];
    const handleMessageBatch = async (messages) => {
      sizes.push(messages.length);
      await nobodyReceives(queueUrl);
      return messages;
    };
    const options = { queueUrl, handleMessageBatch, batchSize: 10, visibilityTimeout: 2, heartbeatInterval: 1 };
    await consuming(options, () => until(() => isEmpty(queueUrl), 'they are handled'));
    assert.deepEqual(sizes, [3]);
  }));

check('what a handler fails at comes again at once, and in the end is in the dead queue', () =>
  withQueue({}, (dead) =>
    withQueue({}, async (queueUrl) => {
      const deadLetterTargetArn = await attribute(dead, 'QueueArn');
      const RedrivePolicy = JSON.stringify({ deadLetterTargetArn, maxReceiveCount: 2 });
      await queues.setQueueAttributes({ QueueUrl: queueUrl, Attributes: { RedrivePolicy } });
      await producerOf(queueUrl).send(['bad', 'good']);
      const failures = [];
      const handleMessage = async (message) => {
        if (message.Body === 'bad') throw new Error('not this one');
        return message;
      };
      await consuming({ queueUrl, handleMessage, terminateVisibilityTimeout: true }, async (consumer) => {
        consumer.on('processing_error', (error, message) => failures.push([error.message, message.Body]));
        await until(async () => (await attribute(dead, 'ApproximateNumberOfMessages')) === '1', 'it is in the dead queue');
        await until(() => isEmpty(queueUrl), 'nothing is left');
      });
      assert.equal(failures.length, 2);
      assert.match(failures[0][0], /not this one/);
      assert.equal((await receive(dead))[0].Body, 'bad');
    })));

check('a handler that takes too long is told of, and its message is left', () =>
  withQueue({ VisibilityTimeout: '60' }, async (queueUrl) => {
    await producerOf(queueUrl).send('slow');
    const told = promised();
    const options = { queueUrl, handleMessage: () => pause(60000), handleMessageTimeout: 100 };
    await consuming({ ...options, isRefused: true }, (consumer) => {
      consumer.on('timeout_error', (error, message) => told.resolve([error.message, message.Body]));
      return told.promise;
    });
    const [text, body] = await told.promise;
    assert.match(text, /timed out/i);
    assert.equal(body, 'slow');
    assert.equal(await attribute(queueUrl, 'ApproximateNumberOfMessagesNotVisible'), '1');
  }));

check('a consumer that is stopped finishes what it has, and takes nothing more', () =>
  withQueue({}, async (queueUrl) => {
    await producerOf(queueUrl).send('first');
    const begun = promised();
    const go = promised();
    const consumer = Consumer.create({
      queueUrl,
      sqs: queues,
      pollingCompleteWaitTimeMs: 10000,
      handleMessage: async (message) => {
        begun.resolve();
        await go.promise;
        return message;
      },
    });
    consumer.start();
    await begun.promise;
    const stopped = new Promise((resolve) => consumer.once('stopped', resolve));
    consumer.stop();
    await producerOf(queueUrl).send('second');
    go.resolve();
    await stopped;
    assert.equal(consumer.status.isRunning, false);
    assert.deepEqual((await receive(queueUrl)).map(({ Body }) => Body), ['second']);
  }));

check('an aborted poll takes no message with it', () =>
  withQueue({}, async (queueUrl) => {
    const handleMessage = async () => assert.fail('it was stopped');
    await consuming({ queueUrl, handleMessage, waitTimeSeconds: 20 }, () => pause(300));
    await producerOf(queueUrl).send('left');
    assert.deepEqual((await receive(queueUrl)).map(({ Body }) => Body), ['left']);
  }));

check('FIFO: groups keep their order, and a failure holds its group', () =>
  withQueue({ FifoQueue: 'true' }, async (queueUrl) => {
    const messages = ['a1', 'b1', 'a2', 'b2', 'a3'].map((body) => ({ id: body, body, groupId: body[0], deduplicationId: body }));
    await producerOf(queueUrl).send(messages);
    const handled = [];
    const failed = new Set();
    const handleMessage = async (message) => {
      if (message.Body === 'a1' && !failed.has('a1')) {
        failed.add('a1');
        throw new Error('later');
      }
      handled.push(message.Body);
      return message;
    };
    await consuming({ queueUrl, handleMessage, terminateVisibilityTimeout: true }, () => until(() => isEmpty(queueUrl), 'all are handled'));
    assert.deepEqual(handled.filter((body) => body[0] === 'a'), ['a1', 'a2', 'a3']);
    assert.deepEqual(handled.filter((body) => body[0] === 'b'), ['b1', 'b2']);
  }));

check('a queue that is not there is an error of the consumer, which goes on', () =>
  withQueue({}, async (queueUrl) => {
    const errors = [];
    const options = { queueUrl: queueUrl + 'x', handleMessage: async () => {}, pollingWaitTimeMs: 50, isRefused: true };
    await consuming({ ...options, extendedAWSErrors: true }, (consumer) => {
      consumer.on('error', (error) => errors.push(error));
      return until(() => errors.length >= 2, 'two errors');
    });
    assert.match(errors[0].message, /SQS receive message failed: The specified queue does not exist/);
    assert.equal(errors[0].code, sqs.QueueDoesNotExist.name);
  }));

check('two consumers share a queue', () =>
  withQueue({}, async (queueUrl) => {
    await producerOf(queueUrl).send(bodies(60));
    const handled = [[], []];
    const of = (which) => ({ queueUrl, batchSize: 10, handleMessageBatch: async (messages) => handled[which].push(...messages.map(({ Body }) => Body)) && messages });
    await consuming(of(0), () => consuming(of(1), () => until(() => isEmpty(queueUrl), 'all are handled')));
    assert.deepEqual(handled.flat().sort(), bodies(60).sort());
  }));

main();
