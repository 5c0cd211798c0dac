// Proves the Redis layout that the worker writes against the vendor's SDK, and the programs beside it. Takes no input; needs
// redis-server on PATH and the SDK (see sdk.mjs). Exit code 0 if everything holds.
//
// 1. The layout is written by hand; reader.mjs must answer from it without a single HTTP request.
// 2. Redis is emptied; refetch.mjs must make the SDK write the same keys and the same bytes.
// 3. lock.mjs must write, skip what is stale, and hold the SDK's write lock.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createServer as createTcpServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { loadDependency, sdkVersion } from './sdk.mjs';

const say = (text) => process.stdout.write(`${text}\n`);

const PREFIX = 'production';
const TTL_SECS = 604800;

// Far away: a usage period that has ended is answered as unused, and an entitlement past `validUntil` is fetched again.
const FAR_FUTURE = 4102444800000;
const PERIOD_START = 1825027200000;
const UPDATED_AT = 1763150385133;
const USAGE_UPDATED_AT = 1763150400000;
const RESOURCE_UPDATED_AT = UPDATED_AT + 1;

// --- The layout, as literally as it stands in Redis -------------------------------------------------------------------------

const SSO =
  '{"calculatedEntitlement":{"feature":{"id":"sso","featureType":"BOOLEAN","units":"","unitsPlural":""},' +
  '"usageLimit":null,"hasUnlimitedUsage":false,"hasSoftLimit":false,"enumValues":[]},' +
  '"featureUsage":{"resetPeriod":null,"resetPeriodConfiguration":null,"currentUsage":0}}';
const AUDIT =
  '{"calculatedEntitlement":{"feature":{"id":"audit","featureType":"BOOLEAN","meterType":"None","units":"","unitsPlural":""},' +
  '"usageLimit":null,"hasUnlimitedUsage":false,"hasSoftLimit":false,"accessDeniedReason":"Revoked","enumValues":[]},' +
  '"featureUsage":{"resetPeriod":null,"resetPeriodConfiguration":null,"currentUsage":0}}';
const REGIONS =
  '{"calculatedEntitlement":{"feature":{"id":"regions","featureType":"NUMBER","meterType":"None","units":"region","unitsPlural":"regions"},' +
  '"usageLimit":4294967296.5,"hasUnlimitedUsage":false,"hasSoftLimit":false,"enumValues":[]},' +
  '"featureUsage":{"resetPeriod":null,"resetPeriodConfiguration":null,"currentUsage":0}}';
const TIER =
  '{"calculatedEntitlement":{"feature":{"id":"tier","featureType":"ENUM","units":"","unitsPlural":""},' +
  '"usageLimit":null,"hasUnlimitedUsage":false,"hasSoftLimit":false,"enumValues":["gold","silver"]},' +
  '"featureUsage":{"resetPeriod":null,"resetPeriodConfiguration":null,"currentUsage":0}}';
const seats = (resourceId, limit, usage) =>
  '{"calculatedEntitlement":{"feature":{"id":"seats","featureType":"NUMBER","meterType":"Fluctuating","units":"seat","unitsPlural":"seats"},' +
  (resourceId ? `"resourceId":"${resourceId}",` : '') +
  `"usageLimit":${limit},"hasUnlimitedUsage":false,"hasSoftLimit":false,"enumValues":[],` +
  `"validUntil":${FAR_FUTURE},"creditRate":{"amount":2,"currencyId":"tokens"}},` +
  '"featureUsage":{"resetPeriod":"MONTH",' +
  '"resetPeriodConfiguration":{"__typename":"MonthlyResetPeriodConfig","monthlyAccordingTo":"SubscriptionStart"},' +
  `"currentUsage":${usage},"usagePeriodAnchor":${PERIOD_START},"usagePeriodStart":${PERIOD_START},"usagePeriodEnd":${FAR_FUTURE}}}`;
const usageValue = (usage) =>
  `{"currentUsage":${usage},"usagePeriodStart":${PERIOD_START},"usagePeriodEnd":${FAR_FUTURE}}`;

