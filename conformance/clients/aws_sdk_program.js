/**
 * AWS's JavaScript SDK of today, @aws-sdk/client-sqs and @aws-sdk/client-sns, with only an endpoint changed.
 *
 * AWS_ENDPOINT_URL=... node aws_sdk_program.js [TEXT in the names of the checks to run]
 */
'use strict';

const { assert, check, main } = require('./checks.js');
const { attribute, queues, receive, settings, sns, sqs, topics, until, withQueue } = require('./aws_sdk.js');

const { randomUUID } = require('node:crypto');
const numbered = (count) => Array.from({ length: count }, (_, index) => ({ Id: `m${index}`, MessageBody: `${index}` }));

check('what is sent is received with its attributes, and its sums are right', () =>
  withQueue({}, async (QueueUrl) => {
    const MessageAttributes = {
      text: { DataType: 'String', StringValue: 'ü' },
      number: { DataType: 'Number.float', StringValue: '1.5' },
      bytes: { DataType: 'Binary', BinaryValue: Uint8Array.of(0, 1, 255) },
    };
    const MessageBody = 'Grüße "<&>"\n\u{1f600}';
    // The client itself compares the sums of what it sends and receives.
    const sent = await queues.sendMessage({ QueueUrl, MessageBody, MessageAttributes });
    const names = { MessageAttributeNames: ['All'], MessageSystemAttributeNames: ['All'] };
    const [message] = await receive(QueueUrl, names);
    assert.equal(message.MessageId, sent.MessageId);
    assert.equal(message.Body, MessageBody);
    assert.deepEqual({ ...message.MessageAttributes.bytes.BinaryValue }, { 0: 0, 1: 1, 2: 255 });
    assert.equal(message.MessageAttributes.number.DataType, 'Number.float');
    assert.equal(message.MessageAttributes.text.StringValue, 'ü');
    assert.equal(message.Attributes.ApproximateReceiveCount, '1');
    await queues.deleteMessage({ QueueUrl, ReceiptHandle: message.ReceiptHandle });
    assert.equal(await attribute(QueueUrl, 'ApproximateNumberOfMessagesNotVisible'), '0');
  }));

check('a hundred requests at once over kept connections', () =>
  withQueue({}, async (QueueUrl) => {
    const bodies = Array.from({ length: 100 }, (_, index) => `${index}`);
    await Promise.all(bodies.map((MessageBody) => queues.sendMessage({ QueueUrl, MessageBody })));
    const got = new Set();
    const taker = async () => {
      while (got.size < 100) {
        const messages = await receive(QueueUrl, { MaxNumberOfMessages: 10, WaitTimeSeconds: 1 });
        if (messages.length === 0) continue;
        for (const message of messages) {
          assert.ok(!got.has(message.Body), `${message.Body} a second time`);
          got.add(message.Body);
        }
        const Entries = messages.map(({ ReceiptHandle }, index) => ({ Id: `${index}`, ReceiptHandle }));
        const deleted = await queues.deleteMessageBatch({ QueueUrl, Entries });
        assert.equal(deleted.Successful.length, Entries.length);
      }
    };
    await Promise.all([taker(), taker(), taker(), taker()]);
    assert.deepEqual([...got].sort(), bodies.sort());
  }));

check('batches say what failed of them', () =>
  withQueue({}, async (QueueUrl) => {
    const Entries = [...numbered(3), { Id: 'bad', MessageBody: '\u0001' }];
    const sent = await queues.sendMessageBatch({ QueueUrl, Entries });
    assert.deepEqual(sent.Successful.map((entry) => entry.Id), ['m0', 'm1', 'm2']);
    assert.deepEqual(sent.Failed.map((entry) => [entry.Id, entry.Code, entry.SenderFault]), [
      ['bad', 'InvalidMessageContents', true],
    ]);
    const messages = await receive(QueueUrl, { MaxNumberOfMessages: 10 });
    const changes = messages.map(({ ReceiptHandle }, index) => ({ Id: `${index}`, ReceiptHandle, VisibilityTimeout: 0 }));
    assert.equal((await queues.changeMessageVisibilityBatch({ QueueUrl, Entries: changes })).Successful.length, 3);
    assert.equal((await receive(QueueUrl, { MaxNumberOfMessages: 10 })).length, 3);
  }));

