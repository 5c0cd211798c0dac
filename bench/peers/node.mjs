// The peer: sqs-consumer over the AWS SDK, writing with the Redis store of the vendor's SDK, which is how the vendor's
// own service is built. It does the least that such a service must: no schema checks, no metrics, no health endpoint.

import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const fromModules = createRequire(join(process.env.BENCH_MODULES, 'package.json'));
const { Consumer } = await import(pathToFileURL(fromModules.resolve('sqs-consumer')));
const { SQSClient, ReceiveMessageCommand } = fromModules('@aws-sdk/client-sqs');
const sdk = (file) => fromModules(`@stigg/node-server-sdk/dist/${file}.js`);

const { QUEUE_URL, BATCH_SIZE, CONSUMERS, REDIS_PORT } = process.env;
const batchSize = Number(BATCH_SIZE);
const silent = new (class {
  error(...words) {
    console.error(...words);
  }
  log() {}
  debug() {}
})();

const cache = createCache();
const mapper = new (sdk('utils/CacheMapper').default)();
await cache.waitForInitialization();

const sqs = new SQSClient({ region: 'us-east-1' });
const consumers = Array.from({ length: Number(CONSUMERS) }, () =>
  Consumer.create({
    queueUrl: QUEUE_URL,
    sqs,
    batchSize,
    waitTimeSeconds: 20,
    // Both acknowledge what they return.
    ...(batchSize > 1
      ? { handleMessageBatch: (messages) => Promise.all(messages.map(handle)) }
      : { handleMessage: handle }),
  }),
);
for (const consumer of consumers) {
  consumer.on('error', (error) => console.error(error));
  consumer.on('processing_error', (error) => console.error(error));
}
await sqs.send(new ReceiveMessageCommand({ QueueUrl: QUEUE_URL, WaitTimeSeconds: 0, VisibilityTimeout: 0 }));
consumers.forEach((consumer) => consumer.start());
console.log('ready');

async function handle(message) {
  const { type, timestamp, payload } = JSON.parse(message.Body);
  const { customerId, resourceId } = payload;
  switch (type) {
    case 'ENTITLEMENTS_UPDATED': {
      const times = payload.entitlements.map((it) => new Date(it.entitlementUpdatedAt).getTime());
      const usageTimes = new Map(
        payload.entitlements.map((it) => [it.feature.refId, new Date(it.usageUpdatedAt).getTime()]),
      );
      const entitlements = mapper.mapCachedEntitlements(payload.entitlements);
      await cache.setCustomer(customerId, entitlements, resourceId ?? undefined, Math.max(...times), usageTimes);
      break;
    }
    case 'MEASUREMENT_REPORTED':
      await cache.updateFeatureUsage({
        customerId,
        resourceId: resourceId ?? undefined,
        featureId: payload.featureId,
        currentUsage: payload.currentUsage,
        usagePeriodStart: new Date(payload.usagePeriodStart).getTime(),
        usagePeriodEnd: new Date(payload.usagePeriodEnd).getTime(),
        timestamp: new Date(payload.usageUpdatedAt ?? timestamp),
      });
      break;
    case 'CUSTOMER_DELETED': {
      const key = `${cache.environmentPrefix}:c_${customerId}`;
      await cache.redisClient.del(key, `${key}#timestamp`);
      break;
    }
  }
  return message;
}

function createCache() {
  const { RedisCacheService } = sdk('services/cache/redisCacheService');
  const { getConfiguration } = sdk('configuration');
  const { LoggerService } = sdk('services/loggerService');
  const { CacheInstrumentation } = sdk('services/cacheInstrumentation');
  const { TypedEventEmitter } = sdk('services/eventEmitter');
  const { LogLevel } = sdk('index');
  const nowhere = 'http://127.0.0.1:9';
  const options = getConfiguration({
    apiKey: 'bench',
    baseUri: nowhere,
    baseEdgeUri: nowhere,
    wsUrl: 'ws://127.0.0.1:9',
    enableRemoteConfig: false,
    realtimeUpdatesEnabled: false,
    logConfiguration: { logger: silent, logLevel: LogLevel.ERROR },
    redis: { host: '127.0.0.1', port: Number(REDIS_PORT), db: 0, environmentPrefix: 'production' },
  });
  return new RedisCacheService(options, new LoggerService(silent, LogLevel.ERROR), new CacheInstrumentation(new TypedEventEmitter()));
}