/** A value key is always written with its timestamp. */
const item = (key, value, timestamp) => ({
  [`${PREFIX}:${key}`]: value,
  [`${PREFIX}:${key}#timestamp`]: String(timestamp),
});

const GLOBAL_ENTITLEMENTS = `{"sso":${SSO},"audit":${AUDIT},"regions":${REGIONS},"tier":${TIER},"seats":${seats(null, 10, 4)}}`;
const WRITTEN_BY_SDK = {
  ...item('c_acme', GLOBAL_ENTITLEMENTS, UPDATED_AT),
  ...item('c_acme:f_seats', usageValue(4), USAGE_UPDATED_AT),
};
const GLOBAL_LAYOUT = {
  ...item('c_acme', GLOBAL_ENTITLEMENTS, UPDATED_AT),
  ...item('c_acme:metadata', '{"accessDeniedReason":null}', UPDATED_AT),
  // The usage key wins over the usage inside of the entitlement.
  ...item('c_acme:f_seats', usageValue(7), USAGE_UPDATED_AT),
};
const RESOURCE_LAYOUT = {
  ...item('c_acme:r_site-1', `{"sso":${SSO},"regions":${REGIONS},"tier":${TIER},"seats":${seats('site-1', 2, 0)}}`, RESOURCE_UPDATED_AT),
  ...item('c_acme:r_site-1:metadata', '{"accessDeniedReason":null}', RESOURCE_UPDATED_AT),
  ...item('c_acme:r_site-1:f_seats', usageValue(2), USAGE_UPDATED_AT),
};
const EMPTY_LAYOUT = {
  ...item('c_empty', '{}', UPDATED_AT),
  ...item('c_empty:metadata', '{"accessDeniedReason":"NoActiveSubscription"}', UPDATED_AT),
};

// --- The same entitlements, as the Edge API answers them ---------------------------------------------------------------------

const graphql = (refId, featureType, meterType, units, own) => ({
  __typename: 'Entitlement',
  isGranted: true,
  accessDeniedReason: null,
  usageLimit: null,
  hasUnlimitedUsage: false,
  hasSoftLimit: false,
  currentUsage: 0,
  enumValues: null,
  entitlementUpdatedAt: new Date(UPDATED_AT).toISOString(),
  usageUpdatedAt: null,
  usagePeriodAnchor: null,
  usagePeriodStart: null,
  usagePeriodEnd: null,
  resetPeriod: null,
  resetPeriodConfiguration: null,
  feature: {
    __typename: 'EntitlementFeature',
    refId,
    displayName: refId,
    featureType,
    meterType,
    featureUnits: units && `${units}`,
    featureUnitsPlural: units && `${units}s`,
  },
  ...own,
});
const ENTITLEMENTS = [
  graphql('sso', 'BOOLEAN', null, null),
  graphql('audit', 'BOOLEAN', 'None', null, { isGranted: false, accessDeniedReason: 'Revoked' }),
  graphql('regions', 'NUMBER', 'None', 'region', { usageLimit: 4294967296.5 }),
  graphql('tier', 'ENUM', null, null, { enumValues: ['gold', 'silver'] }),
  graphql('seats', 'NUMBER', 'Fluctuating', 'seat', {
    usageLimit: 10,
    currentUsage: 4,
    usageUpdatedAt: new Date(USAGE_UPDATED_AT).toISOString(),
    usagePeriodAnchor: new Date(PERIOD_START).toISOString(),
    usagePeriodStart: new Date(PERIOD_START).toISOString(),
    usagePeriodEnd: new Date(FAR_FUTURE).toISOString(),
    resetPeriod: 'MONTH',
    resetPeriodConfiguration: { __typename: 'MonthlyResetPeriodConfig', monthlyAccordingTo: 'SubscriptionStart' },
    creditRate: { amount: 2, currencyId: 'tokens' },
    validUntil: FAR_FUTURE,
  }),
];

// --- What the SDK must answer ------------------------------------------------------------------------------------------------