check('errors are classes, with their codes, texts and statuses', () =>
  withQueue({}, async (QueueUrl, name) => {
    const QueueName = name + 'x';
    await assert.rejects(queues.getQueueUrl({ QueueName }), (error) => {
      assert.ok(error instanceof sqs.QueueDoesNotExist, error.constructor.name);
      assert.equal(error.message, 'The specified queue does not exist.');
      assert.equal(error.$metadata.httpStatusCode, 400);
      assert.match(error.$metadata.requestId, /^[0-9a-f-]{36}$/);
      return true;
    });
    const again = { QueueName: name, Attributes: { VisibilityTimeout: '1' } };
    await assert.rejects(queues.createQueue(again), sqs.QueueNameExists);
    await assert.rejects(queues.deleteMessage({ QueueUrl, ReceiptHandle: 'x' }), sqs.ReceiptHandleIsInvalid);
    const twice = { QueueUrl, Entries: [numbered(1)[0], numbered(1)[0]] };
    await assert.rejects(queues.sendMessageBatch(twice), sqs.BatchEntryIdsNotDistinct);
    await assert.rejects(queues.sendMessageBatch({ QueueUrl, Entries: numbered(11) }), sqs.TooManyEntriesInBatchRequest);
    await assert.rejects(queues.sendMessageBatch({ QueueUrl, Entries: [] }), sqs.EmptyBatchRequest);
    await queues.purgeQueue({ QueueUrl });
    await assert.rejects(queues.purgeQueue({ QueueUrl }), sqs.PurgeQueueInProgress);
    const SourceArn = (await attribute(QueueUrl, 'QueueArn')) + 'x';
    await assert.rejects(queues.listMessageMoveTasks({ SourceArn }), sqs.ResourceNotFoundException);
  }));

check('a receiver that waits is woken, and one that is aborted takes nothing', () =>
  withQueue({}, async (QueueUrl) => {
    const aborted = new AbortController();
    const waiting = queues.receiveMessage({ QueueUrl, WaitTimeSeconds: 20 }, { abortSignal: aborted.signal });
    const gone = assert.rejects(waiting, { name: 'AbortError' });
    await new Promise((resolve) => setTimeout(resolve, 200));
    aborted.abort();
    await gone;
    const begun = Date.now();
    const woken = receive(QueueUrl, { WaitTimeSeconds: 20 });
    await queues.sendMessage({ QueueUrl, MessageBody: 'come' });
    assert.equal((await woken)[0].Body, 'come');
    assert.ok(Date.now() - begun < 10000);
  }));

check('a FIFO queue keeps the order of each group', () =>
  withQueue({ FifoQueue: 'true' }, async (QueueUrl) => {
    for (let index = 0; index < 6; index += 1) {
      const more = { MessageGroupId: index % 2 ? 'b' : 'a', MessageDeduplicationId: `${index}` };
      await queues.sendMessage({ QueueUrl, MessageBody: `${index}`, ...more });
    }
    const attempt = { ReceiveRequestAttemptId: 'attempt' };
    const first = await receive(QueueUrl, attempt);
    assert.deepEqual(await receive(QueueUrl, attempt), first);
    assert.deepEqual(first.map(({ Body }) => Body), ['0']);
    const other = await receive(QueueUrl, { MaxNumberOfMessages: 10 });
    assert.deepEqual(other.map(({ Body }) => Body), ['1', '3', '5']);
    await queues.deleteMessage({ QueueUrl, ReceiptHandle: first[0].ReceiptHandle });
    const rest = await receive(QueueUrl, { MaxNumberOfMessages: 10 });
    assert.deepEqual(rest.map(({ Body }) => Body), ['2', '4']);
  }));

check('pages, tags, and what is deleted is not there', async () => {
  const prefix = `pages-${randomUUID().slice(0, 8)}-`;
  const made = [];
  for (let index = 0; index < 5; index += 1) {
    made.push((await queues.createQueue({ QueueName: prefix + index, tags: { a: '1' } })).QueueUrl);
  }
  const found = [];
  for await (const page of sqs.paginateListQueues({ client: queues, pageSize: 2 }, { QueueNamePrefix: prefix })) {
    found.push(...(page.QueueUrls ?? []));
  }
  assert.deepEqual(found, made);
  assert.deepEqual((await queues.listQueueTags({ QueueUrl: made[0] })).Tags, { a: '1' });
  for (const QueueUrl of made) await queues.deleteQueue({ QueueUrl });
  assert.equal((await queues.listQueues({ QueueNamePrefix: prefix })).QueueUrls, undefined);
});

