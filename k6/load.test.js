// Publishes entitlement events at a steady rate, and compares the worker's lag with a bound.
//
//   k6 run -e QUEUE_URL=https://sqs.us-east-1.amazonaws.com/123456789012/entitlements \
//          -e METRICS_URL=http://localhost:4000/metrics -e RPS=100 -e DURATION=1m -e LAG_P95_SECS=1 k6/load.test.js
//
// AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN are those of the publisher, which needs
// sqs:SendMessage. AWS_ENDPOINT_URL selects a local SQS, for example http://localhost:4566. Use a queue, a Redis and an
// ENVIRONMENT_PREFIX made for the test: it writes customers called load-0, load-1, ….

import http from 'k6/http';
import { check, fail, sleep } from 'k6';
import { Counter, Gauge } from 'k6/metrics';
import { AWSConfig, Endpoint, SQSClient } from 'https://jslib.k6.io/aws/0.14.0/sqs.js';

const RPS = Number(__ENV.RPS || 50);
const DURATION = __ENV.DURATION || '1m';
const CUSTOMERS = Number(__ENV.CUSTOMERS || 1000);
const LAG_P95_SECS = Number(__ENV.LAG_P95_SECS || 1);
const METRICS_URL = __ENV.METRICS_URL || 'http://localhost:4000/metrics';
const QUEUE_URL = __ENV.QUEUE_URL;
const BATCH = 10;
const DRAIN_SECS = 60;

export const options = {
  scenarios: {
    publish: {
      executor: 'constant-arrival-rate',
      exec: 'publish',
      rate: Math.max(1, Math.round(RPS / BATCH)),
      timeUnit: '1s',
      duration: DURATION,
      preAllocatedVUs: 20,
      maxVUs: 200,
    },
    watch: { executor: 'constant-vus', exec: 'watch', vus: 1, duration: DURATION },
  },
  teardownTimeout: `${DRAIN_SECS + 30}s`,
  thresholds: {
    checks: ['rate==1'],
    published: ['count>0'],
    entitlement_sync_lag_p95: [`value<=${LAG_P95_SECS}`],
    entitlement_sync_unfinished: ['value==0'],
    entitlement_sync_failed: ['value==0'],
    dropped_iterations: ['count==0'],
  },
};

const published = new Counter('published');
const lagP95 = new Gauge('entitlement_sync_lag_p95');
const unfinished = new Gauge('entitlement_sync_unfinished');
const failed = new Gauge('entitlement_sync_failed');

const config = new AWSConfig({
  region: __ENV.AWS_REGION || 'us-east-1',
  accessKeyId: __ENV.AWS_ACCESS_KEY_ID || 'test',
  secretAccessKey: __ENV.AWS_SECRET_ACCESS_KEY || 'test',
  sessionToken: __ENV.AWS_SESSION_TOKEN,
});
if (__ENV.AWS_ENDPOINT_URL) {
  config.endpoint = new Endpoint(__ENV.AWS_ENDPOINT_URL);
}
const sqs = new SQSClient(config);

function event(customer) {
  const now = new Date().toISOString();
  return JSON.stringify({
    type: 'entitlements.updated',
    timestamp: now,
    customer: { id: `load-${customer}` },
    entitlementsUpdatedAt: now,
    entitlements: [
      { feature: { id: 'sso', featureType: 'BOOLEAN' } },
      { feature: { id: 'seats', featureType: 'NUMBER', meterType: 'NONE' }, usageLimit: 10 },
    ],
  });
}

// The sum of a metric's series whose labels include all of these.
function sum(text, name, labels) {
  return text.split('\n').reduce((total, line) => {
    const of = line.startsWith(`${name} `) || line.startsWith(`${name}{`);
    return of && (labels || []).every((label) => line.includes(label)) ? total + Number(line.split(' ').pop()) : total;
  }, 0);
}

function buckets(text) {
  const found = {};
  for (const line of text.split('\n')) {
    const bucket = /^entitlement_sync_lag_seconds_bucket\{le="([^"]+)"\} (\S+)/.exec(line);
    if (bucket) {
      found[bucket[1]] = Number(bucket[2]);
    }
  }
  return found;
}

// The upper bound of the bucket that holds the quantile of the messages since `before`.
function quantile(of, before, now) {
  const bounds = Object.keys(now).map((le) => (le === '+Inf' ? Infinity : Number(le))).sort((a, b) => a - b);
  const since = (bound) => {
    const le = Object.keys(now).find((name) => (name === '+Inf' ? Infinity : Number(name)) === bound);
    return now[le] - (before[le] || 0);
  };
  const total = since(Infinity);
  return total === 0 ? 0 : bounds.find((bound) => since(bound) >= of * total);
}

function scrape() {
  const answer = http.get(METRICS_URL, { tags: { name: 'metrics' } });
  check(answer, { 'the worker answers /metrics': (it) => it.status === 200 });
  return answer.body || '';
}

export function setup() {
  if (!QUEUE_URL) {
    fail('QUEUE_URL is not set');
  }
  const text = scrape();
  return {
    buckets: buckets(text),
    done: sum(text, 'entitlement_sync_messages_acknowledged_total'),
    failed: sum(text, 'entitlement_sync_messages_processed_total', ['outcome="failed"']),
  };
}

export async function publish() {
  const entries = Array.from({ length: BATCH }, (_, at) => ({
    messageId: String(at),
    messageBody: event(Math.floor(Math.random() * CUSTOMERS)),
  }));
  const answer = await sqs.sendMessageBatch(QUEUE_URL, entries);
  check(answer, { 'all are sent': (it) => it.successful.length === BATCH });
  published.add(answer.successful.length);
}

export function watch(before) {
  const p95 = quantile(0.95, before.buckets, buckets(scrape()));
  // The last bucket has no end.
  lagP95.add(p95 === Infinity ? Number.MAX_SAFE_INTEGER : p95);
  sleep(2);
}

// The worker finishes the sent messages shortly after. Works with one worker, or an address that reaches one worker.
export function teardown(before) {
  let inFlight;
  for (let waited = 0; waited < DRAIN_SECS; waited += 1) {
    const text = scrape();
    inFlight = sum(text, 'entitlement_sync_inflight_messages');
    const quiet = sum(text, 'entitlement_sync_messages_acknowledged_total');
    if (inFlight === 0 && quiet > before.done && quiet === before.last) {
      break;
    }
    before.last = quiet;
    sleep(1);
  }
  const text = scrape();
  unfinished.add(inFlight);
  failed.add(sum(text, 'entitlement_sync_messages_processed_total', ['outcome="failed"']) - before.failed);
  const p95 = quantile(0.95, before.buckets, buckets(text));
  lagP95.add(p95 === Infinity ? Number.MAX_SAFE_INTEGER : p95);
}