const ssoAnswer = {
  type: 'BOOLEAN',
  isFallback: false,
  hasAccess: true,
  feature: { id: 'sso', featureType: 'BOOLEAN', units: '', unitsPlural: '', isMetered: false },
};
const auditAnswer = {
  type: 'BOOLEAN',
  isFallback: false,
  hasAccess: false,
  accessDeniedReason: 'Revoked',
  feature: { id: 'audit', featureType: 'BOOLEAN', meterType: 'None', units: '', unitsPlural: '', isMetered: false },
};
const regionsAnswer = {
  type: 'NUMERIC',
  isFallback: false,
  hasAccess: true,
  isUnlimited: false,
  value: 4294967296.5,
  feature: { id: 'regions', featureType: 'NUMBER', meterType: 'None', units: 'region', unitsPlural: 'regions', isMetered: false },
};
const tierAnswer = {
  type: 'ENUM',
  isFallback: false,
  hasAccess: true,
  feature: { id: 'tier', featureType: 'ENUM', units: '', unitsPlural: '', isMetered: false },
  enumValues: ['gold', 'silver'],
};
const seatsAnswer = (usageLimit, currentUsage, own = {}) => ({
  type: 'METERED',
  isFallback: false,
  hasAccess: true,
  isUnlimited: false,
  hasSoftLimit: false,
  usageLimit,
  currentUsage,
  requestedUsage: 0,
  resetPeriod: 'MONTH',
  usagePeriodAnchor: new Date(PERIOD_START).toISOString(),
  usagePeriodStart: new Date(PERIOD_START).toISOString(),
  usagePeriodEnd: new Date(FAR_FUTURE).toISOString(),
  nextResetDate: new Date(FAR_FUTURE).toISOString(),
  feature: { id: 'seats', featureType: 'NUMBER', meterType: 'Fluctuating', units: 'seat', unitsPlural: 'seats', isMetered: true },
  ...own,
});
const exceeded = (requestedUsage) => ({ hasAccess: false, accessDeniedReason: 'RequestedUsageExceedingLimit', requestedUsage });

const query = (method, featureId, options, resourceId) => ({ method, args: { customerId: 'acme', resourceId, featureId, options } });
const GLOBAL_QUERIES = [
  [query('getBooleanEntitlement', 'sso'), ssoAnswer],
  [query('getBooleanEntitlement', 'audit'), auditAnswer],
  [query('getNumericEntitlement', 'regions'), regionsAnswer],
  [query('getMeteredEntitlement', 'seats', { requestedUsage: 3 }), seatsAnswer(10, 7, { requestedUsage: 3 })],
  [query('getMeteredEntitlement', 'seats', { requestedUsage: 4 }), seatsAnswer(10, 7, exceeded(4))],
  [query('getEnumEntitlement', 'tier', { requestedValues: ['gold'] }), { ...tierAnswer, requestedValues: ['gold'] }],
  [
    query('getEnumEntitlement', 'tier', { requestedValues: ['lead'] }),
    { ...tierAnswer, hasAccess: false, accessDeniedReason: 'RequestedValuesMismatch', requestedValues: ['lead'] },
  ],
  [
    query('getBooleanEntitlement', 'unknown'),
    { type: 'BOOLEAN', hasAccess: false, accessDeniedReason: 'NoFeatureEntitlementInSubscription', isFallback: false },
  ],
  [{ method: 'getEntitlements', args: ['acme'] }, [ssoAnswer, auditAnswer, regionsAnswer, tierAnswer, seatsAnswer(10, 7)]],
];
const RESOURCE_QUERIES = [
  [query('getBooleanEntitlement', 'sso', undefined, 'site-1'), ssoAnswer],
  [query('getNumericEntitlement', 'regions', undefined, 'site-1'), regionsAnswer],
  [query('getMeteredEntitlement', 'seats', undefined, 'site-1'), seatsAnswer(2, 2)],
  [query('getMeteredEntitlement', 'seats', { requestedUsage: 1 }, 'site-1'), seatsAnswer(2, 2, exceeded(1))],
  [query('getEnumEntitlement', 'tier', { requestedValues: ['gold'] }, 'site-1'), { ...tierAnswer, requestedValues: ['gold'] }],
  [{ method: 'getEntitlements', args: ['acme', 'site-1'] }, [ssoAnswer, regionsAnswer, tierAnswer, seatsAnswer(2, 2)]],
];
const EMPTY_QUERIES = [
  [
    { method: 'getBooleanEntitlement', args: { customerId: 'empty', featureId: 'sso' } },
    { type: 'BOOLEAN', hasAccess: false, accessDeniedReason: 'CustomerNotFound', isFallback: false },
  ],
  [{ method: 'getEntitlements', args: ['empty'] }, []],
];

