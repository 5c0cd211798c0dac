// The queue server, on loopback: fauxqs, filled from within so that sending costs nobody anything.
//
// stdout: {"port": <number>}, then one line of JSON for each line of stdin:
//   {"op": "fill", "queue": <name>, "file": <a message a line>, "count": <number>}  a new queue, or more messages in it
//   {"op": "drop", "queue": <name>}
//   {"op": "counts", "queue": <name>}  -> {"deleted", "left", "calls": {<action>: <number>}}
// It ends with its stdin.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const dist = join(process.env.BENCH_MODULES, 'node_modules/fauxqs/dist');
const { buildApp } = await import(pathToFileURL(join(dist, 'app.js')));
const { SqsStore } = await import(pathToFileURL(join(dist, 'sqs/sqsStore.js')));

const sqsStore = new SqsStore();
const app = buildApp({ logger: false, stores: { sqsStore } });
const queues = new Map();
const corpora = new Map();

app.addHook('preHandler', (request, _reply, done) => {
  const name = request.body?.QueueUrl?.split('/').pop();
  const queue = queues.get(name);
  if (queue) {
    const action = (request.headers['x-amz-target'] ?? '').replace('AmazonSQS.', '');
    queue.calls[action] = (queue.calls[action] ?? 0) + 1;
  }
  done();
});

// A long array moves all of its elements each time that the first is taken; this does not.
class Line {
  #items = [];
  #first = 0;

  get length() {
    return this.#items.length - this.#first;
  }

  push(item) {
    this.#items.push(item);
  }

  shift() {
    const item = this.#items[this.#first];
    this.#items[this.#first++] = undefined;
    return item;
  }

  *[Symbol.iterator]() {
    for (let at = this.#first; at < this.#items.length; at++) {
      yield this.#items[at];
    }
  }
}

const operations = {
  fill({ queue: name, file, count }) {
    const { queue } = queues.get(name) ?? newQueue(name);
    const bodies = count > 0 ? corpus(file) : [];
    for (let at = 0; at < count; at++) {
      queue.enqueue(SqsStore.createMessage(bodies[at % bodies.length]));
    }
    return {};
  },
  drop({ queue: name }) {
    const { queue } = queues.get(name);
    sqsStore.deleteQueue(queue.url);
    queues.delete(name);
    return {};
  },
  counts({ queue: name }) {
    const { queue, calls, deleted } = queues.get(name);
    return { deleted, left: queue.messages.length, calls };
  },
};

function newQueue(name) {
  const queue = sqsStore.createQueue(name, `http://127.0.0.1/000000000000/${name}`, `arn:aws:sqs:us-east-1:000000000000:${name}`, {
    VisibilityTimeout: '300',
  });
  queue.messages = new Line();
  const state = { queue, calls: {}, deleted: 0 };
  const deleteMessage = queue.deleteMessage.bind(queue);
  queue.deleteMessage = (handle) => {
    const deleted = deleteMessage(handle);
    state.deleted += deleted ? 1 : 0;
    return deleted;
  };
  queues.set(name, state);
  return state;
}

function corpus(file) {
  if (!corpora.has(file)) {
    corpora.set(file, readFileSync(file, 'utf8').trimEnd().split('\n'));
  }
  return corpora.get(file);
}

await app.listen({ port: 0, host: '127.0.0.1' });
console.log(JSON.stringify({ port: app.server.address().port }));
createInterface({ input: process.stdin })
  .on('line', (line) => {
    const request = JSON.parse(line);
    console.log(JSON.stringify(operations[request.op](request)));
  })
  .on('close', () => process.exit());
