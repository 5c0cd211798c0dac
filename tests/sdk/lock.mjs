// Writes Redis with the SDK's own cache class, for tests of races between the SDK and the worker.
//
// stdin:  {"redis": {"host", "port", "db", "environmentPrefix"},
//          "holdLock": {"customerId", "resourceId", "ms"},
//          "gapMs": <number>,
//          "writes": [{"op": "setCustomer", "customerId", "resourceId", "entitlements": [<GraphQL Entitlement>],
//                      "timestamp": <ms>, "usageTimestamps": {"<featureId>": <ms>}},
//                     {"op": "updateFeatureUsage", "customerId", "resourceId", "featureId", "currentUsage",
//                      "usagePeriodStart": <ms>, "usagePeriodEnd": <ms>, "timestamp": <ms>}]}
//         Only "redis" is required.
// stdout: with "holdLock" the line `locked` once the SDK's write lock is held and, after "ms", the line `released`;
//         then the writes are done one after another; last {"done": <number of writes>, "errors": [...]}
//
// "gapMs" makes each write wait, between reading the stored timestamps and writing the values: the moment in which a writer
// that ignores the lock would be overwritten.
// "errors" is what the SDK logged: it swallows a failed write, for one when the lock stays taken for about two seconds.

import { setTimeout as sleep } from 'node:timers/promises';

import { connected, ErrorLog, loadSdk, printLine, run, sdkOptions } from './sdk.mjs';

await run(async ({ redis, holdLock, gapMs = 0, writes = [] }) => {
  const log = new ErrorLog();
  const cache = createCache(redis, log);
  await connected(cache, redis);
  if (gapMs > 0) {
    delayTransactions(cache.redisClient, gapMs);
  }
  if (holdLock) {
    await hold(cache, holdLock);
  }
  for (const write of writes) {
    await apply(cache, write);
  }
  return { done: writes.length, errors: log.messages };
});

function createCache(redis, log) {
  const { RedisCacheService } = loadSdk('services/cache/redisCacheService');
  const { getConfiguration } = loadSdk('configuration');
  const { LoggerService } = loadSdk('services/loggerService');
  const { CacheInstrumentation } = loadSdk('services/cacheInstrumentation');
  const { TypedEventEmitter } = loadSdk('services/eventEmitter');

  // Nothing here asks the Edge API; port 9 would refuse.
  const options = getConfiguration(sdkOptions(redis, 'http://127.0.0.1:9', log));
  const { logger, logLevel } = options.logConfiguration;
  return new RedisCacheService(options, new LoggerService(logger, logLevel), new CacheInstrumentation(new TypedEventEmitter()));
}

function delayTransactions(redisClient, gapMs) {
  const multi = redisClient.multi.bind(redisClient);
  redisClient.multi = () => {
    const batch = multi();
    // ioredis sends nothing of the transaction before exec().
    const exec = batch.exec.bind(batch);
    batch.exec = () => sleep(gapMs).then(exec);
    return batch;
  };
}

async function hold(cache, { customerId, resourceId, ms }) {
  const { buildLockKey } = loadSdk('utils/cacheKeysHelpers');
  const lockKey = buildLockKey(cache.environmentPrefix, customerId, resourceId);
  await cache.distributedLocks.using(lockKey, async () => {
    await printLine('locked');
    await sleep(ms);
  });
  await printLine('released');
}

async function apply(cache, write) {
  const { op, customerId, resourceId = undefined, timestamp } = write;
  switch (op) {
    case 'setCustomer': {
      const CacheMapper = loadSdk('utils/CacheMapper').default;
      const entitlements = new CacheMapper().mapCachedEntitlements(write.entitlements);
      const usageTimestamps = new Map(Object.entries(write.usageTimestamps ?? {}));
      return cache.setCustomer(customerId, entitlements, resourceId, timestamp, usageTimestamps);
    }
    case 'updateFeatureUsage': {
      const { featureId, currentUsage, usagePeriodStart, usagePeriodEnd } = write;
      return cache.updateFeatureUsage({
        customerId,
        resourceId,
        featureId,
        currentUsage,
        usagePeriodStart,
        usagePeriodEnd,
        timestamp: new Date(timestamp),
      });
    }
    default:
      throw new Error(`unknown op ${JSON.stringify(op)}: expected "setCustomer" or "updateFeatureUsage"`);
  }
}