// --- Running the programs ----------------------------------------------------------------------------------------------------

// Preloaded into a program, it writes down every address that the process opens a connection to.
const CONNECTION_RECORDER = `data:text/javascript,${encodeURIComponent(`
  import { appendFileSync } from 'node:fs';
  import { Socket } from 'node:net';
  const connect = Socket.prototype.connect;
  Socket.prototype.connect = function (...args) {
    const { host, port, path } = Array.isArray(args[0]) ? args[0][0] : args[0];
    appendFileSync(process.env.CONNECTIONS_FILE, (path ?? host + ':' + port) + '\\n');
    return connect.apply(this, args);
  };
`)}`;

function start(program, input, connectionsFile) {
  const child = spawn(
    process.execPath,
    [...(connectionsFile ? ['--import', CONNECTION_RECORDER] : []), fileURLToPath(new URL(program, import.meta.url))],
    {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, CONNECTIONS_FILE: connectionsFile ?? '' },
      timeout: 60_000,
    },
  );
  child.stdin.end(JSON.stringify(input));
  child.lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return child;
}

async function finish(child) {
  const exit = once(child, 'exit');
  const lines = [];
  for await (const line of child.lines) {
    lines.push(line);
  }
  const [code, signal] = await exit;
  assert.equal(code, 0, `${child.spawnargs.at(-1)} ended with ${signal ?? code}`);
  return lines;
}

async function runToJson(program, input, connectionsFile) {
  const lines = await finish(start(program, input, connectionsFile));
  assert.equal(lines.length, 1, `${program} must print one line only, got: ${lines.join('\n')}`);
  return JSON.parse(lines[0]);
}

async function startRedis(dir) {
  const port = await freePort();
  const server = spawn(
    'redis-server',
    ['--bind', '127.0.0.1', '--port', String(port), '--save', '', '--appendonly', 'no', '--dir', dir],
    { stdio: 'ignore' },
  );
  const exited = once(server, 'exit').catch(() => {});
  const stop = () => {
    server.kill();
    return exited;
  };
  process.once('exit', stop);
  const died = new Promise((_, reject) => {
    server.once('error', (error) => reject(new Error(`redis-server cannot be started: ${error.message}`)));
    server.once('exit', (code) => reject(new Error(`redis-server ended with code ${code}`)));
  });
  // Still a rejection for a caller that waits for it, but not an unhandled one when the server is stopped.
  died.catch(() => {});
  return { port, died, stop };
}

async function freePort() {
  const listener = createTcpServer().listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port } = listener.address();
  listener.close();
  await once(listener, 'close');
  return port;
}

// --- The proof ---------------------------------------------------------------------------------------------------------------

