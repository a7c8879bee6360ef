/** What the programs with AWS's JavaScript clients share: clients of this broker, and queues for the length of a check. */
'use strict';

const { randomUUID } = require('node:crypto');
const { packages } = require('./checks.js');
const sqs = packages('@aws-sdk/client-sqs');
const sns = packages('@aws-sdk/client-sns');

const settings = { region: 'us-east-1', credentials: { accessKeyId: 'test', secretAccessKey: 'test' } };

// Where it is they find in AWS_ENDPOINT_URL. SQS has all operations as methods, SNS too.
const queues = new sqs.SQS(settings);
const topics = new sns.SNS(settings);

/** Runs `use` with the address and the name of a new queue. */
async function withQueue(Attributes, use) {
  const QueueName = `js-${randomUUID().slice(0, 8)}${Attributes.FifoQueue ? '.fifo' : ''}`;
  const { QueueUrl } = await queues.createQueue({ QueueName, Attributes });
  try {
    return await use(QueueUrl, QueueName);
  } finally {
    await queues.deleteQueue({ QueueUrl });
  }
}

async function attribute(QueueUrl, name) {
  const answer = await queues.getQueueAttributes({ QueueUrl, AttributeNames: [name] });
  return answer.Attributes[name];
}

async function receive(QueueUrl, more = {}) {
  const answer = await queues.receiveMessage({ QueueUrl, WaitTimeSeconds: 10, ...more });
  return answer.Messages ?? [];
}

/** Waits until `condition` holds. */
async function until(condition, what) {
  const end = Date.now() + 20000;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`it has not come to this: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

module.exports = { attribute, queues, receive, settings, sns, sqs, topics, until, withQueue };