check('a topic reaches a queue, filtered and in an envelope', () =>
  withQueue({}, async (QueueUrl) => {
    const { TopicArn } = await topics.createTopic({ Name: `js-${randomUUID().slice(0, 8)}` });
    const Endpoint = await attribute(QueueUrl, 'QueueArn');
    const Attributes = { FilterPolicy: JSON.stringify({ price: [{ numeric: ['>', 10] }] }) };
    const { SubscriptionArn } = await topics.subscribe({ TopicArn, Protocol: 'sqs', Endpoint, Attributes });
    const price = (StringValue) => ({ price: { DataType: 'Number', StringValue } });
    await topics.publish({ TopicArn, Message: 'cheap', MessageAttributes: price('5') });
    const sent = await topics.publish({ TopicArn, Message: 'dear', Subject: 's', MessageAttributes: price('50') });
    const [message] = await receive(QueueUrl, { MaxNumberOfMessages: 10 });
    const envelope = JSON.parse(message.Body);
    assert.equal(envelope.MessageId, sent.MessageId);
    assert.deepEqual([envelope.Message, envelope.Subject, envelope.TopicArn], ['dear', 's', TopicArn]);
    assert.deepEqual(envelope.MessageAttributes, { price: { Type: 'Number', Value: '50' } });
    const PublishBatchRequestEntries = ['5', '11'].map((of) => ({ Id: of, Message: of, MessageAttributes: price(of) }));
    const batch = await topics.publishBatch({ TopicArn, PublishBatchRequestEntries });
    assert.deepEqual(batch.Successful.map(({ Id }) => Id), ['5', '11']);
    const arrived = await receive(QueueUrl, { MaxNumberOfMessages: 10 });
    assert.deepEqual(arrived.map(({ Body }) => JSON.parse(Body).Message), ['11']);
    await topics.unsubscribe({ SubscriptionArn });
    await topics.deleteTopic({ TopicArn });
    await assert.rejects(topics.getTopicAttributes({ TopicArn }), (error) => {
      assert.ok(error instanceof sns.NotFoundException, error.constructor.name);
      assert.equal(error.message, 'Topic does not exist');
      return error.$metadata.httpStatusCode === 404;
    });
    await assert.rejects(topics.subscribe({ TopicArn, Protocol: 'smoke' }), sns.InvalidParameterException);
  }));

check('more topics and subscriptions than a page', async () => {
  const names = Array.from({ length: 110 }, (_, index) => `page-${randomUUID().slice(0, 8)}-${index}`);
  const made = await Promise.all(names.map((Name) => topics.createTopic({ Name })));
  const found = new Set();
  for await (const page of sns.paginateListTopics({ client: topics }, {})) {
    assert.ok(page.Topics.length <= 100);
    page.Topics.forEach(({ TopicArn }) => found.add(TopicArn));
  }
  for (const { TopicArn } of made) assert.ok(found.has(TopicArn), TopicArn);
  await Promise.all(made.map(({ TopicArn }) => topics.deleteTopic({ TopicArn })));
});

check('a client that signs for another region names it in what it is told', async () => {
  const elsewhere = new sns.SNS({ ...settings, region: 'eu-west-1' });
  const { TopicArn } = await elsewhere.createTopic({ Name: `js-${randomUUID().slice(0, 8)}` });
  assert.match(TopicArn, /^arn:aws:sns:eu-west-1:000000000000:js-/);
  await elsewhere.deleteTopic({ TopicArn });
});

check('a delay and an end of visibility come in time', () =>
  withQueue({ VisibilityTimeout: '1' }, async (QueueUrl) => {
    const begun = Date.now();
    await queues.sendMessage({ QueueUrl, MessageBody: 'late', DelaySeconds: 1 });
    assert.equal((await receive(QueueUrl)).length, 1);
    const waited = Date.now() - begun;
    assert.ok(waited >= 1000 && waited < 5000, `${waited} ms`);
    const [again] = await receive(QueueUrl, { MessageSystemAttributeNames: ['ApproximateReceiveCount'] });
    assert.equal(again.Attributes.ApproximateReceiveCount, '2');
    await until(async () => (await attribute(QueueUrl, 'ApproximateNumberOfMessages')) === '1', 'visible again');
  }));

main();