async function prove({ redis, port, dir }) {
  const redisOptions = { host: '127.0.0.1', port, db: 0, environmentPrefix: PREFIX };
  const requests = [];
  const edge = createServer((request, response) => {
    requests.push(request.url);
    response.writeHead(404).end();
  }).listen(0, '127.0.0.1');
  await once(edge, 'listening');
  const edgeUrl = `http://127.0.0.1:${edge.address().port}`;

  const write = async (entries) => {
    for (const [key, value] of Object.entries(entries)) {
      await redis.set(key, value, 'EX', TTL_SECS);
    }
  };
  const stored = async () => {
    const keys = (await redis.keys('*')).sort();
    return Object.fromEntries(await Promise.all(keys.map(async (key) => [key, await redis.get(key)])));
  };
  const read = async (queries) => {
    requests.length = 0;
    const { answers } = await runToJson('reader.mjs', { redis: redisOptions, edgeUrl, queries });
    return { answers, requests: [...requests] };
  };
  const check = async (name, proof) => {
    const started = Date.now();
    await proof();
    say(`ok   ${name} (${Date.now() - started} ms)`);
  };

  await check('the layout is read without a single HTTP request', async () => {
    await write({ ...GLOBAL_LAYOUT, ...RESOURCE_LAYOUT, ...EMPTY_LAYOUT });
    const cases = [...GLOBAL_QUERIES, ...RESOURCE_QUERIES, ...EMPTY_QUERIES];
    const before = await stored();
    const connectionsFile = join(dir, 'connections');
    const input = { redis: redisOptions, edgeUrl, queries: cases.map(([asked]) => asked) };
    const { answers } = await runToJson('reader.mjs', input, connectionsFile);

    cases.forEach(([asked, expected], index) => {
      assert.deepEqual(answers[index], expected, `answer to ${JSON.stringify(asked)}`);
      say(`     ${JSON.stringify(asked)}\n       -> ${JSON.stringify(answers[index])}`);
    });
    assert.deepEqual(requests, [], 'requests to the Edge API');
    const connections = new Set((await readFile(connectionsFile, 'utf8')).trim().split('\n'));
    assert.deepEqual([...connections], [`127.0.0.1:${port}`], 'addresses that the process connected to');
    assert.deepEqual(await stored(), before, 'Redis after reading');
  });

  // Without these, the zero above could come from a server that nobody asks.
  await check('misses do reach the Edge API', async () => {
    const unknown = await read([{ method: 'getEntitlements', args: ['nobody'] }]);
    assert.deepEqual(unknown.requests, ['/v1/c/nobody/entitlements.json']);
    assert.deepEqual(unknown.answers, [[]]);

    await redis.del(`${PREFIX}:c_acme:f_seats`);
    const withoutUsage = await read([query('getMeteredEntitlement', 'seats')]);
    assert.deepEqual(withoutUsage.requests, ['/v1/c/acme/entitlements.json']);
    assert.equal(withoutUsage.answers[0].isFallback, true);

    // A newer global write makes the resource a miss.
    await redis.set(`${PREFIX}:c_acme#timestamp`, RESOURCE_UPDATED_AT + 1);
    const outdatedResource = await read([query('getBooleanEntitlement', 'sso', undefined, 'site-1')]);
    assert.deepEqual(outdatedResource.requests.sort(), [
      '/v1/c/acme/entitlements.json',
      '/v1/c/acme/entitlements.json?resourceId=site-1',
    ]);
  });

  await check('a usage period that has ended is answered as unused, without a request', async () => {
    await write(item('c_acme:f_seats', '{"currentUsage":9,"usagePeriodStart":1,"usagePeriodEnd":2}', USAGE_UPDATED_AT));
    const { answers, requests } = await read([query('getMeteredEntitlement', 'seats')]);
    assert.equal(answers[0].currentUsage, 0);
    assert.deepEqual(requests, []);
  });

  await check('the SDK writes the layout when it refetches', async () => {
    await redis.flushdb();
    const queries = [query('getMeteredEntitlement', 'seats'), query('getBooleanEntitlement', 'sso')];
    const result = await runToJson('refetch.mjs', { redis: redisOptions, queries, entitlements: ENTITLEMENTS });
    assert.deepEqual(result.requests, ['/v1/c/acme/entitlements.json'], 'one miss, then hits');
    assert.deepEqual(result.answers, [seatsAnswer(10, 4), ssoAnswer]);
    assert.deepEqual(await stored(), WRITTEN_BY_SDK);
    for (const key of Object.keys(WRITTEN_BY_SDK)) {
      assert.ok(Math.abs((await redis.ttl(key)) - TTL_SECS) < 60, `TTL of ${key}`);
    }
  });

  await check('the SDK writes the customer too when it refetches a resource', async () => {
    await redis.flushdb();
    const result = await runToJson('refetch.mjs', {
      redis: redisOptions,
      queries: [query('getMeteredEntitlement', 'seats', undefined, 'site-1')],
      entitlements: ENTITLEMENTS,
      delayMs: 50,
    });
    assert.deepEqual(result.requests.sort(), [
      '/v1/c/acme/entitlements.json',
      '/v1/c/acme/entitlements.json?resourceId=site-1',
    ]);
    const expected = {
      ...WRITTEN_BY_SDK,
      ...item('c_acme:r_site-1', GLOBAL_ENTITLEMENTS, UPDATED_AT),
      ...item('c_acme:r_site-1:f_seats', usageValue(4), USAGE_UPDATED_AT),
    };
    assert.deepEqual(await stored(), expected);
    Object.entries(expected).sort().forEach(([key, value]) => say(`     ${key}\n       = ${value}`));
  });

  await check("lock.mjs writes with the SDK's cache class, which skips what is stale", async () => {
    await redis.flushdb();
    const customer = { customerId: 'acme', entitlements: ENTITLEMENTS };
    const usage = { op: 'updateFeatureUsage', customerId: 'acme', featureId: 'seats', usagePeriodStart: PERIOD_START, usagePeriodEnd: FAR_FUTURE };
    const result = await runToJson('lock.mjs', {
      redis: redisOptions,
      gapMs: 10,
      writes: [
        { op: 'setCustomer', ...customer, timestamp: UPDATED_AT, usageTimestamps: { seats: USAGE_UPDATED_AT } },
        { op: 'setCustomer', ...customer, entitlements: [], timestamp: UPDATED_AT - 1 },
        { ...usage, currentUsage: 8, timestamp: USAGE_UPDATED_AT + 1 },
        { ...usage, currentUsage: 5, timestamp: USAGE_UPDATED_AT },
      ],
    });
    assert.deepEqual(result, { done: 4, errors: [] });
    assert.deepEqual(await stored(), { ...WRITTEN_BY_SDK, ...item('c_acme:f_seats', usageValue(8), USAGE_UPDATED_AT + 1) });
  });

  await check('lock.mjs holds the write lock of the SDK', async () => {
    await redis.flushdb();
    const lock = start('lock.mjs', { redis: redisOptions, holdLock: { customerId: 'acme', resourceId: 'site-1', ms: 500 } });
    assert.equal((await lock.lines.next()).value, 'locked');
    const key = `${PREFIX}-acme:site-1`;
    assert.deepEqual(await redis.keys('*'), [key]);
    const ttl = await redis.pttl(key);
    assert.ok(ttl > 0 && ttl <= 5000, `PTTL of the lock is ${ttl}`);
    assert.equal((await lock.lines.next()).value, 'released');
    assert.deepEqual(await redis.keys('*'), []);
    assert.deepEqual((await finish(lock)).map((line) => JSON.parse(line)), [{ done: 0, errors: [] }]);
  });

  edge.close();
}

// A signal alone would leave redis-server running.
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => process.exit(1));
}
const dir = await mkdtemp(join(tmpdir(), 'entitlement-sync-sdk-'));
let redis;
let stopRedis;
try {
  say(`@stigg/node-server-sdk ${sdkVersion()}`);
  const { port, died, stop } = await startRedis(dir);
  stopRedis = stop;
  const { default: Redis } = loadDependency('ioredis');
  redis = new Redis({ host: '127.0.0.1', port, retryStrategy: () => 20, maxRetriesPerRequest: null });
  // It is still starting; if it does not, `died` says so.
  redis.on('error', () => {});
  await Promise.race([prove({ redis, port, dir }), died]);
  say('all good');
} catch (error) {
  say(`FAILED ${error.stack}`);
  process.exitCode = 1;
} finally {
  redis?.disconnect();
  await stopRedis?.();
  await rm(dir, { recursive: true, force: true });
  process.exit();
}
